//! One AMQP connection whose socket stays in our hands: dropping it ends the connection, and with it the client's thread.

use std::collections::BTreeMap;
use std::net::Shutdown;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_compat::Compat;
use futures_util::StreamExt;
use kaleem_core::health::{Finding, Resolver, Verdict};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::tcp::{AsyncTcpStream, OwnedTLSConfig};
use lapin::types::FieldTable;
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ErrorKind, Event};

use crate::dial::{DialError, Endpoint, connect};
use crate::report::word;

/// Half of this without a sign of life ends a connection (twice is the broker's own measure).
const HEARTBEAT_SECONDS: u16 = 10;

/// The longest frame that we ask for, in bytes: the least that brokers of version 4 grant, and questions are short. The client keeps
/// 32 of them for each direction of each connection.
const FRAME_BYTES: u32 = 8192;

/// What a queue holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Depth {
    pub messages: u32,
    pub consumers: u32,
}

/// Why an answer is missing.
#[derive(Debug)]
pub(super) enum Missed {
    Dial(DialError),
    Refused(AMQPErrorKind, Reason),
    /// The queue is not there.
    Absent,
    /// TLS, or what the certificate says.
    Tls,
    Closed,
    NotAmqp,
}

/// What the text of a refusal says, as far as it makes a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    NotFound,
    Other,
}

/// Ends a connection, whoever else holds it.
struct Socket(std::net::TcpStream);

impl Drop for Socket {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.0.shutdown(Shutdown::Both));
    }
}

/// An open connection.
pub(super) struct Link {
    connection: Connection,
    /// The channel for canaries, once it is open.
    confirming: tokio::sync::Mutex<Option<Channel>>,
    /// How long it took to open.
    pub phases: BTreeMap<String, Duration>,
    _socket: Socket,
}

impl Link {
    pub(super) async fn open(endpoint: &Endpoint, uri: &AMQPUri, resolver: &dyn Resolver, timeout: Duration) -> Result<Self, Missed> {
        let (stream, phases) = connect(endpoint, resolver, timeout).await.map_err(Missed::Dial)?;
        let stream = stream.into_std().map_err(|_| Missed::Closed)?;
        let socket = Socket(stream.try_clone().map_err(|_| Missed::Closed)?);
        let stream = tokio::net::TcpStream::from_std(stream).map_err(|_| Missed::Closed)?;
        let mut uri = uri.clone();
        uri.query.heartbeat = Some(HEARTBEAT_SECONDS);
        uri.query.frame_max = Some(FRAME_BYTES);
        let runtime = lapin::runtime::default_runtime().map_err(|_| Missed::Closed)?;
        let with_tls = uri.scheme == AMQPScheme::AMQPS;
        let once = Mutex::new(Some(stream));
        let properties = ConnectionProperties::default().with_connection_name("kaleem-health".into());
        let connecting = Connection::connector(
            uri,
            runtime,
            async move |uri: AMQPUri, _| {
                let stream = once.lock().unwrap_or_else(PoisonError::into_inner).take();
                let gone = || lapin::Error::from(std::io::Error::from(std::io::ErrorKind::NotConnected));
                let plain = AsyncTcpStream::Plain(Compat::new(stream.ok_or_else(gone)?));
                if uri.scheme == AMQPScheme::AMQP {
                    return Ok(plain);
                }
                plain.into_tls(&uri.authority.host, OwnedTLSConfig::default().as_ref()).await.map_err(lapin::Error::from)
            },
            properties,
        );
        let connection = connecting.await.map_err(|error| missed(&error, with_tls))?;
        Ok(Self { connection, confirming: tokio::sync::Mutex::new(None), phases, _socket: socket })
    }

    pub(super) fn is_usable(&self) -> bool {
        self.connection.status().connected()
    }

    /// Ends when the broker says that it takes no messages from us.
    pub(super) async fn until_blocked(&self) {
        let mut events = Box::pin(self.connection.events_listener());
        if self.connection.status().blocked() {
            return;
        }
        loop {
            match events.next().await {
                Some(Event::ConnectionBlocked(_)) => return,
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// Asks for a queue without making it.
    pub(super) async fn depth(&self, queue: &str) -> Result<Depth, Missed> {
        // A refusal closes its channel, so each question has its own.
        let channel = self.connection.create_channel().await.map_err(|error| missed(&error, false))?;
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let queue = channel.queue_declare(queue.into(), options, FieldTable::default()).await.map_err(|error| missed(&error, false))?;
        let depth = Depth { messages: queue.message_count(), consumers: queue.consumer_count() };
        // What does not close ends with the connection.
        drop(channel.close(200, "asked".into()).await);
        Ok(depth)
    }

    /// Publishes to a queue that does not exist; the broker confirms and drops it.
    pub(super) async fn publish(&self) -> Result<(), Missed> {
        let mut confirming = self.confirming.lock().await;
        // One that a refusal has closed is not put back.
        let channel = match confirming.take().filter(|channel| channel.status().connected()) {
            Some(channel) => channel,
            None => {
                let channel = self.connection.create_channel().await.map_err(|error| missed(&error, false))?;
                channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(|error| missed(&error, false))?;
                channel
            }
        };
        let sent =
            channel.basic_publish("".into(), "kaleem.canary".into(), BasicPublishOptions::default(), b"", BasicProperties::default()).await;
        sent.map_err(|error| missed(&error, false))?.await.map_err(|error| missed(&error, false))?;
        // A broker in alarm takes the message that makes it notice us, and reads nothing after that: one more question tells.
        channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(|error| missed(&error, false))?;
        *confirming = Some(channel);
        Ok(())
    }
}

fn missed(error: &lapin::Error, with_tls: bool) -> Missed {
    match error.kind() {
        ErrorKind::ProtocolError(error) => {
            let reason = if error.get_message().as_str().contains("not found") { Reason::NotFound } else { Reason::Other };
            match error.kind() {
                AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) => Missed::Absent,
                kind => Missed::Refused(kind.clone(), reason),
            }
        }
        ErrorKind::ParsingError(_) | ErrorKind::InvalidProtocolVersion(_) => Missed::NotAmqp,
        ErrorKind::IOError(_) if with_tls => Missed::Tls,
        _ => Missed::Closed,
    }
}

impl Missed {
    pub(super) fn finding(&self, endpoint: &Endpoint, uri: &AMQPUri) -> Finding {
        let user = word(&uri.authority.userinfo.username);
        let vhost = if uri.vhost == "/" { "/" } else { word(&uri.vhost) };
        let (verdict, reason, remedy) = match self {
            Self::Dial(error) => return error.finding(endpoint),
            Self::Refused(AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED), Reason::NotFound) => (
                Verdict::Fail,
                format!("{endpoint} has no virtual host `{vhost}`"),
                format!("make it: `rabbitmqctl add_vhost {vhost}`, or correct the address"),
            ),
            Self::Refused(AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED), Reason::Other) => (
                Verdict::Unknown,
                format!("{endpoint} does not let `{user}` into the virtual host `{vhost}`"),
                format!("grant it: `rabbitmqctl set_permissions -p {vhost} {user} '^$' '^(amq\\.default)?$' '^$'`"),
            ),
            Self::Refused(AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED), _) => (
                Verdict::Unknown,
                format!("{endpoint} does not accept `{user}` or its password, or does not let it publish"),
                format!(
                    "check user and password in the address; grant the canary: `rabbitmqctl set_permissions -p {vhost} {user} '^$' '^(amq\\.default)?$' '^$'`"
                ),
            ),
            Self::Refused(..) => (Verdict::Fail, format!("{endpoint} ended the connection with an error"), "see its log".to_owned()),
            Self::Absent => (Verdict::Fail, "a queue is not there".to_owned(), "start what declares it".to_owned()),
            Self::Tls => (
                Verdict::Fail,
                format!("{endpoint} does not complete a TLS handshake that is trusted here"),
                format!("look at it: `openssl s_client -connect {endpoint}`"),
            ),
            Self::Closed => (
                Verdict::Fail,
                format!("{endpoint} closed the connection without an answer"),
                "see its log; check that this port speaks AMQP, with or without TLS".to_owned(),
            ),
            Self::NotAmqp => {
                (Verdict::Fail, format!("{endpoint} does not speak AMQP 0-9-1"), "check the port (5672, or 5671 with TLS)".to_owned())
            }
        };
        Finding::new(verdict, reason).with_remedy(remedy)
    }
}

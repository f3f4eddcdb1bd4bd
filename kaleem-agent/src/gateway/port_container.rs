//! The process of a port container: it binds one port in its own network and gives the socket to a gateway that runs.
//!
//! It sees nothing of what goes through the port. It keeps the socket, so that connections wait while the gateway is restarted, and gives it
//! again to whatever answers at the control socket.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use kaleem_core::traffic::protocol::{Answer, Call, Command, Outcome, PROTOCOL, SOCKET};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use socket2::Socket;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::GatewayError;
use super::arguments::PortArguments;
use super::log;

/// Time between two attempts to reach the gateway, which may be starting.
const PAUSE: Duration = Duration::from_millis(20);
/// The same after it refused: that does not change in a moment.
const REFUSED: Duration = Duration::from_secs(1);
/// Longest answer.
const LONGEST: u64 = 1 << 16;

/// Keeps the port until it is told to end.
///
/// # Errors
///
/// When the port cannot be bound.
pub(crate) fn run(arguments: &PortArguments) -> Result<(), GatewayError> {
    let listen = |source| GatewayError::Listen { address: arguments.listen.to_string(), source };
    let started = |source| GatewayError::Start { what: "the port container", source };
    // Clients are refused until the gateway listens: a port that answers is one that is served.
    let socket = arguments.listen.bind_shared().map_err(listen)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(started)?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(started)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(started)?;
        let mut told = String::new();
        loop {
            let offered = offer(arguments, &socket);
            let (reason, pause) = tokio::select! {
                offered = offered => match offered {
                    Ok(Offered::Added(stream)) => {
                        log::say(&format!("the gateway serves the port {}", arguments.name));
                        if keep(stream, &mut terminate, &mut interrupt, arguments.stop_grace).await == Kept::Stopped {
                            return Ok(());
                        }
                        ("the gateway went away; the port waits for the next".to_owned(), PAUSE)
                    }
                    Ok(Offered::Refused(reason)) => (format!("the gateway refuses the port: {reason}"), REFUSED),
                    Err(error) => (format!("the gateway does not answer: {error}"), PAUSE),
                },
                () = stopped(&mut terminate, &mut interrupt) => return Ok(()),
            };
            if reason != told {
                log::say(&reason);
                told = reason;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stopped(&mut terminate, &mut interrupt) => return Ok(()),
            }
        }
    })
}

async fn stopped(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// What came of an offer.
enum Offered {
    /// The gateway accepts there while this connection stays.
    Added(BufReader<UnixStream>),
    /// It does not, for this reason.
    Refused(String),
}

async fn offer(arguments: &PortArguments, socket: &Socket) -> io::Result<Offered> {
    let mut stream = BufReader::new(connect(&arguments.directory).await?);
    let command = Command::AddPort { name: arguments.name.clone(), listen: arguments.listen.to_argument() };
    let mut text = serde_json::to_vec(&Call { protocol: PROTOCOL, command })?;
    text.push(b'\n');
    stream.write_all(&text).await?;
    match answer(&mut stream).await? {
        Outcome::SendSocket => {}
        other => return Ok(Offered::Refused(refusal(other))),
    }
    send(stream.get_ref(), socket).await?;
    match answer(&mut stream).await? {
        Outcome::PortAdded => Ok(Offered::Added(stream)),
        other => Ok(Offered::Refused(refusal(other))),
    }
}

async fn connect(directory: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(directory.join(SOCKET)).await
}

async fn answer(stream: &mut BufReader<UnixStream>) -> io::Result<Outcome> {
    let mut line = String::new();
    stream.take(LONGEST).read_line(&mut line).await?;
    Ok(serde_json::from_str::<Answer>(&line)?.outcome)
}

fn refusal(outcome: Outcome) -> String {
    match outcome {
        Outcome::Refused(refusal) => refusal.to_string(),
        _ => "it answers something else".to_owned(),
    }
}

async fn send(stream: &UnixStream, socket: &Socket) -> io::Result<()> {
    stream
        .async_io(Interest::WRITABLE, || {
            let sockets = [socket.as_fd()];
            let message = SendAncillaryMessage::ScmRights(&sockets);
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !control.push(message) {
                return Err(io::Error::other("the message is too small"));
            }
            rustix::net::sendmsg(stream.as_fd(), &[IoSlice::new(b"s")], &mut control, SendFlags::NOSIGNAL)?;
            Ok(())
        })
        .await
}

/// Why a port is not served any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    /// The gateway ended the connection.
    Lost,
    /// This process is to end.
    Stopped,
}

/// Waits until the gateway goes away, or until this process is to end and the gateway has let requests finish.
async fn keep(mut stream: BufReader<UnixStream>, terminate: &mut Signal, interrupt: &mut Signal, grace: Duration) -> Kept {
    tokio::select! {
        _ = stream.fill_buf() => return Kept::Lost,
        () = stopped(terminate, interrupt) => {}
    }
    // What it does not let go in time is cut off with the network of this container.
    if stream.shutdown().await.is_ok() {
        tokio::time::timeout(grace, stream.fill_buf()).await.ok();
    }
    Kept::Stopped
}

//! Connections to instances. One is polled by whoever uses it, without a task of its own: that saves two switches for each request.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use hyper::client::conn::http1::{self, Connection, SendRequest};
use tokio::net::TcpStream;

use super::body::RequestBody;
use super::meter::Meter;
use super::patient::Patient;
use super::plain::Plain;
use super::target::Target;

/// How long a connection is kept without use: less than any server in wide use waits before it closes.
const IDLE: Duration = Duration::from_secs(4);
/// Most connections kept without use, for each target, port and thread.
const MOST_IDLE: usize = 256;

/// Bytes that are read ahead at most, and of a response's head: hyper's own limit costs megabytes with a few hundred connections.
const GREATEST_BUFFER: usize = 64 << 10;

/// One HTTP connection to an instance, while a request runs on it.
pub(crate) enum Upstream {
    /// The request has no body.
    Plain(Box<Plain>),
    /// Both directions may be in use at once.
    Full(Box<Full>),
}

impl Upstream {
    /// Moves bytes both ways as far as they go, where that is not done by waiting for the answer.
    pub(crate) fn drive(&mut self, context: &mut Context<'_>) {
        if let Self::Full(full) = self {
            full.drive(context);
        }
    }

    /// The connection without a request on it, if it can be used again.
    fn settle(self) -> Option<Box<Plain>> {
        let mut plain = match self {
            Self::Plain(plain) => plain,
            Self::Full(full) => Box::new(full.settle()?),
        };
        plain.rest();
        plain.is_idle().then_some(plain)
    }
}

/// A connection that the HTTP library drives.
pub(crate) struct Full {
    sender: SendRequest<RequestBody>,
    connection: Connection<Patient, RequestBody>,
    ended: bool,
}

impl Full {
    /// Speaks HTTP on a new connection. Nothing is sent yet.
    pub(crate) async fn new(stream: TcpStream) -> io::Result<Box<Self>> {
        let mut builder = http1::Builder::new();
        builder.max_buf_size(GREATEST_BUFFER);
        let (sender, connection) = builder.handshake(Patient::new(stream)).await.map_err(io::Error::other)?;
        Ok(Box::new(Self { sender, connection, ended: false }))
    }

    /// Moves bytes both ways as far as they go.
    pub(crate) fn drive(&mut self, context: &mut Context<'_>) {
        if !self.ended && self.connection.poll_without_shutdown(context).is_ready() {
            self.ended = true;
        }
    }

    /// Whether it has ended, or was handed over to another protocol.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Sends requests on it.
    pub(crate) fn sender(&mut self) -> &mut SendRequest<RequestBody> {
        &mut self.sender
    }

    /// The socket, and what was read beyond the response.
    pub(crate) fn into_parts(self) -> (TcpStream, Bytes) {
        let parts = self.connection.into_parts();
        (parts.io.into_inner(), parts.read_buf)
    }

    /// The connection alone, if another request may be sent on it. Whoever used it last is not woken for it any more.
    fn settle(mut self) -> Option<Plain> {
        self.drive(&mut Context::from_waker(Waker::noop()));
        if self.ended || !self.sender.is_ready() {
            return None;
        }
        let (stream, beyond) = self.into_parts();
        beyond.is_empty().then(|| Plain::new(stream))
    }
}

/// One target as one thread sees it.
pub(crate) struct Lane {
    pub(crate) target: Arc<Target>,
    pub(crate) meter: Arc<Meter>,
    /// By port of the gateway.
    idle: RefCell<Vec<Kept>>,
}

/// Connections that wait for the next request, and since when.
type Kept = Vec<(Box<Plain>, Duration)>;

impl Lane {
    pub(crate) fn new(target: Arc<Target>, meter: Arc<Meter>, listeners: usize) -> Self {
        let idle = std::iter::repeat_with(Vec::new).take(listeners).collect();
        Self { target, meter, idle: RefCell::new(idle) }
    }

    /// A connection that was used before, the latest one first.
    pub(crate) fn take(&self, listener: usize) -> Option<Box<Plain>> {
        let mut idle = self.idle.borrow_mut();
        let kept = idle.get_mut(listener)?;
        // One that is closed at this very moment is noticed when its answer does not come.
        while let Some((plain, _)) = kept.pop() {
            if plain.is_idle() {
                return Some(plain);
            }
        }
        None
    }

    /// Keeps a connection whose exchange is over, if it can be used again.
    pub(crate) fn give_back(&self, listener: usize, upstream: Upstream, present: Duration) {
        if self.target.retired.load(Ordering::Relaxed) {
            return;
        }
        if let Some(plain) = upstream.settle()
            && let Some(kept) = self.idle.borrow_mut().get_mut(listener)
            && kept.len() < MOST_IDLE
        {
            kept.push((plain, present));
        }
    }

    /// Closes what is not of use any more: all of it when the target is retired.
    pub(crate) fn sweep(&self, present: Duration) {
        let retired = self.target.retired.load(Ordering::Relaxed);
        for kept in self.idle.borrow_mut().iter_mut() {
            kept.retain(|(plain, since)| !retired && present.saturating_sub(*since) < IDLE && plain.is_idle());
            if kept.is_empty() {
                kept.shrink_to_fit();
            }
        }
    }
}

/// A request or connection that runs at a target. Counted from before it is sent until nothing of it is left there.
pub(crate) struct Flight {
    lane: Rc<Lane>,
    stream: bool,
}

impl Flight {
    /// Enters, unless the target has been retired meanwhile.
    pub(crate) fn begin(lane: &Rc<Lane>) -> Option<Self> {
        lane.meter.in_flight.up();
        // The other half of this handshake is in `Switchboard::apply` and `drain`.
        if lane.target.retired.load(Ordering::SeqCst) {
            lane.meter.in_flight.down();
            return None;
        }
        Some(Self { lane: lane.clone(), stream: false })
    }

    /// From now on it will not end by itself.
    pub(crate) fn becomes_stream(&mut self) {
        if !self.stream {
            self.stream = true;
            self.lane.meter.streams.up();
        }
    }

    pub(crate) fn lane(&self) -> &Rc<Lane> {
        &self.lane
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if self.stream {
            self.lane.meter.streams.down();
        }
        self.lane.meter.in_flight.down();
    }
}

/// Whether an error while connecting says something about ourselves, not about the other side.
pub(crate) fn is_local(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let ours = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS, Errno::ADDRNOTAVAIL];
    Errno::from_io_error(error).is_some_and(|errno| ours.contains(&errno))
}

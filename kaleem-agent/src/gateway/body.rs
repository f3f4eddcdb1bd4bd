//! Bodies on their way through: nothing is kept, nothing is read faster than the other side takes it.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Sleep;

use super::access_log::Entry;
use super::crowd::{Client, Fate};
use super::upstream::{Flight, Upstream};

/// How long an instance may take to say `100 Continue` until the body is sent anyway.
const CONTINUE: Duration = Duration::from_secs(1);

/// Opened when the instance wants the body.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    open: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Gate {
    /// Lets the body through.
    pub(crate) fn open(&self) {
        self.open.store(true, Ordering::Release);
        if let Some(waker) = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take() {
            waker.wake();
        }
    }

    fn poll(&self, context: &Context<'_>) -> Poll<()> {
        if self.open.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(context.waker().clone());
        Poll::Pending
    }
}

/// The body of a request on its way to an instance.
pub(crate) enum RequestBody {
    /// There is none.
    Empty,
    /// Sent as it comes.
    Stream(Incoming),
    /// Sent when the instance says so: until then the client is not asked for it either.
    Gated {
        /// The body.
        incoming: Incoming,
        /// When it is let through.
        gate: Arc<Gate>,
        /// When it is let through anyway.
        patience: Pin<Box<Sleep>>,
    },
}

impl RequestBody {
    /// A body that waits for `100 Continue`.
    pub(crate) fn gated(incoming: Incoming, gate: Arc<Gate>) -> Self {
        Self::Gated { incoming, gate, patience: Box::pin(tokio::time::sleep(CONTINUE)) }
    }

    fn incoming(&self) -> Option<&Incoming> {
        match self {
            Self::Empty => None,
            Self::Stream(incoming) | Self::Gated { incoming, .. } => Some(incoming),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Stream(incoming) => Pin::new(incoming).poll_frame(context),
            Self::Gated { incoming, gate, patience } => {
                if gate.poll(context).is_pending() {
                    ready!(patience.as_mut().poll(context));
                    gate.open();
                }
                Pin::new(incoming).poll_frame(context)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// The body of a response on its way to a client.
pub(crate) enum ResponseBody {
    /// There is none.
    Empty,
    /// Words of the gateway itself.
    Text(Option<Bytes>),
    /// From an instance.
    Stream(Streaming),
}

/// Where the body of an answer comes from.
pub(crate) enum Source {
    /// The connection on which the request of the client runs.
    Plain,
    /// The HTTP library, which has to be driven.
    Full(Incoming),
}

impl Source {
    /// Whether nothing more comes.
    pub(crate) fn is_over(&self, client: &Client) -> bool {
        match self {
            Self::Plain => match client.upstream.borrow().as_ref() {
                Some(Upstream::Plain(plain)) => plain.is_over(),
                _ => true,
            },
            Self::Full(incoming) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self, client: &Client) -> SizeHint {
        match self {
            Self::Plain => match client.upstream.borrow().as_ref() {
                Some(Upstream::Plain(plain)) => plain.size_hint(),
                _ => SizeHint::with_exact(0),
            },
            Self::Full(incoming) => incoming.size_hint(),
        }
    }

    fn poll(&mut self, client: &Client, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self {
            Self::Plain => match client.upstream.borrow_mut().as_mut() {
                Some(Upstream::Plain(plain)) => plain.poll_frame(context),
                _ => Poll::Ready(None),
            },
            Self::Full(incoming) => poll_full(incoming, client, context).map_err(io::Error::other),
        }
    }
}

fn poll_full(incoming: &mut Incoming, client: &Client, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
    // Only driving brings bytes, which we do ourselves: being woken for them would cost another round through everything.
    // While the request is still on its way the connection's task drives too, and then we have to be woken.
    let uploads = client.uploads.get();
    let waker = if uploads { context.waker().clone() } else { Waker::noop().clone() };
    let idle = &mut Context::from_waker(&waker);
    let mut polled = Pin::new(&mut *incoming).poll_frame(idle);
    if polled.is_pending() {
        if let Some(upstream) = client.upstream.borrow_mut().as_mut() {
            upstream.drive(context);
        }
        polled = Pin::new(incoming).poll_frame(idle);
    }
    polled
}

/// A body that comes from an instance. As long as it lives, the request counts as running there.
pub(crate) struct Streaming {
    source: Source,
    client: Rc<Client>,
    flight: Flight,
    whole: bool,
    failed: bool,
    entry: Option<Entry>,
}

impl Streaming {
    pub(crate) fn new(source: Source, client: &Rc<Client>, flight: Flight, entry: Option<Entry>) -> Self {
        Self { source, client: client.clone(), flight, whole: false, failed: false, entry }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.client.fate() == Fate::Finish {
            return Poll::Ready(None);
        }
        let polled = self.source.poll(&self.client, context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let (Some(entry), Some(bytes)) = (&mut self.entry, frame.data_ref()) {
                    entry.add_bytes(bytes.len());
                }
                self.whole = self.source.is_over(&self.client) || frame.is_trailers();
            }
            Poll::Ready(Some(Err(_))) => self.failed = true,
            Poll::Ready(None) => self.whole = true,
            Poll::Pending => {}
        }
        polled
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        let upstream = self.client.upstream.borrow_mut().take();
        let lane = self.flight.lane();
        if self.failed {
            lane.meter.broken.add_one();
        }
        if let Some(upstream) = upstream
            && self.whole
        {
            lane.give_back(self.client.listener, upstream, self.client.shard.coarse_now());
        }
        self.client.finish();
        if let (Some(entry), Some(log)) = (self.entry.take(), &self.client.shard.access_log) {
            log.write(entry);
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Text(text) => Poll::Ready(text.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(streaming) => streaming.poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Text(text) => text.is_none(),
            Self::Stream(streaming) => streaming.source.is_over(&streaming.client),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Stream(streaming) => streaming.source.size_hint(&streaming.client),
        }
    }
}

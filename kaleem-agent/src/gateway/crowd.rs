//! The clients of one thread, so that a drain, a stop or a silent client can end a connection that is waiting for something else.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::HeaderValue;

use super::added_port::{AddedPort, Through};
use super::shard::Shard;
use super::target::{Cut, now};
use super::tunnel::Handover;
use super::upstream::{Lane, Upstream};
use super::witness::Witness;

/// What is to become of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It goes on.
    Live,
    /// Its event stream is to end, in order.
    Finish,
    /// It is to end at once.
    Abort,
}

/// One connection of a client.
pub(crate) struct Client {
    pub(crate) shard: Rc<Shard>,
    pub(crate) peer: SocketAddr,
    /// Place of the port it came in by.
    pub(crate) listener: usize,
    /// The port container whose port that is, if it is one's.
    through: Option<Through>,
    /// Its address as `X-Forwarded-For` has it.
    pub(crate) forwarded_for: HeaderValue,
    /// Whether what it says of its own client is believed.
    pub(crate) believed: bool,
    /// The connection on which its request runs.
    pub(crate) upstream: RefCell<Option<Upstream>>,
    /// Set when its connection leaves HTTP.
    pub(crate) handover: RefCell<Option<Handover>>,
    /// Whether the answer has begun while the request may still be on its way.
    pub(crate) uploads: Cell<bool>,
    /// What it really sent.
    pub(crate) witness: RefCell<Witness>,
    lane: RefCell<Option<Rc<Lane>>>,
    stream: Cell<bool>,
    busy: Cell<bool>,
    since: Cell<Duration>,
    hang_up: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Client {
    /// `peer` is whom it speaks for, `from` where the connection comes from: another where a proxy in front named its client.
    pub(crate) fn new(shard: &Rc<Shard>, peer: SocketAddr, from: IpAddr, listener: usize, through: Option<Through>) -> Rc<Self> {
        // An IPv4 client of a socket for both is shown as what it is.
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let forwarded_for = match peer.ip() {
            IpAddr::V4(address) => HeaderValue::try_from(address.to_string()),
            IpAddr::V6(address) => HeaderValue::try_from(address.to_string()),
        };
        Rc::new(Self {
            shard: shard.clone(),
            peer,
            listener,
            through,
            believed: shard.settings.believes(from),
            forwarded_for: forwarded_for.unwrap_or_else(|_| HeaderValue::from_static("unknown")),
            upstream: RefCell::new(None),
            handover: RefCell::new(None),
            uploads: Cell::new(false),
            witness: RefCell::default(),
            lane: RefCell::new(None),
            stream: Cell::new(false),
            busy: Cell::new(false),
            since: Cell::new(now()),
            hang_up: Cell::new(false),
            waker: RefCell::new(None),
        })
    }

    /// A request has come in.
    pub(crate) fn begin(&self) {
        self.busy.set(true);
        self.stream.set(false);
        self.uploads.set(false);
    }

    /// It is sent to a target.
    pub(crate) fn runs_at(&self, lane: &Rc<Lane>) {
        *self.lane.borrow_mut() = Some(lane.clone());
    }

    /// What runs will not end by itself.
    pub(crate) fn becomes_stream(&self) {
        self.stream.set(true);
    }

    /// Nothing runs at a target any more.
    pub(crate) fn finish(&self) {
        *self.lane.borrow_mut() = None;
        self.uploads.set(false);
        self.stream.set(false);
        self.busy.set(false);
        self.since.set(self.shard.coarse_now());
    }

    /// Whether it is asked to come back by another connection.
    pub(crate) fn is_to_leave(&self) -> bool {
        self.shard.is_leaving() || self.through.as_ref().is_some_and(|through| through.port().is_going())
    }

    /// What is to become of it, as things stand.
    pub(crate) fn fate(&self) -> Fate {
        if self.hang_up.get() || self.through.as_ref().is_some_and(|through| through.port().is_cut()) {
            return Fate::Abort;
        }
        match self.lane.borrow().as_ref() {
            Some(lane) if self.stream.get() && lane.target.cut.has(Cut::FORCE) => Fate::Abort,
            Some(lane) if self.stream.get() && lane.target.cut.has(Cut::STREAMS) => Fate::Finish,
            Some(lane) if !self.stream.get() && lane.target.cut.has(Cut::REQUESTS) => Fate::Abort,
            _ => Fate::Live,
        }
    }

    /// Sees to it that `task` is woken when the fate may have changed.
    pub(crate) fn wake_with(&self, context: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(context.waker())) {
            *waker = Some(context.waker().clone());
        }
    }

    /// Waits until it must end.
    pub(crate) async fn doomed(&self) -> Fate {
        std::future::poll_fn(|context| {
            self.wake_with(context);
            match self.fate() {
                Fate::Live => Poll::Pending,
                fate => Poll::Ready(fate),
            }
        })
        .await
    }

    /// Moves what its request still has to send, while its answer is already coming.
    pub(crate) fn drive_upload(&self, context: &mut Context<'_>) {
        if self.uploads.get()
            && let Some(upstream) = self.upstream.borrow_mut().as_mut()
        {
            upstream.drive(context);
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }
}

/// All clients of a thread.
#[derive(Default)]
pub(crate) struct Crowd {
    clients: RefCell<HashMap<u64, Rc<Client>>>,
    next: Cell<u64>,
}

/// A place in the crowd, given up when dropped.
pub(crate) struct Place {
    client: Rc<Client>,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let shard = &self.client.shard;
        shard.crowd.clients.borrow_mut().remove(&self.number);
        shard.one_less();
    }
}

impl Crowd {
    /// Takes a client in.
    pub(crate) fn join(&self, client: &Rc<Client>) -> Place {
        let number = self.next.get();
        self.next.set(number.wrapping_add(1));
        self.clients.borrow_mut().insert(number, client.clone());
        Place { client: client.clone(), number }
    }

    /// Wakes those whose fate has changed.
    pub(crate) fn look(&self) {
        for client in self.clients.borrow().values() {
            if client.fate() != Fate::Live {
                client.wake();
            }
        }
    }

    /// Ends connections of a port container on which nothing runs.
    pub(crate) fn hang_up_at(&self, port: &Arc<AddedPort>) {
        let is_its = |client: &&Rc<Client>| client.through.as_ref().is_some_and(|through| Arc::ptr_eq(through.port(), port));
        for client in self.clients.borrow().values().filter(is_its).filter(|client| !client.busy.get()) {
            client.hang_up.set(true);
            client.wake();
        }
    }

    /// Ends connections on which nothing has run for `idle`.
    pub(crate) fn hang_up_idle(&self, idle: Duration) {
        let present = now();
        for client in self.clients.borrow().values() {
            if !client.busy.get() && present.saturating_sub(client.since.get()) >= idle {
                client.hang_up.set(true);
                client.wake();
            }
        }
    }
}

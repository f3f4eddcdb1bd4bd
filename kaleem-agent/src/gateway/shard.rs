//! One data thread: it accepts, serves and forgets its connections by itself.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::GatewayError;
use super::access_log::AccessLog;
use super::added_port::{AddedPort, OVERLAP};
use super::arguments::Settings;
use super::balance;
use super::connection;
use super::crowd::{Client, Crowd};
use super::hold::HoldError;
use super::listen::{ListenSpec, Mode};
use super::log;
use super::proxy_protocol;
use super::switchboard::{Switchboard, Table};
use super::target::now;
use super::tcp;
use super::upstream::{Flight, Lane};

/// How often connections without use are looked at.
const SWEEP: Duration = Duration::from_secs(1);
/// How long accepting pauses when the process has no descriptor left.
const EXHAUSTED: Duration = Duration::from_millis(20);
/// Time for the PROXY header.
const PROXY_HEADER: Duration = Duration::from_secs(5);

/// What a data thread is told.
#[derive(Debug)]
pub(crate) enum ShardMessage {
    /// Serve a connection that another thread accepted.
    Serve {
        /// The connection.
        stream: std::net::TcpStream,
        /// Its client.
        peer: SocketAddr,
        /// Place of the port it came in by.
        listener: usize,
        /// The port container whose port that is, if it is one's.
        added: Option<Arc<AddedPort>>,
    },
    /// Accept at another socket, too.
    Accept {
        /// The socket.
        listener: std::net::TcpListener,
        /// Place of its port.
        place: usize,
        /// The port container whose port that is.
        added: Arc<AddedPort>,
    },
    /// Accept nothing more for a port container that goes, and close its connections on which nothing runs.
    Part(Arc<AddedPort>),
    /// Look at all connections: some may have to end.
    Look,
    /// Accept nothing more; ask clients to come back elsewhere with the next answer.
    Leave,
    /// Close connections on which nothing runs.
    CloseIdle,
    /// End.
    Stop,
}

/// Routing as this thread last saw it.
pub(crate) struct View {
    version: u64,
    pub(crate) table: Arc<Table>,
    lanes: Vec<Rc<Lane>>,
}

/// One data thread.
pub(crate) struct Shard {
    index: usize,
    pub(crate) settings: Arc<Settings>,
    pub(crate) board: Arc<Switchboard>,
    pub(crate) crowd: Crowd,
    pub(crate) access_log: Option<AccessLog>,
    view: RefCell<Rc<View>>,
    turn: Cell<usize>,
    leaving: Cell<bool>,
    /// The time at the last sweep.
    tick: Cell<Duration>,
}

impl Shard {
    fn new(index: usize, settings: Arc<Settings>, board: Arc<Switchboard>, access_log: Option<AccessLog>) -> Rc<Self> {
        let view = View { version: u64::MAX, table: board.table(), lanes: Vec::new() };
        Rc::new(Self {
            index,
            settings,
            board,
            crowd: Crowd::default(),
            access_log,
            view: RefCell::new(Rc::new(view)),
            turn: Cell::new(index),
            leaving: Cell::new(false),
            tick: Cell::new(now()),
        })
    }

    /// The time, as exact as connections without use are looked at. Asking the clock for it on each request would be waste.
    pub(crate) fn coarse_now(&self) -> Duration {
        self.tick.get()
    }

    /// Whether clients are asked to come back elsewhere.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.get()
    }

    /// The port with that place.
    pub(crate) fn spec(&self, listener: usize) -> Option<&ListenSpec> {
        self.board.places.get(listener)
    }

    /// Counts a connection as that of a thread, which may not know of it yet: a worker that leaves waits for it.
    fn one_more_of(&self, thread: usize) {
        if let Some(load) = self.board.loads.get(thread) {
            load.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn one_less_of(&self, thread: usize) {
        if let Some(load) = self.board.loads.get(thread) {
            load.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Counts a connection as gone.
    pub(crate) fn one_less(&self) {
        self.one_less_of(self.index);
    }

    /// Routing as it is in force now.
    pub(crate) fn view(&self) -> Rc<View> {
        let version = self.board.version();
        let known = self.view.borrow().clone();
        if known.version == version {
            return known;
        }
        let table = self.board.table();
        let lanes = table
            .targets
            .iter()
            .filter_map(|target| {
                let same = known.lanes.iter().find(|lane| Arc::ptr_eq(&lane.target, target));
                same.cloned().or_else(|| {
                    let meter = target.meter(self.index)?;
                    Some(Rc::new(Lane::new(target.clone(), meter, self.board.places.count())))
                })
            })
            .collect();
        let view = Rc::new(View { version, table, lanes });
        *self.view.borrow_mut() = view.clone();
        // Connections to targets that have lost their place are closed now, not when somebody happens to look.
        known.lanes.iter().for_each(|lane| lane.sweep(self.coarse_now()));
        view
    }

    /// Enters the target whose turn it is; `None` when there is none to use now.
    fn pick(&self, view: &View, listener: usize, tag: Option<&str>, avoid: Option<&Rc<Lane>>) -> Option<Flight> {
        if view.table.holds_all {
            return None;
        }
        let usable = |lane: &&Rc<Lane>| !lane.target.is_doubted(listener);
        if let Some(tag) = tag {
            let release = tag.split('.').next().unwrap_or(tag);
            let same = view.lanes.iter().filter(usable).find(|lane| lane.target.tag == tag);
            let related = || view.lanes.iter().filter(usable).find(|lane| lane.target.tag.split('.').next() == Some(release));
            if let Some(flight) = same.or_else(related).and_then(Flight::begin) {
                return Some(flight);
            }
        }
        let order = &view.table.order;
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        let in_turn = || {
            (0..order.len()).filter_map(move |step| {
                let place = order.get(turn.wrapping_add(step) % order.len())?;
                view.lanes.get(usize::from(*place))
            })
        };
        let others = |lane: &&Rc<Lane>| avoid.is_none_or(|avoided| !Rc::ptr_eq(avoided, lane));
        let lane = in_turn().filter(usable).find(others).or_else(|| in_turn().find(usable))?;
        Flight::begin(lane)
    }

    /// Enters a target, and waits for one as long as the limits allow.
    pub(crate) async fn admit(&self, listener: usize, tag: Option<&str>, avoid: Option<&Rc<Lane>>) -> Result<Flight, HoldError> {
        // A target that is retired between looking and entering has a successor in the next view.
        for _ in 0..3 {
            if let Some(flight) = self.pick(&self.view(), listener, tag, avoid) {
                return Ok(flight);
            }
        }
        self.wait(listener, tag).await
    }

    async fn wait(&self, listener: usize, tag: Option<&str>) -> Result<Flight, HoldError> {
        let limits = self.view().table.limits;
        let _place = self.board.hold.enter(&limits)?;
        let mut changes = self.board.watch();
        let waited = tokio::time::timeout(limits.time, async {
            loop {
                let view = self.view();
                // Entering and leaving again tells whether it is worth while to take a turn.
                if self.pick(&view, listener, tag, None).is_some() {
                    tokio::time::sleep(self.board.hold.pace(&view.table.limits)).await;
                    if let Some(flight) = self.pick(&self.view(), listener, tag, None) {
                        return Ok(flight);
                    }
                }
                if self.board.hold.is_closed() {
                    return Err(HoldError::Stopping);
                }
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        })
        .await;
        waited.unwrap_or_else(|_| Err(self.board.hold.expire()))
    }

    /// Remembers that connecting failed, where that says something about the target.
    pub(crate) fn blame(&self, lane: &Lane, listener: usize, error: &std::io::Error) {
        lane.meter.connect_failures.add_one();
        if !super::upstream::is_local(error) {
            self.board.doubt(&lane.target, listener);
        }
    }

    fn sweep(&self) {
        self.tick.set(now());
        let view = self.view();
        view.lanes.iter().for_each(|lane| lane.sweep(self.coarse_now()));
    }

    /// Serves a connection that is counted as this thread's already.
    fn serve(self: &Rc<Self>, stream: TcpStream, peer: SocketAddr, listener: usize, added: Option<Arc<AddedPort>>) {
        let shard = self.clone();
        let through = added.map(AddedPort::enter);
        tokio::task::spawn_local(async move {
            let Some(spec) = shard.spec(listener).cloned() else { return shard.one_less() };
            let mut stream = stream;
            let mut named = peer;
            if spec.accept_proxy {
                match tokio::time::timeout(PROXY_HEADER, proxy_protocol::read(&mut stream)).await {
                    Ok(Ok(source)) => named = source.unwrap_or(peer),
                    // Whoever does not say who it speaks for is not let in.
                    Ok(Err(_)) | Err(_) => return shard.one_less(),
                }
            }
            let client = Client::new(&shard, named, peer.ip(), listener, through);
            let _place = shard.crowd.join(&client);
            match spec.mode {
                Mode::Http => connection::serve(&client, stream).await,
                Mode::Tcp => tcp::serve(&client, stream, &spec).await,
            }
        });
    }

    async fn accept(self: Rc<Self>, listener: TcpListener, place: usize, added: Option<Arc<AddedPort>>) {
        let _accepting = self.board.accepts();
        loop {
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    if super::upstream::is_local(&error) {
                        log::say(&format!("could not accept a connection: {error}"));
                        tokio::time::sleep(EXHAUSTED).await;
                    }
                    continue;
                }
            };
            let thread = balance::choose(&self.board, self.index);
            if thread == self.index {
                self.one_more_of(thread);
                self.serve(stream, peer, place, added.clone());
                continue;
            }
            let Ok(stream) = stream.into_std() else { continue };
            let message = ShardMessage::Serve { stream, peer, listener: place, added: added.clone() };
            self.one_more_of(thread);
            if let Err(ShardMessage::Serve { stream, .. }) = self.board.tell_one(thread, message) {
                self.one_less_of(thread);
                if let Ok(stream) = TcpStream::from_std(stream) {
                    self.one_more_of(self.index);
                    self.serve(stream, peer, place, added.clone());
                }
            }
        }
    }

    async fn run(self: Rc<Self>, listeners: Vec<TcpListener>, mut messages: mpsc::UnboundedReceiver<ShardMessage>) {
        let mut acceptors = tokio::task::JoinSet::new();
        for (place, listener) in listeners.into_iter().enumerate() {
            acceptors.spawn_local(self.clone().accept(listener, place, None));
        }
        let mut at_added: Vec<(Arc<AddedPort>, AbortHandle)> = Vec::new();
        let mut sweeps = tokio::time::interval(SWEEP);
        loop {
            let message = tokio::select! {
                message = messages.recv() => message,
                _ = sweeps.tick() => {
                    self.sweep();
                    self.crowd.hang_up_idle(self.settings.idle);
                    continue;
                }
            };
            match message {
                Some(ShardMessage::Serve { stream, peer, listener, added }) => match TcpStream::from_std(stream) {
                    Ok(stream) => self.serve(stream, peer, listener, added),
                    Err(_) => self.one_less(),
                },
                Some(ShardMessage::Accept { listener, place, added }) => {
                    if let Ok(listener) = TcpListener::from_std(listener) {
                        let accepting = tokio::task::spawn_local(self.clone().accept(listener, place, Some(added.clone())));
                        at_added.push((added, accepting.abort_handle()));
                    }
                }
                Some(ShardMessage::Part(added)) => {
                    at_added.retain(|(other, accepting)| {
                        let stays = !Arc::ptr_eq(other, &added);
                        if !stays {
                            accepting.abort();
                        }
                        stays
                    });
                    self.crowd.hang_up_at(&added);
                }
                Some(ShardMessage::Look) => {
                    self.view();
                    self.crowd.look();
                }
                Some(ShardMessage::Leave) => {
                    self.leaving.set(true);
                    acceptors.shutdown().await;
                    // Its port container has to find the next worker first.
                    let at_added = std::mem::take(&mut at_added);
                    tokio::task::spawn_local(async move {
                        tokio::time::sleep(OVERLAP).await;
                        at_added.iter().for_each(|(_, accepting)| accepting.abort());
                    });
                }
                Some(ShardMessage::CloseIdle) => self.crowd.hang_up_idle(Duration::ZERO),
                Some(ShardMessage::Stop) | None => return,
            }
        }
    }
}

/// What a data thread needs from its worker.
pub(crate) struct ShardStart {
    pub(crate) index: usize,
    pub(crate) settings: Arc<Settings>,
    pub(crate) board: Arc<Switchboard>,
    pub(crate) access_log: Option<AccessLog>,
    pub(crate) listeners: Vec<std::net::TcpListener>,
    pub(crate) messages: mpsc::UnboundedReceiver<ShardMessage>,
}

/// Starts a data thread.
///
/// # Errors
///
/// [`GatewayError::Start`]; nothing runs then.
pub(crate) fn start(start: ShardStart) -> Result<std::thread::JoinHandle<()>, GatewayError> {
    let failed = |source| GatewayError::Start { what: "a data thread", source };
    let (ready, started) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new()
        .name(format!("data-{}", start.index))
        .spawn(move || {
            let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
                Ok(runtime) => runtime,
                Err(error) => return drop(ready.send(Err(error))),
            };
            runtime.block_on(async move {
                let listeners: std::io::Result<Vec<_>> = start.listeners.into_iter().map(TcpListener::from_std).collect();
                match listeners {
                    Ok(listeners) => {
                        let shard = Shard::new(start.index, start.settings, start.board, start.access_log);
                        ready.send(Ok(())).ok();
                        shard.run(listeners, start.messages).await;
                    }
                    Err(error) => drop(ready.send(Err(error))),
                }
            });
        })
        .map_err(failed)?;
    match started.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(error)) => Err(failed(error)),
        Err(_) => Err(failed(std::io::Error::other("it ended at once"))),
    }
}

//! The process that serves. It takes everything from its supervisor and leaves nothing behind: it may die at any moment.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use kaleem_core::traffic::WorkerStats;
use kaleem_core::traffic::protocol::PROGRAM_PREFIX;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedReadHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use super::GatewayError;
use super::access_log::AccessLog;
use super::arguments::Settings;
use super::channel::{self, Hello, NOTHING_RAN, Request, ToSupervisor, ToWorker};
use super::control::{Control, describe};
use super::drain;
use super::log;
use super::places::Places;
use super::shard::{self, ShardMessage, ShardStart};
use super::state::StateFile;
use super::switchboard::{Doubt, Switchboard, Trust};
use super::target::is_apart;

/// How long the first questions to remembered targets may take before clients are let in to wait with us.
const FIRST_ANSWERS: Duration = Duration::from_secs(1);
/// Time between two questions to a target that could not be reached: first, and at most.
const SOONEST: Duration = Duration::from_millis(20);
const LATEST: Duration = Duration::from_millis(500);
/// How long clients that say nothing are kept by a worker that leaves.
const IDLE_WHEN_LEAVING: Duration = Duration::from_secs(10);

fn hand_over(source: std::io::Error) -> GatewayError {
    GatewayError::HandOver { source }
}

/// Runs a worker with what comes over standard input.
///
/// # Errors
///
/// When nothing usable comes, or a thread cannot be started.
pub(crate) fn run() -> Result<(), GatewayError> {
    let stdin = rustix::stdio::stdin();
    let (hello, sockets) = channel::receive_hello(stdin).map_err(hand_over)?;
    let channel = stdin.try_clone_to_owned().map_err(hand_over)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| GatewayError::Start { what: "the control thread", source })?;
    let outcome = runtime.block_on(serve(hello, sockets, channel));
    // A name that is being looked up must not keep the process.
    runtime.shutdown_background();
    outcome
}

async fn serve(hello: Hello, mut sockets: Vec<OwnedFd>, channel: OwnedFd) -> Result<(), GatewayError> {
    let settings = Arc::new(hello.settings);
    let (Some(control), true) = (sockets.pop(), sockets.len() == settings.listen.len()) else {
        return Err(hand_over(std::io::Error::other("the number of sockets is wrong")));
    };
    let listeners: Vec<std::net::TcpListener> = sockets.into_iter().map(Into::into).collect();
    let control = UnixListener::from_std(control.into()).map_err(hand_over)?;
    let channel = std::os::unix::net::UnixStream::from(channel);
    channel.set_nonblocking(true).map_err(hand_over)?;
    let (reader, mut writer) = UnixStream::from_std(channel).map_err(hand_over)?.into_split();

    let threads = settings.thread_count();
    let (doubts, doubted) = mpsc::unbounded_channel();
    let board = Arc::new(Switchboard::new(threads, Places::new(settings.listen.clone()), doubts));
    tokio::spawn(ask_doubted(board.clone(), settings.clone(), doubted));
    let state = StateFile::new(&settings.directory);
    let (routing, memory) = state.read();
    log::say(&describe(&memory, routing.as_ref()));
    if let Some(routing) = routing {
        board.apply(routing, Trust::Remembered);
        first_answers(&board, settings.listen.len()).await;
    }

    let shards = start_shards(&settings, &board, &listeners)?;
    drop(listeners);
    let (to_supervisor, mut outgoing) = mpsc::unbounded_channel::<ToSupervisor>();
    let version = env!("CARGO_PKG_VERSION").to_owned();
    to_supervisor.send(ToSupervisor::Ready { version: version.clone() }).ok();
    tokio::spawn(async move {
        while let Some(message) = outgoing.recv().await {
            if writer.write_all(&channel::line(&message)).await.is_err() {
                return;
            }
        }
    });
    let control_state = Arc::new(Control {
        board: board.clone(),
        state,
        worker: WorkerStats { version, pid: std::process::id(), epoch: epoch(), crashes: hello.crashes, program: own_program(), memory },
        supervisor: to_supervisor.clone(),
        steering: tokio::sync::Mutex::new(()),
        upgrading: AtomicBool::new(false),
        upgrade: std::sync::Mutex::new(None),
        open: Arc::new(()),
        listening: std::sync::Mutex::new(None),
        rounds: std::sync::Mutex::default(),
        tickets: AtomicU64::new(0),
        added: std::sync::Mutex::default(),
        leaving: tokio::sync::watch::Sender::new(false),
        stop_grace: settings.stop_grace,
    });
    let listening = tokio::spawn(control_state.clone().listen(control));
    control_state.listens_by(listening.abort_handle());

    let mut reader = BufReader::new(reader);
    let stopping = obey(&control_state, &mut reader, &to_supervisor).await;
    listening.abort();
    control_state.leaving.send_replace(true);
    board.tell(|| ShardMessage::Leave);
    match stopping {
        Stopping::Gateway => stop(&board, &settings).await,
        Stopping::Worker => {
            let leaving = drain::leave(&board, settings.upgrade_requests, settings.upgrade_streams, IDLE_WHEN_LEAVING);
            tokio::select! {
                () = leaving => {}
                // Whatever comes, this worker only ends sooner.
                () = obey_while_leaving(&control_state, &mut reader, &to_supervisor) => {
                    stop(&board, &settings).await;
                }
            }
        }
    }
    control_state.hang_up().await;
    board.tell(|| ShardMessage::Stop);
    for shard in shards {
        // A thread that panicked is over as well.
        shard.join().ok();
    }
    Ok(())
}

/// Ends everything with the gateway. What waits for an instance is answered: when the engine stops, with everything that it runs, none
/// comes before the gateway has gone, and every second of waiting would be one more without service.
async fn stop(board: &Switchboard, settings: &Settings) {
    board.hold.close();
    board.announce();
    drain::leave(board, settings.stop_grace, Duration::ZERO, Duration::ZERO).await;
}

fn epoch() -> u64 {
    // Without randomness the process id tells workers apart well enough.
    getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id()))
}

fn start_shards(
    settings: &Arc<Settings>,
    board: &Arc<Switchboard>,
    listeners: &[std::net::TcpListener],
) -> Result<Vec<std::thread::JoinHandle<()>>, GatewayError> {
    let access_log = if settings.access_log { Some(AccessLog::start()?) } else { None };
    let mut shards = Vec::new();
    for index in 0..settings.thread_count() {
        let (sender, messages) = mpsc::unbounded_channel();
        board.join(sender);
        let copies: std::io::Result<Vec<_>> = listeners.iter().map(std::net::TcpListener::try_clone).collect();
        let listeners = copies.map_err(|source| GatewayError::Start { what: "a data thread", source })?;
        let start =
            ShardStart { index, settings: settings.clone(), board: board.clone(), access_log: access_log.clone(), listeners, messages };
        shards.push(shard::start(start)?);
    }
    Ok(shards)
}

/// Why a worker ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopping {
    /// The gateway ends.
    Gateway,
    /// Another worker serves.
    Worker,
}

/// Does what the supervisor says until that is to end.
async fn obey(control: &Arc<Control>, reader: &mut BufReader<OwnedReadHalf>, answers: &mpsc::UnboundedSender<ToSupervisor>) -> Stopping {
    loop {
        match channel::next::<ToWorker>(reader).await {
            Some(ToWorker::Leave) => return Stopping::Worker,
            // Without a supervisor nobody would take the next connection.
            Some(ToWorker::Stop) | None => return Stopping::Gateway,
            Some(other) => carry_out(control, other, answers).await,
        }
    }
}

/// Does what the supervisor says to a worker that leaves; returns when it has to hurry.
async fn obey_while_leaving(control: &Arc<Control>, reader: &mut BufReader<OwnedReadHalf>, answers: &mpsc::UnboundedSender<ToSupervisor>) {
    loop {
        match channel::next::<ToWorker>(reader).await {
            Some(ToWorker::Stop) | None => return,
            Some(other) => carry_out(control, other, answers).await,
        }
    }
}

async fn carry_out(control: &Arc<Control>, message: ToWorker, answers: &mpsc::UnboundedSender<ToSupervisor>) {
    match message {
        ToWorker::Ask { ticket, request } => {
            let (control, answers) = (control.clone(), answers.clone());
            tokio::spawn(async move {
                // Whatever is asked, it is meant by the routing of the worker that serves.
                control.reload();
                let report = match request {
                    Request::Reload => NOTHING_RAN,
                    // If it is routed here, it is routed there, and that worker refuses.
                    Request::Drain { instance, policy } => drain::drain(&control.board, &instance, &policy).await.unwrap_or(NOTHING_RAN),
                };
                answers.send(ToSupervisor::Answered { ticket, report }).ok();
            });
        }
        ToWorker::OthersAnswered { ticket, report } => control.others_answered(ticket, report),
        ToWorker::Upgraded { version } => control.upgraded(Ok(version)),
        ToWorker::UpgradeFailed { reason } => control.upgraded(Err(reason)),
        ToWorker::Leave | ToWorker::Stop => {}
    }
}

/// Waits until each remembered target has been reached at one of its ports, or has had its time.
///
/// Where there is no network yet, clients come with the network, and wait with us from their first moment.
async fn first_answers(board: &Switchboard, listeners: usize) {
    if is_apart() {
        return log::say("no network has been joined yet; what is remembered is asked when one is");
    }
    let known = || {
        let table = board.table();
        table.targets.iter().all(|target| (0..listeners).any(|listener| !target.is_doubted(listener)))
    };
    let answers = async {
        while !known() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    if tokio::time::timeout(FIRST_ANSWERS, answers).await.is_err() {
        log::say("some targets could not be reached yet; they are asked until they can");
    }
}

/// Asks targets that could not be reached until they can.
async fn ask_doubted(board: Arc<Switchboard>, settings: Arc<Settings>, mut doubted: mpsc::UnboundedReceiver<Doubt>) {
    while let Some(doubt) = doubted.recv().await {
        tokio::spawn(ask(board.clone(), settings.clone(), doubt));
    }
}

async fn ask(board: Arc<Switchboard>, settings: Arc<Settings>, Doubt { target, listener }: Doubt) {
    let Some(port) = board.places.get(listener).map(|spec| spec.port) else { return };
    let mut pause = SOONEST;
    loop {
        // A routing that came meanwhile has decided.
        if !target.is_doubted(listener) || target.retired.load(Ordering::SeqCst) && board.version() > 0 && !is_routed(&board, &target) {
            return;
        }
        match target.connect(port, settings.connect_timeout).await {
            Ok(_) => {
                target.believe(listener);
                board.announce();
                return;
            }
            Err(error) => {
                tokio::time::sleep(pause).await;
                // Where there is no network yet, it says nothing about the target.
                if error.kind() != std::io::ErrorKind::NetworkUnreachable {
                    pause = (pause * 2).min(LATEST);
                }
            }
        }
    }
}

fn is_routed(board: &Switchboard, target: &Arc<super::target::Target>) -> bool {
    board.table().targets.iter().any(|routed| Arc::ptr_eq(routed, target))
}

/// Which program this is, where it was brought while the gateway ran: its file is named by its digest.
fn own_program() -> Option<String> {
    let path = std::fs::read_link("/proc/self/exe").ok()?;
    let name = path.file_name()?.to_str()?.trim_end_matches(" (deleted)");
    name.strip_prefix(PROGRAM_PREFIX).map(str::to_owned)
}

//! The first process of a gateway: it owns the sockets and starts workers. It is kept small, because it is the one part that
//! cannot be replaced without closing the ports.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use kaleem_core::durable::{self, PRIVATE_FILE};
use kaleem_core::traffic::DrainReport;
use kaleem_core::traffic::protocol::SOCKET;
use rustix::process::{Pid, Signal, WaitOptions};
use serde::{Deserialize, Serialize};
use tokio::io::BufReader;
use tokio::net::unix::OwnedWriteHalf;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::GatewayError;
use super::arguments::Settings;
use super::channel::{self, Hello, NOTHING_RAN, Request, ToSupervisor, ToWorker};
use super::listen;
use super::log;
use super::target::now;

/// Our own program, whatever has become of its file.
const OWN_PROGRAM: &str = "/proc/self/exe";
/// Which binary serves after the gateway's container was restarted.
const PROGRAM_FILE: &str = "program.json";
/// How long a new program may take until it serves.
const READY: Duration = Duration::from_secs(15);
/// A worker that died younger than this died of itself, and not of a client.
const YOUNG: Duration = Duration::from_secs(5);
/// How many of those in a row make an upgraded program unfit.
const MOST_YOUNG_DEATHS: u32 = 3;
/// Longest pause before another worker is started.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Time beyond the grace until workers that do not end are killed.
const KILL_AFTER: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(50);

#[derive(Debug, Serialize, Deserialize)]
struct ProgramRecord {
    format: u32,
    /// Name of the binary in the gateway's directory.
    file: String,
}

/// What a worker is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// It serves, or will as soon as it is ready.
    Serving,
    /// It is to take over when it is ready.
    Candidate,
    /// It finishes what it has.
    Leaving,
}

struct Worker {
    pid: Pid,
    role: Role,
    born: Duration,
    /// Binary in the gateway's directory; `None` is our own program.
    file: Option<String>,
    writer: OwnedWriteHalf,
}

/// Something that one worker asked of the others.
struct Round {
    /// Our number for it; two workers may use the same one.
    number: u64,
    ticket: u64,
    asked_by: Pid,
    waits_for: Vec<Pid>,
    report: DrainReport,
}

enum Event {
    Message(Pid, ToSupervisor),
    Tick,
    Children,
    Stop,
}

struct Supervisor {
    settings: Settings,
    listeners: Vec<TcpListener>,
    control: UnixListener,
    workers: Vec<Worker>,
    rounds: Vec<Round>,
    next_round: u64,
    events: mpsc::UnboundedSender<Event>,
    /// Binary that serves; `None` is our own program.
    file: Option<String>,
    crashes: u64,
    young_deaths: u32,
    /// When the next worker may be started, while none serves.
    start_at: Option<Duration>,
    stop_by: Option<Duration>,
}

/// Runs a gateway until it is told to end.
///
/// # Errors
///
/// When a port or the control socket cannot be opened, or the first worker cannot be started.
pub(crate) fn run(settings: Settings) -> Result<(), GatewayError> {
    let listeners: Result<Vec<_>, _> = settings.listen.iter().map(listen::ListenSpec::bind).collect();
    let listeners = listeners?;
    let control = listen::bind_control(&settings.directory.join(SOCKET))?;
    let started = |source| GatewayError::Start { what: "the supervisor", source };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(started)?;
    runtime.block_on(async {
        let (events, mut incoming) = mpsc::unbounded_channel();
        forward(SignalKind::child(), events.clone(), || Event::Children).map_err(started)?;
        forward(SignalKind::terminate(), events.clone(), || Event::Stop).map_err(started)?;
        forward(SignalKind::interrupt(), events.clone(), || Event::Stop).map_err(started)?;
        let mut supervisor = Supervisor {
            file: remembered_program(&settings),
            settings,
            listeners,
            control,
            workers: Vec::new(),
            rounds: Vec::new(),
            next_round: 0,
            events,
            crashes: 0,
            young_deaths: 0,
            start_at: None,
            stop_by: None,
        };
        let file = supervisor.file.clone();
        if let Err(error) = supervisor.start(Role::Serving, file) {
            // A remembered binary may be gone or be for another machine; our own is neither.
            log::say(&format!("could not start a worker: {error}"));
            supervisor.forget_program();
            supervisor.start(Role::Serving, None).map_err(|source| GatewayError::Start { what: "a worker", source })?;
        }
        let mut ticks = tokio::time::interval(TICK);
        while !supervisor.is_over() {
            let event = tokio::select! {
                event = incoming.recv() => event.unwrap_or(Event::Stop),
                _ = ticks.tick(), if supervisor.waits() => Event::Tick,
            };
            supervisor.handle(event);
        }
        Ok(())
    })
}

fn forward(kind: SignalKind, events: mpsc::UnboundedSender<Event>, event: fn() -> Event) -> io::Result<()> {
    let mut signals = signal(kind)?;
    tokio::spawn(async move {
        while signals.recv().await.is_some() {
            if events.send(event()).is_err() {
                return;
            }
        }
    });
    Ok(())
}

fn remembered_program(settings: &Settings) -> Option<String> {
    let bytes = durable::read(&settings.directory.join(PROGRAM_FILE)).ok()?;
    let record: ProgramRecord = serde_json::from_slice(&bytes).ok()?;
    (record.format == 1 && check_file(settings, &record.file).is_ok()).then_some(record.file)
}

/// Whether a name is one of a binary in the gateway's own directory.
fn check_file(settings: &Settings, file: &str) -> Result<PathBuf, String> {
    if file.is_empty() || file.starts_with('.') || file.contains('/') {
        return Err(format!("`{file}` is no name of a file in the gateway's directory"));
    }
    let path = settings.directory.join(file);
    match std::fs::metadata(&path) {
        Ok(found) if found.is_file() => Ok(path),
        Ok(_) => Err(format!("`{file}` is no file")),
        Err(error) => Err(format!("`{file}` cannot be used: {error}")),
    }
}

impl Supervisor {
    fn is_over(&self) -> bool {
        self.stop_by.is_some() && self.workers.is_empty()
    }

    /// Whether something is to happen at a certain time.
    fn waits(&self) -> bool {
        self.stop_by.is_some() || self.start_at.is_some() || self.workers.iter().any(|worker| worker.role == Role::Candidate)
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Message(pid, message) => self.hear(pid, message),
            Event::Children => self.reap(),
            Event::Stop => self.stop(),
            Event::Tick => self.tick(),
        }
    }

    fn start(&mut self, role: Role, file: Option<String>) -> io::Result<Pid> {
        let program = match &file {
            Some(file) => check_file(&self.settings, file).map_err(io::Error::other)?,
            None => PathBuf::from(OWN_PROGRAM),
        };
        let (ours, theirs) = UnixStream::pair()?;
        #[expect(
            clippy::disallowed_methods,
            reason = "a worker inherits the channel over which it gets its sockets, which no other child does"
        )]
        let mut command = std::process::Command::new(program);
        command.arg("gateway-worker").stdin(Stdio::from(OwnedFd::from(theirs)));
        let child = command.spawn()?;
        drop(command);
        let pid = Pid::from_child(&child);
        let hello = Hello { settings: self.settings.clone(), crashes: self.crashes };
        // A worker that does not take it dies of it, and is then reaped like any other.
        if let Err(error) = channel::send_hello(ours.as_fd(), &hello, &channel::in_order(&self.listeners, &self.control)) {
            log::say(&format!("could not hand over to the worker {}: {error}", child.id()));
        }
        ours.set_nonblocking(true)?;
        let (reader, writer) = tokio::net::UnixStream::from_std(ours)?.into_split();
        let events = self.events.clone();
        tokio::spawn(async move {
            let mut reader = BufReader::new(reader);
            while let Some(message) = channel::next(&mut reader).await {
                if events.send(Event::Message(pid, message)).is_err() {
                    return;
                }
            }
        });
        self.workers.push(Worker { pid, role, born: now(), file, writer });
        Ok(pid)
    }

    fn tell(&self, pid: Pid, message: &ToWorker) {
        let Some(worker) = self.workers.iter().find(|worker| worker.pid == pid) else { return };
        let text = channel::line(message);
        // The channel holds far more than is ever under way; a worker that does not read is past helping.
        if worker.writer.try_write(&text).ok() != Some(text.len()) {
            log::say(&format!("the worker {} could not be told something", pid.as_raw_nonzero()));
        }
    }

    fn with_role(&self, role: Role) -> Vec<Pid> {
        self.workers.iter().filter(|worker| worker.role == role).map(|worker| worker.pid).collect()
    }

    fn hear(&mut self, pid: Pid, message: ToSupervisor) {
        match message {
            ToSupervisor::Ready { version } => self.ready(pid, &version),
            ToSupervisor::Upgrade { file } => {
                let candidate = if self.stop_by.is_some() || !self.with_role(Role::Candidate).is_empty() {
                    Err("another upgrade is under way, or the gateway is ending".to_owned())
                } else {
                    check_file(&self.settings, &file)
                        .and_then(|_| self.start(Role::Candidate, Some(file)).map_err(|error| format!("it could not be started: {error}")))
                };
                if let Err(reason) = candidate {
                    self.tell(pid, &ToWorker::UpgradeFailed { reason });
                }
            }
            ToSupervisor::AskOthers { ticket, request } => self.ask_others(pid, ticket, &request),
            ToSupervisor::Answered { ticket, report } => self.answered(pid, Some(ticket), &report),
        }
    }

    fn ready(&mut self, pid: Pid, version: &str) {
        let Some(worker) = self.workers.iter_mut().find(|worker| worker.pid == pid) else { return };
        let was = worker.role;
        worker.role = if was == Role::Candidate { Role::Serving } else { was };
        let file = worker.file.clone();
        log::say(&format!("the worker {} ({version}) serves", pid.as_raw_nonzero()));
        if was != Role::Candidate {
            return;
        }
        self.file = file;
        self.remember_program();
        let old: Vec<Pid> = self.with_role(Role::Serving).into_iter().filter(|other| *other != pid).collect();
        for other in old {
            // Told first: it answers whoever asked for the upgrade.
            self.tell(other, &ToWorker::Upgraded { version: version.to_owned() });
            self.tell(other, &ToWorker::Leave);
            if let Some(worker) = self.workers.iter_mut().find(|worker| worker.pid == other) {
                worker.role = Role::Leaving;
            }
        }
    }

    fn ask_others(&mut self, asked_by: Pid, ticket: u64, request: &Request) {
        let number = self.next_round;
        self.next_round += 1;
        let waits_for: Vec<Pid> = self.with_role(Role::Leaving).into_iter().filter(|pid| *pid != asked_by).collect();
        for pid in &waits_for {
            self.tell(*pid, &ToWorker::Ask { ticket: number, request: request.clone() });
        }
        self.rounds.push(Round { number, ticket, asked_by, waits_for, report: NOTHING_RAN });
        self.answered(asked_by, None, &NOTHING_RAN);
    }

    /// Takes note that `pid` has answered (all of it, where no number is given: it is gone), and tells those who have all answers.
    fn answered(&mut self, pid: Pid, number: Option<u64>, report: &DrainReport) {
        for round in &mut self.rounds {
            if number.is_some_and(|number| number != round.number) || !round.waits_for.contains(&pid) {
                continue;
            }
            round.waits_for.retain(|waits_for| *waits_for != pid);
            round.report.finished += report.finished;
            round.report.cut += report.cut;
            round.report.closed_streams += report.closed_streams;
            round.report.took = round.report.took.max(report.took);
        }
        let (done, open): (Vec<Round>, Vec<Round>) =
            std::mem::take(&mut self.rounds).into_iter().partition(|round| round.waits_for.is_empty());
        self.rounds = open;
        for round in done {
            self.tell(round.asked_by, &ToWorker::OthersAnswered { ticket: round.ticket, report: round.report });
        }
    }

    /// Collects children that ended: the first process of a container gets those of others, too.
    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let Some(place) = self.workers.iter().position(|worker| worker.pid == pid) else { continue };
            let worker = self.workers.swap_remove(place);
            self.answered(pid, None, &NOTHING_RAN);
            let how = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => format!("ended with code {code}"),
                (None, Some(signal)) => format!("was ended by signal {signal}"),
                (None, None) => "ended".to_owned(),
            };
            log::say(&format!("the worker {} {how}", pid.as_raw_nonzero()));
            self.gone(&worker, &how);
        }
    }

    fn gone(&mut self, worker: &Worker, how: &str) {
        if self.stop_by.is_some() {
            return;
        }
        match worker.role {
            Role::Leaving => {}
            Role::Candidate => {
                let reason = format!("its process {how} before it served");
                for pid in self.with_role(Role::Serving) {
                    self.tell(pid, &ToWorker::UpgradeFailed { reason: reason.clone() });
                }
            }
            Role::Serving => {
                self.crashes += 1;
                if let Some(candidate) = self.workers.iter_mut().find(|worker| worker.role == Role::Candidate) {
                    // It comes up anyway; nobody is left to be told that it did.
                    candidate.role = Role::Serving;
                    self.file = candidate.file.clone();
                    return;
                }
                let young = now().saturating_sub(worker.born) < YOUNG;
                self.young_deaths = if young { self.young_deaths + 1 } else { 0 };
                if self.young_deaths >= MOST_YOUNG_DEATHS && self.file.is_some() {
                    log::say("the upgraded program does not stay alive: the one in the image serves again");
                    self.forget_program();
                    self.young_deaths = 0;
                }
                let pause = match self.young_deaths {
                    0 | 1 => Duration::ZERO,
                    many => (TICK * 2_u32.saturating_pow(many.min(10))).min(LONGEST_PAUSE),
                };
                self.start_at = Some(now() + pause);
                self.tick();
            }
        }
    }

    fn tick(&mut self) {
        let present = now();
        if self.start_at.is_some_and(|at| present >= at) && self.stop_by.is_none() {
            self.start_at = None;
            let file = self.file.clone();
            if let Err(error) = self.start(Role::Serving, file) {
                log::say(&format!("could not start a worker: {error}"));
                self.forget_program();
                self.start_at = Some(present + LONGEST_PAUSE);
            }
        }
        for worker in self.workers.iter().filter(|worker| worker.role == Role::Candidate && present.saturating_sub(worker.born) > READY) {
            // Its end is what tells the others.
            rustix::process::kill_process(worker.pid, Signal::KILL).ok();
        }
        if self.stop_by.is_some_and(|by| present >= by) {
            for worker in &self.workers {
                rustix::process::kill_process(worker.pid, Signal::KILL).ok();
            }
        }
    }

    fn stop(&mut self) {
        if self.stop_by.is_some() {
            self.stop_by = Some(now());
            return;
        }
        log::say("ending: what runs may finish");
        self.stop_by = Some(now() + self.settings.stop_grace + KILL_AFTER);
        for worker in &self.workers {
            self.tell(worker.pid, &ToWorker::Stop);
        }
    }

    fn remember_program(&self) {
        let Some(file) = self.file.clone() else { return };
        let path = self.settings.directory.join(PROGRAM_FILE);
        let written = serde_json::to_vec(&ProgramRecord { format: 1, file })
            .map_err(|error| error.to_string())
            .and_then(|bytes| durable::write_atomic(&path, &bytes, PRIVATE_FILE).map_err(|error| error.to_string()));
        if let Err(error) = written {
            log::say(&format!("after a restart the program of the image will serve: {error}"));
        }
    }

    fn forget_program(&mut self) {
        self.file = None;
        // One that stays behind is tried again after a restart, and fails again.
        durable::remove(&self.settings.directory.join(PROGRAM_FILE)).ok();
    }
}

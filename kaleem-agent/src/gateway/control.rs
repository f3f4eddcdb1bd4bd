//! The control socket: who may open it may steer the gateway. `GET /metrics` is answered there too.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use kaleem_core::traffic::protocol::{Answer, Call, Command, LONGEST_LINE, Outcome, PROTOCOL};
use kaleem_core::traffic::{DrainReport, GatewayStats, Memory, Refusal, Routing, WorkerStats};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::AbortHandle;

use super::added_port::AddedPort;
use super::channel::{Request, ToSupervisor};
use super::drain::drain;
use super::log;
use super::metrics;
use super::probe;
use super::state::StateFile;
use super::switchboard::{Switchboard, Trust};

/// How long workers that leave may take to read the routing.
const OTHERS: Duration = Duration::from_secs(2);

type Waiting<T> = std::sync::Mutex<Option<oneshot::Sender<T>>>;

/// What the control socket works on.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) board: Arc<Switchboard>,
    pub(crate) state: StateFile,
    pub(crate) worker: WorkerStats,
    pub(crate) supervisor: mpsc::UnboundedSender<ToSupervisor>,
    /// Held while the routing changes, so that file and memory change in the same order.
    pub(crate) steering: Mutex<()>,
    /// Set while another program takes over: what it started from must not change under it.
    pub(crate) upgrading: AtomicBool,
    pub(crate) upgrade: Waiting<Result<String, String>>,
    /// Held by each caller's connection.
    pub(crate) open: Arc<()>,
    /// Ends the task that takes calls.
    pub(crate) listening: std::sync::Mutex<Option<AbortHandle>>,
    /// What other workers were asked for.
    pub(crate) rounds: std::sync::Mutex<HashMap<u64, oneshot::Sender<DrainReport>>>,
    pub(crate) tickets: AtomicU64,
    /// Ports of port containers.
    pub(crate) added: std::sync::Mutex<Vec<Arc<AddedPort>>>,
    /// Becomes true when this worker accepts nothing more.
    pub(crate) leaving: tokio::sync::watch::Sender<bool>,
    /// How long requests may finish that came in by a port which goes.
    pub(crate) stop_grace: Duration,
}

impl Control {
    /// Answers callers until the task is ended.
    pub(crate) async fn listen(self: Arc<Self>, listener: UnixListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let control = self.clone();
                    let open = self.open.clone();
                    tokio::spawn(async move {
                        // A caller that went away has asked for nothing that would have to be told to somebody else.
                        control.serve(stream).await.ok();
                        drop(open);
                    });
                }
                Err(error) => {
                    log::say(&format!("could not accept a call: {error}"));
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn serve(&self, stream: UnixStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        loop {
            let mut line = Vec::new();
            let longest = u64::try_from(LONGEST_LINE).unwrap_or(u64::MAX);
            (&mut stream).take(longest).read_until(b'\n', &mut line).await?;
            if line.is_empty() {
                return Ok(());
            }
            if line.starts_with(b"GET ") {
                return self.http(&mut stream, &line).await;
            }
            let outcome = match serde_json::from_slice::<Call>(&line) {
                Ok(Call { protocol: PROTOCOL, command: Command::AddPort { name, listen } }) => {
                    return self.add_port(&mut stream, name, &listen).await;
                }
                Ok(call) if call.protocol == PROTOCOL => self.answer(&mut stream, call.command).await?,
                Ok(call) => Some(not_understood(format!("it speaks protocol {PROTOCOL}, not {}", call.protocol))),
                Err(error) => Some(not_understood(error.to_string())),
            };
            let Some(outcome) = outcome else { return Ok(()) };
            say(&mut stream, outcome).await?;
        }
    }

    async fn http(&self, stream: &mut BufReader<UnixStream>, line: &[u8]) -> std::io::Result<()> {
        let found = line.starts_with(b"GET /metrics ");
        let (status, body) = if found { ("200 OK", metrics::render(&self.stats())) } else { ("404 Not Found", String::new()) };
        // The rest of the request does not matter, but leaving it unread would break the answer off.
        let mut rest = String::new();
        while (&mut *stream).take(8192).read_line(&mut rest).await? > 0 && rest != "\r\n" && rest != "\n" {
            rest.clear();
        }
        let kind = "text/plain; version=0.0.4; charset=utf-8";
        let head = format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        stream.shutdown().await
    }

    /// Carries a call out; `None` when the caller went away while it waited.
    async fn answer(&self, stream: &mut BufReader<UnixStream>, command: Command) -> std::io::Result<Option<Outcome>> {
        let outcome = async {
            match command {
                Command::Steer(routing) => self.steer(routing).await.map_or_else(Outcome::Refused, |()| Outcome::Steered),
                Command::Probe { target, question, timeout } => Outcome::Found(probe::ask(&target, &question, timeout).await),
                Command::Stats => Outcome::Stats(Box::new(self.stats())),
                Command::Drain { instance, policy } => {
                    // What another worker still runs there counts as well, and it may take as long.
                    let others = self.ask_others(Request::Drain { instance: instance.clone(), policy });
                    match drain(&self.board, &instance, &policy).await {
                        Ok(mut report) => {
                            if let Ok(other) = others.await {
                                report.finished += other.finished;
                                report.cut += other.cut;
                                report.closed_streams += other.closed_streams;
                                report.took = report.took.max(other.took);
                            }
                            Outcome::Drained(report)
                        }
                        Err(refusal) => Outcome::Refused(refusal),
                    }
                }
                Command::Upgrade { file } => self.hand_over(file).await,
                // It has a connection for itself, and was taken before.
                Command::AddPort { .. } => not_understood("a port is added by the first call of a connection".to_owned()),
            }
        };
        tokio::select! {
            outcome = outcome => Ok(Some(outcome)),
            // A caller that goes away while it waits for a drain no longer wants it; anything else it sends comes too early.
            _ = stream.fill_buf() => Ok(None),
        }
    }

    async fn steer(&self, routing: Routing) -> Result<(), Refusal> {
        let _order = self.steering.lock().await;
        if self.upgrading.load(Ordering::SeqCst) {
            return Err(Refusal::Upgrading);
        }
        if !self.board.compare(&routing)? {
            return Ok(());
        }
        self.state.write(&routing).map_err(|reason| Refusal::NotKept { reason })?;
        let (generation, targets) = (routing.generation, routing.targets.len());
        self.board.apply(routing, Trust::Gated);
        // A worker that leaves still has clients, and they go by the same routing from here on.
        if tokio::time::timeout(OTHERS, self.ask_others(Request::Reload)).await.is_err() {
            log::say("an old worker does not answer; its clients may still be sent by the old routing");
        }
        log::say(&format!("routing {generation} with {targets} targets is in force"));
        Ok(())
    }

    async fn hand_over(&self, file: String) -> Outcome {
        let (sender, result) = oneshot::channel();
        {
            let _order = self.steering.lock().await;
            if self.upgrading.swap(true, Ordering::SeqCst) {
                return Outcome::Refused(Refusal::Upgrading);
            }
            *self.upgrade.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        }
        self.supervisor.send(ToSupervisor::Upgrade { file }).ok();
        match result.await {
            Ok(Ok(version)) => Outcome::Upgraded { version },
            Ok(Err(reason)) => Outcome::Refused(Refusal::UpgradeFailed { reason }),
            Err(_) => Outcome::Refused(Refusal::UpgradeFailed { reason: "the gateway is ending".to_owned() }),
        }
    }

    /// Takes note of what became of an upgrade.
    pub(crate) fn upgraded(&self, result: Result<String, String>) {
        if result.is_err() {
            self.upgrading.store(false, Ordering::SeqCst);
        } else if let Some(task) = self.listening.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // The next call is for the new worker, and whoever waits may call as soon as it has its answer.
            task.abort();
        }
        if let Some(waiting) = self.upgrade.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // Nobody may be waiting any more.
            waiting.send(result).ok();
        }
    }

    fn ask_others(&self, request: Request) -> oneshot::Receiver<DrainReport> {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let (sender, answers) = oneshot::channel();
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner).insert(ticket, sender);
        self.supervisor.send(ToSupervisor::AskOthers { ticket, request }).ok();
        answers
    }

    /// Takes note that all other workers have answered.
    pub(crate) fn others_answered(&self, ticket: u64, report: DrainReport) {
        let waiting = self.rounds.lock().unwrap_or_else(PoisonError::into_inner).remove(&ticket);
        if let Some(waiting) = waiting {
            waiting.send(report).ok();
        }
    }

    /// Waits until callers have their answers, or have had the time for it.
    pub(crate) async fn hang_up(&self) {
        let answered = async {
            while Arc::strong_count(&self.open) > 1 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        // Who waits for a drain has to ask the next worker.
        tokio::time::timeout(OTHERS, answered).await.ok();
    }

    /// Goes by the routing on the disk, which another worker has written.
    pub(crate) fn reload(&self) {
        if let (Some(routing), Memory::Restored) = self.state.read()
            && self.board.compare(&routing) == Ok(true)
        {
            self.board.apply(routing, Trust::Gated);
        }
    }

    /// Remembers how to end the task that takes calls.
    pub(crate) fn listens_by(&self, task: AbortHandle) {
        *self.listening.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
    }

    /// Everything that is counted.
    pub(crate) fn stats(&self) -> GatewayStats {
        let (targets, releases) = self.board.counts();
        GatewayStats {
            worker: self.worker.clone(),
            routing: self.board.table().routing.clone(),
            hold: self.board.hold.stats(),
            open_connections: self.board.open_connections() as u64,
            targets,
            releases,
            added_ports: Some(self.added_ports()),
        }
    }
}

/// Answers a call.
pub(crate) async fn say(stream: &mut BufReader<UnixStream>, outcome: Outcome) -> std::io::Result<()> {
    let mut text = serde_json::to_vec(&Answer { protocol: PROTOCOL, outcome })?;
    text.push(b'\n');
    stream.write_all(&text).await?;
    stream.flush().await
}

pub(crate) fn not_understood(reason: String) -> Outcome {
    Outcome::Refused(Refusal::NotUnderstood { reason })
}

/// What a worker says of what it started from.
pub(crate) fn describe(memory: &Memory, routing: Option<&Routing>) -> String {
    match memory {
        Memory::Fresh => "there is no state: everything is held until this gateway is steered".to_owned(),
        Memory::Damaged { reason } => {
            format!("THE STATE IS DAMAGED ({reason}): it was set aside, and everything is held until this gateway is steered")
        }
        Memory::Restored => {
            let (generation, count) = routing.map_or((0, 0), |routing| (routing.generation.number(), routing.targets.len()));
            format!("routing g{generation} with {count} targets is restored; they are asked before they are used")
        }
    }
}

//! Health: one question, one verdict. Gates and monitoring ask the same way; `kaleem-health` knows how.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::names::{ContainerName, NetworkName, ProjectName, ServiceName};
use crate::runtime::InstanceState;

mod door;
mod need;

pub use door::Door;
pub use need::{DependencyKind, Need};

/// The answer to one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// All is well.
    Ok,
    /// It works, and something is about to go wrong.
    Warn,
    /// Could not ask: says nothing about the target, and never counts as its failure.
    Unknown,
    /// It does not work.
    Fail,
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Unknown => "unknown",
            Self::Fail => "fail",
        })
    }
}

/// Something a probe measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// What, such as `replication_lag`.
    pub name: String,
    /// How much.
    pub value: f64,
    /// In what, such as `seconds`, `bytes`, `percent`; empty for a plain count.
    pub unit: String,
}

/// What a probe found. It never holds a secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The verdict.
    pub verdict: Verdict,
    /// Why, in one line, lower case: what was asked and what came back.
    pub reason: String,
    /// What to do about it; `None` when all is well.
    pub remedy: Option<String>,
    /// How long each part took, by name: `dns`, `connect`, `tls`, `first-byte`, `total`.
    pub phases: BTreeMap<String, Duration>,
    /// What was measured beside.
    pub measurements: Vec<Measurement>,
}

impl Finding {
    /// A finding without timings.
    pub fn new(verdict: Verdict, reason: impl Into<String>) -> Self {
        Self { verdict, reason: reason.into(), remedy: None, phases: BTreeMap::new(), measurements: Vec::new() }
    }

    /// The same with a remedy.
    #[must_use]
    pub fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// The same with something that was measured.
    #[must_use]
    pub fn with_measurement(mut self, name: &str, value: f64, unit: &str) -> Self {
        self.measurements.push(Measurement { name: name.to_owned(), value, unit: unit.to_owned() });
        self
    }

    /// The same with the time a phase took.
    #[must_use]
    pub fn with_phase(mut self, phase: &str, took: Duration) -> Self {
        self.phases.insert(phase.to_owned(), took);
        self
    }
}

/// One question which a gate asks an instance. Pure data: it stands in the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Question {
    /// Is the container running?
    Running,
    /// What does the container's own health check say?
    Healthcheck,
    /// Does it answer an HTTP GET?
    Http {
        /// Port inside the container.
        port: u16,
        /// Path and query, starting with `/`.
        path: String,
        /// Statuses that are right, first and last; `(200, 399)` where nothing was said.
        statuses: (u16, u16),
        /// Host header; `None` is the address.
        host: Option<String>,
        /// Text that the body must hold.
        contains: Option<String>,
    },
    /// Does it accept a TCP connection?
    Tcp {
        /// Port inside the container.
        port: u16,
    },
    /// Does a command in the container exit with 0?
    Command {
        /// Program and arguments.
        command: Vec<String>,
    },
}

impl fmt::Display for Question {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running => out.write_str("running"),
            Self::Healthcheck => out.write_str("container health check"),
            Self::Http { port, path, .. } => write!(out, "http :{port}{path}"),
            Self::Tcp { port } => write!(out, "tcp :{port}"),
            Self::Command { command } => write!(out, "command `{}`", command.first().map_or("", String::as_str)),
        }
    }
}

/// Whom a question is put to: one instance, as the engine reported it a moment ago.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeTarget {
    /// Its service.
    pub service: ServiceName,
    /// Its container.
    pub container: ContainerName,
    /// What the engine says of it.
    pub state: InstanceState,
    /// Address by network; empty where it uses the host's.
    pub addresses: BTreeMap<NetworkName, String>,
    /// Ports of the host that lead to it: (port inside, address and port of the host).
    pub published: Vec<(u16, SocketAddr)>,
    /// Whether it uses the host's network.
    pub host_network: bool,
}

/// Answers questions about instances.
///
/// # Contract
/// - Returns within `timeout` (and at most 250 ms more), whatever the other side does.
/// - Never an error: what could not be asked is [`Verdict::Unknown`], with the reason.
/// - Leaves no task and no connection behind.
/// - No secret in the finding.
#[async_trait]
pub trait Probes: Send + Sync {
    /// Puts `question` to `target`.
    async fn ask(&self, question: &Question, target: &ProbeTarget, timeout: Duration) -> Finding;
    /// Asks what something else needs: the worst of what its probes found, with the name of the probe in the reason.
    async fn ask_need(&self, project: &ProjectName, need: &Need, timeout: Duration) -> Finding;
    /// Asks where clients ask. Certificates are not verified: the question is who answers, not whether browsers trust it.
    async fn ask_door(&self, door: &Door, timeout: Duration) -> Finding;
}

/// One dependency, asked as its experts would: what gates, `kaleem health` and the agent's monitor have in common.
///
/// # Contract
/// - `check` returns within `timeout` (and at most 250 ms more), whatever the other side does: it accepts and is
///   silent, sends a byte a second, floods, closes, or talks another language.
/// - Never an error: what could not be asked is [`Verdict::Unknown`], with the reason. A verdict other than
///   [`Verdict::Ok`] has a remedy.
/// - Dropping the future, or the probe, closes what was opened; no run leaves a task or a connection behind that the
///   next one does not use.
/// - No secret in the finding: neither one that the probe was given, nor a text that the server wrote.
#[async_trait]
pub trait HealthProbe: Send + Sync {
    /// What it is called in tables, such as `redis` or `api-health`; unique within one service.
    fn name(&self) -> &str;
    /// What it speaks, such as `redis` or `http`.
    fn kind(&self) -> &'static str;
    /// Asks once.
    async fn check(&self, timeout: Duration) -> Finding;
}

/// Why a host name has no address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoAddress {
    /// Nobody here knows one, in words, lower case: that says nothing about the server.
    Unknown(String),
    /// It is known that nothing runs behind the name, in words, lower case: that is a failure.
    Down(String),
}

/// Where a host name of a project is reached from here.
///
/// Names of services mean something only inside the project's networks; kaleem runs beside them.
#[async_trait]
pub trait Resolver: Send + Sync {
    /// The addresses of `host`, best first, never an empty list.
    ///
    /// # Errors
    /// [`NoAddress`], when the name has none.
    async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, NoAddress>;
}

//! The gateway as the engine sees it: one desired state, set whole, and questions about it.
//!
//! A gateway owns the name and the published ports of one service. The engine never tells it what to change: it hands over
//! the complete [`Routing`], numbered so that a repeated or a late call cannot undo a newer one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::health::{Finding, Question};
use crate::names::{ContainerName, GatewayName, NameError, PlanId, ReleaseId};
use crate::remedy::Remedy;

pub use socket::SocketTraffic;
pub use stats::{AddedPort, Counts, GatewayStats, HoldStats, Latency, Memory, TargetState, TargetStats, WorkerStats};

/// Most targets that one routing holds.
pub const MOST_TARGETS: usize = 256;
/// Greatest weight of one target.
pub const GREATEST_WEIGHT: u16 = 1000;

/// Order among routings: a gateway refuses one that is older than what it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(u64);

impl Generation {
    /// The generation of performing step `step` of `plan`: newer than all earlier steps and all earlier plans.
    pub fn of_perform(plan: PlanId, step: u32) -> Self {
        Self((plan.0 << 32) | u64::from(step & 0x7fff_ffff))
    }

    /// The generation of undoing step `step` of `plan`: newer than every perform of the plan, and than the undo of every later step.
    pub fn of_undo(plan: PlanId, step: u32) -> Self {
        Self((plan.0 << 32) | 0x8000_0000 | u64::from(0x7fff_ffff - (step & 0x7fff_ffff)))
    }

    /// The generation with that number.
    pub fn new(number: u64) -> Self {
        Self(number)
    }

    /// The plan by which it was made.
    pub fn plan(self) -> PlanId {
        PlanId(self.0 >> 32)
    }

    /// The next one: for a gateway that has a newer one than the journals know of.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The number.
    pub fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&format!("g{}", self.0))
    }
}

/// Where an instance answers: an IP address, or a name that the gateway's networks resolve.
///
/// A name survives a restart of the host, after which addresses may be dealt anew.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TargetHost(String);

impl TargetHost {
    /// The address or name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TargetHost {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.parse::<IpAddr>().is_ok() || text.parse::<ContainerName>().is_ok() {
            return Ok(Self(text.to_owned()));
        }
        Err(NameError { kind: "host of a target", text: text.to_owned(), reason: "it is neither an IP address nor a name" })
    }
}

impl TryFrom<String> for TargetHost {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<TargetHost> for String {
    fn from(host: TargetHost) -> Self {
        host.0
    }
}

impl fmt::Display for TargetHost {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&self.0)
    }
}

/// One instance that a gateway may send to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Its container: the key by which it is drained and counted.
    pub instance: ContainerName,
    /// The release it belongs to.
    pub release: ReleaseId,
    /// Where it answers.
    pub host: TargetHost,
    /// Port of the gateway to port of the instance, where they differ.
    pub ports: BTreeMap<u16, u16>,
    /// Its share among all targets; 0 keeps it known (warm) without sending anything to it.
    pub weight: u16,
}

impl Target {
    /// The port of the instance that stands behind `port` of the gateway.
    pub fn port(&self, port: u16) -> u16 {
        self.ports.get(&port).copied().unwrap_or(port)
    }
}

/// What a gateway does with new requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Admission {
    /// Sends them to the targets; holds them while there is none.
    Serve,
    /// Holds all of them, also when there are targets.
    Hold,
}

/// Bounds of what is held while no target may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldLimits {
    /// Most requests (and connections in TCP mode) held at a time; the next is answered 503.
    pub requests: u32,
    /// Longest time that one is held; then it is answered 503.
    pub time: Duration,
    /// How many are let go per second once there is a target.
    pub release_per_second: u32,
}

/// Keeps a client at its instance, and after that is gone at its release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stickiness {
    /// Name of the cookie that the gateway sets.
    pub cookie: String,
}

/// All that a gateway is to do, whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Routing {
    /// Its place in the order of routings.
    pub generation: Generation,
    /// What happens to new requests.
    pub admission: Admission,
    /// Bounds of the hold.
    pub hold: HoldLimits,
    /// Whether clients keep their instance.
    pub stickiness: Option<Stickiness>,
    /// The instances. Those with weight 0 get nothing new.
    pub targets: Vec<Target>,
}

impl Routing {
    /// Whether a gateway can carry it out; fakes and gateways refuse the same.
    ///
    /// # Errors
    ///
    /// [`Refusal::BadRouting`], with what is wrong.
    pub fn check(&self) -> Result<(), Refusal> {
        let refuse = |reason: String| Err(Refusal::BadRouting { reason });
        if self.targets.len() > MOST_TARGETS {
            return refuse(format!("{} targets are more than {MOST_TARGETS}", self.targets.len()));
        }
        let mut seen = BTreeSet::new();
        for target in &self.targets {
            if !seen.insert(&target.instance) {
                return refuse(format!("the instance `{}` is there twice", target.instance));
            }
            if target.weight > GREATEST_WEIGHT {
                return refuse(format!("the weight of `{}` is more than {GREATEST_WEIGHT}", target.instance));
            }
        }
        if self.hold.release_per_second == 0 {
            return refuse("held requests would never be let go".to_owned());
        }
        if let Some(sticky) = &self.stickiness {
            let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            if sticky.cookie.is_empty() || sticky.cookie.len() > 64 || !sticky.cookie.chars().all(good) {
                return refuse(format!("`{}` is no name for a cookie", sticky.cookie));
            }
        }
        Ok(())
    }
}

/// How long what runs at an instance may go on after its last new request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainPolicy {
    /// For requests that will end by themselves, and for connections in TCP mode.
    pub requests: Duration,
    /// For WebSockets and event streams, which do not; at its end WebSockets get close 1001.
    pub streams: Duration,
}

/// What a drain did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainReport {
    /// Requests and connections that ended by themselves while it waited.
    pub finished: u64,
    /// Requests and connections that were cut at the deadline.
    pub cut: u64,
    /// WebSockets and event streams that were closed at the end of their grace.
    pub closed_streams: u64,
    /// How long it took.
    pub took: Duration,
}

/// Steers gateways and asks them.
///
/// # Contract
/// - `steer` is one atomic switch: what begins after it returned goes by the new routing, and it is on the gateway's disk before it is in force.
///   The same routing again changes nothing; an older generation is [`Refusal::Stale`], the same one with other content [`Refusal::Conflict`];
///   after any refusal the old routing is in force.
/// - `probe` asks from where the gateway stands; the target need not be routed. It answers within `timeout` (and at most 250 ms more), never changes
///   what is routed, and what could not be asked is [`crate::health::Verdict::Unknown`].
/// - `drain` returns only when it is safe to stop the instance: nothing new goes there, and what ran has ended or was cut at its deadline.
///   It refuses an instance that has weight ([`Refusal::StillRouted`]), and succeeds at once for one that it does not know.
/// - `stats` changes nothing. Counters begin at zero with each [`WorkerStats::epoch`].
/// - `upgrade` drops no request. After an error the old program serves. The same binary again is an upgrade again.
/// - A gateway that does not run is [`TrafficError::Unreachable`].
#[async_trait]
pub trait Traffic: Send + Sync {
    /// Makes `routing` what the gateway does.
    ///
    /// # Errors
    ///
    /// [`TrafficError::Refused`]: nothing changed. [`TrafficError::Broken`] and [`TrafficError::TimedOut`]: it may be in force; repeat the call.
    async fn steer(&self, gateway: &GatewayName, routing: &Routing) -> Result<(), TrafficError>;

    /// Puts `question` to `target` from where the gateway stands. Only HTTP and TCP can be asked.
    ///
    /// # Errors
    ///
    /// When the gateway itself could not be asked.
    async fn probe(&self, gateway: &GatewayName, target: &Target, question: &Question, timeout: Duration) -> Result<Finding, TrafficError>;

    /// Waits until nothing runs at `instance` any more, or cuts it by `policy`.
    ///
    /// # Errors
    ///
    /// [`Refusal::StillRouted`]; and when the gateway could not be asked: the instance must not be stopped then.
    async fn drain(&self, gateway: &GatewayName, instance: &ContainerName, policy: &DrainPolicy) -> Result<DrainReport, TrafficError>;

    /// What it does and what it counted.
    ///
    /// # Errors
    ///
    /// When the gateway could not be asked.
    async fn stats(&self, gateway: &GatewayName) -> Result<GatewayStats, TrafficError>;

    /// Replaces the gateway's program with `binary` (a file on this host) while it serves, and answers with the new program's version.
    ///
    /// # Errors
    ///
    /// [`Refusal::UpgradeFailed`]: the old program serves on.
    async fn upgrade(&self, gateway: &GatewayName, binary: &Path) -> Result<String, TrafficError>;
}

/// Why a gateway did not do what it was told. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Refusal {
    /// A newer routing is in force.
    #[error("the routing {offered} is older than {current}, which is in force")]
    Stale {
        /// What was offered.
        offered: Generation,
        /// What is in force.
        current: Generation,
    },
    /// Another routing has the same generation.
    #[error("another routing with the generation {generation} is in force")]
    Conflict {
        /// The generation of both.
        generation: Generation,
    },
    /// The routing cannot be carried out.
    #[error("the routing cannot be carried out: {reason}")]
    BadRouting {
        /// What is wrong with it.
        reason: String,
    },
    /// The instance gets new requests.
    #[error("the instance `{instance}` still gets new requests")]
    StillRouted {
        /// The instance.
        instance: ContainerName,
    },
    /// The state could not be written.
    #[error("the gateway could not keep its state: {reason}")]
    NotKept {
        /// The system's words.
        reason: String,
    },
    /// It is being replaced by another program at this moment.
    #[error("the gateway is being upgraded at this moment")]
    Upgrading,
    /// The new program did not come up.
    #[error("the new program of the gateway did not take over: {reason}")]
    UpgradeFailed {
        /// Why.
        reason: String,
    },
    /// The call was not understood.
    #[error("the gateway does not understand the call: {reason}")]
    NotUnderstood {
        /// What it did not understand.
        reason: String,
    },
}

impl Remedy for Refusal {
    fn remedy(&self) -> String {
        match self {
            Self::Stale { .. } | Self::Conflict { .. } => "look at `kaleem status`: another plan has steered this gateway since",
            Self::BadRouting { .. } => "report this as a bug, with the plan",
            Self::StillRouted { .. } => "steer the gateway away from the instance first",
            Self::NotKept { .. } => "free space in the state directory and check that the gateway's user may write there",
            Self::Upgrading => "run the same command again in a moment",
            Self::UpgradeFailed { .. } => "check that the new binary is for this machine and runs, then upgrade again",
            Self::NotUnderstood { .. } => "upgrade the gateway to the version of kaleem",
        }
        .to_owned()
    }

    fn is_transient(&self) -> bool {
        matches!(self, Self::Upgrading)
    }
}

/// A gateway could not be steered or asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrafficError {
    /// Nobody answers at its control socket.
    #[error("could not reach the gateway `{gateway}`")]
    Unreachable {
        /// The gateway.
        gateway: GatewayName,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The connection ended before the answer.
    #[error("the gateway `{gateway}` went away while it was asked to {operation}")]
    Broken {
        /// The gateway.
        gateway: GatewayName,
        /// What it was asked.
        operation: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No answer in time.
    #[error("the gateway `{gateway}` did not {operation} within {limit:?}")]
    TimedOut {
        /// The gateway.
        gateway: GatewayName,
        /// What it was asked.
        operation: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// The answer is not one of this protocol.
    #[error("the gateway `{gateway}` answered something that is not understood: {reason}")]
    Garbled {
        /// The gateway.
        gateway: GatewayName,
        /// What is wrong with it.
        reason: String,
    },
    /// The new binary could not be brought to it.
    #[error("could not bring the binary `{binary}` to the gateway `{gateway}`")]
    NotBrought {
        /// The gateway.
        gateway: GatewayName,
        /// The file on this host.
        binary: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It said no; nothing changed.
    #[error("the gateway `{gateway}` refused to {operation}")]
    Refused {
        /// The gateway.
        gateway: GatewayName,
        /// What it was asked.
        operation: &'static str,
        /// Why.
        #[source]
        source: Refusal,
    },
}

impl Remedy for TrafficError {
    fn remedy(&self) -> String {
        match self {
            Self::Unreachable { gateway, .. } | Self::Broken { gateway, .. } => {
                format!("check that the gateway's container runs (`docker logs {gateway}`), then run the same command")
            }
            Self::TimedOut { .. } => "check the load of the host, then run the same command".to_owned(),
            Self::Garbled { .. } => "upgrade the gateway to the version of kaleem".to_owned(),
            Self::NotBrought { .. } => "check that the file can be read and that there is space in the state directory".to_owned(),
            Self::Refused { source, .. } => source.remedy(),
        }
    }

    fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } | Self::TimedOut { .. } => true,
            Self::Refused { source, .. } => source.is_transient(),
            Self::Garbled { .. } | Self::NotBrought { .. } => false,
        }
    }
}

/// What goes over the control socket.
pub mod protocol;
/// The client of a gateway's control socket.
mod socket;
/// What a gateway counts.
mod stats;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn undo_is_newer_than_every_perform_and_runs_newest_first() {
        let plan = PlanId(7);
        let in_order = [
            Generation::of_undo(PlanId(6), 0),
            Generation::of_perform(plan, 0),
            Generation::of_perform(plan, 9),
            Generation::of_undo(plan, 9),
            Generation::of_undo(plan, 0),
            Generation::of_perform(PlanId(8), 0),
        ];
        assert!(in_order.is_sorted_by(|a, b| a < b), "{in_order:?}");
    }

    #[test]
    fn a_host_is_an_address_or_a_name_and_nothing_else() {
        for (why, text, ok) in [
            ("IPv4", "172.18.0.3", true),
            ("IPv6", "fd00::3", true),
            ("name", "shop-api-r7-1", true),
            ("port belongs elsewhere", "api:3000", false),
            ("empty", "", false),
            ("line end", "api\n", false),
        ] {
            assert_eq!(text.parse::<TargetHost>().is_ok(), ok, "{why}: {text:?}");
        }
    }
}

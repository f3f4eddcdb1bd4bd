//! What a monitor remembers, and keeps on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::health::Verdict;
use crate::names::ServiceName;

/// The format of [`MonitorState`].
pub const STATE_FORMAT: u32 = 1;

/// A probe of a service, as `service/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProbeId(String);

impl ProbeId {
    /// The probe with that name.
    pub fn new(service: &ServiceName, name: &str) -> Self {
        Self(format!("{service}/{name}"))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProbeId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&self.0)
    }
}

/// The number of an incident: given once, in order, and never again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IncidentId(pub u64);

impl fmt::Display for IncidentId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&format!("i{}", self.0))
    }
}

/// A failure that lasted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Incident {
    /// Its number.
    pub id: IncidentId,
    /// What found it.
    pub probe: ProbeId,
    /// What it is about.
    pub service: ServiceName,
    /// The finding that opened it.
    pub reason: String,
    /// What to do about it.
    pub remedy: Option<String>,
    /// When, for people.
    pub opened_at: Timestamp,
    /// When it was over, for people.
    pub closed_at: Option<Timestamp>,
    /// An open incident that explains it.
    pub suppressed_by: Option<IncidentId>,
}

/// What a probe last found, with warnings counted as good and unknown left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// It works.
    Good,
    /// It does not.
    Bad,
}

/// What is remembered of one probe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeState {
    /// The last verdict.
    pub last: Option<Verdict>,
    /// The last condition.
    pub condition: Option<Condition>,
    /// How many times in a row.
    pub streak: u32,
    /// Since when, on the monitor's clock.
    pub since: Duration,
    /// Unknown answers in a row.
    pub unknowns: u32,
    /// When the condition changed, on the monitor's clock; as far back as flapping is counted.
    pub changes: Vec<Duration>,
    /// Whether it changes too often.
    pub is_flapping: bool,
    /// Runs so far.
    pub runs: u64,
}

/// A time in which failures of some services are expected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Which services.
    pub services: BTreeSet<ServiceName>,
    /// Its latest end, on the monitor's clock.
    pub until: Duration,
}

/// All that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MonitorState {
    /// Format of this text.
    pub format: u32,
    /// The monitor's clock: time spent monitoring.
    pub time: Duration,
    /// By probe.
    pub probes: BTreeMap<ProbeId, ProbeState>,
    /// Open incidents.
    pub incidents: BTreeMap<IncidentId, Incident>,
    /// The last number that was given.
    pub incidents_so_far: u64,
    /// Open windows, by name.
    pub windows: BTreeMap<String, Window>,
}

impl MonitorState {
    /// Nothing seen yet.
    pub(super) fn new() -> Self {
        Self {
            format: STATE_FORMAT,
            time: Duration::ZERO,
            probes: BTreeMap::new(),
            incidents: BTreeMap::new(),
            incidents_so_far: 0,
            windows: BTreeMap::new(),
        }
    }
}

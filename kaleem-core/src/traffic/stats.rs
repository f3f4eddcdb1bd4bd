//! What a gateway counts, in a form that two readings can be subtracted: a watch window is the difference of two.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Routing;
use crate::names::{ContainerName, ReleaseId};

/// Everything a gateway knows of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GatewayStats {
    /// The process that serves.
    pub worker: WorkerStats,
    /// What is in force; `None` until it was steered for the first time.
    pub routing: Option<Routing>,
    /// Requests that are held.
    pub hold: HoldStats,
    /// Connections of clients that are open.
    pub open_connections: u64,
    /// Targets that are routed or still busy, by instance.
    pub targets: Vec<TargetStats>,
    /// What was counted by release, targets that are gone included.
    pub releases: BTreeMap<ReleaseId, Counts>,
    /// Ports that port containers have added; `None` where the program is too old to take any.
    #[serde(default)]
    pub added_ports: Option<Vec<AddedPort>>,
}

/// A port that a port container has added to a gateway.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AddedPort {
    /// Its name, as on the label of the port container.
    pub name: String,
    /// The port inside the container.
    pub port: u16,
}

/// The process that serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStats {
    /// Version of its program.
    pub version: String,
    /// Its process id, as the gateway's container counts them.
    pub pid: u32,
    /// Random; differs for each worker, so counters of two epochs are not subtracted.
    pub epoch: u64,
    /// How often a worker died since the gateway started.
    pub crashes: u64,
    /// Beginning of the SHA-256 of its program, where that was put in while the gateway ran; `None` is the one of its image.
    #[serde(default)]
    pub program: Option<String>,
    /// What it started from.
    pub memory: Memory,
}

/// What a worker found when it started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Memory {
    /// There was no state: the gateway is new.
    Fresh,
    /// The state was whole.
    Restored,
    /// The state was not whole; it was set aside, and everything is held until the gateway is steered.
    Damaged {
        /// What is wrong with it.
        reason: String,
    },
}

/// Requests that wait for a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldStats {
    /// How many wait now.
    pub waiting: u64,
    /// How many ever waited.
    pub held: u64,
    /// How many waited too long.
    pub expired: u64,
    /// How many found the queue full.
    pub overflowed: u64,
}

/// Whether a target is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetState {
    /// It gets requests by its weight.
    Believed,
    /// It could not be reached, or was not reached yet since the worker started; it is asked until it can.
    Doubted,
    /// It gets nothing new.
    Retired,
}

/// One target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetStats {
    /// Its container.
    pub instance: ContainerName,
    /// Its release.
    pub release: ReleaseId,
    /// Whether it is used.
    pub state: TargetState,
    /// Requests and connections that run now, streams included.
    pub in_flight: u64,
    /// WebSockets and event streams among them.
    pub streams: u64,
    /// What was counted.
    pub counts: Counts,
}

/// Counters that only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Requests sent (connections in TCP mode).
    pub requests: u64,
    /// Answers with status 500 and above.
    pub server_errors: u64,
    /// Requests whose connection broke before the answer was complete, and which could not be sent again.
    pub broken: u64,
    /// Connections that could not be made.
    pub connect_failures: u64,
    /// Requests that went elsewhere because this target did not take them.
    pub retries: u64,
    /// Time from sending a request to the beginning of its answer.
    pub latency: Latency,
}

impl Counts {
    /// What was added since `earlier`, a reading of the same epoch.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(earlier.requests),
            server_errors: self.server_errors.saturating_sub(earlier.server_errors),
            broken: self.broken.saturating_sub(earlier.broken),
            connect_failures: self.connect_failures.saturating_sub(earlier.connect_failures),
            retries: self.retries.saturating_sub(earlier.retries),
            latency: self.latency.since(&earlier.latency),
        }
    }

    /// Adds what another target counted.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.server_errors += other.server_errors;
        self.broken += other.broken;
        self.connect_failures += other.connect_failures;
        self.retries += other.retries;
        self.latency.add(&other.latency);
    }

    /// Share of requests that failed at the instance, from 0 to 1; 0 where there was none.
    pub fn failure_rate(&self) -> f64 {
        if self.requests == 0 {
            return 0.0;
        }
        (self.server_errors + self.broken) as f64 / self.requests as f64
    }
}

/// A histogram of durations: 8 buckets for each doubling from 1 µs, so a quantile is right within an eighth.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Latency {
    by_bucket: BTreeMap<u16, u64>,
}

impl Latency {
    /// How many buckets there are; the last one takes all that is longer than an hour.
    pub const BUCKETS: usize = 240;

    /// The bucket of a duration, below [`Self::BUCKETS`].
    pub fn bucket_of(duration: Duration) -> u16 {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).min((1 << 32) - 1);
        if micros < 16 {
            return u16::try_from(micros).unwrap_or(0);
        }
        let exponent = 63 - micros.leading_zeros();
        let eighth = (micros >> (exponent - 3)) & 7;
        u16::try_from(16 + u64::from(exponent - 4) * 8 + eighth).unwrap_or(0)
    }

    /// The end of a bucket: durations in it are at most that long.
    pub fn end_of(bucket: u16) -> Duration {
        let bucket = u64::from(bucket);
        if bucket < 16 {
            return Duration::from_micros(bucket);
        }
        let exponent = (bucket - 16) / 8 + 4;
        let eighth = (bucket - 16) % 8;
        Duration::from_micros(((8 + eighth + 1) << (exponent - 3)) - 1)
    }

    /// Adds `count` durations to a bucket.
    pub fn record(&mut self, bucket: u16, count: u64) {
        if count > 0 {
            *self.by_bucket.entry(bucket).or_default() += count;
        }
    }

    /// How many durations it holds.
    pub fn count(&self) -> u64 {
        self.by_bucket.values().sum()
    }

    /// The duration that the share `quantile` (0 to 1) does not exceed; `None` where nothing was measured.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        let total = self.count();
        let wanted = ((total as f64 * quantile.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut seen = 0;
        self.by_bucket.iter().find_map(|(bucket, count)| {
            seen += count;
            (seen >= wanted).then(|| Self::end_of(*bucket))
        })
    }

    /// Buckets that are not empty, shortest first: the end, and how many.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        self.by_bucket.iter().map(|(bucket, count)| (Self::end_of(*bucket), *count))
    }

    /// What was added since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut difference = Self::default();
        for (bucket, count) in &self.by_bucket {
            difference.record(*bucket, count.saturating_sub(earlier.by_bucket.get(bucket).copied().unwrap_or(0)));
        }
        difference
    }

    /// Adds another histogram.
    pub fn add(&mut self, other: &Self) {
        for (bucket, count) in &other.by_bucket {
            self.record(*bucket, *count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_lies_in_its_bucket_and_no_earlier_one() {
        for micros in (0..5_000).chain([65_535, 65_536, 1_000_000, 59_999_999, (1 << 32) - 1]) {
            let duration = Duration::from_micros(micros);
            let bucket = Latency::bucket_of(duration);
            assert!(usize::from(bucket) < Latency::BUCKETS, "{micros}");
            assert!(duration <= Latency::end_of(bucket), "{micros} in {bucket}");
            assert!(bucket == 0 || duration > Latency::end_of(bucket - 1), "{micros} in {bucket}");
        }
        assert_eq!(usize::from(Latency::bucket_of(Duration::MAX)), Latency::BUCKETS - 1);
    }

    #[test]
    fn a_watch_window_is_the_difference_of_two_readings() {
        let mut early = Counts { requests: 10, ..Counts::default() };
        early.latency.record(Latency::bucket_of(Duration::from_millis(1)), 10);
        let mut late = early.clone();
        late.requests += 4;
        late.server_errors += 1;
        late.latency.record(Latency::bucket_of(Duration::from_millis(100)), 4);
        let window = late.since(&early);
        assert_eq!((window.requests, window.failure_rate()), (4, 0.25));
        let median = window.latency.quantile(0.5).unwrap();
        assert!(median >= Duration::from_millis(100) && median < Duration::from_millis(113), "{median:?}");
        assert_eq!(Latency::default().quantile(0.99), None);
    }
}

//! What the load saw: every request by its kind, how it ended, how long it took, and what was carried.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::gauntlet::flows::{Door, Kind};
use crate::load::percentile;

/// Around a swap: requests that begin in this time before and after its first answer.
const BEFORE_SWAP: Duration = Duration::from_millis(500);
const AFTER_SWAP: Duration = Duration::from_millis(500);
/// Reasons that are kept word for word.
const MOST_REASONS: usize = 12;

/// One request that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    /// Since the start of the load.
    pub begun: Duration,
    /// Until the last byte of the answer.
    pub took: Duration,
    /// What it was.
    pub kind: Kind,
    /// Where it went in.
    pub door: Door,
    /// Whether it was answered rightly.
    pub ok: bool,
}

/// What was seen between two moments.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    samples: Vec<Sample>,
    /// First answers of each version that took over, since the start of the load.
    pub swaps: Vec<Duration>,
    /// Who answers.
    pub version: String,
    /// Answered at the second try: the kept connection was gone, and sending again could do no harm.
    pub retried: u64,
    /// Streams that were ended in order and begun anew.
    pub goodbyes: u64,
    /// Orders that were confirmed.
    pub confirmed: Vec<String>,
    /// Bytes written.
    pub sent_bytes: u64,
    /// Bytes read.
    pub received_bytes: u64,
    /// Why the first ones failed.
    pub reasons: Vec<String>,
    /// How often each kind failed.
    pub failures: BTreeMap<(Kind, Door), u64>,
    /// When something was killed, and when it was gone: on a busy machine a process takes connections until its last thread has ended.
    pub killed: Option<(Duration, Duration)>,
}

impl Tally {
    /// Takes note of a request.
    pub(super) fn note(&mut self, sample: Sample, version: Option<&str>, reason: Option<&str>) {
        self.samples.push(sample);
        if let Some(reason) = reason {
            *self.failures.entry((sample.kind, sample.door)).or_default() += 1;
            if self.reasons.len() < MOST_REASONS {
                let at = sample.begun.as_secs_f64();
                let took = sample.took.as_secs_f64() * 1000.0;
                self.reasons.push(format!("{} {} at {at:.2} s after {took:.0} ms: {reason}", sample.door, sample.kind));
            }
        }
        let Some(version) = version.filter(|version| !version.is_empty() && *version != self.version) else { return };
        // An answer that was under way when the swap came says nothing new.
        if self.swaps.last().is_some_and(|swap| sample.begun < *swap) {
            return;
        }
        if !self.version.is_empty() {
            self.swaps.push(sample.begun + sample.took);
        }
        version.clone_into(&mut self.version);
    }

    /// Requests that were begun and ended.
    pub(super) fn sent(&self) -> u64 {
        self.samples.len() as u64
    }

    /// Those without a right answer.
    pub(super) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Failed ones that were not open when something was killed.
    pub(super) fn failed_beyond_kill(&self) -> u64 {
        let Some((killed, gone)) = self.killed else { return self.failed() };
        self.samples.iter().filter(|sample| !sample.ok && (sample.begun > gone || sample.begun + sample.took < killed)).count() as u64
    }

    /// Requests per second from the first to the last.
    pub(super) fn per_second(&self) -> f64 {
        let first = self.samples.iter().map(|sample| sample.begun).min().unwrap_or_default();
        let last = self.samples.iter().map(|sample| sample.begun).max().unwrap_or_default();
        let seconds = last.saturating_sub(first).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 requests")]
        let sent = self.sent() as f64;
        if seconds > 0.0 { sent / seconds } else { 0.0 }
    }

    fn latencies(&self, chosen: impl Fn(&Sample) -> bool) -> Vec<Duration> {
        let mut all: Vec<Duration> =
            self.samples.iter().filter(|sample| sample.ok && sample.kind.is_small() && chosen(sample)).map(|sample| sample.took).collect();
        all.sort_unstable();
        all
    }

    /// Of small requests, all that were answered.
    pub(super) fn percentile(&self, percent: f64) -> Duration {
        percentile(&self.latencies(|_| true), percent)
    }

    /// Of small requests that began around a swap; `None` when there was none.
    pub(super) fn percentile_at_swaps(&self, percent: f64) -> Option<Duration> {
        if self.swaps.is_empty() {
            return None;
        }
        Some(percentile(&self.latencies(|sample| self.is_at_swap(sample)), percent))
    }

    /// Of small requests that began away from any swap.
    pub(super) fn percentile_elsewhere(&self, percent: f64) -> Duration {
        percentile(&self.latencies(|sample| !self.is_at_swap(sample)), percent)
    }

    fn is_at_swap(&self, sample: &Sample) -> bool {
        self.swaps.iter().any(|swap| sample.begun + BEFORE_SWAP >= *swap && sample.begun <= *swap + AFTER_SWAP)
    }

    /// The small request that took longest until its answer, right or not.
    pub(super) fn slowest(&self) -> Option<&Sample> {
        self.samples.iter().filter(|sample| sample.kind.is_small()).max_by_key(|sample| sample.took)
    }

    /// The longest that anybody waited for a small answer, right or not.
    pub(super) fn worst(&self) -> Duration {
        self.slowest().map(|sample| sample.took).unwrap_or_default()
    }

    /// How long requests were turned away at that door: from the first small one that failed to the last one, by when they were begun.
    /// What waits and is answered in the end was not turned away.
    pub(super) fn refused(&self, door: Door) -> Duration {
        let failed = || self.samples.iter().filter(|sample| !sample.ok && sample.door == door && sample.kind.is_small());
        let (first, last) = (failed().map(|sample| sample.begun + sample.took).min(), failed().map(|sample| sample.begun).max());
        last.unwrap_or_default().saturating_sub(first.unwrap_or_default())
    }

    /// The longest time in which nobody at that door got a right answer to a small request. Clients that all wait are seen too.
    pub(super) fn longest_outage(&self, door: Door) -> Duration {
        let right = self.samples.iter().filter(|sample| sample.ok && sample.door == door && sample.kind.is_small());
        let mut answered: Vec<Duration> = right.map(|sample| sample.begun + sample.took).collect();
        answered.sort_unstable();
        answered.iter().zip(answered.iter().skip(1)).map(|(before, after)| after.saturating_sub(*before)).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(begun: u64, took: u64, ok: bool) -> Sample {
        let of = Duration::from_millis;
        Sample { begun: of(begun), took: of(took), kind: Kind::Get, door: Door::Direct, ok }
    }

    #[test]
    fn a_swap_is_the_first_answer_of_another_version_and_late_answers_of_the_old_one_are_none() {
        let mut tally = Tally::default();
        for (begun, took, version) in [(0, 5, "a"), (100, 5, "a"), (1000, 10, "b"), (990, 40, "a"), (1020, 5, "b"), (3000, 5, "c")] {
            tally.note(sample(begun, took, true), Some(version), None);
        }
        assert_eq!(tally.swaps, [Duration::from_millis(1010), Duration::from_millis(3005)]);
        assert_eq!(tally.percentile_at_swaps(100.0), Some(Duration::from_millis(40)));
        assert_eq!(tally.percentile_elsewhere(100.0), Duration::from_millis(5));
        assert_eq!(Tally::default().percentile_at_swaps(99.0), None);
    }

    #[test]
    fn an_outage_is_the_time_without_a_right_answer() {
        let mut tally = Tally::default();
        for (begun, ok) in [(0, true), (100, false), (150, false), (300, true), (400, false), (450, true)] {
            tally.note(sample(begun, 1, ok), None, (!ok).then_some("no"));
        }
        assert_eq!((tally.sent(), tally.failed()), (6, 3));
        assert_eq!(tally.longest_outage(Door::Direct), Duration::from_millis(300));
        assert_eq!(tally.longest_outage(Door::Edge), Duration::ZERO);
        assert_eq!(tally.refused(Door::Direct), Duration::from_millis(299), "from the end of the first to the beginning of the last");
        assert_eq!(tally.refused(Door::Edge), Duration::ZERO);
    }

    #[test]
    fn only_what_was_open_at_a_kill_may_fail_by_it() {
        let mut tally = Tally { killed: Some((Duration::from_millis(100), Duration::from_millis(100))), ..Tally::default() };
        for (begun, took) in [(90, 20), (95, 10), (101, 5), (10, 20)] {
            tally.note(sample(begun, took, false), None, Some("broken"));
        }
        assert_eq!((tally.failed(), tally.failed_beyond_kill()), (4, 2));
    }
}

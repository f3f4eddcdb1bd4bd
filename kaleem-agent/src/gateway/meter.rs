//! Counters of one target on one thread. Only that thread writes them, so counting costs no locked instruction and no shared cache line.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kaleem_core::traffic::{Counts, Latency};

/// A counter with one writer and any number of readers.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add_one(&self) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A level with one writer. Going up is ordered before all that follows: a drain that reads 0 after it has retired a target
/// can rely on nobody having entered unseen.
#[derive(Debug, Default)]
pub(crate) struct Level(AtomicU64);

impl Level {
    pub(crate) fn up(&self) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(1), Ordering::SeqCst);
    }

    pub(crate) fn down(&self) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(1), Ordering::Release);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// What one thread counts of one target.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Meter {
    pub(crate) in_flight: Level,
    pub(crate) streams: Level,
    pub(crate) requests: Counter,
    pub(crate) server_errors: Counter,
    pub(crate) broken: Counter,
    pub(crate) connect_failures: Counter,
    pub(crate) retries: Counter,
    latency: Box<[Counter]>,
}

impl Meter {
    pub(crate) fn new() -> Self {
        Self {
            in_flight: Level::default(),
            streams: Level::default(),
            requests: Counter::default(),
            server_errors: Counter::default(),
            broken: Counter::default(),
            connect_failures: Counter::default(),
            retries: Counter::default(),
            latency: std::iter::repeat_with(Counter::default).take(Latency::BUCKETS).collect(),
        }
    }

    /// Counts one duration.
    pub(crate) fn took(&self, duration: Duration) {
        if let Some(bucket) = self.latency.get(usize::from(Latency::bucket_of(duration))) {
            bucket.add_one();
        }
    }

    /// What was counted so far.
    pub(crate) fn read(&self) -> Counts {
        let mut latency = Latency::default();
        for (bucket, counter) in self.latency.iter().enumerate() {
            latency.record(u16::try_from(bucket).unwrap_or(u16::MAX), counter.get());
        }
        Counts {
            requests: self.requests.get(),
            server_errors: self.server_errors.get(),
            broken: self.broken.get(),
            connect_failures: self.connect_failures.get(),
            retries: self.retries.get(),
            latency,
        }
    }
}

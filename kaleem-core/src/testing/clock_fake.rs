//! A clock that stands still until somebody sleeps: tests of minutes take no time.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

use crate::clock::Clock;

/// Called at every question for wall time.
pub type OnNow = Box<dyn Fn() + Send + Sync>;

/// A clock which only sleeping moves.
#[derive(Default)]
pub struct FakeClock {
    monotonic_ms: AtomicU64,
    wall_offset_ms: AtomicI64,
    on_now: Mutex<Option<OnNow>>,
}

impl FakeClock {
    /// A clock at 2026-01-01 00:00 UTC.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the wall time off by so much, as an operator or a time server does; monotonic time goes on.
    pub fn set_wall_back_or_forth(&self, offset: Duration, back: bool) {
        let ms = i64::try_from(offset.as_millis()).unwrap_or(i64::MAX);
        self.wall_offset_ms.store(if back { -ms } else { ms }, Ordering::SeqCst);
    }

    /// Has `hook` called at every question for wall time: each record of a journal asks once, just before it is written.
    pub fn on_now(&self, hook: OnNow) {
        *self.on_now.lock().unwrap_or_else(PoisonError::into_inner) = Some(hook);
    }
}

#[async_trait]
impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        if let Some(hook) = self.on_now.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            hook();
        }
        const START_SECONDS: i64 = 1_767_225_600;
        let passed = i64::try_from(self.monotonic_ms.load(Ordering::SeqCst)).unwrap_or(i64::MAX);
        let since_start = SignedDuration::from_millis(passed.saturating_add(self.wall_offset_ms.load(Ordering::SeqCst)));
        Timestamp::from_second(START_SECONDS).unwrap_or(Timestamp::UNIX_EPOCH).saturating_add(since_start).unwrap_or(Timestamp::MAX)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.monotonic_ms.load(Ordering::SeqCst))
    }

    async fn sleep(&self, duration: Duration) {
        let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        self.monotonic_ms.fetch_add(ms.max(1), Ordering::SeqCst);
        tokio::task::yield_now().await;
    }
}

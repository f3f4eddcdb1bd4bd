//! The one door to time. Wall time is shown to people and never decides an order.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

/// Time, so that tests decide what it is.
#[async_trait]
pub trait Clock: Send + Sync {
    /// Wall time, for people.
    fn now(&self) -> Timestamp;
    /// Time since an arbitrary moment; never goes back.
    fn monotonic(&self) -> Duration;
    /// Waits.
    async fn sleep(&self, duration: Duration);
}

/// The machine's own time.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    fn monotonic(&self) -> Duration {
        use std::sync::OnceLock;
        use std::time::Instant;
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// A random part of `delay`, from half to all of it: many that fail together do not come back together.
pub fn jittered(delay: Duration) -> Duration {
    // Without randomness the delay is merely longer.
    let random = getrandom::u32().unwrap_or(u32::MAX);
    delay.mul_f64(0.5 + 0.5 * f64::from(random) / f64::from(u32::MAX))
}

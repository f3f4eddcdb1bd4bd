//! Requests that wait for a target: bounded in number and time, and let go one after the other.
//!
//! Nothing is read from a client that waits, so what it sends stays in the kernel.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kaleem_core::traffic::{HoldLimits, HoldStats};

use super::target::now;

/// Used until the gateway is steered for the first time.
pub(crate) const FIRST_LIMITS: HoldLimits = HoldLimits { requests: 1024, time: Duration::from_secs(30), release_per_second: 1000 };

/// Why a request was not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HoldError {
    /// Too many wait already.
    Full,
    /// It waited too long.
    Expired,
    /// The gateway is being stopped, and nobody is there to have it.
    Stopping,
}

/// All that wait, on all threads.
#[derive(Debug, Default)]
pub(crate) struct Hold {
    waiting: AtomicU64,
    held: AtomicU64,
    expired: AtomicU64,
    overflowed: AtomicU64,
    closed: AtomicBool,
    /// When the next one may go.
    next: Mutex<Duration>,
}

/// A place in the queue, given back when dropped.
#[derive(Debug)]
pub(crate) struct Waiting<'a>(&'a Hold);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Hold {
    /// Takes a place.
    pub(crate) fn enter(&self, limits: &HoldLimits) -> Result<Waiting<'_>, HoldError> {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= u64::from(limits.requests) {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.overflowed.fetch_add(1, Ordering::Relaxed);
            return Err(HoldError::Full);
        }
        self.held.fetch_add(1, Ordering::Relaxed);
        Ok(Waiting(self))
    }

    /// Lets nobody wait from now on. Who waits already has to be told to look.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Whether nobody may wait any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Counts one that waited too long.
    pub(crate) fn expire(&self) -> HoldError {
        self.expired.fetch_add(1, Ordering::Relaxed);
        HoldError::Expired
    }

    /// How long one that may go has still to wait, so that they do not all arrive at once.
    pub(crate) fn pace(&self, limits: &HoldLimits) -> Duration {
        let present = now();
        let step = Duration::from_secs(1) / limits.release_per_second.max(1);
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = present.max(*next);
        *next = mine + step;
        mine - present
    }

    /// What was counted.
    pub(crate) fn stats(&self) -> HoldStats {
        HoldStats {
            waiting: self.waiting.load(Ordering::Relaxed),
            held: self.held.load(Ordering::Relaxed),
            expired: self.expired.load(Ordering::Relaxed),
            overflowed: self.overflowed.load(Ordering::Relaxed),
        }
    }
}

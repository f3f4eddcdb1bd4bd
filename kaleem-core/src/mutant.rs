//! Faults that tests plant in the journal's fold and in the engine, to see that the matrices find them.
//!
//! Only with the feature `testing`, which no program of users is built with; elsewhere every question here is answered with
//! a constant `false`, and nothing of this is left in the binary. A mutant lives in one thread, so that tests beside it are sound.

/// A fault that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// `Started` is written after the host was touched instead of before.
    LateIntent,
    /// `Started` is written before the host is touched, and not waited for: a loss of power takes it.
    UnsyncedIntent,
    /// A step that failed is taken for one that did nothing, and is not taken back.
    FailedStepNotUndone,
    /// Going back begins with the oldest step.
    UndoInWrongOrder,
    /// An abort takes back what is done, and forgets what was only begun.
    AbortIgnoresStarted,
}

#[cfg(feature = "testing")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Whether this fault is planted in the running thread.
#[cfg(feature = "testing")]
pub(crate) fn is_planted(mutant: Mutant) -> bool {
    PLANTED.with(|planted| planted.get() == Some(mutant))
}

/// Nothing is ever planted in what users run.
#[cfg(not(feature = "testing"))]
pub(crate) const fn is_planted(_mutant: Mutant) -> bool {
    false
}

/// A planted fault, until it is dropped.
#[cfg(feature = "testing")]
#[derive(Debug)]
pub struct Planted(());

/// Plants a fault in this thread: whatever journals are folded and plans carried out in it have that fault.
#[cfg(feature = "testing")]
#[must_use]
pub fn plant(mutant: Mutant) -> Planted {
    PLANTED.with(|planted| planted.set(Some(mutant)));
    Planted(())
}

#[cfg(feature = "testing")]
impl Drop for Planted {
    fn drop(&mut self) {
        PLANTED.with(|planted| planted.set(None));
    }
}

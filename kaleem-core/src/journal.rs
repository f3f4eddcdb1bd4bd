//! What has been done so far, on disk before it is believed.
//!
//! One file a plan, one line an event. `docs/journal-format.md` is the contract with every later version.
//! Nothing here touches the host: a journal says what was meant and what was seen.

use serde::{Deserialize, Serialize};

use crate::outcome::{Outcome, Resolution};
use crate::plan::Plan;

pub mod file;
pub mod progress;

pub use file::{Journal, JournalError, Record};
pub use progress::{IllegalEvent, Next, Progress, StepStatus};

/// Version of the form in which journals are begun. Older ones are read, and gone on with in their own form.
pub const JOURNAL_FORMAT: u32 = 3;

/// Something that was decided or seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Event {
    /// The plan. Always the first event, and only that.
    Planned {
        /// [`JOURNAL_FORMAT`] when it was written.
        format: u32,
        /// The plan.
        plan: Box<Plan>,
    },
    /// A step is about to touch the host. From here on it counts as having happened.
    Started {
        /// Which.
        step: usize,
    },
    /// A step did what it was meant to.
    Done {
        /// Which.
        step: usize,
        /// What was seen.
        evidence: Evidence,
    },
    /// A step did not do what it was meant to; how far it got is not known.
    Failed {
        /// Which.
        step: usize,
        /// Why, causes joined by colons.
        error: String,
    },
    /// Somebody asked to stop and go back.
    Aborted {
        /// Who.
        by: String,
    },
    /// A step was taken back.
    Undone {
        /// Which.
        step: usize,
    },
    /// A step could not be rolled back: the plan is stuck until it is tried again, or settled by a person.
    UndoFailed {
        /// Which.
        step: usize,
        /// Why, causes joined by colons.
        error: String,
    },
    /// A person settled a stuck plan.
    Resolved {
        /// Who.
        by: String,
        /// What they say serves.
        resolution: Resolution,
    },
    /// The plan is over. Always the last event.
    Finished {
        /// How.
        outcome: Outcome,
    },
}

/// What a step measured, kept with the release.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Evidence {
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// What was seen, one line, without any secret; empty where the step has nothing to tell.
    pub seen: String,
}

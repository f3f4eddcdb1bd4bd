//! One command that may be killed: at a line of its journal, as seen from outside, or at a moment.

use std::path::Path;
use std::time::Duration;

use kaleem_core::clock::{Clock, SystemClock};
use kaleem_core::state::StateDirectory;

use crate::fail::TaskError;
use crate::programs::{Program, Started};

/// Exit code of what was killed.
pub(super) const KILLED: i32 = 137;
/// Time between two looks at the journal: a step takes longer.
const LOOK: Duration = Duration::from_millis(2);

/// When it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kill {
    /// As soon as its journal has so many lines more than when it was started; a new journal counts from its first line.
    AtLine(u64),
    /// So long after it was started.
    After(Duration),
}

/// A command under way.
pub(super) struct Victim {
    process: Started,
    state: StateDirectory,
    begun: Duration,
    before: Reached,
    exit_code: Option<i32>,
}

impl Victim {
    /// Starts it; what it prints goes to `log`.
    pub(super) fn start(program: Program, log: &Path, state: &StateDirectory) -> Result<Self, TaskError> {
        let before = Reached::now(state);
        let process = program.start(log)?;
        Ok(Self { process, state: state.clone(), begun: SystemClock.monotonic(), before, exit_code: None })
    }

    /// Whether it has not ended.
    pub(super) fn is_alive(&mut self) -> bool {
        if self.exit_code.is_none() {
            self.exit_code = self.process.exit_code();
        }
        self.exit_code.is_none()
    }

    /// Waits until its journal has so many lines more; `false` where it ends before.
    pub(super) fn reach(&mut self, more: u64) -> bool {
        while self.is_alive() {
            if Reached::now(&self.state).beyond(self.before) >= more {
                return true;
            }
            std::thread::sleep(LOOK);
        }
        false
    }

    /// Waits for its end, or kills it before; answers whether it was killed.
    ///
    /// # Errors
    ///
    /// [`TaskError::Unexpected`] when it does not end within `patience`.
    pub(super) fn die(&mut self, kill: Option<&Kill>, patience: Duration) -> Result<bool, TaskError> {
        while self.is_alive() {
            let age = SystemClock.monotonic().saturating_sub(self.begun);
            let due = match kill {
                Some(Kill::AtLine(more)) => Reached::now(&self.state).beyond(self.before) >= *more,
                Some(Kill::After(moment)) => age >= *moment,
                None => false,
            };
            if due {
                self.exit_code = Some(self.process.kill());
                return Ok(self.exit_code == Some(KILLED));
            }
            if age > patience {
                self.process.kill();
                return Err(TaskError::Unexpected { what: format!("a command did not end within {} s", patience.as_secs()) });
            }
            std::thread::sleep(LOOK);
        }
        Ok(false)
    }

    /// How it ended; -1 where it has not.
    pub(super) fn exit_code(&self) -> i32 {
        self.exit_code.unwrap_or(-1)
    }
}

/// The newest journal, and how many lines it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reached {
    plan: u64,
    lines: u64,
}

impl Reached {
    fn now(state: &StateDirectory) -> Self {
        let newest = state.plan_ids().ok().and_then(|ids| ids.last().copied());
        let text = newest.and_then(|newest| std::fs::read(state.journal(newest)).ok()).unwrap_or_default();
        let lines = text.iter().filter(|byte| **byte == b'\n').count() as u64;
        Self { plan: newest.map_or(0, |newest| newest.0), lines }
    }

    /// Lines since `before`; all of them where the journal is a new one.
    fn beyond(self, before: Self) -> u64 {
        if self.plan == before.plan { self.lines.saturating_sub(before.lines) } else { self.lines }
    }
}

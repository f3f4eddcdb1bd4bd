//! Owner marks: notes about a project that every user and every directory of a host sees, because the engine keeps them.
//!
//! A mark is never changed. A newer one with a higher number takes its place, and a number is given once: of two processes that want the same
//! number, one gets it. That is all that a lock across users needs.

use std::path::PathBuf;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::RuntimeError;
use crate::names::{PlanId, ProjectName, ReleaseId, StateId};

/// Version of the form in which marks are kept. A newer one is refused.
pub const MARK_FORMAT: u32 = 1;

/// Who owns a project, and which process works on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnerMark {
    /// [`MARK_FORMAT`] when it was written.
    pub format: u32,
    /// Its place in the order of marks; the highest is in force.
    pub number: u64,
    /// The owner.
    pub owner: Owner,
    /// The process that works on the project, or did last; `None` when it is known to have finished.
    pub worker: Option<Worker>,
}

/// Who owns a project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// The identity of its state directory.
    pub state: StateId,
    /// Where that is.
    pub state_directory: PathBuf,
    /// The host on which that is.
    pub host: String,
    /// The user who worked on the project last.
    pub user: String,
    /// The project's directory; `None` where no command that read the files has run.
    pub directory: Option<PathBuf>,
    /// The compose files.
    pub files: Vec<PathBuf>,
    /// The highest plan number that was given.
    pub plan: PlanId,
    /// The highest release number that was given.
    pub release: ReleaseId,
}

/// A process that works on a project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Worker {
    /// What it does and for whom, such as `deploy by root`.
    pub what: String,
    /// Its host, as that calls itself.
    pub host: String,
    /// Its process.
    pub pid: u32,
    /// When that process was started, in the kernel's ticks since boot: a number that is given again is told apart by it.
    pub started: u64,
    /// The boot of the kernel under which it runs.
    pub boot: String,
    /// The namespace in which `pid` means something.
    pub pid_namespace: String,
    /// Tells apart what one process does one after the other.
    pub turn: u64,
    /// When it began, for people.
    pub since: String,
}

/// Owner marks on the engine.
///
/// # Contract
/// - `put_mark` of a number that is taken changes nothing, and answers with the mark that has it; of two at once, one gets the number.
/// - `marks` has all marks of the project, in the order of their numbers, whoever put them there.
/// - `remove_mark` succeeds when it is gone. It removes nothing but a mark of the project.
/// - A mark that cannot be read is [`RuntimeError::MarkUnreadable`]: it is not passed over.
#[async_trait]
pub trait Marks: Send + Sync {
    /// All marks of the project.
    ///
    /// # Errors
    /// [`RuntimeError::MarkUnreadable`], and when the engine could not be asked.
    async fn marks(&self, project: &ProjectName) -> Result<Vec<OwnerMark>, RuntimeError>;
    /// Puts a mark under its number, unless there is one.
    ///
    /// # Errors
    /// [`RuntimeError::MarkUnreadable`], and what the engine says.
    async fn put_mark(&self, project: &ProjectName, mark: &OwnerMark) -> Result<OwnerMark, RuntimeError>;
    /// Removes the mark with that number.
    ///
    /// # Errors
    /// What the engine says.
    async fn remove_mark(&self, project: &ProjectName, number: u64) -> Result<(), RuntimeError>;
}

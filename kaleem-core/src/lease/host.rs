//! The lock that holds across users and state directories: the owner mark on the engine names the process that works on the project.
//!
//! Only who may use the engine can put a mark there, so nobody else can block or fake it. No file in a directory that all may write to is involved.
//! Whether the process lives is asked of the kernel, so that one which was killed holds nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::RuntimeFlavor;

use super::worker::{self, Life, Turn};
use super::{LeaseError, busy_worker};
use crate::clock::Clock;
use crate::names::{PlanId, ProjectName, ReleaseId};
use crate::runtime::marks::{MARK_FORMAT, Owner, OwnerMark};
use crate::runtime::{Runtime, RuntimeError};

/// How often a mark is asked for that somebody else got at the same moment and gave up again.
const ATTEMPTS: u32 = 5;

/// How long a lock that was not used waits for its mark to be removed.
const REMOVED_WITHIN: Duration = Duration::from_secs(2);

/// The right to work on a project of this engine, until it is dropped.
pub struct HostLock {
    runtime: Arc<dyn Runtime>,
    project: ProjectName,
    mark: OwnerMark,
    /// Ends with this value: from then on the mark is that of a process which is done.
    turn: Option<Turn>,
}

impl std::fmt::Debug for HostLock {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("HostLock").field("mark", &self.mark).finish_non_exhaustive()
    }
}

/// The mark that is in force.
///
/// # Errors
///
/// [`RuntimeError`] when the engine cannot be asked, or the mark not read.
pub async fn in_force(runtime: &Arc<dyn Runtime>, project: &ProjectName) -> Result<Option<OwnerMark>, RuntimeError> {
    Ok(runtime.marks(project).await?.pop())
}

/// Refuses when the process that a mark names is at work.
///
/// # Errors
///
/// [`LeaseError::Busy`], [`LeaseError::Hidden`]
pub fn refuse_busy(mark: Option<&OwnerMark>, hidden: HiddenWorker) -> Result<(), LeaseError> {
    let Some(worker) = mark.and_then(|mark| mark.worker.as_ref()) else { return Ok(()) };
    match worker::life(worker) {
        Life::Over => Ok(()),
        Life::Alive => Err(busy_worker(worker)),
        Life::Hidden if hidden == HiddenWorker::IsOver => Ok(()),
        Life::Hidden => {
            Err(LeaseError::Hidden { owner: worker.what.clone(), pid: worker.pid, host: worker.host.clone(), since: worker.since.clone() })
        }
    }
}

/// What a process counts as that cannot be seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HiddenWorker {
    /// It may be at work.
    MayWork,
    /// A person said that it is not.
    IsOver,
}

fn engine(source: RuntimeError) -> LeaseError {
    LeaseError::Engine { source }
}

impl HostLock {
    /// Takes the lock, and makes `owner` the owner. `seen` is the mark that was in force when that was decided.
    ///
    /// # Errors
    ///
    /// [`LeaseError::Busy`] when another process got it first.
    pub async fn take(
        runtime: &Arc<dyn Runtime>,
        project: &ProjectName,
        owner: Owner,
        what: &str,
        seen: Option<&OwnerMark>,
        clock: &dyn Clock,
    ) -> Result<Self, LeaseError> {
        let turn = Turn::begin();
        let worker = worker::this(what, &turn, clock);
        let mut number = seen.map_or(1, |mark| mark.number + 1);
        for _ in 0..ATTEMPTS {
            let wanted = OwnerMark { format: MARK_FORMAT, number, owner: owner.clone(), worker: Some(worker.clone()) };
            let got = runtime.put_mark(project, &wanted).await.map_err(engine)?;
            let marks = runtime.marks(project).await.map_err(engine)?;
            let newest = marks.last().cloned();
            if got == wanted && newest.as_ref() == Some(&wanted) {
                for older in marks.iter().filter(|older| older.number < number) {
                    // What cannot be tidied now is tidied by the next.
                    runtime.remove_mark(project, older.number).await.ok();
                }
                return Ok(Self { runtime: runtime.clone(), project: project.clone(), mark: wanted, turn: Some(turn) });
            }
            if got == wanted {
                // The number was free again because a newer mark is in force: this one means nothing.
                runtime.remove_mark(project, number).await.map_err(engine)?;
            }
            refuse_busy(newest.as_ref(), HiddenWorker::MayWork)?;
            // Another owner took the project between the look and now.
            if newest.as_ref().is_some_and(|newest| newest.owner.state != owner.state) {
                let worker = newest.and_then(|mark| mark.worker);
                return Err(worker.map_or_else(super::unknown_holder, |worker| busy_worker(&worker)));
            }
            number = newest.map_or(1, |mark| mark.number + 1);
        }
        Err(super::unknown_holder())
    }

    /// The owner, as the mark has it.
    pub fn owner(&self) -> &Owner {
        &self.mark.owner
    }

    /// Notes which numbers were given, and from which files. A mark that cannot be put now is put by the next process: labels and gateways tell the same.
    pub async fn note(&mut self, plan: PlanId, release: ReleaseId, files: Option<(PathBuf, Vec<PathBuf>)>) {
        let before = &self.mark.owner;
        let (directory, files) = match files {
            Some((directory, files)) => (Some(directory), files),
            None => (before.directory.clone(), before.files.clone()),
        };
        let owner = Owner { plan: before.plan.max(plan), release: before.release.max(release), directory, files, ..before.clone() };
        if owner == *before {
            return;
        }
        let next = OwnerMark { number: self.mark.number + 1, owner, ..self.mark.clone() };
        self.replace(next).await;
    }

    /// Gives the lock back. The owner stays, unless nothing was ever planned: a question alone owns nothing.
    pub async fn release(mut self) {
        if self.is_unused() {
            return self.give_up().await;
        }
        let next = OwnerMark { number: self.mark.number + 1, worker: None, ..self.mark.clone() };
        self.replace(next).await;
        self.turn = None;
    }

    /// Gives the lock back, and the project with it: nothing of it is there any more.
    pub async fn give_up(mut self) {
        for mark in self.runtime.marks(&self.project).await.unwrap_or_default() {
            self.runtime.remove_mark(&self.project, mark.number).await.ok();
        }
        self.turn = None;
    }

    fn is_unused(&self) -> bool {
        self.mark.owner.plan == PlanId(0)
    }

    async fn replace(&mut self, next: OwnerMark) {
        if matches!(self.runtime.put_mark(&self.project, &next).await, Ok(put) if put == next) {
            self.runtime.remove_mark(&self.project, self.mark.number).await.ok();
            self.mark = next;
        }
    }
}

impl Drop for HostLock {
    fn drop(&mut self) {
        if self.turn.take().is_none() {
            return;
        }
        // For other processes, as long as this one lives on. They see it anyway when this one ends.
        let (runtime, project, mark, unused) = (self.runtime.clone(), self.project.clone(), self.mark.clone(), self.is_unused());
        let Ok(handle) = tokio::runtime::Handle::try_current() else { return };
        if unused {
            let (done, removed) = std::sync::mpsc::channel();
            let waits = handle.runtime_flavor() == RuntimeFlavor::MultiThread;
            handle.spawn(async move {
                runtime.remove_mark(&project, mark.number).await.ok();
                // Nobody waits any more where it took too long.
                done.send(()).ok();
            });
            if waits {
                // A program often ends right after this, and the mark would claim a project that nobody has.
                removed.recv_timeout(REMOVED_WITHIN).ok();
            }
            return;
        }
        handle.spawn(async move {
            let next = OwnerMark { number: mark.number + 1, worker: None, ..mark.clone() };
            if matches!(runtime.put_mark(&project, &next).await, Ok(put) if put == next) {
                runtime.remove_mark(&project, mark.number).await.ok();
            }
        });
    }
}

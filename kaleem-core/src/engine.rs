//! Carries out a plan: asks the journal what comes next, writes down what it is about to do, does it, writes down how it went.
//!
//! Running, resuming and going back are one loop. The engine decides nothing that the plan or the fold over the journal
//! could have decided, and it never prints: what happens is told to an observer.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use crate::backup::BackupSets;
use crate::clock::Clock;
use crate::definition::Definition;
use crate::health::Probes;
use crate::journal::{Event, Evidence, Journal, JournalError, Next};
use crate::mutant::{Mutant, is_planted};
use crate::names::{ContainerName, ServiceName};
use crate::outcome::Outcome;
use crate::plan::Step;
use crate::remedy::{Remedy, one_line};
use crate::runtime::{PullProgress, Runtime};
use crate::state::{DefinitionKey, StateDirectory};
use crate::traffic::Traffic;

pub mod backup;
pub mod error;
mod own_check;
pub mod gate;
mod doors;
mod hand_over;
mod hook;
pub mod labels;
mod needs;
pub mod perform;
pub mod steer;
pub mod undo;

pub use error::StepError;
pub use gate::GateError;
pub use steer::WatchError;

/// Time over which a step is tried again while the engine of the host is away: a restart of it takes less.
const PERFORM_PATIENCE: Duration = Duration::from_secs(60);
/// An undo is tried longer: there is nothing after it but a person.
const UNDO_PATIENCE: Duration = Duration::from_secs(180);
/// Time between two tries.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Something that happens while a plan is carried out. Nothing in it is secret.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// A step begins.
    Started {
        /// Its place in the plan, from 0.
        step: usize,
        /// What it does.
        what: String,
    },
    /// An image is being fetched.
    Pulling {
        /// The step.
        step: usize,
        /// How far.
        progress: PullProgress,
    },
    /// A gate was asked once more.
    Waiting {
        /// The step.
        step: usize,
        /// The container.
        container: ContainerName,
        /// What it answered.
        reason: String,
        /// Passes in a row so far.
        passes: u32,
        /// Passes that are wanted.
        wanted: u32,
        /// Time left.
        left: Duration,
    },
    /// A long step tells what it is doing.
    Working {
        /// The step.
        step: usize,
        /// What.
        what: String,
    },
    /// What a service needs was asked once more, and is not well.
    WaitingForNeed {
        /// The step.
        step: usize,
        /// The service that needs it.
        service: ServiceName,
        /// What was answered.
        reason: String,
        /// Time left.
        left: Duration,
    },
    /// The engine of the host is away; the step is tried again.
    Retrying {
        /// The step.
        step: usize,
        /// Why.
        error: String,
    },
    /// A step is done.
    Done {
        /// The step.
        step: usize,
        /// What was seen.
        evidence: Evidence,
    },
    /// A step failed.
    Failed {
        /// The step.
        step: usize,
        /// Why, causes joined by colons.
        error: String,
        /// Whether the plan goes back because of it; a leftover after the commit does not.
        goes_back: bool,
    },
    /// Somebody asked to go back.
    Aborted {
        /// Who.
        by: String,
    },
    /// A step is being rolled back.
    Undoing {
        /// The step.
        step: usize,
        /// What it did.
        what: String,
    },
    /// A step was taken back.
    Undone {
        /// The step.
        step: usize,
        /// How long it took.
        took: Duration,
    },
    /// A step could not be rolled back.
    UndoFailed {
        /// The step.
        step: usize,
        /// Why, causes joined by colons.
        error: String,
    },
    /// The plan is over.
    Finished {
        /// How.
        outcome: Outcome,
    },
}

/// Called with everything that happens; must not block.
pub type Observer = dyn Fn(Notice) + Send + Sync;

/// What a person wants of a running plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Wish {
    /// To go on.
    GoOn = 0,
    /// To stop at the next step and go back.
    Abort = 1,
    /// To end after the running step and leave the journal open.
    Leave = 2,
}

/// The switch by which a running plan is told to go back or to leave. Clones are one switch.
#[derive(Clone, Debug, Default)]
pub struct Control(Arc<AtomicU8>);

impl Control {
    /// Asks to go back. What is committed stays.
    pub fn abort(&self) {
        // Leaving is final: an abort that comes later finds an open journal anyway.
        self.0.fetch_max(Wish::Abort as u8, Ordering::SeqCst);
    }

    /// Asks to end after the running step, with the journal open.
    pub fn leave(&self) {
        self.0.fetch_max(Wish::Leave as u8, Ordering::SeqCst);
    }

    /// What is wanted now.
    pub fn wish(&self) -> Wish {
        match self.0.load(Ordering::SeqCst) {
            0 => Wish::GoOn,
            1 => Wish::Abort,
            _ => Wish::Leave,
        }
    }
}

/// How a drive ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The plan is over.
    Over(Outcome),
    /// It was asked to leave: the journal is open, and can be resumed.
    Left,
    /// A step could not be rolled back.
    Stuck {
        /// Which.
        step: usize,
        /// Why.
        error: String,
        /// What a person may type.
        commands: Vec<String>,
    },
}

/// Carries out plans.
pub struct Engine {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) probes: Arc<dyn Probes>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) state: StateDirectory,
    pub(crate) key: DefinitionKey,
    pub(crate) observer: Arc<Observer>,
    pub(crate) gateways: Option<GatewayControl>,
    pub(crate) hook_environment: BTreeMap<String, String>,
    pub(crate) backups: Option<Arc<dyn BackupSets>>,
}

/// Whether a step is carried out after it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// It has not failed before; it may have been begun.
    First,
    /// It failed, and a person mended what was in its way.
    AfterFailure,
}

/// How gateways are steered, and where they keep what they need.
#[derive(Clone)]
pub struct GatewayControl {
    /// Steers them.
    pub traffic: Arc<dyn Traffic>,
    /// Below it each gateway has a directory.
    pub directory: PathBuf,
    /// User and group that own those directories: those of the gateway's process.
    pub user: (u32, u32),
}

impl Engine {
    /// An engine which acts through `runtime`, asks through `probes`, and finds definitions in `state`.
    pub fn new(
        runtime: Arc<dyn Runtime>,
        probes: Arc<dyn Probes>,
        clock: Arc<dyn Clock>,
        state: StateDirectory,
        key: DefinitionKey,
        observer: Arc<Observer>,
    ) -> Self {
        Self { runtime, probes, clock, state, key, observer, gateways: None, hook_environment: BTreeMap::new(), backups: None }
    }

    /// The same engine, which can make backup sets and put them back.
    #[must_use]
    pub fn with_backups(mut self, backups: Option<Arc<dyn BackupSets>>) -> Self {
        self.backups = backups;
        self
    }

    /// The same engine, which can steer gateways.
    #[must_use]
    pub fn with_gateways(mut self, gateways: Option<GatewayControl>) -> Self {
        self.gateways = gateways;
        self
    }

    /// The same engine, whose hooks get these variables, beside those that say what is being done. No secret belongs there.
    #[must_use]
    pub fn with_hook_environment(mut self, environment: BTreeMap<String, String>) -> Self {
        self.hook_environment = environment;
        self
    }

    /// Goes on with a journal until its plan is over, stuck or left. The caller holds the lease.
    ///
    /// A stuck plan is tried once more when `retry_stuck` says so.
    ///
    /// # Errors
    ///
    /// [`JournalError`]: nothing was done after the last event that is on disk; the plan can be resumed.
    pub async fn drive(&self, journal: &mut Journal, control: &Control, retry_stuck: RetryStuck) -> Result<Ending, JournalError> {
        let mut retry = retry_stuck;
        loop {
            match control.wish() {
                Wish::Leave => return Ok(Ending::Left),
                Wish::Abort => self.abort(journal, "the operator")?,
                Wish::GoOn if self.abort_requested(journal) => self.abort(journal, "kaleem abort")?,
                Wish::GoOn => {}
            }
            match journal.progress().next() {
                Next::Run(step) => self.run(journal, step, control).await?,
                Next::Undo(step) => self.take_back(journal, step, control).await?,
                Next::Stuck { step, error } => match retry {
                    RetryStuck::Once => {
                        retry = RetryStuck::Never;
                        match journal.progress().frozen_at() {
                            // There is no way back, and what was in the way forward was mended.
                            Some(failed) => self.run(journal, failed, control).await?,
                            None => self.take_back(journal, step, control).await?,
                        }
                    }
                    RetryStuck::Never => return Ok(self.stuck(journal, step, error)),
                },
                Next::Finish(outcome) => {
                    self.append(journal, &Event::Finished { outcome: outcome.clone() })?;
                    (self.observer)(Notice::Finished { outcome });
                }
                Next::Over(outcome) => return Ok(Ending::Over(outcome)),
            }
        }
    }

    fn append(&self, journal: &mut Journal, event: &Event) -> Result<(), JournalError> {
        journal.append(event, self.clock.now())
    }

    /// Writes down that a step begins. What touches the host waits until that is on disk.
    fn begin(&self, journal: &mut Journal, index: usize, step: &Step) -> Result<(), JournalError> {
        let event = Event::Started { step: index };
        if perform::only_looks(step) || is_planted(Mutant::UnsyncedIntent) {
            journal.note(&event, self.clock.now())
        } else {
            self.append(journal, &event)
        }
    }

    fn abort_requested(&self, journal: &Journal) -> bool {
        self.state.abort_request(journal.progress().plan().id).exists()
    }

    fn abort(&self, journal: &mut Journal, by: &str) -> Result<(), JournalError> {
        let progress = journal.progress();
        if progress.is_going_back() || !progress.can_go_back() || progress.is_over() {
            return Ok(());
        }
        self.append(journal, &Event::Aborted { by: by.to_owned() })?;
        (self.observer)(Notice::Aborted { by: by.to_owned() });
        Ok(())
    }

    async fn run(&self, journal: &mut Journal, index: usize, control: &Control) -> Result<(), JournalError> {
        let plan = journal.progress().plan().clone();
        let Some(step) = plan.steps.get(index) else { return Ok(()) };
        let again = if journal.progress().frozen_at() == Some(index) { Attempt::AfterFailure } else { Attempt::First };
        let late = is_planted(Mutant::LateIntent);
        if !late {
            self.begin(journal, index, step)?;
        }
        (self.observer)(Notice::Started { step: index, what: step.to_string() });
        let begun = self.clock.monotonic();
        // What cannot go back is not cut short by the wish that it did.
        let can_go_back = journal.progress().can_go_back();
        let abort = || match control.wish() {
            Wish::Leave => true,
            Wish::Abort => can_go_back,
            Wish::GoOn => can_go_back && self.state.abort_request(plan.id).exists(),
        };
        let result = self.patiently(index, PERFORM_PATIENCE, || self.perform(&plan, index, step, again, &abort)).await;
        if late {
            self.begin(journal, index, step)?;
        }
        let took_ms = u64::try_from((self.clock.monotonic().saturating_sub(begun)).as_millis()).unwrap_or(u64::MAX);
        match result {
            Ok(seen) => {
                let evidence = Evidence { took_ms, seen };
                // Where a loss of power takes this line the step is done again, as it may be. What touches the host next waits for it.
                journal.note(&Event::Done { step: index, evidence: evidence.clone() }, self.clock.now())?;
                (self.observer)(Notice::Done { step: index, evidence });
            }
            // The wish that cut it short is taken in by the loop.
            Err(StepError::CutShort) => {}
            Err(error) => {
                let error = one_line(&error);
                self.append(journal, &Event::Failed { step: index, error: error.clone() })?;
                let goes_back = journal.progress().is_going_back();
                (self.observer)(Notice::Failed { step: index, error, goes_back });
            }
        }
        Ok(())
    }

    async fn take_back(&self, journal: &mut Journal, index: usize, control: &Control) -> Result<(), JournalError> {
        let plan = journal.progress().plan().clone();
        let Some(step) = plan.steps.get(index) else { return Ok(()) };
        (self.observer)(Notice::Undoing { step: index, what: step.to_string() });
        let begun = self.clock.monotonic();
        let leave = || control.wish() == Wish::Leave;
        let result = self.patiently(index, UNDO_PATIENCE, || self.undo(&plan, index, step, &leave)).await;
        match result {
            Ok(()) => {
                self.append(journal, &Event::Undone { step: index })?;
                let took = self.clock.monotonic().saturating_sub(begun);
                (self.observer)(Notice::Undone { step: index, took });
            }
            // Whoever resumes takes it back from the beginning.
            Err(StepError::CutShort) => {}
            Err(error) => {
                let error = one_line(&error);
                self.append(journal, &Event::UndoFailed { step: index, error: error.clone() })?;
                (self.observer)(Notice::UndoFailed { step: index, error });
            }
        }
        Ok(())
    }

    /// Tries again while the error is transient and patience lasts: every step may be repeated.
    async fn patiently<T, F>(&self, index: usize, patience: Duration, mut attempt: impl FnMut() -> F) -> Result<T, StepError>
    where
        F: Future<Output = Result<T, StepError>>,
    {
        // From the first failure: a step that had waited long already gets the same chance.
        let mut away: Option<Duration> = None;
        loop {
            match attempt().await {
                Err(error)
                    if error.is_transient()
                        && self.clock.monotonic().saturating_sub(*away.get_or_insert_with(|| self.clock.monotonic())) < patience =>
                {
                    (self.observer)(Notice::Retrying { step: index, error: one_line(&error) });
                    self.clock.sleep(RETRY_PAUSE).await;
                }
                result => return result,
            }
        }
    }

    fn stuck(&self, journal: &Journal, step: usize, error: String) -> Ending {
        let plan = journal.progress().plan();
        let commands = plan.steps.get(step).map(|step| step.undo_by_hand(plan.project())).unwrap_or_default();
        Ending::Stuck { step, error, commands }
    }

    pub(crate) fn definition(&self, instance: &crate::plan::NewInstance) -> Result<Definition, StepError> {
        let failed = |source| StepError::Definition { container: instance.name.clone(), source };
        self.state.definition(&self.key, &instance.definition).map_err(failed)
    }

    /// Secrets that a container of this service knows, so that its output can be shown without them.
    pub(crate) fn secrets_of(&self, plan: &crate::plan::Plan, service: &ServiceName) -> Vec<String> {
        let Some(wanted) = plan.release.target.services.get(service) else { return Vec::new() };
        let Ok(definition) = self.state.definition(&self.key, &wanted.definition) else { return Vec::new() };
        secrets(&definition.environment, &definition)
    }
}

/// Values that must not be shown: those of the environment and of files which are long enough to be secret.
fn secrets(environment: &BTreeMap<String, Option<String>>, definition: &Definition) -> Vec<String> {
    /// Shorter values (`true`, `8080`, `prod`) would blot out half of every log.
    const SHORTEST: usize = 6;
    let files = definition.files.iter().map(|file| file.content.trim().to_owned());
    environment.values().flatten().cloned().chain(files).filter(|value| value.len() >= SHORTEST).collect()
}

/// Whether a stuck plan is tried once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryStuck {
    /// It is: somebody mended what was in the way.
    Once,
    /// It is not.
    Never,
}

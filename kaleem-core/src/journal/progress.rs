//! How far a plan got, as a fold over its events, and what comes next: pure, so that running, resuming and aborting are one loop.

use crate::journal::Event;
use crate::mutant::{Mutant, is_planted};
use crate::outcome::{Outcome, Resolution};
use crate::plan::{Plan, Step, Undo};
use crate::release::Migration;
use crate::remedy::Remedy;

/// How far one step got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepStatus {
    /// Not begun.
    Pending,
    /// Begun: it counts as having happened.
    Started,
    /// Done.
    Done,
    /// It failed; how far it got is not known.
    Failed,
    /// Taken back.
    Undone,
    /// Could not be taken back.
    UndoFailed,
}

/// Why the plan goes back.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Reason {
    Failed { step: usize, error: String },
    Aborted { by: String },
}

/// A plan that rests because it can neither go on nor back.
struct Frozen<'a> {
    /// The one-way migration.
    migration: usize,
    /// The step that failed.
    failed: usize,
    error: &'a str,
}

/// An event that cannot follow what was there before: the journal was changed by something other than kaleem, or there is a bug.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IllegalEvent {
    /// The first event is no plan, or a later one is.
    #[error("the event `planned` must come first and once")]
    PlanMisplaced,
    /// The step is not in the plan.
    #[error("the plan has no step {step}")]
    NoSuchStep {
        /// Which.
        step: usize,
    },
    /// The event does not fit the state of its step.
    #[error("step {step} cannot be {event} when it is {status:?}")]
    OutOfTurn {
        /// Which.
        step: usize,
        /// The event.
        event: &'static str,
        /// How far the step had got.
        status: StepStatus,
    },
    /// Something follows the end.
    #[error("the plan is over, and nothing can follow")]
    AfterTheEnd,
    /// A plan was settled that is not stuck.
    #[error("only a stuck plan can be settled by a person")]
    NotStuck,
    /// The end does not follow from the events.
    #[error("the journal ends with an outcome that its events do not lead to")]
    WrongOutcome,
}

impl Remedy for IllegalEvent {
    fn remedy(&self) -> String {
        "look at `kaleem doctor`; the journal was changed by hand, or this is a bug: https://github.com/kaleem-release/kaleem/issues"
            .to_owned()
    }
}

/// What the engine does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Perform this step.
    Run(usize),
    /// Take this step back.
    Undo(usize),
    /// Wait for a person: this step could not be rolled back.
    Stuck {
        /// Which.
        step: usize,
        /// Why.
        error: String,
    },
    /// Say that it is over.
    Finish(Outcome),
    /// It is over.
    Over(Outcome),
}

/// How far a plan got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    plan: Plan,
    steps: Vec<StepStatus>,
    back: Option<Reason>,
    stuck: Option<(usize, String)>,
    resolved: Option<(String, Resolution)>,
    leftovers: Vec<String>,
    outcome: Option<Outcome>,
}

impl Progress {
    /// The state after the first event.
    ///
    /// # Errors
    ///
    /// [`IllegalEvent::PlanMisplaced`] when `first` is another event.
    pub fn begin(first: &Event) -> Result<Self, IllegalEvent> {
        let Event::Planned { plan, .. } = first else { return Err(IllegalEvent::PlanMisplaced) };
        let steps = vec![StepStatus::Pending; plan.steps.len()];
        Ok(Self { plan: (**plan).clone(), steps, back: None, stuck: None, resolved: None, leftovers: Vec::new(), outcome: None })
    }

    /// The state after all `events`.
    ///
    /// # Errors
    ///
    /// [`IllegalEvent`] for the first event that cannot follow those before it.
    pub fn fold<'a>(events: impl IntoIterator<Item = &'a Event>) -> Result<Self, IllegalEvent> {
        let mut events = events.into_iter();
        let mut progress = Self::begin(events.next().ok_or(IllegalEvent::PlanMisplaced)?)?;
        for event in events {
            progress.apply(event)?;
        }
        Ok(progress)
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// How far the step got; `Pending` for one that is not in the plan.
    pub fn status(&self, step: usize) -> StepStatus {
        self.steps.get(step).copied().unwrap_or(StepStatus::Pending)
    }

    /// Whether the host may have been touched.
    pub fn has_touched(&self) -> bool {
        self.steps.iter().any(|status| *status != StepStatus::Pending)
    }

    /// Whether the new release serves already: what fails now is a leftover.
    pub fn is_committed(&self) -> bool {
        // A commit touches nothing, so one that was started has happened.
        let begun = |status: &StepStatus| matches!(status, StepStatus::Started | StepStatus::Done);
        self.plan.steps.iter().zip(&self.steps).any(|(step, status)| matches!(step, Step::Commit { .. }) && begun(status))
    }

    /// Whether it is being rolled back.
    pub fn is_going_back(&self) -> bool {
        self.back.is_some() && self.frozen().is_none()
    }

    /// Whether it may be taken back: neither does the new release serve, nor has a one-way migration begun.
    pub fn can_go_back(&self) -> bool {
        !self.is_committed() && self.one_way().is_none()
    }

    /// The step that is tried again when a frozen plan is resumed: it failed after a one-way migration had begun.
    pub fn frozen_at(&self) -> Option<usize> {
        self.frozen().map(|frozen| frozen.failed)
    }

    /// The one-way migration that has begun, if one has.
    fn one_way(&self) -> Option<usize> {
        let begun = |status: &StepStatus| matches!(status, StepStatus::Started | StepStatus::Done | StepStatus::Failed);
        let steps = self.plan.steps.iter().zip(&self.steps);
        let one_way = |step: &Step| matches!(step, Step::RunToEnd { migration: Migration::OneWay, .. });
        steps.into_iter().position(|(step, status)| one_way(step) && begun(status))
    }

    /// A failure that nothing takes back.
    fn frozen(&self) -> Option<Frozen<'_>> {
        let Some(Reason::Failed { step, error }) = &self.back else { return None };
        Some(Frozen { migration: self.one_way()?, failed: *step, error })
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.outcome.is_some()
    }

    /// Takes in one event.
    ///
    /// # Errors
    ///
    /// [`IllegalEvent`]; the state is as before.
    pub fn apply(&mut self, event: &Event) -> Result<(), IllegalEvent> {
        if self.outcome.is_some() {
            return Err(IllegalEvent::AfterTheEnd);
        }
        match event {
            Event::Planned { .. } => return Err(IllegalEvent::PlanMisplaced),
            Event::Started { step } if self.frozen().is_some_and(|frozen| frozen.failed == *step) => {
                self.turn(*step, "started", StepStatus::Started, &[StepStatus::Failed])?;
                self.back = None;
            }
            Event::Started { step } => {
                self.turn(*step, "started", StepStatus::Started, &[StepStatus::Pending, StepStatus::Started])?;
            }
            Event::Done { step, .. } => self.turn(*step, "done", StepStatus::Done, &[StepStatus::Started])?,
            Event::Failed { step, error } => {
                self.turn(*step, "failed", StepStatus::Failed, &[StepStatus::Started])?;
                if self.is_committed() {
                    let what = self.plan.steps.get(*step).map_or_else(String::new, ToString::to_string);
                    self.leftovers.push(format!("{what}: {error}"));
                } else if self.back.is_none() {
                    self.back = Some(Reason::Failed { step: *step, error: error.clone() });
                }
            }
            Event::Aborted { by } => {
                if self.back.is_none() && self.can_go_back() {
                    self.back = Some(Reason::Aborted { by: by.clone() });
                }
            }
            Event::Undone { step } => {
                let begun = [StepStatus::Started, StepStatus::Done, StepStatus::Failed, StepStatus::UndoFailed];
                self.going_back(*step, "undone")?;
                self.turn(*step, "undone", StepStatus::Undone, &begun)?;
                self.stuck = None;
            }
            Event::UndoFailed { step, error } => {
                let begun = [StepStatus::Started, StepStatus::Done, StepStatus::Failed, StepStatus::UndoFailed];
                self.going_back(*step, "undo-failed")?;
                self.turn(*step, "undo-failed", StepStatus::UndoFailed, &begun)?;
                self.stuck = Some((*step, error.clone()));
            }
            Event::Resolved { by, resolution } => {
                if self.stuck.is_none() && self.frozen().is_none() {
                    return Err(IllegalEvent::NotStuck);
                }
                self.resolved = Some((by.clone(), *resolution));
            }
            Event::Finished { outcome } => {
                if self.next() != Next::Finish(outcome.clone()) {
                    return Err(IllegalEvent::WrongOutcome);
                }
                self.outcome = Some(outcome.clone());
            }
        }
        Ok(())
    }

    fn turn(&mut self, step: usize, event: &'static str, to: StepStatus, from: &[StepStatus]) -> Result<(), IllegalEvent> {
        let Some(status) = self.steps.get_mut(step) else { return Err(IllegalEvent::NoSuchStep { step }) };
        if !from.contains(status) {
            return Err(IllegalEvent::OutOfTurn { step, event, status: *status });
        }
        *status = to;
        Ok(())
    }

    fn going_back(&self, step: usize, event: &'static str) -> Result<(), IllegalEvent> {
        if self.is_going_back() { Ok(()) } else { Err(IllegalEvent::OutOfTurn { step, event, status: self.status(step) }) }
    }

    /// What comes next. Equal events give equal answers.
    pub fn next(&self) -> Next {
        if let Some(outcome) = &self.outcome {
            return Next::Over(outcome.clone());
        }
        if let Some((by, resolution)) = &self.resolved {
            let serving = match resolution {
                Resolution::Old => self.plan.previous,
                Resolution::New => Some(self.plan.release.id),
            };
            return Next::Finish(Outcome::Resolved { by: by.clone(), resolution: *resolution, serving });
        }
        if let Some((step, error)) = &self.stuck {
            return Next::Stuck { step: *step, error: error.clone() };
        }
        if let Some(Frozen { migration, failed, error }) = self.frozen() {
            let what = self.plan.steps.get(failed).map_or_else(String::new, ToString::to_string);
            let error =
                format!("it is a one-way migration, so nothing goes back by itself after it began; what failed then: {what}: {error}");
            return Next::Stuck { step: migration, error };
        }
        match &self.back {
            Some(reason) => self.next_back(reason),
            None => self.next_forward(),
        }
    }

    fn next_forward(&self) -> Next {
        let open = self.steps.iter().position(|status| matches!(status, StepStatus::Pending | StepStatus::Started));
        match open {
            Some(step) => Next::Run(step),
            None => Next::Finish(Outcome::Deployed { release: self.plan.release.id, leftovers: self.leftovers.clone() }),
        }
    }

    fn next_back(&self, reason: &Reason) -> Next {
        let begun = |status: &StepStatus| match status {
            StepStatus::Done => true,
            StepStatus::Started => !(matches!(reason, Reason::Aborted { .. }) && is_planted(Mutant::AbortIgnoresStarted)),
            StepStatus::Failed => !is_planted(Mutant::FailedStepNotUndone),
            StepStatus::Pending | StepStatus::Undone | StepStatus::UndoFailed => false,
        };
        let revertible = |step: &Step| step.undo() == Undo::Revert;
        let mut steps = self.plan.steps.iter().zip(&self.steps);
        let is_next = |(step, status): (&Step, &StepStatus)| revertible(step) && begun(status);
        let next = if is_planted(Mutant::UndoInWrongOrder) { steps.position(is_next) } else { steps.rposition(is_next) };
        if let Some(step) = next {
            return Next::Undo(step);
        }
        let serving = self.plan.previous;
        Next::Finish(match reason {
            Reason::Failed { step, error } => Outcome::RolledBack { step: *step, error: error.clone(), serving },
            Reason::Aborted { by } => Outcome::Aborted { by: by.clone(), serving },
        })
    }
}

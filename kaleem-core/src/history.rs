//! What was released, as the journals tell it: there is no second record that could say otherwise.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::definition::DefinitionId;
use crate::durable::{self, DurableError};
use crate::journal::{self, Event, JournalError, Next, Progress, Record, StepStatus};
use crate::names::{PlanId, ReleaseId, SetId};
use crate::outcome::{Outcome, Resolution};
use crate::plan::{Plan, PlanKind, Step};
use crate::release::Release;
use crate::state::{StateDirectory, StateError};

/// Journals that are kept: enough to tell months of deploys, and little enough to be read in a moment.
const KEPT_JOURNALS: usize = 100;

/// One plan and how it went.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The plan.
    pub plan: Plan,
    /// When it began, for people.
    pub began: Timestamp,
    /// When its last event was written, for people.
    pub ended: Timestamp,
    /// How it ended; `None` while it is open.
    pub outcome: Option<Outcome>,
    /// What was written down, in order.
    pub records: Vec<Record>,
    /// How far it got.
    pub progress: Progress,
}

impl Entry {
    /// The release that serves after it, as far as it got.
    fn serving(&self) -> Option<ReleaseId> {
        match &self.outcome {
            // It led to nothing, on purpose.
            Some(Outcome::Deployed { .. }) if self.plan.kind == PlanKind::Down => None,
            None if self.plan.kind == PlanKind::Down && self.progress.is_committed() => None,
            Some(outcome) => outcome.serving(),
            None if self.progress.is_committed() => Some(self.plan.release.id),
            None => self.plan.previous,
        }
    }
}

/// All that is known of a project's releases.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    entries: Vec<Entry>,
    /// Plans whose journals were damaged and set aside.
    lost: BTreeSet<PlanId>,
    /// The highest numbers that are seen on the host: those of a later state of this directory, or of an earlier owner.
    seen: Option<(PlanId, ReleaseId)>,
}

impl History {
    /// Reads all journals.
    ///
    /// # Errors
    ///
    /// [`HistoryError`] naming the file and line that cannot be read: nothing is guessed about what it might have said.
    pub fn load(state: &StateDirectory) -> Result<Self, HistoryError> {
        let ids = state.plan_ids().map_err(|source| HistoryError::State { source })?;
        let entries = ids.into_iter().map(|id| Self::load_one(state, id)).collect::<Result<Vec<_>, _>>()?;
        let lost = state.lost_plans().map_err(|source| HistoryError::State { source })?;
        Ok(Self { entries, lost, seen: None })
    }

    fn load_one(state: &StateDirectory, id: PlanId) -> Result<Entry, HistoryError> {
        let (records, progress) = journal::file::read(&state.journal(id)).map_err(|source| HistoryError::Journal { source })?;
        let times = (records.first().map(|record| record.at), records.last().map(|record| record.at));
        let outcome = match progress.next() {
            Next::Over(outcome) => Some(outcome),
            Next::Run(_) | Next::Undo(_) | Next::Stuck { .. } | Next::Finish(_) => None,
        };
        let zero = Timestamp::UNIX_EPOCH;
        let (began, ended) = (times.0.unwrap_or(zero), times.1.unwrap_or(zero));
        Ok(Entry { plan: progress.plan().clone(), began, ended, outcome, records, progress })
    }

    /// All plans, oldest first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The plan that is not over, if there is one.
    pub fn open(&self) -> Option<&Entry> {
        self.entries.last().filter(|entry| entry.outcome.is_none())
    }

    /// The release that serves, as far as the journals tell; `None` also where they cannot: see [`History::lost`].
    pub fn serving(&self) -> Option<ReleaseId> {
        if self.lost().is_some() || self.behind().is_some() {
            return None;
        }
        self.entries.last().and_then(Entry::serving)
    }

    /// The highest plan number in the journals; 0 where there is none.
    pub fn newest_plan(&self) -> PlanId {
        let newest = self.entries.last().map(|entry| entry.plan.id).max(self.lost.last().copied());
        newest.unwrap_or(PlanId(0))
    }

    /// The highest release number in the journals; 0 where there is none.
    pub fn newest_release(&self) -> ReleaseId {
        // A lost plan gave a number that is at most its own.
        let lost = self.lost.last().map_or(ReleaseId::new(0), |plan| ReleaseId::new(plan.0));
        self.entries.iter().map(|entry| entry.plan.release.id).max().unwrap_or(lost).max(lost)
    }

    /// Says which numbers are seen on the host. Where they are higher, plans were made that these journals do not tell of: what serves is not
    /// known until the next commit, and numbers go on above them.
    pub fn seen_on_host(&mut self, plan: PlanId, release: ReleaseId) {
        self.seen = Some((plan, release));
    }

    /// The newest plan that is seen on the host and that no journal tells of.
    pub fn behind(&self) -> Option<PlanId> {
        let (plan, release) = self.seen?;
        (plan > self.newest_plan() || release > self.newest_release()).then_some(plan)
    }

    /// The newest plan whose journal was damaged and set aside, while nothing that came later says what serves.
    pub fn lost(&self) -> Option<PlanId> {
        let lost = *self.lost.last()?;
        let settles = |entry: &&Entry| entry.plan.id > lost && entry.serving() == Some(entry.plan.release.id);
        if self.entries.iter().any(|entry| settles(&entry)) { None } else { Some(lost) }
    }

    /// Releases that served, the one that served last first.
    pub fn releases(&self) -> Vec<Release> {
        let mut releases: Vec<Release> = Vec::new();
        let served = self.entries.iter().rev().filter(|entry| entry.plan.kind != PlanKind::Down).filter(|entry| {
            // One that was rolled back says nothing of its release, also where it was to repair the one that serves.
            let declared = matches!(&entry.outcome, Some(Outcome::Resolved { resolution: Resolution::New, .. }));
            entry.progress.is_committed() || declared
        });
        for entry in served {
            if !releases.iter().any(|release| release.id == entry.plan.release.id) {
                releases.push(entry.plan.release.clone());
            }
        }
        // A rollback makes an older release the newest; what serves is always first.
        if let Some(serving) = self.serving()
            && let Some(place) = releases.iter().position(|release| release.id == serving)
        {
            let release = releases.remove(place);
            releases.insert(0, release);
        }
        releases
    }

    /// A release by its number, if it ever served.
    pub fn release(&self, id: ReleaseId) -> Option<Release> {
        self.releases().into_iter().find(|release| release.id == id)
    }

    /// The release to which a rollback goes by itself: the one that served before what serves now, as the plans followed each other. One that
    /// was rolled back from is passed over, and so is one that only a person declared to serve, or that is the same as what serves.
    pub fn fallback(&self) -> Option<ReleaseId> {
        let serving = self.serving()?;
        let (mut served, mut doubted): (Vec<ReleaseId>, BTreeSet<ReleaseId>) = (Vec::new(), BTreeSet::new());
        for entry in &self.entries {
            let release = entry.plan.release.id;
            let declared = matches!(&entry.outcome, Some(Outcome::Resolved { resolution: Resolution::New, .. }));
            if !entry.progress.is_committed() && !declared {
                continue;
            }
            match entry.plan.kind {
                PlanKind::Down | PlanKind::Upgrade | PlanKind::Restart => continue,
                PlanKind::Deploy | PlanKind::Eject => {}
                PlanKind::Rollback => {
                    // All that came after it was left for it.
                    let place = served.iter().position(|earlier| *earlier == release).unwrap_or(served.len());
                    doubted.extend(entry.plan.previous.filter(|left| *left != release));
                    doubted.extend(served.drain(place..).filter(|left| *left != release));
                }
            }
            if declared {
                doubted.insert(release)
            } else {
                doubted.remove(&release)
            };
            served.retain(|earlier| *earlier != release);
            served.push(release);
        }
        let now = self.release(serving)?;
        let differs = |id: &ReleaseId| self.release(*id).is_some_and(|release| !release.target.runs_the_same(&now.target));
        served.into_iter().rev().filter(|id| *id != serving && !doubted.contains(id)).find(differs)
    }

    /// The number of the next plan.
    pub fn next_plan(&self) -> PlanId {
        let seen = self.seen.map_or(PlanId(0), |(plan, _)| plan);
        PlanId(self.newest_plan().max(seen).0 + 1)
    }

    /// The number of the next release. Numbers of releases that failed are not given again.
    pub fn next_release(&self) -> ReleaseId {
        let deploys = self.entries.iter().filter(|entry| matches!(entry.plan.kind, PlanKind::Deploy | PlanKind::Eject));
        let seen = self.seen.map_or(1, |(_, release)| release.number() + 1);
        let known = deploys.map(|entry| entry.plan.release.id.number() + 1).max().unwrap_or(1).max(seen);
        // A lost plan gave a number that is at most its own: every release has a plan.
        ReleaseId::new(self.lost.last().map_or(known, |plan| known.max(plan.0 + 1)))
    }

    /// The entry by which a release came to serve last.
    pub fn entry_of(&self, release: ReleaseId) -> Option<&Entry> {
        // What ended it or brought another gateway says nothing of how it came.
        let led = |entry: &&Entry| !matches!(entry.plan.kind, PlanKind::Down | PlanKind::Upgrade | PlanKind::Restart);
        self.entries.iter().rev().filter(led).find(|entry| entry.plan.release.id == release)
    }

    /// The backup set that holds the data as it was when a release was left for another: that of the newest plan that did so.
    pub fn data_of(&self, release: ReleaseId) -> Option<SetId> {
        let leaving = self.entries.iter().rev().filter(|entry| {
            let leaves = entry.plan.previous == Some(release) && entry.plan.release.id != release;
            leaves && entry.plan.kind == PlanKind::Deploy && entry.progress.is_committed()
        });
        let made = leaving.filter_map(|entry| {
            entry.plan.steps.iter().enumerate().find_map(|(index, step)| {
                let Step::BackUp { set, .. } = step else { return None };
                (entry.progress.status(index) == StepStatus::Done).then(|| set.clone())
            })
        });
        made.into_iter().next()
    }

    /// Evidence by step of an entry, in order.
    pub fn evidence(entry: &Entry) -> BTreeMap<usize, &journal::Evidence> {
        let done = entry.records.iter().filter_map(|record| {
            let Event::Done { step, evidence } = &record.event else { return None };
            Some((*step, evidence))
        });
        done.collect()
    }

    /// The definitions of the kept releases, and of the plan that came last.
    fn definitions(&self, kept: &[ReleaseId]) -> BTreeSet<DefinitionId> {
        let releases = self.releases();
        let last = self.entries.last().map(|entry| &entry.plan.release);
        let needed = releases.iter().filter(|release| kept.contains(&release.id)).chain(last);
        let wanted = needed.flat_map(|release| release.target.services.values());
        wanted
            .flat_map(|wanted| std::iter::once(&wanted.definition).chain(wanted.gateway.as_ref().map(|gateway| &gateway.definition)))
            .cloned()
            .collect()
    }

    /// Removes journals and definitions that nothing kept needs. The caller holds the lease.
    ///
    /// # Errors
    ///
    /// [`HistoryError`]; what could not be removed is tried again by the next plan.
    pub fn prune(&self, state: &StateDirectory) -> Result<(), HistoryError> {
        let surplus = self.entries.len().saturating_sub(KEPT_JOURNALS);
        let keep = self.entries.last().map_or(0, |entry| entry.plan.release.target.keep);
        let kept: Vec<ReleaseId> =
            self.releases().iter().take(usize::try_from(keep).unwrap_or(usize::MAX)).map(|release| release.id).collect();
        state.forget_definitions(&self.definitions(&kept)).map_err(|source| HistoryError::State { source })?;
        // The newest number that was given is remembered by its journal.
        let newest = self.entries.iter().map(|entry| entry.plan.release.id).max();
        for entry in self.entries.iter().take(surplus) {
            let needed = kept.contains(&entry.plan.release.id) || Some(entry.plan.release.id) == newest;
            if !needed {
                durable::remove(&state.journal(entry.plan.id)).map_err(|source| HistoryError::Prune { source })?;
            }
        }
        Ok(())
    }
}

/// Why the journals cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// The state directory failed.
    #[error("could not find the journals of the project")]
    State {
        /// Why.
        #[source]
        source: StateError,
    },
    /// A journal cannot be read.
    #[error("could not find out what was released")]
    Journal {
        /// Why.
        #[source]
        source: JournalError,
    },
    /// An old journal could not be removed.
    #[error("could not remove an old journal")]
    Prune {
        /// Why.
        #[source]
        source: DurableError,
    },
}

impl crate::remedy::Remedy for HistoryError {
    fn remedy(&self) -> String {
        match self {
            Self::State { source } => source.remedy(),
            Self::Journal { source } => source.remedy(),
            Self::Prune { source } => source.remedy(),
        }
    }
}

//! Which sets stay and which go: a plan that is made without touching anything, and says why for each.
//!
//! Only sets that were committed count. The newest of them never goes. When the clock cannot be right, or the vault cannot
//! tell everything, there is no plan.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use kaleem_core::backup::BackupVault;
use kaleem_core::names::{ProjectName, SetId};
use kaleem_core::remedy::Remedy;

use crate::set::{self, SetEntry, SetFailure, SetState};

const DAY: SignedDuration = SignedDuration::from_hours(24);
/// How far a set may lie in the future: clocks of several machines differ a little.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_mins(10);

/// How many sets are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The newest set of each of that many days that have one.
    pub daily: usize,
    /// The newest set of each of that many weeks (from Monday, UTC) that have one.
    pub weekly: usize,
    /// The newest set of each of that many months that have one.
    pub monthly: usize,
    /// Every set that is not older than that many days.
    pub keep_within_days: Option<u32>,
    /// Every set with one of these tags.
    pub keep_tags: BTreeSet<String>,
    /// When the newest set is older than that many days, the clock is not believed.
    pub longest_gap_days: u32,
}

impl Policy {
    /// Seven days, four weeks, six months.
    pub fn usual() -> Self {
        Self { daily: 7, weekly: 4, monthly: 6, keep_within_days: None, keep_tags: BTreeSet::new(), longest_gap_days: 31 }
    }
}

/// What is known of a set, for the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The set.
    pub set: SetId,
    /// What it is.
    pub standing: Standing,
    /// Whether it was told to stay.
    pub held: bool,
}

/// What a set counts for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It was committed, after it had been read back.
    Verified {
        /// When it was begun.
        created: Timestamp,
        /// Its tags.
        tags: Vec<String>,
    },
    /// It has no COMMIT. Its name tells when it was begun, if it can be read.
    Unfinished {
        /// When it was begun.
        created: Option<Timestamp>,
    },
    /// It has a COMMIT, and is not what that says.
    Damaged,
}

/// What happens to a set, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The set.
    pub set: SetId,
    /// Whether it stays.
    pub stays: bool,
    /// Why, for people.
    pub reasons: Vec<String>,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RetentionError {
    /// There is a set from the future.
    #[error("the clock says {now}, and the backup set {set} was made at {created}")]
    ClockBehind {
        /// What the clock says.
        now: Timestamp,
        /// The set.
        set: SetId,
        /// When it was made.
        created: Timestamp,
    },
    /// The newest set is very old.
    #[error("the clock says {now}, and the newest backup set {set} was made at {created}")]
    ClockAhead {
        /// What the clock says.
        now: Timestamp,
        /// The set.
        set: SetId,
        /// When it was made.
        created: Timestamp,
    },
    /// The vault could not tell what there is, or could not remove.
    #[error("could not carry out the retention of backup sets")]
    Vault {
        /// Why.
        #[source]
        source: SetFailure,
    },
    /// What the plan was made of has changed; nothing more was removed.
    #[error("the backup set {set}, which the plan keeps, cannot be read any more")]
    Changed {
        /// The set.
        set: SetId,
        /// Why.
        #[source]
        source: SetFailure,
    },
}

impl Remedy for RetentionError {
    fn remedy(&self) -> String {
        match self {
            Self::ClockBehind { .. } | Self::ClockAhead { .. } => {
                "check the clock of this machine; if it is right, make a new backup set first".to_owned()
            }
            Self::Vault { source } => source.remedy(),
            Self::Changed { .. } => "verify the backup sets that are left, then run the same command".to_owned(),
        }
    }
}

/// The tag of sets that hold what a restore replaced: they stay for a week, whatever else is said.
pub const BEFORE_RESTORE: &str = "before-restore";
/// How long what a restore replaced stays.
const REPLACED_STAYS_DAYS: u32 = 7;

/// What a vault holds of one project, for [`plan`]. What was never finished belongs to nobody, and is in it, too.
///
/// # Errors
/// [`RetentionError::Vault`] when the vault cannot tell everything.
pub async fn look_at(vault: &dyn BackupVault, project: &ProjectName) -> Result<Vec<Candidate>, RetentionError> {
    let entries = set::list(vault).await.map_err(|source| RetentionError::Vault { source })?;
    let of_another = |entry: &SetEntry| matches!(&entry.state, SetState::Committed { manifest, .. } if manifest.project != *project);
    Ok(entries.into_iter().filter(|entry| !of_another(entry)).map(candidate).collect())
}

/// What is in a vault, for [`plan`].
///
/// # Errors
/// [`RetentionError::Vault`] when the vault cannot tell everything.
pub async fn look(vault: &dyn BackupVault) -> Result<Vec<Candidate>, RetentionError> {
    let entries = set::list(vault).await.map_err(|source| RetentionError::Vault { source })?;
    Ok(entries.into_iter().map(candidate).collect())
}

fn candidate(entry: SetEntry) -> Candidate {
    let standing = match entry.state {
        SetState::Committed { manifest, .. } => Standing::Verified { created: manifest.created, tags: manifest.tags },
        SetState::Unfinished => Standing::Unfinished { created: time_in_name(&entry.set) },
        SetState::Damaged(_) => Standing::Damaged,
    };
    Candidate { set: entry.set, standing, held: entry.held }
}

/// The time that [`set::new_id`] puts first.
fn time_in_name(set: &SetId) -> Option<Timestamp> {
    let time = set.as_str().split_once('-')?.0;
    let part = |from: usize, to: usize| time.get(from..to);
    let text = format!("{}-{}-{}T{}:{}:{}Z", part(0, 4)?, part(4, 6)?, part(6, 8)?, part(9, 11)?, part(11, 13)?, part(13, 15)?);
    text.parse().ok()
}

/// Decides for each set; nothing is touched. The order of `sets` does not matter; the answer is sorted by name.
///
/// # Errors
/// [`RetentionError::ClockBehind`], [`RetentionError::ClockAhead`].
pub fn plan(sets: &[Candidate], policy: &Policy, now: Timestamp) -> Result<Vec<Decision>, RetentionError> {
    let mut verified: Vec<(Timestamp, &Candidate, &[String])> = Vec::new();
    for candidate in sets {
        if let Standing::Verified { created, tags } = &candidate.standing {
            verified.push((*created, candidate, tags));
        }
    }
    // Newest first; the name decides between sets of one moment.
    verified.sort_by(|one, two| (two.0, &two.1.set).cmp(&(one.0, &one.1.set)));
    let mut reasons: BTreeMap<&SetId, Vec<String>> = BTreeMap::new();
    if let Some((created, newest, _)) = verified.first() {
        let (created, set) = (*created, newest.set.clone());
        let age = now.duration_since(created);
        if age < -CLOCKS_DIFFER {
            return Err(RetentionError::ClockBehind { now, set, created });
        }
        if age > days(policy.longest_gap_days) {
            return Err(RetentionError::ClockAhead { now, set, created });
        }
        reasons.entry(&newest.set).or_default().push("it is the newest that was verified".to_owned());
    }
    for (word, count, format) in [("day", policy.daily, "%Y-%m-%d"), ("week", policy.weekly, "%G-W%V"), ("month", policy.monthly, "%Y-%m")]
    {
        let mut seen = BTreeSet::new();
        for (created, candidate, _) in &verified {
            let period = created.strftime(format).to_string();
            if seen.len() < count && seen.insert(period.clone()) {
                reasons.entry(&candidate.set).or_default().push(format!("it is the newest of the {word} {period}"));
            }
        }
    }
    for (created, candidate, tags) in &verified {
        let entry = reasons.entry(&candidate.set).or_default();
        if let Some(within) = policy.keep_within_days.filter(|within| now.duration_since(*created) <= days(*within)) {
            entry.push(format!("it is not older than {within} days"));
        }
        if tags.iter().any(|tag| tag == BEFORE_RESTORE) && now.duration_since(*created) <= days(REPLACED_STAYS_DAYS) {
            entry.push(format!("it holds what a restore replaced less than {REPLACED_STAYS_DAYS} days ago"));
        }
        entry.extend(tags.iter().filter(|tag| policy.keep_tags.contains(*tag)).map(|tag| format!("it is tagged `{tag}`")));
    }
    let any = !verified.is_empty();
    let mut decisions: Vec<Decision> = sets.iter().map(|candidate| decide(candidate, reasons.get(&candidate.set), any, now)).collect();
    decisions.sort_by(|one, two| one.set.cmp(&two.set));
    Ok(decisions)
}

fn days(count: u32) -> SignedDuration {
    DAY.saturating_mul(i32::try_from(count).unwrap_or(i32::MAX))
}

fn decide(candidate: &Candidate, found: Option<&Vec<String>>, any_verified: bool, now: Timestamp) -> Decision {
    let mut reasons = found.cloned().unwrap_or_default();
    let mut goes = String::new();
    match &candidate.standing {
        Standing::Verified { .. } => "no rule keeps it".clone_into(&mut goes),
        Standing::Damaged => reasons.push("it is damaged: look at it, then remove it by name".to_owned()),
        Standing::Unfinished { created: Some(created) } if any_verified && now.duration_since(*created) > DAY => {
            "it was never finished".clone_into(&mut goes);
        }
        Standing::Unfinished { .. } => reasons.push("it may still be being made".to_owned()),
    }
    if candidate.held {
        reasons.push("it is held".to_owned());
    }
    if reasons.is_empty() {
        Decision { set: candidate.set.clone(), stays: false, reasons: vec![goes] }
    } else {
        Decision { set: candidate.set.clone(), stays: true, reasons }
    }
}

/// Removes what the plan gives up, oldest name first, each COMMIT before its artifacts. Before each removal a set that the
/// plan keeps as the newest is read again, and the one that goes is looked at for a hold.
///
/// # Errors
/// [`RetentionError`]; what was removed before is gone. A set that died half-way has no COMMIT, and goes with the next plan.
pub async fn carry_out(vault: &dyn BackupVault, decisions: &[Decision]) -> Result<Vec<SetId>, RetentionError> {
    let newest = "it is the newest that was verified";
    let kept = decisions.iter().find(|decision| decision.stays && decision.reasons.iter().any(|reason| reason == newest));
    let mut removed = Vec::new();
    for decision in decisions.iter().filter(|decision| !decision.stays) {
        let Some(kept) = kept else { break };
        set::read(vault, &kept.set).await.map_err(|source| RetentionError::Changed { set: kept.set.clone(), source })?;
        let now = set::list(vault).await.map_err(|source| RetentionError::Vault { source })?;
        if now.iter().any(|entry| entry.set == decision.set && entry.held) {
            continue;
        }
        set::discard(vault, &decision.set).await.map_err(|source| RetentionError::Vault { source })?;
        removed.push(decision.set.clone());
    }
    Ok(removed)
}

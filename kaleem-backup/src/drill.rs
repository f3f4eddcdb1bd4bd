//! A drill: a set is restored by the same code as in an emergency, into stores that nobody needs, and compared.
//!
//! Whoever calls it makes the scratch stores and takes them away again. A drill that could not be done has proved nothing,
//! and is told from one that failed.

pub mod report;
pub mod room;
mod tamper;
#[cfg(feature = "setup")]
pub mod whole;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kaleem_core::backup::{BackupSource, BackupVault, RestoreMode, SourceError};
use kaleem_core::clock::Clock;
use kaleem_core::names::{ArtifactName, ProjectName, SetId};
use kaleem_core::remedy::one_line;
use serde::{Serialize, Serializer};

use self::tamper::Tampered;

use crate::seal::Keys;
use crate::set::{self, Grade, SetFailure};

/// What a drill found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// What was restored is what was backed up.
    Pass,
    /// It could not be tried: a vault or a scratch store did not answer, or a key or a scratch store is missing.
    CouldNotVerify,
    /// The set is not good.
    Fail,
}

/// One artifact of a drill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DrilledArtifact {
    /// The artifact.
    pub artifact: ArtifactName,
    /// What was found out.
    pub verdict: Verdict,
    /// Why, where it is no pass.
    pub reason: Option<String>,
    /// How many things were restored and compared.
    pub things: u64,
    /// Whether its store was restarted and compared once more.
    pub restarted: bool,
    /// How long reading, checking and restoring took, in milliseconds.
    #[serde(rename = "took_ms", serialize_with = "milliseconds")]
    pub took: Duration,
}

/// What a drill found out, in whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DrillReport {
    /// The project, as the set says.
    pub project: Option<ProjectName>,
    /// The set.
    pub set: SetId,
    /// When it was made.
    pub made: Option<Timestamp>,
    /// Where it is.
    pub vault: String,
    /// Whether the drill was to succeed.
    pub control: Control,
    /// When the drill began.
    pub began: Timestamp,
    /// The worst of the artifacts. A set whose description cannot be believed fails without any.
    pub verdict: Verdict,
    /// Why there are no artifacts.
    pub reason: Option<String>,
    /// The artifacts, by name.
    pub artifacts: Vec<DrilledArtifact>,
    /// What the user wanted to know of the restored stores.
    pub checks: Vec<Checked>,
    /// How long the making of the stores took, in milliseconds.
    #[serde(rename = "stores_ms", serialize_with = "milliseconds")]
    pub stores_took: Duration,
    /// How long reading, checking and restoring took, in milliseconds: the time to recover, without the making of the stores.
    #[serde(rename = "recovery_ms", serialize_with = "milliseconds")]
    pub recovery_time: Duration,
    /// How long everything took, restarts and checks with it, in milliseconds.
    #[serde(rename = "whole_ms", serialize_with = "milliseconds")]
    pub whole_took: Duration,
    /// How old the data is: what would be lost if the store were lost now. `None` when the set cannot be read.
    pub seconds_lost: Option<i64>,
    /// What the drill made and could not remove again.
    pub left_behind: Option<String>,
}

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Its name.
    pub check: String,
    /// The artifact.
    pub artifact: ArtifactName,
    /// What was found out.
    pub verdict: Verdict,
    /// Why, where it is no pass.
    pub reason: Option<String>,
}

fn milliseconds<S: Serializer>(duration: &Duration, into: S) -> Result<S::Ok, S::Error> {
    into.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// Whether a drill is to succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Control {
    /// The set as it is.
    AsItIs,
    /// One byte in the middle of each artifact is changed while it is read, so that a drill that can fail must fail.
    /// Nothing in the vault is touched.
    OneByteChanged,
}

/// Restores every artifact of a set into the scratch store of its name, and compares what is there with the manifest.
///
/// The scratch stores must be empty; they hold what was restored afterwards.
pub async fn drill(
    vault: &dyn BackupVault,
    set: &SetId,
    scratch: &BTreeMap<ArtifactName, Arc<dyn BackupSource>>,
    keys: &Keys,
    control: Control,
    clock: &dyn Clock,
) -> DrillReport {
    let (began, start) = (clock.now(), clock.monotonic());
    let mut report = DrillReport {
        project: None,
        set: set.clone(),
        made: None,
        vault: vault.place(),
        control,
        began,
        verdict: Verdict::Pass,
        reason: None,
        artifacts: Vec::new(),
        checks: Vec::new(),
        stores_took: Duration::ZERO,
        recovery_time: Duration::ZERO,
        whole_took: Duration::ZERO,
        seconds_lost: None,
        left_behind: None,
    };
    let manifest = match set::read(vault, set).await {
        Ok(manifest) => manifest,
        Err(failure) => {
            report.verdict = judge(&failure);
            report.reason = Some(one_line(&failure));
            return report;
        }
    };
    (report.project, report.made) = (Some(manifest.project.clone()), Some(manifest.created));
    report.seconds_lost = Some(began.duration_since(manifest.created).as_secs());
    let tampered = Tampered { inner: vault, artifacts: &manifest.artifacts };
    let vault: &dyn BackupVault = match control {
        Control::AsItIs => vault,
        Control::OneByteChanged => &tampered,
    };
    for record in &manifest.artifacts {
        let from = clock.monotonic();
        let (verdict, reason) = match scratch.get(&record.name) {
            None => (Verdict::CouldNotVerify, Some("there is no scratch store for it".to_owned())),
            Some(target) => match set::restore(vault, set, &record.name, target.as_ref(), RestoreMode::IntoEmpty, keys).await {
                Ok(_) => (Verdict::Pass, None),
                Err(failure) => (judge(&failure), Some(one_line(&failure))),
            },
        };
        report.verdict = report.verdict.max(verdict);
        let took = clock.monotonic().saturating_sub(from);
        let things = record.contents.values().map(|content| content.count).sum();
        report.artifacts.push(DrilledArtifact { artifact: record.name.clone(), verdict, reason, things, restarted: false, took });
    }
    if report.artifacts.is_empty() {
        report.verdict = Verdict::CouldNotVerify;
        report.reason = Some("the set holds nothing".to_owned());
    }
    report.recovery_time = clock.monotonic().saturating_sub(start);
    report
}

/// Whether a failure says something of the set, or of what the drill was made with.
fn judge(failure: &SetFailure) -> Verdict {
    match failure {
        SetFailure::Unfinished { .. } => Verdict::Fail,
        SetFailure::Restore { source: SourceError::Malformed { .. } | SourceError::Differs { .. }, .. } => Verdict::Fail,
        _ if failure.grade() == Grade::Integrity => Verdict::Fail,
        _ => Verdict::CouldNotVerify,
    }
}

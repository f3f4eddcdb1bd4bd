//! The state directory: journals, definitions, what crashes left, who may read it. The engine of the host is not asked.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::definition::DefinitionId;
use crate::durable::{self, PRIVATE_DIRECTORY, PRIVATE_FILE};
use crate::history::History;
use crate::journal::file::{Examined, JournalError, examine};
use crate::journal::{Next, Progress};
use crate::lease;
use crate::names::PlanId;
use crate::remedy::{Remedy, one_line};
use crate::state::{DefinitionKey, StateDirectory, StateError};

use super::{Damage, Repair, RepairError};

/// Everything that is wrong with the files of a project, journals first. Nothing is changed.
///
/// # Errors
///
/// [`RepairError::State`]
pub fn look(state: &StateDirectory) -> Result<Vec<Damage>, RepairError> {
    let failed = |source| RepairError::State { source };
    let plans = state.plan_ids().map_err(failed)?;
    let mut found = Vec::new();
    for plan in &plans {
        found.extend(journal(state, *plan, plans.last() == Some(plan)));
    }
    found.extend(key(state, !plans.is_empty()));
    found.extend(remains(state, &plans));
    found.extend(modes(state));
    Ok(found)
}

fn journal(state: &StateDirectory, plan: PlanId, newest: bool) -> Option<Damage> {
    let path = state.journal(plan);
    let found = match examine(&path) {
        Ok(found) => found,
        Err(error) => {
            let advice = error.remedy();
            return Some(Damage {
                service: None,
                kind: "journal-unreadable",
                message: one_line(&error),
                repair: Repair::ByHand { advice },
            });
        }
    };
    let Examined { progress, whole_bytes, bytes, damage } = found;
    match (damage, progress) {
        (None, Some(_)) if whole_bytes == bytes => None,
        (None, Some(_)) => {
            let torn = bytes - whole_bytes;
            let message =
                format!("the journal {} ends in {torn} torn bytes, which a crash left; nothing was believed of them", path.display());
            Some(Damage { service: None, kind: "journal-torn", message, repair: Repair::CutAfter { path, whole_bytes } })
        }
        (None, None) => {
            let message = format!("the journal {} holds no whole line: plan {plan} never began, or its file was damaged", path.display());
            Some(Damage { service: None, kind: "journal-damaged", message, repair: Repair::SetAside { path } })
        }
        (Some(error @ JournalError::Newer { .. }), _) => {
            let advice = error.remedy();
            Some(Damage { service: None, kind: "journal-newer", message: one_line(&error), repair: Repair::ByHand { advice } })
        }
        (Some(error), Some(progress)) if newest && is_decided(&progress) => {
            let serves = if progress.is_committed() { Some(progress.plan().release.id) } else { progress.plan().previous };
            let serves = serves.map_or_else(|| "nothing".to_owned(), |release| release.to_string());
            let message = format!("{}; the lines before it are whole, and by them {serves} serves", one_line(&error));
            Some(Damage { service: None, kind: "journal-damaged", message, repair: Repair::CutAfter { path, whole_bytes } })
        }
        (Some(error), progress) => {
            let known = match (&progress, newest) {
                (_, false) => "later journals say what serves; its release cannot be gone back to".to_owned(),
                (Some(progress), true) => {
                    let plan = progress.plan();
                    let before = plan.previous.map_or_else(|| "nothing".to_owned(), |release| release.to_string());
                    format!("it led from {before} to {}, and which of them serves cannot be known from it", plan.release.id)
                }
                (None, true) => "what serves cannot be known from it".to_owned(),
            };
            let message = format!("{}; {known}", one_line(&error));
            Some(Damage { service: None, kind: "journal-damaged", message, repair: Repair::SetAside { path } })
        }
    }
}

/// Whether what follows the whole lines cannot change what serves: going on from them is safe, whatever was lost.
fn is_decided(progress: &Progress) -> bool {
    progress.is_committed() || matches!(progress.next(), Next::Finish(_) | Next::Over(_))
}

fn key(state: &StateDirectory, is_used: bool) -> Option<Damage> {
    let path = state.root().join("key");
    let advice = "restore it from a backup; else set it aside: the next deploy makes another and replaces every container".to_owned();
    if !path.exists() {
        let message = format!("the key {} is missing: definitions cannot be told from damaged ones", path.display());
        return is_used.then_some(Damage { service: None, kind: "key-missing", message, repair: Repair::ByHand { advice } });
    }
    match state.key() {
        Err(error @ StateError::KeyDamaged { .. }) => {
            Some(Damage { service: None, kind: "key-damaged", message: one_line(&error), repair: Repair::ByHand { advice } })
        }
        Err(error) => Some(Damage {
            service: None,
            kind: "key-unreadable",
            message: one_line(&error),
            repair: Repair::ByHand { advice: error.remedy() },
        }),
        Ok(_) => None,
    }
}

/// What a process that is gone has left.
fn remains(state: &StateDirectory, plans: &[PlanId]) -> Vec<Damage> {
    let mut found = Vec::new();
    if lease::is_held(state.root()) {
        return found;
    }
    let remove = |kind, message: String, path: PathBuf| Damage { service: None, kind, message, repair: Repair::RemoveFile { path } };
    if let Some(holder) = lease::holder(state.root()) {
        let path = state.root().join("lease");
        let message =
            format!("{} (process {} on {}) is gone and has left its lease; nobody waits for it", holder.owner, holder.pid, holder.host);
        found.push(remove("lease-stale", message, path));
    }
    for directory in [state.root().to_owned(), state.root().join("plans"), state.root().join("definitions")] {
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if durable::is_unfinished(&name) {
                found.push(remove("unfinished-write", format!("{} is a write that a crash cut off", path.display()), path));
            } else if let Some(plan) = name.strip_suffix(".abort").and_then(|number| number.parse().ok()).map(PlanId) {
                let open = plans.last() == Some(&plan)
                    && examine(&state.journal(plan)).is_ok_and(|found| found.progress.is_some_and(|progress| !progress.is_over()));
                if !open {
                    found.push(remove("abort-request", format!("plan {plan} is asked to go back, and it is over"), path));
                }
            }
        }
    }
    found.sort_by(|one, other| one.message.cmp(&other.message));
    found
}

/// Files that others may read or enter.
fn modes(state: &StateDirectory) -> Vec<Damage> {
    let mut found = Vec::new();
    let mut look = |path: &Path, wanted: u32| {
        let Ok(metadata) = path.symlink_metadata() else { return };
        let mode = metadata.permissions().mode() & 0o777;
        if mode != wanted && !metadata.is_symlink() {
            let message = format!("{} has the mode {mode:o}, and may hold secrets", path.display());
            found.push(Damage { service: None, kind: "mode", message, repair: Repair::SetMode { path: path.to_owned(), mode: wanted } });
        }
    };
    let root = state.root();
    look(root, PRIVATE_DIRECTORY);
    for directory in [root.to_owned(), root.join("plans"), root.join("definitions"), root.join("aside")] {
        if directory != root {
            look(&directory, PRIVATE_DIRECTORY);
        }
        for name in durable::list(&directory).unwrap_or_default() {
            let path = directory.join(name);
            if path.is_file() {
                look(&path, PRIVATE_FILE);
            }
        }
    }
    found
}

/// Definitions that kept releases need and that are missing or damaged. `writable` are those that the compose file describes.
///
/// # Errors
///
/// [`RepairError::State`] when the key cannot be used.
pub fn look_at_definitions(state: &StateDirectory, history: &History, writable: &[DefinitionId]) -> Result<Vec<Damage>, RepairError> {
    let Some(newest) = history.entries().last() else { return Ok(Vec::new()) };
    let key: DefinitionKey = state.key_or_ephemeral().map_err(|source| RepairError::State { source })?;
    let keep = usize::try_from(newest.plan.release.target.keep).unwrap_or(usize::MAX);
    let mut found: Vec<Damage> = Vec::new();
    for release in history.releases().iter().take(keep) {
        let wanted = release.target.services.iter();
        let ids = wanted.flat_map(|(name, wanted)| {
            let gateway = wanted.gateway.as_ref().map(|gateway| &gateway.definition);
            std::iter::once(&wanted.definition).chain(gateway).map(move |id| (name, id))
        });
        for (service, id) in ids {
            let Err(error) = state.definition(&key, id) else { continue };
            let kind = match &error {
                StateError::DefinitionMissing { .. } => "definition-missing",
                _ => "definition-damaged",
            };
            let repair = if writable.contains(id) {
                Repair::WriteDefinition { id: id.clone() }
            } else {
                Repair::ByHand { advice: "restore it from a backup of the state directory; what runs goes on without it".to_owned() }
            };
            let message = format!("{}: `{service}` of {} cannot be made again from it", one_line(&error), release.id);
            if !found.iter().any(|known| known.repair.is_automatic() && known.repair == repair || known.message == message) {
                found.push(Damage { service: None, kind, message, repair });
            }
        }
    }
    Ok(found)
}

/// Carries out a repair of a file. The caller holds the lease.
///
/// # Errors
///
/// [`RepairError`]; nothing was lost.
pub fn repair(state: &StateDirectory, repair: &Repair) -> Result<(), RepairError> {
    let failed = |source| RepairError::File { source };
    let aside = state.aside();
    match repair {
        Repair::CutAfter { path, whole_bytes } => {
            let bytes = durable::read(path).map_err(failed)?;
            durable::create_directory(&aside, PRIVATE_DIRECTORY).map_err(failed)?;
            let whole = usize::try_from(*whole_bytes).ok().and_then(|whole| bytes.get(..whole)).unwrap_or(&bytes);
            // The copy is there in whole before the file is touched.
            keep_copy(&aside, path, &bytes)?;
            durable::write_atomic(path, whole, PRIVATE_FILE).map_err(failed)
        }
        Repair::SetAside { path } => {
            durable::create_directory(&aside, PRIVATE_DIRECTORY).map_err(failed)?;
            durable::move_into(path, &aside).map(drop).map_err(failed)
        }
        Repair::RemoveFile { path } => durable::remove(path).map_err(failed),
        Repair::SetMode { path, mode } => durable::set_mode(path, *mode).map_err(failed),
        Repair::WriteDefinition { .. }
        | Repair::Resume { .. }
        | Repair::Start { .. }
        | Repair::Unpause { .. }
        | Repair::Connect { .. }
        | Repair::Steer { .. }
        | Repair::RemoveContainer { .. }
        | Repair::RemoveNetwork { .. }
        | Repair::Unpin { .. }
        | Repair::ByHand { .. } => Err(RepairError::Elsewhere { what: repair.to_string() }),
    }
}

fn keep_copy(aside: &Path, path: &Path, bytes: &[u8]) -> Result<(), RepairError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut number = 0_u32;
    loop {
        let copy = aside.join(if number == 0 { name.clone() } else { format!("{name}.{number}") });
        match durable::create_new(&copy, bytes) {
            Err(durable::DurableError::Exists { .. }) => number += 1,
            result => return result.map_err(|source| RepairError::File { source }),
        }
    }
}

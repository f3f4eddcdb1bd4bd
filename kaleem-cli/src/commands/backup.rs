//! `kaleem backup`: one file a verb, and what they share.

use std::collections::BTreeMap;
use std::sync::Arc;

use kaleem_backup::backups::{Backups, BackupsError};
use kaleem_backup::setup::SetUp;
use kaleem_core::backup::{Contents, Manifest, SourceKind};
use kaleem_core::config::Project;
use kaleem_core::names::ArtifactName;

use crate::arguments::backup::{Backup, BackupVerb};
use crate::error::CliError;
use crate::exit::Exit;
use crate::render::Printer;
use crate::render::ask::Said;
use crate::render::moving::Expected;
use crate::wiring::{BackupWish, Wiring};
use crate::words;

mod create;
mod drill;
mod keep;
mod list;
mod prune;
mod restore;
mod schedule;
mod show;
mod verify;

/// Does what was asked. Its exit codes are those of backups.
///
/// # Errors
///
/// [`CliError`]
pub(crate) async fn run(arguments: &Backup, wiring: &Wiring, printer: &Printer) -> Result<Exit, CliError> {
    Box::pin(verb(arguments, wiring, printer)).await.map_err(|source| CliError::InBackup { source: Box::new(source) })
}

async fn verb(arguments: &Backup, wiring: &Wiring, printer: &Printer) -> Result<Exit, CliError> {
    let project = wiring.project()?;
    if let BackupVerb::Schedule(schedule) = &arguments.verb {
        return Ok(schedule::run(schedule, &project, wiring, printer));
    }
    let unencrypted = matches!(&arguments.verb, BackupVerb::Create(create) if create.unencrypted);
    let wish = BackupWish { key_file: arguments.key_file.clone(), unencrypted };
    let set_up = wiring.backups(&project, &wish, "backup").await?;
    let around = Around { project: &project, set_up: &set_up, wiring, printer };
    match &arguments.verb {
        BackupVerb::Create(create) => create::run(create, &around).await,
        BackupVerb::List(list) => list::run(list, &around).await,
        BackupVerb::Show(show) => show::run(show, &around).await,
        BackupVerb::Verify(verify) => verify::run(verify, &around).await,
        BackupVerb::Restore(restore) => restore::run(restore, &around).await,
        BackupVerb::Drill(arguments) => drill::run(arguments, &wish, &around).await,
        BackupVerb::Prune(prune) => prune::run(prune, &around).await,
        BackupVerb::Forget(forget) => keep::forget(forget, &around).await,
        BackupVerb::Hold(hold) => keep::hold(hold, &around).await,
        BackupVerb::Release(release) => keep::release(release, &around).await,
        BackupVerb::Schedule(schedule) => Ok(schedule::run(schedule, &project, wiring, printer)),
    }
}

/// What every verb works with.
struct Around<'a> {
    project: &'a Project,
    set_up: &'a SetUp,
    wiring: &'a Wiring,
    printer: &'a Printer,
}

impl Around<'_> {
    fn backups(&self) -> &Backups {
        &self.set_up.backups
    }

    /// Says what was left out and what will not work.
    fn notes(&self) {
        for note in &self.set_up.notes {
            self.printer.warning(note, None);
        }
    }

    /// Asks a person whether to go on, unless `yes` was said before.
    fn agree(&self, yes: bool, what: &str, question: &str) -> Result<(), CliError> {
        if yes {
            return Ok(());
        }
        if !self.wiring.environment().stdin_is_terminal {
            return Err(CliError::YesNeeded { what: what.to_owned() });
        }
        match self.printer.ask(question) {
            Said::Yes => Ok(()),
            Said::No => Err(CliError::NotAgreed),
        }
    }

    /// Refuses what cannot be opened here before anything is done.
    fn need_keys(&self, manifest: &Manifest) -> Result<(), CliError> {
        if self.backups().can_open(manifest) { Ok(()) } else { Err(CliError::KeyNeeded { set: manifest.set.clone() }) }
    }
}

fn failed(source: BackupsError) -> CliError {
    CliError::Backups { source }
}

/// What is stored of each file of a set.
fn stored(manifest: &Manifest, wanted: impl Fn(&ArtifactName) -> bool) -> Expected {
    let artifacts = manifest.artifacts.iter().filter(|record| wanted(&record.name));
    artifacts.map(|record| (record.file.clone(), record.stored_bytes)).collect::<BTreeMap<_, _>>()
}

/// Things of a set, and parts, for people.
fn counted(kind: SourceKind, contents: &Contents) -> String {
    let things: u64 = contents.values().map(|content| content.count).sum();
    let (one, many) = match kind {
        SourceKind::Mongodb => ("document", "documents"),
        SourceKind::Redis => ("key", "keys"),
        SourceKind::Files => ("file", "files"),
        _ => ("thing", "things"),
    };
    words::count(things, one, many)
}

/// What the artifacts of a set take in its vault.
fn stored_bytes(manifest: &Manifest) -> u64 {
    manifest.artifacts.iter().map(|record| record.stored_bytes).sum()
}

/// The clock of a view.
fn clock(around: &Around<'_>) -> Arc<dyn kaleem_core::clock::Clock> {
    around.wiring.clock().clone()
}

//! `kaleem backup restore`: said first, asked, read in whole, loaded beside what is there, and only then put in its place.

use std::collections::BTreeSet;
use std::sync::Arc;

use kaleem_backup::backups::{NewSet, RestoreRequest, Restored};
use kaleem_backup::retention::BEFORE_RESTORE;
use kaleem_backup::set;
use kaleem_backup::setup::{self, StoreKind};
use kaleem_backup::source::files::FilesSource;
use kaleem_core::backup::{BackupSource, Manifest, RestoreMode, SourceKind};
use kaleem_core::names::ArtifactName;
use kaleem_core::secret::Secret;
use serde_json::json;

use super::{Around, clock, counted, failed, stored};
use crate::arguments::backup::Restore;
use crate::commands::Stopwatch;
use crate::error::CliError;
use crate::exit::Exit;
use crate::render::moving::{Expected, MovingView};
use crate::render::style::{GOOD, HELP, paint};
use crate::words;

/// Restores.
///
/// # Errors
///
/// [`CliError`]; each part is whole, the old or the new.
pub(super) async fn run(arguments: &Restore, around: &Around<'_>) -> Result<Exit, CliError> {
    let (backups, printer) = (around.backups(), around.printer);
    let watch = Stopwatch::start(around.wiring.clock());
    let manifest = backups.find(arguments.set.name()).await.map_err(failed)?;
    around.need_keys(&manifest)?;
    let wanted: BTreeSet<ArtifactName> = arguments.only.iter().cloned().collect();
    has_collection(arguments, &manifest)?;
    let instead = instead(arguments, &manifest, around).await?;
    let mode = if arguments.replace { RestoreMode::Replace } else { RestoreMode::IntoEmpty };
    let names = manifest.artifacts.iter().filter(|record| wanted.is_empty() || wanted.contains(&record.name));
    let names = names.map(|record| record.name.to_string()).collect::<Vec<_>>().join(", ");
    let names = arguments.collection.as_ref().map_or(names.clone(), |collection| format!("{collection} of {names}"));
    let age = words::duration(words::since(manifest.created, around.wiring.clock().now()));
    let how = match mode {
        RestoreMode::Replace => "replace what is there by",
        RestoreMode::IntoEmpty => "restore into empty stores",
    };
    // A missing engine is found before anybody is asked.
    let kaleem = around.wiring.kaleem("backup restore").await?;
    around.agree(arguments.yes, "a restore", &format!("{how} {names} as of {} ({age} ago)?", words::moment(manifest.created)))?;
    // Nobody deploys while data is exchanged.
    let _work = kaleem.work(&around.project.name).await.map_err(|source| CliError::Kaleem { source })?;
    {
        // What cannot be put back is found out before anything else is done.
        let view = MovingView::new(printer, &clock(around), stored(&manifest, |name| wanted.is_empty() || wanted.contains(name)), 1);
        view.watch(backups.sound_vault(&manifest.set, &wanted, &view.observer())).await.map_err(failed)?;
    }
    let safety = match mode {
        RestoreMode::Replace if !arguments.without_safety_set && instead.is_empty() => Some(keep_what_is_there(&wanted, around).await?),
        _ => None,
    };
    let _lease = backups.lock().await.map_err(failed)?;
    let view = MovingView::new(printer, &clock(around), stored(&manifest, |name| wanted.is_empty() || wanted.contains(name)), 2);
    let done = |restored: &Restored| {
        let kind =
            manifest.artifacts.iter().find(|record| record.name == restored.artifact).map_or(SourceKind::Command, |record| record.kind);
        let (things, parts) = (counted(kind, &restored.contents), words::count(restored.contents.len(), "part", "parts"));
        let line = format!("{} {}: {things} in {parts}, compared with the manifest", paint(GOOD, "    ok"), restored.artifact);
        view.aside(|| printer.note(&line));
        printer.json(&json!({
            "type": "backup-restored", "set": manifest.set.as_str(), "artifact": restored.artifact.as_str(), "contents": restored.contents,
        }));
    };
    let request = RestoreRequest { wanted: wanted.clone(), collection: arguments.collection.clone(), instead, mode };
    let work = backups.restore(&manifest.set, &request, view.observer(), &done);
    view.watch(work).await.map_err(failed)?;
    printer.result(&format!(
        "{} {names} as of {} in {}",
        paint(GOOD, "restored:"),
        words::moment(manifest.created),
        words::duration(watch.took())
    ));
    if let Some(set) = &safety {
        printer.note(&format!("{} what was there is in {set}: kaleem backup restore {set} --replace", paint(HELP, "help:")));
    }
    printer.json(&json!({
        "type": "backup-restore", "set": manifest.set.as_str(), "artifacts": names, "replaced_kept_in": safety, "exit_code": 0,
    }));
    Ok(Exit::Done)
}

/// What is not in the set is found out before anybody is asked.
fn has_collection(arguments: &Restore, manifest: &Manifest) -> Result<(), CliError> {
    let Some(collection) = &arguments.collection else { return Ok(()) };
    let request = |reason: String, remedy: &str| CliError::BackupRequest { reason, remedy: remedy.to_owned() };
    let [name] = arguments.only.as_slice() else {
        return Err(request("a collection is of one artifact".to_owned(), "name one with `--only ARTIFACT`"));
    };
    let record = manifest.artifacts.iter().find(|record| record.name == *name);
    match record.is_some_and(|record| set::of_collection(&record.contents, collection).is_empty()) {
        true => Err(request(format!("`{name}` has no collection `{collection}`"), "see what it has with `kaleem backup show`")),
        // An artifact that is missing is told with the set.
        false => Ok(()),
    }
}

/// Makes a set of what is about to be replaced.
async fn keep_what_is_there(wanted: &BTreeSet<ArtifactName>, around: &Around<'_>) -> Result<String, CliError> {
    around.printer.note("first, a backup set of what is there");
    let new = NewSet { set: None, release: None, tags: vec![BEFORE_RESTORE.to_owned()], only: wanted.clone() };
    let view = MovingView::new(around.printer, &clock(around), Expected::new(), 2);
    let made = view.watch(around.backups().create(&new, view.observer())).await.map_err(failed)?;
    around.printer.note(&format!("{} {}", paint(GOOD, "    ok"), made.manifest.set));
    Ok(made.manifest.set.to_string())
}

/// Another target than the project's own, where one was named.
async fn instead(arguments: &Restore, manifest: &Manifest, around: &Around<'_>) -> Result<Vec<Arc<dyn BackupSource>>, CliError> {
    if arguments.to_env.is_none() && arguments.to_directory.is_none() {
        return Ok(Vec::new());
    }
    let request = |reason: &str, remedy: &str| CliError::BackupRequest { reason: reason.to_owned(), remedy: remedy.to_owned() };
    let [name] = arguments.only.as_slice() else {
        return Err(request("another target is for one artifact", "name it with `--only ARTIFACT`"));
    };
    let Some(record) = manifest.artifacts.iter().find(|record| record.name == *name) else {
        return Err(request(&format!("the set has no `{name}`"), "see what it has with `kaleem backup show`"));
    };
    if let Some(directory) = &arguments.to_directory {
        if record.kind != SourceKind::Files {
            return Err(request(
                &format!("`{name}` is of {}, which is no directory", record.kind),
                "use `--to-env VARIABLE` with its address",
            ));
        }
        let directory = around.wiring.environment().directory.join(directory);
        return Ok(vec![Arc::new(FilesSource::new(name.clone(), &directory))]);
    }
    let variable = arguments.to_env.as_deref().unwrap_or_default();
    let Some(url) = around.wiring.environment().get(variable) else {
        return Err(request(&format!("the variable {variable} is not set"), "set it to the address of the target"));
    };
    let kind = match record.kind {
        SourceKind::Mongodb => StoreKind::Mongodb,
        SourceKind::Redis => StoreKind::Redis,
        SourceKind::Qdrant => StoreKind::Qdrant,
        SourceKind::Rabbitmq => StoreKind::Rabbitmq,
        kind => return Err(request(&format!("`{name}` is of {kind}, which has no address"), "use `--to-directory DIRECTORY`")),
    };
    let source = setup::elsewhere(name, kind, Secret::new(url.to_owned())).await.map_err(|source| CliError::BackupSetUp { source })?;
    Ok(vec![source])
}

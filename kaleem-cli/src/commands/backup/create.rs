//! `kaleem backup create`: a set of everything, read back before it counts.

use kaleem_backup::backups::NewSet;
use serde_json::json;

use super::{Around, clock, counted, failed, stored, stored_bytes};
use crate::arguments::backup::Create;
use crate::commands::Stopwatch;
use crate::error::CliError;
use crate::exit::{BackupExit, Exit};
use crate::render::moving::{Expected, MovingView};
use crate::render::style::{GOOD, WARN, paint};
use crate::words;

/// Makes a set.
///
/// # Errors
///
/// [`CliError::Backups`]; there is no set.
pub(super) async fn run(arguments: &Create, around: &Around<'_>) -> Result<Exit, CliError> {
    around.notes();
    let watch = Stopwatch::start(around.wiring.clock());
    let wanted = NewSet { set: None, release: None, tags: arguments.tags.clone(), only: arguments.only.iter().cloned().collect() };
    let made = {
        // What the last set held tells how much there will be, as far as anything can.
        let last = around.backups().finished().await.ok().and_then(|sets| sets.into_iter().next());
        let only = |name: &kaleem_core::names::ArtifactName| arguments.only.is_empty() || arguments.only.contains(name);
        let expected = last.map_or_else(Expected::new, |(manifest, _)| stored(&manifest, only));
        let view = MovingView::new(around.printer, &clock(around), expected, 2);
        view.watch(around.backups().create(&wanted, view.observer())).await.map_err(failed)?
    };
    let printer = around.printer;
    for record in &made.manifest.artifacts {
        let text = format!(
            "{} {}, {}, {} ({})",
            record.name,
            counted(record.kind, &record.contents),
            record.consistency,
            words::size(record.stored_bytes),
            record.kind
        );
        printer.note(&format!("{} {text}", paint(GOOD, "    ok")));
        for note in &record.notes {
            printer.note(&format!("       {note}"));
        }
    }
    for (part, artifact) in &made.twins {
        printer.note(&format!("       `{part}` is a part of what `{artifact}` has as a whole"));
    }
    for (place, copied) in &made.copies {
        if copied.is_ok() {
            printer.note(&format!("{} copied to {place}, and read back there", paint(GOOD, "    ok")));
        }
    }
    let not_covered = &around.set_up.not_covered;
    for one in not_covered {
        printer.label("not covered", WARN, &format!("{}: {}", one.service, one.storage));
        printer.note(&format!("       to cover it, write {} in kaleem.toml", one.remedy));
    }
    let shortcomings = made.shortcomings();
    for shortcoming in &shortcomings {
        printer.label("partial", WARN, shortcoming);
    }
    let size = stored_bytes(&made.manifest);
    let exit = if shortcomings.is_empty() { Exit::Done } else { Exit::OfBackup(BackupExit::Partial) };
    printer.result(&format!(
        "{} {} in {}: {} in {}, verified",
        paint(GOOD, "made:"),
        made.manifest.set,
        made.place,
        words::size(size),
        words::duration(watch.took())
    ));
    printer.json(&json!({
        "type": "backup-set",
        "set": made.manifest.set.as_str(),
        "vault": made.place,
        "copies": made.copies.iter().map(|(place, copied)| json!({ "vault": place, "whole": copied.is_ok() })).collect::<Vec<_>>(),
        "stored_bytes": size,
        "artifacts": made.manifest.artifacts,
        "twins": made.twins.iter().map(|(part, artifact)| json!({ "source": part, "artifact": artifact })).collect::<Vec<_>>(),
        "not_covered": not_covered
            .iter()
            .map(|one| json!({ "service": one.service.as_str(), "storage": one.storage, "remedy": one.remedy }))
            .collect::<Vec<_>>(),
        "shortcomings": shortcomings,
        "exit_code": exit.code(),
    }));
    Ok(exit)
}

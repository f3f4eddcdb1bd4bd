//! `kaleem backup drill`: a set is restored into empty stores of the project's own images, compared, and thrown away.

use kaleem_backup::backups::NamedVault;
use kaleem_backup::drill::room::Room;
use kaleem_backup::drill::whole::Drilling;
use kaleem_backup::drill::{Control, DrillReport, Verdict, report};
use kaleem_core::backup::Manifest;
use kaleem_core::names::SetId;
use serde_json::json;

use super::{Around, failed};
use crate::arguments::backup::Drill;
use crate::error::CliError;
use crate::exit::{BackupExit, Exit};
use crate::render::style::{BAD, FAINT, GOOD, HELP, WARN, paint};
use crate::wiring::BackupWish;
use crate::words;

/// Drills. The exit code is that of the verdict; a control that passes is a failure of the drill itself.
///
/// # Errors
///
/// [`CliError`] when there was no drill.
pub(super) async fn run(arguments: &Drill, wish: &BackupWish, around: &Around<'_>) -> Result<Exit, CliError> {
    let (backups, printer, wiring) = (around.backups(), around.printer, around.wiring);
    let request = |reason: String, remedy: &str| CliError::BackupRequest { reason, remedy: remedy.to_owned() };
    let manifest = chosen(arguments, around).await?;
    let vault = holder(arguments, &manifest.set, around).await?;
    let (set_up, runtime) = wiring.drill(around.project, wish, &manifest).await?;
    let _lease = backups.lock_drills().await.map_err(failed)?;
    let room = match runtime {
        Some(runtime) => Some(
            Room::new(runtime, &around.project.name, wiring.clock().clone())
                .map_err(|error| request(error.to_string(), "give the project a shorter name"))?,
        ),
        None => None,
    };
    let age = words::duration(words::since(manifest.created, wiring.clock().now()));
    let changed = if arguments.tamper { ", with one byte of each artifact changed on its way" } else { "" };
    printer.note(&format!("drill of {} ({age} old) from {}{changed}", manifest.set, vault.name));
    let drilling = Drilling {
        vault: vault.vault.as_ref(),
        set: manifest.set.clone(),
        keys: backups.keys(),
        control: if arguments.tamper { Control::OneByteChanged } else { Control::AsItIs },
        room: room.as_ref(),
        stores: set_up.stores,
        checks: set_up.checks,
        ready_within: set_up.ready_within,
        directory: backups.directory().join("drill-files"),
        environment: set_up.environment,
        clock: wiring.clock().clone(),
    };
    let done = Box::pin(drilling.run(&|line| printer.note(&paint(FAINT, &format!("       {line}"))))).await;
    tell(&done, around);
    let kept = report::keep(backups.directory(), &done).map_err(|source| CliError::DrillReport { source })?;
    let exit = judge(&done, around);
    printer.note(&format!("{} {}, signed with {}", paint(HELP, "report:"), kept.path.display(), kept.signed.public_key));
    printer.json(&json!({
        "type": "backup-drill", "report": done, "path": kept.path, "public_key": kept.signed.public_key,
        "signature": kept.signed.signature, "exit_code": exit.code(),
    }));
    Ok(exit)
}

/// The set that was named, any, or the newest.
async fn chosen(arguments: &Drill, around: &Around<'_>) -> Result<Manifest, CliError> {
    if !arguments.random {
        return around.backups().find(arguments.set.name()).await.map_err(failed);
    }
    around.backups().any().await.map_err(failed)
}

/// The vault that was named, or the first that has the set.
async fn holder(arguments: &Drill, set: &SetId, around: &Around<'_>) -> Result<NamedVault, CliError> {
    let holders = around.backups().holders(set).await.map_err(failed)?;
    let found = holders.iter().find(|named| arguments.vault.as_ref().is_none_or(|wanted| *wanted == named.name));
    found.cloned().ok_or_else(|| {
        let known = holders.iter().map(|named| named.name.clone()).collect::<Vec<_>>().join(", ");
        CliError::BackupRequest { reason: "that vault does not have the set".to_owned(), remedy: format!("name one of: {known}") }
    })
}

fn mark(verdict: Verdict) -> String {
    match verdict {
        Verdict::Pass => paint(GOOD, "    ok"),
        Verdict::Fail => paint(BAD, "  fail"),
        Verdict::CouldNotVerify => paint(WARN, "     ?"),
    }
}

fn tell(done: &DrillReport, around: &Around<'_>) {
    let printer = around.printer;
    for artifact in &done.artifacts {
        let things = format!("{} {}", artifact.things, if artifact.things == 1 { "thing" } else { "things" });
        let text = match (&artifact.reason, artifact.restarted) {
            (Some(reason), _) => reason.clone(),
            (None, true) => format!("{things} restored and compared, and again after a restart"),
            (None, false) => format!("{things} restored and compared"),
        };
        printer.result(&format!("{} {}: {text} ({})", mark(artifact.verdict), artifact.artifact, words::duration(artifact.took)));
    }
    for check in &done.checks {
        let text = check.reason.clone().unwrap_or_else(|| "as it should be".to_owned());
        printer.result(&format!("{} {} of {}: {text}", mark(check.verdict), check.check, check.artifact));
    }
    let lost = done.seconds_lost.and_then(|seconds| u64::try_from(seconds).ok()).map(std::time::Duration::from_secs);
    let lost = lost.map_or_else(|| "unknown".to_owned(), words::duration);
    printer.result(&format!(
        "time to recover: {} (and {} for the stores); data that would be lost: {lost}",
        words::duration(done.recovery_time),
        words::duration(done.stores_took)
    ));
    if let Some(left) = &done.left_behind {
        printer.warning(&format!("the drill could not remove {left}"), Some("the next drill removes it"));
    }
}

fn judge(done: &DrillReport, around: &Around<'_>) -> Exit {
    let printer = around.printer;
    let because = done.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
    if done.control == Control::OneByteChanged {
        let all = !done.artifacts.is_empty() && done.artifacts.iter().all(|artifact| artifact.verdict == Verdict::Fail);
        let (word, style, text, exit) = match done.verdict {
            _ if all => ("fail:", GOOD, "every change was found, as it must be".to_owned(), BackupExit::Integrity),
            Verdict::Fail | Verdict::CouldNotVerify => {
                ("unknown:", WARN, format!("not every artifact could be tried{because}"), BackupExit::CouldNotVerify)
            }
            Verdict::Pass => ("broken:", BAD, "a changed byte was not found; do not believe these drills".to_owned(), BackupExit::Failed),
        };
        printer.result(&format!("{} {text}", paint(style, word)));
        return Exit::OfBackup(exit);
    }
    let (word, style, text, exit) = match done.verdict {
        Verdict::Pass => ("pass:", GOOD, format!("{} restores", done.set), Exit::Done),
        Verdict::Fail => ("fail:", BAD, format!("{} does not restore{because}", done.set), Exit::OfBackup(BackupExit::Integrity)),
        Verdict::CouldNotVerify => (
            "unknown:",
            WARN,
            format!("whether {} restores could not be found out{because}", done.set),
            Exit::OfBackup(BackupExit::CouldNotVerify),
        ),
    };
    printer.result(&format!("{} {text}", paint(style, word)));
    exit
}

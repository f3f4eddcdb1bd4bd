//! `kaleem backup verify`: every byte of a set is read again, in every vault that has it.

use kaleem_backup::backups::{Depth, Grade, Verified};
use serde_json::json;

use super::{Around, clock, failed, stored};
use crate::arguments::backup::Verify;
use crate::error::CliError;
use crate::exit::{BackupExit, Exit};
use crate::render::moving::MovingView;
use crate::render::style::{BAD, GOOD, HELP, WARN, paint};

/// Verifies. The exit code is that of the worst.
///
/// # Errors
///
/// [`CliError::Backups`] when there is nothing to verify.
pub(super) async fn run(arguments: &Verify, around: &Around<'_>) -> Result<Exit, CliError> {
    let backups = around.backups();
    let manifests = if arguments.all {
        backups.finished().await.map_err(failed)?.into_iter().map(|(manifest, _)| manifest).collect()
    } else {
        // One whose description is damaged is verified, too: that is how it is found out.
        match (backups.find(arguments.set.name()).await, arguments.set.name()) {
            (Ok(manifest), _) => vec![manifest],
            (Err(error), None) => return Err(failed(error)),
            (Err(error), Some(set)) => return damaged(error, set, around).await,
        }
    };
    let mut worst = None;
    for manifest in &manifests {
        let view = MovingView::new(around.printer, &clock(around), stored(manifest, |_| true), backups.vaults().len() as u64);
        let verified = view.watch(backups.verify(&manifest.set, view.observer())).await.map_err(failed)?;
        for one in &verified {
            worst = worst.max(tell(one, around));
        }
    }
    Ok(worst.map_or(Exit::Done, |grade| Exit::OfBackup(BackupExit::of_grade(grade))))
}

async fn damaged(error: kaleem_backup::BackupsError, set: &kaleem_core::names::SetId, around: &Around<'_>) -> Result<Exit, CliError> {
    let view = MovingView::new(around.printer, &clock(around), super::Expected::new(), 1);
    let Ok(verified) = around.backups().verify(set, view.observer()).await else { return Err(failed(error)) };
    let worst = verified.iter().filter_map(|one| tell(one, around)).max();
    Ok(worst.map_or(Exit::Done, |grade| Exit::OfBackup(BackupExit::of_grade(grade))))
}

/// Says what was found out; answers what is wrong.
fn tell(verified: &Verified, around: &Around<'_>) -> Option<Grade> {
    let printer = around.printer;
    let (set, vault) = (&verified.set, &verified.vault);
    let depth = match verified.depth {
        Depth::Whole => "whole",
        Depth::Stored => "stored",
    };
    match &verified.outcome {
        Ok(_) => {
            match verified.depth {
                Depth::Whole => printer.result(&format!("{} {set} is whole and sound in {vault}", paint(GOOD, "ok:"))),
                Depth::Stored => {
                    printer.result(&format!("{} {set} is stored in {vault} as it was made", paint(GOOD, "ok:")));
                    printer
                        .result(&format!("{} it was not opened, since no key is here; for that: `--key-file FILE`", paint(WARN, "note:")));
                }
            }
            printer.json(&json!({ "type": "backup-verified", "set": set.as_str(), "vault": vault, "ok": true, "depth": depth }));
            None
        }
        Err(failure) => {
            let why = kaleem_core::remedy::one_line(failure);
            // What could not be read or opened says nothing of the set.
            let label = if failure.grade() == Grade::Integrity { paint(BAD, "bad:") } else { paint(WARN, "unproved:") };
            printer.result(&format!("{label} {set} in {vault}: {why}"));
            printer.result(&format!("{} {}", paint(HELP, "help:"), kaleem_core::remedy::Remedy::remedy(failure)));
            printer.json(
                &json!({ "type": "backup-verified", "set": set.as_str(), "vault": vault, "ok": false, "depth": depth, "error": why }),
            );
            Some(failure.grade())
        }
    }
}

//! `kaleem backup list`: what each vault holds.

use kaleem_backup::set::{SetEntry, SetState};
use serde_json::json;

use super::{Around, stored_bytes};
use crate::arguments::backup::List;
use crate::error::CliError;
use crate::exit::{BackupExit, Exit};
use crate::render::style::{BAD, FAINT, GOOD, WARN, paint};
use crate::render::table::{self, Cell};
use crate::words;

/// Lists. A vault that cannot tell is said, and makes the exit code that of its failure.
///
/// # Errors
///
/// None of its own.
pub(super) async fn run(arguments: &List, around: &Around<'_>) -> Result<Exit, CliError> {
    let printer = around.printer;
    let mut exit = Exit::Done;
    let mut rows = Vec::new();
    for listing in around.backups().list().await {
        let sets = match listing.sets {
            Ok(sets) => sets,
            Err(failure) => {
                printer.label("error", BAD, &format!("{}: {}", listing.vault, kaleem_core::remedy::one_line(&failure)));
                printer.json(&json!({ "type": "backup-vault", "vault": listing.vault, "error": kaleem_core::remedy::one_line(&failure) }));
                exit = Exit::OfBackup(BackupExit::of_grade(failure.grade()));
                continue;
            }
        };
        // What is being made, or was left by a death, is no set.
        let shown = |entry: &&SetEntry| arguments.all || !matches!(entry.state, SetState::Unfinished);
        for entry in sets.iter().rev().filter(shown) {
            rows.push(row(entry, &listing.vault, around));
        }
    }
    if rows.is_empty() && exit == Exit::Done {
        printer.result(&paint(FAINT, "there is no backup set yet: `kaleem backup create` makes one"));
        return Ok(exit);
    }
    table::lines(&["SET", "VAULT", "AGE", "STATE", "SIZE", "RELEASE", "ARTIFACTS"], rows).iter().for_each(|line| printer.result(line));
    Ok(exit)
}

fn row(entry: &SetEntry, vault: &str, around: &Around<'_>) -> Vec<Cell> {
    let now = around.wiring.clock().now();
    let held = if entry.held { ", held" } else { "" };
    // What is stored of its artifacts, as `create` says it; of what is no set, all that lies there.
    let size = match &entry.state {
        SetState::Committed { manifest, .. } => stored_bytes(manifest),
        SetState::Unfinished | SetState::Damaged(_) => entry.size_bytes,
    };
    let (state, age, release, artifacts, json) = match &entry.state {
        SetState::Committed { manifest, commit } => {
            let names = manifest.artifacts.iter().map(|record| record.name.to_string()).collect::<Vec<_>>();
            let of = if manifest.project == around.project.name { String::new() } else { format!(" of {}", manifest.project) };
            (
                Cell::styled(format!("verified{held}{of}"), GOOD),
                words::duration(words::since(manifest.created, now)),
                manifest.release.map(|release| format!("before {release}")).unwrap_or_default(),
                names.join(", "),
                json!({ "state": "verified", "created": manifest.created, "verified": commit.verified, "project": manifest.project.as_str(),
                    "release": manifest.release.map(|release| release.to_string()), "tags": manifest.tags, "artifacts": names, "stored_bytes": size }),
            )
        }
        SetState::Unfinished => {
            (Cell::styled(format!("unfinished{held}"), WARN), String::new(), String::new(), String::new(), json!({ "state": "unfinished" }))
        }
        SetState::Damaged(error) => {
            let why = kaleem_core::remedy::one_line(error);
            (
                Cell::styled(format!("damaged{held}"), BAD),
                String::new(),
                String::new(),
                why.clone(),
                json!({ "state": "damaged", "error": why }),
            )
        }
    };
    let mut value =
        json!({ "type": "backup-listed", "set": entry.set.as_str(), "vault": vault, "size_bytes": entry.size_bytes, "held": entry.held });
    if let (Some(value), Some(more)) = (value.as_object_mut(), json.as_object()) {
        value.extend(more.clone());
    }
    around.printer.json(&value);
    vec![
        Cell::new(entry.set.as_str()),
        Cell::new(vault),
        Cell::new(age),
        state,
        Cell::new(words::size(size)),
        Cell::new(release),
        Cell::new(artifacts),
    ]
}

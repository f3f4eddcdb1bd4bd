//! What a rollback with data would lose, said before anything is touched.

use std::time::Duration;

use kaleem_backup::Backups;
use kaleem_core::plan::{Plan, Step};
use serde_json::json;

use crate::error::CliError;
use crate::render::Printer;
use crate::render::ask::Said;
use crate::render::style::{STRONG, WARN, paint};
use crate::wiring::Wiring;
use crate::words;

/// Time in which the stores may be asked what they hold now.
const LOOK: Duration = Duration::from_secs(30);

/// Says what would be lost, and asks.
///
/// # Errors
///
/// [`CliError::KeyNeeded`], [`CliError::YesNeeded`], [`CliError::NotAgreed`], [`CliError::Backups`]; nothing was touched.
pub(super) async fn agree(plan: &Plan, backups: &Backups, yes: bool, wiring: &Wiring, printer: &Printer) -> Result<(), CliError> {
    let restores = plan.steps.iter().find_map(|step| if let Step::RestoreData { set, .. } = step { Some(set) } else { None });
    let Some(set) = restores else { return Ok(()) };
    let manifest = backups.find(Some(set)).await.map_err(|source| CliError::Backups { source })?;
    if !backups.can_open(&manifest) {
        return Err(CliError::KeyNeeded { set: set.clone() });
    }
    let since = words::since(manifest.created, wiring.clock().now());
    printer.note("");
    printer.note(&format!(
        "{} the data goes back to {}: what was written in the last {} is lost",
        paint(WARN, "data:"),
        words::moment(manifest.created),
        paint(STRONG, &words::duration(since))
    ));
    let losses = backups.losses(&manifest, LOOK).await;
    for loss in &losses {
        printer.note(&format!("  {}: {}", loss.artifact, loss.told()));
    }
    printer.json(&json!({
        "type": "data-loss", "set": set.as_str(), "created": manifest.created, "seconds": since.as_secs(),
        "artifacts": losses.iter().map(|loss| json!({
            "artifact": loss.artifact.as_str(), "parts_changed": loss.parts_changed, "more": loss.more, "fewer": loss.fewer,
        })).collect::<Vec<_>>(),
    }));
    if yes {
        return Ok(());
    }
    if !wiring.environment().stdin_is_terminal {
        return Err(CliError::YesNeeded { what: "a rollback with data".to_owned() });
    }
    match printer.ask("put this data back, and lose what was written since?") {
        Said::Yes => Ok(()),
        Said::No => Err(CliError::NotAgreed),
    }
}

//! `kaleem backup forget | hold | release`: what becomes of one set, by name.

use serde_json::json;

use super::{Around, failed};
use crate::arguments::backup::{Forget, Hold, Release};
use crate::error::CliError;
use crate::exit::Exit;

/// Removes a set in every vault.
///
/// # Errors
///
/// [`CliError::Backups`], [`CliError::YesNeeded`], [`CliError::NotAgreed`]
pub(super) async fn forget(arguments: &Forget, around: &Around<'_>) -> Result<Exit, CliError> {
    let backups = around.backups();
    let set = &arguments.set;
    around.agree(arguments.yes, "removing a backup set", &format!("remove the backup set {set} for good?"))?;
    let _lease = backups.lock().await.map_err(failed)?;
    let places = backups.forget(set).await.map_err(failed)?;
    around.printer.result(&format!("removed {set} from {}", places.join(", ")));
    around.printer.json(&json!({ "type": "backup-forgotten", "set": set.as_str(), "vaults": places }));
    Ok(Exit::Done)
}

/// Keeps a set.
///
/// # Errors
///
/// [`CliError::Backups`]
pub(super) async fn hold(arguments: &Hold, around: &Around<'_>) -> Result<Exit, CliError> {
    let places = around.backups().hold(&arguments.set, &arguments.reason).await.map_err(failed)?;
    around.printer.result(&format!("{} is held in {}", arguments.set, places.join(", ")));
    around.printer.json(&json!({ "type": "backup-held", "set": arguments.set.as_str(), "vaults": places }));
    Ok(Exit::Done)
}

/// Lets go of a set.
///
/// # Errors
///
/// [`CliError::Backups`]
pub(super) async fn release(arguments: &Release, around: &Around<'_>) -> Result<Exit, CliError> {
    around.backups().release(&arguments.set).await.map_err(failed)?;
    around.printer.result(&format!("{} is not held any more", arguments.set));
    around.printer.json(&json!({ "type": "backup-released", "set": arguments.set.as_str() }));
    Ok(Exit::Done)
}

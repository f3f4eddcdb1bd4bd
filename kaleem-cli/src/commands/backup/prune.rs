//! `kaleem backup prune`: what no rule keeps goes, and why each stays or goes is said.

use kaleem_backup::backups::Act;
use serde_json::json;

use super::{Around, failed};
use crate::arguments::backup::Prune;
use crate::error::CliError;
use crate::exit::Exit;
use crate::render::style::{FAINT, GOOD, WARN, paint};

/// Prunes, or only tells.
///
/// # Errors
///
/// [`CliError::Backups`]; nothing more was removed.
pub(super) async fn run(arguments: &Prune, around: &Around<'_>) -> Result<Exit, CliError> {
    let backups = around.backups();
    let _lease = backups.lock().await.map_err(failed)?;
    let act = if arguments.dry_run { Act::OnlyTell } else { Act::Remove };
    let pruned = backups.prune(&around.set_up.policy, act).await.map_err(failed)?;
    for vault in &pruned {
        for decision in &vault.decisions {
            let (word, style) = if decision.stays { ("stays", GOOD) } else { ("goes", WARN) };
            let why = decision.reasons.join("; ");
            around.printer.result(&format!("{} {} in {}: {why}", paint(style, &format!("{word:>5}")), decision.set, vault.vault));
            around.printer.json(&json!({
                "type": "backup-pruned", "set": decision.set.as_str(), "vault": vault.vault, "stays": decision.stays,
                "reasons": decision.reasons, "removed": vault.removed.contains(&decision.set),
            }));
        }
        let goes = vault.decisions.iter().filter(|decision| !decision.stays).count();
        let told = if arguments.dry_run { format!("{goes} would be removed") } else { format!("{} removed", vault.removed.len()) };
        around.printer.note(&paint(FAINT, &format!("{}: {} kept, {told}", vault.vault, vault.decisions.len() - goes)));
    }
    Ok(Exit::Done)
}

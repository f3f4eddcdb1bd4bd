//! `kaleem resume`: goes on with what was interrupted; a stuck plan is tried once more.

use crate::commands::carry_out::carry_out;
use crate::commands::reality;
use crate::error::CliError;
use crate::exit::Exit;
use crate::render::Printer;
use crate::wiring::Wiring;

/// Resumes.
///
/// # Errors
///
/// [`CliError`]
pub(crate) async fn run(wiring: &Wiring, printer: &Printer) -> Result<Exit, CliError> {
    let project = wiring.project_name()?;
    let history = wiring.history(&project)?;
    if history.open().is_none() {
        printer.note("nothing to resume: no plan is open");
        let reality = reality::ask(wiring, &project, &history).await.unwrap_or_default();
        return Ok(printer.nothing_to_do(&history, &reality));
    }
    let kaleem = wiring.kaleem_with("resume", wiring.sets_for_open_plan().await).await?;
    let work = kaleem.work(&project).await.map_err(|source| CliError::Kaleem { source })?;
    let Some(plan) = work.interrupted().cloned() else {
        let reality = reality::ask(wiring, &project, work.history()).await.unwrap_or_default();
        return Ok(printer.nothing_to_do(work.history(), &reality));
    };
    printer.note(&format!("going on with plan {} ({} to {})", plan.id, plan.kind, plan.release.id));
    let run = kaleem.resume(work).map_err(|source| CliError::Kaleem { source })?;
    Ok(carry_out(wiring, printer, &project, &plan, run).await?.exit)
}

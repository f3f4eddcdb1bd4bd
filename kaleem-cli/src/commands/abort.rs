//! `kaleem abort`: asks the process that works on the project to go back, or goes back itself where there is none.

use std::time::Duration;

use kaleem_core::engine::Ending;
use kaleem_core::kaleem::Kaleem;
use kaleem_core::lease;
use kaleem_core::names::{PlanId, ProjectName};

use crate::commands::Stopwatch;
use crate::commands::carry_out::carry_out;
use crate::commands::reality;
use crate::error::CliError;
use crate::exit::Exit;
use crate::render::Printer;
use crate::wiring::Wiring;

/// Time in which the other process is expected to have gone back: its undo may wait for a health check of minutes.
const PATIENCE: Duration = Duration::from_secs(600);
/// Time between two looks at its journal.
const LOOK: Duration = Duration::from_millis(200);

/// Aborts.
///
/// # Errors
///
/// [`CliError`]
pub(crate) async fn run(wiring: &Wiring, printer: &Printer) -> Result<Exit, CliError> {
    let project = wiring.project_name()?;
    let history = wiring.history(&project)?;
    let Some(open) = history.open() else {
        printer.note("nothing to abort: no plan is open");
        let reality = reality::ask(wiring, &project, &history).await.unwrap_or_default();
        return Ok(printer.nothing_to_do(&history, &reality));
    };
    let plan = open.plan.id;
    let kaleem = wiring.kaleem_with("abort", wiring.sets_for_open_plan().await).await?;
    let root = wiring.state(&project).root().to_owned();
    if lease::is_held(&root) {
        return ask(wiring, printer, &kaleem, &project, plan).await;
    }
    let work = kaleem.work(&project).await.map_err(|source| CliError::Kaleem { source })?;
    let Some(plan) = work.interrupted().cloned() else {
        let reality = reality::ask(wiring, &project, work.history()).await.unwrap_or_default();
        return Ok(printer.nothing_to_do(work.history(), &reality));
    };
    printer.note(&format!("rolling back plan {} ({} to {})", plan.id, plan.kind, plan.release.id));
    let run = kaleem.abort(work).map_err(|source| CliError::Kaleem { source })?;
    Ok(carry_out(wiring, printer, &project, &plan, run).await?.exit)
}

async fn ask(wiring: &Wiring, printer: &Printer, kaleem: &Kaleem, project: &ProjectName, plan: PlanId) -> Result<Exit, CliError> {
    kaleem.request_abort(project).map_err(|source| CliError::Kaleem { source })?;
    let root = wiring.state(project).root().to_owned();
    match lease::holder(&root) {
        Some(holder) => printer.note(&format!("asked {} (process {} on {}) to roll back", holder.owner, holder.pid, holder.host)),
        None => printer.note("asked the process that works on it to roll back"),
    }
    let watch = Stopwatch::start(wiring.clock());
    while watch.took() < PATIENCE {
        let history = wiring.history(project)?;
        let entry = history.entries().iter().find(|entry| entry.plan.id == plan);
        if let Some((entry, outcome)) = entry.and_then(|entry| Some((entry, entry.outcome.clone()?))) {
            let reality = reality::ask(wiring, project, &history).await.unwrap_or_default();
            return Ok(printer.ending(&entry.plan, &Ending::Over(outcome), Some(&history), &reality, watch.took()));
        }
        if !lease::is_held(&root) {
            break;
        }
        wiring.clock().sleep(LOOK).await;
    }
    Err(CliError::AbortNotTaken { plan })
}

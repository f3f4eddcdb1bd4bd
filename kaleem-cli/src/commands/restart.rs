//! `kaleem restart`: fresh containers of the release that is live.

use crate::arguments::Restart;
use crate::commands::carry_out::carry_out;
use crate::commands::deploy::{LeftOpen, Ready, ready};
use crate::error::CliError;
use crate::exit::Exit;
use crate::render::Printer;
use crate::render::plan::{Detail, PlanView};
use crate::wiring::Wiring;

/// Restarts, or shows what that would do.
///
/// # Errors
///
/// [`CliError`]
pub(crate) async fn run(arguments: &Restart, wiring: &Wiring, printer: &Printer) -> Result<Exit, CliError> {
    let project = wiring.project_name()?;
    let kaleem = wiring.kaleem_to_finish("restart", &project, None).await?;
    let left_open = if arguments.plan { LeftOpen::Stays } else { LeftOpen::FinishedFirst };
    let work = match ready(wiring, printer, &kaleem, &project, left_open).await? {
        Ready::Work(work) => work,
        Ready::Ended(exit) => return Ok(exit),
    };
    let planned = kaleem.restart_plan(&work, &arguments.services).await.map_err(|source| CliError::Kaleem { source })?;
    let view = PlanView { plan: &planned.plan, notes: &planned.notes, warnings: &[], history: work.history() };
    let detail = if arguments.plan { Detail::Steps } else { Detail::Short };
    let show = |line: &String| if arguments.plan { printer.result(line) } else { printer.note(line) };
    view.lines(detail).iter().for_each(show);
    printer.json(&view.json());
    if arguments.plan {
        return Ok(if planned.plan.refusals().next().is_some() { Exit::Refused } else { Exit::Done });
    }
    printer.note("");
    let run = kaleem.start(work, &planned).map_err(|source| CliError::Kaleem { source })?;
    Ok(carry_out(wiring, printer, &project, &planned.plan, run).await?.exit)
}

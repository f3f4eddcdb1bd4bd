//! `kaleem rollback`: the same path as a deploy, to a release that served before.

use crate::arguments::Rollback;
use crate::commands::carry_out::carry_out;
use crate::commands::deploy::{Ready, ready};
use crate::error::CliError;
use crate::exit::Exit;
use crate::render::Printer;
use crate::render::plan::{Detail, PlanView};
use crate::wiring::Wiring;

/// Goes back.
///
/// # Errors
///
/// [`CliError`]
pub(crate) async fn run(arguments: &Rollback, wiring: &Wiring, printer: &Printer) -> Result<Exit, CliError> {
    let project = wiring.project_name()?;
    let kaleem = wiring.kaleem("rollback").await?;
    let work = match ready(wiring, printer, &kaleem, &project).await? {
        Ready::Work(work) => work,
        Ready::Ended(exit) => return Ok(exit),
    };
    let planned = kaleem.rollback_plan(&work, arguments.release).await.map_err(|source| CliError::Kaleem { source })?;
    let view = PlanView { plan: &planned.plan, notes: &planned.notes, warnings: &[], history: work.history() };
    view.lines(Detail::Short).iter().for_each(|line| printer.note(line));
    printer.json(&view.json());
    if planned.plan.is_empty() {
        return Ok(printer.nothing_to_do(work.history()));
    }
    printer.note("");
    let run = kaleem.start(work, &planned).map_err(|source| CliError::Kaleem { source })?;
    Ok(carry_out(wiring, printer, &project, &planned.plan, run).await?.exit)
}

//! `kaleem rollback`: the same path as a deploy, to a release that served before.

use std::sync::Arc;

use kaleem_core::backup::BackupSets;

use crate::arguments::Rollback;
use crate::commands::carry_out::carry_out;
use crate::commands::deploy::{LeftOpen, Ready, ready};
use crate::commands::reality;
use crate::error::CliError;
use crate::exit::Exit;
use crate::render::Printer;
use crate::render::plan::{Detail, PlanView};
use crate::wiring::{BackupWish, Wiring};

mod loss;

/// Goes back.
///
/// # Errors
///
/// [`CliError`]
pub(crate) async fn run(arguments: &Rollback, wiring: &Wiring, printer: &Printer) -> Result<Exit, CliError> {
    let project = wiring.project_name()?;
    let set_up = if arguments.with_data {
        let wish = BackupWish { key_file: arguments.key_file.clone(), unencrypted: false };
        let set_up = wiring.backups(&wiring.project()?, &wish, "rollback").await?;
        set_up.notes.iter().for_each(|note| printer.warning(note, None));
        Some(Arc::new(set_up.backups))
    } else {
        None
    };
    let sets = set_up.clone().map(|backups| -> Arc<dyn BackupSets> { backups });
    let kaleem = wiring.kaleem_to_finish("rollback", &project, sets).await?;
    let left_open = if arguments.plan { LeftOpen::Stays } else { LeftOpen::FinishedFirst };
    let work = match ready(wiring, printer, &kaleem, &project, left_open).await? {
        Ready::Work(work) => work,
        Ready::Ended(exit) => return Ok(exit),
    };
    let planned = match &set_up {
        Some(_) => kaleem.rollback_plan_with_data(&work, arguments.release).await,
        None => kaleem.rollback_plan(&work, arguments.release).await,
    };
    let planned = planned.map_err(|source| CliError::Kaleem { source })?;
    let view = PlanView { plan: &planned.plan, notes: &planned.notes, warnings: &[], history: work.history() };
    let detail = if arguments.plan { Detail::Steps } else { Detail::Short };
    let show = |line: &String| if arguments.plan { printer.result(line) } else { printer.note(line) };
    view.lines(detail).iter().for_each(show);
    printer.json(&view.json());
    if planned.plan.is_empty() {
        let reality = reality::ask(wiring, &project, work.history()).await?;
        return Ok(printer.nothing_to_do(work.history(), &reality));
    }
    if arguments.plan {
        return Ok(if planned.plan.refusals().next().is_some() { Exit::Refused } else { Exit::Done });
    }
    if let Some(backups) = &set_up {
        loss::agree(&planned.plan, backups, arguments.yes, wiring, printer).await?;
    }
    printer.note("");
    let run = kaleem.start(work, &planned).map_err(|source| CliError::Kaleem { source })?;
    Ok(carry_out(wiring, printer, &project, &planned.plan, run).await?.exit)
}

//! `kaleem down`: everything of the project is stopped and removed, gateways and networks included. Data stays, unless a person says otherwise.

use std::io::BufRead as _;

use kaleem_core::kaleem::leaving::RemoveVolumes;
use kaleem_core::names::ProjectName;
use kaleem_core::plan::{Plan, Step};

use crate::arguments::Down;
use crate::commands::carry_out::carry_out;
use crate::commands::deploy::{LeftOpen, Ready, ready};
use crate::error::CliError;
use crate::exit::Exit;
use crate::render::Printer;
use crate::render::plan::{Detail, PlanView};
use crate::wiring::Wiring;

/// Takes the project down, or shows what that would do.
///
/// # Errors
///
/// [`CliError::NotAgreed`] where the data was to go and nobody agreed; the other variants.
pub(crate) async fn run(arguments: &Down, wiring: &Wiring, printer: &Printer) -> Result<Exit, CliError> {
    let project = wiring.project_name()?;
    let kaleem = wiring.kaleem_to_finish("down", &project, None).await?;
    let left_open = if arguments.plan { LeftOpen::Stays } else { LeftOpen::FinishedFirst };
    let work = match ready(wiring, printer, &kaleem, &project, left_open).await? {
        Ready::Work(work) => work,
        Ready::Ended(exit) => return Ok(exit),
    };
    let volumes = if arguments.volumes { RemoveVolumes::Yes } else { RemoveVolumes::No };
    let planned = kaleem.down_plan(&work, volumes).await.map_err(|source| CliError::Kaleem { source })?;
    let notes = Default::default();
    let view = PlanView { plan: &planned.plan, notes: &notes, warnings: &[], history: work.history() };
    let detail = if arguments.plan { Detail::Steps } else { Detail::Short };
    let show = |line: &String| if arguments.plan { printer.result(line) } else { printer.note(line) };
    view.lines(detail).iter().for_each(show);
    printer.json(&view.json());
    if arguments.plan {
        return Ok(Exit::Done);
    }
    confirm(arguments, printer, &project, &planned.plan)?;
    printer.note("");
    let run = kaleem.start(work, &planned).map_err(|source| CliError::Kaleem { source })?;
    Ok(carry_out(wiring, printer, &project, &planned.plan, run).await?.exit)
}

/// Asks for the project's name before data is removed for good.
fn confirm(arguments: &Down, printer: &Printer, project: &ProjectName, plan: &Plan) -> Result<(), CliError> {
    let volume = |step: &Step| if let Step::RemoveVolume { volume } = step { Some(volume.to_string()) } else { None };
    let volumes: Vec<String> = plan.steps.iter().filter_map(volume).collect();
    if volumes.is_empty() || arguments.yes {
        return Ok(());
    }
    printer.warning(&format!("this removes data for good: {}", volumes.join(", ")), Some("type the name of the project to go on"));
    let mut typed = String::new();
    // Whoever cannot be read from has not confirmed.
    std::io::stdin().lock().read_line(&mut typed).ok();
    if typed.trim() == project.as_str() { Ok(()) } else { Err(CliError::NotAgreed) }
}

//! `kaleem deploy`: finish what was interrupted, plan, carry out, say what serves.

use kaleem_core::engine::Ending;
use kaleem_core::journal::Next;
use kaleem_core::kaleem::{Kaleem, Planned, Work};
use kaleem_core::names::ProjectName;
use kaleem_core::plan::Objection;

use crate::arguments::Deploy;
use crate::commands::carry_out::carry_out;
use crate::commands::{image_build, open_plan, patiently, plan, reality};
use crate::error::CliError;
use crate::exit::Exit;
use crate::render::Printer;
use crate::render::ask::Said;
use crate::render::plan::{Detail, PlanView};
use crate::wiring::Wiring;

/// Deploys.
///
/// # Errors
///
/// [`CliError`]
pub(crate) async fn run(arguments: &Deploy, wiring: &Wiring, printer: &Printer) -> Result<Exit, CliError> {
    let mut project = wiring.project()?;
    let sets = wiring.sets_for_plans(&project).await?;
    let kaleem = wiring.kaleem_to_finish("deploy", &project.name, sets).await?;
    if arguments.no_backup {
        project.settings.backup.when = None;
        project.settings.services.values_mut().for_each(|settings| settings.backup = None);
    }
    let work = match ready(wiring, printer, &kaleem, &project.name, LeftOpen::FinishedFirst).await? {
        Ready::Work(work) => work,
        Ready::Ended(exit) => return Ok(exit),
    };
    let images = plan::images(&arguments.images);
    if let Some(only) = &arguments.build {
        image_build::run(&project, only, &images, wiring, printer).await?;
    }
    let wishes = plan::wishes(&arguments.wishes);
    let planning = kaleem.deploy_plan_with(&work, &project, &images, &wishes);
    let mut planned = patiently(wiring, printer, planning).await.map_err(|source| CliError::Kaleem { source })?;
    plan::agree(&arguments.wishes, &mut planned);
    planned.plan.note.clone_from(&arguments.note);
    let view = PlanView { plan: &planned.plan, notes: &planned.notes, warnings: &project.warnings, history: work.history() };
    view.lines(Detail::Short).iter().for_each(|line| printer.note(line));
    printer.json(&view.json());
    if planned.plan.is_empty() {
        let reality = reality::ask(wiring, &project.name, work.history()).await?;
        return Ok(printer.nothing_to_do(work.history(), &reality));
    }
    confirm(arguments, printer, &mut planned)?;
    printer.note("");
    let run = kaleem.start(work, &planned).map_err(|source| CliError::Kaleem { source })?;
    Ok(carry_out(wiring, printer, &project.name, &planned.plan, run).await?.exit)
}

/// Asks about what nobody said: an image that goes back, a service that would be stopped. Where nobody can be asked, the plan stays refused.
fn confirm(arguments: &Deploy, printer: &Printer, planned: &mut Planned) -> Result<(), CliError> {
    let asks: Vec<Objection> = planned.asks().into_iter().cloned().collect();
    // What is refused anyway needs no answer.
    let only_asks = planned.plan.refusals().count() == asks.len();
    if asks.is_empty() || !only_asks || arguments.yes || !printer.can_ask() {
        return Ok(());
    }
    printer.note("");
    for ask in &asks {
        printer.warning(&ask.message, Some(&ask.remedy));
    }
    match printer.ask("deploy all the same?") {
        Said::Yes => {
            asks.iter().for_each(|ask| planned.agree(&ask.rule));
            Ok(())
        }
        Said::No => Err(CliError::NotAgreed),
    }
}

/// Whether work may begin.
#[expect(clippy::large_enum_variant, reason = "there is one, and it is taken apart where it is made")]
pub(crate) enum Ready {
    /// It may.
    Work(Work),
    /// Finishing what was interrupted did not come to an end that new work could stand on.
    Ended(Exit),
}

/// What becomes of a plan that an earlier process left open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeftOpen {
    /// It is finished, and something new comes after it.
    FinishedFirst,
    /// It stays as it is, because nothing is to be touched: nothing new can be planned either.
    Stays,
}

/// Takes the right to change the project, and finishes what an earlier process left open.
///
/// # Errors
///
/// [`CliError::Stuck`] for a plan that a person must look at first; [`CliError::Kaleem`], [`CliError::Run`].
pub(crate) async fn ready(
    wiring: &Wiring,
    printer: &Printer,
    kaleem: &Kaleem,
    project: &ProjectName,
    left_open: LeftOpen,
) -> Result<Ready, CliError> {
    let notice = open_plan(wiring, project, &wiring.history(project)?);
    let work = kaleem.work(project).await.map_err(|source| CliError::Kaleem { source })?;
    let Some(entry) = work.history().open() else { return Ok(Ready::Work(work)) };
    if let Some((text, help)) = notice {
        let stuck = matches!(entry.progress.next(), Next::Stuck { .. });
        printer.warning(&text, stuck.then_some(help));
    }
    if left_open == LeftOpen::Stays {
        return Ok(Ready::Work(work));
    }
    let plan = entry.plan.clone();
    if let Next::Stuck { step, .. } = entry.progress.next() {
        return Err(CliError::Stuck { plan: plan.id, step: step + 1 });
    }
    printer.note("finishing it first");
    let run = kaleem.resume(work).map_err(|source| CliError::Kaleem { source })?;
    let carried = carry_out(wiring, printer, project, &plan, run).await?;
    match carried.ending {
        Ending::Over(_) => {
            let work = kaleem.work(project).await.map_err(|source| CliError::Kaleem { source })?;
            Ok(Ready::Work(work))
        }
        Ending::Left | Ending::Stuck { .. } => Ok(Ready::Ended(carried.exit)),
    }
}

//! `kaleem adopt`: takes a project over from another user, state directory or project directory, as it runs.

use kaleem_core::kaleem::owning::{Claim, GatewaysFound};
use kaleem_core::observed::owner::Standing;

use crate::arguments::Adopt;
use crate::commands::carry_out::carry_out;
use crate::commands::reality;
use crate::error::CliError;
use crate::exit::Exit;
use crate::render::Printer;
use crate::render::plan::{Detail, PlanView};
use crate::wiring::Wiring;

/// Adopts.
///
/// # Errors
///
/// [`CliError`]
pub(crate) async fn run(arguments: &Adopt, wiring: &Wiring, printer: &Printer) -> Result<Exit, CliError> {
    let failed = |source| CliError::Kaleem { source };
    let project = wiring.project()?;
    let mut kaleem = wiring.kaleem("adopt").await?;
    let ownership = kaleem.ownership(&project.name).await.map_err(failed)?;
    if let Standing::Foreign(foreign) = &ownership.standing {
        printer.note(&foreign.message());
    }
    let claim = if arguments.take_lock { Claim::AdoptAndTakeLock } else { Claim::Adopt };
    let work = kaleem.adopt(&project.name, claim).await.map_err(failed)?;
    match kaleem.adopt_gateways(&work, &project.name).await.map_err(failed)? {
        GatewaysFound::Here => {}
        GatewaysFound::Elsewhere { directory } => {
            printer.note(&format!("its gateways stay where they are, and are steered below {}", directory.display()));
            kaleem = wiring.kaleem("adopt").await?;
        }
        GatewaysFound::OutOfReach { directory } => {
            let text = format!("this user cannot reach the gateways of the project, which are steered below {}", directory.display());
            printer.warning(&text, Some("the next deploy replaces them: connections are refused for a moment, once"));
        }
    }
    let Some(planned) = kaleem.adopt_plan(&work, &project).await.map_err(failed)? else {
        printer.note(&format!("{} is deployed from {} now", project.name, project.directory.display()));
        let reality = reality::ask(wiring, &project.name, work.history()).await?;
        return Ok(printer.nothing_to_do(work.history(), &reality));
    };
    let view = PlanView { plan: &planned.plan, notes: &planned.notes, warnings: &project.warnings, history: work.history() };
    view.lines(Detail::Short).iter().for_each(|line| printer.note(line));
    printer.json(&view.json());
    printer.note("");
    let run = kaleem.start(work, &planned).map_err(failed)?;
    Ok(carry_out(wiring, printer, &project.name, &planned.plan, run).await?.exit)
}

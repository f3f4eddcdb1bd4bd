//! `kaleem plan`: what a deploy would do. Nothing is touched, not even the state directory.

use std::collections::BTreeMap;

use kaleem_core::image::ImageRef;
use kaleem_core::kaleem::Planned;
use kaleem_core::names::ServiceName;
use kaleem_core::plan::older;

use crate::arguments::{ImageChoice, PlanArguments, Wishes};
use crate::commands::patiently;
use crate::error::CliError;
use crate::exit::Exit;
use crate::render::Printer;
use crate::render::plan::{Detail, PlanView};
use crate::wiring::Wiring;

/// Plans and shows. Exits with [`Exit::Refused`] when a deploy would be refused.
///
/// # Errors
///
/// [`CliError`]
pub(crate) async fn run(arguments: &PlanArguments, wiring: &Wiring, printer: &Printer) -> Result<Exit, CliError> {
    let project = wiring.project()?;
    let kaleem = wiring.kaleem("plan").await?;
    let images = images(&arguments.images);
    let wishes = wishes(&arguments.wishes);
    let planning = kaleem.plan_deploy_with(&project, &images, &wishes);
    let mut planned = patiently(wiring, printer, planning).await.map_err(|source| CliError::Kaleem { source })?;
    agree(&arguments.wishes, &mut planned);
    let history = wiring.history(&project.name)?;
    let view = PlanView { plan: &planned.plan, notes: &planned.notes, warnings: &project.warnings, history: &history };
    let detail = if arguments.steps { Detail::Steps } else { Detail::Full };
    view.lines(detail).iter().for_each(|line| printer.result(line));
    printer.json(&view.json());
    Ok(if planned.plan.refusals().next().is_some() { Exit::Refused } else { Exit::Done })
}

/// The images of the command line, the last one of a service counting.
pub(crate) fn images(choices: &[ImageChoice]) -> BTreeMap<ServiceName, ImageRef> {
    choices.iter().map(|choice| (choice.service.clone(), choice.image.clone())).collect()
}

/// What was typed beside the images.
pub(super) fn wishes(arguments: &Wishes) -> kaleem_core::kaleem::Wishes {
    kaleem_core::kaleem::Wishes {
        only: arguments.only.iter().cloned().collect(),
        scale: arguments.scale.iter().map(|scale| (scale.service.clone(), scale.replicas)).collect(),
        recreate: arguments.recreate.iter().cloned().collect(),
    }
}

/// Agrees to what flags allow.
pub(super) fn agree(arguments: &Wishes, planned: &mut Planned) {
    if arguments.allow_older {
        planned.agree(older::GOES_BACK);
    }
    if arguments.remove_orphans {
        planned.agree(older::SERVICE_GONE);
    }
}

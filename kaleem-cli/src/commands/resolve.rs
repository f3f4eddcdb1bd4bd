//! `kaleem resolve`: a person says what serves after a plan got stuck. The host is not touched.

use std::time::Duration;

use kaleem_core::engine::Ending;
use kaleem_core::outcome::{Outcome, Resolution};

use crate::arguments::Resolve;
use crate::commands::reality::{self, Reality};
use crate::error::CliError;
use crate::exit::Exit;
use crate::render::Printer;
use crate::wiring::Wiring;

/// Settles.
///
/// # Errors
///
/// [`CliError`]; `NotStuck` for a plan that was only interrupted.
pub(crate) async fn run(arguments: &Resolve, wiring: &Wiring, printer: &Printer) -> Result<Exit, CliError> {
    let project = wiring.project_name()?;
    if wiring.history(&project)?.open().is_none() {
        return Err(CliError::NothingOpen);
    }
    let kaleem = wiring.kaleem("resolve").await?;
    let work = kaleem.work(&project).await.map_err(|source| CliError::Kaleem { source })?;
    let plan = work.interrupted().cloned().ok_or(CliError::NothingOpen)?;
    let resolution = if arguments.new { Resolution::New } else { Resolution::Old };
    let by = wiring.environment().user();
    let serving = kaleem.resolve(&work, &by, resolution).map_err(|source| CliError::Kaleem { source })?;
    drop(work);
    let ending = Ending::Over(Outcome::Resolved { by, resolution, serving });
    let history = wiring.history(&project).ok();
    let reality = match &history {
        Some(history) => reality::ask(wiring, &project, history).await.unwrap_or_default(),
        None => Reality::default(),
    };
    Ok(printer.ending(&plan, &ending, history.as_ref(), &reality, Duration::ZERO))
}

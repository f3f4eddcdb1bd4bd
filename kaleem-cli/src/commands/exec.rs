//! `kaleem exec`: a command in a running container of what serves. Its exit code is passed on.

use kaleem_core::runtime::InstanceStatus;

use crate::arguments::Exec;
use crate::commands::status;
use crate::error::CliError;
use crate::exit::Exit;
use crate::render::Printer;
use crate::wiring::Wiring;

/// Runs it.
///
/// # Errors
///
/// [`CliError::NotRunning`], [`CliError::Engine`]
pub(crate) async fn run(arguments: &Exec, wiring: &Wiring, printer: &Printer) -> Result<Exit, CliError> {
    let project = wiring.project_name()?;
    let runtime = wiring.runtime().await?;
    let instances = runtime.list(&project).await.map_err(|source| CliError::Engine { source })?;
    let serving = status::serving_first(&wiring.history(&project)?, instances);
    let found = serving.iter().find(|instance| instance.service == arguments.service && instance.state.status == InstanceStatus::Running);
    let instance = found.ok_or_else(|| CliError::NotRunning { service: arguments.service.clone() })?;
    let ran = runtime.exec(&instance.name, &arguments.command, arguments.timeout.0).await;
    let ran = ran.map_err(|source| CliError::Engine { source })?;
    printer.raw(&ran.output);
    // A signal shows as 128 and its number already; anything beyond a byte cannot be an exit code.
    Ok(Exit::OfCommand(u8::try_from(ran.exit_code).unwrap_or(u8::MAX)))
}

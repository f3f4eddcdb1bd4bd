//! What of the live release does not serve: asked of the engine and of the gateways before anything is claimed.

use kaleem_core::definition::DefinitionId;
use kaleem_core::history::History;
use kaleem_core::names::{ProjectName, ServiceName};
use kaleem_core::repair::Damage;
use kaleem_core::repair::host::Host;
use kaleem_core::runtime::InstanceStatus;
use serde_json::{Value, json};

use crate::error::CliError;
use crate::render::Printer;
use crate::render::style::{BAD, HELP, WARN, paint};
use crate::wiring::Wiring;

/// What was seen beside the journals.
#[derive(Default)]
pub(crate) struct Reality {
    /// What of the live release does not serve.
    pub faults: Vec<Damage>,
    /// What is to be known of it, and was so before kaleem came.
    pub warnings: Vec<Damage>,
    /// Whether containers run that kaleem did not make.
    pub has_others: bool,
}

/// Asks. Nothing is said while a plan is open.
///
/// # Errors
///
/// [`CliError::Engine`] when the engine cannot be asked.
pub(crate) async fn ask(wiring: &Wiring, project: &ProjectName, history: &History) -> Result<Reality, CliError> {
    let runtime = wiring.runtime().await?;
    let traffic = wiring.traffic();
    let state = wiring.state(project);
    let key = state.key_or_ephemeral().ok();
    let find = |id: &DefinitionId| key.as_ref().and_then(|key| state.definition(key, id).ok());
    // What it says now counts. Where the files cannot be read, what the release says does.
    let settings = wiring.project().map(|project| project.settings).unwrap_or_default();
    let decides = |service: &ServiceName| settings.decides_health(service);
    let host = Host { runtime: &runtime, traffic: Some(&traffic), find: &find, history, project, decides: &decides };
    let all = runtime.list(project).await.map_err(|source| CliError::Engine { source })?;
    let (warnings, faults) = host.look_at_serving(&all).await.into_iter().partition(Damage::is_warning);
    let others = |instance: &kaleem_core::runtime::Instance| instance.release.is_none() && instance.state.status == InstanceStatus::Running;
    Ok(Reality { faults, warnings, has_others: all.iter().any(others) })
}

/// Says what does not serve and what is to be known, each with what to do.
pub(crate) fn show(printer: &Printer, reality: &Reality) {
    let faults = reality.faults.iter().map(|fault| (fault, "down:", BAD));
    for (found, label, style) in faults.chain(reality.warnings.iter().map(|warning| (warning, "warning:", WARN))) {
        printer.result(&format!("{} {}", paint(style, label), found.message));
        for command in found.repair.commands() {
            printer.result(&format!("  {} {command}", paint(HELP, "help:")));
        }
        printer.json(&object(found));
    }
}

/// The same for programs.
fn object(fault: &Damage) -> Value {
    json!({
        "type": if fault.is_warning() { "warning" } else { "fault" },
        "rule": fault.kind,
        "service": fault.service.as_ref().map(ServiceName::as_str),
        "message": fault.message,
        "help": fault.repair.commands(),
    })
}

/// What is added to a line that says which release serves; nothing where all of it does.
pub(crate) fn doubt(faults: &[Damage]) -> String {
    let mut names: Vec<&str> = faults.iter().filter_map(|fault| fault.service.as_ref()).map(ServiceName::as_str).collect();
    names.dedup();
    if faults.is_empty() { String::new() } else { format!("; NOT serving as it should: {}", names.join(", ")) }
}

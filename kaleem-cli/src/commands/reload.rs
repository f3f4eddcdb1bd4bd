//! `kaleem reload`: a web server reads its configuration again and goes on running.

use kaleem_core::kaleem::restart::Reloaded;
use serde_json::json;

use crate::arguments::Reload;
use crate::error::CliError;
use crate::exit::Exit;
use crate::render::Printer;
use crate::wiring::Wiring;

/// Reloads.
///
/// # Errors
///
/// [`CliError::NotRunning`], [`CliError::Kaleem`]
pub(crate) async fn run(arguments: &Reload, wiring: &Wiring, printer: &Printer) -> Result<Exit, CliError> {
    let project = wiring.project_name()?;
    let kaleem = wiring.kaleem("reload").await?;
    let mut exit = Exit::Done;
    for service in &arguments.services {
        let reloaded = kaleem.reload(&project, service).await.map_err(|source| CliError::Kaleem { source })?;
        if reloaded.is_empty() {
            return Err(CliError::NotRunning { service: service.clone() });
        }
        for (container, outcome) in reloaded {
            let (word, text, help) = match outcome {
                Reloaded::Done => ("reloaded", format!("{container} reads its configuration again"), None),
                Reloaded::Refused(output) => {
                    let help = format!("correct the configuration, then run `kaleem reload {service}` again");
                    ("refused", format!("{container} refuses its configuration and keeps the old one: {output}"), Some(help))
                }
                Reloaded::Unknown => {
                    let help = format!("restart it behind its gateway: `kaleem restart {service}`");
                    ("unknown", format!("{container} runs no nginx, and kaleem knows no other server that reloads"), Some(help))
                }
            };
            printer.json(&json!({ "type": "reload", "service": service.as_str(), "container": container.as_str(), "outcome": word }));
            match help {
                None => printer.result(&text),
                Some(help) => {
                    printer.warning(&text, Some(&help));
                    exit = Exit::Refused;
                }
            }
        }
    }
    Ok(exit)
}

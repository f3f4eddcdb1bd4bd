//! `kaleem init`: writes down what kaleem would decide by itself, each with its reason, so that a person can change it.

use std::fmt::Write as _;
use std::sync::Arc;

use kaleem_core::config::settings::ServiceSettings;
use kaleem_core::config::{Project, Service, settings_schema};
use kaleem_core::durable::{self, DurableError};
use kaleem_core::health::Question;
use kaleem_core::kaleem::Kaleem;
use kaleem_core::names::ServiceName;
use kaleem_core::observed::image_reference;
use kaleem_core::plan::strategy::{self, Gateways};
use kaleem_core::plan::target::run_to_end;
use kaleem_core::release::Strategy;
use kaleem_core::runtime::{ImageFacts, Runtime};

use crate::arguments::Init;
use crate::error::CliError;
use crate::exit::Exit;
use crate::render::Printer;
use crate::wiring::Wiring;

mod probes;

/// Mode of the file: it holds nothing secret, and others read it from the repository.
const MODE: u32 = 0o644;

/// Writes it, or the schema.
///
/// # Errors
///
/// [`CliError::Exists`], [`CliError::Config`], [`CliError::Write`]
pub(crate) async fn run(arguments: &Init, wiring: &Wiring, printer: &Printer) -> Result<Exit, CliError> {
    if arguments.schema {
        printer.raw(&format!("{:#}\n", settings_schema()));
        return Ok(Exit::Done);
    }
    let project = wiring.project()?;
    let path = wiring.settings_path(&project);
    if !arguments.print && !arguments.force && path.exists() {
        return Err(CliError::Exists { path });
    }
    // Without an engine the files alone must do.
    let kaleem = wiring.kaleem("init").await.ok();
    let gateways = if kaleem.as_ref().is_some_and(Kaleem::has_gateways) { Gateways::Available } else { Gateways::Missing };
    let text = text(&project, kaleem.as_ref().map(Kaleem::runtime), gateways).await;
    if arguments.print {
        printer.raw(&text);
        return Ok(Exit::Done);
    }
    let written = if arguments.force { durable::write_atomic(&path, text.as_bytes(), MODE) } else { write_new(&path, &text) };
    written.map_err(|source| CliError::Write { path: path.clone(), source })?;
    printer.result(&format!("wrote {}", path.display()));
    printer.json(&serde_json::json!({ "type": "wrote", "path": path }));
    Ok(Exit::Done)
}

fn write_new(path: &std::path::Path, text: &str) -> Result<(), DurableError> {
    match durable::read(path) {
        Ok(_) => Err(DurableError::Exists { path: path.to_owned() }),
        Err(error) if error.is_missing() => durable::write_atomic(path, text.as_bytes(), MODE),
        Err(error) => Err(error),
    }
}

async fn text(project: &Project, runtime: Option<&Arc<dyn Runtime>>, gateways: Gateways) -> String {
    let mut text = "\
# What the compose file cannot say. Every key is optional: what stands here is what kaleem decides by itself,
# with the reason, so that you can change it. All keys: `kaleem init --schema`.

# How many releases are kept to go back to.
"
    .to_owned();
    line(&mut text, &format!("keep = {}", project.settings.keep.unwrap_or(5)));
    let run_to_end = run_to_end(project);
    for service in project.services.values() {
        let (facts, known) = facts(project, service, runtime).await;
        write_service(&mut text, project, service, &facts, run_to_end.contains(&service.name), gateways);
        if !known {
            line(&mut text, "# Its image is not on this engine: what the image itself says was not looked at.");
        }
    }
    probes::write(&mut text, project);
    text
}

async fn facts(project: &Project, service: &Service, runtime: Option<&Arc<dyn Runtime>>) -> (ImageFacts, bool) {
    let (Some(runtime), Ok(image)) = (runtime, image_reference(&project.name, service, None)) else {
        return (ImageFacts::default(), false);
    };
    match runtime.image(&image.to_string()).await {
        Ok(Some(local)) => (local.facts, true),
        Ok(None) | Err(_) => (ImageFacts::default(), false),
    }
}

fn write_service(text: &mut String, project: &Project, service: &Service, facts: &ImageFacts, run_to_end: bool, gateways: Gateways) {
    let name = &service.name;
    let settings = project.settings.services.get(name).cloned().unwrap_or_default();
    // The reason is that of kaleem, not that the file said so before.
    let asked = ServiceSettings { strategy: None, ..settings.clone() };
    let Ok(image) = image_reference(&project.name, service, None) else { return };
    let (decided, reason) = strategy::decide(service, &image, facts, run_to_end, &asked, gateways);
    line(text, "");
    if decided == Strategy::RunToEnd {
        line(text, &format!("# {name} runs to its end: {reason}. There is nothing to choose."));
        return;
    }
    line(text, &format!("# {name}: {reason}."));
    line(text, &format!("[services.{}]", key(name)));
    line(text, &format!("strategy = \"{decided}\""));
    if decided == Strategy::Overlap {
        line(text, "# singleton = true   # when two of it must never run at the same time");
    }
    if let Some(needs) = &settings.needs {
        line(text, &format!("needs = {needs:?}"));
    } else {
        let needs: Vec<String> = strategy::needs(project, service, &settings).iter().map(ToString::to_string).collect();
        if !needs.is_empty() {
            line(text, &format!("# needs = {needs:?}   # it is not replaced while one of them is ill; written down, all must answer"));
        }
    }
    let gate = strategy::gate(service, facts, settings.health.as_ref());
    line(text, "");
    let health = format!("[services.{}.health]", key(name));
    let (why, keys) = match &gate.question {
        Question::Healthcheck => ("its own health check is asked".to_owned(), Vec::new()),
        Question::Running => (
            format!(
                "nothing can be asked, so it counts as healthy after {} s without a crash; better: http = \"/health\"",
                gate.steady.as_secs()
            ),
            Vec::new(),
        ),
        Question::Tcp { port } => {
            (format!("it publishes port {port}, which must accept connections; better: http = \"/health\""), vec![format!("tcp = {port}")])
        }
        Question::Http { port, path, .. } => {
            ("it is asked over HTTP".to_owned(), vec![format!("http = {path:?}"), format!("port = {port}")])
        }
        Question::Command { command } => ("a command is run in it".to_owned(), vec![format!("command = {command:?}")]),
    };
    line(text, &format!("# {name}: {why}."));
    line(text, &health);
    keys.iter().for_each(|key| line(text, key));
    line(text, &format!("deadline = \"{}s\"", gate.deadline.as_secs()));
}

/// A service name as a TOML key: dots part keys where they are not quoted.
fn key(name: &ServiceName) -> String {
    if name.as_str().contains('.') { format!("\"{name}\"") } else { name.to_string() }
}

fn line(text: &mut String, line: &str) {
    // Writing to a string cannot fail.
    writeln!(text, "{line}").ok();
}

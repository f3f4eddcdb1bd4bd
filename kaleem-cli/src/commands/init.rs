//! `kaleem init`: writes down what kaleem would decide by itself, each with its reason, so that a person can change it.

use std::fmt::Write as _;
use std::sync::Arc;

use kaleem_core::config::healthcheck::asked_over_http;
use kaleem_core::config::settings::ServiceSettings;
use kaleem_core::config::{Project, Service, settings_schema};
use kaleem_core::durable::{self, DurableError};
use kaleem_core::health::Question;
use kaleem_core::kaleem::Kaleem;
use kaleem_core::names::ServiceName;
use kaleem_core::observed::image_reference;
use kaleem_core::plan::strategy::{self, Gateways};
use kaleem_core::release::Strategy;
use kaleem_core::remedy::one_line;
use kaleem_core::runtime::{ImageFacts, Runtime};

use crate::arguments::Init;
use crate::error::CliError;
use crate::exit::Exit;
use crate::render::Printer;
use crate::wiring::Wiring;

mod doors;
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
    // Without an engine the files alone must do, and what they do not tell is not written.
    let kaleem = match wiring.kaleem("init").await {
        Ok(kaleem) => Ok(kaleem),
        Err(error) => Err(one_line(&error)),
    };
    if let Err(reason) = &kaleem {
        printer.note(&format!("warning: {reason}"));
        printer.note("  help: run `kaleem init --force` as a user who may use Docker: without it, no strategy is written");
    }
    let gateways = if kaleem.as_ref().is_ok_and(Kaleem::has_gateways) { Gateways::Available } else { Gateways::Missing };
    let text = text(&project, kaleem.as_ref(), gateways).await;
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

async fn text(project: &Project, kaleem: Result<&Kaleem, &String>, gateways: Gateways) -> String {
    let runtime = kaleem.map(Kaleem::runtime);
    let mut text = "\
# What the compose file cannot say. Every key is optional: what stands here is what kaleem decides by itself,
# with the reason, so that you can change it. All keys: `kaleem init --schema`.

# How many releases are kept to go back to.
"
    .to_owned();
    line(&mut text, &format!("keep = {}", project.settings.keep.unwrap_or(5)));
    if let Err(reason) = runtime {
        line(&mut text, "");
        line(&mut text, &format!("# The container engine could not be asked ({reason}), so no strategy is written here:"));
        line(
            &mut text,
            "# kaleem decides when it deploys. Run `kaleem init --force` as a user who may use Docker to see what it would decide.",
        );
    }
    for service in project.services.values() {
        let (facts, known) = facts(project, service, runtime.ok()).await;
        let judged = match (runtime, known) {
            (Err(_), _) => Judged::No,
            (Ok(_), true) => Judged::Yes,
            (Ok(_), false) => Judged::WithoutImage,
        };
        write_service(&mut text, project, service, &facts, judged, gateways);
    }
    // Without an engine nothing is known of doors but what the file said before.
    let proposals = match kaleem {
        Ok(kaleem) => kaleem.propose_doors(project).await.unwrap_or_default(),
        Err(_) => Vec::new(),
    };
    doors::write(&mut text, project, &proposals);
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

/// What the strategy of a service could be judged by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Judged {
    /// The compose file, and the image.
    Yes,
    /// The compose file alone: the image is not on this engine.
    WithoutImage,
    /// Not at all: whether gateways can be set up here is unknown, too.
    No,
}

fn write_service(text: &mut String, project: &Project, service: &Service, facts: &ImageFacts, judged: Judged, gateways: Gateways) {
    let name = &service.name;
    let settings = project.settings.services.get(name).cloned().unwrap_or_default();
    // The reason is that of kaleem, not that the file said so before.
    let asked = ServiceSettings { strategy: None, ..settings.clone() };
    let Ok(image) = image_reference(&project.name, service, None) else { return };
    let (decided, reason) = strategy::decide(project, service, &image, facts, &asked, gateways);
    // What an image says can only matter by the ports that it exposes.
    let exposes = ImageFacts { exposed_ports: vec!["80/tcp".to_owned()], ..facts.clone() };
    let depends = judged == Judged::WithoutImage && strategy::decide(project, service, &image, &exposes, &asked, gateways).0 != decided;
    line(text, "");
    if decided == Strategy::RunToEnd {
        line(text, &format!("# {name} runs to its end: {reason}. There is nothing to choose."));
        return;
    }
    let written = judged != Judged::No && !depends;
    if written {
        line(text, &format!("# {name}: {reason}."));
    } else if depends {
        line(text, &format!("# {name}: its image is not on this engine, and the ports that it exposes decide how it is replaced."));
    }
    line(text, &format!("[services.{}]", key(name)));
    if written {
        line(text, &format!("strategy = \"{decided}\""));
    }
    if written && decided == Strategy::Overlap {
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
    let by_http = asked_over_http(service);
    let (why, keys) = match (&gate.question, by_http) {
        (Question::Healthcheck, Some((port, path))) => (
            format!(
                "its health check asks http://localhost:{port}{path}, so it is asked there, which ends the wait as soon as it is ready"
            ),
            vec![format!("http = {path:?}"), format!("port = {port}")],
        ),
        (Question::Healthcheck, None) => ("its own health check is asked".to_owned(), Vec::new()),
        (Question::Running, _) if settings.health.as_ref().is_some_and(|health| health.none == Some(true)) => {
            ("nothing is asked, as it said before".to_owned(), vec!["none = true".to_owned()])
        }
        (Question::Running, _) => (
            format!(
                "nothing can be asked, so it counts as healthy after {} s without a crash; better: http = \"/health\"",
                gate.steady.as_secs()
            ),
            Vec::new(),
        ),
        (Question::Tcp { port }, _) => {
            (format!("it publishes port {port}, which must accept connections; better: http = \"/health\""), vec![format!("tcp = {port}")])
        }
        (Question::Http { port, path, .. }, _) => {
            ("it is asked over HTTP".to_owned(), vec![format!("http = {path:?}"), format!("port = {port}")])
        }
        (Question::Command { command }, _) => ("a command is run in it".to_owned(), vec![format!("command = {command:?}")]),
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

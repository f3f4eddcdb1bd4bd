//! `kaleem logs`: the output of what serves, interleaved, each line behind the name of its container.

use futures_util::StreamExt;
use futures_util::stream::select_all;
use kaleem_core::names::{ContainerName, ServiceName};
use kaleem_core::runtime::{Instance, InstanceStatus, LogLine, LogRange};
use serde_json::json;

use crate::arguments::{Logs, Since, Tail};
use crate::commands::status;
use crate::error::CliError;
use crate::exit::Exit;
use crate::render::Printer;
use crate::render::style::{FAINT, SERVICES, paint};
use crate::wiring::Wiring;

/// Where a line came from.
struct Source {
    service: ServiceName,
    container: ContainerName,
    prefix: String,
}

/// Shows it. With `--follow` it ends when all containers have ended, or nobody reads any more.
///
/// # Errors
///
/// [`CliError::ServiceUnknown`], [`CliError::Engine`]
pub(crate) async fn run(arguments: &Logs, wiring: &Wiring, printer: &Printer) -> Result<Exit, CliError> {
    let project = wiring.project_name()?;
    let runtime = wiring.runtime().await?;
    let history = wiring.history(&project)?;
    let failed = |source| CliError::Engine { source };
    let all = status::serving_first(&history, runtime.list(&project).await.map_err(failed)?);
    let names = history.serving().and_then(|id| history.release(id)).map(|release| release.instances);
    let serves = |instance: &Instance| match &names {
        Some(names) => names.values().flatten().any(|name| *name == instance.name),
        None => instance.state.status == InstanceStatus::Running,
    };
    if let Some(service) = arguments.services.iter().find(|service| !all.iter().any(|instance| instance.service == **service)) {
        let mut known: Vec<&str> = all.iter().map(|instance| instance.service.as_str()).collect();
        known.dedup();
        return Err(CliError::ServiceUnknown { service: service.clone(), known: known.join(", ") });
    }
    let wanted = |instance: &&Instance| arguments.services.is_empty() || arguments.services.contains(&instance.service);
    let instances: Vec<&Instance> = all.iter().filter(|instance| serves(instance) && !instance.oneoff).filter(wanted).collect();
    let range = LogRange {
        tail: match arguments.tail {
            Tail::All => None,
            Tail::Lines(lines) => Some(lines),
        },
        follow: arguments.follow,
        since: arguments.since.map(|since| match since {
            Since::At(at) => at.as_second(),
            Since::Ago(ago) => wiring.clock().now().as_second().saturating_sub(i64::try_from(ago.as_secs()).unwrap_or(i64::MAX)),
        }),
    };
    let sources = sources(&instances);
    let mut streams = Vec::new();
    for (index, source) in sources.iter().enumerate() {
        let lines = runtime.logs(&source.container, &range).await.map_err(failed)?;
        streams.push(lines.map(move |line| (index, line)).boxed());
    }
    let mut lines = select_all(streams);
    if arguments.follow {
        while let Some((index, line)) = lines.next().await {
            print(printer, sources.get(index), &line.map_err(failed)?, arguments.timestamps);
            if printer.is_closed() {
                break;
            }
        }
        return Ok(Exit::Done);
    }
    let mut collected = Vec::new();
    while let Some((index, line)) = lines.next().await {
        collected.push((index, line.map_err(failed)?));
    }
    // The engine writes times of equal length, in UTC: their text sorts as they do.
    collected.sort_by(|(_, one), (_, other)| one.time.cmp(&other.time));
    for (index, line) in &collected {
        print(printer, sources.get(*index), line, arguments.timestamps);
    }
    Ok(Exit::Done)
}

fn sources(instances: &[&Instance]) -> Vec<Source> {
    let mut services: Vec<&ServiceName> = instances.iter().map(|instance| &instance.service).collect();
    services.dedup();
    let label = |instance: &Instance| format!("{}-{}", instance.service, instance.number);
    let width = instances.iter().map(|instance| label(instance).chars().count()).max().unwrap_or(0);
    let source = |instance: &&Instance| {
        let colour = services.iter().position(|service| **service == instance.service).unwrap_or(0);
        let style = SERVICES.iter().cycle().nth(colour).copied().unwrap_or_default();
        Source {
            service: instance.service.clone(),
            container: instance.name.clone(),
            prefix: paint(style, &format!("{:width$} |", label(instance))),
        }
    };
    instances.iter().map(source).collect()
}

fn print(printer: &Printer, source: Option<&Source>, line: &LogLine, timestamps: bool) {
    let Some(source) = source else { return };
    let time = if timestamps { format!("{} ", paint(FAINT, &line.time)) } else { String::new() };
    printer.result(&format!("{} {time}{}", source.prefix, line.text));
    printer.json(&json!({
        "type": "log",
        "service": source.service.as_str(),
        "container": source.container.as_str(),
        "stream": if line.stderr { "stderr" } else { "stdout" },
        "time": line.time,
        "line": line.text,
    }));
}

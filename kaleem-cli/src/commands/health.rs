//! `kaleem health`: every dependency of the project asked at once, as its expert would ask it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use kaleem_core::config::Project;
use kaleem_core::health::{Finding, Verdict};
use kaleem_core::runtime::Runtime;
use kaleem_health::{Discovered, KnownHosts, discover};
use serde_json::json;

use crate::arguments::Health;
use crate::error::CliError;
use crate::exit::Exit;
use crate::render::Printer;
use crate::render::style::{BAD, FAINT, GOOD, HELP, WARN, paint};
use crate::render::table::{self, Cell};
use crate::wiring::Wiring;
use crate::words;

/// Time between two rounds of `--wait` and `--watch`.
const PAUSE: Duration = Duration::from_secs(1);

/// Asks. Exits with [`Exit::Unhealthy`] when something fails, with [`Exit::Unsure`] when something could not be asked.
///
/// # Errors
///
/// [`CliError::Config`], [`CliError::Engine`]
pub(crate) async fn run(arguments: &Health, wiring: &Wiring, printer: &Printer) -> Result<Exit, CliError> {
    let project = wiring.project()?;
    let runtime = wiring.runtime().await?;
    let deadline = arguments.wait.as_ref().map(|wait| wiring.clock().monotonic() + wait.0);
    loop {
        let answers = ask(&project, &runtime, arguments.timeout.0).await?;
        let worst = worst(&answers);
        let over = deadline.is_none_or(|deadline| wiring.clock().monotonic() >= deadline);
        if arguments.watch || worst == Verdict::Ok || over {
            show(printer, &answers);
        }
        if !arguments.watch && (matches!(worst, Verdict::Ok | Verdict::Warn) || over) {
            return Ok(exit(worst));
        }
        // Ctrl-C ends a watch as it ends any reading command.
        wiring.clock().sleep(PAUSE).await;
        if arguments.watch {
            printer.result("");
        }
    }
}

fn exit(worst: Verdict) -> Exit {
    match worst {
        Verdict::Ok | Verdict::Warn => Exit::Done,
        Verdict::Unknown => Exit::Unsure,
        Verdict::Fail => Exit::Unhealthy,
    }
}

/// The worst of what was said of it; a probe that cannot be built could not ask.
fn worst(answers: &[(Discovered, Finding)]) -> Verdict {
    answers.iter().map(|(_, finding)| finding.verdict).max().unwrap_or(Verdict::Ok)
}

async fn ask(project: &Project, runtime: &Arc<dyn Runtime>, timeout: Duration) -> Result<Vec<(Discovered, Finding)>, CliError> {
    let instances = runtime.list(&project.name).await.map_err(|source| CliError::Engine { source })?;
    let hosts = Arc::new(KnownHosts::of(project, &instances));
    let questions = discover(project).into_iter().map(|found| {
        let hosts = hosts.clone();
        async move {
            let finding = found.check(hosts, timeout).await;
            (found, finding)
        }
    });
    Ok(join_all(questions).await)
}

fn show(printer: &Printer, answers: &[(Discovered, Finding)]) {
    let rows = answers.iter().map(|(found, finding)| {
        let style = match finding.verdict {
            Verdict::Ok => GOOD,
            Verdict::Warn | Verdict::Unknown => WARN,
            Verdict::Fail => BAD,
        };
        let took = finding.phases.get("total").map(|took| words::duration(*took)).unwrap_or_default();
        vec![
            Cell::new(found.service.as_str()),
            Cell::new(found.name.as_str()),
            Cell::styled(finding.verdict.to_string(), style),
            Cell::new(took),
            Cell::new(finding.reason.as_str()),
        ]
    });
    let lines = table::lines(&["SERVICE", "PROBE", "VERDICT", "TOOK", "WHY"], rows.collect());
    lines.iter().for_each(|line| printer.result(line));
    for (found, finding) in answers {
        if let Some(remedy) = finding.remedy.as_ref().filter(|_| finding.verdict != Verdict::Ok) {
            printer.result(&format!("{} {}/{}: {remedy}", paint(HELP, "help:"), found.service, found.name));
        }
        let measured = finding.measurements.iter().map(|one| json!({ "name": one.name, "value": one.value, "unit": one.unit }));
        printer.json(&json!({
            "type": "health",
            "service": found.service.as_str(),
            "probe": found.name,
            "found": found.found.to_string(),
            "verdict": finding.verdict,
            "reason": finding.reason,
            "help": finding.remedy,
            "phases_ms": finding.phases.iter().map(|(phase, took)| (phase.clone(), took.as_secs_f64() * 1000.0)).collect::<std::collections::BTreeMap<_, _>>(),
            "measurements": measured.collect::<Vec<_>>(),
        }));
    }
    if answers.is_empty() {
        printer.result(&paint(FAINT, "nothing in the project can be asked: no known image, address or port"));
    }
}

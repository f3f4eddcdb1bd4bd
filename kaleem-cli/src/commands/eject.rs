//! `kaleem eject`: the project goes back to plain Compose, with the images that serve and all its data.

use std::collections::BTreeMap;
use std::time::Duration;

use kaleem_core::config::Project;
use kaleem_core::exec::{self, ExecRequest};
use kaleem_core::names::ServiceName;

use crate::arguments::Eject;
use crate::commands::carry_out::carry_out;
use crate::commands::deploy::{LeftOpen, Ready, ready};
use crate::commands::reality;
use crate::error::CliError;
use crate::exit::Exit;
use crate::render::Printer;
use crate::render::plan::{Detail, PlanView};
use crate::wiring::Wiring;

/// Time that Compose has to tell its hashes.
const HASHES: Duration = Duration::from_secs(30);

/// Ejects, or shows what that would do.
///
/// # Errors
///
/// [`CliError`]
pub(crate) async fn run(arguments: &Eject, wiring: &Wiring, printer: &Printer) -> Result<Exit, CliError> {
    let project = wiring.project()?;
    let kaleem = wiring.kaleem_to_finish("eject", &project.name, None).await?;
    let left_open = if arguments.plan { LeftOpen::Stays } else { LeftOpen::FinishedFirst };
    let work = match ready(wiring, printer, &kaleem, &project.name, left_open).await? {
        Ready::Work(work) => work,
        Ready::Ended(exit) => return Ok(exit),
    };
    let hashes = hashes(wiring, &project).await;
    let planned = kaleem.eject_plan(&work, &project, &hashes).await.map_err(|source| CliError::Kaleem { source })?;
    let view = PlanView { plan: &planned.plan, notes: &planned.notes, warnings: &project.warnings, history: work.history() };
    let detail = if arguments.plan { Detail::Steps } else { Detail::Short };
    let show = |line: &String| if arguments.plan { printer.result(line) } else { printer.note(line) };
    view.lines(detail).iter().for_each(show);
    printer.json(&view.json());
    if planned.plan.is_empty() {
        let reality = reality::ask(wiring, &project.name, work.history()).await?;
        return Ok(printer.nothing_to_do(work.history(), &reality));
    }
    if arguments.plan {
        return Ok(if planned.plan.refusals().next().is_some() { Exit::Refused } else { Exit::Done });
    }
    printer.note("");
    let run = kaleem.start(work, &planned).map_err(|source| CliError::Kaleem { source })?;
    Ok(carry_out(wiring, printer, &project.name, &planned.plan, run).await?.exit)
}

/// What the Compose of this host says of each service, which tells the core what it will compare. Empty where there is no Compose.
async fn hashes(wiring: &Wiring, project: &Project) -> BTreeMap<ServiceName, String> {
    let files = project.files.iter().flat_map(|file| ["-f".to_owned(), file.display().to_string()]);
    let config: Vec<String> = files
        .chain(["--project-directory".to_owned(), project.directory.display().to_string()])
        .chain(["-p".to_owned(), project.name.to_string()])
        .chain(["config", "--hash", "*"].map(str::to_owned))
        .collect();
    let version = ["version", "--short"].map(str::to_owned);
    for (program, first) in [("docker", Some("compose")), ("docker-compose", None)] {
        let ask = |arguments: &[String]| ExecRequest {
            program: program.into(),
            arguments: first.map(str::to_owned).into_iter().chain(arguments.iter().cloned()).collect(),
            environment: wiring.environment().variables().clone(),
            stdin: None,
            directory: Some(project.directory.clone()),
            timeout: HASHES,
            max_output_bytes: 1 << 20,
        };
        let Ok(ran) = exec::run(&ask(&version)).await else { continue };
        if !ran.status.success() || !is_supported(&String::from_utf8_lossy(&ran.stdout)) {
            continue;
        }
        let Ok(ran) = exec::run(&ask(&config)).await else { continue };
        let found = read_hashes(&String::from_utf8_lossy(&ran.stdout));
        if ran.status.success() && !found.is_empty() {
            return found;
        }
    }
    BTreeMap::new()
}

/// Version 1 hashes in a way of its own, and no containers of later versions.
fn is_supported(version: &str) -> bool {
    let major = version.trim().trim_start_matches('v').split('.').next().unwrap_or_default();
    major.parse::<u32>().is_ok_and(|major| major >= 2)
}

fn read_hashes(text: &str) -> BTreeMap<ServiceName, String> {
    let line = |line: &str| {
        let (name, hash) = line.split_once(' ')?;
        let good = hash.len() == 64 && hash.chars().all(|c| c.is_ascii_hexdigit());
        good.then(|| Some((name.parse().ok()?, hash.to_owned()))).flatten()
    };
    text.lines().filter_map(|text| line(text.trim())).collect()
}

#[cfg(test)]
mod tests {
    use super::{is_supported, read_hashes};

    #[test]
    fn only_compose_2_and_later_are_asked() {
        for (version, supported) in [("2.26.1-4\n", true), ("v5.0.1", true), ("1.29.2", false), ("", false)] {
            assert_eq!(is_supported(version), supported, "{version}");
        }
    }

    #[test]
    fn only_lines_with_a_name_and_a_hash_are_taken() {
        let hash = "a".repeat(64);
        let found = read_hashes(&format!("api {hash}\nweb short\nWARNING: something else\n"));
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [("api".parse().unwrap(), hash)]);
    }
}

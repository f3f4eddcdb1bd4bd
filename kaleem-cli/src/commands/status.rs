//! `kaleem status`: an open plan first, then what serves, then every container of it, then what goes through its gateways.

use kaleem_core::history::History;
use kaleem_core::journal::Next;
use kaleem_core::lease;
use kaleem_core::names::ProjectName;
use kaleem_core::observed::is_port_container;
use kaleem_core::observed::owner::{Foreign, ForeignKind, Standing};
use kaleem_core::release::{Release, Strategy};
use kaleem_core::runtime::{Instance, InstanceHealth, InstanceStatus};
use serde_json::json;

use crate::commands::{open_plan, reality};
use crate::error::CliError;
use crate::exit::Exit;
use crate::render::Printer;
use crate::render::style::{BAD, FAINT, GOOD, HELP, STRONG, WARN, paint};
use crate::render::table::{self, Cell};
use crate::wiring::Wiring;
use crate::words;

mod rates;

/// Shows it. What the journals tell is shown also when the engine is away.
///
/// # Errors
///
/// [`CliError`]
pub(crate) async fn run(wiring: &Wiring, printer: &Printer) -> Result<Exit, CliError> {
    let project = wiring.project_name()?;
    let history = wiring.history(&project)?;
    let ownership = match wiring.kaleem("status").await {
        Ok(kaleem) => kaleem.ownership(&project).await.ok(),
        Err(_) => None,
    };
    let mut history = history;
    if let Some(ownership) = &ownership {
        if let Standing::Foreign(foreign) = &ownership.standing
            && matches!(foreign.kind, ForeignKind::State | ForeignKind::Copy)
        {
            return show_foreign(wiring, printer, &project, foreign).await;
        }
        history.seen_on_host(ownership.plan, ownership.release);
    }
    show_open(wiring, printer, &project, &history);
    let serving = history.serving();
    let since = serving.and_then(|id| history.entry_of(id)).map(|entry| entry.ended);
    let now = wiring.clock().now();
    let undecided = history.open().is_some_and(|entry| entry.progress.has_touched() && !entry.progress.is_committed());
    match serving {
        // "Nothing was released" would be a lie where the journal that knew it is gone.
        _ if undecided || history.lost().is_some() || history.behind().is_some() => {
            printer.result(&format!("{} {}", paint(STRONG, &format!("{project}:")), words::serving(&history)));
        }
        Some(release) => {
            let since =
                since.map_or_else(String::new, |at| format!(" since {} ({})", words::moment(at), words::duration(words::since(at, now))));
            printer.result(&format!("{} {release} serves{since}", paint(STRONG, &format!("{project}:"))));
        }
        None => printer.result(&format!("{} nothing was released yet", paint(STRONG, &format!("{project}:")))),
    }
    if let Some(Standing::Foreign(foreign)) = ownership.as_ref().map(|ownership| &ownership.standing) {
        printer.warning(&foreign.message(), Some(&foreign.remedy()));
    }
    let runtime = wiring.runtime().await?;
    let instances = runtime.list(&project).await.map_err(|source| CliError::Engine { source })?;
    show_instances(printer, &history, instances, now);
    rates::show(wiring, printer, &history).await;
    let reality = reality::ask(wiring, &project, &history).await?;
    if !reality.faults.is_empty() || !reality.warnings.is_empty() {
        printer.result("");
        reality::show(printer, &reality);
    }
    printer.json(&json!({
        "type": "status",
        "project": project.as_str(),
        "serving": serving.filter(|_| !undecided).map(|id| id.to_string()),
        "since": since.map(|at| at.to_string()),
        "serves": serving.filter(|_| !undecided).map(|_| reality.faults.is_empty()),
    }));
    Ok(if reality.faults.is_empty() { Exit::Done } else { Exit::NotServing })
}

/// What another owner released. What this state directory remembers says nothing of it.
async fn show_foreign(wiring: &Wiring, printer: &Printer, project: &ProjectName, foreign: &Foreign) -> Result<Exit, CliError> {
    printer.result(&format!("{} {}", paint(STRONG, &format!("{project}:")), foreign.message()));
    printer.result(&format!("{} {}", paint(GOOD, "serving:"), foreign.serving()));
    printer.result(&format!("{} {}", paint(HELP, "help:"), foreign.remedy()));
    let instances = wiring.runtime().await?.list(project).await.map_err(|source| CliError::Engine { source })?;
    show_instances(printer, &History::default(), instances, wiring.clock().now());
    printer.json(&json!({
        "type": "status",
        "project": project.as_str(),
        "serving": null,
        "since": null,
        "owner": {
            "state_directory": foreign.state_directory.as_ref().map(|path| path.display().to_string()),
            "user": foreign.user,
            "host": foreign.other_host,
            "directory": foreign.files.as_ref().map(|files| files.directory.display().to_string()),
            "release": foreign.running.map(|release| release.to_string()),
        },
    }));
    Ok(Exit::Done)
}

fn show_open(wiring: &Wiring, printer: &Printer, project: &ProjectName, history: &History) {
    let Some(entry) = history.open() else { return };
    let root = wiring.state(project).root().to_owned();
    let plan = &entry.plan;
    let holder = if lease::is_held(&root) { lease::holder(&root) } else { None };
    let next = entry.progress.next();
    if let Some(holder) = &holder {
        let step = match &next {
            Next::Run(step) | Next::Undo(step) => format!(", step {} of {}", step + 1, plan.steps.len()),
            Next::Stuck { .. } | Next::Finish(_) | Next::Over(_) => String::new(),
        };
        let direction = if entry.progress.is_going_back() { "is being rolled back" } else { "is under way" };
        printer.result(&format!(
            "{} plan {} ({} to {}) {direction}{step}: {} (process {} on {}, since {})",
            paint(WARN, "running:"),
            plan.id,
            plan.kind,
            plan.release.id,
            holder.owner,
            holder.pid,
            holder.host,
            holder.since
        ));
    } else if let Some((text, help)) = open_plan(wiring, project, history) {
        printer.result(&format!("{} {text}", paint(BAD, "open:")));
        if let Next::Stuck { step, error } = &next {
            printer.result(&format!("{} {error}", paint(BAD, "cause:")));
            let by_hand = plan.steps.get(*step).map(|step| step.undo_by_hand(project)).unwrap_or_default();
            by_hand.iter().for_each(|command| printer.result(&format!("  by hand: {command}")));
        }
        let help =
            if matches!(next, Next::Stuck { .. }) { "mend it and run `kaleem resume`, or settle it with `kaleem resolve`" } else { help };
        printer.result(&format!("{} {help}", paint(HELP, "help:")));
    }
    printer.json(&json!({
        "type": "open",
        "plan": plan.id.to_string(),
        "kind": plan.kind.to_string(),
        "to": plan.release.id.to_string(),
        "going_back": entry.progress.is_going_back(),
        "stuck": matches!(next, Next::Stuck { .. }),
        "holder": holder.map(|holder| json!({ "owner": holder.owner, "pid": holder.pid, "host": holder.host, "since": holder.since })),
    }));
}

fn show_instances(printer: &Printer, history: &History, instances: Vec<Instance>, now: jiff::Timestamp) {
    let release = history.serving().and_then(|id| history.release(id));
    let expected = |instance: &Instance| {
        release.as_ref().is_none_or(|release| release.instances.values().flatten().any(|name| *name == instance.name))
    };
    let up = |instance: &Instance| !matches!(instance.state.status, InstanceStatus::Exited | InstanceStatus::Created);
    let instances = serving_first(history, instances);
    let (shown, kept): (Vec<&Instance>, Vec<&Instance>) =
        instances.iter().filter(|instance| !instance.oneoff).partition(|instance| expected(instance) || up(instance));
    let mut rows: Vec<Vec<Cell>> =
        shown.iter().map(|instance| row(instance, release.as_ref().filter(|_| expected(instance)), now)).collect();
    for (service, name) in
        release.iter().flat_map(|release| &release.instances).flat_map(|(service, names)| names.iter().map(move |name| (service, name)))
    {
        if !instances.iter().any(|instance| instance.name == *name) {
            rows.push(vec![Cell::new(service.as_str()), Cell::new(name.as_str()), Cell::styled("missing", BAD)]);
        }
    }
    if !rows.is_empty() {
        printer.result("");
        let heads = ["SERVICE", "CONTAINER", "STATE", "HEALTH", "IMAGE", "UP", "RESTARTS"];
        table::lines(&heads, rows).iter().for_each(|line| printer.result(line));
    }
    if !kept.is_empty() {
        printer.result("");
        printer.result(&paint(
            FAINT,
            &format!("{} kept to go back to", words::count(kept.len(), "stopped container is", "stopped containers are")),
        ));
    }
    for instance in &instances {
        printer.json(&json!({
            "type": "instance",
            "service": instance.service.as_str(),
            "container": instance.name.as_str(),
            "serving": release.is_some() && expected(instance),
            "release": instance.release.map(|id| id.to_string()),
            "image": instance.image,
            "digest": instance.digest.as_ref().map(kaleem_core::image::Digest::as_str),
            "state": instance.state.status,
            "health": instance.state.health,
            "restarts": instance.state.restart_count,
            "started_at": instance.state.started_at,
        }));
    }
}

/// A line of the table. `release` is the serving one where the container is part of it.
fn row(instance: &Instance, release: Option<&Release>, now: jiff::Timestamp) -> Vec<Cell> {
    let state = &instance.state;
    let wanted = release.and_then(|release| release.target.services.get(&instance.service));
    let ends = wanted.is_some_and(|wanted| wanted.strategy == Strategy::RunToEnd || wanted.gate.may_end);
    let status = match (state.status, state.exit_code) {
        (InstanceStatus::Running, _) => Cell::new("running"),
        (InstanceStatus::Exited, Some(0)) if ends => Cell::new("done"),
        (InstanceStatus::Exited, Some(code)) => Cell::styled(format!("exited ({code})"), BAD),
        (status, _) => Cell::styled(format!("{status:?}").to_lowercase(), WARN),
    };
    let health = match state.health {
        // What was said of it while it ran says nothing now.
        _ if state.status != InstanceStatus::Running => Cell::new(""),
        InstanceHealth::None => Cell::styled("no check", FAINT),
        InstanceHealth::Starting => Cell::styled("starting", WARN),
        InstanceHealth::Healthy => Cell::styled("healthy", GOOD),
        // Something else is asked of it, so that this says nothing.
        InstanceHealth::Unhealthy if wanted.is_some_and(|wanted| !wanted.gate.asks_docker()) => Cell::styled("unhealthy (not used)", FAINT),
        InstanceHealth::Unhealthy => Cell::styled("unhealthy", BAD),
    };
    let up = match (&state.started_at, state.status) {
        (Some(at), InstanceStatus::Running) => at.parse().map(|at| words::duration(words::since(at, now))).unwrap_or_default(),
        _ => String::new(),
    };
    let restarts = Cell::styled(state.restart_count.to_string(), if state.restart_count == 0 { anstyle::Style::new() } else { WARN });
    let gateway = instance.gateway.is_some();
    let belongs = release.is_some() || instance.release.is_none() || gateway;
    let image = wanted.map_or_else(|| image(instance), |wanted| format!("{} {}", wanted.image.image, wanted.image.digest.short()));
    let name =
        if belongs { Cell::new(instance.name.as_str()) } else { Cell::styled(format!("{} (not of this release)", instance.name), WARN) };
    let service = match (gateway, is_port_container(instance)) {
        (_, true) => Cell::styled("(port)", FAINT),
        (true, false) => Cell::styled("(gateway)", FAINT),
        (false, false) => Cell::new(instance.service.as_str()),
    };
    vec![service, name, status, health, Cell::new(image), Cell::new(up), restarts]
}

/// Image and digest in short, where no release tells. What was made from an id alone shows that.
fn image(instance: &Instance) -> String {
    let digest = instance.digest.as_ref().unwrap_or(&instance.image_id).short();
    if instance.image.contains(digest) { digest.to_owned() } else { format!("{} {digest}", instance.image) }
}

/// The containers, those of the serving release first, each group by service and number.
pub(crate) fn serving_first(history: &History, mut instances: Vec<Instance>) -> Vec<Instance> {
    let release = history.serving().and_then(|id| history.release(id));
    let serves = |instance: &Instance| {
        release.as_ref().is_some_and(|release| release.instances.values().flatten().any(|name| *name == instance.name))
    };
    instances.sort_by_key(|instance| (!serves(instance), instance.service.clone(), instance.number, instance.name.clone()));
    instances
}

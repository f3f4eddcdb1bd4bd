//! `kaleem gateway`: what stands before the services: its program, where it sends, what it counted.

use kaleem_core::kaleem::leaving::GatewayView;
use kaleem_core::names::ServiceName;
use kaleem_core::remedy::one_line;
use serde_json::json;

use crate::arguments::GatewayVerb;
use crate::commands::carry_out::carry_out;
use crate::commands::deploy::{LeftOpen, Ready, ready};
use crate::error::CliError;
use crate::exit::Exit;
use crate::render::Printer;
use crate::render::plan::{Detail, PlanView};
use crate::render::style::{BAD, FAINT, WARN};
use crate::render::table::{self, Cell};
use crate::wiring::Wiring;

/// Lists, upgrades, or reads counters.
///
/// # Errors
///
/// [`CliError`]
pub(crate) async fn run(verb: &GatewayVerb, wiring: &Wiring, printer: &Printer) -> Result<Exit, CliError> {
    match verb {
        GatewayVerb::List => list(wiring, printer).await,
        GatewayVerb::Upgrade { services, plan } => upgrade(services, *plan, wiring, printer).await,
        GatewayVerb::Metrics { services } => metrics(services, wiring, printer).await,
    }
}

async fn list(wiring: &Wiring, printer: &Printer) -> Result<Exit, CliError> {
    let project = wiring.project_name()?;
    let kaleem = wiring.kaleem("gateway list").await?;
    let views = kaleem.gateways(&project).await.map_err(|source| CliError::Kaleem { source })?;
    if views.is_empty() {
        printer.result(&format!("{project}: no service has a gateway"));
    } else {
        let heads = ["SERVICE", "GATEWAY", "PROGRAM", "SENDS TO", "CONNECTIONS", "HELD", "CRASHES"];
        table::lines(&heads, views.iter().map(row).collect()).iter().for_each(|line| printer.result(line));
    }
    for view in &views {
        let stats = view.stats.as_ref().ok();
        printer.json(&json!({
            "type": "gateway",
            "service": view.service.as_str(),
            "container": view.instance.as_ref().map(|instance| instance.name.as_str()),
            "answers": stats.is_some(),
            "version": stats.map(|stats| stats.worker.version.as_str()),
            "program": view.program,
            "current": view.is_current,
            "targets": stats.map(targets),
            "open_connections": stats.map(|stats| stats.open_connections),
            "held": stats.map(|stats| stats.hold.waiting),
            "crashes": stats.map(|stats| stats.worker.crashes),
        }));
    }
    Ok(Exit::Done)
}

fn targets(stats: &kaleem_core::traffic::GatewayStats) -> Vec<String> {
    let routed = stats.routing.iter().flat_map(|routing| &routing.targets).filter(|target| target.weight > 0);
    routed.map(|target| target.instance.to_string()).collect()
}

fn row(view: &GatewayView) -> Vec<Cell> {
    let service = Cell::new(view.service.as_str());
    let container = match &view.instance {
        Some(instance) => Cell::new(instance.name.as_str()),
        None => Cell::styled("missing", BAD),
    };
    match &view.stats {
        Err(error) => vec![service, container, Cell::styled(one_line(error), BAD)],
        Ok(stats) => {
            let program = view.program.as_deref().unwrap_or("of its image");
            let program = format!("{} {program}", stats.worker.version);
            let program =
                if view.is_current { Cell::new(program) } else { Cell::styled(format!("{program} (not the one beside kaleem)"), WARN) };
            let targets = targets(stats);
            let sends = if targets.is_empty() { Cell::styled("nobody: it holds", WARN) } else { Cell::new(targets.join(", ")) };
            let crashes = match stats.worker.crashes {
                0 => Cell::styled("0", FAINT),
                many => Cell::styled(many.to_string(), WARN),
            };
            let (open, held) = (Cell::new(stats.open_connections.to_string()), Cell::new(stats.hold.waiting.to_string()));
            vec![service, container, program, sends, open, held, crashes]
        }
    }
}

async fn upgrade(services: &[ServiceName], only_plan: bool, wiring: &Wiring, printer: &Printer) -> Result<Exit, CliError> {
    let project = wiring.project_name()?;
    let kaleem = wiring.kaleem_to_finish("gateway upgrade", &project, None).await?;
    let left_open = if only_plan { LeftOpen::Stays } else { LeftOpen::FinishedFirst };
    let work = match ready(wiring, printer, &kaleem, &project, left_open).await? {
        Ready::Work(work) => work,
        Ready::Ended(exit) => return Ok(exit),
    };
    let planned = kaleem.upgrade_plan(&work, services).await.map_err(|source| CliError::Kaleem { source })?;
    if planned.plan.is_empty() {
        printer.result("nothing to do: every gateway runs the program beside kaleem");
        printer.json(&json!({ "type": "outcome", "outcome": "nothing-to-do", "exit_code": 0 }));
        return Ok(Exit::Done);
    }
    let view = PlanView { plan: &planned.plan, notes: &planned.notes, warnings: &[], history: work.history() };
    let detail = if only_plan { Detail::Steps } else { Detail::Short };
    let show = |line: &String| if only_plan { printer.result(line) } else { printer.note(line) };
    view.lines(detail).iter().for_each(show);
    printer.json(&view.json());
    if only_plan {
        return Ok(Exit::Done);
    }
    printer.note("");
    let run = kaleem.start(work, &planned).map_err(|source| CliError::Kaleem { source })?;
    Ok(carry_out(wiring, printer, &project, &planned.plan, run).await?.exit)
}

async fn metrics(services: &[ServiceName], wiring: &Wiring, printer: &Printer) -> Result<Exit, CliError> {
    let project = wiring.project_name()?;
    let history = wiring.history(&project)?;
    let release = history.serving().and_then(|id| history.release(id));
    let gateways = release.iter().flat_map(|release| &release.target.services);
    let gateways: Vec<_> = gateways.filter_map(|(name, wanted)| Some((name, wanted.gateway.as_ref()?))).collect();
    if let Some(unknown) = services.iter().find(|service| !gateways.iter().any(|(name, _)| name == service)) {
        let source = kaleem_core::kaleem::KaleemError::NoGateway { service: unknown.clone() };
        return Err(CliError::Kaleem { source });
    }
    let traffic = wiring.traffic();
    let mut told = std::collections::BTreeSet::new();
    for (name, gateway) in gateways.into_iter().filter(|(name, _)| services.is_empty() || services.contains(name)) {
        let text = traffic.metrics(&gateway.name).await.map_err(|source| CliError::Gateway { source })?;
        printer.raw(&labelled(&text, project.as_str(), name.as_str(), &mut told));
    }
    Ok(Exit::Done)
}

/// The counters with the names of project and service, so that those of several gateways can be one page. What a metric means is said once.
fn labelled(text: &str, project: &str, service: &str, told: &mut std::collections::BTreeSet<String>) -> String {
    let mut out = String::new();
    for line in text.lines() {
        if line.starts_with('#') {
            if told.insert(line.to_owned()) {
                out.push_str(line);
                out.push('\n');
            }
            continue;
        }
        let labels = format!("project=\"{project}\",service=\"{service}\"");
        let marked = match (line.split_once('{'), line.split_once(' ')) {
            (Some((name, rest)), _) => format!("{name}{{{labels},{rest}"),
            (None, Some((name, value))) => format!("{name}{{{labels}}} {value}"),
            (None, None) => line.to_owned(),
        };
        out.push_str(&marked);
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::labelled;

    #[test]
    fn counters_of_two_gateways_are_one_page() {
        let text = "# HELP held Requests.\n# TYPE held gauge\nheld 3\nrequests_total{release=\"r1\"} 7\n";
        let mut told = Default::default();
        let both = labelled(text, "shop", "api", &mut told) + &labelled(text, "shop", "web", &mut told);
        assert_eq!(both.matches("# HELP held").count(), 1, "{both}");
        assert!(both.contains("held{project=\"shop\",service=\"web\"} 3"), "{both}");
        assert!(both.contains("requests_total{project=\"shop\",service=\"api\",release=\"r1\"} 7"), "{both}");
    }
}

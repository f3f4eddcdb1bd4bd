//! Named rules over a plan: why it is refused, and what it will interrupt.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::definition::PortBinding;
use crate::names::{ContainerName, ServiceName};
use crate::observed::clients::{Client, Keeps, Knowledge, Refresh};
use crate::observed::owner::Standing;
use crate::observed::proxy::ProxyKind;
use crate::observed::{Observed, is_gateway};
use crate::plan::{ChangeKind, Interruption, Plan, PlanKind, Step, Undo};
use crate::release::{Migration, Strategy, Wanted};
use crate::runtime::{Instance, InstanceStatus};

/// What a rule has to say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Objection {
    /// The rule, a word for scripts, such as `port-taken`.
    pub rule: String,
    /// Whether the plan may be carried out.
    pub severity: Severity,
    /// The service it is about.
    pub service: Option<ServiceName>,
    /// What is wrong, one line.
    pub message: String,
    /// What to do, one line.
    pub remedy: String,
}

/// Whether a plan may be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// It may; the operator should know.
    Note,
    /// It may; users will notice, or something is about to go wrong.
    Warn,
    /// It may not.
    Refuse,
}

mod client_addresses;
mod unhealthy;

type Rule = fn(&Plan, &Observed) -> Vec<Objection>;

const RULES: &[Rule] = &[
    owned_by_another,
    external_networks,
    external_volumes,
    labels_of_others,
    ports_of_others,
    ports_of_orphans,
    names_of_others,
    ports_twice,
    overlap_with_ports,
    gateway_missing,
    interruptions,
    hand_overs,
    holds,
    outdated_gateways,
    ports_that_stay,
    kept_addresses,
    shut_doors,
    client_addresses::rule,
    stores_replaced,
    unhealthy::now,
    unhealthy::before,
    one_way_migrations,
    strangers_in_project,
    order_of_steps,
];

/// Asks every rule.
pub fn check(plan: &Plan, observed: &Observed) -> Vec<Objection> {
    if plan.steps.is_empty() {
        return [owned_by_another(plan, observed), ports_that_stay(plan, observed)].concat();
    }
    let mut objections: Vec<Objection> = RULES.iter().flat_map(|rule| rule(plan, observed)).collect();
    objections.sort_by_key(|objection| std::cmp::Reverse(objection.severity));
    objections
}

fn objection(rule: &str, severity: Severity, service: Option<&ServiceName>, message: String, remedy: &str) -> Objection {
    Objection { rule: rule.to_owned(), severity, service: service.cloned(), message, remedy: remedy.to_owned() }
}

/// What belongs to another is not changed; it is said also where nothing would be.
fn owned_by_another(_plan: &Plan, observed: &Observed) -> Vec<Objection> {
    match &observed.ownership.standing {
        Standing::Foreign(foreign) => vec![objection("owned-by-another", Severity::Refuse, None, foreign.message(), &foreign.remedy())],
        Standing::Behind { plan } => {
            let message = format!("this state directory is older than what runs: plan {plan} was made with a later state of it");
            vec![objection("state-behind", Severity::Warn, None, message, "this deploy settles it: what runs is compared with the files")]
        }
        Standing::Lost => {
            let message =
                "containers of this project were released from this state directory, and it has lost what it knew of them".to_owned();
            vec![objection("state-lost", Severity::Warn, None, message, "this deploy settles it: what runs is compared with the files")]
        }
        Standing::Free | Standing::Ours => Vec::new(),
    }
}

fn external_networks(plan: &Plan, observed: &Observed) -> Vec<Objection> {
    let networks = plan.release.target.networks.iter().filter(|network| network.external && !observed.networks.contains_key(&network.name));
    let found = networks.map(|network| {
        let remedy = format!("create it (`docker network create {}`), or remove `external: true`", network.name);
        objection(
            "external-network-missing",
            Severity::Refuse,
            None,
            format!("the external network `{}` does not exist", network.name),
            &remedy,
        )
    });
    found.collect()
}

fn external_volumes(plan: &Plan, observed: &Observed) -> Vec<Objection> {
    let volumes = plan.release.target.volumes.iter().filter(|volume| volume.external && !observed.volumes.contains_key(&volume.name));
    let found = volumes.map(|volume| {
        let remedy = format!("create it (`docker volume create {}`), or remove `external: true`", volume.name);
        objection(
            "external-volume-missing",
            Severity::Refuse,
            None,
            format!("the external volume `{}` does not exist", volume.name),
            &remedy,
        )
    });
    found.collect()
}

fn labels_of_others(plan: &Plan, observed: &Observed) -> Vec<Objection> {
    let target = &plan.release.target;
    let ours = Some(target.project.as_str());
    let mut found = Vec::new();
    let remedy = "declare it as `external: true` to say that it is meant, or give it another `name:`";
    for network in target.networks.iter().filter(|network| !network.external) {
        if observed.networks.get(&network.name).is_some_and(|label| label.as_deref() != ours) {
            found.push(objection(
                "network-of-others",
                Severity::Warn,
                None,
                format!("the network `{}` exists and was not made for this project", network.name),
                remedy,
            ));
        }
    }
    for volume in target.volumes.iter().filter(|volume| !volume.external) {
        if observed.volumes.get(&volume.name).is_some_and(|label| label.as_deref() != ours) {
            found.push(objection(
                "volume-of-others",
                Severity::Warn,
                None,
                format!("the volume `{}` exists and was not made for this project", volume.name),
                remedy,
            ));
        }
    }
    found
}

pub(crate) fn port_text(binding: &PortBinding) -> String {
    let port = binding.host_ports.map_or(0, |(first, _)| first);
    match binding.host_ip {
        Some(ip) => format!("{ip}:{port}/{}", binding.container.protocol),
        None => format!("{port}/{}", binding.container.protocol),
    }
}

fn starting(plan: &Plan) -> impl Iterator<Item = (&ServiceName, &Wanted)> {
    let changed = |name: &ServiceName| {
        let makes = || plan.steps.iter().any(|step| matches!(step, Step::Create { instance } if instance.service == *name));
        let is_replaced = |kind: ChangeKind| matches!(kind, ChangeKind::Add | ChangeKind::Replace);
        plan.changes.iter().any(|change| change.service == *name && (is_replaced(change.kind) || makes()))
    };
    plan.release.target.services.iter().filter(move |(name, _)| changed(name))
}

fn ports_of_others(plan: &Plan, observed: &Observed) -> Vec<Objection> {
    let mut found = Vec::new();
    for (name, wanted) in starting(plan) {
        for port in &wanted.ports {
            if let Some((_, stranger)) = observed.foreign_ports.iter().find(|(other, _)| port.collides(other)) {
                let message = format!("the host's port {} is held by the container `{stranger}` of another project", port_text(port));
                found.push(objection("port-taken", Severity::Refuse, Some(name), message, "stop that container, or publish another port"));
            }
        }
    }
    found
}

/// A container of the project that no file and no release names is left alone, with the ports that it holds.
fn ports_of_orphans(plan: &Plan, observed: &Observed) -> Vec<Objection> {
    let known = |name: &ServiceName| plan.changes.iter().any(|change| change.service == *name);
    let up = |instance: &&Instance| {
        matches!(instance.state.status, InstanceStatus::Running | InstanceStatus::Paused | InstanceStatus::Restarting)
    };
    let orphans = || observed.instances.iter().filter(|instance| !is_gateway(instance) && !known(&instance.service)).filter(up);
    let mut found = Vec::new();
    for (name, wanted) in starting(plan) {
        for port in &wanted.ports {
            if let Some(orphan) = orphans().find(|orphan| orphan.ports.iter().any(|held| port.collides(held))) {
                let text = port_text(port);
                let message = format!("the host's port {text} is held by `{}`, whose service the compose file does not name", orphan.name);
                let remedy = format!("stop it first (`docker stop {}`), or publish another port", orphan.name);
                found.push(objection("port-held", Severity::Refuse, Some(name), message, &remedy));
            }
        }
    }
    found
}

/// A container of another project is never touched, so its name cannot be had.
fn names_of_others(plan: &Plan, observed: &Observed) -> Vec<Objection> {
    let fixed = starting(plan).filter_map(|(name, wanted)| Some((name, wanted.container_name.as_ref()?)));
    let created = plan.steps.iter().filter_map(|step| match step {
        Step::Create { instance } => Some((&instance.service, &instance.name)),
        _ => None,
    });
    let wanted: BTreeSet<(&ServiceName, &ContainerName)> = fixed.chain(created).collect();
    let mut found = Vec::new();
    for (service, name) in wanted {
        let Some(owner) = observed.foreign_names.get(name) else { continue };
        let message = format!("the container name `{name}` is taken by {owner}");
        let fixed = plan.release.target.services.get(service).and_then(|wanted| wanted.container_name.as_ref()) == Some(name);
        let remedy = match fixed {
            true => {
                format!("change `container_name` of `{service}`, or give that container another name (`docker rename {name} NEW-NAME`)")
            }
            false => {
                format!("give this project another name (`name:` in the compose file, or `-p NAME`), or rename the service `{service}`")
            }
        };
        found.push(objection("name-taken", Severity::Refuse, Some(service), message, &remedy));
    }
    found
}

fn ports_twice(plan: &Plan, _observed: &Observed) -> Vec<Objection> {
    let ports: Vec<(&ServiceName, &PortBinding)> =
        plan.release.target.services.iter().flat_map(|(name, wanted)| wanted.ports.iter().map(move |port| (name, port))).collect();
    let mut found = Vec::new();
    for (index, (name, port)) in ports.iter().enumerate() {
        if let Some((other, _)) = ports.iter().take(index).find(|(other, earlier)| other != name && port.collides(earlier)) {
            let message = format!("the services `{other}` and `{name}` both publish the host's port {}", port_text(port));
            found.push(objection("port-twice", Severity::Refuse, Some(name), message, "give one of them another port"));
        }
    }
    found
}

fn overlap_with_ports(plan: &Plan, _observed: &Observed) -> Vec<Objection> {
    let fixed = |wanted: &Wanted| wanted.ports.iter().any(|port| port.host_ports.is_some_and(|(first, last)| first == last));
    let services = starting(plan).filter(|(_, wanted)| wanted.strategy == Strategy::Overlap && fixed(wanted));
    let found = services.map(|(name, _)| {
        let message = format!("`{name}` publishes a fixed port, which the old and the new container cannot hold at the same time");
        objection("overlap-with-ports", Severity::Refuse, Some(name), message, "set `strategy = \"recreate\"` for it in kaleem.toml")
    });
    found.collect()
}

fn gateway_missing(plan: &Plan, _observed: &Observed) -> Vec<Objection> {
    let services =
        starting(plan).filter(|(_, wanted)| matches!(wanted.strategy, Strategy::BlueGreen | Strategy::Rolling) && wanted.gateway.is_none());
    let found = services.map(|(name, wanted)| {
        let message = format!(
            "the strategy {} of `{name}` needs a gateway: its program is missing here, or no TCP port of it is known",
            wanted.strategy
        );
        let remedy = "put `kaleem-agent` beside `kaleem`, declare the port with `expose:`, or set `strategy = \"recreate\"` in kaleem.toml";
        objection("gateway-missing", Severity::Refuse, Some(name), message, remedy)
    });
    found.collect()
}

fn interruptions(plan: &Plan, _observed: &Observed) -> Vec<Objection> {
    let services =
        plan.changes.iter().filter(|change| change.interruption == Interruption::StopAndStart && change.kind == ChangeKind::Replace);
    let found = services.map(|change| {
        let message = format!("`{}` is away while its old container stops and its new one starts: {}", change.service, change.reason);
        objection("interruption", Severity::Warn, Some(&change.service), message, "deploy when that is acceptable")
    });
    found.collect()
}

fn hand_overs(plan: &Plan, _observed: &Observed) -> Vec<Objection> {
    let services = plan.changes.iter().filter(|change| change.interruption == Interruption::HandOver);
    let found = services.map(|change| {
        let name = &change.service;
        let message =
            format!("the ports of `{name}` go to its gateway: connections are refused for about {} ms", expected(plan, name).as_millis());
        let remedy = "once, at this deploy; later ones have no gap";
        objection("hand-over", Severity::Warn, Some(name), message, remedy)
    });
    found.collect()
}

/// A container that runs cannot give a port back. It is said also where nothing would be done.
fn ports_that_stay(plan: &Plan, observed: &Observed) -> Vec<Objection> {
    let mut found = Vec::new();
    for change in plan.changes.iter().filter(|change| change.interruption != Interruption::HandOver) {
        let name = &change.service;
        let stays = observed.live_gateways.get(name).filter(|_| plan.release.target.services.contains_key(name));
        for port in stays.into_iter().flat_map(|live| &live.stays) {
            let message =
                format!("`{name}` no longer publishes the host's port {}: it stays open until its gateway is recreated", port_text(port));
            let remedy = format!("to close it now, with a short gap for all ports of `{name}`: kaleem deploy --recreate {name}");
            found.push(objection("port-stays", Severity::Warn, Some(name), message, &remedy));
        }
    }
    found
}

fn holds(plan: &Plan, _observed: &Observed) -> Vec<Objection> {
    let found = plan.steps.iter().filter_map(|step| match step {
        Step::Hold { service, hold, .. } => {
            let message = format!("requests of `{service}` wait while it is recreated, each at most {} s", hold.as_secs_f32());
            let remedy = "raise `hold` in kaleem.toml where it takes longer to start: what waits longer is answered 503";
            Some(objection("hold", Severity::Note, Some(service), message, remedy))
        }
        _ => None,
    });
    found.collect()
}

/// How long a hand-over is expected to take: what running requests are given, and what the engine needs.
pub fn expected(plan: &Plan, service: &ServiceName) -> Duration {
    /// About what an engine needs that is not under load; the plan shows beside it what the last hand-over took.
    const ENGINE: Duration = Duration::from_millis(250);
    let handed = plan.steps.iter().find_map(|step| {
        let Step::HandOver { service: of, from, .. } = step else { return None };
        from.iter().filter(|_| of == service).map(|one| one.stop.grace).max()
    });
    ENGINE.saturating_add(handed.unwrap_or_default())
}

fn outdated_gateways(_plan: &Plan, observed: &Observed) -> Vec<Objection> {
    let found = observed.outdated_gateways.iter().map(|name| {
        let message = format!("the gateway of `{name}` runs another program than the one beside kaleem");
        objection("gateway-outdated", Severity::Note, Some(name), message, "`kaleem gateway upgrade` replaces it while it serves")
    });
    found.collect()
}

fn kept_addresses(plan: &Plan, observed: &Observed) -> Vec<Objection> {
    let target = &plan.release.target;
    let moves = |interruption| matches!(interruption, Interruption::StopAndStart | Interruption::HandOver);
    let moved = |client: &&Client| plan.changes.iter().any(|change| change.service == client.of && moves(change.interruption));
    // A proxy that looks names up each time, and has no connection open, keeps nothing.
    let kept = |client: &&Client| client.keeps != Keeps::Connections { open: 0 };
    let found = observed.clients.iter().filter(moved).filter(kept).map(|client| {
        let (container, of) = (&client.container, &client.of);
        let program = client.proxy.map_or_else(|| "the program".to_owned(), |kind| kind.to_string());
        let message = match &client.keeps {
            Keeps::Address { time: None } if client.known_by == Knowledge::Program => {
                format!(
                    "{program} in `{container}` shares a network with `{of}`; if it knows `{of}`, it keeps the address until it is reloaded"
                )
            }
            Keeps::Address { time: None } => format!("{program} in `{container}` keeps the address of `{of}` until it is reloaded"),
            Keeps::Address { time: Some(time) } => {
                format!("{program} in `{container}` keeps the address of `{of}` for up to {} s", time.as_secs())
            }
            Keeps::Zone { time } => {
                let seconds = time.as_secs();
                format!("{program} in `{container}` keeps the address of `{of}` in a shared zone for up to {seconds} s, also over a reload")
            }
            Keeps::Connections { open } => {
                format!("`{container}` is connected to `{of}` ({open} open): that is cut when the ports of `{of}` go to the gateway")
            }
        };
        let keeps = "the gateway gets the same address";
        let remedy = match (client.refresh(target), &client.keeps) {
            (_, Keeps::Connections { .. }) => {
                return objection("open-connections", Severity::Note, client.service.as_ref(), message, "see that it connects again");
            }
            (Some(Refresh::Reload), _) => {
                format!("{keeps}; if Docker gives it another, kaleem reloads `{container}` (`reload = false` in kaleem.toml forbids that)")
            }
            (Some(Refresh::Restart), _) => {
                format!("{keeps}; if Docker gives it another, kaleem restarts `{container}` (`reload = false` in kaleem.toml forbids that)")
            }
            (Some(Refresh::Forbidden), _) => {
                let owner = client.project.as_ref().map_or_else(|| "no project".to_owned(), |project| format!("the project `{project}`"));
                format!("{keeps}; if Docker gives it another, kaleem rolls back: `{container}` belongs to {owner} and is not touched")
            }
            (None, _) => {
                let command = match client.proxy.is_some_and(ProxyKind::is_nginx) && !matches!(client.keeps, Keeps::Zone { .. }) {
                    true => format!("docker kill --signal HUP {container}"),
                    false => format!("docker restart {container}"),
                };
                let remedy = format!("{keeps}; if Docker gives it another: `{command}`");
                return objection("kept-address", Severity::Warn, client.service.as_ref(), message, &remedy);
            }
        };
        objection("kept-address", Severity::Note, client.service.as_ref(), message, &remedy)
    });
    found.collect()
}

/// A door that gives no answer now says nothing about a plan, and is not asked afterwards.
fn shut_doors(_plan: &Plan, observed: &Observed) -> Vec<Objection> {
    let found = observed.shut_doors.iter().map(|(door, reason)| {
        let message = format!("the front door {door} gives no answer now, so that this plan is not judged by it: {reason}");
        objection(
            "front-door-shut",
            Severity::Warn,
            None,
            message,
            "check it after the deploy, or correct it under [front-door] in kaleem.toml",
        )
    });
    found.collect()
}

fn stores_replaced(plan: &Plan, _observed: &Observed) -> Vec<Objection> {
    let mut found = Vec::new();
    for change in plan.changes.iter().filter(|change| change.kind == ChangeKind::Replace) {
        let Some(wanted) = plan.release.target.services.get(&change.service) else { continue };
        if crate::plan::strategy::is_store(&wanted.image.image) {
            let message = format!("`{}` keeps data, and its own definition or image changed", change.service);
            found.push(objection("store-replaced", Severity::Warn, Some(&change.service), message, "back it up first"));
        }
    }
    found
}

/// Going back past a one-way migration runs the release before on data that it cannot read, unless the data goes back, too.
fn one_way_migrations(plan: &Plan, observed: &Observed) -> Vec<Objection> {
    if plan.kind != PlanKind::Rollback || plan.steps.iter().any(|step| matches!(step, Step::RestoreData { .. })) {
        return Vec::new();
    }
    let target = &plan.release;
    let mut found = Vec::new();
    for release in observed.releases.iter().filter(|release| release.id > target.id) {
        for (name, wanted) in &release.target.services {
            let before = target.target.services.get(name);
            let same = before.is_some_and(|before| before.image.digest == wanted.image.digest && before.definition == wanted.definition);
            if wanted.strategy != Strategy::RunToEnd || same {
                continue;
            }
            match &wanted.migration {
                Migration::Compatible => {}
                Migration::OneWay => found.push(objection(
                    "one-way-migration",
                    Severity::Refuse,
                    Some(name),
                    format!("`{name}` of {} was a one-way migration: {} does not run on what it left behind", release.id, target.id),
                    &format!("put the data back, too: `kaleem rollback {} --with-data`", target.id),
                )),
                Migration::Reversible { down } => found.push(objection(
                    "reversible-migration",
                    Severity::Warn,
                    Some(name),
                    format!("`{name}` of {} migrated the data, and going back does not take that back by itself", release.id),
                    &format!("run `{}` in a container of {}", down.join(" "), wanted.image),
                )),
            }
        }
    }
    found
}

fn strangers_in_project(plan: &Plan, observed: &Observed) -> Vec<Objection> {
    let known = |name: &ServiceName| plan.changes.iter().any(|change| change.service == *name);
    let mut services: Vec<&ServiceName> = observed
        .instances
        .iter()
        .filter(|instance| !instance.oneoff && !is_gateway(instance))
        .map(|instance| &instance.service)
        .filter(|name| !known(name))
        .collect();
    services.dedup();
    let found = services
        .into_iter()
        .filter(|name| plan.previous.is_none() || !observed.releases.iter().any(|release| release.target.services.contains_key(*name)))
        .map(|name| {
            let message = format!("`{name}` has containers, and the compose file does not name it; they are left alone");
            objection("orphan", Severity::Note, Some(name), message, "remove them with `docker rm` when they are not needed")
        });
    found.collect()
}

/// Holds the planner to its own law. An objection here is a bug.
fn order_of_steps(plan: &Plan, _observed: &Observed) -> Vec<Objection> {
    let commits: Vec<usize> =
        plan.steps.iter().enumerate().filter(|(_, step)| matches!(step, Step::Commit { .. })).map(|(index, _)| index).collect();
    let bug = |message: &str| {
        vec![objection(
            "bug",
            Severity::Refuse,
            None,
            message.to_owned(),
            "please report this: https://github.com/kaleem-release/kaleem/issues",
        )]
    };
    let [commit] = commits.as_slice() else { return bug("bug: the plan has not exactly one commit") };
    if !matches!(plan.steps.first(), Some(Step::Baseline { .. })) {
        return bug("bug: the plan does not begin with what serves now");
    }
    let early = plan.steps.iter().take(*commit).any(|step| step.undo() == Undo::Impossible);
    let late = plan.steps.iter().skip(commit + 1).any(|step| step.undo() != Undo::Impossible);
    if early || late {
        return bug("bug: the plan does something for good before its commit, or something else after it");
    }
    Vec::new()
}

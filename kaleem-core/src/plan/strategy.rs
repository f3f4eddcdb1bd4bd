//! How a service is replaced and when it counts as healthy: decided from what it is, with the reason said.

use std::time::Duration;

use crate::config::role::{self, Role};
use crate::config::settings::{HealthSettings, ServiceSettings, StrategyName};
use crate::config::{DependencyCondition, Project, Service, UpdateOrder};
use crate::definition::{ContainerPort, Definition, HealthTest, Healthcheck, MountSource, NetworkMode, PortBinding, Protocol};
use crate::health::{Need, Question};
use crate::image::{ImageKind, ImageRef};
use crate::release::{GateSettings, Strategy, UNCHECKED_STEADY};
use crate::runtime::ImageFacts;

/// Images of reverse proxies.
const PROXIES: &[&str] =
    &["caddy", "envoy", "haproxy", "httpd", "nginx", "nginx-proxy", "nginx-proxy-manager", "nginx-unprivileged", "openresty", "traefik"];
/// Why such a service has no gateway.
const FRONT_DOOR: &str =
    "it is the front door of other hosts: behind a gateway it would see the gateway's address in place of its clients'";

/// Time in which a service must become healthy where nothing is said; ten times the old script's interval was 200 s, which nobody waited for.
const DEADLINE: Duration = Duration::from_secs(120);
/// Time between two questions: short, since the answer ends the wait.
const INTERVAL: Duration = Duration::from_millis(250);
/// Time one answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Why a service is stopped before its new container starts.
const STOP_FIRST: &str = "`update_config.order` is stop-first";
/// The engine's defaults for a container's own check (engine API reference, `HealthConfig`).
const ENGINE_INTERVAL: Duration = Duration::from_secs(30);
const ENGINE_RETRIES: u64 = 3;

/// Whether gateways can be set up on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gateways {
    /// They can.
    Available,
    /// The gateway's program is not there.
    Missing,
}

/// How a service is replaced, and why.
pub fn decide(
    project: &Project,
    service: &Service,
    image: &ImageRef,
    facts: &ImageFacts,
    settings: &ServiceSettings,
    gateways: Gateways,
) -> (Strategy, String) {
    let role = Role::of(project, service, image, facts);
    if role == Role::OneShot {
        return (Strategy::RunToEnd, "another service waits for it to complete".to_owned());
    }
    let told = |(strategy, reason): (Strategy, &str)| (strategy, reason.to_owned());
    if let Some(fixed) = fixed(service, settings) {
        return told(fixed);
    }
    match role {
        Role::Store => return told((Strategy::Recreate, "it is a database or a broker: two must not run on the same data")),
        Role::Scheduler => {
            return told((Strategy::Recreate, "it starts work at certain times, and two of it would start everything twice"));
        }
        Role::OneShot | Role::Client | Role::Agent | Role::Worker(_) | Role::Consumer | Role::Server => {}
    }
    match role::writes_alone(service, image, facts) {
        Some(mount) if matches!(mount.source, MountSource::Volume { .. }) => {
            return told((Strategy::Recreate, "it writes to a named volume: two must not run on the same data"));
        }
        Some(mount) => {
            let reason = format!("it writes to `{}`, a directory of the host: two must not run on the same data", mount.target);
            return (Strategy::Recreate, reason);
        }
        None => {}
    }
    match &role {
        Role::Client => return told((Strategy::Overlap, "it runs a client of a store, and nobody connects to it")),
        Role::Agent => return told((Strategy::Overlap, "it watches others, and nobody waits for its answers")),
        Role::Worker(of) => {
            let reason = format!("it is a worker: it runs another command of the image of `{of}`, and nobody names it");
            return (Strategy::Overlap, reason);
        }
        Role::OneShot | Role::Store | Role::Scheduler | Role::Consumer | Role::Server => {}
    }
    if settings.gateway == Some(false) {
        let published = !service.definition.ports.is_empty();
        let publishes = "it has no gateway (kaleem.toml), and publishes a port of the host, which one container can hold";
        return told((Strategy::Recreate, if published { publishes } else { "it has no gateway (kaleem.toml)" }));
    }
    if is_front_door(service, image, settings) {
        return told((Strategy::Recreate, FRONT_DOOR));
    }
    if role == Role::Consumer {
        // What its image exposes is another program's.
        return told(reached(service, &ImageFacts { exposed_ports: Vec::new(), ..facts.clone() }, gateways));
    }
    told(reached(service, facts, gateways))
}

/// What a person said, and what the network leaves no choice in.
fn fixed(service: &Service, settings: &ServiceSettings) -> Option<(Strategy, &'static str)> {
    match settings.strategy {
        Some(StrategyName::Recreate) => return Some((Strategy::Recreate, "set in kaleem.toml")),
        Some(StrategyName::Overlap) => return Some((Strategy::Overlap, "set in kaleem.toml")),
        Some(StrategyName::BlueGreen) => return Some((Strategy::BlueGreen, "set in kaleem.toml")),
        Some(StrategyName::Rolling) => return Some((Strategy::Rolling, "set in kaleem.toml")),
        None => {}
    }
    if settings.singleton == Some(true) {
        return Some((Strategy::Recreate, "two of it must not run at the same time (singleton)"));
    }
    match &service.definition.network {
        NetworkMode::Host => Some((Strategy::Recreate, "it uses the host's network, where a port can be bound once")),
        NetworkMode::Service(_) | NetworkMode::Container(_) => Some((Strategy::Recreate, "it shares the network of another container")),
        NetworkMode::None | NetworkMode::Bridge => None,
        NetworkMode::Networks(networks) => networks
            .iter()
            .any(|network| network.ipv4.is_some() || network.ipv6.is_some() || network.mac_address.is_some())
            .then_some((Strategy::Recreate, "it has a static address, which one container can hold")),
    }
}

/// What follows from the ports on which it is reached.
fn reached(service: &Service, facts: &ImageFacts, gateways: Gateways) -> (Strategy, &'static str) {
    let definition = &service.definition;
    let network = !definition.ports.is_empty() || !definition.expose.is_empty() || !facts.exposed_ports.is_empty();
    let fronted = network && gateways == Gateways::Available && matches!(definition.network, NetworkMode::Networks(_));
    let tcp_alone = definition.ports.iter().all(|port| port.container.protocol == Protocol::Tcp);
    if fronted && tcp_alone && service.replicas > 1 {
        return (Strategy::Rolling, "others connect to it: a gateway keeps its name and its ports while its replicas take turns");
    }
    if service.update.order == Some(UpdateOrder::StopFirst) {
        return (Strategy::Recreate, STOP_FIRST);
    }
    if definition.ports.iter().any(|port| port.container.protocol != Protocol::Tcp) {
        return (Strategy::Recreate, "it publishes a port that is not TCP");
    }
    if fronted {
        return (Strategy::BlueGreen, "others connect to it: a gateway keeps its name and its ports while it is replaced");
    }
    if !definition.ports.is_empty() {
        return (Strategy::Recreate, "it publishes a port of the host, which one container can hold");
    }
    if !definition.expose.is_empty() || !facts.exposed_ports.is_empty() {
        return (Strategy::Recreate, "others call it by name, and would reach the new one before it is ready");
    }
    (Strategy::Overlap, "it is a worker: nobody connects to it")
}

/// Whether it is a reverse proxy whose clients come from other hosts. Behind a gateway it would see one client, the gateway: its logs, its
/// limits by address and what it tells the services behind it would be wrong. So it has no gateway where nobody said that it may.
pub fn is_front_door(service: &Service, image: &ImageRef, settings: &ServiceSettings) -> bool {
    let said = settings.gateway.is_some() || settings.proxy_protocol.is_some() || settings.hold.is_some();
    let from_outside = |port: &PortBinding| port.host_ip.is_none_or(|ip| !ip.is_loopback());
    // Several share a port of the host only behind a gateway.
    !said && service.replicas < 2 && PROXIES.contains(&image.base_name()) && service.definition.ports.iter().any(from_outside)
}

/// Whether requests are held at a gateway while a service is recreated. Where nothing is said of a `hold`, that is so for what must not run
/// twice and keeps no data in a volume: a gateway before a database costs each of its clients a hop, which only its owner can weigh.
pub fn is_held(project: &Project, service: &Service, image: &ImageRef, facts: &ImageFacts, settings: &ServiceSettings) -> bool {
    let definition = &service.definition;
    let NetworkMode::Networks(networks) = &definition.network else { return false };
    let fixed = networks.iter().any(|network| network.ipv4.is_some() || network.ipv6.is_some() || network.mac_address.is_some());
    let without = settings.gateway == Some(false) || is_front_door(service, image, settings);
    if without || fixed || definition.ports.iter().any(|port| port.container.protocol != Protocol::Tcp) {
        return false;
    }
    if let Some(hold) = settings.hold {
        return !hold.0.is_zero();
    }
    let answers = Role::of(project, service, image, facts).answers() || !definition.ports.is_empty() || !definition.expose.is_empty();
    let stored = role::writes_alone(service, image, facts).is_some_and(|mount| matches!(mount.source, MountSource::Volume { .. }));
    answers && !is_store(image) && !stored
}

/// Whether the image is a known database or broker.
pub fn is_store(image: &ImageRef) -> bool {
    ImageKind::of(image).is_store()
}

/// When a new instance counts as healthy; not whether it may end, which its project decides.
pub fn gate(service: &Service, facts: &ImageFacts, settings: Option<&HealthSettings>) -> GateSettings {
    let definition = &service.definition;
    let empty = HealthSettings::default();
    let settings = settings.unwrap_or(&empty);
    let question = if settings.none == Some(true) { Question::Running } else { question(definition, facts, settings) };
    let own_check = matches!(question, Question::Healthcheck);
    let steady = if matches!(question, Question::Running) { UNCHECKED_STEADY } else { Duration::ZERO };
    GateSettings {
        // The container's own check has counted its retries already.
        passes: settings.passes.unwrap_or(if own_check { 1 } else { 2 }).max(1),
        steady,
        interval: settings.interval.map_or(INTERVAL, |text| text.0).max(Duration::from_millis(10)),
        timeout: settings.timeout.map_or(TIMEOUT, |text| text.0),
        deadline: settings
            .deadline
            .map_or_else(|| if own_check { own_deadline(definition.healthcheck.as_ref(), facts) } else { DEADLINE }, |text| text.0),
        question,
        may_end: false,
    }
}

/// The first time at which the engine itself would call the container unhealthy, if that is later than our own limit.
fn own_deadline(check: Option<&Healthcheck>, facts: &ImageFacts) -> Duration {
    let interval = check.and_then(|check| check.interval).or(facts.healthcheck_interval).unwrap_or(ENGINE_INTERVAL);
    let timeout = check.and_then(|check| check.timeout).unwrap_or(ENGINE_INTERVAL);
    let retries = check.and_then(|check| check.retries).unwrap_or(ENGINE_RETRIES);
    let start = check.and_then(|check| check.start_period).unwrap_or_default();
    let rounds = u32::try_from(retries.saturating_add(1)).unwrap_or(u32::MAX);
    start.saturating_add((interval.saturating_add(timeout)).saturating_mul(rounds)).max(DEADLINE)
}

fn question(definition: &Definition, facts: &ImageFacts, settings: &HealthSettings) -> Question {
    if let Some(path) = &settings.http {
        let statuses = settings.status.map_or((200, 399), |status| (status, status));
        let port = settings.port.or_else(|| first_tcp(definition)).or_else(|| first_exposed(facts)).unwrap_or(80);
        return Question::Http { port, path: path.clone(), statuses, host: None, contains: settings.contains.clone() };
    }
    if let Some(port) = settings.tcp {
        return Question::Tcp { port };
    }
    if let Some(command) = &settings.command {
        return Question::Command { command: command.clone() };
    }
    let own = match definition.healthcheck.as_ref().map(|check| &check.test) {
        Some(HealthTest::Disabled) => false,
        Some(HealthTest::Shell(_) | HealthTest::Exec(_)) => true,
        Some(HealthTest::Inherit) | None => facts.has_healthcheck,
    };
    if own {
        return Question::Healthcheck;
    }
    // What the file publishes is meant; what an image merely exposes may not be listened on.
    match first_published(definition) {
        Some(port) => Question::Tcp { port },
        None => Question::Running,
    }
}

/// What must be well before a service is replaced: what `needs` says, else the databases and brokers whose health it waits
/// for by `depends_on`.
pub fn needs(project: &Project, service: &Service, settings: &ServiceSettings) -> Vec<Need> {
    if let Some(written) = &settings.needs {
        // The loader refused what does not read.
        return written.iter().filter_map(|need| need.parse().ok()).collect();
    }
    let healthy = service.depends_on.iter().filter(|(_, dependency)| dependency.condition == DependencyCondition::ServiceHealthy);
    let known = healthy.filter(|(name, _)| project.services.get(*name).is_some_and(|service| role::dependency(project, service).is_some()));
    known.map(|(name, _)| Need { service: name.clone(), probe: None, must_answer: false }).collect()
}

fn tcp(port: ContainerPort) -> Option<u16> {
    (port.protocol == Protocol::Tcp).then_some(port.port)
}

fn first_published(definition: &Definition) -> Option<u16> {
    definition.ports.iter().find_map(|port| tcp(port.container))
}

fn first_tcp(definition: &Definition) -> Option<u16> {
    first_published(definition).or_else(|| definition.expose.iter().find_map(|port| tcp(*port)))
}

fn first_exposed(facts: &ImageFacts) -> Option<u16> {
    facts.exposed_ports.iter().find_map(|port| port.strip_suffix("/tcp").unwrap_or(port).parse().ok())
}

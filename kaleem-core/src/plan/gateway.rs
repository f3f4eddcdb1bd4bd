//! The gateway of a service: it takes the name, the addresses and the ports of the service, and the service's containers lose them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use crate::config::settings::{ProtocolName, ProxyProtocolName, ServiceSettings};
use crate::config::{Service, UpdateOrder, role};
use crate::definition::{
    ContainerPort, Definition, HTTP_PORTS, Healthcheck, Mount, MountSource, NetworkAttachment, NetworkMode, Protocol, RestartPolicy,
};
use crate::health::Question;
use crate::image::PinnedImage;
use crate::names::{ContainerName, GatewayName, ProjectName};
use crate::observed::gateway_name;
use crate::release::{GateSettings, RollingSettings, WatchSettings};
use crate::runtime::ImageFacts;
use crate::traffic::DrainPolicy;

/// Where the control socket and the state are, inside the container.
pub const DIRECTORY_INSIDE: &str = "/run/kaleem";
/// Where a container means itself.
const LOOPBACK: &str = "127.0.0.1";
/// Beginnings of labels by which proxies find containers: Traefik, caddy-docker-proxy, Sozu, Easy HAProxy, and
/// the companions of nginx-proxy. From their documentation.
const FOLLOWED_LABELS: &[&str] = &["traefik", "caddy", "sozu", "easyhaproxy", "com.github.nginx-proxy", "com.github.jrcs"];
/// Variables by which nginx-proxy and its companion find containers. From its documentation.
const FOLLOWED_VARIABLES: &[&str] = &[
    "VIRTUAL_HOST",
    "VIRTUAL_HOST_MULTIPORTS",
    "VIRTUAL_PORT",
    "VIRTUAL_PATH",
    "VIRTUAL_DEST",
    "VIRTUAL_PROTO",
    "VIRTUAL_ROOT",
    "LETSENCRYPT_HOST",
    "LETSENCRYPT_EMAIL",
];
/// Time a switch is watched where nothing is said: errors of a bad release show in its first requests.
const WATCH: Duration = Duration::from_secs(5);
/// Failing requests allowed in the watch, in thousandths: the 5 % at which operators go back.
const FAILURES_PER_MILLE: u32 = 50;
/// Requests before that share counts: one failure of three says little.
const LEAST_REQUESTS: u64 = 10;
/// Time that requests have to end at an old instance where nothing is said; nginx gives an upstream 60 s, browsers give up earlier.
const DRAIN: Duration = Duration::from_secs(30);
/// Longest time that a request waits while a service is recreated, where nothing is said: as long as most browsers' users would.
pub const HOLD: Duration = Duration::from_secs(10);
/// The same for WebSockets and event streams, which do not end by themselves.
const STREAMS: Duration = Duration::from_secs(10);

/// What gateways are made from on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayPlace {
    /// The image of the gateway's program.
    pub image: PinnedImage,
    /// Below it each gateway has a directory.
    pub directory: PathBuf,
    /// User and group in the container, which own that directory.
    pub user: (u32, u32),
}

/// A service split in two.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// What its containers are to be: without its ports and names.
    pub instance: Definition,
    /// What its gateway is to be: with them.
    pub gateway: Definition,
    /// The networks of the gateway.
    pub networks: Vec<NetworkAttachment>,
    /// The ports on which it listens.
    pub ports: BTreeSet<u16>,
    /// Whether the file itself names one of them.
    pub declares_ports: bool,
    /// The gateway's name.
    pub name: GatewayName,
    /// The gateway's container.
    pub container: ContainerName,
    /// Ports that it passes on as TCP, without looking at requests.
    pub tcp: BTreeSet<u16>,
    /// Ports on which nothing tells the service who its client is.
    pub hidden: BTreeSet<u16>,
}

/// Splits a service. `None` where no port is known on which it could be reached.
pub fn split(
    project: &ProjectName,
    service: &Service,
    facts: &ImageFacts,
    gate: &GateSettings,
    settings: &ServiceSettings,
    place: &GatewayPlace,
) -> Option<Split> {
    let NetworkMode::Networks(networks) = &service.definition.network else { return None };
    let ports = ports(service, facts, gate);
    if ports.is_empty() {
        return None;
    }
    let container = gateway_name(project, &service.name);
    let name: GatewayName = container.as_str().parse().ok()?;
    let mut instance = service.definition.clone();
    instance.ports.clear();
    know_itself(&mut instance, service, networks);
    let followed = take_followed(&mut instance);
    let mut taken = networks.clone();
    if let NetworkMode::Networks(own) = &mut instance.network {
        for attachment in own {
            attachment.aliases.clear();
        }
    }
    if let Some(fixed) = &service.container_name {
        // Whoever called it by its container's name finds the gateway there.
        for attachment in &mut taken {
            attachment.aliases.push(fixed.to_string());
        }
    }
    let mut command = vec!["gateway".to_owned(), "--directory".to_owned(), DIRECTORY_INSIDE.to_owned()];
    let fastcgi = role::speaks_fastcgi(service, facts);
    let mode = |port: u16| if fastcgi && settings.protocol.is_none() { "tcp" } else { mode(port, gate, settings) };
    for port in &ports {
        command.push("--listen".to_owned());
        command.push(format!("{port}/{}{}", mode(*port), proxy_protocol(settings)));
    }
    let tcp: BTreeSet<u16> = ports.iter().copied().filter(|port| mode(*port) == "tcp").collect();
    let hidden = if tells_the_service(settings) { BTreeSet::new() } else { tcp.clone() };
    match settings.trusted_proxies.as_deref() {
        None => {}
        Some([]) => command.push("--distrust-forwarded".to_owned()),
        Some(networks) => command.extend(networks.iter().flat_map(|network| ["--trust-forwarded".to_owned(), network.clone()])),
    }
    if settings.access_log == Some(true) {
        command.push("--access-log".to_owned());
    }
    let bind = MountSource::Bind {
        path: place.directory.join(name.as_str()).display().to_string(),
        create_host_path: false,
        propagation: None,
        selinux: None,
    };
    let gateway = Definition {
        command: Some(command),
        user: Some(format!("{}:{}", place.user.0, place.user.1)),
        restart: RestartPolicy::Always,
        stop_grace: Some(Duration::from_secs(10)),
        ports: service.definition.ports.clone(),
        expose: ports.iter().map(|port| ContainerPort { port: *port, protocol: Protocol::Tcp }).collect(),
        mounts: vec![Mount { target: DIRECTORY_INSIDE.to_owned(), read_only: false, source: bind }],
        network: NetworkMode::Networks(taken.clone()),
        cap_drop: vec!["ALL".to_owned()],
        security_opt: vec!["no-new-privileges".to_owned()],
        read_only: true,
        healthcheck: Some(Healthcheck::DISABLED),
        extra_hosts: Vec::new(),
        environment: followed.environment,
        labels: followed.labels,
        ..Definition::default()
    };
    let declared = service.definition.ports.iter().map(|port| port.container).chain(service.definition.expose.iter().copied());
    let declares_ports = declared.into_iter().any(|port| port.protocol == Protocol::Tcp);
    Some(Split { instance, gateway, networks: taken, ports, declares_ports, name, container, tcp, hidden })
}

/// Under the names of its service a container means itself, as without a gateway: health checks and applications call themselves so.
fn know_itself(instance: &mut Definition, service: &Service, networks: &[NetworkAttachment]) {
    let aliases = networks.iter().flat_map(|network| network.aliases.iter().cloned());
    let names: BTreeSet<String> = aliases.chain(service.container_name.as_ref().map(ToString::to_string)).collect();
    let known: BTreeSet<String> = instance.extra_hosts.iter().map(|(name, _)| name.clone()).collect();
    instance.extra_hosts.extend(names.difference(&known).map(|name| (name.clone(), LOOPBACK.to_owned())));
}

/// What a proxy that follows containers reads of them.
struct Followed {
    labels: BTreeMap<String, String>,
    environment: BTreeMap<String, Option<String>>,
}

/// Takes from the instance what a proxy follows, so that such a proxy sends to the gateway, and to no instance past it.
fn take_followed(instance: &mut Definition) -> Followed {
    let is_label = |name: &str| FOLLOWED_LABELS.iter().any(|start| name == *start || name.strip_prefix(start).is_some_and(is_next_part));
    let is_variable = |name: &str| FOLLOWED_VARIABLES.contains(&name);
    let (labels, own) = std::mem::take(&mut instance.labels).into_iter().partition(|(name, _)| is_label(name));
    instance.labels = own;
    let (environment, own) = std::mem::take(&mut instance.environment).into_iter().partition(|(name, _)| is_variable(name));
    instance.environment = own;
    Followed { labels, environment }
}

/// Whether what follows the beginning of a label is another part of its name: `.http.routers.…`, or the number of `caddy_1`.
fn is_next_part(rest: &str) -> bool {
    rest.starts_with(['.', '_', '-'])
}

/// TCP ports on which the service can be reached: published, exposed by the file, asked by its gate, exposed by its image.
fn ports(service: &Service, facts: &ImageFacts, gate: &GateSettings) -> BTreeSet<u16> {
    let definition = &service.definition;
    let published = definition.ports.iter().map(|port| port.container);
    let declared = published.chain(definition.expose.iter().copied()).filter(|port| port.protocol == Protocol::Tcp).map(|port| port.port);
    let asked = match &gate.question {
        Question::Http { port, .. } | Question::Tcp { port } => Some(*port),
        Question::Running | Question::Healthcheck | Question::Command { .. } => None,
    };
    let exposed = facts.exposed_ports.iter().filter_map(|port| match port.split_once('/') {
        Some((port, "tcp")) => port.parse().ok(),
        Some(_) => None,
        None => port.parse().ok(),
    });
    declared.chain(asked).chain(exposed).collect()
}

fn mode(port: u16, gate: &GateSettings, settings: &ServiceSettings) -> &'static str {
    match settings.protocol {
        Some(ProtocolName::Http) => return "http",
        Some(ProtocolName::Tcp) => return "tcp",
        None => {}
    }
    let asked = matches!(&gate.question, Question::Http { port: asked, .. } if *asked == port);
    if asked || HTTP_PORTS.contains(&port) { "http" } else { "tcp" }
}

fn tells_the_service(settings: &ServiceSettings) -> bool {
    matches!(settings.proxy_protocol, Some(ProxyProtocolName::Out | ProxyProtocolName::Both))
}

/// The options of a port that say where the PROXY protocol is spoken.
fn proxy_protocol(settings: &ServiceSettings) -> &'static str {
    match settings.proxy_protocol {
        Some(ProxyProtocolName::In) => ",accept-proxy",
        Some(ProxyProtocolName::Out) => ",send-proxy",
        Some(ProxyProtocolName::Both) => ",accept-proxy,send-proxy",
        None => "",
    }
}

/// What is watched after a switch.
pub fn watch(service: &Service, settings: &ServiceSettings) -> WatchSettings {
    WatchSettings {
        window: settings.watch.map(|text| text.0).or(service.update.monitor).unwrap_or(WATCH),
        failures_per_mille: settings.max_error_percent.map_or(FAILURES_PER_MILLE, |percent| percent.saturating_mul(10)),
        least_requests: settings.least_requests.unwrap_or(LEAST_REQUESTS),
        slowest: settings.max_latency.map(|text| text.0),
    }
}

/// How replicas take turns: as `kaleem.toml` says, else as `update_config` of the compose file does.
pub fn rolling(service: &Service, settings: &ServiceSettings) -> RollingSettings {
    let replicas = service.replicas.max(1);
    // Compose: 0 is all of them.
    let parallelism =
        service.update.parallelism.map(|number| if number == 0 { replicas } else { u32::try_from(number).unwrap_or(replicas) });
    let batch = settings.batch.or(parallelism).unwrap_or(1).clamp(1, replicas);
    let stop_first = service.update.order == Some(UpdateOrder::StopFirst) || settings.max_unavailable.is_some_and(|number| number > 0);
    let surge = settings.max_surge.unwrap_or(if stop_first { 0 } else { batch });
    let unavailable = settings.max_unavailable.unwrap_or(if surge == 0 { batch } else { 0 });
    RollingSettings { batch, surge, unavailable: unavailable.min(replicas) }
}

/// How the plan says it.
pub fn rolling_text(rolling: &RollingSettings, replicas: u32) -> String {
    let turn = rolling.turn();
    let less =
        if rolling.unavailable > 0 { format!(", at least {} serve", replicas.saturating_sub(rolling.unavailable)) } else { String::new() };
    format!("{turn} at a time, at most {} run{less}", replicas.saturating_add(rolling.surge))
}

/// How long what runs at an old instance may go on.
pub fn drain(settings: &ServiceSettings) -> DrainPolicy {
    DrainPolicy {
        requests: settings.drain.map_or(DRAIN, |text| text.0),
        streams: STREAMS.min(settings.drain.map_or(STREAMS, |text| text.0)),
    }
}

//! Where clients ask: ports of the host, and what an nginx of the project sends on. Only what works now is promised to work afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future;

use super::nginx::Directive;
use super::proxy::{ProxyKind, nginx_configurations};
use super::routes::{Route, routes};
use crate::config::Project;
use crate::definition::{HTTP_PORTS, PortBinding, Protocol};
use crate::health::{DependencyKind, Door, Probes, Verdict};
use crate::image::{ImageKind, ImageRef};
use crate::names::{ContainerName, ProjectName, ServiceName};
use crate::observed::{Observed, gateway_of, is_gateway, port_containers_of};
use crate::release::Target;
use crate::runtime::{Instance, InstanceStatus, Runtime, RuntimeError};

/// Time one answer may take while a plan is made: a door that is slower than that is not asked about later either.
const ANSWER: Duration = Duration::from_secs(2);
/// Most doors of a plan: each is asked after every switch.
const MOST_DOORS: usize = 48;
/// Ports on which TLS is spoken, by convention.
const TLS_PORTS: &[u16] = &[443, 4443, 8443, 9443];

/// What was seen at the doors of a project.
pub(crate) struct Doors {
    /// Those that work now.
    pub(crate) open: Vec<Door>,
    /// Those that kaleem.toml names and that do not, with why.
    pub(crate) shut: Vec<(Door, String)>,
}

/// What the files say of a service.
struct Described<'a> {
    image: Option<&'a ImageRef>,
    /// What it publishes.
    ports: &'a [PortBinding],
}

/// What is known of a project whose doors are looked for.
struct Known<'a> {
    project: &'a ProjectName,
    /// Its services, as the files describe them.
    services: BTreeMap<&'a ServiceName, Described<'a>>,
    instances: &'a [Instance],
    /// Configurations of nginx that were read already.
    looked: &'a BTreeMap<ContainerName, Vec<Directive>>,
}

/// Asks at every door of a project.
pub(crate) async fn find(runtime: &Arc<dyn Runtime>, probes: &Arc<dyn Probes>, target: &Target, observed: &Observed) -> Doors {
    let known = Known {
        project: &target.project,
        services: target
            .services
            .iter()
            .map(|(name, wanted)| (name, Described { image: Some(&wanted.image.image), ports: &wanted.ports }))
            .collect(),
        instances: observed.instances.as_slice(),
        looked: &observed.looked,
    };
    let mut groups: Vec<Vec<Door>> = target.front_door.iter().map(|door| vec![door.clone()]).collect();
    groups.extend(detected(runtime, &known).await.into_iter().map(|found| found.ways));
    groups.truncate(MOST_DOORS);
    let (mut open, mut shut) = (BTreeSet::new(), Vec::new());
    for answer in future::join_all(groups.into_iter().map(|group| ask(probes, group))).await {
        match answer {
            Ok(door) => {
                open.insert(door);
            }
            Err(door) => shut.extend(door.filter(|(door, _)| target.front_door.contains(door))),
        }
    }
    Doors { open: open.into_iter().collect(), shut }
}

/// Of several ways to ask one port the first that works is the one; else the first, with what was seen last.
async fn ask(probes: &Arc<dyn Probes>, group: Vec<Door>) -> Result<Door, Option<(Door, String)>> {
    let mut reason = String::new();
    for door in &group {
        let finding = probes.ask_door(door, ANSWER).await;
        if finding.verdict == Verdict::Ok {
            return Ok(door.clone());
        }
        reason = finding.reason;
    }
    Err(group.into_iter().next().map(|door| (door, reason)))
}

/// A door that nobody named.
struct Detected {
    /// How it may be asked, the most telling way first.
    ways: Vec<Door>,
    /// What led to it.
    origin: DoorOrigin,
}

async fn detected(runtime: &Arc<dyn Runtime>, known: &Known<'_>) -> Vec<Detected> {
    let mut found = Vec::new();
    for (name, described) in &known.services {
        let is_store = described.image.is_some_and(|image| DependencyKind::of_image(image).is_some());
        for (port, owner) in published(known, name) {
            let origin = DoorOrigin::Port { service: owner.clone(), port: port.clone() };
            found.push(Detected { ways: ways(&port, owner, is_store), origin });
        }
    }
    for (name, route) in routes_of(runtime, known).await {
        for (port, _) in published(known, &name).into_iter().filter(|(_, owner)| **owner == name) {
            let origin = DoorOrigin::Route { nginx: name.clone(), service: route.service.clone(), path: route.path.clone() };
            found.extend(behind_route(&port, &name, &route).map(|door| Detected { ways: vec![door], origin }));
        }
    }
    found
}

/// What led to a door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DoorOrigin {
    /// A service publishes a port.
    Port {
        /// The service.
        service: ServiceName,
        /// The port.
        port: PortBinding,
    },
    /// An nginx of the project passes a path to a service.
    Route {
        /// The service that is the nginx.
        nginx: ServiceName,
        /// Who answers.
        service: ServiceName,
        /// The path.
        path: String,
    },
}

/// An entry of `[front-door]` that a person may want.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// A name for it, unique among the proposals.
    pub name: String,
    /// The door.
    pub door: Door,
    /// What led to it.
    pub origin: DoorOrigin,
    /// Why it gives no answer now; `None` where it does.
    pub shut: Option<String>,
}

/// Doors that a person may want to name: what the containers of a project publish, and what its nginx passes on. Databases are left out.
pub(crate) async fn propose(
    runtime: &Arc<dyn Runtime>,
    probes: &Arc<dyn Probes>,
    project: &Project,
) -> Result<Vec<Proposal>, RuntimeError> {
    let instances = runtime.list(&project.name).await?;
    let services = project
        .services
        .values()
        .map(|service| (&service.name, Described { image: service.image.as_ref(), ports: &service.definition.ports }));
    let looked = BTreeMap::new();
    let known = Known { project: &project.name, services: services.collect(), instances: &instances, looked: &looked };
    let is_store = |service: &ServiceName| {
        let image = project.services.get(service).and_then(|service| service.image.as_ref());
        image.is_some_and(|image| ImageKind::of(image).is_store())
    };
    let mut proposals: Vec<Proposal> = Vec::new();
    for Detected { ways, origin } in detected(runtime, &known).await {
        let base = match &origin {
            DoorOrigin::Port { service, .. } if is_store(service) => continue,
            DoorOrigin::Port { service, .. } => service.to_string(),
            DoorOrigin::Route { service, path, .. } => named_by(service, path),
        };
        if proposals.len() >= MOST_DOORS {
            break;
        }
        let (door, shut) = match ask(probes, ways).await {
            Ok(door) => (door, None),
            Err(Some((door, reason))) => (door, Some(reason)),
            Err(None) => continue,
        };
        if proposals.iter().any(|other| other.door.url == door.url && other.door.connect == door.connect) {
            continue;
        }
        let taken = |name: &str| proposals.iter().any(|other| other.name == name);
        let mut name = base.clone();
        for number in 2_u32.. {
            if !taken(&name) {
                break;
            }
            name = format!("{base}-{number}");
        }
        proposals.push(Proposal { name, door, origin, shut });
    }
    Ok(proposals)
}

/// A name for a path of a service: `api` for `/` of `api`, `web-login` for `/login/` of `web`.
fn named_by(service: &ServiceName, path: &str) -> String {
    let words: Vec<&str> = path.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    // A path that is the service's own name says nothing more.
    match words.as_slice() {
        [] => service.to_string(),
        [only] if *only == service.as_str() => service.to_string(),
        words => format!("{service}-{}", words.join("-").to_lowercase()),
    }
}

/// TCP ports of this host that lead to a service now, through its gateway or not, and to whom they will lead. A port that nobody is to publish
/// any more is no door: nothing is promised of it.
fn published<'a>(known: &Known<'a>, service: &ServiceName) -> BTreeMap<PortBinding, &'a ServiceName> {
    let own = known.instances.iter().filter(|one| one.service == *service && !is_gateway(one));
    let gateways =
        gateway_of(known.project, service, known.instances).into_iter().chain(port_containers_of(known.project, service, known.instances));
    let all = own.chain(gateways);
    let ports = all.filter(|one| one.state.status == InstanceStatus::Running).flat_map(|one| one.ports.iter().cloned());
    let owner = |port: &PortBinding| {
        let publishes = |described: &Described<'_>| described.ports.iter().any(|wanted| wanted.collides(port));
        known.services.iter().find(|(_, described)| publishes(described)).map(|(name, _)| *name)
    };
    let tcp = ports.filter(|port| port.container.protocol == Protocol::Tcp && port.host_ports.is_some());
    tcp.filter_map(|port| owner(&port).map(|owner| (port, owner))).collect()
}

fn place(port: &PortBinding) -> Option<SocketAddr> {
    let (host, _) = port.host_ports?;
    let ip = port.host_ip.filter(|ip| !ip.is_unspecified()).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    Some(SocketAddr::new(ip, host))
}

/// How a published port may be asked, the most telling way first.
fn ways(port: &PortBinding, service: &ServiceName, is_store: bool) -> Vec<Door> {
    let Some(place) = place(port) else { return Vec::new() };
    let door = |scheme: &str, rest: &str| Door::new(format!("{scheme}://{place}{rest}"), None, BTreeSet::from([service.clone()]));
    // A request would be an attack in the log of a database.
    if is_store || !speaks_http(port.container.port) {
        return vec![door("tcp", "")];
    }
    let scheme = if TLS_PORTS.contains(&port.container.port) { "https" } else { "http" };
    vec![door(scheme, "/"), door("tcp", "")]
}

fn speaks_http(port: u16) -> bool {
    TLS_PORTS.contains(&port) || HTTP_PORTS.contains(&port)
}

/// What nginx'es of the project send to its services.
async fn routes_of(runtime: &Arc<dyn Runtime>, known: &Known<'_>) -> Vec<(ServiceName, Route)> {
    let is_nginx = |one: &&Instance| {
        let image = known.services.get(&one.service).and_then(|described| described.image).and_then(ProxyKind::of_image);
        // One that was built here has any name: it is known by what it publishes.
        let listens = one.ports.iter().any(|port| matches!(port.container.port, 80 | 443));
        image.map_or(listens, ProxyKind::is_nginx)
    };
    let running = known.instances.iter().filter(|one| one.state.status == InstanceStatus::Running && !is_gateway(one));
    let containers: BTreeMap<ContainerName, ServiceName> =
        running.filter(is_nginx).map(|one| (one.name.clone(), one.service.clone())).collect();
    if containers.is_empty() {
        return Vec::new();
    }
    let names: Vec<ContainerName> = containers.keys().filter(|name| !known.looked.contains_key(*name)).cloned().collect();
    let names_of: BTreeMap<String, ServiceName> = known.services.keys().map(|name| (name.to_string(), (*name).clone())).collect();
    let mut configurations = known.looked.clone();
    if !names.is_empty() {
        configurations.extend(nginx_configurations(runtime, &names).await);
    }
    let found = configurations.into_iter().filter_map(|(container, directives)| Some((containers.get(&container)?.clone(), directives)));
    found.flat_map(|(service, directives)| routes(&directives, &names_of).into_iter().map(move |route| (service.clone(), route))).collect()
}

/// The door of a route, at a port of the host that leads to its nginx.
fn behind_route(port: &PortBinding, nginx: &ServiceName, route: &Route) -> Option<Door> {
    if port.container.port != route.port {
        return None;
    }
    let place = place(port)?;
    let scheme = if route.tls { "https" } else { "http" };
    let host = route.host.clone().unwrap_or_else(|| place.ip().to_string());
    let behind = BTreeSet::from([nginx.clone(), route.service.clone()]);
    Some(Door::new(format!("{scheme}://{host}:{}{}", place.port(), route.path), Some(place), behind))
}

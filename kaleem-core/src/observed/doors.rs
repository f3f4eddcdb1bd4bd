//! Where clients ask: ports of the host, and what an nginx of the project sends on. Only what works now is promised to work afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future;

use super::proxy::{ProxyKind, nginx_configurations};
use super::routes::{Route, routes};
use crate::definition::{HTTP_PORTS, PortBinding, Protocol};
use crate::health::{DependencyKind, Door, Probes, Verdict};
use crate::names::{ContainerName, ServiceName};
use crate::observed::{Observed, gateway_of, is_gateway};
use crate::release::{Target, Wanted};
use crate::runtime::{Instance, InstanceStatus, Runtime};

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

/// Asks at every door of a project.
pub(crate) async fn find(runtime: &Arc<dyn Runtime>, probes: &Arc<dyn Probes>, target: &Target, observed: &Observed) -> Doors {
    let instances = observed.instances.as_slice();
    let mut groups: Vec<Vec<Door>> = target.front_door.iter().map(|door| vec![door.clone()]).collect();
    for (name, wanted) in &target.services {
        let is_store = DependencyKind::of_image(&wanted.image.image).is_some();
        groups.extend(published(target, instances, name).into_iter().map(|(port, owner)| ways(&port, owner, is_store)));
    }
    for (name, route) in routes_of(runtime, target, observed).await {
        let ports = published(target, instances, &name).into_iter().filter(|(_, owner)| **owner == name).map(|(port, _)| port);
        groups.extend(ports.filter_map(|port| behind_route(&port, &name, &route)).map(|door| vec![door]));
    }
    groups.truncate(MOST_DOORS);
    // Of several ways to ask one port the first that works is the one.
    let asked = groups.into_iter().map(async |group| {
        let mut reason = String::new();
        for door in &group {
            let finding = probes.ask_door(door, ANSWER).await;
            if finding.verdict == Verdict::Ok {
                return Ok(door.clone());
            }
            reason = finding.reason;
        }
        Err(group.into_iter().next().map(|door| (door, reason)))
    });
    let (mut open, mut shut) = (BTreeSet::new(), Vec::new());
    for answer in future::join_all(asked).await {
        match answer {
            Ok(door) => {
                open.insert(door);
            }
            Err(door) => shut.extend(door.filter(|(door, _)| target.front_door.contains(door))),
        }
    }
    Doors { open: open.into_iter().collect(), shut }
}

/// TCP ports of this host that lead to a service now, through its gateway or not, and to whom they will lead. A port that nobody is to publish
/// any more is no door: nothing is promised of it.
fn published<'a>(target: &'a Target, instances: &[Instance], service: &ServiceName) -> BTreeMap<PortBinding, &'a ServiceName> {
    let own = instances.iter().filter(|one| one.service == *service && !is_gateway(one));
    let all = own.chain(gateway_of(&target.project, service, instances));
    let ports = all.filter(|one| one.state.status == InstanceStatus::Running).flat_map(|one| one.ports.iter().cloned());
    let owner = |port: &PortBinding| {
        let publishes = |wanted: &Wanted| wanted.ports.iter().any(|wanted| wanted.collides_with(port));
        target.services.iter().find(|(_, wanted)| publishes(wanted)).map(|(name, _)| name)
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
async fn routes_of(runtime: &Arc<dyn Runtime>, target: &Target, observed: &Observed) -> Vec<(ServiceName, Route)> {
    let instances = observed.instances.as_slice();
    let is_nginx = |one: &&Instance| {
        let wanted = target.services.get(&one.service);
        let image = wanted.and_then(|wanted| ProxyKind::of_image(&wanted.image.image));
        // One that was built here has any name: it is known by what it publishes.
        let listens = one.ports.iter().any(|port| matches!(port.container.port, 80 | 443));
        image.map_or(listens, ProxyKind::is_nginx)
    };
    let running = instances.iter().filter(|one| one.state.status == InstanceStatus::Running && !is_gateway(one));
    let containers: BTreeMap<ContainerName, ServiceName> =
        running.filter(is_nginx).map(|one| (one.name.clone(), one.service.clone())).collect();
    if containers.is_empty() {
        return Vec::new();
    }
    let names: Vec<ContainerName> = containers.keys().filter(|name| !observed.looked.contains_key(*name)).cloned().collect();
    let known: BTreeMap<String, ServiceName> = target.services.keys().map(|name| (name.to_string(), name.clone())).collect();
    let mut configurations = observed.looked.clone();
    if !names.is_empty() {
        configurations.extend(nginx_configurations(runtime, &names).await);
    }
    let found = configurations.into_iter().filter_map(|(container, directives)| Some((containers.get(&container)?.clone(), directives)));
    found.flat_map(|(service, directives)| routes(&directives, &known).into_iter().map(move |route| (service.clone(), route))).collect()
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

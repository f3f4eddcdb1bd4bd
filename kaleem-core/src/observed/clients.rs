//! Who would notice that a service moves to another address: proxies that look names up once, and programs that are connected.
//!
//! It is a help, and no plan depends on it: what cannot be seen is left out. Nothing is run in any container. Programs and connections
//! are seen through the host, and files of proxies of this project are copied out: two questions for a container at most, however many
//! services it may know.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use serde::{Deserialize, Serialize};

use super::nginx::{Directive, Kept};
use super::proxy::{self, Configuration, Owner, ProxyKind};
use crate::definition::DefinitionId;
use crate::names::{ContainerName, NetworkName, ProjectName, ServiceName};
use crate::observed::{gateway_of, is_gateway};
use crate::release::Target;
use crate::runtime::{Inside, Instance, InstanceStatus, Neighbour, Runtime};

/// How many proxies are read at the same time.
const QUESTIONS_AT_ONCE: usize = 8;
/// Images of gateways begin with this: a gateway asks by name for each connection.
const GATEWAYS: &str = "kaleem.invalid/gateway";

/// A container that has something to do with the address of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// The container.
    pub container: ContainerName,
    /// The project whose label it carries.
    pub project: Option<String>,
    /// Its service, where Compose or kaleem made it.
    pub service: Option<ServiceName>,
    /// The service whose address it knows.
    pub of: ServiceName,
    /// Which proxy it is, if it is one.
    pub proxy: Option<ProxyKind>,
    /// What it keeps.
    pub keeps: Keeps,
    /// How that is known.
    pub known_by: Knowledge,
}

/// What a client keeps of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// It looked the name up.
    Address {
        /// How long it keeps the address; `None` is until it is reloaded.
        time: Option<Duration>,
    },
    /// It is an nginx that looked the name up for an upstream in shared memory: a reload keeps it, and only time or a restart ends that.
    Zone {
        /// How long it keeps the address.
        time: Duration,
    },
    /// It is connected, or follows the labels of containers, as Traefik does.
    Connections {
        /// How many connections are open.
        open: usize,
    },
}

/// How it is known what a client keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Knowledge {
    /// Its configuration names the service.
    Configuration,
    /// It is connected to the service.
    Connections,
    /// It is a proxy on a network of the service, and its configuration could not be read: it may know the service or not.
    Program,
}

/// What makes a web server look a name up again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refresh {
    /// It reads its configuration again.
    Reload,
    /// Only a restart: nginx carries the servers of an upstream with a `zone` over a reload.
    Restart,
    /// Nothing that kaleem may do, since it is another project's. The step fails if its address is not right any more.
    Forbidden,
}

impl Client {
    /// What makes it look the name up again; `None` where it keeps no address, or where its owner said that kaleem is to leave it alone.
    pub fn refresh(&self, target: &Target) -> Option<Refresh> {
        let refresh = match &self.keeps {
            Keeps::Connections { .. } => return None,
            Keeps::Address { .. } if self.proxy.is_none_or(ProxyKind::is_nginx) => Refresh::Reload,
            Keeps::Address { .. } | Keeps::Zone { .. } => Refresh::Restart,
        };
        if self.project.as_deref() != Some(target.project.as_str()) {
            // One that only shares a network may have nothing to do with the service.
            return (self.known_by != Knowledge::Program).then_some(Refresh::Forbidden);
        }
        let wanted = self.service.as_ref().and_then(|service| target.services.get(service));
        wanted.is_none_or(|wanted| wanted.reload).then_some(refresh)
    }
}

/// A service, as its clients see it.
struct Known<'a> {
    service: &'a ServiceName,
    /// Names by which it is called.
    names: BTreeSet<&'a str>,
    networks: BTreeSet<NetworkName>,
    addresses: Vec<IpAddr>,
}

impl<'a> Known<'a> {
    fn of(project: &ProjectName, service: &'a ServiceName, names: &'a BTreeSet<String>, instances: &[Instance]) -> Option<Self> {
        let running = |instance: &&Instance| instance.state.status == InstanceStatus::Running;
        let serving: Vec<&Instance> = match gateway_of(project, service, instances).filter(running) {
            Some(gateway) => vec![gateway],
            None => instances.iter().filter(running).filter(|one| one.service == *service && !is_gateway(one)).collect(),
        };
        let networks: BTreeSet<NetworkName> = serving.iter().flat_map(|one| one.addresses.keys().cloned()).collect();
        let addresses = serving.iter().flat_map(|one| one.addresses.values()).filter_map(|address| address.parse().ok()).collect();
        let names = names.iter().map(String::as_str).chain([service.as_str()]).collect();
        (!networks.is_empty()).then_some(Self { service, names, networks, addresses })
    }
}

/// What was seen of a container on the networks.
struct Seen {
    neighbour: Neighbour,
    proxy: Option<ProxyKind>,
    configuration: Option<Configuration>,
    inside: Inside,
}

/// What a look for clients found.
pub(super) struct Found {
    pub(super) clients: Vec<Client>,
    /// Containers that were looked at, with the configuration of those that are an nginx of this project: none is asked twice.
    pub(super) looked: BTreeMap<ContainerName, Vec<Directive>>,
}

/// Looks for clients of services whose address is about to move: they get a gateway, or lose it.
///
/// A service that keeps the gateway it has moves nowhere; `gets` says what the gateway of each is to be.
pub(super) async fn find(
    runtime: &Arc<dyn Runtime>,
    project: &ProjectName,
    instances: &[Instance],
    routed: &BTreeMap<ServiceName, BTreeSet<String>>,
    gets: &dyn Fn(&ServiceName) -> Option<DefinitionId>,
) -> Found {
    let running = |instance: &&Instance| instance.state.status == InstanceStatus::Running;
    let moves = |service: &ServiceName| {
        let has = gateway_of(project, service, instances).filter(running).map(|gateway| gateway.definition.clone());
        has != gets(service).map(Some)
    };
    let known = routed.iter().filter(|(service, _)| moves(service));
    let known: Vec<Known<'_>> = known.filter_map(|(service, names)| Known::of(project, service, names, instances)).collect();
    let seen = look(runtime, project, instances, &known).await;
    let mut clients = Vec::new();
    for known in &known {
        // Its own instances are no clients.
        let own = |name: &ContainerName| instances.iter().any(|one| one.name == *name && one.service == *known.service);
        for seen in seen.iter().filter(|seen| !own(&seen.neighbour.name)) {
            if !seen.neighbour.addresses.keys().any(|network| known.networks.contains(network)) {
                continue;
            }
            if let Some((keeps, known_by)) = seen.keeps(known) {
                let Neighbour { name, project, service, .. } = seen.neighbour.clone();
                clients.push(Client { container: name, project, service, of: known.service.clone(), proxy: seen.proxy, keeps, known_by });
            }
        }
    }
    let looked = seen.into_iter().map(|seen| (seen.neighbour.name, seen.configuration.map(|found| found.directives).unwrap_or_default()));
    Found { clients, looked: looked.collect() }
}

/// Looks at each container on the networks once. What cannot be asked is left out.
async fn look(runtime: &Arc<dyn Runtime>, project: &ProjectName, instances: &[Instance], known: &[Known<'_>]) -> Vec<Seen> {
    let networks: BTreeSet<NetworkName> = known.iter().flat_map(|known| known.networks.iter().cloned()).collect();
    if networks.is_empty() {
        return Vec::new();
    }
    let neighbours = runtime.neighbours(&networks.into_iter().collect::<Vec<_>>()).await.unwrap_or_default();
    let gateway = |name: &ContainerName| instances.iter().any(|one| one.name == *name && is_gateway(one));
    let neighbours: Vec<Neighbour> = neighbours.into_iter().filter(|one| !one.image.starts_with(GATEWAYS) && !gateway(&one.name)).collect();
    let names: Vec<ContainerName> = neighbours.iter().map(|neighbour| neighbour.name.clone()).collect();
    let mut inside = runtime.inside(&names).await.unwrap_or_default();
    let found = neighbours.into_iter().map(|neighbour| {
        let inside = inside.remove(&neighbour.name);
        async move {
            let proxy = ProxyKind::of(inside.as_ref(), &neighbour.image);
            let inside = inside.unwrap_or_default();
            let owner = if neighbour.project.as_deref() == Some(project.as_str()) { Owner::Ours } else { Owner::Theirs };
            let configuration = match proxy {
                Some(kind) => proxy::configuration(runtime, &neighbour.name, kind, &inside.processes, owner).await,
                None => None,
            };
            Seen { neighbour, proxy, configuration, inside }
        }
    });
    stream::iter(found).buffered(QUESTIONS_AT_ONCE).collect().await
}

impl Seen {
    /// What it keeps of a service, and how that is known.
    fn keeps(&self, known: &Known<'_>) -> Option<(Keeps, Knowledge)> {
        let open = self.inside.connections_to(&known.addresses);
        let connected = || (open > 0).then_some((Keeps::Connections { open }, Knowledge::Connections));
        let until_reload = Keeps::Address { time: None };
        let kind = match self.proxy {
            None | Some(ProxyKind::Caddy | ProxyKind::Envoy) => return connected(),
            Some(ProxyKind::Traefik) => return Some((Keeps::Connections { open }, Knowledge::Program)),
            Some(kind @ (ProxyKind::Nginx | ProxyKind::OpenResty | ProxyKind::Haproxy | ProxyKind::Apache)) => kind,
        };
        let Some(configuration) = &self.configuration else {
            let known_by = if open > 0 { Knowledge::Connections } else { Knowledge::Program };
            return Some((until_reload, known_by));
        };
        let keeps = configuration.kept(kind, &known.names).map(|kept| match kept {
            Kept::For(time) => Keeps::Address { time: Some(time) },
            Kept::UntilReload => until_reload.clone(),
            Kept::InZone(time) => Keeps::Zone { time },
        });
        match keeps {
            Some(keeps) => Some((keeps, Knowledge::Configuration)),
            // One that is connected knows the address in a way that its configuration does not show.
            None => (open > 0).then_some((until_reload, Knowledge::Connections)),
        }
    }
}

//! Where a host name of a project is reached from here: known names first, then the machine's own resolver.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use kaleem_core::config::Project;
use kaleem_core::health::{NoAddress, Resolver};
use kaleem_core::observed::{gateway_of, is_gateway};
use kaleem_core::runtime::{Instance, InstanceStatus};

/// Names that the caller knows (services and their aliases), and the machine's resolver for all others.
///
/// A known name may have another address by port, since what a container publishes is reached on a port of the host.
#[derive(Clone, Debug, Default)]
pub struct KnownHosts {
    hosts: BTreeMap<String, Vec<IpAddr>>,
    ports: BTreeMap<(String, u16), Vec<SocketAddr>>,
    /// Names of services of which no container runs, with the service.
    down: BTreeMap<String, String>,
}

impl KnownHosts {
    /// Nothing but the machine's resolver.
    pub fn new() -> Self {
        Self::default()
    }

    /// The names of a project's services and where their containers are: behind a gateway first that, since it is what users reach.
    pub fn of(project: &Project, instances: &[Instance]) -> Self {
        let mut hosts = Self::new();
        // One that is frozen keeps its address; that it does not answer is for the probe to find.
        let is_up = |instance: &&Instance| matches!(instance.state.status, InstanceStatus::Running | InstanceStatus::Paused);
        for (host, service) in crate::discover::service_names(project) {
            let gateway = gateway_of(&project.name, &service, instances).map(|gateway| &gateway.name);
            let up = instances.iter().filter(is_up);
            let mut found: Vec<&Instance> = up.filter(|instance| instance.service == service || Some(&instance.name) == gateway).collect();
            found.sort_by_key(|instance| instance.service == service);
            if found.is_empty() {
                hosts.down.insert(host.clone(), service.to_string());
            }
            for instance in found {
                let addresses = instance.addresses.values().filter_map(|address| address.parse::<IpAddr>().ok());
                hosts = hosts.with_host(&host, addresses);
                for port in &instance.ports {
                    let ip = port.host_ip.filter(|ip| !ip.is_unspecified()).unwrap_or(IpAddr::from([127, 0, 0, 1]));
                    if let Some((published, _)) = port.host_ports {
                        hosts = hosts.with_port(&host, port.container.port, SocketAddr::new(ip, published));
                    }
                }
            }
        }
        hosts
    }

    /// The names of a project's services and where their containers are, whatever stands before them: what does not listen there, no user reaches.
    pub fn behind_gateways(project: &Project, instances: &[Instance]) -> Self {
        let mut hosts = Self::new();
        let runs = |instance: &&Instance| instance.state.status == InstanceStatus::Running && !instance.oneoff && !is_gateway(instance);
        for (host, service) in crate::discover::service_names(project) {
            for instance in instances.iter().filter(runs).filter(|instance| instance.service == service) {
                let addresses = instance.addresses.values().filter_map(|address| address.parse::<IpAddr>().ok());
                hosts = hosts.with_host(&host, addresses);
            }
            if !hosts.hosts.contains_key(&host) {
                hosts.down.insert(host, service.to_string());
            }
        }
        hosts
    }

    /// The same, with addresses under which every port of `host` is reached.
    #[must_use]
    pub fn with_host(mut self, host: &str, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        self.hosts.entry(host.to_owned()).or_default().extend(addresses);
        self
    }

    /// The same, with the place where one port of `host` is reached; it goes before the addresses of the host.
    #[must_use]
    pub fn with_port(mut self, host: &str, port: u16, place: SocketAddr) -> Self {
        self.ports.entry((host.to_owned(), port)).or_default().push(place);
        self
    }
}

#[async_trait]
impl Resolver for KnownHosts {
    async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, NoAddress> {
        let mut known = self.ports.get(&(host.to_owned(), port)).cloned().unwrap_or_default();
        known.extend(self.hosts.get(host).into_iter().flatten().map(|address| SocketAddr::new(*address, port)));
        if !known.is_empty() {
            return Ok(known);
        }
        if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let found: Vec<SocketAddr> = match tokio::net::lookup_host((host, port)).await {
            Ok(found) => found.collect(),
            Err(_) if self.down.contains_key(host) => Vec::new(),
            Err(error) => return Err(NoAddress::Unknown(error.to_string())),
        };
        match self.down.get(host) {
            _ if !found.is_empty() => Ok(found),
            // Only where the machine knows no server of that name does it mean the service.
            Some(service) => Err(NoAddress::Down(format!("no container of `{service}` runs"))),
            None => Err(NoAddress::Unknown("the name has no address".to_owned())),
        }
    }
}

/// Known names that change under probes which are held: containers come and go, and the probes stay.
#[derive(Debug, Default)]
pub struct CurrentHosts(RwLock<Arc<KnownHosts>>);

impl CurrentHosts {
    /// Takes in where everything is now.
    pub fn set(&self, hosts: KnownHosts) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(hosts);
    }
}

#[async_trait]
impl Resolver for CurrentHosts {
    async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, NoAddress> {
        let hosts = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        hosts.resolve(host, port).await
    }
}

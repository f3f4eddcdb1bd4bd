//! Gateways that become what is wanted while they serve. A running container joins networks, and takes no port and gives none back:
//! each port that is new is published by a port container, which gives the gateway its socket.

use std::collections::{BTreeMap, BTreeSet};

use crate::definition::{
    ContainerPort, Definition, DefinitionId, Healthcheck, Mount, NetworkAttachment, NetworkMode, PortBinding, Protocol, RestartPolicy,
};
use crate::names::{ContainerName, ServiceName};
use crate::observed::{Observed, gateway_of, is_up, port_containers_of};
use crate::release::{Target, Wanted};
use crate::runtime::{Instance, InstanceStatus, kaleem_labels};

/// The argument before each port of a gateway.
const LISTEN: &str = "--listen";

/// What a gateway that runs needs to be what is wanted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LiveGateway {
    /// Networks that it joins. On what it is to leave it stays until it is recreated.
    pub joins: Vec<NetworkAttachment>,
    /// Ports that port containers are to publish.
    pub adds: Vec<PortContainer>,
    /// Port containers that run and whose port is not wanted any more.
    pub drops: Vec<ContainerName>,
    /// Ports that it publishes and that are not wanted any more: they stay until it is recreated.
    pub stays: Vec<PortBinding>,
}

/// A port container that is to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct PortContainer {
    /// Its port.
    pub binding: PortBinding,
    /// What it is to be.
    pub definition: Definition,
    /// The identity of that.
    pub id: DefinitionId,
}

/// Services whose gateway is what `target` wants, or becomes that while it serves. `find` answers what a definition says, where it is known;
/// `identify` names one.
pub fn find(
    observed: &Observed,
    target: &Target,
    find: &dyn Fn(&DefinitionId) -> Option<Definition>,
    identify: &dyn Fn(&Definition) -> DefinitionId,
) -> BTreeMap<ServiceName, LiveGateway> {
    let look = Look { observed, target, find, identify };
    target.services.iter().filter_map(|(name, wanted)| Some((name.clone(), look.at(name, wanted)?))).collect()
}

struct Look<'a> {
    observed: &'a Observed,
    target: &'a Target,
    find: &'a dyn Fn(&DefinitionId) -> Option<Definition>,
    identify: &'a dyn Fn(&Definition) -> DefinitionId,
}

/// What a gateway that runs has.
struct Has {
    ports: Vec<PortBinding>,
    /// How it listens, by port inside the container.
    listens: BTreeMap<u16, String>,
    is_exact: bool,
}

impl Look<'_> {
    fn at(&self, name: &ServiceName, wanted: &Wanted) -> Option<LiveGateway> {
        let gateway = wanted.gateway.as_ref()?;
        let standing = gateway_of(&self.target.project, name, &self.observed.instances)?;
        if standing.state.status != InstanceStatus::Running {
            return None;
        }
        let after = (self.find)(&gateway.definition)?;
        let has = self.has(standing, &gateway.definition, &after)?;
        // A name cannot be added to a connection.
        let named = |attachment: &NetworkAttachment| match standing.networks.get(&attachment.network) {
            Some(names) => attachment.aliases.iter().all(|alias| names.contains(alias)),
            None => true,
        };
        if !has.is_exact && !gateway.networks.iter().all(named) {
            return None;
        }
        let lacking: Vec<&PortBinding> = after.ports.iter().filter(|port| !has.ports.contains(port)).collect();
        let listens = listens(&after);
        // What it is to listen at must be brought by a port container, and what it listens at stays as it is.
        let is_brought = |port: u16| lacking.iter().any(|binding| binding.container.port == port);
        let is_right = |(port, how): (&u16, &String)| has.listens.get(port).map_or_else(|| is_brought(*port), |now| now == how);
        if !listens.iter().all(is_right) || lacking.iter().any(|binding| binding.container.protocol != Protocol::Tcp) {
            return None;
        }
        let mut live = LiveGateway {
            joins: if has.is_exact { Vec::new() } else { standing.lacks(&gateway.networks) },
            stays: has.ports.iter().filter(|port| !after.ports.contains(port)).cloned().collect(),
            ..LiveGateway::default()
        };
        let mut there = BTreeSet::new();
        let wanted_ports: BTreeSet<String> = lacking.iter().filter_map(|binding| port_name(binding, &listens)).collect();
        for container in port_containers_of(&self.target.project, name, &self.observed.instances).filter(|one| is_up(one)) {
            match container.labels.get(kaleem_labels::PORT).filter(|port| wanted_ports.contains(*port)) {
                Some(port) => drop(there.insert(port.clone())),
                None => live.drops.push(container.name.clone()),
            }
        }
        for binding in lacking {
            let port = port_name(binding, &listens)?;
            if there.contains(&port) {
                continue;
            }
            // Somebody of the project has it: one gives it up before the other gets it, which is a hand-over.
            if self.observed.instances.iter().filter(|one| is_up(one)).any(|one| one.ports.iter().any(|held| binding.collides(held))) {
                return None;
            }
            let definition = definition(&after, binding, &port, listens.get(&binding.container.port)?);
            live.adds.push(PortContainer { binding: binding.clone(), id: (self.identify)(&definition), definition });
        }
        let others = self.target.services.iter().filter(|(other, _)| *other != name).flat_map(|(_, other)| &other.ports);
        let is_free = |stays: &PortBinding| !others.clone().any(|port| port.collides(stays));
        live.stays.iter().all(is_free).then_some(live)
    }

    /// What the gateway has, where it differs from `after` in nothing that a gateway which runs cannot become.
    fn has(&self, standing: &Instance, id: &DefinitionId, after: &Definition) -> Option<Has> {
        let same = || Has { ports: after.ports.clone(), listens: listens(after), is_exact: true };
        if standing.definition.as_ref() == Some(id) || self.observed.adoptable.contains(&standing.name) {
            return Some(same());
        }
        let Some(before) = standing.definition.as_ref().and_then(|id| (self.find)(id)) else {
            // One of another state directory: only what differs is known.
            let drift = self.observed.drift.get(&standing.name)?;
            return drift.iter().all(|field| field == "ports").then(|| Has { ports: standing.ports.clone(), ..same() });
        };
        let has = Has { ports: before.ports.clone(), listens: listens(&before), is_exact: false };
        let aligned = Definition {
            network: after.network.clone(),
            expose: after.expose.clone(),
            ports: after.ports.clone(),
            command: after.command.clone(),
            ..before.clone()
        };
        (aligned == *after && without_ports(&before) == without_ports(after)).then_some(has)
    }
}

/// How the command of a gateway has it listen, by port.
fn listens(gateway: &Definition) -> BTreeMap<u16, String> {
    let command = gateway.command.as_deref().unwrap_or_default();
    let given = command.windows(2).filter_map(|pair| match pair {
        [option, value] if option == LISTEN => Some(value),
        _ => None,
    });
    given.filter_map(|value| Some((value.split('/').next()?.parse().ok()?, value.clone()))).collect()
}

/// The command of a gateway without its ports.
fn without_ports(gateway: &Definition) -> Vec<&String> {
    let command = gateway.command.as_deref().unwrap_or_default();
    let is_port =
        |index: usize| [Some(index), index.checked_sub(1)].iter().flatten().any(|at| command.get(*at).is_some_and(|one| one == LISTEN));
    command.iter().enumerate().filter(|(index, _)| !is_port(*index)).map(|(_, argument)| argument).collect()
}

/// How a port is called, on the label of its port container and where its gateway tells of it: `127.0.0.1:8081:3000/http`.
fn port_name(binding: &PortBinding, listens: &BTreeMap<u16, String>) -> Option<String> {
    let listen = listens.get(&binding.container.port)?;
    Some(format!("{}{listen}", host_text(binding)))
}

/// `127.0.0.1:8081:`, as Compose has it; nothing where the engine chooses.
fn host_text(binding: &PortBinding) -> String {
    let ip = match binding.host_ip {
        Some(ip) if ip.is_ipv6() => format!("[{ip}]:"),
        Some(ip) => format!("{ip}:"),
        None => String::new(),
    };
    match binding.host_ports {
        Some((first, last)) if first == last => format!("{ip}{first}:"),
        Some((first, last)) => format!("{ip}{first}-{last}:"),
        None => ip,
    }
}

/// What a container is called that publishes a port of a gateway.
pub(crate) fn container_name(gateway: &ContainerName, binding: &PortBinding) -> ContainerName {
    let host = host_text(binding);
    let text = if host.is_empty() { format!("any-{}", binding.container.port) } else { host };
    let text: String = text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
    ContainerName::fitting(&format!("{gateway}-port-{}", text.trim_matches('-')))
}

/// A port container: the gateway's program, directory and user, one port, and none of its names.
fn definition(gateway: &Definition, binding: &PortBinding, name: &str, listen: &str) -> Definition {
    let directory = gateway.mounts.iter().flat_map(|mount| ["--directory", &mount.target]);
    let command = ["gateway-port"].into_iter().chain(directory).chain(["--name", name, LISTEN, listen]);
    let nameless = |attachment: &NetworkAttachment| NetworkAttachment {
        aliases: Vec::new(),
        ipv4: None,
        ipv6: None,
        mac_address: None,
        ..attachment.clone()
    };
    let network = match &gateway.network {
        NetworkMode::Networks(networks) => NetworkMode::Networks(networks.iter().map(nameless).collect()),
        other => other.clone(),
    };
    Definition {
        command: Some(command.map(str::to_owned).collect()),
        user: gateway.user.clone(),
        restart: RestartPolicy::Always,
        stop_grace: gateway.stop_grace,
        ports: vec![binding.clone()],
        expose: vec![ContainerPort { port: binding.container.port, protocol: Protocol::Tcp }],
        mounts: gateway.mounts.iter().map(|mount| Mount { read_only: true, ..mount.clone() }).collect(),
        network,
        cap_drop: gateway.cap_drop.clone(),
        security_opt: gateway.security_opt.clone(),
        read_only: true,
        healthcheck: Some(Healthcheck::DISABLED),
        labels: BTreeMap::from([(kaleem_labels::PORT.to_owned(), name.to_owned())]),
        ..Definition::default()
    }
}

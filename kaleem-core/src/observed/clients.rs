//! Who would notice that a service moves to another address: web servers that look names up once, and whoever is connected.
//!
//! It is looked for only where a service is about to get its gateway. What cannot be asked is left out: it is a help, and no
//! plan depends on it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use crate::names::{ContainerName, NetworkName, ProjectName, ServiceName};
use crate::observed::{gateway_of, is_gateway, nginx};
use crate::release::Target;
use crate::runtime::{Instance, InstanceStatus, Neighbour, Runtime};

/// Time that a question inside a container may take.
const ANSWER: Duration = Duration::from_secs(10);

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
    /// What it keeps.
    pub keeps: Keeps,
}

/// What a client keeps of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// It is an nginx that looked the name up.
    Address {
        /// How long it keeps the address; `None` is until it is reloaded.
        time: Option<Duration>,
    },
    /// It is connected.
    Connections {
        /// How many connections are open.
        open: usize,
    },
}

impl Client {
    /// Whether kaleem reloads it: it is an nginx of this very project, and nobody forbade it.
    pub fn may_be_reloaded(&self, target: &Target) -> bool {
        let allowed = |service: &ServiceName| target.services.get(service).is_none_or(|wanted| wanted.reload);
        matches!(self.keeps, Keeps::Address { .. })
            && self.project.as_deref() == Some(target.project.as_str())
            && self.service.as_ref().is_some_and(allowed)
    }
}

/// Looks for clients of services whose address is about to move: they get a gateway, or lose it.
///
/// A service that has a gateway and keeps it moves nowhere; `wanted` says which get one.
pub(super) async fn find(
    runtime: &Arc<dyn Runtime>,
    project: &ProjectName,
    instances: &[Instance],
    routed: &BTreeMap<ServiceName, BTreeSet<String>>,
    gets: &dyn Fn(&ServiceName) -> bool,
) -> Vec<Client> {
    let mut clients = Vec::new();
    for (service, names) in routed {
        let running = |instance: &&Instance| instance.state.status == InstanceStatus::Running;
        let gateway = gateway_of(project, service, instances).filter(running);
        if gateway.is_some() == gets(service) {
            continue;
        }
        let of = || match gateway {
            Some(gateway) => vec![gateway],
            None => instances.iter().filter(running).filter(|instance| instance.service == *service && !is_gateway(instance)).collect(),
        };
        let networks: BTreeSet<NetworkName> = of().iter().flat_map(|instance| instance.addresses.keys().cloned()).collect();
        let addresses: BTreeSet<Ipv4Addr> =
            of().iter().flat_map(|instance| instance.addresses.values()).filter_map(|address| address.parse().ok()).collect();
        if networks.is_empty() {
            continue;
        }
        let networks: Vec<NetworkName> = networks.into_iter().collect();
        // Gateways of others ask by name each time; its own instances are no clients.
        let own =
            |neighbour: &Neighbour| instances.iter().any(|one| one.name == neighbour.name && (one.service == *service || is_gateway(one)));
        // What cannot be asked is left out.
        let Ok(neighbours) = runtime.neighbours(&networks).await else { continue };
        for neighbour in neighbours.into_iter().filter(|neighbour| !own(neighbour)) {
            if let Some(keeps) = ask(runtime, &neighbour, names, &addresses).await {
                let Neighbour { name, project, service: own, .. } = neighbour;
                clients.push(Client { container: name, project, service: own, of: service.clone(), keeps });
            }
        }
    }
    clients
}

async fn ask(runtime: &Arc<dyn Runtime>, neighbour: &Neighbour, names: &BTreeSet<String>, addresses: &BTreeSet<Ipv4Addr>) -> Option<Keeps> {
    let run = async |command: &[String]| {
        runtime.exec(&neighbour.name, command, ANSWER).await.ok().filter(|ran| ran.exit_code == 0).map(|ran| ran.output)
    };
    // An image without nginx has no such program, and says so at once.
    let configuration = run(&nginx::command(runtime.as_ref(), &neighbour.name, "-T", ANSWER).await).await;
    if let Some(configuration) = &configuration {
        let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        if let Some(time) = nginx::kept(configuration, &names) {
            return Some(Keeps::Address { time });
        }
    }
    let table = run(&["cat".to_owned(), "/proc/net/tcp".to_owned()]).await?;
    let open = connections(&table, addresses);
    // An nginx that is connected knows the address in a way that its configuration does not show.
    let keeps = if configuration.is_some() { Keeps::Address { time: None } } else { Keeps::Connections { open } };
    (open > 0).then_some(keeps)
}

/// How many connections of the kernel's table were opened to one of `addresses`. One that came in, at a port on which somebody listens
/// here, is no client's: a database does not know where those that ask it are.
fn connections(table: &str, addresses: &BTreeSet<Ipv4Addr>) -> usize {
    /// States of an open connection, and of a socket that listens, in that table (`include/net/tcp_states.h` of the kernel).
    const ESTABLISHED: &str = "01";
    const LISTEN: &str = "0A";
    /// Local port, remote address and state.
    fn row(line: &str) -> Option<(&str, Ipv4Addr, &str)> {
        let mut fields = line.split_whitespace().skip(1);
        let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
        let number = u32::from_str_radix(remote.split(':').next()?, 16).ok()?;
        // The kernel prints the bytes as the processor has them: the first of the address is the last here.
        Some((local.split(':').nth(1)?, Ipv4Addr::from(number.swap_bytes()), state))
    }
    let rows = || table.lines().skip(1).filter_map(row);
    let listens: BTreeSet<&str> = rows().filter(|(_, _, state)| *state == LISTEN).map(|(port, _, _)| port).collect();
    rows().filter(|(port, remote, state)| *state == ESTABLISHED && addresses.contains(remote) && !listens.contains(port)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_connections_to_an_address_are_counted_and_nothing_else() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0200A8C0:9C40 0500A8C0:0BB8 01 00000000:00000000 00:00000000 00000000     0        0 1 1 0\n\
             1: 0200A8C0:9C41 0500A8C0:0BB8 06 00000000:00000000 00:00000000 00000000     0        0 1 1 0\n\
             2: 0200A8C0:9C42 0600A8C0:0BB8 01 00000000:00000000 00:00000000 00000000     0        0 1 1 0\n\
             3: 00000000:18EB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0\n\
             4: 0200A8C0:18EB 0500A8C0:9C43 01 00000000:00000000 00:00000000 00000000     0        0 1 1 0\n";
        let five = BTreeSet::from([Ipv4Addr::new(192, 168, 0, 5)]);
        assert_eq!(connections(table, &five), 1, "one is closing, one goes elsewhere, one came in");
        assert_eq!(connections("nonsense\nmore", &five), 0);
    }
}

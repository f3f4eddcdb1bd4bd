//! The one moment in which a container's ports go to another: as short as the engine allows.
//!
//! Ports are published when a container joins a network, also while it runs. So the heir runs already, without networks, and joins them
//! as soon as the port is free. What takes long otherwise (making and starting a container) is over by then. Engines up to 20.10
//! leave the heir with half an interface when it joins too early: it is waited for the end of the predecessor's process and for its
//! ports, and where joining fails all the same the heir is started anew, which always works and takes a moment longer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bollard::models::{
    ContainerInspectResponse, EndpointResource, EndpointSettings, EventMessage, NetworkConnectRequest, NetworkDisconnectRequest,
};
use bollard::query_parameters::{EventsOptions, InspectNetworkOptions, KillContainerOptions, StartContainerOptions};
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, future};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::addresses::address_of;
use super::containers::{AFTER_KILL, id_of, stop_signal};
use super::failure::Failure;
use super::instance::{bindings, is_alive, restart_of, status_of};
use super::{DockerRuntime, body};
use crate::definition::{NetworkAttachment, Protocol, RestartPolicy};
use crate::names::{ContainerName, NetworkName, ProjectName};
use crate::runtime::{InstanceStatus, Leaving, OwnedContainer, RuntimeError};

/// How long a port may take to be free after the end of the process that was behind it.
const PORT_FREE: Duration = Duration::from_secs(5);
/// How long an address may take to be free after the end of the process that had it.
const ADDRESS_FREE: Duration = Duration::from_secs(2);
/// How often the heir joins a network again that dealt it another address than the one it inherits: the engine frees an address a moment after
/// it says so.
const REJOINS: u32 = 3;
/// Time between two looks at a port or an address.
const LOOK: Duration = Duration::from_millis(3);

const OPERATION: &str = "hand the ports over";
const CONNECT: &str = "connect the container to its network";

/// When a container joined a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Joined {
    Now,
    Before,
}

/// Ends once all of `awaited`, containers and networks, were seen to part; `false` where the engine stops telling.
async fn parted(
    mut awaited: BTreeSet<(String, String)>,
    mut events: BoxStream<'static, Result<EventMessage, bollard::errors::Error>>,
) -> bool {
    while !awaited.is_empty() {
        let Some(Ok(event)) = events.next().await else { return false };
        let attributes = event.actor.and_then(|actor| actor.attributes).unwrap_or_default();
        if let (Some(container), Some(network)) = (attributes.get("container"), attributes.get("name")) {
            awaited.remove(&(container.clone(), network.clone()));
        }
    }
    true
}

impl DockerRuntime {
    /// Takes all networks from a container that does not run.
    pub(super) async fn take_networks(&self, found: &ContainerInspectResponse) -> Result<(), RuntimeError> {
        let id = id_of(found)?;
        let networks = found.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
        for network in networks.into_iter().flat_map(HashMap::keys) {
            self.leave(&id, network).await?;
        }
        Ok(())
    }

    /// Takes a container from a network; it may not be on it.
    pub(super) async fn leave(&self, id: &str, network: &str) -> Result<(), RuntimeError> {
        let request = NetworkDisconnectRequest { container: id.to_owned(), force: Some(true) };
        match self.ask("take the container from its network", self.client.disconnect_network(network, request)).await {
            Ok(()) => Ok(()),
            Err(failure) if failure.is_missing() || failure.message().contains("is not connected") => Ok(()),
            Err(failure) => Err(failure.into_error()),
        }
    }

    /// Takes a container that does not run out of its networks and lets it join those of the same names, as it was on them.
    pub(super) async fn rejoin(&self, found: &ContainerInspectResponse) -> Result<(), RuntimeError> {
        let id = id_of(found)?;
        let networks = found.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
        for (network, endpoint) in networks.into_iter().flatten() {
            self.leave(&id, network).await?;
            let own = |alias: &&String| !(alias.len() >= 12 && id.starts_with(alias.as_str()));
            let config = EndpointSettings {
                aliases: endpoint.aliases.as_ref().map(|aliases| aliases.iter().filter(own).cloned().collect()),
                ipam_config: endpoint.ipam_config.clone(),
                driver_opts: endpoint.driver_opts.clone(),
                ..EndpointSettings::default()
            };
            let request = NetworkConnectRequest { container: id.clone(), endpoint_config: Some(config) };
            self.ask(CONNECT, self.client.connect_network(network, request)).await.map_err(Failure::into_error)?;
        }
        Ok(())
    }

    /// Joins those networks on which the container is not, or not under its names: an engine cannot give it another name while it is there.
    pub(super) async fn connect_found(&self, container: &OwnedContainer, networks: &[NetworkAttachment]) -> Result<(), RuntimeError> {
        let not_found = || RuntimeError::NotFound { name: container.name.to_string() };
        let found = self.owned(&container.project, &container.name).await?.ok_or_else(not_found)?;
        let id = id_of(&found)?;
        let none = HashMap::new();
        let joined = found.network_settings.as_ref().and_then(|settings| settings.networks.as_ref()).unwrap_or(&none);
        // What was made without any network is on one that has no other member.
        if joined.contains_key("none") && !networks.is_empty() {
            self.leave(&id, "none").await?;
        }
        for attachment in networks {
            if let Some(endpoint) = joined.get(attachment.network.as_str()) {
                let names = endpoint.aliases.clone().unwrap_or_default();
                if attachment.aliases.iter().all(|alias| names.contains(alias)) {
                    continue;
                }
                self.leave(&id, attachment.network.as_str()).await?;
            }
            self.join_as(CONNECT, &id, attachment).await?;
        }
        Ok(())
    }

    pub(super) async fn hand_ports_over(
        &self,
        project: &ProjectName,
        from: &[Leaving],
        to: &ContainerName,
        networks: &[NetworkAttachment],
    ) -> Result<Duration, RuntimeError> {
        let heir = self.owned(project, to).await?.ok_or_else(|| RuntimeError::NotFound { name: to.to_string() })?;
        let heir_id = id_of(&heir)?;
        let mut leaving = Vec::new();
        for one in from {
            let Some(found) = self.owned(project, &one.container).await? else { continue };
            let quick = matches!(status_of(&found), InstanceStatus::Running);
            if quick {
                // The policy goes first, so that nothing but the end itself is left for the short moment.
                if restart_of(&found) != RestartPolicy::No {
                    self.set_restart(&id_of(&found)?, RestartPolicy::No).await.map_err(Failure::into_error)?;
                }
                leaving.push((found, one));
            } else {
                self.stop_found(&found, &one.stop).await?;
            }
        }
        let inherited: BTreeMap<NetworkName, Ipv4Addr> =
            Leaving::addresses_of(from).into_iter().filter_map(|(network, address)| Some((network, address.parse().ok()?))).collect();
        let mut departures = self.departures(leaving.iter().map(|(found, _)| found), &inherited)?;
        let begun = Instant::now();
        future::try_join_all(leaving.iter().map(|(found, one)| self.end(found, one))).await?;
        // One that has joined already holds its ports itself.
        let has_joined = heir.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
        if !is_alive(&heir) || has_joined.is_none_or(HashMap::is_empty) {
            self.wait_for_ports(&heir).await;
        }
        if !matches!(tokio::time::timeout(ADDRESS_FREE, departures.join_next()).await, Ok(Some(Ok(true)))) {
            for (network, address) in &inherited {
                self.wait_for_address(network, *address, &heir_id).await;
            }
        }
        let joined = self.join_all(&heir_id, is_alive(&heir), networks, &inherited).await;
        if joined.is_err() {
            self.start_anew(&heir_id, networks).await?;
        }
        let took = begun.elapsed();
        for (found, one) in &leaving {
            // The process is gone; what the engine tidies up after it is waited for where nobody waits.
            self.stop_found(found, &one.stop).await?;
        }
        Ok(took)
    }

    /// Listens from now on for containers that leave the networks on which the heir inherits their address: the engine tells it once the address
    /// is free, and lists it as gone a moment before. `false` where there is nothing to be seen.
    fn departures<'c>(
        &self,
        leaving: impl Iterator<Item = &'c ContainerInspectResponse>,
        inherited: &BTreeMap<NetworkName, Ipv4Addr>,
    ) -> Result<JoinSet<bool>, RuntimeError> {
        let mut awaited = BTreeSet::new();
        for found in leaving {
            let id = id_of(found)?;
            let networks = found.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
            let networks = networks.into_iter().flat_map(HashMap::keys);
            awaited
                .extend(networks.filter(|name| inherited.keys().any(|key| key.as_str() == *name)).map(|name| (id.clone(), name.clone())));
        }
        let list = |text: &str| vec![text.to_owned()];
        let filters = HashMap::from([("type".to_owned(), list("network")), ("event".to_owned(), list("disconnect"))]);
        let client = self.client.clone();
        // Ends with the set.
        let mut listening = JoinSet::new();
        listening.spawn(async move {
            let events = client.events(Some(EventsOptions { filters: Some(filters), ..EventsOptions::default() })).boxed();
            !awaited.is_empty() && parted(awaited, events).await
        });
        Ok(listening)
    }

    /// Asks a container to end, and answers when its process is gone, which is before the engine has tidied up.
    async fn end(&self, found: &ContainerInspectResponse, leaving: &Leaving) -> Result<(), RuntimeError> {
        let id = id_of(found)?;
        let filters = HashMap::from([("container".to_owned(), vec![id.clone()]), ("event".to_owned(), vec!["die".to_owned()])]);
        let mut events = self.client.events(Some(EventsOptions { filters: Some(filters), ..EventsOptions::default() }));
        let (grace, signal) = (leaving.stop.grace, stop_signal(found, &leaving.stop));
        let ask = async {
            self.kill(&id, &signal).await?;
            tokio::time::sleep(grace).await;
            self.kill(&id, "SIGKILL").await
        };
        let dead = async {
            // Events tell it first; where they fail, the end of the whole container does.
            let told = async {
                match events.next().await {
                    Some(Ok(_)) => {}
                    _ => future::pending().await,
                }
            };
            let limit = grace.saturating_add(AFTER_KILL);
            tokio::select! {
                () = told => Ok(true),
                ended = self.ended(&id, "not-running", limit) => ended,
            }
        };
        tokio::pin!(dead);
        let over = tokio::select! {
            biased;
            over = &mut dead => over,
            asked = ask => {
                asked?;
                dead.await
            }
        }?;
        if over { Ok(()) } else { Err(super::nonsense(OPERATION, format!("`{}` still runs after SIGKILL", leaving.container))) }
    }

    async fn kill(&self, id: &str, signal: &str) -> Result<(), RuntimeError> {
        let kill = self.client.kill_container(id, Some(KillContainerOptions { signal: signal.to_owned() }));
        match self.ask("stop the container", kill).await {
            Ok(()) => Ok(()),
            Err(failure) if failure.is_missing() || failure.message().contains("is not running") => Ok(()),
            Err(failure) => Err(failure.into_error()),
        }
    }

    /// Waits until the ports that the heir is to publish can be bound on this host. What cannot be told counts as free: the engine decides.
    async fn wait_for_ports(&self, heir: &ContainerInspectResponse) {
        let wanted = bindings(heir.host_config.as_ref().and_then(|host| host.port_bindings.as_ref()));
        let single = wanted.iter().filter(|binding| binding.container.protocol == Protocol::Tcp);
        let places: Vec<SocketAddr> = single
            .filter_map(|binding| {
                let (first, last) = binding.host_ports?;
                (first == last).then(|| SocketAddr::new(binding.host_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), first))
            })
            .collect();
        let deadline = Instant::now() + PORT_FREE;
        for place in places {
            let taken = || matches!(std::net::TcpListener::bind(place), Err(error) if error.kind() == std::io::ErrorKind::AddrInUse);
            while taken() && Instant::now() < deadline {
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    /// Waits until nobody but the heir has the address any more. Where that takes too long the heir gets another one, and callers look.
    async fn wait_for_address(&self, network: &NetworkName, address: Ipv4Addr, heir: &str) {
        let deadline = Instant::now() + ADDRESS_FREE;
        while Instant::now() < deadline {
            let question = self.client.inspect_network(network.as_str(), None::<InspectNetworkOptions>);
            let Ok(found) = self.ask(OPERATION, question).await else { return };
            let has = |endpoint: &EndpointResource| {
                let own = endpoint.ipv4_address.as_deref().and_then(|text| text.split('/').next());
                own.and_then(|text| text.parse::<Ipv4Addr>().ok()) == Some(address)
            };
            if !found.containers.iter().flatten().any(|(id, endpoint)| id != heir && has(endpoint)) {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn join_all(
        &self,
        id: &str,
        runs: bool,
        networks: &[NetworkAttachment],
        inherited: &BTreeMap<NetworkName, Ipv4Addr>,
    ) -> Result<(), RuntimeError> {
        if !runs {
            return Err(super::nonsense(OPERATION, "the heir does not run"));
        }
        for attachment in networks {
            let joined = self.join(id, attachment).await?;
            // One that had joined before keeps what it has: others know it by now.
            let Some(address) = inherited.get(&attachment.network).filter(|_| joined == Joined::Now) else { continue };
            for _ in 0..REJOINS {
                let dealt = self.look(id).await?.as_ref().and_then(|heir| address_of(heir, &attachment.network));
                if dealt.is_none_or(|dealt| dealt == *address) {
                    break;
                }
                let request = NetworkDisconnectRequest { container: id.to_owned(), force: Some(true) };
                self.ask(OPERATION, self.client.disconnect_network(attachment.network.as_str(), request))
                    .await
                    .map_err(Failure::into_error)?;
                self.join(id, attachment).await?;
            }
        }
        Ok(())
    }

    async fn join(&self, id: &str, attachment: &NetworkAttachment) -> Result<Joined, RuntimeError> {
        self.join_as(OPERATION, id, attachment).await
    }

    async fn join_as(&self, operation: &'static str, id: &str, attachment: &NetworkAttachment) -> Result<Joined, RuntimeError> {
        let request = NetworkConnectRequest { container: id.to_owned(), endpoint_config: Some(body::endpoint(attachment)) };
        match self.ask(operation, self.client.connect_network(attachment.network.as_str(), request)).await {
            Ok(()) => Ok(Joined::Now),
            Err(failure) if failure.message().contains("already exists in network") => Ok(Joined::Before),
            Err(failure) => match failure.port_taken() {
                Some(port) => Err(RuntimeError::PortTaken { port }),
                None => Err(failure.into_error()),
            },
        }
    }

    /// The way that always works: out of all networks, stopped, into the networks, started.
    async fn start_anew(&self, id: &str, networks: &[NetworkAttachment]) -> Result<(), RuntimeError> {
        // Killed by hand it is not started by its policy.
        self.kill(id, "SIGKILL").await?;
        if !self.ended(id, "not-running", AFTER_KILL).await? {
            return Err(super::nonsense(OPERATION, "the heir still runs after SIGKILL"));
        }
        if let Some(found) = self.look(id).await? {
            self.take_networks(&found).await?;
        }
        for attachment in networks {
            self.join(id, attachment).await?;
        }
        let deadline = Instant::now() + PORT_FREE;
        loop {
            let start = self.client.start_container(id, None::<StartContainerOptions>);
            match self.ask_for(OPERATION, AFTER_KILL, start).await {
                Ok(()) => return Ok(()),
                Err(failure) if failure.port_taken().is_some() && Instant::now() < deadline => tokio::time::sleep(LOOK).await,
                Err(failure) => {
                    return Err(match failure.port_taken() {
                        Some(port) => RuntimeError::PortTaken { port },
                        None => failure.into_error(),
                    });
                }
            }
        }
    }
}

//! Addresses that a successor inherits: every lower free one is occupied for a moment, since the engine deals the lowest.
//!
//! An address that is asked for by number is no way: engines refuse it on networks whose subnet no file configured, which are most, and
//! elsewhere keep it in the container's settings, where it keeps the container from starting after a reboot if another was quicker.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;

use async_trait::async_trait;
use bollard::models::{ContainerCreateBody, ContainerInspectResponse, HostConfig, HostConfigLogConfig, NetworkInspect};
use bollard::query_parameters::{
    CreateContainerOptions, InspectNetworkOptions, ListContainersOptions, RemoveContainerOptions, StartContainerOptions,
};
use futures_util::future;

use super::DockerRuntime;
use super::containers::id_of;
use super::failure::Failure;
use crate::names::{ContainerName, NetworkName, ProjectName};
use crate::runtime::{Addresses, RuntimeError, kaleem_labels};

/// Most placeholders on one network: a gap of that many addresses means that much of the project is down, and each is a process.
const MOST_PLACEHOLDERS: usize = 24;

const OPERATION: &str = "keep an address";

/// Addresses below `address` that the engine would deal before it; empty where that cannot be told.
fn free_below(network: &NetworkInspect, address: Ipv4Addr) -> Vec<Ipv4Addr> {
    let configurations = network.ipam.as_ref().and_then(|ipam| ipam.config.as_ref());
    let pools = configurations.into_iter().flatten().filter_map(|pool| {
        let range = pool.ip_range.as_deref().filter(|range| !range.is_empty()).or(pool.subnet.as_deref())?;
        let (first, last) = bounds(range)?;
        (first <= address && address <= last).then_some((first, pool))
    });
    let Some((first, pool)) = pools.into_iter().next() else { return Vec::new() };
    let of_text = |text: &str| text.split('/').next().and_then(|text| text.parse::<Ipv4Addr>().ok());
    let containers = network.containers.iter().flatten().filter_map(|(_, endpoint)| endpoint.ipv4_address.as_deref());
    let auxiliary = pool.auxiliary_addresses.iter().flatten().map(|(_, address)| address.as_str());
    let taken: BTreeSet<Ipv4Addr> = containers.chain(auxiliary).chain(pool.gateway.as_deref()).filter_map(of_text).collect();
    // The first address of a subnet is its own name.
    let first = u32::from(first).saturating_add(u32::from(pool.ip_range.as_deref().is_none_or(str::is_empty)));
    (first..u32::from(address)).map(Ipv4Addr::from).filter(|free| !taken.contains(free)).take(MOST_PLACEHOLDERS + 1).collect()
}

/// First and last address of `10.0.0.0/24`.
fn bounds(subnet: &str) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let (address, length) = subnet.split_once('/')?;
    let (address, length): (Ipv4Addr, u32) = (address.parse().ok()?, length.parse().ok()?);
    let host = u32::MAX.checked_shr(length).unwrap_or(0);
    let first = u32::from(address) & !host;
    Some((first.into(), (first | host).into()))
}

impl DockerRuntime {
    async fn reserve_one(
        &self,
        project: &ProjectName,
        like: &ContainerInspectResponse,
        network: &NetworkName,
        address: Ipv4Addr,
    ) -> Result<(), RuntimeError> {
        let found = self.ask(OPERATION, self.client.inspect_network(network.as_str(), None::<InspectNetworkOptions>)).await;
        let found = found.map_err(Failure::into_error)?;
        let free = free_below(&found, address);
        if free.len() > MOST_PLACEHOLDERS {
            return Ok(());
        }
        let placed = future::try_join_all(free.iter().map(|_| self.place(project, like, network))).await?;
        for id in placed {
            // Somebody else went in between, so that it got one above: it is in the way.
            let own = self.look(&id).await?.as_ref().and_then(|placed| address_of(placed, network));
            if own.is_none_or(|own| own >= address) {
                self.displace(&id).await?;
            }
        }
        Ok(())
    }

    /// Starts a container that has an address, and nothing else: no name, no port, no data.
    async fn place(&self, project: &ProjectName, like: &ContainerInspectResponse, network: &NetworkName) -> Result<String, RuntimeError> {
        let config = like.config.as_ref();
        let mounts = like.mounts.iter().flatten().filter_map(|mount| mount.destination.clone());
        let host = HostConfig {
            network_mode: Some(network.to_string()),
            tmpfs: Some(mounts.map(|place| (place, "mode=1777".to_owned())).collect()),
            auto_remove: Some(true),
            readonly_rootfs: Some(true),
            cap_drop: Some(vec!["ALL".to_owned()]),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
            ..HostConfig::default()
        };
        let body = ContainerCreateBody {
            image: like.image.clone(),
            cmd: config.and_then(|config| config.cmd.clone()),
            entrypoint: config.and_then(|config| config.entrypoint.clone()),
            user: config.and_then(|config| config.user.clone()),
            labels: Some(HashMap::from([(kaleem_labels::PLACEHOLDER.to_owned(), project.to_string())])),
            host_config: Some(host),
            ..ContainerCreateBody::default()
        };
        let made = self.ask(OPERATION, self.client.create_container(None::<CreateContainerOptions>, body)).await;
        let id = made.map_err(Failure::into_error)?.id;
        let started = self.ask(OPERATION, self.client.start_container(&id, None::<StartContainerOptions>)).await;
        match started {
            Ok(()) => Ok(id),
            Err(failure) => {
                self.displace(&id).await?;
                Err(failure.into_error())
            }
        }
    }

    async fn displace(&self, id: &str) -> Result<(), RuntimeError> {
        let options = RemoveContainerOptions { force: true, ..RemoveContainerOptions::default() };
        match self.ask("remove a placeholder", self.client.remove_container(id, Some(options))).await {
            Ok(()) => Ok(()),
            Err(failure) if failure.is_missing() || failure.is_being_removed() => Ok(()),
            Err(failure) => Err(failure.into_error()),
        }
    }
}

/// The address of a container on a network.
pub(super) fn address_of(container: &ContainerInspectResponse, network: &NetworkName) -> Option<Ipv4Addr> {
    let networks = container.network_settings.as_ref()?.networks.as_ref()?;
    networks.get(network.as_str())?.ip_address.as_deref()?.parse().ok()
}

#[async_trait]
impl Addresses for DockerRuntime {
    async fn reserve(
        &self,
        project: &ProjectName,
        like: &ContainerName,
        addresses: &BTreeMap<NetworkName, String>,
    ) -> Result<(), RuntimeError> {
        let like = self.owned(project, like).await?.ok_or_else(|| RuntimeError::NotFound { name: like.to_string() })?;
        id_of(&like)?;
        for (network, address) in addresses {
            // What is no IPv4 address is dealt by other rules.
            if let Ok(address) = address.parse() {
                self.reserve_one(project, &like, network, address).await?;
            }
        }
        Ok(())
    }

    async fn release(&self, project: &ProjectName) -> Result<(), RuntimeError> {
        let label = format!("{}={project}", kaleem_labels::PLACEHOLDER);
        let filters = HashMap::from([("label".to_owned(), vec![label])]);
        let options = ListContainersOptions { all: true, filters: Some(filters), ..ListContainersOptions::default() };
        let found = self.ask("list placeholders", self.client.list_containers(Some(options))).await.map_err(Failure::into_error)?;
        let ids = found.into_iter().filter_map(|container| container.id);
        future::try_join_all(ids.map(|id| async move { self.displace(&id).await })).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::{EndpointResource, Ipam, IpamConfig};

    use super::*;

    #[test]
    fn what_is_dealt_before_an_address_is_all_that_is_free_below_it() {
        let endpoint = |address: &str| EndpointResource { ipv4_address: Some(format!("{address}/16")), ..EndpointResource::default() };
        let pool = |range: Option<&str>| IpamConfig {
            subnet: Some("172.18.0.0/16".to_owned()),
            ip_range: range.map(str::to_owned),
            gateway: Some("172.18.0.1".to_owned()),
            auxiliary_addresses: None,
        };
        let containers = HashMap::from([("a".to_owned(), endpoint("172.18.0.2")), ("b".to_owned(), endpoint("172.18.0.4"))]);
        for (why, range, address, expected) in [
            ("a gap", None, "172.18.0.5", vec!["172.18.0.3"]),
            ("the lowest", None, "172.18.0.3", vec![]),
            ("an address elsewhere", None, "10.0.0.9", vec![]),
            ("a range has no gateway in it", Some("172.18.4.0/24"), "172.18.4.2", vec!["172.18.4.0", "172.18.4.1"]),
        ] {
            let ipam = Ipam { config: Some(vec![pool(range)]), ..Ipam::default() };
            let network = NetworkInspect { ipam: Some(ipam), containers: Some(containers.clone()), ..NetworkInspect::default() };
            let found = address.parse().map(|address| free_below(&network, address)).unwrap_or_default();
            assert_eq!(found.iter().map(Ipv4Addr::to_string).collect::<Vec<_>>(), expected, "{why}");
        }
    }
}

//! Networks and volumes on the engine.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use bollard::models::{Ipam as EngineIpam, IpamConfig, NetworkCreateRequest, NetworkInspect, Volume, VolumeCreateRequest};
use bollard::query_parameters::{InspectNetworkOptions, ListContainersOptions, RemoveVolumeOptions};

use super::DockerRuntime;
use super::failure::Failure;
use crate::definition::{NetworkDefinition, VolumeDefinition};
use crate::names::{NetworkName, ProjectName, VolumeName};
use crate::runtime::{Resources, RuntimeError, compose_labels};

/// The version of Compose whose labels these are.
const COMPOSE_VERSION: &str = "2.29.7";

fn map(pairs: &BTreeMap<String, String>) -> Option<HashMap<String, String>> {
    (!pairs.is_empty()).then(|| pairs.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
}

/// The user's labels with Compose's.
fn labels(users: &BTreeMap<String, String>, project: &ProjectName, own: (&str, &str)) -> HashMap<String, String> {
    let mut labels = map(users).unwrap_or_default();
    let (key, value) = own;
    labels.insert(compose_labels::PROJECT.to_owned(), project.to_string());
    labels.insert(compose_labels::VERSION.to_owned(), COMPOSE_VERSION.to_owned());
    labels.insert(key.to_owned(), value.to_owned());
    labels
}

fn ipam(network: &NetworkDefinition) -> Option<EngineIpam> {
    let ipam = &network.ipam;
    let pool = |pool: &crate::definition::IpamPool| IpamConfig {
        subnet: pool.subnet.clone(),
        ip_range: pool.ip_range.clone(),
        gateway: pool.gateway.clone(),
        auxiliary_addresses: map(&pool.aux_addresses),
    };
    let is_given = ipam.driver.is_some() || !ipam.options.is_empty() || !ipam.pools.is_empty();
    is_given.then(|| EngineIpam {
        driver: ipam.driver.clone().or(Some("default".to_owned())),
        config: (!ipam.pools.is_empty()).then(|| ipam.pools.iter().map(pool).collect()),
        options: map(&ipam.options),
    })
}

impl DockerRuntime {
    async fn look_at_network(&self, name: &NetworkName) -> Result<Option<NetworkInspect>, RuntimeError> {
        match self.ask("inspect a network", self.client.inspect_network(name.as_str(), None::<InspectNetworkOptions>)).await {
            // An engine also takes the beginning of an id for a name.
            Ok(found) => Ok(Some(found).filter(|found| found.name.as_deref() == Some(name.as_str()))),
            Err(failure) if failure.is_missing() => Ok(None),
            Err(failure) => Err(failure.into_error()),
        }
    }

    async fn look_at_volume(&self, name: &VolumeName) -> Result<Option<Volume>, RuntimeError> {
        match self.ask("inspect a volume", self.client.inspect_volume(name.as_str())).await {
            Ok(found) => Ok(Some(found)),
            Err(failure) if failure.is_missing() => Ok(None),
            Err(failure) => Err(failure.into_error()),
        }
    }

    /// Whether a container stands on the network, running or not: without the network it could not be started again.
    async fn is_network_used(&self, name: &NetworkName) -> Result<bool, RuntimeError> {
        let filters = HashMap::from([("network".to_owned(), vec![name.to_string()])]);
        let options = ListContainersOptions { all: true, filters: Some(filters), ..ListContainersOptions::default() };
        let found = self.ask("list containers", self.client.list_containers(Some(options))).await.map_err(Failure::into_error)?;
        Ok(!found.is_empty())
    }
}

#[async_trait]
impl Resources for DockerRuntime {
    async fn networks(&self, names: &[NetworkName]) -> Result<BTreeMap<NetworkName, Option<String>>, RuntimeError> {
        let question = |name: NetworkName| async move {
            let found = self.look_at_network(&name).await?;
            let label = |network: NetworkInspect| network.labels.unwrap_or_default().get(compose_labels::PROJECT).cloned();
            Ok(found.map(|network| (name, label(network))))
        };
        let found = futures_util::future::try_join_all(names.iter().cloned().map(question)).await?;
        Ok(found.into_iter().flatten().collect())
    }

    async fn volumes(&self, names: &[VolumeName]) -> Result<BTreeMap<VolumeName, Option<String>>, RuntimeError> {
        let question = |name: VolumeName| async move {
            let found = self.look_at_volume(&name).await?;
            Ok(found.map(|volume| (name, volume.labels.get(compose_labels::PROJECT).cloned())))
        };
        let found = futures_util::future::try_join_all(names.iter().cloned().map(question)).await?;
        Ok(found.into_iter().flatten().collect())
    }

    async fn create_network(&self, project: &ProjectName, network: &NetworkDefinition) -> Result<(), RuntimeError> {
        let operation = "make the network";
        if let Some(found) = self.look_at_network(&network.name).await? {
            let labels = found.labels.unwrap_or_default();
            return match labels.get(compose_labels::PROJECT) {
                Some(owner) if owner == project.as_str() => Ok(()),
                _ => Err(RuntimeError::NotOurs { name: network.name.to_string(), project: project.clone() }),
            };
        }
        if network.external {
            let message = format!("network {} is external and missing", network.name);
            return Err(RuntimeError::Refused { operation: operation.to_owned(), status: 404, message });
        }
        let request = NetworkCreateRequest {
            name: network.name.to_string(),
            driver: network.driver.clone(),
            internal: Some(network.internal),
            attachable: Some(network.attachable),
            ipam: ipam(network),
            enable_ipv6: Some(network.enable_ipv6),
            options: map(&network.driver_opts),
            labels: Some(labels(&network.labels, project, (compose_labels::NETWORK, &network.key))),
            ..NetworkCreateRequest::default()
        };
        // Without this, engines before API 1.44 make a second network of the same name.
        let mut body = serde_json::to_value(&request).unwrap_or_default();
        if let Some(fields) = body.as_object_mut() {
            fields.insert("CheckDuplicate".to_owned(), true.into());
        }
        match self.ask(operation, self.client_with_body(&body).create_network(request)).await {
            Ok(_) => Ok(()),
            // Someone made it in the meantime; whose it is decides.
            Err(failure) if failure.status() == Some(409) => match self.networks(std::slice::from_ref(&network.name)).await? {
                found if found.get(&network.name).and_then(Option::as_deref) == Some(project.as_str()) => Ok(()),
                _ => Err(failure.into_error()),
            },
            Err(failure) => Err(failure.into_error()),
        }
    }

    async fn remove_network(&self, project: &ProjectName, network: &NetworkName) -> Result<(), RuntimeError> {
        let Some(found) = self.look_at_network(network).await? else { return Ok(()) };
        let labels = found.labels.unwrap_or_default();
        if labels.get(compose_labels::PROJECT).map(String::as_str) != Some(project.as_str()) {
            return Err(RuntimeError::NotOurs { name: network.to_string(), project: project.clone() });
        }
        let in_use = || RuntimeError::InUse { name: network.to_string() };
        if self.is_network_used(network).await? {
            return Err(in_use());
        }
        let id = found.id.unwrap_or_else(|| network.to_string());
        match self.ask("remove the network", self.client.remove_network(&id)).await {
            Ok(()) => Ok(()),
            Err(failure) if failure.is_missing() => Ok(()),
            Err(failure) if failure.message().contains("active endpoints") || failure.message().contains("in use") => Err(in_use()),
            Err(failure) => Err(failure.into_error()),
        }
    }

    async fn create_volume(&self, project: &ProjectName, volume: &VolumeDefinition) -> Result<(), RuntimeError> {
        let operation = "make the volume";
        if let Some(found) = self.look_at_volume(&volume.name).await? {
            return match found.labels.get(compose_labels::PROJECT) {
                Some(owner) if owner == project.as_str() => Ok(()),
                _ => Err(RuntimeError::NotOurs { name: volume.name.to_string(), project: project.clone() }),
            };
        }
        if volume.external {
            let message = format!("volume {} is external and missing", volume.name);
            return Err(RuntimeError::Refused { operation: operation.to_owned(), status: 404, message });
        }
        let request = VolumeCreateRequest {
            name: Some(volume.name.to_string()),
            driver: volume.driver.clone(),
            driver_opts: map(&volume.driver_opts),
            labels: Some(labels(&volume.labels, project, (compose_labels::VOLUME, &volume.key))),
            ..VolumeCreateRequest::default()
        };
        self.ask(operation, self.client.create_volume(request)).await.map(|_| ()).map_err(Failure::into_error)
    }

    async fn remove_volume(&self, project: &ProjectName, volume: &VolumeName) -> Result<(), RuntimeError> {
        let Some(found) = self.look_at_volume(volume).await? else { return Ok(()) };
        if found.labels.get(compose_labels::PROJECT).map(String::as_str) != Some(project.as_str()) {
            return Err(RuntimeError::NotOurs { name: volume.to_string(), project: project.clone() });
        }
        match self.ask("remove the volume", self.client.remove_volume(volume.as_str(), None::<RemoveVolumeOptions>)).await {
            Ok(()) => Ok(()),
            Err(failure) if failure.is_missing() => Ok(()),
            Err(failure) if failure.message().contains("in use") => Err(RuntimeError::InUse { name: volume.to_string() }),
            Err(failure) => Err(failure.into_error()),
        }
    }
}

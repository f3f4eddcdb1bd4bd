//! Containers as the engine reports them, and questions about the engine itself.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;

use async_trait::async_trait;
use bollard::models::{
    ContainerInspectResponse, ContainerState, ContainerStateStatusEnum, ContainerSummary, HealthStatusEnum, PortMap, RestartPolicyNameEnum,
};
use bollard::query_parameters::{InspectContainerOptions, ListContainersOptions};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::failure::{Failure, nonsense};
use super::{DockerRuntime, drift};
use crate::definition::{ContainerPort, DefinitionId, PortBinding, Protocol, RestartPolicy};
use crate::image::Digest;
use crate::names::{ContainerId, ContainerName, NetworkName, ProjectName};
use crate::runtime::{
    EngineInfo, Inspect, Instance, InstanceHealth, InstanceSpec, InstanceState, InstanceStatus, Neighbour, RuntimeError, compose_labels,
    kaleem_labels,
};

/// How much of a health check's output is kept.
const HEALTH_OUTPUT_BYTES: usize = 4096;
/// How many containers are asked about at the same time.
const QUESTIONS_AT_ONCE: usize = 8;

/// The text, cut at a character's edge.
pub(super) fn cut(text: &str, most_bytes: usize) -> String {
    let end = (0..=most_bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or_default()).unwrap_or_default().to_owned()
}

pub(super) fn labels(container: &ContainerInspectResponse) -> Option<&HashMap<String, String>> {
    container.config.as_ref()?.labels.as_ref()
}

/// The project whose label these are.
pub(super) fn project_of(labels: Option<&HashMap<String, String>>) -> Option<&String> {
    let labels = labels?;
    labels.get(compose_labels::PROJECT).or_else(|| labels.get(kaleem_labels::PROJECT))
}

pub(super) fn status_of(container: &ContainerInspectResponse) -> InstanceStatus {
    match container.state.as_ref().and_then(|state| state.status) {
        Some(ContainerStateStatusEnum::RUNNING) => InstanceStatus::Running,
        Some(ContainerStateStatusEnum::PAUSED) => InstanceStatus::Paused,
        Some(ContainerStateStatusEnum::RESTARTING) => InstanceStatus::Restarting,
        Some(ContainerStateStatusEnum::REMOVING) => InstanceStatus::Removing,
        Some(ContainerStateStatusEnum::EXITED) => InstanceStatus::Exited,
        Some(ContainerStateStatusEnum::DEAD) => InstanceStatus::Dead,
        Some(_) | None => InstanceStatus::Created,
    }
}

/// Whether its program runs or will run again by itself.
pub(super) fn is_alive(container: &ContainerInspectResponse) -> bool {
    matches!(status_of(container), InstanceStatus::Running | InstanceStatus::Paused | InstanceStatus::Restarting)
}

pub(super) fn restart_of(container: &ContainerInspectResponse) -> RestartPolicy {
    let policy = container.host_config.as_ref().and_then(|host| host.restart_policy.as_ref());
    let most = policy.and_then(|policy| policy.maximum_retry_count).unwrap_or(0);
    match policy.and_then(|policy| policy.name) {
        Some(RestartPolicyNameEnum::ALWAYS) => RestartPolicy::Always,
        Some(RestartPolicyNameEnum::UNLESS_STOPPED) => RestartPolicy::UnlessStopped,
        Some(RestartPolicyNameEnum::ON_FAILURE) => RestartPolicy::OnFailure(u64::try_from(most).unwrap_or(0)),
        Some(RestartPolicyNameEnum::NO | RestartPolicyNameEnum::EMPTY) | None => RestartPolicy::No,
    }
}

/// Address of the host; both "all of IPv4" and "all of IPv6" are `None`.
fn host_ip(text: Option<&String>) -> Option<IpAddr> {
    text.and_then(|text| text.parse::<IpAddr>().ok()).filter(|ip| !ip.is_unspecified())
}

fn container_port(key: &str) -> Option<ContainerPort> {
    let (port, protocol) = key.split_once('/').unwrap_or((key, "tcp"));
    let protocol = match protocol {
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => Protocol::Tcp,
    };
    Some(ContainerPort { port: port.parse().ok()?, protocol })
}

/// Port bindings of the engine, sorted, each once.
pub(super) fn bindings(ports: Option<&PortMap>) -> Vec<PortBinding> {
    let mut bindings = Vec::new();
    for (key, hosts) in ports.into_iter().flatten() {
        let Some(container) = container_port(key) else { continue };
        for host in hosts.iter().flatten() {
            let text = host.host_port.as_deref().unwrap_or_default();
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let host_ports = first.parse().ok().zip(last.parse().ok());
            bindings.push(PortBinding { container, host_ip: host_ip(host.host_ip.as_ref()), host_ports });
        }
    }
    bindings.sort();
    bindings.dedup();
    bindings
}

fn state_of(container: &ContainerInspectResponse) -> InstanceState {
    let status = status_of(container);
    let none = ContainerState::default();
    let state = container.state.as_ref().unwrap_or(&none);
    let health = match state.health.as_ref().and_then(|health| health.status) {
        Some(HealthStatusEnum::STARTING) => InstanceHealth::Starting,
        Some(HealthStatusEnum::HEALTHY) => InstanceHealth::Healthy,
        Some(HealthStatusEnum::UNHEALTHY) => InstanceHealth::Unhealthy,
        Some(HealthStatusEnum::NONE | HealthStatusEnum::EMPTY) | None => InstanceHealth::None,
    };
    let last_check = state.health.as_ref().and_then(|health| health.log.as_ref()).and_then(|log| log.last());
    let output = last_check.and_then(|check| check.output.as_deref()).map(|output| cut(output, HEALTH_OUTPUT_BYTES));
    let has_exited = matches!(status, InstanceStatus::Exited | InstanceStatus::Dead | InstanceStatus::Restarting);
    InstanceState {
        status,
        health,
        health_output: output.filter(|output| !output.is_empty()),
        exit_code: state.exit_code.filter(|_| has_exited),
        oom_killed: state.oom_killed.unwrap_or(false),
        restart_count: container.restart_count.and_then(|count| u64::try_from(count).ok()).unwrap_or(0),
        started_at: state.started_at.clone().filter(|time| !time.starts_with("0001-")),
        error: state.error.clone().filter(|error| !error.is_empty()),
    }
}

/// The name without the slash before it.
pub(super) fn name_of(text: &str) -> Option<ContainerName> {
    text.trim_start_matches('/').parse().ok()
}

fn instance(container: &ContainerInspectResponse) -> Result<Instance, RuntimeError> {
    let missing = |what: &str| nonsense("inspect a container", format!("the answer has no {what}"));
    let labels = labels(container);
    let label = |key: &str| labels.and_then(|labels| labels.get(key));
    let name = container.name.as_deref().and_then(name_of).ok_or_else(|| missing("name"))?;
    let image = container.config.as_ref().and_then(|config| config.image.clone()).unwrap_or_default();
    let image_id: Digest = container.image.as_deref().and_then(|id| id.parse().ok()).ok_or_else(|| missing("image"))?;
    let settings = container.network_settings.as_ref();
    let running_ports = bindings(settings.and_then(|settings| settings.ports.as_ref()));
    let asked_ports = || bindings(container.host_config.as_ref().and_then(|host| host.port_bindings.as_ref()));
    let mut addresses: BTreeMap<NetworkName, String> = BTreeMap::new();
    let mut networks: BTreeMap<NetworkName, Vec<String>> = BTreeMap::new();
    for (network, endpoint) in settings.and_then(|settings| settings.networks.as_ref()).into_iter().flatten() {
        let address = [&endpoint.ip_address, &endpoint.global_ipv6_address].into_iter().flatten().find(|address| !address.is_empty());
        let Ok(network) = network.parse::<NetworkName>() else { continue };
        networks.insert(network.clone(), endpoint.aliases.clone().unwrap_or_default());
        if let Some(address) = address {
            addresses.insert(network, address.clone());
        }
    }
    let pinned = image.split_once('@').and_then(|(_, digest)| digest.parse().ok());
    // A container that Compose did not start has no service; its own name stands for it.
    let service = label(compose_labels::SERVICE).and_then(|service| service.parse().ok());
    let service = service.or_else(|| name.as_str().get(..name.as_str().len().min(128))?.parse().ok());
    Ok(Instance {
        id: ContainerId(container.id.clone().ok_or_else(|| missing("id"))?),
        service: service.ok_or_else(|| missing("service"))?,
        number: label(compose_labels::NUMBER).and_then(|number| number.parse().ok()).unwrap_or(0),
        oneoff: label(compose_labels::ONEOFF).is_some_and(|oneoff| oneoff.eq_ignore_ascii_case("true")),
        release: label(kaleem_labels::RELEASE).and_then(|release| release.parse().ok()),
        definition: label(kaleem_labels::DEFINITION).map(|id| DefinitionId(id.clone())),
        compose_hash: label(compose_labels::CONFIG_HASH).cloned(),
        digest: label(kaleem_labels::DIGEST).and_then(|digest| digest.parse().ok()).or(pinned),
        image,
        image_id,
        state: state_of(container),
        restart: restart_of(container),
        gateway: label(kaleem_labels::GATEWAY).and_then(|gateway| gateway.parse().ok()),
        networks,
        addresses,
        ports: if is_alive(container) { running_ports } else { asked_ports() },
        labels: labels.into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect(),
        name,
    })
}

impl DockerRuntime {
    /// What the engine says of a container by name or id; `None` where there is none.
    pub(super) async fn look(&self, name: &str) -> Result<Option<ContainerInspectResponse>, RuntimeError> {
        let question = self.client.inspect_container(name, None::<InspectContainerOptions>);
        match self.ask("inspect a container", question).await {
            // An engine also takes the beginning of an id for a name.
            Ok(found) if name_of(found.name.as_deref().unwrap_or_default()).is_some_and(|found| found.as_str() == name) => Ok(Some(found)),
            Ok(found) if found.id.as_deref() == Some(name) => Ok(Some(found)),
            Ok(_) => Ok(None),
            Err(failure) if failure.is_missing() => Ok(None),
            Err(failure) => Err(failure.into_error()),
        }
    }

    async fn with_digest(&self, mut instance: Instance) -> Result<Instance, RuntimeError> {
        if instance.digest.is_none()
            && let Some(image) = self.look_at_image(instance.image_id.as_str()).await?
        {
            let repository = instance.image.parse::<crate::image::ImageRef>().ok().map(|image| image.familiar_repository());
            let of_repository = image.repo_digests.iter().find(|(name, _)| Some(name) == repository.as_ref());
            instance.digest = of_repository.or(image.repo_digests.first()).map(|(_, digest)| digest.clone());
        }
        Ok(instance)
    }

    /// Ids of all containers with this label.
    async fn ids_with(&self, label: &str) -> Result<Vec<String>, RuntimeError> {
        let filters = HashMap::from([("label".to_owned(), vec![label.to_owned()])]);
        let options = ListContainersOptions { all: true, filters: Some(filters), ..ListContainersOptions::default() };
        let found = self.ask("list containers", self.client.list_containers(Some(options))).await.map_err(Failure::into_error)?;
        Ok(found.into_iter().filter_map(|container| container.id).collect())
    }

    async fn by_id(&self, id: String) -> Result<Option<Instance>, RuntimeError> {
        // One that went in between is not there any more.
        let Some(found) = self.look(&id).await? else { return Ok(None) };
        self.with_digest(instance(&found)?).await.map(Some)
    }
}

#[async_trait]
impl Inspect for DockerRuntime {
    async fn list(&self, project: &ProjectName) -> Result<Vec<Instance>, RuntimeError> {
        let (compose, own) = (format!("{}={project}", compose_labels::PROJECT), format!("{}={project}", kaleem_labels::PROJECT));
        let (mut ids, own) = futures_util::try_join!(self.ids_with(&compose), self.ids_with(&own))?;
        ids.extend(own);
        ids.sort();
        ids.dedup();
        let questions = stream::iter(ids.into_iter().map(|id| self.by_id(id))).buffer_unordered(QUESTIONS_AT_ONCE);
        let mut instances: Vec<Instance> = questions.try_filter_map(|found| async { Ok(found) }).try_collect().await?;
        instances.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(instances)
    }

    async fn inspect(&self, name: &ContainerName) -> Result<Option<Instance>, RuntimeError> {
        match self.look(name.as_str()).await? {
            Some(found) => self.with_digest(instance(&found)?).await.map(Some),
            None => Ok(None),
        }
    }

    async fn drift(&self, spec: &InstanceSpec) -> Result<Vec<String>, RuntimeError> {
        drift::drift(self, spec).await
    }

    async fn foreign_ports(&self, project: &ProjectName) -> Result<Vec<(PortBinding, ContainerName)>, RuntimeError> {
        let question = self.client.list_containers(None::<ListContainersOptions>);
        let running = self.ask("list containers", question).await.map_err(Failure::into_error)?;
        let mut ports = Vec::new();
        for container in
            running.iter().filter(|container| project_of(container.labels.as_ref()).map(String::as_str) != Some(project.as_str()))
        {
            // Names of legacy links have a second slash.
            let mut names = container.names.iter().flatten().filter(|name| !name.trim_start_matches('/').contains('/'));
            let Some(name) = names.find_map(|name| name_of(name)) else { continue };
            for port in container.ports.iter().flatten() {
                let Some(public) = port.public_port else { continue };
                let protocol = port.typ.map(|typ| typ.to_string()).unwrap_or_default();
                let Some(inside) = container_port(&format!("{}/{protocol}", port.private_port)) else { continue };
                let binding = PortBinding { container: inside, host_ip: host_ip(port.ip.as_ref()), host_ports: Some((public, public)) };
                ports.push((binding, name.clone()));
            }
        }
        ports.sort();
        ports.dedup();
        Ok(ports)
    }

    async fn neighbours(&self, networks: &[NetworkName]) -> Result<Vec<Neighbour>, RuntimeError> {
        let question = self.client.list_containers(None::<ListContainersOptions>);
        let running = self.ask("list containers", question).await.map_err(Failure::into_error)?;
        let joins = |container: &ContainerSummary| {
            let joined = container.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
            joined.is_some_and(|joined| networks.iter().any(|network| joined.contains_key(network.as_str())))
        };
        let neighbour = |container: &ContainerSummary| {
            let name = container.names.iter().flatten().find(|name| !name.trim_start_matches('/').contains('/'))?;
            let labels = container.labels.as_ref();
            let networks = container.network_settings.as_ref().and_then(|settings| settings.networks.as_ref()).into_iter().flatten();
            let address = |(network, endpoint): (&String, &bollard::models::EndpointSettings)| {
                Some((network.parse().ok()?, endpoint.ip_address.clone().unwrap_or_default()))
            };
            Some(Neighbour {
                addresses: networks.filter_map(address).collect(),
                name: name_of(name)?,
                project: project_of(labels).cloned(),
                service: labels.and_then(|labels| labels.get(compose_labels::SERVICE)).and_then(|service| service.parse().ok()),
                image: container.image.clone().unwrap_or_default(),
            })
        };
        let mut found: Vec<Neighbour> = running.iter().filter(|container| joins(container)).filter_map(neighbour).collect();
        found.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
    }

    async fn engine(&self) -> Result<EngineInfo, RuntimeError> {
        Ok(self.engine.clone())
    }

    async fn root_directory(&self) -> Result<PathBuf, RuntimeError> {
        let info = self.ask("describe itself", self.client.info()).await.map_err(Failure::into_error)?;
        Ok(info.docker_root_dir.unwrap_or_default().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(cut("aäb", 2), "a");
        assert_eq!(cut("aäb", 3), "aä");
        assert_eq!(cut("ab", 9), "ab");
    }
}

//! Containers of the fake: what it refuses, and what the seams answer.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;

use super::world::{Container, World, refused};
use super::{FakeOperation, FakeRuntime};
use crate::definition::{Definition, Mount, MountSource, NetworkAttachment, NetworkMode, PortBinding, RestartPolicy};
use crate::names::{ContainerId, ContainerName, NetworkName, ProjectName, VolumeName};
use crate::runtime::{
    Addresses, Containers, EngineInfo, Inspect, Instance, InstanceSpec, InstanceStatus, Leaving, Neighbour, OwnedContainer, RuntimeError,
    StopPolicy, compose_labels, kaleem_labels,
};

/// Where ports begin that the engine chooses.
const FIRST_EPHEMERAL_PORT: u16 = 32768;

/// Whether two addresses of the host, `None` being all of them, share one.
fn overlap(one: Option<IpAddr>, other: Option<IpAddr>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one == other || one.is_unspecified() || other.is_unspecified(),
        _ => true,
    }
}

impl World {
    /// The container, if it exists and is the project's.
    fn owned(&mut self, project: &ProjectName, name: &ContainerName) -> Result<Option<&mut Container>, RuntimeError> {
        match self.containers.get_mut(name) {
            Some(container) if container.project() != Some(project.as_str()) => {
                Err(RuntimeError::NotOurs { name: name.to_string(), project: project.clone() })
            }
            found => Ok(found),
        }
    }

    fn network_exists(&self, network: &NetworkName) -> bool {
        self.networks.contains_key(network)
    }

    /// Refuses what the engine would refuse, and what it would silently make.
    fn check_definition(&self, spec: &InstanceSpec) -> Result<(), RuntimeError> {
        let no_such = |kind: &str, name: &str| Err(refused("create the container", 404, format!("{kind} {name} not found")));
        let definition = &spec.definition;
        if let NetworkMode::Networks(attachments) = &definition.network
            && let Some(missing) = attachments.iter().find(|attachment| !self.network_exists(&attachment.network))
        {
            return no_such("network", missing.network.as_str());
        }
        for mount in &definition.mounts {
            match &mount.source {
                MountSource::Volume { name, .. } if !self.volumes.contains_key(name) => return no_such("volume", name.as_str()),
                MountSource::Bind { path, create_host_path: false, .. } if self.missing_host_paths.contains(path) => {
                    let message = format!("invalid mount config for type \"bind\": bind source path does not exist: {path}");
                    return Err(refused("create the container", 400, message));
                }
                MountSource::Volume { .. } | MountSource::Bind { .. } | MountSource::Anonymous | MountSource::Tmpfs { .. } => {}
            }
        }
        let by_mode = |mode: &Option<String>| mode.as_deref().and_then(|mode| mode.strip_prefix("service:")).map(str::to_owned);
        let mut services: Vec<String> = definition.volumes_from.iter().map(|(service, _)| service.to_string()).collect();
        services.extend(by_mode(&definition.pid));
        services.extend(by_mode(&definition.ipc));
        if let NetworkMode::Service(service) = &definition.network {
            services.push(service.to_string());
        }
        for service in services {
            let companion = spec.companions.iter().find(|(of, _)| of.as_str() == service).map(|(_, name)| name);
            if !companion.is_some_and(|name| self.containers.contains_key(name)) {
                return no_such("container of the service", &service);
            }
        }
        Ok(())
    }

    pub(super) fn create(&mut self, spec: &InstanceSpec) -> Result<ContainerId, RuntimeError> {
        let reference = spec.image.engine_reference();
        let Some(image_id) = self.find_image(&reference) else { return Err(RuntimeError::ImageMissing { image: reference }) };
        if let Some(existing) = self.containers.get(&spec.name) {
            let taken = |owner: String| Err(RuntimeError::NameTaken { name: spec.name.clone(), owner });
            if existing.project() != Some(spec.project.as_str()) {
                return taken(existing.project().map_or_else(|| "no project".to_owned(), |project| format!("the project `{project}`")));
            }
            let label = kaleem_labels::DEFINITION;
            let same_definition = match (existing.labels.get(label), spec.labels.get(label)) {
                (Some(existing), Some(wanted)) => existing == wanted,
                _ => existing.definition == *spec.definition,
            };
            if !same_definition || existing.image_id != image_id {
                return taken("the project itself, with another definition or image".to_owned());
            }
            return Ok(existing.id.clone());
        }
        self.check_definition(spec)?;
        let definition = Definition::clone(&spec.definition);
        let container = self.new_container(&spec.labels, &spec.image, image_id, definition, spec.companions.clone());
        let id = container.id.clone();
        self.containers.insert(spec.name.clone(), container);
        Ok(id)
    }

    pub(super) fn start(&mut self, project: &ProjectName, name: &ContainerName, restart: RestartPolicy) -> Result<(), RuntimeError> {
        let Some(container) = self.owned(project, name)? else { return Err(RuntimeError::NotFound { name: name.to_string() }) };
        container.policy = restart;
        if container.status == InstanceStatus::Paused {
            container.status = InstanceStatus::Running;
        }
        if container.is_alive() {
            return Ok(());
        }
        container.restart_count = 0;
        if let Err(error) = self.check_start(name) {
            if let Some(container) = self.containers.get_mut(name) {
                container.error = Some(error.to_string());
            }
            return Err(error);
        }
        self.begin_run(name);
        Ok(())
    }

    fn start_apart(&mut self, project: &ProjectName, name: &ContainerName, restart: RestartPolicy) -> Result<(), RuntimeError> {
        let Some(container) = self.owned(project, name)? else { return Err(RuntimeError::NotFound { name: name.to_string() }) };
        container.policy = restart;
        if container.is_alive() {
            return Ok(());
        }
        container.apart = true;
        container.networks.clear();
        container.restart_count = 0;
        self.begin_run(name);
        Ok(())
    }

    fn hand_over(
        &mut self,
        project: &ProjectName,
        from: &[Leaving],
        to: &ContainerName,
        networks: &[NetworkAttachment],
    ) -> Result<(), RuntimeError> {
        if self.owned(project, to)?.is_none() {
            return Err(RuntimeError::NotFound { name: to.to_string() });
        }
        for leaving in from {
            if self.owned(project, &leaving.container)?.is_some() {
                self.end_on_request(&leaving.container);
            }
        }
        let Some(container) = self.containers.get_mut(to) else { return Ok(()) };
        if !container.apart && container.is_alive() {
            return Ok(());
        }
        container.apart = false;
        container.networks = networks.iter().map(|attachment| (attachment.network.clone(), attachment.clone())).collect();
        if let Err(error) = self.check_start(to) {
            if let Some(container) = self.containers.get_mut(to) {
                container.apart = true;
                container.networks.clear();
            }
            return Err(error);
        }
        if !self.containers.get(to).is_some_and(Container::is_alive) {
            self.begin_run(to);
            return Ok(());
        }
        let (ports, addresses) = (self.assign_ports(to), self.assign_addresses(to));
        if let Some(container) = self.containers.get_mut(to) {
            container.ports = ports;
            container.addresses = addresses;
        }
        Ok(())
    }

    fn connect(&mut self, project: &ProjectName, name: &ContainerName, networks: &[NetworkAttachment]) -> Result<(), RuntimeError> {
        if self.owned(project, name)?.is_none() {
            return Err(RuntimeError::NotFound { name: name.to_string() });
        }
        if let Some(missing) = networks.iter().find(|attachment| !self.network_exists(&attachment.network)) {
            return Err(refused("connect the container to its network", 404, format!("network {} not found", missing.network)));
        }
        let Some(container) = self.containers.get_mut(name) else { return Ok(()) };
        container.networks.extend(networks.iter().map(|attachment| (attachment.network.clone(), attachment.clone())));
        container.apart = false;
        if container.is_alive() {
            let (ports, addresses) = (self.assign_ports(name), self.assign_addresses(name));
            if let Some(container) = self.containers.get_mut(name) {
                // What it has already stays with it.
                for (network, address) in addresses {
                    container.addresses.entry(network).or_insert(address);
                }
                if container.ports.is_empty() {
                    container.ports = ports;
                }
            }
        }
        Ok(())
    }

    fn neighbours(&self, networks: &[NetworkName]) -> Vec<Neighbour> {
        let joins = |container: &Container| container.networks.keys().any(|network| networks.contains(network));
        let found = self.containers.iter().filter(|(_, container)| container.is_alive() && !container.apart && joins(container));
        let neighbour = |(name, container): (&ContainerName, &Container)| Neighbour {
            name: name.clone(),
            project: container.project().map(str::to_owned),
            service: container.labels.get(compose_labels::SERVICE).and_then(|service| service.parse().ok()),
            image: container.image.engine_reference(),
            addresses: container.addresses.clone(),
        };
        found.map(neighbour).collect()
    }

    fn check_start(&self, name: &ContainerName) -> Result<(), RuntimeError> {
        let Some(container) = self.containers.get(name) else { return Err(RuntimeError::NotFound { name: name.to_string() }) };
        let refuse = |status, message: String| Err(refused("start the container", status, message));
        match &container.definition.network {
            NetworkMode::Networks(_) => {
                for attachment in container.networks.values() {
                    if !self.network_exists(&attachment.network) {
                        return refuse(404, format!("network {} not found", attachment.network));
                    }
                    let holds = |other: &Container| {
                        attachment.ipv4.is_some() && other.addresses.get(&attachment.network) == attachment.ipv4.as_ref()
                    };
                    if self.containers.values().any(holds) {
                        return refuse(403, "Address already in use".to_owned());
                    }
                }
            }
            NetworkMode::Service(service) => {
                let companion = container.companions.get(service).and_then(|name| self.containers.get(name));
                if !companion.is_some_and(|companion| companion.status == InstanceStatus::Running) {
                    return refuse(409, format!("cannot join network of a non running container: {service}"));
                }
            }
            NetworkMode::Bridge | NetworkMode::Host | NetworkMode::None | NetworkMode::Container(_) => {}
        }
        for binding in &container.definition.ports {
            if self.choose_port(binding, &[]).is_none() {
                let ip = binding.host_ip.map_or_else(|| "0.0.0.0".to_owned(), |ip| ip.to_string());
                let port = binding.host_ports.map_or(0, |(first, _)| first);
                return Err(RuntimeError::PortTaken { port: format!("{ip}:{port}") });
            }
        }
        Ok(())
    }

    /// Whether someone holds this port of the host.
    fn is_taken(&self, binding: &PortBinding, port: u16) -> bool {
        let protocol = binding.container.protocol;
        let same = |other: &PortBinding| {
            other.container.protocol == protocol
                && other.host_ports.is_some_and(|(first, last)| (first..=last).contains(&port))
                && overlap(other.host_ip, binding.host_ip)
        };
        let by_container = self.containers.values().any(|other| other.is_alive() && other.ports.iter().any(same));
        let by_process = |(ip, taken, of): &(Option<IpAddr>, u16, _)| *taken == port && *of == protocol && overlap(*ip, binding.host_ip);
        by_container || self.occupied_ports.iter().any(by_process)
    }

    /// A free port for the binding, beside those that the same container has got already.
    fn choose_port(&self, binding: &PortBinding, own: &[PortBinding]) -> Option<u16> {
        let (first, last) = binding.host_ports.unwrap_or((FIRST_EPHEMERAL_PORT, u16::MAX));
        let protocol = binding.container.protocol;
        let is_own = |port| own.iter().any(|own| own.container.protocol == protocol && own.host_ports == Some((port, port)));
        (first..=last).find(|port| !is_own(*port) && !self.is_taken(binding, *port))
    }

    pub(super) fn assign_ports(&self, name: &ContainerName) -> Vec<PortBinding> {
        let Some(container) = self.containers.get(name) else { return Vec::new() };
        let mut assigned = Vec::new();
        for binding in &container.definition.ports {
            if let Some(port) = self.choose_port(binding, &assigned) {
                assigned.push(PortBinding { host_ports: Some((port, port)), ..binding.clone() });
            }
        }
        assigned
    }

    fn rename(&mut self, container: &OwnedContainer, to: &ContainerName) -> Result<(), RuntimeError> {
        let (project, from) = (&container.project, &container.name);
        let is_ours = |name| self.containers.get(name).map(|container| container.project() == Some(project.as_str()));
        match (is_ours(from), is_ours(to)) {
            (None, Some(true)) => Ok(()),
            (None, _) => Err(RuntimeError::NotFound { name: from.to_string() }),
            (Some(false), _) => Err(RuntimeError::NotOurs { name: from.to_string(), project: project.clone() }),
            (Some(true), _) if from == to => Ok(()),
            (Some(true), Some(_)) => Err(RuntimeError::NameTaken { name: to.clone(), owner: "another container".to_owned() }),
            (Some(true), None) => {
                if let Some(moved) = self.containers.remove(from) {
                    self.containers.insert(to.clone(), moved);
                }
                // What joined it keeps doing so: the engine resolved the name to an id.
                for other in self.containers.values_mut() {
                    other.companions.values_mut().filter(|name| *name == from).for_each(|name| *name = to.clone());
                }
                Ok(())
            }
        }
    }

    fn drift(&self, spec: &InstanceSpec) -> Result<Vec<String>, RuntimeError> {
        let Some(container) = self.containers.get(&spec.name) else { return Err(RuntimeError::NotFound { name: spec.name.to_string() }) };
        let bare = |definition: &Definition| {
            // The restart policy is switched off by every stop, and on by the start.
            let definition = Definition { labels: Default::default(), restart: RestartPolicy::No, ..definition.clone() };
            serde_json::to_value(definition).unwrap_or_default()
        };
        let (found, wanted) = (bare(&container.definition), bare(&spec.definition));
        let mut names = Vec::new();
        for (field, wanted) in wanted.as_object().into_iter().flatten() {
            let found = found.get(field).unwrap_or(&serde_json::Value::Null);
            if found == wanted {
                continue;
            }
            match (field.as_str(), found.as_object(), wanted.as_object()) {
                ("environment", Some(found), Some(wanted)) => {
                    let mut keys: Vec<&String> =
                        found.keys().chain(wanted.keys()).filter(|key| found.get(*key) != wanted.get(*key)).collect();
                    keys.sort();
                    keys.dedup();
                    names.extend(keys.into_iter().map(|key| format!("environment.{key}")));
                }
                _ => names.push(field.clone()),
            }
        }
        let (found, wanted) = (&container.definition.labels, &spec.definition.labels);
        let keys: std::collections::BTreeSet<&String> = found.keys().chain(wanted.keys()).collect();
        names.extend(keys.into_iter().filter(|key| found.get(*key) != wanted.get(*key)).map(|key| format!("labels.{key}")));
        Ok(names)
    }
}

#[async_trait]
impl Containers for FakeRuntime {
    async fn create(&self, spec: &InstanceSpec) -> Result<ContainerId, RuntimeError> {
        self.call(FakeOperation::Create, &spec.name, |world| world.create(spec))
    }

    async fn start(&self, container: &OwnedContainer, restart: RestartPolicy) -> Result<(), RuntimeError> {
        self.call(FakeOperation::Start, &container.name, |world| world.start(&container.project, &container.name, restart))
    }

    async fn start_apart(&self, container: &OwnedContainer, restart: RestartPolicy) -> Result<(), RuntimeError> {
        self.call(FakeOperation::StartApart, &container.name, |world| world.start_apart(&container.project, &container.name, restart))
    }

    async fn hand_over(
        &self,
        project: &ProjectName,
        from: &[Leaving],
        to: &ContainerName,
        networks: &[NetworkAttachment],
    ) -> Result<Duration, RuntimeError> {
        self.call(FakeOperation::HandOver, to, |world| world.hand_over(project, from, to, networks)).map(|()| Duration::from_millis(200))
    }

    async fn connect(&self, container: &OwnedContainer, networks: &[NetworkAttachment]) -> Result<(), RuntimeError> {
        self.call(FakeOperation::Connect, &container.name, |world| world.connect(&container.project, &container.name, networks))
    }

    async fn disconnect(&self, container: &OwnedContainer, networks: &[NetworkName]) -> Result<(), RuntimeError> {
        self.call(FakeOperation::Disconnect, &container.name, |world| {
            if world.owned(&container.project, &container.name)?.is_some() {
                networks.iter().for_each(|network| world.leave_network(&container.name, network));
            }
            Ok(())
        })
    }

    async fn signal(&self, container: &OwnedContainer, signal: &str) -> Result<(), RuntimeError> {
        self.call(FakeOperation::Signal, &format!("{signal} {}", container.name), |world| {
            match world.owned(&container.project, &container.name)?.filter(|found| found.is_alive()) {
                Some(found) => {
                    found.signals.push(signal.to_owned());
                    Ok(())
                }
                None => Err(RuntimeError::NotFound { name: container.name.to_string() }),
            }
        })
    }

    async fn stop(&self, container: &OwnedContainer, _policy: &StopPolicy) -> Result<(), RuntimeError> {
        self.call(FakeOperation::Stop, &container.name, |world| {
            if world.owned(&container.project, &container.name)?.is_some() {
                world.end_on_request(&container.name);
            }
            Ok(())
        })
    }

    async fn remove(&self, container: &OwnedContainer) -> Result<(), RuntimeError> {
        self.call(FakeOperation::Remove, &container.name, |world| match world.owned(&container.project, &container.name)? {
            Some(found) if found.is_alive() => Err(RuntimeError::StillRunning { name: container.name.clone() }),
            Some(_) => {
                world.containers.remove(&container.name);
                Ok(())
            }
            None => Ok(()),
        })
    }

    async fn rename(&self, container: &OwnedContainer, to: &ContainerName) -> Result<(), RuntimeError> {
        self.call(FakeOperation::Rename, &format!("{} to {to}", container.name), |world| world.rename(container, to))
    }
}

#[async_trait]
impl Inspect for FakeRuntime {
    async fn list(&self, project: &ProjectName) -> Result<Vec<Instance>, RuntimeError> {
        self.call(FakeOperation::List, project, |world| {
            let ours = |container: &Container| container.project() == Some(project.as_str());
            let names: Vec<ContainerName> =
                world.containers.iter().filter(|(_, container)| ours(container)).map(|(name, _)| name.clone()).collect();
            for name in &names {
                world.tick(name);
            }
            Ok(names.iter().filter_map(|name| Some(world.instance(name, world.containers.get(name)?))).collect())
        })
    }

    async fn inspect(&self, name: &ContainerName) -> Result<Option<Instance>, RuntimeError> {
        self.call(FakeOperation::Inspect, name, |world| {
            world.tick(name);
            Ok(world.containers.get(name).map(|container| world.instance(name, container)))
        })
    }

    async fn drift(&self, spec: &InstanceSpec) -> Result<Vec<String>, RuntimeError> {
        self.call(FakeOperation::Drift, &spec.name, |world| world.drift(spec))
    }

    async fn foreign_ports(&self, project: &ProjectName) -> Result<Vec<(PortBinding, ContainerName)>, RuntimeError> {
        self.call(FakeOperation::ForeignPorts, project, |world| {
            let foreign = |container: &Container| container.is_alive() && container.project() != Some(project.as_str());
            let others = world.containers.iter().filter(|(_, container)| foreign(container));
            Ok(others.flat_map(|(name, other)| other.ports.iter().map(|port| (port.clone(), name.clone()))).collect())
        })
    }

    async fn neighbours(&self, networks: &[NetworkName]) -> Result<Vec<Neighbour>, RuntimeError> {
        self.call(FakeOperation::Neighbours, &"networks", |world| Ok(world.neighbours(networks)))
    }

    async fn engine(&self) -> Result<EngineInfo, RuntimeError> {
        self.call(FakeOperation::Engine, &"engine", |world| Ok(world.engine.clone()))
    }

    async fn root_directory(&self) -> Result<PathBuf, RuntimeError> {
        self.call(FakeOperation::Engine, &"engine", |_| Ok("/var/lib/docker".into()))
    }
}

impl World {
    /// Whether a container stands on this network, running or not: without the network it could not be started again.
    pub(super) fn uses_network(&self, network: &NetworkName) -> bool {
        self.containers.values().filter(|container| !container.apart).any(|container| container.networks.contains_key(network))
    }

    /// Whether a container has this volume, running or not.
    pub(super) fn uses_volume(&self, volume: &VolumeName) -> bool {
        let is = |mount: &Mount| matches!(&mount.source, MountSource::Volume { name, .. } if name == volume);
        self.containers.values().any(|container| container.definition.mounts.iter().any(is))
    }
}

#[async_trait]
impl Addresses for FakeRuntime {
    async fn reserve(
        &self,
        project: &ProjectName,
        like: &ContainerName,
        addresses: &BTreeMap<NetworkName, String>,
    ) -> Result<(), RuntimeError> {
        self.call(FakeOperation::Reserve, like, |world| {
            if world.owned(project, like)?.is_none() {
                return Err(RuntimeError::NotFound { name: like.to_string() });
            }
            for (network, address) in addresses {
                world.reserve(network, address);
            }
            Ok(())
        })
    }

    async fn release(&self, project: &ProjectName) -> Result<(), RuntimeError> {
        self.call(FakeOperation::Release, project, |world| {
            world.placeholders.clear();
            Ok(())
        })
    }
}

//! What is on the fake engine, and how it gets on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use sha2::{Digest as _, Sha256};

use super::{Behaviour, FakeContainer, FakeImage, FakeSnapshot};
use crate::definition::{ContainerPort, Definition, HealthTest, NetworkAttachment, NetworkMode, PortBinding, Protocol, RestartPolicy};
use crate::image::{Digest, ImageSource, PinnedImage};
use crate::names::{ContainerId, ContainerName, NetworkName, ProjectName, ServiceName, VolumeName};
use crate::runtime::marks::OwnerMark;
use crate::runtime::{
    EngineInfo, Instance, InstanceHealth, InstanceSpec, InstanceState, InstanceStatus, LocalImage, LogLine, RuntimeError, compose_labels,
    kaleem_labels,
};

/// The SHA-256 digest of a text.
pub(super) fn digest_of(text: &str) -> Digest {
    let hex = hex::encode(Sha256::digest(text.as_bytes()));
    // The form is right by construction; a wrong one would show in every test at once.
    format!("sha256:{hex}").parse().unwrap_or_else(|_| unreachable!("64 hexadecimal digits are a digest"))
}

/// Sentence of the engine for a thing it does not have.
pub(super) fn refused(operation: &str, status: u16, message: impl Into<String>) -> RuntimeError {
    RuntimeError::Refused { operation: operation.to_owned(), status, message: message.into() }
}

pub(super) struct StoredImage {
    pub(super) image: FakeImage,
    pub(super) repo_digests: Vec<(String, Digest)>,
}

pub(super) struct Network {
    pub(super) project: Option<String>,
    subnet: u8,
}

pub(super) struct Container {
    pub(super) id: ContainerId,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) image: PinnedImage,
    pub(super) image_id: Digest,
    pub(super) definition: Definition,
    pub(super) companions: BTreeMap<ServiceName, ContainerName>,
    pub(super) behaviour: Behaviour,
    pub(super) policy: RestartPolicy,
    pub(super) status: InstanceStatus,
    pub(super) health: InstanceHealth,
    pub(super) exit_code: Option<i64>,
    pub(super) oom_killed: bool,
    pub(super) restart_count: u64,
    pub(super) started_at: Option<String>,
    pub(super) error: Option<String>,
    pub(super) polls: u32,
    pub(super) runs: u64,
    pub(super) killed: bool,
    /// Networks that it is on, with its names there; none while it is apart.
    pub(super) networks: BTreeMap<NetworkName, NetworkAttachment>,
    pub(super) addresses: BTreeMap<NetworkName, String>,
    pub(super) ports: Vec<PortBinding>,
    /// Whether its networks were taken from it: nobody reaches it, and it holds no ports.
    pub(super) apart: bool,
    /// Signals that it was sent, beside those of a stop.
    pub(super) signals: Vec<String>,
    pub(super) logs: Vec<LogLine>,
}

impl Container {
    /// The project whose label it carries.
    pub(super) fn project(&self) -> Option<&str> {
        self.labels.get(compose_labels::PROJECT).or_else(|| self.labels.get(kaleem_labels::PROJECT)).map(String::as_str)
    }

    pub(super) fn is_alive(&self) -> bool {
        matches!(self.status, InstanceStatus::Running | InstanceStatus::Paused | InstanceStatus::Restarting)
    }

    fn end(&mut self, code: i64, oom_killed: bool) {
        self.status = InstanceStatus::Exited;
        self.exit_code = Some(code);
        self.oom_killed = oom_killed;
        self.addresses.clear();
        self.ports.clear();
    }
}

/// The engine's memory.
pub(super) struct World {
    pub(super) containers: BTreeMap<ContainerName, Container>,
    pub(super) networks: BTreeMap<NetworkName, Network>,
    pub(super) volumes: BTreeMap<VolumeName, Option<String>>,
    pub(super) marks: BTreeMap<(ProjectName, u64), OwnerMark>,
    pub(super) images: BTreeMap<Digest, StoredImage>,
    pub(super) tags: BTreeMap<String, Digest>,
    pub(super) remote: BTreeMap<String, FakeImage>,
    pub(super) behaviours: BTreeMap<Digest, Behaviour>,
    pub(super) occupied_ports: Vec<(Option<IpAddr>, u16, Protocol)>,
    pub(super) missing_host_paths: BTreeSet<String>,
    /// Addresses that placeholders occupy.
    pub(super) placeholders: BTreeMap<NetworkName, BTreeSet<String>>,
    pub(super) engine: EngineInfo,
    counter: u64,
}

impl World {
    pub(super) fn new() -> Self {
        let engine = EngineInfo {
            version: "20.10.24".to_owned(),
            api_version: "1.41".to_owned(),
            os: "linux".to_owned(),
            architecture: "amd64".to_owned(),
        };
        Self {
            containers: BTreeMap::new(),
            networks: BTreeMap::new(),
            volumes: BTreeMap::new(),
            marks: BTreeMap::new(),
            images: BTreeMap::new(),
            tags: BTreeMap::new(),
            remote: BTreeMap::new(),
            behaviours: BTreeMap::new(),
            occupied_ports: Vec::new(),
            missing_host_paths: BTreeSet::new(),
            placeholders: BTreeMap::new(),
            engine,
            counter: 0,
        }
    }

    /// A number that was never given before.
    pub(super) fn count(&mut self) -> u64 {
        self.counter = self.counter.saturating_add(1);
        self.counter
    }

    /// A moment later than all before, in the engine's form.
    pub(super) fn moment(&mut self) -> String {
        let seconds = self.count();
        format!("2026-01-01T{:02}:{:02}:{:02}.000000000Z", (seconds / 3600) % 24, (seconds / 60) % 60, seconds % 60)
    }

    pub(super) fn add_network(&mut self, name: &NetworkName, project: Option<&str>) {
        let subnet = u8::try_from(self.networks.len()).unwrap_or(u8::MAX);
        self.networks.insert(name.clone(), Network { project: project.map(str::to_owned), subnet });
    }

    pub(super) fn write_log(&mut self, name: &ContainerName, stderr: bool, text: &str) {
        let time = self.moment();
        if let Some(container) = self.containers.get_mut(name) {
            container.logs.push(LogLine { stderr, time, text: text.to_owned() });
        }
    }

    /// Whether the container has a health check: its own definition decides before its image.
    fn has_healthcheck(&self, container: &Container) -> bool {
        let of_image = self.images.get(&container.image_id).is_some_and(|stored| stored.image.facts.has_healthcheck);
        match container.definition.healthcheck.as_ref().map(|check| &check.test) {
            Some(HealthTest::Disabled) => false,
            Some(HealthTest::Shell(_) | HealthTest::Exec(_)) => true,
            Some(HealthTest::Inherit) | None => of_image,
        }
    }

    /// Begins a run. All checks were made before.
    pub(super) fn begin_run(&mut self, name: &ContainerName) {
        let moment = self.moment();
        let has_healthcheck = self.containers.get(name).is_some_and(|container| self.has_healthcheck(container));
        let apart = self.containers.get(name).is_some_and(|container| container.apart);
        let (ports, addresses) = if apart { Default::default() } else { (self.assign_ports(name), self.assign_addresses(name)) };
        let Some(container) = self.containers.get_mut(name) else { return };
        container.status = InstanceStatus::Running;
        container.health = if has_healthcheck { InstanceHealth::Starting } else { InstanceHealth::None };
        container.exit_code = None;
        container.oom_killed = false;
        container.error = None;
        container.polls = 0;
        container.killed = false;
        container.runs = container.runs.saturating_add(1);
        container.started_at = Some(moment);
        container.ports = ports;
        container.addresses = addresses;
    }

    /// One look at the container: it gets on by one step.
    pub(super) fn tick(&mut self, name: &ContainerName) {
        if self.containers.get(name).is_some_and(|container| container.status == InstanceStatus::Restarting) {
            return self.begin_run(name);
        }
        let Some(container) = self.containers.get_mut(name) else { return };
        if container.status != InstanceStatus::Running {
            return;
        }
        container.polls = container.polls.saturating_add(1);
        let polls = container.polls;
        let health = match &container.behaviour {
            Behaviour::Healthy | Behaviour::IgnoresStop => InstanceHealth::Healthy,
            Behaviour::HealthyAfter(needed) if polls > *needed => InstanceHealth::Healthy,
            Behaviour::HealthyAfter(_) => InstanceHealth::Starting,
            Behaviour::NeverHealthy if polls > 2 => InstanceHealth::Unhealthy,
            Behaviour::NeverHealthy => InstanceHealth::Starting,
            Behaviour::ExitsAtOnce { code, log } => {
                let (code, log) = (*code, log.clone());
                self.write_log(name, true, &log);
                return self.crash(name, code, false);
            }
            Behaviour::OomKilled => return self.crash(name, 137, true),
            Behaviour::CrashesAfter(runs_for) if polls > *runs_for => return self.crash(name, 1, false),
            Behaviour::CrashesAfter(_) => InstanceHealth::Healthy,
            Behaviour::CompletesWith(code) if polls > 1 => {
                let code = *code;
                return self.crash(name, code, false);
            }
            Behaviour::CompletesWith(_) => InstanceHealth::Healthy,
        };
        if container.health != InstanceHealth::None {
            container.health = health;
        }
    }

    /// The program ends by itself; the restart policy decides what follows.
    pub(super) fn crash(&mut self, name: &ContainerName, code: i64, oom_killed: bool) {
        let Some(container) = self.containers.get_mut(name) else { return };
        if !container.is_alive() {
            return;
        }
        container.end(code, oom_killed);
        let again = match container.policy {
            RestartPolicy::No => false,
            RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
            RestartPolicy::OnFailure(most) => code != 0 && (most == 0 || container.restart_count < most),
        };
        if again {
            container.restart_count = container.restart_count.saturating_add(1);
            container.status = InstanceStatus::Restarting;
        }
    }

    /// The program is asked to end; no policy applies any more.
    pub(super) fn end_on_request(&mut self, name: &ContainerName) {
        let Some(container) = self.containers.get_mut(name) else { return };
        container.policy = RestartPolicy::No;
        if !container.is_alive() {
            return;
        }
        container.killed = container.behaviour == Behaviour::IgnoresStop;
        let code = if container.killed { 137 } else { 0 };
        container.end(code, false);
    }

    /// A person stops it: its policy stays, and does not apply.
    pub(super) fn stop_by_hand(&mut self, name: &ContainerName) {
        if let Some(container) = self.containers.get_mut(name).filter(|container| container.is_alive()) {
            container.end(0, false);
        }
    }

    pub(super) fn pause(&mut self, name: &ContainerName) {
        if let Some(container) = self.containers.get_mut(name).filter(|container| container.status == InstanceStatus::Running) {
            container.status = InstanceStatus::Paused;
        }
    }

    pub(super) fn leave_network(&mut self, name: &ContainerName, network: &NetworkName) {
        if let Some(container) = self.containers.get_mut(name) {
            container.networks.remove(network);
            container.addresses.remove(network);
        }
    }

    pub(super) fn restart_engine(&mut self) {
        let names: Vec<ContainerName> = self.containers.keys().cloned().collect();
        for name in names {
            let Some(container) = self.containers.get_mut(&name) else { continue };
            let ran = container.is_alive();
            if ran {
                container.end(0, false);
            }
            // A stop by kaleem set the policy to `No`; one that never started stays so.
            let again = container.policy == RestartPolicy::Always || (ran && container.policy == RestartPolicy::UnlessStopped);
            if again && container.runs > 0 {
                self.begin_run(&name);
            }
        }
    }

    pub(super) fn instance(&self, name: &ContainerName, container: &Container) -> Instance {
        let label = |key: &str| container.labels.get(key);
        let ports = if container.is_alive() { container.ports.clone() } else { container.definition.ports.clone() };
        let output = (container.health == InstanceHealth::Unhealthy).then(|| "the fake is never healthy".to_owned());
        let own_digest = (container.image.source == ImageSource::Registry).then(|| container.image.digest.clone());
        Instance {
            id: container.id.clone(),
            name: name.clone(),
            service: label(compose_labels::SERVICE)
                .and_then(|service| service.parse().ok())
                .or_else(|| name.as_str().parse().ok())
                .unwrap_or_else(|| unreachable!("a container's name is a word, and so a service's name")),
            number: label(compose_labels::NUMBER).and_then(|number| number.parse().ok()).unwrap_or(0),
            oneoff: label(compose_labels::ONEOFF).is_some_and(|oneoff| oneoff == "True"),
            release: label(kaleem_labels::RELEASE).and_then(|release| release.parse().ok()),
            definition: label(kaleem_labels::DEFINITION).map(|id| crate::definition::DefinitionId(id.clone())),
            compose_hash: label(compose_labels::CONFIG_HASH).cloned(),
            image: container.image.engine_reference(),
            image_id: container.image_id.clone(),
            digest: label(kaleem_labels::DIGEST).and_then(|digest| digest.parse().ok()).or(own_digest),
            state: InstanceState {
                status: container.status,
                health: container.health,
                health_output: output,
                exit_code: container.exit_code,
                oom_killed: container.oom_killed,
                restart_count: container.restart_count,
                started_at: container.started_at.clone(),
                error: container.error.clone(),
            },
            restart: container.policy,
            gateway: label(kaleem_labels::GATEWAY).and_then(|gateway| gateway.parse().ok()),
            networks: container.networks.iter().map(|(network, found)| (network.clone(), found.aliases.clone())).collect(),
            addresses: container.addresses.clone(),
            ports,
            labels: container.labels.clone(),
        }
    }

    pub(super) fn snapshot(&self) -> FakeSnapshot {
        let shown = |(name, container): (&ContainerName, &Container)| {
            let shown = FakeContainer {
                instance: self.instance(name, container),
                project: container.project().map(str::to_owned),
                labels: container.labels.clone(),
                definition: container.definition.clone(),
                killed: container.killed,
                runs: container.runs,
                signals: container.signals.clone(),
            };
            (name.clone(), shown)
        };
        FakeSnapshot {
            containers: self.containers.iter().map(shown).collect(),
            networks: self.networks.iter().map(|(name, network)| (name.clone(), network.project.clone())).collect(),
            volumes: self.volumes.clone(),
            tags: self.tags.clone(),
            images: self.images.keys().filter_map(|id| self.local_image(id)).collect(),
        }
    }

    pub(super) fn local_image(&self, id: &Digest) -> Option<LocalImage> {
        let stored = self.images.get(id)?;
        let tags = self.tags.iter().filter(|(_, tagged)| *tagged == id).map(|(tag, _)| tag.clone()).collect();
        Some(LocalImage { id: id.clone(), repo_digests: stored.repo_digests.clone(), tags, facts: stored.image.facts.clone() })
    }

    pub(super) fn plant_stranger(&mut self, name: &ContainerName, tcp_ports: &[u16]) {
        let binding = |port: &u16| PortBinding {
            container: ContainerPort { port: *port, protocol: Protocol::Tcp },
            host_ip: None,
            host_ports: Some((*port, *port)),
        };
        let id = digest_of(&format!("image of the stranger {name}"));
        let image: PinnedImage = PinnedImage {
            image: "stranger:latest".parse().unwrap_or_else(|_| unreachable!("a plain reference")),
            digest: id.clone(),
            source: ImageSource::Local,
        };
        self.store_image(&image, FakeImage::of(&image, Behaviour::Healthy), false);
        let definition =
            Definition { ports: tcp_ports.iter().map(binding).collect(), network: NetworkMode::Bridge, ..Definition::default() };
        let container = self.new_container(&BTreeMap::new(), &image, id, definition, BTreeMap::new());
        self.containers.insert(name.clone(), container);
        self.begin_run(name);
    }

    pub(super) fn plant_compose_container(
        &mut self,
        project: &ProjectName,
        service: &ServiceName,
        number: u32,
        image: &PinnedImage,
        definition: Definition,
    ) -> Result<ContainerName, RuntimeError> {
        let text = format!("{project}-{service}-{number}");
        let name: ContainerName = text.parse().map_err(|_| refused("create", 400, format!("invalid container name ({text})")))?;
        let mut labels = definition.labels.clone();
        for (key, value) in [
            (compose_labels::PROJECT, project.to_string()),
            (compose_labels::SERVICE, service.to_string()),
            (compose_labels::NUMBER, number.to_string()),
            (compose_labels::ONEOFF, "False".to_owned()),
            (compose_labels::CONFIG_HASH, digest_of(&format!("{service} {number}")).short().to_owned()),
            (compose_labels::VERSION, "2.29.7".to_owned()),
        ] {
            labels.insert(key.to_owned(), value);
        }
        let spec = InstanceSpec {
            name: name.clone(),
            project: project.clone(),
            service: service.clone(),
            image: image.clone(),
            labels,
            definition: std::sync::Arc::new(definition),
            companions: BTreeMap::new(),
        };
        self.create(&spec)?;
        self.start(project, &name, spec.definition.restart)?;
        Ok(name)
    }

    pub(super) fn new_container(
        &mut self,
        labels: &BTreeMap<String, String>,
        image: &PinnedImage,
        image_id: Digest,
        definition: Definition,
        companions: BTreeMap<ServiceName, ContainerName>,
    ) -> Container {
        let number = self.count();
        let id = digest_of(&format!("container {number}"));
        let chosen = self.behaviours.get(&image.digest).or_else(|| self.behaviours.get(&image_id));
        let behaviour = chosen.or_else(|| self.images.get(&image_id).map(|stored| &stored.image.behaviour));
        Container {
            id: ContainerId(id.as_str().trim_start_matches("sha256:").to_owned()),
            labels: labels.clone(),
            image: image.clone(),
            behaviour: behaviour.cloned().unwrap_or(Behaviour::Healthy),
            image_id,
            companions,
            policy: definition.restart,
            networks: match &definition.network {
                NetworkMode::Networks(attachments) => attachments.iter().map(|one| (one.network.clone(), one.clone())).collect(),
                _ => BTreeMap::new(),
            },
            definition,
            status: InstanceStatus::Created,
            health: InstanceHealth::None,
            exit_code: None,
            oom_killed: false,
            restart_count: 0,
            started_at: None,
            error: None,
            polls: 0,
            runs: 0,
            killed: false,
            addresses: BTreeMap::new(),
            ports: Vec::new(),
            apart: false,
            signals: Vec::new(),
            logs: Vec::new(),
        }
    }

    pub(super) fn assign_addresses(&self, name: &ContainerName) -> BTreeMap<NetworkName, String> {
        let Some(container) = self.containers.get(name) else { return BTreeMap::new() };
        let mut addresses = BTreeMap::new();
        for attachment in container.networks.values() {
            let Some(network) = self.networks.get(&attachment.network) else { continue };
            let mut free = self.free_addresses(&attachment.network, network.subnet);
            let address = attachment.ipv4.clone().or_else(|| free.next()).unwrap_or_default();
            addresses.insert(attachment.network.clone(), address);
        }
        addresses
    }

    /// The addresses that a network deals, the next one first.
    fn free_addresses<'a>(&'a self, network: &'a NetworkName, subnet: u8) -> impl Iterator<Item = String> + 'a {
        let taken = move |address: &String| {
            self.containers.values().any(|other| other.addresses.get(network) == Some(address))
                || self.placeholders.get(network).is_some_and(|placeholders| placeholders.contains(address))
        };
        (2..=254_u8).map(move |host| format!("172.30.{subnet}.{host}")).filter(move |address| !taken(address))
    }

    /// Occupies what a network would deal before `address`.
    pub(super) fn reserve(&mut self, network: &NetworkName, address: &str) {
        let last = |address: &str| address.rsplit('.').next().and_then(|host| host.parse::<u8>().ok()).unwrap_or(u8::MAX);
        let Some(subnet) = self.networks.get(network).map(|network| network.subnet) else { return };
        let below: Vec<String> = self.free_addresses(network, subnet).take_while(|free| last(free) < last(address)).collect();
        self.placeholders.entry(network.clone()).or_default().extend(below);
    }
}

//! The place of a drill on the container engine: an internal network and containers on it which nobody else can reach.
//!
//! Everything in it carries the label of a project of its own, so that what a dead process left is found and removed by the
//! next one. Nothing of the project itself is touched.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use kaleem_core::clock::Clock;
use kaleem_core::definition::{Definition, Ipam, Mount, MountSource, NetworkAttachment, NetworkDefinition, NetworkMode, RestartPolicy};
use kaleem_core::image::PinnedImage;
use kaleem_core::names::{ArtifactName, ContainerName, NameError, NetworkName, ProjectName, ServiceName};
use kaleem_core::runtime::{
    InstanceHealth, InstanceSpec, InstanceStatus, OwnedContainer, Runtime, RuntimeError, StopPolicy, kaleem_labels,
};

/// Memory of one scratch container, at most.
const MEMORY_BYTES: u64 = 2 << 30;
/// Processes of one scratch container, at most.
const PROCESSES: i64 = 1024;
/// Time a scratch container has to end on its own: it must write down what was restored.
const GRACE: Duration = Duration::from_secs(60);
/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(200);

/// A container that is to stand for a store.
#[derive(Clone, Debug)]
pub struct ScratchContainer {
    /// The service whose store it stands for; also its name on the network.
    pub service: ServiceName,
    /// The image of that service.
    pub image: PinnedImage,
    /// What it is to be.
    pub definition: Definition,
}

/// The place of a drill.
pub struct Room {
    runtime: Arc<dyn Runtime>,
    project: ProjectName,
    network: NetworkName,
    clock: Arc<dyn Clock>,
}

impl Room {
    /// The place for drills of a project; nothing is made yet.
    ///
    /// # Errors
    /// [`NameError`] when the project's name leaves no room for another.
    pub fn new(runtime: Arc<dyn Runtime>, project: &ProjectName, clock: Arc<dyn Clock>) -> Result<Self, NameError> {
        let short: String = project.as_str().chars().take(50).collect();
        let name = format!("{short}-kaleem-drill");
        Ok(Self { runtime, project: name.parse()?, network: name.parse()?, clock })
    }

    /// The engine.
    pub fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.runtime
    }

    /// Removes all that is in it, also what a dead process left. Answers what that was. The caller holds the lock of drills.
    ///
    /// # Errors
    /// [`RuntimeError`]; the rest is still there.
    pub async fn clear(&self) -> Result<Vec<String>, RuntimeError> {
        let mut removed = Vec::new();
        for instance in self.runtime.list(&self.project).await? {
            let container = OwnedContainer { project: self.project.clone(), name: instance.name.clone() };
            self.runtime.stop(&container, &StopPolicy { signal: Some("KILL".to_owned()), grace: Duration::from_secs(1) }).await?;
            self.runtime.remove(&container).await?;
            removed.push(instance.name.to_string());
        }
        if self.runtime.networks(std::slice::from_ref(&self.network)).await?.contains_key(&self.network) {
            self.runtime.remove_network(&self.project, &self.network).await?;
            removed.push(self.network.to_string());
        }
        Ok(removed)
    }

    /// Makes its network.
    ///
    /// # Errors
    /// [`RuntimeError`]
    pub async fn open(&self) -> Result<(), RuntimeError> {
        let network = NetworkDefinition {
            name: self.network.clone(),
            key: "drill".to_owned(),
            external: false,
            driver: None,
            driver_opts: BTreeMap::new(),
            attachable: false,
            internal: true,
            enable_ipv6: false,
            labels: BTreeMap::from([(kaleem_labels::PROJECT.to_owned(), self.project.to_string())]),
            ipam: Ipam::default(),
        };
        self.runtime.create_network(&self.project, &network).await
    }

    /// Makes and starts a container for an artifact.
    ///
    /// # Errors
    /// Why not, in words.
    pub async fn start(&self, artifact: &ArtifactName, wanted: &ScratchContainer) -> Result<ContainerName, String> {
        let said = |error: RuntimeError| kaleem_core::remedy::one_line(&error);
        let name: ContainerName = format!("{}-{artifact}", self.project).parse().map_err(|error: NameError| error.to_string())?;
        let labels = [
            (kaleem_labels::PROJECT, self.project.to_string()),
            (kaleem_labels::IMAGE, wanted.image.image.to_string()),
            (kaleem_labels::DIGEST, wanted.image.digest.to_string()),
        ];
        let spec = InstanceSpec {
            name: name.clone(),
            project: self.project.clone(),
            service: wanted.service.clone(),
            image: wanted.image.clone(),
            labels: labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            definition: Arc::new(self.isolated(wanted)),
            companions: BTreeMap::new(),
        };
        self.runtime.create(&spec).await.map_err(said)?;
        self.runtime.start(&self.owned(&name), RestartPolicy::No).await.map_err(said)?;
        Ok(name)
    }

    fn owned(&self, name: &ContainerName) -> OwnedContainer {
        OwnedContainer { project: self.project.clone(), name: name.clone() }
    }

    /// What the service is, without all that ties it to the host: ports, data, labels that others act on, rights.
    fn isolated(&self, wanted: &ScratchContainer) -> Definition {
        let mut definition = wanted.definition.clone();
        let attachment = NetworkAttachment {
            network: self.network.clone(),
            aliases: vec![wanted.service.to_string()],
            ipv4: None,
            ipv6: None,
            link_local_ips: Vec::new(),
            mac_address: None,
            driver_opts: BTreeMap::new(),
        };
        definition.network = NetworkMode::Networks(vec![attachment]);
        definition.ports.clear();
        definition.labels.clear();
        definition.devices.clear();
        definition.device_requests.clear();
        definition.volumes_from.clear();
        definition.extra_hosts.clear();
        definition.privileged = false;
        (definition.pid, definition.ipc, definition.uts, definition.userns_mode, definition.cgroup_parent) = (None, None, None, None, None);
        definition.restart = RestartPolicy::No;
        definition.mounts = definition.mounts.iter().filter_map(own_mount).collect();
        let memory = definition.resources.memory_bytes.map_or(MEMORY_BYTES, |bytes| bytes.min(MEMORY_BYTES));
        definition.resources.memory_bytes = Some(memory);
        definition.resources.memory_swap_bytes = None;
        definition.resources.memory_reservation_bytes = None;
        definition.resources.pids_limit = Some(PROCESSES);
        definition
    }

    /// The address of a container.
    ///
    /// # Errors
    /// [`RuntimeError`]
    pub async fn address(&self, name: &ContainerName) -> Result<Option<IpAddr>, RuntimeError> {
        let found = self.runtime.inspect(name).await?;
        Ok(found.and_then(|instance| instance.addresses.get(&self.network).and_then(|address| address.parse().ok())))
    }

    /// Stops a container as the host's end would, kindly, and starts it again.
    ///
    /// # Errors
    /// [`RuntimeError`]
    pub async fn restart(&self, name: &ContainerName) -> Result<(), RuntimeError> {
        let container = self.owned(name);
        self.runtime.stop(&container, &StopPolicy { signal: None, grace: GRACE }).await?;
        self.runtime.start(&container, RestartPolicy::No).await
    }

    /// Waits until a container runs, and is healthy where it has a check of its own; else says why it is not.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub async fn wait(&self, name: &ContainerName, within: Duration) -> Result<(), String> {
        let until = self.clock.monotonic() + within;
        loop {
            let found = self.runtime.inspect(name).await.map_err(|error| kaleem_core::remedy::one_line(&error))?;
            let Some(instance) = found else { return Err(format!("{name} is gone")) };
            match (instance.state.status, instance.state.health) {
                (InstanceStatus::Running, InstanceHealth::None | InstanceHealth::Healthy) => return Ok(()),
                (InstanceStatus::Exited | InstanceStatus::Dead, _) => {
                    let code = instance.state.exit_code.map_or_else(String::new, |code| format!(" with exit code {code}"));
                    return Err(format!("{name} ended{code}"));
                }
                _ if self.clock.monotonic() >= until => return Err(format!("{name} is not healthy in time")),
                _ => self.clock.sleep(PAUSE).await,
            }
        }
    }
}

/// Data goes into volumes without names, which go with the container; files that are only read stay.
fn own_mount(mount: &Mount) -> Option<Mount> {
    match &mount.source {
        // The engine's own socket would be the way out.
        MountSource::Bind { path, .. } if path.ends_with(".sock") => None,
        MountSource::Bind { .. } | MountSource::Volume { .. } if mount.read_only => Some(mount.clone()),
        MountSource::Bind { .. } | MountSource::Volume { .. } | MountSource::Anonymous => {
            Some(Mount { target: mount.target.clone(), read_only: false, source: MountSource::Anonymous })
        }
        MountSource::Tmpfs { .. } => Some(mount.clone()),
    }
}

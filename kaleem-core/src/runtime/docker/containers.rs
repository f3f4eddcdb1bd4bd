//! Changes to containers on the engine. Each first looks at what is there, so that a repeated call goes on where the last one died.

use std::time::Duration;

use async_trait::async_trait;
use bollard::models::{ContainerCreateBody, ContainerInspectResponse, ContainerUpdateBody, NetworkConnectRequest};
use bollard::query_parameters::{
    CreateContainerOptions, KillContainerOptions, RemoveContainerOptions, RenameContainerOptions, StartContainerOptions,
    StopContainerOptions, UploadToContainerOptions, WaitContainerOptions,
};
use futures_util::StreamExt as _;

use super::body::{self, Companions};
use super::failure::{Failure, nonsense};
use super::instance::{is_alive, labels, project_of, restart_of, status_of};
use super::{ApiVersion, DockerRuntime, files, mounts};
use crate::definition::{MountSource, NetworkAttachment, NetworkMode, RestartPolicy};
use crate::names::{ContainerId, ContainerName, NetworkName, ProjectName};
use crate::runtime::{
    Containers, InstanceSpec, InstanceStatus, Leaving, OwnedContainer, Resources as _, RuntimeError, StopPolicy, kaleem_labels,
};

/// How long a killed container may take to be gone for good: the kernel takes its time with broken disks.
pub(super) const AFTER_KILL: Duration = Duration::from_secs(30);

fn not_found(operation: &str, what: &str, name: &str) -> RuntimeError {
    RuntimeError::Refused { operation: operation.to_owned(), status: 404, message: format!("{what} {name} not found") }
}

pub(super) fn id_of(container: &ContainerInspectResponse) -> Result<String, RuntimeError> {
    container.id.clone().ok_or_else(|| nonsense("inspect a container", "the answer has no id"))
}

impl DockerRuntime {
    /// The container, if it exists and is the project's.
    pub(super) async fn owned(
        &self,
        project: &ProjectName,
        name: &ContainerName,
    ) -> Result<Option<ContainerInspectResponse>, RuntimeError> {
        let found = self.look(name.as_str()).await?;
        match found {
            Some(container) if project_of(labels(&container)).map(String::as_str) != Some(project.as_str()) => {
                Err(RuntimeError::NotOurs { name: name.to_string(), project: project.clone() })
            }
            found => Ok(found),
        }
    }

    /// Networks and volumes must be there: the engine would notice a missing network only at the start, and make a missing volume.
    async fn check_resources(&self, spec: &InstanceSpec) -> Result<(), RuntimeError> {
        let operation = "create the container";
        if let NetworkMode::Networks(attachments) = &spec.definition.network {
            let names: Vec<_> = attachments.iter().map(|attachment| attachment.network.clone()).collect();
            let found = self.networks(&names).await?;
            if let Some(missing) = names.iter().find(|name| !found.contains_key(name)) {
                return Err(not_found(operation, "network", missing.as_str()));
            }
        }
        let volume = |source: &MountSource| match source {
            MountSource::Volume { name, .. } => Some(name.clone()),
            MountSource::Bind { .. } | MountSource::Anonymous | MountSource::Tmpfs { .. } => None,
        };
        let names: Vec<_> = spec.definition.mounts.iter().filter_map(|mount| volume(&mount.source)).collect();
        let found = self.volumes(&names).await?;
        match names.iter().find(|name| !found.contains_key(name)) {
            Some(missing) => Err(not_found(operation, "volume", missing.as_str())),
            None => Ok(()),
        }
    }

    /// Ids of the companions: a name may go to another container later, an id never does.
    pub(super) async fn companions(&self, spec: &InstanceSpec) -> Result<Companions, RuntimeError> {
        let mut companions = Companions::new();
        for (service, name) in &spec.companions {
            if let Some(found) = self.look(name.as_str()).await? {
                companions.insert(service.clone(), ContainerId(id_of(&found)?));
            }
        }
        Ok(companions)
    }

    /// Whether what exists under the spec's name is what the spec asks for; an error when the name is another's.
    async fn check_existing(&self, spec: &InstanceSpec, existing: &ContainerInspectResponse) -> Result<(), RuntimeError> {
        let taken = |owner: String| Err(RuntimeError::NameTaken { name: spec.name.clone(), owner });
        match project_of(labels(existing)) {
            None => return taken("no project".to_owned()),
            Some(project) if project != spec.project.as_str() => return taken(format!("the project `{project}`")),
            Some(_) => {}
        }
        let reference = spec.image.engine_reference();
        let Some(image) = self.look_at_image(&reference).await? else { return Err(RuntimeError::ImageMissing { image: reference }) };
        let label = labels(existing).and_then(|labels| labels.get(kaleem_labels::DEFINITION));
        let same_definition = match (label, spec.labels.get(kaleem_labels::DEFINITION)) {
            (Some(existing), Some(wanted)) => existing == wanted,
            _ => super::drift::drift(self, spec).await?.is_empty(),
        };
        if !same_definition || existing.image.as_deref() != Some(image.id.as_str()) {
            return taken("the project itself, with another definition or image".to_owned());
        }
        Ok(())
    }

    /// Connects the networks that the container lacks, and writes its files.
    async fn complete(&self, spec: &InstanceSpec, id: &str, existing: Option<&ContainerInspectResponse>) -> Result<(), RuntimeError> {
        let operation = "connect the container to its networks";
        let connected = existing.and_then(|container| container.network_settings.as_ref()).and_then(|settings| settings.networks.as_ref());
        let attachments = match (&spec.definition.network, existing) {
            (NetworkMode::Networks(attachments), Some(_)) => attachments.as_slice(),
            (NetworkMode::Networks(attachments), None) => {
                let done = body::first_networks(&spec.definition.network, self.api).len();
                attachments.get(done..).unwrap_or_default()
            }
            _ => &[],
        };
        for attachment in attachments {
            if connected.is_some_and(|connected| connected.contains_key(attachment.network.as_str())) {
                continue;
            }
            let request = NetworkConnectRequest { container: id.to_owned(), endpoint_config: Some(body::endpoint(attachment)) };
            match self.ask(operation, self.client.connect_network(attachment.network.as_str(), request)).await {
                Ok(()) => {}
                // The answer to an earlier try was lost.
                Err(failure) if failure.message().contains("already exists in network") => {}
                Err(failure) => return Err(failure.into_error()),
            }
        }
        // What ran once has its files, and may have changed them.
        let is_new = existing.is_none_or(|container| status_of(container) == InstanceStatus::Created);
        if is_new { self.upload(spec, id).await } else { Ok(()) }
    }

    async fn upload(&self, spec: &InstanceSpec, id: &str) -> Result<(), RuntimeError> {
        for (directory, inside) in mounts::unpack_places(&spec.definition) {
            let path = inside.first().map(|file| file.path.clone()).unwrap_or_default();
            let refuse = |source| RuntimeError::FileRefused { name: spec.name.clone(), path, source };
            let archive = match files::archive(&directory, &inside) {
                Ok(archive) => archive,
                Err(error) => return Err(refuse(Box::new(error))),
            };
            let options = UploadToContainerOptions { path: directory, ..UploadToContainerOptions::default() };
            let upload = self.client.upload_to_container(id, Some(options), bollard::body_full(archive));
            if let Err(failure) = self.ask("put files into the container", upload).await {
                return Err(match failure.into_error() {
                    refused @ RuntimeError::Refused { .. } => refuse(Box::new(refused)),
                    other => other,
                });
            }
        }
        Ok(())
    }

    async fn send_create(&self, spec: &InstanceSpec, body: ContainerCreateBody) -> Result<String, Failure> {
        let platform = spec.definition.platform.clone().unwrap_or_default();
        let options = CreateContainerOptions { name: Some(spec.name.to_string()), platform };
        let client = match body::top_level_mac(&spec.definition, self.api) {
            None => self.client.clone(),
            Some(mac) => {
                let mut whole = serde_json::to_value(&body).unwrap_or_default();
                if let Some(fields) = whole.as_object_mut() {
                    fields.insert("MacAddress".to_owned(), mac.into());
                }
                self.client_with_body(&whole)
            }
        };
        self.ask("create the container", client.create_container(Some(options), body)).await.map(|made| made.id)
    }

    pub(super) async fn set_restart(&self, id: &str, policy: RestartPolicy) -> Result<(), Failure> {
        let update = ContainerUpdateBody { restart_policy: Some(body::restart_policy(policy)), ..ContainerUpdateBody::default() };
        self.ask("change the restart policy", self.client.update_container(id, update)).await
    }

    /// Waits until the container does not run; `false` when it still does at the end.
    pub(super) async fn ended(&self, id: &str, condition: &str, limit: Duration) -> Result<bool, RuntimeError> {
        let options = WaitContainerOptions { condition: condition.to_owned() };
        let mut answers = Box::pin(self.client.wait_container(id, Some(options)));
        let answer = tokio::time::timeout(limit, answers.next()).await;
        match answer {
            Err(_) => Ok(false),
            // An exit code other than 0 comes as an error of the library.
            Ok(None | Some(Ok(_) | Err(bollard::errors::Error::DockerContainerWaitError { .. }))) => Ok(true),
            Ok(Some(Err(error))) => {
                let failure = Failure::new("wait for the end of the container", &self.endpoint, error);
                if failure.is_missing() { Ok(true) } else { Err(failure.into_error()) }
            }
        }
    }

    /// Engines before API 1.42 know no signal for a stop: it is sent by hand.
    async fn stop_with_signal(&self, id: &str, signal: &str, grace: Duration) -> Result<(), RuntimeError> {
        for (signal, limit) in [(signal, grace), ("SIGKILL", AFTER_KILL)] {
            let kill = self.client.kill_container(id, Some(KillContainerOptions { signal: signal.to_owned() }));
            match self.ask("stop the container", kill).await {
                Ok(()) => {}
                // It ended, or went, in the meantime.
                Err(failure) if failure.is_missing() || failure.message().contains("is not running") => {}
                Err(failure) => return Err(failure.into_error()),
            }
            if self.ended(id, "not-running", limit).await? {
                return Ok(());
            }
        }
        Err(nonsense("stop the container", "it still runs after SIGKILL"))
    }

    pub(super) async fn stop_found(&self, found: &ContainerInspectResponse, policy: &StopPolicy) -> Result<(), RuntimeError> {
        let id = id_of(found)?;
        if restart_of(found) != RestartPolicy::No {
            match self.set_restart(&id, RestartPolicy::No).await {
                Ok(()) => {}
                Err(failure) if failure.is_missing() || failure.is_being_removed() => {}
                Err(failure) => return Err(failure.into_error()),
            }
        }
        if !is_alive(found) {
            return Ok(());
        }
        if status_of(found) == InstanceStatus::Paused {
            // A frozen program hears no signal. It may be running again already.
            match self.ask("stop the container", self.client.unpause_container(&id)).await {
                Ok(()) => {}
                Err(failure) if failure.status().is_some() => {}
                Err(failure) => return Err(failure.into_error()),
            }
        }
        // The engine counts whole seconds: what is shorter is counted here.
        if policy.grace.subsec_millis() != 0 && status_of(found) != InstanceStatus::Restarting {
            return self.stop_with_signal(&id, &stop_signal(found, policy), policy.grace).await;
        }
        match &policy.signal {
            Some(signal) if self.api < ApiVersion(1, 42) && status_of(found) != InstanceStatus::Restarting => {
                return self.stop_with_signal(&id, signal, policy.grace).await;
            }
            _ => {}
        }
        let seconds = i32::try_from(body::whole_seconds(policy.grace)).unwrap_or(i32::MAX);
        let signal = policy.signal.clone().filter(|_| self.api >= ApiVersion(1, 42));
        let options = StopContainerOptions { signal, t: Some(seconds) };
        let wait = policy.grace.saturating_add(AFTER_KILL);
        match self.ask_for("stop the container", wait, self.client.stop_container(&id, Some(options))).await {
            Ok(()) => {}
            Err(failure) if failure.is_missing() || failure.is_being_removed() => return Ok(()),
            Err(failure) => return Err(failure.into_error()),
        }
        if self.ended(&id, "not-running", AFTER_KILL).await? { Ok(()) } else { Err(nonsense("stop the container", "it still runs")) }
    }
}

/// The signal by which a container is asked to end.
pub(super) fn stop_signal(found: &ContainerInspectResponse, policy: &StopPolicy) -> String {
    let of_image = || found.config.as_ref().and_then(|config| config.stop_signal.clone()).filter(|signal| !signal.is_empty());
    policy.signal.clone().or_else(of_image).unwrap_or_else(|| "SIGTERM".to_owned())
}

#[async_trait]
impl Containers for DockerRuntime {
    async fn create(&self, spec: &InstanceSpec) -> Result<ContainerId, RuntimeError> {
        let existing = self.look(spec.name.as_str()).await?;
        if let Some(existing) = existing {
            self.check_existing(spec, &existing).await?;
            let id = id_of(&existing)?;
            self.complete(spec, &id, Some(&existing)).await?;
            return Ok(ContainerId(id));
        }
        let reference = spec.image.engine_reference();
        if self.look_at_image(&reference).await?.is_none() {
            return Err(RuntimeError::ImageMissing { image: reference });
        }
        self.check_resources(spec).await?;
        let body = body::create_body(spec, &self.companions(spec).await?, self.api)?;
        let id = match self.send_create(spec, body).await {
            Ok(id) => id,
            Err(failure) if failure.is_name_taken() => {
                let owner = "another container that was made at the same time".to_owned();
                return Err(RuntimeError::NameTaken { name: spec.name.clone(), owner });
            }
            Err(failure) if failure.is_missing() && failure.message().to_lowercase().contains("no such image") => {
                return Err(RuntimeError::ImageMissing { image: reference });
            }
            Err(failure) => return Err(failure.into_error()),
        };
        self.complete(spec, &id, None).await?;
        Ok(ContainerId(id))
    }

    async fn start(&self, container: &OwnedContainer, restart: RestartPolicy) -> Result<(), RuntimeError> {
        let not_found = || RuntimeError::NotFound { name: container.name.to_string() };
        let Some(found) = self.owned(&container.project, &container.name).await? else { return Err(not_found()) };
        let id = id_of(&found)?;
        if restart_of(&found) != restart {
            self.set_restart(&id, restart)
                .await
                .map_err(|failure| if failure.is_missing() { not_found() } else { failure.into_error() })?;
        }
        if is_alive(&found) && status_of(&found) != InstanceStatus::Paused {
            return Ok(());
        }
        if status_of(&found) == InstanceStatus::Paused {
            return self.ask("start the container", self.client.unpause_container(&id)).await.map_err(Failure::into_error);
        }
        // Starting pulls up networks and volumes; a busy host takes its time.
        let start = self.client.start_container(&id, None::<StartContainerOptions>);
        let Err(mut failure) = self.ask_for("start the container", AFTER_KILL, start).await else { return Ok(()) };
        if failure.is_missing() && failure.message().contains("network ") && self.rejoin(&found).await.is_ok() {
            // A network was removed and made again: the container knew the one that is gone.
            let again = self.client.start_container(&id, None::<StartContainerOptions>);
            match self.ask_for("start the container", AFTER_KILL, again).await {
                Ok(()) => return Ok(()),
                Err(other) => failure = other,
            }
        }
        if failure.status().is_some() && restart != RestartPolicy::No {
            // It does not run; a restart of the engine must not try again behind our back. What failed is said below.
            self.set_restart(&id, RestartPolicy::No).await.ok();
        }
        if let Some(port) = failure.port_taken() {
            return Err(RuntimeError::PortTaken { port });
        }
        let is_gone = failure.is_missing() && failure.message().contains("No such container");
        Err(if is_gone { not_found() } else { failure.into_error() })
    }

    async fn start_apart(&self, container: &OwnedContainer, restart: RestartPolicy) -> Result<(), RuntimeError> {
        let Some(found) = self.owned(&container.project, &container.name).await? else {
            return Err(RuntimeError::NotFound { name: container.name.to_string() });
        };
        if !is_alive(&found) {
            self.take_networks(&found).await?;
        }
        self.start(container, restart).await
    }

    async fn hand_over(
        &self,
        project: &ProjectName,
        from: &[Leaving],
        to: &ContainerName,
        networks: &[NetworkAttachment],
    ) -> Result<Duration, RuntimeError> {
        Box::pin(self.hand_ports_over(project, from, to, networks)).await
    }

    async fn connect(&self, container: &OwnedContainer, networks: &[NetworkAttachment]) -> Result<(), RuntimeError> {
        self.connect_found(container, networks).await
    }

    async fn disconnect(&self, container: &OwnedContainer, networks: &[NetworkName]) -> Result<(), RuntimeError> {
        let Some(found) = self.owned(&container.project, &container.name).await? else { return Ok(()) };
        for network in networks {
            self.leave(&id_of(&found)?, network.as_str()).await?;
        }
        Ok(())
    }

    async fn signal(&self, container: &OwnedContainer, signal: &str) -> Result<(), RuntimeError> {
        let not_found = || RuntimeError::NotFound { name: container.name.to_string() };
        let found = self.owned(&container.project, &container.name).await?.filter(is_alive).ok_or_else(not_found)?;
        let id = id_of(&found)?;
        let kill = self.client.kill_container(&id, Some(KillContainerOptions { signal: signal.to_owned() }));
        match self.ask("signal the container", kill).await {
            Ok(()) => Ok(()),
            Err(failure) if failure.is_missing() || failure.message().contains("is not running") => Err(not_found()),
            Err(failure) => Err(failure.into_error()),
        }
    }

    async fn stop(&self, container: &OwnedContainer, policy: &StopPolicy) -> Result<(), RuntimeError> {
        match self.owned(&container.project, &container.name).await? {
            Some(found) => self.stop_found(&found, policy).await,
            None => Ok(()),
        }
    }

    async fn remove(&self, container: &OwnedContainer) -> Result<(), RuntimeError> {
        let still_running = || RuntimeError::StillRunning { name: container.name.clone() };
        let Some(found) = self.owned(&container.project, &container.name).await? else { return Ok(()) };
        if is_alive(&found) {
            return Err(still_running());
        }
        let id = id_of(&found)?;
        let options = RemoveContainerOptions { v: true, ..RemoveContainerOptions::default() };
        match self.ask_for("remove the container", AFTER_KILL, self.client.remove_container(&id, Some(options))).await {
            Ok(()) => Ok(()),
            Err(failure) if failure.is_missing() => Ok(()),
            Err(failure) if failure.is_being_removed() && self.ended(&id, "removed", AFTER_KILL).await? => Ok(()),
            Err(failure) if failure.is_still_running() => Err(still_running()),
            Err(failure) => Err(failure.into_error()),
        }
    }

    async fn rename(&self, container: &OwnedContainer, to: &ContainerName) -> Result<(), RuntimeError> {
        let not_found = || RuntimeError::NotFound { name: container.name.to_string() };
        let Some(found) = self.owned(&container.project, &container.name).await? else {
            let target = self.look(to.as_str()).await?;
            let is_ours = target.is_some_and(|target| project_of(labels(&target)).map(String::as_str) == Some(container.project.as_str()));
            return if is_ours { Ok(()) } else { Err(not_found()) };
        };
        if container.name == *to {
            return Ok(());
        }
        let options = RenameContainerOptions { name: to.to_string() };
        match self.ask("rename the container", self.client.rename_container(&id_of(&found)?, options)).await {
            Ok(()) => Ok(()),
            Err(failure) if failure.is_name_taken() => {
                Err(RuntimeError::NameTaken { name: to.clone(), owner: "another container".to_owned() })
            }
            Err(failure) if failure.is_missing() => Err(not_found()),
            Err(failure) => Err(failure.into_error()),
        }
    }
}

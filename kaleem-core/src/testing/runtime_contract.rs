//! The contract of [`crate::runtime`], sentence by sentence: the fake and every adapter pass the same checks.
//!
//! A check leaves nothing behind but volumes, which no seam removes.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::definition::{Definition, Ipam, NetworkAttachment, NetworkDefinition, NetworkMode, RestartPolicy};
use crate::image::PinnedImage;
use crate::names::{ContainerName, NetworkName, ProjectName, VolumeName};
use crate::runtime::{
    Instance, InstanceSpec, InstanceState, OwnedContainer, Runtime, RuntimeError, StopPolicy, compose_labels, kaleem_labels,
};

mod containers;
mod marks;
mod questions;
mod things;

/// How often a state is looked at before it counts as not coming, and how long between the looks.
const LOOKS: u32 = 600;
const BETWEEN_LOOKS: Duration = Duration::from_millis(25);

/// What a check is run against. The images are on the engine, except `remote`.
pub trait ContractWorld: Send + Sync {
    /// The engine.
    fn runtime(&self) -> Arc<dyn Runtime>;
    /// A project that nobody else uses; names are made from it.
    fn project(&self) -> ProjectName;
    /// Runs until SIGTERM, then ends with 0.
    fn runs(&self) -> PinnedImage;
    /// Prints `leaving` on standard error and ends with 3 at once.
    fn exits(&self) -> PinnedImage;
    /// As `runs`, with a health check that passes.
    fn checked(&self) -> PinnedImage;
    /// Runs, and does not end on SIGTERM.
    fn stubborn(&self) -> PinnedImage;
    /// At the registry and not on the engine; `None` where no registry can be had.
    fn remote(&self) -> Option<PinnedImage>;
    /// A command in `runs` which prints `hello` and ends with 5.
    fn command(&self) -> Vec<String>;
    /// A command in `runs` which does not end.
    fn endless_command(&self) -> Vec<String>;
    /// A TCP port of the host on which nobody listens.
    fn free_port(&self) -> u16;
}

/// What went wrong in a check.
pub type Complaint = String;
type CheckFuture<'a> = Pin<Box<dyn Future<Output = Result<(), Complaint>> + Send + 'a>>;

/// One sentence of the contract.
pub struct Check {
    /// The sentence.
    pub name: &'static str,
    run: for<'a> fn(&'a Stage) -> CheckFuture<'a>,
}

/// Refuses with a text when the condition does not hold.
macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err(format!($($text)+));
        }
    };
}
use ensure;

/// Makes a check of each function, named by it.
macro_rules! named {
    ($($name:ident),+ $(,)?) => {
        vec![$(Check { name: stringify!($name), run: |stage| Box::pin($name(stage)) }),+]
    };
}
use named;

/// All checks.
pub fn checks() -> Vec<Check> {
    let mut all = containers::checks();
    all.extend(questions::checks());
    all.extend(things::checks());
    all.extend(marks::checks());
    all
}

/// Runs every check, and tells which failed and why; empty is success.
pub async fn run(world: &dyn ContractWorld) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for (number, check) in checks().iter().enumerate() {
        let stage = Stage::new(world, number);
        let outcome = match (check.run)(&stage).await {
            Ok(()) => stage.clean().await,
            Err(complaint) => {
                stage.clean().await.ok();
                Err(complaint)
            }
        };
        if let Err(complaint) = outcome {
            complaints.push(format!("{}: {complaint}", check.name));
        }
    }
    complaints
}

/// A project of one check.
pub struct Stage {
    runtime: Arc<dyn Runtime>,
    project: ProjectName,
    stranger: ProjectName,
    runs: PinnedImage,
    exits: PinnedImage,
    checked: PinnedImage,
    stubborn: PinnedImage,
    remote: Option<PinnedImage>,
    command: Vec<String>,
    endless_command: Vec<String>,
    free_port: u16,
}

fn say(error: impl std::fmt::Display) -> Complaint {
    error.to_string()
}

fn told(error: &RuntimeError) -> Complaint {
    format!("{} ({error:?})", crate::remedy::one_line(error))
}

impl Stage {
    fn new(world: &dyn ContractWorld, number: usize) -> Self {
        let project = |suffix: String| format!("{}{suffix}", world.project()).parse().unwrap_or_else(|_| world.project());
        Self {
            runtime: world.runtime(),
            project: project(format!("-{number}")),
            stranger: project(format!("-{number}-other")),
            runs: world.runs(),
            exits: world.exits(),
            checked: world.checked(),
            stubborn: world.stubborn(),
            remote: world.remote(),
            command: world.command(),
            endless_command: world.endless_command(),
            free_port: world.free_port(),
        }
    }

    fn name(&self, service: &str) -> Result<ContainerName, Complaint> {
        format!("{}-{service}-1", self.project).parse().map_err(say)
    }

    fn owned(&self, service: &str) -> Result<OwnedContainer, Complaint> {
        Ok(OwnedContainer { project: self.project.clone(), name: self.name(service)? })
    }

    /// A container of the project with all labels.
    fn spec(&self, service: &str, image: &PinnedImage, definition: Definition) -> Result<InstanceSpec, Complaint> {
        self.spec_of(&self.project, service, image, definition)
    }

    /// The same, of another project, with a name of this one.
    fn spec_of(
        &self,
        project: &ProjectName,
        service: &str,
        image: &PinnedImage,
        definition: Definition,
    ) -> Result<InstanceSpec, Complaint> {
        let identity = format!("{definition:?}").bytes().fold(7_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
        let mut labels = definition.labels.clone();
        for (key, value) in [
            (compose_labels::PROJECT, project.to_string()),
            (compose_labels::SERVICE, service.to_owned()),
            (compose_labels::NUMBER, "1".to_owned()),
            (compose_labels::ONEOFF, "False".to_owned()),
            (kaleem_labels::RELEASE, "r7".to_owned()),
            (kaleem_labels::DEFINITION, format!("{identity:x}")),
            (kaleem_labels::DIGEST, image.digest.to_string()),
            (kaleem_labels::IMAGE, image.image.to_string()),
        ] {
            labels.insert(key.to_owned(), value);
        }
        Ok(InstanceSpec {
            name: self.name(service)?,
            project: project.clone(),
            service: service.parse().map_err(say)?,
            image: image.clone(),
            labels,
            definition: Arc::new(definition),
            companions: BTreeMap::new(),
        })
    }

    /// Creates and starts a container of the project.
    async fn up(
        &self,
        service: &str,
        image: &PinnedImage,
        definition: Definition,
        restart: RestartPolicy,
    ) -> Result<InstanceSpec, Complaint> {
        let spec = self.spec(service, image, definition)?;
        self.runtime.create(&spec).await.map_err(|error| told(&error))?;
        self.runtime.start(&self.owned(service)?, restart).await.map_err(|error| told(&error))?;
        Ok(spec)
    }

    async fn inspect(&self, service: &str) -> Result<Instance, Complaint> {
        let found = self.runtime.inspect(&self.name(service)?).await.map_err(|error| told(&error))?;
        found.ok_or_else(|| format!("the container of {service} does not exist"))
    }

    /// Looks until the state is as wished.
    async fn eventually(
        &self,
        service: &str,
        what: &str,
        wished: impl Fn(&InstanceState) -> bool + Send + Sync,
    ) -> Result<Instance, Complaint> {
        let mut last = None;
        for _ in 0..LOOKS {
            let instance = self.inspect(service).await?;
            if wished(&instance.state) {
                return Ok(instance);
            }
            last = Some(instance.state);
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
        Err(format!("{service} never was {what}: {last:?}"))
    }

    fn network(&self, key: &str) -> Result<NetworkDefinition, Complaint> {
        let name: NetworkName = format!("{}_{key}", self.project).parse().map_err(say)?;
        Ok(NetworkDefinition {
            name,
            key: key.to_owned(),
            external: false,
            driver: None,
            driver_opts: BTreeMap::new(),
            attachable: false,
            internal: false,
            enable_ipv6: false,
            labels: BTreeMap::new(),
            ipam: Ipam::default(),
        })
    }

    /// Makes networks with these keys, and gives the mode that joins them.
    async fn networks(&self, keys: &[&str]) -> Result<NetworkMode, Complaint> {
        let mut attachments = Vec::new();
        for key in keys {
            let network = self.network(key)?;
            self.runtime.create_network(&self.project, &network).await.map_err(|error| told(&error))?;
            attachments.push(NetworkAttachment {
                network: network.name,
                aliases: vec!["seen-as".to_owned()],
                ipv4: None,
                ipv6: None,
                link_local_ips: Vec::new(),
                mac_address: None,
                driver_opts: BTreeMap::new(),
            });
        }
        Ok(NetworkMode::Networks(attachments))
    }

    fn volume(&self, key: &str) -> Result<VolumeName, Complaint> {
        format!("{}_{key}", self.project).parse().map_err(say)
    }

    /// Removes containers and networks of both projects.
    async fn clean(&self) -> Result<(), Complaint> {
        for project in [&self.project, &self.stranger] {
            let instances = self.runtime.list(project).await.map_err(|error| told(&error))?;
            for instance in instances {
                let container = OwnedContainer { project: project.clone(), name: instance.name };
                self.runtime.stop(&container, &at_once()).await.map_err(|error| told(&error))?;
                self.runtime.remove(&container).await.map_err(|error| told(&error))?;
            }
        }
        for project in [&self.project, &self.stranger] {
            for mark in self.runtime.marks(project).await.map_err(|error| told(&error))? {
                self.runtime.remove_mark(project, mark.number).await.map_err(|error| told(&error))?;
            }
        }
        for key in ["front", "back"] {
            let name = self.network(key)?.name;
            for project in [&self.project, &self.stranger] {
                match self.runtime.remove_network(project, &name).await {
                    Ok(()) | Err(RuntimeError::NotOurs { .. }) => {}
                    Err(error) => return Err(told(&error)),
                }
            }
        }
        Ok(())
    }
}

/// Stops without patience.
fn at_once() -> StopPolicy {
    StopPolicy { signal: None, grace: Duration::ZERO }
}

/// Stops with more patience than anything here needs.
fn patiently() -> StopPolicy {
    StopPolicy { signal: None, grace: Duration::from_secs(20) }
}

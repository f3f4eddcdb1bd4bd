//! A release: what runs when it serves, with nothing in it that can move.
//!
//! It holds no secret: what a container is to be is named by a [`DefinitionId`] and kept in the definition store.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::Dependency;
use crate::definition::{DefinitionId, NetworkAttachment, NetworkDefinition, PortBinding, RestartPolicy, VolumeDefinition};
use crate::health::{Door, Need, Question};
use crate::image::{ImageRef, PinnedImage};
use crate::names::{ContainerName, GatewayName, ProjectName, ReleaseId, ServiceName, SetId};
use crate::runtime::StopPolicy;
use crate::traffic::DrainPolicy;

/// Time a container without any check must stay up: crash loops of common runtimes show within it.
pub(crate) const UNCHECKED_STEADY: Duration = Duration::from_secs(3);

/// An immutable set of everything that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// Its number.
    pub id: ReleaseId,
    /// What it is made of.
    pub target: Target,
    /// Names of the containers that run each service, by number.
    pub instances: BTreeMap<ServiceName, Vec<ContainerName>>,
    /// The backup set that was made before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<SetId>,
    /// Containers that kaleem did not make and whose own health check failed or had not passed yet when it took them over, and has not passed in
    /// a plan since. They stay as they are, so that they fail is no fault of a release.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub unhealthy_before: BTreeSet<ContainerName>,
}

impl Release {
    /// Asks nothing of services whose containers were not healthy before kaleem came: that they fail the same check again is no reason not to go back.
    pub(crate) fn forgive_unhealthy(&mut self) {
        for (name, wanted) in &mut self.target.services {
            let unhealthy = |names: &Vec<ContainerName>| names.iter().any(|name| self.unhealthy_before.contains(name));
            if wanted.gate.asks_docker() && self.instances.get(name).is_some_and(unhealthy) {
                wanted.gate = wanted.gate.only_running();
            }
        }
    }
}

/// What is wanted, before it is known which containers will be it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// The project.
    pub project: ProjectName,
    /// The project's directory, for Compose's labels.
    pub directory: PathBuf,
    /// The compose files, for Compose's labels.
    pub files: Vec<PathBuf>,
    /// By service.
    pub services: BTreeMap<ServiceName, Wanted>,
    /// The networks they use.
    pub networks: Vec<NetworkDefinition>,
    /// The volumes they use.
    pub volumes: Vec<VolumeDefinition>,
    /// How many releases are kept to go back to.
    pub keep: u32,
    /// Places where clients ask, which `kaleem.toml` names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub front_door: Vec<Door>,
    /// What it was made from beside its compose files.
    #[serde(default, skip_serializing_if = "MadeFrom::is_nothing")]
    pub made_from: MadeFrom,
}

/// What a release was made from beside its compose files. It holds no value, so that it may be in a journal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MadeFrom {
    /// Variables that the files named and that had a value: a keyed hash of it, by name.
    pub variables: BTreeMap<String, String>,
    /// Services whose image was named on the command line, with the image that the files named instead.
    pub chosen: BTreeMap<ServiceName, ImageRef>,
}

impl MadeFrom {
    /// Whether nothing is known.
    pub fn is_nothing(&self) -> bool {
        self.variables.is_empty() && self.chosen.is_empty()
    }
}

impl Target {
    /// Whether both run the same images as the same containers, behind the same gateways.
    pub fn runs_the_same(&self, other: &Self) -> bool {
        let of = |one: &Wanted, other: &Wanted| one.is_the_same(other);
        self.services.len() == other.services.len()
            && self.services.iter().all(|(name, one)| other.services.get(name).is_some_and(|other| of(one, other)))
    }
}

impl Wanted {
    /// Whether both run the same image as the same containers, behind the same gateway.
    pub fn is_the_same(&self, other: &Self) -> bool {
        let gateway = |wanted: &Self| wanted.gateway.as_ref().map(|gateway| gateway.definition.clone());
        self.image.digest == other.image.digest
            && self.definition == other.definition
            && self.replicas == other.replicas
            && self.container_name == other.container_name
            && gateway(self) == gateway(other)
    }
}

/// What is wanted of one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// The image.
    pub image: PinnedImage,
    /// `os/arch[/variant]`, where the file asks for one.
    pub platform: Option<String>,
    /// What its containers are to be.
    pub definition: DefinitionId,
    /// How many.
    pub replicas: u32,
    /// The fixed name of its container.
    pub container_name: Option<ContainerName>,
    /// How it is replaced.
    pub strategy: Strategy,
    /// Why that strategy: shown in the plan.
    pub reason: String,
    /// When it counts as healthy.
    pub gate: GateSettings,
    /// What must be well before it is replaced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<Need>,
    /// What must be up before it.
    pub depends_on: BTreeMap<ServiceName, Dependency>,
    /// How it is asked to end.
    pub stop: StopPolicy,
    /// What the engine does when it exits.
    pub restart: RestartPolicy,
    /// Ports published on the host.
    pub ports: Vec<PortBinding>,
    /// Services in whose containers' namespaces or volumes it takes part.
    pub companions: Vec<ServiceName>,
    /// What stands before its containers, and has its name and its ports; `None` where they have them themselves.
    pub gateway: Option<WantedGateway>,
    /// For a service that runs to its end: what going back past it takes.
    #[serde(default, skip_serializing_if = "Migration::is_compatible")]
    pub migration: Migration,
    /// Compose's hash of the service, for the labels of its containers; `None` where it cannot be computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compose_hash: Option<String>,
    /// Keyed hashes of the files of the host that it mounts, by their path in the container. Empty where it is not known what it read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
    /// Whether kaleem may have its web server read its configuration again.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub reload: bool,
}

/// What going back past a migration takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Migration {
    /// Nothing: the release before runs on what it leaves behind, too.
    #[default]
    Compatible,
    /// A command in a container of its image takes it back.
    Reversible {
        /// Program and arguments.
        down: Vec<String>,
    },
    /// The data as it was before. Once it has begun, nothing goes back by itself.
    OneWay,
}

impl Migration {
    /// Whether nothing is to be done about it.
    pub fn is_compatible(&self) -> bool {
        *self == Self::Compatible
    }
}

fn yes() -> bool {
    true
}

fn is_yes(value: &bool) -> bool {
    *value
}

/// What is wanted of the gateway of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WantedGateway {
    /// Its name, by which it is steered.
    pub name: GatewayName,
    /// Its container.
    pub container: ContainerName,
    /// Its image, made on this host from the program.
    pub image: PinnedImage,
    /// What its container is to be.
    pub definition: DefinitionId,
    /// Networks that it joins, with the names it has there.
    #[serde(default)]
    pub networks: Vec<NetworkAttachment>,
    /// Ports on which it listens.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub ports: BTreeSet<u16>,
    /// Whether the file publishes or exposes one of them: an image's word alone is no promise that anything listens there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub declares_ports: bool,
    /// Ports on which nothing tells the service who its client is.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub hidden_ports: BTreeSet<u16>,
    /// What is watched after a switch.
    pub watch: WatchSettings,
    /// How long what runs at an old instance may go on.
    pub drain: DrainPolicy,
    /// Time that what runs has to end when the ports go to the gateway, once.
    #[serde(default = "hand_over")]
    pub hand_over: Duration,
    /// How replicas take turns; `None` replaces them all together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolling: Option<RollingSettings>,
    /// Longest time that a request waits for an instance; `None` is what gateways do by themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Duration>,
}

/// How replicas take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollingSettings {
    /// How many are replaced at a time, from 1.
    pub batch: u32,
    /// How many may run beyond the wanted number.
    pub surge: u32,
    /// How many of the wanted number may be away.
    pub unavailable: u32,
}

impl RollingSettings {
    /// How many are replaced at a time within both limits: at least one, so that there is an end.
    pub fn turn(&self) -> u32 {
        self.batch.min(self.surge.saturating_add(self.unavailable)).max(1)
    }
}

/// Time that running requests have to end at a hand-over where nothing is said: connections are refused meanwhile.
pub fn hand_over() -> Duration {
    Duration::from_millis(100)
}

/// What is watched after a switch, while the old instances are warm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WatchSettings {
    /// How long.
    pub window: Duration,
    /// Share of requests that may fail, in thousandths.
    pub failures_per_mille: u32,
    /// Requests that must have been seen before that share counts.
    pub least_requests: u64,
    /// Time within which 99 of 100 answers must begin; `None` does not watch it.
    pub slowest: Option<Duration>,
}

/// How a service is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// It runs to its end, before the services that wait for it.
    RunToEnd,
    /// Stop the old, then start the new.
    Recreate,
    /// Start the new, wait until it is healthy, then stop the old.
    Overlap,
    /// Behind the gateway: start the new, wait, switch, drain, stop.
    BlueGreen,
    /// Behind the gateway, some replicas at a time.
    Rolling,
}

impl std::fmt::Display for Strategy {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.pad(match self {
            Self::RunToEnd => "run-to-end",
            Self::Recreate => "recreate",
            Self::Overlap => "overlap",
            Self::BlueGreen => "blue-green",
            Self::Rolling => "rolling",
        })
    }
}

/// When an instance counts as healthy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateSettings {
    /// What it is asked.
    pub question: Question,
    /// Passes in a row.
    pub passes: u32,
    /// Time over which those passes must stretch at least.
    pub steady: Duration,
    /// Time between two questions.
    pub interval: Duration,
    /// Time one answer may take.
    pub timeout: Duration,
    /// Time in which it must have passed.
    pub deadline: Duration,
    /// Whether a container that ended with 0 did what it was made for: nothing starts it again, and nobody connects to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub may_end: bool,
}

impl GateSettings {
    /// Whether the health that Docker reports counts: only where nothing else is asked, such as what `kaleem.toml` says.
    pub fn asks_docker(&self) -> bool {
        self.question == Question::Healthcheck
    }

    /// The same gate for a container that only has to run, and to go on running.
    pub(crate) fn only_running(&self) -> Self {
        Self { question: Question::Running, steady: UNCHECKED_STEADY, ..self.clone() }
    }
}

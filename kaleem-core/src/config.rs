//! A compose project and its `kaleem.toml`, read, checked and resolved: from here on nothing is looked up in a file.
//!
//! Only this module reads compose files. It asks neither the engine nor a registry.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::definition::{Definition, NetworkDefinition, VolumeDefinition};
use crate::image::ImageRef;
use crate::names::{ContainerName, ProjectName, ServiceName};

pub mod settings;
pub mod inputs;
pub mod compose;
pub mod role;
pub mod healthcheck;

pub use compose::error::{ConfigError, Problem, ProblemKind};
pub use compose::resolve;
pub use inputs::Inputs;
pub use settings::{Settings, settings_schema};

/// Reads a project: its compose files, its variables and its `kaleem.toml`.
///
/// Files are read at once, and nothing else is asked: neither the engine nor a registry nor the process' environment.
///
/// # Errors
///
/// [`ConfigError`], with everything that is wrong and not only the first of it. The host was not touched.
pub fn load(options: &LoadOptions) -> Result<Project, ConfigError> {
    let mut project = compose::project(options)?;
    project.settings = settings::load(options, &project)?;
    Ok(project)
}

/// What is read, and with which environment. The library looks at no environment of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// Where the program was started, as an absolute path: where files are looked for, and what `files` and `env_files` are relative to.
    /// Paths inside a compose file are relative to the directory of the first compose file, as with Compose.
    pub directory: PathBuf,
    /// Compose files in the order of `-f`; empty looks for `compose.yaml` and its relatives, with their override, upwards from `directory`.
    pub files: Vec<PathBuf>,
    /// Files of `--env-file`; empty takes `.env` beside the compose file if there is one.
    pub env_files: Vec<PathBuf>,
    /// Variables of the caller, which win over those of the files.
    pub environment: BTreeMap<String, String>,
    /// Active profiles; empty takes those of `COMPOSE_PROFILES`. `*` is all.
    pub profiles: Vec<String>,
    /// The project's name; `None` takes `COMPOSE_PROJECT_NAME`, `name:` or the directory's name.
    pub project_name: Option<ProjectName>,
    /// Path of `kaleem.toml`; `None` takes the one beside the compose file if there is one.
    pub settings_file: Option<PathBuf>,
}

/// When a hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HookMoment {
    /// Before a deploy touches anything.
    BeforeDeploy,
    /// After a deploy is committed.
    AfterDeploy,
}

impl fmt::Display for HookMoment {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::BeforeDeploy => "before-deploy",
            Self::AfterDeploy => "after-deploy",
        })
    }
}

/// A program of the operator that runs on the host as part of a deploy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    /// When.
    pub moment: HookMoment,
    /// The program and its arguments; no shell reads them.
    pub command: Vec<String>,
    /// Where it starts: the project's directory.
    pub directory: PathBuf,
    /// Time it may take.
    pub timeout: Duration,
}

/// A project, complete and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Project {
    /// Its name.
    pub name: ProjectName,
    /// The directory that relative paths started from.
    pub directory: PathBuf,
    /// The compose files, in order.
    pub files: Vec<PathBuf>,
    /// The services of the active profiles.
    pub services: BTreeMap<ServiceName, Service>,
    /// The networks which those services use, by key.
    pub networks: BTreeMap<String, NetworkDefinition>,
    /// The volumes which those services use, by key.
    pub volumes: BTreeMap<String, VolumeDefinition>,
    /// What was left out because leaving it out is harmless; shown in the plan.
    pub warnings: Vec<ConfigWarning>,
    /// What `kaleem.toml` says.
    pub settings: Settings,
    /// What the files were read with.
    pub inputs: Inputs,
}

/// One service.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// Its image; `None` where only `build:` is given (then it is `<project>-<service>`).
    pub image: Option<ImageRef>,
    /// How its image is built.
    pub build: Option<Build>,
    /// When the registry is asked.
    pub pull_policy: PullPolicy,
    /// How many containers (`scale`, `deploy.replicas`).
    pub replicas: u32,
    /// The fixed name of its container.
    pub container_name: Option<ContainerName>,
    /// What must be up before it.
    pub depends_on: BTreeMap<ServiceName, Dependency>,
    /// What its container is to be. The service's own name is among the aliases of every network.
    pub definition: Definition,
    /// `deploy.update_config`.
    pub update: UpdateSettings,
    /// What Compose writes on its containers.
    pub compose_hash: ComposeHash,
    /// Where it stands.
    pub origin: Origin,
}

/// The hash of a service that Compose writes on its containers: `docker compose up` leaves a container alone while it is the same.
///
/// Versions of Compose differ in what they hash. Either is `None` where it cannot be computed: Compose puts the id of a container
/// into the hash of a service that shares the namespaces or the volumes of another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ComposeHash {
    /// Of Compose 2.26.
    pub v2_26: Option<String>,
    /// Of later versions, which leave dependencies and profiles out.
    pub later: Option<String>,
}

/// `deploy.update_config`, as far as it is carried out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateSettings {
    /// Containers that are replaced at a time; 0 is all.
    pub parallelism: Option<u64>,
    /// Time between two batches.
    pub delay: Option<Duration>,
    /// `start-first` or `stop-first`.
    pub order: Option<UpdateOrder>,
    /// Time a new container is watched.
    pub monitor: Option<Duration>,
}

/// Which of the old and the new container goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateOrder {
    /// New first.
    StartFirst,
    /// Old first.
    StopFirst,
}

/// How an image is built.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// Directory (absolute) or address of the context.
    pub context: String,
    /// Dockerfile, relative to the context.
    pub dockerfile: Option<String>,
    /// Dockerfile in the compose file itself.
    pub dockerfile_inline: Option<String>,
    /// Arguments; `None` takes the value of the builder's environment.
    pub args: BTreeMap<String, Option<String>>,
    /// Stage to stop at.
    pub target: Option<String>,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
    /// Images to take layers from.
    pub cache_from: Vec<String>,
    /// Network during the build.
    pub network: Option<String>,
    /// Further tags.
    pub tags: Vec<String>,
    /// Platforms.
    pub platforms: Vec<String>,
    /// Static entries of `/etc/hosts` during the build.
    pub extra_hosts: Vec<(String, String)>,
    /// Whether base images are pulled again.
    pub pull: bool,
    /// Whether the cache is left out.
    pub no_cache: bool,
    /// Size of `/dev/shm` during the build.
    pub shm_size_bytes: Option<u64>,
    /// Secrets of the build: (id, path of the file).
    pub secrets: Vec<(String, PathBuf)>,
    /// SSH sockets of the build.
    pub ssh: Vec<String>,
    /// Further contexts: name and place.
    pub additional_contexts: BTreeMap<String, String>,
}

/// When the registry is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PullPolicy {
    /// Always; it must answer.
    Always,
    /// Never: only what the engine has.
    Never,
    /// The registry first; what the engine has where it does not know the image.
    #[default]
    Missing,
    /// The image is built.
    Build,
}

/// What a service waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dependency {
    /// What must be true of the other service.
    pub condition: DependencyCondition,
    /// Whether this service is restarted when the other is replaced.
    pub restart: bool,
    /// Whether the other must exist.
    pub required: bool,
}

/// What must be true of a service that another waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DependencyCondition {
    /// It was started.
    ServiceStarted,
    /// It passed its gate.
    ServiceHealthy,
    /// It ran to its end and exited with 0.
    ServiceCompletedSuccessfully,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The file.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// Something in a compose file that has no effect here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigWarning {
    /// Where.
    pub origin: Origin,
    /// The key, such as `services.api.deploy.endpoint_mode`.
    pub key: String,
    /// Why leaving it out is harmless.
    pub reason: String,
}

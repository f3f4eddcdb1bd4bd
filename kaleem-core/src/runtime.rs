//! The container engine as kaleem sees it: small seams, and [`Runtime`], which is all of them.
//!
//! Every call names things by names that a plan computed, never by an id that it had to be told, so that a call can be
//! repeated after a crash. Nothing here decides anything.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};

use crate::definition::{Definition, DefinitionId, NetworkAttachment, NetworkDefinition, PortBinding, RestartPolicy, VolumeDefinition};
pub use crate::image::ImageFacts;
use crate::image::{Digest, ImageRef, PinnedImage};
use crate::names::{ContainerId, ContainerName, GatewayName, NetworkName, ProjectName, ReleaseId, ServiceName, VolumeName};
use crate::pipe::{ByteSender, ByteStream};

pub mod error;
pub mod kaleem_labels;
pub mod marks;
mod peek;

pub use error::RuntimeError;
pub use marks::Marks;
pub use peek::{ContainerFile, ContainerFiles, Inside, Peek, Process, Socket, SocketState};

/// Labels that Compose puts on what it starts; kaleem puts the same, so that its commands keep working.
pub mod compose_labels {
    /// The project.
    pub const PROJECT: &str = "com.docker.compose.project";
    /// The service.
    pub const SERVICE: &str = "com.docker.compose.service";
    /// Counts the containers of a service from 1.
    pub const NUMBER: &str = "com.docker.compose.container-number";
    /// `True` for containers of `run`, else `False`.
    pub const ONEOFF: &str = "com.docker.compose.oneoff";
    /// Compose recreates a container whose hash differs from that of the service.
    pub const CONFIG_HASH: &str = "com.docker.compose.config-hash";
    /// The id of the image it was created from: Compose recreates a container when the image's tag means another.
    pub const IMAGE: &str = "com.docker.compose.image";
    /// What it waits for: `service:condition:restart`, separated by commas.
    pub const DEPENDS_ON: &str = "com.docker.compose.depends_on";
    /// Comma-separated paths of the compose files.
    pub const CONFIG_FILES: &str = "com.docker.compose.project.config_files";
    /// The project's directory.
    pub const WORKING_DIR: &str = "com.docker.compose.project.working_dir";
    /// The version of Compose whose labels these are.
    pub const VERSION: &str = "com.docker.compose.version";
    /// The key of a network under `networks:`.
    pub const NETWORK: &str = "com.docker.compose.network";
    /// The key of a volume under `volumes:`.
    pub const VOLUME: &str = "com.docker.compose.volume";
}

/// A container that is to exist. `labels` is complete: the user's, Compose's and kaleem's.
#[derive(Clone, Debug, PartialEq)]
pub struct InstanceSpec {
    /// The name, computed from the plan.
    pub name: ContainerName,
    /// The project it belongs to.
    pub project: ProjectName,
    /// The service it runs.
    pub service: ServiceName,
    /// The image, which must be present on the engine.
    pub image: PinnedImage,
    /// All labels.
    pub labels: BTreeMap<String, String>,
    /// What it is to be.
    pub definition: Arc<Definition>,
    /// Containers which stand for the services that `network`, `pid`, `ipc` or `volumes_from` name.
    pub companions: BTreeMap<ServiceName, ContainerName>,
}

/// A container that kaleem may change: it is touched only when it carries the project's label,
/// which is [`compose_labels::PROJECT`] or [`kaleem_labels::PROJECT`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnedContainer {
    /// The project whose label it must carry.
    pub project: ProjectName,
    /// Its name.
    pub name: ContainerName,
}

/// How a container is asked to end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopPolicy {
    /// The signal; `None` takes the image's.
    pub signal: Option<String>,
    /// Time until SIGKILL.
    pub grace: Duration,
}

/// A container that gives its ports and names to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaving {
    /// Its name.
    pub container: ContainerName,
    /// How it is stopped.
    pub stop: StopPolicy,
    /// The addresses by which clients know it: its successor is to get them.
    pub addresses: BTreeMap<NetworkName, String>,
}

impl Leaving {
    /// The addresses that the successor of `from` is to get: on each network that of the first container that has one there.
    pub fn addresses_of(from: &[Self]) -> BTreeMap<NetworkName, String> {
        let all = from.iter().rev().flat_map(|one| &one.addresses);
        all.map(|(network, address)| (network.clone(), address.clone())).collect()
    }
}

/// A running container beside those of a service, on one of its networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its name.
    pub name: ContainerName,
    /// The project whose label it carries.
    pub project: Option<String>,
    /// The service, where Compose or kaleem made it.
    pub service: Option<ServiceName>,
    /// The image it was created from, as text.
    pub image: String,
    /// Its address on each of its networks.
    pub addresses: BTreeMap<NetworkName, String>,
}

/// A container as the engine reports it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// The engine's id.
    pub id: ContainerId,
    /// Its name.
    pub name: ContainerName,
    /// The service, from Compose's label.
    pub service: ServiceName,
    /// The number, from Compose's label.
    pub number: u32,
    /// Whether it was started by `run`.
    pub oneoff: bool,
    /// The release, where kaleem made it.
    pub release: Option<ReleaseId>,
    /// The definition, where kaleem made it.
    pub definition: Option<DefinitionId>,
    /// Compose's hash of its service when it was made.
    #[serde(default)]
    pub compose_hash: Option<String>,
    /// The image it was created from, as text.
    pub image: String,
    /// The id of that image on this engine.
    pub image_id: Digest,
    /// The digest kaleem pinned, where kaleem made it; else the manifest digest, where the engine knows one.
    pub digest: Option<Digest>,
    /// What it is doing.
    pub state: InstanceState,
    /// What the engine does when it exits.
    pub restart: RestartPolicy,
    /// The gateway that it is, where kaleem made it as one.
    pub gateway: Option<GatewayName>,
    /// Networks that it is on, running or not, with the names that it was given there.
    pub networks: BTreeMap<NetworkName, Vec<String>>,
    /// Address by network.
    pub addresses: BTreeMap<NetworkName, String>,
    /// Published ports.
    pub ports: Vec<PortBinding>,
    /// All its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

impl Instance {
    /// Those of `wanted` which the container lacks: it is not on the network, or is there without one of its names.
    pub fn lacks(&self, wanted: &[NetworkAttachment]) -> Vec<NetworkAttachment> {
        let has = |attachment: &NetworkAttachment| {
            self.networks.get(&attachment.network).is_some_and(|names| attachment.aliases.iter().all(|alias| names.contains(alias)))
        };
        wanted.iter().filter(|attachment| !has(attachment)).cloned().collect()
    }
}

/// What a container is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceState {
    /// The engine's word for it.
    pub status: InstanceStatus,
    /// Verdict of the container's own health check.
    pub health: InstanceHealth,
    /// Output of the last health check, cut to 4 KiB.
    pub health_output: Option<String>,
    /// Exit code of the last run; `None` while it has not exited.
    pub exit_code: Option<i64>,
    /// Whether the kernel killed the last run for memory.
    pub oom_killed: bool,
    /// How many times the engine restarted it by policy.
    pub restart_count: u64,
    /// When the current or last run began, as the engine writes it; for people and for equality only.
    pub started_at: Option<String>,
    /// The engine's own error, such as a port that is taken.
    pub error: Option<String>,
}

/// The engine's word for what a container is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceStatus {
    /// Never started.
    Created,
    /// Running.
    Running,
    /// Frozen.
    Paused,
    /// Between two runs, by policy.
    Restarting,
    /// Being removed.
    Removing,
    /// Ended.
    Exited,
    /// Half removed: the engine failed.
    Dead,
}

/// Verdict of a container's own health check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceHealth {
    /// There is no check.
    None,
    /// Not decided yet.
    Starting,
    /// Passing.
    Healthy,
    /// Failing.
    Unhealthy,
}

/// An image on the engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalImage {
    /// The engine's id for it: the digest of its configuration.
    pub id: Digest,
    /// Manifest digests under which it was pulled or pushed: (repository in familiar form, digest).
    pub repo_digests: Vec<(String, Digest)>,
    /// Tags in familiar form.
    pub tags: Vec<String>,
    /// What its configuration says.
    pub facts: ImageFacts,
}

/// The engine itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineInfo {
    /// Version of the engine, such as `20.10.24`.
    pub version: String,
    /// Newest API version that engine and adapter both speak, such as `1.41`.
    pub api_version: String,
    /// `linux`.
    pub os: String,
    /// In OCI's words: `amd64`, `arm64`.
    pub architecture: String,
}

/// Progress of a pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PullProgress {
    /// Bytes received so far, over all layers.
    pub received_bytes: u64,
    /// Bytes in all, as far as they are known.
    pub total_bytes: u64,
}

/// Called with the progress of a pull; must not block.
pub type PullObserver = dyn Fn(PullProgress) + Send + Sync;

/// Result of a command in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecOutput {
    /// Exit code.
    pub exit_code: i64,
    /// Standard output and error in the order in which they came, cut to 64 KiB.
    pub output: String,
}

/// One line of a container's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Whether it went to standard error.
    pub stderr: bool,
    /// When, as the engine writes it (RFC 3339).
    pub time: String,
    /// The line without its end.
    pub text: String,
}

/// Which part of a container's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRange {
    /// How many of the last lines; `None` is all.
    pub tail: Option<u64>,
    /// Whether to go on with lines that come later.
    pub follow: bool,
    /// Only lines newer than this (seconds since 1970).
    pub since: Option<i64>,
}

/// Changes to containers.
///
/// # Contract
/// - `create` twice for one spec makes one complete container (networks and files included), not started, and returns its id both times.
///   A container with the name that is not the project's is [`RuntimeError::NameTaken`]; one of the project's made from another definition or image is too.
/// - `start` of a running container succeeds. `stop` of one that is stopped, or gone, succeeds; it returns only when it has ended.
/// - `stop` also keeps the engine from starting it again by policy, whatever its restart policy; `start` gives it `restart` as policy.
/// - `remove` stops nothing: it refuses a running container with [`RuntimeError::StillRunning`], succeeds for one that is gone, and removes anonymous volumes with it.
/// - `start_apart` starts it without its networks: it runs, holds no port of the host, and nobody reaches it. One that runs already keeps what it has.
/// - `hand_over` stops all of `from` as `stop` does, and connects `to` to `networks` as soon as the ports are free: the time between is as short as
///   the engine allows. It succeeds when it was done already, wholly or in part. Afterwards `to` runs, on its networks and with its ports.
/// - `connect` joins networks, running or not, with the names and addresses of each attachment, and publishes the ports that it is to have there; a
///   network on which it has all those names already is left as it is. `disconnect` leaves networks, and succeeds for those that it is not on.
/// - `signal` sends a signal to the first process of a running container; one that does not run is [`RuntimeError::NotFound`].
/// - `rename` succeeds when `to` is already the container that was meant (there is no `from` and `to` is the project's).
/// - A container without the project's label is never changed: [`RuntimeError::NotOurs`].
#[async_trait]
pub trait Containers: Send + Sync {
    /// Makes a container, and does not start it.
    ///
    /// # Errors
    /// See the contract; after an error nothing or the complete container exists, or a partial one which the next `create` completes.
    async fn create(&self, spec: &InstanceSpec) -> Result<ContainerId, RuntimeError>;
    /// Starts a container and gives it its restart policy.
    ///
    /// # Errors
    /// [`RuntimeError::PortTaken`], [`RuntimeError::NotFound`], and what the engine says.
    async fn start(&self, container: &OwnedContainer, restart: RestartPolicy) -> Result<(), RuntimeError>;
    /// Asks it to end, waits for `policy.grace`, kills it, and keeps it from being started by policy.
    ///
    /// # Errors
    /// [`RuntimeError::NotOurs`], and what the engine says; the container may be running.
    async fn stop(&self, container: &OwnedContainer, policy: &StopPolicy) -> Result<(), RuntimeError>;
    /// Starts a container without its networks, which [`Containers::hand_over`] gives it.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`], and what the engine says.
    async fn start_apart(&self, container: &OwnedContainer, restart: RestartPolicy) -> Result<(), RuntimeError>;
    /// Stops `from` and connects `to`, which runs apart, to its networks. Answers how long nobody held the ports, at most.
    ///
    /// `to` gets the addresses of `from` where [`Addresses::reserve`] prepared that and nobody else was quicker; [`Inspect::inspect`] tells.
    ///
    /// # Errors
    /// [`RuntimeError::PortTaken`] when somebody else was quicker, and what the engine says; `from` may be stopped and `to` without networks.
    async fn hand_over(
        &self,
        project: &ProjectName,
        from: &[Leaving],
        to: &ContainerName,
        networks: &[NetworkAttachment],
    ) -> Result<Duration, RuntimeError>;
    /// Joins networks.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`], [`RuntimeError::PortTaken`], and what the engine says; it may have joined some of them.
    async fn connect(&self, container: &OwnedContainer, networks: &[NetworkAttachment]) -> Result<(), RuntimeError>;
    /// Leaves networks. One that is gone has left.
    ///
    /// # Errors
    /// What the engine says; it may have left some of them.
    async fn disconnect(&self, container: &OwnedContainer, networks: &[NetworkName]) -> Result<(), RuntimeError>;
    /// Sends a signal, such as `HUP`.
    ///
    /// # Errors
    /// See the contract.
    async fn signal(&self, container: &OwnedContainer, signal: &str) -> Result<(), RuntimeError>;
    /// Removes a stopped container.
    ///
    /// # Errors
    /// See the contract.
    async fn remove(&self, container: &OwnedContainer) -> Result<(), RuntimeError>;
    /// Gives a container another name.
    ///
    /// # Errors
    /// [`RuntimeError::NameTaken`], [`RuntimeError::NotFound`].
    async fn rename(&self, container: &OwnedContainer, to: &ContainerName) -> Result<(), RuntimeError>;
}

/// Questions about containers and the engine. They change nothing.
///
/// # Contract
/// - `list` has every container with the project's label, running or not, one-off ones included, sorted by name.
/// - `inspect` answers `None` for a container that does not exist, and an error only when it could not ask.
/// - `drift` compares what was asked for when the container was created, not what it made of it.
#[async_trait]
pub trait Inspect: Send + Sync {
    /// All containers of the project.
    ///
    /// # Errors
    /// [`RuntimeError`] when the engine could not be asked.
    async fn list(&self, project: &ProjectName) -> Result<Vec<Instance>, RuntimeError>;
    /// One container, whosever it is.
    ///
    /// # Errors
    /// [`RuntimeError`] when the engine could not be asked.
    async fn inspect(&self, name: &ContainerName) -> Result<Option<Instance>, RuntimeError>;
    /// In what the container differs from `spec` (field names such as `environment.LOG_LEVEL`, never values); empty when it can be taken over as it is.
    ///
    /// Name, image and restart policy are not compared, nor are labels of Compose and kaleem.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`], and when the engine could not be asked.
    async fn drift(&self, spec: &InstanceSpec) -> Result<Vec<String>, RuntimeError>;
    /// Ports of the host that containers of other projects hold: the port and who has it.
    ///
    /// # Errors
    /// [`RuntimeError`] when the engine could not be asked.
    async fn foreign_ports(&self, project: &ProjectName) -> Result<Vec<(PortBinding, ContainerName)>, RuntimeError>;
    /// Running containers on any of `networks`, whosever they are, sorted by name.
    ///
    /// # Errors
    /// [`RuntimeError`] when the engine could not be asked.
    async fn neighbours(&self, networks: &[NetworkName]) -> Result<Vec<Neighbour>, RuntimeError>;
    /// The engine itself, as it was when it was connected to: every plan asks, and engines take their time over an answer.
    ///
    /// # Errors
    /// [`RuntimeError`] when the engine could not be asked.
    async fn engine(&self) -> Result<EngineInfo, RuntimeError>;
    /// Where the engine keeps images and volumes, on its own host.
    ///
    /// # Errors
    /// [`RuntimeError`] when the engine could not be asked.
    async fn root_directory(&self) -> Result<PathBuf, RuntimeError>;
}

/// What is inside a container.
///
/// # Contract
/// - `exec` ends after `timeout` with [`RuntimeError::ExecTimedOut`]; the command may go on inside.
/// - `check` runs the health check that the engine would run, as the engine would; it has no part in what the engine says of the container.
/// - `attach` answers only when the command has ended and all that it wrote was taken; its exit code is not judged. When
///   `input` ends with an error, the command sees a cut input: that is [`RuntimeError::StreamBroken`].
/// - `logs` of a container that never started is an empty stream.
#[async_trait]
pub trait Console: Send + Sync {
    /// Runs a command in a running container and waits for it.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`], [`RuntimeError::ExecTimedOut`], and what the engine says.
    async fn exec(&self, container: &ContainerName, command: &[String], timeout: Duration) -> Result<ExecOutput, RuntimeError>;
    /// Runs the container's own health check once; `None` where it has none.
    ///
    /// # Errors
    /// As [`Console::exec`].
    async fn check(&self, container: &ContainerName, timeout: Duration) -> Result<Option<ExecOutput>, RuntimeError>;
    /// Runs a command in a running container, which reads `input` and whose standard output goes into `output`, as fast as
    /// that takes it. The output of the answer is its standard error alone.
    ///
    /// # Errors
    /// As [`Console::exec`], and [`RuntimeError::StreamBroken`].
    async fn attach(
        &self,
        container: &ContainerName,
        command: &[String],
        input: Option<ByteStream>,
        output: &mut ByteSender,
        timeout: Duration,
    ) -> Result<ExecOutput, RuntimeError>;
    /// The output of a container.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`]; the stream itself may end with an error.
    async fn logs(
        &self,
        container: &ContainerName,
        range: &LogRange,
    ) -> Result<BoxStream<'static, Result<LogLine, RuntimeError>>, RuntimeError>;
}

/// Images on the engine.
///
/// # Contract
/// - `pull` twice downloads once. What was pulled is found by `image` under its [`PinnedImage::engine_reference`].
/// - `pin` makes a tag of ours that keeps the image from being pruned; `unpin` removes the tag and succeeds when it is gone. Neither removes other tags.
#[async_trait]
pub trait Images: Send + Sync {
    /// Fetches an image by digest, unless it is there.
    ///
    /// # Errors
    /// [`RuntimeError::PullFailed`] and its relatives; nothing is left but layers that the next pull uses.
    async fn pull(&self, image: &PinnedImage, platform: Option<&str>, observer: &PullObserver) -> Result<(), RuntimeError>;
    /// The image under `reference` (a tag, `repository@digest`, or an id), if the engine has it.
    ///
    /// # Errors
    /// [`RuntimeError`] when the engine could not be asked.
    async fn image(&self, reference: &str) -> Result<Option<LocalImage>, RuntimeError>;
    /// Gives the image the tag `pin`.
    ///
    /// # Errors
    /// [`RuntimeError::ImageMissing`].
    async fn pin(&self, image: &PinnedImage, pin: &ImageRef) -> Result<(), RuntimeError>;
    /// Removes the tag `pin`; the image goes with its last tag when nothing uses it.
    ///
    /// # Errors
    /// What the engine says; a missing tag is none.
    async fn unpin(&self, pin: &ImageRef) -> Result<(), RuntimeError>;
    /// Makes an image FROM scratch that holds one static program, which it starts, and gives it the tag `tag`; a tag that exists is moved.
    ///
    /// # Errors
    /// [`RuntimeError::FileRefused`] when the program cannot be read, and what the engine says.
    async fn assemble(&self, tag: &ImageRef, program: &Path) -> Result<LocalImage, RuntimeError>;
}

/// Networks and volumes.
///
/// # Contract
/// - `create_network` and `create_volume` succeed when it exists with the project's label, and change nothing then.
/// - `remove_network` succeeds when it is gone, refuses one that is in use ([`RuntimeError::InUse`]) or not the project's ([`RuntimeError::NotOurs`]).
/// - `remove_volume` succeeds when it is gone, refuses one that is in use ([`RuntimeError::InUse`]) or not the project's ([`RuntimeError::NotOurs`]).
///   Only a person who confirmed it may be behind the call: it holds data.
#[async_trait]
pub trait Resources: Send + Sync {
    /// Networks that exist among `names`, with the project label they carry (if any).
    ///
    /// # Errors
    /// [`RuntimeError`] when the engine could not be asked.
    async fn networks(&self, names: &[NetworkName]) -> Result<BTreeMap<NetworkName, Option<String>>, RuntimeError>;
    /// Volumes that exist among `names`, with the project label they carry (if any).
    ///
    /// # Errors
    /// [`RuntimeError`] when the engine could not be asked.
    async fn volumes(&self, names: &[VolumeName]) -> Result<BTreeMap<VolumeName, Option<String>>, RuntimeError>;
    /// Makes a network with Compose's labels.
    ///
    /// # Errors
    /// What the engine says, such as overlapping address ranges.
    async fn create_network(&self, project: &ProjectName, network: &NetworkDefinition) -> Result<(), RuntimeError>;
    /// Removes a network of the project.
    ///
    /// # Errors
    /// See the contract.
    async fn remove_network(&self, project: &ProjectName, network: &NetworkName) -> Result<(), RuntimeError>;
    /// Makes a volume with Compose's labels.
    ///
    /// # Errors
    /// What the engine says.
    async fn create_volume(&self, project: &ProjectName, volume: &VolumeDefinition) -> Result<(), RuntimeError>;
    /// Removes a volume of the project, with the data in it.
    ///
    /// # Errors
    /// See the contract.
    async fn remove_volume(&self, project: &ProjectName, volume: &VolumeName) -> Result<(), RuntimeError>;
}

/// Addresses that outlive their container: clients such as nginx look a name up once and keep the address.
///
/// Engines deal the lowest free address of a network. So an address is reserved by occupying every free one below it with placeholder
/// containers: whoever joins next gets it as soon as it is free.
///
/// # Contract
/// - `reserve` changes no container that exists. Placeholders are in no [`Inspect::list`], carry no name on the network, and are removed by the
///   engine when they stop.
/// - After `reserve`, the container that next joins a network gets the reserved address if it is free by then. Where that cannot be had, another
///   one is dealt: callers look.
/// - `release` removes every placeholder of the project, and succeeds when there is none.
#[async_trait]
pub trait Addresses: Send + Sync {
    /// Occupies every free address below `addresses`, with placeholders that run the image and command of `like`.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`] when there is no `like`, and what the engine says; call [`Addresses::release`] in any case.
    async fn reserve(
        &self,
        project: &ProjectName,
        like: &ContainerName,
        addresses: &BTreeMap<NetworkName, String>,
    ) -> Result<(), RuntimeError>;
    /// Removes the placeholders of the project.
    ///
    /// # Errors
    /// [`RuntimeError`] when the engine could not be asked; placeholders may be left.
    async fn release(&self, project: &ProjectName) -> Result<(), RuntimeError>;
}

/// The whole engine. Implemented by everything that is all of its parts.
pub trait Runtime: Containers + Inspect + Peek + Console + Images + Resources + Addresses + Marks {}

impl<T: Containers + Inspect + Peek + Console + Images + Resources + Addresses + Marks> Runtime for T {}

/// The Docker engine over its API.
#[cfg(feature = "docker")]
pub mod docker;

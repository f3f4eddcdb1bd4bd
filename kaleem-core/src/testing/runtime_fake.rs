//! An engine in memory which refuses whatever the real one would refuse, and more.
//!
//! It has no time of its own: containers get on by one tick each time somebody looks at them
//! ([`Inspect::list`](crate::runtime::Inspect::list), [`Inspect::inspect`](crate::runtime::Inspect::inspect)),
//! so a test's result never depends on how fast the machine is. Same calls, same answers, same ids.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::definition::{Definition, Protocol};
use crate::image::{Digest, ImageSource, PinnedImage};
use crate::names::{ContainerName, NetworkName, ProjectName, ServiceName, VolumeName};
use crate::runtime::{ContainerFiles, EngineInfo, ExecOutput, ImageFacts, Inside, Instance, InstanceStatus, LocalImage, RuntimeError};

mod console;
mod containers;
mod images;
mod marks;
mod peek;
mod world;

pub use console::CHECK;
use world::World;

/// What containers of an image do. A "poll" is one look at the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Runs, and is healthy at the first poll.
    Healthy,
    /// Runs, and is healthy after so many polls.
    HealthyAfter(u32),
    /// Runs; its health check is undecided for two polls and fails from then on.
    NeverHealthy,
    /// Ends before the first poll, with this exit code and this line on standard error.
    ExitsAtOnce {
        /// The exit code.
        code: i64,
        /// The line.
        log: String,
    },
    /// Is killed for memory before the first poll.
    OomKilled,
    /// Runs healthy for so many polls, then exits with 1.
    CrashesAfter(u32),
    /// Is seen running once, then exits with this code: a job.
    CompletesWith(i64),
    /// Runs healthy, and is still running at the end of the grace period: it is killed.
    IgnoresStop,
}

/// An image of the fake, at the registry or on the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FakeImage {
    /// The id it has on the engine.
    pub id: Digest,
    /// What its configuration says.
    pub facts: ImageFacts,
    /// What its containers do.
    pub behaviour: Behaviour,
}

impl FakeImage {
    /// An image for linux/amd64 of 1 MiB without a health check; its id is computed from the pinned digest.
    pub fn of(pinned: &PinnedImage, behaviour: Behaviour) -> Self {
        let id = match pinned.source {
            ImageSource::Local => pinned.digest.clone(),
            ImageSource::Registry => world::digest_of(&format!("configuration of {}", pinned.digest)),
        };
        let facts = ImageFacts { platform: "linux/amd64".to_owned(), size_bytes: 1 << 20, ..ImageFacts::default() };
        Self { id, facts, behaviour }
    }

    /// The same image with a health check.
    pub fn with_healthcheck(mut self) -> Self {
        self.facts.has_healthcheck = true;
        self
    }

    /// The same image exposing these ports, such as `80/tcp`.
    pub fn exposing(mut self, ports: &[&str]) -> Self {
        self.facts.exposed_ports = ports.iter().map(|port| (*port).to_owned()).collect();
        self
    }
}

/// A method of the seams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is the method of the same name")]
pub enum FakeOperation {
    Create,
    Start,
    StartApart,
    HandOver,
    Connect,
    Disconnect,
    Reserve,
    Release,
    Signal,
    Stop,
    Remove,
    Rename,
    List,
    Inspect,
    Drift,
    ForeignPorts,
    Neighbours,
    Inside,
    Files,
    MountedFiles,
    Engine,
    Exec,
    Logs,
    Pull,
    Image,
    Assemble,
    Pin,
    Unpin,
    Networks,
    Volumes,
    CreateNetwork,
    RemoveNetwork,
    CreateVolume,
    RemoveVolume,
    Marks,
    PutMark,
    RemoveMark,
}

impl FakeOperation {
    /// Whether it changes anything (a command in a container may).
    pub fn is_mutating(self) -> bool {
        match self {
            Self::List | Self::Inspect | Self::Drift | Self::ForeignPorts | Self::Neighbours | Self::Engine => false,
            Self::Inside | Self::Files | Self::MountedFiles => false,
            Self::Logs | Self::Image | Self::Networks | Self::Volumes => false,
            // Marks are kaleem's own note beside a plan; they change nothing that serves.
            Self::Marks | Self::PutMark | Self::RemoveMark => false,
            Self::Create | Self::Start | Self::Stop | Self::Remove | Self::Rename | Self::Exec => true,
            Self::StartApart | Self::HandOver | Self::Connect | Self::Disconnect | Self::Signal | Self::RemoveVolume => true,
            Self::Reserve | Self::Release => true,
            Self::Assemble | Self::Pull | Self::Pin | Self::Unpin | Self::CreateNetwork | Self::RemoveNetwork | Self::CreateVolume => true,
        }
    }
}

/// One call, as it is recorded and as hooks see it. It prints as `Stop shop-api-1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FakeCall {
    /// Which method.
    pub operation: FakeOperation,
    /// What it was about: the name of the container, image, network or volume.
    pub target: String,
}

impl fmt::Display for FakeCall {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?} {}", self.operation, self.target)
    }
}

/// What a scripted command answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecReply {
    /// It ends.
    Ends(ExecOutput),
    /// It does not end within any timeout.
    Hangs,
}

/// What is seen of a container from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FakeView {
    /// What goes on in it.
    pub inside: Inside,
    /// Its files.
    pub files: ContainerFiles,
    /// Those of them that are mounted from the host.
    pub mounted: ContainerFiles,
}

/// A container of the fake, for assertions.
#[derive(Clone, Debug, PartialEq)]
pub struct FakeContainer {
    /// What the seam tells of it, without a tick.
    pub instance: Instance,
    /// The project whose label it carries.
    pub project: Option<String>,
    /// All its labels.
    pub labels: BTreeMap<String, String>,
    /// What it was created from.
    pub definition: Definition,
    /// Whether a stop had to kill it.
    pub killed: bool,
    /// How often it was started, by a call or by policy.
    pub runs: u64,
    /// Signals that it was sent, beside those of a stop.
    pub signals: Vec<String>,
}

/// Everything that is on the fake, for assertions.
#[derive(Clone, Debug, PartialEq)]
pub struct FakeSnapshot {
    /// Containers by name.
    pub containers: BTreeMap<ContainerName, FakeContainer>,
    /// Networks, with the project they belong to.
    pub networks: BTreeMap<NetworkName, Option<String>>,
    /// Volumes, with the project they belong to.
    pub volumes: BTreeMap<VolumeName, Option<String>>,
    /// Tags in familiar form, with the id of their image.
    pub tags: BTreeMap<String, Digest>,
    /// Images that are on the engine.
    pub images: Vec<LocalImage>,
}

impl FakeSnapshot {
    /// Names of the containers that are running.
    pub fn running(&self) -> Vec<&ContainerName> {
        let is_running = |container: &FakeContainer| container.instance.state.status == InstanceStatus::Running;
        self.containers.iter().filter(|(_, container)| is_running(container)).map(|(name, _)| name).collect()
    }
}

/// Makes the error of an injected fault; errors hold causes and cannot be cloned.
pub type FakeError = Arc<dyn Fn() -> RuntimeError + Send + Sync>;
/// Sees every call before it is carried out (or after it), and may fail it.
pub type BeforeCall = Arc<dyn Fn(&FakeCall) -> Option<RuntimeError> + Send + Sync>;
/// Answers commands in containers; `None` is a command that the image does not have.
pub type OnExec = Arc<dyn Fn(&ContainerName, &[String]) -> Option<ExecReply> + Send + Sync>;

/// Shows containers from outside; `None` is one of which there is nothing to see but that it runs.
pub type OnPeek = Arc<dyn Fn(&ContainerName) -> Option<FakeView> + Send + Sync>;

struct Fault {
    operation: FakeOperation,
    times: u32,
    after: bool,
    error: FakeError,
}

#[derive(Default)]
struct Script {
    before_call: Option<BeforeCall>,
    after_call: Option<BeforeCall>,
    on_exec: Option<OnExec>,
    on_peek: Option<OnPeek>,
    faults: Vec<Fault>,
    dies_at: Option<u64>,
    mutating_calls: u64,
    calls: Vec<FakeCall>,
}

struct Shared {
    world: Mutex<World>,
    script: Mutex<Script>,
    /// Changes whenever the world may have changed: log streams wait on it.
    changed: watch::Sender<u64>,
}

/// The fake. Clones share one engine.
#[derive(Clone)]
pub struct FakeRuntime {
    shared: Arc<Shared>,
}

impl Default for FakeRuntime {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for FakeRuntime {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("FakeRuntime").field("calls", &self.calls()).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the test sets up.
impl FakeRuntime {
    /// An engine with nothing on it.
    pub fn new() -> Self {
        let (changed, _) = watch::channel(0);
        Self { shared: Arc::new(Shared { world: Mutex::new(World::new()), script: Mutex::new(Script::default()), changed }) }
    }

    /// Puts an image at the registry: `pull` finds it.
    pub fn add_remote_image(&self, pinned: &PinnedImage, image: FakeImage) {
        self.world().remote.insert(pinned.engine_reference(), image);
    }

    /// Puts an image on the engine with its tag: it was built there, or pulled by that tag.
    pub fn add_local_image(&self, pinned: &PinnedImage, image: FakeImage) {
        self.world().store_image(pinned, image, true);
    }

    /// Takes an image away from the engine with all its tags, as a forced prune does.
    pub fn lose_image(&self, pinned: &PinnedImage) {
        self.world().lose_image(&pinned.engine_reference());
    }

    /// Changes what containers do which are created from now on from the image with this pinned digest or id.
    pub fn set_behaviour(&self, digest: &Digest, behaviour: Behaviour) {
        self.world().behaviours.insert(digest.clone(), behaviour);
    }

    /// Changes what a container does from now on.
    pub fn set_container_behaviour(&self, name: &ContainerName, behaviour: Behaviour) {
        if let Some(container) = self.world().containers.get_mut(name) {
            container.behaviour = behaviour;
            container.polls = 0;
        }
    }

    /// Plants a running container that Compose started: its labels, no label of ours, named `<project>-<service>-<number>`.
    ///
    /// # Errors
    /// As `create` and `start`: its image, networks and volumes must be there and its ports free.
    pub fn adopt_compose_container(
        &self,
        project: &ProjectName,
        service: &ServiceName,
        number: u32,
        image: &PinnedImage,
        definition: Definition,
    ) -> Result<ContainerName, RuntimeError> {
        self.world().plant_compose_container(project, service, number, image, definition)
    }

    /// Plants a running container of nobody's project that holds these ports of the host (on all addresses).
    pub fn add_stranger(&self, name: &ContainerName, tcp_ports: &[u16]) {
        self.world().plant_stranger(name, tcp_ports);
    }

    /// Lets a process of the host that is no container listen on a port.
    pub fn occupy_host_port(&self, host_ip: Option<IpAddr>, port: u16, protocol: Protocol) {
        self.world().occupied_ports.push((host_ip, port, protocol));
    }

    /// Ends what [`FakeRuntime::occupy_host_port`] began.
    pub fn free_host_port(&self, port: u16) {
        self.world().occupied_ports.retain(|(_, taken, _)| *taken != port);
    }

    /// Lets a path of the host be missing; all others exist.
    pub fn add_missing_host_path(&self, path: &str) {
        self.world().missing_host_paths.insert(path.to_owned());
    }

    /// Makes a network without anyone's label, as `docker network create` does.
    pub fn add_network(&self, name: &NetworkName, project: Option<&ProjectName>) {
        self.world().add_network(name, project.map(ProjectName::as_str));
    }

    /// Makes a volume, with the label of `project` or nobody's.
    pub fn add_volume(&self, name: &VolumeName, project: Option<&ProjectName>) {
        self.world().volumes.insert(name.clone(), project.map(|project| project.as_str().to_owned()));
    }

    /// Removes a container by force behind kaleem's back: `docker rm -f`.
    pub fn remove_by_hand(&self, name: &ContainerName) {
        self.world().containers.remove(name);
        self.touch();
    }

    /// Takes a container from a network behind kaleem's back: `docker network disconnect`.
    pub fn disconnect_by_hand(&self, name: &ContainerName, network: &NetworkName) {
        self.world().leave_network(name, network);
        self.touch();
    }

    /// Freezes a container behind kaleem's back: `docker pause`.
    pub fn pause_by_hand(&self, name: &ContainerName) {
        self.world().pause(name);
        self.touch();
    }

    /// Stops a container behind kaleem's back: `docker stop`. No restart policy applies.
    pub fn stop_by_hand(&self, name: &ContainerName) {
        self.world().stop_by_hand(name);
        self.touch();
    }

    /// Ends a container behind kaleem's back: `docker kill`. Its restart policy applies.
    pub fn kill_by_hand(&self, name: &ContainerName) {
        self.world().crash(name, 137, false);
        self.touch();
    }

    /// Restarts the engine (without live restore): everything stops, and what its policy says starts again.
    pub fn restart_engine(&self) {
        self.world().restart_engine();
        self.touch();
    }

    /// Writes a line to a container's output.
    pub fn write_log(&self, name: &ContainerName, stderr: bool, text: &str) {
        self.world().write_log(name, stderr, text);
        self.touch();
    }

    /// What the engine says of itself.
    pub fn set_engine(&self, engine: EngineInfo) {
        self.world().engine = engine;
    }

    /// Answers commands in containers. Without it every command is one that the image does not have.
    pub fn on_exec(&self, answer: OnExec) {
        self.script().on_exec = Some(answer);
    }

    /// Shows what runs in containers, and their files. Without it each has one program, and the files of its definition.
    pub fn on_peek(&self, view: OnPeek) {
        self.script().on_peek = Some(view);
    }
}

/// Faults.
impl FakeRuntime {
    /// Fails the next `times` calls of `operation`, before they do anything.
    pub fn fail_next(&self, operation: FakeOperation, times: u32, error: impl Fn() -> RuntimeError + Send + Sync + 'static) {
        self.script().faults.push(Fault { operation, times, after: false, error: Arc::new(error) });
    }

    /// Fails the next `times` calls of `operation` after they did everything: the answer was lost.
    pub fn fail_after_next(&self, operation: FakeOperation, times: u32, error: impl Fn() -> RuntimeError + Send + Sync + 'static) {
        self.script().faults.push(Fault { operation, times, after: true, error: Arc::new(error) });
    }

    /// Lets the engine die at the nth mutating call from now (1 is the next): that call does nothing, and every call fails
    /// with [`RuntimeError::Unreachable`] until [`FakeRuntime::revive`].
    pub fn die_at(&self, nth: u64) {
        let mut script = self.script();
        script.dies_at = Some(script.mutating_calls.saturating_add(nth));
    }

    /// Ends what [`FakeRuntime::die_at`] began, and all faults not used up. Containers are as they were.
    pub fn revive(&self) {
        let mut script = self.script();
        script.dies_at = None;
        script.faults.clear();
    }

    /// Sees every call before it is carried out, and may fail it. It must not call the fake.
    pub fn before_call(&self, hook: Option<BeforeCall>) {
        self.script().before_call = hook;
    }

    /// Sees every call after it was carried out, and may lose its answer: the caller gets the error instead.
    pub fn after_call(&self, hook: Option<BeforeCall>) {
        self.script().after_call = hook;
    }
}

/// What the test asserts.
impl FakeRuntime {
    /// The mutating calls so far, also those that failed.
    pub fn calls(&self) -> Vec<FakeCall> {
        self.script().calls.clone()
    }

    /// Forgets the calls so far.
    pub fn forget_calls(&self) {
        self.script().calls.clear();
    }

    /// Everything that is on the engine. It is no poll: no container gets on.
    pub fn snapshot(&self) -> FakeSnapshot {
        self.world().snapshot()
    }
}

impl FakeRuntime {
    fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.shared.world)
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        lock(&self.shared.script)
    }

    fn touch(&self) {
        self.shared.changed.send_modify(|version| *version = version.wrapping_add(1));
    }

    /// Records the call, applies hooks and faults, carries it out.
    fn call<T>(
        &self,
        operation: FakeOperation,
        target: &dyn fmt::Display,
        perform: impl FnOnce(&mut World) -> Result<T, RuntimeError>,
    ) -> Result<T, RuntimeError> {
        let call = FakeCall { operation, target: target.to_string() };
        let before_call = self.script().before_call.clone();
        let after_call = self.script().after_call.clone();
        let hooked = before_call.and_then(|hook| hook(&call));
        let done = call.clone();
        let mut lost_answer = None;
        {
            let mut script = self.script();
            if operation.is_mutating() {
                script.mutating_calls = script.mutating_calls.saturating_add(1);
                script.calls.push(call);
            }
            if script.dies_at.is_some_and(|nth| script.mutating_calls >= nth) {
                let source = Box::new(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
                return Err(RuntimeError::Unreachable { endpoint: "unix:///fake.sock".to_owned(), source });
            }
            if let Some(error) = hooked {
                return Err(error);
            }
            if let Some(fault) = script.faults.iter_mut().find(|fault| fault.operation == operation && fault.times > 0) {
                fault.times = fault.times.saturating_sub(1);
                if !fault.after {
                    return Err((fault.error)());
                }
                lost_answer = Some(Arc::clone(&fault.error));
            }
        }
        let answer = perform(&mut self.world());
        self.touch();
        if let Some(error) = after_call.and_then(|hook| hook(&done)) {
            return Err(error);
        }
        match lost_answer {
            Some(error) => Err(error()),
            None => answer,
        }
    }
}

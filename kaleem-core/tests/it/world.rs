//! A project, an engine, a registry and a state directory, all in memory or in a directory that goes away.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kaleem_core::config::Origin;
use kaleem_core::config::settings::{DurationText, ServiceSettings, StrategyName};
use kaleem_core::config::{ComposeHash, Dependency, DependencyCondition, Inputs, Project, PullPolicy, Service, Settings, UpdateSettings};
use kaleem_core::definition::{
    ContainerPort, Definition, Mount, MountSource, NetworkAttachment, NetworkDefinition, NetworkMode, PortBinding, Protocol, RestartPolicy,
    VolumeDefinition,
};
use kaleem_core::engine::{Ending, GatewayControl, Notice};
use kaleem_core::health::{Finding, Probes, Question};
use kaleem_core::image::{ImageRef, ImageSource, PinnedImage};
use kaleem_core::kaleem::{GatewayParts, Kaleem, KaleemError, Planned};
use kaleem_core::names::{ContainerName, GatewayName, ProjectName, ReleaseId, ServiceName};
use kaleem_core::plan::older;
use kaleem_core::runtime::{ImageFacts, InstanceStatus};
use kaleem_core::testing::traffic_fake::{FakeAnswer, FakeTraffic};
use kaleem_core::testing::{Behaviour, FakeBackupSets, FakeClock, FakeImage, FakeProbes, FakeRegistry, FakeRuntime};
use kaleem_core::traffic::{AddedPort, DrainPolicy, DrainReport, GatewayStats, Routing, Target, Traffic, TrafficError};

pub(crate) fn service_name(text: &str) -> ServiceName {
    text.parse().unwrap()
}

pub(crate) fn container(text: &str) -> ContainerName {
    text.parse().unwrap()
}

pub(crate) fn image(text: &str) -> ImageRef {
    text.parse().unwrap()
}

/// A service of the project `shop`, on its default network.
pub(crate) fn service(name: &str, image_text: &str) -> Service {
    let attachment = NetworkAttachment {
        network: "shop_default".parse().unwrap(),
        aliases: vec![name.to_owned()],
        ipv4: None,
        ipv6: None,
        link_local_ips: Vec::new(),
        mac_address: None,
        driver_opts: BTreeMap::new(),
    };
    Service {
        name: service_name(name),
        image: Some(image(image_text)),
        build: None,
        pull_policy: PullPolicy::Missing,
        replicas: 1,
        container_name: None,
        depends_on: BTreeMap::new(),
        definition: Definition {
            network: NetworkMode::Networks(vec![attachment]),
            restart: RestartPolicy::UnlessStopped,
            ..Definition::default()
        },
        update: UpdateSettings::default(),
        compose_hash: ComposeHash::default(),
        origin: Origin { file: PathBuf::from("compose.yaml"), line: 1, column: 1 },
    }
}

pub(crate) trait ServiceExt: Sized {
    fn publishing(self, host: u16, inside: u16) -> Self;
    fn after(self, other: &str, condition: DependencyCondition) -> Self;
    fn env(self, name: &str, value: &str) -> Self;
    fn storing(self, volume: &str) -> Self;
    fn named(self, name: &str) -> Self;
    fn times(self, replicas: u32) -> Self;
}

impl ServiceExt for Service {
    fn publishing(mut self, host: u16, inside: u16) -> Self {
        let container = ContainerPort { port: inside, protocol: Protocol::Tcp };
        self.definition.ports.push(PortBinding { container, host_ip: None, host_ports: Some((host, host)) });
        self
    }

    fn after(mut self, other: &str, condition: DependencyCondition) -> Self {
        self.depends_on.insert(service_name(other), Dependency { condition, restart: false, required: true });
        self
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.definition.environment.insert(name.to_owned(), Some(value.to_owned()));
        self
    }

    fn storing(mut self, volume: &str) -> Self {
        let name = format!("shop_{volume}").parse().unwrap();
        let source = MountSource::Volume { name, nocopy: false, subpath: None };
        self.definition.mounts.push(Mount { target: "/data".to_owned(), read_only: false, source });
        self
    }

    fn named(mut self, name: &str) -> Self {
        self.container_name = Some(container(name));
        self
    }

    fn times(mut self, replicas: u32) -> Self {
        self.replicas = replicas;
        self
    }
}

pub(crate) fn project(services: Vec<Service>) -> Project {
    let network = NetworkDefinition {
        name: "shop_default".parse().unwrap(),
        key: "default".to_owned(),
        external: false,
        driver: None,
        driver_opts: BTreeMap::new(),
        attachable: false,
        internal: false,
        enable_ipv6: false,
        labels: BTreeMap::new(),
        ipam: kaleem_core::definition::Ipam::default(),
    };
    let mut volumes = BTreeMap::new();
    for mount in services.iter().flat_map(|service| &service.definition.mounts) {
        if let MountSource::Volume { name, .. } = &mount.source {
            let key = name.as_str().trim_start_matches("shop_").to_owned();
            let volume = VolumeDefinition {
                name: name.clone(),
                key: key.clone(),
                external: false,
                driver: None,
                driver_opts: BTreeMap::new(),
                labels: BTreeMap::new(),
            };
            volumes.insert(key, volume);
        }
    }
    Project {
        name: "shop".parse().unwrap(),
        directory: PathBuf::from("/srv/shop"),
        files: vec![PathBuf::from("/srv/shop/compose.yaml")],
        services: services.into_iter().map(|service| (service.name.clone(), service)).collect(),
        networks: BTreeMap::from([("default".to_owned(), network)]),
        volumes,
        warnings: Vec::new(),
        settings: Settings::default(),
        inputs: Inputs::default(),
    }
}

/// Sets how a service is replaced, as `kaleem.toml` would.
pub(crate) fn strategy(mut project: Project, service: &str, strategy: StrategyName) -> Project {
    let settings = ServiceSettings { strategy: Some(strategy), ..ServiceSettings::default() };
    project.settings.services.insert(service_name(service), settings);
    project
}

/// Sets what `kaleem.toml` says of a service.
pub(crate) fn setting(mut project: Project, service: &str, set: impl Fn(&mut ServiceSettings)) -> Project {
    set(project.settings.services.entry(service_name(service)).or_default());
    project
}

/// A duration as `kaleem.toml` has it.
pub(crate) fn lasting(text: &str) -> Option<DurationText> {
    DurationText::try_from(text.to_owned()).ok()
}

/// Where a call to a gateway is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    Before,
    /// It is carried out, and nobody was told.
    After,
}

/// Called around every switch, drain and upgrade; what it answers is the failure there.
pub(crate) type TrafficHook = dyn Fn(Moment) -> Option<TrafficError> + Send + Sync;

/// Gateways that live as long as their containers run, and see the instances that run.
pub(crate) struct WorldTraffic {
    pub(crate) fake: FakeTraffic,
    runtime: FakeRuntime,
    /// Gateways' containers that were seen, and in which of their runs.
    up: std::sync::Mutex<std::collections::BTreeSet<(ContainerName, u64)>>,
    around_calls: std::sync::Mutex<Option<Arc<TrafficHook>>>,
}

impl WorldTraffic {
    /// Has `hook` called around every switch, drain and upgrade.
    pub(crate) fn around_calls(&self, hook: Option<Arc<TrafficHook>>) {
        *self.around_calls.lock().unwrap() = hook;
    }

    /// Sends a request; `None` where the gateway does not run.
    pub(crate) fn ask(&self, gateway: &GatewayName) -> Option<FakeAnswer> {
        self.look(gateway).ok()?;
        Some(self.fake.request(gateway))
    }

    fn tick(&self, moment: Moment) -> Result<(), TrafficError> {
        let hook = self.around_calls.lock().unwrap().clone();
        hook.and_then(|hook| hook(moment)).map_or(Ok(()), Err)
    }

    fn look(&self, gateway: &GatewayName) -> Result<(), TrafficError> {
        let snapshot = self.runtime.snapshot();
        let running = |found: &kaleem_core::testing::FakeContainer| found.instance.state.status == InstanceStatus::Running;
        let mut there = None;
        for (name, found) in &snapshot.containers {
            self.fake.set_alive(name, running(found));
            let is_its = found.labels.get("kaleem.gateway").map(String::as_str) == Some(gateway.as_str());
            if is_its && !found.labels.contains_key("kaleem.port") && running(found) {
                there = Some((name.clone(), found.runs));
            }
        }
        let Some(run) = there else {
            return Err(TrafficError::Unreachable { gateway: gateway.clone(), source: std::io::ErrorKind::ConnectionRefused.into() });
        };
        if self.up.lock().unwrap().insert(run) {
            self.fake.start(gateway);
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl Traffic for WorldTraffic {
    async fn steer(&self, gateway: &GatewayName, routing: &Routing) -> Result<(), TrafficError> {
        self.tick(Moment::Before)?;
        self.look(gateway)?;
        self.fake.steer(gateway, routing).await?;
        self.tick(Moment::After)
    }
    async fn probe(&self, gateway: &GatewayName, target: &Target, question: &Question, timeout: Duration) -> Result<Finding, TrafficError> {
        self.look(gateway)?;
        self.fake.probe(gateway, target, question, timeout).await
    }
    async fn drain(&self, gateway: &GatewayName, instance: &ContainerName, policy: &DrainPolicy) -> Result<DrainReport, TrafficError> {
        self.tick(Moment::Before)?;
        self.look(gateway)?;
        let report = self.fake.drain(gateway, instance, policy).await?;
        self.tick(Moment::After).map(|()| report)
    }
    async fn stats(&self, gateway: &GatewayName) -> Result<GatewayStats, TrafficError> {
        self.look(gateway)?;
        let mut stats = self.fake.stats(gateway).await?;
        if let Some(added) = &mut stats.added_ports {
            let snapshot = self.runtime.snapshot();
            let of = |found: &&kaleem_core::testing::FakeContainer| {
                found.labels.get("kaleem.gateway").map(String::as_str) == Some(gateway.as_str())
            };
            let running = snapshot.containers.values().filter(of).filter(|found| found.instance.state.status == InstanceStatus::Running);
            let ports = running.filter_map(|found| Some((found.labels.get("kaleem.port")?.clone(), found.definition.ports.first()?)));
            added.extend(ports.map(|(name, binding)| AddedPort { name, port: binding.container.port }));
        }
        Ok(stats)
    }
    async fn upgrade(&self, gateway: &GatewayName, binary: &Path) -> Result<String, TrafficError> {
        self.tick(Moment::Before)?;
        self.look(gateway)?;
        let version = self.fake.upgrade(gateway, binary).await?;
        self.tick(Moment::After).map(|()| version)
    }
}

/// Where hooks find their programs.
fn hook_environment() -> BTreeMap<String, String> {
    BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())])
}

/// The plan, with everything agreed to that a person may agree to.
pub(crate) fn agreed(mut planned: Planned) -> Planned {
    planned.agree(older::GOES_BACK);
    planned.agree(older::SERVICE_GONE);
    planned
}

/// One world. Clones of the parts share it.
pub(crate) struct World {
    pub(crate) runtime: FakeRuntime,
    pub(crate) registry: Arc<FakeRegistry>,
    pub(crate) clock: Arc<FakeClock>,
    pub(crate) kaleem: Kaleem,
    pub(crate) directory: Arc<tempfile::TempDir>,
    pub(crate) traffic: Arc<WorldTraffic>,
    /// Data beside the containers, and its backups.
    pub(crate) sets: FakeBackupSets,
}

impl World {
    pub(crate) fn new() -> Self {
        // Thousands of synced writes: the memory file system keeps them quick, and its contract is the same.
        Self::at(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap())
    }

    pub(crate) fn at(directory: tempfile::TempDir) -> Self {
        Self::asking(directory, Arc::new(FakeProbes))
    }

    /// A world with other probes.
    pub(crate) fn with_probes(probes: Arc<dyn Probes>) -> Self {
        Self::asking(tempfile::tempdir().unwrap(), probes)
    }

    fn asking(directory: tempfile::TempDir, probes: Arc<dyn Probes>) -> Self {
        let runtime = FakeRuntime::new();
        let registry = Arc::new(FakeRegistry::new());
        let clock = Arc::new(FakeClock::new());
        let kaleem = Kaleem::builder(Arc::new(runtime.clone()), registry.clone(), probes)
            .state_directory(directory.path())
            .hook_environment(hook_environment())
            .owner("a test")
            .clock(clock.clone())
            .build();
        let traffic = Arc::new(WorldTraffic {
            fake: FakeTraffic::new(),
            runtime: runtime.clone(),
            up: std::sync::Mutex::default(),
            around_calls: std::sync::Mutex::default(),
        });
        Self { runtime, registry, clock, kaleem, directory: Arc::new(directory), traffic, sets: FakeBackupSets::new() }
    }

    /// A world in which plans can make backup sets, with gateways or without.
    pub(crate) fn with_backups(gateways: bool) -> Self {
        let world = if gateways { Self::with_gateways() } else { Self::new() };
        let builder = Kaleem::builder(Arc::new(world.runtime.clone()), world.registry.clone(), Arc::new(FakeProbes))
            .state_directory(world.directory.path())
            .hook_environment(hook_environment())
            .owner("a test")
            .clock(world.clock.clone())
            .backups(Arc::new(world.sets.clone()));
        let builder = if gateways { builder.gateways(world.parts()) } else { builder };
        Self { kaleem: builder.build(), ..world }
    }

    fn parts(&self) -> GatewayParts {
        let user = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let control = GatewayControl { traffic: self.traffic.clone(), directory: self.directory.path().join(".gateways"), user };
        GatewayParts { control, program: self.directory.path().join("kaleem-agent") }
    }

    /// A world in which gateways can be set up.
    pub(crate) fn with_gateways() -> Self {
        Self::with_gateways_and_probes(Arc::new(FakeProbes))
    }

    /// The same with other probes.
    pub(crate) fn with_gateways_and_probes(probes: Arc<dyn Probes>) -> Self {
        let world = Self::new();
        let program = world.directory.path().join("kaleem-agent");
        // The smallest header of a static program: one segment, which is loaded.
        let mut bytes = vec![0_u8; 0x78];
        bytes[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1]);
        (bytes[0x20], bytes[0x36], bytes[0x38], bytes[0x40]) = (0x40, 0x38, 1, 1);
        kaleem_core::durable::write_atomic(&program, &bytes, 0o755).unwrap();
        let kaleem = Kaleem::builder(Arc::new(world.runtime.clone()), world.registry.clone(), probes)
            .state_directory(world.directory.path())
            .hook_environment(hook_environment())
            .owner("a test")
            .clock(world.clock.clone())
            .gateways(world.parts())
            .build();
        Self { kaleem, ..world }
    }

    /// The same engine, as another user sees it: with a state directory of its own.
    pub(crate) fn of_another_user(&self) -> Self {
        let directory = Arc::new(tempfile::tempdir().unwrap());
        let kaleem = Kaleem::builder(Arc::new(self.runtime.clone()), self.registry.clone(), Arc::new(FakeProbes))
            .state_directory(directory.path())
            .owner("deploy by another")
            .user("another")
            .clock(self.clock.clone())
            .gateways(self.parts())
            .build();
        Self { kaleem, directory, ..self.again() }
    }

    /// The same world once more.
    pub(crate) fn again(&self) -> Self {
        let Self { runtime, registry, clock, kaleem, directory, traffic, sets } = self;
        let (registry, clock, directory) = (registry.clone(), clock.clone(), directory.clone());
        let (kaleem, traffic, sets) = (kaleem.clone(), traffic.clone(), sets.clone());
        Self { runtime: runtime.clone(), registry, clock, kaleem, directory, traffic, sets }
    }

    /// Where the gateway of a service sends, if it runs.
    pub(crate) async fn routed(&self, service: &str) -> Option<Vec<String>> {
        let gateway: GatewayName = format!("shop-{service}-gateway").parse().unwrap();
        let routing = self.traffic.stats(&gateway).await.ok()?.routing?;
        Some(routing.targets.iter().map(|target| target.instance.to_string()).collect())
    }

    /// The program to which the gateway of a service was brought, if any.
    pub(crate) async fn gateway_program(&self, service: &str) -> Option<String> {
        let gateway: GatewayName = format!("shop-{service}-gateway").parse().unwrap();
        self.traffic.stats(&gateway).await.ok()?.worker.program
    }

    /// Another program for gateways lies beside kaleem from now on.
    pub(crate) fn newer_program(&self) {
        let program = self.directory.path().join("kaleem-agent");
        let mut bytes = std::fs::read(&program).unwrap();
        bytes.push(0);
        kaleem_core::durable::write_atomic(&program, &bytes, 0o755).unwrap();
    }

    /// Pushes an image whose containers behave like that.
    pub(crate) fn push(&self, reference: &str, behaviour: Behaviour) -> PinnedImage {
        self.push_with(reference, behaviour, |fake| fake)
    }

    pub(crate) fn push_with(&self, reference: &str, behaviour: Behaviour, shape: impl Fn(FakeImage) -> FakeImage) -> PinnedImage {
        let reference = image(reference);
        // Facts make the digest, so every tag has another.
        let labels = BTreeMap::from([("test.tag".to_owned(), reference.to_string())]);
        let facts = ImageFacts { platform: "linux/amd64".to_owned(), size_bytes: 1 << 20, labels, ..ImageFacts::default() };
        let draft =
            FakeImage { id: "sha256:0000000000000000000000000000000000000000000000000000000000000000".parse().unwrap(), facts, behaviour };
        let draft = shape(draft);
        let resolved = self.registry.push(&reference, draft.facts.clone()).unwrap();
        let pinned = PinnedImage { image: reference, digest: resolved.digest, source: ImageSource::Registry };
        self.runtime.add_remote_image(&pinned, FakeImage { id: resolved.config, ..draft });
        pinned
    }

    pub(crate) async fn plan(&self, project: &Project) -> Planned {
        self.kaleem.plan_deploy(project, &BTreeMap::new()).await.unwrap()
    }

    pub(crate) async fn deploy(&self, project: &Project) -> Result<Ending, KaleemError> {
        let work = self.kaleem.work(&project.name).await?;
        let planned = agreed(self.kaleem.deploy_plan(&work, project, &BTreeMap::new()).await?);
        if planned.plan.is_empty() {
            return Ok(Ending::Left);
        }
        self.kaleem.start(work, &planned)?.finish().await
    }

    pub(crate) async fn deploy_and_listen(&self, project: &Project) -> (Ending, Vec<Notice>) {
        let work = self.kaleem.work(&project.name).await.unwrap();
        let planned = agreed(self.kaleem.deploy_plan(&work, project, &BTreeMap::new()).await.unwrap());
        let mut run = self.kaleem.start(work, &planned).unwrap();
        let mut notices = Vec::new();
        while let Some(notice) = run.notices.recv().await {
            notices.push(notice);
        }
        (run.finish().await.unwrap(), notices)
    }

    pub(crate) async fn rollback(&self, to: Option<ReleaseId>) -> Result<Ending, KaleemError> {
        let work = self.kaleem.work(&self.project()).await?;
        let planned = self.kaleem.rollback_plan(&work, to).await?;
        self.kaleem.start(work, &planned)?.finish().await
    }

    pub(crate) async fn rollback_with_data(&self, to: Option<ReleaseId>) -> Result<Ending, KaleemError> {
        let work = self.kaleem.work(&self.project()).await?;
        let planned = self.kaleem.rollback_plan_with_data(&work, to).await?;
        self.kaleem.start(work, &planned)?.finish().await
    }

    pub(crate) async fn resume(&self) -> Result<Ending, KaleemError> {
        let work = self.kaleem.work(&self.project()).await?;
        self.kaleem.resume(work)?.finish().await
    }

    pub(crate) async fn abort(&self) -> Result<Ending, KaleemError> {
        let work = self.kaleem.work(&self.project()).await?;
        self.kaleem.abort(work)?.finish().await
    }

    pub(crate) fn project(&self) -> ProjectName {
        "shop".parse().unwrap()
    }

    pub(crate) fn serving(&self) -> Option<ReleaseId> {
        self.kaleem.history(&self.project()).unwrap().serving()
    }

    /// Names of the containers that run.
    pub(crate) fn running(&self) -> Vec<String> {
        self.runtime.snapshot().running().iter().map(ToString::to_string).collect()
    }

    /// Names of all containers, with what each is doing.
    pub(crate) fn containers(&self) -> Vec<String> {
        let snapshot = self.runtime.snapshot();
        snapshot.containers.iter().map(|(name, container)| format!("{name} {:?}", container.instance.state.status).to_lowercase()).collect()
    }
}

/// The condition of a dependency that need only be started.
pub(crate) fn started() -> DependencyCondition {
    DependencyCondition::ServiceStarted
}

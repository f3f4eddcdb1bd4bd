//! Probes of the kinds `container` and `command`: with an engine that does as it is told, and with the real one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use kaleem_core::definition::{Definition, HealthTest, Healthcheck, PortBinding, Resources as Limits, RestartPolicy};
use kaleem_core::health::{Finding, HealthProbe, Verdict};
use kaleem_core::image::{ImageSource, PinnedImage};
use kaleem_core::names::{ContainerId, ContainerName, NetworkName, ProjectName, ReleaseId};
use kaleem_core::registry::Anonymous;
use kaleem_core::runtime::docker::{DockerOptions, DockerRuntime};
use kaleem_core::runtime::{
    EngineInfo, Inspect, Instance, InstanceHealth, InstanceSpec, InstanceState, InstanceStatus, Neighbour, OwnedContainer, Runtime,
    RuntimeError, StopPolicy, compose_labels,
};
use kaleem_core::testing::probe_contract::discreet;
use kaleem_core::testing::program;
use kaleem_health::settings::{CommandSettings, ContainerSettings, SettingsError};
use kaleem_health::{CommandProbe, ContainerProbe, KnownHosts, Reach};

use crate::servers::note;
use crate::support::{Exec, FakeConsole, SECRET, running, runs};

const SERVICE: &str = "api";
const TIMEOUT: Duration = Duration::from_millis(400);
/// What is asked here never answers by itself, so whatever ends was ended by the timeout: the rest is for a busy machine.
const LATEST: Duration = Duration::from_secs(5);

/// What the engine says when it is asked for the containers.
enum Says {
    These(Vec<Instance>),
    Broken,
    Nothing,
}

struct FakeInspect(Says);

fn broken() -> RuntimeError {
    RuntimeError::Broken { operation: "list containers".to_owned(), source: "connection reset".into() }
}

#[async_trait]
impl Inspect for FakeInspect {
    async fn list(&self, _: &ProjectName) -> Result<Vec<Instance>, RuntimeError> {
        match &self.0 {
            Says::These(instances) => Ok(instances.clone()),
            Says::Broken => Err(broken()),
            Says::Nothing => std::future::pending().await,
        }
    }

    async fn inspect(&self, _: &ContainerName) -> Result<Option<Instance>, RuntimeError> {
        Err(broken())
    }

    async fn drift(&self, _: &InstanceSpec) -> Result<Vec<String>, RuntimeError> {
        Err(broken())
    }

    async fn foreign_ports(&self, _: &ProjectName) -> Result<Vec<(PortBinding, ContainerName)>, RuntimeError> {
        Err(broken())
    }

    async fn neighbours(&self, _: &[NetworkName]) -> Result<Vec<Neighbour>, RuntimeError> {
        Err(broken())
    }

    async fn engine(&self) -> Result<EngineInfo, RuntimeError> {
        Err(broken())
    }

    async fn root_directory(&self) -> Result<PathBuf, RuntimeError> {
        Err(broken())
    }
}

fn instance(number: u32, release: u64, state: InstanceState) -> Instance {
    Instance {
        id: ContainerId(format!("id-{release}-{number}")),
        name: format!("shop-{SERVICE}-r{release}-{number}").parse().unwrap(),
        service: SERVICE.parse().unwrap(),
        number,
        oneoff: false,
        release: Some(ReleaseId::new(release)),
        definition: None,
        compose_hash: None,
        image: "shop:1".to_owned(),
        image_id: format!("sha256:{}", "0".repeat(64)).parse().unwrap(),
        digest: None,
        state,
        restart: RestartPolicy::Always,
        gateway: None,
        networks: BTreeMap::new(),
        addresses: BTreeMap::new(),
        ports: Vec::new(),
        labels: BTreeMap::new(),
    }
}

fn reach(says: Says, exec: Exec) -> Reach {
    let project: ProjectName = "shop".parse().unwrap();
    Reach::network(Arc::new(KnownHosts::new())).with_engine(project, Arc::new(FakeInspect(says)), Arc::new(FakeConsole(exec)))
}

fn container(replicas: u32, reach: &Reach) -> ContainerProbe {
    ContainerProbe::new("container", ContainerSettings::standard(SERVICE.parse().unwrap(), replicas), reach)
}

fn command(reach: &Reach) -> CommandProbe {
    let words = vec!["check".to_owned(), format!("--password={SECRET}")];
    CommandProbe::new("command", CommandSettings::standard(SERVICE.parse().unwrap(), words), reach).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "the contract is about real time")]
async fn in_time(why: &str, probe: &dyn HealthProbe) -> Finding {
    let start = Instant::now();
    let finding = probe.check(TIMEOUT).await;
    assert!(start.elapsed() < LATEST, "{why}: took {:?}", start.elapsed());
    discreet(why, &finding);
    assert!(!format!("{finding:?}").contains(SECRET), "{why}: {finding:?}");
    assert!(finding.phases.contains_key("total"), "{why}");
    finding
}

#[tokio::test]
async fn containers_are_judged_by_all_that_the_engine_says_of_them() {
    let well = InstanceState { health: InstanceHealth::Healthy, ..running() };
    let stopped = Instance {
        restart: RestartPolicy::No,
        ..instance(1, 2, InstanceState { status: InstanceStatus::Exited, exit_code: Some(0), ..running() })
    };
    let table: [(&str, u32, Vec<Instance>, Verdict, &str); 12] = [
        ("well", 1, vec![instance(1, 1, well.clone())], Verdict::Ok, "`shop-api-r1-1` is running, and its own health check passes"),
        ("without a check", 1, vec![instance(1, 1, running())], Verdict::Ok, "`shop-api-r1-1` is running"),
        ("kept for going back", 1, vec![stopped.clone(), instance(1, 1, well.clone())], Verdict::Ok, "`shop-api-r1-1` is running"),
        ("of two, one", 2, vec![instance(1, 1, well.clone()), stopped.clone()], Verdict::Warn, "1 of 2 containers of `api` run"),
        ("none is wanted", 0, Vec::new(), Verdict::Ok, "0 containers"),
        ("none", 1, Vec::new(), Verdict::Fail, "`api` has no container"),
        (
            "one is ill",
            2,
            vec![instance(1, 1, well.clone()), instance(2, 1, InstanceState { health: InstanceHealth::Unhealthy, ..running() })],
            Verdict::Fail,
            "the health check of `shop-api-r1-2` fails",
        ),
        (
            "undecided",
            1,
            vec![instance(1, 1, InstanceState { health: InstanceHealth::Starting, ..running() })],
            Verdict::Unknown,
            "has not decided yet",
        ),
        (
            "was restarted",
            1,
            vec![instance(1, 1, InstanceState { restart_count: 3, ..well.clone() })],
            Verdict::Warn,
            "was restarted 3 times since it was made",
        ),
        (
            "lost a process to the kernel",
            1,
            vec![instance(1, 1, InstanceState { oom_killed: true, ..well.clone() })],
            Verdict::Warn,
            "the kernel killed a process of it for memory",
        ),
        (
            "the one that failed, not the one that was kept",
            1,
            vec![
                stopped,
                instance(1, 1, InstanceState { status: InstanceStatus::Exited, exit_code: Some(137), oom_killed: true, ..running() }),
            ],
            Verdict::Fail,
            "`shop-api-r1-1` ended because it used more memory than it may",
        ),
        (
            "restarts without end",
            1,
            vec![instance(1, 1, InstanceState { status: InstanceStatus::Restarting, exit_code: Some(3), restart_count: 9, ..running() })],
            Verdict::Fail,
            "waits to be restarted (9 times so far)",
        ),
    ];
    for (why, replicas, instances, verdict, reason) in table {
        let finding = in_time(why, &container(replicas, &reach(Says::These(instances), Exec::Ends(0)))).await;
        assert_eq!((finding.verdict, finding.reason.contains(reason)), (verdict, true), "{why}: {}", finding.reason);
    }
}

#[tokio::test]
async fn restarts_have_limits_and_new_ones_are_told() {
    let often = || Says::These(vec![instance(1, 1, InstanceState { restart_count: 5, ..running() })]);
    for (why, restarts, verdict) in
        [("allowed", (6, 9), Verdict::Ok), ("a warning", (5, 9), Verdict::Warn), ("a failure", (1, 5), Verdict::Fail)]
    {
        let settings = ContainerSettings { restarts, ..ContainerSettings::standard(SERVICE.parse().unwrap(), 1) };
        let finding = in_time(why, &ContainerProbe::new("container", settings, &reach(often(), Exec::Ends(0)))).await;
        assert_eq!(finding.verdict, verdict, "{why}: {}", finding.reason);
    }
}

#[tokio::test]
async fn a_command_is_judged_by_its_exit_code_and_by_what_it_prints() {
    let one = || Says::These(vec![instance(1, 1, running())]);
    let standard = CommandSettings::standard(SERVICE.parse().unwrap(), vec!["check".to_owned(), SECRET.to_owned()]);
    // What it prints is the secret itself: rules may ask for it, and no finding may say it.
    for (why, code, settings, verdict, reason) in [
        ("well", 0, standard.clone(), Verdict::Ok, "`check` in `shop-api-r1-1` exited with 0"),
        ("another code", 3, standard.clone(), Verdict::Fail, "exited with 3"),
        ("the code that is right", 3, CommandSettings { exit_code: 3, ..standard.clone() }, Verdict::Ok, "exited with 3"),
        ("not that one", 0, CommandSettings { exit_code: 3, ..standard.clone() }, Verdict::Fail, "exited with 0, and 3 is right"),
        ("the code that warns", 1, CommandSettings { exit_warn: Some(1), ..standard.clone() }, Verdict::Warn, "exited with 1"),
        ("the text", 0, CommandSettings { contains: Some("repeat".to_owned()), ..standard.clone() }, Verdict::Ok, "exited with 0"),
        (
            "another text",
            0,
            CommandSettings { contains: Some("PONG".to_owned()), ..standard.clone() },
            Verdict::Fail,
            "the output of `check` in `shop-api-r1-1` does not hold the text",
        ),
        ("the pattern", 0, CommandSettings { pattern: Some("^hunter[0-9]".to_owned()), ..standard.clone() }, Verdict::Ok, "exited"),
        ("another pattern", 0, CommandSettings { pattern: Some("^a+$".to_owned()), ..standard.clone() }, Verdict::Fail, "does not match"),
        ("no JSON", 0, CommandSettings { json: vec!["depth < 3".to_owned()], ..standard.clone() }, Verdict::Fail, "is not JSON"),
    ] {
        let probe = CommandProbe::new("command", settings, &reach(one(), Exec::Ends(code))).unwrap();
        let finding = in_time(why, &probe).await;
        assert_eq!((finding.verdict, finding.reason.contains(reason)), (verdict, true), "{why}: {}", finding.reason);
    }
    for (why, settings) in [
        ("no program", CommandSettings { command: vec![" ".to_owned()], ..standard.clone() }),
        ("no pattern", CommandSettings { pattern: Some("(".to_owned()), ..standard.clone() }),
        ("no rule", CommandSettings { json: vec!["a b == 1".to_owned()], ..standard }),
    ] {
        let refused = CommandProbe::new("command", settings, &reach(one(), Exec::Ends(0))).err();
        assert!(matches!(refused, Some(SettingsError::NoProgram { .. } | SettingsError::Rule { .. })), "{why}");
    }
}

#[tokio::test]
async fn an_engine_that_cannot_be_asked_is_unknown_in_time_and_leaves_nothing() {
    let one = || Says::These(vec![instance(1, 1, running())]);
    for (why, says, exec, container_says, command_says) in [
        ("the engine hangs", Says::Nothing, Exec::Ends(0), Verdict::Unknown, Verdict::Unknown),
        ("the engine is gone", Says::Broken, Exec::Ends(0), Verdict::Unknown, Verdict::Unknown),
        ("it hangs with the command", one(), Exec::Hangs, Verdict::Ok, Verdict::Unknown),
        ("it is gone with the command", one(), Exec::Broken, Verdict::Ok, Verdict::Unknown),
        ("the command hangs", one(), Exec::TimesOut, Verdict::Ok, Verdict::Fail),
        ("the program is not in the image", one(), Exec::Ends(127), Verdict::Ok, Verdict::Unknown),
        ("no container", Says::These(Vec::new()), Exec::Ends(0), Verdict::Fail, Verdict::Fail),
    ] {
        let reach = reach(says, exec);
        let finding = in_time(why, &container(1, &reach)).await;
        assert_eq!(finding.verdict, container_says, "{why}: {}", finding.reason);
        let finding = in_time(why, &command(&reach)).await;
        assert_eq!(finding.verdict, command_says, "{why}: {}", finding.reason);
    }
    let nobody = Reach::network(Arc::new(KnownHosts::new()));
    assert_eq!(in_time("no engine", &container(1, &nobody)).await.verdict, Verdict::Unknown);
    assert_eq!(in_time("no engine", &command(&nobody)).await.verdict, Verdict::Unknown);

    let reach = reach(one(), Exec::Ends(0));
    let (container, command) = (container(1, &reach), command(&reach));
    for run in 0..runs() {
        assert_eq!(container.check(TIMEOUT).await.verdict, Verdict::Ok, "run {run}");
        assert_eq!(command.check(TIMEOUT).await.verdict, Verdict::Ok, "run {run}");
    }
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0, "a task was left behind");
}

/// A project on the real engine whose one service is made anew for each state.
struct Lab {
    runtime: Arc<dyn Runtime>,
    image: PinnedImage,
    project: ProjectName,
}

#[expect(clippy::disallowed_methods, reason = "a test is its own caller")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

impl Lab {
    async fn new() -> Option<Self> {
        let options = DockerOptions {
            endpoint: variable("DOCKER_HOST"),
            rootless_socket: None,
            credentials: Arc::new(Anonymous),
            answer_timeout: Duration::from_secs(60),
        };
        let runtime = match DockerRuntime::connect(&options).await {
            Err(error @ (RuntimeError::Unreachable { .. } | RuntimeError::PermissionDenied { .. })) if variable("CI").is_none() => {
                note(&format!("skipped: {error}"));
                return None;
            }
            connected => connected.unwrap(),
        };
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path().join("program");
        // The program of the engine's own tests: it runs, exits, eats, and answers.
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../kaleem-core/tests/fixtures/program.rs");
        program::compile(source.as_ref(), &output, variable).await.unwrap();
        let runtime: Arc<dyn Runtime> = Arc::new(runtime);
        let project = format!("kt-health-{}", std::process::id());
        let tag = format!("{project}:test").parse().unwrap();
        let made = runtime.assemble(&tag, &output).await.unwrap();
        let image = PinnedImage { image: tag, digest: made.id, source: ImageSource::Local };
        Some(Self { runtime, image, project: project.parse().unwrap() })
    }

    fn spec(&self, definition: Definition) -> InstanceSpec {
        let labels = [(compose_labels::PROJECT, self.project.to_string()), (compose_labels::SERVICE, SERVICE.to_owned())];
        InstanceSpec {
            name: format!("{}-{SERVICE}", self.project).parse().unwrap(),
            project: self.project.clone(),
            service: SERVICE.parse().unwrap(),
            image: self.image.clone(),
            labels: labels.map(|(key, value)| (key.to_owned(), value)).into(),
            definition: Arc::new(definition),
            companions: BTreeMap::new(),
        }
    }

    fn reach(&self) -> Reach {
        let names = Arc::new(KnownHosts::new());
        Reach::network(names).with_engine(self.project.clone(), self.runtime.clone(), self.runtime.clone())
    }

    /// Runs `check` against a container of that definition.
    async fn with(&self, definition: Definition, restart: RestartPolicy, check: impl AsyncFnOnce(&Reach)) {
        let spec = self.spec(definition);
        let owned = OwnedContainer { project: self.project.clone(), name: spec.name.clone() };
        self.runtime.create(&spec).await.unwrap();
        self.runtime.start(&owned, restart).await.unwrap();
        check(&self.reach()).await;
        self.runtime.stop(&owned, &StopPolicy { signal: None, grace: Duration::ZERO }).await.unwrap();
        self.runtime.remove(&owned).await.unwrap();
    }
}

/// Asks until the finding is the wanted one.
#[expect(clippy::disallowed_methods, reason = "the engine decides in real time")]
async fn until(why: &str, probe: &dyn HealthProbe, verdict: Verdict, reason: &str) {
    let start = Instant::now();
    loop {
        let finding = probe.check(Duration::from_secs(20)).await;
        discreet(why, &finding);
        if finding.verdict == verdict && finding.reason.contains(reason) {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{why}: {} {}", finding.verdict, finding.reason);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn real_containers_and_commands_in_them_are_told_apart() {
    let Some(lab) = Lab::new().await else { return };
    let does = |word: &str| Definition { command: Some(words(&[word])), ..Definition::default() };
    let checked = |word: &str| Definition {
        healthcheck: Some(Healthcheck {
            test: HealthTest::Exec(words(&["/program", word])),
            interval: Some(Duration::from_millis(200)),
            timeout: None,
            start_period: None,
            start_interval: None,
            retries: Some(1),
        }),
        ..does("run")
    };
    let of = |reach: &Reach| container(1, reach);
    until("before it is made", &of(&lab.reach()), Verdict::Fail, "has no container").await;
    lab.with(checked("healthy"), RestartPolicy::No, async |reach: &Reach| {
        until("its check passes", &of(reach), Verdict::Ok, "its own health check passes").await;
    })
    .await;
    lab.with(checked("hello"), RestartPolicy::No, async |reach: &Reach| {
        until("its check fails", &of(reach), Verdict::Fail, "the health check of").await;
    })
    .await;
    lab.with(does("exit"), RestartPolicy::Always, async |reach: &Reach| {
        let limit = ContainerSettings { restarts: (1, 2), ..ContainerSettings::standard(SERVICE.parse().unwrap(), 1) };
        until("it ends again and again", &ContainerProbe::new("container", limit, reach), Verdict::Fail, "restarted").await;
    })
    .await;
    let limits = Limits { memory_bytes: Some(6 << 20), memory_swap_bytes: Some(6 << 20), ..Limits::default() };
    lab.with(Definition { resources: limits, ..does("eat") }, RestartPolicy::No, async |reach: &Reach| {
        until("it takes too much memory", &of(reach), Verdict::Fail, "because it used more memory than it may").await;
    })
    .await;

    let variables = [("DEPTH".to_owned(), Some("{\"depth\": 7}".to_owned()))].into();
    lab.with(Definition { environment: variables, ..does("run") }, RestartPolicy::No, async |reach: &Reach| {
        let standard = |list: &[&str]| CommandSettings::standard(SERVICE.parse().unwrap(), words(list));
        let depth = standard(&["/program", "variable", "DEPTH"]);
        for (why, settings, verdict, reason) in [
            ("well", standard(&["/program", "healthy"]), Verdict::Ok, "`/program` in"),
            ("another code", standard(&["/program", "hello"]), Verdict::Fail, "exited with 5"),
            ("that code", CommandSettings { exit_code: 5, ..standard(&["/program", "hello"]) }, Verdict::Ok, "exited with 5"),
            (
                "its output",
                CommandSettings { contains: Some("well well".to_owned()), ..standard(&["/program", "healthy"]) },
                Verdict::Ok,
                "",
            ),
            ("a rule", CommandSettings { json: words(&["depth < 10"]), ..depth.clone() }, Verdict::Ok, "exited with 0"),
            ("a broken rule", CommandSettings { json: words(&["depth < 5"]), ..depth }, Verdict::Fail, "breaks `depth < 5`"),
            ("no such program", standard(&["/gone"]), Verdict::Unknown, "could not be run"),
        ] {
            until(why, &CommandProbe::new("command", settings, reach).unwrap(), verdict, reason).await;
        }
        let finding = CommandProbe::new("command", standard(&["/program", "stay"]), reach).unwrap().check(Duration::from_secs(1)).await;
        assert_eq!(
            (finding.verdict, finding.reason.contains("`/program` in `") && finding.reason.contains("did not end within")),
            (Verdict::Fail, true),
            "{}",
            finding.reason
        );
    })
    .await;
    lab.runtime.unpin(&lab.image.image).await.unwrap();
}

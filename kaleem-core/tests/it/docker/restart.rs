//! The engine is restarted in the middle of a deploy: an engine of the test's own, so that nobody else's containers suffer.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use kaleem_core::config::PullPolicy;
use kaleem_core::config::settings::{DurationText, HealthSettings, ServiceSettings};
use kaleem_core::definition::NetworkMode;
use kaleem_core::engine::{Ending, Notice};
use kaleem_core::kaleem::Kaleem;
use kaleem_core::outcome::Outcome;
use kaleem_core::runtime::docker::DockerRuntime;
use kaleem_core::runtime::{Inspect as _, InstanceStatus};
use kaleem_core::testing::{FakeProbes, FakeRegistry};

use super::lab;
use crate::world::{project, service, service_name};

/// The bridge of the test's own engine, which needs one even though no container of the test has a network.
const BRIDGE: &str = "kaleem-test0";

#[expect(clippy::disallowed_methods, reason = "a destructor cannot wait for a future")]
fn ip(arguments: &[&str]) -> bool {
    std::process::Command::new("ip").args(arguments).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// An engine with a directory of its own, ended by its process id.
struct OwnEngine {
    directory: tempfile::TempDir,
    process: Option<Child>,
}

impl OwnEngine {
    fn start(&mut self) {
        let below = |name: &str| self.directory.path().join(name).display().to_string();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.directory.path().join("log")).unwrap();
        #[expect(clippy::disallowed_methods, reason = "it lives longer than a call, and is ended by its id")]
        let mut command = std::process::Command::new("dockerd");
        command.args(["--data-root", &below("data"), "--exec-root", &below("exec"), "--pidfile", &below("pid")]);
        // Without a bridge of its own it would take the one of the machine's engine away.
        command.args(["-H", &self.endpoint(), "--bridge", BRIDGE, "--iptables=false", "--ip-forward=false"]);
        self.process = Some(command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    }

    fn endpoint(&self) -> String {
        format!("unix://{}", self.directory.path().join("sock").display())
    }

    fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        let pid = i32::try_from(process.id()).ok().and_then(rustix::process::Pid::from_raw).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        process.wait().unwrap();
    }
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        self.stop();
        ip(&["link", "delete", BRIDGE]);
    }
}

async fn connect(endpoint: &str) -> DockerRuntime {
    for _ in 0..600 {
        if let Ok(runtime) = DockerRuntime::connect(&lab::options(Some(endpoint))).await {
            return runtime;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the engine of the test did not come up within 60 s");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_restarted_in_the_middle_of_a_deploy_is_waited_for() {
    let Some(lab) = lab().await else { return };
    if !rustix::process::geteuid().is_root() {
        assert!(lab::variable("CI").is_none(), "an engine of the test's own needs root");
        println!("skipped: an engine of the test's own needs root");
        return;
    }
    // A short path: sockets have little room for theirs.
    let directory = tempfile::Builder::new().prefix("kt-engine-").tempdir_in("/tmp").unwrap();
    let mut engine = OwnEngine { directory, process: None };
    // One that an interrupted run left is used again.
    ip(&["link", "add", BRIDGE, "type", "bridge"]);
    ip(&["address", "add", "172.31.77.1/24", "dev", BRIDGE]);
    assert!(ip(&["link", "set", BRIDGE, "up"]), "the test needs a network bridge of its own");
    engine.start();
    let endpoint = engine.endpoint();
    let runtime = connect(&endpoint).await;
    let docker = Docker::connect_with_unix(endpoint.trim_start_matches("unix://"), 60, bollard::API_DEFAULT_VERSION).unwrap();
    let check = serde_json::json!({ "Test": ["CMD", "/app", "healthy"], "Interval": 300_000_000, "Retries": 3 });
    let config = serde_json::json!({ "Entrypoint": ["/app"], "Cmd": ["run"], "Healthcheck": check });
    lab::load(&docker, "checked", &lab.program, &config).await;

    let mut api = service("api", "kt-docker-checked:test");
    api.pull_policy = PullPolicy::Never;
    api.definition.network = NetworkMode::None;
    let mut shop = project(vec![api]);
    shop.networks.clear();
    let health = HealthSettings { passes: Some(12), interval: Some(DurationText(Duration::from_millis(250))), ..HealthSettings::default() };
    shop.settings.services.insert(service_name("api"), ServiceSettings { health: Some(health), ..ServiceSettings::default() });
    let state = tempfile::tempdir().unwrap();
    let kaleem = Kaleem::builder(Arc::new(runtime.clone()), Arc::new(FakeRegistry::new()), Arc::new(FakeProbes))
        .state_directory(state.path())
        .build();
    let work = kaleem.work(&shop.name).await.unwrap();
    let planned = kaleem.deploy_plan(&work, &shop, &BTreeMap::new()).await.unwrap();
    let mut run = kaleem.start(work, &planned).unwrap();
    let (mut restarted, mut retried) = (false, false);
    while let Some(notice) = run.notices.recv().await {
        match notice {
            Notice::Waiting { .. } if !restarted => {
                restarted = true;
                engine.stop();
                engine.start();
            }
            Notice::Retrying { .. } => retried = true,
            _ => {}
        }
    }
    let ending = run.finish().await.unwrap();
    assert!(restarted && retried, "the engine was away while the gate waited");
    let up = runtime.list(&shop.name).await.unwrap().iter().filter(|instance| instance.state.status == InstanceStatus::Running).count();
    match ending {
        Ending::Over(Outcome::Deployed { .. }) => assert_eq!(up, 1, "what is said to serve runs"),
        Ending::Over(Outcome::RolledBack { serving: None, .. }) => assert_eq!(up, 0, "what was taken back does not run"),
        other => panic!("{other:?}"),
    }
}

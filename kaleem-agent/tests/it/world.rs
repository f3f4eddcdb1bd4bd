//! A gateway as a real process, with its directory and its ports.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use kaleem_core::names::{ContainerName, GatewayName};
use kaleem_core::testing::free_port;
use kaleem_core::traffic::{
    Admission, DrainPolicy, Generation, HoldLimits, Routing, SocketTraffic, Stickiness, Target, Traffic, TrafficError,
};

use super::instance::Instance;

/// Longest wait of any test for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `holds` is true.
pub(crate) async fn until<F: AsyncFnMut() -> bool>(what: &str, mut holds: F) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    assert!(waited.await.is_ok(), "waited in vain until {what}");
}

/// How a gateway is started; what tests do not care about stays at its default.
pub(crate) struct Plan {
    pub(crate) listen: Vec<(u16, &'static str)>,
    pub(crate) arguments: Vec<String>,
    /// On no network: not even loopback is up.
    pub(crate) apart: bool,
}

impl Plan {
    pub(crate) fn http() -> Self {
        Self { listen: vec![(free_port(), "http")], arguments: Vec::new(), apart: false }
    }

    pub(crate) fn tcp() -> Self {
        Self { listen: vec![(free_port(), "tcp")], arguments: Vec::new(), apart: false }
    }

    pub(crate) fn with(mut self, argument: &str, value: &str) -> Self {
        self.arguments.push(argument.to_owned());
        if !value.is_empty() {
            self.arguments.push(value.to_owned());
        }
        self
    }

    pub(crate) async fn start(self) -> Gateway {
        let root = tempfile::tempdir().unwrap();
        self.start_in(Arc::new(root)).await
    }

    pub(crate) async fn start_in(self, root: Arc<tempfile::TempDir>) -> Gateway {
        let name: GatewayName = "gw".parse().unwrap();
        let traffic = SocketTraffic::new(root.path());
        let directory = traffic.directory(&name);
        std::fs::create_dir_all(&directory).unwrap();
        let process = spawn(&self, &directory);
        let ports = self.listen.iter().map(|(port, _)| *port).collect();
        let gateway = Gateway { root, name, traffic: Arc::new(traffic), ports, plan: self, process };
        until("the gateway answers", async || gateway.stats_now().await.is_ok()).await;
        gateway
    }
}

pub(crate) fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_kaleem-agent"))
}

fn spawn(plan: &Plan, directory: &Path) -> Child {
    #[expect(clippy::disallowed_methods, reason = "the process under test")]
    let mut command = std::process::Command::new(if plan.apart { "unshare".into() } else { binary() });
    if plan.apart {
        let user: &[&str] = if rustix::process::geteuid().is_root() { &[] } else { &["--map-root-user"] };
        command.args(user).arg("--net").arg(binary());
    }
    command.arg("gateway").arg("--directory").arg(directory);
    // Without loopback there is no such address, and nobody else to see the port.
    let host = if plan.apart { "" } else { "127.0.0.1:" };
    for (port, mode) in &plan.listen {
        command.arg("--listen").arg(format!("{host}{port}/{mode}"));
    }
    let log = std::fs::OpenOptions::new().create(true).append(true).open(directory.join("log")).unwrap();
    let out = std::fs::OpenOptions::new().create(true).append(true).open(directory.join("out")).unwrap();
    command.args(&plan.arguments).stdin(Stdio::null()).stdout(out).stderr(log).spawn().unwrap()
}

/// A running gateway; it ends with the test.
pub(crate) struct Gateway {
    pub(crate) root: Arc<tempfile::TempDir>,
    pub(crate) name: GatewayName,
    pub(crate) traffic: Arc<SocketTraffic>,
    pub(crate) ports: Vec<u16>,
    pub(crate) plan: Plan,
    process: Child,
}

impl Gateway {
    pub(crate) fn directory(&self) -> PathBuf {
        self.traffic.directory(&self.name)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports[0]))
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory().join("log")).unwrap()
    }

    pub(crate) fn out(&self) -> String {
        std::fs::read_to_string(self.directory().join("out")).unwrap()
    }

    async fn stats_now(&self) -> Result<kaleem_core::traffic::GatewayStats, TrafficError> {
        self.traffic.stats(&self.name).await
    }

    pub(crate) async fn stats(&self) -> kaleem_core::traffic::GatewayStats {
        self.stats_now().await.unwrap()
    }

    pub(crate) async fn steer(&self, routing: &Routing) {
        self.traffic.steer(&self.name, routing).await.unwrap();
    }

    /// Sends everything to these instances, in equal shares.
    pub(crate) async fn route(&self, generation: u64, instances: &[&Instance]) {
        self.steer(&routing(generation, &instances.iter().map(|instance| self.target(instance, 1)).collect::<Vec<_>>())).await;
    }

    pub(crate) fn target(&self, instance: &Instance, weight: u16) -> Target {
        Target {
            instance: instance.name.clone(),
            release: instance.release,
            host: "127.0.0.1".parse().unwrap(),
            ports: self.ports.iter().map(|port| (*port, instance.address.port())).collect(),
            weight,
        }
    }

    pub(crate) async fn drain(&self, instance: &Instance, requests: Duration, streams: Duration) -> kaleem_core::traffic::DrainReport {
        self.traffic.drain(&self.name, &instance.name, &DrainPolicy { requests, streams }).await.unwrap()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn signal(&self, pid: u32, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Memory of the process that serves.
    pub(crate) async fn worker_kilobytes(&self) -> u64 {
        let pid = self.stats().await.worker.pid;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Waits for the end of the process.
    pub(crate) async fn ended(&mut self) -> std::process::ExitStatus {
        let mut status = None;
        until("the gateway has ended", async || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap()
    }

    /// Starts it again in the same directory, as the engine does after a crash.
    pub(crate) async fn start_again(&mut self) {
        self.process = spawn(&self.plan, &self.directory());
        until("the gateway answers again", async || self.stats_now().await.is_ok()).await;
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.process);
        // SIGTERM twice ends it at once, with its workers.
        for _ in 0..2 {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        }
        self.process.wait().ok();
    }
}

pub(crate) fn routing(generation: u64, targets: &[Target]) -> Routing {
    Routing {
        generation: Generation::new(generation),
        admission: Admission::Serve,
        hold: HoldLimits { requests: 100, time: Duration::from_secs(10), release_per_second: 1000 },
        stickiness: None,
        targets: targets.to_vec(),
    }
}

pub(crate) fn sticky(generation: u64, targets: &[Target]) -> Routing {
    Routing { stickiness: Some(Stickiness { cookie: "kaleem".to_owned() }), ..routing(generation, targets) }
}

pub(crate) fn instance_name(text: &str) -> ContainerName {
    text.parse().unwrap()
}

//! An engine of the gauntlet's own, which may be restarted without anybody else's containers suffering.

use std::time::Duration;

use tempfile::TempDir;

use crate::fail::TaskError;
use crate::place::Place;
use crate::programs::{Program, Started, wait_until};

/// Its bridge: without one it would take that of the machine's engine away.
const BRIDGE: &str = "kaleem-g0";
const BRIDGE_ADDRESS: &str = "172.31.79.1/24";
/// Where its networks are, so that they do not meet those of the machine's engine.
const NETWORKS: &str = "172.31.80.0/20";
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);

/// An engine, ended when the value is dropped.
pub(super) struct Engine<'a> {
    place: &'a Place,
    directory: TempDir,
    process: Option<Started>,
}

impl<'a> Engine<'a> {
    /// Starts one.
    pub(super) fn start(place: &'a Place) -> Result<Self, TaskError> {
        // A short path: sockets have little room for theirs.
        let directory = tempfile::Builder::new().prefix("kg-").tempdir_in("/tmp").map_err(|source| TaskError::File {
            operation: "create a directory in",
            path: "/tmp".into(),
            source,
        })?;
        let mut engine = Self { place, directory, process: None };
        // One that an interrupted run left is used again.
        engine.ip(&["link", "add", BRIDGE, "type", "bridge"]);
        engine.ip(&["address", "add", BRIDGE_ADDRESS, "dev", BRIDGE]);
        if !engine.ip(&["link", "set", BRIDGE, "up"]) {
            return Err(TaskError::Unexpected { what: format!("the network bridge {BRIDGE} could not be made; it needs root") });
        }
        // The machine's engine lets nothing through between networks that are not its own.
        engine.forward("--insert");
        engine.run()?;
        Ok(engine)
    }

    fn ip(&self, arguments: &[&str]) -> bool {
        Program::new(self.place, "ip").args(arguments).succeeds()
    }

    fn forward(&self, how: &str) {
        // Where there are no such rules, nothing is in the way either.
        Program::new(self.place, "iptables").args([how, "FORWARD", "-s", NETWORKS, "-d", NETWORKS, "-j", "ACCEPT"]).succeeds();
    }

    /// Where it listens.
    pub(super) fn endpoint(&self) -> String {
        format!("unix://{}", self.directory.path().join("sock").display())
    }

    fn run(&mut self) -> Result<(), TaskError> {
        let below = |name: &str| self.directory.path().join(name).display().to_string();
        let pool = format!("base={NETWORKS},size=24");
        let server = Program::new(self.place, "dockerd")
            .args(["--data-root", &below("data"), "--exec-root", &below("exec"), "--pidfile", &below("pid")])
            .args(["--host", &self.endpoint(), "--bridge", BRIDGE, "--default-address-pool", &pool])
            .args(["--iptables=false", "--ip-forward=false", "--live-restore=false"])
            .start(&self.place.tools.join("gauntlet-dockerd.log"))?;
        self.process = Some(server);
        let endpoint = self.endpoint();
        let answers = || Program::new(self.place, "docker").env("DOCKER_HOST", &endpoint).args(["version"]).succeeds();
        if !wait_until(ANSWERS_WITHIN, answers) {
            let log = self.place.tools.join("gauntlet-dockerd.log");
            return Err(TaskError::Silent { what: "dockerd".to_owned(), seconds: ANSWERS_WITHIN.as_secs(), log });
        }
        Ok(())
    }

    /// Ends it with every container, and starts it again.
    pub(super) fn restart(&mut self) -> Result<(), TaskError> {
        drop(self.process.take());
        self.run()
    }
}

impl Drop for Engine<'_> {
    fn drop(&mut self) {
        drop(self.process.take());
        self.forward("--delete");
        self.ip(&["link", "delete", BRIDGE]);
    }
}

//! A second engine, newer than the machine's own: the adapter is to work with both.
//!
//! It is taken out of Debian's packages and installed nowhere. It runs beside the machine's engine, on a socket and a
//! network bridge of its own and without firewall rules, so that the machine's containers never notice.

use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use crate::fail::TaskError;
use crate::place::{Place, scratch, write};
use crate::programs::{Program, Started, wait_until};
use crate::say;
use crate::setup::apt;

/// The engine, its containerd, and the first process of containers that want one. The `runc` is the machine's.
const PACKAGES: [&str; 3] = ["docker.io", "containerd", "tini"];
const BRIDGE: &str = "kaleem-newer0";
const ADDRESS: &str = "172.31.78.1/24";
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

fn directory(place: &Place) -> PathBuf {
    place.tools.join("newer-engine")
}

/// Whether this machine can run one: it takes root, and Debian's packages.
pub(crate) fn is_possible(place: &Place) -> bool {
    rustix::process::geteuid().is_root() && (apt::can_unpack(place) || is_there(place))
}

/// Whether it was fetched.
pub(crate) fn is_there(place: &Place) -> bool {
    directory(place).join("usr/sbin/dockerd").is_file()
}

/// Fetches it.
pub(crate) fn fetch(place: &Place) -> Result<(), TaskError> {
    say::step("fetching a second, newer Docker engine from Debian's packages");
    apt::unpack(place, &PACKAGES, &directory(place))
}

/// An engine that runs until the value is dropped.
pub(crate) struct NewerEngine {
    place: Place,
    server: Option<Started>,
    files: TempDir,
}

impl NewerEngine {
    /// Starts it.
    pub(crate) fn start(place: &Place) -> Result<Self, TaskError> {
        let mut engine = Self { place: place.clone(), server: None, files: scratch()? };
        // One that an interrupted run left is used again.
        engine.ip(&["link", "add", BRIDGE, "type", "bridge"]);
        engine.ip(&["address", "add", ADDRESS, "dev", BRIDGE]);
        engine.ip(&["link", "set", BRIDGE, "up"]);
        let below = |name: &str| engine.files.path().join(name).display().to_string();
        let log = place.tools.join("newer-engine.log");
        // The machine's own configuration is of the machine's own engine.
        write(&engine.files.path().join("daemon.json"), "{}\n")?;
        let proxy = directory(place).join("usr/sbin/docker-proxy");
        let server = Program::new(place, directory(place).join("usr/sbin/dockerd")).env("PATH", engine.path());
        let server = server.args(["--data-root", &below("data"), "--exec-root", &below("exec"), "--pidfile", &below("pid")]);
        let server = server.args(["--config-file", &below("daemon.json"), "-H", &engine.address(), "--bridge", BRIDGE, "--iptables=false"]);
        let server = server.args(["--ip6tables=false", "--ip-forward=false", "--userland-proxy-path"]).arg(proxy);
        engine.server = Some(server.start(&log)?);
        let ready = wait_until(ANSWER_WITHIN, || engine.version().is_some());
        match engine.version().filter(|_| ready) {
            Some(version) => say::step(&format!("a second engine runs: Docker {version}")),
            None => return Err(TaskError::Silent { what: "the newer dockerd".to_owned(), seconds: ANSWER_WITHIN.as_secs(), log }),
        }
        Ok(engine)
    }

    /// Tells a program to use it, and to start engines of the same version.
    pub(crate) fn export(&self, program: Program) -> Program {
        program.env("DOCKER_HOST", self.address()).env("PATH", self.path())
    }

    fn address(&self) -> String {
        format!("unix://{}", self.files.path().join("sock").display())
    }

    fn path(&self) -> std::ffi::OsString {
        let own = directory(&self.place);
        let mut path = std::ffi::OsString::from(format!("{}:{}:", own.join("usr/sbin").display(), own.join("usr/bin").display()));
        path.push(&self.place.path);
        path
    }

    fn version(&self) -> Option<String> {
        let ask = Program::new(&self.place, "docker").env("DOCKER_HOST", self.address());
        ask.args(["version", "--format", "{{.Server.Version}} (API {{.Server.APIVersion}})"]).answer()
    }

    fn ip(&self, arguments: &[&str]) {
        // What is there already, or gone already, is what is wanted; an engine without its bridge does not come up.
        Program::new(&self.place, "ip").args(arguments).succeeds();
    }
}

impl Drop for NewerEngine {
    fn drop(&mut self) {
        self.server = None;
        self.ip(&["link", "delete", BRIDGE]);
    }
}

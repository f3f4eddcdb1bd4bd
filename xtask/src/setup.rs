//! What development needs beside Rust: found, or installed and started.
//!
//! Everything is looked for first, so that a second run is quick and changes nothing. What is started is written
//! down in the tools directory, so that it can be found again and ended by its own id.

mod packages;
pub(crate) mod apt;
mod engine;
mod registry;
pub(crate) mod images;
mod compose_oracle;
pub(crate) mod mongo_server;
pub(crate) mod newer_engine;
mod s3_server;

use std::path::PathBuf;

use crate::fail::TaskError;
use crate::place::Place;
use crate::programs::{Program, Started};
use crate::say;

/// Whether things may be installed without asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consent {
    /// Yes.
    Given,
    /// Ask first, where somebody sits who can answer.
    Ask,
}

impl Consent {
    /// From `--yes`.
    pub(crate) fn from_flag(yes: bool) -> Self {
        if yes { Self::Given } else { Self::Ask }
    }
}

/// How much has to be there: the later in this list, the more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Need {
    /// An engine, a registry, and the images of the shop.
    Demo,
    /// Every server that a test or a benchmark talks to.
    Tests,
}

/// What tests and demos work with. What this process started ends when the value is dropped.
pub(crate) struct Parts {
    /// Address of the registry, such as `127.0.0.1:5000`.
    pub registry: String,
    /// The Compose program whose output is the reference in conformance tests.
    pub compose_oracle: PathBuf,
    /// A server that speaks as MongoDB.
    pub mongo_server: PathBuf,
    /// A service that speaks as S3.
    pub s3_server: PathBuf,
    started: Vec<Started>,
}

impl Parts {
    /// Lets everything run on after this process; `stop` ends it.
    pub(crate) fn leave_running(mut self) {
        for server in self.started.drain(..) {
            server.leave_running();
        }
    }

    /// Where the image `name` is in the registry.
    pub(crate) fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.registry)
    }

    /// Tells a program what there is.
    pub(crate) fn export(&self, program: Program) -> Program {
        program
            .env("KALEEM_TEST_REGISTRY", &self.registry)
            .env("KALEEM_TEST_DEBIAN", images::DEBIAN)
            .env("KALEEM_COMPOSE_ORACLE", &self.compose_oracle)
            .env("KALEEM_TEST_SECANTUSD", &self.mongo_server)
            .env("KALEEM_TEST_MOTO", &self.s3_server)
            .env("SHOP_API_IMAGE", self.image("shop:v1"))
            .env("SHOP_WORKER_IMAGE", self.image("shop:v1"))
            .env("SHOP_REDIS_IMAGE", self.image("redis:7"))
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        // Last started, first ended: the registry before the engine.
        while self.started.pop().is_some() {}
    }
}

/// Makes sure that everything is there that `need` takes.
///
/// # Errors
/// [`TaskError::Missing`] when something would have to be installed and may not be; nothing was changed then.
pub(crate) fn run(place: &Place, consent: Consent, need: Need) -> Result<Parts, TaskError> {
    let missing = packages::missing(place, need);
    if !missing.is_empty() {
        packages::install(place, consent, &missing)?;
    }
    rust_target(place)?;
    if need >= Need::Tests && !compose_oracle::program(place).is_file() {
        compose_oracle::fetch(place)?;
    }
    if need >= Need::Tests && !mongo_server::program(place).is_file() {
        mongo_server::fetch(place)?;
    }
    if need >= Need::Tests && newer_engine::is_possible(place) && !newer_engine::is_there(place) {
        newer_engine::fetch(place)?;
    }
    if need >= Need::Tests && !s3_server::program(place).is_file() {
        s3_server::fetch(place)?;
    }
    let mut parts = Parts {
        registry: String::new(),
        compose_oracle: compose_oracle::program(place),
        mongo_server: mongo_server::program(place),
        s3_server: s3_server::program(place),
        started: Vec::new(),
    };
    parts.started.extend(engine::ensure(place)?);
    let (address, started) = registry::ensure(place)?;
    parts.registry = address;
    parts.started.extend(started);
    images::ensure(place, &parts)?;
    Ok(parts)
}

/// Ends what an earlier `setup` left running.
pub(crate) fn stop(place: &Place) -> Result<(), TaskError> {
    registry::stop(place)?;
    engine::stop(place)
}

/// The profile of what runs in images.
pub(crate) const STATIC_PROFILE: &str = "static";

/// The target of static binaries on this machine.
pub(crate) fn static_target() -> String {
    format!("{}-unknown-linux-musl", std::env::consts::ARCH)
}

fn rust_target(place: &Place) -> Result<(), TaskError> {
    let target = static_target();
    let installed = Program::new(place, "rustup").args(["target", "list", "--installed"]).output()?;
    if installed.lines().any(|line| line == target) {
        return Ok(());
    }
    say::step(&format!("adding the Rust target {target}"));
    Program::new(place, "rustup").args(["target", "add", &target]).run()
}

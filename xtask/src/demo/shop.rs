//! A copy of the shop in a directory of its own, and the commands that act on it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::fail::TaskError;
use crate::load;
use crate::place::{Place, copy, free_port, scratch, write};
use crate::programs::Program;
use crate::say;
use crate::setup::{Parts, STATIC_PROFILE, static_target};

/// The shop as one Compose project. Everything carries its name, and is removed by it.
pub(crate) struct Shop<'a> {
    place: &'a Place,
    parts: &'a Parts,
    directory: TempDir,
    kaleem: &'a Path,
    name: String,
    port: u16,
}

/// What the shop recorded.
pub(crate) struct Orders {
    /// Different orders.
    pub recorded: u64,
    /// Orders that came more than once.
    pub duplicates: u64,
}

/// The program to show: `given`, or the one that is built from these sources, with its gateway.
pub(crate) fn kaleem(place: &Place, given: Option<PathBuf>) -> Result<PathBuf, TaskError> {
    program(place, given, "dev")
}

/// The program to measure: `given`, or the one that is built from these sources as it ships, with its gateway.
pub(crate) fn kaleem_as_shipped(place: &Place, given: Option<PathBuf>) -> Result<PathBuf, TaskError> {
    program(place, given, "release")
}

fn program(place: &Place, given: Option<PathBuf>, profile: &str) -> Result<PathBuf, TaskError> {
    if let Some(given) = given {
        return std::path::absolute(&given).map_err(|source| TaskError::File { operation: "find", path: given, source });
    }
    say::step(&format!("building kaleem ({profile} profile) and its gateway (static)"));
    Program::new(place, place.cargo()).args(["build", "--quiet", "--profile", profile, "--package", "kaleem-cli"]).run()?;
    build_static_agent(place)?;
    Ok(place.target.join(if profile == "dev" { "debug" } else { profile }).join("kaleem"))
}

/// Builds the gateway as it ships: it carries the requests, so it is measured as it ships.
pub(crate) fn build_static_agent(place: &Place) -> Result<(), TaskError> {
    let cargo = Program::new(place, place.cargo()).args(["build", "--quiet", "--profile", STATIC_PROFILE]);
    cargo.args(["--package", "kaleem-agent", "--target", &static_target()]).run()
}

/// The gateway's program, as `kaleem` builds it.
pub(crate) fn static_agent(place: &Place) -> PathBuf {
    place.target.join(static_target()).join(STATIC_PROFILE).join("kaleem-agent")
}

impl<'a> Shop<'a> {
    /// A copy with the project name `name` on a free port; nothing runs yet.
    ///
    /// What an interrupted run left under that name is removed first.
    pub(crate) fn new(place: &'a Place, parts: &'a Parts, name: &str, kaleem: &'a Path) -> Result<Self, TaskError> {
        let directory = scratch()?;
        for file in ["compose.yaml", "kaleem.toml"] {
            copy(&place.root.join("examples/shop").join(file), &directory.path().join(file))?;
        }
        let shop = Self { place, parts, directory, kaleem, name: name.to_owned(), port: free_port()? };
        shop.clean()?;
        Ok(shop)
    }

    /// Its Compose project.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Adds a line to a section of its `kaleem.toml`, which is made when it is not there.
    pub(crate) fn add_setting(&self, section: &str, line: &str) -> Result<(), TaskError> {
        let path = self.directory().join("kaleem.toml");
        let text = std::fs::read_to_string(&path).map_err(|source| TaskError::File { operation: "read", path: path.clone(), source })?;
        let head = format!("[{section}]");
        let text = if text.lines().any(|found| found == head) {
            text.replacen(&head, &format!("{head}\n{line}"), 1)
        } else {
            format!("{text}\n{head}\n{line}\n")
        };
        write(&path, &text)
    }

    /// Writes another line in place of one of its `kaleem.toml`.
    pub(crate) fn replace_setting(&self, before: &str, after: &str) -> Result<(), TaskError> {
        let path = self.directory().join("kaleem.toml");
        let text = std::fs::read_to_string(&path).map_err(|source| TaskError::File { operation: "read", path: path.clone(), source })?;
        write(&path, &text.replacen(before, after, 1))
    }

    /// Where it publishes its port.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Where its files are.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Where kaleem keeps the journals of its plans.
    pub(crate) fn plans(&self) -> PathBuf {
        self.directory().join("state").join(&self.name).join("plans")
    }

    /// The real program on this project.
    pub(crate) fn kaleem(&self, arguments: &[&str]) -> Program {
        let program = Program::new(self.place, self.kaleem).args(arguments);
        self.surroundings(program.arg("--project-directory").arg(self.directory()))
            .env("KALEEM_STATE_DIR", self.directory().join("state"))
            .env("KALEEM_AGENT", static_agent(self.place))
    }

    /// Compose 2 on this project: the fastest that people have, so that a comparison is fair.
    pub(crate) fn compose(&self, arguments: &[&str]) -> Program {
        let program = Program::new(self.place, &self.parts.compose_oracle).arg("--project-directory").arg(self.directory());
        self.surroundings(program.arg("--file").arg(self.directory().join("compose.yaml")).args(arguments))
    }

    /// Docker's own command.
    pub(crate) fn docker(&self, arguments: &[&str]) -> Program {
        Program::new(self.place, "docker").args(arguments)
    }

    fn surroundings(&self, program: Program) -> Program {
        self.parts
            .export(program)
            .directory(self.directory())
            .env("COMPOSE_PROJECT_NAME", &self.name)
            .env("SHOP_PORT", self.port.to_string())
    }

    /// Who answers.
    pub(crate) fn version(&self) -> Result<String, TaskError> {
        Ok(load::get(self.address(), "/version")?.trim().to_owned())
    }

    /// What it recorded.
    pub(crate) fn orders(&self) -> Result<Orders, TaskError> {
        let text = load::get(self.address(), "/api/orders")?;
        let unreadable = || TaskError::Unexpected { what: format!("the shop's totals cannot be read: {text}") };
        let totals: serde_json::Value = serde_json::from_str(&text).map_err(|_| unreadable())?;
        let count = |name: &str| totals.get(name).and_then(serde_json::Value::as_u64).ok_or_else(unreadable);
        Ok(Orders { recorded: count("orders")?, duplicates: count("duplicates")? })
    }

    /// Leaves its directory, which holds its state.
    pub(crate) fn keep(self) {
        // The path is shown to the person who asked for it.
        drop(self.directory.keep());
    }

    /// Removes the containers, networks and volumes of this project, and the tags that kaleem gave its images.
    pub(crate) fn clean(&self) -> Result<(), TaskError> {
        let docker = || Program::new(self.place, "docker");
        // Every container goes before the networks: gateways, which carry the other label, are in them too.
        for (kind, list, remove) in [
            ("container", &["ps", "--all", "--quiet"][..], &["rm", "--force", "--volumes"][..]),
            ("network", &["network", "ls", "--quiet"], &["network", "rm"]),
            ("volume", &["volume", "ls", "--quiet"], &["volume", "rm"]),
        ] {
            for label in ["com.docker.compose.project", "kaleem.project"] {
                let filter = format!("label={label}={}", self.name);
                let found = docker().args(list).args(["--filter", &filter]).output()?;
                if !found.is_empty() {
                    say::line(&format!("removing {} {kind}s of {}", found.lines().count(), self.name));
                    docker().args(remove).args(found.lines()).quiet().run()?;
                }
            }
        }
        let pins = format!("reference=kaleem.invalid/{}/*", self.name);
        let tags = docker().args(["images", "--filter", &pins, "--format", "{{.Repository}}:{{.Tag}}"]).output()?;
        if !tags.is_empty() {
            docker().arg("rmi").args(tags.lines()).quiet().run()?;
        }
        Ok(())
    }
}

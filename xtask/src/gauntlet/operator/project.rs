//! The operator's project: its files, its ports, and the commands that a person types in its directory.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kaleem_core::clock::{Clock, SystemClock};
use tempfile::TempDir;

use crate::demo::static_agent;
use crate::fail::TaskError;
use crate::gauntlet::operator::images::Images;
use crate::gauntlet::operator::traffic::{Door, Doors};
use crate::gauntlet::remains::remove_all;
use crate::load::Route;
use crate::place::{Place, create_directory, free_port, scratch, write};
use crate::programs::Program;
use crate::setup::Parts;

const COMPOSE: &str = include_str!("files/compose.yaml");
const OVERRIDE: &str = "compose.override.yaml";
/// Containers, networks and volumes that this project makes beside Compose and kaleem carry this label.
const LABEL: &str = "kaleem-operator";
/// Stores, of which no scene changes anything.
pub(super) const STORES: [&str; 3] = ["mongo", "redis", "rabbitmq"];

/// What a command did.
#[derive(Clone, Debug)]
pub(super) struct Said {
    /// As a person types it.
    pub command: String,
    /// `None` when a signal ended it.
    pub code: Option<i32>,
    /// All that it printed.
    pub text: String,
    /// From its start to its end.
    pub took: Duration,
}

/// A container of the project.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Container {
    /// Of which service; gateways have none.
    pub service: Option<String>,
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Whether it runs.
    pub runs: bool,
    /// When it was started last.
    pub started: String,
}

#[derive(Clone, Copy)]
struct Ports {
    plain: u16,
    zone: u16,
    tls: u16,
    api: u16,
    spare: u16,
}

/// What the operator's shell has set.
#[derive(Clone)]
struct Shell {
    api: String,
    workers: String,
    state: PathBuf,
}

/// The project. Everything carries its name, and is removed by it.
pub(super) struct Project<'a> {
    place: &'a Place,
    parts: &'a Parts,
    kaleem: &'a Path,
    images: &'a Images,
    directory: TempDir,
    name: String,
    ports: Ports,
    log: PathBuf,
    tls: Route,
    shell: RefCell<Shell>,
}

fn wrong(what: String) -> TaskError {
    TaskError::Unexpected { what }
}

impl<'a> Project<'a> {
    /// Files and free ports; nothing runs yet. What an interrupted run left under that name is removed first.
    pub(super) fn new(place: &'a Place, parts: &'a Parts, kaleem: &'a Path, images: &'a Images, name: &str) -> Result<Self, TaskError> {
        let directory = scratch()?;
        let ports = Ports { plain: free_port()?, zone: free_port()?, tls: free_port()?, api: free_port()?, spare: free_port()? };
        write_for_all(&directory.path().join("compose.yaml"), COMPOSE)?;
        let zone = if images.newer_nginx.is_some() { include_str!("files/zone.conf") } else { include_str!("files/variable.conf") };
        for (kind, text) in [
            ("plain", include_str!("files/plain.conf")),
            ("zone", zone),
            ("tls", include_str!("files/tls.conf")),
            ("frontend", include_str!("files/frontend.conf")),
        ] {
            let of = directory.path().join("nginx").join(kind);
            create_directory(&of)?;
            write_for_all(&of.join("nginx.conf"), text)?;
        }
        let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).map_err(|error| wrong(error.to_string()))?;
        let tls = directory.path().join("nginx/tls");
        write_for_all(&tls.join("certificate.pem"), &own.cert.pem())?;
        write_for_all(&tls.join("key.pem"), &own.signing_key.serialize_pem())?;
        let log = place.tools.join(format!("{name}.log"));
        write(&log, "")?;
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, ports.tls));
        let project = Self {
            place,
            parts,
            kaleem,
            images,
            shell: RefCell::new(Shell { api: images.api("o1"), workers: images.api("o1"), state: directory.path().join("state") }),
            directory,
            name: name.to_owned(),
            ports,
            log,
            tls: Route::tls(at, own.cert.der().clone()).map_err(wrong)?,
        };
        project.clean()?;
        Ok(project)
    }

    /// Where everything that commands print is kept.
    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    /// The API's version that the operator's variable names from now on.
    pub(super) fn set_api(&self, version: &str) {
        self.shell.borrow_mut().api = self.images.api(version);
    }

    /// The same for the workers.
    pub(super) fn set_workers(&self, version: &str) {
        self.shell.borrow_mut().workers = self.images.api(version);
    }

    /// kaleem's state from now on, by a name; `state` is the operator's own.
    pub(super) fn set_state(&self, name: &str) {
        self.shell.borrow_mut().state = self.directory.path().join(name);
    }

    /// A directory beside the files.
    pub(super) fn beside(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes what differs from `compose.yaml`; nothing removes it.
    pub(super) fn change(&self, text: Option<&str>) -> Result<(), TaskError> {
        self.write_or_remove(OVERRIDE, text)
    }

    /// Writes `kaleem.toml`; nothing removes it.
    pub(super) fn write_settings(&self, text: Option<&str>) -> Result<(), TaskError> {
        self.write_or_remove("kaleem.toml", text)
    }

    fn write_or_remove(&self, file: &str, text: Option<&str>) -> Result<(), TaskError> {
        let path = self.directory.path().join(file);
        match text {
            Some(text) => write_for_all(&path, text),
            None => match std::fs::remove_file(&path) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(TaskError::File { operation: "remove", path, source }),
                _ => Ok(()),
            },
        }
    }

    /// A port of the host that the files do not publish.
    pub(super) fn spare(&self) -> u16 {
        self.ports.spare
    }

    fn heard(&self, command: String, program: Program) -> Result<Said, TaskError> {
        let own = self.directory.path().join("said");
        write(&own, "")?;
        let begun = SystemClock.monotonic();
        let status = program.logged(&own)?;
        let took = SystemClock.monotonic().saturating_sub(begun);
        let text = std::fs::read(&own).map_err(|source| TaskError::File { operation: "read", path: own.clone(), source })?;
        let text = String::from_utf8_lossy(&text).into_owned();
        // The first line is the command with its path.
        let text = text.split_once('\n').map(|(_, rest)| rest.to_owned()).unwrap_or_default();
        let said = Said { command, code: status.code(), text, took };
        let kept = format!("$ {}\n{}exit code {:?} after {:.1} s\n\n", said.command, said.text, said.code, took.as_secs_f64());
        let append = |file: &mut std::fs::File| std::io::Write::write_all(file, kept.as_bytes());
        let opened = std::fs::OpenOptions::new().append(true).open(&self.log);
        let kept = opened.and_then(|mut file| append(&mut file));
        kept.map_err(|source| TaskError::File { operation: "write", path: self.log.clone(), source })?;
        Ok(said)
    }

    /// Runs `kaleem` in the project's directory.
    pub(super) fn kaleem(&self, arguments: &[&str]) -> Result<Said, TaskError> {
        let program = Program::new(self.place, self.kaleem).args(arguments);
        let state = self.shell.borrow().state.clone();
        let program = self.surroundings(program).env("KALEEM_STATE_DIR", state).env("KALEEM_AGENT", static_agent(self.place));
        self.heard(format!("kaleem {}", arguments.join(" ")), program)
    }

    /// Runs `docker compose` there.
    pub(super) fn compose(&self, arguments: &[&str]) -> Result<Said, TaskError> {
        let program = self.surroundings(Program::new(self.place, &self.parts.compose_oracle).args(arguments));
        self.heard(format!("docker compose {}", arguments.join(" ")), program)
    }

    fn docker(&self, arguments: &[&str]) -> Program {
        Program::new(self.place, "docker").args(arguments)
    }

    fn surroundings(&self, program: Program) -> Program {
        let shell = self.shell.borrow();
        let zone = self.images.newer_nginx.as_ref().unwrap_or(&self.images.nginx);
        program
            .directory(self.directory.path())
            .env("COMPOSE_PROJECT_NAME", &self.name)
            .env("OPERATOR_API", &shell.api)
            .env("OPERATOR_WORKERS", &shell.workers)
            .env("OPERATOR_NGINX", &self.images.nginx)
            .env("OPERATOR_NGINX_ZONE", zone)
            .env("OPERATOR_MONGO", &self.images.mongo)
            .env("OPERATOR_REDIS", &self.images.redis)
            .env("OPERATOR_RABBITMQ", &self.images.rabbitmq)
            .env("OPERATOR_PLAIN_PORT", self.ports.plain.to_string())
            .env("OPERATOR_ZONE_PORT", self.ports.zone.to_string())
            .env("OPERATOR_TLS_PORT", self.ports.tls.to_string())
            .env("OPERATOR_API_PORT", self.ports.api.to_string())
            .env("NO_COLOR", "1")
    }

    /// Every container of the project, gateways too.
    pub(super) fn containers(&self) -> Result<BTreeSet<Container>, TaskError> {
        let mut ids = BTreeSet::new();
        for label in ["com.docker.compose.project", "kaleem.project"] {
            let filter = format!("label={label}={}", self.name);
            let found = self.docker(&["ps", "--all", "--quiet", "--no-trunc", "--filter", &filter]).output()?;
            ids.extend(found.lines().map(str::to_owned));
        }
        let format = "{{.Id}}\t{{.Name}}\t{{.State.Running}}\t{{.State.StartedAt}}\t{{with index .Config.Labels \"com.docker.compose.service\"}}{{.}}{{end}}";
        // One that is removed meanwhile makes the client fail and print the others.
        let text = if ids.is_empty() { String::new() } else { self.docker(&["inspect", "--format", format]).args(&ids).printed()? };
        let container = |line: &str| {
            let mut cells = line.split('\t').map(str::to_owned);
            let (id, name, runs, started, service) = (cells.next()?, cells.next()?, cells.next()?, cells.next()?, cells.next()?);
            let name = name.trim_start_matches('/').to_owned();
            Some(Container { service: (!service.is_empty()).then_some(service), id, name, runs: runs == "true", started })
        };
        Ok(text.lines().filter_map(container).collect())
    }

    /// What `docker inspect --format` prints of the running container of a service.
    pub(super) fn inspect(&self, service: &str, format: &str) -> Result<String, TaskError> {
        let running = self.containers()?.into_iter().find(|container| container.runs && container.service.as_deref() == Some(service));
        let running = running.ok_or_else(|| wrong(format!("no container of {service} runs")))?;
        self.docker(&["inspect", "--format", format, &running.id]).output()
    }

    /// Starts a container of nobody's project on a network of this one; the network that a process in it has.
    pub(super) fn neighbour(&self, network: &str) -> Result<PathBuf, TaskError> {
        let (network, name) = (format!("{}_{network}", self.name), format!("{}-neighbour-{network}", self.name));
        self.docker(&["rm", "--force", &name]).quiet_all().status()?;
        let label = format!("{LABEL}={}", self.name);
        let image = self.parts.image("shop:v1");
        self.docker(&["run", "--detach", "--name", &name, "--label", &label, "--network", &network, &image]).quiet().run()?;
        let pid = self.docker(&["inspect", "--format", "{{.State.Pid}}", &name]).output()?;
        Ok(PathBuf::from(format!("/proc/{pid}/ns/net")))
    }

    /// Removes such a container.
    pub(super) fn leave(&self, network: &str) -> Result<(), TaskError> {
        self.docker(&["rm", "--force", "--volumes", &format!("{}-neighbour-{network}", self.name)]).quiet_all().status().map(drop)
    }

    /// Restarts containers, as a person does who found them lost.
    pub(super) fn restart(&self, containers: &BTreeSet<&str>) -> Result<(), TaskError> {
        self.docker(&["restart"]).args(containers).quiet().run()
    }

    /// Where requests go in. `neighbour` is the network of a container on the project's own.
    pub(super) fn doors(&self, neighbour: PathBuf) -> Doors {
        let at = |port| Route::Plain(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let routes = BTreeMap::from([
            (Door::Plain, at(self.ports.plain)),
            (Door::Zone, at(self.ports.zone)),
            (Door::Tls, self.tls.clone()),
            (Door::Port, at(self.ports.api)),
            (Door::Name, Route::Name("api".to_owned(), 3000)),
        ]);
        Doors { routes, neighbour }
    }

    /// Removes the containers, networks and volumes of this project, and the tags that kaleem gave its images.
    pub(super) fn clean(&self) -> Result<(), TaskError> {
        let labels = [LABEL, "com.docker.compose.project", "kaleem.project"];
        remove_all(|arguments| self.docker(arguments), &labels, &self.name, &self.log)?;
        for state in ["state", "state-of-another", "state-copy"] {
            remove_directory(&self.beside(state))?;
        }
        Ok(())
    }
}

/// Removes a directory with all that is in it; one that is not there is what is wanted.
pub(super) fn remove_directory(path: &Path) -> Result<(), TaskError> {
    match std::fs::remove_dir_all(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(TaskError::File { operation: "remove", path: path.to_path_buf(), source })
        }
        _ => Ok(()),
    }
}

/// Writes a file that containers with another user may read.
fn write_for_all(path: &Path, text: &str) -> Result<(), TaskError> {
    use std::os::unix::fs::PermissionsExt;
    write(path, text)?;
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(path, open).map_err(|source| TaskError::File { operation: "open", path: path.to_path_buf(), source })
}

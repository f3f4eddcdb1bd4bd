//! One project on one engine: its files, its ports, and the commands that act on it.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kaleem_core::journal::{self, Event};
use kaleem_core::plan::Step;
use kaleem_core::remedy::chain;
use tempfile::TempDir;

use crate::demo::static_agent;
use crate::fail::TaskError;
use crate::gauntlet::load::Doors;
use crate::gauntlet::remains::remove_all;
use crate::load;
use crate::place::{Place, create_directory, free_port, scratch, write};
use crate::programs::{Program, wait_until};
use crate::setup::Parts;

const COMPOSE: &str = include_str!("files/compose.yaml");
const SETTINGS: &str = include_str!("files/kaleem.toml");
const NGINX: &str = include_str!("files/nginx.conf");
/// How the settings say how long a new version is watched.
const WATCH: &str = "watch = \"2s\"";
/// How long a project may take until both doors answer.
const SETTLES: Duration = Duration::from_secs(90);

/// What is to run: the same image may behave in many ways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    /// What it says it is.
    pub name: String,
    /// What is wrong with it; empty for nothing.
    pub fault: &'static str,
}

/// How the service is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// It keeps its published port and its `container_name`: the compose file is as it was.
    Unchanged,
    /// It runs three times, for which Compose takes neither a name nor a published port: only nginx reaches it.
    Replicas,
    /// It gave both up, so that two of it can run: only nginx reaches it.
    BehindNginx,
}

/// A project. Everything carries its name, and is removed by it.
pub(super) struct Field<'a> {
    place: &'a Place,
    parts: &'a Parts,
    kaleem: &'a Path,
    directory: TempDir,
    name: String,
    layout: Layout,
    port: u16,
    edge: u16,
    /// `None` is the machine's engine.
    engine: Option<String>,
    log: PathBuf,
    version: RefCell<Version>,
}

impl<'a> Field<'a> {
    /// Files and free ports; nothing runs yet. What an interrupted run left under that name is removed first.
    pub(super) fn new(
        place: &'a Place,
        parts: &'a Parts,
        kaleem: &'a Path,
        name: &str,
        layout: Layout,
        engine: Option<String>,
    ) -> Result<Self, TaskError> {
        let directory = scratch()?;
        let path = directory.path();
        let unwanted = ["container_name:", "ports:", "- \"127.0.0.1:${SHOP_PORT}:3000\""];
        let compose: String = match layout {
            Layout::Unchanged => COMPOSE.to_owned(),
            Layout::Replicas | Layout::BehindNginx => {
                let (before, api) = COMPOSE.split_once("  api:\n").unwrap_or((COMPOSE, ""));
                let api = api.lines().filter(|line| !unwanted.iter().any(|unwanted| line.trim_start().starts_with(unwanted)));
                let replicas = if layout == Layout::Replicas { "    deploy: {replicas: 3}\n" } else { "" };
                format!("{before}  api:\n{replicas}{}\n", api.collect::<Vec<_>>().join("\n"))
            }
        };
        write(&path.join("compose.yaml"), &compose)?;
        write(&path.join("kaleem.toml"), SETTINGS)?;
        create_directory(&path.join("nginx"))?;
        let log = place.tools.join(format!("{name}.log"));
        write(&log, "")?;
        let field = Self {
            place,
            parts,
            kaleem,
            name: name.to_owned(),
            layout,
            port: free_port()?,
            edge: free_port()?,
            engine,
            log,
            version: RefCell::new(Version { name: "first".to_owned(), fault: "" }),
            directory,
        };
        field.write_nginx(&field.place_of("nginx.conf"), NGINX)?;
        field.send_nginx_to("api")?;
        field.clean()?;
        Ok(field)
    }

    fn place_of(&self, file: &str) -> PathBuf {
        self.directory.path().join("nginx").join(file)
    }

    fn write_nginx(&self, path: &Path, text: &str) -> Result<(), TaskError> {
        use std::os::unix::fs::PermissionsExt;
        write(path, text)?;
        let open = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(path, open).map_err(|source| TaskError::File { operation: "open", path: path.to_path_buf(), source })
    }

    /// Tells nginx where the service is, from its next start or reload on.
    pub(super) fn send_nginx_to(&self, host: &str) -> Result<(), TaskError> {
        self.write_nginx(&self.place_of("upstream.conf"), &format!("map $host $api {{ default http://{host}:3000; }}\n"))
    }

    /// Where requests go in.
    pub(super) fn doors(&self) -> Doors {
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Doors { direct: (self.layout == Layout::Unchanged).then(|| at(self.port)), edge: at(self.edge) }
    }

    /// Says whether two of the service may run at the same time, from the next deploy on.
    pub(super) fn set_singleton(&self, singleton: bool) -> Result<(), TaskError> {
        let said = if singleton { "[services.api]\nsingleton = true\n" } else { "[services.api]\n" };
        self.set("[services.api]\n", said)
    }

    /// Says how long a new version is watched, from the next deploy on; `None` for the usual time.
    pub(super) fn set_watch(&self, seconds: Option<u64>) -> Result<(), TaskError> {
        self.set(WATCH, &seconds.map_or_else(|| WATCH.to_owned(), |seconds| format!("watch = \"{seconds}s\"")))
    }

    /// The settings, with one thing said otherwise.
    fn set(&self, usual: &str, said: &str) -> Result<(), TaskError> {
        write(&self.directory.path().join("kaleem.toml"), &SETTINGS.replace(usual, said))
    }

    /// What `kaleem status` says goes through the gateway, which must be something while the load flows.
    pub(super) fn rates(&self) -> Result<String, TaskError> {
        let text = self.kaleem(&["status", "--json"]).output()?;
        let objects = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let traffic = |object: &serde_json::Value| object.get("type").is_some_and(|kind| kind == "traffic");
        let number = |object: &serde_json::Value, key: &str| object.get(key).and_then(serde_json::Value::as_f64);
        let found = objects.filter(traffic).find_map(|object| {
            let per_second = number(&object, "requests_per_second").filter(|number| *number > 0.0)?;
            let (p50, p99) = (number(&object, "p50_ms")?, number(&object, "p99_ms")?);
            Some(format!("{per_second:.0} requests a second, p50 {p50:.1} ms, p99 {p99:.1} ms"))
        });
        found.ok_or_else(|| TaskError::Unexpected { what: format!("kaleem status tells no rates under load: {text}") })
    }

    /// Time from the verdict of a watch until the gateway sent to the old instances again, as the journal of the last plan has it.
    pub(super) fn switched_back(&self) -> Result<Duration, TaskError> {
        let wrong = |what: String| TaskError::Unexpected { what };
        let plans = self.state().join(&self.name).join("plans");
        let listed = std::fs::read_dir(&plans).map_err(|source| TaskError::File { operation: "list", path: plans.clone(), source })?;
        let journals = listed.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "jsonl"));
        let path = journals.max().ok_or_else(|| wrong(format!("there is no journal in {}", plans.display())))?;
        let (records, _) = journal::file::read(&path).map_err(|error| wrong(chain(&error).join(": ")))?;
        let steps = records.iter().find_map(|record| match &record.event {
            Event::Planned { plan, .. } => Some(&plan.steps),
            _ => None,
        });
        let step = |index: usize| steps.and_then(|steps| steps.get(index));
        let verdict = records.iter().find(|record| match &record.event {
            Event::Failed { step: index, .. } => matches!(step(*index), Some(Step::Watch { .. })),
            _ => false,
        });
        let back = records.iter().find(|record| match &record.event {
            Event::Undone { step: index } => matches!(step(*index), Some(Step::Steer { .. })),
            _ => false,
        });
        match (verdict, back) {
            (Some(verdict), Some(back)) => {
                Duration::try_from(back.at.duration_since(verdict.at)).map_err(|_| wrong("the clock went back".to_owned()))
            }
            (_, _) => Err(wrong(format!("no watch failed in {}, or nothing was switched back", path.display()))),
        }
    }

    /// Its Compose project.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What it is to run from now on.
    pub(super) fn set_version(&self, version: &Version) {
        *self.version.borrow_mut() = version.clone();
    }

    /// Where commands write what they say.
    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    /// kaleem's state.
    pub(super) fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// The gateway's program.
    pub(super) fn agent(&self) -> PathBuf {
        static_agent(self.place)
    }

    /// The real program on this project.
    pub(super) fn kaleem(&self, arguments: &[&str]) -> Program {
        let program = Program::new(self.place, self.kaleem).args(arguments).arg("--project-directory").arg(self.directory.path());
        self.surroundings(program).env("KALEEM_STATE_DIR", self.state()).env("KALEEM_AGENT", self.agent())
    }

    /// Compose on this project.
    pub(super) fn compose(&self, arguments: &[&str]) -> Program {
        let program = Program::new(self.place, &self.parts.compose_oracle).arg("--project-directory").arg(self.directory.path());
        self.surroundings(program.arg("--file").arg(self.directory.path().join("compose.yaml")).args(arguments))
    }

    /// The engine's own client.
    pub(super) fn docker(&self, arguments: &[&str]) -> Program {
        let docker = Program::new(self.place, "docker").args(arguments);
        match &self.engine {
            Some(engine) => docker.env("DOCKER_HOST", engine),
            None => docker,
        }
    }

    fn surroundings(&self, program: Program) -> Program {
        let version = self.version.borrow();
        let program = self
            .parts
            .export(program)
            .directory(self.directory.path())
            .env("COMPOSE_PROJECT_NAME", &self.name)
            .env("SHOP_PORT", self.port.to_string())
            .env("GAUNTLET_EDGE_PORT", self.edge.to_string())
            .env("GAUNTLET_NGINX_IMAGE", self.parts.image("nginx:1"))
            .env("GAUNTLET_VERSION", &version.name)
            .env("GAUNTLET_FAULT", version.fault);
        match &self.engine {
            Some(engine) => program.env("DOCKER_HOST", engine),
            None => program,
        }
    }

    /// Process ids of the first processes of running containers that carry all of `labels`, by container name.
    pub(super) fn processes(&self, labels: &[&str]) -> Result<Vec<(String, u32)>, TaskError> {
        let mut list = self.docker(&["ps", "--quiet", "--no-trunc"]);
        for label in labels {
            list = list.arg("--filter").arg(format!("label={label}"));
        }
        let ids = list.output()?;
        let mut found = Vec::new();
        for id in ids.lines() {
            let text = self.docker(&["inspect", "--format", "{{.Name}} {{.State.Pid}}", id]).output()?;
            if let Some((name, pid)) = text.trim_start_matches('/').split_once(' ')
                && let Ok(pid) = pid.trim().parse()
            {
                found.push((name.to_owned(), pid));
            }
        }
        Ok(found)
    }

    /// Whether every door answers.
    pub(super) fn answers(&self) -> bool {
        let doors = self.doors();
        doors.direct.iter().chain([&doors.edge]).all(|door| load::get(*door, "/version").is_ok_and(|text| text.len() < 40))
    }

    /// Waits until every door answers.
    pub(super) fn settle(&self) -> Result<(), TaskError> {
        if wait_until(SETTLES, || self.answers()) {
            return Ok(());
        }
        Err(TaskError::Silent { what: format!("the project {}", self.name), seconds: SETTLES.as_secs(), log: self.log.clone() })
    }

    /// Orders whose id begins with `prefix`, and how often each was delivered.
    pub(super) fn orders(&self, prefix: &str) -> Result<Vec<(String, u64)>, TaskError> {
        let text = load::get(self.doors().edge, &format!("/api/orders?prefix={prefix}"))?;
        let line = |line: &str| line.split_once(' ').and_then(|(id, count)| Some((id.to_owned(), count.parse().ok()?)));
        text.lines()
            .map(|text| line(text).ok_or_else(|| TaskError::Unexpected { what: format!("the orders cannot be read: {text}") }))
            .collect()
    }

    /// Removes the containers, networks and volumes of this project, and the tags that kaleem gave its images.
    pub(super) fn clean(&self) -> Result<(), TaskError> {
        remove_all(|arguments| self.docker(arguments), &["com.docker.compose.project", "kaleem.project"], &self.name, &self.log)
    }
}

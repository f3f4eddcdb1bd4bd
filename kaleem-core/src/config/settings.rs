//! `kaleem.toml`: what a compose file cannot say. Every key is optional; a project without the file has the defaults.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::compose::{error::ConfigError, files};
use crate::config::{LoadOptions, Origin, Project};
use crate::definition::MountSource;
use crate::health::Need;
use crate::names::ServiceName;

pub mod backup;
pub mod front_door;
mod gateway;
pub mod hooks;

pub use hooks::HookSettings;
pub mod probes;

pub use probes::{ProbeKind, ProbeOptions};

use backup::{BackupSettings, MigrationName, ServiceBackup};
use front_door::FrontDoorSettings;

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How many releases are kept to go back to; 5 where nothing is said.
    pub keep: Option<u32>,
    /// Programs that run on the host before and after a deploy.
    pub hooks: HookSettings,
    /// By service.
    #[schemars(with = "BTreeMap<String, ServiceSettings>")]
    pub services: BTreeMap<ServiceName, ServiceSettings>,
    /// Places where clients ask, by a name of yours: what works there before a plan must work after it.
    #[serde(rename = "front-door")]
    pub front_door: BTreeMap<String, FrontDoorSettings>,
    /// Backups.
    pub backup: BackupSettings,
    /// Probes, by service (or a group of another name) and name.
    #[schemars(with = "BTreeMap<String, BTreeMap<String, ProbeOptions>>")]
    pub probes: BTreeMap<ServiceName, BTreeMap<String, ProbeOptions>>,
    /// Where it was read from; `None` where there is no file.
    #[serde(skip)]
    pub file: Option<PathBuf>,
}

impl Settings {
    /// Where a key stands in the file, or the last table of its path that does; `None` where the file cannot be read any more.
    pub fn place(&self, path: &[&str]) -> Option<Origin> {
        let file = self.file.clone()?;
        let text = files::read(&file).ok()?;
        let (line, column) = line_and_column(&text, place_of(&text, path));
        Some(Origin { file, line, column })
    }
}

/// What is said of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceSettings {
    /// How it is replaced; where nothing is said, kaleem decides and says why.
    pub strategy: Option<StrategyName>,
    /// Whether two of it must never run at the same time.
    pub singleton: Option<bool>,
    /// When a new instance counts as healthy.
    pub health: Option<HealthSettings>,
    /// What must be well before it is replaced: services, or probes as `SERVICE/PROBE`; where nothing is said, the databases and
    /// brokers that it waits for by `depends_on` with `service_healthy`.
    pub needs: Option<Vec<String>>,
    /// What is spoken on its ports; where nothing is said, HTTP on the usual ports and where `health.http` asks, else TCP.
    pub protocol: Option<ProtocolName>,
    /// Time a switch is watched with the old instances still warm, such as `30s`; `5s` where nothing is said, `0s` watches nothing.
    pub watch: Option<DurationText>,
    /// Share of requests in percent above which the watch takes the plan back; 5 where nothing is said, 0 allows none.
    #[serde(rename = "max-error-percent")]
    pub max_error_percent: Option<u32>,
    /// Time within which 99 of 100 answers must begin during the watch, such as `1s`; not looked at where nothing is said.
    #[serde(rename = "max-latency")]
    pub max_latency: Option<DurationText>,
    /// Requests that the watch must have seen before both limits count; 10 where nothing is said.
    #[serde(rename = "least-requests")]
    pub least_requests: Option<u64>,
    /// For `rolling`: how many replicas are replaced at a time; `parallelism` of the compose file, or 1, where nothing is said.
    pub batch: Option<u32>,
    /// For `rolling`: how many may run beyond `replicas`; `batch` where nothing is said, and 0 where `max-unavailable` is set or the compose
    /// file says `stop-first`.
    #[serde(rename = "max-surge")]
    pub max_surge: Option<u32>,
    /// For `rolling`: how many of `replicas` may be away; 0 where nothing is said, and `batch` where nothing may run beyond `replicas`.
    #[serde(rename = "max-unavailable")]
    pub max_unavailable: Option<u32>,
    /// Longest time that a request waits at the gateway while no instance may have it; `10s` for `recreate` and `30s` else, where nothing
    /// is said. `0s` for `recreate` goes without a gateway.
    pub hold: Option<DurationText>,
    /// Time that requests have to end at an old instance; `30s` where nothing is said.
    pub drain: Option<DurationText>,
    /// Whether a backup set is made before a deploy that changes it; as `backup.when` says where nothing is said here.
    pub backup: Option<ServiceBackup>,
    /// For a service that runs to its end: what going back past it takes; `compatible` where nothing is said.
    pub migration: Option<MigrationName>,
    /// For a `reversible` migration: program and arguments that take it back, in a container of its image.
    pub down: Option<Vec<String>>,
    /// Time that running requests have to end when the service's ports go to its gateway, once; `100ms` where nothing is said. Others are
    /// refused meanwhile.
    #[serde(rename = "hand-over")]
    pub hand_over: Option<DurationText>,
    /// PROXY protocol, version 2, on the ports of its gateway: `in` reads it from clients, `out` tells it to the service (with
    /// `protocol = "tcp"` alone), `both` does both.
    #[serde(rename = "proxy-protocol")]
    pub proxy_protocol: Option<ProxyProtocolName>,
    /// Whether a gateway stands before it; where nothing is said, one does unless the service is a reverse proxy that publishes ports to
    /// other hosts, which would see the gateway's address in place of its clients'. `false` replaces it with a gap.
    pub gateway: Option<bool>,
    /// Networks of proxies in front, such as `10.0.0.0/8`: the `X-Forwarded-*`, `X-Real-IP` and `Forwarded` of others are left out. Where
    /// nothing is said, those of every client are passed on.
    #[serde(rename = "trusted-proxies")]
    pub trusted_proxies: Option<Vec<String>>,
    /// Whether its gateway writes one JSON object for each request to the output of its container; `false` where nothing is said.
    #[serde(rename = "access-log")]
    pub access_log: Option<bool>,
    /// Whether the web server in it may be told to read its configuration again when it had kept the address of a service; `true` where
    /// nothing is said.
    pub reload: Option<bool>,
}

/// What is spoken on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProtocolName {
    /// HTTP/1.1: requests are routed one by one.
    Http,
    /// Anything, TLS included: connections are routed.
    Tcp,
}

/// Where the PROXY protocol is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyProtocolName {
    /// By clients: a proxy in front of the gateway.
    In,
    /// To the service, which must understand it.
    Out,
    /// By both.
    Both,
}

/// Names of strategies in `kaleem.toml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StrategyName {
    /// Stop the old, then start the new.
    Recreate,
    /// Start the new, wait until it is healthy, then stop the old.
    Overlap,
    /// Behind the gateway: start the new, wait, switch, drain, stop.
    BlueGreen,
    /// Behind the gateway, some replicas at a time.
    Rolling,
}

/// When a new instance counts as healthy. At most one of `http`, `tcp` and `command`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HealthSettings {
    /// Path that must answer with a status below 400, such as `/api/health`.
    pub http: Option<String>,
    /// Port for `http`; where nothing is said, the first one that the service exposes.
    pub port: Option<u16>,
    /// Status that the answer must have.
    pub status: Option<u16>,
    /// Text that the answer must hold.
    pub contains: Option<String>,
    /// Port that must accept connections.
    pub tcp: Option<u16>,
    /// Program and arguments that must exit with 0 in the container.
    pub command: Option<Vec<String>>,
    /// `true`: nothing is checked but that it runs. The health check of the container counts no more, as where a worker inherits that of an API.
    pub none: Option<bool>,
    /// Passes in a row; 2 where nothing is said (1 for the container's own check).
    pub passes: Option<u32>,
    /// Time between two questions, such as `500ms`; 250 ms where nothing is said.
    pub interval: Option<DurationText>,
    /// Time one answer may take; 5 s where nothing is said.
    pub timeout: Option<DurationText>,
    /// Time from the start in which it must become healthy; 120 s where nothing is said.
    pub deadline: Option<DurationText>,
}

impl HealthSettings {
    /// Whether it says what is checked, so that the container's own health check does not count.
    pub fn decides(&self) -> bool {
        self.http.is_some() || self.tcp.is_some() || self.command.is_some() || self.none == Some(true)
    }
}

impl Settings {
    /// Whether `kaleem.toml` says how a service is checked, so that the container's own health check does not count.
    pub fn decides_health(&self, service: &ServiceName) -> bool {
        self.services.get(service).and_then(|settings| settings.health.as_ref()).is_some_and(HealthSettings::decides)
    }
}

/// The JSON schema of `kaleem.toml`, for editors.
pub fn settings_schema() -> serde_json::Value {
    schemars::schema_for!(Settings).to_value()
}

/// Reads the `kaleem.toml` of `project`; without one, the defaults.
///
/// # Errors
///
/// [`ConfigError::Settings`] with file, line and column, and those of reading a file.
pub(super) fn load(options: &LoadOptions, project: &Project) -> Result<Settings, ConfigError> {
    let file = match &options.settings_file {
        Some(file) => options.directory.join(file),
        None => project.directory.join("kaleem.toml"),
    };
    if options.settings_file.is_none() && !file.exists() {
        return Ok(Settings::default());
    }
    let text = files::read(&file)?;
    let refuse = |at: usize, reason: String, remedy: String| {
        let (line, column) = line_and_column(&text, at);
        ConfigError::Settings { origin: Origin { file: file.clone(), line, column }, reason, remedy }
    };
    let mut settings: Settings = toml::from_str(&text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        // The parser's message may span lines; the first says what is wrong.
        let reason = error.message().lines().collect::<Vec<_>>().join(", ");
        refuse(at, reason, "correct the file at that place; `kaleem.toml` is described in its JSON schema".to_owned())
    })?;
    for (name, door) in &settings.front_door {
        if let Some(problem) = door.problem() {
            let at = place_of(&text, &["front-door", name, "url"]);
            let remedy = "write it as a client has it, such as `https://shop.example/api/health`".to_owned();
            return Err(refuse(at, format!("`{}` is not an address that can be checked: {problem}", door.url), remedy));
        }
    }
    for (name, service) in &settings.services {
        let at = place_of(&text, &["services", name.as_str()]);
        if !project.services.contains_key(name) {
            let known = project.services.keys().map(ServiceName::as_str);
            let remedy = match super::compose::nearest(name.as_str(), known) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => "name a service of the compose file whose profile is active".to_owned(),
            };
            return Err(refuse(at, format!("the compose file has no service `{name}`"), remedy));
        }
        if let Some((key, reason, remedy)) = gateway::problem(name, service) {
            return Err(refuse(place_of(&text, &["services", name.as_str(), key]), reason, remedy));
        }
        for need in service.needs.iter().flatten() {
            let at = place_of(&text, &["services", name.as_str(), "needs"]);
            if let Err((reason, remedy)) = check_need(need, name, &settings, project) {
                return Err(refuse(at, reason, remedy));
            }
        }
        if let Some(health) = &service.health {
            let asked = [health.http.is_some(), health.tcp.is_some(), health.command.is_some(), health.none == Some(true)];
            if asked.into_iter().filter(|asked| *asked).count() > 1 {
                let reason = format!("the health of `{name}` is asked in more than one way");
                return Err(refuse(at, reason, "keep one of `http`, `tcp`, `command` and `none`".to_owned()));
            }
            if health.http.as_ref().is_some_and(|path| !path.starts_with('/')) {
                let reason = format!("`http` of `{name}` is not a path");
                return Err(refuse(at, reason, "write it as `/api/health`".to_owned()));
            }
            if health.passes == Some(0) {
                return Err(refuse(at, format!("`passes` of `{name}` is 0"), "write 1 or more".to_owned()));
            }
        }
        let down = service.down.as_ref().is_some_and(|down| !down.is_empty());
        if down != (service.migration == Some(MigrationName::Reversible)) {
            let reason = format!("`migration = \"reversible\"` of `{name}` and its `down` go together");
            return Err(refuse(at, reason, "write both, or neither: `down` is the command that takes the migration back".to_owned()));
        }
    }
    if let Some((key, reason)) = settings.hooks.problem() {
        let remedy = "write a program and its arguments, such as `before-deploy = [\"./test.sh\", \"--quick\"]`".to_owned();
        return Err(refuse(text.find(key).unwrap_or(0), reason, remedy));
    }
    settings.file = Some(file.clone());
    probes(&mut settings, options, project, &text, &refuse, &file)?;
    if settings.keep == Some(0) {
        let at = text.find("keep").unwrap_or(0);
        return Err(refuse(at, "`keep` is 0, so there would be nothing to go back to".to_owned(), "write 1 or more".to_owned()));
    }
    if let Err((keys, reason, remedy)) = settings.backup.check(project) {
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        return Err(refuse(place_of(&text, &keys), reason, remedy));
    }
    Ok(settings)
}

/// Checks the probes, and reads what they name.
fn probes(
    settings: &mut Settings,
    options: &LoadOptions,
    project: &Project,
    text: &str,
    refuse: &dyn Fn(usize, String, String) -> ConfigError,
    file: &Path,
) -> Result<(), ConfigError> {
    if settings.probes.is_empty() {
        return Ok(());
    }
    // The variables of `.env` count, as they do for the compose file.
    let variables = super::compose::variables(options)?;
    let secrets = |name: &str| secret_file(project, name);
    for (service, probes) in &mut settings.probes {
        for (name, probe) in probes {
            let path = ["probes", service.as_str(), name.as_str()];
            if let Some((key, reason, remedy)) = probes::check(name, probe) {
                let inner: Vec<&str> = path.into_iter().chain(key.as_deref()).collect();
                return Err(refuse(place_of(text, &inner), reason, remedy));
            }
            let inside = probe.kind_of(name).filter(|kind| kind.is_inside());
            if !project.services.contains_key(service) && (probe.kind.is_none() || inside.is_some()) {
                let known = project.services.keys().map(ServiceName::as_str);
                let remedy = match (super::compose::nearest(service.as_str(), known), inside) {
                    (Some(meant), _) => format!("did you mean `{meant}`?"),
                    (None, Some(kind)) => format!("name a service: a `{}` probe looks into its containers", kind.name()),
                    (None, None) => "name a service; a probe of something else takes a `kind`".to_owned(),
                };
                return Err(refuse(place_of(text, &path), format!("the compose file has no service `{service}`"), remedy));
            }
            let (line, column) = line_and_column(text, place_of(text, &path));
            probe.read(Origin { file: file.to_owned(), line, column }, &project.directory, &variables, &secrets);
        }
    }
    Ok(())
}

fn check_need(text: &str, service: &ServiceName, settings: &Settings, project: &Project) -> Result<(), (String, String)> {
    let form = "write it as `SERVICE` or `SERVICE/PROBE`; `kaleem health` shows both names".to_owned();
    let need: Need = text.parse().map_err(|reason| (reason, form))?;
    if need.service == *service && need.probe.is_none() {
        let remedy = format!("name one of its probes, such as `{service}/redis-HOST`, or leave it out");
        return Err((format!("`{service}` needs itself"), remedy));
    }
    if !project.services.contains_key(&need.service) && !settings.probes.contains_key(&need.service) {
        let known = project.services.keys().chain(settings.probes.keys()).map(ServiceName::as_str);
        let remedy = match super::compose::nearest(need.service.as_str(), known) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => "name a service of the compose file, or a group under `[probes]`".to_owned(),
        };
        return Err((format!("`{service}` needs `{need}`, and there is no `{}`", need.service), remedy));
    }
    Ok(())
}

/// The file of a secret: where a service mounts it, the engine takes it from there.
fn secret_file(project: &Project, name: &str) -> Option<PathBuf> {
    let target = format!("/run/secrets/{name}");
    let mut mounts = project.services.values().flat_map(|service| &service.definition.mounts);
    mounts.find(|mount| mount.target == target).and_then(|mount| match &mount.source {
        MountSource::Bind { path, .. } => Some(PathBuf::from(path)),
        _ => None,
    })
}

fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or_default();
    (before.matches('\n').count() + 1, before.chars().rev().take_while(|c| *c != '\n').count() + 1)
}

/// Where a key stands, as a byte of `text`: the last of `path` that is there.
fn place_of(text: &str, path: &[&str]) -> usize {
    let Ok(document) = text.parse::<toml_edit::Document<String>>() else { return 0 };
    let mut item = document.as_item();
    let mut at = 0;
    for part in path {
        let Some((key, inner)) = item.as_table_like().and_then(|table| table.get_key_value(part)) else { break };
        at = key.span().or_else(|| inner.span()).map_or(at, |span| span.start);
        item = inner;
    }
    at
}

/// A duration as Compose writes it: `1m30s`, `500ms`, `2h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct DurationText(pub std::time::Duration);

impl From<DurationText> for String {
    fn from(text: DurationText) -> Self {
        // Whole milliseconds are exact for everything a person writes here.
        format!("{}ms", text.0.as_millis())
    }
}

impl TryFrom<String> for DurationText {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        parse_duration(&text).map(Self).ok_or_else(|| format!("`{text}` is not a duration; write it as `500ms`, `30s` or `1m30s`"))
    }
}

/// Reads a duration as Compose writes it: numbers (with a fraction) and units `w d h m s ms us ns`, in a row.
pub fn parse_duration(text: &str) -> Option<std::time::Duration> {
    let mut rest = text.trim();
    let mut total = 0.0_f64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let scale = match unit {
            "w" => 604_800.0,
            "d" => 86_400.0,
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * scale;
        rest = tail;
    }
    std::time::Duration::try_from_secs_f64(total).ok()
}

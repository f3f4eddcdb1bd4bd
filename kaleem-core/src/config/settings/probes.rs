//! `[probes.SERVICE.NAME]`: refines a probe that was found, adds one, or switches one off.
//!
//! One flat table for all kinds, so that a wrong key is named with its place; which keys a kind takes is checked here.
//! Secrets are named, never written: by variable, by file, or by a secret of the compose file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::DurationText;
use crate::config::Origin;
use crate::secret::Secret;

mod check;

pub(super) use check::check;

/// What a probe speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProbeKind {
    /// An HTTP address.
    Http,
    /// The health endpoint of an application, judged by its parts.
    Api,
    /// A page with its scripts and styles.
    Spa,
    /// A port that accepts.
    Tcp,
    /// Redis.
    Redis,
    /// RabbitMQ.
    Rabbitmq,
    /// MongoDB.
    Mongodb,
    /// Qdrant.
    Qdrant,
    /// Space of a path of this host.
    Disk,
    /// The certificate of a host.
    Certificate,
    /// What the engine says of the service's containers: running, restarts, memory, their own health check.
    Container,
    /// A command in the service's containers.
    Command,
}

impl ProbeKind {
    /// Every kind.
    pub const ALL: [Self; 12] = [
        Self::Http,
        Self::Api,
        Self::Spa,
        Self::Tcp,
        Self::Redis,
        Self::Rabbitmq,
        Self::Mongodb,
        Self::Qdrant,
        Self::Disk,
        Self::Certificate,
        Self::Container,
        Self::Command,
    ];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Api => "api",
            Self::Spa => "spa",
            Self::Tcp => "tcp",
            Self::Redis => "redis",
            Self::Rabbitmq => "rabbitmq",
            Self::Mongodb => "mongodb",
            Self::Qdrant => "qdrant",
            Self::Disk => "disk",
            Self::Certificate => "certificate",
            Self::Container => "container",
            Self::Command => "command",
        }
    }

    /// Whether it looks into containers, so that it belongs to a service of the compose file.
    pub fn is_inside(self) -> bool {
        matches!(self, Self::Container | Self::Command)
    }

    /// The kind that a probe's name says: probes that are found are called `redis`, or `redis-` and the host.
    pub fn of_name(name: &str) -> Option<Self> {
        let first = name.split('-').next().unwrap_or_default();
        Self::ALL.into_iter().find(|kind| kind.name() == first)
    }
}

/// How Redis is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TopologyName {
    /// One server, master or replica.
    Single,
    /// The address is a sentinel; `master` names what it watches.
    Sentinel,
    /// The address is one of the nodes.
    Cluster,
}

/// The version of HTTP that is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum HttpVersionName {
    /// HTTP/1.1 alone.
    #[serde(rename = "1.1")]
    One,
    /// HTTP/2: by ALPN over TLS, without asking over plain text.
    #[serde(rename = "2")]
    Two,
}

/// What is right for one queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct QueueOptions {
    /// Messages from which it is a warning.
    pub depth_warn: Option<u32>,
    /// Messages from which it is a failure.
    pub depth_fail: Option<u32>,
    /// Consumers that must be there.
    pub consumers: Option<u32>,
    /// Whether a depth that grew in each of the last three runs is a warning; it is where nothing is said.
    pub growth: Option<bool>,
}

/// One probe. What is not said stays as it was found, or has the default of its kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ProbeOptions {
    /// What it speaks; where nothing is said, the first part of its name, such as `redis` of `redis-sessions`.
    pub kind: Option<ProbeKind>,
    /// `false` switches it off.
    pub enabled: Option<bool>,
    /// Its address, without a password.
    pub url: Option<String>,
    /// Variable that holds the address, password and all.
    pub url_env: Option<String>,
    /// Name or address, for `tcp` and `certificate`.
    pub host: Option<String>,
    /// Port, for `tcp` and `certificate`.
    pub port: Option<u16>,
    /// User by which it logs in.
    pub user: Option<String>,
    /// Variable that holds the password, or the API key of Qdrant.
    pub password_env: Option<String>,
    /// File that holds it, relative to the project's directory.
    pub password_file: Option<PathBuf>,
    /// Secret of the compose file (`secrets:`, with `file:`) that holds it.
    pub password_secret: Option<String>,
    /// File with further trusted certificates (PEM).
    pub ca_file: Option<PathBuf>,
    /// File with the certificate that is shown to the server (PEM).
    pub certificate_file: Option<PathBuf>,
    /// File with the key of that certificate (PEM).
    pub key_file: Option<PathBuf>,
    /// Name that the server's certificate must hold.
    pub server_name: Option<String>,
    /// Whether the certificates count that the machine trusts; they do where nothing is said.
    pub trust_system: Option<bool>,
    /// Headers that are sent.
    pub headers: BTreeMap<String, String>,
    /// Headers that are sent, by the variable that holds their value.
    pub headers_env: BTreeMap<String, String>,
    /// Version of HTTP; `1.1` where nothing is said.
    pub version: Option<HttpVersionName>,
    /// Status that the answer must have.
    pub status: Option<u16>,
    /// Headers that the answer must have, with a text in their value (empty: any value).
    pub expect_headers: BTreeMap<String, String>,
    /// Text that the body, or the output of the command, must hold.
    pub contains: Option<String>,
    /// Pattern that it must match.
    pub matches: Option<String>,
    /// Rules about it as JSON, such as `queue.depth < 100`.
    pub json: Vec<String>,
    /// Time to the last byte from which it is a warning.
    pub latency_warn: Option<DurationText>,
    /// Time to the last byte from which it is a failure.
    pub latency_fail: Option<DurationText>,
    /// Redirects that are followed.
    pub redirects: Option<u8>,
    /// Id of the element that the page's application fills.
    pub root_id: Option<String>,
    /// How Redis is run.
    pub topology: Option<TopologyName>,
    /// The master that the sentinel watches.
    pub master: Option<String>,
    /// Whether something is written and read, to see whether writes are taken.
    pub canary: Option<bool>,
    /// Replicas that must be online.
    pub replicas: Option<usize>,
    /// Share of `maxmemory` in percent from which it is a warning.
    pub memory_warn: Option<u16>,
    /// Share of `maxmemory` in percent from which it is a failure.
    pub memory_fail: Option<u16>,
    /// Lag of a replica from which it is a warning.
    pub lag_warn: Option<DurationText>,
    /// Lag of a replica from which it is a failure.
    pub lag_fail: Option<DurationText>,
    /// Time a set may be without a primary.
    pub no_primary: Option<DurationText>,
    /// Time that a full oplog must cover.
    pub oplog_window: Option<DurationText>,
    /// Share of connections in percent from which it is a warning.
    pub connections_warn: Option<u16>,
    /// Share of connections in percent from which it is a failure.
    pub connections_fail: Option<u16>,
    /// Address of RabbitMQ's management API, such as `http://broker:15672`; an empty text asks none.
    pub management: Option<String>,
    /// Rules for queues, by name.
    pub queues: BTreeMap<String, QueueOptions>,
    /// Address of Qdrant's gRPC API, such as `http://vectors:6334`; an empty text asks none.
    pub grpc: Option<String>,
    /// Collections that must be there.
    pub collections: Vec<String>,
    /// Any path of the file system that is looked at.
    pub path: Option<PathBuf>,
    /// Used share of space and inodes in percent from which it is a warning.
    pub used_warn: Option<u16>,
    /// Used share of space and inodes in percent from which it is a failure.
    pub used_fail: Option<u16>,
    /// Time until it is full, at the present rate, from which it is a warning.
    pub full_within: Option<DurationText>,
    /// Program and arguments that run in the container; no shell.
    pub command: Option<Vec<String>>,
    /// Exit code of the command that is right; 0 where nothing is said.
    pub exit_code: Option<u8>,
    /// Exit code of the command that is a warning.
    pub exit_warn: Option<u8>,
    /// Restarts of a container since it was made from which they are a warning; 1 where nothing is said.
    pub restarts_warn: Option<u32>,
    /// Restarts of a container since it was made from which they are a failure.
    pub restarts_fail: Option<u32>,
    /// What was read of it when the file was loaded.
    #[serde(skip)]
    pub read: ProbeRead,
}

/// What stands beside the options: read once, when the file is loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeRead {
    /// Where the table stands.
    pub origin: Option<Origin>,
    /// The address of `url-env`.
    pub url: Option<Secret<String>>,
    /// The password of `password-env`, `password-file` or `password-secret`.
    pub password: Option<Secret<String>>,
    /// The values of `headers-env`.
    pub headers: BTreeMap<String, Secret<String>>,
    /// The text of `ca-file`.
    pub ca: Option<String>,
    /// The text of `certificate-file`.
    pub certificate: Option<String>,
    /// The text of `key-file`.
    pub key: Option<Secret<String>>,
    /// What could not be read, in words. No reason to refuse a deploy: the probe says that it could not ask.
    pub missing: Vec<String>,
}

impl ProbeOptions {
    /// What a probe of that name speaks.
    pub fn kind_of(&self, name: &str) -> Option<ProbeKind> {
        self.kind.or_else(|| ProbeKind::of_name(name))
    }

    /// Reads what the options name. `secrets` gives the file of a secret of the compose file.
    pub(super) fn read(
        &mut self,
        origin: Origin,
        directory: &Path,
        variables: &BTreeMap<String, String>,
        secrets: &dyn Fn(&str) -> Option<PathBuf>,
    ) {
        let mut missing = Vec::new();
        let mut variable = |name: &String| {
            let found = variables.get(name).filter(|value| !value.is_empty()).cloned().map(Secret::new);
            if found.is_none() {
                missing.push(format!("the variable `{name}` is not set"));
            }
            found
        };
        let url = self.url_env.as_ref().and_then(&mut variable);
        let by_variable = self.password_env.as_ref().and_then(&mut variable);
        let headers =
            self.headers_env.iter().filter_map(|(header, name)| Some((header.clone(), variable(name)?))).collect::<BTreeMap<_, _>>();
        let mut text = |path: &Path| {
            let path = directory.join(path);
            let read = crate::durable::read(&path).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            if read.is_none() {
                missing.push(format!("the file `{}` cannot be read", path.display()));
            }
            read
        };
        let ca = self.ca_file.as_deref().and_then(&mut text);
        let certificate = self.certificate_file.as_deref().and_then(&mut text);
        let key = self.key_file.as_deref().and_then(&mut text).map(Secret::new);
        // Files of secrets end with a line break that belongs to no password.
        let trimmed = |text: String| Secret::new(text.trim_end_matches(['\r', '\n']).to_owned());
        let by_file = self.password_file.as_deref().and_then(&mut text).map(trimmed);
        let by_secret = self.password_secret.as_deref().map(|name| secrets(name).ok_or(name));
        let by_secret = match by_secret {
            None => None,
            Some(Ok(path)) => text(&path).map(trimmed),
            Some(Err(name)) => {
                missing.push(format!("no service has the secret `{name}`, or it does not come from a file"));
                None
            }
        };
        let password = by_variable.or(by_file).or(by_secret);
        self.read = ProbeRead { origin: Some(origin), url, password, headers, ca, certificate, key, missing };
    }
}

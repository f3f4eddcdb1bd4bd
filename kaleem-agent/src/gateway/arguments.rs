//! The command line of a gateway, which is all the configuration it has besides what it is steered to do.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use kaleem_core::config::settings::parse_duration;
use serde::{Deserialize, Serialize};

use super::listen::ListenSpec;
use super::trust::Network;

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| format!("`{text}` is not a duration; write it as `500ms`, `30s` or `1m30s`"))
}

/// How a gateway is started.
#[derive(Debug, clap::Args)]
pub struct GatewayArguments {
    /// `[ADDRESS:]PORT/http` or `[ADDRESS:]PORT/tcp`, then `,accept-proxy` or `,send-proxy` for the PROXY protocol, version 2.
    #[arg(long = "listen", required = true, env = "KALEEM_GATEWAY_LISTEN", value_delimiter = ' ')]
    pub listen: Vec<ListenSpec>,
    /// Directory of the control socket and the state; mounted from the host.
    #[arg(long, default_value = "/run/kaleem", env = "KALEEM_GATEWAY_DIRECTORY")]
    pub directory: PathBuf,
    /// Threads that serve; 0 is one for each processor.
    #[arg(long, default_value_t = 2, env = "KALEEM_GATEWAY_THREADS")]
    pub threads: usize,
    /// Writes one JSON object for each request to standard output.
    #[arg(long, env = "KALEEM_GATEWAY_ACCESS_LOG")]
    pub access_log: bool,
    /// Most header fields of a request; more are answered 431.
    #[arg(long, default_value_t = 100, env = "KALEEM_GATEWAY_MAX_HEADERS")]
    pub max_headers: usize,
    /// Most bytes of a request's head; more are answered 431.
    #[arg(long, default_value_t = 65_536, env = "KALEEM_GATEWAY_MAX_HEADER_BYTES")]
    pub max_header_bytes: usize,
    /// Throws away the `X-Forwarded-*` that clients send: for a gateway which faces the internet.
    #[arg(long, env = "KALEEM_GATEWAY_DISTRUST_FORWARDED")]
    pub distrust_forwarded: bool,
    /// Believes the `X-Forwarded-*`, `X-Real-IP` and `Forwarded` of connections from these networks alone, such as `10.0.0.0/8`; given
    /// several times, or with spaces between. Without it, those of every client.
    #[arg(long = "trust-forwarded", env = "KALEEM_GATEWAY_TRUST_FORWARDED", value_delimiter = ' ')]
    pub trust_forwarded: Vec<Network>,
    /// How long a client may stay silent between requests, or take to send the head of one.
    #[arg(long, default_value = "75s", value_parser = duration, env = "KALEEM_GATEWAY_IDLE")]
    pub idle: Duration,
    /// How long connecting to an instance may take.
    #[arg(long, default_value = "2s", value_parser = duration, env = "KALEEM_GATEWAY_CONNECT_TIMEOUT")]
    pub connect_timeout: Duration,
    /// How long an old worker may finish requests after an upgrade.
    #[arg(long, default_value = "60s", value_parser = duration, env = "KALEEM_GATEWAY_UPGRADE_REQUESTS")]
    pub upgrade_requests: Duration,
    /// How long WebSockets and event streams live on in an old worker after an upgrade.
    #[arg(long, default_value = "5m", value_parser = duration, env = "KALEEM_GATEWAY_UPGRADE_STREAMS")]
    pub upgrade_streams: Duration,
    /// How long requests may finish after SIGTERM: shorter than the time Docker waits before it kills.
    #[arg(long, default_value = "8s", value_parser = duration, env = "KALEEM_GATEWAY_STOP_GRACE")]
    pub stop_grace: Duration,
}

/// How a port container is started.
#[derive(Debug, clap::Args)]
pub struct PortArguments {
    /// `[ADDRESS:]PORT/http` or `[ADDRESS:]PORT/tcp` with the options of the gateway's other ports.
    #[arg(long)]
    pub listen: ListenSpec,
    /// How the port is called where the gateway tells of it.
    #[arg(long)]
    pub name: String,
    /// Directory of the gateway's control socket.
    #[arg(long, default_value = "/run/kaleem")]
    pub directory: PathBuf,
    /// How long requests may finish after SIGTERM: shorter than the time Docker waits before it kills.
    #[arg(long, default_value = "8s", value_parser = duration)]
    pub stop_grace: Duration,
}

impl GatewayArguments {
    /// The same in the form that is handed to workers.
    pub(crate) fn into_settings(self) -> Settings {
        Settings {
            listen: self.listen,
            directory: self.directory,
            threads: self.threads,
            access_log: self.access_log,
            max_headers: self.max_headers,
            max_header_bytes: self.max_header_bytes,
            distrust_forwarded: self.distrust_forwarded,
            trust_forwarded: self.trust_forwarded,
            idle: self.idle,
            connect_timeout: self.connect_timeout,
            upgrade_requests: self.upgrade_requests,
            upgrade_streams: self.upgrade_streams,
            stop_grace: self.stop_grace,
        }
    }
}

/// What a worker is handed over. A newer worker reads it from an older supervisor, so fields are only ever added, with defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) listen: Vec<ListenSpec>,
    pub(crate) directory: PathBuf,
    pub(crate) threads: usize,
    pub(crate) access_log: bool,
    pub(crate) max_headers: usize,
    pub(crate) max_header_bytes: usize,
    pub(crate) distrust_forwarded: bool,
    #[serde(default)]
    pub(crate) trust_forwarded: Vec<Network>,
    pub(crate) idle: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) upgrade_requests: Duration,
    pub(crate) upgrade_streams: Duration,
    pub(crate) stop_grace: Duration,
}

impl Settings {
    /// Whether what a connection from this address says of its own client is believed.
    pub(crate) fn believes(&self, address: IpAddr) -> bool {
        let trusted = &self.trust_forwarded;
        !self.distrust_forwarded && (trusted.is_empty() || trusted.iter().any(|network| network.holds(address)))
    }

    /// How many data threads there are.
    pub(crate) fn thread_count(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(2, std::num::NonZeroUsize::get),
            given => given.min(64),
        }
    }
}

//! The Docker engine over its API.
//!
//! The version of the API is written into every request, so that a newer engine behaves as the one that this was made for.
//! Every request has a time limit: an engine that hangs is an error, never a wait without end.

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bollard::{BollardRequest, ClientVersion, Docker};

use crate::registry::PullCredentials;
use crate::runtime::{EngineInfo, RuntimeError};

mod failure;
mod limits;
mod mounts;
mod body;
mod files;
mod instance;
mod peek;
mod containers;
mod addresses;
mod hand_over;
mod drift;
mod compare;
mod console;
mod images;
mod resources;
mod marks;
mod context;

pub use context::endpoint_of_context;
use failure::{Failure, nonsense};

/// Where engines listen when nobody said anything else.
pub const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// Oldest API that kaleem can use: Docker 20.10.
const OLDEST: ApiVersion = ApiVersion(1, 41);
/// Newest API that this was written for: Docker 27. Engines go on speaking it.
const NEWEST: ApiVersion = ApiVersion(1, 47);

/// A version of the engine's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ApiVersion(u32, u32);

impl ApiVersion {
    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.0, self.1)
    }
}

/// Which engine, and how to speak to it.
#[derive(Clone)]
pub struct DockerOptions {
    /// Value of `DOCKER_HOST`: `unix:///path` or `tcp://host:port`; `None` takes [`DEFAULT_SOCKET`], then `rootless_socket`.
    pub endpoint: Option<String>,
    /// Socket of an engine without root rights (`$XDG_RUNTIME_DIR/docker.sock`), taken only where the default one does not exist.
    pub rootless_socket: Option<PathBuf>,
    /// What registries are shown when an image is pulled.
    pub credentials: Arc<dyn PullCredentials>,
    /// Time that the engine has for an answer, beside what it was asked to wait for; 30 s is plenty.
    pub answer_timeout: Duration,
}

/// A Docker engine. Cheap to clone.
#[derive(Clone)]
pub struct DockerRuntime {
    client: Docker,
    endpoint: String,
    api: ApiVersion,
    engine: EngineInfo,
    credentials: Arc<dyn PullCredentials>,
    answer_timeout: Duration,
}

impl fmt::Debug for DockerRuntime {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("DockerRuntime").field("endpoint", &self.endpoint).field("api", &self.api).finish_non_exhaustive()
    }
}

/// An address of an engine that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Endpoint {
    Socket(PathBuf),
    Plain(String),
}

impl Endpoint {
    fn choose(options: &DockerOptions) -> Result<Self, RuntimeError> {
        match options.endpoint.as_deref().filter(|endpoint| !endpoint.is_empty()) {
            Some(endpoint) => Self::parse(endpoint),
            None => {
                let default = PathBuf::from(DEFAULT_SOCKET);
                let rootless = options.rootless_socket.as_ref().filter(|path| !default.exists() && path.exists());
                Ok(Self::Socket(rootless.cloned().unwrap_or(default)))
            }
        }
    }

    fn parse(text: &str) -> Result<Self, RuntimeError> {
        let bad = |reason: &str| Err(RuntimeError::BadEndpoint { endpoint: text.to_owned(), reason: reason.to_owned() });
        match text.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => Ok(Self::Socket(PathBuf::from(path))),
            Some(("unix", _)) => bad("the path of a socket starts with `/`"),
            Some(("tcp" | "http", address)) => {
                let address = address.trim_end_matches('/');
                let port = address.rsplit_once(':').map(|(host, port)| (!host.is_empty(), port.parse::<u16>()));
                match port {
                    Some((true, Ok(2376))) => bad("port 2376 speaks TLS, which kaleem does not; forward the engine's socket instead"),
                    Some((true, Ok(_))) => Ok(Self::Plain(format!("http://{address}"))),
                    _ => bad("it needs a host and a port"),
                }
            }
            Some(("https", _)) => bad("kaleem speaks no TLS to an engine; forward its socket instead"),
            Some(("ssh", _)) => bad("kaleem runs where the engine runs; forward the socket with `ssh -L`, or run kaleem there"),
            Some(("npipe", _)) => bad("kaleem runs on Linux"),
            Some(_) => bad("its scheme is unknown"),
            None if text.starts_with('/') => Ok(Self::Socket(PathBuf::from(text))),
            None => bad("it has no scheme such as `unix://`"),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(out, "unix://{}", path.display()),
            Self::Plain(address) => out.write_str(address),
        }
    }
}

/// Writes the version of the API into the request's path: the client library leaves it out, and then the engine
/// behaves as its own newest version does.
fn with_version(mut request: BollardRequest, api: ApiVersion) -> BollardRequest {
    let text = request.uri().to_string();
    let path = text.find("://").and_then(|scheme| text.get(scheme + 3..)?.find('/').map(|slash| scheme + 3 + slash));
    if let Some((origin, path)) = path.and_then(|at| text.split_at_checked(at))
        && let Ok(versioned) = format!("{origin}/v{api}{path}").parse()
    {
        *request.uri_mut() = versioned;
    }
    request
}

impl DockerRuntime {
    /// Finds the engine and agrees with it on a version of the API. Nothing is changed on it.
    ///
    /// # Errors
    /// [`RuntimeError::BadEndpoint`], [`RuntimeError::Unreachable`], [`RuntimeError::PermissionDenied`], [`RuntimeError::TooOld`],
    /// and [`RuntimeError::Broken`] when something answers that is no engine.
    pub async fn connect(options: &DockerOptions) -> Result<Self, RuntimeError> {
        let endpoint = Endpoint::choose(options)?;
        let name = endpoint.to_string();
        let opened = Self::open(&endpoint);
        let plain = opened.map_err(|error| Failure::new("agree on a version of its API", &name, error).into_error())?;
        let mut runtime = Self {
            client: plain.clone(),
            endpoint: name,
            api: OLDEST,
            engine: EngineInfo { version: String::new(), api_version: String::new(), os: String::new(), architecture: String::new() },
            credentials: Arc::clone(&options.credentials),
            answer_timeout: options.answer_timeout,
        };
        let operation = "agree on a version of its API";
        let version = runtime.ask(operation, plain.version()).await.map_err(Failure::into_error)?;
        let spoken = version.api_version.as_deref().and_then(ApiVersion::parse);
        let Some(spoken) = spoken else { return Err(nonsense(operation, "it names no version of its API")) };
        if spoken < OLDEST {
            return Err(RuntimeError::TooOld { found: spoken.to_string(), needed: "1.41" });
        }
        let least = version.min_api_version.as_deref().and_then(ApiVersion::parse).unwrap_or(OLDEST);
        // An engine that no longer speaks the version this was written for is asked in the oldest that it does speak.
        let api = spoken.min(NEWEST).max(least);
        runtime.api = api;
        runtime.engine = EngineInfo {
            // Distributions append their own name: `20.10.24+dfsg1`.
            version: version.version.unwrap_or_default().split('+').next().unwrap_or_default().to_owned(),
            api_version: api.to_string(),
            os: version.os.unwrap_or_default(),
            architecture: version.arch.unwrap_or_default(),
        };
        runtime.client = plain.with_request_modifier(move |request| with_version(request, api));
        Ok(runtime)
    }

    fn open(endpoint: &Endpoint) -> Result<Docker, bollard::errors::Error> {
        // The library's own limit covers only the head of an answer; ours covers all of it.
        let seconds = 7 * 24 * 3600;
        let version = ClientVersion { major_version: 1, minor_version: 41 };
        match endpoint {
            Endpoint::Socket(path) => {
                if let Err(error) = readable(path) {
                    return Err(bollard::errors::Error::IOError { err: error });
                }
                Docker::connect_with_unix(&path.to_string_lossy(), seconds, &version)
            }
            Endpoint::Plain(address) => Docker::connect_with_http(address, seconds, &version),
        }
    }

    /// A client whose next request has this body instead of the one that the library's types can express.
    fn client_with_body(&self, body: &serde_json::Value) -> Docker {
        let (api, bytes) = (self.api, bytes::Bytes::from(body.to_string()));
        self.client.clone().with_request_modifier(move |request| {
            let mut request = with_version(request, api);
            *request.body_mut() = bollard::body_full(bytes.clone());
            request
        })
    }

    /// Asks, and waits at most the time of an answer.
    async fn ask<T>(&self, operation: &str, question: impl Future<Output = Result<T, bollard::errors::Error>>) -> Result<T, Failure> {
        self.ask_for(operation, Duration::ZERO, question).await
    }

    /// Asks for something that takes `extra` time by itself.
    async fn ask_for<T>(
        &self,
        operation: &str,
        extra: Duration,
        question: impl Future<Output = Result<T, bollard::errors::Error>>,
    ) -> Result<T, Failure> {
        let limit = self.answer_timeout.saturating_add(extra);
        match tokio::time::timeout(limit, Box::pin(question)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Failure::new(operation, &self.endpoint, error)),
            Err(_) => Err(Failure::silent(operation, &self.endpoint, limit)),
        }
    }
}

/// Tells a missing socket from one in a directory that may not be entered.
fn readable(path: &Path) -> std::io::Result<()> {
    std::fs::metadata(path).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_can_be_used_are_taken() {
        for (why, text, wanted) in [
            ("socket", "unix:///run/d.sock", Some("unix:///run/d.sock")),
            ("bare path", "/run/d.sock", Some("unix:///run/d.sock")),
            ("plain TCP", "tcp://127.0.0.1:2375", Some("http://127.0.0.1:2375")),
            ("relative path", "unix://run/d.sock", None),
            ("TLS port", "tcp://host:2376", None),
            ("no port", "tcp://host", None),
            ("ssh", "ssh://me@host", None),
            ("Windows", "npipe:////./pipe/docker", None),
            ("no scheme", "host:2375", None),
        ] {
            let found = Endpoint::parse(text).map(|endpoint| endpoint.to_string()).ok();
            assert_eq!(found.as_deref(), wanted, "{why}");
        }
    }

    #[test]
    fn versions_compare_as_numbers() {
        let parse = |text| ApiVersion::parse(text).unwrap();
        assert!(parse("1.9") < parse("1.41") && parse("1.41") < parse("1.100"));
        assert_eq!(ApiVersion::parse("new"), None);
    }
}

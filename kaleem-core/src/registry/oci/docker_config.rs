//! The logins of `docker login`: `config.json` and the programs it names, read as the Docker client reads them.
//!
//! The file is read anew each time, so that a login in between counts. Nothing of it is kept, and nothing of it is in an
//! error but its shape.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::durable::{self, DurableError};
use crate::exec::{self, ExecRequest};
use crate::image::DEFAULT_REGISTRY;
use crate::registry::oci::documents::parse_json;
use crate::registry::{Credential, PullCredentials, RegistryError};
use crate::remedy::one_line;
use crate::secret::Secret;

/// The key under which the Docker client keeps the login of `docker.io`.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
const HELPER_TIMEOUT: Duration = Duration::from_secs(30);
const HELPER_BYTES: usize = 256 * 1024;

/// Credentials of the Docker client's configuration file.
#[derive(Clone)]
pub struct DockerConfig {
    path: PathBuf,
    environment: BTreeMap<String, String>,
}

impl fmt::Debug for DockerConfig {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("DockerConfig").field("path", &self.path).finish_non_exhaustive()
    }
}

impl DockerConfig {
    /// Takes the file `path` (`$DOCKER_CONFIG/config.json` or `~/.docker/config.json`); a missing one holds no logins.
    ///
    /// `environment` is the whole environment of the credential stores that it names: `PATH` finds them, and most want
    /// `HOME`, some `XDG_RUNTIME_DIR`, `GNUPGHOME` or `DBUS_SESSION_BUS_ADDRESS`.
    pub fn new(path: PathBuf, environment: BTreeMap<String, String>) -> Self {
        Self { path, environment }
    }

    async fn ask_store(&self, store: &str, key: &str) -> Result<Option<Credential>, String> {
        if store.is_empty() || !store.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')) {
            return Err("the name of its credential store is not that of a program".to_owned());
        }
        let program = format!("docker-credential-{store}");
        let request = ExecRequest {
            program: PathBuf::from(&program),
            arguments: vec!["get".to_owned()],
            environment: self.environment.clone(),
            stdin: Some(Secret::new(key.as_bytes().to_vec())),
            directory: None,
            timeout: HELPER_TIMEOUT,
            max_output_bytes: HELPER_BYTES,
        };
        let result = exec::run(&request).await.map_err(|error| one_line(&error))?;
        if !result.status.success() {
            // The one failure that is none, told by its text, which every store copies from Docker's library.
            let said = String::from_utf8_lossy(&result.stdout);
            if said.trim() == "credentials not found in native keychain" {
                return Ok(None);
            }
            return Err(format!("`{program}` failed with {}", result.status));
        }
        if result.truncated {
            return Err(format!("`{program}` answered more than a credential"));
        }
        let raw: RawHelperAnswer = parse_json(&format!("answer of `{program}`"), &result.stdout)?;
        if raw.username.is_empty() && raw.secret.is_empty() {
            return Ok(None);
        }
        let secret = Secret::new(raw.secret);
        // How stores mark what is no password.
        let is_token = raw.username == "<token>";
        Ok(Some(if is_token {
            Credential::IdentityToken(secret)
        } else {
            Credential::Password { username: raw.username, password: secret }
        }))
    }

    async fn look_up(&self, host: &str) -> Result<Option<Credential>, String> {
        let bytes = match durable::read(&self.path) {
            Ok(bytes) => bytes,
            Err(DurableError::Missing { .. }) => return Ok(None),
            Err(error) => return Err(one_line(&error)),
        };
        let config: RawConfig = parse_json("docker configuration", &bytes)?;
        let keys = keys_of(host);
        let helper = keys.iter().find_map(|key| Some((config.cred_helpers.get(*key)?, *key)));
        let first = keys.first().copied().unwrap_or(host);
        if let Some((store, key)) = helper.or_else(|| Some((config.creds_store.as_ref()?, first)))
            && !store.is_empty()
            && let Some(credential) = self.ask_store(store, key).await?
        {
            return Ok(Some(credential));
        }
        let exact = keys.iter().find_map(|key| config.auths.get(*key));
        let entry = exact.or_else(|| config.auths.iter().find(|(key, _)| keys.contains(&host_of(key))).map(|(_, entry)| entry));
        entry.map_or(Ok(None), RawEntry::credential)
    }
}

#[async_trait]
impl PullCredentials for DockerConfig {
    async fn for_registry(&self, host: &str) -> Result<Option<Credential>, RegistryError> {
        let found = self.look_up(host).await;
        found.map_err(|reason| RegistryError::Credentials { registry: host.to_owned(), reason })
    }
}

/// The keys under which a login of `host` may be kept, the Docker client's own first.
fn keys_of(host: &str) -> Vec<&str> {
    if host == DEFAULT_REGISTRY { vec![DOCKER_HUB_KEY, "index.docker.io", DEFAULT_REGISTRY, "registry-1.docker.io"] } else { vec![host] }
}

/// The host of a key that was written as an address, as old clients did.
fn host_of(key: &str) -> &str {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    bare.split('/').next().unwrap_or(bare)
}

// None of these has `Debug`: they hold secrets in the open.

#[derive(Deserialize)]
struct RawConfig {
    #[serde(default)]
    auths: BTreeMap<String, RawEntry>,
    #[serde(default, rename = "credHelpers")]
    cred_helpers: BTreeMap<String, String>,
    #[serde(default, rename = "credsStore")]
    creds_store: Option<String>,
}

#[derive(Deserialize)]
struct RawEntry {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    identitytoken: String,
}

impl RawEntry {
    fn credential(&self) -> Result<Option<Credential>, String> {
        if !self.identitytoken.is_empty() {
            return Ok(Some(Credential::IdentityToken(Secret::new(self.identitytoken.clone()))));
        }
        let (username, password) = if self.auth.is_empty() {
            (self.username.clone(), self.password.clone())
        } else {
            let wrong = || "its `auth` is not base64 of `user:password`".to_owned();
            let decoded = STANDARD.decode(&self.auth).ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(wrong)?;
            let (username, password) = decoded.split_once(':').ok_or_else(wrong)?;
            // Old clients padded with zero bytes.
            (username.to_owned(), password.trim_end_matches('\0').to_owned())
        };
        if username.is_empty() && password.is_empty() {
            return Ok(None);
        }
        Ok(Some(Credential::Password { username, password: Secret::new(password) }))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawHelperAnswer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

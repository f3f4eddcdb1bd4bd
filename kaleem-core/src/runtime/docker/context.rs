//! Docker contexts: which engine the Docker client speaks to where nobody says it in `DOCKER_HOST`.
//!
//! An operator whose `docker ps` shows one engine must not find that kaleem deployed to another.

use std::path::Path;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::durable;
use crate::remedy::one_line;
use crate::runtime::RuntimeError;
use crate::runtime::docker::Endpoint;

/// The context that is always there: the engine of this host.
const DEFAULT: &str = "default";

#[derive(Deserialize)]
struct Config {
    #[serde(default, rename = "currentContext")]
    current_context: String,
}

#[derive(Deserialize)]
struct Meta {
    #[serde(rename = "Endpoints")]
    endpoints: Endpoints,
}

#[derive(Deserialize)]
struct Endpoints {
    docker: Option<DockerEndpoint>,
}

#[derive(Deserialize)]
struct DockerEndpoint {
    #[serde(default, rename = "Host")]
    host: String,
}

/// The address of the engine that a Docker context names, as `DOCKER_HOST` would hold it; `None` is the engine of this host.
///
/// `directory` is `$DOCKER_CONFIG`, or `~/.docker`; `named` is `$DOCKER_CONTEXT`. Where that says nothing, the context counts
/// that `docker context use` made the current one.
///
/// # Errors
///
/// [`RuntimeError::BadContext`] when it is not there, cannot be read, or names an engine that kaleem cannot use.
pub fn endpoint_of_context(directory: &Path, named: Option<&str>) -> Result<Option<String>, RuntimeError> {
    let context = match named {
        Some(named) => named.to_owned(),
        None => current(directory)?,
    };
    if context.is_empty() || context == DEFAULT {
        return Ok(None);
    }
    let bad = |reason: String| RuntimeError::BadContext { context: context.clone(), reason };
    let path = directory.join("contexts/meta").join(hex::encode(Sha256::digest(context.as_bytes()))).join("meta.json");
    let text = durable::read(&path)
        .map_err(|error| bad(if error.is_missing() { "there is no such context".to_owned() } else { one_line(&error) }))?;
    let meta: Meta = serde_json::from_slice(&text).map_err(|_| bad(format!("{} is not what the Docker client writes", path.display())))?;
    let host = meta.endpoints.docker.map(|endpoint| endpoint.host).unwrap_or_default();
    if host.is_empty() {
        return Ok(None);
    }
    // Keys beside it mean TLS, whatever the port is.
    let keys = directory.join("contexts/tls").join(hex::encode(Sha256::digest(context.as_bytes()))).join("docker");
    let reason = match Endpoint::parse(&host) {
        Ok(Endpoint::Plain(_)) if keys.exists() => "kaleem speaks no TLS to an engine; forward its socket instead".to_owned(),
        Ok(_) => return Ok(Some(host)),
        Err(RuntimeError::BadEndpoint { reason, .. }) => reason,
        Err(error) => one_line(&error),
    };
    Err(bad(format!("its engine is at `{host}`: {reason}")))
}

fn current(directory: &Path) -> Result<String, RuntimeError> {
    let path = directory.join("config.json");
    let bad = |reason: String| RuntimeError::BadContext { context: "of the Docker client".to_owned(), reason };
    match durable::read(&path) {
        Ok(text) => {
            let config: Result<Config, _> = serde_json::from_slice(&text);
            config
                .map(|config| config.current_context)
                .map_err(|_| bad(format!("{} is not JSON that the Docker client writes", path.display())))
        }
        Err(error) if error.is_missing() => Ok(String::new()),
        Err(error) => Err(bad(one_line(&error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(directory: &Path, path: &str, text: &str) {
        let path = directory.join(path);
        durable::create_directory(path.parent().unwrap(), 0o700).unwrap();
        durable::write_atomic(&path, text.as_bytes(), 0o600).unwrap();
    }

    fn context(directory: &Path, name: &str, host: &str) -> String {
        let id = hex::encode(Sha256::digest(name.as_bytes()));
        let meta = format!(r#"{{"Name":"{name}","Metadata":{{}},"Endpoints":{{"docker":{{"Host":"{host}","SkipTLSVerify":false}}}}}}"#);
        put(directory, &format!("contexts/meta/{id}/meta.json"), &meta);
        id
    }

    #[test]
    fn the_engine_is_the_one_that_the_docker_client_would_ask() {
        let home = tempfile::tempdir().unwrap();
        let at = home.path();
        let ask = |named| endpoint_of_context(at, named).map_err(|error| error.to_string());
        assert_eq!(ask(None), Ok(None), "no configuration");
        context(at, "rootless", "unix:///run/user/1000/docker.sock");
        context(at, "far", "ssh://me@host");
        let secure = context(at, "secure", "tcp://10.0.0.1:4243");
        put(at, &format!("contexts/tls/{secure}/docker/ca.pem"), "");
        put(at, "config.json", r#"{"auths":{},"currentContext":"rootless"}"#);
        let rootless = Ok(Some("unix:///run/user/1000/docker.sock".to_owned()));
        assert_eq!(ask(None), rootless, "the current one");
        assert_eq!(ask(Some("default")), Ok(None), "the variable wins");
        put(at, "config.json", r#"{"auths":{}}"#);
        assert_eq!(ask(None), Ok(None), "none is current");
        assert_eq!(ask(Some("rootless")), rootless, "named by the variable");
        for (why, named, words) in [
            ("missing", "nowhere", "there is no such context"),
            ("over ssh", "far", "its engine is at `ssh://me@host`: kaleem runs where the engine runs"),
            ("with keys", "secure", "its engine is at `tcp://10.0.0.1:4243`: kaleem speaks no TLS"),
        ] {
            let error = ask(Some(named)).unwrap_err();
            assert!(error.contains(named) && error.contains(words), "{why}: {error}");
        }
        put(at, "config.json", "{");
        assert!(ask(None).unwrap_err().contains("config.json is not JSON"), "a broken configuration is no default");
    }
}

//! Images: what a person writes (a tag, which can move) and what a plan holds (a digest, which cannot).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::remedy::Remedy;

mod kind;

pub use kind::ImageKind;

/// The registry of an image that names none.
pub const DEFAULT_REGISTRY: &str = "docker.io";

/// A text that is not an image reference or not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// Not of the form `[registry/]repository[:tag][@digest]`.
    #[error("`{text}` is not an image reference: {reason}")]
    Reference {
        /// The text as it was given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Not of the form `sha256:<64 hex digits>`.
    #[error("`{text}` is not a digest")]
    Digest {
        /// The text as it was given.
        text: String,
    },
}

impl Remedy for ImageError {
    fn remedy(&self) -> String {
        match self {
            Self::Reference { .. } => "write it as `registry.example.com/team/app:tag`, in lower case".to_owned(),
            Self::Digest { .. } => "write it as `sha256:` and 64 hexadecimal digits".to_owned(),
        }
    }
}

/// The SHA-256 digest of a manifest or of an image configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// The digest as `sha256:…`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve hexadecimal digits: enough for a person, as `docker images` shows.
    pub fn short(&self) -> &str {
        self.0.get(7..19).unwrap_or(&self.0)
    }
}

impl FromStr for Digest {
    type Err = ImageError;
    fn from_str(text: &str) -> Result<Self, ImageError> {
        let hex = text.strip_prefix("sha256:");
        let ok = hex.is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
        if ok { Ok(Self(text.to_owned())) } else { Err(ImageError::Digest { text: text.to_owned() }) }
    }
}

impl TryFrom<String> for Digest {
    type Error = ImageError;
    fn try_from(text: String) -> Result<Self, ImageError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&self.0)
    }
}

/// An image as it is written in a compose file: `[registry/]repository[:tag][@digest]`.
///
/// Kept in full form: `redis` is `docker.io/library/redis:latest`. It prints in the short form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageRef {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl ImageRef {
    /// The host (and port) of the registry.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository at the registry, `library/` included.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `latest` where neither a tag nor a digest was written.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, where one was written.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The repository as engines want it: without `docker.io/library/`.
    pub fn familiar_repository(&self) -> String {
        if self.registry == DEFAULT_REGISTRY {
            self.repository.strip_prefix("library/").unwrap_or(&self.repository).to_owned()
        } else {
            format!("{}/{}", self.registry, self.repository)
        }
    }

    /// The last part of the repository: `redis` of `docker.io/library/redis`.
    pub fn base_name(&self) -> &str {
        self.repository.rsplit('/').next().unwrap_or(&self.repository)
    }

    /// The same repository with another tag and no digest.
    ///
    /// # Errors
    ///
    /// [`ImageError::Reference`] when `tag` is not a tag.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ImageError> {
        format!("{}/{}:{tag}", self.registry, self.repository).parse()
    }
}

fn is_repository_part(part: &str) -> bool {
    let bytes = part.as_bytes();
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'))
}

fn is_tag(tag: &str) -> bool {
    !tag.is_empty()
        && tag.len() <= 128
        && !tag.starts_with(['.', '-'])
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

fn is_registry(host: &str) -> bool {
    !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']'))
}

impl FromStr for ImageRef {
    type Err = ImageError;
    fn from_str(text: &str) -> Result<Self, ImageError> {
        let refuse = |reason| ImageError::Reference { text: text.to_owned(), reason };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                (rest, Some(digest.parse().map_err(|_| refuse("its digest is not `sha256:` and 64 hexadecimal digits"))?))
            }
            None => (text, None),
        };
        // The first part is a registry only if it looks like a host: the rule of the Docker client.
        let (registry, path) = match rest.split_once('/') {
            Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (host, path),
            _ => (DEFAULT_REGISTRY, rest),
        };
        if !is_registry(registry) {
            return Err(refuse("its registry is not a host name"));
        }
        let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
        let (path, tag) = match path.rsplit_once(':') {
            Some((path, tag)) if is_tag(tag) => (path, Some(tag.to_owned())),
            Some(_) => return Err(refuse("its tag holds a character that is not allowed, or is empty")),
            None => (path, None),
        };
        if path.is_empty() {
            return Err(refuse("it names no repository"));
        }
        if !path.split('/').all(is_repository_part) {
            return Err(refuse("its repository must be lower case letters, digits, `.`, `_`, `-` and `/`"));
        }
        let repository = if registry == DEFAULT_REGISTRY && !path.contains('/') { format!("library/{path}") } else { path.to_owned() };
        let tag = if tag.is_none() && digest.is_none() { Some("latest".to_owned()) } else { tag };
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }
}

impl TryFrom<String> for ImageRef {
    type Error = ImageError;
    fn try_from(text: String) -> Result<Self, ImageError> {
        text.parse()
    }
}

impl From<ImageRef> for String {
    fn from(image: ImageRef) -> Self {
        image.to_string()
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.familiar_repository();
        if let Some(tag) = &self.tag {
            text = format!("{text}:{tag}");
        }
        if let Some(digest) = &self.digest {
            text = format!("{text}@{digest}");
        }
        out.pad(&text)
    }
}

/// Where the bytes of a pinned image come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageSource {
    /// The digest is that of a manifest at the registry: it can be pulled by digest.
    Registry,
    /// The digest is the image's own id on this engine: it was built or loaded here.
    Local,
}

/// An image that cannot move: the only form in which a plan holds one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinnedImage {
    /// What was asked for.
    pub image: ImageRef,
    /// What that meant when it was resolved.
    pub digest: Digest,
    /// Whether the digest is of a manifest or the id of a local image.
    pub source: ImageSource,
}

impl PinnedImage {
    /// What the engine is given to create a container: `repository@digest`, or the local image id.
    pub fn engine_reference(&self) -> String {
        match self.source {
            ImageSource::Registry => format!("{}@{}", self.image.familiar_repository(), self.digest),
            ImageSource::Local => self.digest.to_string(),
        }
    }
}

impl fmt::Display for PinnedImage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&format!("{} ({})", self.image, self.digest.short()))
    }
}

/// What the configuration of an image says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageFacts {
    /// User; empty is root.
    pub user: String,
    /// Exposed ports, such as `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// Whether it has a health check (that is not `NONE`).
    pub has_healthcheck: bool,
    /// Time between the runs of that health check.
    pub healthcheck_interval: Option<Duration>,
    /// What it starts: its entrypoint and its command.
    pub command: Vec<String>,
    /// Names of the variables that it sets: never their values.
    pub environment_names: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Volumes that it declares.
    pub volumes: Vec<String>,
    /// `os/arch[/variant]`.
    pub platform: String,
    /// Compressed size at the registry, or size on the engine.
    pub size_bytes: u64,
    /// When it was built. `None` where its configuration does not say, or says the time of a reproducible build.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
}

/// The time at which an image was built, as its configuration writes it. Reproducible builds write the beginning of an epoch, which says nothing.
pub fn build_time(text: &str) -> Option<Timestamp> {
    /// 1990-01-01: no image is older.
    const FIRST_SECOND: i64 = 631_152_000;
    text.parse::<Timestamp>().ok().filter(|time| time.as_second() >= FIRST_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_read_as_the_docker_client_reads_them() {
        for (text, registry, repository, tag) in [
            ("redis", "docker.io", "library/redis", Some("latest")),
            ("redis:7", "docker.io", "library/redis", Some("7")),
            ("team/app:1.2", "docker.io", "team/app", Some("1.2")),
            ("ghcr.io/team/app:1.2", "ghcr.io", "team/app", Some("1.2")),
            ("localhost/app", "localhost", "app", Some("latest")),
            ("127.0.0.1:5000/a/b/c:x", "127.0.0.1:5000", "a/b/c", Some("x")),
            ("index.docker.io/library/redis", "docker.io", "library/redis", Some("latest")),
        ] {
            let image: ImageRef = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((image.registry(), image.repository(), image.tag()), (registry, repository, tag), "{text}");
            assert_eq!(image.to_string().parse::<ImageRef>().as_ref(), Ok(&image), "{text} prints as it reads");
        }
        for text in ["", ":", "a:", "A/b", "a//b", "a b", "a@sha256:12", "host:5000/", "-a", "a:.x", "http://a/b"] {
            assert!(text.parse::<ImageRef>().is_err(), "{text:?} is no image");
        }
    }
}

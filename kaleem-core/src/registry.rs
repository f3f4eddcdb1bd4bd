//! The image registry: what a tag means now.
//!
//! The registry is only read. Nothing here pulls layers: the engine does that, by digest.

use async_trait::async_trait;

use crate::image::{Digest, ImageFacts, ImageRef};
use crate::remedy::Remedy;
use crate::secret::Secret;

/// What a reference means at the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedImage {
    /// Digest of what the tag names: a manifest, or the index of several platforms.
    pub digest: Digest,
    /// Digest of the manifest for the wanted platform; equal to `digest` where there is no index.
    pub manifest: Digest,
    /// Digest of the image configuration: the id that the engine will give it.
    pub config: Digest,
    /// What the configuration says.
    pub facts: ImageFacts,
}

/// A registry that speaks the OCI distribution protocol.
///
/// # Contract
/// - `resolve` of a reference with a digest answers that digest, or an error if the registry has none such.
/// - `resolve` of an index answers the manifest of `platform` (`os/arch[/variant]`), or [`RegistryError::NoPlatform`] with what there is.
/// - `tags` is sorted and complete: all pages, or an error.
/// - Transient errors are retried within; what comes out has been tried several times.
#[async_trait]
pub trait ImageRegistry: Send + Sync {
    /// Asks what `image` means now.
    ///
    /// # Errors
    /// [`RegistryError`]; nothing was changed anywhere.
    async fn resolve(&self, image: &ImageRef, platform: &str) -> Result<ResolvedImage, RegistryError>;
    /// All tags of the repository of `image`.
    ///
    /// # Errors
    /// [`RegistryError`]; nothing was changed anywhere.
    async fn tags(&self, image: &ImageRef) -> Result<Vec<String>, RegistryError>;
}

/// What a registry is shown so that it lets us pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// A user and a password (or an access token in its place).
    Password {
        /// The user.
        username: String,
        /// The password.
        password: Secret<String>,
    },
    /// A token of the registry's identity service, which a credential store keeps instead of a password.
    IdentityToken(Secret<String>),
}

/// Where credentials for pulling come from, such as `~/.docker/config.json` and its stores.
///
/// # Contract
/// - `for_registry` answers `None` when nothing is known for `host`: then it is asked without credentials.
/// - It asks anew each time: a login in between is seen.
#[async_trait]
pub trait PullCredentials: Send + Sync {
    /// What to show the registry at `host` (and port), written as [`ImageRef::registry`] writes it.
    ///
    /// # Errors
    /// [`RegistryError::Credentials`] when a store could not be read.
    async fn for_registry(&self, host: &str) -> Result<Option<Credential>, RegistryError>;
}

/// No credentials for any registry.
#[derive(Clone, Copy, Debug)]
pub struct Anonymous;

#[async_trait]
impl PullCredentials for Anonymous {
    async fn for_registry(&self, _host: &str) -> Result<Option<Credential>, RegistryError> {
        Ok(None)
    }
}

/// Why the registry could not be asked, or what it said.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// No answer, or the connection broke.
    #[error("could not ask the registry for `{image}`")]
    Unreachable {
        /// The reference.
        image: ImageRef,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is no such repository or tag.
    #[error("the registry has no image `{image}`")]
    NotFound {
        /// The reference.
        image: ImageRef,
    },
    /// Credentials are missing or wrong.
    #[error("the registry does not let us read `{image}`: {reason}")]
    Denied {
        /// The reference.
        image: ImageRef,
        /// Whether credentials were given, and what the registry said.
        reason: String,
    },
    /// Too many requests.
    #[error("the registry limits how often it can be asked for `{image}`")]
    RateLimited {
        /// The reference.
        image: ImageRef,
        /// When it may be asked again, as the registry says.
        retry_after_seconds: Option<u64>,
    },
    /// The answer is not what a registry answers: a proxy's page, a broken document.
    #[error("the registry's answer for `{image}` makes no sense: {reason}")]
    Nonsense {
        /// The reference.
        image: ImageRef,
        /// What is wrong with it.
        reason: String,
    },
    /// The image exists, but not for this machine.
    #[error("`{image}` is not built for {wanted}; it is for {found}")]
    NoPlatform {
        /// The reference.
        image: ImageRef,
        /// `os/arch[/variant]`.
        wanted: String,
        /// What there is, comma-separated.
        found: String,
    },
    /// The registry failed.
    #[error("the registry failed with status {status} for `{image}`")]
    Failed {
        /// The reference.
        image: ImageRef,
        /// HTTP status.
        status: u16,
    },
    /// A credential store could not be read.
    #[error("could not read the credentials for `{registry}`: {reason}")]
    Credentials {
        /// The registry.
        registry: String,
        /// Why, without any secret.
        reason: String,
    },
}

impl Remedy for RegistryError {
    fn remedy(&self) -> String {
        match self {
            Self::Unreachable { image, .. } => {
                format!("check that {} can be reached from here, then run the same command", image.registry())
            }
            Self::NotFound { .. } => "check the name and the tag, and that it was pushed".to_owned(),
            Self::Denied { image, .. } => format!("log in with `docker login {}` as the user that runs kaleem", image.registry()),
            Self::RateLimited { retry_after_seconds: Some(seconds), .. } => format!("wait {seconds} s, or log in for a higher limit"),
            Self::RateLimited { .. } => "wait a while, or log in for a higher limit".to_owned(),
            Self::Nonsense { image, .. } => {
                format!("check that {} is a registry, and that no proxy or login page stands before it", image.registry())
            }
            Self::NoPlatform { wanted, .. } => format!("build and push it for {wanted}, or set `platform:` in the compose file"),
            Self::Failed { .. } => "wait a moment, then run the same command; if it stays so, look at the registry's own log".to_owned(),
            Self::Credentials { .. } => "mend the docker configuration (`~/.docker/config.json`), or log in again".to_owned(),
        }
    }

    fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::RateLimited { .. } => true,
            Self::Failed { status, .. } => *status >= 500,
            Self::NotFound { .. } | Self::Denied { .. } | Self::Nonsense { .. } | Self::NoPlatform { .. } | Self::Credentials { .. } => {
                false
            }
        }
    }
}

#[cfg(any(feature = "oci", feature = "testing"))]
pub(crate) mod platform;
/// Registries over HTTP.
#[cfg(feature = "oci")]
pub mod oci;

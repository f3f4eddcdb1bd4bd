//! Registries over HTTP: what a tag means now, asked with as few requests and as much doubt as possible.
//!
//! The protocol is spoken directly over `reqwest`, not through a client library: the ones there are read answers of any
//! size, follow redirects by the HTTP client's rules, have no total time limit, drop the reason when a token is refused,
//! and cannot wait as long as a registry asks for. All of these are promises of this module:
//!
//! - What was fetched is believed only when its digest is right.
//! - Credentials go to the registry itself and to the token service that it names over a channel as safe as its own; to
//!   no other host, whatever a redirect says, and in no error.
//! - Without TLS only loopback addresses and the hosts that the caller allows are asked.
//! - Every answer is bounded in size and time, every redirect and retry in number.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Method;
use sha2::{Digest as _, Sha256};

use crate::clock::Clock;
use crate::image::{Digest, ImageRef};
use crate::registry::platform::Platform;
use crate::registry::{ImageRegistry, PullCredentials, RegistryError, ResolvedImage};
use crate::remedy::Remedy;
use crate::secret::Secret;

mod auth;
mod docker_config;
mod documents;
mod http;

pub use docker_config::DockerConfig;

use auth::Tokens;
use documents::Document;
use http::{Ask, Session};

/// Largest manifest that is read, as the distribution protocol recommends.
const MANIFEST_BYTES: usize = 4 * 1024 * 1024;
/// Largest image configuration that is read: a long history can make it larger than a manifest.
const CONFIG_BYTES: usize = 8 * 1024 * 1024;
/// Pages of a list of tags: at 1000 tags a page, more than any registry holds of one image.
const PAGES: usize = 1000;
/// Resolved images that are remembered, so that a tag which did not move costs one request without a body.
const REMEMBERED: usize = 512;

/// How registries are asked.
pub struct OciOptions {
    /// What is shown to registries that want a login.
    pub credentials: Arc<dyn PullCredentials>,
    /// Time, for waiting between attempts and for the life of tokens.
    pub clock: Arc<dyn Clock>,
    /// Registries and token services (`host` or `host:port`, as in image names) that may be asked without TLS, beside
    /// loopback addresses, which always may.
    pub plain_http: Vec<String>,
    /// Each request, from connecting to the last byte of the answer.
    pub timeout: Duration,
    /// How often a request is made before a transient error counts; at least once.
    pub attempts: u32,
    /// Certificates in PEM form which are trusted beside the system's own.
    pub extra_root_certificates: Option<Vec<u8>>,
    /// The proxy for everything that is not on loopback and has TLS; the environment is not looked at.
    pub https_proxy: Option<HttpsProxy>,
}

/// A proxy that tunnels TLS.
#[derive(Clone, Debug)]
pub struct HttpsProxy {
    /// Its address, such as `http://user:password@proxy.example.com:3128`.
    pub address: Secret<String>,
    /// Comma-separated hosts that are asked directly, as in `NO_PROXY`.
    pub except: String,
}

/// Why registries cannot be asked at all; nothing was sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistrySetupError {
    /// The extra certificates are not in PEM form.
    #[error("the extra certificates for registries are not in PEM form")]
    Certificates,
    /// The address of the proxy is none.
    #[error("the address of the proxy for registries is not an address")]
    Proxy,
    /// TLS could not be set up.
    #[error("could not set up TLS for registries")]
    Tls {
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Remedy for RegistrySetupError {
    fn remedy(&self) -> String {
        match self {
            Self::Certificates => "give a file with `-----BEGIN CERTIFICATE-----` blocks".to_owned(),
            Self::Proxy => "write the proxy as `http://host:port`".to_owned(),
            Self::Tls { .. } => "install the system's certificates (package `ca-certificates`)".to_owned(),
        }
    }
}

/// An [`ImageRegistry`] over HTTP.
pub struct OciRegistry {
    options: OciOptions,
    client: reqwest::Client,
    tokens: Tokens,
    remembered: Mutex<HashMap<MemoryKey, ResolvedImage>>,
}

/// Repository, digest of what its tag names, wanted platform.
type MemoryKey = (String, Digest, String);

impl OciRegistry {
    /// Prepares to ask registries; none is asked yet.
    ///
    /// # Errors
    ///
    /// [`RegistrySetupError`] when TLS cannot be set up with these options.
    pub fn new(options: OciOptions) -> Result<Self, RegistrySetupError> {
        // One provider serves the process; that another part of it was first is as good.
        rustls::crypto::ring::default_provider().install_default().ok();
        let tls = |source: reqwest::Error| RegistrySetupError::Tls { source: source.without_url().into() };
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("kaleem/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .connect_timeout(options.timeout.min(Duration::from_secs(10)))
            .timeout(options.timeout);
        if let Some(pem) = &options.extra_root_certificates {
            let certificates = reqwest::Certificate::from_pem_bundle(pem).map_err(|_| RegistrySetupError::Certificates)?;
            if certificates.is_empty() {
                return Err(RegistrySetupError::Certificates);
            }
            builder = builder.tls_certs_merge(certificates);
        }
        if let Some(proxy) = &options.https_proxy {
            let except = format!("localhost,127.0.0.0/8,::1,{}", proxy.except);
            let proxy = reqwest::Proxy::https(proxy.address.expose()).map_err(|_| RegistrySetupError::Proxy)?;
            builder = builder.proxy(proxy.no_proxy(reqwest::NoProxy::from_string(&except)));
        }
        let client = builder.build().map_err(tls)?;
        Ok(Self { options, client, tokens: Tokens::default(), remembered: Mutex::default() })
    }

    fn recall(&self, image: &ImageRef, digest: &Digest, platform: &Platform) -> Option<ResolvedImage> {
        let key = memory_key(image, digest, platform);
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned()
    }

    fn knows(&self, image: &ImageRef) -> bool {
        let repository = image.familiar_repository();
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner).keys().any(|(known, _, _)| *known == repository)
    }

    fn remember(&self, image: &ImageRef, resolved: &ResolvedImage, platform: &Platform) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED {
            remembered.clear();
        }
        remembered.insert(memory_key(image, &resolved.digest, platform), resolved.clone());
    }
}

fn memory_key(image: &ImageRef, digest: &Digest, platform: &Platform) -> MemoryKey {
    (image.familiar_repository(), digest.clone(), platform.to_string())
}

#[async_trait]
impl ImageRegistry for OciRegistry {
    async fn resolve(&self, image: &ImageRef, platform: &str) -> Result<ResolvedImage, RegistryError> {
        let no_platform = |found: String| RegistryError::NoPlatform { image: image.clone(), wanted: platform.to_owned(), found };
        let wanted = Platform::parse(platform).ok_or_else(|| no_platform("any platform written as `os/arch[/variant]`".to_owned()))?;
        let nonsense = |reason| RegistryError::Nonsense { image: image.clone(), reason };
        let mut session = Session::open(self, image).map_err(nonsense)?;
        let repository = image.repository();
        let name = image.digest().map(Digest::as_str).or(image.tag()).unwrap_or("latest");
        let path = format!("/v2/{repository}/manifests/{name}");

        if self.knows(image) {
            let ask = Ask { method: Method::HEAD, path: path.clone(), accept: documents::ACCEPT_MANIFESTS, limit_bytes: 0 };
            if let Some(digest) = session.ask(&ask).await?.announced_digest()
                && image.digest().is_none_or(|asked| *asked == digest)
                && let Some(resolved) = self.recall(image, &digest, &wanted)
            {
                return Ok(resolved);
            }
        }

        let ask = Ask { method: Method::GET, path, accept: documents::ACCEPT_MANIFESTS, limit_bytes: MANIFEST_BYTES };
        let answer = session.ask(&ask).await?;
        // A page of a proxy has the wrong digest too, but that it is a page says more.
        let document = documents::parse_document(&answer.content_type, &answer.body).map_err(nonsense)?;
        let digest = digest_of(&answer.body).map_err(nonsense)?;
        for claimed in [image.digest().cloned(), answer.announced_digest()].into_iter().flatten() {
            check_digest("manifest", &claimed, &digest).map_err(nonsense)?;
        }
        let (manifest_digest, manifest) = match document {
            Document::Manifest(manifest) => (digest.clone(), manifest),
            Document::Index(entries) => {
                let entry = documents::choose(&entries, &wanted).map_err(no_platform)?;
                let path = format!("/v2/{repository}/manifests/{}", entry.digest);
                let ask = Ask { method: Method::GET, path, accept: documents::ACCEPT_MANIFESTS, limit_bytes: MANIFEST_BYTES };
                let answer = session.ask(&ask).await?;
                let document = documents::parse_document(&answer.content_type, &answer.body).map_err(nonsense)?;
                check_digest("manifest", &entry.digest, &digest_of(&answer.body).map_err(nonsense)?).map_err(nonsense)?;
                match document {
                    Document::Manifest(manifest) if entry.size == answer.body.len() as u64 => (entry.digest.clone(), manifest),
                    Document::Manifest(_) => return Err(nonsense("its index gives a wrong size for the manifest".to_owned())),
                    Document::Index(_) => return Err(nonsense("its index holds another index in place of an image".to_owned())),
                }
            }
        };

        let config = &manifest.config;
        let path = format!("/v2/{repository}/blobs/{}", config.digest);
        let answer = session.ask(&Ask { method: Method::GET, path, accept: "*/*", limit_bytes: CONFIG_BYTES }).await?;
        if answer.content_type == "text/html" {
            return Err(nonsense("its image configuration is a page".to_owned()));
        }
        check_digest("image configuration", &config.digest, &digest_of(&answer.body).map_err(nonsense)?).map_err(nonsense)?;
        if config.size != answer.body.len() as u64 {
            return Err(nonsense("its manifest gives a wrong size for the image configuration".to_owned()));
        }
        let (facts, built_for) = documents::parse_config(&answer.body, manifest.layers_bytes).map_err(nonsense)?;
        if let Some(built_for) = built_for
            && !built_for.runs_on(&wanted)
        {
            return Err(no_platform(built_for.to_string()));
        }
        let resolved = ResolvedImage { digest, manifest: manifest_digest, config: config.digest.clone(), facts };
        self.remember(image, &resolved, &wanted);
        Ok(resolved)
    }

    async fn tags(&self, image: &ImageRef) -> Result<Vec<String>, RegistryError> {
        let nonsense = |reason: String| RegistryError::Nonsense { image: image.clone(), reason };
        let mut session = Session::open(self, image).map_err(nonsense)?;
        let mut path = format!("/v2/{}/tags/list?n=1000", image.repository());
        let (mut tags, mut seen) = (Vec::new(), Vec::new());
        while seen.len() < PAGES {
            let ask = Ask { method: Method::GET, path, accept: "application/json", limit_bytes: MANIFEST_BYTES };
            let answer = session.ask(&ask).await?;
            tags.extend(documents::parse_tags(&answer.content_type, &answer.body).map_err(nonsense)?);
            seen.push(ask.path);
            match answer.next_page().map_err(nonsense)? {
                None => {
                    tags.sort_unstable();
                    tags.dedup();
                    return Ok(tags);
                }
                Some(next) if seen.contains(&next) => return Err(nonsense("its list of tags goes round in circles".to_owned())),
                Some(next) => path = next,
            }
        }
        Err(nonsense(format!("its list of tags has more than {PAGES} pages")))
    }
}

fn digest_of(body: &[u8]) -> Result<Digest, String> {
    format!("sha256:{}", hex::encode(Sha256::digest(body))).parse().map_err(|_| "a bug: a hash is no digest".to_owned())
}

fn check_digest(what: &str, claimed: &Digest, found: &Digest) -> Result<(), String> {
    if claimed == found { Ok(()) } else { Err(format!("the {what} is to have the digest {claimed} and has {found}")) }
}

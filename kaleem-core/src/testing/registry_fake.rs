//! A registry in memory which is as strict as a real one: what was not pushed is not there, and what was is immutable.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};

use crate::image::{Digest, ImageError, ImageRef};
use crate::registry::platform::{self, Platform};
use crate::registry::{ImageRegistry, RegistryError, ResolvedImage};
use crate::runtime::ImageFacts;

/// What was asked, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FakeRegistryCall {
    /// [`ImageRegistry::resolve`].
    Resolve {
        /// The reference.
        image: ImageRef,
        /// The platform.
        platform: String,
    },
    /// [`ImageRegistry::tags`].
    Tags {
        /// The reference.
        image: ImageRef,
    },
}

/// How a registry that is out of order answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FakeOutage {
    /// Nobody is there.
    Unreachable,
    /// No credentials are good enough.
    Denied,
    /// Too many requests; when to come back.
    RateLimited(Option<u64>),
    /// A server error with that status.
    Failed(u16),
    /// A page in place of a document.
    Nonsense,
}

/// An [`ImageRegistry`] in memory, for all hosts.
#[derive(Debug, Default)]
pub struct FakeRegistry {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    repositories: BTreeMap<String, Repository>,
    outages: BTreeMap<String, FakeOutage>,
    calls: Vec<FakeRegistryCall>,
}

#[derive(Debug, Default)]
struct Repository {
    tags: BTreeMap<String, Digest>,
    documents: BTreeMap<Digest, Document>,
}

#[derive(Clone, Debug)]
enum Document {
    Manifest(Box<ResolvedImage>),
    Index(Vec<ResolvedImage>),
}

impl FakeRegistry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Pushes an image of one platform under the tag of `image` (which is moved there if it exists); equal facts have equal digests.
    ///
    /// # Errors
    /// [`ImageError`] only if a digest could not be computed.
    pub fn push(&self, image: &ImageRef, facts: ImageFacts) -> Result<ResolvedImage, ImageError> {
        let resolved = resolved_of(facts)?;
        self.put(image, resolved.digest.clone(), [(resolved.digest.clone(), Document::Manifest(Box::new(resolved.clone())))].into());
        Ok(resolved)
    }

    /// Pushes an index of several platforms under the tag of `image`; answers what each resolves to, in the same order.
    ///
    /// # Errors
    /// [`ImageError`] only if a digest could not be computed.
    pub fn push_index(&self, image: &ImageRef, platforms: Vec<ImageFacts>) -> Result<Vec<ResolvedImage>, ImageError> {
        let single: Vec<ResolvedImage> = platforms.into_iter().map(resolved_of).collect::<Result<_, _>>()?;
        let manifests: Vec<&str> = single.iter().map(|one| one.manifest.as_str()).collect();
        let index = digest_of("index", &manifests.join(" "))?;
        let entries: Vec<_> = single.iter().map(|one| ResolvedImage { digest: index.clone(), ..one.clone() }).collect();
        let mut documents: BTreeMap<_, _> = single.into_iter().map(|one| (one.digest.clone(), Document::Manifest(Box::new(one)))).collect();
        documents.insert(index.clone(), Document::Index(entries.clone()));
        self.put(image, index, documents);
        Ok(entries)
    }

    /// Removes a document and the tags that named it, as a clean-up at a registry does.
    pub fn delete(&self, image: &ImageRef, digest: &Digest) {
        self.with(|state| {
            if let Some(repository) = state.repositories.get_mut(&image.familiar_repository()) {
                repository.documents.remove(digest);
                repository.tags.retain(|_, named| named != digest);
            }
        });
    }

    /// From now on every question to `host` fails like that; `None` mends it.
    pub fn set_outage(&self, host: &str, outage: Option<FakeOutage>) {
        self.with(|state| match outage {
            Some(outage) => drop(state.outages.insert(host.to_owned(), outage)),
            None => drop(state.outages.remove(host)),
        });
    }

    /// Everything that was asked so far.
    pub fn calls(&self) -> Vec<FakeRegistryCall> {
        self.with(|state| state.calls.clone())
    }

    fn put(&self, image: &ImageRef, named: Digest, documents: BTreeMap<Digest, Document>) {
        self.with(|state| {
            let repository = state.repositories.entry(image.familiar_repository()).or_default();
            repository.documents.extend(documents);
            if let Some(tag) = image.tag() {
                repository.tags.insert(tag.to_owned(), named);
            }
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn outage(&self, image: &ImageRef) -> Option<RegistryError> {
        let image = image.clone();
        Some(match *self.outages.get(image.registry())? {
            FakeOutage::Unreachable => {
                RegistryError::Unreachable { image, source: io::Error::from(io::ErrorKind::ConnectionRefused).into() }
            }
            FakeOutage::Denied => RegistryError::Denied { image, reason: "it does not allow it without credentials".to_owned() },
            FakeOutage::RateLimited(retry_after_seconds) => RegistryError::RateLimited { image, retry_after_seconds },
            FakeOutage::Failed(status) => RegistryError::Failed { image, status },
            FakeOutage::Nonsense => RegistryError::Nonsense { image, reason: "it is `text/html`, not a manifest".to_owned() },
        })
    }
}

#[async_trait]
impl ImageRegistry for FakeRegistry {
    async fn resolve(&self, image: &ImageRef, platform: &str) -> Result<ResolvedImage, RegistryError> {
        let (outage, document) = self.with(|state| {
            state.calls.push(FakeRegistryCall::Resolve { image: image.clone(), platform: platform.to_owned() });
            let repository = state.repositories.get(&image.familiar_repository());
            let digest = image.digest().or_else(|| repository?.tags.get(image.tag()?));
            (state.outage(image), digest.and_then(|digest| repository?.documents.get(digest)).cloned())
        });
        if let Some(error) = outage {
            return Err(error);
        }
        let document = document.ok_or_else(|| RegistryError::NotFound { image: image.clone() })?;
        let no_platform = |found| RegistryError::NoPlatform { image: image.clone(), wanted: platform.to_owned(), found };
        let wanted = Platform::parse(platform).ok_or_else(|| no_platform("any platform written as `os/arch[/variant]`".to_owned()))?;
        let entries = match document {
            Document::Manifest(resolved) => vec![*resolved],
            Document::Index(entries) => entries,
        };
        let platforms: Vec<_> = entries.iter().filter_map(|entry| Platform::parse(&entry.facts.platform)).collect();
        let best = platform::best(platforms.iter().zip(&entries), &wanted);
        best.cloned().ok_or_else(|| no_platform(platform::list(platforms.iter())))
    }

    async fn tags(&self, image: &ImageRef) -> Result<Vec<String>, RegistryError> {
        let (outage, tags) = self.with(|state| {
            state.calls.push(FakeRegistryCall::Tags { image: image.clone() });
            let repository = state.repositories.get(&image.familiar_repository());
            (state.outage(image), repository.map(|repository| repository.tags.keys().cloned().collect()))
        });
        match outage {
            Some(error) => Err(error),
            None => tags.ok_or_else(|| RegistryError::NotFound { image: image.clone() }),
        }
    }
}

fn resolved_of(facts: ImageFacts) -> Result<ResolvedImage, ImageError> {
    let text = format!("{facts:?}");
    let digest = digest_of("manifest", &text)?;
    Ok(ResolvedImage { manifest: digest.clone(), digest, config: digest_of("config", &text)?, facts })
}

fn digest_of(kind: &str, text: &str) -> Result<Digest, ImageError> {
    format!("sha256:{}", hex::encode(Sha256::digest(format!("{kind} {text}")))).parse()
}

//! Images on the engine.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use bollard::Docker;
use bollard::models::ImageInspect;
use bollard::query_parameters::{CreateImageOptions, RemoveImageOptions, TagImageOptions};
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::failure::{Failure, nonsense};
use super::{DockerRuntime, with_version};
use crate::clock::jittered;
use crate::image::{DEFAULT_REGISTRY, Digest, ImageRef, ImageSource, PinnedImage, build_time};
use crate::registry::{Credential, RegistryError};
use crate::remedy::Remedy as _;
use crate::runtime::{ImageFacts, Images, LocalImage, PullObserver, PullProgress, RuntimeError};

/// How often a pull is tried in all.
const TRIES: u32 = 4;
/// How long a pull may show no progress. Unpacking a large layer on a slow disk is silent.
const SILENCE: Duration = Duration::from_secs(300);

/// What `docker login` stores the default registry under.
const HUB: &str = "https://index.docker.io/v1/";

/// The name of the program in an image that holds only it.
const PROGRAM: &str = "program";

/// A root file system of one program. Nothing in it depends on when or where it was made.
fn one_program(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o755);
    header.set_size(bytes.len() as u64);
    builder.append_data(&mut header, PROGRAM, bytes)?;
    builder.into_inner()
}

fn facts(image: &ImageInspect) -> ImageFacts {
    let config = image.config.clone().unwrap_or_default();
    let check = config.healthcheck.unwrap_or_default();
    let is_check = check.test.as_ref().and_then(|test| test.first()).is_some_and(|kind| kind != "NONE");
    let interval = check.interval.and_then(|nanos| u64::try_from(nanos).ok()).filter(|nanos| *nanos > 0);
    let mut names: Vec<String> =
        config.env.unwrap_or_default().iter().map(|line| line.split('=').next().unwrap_or_default().to_owned()).collect();
    names.sort();
    let sorted = |list: Option<Vec<String>>| {
        let mut list = list.unwrap_or_default();
        list.sort();
        list
    };
    let platform = [image.os.as_deref(), image.architecture.as_deref(), image.variant.as_deref()];
    let platform: Vec<&str> = platform.into_iter().flatten().filter(|part| !part.is_empty()).collect();
    ImageFacts {
        user: config.user.unwrap_or_default(),
        exposed_ports: sorted(config.exposed_ports),
        has_healthcheck: is_check,
        healthcheck_interval: interval.map(Duration::from_nanos).filter(|_| is_check),
        command: config.entrypoint.into_iter().flatten().chain(config.cmd.into_iter().flatten()).collect(),
        environment_names: names,
        labels: config.labels.unwrap_or_default().into_iter().collect(),
        volumes: sorted(config.volumes),
        platform: platform.join("/"),
        size_bytes: image.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
        created: image.created.as_ref().and_then(|time| build_time(time)),
    }
}

fn local_image(image: &ImageInspect) -> Result<LocalImage, RuntimeError> {
    let id: Option<Digest> = image.id.as_deref().and_then(|id| id.parse().ok());
    let Some(id) = id else { return Err(nonsense("inspect an image", "the answer has no id")) };
    let repo_digest = |text: &String| {
        let (repository, digest) = text.split_once('@')?;
        Some((repository.to_owned(), digest.parse().ok()?))
    };
    let repo_digests = image.repo_digests.iter().flatten().filter_map(repo_digest).collect();
    let tags = image.repo_tags.iter().flatten().filter(|tag| !tag.contains("<none>")).cloned().collect();
    Ok(LocalImage { id, repo_digests, tags, facts: facts(image) })
}

/// The value of the header that shows a registry who we are. The engine reads only base64 for URLs, and takes
/// anything else for no credentials at all.
fn credential_header(registry: &str, credential: &Credential) -> String {
    let address = if registry == DEFAULT_REGISTRY { HUB } else { registry };
    let value = match credential {
        Credential::Password { username, password } => {
            serde_json::json!({ "username": username, "password": password.expose(), "serveraddress": address })
        }
        Credential::IdentityToken(token) => serde_json::json!({ "identitytoken": token.expose(), "serveraddress": address }),
    };
    base64::engine::general_purpose::URL_SAFE.encode(value.to_string())
}

/// What the engine's words about a pull mean.
fn pull_error(image: &str, failure: Failure) -> RuntimeError {
    let Some(status) = failure.status() else { return failure.into_error() };
    let words = failure.message().to_lowercase();
    let has = |any: &[&str]| any.iter().any(|text| words.contains(text));
    if has(&["unauthorized", "authentication required", "no basic auth", "denied", "forbidden", "incorrect username or password"]) {
        return RuntimeError::PullDenied { image: image.to_owned() };
    }
    // The status alone proves nothing: a proxy's page has one too.
    if has(&["manifest unknown", "not found", "does not exist", "name unknown", "no such image", "no matching manifest"]) {
        let no_platform = words.contains("no matching manifest");
        let reason = failure.message().to_owned();
        return if no_platform {
            RuntimeError::PullFailed { image: image.to_owned(), reason }
        } else {
            RuntimeError::ImageNotFound { image: image.to_owned() }
        };
    }
    if has(&["no space left", "disk quota"]) {
        let reason = format!("the engine's disk is full ({})", failure.message());
        return RuntimeError::PullFailed { image: image.to_owned(), reason };
    }
    RuntimeError::PullFailed { image: image.to_owned(), reason: format!("{} (status {status})", failure.message()) }
}

/// Whether the same pull may succeed a moment later.
fn is_worth_another_try(error: &RuntimeError) -> bool {
    match error {
        RuntimeError::PullFailed { reason, .. } => {
            let reason = reason.to_lowercase();
            let never =
                ["no space left", "disk quota", "no matching manifest", "certificate", "http response to https", "invalid reference"];
            !never.iter().any(|words| reason.contains(words))
        }
        // An engine that does not answer is not asked again here.
        RuntimeError::Broken { .. } => true,
        other => other.is_transient() && !matches!(other, RuntimeError::Unreachable { .. }),
    }
}

impl DockerRuntime {
    pub(super) async fn inspect_image(&self, reference: &str) -> Result<Option<ImageInspect>, RuntimeError> {
        match self.ask("inspect an image", self.client.inspect_image(reference)).await {
            Ok(image) => Ok(Some(image)),
            Err(failure) if failure.is_missing() => Ok(None),
            // A reference that cannot be one names nothing.
            Err(failure) if failure.message().contains("invalid reference format") => Ok(None),
            Err(failure) => Err(failure.into_error()),
        }
    }

    pub(super) async fn look_at_image(&self, reference: &str) -> Result<Option<LocalImage>, RuntimeError> {
        match self.inspect_image(reference).await? {
            Some(image) => local_image(&image).map(Some),
            None => Ok(None),
        }
    }

    async fn puller(&self, image: &PinnedImage) -> Result<Docker, RuntimeError> {
        let registry = image.image.registry();
        let known = self.credentials.for_registry(registry).await.map_err(|error| {
            let reason = match &error {
                RegistryError::Credentials { reason, .. } => format!("the credentials could not be read: {reason}"),
                other => other.to_string(),
            };
            RuntimeError::PullFailed { image: image.engine_reference(), reason }
        })?;
        let Some(credential) = known else { return Ok(self.client.clone()) };
        let (api, header) = (self.api, credential_header(registry, &credential));
        Ok(self.client.clone().with_request_modifier(move |request| {
            let mut request = with_version(request, api);
            if let Ok(value) = header.parse() {
                request.headers_mut().insert("x-registry-auth", value);
            }
            request
        }))
    }

    async fn pull_once(&self, image: &PinnedImage, platform: Option<&str>, observer: &PullObserver) -> Result<(), RuntimeError> {
        let reference = image.engine_reference();
        let options = CreateImageOptions {
            from_image: Some(image.image.familiar_repository()),
            tag: Some(image.digest.to_string()),
            platform: platform.unwrap_or_default().to_owned(),
            ..CreateImageOptions::default()
        };
        let operation = format!("pull `{reference}`");
        let client = self.puller(image).await?;
        let mut messages = Box::pin(client.create_image(Some(options), None, None));
        let mut layers: HashMap<String, (u64, u64)> = HashMap::new();
        loop {
            let message = match tokio::time::timeout(SILENCE, messages.next()).await {
                Ok(None) => return Ok(()),
                Ok(Some(Ok(message))) => message,
                Ok(Some(Err(error))) => return Err(pull_error(&reference, Failure::new(&operation, &self.endpoint, error))),
                Err(_) => return Err(Failure::silent(&operation, &self.endpoint, SILENCE).into_error()),
            };
            let (Some(layer), Some(status)) = (message.id, message.status) else { continue };
            let progress = message.progress_detail.unwrap_or_default();
            let number = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok()).unwrap_or(0);
            match status.as_str() {
                "Downloading" => {
                    layers.insert(layer, (number(progress.current), number(progress.total)));
                }
                "Download complete" | "Pull complete" => {
                    if let Some((received, total)) = layers.get_mut(&layer) {
                        *received = *total;
                    }
                }
                _ => continue,
            }
            let (received_bytes, total_bytes) = layers
                .values()
                .fold((0_u64, 0_u64), |(received, total), (one, all)| (received.saturating_add(*one), total.saturating_add(*all)));
            observer(PullProgress { received_bytes, total_bytes });
        }
    }

    async fn remove_reference(&self, reference: &str) -> Result<(), Failure> {
        let options = RemoveImageOptions { force: false, noprune: false, platforms: None };
        self.ask("remove the tag", self.client.remove_image(reference, Some(options), None)).await.map(|_| ())
    }
}

#[async_trait]
impl Images for DockerRuntime {
    async fn pull(&self, image: &PinnedImage, platform: Option<&str>, observer: &PullObserver) -> Result<(), RuntimeError> {
        let reference = image.engine_reference();
        let mut tried = 0;
        loop {
            if self.look_at_image(&reference).await?.is_some() {
                return Ok(());
            }
            if image.source == ImageSource::Local {
                return Err(RuntimeError::ImageMissing { image: reference });
            }
            let failed = match self.pull_once(image, platform, observer).await {
                Ok(()) if self.look_at_image(&reference).await?.is_some() => return Ok(()),
                Ok(()) => RuntimeError::PullFailed { image: reference.clone(), reason: "the engine lost it after the pull".to_owned() },
                Err(error) => error,
            };
            tried += 1;
            if tried >= TRIES || !is_worth_another_try(&failed) {
                return Err(failed);
            }
            tokio::time::sleep(jittered(Duration::from_millis(500).saturating_mul(1 << tried))).await;
        }
    }

    async fn image(&self, reference: &str) -> Result<Option<LocalImage>, RuntimeError> {
        self.look_at_image(reference).await
    }

    async fn pin(&self, image: &PinnedImage, pin: &ImageRef) -> Result<(), RuntimeError> {
        let reference = image.engine_reference();
        let options = TagImageOptions { repo: Some(pin.familiar_repository()), tag: pin.tag().map(str::to_owned) };
        match self.ask("tag the image", self.client.tag_image(&reference, Some(options))).await {
            Ok(()) => Ok(()),
            Err(failure) if failure.is_missing() => Err(RuntimeError::ImageMissing { image: reference }),
            Err(failure) => Err(failure.into_error()),
        }
    }

    async fn assemble(&self, tag: &ImageRef, program: &Path) -> Result<LocalImage, RuntimeError> {
        let refused = |source: std::io::Error| RuntimeError::ProgramUnreadable { path: program.to_path_buf(), source };
        let bytes = tokio::fs::read(program).await.map_err(refused)?;
        let archive = one_program(&bytes).map_err(refused)?;
        let options = CreateImageOptions {
            from_src: Some("-".to_owned()),
            repo: Some(tag.familiar_repository()),
            tag: tag.tag().map(str::to_owned),
            changes: vec![format!("ENTRYPOINT [\"/{PROGRAM}\"]")],
            ..CreateImageOptions::default()
        };
        let stream = self.client.create_image(Some(options), Some(bollard::body_full(archive.into())), None);
        let import = async { stream.try_for_each(|_| async { Ok(()) }).await };
        self.ask_for("make an image", SILENCE, import).await.map_err(Failure::into_error)?;
        let reference = tag.to_string();
        self.look_at_image(&reference).await?.ok_or(RuntimeError::ImageMissing { image: reference })
    }

    async fn unpin(&self, pin: &ImageRef) -> Result<(), RuntimeError> {
        let Some(tag) = pin.tag() else { return Err(nonsense("remove the tag", format!("`{pin}` has no tag"))) };
        let tag = format!("{}:{tag}", pin.familiar_repository());
        let Some(image) = self.look_at_image(&tag).await? else { return Ok(()) };
        match self.remove_reference(&tag).await {
            Ok(()) => {}
            Err(failure) if failure.is_missing() => {}
            Err(failure) if failure.status() == Some(409) => return Err(RuntimeError::InUse { name: tag }),
            Err(failure) => return Err(failure.into_error()),
        }
        // What was pulled by digest keeps a name without a tag; with the last tag it goes too, unless something uses it.
        if let Some(left) = self.look_at_image(image.id.as_str()).await?
            && left.tags.is_empty()
        {
            for (repository, digest) in &left.repo_digests {
                match self.remove_reference(&format!("{repository}@{digest}")).await {
                    Ok(()) => {}
                    Err(failure) if failure.is_missing() || failure.status() == Some(409) => {}
                    Err(failure) => return Err(failure.into_error()),
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;
    use bollard::errors::Error as ClientError;

    #[test]
    fn the_words_of_a_failed_pull_tell_what_to_do() {
        let pull = |message: &str| {
            let error = ClientError::DockerStreamError { error: message.to_owned() };
            pull_error("a@b", Failure::new("pull", "unix:///x", error))
        };
        assert!(matches!(pull("manifest for a@b not found: manifest unknown: manifest unknown"), RuntimeError::ImageNotFound { .. }));
        assert!(matches!(pull("pull access denied for a, repository does not exist"), RuntimeError::PullDenied { .. }));
        assert!(matches!(pull("Head \"http://x/v2/\": no basic auth credentials"), RuntimeError::PullDenied { .. }));
        let full = pull("failed to register layer: write /a: no space left on device");
        assert!(
            matches!(&full, RuntimeError::PullFailed { reason, .. } if reason.contains("disk is full")) && !is_worth_another_try(&full)
        );
        assert!(is_worth_another_try(&pull("dial tcp 127.0.0.1:5000: connect: connection refused")));
    }

    #[test]
    fn credentials_are_sent_in_the_only_form_that_the_engine_reads() {
        // This password makes `+` and `/` in plain base64.
        let password = Secret::new("\u{ff}\u{fe}??>>~~".to_owned());
        let header = credential_header("host:5000", &Credential::Password { username: "me".to_owned(), password });
        assert!(!header.contains(['+', '/']), "{header}");
        let decoded = base64::engine::general_purpose::URL_SAFE.decode(&header).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&decoded).unwrap();
        assert_eq!((value["username"].as_str(), value["serveraddress"].as_str()), (Some("me"), Some("host:5000")));
    }
}

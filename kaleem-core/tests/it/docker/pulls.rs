//! Pulls by digest: logins, failures that pass, and those that do not.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use kaleem_core::image::PinnedImage;
use kaleem_core::registry::{Anonymous, Credential, PullCredentials, RegistryError};
use kaleem_core::runtime::docker::{DockerOptions, DockerRuntime};
use kaleem_core::runtime::{Images as _, PullProgress, RuntimeError};
use kaleem_core::secret::Secret;

use super::lab::{self, Lab, lab};
use super::registry::Registry;

struct Login {
    host: String,
    password: String,
}

#[async_trait]
impl PullCredentials for Login {
    async fn for_registry(&self, host: &str) -> Result<Option<Credential>, RegistryError> {
        let credential = Credential::Password { username: "me".to_owned(), password: Secret::new(self.password.clone()) };
        Ok((host == self.host).then_some(credential))
    }
}

async fn runtime(credentials: Arc<dyn PullCredentials>) -> DockerRuntime {
    let endpoint = lab::variable("DOCKER_HOST");
    DockerRuntime::connect(&DockerOptions { credentials, ..lab::options(endpoint.as_deref()) }).await.unwrap()
}

fn image(lab: &Lab, name: &str) -> lab::Pieces {
    let unique = format!("{name} {}", std::process::id());
    // The layer is new to the engine, too: else it is not fetched.
    let mut program = lab.program.clone();
    program.extend_from_slice(unique.as_bytes());
    lab::pieces(&program, &serde_json::json!({ "Entrypoint": ["/app"], "Labels": { "unique": unique } }))
}

async fn forget(lab: &Lab, image: &PinnedImage) {
    let options = bollard::query_parameters::RemoveImageOptions::default();
    lab.docker.remove_image(&image.engine_reference(), Some(options), None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_shows_its_login_and_tells_its_progress_and_comes_once() {
    let Some(lab) = lab().await else { return };
    // In plain base64 this password makes characters which the engine does not read.
    let password = "p?>~\u{ff}\u{fe}>>>???".to_owned();
    let registry = Registry::serve(image(lab, "login"), Some(("me", &password)), 0).await;
    let host = registry.address.clone();

    let nobody = runtime(Arc::new(Anonymous)).await;
    let refused = nobody.pull(&registry.image, None, &|_| ()).await;
    assert!(matches!(refused, Err(RuntimeError::PullDenied { .. })), "{refused:?}");
    let wrong = runtime(Arc::new(Login { host: host.clone(), password: "hunter2".to_owned() })).await;
    let refused = wrong.pull(&registry.image, None, &|_| ()).await;
    assert!(matches!(refused, Err(RuntimeError::PullDenied { .. })), "{refused:?}");
    assert!(!format!("{refused:?}").contains("hunter2"), "{refused:?}");

    let runtime = runtime(Arc::new(Login { host, password })).await;
    let seen: Arc<Mutex<Vec<PullProgress>>> = Arc::default();
    let told = Arc::clone(&seen);
    runtime.pull(&registry.image, None, &move |progress| told.lock().unwrap().push(progress)).await.unwrap();
    let sent = registry.blobs_sent();
    runtime.pull(&registry.image, None, &|_| ()).await.unwrap();
    assert_eq!(registry.blobs_sent(), sent, "the second pull downloads nothing");
    let last = *seen.lock().unwrap().last().expect("progress was told");
    assert!(last.total_bytes > 0 && last.received_bytes == last.total_bytes, "{last:?}");
    forget(lab, &registry.image).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_is_tried_again_when_the_registry_fails_for_a_while() {
    let Some(lab) = lab().await else { return };
    let registry = Registry::serve(image(lab, "again"), None, 2).await;
    lab.runtime.pull(&registry.image, None, &|_| ()).await.unwrap();
    forget(lab, &registry.image).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_of_what_the_registry_does_not_have_is_not_tried_again() {
    let Some(lab) = lab().await else { return };
    let registry = Registry::serve(image(lab, "missing"), None, 0).await;
    let digest = format!("sha256:{}", "a".repeat(64)).parse().unwrap();
    let missing = PinnedImage { digest, ..registry.image.clone() };
    let answer = lab.runtime.pull(&missing, None, &|_| ()).await;
    assert!(matches!(answer, Err(RuntimeError::ImageNotFound { .. })), "{answer:?}");
    assert_eq!(registry.blobs_sent(), 0);
}

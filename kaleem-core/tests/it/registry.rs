//! The seam of the registry: one contract for the fake and for a real server, and what its errors say.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kaleem_core::image::{Digest, ImageRef};
use kaleem_core::registry::oci::{OciRegistry, RegistrySetupError};
use kaleem_core::registry::{ImageRegistry, RegistryError, ResolvedImage};
use kaleem_core::remedy::{Remedy, one_line};
use kaleem_core::runtime::ImageFacts;
use kaleem_core::testing::registry_contract::{self, RegistryWorld};
use kaleem_core::testing::registry_fake::{FakeOutage, FakeRegistry, FakeRegistryCall};
use serde_json::json;

mod server;
mod faults;
mod logins;

use server::{DockerRegistry, Pusher, options};

struct FakeWorld(FakeRegistry);

#[async_trait]
impl RegistryWorld for FakeWorld {
    fn registry(&self) -> &dyn ImageRegistry {
        &self.0
    }

    fn host(&self) -> String {
        "registry.example.com:5000".to_owned()
    }

    async fn push(&self, image: &ImageRef, facts: ImageFacts) -> ResolvedImage {
        self.0.push(image, facts).unwrap()
    }

    async fn push_index(&self, image: &ImageRef, platforms: Vec<ImageFacts>) -> Vec<ResolvedImage> {
        self.0.push_index(image, platforms).unwrap()
    }

    async fn delete(&self, image: &ImageRef, digest: &Digest) {
        self.0.delete(image, digest);
    }
}

struct RealWorld {
    server: DockerRegistry,
    registry: OciRegistry,
    pusher: Pusher,
    docker: bool,
}

#[async_trait]
impl RegistryWorld for RealWorld {
    fn registry(&self) -> &dyn ImageRegistry {
        &self.registry
    }

    fn host(&self) -> String {
        self.server.host.clone()
    }

    async fn push(&self, image: &ImageRef, facts: ImageFacts) -> ResolvedImage {
        self.pusher.image(image.repository(), image.tag(), &facts, self.docker).await.0
    }

    async fn push_index(&self, image: &ImageRef, platforms: Vec<ImageFacts>) -> Vec<ResolvedImage> {
        self.pusher.index(image.repository(), image.tag().unwrap(), &platforms, self.docker).await
    }

    async fn delete(&self, image: &ImageRef, digest: &Digest) {
        let url = format!("{}/v2/{}/manifests/{digest}", self.pusher.base, image.repository());
        assert_eq!(self.pusher.request(reqwest::Method::DELETE, &url).send().await.unwrap().status(), 202);
    }
}

#[tokio::test]
async fn the_fake_keeps_the_contract() {
    let wrong = registry_contract::check(&FakeWorld(FakeRegistry::new())).await;
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn a_real_registry_keeps_the_contract_with_images_of_both_kinds() {
    for docker in [true, false] {
        let Some(server) = DockerRegistry::start("a_real_registry_keeps_the_contract", &json!({}), |_| ()) else { return };
        let registry = OciRegistry::new(options(&Arc::default())).unwrap();
        let pusher = Pusher::new(&server.host);
        let wrong = registry_contract::check(&RealWorld { server, registry, pusher, docker }).await;
        assert!(wrong.is_empty(), "docker: {docker}: {wrong:#?}");
    }
}

#[tokio::test]
async fn an_image_for_another_machine_only_is_an_image_all_the_same() {
    let Some(server) = DockerRegistry::start("an_image_for_another_machine", &json!({}), |_| ()) else { return };
    let registry = OciRegistry::new(options(&Arc::default())).unwrap();
    let pusher = Pusher::new(&server.host);
    let platform = |platform: &str| ImageFacts { platform: platform.to_owned(), ..ImageFacts::default() };
    // A configuration that does not say what it is for runs anywhere: the engine takes it too.
    let (mute, _) = pusher.image("mute", Some("1"), &platform(""), true).await;
    let found = registry.resolve(&server.image("mute:1"), "linux/amd64").await.unwrap();
    assert_eq!(found, mute);
    // An index of one entry without a platform is what some builders push for a single image.
    let (image, size) = pusher.image("bare", None, &platform("linux/amd64"), false).await;
    let index = json!({"schemaVersion": 2, "mediaType": server::OCI_INDEX,
        "manifests": [{"mediaType": server::OCI_MANIFEST, "digest": image.manifest, "size": size}]});
    pusher.manifest("bare", "1", server::OCI_INDEX, &index).await;
    assert_eq!(registry.resolve(&server.image("bare:1"), "linux/amd64").await.unwrap().manifest, image.manifest);
    let foreign = registry.resolve(&server.image("bare:1"), "linux/arm64").await;
    assert!(matches!(&foreign, Err(RegistryError::NoPlatform { found, .. }) if found == "linux/amd64"), "{foreign:?}");
}

#[tokio::test]
async fn an_outage_of_the_fake_is_each_error_that_it_names() {
    let fake = FakeRegistry::new();
    let image: ImageRef = "ghcr.io/team/app:1".parse().unwrap();
    fake.push(&image, ImageFacts { platform: "linux/amd64".to_owned(), ..ImageFacts::default() }).unwrap();
    for (outage, transient) in [
        (FakeOutage::Unreachable, true),
        (FakeOutage::Denied, false),
        (FakeOutage::RateLimited(Some(7)), true),
        (FakeOutage::Failed(503), true),
        (FakeOutage::Nonsense, false),
    ] {
        fake.set_outage("ghcr.io", Some(outage));
        let error = fake.resolve(&image, "linux/amd64").await.unwrap_err();
        assert_eq!(error.is_transient(), transient, "{outage:?}: {error}");
        assert!(fake.tags(&image).await.is_err(), "{outage:?}");
    }
    fake.set_outage("ghcr.io", None);
    assert_eq!(fake.tags(&image).await.unwrap(), ["1"]);
    assert_eq!(fake.calls().last(), Some(&FakeRegistryCall::Tags { image }));
}

#[test]
fn every_error_says_what_and_what_to_do() {
    let image = || "ghcr.io/team/app:1.2".parse::<ImageRef>().unwrap();
    let mut text = String::new();
    let mut add = |error: &dyn Remedy, line: String| text = format!("{text}{line}\n  help: {}\n", error.remedy());
    for error in [
        RegistryError::Unreachable { image: image(), source: io::Error::from(io::ErrorKind::ConnectionRefused).into() },
        RegistryError::NotFound { image: image() },
        RegistryError::Denied { image: image(), reason: "it does not allow it without credentials (UNAUTHORIZED)".to_owned() },
        RegistryError::RateLimited { image: image(), retry_after_seconds: Some(90) },
        RegistryError::RateLimited { image: image(), retry_after_seconds: None },
        RegistryError::Nonsense { image: image(), reason: "it is `text/html`, not a manifest".to_owned() },
        RegistryError::NoPlatform { image: image(), wanted: "linux/amd64".to_owned(), found: "linux/arm64, linux/s390x".to_owned() },
        RegistryError::Failed { image: image(), status: 503 },
        RegistryError::Credentials { registry: "ghcr.io".to_owned(), reason: "there is no program `docker-credential-x`".to_owned() },
    ] {
        add(&error, one_line(&error));
    }
    let source = io::Error::from(io::ErrorKind::NotFound).into();
    for error in [RegistrySetupError::Certificates, RegistrySetupError::Proxy, RegistrySetupError::Tls { source }] {
        add(&error, one_line(&error));
    }
    insta::assert_snapshot!(text, @r#"
could not ask the registry for `ghcr.io/team/app:1.2`: connection refused
  help: check that ghcr.io can be reached from here, then run the same command
the registry has no image `ghcr.io/team/app:1.2`
  help: check the name and the tag, and that it was pushed
the registry does not let us read `ghcr.io/team/app:1.2`: it does not allow it without credentials (UNAUTHORIZED)
  help: log in with `docker login ghcr.io` as the user that runs kaleem
the registry limits how often it can be asked for `ghcr.io/team/app:1.2`
  help: wait 90 s, or log in for a higher limit
the registry limits how often it can be asked for `ghcr.io/team/app:1.2`
  help: wait a while, or log in for a higher limit
the registry's answer for `ghcr.io/team/app:1.2` makes no sense: it is `text/html`, not a manifest
  help: check that ghcr.io is a registry, and that no proxy or login page stands before it
`ghcr.io/team/app:1.2` is not built for linux/amd64; it is for linux/arm64, linux/s390x
  help: build and push it for linux/amd64, or set `platform:` in the compose file
the registry failed with status 503 for `ghcr.io/team/app:1.2`
  help: wait a moment, then run the same command; if it stays so, look at the registry's own log
could not read the credentials for `ghcr.io`: there is no program `docker-credential-x`
  help: mend the docker configuration (`~/.docker/config.json`), or log in again
the extra certificates for registries are not in PEM form
  help: give a file with `-----BEGIN CERTIFICATE-----` blocks
the address of the proxy for registries is not an address
  help: write the proxy as `http://host:port`
could not set up TLS for registries: entity not found
  help: install the system's certificates (package `ca-certificates`)
"#);
}

#[test]
fn a_registry_that_cannot_be_set_up_says_so_before_it_is_asked() {
    use kaleem_core::registry::oci::{HttpsProxy, OciOptions};
    use kaleem_core::secret::Secret;
    let clock = Arc::default();
    for pem in [&b""[..], b"no certificate", b"-----BEGIN CERTIFICATE-----\nAAAA"] {
        let result = OciRegistry::new(OciOptions { extra_root_certificates: Some(pem.to_vec()), ..options(&clock) });
        assert!(matches!(result.err(), Some(RegistrySetupError::Certificates)), "{}", String::from_utf8_lossy(pem));
    }
    let proxy = HttpsProxy { address: Secret::new("http://:::".to_owned()), except: String::new() };
    let result = OciRegistry::new(OciOptions { https_proxy: Some(proxy), timeout: Duration::from_secs(1), ..options(&clock) });
    assert!(matches!(result.err(), Some(RegistrySetupError::Proxy)));
}

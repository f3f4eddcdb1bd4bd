//! Registries and image references.

use insta::assert_snapshot;
use kaleem_core::image::{Digest, ImageError, ImageRef};
use kaleem_core::registry::RegistryError;
use kaleem_core::registry::oci::RegistrySetupError;
use rustix::io::Errno;

use super::{made, system, told};

#[test]
fn registry() {
    let image = || made::<ImageRef>("registry.example.com/shop/api:v2");
    assert_snapshot!(told(&[
        &RegistryError::Unreachable { image: image(), source: Box::new(system(Errno::CONNREFUSED)) },
        &RegistryError::NotFound { image: image() },
        &RegistryError::Denied { image: image(), reason: "no credentials were given".to_owned() },
        &RegistryError::RateLimited { image: image(), retry_after_seconds: Some(90) },
        &RegistryError::RateLimited { image: image(), retry_after_seconds: None },
        &RegistryError::Nonsense { image: image(), reason: "it is `text/html`, not a manifest".to_owned() },
        &RegistryError::NoPlatform { image: image(), wanted: "linux/amd64".to_owned(), found: "linux/arm64".to_owned() },
        &RegistryError::Failed { image: image(), status: 503 },
        &RegistryError::Failed { image: image(), status: 405 },
        &RegistryError::Credentials { registry: "registry.example.com".to_owned(), reason: "the helper `pass` failed".to_owned() },
        &RegistrySetupError::Certificates,
        &RegistrySetupError::Proxy,
        &RegistrySetupError::Tls { source: Box::new(system(Errno::NOENT)) },
    ]));
}

#[test]
fn image() {
    let reference = "Shop/API".parse::<ImageRef>().unwrap_err();
    let digest = "sha256:12".parse::<Digest>().unwrap_err();
    assert!(matches!((&reference, &digest), (ImageError::Reference { .. }, ImageError::Digest { .. })));
    assert_snapshot!(told(&[&reference, &digest]));
}

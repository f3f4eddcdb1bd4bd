//! From settings to a probe: one place that knows which kinds this build has.

use std::sync::Arc;

use kaleem_core::health::{HealthProbe, Resolver};

use crate::settings::{ProbeSettings, SettingsError};

/// Makes the probe that `settings` describe. Nothing is connected yet.
///
/// `resolver` says where the names in the settings are reached from here: [`KnownHosts`](crate::KnownHosts) with the
/// addresses of the project's containers.
///
/// # Errors
/// [`SettingsError`] when an address, a rule or a certificate cannot be read, or this build has no probe of that kind.
#[cfg_attr(
    not(any(feature = "http", feature = "tcp", feature = "redis", feature = "certificate", feature = "mongodb")),
    expect(unused_variables, clippy::needless_pass_by_value, reason = "a disk has no name to resolve")
)]
pub fn build_probe(name: &str, settings: &ProbeSettings, resolver: Arc<dyn Resolver>) -> Result<Arc<dyn HealthProbe>, SettingsError> {
    match settings {
        #[cfg(feature = "http")]
        ProbeSettings::Http(settings) => Ok(Arc::new(crate::HttpProbe::new(name, settings.clone(), resolver)?)),
        #[cfg(feature = "spa")]
        ProbeSettings::Spa(settings) => Ok(Arc::new(crate::SpaProbe::new(name, settings.clone(), resolver)?)),
        #[cfg(feature = "tcp")]
        ProbeSettings::Tcp(settings) => Ok(Arc::new(crate::TcpProbe::new(name, settings.clone(), resolver))),
        #[cfg(feature = "redis")]
        ProbeSettings::Redis(settings) => Ok(Arc::new(crate::RedisProbe::new(name, settings.clone(), resolver)?)),
        #[cfg(feature = "rabbitmq")]
        ProbeSettings::Rabbitmq(settings) => Ok(Arc::new(crate::RabbitmqProbe::new(name, settings.clone(), resolver)?)),
        #[cfg(feature = "mongodb")]
        ProbeSettings::Mongodb(settings) => Ok(Arc::new(crate::MongodbProbe::new(name, settings.clone(), resolver)?)),
        #[cfg(feature = "qdrant")]
        ProbeSettings::Qdrant(settings) => Ok(Arc::new(crate::QdrantProbe::new(name, settings.clone(), resolver)?)),
        #[cfg(feature = "disk")]
        ProbeSettings::Disk(settings) => Ok(Arc::new(crate::DiskProbe::new(name, settings.clone()))),
        #[cfg(feature = "certificate")]
        ProbeSettings::Certificate(settings) => Ok(Arc::new(crate::CertificateProbe::new(name, settings.clone(), resolver)?)),
        #[cfg(not(all(
            feature = "spa",
            feature = "tcp",
            feature = "redis",
            feature = "rabbitmq",
            feature = "mongodb",
            feature = "qdrant",
            feature = "disk",
            feature = "certificate"
        )))]
        other => Err(SettingsError::NotBuilt { kind: other.kind() }),
    }
}

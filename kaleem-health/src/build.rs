//! From settings to a probe: one place that knows which kinds this build has.

use std::sync::Arc;

use kaleem_core::health::HealthProbe;

use crate::reach::Reach;
use crate::settings::{ProbeSettings, SettingsError};

/// Makes the probe that `settings` describe. Nothing is connected yet.
///
/// `reach` says where the names in the settings are reached from here ([`KnownHosts`](crate::KnownHosts) with the
/// addresses of the project's containers), and which engine knows the containers.
///
/// # Errors
/// [`SettingsError`] when an address, a rule or a certificate cannot be read, or this build has no probe of that kind.
pub fn build_probe(name: &str, settings: &ProbeSettings, reach: &Reach) -> Result<Arc<dyn HealthProbe>, SettingsError> {
    match settings {
        #[cfg(feature = "http")]
        ProbeSettings::Http(settings) => Ok(Arc::new(crate::HttpProbe::new(name, settings.clone(), reach.names.clone())?)),
        #[cfg(feature = "spa")]
        ProbeSettings::Spa(settings) => Ok(Arc::new(crate::SpaProbe::new(name, settings.clone(), reach.names.clone())?)),
        #[cfg(feature = "tcp")]
        ProbeSettings::Tcp(settings) => Ok(Arc::new(crate::TcpProbe::new(name, settings.clone(), reach.names.clone()))),
        #[cfg(feature = "redis")]
        ProbeSettings::Redis(settings) => Ok(Arc::new(crate::RedisProbe::new(name, settings.clone(), reach.names.clone())?)),
        #[cfg(feature = "rabbitmq")]
        ProbeSettings::Rabbitmq(settings) => Ok(Arc::new(crate::RabbitmqProbe::new(name, settings.clone(), reach.names.clone())?)),
        #[cfg(feature = "mongodb")]
        ProbeSettings::Mongodb(settings) => Ok(Arc::new(crate::MongodbProbe::new(name, settings.clone(), reach.names.clone())?)),
        #[cfg(feature = "qdrant")]
        ProbeSettings::Qdrant(settings) => Ok(Arc::new(crate::QdrantProbe::new(name, settings.clone(), reach.names.clone())?)),
        #[cfg(feature = "disk")]
        ProbeSettings::Disk(settings) => Ok(Arc::new(crate::DiskProbe::new(name, settings.clone()))),
        #[cfg(feature = "certificate")]
        ProbeSettings::Certificate(settings) => Ok(Arc::new(crate::CertificateProbe::new(name, settings.clone(), reach.names.clone())?)),
        #[cfg(feature = "container")]
        ProbeSettings::Container(settings) => Ok(Arc::new(crate::ContainerProbe::new(name, settings.clone(), reach))),
        #[cfg(feature = "command")]
        ProbeSettings::Command(settings) => Ok(Arc::new(crate::CommandProbe::new(name, settings.clone(), reach)?)),
        #[cfg(not(all(
            feature = "http",
            feature = "spa",
            feature = "container",
            feature = "command",
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

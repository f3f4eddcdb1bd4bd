//! Volumes of the project, through the image of a service that has them.

use std::sync::Arc;

use kaleem_core::backup::{BackupSource, SourceIdentity, SourceKind};
use kaleem_core::config::settings::backup::SourceSettings;
use kaleem_core::definition::MountSource;
use kaleem_core::names::{ArtifactName, ServiceName, VolumeName};

use super::drill::container;
use super::{SetUpError, Surroundings};
use crate::source::away::AwaySource;
use crate::source::volume::VolumeSource;

pub(super) async fn source(
    around: &Surroundings<'_>,
    name: &ArtifactName,
    said: &SourceSettings,
    notes: &mut Vec<String>,
) -> Result<Arc<dyn BackupSource>, SetUpError> {
    let key = said.volume.clone().unwrap_or_default();
    let unusable = |reason: String| SetUpError::Address { name: name.clone(), reason };
    let Some(volume) = around.project.volumes.get(&key).map(|volume| volume.name.clone()) else {
        return Err(unusable(format!("the compose file has no volume `{key}`")));
    };
    let service = said.service.clone().or_else(|| user_of(around, &volume));
    let service = service.ok_or_else(|| unusable(format!("no service uses the volume `{key}`: name one with `service`")))?;
    match (container(around, &service).await, around.runtime.clone()) {
        (Ok(container), Some(runtime)) => {
            let source = VolumeSource::new(name.clone(), runtime, &around.project.name, volume, (service, container.image));
            Ok(Arc::new(source.map_err(|error| unusable(error.to_string()))?))
        }
        (Err(reason), _) => Ok(away(name, &key, reason, notes)),
        (Ok(_), None) => Ok(away(name, &key, "the container engine does not answer".to_owned(), notes)),
    }
}

fn away(name: &ArtifactName, key: &str, reason: String, notes: &mut Vec<String>) -> Arc<dyn BackupSource> {
    notes.push(format!("`{name}` cannot be reached now: {reason}"));
    let identity = SourceIdentity { name: name.clone(), kind: SourceKind::Files };
    Arc::new(AwaySource::new(identity, format!("the volume `{key}`"), reason))
}

/// The first service that has the volume.
fn user_of(around: &Surroundings<'_>, volume: &VolumeName) -> Option<ServiceName> {
    let has = |mount: &kaleem_core::definition::Mount| matches!(&mount.source, MountSource::Volume { name, .. } if name == volume);
    around.project.services.values().find(|service| service.definition.mounts.iter().any(has)).map(|service| service.name.clone())
}

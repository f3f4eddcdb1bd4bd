//! Owner marks are volumes without data: the engine makes one of a name once, and answers everybody else with the labels it was made with.
//!
//! Nothing is mounted from them. `docker volume prune` of old engines may remove them: ownership is then read off the labels of containers.

use std::collections::HashMap;

use async_trait::async_trait;
use bollard::models::{Volume, VolumeCreateRequest};
use bollard::query_parameters::{ListVolumesOptions, RemoveVolumeOptions};

use super::DockerRuntime;
use super::failure::Failure;
use crate::names::ProjectName;
use crate::runtime::marks::{MARK_FORMAT, Marks, OwnerMark};
use crate::runtime::{RuntimeError, kaleem_labels};

/// The name of a mark. No project has a dot in its name, so it cannot be that of another project's.
fn name_of(project: &ProjectName, number: u64) -> String {
    format!("kaleem.owner.{project}.{number}")
}

fn read(volume: &Volume) -> Result<OwnerMark, RuntimeError> {
    let unreadable = |reason: String| RuntimeError::MarkUnreadable { name: volume.name.clone(), reason };
    let text = volume.labels.get(kaleem_labels::MARK).ok_or_else(|| unreadable("it has no label of kaleem".to_owned()))?;
    let mark: OwnerMark = serde_json::from_str(text).map_err(|error| unreadable(error.to_string()))?;
    if mark.format > MARK_FORMAT {
        return Err(unreadable(format!("its format is {}, and this kaleem reads up to {MARK_FORMAT}", mark.format)));
    }
    Ok(mark)
}

#[async_trait]
impl Marks for DockerRuntime {
    async fn marks(&self, project: &ProjectName) -> Result<Vec<OwnerMark>, RuntimeError> {
        let labels = vec![format!("{}={project}", kaleem_labels::PROJECT), kaleem_labels::MARK.to_owned()];
        let options = ListVolumesOptions { filters: Some(HashMap::from([("label".to_owned(), labels)])) };
        let found = self.ask("list owner marks", self.client.list_volumes(Some(options))).await.map_err(Failure::into_error)?;
        let mut marks = found.volumes.unwrap_or_default().iter().map(read).collect::<Result<Vec<_>, _>>()?;
        marks.sort_by_key(|mark| mark.number);
        Ok(marks)
    }

    async fn put_mark(&self, project: &ProjectName, mark: &OwnerMark) -> Result<OwnerMark, RuntimeError> {
        let text = serde_json::to_string(mark).unwrap_or_default();
        let labels = [(kaleem_labels::PROJECT, project.to_string()), (kaleem_labels::MARK, text)];
        let request = VolumeCreateRequest {
            name: Some(name_of(project, mark.number)),
            labels: Some(labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
            ..VolumeCreateRequest::default()
        };
        let made = self.ask("put an owner mark", self.client.create_volume(request)).await.map_err(Failure::into_error)?;
        read(&made)
    }

    async fn remove_mark(&self, project: &ProjectName, number: u64) -> Result<(), RuntimeError> {
        let name = name_of(project, number);
        match self.ask("remove an owner mark", self.client.remove_volume(&name, None::<RemoveVolumeOptions>)).await {
            Ok(()) => Ok(()),
            Err(failure) if failure.is_missing() => Ok(()),
            Err(failure) => Err(failure.into_error()),
        }
    }
}

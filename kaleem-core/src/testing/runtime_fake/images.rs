//! Images, networks and volumes of the fake.

use std::collections::BTreeMap;
use std::path::Path;

use async_trait::async_trait;

use super::world::{StoredImage, World, refused};
use super::{FakeImage, FakeOperation, FakeRuntime};
use crate::definition::{NetworkDefinition, VolumeDefinition};
use crate::image::{Digest, ImageRef, ImageSource, PinnedImage};
use crate::names::{NetworkName, ProjectName, VolumeName};
use crate::runtime::{Images, LocalImage, PullObserver, PullProgress, Resources, RuntimeError};

/// A tag as the engine prints it.
fn tag_of(image: &ImageRef) -> Option<String> {
    image.tag().map(|tag| format!("{}:{tag}", image.familiar_repository()))
}

impl World {
    pub(super) fn store_image(&mut self, pinned: &PinnedImage, image: FakeImage, tagged: bool) {
        let id = image.id.clone();
        let stored = self.images.entry(id.clone()).or_insert_with(|| StoredImage { image, repo_digests: Vec::new() });
        let repo_digest = (pinned.image.familiar_repository(), pinned.digest.clone());
        if pinned.source == ImageSource::Registry && !stored.repo_digests.contains(&repo_digest) {
            stored.repo_digests.push(repo_digest);
        }
        if let Some(tag) = tag_of(&pinned.image).filter(|_| tagged) {
            self.tags.insert(tag, id);
        }
    }

    pub(super) fn lose_image(&mut self, reference: &str) {
        if let Some(id) = self.find_image(reference) {
            self.images.remove(&id);
            self.tags.retain(|_, tagged| *tagged != id);
        }
    }

    /// The id of the image under a tag, `repository@digest`, or an id.
    pub(super) fn find_image(&self, reference: &str) -> Option<Digest> {
        if let Some((id, _)) = self.images.iter().find(|(id, _)| id.as_str() == reference) {
            return Some(id.clone());
        }
        let image: ImageRef = reference.parse().ok()?;
        match image.digest() {
            Some(digest) => {
                let wanted = (image.familiar_repository(), digest.clone());
                self.images.iter().find(|(_, stored)| stored.repo_digests.contains(&wanted)).map(|(id, _)| id.clone())
            }
            None => self.tags.get(&tag_of(&image)?).cloned(),
        }
    }

    fn pull(&mut self, image: &PinnedImage, platform: Option<&str>, observer: &PullObserver) -> Result<(), RuntimeError> {
        let reference = image.engine_reference();
        if self.find_image(&reference).is_some() {
            return Ok(());
        }
        if image.source == ImageSource::Local {
            return Err(RuntimeError::ImageMissing { image: reference });
        }
        let Some(found) = self.remote.get(&reference).cloned() else { return Err(RuntimeError::ImageNotFound { image: reference }) };
        if let Some(wanted) = platform.filter(|wanted| !found.facts.platform.is_empty() && found.facts.platform != *wanted) {
            let reason = format!("no matching manifest for {wanted} in the manifest list entries");
            return Err(RuntimeError::PullFailed { image: reference, reason });
        }
        let total_bytes = found.facts.size_bytes;
        for received_bytes in [0, total_bytes / 2, total_bytes] {
            observer(PullProgress { received_bytes, total_bytes });
        }
        self.store_image(image, found, false);
        Ok(())
    }

    fn unpin(&mut self, pin: &ImageRef) -> Result<(), RuntimeError> {
        let Some(tag) = tag_of(pin) else { return Err(refused("remove the tag", 400, format!("`{pin}` has no tag"))) };
        let Some(id) = self.tags.get(&tag).cloned() else { return Ok(()) };
        let is_used = self.containers.values().any(|container| container.image_id == id);
        let other_tags = self.tags.iter().any(|(other, tagged)| *tagged == id && *other != tag);
        let has_digests = self.images.get(&id).is_some_and(|stored| !stored.repo_digests.is_empty());
        if is_used && !other_tags && !has_digests {
            return Err(RuntimeError::InUse { name: tag });
        }
        self.tags.remove(&tag);
        if !is_used && !other_tags {
            self.images.remove(&id);
        }
        Ok(())
    }
}

#[async_trait]
impl Images for FakeRuntime {
    async fn pull(&self, image: &PinnedImage, platform: Option<&str>, observer: &PullObserver) -> Result<(), RuntimeError> {
        self.call(FakeOperation::Pull, &image.engine_reference(), |world| world.pull(image, platform, observer))
    }

    async fn image(&self, reference: &str) -> Result<Option<LocalImage>, RuntimeError> {
        self.call(FakeOperation::Image, &reference, |world| Ok(world.find_image(reference).and_then(|id| world.local_image(&id))))
    }

    async fn pin(&self, image: &PinnedImage, pin: &ImageRef) -> Result<(), RuntimeError> {
        let reference = image.engine_reference();
        self.call(FakeOperation::Pin, &format!("{reference} as {pin}"), |world| {
            let Some(id) = world.find_image(&reference) else { return Err(RuntimeError::ImageMissing { image: reference.clone() }) };
            let Some(tag) = tag_of(pin) else { return Err(refused("tag the image", 400, format!("`{pin}` has no tag"))) };
            world.tags.insert(tag, id);
            Ok(())
        })
    }

    async fn assemble(&self, tag: &ImageRef, program: &Path) -> Result<LocalImage, RuntimeError> {
        self.call(FakeOperation::Assemble, tag, |world| {
            if !program.is_file() {
                let source = std::io::Error::from(std::io::ErrorKind::NotFound);
                return Err(RuntimeError::ProgramUnreadable { path: program.to_path_buf(), source });
            }
            let id = super::world::digest_of(&format!("program {tag}"));
            let pinned = PinnedImage { image: tag.clone(), digest: id.clone(), source: ImageSource::Local };
            world.store_image(&pinned, FakeImage::of(&pinned, super::Behaviour::Healthy), true);
            world.local_image(&id).ok_or(RuntimeError::ImageMissing { image: tag.to_string() })
        })
    }

    async fn unpin(&self, pin: &ImageRef) -> Result<(), RuntimeError> {
        self.call(FakeOperation::Unpin, pin, |world| world.unpin(pin))
    }
}

#[async_trait]
impl Resources for FakeRuntime {
    async fn networks(&self, names: &[NetworkName]) -> Result<BTreeMap<NetworkName, Option<String>>, RuntimeError> {
        self.call(FakeOperation::Networks, &"networks", |world| {
            let found = names.iter().filter_map(|name| Some((name.clone(), world.networks.get(name)?.project.clone())));
            Ok(found.collect())
        })
    }

    async fn volumes(&self, names: &[VolumeName]) -> Result<BTreeMap<VolumeName, Option<String>>, RuntimeError> {
        self.call(FakeOperation::Volumes, &"volumes", |world| {
            Ok(names.iter().filter_map(|name| Some((name.clone(), world.volumes.get(name)?.clone()))).collect())
        })
    }

    async fn create_network(&self, project: &ProjectName, network: &NetworkDefinition) -> Result<(), RuntimeError> {
        self.call(FakeOperation::CreateNetwork, &network.name, |world| match world.networks.get(&network.name) {
            Some(existing) if existing.project.as_deref() == Some(project.as_str()) => Ok(()),
            Some(_) => Err(RuntimeError::NotOurs { name: network.name.to_string(), project: project.clone() }),
            None if network.external => Err(refused("make the network", 404, format!("network {} is external and missing", network.name))),
            None => {
                world.add_network(&network.name, Some(project.as_str()));
                Ok(())
            }
        })
    }

    async fn remove_network(&self, project: &ProjectName, network: &NetworkName) -> Result<(), RuntimeError> {
        self.call(FakeOperation::RemoveNetwork, network, |world| match world.networks.get(network) {
            None => Ok(()),
            Some(existing) if existing.project.as_deref() != Some(project.as_str()) => {
                Err(RuntimeError::NotOurs { name: network.to_string(), project: project.clone() })
            }
            Some(_) if world.uses_network(network) => Err(RuntimeError::InUse { name: network.to_string() }),
            Some(_) => {
                world.networks.remove(network);
                Ok(())
            }
        })
    }

    async fn create_volume(&self, project: &ProjectName, volume: &VolumeDefinition) -> Result<(), RuntimeError> {
        self.call(FakeOperation::CreateVolume, &volume.name, |world| match world.volumes.get(&volume.name) {
            Some(owner) if owner.as_deref() == Some(project.as_str()) => Ok(()),
            Some(_) => Err(RuntimeError::NotOurs { name: volume.name.to_string(), project: project.clone() }),
            None if volume.external => Err(refused("make the volume", 404, format!("volume {} is external and missing", volume.name))),
            None => {
                world.volumes.insert(volume.name.clone(), Some(project.as_str().to_owned()));
                Ok(())
            }
        })
    }

    async fn remove_volume(&self, project: &ProjectName, volume: &VolumeName) -> Result<(), RuntimeError> {
        self.call(FakeOperation::RemoveVolume, volume, |world| match world.volumes.get(volume) {
            None => Ok(()),
            Some(owner) if owner.as_deref() != Some(project.as_str()) => {
                Err(RuntimeError::NotOurs { name: volume.to_string(), project: project.clone() })
            }
            Some(_) if world.uses_volume(volume) => Err(RuntimeError::InUse { name: volume.to_string() }),
            Some(_) => {
                world.volumes.remove(volume);
                Ok(())
            }
        })
    }
}

//! Images, networks and volumes.

use super::{Check, Complaint, Stage, ensure, named, say, told};
use crate::definition::{Definition, VolumeDefinition};
use crate::image::{ImageRef, ImageSource, PinnedImage};
use crate::runtime::RuntimeError;

pub(super) fn checks() -> Vec<Check> {
    named![
        an_image_that_is_not_there_is_none,
        pull_of_what_is_there_does_nothing,
        pull_twice_finds_the_image_by_its_reference,
        pull_of_what_nobody_has_says_so,
        a_pin_comes_and_goes_and_no_other_tag_with_it,
        a_network_is_made_once_with_the_labels_of_compose,
        a_network_of_another_project_is_neither_taken_nor_removed,
        a_network_in_use_is_not_removed,
        a_volume_is_made_once_and_never_another_projects,
        a_volume_is_removed_only_by_its_project_and_only_when_nobody_uses_it,
    ]
}

async fn an_image_that_is_not_there_is_none(stage: &Stage) -> Result<(), Complaint> {
    let id = format!("sha256:{}", "0".repeat(64));
    for reference in [format!("{}:no-such-tag", stage.runs.image.familiar_repository()), format!("nobody/nothing@{id}"), id] {
        let found = stage.runtime.image(&reference).await.map_err(|error| told(&error))?;
        ensure!(found.is_none(), "{reference}: {found:?}");
    }
    Ok(())
}

async fn pull_of_what_is_there_does_nothing(stage: &Stage) -> Result<(), Complaint> {
    let silent = |_| ();
    stage.runtime.pull(&stage.runs, None, &silent).await.map_err(|error| told(&error))?;
    let found = stage.runtime.image(&stage.runs.engine_reference()).await.map_err(|error| told(&error))?;
    ensure!(found.as_ref().is_some_and(|image| image.facts.platform.starts_with("linux/") && !image.tags.is_empty()), "{found:?}");
    Ok(())
}

async fn pull_twice_finds_the_image_by_its_reference(stage: &Stage) -> Result<(), Complaint> {
    let Some(remote) = &stage.remote else { return Ok(()) };
    let silent = |_| ();
    for _ in 0..2 {
        stage.runtime.pull(remote, None, &silent).await.map_err(|error| told(&error))?;
    }
    let found = stage.runtime.image(&remote.engine_reference()).await.map_err(|error| told(&error))?;
    let wanted = (remote.image.familiar_repository(), remote.digest.clone());
    ensure!(found.as_ref().is_some_and(|image| image.repo_digests.contains(&wanted)), "{found:?}");
    // Nothing uses it: with its last tag it goes.
    let pin: ImageRef = format!("{}:pull", stage.project).parse().map_err(say)?;
    stage.runtime.pin(remote, &pin).await.map_err(|error| told(&error))?;
    stage.runtime.unpin(&pin).await.map_err(|error| told(&error))?;
    let found = stage.runtime.image(&remote.engine_reference()).await.map_err(|error| told(&error))?;
    ensure!(found.is_none(), "it is still there: {found:?}");
    Ok(())
}

async fn pull_of_what_nobody_has_says_so(stage: &Stage) -> Result<(), Complaint> {
    let silent = |_| ();
    let digest = format!("sha256:{}", "0".repeat(64)).parse().map_err(say)?;
    let local = PinnedImage { image: stage.runs.image.clone(), digest, source: ImageSource::Local };
    let answer = stage.runtime.pull(&local, None, &silent).await;
    ensure!(matches!(answer, Err(RuntimeError::ImageMissing { .. })), "{answer:?}");
    if let Some(remote) = &stage.remote {
        let missing = PinnedImage { digest: local.digest, ..remote.clone() };
        let answer = stage.runtime.pull(&missing, None, &silent).await;
        ensure!(matches!(answer, Err(RuntimeError::ImageNotFound { .. })), "{answer:?}");
    }
    Ok(())
}

async fn a_pin_comes_and_goes_and_no_other_tag_with_it(stage: &Stage) -> Result<(), Complaint> {
    let pin: ImageRef = format!("{}:r7", stage.project).parse().map_err(say)?;
    let tags = async || {
        let found = stage.runtime.image(&stage.runs.engine_reference()).await.map_err(|error| told(&error))?;
        Ok::<_, Complaint>(found.map(|image| image.tags).unwrap_or_default())
    };
    let before = tags().await?;
    for _ in 0..2 {
        stage.runtime.pin(&stage.runs, &pin).await.map_err(|error| told(&error))?;
    }
    let with = tags().await?;
    ensure!(with.len() == before.len() + 1 && with.contains(&pin.to_string()), "{with:?}");
    let by_pin = stage.runtime.image(&pin.to_string()).await.map_err(|error| told(&error))?;
    ensure!(by_pin.is_some(), "nothing is found under the pin");
    for _ in 0..2 {
        stage.runtime.unpin(&pin).await.map_err(|error| told(&error))?;
    }
    let after = tags().await?;
    ensure!(after == before, "{after:?} instead of {before:?}");
    let missing = PinnedImage { digest: format!("sha256:{}", "0".repeat(64)).parse().map_err(say)?, ..stage.runs.clone() };
    let answer = stage.runtime.pin(&missing, &pin).await;
    ensure!(matches!(answer, Err(RuntimeError::ImageMissing { .. })), "{answer:?}");
    Ok(())
}

async fn a_network_is_made_once_with_the_labels_of_compose(stage: &Stage) -> Result<(), Complaint> {
    let network = stage.network("front")?;
    let names = [network.name.clone(), stage.network("back")?.name];
    for _ in 0..2 {
        stage.runtime.create_network(&stage.project, &network).await.map_err(|error| told(&error))?;
    }
    let found = stage.runtime.networks(&names).await.map_err(|error| told(&error))?;
    ensure!(found.len() == 1 && found.get(&network.name) == Some(&Some(stage.project.to_string())), "{found:?}");
    for _ in 0..2 {
        stage.runtime.remove_network(&stage.project, &network.name).await.map_err(|error| told(&error))?;
    }
    let found = stage.runtime.networks(&names).await.map_err(|error| told(&error))?;
    ensure!(found.is_empty(), "{found:?}");
    Ok(())
}

async fn a_network_of_another_project_is_neither_taken_nor_removed(stage: &Stage) -> Result<(), Complaint> {
    let network = stage.network("front")?;
    stage.runtime.create_network(&stage.stranger, &network).await.map_err(|error| told(&error))?;
    let taken = stage.runtime.create_network(&stage.project, &network).await;
    ensure!(matches!(taken, Err(RuntimeError::NotOurs { .. })), "{taken:?}");
    let removed = stage.runtime.remove_network(&stage.project, &network.name).await;
    ensure!(matches!(removed, Err(RuntimeError::NotOurs { .. })), "{removed:?}");
    let found = stage.runtime.networks(std::slice::from_ref(&network.name)).await.map_err(|error| told(&error))?;
    ensure!(found.get(&network.name) == Some(&Some(stage.stranger.to_string())), "{found:?}");
    Ok(())
}

async fn a_network_in_use_is_not_removed(stage: &Stage) -> Result<(), Complaint> {
    let network = stage.networks(&["front"]).await?;
    let spec = stage.spec("api", &stage.runs, Definition { network, ..Definition::default() })?;
    stage.runtime.create(&spec).await.map_err(|error| told(&error))?;
    // A stopped container could not be started again without it.
    let answer = stage.runtime.remove_network(&stage.project, &stage.network("front")?.name).await;
    ensure!(matches!(answer, Err(RuntimeError::InUse { .. })), "{answer:?}");
    Ok(())
}

async fn a_volume_is_made_once_and_never_another_projects(stage: &Stage) -> Result<(), Complaint> {
    let volume = VolumeDefinition {
        name: stage.volume("data")?,
        key: "data".to_owned(),
        external: false,
        driver: None,
        driver_opts: Default::default(),
        labels: Default::default(),
    };
    for _ in 0..2 {
        stage.runtime.create_volume(&stage.project, &volume).await.map_err(|error| told(&error))?;
    }
    let found = stage.runtime.volumes(std::slice::from_ref(&volume.name)).await.map_err(|error| told(&error))?;
    ensure!(found.get(&volume.name) == Some(&Some(stage.project.to_string())), "{found:?}");
    let answer = stage.runtime.create_volume(&stage.stranger, &volume).await;
    ensure!(matches!(answer, Err(RuntimeError::NotOurs { .. })), "{answer:?}");
    Ok(())
}

async fn a_volume_is_removed_only_by_its_project_and_only_when_nobody_uses_it(stage: &Stage) -> Result<(), Complaint> {
    let name = stage.volume("gone")?;
    let volume = VolumeDefinition {
        name: name.clone(),
        key: "gone".to_owned(),
        external: false,
        driver: None,
        driver_opts: Default::default(),
        labels: Default::default(),
    };
    stage.runtime.create_volume(&stage.project, &volume).await.map_err(|error| told(&error))?;
    let answer = stage.runtime.remove_volume(&stage.stranger, &name).await;
    ensure!(matches!(answer, Err(RuntimeError::NotOurs { .. })), "{answer:?}");
    let source = crate::definition::MountSource::Volume { name: name.clone(), nocopy: false, subpath: None };
    let mounts = vec![crate::definition::Mount { target: "/data".to_owned(), read_only: false, source }];
    let spec = stage.spec("api", &stage.runs, Definition { mounts, ..Definition::default() })?;
    stage.runtime.create(&spec).await.map_err(|error| told(&error))?;
    let answer = stage.runtime.remove_volume(&stage.project, &name).await;
    ensure!(matches!(answer, Err(RuntimeError::InUse { .. })), "{answer:?}");
    stage.runtime.remove(&stage.owned("api")?).await.map_err(|error| told(&error))?;
    for _ in 0..2 {
        stage.runtime.remove_volume(&stage.project, &name).await.map_err(|error| told(&error))?;
    }
    let found = stage.runtime.volumes(&[name]).await.map_err(|error| told(&error))?;
    ensure!(found.is_empty(), "{found:?}");
    Ok(())
}

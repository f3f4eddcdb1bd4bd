//! What every [`ImageRegistry`] must do: run against the fake and against a real registry.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;

use crate::image::{Digest, ImageRef};
use crate::registry::{ImageRegistry, RegistryError, ResolvedImage};
use crate::runtime::ImageFacts;

/// A registry that is empty at first, and the means to fill it.
#[async_trait]
pub trait RegistryWorld: Send + Sync {
    /// The registry under test.
    fn registry(&self) -> &dyn ImageRegistry;
    /// Host and port that images of this registry begin with.
    fn host(&self) -> String;
    /// Pushes an image of one platform under the tag of `image`, and answers what it must resolve to.
    async fn push(&self, image: &ImageRef, facts: ImageFacts) -> ResolvedImage;
    /// Pushes an index of these platforms under the tag of `image`, and answers what each must resolve to.
    async fn push_index(&self, image: &ImageRef, platforms: Vec<ImageFacts>) -> Vec<ResolvedImage>;
    /// Removes a manifest or index.
    async fn delete(&self, image: &ImageRef, digest: &Digest);
}

/// Runs the whole suite; answers what was wrong, nothing if all was well.
pub async fn check(world: &dyn RegistryWorld) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, result) in [
        ("a tag of one platform means its manifest", one_platform(world).await),
        ("a tag of several platforms means the manifest of the wanted one", several_platforms(world).await),
        ("a platform that is not there is told from those that are", no_platform(world).await),
        ("a digest keeps its meaning when the tag moves", moved_tag(world).await),
        ("what is not there is not found", not_found(world).await),
        ("what was deleted is not answered from memory", deleted(world).await),
        ("tags are sorted and complete", tags(world).await),
    ] {
        wrong.extend(result.err().map(|reason| format!("{name}: {reason}")));
    }
    wrong
}

fn facts(platform: &str) -> ImageFacts {
    ImageFacts {
        command: Vec::new(),
        user: "65532:65532".to_owned(),
        exposed_ports: vec!["443/tcp".to_owned(), "80/tcp".to_owned()],
        has_healthcheck: true,
        healthcheck_interval: Some(Duration::from_secs(5)),
        environment_names: vec!["MODE".to_owned(), "PATH".to_owned()],
        labels: BTreeMap::from([("org.opencontainers.image.revision".to_owned(), "4f2a".to_owned())]),
        volumes: vec!["/var/lib/data".to_owned()],
        platform: platform.to_owned(),
        size_bytes: 1234,
        created: None,
    }
}

fn image(world: &dyn RegistryWorld, rest: &str) -> Result<ImageRef, String> {
    format!("{}/{rest}", world.host()).parse().map_err(|error| format!("{error}"))
}

fn equal<T: PartialEq + Debug>(what: &str, found: &T, wanted: &T) -> Result<(), String> {
    if found == wanted { Ok(()) } else { Err(format!("{what}: found {found:?}, wanted {wanted:?}")) }
}

async fn resolve(world: &dyn RegistryWorld, image: &ImageRef, platform: &str) -> Result<ResolvedImage, String> {
    world.registry().resolve(image, platform).await.map_err(|error| format!("{image} for {platform}: {error:?}"))
}

async fn is_not_found(world: &dyn RegistryWorld, image: &ImageRef) -> Result<(), String> {
    match world.registry().resolve(image, "linux/amd64").await {
        Err(RegistryError::NotFound { image: named }) => equal("the error names the image", &named, image),
        other => Err(format!("{image} answered {other:?}")),
    }
}

async fn one_platform(world: &dyn RegistryWorld) -> Result<(), String> {
    let tag = image(world, "contract/one:1")?;
    let plain = ImageFacts { platform: "linux/amd64".to_owned(), ..ImageFacts::default() };
    for facts in [facts("linux/amd64"), plain] {
        let pushed = world.push(&tag, facts.clone()).await;
        let found = resolve(world, &tag, "linux/amd64").await?;
        equal("by tag", &found, &pushed)?;
        equal("facts", &found.facts, &facts)?;
        equal("without an index both digests are one", &found.manifest, &found.digest)?;
        equal("asked again", &resolve(world, &tag, "linux/amd64").await?, &pushed)?;
        let pinned = image(world, &format!("contract/one@{}", pushed.digest))?;
        equal("by digest", &resolve(world, &pinned, "linux/amd64").await?, &pushed)?;
    }
    Ok(())
}

async fn several_platforms(world: &dyn RegistryWorld) -> Result<(), String> {
    let tag = image(world, "contract/several:1")?;
    let pushed = world.push_index(&tag, vec![facts("linux/arm64"), facts("linux/amd64"), facts("linux/arm/v7")]).await;
    for (wanted, index) in
        [("linux/amd64", 1), ("linux/arm64", 0), ("linux/arm64/v8", 0), ("linux/arm", 2), ("linux/arm/v7", 2), ("linux/arm64", 0)]
    {
        let pushed = pushed.get(index).ok_or("the world pushed less than it was asked to")?;
        let found = resolve(world, &tag, wanted).await?;
        equal(wanted, &found, pushed)?;
        if found.digest == found.manifest {
            return Err("the digest of an index is not that of its manifest".to_owned());
        }
        // The manifest alone can be asked for too: then it is all there is.
        let manifest = image(world, &format!("contract/several@{}", found.manifest))?;
        let alone = ResolvedImage { digest: found.manifest.clone(), ..found };
        equal("by the digest of the manifest", &resolve(world, &manifest, wanted).await?, &alone)?;
    }
    Ok(())
}

async fn no_platform(world: &dyn RegistryWorld) -> Result<(), String> {
    let (one, several) = (image(world, "contract/foreign:one")?, image(world, "contract/foreign:several")?);
    world.push(&one, facts("linux/s390x")).await;
    world.push_index(&several, vec![facts("linux/s390x"), facts("linux/arm64")]).await;
    for (tag, wanted, there) in [
        (&one, "linux/amd64", "linux/s390x"),
        (&several, "linux/amd64", "linux/arm64, linux/s390x"),
        (&several, "amd64", "any platform written as `os/arch[/variant]`"),
    ] {
        match world.registry().resolve(tag, wanted).await {
            Err(RegistryError::NoPlatform { wanted: said, found, .. }) => {
                equal(wanted, &(said.as_str(), found.as_str()), &(wanted, there))?;
            }
            other => return Err(format!("{tag} for {wanted} answered {other:?}")),
        }
    }
    Ok(())
}

async fn moved_tag(world: &dyn RegistryWorld) -> Result<(), String> {
    let tag = image(world, "contract/moved:latest")?;
    let old = world.push(&tag, facts("linux/amd64")).await;
    equal("before", &resolve(world, &tag, "linux/amd64").await?, &old)?;
    let new = world.push(&tag, ImageFacts { user: "root".to_owned(), ..facts("linux/amd64") }).await;
    equal("after", &resolve(world, &tag, "linux/amd64").await?, &new)?;
    for reference in [format!("contract/moved@{}", old.digest), format!("contract/moved:latest@{}", old.digest)] {
        let pinned = image(world, &reference)?;
        equal("the digest decides, not the tag", &resolve(world, &pinned, "linux/amd64").await?, &old)?;
    }
    Ok(())
}

async fn not_found(world: &dyn RegistryWorld) -> Result<(), String> {
    world.push(&image(world, "contract/there:1")?, facts("linux/amd64")).await;
    let digest = "0".repeat(64);
    for rest in ["contract/there:2", "contract/nowhere:1", &format!("contract/there@sha256:{digest}")] {
        is_not_found(world, &image(world, rest)?).await?;
    }
    match world.registry().tags(&image(world, "contract/nowhere:1")?).await {
        Err(RegistryError::NotFound { .. }) => Ok(()),
        other => Err(format!("tags of no repository: {other:?}")),
    }
}

async fn deleted(world: &dyn RegistryWorld) -> Result<(), String> {
    let tag = image(world, "contract/deleted:1")?;
    let pushed = world.push(&tag, facts("linux/amd64")).await;
    let pinned = image(world, &format!("contract/deleted@{}", pushed.digest))?;
    for image in [&tag, &pinned] {
        resolve(world, image, "linux/amd64").await?;
    }
    world.delete(&tag, &pushed.digest).await;
    for image in [&tag, &pinned] {
        is_not_found(world, image).await?;
    }
    Ok(())
}

async fn tags(world: &dyn RegistryWorld) -> Result<(), String> {
    let mut wanted: Vec<String> = (0..25).map(|number| format!("v{number}")).collect();
    for tag in &wanted {
        world.push(&image(world, &format!("contract/tags:{tag}"))?, facts("linux/amd64")).await;
    }
    wanted.sort();
    for rest in ["contract/tags", "contract/tags:v3"] {
        let found = world.registry().tags(&image(world, rest)?).await.map_err(|error| format!("{error:?}"))?;
        equal(rest, &found, &wanted)?;
    }
    Ok(())
}

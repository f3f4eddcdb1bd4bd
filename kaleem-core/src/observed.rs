//! What is there now: what runs, and what tags mean. The only stage between files and plan that asks anybody.
//!
//! It changes nothing, and it decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::config::{Project, PullPolicy, Service};
use crate::definition::{DefinitionId, NetworkAttachment, PortBinding};
use crate::health::Door;
use crate::image::{Digest, ImageError, ImageRef, ImageSource, PinnedImage};
use crate::names::{ContainerName, GatewayName, NetworkName, ProjectName, ReleaseId, ServiceName, VolumeName};
use crate::registry::{ImageRegistry, RegistryError};
use crate::release::Release;
use crate::remedy::{Remedy, one_line};
use crate::runtime::{
    EngineInfo, ImageFacts, Instance, InstanceSpec, InstanceStatus, LocalImage, Runtime, RuntimeError, compose_labels, kaleem_labels,
};

/// How many images are asked for at once: registries count connections.
const CONCURRENT_QUESTIONS: usize = 8;

pub mod clients;
pub mod live;
pub mod owner;
pub mod routes;
pub mod doors;
pub mod nginx;
pub mod proxy;
pub mod reality;

use owner::Ownership;

/// What is on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// The engine.
    pub engine: EngineInfo,
    /// All containers of the project.
    pub instances: Vec<Instance>,
    /// Those containers which Compose made and which already are what the target wants.
    pub adoptable: BTreeSet<ContainerName>,
    /// In what the other containers that Compose made differ from the target.
    pub drift: BTreeMap<ContainerName, Vec<String>>,
    /// Containers of the project that lack networks which they are to be on, or names there, as somebody disconnected them.
    pub detached: BTreeMap<ContainerName, Vec<NetworkAttachment>>,
    /// Services whose gateway cannot be steered any more: its control socket was removed.
    pub lost_gateways: BTreeSet<ServiceName>,
    /// Where gateways of the release that serves send now, as far as they answer.
    pub sends: BTreeMap<ServiceName, reality::Sends>,
    /// Those of them that differ in labels alone, which a running container cannot be given.
    pub relabelled: BTreeMap<ContainerName, Vec<String>>,
    /// Networks which exist, with the project they are labelled with.
    pub networks: BTreeMap<NetworkName, Option<String>>,
    /// Volumes which exist, with the project they are labelled with.
    pub volumes: BTreeMap<VolumeName, Option<String>>,
    /// Ports of the host held by containers of others.
    pub foreign_ports: Vec<(PortBinding, ContainerName)>,
    /// Container names that are wanted and belong to others: who has them.
    pub foreign_names: BTreeMap<ContainerName, String>,
    /// Who has kept the address of a service, or is connected to it, whose ports are to go to a gateway.
    pub clients: Vec<clients::Client>,
    /// Containers that were looked at for that, with the configuration of each that is an nginx of this project.
    pub looked: BTreeMap<ContainerName, Vec<nginx::Directive>>,
    /// Services whose gateway stays although it is to have other networks or ports, with what it gets while it serves.
    pub live_gateways: BTreeMap<ServiceName, live::LiveGateway>,
    /// Places where clients ask, and get an answer now.
    pub doors: Vec<Door>,
    /// Doors that kaleem.toml names and that give no answer now, with what was seen.
    pub shut_doors: Vec<(Door, String)>,
    /// Services whose gateway runs an older program.
    pub outdated_gateways: BTreeSet<ServiceName>,
    /// Releases that served or serve, newest first.
    pub releases: Vec<Release>,
    /// The release that serves.
    pub serving: Option<ReleaseId>,
    /// Our tags of releases that are not kept any more, as far as they exist.
    pub old_pins: Vec<ImageRef>,
    /// Whose project it is.
    pub ownership: Ownership,
}

/// Whether a container is a gateway, or publishes a port for one: kaleem made it as such.
pub fn is_gateway(instance: &Instance) -> bool {
    instance.gateway.is_some()
}

/// The name of the gateway of a service. It is on the gateway's container as a label, whatever the container is called.
pub fn gateway_name(project: &ProjectName, service: &ServiceName) -> ContainerName {
    ContainerName::fitting(&format!("{project}-{service}-gateway"))
}

/// The gateway of a service among `instances`, whatever its state: a running one before one that does not run.
pub fn gateway_of<'a>(project: &ProjectName, service: &ServiceName, instances: &'a [Instance]) -> Option<&'a Instance> {
    let all = || before(project, service, instances).filter(|instance| !is_port_container(instance));
    all().find(|instance| is_up(instance)).or_else(|| all().next())
}

/// The containers that publish ports for the gateway of a service, whatever their state.
pub fn port_containers_of<'a>(
    project: &ProjectName,
    service: &ServiceName,
    instances: &'a [Instance],
) -> impl Iterator<Item = &'a Instance> + use<'a> {
    before(project, service, instances).filter(|instance| is_port_container(instance))
}

/// Whether a container publishes a port for a gateway that runs.
pub fn is_port_container(instance: &Instance) -> bool {
    is_gateway(instance) && instance.labels.contains_key(kaleem_labels::PORT)
}

/// What stands before a service.
fn before<'a>(project: &ProjectName, service: &ServiceName, instances: &'a [Instance]) -> impl Iterator<Item = &'a Instance> + use<'a> {
    let name = gateway_name(project, service);
    instances.iter().filter(move |instance| instance.gateway.as_ref().is_some_and(|gateway| gateway.as_str() == name.as_str()))
}

fn is_up(instance: &Instance) -> bool {
    matches!(instance.state.status, InstanceStatus::Running | InstanceStatus::Restarting | InstanceStatus::Paused)
}

/// What the image of a service means now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedImage {
    /// The image, pinned.
    pub pinned: PinnedImage,
    /// The id the engine gives or would give it.
    pub id: Digest,
    /// What its configuration says.
    pub facts: ImageFacts,
    /// Something the operator should know, such as that the registry was not asked.
    pub note: Option<String>,
}

/// Why the host could not be observed. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObserveError {
    /// The engine failed.
    #[error("could not find out what runs now")]
    Engine {
        /// Why.
        #[source]
        source: RuntimeError,
    },
    /// The registry failed.
    #[error("could not find out what the image of service `{service}` is")]
    Image {
        /// The service.
        service: ServiceName,
        /// Why.
        #[source]
        source: RegistryError,
    },
    /// An image that is only built or loaded is not there.
    #[error("the image `{image}` of service `{service}` is not on this engine")]
    NotBuilt {
        /// The service.
        service: ServiceName,
        /// The image.
        image: ImageRef,
        /// Whether the service says how to build it.
        build: bool,
    },
    /// Neither the service nor its project give a name for the image.
    #[error("service `{service}` has no image")]
    NoImage {
        /// The service.
        service: ServiceName,
        /// Why the name that Compose would give it is none.
        #[source]
        source: ImageError,
    },
    /// An image was named for a service that does not exist.
    #[error("there is no service `{service}`")]
    NoService {
        /// As it was given.
        service: ServiceName,
        /// What there is, comma-separated.
        known: String,
    },
}

impl Remedy for ObserveError {
    fn remedy(&self) -> String {
        match self {
            Self::Engine { source } => source.remedy(),
            Self::Image { source, .. } => source.remedy(),
            Self::NotBuilt { build: true, service, .. } => {
                format!("build it: `kaleem deploy --build`, or `docker compose build {service}`")
            }
            Self::NotBuilt { image, .. } => format!("load or build `{image}` on this host, or let the registry be asked (`pull_policy`)"),
            Self::NoImage { .. } => "set `image:` in the compose file".to_owned(),
            Self::NoService { known, .. } => format!("choose one of: {known}"),
        }
    }

    fn is_transient(&self) -> bool {
        match self {
            Self::Engine { source } => source.is_transient(),
            Self::Image { source, .. } => source.is_transient(),
            Self::NotBuilt { .. } | Self::NoImage { .. } | Self::NoService { .. } => false,
        }
    }
}

/// The image reference of a service: what was given on the command line, the file's, or the one Compose gives to what it builds.
///
/// # Errors
///
/// [`ObserveError::NoImage`] when there is none.
pub fn image_reference(project: &ProjectName, service: &Service, chosen: Option<&ImageRef>) -> Result<ImageRef, ObserveError> {
    if let Some(image) = chosen.or(service.image.as_ref()) {
        return Ok(image.clone());
    }
    let built = format!("{project}-{}", service.name).to_lowercase();
    built.parse().map_err(|source| ObserveError::NoImage { service: service.name.clone(), source })
}

/// Asks what the images of all services mean now.
///
/// # Errors
///
/// [`ObserveError`]; nothing was changed anywhere.
pub async fn observe_images(
    runtime: &Arc<dyn Runtime>,
    registry: &Arc<dyn ImageRegistry>,
    project: &Project,
    chosen: &BTreeMap<ServiceName, ImageRef>,
    engine: &EngineInfo,
    serving: Option<&Release>,
) -> Result<BTreeMap<ServiceName, ObservedImage>, ObserveError> {
    if let Some(service) = chosen.keys().find(|name| !project.services.contains_key(*name)) {
        let known = project.services.keys().map(ServiceName::as_str).collect::<Vec<_>>().join(", ");
        return Err(ObserveError::NoService { service: service.clone(), known });
    }
    stream::iter(project.services.values())
        .map(|service| async move {
            let reference = image_reference(&project.name, service, chosen.get(&service.name))?;
            let platform = service.definition.platform.clone().unwrap_or_else(|| format!("{}/{}", engine.os, engine.architecture));
            let built_here = chosen.get(&service.name).is_none() && service.build.is_some();
            let pinned = serving.and_then(|release| release.target.services.get(&service.name)).map(|wanted| &wanted.image);
            let before = pinned.filter(|pinned| pinned.image == reference);
            let image = observe_image(runtime, registry, service, &reference, &platform, Known { built_here, before }).await?;
            Ok((service.name.clone(), image))
        })
        .buffer_unordered(CONCURRENT_QUESTIONS)
        .try_collect()
        .await
}

/// What is known of the image of a service before anybody is asked.
struct Known<'a> {
    /// Whether the file says how it is built.
    built_here: bool,
    /// What the same reference meant when what serves now was released.
    before: Option<&'a PinnedImage>,
}

async fn observe_image(
    runtime: &Arc<dyn Runtime>,
    registry: &Arc<dyn ImageRegistry>,
    service: &Service,
    reference: &ImageRef,
    platform: &str,
    known: Known<'_>,
) -> Result<ObservedImage, ObserveError> {
    let local = runtime.image(&reference.to_string()).await.map_err(|source| ObserveError::Engine { source })?;
    let from_local = |local: LocalImage, note: Option<String>| {
        // What came from the registry keeps the digest it had there: it is the same image as before.
        let repository = reference.familiar_repository();
        let pulled = local.repo_digests.iter().find(|(name, _)| *name == repository).map(|(_, digest)| digest.clone());
        let source = if pulled.is_some() { ImageSource::Registry } else { ImageSource::Local };
        let digest = pulled.unwrap_or_else(|| local.id.clone());
        ObservedImage { pinned: PinnedImage { image: reference.clone(), digest, source }, id: local.id, facts: local.facts, note }
    };
    let only_local = match service.pull_policy {
        PullPolicy::Never | PullPolicy::Build => true,
        PullPolicy::Always => false,
        // Built here and never pushed: no registry can know it.
        PullPolicy::Missing => local.as_ref().is_some_and(|local| local.repo_digests.is_empty() && reference.digest().is_none()),
    };
    match (local, only_local) {
        (Some(local), true) => Ok(from_local(local, None)),
        (None, true) => {
            Err(ObserveError::NotBuilt { service: service.name.clone(), image: reference.clone(), build: service.build.is_some() })
        }
        (local, false) => match registry.resolve(reference, platform).await {
            Ok(resolved) => Ok(ObservedImage {
                pinned: PinnedImage { image: reference.clone(), digest: resolved.digest, source: ImageSource::Registry },
                id: resolved.config,
                facts: resolved.facts,
                note: None,
            }),
            Err(source) => match local {
                Some(local) if service.pull_policy == PullPolicy::Missing => {
                    let note =
                        format!("using the image that is on this engine, because the registry could not tell: {}", one_line(&source));
                    Ok(from_local(local, Some(note)))
                }
                None if service.pull_policy == PullPolicy::Missing && source.is_transient() && known.before.is_some() => {
                    kept_image(runtime, service, known.before, source).await
                }
                None if known.built_here
                    && matches!(
                        source,
                        RegistryError::NotFound { .. } | RegistryError::Denied { .. } | RegistryError::Unreachable { .. }
                    ) =>
                {
                    Err(ObserveError::NotBuilt { service: service.name.clone(), image: reference.clone(), build: true })
                }
                _ => Err(ObserveError::Image { service: service.name.clone(), source }),
            },
        },
    }
}

/// The image that the service has now, where the registry does not answer: what serves must not hang on it.
async fn kept_image(
    runtime: &Arc<dyn Runtime>,
    service: &Service,
    before: Option<&PinnedImage>,
    source: RegistryError,
) -> Result<ObservedImage, ObserveError> {
    let kept = match before {
        Some(pinned) => runtime.image(&pinned.engine_reference()).await.map_err(|source| ObserveError::Engine { source })?,
        None => None,
    };
    match (before, kept) {
        (Some(pinned), Some(kept)) => {
            let note = format!("keeping the image that serves, because the registry could not tell: {}", one_line(&source));
            Ok(ObservedImage { pinned: pinned.clone(), id: kept.id, facts: kept.facts, note: Some(note) })
        }
        _ => Err(ObserveError::Image { service: service.name.clone(), source }),
    }
}

/// What is asked of the host, beside its images.
#[derive(Debug, Clone)]
pub struct HostQuestions {
    /// The project.
    pub project: ProjectName,
    /// Networks that the target uses.
    pub networks: Vec<NetworkName>,
    /// Volumes that the target uses.
    pub volumes: Vec<VolumeName>,
    /// Container names that the target wants: fixed ones, and those that are given to what is made.
    pub container_names: Vec<ContainerName>,
    /// For each service what a container of it would be; containers that Compose made are compared with it.
    pub wanted: BTreeMap<ServiceName, InstanceSpec>,
    /// The image ids of the target, by service.
    pub image_ids: BTreeMap<ServiceName, Digest>,
    /// Our tags of releases that are not kept any more.
    pub old_pins: Vec<ImageRef>,
    /// Services that have a gateway afterwards, with what it is to be.
    pub gateways: BTreeMap<ServiceName, DefinitionId>,
    /// Services that get a gateway, or are to lose theirs, with the names under which others call them.
    pub routed: BTreeMap<ServiceName, BTreeSet<String>>,
    /// What the gateways of the target would be, by their names.
    pub wanted_gateways: BTreeMap<GatewayName, InstanceSpec>,
    /// Whose project it is.
    pub ownership: Ownership,
}

/// Asks what is on the host.
///
/// # Errors
///
/// [`ObserveError::Engine`]; nothing was changed.
pub async fn observe_host(
    runtime: &Arc<dyn Runtime>,
    engine: EngineInfo,
    questions: &HostQuestions,
    releases: Vec<Release>,
    serving: Option<ReleaseId>,
) -> Result<Observed, ObserveError> {
    let failed = |source| ObserveError::Engine { source };
    let (instances, networks, volumes, foreign_ports) = tokio::try_join!(
        runtime.list(&questions.project),
        runtime.networks(&questions.networks),
        runtime.volumes(&questions.volumes),
        runtime.foreign_ports(&questions.project),
    )
    .map_err(failed)?;
    let (foreign_names, old_pins, differences) = tokio::try_join!(
        foreign_names(runtime, questions, &instances),
        old_pins(runtime, questions),
        differences(runtime, questions, &instances)
    )
    .map_err(failed)?;
    let (same, drift): (BTreeMap<_, _>, BTreeMap<_, _>) = differences.into_iter().partition(|(_, fields)| fields.is_empty());
    let adoptable: BTreeSet<ContainerName> = same.into_keys().collect();
    let only_labels = |fields: &Vec<String>| fields.iter().all(|field| field.starts_with("labels."));
    let relabelled = drift.iter().filter(|(_, fields)| only_labels(fields)).map(|(name, fields)| (name.clone(), fields.clone())).collect();
    let found =
        clients::find(runtime, &questions.project, &instances, &questions.routed, &|service| questions.gateways.get(service).cloned())
            .await;
    Ok(Observed {
        engine,
        instances,
        adoptable,
        drift,
        detached: BTreeMap::new(),
        lost_gateways: BTreeSet::new(),
        sends: BTreeMap::new(),
        relabelled,
        networks,
        volumes,
        foreign_ports,
        foreign_names,
        clients: found.clients,
        looked: found.looked,
        live_gateways: BTreeMap::new(),
        doors: Vec::new(),
        shut_doors: Vec::new(),
        outdated_gateways: BTreeSet::new(),
        releases,
        serving,
        old_pins,
        ownership: questions.ownership.clone(),
    })
}

/// Names that the target wants and somebody else has.
async fn foreign_names(
    runtime: &Arc<dyn Runtime>,
    questions: &HostQuestions,
    instances: &[Instance],
) -> Result<BTreeMap<ContainerName, String>, RuntimeError> {
    let unknown = questions.container_names.iter().filter(|name| !instances.iter().any(|instance| instance.name == **name));
    let found: Vec<Option<(ContainerName, String)>> = stream::iter(unknown)
        .map(|name| async move {
            let stranger = runtime.inspect(name).await?;
            Ok(stranger.map(|stranger| {
                let project = stranger.labels.get(compose_labels::PROJECT).or_else(|| stranger.labels.get(kaleem_labels::PROJECT));
                let owner = match project {
                    Some(project) => format!("a container of the project `{project}`"),
                    None => format!("a container made from `{}`", stranger.image),
                };
                (name.clone(), owner)
            }))
        })
        .buffered(CONCURRENT_QUESTIONS)
        .try_collect()
        .await?;
    Ok(found.into_iter().flatten().collect())
}

/// Those of the old tags that are there.
async fn old_pins(runtime: &Arc<dyn Runtime>, questions: &HostQuestions) -> Result<Vec<ImageRef>, RuntimeError> {
    let found: Vec<Option<ImageRef>> = stream::iter(&questions.old_pins)
        .map(|pin| async move { Ok(runtime.image(&pin.to_string()).await?.map(|_| pin.clone())) })
        .buffered(CONCURRENT_QUESTIONS)
        .try_collect()
        .await?;
    Ok(found.into_iter().flatten().collect())
}

/// What differs at containers whose definition this state directory does not know, by container; nothing where one is as the target wants it.
async fn differences(
    runtime: &Arc<dyn Runtime>,
    questions: &HostQuestions,
    instances: &[Instance],
) -> Result<Vec<(ContainerName, Vec<String>)>, RuntimeError> {
    // What a definition of another state directory is cannot be told by its name: such containers are looked at as those of Compose are.
    let unknown = |instance: &&Instance| {
        !is_port_container(instance) && (instance.definition.is_none() || questions.ownership.is_of_another(instance))
    };
    let wanted = instances.iter().filter(|instance| !instance.oneoff).filter(unknown).filter_map(|instance| {
        let gateway = instance.labels.get(kaleem_labels::GATEWAY).and_then(|name| name.parse::<GatewayName>().ok());
        let wanted = match &gateway {
            Some(gateway) => questions.wanted_gateways.get(gateway)?,
            None => questions.wanted.get(&instance.service)?,
        };
        Some((instance, wanted, gateway.is_some()))
    });
    stream::iter(wanted)
        .map(|(instance, wanted, is_gateway)| async move {
            let mut fields = Vec::new();
            // The program of a gateway may be older: that is upgraded while it runs.
            if !is_gateway && questions.image_ids.get(&instance.service) != Some(&instance.image_id) {
                fields.push("image".to_owned());
            }
            let spec = InstanceSpec { name: instance.name.clone(), ..wanted.clone() };
            match runtime.drift(&spec).await {
                Ok(more) => fields.extend(more),
                // It went away since it was listed: nothing to take over.
                Err(RuntimeError::NotFound { .. }) => fields.push("gone".to_owned()),
                Err(source) => return Err(source),
            }
            Ok((instance.name.clone(), fields))
        })
        .buffered(CONCURRENT_QUESTIONS)
        .try_collect()
        .await
}

//! What runs against what it is to be: networks that somebody took a container from, gateways that send elsewhere.
//!
//! Labels and journals say what was meant. What a request meets is asked of the engine and of the gateways.

use std::collections::{BTreeMap, BTreeSet};

use crate::definition::{Definition, DefinitionId, NetworkAttachment, NetworkMode};
use crate::image::Digest;
use crate::names::{ContainerName, ReleaseId, ServiceName};
use crate::observed::{Observed, is_gateway, is_port_container};
use crate::release::{Release, Target};
use crate::runtime::Instance;
use crate::traffic::{Admission, GatewayStats};

/// What a gateway does with requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sends {
    /// The instances that get any, with their releases.
    pub to: Vec<(ContainerName, ReleaseId)>,
    /// Whether all wait, whoever there is.
    pub holds: bool,
    /// Whether its program takes the ports of port containers.
    pub takes_ports: bool,
}

impl Sends {
    /// What the gateway says of itself.
    pub fn of(stats: &GatewayStats) -> Self {
        let targets = stats.routing.iter().flat_map(|routing| &routing.targets).filter(|target| target.weight > 0);
        Self {
            to: targets.map(|target| (target.instance.clone(), target.release)).collect(),
            holds: stats.routing.as_ref().is_some_and(|routing| routing.admission == Admission::Hold),
            takes_ports: stats.added_ports.is_some(),
        }
    }

    /// Whether requests go to exactly these.
    pub fn is_to<'n>(&self, names: impl Iterator<Item = &'n ContainerName>) -> bool {
        let sends: BTreeSet<&ContainerName> = self.to.iter().map(|(name, _)| name).collect();
        !self.holds && sends == names.collect()
    }
}

/// Containers which lack networks that they are to be on, or names there. `find` answers what a definition says, where it is known.
pub fn detached(
    instances: &[Instance],
    serving: Option<&Release>,
    find: &dyn Fn(&DefinitionId) -> Option<Definition>,
) -> BTreeMap<ContainerName, Vec<NetworkAttachment>> {
    let lacks = |instance: &Instance| Some((instance.name.clone(), instance.lacks(&meant(instance, serving, find)?)));
    let all = instances.iter().filter(|instance| !instance.oneoff).filter_map(lacks);
    all.filter(|(_, missing)| !missing.is_empty()).collect()
}

/// The networks on which a container is to be.
fn meant(
    instance: &Instance,
    serving: Option<&Release>,
    find: &dyn Fn(&DefinitionId) -> Option<Definition>,
) -> Option<Vec<NetworkAttachment>> {
    let of_release = |wanted: &crate::release::Wanted| {
        let gateway = wanted.gateway.as_ref()?;
        (Some(&gateway.name) == instance.gateway.as_ref()).then(|| gateway.networks.clone())
    };
    if is_gateway(instance) && !is_port_container(instance) {
        // What it is on may have changed since it was made.
        return serving?.target.services.values().find_map(of_release);
    }
    let named = |release: &&Release| release.instances.get(&instance.service).is_some_and(|names| names.contains(&instance.name));
    // One that Compose made is what the release says that it serves with.
    let of_service = || serving.filter(named)?.target.services.get(&instance.service).map(|wanted| &wanted.definition);
    match find(instance.definition.as_ref().or_else(of_service)?)?.network {
        NetworkMode::Networks(wanted) => Some(wanted),
        _ => None,
    }
}

/// Containers that Compose made, that the release which serves runs with, and that `target` wants just so: they stay whatever the engine says of
/// their fields. Only their image is looked at, as somebody may have made them anew under the same name.
pub fn unchanged(observed: &Observed, target: &Target, image_ids: &BTreeMap<ServiceName, Digest>) -> Vec<ContainerName> {
    let Some(serving) = observed.releases.iter().find(|release| Some(release.id) == observed.serving) else { return Vec::new() };
    let stays = |instance: &&Instance| {
        let (service, image_id) = (&instance.service, image_ids.get(&instance.service));
        let (Some(before), Some(after)) = (serving.target.services.get(service), target.services.get(service)) else { return false };
        let named = serving.instances.get(service).is_some_and(|names| names.contains(&instance.name));
        let digest = &after.image.digest;
        let same_image = instance.digest.as_ref() == Some(digest) || instance.image_id == *digest || image_id == Some(&instance.image_id);
        named && instance.definition.is_none() && !instance.oneoff && before.is_the_same(after) && same_image
    };
    observed.instances.iter().filter(stays).map(|instance| instance.name.clone()).collect()
}

/// A container that Compose made, and that differs from what is wanted in nothing but networks that it was taken from, is connected again:
/// that is no reason to make it anew.
pub fn keep_detached(observed: &mut Observed) {
    let only_detached = |name: &ContainerName, fields: &[String]| {
        let missing = observed.detached.get(name);
        let is_missing = |field: &String| missing.is_some_and(|all| all.iter().any(|one| *field == format!("network.{}", one.network)));
        !fields.is_empty() && fields.iter().all(is_missing)
    };
    let kept: Vec<ContainerName> =
        observed.drift.iter().filter(|(name, fields)| only_detached(name, fields)).map(|(name, _)| name.clone()).collect();
    for name in kept {
        observed.drift.remove(&name);
        observed.adoptable.insert(name);
    }
}

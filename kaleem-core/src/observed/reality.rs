//! What runs against what it is to be: networks that somebody took a container from.
//!
//! Labels and journals say what was meant. What a request meets is asked of the engine and of the gateways.

use std::collections::BTreeMap;

use crate::definition::{Definition, DefinitionId, NetworkAttachment, NetworkMode};
use crate::names::ContainerName;
use crate::observed::{Observed, is_gateway};
use crate::release::Release;
use crate::runtime::Instance;

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
    if is_gateway(instance) {
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

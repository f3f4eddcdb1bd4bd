//! From a checked project and pinned images to what is wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::config::{DependencyCondition, Project};
use crate::definition::{Definition, DefinitionId, NetworkMode};
use crate::names::ServiceName;
use crate::observed::ObservedImage;
use crate::plan::strategy;
use crate::release::{Target, Wanted};
use crate::runtime::StopPolicy;

/// Time between the stop signal and SIGKILL where nothing is said (Compose's own default).
const STOP_GRACE: Duration = Duration::from_secs(10);
/// Releases kept where nothing is said.
const KEEP: u32 = 5;

/// What is wanted of a project. Services without an image in `images` are left out; `identify` names a definition.
pub fn target(project: &Project, images: &BTreeMap<ServiceName, ObservedImage>, identify: &dyn Fn(&Definition) -> DefinitionId) -> Target {
    let run_to_end: BTreeSet<&ServiceName> = project
        .services
        .values()
        .flat_map(|service| &service.depends_on)
        .filter(|(_, dependency)| dependency.condition == DependencyCondition::ServiceCompletedSuccessfully)
        .map(|(name, _)| name)
        .collect();
    let services = project
        .services
        .values()
        .filter_map(|service| {
            let image = images.get(&service.name)?;
            let settings = project.settings.services.get(&service.name).cloned().unwrap_or_default();
            let (strategy, reason) =
                strategy::decide(service, &image.pinned.image, &image.facts, run_to_end.contains(&service.name), &settings);
            let wanted = Wanted {
                image: image.pinned.clone(),
                platform: service.definition.platform.clone(),
                definition: identify(&service.definition),
                replicas: service.replicas,
                container_name: service.container_name.clone(),
                strategy,
                reason,
                gate: strategy::gate(service, &image.facts, settings.health.as_ref()),
                depends_on: service.depends_on.clone(),
                stop: StopPolicy {
                    signal: service.definition.stop_signal.clone(),
                    grace: service.definition.stop_grace.unwrap_or(STOP_GRACE),
                },
                restart: service.definition.restart,
                ports: service.definition.ports.clone(),
                companions: companions(&service.definition),
            };
            Some((service.name.clone(), wanted))
        })
        .collect();
    Target {
        project: project.name.clone(),
        directory: project.directory.clone(),
        files: project.files.clone(),
        services,
        networks: project.networks.values().cloned().collect(),
        volumes: project.volumes.values().cloned().collect(),
        keep: project.settings.keep.unwrap_or(KEEP).max(1),
    }
}

/// Services in whose namespaces or volumes a container takes part: it must be made anew when theirs is.
pub fn companions(definition: &Definition) -> Vec<ServiceName> {
    let mut names = BTreeSet::new();
    if let NetworkMode::Service(service) = &definition.network {
        names.insert(service.clone());
    }
    for mode in [&definition.pid, &definition.ipc].into_iter().flatten() {
        if let Some(service) = mode.strip_prefix("service:").and_then(|name| name.parse().ok()) {
            names.insert(service);
        }
    }
    names.extend(definition.volumes_from.iter().map(|(service, _)| service.clone()));
    names.into_iter().collect()
}

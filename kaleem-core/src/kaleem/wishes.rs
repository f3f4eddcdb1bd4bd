//! What the person who deploys says beside the files, and what comes of it: services that stay as they are, other numbers of replicas.

use std::collections::{BTreeMap, BTreeSet};

use super::{Kaleem, KaleemError};
use crate::config::{DependencyCondition, Project};
use crate::definition::DefinitionId;
use crate::image::ImageRef;
use crate::names::ServiceName;
use crate::observed::{ObserveError, Observed, ObservedImage, image_reference, is_gateway};
use crate::plan::older::{Before, Facts};
use crate::plan::{Objection, Plan, Severity};
use crate::release::{Release, Strategy, Target};
use crate::runtime::{InstanceHealth, InstanceStatus};
use crate::state::DefinitionKey;

/// What the person who deploys says beside the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wishes {
    /// Only these services are deployed; all where none is named.
    pub only: BTreeSet<ServiceName>,
    /// Other numbers of containers than the files say.
    pub scale: BTreeMap<ServiceName, u32>,
    /// Services that are replaced even where nothing of them changed.
    pub recreate: BTreeSet<ServiceName>,
}

impl Wishes {
    /// What the files say, and nothing else.
    pub fn none() -> Self {
        Self { only: BTreeSet::new(), scale: BTreeMap::new(), recreate: BTreeSet::new() }
    }

    /// Refuses services that are not there.
    pub(super) fn check(&self, project: &Project) -> Result<(), KaleemError> {
        let mut named = self.only.iter().chain(self.scale.keys()).chain(&self.recreate);
        let Some(service) = named.find(|name| !project.services.contains_key(*name)) else { return Ok(()) };
        let known = project.services.keys().map(ServiceName::as_str).collect::<Vec<_>>().join(", ");
        Err(KaleemError::Observe { source: ObserveError::NoService { service: service.clone(), known } })
    }

    /// The project with the numbers of containers that are wanted.
    pub(super) fn scaled(&self, project: &Project) -> Project {
        let mut project = project.clone();
        for (name, replicas) in &self.scale {
            if let Some(service) = project.services.get_mut(name) {
                service.replicas = *replicas;
            }
        }
        project
    }

    /// Whether a service is deployed.
    pub(super) fn deploys(&self, name: &ServiceName) -> bool {
        self.only.is_empty() || self.only.contains(name)
    }

    /// What speaks against the numbers of containers, or should be known of them.
    pub(super) fn scale_objections(&self, files: &Project, plan: &Plan) -> Vec<Objection> {
        let mut found = Vec::new();
        for (name, replicas) in &self.scale {
            let Some(wanted) = plan.release.target.services.get(name) else { continue };
            let said = files.services.get(name).map_or(1, |service| service.replicas);
            let why = match wanted.strategy {
                Strategy::RunToEnd => Some("it runs once, to its end".to_owned()),
                Strategy::Recreate if *replicas > 1 && said <= 1 => Some(wanted.reason.clone()),
                Strategy::Recreate | Strategy::Overlap | Strategy::BlueGreen | Strategy::Rolling => None,
            };
            found.push(match why {
                Some(why) => Objection {
                    rule: "scale".to_owned(),
                    severity: Severity::Refuse,
                    service: Some(name.clone()),
                    message: format!("`{name}` cannot run {replicas} times: {why}"),
                    remedy: format!("leave out `--scale {name}={replicas}`, or change that first"),
                },
                None if *replicas != said => Objection {
                    rule: "scale".to_owned(),
                    severity: Severity::Note,
                    service: Some(name.clone()),
                    message: format!("`{name}` gets {replicas} containers because of `--scale`; the compose file says {said}"),
                    remedy: "write `scale:` into the compose file, or give the flag each time: a deploy without it goes back".to_owned(),
                },
                None => continue,
            });
        }
        found
    }

    /// Dependencies of what is deployed that are not, and that do not stand.
    pub(super) fn dependency_objections(&self, project: &Project, observed: &Observed) -> Vec<Objection> {
        let mut found = Vec::new();
        for service in self.only.iter().filter_map(|name| project.services.get(name)) {
            for (other, dependency) in service.depends_on.iter().filter(|(other, dependency)| dependency.required && !self.deploys(other)) {
                let instances = || observed.instances.iter().filter(|found| found.service == *other && !found.oneoff && !is_gateway(found));
                let runs = || instances().filter(|instance| instance.state.status == InstanceStatus::Running);
                let stands = match dependency.condition {
                    DependencyCondition::ServiceStarted => runs().next().is_some(),
                    DependencyCondition::ServiceHealthy => {
                        let ignored = project.settings.decides_health(other);
                        runs().any(|instance| ignored || instance.state.health != InstanceHealth::Unhealthy)
                    }
                    DependencyCondition::ServiceCompletedSuccessfully => {
                        instances().any(|instance| instance.state.status == InstanceStatus::Exited && instance.state.exit_code == Some(0))
                    }
                };
                if !stands {
                    let what = match dependency.condition {
                        DependencyCondition::ServiceStarted => "does not run",
                        DependencyCondition::ServiceHealthy => "is not healthy",
                        DependencyCondition::ServiceCompletedSuccessfully => "has not run to its end",
                    };
                    found.push(Objection {
                        rule: "dependency-missing".to_owned(),
                        severity: Severity::Refuse,
                        service: Some(service.name.clone()),
                        message: format!("`{}` depends on `{other}`, which {what}", service.name),
                        remedy: format!("deploy it too: `--only {other}`, or leave out `--only`"),
                    });
                }
            }
        }
        found
    }
}

/// Services of the release that serves which a deploy leaves as they are, and why.
pub(super) fn left(project: &Project, serving: Option<&Release>, wishes: &Wishes) -> BTreeMap<ServiceName, String> {
    let mut left = BTreeMap::new();
    for name in serving.into_iter().flat_map(|serving| serving.target.services.keys()) {
        if !project.services.contains_key(name) && project.inputs.disabled.contains(name) {
            left.insert(name.clone(), "its profile is not active, so it is left as it is".to_owned());
        } else if !wishes.deploys(name) {
            left.insert(name.clone(), "`--only` names others, so it is left as it is".to_owned());
        }
    }
    left
}

/// The target with what is left as it is as the release that serves has it.
pub(super) fn carry(target: &mut Target, serving: Option<&Release>, left: &BTreeMap<ServiceName, String>, wishes: &Wishes) {
    target.services.retain(|name, _| wishes.deploys(name));
    let Some(serving) = serving.filter(|_| !left.is_empty()) else { return };
    for name in left.keys() {
        if let Some(wanted) = serving.target.services.get(name) {
            target.services.insert(name.clone(), wanted.clone());
        }
        if let Some(image) = serving.target.made_from.chosen.get(name) {
            target.made_from.chosen.insert(name.clone(), image.clone());
        }
    }
    for network in &serving.target.networks {
        if !target.networks.iter().any(|other| other.name == network.name) {
            target.networks.push(network.clone());
        }
    }
    for volume in &serving.target.volumes {
        if !target.volumes.iter().any(|other| other.name == volume.name) {
            target.volumes.push(volume.clone());
        }
    }
}

impl Kaleem {
    /// Notes in a target what it is made from beside its files.
    pub(super) fn note_inputs(target: &mut Target, project: &Project, chosen: &BTreeMap<ServiceName, ImageRef>, key: &DefinitionKey) {
        for (name, variable) in &project.inputs.variables {
            if let Some(value) = variable.value.as_ref().filter(|value| !value.expose().is_empty()) {
                target.made_from.variables.insert(name.clone(), key.hash(format!("{name}={}", value.expose()).as_bytes()));
            }
        }
        for name in chosen.keys() {
            let said = project.services.get(name).and_then(|service| image_reference(&project.name, service, None).ok());
            target.made_from.chosen.extend(said.map(|image| (name.clone(), image)));
        }
    }

    /// What goes back without a person's word.
    pub(super) async fn older_objections(
        &self,
        project: &Project,
        serving: Option<&Release>,
        images: &BTreeMap<ServiceName, ObservedImage>,
        observed: &Observed,
        plan: &Plan,
    ) -> Result<Vec<Objection>, KaleemError> {
        let target = &plan.release.target;
        let mut before = BTreeMap::new();
        for (name, image) in images {
            let runs = observed.instances.iter().find(|instance| {
                let up = matches!(instance.state.status, InstanceStatus::Running | InstanceStatus::Restarting | InstanceStatus::Paused);
                instance.service == *name && !instance.oneoff && !is_gateway(instance) && up
            });
            let released = serving.and_then(|serving| serving.target.services.get(name));
            let (text, reference, digest, local) = match (released, runs) {
                (Some(wanted), _) if wanted.image.digest != image.pinned.digest => {
                    let same = wanted.image.image == image.pinned.image;
                    let text = if same { wanted.image.to_string() } else { wanted.image.image.to_string() };
                    (text, Some(wanted.image.image.clone()), Some(wanted.image.digest.clone()), wanted.image.engine_reference())
                }
                (None, Some(instance)) if instance.image_id != image.id => {
                    (instance.image.clone(), instance.image.parse().ok(), instance.digest.clone(), instance.image_id.to_string())
                }
                _ => continue,
            };
            let local = self.runtime.image(&local).await.map_err(|source| KaleemError::Runtime { source })?;
            let built = local.and_then(|local| local.facts.created);
            before.insert(name.clone(), Before { image: text, reference, digest, built });
        }
        let named = project.inputs.variables.iter().map(|(name, variable)| (name.as_str(), variable)).collect();
        let built = images.iter().filter_map(|(name, image)| Some((name.clone(), image.facts.created?))).collect();
        let facts = Facts { serving, releases: &observed.releases, target, named, before, built };
        Ok(facts.objections(plan))
    }
}

/// What differs at services that are left as they are, so that nobody believes that they were deployed.
pub(super) fn left_objections(
    project: &Project,
    serving: Option<&Release>,
    left: &BTreeMap<ServiceName, String>,
    as_files_say: &BTreeMap<ServiceName, (DefinitionId, ImageRef)>,
    compare: &dyn Fn(&DefinitionId, &DefinitionId) -> Vec<String>,
) -> Vec<Objection> {
    let mut found = Vec::new();
    for (name, _) in left.iter().filter(|(name, _)| project.inputs.disabled.contains(*name)) {
        found.push(Objection {
            rule: "left".to_owned(),
            severity: Severity::Note,
            service: Some(name.clone()),
            message: format!("`{name}` is left as it is, because no active profile names it"),
            remedy: "activate its profile to deploy it (`--profile`, COMPOSE_PROFILES)".to_owned(),
        });
    }
    for name in left.keys().filter(|name| project.services.contains_key(*name)) {
        let Some(wanted) = serving.and_then(|serving| serving.target.services.get(name)) else { continue };
        let Some((definition, image)) = as_files_say.get(name) else { continue };
        let mut fields = compare(&wanted.definition, definition);
        if *image != wanted.image.image {
            fields.insert(0, format!("image {} -> {image}", wanted.image.image));
        }
        if !fields.is_empty() {
            found.push(Objection {
                rule: "left".to_owned(),
                severity: Severity::Warn,
                service: Some(name.clone()),
                message: format!("`{name}` is left as it is, though the files change it: {}", fields.join(", ")),
                remedy: format!("deploy it too: `--only {name}`, or leave out `--only`"),
            });
        }
    }
    found
}

//! Taking over what runs as it is: a release that says what is there. Nothing is replaced, made or removed. Pure, like the planner.

use crate::observed::{gateway_of, is_gateway};
use crate::plan::{ChangeKind, PLAN_FORMAT, Plan, PlanKind, ServiceChange, Step, pin_tag};
use crate::release::{Release, Wanted};
use crate::runtime::{Instance, InstanceStatus, kaleem_labels};

/// From what a deploy of the same files would do to a release of what runs.
///
/// A service that already is what the files say is taken over with them. Of one that differs, only what its labels say is known: the next deploy
/// replaces it. What kaleem did not make and the files describe otherwise stays out.
pub fn adopt(deploy: &Plan, instances: &[Instance]) -> Plan {
    let mut release = Release { instances: Default::default(), ..deploy.release.clone() };
    let mut changes = Vec::new();
    release.target.services.retain(|name, wanted| {
        let change = deploy.changes.iter().find(|change| change.service == *name);
        let planned = deploy.release.instances.get(name).cloned().unwrap_or_default();
        let is_there = |name: &crate::names::ContainerName| instances.iter().any(|instance| instance.name == *name);
        let same = change.is_some_and(|change| change.kind == ChangeKind::Keep) && planned.iter().all(is_there) && !planned.is_empty();
        let names = if same {
            planned
        } else {
            let running: Vec<&Instance> = instances.iter().filter(|instance| instance.service == *name && is_instance(instance)).collect();
            let Some(known) = running.first().and_then(|first| as_labelled(wanted, first)) else { return false };
            *wanted = known;
            wanted.replicas = u32::try_from(running.len()).unwrap_or(u32::MAX);
            running.iter().map(|instance| instance.name.clone()).collect()
        };
        // Who has the name and the ports is the gateway that runs, if there is one.
        let standing = gateway_of(&deploy.release.target.project, name, instances).filter(|gateway| runs(gateway));
        wanted.gateway = wanted.gateway.take().zip(standing).map(|(mut gateway, standing)| {
            if !same && let Some(definition) = &standing.definition {
                gateway.definition = definition.clone();
            }
            gateway.container = standing.name.clone();
            gateway
        });
        release.instances.insert(name.clone(), names);
        let before = Some(wanted.image.to_string());
        let kept = change.map(|change| ServiceChange {
            kind: ChangeKind::Keep,
            image_before: before.clone(),
            image_after: before,
            fields: Vec::new(),
            interruption: super::Interruption::None,
            ..change.clone()
        });
        changes.extend(kept);
        true
    });
    let pins = release.target.services.iter().filter_map(|(name, wanted)| {
        let pin = pin_tag(&release.target.project, name, release.id)?;
        Some(Step::Pin { image: wanted.image.clone(), pin })
    });
    let mut steps = vec![Step::Baseline { gates: Vec::new() }];
    steps.extend(pins);
    steps.push(Step::Commit { release: release.id });
    Plan {
        format: PLAN_FORMAT,
        id: deploy.id,
        kind: PlanKind::Deploy,
        release,
        previous: None,
        changes,
        objections: Vec::new(),
        steps,
        by: None,
        note: None,
    }
}

fn runs(instance: &Instance) -> bool {
    matches!(instance.state.status, InstanceStatus::Running | InstanceStatus::Restarting | InstanceStatus::Paused)
}

fn is_instance(instance: &Instance) -> bool {
    runs(instance) && !instance.oneoff && !is_gateway(instance)
}

/// What is wanted, as the labels of a container that kaleem made say it is.
fn as_labelled(wanted: &Wanted, instance: &Instance) -> Option<Wanted> {
    let image = instance.labels.get(kaleem_labels::IMAGE)?.parse().ok()?;
    let digest = instance.digest.clone()?;
    let source = if digest == instance.image_id { crate::image::ImageSource::Local } else { crate::image::ImageSource::Registry };
    let image = crate::image::PinnedImage { image, digest, source };
    Some(Wanted { image, definition: instance.definition.clone()?, ..wanted.clone() })
}

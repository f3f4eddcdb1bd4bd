//! What differs and is no reason to replace a container: a restart policy is changed while it runs, and labels can wait where a
//! replacement would be a gap.

use std::collections::BTreeMap;

use crate::definition::DefinitionId;
use crate::names::ServiceName;
use crate::observed::{Observed, is_gateway};
use crate::plan::steps::update::keeps_for_labels;
use crate::plan::{Objection, Severity};
use crate::release::{Strategy, Target, Wanted};
use crate::runtime::{Instance, InstanceStatus};

/// Has the target keep the definition of what runs where only such things differ. Answers which labels are not applied, by service.
///
/// `skip` names services that are left as they are, or that are replaced in any case.
pub fn settle(
    target: &mut Target,
    observed: &Observed,
    skip: &dyn Fn(&ServiceName) -> bool,
    compare: &dyn Fn(&DefinitionId, &DefinitionId) -> Vec<String>,
) -> BTreeMap<ServiceName, Vec<String>> {
    let mut later: BTreeMap<ServiceName, Vec<String>> = BTreeMap::new();
    for (name, wanted) in target.services.iter_mut().filter(|(name, _)| !skip(name)) {
        let instances: Vec<&Instance> = observed
            .instances
            .iter()
            .filter(|instance| instance.service == *name && !instance.oneoff && !is_gateway(instance) && stands(instance, wanted))
            .collect();
        if keeps_for_labels(wanted) {
            let labels = instances.iter().filter_map(|instance| observed.relabelled.get(&instance.name)).flatten();
            let mut labels: Vec<String> = labels.cloned().collect();
            labels.dedup();
            if !labels.is_empty() {
                later.insert(name.clone(), labels);
            }
        }
        let Some(runs) = instances.first().and_then(|instance| instance.definition.clone()) else { continue };
        let same =
            |instance: &&Instance| instance.definition.as_ref() == Some(&runs) && instance.digest.as_ref() == Some(&wanted.image.digest);
        if runs == wanted.definition || !instances.iter().all(same) {
            continue;
        }
        let fields = compare(&runs, &wanted.definition);
        let labels: Vec<String> = fields.iter().filter(|field| field.starts_with("labels.")).cloned().collect();
        let waits = labels.is_empty() || keeps_for_labels(wanted);
        // Nothing is known of definitions that are not kept any more.
        if fields.is_empty() || !waits || fields.iter().any(|field| field != "restart" && !field.starts_with("labels.")) {
            continue;
        }
        wanted.definition = runs;
        if !labels.is_empty() {
            later.insert(name.clone(), labels);
        }
    }
    later
}

/// Whether an instance is one that may stay: it runs, or it has run to its end.
fn stands(instance: &Instance, wanted: &Wanted) -> bool {
    match wanted.strategy {
        Strategy::RunToEnd => instance.state.status == InstanceStatus::Exited && instance.state.exit_code == Some(0),
        Strategy::Recreate | Strategy::Overlap | Strategy::BlueGreen | Strategy::Rolling => {
            matches!(instance.state.status, InstanceStatus::Running | InstanceStatus::Restarting | InstanceStatus::Paused)
        }
    }
}

/// Labels that are not applied now, said so that nobody believes that they are.
pub fn objections(later: &BTreeMap<ServiceName, Vec<String>>) -> Vec<Objection> {
    let found = later.iter().map(|(name, labels)| Objection {
        rule: LABELS_LATER.to_owned(),
        severity: Severity::Warn,
        service: Some(name.clone()),
        message: format!(
            "`{name}` keeps its old labels ({}): a running container cannot get others, and replacing it would be a gap",
            labels.join(", ")
        ),
        remedy: format!("they come with its next replacement; to have them now, run `kaleem deploy --recreate {name}`"),
    });
    found.collect()
}

/// Labels of the files that what runs does not have.
pub const LABELS_LATER: &str = "labels-later";

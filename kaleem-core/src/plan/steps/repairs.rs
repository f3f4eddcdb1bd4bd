//! What somebody did to the containers that serve, and how a plan repairs it before anything else.
//!
//! Nothing here is undone: what is repaired was meant to be so in the release before, too.

use std::collections::BTreeMap;

use super::{Builder, PlanInput, Slot, is_up};
use crate::names::ServiceName;
use crate::observed::is_gateway;
use crate::plan::{ChangeKind, Step, WhenUndone};
use crate::release::{Release, Wanted};
use crate::runtime::Instance;

/// What is repaired, by service, for people.
pub(super) type Repaired = BTreeMap<ServiceName, Vec<String>>;

/// The repairs of what serves, and the steps for them.
pub(super) fn first(input: &PlanInput<'_>) -> (Vec<Step>, Repaired) {
    let (mut steps, mut repaired) = (Vec::new(), Repaired::new());
    let Some(serving) = input.observed.releases.iter().find(|release| Some(release.id) == input.observed.serving) else {
        return (steps, repaired);
    };
    for instance in input.observed.instances.iter().filter(|instance| is_up(instance)) {
        let Some(service) = service_of(serving, instance) else { continue };
        if let Some(networks) = input.observed.detached.get(&instance.name) {
            let names: Vec<String> = networks.iter().map(|attachment| attachment.network.to_string()).collect();
            repaired.entry(service.clone()).or_default().push(format!("{} is not on {}", instance.name, names.join(", ")));
            steps.push(connect(service, instance, input));
        }
    }
    (steps, repaired)
}

/// The service for which a container serves, as an instance of the release or as its gateway.
fn service_of<'r>(serving: &'r Release, instance: &Instance) -> Option<&'r ServiceName> {
    let gateway = |wanted: &Wanted| wanted.gateway.as_ref().is_some_and(|gateway| Some(&gateway.name) == instance.gateway.as_ref());
    if is_gateway(instance) {
        return serving.target.services.iter().find(|(_, wanted)| gateway(wanted)).map(|(name, _)| name);
    }
    serving.instances.iter().find(|(_, names)| names.contains(&instance.name)).map(|(name, _)| name)
}

fn connect(service: &ServiceName, instance: &Instance, input: &PlanInput<'_>) -> Step {
    Step::Connect {
        service: service.clone(),
        container: instance.name.clone(),
        networks: input.observed.detached.get(&instance.name).cloned().unwrap_or_default(),
        when_undone: WhenUndone::Stays,
    }
}

impl Builder<'_> {
    /// Connects stopped containers that are to run again and lack networks.
    pub(super) fn connect_reused(&mut self, name: &ServiceName, slots: &[Slot<'_>]) {
        for slot in slots {
            if let Slot::Reused(instance) = slot
                && self.input.observed.detached.contains_key(&instance.name)
            {
                let step = connect(name, instance, self.input);
                self.prepare.push(step);
            }
        }
    }

    /// Looks at what was repaired of a service that stays as it is, and says so.
    pub(super) fn confirm_repairs(&mut self, name: &ServiceName, wanted: &Wanted, slots: &[Slot<'_>]) {
        let Some(fields) = self.repaired.get(name).cloned() else { return };
        for slot in slots {
            match &wanted.gateway {
                Some(gateway) => self.gate_through(name, wanted, gateway, slot),
                None => self.switch.push(super::gate(name, wanted, slot.name().clone())),
            }
        }
        if let Some(change) = self.changes.last_mut().filter(|change| change.service == *name && change.kind == ChangeKind::Keep) {
            change.kind = ChangeKind::Repair;
            change.fields = fields;
        }
    }
}

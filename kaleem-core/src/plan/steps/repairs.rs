//! What somebody did to the containers that serve, and how a plan repairs it before anything else.
//!
//! Nothing here is undone: what is repaired was meant to be so in the release before, too.

use std::collections::BTreeMap;

use super::{Builder, PlanInput, Slot, is_up};
use crate::definition::RestartPolicy;
use crate::names::ServiceName;
use crate::observed::{Observed, is_gateway};
use crate::plan::{ChangeKind, PlanKind, Route, Step, WhenUndone};
use crate::release::{Release, Wanted};
use crate::runtime::{Instance, InstanceStatus};

/// What is repaired of what serves.
pub(super) struct Repairs {
    /// The steps.
    pub(super) steps: Vec<Step>,
    /// What they repair, by service, for people.
    pub(super) said: BTreeMap<ServiceName, Vec<String>>,
    /// What is there after them.
    pub(super) observed: Observed,
}

/// The repairs of what serves: what was paused runs on, a gateway that was stopped is started, and both are connected to their networks.
pub(super) fn first(input: &PlanInput<'_>) -> Repairs {
    let mut repairs = Repairs { steps: Vec::new(), said: BTreeMap::new(), observed: input.observed.clone() };
    let serving = input.observed.releases.iter().find(|release| Some(release.id) == input.observed.serving);
    // What is about to be given to plain Compose needs no repair.
    let Some(serving) = serving.filter(|_| input.kind != PlanKind::Eject) else { return repairs };
    for instance in &input.observed.instances {
        let Some(service) = service_of(serving, instance) else { continue };
        let revived = is_revived(input, service, instance);
        if !revived && !is_up(instance) {
            continue;
        }
        let said = repairs.said.entry(service.clone()).or_default();
        if let Some(networks) = input.observed.detached.get(&instance.name) {
            let names: Vec<String> = networks.iter().map(|attachment| attachment.network.to_string()).collect();
            said.push(format!("connect {} to {}", instance.name, names.join(", ")));
            repairs.steps.push(connect(service, instance, input.observed));
        }
        if revived {
            said.push(format!("start {} again", instance.name));
            let (service, container, restart) = (service.clone(), instance.name.clone(), policy(serving, instance));
            repairs.steps.push(Step::Revive { service, container, restart });
        }
    }
    let revived = |instance: &Instance| {
        repairs.steps.iter().any(|step| matches!(step, Step::Revive { container, .. } if *container == instance.name))
    };
    let up: Vec<_> = repairs.observed.instances.iter().filter(|instance| revived(instance)).map(|instance| instance.name.clone()).collect();
    for instance in repairs.observed.instances.iter_mut().filter(|instance| up.contains(&instance.name)) {
        instance.state.status = InstanceStatus::Running;
    }
    repairs.said.retain(|_, said| !said.is_empty());
    repairs
}

/// The service for which a container serves, as an instance of the release or as its gateway.
fn service_of<'r>(serving: &'r Release, instance: &Instance) -> Option<&'r ServiceName> {
    let gateway = |wanted: &Wanted| wanted.gateway.as_ref().is_some_and(|gateway| Some(&gateway.name) == instance.gateway.as_ref());
    if is_gateway(instance) {
        return serving.target.services.iter().find(|(_, wanted)| gateway(wanted)).map(|(name, _)| name);
    }
    serving.instances.iter().find(|(_, names)| names.contains(&instance.name)).map(|(name, _)| name)
}

/// What its release says; a gateway always comes back by itself.
fn policy(serving: &Release, instance: &Instance) -> RestartPolicy {
    let wanted = serving.target.services.get(&instance.service).filter(|_| !is_gateway(instance));
    wanted.map_or(RestartPolicy::Always, |wanted| wanted.restart)
}

/// Whether it is to run on. An instance that was stopped is started by its service's own steps, behind its gate.
fn is_revived(input: &PlanInput<'_>, service: &ServiceName, instance: &Instance) -> bool {
    let all = &input.observed.instances;
    match instance.state.status {
        InstanceStatus::Paused => true,
        InstanceStatus::Exited | InstanceStatus::Created if is_gateway(instance) => {
            let wanted = input.target.services.get(service).and_then(|wanted| wanted.gateway.as_ref());
            let fits = wanted.is_some_and(|wanted| instance.definition.as_ref() == Some(&wanted.definition));
            // Another gateway has its name by now, or somebody its ports.
            let replaced = |other: &Instance| other.gateway == instance.gateway && other.name != instance.name && is_up(other);
            let published = |other: &Instance| other.service == *service && !is_gateway(other) && is_up(other) && !other.ports.is_empty();
            fits && !all.iter().any(|other| replaced(other) || published(other))
        }
        _ => false,
    }
}

fn connect(service: &ServiceName, instance: &Instance, observed: &Observed) -> Step {
    Step::Connect {
        service: service.clone(),
        container: instance.name.clone(),
        networks: observed.detached.get(&instance.name).cloned().unwrap_or_default(),
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
                let step = connect(name, instance, self.input.observed);
                self.prepare.push(step);
            }
        }
    }

    /// Looks at what was repaired of a service that stays as it is, has its gateway send where it is to send, and says so.
    pub(super) fn confirm_repairs(&mut self, name: &ServiceName, wanted: &Wanted, slots: &[Slot<'_>]) {
        let mut said = self.repaired.get(name).cloned().unwrap_or_default();
        let to: Vec<Route> = slots.iter().map(|slot| self.route(slot)).collect();
        let elsewhere = self.input.observed.sends.get(name).is_some_and(|sends| !sends.is_to(to.iter().map(|route| &route.container)));
        if said.is_empty() && !elsewhere {
            return;
        }
        for slot in slots {
            match &wanted.gateway {
                Some(gateway) => self.gate_through(name, wanted, gateway, slot),
                None => self.switch.push(super::gate(name, wanted, slot.name().clone())),
            }
        }
        if let Some(gateway) = wanted.gateway.as_ref().filter(|_| elsewhere) {
            said.push(format!("have {} send to {}", gateway.name, super::names(&to)));
            let from = self.routed_before(name);
            self.switch.push(Step::Steer { service: name.clone(), gateway: gateway.name.clone(), to, from });
        }
        if let Some(change) = self.changes.last_mut().filter(|change| change.service == *name && change.kind == ChangeKind::Keep) {
            change.kind = ChangeKind::Repair;
            change.fields = said;
        }
    }
}

//! The numbered places of a service: what stands there, what is made, and how it is called.

use super::Builder;
use crate::names::{ContainerName, NetworkName, ServiceName};
use crate::plan::{NewInstance, PlanKind, Role, Step, instance_name};
use crate::release::Wanted;
use crate::runtime::{Instance, InstanceStatus};

/// What becomes of one numbered place of a service.
pub(super) enum Slot<'a> {
    /// It runs what is wanted.
    Kept(&'a Instance),
    /// A stopped container is what is wanted.
    Reused(&'a Instance),
    /// A container is made.
    New(NewInstance),
}

impl Slot<'_> {
    pub(super) fn name(&self) -> &ContainerName {
        match self {
            Self::Kept(instance) | Self::Reused(instance) => &instance.name,
            Self::New(instance) => &instance.name,
        }
    }
}

impl<'a> Builder<'a> {
    /// What becomes of each place of a service. What shares a namespace with a container that goes away must go with it.
    pub(super) fn slots(&self, name: &ServiceName, wanted: &Wanted, all: &[&'a Instance]) -> Vec<Slot<'a>> {
        let forced = wanted.companions.iter().any(|companion| self.replaced.contains(companion)) || self.is_made_again(name, wanted);
        (1..=wanted.replicas).map(|number| self.slot(name, wanted, number, all, forced)).collect()
    }

    fn slot(&self, name: &ServiceName, wanted: &Wanted, number: u32, all: &[&'a Instance], forced: bool) -> Slot<'a> {
        let fitting = || all.iter().copied().filter(|instance| instance.number == number && !forced && self.matches(instance, wanted));
        if let Some(instance) = fitting().find(|instance| instance.state.status == InstanceStatus::Running) {
            return Slot::Kept(instance);
        }
        // What did its work and ended is not run again.
        let done = |instance: &&Instance| instance.state.status == InstanceStatus::Exited && instance.state.exit_code == Some(0);
        if let Some(instance) = fitting().find(|instance| wanted.gate.may_end && done(instance)) {
            return Slot::Kept(instance);
        }
        // One whose network was removed cannot be started again.
        let (wanted_networks, there) = (&self.input.target.networks, &self.input.observed.networks);
        let is_gone = |name: &NetworkName| wanted_networks.iter().any(|network| network.name == *name) && !there.contains_key(name);
        let has_networks = |instance: &&Instance| !instance.networks.keys().any(is_gone);
        if let Some(instance) = fitting().filter(has_networks).find(|instance| is_reusable(instance)) {
            return Slot::Reused(instance);
        }
        Slot::New(self.new_instance(name, wanted, number))
    }

    pub(super) fn new_instance(&self, name: &ServiceName, wanted: &Wanted, number: u32) -> NewInstance {
        let companions =
            wanted.companions.iter().filter_map(|service| Some((service.clone(), self.stands_for.get(service)?.clone()))).collect();
        NewInstance {
            name: self.free_name(name, wanted, number),
            service: name.clone(),
            number,
            release: self.input.release,
            image: wanted.image.clone(),
            definition: wanted.definition.clone(),
            companions,
            role: if self.input.kind == PlanKind::Eject { Role::Plain } else { Role::Instance },
        }
    }

    /// `<project>-<service>-<release>-<number>`; with the plan's number behind it where that is taken (a release that is made anew).
    pub(super) fn free_name(&self, service: &ServiceName, wanted: &Wanted, number: u32) -> ContainerName {
        let (project, release) = (&self.input.target.project, self.input.release);
        let plain = match self.input.kind {
            // Compose's own name. One that is the only one of its service is renamed to it when the old one is gone.
            PlanKind::Eject if wanted.replicas > 1 => ContainerName::fitting(&format!("{project}-{service}-{number}")),
            PlanKind::Eject | PlanKind::Deploy | PlanKind::Rollback | PlanKind::Down | PlanKind::Upgrade | PlanKind::Restart => {
                instance_name(project, service, release, number)
            }
        };
        let taken = self.input.observed.instances.iter().any(|instance| instance.name == plain);
        if taken { ContainerName::fitting(&format!("{plain}-{}", self.input.id)) } else { plain }
    }

    pub(super) fn final_name(&self, wanted: &Wanted, slot: &Slot<'_>) -> ContainerName {
        match (&wanted.container_name, slot) {
            (Some(fixed), _) => fixed.clone(),
            (None, _) => slot.name().clone(),
        }
    }

    /// Gives the new container its fixed name, after the one that has it has got another.
    pub(super) fn take_name(&mut self, name: &ServiceName, wanted: &Wanted, slot: &Slot<'_>, old: &[&Instance]) -> Vec<Step> {
        let Some(fixed) = wanted.container_name.as_ref().filter(|fixed| *fixed != slot.name()) else { return Vec::new() };
        let mut steps = Vec::new();
        // It may be one of another service, such as the one that this service was called before.
        let others = self.input.observed.instances.iter().filter(|other| !self.input.left.contains_key(&other.service));
        let holder = old.iter().copied().chain(self.of_service(name)).chain(others).find(|instance| instance.name == *fixed);
        if let Some(holder) = holder.filter(|holder| !self.renamed.contains_key(&holder.name)) {
            let retired = self.retired_name(&holder.service, holder);
            self.renamed.insert(holder.name.clone(), retired.clone());
            steps.push(Step::Rename { service: name.clone(), from: holder.name.clone(), to: retired });
        }
        steps.push(Step::Rename { service: name.clone(), from: slot.name().clone(), to: fixed.clone() });
        steps
    }

    pub(super) fn retired_name(&self, service: &ServiceName, holder: &Instance) -> ContainerName {
        let origin = holder.release.map_or_else(|| "compose".to_owned(), |release| release.to_string());
        // The plan's number keeps two retirements of one container apart.
        let text = format!("{}-{service}-{origin}-{}-{}", self.input.target.project, holder.number, self.input.id);
        ContainerName::fitting(&text)
    }
}

fn is_reusable(instance: &Instance) -> bool {
    matches!(instance.state.status, InstanceStatus::Created | InstanceStatus::Exited)
}

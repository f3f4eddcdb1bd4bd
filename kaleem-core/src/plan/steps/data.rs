//! What a plan does about data: a set before anything is replaced, or data put back while nobody writes.

use std::collections::BTreeSet;

use super::{Builder, PlanData, Slot, gate, is_up, start};
use crate::names::{ContainerName, ServiceName};
use crate::plan::{ChangeKind, Interruption, Step};
use crate::release::Wanted;
use crate::runtime::Instance;

/// The tag of sets that plans make before a deploy.
const BEFORE_DEPLOY: &str = "before-deploy";
/// The tag of sets that hold what a restore replaced; retention keeps them for a while.
const BEFORE_RESTORE: &str = "before-restore";

impl Builder<'_> {
    /// The steps between what disturbs nobody and the first replacement.
    pub(super) fn data_steps(&self) -> Vec<Step> {
        let release = self.input.release;
        match &self.input.data {
            PlanData::Leave => Vec::new(),
            PlanData::BackUp { set, services } => {
                // Where nothing runs yet there is nothing to lose.
                let runs = self.input.observed.instances.iter().any(|instance| !instance.oneoff && is_up(instance));
                let changes = self.changes.iter().any(|change| change.kind != ChangeKind::Keep && services.contains(&change.service));
                if !runs || !changes {
                    return Vec::new();
                }
                let tags = vec![BEFORE_DEPLOY.to_owned()];
                vec![Step::BackUp { set: set.clone(), release, tags }, Step::VerifyBackup { set: set.clone() }]
            }
            PlanData::Restore { set, safe, .. } => {
                let tags = vec![BEFORE_RESTORE.to_owned()];
                vec![Step::BackUp { set: safe.clone(), release, tags }, Step::RestoreData { set: set.clone(), safe: safe.clone() }]
            }
        }
    }

    /// What is to be put back is read in whole while everything still runs.
    pub(super) fn check_set_first(&mut self) {
        if let PlanData::Restore { set, .. } = self.input.data {
            self.prepare.push(Step::VerifyBackup { set: set.clone() });
        }
    }

    /// Whether a service uses data that is put back, and so must not run meanwhile.
    pub(super) fn is_quieted(&self, name: &ServiceName) -> bool {
        matches!(&self.input.data, PlanData::Restore { writers, .. } if writers.contains(name))
    }

    /// Stops all of a service before data is put back, and starts what is wanted after it: also what stays as it is. Its gateway
    /// holds requests meanwhile, as long as it can.
    pub(super) fn around_data(&mut self, name: &ServiceName, wanted: &Wanted) {
        let all = self.of_service(name);
        let slots: Vec<Slot<'_>> = self.slots(name, wanted, &all);
        let kept: BTreeSet<&ContainerName> = slots.iter().filter(|slot| matches!(slot, Slot::Kept(_))).map(Slot::name).collect();
        let old: Vec<&Instance> = all.iter().copied().filter(|instance| is_up(instance) && !kept.contains(&instance.name)).collect();
        let up: Vec<&Instance> = all.iter().copied().filter(|instance| is_up(instance)).collect();
        let standing = self.gateway_of(name);
        if let Some(first) = slots.first() {
            self.stands_for.insert(name.clone(), first.name().clone());
        }
        self.instances.insert(name.clone(), slots.iter().map(|slot| self.final_name(wanted, slot)).collect());
        self.explain(name, wanted, &slots, &old, false);
        if let Some(change) = self.changes.last_mut().filter(|change| change.service == *name) {
            change.kind = if change.kind == ChangeKind::Keep { ChangeKind::Replace } else { change.kind };
            change.fields.push("stopped while data is put back".to_owned());
            change.interruption = Interruption::StopAndStart;
        }
        self.replaced.insert(name.clone());
        self.note_baseline(name, &up);
        if slots.iter().any(|slot| matches!(slot, Slot::New(_))) {
            self.pull(wanted);
        }
        for slot in &slots {
            if let Slot::New(instance) = slot {
                self.create.push(Step::Create { instance: instance.clone() });
            }
        }
        let fits = wanted.gateway.as_ref().filter(|gateway| self.fitting(name, standing, gateway).is_some());
        if let Some(gateway) = fits {
            let from = self.routed_before(name);
            self.quiet.push(Step::Steer { service: name.clone(), gateway: gateway.name.clone(), to: Vec::new(), from });
        }
        for instance in &up {
            let stop = self.stop(name, wanted, instance);
            self.quiet.push(stop);
        }
        if wanted.gateway.is_none() {
            // They hold the ports and the name that the containers get back.
            let before: Vec<&Instance> = standing.into_iter().chain(self.port_containers(name)).filter(|one| is_up(one)).collect();
            for gateway in before {
                let stop = self.stop(name, wanted, gateway);
                self.quiet.push(stop);
            }
        }
        for slot in &slots {
            let renames = self.take_name(name, wanted, slot, &old);
            self.switch.extend(renames);
            let container = self.final_name(wanted, slot);
            self.switch.push(start(name, wanted, container.clone()));
            self.switch.push(gate(name, wanted, container));
        }
        if let Some(gateway) = &wanted.gateway {
            let after = if fits.is_none() { self.new_gateway(name, wanted, gateway, standing, &[]) } else { Vec::new() };
            let to = slots.iter().map(|slot| self.route(slot)).collect();
            self.switch.push(Step::Steer { service: name.clone(), gateway: gateway.name.clone(), to, from: Vec::new() });
            self.switch.extend(after);
        }
    }
}

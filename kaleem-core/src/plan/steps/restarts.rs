//! Services that are replaced or restarted though their definitions are the same.

use super::{Builder, Slot, gate, start};
use crate::names::ServiceName;
use crate::plan::gateway::HOLD;
use crate::plan::{ChangeKind, Interruption, PlanKind, Route, Step};
use crate::release::{Strategy, Wanted};

impl Builder<'_> {
    /// Whether the service gets new containers though nothing of its definition changed. A restart of what must not run twice keeps its
    /// container, and all that it stored without a name.
    pub(super) fn is_made_again(&self, name: &ServiceName, wanted: &Wanted) -> bool {
        let in_place = self.input.kind == PlanKind::Restart && wanted.strategy == Strategy::Recreate;
        self.input.again.contains_key(name) && !in_place
    }

    /// Whether a container in whose namespaces the service takes part is replaced.
    pub(super) fn loses_companion(&self, wanted: &Wanted) -> bool {
        wanted.companions.iter().any(|companion| self.replaced.contains(companion))
    }

    /// Stops the containers and starts them again. Where a gateway stands before them, it holds requests meanwhile.
    pub(super) fn restart_in_place(&mut self, name: &ServiceName, wanted: &Wanted, slots: &[Slot<'_>]) {
        self.replaced.insert(name.clone());
        let gateway = wanted.gateway.as_ref();
        let routes: Vec<Route> = if gateway.is_some() { self.routed_before(name) } else { Vec::new() };
        if let Some(gateway) = gateway {
            let hold = gateway.hold.unwrap_or(HOLD);
            self.switch.push(Step::Hold { service: name.clone(), gateway: gateway.name.clone(), hold, from: routes.clone() });
        }
        for slot in slots {
            let Slot::Kept(instance) = slot else { continue };
            let stop = self.stop(name, wanted, instance);
            self.switch.push(stop);
            self.switch.push(start(name, wanted, instance.name.clone()));
            match gateway {
                Some(gateway) => self.gate_through(name, wanted, gateway, slot),
                None => self.switch.push(gate(name, wanted, instance.name.clone())),
            }
        }
        if let Some(gateway) = gateway {
            self.switch.push(Step::Steer { service: name.clone(), gateway: gateway.name.clone(), to: routes.clone(), from: routes });
        }
        if let Some(change) = self.changes.last_mut().filter(|change| change.service == *name) {
            change.kind = ChangeKind::Replace;
            change.fields = vec!["restarted in place".to_owned()];
            change.interruption = if gateway.is_some() { Interruption::Held } else { Interruption::StopAndStart };
        }
    }

    /// Removes what a restart replaced: a fresh container of the same release takes its place.
    pub(super) fn replaced_by_restart(&self) -> Vec<Step> {
        let kept: Vec<_> = self.instances.values().flatten().collect();
        let stopped = self.switch.iter().chain(&self.retire).filter_map(|step| match step {
            Step::Stop { service, container, .. } => Some((service, self.renamed.get(container).unwrap_or(container))),
            _ => None,
        });
        let gone = stopped.filter(|(_, container)| !kept.contains(container));
        gone.map(|(service, container)| Step::Remove { service: service.clone(), container: container.clone() }).collect()
    }
}

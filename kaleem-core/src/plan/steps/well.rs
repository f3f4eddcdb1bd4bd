//! Which of the containers that run are healthy, as far as a plan may expect them to be so again.

use super::{Builder, Slot};
use crate::names::ServiceName;
use crate::plan::PlanKind;
use crate::release::Wanted;
use crate::runtime::{Instance, InstanceHealth, InstanceStatus};

impl Builder<'_> {
    /// Whether a container may be expected to be healthy again after it was stopped and started. What Docker reports counts only where the
    /// release that it belongs to is checked by that.
    pub(super) fn is_well(&self, name: &ServiceName, instance: &Instance) -> bool {
        let before = self.previous().and_then(|release| release.target.services.get(name));
        let ignored = before.is_some_and(|before| !before.gate.asks_docker());
        instance.state.status == InstanceStatus::Running && (ignored || instance.state.health != InstanceHealth::Unhealthy)
    }

    /// Remembers containers that stay as they are, that kaleem did not make, and that have not been healthy since it first saw them: one that
    /// is still starting may never have passed its check either.
    pub(super) fn note_unhealthy(&mut self, name: &ServiceName, wanted: &Wanted, slots: &[Slot<'_>]) {
        for slot in slots {
            let Slot::Kept(instance) = slot else { continue };
            let unproved = matches!(instance.state.health, InstanceHealth::Unhealthy | InstanceHealth::Starting);
            let unproved = unproved && instance.state.status == InstanceStatus::Running;
            let known = self.previous().filter(|release| release.instances.get(name).is_some_and(|names| names.contains(&instance.name)));
            let before = known.map_or(instance.release.is_none(), |release| release.unhealthy_before.contains(&instance.name));
            // A rollback asks nothing of it, and it may still be known.
            let counts = wanted.gate.asks_docker() || self.input.kind == PlanKind::Rollback;
            if unproved && before && counts {
                self.unhealthy_before.insert(self.final_name(wanted, slot));
            }
        }
    }
}

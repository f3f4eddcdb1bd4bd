//! Which of the containers that run are healthy, as far as a plan may expect them to be so again.

use std::borrow::Cow;

use super::{Builder, Slot};
use crate::names::ServiceName;
use crate::observed::is_gateway;
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

    /// What a service is held to. A worker whose container was unhealthy before kaleem came, and still is, has to pass no check that nobody has ever
    /// seen it pass: its new container has to run. What has a gateway is still asked through that.
    pub(super) fn held_to<'w>(&self, name: &ServiceName, wanted: &'w Wanted) -> Cow<'w, Wanted> {
        let excused = wanted.gate.asks_docker() && wanted.gateway.is_none() && self.was_never_healthy(name);
        if excused { Cow::Owned(Wanted { gate: wanted.gate.only_running(), ..wanted.clone() }) } else { Cow::Borrowed(wanted) }
    }

    fn was_never_healthy(&self, name: &ServiceName) -> bool {
        let mut fails = self.of_service(name).into_iter().filter(|instance| {
            instance.state.status == InstanceStatus::Running && instance.state.health == InstanceHealth::Unhealthy && !is_gateway(instance)
        });
        fails.any(|instance| self.was_unhealthy_before(name, instance))
    }

    fn was_unhealthy_before(&self, name: &ServiceName, instance: &Instance) -> bool {
        let known = self.previous().filter(|release| release.instances.get(name).is_some_and(|names| names.contains(&instance.name)));
        known.map_or(instance.release.is_none(), |release| release.unhealthy_before.contains(&instance.name))
    }

    /// Remembers containers that kaleem did not make and that have not been healthy since it first saw them, and those that replace them: one that
    /// is still starting may never have passed its check either.
    pub(super) fn note_unhealthy(&mut self, name: &ServiceName, wanted: &Wanted, slots: &[Slot<'_>]) {
        // A rollback asks nothing of it, and it may still be known.
        let counts = wanted.gate.asks_docker() || self.input.kind == PlanKind::Rollback;
        let excused = wanted.gateway.is_none() && counts && self.was_never_healthy(name);
        for slot in slots {
            let unproved = match slot {
                Slot::Kept(instance) => {
                    let unproved = matches!(instance.state.health, InstanceHealth::Unhealthy | InstanceHealth::Starting);
                    unproved && instance.state.status == InstanceStatus::Running && self.was_unhealthy_before(name, instance)
                }
                Slot::Reused(_) | Slot::New(_) => excused,
            };
            if unproved && counts {
                self.unhealthy_before.insert(self.final_name(wanted, slot));
            }
        }
    }
}

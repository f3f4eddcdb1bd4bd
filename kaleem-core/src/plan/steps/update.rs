//! What is changed at a container that goes on running: its restart policy.

use super::{Builder, Slot};
use crate::definition::RestartPolicy;
use crate::names::ServiceName;
use crate::plan::{ChangeKind, PlanKind, ServiceChange, Step};
use crate::release::{Strategy, Wanted};

impl Builder<'_> {
    /// Gives containers that stay the restart policy that is wanted.
    pub(super) fn update(&mut self, name: &ServiceName, wanted: &Wanted, slots: &[Slot<'_>]) {
        let mut before: Option<RestartPolicy> = None;
        for slot in slots {
            let Slot::Kept(instance) = slot else { continue };
            if instance.restart == wanted.restart {
                continue;
            }
            before = Some(instance.restart);
            self.retire.push(Step::Update {
                service: name.clone(),
                container: self.final_name(wanted, slot),
                restart: wanted.restart,
                from: instance.restart,
            });
        }
        let Some(before) = before else { return };
        if let Some(change) = self.changes.last_mut().filter(|change| change.service == *name) {
            note(change, before, wanted.restart);
        }
    }

    /// Whether the service is away while it is replaced: then labels alone are no reason to do so.
    pub(super) fn waits_for_labels(&self, wanted: &Wanted) -> bool {
        self.input.kind != PlanKind::Deploy || keeps_for_labels(wanted)
    }
}

/// Whether a service is not replaced because of its labels alone: it would be away, or run once more.
pub fn keeps_for_labels(wanted: &Wanted) -> bool {
    match wanted.strategy {
        Strategy::Recreate | Strategy::RunToEnd => true,
        Strategy::Overlap | Strategy::BlueGreen | Strategy::Rolling => false,
    }
}

fn note(change: &mut ServiceChange, before: RestartPolicy, after: RestartPolicy) {
    change.fields.retain(|field| field != "restart");
    change.fields.push(format!("restart ({before} to {after})"));
    if change.kind == ChangeKind::Keep {
        change.kind = ChangeKind::Update;
    }
}

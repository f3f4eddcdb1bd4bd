//! Services that a plan leaves as they are, whatever the files say of them, and services that the files no longer name.

use super::{Builder, ORPHAN_STOP, PlanData, is_up};
use crate::names::ServiceName;
use crate::observed::is_gateway;
use crate::plan::{ChangeKind, Interruption, ServiceChange, Step};
use crate::release::Wanted;
use crate::runtime::Instance;

impl Builder<'_> {
    pub(super) fn leave_alone(&mut self, name: &ServiceName, wanted: &Wanted, reason: &str) {
        let before = self.previous().and_then(|release| release.instances.get(name)).cloned().unwrap_or_default();
        let up = self.of_service(name).into_iter().filter(|instance| is_up(instance) && !is_gateway(instance));
        let stands = up.map(|instance| instance.name.clone()).next().or_else(|| before.first().cloned());
        if let Some(first) = stands {
            self.stands_for.insert(name.clone(), first);
        }
        let unhealthy = self.previous().map(|release| release.unhealthy_before.clone()).unwrap_or_default();
        self.unhealthy_before.extend(before.iter().filter(|name| unhealthy.contains(*name)).cloned());
        self.instances.insert(name.clone(), before);
        self.changes.push(ServiceChange {
            service: name.clone(),
            kind: ChangeKind::Keep,
            strategy: wanted.strategy,
            reason: reason.to_owned(),
            image_before: Some(wanted.image.to_string()),
            image_after: Some(wanted.image.to_string()),
            fields: Vec::new(),
            interruption: Interruption::None,
        });
    }

    /// Stops what the release before ran and the file does not name any more.
    pub(super) fn services_gone(&mut self) {
        let Some(previous) = self.previous() else { return };
        let restores = matches!(self.input.data, PlanData::Restore { .. });
        for (name, before) in previous.target.services.iter().filter(|(name, _)| !self.input.target.services.contains_key(*name)) {
            let running: Vec<&Instance> = self.all_of(name).filter(|instance| is_up(instance)).collect();
            if running.is_empty() {
                continue;
            }
            self.note_baseline(name, &running);
            for instance in running.into_iter().filter(|instance| !self.has_let_go(&instance.name)).collect::<Vec<_>>() {
                let gate = (self.is_well(name, instance) && !is_gateway(instance)).then(|| before.gate.clone());
                // It may use data that is put back, in a way that nothing says any more.
                let stops = if restores { &mut self.quiet } else { &mut self.retire };
                stops.push(Step::Stop {
                    service: name.clone(),
                    container: self.renamed.get(&instance.name).unwrap_or(&instance.name).clone(),
                    stop: if before.stop.grace.is_zero() { ORPHAN_STOP } else { before.stop.clone() },
                    restart: instance.restart,
                    gate,
                    again: None,
                });
            }
            self.changes.push(ServiceChange {
                service: name.clone(),
                kind: ChangeKind::Stop,
                strategy: before.strategy,
                reason: "the compose file does not name it any more".to_owned(),
                image_before: Some(before.image.to_string()),
                image_after: None,
                fields: Vec::new(),
                interruption: Interruption::StopAndStart,
            });
        }
    }
}

//! Replicas that take turns behind their gateway: never more of them than may run, never fewer than must serve.

use std::collections::VecDeque;

use super::{Builder, Slot, start};
use crate::names::ServiceName;
use crate::plan::{PlanKind, Route, Step};
use crate::release::{RollingSettings, Wanted, WantedGateway};
use crate::runtime::Instance;

impl Builder<'_> {
    /// Replaces replicas batch by batch. An old one that is switched away from runs on, warm, until its place is needed; going back starts it
    /// again behind its gate, before the gateway sends to it.
    pub(super) fn roll_over(
        &mut self,
        name: &ServiceName,
        wanted: &Wanted,
        gateway: &WantedGateway,
        rolling: &RollingSettings,
        slots: &[Slot<'_>],
        old: &[&Instance],
    ) {
        // What some instances are stopped for must not fail for a reason that could have been seen before.
        self.ask_needs(name, wanted);
        let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let kept: Vec<Route> = slots.iter().filter(|slot| matches!(slot, Slot::Kept(_))).map(|slot| self.route(slot)).collect();
        let new: Vec<&Slot<'_>> = slots.iter().filter(|slot| !matches!(slot, Slot::Kept(_))).collect();
        let mut now = self.routed_before(name);
        let mut ordered = old.to_vec();
        ordered.sort_by_key(|instance| (instance.number, instance.name.clone()));
        let (serving, mut warm): (Vec<&Instance>, Vec<&Instance>) =
            ordered.into_iter().partition(|instance| now.iter().any(|route| route.container == instance.name));
        let mut serving: VecDeque<&Instance> = serving.into();
        let most = slots.len().max(old.len() + kept.len()).saturating_add(count(rolling.surge));
        let mut up = old.len() + kept.len();
        let mut fresh: Vec<Route> = Vec::new();
        let batches: Vec<&[&Slot<'_>]> = new.chunks(count(rolling.turn())).collect();
        for (index, batch) in batches.iter().enumerate() {
            let last = index + 1 == batches.len();
            // Room for the batch: what serves nobody goes first.
            let over = (up + batch.len()).saturating_sub(most);
            let mut leaving: Vec<&Instance> = warm.drain(..over.min(warm.len())).collect();
            let away: Vec<&Instance> = serving.drain(..(over - leaving.len()).min(serving.len())).collect();
            // One that the release does not name may be sent to all the same, after a person has settled a plan that was stuck.
            if !away.is_empty() || index == 0 && !leaving.is_empty() {
                let to = self.routes(&kept, &fresh, &serving, &now);
                self.steer(name, gateway, to, &mut now);
            }
            let replaced = away.len();
            leaving.extend(away);
            up = up + batch.len() - leaving.len();
            for instance in leaving {
                let steps = self.leave(name, wanted, gateway, instance);
                self.switch.extend(steps);
            }
            for slot in *batch {
                self.switch.push(start(name, wanted, slot.name().clone()));
            }
            for slot in *batch {
                self.gate_through(name, wanted, gateway, slot);
            }
            fresh.extend(batch.iter().map(|slot| self.route(slot)));
            // The last one takes all that are left.
            let turn = if last { serving.len() } else { batch.len().saturating_sub(replaced).min(serving.len()) };
            warm.extend(serving.drain(..turn));
            let to = if last { slots.iter().map(|slot| self.route(slot)).collect() } else { self.routes(&kept, &fresh, &serving, &now) };
            self.steer(name, gateway, to, &mut now);
            // What is gone back to has stood a watch before.
            if last || self.input.kind != PlanKind::Rollback {
                self.watch(name, wanted, gateway, fresh.clone());
            }
        }
        for instance in warm {
            let steps = self.leave(name, wanted, gateway, instance);
            self.retire.extend(steps);
        }
    }

    /// Where the gateway sends in between: to what is right already, to what is new, and to the old ones whose turn has not come.
    fn routes(&self, kept: &[Route], fresh: &[Route], serving: &VecDeque<&Instance>, now: &[Route]) -> Vec<Route> {
        let old = now.iter().filter(|route| serving.iter().any(|instance| instance.name == route.container));
        kept.iter().chain(fresh).chain(old).cloned().collect()
    }

    fn steer(&mut self, name: &ServiceName, gateway: &WantedGateway, to: Vec<Route>, now: &mut Vec<Route>) {
        let from = std::mem::replace(now, to.clone());
        self.switch.push(Step::Steer { service: name.clone(), gateway: gateway.name.clone(), to, from });
    }

    pub(super) fn leave(&self, name: &ServiceName, wanted: &Wanted, gateway: &WantedGateway, instance: &Instance) -> [Step; 2] {
        let container = instance.name.clone();
        let drain = Step::Drain { service: name.clone(), gateway: gateway.name.clone(), container, drain: gateway.drain };
        [drain, self.stop(name, wanted, instance)]
    }
}

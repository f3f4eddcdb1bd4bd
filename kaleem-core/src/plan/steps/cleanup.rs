//! What is removed for good, after the commit: what no kept release refers to.

use super::{Builder, is_up};
use crate::plan::{PlanKind, Step};
use crate::release::Release;
use crate::runtime::Instance;

impl Builder<'_> {
    /// Removes what no kept release refers to. What this plan stops belongs to the release before, and is kept with it.
    pub(super) fn cleanup(&self, release: &Release) -> Vec<Step> {
        let observed = self.input.observed;
        if self.input.kind == PlanKind::Eject {
            return self.clean_out(release);
        }
        if self.input.kind == PlanKind::Restart {
            return self.replaced_by_restart();
        }
        let keep = usize::try_from(self.input.target.keep).unwrap_or(usize::MAX);
        let others: Vec<&Release> = observed.releases.iter().filter(|other| other.id != release.id).collect();
        let kept = others.iter().copied().take(keep.saturating_sub(1));
        let kept_release = |instance: &Instance| {
            std::iter::once(release).chain(kept.clone()).any(|release| {
                // A gateway that was stopped is never started again: a new one is as quick.
                release.instances.values().flatten().any(|name| *name == instance.name)
                    || release.target.services.get(&instance.service).is_some_and(|wanted| self.matches(instance, wanted))
            })
        };
        let mut steps = Vec::new();
        for instance in observed.instances.iter().filter(|instance| !instance.oneoff && !is_up(instance) && !kept_release(instance)) {
            let ours = instance.release.is_some() || self.input.target.services.contains_key(&instance.service);
            if ours {
                let name = self.renamed.get(&instance.name).unwrap_or(&instance.name).clone();
                steps.push(Step::Remove { service: instance.service.clone(), container: name });
            }
        }
        steps.extend(observed.old_pins.iter().map(|pin| Step::Unpin { pin: pin.clone() }));
        steps
    }

    /// Removes all that kaleem made and that does not run for the release: nobody will go back to it.
    fn clean_out(&self, release: &Release) -> Vec<Step> {
        let observed = self.input.observed;
        let name = |instance: &Instance| self.renamed.get(&instance.name).unwrap_or(&instance.name).clone();
        let stays = |instance: &Instance| release.instances.values().flatten().any(|kept| *kept == name(instance));
        let described = |instance: &Instance| self.input.target.services.contains_key(&instance.service);
        let ours = observed.instances.iter().filter(|instance| !instance.oneoff && !stays(instance) && !self.becomes(instance, release));
        let ours = ours.filter(|instance| instance.release.is_some() || described(instance));
        let removed = ours.map(|instance| Step::Remove { service: instance.service.clone(), container: name(instance) });
        removed.chain(observed.old_pins.iter().map(|pin| Step::Unpin { pin: pin.clone() })).collect()
    }

    /// Whether a container runs for the release under the name that it gets in this plan.
    fn becomes(&self, instance: &Instance, release: &Release) -> bool {
        self.switch.iter().chain(&self.retire).any(|step| {
            let Step::Rename { from, to, .. } = step else { return false };
            *from == instance.name && release.instances.values().flatten().any(|kept| kept == to)
        })
    }
}

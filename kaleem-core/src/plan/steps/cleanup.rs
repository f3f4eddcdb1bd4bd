//! What is removed for good, after the commit: what no kept release refers to.

use super::{Builder, is_up};
use crate::plan::Step;
use crate::release::Release;
use crate::runtime::Instance;

impl Builder<'_> {
    /// Removes what no kept release refers to. What this plan stops belongs to the release before, and is kept with it.
    pub(super) fn cleanup(&self, release: &Release) -> Vec<Step> {
        let observed = self.input.observed;
        let keep = usize::try_from(self.input.target.keep).unwrap_or(usize::MAX);
        let others: Vec<&Release> = observed.releases.iter().filter(|other| other.id != release.id).collect();
        let kept = others.iter().copied().take(keep.saturating_sub(1));
        let kept_release = |instance: &Instance| {
            std::iter::once(release).chain(kept.clone()).any(|release| {
                let gateways = release.target.services.values().filter_map(|wanted| wanted.gateway.as_ref());
                gateways.into_iter().any(|gateway| instance.definition.as_ref() == Some(&gateway.definition))
                    || release.instances.values().flatten().any(|name| *name == instance.name)
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
}

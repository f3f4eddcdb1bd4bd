//! Services whose health check fails before the plan does anything.

use super::{Objection, Severity, objection};
use crate::names::ServiceName;
use crate::observed::{Observed, is_gateway};
use crate::plan::{ChangeKind, Plan};
use crate::runtime::{Instance, InstanceHealth, InstanceStatus};

/// The ways out where the check of an image is not meant for a service, or cannot pass there.
fn remedy(name: &ServiceName) -> String {
    format!(
        "if that check is not meant for `{name}`, write `none = true` (or `http`, `tcp`, `command`) under `[services.{name}.health]` in kaleem.toml, \
         or `healthcheck: {{disable: true}}` in the compose file"
    )
}

/// A new container must pass the check that the one that runs now fails: without a word of it a deploy would be rolled back after minutes.
pub(super) fn now(plan: &Plan, observed: &Observed) -> Vec<Objection> {
    let mut found = Vec::new();
    for change in plan.changes.iter().filter(|change| change.kind == ChangeKind::Replace) {
        let name = &change.service;
        let own_check = plan.release.target.services.get(name).is_some_and(|wanted| wanted.gate.asks_docker()) && !is_excused(plan, name);
        let unhealthy = |instance: &&Instance| {
            // An engine calls what was stopped unhealthy, too.
            let running = instance.state.status == InstanceStatus::Running;
            running && instance.service == *name && !is_gateway(instance) && instance.state.health == InstanceHealth::Unhealthy
        };
        if let Some(instance) = observed.instances.iter().find(|instance| own_check && unhealthy(instance)) {
            let message = format!(
                "`{name}` is unhealthy now ({}), and its new container must pass the same health check: if it fails again, this plan is rolled back",
                instance.name
            );
            found.push(objection("unhealthy-now", Severity::Warn, Some(name), message, &remedy(name)));
        }
    }
    found
}

/// Whether the new containers of a service have to pass no check, because nobody has seen the old ones pass it.
fn is_excused(plan: &Plan, name: &ServiceName) -> bool {
    let replaced = plan.changes.iter().any(|change| change.service == *name && change.kind == ChangeKind::Replace);
    let containers = plan.release.instances.get(name).into_iter().flatten();
    replaced && containers.into_iter().any(|container| plan.release.unhealthy_before.contains(container))
}

/// What was not healthy before kaleem came does not fail a plan. What fails is a warning once, and a note in later plans.
pub(super) fn before(plan: &Plan, observed: &Observed) -> Vec<Objection> {
    let release = &plan.release;
    let known = observed.releases.iter().find(|release| Some(release.id) == observed.serving);
    let mut found = Vec::new();
    for (name, containers) in &release.instances {
        for container in containers.iter().filter(|container| release.unhealthy_before.contains(*container)) {
            let again = known.is_some_and(|known| known.unhealthy_before.contains(container));
            let instance = observed.instances.iter().find(|instance| instance.name == *container);
            let starting = instance.is_some_and(|instance| instance.state.health == InstanceHealth::Starting);
            let severity = if (again || starting) && !is_excused(plan, name) { Severity::Note } else { Severity::Warn };
            let message = if is_excused(plan, name) {
                format!("`{name}` was unhealthy before kaleem came, so {container} only has to run: its health check is not waited for")
            } else if starting {
                format!("`{name}` has not passed its health check yet ({container}), and is kept as it is")
            } else {
                format!("`{name}` was unhealthy before kaleem came ({container}), and is kept as it is")
            };
            found.push(objection("unhealthy-before", severity, Some(name), message, &remedy(name)));
        }
    }
    found
}

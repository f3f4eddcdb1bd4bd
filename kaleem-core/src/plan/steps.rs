//! The planner: what runs now and what is wanted become steps.
//!
//! The order is always: make ready what disturbs nobody (networks, volumes, images, containers), replace service by
//! service in the order of their dependencies, each behind its gate, commit, and only then remove what is not kept.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::config::{Hook, HookMoment};
use crate::definition::DefinitionId;
use crate::health::{Door, Question};
use crate::names::{ContainerName, PlanId, ReleaseId, ServiceName, SetId};
use crate::observed::{Observed, is_gateway};
use crate::plan::{
    BaselineGate, ChangeKind, Interruption, NewInstance, PLAN_FORMAT, Plan, PlanKind, Role, Route, ServiceChange, Step, check, pin_tag,
};
use crate::release::{GateSettings, Release, Strategy, Target, Wanted};
use crate::runtime::{Instance, InstanceHealth, InstanceStatus, StopPolicy};

mod behind_gateway;
mod cleanup;
mod data;
mod hooks;
mod left;
mod moves;
mod ports;
mod repairs;
mod restarts;
mod rolling;
mod slots;
pub mod update;
mod well;

use slots::Slot;

/// Time a service that runs to its end may take where nothing is said: migrations are slow, and a deploy must end.
const RUN_TO_END_DEADLINE: Duration = Duration::from_secs(600);
/// How a gateway is stopped whose ports somebody else is to have: what runs through it has this time to end.
const GATEWAY_STOP: StopPolicy = StopPolicy { signal: None, grace: Duration::from_secs(2) };
/// How an instance of a service is stopped that no file describes any more.
const ORPHAN_STOP: StopPolicy = StopPolicy { signal: None, grace: Duration::from_secs(10) };

/// What a plan is made from.
pub struct PlanInput<'a> {
    /// Its number.
    pub id: PlanId,
    /// Why it is made.
    pub kind: PlanKind,
    /// The release it leads to.
    pub release: ReleaseId,
    /// What that release wants.
    pub target: &'a Target,
    /// What is there now.
    pub observed: &'a Observed,
    /// Programs that the operator wants to be run.
    pub hooks: &'a [Hook],
    /// The backups that take part.
    pub data: &'a PlanData,
    /// Services that stay as they are whatever the target says, and why.
    pub left: &'a BTreeMap<ServiceName, String>,
    /// Services that are replaced though nothing of their definition changed, and what did.
    pub again: &'a BTreeMap<ServiceName, Vec<String>>,
    /// Names of the fields in which two definitions differ.
    pub compare: &'a dyn Fn(&DefinitionId, &DefinitionId) -> Vec<String>,
}

/// What a plan does about data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanData {
    /// Nothing.
    Leave,
    /// A set is made before anything is replaced, if one of these services changes and anything runs.
    BackUp {
        /// Its name.
        set: SetId,
        /// The services.
        services: BTreeSet<ServiceName>,
    },
    /// The data of a set takes the place of what is there, while nobody writes.
    Restore {
        /// The set.
        set: SetId,
        /// The set that is made of what is replaced.
        safe: SetId,
        /// The services that use the data, and must not run meanwhile.
        writers: BTreeSet<ServiceName>,
    },
}

/// Makes the plan, with the objections of every check.
pub fn plan(input: &PlanInput<'_>) -> Plan {
    let repairs = repairs::first(input);
    let observed = &repairs.observed;
    let PlanInput { id, kind, release, target, hooks, data, left, again, compare, .. } = *input;
    let input = &PlanInput { id, kind, release, target, observed, hooks, data, left, again, compare };
    let mut builder = Builder::new(input, repairs.steps.clone(), repairs.said.clone());
    let order = order_of(input);
    for name in &order {
        match (input.target.services.get(name), input.left.get(name)) {
            (Some(wanted), Some(reason)) if !builder.loses_companion(wanted) => builder.leave_alone(name, wanted, reason),
            (Some(wanted), _) => {
                builder.service(name, wanted);
                builder.change_ports(name, wanted);
            }
            (None, _) => {}
        }
    }
    builder.bring_forward();
    builder.services_gone();
    builder.check_set_first();
    let mut plan = builder.finish();
    plan.objections = check::check(&plan, input.observed);
    plan
}

/// The order of services. A rollback begins with what users meet and what differs: the rest waits for it.
fn order_of(input: &PlanInput<'_>) -> Vec<ServiceName> {
    let serving = input.observed.releases.iter().find(|release| Some(release.id) == input.observed.serving);
    let first = |(name, wanted): &(&ServiceName, &Wanted)| {
        let before = serving.and_then(|release| release.target.services.get(*name));
        let is_met = wanted.gateway.is_some() || !wanted.ports.is_empty();
        input.kind == PlanKind::Rollback && is_met && before.is_some_and(|before| !before.is_the_same(wanted))
    };
    let first: Vec<ServiceName> = input.target.services.iter().filter(first).map(|(name, _)| name.clone()).collect();
    dependency_order_from(input.target, &first)
}

/// Services so that everything comes after what it waits for; a cycle (which the loader refuses) ends in name order.
pub fn dependency_order(target: &Target) -> Vec<ServiceName> {
    dependency_order_from(target, &[])
}

/// The same, with `first` and what they wait for before all others.
fn dependency_order_from(target: &Target, first: &[ServiceName]) -> Vec<ServiceName> {
    fn visit(name: &ServiceName, target: &Target, seen: &mut BTreeSet<ServiceName>, order: &mut Vec<ServiceName>) {
        if !seen.insert(name.clone()) {
            return;
        }
        let Some(wanted) = target.services.get(name) else { return };
        let needed = wanted.needs.iter().map(|need| &need.service);
        for other in wanted.depends_on.keys().chain(&wanted.companions).chain(needed) {
            visit(other, target, seen, order);
        }
        order.push(name.clone());
    }
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    for name in first.iter().chain(target.services.keys()) {
        visit(name, target, &mut seen, &mut order);
    }
    order
}

struct Builder<'a> {
    input: &'a PlanInput<'a>,
    /// Disturbs nobody.
    prepare: Vec<Step>,
    create: Vec<Step>,
    /// Stops who writes, where data is put back.
    quiet: Vec<Step>,
    /// Replaces services.
    switch: Vec<Step>,
    /// Stops what was kept beside the new until all gates passed.
    retire: Vec<Step>,
    baseline: Vec<BaselineGate>,
    changes: Vec<ServiceChange>,
    instances: BTreeMap<ServiceName, Vec<ContainerName>>,
    /// The container that stands for a service at the time when containers are made.
    stands_for: BTreeMap<ServiceName, ContainerName>,
    replaced: BTreeSet<ServiceName>,
    renamed: BTreeMap<ContainerName, ContainerName>,
    /// What is repaired before anything else.
    repaired: BTreeMap<ServiceName, Vec<String>>,
    /// Containers that stop so that another service can have their port: whose they are, and who gets it.
    lent: BTreeMap<ContainerName, (ServiceName, ServiceName)>,
    /// Containers that stay, and that were unhealthy before kaleem came.
    unhealthy_before: BTreeSet<ContainerName>,
}

impl<'a> Builder<'a> {
    fn new(input: &'a PlanInput<'a>, repairs: Vec<Step>, repaired: BTreeMap<ServiceName, Vec<String>>) -> Self {
        let mut prepare = Vec::new();
        let observed = input.observed;
        for network in input.target.networks.iter().filter(|network| !network.external && !observed.networks.contains_key(&network.name)) {
            prepare.push(Step::CreateNetwork { network: network.clone() });
        }
        for volume in input.target.volumes.iter().filter(|volume| !volume.external && !observed.volumes.contains_key(&volume.name)) {
            prepare.push(Step::CreateVolume { volume: volume.clone() });
        }
        prepare.extend(repairs);
        Self {
            input,
            prepare,
            create: Vec::new(),
            quiet: Vec::new(),
            switch: Vec::new(),
            retire: Vec::new(),
            baseline: Vec::new(),
            changes: Vec::new(),
            instances: BTreeMap::new(),
            stands_for: BTreeMap::new(),
            replaced: BTreeSet::new(),
            renamed: BTreeMap::new(),
            repaired,
            lent: BTreeMap::new(),
            unhealthy_before: BTreeSet::new(),
        }
    }

    fn of_service(&self, service: &ServiceName) -> Vec<&'a Instance> {
        self.input.observed.instances.iter().filter(|instance| instance.service == *service && !instance.oneoff).collect()
    }

    fn matches(&self, instance: &Instance, wanted: &Wanted) -> bool {
        let ours = instance.definition.as_ref() == Some(&wanted.definition) && instance.digest.as_ref() == Some(&wanted.image.digest);
        // What goes back to Compose with a hash that is not Compose's would be recreated by the next `up`, without warning.
        let given_back =
            self.input.kind != PlanKind::Eject || wanted.compose_hash.is_none() || instance.compose_hash == wanted.compose_hash;
        let relabelled = || self.waits_for_labels(wanted) && self.input.observed.relabelled.contains_key(&instance.name);
        ours && given_back || self.input.observed.adoptable.contains(&instance.name) || relabelled()
    }

    fn previous(&self) -> Option<&'a Release> {
        let observed = self.input.observed;
        observed.releases.iter().find(|release| Some(release.id) == observed.serving)
    }

    fn service(&mut self, name: &ServiceName, wanted: &Wanted) {
        if wanted.strategy == Strategy::RunToEnd {
            return self.run_to_end(name, wanted);
        }
        if self.is_quieted(name) {
            return self.around_data(name, wanted);
        }
        let all = self.of_service(name);
        let slots: Vec<Slot<'a>> = self.slots(name, wanted, &all);
        let kept: BTreeSet<&ContainerName> = slots.iter().filter(|slot| matches!(slot, Slot::Kept(_))).map(Slot::name).collect();
        let mut old: Vec<&Instance> = all.iter().copied().filter(|instance| is_up(instance) && !kept.contains(&instance.name)).collect();
        let standing = self.gateway_of(name);
        if wanted.gateway.is_none() {
            // They hold the ports and the name that the containers get back.
            old.extend(standing.into_iter().chain(self.port_containers(name)).filter(|gateway| is_up(gateway)));
        }
        let stale = wanted.gateway.as_ref().is_some_and(|gateway| self.fitting(name, standing, gateway).is_none());
        let changed = kept.len() < slots.len() || !old.is_empty() || stale;
        if let Some(first) = slots.first() {
            self.stands_for.insert(name.clone(), first.name().clone());
        }
        self.instances.insert(name.clone(), slots.iter().map(|slot| self.final_name(wanted, slot)).collect());
        self.note_unhealthy(name, wanted, &slots);
        let held_to = self.held_to(name, wanted);
        let wanted = held_to.as_ref();
        self.explain(name, wanted, &slots, &old, stale);
        self.connect_reused(name, &slots);
        self.join_live(name, standing);
        self.update(name, wanted, &slots);
        if changed {
            self.replaced.insert(name.clone());
            self.note_baseline(name, &old);
            match &wanted.gateway {
                Some(gateway) => self.switch_over(name, wanted, gateway, standing, &slots, &old),
                None => self.replace(name, wanted, &slots, &old),
            }
            return;
        }
        if self.input.kind == PlanKind::Restart && self.input.again.contains_key(name) {
            return self.restart_in_place(name, wanted, &slots);
        }
        for slot in &slots {
            // The file gave it a fixed name since it was made.
            let renames = self.take_name(name, wanted, slot, &[]);
            self.switch.extend(renames);
        }
        self.confirm_repairs(name, wanted, &slots);
        if wanted.depends_on.iter().any(|(other, dependency)| dependency.restart && self.replaced.contains(other)) {
            self.restart(name, wanted, &slots);
        }
    }

    fn explain(&mut self, name: &ServiceName, wanted: &Wanted, slots: &[Slot<'_>], old: &[&Instance], stale: bool) {
        let kept = slots.iter().filter(|slot| matches!(slot, Slot::Kept(_))).count();
        let kind = if old.is_empty() && kept == slots.len() && !stale {
            ChangeKind::Keep
        } else if old.is_empty() && kept == 0 {
            ChangeKind::Add
        } else {
            ChangeKind::Replace
        };
        let before = self.previous().and_then(|release| release.target.services.get(name));
        let mut fields = match (kind, before) {
            (ChangeKind::Replace, Some(before)) => (self.input.compare)(&before.definition, &wanted.definition),
            _ => Vec::new(),
        };
        if kind == ChangeKind::Replace && fields.is_empty() {
            fields = old.iter().filter_map(|instance| self.input.observed.drift.get(&instance.name)).flatten().cloned().collect();
            fields.dedup();
        }
        fields.extend(self.input.again.get(name).into_iter().flatten().cloned());
        if let Some(before) = before.filter(|before| before.replicas != wanted.replicas) {
            fields.push(format!("replicas ({} to {})", before.replicas, wanted.replicas));
        }
        let recreated = kept == 0 && wanted.strategy == Strategy::Recreate && wanted.replicas < 2;
        // The one hand-over: the ports go from the containers, or from a gateway that must be another, to a new gateway.
        let taken = self.taken_ports(name, wanted);
        let takes = !taken.is_empty();
        fields.extend(taken.iter().map(|port| format!("takes the {port}")));
        if let Some(gateway) = wanted.gateway.as_ref().filter(|_| kind == ChangeKind::Replace) {
            self.explain_gateway(name, gateway, stale, &mut fields);
        }
        let handed_over = takes && wanted.gateway.is_some() || stale && (!old.is_empty() || self.gateway_of(name).is_some_and(is_up));
        let held = !old.is_empty() && kept < slots.len() && wanted.strategy == Strategy::Recreate && wanted.gateway.is_some();
        let gap = !old.is_empty() && recreated || takes && wanted.gateway.is_none();
        self.changes.push(ServiceChange {
            service: name.clone(),
            kind,
            strategy: wanted.strategy,
            reason: wanted.reason.clone(),
            image_before: before.map(|before| before.image.to_string()).or_else(|| old.first().map(|instance| instance.image.clone())),
            image_after: Some(wanted.image.to_string()),
            fields,
            interruption: match (handed_over, held, gap) {
                (true, _, _) => Interruption::HandOver,
                (false, true, _) => Interruption::Held,
                (false, false, true) => Interruption::StopAndStart,
                (false, false, false) => Interruption::None,
            },
        });
    }

    fn note_baseline(&mut self, name: &ServiceName, old: &[&Instance]) {
        for instance in old.iter().filter(|instance| !is_gateway(instance)) {
            if !self.is_well(name, instance) {
                continue;
            }
            let mut gate = self.old_gate(name, instance);
            gate.passes = 1;
            gate.steady = Duration::ZERO;
            self.baseline.push(BaselineGate { service: name.clone(), container: instance.name.clone(), gate });
        }
    }

    /// When what ran before counts as healthy: as its own release said, or as the engine can tell.
    fn old_gate(&self, name: &ServiceName, instance: &Instance) -> GateSettings {
        if let Some(wanted) = self.previous().and_then(|release| release.target.services.get(name)) {
            return wanted.gate.clone();
        }
        let question = if instance.state.health == InstanceHealth::None { Question::Running } else { Question::Healthcheck };
        GateSettings {
            question,
            passes: 1,
            steady: Duration::from_secs(1),
            interval: Duration::from_millis(250),
            timeout: Duration::from_secs(5),
            deadline: Duration::from_secs(120),
            may_end: false,
        }
    }

    /// What the service needs is asked before anything of it changes for its users. Going back is never held up by that.
    fn ask_needs(&mut self, name: &ServiceName, wanted: &Wanted) {
        if self.input.kind == PlanKind::Deploy && !wanted.needs.is_empty() {
            let (timeout, deadline) = (wanted.gate.timeout, wanted.gate.deadline);
            self.switch.push(Step::Needs { service: name.clone(), needs: wanted.needs.clone(), timeout, deadline });
        }
    }

    fn replace(&mut self, name: &ServiceName, wanted: &Wanted, slots: &[Slot<'_>], old: &[&Instance]) {
        if slots.iter().any(|slot| matches!(slot, Slot::New(_))) {
            self.pull(wanted);
        }
        for slot in slots {
            if let Slot::New(instance) = slot {
                self.create.push(Step::Create { instance: instance.clone() });
            }
        }
        let together = matches!(wanted.strategy, Strategy::Overlap);
        if together {
            for slot in slots.iter().filter(|slot| !matches!(slot, Slot::Kept(_))) {
                self.switch.push(start(name, wanted, slot.name().clone()));
            }
            for slot in slots.iter().filter(|slot| !matches!(slot, Slot::Kept(_))) {
                self.switch.push(gate(name, wanted, slot.name().clone()));
            }
            self.ask_needs(name, wanted);
            for instance in old {
                let stop = self.stop(name, wanted, instance);
                self.retire.push(stop);
            }
            for slot in slots.iter().filter(|slot| !matches!(slot, Slot::Kept(_))) {
                let renames = self.take_name(name, wanted, slot, old);
                self.retire.extend(renames);
            }
            return;
        }
        // Before the old one is stopped: a release that would be taken back must not cost a gap.
        self.ask_needs(name, wanted);
        for (other, holder) in self.holders(name, wanted) {
            let stop = self.stop(&other, wanted, holder);
            self.lend(&other, holder, name);
            self.switch.push(stop);
        }
        // What stands behind a gateway has neither ports nor name, so it is in nobody's way: it is stopped when all is well.
        let behind = old.iter().any(|instance| is_gateway(instance));
        let (behind, mut waiting): (Vec<&Instance>, Vec<&Instance>) =
            old.iter().copied().filter(|instance| !self.has_let_go(&instance.name)).partition(|instance| behind && !is_gateway(instance));
        let after: Vec<ContainerName> = slots.iter().map(|slot| self.final_name(wanted, slot)).collect();
        let reloads = if behind.is_empty() { Vec::new() } else { self.reloads(name, old, &after) };
        self.switch.extend(reloads.iter().cloned());
        for (index, slot) in slots.iter().enumerate().filter(|(_, slot)| !matches!(slot, Slot::Kept(_))) {
            // The last one takes all that are left, so that every old one is gone when the last new one starts.
            let count = if index + 1 == slots.len() { waiting.len() } else { waiting.len().min(1) };
            for instance in waiting.drain(..count) {
                let stop = self.stop(name, wanted, instance);
                self.switch.push(stop);
            }
            let renames = self.take_name(name, wanted, slot, old);
            self.switch.extend(renames);
            let container = self.final_name(wanted, slot);
            self.switch.push(start(name, wanted, container.clone()));
            self.switch.push(gate(name, wanted, container));
        }
        self.switch.extend(reloads);
        for instance in waiting.into_iter().chain(behind) {
            let stop = self.stop(name, wanted, instance);
            self.retire.push(stop);
        }
    }

    fn stop(&self, name: &ServiceName, wanted: &Wanted, instance: &Instance) -> Step {
        let before = self.previous().and_then(|release| release.target.services.get(name));
        let again = before.filter(|before| instance.definition.as_ref() == Some(&before.definition)).and_then(|before| {
            Some(NewInstance {
                name: instance.name.clone(),
                service: name.clone(),
                number: instance.number,
                release: instance.release?,
                image: before.image.clone(),
                definition: before.definition.clone(),
                companions: BTreeMap::new(),
                role: Role::Instance,
            })
        });
        let renamed = self.renamed.get(&instance.name);
        Step::Stop {
            service: name.clone(),
            container: renamed.unwrap_or(&instance.name).clone(),
            stop: match before {
                _ if is_gateway(instance) => GATEWAY_STOP,
                Some(before) => before.stop.clone(),
                None => wanted.stop.clone(),
            },
            restart: instance.restart,
            gate: (self.is_well(name, instance) && !is_gateway(instance)).then(|| self.old_gate(name, instance)),
            again: again.filter(|_| renamed.is_none() && before.is_some_and(|before| before.companions.is_empty())),
        }
    }

    fn restart(&mut self, name: &ServiceName, wanted: &Wanted, slots: &[Slot<'_>]) {
        for slot in slots {
            if let Slot::Kept(instance) = slot {
                let stop = self.stop(name, wanted, instance);
                self.switch.push(stop);
                self.switch.push(start(name, wanted, instance.name.clone()));
                self.switch.push(gate(name, wanted, instance.name.clone()));
            }
        }
        if let Some(change) = self.changes.last_mut().filter(|change| change.service == *name) {
            change.kind = ChangeKind::Replace;
            change.fields.push("restarted, because what it depends on is replaced".to_owned());
            change.interruption = Interruption::StopAndStart;
        }
    }

    fn run_to_end(&mut self, name: &ServiceName, wanted: &Wanted) {
        let all = self.of_service(name);
        let done = all.iter().copied().filter(|_| !self.input.again.contains_key(name)).find(|instance| {
            self.matches(instance, wanted) && instance.state.status == InstanceStatus::Exited && instance.state.exit_code == Some(0)
        });
        // Going back never runs an older migration, and what has run to its end is not run again.
        if let Some(done) = done {
            self.instances.insert(name.clone(), vec![done.name.clone()]);
            self.push_run_change(name, wanted, ChangeKind::Keep);
            return;
        }
        if self.input.kind == PlanKind::Rollback {
            self.instances.insert(name.clone(), Vec::new());
            self.push_run_change(name, wanted, ChangeKind::Keep);
            return;
        }
        let instance = self.new_instance(name, wanted, 1);
        let container = instance.name.clone();
        self.pull(wanted);
        self.create.push(Step::Create { instance });
        self.switch.push(Step::RunToEnd {
            service: name.clone(),
            container: container.clone(),
            deadline: RUN_TO_END_DEADLINE,
            stop: wanted.stop.clone(),
            migration: wanted.migration.clone(),
        });
        self.instances.insert(name.clone(), vec![container]);
        self.push_run_change(name, wanted, ChangeKind::Run);
    }

    fn push_run_change(&mut self, name: &ServiceName, wanted: &Wanted, kind: ChangeKind) {
        self.changes.push(ServiceChange {
            service: name.clone(),
            kind,
            strategy: wanted.strategy,
            reason: wanted.reason.clone(),
            image_before: None,
            image_after: Some(wanted.image.to_string()),
            fields: Vec::new(),
            interruption: Interruption::None,
        });
    }

    fn pull(&mut self, wanted: &Wanted) {
        let step = Step::Pull { image: wanted.image.clone(), platform: wanted.platform.clone() };
        if wanted.image.source == crate::image::ImageSource::Registry && !self.prepare.contains(&step) {
            self.prepare.push(step);
        }
    }

    fn finish(self) -> Plan {
        let input = self.input;
        let data = self.data_steps();
        let backup = match (&input.data, data.is_empty()) {
            (PlanData::BackUp { set, .. }, false) => Some(set.clone()),
            // Going back makes no new release: what was made before it stays named.
            _ => input.observed.releases.iter().find(|release| release.id == input.release).and_then(|release| release.backup.clone()),
        };
        let (instances, unhealthy_before) = (self.instances.clone(), self.unhealthy_before.clone());
        let release = Release { id: input.release, target: input.target.clone(), instances, backup, unhealthy_before };
        let works = [&self.prepare, &self.create, &self.quiet, &self.switch, &self.retire].iter().any(|steps| !steps.is_empty());
        let first = input.observed.serving.is_none();
        let restores = matches!(input.data, PlanData::Restore { .. });
        let other = restores || input.kind == PlanKind::Rollback && input.observed.serving != Some(input.release);
        let mut steps = Vec::new();
        if works || first || other {
            let cleanup = self.cleanup(&release);
            let stands =
                |name: &ServiceName| !input.left.contains_key(name) || input.observed.instances.iter().any(|one| one.service == *name);
            let pins = input.target.services.iter().filter(|(name, _)| stands(name)).filter_map(|(name, wanted)| {
                let pin = pin_tag(&input.target.project, name, input.release)?;
                Some(Step::Pin { image: wanted.image.clone(), pin })
            });
            steps.push(Step::Baseline { gates: self.baseline });
            steps.extend(hooks::at(HookMoment::BeforeDeploy, input.hooks, input.kind));
            steps.extend(self.prepare);
            // A release to go back to has its tags: taking them back with a failed plan would lose it.
            if input.kind == PlanKind::Deploy && input.observed.serving != Some(input.release) {
                steps.extend(pins);
            }
            steps.extend(self.create);
            steps.extend(self.quiet);
            steps.extend(data);
            steps.extend(self.switch);
            steps.extend(self.retire);
            // What a service that goes answered is no promise any more.
            let stays = |door: &&Door| door.behind.iter().all(|name| input.target.services.contains_key(name));
            let doors: Vec<Door> = input.observed.doors.iter().filter(stays).cloned().collect();
            if works && !doors.is_empty() {
                steps.push(Step::FrontDoor { service: None, doors });
            }
            steps.push(Step::Commit { release: input.release });
            steps.extend(hooks::at(HookMoment::AfterDeploy, input.hooks, input.kind));
            steps.extend(cleanup);
        }
        Plan {
            format: PLAN_FORMAT,
            id: input.id,
            kind: input.kind,
            release,
            previous: input.observed.serving,
            changes: self.changes,
            objections: Vec::new(),
            steps,
            by: None,
            note: None,
        }
    }
}

fn names(routes: &[Route]) -> String {
    routes.iter().map(|route| route.container.to_string()).collect::<Vec<_>>().join(", ")
}

fn start(service: &ServiceName, wanted: &Wanted, container: ContainerName) -> Step {
    Step::Start { service: service.clone(), container, restart: wanted.restart, stop: wanted.stop.clone() }
}

fn gate(service: &ServiceName, wanted: &Wanted, container: ContainerName) -> Step {
    Step::Gate { service: service.clone(), container, gate: wanted.gate.clone(), through: None, reach: None }
}

/// Whether it runs, or would run again by itself.
fn is_up(instance: &Instance) -> bool {
    matches!(instance.state.status, InstanceStatus::Running | InstanceStatus::Restarting | InstanceStatus::Paused)
}

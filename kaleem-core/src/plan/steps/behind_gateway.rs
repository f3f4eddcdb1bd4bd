//! Replacing a service behind its gateway: start, gate, switch, watch, drain, stop; and the one hand-over by which a gateway takes its place.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Builder, ORPHAN_STOP, Slot, is_up, start};
use crate::definition::{DefinitionId, RestartPolicy};
use crate::health::{Door, Question};
use crate::names::{ContainerName, NetworkName, ServiceName};
use crate::observed::clients::{Client, Keeps, Refresh};
use crate::observed::{gateway_of, is_port_container};
use crate::plan::gateway::HOLD;
use crate::plan::{HandedOver, KeptAddress, NewInstance, PlanKind, Reach, ReachExpectation, Role, Route, Step, WhenUndone};
use crate::release::{GateSettings, Strategy, Wanted, WantedGateway};
use crate::runtime::{Instance, StopPolicy};
use crate::traffic::DrainPolicy;

/// What streams have to end while requests wait.
const LAST_STREAMS: Duration = Duration::from_secs(1);

impl<'a> Builder<'a> {
    /// The gateway of a service, whatever its state: a running one before one that does not run.
    pub(super) fn gateway_of(&self, service: &ServiceName) -> Option<&'a Instance> {
        gateway_of(&self.input.target.project, service, &self.input.observed.instances)
    }

    /// Replaces the instances behind a gateway, which is made first where there is none that fits.
    pub(super) fn switch_over(
        &mut self,
        name: &ServiceName,
        wanted: &Wanted,
        gateway: &WantedGateway,
        standing: Option<&'a Instance>,
        slots: &[Slot<'_>],
        old: &[&Instance],
    ) {
        if slots.iter().any(|slot| matches!(slot, Slot::New(_))) {
            self.pull(wanted);
        }
        let new: Vec<&Slot<'_>> = slots.iter().filter(|slot| !matches!(slot, Slot::Kept(_))).collect();
        for slot in &new {
            if let Slot::New(instance) = slot {
                self.create.push(Step::Create { instance: instance.clone() });
            }
        }
        let fits = self.fitting(name, standing, gateway);
        let replaces = !new.is_empty() && !old.is_empty();
        if wanted.strategy == Strategy::Recreate && (replaces || fits.is_none()) {
            return self.hold_over(name, wanted, gateway, standing, slots, old);
        }
        if let Some(rolling) = gateway.rolling.filter(|_| replaces && fits.is_some()) {
            return self.roll_over(name, wanted, gateway, &rolling, slots, old);
        }
        let to: Vec<Route> = slots.iter().map(|slot| self.route(slot)).collect();
        let from: Vec<Route> = self.routed_before(name);
        // What a new gateway makes necessary once it sends requests.
        let mut after = Vec::new();
        let through = Some(gateway.name.clone()).filter(|_| asks_a_port(&wanted.gate));
        for slot in &new {
            self.switch.push(start(name, wanted, slot.name().clone()));
        }
        if fits.is_some() {
            for slot in &new {
                self.gate_through(name, wanted, gateway, slot);
            }
            self.ask_needs(name, wanted);
        } else {
            // Everything is ready before the ports change hands: what is left of the hand-over is a stop and a start.
            let like: Vec<ContainerName> = old.iter().map(|instance| instance.name.clone()).collect();
            for slot in &new {
                let reach = Some(Reach { expect: ReachExpectation::AsBefore, through: None, ..reach(gateway, like.clone()) });
                let (container, gate) = (slot.name().clone(), wanted.gate.clone());
                let reach = reach.filter(|reach| !reach.like.is_empty());
                self.switch.push(Step::Gate { service: name.clone(), container, gate, through: None, reach });
            }
            self.ask_needs(name, wanted);
            // What only the gateway that goes sends to has nothing to give over, and serves on until the new one is watched.
            let (behind, before): (Vec<&Instance>, Vec<&Instance>) = old.iter().partition(|one| self.is_behind(name, standing, one));
            let from_ports = self.new_gateway(name, wanted, gateway, standing, &before);
            let stops = behind.into_iter().map(|instance| self.stop(name, wanted, instance)).collect::<Vec<_>>();
            self.retire.extend(stops);
            for slot in slots {
                let once = GateSettings { passes: 1, steady: Duration::ZERO, ..wanted.gate.clone() };
                let (container, reach) = (slot.name().clone(), Some(reach(gateway, Vec::new())));
                self.switch.push(Step::Gate { service: name.clone(), container, gate: once, through: through.clone(), reach });
            }
            after = from_ports;
        }
        self.switch.push(Step::Steer { service: name.clone(), gateway: gateway.name.clone(), to: to.clone(), from });
        self.switch.append(&mut after);
        self.see_doors(name);
        if !old.is_empty() {
            self.watch(name, wanted, gateway, to);
        }
        if fits.is_some() {
            for instance in old {
                let steps = self.leave(name, wanted, gateway, instance);
                self.retire.extend(steps);
            }
        }
    }

    /// Whether clients reach an instance through the standing gateway alone.
    fn is_behind(&self, name: &ServiceName, standing: Option<&Instance>, instance: &Instance) -> bool {
        let is_routed = || self.routed_before(name).iter().any(|route| route.container == instance.name);
        standing.is_some_and(is_up) && instance.ports.is_empty() && is_routed()
    }

    /// Stops the old before the new starts: two must not run at a time. The gateway holds what comes meanwhile; one that is new has held since
    /// it got the ports.
    fn hold_over(
        &mut self,
        name: &ServiceName,
        wanted: &Wanted,
        gateway: &WantedGateway,
        standing: Option<&'a Instance>,
        slots: &[Slot<'_>],
        old: &[&Instance],
    ) {
        let to: Vec<Route> = slots.iter().map(|slot| self.route(slot)).collect();
        let before = self.routed_before(name);
        let fits = self.fitting(name, standing, gateway).is_some();
        // Before anything is stopped: a release that would be taken back must not make anybody wait.
        self.ask_needs(name, wanted);
        let from = if fits {
            let hold = gateway.hold.unwrap_or(HOLD);
            self.switch.push(Step::Hold { service: name.clone(), gateway: gateway.name.clone(), hold, from: before });
            // Who waits does so for what still runs, too: it has half of the time to end.
            let drain = DrainPolicy { requests: gateway.drain.requests.min(hold / 2), streams: gateway.drain.streams.min(LAST_STREAMS) };
            for instance in old {
                let container = instance.name.clone();
                self.switch.push(Step::Drain { service: name.clone(), gateway: gateway.name.clone(), container, drain });
            }
            for instance in old {
                let stop = self.stop(name, wanted, instance);
                self.switch.push(stop);
            }
            Vec::new()
        } else {
            let after = self.new_gateway(name, wanted, gateway, standing, old);
            self.switch.extend(after);
            before
        };
        let new = || slots.iter().filter(|slot| !matches!(slot, Slot::Kept(_)));
        for slot in new() {
            self.switch.push(start(name, wanted, slot.name().clone()));
        }
        for slot in new() {
            self.gate_through(name, wanted, gateway, slot);
        }
        self.switch.push(Step::Steer { service: name.clone(), gateway: gateway.name.clone(), to: to.clone(), from });
        self.see_doors(name);
        if !old.is_empty() {
            self.watch(name, wanted, gateway, to);
        }
    }

    /// Asks a new instance from where its gateway stands, where the question can be put there.
    pub(super) fn gate_through(&mut self, name: &ServiceName, wanted: &Wanted, gateway: &WantedGateway, slot: &Slot<'_>) {
        let through = Some(gateway.name.clone()).filter(|_| asks_a_port(&wanted.gate));
        let like = self.routed_before(name).into_iter().map(|route| route.container).collect();
        let (container, reach) = (slot.name().clone(), Some(reach(gateway, like)));
        self.switch.push(Step::Gate { service: name.clone(), container, gate: wanted.gate.clone(), through, reach });
    }

    /// The gateway that stands, where it runs and is what is wanted, or becomes that while it serves. Its program may be older: that is upgraded
    /// without replacing it.
    pub(super) fn fitting(&self, name: &ServiceName, standing: Option<&'a Instance>, wanted: &WantedGateway) -> Option<&'a Instance> {
        let sends = self.input.observed.sends.get(name);
        let takes_ports = sends.is_some_and(|sends| sends.takes_ports);
        let live = || self.input.observed.live_gateways.get(name).is_some_and(|live| live.adds.is_empty() || takes_ports);
        let same = |standing: &Instance| {
            standing.definition.as_ref() == Some(&wanted.definition) || self.input.observed.adoptable.contains(&standing.name)
        };
        // What can be steered no more has to be replaced while it still serves.
        let lost = self.input.observed.lost_gateways.contains(name);
        standing.filter(|standing| is_up(standing) && !lost).filter(|standing| same(standing) || live())
    }

    /// Adds to what is printed of a service what its gateway makes different.
    pub(super) fn explain_gateway(&self, name: &ServiceName, wanted: &WantedGateway, stale: bool, fields: &mut Vec<String>) {
        if stale && fields.is_empty() {
            fields.push(self.why_another_gateway(name, wanted));
        }
        let before = self.previous().and_then(|release| release.target.services.get(name));
        if before.is_none_or(|before| before.gateway.is_none()) {
            for field in fields.iter_mut().filter(|field| *field == "extra_hosts") {
                "extra_hosts (behind a gateway its own name leads to itself)".clone_into(field);
            }
        }
    }

    fn why_another_gateway(&self, name: &ServiceName, wanted: &WantedGateway) -> String {
        let before = self.previous().and_then(|release| release.target.services.get(name)?.gateway.as_ref());
        match (self.gateway_of(name), before) {
            (None, None) => "gets a gateway".to_owned(),
            (None, Some(_)) => "its gateway is gone".to_owned(),
            (Some(standing), _) if !is_up(standing) => "its gateway does not run".to_owned(),
            (Some(_), _) if self.input.observed.lost_gateways.contains(name) => "the control socket of its gateway was removed".to_owned(),
            (Some(_), before) => {
                let fields = before.map_or_else(Vec::new, |before| (self.input.compare)(&before.definition, &wanted.definition));
                if fields.is_empty() {
                    "its gateway is not the one of the live release".to_owned()
                } else {
                    format!("gateway ({})", fields.join(", "))
                }
            }
        }
    }

    /// Connects a gateway to the networks that it joins while it serves.
    pub(super) fn join_live(&mut self, name: &ServiceName, standing: Option<&Instance>) {
        let live = self.input.observed.live_gateways.get(name);
        let networks = live.map(|live| &live.joins).filter(|networks| !networks.is_empty());
        if let (Some(standing), Some(networks)) = (standing, networks) {
            self.create.push(Step::Connect {
                service: name.clone(),
                container: standing.name.clone(),
                networks: networks.clone(),
                when_undone: WhenUndone::Leaves,
            });
        }
    }

    /// Asks where clients of a service ask, after it was switched.
    fn see_doors(&mut self, name: &ServiceName) {
        let doors: Vec<Door> = self.input.observed.doors.iter().filter(|door| door.leads_to(name)).cloned().collect();
        if !doors.is_empty() {
            self.switch.push(Step::FrontDoor { service: Some(name.clone()), doors });
        }
    }

    pub(super) fn watch(&mut self, name: &ServiceName, wanted: &Wanted, gateway: &WantedGateway, instances: Vec<Route>) {
        // What is restarted is what ran: there is nothing to compare.
        if !gateway.watch.window.is_zero() && self.input.kind != PlanKind::Restart {
            let (watch, gate) = (gateway.watch.clone(), Some(wanted.gate.clone()));
            self.switch.push(Step::Watch { service: name.clone(), gateway: gateway.name.clone(), instances, watch, gate });
        }
    }

    /// Creates a container that runs the gateway's program, under this name or, where that is taken, under one with the plan's number.
    pub(super) fn create_gateway(
        &mut self,
        name: &ServiceName,
        gateway: &WantedGateway,
        plain: &ContainerName,
        definition: &DefinitionId,
    ) -> ContainerName {
        let taken = self.input.observed.instances.iter().any(|instance| instance.name == *plain);
        let container = if taken { ContainerName::fitting(&format!("{plain}-{}", self.input.id)) } else { plain.clone() };
        self.create.push(Step::Create {
            instance: NewInstance {
                name: container.clone(),
                service: name.clone(),
                number: 0,
                release: self.input.release,
                image: gateway.image.clone(),
                definition: definition.clone(),
                companions: BTreeMap::new(),
                role: Role::Gateway(gateway.name.clone()),
            },
        });
        container
    }

    /// Brings up a gateway where none fits. It is ready before anybody loses anything; what has published ports now gives them over
    /// in one short step; what has only the name is stopped after the gateway sends: the answer is what comes after that.
    pub(super) fn new_gateway(
        &mut self,
        name: &ServiceName,
        wanted: &Wanted,
        gateway: &WantedGateway,
        standing: Option<&'a Instance>,
        old: &[&Instance],
    ) -> Vec<Step> {
        let container = self.create_gateway(name, gateway, &gateway.container, &gateway.definition);
        let holders = self.holders(name, wanted);
        let own = standing.into_iter().filter(|standing| is_up(standing)).chain(old.iter().copied());
        let leaving: Vec<&Instance> = own.filter(|instance| !self.has_let_go(&instance.name)).collect();
        let ports: Vec<&Instance> = self.port_containers(name).filter(|one| is_up(one) && !self.has_let_go(&one.name)).collect();
        let restart = RestartPolicy::Always;
        if leaving.is_empty() && holders.is_empty() && ports.is_empty() {
            self.switch.push(Step::Start { service: name.clone(), container, restart, stop: ORPHAN_STOP });
            return Vec::new();
        }
        let reloads = self.reloads(name, &leaving, std::slice::from_ref(&container));
        let leaving: Vec<&Instance> = ports.into_iter().chain(leaving).collect();
        let mut from: Vec<HandedOver> = leaving.iter().map(|instance| self.handed_over(name, wanted, gateway, instance)).collect();
        for (other, holder) in &holders {
            from.push(self.handed_over(other, wanted, gateway, holder));
            self.lend(other, holder, name);
        }
        // A standing gateway has the control socket, which two cannot have at a time. Who keeps the address finds the gateway there only after a
        // hand-over.
        let holds = !wanted.ports.is_empty()
            || standing.is_some_and(is_up)
            || leaving.iter().any(|instance| !instance.ports.is_empty())
            || self.is_address_kept(name);
        if !holds {
            // Both are found under the name while the old one still runs, so nobody is refused.
            self.switch.push(Step::Start { service: name.clone(), container, restart, stop: ORPHAN_STOP });
            let stops = from.into_iter().map(|one| Step::Stop {
                service: name.clone(),
                container: one.container,
                stop: one.stop,
                restart: one.restart,
                gate: one.gate,
                again: one.again,
            });
            return reloads.iter().cloned().chain(stops).chain(reloads.iter().cloned()).collect();
        }
        // Going back undoes this one when what had the ports runs again.
        self.switch.extend(reloads.iter().cloned());
        self.switch.push(Step::StartApart { service: name.clone(), container: container.clone(), restart, stop: ORPHAN_STOP });
        let networks = gateway.networks.clone();
        self.switch.push(Step::HandOver { service: name.clone(), from, to: container, networks, stop: ORPHAN_STOP });
        // At once: until then a web server sends to an address that nobody has any more, and its clients wait for a connection that never
        // comes. From now on the gateway holds them, until a gate is passed.
        self.switch.extend(reloads);
        Vec::new()
    }

    fn handed_over(&self, name: &ServiceName, wanted: &Wanted, gateway: &WantedGateway, instance: &Instance) -> HandedOver {
        let container = instance.name.clone();
        // Nobody calls a port container by its address.
        let addresses = if is_port_container(instance) { BTreeMap::new() } else { instance.addresses.clone() };
        match self.stop(name, wanted, instance) {
            Step::Stop { stop, restart, gate, again, .. } => {
                let stop = StopPolicy { grace: stop.grace.min(gateway.hand_over), ..stop };
                HandedOver { container, stop, restart, gate, again, addresses }
            }
            _ => HandedOver { container, stop: ORPHAN_STOP, restart: instance.restart, gate: None, again: None, addresses },
        }
    }

    /// Web servers that have kept the address of the service: they get to know the next one, where it is not the same.
    pub(super) fn reloads(&self, service: &ServiceName, before: &[&Instance], after: &[ContainerName]) -> Vec<Step> {
        let target = self.input.target;
        let mut addresses: BTreeMap<NetworkName, BTreeSet<String>> = BTreeMap::new();
        for (network, address) in before.iter().flat_map(|instance| &instance.addresses) {
            addresses.entry(network.clone()).or_default().insert(address.clone());
        }
        let holders: Vec<ContainerName> = before.iter().map(|instance| &instance.name).chain(after).cloned().collect();
        let step = |client: &Client| {
            let refresh = client.refresh(target)?;
            let kept = KeptAddress { addresses: addresses.clone(), holders: holders.clone(), refresh };
            // One of another project stands in the plan under the service that it is a client of.
            let name = client.service.clone().filter(|_| refresh != Refresh::Forbidden).unwrap_or_else(|| service.clone());
            Some(Step::Reload { service: name, container: client.container.clone(), of: service.clone(), kept: Some(kept) })
        };
        self.input.observed.clients.iter().filter(|client| client.of == *service).filter_map(step).collect()
    }

    /// Whether a web server keeps the address of the service.
    fn is_address_kept(&self, service: &ServiceName) -> bool {
        self.input
            .observed
            .clients
            .iter()
            .any(|client| client.of == *service && matches!(client.keeps, Keeps::Address { .. } | Keeps::Zone { .. }))
    }

    pub(super) fn route(&self, slot: &Slot<'_>) -> Route {
        let release = match slot {
            Slot::Kept(instance) | Slot::Reused(instance) => instance.release.unwrap_or(self.input.release),
            Slot::New(instance) => instance.release,
        };
        Route { container: slot.name().clone(), release }
    }

    /// Where the gateway of a service sends now, as it says itself: where no release is known to serve, going back leads there.
    fn routed_now(&self, service: &ServiceName) -> Vec<Route> {
        let gateway = self.input.target.services.get(service).and_then(|wanted| wanted.gateway.as_ref());
        let routing = gateway.and_then(|gateway| self.input.observed.ownership.routing.get(&gateway.name));
        let is_there = |name: &ContainerName| self.input.observed.instances.iter().any(|instance| instance.name == *name);
        let targets = routing.into_iter().flat_map(|routing| &routing.targets).filter(|target| is_there(&target.instance));
        targets.map(|target| Route { container: target.instance.clone(), release: target.release }).collect()
    }

    /// Where the gateway of a service sends now: as it says itself, or else as the release that serves tells.
    pub(super) fn routed_before(&self, service: &ServiceName) -> Vec<Route> {
        let known = self.previous().and_then(|previous| previous.instances.get(service)).into_iter().flatten();
        if let Some(sends) = self.input.observed.sends.get(service).filter(|sends| !sends.is_to(known)) {
            return sends.to.iter().map(|(container, release)| Route { container: container.clone(), release: *release }).collect();
        }
        let Some(previous) =
            self.previous().filter(|previous| previous.target.services.get(service).is_some_and(|before| before.gateway.is_some()))
        else {
            return self.routed_now(service);
        };
        let names = previous.instances.get(service).into_iter().flatten();
        let release = |name: &ContainerName| {
            self.input.observed.instances.iter().find(|instance| instance.name == *name).and_then(|instance| instance.release)
        };
        names.map(|name| Route { container: name.clone(), release: release(name).unwrap_or(previous.id) }).collect()
    }
}

/// What the gateway must reach of an instance before it sends there.
fn reach(gateway: &WantedGateway, like: Vec<ContainerName>) -> Reach {
    let expect = if gateway.declares_ports { ReachExpectation::AtLeastOne } else { ReachExpectation::AsBefore };
    Reach { ports: gateway.ports.clone(), expect, like, through: Some(gateway.name.clone()) }
}

/// Whether a gate's question can be put by a gateway.
fn asks_a_port(gate: &GateSettings) -> bool {
    matches!(gate.question, Question::Http { .. } | Question::Tcp { .. })
}

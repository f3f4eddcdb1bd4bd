//! Ports that move from one service of the project to another: what lets go of a port comes before what takes it.

use super::{Builder, is_up};
use crate::definition::PortBinding;
use crate::names::{ContainerName, ServiceName};
use crate::plan::{Step, check};
use crate::release::{Strategy, Wanted};
use crate::runtime::Instance;

impl<'a> Builder<'a> {
    /// Containers of other services that hold a port which this one publishes now, with their services. What has let go is not among them.
    pub(super) fn holders(&self, name: &ServiceName, wanted: &Wanted) -> Vec<(ServiceName, &'a Instance)> {
        let before = self.previous().into_iter().flat_map(|release| release.target.services.keys());
        let mut others: Vec<&ServiceName> = before.chain(self.input.target.services.keys()).collect();
        others.sort();
        others.dedup();
        let mut holders = Vec::new();
        for other in others.into_iter().filter(|other| *other != name && !self.input.left.contains_key(*other)) {
            for instance in self.gateway_of(other).into_iter().chain(self.port_containers(other)).chain(self.of_service(other)) {
                let holds = instance.ports.iter().any(|held| wanted.ports.iter().any(|port| port.collides(held)));
                if holds && is_up(instance) && !self.has_let_go(&instance.name) {
                    holders.push((other.clone(), instance));
                }
            }
        }
        holders
    }

    /// Notes that a container stops so that another service can have its port.
    pub(super) fn lend(&mut self, holder: &ServiceName, instance: &Instance, taker: &ServiceName) {
        self.lent.insert(instance.name.clone(), (holder.clone(), taker.clone()));
    }

    /// Whether a step that replaces services has stopped the container already.
    pub(super) fn has_let_go(&self, container: &ContainerName) -> bool {
        self.switch.iter().any(|step| match step {
            Step::Stop { container: stopped, .. } => stopped == container,
            Step::HandOver { from, .. } => from.iter().any(|one| one.container == *container),
            _ => false,
        })
    }

    /// What a plan says of the ports that a service takes.
    pub(super) fn taken_ports(&self, name: &ServiceName, wanted: &Wanted) -> Vec<String> {
        let holders = self.holders(name, wanted);
        let from = |port: &PortBinding| holders.iter().find(|(_, instance)| instance.ports.iter().any(|held| port.collides(held)));
        let taken =
            wanted.ports.iter().filter_map(|port| from(port).map(|(other, _)| format!("port {} of {other}", check::port_text(port))));
        let mut taken: Vec<String> = taken.collect();
        taken.dedup();
        taken
    }

    /// Brings forward what gives a service its new ports whose old ones another service has taken: nobody has them meanwhile.
    pub(super) fn bring_forward(&mut self) {
        let services: Vec<ServiceName> = self.input.target.services.keys().cloned().collect();
        for service in services {
            let Some((at, taker)) = self.taken_by_other(&service) else { continue };
            // What comes after the old let go, up to the switch.
            let own = |step: &Step| step.service() == Some(&service);
            let last = self.switch.iter().enumerate().skip(at + 1).find(|(_, step)| own(step) && matches!(step, Step::Steer { .. }));
            let last = last.map_or(self.switch.len(), |(index, _)| index + 1);
            let mut block = Vec::new();
            let mut rest = Vec::new();
            for (index, step) in self.switch.drain(..).enumerate() {
                if index > at && index < last && own(&step) { block.push(step) } else { rest.push(step) }
            }
            self.switch = rest;
            let recreated = self.input.target.services.get(&service).is_none_or(|wanted| wanted.strategy == Strategy::Recreate);
            // The last one that starts is its gateway; new instances are ready before the port changes hands.
            let gateway = block.iter().rposition(|step| matches!(step, Step::Start { .. })).filter(|_| !recreated).unwrap_or(0);
            let late = block.split_off(gateway);
            let after = match self.switch.get(at) {
                Some(Step::HandOver { .. }) => at + 1,
                // The one that takes the port has no gateway: it starts first.
                _ => {
                    let starts = |step: &Step| step.service() == Some(&taker) && matches!(step, Step::Start { .. });
                    let next = self.switch.iter().enumerate().skip(at).find(|(_, step)| starts(step));
                    next.map_or(at, |(index, _)| index) + 1
                }
            };
            self.switch.splice(after..after, late);
            let apart = |step: &Step| step.service() == Some(&taker) && matches!(step, Step::StartApart { .. });
            let before = self.switch.iter().take(at).position(apart).unwrap_or(at);
            self.switch.splice(before..before, block);
        }
    }

    /// The step in which another service takes the ports of this one, and that service.
    fn taken_by_other(&self, service: &ServiceName) -> Option<(usize, ServiceName)> {
        let (container, (_, taker)) = self.lent.iter().find(|(_, (holder, _))| holder == service)?;
        let at = self.switch.iter().position(|step| match step {
            Step::Stop { container: stopped, .. } => stopped == container,
            Step::HandOver { from, .. } => from.iter().any(|one| one.container == *container),
            _ => false,
        })?;
        Some((at, taker.clone()))
    }
}

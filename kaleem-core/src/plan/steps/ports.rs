//! Ports that a gateway gets and loses while it serves: each one that is new is published by a port container.

use std::time::Duration;

use super::{Builder, ORPHAN_STOP};
use crate::definition::RestartPolicy;
use crate::health::Question;
use crate::names::ServiceName;
use crate::observed::live::{LiveGateway, PortContainer, container_name};
use crate::observed::port_containers_of;
use crate::plan::check::port_text;
use crate::plan::{ChangeKind, Step};
use crate::release::{GateSettings, Wanted, WantedGateway};
use crate::runtime::Instance;

/// Time in which a gateway takes a port: it does so as soon as the port container runs.
const TAKEN: Duration = Duration::from_secs(30);
/// Time between two questions whether it has.
const INTERVAL: Duration = Duration::from_millis(50);
/// Time one answer may take.
const ANSWER: Duration = Duration::from_secs(2);

impl<'a> Builder<'a> {
    /// The containers that publish ports for the gateway of a service.
    pub(super) fn port_containers(&self, service: &ServiceName) -> impl Iterator<Item = &'a Instance> + use<'a> {
        port_containers_of(&self.input.target.project, service, &self.input.observed.instances)
    }

    /// All containers of a service, and those that stand before it.
    pub(super) fn all_of(&self, service: &ServiceName) -> impl Iterator<Item = &'a Instance> + use<'a> {
        self.port_containers(service).chain(self.gateway_of(service)).chain(self.of_service(service))
    }

    /// Opens and closes ports of a gateway that stays.
    pub(super) fn change_ports(&mut self, name: &ServiceName, wanted: &Wanted) {
        let Some(gateway) = &wanted.gateway else { return };
        if self.fitting(name, self.gateway_of(name), gateway).is_none() {
            return;
        }
        let Some(LiveGateway { adds, drops, .. }) = self.input.observed.live_gateways.get(name) else { return };
        let mut said = Vec::new();
        for port in adds {
            self.add_port(name, gateway, port);
            said.push(format!("port {} (opened by a port container)", port_text(&port.binding)));
        }
        for instance in self.port_containers(name).filter(|instance| drops.contains(&instance.name)) {
            said.extend(instance.ports.iter().map(|port| format!("port {} (closed)", port_text(port))));
            if self.has_let_go(&instance.name) {
                continue;
            }
            let stop = Step::Stop {
                service: name.clone(),
                container: instance.name.clone(),
                stop: ORPHAN_STOP,
                restart: RestartPolicy::Always,
                gate: None,
                again: None,
            };
            // Who gets the port has it after this; else it is open until nothing can go wrong any more.
            let others = self.input.target.services.iter().filter(|(other, _)| *other != name).flat_map(|(_, other)| &other.ports);
            let is_taken = others.into_iter().any(|port| instance.ports.iter().any(|held| port.collides(held)));
            if is_taken { self.switch.push(stop) } else { self.retire.push(stop) }
        }
        if let Some(change) = self.changes.last_mut().filter(|change| change.service == *name && !said.is_empty()) {
            change.fields.append(&mut said);
            if change.kind == ChangeKind::Keep {
                change.kind = ChangeKind::Update;
            }
        }
    }

    fn add_port(&mut self, name: &ServiceName, gateway: &WantedGateway, port: &PortContainer) {
        let plain = container_name(&gateway.container, &port.binding);
        let container = self.create_gateway(name, gateway, &plain, &port.id);
        self.switch.push(Step::Start {
            service: name.clone(),
            container: container.clone(),
            restart: RestartPolicy::Always,
            stop: ORPHAN_STOP,
        });
        // Nobody is let in there before the gateway has taken the port.
        let gate = GateSettings {
            question: Question::Tcp { port: port.binding.container.port },
            passes: 1,
            steady: Duration::ZERO,
            interval: INTERVAL,
            timeout: ANSWER,
            deadline: TAKEN,
            may_end: false,
        };
        self.switch.push(Step::Gate { service: name.clone(), container, gate, through: Some(gateway.name.clone()), reach: None });
    }
}

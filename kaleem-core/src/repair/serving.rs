//! Whether the live release serves: its containers run, on their networks, and its gateways send to them.
//!
//! What is missing on the host is known from the engine and from the gateways, never from journals alone.

use std::collections::BTreeSet;

use super::host::Host;
use super::{Damage, Repair, UNHEALTHY_BEFORE};
use crate::definition::{NetworkAttachment, PortBinding};
use crate::names::{ContainerName, ServiceName};
use crate::observed::reality::{Sends, detached};
use crate::observed::{gateway_of, is_gateway, port_containers_of};
use crate::plan::Route;
use crate::plan::check::port_text;
use crate::release::{GateSettings, Release, Strategy, Wanted, WantedGateway};
use crate::remedy::one_line;
use crate::runtime::{Instance, InstanceHealth, InstanceStatus, kaleem_labels};
use crate::traffic::AddedPort;

/// What makes again what is gone.
const DEPLOY: &str = "kaleem deploy";

/// One service of the live release, and all containers of the project.
struct Looked<'a> {
    release: &'a Release,
    service: &'a ServiceName,
    instances: &'a [Instance],
    /// Whether `kaleem.toml` says how it is checked.
    decided: bool,
}

impl Host<'_> {
    /// What of the live release does not serve. Nothing is changed.
    pub(super) async fn serving(&self, release: &Release, instances: &[Instance]) -> Vec<Damage> {
        let mut found = Vec::new();
        for (service, wanted) in release.target.services.iter().filter(|(_, wanted)| wanted.strategy != Strategy::RunToEnd) {
            let looked = Looked { release, service, instances, decided: (self.decides)(service) };
            for name in release.instances.get(service).into_iter().flatten() {
                found.extend(looked.instance(name));
            }
            if let Some(gateway) = &wanted.gateway {
                found.extend(self.gateway(&looked, gateway).await);
            }
        }
        let lost = detached(instances, Some(release), self.find);
        for (container, networks) in lost {
            let serves = instances.iter().find(|instance| instance.name == container).filter(|instance| is_up(instance));
            let Some(service) = serves.and_then(|instance| service_of(release, instance)) else { continue };
            let names: Vec<String> = networks.iter().map(|attachment| attachment.network.to_string()).collect();
            let message = format!("{container} of `{service}` is not on {}, where {} is to serve", names.join(", "), release.id);
            let repair = Repair::Connect { container, networks };
            found.push(Damage { kind: "network-lost", service: Some(service.clone()), message, repair });
        }
        found
    }

    /// The gateway must run, answer, send to what serves, and have its names alone.
    async fn gateway(&self, looked: &Looked<'_>, gateway: &WantedGateway) -> Vec<Damage> {
        let (service, release) = (looked.service, looked.release.id);
        let Some(instance) = gateway_of(&looked.release.target.project, service, looked.instances) else {
            let message = format!("the gateway of `{service}` is gone: nobody reaches `{service}`");
            return vec![looked.damage("gateway-missing", message, Repair::by_hand(DEPLOY))];
        };
        let container = instance.name.clone();
        let start = Repair::Start { container: container.clone() };
        match instance.state.status {
            InstanceStatus::Paused => {
                let message = format!("the gateway {container} of `{service}` is paused: nobody reaches `{service}`");
                return vec![looked.damage("gateway-down", message, Repair::Unpause { container })];
            }
            InstanceStatus::Running => {}
            _ => {
                let message = format!("the gateway {container} of `{service}` does not run: nobody reaches `{service}`");
                let repair = if looked.has_ports_elsewhere() { Repair::by_hand(DEPLOY) } else { start };
                return vec![looked.damage("gateway-down", message, repair)];
            }
        }
        let mut found = looked.others_with_its_names(gateway);
        let Some(traffic) = self.traffic else { return found };
        let sends = match traffic.stats(&gateway.name).await {
            Ok(stats) => {
                found.extend(looked.ports(instance, stats.added_ports.as_deref()));
                Sends::of(&stats)
            }
            Err(error) => {
                let message = format!("the gateway {container} of `{service}` runs and does not answer: {}", one_line(&error));
                found.push(looked.damage("gateway-silent", message, Repair::by_hand(&format!("docker restart {container}"))));
                return found;
            }
        };
        let names = looked.release.instances.get(service).cloned().unwrap_or_default();
        if sends.is_to(names.iter()) {
            return found;
        }
        let running: BTreeSet<&ContainerName> =
            looked.instances.iter().filter(|instance| instance.state.status == InstanceStatus::Running).map(|one| &one.name).collect();
        let to: Vec<Route> = names
            .iter()
            .filter(|name| running.contains(name))
            .map(|name| Route { container: name.clone(), release: looked.release_of(name) })
            .collect();
        let texts: Vec<String> = sends.to.iter().map(|(name, _)| name.to_string()).collect();
        let where_to = match (sends.holds, texts.is_empty()) {
            (true, _) => "holds all requests".to_owned(),
            (false, true) => "sends nowhere".to_owned(),
            (false, false) => format!("sends to {}", texts.join(", ")),
        };
        let message = format!("the gateway {container} of `{service}` {where_to}, and {release} is live");
        let repair = if to.len() == names.len() { Repair::Steer { gateway: gateway.name.clone(), to } } else { Repair::by_hand(DEPLOY) };
        found.push(looked.damage("gateway-lost", message, repair));
        found
    }
}

impl Looked<'_> {
    fn damage(&self, kind: &'static str, message: String, repair: Repair) -> Damage {
        Damage { kind, service: Some(self.service.clone()), message, repair }
    }

    fn release_of(&self, name: &ContainerName) -> crate::names::ReleaseId {
        let found = self.instances.iter().find(|instance| instance.name == *name);
        found.and_then(|instance| instance.release).unwrap_or(self.release.id)
    }

    /// An instance must run, and its own health check must not fail.
    fn instance(&self, name: &ContainerName) -> Option<Damage> {
        let (service, release) = (self.service, self.release.id);
        let Some(instance) = self.instances.iter().find(|instance| instance.name == *name) else {
            let message = format!("the container {name} of `{service}` is gone, and {release} is live");
            return Some(self.damage("serving-missing", message, Repair::by_hand(DEPLOY)));
        };
        let start = Repair::Start { container: name.clone() };
        let gate = self.release.target.services.get(service).map(|wanted| &wanted.gate);
        // What a person wrote decides, also where it was written after the release.
        let checked = gate.is_none_or(GateSettings::asks_docker) && !self.decided;
        let before = self.release.unhealthy_before.contains(name);
        match instance.state.status {
            // It did its work.
            InstanceStatus::Exited if gate.is_some_and(|gate| gate.may_end) && instance.state.exit_code == Some(0) => None,
            InstanceStatus::Paused => {
                let message = format!("the container {name} of `{service}` is paused, and {release} is live");
                Some(self.damage("serving-paused", message, Repair::Unpause { container: name.clone() }))
            }
            InstanceStatus::Exited | InstanceStatus::Created => {
                let message = format!("the container {name} of `{service}` does not run, and {release} is live");
                // Two containers of one service must not share its data, its name and its address.
                let repair = match self.running_beside(name) {
                    Some(_) => Repair::by_hand(DEPLOY),
                    None => start,
                };
                Some(self.damage("serving-down", message, repair))
            }
            InstanceStatus::Dead | InstanceStatus::Removing => {
                let message = format!("the engine is removing the container {name} of `{service}`, and {release} is live");
                Some(self.damage("serving-missing", message, Repair::by_hand(DEPLOY)))
            }
            InstanceStatus::Restarting => {
                let message = format!("the container {name} of `{service}` ends again and again, and {release} is live");
                Some(self.damage("serving-restarting", message, Repair::by_hand(&format!("docker logs --tail 50 {name}"))))
            }
            InstanceStatus::Running if instance.state.health == InstanceHealth::Unhealthy && before && !self.decided => {
                let message = format!("`{service}` was not healthy before kaleem came, and is not now: the health check of {name} fails");
                let advice =
                    format!("if that check is not meant for `{service}`: `none = true` under `[services.{service}.health]` in kaleem.toml");
                Some(self.damage(UNHEALTHY_BEFORE, message, Repair::by_hand(&advice)))
            }
            InstanceStatus::Running if instance.state.health == InstanceHealth::Unhealthy && checked => {
                let message = format!("the health check of {name} of `{service}` fails, and {release} is live");
                let advice = format!("docker inspect --format '{{{{json .State.Health}}}}' {name}");
                Some(self.damage("serving-unhealthy", message, Repair::by_hand(&advice)))
            }
            InstanceStatus::Running => None,
        }
    }

    /// A container of the service that runs and is not one of the release's own.
    fn running_beside(&self, name: &ContainerName) -> Option<&Instance> {
        let own = self.release.instances.get(self.service);
        let is_own = |instance: &Instance| own.is_some_and(|names| names.contains(&instance.name));
        let mut others = self.instances.iter().filter(|one| one.service == *self.service && one.name != *name && !one.oneoff);
        others.find(|instance| is_up(instance) && !is_gateway(instance) && !is_own(instance))
    }

    /// Whether a container of the service holds the ports that its gateway is to have.
    fn has_ports_elsewhere(&self) -> bool {
        let mut own = self.instances.iter().filter(|instance| instance.service == *self.service && !is_gateway(instance));
        own.any(|instance| is_up(instance) && !instance.ports.is_empty())
    }

    /// Each port must be published, by the gateway or by a port container whose socket the gateway has.
    fn ports(&self, gateway: &Instance, added: Option<&[AddedPort]>) -> Vec<Damage> {
        let service = self.service;
        let containers: Vec<&Instance> = port_containers_of(&self.release.target.project, service, self.instances).collect();
        let running = |instance: &Instance| instance.state.status == InstanceStatus::Running;
        let has = |instance: &Instance, port: &PortBinding| instance.ports.iter().any(|held| port.collides(held));
        let mut found = Vec::new();
        let wanted = self.release.target.services.get(service).into_iter().flat_map(|wanted| &wanted.ports);
        // Which port the engine chooses nobody knows.
        for port in wanted.filter(|port| port.host_ports.is_some_and(|(first, last)| first == last) && !has(gateway, port)) {
            let Some(container) = containers.iter().find(|one| has(one, port)) else {
                let message = format!("nothing publishes the port {} of `{service}`", port_text(port));
                found.push(self.damage("port-closed", message, Repair::by_hand(DEPLOY)));
                continue;
            };
            let name = container.name.clone();
            if running(container) {
                let taken = container.labels.get(kaleem_labels::PORT);
                if added.is_some_and(|added| !added.iter().any(|one| Some(&one.name) == taken)) {
                    let message = format!("the gateway of `{service}` does not serve the port {} of {name}", port_text(port));
                    found.push(self.damage("port-silent", message, Repair::by_hand(&format!("docker restart {name}"))));
                }
                continue;
            }
            let message = format!("the port container {name} of `{service}` does not run: the port {} is closed", port_text(port));
            let repair = match container.state.status {
                InstanceStatus::Paused => Repair::Unpause { container: name },
                _ => Repair::Start { container: name },
            };
            found.push(self.damage("port-closed", message, repair));
        }
        found
    }

    /// Containers that answer to the names of the gateway beside it: half of the clients pass the gateway by.
    fn others_with_its_names(&self, gateway: &WantedGateway) -> Vec<Damage> {
        let joined = |instance: &Instance, network: &NetworkAttachment| {
            instance.networks.get(&network.network).is_some_and(|names| network.aliases.iter().any(|alias| names.contains(alias)))
        };
        let shares = |instance: &&Instance| gateway.networks.iter().any(|network| joined(instance, network));
        let others = self.instances.iter().filter(|instance| is_up(instance) && !is_gateway(instance) && !instance.oneoff);
        let others = others.filter(|instance| instance.service == *self.service).filter(shares);
        let damage = |instance: &Instance| {
            let message = format!("{} answers to the name of `{}` next to its gateway", instance.name, self.service);
            self.damage("name-shared", message, Repair::by_hand(DEPLOY))
        };
        others.map(damage).collect()
    }
}

fn is_up(instance: &Instance) -> bool {
    matches!(instance.state.status, InstanceStatus::Running | InstanceStatus::Restarting | InstanceStatus::Paused)
}

/// The service for which a container serves, as an instance of the release or as its gateway.
fn service_of<'r>(release: &'r Release, instance: &Instance) -> Option<&'r ServiceName> {
    let of = |(name, wanted): (&'r ServiceName, &'r Wanted)| {
        let named = release.instances.get(name).is_some_and(|names| names.contains(&instance.name));
        let gateway = wanted.gateway.as_ref().is_some_and(|gateway| Some(&gateway.name) == instance.gateway.as_ref());
        (named || gateway).then_some(name)
    };
    release.target.services.iter().find_map(of)
}

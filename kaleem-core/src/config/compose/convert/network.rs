//! Networks: of the project, and how a service is connected.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::Service;
use crate::config::compose::convert::{Converter, owned, pairs, texts};
use crate::config::compose::error::ProblemKind;
use crate::config::compose::tree::{Node, Problems};
use crate::definition::{Ipam, IpamPool, NetworkAttachment, NetworkDefinition, NetworkMode};
use crate::names::{NetworkName, ServiceName};

impl Converter<'_> {
    /// The project's networks, by key.
    pub(super) fn networks(&mut self) -> BTreeMap<String, NetworkDefinition> {
        let mut networks = BTreeMap::new();
        for (key, node) in self.model.entries("networks") {
            let Some(name) = self.parsed(node, &format!("networks.{key}"), "name") else { continue };
            let flag = |key: &str| node.get_bool(key).unwrap_or(false);
            let definition = NetworkDefinition {
                name,
                key: key.clone(),
                external: flag("external"),
                driver: owned(node, "driver"),
                driver_opts: pairs(node, "driver_opts"),
                attachable: flag("attachable"),
                internal: flag("internal"),
                enable_ipv6: flag("enable_ipv6"),
                labels: pairs(node, "labels"),
                ipam: node.get("ipam").map(ipam).unwrap_or_default(),
            };
            networks.insert(key.clone(), definition);
        }
        networks
    }

    pub(super) fn network_mode(&mut self, name: &ServiceName, node: &Node, path: &str) -> NetworkMode {
        let Some(mode) = node.get("network_mode") else { return NetworkMode::Networks(self.attachments(name, node)) };
        let text = mode.text().unwrap_or_default();
        match text.split_once(':').unwrap_or((text, "")) {
            ("host", "") => NetworkMode::Host,
            ("none", "") => NetworkMode::None,
            ("bridge" | "default", "") => NetworkMode::Bridge,
            ("service", other) if other.parse::<ServiceName>().is_ok() => other.parse().map_or(NetworkMode::None, NetworkMode::Service),
            ("container", other) if !other.is_empty() => NetworkMode::Container(other.to_owned()),
            _ => {
                let reason = format!("the network mode `{text}` is not carried out");
                self.refuse(&mode.mark, &format!("{path}.network_mode"), reason, "name the network under `networks:`");
                NetworkMode::None
            }
        }
    }

    /// The networks of a service; the one of the highest priority first.
    fn attachments(&self, name: &ServiceName, node: &Node) -> Vec<NetworkAttachment> {
        let mut networks: Vec<(i64, &String, &Node)> =
            node.entries("networks").map(|(key, network)| (network.get_int("priority").unwrap_or(0), key, network)).collect();
        networks.sort_by_key(|(priority, key, _)| (std::cmp::Reverse(*priority), *key));
        let mut attachments: Vec<NetworkAttachment> =
            networks.into_iter().filter_map(|(_, key, network)| self.attachment(name, key, network)).collect();
        if let (Some(address), Some(first)) = (node.get_text("mac_address"), attachments.first_mut()) {
            first.mac_address.get_or_insert_with(|| address.to_owned());
        }
        attachments
    }

    /// `None` for a network that is not defined, which the check has refused.
    fn attachment(&self, service: &ServiceName, key: &str, node: &Node) -> Option<NetworkAttachment> {
        let network: NetworkName = self.model.get("networks")?.get(key)?.get_text("name")?.parse().ok()?;
        let mut aliases = vec![service.to_string()];
        aliases.extend(texts(node, "aliases").into_iter().filter(|alias| alias != service.as_str()));
        Some(NetworkAttachment {
            network,
            aliases,
            ipv4: owned(node, "ipv4_address"),
            ipv6: owned(node, "ipv6_address"),
            link_local_ips: texts(node, "link_local_ips"),
            mac_address: owned(node, "mac_address"),
            driver_opts: pairs(node, "driver_opts"),
        })
    }
}

/// `links: ["db:database"]`: the linked service is found as `database` on the networks that both are on.
pub(super) fn link_aliases(model: &Node, services: &mut BTreeMap<ServiceName, Service>, problems: &mut Problems) {
    let mut given: BTreeMap<String, String> = BTreeMap::new();
    for (name, node) in model.entries("services") {
        for link in node.get_list("links") {
            let Some((target, alias)) = link.text().and_then(|link| link.split_once(':')) else { continue };
            if target == alias {
                continue;
            }
            let taken = services.keys().any(|service| service.as_str() == alias);
            let other = given.insert(alias.to_owned(), target.to_owned()).filter(|other| other != target);
            if taken || other.is_some() {
                let reason = format!("the name `{alias}` would lead to two services");
                let remedy = "choose another name for the link";
                problems.add(&link.mark, &format!("services.{name}.links"), ProblemKind::Conflict, reason, remedy);
                continue;
            }
            let networks_of = |service: &Service| match &service.definition.network {
                NetworkMode::Networks(all) => all.iter().map(|attachment| attachment.network.clone()).collect(),
                _ => BTreeSet::new(),
            };
            let mine = services.iter().find(|(service, _)| service.as_str() == name).map(|(_, service)| networks_of(service));
            let linked = services.iter_mut().find(|(service, _)| service.as_str() == target);
            if let (Some(mine), Some((_, linked))) = (mine, linked)
                && let NetworkMode::Networks(attachments) = &mut linked.definition.network
            {
                for attachment in attachments.iter_mut().filter(|attachment| mine.contains(&attachment.network)) {
                    if !attachment.aliases.iter().any(|known| known == alias) {
                        attachment.aliases.push(alias.to_owned());
                    }
                }
            }
        }
    }
}

/// `extra_hosts` as names and addresses.
pub(super) fn hosts(node: &Node) -> Vec<(String, String)> {
    let hosts = texts(node, "extra_hosts");
    hosts.iter().filter_map(|host| host.split_once('=')).map(|(name, address)| (name.to_owned(), address.to_owned())).collect()
}

fn ipam(node: &Node) -> Ipam {
    let pools = node.get_list("config").iter().map(|pool| IpamPool {
        subnet: owned(pool, "subnet"),
        ip_range: owned(pool, "ip_range"),
        gateway: owned(pool, "gateway"),
        aux_addresses: pairs(pool, "aux_addresses"),
    });
    Ipam { driver: owned(node, "driver"), options: pairs(node, "options"), pools: pools.collect() }
}

//! Who must not run while the data of a backup set is put back: the services that use it, and nobody else.
//!
//! A service uses a store when the compose file or `kaleem.toml` says that it waits for it or needs it, when its environment, its
//! command or its links name the store, or when it runs the image of a service that does. A store whose users cannot be told that way is
//! taken to be used by everything on its networks that is not known to serve pages or to measure.

use std::collections::BTreeSet;
use std::path::Path;

use crate::backup::SetData;
use crate::definition::{Definition, DefinitionId, MountSource, NetworkMode};
use crate::names::ServiceName;
use crate::plan::strategy;
use crate::release::{Strategy, Target, Wanted};

/// Images that read stores, or only pass requests on: they write nothing that a restore would lose.
const BYSTANDERS: &[&str] = &[
    "alertmanager",
    "alloy",
    "cadvisor",
    "caddy",
    "envoy",
    "grafana",
    "haproxy",
    "httpd",
    "jaeger",
    "loki",
    "nginx",
    "nginx-unprivileged",
    "openresty",
    "opentelemetry-collector",
    "opentelemetry-collector-contrib",
    "prometheus",
    "promtail",
    "tempo",
    "traefik",
    "varnish",
    "victoria-metrics",
];

/// The services that use what `data` names, in what is to serve or in what serves now.
pub fn find(targets: &[&Target], definition: &dyn Fn(&DefinitionId) -> Option<Definition>, data: &[SetData]) -> BTreeSet<ServiceName> {
    let mut found = BTreeSet::new();
    for target in targets {
        let services: Vec<Candidate<'_>> =
            target.services.iter().map(|(name, wanted)| Candidate { name, wanted, definition: definition(&wanted.definition) }).collect();
        for one in data {
            found.extend(users(&services, one));
        }
    }
    found
}

struct Candidate<'a> {
    name: &'a ServiceName,
    wanted: &'a Wanted,
    definition: Option<Definition>,
}

fn users(services: &[Candidate<'_>], data: &SetData) -> BTreeSet<ServiceName> {
    let store = |service: &ServiceName| services.iter().find(|candidate| candidate.name == service);
    match data {
        SetData::Store(service) => store(service).map(|store| users_of_store(services, store)).unwrap_or_default(),
        SetData::Volume(volume) => {
            let has = |source: &MountSource| matches!(source, MountSource::Volume { name, .. } if name == volume);
            users_of_storage(services, &has)
        }
        SetData::Directory(directory) => {
            let has = |source: &MountSource| match source {
                MountSource::Bind { path, .. } => Path::new(path).starts_with(directory) || directory.starts_with(path),
                _ => false,
            };
            users_of_storage(services, &has)
        }
        SetData::Elsewhere => services.iter().filter(|one| one.may_write() && !one.is_store()).map(|one| one.name.clone()).collect(),
    }
}

/// What is written to files that are put back stops, a store too, and with a store whoever uses it.
fn users_of_storage(services: &[Candidate<'_>], has: &dyn Fn(&MountSource) -> bool) -> BTreeSet<ServiceName> {
    let mounts = |candidate: &&Candidate<'_>| {
        candidate.definition.as_ref().is_some_and(|definition| definition.mounts.iter().any(|mount| !mount.read_only && has(&mount.source)))
    };
    let mut found = BTreeSet::new();
    for holder in services.iter().filter(mounts).filter(|holder| holder.wanted.strategy != Strategy::RunToEnd) {
        found.insert(holder.name.clone());
        if holder.is_store() {
            found.extend(users_of_store(services, holder));
        }
    }
    found
}

fn users_of_store(services: &[Candidate<'_>], store: &Candidate<'_>) -> BTreeSet<ServiceName> {
    let others = || services.iter().filter(|one| one.name != store.name && one.may_write() && !one.is_store());
    let names = store.names();
    let named: Vec<&Candidate<'_>> = others().filter(|one| one.says_it_uses(store.name, &names)).collect();
    if named.is_empty() {
        return others().filter(|one| one.shares_a_network_with(store)).map(|one| one.name.clone()).collect();
    }
    let same_image =
        |one: &&Candidate<'_>| named.iter().any(|user| user.wanted.image.image.repository() == one.wanted.image.image.repository());
    others().filter(same_image).map(|one| one.name.clone()).collect()
}

impl Candidate<'_> {
    fn is_store(&self) -> bool {
        strategy::is_store(&self.wanted.image.image)
    }

    fn may_write(&self) -> bool {
        let name = self.wanted.image.image.base_name();
        self.wanted.strategy != Strategy::RunToEnd && !BYSTANDERS.contains(&name) && !name.contains("exporter")
    }

    /// Names under which others find it.
    fn names(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::from([self.name.to_string()]);
        names.extend(self.wanted.container_name.as_ref().map(ToString::to_string));
        let networks = self.wanted.gateway.iter().flat_map(|gateway| &gateway.networks);
        names.extend(networks.flat_map(|network| network.aliases.iter().cloned()));
        if let Some(definition) = &self.definition {
            names.extend(definition.hostname.clone());
            if let NetworkMode::Networks(networks) = &definition.network {
                names.extend(networks.iter().flat_map(|network| network.aliases.iter().cloned()));
            }
        }
        names
    }

    fn says_it_uses(&self, store: &ServiceName, names: &BTreeSet<String>) -> bool {
        let wanted = self.wanted;
        if wanted.depends_on.contains_key(store)
            || wanted.companions.contains(store)
            || wanted.needs.iter().any(|need| need.service == *store)
        {
            return true;
        }
        let Some(definition) = &self.definition else { return false };
        let values = definition.environment.values().flatten();
        let words = definition.command.iter().chain(&definition.entrypoint).flatten();
        values.chain(words).any(|text| mentions(text, names))
    }

    fn shares_a_network_with(&self, other: &Self) -> bool {
        let networks = |one: &Self| match one.definition.as_ref().map(|definition| &definition.network) {
            Some(NetworkMode::Networks(networks)) => networks.iter().map(|network| network.network.clone()).collect(),
            _ => BTreeSet::new(),
        };
        let (own, others) = (networks(self), networks(other));
        // What is on no network that is known here could reach anything.
        own.is_empty() || others.is_empty() || own.intersection(&others).next().is_some()
    }
}

/// Whether a text holds one of the names as a host: a whole word that is no scheme.
fn mentions(text: &str, names: &BTreeSet<String>) -> bool {
    let in_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let mut rest = text;
    while let Some(start) = rest.find(in_name) {
        let from = rest.get(start..).unwrap_or_default();
        let end = from.find(|c| !in_name(c)).unwrap_or(from.len());
        let (word, after) = from.split_at(end);
        if names.contains(word) && !after.starts_with("://") {
            return true;
        }
        rest = after;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_mentions_a_host_and_not_a_scheme_or_a_part_of_a_word() {
        let names = BTreeSet::from(["redis".to_owned(), "shop_redis".to_owned()]);
        for (text, wanted) in [
            ("redis://redis:6379/0", true),
            ("redis://cache:6379/0", false),
            ("redis", true),
            ("myredis:6379", false),
            ("redis.example:6379", false),
            ("--url=amqp://u:p@broker/,redis://:secret@shop_redis", true),
            ("", false),
        ] {
            assert_eq!(mentions(text, &names), wanted, "{text}");
        }
    }
}

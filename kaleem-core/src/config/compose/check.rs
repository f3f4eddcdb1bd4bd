//! What cannot be, said before anything is done: names that lead nowhere, cycles, two things on one port.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::config::compose::error::ProblemKind;
use crate::config::compose::forms::ports::range;
use crate::config::compose::tree::{Map, Mark, Node, Problems, nearest};
use crate::names::{ContainerName, NetworkName, ServiceName, VolumeName};

/// What Compose refuses too.
pub(super) fn check(model: &Node, problems: &mut Problems) {
    let empty = Map::new();
    let services = model.get("services").and_then(Node::map).unwrap_or(&empty);
    if services.is_empty() {
        let remedy = "write at least one service, or activate a profile";
        problems.add(&model.mark, "services", ProblemKind::Undefined, "the project has no service", remedy);
    }
    for (name, service) in services {
        let path = format!("services.{name}");
        valid_name::<ServiceName>(name, service.place(), &path, problems);
        // One that says nothing at all was refused as such.
        if !service.is_null() && service.get_text("image").is_none() && service.get("build").is_none() {
            let remedy = "name an image with `image:`, or say how one is built with `build:`";
            problems.add(service.place(), &path, ProblemKind::NoImage, "the service has neither `image:` nor `build:`", remedy);
        }
        references(model, service, &path, problems);
        contradictions(service, &path, problems);
    }
    for (section, check) in [("networks", valid_name::<NetworkName> as NameCheck), ("volumes", valid_name::<VolumeName>)] {
        for (key, entry) in model.entries(section) {
            let Some(name) = entry.get("name") else { continue };
            check(name.text().unwrap_or_default(), &name.mark, &format!("{section}.{key}"), problems);
        }
    }
    for section in ["secrets", "configs"] {
        for (key, entry) in model.entries(section) {
            let sources = ["file", "environment", "content", "external"].into_iter().filter(|source| entry.get(source).is_some()).count();
            if sources != 1 {
                let reason = "it needs exactly one of `file:`, `environment:` and `content:`";
                problems.add(
                    entry.place(),
                    &format!("{section}.{key}"),
                    ProblemKind::Conflict,
                    reason,
                    "say where the content comes from, once",
                );
            }
        }
    }
    cycles(services, problems);
}

type NameCheck = fn(&str, &Mark, &str, &mut Problems);

fn valid_name<T: std::str::FromStr<Err = crate::names::NameError>>(text: &str, mark: &Mark, path: &str, problems: &mut Problems) {
    use crate::remedy::Remedy;
    if let Err(error) = text.parse::<T>() {
        problems.add(mark, path, ProblemKind::BadValue, error.to_string(), error.remedy());
    }
}

/// Names of networks, volumes, secrets and configs that are defined nowhere.
fn references(model: &Node, service: &Node, path: &str, problems: &mut Problems) {
    let mut wanted: Vec<(&str, &str, &str, &Mark)> = Vec::new();
    for (name, node) in service.entries("networks") {
        wanted.push(("networks", "network", name, node.place()));
    }
    for volume in service.get_list("volumes").iter().filter(|volume| volume.get_text("type") == Some("volume")) {
        if let Some(source) = volume.get("source") {
            wanted.push(("volumes", "volume", source.text().unwrap_or_default(), &source.mark));
        }
    }
    for (section, word) in [("secrets", "secret"), ("configs", "config")] {
        let of_build = service.get("build").map_or(&[][..], |build| build.get_list(section));
        for reference in service.get_list(section).iter().chain(of_build) {
            wanted.push((section, word, reference.get_text("source").unwrap_or_default(), &reference.mark));
        }
    }
    for (section, word, name, mark) in wanted {
        let known = model.get(section).and_then(Node::map);
        if known.is_some_and(|known| known.contains_key(name)) {
            continue;
        }
        let remedy = match nearest(name, known.into_iter().flat_map(Map::keys).map(String::as_str)) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("define it under `{section}:` at the top level"),
        };
        problems.add(mark, &format!("{path}.{section}"), ProblemKind::Undefined, format!("there is no {word} `{name}`"), remedy);
    }
}

/// Keys of one service that say different things.
fn contradictions(service: &Node, path: &str, problems: &mut Problems) {
    let mut refuse = |node: &Node, key: &str, reason: &str, remedy: &str| {
        problems.add(node.place(), &format!("{path}.{key}"), ProblemKind::Conflict, reason, remedy);
    };
    if let (Some(mode), true) = (service.get("network_mode"), service.get("networks").is_some()) {
        refuse(mode, "network_mode", "`network_mode` and `networks` exclude each other", "remove one of them");
    }
    let resources = service.get("deploy").and_then(|deploy| deploy.get("resources"));
    for (key, group, name) in [
        ("mem_limit", "limits", "memory"),
        ("cpus", "limits", "cpus"),
        ("pids_limit", "limits", "pids"),
        ("mem_reservation", "reservations", "memory"),
    ] {
        let other = resources.and_then(|resources| resources.get(group)).and_then(|group| group.get(name));
        if let (Some(own), Some(other)) = (service.get(key), other)
            && own.to_json() != other.to_json()
        {
            let reason = format!("`{key}` and `deploy.resources.{group}.{name}` say different numbers");
            refuse(own, key, &reason, "remove one of them");
        }
    }
    if let Some(test) = service.get("healthcheck").and_then(|check| check.get("test")) {
        let known = matches!(test.list().first().and_then(Node::text), Some("NONE" | "CMD" | "CMD-SHELL") | None);
        if !known {
            let reason = "a list must begin with `CMD`, `CMD-SHELL` or `NONE`";
            problems.add(&test.mark, &format!("{path}.healthcheck.test"), ProblemKind::BadValue, reason, "begin the list with `CMD`");
        }
    }
}

/// Services that wait for themselves.
fn cycles(services: &Map, problems: &mut Problems) {
    let edges: BTreeMap<&str, Vec<&str>> = services
        .iter()
        .map(|(name, service)| (name.as_str(), service.entries("depends_on").map(|(other, _)| other.as_str()).collect()))
        .collect();
    let mut done: BTreeSet<&str> = BTreeSet::new();
    for start in edges.keys() {
        let mut trail: Vec<(&str, usize)> = vec![(start, 0)];
        while let Some((name, next)) = trail.last_mut() {
            let Some(other) = edges.get(name).and_then(|others| others.get(*next)).copied() else {
                done.insert(name);
                trail.pop();
                continue;
            };
            *next += 1;
            if let Some(at) = trail.iter().position(|(known, _)| *known == other) {
                let told: Vec<&str> = trail.iter().skip(at).map(|(name, _)| *name).chain([other]).collect();
                let reason = format!("services wait for each other: {}", told.join(" -> "));
                if let Some(service) = services.get(other) {
                    let place = service.get("depends_on").map_or(service.place(), Node::place);
                    let remedy = "take one of these dependencies out";
                    problems.add(place, &format!("services.{other}.depends_on"), ProblemKind::Cycle, reason, remedy);
                }
            } else if !done.contains(other) && edges.contains_key(other) {
                trail.push((other, 0));
            }
        }
    }
}

/// A port of the host that some service publishes.
struct Taken {
    address: Option<IpAddr>,
    ports: (u16, u16),
    protocol: String,
    service: String,
}

/// What Compose finds out only when it starts containers: ports and names that are taken twice. Several containers of one service are not looked
/// at here: behind a gateway they share its port and its name.
pub(super) fn check_host(model: &Node, problems: &mut Problems) {
    let mut taken: Vec<Taken> = Vec::new();
    let mut containers: BTreeMap<String, String> = BTreeMap::new();
    for (name, service) in model.entries("services") {
        if let Some(container) = service.get("container_name") {
            let path = format!("services.{name}.container_name");
            let text = container.text().unwrap_or_default();
            valid_name::<ContainerName>(text, &container.mark, &path, problems);
            if let Some(other) = containers.insert(text.to_owned(), name.clone()) {
                let reason = format!("the service `{other}` has the same container name");
                problems.add(container.place(), &path, ProblemKind::Conflict, reason, "give each service another name");
            }
        }
        for (index, port) in service.get_list("ports").iter().enumerate() {
            let path = format!("services.{name}.ports[{index}]");
            let Some(published) = port.get("published") else { continue };
            let text = published.scalar_text().unwrap_or_default();
            let Ok((first, last)) = range(&text) else { continue };
            if first == 0 {
                continue;
            }
            let address = port.get_text("host_ip").and_then(|text| text.parse::<IpAddr>().ok());
            let protocol = port.get_text("protocol").unwrap_or("tcp").to_owned();
            let clash = taken.iter().find(|other| {
                // A range leaves room; only two single ports must collide.
                let same_port = other.ports == (first, first) && first == last;
                same_port && other.protocol == protocol && addresses_meet(other.address, address)
            });
            if let Some(other) = clash {
                let reason = format!("the host's port {text}/{protocol} is already published by the service `{}`", other.service);
                problems.add(&port.mark, &path, ProblemKind::Conflict, reason, "publish another port of the host");
            }
            taken.push(Taken { address, ports: (first, last), protocol, service: name.clone() });
        }
    }
}

/// Whether two listeners on one port would be in each other's way. No address is every address.
fn addresses_meet(one: Option<IpAddr>, other: Option<IpAddr>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one == other || (one.is_ipv4() == other.is_ipv4() && (one.is_unspecified() || other.is_unspecified())),
        (None, _) | (_, None) => true,
    }
}

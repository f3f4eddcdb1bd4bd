//! Where a host name of the project's networks is reached from this host.
//!
//! A port that is published goes first: it works everywhere, also where the engine runs without root rights. Else it is the
//! address of the container, which a Linux host reaches directly.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use kaleem_core::config::Project;
use kaleem_core::definition::NetworkMode;
use kaleem_core::runtime::{Instance, InstanceStatus};

#[derive(Clone, Debug, Default)]
struct Place {
    instances: usize,
    addresses: Vec<IpAddr>,
    ports: BTreeMap<u16, SocketAddr>,
}

/// The names of a project and where they are.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    places: BTreeMap<String, Place>,
}

/// An address as this host can use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rewritten {
    pub(super) url: String,
    /// How many hosts are in it.
    pub(super) hosts: usize,
    /// Names of the project that nothing answers for now.
    pub(super) down: Vec<String>,
    /// Whether a name was replaced.
    pub(super) changed: bool,
}

impl Reach {
    /// The places of what runs now.
    pub fn new(project: &Project, instances: &[Instance]) -> Self {
        let mut places: BTreeMap<String, Place> = BTreeMap::new();
        for service in project.services.values() {
            let mut place = Place::default();
            let up = instances.iter().filter(|instance| {
                instance.service == service.name
                    && instance.number > 0
                    && !instance.oneoff
                    && instance.state.status == InstanceStatus::Running
            });
            for instance in up {
                place.instances += 1;
                place.addresses.extend(instance.addresses.values().filter_map(|address| address.parse::<IpAddr>().ok()));
                for port in &instance.ports {
                    let ip = port.host_ip.filter(|ip| !ip.is_unspecified()).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
                    if let Some((published, _)) = port.host_ports {
                        place.ports.insert(port.container.port, SocketAddr::new(ip, published));
                    }
                }
            }
            let mut names = vec![service.name.to_string()];
            names.extend(service.container_name.as_ref().map(ToString::to_string));
            names.extend(service.definition.hostname.clone());
            match &service.definition.network {
                NetworkMode::Networks(networks) => names.extend(networks.iter().flat_map(|network| network.aliases.clone())),
                // It listens on the host itself.
                NetworkMode::Host => place.addresses.push(IpAddr::V4(Ipv4Addr::LOCALHOST)),
                _ => {}
            }
            for name in names {
                places.entry(name).or_insert_with(|| place.clone());
            }
        }
        Self { places }
    }

    /// Where a port of a name is; `None` for a name that is not the project's.
    fn find(&self, host: &str, port: u16) -> Option<Option<SocketAddr>> {
        let place = self.places.get(host)?;
        let direct = || place.addresses.first().map(|address| SocketAddr::new(*address, port));
        Some(place.ports.get(&port).copied().or_else(direct))
    }

    /// Where this host reaches what says of itself where it is: `host:port` by `host:port`. Only published ports are named;
    /// the address of a container is good as it is.
    pub(super) fn published(&self) -> BTreeMap<String, String> {
        let mut published = BTreeMap::new();
        // Of several instances nobody knows which port is whose.
        for (name, place) in self.places.iter().filter(|(_, place)| place.instances == 1) {
            let names = place.addresses.iter().map(ToString::to_string).chain([name.clone()]);
            for name in names {
                published.extend(place.ports.iter().map(|(port, at)| (format!("{name}:{port}"), at.to_string())));
            }
        }
        published
    }

    /// An address (`scheme://user:password@host:port,host:port/path?query`) with the project's names replaced.
    pub(super) fn rewrite(&self, url: &str, default_port: u16) -> Option<Rewritten> {
        let (scheme, rest) = url.split_once("://")?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at(end);
        let (login, hosts) = authority.rsplit_once('@').map_or((None, authority), |(login, hosts)| (Some(login), hosts));
        let (mut written, mut down, mut changed) = (Vec::new(), Vec::new(), false);
        for host in hosts.split(',') {
            let (name, port) = match host.rsplit_once(':') {
                Some((name, port)) if !port.ends_with(']') => (name, port.parse().ok()?),
                _ => (host, default_port),
            };
            match self.find(name, port) {
                Some(Some(place)) => {
                    changed = true;
                    written.push(place.to_string());
                }
                Some(None) => {
                    down.push(name.to_owned());
                    written.push(host.to_owned());
                }
                None => written.push(host.to_owned()),
            }
        }
        let login = login.map(|login| format!("{login}@")).unwrap_or_default();
        Some(Rewritten { url: format!("{scheme}://{login}{}{tail}", written.join(",")), hosts: written.len(), down, changed })
    }
}

/// The parts of an address with one host.
pub(super) struct Parts {
    pub(super) scheme: String,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    pub(super) host: String,
    pub(super) port: u16,
}

/// Takes an address with one host apart.
pub(super) fn parts(url: &str, default_port: u16) -> Option<Parts> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?']).next()?;
    let (login, place) = authority.rsplit_once('@').map_or((None, authority), |(login, place)| (Some(login), place));
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (place, default_port),
    };
    let (user, password) = match login {
        Some(login) => match login.split_once(':') {
            Some((user, password)) => (Some(decode(user)), Some(decode(password))),
            None => (Some(decode(login)), None),
        },
        None => (None, None),
    };
    let host = host.trim_matches(['[', ']']).to_owned();
    Some(Parts { scheme: scheme.to_owned(), user: user.filter(|user| !user.is_empty()), password, host, port })
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let coded = (*first == b'%').then(|| tail.get(..2).and_then(|two| std::str::from_utf8(two).ok())).flatten();
        match coded.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach() -> Reach {
        let place = |address: [u8; 4]| Place { instances: 1, addresses: vec![IpAddr::from(address)], ports: BTreeMap::new() };
        let mut published = place([172, 18, 0, 3]);
        published.ports.insert(6379, SocketAddr::from(([127, 0, 0, 1], 16379)));
        let places = [("mongo", place([172, 18, 0, 2])), ("redis", published), ("away", Place::default())];
        Reach { places: places.into_iter().map(|(name, place)| (name.to_owned(), place)).collect() }
    }

    #[test]
    fn names_of_the_project_are_replaced_and_all_else_stays() {
        for (why, url, wanted) in [
            ("address of the container", "mongodb://u:p%40@mongo:27017/shop?x=1", "mongodb://u:p%40@172.18.0.2:27017/shop?x=1"),
            ("its usual port", "mongodb://mongo/", "mongodb://172.18.0.2:27017/"),
            ("a published port goes first", "mongodb://redis:6379", "mongodb://127.0.0.1:16379"),
            ("several", "mongodb://mongo:1,elsewhere:2/?replicaSet=r", "mongodb://172.18.0.2:1,elsewhere:2/?replicaSet=r"),
            ("no name of the project", "mongodb://db.example/", "mongodb://db.example/"),
            ("an address of version 6", "mongodb://[::1]:5/", "mongodb://[::1]:5/"),
        ] {
            assert_eq!(reach().rewrite(url, 27017).unwrap().url, wanted, "{why}");
        }
        assert_eq!(reach().rewrite("mongodb://away", 27017).unwrap().down, ["away"]);
        assert!(reach().rewrite("no address", 1).is_none());
    }

    #[test]
    fn what_says_where_it_is_itself_is_reached_by_its_published_port() {
        let wanted = [("172.18.0.3:6379", "127.0.0.1:16379"), ("redis:6379", "127.0.0.1:16379")];
        assert_eq!(reach().published(), wanted.map(|(said, at)| (said.to_owned(), at.to_owned())).into());
    }

    #[test]
    fn an_address_comes_apart_as_it_was_put_together() {
        let parts = parts("redis://:s%3Acret@cache:6380/2", 6379).unwrap();
        assert_eq!((parts.user, parts.password.as_deref(), parts.host.as_str(), parts.port), (None, Some("s:cret"), "cache", 6380));
    }
}

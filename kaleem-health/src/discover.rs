//! Probes without configuration: a compose file says by images, variables and ports what its services depend on.
//!
//! Pure: nothing is connected to, and no environment but the project's is read.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use kaleem_core::config::healthcheck::asked_over_http;
use kaleem_core::config::{Project, Service, role};
use kaleem_core::definition::{NetworkMode, Protocol};
use kaleem_core::health::DependencyKind as Kind;
use kaleem_core::names::ServiceName;
use kaleem_core::secret::Secret;

use crate::settings::{
    CommandSettings, HttpSettings, MongodbSettings, ProbeSettings, QdrantSettings, RabbitmqSettings, RedisSettings, SettingsError,
    TcpSettings,
};

mod address;
mod refine;

use address::{Address, encode};

/// A probe that was found.
#[derive(Clone, Debug)]
pub struct Discovered {
    /// The service that is asked, or, for something outside the project, the one that needs it.
    pub service: ServiceName,
    /// What the probe is called, such as `redis`; unique within the service.
    pub name: String,
    /// What it asks; [`Discovered::probe`] makes a probe of it. An error where `kaleem.toml` does not say enough.
    pub settings: Result<ProbeSettings, SettingsError>,
    /// Where it was found.
    pub found: Found,
}

/// Where a probe was found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Found {
    /// A variable of a service.
    Variable {
        /// The service.
        service: ServiceName,
        /// The variable.
        name: String,
    },
    /// The image of the service.
    Image {
        /// Its last name, such as `redis`.
        name: String,
    },
    /// `[services.X.health]` in `kaleem.toml`.
    Settings,
    /// The container's own health check asks this address.
    Healthcheck,
    /// A port of the service.
    Port,
}

impl fmt::Display for Found {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable { service, name } => write!(out, "`{name}` of `{service}`"),
            Self::Image { name } => write!(out, "the image `{name}`"),
            Self::Settings => out.write_str("kaleem.toml"),
            Self::Healthcheck => out.write_str("its health check"),
            Self::Port => out.write_str("its port"),
        }
    }
}

/// Finds the probes of a project, in order of services: one of a kind for each service and each server outside, as `[probes]`
/// of `kaleem.toml` refines them.
pub fn discover(project: &Project) -> Vec<Discovered> {
    let names = service_names(project);
    let mut found: BTreeMap<(ServiceName, Kind, String), Discovered> = BTreeMap::new();
    for service in project.services.values() {
        for (variable, address) in address::of_variables(&variables(service)) {
            let target = address.hosts.iter().find_map(|host| names.get(host));
            let (owner, place) =
                target.map_or_else(|| (service.name.clone(), address.hosts.join(",")), |target| (target.clone(), String::new()));
            let settings = settings(project, target, &address);
            let name = if place.is_empty() {
                address.kind.name().to_owned()
            } else {
                format!("{}-{}", address.kind.name(), address.hosts.first().map_or("", String::as_str))
            };
            let origin = Found::Variable { service: service.name.clone(), name: variable };
            found.entry((owner.clone(), address.kind, place)).or_insert(Discovered {
                service: owner,
                name,
                settings: Ok(settings),
                found: origin,
            });
        }
    }
    for service in project.services.values() {
        let Some((kind, image)) = kind_of(project, service) else { continue };
        let key = (service.name.clone(), kind, String::new());
        let address = own_address(service, kind);
        found.entry(key).or_insert_with(|| Discovered {
            service: service.name.clone(),
            name: kind.name().to_owned(),
            settings: Ok(settings(project, Some(&service.name), &address)),
            found: Found::Image { name: image },
        });
    }
    let stores: BTreeSet<ServiceName> =
        found.keys().filter(|(_, _, place)| place.is_empty()).map(|(service, ..)| service.clone()).collect();
    let mut all: Vec<Discovered> = found.into_values().collect();
    all.extend(project.services.values().filter(|service| !stores.contains(&service.name)).filter_map(|service| web(project, service)));
    refine::refined(project, all)
}

/// Every name under which a service is known in the project's networks.
pub(crate) fn service_names(project: &Project) -> BTreeMap<String, ServiceName> {
    let mut names = BTreeMap::new();
    for service in project.services.values() {
        let mut add = |name: &str| names.insert(name.to_owned(), service.name.clone());
        add(service.name.as_str());
        if let Some(name) = &service.container_name {
            add(name.as_str());
        }
        if let Some(name) = &service.definition.hostname {
            add(name);
        }
        if let NetworkMode::Networks(networks) = &service.definition.network {
            for alias in networks.iter().flat_map(|network| &network.aliases) {
                add(alias);
            }
        }
    }
    names
}

fn variables(service: &Service) -> BTreeMap<String, String> {
    let set = service.definition.environment.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?)));
    set.filter(|(_, value)| !value.is_empty()).collect()
}

fn kind_of(project: &Project, service: &Service) -> Option<(Kind, String)> {
    let image = service.image.as_ref()?;
    Some((role::dependency(project, service)?, image.base_name().to_owned()))
}

/// The address of a server by what its own image is told.
fn own_address(service: &Service, kind: Kind) -> Address {
    let variables = variables(service);
    let get = |names: &[&str]| names.iter().find_map(|name| variables.get(*name)).cloned();
    let host = service.name.as_str().to_owned();
    let login = |user: Option<String>, password: Option<String>| match (user, password) {
        (Some(user), Some(password)) => format!("{}:{}@", encode(&user), encode(&password)),
        (None, Some(password)) => format!(":{}@", encode(&password)),
        _ => String::new(),
    };
    let (url, key) = match kind {
        Kind::Redis => {
            let password = flag(service, "--requirepass").or_else(|| get(&["REDIS_PASSWORD", "VALKEY_PASSWORD"]));
            (format!("redis://{}{host}:6379", login(None, password)), None)
        }
        Kind::Mongodb => {
            let user = get(&["MONGO_INITDB_ROOT_USERNAME", "MONGODB_ROOT_USER"]);
            let password = get(&["MONGO_INITDB_ROOT_PASSWORD", "MONGODB_ROOT_PASSWORD"]);
            let source = if password.is_some() { "?authSource=admin" } else { "" };
            (format!("mongodb://{}{host}:27017/{source}", login(user, password)), None)
        }
        Kind::Rabbitmq => {
            let user = get(&["RABBITMQ_DEFAULT_USER"]).unwrap_or_else(|| "guest".to_owned());
            let password = get(&["RABBITMQ_DEFAULT_PASS"]).unwrap_or_else(|| "guest".to_owned());
            let vhost = get(&["RABBITMQ_DEFAULT_VHOST"]).unwrap_or_else(|| "/".to_owned());
            (format!("amqp://{}{host}:5672/{}", login(Some(user), Some(password)), encode(&vhost)), None)
        }
        Kind::Qdrant => (format!("http://{host}:6333"), get(&["QDRANT__SERVICE__READ_ONLY_API_KEY", "QDRANT__SERVICE__API_KEY"])),
    };
    Address { kind, url, key, grpc: None, hosts: vec![host] }
}

/// The value after a flag of the command.
fn flag(service: &Service, wanted: &str) -> Option<String> {
    let mut words = service.definition.command.iter().flatten();
    words.find(|word| *word == wanted)?;
    words.next().cloned()
}

fn settings(project: &Project, target: Option<&ServiceName>, address: &Address) -> ProbeSettings {
    let url = Secret::new(address.url.clone());
    match address.kind {
        Kind::Redis => ProbeSettings::Redis(RedisSettings::single(url)),
        Kind::Mongodb => ProbeSettings::Mongodb(MongodbSettings::standard(url)),
        Kind::Qdrant => {
            let standard = QdrantSettings::standard(url, address.key.clone().map(Secret::new));
            ProbeSettings::Qdrant(QdrantSettings { grpc: address.grpc.clone(), ..standard })
        }
        Kind::Rabbitmq => {
            let service = target.and_then(|name| project.services.get(name));
            // The image says by its tag whether the plugin is in it.
            let managed = service
                .filter(|service| service.image.as_ref().and_then(|image| image.tag()).is_some_and(|tag| tag.contains("management")));
            let management = managed.map(|service| format!("http://{}:15672", service.name));
            ProbeSettings::Rabbitmq(RabbitmqSettings { management, ..RabbitmqSettings::amqp(url) })
        }
    }
}

/// An application: its settings, its health check, or its port.
fn web(project: &Project, service: &Service) -> Option<Discovered> {
    let made = |name: &str, settings, found| {
        Some(Discovered { service: service.name.clone(), name: name.to_owned(), settings: Ok(settings), found })
    };
    let health = project.settings.services.get(&service.name).and_then(|settings| settings.health.as_ref());
    if health.is_some_and(|health| health.none == Some(true)) {
        return None;
    }
    let port = first_port(service);
    let http = |port: u16, path: &str| ProbeSettings::Http(HttpSettings::api(Secret::new(format!("http://{}:{port}{path}", service.name))));
    if let Some(health) = health {
        if let (Some(path), Some(port)) = (&health.http, health.port.or(port)) {
            return made("http", http(port, path), Found::Settings);
        }
        if let Some(port) = health.tcp {
            return made("tcp", ProbeSettings::Tcp(TcpSettings { host: service.name.to_string(), port }), Found::Settings);
        }
        if let Some(command) = &health.command {
            let command = CommandSettings::standard(service.name.clone(), command.clone());
            return made("command", ProbeSettings::Command(command), Found::Settings);
        }
    }
    if let Some((port, path)) = asked_over_http(service) {
        return made("http", http(port, &path), Found::Healthcheck);
    }
    let port = port?;
    made("tcp", ProbeSettings::Tcp(TcpSettings { host: service.name.to_string(), port }), Found::Port)
}

fn first_port(service: &Service) -> Option<u16> {
    let published = service.definition.ports.iter().map(|binding| binding.container);
    published.chain(service.definition.expose.iter().copied()).find(|port| port.protocol == Protocol::Tcp).map(|port| port.port)
}

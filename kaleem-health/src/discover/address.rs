//! Addresses of servers in variables: whole ones, and those in pieces (`REDIS_HOST`, `REDIS_PORT`, …).

use std::collections::BTreeMap;

use kaleem_core::health::DependencyKind as Kind;

/// An address with all that is needed to ask. Never shown.
#[derive(Clone)]
pub(super) struct Address {
    pub kind: Kind,
    pub url: String,
    /// API key of Qdrant.
    pub key: Option<String>,
    /// Address of the gRPC API of Qdrant, where clients are given that.
    pub grpc: Option<String>,
    pub hosts: Vec<String>,
}

/// Beginnings of variables in pieces, what speaks there, and its port.
const PIECES: [(&str, Kind, &str); 6] = [
    ("REDIS", Kind::Redis, "6379"),
    ("MONGO", Kind::Mongodb, "27017"),
    ("MONGODB", Kind::Mongodb, "27017"),
    ("RABBITMQ", Kind::Rabbitmq, "5672"),
    ("AMQP", Kind::Rabbitmq, "5672"),
    ("QDRANT", Kind::Qdrant, "6333"),
];

/// Name of the variable and address, whole addresses first.
pub(super) fn of_variables(variables: &BTreeMap<String, String>) -> Vec<(String, Address)> {
    let mut found: Vec<(String, Address)> =
        variables.iter().filter_map(|(name, value)| Some((name.clone(), whole(name, value, variables)?))).collect();
    for (prefix, kind, port) in PIECES {
        let get = |part: &str| variables.get(&format!("{prefix}_{part}")).map(String::as_str);
        let Some(host) = get("HOST").or_else(|| get("HOSTNAME")).filter(|host| is_host(host)) else { continue };
        let port = get("PORT").filter(|port| port.parse::<u16>().is_ok()).unwrap_or(port);
        let user = get("USER").or_else(|| get("USERNAME")).map(encode);
        let password = get("PASSWORD").or_else(|| get("PASS")).map(encode);
        let login = match (user, password) {
            (Some(user), Some(password)) => format!("{user}:{password}@"),
            (None, Some(password)) if kind == Kind::Redis => format!(":{password}@"),
            _ => String::new(),
        };
        let url = match kind {
            Kind::Redis => format!("redis://{login}{host}:{port}"),
            Kind::Mongodb => format!("mongodb://{login}{host}:{port}/"),
            Kind::Rabbitmq => format!("amqp://{login}{host}:{port}/{}", encode(get("VHOST").unwrap_or("/"))),
            // Clients of Qdrant are often given its gRPC port; REST is one below.
            Kind::Qdrant => format!("http://{host}:{}", if port == "6334" { "6333" } else { port }),
        };
        let key = get("API_KEY").map(str::to_owned).filter(|_| kind == Kind::Qdrant);
        let grpc = match (kind, port, get("GRPC_PORT").filter(|port| port.parse::<u16>().is_ok())) {
            (Kind::Qdrant, _, Some(port)) | (Kind::Qdrant, port @ "6334", None) => Some(format!("http://{host}:{port}")),
            _ => None,
        };
        let name = if get("HOST").is_some() { format!("{prefix}_HOST") } else { format!("{prefix}_HOSTNAME") };
        found.push((name, Address { kind, url, key, grpc, hosts: vec![host.to_owned()] }));
    }
    found
}

fn whole(name: &str, value: &str, variables: &BTreeMap<String, String>) -> Option<Address> {
    let (scheme, rest) = value.trim().split_once("://")?;
    let kind = match scheme {
        "redis" | "rediss" => Kind::Redis,
        "mongodb" => Kind::Mongodb,
        "amqp" | "amqps" => Kind::Rabbitmq,
        "http" | "https" if name.to_ascii_uppercase().contains("QDRANT") => Kind::Qdrant,
        _ => return None,
    };
    let authority = rest.split(['/', '?']).next()?;
    let places = authority.rsplit_once('@').map_or(authority, |(_, places)| places);
    let hosts: Vec<String> = places.split(',').map(|place| place.rsplit_once(':').map_or(place, |(host, _)| host).to_owned()).collect();
    if !hosts.iter().all(|host| is_host(host)) {
        return None;
    }
    let key = variables.get("QDRANT_API_KEY").cloned().filter(|_| kind == Kind::Qdrant);
    let url = if kind == Kind::Qdrant { value.trim().replacen(":6334", ":6333", 1) } else { value.trim().to_owned() };
    let grpc = Some(value.trim().to_owned()).filter(|url| kind == Kind::Qdrant && url.contains(":6334"));
    Some(Address { kind, url, key, grpc, hosts })
}

/// A name or an address; what cannot be one was written for something else.
fn is_host(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']'))
}

/// Text as it may stand in a part of an address.
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

//! `[probes]` of `kaleem.toml` on top of what was found: refined, added, switched off.

use std::time::Duration;

use kaleem_core::config::Project;
use kaleem_core::config::settings::probes::{HttpVersionName, TopologyName};
use kaleem_core::config::settings::{ProbeKind, ProbeOptions};
use kaleem_core::names::ServiceName;
use kaleem_core::secret::Secret;

use super::address::encode;
use super::{Discovered, Found};
use crate::settings::{
    CertificateSettings, ClientCertificate, CommandSettings, ContainerSettings, DiskSettings, HttpSettings, HttpVersion, MongodbSettings,
    ProbeSettings, QdrantSettings, QueueRule, RabbitmqSettings, RedisSettings, RedisTopology, SettingsError, SpaSettings, TcpSettings,
    TlsSettings,
};

/// What a limit is that was not written beside one that was: never reached.
const NEVER: Duration = Duration::MAX;

pub(super) fn refined(project: &Project, mut found: Vec<Discovered>) -> Vec<Discovered> {
    for (service, probes) in &project.settings.probes {
        for (name, options) in probes {
            let at = found.iter().position(|one| one.service == *service && one.name == *name);
            let before = at.map(|at| found.remove(at));
            if options.enabled == Some(false) {
                continue;
            }
            // The loader refused a probe whose kind is not known.
            let Some(kind) = options.kind_of(name) else { continue };
            let known = before.as_ref().and_then(|before| before.settings.as_ref().ok());
            let has_address = options.url.is_some() || options.url_env.is_some() || options.host.is_some();
            let origin = before.as_ref().filter(|_| !has_address).map_or(Found::Settings, |before| before.found.clone());
            let settings = if options.read.missing.is_empty() {
                settings(project, kind, options, known, service)
            } else {
                Err(SettingsError::NotRead { what: options.read.missing.join("; ") })
            };
            found.push(Discovered { service: service.clone(), name: name.clone(), settings, found: origin });
        }
    }
    found.sort_by(|one, other| (&one.service, &one.name).cmp(&(&other.service, &other.name)));
    found
}

fn settings(
    project: &Project,
    kind: ProbeKind,
    options: &ProbeOptions,
    before: Option<&ProbeSettings>,
    service: &ServiceName,
) -> Result<ProbeSettings, SettingsError> {
    Ok(match kind {
        ProbeKind::Http | ProbeKind::Api => ProbeSettings::Http(http(kind, options, before)?),
        ProbeKind::Spa => {
            let before = match before {
                Some(ProbeSettings::Spa(before)) => Some(before.clone()),
                _ => None,
            };
            let url = address("spa", options, before.as_ref().map(|before| &before.url))?;
            let root_id = options.root_id.clone().or_else(|| before.as_ref().and_then(|before| before.root_id.clone()));
            ProbeSettings::Spa(SpaSettings { url, root_id, tls: tls(options, before.map(|before| before.tls)) })
        }
        ProbeKind::Tcp => {
            let before = match before {
                Some(ProbeSettings::Tcp(before)) => Some(before.clone()),
                _ => None,
            };
            let host = options.host.clone().or_else(|| before.as_ref().map(|before| before.host.clone()));
            let port = options.port.or_else(|| before.as_ref().map(|before| before.port)).ok_or(SettingsError::NoPort { kind: "tcp" })?;
            ProbeSettings::Tcp(TcpSettings { host: host.unwrap_or_else(|| service.to_string()), port })
        }
        ProbeKind::Redis => ProbeSettings::Redis(redis(options, before)?),
        ProbeKind::Rabbitmq => ProbeSettings::Rabbitmq(rabbitmq(options, before)?),
        ProbeKind::Mongodb => ProbeSettings::Mongodb(mongodb(options, before)?),
        ProbeKind::Qdrant => ProbeSettings::Qdrant(qdrant(options, before)?),
        ProbeKind::Disk => {
            let path = options.path.clone().ok_or(SettingsError::Address { kind: "disk", reason: "it has no `path`" })?;
            let standard = DiskSettings::standard(path);
            ProbeSettings::Disk(DiskSettings {
                used_percent: percents(options.used_warn, options.used_fail, standard.used_percent),
                full_within: options.full_within.map_or(standard.full_within, |text| text.0),
                ..standard
            })
        }
        ProbeKind::Certificate => {
            let host = options.host.clone().unwrap_or_else(|| service.to_string());
            ProbeSettings::Certificate(CertificateSettings { host, port: options.port.unwrap_or(443), tls: tls(options, None) })
        }
        ProbeKind::Container => {
            let replicas = project.services.get(service).map_or(1, |service| service.replicas);
            let standard = ContainerSettings::standard(service.clone(), replicas);
            let (warn, fail) = (options.restarts_warn.map(u64::from), options.restarts_fail.map(u64::from));
            let restarts = (warn.unwrap_or(standard.restarts.0), fail.unwrap_or(standard.restarts.1));
            ProbeSettings::Container(ContainerSettings { restarts, ..standard })
        }
        ProbeKind::Command => {
            let standard = CommandSettings::standard(service.clone(), options.command.clone().unwrap_or_default());
            ProbeSettings::Command(CommandSettings {
                exit_code: options.exit_code.unwrap_or(standard.exit_code),
                exit_warn: options.exit_warn,
                contains: options.contains.clone(),
                pattern: options.matches.clone(),
                json: options.json.clone(),
                ..standard
            })
        }
    })
}

fn http(kind: ProbeKind, options: &ProbeOptions, before: Option<&ProbeSettings>) -> Result<HttpSettings, SettingsError> {
    let before = match before {
        Some(ProbeSettings::Http(before)) => Some(before.clone()),
        _ => None,
    };
    let url = address("http", options, before.as_ref().map(|before| &before.url))?;
    let mut settings = match (kind, before) {
        (ProbeKind::Api, None) => HttpSettings::api(url),
        (_, None) => HttpSettings::get(url),
        (ProbeKind::Api, Some(before)) => HttpSettings { url, api: true, ..before },
        // A probe that was found looks for parts in the body; one whose kind is written does what is written.
        (_, Some(before)) => HttpSettings { url, api: before.api && options.kind.is_none(), ..before },
    };
    settings.tls = tls(options, Some(settings.tls));
    settings.headers.extend(options.headers.iter().map(|(name, value)| (name.clone(), Secret::new(value.clone()))));
    settings.headers.extend(options.read.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
    if let Some(status) = options.status {
        settings.statuses = (status, status);
    }
    settings.expected_headers.extend(options.expect_headers.iter().map(|(name, text)| (name.clone(), text.clone())));
    settings.contains = options.contains.clone().or(settings.contains);
    settings.pattern = options.matches.clone().or(settings.pattern);
    settings.json.extend(options.json.iter().cloned());
    if options.latency_warn.is_some() || options.latency_fail.is_some() {
        let (warn, fail) = (options.latency_warn.map(|text| text.0), options.latency_fail.map(|text| text.0));
        settings.latency = Some((warn.or(fail).unwrap_or(NEVER), fail.unwrap_or(NEVER)));
    }
    settings.redirects = options.redirects.unwrap_or(settings.redirects);
    settings.version = match options.version {
        Some(HttpVersionName::One) => HttpVersion::One,
        Some(HttpVersionName::Two) => HttpVersion::Two,
        None => settings.version,
    };
    Ok(settings)
}

fn redis(options: &ProbeOptions, before: Option<&ProbeSettings>) -> Result<RedisSettings, SettingsError> {
    let before = match before {
        Some(ProbeSettings::Redis(before)) => Some(before.clone()),
        _ => None,
    };
    let url = address("redis", options, before.as_ref().map(|before| &before.url))?;
    let before = before.unwrap_or_else(|| RedisSettings::single(url.clone()));
    let topology = match (options.topology, &options.master) {
        (Some(TopologyName::Cluster), _) => RedisTopology::Cluster,
        (Some(TopologyName::Sentinel), Some(master)) => RedisTopology::Sentinel { master: master.clone() },
        (Some(TopologyName::Single), _) => RedisTopology::Single,
        _ => before.topology,
    };
    let mut limits = before.limits;
    (limits.memory_warn_percent, limits.memory_fail_percent) =
        percents(options.memory_warn, options.memory_fail, (limits.memory_warn_percent, limits.memory_fail_percent));
    limits.lag_warn = options.lag_warn.map_or(limits.lag_warn, |text| text.0);
    limits.lag_fail = options.lag_fail.map_or(limits.lag_fail, |text| text.0);
    limits.least_replicas = options.replicas.unwrap_or(limits.least_replicas);
    let tls = tls(options, Some(before.tls));
    Ok(RedisSettings { url, topology, canary: options.canary.unwrap_or(before.canary), limits, tls })
}

fn rabbitmq(options: &ProbeOptions, before: Option<&ProbeSettings>) -> Result<RabbitmqSettings, SettingsError> {
    let before = match before {
        Some(ProbeSettings::Rabbitmq(before)) => Some(before.clone()),
        _ => None,
    };
    let url = address("rabbitmq", options, before.as_ref().map(|before| &before.url))?;
    let before = before.unwrap_or_else(|| RabbitmqSettings::amqp(url.clone()));
    let management = match options.management.as_deref() {
        Some("") => None,
        Some(address) => Some(address.to_owned()),
        None => before.management,
    };
    let written = options.queues.iter().map(|(name, queue)| QueueRule {
        name: name.clone(),
        depth: match (queue.depth_warn, queue.depth_fail) {
            (None, None) => None,
            (warn, fail) => Some((warn.or(fail).unwrap_or(u32::MAX), fail.unwrap_or(u32::MAX))),
        },
        least_consumers: queue.consumers.unwrap_or(0),
        watch_growth: queue.growth.unwrap_or(true),
    });
    let queues = before.queues.into_iter().chain(written).collect();
    Ok(RabbitmqSettings { url, management, queues, canary: options.canary.unwrap_or(before.canary), tls: tls(options, Some(before.tls)) })
}

fn mongodb(options: &ProbeOptions, before: Option<&ProbeSettings>) -> Result<MongodbSettings, SettingsError> {
    let before = match before {
        Some(ProbeSettings::Mongodb(before)) => Some(before.clone()),
        _ => None,
    };
    let url = address("mongodb", options, before.as_ref().map(|before| &before.url))?;
    let before = before.unwrap_or_else(|| MongodbSettings::standard(url.clone()));
    let mut limits = before.limits;
    limits.lag_warn = options.lag_warn.map_or(limits.lag_warn, |text| text.0);
    limits.lag_fail = options.lag_fail.map_or(limits.lag_fail, |text| text.0);
    limits.no_primary = options.no_primary.map_or(limits.no_primary, |text| text.0);
    limits.oplog_window_warn = options.oplog_window.map_or(limits.oplog_window_warn, |text| text.0);
    limits.connections_percent = percents(options.connections_warn, options.connections_fail, limits.connections_percent);
    Ok(MongodbSettings { url, limits, canary: options.canary.unwrap_or(before.canary) })
}

fn qdrant(options: &ProbeOptions, before: Option<&ProbeSettings>) -> Result<QdrantSettings, SettingsError> {
    let before = match before {
        Some(ProbeSettings::Qdrant(before)) => Some(before.clone()),
        _ => None,
    };
    // The password is its API key, which is sent as a header.
    let url = plain_address("qdrant", options, before.as_ref().map(|before| &before.url))?;
    let before = before.unwrap_or_else(|| QdrantSettings::standard(url.clone(), None));
    let grpc = match options.grpc.as_deref() {
        Some("") => None,
        Some(address) => Some(address.to_owned()),
        None => before.grpc,
    };
    let collections = before.collections.into_iter().chain(options.collections.iter().cloned()).collect();
    let api_key = options.read.password.clone().or(before.api_key);
    Ok(QdrantSettings { url, api_key, grpc, collections, tls: tls(options, Some(before.tls)) })
}

fn percents(warn: Option<u16>, fail: Option<u16>, before: (f64, f64)) -> (f64, f64) {
    (warn.map_or(before.0, f64::from), fail.map_or(before.1, f64::from))
}

fn tls(options: &ProbeOptions, before: Option<TlsSettings>) -> TlsSettings {
    let before = before.unwrap_or(TlsSettings::STANDARD);
    let client = match (&options.read.certificate, &options.read.key) {
        (Some(certificate), Some(key)) => Some(ClientCertificate { certificate_pem: certificate.clone(), key_pem: key.clone() }),
        _ => before.client,
    };
    TlsSettings {
        trust_system: options.trust_system.unwrap_or(before.trust_system),
        trusted_pem: options.read.ca.clone().unwrap_or(before.trusted_pem),
        server_name: options.server_name.clone().or(before.server_name),
        client,
    }
}

/// The address that is written, else the one that was found.
fn plain_address(kind: &'static str, options: &ProbeOptions, before: Option<&Secret<String>>) -> Result<Secret<String>, SettingsError> {
    let written = options.read.url.clone().or_else(|| options.url.clone().map(Secret::new));
    written.or_else(|| before.cloned()).ok_or(SettingsError::NoAddress { kind })
}

/// The same with the user and the password that are written.
fn address(kind: &'static str, options: &ProbeOptions, before: Option<&Secret<String>>) -> Result<Secret<String>, SettingsError> {
    let url = plain_address(kind, options, before)?;
    Ok(with_login(&url, options.user.as_deref(), options.read.password.as_ref()))
}

/// Exchanges what stands before the `@`: text, since an address of MongoDB may name many hosts.
fn with_login(url: &Secret<String>, user: Option<&str>, password: Option<&Secret<String>>) -> Secret<String> {
    if user.is_none() && password.is_none() {
        return url.clone();
    }
    let Some((scheme, rest)) = url.expose().split_once("://") else { return url.clone() };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let (login, places) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (old_user, old_password) = login.split_once(':').unwrap_or((login, ""));
    let user = user.map_or_else(|| old_user.to_owned(), encode);
    let password = password.map_or_else(|| old_password.to_owned(), |password| encode(password.expose()));
    let login = if password.is_empty() { user } else { format!("{user}:{password}") };
    Secret::new(format!("{scheme}://{login}@{places}{tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_exchanged_and_nothing_else() {
        let secret = |text: &str| Secret::new(text.to_owned());
        for (url, user, password, wanted) in [
            ("redis://cache:6379/0", None, Some("p@ss"), "redis://:p%40ss@cache:6379/0"),
            ("redis://app:old@cache:6379", None, Some("new"), "redis://app:new@cache:6379"),
            ("mongodb://a:1,b:2/shop?replicaSet=rs0", Some("watch/er"), Some("x"), "mongodb://watch%2Fer:x@a:1,b:2/shop?replicaSet=rs0"),
            ("amqp://app:pw@broker/%2F", Some("kaleem"), None, "amqp://kaleem:pw@broker/%2F"),
            ("https://shop.example/a@b", None, None, "https://shop.example/a@b"),
        ] {
            let made = with_login(&secret(url), user, password.map(secret).as_ref());
            assert_eq!(made.expose(), wanted, "{url}");
        }
    }
}

//! Which stores are backed up, and how each is reached.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kaleem_core::backup::BackupSource;
use kaleem_core::config::settings::backup::{SourceKindName, SourceSettings};
use kaleem_core::names::{ArtifactName, ServiceName};
use kaleem_core::secret::Secret;

use super::databases::Database;
use super::reach::{self, Reach};
use super::{FoundStore, SetUpError, StoreKind, Surroundings, commands, line, variable, volumes};
use crate::source::files::FilesSource;
use crate::source::mongo::{MongoScope, MongoSource};
use crate::source::qdrant::QdrantSource;
use crate::source::rabbitmq::RabbitmqSource;
use crate::source::redis::{RedisAddress, RedisSource};

/// Time a store has for one answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Time a server of vectors has for one answer: it writes a whole snapshot before it gives one.
const SNAPSHOT: Duration = Duration::from_secs(600);

pub(super) fn port(kind: StoreKind) -> u16 {
    match kind {
        StoreKind::Mongodb => 27017,
        StoreKind::Redis => 6379,
        StoreKind::Qdrant => 6333,
        StoreKind::Rabbitmq => 15672,
    }
}

/// A name as artifacts have it: lower case, no dots.
pub(super) fn artifact_name(text: &str) -> Option<ArtifactName> {
    let fold = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c.to_ascii_lowercase() } else { '-' };
    text.chars().map(fold).collect::<String>().trim_matches('-').parse().ok()
}

/// Everything that is backed up: what was found, and what is said.
pub(super) async fn sources(
    around: &Surroundings<'_>,
    reach: &Reach,
    databases: &[(ServiceName, Database)],
    notes: &mut Vec<String>,
) -> Result<Vec<Arc<dyn BackupSource>>, SetUpError> {
    let settings = &around.project.settings.backup;
    let mut sources: BTreeMap<ArtifactName, Arc<dyn BackupSource>> = BTreeMap::new();
    for (name, (found, scope)) in described(around)? {
        let source = of_found(&name, &found, reach, &scope, notes).await?;
        sources.insert(name, source);
    }
    for (service, database) in databases {
        let Some(name) = artifact_name(service.as_str()) else { continue };
        sources.insert(name.clone(), commands::in_container(around, &name, service, database.commands(), notes));
    }
    for (text, said) in &settings.sources {
        // The loader has checked the name.
        let Some(name) = artifact_name(text) else { continue };
        if let Some(source) = of_settings(around, &name, said, notes).await? {
            sources.insert(name, source);
        }
    }
    Ok(sources.into_values().collect())
}

/// The stores that speak at an address, as the compose file and `kaleem.toml` describe them, with what of a MongoDB is meant.
pub(super) fn described(around: &Surroundings<'_>) -> Result<BTreeMap<ArtifactName, (FoundStore, MongoScope)>, SetUpError> {
    let settings = &around.project.settings.backup;
    let mut stores = BTreeMap::new();
    for found in &around.found {
        let text = found.service.as_ref().map_or(found.name.as_str(), |service| service.as_str());
        let Some(name) = artifact_name(text) else { continue };
        let said = settings.sources.contains_key(name.as_str());
        if !said && !settings.leave_out.iter().any(|out| out == name.as_str()) {
            stores.insert(name, (found.clone(), MongoScope::everything()));
        }
    }
    for (text, said) in &settings.sources {
        let Some(name) = artifact_name(text) else { continue };
        if let Some(found) = store_of_settings(around, &name, said)? {
            let scope = MongoScope {
                databases: said.databases.clone(),
                users: said.users,
                oplog: said.oplog,
                one_moment: said.one_moment.unwrap_or(true),
            };
            stores.insert(name, (found, scope));
        }
    }
    Ok(stores)
}

async fn of_found(
    name: &ArtifactName,
    found: &FoundStore,
    reach: &Reach,
    scope: &MongoScope,
    notes: &mut Vec<String>,
) -> Result<Arc<dyn BackupSource>, SetUpError> {
    let unusable = || SetUpError::Address { name: name.clone(), reason: "it cannot be read".to_owned() };
    let address = match found.kind {
        StoreKind::Rabbitmq => management(found).ok_or_else(unusable)?,
        _ => found.url.expose().clone(),
    };
    let rewritten = reach.rewrite(&address, port(found.kind)).ok_or_else(unusable)?;
    for down in &rewritten.down {
        notes.push(format!("`{name}` cannot be reached now: no container of `{down}` is running"));
    }
    let mut url = rewritten.url;
    if found.kind == StoreKind::Mongodb && rewritten.changed && rewritten.hosts == 1 && !url.contains("directConnection=") {
        // A replica set tells its clients names that only its own networks know.
        url = with_query(&url, "directConnection=true");
    }
    let here = FoundStore { url: Secret::new(url), ..found.clone() };
    if found.kind == StoreKind::Redis {
        return Ok(Arc::new(redis(name, &here)?.reached_at(reach.published())));
    }
    of_address(name, &here, scope).await
}

/// The management API of a broker, with the user and the password of its AMQP address: those of a new broker where it names none.
pub(super) fn management(found: &FoundStore) -> Option<String> {
    let url = found.url.expose();
    let login = |url: &str| Some(url.split_once("://")?.1.split(['/', '?']).next()?.rsplit_once('@')?.0.to_owned());
    if url.starts_with("http") && (login(url).is_some() || found.management.is_none()) {
        return Some(url.clone());
    }
    let login_of_amqp = login(url).unwrap_or_else(|| "guest:guest".to_owned());
    let at = match &found.management {
        Some(management) if login(management).is_some() => return Some(management.clone()),
        Some(management) => management.clone(),
        None => format!("http://{}:{}", reach::parts(url, port(found.kind))?.host, port(found.kind)),
    };
    let (scheme, place) = at.split_once("://")?;
    Some(format!("{scheme}://{login_of_amqp}@{place}"))
}

fn with_query(url: &str, pair: &str) -> String {
    if url.contains('?') {
        return format!("{url}&{pair}");
    }
    let has_path = url.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
    format!("{url}{}?{pair}", if has_path { "" } else { "/" })
}

/// The store at an address that this host can use.
pub(super) async fn of_address(name: &ArtifactName, found: &FoundStore, scope: &MongoScope) -> Result<Arc<dyn BackupSource>, SetUpError> {
    let unusable = |reason: &str| SetUpError::Address { name: name.clone(), reason: reason.to_owned() };
    match found.kind {
        StoreKind::Mongodb => {
            let source = MongoSource::connect(name.clone(), &found.url, scope.clone()).await;
            Ok(Arc::new(source.map_err(|source| SetUpError::Source { name: name.clone(), source })?))
        }
        StoreKind::Redis => Ok(Arc::new(redis(name, found)?)),
        StoreKind::Qdrant => {
            let (url, in_address) = key_in_address(found.url.expose()).ok_or_else(|| unusable("it cannot be read"))?;
            let key = found.api_key.clone().or(in_address);
            let source = QdrantSource::new(name.clone(), &Secret::new(url), key, SNAPSHOT);
            Ok(Arc::new(source.map_err(|source| SetUpError::Source { name: name.clone(), source })?))
        }
        StoreKind::Rabbitmq => {
            let source = RabbitmqSource::new(name.clone(), &found.url, ANSWER);
            Ok(Arc::new(source.map_err(|source| SetUpError::Source { name: name.clone(), source })?))
        }
    }
}

fn redis(name: &ArtifactName, found: &FoundStore) -> Result<RedisSource, SetUpError> {
    let unusable = |reason: &str| SetUpError::Address { name: name.clone(), reason: reason.to_owned() };
    let parts = reach::parts(found.url.expose(), port(found.kind)).ok_or_else(|| unusable("it cannot be read"))?;
    if parts.scheme != "redis" {
        return Err(unusable("connections to Redis are not encrypted here: write `redis://`"));
    }
    let address = RedisAddress { host: parts.host, port: parts.port, username: parts.user, password: parts.password.map(Secret::new) };
    Ok(RedisSource::new(name.clone(), address, ANSWER))
}

/// A key that stands in an address as a password without a user, and the address without it.
fn key_in_address(url: &str) -> Option<(String, Option<Secret<String>>)> {
    let parts = reach::parts(url, port(StoreKind::Qdrant))?;
    match (parts.user, parts.password) {
        (None, Some(key)) => {
            let (scheme, rest) = url.split_once("://")?;
            Some((format!("{scheme}://{}", rest.split_once('@')?.1), Some(Secret::new(key))))
        }
        _ => Some((url.to_owned(), None)),
    }
}

/// What is described in `kaleem.toml` and does not speak at an address.
async fn of_settings(
    around: &Surroundings<'_>,
    name: &ArtifactName,
    said: &SourceSettings,
    notes: &mut Vec<String>,
) -> Result<Option<Arc<dyn BackupSource>>, SetUpError> {
    Ok(match said.kind {
        Some(SourceKindName::Files) => {
            let path = said.path.clone().unwrap_or_default();
            Some(Arc::new(FilesSource::new(name.clone(), &around.project.directory.join(path))))
        }
        Some(SourceKindName::Command) => Some(commands::source(around, name, said, notes)?),
        Some(SourceKindName::Volume) => Some(volumes::source(around, name, said, notes).await?),
        _ => None,
    })
}

/// A store that `kaleem.toml` describes.
fn store_of_settings(around: &Surroundings<'_>, name: &ArtifactName, said: &SourceSettings) -> Result<Option<FoundStore>, SetUpError> {
    let store = match said.kind {
        Some(SourceKindName::Mongodb) => StoreKind::Mongodb,
        Some(SourceKindName::Redis) => StoreKind::Redis,
        Some(SourceKindName::Qdrant) => StoreKind::Qdrant,
        Some(SourceKindName::Rabbitmq) => StoreKind::Rabbitmq,
        // The loader refuses a source without a kind.
        Some(SourceKindName::Files | SourceKindName::Volume | SourceKindName::Command) | None => return Ok(None),
    };
    let what = format!("the address of `{name}`");
    let key = match (&said.api_key_env, &said.api_key_file) {
        (Some(variable_name), _) => Some(variable(around, variable_name, &format!("the API key of `{name}`"))?),
        (None, Some(path)) => Some(line(around, path, &format!("the API key of `{name}`"))?),
        (None, None) => None,
    };
    let url = match (&said.url_env, &said.url_file) {
        (Some(variable_name), _) => Some(variable(around, variable_name, &what)?),
        (None, Some(path)) => Some(line(around, path, &what)?),
        (None, None) => None,
    };
    let known = said.service.as_ref().and_then(|service| around.found.iter().find(|found| found.service.as_ref() == Some(service)));
    let plain = |host: &str| {
        let scheme = match store {
            StoreKind::Mongodb => "mongodb",
            StoreKind::Redis => "redis",
            StoreKind::Qdrant => "http",
            StoreKind::Rabbitmq => "amqp",
        };
        Secret::new(format!("{scheme}://{host}:{}", port(store)))
    };
    let url = url.or_else(|| known.map(|found| found.url.clone())).or_else(|| said.service.as_ref().map(|service| plain(service.as_str())));
    let Some(url) = url else { return Ok(None) };
    Ok(Some(FoundStore {
        service: said.service.clone(),
        name: name.to_string(),
        kind: store,
        url,
        api_key: key.or_else(|| known.and_then(|found| found.api_key.clone())),
        management: known.and_then(|found| found.management.clone()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_added_where_it_belongs() {
        for (url, wanted) in [
            ("mongodb://a:1", "mongodb://a:1/?x=y"),
            ("mongodb://a:1/", "mongodb://a:1/?x=y"),
            ("mongodb://a:1/db?q=1", "mongodb://a:1/db?q=1&x=y"),
        ] {
            assert_eq!(with_query(url, "x=y"), wanted);
        }
    }

    #[test]
    fn the_management_api_of_a_broker_is_asked_with_the_user_of_its_amqp_address() {
        for (why, url, management, wanted) in [
            ("beside AMQP", "amqp://u:p%40@mq:5672/v", None, "http://u:p%40@mq:15672"),
            ("a new broker's own user", "amqp://mq", None, "http://guest:guest@mq:15672"),
            ("where it is said", "amqps://u:p@mq", Some("https://mq:15671"), "https://u:p@mq:15671"),
            ("with its own user", "amqp://u:p@mq", Some("http://a:b@mq:1"), "http://a:b@mq:1"),
            ("said itself", "http://a:b@mq:15672", None, "http://a:b@mq:15672"),
        ] {
            let found = FoundStore {
                service: None,
                name: "mq".to_owned(),
                kind: StoreKind::Rabbitmq,
                url: Secret::new(url.to_owned()),
                api_key: None,
                management: management.map(str::to_owned),
            };
            assert_eq!(super::management(&found).as_deref(), Some(wanted), "{why}");
        }
    }

    #[test]
    fn a_service_gives_its_artifact_its_name() {
        assert_eq!(artifact_name("Cache.v2").map(|name| name.to_string()).as_deref(), Some("cache-v2"));
        assert_eq!(artifact_name("..."), None);
    }
}

//! What a drill restores into: for each artifact an empty store made from the project's own image, or the reason why not.

mod mongodb;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use kaleem_core::backup::{Manifest, SourceKind};
use kaleem_core::image::{ImageSource, PinnedImage};
use kaleem_core::names::{ArtifactName, ServiceName};
use kaleem_core::observed::image_reference;
use kaleem_core::remedy::one_line;
use kaleem_core::secret::Secret;

use super::{FoundStore, SetUpError, StoreKind, Surroundings, commands, databases, reach, stores};
use crate::drill::room::ScratchContainer;
use crate::drill::whole::{Check, Reached, ScratchStore};
use crate::source::mongo::MongoScope;

/// How long a check may take where nothing is said.
const CHECK: Duration = Duration::from_secs(60);
/// How long a store may take to start where nothing is said.
const READY: Duration = Duration::from_secs(120);

/// What a drill of one set works with.
pub struct DrillSetUp {
    /// What each artifact is restored into.
    pub stores: BTreeMap<ArtifactName, ScratchStore>,
    /// What is asked then.
    pub checks: Vec<Check>,
    /// How long a store may take to start.
    pub ready_within: Duration,
    /// What commands on this host are given.
    pub environment: BTreeMap<String, String>,
}

/// Looks for what the artifacts of a set can be restored into. Images are looked for on the engine; nothing is made.
///
/// # Errors
/// [`SetUpError`] for a check that names no artifact, and where an address cannot be read.
pub async fn drill(around: &Surroundings<'_>, manifest: &Manifest) -> Result<DrillSetUp, SetUpError> {
    let settings = &around.project.settings.backup;
    let known = stores::described(around)?;
    let mut scratch = BTreeMap::new();
    for record in &manifest.artifacts {
        let store = match record.kind {
            SourceKind::Files => ScratchStore::Directory,
            SourceKind::Command => of_command(around, &record.name).await,
            _ => match known.get(&record.name) {
                Some((found, scope)) => of_store(around, &record.name, found, scope).await,
                None => nothing("neither the compose file nor kaleem.toml names its store any more"),
            },
        };
        scratch.insert(record.name.clone(), store);
    }
    let mut checks = Vec::new();
    for (name, said) in &settings.drill.checks {
        // The loader has checked that both are there.
        let Some(artifact) = said.source.as_ref().and_then(|source| source.parse::<ArtifactName>().ok()) else { continue };
        let timeout = said.timeout.map_or(CHECK, |timeout| timeout.0);
        checks.push(Check { name: name.clone(), artifact, command: said.command.clone(), contains: said.contains.clone(), timeout });
    }
    let ready_within = settings.drill.ready_within.map_or(READY, |time| time.0);
    Ok(DrillSetUp { stores: scratch, checks, ready_within, environment: commands::given(around) })
}

fn nothing(reason: &str) -> ScratchStore {
    ScratchStore::Nothing { reason: reason.to_owned() }
}

async fn of_command(around: &Surroundings<'_>, name: &ArtifactName) -> ScratchStore {
    let (service, commands) = match around.project.settings.backup.sources.get(name.as_str()) {
        Some(said) => (said.service.clone(), commands::commands(said)),
        None => {
            match databases::found(around.project).find(|(service, _)| stores::artifact_name(service.as_str()).as_ref() == Some(name)) {
                Some((service, database)) => (Some(service.clone()), database.commands()),
                None => return nothing("neither the compose file nor kaleem.toml names its commands any more"),
            }
        }
    };
    match &service {
        None => nothing("its commands run on this host, where they would restore into the real thing: give it a `service`"),
        Some(_) if commands.restore.is_none() => nothing("it has no `restore-command`"),
        Some(service) => match container(around, service).await {
            Ok(container) => ScratchStore::Commands { container, commands },
            Err(reason) => ScratchStore::Nothing { reason },
        },
    }
}

async fn of_store(around: &Surroundings<'_>, name: &ArtifactName, found: &FoundStore, scope: &MongoScope) -> ScratchStore {
    let Some(service) = &found.service else {
        return nothing("it is no service of the compose file, so that no image of it is known");
    };
    let mut container = match container(around, service).await {
        Ok(container) => container,
        Err(reason) => return ScratchStore::Nothing { reason },
    };
    let root = match found.kind {
        StoreKind::Mongodb => mongodb::alone(&mut container.definition),
        StoreKind::Redis => {
            container.definition.command = container.definition.command.as_deref().map(alone);
            None
        }
        _ => None,
    };
    let (name, found, scope) = (name.clone(), found.clone(), scope.clone());
    let reached: Arc<Reached> = Arc::new(move |address| {
        let (name, found, scope, root) = (name.clone(), found.clone(), scope.clone(), root.clone());
        Box::pin(async move {
            let url = url_at(&found, address, root.as_ref()).ok_or_else(|| "its address cannot be read".to_owned())?;
            let here = FoundStore { url: Secret::new(url), ..found };
            stores::of_address(&name, &here, &scope).await.map_err(|error| one_line(&error))
        })
    });
    ScratchStore::Listening { container, reached }
}

/// A container of a service, from the image that its container runs, else from that of the compose file.
pub(super) async fn container(around: &Surroundings<'_>, service: &ServiceName) -> Result<ScratchContainer, String> {
    let Some(described) = around.project.services.get(service) else { return Err(format!("the compose file has no service `{service}`")) };
    let Some(runtime) = &around.runtime else { return Err("the container engine does not answer".to_owned()) };
    // What is built has the name that Compose gives it.
    let image = image_reference(&around.project.name, described, None).map_err(|error| one_line(&error))?;
    let running = around.instances.iter().find(|instance| instance.service == *service && !instance.oneoff);
    let digest = match running {
        Some(instance) => instance.image_id.clone(),
        None => match runtime.image(&image.to_string()).await {
            Ok(Some(found)) => found.id,
            Ok(None) => return Err(format!("the image {image} of `{service}` is not on this host")),
            Err(error) => return Err(one_line(&error)),
        },
    };
    let image = PinnedImage { image, digest, source: ImageSource::Local };
    Ok(ScratchContainer { service: service.clone(), image, definition: described.definition.clone() })
}

/// The words of `redis-server` without those that make it wait for other nodes.
fn alone(words: &[String]) -> Vec<String> {
    let mut rest = words.iter();
    let mut kept = Vec::new();
    while let Some(word) = rest.next() {
        match word.as_str() {
            "--cluster-enabled" => drop(rest.next()),
            word => kept.push(word.to_owned()),
        }
    }
    kept
}

/// The address of a store where its scratch container is.
fn url_at(found: &FoundStore, address: IpAddr, root: Option<&mongodb::Login>) -> Option<String> {
    let url = match found.kind {
        StoreKind::Rabbitmq => stores::management(found)?,
        _ => found.url.expose().clone(),
    };
    let (scheme, rest) = url.split_once("://")?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let (login, hosts) = authority.rsplit_once('@').map_or((None, authority), |(login, hosts)| (Some(login), hosts));
    let first = hosts.split(',').next()?;
    let port = reach::parts(&format!("{scheme}://{first}"), stores::port(found.kind))?.port;
    let place = SocketAddr::new(address, port);
    if found.kind == StoreKind::Mongodb {
        // Users are not in the set: only the first one of the image is there.
        let login = root.map(|(user, password)| format!("{}:{}@", encoded(user), encoded(password.expose()))).unwrap_or_default();
        return Some(format!("mongodb://{login}{place}/?directConnection=true"));
    }
    let login = login.map(|login| format!("{login}@")).unwrap_or_default();
    Some(format!("{scheme}://{login}{place}{tail}"))
}

fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(kind: StoreKind, url: &str, root: Option<(&str, &str)>) -> Option<String> {
        let found =
            FoundStore { service: None, name: "x".to_owned(), kind, url: Secret::new(url.to_owned()), api_key: None, management: None };
        let root = root.map(|(user, password)| (user.to_owned(), Secret::new(password.to_owned())));
        url_at(&found, IpAddr::from([172, 18, 0, 9]), root.as_ref())
    }

    #[test]
    fn a_scratch_store_is_spoken_to_as_the_real_one_is() {
        for (why, kind, url, root, wanted) in [
            ("redis", StoreKind::Redis, "redis://:p@cache:6380/2", None, "redis://:p@172.18.0.9:6380/2"),
            (
                "mongodb has its first user alone",
                StoreKind::Mongodb,
                "mongodb://app:x@a,b/shop?replicaSet=r",
                Some(("root", "p@")),
                "mongodb://root:p%40@172.18.0.9:27017/?directConnection=true",
            ),
            ("mongodb without users", StoreKind::Mongodb, "mongodb://a", None, "mongodb://172.18.0.9:27017/?directConnection=true"),
            ("rabbitmq by its management", StoreKind::Rabbitmq, "amqp://u:p@mq:5672/v", None, "http://u:p@172.18.0.9:15672"),
            ("qdrant", StoreKind::Qdrant, "http://vectors:6333", None, "http://172.18.0.9:6333"),
        ] {
            assert_eq!(at(kind, url, root).as_deref(), Some(wanted), "{why}");
        }
    }

    #[test]
    fn a_scratch_redis_waits_for_no_other_node() {
        let words = ["redis-server", "--cluster-enabled", "yes", "--appendonly", "yes"].map(str::to_owned);
        assert_eq!(alone(&words), ["redis-server", "--appendonly", "yes"]);
    }
}

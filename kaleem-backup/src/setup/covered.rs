//! Whose data the backups hold, and which storage of the project they do not.

use std::collections::BTreeSet;
use std::path::Path;

use kaleem_core::backup::SetData;
use kaleem_core::config::settings::backup::SourceKindName;
use kaleem_core::config::{Project, Service};
use kaleem_core::definition::{Mount, MountSource};
use kaleem_core::names::ServiceName;

use super::databases::Database;
use super::{FoundStore, Surroundings};

/// Paths of the host that are no data of a project.
const OF_THE_HOST: &[&str] =
    &["/", "/bin", "/boot", "/dev", "/etc", "/lib", "/proc", "/run", "/sys", "/usr", "/var/lib/docker", "/var/log", "/var/run"];
/// Images that keep data, in the container itself where nothing is mounted.
const KEEPERS: &[&str] = &[
    "cassandra",
    "clickhouse",
    "clickhouse-server",
    "consul",
    "couchdb",
    "elasticsearch",
    "etcd",
    "influxdb",
    "mariadb",
    "meilisearch",
    "minio",
    "mongo",
    "mysql",
    "neo4j",
    "opensearch",
    "postgis",
    "postgres",
    "postgresql",
    "qdrant",
    "rabbitmq",
    "redis",
    "timescaledb",
    "typesense",
    "valkey",
    "vault",
    "weaviate",
];

/// A service that keeps something which no backup holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotCovered {
    /// The service.
    pub service: ServiceName,
    /// What it keeps, such as ``volume `data` ``.
    pub storage: String,
    /// What to write into `kaleem.toml`, one line.
    pub remedy: String,
}

/// Whose data every source holds.
pub(super) fn covered(around: &Surroundings<'_>, databases: &[(ServiceName, Database)]) -> Vec<SetData> {
    let project = around.project;
    let settings = &project.settings.backup;
    let mut all = BTreeSet::new();
    let of_found = |found: &FoundStore| found.service.clone().map_or(SetData::Elsewhere, SetData::Store);
    let said = |found: &&FoundStore| {
        let name = found.service.as_ref().map_or(found.name.as_str(), |service| service.as_str());
        settings.sources.contains_key(name) || settings.leave_out.iter().any(|out| out == name)
    };
    all.extend(around.found.iter().filter(|found| !said(found)).map(of_found));
    all.extend(databases.iter().map(|(service, _)| SetData::Store(service.clone())));
    for source in settings.sources.values() {
        let volume = || project.volumes.get(source.volume.as_deref()?).map(|volume| volume.name.clone());
        all.insert(match source.kind {
            Some(SourceKindName::Volume) => volume().map_or(SetData::Elsewhere, SetData::Volume),
            Some(SourceKindName::Files) => SetData::Directory(project.directory.join(source.path.clone().unwrap_or_default())),
            _ => source.service.clone().map_or(SetData::Elsewhere, SetData::Store),
        });
    }
    all.into_iter().collect()
}

/// The services with storage that no source holds and that `leave-out` does not name.
pub(super) fn not_covered(project: &Project, covered: &[SetData]) -> Vec<NotCovered> {
    let left_out = &project.settings.backup.leave_out;
    let services = project.services.values().filter(|service| !left_out.iter().any(|out| *out == service.name.as_str()));
    services.filter_map(|service| of_service(project, service, covered)).collect()
}

fn of_service(project: &Project, service: &Service, covered: &[SetData]) -> Option<NotCovered> {
    if covered.contains(&SetData::Store(service.name.clone())) {
        return None;
    }
    let key = |name| project.volumes.iter().find(|(_, volume)| volume.name == name).map(|(key, _)| key.clone());
    let mut storage = Vec::new();
    let mut remedies = Vec::new();
    for mount in service.definition.mounts.iter().filter(|mount| !mount.read_only) {
        match &mount.source {
            MountSource::Volume { name, .. } if !covered.contains(&SetData::Volume(name.clone())) => {
                let key = key(name.clone()).unwrap_or_else(|| name.to_string());
                remedies.push(format!("`[backup.sources.{}]` with `kind = \"volume\"` and `volume = \"{key}\"`", source_name(&key)));
                storage.push(format!("volume `{key}`"));
            }
            MountSource::Bind { path, .. } if is_data(Path::new(path), mount) && !in_a_directory(Path::new(path), covered) => {
                let name = source_name(path.rsplit('/').next().unwrap_or("files"));
                remedies.push(format!("`[backup.sources.{name}]` with `kind = \"files\"` and `path = \"{path}\"`"));
                storage.push(format!("directory {path}"));
            }
            MountSource::Anonymous => {
                storage.push(format!("an anonymous volume at {}", mount.target));
                remedies.push(format!("give the volume at {} a name, then write `kind = \"volume\"`", mount.target));
            }
            _ => {}
        }
    }
    let keeps = service.image.as_ref().is_some_and(|image| KEEPERS.contains(&image.base_name()));
    if service.definition.mounts.is_empty() && keeps {
        storage.push("data in the container itself or in a volume without a name".to_owned());
        remedies.push("give its data directory a named volume, then write `kind = \"volume\"`".to_owned());
    }
    let remedy = remedies.into_iter().next()?;
    Some(NotCovered {
        service: service.name.clone(),
        storage: storage.join(", "),
        remedy: format!("{remedy}; or `leave-out = [\"{}\"]` under `[backup]`", service.name),
    })
}

fn is_data(path: &Path, mount: &Mount) -> bool {
    let of_the_host = OF_THE_HOST.iter().any(|place| path == Path::new(place))
        || ["/proc", "/sys", "/dev", "/run", "/var/run"].iter().any(|place| path.starts_with(place));
    !of_the_host && !mount.target.ends_with(".sock") && path.is_dir()
}

fn in_a_directory(path: &Path, covered: &[SetData]) -> bool {
    covered.iter().any(|data| matches!(data, SetData::Directory(directory) if path.starts_with(directory)))
}

/// A name as sources have it.
fn source_name(text: &str) -> String {
    let fold = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c.to_ascii_lowercase() } else { '-' };
    text.chars().map(fold).collect::<String>().trim_matches('-').to_owned()
}

//! What is in the files of the host that containers mount: a changed configuration or a rotated secret is a change of its service.
//!
//! Only keyed hashes are kept. A file that its container may write is compared where its name says that people write it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use crate::config::role;
use crate::definition::{Definition, Mount, MountSource};
use crate::names::ServiceName;
use crate::plan::strategy::is_store;
use crate::plan::{Objection, Severity};
use crate::release::{Release, Target};
use crate::state::DefinitionKey;

/// Larger files are not compared: they are data, and reading them would take its time at each plan.
const SIZE_LIMIT_BYTES: u64 = 1 << 20;

/// What the mounts of one service hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    /// Keyed hashes of files, by their path in the container.
    pub(super) files: BTreeMap<String, String>,
    /// Directories and files of the host that are not compared.
    pub(super) not_compared: Vec<String>,
}

/// Looks at the mounts of a definition.
pub(super) fn look(definition: &Definition, key: &DefinitionKey) -> Contents {
    let mut contents = Contents::default();
    for mount in &definition.mounts {
        let MountSource::Bind { path, .. } = &mount.source else { continue };
        let Ok(metadata) = std::fs::metadata(path) else { continue };
        if metadata.is_dir() {
            contents.not_compared.push(path.clone());
            continue;
        }
        if !metadata.is_file() {
            // A socket, such as Docker's.
            continue;
        }
        let hash =
            (is_compared(mount, path) && metadata.len() <= SIZE_LIMIT_BYTES).then(|| read(path)).flatten().map(|bytes| key.hash(&bytes));
        match hash {
            Some(hash) => {
                contents.files.insert(mount.target.clone(), hash);
            }
            None => contents.not_compared.push(path.clone()),
        }
    }
    contents
}

fn is_compared(mount: &Mount, path: &str) -> bool {
    mount.read_only || role::is_written_by_people(path) || mount.target.starts_with("/run/secrets/")
}

fn read(path: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).ok()?;
    file.take(SIZE_LIMIT_BYTES + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= SIZE_LIMIT_BYTES).then_some(bytes)
}

/// What comes of other contents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Changed {
    /// Services that are replaced because of them, and what changed.
    pub(super) again: BTreeMap<ServiceName, Vec<String>>,
    /// What is said of services that are not.
    pub(super) objections: Vec<Objection>,
}

/// Notes in the target what its files hold, and finds what differs from the release that serves.
pub(super) fn compare(
    target: &mut Target,
    serving: Option<&Release>,
    definitions: &dyn Fn(&ServiceName) -> Option<Definition>,
    skip: &dyn Fn(&ServiceName) -> bool,
    key: &DefinitionKey,
    recreated: &BTreeSet<ServiceName>,
) -> Changed {
    let mut changed = Changed::default();
    let mut uncompared = Vec::new();
    for (name, wanted) in target.services.iter_mut().filter(|(name, _)| !skip(name)) {
        let Some(definition) = definitions(name) else { continue };
        let contents = look(&definition, key);
        if !contents.not_compared.is_empty() {
            uncompared.push(format!("{name}: {}", contents.not_compared.join(", ")));
        }
        wanted.files = contents.files;
        let before = serving.and_then(|serving| serving.target.services.get(name)).map(|before| &before.files);
        let differs: Vec<String> = wanted
            .files
            .iter()
            .filter(|(path, hash)| before.and_then(|before| before.get(*path)).is_some_and(|known| known != *hash))
            .map(|(path, _)| path.clone())
            .collect();
        if differs.is_empty() || recreated.contains(name) {
            continue;
        }
        let volume = |mount: &Mount| !mount.read_only && matches!(mount.source, MountSource::Volume { .. } | MountSource::Anonymous);
        if is_store(&wanted.image.image) || definition.mounts.iter().any(volume) {
            // A database is not stopped for a file that it may read at its first start alone.
            for path in &differs {
                let known = before.and_then(|before| before.get(path)).cloned();
                wanted.files.extend(known.map(|known| (path.clone(), known)));
            }
            changed.objections.push(Objection {
                rule: "content-later".to_owned(),
                severity: Severity::Warn,
                service: Some(name.clone()),
                message: format!(
                    "`{name}` runs on with the old content of {}: it keeps data, so it is not replaced for that",
                    differs.join(", ")
                ),
                remedy: format!("have it read the new content: `kaleem deploy --recreate {name}`"),
            });
            continue;
        }
        changed.again.insert(name.clone(), differs.into_iter().map(|path| format!("content of {path}")).collect());
    }
    if !uncompared.is_empty() {
        changed.objections.push(Objection {
            rule: NOT_COMPARED.to_owned(),
            severity: Severity::Note,
            service: None,
            message: format!("the content of these mounts is not compared: {}", uncompared.join("; ")),
            remedy: "after a change in them, run `kaleem restart SERVICE`, or `kaleem reload SERVICE` for a web server".to_owned(),
        });
    }
    changed
}

/// Contents that a plan says nothing of.
pub(super) const NOT_COMPARED: &str = "content-not-compared";

/// What the files hold after a rollback: what goes on running has read what it read, and what is started reads what is there now.
pub(super) fn after_rollback(
    target: &mut Target,
    serving: Option<&Release>,
    definitions: &dyn Fn(&ServiceName) -> Option<Definition>,
    key: &DefinitionKey,
) {
    for (name, wanted) in &mut target.services {
        let runs = serving.and_then(|serving| serving.target.services.get(name));
        let stays = runs.filter(|runs| runs.definition == wanted.definition && runs.image.digest == wanted.image.digest);
        wanted.files = match stays {
            Some(runs) => runs.files.clone(),
            None => definitions(name).map(|definition| look(&definition, key).files).unwrap_or_default(),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_its_container_writes_is_compared_only_where_people_write_it() {
        let mount = |read_only, target: &str| Mount { target: target.to_owned(), read_only, source: MountSource::Anonymous };
        for (why, read_only, target, path, compared) in [
            ("read-only", true, "/a", "/srv/anything", true),
            ("a configuration", false, "/etc/nginx/nginx.conf", "/srv/nginx.conf", true),
            ("a database", false, "/data/app.db", "/srv/app.db", false),
            ("certificates of Traefik", false, "/acme.json", "/srv/acme.json", false),
            ("a log", false, "/app.log", "/srv/app.log", false),
            ("a secret", false, "/run/secrets/key", "/srv/key-of-api", true),
        ] {
            assert_eq!(is_compared(&mount(read_only, target), path), compared, "{why}");
        }
    }
}

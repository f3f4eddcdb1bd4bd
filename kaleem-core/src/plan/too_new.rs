//! Keys that the engine is too old for: a plan says so before anything is touched, and not the step that creates the container.

use crate::config::{Origin, Project};
use crate::definition::{Definition, MountSource, NetworkMode};
use crate::names::ServiceName;
use crate::plan::{ChangeKind, Objection, Plan, Severity};
use crate::runtime::EngineInfo;

/// A key of a service that an engine may not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs {
    /// The key below the service, such as `healthcheck.start_interval`.
    pub key: String,
    /// The version of the API that knows it.
    api: (u32, u32),
    /// The Docker engine that brought it.
    engine: &'static str,
}

/// Keys of a definition that newer engines brought.
fn newer_keys(definition: &Definition) -> Vec<Needs> {
    let mut found = Vec::new();
    let mut needs = |key: String, api, engine| found.push(Needs { key, api, engine });
    if definition.healthcheck.as_ref().is_some_and(|check| check.start_interval.is_some()) {
        needs("healthcheck.start_interval".to_owned(), (1, 44), "25.0");
    }
    if !definition.annotations.is_empty() {
        needs("annotations".to_owned(), (1, 43), "24.0");
    }
    for mount in &definition.mounts {
        if matches!(&mount.source, MountSource::Volume { subpath: Some(_), .. }) {
            needs(format!("volumes ({}): volume.subpath", mount.target), (1, 45), "26.0");
        }
    }
    if let NetworkMode::Networks(attachments) = &definition.network {
        // Older engines take one address for the container, which is that of its first network.
        for attachment in attachments.iter().skip(1).filter(|attachment| attachment.mac_address.is_some()) {
            needs(format!("networks ({}): mac_address", attachment.network), (1, 44), "25.0");
        }
    }
    found
}

/// Keys of a definition that this engine does not know; none where it does not say what it knows.
pub fn keys(definition: &Definition, engine: &EngineInfo) -> Vec<Needs> {
    let version = engine.api_version.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    let Some(version): Option<(u32, u32)> = version else { return Vec::new() };
    newer_keys(definition).into_iter().filter(|needs| version < needs.api).collect()
}

/// Refuses what the plan would create and the engine could not.
pub fn objections(project: &Project, engine: &EngineInfo, plan: &Plan) -> Vec<Objection> {
    let makes = |name: &ServiceName| {
        plan.changes.iter().any(|change| {
            change.service == *name && matches!(change.kind, ChangeKind::Add | ChangeKind::Replace | ChangeKind::Run | ChangeKind::Update)
        })
    };
    let services = project.services.values().filter(|service| makes(&service.name));
    services
        .flat_map(|service| keys(&service.definition, engine).into_iter().map(move |needs| (service, needs)))
        .map(|(service, needs)| Objection {
            rule: "engine-too-old".to_owned(),
            severity: Severity::Refuse,
            service: Some(service.name.clone()),
            message: format!(
                "`services.{}.{}` ({}) needs Docker {} or newer, and this engine is {} (API {})",
                service.name,
                needs.key,
                place(&service.origin),
                needs.engine,
                engine.version,
                engine.api_version
            ),
            remedy: "remove the key, or upgrade the Docker engine".to_owned(),
        })
        .collect()
}

fn place(origin: &Origin) -> String {
    let file = origin.file.file_name().map_or_else(|| origin.file.display().to_string(), |name| name.to_string_lossy().into_owned());
    format!("{file}, service at line {}", origin.line)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::definition::{HealthTest, Healthcheck, Mount, NetworkAttachment};

    fn engine(api: &str) -> EngineInfo {
        EngineInfo { version: "20.10.24".to_owned(), api_version: api.to_owned(), os: "linux".to_owned(), architecture: "amd64".to_owned() }
    }

    #[test]
    fn every_key_is_known_from_the_version_on_that_brought_it() {
        let check = Healthcheck { test: HealthTest::Inherit, start_interval: Some(Duration::from_secs(1)), ..Healthcheck::DISABLED };
        let network = |name: &str, mac: Option<&str>| NetworkAttachment {
            network: name.parse().unwrap_or_else(|error| panic!("{error}")),
            aliases: Vec::new(),
            ipv4: None,
            ipv6: None,
            link_local_ips: Vec::new(),
            mac_address: mac.map(str::to_owned),
            driver_opts: Default::default(),
        };
        let volume = MountSource::Volume {
            name: "data".parse().unwrap_or_else(|error| panic!("{error}")),
            nocopy: false,
            subpath: Some("inner".to_owned()),
        };
        let mount = Mount { target: "/data".to_owned(), read_only: false, source: volume };
        let annotations = [("a".to_owned(), "b".to_owned())].into();
        let networks = vec![network("one", Some("02:00:00:00:00:01")), network("two", Some("02:00:00:00:00:02"))];
        for (definition, key, first) in [
            (Definition { healthcheck: Some(check), ..Definition::default() }, "healthcheck.start_interval", 44),
            (Definition { annotations, ..Definition::default() }, "annotations", 43),
            (Definition { mounts: vec![mount], ..Definition::default() }, "volumes (/data): volume.subpath", 45),
            (Definition { network: NetworkMode::Networks(networks), ..Definition::default() }, "networks (two): mac_address", 44),
        ] {
            let found =
                |minor: u32| keys(&definition, &engine(&format!("1.{minor}"))).into_iter().map(|needs| needs.key).collect::<Vec<_>>();
            assert_eq!(found(first - 1), [key]);
            assert_eq!(found(first), [""; 0], "{key}");
        }
        assert!(keys(&Definition::default(), &engine("1.41")).is_empty());
    }
}

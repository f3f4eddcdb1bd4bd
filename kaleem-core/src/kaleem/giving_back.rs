//! What Compose compares when a project goes back to it, and what it would recreate all the same.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{ComposeHash, Project};
use crate::image::ImageRef;
use crate::names::{ContainerName, ServiceName};
use crate::observed::{Observed, is_gateway};
use crate::plan::{Objection, Plan, Severity, Step};
use crate::runtime::InstanceStatus;

/// The rule under which the plan names services that the next `docker compose up` recreates.
const RULE: &str = "compose-recreates";
const REMEDY: &str = "expect a restart of it the next time you run `docker compose up -d`";

/// The hashes that Compose is going to compare with.
///
/// `answers` are what the Compose of this host says with `config --hash`; empty where there is none. They tell which version it is. The
/// hash itself is computed here, because that command leaves variables of env files out that Compose hashes when it makes a container.
pub(super) fn hashes(project: &Project, answers: &BTreeMap<ServiceName, String>) -> BTreeMap<ServiceName, String> {
    type Choice = fn(&ComposeHash) -> Option<&String>;
    let choices: [Choice; 2] = [|hash| hash.v2_26.as_ref(), |hash| hash.later.as_ref()];
    let agreeing = |choice: Choice| {
        project
            .services
            .iter()
            .filter(|(name, service)| choice(&service.compose_hash).is_some_and(|hash| answers.get(*name) == Some(hash)))
            .count()
    };
    let [first, later] = choices;
    let choice = if agreeing(later) > agreeing(first) { later } else { first };
    // A version that hashes in a way that is not known here: what it says itself is the best there is.
    if !answers.is_empty() && agreeing(choice) == 0 {
        let computable = |name: &ServiceName| project.services.get(name).is_some_and(|service| service.compose_hash.v2_26.is_some());
        return answers.iter().filter(|(name, _)| computable(name)).map(|(name, hash)| (name.clone(), hash.clone())).collect();
    }
    project.services.iter().filter_map(|(name, service)| Some((name.clone(), choice(&service.compose_hash)?.clone()))).collect()
}

/// Names the services whose containers the next `docker compose up` would recreate. `other_images` are services for which the tag of
/// the compose file does not mean the image that runs.
pub(super) fn objections(plan: &Plan, observed: &Observed, other_images: &BTreeMap<ServiceName, ImageRef>) -> Vec<Objection> {
    if plan.steps.is_empty() {
        return Vec::new();
    }
    let stopped: BTreeSet<&ContainerName> = plan.steps.iter().filter_map(stopped).collect();
    let stays = |service: &ServiceName| {
        observed
            .instances
            .iter()
            .filter(|instance| instance.service == *service && !instance.oneoff && !is_gateway(instance))
            .filter(|instance| instance.state.status == InstanceStatus::Running && !stopped.contains(&instance.name))
            .any(|instance| Some(&instance.compose_hash) != plan.release.target.services.get(service).map(|wanted| &wanted.compose_hash))
    };
    let reason = |service: &ServiceName| {
        let wanted = plan.release.target.services.get(service)?;
        if let Some(image) = other_images.get(service) {
            return Some(format!("the compose file names `{image}`, which is another image on this host than the one that runs"));
        }
        if wanted.compose_hash.is_none() {
            let shared = !wanted.companions.is_empty();
            let why = if shared {
                "it uses the namespaces or volumes of another container"
            } else {
                "the file has a key that kaleem cannot hash as Compose does"
            };
            return Some(format!("{why}, so kaleem cannot compute the hash that Compose compares"));
        }
        stays(service).then(|| "Compose made its container from an older form of the file".to_owned())
    };
    let found = plan.release.target.services.keys().filter_map(|service| {
        Some(Objection {
            rule: RULE.to_owned(),
            severity: Severity::Warn,
            service: Some(service.clone()),
            message: format!("Compose will recreate `{service}`: {}", reason(service)?),
            remedy: REMEDY.to_owned(),
        })
    });
    found.collect()
}

fn stopped(step: &Step) -> Option<&ContainerName> {
    if let Step::Stop { container, .. } = step { Some(container) } else { None }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::{Settings, load};

    fn project(text: &str) -> Project {
        let directory = tempfile::tempdir().unwrap();
        crate::durable::write_atomic(&directory.path().join("compose.yaml"), text.as_bytes(), 0o644).unwrap();
        let options = crate::config::LoadOptions {
            directory: directory.path().to_owned(),
            files: Vec::new(),
            env_files: Vec::new(),
            environment: BTreeMap::new(),
            profiles: Vec::new(),
            project_name: Some("shop".parse().unwrap()),
            settings_file: None,
        };
        let project = load(&options).unwrap();
        Project { settings: Settings::default(), directory: PathBuf::from("/srv/shop"), ..project }
    }

    #[test]
    fn the_answers_of_compose_choose_the_version_whose_hashes_are_written() {
        let project = project("services:\n  api: { image: x, depends_on: [db] }\n  db: { image: y }\n");
        let api: ServiceName = "api".parse().unwrap();
        let db: ServiceName = "db".parse().unwrap();
        let hash = |name: &ServiceName| project.services[name].compose_hash.clone();
        let answers = |api_hash: Option<String>| BTreeMap::from([(api.clone(), api_hash.unwrap()), (db.clone(), hash(&db).v2_26.unwrap())]);
        assert_ne!(hash(&api).v2_26, hash(&api).later, "the dependency makes the difference");
        assert_eq!(hashes(&project, &BTreeMap::new()).get(&api), hash(&api).v2_26.as_ref(), "no Compose on this host");
        assert_eq!(hashes(&project, &answers(hash(&api).v2_26)).get(&api), hash(&api).v2_26.as_ref(), "2.26");
        assert_eq!(hashes(&project, &answers(hash(&api).later)).get(&api), hash(&api).later.as_ref(), "a later one");
        let unknown = BTreeMap::from([(api.clone(), "a".repeat(64)), (db, "b".repeat(64))]);
        assert_eq!(hashes(&project, &unknown), unknown, "one that is not known");
    }
}

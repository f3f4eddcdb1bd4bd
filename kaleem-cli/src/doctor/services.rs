//! Rules about services: what their files and images say, and what they leave unsaid.

use std::collections::BTreeSet;

use kaleem_core::config::{DependencyCondition, Service};
use kaleem_core::definition::RestartPolicy;
use kaleem_core::health::Question;
use kaleem_core::names::ServiceName;
use kaleem_core::observed::image_reference;
use kaleem_core::plan::strategy;
use kaleem_core::runtime::ImageFacts;

use super::{Answer, Patient};

/// Parts of a variable's name that tell of a secret.
const SECRET_WORDS: &[&str] = &["PASSWORD", "PASSWD", "SECRET", "TOKEN", "APIKEY", "API_KEY", "PRIVATE_KEY", "ACCESS_KEY", "CREDENTIAL"];

/// What the compose files say has an effect.
pub(super) fn compose_warnings(patient: &Patient<'_>) -> Vec<Answer> {
    let warnings = patient.project.warnings.iter().map(|warning| {
        Answer::warn(
            "compose-file",
            format!("{}: `{}` has no effect: {}", warning.origin, warning.key, warning.reason),
            "remove it, or live with it",
        )
    });
    let found: Vec<Answer> = warnings.collect();
    if found.is_empty() { vec![Answer::ok("compose-file", "everything in the compose files is carried out")] } else { found }
}

/// Services which run once, to their end.
fn run_to_end(patient: &Patient<'_>) -> BTreeSet<ServiceName> {
    let waits = patient.project.services.values().flat_map(|service| &service.depends_on);
    waits.filter(|(_, wait)| wait.condition == DependencyCondition::ServiceCompletedSuccessfully).map(|(name, _)| name.clone()).collect()
}

fn facts(patient: &Patient<'_>, service: &Service) -> Option<ImageFacts> {
    patient.images.get(&service.name).map(|image| image.facts.clone())
}

/// It can be told whether a service is healthy.
pub(super) fn health(patient: &Patient<'_>) -> Vec<Answer> {
    let ends = run_to_end(patient);
    let mut found = Vec::new();
    for service in patient.project.services.values().filter(|service| !ends.contains(&service.name)) {
        let settings = patient.project.settings.services.get(&service.name).and_then(|settings| settings.health.as_ref());
        let gate = strategy::gate(service, &facts(patient, service).unwrap_or_default(), settings);
        let name = &service.name;
        let weak = match gate.question {
            Question::Running => Some(format!(
                "`{name}` has no health check: it counts as healthy when it does not crash within {} s",
                gate.steady.as_secs()
            )),
            Question::Tcp { port } if settings.is_none() => {
                Some(format!("`{name}` has no health check: it counts as healthy when port {port} accepts connections"))
            }
            _ => None,
        };
        if let Some(message) = weak {
            let remedy = format!("add `healthcheck:` to the compose file, or `[services.{name}.health] http = \"/health\"` to kaleem.toml");
            found.push(Answer::warn("health-check", message, remedy).of(name));
        }
    }
    if found.is_empty() { vec![Answer::ok("health-check", "every service has a health check")] } else { found }
}

/// Services do not run as root.
pub(super) fn user(patient: &Patient<'_>) -> Vec<Answer> {
    let mut found = Vec::new();
    for service in patient.project.services.values() {
        let image_user = facts(patient, service).map(|facts| facts.user);
        let Some(user) = service.definition.user.clone().or(image_user) else { continue };
        let name = user.split(':').next().unwrap_or_default();
        if matches!(name, "" | "0" | "root") {
            let message = format!("`{}` runs as root", service.name);
            found.push(Answer::warn("root-user", message, "set `USER` in its image, or `user:` in the compose file").of(&service.name));
        }
    }
    found
}

/// Tags tell which version is meant.
pub(super) fn tags(patient: &Patient<'_>) -> Vec<Answer> {
    let mut found = Vec::new();
    for service in patient.project.services.values().filter(|service| service.build.is_none()) {
        let Ok(image) = image_reference(&patient.project.name, service, None) else { continue };
        if image.digest().is_none() && image.tag() == Some("latest") {
            let message = format!("`{}` uses `{image}`: which version that is changes without a change of the file", service.name);
            found.push(Answer::warn("latest-tag", message, "name a version").of(&service.name));
        }
    }
    found
}

/// Services come back after a crash and a restart of the host.
pub(super) fn restart(patient: &Patient<'_>) -> Vec<Answer> {
    let ends = run_to_end(patient);
    let services = patient.project.services.values().filter(|service| !ends.contains(&service.name));
    let services = services.filter(|service| service.definition.restart == RestartPolicy::No);
    let answer = |service: &Service| {
        let message = format!("`{}` stays down after a crash or a restart of the host", service.name);
        Answer::warn("restart-policy", message, "add `restart: unless-stopped`").of(&service.name)
    };
    services.map(answer).collect()
}

/// Images carry no secrets in their environment, where everybody who can pull them reads them.
pub(super) fn secrets_in_images(patient: &Patient<'_>) -> Vec<Answer> {
    let mut found = Vec::new();
    for (service, image) in &patient.images {
        for name in &image.facts.environment_names {
            let upper = name.to_uppercase();
            // What names a file holds none itself.
            if !upper.ends_with("_FILE") && SECRET_WORDS.iter().any(|word| upper.contains(word)) {
                let message = format!("the image of `{service}` sets `{name}`, which looks like a secret");
                found.push(
                    Answer::warn("secret-in-image", message, "remove it from the image and change the secret; give it at run time")
                        .of(service),
                );
            }
        }
    }
    found
}

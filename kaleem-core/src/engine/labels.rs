//! The labels of what kaleem makes: the user's, Compose's (so that its commands keep working) and its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::{Dependency, DependencyCondition};
use crate::definition::Definition;
use crate::image::Digest;
use crate::names::ServiceName;
use crate::plan::{NewInstance, Role};
use crate::release::Target;
use crate::runtime::{InstanceSpec, compose_labels, kaleem_labels};

/// The version of Compose whose labels these are.
const COMPOSE_VERSION: &str = "2.26.1";

/// The container which `instance` describes. `image_id` is what the engine calls its image.
pub fn spec(target: &Target, instance: &NewInstance, definition: Definition, image_id: Option<&Digest>) -> InstanceSpec {
    let labels = labels(target, instance, &definition, image_id);
    InstanceSpec {
        name: instance.name.clone(),
        project: target.project.clone(),
        service: instance.service.clone(),
        image: instance.image.clone(),
        labels,
        definition: Arc::new(definition),
        companions: instance.companions.clone(),
    }
}

fn labels(target: &Target, instance: &NewInstance, definition: &Definition, image_id: Option<&Digest>) -> BTreeMap<String, String> {
    let ours = || {
        [
            (kaleem_labels::RELEASE, instance.release.to_string()),
            (kaleem_labels::DEFINITION, instance.definition.to_string()),
            (kaleem_labels::DIGEST, instance.image.digest.to_string()),
            (kaleem_labels::IMAGE, instance.image.image.to_string()),
        ]
    };
    let own = |(name, value): (&str, String)| (name.to_owned(), value);
    match &instance.role {
        // Nothing of Compose's: its `--remove-orphans` must not take the gateway away. The user's are those by which a proxy finds the service.
        Role::Gateway(gateway) => {
            let gateway = [(kaleem_labels::PROJECT, target.project.to_string()), (kaleem_labels::GATEWAY, gateway.to_string())];
            let mut labels = definition.labels.clone();
            labels.extend(gateway.into_iter().chain(ours()).map(own));
            labels
        }
        Role::Plain => {
            let mut labels = definition.labels.clone();
            labels.extend(compose(target, instance, image_id).into_iter().map(own));
            labels
        }
        Role::Instance => {
            let mut labels = definition.labels.clone();
            labels.extend(compose(target, instance, image_id).into_iter().chain(ours()).map(own));
            labels
        }
    }
}

/// The labels that Compose puts on a container of its own: while they are the same, its `up` leaves the container alone.
fn compose(target: &Target, instance: &NewInstance, image_id: Option<&Digest>) -> Vec<(&'static str, String)> {
    let files = target.files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(",");
    let wanted = target.services.get(&instance.service);
    // Where Compose's own hash is not known, Compose recreates the container.
    let hash = wanted.and_then(|wanted| wanted.compose_hash.clone()).unwrap_or_else(|| instance.definition.to_string());
    let dependency = |(name, dependency): (&ServiceName, &Dependency)| {
        let condition = match dependency.condition {
            DependencyCondition::ServiceStarted => "service_started",
            DependencyCondition::ServiceHealthy => "service_healthy",
            DependencyCondition::ServiceCompletedSuccessfully => "service_completed_successfully",
        };
        format!("{name}:{condition}:{}", dependency.restart)
    };
    let depends_on: Vec<String> = wanted.iter().flat_map(|wanted| &wanted.depends_on).map(dependency).collect();
    let mut labels = vec![
        (compose_labels::PROJECT, target.project.to_string()),
        (compose_labels::SERVICE, instance.service.to_string()),
        (compose_labels::NUMBER, instance.number.to_string()),
        (compose_labels::ONEOFF, "False".to_owned()),
        (compose_labels::CONFIG_HASH, hash),
        (compose_labels::CONFIG_FILES, files),
        (compose_labels::DEPENDS_ON, depends_on.join(",")),
        (compose_labels::WORKING_DIR, target.directory.display().to_string()),
        (compose_labels::VERSION, COMPOSE_VERSION.to_owned()),
    ];
    labels.extend(image_id.map(|id| (compose_labels::IMAGE, id.to_string())));
    labels
}

//! The labels of what kaleem makes: the user's, Compose's (so that its commands keep working) and its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::definition::Definition;
use crate::names::ReleaseId;
use crate::plan::{NewInstance, Role};
use crate::release::Target;
use crate::runtime::{InstanceSpec, compose_labels, kaleem_labels};

/// The version of Compose whose labels these are.
const COMPOSE_VERSION: &str = "2.26.1";

/// The container which `instance` describes.
pub fn spec(target: &Target, instance: &NewInstance, definition: Definition) -> InstanceSpec {
    let labels = labels(target, instance, &definition);
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

fn labels(target: &Target, instance: &NewInstance, definition: &Definition) -> BTreeMap<String, String> {
    if let Role::Gateway(gateway) = &instance.role {
        // Nothing of Compose's: its `--remove-orphans` must not take the gateway away.
        let ours = [
            (kaleem_labels::PROJECT, target.project.to_string()),
            (kaleem_labels::GATEWAY, gateway.to_string()),
            (kaleem_labels::RELEASE, instance.release.to_string()),
            (kaleem_labels::DEFINITION, instance.definition.to_string()),
            (kaleem_labels::DIGEST, instance.image.digest.to_string()),
            (kaleem_labels::IMAGE, instance.image.image.to_string()),
        ];
        // The user's are those by which a proxy finds the service.
        let ours = ours.into_iter().map(|(name, value)| (name.to_owned(), value));
        return definition.labels.clone().into_iter().chain(ours).collect();
    }
    if instance.role == Role::Plain {
        // Compose compares its own hash of the service; where it is not known, Compose makes the container anew when it is run.
        let hash = target.services.get(&instance.service).and_then(|wanted| wanted.compose_hash.clone());
        let hash = hash.unwrap_or_else(|| instance.definition.to_string());
        let theirs = compose(target, instance, hash);
        let mut labels = definition.labels.clone();
        labels.extend(theirs.into_iter().map(|(name, value)| (name.to_owned(), value)));
        return labels;
    }
    let release: ReleaseId = instance.release;
    let ours = [
        (kaleem_labels::RELEASE, release.to_string()),
        (kaleem_labels::DEFINITION, instance.definition.to_string()),
        (kaleem_labels::DIGEST, instance.image.digest.to_string()),
        (kaleem_labels::IMAGE, instance.image.image.to_string()),
    ];
    let mut labels = definition.labels.clone();
    let theirs = compose(target, instance, instance.definition.to_string());
    labels.extend(theirs.into_iter().chain(ours).map(|(name, value)| (name.to_owned(), value)));
    labels
}

/// The labels that Compose puts on a container of its own.
fn compose(target: &Target, instance: &NewInstance, hash: String) -> [(&'static str, String); 8] {
    let files = target.files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(",");
    [
        (compose_labels::PROJECT, target.project.to_string()),
        (compose_labels::SERVICE, instance.service.to_string()),
        (compose_labels::NUMBER, instance.number.to_string()),
        (compose_labels::ONEOFF, "False".to_owned()),
        (compose_labels::CONFIG_HASH, hash),
        (compose_labels::CONFIG_FILES, files),
        (compose_labels::WORKING_DIR, target.directory.display().to_string()),
        (compose_labels::VERSION, COMPOSE_VERSION.to_owned()),
    ]
}

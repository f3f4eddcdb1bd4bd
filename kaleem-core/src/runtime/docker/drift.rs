//! In what a container differs from what it is to be.

use std::collections::HashMap;

use bollard::models::{ContainerInspectResponse, EndpointSettings};
use bollard::query_parameters::DownloadFromContainerOptions;
use futures_util::StreamExt as _;

use super::failure::Failure;
use super::{DockerRuntime, body, compare, files};
use crate::definition::{InjectedFile, NetworkAttachment, NetworkMode};
use crate::runtime::{InstanceSpec, RuntimeError};

/// Aliases that engine and Compose add by themselves. The name of the service is none of them: where a gateway has it, nobody else may.
fn is_own_alias(alias: &str, spec: &InstanceSpec, found: &ContainerInspectResponse) -> bool {
    let id = found.id.as_deref().unwrap_or_default();
    let hostname = found.config.as_ref().and_then(|config| config.hostname.as_deref()).unwrap_or_default();
    alias == spec.name.as_str() || alias == hostname || (alias.len() >= 12 && id.starts_with(alias))
}

fn is_same_endpoint(
    wanted: &NetworkAttachment,
    found: &EndpointSettings,
    spec: &InstanceSpec,
    container: &ContainerInspectResponse,
) -> bool {
    let text = |text: Option<&String>| text.filter(|text| !text.is_empty()).cloned();
    let addresses = found.ipam_config.clone().unwrap_or_default();
    let aliases = found.aliases.clone().unwrap_or_default();
    let has_all = wanted.aliases.iter().all(|alias| aliases.contains(alias));
    let has_more = aliases.iter().any(|alias| !wanted.aliases.contains(alias) && !is_own_alias(alias, spec, container));
    let driver_opts = found.driver_opts.clone().unwrap_or_default();
    let mac_is_same = wanted.mac_address.is_none() || wanted.mac_address == found.mac_address || found.mac_address.as_deref() == Some("");
    has_all
        && !has_more
        && wanted.ipv4 == text(addresses.ipv4_address.as_ref())
        && wanted.ipv6 == text(addresses.ipv6_address.as_ref())
        && wanted.link_local_ips == addresses.link_local_ips.unwrap_or_default()
        && wanted.driver_opts.iter().all(|(key, value)| driver_opts.get(key) == Some(value))
        && mac_is_same
}

fn compare_networks(spec: &InstanceSpec, wanted_mode: &str, found: &ContainerInspectResponse, names: &mut Vec<String>) {
    let mode = found.host_config.as_ref().and_then(|host| host.network_mode.as_deref()).unwrap_or_default();
    let NetworkMode::Networks(attachments) = &spec.definition.network else {
        // Engines call their own bridge by two names.
        let canonical = |mode: &str| if mode == "default" { "bridge".to_owned() } else { mode.to_owned() };
        if canonical(mode) != canonical(wanted_mode) {
            names.push("network".to_owned());
        }
        return;
    };
    let none = Default::default();
    let endpoints = found.network_settings.as_ref().and_then(|settings| settings.networks.as_ref()).unwrap_or(&none);
    for attachment in attachments {
        let endpoint = endpoints.get(attachment.network.as_str());
        if !endpoint.is_some_and(|endpoint| is_same_endpoint(attachment, endpoint, spec, found)) {
            names.push(format!("network.{}", attachment.network));
        }
    }
    let is_wanted = |name: &&String| attachments.iter().any(|attachment| attachment.network.as_str() == name.as_str());
    let mut more: Vec<&String> = endpoints.keys().filter(|name| !is_wanted(name) && (!attachments.is_empty() || *name != "none")).collect();
    more.sort();
    names.extend(more.into_iter().map(|name| format!("network.{name}")));
}

/// The user's own labels: what Compose, kaleem and the image add is no difference.
fn compare_labels(
    spec: &InstanceSpec,
    found: Option<&HashMap<String, String>>,
    image: Option<&HashMap<String, String>>,
    names: &mut Vec<String>,
) {
    let none = HashMap::new();
    let (found, image) = (found.unwrap_or(&none), image.unwrap_or(&none));
    let wanted = &spec.definition.labels;
    let is_added = |key: &str| ["com.docker.", "desktop.docker.", "kaleem."].iter().any(|prefix| key.starts_with(prefix));
    let differs = wanted.iter().filter(|(key, value)| found.get(*key) != Some(value)).map(|(key, _)| key);
    let surplus = found.iter().filter(|(key, value)| !wanted.contains_key(*key) && image.get(*key) != Some(value)).map(|(key, _)| key);
    names.extend(differs.chain(surplus).filter(|key| !is_added(key)).map(|key| format!("labels.{key}")));
}

/// Whether the file in the container is the one that the definition brings.
async fn is_same_file(runtime: &DockerRuntime, id: &str, file: &InjectedFile) -> Result<bool, RuntimeError> {
    let operation = "read a file of the container";
    let options = DownloadFromContainerOptions { path: file.path.clone() };
    let mut pieces = Box::pin(runtime.client.download_from_container(id, Some(options)));
    // What is longer differs, and need not be read.
    let most = file.content.len().saturating_add(64 * 1024);
    let mut archive = Vec::new();
    loop {
        let piece = tokio::time::timeout(runtime.answer_timeout, pieces.next()).await;
        match piece {
            Ok(None) => break,
            Ok(Some(Ok(piece))) => archive.extend_from_slice(&piece),
            Ok(Some(Err(error))) => {
                let failure = Failure::new(operation, &runtime.endpoint, error);
                return if failure.is_missing() { Ok(false) } else { Err(failure.into_error()) };
            }
            Err(_) => return Err(Failure::silent(operation, &runtime.endpoint, runtime.answer_timeout).into_error()),
        }
        if archive.len() > most {
            return Ok(false);
        }
    }
    Ok(files::only_file(&archive).ok().flatten().is_some_and(|content| content == file.content.as_bytes()))
}

pub(super) async fn drift(runtime: &DockerRuntime, spec: &InstanceSpec) -> Result<Vec<String>, RuntimeError> {
    let Some(found) = runtime.look(spec.name.as_str()).await? else {
        return Err(RuntimeError::NotFound { name: spec.name.to_string() });
    };
    let wanted = body::create_body(spec, &runtime.companions(spec).await?, runtime.api)?;
    // What the engine filled in came from the image that the container was made from.
    let image = runtime.inspect_image(found.image.as_deref().unwrap_or_default()).await?;
    let image = image.and_then(|image| image.config).unwrap_or_default();
    let (config, host) = (found.config.clone().unwrap_or_default(), found.host_config.clone().unwrap_or_default());
    let mut names = compare::compare(&wanted, &config, &host, &image);
    let mode = wanted.host_config.as_ref().and_then(|host| host.network_mode.clone()).unwrap_or_default();
    compare_networks(spec, &mode, &found, &mut names);
    compare_labels(spec, config.labels.as_ref(), image.labels.as_ref(), &mut names);
    for file in &spec.definition.files {
        if !is_same_file(runtime, found.id.as_deref().unwrap_or_default(), file).await? {
            names.push(format!("files.{}", file.path));
        }
    }
    names.sort();
    names.dedup();
    Ok(names)
}

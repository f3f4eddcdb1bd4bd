//! What registries answer: manifests, indexes and image configurations, and how a platform is found among them.
//!
//! Everything here is pure. A document is believed only after its digest was compared, which the caller does.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use crate::image::Digest;
use crate::image::{ImageFacts, build_time};
use crate::registry::platform::{self, Platform, or_default};

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// What a request for a manifest says it understands.
pub(super) const ACCEPT_MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// A reference from one document to the next.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Descriptor {
    #[serde(rename = "mediaType", default)]
    media_type: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
    #[serde(default)]
    platform: Option<Platform>,
    #[serde(default, deserialize_with = "or_default")]
    annotations: BTreeMap<String, String>,
}

/// A manifest of one platform.
#[derive(Debug)]
pub(super) struct Manifest {
    pub(super) config: Descriptor,
    pub(super) layers_bytes: u64,
}

/// What a manifest request was answered with.
#[derive(Debug)]
pub(super) enum Document {
    Manifest(Manifest),
    Index(Vec<Descriptor>),
}

#[derive(Deserialize)]
struct RawDocument {
    #[serde(rename = "mediaType", default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<RawLayer>>,
}

#[derive(Deserialize)]
struct RawLayer {
    size: u64,
}

/// Reads a manifest or an index; the error is the reason why it is neither.
pub(super) fn parse_document(content_type: &str, body: &[u8]) -> Result<Document, String> {
    if content_type.starts_with("application/vnd.docker.distribution.manifest.v1") {
        return Err("it is in the old schema 1, which engines do not pull any more".to_owned());
    }
    if !is_json(content_type) {
        return Err(format!("it is `{}`, not a manifest", shown(content_type)));
    }
    let raw: RawDocument = parse_json("manifest", body)?;
    let inner = raw.media_type.as_deref().unwrap_or(content_type);
    // One body that can be read as an index and as a manifest means different images to different readers.
    if raw.manifests.is_some() && (raw.config.is_some() || raw.layers.is_some()) {
        return Err("its manifest is an index and an image at once".to_owned());
    }
    let known = |text: &str| [OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST].contains(&text);
    if known(content_type) && inner != content_type {
        return Err(format!("it is announced as `{}` and calls itself `{}`", shown(content_type), shown(inner)));
    }
    match (inner, raw.manifests, raw.config, raw.layers) {
        (OCI_INDEX | DOCKER_INDEX, Some(manifests), None, None) => Ok(Document::Index(manifests)),
        (OCI_MANIFEST | DOCKER_MANIFEST, None, Some(config), Some(layers)) => {
            if ![OCI_CONFIG, DOCKER_CONFIG].contains(&config.media_type.as_str()) {
                return Err(format!("it holds `{}`, which is not a container image", shown(&config.media_type)));
            }
            let layers_bytes = layers.iter().fold(0_u64, |sum, layer| sum.saturating_add(layer.size));
            Ok(Document::Manifest(Manifest { config, layers_bytes }))
        }
        _ => Err(format!("its manifest of type `{}` is incomplete or of no known kind", shown(inner))),
    }
}

/// Finds the entry of an index for `wanted`; the error is what there is, comma-separated.
pub(super) fn choose<'a>(entries: &'a [Descriptor], wanted: &Platform) -> Result<&'a Descriptor, String> {
    let images = || entries.iter().filter(|entry| !entry.is_attestation());
    let named = images().filter_map(|entry| Some((entry.platform.as_ref()?, entry)));
    if let Some(entry) = platform::best(named, wanted) {
        return Ok(entry);
    }
    let mut unnamed = images().filter(|entry| entry.platform.is_none());
    if let (Some(only), None) = (unnamed.next(), unnamed.next()) {
        // Its configuration will tell what it is for.
        return Ok(only);
    }
    Err(platform::list(images().filter_map(|entry| entry.platform.as_ref())))
}

impl Descriptor {
    /// Builders put provenance beside images, under the platform `unknown/unknown`.
    fn is_attestation(&self) -> bool {
        self.annotations.contains_key("vnd.docker.reference.type")
            || self.platform.as_ref().is_some_and(|platform| platform.os == "unknown")
    }
}

#[derive(Deserialize)]
struct RawConfig {
    #[serde(default, deserialize_with = "or_default")]
    os: String,
    #[serde(default, deserialize_with = "or_default")]
    architecture: String,
    #[serde(default, deserialize_with = "or_default")]
    variant: String,
    #[serde(default, deserialize_with = "or_default")]
    created: String,
    #[serde(default, deserialize_with = "or_default")]
    config: RawRunConfig,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RawRunConfig {
    #[serde(deserialize_with = "or_default")]
    user: String,
    #[serde(deserialize_with = "or_default")]
    exposed_ports: BTreeMap<String, serde::de::IgnoredAny>,
    #[serde(deserialize_with = "or_default")]
    env: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    entrypoint: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    cmd: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    volumes: BTreeMap<String, serde::de::IgnoredAny>,
    healthcheck: Option<RawHealthcheck>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawHealthcheck {
    #[serde(default, deserialize_with = "or_default")]
    test: Vec<String>,
    #[serde(default)]
    interval: u64,
}

/// Reads an image configuration; the error is the reason why it is none.
pub(super) fn parse_config(body: &[u8], layers_bytes: u64) -> Result<(ImageFacts, Option<Platform>), String> {
    let raw: RawConfig = parse_json("image configuration", body)?;
    let platform = Platform { os: raw.os, architecture: raw.architecture, variant: raw.variant };
    let platform = (!platform.os.is_empty() && !platform.architecture.is_empty()).then(|| platform.normal());
    // No test, or an empty one, inherits from nothing; `NONE` switches the check off.
    let healthcheck = raw.config.healthcheck.filter(|check| check.test.first().is_some_and(|first| !first.is_empty() && first != "NONE"));
    let mut environment_names: Vec<String> =
        raw.config.env.iter().map(|entry| entry.split('=').next().unwrap_or_default().to_owned()).collect();
    environment_names.sort_unstable();
    let facts = ImageFacts {
        user: raw.config.user,
        exposed_ports: raw.config.exposed_ports.into_keys().collect(),
        has_healthcheck: healthcheck.is_some(),
        healthcheck_interval: healthcheck.map(|check| check.interval).filter(|nanos| *nanos > 0).map(Duration::from_nanos),
        command: raw.config.entrypoint.into_iter().chain(raw.config.cmd).collect(),
        environment_names,
        labels: raw.config.labels,
        volumes: raw.config.volumes.into_keys().collect(),
        platform: platform.as_ref().map(ToString::to_string).unwrap_or_default(),
        size_bytes: layers_bytes,
        created: build_time(&raw.created),
    };
    Ok((facts, platform))
}

#[derive(Deserialize)]
struct RawTags {
    #[serde(default, deserialize_with = "or_default")]
    tags: Vec<String>,
}

/// Reads one page of a list of tags; the error is the reason why it is none.
pub(super) fn parse_tags(content_type: &str, body: &[u8]) -> Result<Vec<String>, String> {
    if !is_json(content_type) {
        return Err(format!("it is `{}`, not a list of tags", shown(content_type)));
    }
    parse_json::<RawTags>("list of tags", body).map(|raw| raw.tags)
}

fn is_json(content_type: &str) -> bool {
    content_type.is_empty() || content_type == "application/json" || content_type.ends_with("+json")
}

/// Parses JSON; the error names the place, never the content.
pub(super) fn parse_json<T: for<'de> Deserialize<'de>>(what: &str, body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| {
        let kind = match error.classify() {
            serde_json::error::Category::Eof => "ends too early",
            serde_json::error::Category::Syntax | serde_json::error::Category::Io => "is no JSON",
            serde_json::error::Category::Data => "lacks something or holds something else than it should",
        };
        format!("its {what} {kind} (line {}, column {})", error.line(), error.column())
    })
}

/// Text of others, short and on one line.
pub(super) fn shown(text: &str) -> String {
    let clean: String = text.chars().filter(|c| !c.is_control()).take(100).collect();
    if clean.is_empty() { "nothing".to_owned() } else { clean }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(platform: &str) -> Descriptor {
        let digest = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
        let mut parts = platform.split('/').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        let platform = (!platform.is_empty()).then(|| Platform { os: next(), architecture: next(), variant: next() });
        Descriptor { media_type: String::new(), digest, size: 0, platform, annotations: BTreeMap::new() }
    }

    #[test]
    fn the_best_entry_that_runs_on_the_machine_is_chosen() {
        for (why, wanted, entries, chosen) in [
            ("exact", "linux/amd64", &["linux/arm64", "linux/amd64"][..], Ok(1)),
            ("v8 is what arm64 means", "linux/arm64", &["linux/amd64", "linux/arm64/v8"], Ok(1)),
            ("and the other way round", "linux/arm64/v8", &["linux/arm64"], Ok(0)),
            ("the kernel's name for it", "linux/aarch64", &["linux/arm64/v8"], Ok(0)),
            ("v7 is what arm means", "linux/arm", &["linux/arm/v6", "linux/arm/v7"], Ok(1)),
            ("the newest that still runs", "linux/arm/v7", &["linux/arm/v5", "linux/arm/v6"], Ok(1)),
            ("never a newer one", "linux/arm/v6", &["linux/arm/v7"], Err("linux/arm/v7")),
            ("a plain build runs on a newer machine", "linux/amd64/v3", &["linux/amd64/v4", "linux/amd64"], Ok(1)),
            ("of equals the first", "linux/amd64", &["linux/amd64", "linux/amd64"], Ok(0)),
            ("another system", "linux/amd64", &["windows/amd64"], Err("windows/amd64")),
            ("what there is, each once", "linux/s390x", &["linux/arm64/v8", "linux/amd64", "linux/arm64"], Err("linux/amd64, linux/arm64")),
            ("provenance is no image", "linux/amd64", &["unknown/unknown"], Err("no platform")),
            ("one that does not say", "linux/amd64", &["", "unknown/unknown"], Ok(0)),
            ("two that do not say", "linux/amd64", &["", ""], Err("no platform")),
        ] {
            let entries: Vec<_> = entries.iter().map(|text| entry(text)).collect();
            let wanted = Platform::parse(wanted).unwrap();
            let found = choose(&entries, &wanted).map(|entry| entries.iter().position(|other| std::ptr::eq(other, entry)).unwrap());
            assert_eq!(found, chosen.map_err(str::to_owned), "{why}");
        }
        for text in ["", "linux", "linux/", "/amd64", "a/b/c/d"] {
            assert_eq!(Platform::parse(text), None, "{text:?} is no platform");
        }
    }

    #[test]
    fn documents_that_could_be_read_in_two_ways_are_refused() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let config = format!(r#""config":{{"mediaType":"{OCI_CONFIG}","digest":"{digest}","size":1}},"layers":[]"#);
        for (why, content_type, body, ok) in [
            ("plain", OCI_MANIFEST, format!("{{{config}}}"), true),
            ("named inside only", "application/json", format!(r#"{{"mediaType":"{OCI_MANIFEST}",{config}}}"#), true),
            ("named nowhere", "application/json", format!("{{{config}}}"), false),
            ("an index and an image", OCI_MANIFEST, format!(r#"{{{config},"manifests":[]}}"#), false),
            ("names that differ", OCI_MANIFEST, format!(r#"{{"mediaType":"{OCI_INDEX}",{config}}}"#), false),
            ("an index that holds an image", OCI_INDEX, format!("{{{config}}}"), false),
            ("a chart", OCI_MANIFEST, format!("{{{}}}", config.replace(OCI_CONFIG, "application/vnd.cncf.helm.config.v1+json")), false),
            ("a page", "text/html", "<html>".to_owned(), false),
            ("the old schema", "application/vnd.docker.distribution.manifest.v1+prettyjws", "{}".to_owned(), false),
            ("cut", OCI_MANIFEST, format!("{{{config}"), false),
        ] {
            let parsed = parse_document(content_type, body.as_bytes());
            assert_eq!(parsed.is_ok(), ok, "{why}: {parsed:?}");
        }
    }

    #[test]
    fn a_configuration_with_nothing_but_nulls_is_read() {
        let body = br#"{"os":"linux","architecture":"arm64","variant":"v8","config":{"User":"","ExposedPorts":null,"Env":null,
            "Labels":null,"Volumes":null,"Healthcheck":null},"history":null}"#;
        let (facts, _) = parse_config(body, 7).unwrap();
        assert_eq!(facts, ImageFacts { platform: "linux/arm64".to_owned(), size_bytes: 7, ..ImageFacts::default() });
        for (why, check, expected) in [
            ("a check", r#"{"Test":["CMD","true"],"Interval":5000000000}"#, (true, Some(Duration::from_secs(5)))),
            ("the engine's own interval", r#"{"Test":["CMD-SHELL","true"]}"#, (true, None)),
            ("switched off", r#"{"Test":["NONE"],"Interval":5000000000}"#, (false, None)),
            ("inherited from nothing", r#"{"Test":[]}"#, (false, None)),
            ("nothing", r#"{"Test":null}"#, (false, None)),
        ] {
            let (facts, _) = parse_config(format!(r#"{{"config":{{"Healthcheck":{check}}}}}"#).as_bytes(), 0).unwrap();
            assert_eq!((facts.has_healthcheck, facts.healthcheck_interval), expected, "{why}");
        }
    }
}

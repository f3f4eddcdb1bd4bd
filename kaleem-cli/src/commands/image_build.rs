//! `kaleem deploy --build`: images are built by the Docker client, which knows contexts, ignore files and build secrets.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use kaleem_core::config::{Build, Project, Service};
use kaleem_core::exec::{ExecRequest, run_streaming};
use kaleem_core::image::ImageRef;
use kaleem_core::names::ServiceName;
use kaleem_core::observed::image_reference;
use kaleem_core::secret::Secret;

use crate::error::CliError;
use crate::render::Printer;
use crate::render::style::{FAINT, paint};
use crate::wiring::Wiring;

/// Time a build may take.
const LIMIT: Duration = Duration::from_secs(2 * 3600);
/// A line of a build's output is cut to this.
const LINE_BYTES: usize = 16 * 1024;
/// Lines of a failed build that are shown where its output was not.
const LAST_LINES: usize = 12;

/// Builds the images of the services in `only`; where it is empty, of every service with `build:` for which no other image was chosen.
///
/// # Errors
///
/// [`CliError::NotBuildable`], [`CliError::BuildFailed`], [`CliError::BuildTool`], [`CliError::BuildImage`]; no service was touched.
pub(crate) async fn run(
    project: &Project,
    only: &[ServiceName],
    chosen: &BTreeMap<ServiceName, ImageRef>,
    wiring: &Wiring,
    printer: &Printer,
) -> Result<(), CliError> {
    let buildable = |name: &ServiceName| project.services.get(name).is_some_and(|service| service.build.is_some());
    if let Some(service) = only.iter().find(|name| !buildable(name) || chosen.contains_key(*name)) {
        let known = project.services.keys().filter(|name| buildable(name) && !chosen.contains_key(*name)).map(ServiceName::as_str);
        return Err(CliError::NotBuildable { service: service.clone(), known: known.collect::<Vec<_>>().join(", ") });
    }
    let wanted = |service: &&Service| !chosen.contains_key(&service.name) && (only.is_empty() || only.contains(&service.name));
    for service in project.services.values().filter(wanted) {
        let Some(build) = &service.build else { continue };
        let failed = |source| CliError::BuildImage { service: service.name.clone(), source };
        let image = image_reference(&project.name, service, None).map_err(failed)?;
        printer.note(&format!("building {image} for {}", service.name));
        let mut environment = wiring.environment().variables().clone();
        environment.insert("DOCKER_BUILDKIT".to_owned(), "1".to_owned());
        let request = ExecRequest {
            program: PathBuf::from("docker"),
            arguments: arguments(build, service, &image),
            environment,
            stdin: build.dockerfile_inline.as_ref().map(|text| Secret::new(text.clone().into_bytes())),
            directory: Some(project.directory.clone()),
            timeout: LIMIT,
            max_output_bytes: LINE_BYTES,
        };
        let prefix = paint(FAINT, &format!("{} |", service.name));
        let mut last = VecDeque::new();
        let status = run_streaming(&request, |_, line| {
            printer.note(&format!("{prefix} {line}"));
            last.push_back(line.to_owned());
            if last.len() > LAST_LINES {
                last.pop_front();
            }
        })
        .await;
        let status = status.map_err(|source| CliError::BuildTool { service: service.name.clone(), source })?;
        if !status.success() {
            // Who saw the build needs no second look at it.
            let lines = last.iter().map(|line| format!("\n{line}")).collect::<String>();
            let log = if printer.shows_notes() { String::new() } else { format!("; its last lines:{lines}") };
            return Err(CliError::BuildFailed { service: service.name.clone(), status: status.to_string(), log });
        }
    }
    Ok(())
}

/// The command line of `docker build`. Arguments without a value are taken from the environment by the client itself.
fn arguments(build: &Build, service: &Service, image: &ImageRef) -> Vec<String> {
    let mut words = vec!["build".to_owned(), "--tag".to_owned(), image.to_string()];
    let mut flag = |name: &str, value: String| words.extend([format!("--{name}"), value]);
    build.tags.iter().for_each(|tag| flag("tag", tag.clone()));
    match (&build.dockerfile_inline, &build.dockerfile) {
        (Some(_), _) => flag("file", "-".to_owned()),
        // The client takes it from its own directory, Compose from the context.
        (None, Some(file)) if !build.context.contains("://") => {
            flag("file", PathBuf::from(&build.context).join(file).display().to_string());
        }
        (None, Some(file)) => flag("file", file.clone()),
        (None, None) => {}
    }
    for (name, value) in &build.args {
        flag("build-arg", value.as_ref().map_or_else(|| name.clone(), |value| format!("{name}={value}")));
    }
    build.labels.iter().for_each(|(name, value)| flag("label", format!("{name}={value}")));
    build.cache_from.iter().for_each(|from| flag("cache-from", from.clone()));
    build.extra_hosts.iter().for_each(|(name, address)| flag("add-host", format!("{name}:{address}")));
    build.secrets.iter().for_each(|(id, path)| flag("secret", format!("id={id},src={}", path.display())));
    build.ssh.iter().for_each(|socket| flag("ssh", socket.clone()));
    build.additional_contexts.iter().for_each(|(name, place)| flag("build-context", format!("{name}={place}")));
    if let Some(target) = &build.target {
        flag("target", target.clone());
    }
    if let Some(network) = &build.network {
        flag("network", network.clone());
    }
    if let Some(bytes) = build.shm_size_bytes {
        flag("shm-size", bytes.to_string());
    }
    let platform = service.definition.platform.clone().or_else(|| build.platforms.first().cloned());
    if let Some(platform) = platform {
        flag("platform", platform);
    }
    if build.pull {
        words.push("--pull".to_owned());
    }
    if build.no_cache {
        words.push("--no-cache".to_owned());
    }
    words.push("--".to_owned());
    words.push(build.context.clone());
    words
}

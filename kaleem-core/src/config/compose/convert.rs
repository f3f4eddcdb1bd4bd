//! The long form as typed definitions: the last stage, and the one that says what is not carried out.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use crate::config::compose::error::{ConfigError, ProblemKind};
use crate::config::compose::files::Found;
use crate::config::compose::quantity::parse_go_duration;
use crate::config::compose::tree::{Mark, Node, Problems};
use crate::config::compose::{check, hash};
use crate::config::{
    Build, ConfigWarning, Dependency, DependencyCondition, Inputs, Project, PullPolicy, Service, Settings, UpdateOrder, UpdateSettings,
};
use crate::image::ImageRef;
use crate::names::{ContainerName, ProjectName, ServiceName};
use crate::remedy::Remedy;

mod container;
mod mounts;
mod network;
mod resources;

/// Most containers that one service may ask for: more is a slip of the finger.
const REPLICAS_LIMIT: i64 = 1000;

/// The typed project.
pub(super) fn project(
    model: &Node,
    name: ProjectName,
    found: Found,
    mut problems: Problems,
    mut warnings: Vec<ConfigWarning>,
    inputs: Inputs,
) -> Result<Project, ConfigError> {
    check::check_host(model, &mut problems);
    let mut converter = Converter { model, environment: &found.environment, problems: &mut problems, warnings: &mut warnings };
    let mut services = BTreeMap::new();
    for (name, node) in model.entries("services") {
        if let Some(service) = converter.service(name, node) {
            services.insert(service.name.clone(), service);
        }
    }
    network::link_aliases(model, &mut services, converter.problems);
    let networks = converter.networks();
    let volumes = converter.volumes();
    if !problems.0.is_empty() {
        problems.0.sort_by(|one, other| {
            let place = |problem: &super::error::Problem| (problem.origin.file.clone(), problem.origin.line, problem.origin.column);
            place(one).cmp(&place(other))
        });
        return Err(ConfigError::Invalid { problems: problems.0 });
    }
    let (files, directory) = (found.files, found.directory);
    Ok(Project { name, directory, files, services, networks, volumes, warnings, settings: Settings::default(), inputs })
}

struct Converter<'a> {
    model: &'a Node,
    environment: &'a BTreeMap<String, String>,
    problems: &'a mut Problems,
    warnings: &'a mut Vec<ConfigWarning>,
}

impl Converter<'_> {
    fn refuse(&mut self, mark: &Mark, path: &str, reason: impl Into<String>, remedy: impl Into<String>) {
        self.problems.add(mark, path, ProblemKind::NotCarriedOut, reason, remedy);
    }

    fn warn(&mut self, mark: &Mark, path: &str, reason: impl Into<String>) {
        self.warnings.push(ConfigWarning { origin: mark.origin(), key: path.to_owned(), reason: reason.into() });
    }

    /// The value under `key`, checked by its type.
    fn parsed<T: FromStr>(&mut self, node: &Node, path: &str, key: &str) -> Option<T>
    where
        T::Err: Remedy,
    {
        let value = node.get(key)?;
        match value.text().unwrap_or_default().parse() {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                self.problems.add(&value.mark, &format!("{path}.{key}"), ProblemKind::BadValue, error.to_string(), error.remedy());
                None
            }
        }
    }

    fn service(&mut self, name: &str, node: &Node) -> Option<Service> {
        let path = format!("services.{name}");
        // A name that is not one was refused by the check.
        let service_name: ServiceName = name.parse().ok()?;
        let image = self.parsed::<ImageRef>(node, &path, "image");
        let container_name = self.parsed::<ContainerName>(node, &path, "container_name");
        let build = node.get("build").map(|build| self.build(build, &path));
        let pull_policy = self.pull_policy(node, &path);
        let replicas = self.replicas(node, &path);
        let update = update_settings(node);
        let definition = self.definition(&service_name, node, &path);
        Some(Service {
            image,
            build,
            pull_policy,
            replicas,
            container_name,
            depends_on: dependencies(node, self.model),
            definition,
            update,
            compose_hash: hash::of_service(&node.to_json()),
            origin: node.place().origin(),
            name: service_name,
        })
    }

    fn pull_policy(&mut self, node: &Node, path: &str) -> PullPolicy {
        let Some(policy) = node.get("pull_policy") else { return PullPolicy::default() };
        match policy.text().unwrap_or_default() {
            "always" => PullPolicy::Always,
            "never" => PullPolicy::Never,
            "missing" | "if_not_present" => PullPolicy::Missing,
            "build" => PullPolicy::Build,
            other => {
                let remedy = "write `always`, `never`, `missing` or `build`";
                self.refuse(&policy.mark, &format!("{path}.pull_policy"), format!("there is no pull policy `{other}`"), remedy);
                PullPolicy::default()
            }
        }
    }

    fn replicas(&mut self, node: &Node, path: &str) -> u32 {
        let deploy = node.get("deploy");
        if let Some(mode) = deploy.and_then(|deploy| deploy.get("mode")) {
            let key = format!("{path}.deploy.mode");
            match mode.text().unwrap_or_default() {
                "replicated" => {}
                "global" => self.warn(&mode.mark, &key, "there is one host, so `global` is one container"),
                other => {
                    self.refuse(&mode.mark, &key, format!("the mode `{other}` exists only in a swarm"), "remove it");
                }
            }
        }
        let number = node.get("scale").or_else(|| deploy.and_then(|deploy| deploy.get("replicas")));
        let Some((number, value)) = number.and_then(|number| Some((number, number.scalar_text()?.parse::<i64>().ok()?))) else { return 1 };
        if !(0..=REPLICAS_LIMIT).contains(&value) {
            let key = format!("{path}.scale");
            let reason = format!("{value} is not a number of containers");
            self.problems.add(&number.mark, &key, ProblemKind::BadValue, reason, format!("write a number from 0 to {REPLICAS_LIMIT}"));
        }
        u32::try_from(value).unwrap_or(1)
    }

    fn build(&mut self, build: &Node, path: &str) -> Build {
        let mut secrets = Vec::new();
        for secret in build.get_list("secrets") {
            let source = secret.get_text("source").unwrap_or_default();
            let id = secret.get_text("target").unwrap_or(source).rsplit('/').next().unwrap_or_default().to_owned();
            let definition = self.model.get("secrets").and_then(|all| all.get(source));
            match definition.and_then(|definition| definition.get_text("file")) {
                Some(file) => secrets.push((id, file.into())),
                None => self.refuse(
                    &secret.mark,
                    &format!("{path}.build.secrets"),
                    format!("the secret `{source}` is not in a file"),
                    "give it with `file:`",
                ),
            }
        }
        let text = |key: &str| build.get_text(key).map(str::to_owned);
        Build {
            context: text("context").unwrap_or_default(),
            dockerfile: text("dockerfile"),
            dockerfile_inline: text("dockerfile_inline"),
            args: optional_pairs(build, "args"),
            target: text("target"),
            labels: pairs(build, "labels"),
            cache_from: texts(build, "cache_from"),
            network: text("network"),
            tags: texts(build, "tags"),
            platforms: texts(build, "platforms"),
            extra_hosts: network::hosts(build),
            pull: build.get_bool("pull").unwrap_or(false),
            no_cache: build.get_bool("no_cache").unwrap_or(false),
            shm_size_bytes: unsigned(build, "shm_size"),
            secrets,
            ssh: texts(build, "ssh"),
            additional_contexts: pairs(build, "additional_contexts"),
        }
    }
}

/// Dependencies on services that take part.
fn dependencies(node: &Node, model: &Node) -> BTreeMap<ServiceName, Dependency> {
    let mut all = BTreeMap::new();
    let taking_part = |name: &str| model.get("services").is_some_and(|services| services.get(name).is_some());
    for (name, dependency) in node.entries("depends_on").filter(|(name, _)| taking_part(name)) {
        let condition = match dependency.get_text("condition") {
            Some("service_healthy") => DependencyCondition::ServiceHealthy,
            Some("service_completed_successfully") => DependencyCondition::ServiceCompletedSuccessfully,
            _ => DependencyCondition::ServiceStarted,
        };
        let restart = dependency.get_bool("restart").unwrap_or(false);
        let required = dependency.get_bool("required").unwrap_or(true);
        if let Ok(name) = name.parse() {
            all.insert(name, Dependency { condition, restart, required });
        }
    }
    all
}

fn update_settings(node: &Node) -> UpdateSettings {
    let Some(update) = node.get("deploy").and_then(|deploy| deploy.get("update_config")) else { return UpdateSettings::default() };
    UpdateSettings {
        parallelism: update.get_int("parallelism").and_then(|value| u64::try_from(value).ok()),
        delay: duration(update, "delay"),
        order: match update.get_text("order") {
            Some("start-first") => Some(UpdateOrder::StartFirst),
            Some("stop-first") => Some(UpdateOrder::StopFirst),
            _ => None,
        },
        monitor: duration(update, "monitor"),
    }
}

fn texts(node: &Node, key: &str) -> Vec<String> {
    node.get_list(key).iter().filter_map(Node::scalar_text).collect()
}

/// `None` where the key is absent, which is not the same as an empty list.
fn optional_texts(node: &Node, key: &str) -> Option<Vec<String>> {
    node.get(key).map(|list| list.list().iter().filter_map(Node::scalar_text).collect())
}

fn pairs(node: &Node, key: &str) -> BTreeMap<String, String> {
    node.entries(key).map(|(key, value)| (key.clone(), value.scalar_text().unwrap_or_default())).collect()
}

fn optional_pairs(node: &Node, key: &str) -> BTreeMap<String, Option<String>> {
    node.entries(key).map(|(key, value)| (key.clone(), value.scalar_text())).collect()
}

fn owned(node: &Node, key: &str) -> Option<String> {
    node.get_text(key).map(str::to_owned)
}

fn unsigned(node: &Node, key: &str) -> Option<u64> {
    node.get_int(key).and_then(|value| u64::try_from(value).ok())
}

fn duration(node: &Node, key: &str) -> Option<Duration> {
    node.get_text(key).and_then(parse_go_duration)
}

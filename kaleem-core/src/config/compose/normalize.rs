//! What Compose adds to a project that its files leave unsaid: full names, the default network, implied dependencies,
//! variables of `env_file:`; and which services take part at all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::config::ConfigWarning;
use crate::config::compose::error::{ConfigError, ProblemKind};
use crate::config::compose::files;
use crate::config::compose::tree::{Map, Node, Problems, Value, nearest};
use crate::names::ProjectName;

pub(super) struct Normalizer<'a> {
    pub(super) name: &'a ProjectName,
    pub(super) directory: &'a Path,
    pub(super) environment: &'a BTreeMap<String, String>,
    /// Active profiles; `*` is all.
    pub(super) profiles: &'a BTreeSet<String>,
    pub(super) problems: &'a mut Problems,
    pub(super) warnings: &'a mut Vec<ConfigWarning>,
}

impl Normalizer<'_> {
    /// Completes `project` in place. Gives the names of the services whose profiles are not active.
    ///
    /// # Errors
    ///
    /// Those of reading an `env_file:` that is there.
    pub(super) fn run(&mut self, project: &mut Node) -> Result<BTreeSet<String>, ConfigError> {
        let place = project.mark.clone();
        let Some(map) = project.map_mut() else { return Ok(BTreeSet::new()) };
        for section in ["services", "networks", "volumes", "secrets", "configs"] {
            let entry = map.entry(section.to_owned()).or_insert_with(|| Node::new(Value::Map(Map::new()), place.clone()));
            if entry.map().is_none() {
                entry.value = Value::Map(Map::new());
            }
        }
        map.insert("name".to_owned(), Node::new(Value::Text(self.name.to_string()), place));
        self.networks(map);
        for section in ["networks", "volumes", "secrets", "configs"] {
            self.full_names(map, section);
        }
        let mut services = take(map, "services");
        let disabled = self.apply_profiles(&mut services);
        for (name, service) in &mut services {
            let path = format!("services.{name}");
            self.variables(service, &path)?;
            implied_dependencies(service);
            build_defaults(service, self.directory, self.environment);
            replicas(service, &path, self.problems);
            secret_targets(service);
            empty_groups(service);
        }
        self.dependencies(&mut services, &disabled);
        put(map, "services", services);
        Ok(disabled)
    }

    /// A service that says nothing of networks is on `default`.
    fn networks(&self, map: &mut Map) {
        let mut uses_default = false;
        for service in map.get_mut("services").and_then(Node::map_mut).into_iter().flat_map(Map::values_mut) {
            let place = service.made(Value::Null);
            let Some(service) = service.map_mut() else { continue };
            let on_its_own = service.get("network_mode").is_some_and(|mode| !mode.is_null());
            let named = service.get("networks").and_then(Node::map).is_some_and(|networks| !networks.is_empty());
            if !on_its_own && !named {
                let mut networks = place.clone();
                networks.value = Value::Map(Map::from([("default".to_owned(), place)]));
                service.insert("networks".to_owned(), networks);
            }
            uses_default |= service.get("networks").and_then(Node::map).is_some_and(|networks| networks.contains_key("default"));
        }
        if let Some(networks) = map.get_mut("networks").filter(|_| uses_default) {
            let empty = networks.made(Value::Map(Map::new()));
            if let Some(networks) = networks.map_mut() {
                networks.entry("default".to_owned()).or_insert(empty);
            }
        }
    }

    fn full_names(&self, map: &mut Map, section: &str) {
        let Some(entries) = map.get_mut(section).and_then(Node::map_mut) else { return };
        for (key, entry) in entries {
            if entry.is_null() {
                entry.value = Value::Map(Map::new());
            }
            let external = entry.get_bool("external") == Some(true);
            let name = entry.text_here(if external { key.clone() } else { format!("{}_{key}", self.name) });
            let empty = entry.made(Value::Map(Map::new()));
            let Some(entry) = entry.map_mut() else { continue };
            if entry.get("name").is_none_or(Node::is_null) {
                entry.insert("name".to_owned(), name);
            }
            if section == "networks" && entry.get("ipam").is_none_or(Node::is_null) {
                entry.insert("ipam".to_owned(), empty);
            }
        }
    }

    /// Takes out the services of profiles that are not active; gives their names.
    fn apply_profiles(&self, services: &mut Map) -> BTreeSet<String> {
        let mut disabled = BTreeSet::new();
        services.retain(|name, service| {
            let profiles = service.get_list("profiles");
            let active = |profile: &Node| profile.text().is_some_and(|profile| self.profiles.contains(profile));
            let enabled = profiles.is_empty() || self.profiles.contains("*") || profiles.iter().any(active);
            if !enabled {
                disabled.insert(name.clone());
            }
            enabled
        });
        disabled
    }

    /// `environment:` over the files of `env_file:`; a variable without a value takes that of the project.
    fn variables(&mut self, service: &mut Node, path: &str) -> Result<(), ConfigError> {
        let mut variables = Map::new();
        let env_files: Vec<Node> = service.get_list("env_file").to_vec();
        let mut known = BTreeMap::new();
        for entry in &env_files {
            let Some(file) = entry.get_text("path").map(PathBuf::from) else { continue };
            if !file.is_file() && !file.is_dir() {
                if entry.get_bool("required") != Some(false) {
                    let reason = format!("the file `{}` is not there", file.display());
                    let remedy = "make the file, or write it as `path:` with `required: false`";
                    self.problems.add(&entry.mark, &format!("{path}.env_file"), ProblemKind::MissingFile, reason, remedy);
                }
                continue;
            }
            let mut outer = self.environment.clone();
            outer.extend(known.clone());
            for (name, value) in files::variables_of(&[file], &outer, self.warnings)? {
                variables.insert(name.clone(), entry.text_here(value.clone()));
                known.insert(name, value);
            }
        }
        self.label_files(service, path)?;
        let Some(map) = service.map_mut() else { return Ok(()) };
        map.remove("env_file");
        for (name, mut value) in take(map, "environment") {
            if let (true, Some(found)) = (value.is_null(), self.environment.get(&name)) {
                value.value = Value::Text(found.clone());
            }
            variables.insert(name, value);
        }
        put(map, "environment", variables);
        Ok(())
    }

    fn label_files(&mut self, service: &mut Node, path: &str) -> Result<(), ConfigError> {
        let mut labels = Map::new();
        for entry in service.get_list("label_file") {
            let Some(file) = entry.text().map(PathBuf::from) else { continue };
            if !file.is_file() {
                let reason = format!("the file `{}` is not there", file.display());
                self.problems.add(
                    &entry.mark,
                    &format!("{path}.label_file"),
                    ProblemKind::MissingFile,
                    reason,
                    "make the file or remove it here",
                );
                continue;
            }
            let found = files::variables_of(&[file], self.environment, self.warnings)?;
            labels.extend(found.into_iter().map(|(name, value)| (name, entry.text_here(value))));
        }
        let Some(map) = service.map_mut() else { return Ok(()) };
        map.remove("label_file");
        labels.extend(take(map, "labels"));
        put(map, "labels", labels);
        Ok(())
    }

    /// Refuses what depends on nothing that is there; drops what may be absent.
    fn dependencies(&mut self, services: &mut Map, disabled: &BTreeSet<String>) {
        let names: Vec<String> = services.keys().cloned().collect();
        for (name, service) in services {
            let Some(all) = service.map_mut().and_then(|map| map.get_mut("depends_on")).and_then(Node::map_mut) else { continue };
            all.retain(|other, dependency| {
                if names.contains(other) {
                    return true;
                }
                // One that is switched off stays in the model, as with Compose, and is not waited for.
                if dependency.get_bool("required") == Some(false) {
                    return disabled.contains(other);
                }
                let path = format!("services.{name}.depends_on");
                let (reason, remedy) = if disabled.contains(other) {
                    let reason = format!("the service `{other}` has a profile that is not active");
                    (reason, "activate its profile, or write `required: false`".to_owned())
                } else {
                    let meant = nearest(other, names.iter().map(String::as_str));
                    (
                        format!("there is no service `{other}`"),
                        meant.map_or("name a service of the project".to_owned(), |meant| format!("did you mean `{meant}`?")),
                    )
                };
                self.problems.add(dependency.place(), &path, ProblemKind::Undefined, reason, remedy);
                true
            });
        }
    }
}

fn take(map: &mut Map, key: &str) -> Map {
    match map.get_mut(key).map(|node| std::mem::replace(&mut node.value, Value::Null)) {
        Some(Value::Map(inner)) => inner,
        _ => Map::new(),
    }
}

fn put(map: &mut Map, key: &str, inner: Map) {
    if let Some(node) = map.get_mut(key) {
        node.value = Value::Map(inner);
    } else if let Some(first) = inner.values().next() {
        let node = first.made(Value::Map(inner.clone()));
        map.insert(key.to_owned(), node);
    }
}

/// Links, `volumes_from` and namespaces of other services are dependencies.
fn implied_dependencies(service: &mut Node) {
    let mut implied: Vec<(String, bool, Node)> = Vec::new();
    for link in service.get_list("links") {
        let target = link.text().and_then(|link| link.split(':').next()).unwrap_or_default();
        implied.push((target.to_owned(), true, link.clone()));
    }
    for key in ["network_mode", "ipc", "pid", "uts", "cgroup"] {
        if let Some(node) = service.get(key)
            && let Some(target) = node.text().and_then(|text| text.strip_prefix("service:"))
        {
            implied.push((target.to_owned(), true, node.clone()));
        }
    }
    for node in service.get_list("volumes_from") {
        let spec = node.text().unwrap_or_default();
        if !spec.starts_with("container:") {
            implied.push((spec.split(':').next().unwrap_or_default().to_owned(), false, node.clone()));
        }
    }
    if implied.is_empty() {
        return;
    }
    let Some(map) = service.map_mut() else { return };
    let mut all = take(map, "depends_on");
    for (target, restart, at) in implied {
        let entries =
            [("condition", Value::Text("service_started".to_owned())), ("required", Value::Bool(true)), ("restart", Value::Bool(restart))];
        let entries = entries.into_iter().map(|(key, value)| (key.to_owned(), at.made(value))).collect();
        all.entry(target).or_insert_with(|| at.made(Value::Map(entries)));
    }
    put(map, "depends_on", all);
}

fn build_defaults(service: &mut Node, directory: &Path, environment: &BTreeMap<String, String>) {
    let Some(build) = service.map_mut().and_then(|map| map.get_mut("build")).filter(|build| !build.is_null()) else { return };
    let context = build.text_here(directory.display().to_string());
    let dockerfile = build.text_here("Dockerfile");
    let Some(map) = build.map_mut() else { return };
    let missing = |map: &Map, key: &str| map.get(key).is_none_or(Node::is_null);
    if missing(map, "context") {
        map.insert("context".to_owned(), context);
    }
    if missing(map, "dockerfile") && missing(map, "dockerfile_inline") {
        map.insert("dockerfile".to_owned(), dockerfile);
    }
    let mut arguments = take(map, "args");
    arguments.retain(|name, value| {
        if let (true, Some(found)) = (value.is_null(), environment.get(name)) {
            value.value = Value::Text(found.clone());
        }
        !value.is_null()
    });
    put(map, "args", arguments);
}

/// `scale` and `deploy.replicas` say the same.
fn replicas(service: &mut Node, path: &str, problems: &mut Problems) {
    let scale = service.get("scale").cloned();
    let replicas = service.get("deploy").and_then(|deploy| deploy.get("replicas")).cloned();
    match (scale, replicas) {
        (Some(scale), Some(replicas)) if scale.to_json() != replicas.to_json() => {
            let reason = "`scale` and `deploy.replicas` say different numbers";
            problems.add(scale.place(), &format!("{path}.scale"), ProblemKind::Conflict, reason, "remove one of them");
        }
        (Some(scale), None) => {
            if let Some(deploy) = service.map_mut().and_then(|map| map.get_mut("deploy")).and_then(Node::map_mut) {
                deploy.insert("replicas".to_owned(), scale);
            }
        }
        _ => {}
    }
}

fn secret_targets(service: &mut Node) {
    let Some(Value::List(list)) = service.map_mut().and_then(|map| map.get_mut("secrets")).map(|node| &mut node.value) else { return };
    for secret in list {
        let target = secret.get_text("source").map(|source| secret.text_here(format!("/run/secrets/{source}")));
        if let (Some(target), Some(map)) = (target, secret.map_mut())
            && map.get("target").is_none_or(Node::is_null)
        {
            map.insert("target".to_owned(), target);
        }
    }
}

/// Compose prints these groups of `deploy:` even where they are empty.
fn empty_groups(service: &mut Node) {
    let Some(deploy) = service.map_mut().and_then(|map| map.get_mut("deploy")).filter(|deploy| !deploy.is_null()) else { return };
    let empty = deploy.made(Value::Map(Map::new()));
    let Some(map) = deploy.map_mut() else { return };
    for group in ["resources", "placement"] {
        if map.get(group).is_none_or(Node::is_null) {
            map.insert(group.to_owned(), empty.clone());
        }
    }
}

/// Leaves out the networks, volumes, secrets and configs that no service uses.
pub(super) fn used_only(project: &mut Node) {
    let Some(map) = project.map_mut() else { return };
    let services = map.get("services").and_then(Node::map).cloned().unwrap_or_default();
    let mut used: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let mut add = |section, name: Option<&str>| {
        used.entry(section).or_default().extend(name.map(str::to_owned));
    };
    for service in services.values() {
        for (name, _) in service.entries("networks") {
            add("networks", Some(name));
        }
        for volume in service.get_list("volumes").iter().filter(|volume| volume.get_text("type") == Some("volume")) {
            add("volumes", volume.get_text("source"));
        }
        for section in ["secrets", "configs"] {
            let of_build = service.get("build").map_or(&[][..], |build| build.get_list(section));
            for reference in service.get_list(section).iter().chain(of_build) {
                add(section, reference.get_text("source"));
            }
        }
    }
    for section in ["networks", "volumes", "secrets", "configs"] {
        if let Some(entries) = map.get_mut(section).and_then(Node::map_mut) {
            entries.retain(|name, _| used.get(section).is_some_and(|used| used.contains(name)));
        }
    }
}

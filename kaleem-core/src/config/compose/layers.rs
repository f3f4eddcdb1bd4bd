//! The files of a project, with all that they extend and include, as one tree in the long form.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::compose::error::{ConfigError, ProblemKind};
use crate::config::compose::files;
use crate::config::compose::forms::one_or_more;
use crate::config::compose::interpolate::{self, Variables};
use crate::config::compose::merge::{merge, without_repeats};
use crate::config::compose::paths;
use crate::config::compose::schema::{PROJECT, key};
use crate::config::compose::schema_service::SERVICE;
use crate::config::compose::shape::{Layer, Shape};
use crate::config::compose::tree::{Map, Mark, Meeting, Node, Problems, Value, nearest};
use crate::config::compose::yaml;
use crate::config::{ConfigWarning, Inputs};

/// Files that extend or include one another, at most; real projects have a handful.
const CHAIN_LIMIT: usize = 50;
const FILES_LIMIT: usize = 1000;
/// Variables without a value that are warned of; a file may hold any number.
const WARNINGS_LIMIT: usize = 500;

/// What is known and found while a project is read.
pub(super) struct Session {
    pub(super) problems: Problems,
    pub(super) warnings: Vec<ConfigWarning>,
    pub(super) home: Option<String>,
    pub(super) inputs: Inputs,
    files_read: usize,
}

/// Where a file stands among those that led to it.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// What relative paths start from.
    pub(super) base: &'a Path,
    pub(super) environment: &'a BTreeMap<String, String>,
    /// The files that include this one, outermost first.
    pub(super) chain: &'a [PathBuf],
}

impl Session {
    pub(super) fn new(home: Option<String>) -> Self {
        Self { problems: Problems::default(), warnings: Vec::new(), home, inputs: Inputs::default(), files_read: 0 }
    }

    /// The merged tree of `files`.
    ///
    /// # Errors
    ///
    /// Those of reading files and of YAML; all else is among the problems.
    pub(super) fn load(&mut self, files: &[PathBuf], place: Place<'_>) -> Result<Node, ConfigError> {
        let first = files.first().map_or_else(|| place.base.to_owned(), Clone::clone);
        let mut project = Node::new(Value::Map(Map::new()), files::start_of(&first));
        let chain: Vec<PathBuf> = place.chain.iter().chain(files).cloned().collect();
        let place = Place { chain: &chain, ..place };
        for file in files {
            for document in self.documents(file, place)? {
                let layer = self.layer(document, file, place)?;
                project = merge(project, layer, "", false);
                without_repeats(&mut project, "");
            }
        }
        Ok(project)
    }

    /// The documents of a file, interpolated.
    fn documents(&mut self, file: &Path, place: Place<'_>) -> Result<Vec<Node>, ConfigError> {
        self.files_read += 1;
        let text = files::read(file)?;
        let mut documents = yaml::parse(&Arc::from(file), &text)?;
        documents.retain(|document| !document.is_null());
        if documents.is_empty() {
            return Err(ConfigError::Empty { path: file.to_owned() });
        }
        for document in &mut documents {
            if document.map().is_none() {
                let reason = format!("a compose file is a mapping, not {}", document.described());
                return Err(ConfigError::Yaml { origin: document.mark.origin(), reason });
            }
            let lookup = |name: &str| place.environment.get(name).cloned();
            let mut unset = Vec::new();
            let mut variables = Variables::new(&lookup);
            interpolate::tree(document, &mut variables, &mut self.problems, &mut unset, "");
            for (name, path) in variables.uses {
                self.inputs.note(&name, &path, lookup(&name));
            }
            for (name, mark, key) in unset {
                let warning = ConfigWarning { origin: mark.origin(), key, reason: interpolate::unset(&name) };
                // A file that is extended twice is read twice.
                if self.warnings.len() < WARNINGS_LIMIT && !self.warnings.contains(&warning) {
                    self.warnings.push(warning);
                }
            }
        }
        Ok(documents)
    }

    fn layer(&mut self, document: Node, file: &Path, place: Place<'_>) -> Result<Node, ConfigError> {
        let Value::Map(mut map) = document.value else { return Ok(document) };
        let mut read = Map::new();
        if let Some(version) = map.remove("version") {
            let reason = "Compose reads every file by the newest rules".to_owned();
            self.warnings.push(ConfigWarning { origin: version.place().origin(), key: "version".to_owned(), reason });
        }
        let includes = map.remove("include");
        if let Some(services) = map.remove("services") {
            read.insert("services".to_owned(), self.services(&services, file, place)?);
        }
        let extensions: Vec<String> = map.keys().filter(|key| key.starts_with("x-")).cloned().collect();
        read.extend(extensions.into_iter().filter_map(|key| map.remove_entry(&key)));
        let rest = Node { value: Value::Map(map), mark: document.mark.clone(), key: None, meeting: Meeting::Merge };
        if let Value::Map(rest) = self.shaper(place).read(rest, &PROJECT).value {
            read.extend(rest);
        }
        let mut layer = Node { value: Value::Map(read), mark: document.mark, key: None, meeting: document.meeting };
        if let Some(includes) = includes {
            self.include(&includes, place, &mut layer)?;
        }
        Ok(layer)
    }

    fn shaper<'a>(&'a mut self, place: Place<'a>) -> Layer<'a> {
        Layer {
            base: place.base,
            home: self.home.as_deref(),
            problems: &mut self.problems,
            warnings: &mut self.warnings,
            path: String::new(),
        }
    }

    fn services(&mut self, services: &Node, file: &Path, place: Place<'_>) -> Result<Node, ConfigError> {
        let Value::Map(all) = &services.value else {
            if !services.is_null() {
                let reason = format!("this must be a mapping of services, not {}", services.described());
                self.problems.add(&services.mark, "services", ProblemKind::WrongType, reason, "write one key per service");
            }
            return Ok(services.made(Value::Map(Map::new())));
        };
        let mut read = Map::new();
        for name in all.keys().filter(|name| !name.starts_with("x-")) {
            let origin = Extended { services: all, file, chain: &[] };
            if let Some(service) = self.service(name, &origin, place)? {
                read.insert(name.clone(), service);
            }
        }
        Ok(services.with(Value::Map(read)))
    }

    /// A service in the long form, on top of what it extends.
    fn service(&mut self, name: &str, origin: &Extended<'_>, place: Place<'_>) -> Result<Option<Node>, ConfigError> {
        let Some(raw) = origin.services.get(name).cloned() else { return Ok(None) };
        let path = format!("services.{name}");
        if raw.is_null() && raw.meeting == Meeting::Merge {
            self.problems.add(raw.place(), &path, ProblemKind::WrongType, "the service says nothing", "give it an `image:` or a `build:`");
            return Ok(Some(raw));
        }
        let extends = raw.get("extends").cloned();
        let mut layer = self.shaper(place);
        layer.path.clone_from(&path);
        let mut service = layer.read(raw, &SERVICE);
        if let Some(map) = service.map_mut() {
            map.remove("extends");
        }
        let Some(extends) = extends else { return Ok(Some(service)) };
        let Some(base) = self.base_of(name, &extends, origin, place)? else { return Ok(Some(service)) };
        let meeting = service.meeting;
        service.meeting = Meeting::Merge;
        let mut merged = merge(base, service, &format!("services/{name}"), true);
        merged.meeting = meeting;
        Ok(Some(merged))
    }

    /// What `extends` names, in the long form.
    fn base_of(&mut self, name: &str, extends: &Node, origin: &Extended<'_>, place: Place<'_>) -> Result<Option<Node>, ConfigError> {
        let path = format!("services.{name}.extends");
        let (service, file) = match &extends.value {
            Value::Text(service) => (Some(service.clone()), None),
            Value::Map(map) => {
                for (key, value) in map.iter().filter(|(key, _)| *key != "service" && *key != "file") {
                    let path = format!("{path}.{key}");
                    self.problems.add(
                        value.place(),
                        &path,
                        ProblemKind::UnknownKey,
                        "Compose knows no such key",
                        "write `service:` and `file:`",
                    );
                }
                (extends.get_text("service").map(str::to_owned), extends.get_text("file").map(str::to_owned))
            }
            _ => (None, None),
        };
        let Some(service) = service else {
            self.problems.add(&extends.mark, &path, ProblemKind::WrongType, "this must name a service", "write the name of a service");
            return Ok(None);
        };
        if file.as_deref().is_some_and(paths::is_address) {
            self.remote(&extends.mark, &path);
            return Ok(None);
        }
        let other_file = file.map(|file| PathBuf::from(paths::absolute(place.base, self.home.as_deref(), &file)));
        let target = other_file.clone().unwrap_or_else(|| origin.file.to_owned());
        let mut chain = origin.chain.to_vec();
        chain.push((origin.file.to_owned(), name.to_owned()));
        if chain.contains(&(target, service.clone())) || chain.len() > CHAIN_LIMIT {
            let told: Vec<String> = chain.iter().map(|(_, name)| name.clone()).chain([service]).collect();
            let told = told.join(" -> ");
            self.problems.add(
                &extends.mark,
                &path,
                ProblemKind::Cycle,
                format!("services extend each other: {told}"),
                "take one of them out",
            );
            return Ok(None);
        }
        let Some(other) = other_file else {
            let same = Extended { services: origin.services, file: origin.file, chain: &chain };
            self.missing_base(&extends.mark, &path, &service, origin.services, origin.file);
            return self.service(&service, &same, place);
        };
        if self.files_read > FILES_LIMIT {
            self.problems.add(&extends.mark, &path, ProblemKind::Cycle, "more files are extended than any project needs", "extend less");
            return Ok(None);
        }
        if !other.is_file() {
            let reason = format!("the file `{}` is not there", other.display());
            self.problems.add(&extends.mark, &path, ProblemKind::MissingFile, reason, "correct the path; it is relative to this file");
            return Ok(None);
        }
        let base = other.parent().unwrap_or(place.base).to_owned();
        let there = Place { base: &base, ..place };
        let documents = self.documents(&other, there)?;
        let services = documents.first().and_then(|document| document.get("services")).and_then(Node::map).cloned().unwrap_or_default();
        self.missing_base(&extends.mark, &path, &service, &services, &other);
        self.service(&service, &Extended { services: &services, file: &other, chain: &chain }, there)
    }

    fn remote(&mut self, mark: &Mark, path: &str) {
        let reason = "files are not fetched from elsewhere: a release must be what lies on this host";
        self.problems.add(mark, path, ProblemKind::NotCarriedOut, reason, "copy the file into the project");
    }

    fn missing_base(&mut self, mark: &Mark, path: &str, service: &str, services: &Map, file: &Path) {
        if services.contains_key(service) {
            return;
        }
        let remedy = match nearest(service, services.keys().map(String::as_str)) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => "name a service of that file".to_owned(),
        };
        let reason = format!("`{}` has no service `{service}`", file.display());
        self.problems.add(mark, path, ProblemKind::Undefined, reason, remedy);
    }

    /// `include:`; what is included is put beside what the file itself says.
    fn include(&mut self, includes: &Node, place: Place<'_>, layer: &mut Node) -> Result<(), ConfigError> {
        let Value::List(list) = &includes.value else {
            self.problems.add(&includes.mark, "include", ProblemKind::WrongType, "this must be a list of files", "write a list of files");
            return Ok(());
        };
        for (index, item) in list.iter().enumerate() {
            let path = format!("include[{index}]");
            let Some(include) = self.include_of(item, &path, place) else { continue };
            if let Some(again) = include.files.iter().find(|file| place.chain.contains(file)) {
                let chain = place.chain.iter().chain([again]).map(|file| file.display().to_string()).collect::<Vec<_>>().join(" -> ");
                let reason = format!("files include each other: {chain}");
                self.problems.add(&item.mark, &path, ProblemKind::Cycle, reason, "take one `include` out");
                continue;
            }
            if let Some(missing) = include.files.iter().chain(&include.env_files).find(|file| !file.is_file()) {
                let reason = format!("the file `{}` is not there", missing.display());
                self.problems.add(&item.mark, &path, ProblemKind::MissingFile, reason, "correct the path; it is relative to this file");
                continue;
            }
            if self.files_read > FILES_LIMIT || place.chain.len() > CHAIN_LIMIT {
                self.problems.add(&item.mark, &path, ProblemKind::Cycle, "more files are included than any project needs", "include less");
                return Ok(());
            }
            let mut environment = place.environment.clone();
            for (name, value) in files::variables_of(&include.env_files, place.environment, &mut self.warnings)? {
                environment.entry(name).or_insert(value);
            }
            let there = Place { base: &include.directory, environment: &environment, chain: place.chain };
            let included = self.load(&include.files, there)?;
            self.import(included, &item.mark, layer);
        }
        Ok(())
    }

    fn include_of(&mut self, item: &Node, path: &str, place: Place<'_>) -> Option<Include> {
        let long = match &item.value {
            Value::Text(file) => item.made(Value::Map(Map::from([("path".to_owned(), item.text_here(file.clone()))]))),
            _ => item.clone(),
        };
        let named = long.get("path").map(|path| path.list().iter().chain([path]).filter_map(Node::text).collect::<Vec<_>>());
        if named.unwrap_or_default().into_iter().any(paths::is_address) {
            self.remote(&item.mark, path);
            return None;
        }
        let mut layer = self.shaper(place);
        path.clone_into(&mut layer.path);
        let long = layer.read(long, &INCLUDE);
        let files_of = |key: &str| -> Vec<PathBuf> { long.get_list(key).iter().filter_map(Node::text).map(PathBuf::from).collect() };
        let files = files_of("path");
        let Some(first) = files.first() else {
            self.problems.add(&item.mark, path, ProblemKind::WrongType, "this names no file", "write `path:` and a file");
            return None;
        };
        let directory = match long.get_text("project_directory") {
            Some(directory) => PathBuf::from(directory),
            None => first.parent().unwrap_or(place.base).to_owned(),
        };
        let mut env_files = files_of("env_file");
        let default = directory.join(".env");
        if long.get("env_file").is_none() && default.is_file() {
            env_files.push(default);
        }
        // `/dev/null` is how an include says that it wants no variables.
        env_files.retain(|file| file != Path::new("/dev/null"));
        Some(Include { files, directory, env_files })
    }

    /// Puts what was included beside what is there; two different things of one name are refused.
    fn import(&mut self, included: Node, mark: &Mark, layer: &mut Node) {
        let Value::Map(sections) = included.value else { return };
        for section in ["services", "networks", "volumes", "secrets", "configs"] {
            let Some(Node { value: Value::Map(entries), .. }) = sections.get(section).cloned() else { continue };
            let Some(map) = layer.map_mut() else { return };
            let all = map.entry(section.to_owned()).or_insert_with(|| Node::new(Value::Map(Map::new()), mark.clone()));
            let Some(all) = all.map_mut() else { continue };
            for (name, node) in entries {
                if let Some(there) = all.get(&name) {
                    if there.to_json() != node.to_json() {
                        let reason = format!("`{section}.{name}` is already there, with another content, at {}", there.place().origin());
                        self.problems.add(mark, &format!("{section}.{name}"), ProblemKind::Conflict, reason, "rename one of them");
                    }
                    continue;
                }
                all.insert(name, node);
            }
        }
    }
}

struct Extended<'a> {
    services: &'a Map,
    file: &'a Path,
    /// (file, service) that led here.
    chain: &'a [(PathBuf, String)],
}

struct Include {
    files: Vec<PathBuf>,
    directory: PathBuf,
    env_files: Vec<PathBuf>,
}

static INCLUDE: Shape = Shape::Object(&[
    key("path", Shape::Short(one_or_more, &Shape::List(&Shape::Path))),
    key("env_file", Shape::Short(one_or_more, &Shape::List(&Shape::Path))),
    key("project_directory", Shape::Path),
]);

//! What kaleem makes of a compose file is what Docker Compose makes of it.
//!
//! The goldens were made by Docker Compose itself; see `tests/compose/README.md` for how they are made again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use kaleem_core::config::{ConfigError, LoadOptions, load, resolve};
use serde_json::Value;

/// Home directory of every case, so that `~` is the same everywhere.
const HOME: &str = "/home/kaleem";
const PLACEHOLDER: &str = "<DIR>";
/// The directory of all cases, which relative paths can lead up to.
const ABOVE: &str = "<CASES>";

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/compose")
}

/// One project and how it is read.
pub(crate) struct Case {
    pub(crate) name: String,
    directory: PathBuf,
    pub(crate) golden: PathBuf,
    files: Vec<PathBuf>,
    env_files: Vec<PathBuf>,
    profiles: Vec<String>,
    environment: BTreeMap<String, String>,
}

impl Case {
    pub(crate) fn options(&self) -> LoadOptions {
        LoadOptions {
            directory: self.directory.clone(),
            files: self.files.clone(),
            env_files: self.env_files.clone(),
            environment: self.environment.clone(),
            profiles: self.profiles.clone(),
            project_name: None,
            settings_file: None,
        }
    }

    /// Docker Compose's own answer, or why it refused.
    fn ask(&self, oracle: &str) -> Result<Value, String> {
        let printed: Value = serde_json::from_slice(&self.config(oracle, &["--format", "json"])?).expect("the oracle prints JSON");
        // Compose doubles every dollar sign, so that its output is a compose file again.
        Ok(map_text(printed, &|text| text.replace("$$", "$")))
    }

    /// What `docker compose config` prints with these arguments.
    #[expect(clippy::disallowed_methods, reason = "a test asks the reference implementation")]
    pub(crate) fn config(&self, oracle: &str, arguments: &[&str]) -> Result<Vec<u8>, String> {
        let mut command = Command::new(oracle);
        command.current_dir(&self.directory).env_clear().envs(&self.environment);
        for file in &self.files {
            command.arg("-f").arg(file);
        }
        for file in &self.env_files {
            command.arg("--env-file").arg(file);
        }
        for profile in &self.profiles {
            command.arg("--profile").arg(profile);
        }
        let output = command.arg("config").args(arguments).output().expect("the oracle runs");
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        Ok(output.stdout)
    }

    fn normalized(&self, value: Value) -> Value {
        let directory = self.directory.display().to_string();
        let above = root().join("cases").display().to_string();
        map_text(value, &|text| text.replace(&directory, PLACEHOLDER).replace(&above, ABOVE))
    }
}

fn map_text(value: Value, change: &dyn Fn(&str) -> String) -> Value {
    match value {
        Value::String(text) => Value::String(change(&text)),
        Value::Array(list) => list.into_iter().map(|item| map_text(item, change)).collect(),
        Value::Object(map) => Value::Object(map.into_iter().map(|(key, item)| (key, map_text(item, change))).collect()),
        other => other,
    }
}

/// Every case of `cases/` and every file of `corpus/`, in the order of their names.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for directory in entries(&root().join("cases")) {
        let name = format!("cases/{}", directory.file_name().expect("a name").to_string_lossy());
        let mut case = Case {
            golden: directory.join("expected.json"),
            name,
            directory: directory.clone(),
            files: Vec::new(),
            env_files: Vec::new(),
            profiles: Vec::new(),
            environment: BTreeMap::from([("HOME".to_owned(), HOME.to_owned())]),
        };
        for (file, line) in [("case.env", true), ("case.args", false)] {
            let text = std::fs::read_to_string(directory.join(file)).unwrap_or_default();
            for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
                match key {
                    _ if line => drop(case.environment.insert(key.to_owned(), value.to_owned())),
                    "file" => case.files.push(value.into()),
                    "env-file" => case.env_files.push(value.into()),
                    "profile" => case.profiles.push(value.to_owned()),
                    "directory" => case.directory = directory.join(value),
                    other => panic!("{}: `{other}` in case.args means nothing", case.name),
                }
            }
        }
        cases.push(case);
    }
    let corpus = root().join("corpus");
    for file in entries(&corpus).into_iter().filter(|file| file.extension().is_some_and(|extension| extension == "yaml")) {
        let name = file.file_name().expect("a name").to_string_lossy().into_owned();
        cases.push(Case {
            golden: corpus.join("expected").join(&name).with_extension("json"),
            name: format!("corpus/{name}"),
            directory: corpus.clone(),
            files: vec![file],
            env_files: Vec::new(),
            profiles: Vec::new(),
            environment: BTreeMap::from([("HOME".to_owned(), HOME.to_owned())]),
        });
    }
    cases
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> =
        std::fs::read_dir(directory).expect("the directory is there").map(|entry| entry.expect("an entry").path()).collect();
    all.sort();
    all
}

/// Paths at which two values differ; `[]` stands for every index of a list.
fn differences(path: &str, golden: &Value, ours: &Value, found: &mut BTreeSet<String>) {
    match (golden, ours) {
        (Value::Object(one), Value::Object(other)) => {
            let keys: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            for key in keys {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match (one.get(key), other.get(key)) {
                    (Some(one), Some(other)) => differences(&path, one, other, found),
                    _ => drop(found.insert(path)),
                }
            }
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            for (one, other) in one.iter().zip(other) {
                differences(&format!("{path}[]"), one, other, found);
            }
        }
        (one, other) if one == other || (one.is_number() && one.as_f64() == other.as_f64()) => {}
        _ => drop(found.insert(path.to_owned())),
    }
}

/// The differences that are known: case and path, with the reason.
fn known_differences() -> BTreeMap<(String, String), String> {
    let text = std::fs::read_to_string(root().join("differences.toml")).expect("the list of differences is there");
    let table: toml::Table = text.parse().expect("the list of differences is TOML");
    let listed = table.get("difference").and_then(toml::Value::as_array).expect("differences are listed");
    let entry = |item: &toml::Value, key: &str| {
        item.get(key).and_then(toml::Value::as_str).unwrap_or_else(|| panic!("{key} is missing")).to_owned()
    };
    listed.iter().map(|item| ((entry(item, "file"), entry(item, "path")), entry(item, "reason"))).collect()
}

#[expect(clippy::disallowed_methods, reason = "the person who runs the test says where the reference implementation is")]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[expect(clippy::disallowed_methods, reason = "a golden is written on request, and checked in by a person")]
pub(crate) fn write_golden(path: &Path, value: &Value) {
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("the directory can be made");
    let text = serde_json::to_string_pretty(value).expect("JSON prints");
    std::fs::write(path, format!("{text}\n")).expect("the golden can be written");
}

#[test]
fn every_project_resolves_to_what_docker_compose_prints() {
    let mut known = known_differences();
    let mut failures = Vec::new();
    let cases = cases();
    assert!(cases.len() >= 100, "only {} cases were found", cases.len());
    for case in &cases {
        let golden = std::fs::read_to_string(&case.golden).unwrap_or_else(|error| panic!("{}: no golden: {error}", case.name));
        let golden: Value = serde_json::from_str(&golden).expect("a golden is JSON");
        let ours = match resolve(&case.options()) {
            Ok(value) => case.normalized(value),
            Err(error) => {
                failures.push(format!("{}: refused: {error}", case.name));
                continue;
            }
        };
        let mut found = BTreeSet::new();
        differences("", &golden, &ours, &mut found);
        for path in found {
            if known.remove(&(case.name.clone(), path.clone())).is_none() {
                let at = |value: &Value| path.split('.').try_fold(value, |value, key| value.get(key)).map(Value::to_string);
                failures.push(format!("{}: {path}: want {:?}, got {:?}", case.name, at(&golden), at(&ours)));
            }
        }
    }
    failures.extend(known.keys().map(|(file, path)| format!("{file}: {path}: listed as a difference, and is none any more")));
    assert!(failures.is_empty(), "{} differences:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn the_goldens_are_what_docker_compose_prints_today() {
    let Some(oracle) = variable("KALEEM_COMPOSE_ORACLE") else {
        println!("skipped: KALEEM_COMPOSE_ORACLE names no docker-compose program");
        return;
    };
    let write = variable("KALEEM_COMPOSE_GOLDENS").as_deref() == Some("write");
    let mut failures = Vec::new();
    for case in cases() {
        match case.ask(&oracle) {
            Ok(printed) => {
                let printed = case.normalized(printed);
                if write {
                    write_golden(&case.golden, &printed);
                    continue;
                }
                let golden = std::fs::read_to_string(&case.golden).unwrap_or_default();
                if serde_json::from_str::<Value>(&golden).ok().as_ref() != Some(&printed) {
                    failures.push(format!("{}: the golden is not what Docker Compose prints", case.name));
                }
            }
            Err(refused) => failures.push(format!("{}: Docker Compose refuses it: {refused}", case.name)),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_project_loads_or_is_refused_for_a_key_that_is_not_carried_out() {
    let mut refused = Vec::new();
    for case in cases() {
        match load(&case.options()) {
            Ok(_) => {}
            Err(ConfigError::Invalid { problems }) => {
                refused.extend(
                    problems.iter().map(|problem| format!("{}: {:?}: {}: {}", case.name, problem.kind, problem.key, problem.reason)),
                );
            }
            Err(error) => panic!("{}: {error}", case.name),
        }
    }
    insta::assert_snapshot!(refused.join("\n"));
}

//! Compose files: read as they are, resolved as Compose resolves them.
//!
//! A file becomes a tree with places (`yaml`), its variables are replaced (`interpolate`), every key is brought into
//! its long form (`shape`, by the table in `schema`), layers are merged (`layers`, `merge`), what is unsaid is added
//! (`normalize`), and the whole is checked (`check`) and converted (`convert`). No other program is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::config::{ConfigWarning, Inputs, LoadOptions, Project};
use crate::names::ProjectName;

mod check;
mod convert;
mod dotenv;
pub mod error;
pub(in crate::config) mod files;
mod forms;
mod hash;
mod interpolate;
mod layers;
mod merge;
mod normalize;
mod paths;
mod quantity;
mod schema;
mod schema_service;
mod shape;
mod tree;
mod words;
mod yaml;

use error::ConfigError;
use files::Found;
use layers::{Place, Session};
use tree::{Node, Problems, Value};

pub(in crate::config) use tree::nearest;

/// A project in the long form, complete and checked, before it is typed.
struct Resolved {
    name: ProjectName,
    found: Found,
    model: Node,
    problems: Problems,
    warnings: Vec<ConfigWarning>,
    inputs: Inputs,
}

/// The project's model as `docker compose config --format json` prints it, with `$` left as it is.
///
/// Keys that Compose knows and kaleem does not carry out are in it; [`crate::config::load`] refuses them.
///
/// # Errors
///
/// [`ConfigError`]; nothing was touched.
pub fn resolve(options: &LoadOptions) -> Result<serde_json::Value, ConfigError> {
    let resolved = resolved(options)?;
    if !resolved.problems.0.is_empty() {
        return Err(ConfigError::Invalid { problems: resolved.problems.0 });
    }
    Ok(resolved.model.to_json())
}

/// The project without its `kaleem.toml`.
pub(in crate::config) fn project(options: &LoadOptions) -> Result<Project, ConfigError> {
    let mut resolved = resolved(options)?;
    shape::audit(&resolved.model, &schema::PROJECT, "", &mut resolved.problems, &mut resolved.warnings);
    let Resolved { name, found, model, problems, warnings, inputs } = resolved;
    convert::project(&model, name, found, problems, warnings, inputs)
}

/// The variables that files are read with: those of the caller, and those of `.env`.
pub(in crate::config) fn variables(options: &LoadOptions) -> Result<BTreeMap<String, String>, ConfigError> {
    Ok(files::find(options)?.environment)
}

fn resolved(options: &LoadOptions) -> Result<Resolved, ConfigError> {
    let mut found = files::find(options)?;
    let given = match &options.project_name {
        Some(name) => Some(name.to_string()),
        None => found.environment.get("COMPOSE_PROJECT_NAME").filter(|name| !name.is_empty()).cloned(),
    };
    let given = match given {
        Some(name) => name,
        None => name_in_files(&found)?.unwrap_or_else(|| name_of_directory(&found.directory)),
    };
    let name: ProjectName = given.parse().map_err(|source| ConfigError::Name { source })?;
    // Files may use the name, however it was found.
    found.environment.insert("COMPOSE_PROJECT_NAME".to_owned(), name.to_string());
    let mut session = Session::new(options.environment.get("HOME").cloned());
    let place = Place { base: &found.directory, environment: &found.environment, chain: &[] };
    let mut model = session.load(&found.files, place)?;
    let Session { mut problems, mut warnings, mut inputs, .. } = session;
    warnings.append(&mut found.warnings);
    let profiles = active_profiles(options, &found);
    let disabled = normalize::Normalizer {
        name: &name,
        directory: &found.directory,
        environment: &found.environment,
        profiles: &profiles,
        problems: &mut problems,
        warnings: &mut warnings,
    }
    .run(&mut model)?;
    inputs.disabled = disabled.iter().filter_map(|name| name.parse().ok()).collect();
    check::check(&model, &mut problems);
    normalize::used_only(&mut model);
    let model = printed(model);
    problems.0.sort_by(|one, other| {
        let place = |problem: &error::Problem| (problem.origin.file.clone(), problem.origin.line, problem.origin.column);
        place(one).cmp(&place(other))
    });
    Ok(Resolved { name, found, model, problems, warnings, inputs })
}

/// The model with what Compose prints and without what it leaves out.
fn printed(model: Node) -> Node {
    let extensions: Vec<(String, Node)> =
        model.map().into_iter().flatten().filter(|(key, _)| key.starts_with("x-")).map(|(key, node)| (key.clone(), node.clone())).collect();
    let mut model = shape::pruned(model, &schema::PROJECT);
    if let Some(map) = model.map_mut() {
        map.extend(extensions);
        for service in map.get_mut("services").and_then(Node::map_mut).into_iter().flat_map(|services| services.values_mut()) {
            let nothing = service.made(Value::Null);
            let Some(service) = service.map_mut() else { continue };
            for key in ["command", "entrypoint"] {
                service.entry(key.to_owned()).or_insert_with(|| nothing.clone());
            }
        }
    }
    model
}

/// Profiles of the caller; those of `COMPOSE_PROFILES` where the caller names none.
fn active_profiles(options: &LoadOptions, found: &Found) -> BTreeSet<String> {
    if !options.profiles.is_empty() {
        return options.profiles.iter().cloned().collect();
    }
    let listed = found.environment.get("COMPOSE_PROFILES").map_or("", String::as_str);
    listed.split(',').map(|profile| profile.trim().to_owned()).filter(|profile| !profile.is_empty()).collect()
}

/// `name:` of the last file that has one.
fn name_in_files(found: &Found) -> Result<Option<String>, ConfigError> {
    let mut name = None;
    for file in &found.files {
        let text = files::read(file)?;
        for document in yaml::parse(&std::sync::Arc::from(file.as_path()), &text)? {
            let Some(text) = document.get_text("name") else { continue };
            let lookup = |name: &str| found.environment.get(name).cloned();
            // A malformed name is refused with the other problems, where it has its place.
            if let Ok(text) = interpolate::Variables::new(&lookup).interpolate(text)
                && !text.is_empty()
            {
                name = Some(text);
            }
        }
    }
    Ok(name)
}

fn name_of_directory(directory: &Path) -> String {
    let last = directory.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let allowed: String = last.chars().filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_')).collect();
    allowed.trim_start_matches(['-', '_']).to_owned()
}

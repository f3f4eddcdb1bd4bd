//! Which files make the project, and their text: bounded, UTF-8, and no directory.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::compose::dotenv;
use crate::config::compose::error::ConfigError;
use crate::config::compose::interpolate;
use crate::config::compose::paths;
use crate::config::compose::tree::Mark;
use crate::config::{ConfigWarning, LoadOptions, Origin};

/// Larger compose files do not exist.
pub(super) const SIZE_LIMIT_BYTES: u64 = 10 << 20;

const NAMES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];
const OVERRIDES: [&str; 4] =
    ["compose.override.yml", "compose.override.yaml", "docker-compose.override.yml", "docker-compose.override.yaml"];

/// The files of a project, and the variables they are read with.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) files: Vec<PathBuf>,
    /// What relative paths start from.
    pub(super) directory: PathBuf,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) warnings: Vec<ConfigWarning>,
}

/// Finds the project's files as Compose does.
///
/// # Errors
///
/// [`ConfigError::NoComposeFile`], and those about files of variables.
pub(super) fn find(options: &LoadOptions) -> Result<Found, ConfigError> {
    let mut environment = options.environment.clone();
    let mut warnings = Vec::new();
    let here = paths::clean(&options.directory);
    let first_directory = options.files.first().and_then(|file| here.join(file).parent().map(paths::clean));
    // `.env` may say which files there are, so it is read before they are known.
    add_variables(&mut environment, options, &here, first_directory.as_deref().unwrap_or(&here), &mut warnings)?;
    let mut files: Vec<PathBuf> = options.files.iter().map(|file| paths::clean(&here.join(file))).collect();
    if files.is_empty()
        && let Some(listed) = environment.get("COMPOSE_FILE").filter(|listed| !listed.is_empty())
    {
        let separator = environment.get("COMPOSE_PATH_SEPARATOR").filter(|text| !text.is_empty()).map_or(":", String::as_str);
        files = listed.split(separator).map(|file| paths::clean(&here.join(file))).collect();
    }
    if files.is_empty() {
        files = discover(&here).ok_or_else(|| ConfigError::NoComposeFile { directory: here.clone() })?;
    }
    let directory = files.first().and_then(|file| file.parent()).map_or_else(|| here.clone(), Path::to_path_buf);
    add_variables(&mut environment, options, &here, &directory, &mut warnings)?;
    Ok(Found { files, directory, environment, warnings })
}

/// The compose file nearest above `start`, and its override.
fn discover(start: &Path) -> Option<Vec<PathBuf>> {
    let present = |directory: &Path, names: &[&str]| names.iter().map(|name| directory.join(name)).find(|path| path.exists());
    start.ancestors().find_map(|directory| {
        let file = present(directory, &NAMES)?;
        Some(std::iter::once(file).chain(present(directory, &OVERRIDES)).collect())
    })
}

fn add_variables(
    environment: &mut BTreeMap<String, String>,
    options: &LoadOptions,
    here: &Path,
    directory: &Path,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<(), ConfigError> {
    let mut files: Vec<PathBuf> = options.env_files.iter().map(|file| paths::clean(&here.join(file))).collect();
    if files.is_empty()
        && let Some(listed) = environment.get("COMPOSE_ENV_FILES").filter(|listed| !listed.is_empty())
    {
        files = listed.split(',').map(|file| paths::clean(&here.join(file.trim()))).collect();
    }
    if files.is_empty() {
        let default = directory.join(".env");
        let disabled = environment.get("COMPOSE_DISABLE_ENV_FILE").is_some_and(|text| matches!(text.as_str(), "1" | "true"));
        if disabled || !default.is_file() {
            return Ok(());
        }
        files.push(default);
    }
    for (name, value) in variables_of(&files, environment, warnings)? {
        environment.entry(name).or_insert(value);
    }
    Ok(())
}

/// The variables of several files, of which a later one wins; `outer` is known in all of them and wins inside `${…}`.
///
/// # Errors
///
/// Those of reading, and [`ConfigError::Variables`].
pub(super) fn variables_of(
    files: &[PathBuf],
    outer: &BTreeMap<String, String>,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut found = BTreeMap::new();
    for file in files {
        let text = read(file)?;
        let lookup = |name: &str| outer.get(name).or_else(|| found.get(name)).cloned();
        let origin = |line| Origin { file: file.clone(), line, column: 1 };
        let more =
            dotenv::parse(&text, &lookup).map_err(|wrong| ConfigError::Variables { origin: origin(wrong.line), reason: wrong.reason })?;
        for (line, key, name) in more.unset {
            let warning = ConfigWarning { origin: origin(line), key, reason: interpolate::unset(&name) };
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
        found.extend(more.variables);
    }
    Ok(found)
}

/// The text of a file.
///
/// # Errors
///
/// [`ConfigError::Read`], [`ConfigError::Directory`], [`ConfigError::TooLarge`], [`ConfigError::NotText`].
pub(in crate::config) fn read(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |source| ConfigError::Read { path: path.to_owned(), source };
    if path.is_dir() {
        return Err(ConfigError::Directory { path: path.to_owned() });
    }
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(SIZE_LIMIT_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > SIZE_LIMIT_BYTES {
        return Err(ConfigError::TooLarge { path: path.to_owned(), limit_bytes: SIZE_LIMIT_BYTES });
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
        let column = 1 + good.iter().rev().take_while(|byte| **byte != b'\n').count();
        ConfigError::NotText { origin: Origin { file: path.to_owned(), line, column } }
    })
}

/// The first place of a file: what a message points at when it is about the whole file.
pub(super) fn start_of(path: &Path) -> Mark {
    Mark { file: Arc::from(path), line: 1, column: 1 }
}

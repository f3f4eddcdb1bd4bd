//! What is on the engine and in the state directory, against what the journals say: the engine is asked itself, not kaleem.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use kaleem_core::backup::set::COMMIT_FILE;
use kaleem_core::history::History;
use kaleem_core::plan::pin_tag;
use kaleem_core::state::{StateDirectory, gateway_directory};

use crate::fail::TaskError;
use crate::place::Place;
use crate::programs::Program;

/// What is looked at.
#[derive(Clone, Copy)]
pub(super) struct Audited<'a> {
    /// The project's name.
    pub project: &'a str,
    /// Its state.
    pub state: &'a StateDirectory,
    /// How many releases it keeps.
    pub keep: usize,
}

/// How the last command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Last {
    /// By itself.
    Ended,
    /// It was killed when its plan was over or had not begun: its lease and its last write lie there until the next one comes.
    Killed,
}

/// Owner marks of a project: the one that counts, and one before it that a killed process had no time to remove.
const MOST_MARKS: usize = 2;

/// Everything that nobody refers to, one line each. Nobody is at work on the project.
pub(super) fn leaks(place: &Place, audited: Audited<'_>, history: &History, last: Last) -> Result<Vec<String>, TaskError> {
    let Audited { project, state, keep } = audited;
    let known = Known::of(history, keep);
    let ask = |words: &[&str], label: &str| -> Result<Vec<String>, TaskError> {
        let text = Program::new(place, "docker").args(words).args(["--filter", label]).output()?;
        Ok(text.lines().map(str::to_owned).collect())
    };
    // Volumes without data by which the engine knows whose project it is.
    let mark = format!("kaleem.owner.{project}.");
    let mut found = Vec::new();
    for label in [format!("label=com.docker.compose.project={project}"), format!("label=kaleem.project={project}")] {
        for line in ask(&["ps", "--all", "--format", "{{.Names}} {{.State}}"], &label)? {
            let (name, status) = line.split_once(' ').unwrap_or((&line, ""));
            if !known.containers.contains(name) {
                found.push(format!("the container {name} ({status}) belongs to no kept release"));
            } else if status == "running" && !known.serving.contains(name) {
                found.push(format!("the container {name} runs and does not serve"));
            } else if status != "running" && known.serving.contains(name) {
                found.push(format!("the container {name} is to serve and is {status}"));
            }
        }
        for name in ask(&["network", "ls", "--format", "{{.Name}}"], &label)? {
            if !known.networks.contains(&name) {
                found.push(format!("the network {name} belongs to no release"));
            }
        }
        let (marks, volumes): (Vec<String>, Vec<String>) =
            ask(&["volume", "ls", "--format", "{{.Name}}"], &label)?.into_iter().partition(|name| name.starts_with(&mark));
        if marks.len() > MOST_MARKS {
            found.push(format!("there are {} owner marks: {}", marks.len(), marks.join(", ")));
        }
        for name in volumes {
            if !known.volumes.contains(&name) {
                found.push(format!("the volume {name} belongs to no release"));
            }
        }
    }
    let reference = format!("reference=kaleem.invalid/{project}/*");
    for tag in ask(&["images", "--format", "{{.Repository}}:{{.Tag}}"], &reference)? {
        if !known.pins.contains(&tag) {
            found.push(format!("the tag {tag} belongs to no kept release"));
        }
    }
    // The state of the project, and beside it that of its gateways.
    let base = state.root().parent().unwrap_or(state.root());
    files(base, last, &mut found);
    for path in children(&gateway_directory(base)) {
        if !known.gateways.contains(&name_of(&path)) {
            found.push(format!("the gateway directory {} belongs to no kept release", path.display()));
        }
    }
    unfinished_sets(&state.root().join("backup/sets/sets"), &mut found);
    Ok(found)
}

#[derive(Default)]
struct Known {
    containers: BTreeSet<String>,
    serving: BTreeSet<String>,
    networks: BTreeSet<String>,
    volumes: BTreeSet<String>,
    pins: BTreeSet<String>,
    /// Directories of gateways are named after these.
    gateways: BTreeSet<String>,
}

impl Known {
    fn of(history: &History, keep: usize) -> Self {
        let mut known = Self::default();
        let serving = history.serving();
        // What was stopped by the newest plan is removed by the next one.
        for release in history.releases().iter().take(keep + 1) {
            let gateways = release.target.services.values().filter_map(|wanted| wanted.gateway.as_ref());
            known.gateways.extend(gateways.clone().map(|gateway| gateway.name.to_string()));
            let gateways = gateways.map(|gateway| &gateway.container);
            let names = release.instances.values().flatten().chain(gateways).map(ToString::to_string);
            if Some(release.id) == serving {
                known.serving.extend(names.clone());
            }
            known.containers.extend(names);
            known.networks.extend(release.target.networks.iter().map(|network| network.name.to_string()));
            known.volumes.extend(release.target.volumes.iter().map(|volume| volume.name.to_string()));
            known.pins.extend(
                release
                    .target
                    .services
                    .keys()
                    .filter_map(|name| pin_tag(&release.target.project, name, release.id))
                    .map(|pin| pin.to_string()),
            );
        }
        known
    }
}

fn children(directory: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Backup sets that were begun and are neither finished nor given up, though no plan is open.
fn unfinished_sets(vault: &Path, found: &mut Vec<String>) {
    for path in children(vault).into_iter().filter(|path| path.is_dir() && !path.join(COMMIT_FILE).is_file()) {
        if !children(&path).is_empty() {
            found.push(format!("the unfinished backup set {}", path.display()));
        }
    }
}

/// Files that only a process at work, or a crash, can have left.
fn files(directory: &Path, last: Last, found: &mut Vec<String>) {
    for path in children(directory) {
        let name = name_of(&path);
        if path.is_dir() {
            files(&path, last, found);
        } else if name.ends_with(".abort") || last == Last::Ended && (name.ends_with(".tmp") || name == "lease") {
            found.push(format!("the file {}", path.display()));
        }
    }
}

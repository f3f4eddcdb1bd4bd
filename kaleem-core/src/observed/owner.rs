//! Whose project it is: what the mark and the labels on the engine say, against the state directory and the files that are here.
//!
//! It changes nothing. What is decided from it stands in `plan::check` and in the front door.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::names::{GatewayName, PlanId, ProjectName, ReleaseId, StateId};
use crate::runtime::marks::{Owner, OwnerMark};
use crate::runtime::{Instance, InstanceStatus, compose_labels, kaleem_labels};
use crate::traffic::Routing;

/// Where a command works from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Here {
    /// The identity of the state directory; `None` where it has none yet.
    pub state: Option<StateId>,
    /// Where that is.
    pub state_directory: PathBuf,
    /// This host.
    pub host: String,
    /// The user.
    pub user: String,
    /// The files of the project; `None` where the command does not read them.
    pub files: Option<ProjectFiles>,
}

/// The files of a project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectFiles {
    /// The project's directory.
    pub directory: PathBuf,
    /// The compose files.
    pub files: Vec<PathBuf>,
}

/// Whose project it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nobody's: kaleem has released nothing that is still there.
    Free,
    /// This state directory's.
    Ours,
    /// This state directory's, in a later state: it was restored from an older copy.
    Behind {
        /// The newest plan that was made.
        plan: PlanId,
    },
    /// The owner's state directory was here, and what it knew is gone.
    Lost,
    /// Another's.
    Foreign(Box<Foreign>),
}

/// What is known of the owner of a project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ownership {
    /// Whose it is.
    pub standing: Standing,
    /// The highest plan number that is seen on the host.
    pub plan: PlanId,
    /// The highest release number that is seen on the host.
    pub release: ReleaseId,
    /// The identity of this state directory; `None` where it has none yet.
    pub identity: Option<StateId>,
    /// How the gateways are steered, as far as they could be asked.
    pub routing: BTreeMap<GatewayName, Routing>,
}

impl Ownership {
    /// Whether a container was made by kaleem from another state directory: what its definition is cannot be told by its name.
    pub fn is_of_another(&self, instance: &Instance) -> bool {
        let made_by = instance.labels.get(kaleem_labels::STATE).map(String::as_str);
        let ours = self.identity.as_ref().map(StateId::as_str);
        instance.definition.is_some() && (made_by.is_some() || self.standing != Standing::Ours) && made_by != ours
    }
}

/// Why the project belongs to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignKind {
    /// Another state directory released it.
    State,
    /// This state directory is a copy of the owner's.
    Copy,
    /// It was deployed from files in another directory, which are still there.
    Directory,
}

/// Another owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// Why.
    pub kind: ForeignKind,
    /// The project.
    pub project: ProjectName,
    /// Its state directory, where it is known.
    pub state_directory: Option<PathBuf>,
    /// The host of that, where it is another.
    pub other_host: Option<String>,
    /// The user, where he is known.
    pub user: Option<String>,
    /// Its files, where they are known.
    pub files: Option<ProjectFiles>,
    /// The files that are here.
    pub here: Option<ProjectFiles>,
    /// The newest release of which containers run.
    pub running: Option<ReleaseId>,
}

impl Foreign {
    /// What is wrong, one line.
    pub fn message(&self) -> String {
        let project = &self.project;
        match (self.kind, &self.files, &self.here) {
            (ForeignKind::Directory, Some(theirs), Some(here)) => format!(
                "`{project}` was deployed from the directory {}, and this project is in {}",
                theirs.directory.display(),
                here.directory.display()
            ),
            (ForeignKind::Copy, _, _) => format!(
                "this state directory is a copy of {}, from which `{project}` is deployed",
                self.state_directory.as_deref().unwrap_or(Path::new("another one")).display()
            ),
            _ => format!("containers of `{project}` were released by kaleem from {}", self.origin()),
        }
    }

    /// The owner in words: `the state directory /var/lib/kaleem/shop (user root, directory /srv/shop)`.
    pub fn origin(&self) -> String {
        let state = match &self.state_directory {
            Some(path) => format!("the state directory {}", path.display()),
            None => "another state directory".to_owned(),
        };
        let mut details = Vec::new();
        details.extend(self.user.as_ref().map(|user| format!("user {user}")));
        details.extend(self.other_host.as_ref().map(|host| format!("host {host}")));
        details.extend(self.files.as_ref().map(|files| format!("directory {}", files.directory.display())));
        if details.is_empty() { state } else { format!("{state} ({})", details.join(", ")) }
    }

    /// What to do, one line.
    pub fn remedy(&self) -> String {
        let adopt = "`kaleem adopt`";
        match (self.kind, &self.files) {
            (ForeignKind::Directory, Some(theirs)) => format!(
                "run it in {}, or give this project another name (`name:` in the compose file); if the project moved here, run {adopt} first",
                theirs.directory.display()
            ),
            _ => match self.state_directory.as_deref().and_then(Path::parent) {
                Some(base) => {
                    format!(
                        "use that state directory (`KALEEM_STATE_DIR={} kaleem ...`), or take the project over with {adopt}",
                        base.display()
                    )
                }
                None => format!("use the state directory from which it was deployed, or take the project over with {adopt}"),
            },
        }
    }

    /// What is live, as far as labels tell.
    pub fn serving(&self) -> String {
        match self.running {
            Some(_) => format!("what kaleem released from {}", self.origin()),
            None => format!("nothing that runs; the project belongs to {}", self.origin()),
        }
    }
}

/// What was seen on the engine.
#[derive(Debug)]
pub struct Seen<'a> {
    /// The project.
    pub project: &'a ProjectName,
    /// The mark in force.
    pub mark: Option<&'a OwnerMark>,
    /// All containers of the project.
    pub instances: &'a [Instance],
    /// How the gateways of the project are steered.
    pub steered: &'a BTreeMap<GatewayName, Routing>,
}

/// What the journals of this state directory know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The highest plan number; 0 where there is none.
    pub plan: PlanId,
    /// The highest release number; 0 where there is none.
    pub release: ReleaseId,
}

/// The files of this host, as far as ownership depends on them.
pub trait Disk {
    /// Whether a file is there.
    fn exists(&self, path: &Path) -> bool;
    /// The path without links in it, where it is there.
    fn canonical(&self, path: &Path) -> PathBuf;
    /// Whether the state directory at a path has that identity; `None` where that cannot be read.
    fn has_identity(&self, path: &Path, identity: &StateId) -> Option<bool>;
}

/// Judges.
pub fn judge(seen: &Seen<'_>, here: &Here, known: Remembered, disk: &dyn Disk) -> Ownership {
    let made: Vec<&Instance> = seen.instances.iter().filter(|instance| instance.definition.is_some()).collect();
    let labelled = made.iter().filter_map(|instance| instance.release).max();
    // A mark of a project of which nothing is left says nothing any more.
    let mark = seen.mark.filter(|_| !seen.instances.is_empty()).map(|mark| &mark.owner);
    let steered = seen.steered.values().map(|routing| routing.generation.plan()).max();
    let plan = mark.map(|owner| owner.plan).max(steered).unwrap_or(PlanId(0)).max(known.plan);
    let release = mark.map(|owner| owner.release).max(labelled).unwrap_or(ReleaseId::new(0)).max(known.release);
    let standing = match foreign_state(seen, mark, &made, here, known, disk) {
        Origin::Foreign(foreign) => Standing::Foreign(foreign),
        Origin::Lost => other_files(seen, mark, here, disk).unwrap_or(Standing::Lost),
        Origin::Free => other_files(seen, mark, here, disk).unwrap_or(Standing::Free),
        Origin::Ours => other_files(seen, mark, here, disk).unwrap_or(if plan > known.plan || release > known.release {
            Standing::Behind { plan }
        } else {
            Standing::Ours
        }),
    };
    Ownership { standing, plan, release, identity: here.state.clone(), routing: seen.steered.clone() }
}

enum Origin {
    Free,
    Ours,
    Lost,
    Foreign(Box<Foreign>),
}

/// Whose state directory it was.
fn foreign_state(seen: &Seen<'_>, mark: Option<&Owner>, made: &[&Instance], here: &Here, known: Remembered, disk: &dyn Disk) -> Origin {
    let foreign = |kind, owner: Option<&Owner>, label: Option<(String, PathBuf)>| {
        let host = owner.map(|owner| owner.host.clone()).or_else(|| label.as_ref().map(|(host, _)| host.clone()));
        Origin::Foreign(Box::new(Foreign {
            kind,
            project: seen.project.clone(),
            state_directory: owner.map(|owner| owner.state_directory.clone()).or_else(|| label.map(|(_, path)| path)),
            other_host: host.filter(|host| *host != here.host),
            user: owner.map(|owner| owner.user.clone()),
            files: owner.and_then(files_of).or_else(|| files_of_labels(seen.instances)),
            here: here.files.clone(),
            running: running(seen.instances),
        }))
    };
    if let Some(owner) = mark {
        let is_here = owner.host == here.host && owner.state_directory == here.state_directory;
        if here.state.as_ref() == Some(&owner.state) {
            if is_here || owner.host != here.host {
                return Origin::Ours;
            }
            // Moved, or copied: the original tells.
            return match disk.has_identity(&owner.state_directory, &owner.state) {
                Some(false) => Origin::Ours,
                Some(true) | None => foreign(ForeignKind::Copy, Some(owner), None),
            };
        }
        return if is_here { Origin::Lost } else { foreign(ForeignKind::State, Some(owner), None) };
    }
    // Without a mark the newest container tells.
    let newest = made.iter().filter(|instance| instance.labels.contains_key(kaleem_labels::STATE)).max_by_key(|instance| {
        let is_up = matches!(instance.state.status, InstanceStatus::Running | InstanceStatus::Restarting | InstanceStatus::Paused);
        (is_up, instance.release)
    });
    let Some(newest) = newest else {
        // Made by a version that wrote no identity: it is ours when our journals know it.
        return match (made.is_empty(), known.plan == PlanId(0)) {
            (true, true) => Origin::Free,
            (_, false) => Origin::Ours,
            (false, true) => foreign(ForeignKind::State, None, None),
        };
    };
    let label = |key: &str| newest.labels.get(key).map(String::as_str);
    if label(kaleem_labels::STATE) == here.state.as_ref().map(StateId::as_str) {
        return Origin::Ours;
    }
    let directory = label(kaleem_labels::STATE_DIRECTORY).and_then(|text| text.split_once(':'));
    let directory = directory.map(|(host, path)| (host.to_owned(), PathBuf::from(path)));
    match directory {
        Some((host, path)) if host == here.host && path == here.state_directory => Origin::Lost,
        directory => foreign(ForeignKind::State, None, directory),
    }
}

/// Whether it was deployed from other files than those that are here, and they are still there.
fn other_files(seen: &Seen<'_>, mark: Option<&Owner>, here: &Here, disk: &dyn Disk) -> Option<Standing> {
    let here_files = here.files.as_ref()?;
    let theirs = mark.and_then(files_of).or_else(|| files_of_labels(seen.instances))?;
    let plain = |files: &ProjectFiles| ProjectFiles {
        directory: disk.canonical(&files.directory),
        files: files.files.iter().map(|file| disk.canonical(file)).collect(),
    };
    let (theirs, here_files) = (plain(&theirs), plain(here_files));
    if mark.is_some_and(|owner| owner.host != here.host) {
        return None;
    }
    // Other files of one directory are one project: services that only a missing file names are asked about by the plan.
    if theirs.directory == here_files.directory {
        return None;
    }
    // Files that are gone were moved or renamed.
    if !theirs.files.iter().any(|file| disk.exists(file)) {
        return None;
    }
    Some(Standing::Foreign(Box::new(Foreign {
        kind: ForeignKind::Directory,
        project: seen.project.clone(),
        state_directory: mark.map(|owner| owner.state_directory.clone()),
        other_host: None,
        user: mark.map(|owner| owner.user.clone()),
        files: Some(theirs),
        here: Some(here_files),
        running: running(seen.instances),
    })))
}

fn files_of(owner: &Owner) -> Option<ProjectFiles> {
    Some(ProjectFiles { directory: owner.directory.clone()?, files: owner.files.clone() })
}

/// The files that Compose's labels name, where all running containers name the same directory.
fn files_of_labels(instances: &[Instance]) -> Option<ProjectFiles> {
    let running = instances.iter().filter(|instance| !instance.oneoff && instance.state.status == InstanceStatus::Running);
    let mut found: Option<ProjectFiles> = None;
    for instance in running {
        let label = |key: &str| instance.labels.get(key).filter(|text| !text.is_empty());
        let (Some(directory), Some(files)) = (label(compose_labels::WORKING_DIR), label(compose_labels::CONFIG_FILES)) else { continue };
        let directory = PathBuf::from(directory);
        // Older versions of Compose write them as they were typed.
        let files = files.split(',').map(|file| directory.join(file)).collect();
        match &found {
            Some(known) if known.directory != directory => return None,
            Some(_) => {}
            None => found = Some(ProjectFiles { directory, files }),
        }
    }
    found
}

fn running(instances: &[Instance]) -> Option<ReleaseId> {
    let running = instances.iter().filter(|instance| instance.state.status == InstanceStatus::Running && instance.number > 0);
    running.filter_map(|instance| instance.release).max()
}

/// The gateways that a project's containers are, by the names under which they are steered.
pub fn gateways(instances: &[Instance]) -> Vec<GatewayName> {
    let running = instances.iter().filter(|instance| instance.state.status == InstanceStatus::Running);
    let mut names: Vec<GatewayName> = running.filter_map(|instance| instance.labels.get(kaleem_labels::GATEWAY)?.parse().ok()).collect();
    names.sort();
    names.dedup();
    names
}

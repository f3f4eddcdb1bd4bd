//! What goes back although nobody said so: an image that is older than what runs, a variable or a compose file that is missing, a service
//! that only a missing file names.
//!
//! Such a plan is refused until a person agrees. A rollback and an image that is named on the command line are a person's word already.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use jiff::Timestamp;

use crate::config::inputs::Variable;
use crate::image::{Digest, ImageRef, PinnedImage};
use crate::names::{ReleaseId, ServiceName};
use crate::plan::{ChangeKind, Objection, Plan, ServiceChange, Severity};
use crate::release::{Release, Target};

/// An image would go back. A person may agree.
pub const GOES_BACK: &str = "goes-back";
/// A service would be stopped that only a missing compose file names. A person may agree.
pub const SERVICE_GONE: &str = "service-gone";
/// Something else changes because a variable or a compose file is missing.
const INPUT_MISSING: &str = "input-missing";

/// What runs of a service before the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Before {
    /// Its image, as text.
    pub image: String,
    /// The reference of that image, where it is one.
    pub reference: Option<ImageRef>,
    /// Its digest, where a release says which.
    pub digest: Option<Digest>,
    /// When the image was built.
    pub built: Option<Timestamp>,
}

/// What is known of a deploy and of what it replaces.
pub struct Facts<'a> {
    /// What serves, where kaleem released it.
    pub serving: Option<&'a Release>,
    /// Releases that served or serve.
    pub releases: &'a [Release],
    /// What is wanted, with what it is made from.
    pub target: &'a Target,
    /// Who names a variable, by variable: as the files are now.
    pub named: BTreeMap<&'a str, &'a Variable>,
    /// What runs of the services whose image is another.
    pub before: BTreeMap<ServiceName, Before>,
    /// When the new images were built.
    pub built: BTreeMap<ServiceName, Timestamp>,
}

/// Why a service changes that nobody wanted to change.
enum Cause {
    Unset(Vec<String>),
    Files(Vec<String>),
    Chosen(String),
    Other(Vec<String>),
}

impl Facts<'_> {
    /// What a person must agree to, or should know.
    pub fn objections(&self, plan: &Plan) -> Vec<Objection> {
        let files = self.serving.map(|serving| missing_files(&serving.target, self.target)).unwrap_or_default();
        plan.changes.iter().filter_map(|change| self.objection(change, &files)).collect()
    }

    fn objection(&self, change: &ServiceChange, files: &[String]) -> Option<Objection> {
        match change.kind {
            ChangeKind::Stop => self.gone(change, files),
            ChangeKind::Replace | ChangeKind::Run | ChangeKind::Update => {
                let wanted = self.target.services.get(&change.service)?;
                match self.before.get(&change.service).filter(|before| before.digest.as_ref() != Some(&wanted.image.digest)) {
                    // Somebody named it a moment ago.
                    Some(_) if self.target.made_from.chosen.contains_key(&change.service) => None,
                    Some(before) => self.goes_back(&change.service, before, &wanted.image, files),
                    None => self.changed(change, files),
                }
            }
            ChangeKind::Add | ChangeKind::Keep | ChangeKind::Repair => None,
        }
    }

    fn gone(&self, change: &ServiceChange, files: &[String]) -> Option<Objection> {
        let serving = self.serving?;
        if files.is_empty() {
            // The file was edited: that is a person's word.
            return None;
        }
        let (name, list) = (&change.service, files.join(", "));
        Some(Objection {
            rule: SERVICE_GONE.to_owned(),
            severity: Severity::Refuse,
            service: Some(name.clone()),
            message: format!("`{name}` would be stopped, because {} not given, unlike when {} was released", are(&list, files), serving.id),
            remedy: format!("add {}; or stop it with `--remove-orphans`", flags(files)),
        })
    }

    fn goes_back(&self, name: &ServiceName, before: &Before, after: &PinnedImage, files: &[String]) -> Option<Objection> {
        let cause = self.cause(name, after, files);
        let ran = self.ran_before(name, after);
        let built = self.built_before(name, before, &after.image);
        let missing = matches!(cause, Some(Cause::Unset(_) | Cause::Files(_) | Cause::Chosen(_)));
        if !missing && ran.is_none() && built.is_none() {
            return None;
        }
        let text = match (&ran, &built) {
            (Some(release), _) => format!(", which {release} ran and a later release replaced"),
            (None, Some((old, new))) => format!(", which was built on {}, before what runs now ({})", day(*new), day(*old)),
            (None, None) => String::new(),
        };
        let image = if before.reference.as_ref() == Some(&after.image) { after.to_string() } else { after.image.to_string() };
        let (because, remedy) = self.told(name, cause);
        Some(Objection {
            rule: GOES_BACK.to_owned(),
            severity: Severity::Refuse,
            service: Some(name.clone()),
            message: format!("`{name}` goes BACK: {} -> {image}{text}{because}", before.image),
            remedy: format!("{remedy}; or go back with `--allow-older`"),
        })
    }

    /// Something else than the image changes because something is missing: it is told, and not held up.
    fn changed(&self, change: &ServiceChange, files: &[String]) -> Option<Objection> {
        let cause = match self.unset(|variable| self.is_named_by(variable, &change.service)) {
            unset if !unset.is_empty() => Cause::Unset(unset),
            _ if !files.is_empty() && !change.fields.is_empty() => Cause::Files(files.to_vec()),
            _ => return None,
        };
        let fields = if change.fields.is_empty() { String::new() } else { format!(" ({})", change.fields.join(", ")) };
        let (because, remedy) = self.told(&change.service, Some(cause));
        Some(Objection {
            rule: INPUT_MISSING.to_owned(),
            severity: Severity::Warn,
            service: Some(change.service.clone()),
            message: format!("`{}` changes{fields}{because}", change.service),
            remedy,
        })
    }

    fn cause(&self, name: &ServiceName, after: &PinnedImage, files: &[String]) -> Option<Cause> {
        // A variable that no image is made of changes no image.
        let unset = self.unset(|variable| self.is_in_image_of(variable, name));
        if !unset.is_empty() {
            return Some(Cause::Unset(unset));
        }
        if !files.is_empty() {
            return Some(Cause::Files(files.to_vec()));
        }
        let serving = self.serving?;
        // The file still says what it said when another image was named: nobody edited it since.
        if serving.target.made_from.chosen.get(name) == Some(&after.image) {
            let was = serving.target.services.get(name).map(|wanted| wanted.image.image.to_string()).unwrap_or_default();
            return Some(Cause::Chosen(was));
        }
        let others: Vec<String> = serving
            .target
            .made_from
            .variables
            .iter()
            .filter(|(variable, hash)| self.target.made_from.variables.get(*variable).is_some_and(|now| now != *hash))
            .filter(|(variable, _)| self.is_in_image_of(variable, name))
            .map(|(variable, _)| variable.clone())
            .collect();
        (!others.is_empty()).then_some(Cause::Other(others))
    }

    /// Variables that had a value when what serves was released and have none now.
    fn unset(&self, concerns: impl Fn(&str) -> bool) -> Vec<String> {
        let had = self.serving.map(|serving| &serving.target.made_from.variables);
        let gone = had
            .into_iter()
            .flatten()
            .map(|(variable, _)| variable)
            .filter(|variable| !self.target.made_from.variables.contains_key(*variable) && concerns(variable));
        gone.cloned().collect()
    }

    /// Whether the service names a variable, or whether it cannot be told who does.
    fn is_named_by(&self, variable: &str, name: &ServiceName) -> bool {
        self.named.get(variable).is_some_and(|variable| self.is_among(&variable.services, name))
    }

    /// Whether the image of the service is made of a variable, or whether it cannot be told whose is.
    fn is_in_image_of(&self, variable: &str, name: &ServiceName) -> bool {
        self.named.get(variable).is_some_and(|variable| !variable.images.is_empty() && self.is_among(&variable.images, name))
    }

    /// A service that is extended has another name in its file: where none is known, it may be any.
    fn is_among(&self, services: &BTreeSet<String>, name: &ServiceName) -> bool {
        let known = |service: &String| self.target.services.keys().any(|name| name.as_str() == service);
        services.contains(name.as_str()) || !services.iter().any(known)
    }

    /// The release that ran the image before the one that serves.
    fn ran_before(&self, name: &ServiceName, after: &PinnedImage) -> Option<ReleaseId> {
        let serving = self.serving?;
        let earlier = self.releases.iter().filter(|release| release.id < serving.id);
        let ran = earlier.filter(|release| release.target.services.get(name).is_some_and(|wanted| wanted.image.digest == after.digest));
        ran.map(|release| release.id).max()
    }

    /// When both images were built, where the new one is the older one of two builds of one thing.
    fn built_before(&self, name: &ServiceName, before: &Before, after: &ImageRef) -> Option<(Timestamp, Timestamp)> {
        let (old, new) = (before.built?, *self.built.get(name)?);
        let built_here = format!("{}-{name}", self.target.project).to_lowercase();
        let one_thing = before.reference.as_ref().is_some_and(|reference| {
            let local = |image: &ImageRef| image.base_name() == built_here;
            reference.base_name() == after.base_name() || local(reference) || local(after)
        });
        let newer_version = before.reference.as_ref().is_some_and(|reference| is_newer_version(reference.tag(), after.tag()));
        (new < old && one_thing && !newer_version).then_some((old, new))
    }

    fn told(&self, name: &ServiceName, cause: Option<Cause>) -> (String, String) {
        let release = self.serving.map(|serving| serving.id.to_string()).unwrap_or_default();
        match cause {
            Some(Cause::Unset(names)) => {
                let (list, verb) = (names.join(", "), if names.len() == 1 { "is" } else { "are" });
                (format!(", because {list} {verb} not set, unlike when {release} was released"), format!("set {list} as it was then"))
            }
            Some(Cause::Files(files)) => {
                let list = files.join(", ");
                let because = format!(", because {} not given, unlike when {release} was released", are(&list, &files));
                (because, format!("add {}", flags(&files)))
            }
            Some(Cause::Chosen(image)) => {
                let because = format!(", because {release} was deployed with `{name}={image}` and the compose file says otherwise");
                (because, format!("name it again (`kaleem deploy {name}={image}`), or write it into the compose file"))
            }
            Some(Cause::Other(names)) => {
                let (list, verb) = (names.join(", "), if names.len() == 1 { "has another value" } else { "have other values" });
                (format!(", because {list} {verb} than when {release} was released"), format!("set {list} as it was then"))
            }
            None => (String::new(), "name a newer image in the compose file".to_owned()),
        }
    }
}

/// Compose files of what serves that are not given now, relative to the project's directory. None where other files took their places.
pub fn missing_files(then: &Target, now: &Target) -> Vec<String> {
    let files = |target: &Target| -> BTreeSet<String> { target.files.iter().map(|file| relative(file, &target.directory)).collect() };
    let (then, now) = (files(then), files(now));
    let missing: Vec<String> = then.difference(&now).cloned().collect();
    if now.difference(&then).count() < missing.len() { missing } else { Vec::new() }
}

fn relative(file: &Path, directory: &Path) -> String {
    file.strip_prefix(directory).unwrap_or(file).display().to_string()
}

fn are(list: &str, files: &[String]) -> String {
    if files.len() == 1 { format!("{list} is") } else { format!("{list} are") }
}

fn flags(files: &[String]) -> String {
    files.iter().map(|file| format!("`-f {file}`")).collect::<Vec<_>>().join(" and ")
}

fn day(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M").to_string()
}

/// Whether both tags are versions, and the second is the newer one: a patch of an old version may be built after it.
fn is_newer_version(before: Option<&str>, after: Option<&str>) -> bool {
    let numbers = |tag: &str| -> Option<Vec<u64>> {
        let tag = tag.strip_prefix('v').unwrap_or(tag);
        let version = tag.split(['-', '_', '+']).next().unwrap_or_default();
        version.split('.').map(|number| number.parse().ok()).collect()
    };
    match (before.and_then(numbers), after.and_then(numbers)) {
        (Some(before), Some(after)) => after > before,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_version_may_be_built_before_a_patch_of_the_older_one() {
        for (why, before, after, newer) in [
            ("a newer version", "10.4.9", "11.0.0", true),
            ("with a letter", "v1", "v2", true),
            ("with a variant", "7.2-alpine", "7.4-alpine", true),
            ("an older version", "v2", "v1", false),
            ("the same", "7", "7", false),
            ("no version", "latest", "stable", false),
        ] {
            assert_eq!(is_newer_version(Some(before), Some(after)), newer, "{why}: {before} to {after}");
        }
    }
}

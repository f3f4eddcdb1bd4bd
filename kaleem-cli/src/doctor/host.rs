//! Rules about the host: engine, state directory, journals, disk, and containers that nobody names.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use kaleem_core::journal::Next;
use kaleem_core::lease;
use kaleem_core::remedy::{Remedy, one_line};

use super::{Answer, Patient};
use crate::words;

/// Space that the engine itself needs to breathe.
const RESERVE_BYTES: u64 = 512 * 1024 * 1024;
/// An image takes about this many times its size while it is pulled: packed layers and unpacked ones.
const PULL_FACTOR: u64 = 2;

/// The engine answers and is new enough.
pub(super) fn engine(patient: &Patient<'_>) -> Vec<Answer> {
    match &patient.engine {
        Ok(engine) => vec![Answer::ok("engine", format!("Docker {} answers (API {})", engine.version, engine.api_version))],
        Err((message, remedy)) => vec![Answer::fail("engine", message, remedy)],
    }
}

/// What kaleem keeps can be written, and read by nobody else.
pub(super) fn state_directory(patient: &Patient<'_>) -> Vec<Answer> {
    let state = patient.wiring.state(&patient.project.name);
    let path = state.root();
    let rule = "state-directory";
    let Some(existing) = path.ancestors().find(|part| part.symlink_metadata().is_ok()) else {
        return vec![Answer::fail(rule, format!("{} cannot be looked at", path.display()), "choose another with `--state-dir`")];
    };
    if !existing.is_dir() {
        let message = format!("{} is no directory, so {} cannot be made", existing.display(), path.display());
        return vec![Answer::fail(
            rule,
            message,
            format!("move {} out of the way, or choose another place with `--state-dir`", existing.display()),
        )];
    }
    if rustix::fs::access(existing, rustix::fs::Access::WRITE_OK).is_err() {
        let message = format!("{} may not be written", existing.display());
        return vec![Answer::fail(rule, message, "run as its owner, or choose another place with `--state-dir`")];
    }
    if existing != path {
        return vec![Answer::ok(rule, format!("{} will be made by the first deploy", path.display()))];
    }
    let mode = path.metadata().map_or(0, |metadata| metadata.permissions().mode() & 0o777);
    if mode & 0o077 != 0 {
        let message = format!("{} may be entered by others (mode {mode:o}), and may hold secrets", path.display());
        return vec![Answer::warn(rule, message, format!("chmod 700 {}", path.display()))];
    }
    vec![Answer::ok(rule, format!("{} can be written, and read by nobody else", path.display()))]
}

/// The journals can be read.
pub(super) fn journals(patient: &Patient<'_>) -> Vec<Answer> {
    match &patient.history {
        Ok(history) => {
            vec![Answer::ok("journals", format!("{} can be read", words::count(history.entries().len(), "journal", "journals")))]
        }
        Err(error) => vec![Answer::fail("journals", one_line(error), error.remedy())],
    }
}

/// No plan was left in the middle.
pub(super) fn open_plan(patient: &Patient<'_>) -> Vec<Answer> {
    let rule = "open-plan";
    let Ok(history) = &patient.history else { return Vec::new() };
    let Some(entry) = history.open() else { return vec![Answer::ok(rule, "no plan is open")] };
    let what = format!("plan {} to {}", entry.plan.id, entry.plan.release.id);
    let since = words::duration(words::since(entry.ended, patient.now));
    if lease::is_held(patient.wiring.state(&patient.project.name).root()) {
        return vec![Answer::ok(rule, format!("{what} is under way"))];
    }
    if let Next::Stuck { error, .. } = entry.progress.next() {
        return vec![Answer::fail(
            rule,
            format!("{what} is stuck since {since}: {error}"),
            "mend it and run `kaleem resume`, or `kaleem resolve`",
        )];
    }
    vec![Answer::fail(rule, format!("{what} was interrupted {since} ago"), "run `kaleem resume` or `kaleem abort`")]
}

/// Another set of the images fits on the disk of the engine.
pub(super) fn disk(patient: &Patient<'_>) -> Vec<Answer> {
    let Some(root) = patient.engine_root.as_deref() else { return Vec::new() };
    // An engine elsewhere keeps its images where we cannot look.
    let Ok(space) = rustix::fs::statvfs(root) else { return Vec::new() };
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let mut sizes: Vec<(&str, u64)> = patient.images.values().map(|image| (image.id.as_str(), image.facts.size_bytes)).collect();
    sizes.sort_unstable();
    sizes.dedup();
    vec![room(root, free, sizes.iter().map(|(_, size)| size).sum())]
}

/// Whether images of this size (in bytes) fit once more.
fn room(root: &Path, free: u64, images: u64) -> Answer {
    let rule = "disk";
    let needed = images.saturating_mul(PULL_FACTOR).saturating_add(RESERVE_BYTES);
    let (free_text, needed_text) = (words::size(free), words::size(needed));
    if free < needed {
        let message = format!("{free_text} are free on {}, and another set of images takes up to {needed_text}", root.display());
        let remedy = "free some: `docker image prune`, `docker builder prune`; kaleem's own tags keep what it needs";
        return Answer::fail(rule, message, remedy);
    }
    Answer::ok(rule, format!("{free_text} are free on {}; another set of images takes up to {needed_text}", root.display()))
}

/// All of the live release serves.
pub(super) fn serving(patient: &Patient<'_>) -> Vec<Answer> {
    let Some(live) = patient.history.as_ref().ok().and_then(kaleem_core::history::History::serving) else { return Vec::new() };
    let answer = |fault: &kaleem_core::repair::Damage| {
        let verdict = if fault.is_warning() { Answer::warn } else { Answer::fail };
        let answer = verdict(fault.kind, fault.message.clone(), fault.repair.commands().join(" && "));
        match &fault.service {
            Some(service) => answer.of(service),
            None => answer,
        }
    };
    if patient.engine.is_ok() && patient.faults.is_empty() && patient.history.as_ref().is_ok_and(|history| history.open().is_none()) {
        let serves = Answer::ok("serving", format!("all of {live} serves"));
        return patient.warnings.iter().map(answer).chain(std::iter::once(serves)).collect();
    }
    patient.faults.iter().chain(&patient.warnings).map(answer).collect()
}

/// No container is left that the files do not name.
pub(super) fn orphans(patient: &Patient<'_>) -> Vec<Answer> {
    // A gateway stands before a service, and is none of the files'.
    let gateway = |instance: &&kaleem_core::runtime::Instance| instance.gateway.is_some();
    let named = |instance: &&kaleem_core::runtime::Instance| patient.project.services.contains_key(&instance.service);
    let kept = |instance: &&kaleem_core::runtime::Instance| {
        patient.history.as_ref().is_ok_and(|history| {
            history.releases().iter().any(|release| release.instances.values().flatten().any(|name| *name == instance.name))
        })
    };
    let strange =
        |instance: &&kaleem_core::runtime::Instance| !instance.oneoff && !gateway(instance) && !named(instance) && !kept(instance);
    let orphans = patient.instances.iter().filter(strange);
    let answer = |instance: &kaleem_core::runtime::Instance| {
        let message = format!("the container `{}` is of service `{}`, which the files do not name", instance.name, instance.service);
        let name = &instance.name;
        let runs = instance.state.status == kaleem_core::runtime::InstanceStatus::Running;
        let remedy = if runs { format!("if nobody needs it: docker stop {name}") } else { format!("if nobody needs it: docker rm {name}") };
        Answer::warn("orphan", message, remedy).of(&instance.service)
    };
    orphans.map(answer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_room_for_another_set_of_images_is_said_with_both_sizes() {
        let root = Path::new("/var/lib/docker");
        let images = 1_000_000_000;
        let enough = images * PULL_FACTOR + RESERVE_BYTES;
        assert_eq!(room(root, enough, images).remedy, None);
        let answer = room(root, enough - 1, images);
        assert_eq!(answer.message, "2.5 GB are free on /var/lib/docker, and another set of images takes up to 2.5 GB");
        assert!(answer.remedy.is_some_and(|remedy| remedy.contains("docker image prune")));
    }
}

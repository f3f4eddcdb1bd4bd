//! Mounts in the engine's words: it has two ways to write them, and only together they can say everything.

use std::collections::{BTreeMap, BTreeSet};

use bollard::models::{HostConfig, Mount as EngineMount, MountBindOptions, MountTmpfsOptions, MountType, MountVolumeOptions};

use super::limits::signed;
use super::{ApiVersion, body::unsupported};
use crate::definition::{Definition, InjectedFile, Mount, MountSource};
use crate::runtime::RuntimeError;

/// The mount in the form `source:target:options`, which makes a missing path and knows SELinux.
fn bind_text(mount: &Mount, path: &str, propagation: Option<&str>, selinux: Option<&str>) -> String {
    let access = if mount.read_only { "ro" } else { "rw" };
    let options: Vec<&str> = [Some(access), selinux, propagation].into_iter().flatten().collect();
    format!("{path}:{}:{}", mount.target, options.join(","))
}

fn engine_mount(mount: &Mount, api: ApiVersion) -> Result<EngineMount, RuntimeError> {
    let mut engine = EngineMount { target: Some(mount.target.clone()), read_only: Some(mount.read_only), ..EngineMount::default() };
    match &mount.source {
        MountSource::Bind { path, create_host_path, propagation, .. } => {
            let propagation = match propagation.as_deref().map(str::parse) {
                Some(Ok(propagation)) => Some(propagation),
                Some(Err(_)) => return Err(unsupported(format!("the propagation of the mount at {} is unknown", mount.target))),
                None => None,
            };
            let create_mountpoint = (*create_host_path && api >= ApiVersion(1, 42)).then_some(true);
            engine.typ = Some(MountType::BIND);
            engine.source = Some(path.clone());
            engine.bind_options = Some(MountBindOptions { propagation, create_mountpoint, ..MountBindOptions::default() });
        }
        MountSource::Volume { name, nocopy, subpath } => {
            if subpath.is_some() && api < ApiVersion(1, 45) {
                return Err(unsupported(format!("the mount at {} wants a directory of a volume, which needs Docker 26", mount.target)));
            }
            engine.typ = Some(MountType::VOLUME);
            engine.source = Some(name.to_string());
            let options = MountVolumeOptions { no_copy: nocopy.then_some(true), subpath: subpath.clone(), ..MountVolumeOptions::default() };
            engine.volume_options = Some(options).filter(|_| *nocopy || subpath.is_some());
        }
        MountSource::Anonymous => engine.typ = Some(MountType::VOLUME),
        MountSource::Tmpfs { size_bytes, mode } => {
            engine.typ = Some(MountType::TMPFS);
            let options = MountTmpfsOptions { size_bytes: size_bytes.map(signed), mode: mode.map(i64::from), options: None };
            engine.tmpfs_options = Some(options).filter(|_| size_bytes.is_some() || mode.is_some());
        }
    }
    Ok(engine)
}

/// Directories that need a volume of their own so that files can be put there before the start:
/// the engine writes nothing into a read-only root file system, and a memory file system hides what was written below it.
pub(super) fn file_directories(definition: &Definition) -> BTreeSet<String> {
    let below = |path: &str, directory: &str| path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'));
    let mut directories = BTreeSet::new();
    for file in &definition.files {
        let Some((parent, _)) = file.path.rsplit_once('/').filter(|(parent, _)| !parent.is_empty()) else { continue };
        let memory = definition.tmpfs.keys().map(String::as_str);
        let memory_mounts = definition.mounts.iter().filter(|mount| matches!(mount.source, MountSource::Tmpfs { .. }));
        let mut hiding = memory.chain(memory_mounts.map(|mount| mount.target.as_str()));
        let hidden = hiding.any(|directory| below(&file.path, directory.trim_end_matches('/')));
        let in_volume = definition
            .mounts
            .iter()
            .any(|mount| !matches!(mount.source, MountSource::Tmpfs { .. }) && below(&file.path, mount.target.trim_end_matches('/')));
        if (hidden || definition.read_only) && !in_volume {
            directories.insert(parent.to_owned());
        }
    }
    directories
}

/// Where files are unpacked: the directory of the innermost mount that holds them, else the root of the container.
/// The engine writes into no read-only root, also when the file itself would land in a volume below it.
pub(super) fn unpack_places(definition: &Definition) -> BTreeMap<String, Vec<&InjectedFile>> {
    let written = definition.mounts.iter().filter(|mount| !matches!(mount.source, MountSource::Tmpfs { .. }));
    let mut targets: Vec<String> = written.map(|mount| mount.target.trim_end_matches('/').to_owned()).collect();
    targets.extend(file_directories(definition));
    let mut places: BTreeMap<String, Vec<&InjectedFile>> = BTreeMap::new();
    for file in &definition.files {
        let holds = |target: &&String| file.path.strip_prefix(target.as_str()).is_some_and(|rest| rest.starts_with('/'));
        let innermost = targets.iter().filter(holds).max_by_key(|target| target.len());
        places.entry(innermost.map_or_else(|| "/".to_owned(), Clone::clone)).or_default().push(file);
    }
    places
}

/// Writes all mounts into `host`.
pub(super) fn apply(host: &mut HostConfig, definition: &Definition, api: ApiVersion) -> Result<(), RuntimeError> {
    let (mut binds, mut mounts) = (Vec::new(), Vec::new());
    for mount in &definition.mounts {
        match &mount.source {
            MountSource::Bind { path, create_host_path, propagation, selinux }
                if (*create_host_path || selinux.is_some()) && !path.contains(':') && !mount.target.contains(':') =>
            {
                binds.push(bind_text(mount, path, propagation.as_deref(), selinux.as_deref()));
            }
            _ => mounts.push(engine_mount(mount, api)?),
        }
    }
    for directory in file_directories(definition) {
        mounts.push(EngineMount { target: Some(directory), typ: Some(MountType::VOLUME), ..EngineMount::default() });
    }
    host.binds = (!binds.is_empty()).then_some(binds);
    host.mounts = (!mounts.is_empty()).then_some(mounts);
    if !definition.tmpfs.is_empty() {
        host.tmpfs = Some(definition.tmpfs.iter().map(|(path, options)| (path.clone(), options.clone())).collect());
    }
    Ok(())
}

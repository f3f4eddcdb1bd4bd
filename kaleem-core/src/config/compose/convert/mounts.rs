//! Volumes, secrets and configs of a service; the project's volumes.

use std::collections::BTreeMap;

use crate::config::compose::convert::{Converter, owned, pairs, unsigned};
use crate::config::compose::error::ProblemKind;
use crate::config::compose::tree::Node;
use crate::definition::{InjectedFile, Mount, MountSource, VolumeDefinition};

/// Permission bits of a secret or config whose mode is not said: everyone may read.
const DEFAULT_MODE: u32 = 0o444;

/// How a secret or config comes into the container.
enum Delivered {
    Mounted(Mount),
    Written(InjectedFile),
}

impl Converter<'_> {
    /// The project's volumes, by key.
    pub(super) fn volumes(&mut self) -> BTreeMap<String, VolumeDefinition> {
        let mut volumes = BTreeMap::new();
        for (key, node) in self.model.entries("volumes") {
            let Some(name) = self.parsed(node, &format!("volumes.{key}"), "name") else { continue };
            let definition = VolumeDefinition {
                name,
                key: key.clone(),
                external: node.get_bool("external").unwrap_or(false),
                driver: owned(node, "driver"),
                driver_opts: pairs(node, "driver_opts"),
                labels: pairs(node, "labels"),
            };
            volumes.insert(key.clone(), definition);
        }
        volumes
    }

    /// What is mounted into a service's container, and the files that are written into it.
    pub(super) fn mounts(&mut self, node: &Node, path: &str) -> (Vec<Mount>, Vec<InjectedFile>) {
        let (mut mounts, mut files) = (Vec::new(), Vec::new());
        for (index, volume) in node.get_list("volumes").iter().enumerate() {
            mounts.extend(self.mount(volume, &format!("{path}.volumes[{index}]")));
        }
        for (section, directory) in [("secrets", "/run/secrets/"), ("configs", "/")] {
            for (index, reference) in node.get_list(section).iter().enumerate() {
                let source = reference.get_text("source").unwrap_or_default();
                let target = reference.get_text("target").unwrap_or(source);
                let target = if target.starts_with('/') { target.to_owned() } else { format!("{directory}{target}") };
                let path = format!("{path}.{section}[{index}]");
                match self.file(section, reference, target, &path) {
                    Some(Delivered::Mounted(mount)) => mounts.push(mount),
                    Some(Delivered::Written(file)) => files.push(file),
                    None => {}
                }
            }
        }
        (mounts, files)
    }

    fn mount(&mut self, node: &Node, path: &str) -> Option<Mount> {
        let Some(target) = node.get_text("target").filter(|target| target.starts_with('/')) else {
            let reason = "the path in the container is missing or not absolute";
            self.problems.add(&node.mark, path, ProblemKind::BadValue, reason, "write an absolute path as `target:`");
            return None;
        };
        let source = match node.get_text("type").unwrap_or("volume") {
            "bind" => {
                let bind = node.get("bind");
                let option = |key: &str| bind.and_then(|bind| owned(bind, key));
                let Some(path_on_host) = owned(node, "source") else {
                    let reason = "a bind mount needs a path of the host";
                    self.problems.add(&node.mark, path, ProblemKind::BadValue, reason, "write the path as `source:`");
                    return None;
                };
                MountSource::Bind {
                    path: path_on_host,
                    create_host_path: bind.and_then(|bind| bind.get_bool("create_host_path")).unwrap_or(false),
                    propagation: option("propagation"),
                    selinux: option("selinux"),
                }
            }
            "volume" => self.volume_source(node)?,
            "tmpfs" => {
                let tmpfs = node.get("tmpfs");
                MountSource::Tmpfs {
                    size_bytes: tmpfs.and_then(|tmpfs| unsigned(tmpfs, "size")),
                    mode: tmpfs.and_then(|tmpfs| unsigned(tmpfs, "mode")).and_then(|mode| u32::try_from(mode).ok()),
                }
            }
            other => {
                self.refuse(&node.mark, path, format!("mounts of type `{other}` do not exist here"), "use `bind`, `volume` or `tmpfs`");
                return None;
            }
        };
        Some(Mount { target: target.to_owned(), read_only: node.get_bool("read_only").unwrap_or(false), source })
    }

    /// `None` for a volume that is not defined, which the check has refused.
    fn volume_source(&self, node: &Node) -> Option<MountSource> {
        let Some(key) = node.get_text("source") else { return Some(MountSource::Anonymous) };
        let name = self.model.get("volumes")?.get(key)?.get_text("name")?.parse().ok()?;
        let volume = node.get("volume");
        Some(MountSource::Volume {
            name,
            nocopy: volume.and_then(|volume| volume.get_bool("nocopy")).unwrap_or(false),
            subpath: volume.and_then(|volume| owned(volume, "subpath")),
        })
    }

    /// `None` for what is refused; what is not defined was refused by the check.
    fn file(&mut self, section: &str, reference: &Node, target: String, path: &str) -> Option<Delivered> {
        let source = reference.get_text("source").unwrap_or_default();
        let definition = self.model.get(section).and_then(|all| all.get(source))?;
        if definition.get_bool("external") == Some(true) {
            let reason = format!("`{source}` is external, and only a swarm keeps such {section}");
            self.refuse(&reference.mark, path, reason, "give it with `file:` or `environment:`");
            return None;
        }
        if let Some(file) = owned(definition, "file") {
            if ["uid", "gid", "mode"].iter().any(|key| reference.get(key).is_some()) {
                let reason = "owner and mode of a file that is mounted are those it has on the host, as with Compose";
                self.warn(&reference.mark, path, reason);
            }
            let source = MountSource::Bind { path: file, create_host_path: false, propagation: None, selinux: None };
            return Some(Delivered::Mounted(Mount { target, read_only: true, source }));
        }
        let content = match definition.get("environment") {
            Some(variable) => {
                let name = variable.text().unwrap_or_default();
                let Some(value) = self.environment.get(name) else {
                    let reason = format!("the variable `{name}` must be set");
                    let remedy = format!("set `{name}` in the environment or in `.env`");
                    self.problems.add(
                        &variable.mark,
                        &format!("{section}.{source}.environment"),
                        ProblemKind::MissingVariable,
                        reason,
                        remedy,
                    );
                    return None;
                };
                value.clone()
            }
            None => owned(definition, "content").unwrap_or_default(),
        };
        let mode = unsigned(reference, "mode").and_then(|mode| u32::try_from(mode).ok()).unwrap_or(DEFAULT_MODE);
        let (uid, gid) = (self.owner(reference, "uid", path), self.owner(reference, "gid", path));
        Some(Delivered::Written(InjectedFile { path: target, content, mode, uid, gid }))
    }

    fn owner(&mut self, reference: &Node, key: &str, path: &str) -> u64 {
        let Some(node) = reference.get(key) else { return 0 };
        node.scalar_text().and_then(|text| text.parse().ok()).unwrap_or_else(|| {
            let reason = format!("`{key}` must be a number");
            self.problems.add(&node.mark, path, ProblemKind::BadValue, reason, "write the number of the user or group");
            0
        })
    }
}

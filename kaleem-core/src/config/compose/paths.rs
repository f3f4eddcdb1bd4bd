//! Paths of compose files: relative to the file's project, `~` for the home directory.

use std::path::{Component, Path, PathBuf};

/// `text` as an absolute path. An absolute path stays as it is written.
pub(super) fn absolute(base: &Path, home: Option<&str>, text: &str) -> String {
    if let (Some(home), Some(rest)) = (home, text.strip_prefix('~')) {
        if rest.is_empty() {
            return home.to_owned();
        }
        if let Some(rest) = rest.strip_prefix('/') {
            return clean(&Path::new(home).join(rest)).display().to_string();
        }
    }
    if text.starts_with('/') {
        return text.to_owned();
    }
    clean(&base.join(text)).display().to_string()
}

/// `path` without `.` and `..`, by its text alone: a symbolic link is not followed.
pub(super) fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                if !cleaned.pop() && !path.is_absolute() {
                    cleaned.push("..");
                }
            }
            other => cleaned.push(other),
        }
    }
    cleaned
}

/// Whether a build context is an address and not a directory.
pub(super) fn is_address(text: &str) -> bool {
    let schemes =
        ["https://", "http://", "git://", "ssh://", "github.com/", "git@", "docker-image://", "oci-layout://", "target:", "service:"];
    schemes.iter().any(|scheme| text.starts_with(scheme))
}

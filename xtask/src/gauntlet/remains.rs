//! What a project of the gauntlet leaves on the engine, and its removal.

use std::path::Path;

use crate::fail::TaskError;
use crate::programs::Program;

/// Removes the containers, networks and volumes that carry the project's name under one of the labels, and its pinned images.
pub(super) fn remove_all(docker: impl Fn(&[&str]) -> Program, labels: &[&str], name: &str, log: &Path) -> Result<(), TaskError> {
    for (list, remove) in [
        (&["ps", "--all", "--quiet"][..], &["rm", "--force", "--volumes"][..]),
        (&["network", "ls", "--quiet"], &["network", "rm"]),
        (&["volume", "ls", "--quiet"], &["volume", "rm"]),
    ] {
        for label in labels {
            let filter = format!("label={label}={name}");
            let found = docker(list).args(["--filter", &filter]).output()?;
            if !found.is_empty() {
                docker(remove).args(found.lines()).logged(log)?;
            }
        }
    }
    let pins = format!("reference=kaleem.invalid/{name}/*");
    let tags = docker(&["images", "--filter", &pins, "--format", "{{.Repository}}:{{.Tag}}"]).output()?;
    if !tags.is_empty() {
        docker(&["rmi"]).args(tags.lines()).logged(log)?;
    }
    Ok(())
}

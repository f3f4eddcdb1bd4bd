//! Where things are: the one door to the environment, and to files that tasks write.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use kaleem_core::testing::claim_port;

use crate::fail::TaskError;

/// The workspace and the directories beside it.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The workspace.
    pub root: PathBuf,
    /// What cargo builds: `CARGO_TARGET_DIR`, or `target`.
    pub target: PathBuf,
    /// What `setup` fetches and starts: `KALEEM_TOOLS`, or `target/tools`.
    pub tools: PathBuf,
    /// Whether a machine runs this, so that nobody can be asked.
    pub ci: bool,
    /// Where programs are looked for, with the places that only root's shell knows.
    pub path: OsString,
    /// The terminal, if a person sits there.
    pub interactive: bool,
}

impl Place {
    /// Reads the environment, and makes the tools directory.
    pub(crate) fn find() -> Result<Self, TaskError> {
        let manifest = variable("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest.parent().unwrap_or(&manifest).to_path_buf();
        let absolute = |path: OsString| root.join(path);
        let target = variable("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), absolute);
        let tools = variable("KALEEM_TOOLS").map_or_else(|| target.join("tools"), absolute);
        create_directory(&tools)?;
        let mut path = variable("PATH").unwrap_or_default();
        path.push(":/usr/local/sbin:/usr/sbin:/sbin");
        let interactive = std::io::IsTerminal::is_terminal(&std::io::stdin());
        Ok(Self { root, target, tools, ci: variable("CI").is_some(), path, interactive })
    }

    /// The file of a program, if it is installed.
    pub(crate) fn program(&self, name: &str) -> Option<PathBuf> {
        std::env::split_paths(&self.path).map(|directory| directory.join(name)).find(|path| path.is_file())
    }

    /// The cargo that started this.
    pub(crate) fn cargo(&self) -> OsString {
        variable("CARGO").unwrap_or_else(|| "cargo".into())
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the door")]
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The whole environment, for what takes it as data. Variables that are not UTF-8 are left out.
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub(crate) fn environment() -> BTreeMap<String, String> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect()
}

/// Makes a directory and those above it.
pub(crate) fn create_directory(path: &Path) -> Result<(), TaskError> {
    std::fs::create_dir_all(path).map_err(|source| TaskError::File { operation: "create", path: path.to_path_buf(), source })
}

/// Writes a whole file, or leaves the old one.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), TaskError> {
    let failed = |source| TaskError::File { operation: "write", path: path.to_path_buf(), source };
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

/// Copies a file.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<(), TaskError> {
    std::fs::copy(from, to).map(drop).map_err(|source| TaskError::File { operation: "copy", path: from.to_path_buf(), source })
}

/// A directory that goes away with the value.
pub(crate) fn scratch() -> Result<tempfile::TempDir, TaskError> {
    tempfile::Builder::new().prefix("kaleem-xtask-").tempdir().map_err(|source| TaskError::File {
        operation: "create a directory in",
        path: "/tmp".into(),
        source,
    })
}

/// A port of 127.0.0.1 that nobody listens on, and that no other task or test is given.
pub(crate) fn free_port() -> Result<u16, TaskError> {
    claim_port().map_err(|error| TaskError::Unexpected { what: format!("no free port on 127.0.0.1: {error}") })
}

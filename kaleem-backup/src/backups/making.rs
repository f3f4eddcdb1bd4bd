//! Which sets are being made, by name, on disk before the first byte of each is stored: so that what a death leaves in a
//! vault is found again.

use std::path::{Path, PathBuf};

use kaleem_core::durable::{self, PRIVATE_DIRECTORY, PRIVATE_FILE};
use kaleem_core::names::SetId;

use super::BackupsError;

fn state(source: durable::DurableError) -> BackupsError {
    BackupsError::State { source }
}

fn place(directory: &Path) -> PathBuf {
    directory.join("making")
}

/// A set that is being made. It stays remembered until it is said to be done.
pub(super) struct Making {
    path: PathBuf,
}

pub(super) fn begin(directory: &Path, set: &SetId) -> Result<Making, BackupsError> {
    let place = place(directory);
    durable::create_directory(&place, PRIVATE_DIRECTORY).map_err(state)?;
    let path = place.join(set.as_str());
    durable::write_atomic(&path, b"", PRIVATE_FILE).map_err(state)?;
    Ok(Making { path })
}

impl Making {
    pub(super) fn done(self) -> Result<(), BackupsError> {
        durable::remove(&self.path).map_err(state)
    }
}

/// What was begun and is not done, without what a death left of the remembering itself. The caller holds the lock.
pub(super) fn left_behind(directory: &Path) -> Result<Vec<SetId>, BackupsError> {
    tidy(directory)?;
    match durable::list(&place(directory)) {
        Ok(names) => Ok(names.iter().filter_map(|name| name.parse().ok()).collect()),
        Err(error) if error.is_missing() => Ok(Vec::new()),
        Err(error) => Err(state(error)),
    }
}

fn tidy(directory: &Path) -> Result<(), BackupsError> {
    match durable::remove_leftovers(&place(directory)) {
        Err(error) if !error.is_missing() => Err(state(error)),
        _ => Ok(()),
    }
}

/// The caller holds the lock.
pub(super) fn forget(directory: &Path, set: &SetId) -> Result<(), BackupsError> {
    tidy(directory)?;
    durable::remove(&place(directory).join(set.as_str())).map_err(state)
}

//! What a loss of power would leave of files that grow, so that tests can cut them there.
//!
//! Only with the feature `testing`, which no program of users is built with; elsewhere nothing of this is left in the binary.

#[cfg(feature = "testing")]
mod kept {
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};
    use std::sync::{Mutex, PoisonError};

    /// Bytes of each file that are on disk.
    static KEPT: Mutex<BTreeMap<PathBuf, u64>> = Mutex::new(BTreeMap::new());

    /// Bytes of a file that would be there after a loss of power; `None` for one that was never opened to grow.
    pub fn kept_bytes(path: &Path) -> Option<u64> {
        KEPT.lock().unwrap_or_else(PoisonError::into_inner).get(path).copied()
    }

    /// What an earlier process left counts as it did.
    pub(crate) fn opened(path: &Path, bytes: u64) {
        KEPT.lock().unwrap_or_else(PoisonError::into_inner).entry(path.to_owned()).or_insert(bytes);
    }

    pub(crate) fn synced(path: &Path, bytes: u64) {
        KEPT.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), bytes);
    }
}

#[cfg(feature = "testing")]
pub use kept::kept_bytes;
#[cfg(feature = "testing")]
pub(crate) use kept::{opened, synced};

/// Nobody asks in what users run.
#[cfg(not(feature = "testing"))]
pub(crate) const fn opened(_path: &std::path::Path, _bytes: u64) {}

/// Nobody asks in what users run.
#[cfg(not(feature = "testing"))]
pub(crate) const fn synced(_path: &std::path::Path, _bytes: u64) {}

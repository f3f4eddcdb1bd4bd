//! Backup sets as plans see them: made before a deploy, put back with a rollback. What is in them is known elsewhere.

use std::error::Error;
use std::path::PathBuf;

use async_trait::async_trait;

use crate::names::{ReleaseId, ServiceName, SetId, VolumeName};
use crate::remedy::Remedy;

/// A set that a plan makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetRequest {
    /// Its name, computed when the plan was made.
    pub set: SetId,
    /// The release that it is made before.
    pub release: Option<ReleaseId>,
    /// Words for retention.
    pub tags: Vec<String>,
}

/// Whose data an artifact is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SetData {
    /// A database or broker of the project: it runs on while its data is put back.
    Store(ServiceName),
    /// A volume.
    Volume(VolumeName),
    /// A directory of this host.
    Directory(PathBuf),
    /// Something outside the project, or something that only a command knows.
    Elsewhere,
}

/// Called with how far it is, one line; must not block.
pub type SetObserver = dyn Fn(String) + Send + Sync;

/// Why a set could not be made, checked, given up or put back.
#[derive(Debug, thiserror::Error)]
#[error("could not {doing} the backup set {set}")]
pub struct SetsError {
    /// What was being done.
    pub doing: &'static str,
    /// The set.
    pub set: SetId,
    /// What to do about it.
    pub remedy: String,
    /// Whether trying again may help.
    pub transient: bool,
    /// Why.
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
}

impl Remedy for SetsError {
    fn remedy(&self) -> String {
        self.remedy.clone()
    }

    fn is_transient(&self) -> bool {
        self.transient
    }
}

/// Makes, checks, gives up and puts back the backup sets of one project.
///
/// # Contract
/// - `make` of a set that is finished changes nothing and succeeds; what an earlier `make` that died left of it is removed first.
///   After an error there is no set of that name.
/// - `verify` reads every byte in every vault. It fails for a set that is not finished.
/// - `give_up` removes what there is of a set that is not finished, and never touches a finished one. It succeeds when there is
///   nothing.
/// - `restore` puts every artifact of a finished set in the place of what is there; nothing is replaced before it was read and
///   checked in whole. After an error or a death each part is what it was or what was restored. It may be repeated.
#[async_trait]
pub trait BackupSets: Send + Sync {
    /// Makes a set and reads it back. Answers what is in it, one line.
    ///
    /// # Errors
    /// [`SetsError`]; there is no set.
    async fn make(&self, request: &SetRequest, observer: &SetObserver) -> Result<String, SetsError>;
    /// Reads a set again. Answers where it is whole, one line.
    ///
    /// # Errors
    /// [`SetsError`]; nothing was changed.
    async fn verify(&self, set: &SetId, observer: &SetObserver) -> Result<String, SetsError>;
    /// Removes an unfinished set.
    ///
    /// # Errors
    /// [`SetsError`]; what is left is no set.
    async fn give_up(&self, set: &SetId) -> Result<(), SetsError>;
    /// Puts a set in the place of what is there. Answers what was restored, one line.
    ///
    /// # Errors
    /// [`SetsError`]; each part is whole, the old or the new.
    async fn restore(&self, set: &SetId, observer: &SetObserver) -> Result<String, SetsError>;
    /// Whose data `restore` would put back; nothing is asked.
    fn covers(&self) -> Vec<SetData>;
}

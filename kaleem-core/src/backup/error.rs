//! What goes wrong at a source or at a vault, told apart by what a person does about it.

use std::error::Error;
use std::io;

use crate::backup::VaultPath;
use crate::durable::DurableError;
use crate::remedy::Remedy;

/// Why something could not be backed up, checked or put back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// Nobody answers.
    #[error("could not reach {store}")]
    Unreachable {
        /// Kind and address, without credentials.
        store: String,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// It answers, and does not let us.
    #[error("{store} does not let us {doing}: {reason}")]
    Denied {
        /// Kind and address.
        store: String,
        /// What was asked.
        doing: &'static str,
        /// What it said.
        reason: String,
    },
    /// It failed on the way, or went silent.
    #[error("{store} failed while {doing}")]
    Failed {
        /// Kind and address.
        store: String,
        /// What was going on.
        doing: String,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Something in it cannot be backed up rightly, so nothing was.
    #[error("{what} cannot be backed up: {reason}")]
    Unsupported {
        /// The part.
        what: String,
        /// Why.
        reason: String,
    },
    /// The bytes are not what they should be.
    #[error("the {format} is damaged at byte {at_bytes}: {reason}")]
    Malformed {
        /// Which format.
        format: &'static str,
        /// How far it was sound.
        at_bytes: u64,
        /// What is wrong.
        reason: String,
    },
    /// The stream of bytes to read from broke.
    #[error("the bytes to read ended with an error")]
    Input {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Whoever takes the bytes stopped taking them.
    #[error("nobody takes the bytes any more")]
    Output {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A restore would have to take something away, and was not told to.
    #[error("{what} is not empty")]
    NotEmpty {
        /// The part.
        what: String,
    },
    /// A restore would have to take away what no backup holds. Nothing was changed.
    #[error("{what} would be lost: {reason}")]
    WouldLose {
        /// The part.
        what: String,
        /// Why it would have to go.
        reason: String,
    },
    /// After a restore the store does not hold what was restored.
    #[error("{what} does not hold what was restored: {reason}")]
    Differs {
        /// The part.
        what: String,
        /// Found and wanted.
        reason: String,
    },
}

impl Remedy for SourceError {
    fn remedy(&self) -> String {
        match self {
            Self::Unreachable { .. } => "check that it runs and can be reached from here, then run the same command".to_owned(),
            Self::Denied { .. } => "give the user that kaleem logs in as the right to do so".to_owned(),
            Self::Failed { .. } => "look at the store's own log, then run the same command".to_owned(),
            Self::Unsupported { .. } => "leave it out by name, or back it up with its own tools through a command source".to_owned(),
            Self::Malformed { .. } => "use another backup set; this one is damaged".to_owned(),
            Self::Input { source } if source.kind() == io::ErrorKind::InvalidData => {
                "use another backup set; this one is damaged".to_owned()
            }
            Self::Input { .. } => "check the vault, then run the same command".to_owned(),
            Self::Output { .. } => "see the vault's error, mend it, then run the same command".to_owned(),
            Self::NotEmpty { .. } => "restore to another target, or say that what is there may be replaced".to_owned(),
            Self::WouldLose { .. } => "take out what it holds, or restore to another target; nothing was changed".to_owned(),
            Self::Differs { .. } => "stop whatever else writes to it, then restore again".to_owned(),
        }
    }

    fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

/// Why a vault could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VaultError {
    /// Nobody answers, or the answer makes no sense.
    #[error("could not reach the vault {place}")]
    Unreachable {
        /// The vault.
        place: String,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// It answers, and does not let us.
    #[error("the vault {place} does not let us {doing}: {reason}")]
    Denied {
        /// The vault.
        place: String,
        /// What was asked.
        doing: &'static str,
        /// What it said.
        reason: String,
    },
    /// It is not there.
    #[error("the vault {place} has no {path}")]
    Missing {
        /// The vault.
        place: String,
        /// The object.
        path: VaultPath,
    },
    /// It is there already; it was not touched.
    #[error("the vault {place} already has {path}")]
    Exists {
        /// The vault.
        place: String,
        /// The object.
        path: VaultPath,
    },
    /// What was to be stored ended with an error; nothing was stored.
    #[error("what was to be stored as {path} ended with an error")]
    Body {
        /// The object.
        path: VaultPath,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file of a vault on disk could not be read or written.
    #[error("the vault {place} failed at {path}")]
    Disk {
        /// The vault.
        place: String,
        /// The object or prefix.
        path: VaultPath,
        /// Why.
        #[source]
        source: DurableError,
    },
    /// It answers, and says itself that what it stores is no longer what was stored.
    #[error("what the vault {place} stores is damaged: {reason}")]
    Damaged {
        /// The vault.
        place: String,
        /// What it said.
        reason: String,
    },
    /// Something is in the vault that kaleem did not put there, so that a listing would not be the truth.
    #[error("the vault {place} holds something foreign: {what}")]
    Foreign {
        /// The vault.
        place: String,
        /// What and where.
        what: String,
    },
}

impl Remedy for VaultError {
    fn remedy(&self) -> String {
        match self {
            Self::Unreachable { place, .. } => format!("check that {place} can be reached from here, then run the same command"),
            Self::Denied { .. } => "check the keys, and what they are allowed in the vault, then run the same command".to_owned(),
            Self::Missing { .. } => "choose another backup set: see `kaleem backup list`".to_owned(),
            Self::Exists { .. } => "look whether another kaleem writes to this vault, then run the same command".to_owned(),
            Self::Body { .. } => "mend what the cause names, then run the same command".to_owned(),
            Self::Disk { source, .. } => source.remedy(),
            Self::Damaged { .. } => {
                "use a backup set in another vault, and make a new one; what is damaged is found with the vault's own tools".to_owned()
            }
            Self::Foreign { place, .. } => format!("move it out of {place}; a vault is a directory of its own"),
        }
    }

    fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

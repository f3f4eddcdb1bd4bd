//! Why the backups of a project could not do what they were asked, graded for scripts.

use kaleem_core::durable::DurableError;
use kaleem_core::lease::LeaseError;
use kaleem_core::names::{ArtifactName, SetId};
use kaleem_core::remedy::Remedy;

use crate::retention::RetentionError;
use crate::set::{Grade, SetFailure};

/// Why the backups of a project could not do what they were asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupsError {
    /// Somebody else makes, prunes or restores now, or the lock cannot be had.
    #[error("could not take the lock of the project's backups")]
    Lease {
        /// Why.
        #[source]
        source: LeaseError,
    },
    /// What is remembered between runs could not be read or written.
    #[error("could not keep what is to be remembered of backups")]
    State {
        /// Why.
        #[source]
        source: DurableError,
    },
    /// Nobody said who will be able to read the sets.
    #[error("nobody said who may read the backups")]
    NotProtected,
    /// There is nothing to back up.
    #[error("there is nothing to back up: no known database, broker or volume was found")]
    NoSource,
    /// Something was named that is not there.
    #[error("there is no `{name}` to back up or to restore to")]
    NoSuchSource {
        /// As it was named.
        name: ArtifactName,
        /// What there is.
        known: String,
    },
    /// The set is in no vault.
    #[error("there is no backup set {set}")]
    NoSuchSet {
        /// As it was named.
        set: SetId,
    },
    /// There is no set at all.
    #[error("there is no backup set yet")]
    NoSet,
    /// A set could not be made, read or put back.
    #[error(transparent)]
    Set {
        /// Why.
        source: SetFailure,
    },
    /// What is to stay and what is to go could not be found out, or not carried out.
    #[error(transparent)]
    Retention {
        /// Why.
        source: RetentionError,
    },
    /// The last verified set is never forgotten.
    #[error("{set} is the last verified backup set in {place}")]
    LastVerified {
        /// The set.
        set: SetId,
        /// The vault.
        place: String,
    },
    /// It was told to stay.
    #[error("the backup set {set} is held in {place}")]
    Held {
        /// The set.
        set: SetId,
        /// The vault.
        place: String,
    },
}

impl Remedy for BackupsError {
    fn remedy(&self) -> String {
        match self {
            Self::Lease { source: LeaseError::Busy { .. } } => "wait until it is done, then run the same command".to_owned(),
            Self::Lease { source } => source.remedy(),
            Self::State { source } => source.remedy(),
            Self::NotProtected => {
                "write `recipients = [\"age1…\"]` under `[backup]` in kaleem.toml (`age-keygen -o key.txt` makes a pair of keys), or a passphrase, or `unencrypted = true`".to_owned()
            }
            Self::NoSource => "name what is to be backed up under `[backup.sources.NAME]` in kaleem.toml".to_owned(),
            Self::NoSuchSource { known, .. } => format!("choose one of: {known}"),
            Self::NoSuchSet { .. } | Self::NoSet => "see what there is with `kaleem backup list`, or make one with `kaleem backup create`".to_owned(),
            Self::Set { source } => source.remedy(),
            Self::Retention { source } => source.remedy(),
            Self::LastVerified { .. } => "make another backup set first: `kaleem backup create`".to_owned(),
            Self::Held { set, .. } => format!("let go of it first: `kaleem backup release {set}`"),
        }
    }

    fn is_transient(&self) -> bool {
        match self {
            Self::Set { source } => source.is_transient(),
            _ => false,
        }
    }
}

impl BackupsError {
    /// What it says.
    pub fn grade(&self) -> Grade {
        match self {
            Self::Set { source } | Self::Retention { source: RetentionError::Vault { source } } => source.grade(),
            _ => Grade::Failed,
        }
    }
}

//! Why a set could not be made, read, checked or put back.

use std::time::Duration;

use kaleem_core::backup::{SetError, SourceError, VaultError};
use kaleem_core::names::{ArtifactName, NameError, SetId};
use kaleem_core::remedy::Remedy;

/// What went wrong with a set. After a failed making there is no COMMIT, so no set.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetFailure {
    /// The source of an artifact failed.
    #[error("could not back up `{artifact}`")]
    Source {
        /// The artifact.
        artifact: ArtifactName,
        /// Why.
        #[source]
        source: SourceError,
    },
    /// An artifact could not be compressed or encrypted.
    #[error("could not seal `{artifact}`")]
    Seal {
        /// The artifact.
        artifact: ArtifactName,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The vault failed.
    #[error("could not {doing} the backup set {set}")]
    Vault {
        /// What was being done.
        doing: &'static str,
        /// The set.
        set: SetId,
        /// Why.
        #[source]
        source: VaultError,
    },
    /// The vault could not be listed.
    #[error("could not list the backup sets")]
    List {
        /// Why.
        #[source]
        source: VaultError,
    },
    /// Neither source nor vault moved.
    #[error("nothing moved for {} s while backing up `{artifact}`", silence.as_secs())]
    Stalled {
        /// The artifact.
        artifact: ArtifactName,
        /// How long.
        silence: Duration,
    },
    /// An artifact is not what the manifest says.
    #[error("`{artifact}` of the backup set {set} is not whole and sound")]
    Artifact {
        /// The set.
        set: SetId,
        /// The artifact.
        artifact: ArtifactName,
        /// Why.
        #[source]
        source: SourceError,
    },
    /// What is stored of an artifact is not what was stored.
    #[error("`{artifact}` of the backup set {set} is damaged: {reason}")]
    Stored {
        /// The set.
        set: SetId,
        /// The artifact.
        artifact: ArtifactName,
        /// Found and wanted.
        reason: String,
    },
    /// An artifact is stored as it was made, and no key that was given opens it.
    #[error("could not open `{artifact}` of the backup set {set}")]
    Locked {
        /// The set.
        set: SetId,
        /// The artifact.
        artifact: ArtifactName,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The vault did not give all of an artifact; nothing is known to be wrong with it.
    #[error("could not read `{artifact}` of the backup set {set} to its end")]
    Unread {
        /// The set.
        set: SetId,
        /// The artifact.
        artifact: ArtifactName,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It reads well, but holds something else than the source said.
    #[error("`{artifact}` of the backup set {set} does not hold what was exported: {reason}")]
    Contents {
        /// The set.
        set: SetId,
        /// The artifact.
        artifact: ArtifactName,
        /// The first difference.
        reason: String,
    },
    /// The set's own description is damaged.
    #[error("the backup set {set} cannot be believed")]
    Description {
        /// The set.
        set: SetId,
        /// Why.
        #[source]
        source: SetError,
    },
    /// There is no COMMIT: the set was never finished.
    #[error("the backup set {set} was never finished")]
    Unfinished {
        /// The set.
        set: SetId,
    },
    /// The set has no such artifact.
    #[error("the backup set {set} has no `{artifact}`")]
    NoArtifact {
        /// The set.
        set: SetId,
        /// The artifact.
        artifact: ArtifactName,
    },
    /// Two sources make the same artifact, or none was given.
    #[error("a backup set must have artifacts with names of their own: {reason}")]
    Request {
        /// What is wrong.
        reason: String,
    },
    /// The restore failed.
    #[error("could not restore `{artifact}` of the backup set {set}")]
    Restore {
        /// The set.
        set: SetId,
        /// The artifact.
        artifact: ArtifactName,
        /// Why.
        #[source]
        source: SourceError,
    },
    /// No random numbers.
    #[error("the system has no random numbers")]
    Random {
        /// Why.
        #[source]
        source: getrandom::Error,
    },
    /// A name that was made is not valid.
    #[error("a bug: a name in a backup set is not valid")]
    Name {
        /// Which.
        #[source]
        source: NameError,
    },
    /// A thread of this program ended without an answer.
    #[error("a bug: the work on `{artifact}` ended without an answer")]
    Lost {
        /// The artifact.
        artifact: ArtifactName,
    },
}

impl Remedy for SetFailure {
    fn remedy(&self) -> String {
        match self {
            Self::Source { source, .. } | Self::Artifact { source, .. } | Self::Restore { source, .. } => source.remedy(),
            Self::Vault { source, .. } | Self::List { source } => source.remedy(),
            Self::Description { source, .. } => source.remedy(),
            Self::Seal { .. } => "run the same command again".to_owned(),
            Self::Stalled { .. } => "check that the store and the vault answer, then run the same command".to_owned(),
            Self::Stored { .. } => "use another backup set; this one is damaged".to_owned(),
            Self::Locked { .. } => "give the key or the passphrase that it was made for: `--key-file FILE`".to_owned(),
            Self::Unread { .. } => "check that the vault answers, then run the same command".to_owned(),
            Self::Contents { .. } => "make a new backup set; this one is not to be relied on".to_owned(),
            Self::Unfinished { .. } => "choose a finished backup set: see `kaleem backup list`".to_owned(),
            Self::NoArtifact { .. } => "see `kaleem backup show` for what it has".to_owned(),
            Self::Request { .. } => "give each source a name of its own".to_owned(),
            Self::Random { .. } => "check the system: `getrandom` must work".to_owned(),
            Self::Name { .. } | Self::Lost { .. } => "report it: it is a fault of kaleem".to_owned(),
        }
    }

    fn is_transient(&self) -> bool {
        match self {
            Self::Source { source, .. } => source.is_transient(),
            Self::Vault { source, .. } | Self::List { source } => source.is_transient(),
            _ => false,
        }
    }
}

/// What a failure says of the set, of the vault, or of neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// It could not be done; nothing is known to be wrong with what is stored.
    Failed,
    /// It could not be found out whether it is right: a key is missing.
    CouldNotVerify,
    /// The vault does not answer.
    VaultUnreachable,
    /// What is stored is not what was stored.
    Integrity,
}

impl SetFailure {
    /// What it says.
    pub fn grade(&self) -> Grade {
        match self {
            Self::Vault { source, .. } | Self::List { source } => of_vault(source),
            Self::Unread { .. } => Grade::VaultUnreachable,
            Self::Locked { .. } | Self::Artifact { source: SourceError::Unsupported { .. }, .. } => Grade::CouldNotVerify,
            Self::Stored { .. } | Self::Artifact { .. } | Self::Contents { .. } | Self::Description { .. } => Grade::Integrity,
            _ => Grade::Failed,
        }
    }
}

fn of_vault(error: &VaultError) -> Grade {
    match error {
        VaultError::Missing { .. } | VaultError::Damaged { .. } => Grade::Integrity,
        VaultError::Body { .. } | VaultError::Exists { .. } => Grade::Failed,
        _ => Grade::VaultUnreachable,
    }
}

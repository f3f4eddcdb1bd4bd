//! Why the backups of a project could not be put together. Nothing was asked and nothing was touched.

use std::path::PathBuf;

use kaleem_core::backup::SourceError;
use kaleem_core::durable::DurableError;
use kaleem_core::names::ArtifactName;
use kaleem_core::remedy::Remedy;

use crate::seal::KeyError;
use crate::vault::s3::S3SettingsError;

/// Why the backups of a project could not be put together.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetUpError {
    /// A variable that `kaleem.toml` names is not set.
    #[error("the variable {name}, which holds {what}, is not set")]
    Variable {
        /// The variable.
        name: String,
        /// What it is to hold.
        what: String,
    },
    /// A file that `kaleem.toml` names could not be read.
    #[error("could not read {what}")]
    File {
        /// What it is to hold.
        what: String,
        /// Why.
        #[source]
        source: DurableError,
    },
    /// A file holds something else than text.
    #[error("{} is no text, and is to hold {what}", path.display())]
    NoText {
        /// The file.
        path: PathBuf,
        /// What it is to hold.
        what: String,
    },
    /// A key is none.
    #[error("a key of the backups cannot be used")]
    Key {
        /// Why.
        #[source]
        source: KeyError,
    },
    /// A vault could not be opened.
    #[error("could not open the vault `{name}`")]
    Vault {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: DurableError,
    },
    /// A source cannot be used.
    #[error("`{name}` cannot be backed up")]
    Source {
        /// The artifact.
        name: ArtifactName,
        /// Why.
        #[source]
        source: SourceError,
    },
    /// An address cannot be used. It is not shown: it may hold a password.
    #[error("the address of `{name}` cannot be used: {reason}")]
    Address {
        /// The artifact.
        name: ArtifactName,
        /// Why.
        reason: String,
    },
    /// The program that a vault needs is not installed.
    #[error("the vault `{vault}` needs the program `{program}`, which is not here")]
    NoProgram {
        /// The vault.
        vault: String,
        /// The program.
        program: String,
    },
    /// A bucket cannot be used as it is described.
    #[error("the vault `{name}` cannot be used")]
    Bucket {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: S3SettingsError,
    },
}

impl Remedy for SetUpError {
    fn remedy(&self) -> String {
        match self {
            Self::Variable { name, .. } => format!("set {name} where kaleem runs, such as `{name}=… kaleem backup …`"),
            Self::File { source, .. } | Self::Vault { source, .. } => source.remedy(),
            Self::NoText { .. } => "write it anew".to_owned(),
            Self::Key { source } => source.remedy(),
            Self::Source { source, .. } => source.remedy(),
            Self::Address { name, .. } => format!("name its address in a variable: `url-env` under `[backup.sources.{name}]`"),
            Self::NoProgram { vault, program } => {
                format!("install it (on Debian: `apt-get install {program}`), or remove `[backup.vaults.{vault}]` from kaleem.toml")
            }
            Self::Bucket { source, .. } => source.remedy(),
        }
    }
}

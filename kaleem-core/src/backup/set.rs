//! What is written beside the artifacts of a set: the manifest, and the COMMIT that makes the set count.
//!
//! The COMMIT seals the manifest by its digest, the manifest seals each artifact. Both are read strictly: a file that does
//! not read back to exactly its own bytes is damaged.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::backup::{Consistency, Contents, SourceKind};
use crate::names::{ArtifactName, ProjectName, ReleaseId, SetId};
use crate::remedy::Remedy;

/// The format that is written. Older ones stay readable.
///
/// Format 2 added `not_covered`.
pub const MANIFEST_FORMAT: u32 = 2;
/// File name of the manifest in its set.
pub const MANIFEST_FILE: &str = "manifest.json";
/// File name of the COMMIT in its set.
pub const COMMIT_FILE: &str = "COMMIT";
/// File name of the instructions in each set.
pub const README_FILE: &str = "README.txt";

const COMMIT_HEAD: &str = "kaleem backup set, format 1";
/// The format in that line.
const COMMIT_FORMAT: u32 = 1;

/// How the bytes of an artifact were made smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Compression {
    /// One frame of zstd with its checksum.
    Zstd,
}

/// How the compressed bytes were made unreadable to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Encryption {
    /// age, to X25519 recipients.
    AgeX25519,
    /// age, with a passphrase.
    AgePassphrase,
    /// Not at all, because that was asked for.
    None,
}

/// One artifact of a set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArtifactRecord {
    /// Its name.
    pub name: ArtifactName,
    /// What its plain bytes are.
    pub kind: SourceKind,
    /// Its file in the set.
    pub file: String,
    /// Length before compression.
    pub plain_bytes: u64,
    /// SHA-256 before compression, hexadecimal.
    pub plain_sha256: String,
    /// Length as stored.
    pub stored_bytes: u64,
    /// SHA-256 as stored, hexadecimal.
    pub stored_sha256: String,
    /// How it was compressed.
    pub compression: Compression,
    /// How it was encrypted.
    pub encryption: Encryption,
    /// How its parts stand to each other in time.
    pub consistency: Consistency,
    /// When the export began.
    pub started: Timestamp,
    /// When the export was over.
    pub finished: Timestamp,
    /// What is in it.
    pub contents: Contents,
    /// What is not covered, or was seen on the way.
    pub notes: Vec<String>,
}

/// What a set holds. It is not encrypted: names and counts can be read by whoever can read the vault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Number of this format.
    pub format: u32,
    /// The set.
    pub set: SetId,
    /// The project whose data this is.
    pub project: ProjectName,
    /// When it was begun.
    pub created: Timestamp,
    /// Version of the kaleem that made it.
    pub made_by: String,
    /// The release that it was made before, if any.
    pub release: Option<ReleaseId>,
    /// Words that retention can be told to keep.
    pub tags: Vec<String>,
    /// What services of the project kept and the set does not hold, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_covered: Vec<String>,
    /// The artifacts, by name.
    pub artifacts: Vec<ArtifactRecord>,
}

/// The last file of a set: only with it the set is one. It says that every artifact was read back and was right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The set.
    pub set: SetId,
    /// SHA-256 of the manifest, hexadecimal.
    pub manifest_sha256: String,
    /// Length of the manifest.
    pub manifest_bytes: u64,
    /// When the last artifact had been read back.
    pub verified: Timestamp,
}

/// Why a set's own description is not believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetError {
    /// It is not what was written.
    #[error("the {file} of the backup set is damaged: {reason}")]
    Damaged {
        /// Which file.
        file: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A newer kaleem made it.
    #[error("the backup set has format {found}, and this kaleem reads up to {MANIFEST_FORMAT}")]
    TooNew {
        /// Its format.
        found: u32,
    },
    /// It cannot be written as JSON.
    #[error("a bug: the manifest cannot be written")]
    Write {
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl Remedy for SetError {
    fn remedy(&self) -> String {
        match self {
            Self::Damaged { .. } => "use another backup set, and check the disk or store that this one is on".to_owned(),
            Self::TooNew { .. } => "use a newer kaleem, or follow the README.txt in the set".to_owned(),
            Self::Write { .. } => "report it: it is a fault of kaleem".to_owned(),
        }
    }
}

fn damaged(file: &'static str, reason: impl Into<String>) -> SetError {
    SetError::Damaged { file, reason: reason.into() }
}

/// SHA-256, hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

impl Manifest {
    /// The bytes that are stored.
    ///
    /// # Errors
    /// [`SetError::Write`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, SetError> {
        let mut bytes = serde_json::to_vec_pretty(self).map_err(|source| SetError::Write { source })?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads a manifest that `commit` seals, of the set that was asked for.
    ///
    /// # Errors
    /// [`SetError`] unless every byte is as it was sealed.
    pub fn sealed(bytes: &[u8], commit: &Commit) -> Result<Self, SetError> {
        let refuse = |reason: &str| Err(damaged(MANIFEST_FILE, reason));
        if bytes.len() as u64 != commit.manifest_bytes || sha256(bytes) != commit.manifest_sha256 {
            return refuse("it is not the one that COMMIT names");
        }
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let head: Head = serde_json::from_slice(bytes).map_err(|error| damaged(MANIFEST_FILE, error.to_string()))?;
        if head.format > MANIFEST_FORMAT {
            return Err(SetError::TooNew { found: head.format });
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| damaged(MANIFEST_FILE, error.to_string()))?;
        if manifest.set != commit.set {
            return refuse("it is the manifest of another set");
        }
        Ok(manifest)
    }
}

impl Commit {
    /// The bytes that are stored: lines for people, the last one a digest of the others.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = format!("{COMMIT_HEAD}\nset {}\n", self.set);
        // Writing to a string does not fail.
        writeln!(text, "manifest {} {}", self.manifest_sha256, self.manifest_bytes).ok();
        writeln!(text, "verified {}", self.verified).ok();
        let sum = sha256(text.as_bytes());
        writeln!(text, "sha256 {sum}").ok();
        text.into_bytes()
    }

    /// Reads the COMMIT of the set `wanted`.
    ///
    /// # Errors
    /// [`SetError`] unless every byte is one that [`Commit::to_bytes`] writes.
    pub fn read(bytes: &[u8], wanted: &SetId) -> Result<Self, SetError> {
        let refuse = |reason: &str| damaged(COMMIT_FILE, reason);
        let text = std::str::from_utf8(bytes).map_err(|_| refuse("it is no text"))?;
        let mut lines = text.lines();
        let head = lines.next().unwrap_or_default();
        if head != COMMIT_HEAD {
            let number = head.strip_prefix("kaleem backup set, format ").and_then(|number| number.parse::<u32>().ok());
            return match number {
                Some(found) if found > COMMIT_FORMAT && text.ends_with(&own_sum(text)) => Err(SetError::TooNew { found }),
                _ => Err(refuse("its first line is not right")),
            };
        }
        let mut field = |name: &str| {
            let line = lines.next().and_then(|line| line.strip_prefix(name)).and_then(|rest| rest.strip_prefix(' '));
            line.ok_or_else(|| refuse("a line is missing"))
        };
        let set: SetId = field("set")?.parse().map_err(|_| refuse("its set has no valid name"))?;
        let (digest, length) = field("manifest")?.split_once(' ').ok_or_else(|| refuse("a line is not whole"))?;
        let commit = Self {
            set,
            manifest_sha256: digest.to_owned(),
            manifest_bytes: length.parse().map_err(|_| refuse("a length is no number"))?,
            verified: field("verified")?.parse().map_err(|_| refuse("a time is no time"))?,
        };
        if commit.to_bytes() != bytes {
            return Err(refuse("its digest is not right"));
        }
        if commit.set != *wanted {
            return Err(refuse("it belongs to another set"));
        }
        Ok(commit)
    }
}

/// The last line as it must be for the lines before it.
fn own_sum(text: &str) -> String {
    let body = text.trim_end_matches('\n').rfind('\n').and_then(|end| text.get(..=end)).unwrap_or_default();
    format!("sha256 {}\n", sha256(body.as_bytes()))
}

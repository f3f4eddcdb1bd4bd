//! Backup sets as the rest of kaleem sees them: where bytes come from, where they are kept, and what is known of them.
//!
//! Bytes flow through bounded pipes whose end is told from a death: a stream that merely stops is an error. Nothing here
//! knows a database or a store; `kaleem-backup` does.

pub mod error;
pub mod set;
pub mod sets;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;
pub use error::{SourceError, VaultError};
use serde::{Deserialize, Serialize};
pub use set::{ArtifactRecord, Commit, Compression, Encryption, Manifest, SetError};
pub use sets::{BackupSets, SetData, SetObserver, SetRequest, SetsError};

use crate::names::{ArtifactName, NameError, SetId};
pub use crate::pipe::{ByteSender, ByteStream, PipeReader, pipe};

/// What kind of store an artifact was taken from; decides how its bytes are checked and put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SourceKind {
    /// A MongoDB deployment; the bytes are a mongodump archive.
    Mongodb,
    /// One Redis server; the bytes are an RDB file. Or a Redis cluster; the bytes are a tar of those of its masters.
    Redis,
    /// A Qdrant server; the bytes are a tar of snapshots, aliases and configurations.
    Qdrant,
    /// A RabbitMQ broker; the bytes are its definitions as JSON.
    Rabbitmq,
    /// Files or a volume; the bytes are a tar.
    Files,
    /// What a command wrote.
    Command,
}

impl fmt::Display for SourceKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Mongodb => "mongodb",
            Self::Redis => "redis",
            Self::Qdrant => "qdrant",
            Self::Rabbitmq => "rabbitmq",
            Self::Files => "files",
            Self::Command => "command",
        })
    }
}

/// How the parts of an artifact stand to each other in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Consistency {
    /// Everything is as it was at one moment.
    Snapshot,
    /// Each collection is sound in itself; writes between them may be seen in one and not in the other.
    PerCollection,
    /// Nothing is promised.
    None,
}

impl fmt::Display for Consistency {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Snapshot => "snapshot",
            Self::PerCollection => "per-collection",
            Self::None => "none",
        })
    }
}

/// How many things a part of an artifact holds, and a digest of them that does not depend on their order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// Documents, keys, files, or whatever the part is made of.
    pub count: u64,
    /// Hexadecimal; empty where the store cannot be digested without depending on how it lays things out.
    pub digest: String,
}

/// The parts of an artifact by name: collections and their indexes, databases, files. Equal contents are the same data.
pub type Contents = BTreeMap<String, Content>;

/// What a source says of the bytes that it wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// What was written.
    pub contents: Contents,
    /// How the parts stand to each other.
    pub consistency: Consistency,
    /// What is not covered, or was seen on the way, for the reader of the manifest.
    pub notes: Vec<String>,
}

/// Which artifact a source makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceIdentity {
    /// Name of the artifact in its set.
    pub name: ArtifactName,
    /// How its bytes are to be read.
    pub kind: SourceKind,
}

/// Whether a restore may take away what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreMode {
    /// The target must hold nothing in the places that are restored to.
    IntoEmpty,
    /// What is in the places that are restored to goes, but only after the new data is there in whole and checked.
    Replace,
}

/// Something that can be written out as a stream and put back from one.
///
/// # Contract
/// - `export` returns `Ok` only if every byte of everything it names was sent; it never ends early without an error.
/// - `verify` needs no server. It fails on bytes that are cut short or changed, and otherwise answers the contents that
///   `export` of these bytes answered.
/// - `restore` checks what it reads as `verify` does. With [`RestoreMode::IntoEmpty`] it refuses a target that holds
///   something before anything is written. Each part is loaded and checked beside its place and moved there in one step:
///   after an error or a death, each is what it was before or the new one, and before the first step all are the old ones.
/// - `inspect` answers what `export` would say of the contents now, without sending them.
#[async_trait]
pub trait BackupSource: Send + Sync {
    /// Which artifact this makes.
    fn identity(&self) -> &SourceIdentity;
    /// Sends everything into `out`, as fast as `out` takes it.
    ///
    /// # Errors
    /// [`SourceError`]; the store is as it was.
    async fn export(&self, out: &mut ByteSender) -> Result<Exported, SourceError>;
    /// Checks bytes of this kind on their own.
    ///
    /// # Errors
    /// [`SourceError::Malformed`] when they are not whole and sound.
    async fn verify(&self, input: ByteStream) -> Result<Contents, SourceError>;
    /// Puts the bytes back, and answers what the store then holds of them.
    ///
    /// # Errors
    /// [`SourceError`]; each part is whole: the old or the new.
    async fn restore(&self, input: ByteStream, mode: RestoreMode) -> Result<Contents, SourceError>;
    /// Puts one part of the bytes back, a collection such as `shop.orders`, and answers what the store then holds of it.
    /// Everything else in the bytes is read and checked, too.
    ///
    /// # Errors
    /// [`SourceError`]; the part is whole: the old or the new. [`SourceError::Unsupported`] where a store is put back in whole
    /// or not at all, or has no part of that name; nothing was changed.
    async fn restore_part(&self, _input: ByteStream, part: &str, _mode: RestoreMode) -> Result<Contents, SourceError> {
        let reason = format!("`{}` is put back in whole or not at all", self.identity().name);
        Err(SourceError::Unsupported { what: format!("`{part}` alone"), reason })
    }
    /// The whole that the store is one part of, such as a cluster, by a name that all its parts give; `None` for a store of its own.
    /// Whatever one part exports is the whole, so of several parts one is enough.
    ///
    /// # Errors
    /// [`SourceError`]; the store is as it was.
    async fn whole(&self) -> Result<Option<String>, SourceError> {
        Ok(None)
    }
    /// What the store holds now.
    ///
    /// # Errors
    /// [`SourceError`]; the store is as it was.
    async fn inspect(&self) -> Result<Contents, SourceError>;
}

/// A place in a vault: checked segments with `/` between them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VaultPath(String);

impl VaultPath {
    /// A file of a set.
    ///
    /// # Errors
    /// [`NameError`] when `file` is no safe file name.
    pub fn in_set(set: &SetId, file: &str) -> Result<Self, NameError> {
        format!("sets/{set}/{file}").parse()
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its segments, outermost first.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

impl FromStr for VaultPath {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let refuse = |reason| Err(NameError { kind: "vault path", text: text.to_owned(), reason });
        if text.len() > 512 {
            return refuse("it is too long");
        }
        for segment in text.split('/') {
            let Some(first) = segment.chars().next() else { return refuse("a segment is empty") };
            if !first.is_ascii_alphanumeric() {
                return refuse("a segment must start with a letter or a digit");
            }
            if !segment.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')) {
                return refuse("it holds a character that is not allowed");
            }
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for VaultPath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&self.0)
    }
}

/// An object in a vault.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VaultEntry {
    /// Where.
    pub path: VaultPath,
    /// How long it is.
    pub size_bytes: u64,
}

/// A place where objects are kept: written once, whole, never changed.
///
/// # Contract
/// - `put_if_absent` returns `Ok` only when the object is there in whole and survives a loss of power. Of two that write
///   the same path one succeeds, the other is told [`VaultError::Exists`] and the first object stays. When `body` ends
///   with an error nothing is at the path, and the error is [`VaultError::Body`].
/// - `get` of what is not there is [`VaultError::Missing`]. A stream that breaks ends with an error, not with an end.
/// - `list` answers every object below `prefix`, sorted, or an error: never a part. What is being written is not listed.
/// - `delete` of what is not there succeeds.
#[async_trait]
pub trait BackupVault: Send + Sync {
    /// Where this is, for people; without credentials.
    fn place(&self) -> String;
    /// Writes an object, and answers how long it was.
    ///
    /// # Errors
    /// [`VaultError`]; nothing of this call is at `path`.
    async fn put_if_absent(&self, path: &VaultPath, body: ByteStream) -> Result<u64, VaultError>;
    /// Reads an object.
    ///
    /// # Errors
    /// [`VaultError`]. Where the bytes end with an error of [`InvalidData`](std::io::ErrorKind::InvalidData), the vault itself says that
    /// what it stores is damaged; any other says nothing of what is stored.
    async fn get(&self, path: &VaultPath) -> Result<ByteStream, VaultError>;
    /// Every object at or below `prefix`.
    ///
    /// # Errors
    /// [`VaultError`]: then nothing is known about what there is.
    async fn list(&self, prefix: &VaultPath) -> Result<Vec<VaultEntry>, VaultError>;
    /// Removes an object.
    ///
    /// # Errors
    /// [`VaultError`]; the object may or may not be there.
    async fn delete(&self, path: &VaultPath) -> Result<(), VaultError>;
}

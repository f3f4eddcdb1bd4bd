//! A directory: every file with owner, mode, time, extended attributes and links, as a tar that any tar unpacks.
//!
//! Sockets, pipes and devices are left out, and said to be. What changes while it is read is said to have changed; what
//! gets shorter ends the backup. A restore unpacks beside the directory, compares, and exchanges the two in one step.

mod pack;
mod unpack;

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use kaleem_core::backup::{
    BackupSource, ByteSender, ByteStream, Consistency, Contents, Exported, RestoreMode, SourceError, SourceIdentity, SourceKind, pipe,
};
use kaleem_core::names::ArtifactName;
use tokio::io::AsyncReadExt;

use self::pack::Packed;
use crate::format::tree;

/// A [`BackupSource`] of a directory of this host. It must be run as root where files belong to several users.
#[derive(Clone, Debug)]
pub struct FilesSource {
    identity: SourceIdentity,
    directory: PathBuf,
}

impl FilesSource {
    /// A source of what is in `directory`; nothing is read yet.
    pub fn new(name: ArtifactName, directory: &Path) -> Self {
        Self { identity: SourceIdentity { name, kind: SourceKind::Files }, directory: directory.to_owned() }
    }

    fn failed(&self, doing: &str) -> impl Fn(std::io::Error) -> SourceError {
        let (store, doing) = (self.directory.display().to_string(), doing.to_owned());
        move |source| SourceError::Failed { store: store.clone(), doing: doing.clone(), source: Box::new(source) }
    }

    async fn read(&self, out: Option<&mut ByteSender>) -> Result<Packed, SourceError> {
        let (inner, mut receiver) = pipe();
        let directory = self.directory.clone();
        let packing = tokio::task::spawn_blocking(move || pack::pack(&directory, inner));
        let mut taken = Ok(());
        let mut out = out;
        let mut chunk = vec![0; 256 * 1024];
        loop {
            match receiver.read(&mut chunk).await {
                // After an error the packing says why.
                Ok(0) | Err(_) => break,
                Ok(read) => {
                    let Some(out) = &mut out else { continue };
                    taken = out.send(chunk.get(..read).unwrap_or_default().to_vec()).await;
                    if taken.is_err() {
                        break;
                    }
                }
            }
        }
        drop(receiver);
        let packed = packing.await.map_err(|error| self.failed("being read")(std::io::Error::other(error)))?;
        taken.map_err(|source| SourceError::Output { source })?;
        packed.map_err(self.failed("being read"))
    }
}

#[async_trait]
impl BackupSource for FilesSource {
    fn identity(&self) -> &SourceIdentity {
        &self.identity
    }

    async fn export(&self, out: &mut ByteSender) -> Result<Exported, SourceError> {
        let packed = self.read(Some(out)).await?;
        let mut notes = packed.notes;
        let consistency = if packed.changed.is_empty() { Consistency::PerCollection } else { Consistency::None };
        notes.extend(packed.changed.iter().map(|path| format!("{path} changed while it was read")));
        Ok(Exported { contents: packed.tree.contents(), consistency, notes })
    }

    async fn verify(&self, input: ByteStream) -> Result<Contents, SourceError> {
        tree::verify(input).await
    }

    async fn restore(&self, input: ByteStream, mode: RestoreMode) -> Result<Contents, SourceError> {
        let is_empty = match std::fs::read_dir(&self.directory) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
            Err(error) => return Err(self.failed("being looked at")(error)),
        };
        if mode == RestoreMode::IntoEmpty && !is_empty {
            return Err(SourceError::NotEmpty { what: self.directory.display().to_string() });
        }
        let beside = unpack::Beside::new(&self.directory).map_err(self.failed("being restored"))?;
        let root = beside.path().to_owned();
        let mut unpacking = unpack::Unpacking::new(&root);
        let finishing = unpacking.later();
        let wanted = tree::read_stream(input, move |entry, content| unpacking.place(entry, content)).await?.contents();
        finishing.directories(&root).map_err(self.failed("being restored"))?;
        let unpacked = Self { identity: self.identity.clone(), directory: root };
        let found = unpacked.read(None).await?.tree.contents();
        if let Some(reason) = crate::set::difference(&found, &wanted) {
            return Err(SourceError::Differs { what: self.directory.display().to_string(), reason });
        }
        beside.exchange(&self.directory).map_err(self.failed("being put in its place"))?;
        self.inspect().await
    }

    async fn inspect(&self) -> Result<Contents, SourceError> {
        Ok(self.read(None).await?.tree.contents())
    }
}

//! A vault through which each artifact is read with one byte changed: what proves that a drill can fail.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use kaleem_core::backup::{ArtifactRecord, BackupVault, ByteStream, VaultEntry, VaultError, VaultPath};
use tokio::io::{AsyncRead, ReadBuf};

pub(super) struct Tampered<'a> {
    pub(super) inner: &'a dyn BackupVault,
    pub(super) artifacts: &'a [ArtifactRecord],
}

struct Changed {
    inner: ByteStream,
    /// How many bytes are left before the one that is changed; `None` once it was.
    left: Option<u64>,
}

impl AsyncRead for Changed {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(self.inner.as_mut().poll_read(context, into))?;
        if let Some(left) = self.left {
            let read = into.filled().len() - before;
            let at = usize::try_from(left).ok().filter(|left| *left < read);
            match at.and_then(|at| into.filled_mut().get_mut(before + at)) {
                Some(byte) => {
                    *byte ^= 1;
                    self.left = None;
                }
                None => self.left = Some(left - read as u64),
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[async_trait]
impl BackupVault for Tampered<'_> {
    fn place(&self) -> String {
        self.inner.place()
    }

    async fn put_if_absent(&self, path: &VaultPath, body: ByteStream) -> Result<u64, VaultError> {
        self.inner.put_if_absent(path, body).await
    }

    async fn get(&self, path: &VaultPath) -> Result<ByteStream, VaultError> {
        let stream = self.inner.get(path).await?;
        Ok(match self.artifacts.iter().find(|record| path.segments().last() == Some(record.file.as_str())) {
            Some(record) => Box::pin(Changed { inner: stream, left: Some(record.stored_bytes / 2) }),
            None => stream,
        })
    }

    async fn list(&self, prefix: &VaultPath) -> Result<Vec<VaultEntry>, VaultError> {
        self.inner.list(prefix).await
    }

    async fn delete(&self, path: &VaultPath) -> Result<(), VaultError> {
        self.inner.delete(path).await
    }
}

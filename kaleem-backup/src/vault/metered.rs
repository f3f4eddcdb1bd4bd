//! A vault that tells how many bytes go through it: what progress is made of. Nothing is copied for it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use kaleem_core::backup::{BackupVault, ByteStream, VaultEntry, VaultError, VaultPath};
use tokio::io::{AsyncRead, ReadBuf};

/// Bytes that went through a vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Whether they were written or read.
    pub direction: Direction,
    /// The object.
    pub path: VaultPath,
    /// How many more.
    pub bytes: u64,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Into the vault.
    Write,
    /// Out of it.
    Read,
}

/// Called with every piece; must not block.
pub type MoveObserver = dyn Fn(Moved) + Send + Sync;

/// A [`BackupVault`] that tells of what goes through another.
pub struct MeteredVault<'a> {
    inner: &'a dyn BackupVault,
    observer: Arc<MoveObserver>,
}

impl<'a> MeteredVault<'a> {
    /// Tells `observer` of what goes through `inner`.
    pub fn new(inner: &'a dyn BackupVault, observer: Arc<MoveObserver>) -> Self {
        Self { inner, observer }
    }

    fn metered(&self, inner: ByteStream, direction: Direction, path: &VaultPath) -> ByteStream {
        Box::pin(Metered { inner, direction, path: path.clone(), observer: self.observer.clone() })
    }
}

struct Metered {
    inner: ByteStream,
    direction: Direction,
    path: VaultPath,
    observer: Arc<MoveObserver>,
}

impl AsyncRead for Metered {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(self.inner.as_mut().poll_read(context, into))?;
        let bytes = (into.filled().len() - before) as u64;
        (self.observer)(Moved { direction: self.direction, path: self.path.clone(), bytes });
        Poll::Ready(Ok(()))
    }
}

#[async_trait]
impl BackupVault for MeteredVault<'_> {
    fn place(&self) -> String {
        self.inner.place()
    }

    async fn put_if_absent(&self, path: &VaultPath, body: ByteStream) -> Result<u64, VaultError> {
        self.inner.put_if_absent(path, self.metered(body, Direction::Write, path)).await
    }

    async fn get(&self, path: &VaultPath) -> Result<ByteStream, VaultError> {
        Ok(self.metered(self.inner.get(path).await?, Direction::Read, path))
    }

    async fn list(&self, prefix: &VaultPath) -> Result<Vec<VaultEntry>, VaultError> {
        self.inner.list(prefix).await
    }

    async fn delete(&self, path: &VaultPath) -> Result<(), VaultError> {
        self.inner.delete(path).await
    }
}

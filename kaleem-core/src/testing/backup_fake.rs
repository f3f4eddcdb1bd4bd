//! A vault in memory that is as strict as a real one, and that can be told to fail in the ways in which real ones do.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use tokio::io::AsyncReadExt;

use crate::backup::{BackupVault, ByteStream, VaultEntry, VaultError, VaultPath, pipe};

/// What goes wrong, at every call from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum VaultFault {
    /// Listing fails.
    List,
    /// Storing fails after that many objects more.
    PutAfter(usize),
    /// The next object is said to be stored and is not.
    AcknowledgeAndLose,
    /// The next object is stored with one bit changed.
    FlipBit,
    /// The next object is stored without its last byte.
    CutShort,
    /// Reading breaks half-way.
    GetBreaks,
    /// Removing fails.
    Delete,
}

/// A [`BackupVault`] in memory.
#[derive(Debug, Default)]
pub struct FakeVault {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<VaultPath, Vec<u8>>,
    writing: BTreeSet<VaultPath>,
    fault: Option<VaultFault>,
}

impl FakeVault {
    /// An empty vault.
    pub fn new() -> Self {
        Self::default()
    }

    /// Breaks the vault in one way, or mends it.
    pub fn break_with(&self, fault: Option<VaultFault>) {
        self.state().fault = fault;
    }

    /// What is stored.
    pub fn objects(&self) -> BTreeMap<VaultPath, Vec<u8>> {
        self.state().objects.clone()
    }

    /// Puts bytes in the place of an object behind everybody's back.
    pub fn tamper(&self, path: &VaultPath, bytes: Vec<u8>) {
        self.state().objects.insert(path.clone(), bytes);
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self) -> VaultError {
        VaultError::Unreachable { place: self.place(), source: Box::new(io::Error::other("the fake was told to fail")) }
    }

    fn exists(&self, path: &VaultPath) -> VaultError {
        VaultError::Exists { place: self.place(), path: path.clone() }
    }

    fn store(&self, path: &VaultPath, mut bytes: Vec<u8>) -> Result<u64, VaultError> {
        let mut state = self.state();
        if state.objects.contains_key(path) {
            return Err(self.exists(path));
        }
        let length = bytes.len() as u64;
        match state.fault {
            Some(VaultFault::PutAfter(0)) => return Err(self.failed()),
            Some(VaultFault::PutAfter(left)) => state.fault = Some(VaultFault::PutAfter(left - 1)),
            Some(VaultFault::AcknowledgeAndLose) => {
                state.fault = None;
                return Ok(length);
            }
            Some(VaultFault::FlipBit) => {
                state.fault = None;
                let middle = bytes.len() / 2;
                if let Some(byte) = bytes.get_mut(middle) {
                    *byte ^= 1;
                }
            }
            Some(VaultFault::CutShort) => {
                state.fault = None;
                bytes.pop();
            }
            _ => (),
        }
        state.objects.insert(path.clone(), bytes);
        Ok(length)
    }
}

#[async_trait]
impl BackupVault for FakeVault {
    fn place(&self) -> String {
        "memory".to_owned()
    }

    async fn put_if_absent(&self, path: &VaultPath, mut body: ByteStream) -> Result<u64, VaultError> {
        {
            let mut state = self.state();
            if state.objects.contains_key(path) || !state.writing.insert(path.clone()) {
                return Err(self.exists(path));
            }
        }
        let mut bytes = Vec::new();
        let read = body.read_to_end(&mut bytes).await;
        self.state().writing.remove(path);
        read.map_err(|source| VaultError::Body { path: path.clone(), source })?;
        self.store(path, bytes)
    }

    async fn get(&self, path: &VaultPath) -> Result<ByteStream, VaultError> {
        let (bytes, breaks) = {
            let state = self.state();
            let missing = || VaultError::Missing { place: self.place(), path: path.clone() };
            (state.objects.get(path).ok_or_else(missing)?.clone(), state.fault == Some(VaultFault::GetBreaks))
        };
        let (mut sender, reader) = pipe();
        tokio::spawn(async move {
            if breaks {
                let half = bytes.get(..bytes.len() / 2).unwrap_or_default().to_vec();
                // A reader that is gone need not be told.
                sender.send(half).await.ok();
                sender.fail(io::Error::other("the fake was told to break")).await;
            } else if sender.send(bytes).await.is_ok() {
                sender.finish().await.ok();
            }
        });
        Ok(Box::pin(reader))
    }

    async fn list(&self, prefix: &VaultPath) -> Result<Vec<VaultEntry>, VaultError> {
        let state = self.state();
        if state.fault == Some(VaultFault::List) {
            return Err(self.failed());
        }
        let below = format!("{prefix}/");
        let wanted = state.objects.iter().filter(|(path, _)| *path == prefix || path.as_str().starts_with(&below));
        Ok(wanted.map(|(path, bytes)| VaultEntry { path: path.clone(), size_bytes: bytes.len() as u64 }).collect())
    }

    async fn delete(&self, path: &VaultPath) -> Result<(), VaultError> {
        let mut state = self.state();
        if state.fault == Some(VaultFault::Delete) {
            return Err(self.failed());
        }
        state.objects.remove(path);
        Ok(())
    }
}

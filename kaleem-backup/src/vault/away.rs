//! In the place of a vault that is not where it was: whoever asks is told so, and nothing is written into an empty place.

use async_trait::async_trait;
use kaleem_core::backup::{BackupVault, ByteStream, VaultEntry, VaultError, VaultPath};

/// A [`BackupVault`] that cannot be reached, and why.
#[derive(Clone, Debug)]
pub struct AwayVault {
    place: String,
    reason: String,
}

impl AwayVault {
    /// A vault that is away for this reason.
    pub fn new(place: String, reason: String) -> Self {
        Self { place, reason }
    }

    fn away<T>(&self) -> Result<T, VaultError> {
        Err(VaultError::Unreachable { place: self.place.clone(), source: self.reason.clone().into() })
    }
}

#[async_trait]
impl BackupVault for AwayVault {
    fn place(&self) -> String {
        self.place.clone()
    }

    async fn put_if_absent(&self, _path: &VaultPath, _body: ByteStream) -> Result<u64, VaultError> {
        self.away()
    }

    async fn get(&self, _path: &VaultPath) -> Result<ByteStream, VaultError> {
        self.away()
    }

    async fn list(&self, _prefix: &VaultPath) -> Result<Vec<VaultEntry>, VaultError> {
        self.away()
    }

    async fn delete(&self, _path: &VaultPath) -> Result<(), VaultError> {
        self.away()
    }
}

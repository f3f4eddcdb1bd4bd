//! In the place of a store that cannot be reached now: what is said to be backed up is an error then, and never left out.

use async_trait::async_trait;
use kaleem_core::backup::{BackupSource, ByteSender, ByteStream, Contents, Exported, RestoreMode, SourceError, SourceIdentity};

use crate::format;

/// A [`BackupSource`] of which nothing but its bytes can be looked at.
#[derive(Clone, Debug)]
pub struct AwaySource {
    identity: SourceIdentity,
    store: String,
    reason: String,
}

impl AwaySource {
    /// A source for the artifact of a store that is not there for this reason.
    pub fn new(identity: SourceIdentity, store: String, reason: String) -> Self {
        Self { identity, store, reason }
    }

    fn away(&self) -> SourceError {
        SourceError::Unreachable { store: self.store.clone(), source: self.reason.clone().into() }
    }
}

#[async_trait]
impl BackupSource for AwaySource {
    fn identity(&self) -> &SourceIdentity {
        &self.identity
    }

    async fn export(&self, _out: &mut ByteSender) -> Result<Exported, SourceError> {
        Err(self.away())
    }

    async fn verify(&self, input: ByteStream) -> Result<Contents, SourceError> {
        format::verify(self.identity.kind, input).await
    }

    async fn restore(&self, _input: ByteStream, _mode: RestoreMode) -> Result<Contents, SourceError> {
        Err(self.away())
    }

    async fn inspect(&self) -> Result<Contents, SourceError> {
        Err(self.away())
    }
}

//! The backups of a project as plans use them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use kaleem_core::backup::{BackupSets, Manifest, RestoreMode, SetData, SetObserver, SetRequest, SetsError};
use kaleem_core::lease::LeaseError;
use kaleem_core::names::SetId;
use kaleem_core::remedy::Remedy;

use super::{Backups, BackupsError, Depth, NewSet, RestoreRequest};
use crate::set;
use crate::vault::metered::{MoveObserver, Moved};

fn wrap(doing: &'static str, set: &SetId) -> impl Fn(BackupsError) -> SetsError {
    let set = set.clone();
    move |error| SetsError {
        doing,
        set: set.clone(),
        remedy: error.remedy(),
        // Somebody else's backup ends by itself.
        transient: error.is_transient() || matches!(error, BackupsError::Lease { source: LeaseError::Busy { .. } }),
        source: Box::new(error),
    }
}

/// A few words on what is in a set.
fn told(manifest: &Manifest) -> String {
    let artifacts = manifest.artifacts.iter().map(|record| {
        let parts: u64 = record.contents.values().map(|content| content.count).sum();
        format!("{} ({parts} in {} parts, {})", record.name, record.contents.len(), record.consistency)
    });
    artifacts.collect::<Vec<_>>().join(", ")
}

impl Backups {
    /// What `make` left of a set that was not finished goes, in every vault. The caller holds the lock.
    async fn give_up_everywhere(&self, set: &SetId) -> Result<(), BackupsError> {
        let mut failed = false;
        for named in &self.parts.vaults {
            failed |= self.give_up_in(named.vault.as_ref(), set).await.is_err();
        }
        if failed {
            // It is no set, and never becomes one: the next making removes it.
            super::making::begin(&self.parts.directory, set)?;
        } else {
            super::making::forget(&self.parts.directory, set)?;
        }
        Ok(())
    }
}

#[async_trait]
impl BackupSets for Backups {
    async fn make(&self, request: &SetRequest, observer: &SetObserver) -> Result<String, SetsError> {
        let wrap = wrap("make", &request.set);
        let first = self.first().map_err(&wrap)?;
        if let Ok(manifest) = set::read(first.vault.as_ref(), &request.set).await {
            return Ok(told(&manifest));
        }
        observer("making a backup set".to_owned());
        let wanted = NewSet { set: Some(request.set.clone()), release: request.release, tags: request.tags.clone(), only: BTreeSet::new() };
        let made = self.create(&wanted, silent()).await.map_err(&wrap)?;
        let shortcomings = made.shortcomings();
        let told = told(&made.manifest);
        Ok(if shortcomings.is_empty() { told } else { format!("{told}; {}", shortcomings.join("; ")) })
    }

    async fn verify(&self, set: &SetId, observer: &SetObserver) -> Result<String, SetsError> {
        let wrap = wrap("verify", set);
        observer("reading the backup set".to_owned());
        let mut whole = Vec::new();
        for verified in Self::verify(self, set, silent()).await.map_err(&wrap)? {
            match verified.outcome {
                Ok(_) => whole.push(match verified.depth {
                    Depth::Whole => format!("whole and sound in {}", verified.vault),
                    Depth::Stored => format!("stored as it was made in {}", verified.vault),
                }),
                Err(source) => return Err(wrap(BackupsError::Set { source })),
            }
        }
        Ok(whole.join(", "))
    }

    async fn give_up(&self, set: &SetId) -> Result<(), SetsError> {
        let wrap = wrap("give up", set);
        let _lease = self.lock().await.map_err(&wrap)?;
        self.give_up_everywhere(set).await.map_err(&wrap)
    }

    async fn restore(&self, set: &SetId, observer: &SetObserver) -> Result<String, SetsError> {
        let wrap = wrap("restore", set);
        let _lease = self.lock().await.map_err(&wrap)?;
        observer("restoring the backup set".to_owned());
        let restored = Self::restore(self, set, &RestoreRequest::whole(RestoreMode::Replace), silent(), &|_| {}).await;
        restored.map(|manifest| told(&manifest)).map_err(&wrap)
    }

    fn covers(&self) -> Vec<SetData> {
        self.parts.covers.clone()
    }
}

/// An observer that counts and says nothing.
fn silent() -> Arc<MoveObserver> {
    let count = AtomicU64::new(0);
    Arc::new(move |moved: Moved| {
        count.fetch_add(moved.bytes, Ordering::Relaxed);
    })
}

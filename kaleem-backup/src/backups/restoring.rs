//! Putting a set back, or a part of it, from the first vault in which it is sound.

use std::collections::BTreeSet;
use std::sync::Arc;

use kaleem_core::backup::{BackupSource, BackupVault, Manifest, RestoreMode};
use kaleem_core::names::{ArtifactName, SetId};

use super::{Backups, BackupsError, NamedVault, Restored, in_set};
use crate::set::{self, SetFailure};
use crate::vault::metered::{MeteredVault, MoveObserver};

/// What of a set is put back, and where.
#[derive(Clone)]
pub struct RestoreRequest {
    /// These artifacts; all where none is named.
    pub wanted: BTreeSet<ArtifactName>,
    /// Of the one artifact that is named, this collection alone.
    pub collection: Option<String>,
    /// Takes the place of the sources of its names.
    pub instead: Vec<Arc<dyn BackupSource>>,
    /// Whether something may be replaced.
    pub mode: RestoreMode,
}

impl RestoreRequest {
    /// Everything that a set has, into the sources that it was made from.
    pub fn whole(mode: RestoreMode) -> Self {
        Self { wanted: BTreeSet::new(), collection: None, instead: Vec::new(), mode }
    }
}

impl Backups {
    /// The first vault in which everything that is wanted of a set is whole and sound. Everything is read.
    ///
    /// # Errors
    /// The worst of what the vaults say.
    pub async fn sound_vault(
        &self,
        set: &SetId,
        wanted: &BTreeSet<ArtifactName>,
        observer: &Arc<MoveObserver>,
    ) -> Result<(NamedVault, Manifest), BackupsError> {
        let mut failure = None;
        for named in &self.parts.vaults {
            let vault = MeteredVault::new(named.vault.as_ref(), observer.clone());
            match self.sound_in(&vault, set, wanted).await {
                Ok(manifest) => return Ok((named.clone(), manifest)),
                Err(other) => failure = worse(failure, other),
            }
        }
        Err(match failure {
            Some(SetFailure::Unfinished { .. }) | None => BackupsError::NoSuchSet { set: set.clone() },
            Some(failure) => in_set(failure),
        })
    }

    async fn sound_in(&self, vault: &dyn BackupVault, set: &SetId, wanted: &BTreeSet<ArtifactName>) -> Result<Manifest, SetFailure> {
        let manifest = set::read(vault, set).await?;
        if let Some(artifact) = wanted.iter().find(|name| !manifest.artifacts.iter().any(|record| record.name == **name)) {
            return Err(SetFailure::NoArtifact { set: set.clone(), artifact: artifact.clone() });
        }
        for record in manifest.artifacts.iter().filter(|record| wanted.is_empty() || wanted.contains(&record.name)) {
            set::verify_artifact(vault, set, record, &self.parts.keys).await?;
        }
        Ok(manifest)
    }

    /// Puts a set back. Everything is read and checked before the first of it is replaced. The caller holds the lock.
    ///
    /// # Errors
    /// [`BackupsError`]; each part is whole, the old or the new, and `done` was told of the artifacts that are new.
    pub async fn restore(
        &self,
        set: &SetId,
        request: &RestoreRequest,
        observer: Arc<MoveObserver>,
        done: &(dyn Fn(&Restored) + Send + Sync),
    ) -> Result<Manifest, BackupsError> {
        let wanted = &request.wanted;
        if let (Some(collection), true) = (&request.collection, wanted.len() != 1) {
            let reason = format!("of which artifact `{collection}` is wanted was not said");
            return Err(in_set(SetFailure::Request { reason }));
        }
        let (named, manifest) = self.sound_vault(set, wanted, &observer).await?;
        let vault = MeteredVault::new(named.vault.as_ref(), observer);
        let mut targets = Vec::new();
        for record in manifest.artifacts.iter().filter(|record| wanted.is_empty() || wanted.contains(&record.name)) {
            let mut sources = request.instead.iter().chain(&self.parts.sources);
            let target = sources.find(|source| source.identity().name == record.name).ok_or_else(|| self.unknown(&record.name))?;
            targets.push((record, target.clone()));
        }
        for (record, target) in targets {
            let collection = request.collection.as_deref();
            let restored = set::put_back(&vault, set, record, collection, target.as_ref(), request.mode, &self.parts.keys).await;
            let contents = restored.map_err(in_set)?;
            done(&Restored { artifact: record.name.clone(), contents });
        }
        Ok(manifest)
    }
}

/// Of two failures the one that says more: a set that is not there says the least.
pub(super) fn worse(one: Option<SetFailure>, two: SetFailure) -> Option<SetFailure> {
    match one {
        None | Some(SetFailure::Unfinished { .. }) => Some(two),
        Some(one) if one.grade() >= two.grade() => Some(one),
        Some(_) => Some(two),
    }
}

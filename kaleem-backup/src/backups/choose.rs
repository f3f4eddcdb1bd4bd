//! Which set a drill takes, from where, and one drill at a time.

use kaleem_core::backup::Manifest;
use kaleem_core::durable::{self, PRIVATE_DIRECTORY};
use kaleem_core::lease::Lease;
use kaleem_core::names::SetId;

use super::restoring::worse;
use super::{Backups, BackupsError, NamedVault, in_set};
use crate::set::{self, SetFailure};

impl Backups {
    /// Takes the lock of drills, which work beside everything else. It ends with the value.
    ///
    /// # Errors
    /// [`BackupsError::Lease`] when somebody alive drills.
    pub async fn lock_drills(&self) -> Result<Lease, BackupsError> {
        let directory = self.parts.directory.join("drill");
        durable::create_directory(&directory, PRIVATE_DIRECTORY).map_err(|source| BackupsError::State { source })?;
        Lease::take(&directory, &self.parts.owner, self.parts.clock.clone()).await.map_err(|source| BackupsError::Lease { source })
    }

    /// Any finished set of this project, each as likely as the others.
    ///
    /// # Errors
    /// [`BackupsError::NoSet`], and what a vault says.
    pub async fn any(&self) -> Result<Manifest, BackupsError> {
        let mut sets = self.finished().await?;
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|_| BackupsError::NoSet)?;
        let index = u64::from_le_bytes(random).checked_rem(sets.len() as u64).and_then(|index| usize::try_from(index).ok());
        index.map(|index| sets.swap_remove(index).0).ok_or(BackupsError::NoSet)
    }

    /// The vaults in which a set is finished, in their order.
    ///
    /// # Errors
    /// [`BackupsError::NoSuchSet`], and what a vault says when none has it.
    pub async fn holders(&self, set: &SetId) -> Result<Vec<NamedVault>, BackupsError> {
        let (mut holders, mut failure) = (Vec::new(), None);
        for named in &self.parts.vaults {
            match set::read(named.vault.as_ref(), set).await {
                Ok(_) => holders.push(named.clone()),
                Err(other) => failure = worse(failure, other),
            }
        }
        match (holders.is_empty(), failure) {
            (false, _) => Ok(holders),
            (true, Some(SetFailure::Unfinished { .. }) | None) => Err(BackupsError::NoSuchSet { set: set.clone() }),
            (true, Some(failure)) => Err(in_set(failure)),
        }
    }
}

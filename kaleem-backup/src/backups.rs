//! The backups of one project: what is backed up, where sets are kept, and who works on them now.
//!
//! One at a time: every verb that writes holds a lock which ends with its process. What a process that died left in a vault
//! is remembered by name, and removed by the next one.

mod choose;
mod error;
mod making;
mod plans;
mod restoring;

pub use crate::set::Grade;
pub use error::BackupsError;
pub use restoring::RestoreRequest;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kaleem_core::backup::{BackupSource, BackupVault, Consistency, Contents, Manifest, SetData, SourceKind};
use kaleem_core::clock::Clock;
use kaleem_core::durable::{self, PRIVATE_DIRECTORY};
use kaleem_core::lease::Lease;
use kaleem_core::names::{ArtifactName, ProjectName, ReleaseId, SetId};

use crate::retention::{self, Decision, Policy};
use crate::seal::{Keys, Protection};
use crate::set::{self, Copied, CreateRequest, SetEntry, SetFailure, SetState};
use crate::vault::metered::{MeteredVault, MoveObserver};

/// A vault and the name that a person gave it.
#[derive(Clone)]
pub struct NamedVault {
    /// Its name.
    pub name: String,
    /// The vault.
    pub vault: Arc<dyn BackupVault>,
}

/// What the backups of a project work with.
pub struct BackupParts {
    /// The project.
    pub project: ProjectName,
    /// What is backed up, and restored to.
    pub sources: Vec<Arc<dyn BackupSource>>,
    /// Whose data they hold.
    pub covers: Vec<SetData>,
    /// What services of the project keep and no source holds, in words: every set says so.
    pub not_covered: Vec<String>,
    /// Where sets are kept; the first is written first, the others get copies.
    pub vaults: Vec<NamedVault>,
    /// Who will be able to read new sets; `None` where nobody said.
    pub protection: Option<Protection>,
    /// What opens sets here.
    pub keys: Keys,
    /// What is remembered between runs; a directory of its own.
    pub directory: PathBuf,
    /// Who works, for people who find it busy.
    pub owner: String,
    /// How long nothing may move before the making of a set is given up.
    pub silence: Duration,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// The backups of one project.
pub struct Backups {
    parts: BackupParts,
}

/// A set that is to be made.
#[derive(Clone, Debug, Default)]
pub struct NewSet {
    /// Its name; one is made where nothing is said.
    pub set: Option<SetId>,
    /// The release that it is made before.
    pub release: Option<ReleaseId>,
    /// Words for retention.
    pub tags: Vec<String>,
    /// What is to be in it; everything where nothing is named.
    pub only: BTreeSet<ArtifactName>,
}

/// A set that was made.
#[derive(Debug)]
pub struct Made {
    /// What is in it.
    pub manifest: Manifest,
    /// The first vault.
    pub place: String,
    /// The other vaults, and whether each has a copy that was read back.
    pub copies: Vec<(String, Result<Copied, SetFailure>)>,
    /// What is in it although it has no artifact of its own: each part of a whole, and the artifact that has the whole.
    pub twins: Vec<(ArtifactName, ArtifactName)>,
}

impl Made {
    /// What is not as it should be, although there is a set: in words, one each.
    pub fn shortcomings(&self) -> Vec<String> {
        let copies = self.copies.iter().filter_map(|(place, copied)| {
            copied.as_ref().err().map(|failure| format!("there is no copy in {place}: {}", kaleem_core::remedy::one_line(failure)))
        });
        let changed =
            self.manifest.artifacts.iter().filter(|record| record.kind == SourceKind::Files && record.consistency == Consistency::None);
        copies.chain(changed.map(|record| format!("`{}` changed while it was read", record.name))).collect()
    }
}

/// What one vault holds.
#[derive(Debug)]
pub struct VaultListing {
    /// The vault.
    pub vault: String,
    /// Its sets, or why it cannot tell.
    pub sets: Result<Vec<SetEntry>, SetFailure>,
}

/// How thoroughly a set was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Opened, unpacked, checked by the rules of each format, and compared with what was exported.
    Whole,
    /// Every stored byte compared with its digest; nothing was opened, since no key is here.
    Stored,
}

/// One set in one vault.
#[derive(Debug)]
pub struct Verified {
    /// The set.
    pub set: SetId,
    /// The vault.
    pub vault: String,
    /// How thoroughly.
    pub depth: Depth,
    /// What is in it, or what is wrong.
    pub outcome: Result<Manifest, SetFailure>,
}

/// What became of the sets of one vault.
#[derive(Debug)]
pub struct Pruned {
    /// The vault.
    pub vault: String,
    /// Why each stays or goes.
    pub decisions: Vec<Decision>,
    /// What was removed.
    pub removed: Vec<SetId>,
}

/// One artifact that was put back.
#[derive(Debug)]
pub struct Restored {
    /// The artifact.
    pub artifact: ArtifactName,
    /// What the store then held of it.
    pub contents: Contents,
}

fn in_set(source: SetFailure) -> BackupsError {
    BackupsError::Set { source }
}

/// Of each whole its first part alone: the others would be the same once more. One that cannot tell is kept, and says why when it is read.
async fn one_of_each(sources: Vec<Arc<dyn BackupSource>>) -> (Vec<Arc<dyn BackupSource>>, Vec<(ArtifactName, ArtifactName)>) {
    if sources.len() < 2 {
        return (sources, Vec::new());
    }
    let wholes = futures_util::future::join_all(sources.iter().map(|source| source.whole())).await;
    let (mut kept, mut twins) = (Vec::new(), Vec::new());
    let mut first: BTreeMap<String, ArtifactName> = BTreeMap::new();
    for (source, whole) in sources.into_iter().zip(wholes) {
        let name = source.identity().name.clone();
        match whole.ok().flatten() {
            Some(whole) if first.contains_key(&whole) => twins.extend(first.get(&whole).map(|first| (name, first.clone()))),
            whole => {
                first.extend(whole.map(|whole| (whole, name)));
                kept.push(source);
            }
        }
    }
    (kept, twins)
}

impl Backups {
    /// The backups of a project. Nothing is asked yet.
    pub fn new(parts: BackupParts) -> Self {
        Self { parts }
    }

    /// What is backed up.
    pub fn sources(&self) -> &[Arc<dyn BackupSource>] {
        &self.parts.sources
    }

    /// Where sets are kept.
    pub fn vaults(&self) -> &[NamedVault] {
        &self.parts.vaults
    }

    /// What opens sets here.
    pub fn keys(&self) -> &Keys {
        &self.parts.keys
    }

    /// What is remembered between runs.
    pub fn directory(&self) -> &std::path::Path {
        &self.parts.directory
    }

    /// Takes the lock, over from a holder that is dead. It ends with the value.
    ///
    /// # Errors
    /// [`BackupsError::Lease`] when somebody alive has it.
    pub async fn lock(&self) -> Result<Lease, BackupsError> {
        let directory = &self.parts.directory;
        durable::create_directory(directory, PRIVATE_DIRECTORY).map_err(|source| BackupsError::State { source })?;
        Lease::take(directory, &self.parts.owner, self.parts.clock.clone()).await.map_err(|source| BackupsError::Lease { source })
    }

    fn first(&self) -> Result<&NamedVault, BackupsError> {
        self.parts.vaults.first().ok_or(BackupsError::NoSet)
    }

    /// Makes a set, reads it back, and copies it into the other vaults.
    ///
    /// # Errors
    /// [`BackupsError`]; there is no such set. What failed after the set was finished is told by [`Made::shortcomings`].
    pub async fn create(&self, wanted: &NewSet, observer: Arc<MoveObserver>) -> Result<Made, BackupsError> {
        let _lease = self.lock().await?;
        self.sweep().await?;
        let parts = &self.parts;
        let protection = parts.protection.clone().ok_or(BackupsError::NotProtected)?;
        let (sources, twins) = self.chosen(&wanted.only).map(one_of_each)?.await;
        let set = match &wanted.set {
            Some(set) => set.clone(),
            None => set::new_id(parts.clock.now()).map_err(in_set)?,
        };
        let request = CreateRequest {
            set: set.clone(),
            project: parts.project.clone(),
            release: wanted.release,
            tags: wanted.tags.clone(),
            not_covered: parts.not_covered.clone(),
            protection,
            silence: parts.silence,
        };
        let first = self.first()?;
        let record = making::begin(&parts.directory, &set)?;
        let manifest = {
            let vault = MeteredVault::new(first.vault.as_ref(), observer.clone());
            set::create(&vault, &sources, &request, parts.clock.as_ref()).await.map_err(in_set)?
        };
        let mut copies = Vec::new();
        for other in parts.vaults.iter().skip(1) {
            let to = MeteredVault::new(other.vault.as_ref(), observer.clone());
            copies.push((other.name.clone(), set::copy(first.vault.as_ref(), &to, &set).await));
        }
        if copies.iter().all(|(_, copied)| copied.is_ok()) {
            record.done()?;
        }
        Ok(Made { manifest, place: first.name.clone(), copies, twins })
    }

    fn chosen(&self, only: &BTreeSet<ArtifactName>) -> Result<Vec<Arc<dyn BackupSource>>, BackupsError> {
        let sources = &self.parts.sources;
        if sources.is_empty() {
            return Err(BackupsError::NoSource);
        }
        if let Some(name) = only.iter().find(|name| !sources.iter().any(|source| source.identity().name == **name)) {
            return Err(self.unknown(name));
        }
        Ok(sources.iter().filter(|source| only.is_empty() || only.contains(&source.identity().name)).cloned().collect())
    }

    fn unknown(&self, name: &ArtifactName) -> BackupsError {
        let known = self.parts.sources.iter().map(|source| source.identity().name.to_string()).collect::<Vec<_>>().join(", ");
        BackupsError::NoSuchSource { name: name.clone(), known }
    }

    /// Removes what dead processes left behind. The caller holds the lock. What a vault that does not answer has of it stays
    /// remembered; without its COMMIT it is no set.
    async fn sweep(&self) -> Result<(), BackupsError> {
        for set in making::left_behind(&self.parts.directory)? {
            let mut swept = true;
            for named in &self.parts.vaults {
                swept &= self.give_up_in(named.vault.as_ref(), &set).await.is_ok();
            }
            if swept {
                making::forget(&self.parts.directory, &set)?;
            }
        }
        Ok(())
    }

    async fn give_up_in(&self, vault: &dyn BackupVault, set: &SetId) -> Result<(), SetFailure> {
        match set::read(vault, set).await {
            Err(SetFailure::Unfinished { .. }) => set::discard(vault, set).await,
            // A finished one is a set like any other, also one that was damaged since.
            Ok(_) | Err(SetFailure::Description { .. }) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// What each vault holds, oldest first.
    pub async fn list(&self) -> Vec<VaultListing> {
        let mut listings = Vec::new();
        for named in &self.parts.vaults {
            listings.push(VaultListing { vault: named.name.clone(), sets: set::list(named.vault.as_ref()).await });
        }
        listings
    }

    /// The finished sets of this project, newest first, with the vaults that have each.
    ///
    /// # Errors
    /// The failure of a vault, when none could tell.
    pub async fn finished(&self) -> Result<Vec<(Manifest, Vec<String>)>, BackupsError> {
        let mut found: Vec<(Manifest, Vec<String>)> = Vec::new();
        let mut failure = None;
        let mut answered = false;
        for listing in self.list().await {
            let sets = match listing.sets {
                Ok(sets) => sets,
                Err(error) => {
                    failure = Some(error);
                    continue;
                }
            };
            answered = true;
            for entry in sets {
                let SetState::Committed { manifest, .. } = entry.state else { continue };
                match found.iter_mut().find(|(known, _)| known.set == manifest.set) {
                    Some((_, vaults)) => vaults.push(listing.vault.clone()),
                    None if manifest.project == self.parts.project => found.push((*manifest, vec![listing.vault.clone()])),
                    None => {}
                }
            }
        }
        if let (Some(failure), false) = (failure, answered) {
            return Err(in_set(failure));
        }
        found.sort_by(|one, two| (two.0.created, &two.0.set).cmp(&(one.0.created, &one.0.set)));
        Ok(found)
    }

    /// The set that was named, or the newest. One that a restore made of what it replaced is the newest only where there is no other.
    ///
    /// # Errors
    /// [`BackupsError::NoSuchSet`], [`BackupsError::NoSet`], and what a vault says.
    pub async fn find(&self, set: Option<&SetId>) -> Result<Manifest, BackupsError> {
        let Some(set) = set else {
            let (safety, usual): (Vec<_>, Vec<_>) = self
                .finished()
                .await?
                .into_iter()
                .partition(|(manifest, _)| manifest.tags.iter().any(|tag| tag == retention::BEFORE_RESTORE));
            return usual.into_iter().chain(safety).next().map(|(manifest, _)| manifest).ok_or(BackupsError::NoSet);
        };
        let mut failure = None;
        for named in &self.parts.vaults {
            match set::read(named.vault.as_ref(), set).await {
                Ok(manifest) => return Ok(manifest),
                Err(other) => failure = restoring::worse(failure, other),
            }
        }
        Err(match failure {
            Some(SetFailure::Unfinished { .. }) | None => BackupsError::NoSuchSet { set: set.clone() },
            Some(failure) => in_set(failure),
        })
    }

    /// Reads a set in every vault that has it, as thoroughly as the keys allow.
    ///
    /// # Errors
    /// [`BackupsError::NoSuchSet`] when no vault has it. What is wrong in a vault is in its answer.
    pub async fn verify(&self, set: &SetId, observer: Arc<MoveObserver>) -> Result<Vec<Verified>, BackupsError> {
        let mut verified = Vec::new();
        for named in &self.parts.vaults {
            let vault = MeteredVault::new(named.vault.as_ref(), observer.clone());
            let manifest = match set::read(&vault, set).await {
                Ok(manifest) => manifest,
                Err(SetFailure::Unfinished { .. }) => continue,
                Err(failure) => {
                    verified.push(Verified { set: set.clone(), vault: named.name.clone(), depth: Depth::Stored, outcome: Err(failure) });
                    continue;
                }
            };
            let opens = manifest.artifacts.iter().all(|record| self.parts.keys.can_open(record.encryption));
            let (depth, outcome) = if opens {
                (Depth::Whole, set::verify(&vault, set, &self.parts.keys).await)
            } else {
                (Depth::Stored, set::verify_stored(&vault, set).await)
            };
            verified.push(Verified { set: set.clone(), vault: named.name.clone(), depth, outcome });
        }
        if verified.is_empty() { Err(BackupsError::NoSuchSet { set: set.clone() }) } else { Ok(verified) }
    }

    /// Whether the keys that are here open every artifact of a set.
    pub fn can_open(&self, manifest: &Manifest) -> bool {
        manifest.artifacts.iter().all(|record| self.parts.keys.can_open(record.encryption))
    }

    /// Decides for every set of every vault, and removes what is to go when `act` says so. The caller holds the lock.
    ///
    /// # Errors
    /// [`BackupsError::Retention`]; of a vault that failed nothing more is removed.
    pub async fn prune(&self, policy: &Policy, act: Act) -> Result<Vec<Pruned>, BackupsError> {
        let wrap = |source| BackupsError::Retention { source };
        let mut pruned = Vec::new();
        for named in &self.parts.vaults {
            let vault = named.vault.as_ref();
            let candidates = retention::look_at(vault, &self.parts.project).await.map_err(wrap)?;
            let decisions = retention::plan(&candidates, policy, self.parts.clock.now()).map_err(wrap)?;
            let removed = match act {
                Act::Remove => retention::carry_out(vault, &decisions).await.map_err(wrap)?,
                Act::OnlyTell => Vec::new(),
            };
            pruned.push(Pruned { vault: named.name.clone(), decisions, removed });
        }
        Ok(pruned)
    }

    /// Removes a set by name, in every vault. The last verified one of a vault, and one that is held, stay. The caller holds
    /// the lock.
    ///
    /// # Errors
    /// [`BackupsError::LastVerified`], [`BackupsError::Held`], [`BackupsError::NoSuchSet`], and what a vault says; nothing was
    /// removed unless the vault itself failed on the way.
    pub async fn forget(&self, set: &SetId) -> Result<Vec<String>, BackupsError> {
        let mut places = Vec::new();
        for named in &self.parts.vaults {
            let sets = set::list(named.vault.as_ref()).await.map_err(in_set)?;
            let Some(entry) = sets.iter().find(|entry| entry.set == *set) else { continue };
            let place = || named.name.clone();
            if entry.held {
                return Err(BackupsError::Held { set: set.clone(), place: place() });
            }
            let is_set =
                |entry: &SetEntry| matches!(&entry.state, SetState::Committed { manifest, .. } if manifest.project == self.parts.project);
            if is_set(entry) && !sets.iter().any(|other| other.set != *set && is_set(other)) {
                return Err(BackupsError::LastVerified { set: set.clone(), place: place() });
            }
            places.push(named);
        }
        if places.is_empty() {
            return Err(BackupsError::NoSuchSet { set: set.clone() });
        }
        for named in &places {
            set::discard(named.vault.as_ref(), set).await.map_err(in_set)?;
        }
        Ok(places.into_iter().map(|named| named.name.clone()).collect())
    }

    /// Keeps a set, whatever retention says, in every vault that has it.
    ///
    /// # Errors
    /// [`BackupsError::NoSuchSet`], and what a vault says.
    pub async fn hold(&self, set: &SetId, reason: &str) -> Result<Vec<String>, BackupsError> {
        let mut places = Vec::new();
        for named in &self.parts.vaults {
            match set::hold(named.vault.as_ref(), set, reason).await {
                Ok(()) => places.push(named.name.clone()),
                Err(SetFailure::Unfinished { .. }) => {}
                Err(failure) => return Err(in_set(failure)),
            }
        }
        if places.is_empty() { Err(BackupsError::NoSuchSet { set: set.clone() }) } else { Ok(places) }
    }

    /// Lets go of a set that was held.
    ///
    /// # Errors
    /// What a vault says; it may still be held there.
    pub async fn release(&self, set: &SetId) -> Result<(), BackupsError> {
        for named in &self.parts.vaults {
            set::release(named.vault.as_ref(), set).await.map_err(in_set)?;
        }
        Ok(())
    }
}

/// In what a store differs now from what a set holds of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The artifact.
    pub artifact: ArtifactName,
    /// How many of its parts (collections, databases, files) are another than in the set; `None` where the store could not tell.
    pub parts_changed: Option<usize>,
    /// Things that are there now beyond those of the set, in parts that have more.
    pub more: u64,
    /// Things of the set that are not there any more, in parts that have fewer.
    pub fewer: u64,
}

impl Loss {
    /// In words.
    pub fn told(&self) -> String {
        match self.parts_changed {
            None => "the store could not say in time what was written since".to_owned(),
            Some(0) => "nothing was written since, as far as counts and digests tell".to_owned(),
            Some(parts) => {
                let (more, fewer) = (self.more, self.fewer);
                let part = if parts == 1 { "part differs" } else { "parts differ" };
                let writes = more.max(1) + fewer;
                let write = if writes == 1 { "write" } else { "writes" };
                format!("{parts} {part}: at least {writes} {write} would be lost ({more} more, {fewer} fewer)")
            }
        }
    }
}

impl Backups {
    /// In what the stores differ now from what a set holds of them. A store that does not answer within `within` says nothing.
    pub async fn losses(&self, manifest: &Manifest, within: Duration) -> Vec<Loss> {
        let mut losses = Vec::new();
        for record in &manifest.artifacts {
            let unknown = Loss { artifact: record.name.clone(), parts_changed: None, more: 0, fewer: 0 };
            let source = self.parts.sources.iter().find(|source| source.identity().name == record.name);
            let Some(source) = source else { continue };
            let loss = match tokio::time::timeout(within, source.inspect()).await {
                Ok(Ok(now)) => compare(&record.contents, &now, unknown),
                Ok(Err(_)) | Err(_) => unknown,
            };
            losses.push(loss);
        }
        losses
    }
}

fn compare(then: &Contents, now: &Contents, mut loss: Loss) -> Loss {
    let names: BTreeSet<&String> = then.keys().chain(now.keys()).collect();
    let mut changed = 0;
    for name in names {
        let (before, after) = (then.get(name), now.get(name));
        if before == after {
            continue;
        }
        changed += 1;
        let count = |content: Option<&kaleem_core::backup::Content>| content.map_or(0, |content| content.count);
        loss.more += count(after).saturating_sub(count(before));
        loss.fewer += count(before).saturating_sub(count(after));
    }
    loss.parts_changed = Some(changed);
    loss
}

/// Whether what is to go goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// It does.
    Remove,
    /// It does not: only the reasons are told.
    OnlyTell,
}

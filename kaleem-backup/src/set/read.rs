//! Reading sets: nothing is believed that is not sealed by its COMMIT.

use kaleem_core::backup::set::{COMMIT_FILE, MANIFEST_FILE, README_FILE};
use kaleem_core::backup::{
    ArtifactRecord, BackupSource, BackupVault, ByteStream, Commit, Contents, Manifest, RestoreMode, SetError, SourceError, VaultError,
    VaultPath,
};
use kaleem_core::names::{ArtifactName, SetId};
use tokio::io::AsyncReadExt;

use super::create::put;
use super::{SetFailure, root};
use crate::format;
use crate::seal::{Keys, open};

/// Longest COMMIT or manifest that is read.
const DESCRIPTION_BYTES: u64 = 64 * 1024 * 1024;

/// A set as a listing shows it.
#[derive(Debug)]
pub struct SetEntry {
    /// Its name.
    pub set: SetId,
    /// Bytes of all its files.
    pub size_bytes: u64,
    /// Whether it was told to stay, whatever retention says: see [`super::hold`].
    pub held: bool,
    /// Whether it is one.
    pub state: SetState,
}

/// What is known of a set from its description.
#[derive(Debug)]
pub enum SetState {
    /// It was committed, after it had been read back.
    Committed {
        /// What is in it.
        manifest: Box<Manifest>,
        /// Its COMMIT.
        commit: Commit,
    },
    /// It has no COMMIT: being made, or left behind by a death.
    Unfinished,
    /// It has a COMMIT, and is not what that says.
    Damaged(SetError),
}

/// File name of the mark that keeps a set.
pub(super) const HOLD_FILE: &str = "HOLD";

/// What a copy did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copied {
    /// The set is now there, too, and was read back.
    Whole,
    /// The same set was there already, and was read back.
    AlreadyThere,
}

fn path(set: &SetId, file: &str) -> Result<VaultPath, SetFailure> {
    VaultPath::in_set(set, file).map_err(|source| SetFailure::Name { source })
}

fn reading(set: &SetId) -> impl Fn(VaultError) -> SetFailure {
    move |source| SetFailure::Vault { doing: "read", set: set.clone(), source }
}

async fn small(vault: &dyn BackupVault, path: &VaultPath) -> Result<Vec<u8>, VaultError> {
    let stream = vault.get(path).await?;
    let mut bytes = Vec::new();
    let broken = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::InvalidData => VaultError::Damaged { place: vault.place(), reason: source.to_string() },
        _ => VaultError::Unreachable { place: vault.place(), source: Box::new(source) },
    };
    stream.take(DESCRIPTION_BYTES).read_to_end(&mut bytes).await.map_err(broken)?;
    Ok(bytes)
}

async fn sealed(vault: &dyn BackupVault, set: &SetId) -> Result<(Commit, Manifest), SetFailure> {
    let distrust = |source| SetFailure::Description { set: set.clone(), source };
    let damaged = |file, reason| distrust(SetError::Damaged { file, reason });
    let bytes = match small(vault, &path(set, COMMIT_FILE)?).await {
        Err(VaultError::Missing { .. }) => return Err(SetFailure::Unfinished { set: set.clone() }),
        Err(VaultError::Damaged { reason, .. }) => return Err(damaged(COMMIT_FILE, reason)),
        bytes => bytes.map_err(reading(set))?,
    };
    let commit = Commit::read(&bytes, set).map_err(distrust)?;
    let bytes = match small(vault, &path(set, MANIFEST_FILE)?).await {
        Err(VaultError::Missing { .. }) => return Err(damaged(MANIFEST_FILE, "it is gone".to_owned())),
        Err(VaultError::Damaged { reason, .. }) => return Err(damaged(MANIFEST_FILE, reason)),
        bytes => bytes.map_err(reading(set))?,
    };
    let manifest = Manifest::sealed(&bytes, &commit).map_err(distrust)?;
    Ok((commit, manifest))
}

/// What a set holds, as its COMMIT seals it. The artifacts themselves are not read: see [`verify`].
///
/// # Errors
/// [`SetFailure::Unfinished`] without a COMMIT; [`SetFailure::Description`] when it is damaged.
pub async fn read(vault: &dyn BackupVault, set: &SetId) -> Result<Manifest, SetFailure> {
    Ok(sealed(vault, set).await?.1)
}

/// Every set in the vault, oldest name first, with those that are not finished or not sound.
///
/// # Errors
/// [`SetFailure`] when the vault cannot tell everything: then nothing is known.
pub async fn list(vault: &dyn BackupVault) -> Result<Vec<SetEntry>, SetFailure> {
    let root = root().map_err(|source| SetFailure::Name { source })?;
    let mut found: Vec<SetEntry> = Vec::new();
    for entry in vault.list(&root).await.map_err(|source| SetFailure::List { source })? {
        let Some(set) = entry.path.segments().nth(1).and_then(|name| name.parse::<SetId>().ok()) else {
            let what = entry.path.to_string();
            return Err(SetFailure::List { source: VaultError::Foreign { place: vault.place(), what } });
        };
        let held = entry.path.segments().nth(2) == Some(HOLD_FILE);
        match found.iter_mut().find(|known| known.set == set) {
            Some(known) => {
                known.size_bytes += entry.size_bytes;
                known.held |= held;
            }
            None => found.push(SetEntry { set, size_bytes: entry.size_bytes, held, state: SetState::Unfinished }),
        }
    }
    for entry in &mut found {
        entry.state = match sealed(vault, &entry.set).await {
            Ok((commit, manifest)) => SetState::Committed { manifest: Box::new(manifest), commit },
            Err(SetFailure::Unfinished { .. }) => SetState::Unfinished,
            Err(SetFailure::Description { source, .. }) => SetState::Damaged(source),
            Err(other) => return Err(other),
        };
    }
    found.sort_by(|one, two| one.set.cmp(&two.set));
    Ok(found)
}

/// The plain bytes of an artifact. They end without an error only if they are exactly those that were exported.
///
/// # Errors
/// [`SetFailure::Vault`] when the vault does not give them.
pub async fn open_artifact(vault: &dyn BackupVault, set: &SetId, record: &ArtifactRecord, keys: &Keys) -> Result<ByteStream, SetFailure> {
    let stored = vault.get(&path(set, &record.file)?).await.map_err(reading(set))?;
    Ok(open(stored, keys, record))
}

/// Reads an artifact in whole, checks it by the rules of its format, and compares what is in it with the manifest.
///
/// # Errors
/// [`SetFailure`] unless everything is right.
pub async fn verify_artifact(vault: &dyn BackupVault, set: &SetId, record: &ArtifactRecord, keys: &Keys) -> Result<(), SetFailure> {
    let stream = open_artifact(vault, set, record, keys).await?;
    let artifact = || record.name.clone();
    let contents = match format::verify(record.kind, stream).await {
        Ok(contents) => contents,
        Err(SourceError::Input { source }) => {
            // A header that was changed looks like a key that does not fit, or like no header at all; the digest of what is stored
            // tells them apart.
            stored_as_recorded(vault, set, record).await?;
            let (set, artifact) = (set.clone(), artifact());
            return Err(match source.kind() {
                std::io::ErrorKind::PermissionDenied => SetFailure::Locked { set, artifact, source },
                std::io::ErrorKind::InvalidData => SetFailure::Artifact { set, artifact, source: SourceError::Input { source } },
                _ => SetFailure::Unread { set, artifact, source },
            });
        }
        Err(source) => return Err(SetFailure::Artifact { set: set.clone(), artifact: artifact(), source }),
    };
    match difference(&contents, &record.contents) {
        None => Ok(()),
        Some(reason) => Err(SetFailure::Contents { set: set.clone(), artifact: artifact(), reason }),
    }
}

/// The first part in which two contents differ, in words.
pub fn difference(found: &Contents, wanted: &Contents) -> Option<String> {
    let names = found.keys().chain(wanted.keys());
    names.into_iter().find_map(|name| match (found.get(name), wanted.get(name)) {
        (Some(one), Some(two)) if one == two => None,
        (Some(one), Some(two)) if one.count != two.count => Some(format!("`{name}` has {} and not {}", one.count, two.count)),
        (Some(_), Some(_)) => Some(format!("`{name}` has the right count and another digest")),
        (Some(_), None) => Some(format!("`{name}` is too much")),
        (None, _) => Some(format!("`{name}` is missing")),
    })
}

/// Reads a whole set and checks every byte of it.
///
/// # Errors
/// [`SetFailure`] at the first thing that is not right.
pub async fn verify(vault: &dyn BackupVault, set: &SetId, keys: &Keys) -> Result<Manifest, SetFailure> {
    let manifest = read(vault, set).await?;
    for record in &manifest.artifacts {
        verify_artifact(vault, set, record, keys).await?;
    }
    Ok(manifest)
}

/// Puts one artifact back through `source`, after it was read and checked in whole, and compares what is there then.
///
/// # Errors
/// [`SetFailure`]; for what is left in the store see [`BackupSource::restore`].
pub async fn restore(
    vault: &dyn BackupVault,
    set: &SetId,
    artifact: &ArtifactName,
    source: &dyn BackupSource,
    mode: RestoreMode,
    keys: &Keys,
) -> Result<Contents, SetFailure> {
    let manifest = read(vault, set).await?;
    let missing = || SetFailure::NoArtifact { set: set.clone(), artifact: artifact.clone() };
    let record = manifest.artifacts.iter().find(|record| record.name == *artifact).ok_or_else(missing)?;
    if record.kind != source.identity().kind {
        return Err(SetFailure::Request { reason: format!("`{artifact}` is of {}, not of {}", record.kind, source.identity().kind) });
    }
    verify_artifact(vault, set, record, keys).await?;
    put_back(vault, set, record, None, source, mode, keys).await
}

/// What belongs to one collection of an artifact.
pub fn of_collection(contents: &Contents, collection: &str) -> Contents {
    let belongs = |name: &str| name == collection || name.strip_suffix(collection).is_some_and(|what| what.ends_with(" of "));
    contents.iter().filter(|(name, _)| belongs(name)).map(|(name, content)| (name.clone(), content.clone())).collect()
}

/// Puts one artifact back through `source`, or one collection of it, and compares what is there then. The caller has read and
/// checked it before; what is put back is read and checked once more on its way.
///
/// # Errors
/// [`SetFailure`]; for what is left in the store see [`BackupSource::restore`] and [`BackupSource::restore_part`].
pub async fn put_back(
    vault: &dyn BackupVault,
    set: &SetId,
    record: &ArtifactRecord,
    collection: Option<&str>,
    source: &dyn BackupSource,
    mode: RestoreMode,
    keys: &Keys,
) -> Result<Contents, SetFailure> {
    let artifact = || record.name.clone();
    if record.kind != source.identity().kind {
        return Err(SetFailure::Request { reason: format!("`{}` is of {}, not of {}", record.name, record.kind, source.identity().kind) });
    }
    let wanted = collection.map_or_else(|| record.contents.clone(), |collection| of_collection(&record.contents, collection));
    if let (Some(collection), true) = (collection, wanted.is_empty()) {
        return Err(SetFailure::Request { reason: format!("`{}` has no collection `{collection}`", record.name) });
    }
    let stream = open_artifact(vault, set, record, keys).await?;
    let restored = match collection {
        Some(collection) => source.restore_part(stream, collection, mode).await,
        None => source.restore(stream, mode).await,
    };
    let restored = restored.map_err(|source| SetFailure::Restore { set: set.clone(), artifact: artifact(), source })?;
    match difference(&restored, &wanted) {
        None => Ok(restored),
        Some(reason) => Err(SetFailure::Contents { set: set.clone(), artifact: artifact(), reason }),
    }
}

/// Reads a whole set as it is stored and compares every byte with its digest. No key is needed.
///
/// # Errors
/// [`SetFailure`] at the first thing that is not right.
pub async fn verify_stored(vault: &dyn BackupVault, set: &SetId) -> Result<Manifest, SetFailure> {
    let manifest = read(vault, set).await?;
    for record in &manifest.artifacts {
        stored_as_recorded(vault, set, record).await?;
    }
    Ok(manifest)
}

/// Copies a set as it is stored into another vault: no key is needed. COMMIT goes last, after everything was read back.
///
/// # Errors
/// [`SetFailure`]; the other vault then has no COMMIT of this set. What is there can be discarded.
pub async fn copy(from: &dyn BackupVault, to: &dyn BackupVault, set: &SetId) -> Result<Copied, SetFailure> {
    let (commit, manifest) = sealed(from, set).await?;
    let existing = match sealed(to, set).await {
        Err(SetFailure::Unfinished { .. }) => None,
        found => Some(found?.0),
    };
    if existing.as_ref().is_some_and(|found| *found != commit) {
        return Err(SetFailure::Request { reason: format!("{} has another set {set}", to.place()) });
    }
    for record in &manifest.artifacts {
        let path = path(set, &record.file)?;
        if existing.is_none() {
            let body = from.get(&path).await.map_err(reading(set))?;
            match to.put_if_absent(&path, body).await {
                // An earlier copy died after this one; it is checked below.
                Err(VaultError::Exists { .. }) => (),
                stored => drop(stored.map_err(|source| SetFailure::Vault { doing: "copy", set: set.clone(), source })?),
            }
        }
        stored_as_recorded(to, set, record).await?;
    }
    if existing.is_some() {
        return Ok(Copied::AlreadyThere);
    }
    let manifest_bytes = small(from, &path(set, MANIFEST_FILE)?).await.map_err(reading(set))?;
    Manifest::sealed(&manifest_bytes, &commit).map_err(|source| SetFailure::Description { set: set.clone(), source })?;
    for (file, bytes) in [
        (README_FILE, small(from, &path(set, README_FILE)?).await.map_err(reading(set))?),
        (MANIFEST_FILE, manifest_bytes),
        (COMMIT_FILE, commit.to_bytes()),
    ] {
        if file != COMMIT_FILE && small(to, &path(set, file)?).await.is_ok_and(|found| found == bytes) {
            continue;
        }
        put(to, set, file, bytes).await?;
    }
    sealed(to, set).await.map(|_| Copied::Whole)
}

/// Reads a stored artifact in whole and compares it with the manifest, without opening it.
async fn stored_as_recorded(vault: &dyn BackupVault, set: &SetId, record: &ArtifactRecord) -> Result<(), SetFailure> {
    use sha2::{Digest as _, Sha256};
    let unread = |source: std::io::Error| {
        let (set, artifact) = (set.clone(), record.name.clone());
        match source.kind() {
            // The vault itself says that it is not what it stored.
            std::io::ErrorKind::InvalidData => SetFailure::Stored { set, artifact, reason: source.to_string() },
            _ => SetFailure::Unread { set, artifact, source },
        }
    };
    let mut stream = vault.get(&path(set, &record.file)?).await.map_err(reading(set))?;
    let mut digest = Sha256::new();
    let mut chunk = vec![0; 256 * 1024];
    let mut length = 0_u64;
    loop {
        let read = stream.read(&mut chunk).await.map_err(unread)?;
        if read == 0 {
            break;
        }
        length += read as u64;
        digest.update(chunk.get(..read).unwrap_or_default());
    }
    let reason = if length != record.stored_bytes {
        format!("{length} bytes are stored, and the manifest names {}", record.stored_bytes)
    } else if hex::encode(digest.finalize()) != record.stored_sha256 {
        "the stored bytes are not those that the manifest names".to_owned()
    } else {
        return Ok(());
    };
    Err(SetFailure::Stored { set: set.clone(), artifact: record.name.clone(), reason })
}

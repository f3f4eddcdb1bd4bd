//! Making a set: source, digest, zstd, age, vault; then everything is read back before COMMIT is written.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kaleem_core::backup::set::{COMMIT_FILE, MANIFEST_FILE, MANIFEST_FORMAT, README_FILE, sha256};
use kaleem_core::backup::{
    ArtifactRecord, BackupSource, BackupVault, Commit, Compression, Exported, Manifest, SourceError, VaultPath, pipe,
};
use kaleem_core::clock::Clock;
use kaleem_core::names::{ProjectName, ReleaseId, SetId};
use kaleem_core::remedy::one_line;
use tokio::io::AsyncReadExt;

use super::read::HOLD_FILE;
use super::{SetFailure, bytes_stream, directory};
use crate::seal::{Protection, Sealed, seal};

const README: &str = include_str!("readme.txt");

/// What is to be made.
#[derive(Clone, Debug)]
pub struct CreateRequest {
    /// Its name: see [`super::new_id`]. One that was used before is refused.
    pub set: SetId,
    /// Whose data it is.
    pub project: ProjectName,
    /// The release that it is made before.
    pub release: Option<ReleaseId>,
    /// Words for retention.
    pub tags: Vec<String>,
    /// What the project keeps and the set does not hold, in words.
    pub not_covered: Vec<String>,
    /// Who will be able to read it.
    pub protection: Protection,
    /// How long nothing may move before the making is given up.
    pub silence: Duration,
}

/// Makes a set of everything that `sources` hold, reads it back and checks it, and commits it.
///
/// # Errors
/// [`SetFailure`]: there is no such set. What was written of it was removed, unless the vault failed; then it stays
/// without a COMMIT until it is discarded.
pub async fn create(
    vault: &dyn BackupVault,
    sources: &[Arc<dyn BackupSource>],
    request: &CreateRequest,
    clock: &dyn Clock,
) -> Result<Manifest, SetFailure> {
    let mut names = BTreeSet::new();
    if let Some(twice) = sources.iter().find(|source| !names.insert(source.identity().name.clone())) {
        return Err(SetFailure::Request { reason: format!("`{}` is there twice", twice.identity().name) });
    }
    if sources.is_empty() {
        return Err(SetFailure::Request { reason: "there is none".to_owned() });
    }
    let there = vault.list(&directory(&request.set).map_err(|source| SetFailure::Name { source })?).await;
    if !there.map_err(|source| SetFailure::List { source })?.is_empty() {
        return Err(SetFailure::Request { reason: format!("there is a set {} already", request.set) });
    }
    let made = fill(vault, sources, request, clock).await;
    if made.is_err() {
        // What cannot be removed has no COMMIT, or one that does not match: it is no set.
        discard(vault, &request.set).await.ok();
    }
    made
}

/// Removes an unfinished set, or gives up a finished one: COMMIT goes first, so that no half of it ever counts.
///
/// # Errors
/// [`SetFailure`]; what is left has no COMMIT, unless that very removal failed.
pub async fn discard(vault: &dyn BackupVault, set: &SetId) -> Result<(), SetFailure> {
    let prefix = directory(set).map_err(|source| SetFailure::Name { source })?;
    let entries = vault.list(&prefix).await.map_err(|source| SetFailure::List { source })?;
    let failed = |source| SetFailure::Vault { doing: "remove", set: set.clone(), source };
    vault.delete(&path(set, COMMIT_FILE)?).await.map_err(failed)?;
    for entry in entries {
        vault.delete(&entry.path).await.map_err(failed)?;
    }
    Ok(())
}

/// Keeps a finished set, whatever retention says, until it is released. Holding it twice is holding it once.
///
/// # Errors
/// [`SetFailure`]; the set may not be held.
pub async fn hold(vault: &dyn BackupVault, set: &SetId, reason: &str) -> Result<(), SetFailure> {
    super::read(vault, set).await?;
    match put(vault, set, HOLD_FILE, format!("{reason}\n").into_bytes()).await {
        Err(SetFailure::Vault { source: kaleem_core::backup::VaultError::Exists { .. }, .. }) => Ok(()),
        held => held,
    }
}

/// Takes a hold back.
///
/// # Errors
/// [`SetFailure`]; the set may still be held.
pub async fn release(vault: &dyn BackupVault, set: &SetId) -> Result<(), SetFailure> {
    let failed = |source| SetFailure::Vault { doing: "release", set: set.clone(), source };
    vault.delete(&path(set, HOLD_FILE)?).await.map_err(failed)
}

fn path(set: &SetId, file: &str) -> Result<VaultPath, SetFailure> {
    VaultPath::in_set(set, file).map_err(|source| SetFailure::Name { source })
}

async fn fill(
    vault: &dyn BackupVault,
    sources: &[Arc<dyn BackupSource>],
    request: &CreateRequest,
    clock: &dyn Clock,
) -> Result<Manifest, SetFailure> {
    let (protection, keys) = request.protection.with_read_back();
    let created = clock.now();
    let mut artifacts = Vec::new();
    for source in sources {
        let record = artifact(vault, source.as_ref(), request, &protection, clock).await?;
        super::verify_artifact(vault, &request.set, &record, &keys).await?;
        artifacts.push(record);
    }
    artifacts.sort_by(|one, two| one.name.cmp(&two.name));
    let manifest = Manifest {
        // A set that says nothing which an older kaleem cannot read stays readable to it.
        format: if request.not_covered.is_empty() { 1 } else { MANIFEST_FORMAT },
        set: request.set.clone(),
        project: request.project.clone(),
        created,
        made_by: concat!("kaleem ", env!("CARGO_PKG_VERSION")).to_owned(),
        release: request.release,
        tags: request.tags.clone(),
        not_covered: request.not_covered.clone(),
        artifacts,
    };
    let bytes = manifest.to_bytes().map_err(|source| SetFailure::Description { set: request.set.clone(), source })?;
    let commit =
        Commit { set: request.set.clone(), manifest_sha256: sha256(&bytes), manifest_bytes: bytes.len() as u64, verified: clock.now() };
    put(vault, &request.set, README_FILE, instructions(&manifest).into_bytes()).await?;
    put(vault, &request.set, MANIFEST_FILE, bytes).await?;
    put(vault, &request.set, COMMIT_FILE, commit.to_bytes()).await?;
    // What the vault has acknowledged is still only what it says.
    super::read(vault, &request.set).await
}

/// Writes a small file of a set and reads it back.
pub(super) async fn put(vault: &dyn BackupVault, set: &SetId, file: &str, bytes: Vec<u8>) -> Result<(), SetFailure> {
    let path = path(set, file)?;
    let failed = |doing| move |source| SetFailure::Vault { doing, set: set.clone(), source };
    vault.put_if_absent(&path, bytes_stream(bytes.clone())).await.map_err(failed("write"))?;
    let mut stored = Vec::new();
    let mut stream = vault.get(&path).await.map_err(failed("read back"))?;
    let broken = |source| {
        let place = vault.place();
        failed("read back")(kaleem_core::backup::VaultError::Unreachable { place, source: Box::new(source) })
    };
    stream.read_to_end(&mut stored).await.map_err(broken)?;
    if stored == bytes {
        return Ok(());
    }
    let place = vault.place();
    let source: Box<dyn std::error::Error + Send + Sync> = format!("{file} reads back as something else than was written").into();
    Err(failed("read back")(kaleem_core::backup::VaultError::Unreachable { place, source }))
}

async fn artifact(
    vault: &dyn BackupVault,
    source: &dyn BackupSource,
    request: &CreateRequest,
    protection: &Protection,
    clock: &dyn Clock,
) -> Result<ArtifactRecord, SetFailure> {
    let identity = source.identity().clone();
    let file = format!("{}.{}", identity.name, protection.suffix());
    let target = path(&request.set, &file)?;
    let started = clock.now();
    let (mut plain, plain_reader) = pipe();
    let (stored, stored_reader) = pipe();
    let moved = Arc::new(AtomicU64::new(0));
    let sealing = {
        let (protection, moved) = (protection.clone(), Arc::clone(&moved));
        tokio::task::spawn_blocking(move || {
            seal(plain_reader, stored, &protection, |bytes| {
                moved.fetch_add(bytes, Ordering::Relaxed);
            })
        })
    };
    let exporting = async {
        match source.export(&mut plain).await {
            // When the sealing is gone, its own error says why.
            Ok(exported) => plain.finish().await.map(|()| exported).map_err(|source| SourceError::Output { source }),
            Err(error) => {
                plain.fail(std::io::Error::other(one_line(&error))).await;
                Err(error)
            }
        }
    };
    let storing = vault.put_if_absent(&target, Box::pin(stored_reader));
    let work = async { tokio::join!(exporting, sealing, storing) };
    let (exported, sealed, stored) = tokio::select! {
        done = Box::pin(work) => done,
        () = stalled(&moved, request.silence) => {
            return Err(SetFailure::Stalled { artifact: identity.name, silence: request.silence });
        }
    };
    let sealed = sealed.map_err(|_| SetFailure::Lost { artifact: identity.name.clone() })?;
    let (exported, sealed) = first_cause(&identity.name, &request.set, exported, sealed, stored)?;
    Ok(ArtifactRecord {
        name: identity.name,
        kind: identity.kind,
        file,
        plain_bytes: sealed.plain.bytes,
        plain_sha256: sealed.plain.sha256,
        stored_bytes: sealed.stored.bytes,
        stored_sha256: sealed.stored.sha256,
        compression: Compression::Zstd,
        encryption: protection.encryption(),
        consistency: exported.consistency,
        started,
        finished: clock.now(),
        contents: exported.contents,
        notes: exported.notes,
    })
}

/// Of three ends of one chain, the error that made the others.
fn first_cause(
    artifact: &kaleem_core::names::ArtifactName,
    set: &SetId,
    exported: Result<Exported, SourceError>,
    sealed: std::io::Result<Sealed>,
    stored: Result<u64, kaleem_core::backup::VaultError>,
) -> Result<(Exported, Sealed), SetFailure> {
    use kaleem_core::backup::VaultError;
    let artifact = artifact.clone();
    match (exported, sealed, stored) {
        (Ok(exported), Ok(sealed), Ok(_)) => Ok((exported, sealed)),
        (Err(source), ..) if !matches!(source, SourceError::Output { .. }) => Err(SetFailure::Source { artifact, source }),
        (.., Err(source)) if !matches!(source, VaultError::Body { .. }) => {
            Err(SetFailure::Vault { doing: "write", set: set.clone(), source })
        }
        (_, Err(source), _) => Err(SetFailure::Seal { artifact, source }),
        (Err(source), ..) => Err(SetFailure::Source { artifact, source }),
        (.., Err(source)) => Err(SetFailure::Vault { doing: "write", set: set.clone(), source }),
    }
}

/// Ends when nothing was moved for `silence`.
async fn stalled(moved: &AtomicU64, silence: Duration) {
    let mut seen = moved.load(Ordering::Relaxed);
    loop {
        tokio::time::sleep(silence).await;
        let now = moved.load(Ordering::Relaxed);
        if now == seen {
            return;
        }
        seen = now;
    }
}

/// How this very set is recovered without kaleem.
fn instructions(manifest: &Manifest) -> String {
    use std::fmt::Write as _;
    let mut text = README.replace("{set}", manifest.set.as_str()).replace("{project}", manifest.project.as_str());
    for artifact in &manifest.artifacts {
        // Writing to a string does not fail.
        writeln!(text, "\n{} ({})", artifact.file, artifact.kind).ok();
        writeln!(text, "  check:   echo '{}  {}' | sha256sum -c", artifact.stored_sha256, artifact.file).ok();
        let plain = match artifact.encryption {
            kaleem_core::backup::Encryption::None => format!("zstd -dc {}", artifact.file),
            kaleem_core::backup::Encryption::AgePassphrase => format!("age -d {} | zstd -dc", artifact.file),
            _ => format!("age -d -i KEYFILE {} | zstd -dc", artifact.file),
        };
        let rest = match artifact.kind {
            kaleem_core::backup::SourceKind::Mongodb => "| mongorestore --archive".to_owned(),
            kaleem_core::backup::SourceKind::Redis => {
                let alone = "> dump.rdb   (then start a stopped Redis in that directory with appendonly no)";
                format!("{alone}\n  of a cluster: {plain} | tar -x   (one such file for each master; cluster.json says which slots it had)")
            }
            kaleem_core::backup::SourceKind::Files | kaleem_core::backup::SourceKind::Qdrant => "| tar -x".to_owned(),
            _ => format!("> {}", artifact.name),
        };
        writeln!(text, "  recover: {plain} {rest}").ok();
        writeln!(text, "  the plain bytes have sha256 {}", artifact.plain_sha256).ok();
    }
    text
}

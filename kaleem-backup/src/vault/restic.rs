//! A vault in a repository of restic, for people who have one: each object is a snapshot of one file, made and read by the
//! official program.
//!
//! The program sees the end of an object only when whoever makes it has said that it is whole; when its source fails, the program
//! is killed with its input still open, so there is no snapshot of a half. What restic reads back it compares with its own
//! digests. It gets the password by the name of a file alone. Space comes free by `restic prune`, which is left to its owner.
//!
//! A program that was killed leaves its lock, and one that was to be the only one leaves a lock that keeps everybody out. restic
//! itself tells such locks from those of programs that live; only those are removed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use kaleem_core::backup::{BackupVault, ByteStream, VaultEntry, VaultError, VaultPath, pipe};
use kaleem_core::clock::jittered;
use kaleem_core::exec::{self, ExecError, ExecRequest, PipedError};
use kaleem_core::secret::Secret;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::sync::Mutex;

use crate::words::shown;

/// The tag of all our snapshots, so that those of others are left alone.
const TAG: &str = "kaleem";
/// The tag of an object of no bytes: restic keeps none.
const EMPTY_TAG: &str = "kaleem-empty";
/// What the file in a snapshot is called before its path; paths hold no `+`.
const PREFIX: &str = "/kaleem+";
/// How restic says that it passes over a snapshot that it cannot read, up to 0.14 and after; it ends with success all the same.
const PASSED_OVER: [&str; 2] = ["could not load snapshot", "Ignoring \""];
/// Time for one object, and for one question.
const OBJECT: Duration = Duration::from_secs(24 * 3600);
const QUESTION: Duration = Duration::from_secs(900);
/// How often something is asked that another program is in the way of, and at least the time between: what a dead kaleem had begun ends soon.
const TRIES: u32 = 6;
const PAUSE: Duration = Duration::from_millis(500);
/// How restic ends, from version 0.17, and what all versions say then.
const LOCKED_CODE: i32 = 11;
const LOCKED: &str = "already locked";
/// How much of what the program says is kept: a listing is long.
const OUTPUT_BYTES: usize = 64 * 1024 * 1024;

/// Where a repository is, and how the program gets in. `Debug` shows the names of the environment alone.
#[derive(Clone)]
pub struct ResticSettings {
    /// The program, such as `restic`.
    pub program: PathBuf,
    /// The repository as restic wants it; it may hold a password.
    pub repository: Secret<String>,
    /// The file with the repository's password.
    pub password_file: PathBuf,
    /// Where the program keeps its cache.
    pub cache: PathBuf,
    /// Its environment beside that: `PATH`, and what the store behind the repository needs.
    pub environment: BTreeMap<String, String>,
}

impl fmt::Debug for ResticSettings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ResticSettings")
            .field("program", &self.program)
            .field("repository", &self.repository)
            .field("password_file", &self.password_file)
            .field("environment", &self.environment.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// A [`BackupVault`] in a repository of restic.
#[derive(Debug)]
pub struct ResticVault {
    settings: ResticSettings,
    place: String,
    /// One object at a time: restic has no way to write only what is absent. Whether locks of the dead were looked for.
    writing: Mutex<bool>,
}

#[derive(Deserialize)]
struct Snapshot {
    id: String,
    time: String,
    paths: Vec<String>,
    #[serde(default)]
    tags: Vec<String>,
}

#[derive(Deserialize)]
struct Found {
    snapshot: String,
    matches: Vec<FoundFile>,
}

#[derive(Deserialize)]
struct FoundFile {
    path: String,
    #[serde(default)]
    size: u64,
}

#[derive(Deserialize)]
struct Summary {
    message_type: String,
    #[serde(default)]
    total_bytes_processed: u64,
    #[serde(default)]
    snapshot_id: String,
}

fn name_of(path: &VaultPath) -> String {
    format!("{PREFIX}{}", path.as_str().replace('/', "+"))
}

fn path_of(name: &str) -> Option<VaultPath> {
    name.strip_prefix(PREFIX)?.replace('+', "/").parse().ok()
}

/// The repository without user and password.
fn place_of(repository: &str) -> String {
    let plain = match repository.split_once("//") {
        Some((scheme, rest)) => match rest.split_once('/').unwrap_or((rest, "")) {
            (host, path) if host.contains('@') => format!("{scheme}//{}/{path}", host.rsplit('@').next().unwrap_or_default()),
            _ => repository.to_owned(),
        },
        None => repository.to_owned(),
    };
    format!("restic {plain}")
}

/// Whether restic says that what it read is not what it wrote: texts of its `internal/repository` and `internal/crypto`.
fn tells_damage(stderr: &[u8]) -> bool {
    let text = String::from_utf8_lossy(stderr);
    ["ciphertext verification failed", "returned invalid hash", "invalid data returned"].iter().any(|words| text.contains(words))
}

/// Counts what goes through.
struct Counted {
    inner: ByteStream,
    bytes: Arc<AtomicU64>,
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = into.filled().len();
        ready!(self.inner.as_mut().poll_read(context, into))?;
        self.bytes.fetch_add((into.filled().len() - before) as u64, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl ResticVault {
    /// A vault in that repository, which must be there: `restic init` makes one. Nothing is asked yet.
    pub fn new(settings: ResticSettings) -> Self {
        let place = place_of(settings.repository.expose());
        Self { settings, place, writing: Mutex::new(false) }
    }

    fn request(&self, arguments: &[&str], timeout: Duration) -> ExecRequest {
        let mut environment = self.settings.environment.clone();
        for (name, value) in [
            ("RESTIC_REPOSITORY", self.settings.repository.expose().clone()),
            ("RESTIC_PASSWORD_FILE", self.settings.password_file.display().to_string()),
            ("RESTIC_CACHE_DIR", self.settings.cache.display().to_string()),
        ] {
            environment.insert(name.to_owned(), value);
        }
        ExecRequest {
            program: self.settings.program.clone(),
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            environment,
            stdin: None,
            directory: None,
            timeout,
            max_output_bytes: OUTPUT_BYTES,
        }
    }

    fn failed(&self, reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> VaultError {
        VaultError::Unreachable { place: self.place.clone(), source: reason.into() }
    }

    /// What it means that `doing` ended as it did.
    fn refused(&self, doing: &str, status: ExitStatus, stderr: &[u8]) -> VaultError {
        let reason = format!("`restic {doing}` ended with {status}: {}", self.said(stderr));
        if tells_damage(stderr) { VaultError::Damaged { place: self.place.clone(), reason } } else { self.failed(reason) }
    }

    /// What the program said, without what the address of the repository may hold.
    fn said(&self, stderr: &[u8]) -> String {
        shown(stderr).replace(self.settings.repository.expose().as_str(), &self.place)
    }

    /// Runs the program to its end; whatever is not success, or not all there is, is an error.
    async fn ask(&self, arguments: &[&str]) -> Result<Vec<u8>, VaultError> {
        match self.ask_for_some(arguments).await? {
            (answer, None) => Ok(answer),
            (_, Some(left_out)) => Err(left_out),
        }
    }

    /// Runs the program to its end: what it answers, and why that is not all, since restic passes over a snapshot that it cannot
    /// read. Whatever is not success is an error. A lock of a program that is gone is removed on the way.
    async fn ask_for_some(&self, arguments: &[&str]) -> Result<(Vec<u8>, Option<VaultError>), VaultError> {
        let request = self.request(arguments, QUESTION);
        let mut tries = 1;
        let ended = loop {
            let ended = exec::run(&request).await.map_err(|error| self.not_run(error))?;
            let is_locked = ended.status.code() == Some(LOCKED_CODE) || String::from_utf8_lossy(&ended.stderr).contains(LOCKED);
            // Where no lock can be removed, what restic said first says more.
            if ended.status.success() || !is_locked || tries == TRIES || self.unlock().await.is_err() {
                break ended;
            }
            if tries > 1 {
                tokio::time::sleep(jittered(2 * PAUSE)).await;
            }
            tries += 1;
        };
        let doing = arguments.first().copied().unwrap_or_default();
        if !ended.status.success() {
            return Err(self.refused(doing, ended.status, &ended.stderr));
        }
        if ended.truncated {
            return Err(self.failed(format!("`restic {doing}` said more than could be kept")));
        }
        let left_out = PASSED_OVER.iter().any(|words| String::from_utf8_lossy(&ended.stderr).contains(words));
        let left_out = left_out.then(|| self.refused(doing, ended.status, &ended.stderr));
        Ok((ended.stdout, left_out))
    }

    /// Removes the locks of programs that are gone: one that was killed leaves its own.
    async fn unlock(&self) -> Result<(), VaultError> {
        let ended = exec::run(&self.request(&["unlock"], QUESTION)).await.map_err(|error| self.not_run(error))?;
        if ended.status.success() {
            return Ok(());
        }
        Err(self.refused("unlock", ended.status, &ended.stderr))
    }

    fn not_run(&self, error: ExecError) -> VaultError {
        self.failed(error)
    }

    fn parsed<T: for<'de> Deserialize<'de>>(&self, doing: &str, text: &[u8]) -> Result<T, VaultError> {
        serde_json::from_slice(text).map_err(|error| self.failed(format!("the answer of `restic {doing}` cannot be read: {error}")))
    }

    /// All our snapshots, or those of one object.
    async fn snapshots(&self, path: Option<&VaultPath>) -> Result<Vec<Snapshot>, VaultError> {
        match self.readable_snapshots(path).await? {
            (found, None) => Ok(found),
            (_, Some(left_out)) => Err(left_out),
        }
    }

    /// Our snapshots that can be read, oldest first, and why they are not all.
    async fn readable_snapshots(&self, path: Option<&VaultPath>) -> Result<(Vec<Snapshot>, Option<VaultError>), VaultError> {
        let name = path.map(name_of);
        let mut arguments = vec!["snapshots", "--json", "--tag", TAG];
        if let Some(name) = &name {
            arguments.extend(["--path", name]);
        }
        let (answer, left_out) = self.ask_for_some(&arguments).await?;
        let mut found: Vec<Snapshot> = self.parsed("snapshots", &answer)?;
        found.sort_by(|one, two| (&one.time, &one.id).cmp(&(&two.time, &two.id)));
        Ok((found, left_out))
    }

    async fn forget(&self, snapshots: &[String]) -> Result<(), VaultError> {
        if snapshots.is_empty() {
            return Ok(());
        }
        self.unlock().await?;
        let mut arguments = vec!["forget"];
        arguments.extend(snapshots.iter().map(String::as_str));
        self.ask(&arguments).await.map(|_| ())
    }

    /// Stores what `body` holds; answers the snapshot and how long it is.
    async fn store(&self, path: &VaultPath, mut body: ByteStream) -> Result<(String, u64), VaultError> {
        let broken = |source| VaultError::Body { path: path.clone(), source };
        let mut first = vec![0; 64 * 1024];
        let read = body.read(&mut first).await.map_err(broken)?;
        first.truncate(read);
        let bytes = Arc::new(AtomicU64::new(0));
        let (body, empty): (ByteStream, bool) = if read == 0 {
            (Box::pin(std::io::Cursor::new(b"-".to_vec())), true)
        } else {
            (Box::pin(std::io::Cursor::new(first).chain(body)), false)
        };
        let counted = Box::pin(Counted { inner: body, bytes: bytes.clone() });
        let name = name_of(path);
        let mut arguments = vec!["backup", "--quiet", "--json", "--stdin", "--stdin-filename", name.trim_start_matches('/'), "--tag", TAG];
        if empty {
            arguments.extend(["--tag", EMPTY_TAG]);
        }
        let request = self.request(&arguments, OBJECT);
        let (mut sender, mut reader) = pipe();
        let running = async {
            let ended = exec::run_piped(&request, Some(counted), &mut sender).await;
            // Nothing more is said; what was said is whole when the program ended.
            sender.finish().await.ok();
            ended
        };
        let mut told = Vec::new();
        let (ended, _) = tokio::join!(running, reader.read_to_end(&mut told));
        let ended = ended.map_err(|error| match error {
            PipedError::Input { source, .. } => broken(source),
            PipedError::Exec(error) => self.not_run(error),
            other => self.failed(other),
        })?;
        if !ended.status.success() {
            return Err(self.refused("backup", ended.status, &ended.stderr));
        }
        let mut lines = told.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Summary>(line).ok());
        let summary = lines.find(|line| line.message_type == "summary");
        let Some(summary) = summary else { return Err(self.failed("`restic backup` did not say which snapshot it made")) };
        let length = bytes.load(Ordering::Relaxed);
        if summary.total_bytes_processed != length {
            self.forget(&[summary.snapshot_id]).await?;
            return Err(self.failed(format!("restic stored {} bytes of {length}", summary.total_bytes_processed)));
        }
        Ok((summary.snapshot_id, if empty { 0 } else { length }))
    }
}

#[async_trait]
impl BackupVault for ResticVault {
    fn place(&self) -> String {
        self.place.clone()
    }

    async fn put_if_absent(&self, path: &VaultPath, body: ByteStream) -> Result<u64, VaultError> {
        let exists = || VaultError::Exists { place: self.place.clone(), path: path.clone() };
        let mut looked_for_locks = self.writing.lock().await;
        if !*looked_for_locks {
            // They do not keep us out, but whoever prunes. Where none can be removed, there is still a vault.
            self.unlock().await.ok();
            *looked_for_locks = true;
        }
        if !self.snapshots(Some(path)).await?.is_empty() {
            return Err(exists());
        }
        let (snapshot, length) = self.store(path, body).await?;
        // Another host may have written it meanwhile. Whoever sees two takes its own away: at most one of the two says `Ok`.
        let there = self.snapshots(Some(path)).await?;
        if !there.iter().any(|one| one.id.starts_with(&snapshot)) {
            return Err(self.failed(format!("restic made the snapshot {snapshot}, and does not list it")));
        }
        if there.len() > 1 {
            self.forget(&[snapshot]).await?;
            return Err(exists());
        }
        Ok(length)
    }

    async fn get(&self, path: &VaultPath) -> Result<ByteStream, VaultError> {
        // What is found can be had, whatever else is damaged; what is not found may be what was passed over.
        let (found, left_out) = self.readable_snapshots(Some(path)).await?;
        let Some(snapshot) = found.into_iter().next() else {
            return Err(left_out.unwrap_or_else(|| VaultError::Missing { place: self.place.clone(), path: path.clone() }));
        };
        if snapshot.tags.iter().any(|tag| tag == EMPTY_TAG) {
            return Ok(Box::pin(tokio::io::empty()));
        }
        let request = self.request(&["dump", &snapshot.id, &name_of(path)], OBJECT);
        let (mut sender, reader) = pipe();
        let (place, repository) = (self.place.clone(), self.settings.repository.clone());
        tokio::spawn(async move {
            match exec::run_piped(&request, None, &mut sender).await {
                Ok(ended) if ended.status.success() => drop(sender.finish().await),
                Ok(ended) => {
                    let said = shown(&ended.stderr).replace(repository.expose().as_str(), &place);
                    let kind = if tells_damage(&ended.stderr) { ErrorKind::InvalidData } else { ErrorKind::Other };
                    sender.fail(std::io::Error::new(kind, format!("`restic dump` ended with {}: {said}", ended.status))).await;
                }
                Err(error) => sender.fail(std::io::Error::other(kaleem_core::remedy::one_line(&error))).await,
            }
        });
        Ok(Box::pin(reader))
    }

    async fn list(&self, prefix: &VaultPath) -> Result<Vec<VaultEntry>, VaultError> {
        let snapshots = self.snapshots(None).await?;
        if snapshots.is_empty() {
            return Ok(Vec::new());
        }
        // A snapshot does not say how long its file is; one more question tells that of all.
        let pattern = format!("{}*", PREFIX.trim_start_matches('/'));
        let found: Vec<Found> = self.parsed("find", &self.ask(&["find", "--json", "--tag", TAG, &pattern]).await?)?;
        let sizes: BTreeMap<(String, String), u64> = found
            .into_iter()
            .flat_map(|found| found.matches.into_iter().map(move |file| ((found.snapshot.clone(), file.path), file.size)))
            .collect();
        let below = format!("{prefix}/");
        let (mut entries, mut seen) = (Vec::new(), BTreeSet::new());
        for snapshot in snapshots {
            let foreign = || VaultError::Foreign { place: self.place.clone(), what: format!("the snapshot {}", snapshot.id) };
            let [name] = snapshot.paths.as_slice() else { return Err(foreign()) };
            let path = path_of(name).ok_or_else(foreign)?;
            if (path != *prefix && !path.as_str().starts_with(&below)) || !seen.insert(path.clone()) {
                continue;
            }
            let size_bytes = match sizes.get(&(snapshot.id.clone(), name.clone())) {
                Some(_) if snapshot.tags.iter().any(|tag| tag == EMPTY_TAG) => 0,
                Some(size) => *size,
                // What is there and cannot be looked at makes the listing no listing.
                None => return Err(self.failed(format!("restic lists the snapshot {} and does not find its file", snapshot.id))),
            };
            entries.push(VaultEntry { path, size_bytes });
        }
        entries.sort();
        Ok(entries)
    }

    async fn delete(&self, path: &VaultPath) -> Result<(), VaultError> {
        let there: Vec<String> = self.snapshots(Some(path)).await?.into_iter().map(|snapshot| snapshot.id).collect();
        self.forget(&there).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_shows_no_password_and_names_lead_back_to_their_paths() {
        for (repository, place) in [
            ("/srv/repository", "restic /srv/repository"),
            ("rest:https://user:hunter2@host:8000/shop", "restic rest:https://host:8000/shop"),
            ("s3:https://s3.example.org/bucket/a@b", "restic s3:https://s3.example.org/bucket/a@b"),
            ("rest:https://user:hunter2@host", "restic rest:https://host/"),
        ] {
            assert_eq!(place_of(repository), place);
        }
        let path: VaultPath = "sets/20260301t120000z-0a0b0c0d/a-b_c.zst".parse().unwrap();
        assert_eq!(name_of(&path), "/kaleem+sets+20260301t120000z-0a0b0c0d+a-b_c.zst");
        assert_eq!(path_of(&name_of(&path)), Some(path));
        assert_eq!(path_of("/home"), None);
    }
}

//! A vault in a directory: an object is there in whole and on disk, or it is not there.
//!
//! An object is written beside its place, synced, and linked into its place without replacing anything; then its
//! directory is synced. What a death leaves behind bears a name that is never listed, and goes with the set that it is of:
//! whoever writes holds a lock on it, which ends with its process.

use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use kaleem_core::backup::{BackupVault, ByteStream, VaultEntry, VaultError, VaultPath, pipe};
use kaleem_core::durable::{self, DurableError, FileOperation, PRIVATE_DIRECTORY};
use rustix::fs::{FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const CHUNK_BYTES: usize = 512 * 1024;
// The names of unfinished writes that `durable` knows, too.
const UNFINISHED_PREFIX: &str = ".kaleem-";
const UNFINISHED_SUFFIX: &str = ".tmp";

/// A [`BackupVault`] in a directory of its own.
#[derive(Debug, Clone)]
pub struct LocalVault {
    root: PathBuf,
}

struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // It may have been moved into its place; what stays is not listed.
        rustix::fs::unlink(&self.0).ok();
    }
}

impl LocalVault {
    /// The vault in `root`, which is made (mode 0700) when it is not there.
    ///
    /// # Errors
    /// [`DurableError`] when it cannot be made.
    pub fn open(root: &Path) -> Result<Self, DurableError> {
        durable::create_directory(root, PRIVATE_DIRECTORY)?;
        Ok(Self { root: root.to_owned() })
    }

    fn file(&self, path: &VaultPath) -> PathBuf {
        self.root.join(path.as_str())
    }

    fn disk(&self, path: &VaultPath) -> impl Fn(DurableError) -> VaultError {
        let (place, path) = (self.place(), path.clone());
        move |source| VaultError::Disk { place: place.clone(), path: path.clone(), source }
    }

    fn io(&self, path: &VaultPath, operation: FileOperation) -> impl Fn(io::Error) -> VaultError {
        let (file, wrap) = (self.file(path), self.disk(path));
        move |source| wrap(DurableError::Failed { operation, path: file.clone(), source })
    }

    fn exists(&self, path: &VaultPath) -> VaultError {
        VaultError::Exists { place: self.place(), path: path.clone() }
    }

    fn walk(&self, directory: &Path, prefix: &str, found: &mut Vec<VaultEntry>) -> Result<(), Walk> {
        for entry in std::fs::read_dir(directory).map_err(Walk::Failed)? {
            let entry = entry.map_err(Walk::Failed)?;
            let Ok(name) = entry.file_name().into_string() else {
                return Err(Walk::Foreign(entry.path().display().to_string()));
            };
            if is_unfinished(&name) {
                continue;
            }
            let path = format!("{prefix}/{name}");
            // Does not follow links.
            let metadata = match entry.metadata() {
                // Removed since the directory was read: then it is rightly not listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                metadata => metadata.map_err(Walk::Failed)?,
            };
            if metadata.is_dir() {
                match self.walk(&entry.path(), &path, found) {
                    Err(Walk::Failed(error)) if error.kind() == io::ErrorKind::NotFound => (),
                    walked => walked?,
                }
                continue;
            }
            match path.parse() {
                Ok(path) if metadata.is_file() => found.push(VaultEntry { path, size_bytes: metadata.len() }),
                _ => return Err(Walk::Foreign(entry.path().display().to_string())),
            }
        }
        Ok(())
    }
}

fn is_unfinished(name: &str) -> bool {
    name.starts_with(UNFINISHED_PREFIX) && name.ends_with(UNFINISHED_SUFFIX)
}

/// How the names of this process begin.
fn own_prefix() -> String {
    format!("{UNFINISHED_PREFIX}{:x}-", std::process::id())
}

/// Removes from a directory what writers left there that are dead. One that lives holds its lock.
fn sweep(directory: &Path) {
    // What cannot be removed now is tried again with the next removal, and is never listed.
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        // Those of this process end with it or before, and one may not have its lock yet.
        if !entry.file_name().to_str().is_some_and(|name| is_unfinished(name) && !name.starts_with(&own_prefix())) {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        if let Ok(opened) = rustix::fs::open(entry.path(), flags, Mode::empty())
            && rustix::fs::flock(&opened, FlockOperation::NonBlockingLockShared).is_ok()
        {
            rustix::fs::unlink(entry.path()).ok();
        }
    }
}

enum Walk {
    Failed(io::Error),
    Foreign(String),
}

fn place_without_replacing(from: &Path, to: &Path) -> Result<(), Errno> {
    match rustix::fs::link(from, to) {
        // Some file systems have no hard links.
        Err(Errno::PERM | Errno::OPNOTSUPP | Errno::MLINK | Errno::NOSYS) => {
            rustix::fs::renameat_with(rustix::fs::CWD, from, rustix::fs::CWD, to, RenameFlags::NOREPLACE)
        }
        result => result,
    }
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    let opened = rustix::fs::open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(rustix::fs::fsync(opened)?)
}

#[async_trait]
impl BackupVault for LocalVault {
    fn place(&self) -> String {
        self.root.display().to_string()
    }

    async fn put_if_absent(&self, path: &VaultPath, mut body: ByteStream) -> Result<u64, VaultError> {
        let file = self.file(path);
        let failed = self.io(path, FileOperation::Write);
        let directory = file.parent().unwrap_or(&self.root).to_owned();
        if file.symlink_metadata().is_ok() {
            return Err(self.exists(path));
        }
        durable::create_directory(&directory, PRIVATE_DIRECTORY).map_err(self.disk(path))?;
        let digits = crate::random::digits::<8>().map_err(&failed)?;
        let temporary = directory.join(format!("{}{digits}{UNFINISHED_SUFFIX}", own_prefix()));
        let mut options = tokio::fs::OpenOptions::new();
        options.write(true).create_new(true).mode(durable::PRIVATE_FILE);
        let mut output = options.open(&temporary).await.map_err(&failed)?;
        let unfinished = Unfinished(temporary.clone());
        match rustix::fs::flock(&output, FlockOperation::NonBlockingLockExclusive) {
            // A file system without locks keeps what a death leaves, as nobody can tell it from what is being written.
            Ok(()) | Err(Errno::NOTSUP | Errno::NOSYS | Errno::NOLCK) => (),
            Err(errno) => return Err(failed(errno.into())),
        }
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut length = 0_u64;
        loop {
            let read = body.read(&mut chunk).await.map_err(|source| VaultError::Body { path: path.clone(), source })?;
            if read == 0 {
                break;
            }
            output.write_all(chunk.get(..read).unwrap_or_default()).await.map_err(&failed)?;
            length += read as u64;
        }
        output.flush().await.map_err(&failed)?;
        output.sync_all().await.map_err(&failed)?;
        drop(output);
        match place_without_replacing(&temporary, &file) {
            Ok(()) => (),
            Err(Errno::EXIST) => return Err(self.exists(path)),
            Err(errno) => return Err(failed(errno.into())),
        }
        drop(unfinished);
        sync_directory(&directory).map_err(&failed)?;
        // A set that was begun again after a death has its files beside what that left.
        sweep(&directory);
        Ok(length)
    }

    async fn get(&self, path: &VaultPath) -> Result<ByteStream, VaultError> {
        let file = self.file(path);
        let failed = self.io(path, FileOperation::Read);
        let missing = || VaultError::Missing { place: self.place(), path: path.clone() };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = match rustix::fs::open(&file, flags, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Err(missing()),
            opened => std::fs::File::from(opened.map_err(|errno| failed(errno.into()))?),
        };
        let metadata = opened.metadata().map_err(&failed)?;
        if metadata.is_dir() {
            return Err(missing());
        }
        if !metadata.is_file() {
            return Err(VaultError::Foreign { place: self.place(), what: format!("{path} is no plain file") });
        }
        let (mut sender, reader) = pipe();
        tokio::task::spawn_blocking(move || {
            // A reader that is gone need not be told anything.
            let mut opened = opened;
            let mut chunk = vec![0; CHUNK_BYTES];
            loop {
                match io::Read::read(&mut opened, &mut chunk) {
                    Ok(0) => return sender.finish_blocking().ok(),
                    Ok(read) => sender.send_blocking(chunk.get(..read).unwrap_or_default()).ok()?,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                    Err(error) => {
                        sender.fail_blocking(error);
                        return None;
                    }
                }
            }
        });
        Ok(Box::pin(reader))
    }

    async fn list(&self, prefix: &VaultPath) -> Result<Vec<VaultEntry>, VaultError> {
        let failed = self.io(prefix, FileOperation::List);
        // A vault whose disk is not mounted is not an empty vault.
        std::fs::metadata(&self.root).map_err(&failed)?;
        let start = self.file(prefix);
        let mut found = Vec::new();
        match start.symlink_metadata() {
            Ok(metadata) if metadata.is_file() => found.push(VaultEntry { path: prefix.clone(), size_bytes: metadata.len() }),
            Ok(metadata) if metadata.is_dir() => match self.walk(&start, prefix.as_str(), &mut found) {
                Ok(()) => (),
                Err(Walk::Failed(error)) => return Err(failed(error)),
                Err(Walk::Foreign(what)) => return Err(VaultError::Foreign { place: self.place(), what }),
            },
            Ok(_) => return Err(VaultError::Foreign { place: self.place(), what: start.display().to_string() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound || error.kind() == io::ErrorKind::NotADirectory => (),
            Err(error) => return Err(failed(error)),
        }
        found.sort();
        Ok(found)
    }

    async fn delete(&self, path: &VaultPath) -> Result<(), VaultError> {
        let file = self.file(path);
        durable::remove(&file).map_err(self.disk(path))?;
        if let Some(directory) = file.parent() {
            sweep(directory);
        }
        // A directory that is not empty stays, and one that stays empty is not listed.
        for directory in file.ancestors().skip(1).take_while(|directory| *directory != self.root) {
            if rustix::fs::rmdir(directory).is_err() {
                break;
            }
        }
        Ok(())
    }
}

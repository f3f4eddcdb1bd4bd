//! Unpacking a tree beside its place, and exchanging the two.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, FlockOperation, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::format::tree::{Entry, Shape, copy};

/// First part of the name of a directory beside.
const MARK: &str = ".kaleem-restore-";

/// A directory beside another, removed with everything in it when it is dropped; one of a process that was killed goes with the next.
pub(super) struct Beside {
    path: PathBuf,
    /// Locked as long as somebody fills it: what is left of a killed process is not.
    _lock: File,
}

impl Beside {
    pub(super) fn new(place: &Path) -> io::Result<Self> {
        let name = place.file_name().ok_or_else(|| io::Error::other("it has no name"))?;
        remove_left_behind(place, name);
        let mut beside = OsString::from(MARK);
        beside.push(crate::random::digits::<6>()?);
        beside.push("-");
        beside.push(name);
        let path = place.with_file_name(beside);
        rustix::fs::mkdir(&path, Mode::RWXU)?;
        let lock = File::open(&path)?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { path, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts it in the place of the other, which is then beside and goes. Mode and owner of the place stay.
    pub(super) fn exchange(self, place: &Path) -> io::Result<()> {
        rustix::fs::syncfs(File::open(&self.path)?)?;
        match rustix::fs::statat(CWD, place, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(old) => {
                rustix::fs::chownat(CWD, &self.path, Some(Uid::from_raw(old.st_uid)), Some(Gid::from_raw(old.st_gid)), AtFlags::empty())?;
                rustix::fs::chmodat(CWD, &self.path, Mode::from_raw_mode(old.st_mode & 0o7777), AtFlags::empty())?;
                rustix::fs::renameat_with(CWD, &self.path, CWD, place, RenameFlags::EXCHANGE)?;
            }
            Err(Errno::NOENT) => rustix::fs::renameat_with(CWD, &self.path, CWD, place, RenameFlags::NOREPLACE)?,
            Err(errno) => return Err(errno.into()),
        }
        File::open(parent_of(place))?.sync_all()
    }
}

/// Removes what killed processes left beside this place; what cannot be removed has a name that says what it is.
fn remove_left_behind(place: &Path, name: &OsStr) {
    for entry in std::fs::read_dir(parent_of(place)).into_iter().flatten().flatten() {
        let theirs = entry.file_name();
        let digits = theirs
            .as_encoded_bytes()
            .strip_prefix(MARK.as_bytes())
            .and_then(|rest| rest.strip_suffix(name.as_encoded_bytes()))
            .and_then(|rest| rest.strip_suffix(b"-"));
        let is_ours = digits.is_some_and(|digits| digits.len() == 12 && digits.iter().all(u8::is_ascii_hexdigit));
        let nobody_fills_it = || {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::open(entry.path(), flags, Mode::empty())
                .is_ok_and(|directory| rustix::fs::flock(directory, FlockOperation::NonBlockingLockExclusive).is_ok())
        };
        if is_ours && nobody_fills_it() {
            std::fs::remove_dir_all(entry.path()).ok();
        }
    }
}

fn parent_of(place: &Path) -> &Path {
    place.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

impl Drop for Beside {
    fn drop(&mut self) {
        // What cannot be removed has a name that says what it is.
        std::fs::remove_dir_all(&self.path).ok();
    }
}

/// Mode and owner of directories, which are set once nothing more is put into them.
#[derive(Clone, Default)]
pub(super) struct Later(Arc<Mutex<Vec<Entry>>>);

impl Later {
    pub(super) fn directories(&self, root: &Path) -> io::Result<()> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Inner ones first: an outer one may then not be entered any more.
        for entry in entries.iter().rev() {
            attributes(&root.join(&entry.path), entry)?;
        }
        Ok(())
    }
}

/// Places entries below a directory that nobody else writes to.
pub(super) struct Unpacking {
    root: PathBuf,
    later: Later,
}

impl Unpacking {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), later: Later::default() }
    }

    pub(super) fn later(&self) -> Later {
        self.later.clone()
    }

    pub(super) fn place(&mut self, entry: &Entry, content: &mut dyn Read) -> io::Result<(u64, [u8; 32])> {
        let path = self.root.join(&entry.path);
        if path == self.root {
            return copy(content, |_| Ok(()));
        }
        self.parents_are_directories(&entry.path)?;
        let mut written = (0, [0; 32]);
        match &entry.shape {
            Shape::Directory => {
                rustix::fs::mkdir(&path, Mode::RWXU)?;
                self.later.0.lock().unwrap_or_else(PoisonError::into_inner).push(entry.clone());
            }
            Shape::File { .. } => {
                written = write(&path, content)?;
                attributes(&path, entry)?;
            }
            Shape::Symlink(target) => {
                rustix::fs::symlink(target, &path)?;
                owner(&path, entry)?;
            }
            Shape::Hardlink(target) => {
                self.parents_are_directories(target)?;
                rustix::fs::linkat(CWD, self.root.join(target), CWD, &path, AtFlags::empty())?;
            }
        }
        Ok(written)
    }

    /// A link that came earlier must not lead a later entry out of the tree.
    fn parents_are_directories(&self, path: &Path) -> io::Result<()> {
        for parent in path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
            if !self.root.join(parent).symlink_metadata()?.is_dir() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} is no directory", parent.display())));
            }
        }
        Ok(())
    }
}

/// Writes a new file; long runs of nothing stay holes.
fn write(path: &Path, content: &mut dyn Read) -> io::Result<(u64, [u8; 32])> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?);
    let written = copy(content, |bytes| {
        if bytes.len() >= 4096 && bytes.iter().all(|byte| *byte == 0) {
            return file.seek(SeekFrom::Current(i64::try_from(bytes.len()).unwrap_or(0))).map(|_| ());
        }
        file.write_all(bytes)
    })?;
    file.set_len(written.0)?;
    Ok(written)
}

fn owner(path: &Path, entry: &Entry) -> io::Result<()> {
    let id = |id: u64| u32::try_from(id).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "an owner is no number of a user"));
    let (uid, gid) = (Uid::from_raw(id(entry.uid)?), Gid::from_raw(id(entry.gid)?));
    Ok(rustix::fs::chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Owner first, since changing it takes away set-user-id bits and capabilities; time last.
fn attributes(path: &Path, entry: &Entry) -> io::Result<()> {
    owner(path, entry)?;
    rustix::fs::chmodat(CWD, path, Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
    for (name, value) in &entry.xattrs {
        rustix::fs::lsetxattr(path, name.as_str(), value, XattrFlags::empty())?;
    }
    let time = Timespec { tv_sec: i64::try_from(entry.modified).unwrap_or(0), tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

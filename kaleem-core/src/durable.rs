//! The one door to files that must survive a crash: a write is there in whole after it returned, or it is not there.
//!
//! Files get exactly the mode that is asked for, whatever the umask. A symbolic link in the place of a file is never
//! followed when writing: somebody could point it elsewhere. The functions block for as long as the disk takes; they are
//! short, but an async caller that must not wait hands them to `spawn_blocking`. Nothing here knows what a file means.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::remedy::Remedy;

mod append;
pub mod power;

pub use append::AppendFile;

/// Mode of files that nobody else may read.
pub const PRIVATE_FILE: u32 = 0o600;
/// Mode of directories that nobody else may enter.
pub const PRIVATE_DIRECTORY: u32 = 0o700;

const TEMPORARY_PREFIX: &str = ".kaleem-";
const TEMPORARY_SUFFIX: &str = ".tmp";

/// What was being done when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileOperation {
    /// Reading a file.
    Read,
    /// Writing a file, or adding to it.
    Write,
    /// Shortening a file.
    Truncate,
    /// Making a directory.
    CreateDirectory,
    /// Reading the names in a directory.
    List,
    /// Removing a file.
    Remove,
    /// Moving a file.
    Move,
    /// Changing who may read it.
    SetMode,
}

impl fmt::Display for FileOperation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Truncate => "shorten",
            Self::CreateDirectory => "make the directory",
            Self::List => "list",
            Self::Remove => "remove",
            Self::Move => "move",
            Self::SetMode => "change the mode of",
        })
    }
}

/// Why a file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DurableError {
    /// It is not there; nothing was changed.
    #[error("there is no {}", path.display())]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// It is there already, and was to be new; it was not touched.
    #[error("{} exists already", path.display())]
    Exists {
        /// The path.
        path: PathBuf,
    },
    /// Something that is no plain file stands in its place; it was not touched.
    #[error("{} is {found}, not a plain file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What it is, with its article.
        found: &'static str,
    },
    /// A line that was to be appended holds a line break; nothing was written.
    #[error("a bug: a line for {} holds a line break", path.display())]
    LineBreak {
        /// The path.
        path: PathBuf,
    },
    /// An earlier write to this file failed, so what is on disk is unknown until it is opened and read again.
    #[error("{} is not written any more since an earlier write to it failed", path.display())]
    Poisoned {
        /// The path.
        path: PathBuf,
    },
    /// The system refused. A file that was to be replaced is the old one or, if only the last sync failed, the new one.
    #[error("could not {operation} {}", path.display())]
    Failed {
        /// What was being done.
        operation: FileOperation,
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl DurableError {
    /// Whether it failed only because there is nothing at the path.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }
}

impl Remedy for DurableError {
    fn remedy(&self) -> String {
        match self {
            Self::Missing { path } => format!("check that {} is the right path", path.display()),
            Self::Exists { path } => format!("look whether another kaleem uses {}, then run the same command", path.display()),
            Self::NotAFile { path, .. } => format!("move {} out of the way", path.display()),
            Self::LineBreak { .. } => "report it: it is a fault of kaleem".to_owned(),
            Self::Poisoned { .. } => "mend what made the first write fail, then run `kaleem resume`".to_owned(),
            Self::Failed { path, source, .. } => {
                remedy_of(path, source).unwrap_or_else(|| format!("check {} and the file system it is on", path.display()))
            }
        }
    }
}

/// What to do where the operating system refused a file, if its reason tells.
pub(crate) fn remedy_of(path: &Path, source: &io::Error) -> Option<String> {
    let path = path.display();
    Some(match Errno::from_io_error(source)? {
        Errno::NOSPC => format!("free some space on the file system of {path}, then run the same command"),
        Errno::DQUOT => format!("raise the disk quota of this user for {path}, or free some of it"),
        Errno::ROFS => format!("remount the file system of {path} for writing; see `dmesg` for why it is not"),
        Errno::ACCESS | Errno::PERM => format!("run as the user that owns {path}, or give this user access to it"),
        Errno::IO => format!("check the disk of {path}: see `dmesg`"),
        _ => return None,
    })
}

/// Writes a file in whole, in place of the one that may be there.
///
/// A reader sees the old or the new content, never a mix, also after a loss of power. `mode` is the file's mode, such as
/// [`PRIVATE_FILE`].
///
/// # Errors
///
/// [`DurableError::NotAFile`] when the path is a symbolic link or anything else that is no plain file;
/// [`DurableError::Failed`], after which the old content is still there, unless only the very last sync failed.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<(), DurableError> {
    let failed = failure(FileOperation::Write, path);
    refuse_special(path)?;
    let temporary = Temporary::write(path, bytes, mode, File::sync_all).map_err(&failed)?;
    rustix::fs::rename(&temporary.path, path).map_err(|errno| failed(errno.into()))?;
    temporary.keep();
    sync_parent(path).map_err(failed)
}

/// Writes several files of one directory in whole, those that do not hold these bytes already. The mode of each is [`PRIVATE_FILE`].
///
/// All of them are on disk afterwards. A reader of one sees the old or the new content, never a mix, also after a loss of power.
///
/// # Errors
///
/// As [`write_atomic`]; some of the files may have been written.
pub fn write_missing(directory: &Path, files: &[(String, Vec<u8>)]) -> Result<(), DurableError> {
    for (name, bytes) in files {
        let path = directory.join(name);
        refuse_special(&path)?;
        match read(&path) {
            Ok(found) if found == *bytes => continue,
            Err(error) if !error.is_missing() => return Err(error),
            Ok(_) | Err(_) => {}
        }
        let failed = failure(FileOperation::Write, &path);
        let temporary = Temporary::write(&path, bytes, PRIVATE_FILE, File::sync_all).map_err(&failed)?;
        rustix::fs::rename(&temporary.path, &path).map_err(|errno| failed(errno.into()))?;
        temporary.keep();
    }
    // Whoever wrote one that is there may have died before its sync; of a directory that is on disk the kernel knows it.
    open(directory, OFlags::RDONLY | OFlags::DIRECTORY)
        .and_then(|directory| directory.sync_all())
        .map_err(failure(FileOperation::Write, directory))
}

/// Writes a file in whole, in place of the one that may be there, without waiting for the disk: for what means nothing after a loss of power.
///
/// A reader sees the old or the new content, never a mix. After a loss of power the file may be the old one, empty, or gone.
///
/// # Errors
///
/// As [`write_atomic`].
pub fn write_fleeting(path: &Path, bytes: &[u8], mode: u32) -> Result<(), DurableError> {
    let failed = failure(FileOperation::Write, path);
    refuse_special(path)?;
    let temporary = Temporary::write(path, bytes, mode, |_| Ok(())).map_err(&failed)?;
    rustix::fs::rename(&temporary.path, path).map_err(|errno| failed(errno.into()))?;
    temporary.keep();
    Ok(())
}

/// Removes what [`write_fleeting`] wrote, without waiting for the disk; a file that is gone already is no error.
///
/// # Errors
///
/// [`DurableError::Failed`], after which the file is still there.
pub fn remove_fleeting(path: &Path) -> Result<(), DurableError> {
    match rustix::fs::unlink(path) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(failure(FileOperation::Remove, path)(errno.into())),
    }
}

/// Writes a file in whole, if nothing is at that path yet.
///
/// Of several that try at once, one succeeds. The mode is [`PRIVATE_FILE`].
///
/// # Errors
///
/// [`DurableError::Exists`] when anything is there; [`DurableError::Failed`], after which there is no such file, unless only
/// the very last sync failed.
pub fn create_new(path: &Path, bytes: &[u8]) -> Result<(), DurableError> {
    let failed = failure(FileOperation::Write, path);
    let temporary = Temporary::write(path, bytes, PRIVATE_FILE, File::sync_all).map_err(&failed)?;
    let placed = match rustix::fs::link(&temporary.path, path) {
        // Some file systems have no hard links.
        Err(Errno::PERM | Errno::OPNOTSUPP | Errno::MLINK | Errno::NOSYS) => {
            let here = rustix::fs::CWD;
            rustix::fs::renameat_with(here, &temporary.path, here, path, RenameFlags::NOREPLACE)
        }
        result => result,
    };
    drop(temporary);
    match placed {
        Ok(()) => sync_parent(path).map_err(failed),
        Err(Errno::EXIST) => Err(DurableError::Exists { path: path.to_owned() }),
        Err(errno) => Err(failed(errno.into())),
    }
}

/// Reads a file in whole.
///
/// # Errors
///
/// [`DurableError::Missing`], [`DurableError::NotAFile`], [`DurableError::Failed`].
pub fn read(path: &Path) -> Result<Vec<u8>, DurableError> {
    let failed = failure(FileOperation::Read, path);
    // Without NONBLOCK, opening a named pipe would wait for a writer.
    let mut file = open(path, OFlags::RDONLY | OFlags::NONBLOCK).map_err(&failed)?;
    check_plain(path, &file).map_err(&failed)??;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Removes a file; one that is gone already is no error.
///
/// # Errors
///
/// [`DurableError::Failed`], after which the file is still there, unless only the last sync failed.
pub fn remove(path: &Path) -> Result<(), DurableError> {
    let failed = failure(FileOperation::Remove, path);
    match rustix::fs::unlink(path) {
        Ok(()) => sync_parent(path).map_err(failed),
        // An earlier removal may not have been synced: a crash in between would bring the file back.
        Err(Errno::NOENT) => match sync_parent(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(()),
        },
        Err(errno) => Err(failed(errno.into())),
    }
}

/// Moves a file into another directory of the same file system, which must be there. It keeps its name, with a number behind
/// it where that is taken. Answers where it is now.
///
/// # Errors
///
/// [`DurableError::Missing`], [`DurableError::Failed`], after which it is where it was, unless only the last sync failed.
pub fn move_into(path: &Path, directory: &Path) -> Result<PathBuf, DurableError> {
    let failed = failure(FileOperation::Move, path);
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let here = rustix::fs::CWD;
    let mut number = 0_u32;
    loop {
        let to = directory.join(if number == 0 { name.clone() } else { format!("{name}.{number}") });
        match rustix::fs::renameat_with(here, path, here, &to, RenameFlags::NOREPLACE) {
            Ok(()) => {
                sync_parent(&to).and_then(|()| sync_parent(path)).map_err(failed)?;
                return Ok(to);
            }
            Err(Errno::EXIST) => number += 1,
            Err(errno) => return Err(failed(errno.into())),
        }
    }
}

/// Gives a file or a directory exactly this mode.
///
/// # Errors
///
/// [`DurableError::Missing`], [`DurableError::NotAFile`] for a symbolic link, [`DurableError::Failed`].
pub fn set_mode(path: &Path, mode: u32) -> Result<(), DurableError> {
    let failed = failure(FileOperation::SetMode, path);
    let file = open(path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK).map_err(&failed)?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).map_err(|errno| failed(errno.into()))
}

/// Makes a directory, and those above it which are missing, each with `mode`. One that exists stays as it is.
///
/// # Errors
///
/// [`DurableError::Failed`]; some of the directories may have been made.
pub fn create_directory(path: &Path, mode: u32) -> Result<(), DurableError> {
    let missing: Vec<&Path> = path.ancestors().take_while(|part| !part.as_os_str().is_empty() && !part.is_dir()).collect();
    for directory in missing.into_iter().rev() {
        let failed = failure(FileOperation::CreateDirectory, directory);
        match rustix::fs::mkdir(directory, Mode::from_raw_mode(mode)) {
            Ok(()) => {
                let made = open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW).map_err(&failed)?;
                rustix::fs::fchmod(&made, Mode::from_raw_mode(mode)).map_err(|errno| failed(errno.into()))?;
                made.sync_all().map_err(&failed)?;
            }
            // Made by somebody else in the meantime.
            Err(Errno::EXIST) if directory.is_dir() => (),
            Err(errno) => return Err(failed(errno.into())),
        }
        sync_parent(directory).map_err(failed)?;
    }
    // Whoever made it may have died before its sync. A parent that we may not read was not made by us.
    match sync_parent(path) {
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => Err(failure(FileOperation::CreateDirectory, path)(error)),
        _ => Ok(()),
    }
}

/// The names in a directory, sorted, without those of unfinished writes. Names that are not UTF-8 are not ours: left out.
///
/// # Errors
///
/// [`DurableError::Missing`], [`DurableError::Failed`].
pub fn list(directory: &Path) -> Result<Vec<String>, DurableError> {
    Ok(names(directory)?.into_iter().filter(|name| !is_unfinished(name)).collect())
}

/// Removes what writes left behind that died half-way. Call it only under the lock of the directory's owner.
///
/// # Errors
///
/// [`DurableError::Missing`], [`DurableError::Failed`].
pub fn remove_leftovers(directory: &Path) -> Result<(), DurableError> {
    for name in names(directory)?.iter().filter(|name| is_unfinished(name)) {
        remove(&directory.join(name))?;
    }
    Ok(())
}

/// A file beside the one that is meant, removed when it is not kept.
struct Temporary {
    path: PathBuf,
    kept: bool,
}

impl Temporary {
    fn write(target: &Path, bytes: &[u8], mode: u32, settle: fn(&File) -> io::Result<()>) -> io::Result<Self> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let path = parent(target).join(format!("{TEMPORARY_PREFIX}{}{TEMPORARY_SUFFIX}", hex::encode(random)));
        let mut file = create(&path, OFlags::WRONLY | OFlags::NOFOLLOW, mode)?;
        let temporary = Self { path, kept: false };
        file.write_all(bytes)?;
        settle(&file)?;
        Ok(temporary)
    }

    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.kept {
            // What stays is found by `remove_leftovers`.
            rustix::fs::unlink(&self.path).ok();
        }
    }
}

fn failure(operation: FileOperation, path: &Path) -> impl Fn(io::Error) -> DurableError {
    move |source| match Errno::from_io_error(&source) {
        Some(Errno::NOENT) if operation != FileOperation::Write && operation != FileOperation::CreateDirectory => {
            DurableError::Missing { path: path.to_owned() }
        }
        // What O_NOFOLLOW says of a link.
        Some(Errno::LOOP) => DurableError::NotAFile { path: path.to_owned(), found: "a symbolic link" },
        _ => DurableError::Failed { operation, path: path.to_owned(), source },
    }
}

fn open(path: &Path, flags: OFlags) -> io::Result<File> {
    Ok(File::from(rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())?))
}

fn create(path: &Path, flags: OFlags, mode: u32) -> io::Result<File> {
    let mode = Mode::from_raw_mode(mode);
    // Never wider than asked for, not even for a moment; then exact, whatever the umask took away.
    let file = rustix::fs::open(path, flags | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC, mode)?;
    rustix::fs::fchmod(&file, mode)?;
    Ok(File::from(file))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    open(parent(path), OFlags::RDONLY | OFlags::DIRECTORY)?.sync_all()
}

fn kind_of(kind: std::fs::FileType) -> &'static str {
    if kind.is_symlink() {
        "a symbolic link"
    } else if kind.is_dir() {
        "a directory"
    } else {
        "a device, pipe or socket"
    }
}

/// Says before a write what stands in the file's place.
fn refuse_special(path: &Path) -> Result<(), DurableError> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => Err(DurableError::NotAFile { path: path.to_owned(), found: kind_of(found.file_type()) }),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failure(FileOperation::Write, path)(error)),
        _ => Ok(()),
    }
}

fn check_plain(path: &Path, file: &File) -> io::Result<Result<(), DurableError>> {
    let kind = file.metadata()?.file_type();
    Ok(if kind.is_file() { Ok(()) } else { Err(DurableError::NotAFile { path: path.to_owned(), found: kind_of(kind) }) })
}

fn names(directory: &Path) -> Result<Vec<String>, DurableError> {
    let failed = failure(FileOperation::List, directory);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(&failed)? {
        names.extend(entry.map_err(&failed)?.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}

/// Whether a file of this name is a write that died half-way.
pub fn is_unfinished(name: &str) -> bool {
    name.starts_with(TEMPORARY_PREFIX) && name.ends_with(TEMPORARY_SUFFIX)
}

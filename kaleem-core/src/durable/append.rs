//! A file that only grows: lines behind lines, each of them there in whole or not at all.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::{DurableError, FileOperation, PRIVATE_FILE, check_plain, create, failure, open, power, refuse_special, sync_parent};

/// When a line has to be on disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Settle {
    /// Before anything else is done.
    OnDisk,
    /// With a later one.
    Later,
}

/// A file that only grows, line by line; each line is on disk before [`AppendFile::append_line`] returns, with all that were added before.
#[derive(Debug)]
pub struct AppendFile {
    file: File,
    path: PathBuf,
    length_bytes: u64,
    poisoned: bool,
}

impl AppendFile {
    /// Opens a file to append to it; one that is not there is made, with mode [`PRIVATE_FILE`].
    ///
    /// # Errors
    ///
    /// [`DurableError::NotAFile`], [`DurableError::Failed`]; no content was changed.
    pub fn open(path: &Path) -> Result<Self, DurableError> {
        let failed = failure(FileOperation::Write, path);
        refuse_special(path)?;
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = match open(path, flags) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => create(path, flags, PRIVATE_FILE)
                .and_then(|file| file.sync_all().map(|()| file))
                .and_then(|file| sync_parent(path).map(|()| file)),
            opened => opened,
        }
        .map_err(&failed)?;
        check_plain(path, &file).map_err(&failed)??;
        let length_bytes = file.metadata().map_err(failed)?.len();
        power::opened(path, length_bytes);
        Ok(Self { file, path: path.to_owned(), length_bytes, poisoned: false })
    }

    /// Length of the file.
    pub fn length_bytes(&self) -> u64 {
        self.length_bytes
    }

    /// Writes one line and its end in a single write, and waits until it is on disk, together with every line that was added before it.
    ///
    /// # Errors
    ///
    /// [`DurableError::LineBreak`]; [`DurableError::Failed`], after which a part of the line may be on disk if even taking
    /// it back failed, and every later append is [`DurableError::Poisoned`]: the file must be opened and read again.
    pub fn append_line(&mut self, line: &[u8]) -> Result<(), DurableError> {
        self.write_line(line, Settle::OnDisk)
    }

    /// Writes one line and its end in a single write, without waiting for the disk. Other processes read it at once, and it outlives this
    /// process; a loss of power may take it, until a later [`AppendFile::append_line`] has returned.
    ///
    /// # Errors
    ///
    /// As [`AppendFile::append_line`].
    pub fn add_line(&mut self, line: &[u8]) -> Result<(), DurableError> {
        self.write_line(line, Settle::Later)
    }

    fn write_line(&mut self, line: &[u8], settle: Settle) -> Result<(), DurableError> {
        if line.contains(&b'\n') {
            return Err(DurableError::LineBreak { path: self.path.clone() });
        }
        self.check_sound()?;
        let mut whole = Vec::with_capacity(line.len() + 1);
        whole.extend_from_slice(line);
        whole.push(b'\n');
        let written = match self.file.write(&whole) {
            Ok(written) if written == whole.len() => match settle {
                Settle::OnDisk => self.file.sync_data(),
                Settle::Later => Ok(()),
            },
            // The rest would only fit if space came free just now; asking for it tells the reason.
            Ok(written) => self
                .file
                .write_all(whole.get(written..).unwrap_or_default())
                .and_then(|()| Err(io::Error::new(io::ErrorKind::WriteZero, "the line could only be written in two parts"))),
            Err(error) => Err(error),
        };
        match written {
            Ok(()) => {
                self.length_bytes += whole.len() as u64;
                if settle == Settle::OnDisk {
                    power::synced(&self.path, self.length_bytes);
                }
                Ok(())
            }
            Err(source) => {
                self.poisoned = true;
                // A torn line is for the reader to find; taking it back is only a courtesy.
                self.file.set_len(self.length_bytes).and_then(|()| self.file.sync_data()).ok();
                Err(DurableError::Failed { operation: FileOperation::Write, path: self.path.clone(), source })
            }
        }
    }

    /// Cuts the file to `length_bytes`: takes back a torn line that a crash left at its end.
    ///
    /// # Errors
    ///
    /// [`DurableError::Failed`], also when the file is shorter than that; later appends are [`DurableError::Poisoned`].
    pub fn truncate_to(&mut self, length_bytes: u64) -> Result<(), DurableError> {
        self.check_sound()?;
        let result = if length_bytes > self.length_bytes {
            Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is only {} bytes long", self.length_bytes)))
        } else {
            self.file.set_len(length_bytes).and_then(|()| self.file.sync_all())
        };
        match result {
            Ok(()) => {
                self.length_bytes = length_bytes;
                power::synced(&self.path, length_bytes);
                Ok(())
            }
            Err(source) => {
                self.poisoned = true;
                Err(DurableError::Failed { operation: FileOperation::Truncate, path: self.path.clone(), source })
            }
        }
    }

    fn check_sound(&self) -> Result<(), DurableError> {
        if self.poisoned { Err(DurableError::Poisoned { path: self.path.clone() }) } else { Ok(()) }
    }
}

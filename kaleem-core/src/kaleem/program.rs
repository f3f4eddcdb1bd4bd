//! The program that gateways are made from: whether it can run in an image that holds nothing else, and which one it is.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

use crate::durable::{self, DurableError};

/// Tells programs apart. It is read once, until another file stands in its place.
#[derive(Default)]
pub(super) struct Programs {
    last: Mutex<Option<(Stamp, Option<String>)>>,
}

/// A file as the file system tells it from others, and from what it was before.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size_bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Programs {
    /// The SHA-256 of the program in hexadecimal digits; `None` where there is none, or where it needs more than itself.
    ///
    /// # Errors
    ///
    /// [`DurableError`] when it cannot be read.
    pub(super) fn digest(&self, program: &Path) -> Result<Option<String>, DurableError> {
        let Some(stamp) = Stamp::of(program) else { return Ok(None) };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, digest)) = last.as_ref()
            && *known == stamp
        {
            return Ok(digest.clone());
        }
        let bytes = durable::read(program)?;
        let digest = is_static(&bytes).then(|| hex::encode(Sha256::digest(&bytes)));
        // What was written to meanwhile is read again the next time.
        *last = Some((stamp, digest.clone())).filter(|_| Stamp::of(program) == Some(stamp));
        Ok(digest)
    }
}

impl Stamp {
    fn of(program: &Path) -> Option<Self> {
        let found = std::fs::metadata(program).ok().filter(std::fs::Metadata::is_file)?;
        Some(Self {
            device: found.dev(),
            inode: found.ino(),
            size_bytes: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

/// Whether `bytes` are a program for 64-bit Linux that needs no loader and no library: one without an interpreter segment.
fn is_static(bytes: &[u8]) -> bool {
    /// `PT_INTERP` of the ELF specification.
    const INTERPRETER: u64 = 3;
    let number = |at: usize, length: usize| -> Option<u64> {
        let bytes = bytes.get(at..at.checked_add(length)?)?;
        Some(bytes.iter().rev().fold(0, |sum, byte| (sum << 8) | u64::from(*byte)))
    };
    let little_endian_64 = bytes.get(..6) == Some(&[0x7f, b'E', b'L', b'F', 2, 1]);
    let (Some(table), Some(size), Some(count)) = (number(0x20, 8), number(0x36, 2), number(0x38, 2)) else { return false };
    let mut kinds = (0..count).map(|index| {
        let at = table.checked_add(index.checked_mul(size)?)?;
        number(usize::try_from(at).ok()?, 4)
    });
    little_endian_64 && count > 0 && kinds.all(|kind| kind.is_some_and(|kind| kind != INTERPRETER))
}

#[cfg(test)]
mod tests {
    use super::{Programs, is_static};

    /// The smallest head of a program with one segment that is loaded, and a byte behind it by which two differ.
    fn program(last: u8) -> Vec<u8> {
        let mut header = vec![0_u8; 0x40 + 0x38];
        header[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1]);
        header[0x20] = 0x40;
        header[0x36] = 0x38;
        header[0x38] = 1;
        header[0x40] = 1;
        header.push(last);
        header
    }

    #[test]
    fn a_program_is_read_once_and_again_when_another_is_in_its_place() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent");
        let programs = Programs::default();
        assert_eq!(programs.digest(&path).unwrap(), None, "there is none");
        let put = |bytes: &[u8]| crate::durable::write_atomic(&path, bytes, 0o755).unwrap();
        put(&program(1));
        let first = programs.digest(&path).unwrap().unwrap();
        assert_eq!(first.len(), 64);
        let read = |programs: &Programs| programs.last.lock().unwrap().as_ref().map(|(_, digest)| digest.clone());
        assert_eq!(read(&programs), Some(Some(first.clone())));
        // What is remembered is the answer, as long as the file is the same one.
        programs.last.lock().unwrap().as_mut().unwrap().1 = Some("remembered".to_owned());
        assert_eq!(programs.digest(&path).unwrap().as_deref(), Some("remembered"));
        put(&program(2));
        let second = programs.digest(&path).unwrap().unwrap();
        assert!(second != first && second.len() == 64, "{second}");
        put(b"#!/bin/sh\n");
        assert_eq!(programs.digest(&path).unwrap(), None, "a script needs a shell");
    }

    #[test]
    fn a_program_with_a_loader_or_without_sense_is_not_static() {
        // The shell of every Linux is linked to its libraries.
        let shell = std::fs::read("/bin/sh").unwrap();
        for (why, bytes) in [("linked", shell.as_slice()), ("a script", b"#!/bin/sh\n"), ("nothing", b""), ("cut", &shell[..0x40])] {
            assert!(!is_static(bytes), "{why}");
        }
        assert!(is_static(&program(0)), "one segment that is loaded");
    }
}

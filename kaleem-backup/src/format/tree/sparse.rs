//! Files with holes, as GNU tar writes them in its format PAX 1.0: a list of the parts that are no hole, and those parts.
//!
//! Whoever reads gets the file as it was, with nothing in its holes. What the list says must fit to the byte: a list that
//! was changed is an error, and never another file.

use std::io::{self, Read};
use std::path::PathBuf;

use super::{BLOCK_BYTES, invalid};

/// What the names of all that concerns holes begin with.
const PREFIX: &str = "GNU.sparse.";
const BLOCK: usize = BLOCK_BYTES as usize;
/// The longest file of Linux, and how many digits that has.
const LONGEST: u64 = i64::MAX as u64;
const LONGEST_NUMBER: usize = 19;

/// What comes before the content of a file with holes.
#[derive(Default)]
pub(super) struct Announced {
    major: Option<Vec<u8>>,
    minor: Option<Vec<u8>>,
    name: Option<Vec<u8>>,
    real_size: Option<Vec<u8>>,
}

/// A file with holes: its own name, since the entry has another, and how long it is.
pub(super) struct Announcement {
    pub(super) path: PathBuf,
    pub(super) size_bytes: u64,
}

impl Announced {
    /// Takes an attribute of an entry, where it is one of these.
    pub(super) fn take(&mut self, key: &str, value: &[u8]) -> io::Result<()> {
        let Some(key) = key.strip_prefix(PREFIX) else { return Ok(()) };
        let place = match key {
            "major" => &mut self.major,
            "minor" => &mut self.minor,
            "name" => &mut self.name,
            "realsize" => &mut self.real_size,
            _ => return Err(invalid("holes are written in a way that is not known")),
        };
        if place.replace(value.to_vec()).is_some() {
            return Err(invalid(format!("`{PREFIX}{key}` is there twice")));
        }
        Ok(())
    }

    /// What was announced, if anything was.
    pub(super) fn all(self) -> io::Result<Option<Announcement>> {
        use std::os::unix::ffi::OsStringExt;
        let (major, minor, name, real_size) = match (self.major, self.minor, self.name, self.real_size) {
            (None, None, None, None) => return Ok(None),
            (Some(major), Some(minor), Some(name), Some(real_size)) => (major, minor, name, real_size),
            _ => return Err(invalid("a file with holes is not described in whole")),
        };
        if major != b"1" || minor != b"0" {
            return Err(invalid("holes are written in a way that is not known"));
        }
        let size_bytes = number(&real_size)?;
        Ok(Some(Announcement { path: std::ffi::OsString::from_vec(name).into(), size_bytes }))
    }
}

/// A number as GNU tar writes it: nothing but digits, and none too many.
fn number(text: &[u8]) -> io::Result<u64> {
    let plain = !text.is_empty() && text.iter().all(u8::is_ascii_digit) && (text.len() == 1 || text.first() != Some(&b'0'));
    let number = plain.then(|| std::str::from_utf8(text).ok()?.parse::<u64>().ok()).flatten();
    number.filter(|number| *number <= LONGEST).ok_or_else(|| invalid("a number of a file with holes cannot be read"))
}

/// The file as it was.
pub(super) struct Expanded<R> {
    inner: R,
    /// Where each part begins and how long it is, the last one first.
    parts: Vec<(u64, u64)>,
    at: u64,
    size_bytes: u64,
}

impl<R: Read> Expanded<R> {
    /// Reads the list that `inner`, of `stored_bytes`, begins with, for a file of `size_bytes`.
    pub(super) fn open(mut inner: R, stored_bytes: u64, size_bytes: u64) -> io::Result<Self> {
        let mut list = List { inner: &mut inner, block: [0; BLOCK], taken: BLOCK, read_bytes: 0 };
        let count = list.number()?;
        let mut parts = Vec::new();
        let (mut end, mut kept) = (0, 0_u64);
        for _ in 0..count {
            let (from, length) = (list.number()?, list.number()?);
            // GNU tar says with a part of no bytes how long a file is that ends with a hole.
            let until = from.checked_add(length).filter(|until| from >= end && *until <= size_bytes);
            end = until.ok_or_else(|| invalid("the parts of a file with holes do not follow each other"))?;
            kept = kept.saturating_add(length);
            parts.push((from, length));
        }
        let listed = list.finish()?;
        if end != size_bytes {
            return Err(invalid("the parts of a file with holes do not end where it ends"));
        }
        if listed.checked_add(kept) != Some(stored_bytes) {
            return Err(invalid("the parts of a file with holes are not as long as what there is"));
        }
        parts.reverse();
        Ok(Self { inner, parts, at: 0, size_bytes })
    }
}

impl<R: Read> Read for Expanded<R> {
    /// Never some of a hole and of what follows it at once, so that whoever writes sees what is a hole.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.parts.last().is_some_and(|(from, length)| from + length <= self.at) {
            self.parts.pop();
        }
        let (is_hole, left) = match self.parts.last() {
            Some((from, _)) if *from > self.at => (true, from - self.at),
            Some((from, length)) => (false, from + length - self.at),
            None => (true, self.size_bytes - self.at),
        };
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(into.len());
        let Some(into) = into.get_mut(..most).filter(|into| !into.is_empty()) else { return Ok(0) };
        let read = if is_hole {
            into.fill(0);
            most
        } else {
            self.inner.read(into)?
        };
        if read == 0 {
            return Err(invalid("a file with holes is cut short"));
        }
        self.at += read as u64;
        Ok(read)
    }
}

/// Numbers, each in a line of its own, and nothing up to the end of the last block.
struct List<R> {
    inner: R,
    block: [u8; BLOCK],
    taken: usize,
    read_bytes: u64,
}

impl<R: Read> List<R> {
    fn byte(&mut self) -> io::Result<u8> {
        if self.taken == BLOCK {
            self.inner.read_exact(&mut self.block)?;
            self.taken = 0;
            self.read_bytes += BLOCK_BYTES;
        }
        let byte = self.block.get(self.taken).copied().unwrap_or_default();
        self.taken += 1;
        Ok(byte)
    }

    fn number(&mut self) -> io::Result<u64> {
        let mut text = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => return number(&text),
                byte if text.len() < LONGEST_NUMBER => text.push(byte),
                _ => return Err(invalid("a number of a file with holes cannot be read")),
            }
        }
    }

    /// How many bytes the list is, with what fills its last block.
    fn finish(self) -> io::Result<u64> {
        if self.block.get(self.taken..).unwrap_or_default().iter().any(|byte| *byte != 0) {
            return Err(invalid("after the list of a file with holes there is something else"));
        }
        Ok(self.read_bytes)
    }
}

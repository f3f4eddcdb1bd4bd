//! A tree of files as tar: what each entry is, whether the tar is whole, and a digest that a restored tree has, too.
//!
//! A file with holes has the digest of what is read from it, whether its holes were written out or not.

mod sparse;

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use kaleem_core::backup::{ByteStream, Content, Contents, SourceError, pipe};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt;

use super::UnorderedDigest;

const FORMAT: &str = "tar";
const BLOCK_BYTES: u64 = 512;
const CHUNK_BYTES: usize = 64 * 1024;
/// Prefix that GNU tar, too, gives extended attributes.
pub(crate) const XATTR_PREFIX: &str = "SCHILY.xattr.";

/// What an entry is, as far as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Directory,
    /// Length and SHA-256 of the content.
    File {
        size_bytes: u64,
        sha256: [u8; 32],
    },
    /// Where it points.
    Symlink(PathBuf),
    /// The path, inside the tree, of the file that it is.
    Hardlink(PathBuf),
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) path: PathBuf,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    /// Seconds since 1970; compared for plain files only, since links and directories change when they are looked after.
    pub(crate) modified: u64,
    pub(crate) xattrs: BTreeMap<String, Vec<u8>>,
    pub(crate) shape: Shape,
}

/// Length and SHA-256 of a content.
pub(crate) type Measured = (u64, [u8; 32]);

/// Counts and digests of a tree.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    directories: UnorderedDigest,
    files: UnorderedDigest,
    links: UnorderedDigest,
}

impl Tree {
    pub(crate) fn add(&mut self, entry: &Entry) {
        use std::os::unix::ffi::OsStrExt;
        let mut text = Vec::new();
        let mut field = |bytes: &[u8]| {
            text.extend((bytes.len() as u64).to_be_bytes());
            text.extend_from_slice(bytes);
        };
        field(entry.path.as_os_str().as_bytes());
        field(&entry.uid.to_be_bytes());
        field(&entry.gid.to_be_bytes());
        for (name, value) in &entry.xattrs {
            field(name.as_bytes());
            field(value);
        }
        let digest = match &entry.shape {
            Shape::Directory => {
                field(&entry.mode.to_be_bytes());
                &mut self.directories
            }
            Shape::File { size_bytes, sha256 } => {
                field(&entry.mode.to_be_bytes());
                field(&entry.modified.to_be_bytes());
                field(&size_bytes.to_be_bytes());
                field(sha256);
                &mut self.files
            }
            Shape::Symlink(target) | Shape::Hardlink(target) => {
                field(if matches!(entry.shape, Shape::Symlink(_)) { b"symbolic" } else { b"hard" });
                field(target.as_os_str().as_bytes());
                &mut self.links
            }
        };
        digest.add(&text);
    }

    pub(crate) fn contents(&self) -> Contents {
        let parts = [("directories", &self.directories), ("files", &self.files), ("links", &self.links)];
        let content = |digest: &UnorderedDigest| Content { count: digest.count(), digest: digest.hex() };
        parts.into_iter().map(|(name, digest)| (name.to_owned(), content(digest))).collect()
    }
}

/// Copies while it counts and digests.
pub(crate) fn copy(from: &mut dyn Read, mut to: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<Measured> {
    let mut digest = Sha256::new();
    let mut length = 0;
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = match from.read(&mut chunk) {
            Ok(0) => return Ok((length, digest.finalize().into())),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        let bytes = chunk.get(..read).unwrap_or_default();
        digest.update(bytes);
        length += read as u64;
        to(bytes)?;
    }
}

struct Counted<R> {
    inner: R,
    bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(into)?;
        self.bytes += read as u64;
        Ok(read)
    }
}

fn invalid(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

/// A path that stays inside the tree.
fn inside(path: &Path) -> io::Result<PathBuf> {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::CurDir => (),
            _ => return Err(invalid(format!("{} leads out of the tree", path.display()))),
        }
    }
    Ok(plain)
}

/// Reads a tar to its very end; `place` gets each entry with its content, and answers length and digest of that.
pub(crate) fn read_tar(input: impl Read, place: &mut dyn FnMut(&Entry, &mut dyn Read) -> io::Result<Measured>) -> io::Result<Tree> {
    let mut archive = tar::Archive::new(Counted { inner: input, bytes: 0 });
    let mut tree = Tree::default();
    let mut end = 0;
    for found in archive.entries()? {
        let mut found = found?;
        let stored = found.size();
        end = found.raw_file_position().saturating_add(stored.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES));
        let mut xattrs = BTreeMap::new();
        let mut announced = sparse::Announced::default();
        if let Some(extensions) = found.pax_extensions()? {
            for extension in extensions {
                let extension = extension?;
                let key = extension.key().map_err(|_| invalid("the name of an attribute cannot be read"))?;
                if let Some(name) = key.strip_prefix(XATTR_PREFIX) {
                    xattrs.insert(name.to_owned(), extension.value_bytes().to_vec());
                }
                announced.take(key, extension.value_bytes())?;
            }
        }
        let with_holes = announced.all()?;
        let wanted = with_holes.as_ref().map_or(stored, |announcement| announcement.size_bytes);
        let link = || -> io::Result<PathBuf> { Ok(found.link_name()?.ok_or_else(|| invalid("a link leads nowhere"))?.into_owned()) };
        let kind = found.header().entry_type();
        let shape = if kind.is_dir() {
            Shape::Directory
        } else if kind.is_file() {
            Shape::File { size_bytes: wanted, sha256: [0; 32] }
        } else if kind.is_symlink() {
            Shape::Symlink(link()?)
        } else if kind.is_hard_link() {
            Shape::Hardlink(inside(&link()?)?)
        } else {
            return Err(invalid("an entry is of a kind that is not kept"));
        };
        if with_holes.is_some() && !kind.is_file() {
            return Err(invalid("what is no file has holes"));
        }
        let path = match &with_holes {
            Some(announcement) => inside(&announcement.path)?,
            None => inside(&found.path()?)?,
        };
        let header = found.header();
        let mut entry =
            Entry { path, mode: header.mode()? & 0o7777, uid: header.uid()?, gid: header.gid()?, modified: header.mtime()?, xattrs, shape };
        let (size_bytes, sha256) = match with_holes {
            Some(announcement) => place(&entry, &mut sparse::Expanded::open(&mut found, stored, announcement.size_bytes)?)?,
            None => place(&entry, &mut found)?,
        };
        if let Shape::File { .. } = entry.shape {
            if size_bytes != wanted {
                return Err(invalid(format!("{} is cut short", entry.path.display())));
            }
            entry.shape = Shape::File { size_bytes, sha256 };
        }
        tree.add(&entry);
    }
    let mut rest = archive.into_inner();
    let mut zero = true;
    copy(&mut rest, |bytes| {
        zero &= bytes.iter().all(|byte| *byte == 0);
        Ok(())
    })?;
    // A tar ends with two blocks of nothing; without them its end is only where it was cut.
    if !zero || rest.bytes < end + 2 * BLOCK_BYTES || rest.bytes % BLOCK_BYTES != 0 {
        return Err(invalid("its end is not that of a tar"));
    }
    Ok(tree)
}

/// [`read_tar`] of a stream, in a thread that may block.
pub(crate) async fn read_stream(
    mut input: ByteStream,
    mut place: impl FnMut(&Entry, &mut dyn Read) -> io::Result<Measured> + Send + 'static,
) -> Result<Tree, SourceError> {
    let (mut sender, receiver) = pipe();
    let reading = tokio::task::spawn_blocking(move || read_tar(receiver, &mut place));
    let mut chunk = vec![0; 4 * CHUNK_BYTES];
    let mut length = 0;
    loop {
        match input.read(&mut chunk).await {
            Ok(0) => break,
            // A reader that has given up says why.
            Ok(read) if sender.send(chunk.get(..read).unwrap_or_default().to_vec()).await.is_err() => break,
            Ok(read) => length += read as u64,
            Err(source) => {
                sender.fail(io::Error::new(source.kind(), source.to_string())).await;
                // Nothing else is done with what was read so far.
                reading.await.ok();
                return Err(SourceError::Input { source });
            }
        }
    }
    sender.finish().await.ok();
    let malformed = |reason: String| SourceError::Malformed { format: FORMAT, at_bytes: length, reason };
    match reading.await {
        Ok(read) => read.map_err(|error| malformed(error.to_string())),
        Err(_) => Err(malformed("a bug: the reader died".to_owned())),
    }
}

/// Reads a tar to its end, and answers what is in it.
///
/// # Errors
/// [`SourceError`] unless it is whole.
pub async fn verify(input: ByteStream) -> Result<Contents, SourceError> {
    Ok(read_stream(input, |_, content| copy(content, |_| Ok(()))).await?.contents())
}

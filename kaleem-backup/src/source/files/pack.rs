//! Writing a tree as tar.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use kaleem_core::backup::ByteSender;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use tar::{Builder, EntryType, Header};

use crate::format::tree::{Entry, Shape, Tree, XATTR_PREFIX};

/// The longest value that Linux gives an extended attribute, and the longest list of their names.
const LONGEST_XATTR: usize = 64 * 1024;

/// What was written.
pub(super) struct Packed {
    pub(super) tree: Tree,
    pub(super) changed: Vec<String>,
    pub(super) notes: Vec<String>,
}

struct Packing {
    root: PathBuf,
    builder: Builder<io::BufWriter<ByteSender>>,
    links: HashMap<(u64, u64), PathBuf>,
    packed: Packed,
    special: u64,
}

/// Writes everything below `root`. Only an `Ok` is followed by the end of `out`.
pub(super) fn pack(root: &Path, out: ByteSender) -> io::Result<Packed> {
    let mut packing = Packing {
        root: root.to_owned(),
        builder: Builder::new(io::BufWriter::with_capacity(256 * 1024, out)),
        links: HashMap::new(),
        packed: Packed { tree: Tree::default(), changed: Vec::new(), notes: Vec::new() },
        special: 0,
    };
    packing.directory(Path::new(""))?;
    if packing.special > 0 {
        packing.packed.notes.push(format!("{} sockets, pipes and devices are not included", packing.special));
    }
    let output = packing.builder.into_inner()?;
    output.into_inner().map_err(io::IntoInnerError::into_error)?.finish_blocking()?;
    Ok(packing.packed)
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

impl Packing {
    fn directory(&mut self, path: &Path) -> io::Result<()> {
        let full = self.root.join(path);
        if path.as_os_str().is_empty() && !full.symlink_metadata().map_err(|error| named(&full, &error))?.is_dir() {
            return Err(io::Error::new(io::ErrorKind::NotADirectory, format!("{} is no directory", full.display())));
        }
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&full).map_err(|error| named(&full, &error))? {
            names.push(entry?.file_name());
        }
        names.sort_unstable();
        for name in names {
            let path = path.join(name);
            let full = self.root.join(&path);
            match full.symlink_metadata() {
                // Gone since the directory was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.packed.changed.push(path.display().to_string()),
                metadata => self.entry(&path, &metadata.map_err(|error| named(&full, &error))?)?,
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, metadata: &Metadata) -> io::Result<()> {
        let full = self.root.join(path);
        let mut entry = Entry {
            path: path.to_owned(),
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid().into(),
            gid: metadata.gid().into(),
            modified: u64::try_from(metadata.mtime()).unwrap_or(0),
            xattrs: BTreeMap::new(),
            shape: Shape::Directory,
        };
        let kind = metadata.file_type();
        if kind.is_file() && metadata.nlink() > 1 {
            if let Some(first) = self.links.get(&(metadata.dev(), metadata.ino())) {
                entry.shape = Shape::Hardlink(first.clone());
                return self.link(&entry, EntryType::Link);
            }
            self.links.insert((metadata.dev(), metadata.ino()), path.to_owned());
        }
        if kind.is_symlink() {
            entry.shape = Shape::Symlink(std::fs::read_link(&full).map_err(|error| named(&full, &error))?);
            return self.link(&entry, EntryType::Symlink);
        }
        if !kind.is_dir() && !kind.is_file() {
            self.special += 1;
            return Ok(());
        }
        entry.xattrs = xattrs(&full).map_err(|error| named(&full, &error))?;
        let attributes: Vec<(String, &[u8])> =
            entry.xattrs.iter().map(|(name, value)| (format!("{XATTR_PREFIX}{name}"), value.as_slice())).collect();
        if !attributes.is_empty() {
            self.builder.append_pax_extensions(attributes.iter().map(|(name, value)| (name.as_str(), *value)))?;
        }
        if kind.is_dir() {
            let mut header = header(&entry, EntryType::Directory, 0);
            self.builder.append_data(&mut header, path, io::empty())?;
            self.packed.tree.add(&entry);
            return self.directory(path);
        }
        let content = self.file(&entry, &full).map_err(|error| named(&full, &error))?;
        entry.shape = content;
        self.packed.tree.add(&entry);
        Ok(())
    }

    fn link(&mut self, entry: &Entry, kind: EntryType) -> io::Result<()> {
        let mut header = header(entry, kind, 0);
        if let Shape::Symlink(target) | Shape::Hardlink(target) = &entry.shape {
            self.builder.append_link(&mut header, &entry.path, target)?;
        }
        self.packed.tree.add(entry);
        Ok(())
    }

    fn file(&mut self, entry: &Entry, full: &Path) -> io::Result<Shape> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::open(full, flags, Mode::empty())?);
        let before = file.metadata()?;
        let mut exact = Exact { inner: &mut file, left: before.len(), digest: Default::default() };
        let mut header = header(entry, EntryType::Regular, before.len());
        self.builder.append_data(&mut header, &entry.path, &mut exact)?;
        let sha256 = exact.digest();
        let after = file.metadata()?;
        let stamp = |found: &Metadata| (found.len(), found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec());
        if stamp(&before) != stamp(&after) || u64::try_from(before.mtime()).unwrap_or(0) != entry.modified {
            self.packed.changed.push(entry.path.display().to_string());
        }
        Ok(Shape::File { size_bytes: before.len(), sha256 })
    }
}

/// As much of a file as its header says: what is added later is not read, what is missing is an error.
struct Exact<'a> {
    inner: &'a mut File,
    left: u64,
    digest: sha2::Sha256,
}

impl Exact<'_> {
    fn digest(self) -> [u8; 32] {
        sha2::Digest::finalize(self.digest).into()
    }
}

impl Read for &mut Exact<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(into.len());
        let Some(into) = into.get_mut(..most).filter(|into| !into.is_empty()) else { return Ok(0) };
        let read = self.inner.read(into)?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it got shorter while it was read"));
        }
        sha2::Digest::update(&mut self.digest, into.get(..read).unwrap_or_default());
        self.left -= read as u64;
        Ok(read)
    }
}

fn header(entry: &Entry, kind: EntryType, size_bytes: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(entry.mode);
    header.set_uid(entry.uid);
    header.set_gid(entry.gid);
    header.set_mtime(entry.modified);
    header.set_size(size_bytes);
    header
}

/// The extended attributes of a file or directory, access control lists among them.
fn xattrs(path: &Path) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut names = vec![0; LONGEST_XATTR];
    let length = match rustix::fs::llistxattr(path, names.as_mut_slice()) {
        // The file system has none.
        Err(Errno::OPNOTSUPP) => return Ok(found),
        length => length?,
    };
    names.truncate(length);
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = String::from_utf8(name.to_vec()).map_err(|_| io::Error::other("an attribute has a name that is no text"))?;
        let mut value = vec![0; LONGEST_XATTR];
        let length = rustix::fs::lgetxattr(path, name.as_str(), value.as_mut_slice())?;
        value.truncate(length);
        if value.contains(&b'\n') || name.contains(['\n', '=']) {
            return Err(io::Error::other(format!("the attribute `{name}` holds a line break, which cannot be kept")));
        }
        found.insert(name, value);
    }
    Ok(found)
}

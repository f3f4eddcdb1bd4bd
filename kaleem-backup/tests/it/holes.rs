//! Files with holes, as GNU tar writes them for volumes: read as what they are, and refused when a byte is another one.

use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use kaleem_backup::format::tree::verify;
use kaleem_backup::source::files::FilesSource;
use kaleem_core::backup::{BackupSource, RestoreMode};
use kaleem_core::durable::create_new;

use crate::servers;
use crate::support::stream;

/// As a volume is read, without times that nobody compares.
const TAR: &str = "find . -mindepth 1 -maxdepth 1 -print0 | LC_ALL=C sort -z | tar --create --format=posix --sparse --sparse-version=1.0 \
                   --xattrs --xattrs-include='*' --numeric-owner --sort=name --pax-option=delete=atime,delete=ctime,delete=mtime \
                   --null --files-from=- --file=../tree.tar";
const BLOCK: usize = 512;

/// A file of this length with these parts, and nothing between them.
fn with_holes(path: &Path, length: u64, parts: &[(u64, &[u8])]) {
    let file = std::fs::OpenOptions::new().create_new(true).write(true).open(path).unwrap();
    for (at, bytes) in parts {
        file.write_all_at(bytes, *at).unwrap();
    }
    file.set_len(length).unwrap();
}

/// What GNU tar makes of a directory.
fn packed(root: &Path) -> Vec<u8> {
    assert!(servers::shell(TAR, root));
    let file = root.parent().unwrap().join("tree.tar");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::remove_file(file).unwrap();
    bytes
}

fn source(root: &Path) -> FilesSource {
    FilesSource::new("tree".parse().unwrap(), root)
}

#[tokio::test(flavor = "multi_thread")]
async fn holes_count_as_what_is_read_from_them_wherever_they_are() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    let (some, many) = (vec![7; 5000], vec![9; 70_000]);
    with_holes(&root.join("nothing else"), 3_000_000, &[]);
    with_holes(&root.join("at its end"), 3_000_001, &[(0, &some)]);
    with_holes(&root.join("at its beginning"), 3_000_000, &[(2_999_999, b"x")]);
    with_holes(&root.join("in between"), 3_000_000, &[(0, &some), (500_000, &many), (2_500_000, &some)]);
    with_holes(&root.join("l".repeat(200)), 3_000_000, &[(1_000_000, &some)]);
    let fragments: Vec<(u64, &[u8])> = (0..200).map(|number| (number * 16_384, &some[..100])).collect();
    with_holes(&root.join("more parts than a block of the list holds"), 16_384 * 200, &fragments);
    std::fs::hard_link(root.join("in between"), root.join("the same")).unwrap();
    create_new(&root.join("without"), b"text").unwrap();
    let bytes = packed(&root);
    assert!(bytes.len() < 2_000_000, "{}: the holes are in it", bytes.len());
    let found = verify(stream(&bytes)).await.unwrap();
    assert_eq!(found, source(&root).inspect().await.unwrap());

    let other = place.path().join("other");
    source(&other).restore(stream(&bytes), RestoreMode::IntoEmpty).await.unwrap();
    let restored = other.join("in between").metadata().unwrap();
    assert_eq!(restored.size(), 3_000_000);
    assert!(restored.blocks() * 512 < 1_000_000, "{}: a hole stays one", restored.blocks());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tar_with_holes_that_is_cut_or_changed_at_any_byte_is_refused_or_another() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    with_holes(&root.join("disk"), 16_384, &[(0, &[7; BLOCK]), (8192, &[9; BLOCK])]);
    let bytes = packed(&root);
    let found = verify(stream(&bytes)).await.unwrap();
    let list = bytes.windows(9).position(|window| window == b"\n0\n4096\n8").unwrap() / BLOCK * BLOCK;
    // Behind the two blocks that end a tar there is nothing but filling.
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for length in (0..end.next_multiple_of(BLOCK) + 2 * BLOCK).chain([bytes.len() - 1]) {
        assert!(verify(stream(&bytes[..length])).await.is_err(), "cut at {length}");
    }
    let mut other = bytes.clone();
    for (at, byte) in bytes.iter().enumerate() {
        let block = at / BLOCK * BLOCK;
        // What fills the last block of a description says nothing; that of a list of parts must be nothing.
        let filling = *byte == 0 && block != list;
        // A sum that is right may be written in several ways.
        let sum = (148..156).contains(&(at - block)) && bytes[block + 257..].starts_with(b"ustar");
        other[at] = byte ^ (1 << (at % 8));
        let same = verify(stream(&other)).await.is_ok_and(|contents| contents == found);
        assert!(!same || filling || sum, "changed at {at}: {:?}", char::from(*byte));
        other[at] = *byte;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_parts_that_does_not_fit_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    with_holes(&root.join("disk"), 49_152, &[(0, &[7; 4096]), (16_384, &[9; 4096])]);
    let bytes = packed(&root);
    let was = b"3\n0\n4096\n16384\n4096\n49152\n0\n";
    let at = bytes.windows(was.len()).position(|window| window == was).unwrap();
    for (why, list) in [
        ("parts that overlap", "3\n0\n4096\n4095\n4096\n49152\n0\n"),
        ("parts in another order", "3\n16384\n4096\n0\n4096\n49152\n0\n"),
        ("an end that is another one", "3\n0\n4096\n16384\n4096\n49151\n0\n"),
        ("a part behind the end", "3\n0\n4096\n49152\n4096\n53248\n0\n"),
        ("a number without an end", "99999999999999999999999999999\n"),
        ("a number that is too long", "3\n0\n4096\n9223372036854775808\n4096\n49152\n0\n"),
        ("a sum that is too long", "3\n0\n4096\n9223372036854775807\n9223372036854775807\n49152\n0\n"),
        ("less than there is", "2\n0\n4096\n49152\n0\n"),
        ("more than there is", "3\n0\n8192\n16384\n4096\n49152\n0\n"),
        ("more parts than are told", "2\n0\n4096\n16384\n4096\n49152\n0\n"),
        ("fewer parts than are told", "4\n0\n4096\n16384\n4096\n49152\n0\n"),
        ("a number with a sign", "3\n+0\n4096\n16384\n4096\n49152\n0\n"),
        ("a number with a zero before it", "3\n00\n4096\n16384\n4096\n49152\n0\n"),
        ("no number", "3\n\n4096\n16384\n4096\n49152\n0\n"),
    ] {
        let mut other = bytes.clone();
        other[at..at + BLOCK].fill(0);
        other[at..at + list.len()].copy_from_slice(list.as_bytes());
        assert!(verify(stream(&other)).await.is_err(), "{why}");
    }
    for (why, before, after) in [
        ("another format", "GNU.sparse.major=1", "GNU.sparse.major=0"),
        ("another format", "GNU.sparse.minor=0", "GNU.sparse.minor=1"),
        ("something unknown", "GNU.sparse.minor=0", "GNU.sparse.mixer=0"),
        ("no name", "GNU.sparse.name=", "GNU.sparse.game="),
        ("twice", "GNU.sparse.minor=0", "GNU.sparse.major=1"),
        ("only half of it", "GNU.sparse.minor=0", "XXX.sparse.minor=0"),
        ("out of the tree", "GNU.sparse.name=./disk", "GNU.sparse.name=../isk"),
    ] {
        let at = bytes.windows(before.len()).position(|window| window == before.as_bytes()).unwrap();
        let mut other = bytes.clone();
        other[at..at + after.len()].copy_from_slice(after.as_bytes());
        assert!(verify(stream(&other)).await.is_err(), "{why}: {after}");
    }
}

//! Directories: everything that a file is comes back, and what was there stays until it is.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use kaleem_backup::format::tree::verify;
use kaleem_backup::seal::{Keys, Protection};
use kaleem_backup::set;
use kaleem_backup::source::files::FilesSource;
use kaleem_core::backup::{BackupSource, Consistency, RestoreMode};
use kaleem_core::durable::create_new;
use kaleem_core::testing::FakeVault;

use crate::servers;
use crate::support::{Noon, export, request, stream};

fn source(directory: &Path) -> FilesSource {
    FilesSource::new("uploads".parse().unwrap(), directory)
}

fn fill(root: &Path) {
    std::fs::create_dir_all(root.join("deep/er")).unwrap();
    create_new(&root.join("plain"), b"text").unwrap();
    create_new(&root.join("empty"), b"").unwrap();
    create_new(&root.join("deep/er/ünïcode ☃\nline"), &vec![7; 300_000]).unwrap();
    create_new(&root.join(format!("deep/{}", "long".repeat(60))), b"a name that is longer than a header").unwrap();
    std::fs::hard_link(root.join("plain"), root.join("second name")).unwrap();
    symlink("../somewhere/else", root.join("link")).unwrap();
    symlink("/nowhere", root.join("deep/absolute")).unwrap();
    let sparse = std::fs::OpenOptions::new().create_new(true).write(true).open(root.join("sparse")).unwrap();
    sparse.set_len(30_000_000).unwrap();
    for (path, mode) in [("plain", 0o4751), ("empty", 0o000), ("deep/er", 0o1777), ("deep", 0o500)] {
        std::fs::set_permissions(root.join(path), std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let here = rustix::fs::CWD;
    let (uid, gid) = (rustix::fs::Uid::from_raw(1234), rustix::fs::Gid::from_raw(4321));
    rustix::fs::chownat(here, root.join("empty"), Some(uid), Some(gid), rustix::fs::AtFlags::empty()).unwrap();
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        servers::skip("files of other owners need root");
    }
    root
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_a_file_is_comes_back_through_a_set() {
    if !is_root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("uploads");
    std::fs::create_dir(&root).unwrap();
    fill(&root);
    let has_attributes = rustix::fs::lsetxattr(root.join("plain"), "user.colour", b"blue", rustix::fs::XattrFlags::empty()).is_ok();
    let source_of = Arc::new(source(&root));
    let vault = FakeVault::new();
    let request = request(Protection::Unencrypted);
    let sources: Vec<Arc<dyn BackupSource>> = vec![source_of.clone()];
    let manifest = set::create(&vault, &sources, &request, &Noon).await.unwrap();
    let artifact = &manifest.artifacts[0];
    assert_eq!(artifact.consistency, Consistency::PerCollection, "{:?}", artifact.notes);
    assert_eq!(artifact.contents["files"].count, 5);
    assert_eq!(artifact.contents["links"].count, 3);
    assert_eq!(artifact.contents["directories"].count, 2);

    let name = "uploads".parse().unwrap();
    let refused = set::restore(&vault, &request.set, &name, source_of.as_ref(), RestoreMode::IntoEmpty, &Keys::none()).await;
    assert!(refused.is_err(), "it is not empty");
    let other = place.path().join("other");
    let target = source(&other);
    set::restore(&vault, &request.set, &name, &target, RestoreMode::IntoEmpty, &Keys::none()).await.unwrap();
    let plain = other.join("plain").metadata().unwrap();
    assert_eq!(plain.mode() & 0o7777, 0o4751);
    assert_eq!(plain.ino(), other.join("second name").metadata().unwrap().ino(), "hard links are links");
    assert_eq!((other.join("empty").metadata().unwrap().uid(), other.join("empty").metadata().unwrap().gid()), (1234, 4321));
    assert!(other.join("sparse").metadata().unwrap().blocks() * 512 < 1_000_000, "holes are holes");
    assert_eq!(std::fs::read_link(other.join("deep/absolute")).unwrap(), Path::new("/nowhere"));
    if has_attributes {
        let mut value = [0; 16];
        let length = rustix::fs::lgetxattr(other.join("plain"), "user.colour", value.as_mut_slice()).unwrap();
        assert_eq!(&value[..length], b"blue");
    }

    create_new(&root.join("newer"), b"x").unwrap();
    set::restore(&vault, &request.set, &name, source_of.as_ref(), RestoreMode::Replace, &Keys::none()).await.unwrap();
    assert!(!root.join("newer").exists());
    assert_eq!(source_of.inspect().await.unwrap(), artifact.contents);
    let beside: Vec<_> = std::fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(beside.len(), 2, "nothing is left beside: {beside:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_tar_unpacks_the_same() {
    if !is_root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let (root, other) = (place.path().join("uploads"), place.path().join("other"));
    std::fs::create_dir(&root).unwrap();
    std::fs::create_dir(&other).unwrap();
    fill(&root);
    let (exported, bytes) = export(&source(&root)).await.unwrap();
    create_new(&place.path().join("exported.tar"), &bytes).unwrap();
    assert!(servers::shell("tar --xattrs -xpf ../exported.tar", &other));
    assert_eq!(source(&other).inspect().await.unwrap(), exported.contents);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tar_that_is_cut_or_leads_elsewhere_replaces_nothing() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("uploads");
    std::fs::create_dir(&root).unwrap();
    create_new(&root.join("one"), b"1").unwrap();
    create_new(&root.join("zeros"), &[0; 3000]).unwrap();
    let source = source(&root);
    let (exported, bytes) = export(&source).await.unwrap();
    assert_eq!(verify(stream(&bytes)).await.unwrap(), exported.contents);
    create_new(&root.join("newer"), b"x").unwrap();
    let newer = source.inspect().await.unwrap();
    for length in 0..bytes.len() {
        let found = verify(stream(&bytes[..length])).await;
        assert!(found.is_err(), "cut at {length} of {}", bytes.len());
    }
    for length in [0, 512, 600, bytes.len() - 1] {
        assert!(source.restore(stream(&bytes[..length]), RestoreMode::Replace).await.is_err(), "cut at {length}");
        assert_eq!(source.inspect().await.unwrap(), newer);
    }
    for (why, evil) in [("out of the tree", "../escaped"), ("from the root", "/tmp/kaleem-escaped")] {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..evil.len()].copy_from_slice(evil.as_bytes());
        header.set_size(0);
        header.set_mode(0o600);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_cksum();
        let mut builder = tar::Builder::new(Vec::new());
        builder.append(&header, std::io::empty()).unwrap();
        let bytes = builder.into_inner().unwrap();
        assert!(source.restore(stream(&bytes), RestoreMode::Replace).await.is_err(), "{why}");
        assert!(!place.path().join("escaped").exists(), "{why}");
    }
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    header.set_mode(0o777);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    builder.append_link(&mut header, "out", place.path()).unwrap();
    header.set_entry_type(tar::EntryType::Regular);
    builder.append_data(&mut header, "out/escaped", std::io::empty()).unwrap();
    let bytes = builder.into_inner().unwrap();
    assert!(source.restore(stream(&bytes), RestoreMode::Replace).await.is_err(), "through a link");
    assert!(!place.path().join("escaped").exists());
    assert_eq!(source.inspect().await.unwrap(), newer);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_restore_left_beside_goes_with_the_next() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("uploads");
    std::fs::create_dir(&root).unwrap();
    let source = source(&root);
    let (_, bytes) = export(&source).await.unwrap();
    let stay = [
        ".kaleem-restore-0123456789ab-other",
        ".kaleem-restore-0123456789ag-uploads",
        ".kaleem-restore-0123456789abcd-uploads",
        ".kaleem-restore-f111ed012345-uploads",
        "kaleem-restore-0123456789ab-uploads",
    ];
    let left = place.path().join(".kaleem-restore-0123456789ab-uploads");
    for directory in stay.iter().map(|name| place.path().join(name)).chain([left.clone()]) {
        std::fs::create_dir(&directory).unwrap();
        create_new(&directory.join("half"), b"of a fi").unwrap();
    }
    // Another restore fills this one now.
    let filled = std::fs::File::open(place.path().join(stay[3])).unwrap();
    rustix::fs::flock(&filled, rustix::fs::FlockOperation::LockExclusive).unwrap();
    source.restore(stream(&bytes), RestoreMode::Replace).await.unwrap();
    assert!(!left.exists());
    for name in stay {
        assert!(place.path().join(name).join("half").exists(), "{name}");
    }
    drop(filled);
    source.restore(stream(&bytes), RestoreMode::Replace).await.unwrap();
    assert!(!place.path().join(stay[3]).exists(), "its process is dead now");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_not_there_is_an_error_and_not_an_empty_one() {
    let place = tempfile::tempdir().unwrap();
    assert!(source(&place.path().join("missing")).inspect().await.is_err());
    create_new(&place.path().join("file"), b"x").unwrap();
    assert!(source(&place.path().join("file")).inspect().await.is_err());
}

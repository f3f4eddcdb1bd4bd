//! Every vault keeps the contract of its seam.

use std::os::unix::fs::PermissionsExt;

use kaleem_backup::vault::LocalVault;
use kaleem_core::backup::{BackupVault, VaultError};
use kaleem_core::testing::backup_contract;
use kaleem_core::testing::{FakeVault, VaultFault};

use crate::servers;
use crate::support::stream;

#[tokio::test]
async fn the_vault_in_memory_keeps_the_contract() {
    assert_eq!(backup_contract::check(&FakeVault::new()).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_vault_in_a_directory_keeps_the_contract() {
    let place = tempfile::tempdir().unwrap();
    let vault = LocalVault::open(&place.path().join("vault")).unwrap();
    assert_eq!(backup_contract::check(&vault).await, Vec::<String>::new());
    let mut unfinished = Vec::new();
    walk(place.path(), &mut |path| {
        let mode = path.symlink_metadata().unwrap().permissions().mode() & 0o077;
        assert_eq!(mode, 0, "others may not look at {}", path.display());
        if path.file_name().unwrap().to_string_lossy().starts_with('.') {
            unfinished.push(path.to_owned());
        }
    });
    unfinished.retain(|path| path != place.path());
    assert_eq!(unfinished, Vec::<std::path::PathBuf>::new(), "nothing half-written stays");
}

fn walk(path: &std::path::Path, see: &mut dyn FnMut(&std::path::Path)) {
    for entry in std::fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        see(&path);
        if path.is_dir() {
            walk(&path, see);
        }
    }
}

#[tokio::test]
async fn a_listing_of_a_directory_that_is_gone_or_foreign_is_an_error() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("vault");
    let vault = LocalVault::open(&root).unwrap();
    let sets = "sets".parse().unwrap();
    vault.put_if_absent(&"sets/a/file".parse().unwrap(), stream(b"x")).await.unwrap();
    assert_eq!(vault.list(&sets).await.unwrap().len(), 1);
    std::os::unix::fs::symlink("/etc/passwd", root.join("sets/a/link")).unwrap();
    assert!(matches!(vault.list(&sets).await, Err(VaultError::Foreign { .. })), "a link is not ours");
    assert!(vault.get(&"sets/a/link".parse().unwrap()).await.is_err(), "a link is not followed");
    std::fs::remove_dir_all(&root).unwrap();
    assert!(matches!(vault.list(&sets).await, Err(VaultError::Disk { .. })), "a disk that is not mounted is not empty");
}

#[tokio::test]
async fn what_a_death_left_half_written_is_not_listed() {
    let place = tempfile::tempdir().unwrap();
    let vault = LocalVault::open(place.path()).unwrap();
    vault.put_if_absent(&"sets/a/file".parse().unwrap(), stream(b"x")).await.unwrap();
    let leftover = place.path().join("sets/a/.kaleem-0011.tmp");
    kaleem_core::durable::create_new(&leftover, b"half").unwrap();
    assert_eq!(vault.list(&"sets".parse().unwrap()).await.unwrap().len(), 1);
    // Another program writes this one.
    let alive = place.path().join("sets/a/.kaleem-0-22.tmp");
    kaleem_core::durable::create_new(&alive, b"ha").unwrap();
    let writer = std::fs::File::open(&alive).unwrap();
    rustix::fs::flock(&writer, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    vault.put_if_absent(&"sets/a/other".parse().unwrap(), stream(b"x")).await.unwrap();
    assert!(!leftover.exists(), "a set that is gone on with is swept");
    assert!(alive.exists(), "who lives holds a lock");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_writer_left_goes_with_its_set_and_what_is_being_written_stays() {
    let place = tempfile::tempdir().unwrap();
    let vault = LocalVault::open(place.path()).unwrap();
    let directory = place.path().join("sets/20260301t120000z-0a0b0c0d");
    let path = |name: &str| kaleem_core::backup::VaultPath::in_set(&"20260301t120000z-0a0b0c0d".parse().unwrap(), name).unwrap();
    let (one, two) = (path("one"), path("two"));
    vault.put_if_absent(&one, stream(b"x")).await.unwrap();
    let leftover = directory.join(".kaleem-0011.tmp");
    kaleem_core::durable::create_new(&leftover, b"half").unwrap();
    let (mut sender, body) = kaleem_core::backup::pipe();
    sender.send(b"whole".to_vec()).await.unwrap();
    let writing = tokio::spawn({
        let vault = vault.clone();
        let two = two.clone();
        async move { vault.put_if_absent(&two, Box::pin(body)).await }
    });
    let count = || std::fs::read_dir(&directory).unwrap().count();
    for _ in 0..1000 {
        // Something was written, so the lock on it is held.
        let sizes: u64 = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
        if sizes == 10 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(count(), 3);
    vault.delete(&one).await.unwrap();
    assert!(!leftover.exists(), "its writer is dead");
    assert_eq!(count(), 1, "the other is being written");
    sender.finish().await.unwrap();
    assert_eq!(writing.await.unwrap().unwrap(), 5);
    vault.delete(&two).await.unwrap();
    assert!(!directory.exists(), "nothing is left of the set");
}

#[tokio::test]
async fn a_full_disk_is_an_error_and_leaves_nothing() {
    // A file system of its own which holds 64 KiB.
    let place = tempfile::tempdir().unwrap();
    let mounted = rustix::mount::mount("tmpfs", place.path(), "tmpfs", rustix::mount::MountFlags::empty(), c"size=64k");
    if let Err(error) = mounted {
        return servers::skip(&format!("a small file system could not be mounted: {error}"));
    }
    let vault = LocalVault::open(&place.path().join("vault")).unwrap();
    let path = "sets/a/file".parse().unwrap();
    let found = vault.put_if_absent(&path, stream(&vec![7; 1_000_000])).await;
    let listed = vault.list(&"sets".parse().unwrap()).await;
    let small = vault.put_if_absent(&path, stream(b"fits")).await;
    rustix::mount::unmount(place.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    assert!(matches!(found, Err(VaultError::Disk { .. })), "{found:?}");
    assert_eq!(listed.unwrap(), Vec::new());
    assert_eq!(small.unwrap(), 4, "what was taken came free again");
}

#[tokio::test]
async fn a_vault_that_is_told_to_fail_fails() {
    let vault = FakeVault::new();
    vault.break_with(Some(VaultFault::List));
    assert!(vault.list(&"sets".parse().unwrap()).await.is_err());
    vault.break_with(Some(VaultFault::PutAfter(1)));
    vault.put_if_absent(&"sets/a/one".parse().unwrap(), stream(b"x")).await.unwrap();
    assert!(vault.put_if_absent(&"sets/a/two".parse().unwrap(), stream(b"x")).await.is_err());
}

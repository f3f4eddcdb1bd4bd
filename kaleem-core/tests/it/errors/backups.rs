//! Backup sets, their sources and vaults.

use insta::assert_snapshot;
use kaleem_core::backup::{SetError, SourceError, VaultError, VaultPath};
use rustix::io::Errno;

use super::{full, made, system, told};

#[test]
fn source() {
    let store = || "MongoDB at mongo:27017".to_owned();
    let boxed = |errno| Box::new(system(errno));
    assert_snapshot!(told(&[
        &SourceError::Unreachable { store: store(), source: boxed(Errno::CONNREFUSED) },
        &SourceError::Denied { store: store(), doing: "read the oplog", reason: "not authorized on local".to_owned() },
        &SourceError::Failed { store: store(), doing: "reading shop.orders".to_owned(), source: boxed(Errno::CONNRESET) },
        &SourceError::Unsupported { what: "the view shop.totals".to_owned(), reason: "it has no data".to_owned() },
        &SourceError::Malformed { format: "RDB file", at_bytes: 4096, reason: "the checksum is wrong".to_owned() },
        &SourceError::Input { source: system(Errno::IO) },
        &SourceError::Output { source: system(Errno::PIPE) },
        &SourceError::NotEmpty { what: "the database shop".to_owned() },
        &SourceError::WouldLose {
            what: "what the queue `late` holds".to_owned(),
            reason: "the queue is not in the set, and holds 3 messages".to_owned(),
        },
        &SourceError::Differs { what: "shop.orders".to_owned(), reason: "found 99 documents, wanted 100".to_owned() },
    ]));
}

#[test]
fn vault() {
    let place = || "/srv/backups".to_owned();
    let path = || made::<VaultPath>("shop/2026-03-01T03-12-00Z/manifest.json");
    assert_snapshot!(told(&[
        &VaultError::Unreachable { place: place(), source: Box::new(system(Errno::CONNREFUSED)) },
        &VaultError::Missing { place: place(), path: path() },
        &VaultError::Exists { place: place(), path: path() },
        &VaultError::Body { path: path(), source: system(Errno::IO) },
        &VaultError::Disk { place: place(), path: path(), source: full("/srv/backups/shop/manifest.json") },
        &VaultError::Denied { place: place(), doing: "list objects", reason: "it answers 403: AccessDenied".to_owned() },
        &VaultError::Damaged {
            place: place(),
            reason: "`restic dump` ended with exit status: 1: ciphertext verification failed".to_owned()
        },
        &VaultError::Foreign { place: place(), what: "the file notes.txt".to_owned() },
    ]));
}

#[test]
fn set() {
    assert_snapshot!(told(&[
        &SetError::Damaged { file: "manifest", reason: "it is not JSON".to_owned() },
        &SetError::TooNew { found: 9 },
        &SetError::Write { source: serde_json::from_str::<u8>("{").unwrap_err() },
    ]));
}

//! The backups of a project as a whole: what plans rely on, one writer at a time, and what dead processes leave.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kaleem_backup::backups::{Act, Depth, Grade, NamedVault, NewSet, RestoreRequest};
use kaleem_backup::retention::{BEFORE_RESTORE, Policy};
use kaleem_backup::seal::{Keys, Protection};
use kaleem_backup::source::files::FilesSource;
use kaleem_backup::vault::LocalVault;
use kaleem_backup::{BackupParts, Backups, BackupsError};
use kaleem_core::backup::{BackupSource, BackupVault, RestoreMode};
use kaleem_core::lease::LeaseError;
use kaleem_core::names::SetId;
use kaleem_core::testing::FakeVault;
use kaleem_core::testing::sets_contract::{self, Content, SetsWorld};

use crate::support::{BAR, Habit, MemorySource, Noon, OPLOG};

pub(crate) fn parts(directory: &Path, sources: Vec<Arc<dyn BackupSource>>, vaults: Vec<(&str, Arc<dyn BackupVault>)>) -> BackupParts {
    BackupParts {
        project: "shop".parse().unwrap(),
        sources,
        covers: Vec::new(),
        not_covered: Vec::new(),
        vaults: vaults.into_iter().map(|(name, vault)| NamedVault { name: name.to_owned(), vault }).collect(),
        protection: Some(Protection::Unencrypted),
        keys: Keys::none(),
        directory: directory.to_owned(),
        owner: "a test".to_owned(),
        silence: Duration::from_secs(10),
        clock: Arc::new(Noon),
    }
}

fn memory() -> Vec<Arc<dyn BackupSource>> {
    vec![MemorySource::new("main", OPLOG, Habit::Sound), MemorySource::new("bar", BAR, Habit::Sound)]
}

fn directory(place: &Path, name: &str) -> PathBuf {
    let path = place.join(name);
    std::fs::create_dir(&path).unwrap();
    path
}

fn quiet() -> Arc<kaleem_backup::vault::metered::MoveObserver> {
    Arc::new(|_| {})
}

fn named(text: &str) -> NewSet {
    NewSet { set: Some(text.parse().unwrap()), ..NewSet::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_backups_of_a_project_keep_the_contract_of_backup_sets() {
    let place = tempfile::tempdir().unwrap();
    let data = directory(place.path(), "data");
    let vaults = [directory(place.path(), "one"), directory(place.path(), "two")];
    let vaults = [("one", &vaults[0]), ("two", &vaults[1])].map(|(name, path)| {
        let vault: Arc<dyn BackupVault> = Arc::new(LocalVault::open(path).unwrap());
        (name, vault)
    });
    let source = Arc::new(FilesSource::new("data".parse().unwrap(), &data));
    let backups = Backups::new(parts(&place.path().join("state"), vec![source], vaults.into()));
    let file = data.join("content");
    let write = |content| {
        let text: &[u8] = if content == Content::One { b"one" } else { b"other" };
        kaleem_core::durable::write_atomic(&file, text, 0o644).unwrap();
    };
    let read = || if std::fs::read(&file).unwrap() == b"one" { Content::One } else { Content::Other };
    let wrong = sets_contract::check(&SetsWorld { sets: &backups, write: &write, read: &read }).await;
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_works_at_a_time_and_the_other_is_told() {
    let place = tempfile::tempdir().unwrap();
    let vault = Arc::new(FakeVault::new());
    let backups = || Backups::new(parts(place.path(), memory(), vec![("one", vault.clone())]));
    let held = backups().lock().await.unwrap();
    let refused = backups().create(&named("20260101t000000z-a"), quiet()).await;
    assert!(matches!(refused, Err(BackupsError::Lease { source: LeaseError::Busy { .. } })), "{refused:?}");
    assert!(vault.objects().is_empty());
    drop(held);
    backups().create(&named("20260101t000000z-a"), quiet()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_process_left_of_a_set_is_removed_by_the_next() {
    let place = tempfile::tempdir().unwrap();
    let vault = Arc::new(FakeVault::new());
    let backups = Backups::new(parts(place.path(), memory(), vec![("one", vault.clone())]));
    let begun: SetId = "20260101t000000z-begun".parse().unwrap();
    let of_it = |vault: &FakeVault| vault.objects().keys().filter(|path| path.segments().any(|part| part == begun.as_str())).count();
    {
        // Dropped in the middle, as if the process had ended.
        let slow = Backups::new(parts(
            place.path(),
            vec![MemorySource::new("bar", BAR, Habit::Sound), MemorySource::new("main", OPLOG, Habit::HangsAfter(10))],
            vec![("one", vault.clone())],
        ));
        let wanted = named(begun.as_str());
        let stored = async {
            while of_it(&vault) == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            made = slow.create(&wanted, quiet()) => panic!("it hangs: {made:?}"),
            stored = tokio::time::timeout(Duration::from_secs(60), stored) => stored.unwrap(),
        }
    }
    assert!(of_it(&vault) > 0, "something of it was stored: {:?}", vault.objects().keys());
    // Another died while it wrote down that it begins.
    let making = place.path().join("making");
    kaleem_core::durable::create_new(&making.join(".kaleem-0123456789abcdef.tmp"), b"").unwrap();
    backups.create(&named("20260101t000000z-next"), quiet()).await.unwrap();
    assert_eq!(of_it(&vault), 0);
    assert_eq!(std::fs::read_dir(&making).unwrap().count(), 0);
    let found: Vec<String> = backups.finished().await.unwrap().into_iter().map(|(manifest, _)| manifest.set.to_string()).collect();
    assert_eq!(found, ["20260101t000000z-next"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_that_is_damaged_in_one_vault_is_restored_from_the_other() {
    let place = tempfile::tempdir().unwrap();
    let (one, two) = (Arc::new(FakeVault::new()), Arc::new(FakeVault::new()));
    let backups = Backups::new(parts(place.path(), memory(), vec![("one", one.clone()), ("two", two.clone())]));
    let made = backups.create(&named("20260101t000000z-a"), quiet()).await.unwrap();
    assert!(made.shortcomings().is_empty(), "{:?}", made.shortcomings());
    let set = made.manifest.set;
    let damage = |vault: &FakeVault| {
        let (path, mut bytes) = vault.objects().into_iter().find(|(path, _)| path.segments().last() == Some("bar.zst")).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        vault.tamper(&path, bytes);
    };
    damage(&one);
    let verified = backups.verify(&set, quiet()).await.unwrap();
    let sound: Vec<bool> = verified.iter().map(|one| one.outcome.is_ok()).collect();
    assert_eq!((sound, verified[0].depth), (vec![false, true], Depth::Whole), "{verified:?}");
    let (vault, _) = backups.sound_vault(&set, &BTreeSet::new(), &quiet()).await.unwrap();
    assert_eq!(vault.name, "two");
    damage(&two);
    let refused = backups.restore(&set, &RestoreRequest::whole(RestoreMode::Replace), quiet(), &|done| panic!("{done:?}")).await;
    assert_eq!(refused.map_err(|error| error.grade()).unwrap_err(), Grade::Integrity);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_set_and_one_that_is_held_are_not_forgotten() {
    let place = tempfile::tempdir().unwrap();
    let backups = Backups::new(parts(place.path(), memory(), vec![("one", Arc::new(FakeVault::new()))]));
    let [first, second]: [SetId; 2] = ["20260101t000000z-a", "20260101t000000z-b"].map(|text| text.parse().unwrap());
    backups.create(&named(first.as_str()), quiet()).await.unwrap();
    assert!(matches!(backups.forget(&first).await, Err(BackupsError::LastVerified { .. })));
    backups.create(&named(second.as_str()), quiet()).await.unwrap();
    backups.hold(&first, "an audit").await.unwrap();
    assert!(matches!(backups.forget(&first).await, Err(BackupsError::Held { .. })));
    let pruned = backups.prune(&Policy::usual(), Act::Remove).await.unwrap();
    assert!(pruned[0].removed.is_empty(), "{pruned:?}");
    backups.release(&first).await.unwrap();
    backups.forget(&first).await.unwrap();
    assert!(matches!(backups.find(Some(&first)).await, Err(BackupsError::NoSuchSet { .. })));
    assert!(matches!(backups.forget(&second).await, Err(BackupsError::LastVerified { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_decides_for_others_that_a_vault_may_read_the_data() {
    let place = tempfile::tempdir().unwrap();
    let vault = Arc::new(FakeVault::new());
    let parts = BackupParts { protection: None, ..parts(place.path(), memory(), vec![("one", vault.clone())]) };
    let refused = Backups::new(parts).create(&named("20260101t000000z-a"), quiet()).await;
    assert!(matches!(refused, Err(BackupsError::NotProtected)), "{refused:?}");
    assert!(vault.objects().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_latest_set_is_not_the_one_that_a_restore_made_of_what_it_replaced() {
    let place = tempfile::tempdir().unwrap();
    let backups = Backups::new(parts(place.path(), memory(), vec![("one", Arc::new(FakeVault::new()))]));
    let safety = NewSet { tags: vec![BEFORE_RESTORE.to_owned()], ..named("20260102t000000z-safety") };
    backups.create(&safety, quiet()).await.unwrap();
    assert_eq!(backups.find(None).await.unwrap().set.as_str(), "20260102t000000z-safety", "there is no other");
    backups.create(&named("20260101t000000z-usual"), quiet()).await.unwrap();
    assert_eq!(backups.find(None).await.unwrap().set.as_str(), "20260101t000000z-usual");
}

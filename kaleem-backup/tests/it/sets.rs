//! Sets: whole or not there, and never believed when a byte of them is not right.

use std::sync::Arc;
use std::time::Duration;

use kaleem_backup::backups::Grade;
use kaleem_backup::seal::{Keys, Protection};
use kaleem_backup::set::{self, Copied, CreateRequest, SetFailure, SetState};
use kaleem_backup::vault::LocalVault;
use kaleem_core::backup::{BackupSource, BackupVault, Encryption, Manifest, RestoreMode, VaultPath};
use kaleem_core::remedy::Remedy;
use kaleem_core::secret::Secret;
use kaleem_core::testing::{FakeVault, VaultFault};

use crate::servers;
use crate::support::{BAR, Habit, MemorySource, Noon, OPLOG, request, stream};

/// A pair that was made with `age-keygen` for these tests alone.
fn key_pair() -> (Protection, Keys, String) {
    use age::secrecy::ExposeSecret;
    let identity = age::x25519::Identity::generate();
    let text = format!("# created for a test\n{}\n", identity.to_string().expose_secret());
    let keys = Keys::from_key_file(&Secret::new(text.clone())).unwrap();
    (Protection::to_recipients([identity.to_public().to_string().as_str()]).unwrap(), keys, text)
}

fn sources() -> Vec<Arc<dyn BackupSource>> {
    vec![MemorySource::new("main", OPLOG, Habit::Sound), MemorySource::new("bar", BAR, Habit::Sound)]
}

async fn make(vault: &dyn BackupVault, protection: Protection) -> CreateRequest {
    let request = request(protection);
    set::create(vault, &sources(), &request, &Noon).await.unwrap();
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_is_read_back_restored_and_copied_with_each_protection() {
    let (recipients, keys, _) = key_pair();
    let passphrase = Secret::new("correct horse".to_owned());
    for (why, protection, keys, encryption) in [
        ("recipients", recipients, keys, Encryption::AgeX25519),
        ("passphrase", Protection::Passphrase(passphrase.clone()), Keys::passphrase(passphrase), Encryption::AgePassphrase),
        ("unencrypted", Protection::Unencrypted, Keys::none(), Encryption::None),
    ] {
        let place = tempfile::tempdir().unwrap();
        let vault = LocalVault::open(place.path()).unwrap();
        let request = make(&vault, protection).await;
        let manifest = set::verify(&vault, &request.set, &keys).await.unwrap();
        assert_eq!(manifest.artifacts.iter().map(|artifact| artifact.name.as_str()).collect::<Vec<_>>(), ["bar", "main"], "{why}");
        assert!(manifest.artifacts.iter().all(|artifact| artifact.encryption == encryption), "{why}");
        let target = MemorySource::new("elsewhere", &[], Habit::Sound);
        let name = "main".parse().unwrap();
        set::restore(&vault, &request.set, &name, target.as_ref(), RestoreMode::IntoEmpty, &keys).await.unwrap();
        assert_eq!(target.restored.lock().unwrap().as_deref(), Some(OPLOG), "{why}");
        let second = FakeVault::new();
        assert_eq!(set::copy(&vault, &second, &request.set).await.unwrap(), Copied::Whole, "{why}");
        assert_eq!(set::copy(&vault, &second, &request.set).await.unwrap(), Copied::AlreadyThere, "{why}");
        set::verify(&second, &request.set, &keys).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_opens_only_with_its_own_key() {
    let (protection, _, _) = key_pair();
    let (_, other, _) = key_pair();
    let vault = FakeVault::new();
    let request = make(&vault, protection).await;
    for (why, keys) in
        [("another key", other.clone()), ("no key", Keys::none()), ("a passphrase", Keys::passphrase(Secret::new("x".to_owned())))]
    {
        let found = set::verify(&vault, &request.set, &keys).await;
        assert!(matches!(found, Err(SetFailure::Locked { .. })), "{why}: {found:?}");
        assert_eq!(found.unwrap_err().grade(), Grade::CouldNotVerify, "{why}");
    }
    vault.break_with(Some(VaultFault::GetBreaks));
    let found = set::verify(&vault, &request.set, &other).await;
    assert_eq!(found.map_err(|failure| failure.grade()), Err(Grade::VaultUnreachable), "what was not read is not called locked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_at_any_byte_of_any_file_is_found() {
    // Unencrypted, so that nothing but our own sums stands in for the cipher's.
    let (recipients, keys, _) = key_pair();
    for (why, protection, keys) in [("unencrypted", Protection::Unencrypted, Keys::none()), ("encrypted", recipients, keys)] {
        let vault = FakeVault::new();
        let request = request(protection);
        let only: Vec<Arc<dyn BackupSource>> = vec![MemorySource::new("bar", BAR, Habit::Sound)];
        set::create(&vault, &only, &request, &Noon).await.unwrap();
        for (path, bytes) in vault.objects() {
            if path.as_str().ends_with("README.txt") {
                continue;
            }
            let description = ["COMMIT", "manifest.json"].iter().any(|file| path.as_str().ends_with(file));
            // However the cipher or the format took it: it is damage, and never the vault's or the key's fault.
            let found_damaged = |found: Result<Manifest, SetFailure>, how: String| {
                let failure = found.expect_err(&how);
                match &failure {
                    SetFailure::Description { .. } if description => (),
                    SetFailure::Stored { .. } if !description => {
                        assert_eq!(failure.remedy(), "use another backup set; this one is damaged", "{how}");
                    }
                    other => panic!("{how}: {other:?}"),
                }
                assert_eq!(failure.grade(), Grade::Integrity, "{how}");
            };
            for at in 0..bytes.len() {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << (at % 8);
                vault.tamper(&path, changed);
                let found = set::verify(&vault, &request.set, &keys).await;
                found_damaged(found, format!("{why}: byte {at} of {path} was changed"));
                vault.tamper(&path, bytes[..at].to_vec());
                let found = set::verify(&vault, &request.set, &keys).await;
                found_damaged(found, format!("{why}: {path} was cut to {at} bytes"));
            }
            vault.tamper(&path, bytes);
        }
        set::verify(&vault, &request.set, &keys).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn swapped_artifacts_and_swapped_sets_are_found() {
    let vault = FakeVault::new();
    let one = make(&vault, Protection::Unencrypted).await;
    let two = CreateRequest { set: "20260302t120000z-0a0b0c0d".parse().unwrap(), ..one.clone() };
    set::create(&vault, &sources(), &two, &Noon).await.unwrap();
    let sound = vault.objects();
    let at = |set: &kaleem_core::names::SetId, file: &str| VaultPath::in_set(set, file).unwrap();
    for (why, from, to) in [
        ("an artifact in the place of another", at(&one.set, "bar.zst"), at(&one.set, "main.zst")),
        ("the COMMIT of another set", at(&two.set, "COMMIT"), at(&one.set, "COMMIT")),
        ("the manifest of another set", at(&two.set, "manifest.json"), at(&one.set, "manifest.json")),
    ] {
        vault.tamper(&to, sound[&from].clone());
        assert!(set::verify(&vault, &one.set, &Keys::none()).await.is_err(), "{why}");
        vault.tamper(&to, sound[&to].clone());
    }
    for file in ["COMMIT", "manifest.json", "README.txt", "bar.zst", "main.zst"] {
        vault.tamper(&at(&one.set, file), sound[&at(&two.set, file)].clone());
    }
    let found = set::verify(&vault, &one.set, &Keys::none()).await;
    assert!(matches!(found, Err(SetFailure::Description { .. })), "a whole set under another name: {found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_that_lies_about_what_it_stored_gets_no_commit() {
    for fault in [VaultFault::AcknowledgeAndLose, VaultFault::FlipBit, VaultFault::CutShort, VaultFault::GetBreaks] {
        let vault = FakeVault::new();
        vault.break_with(Some(fault));
        let request = request(Protection::Unencrypted);
        let found = set::create(&vault, &sources(), &request, &Noon).await;
        assert!(found.is_err(), "{fault:?}: {found:?}");
        assert!(!vault.objects().keys().any(|path| path.as_str().ends_with("COMMIT")), "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_making_that_dies_at_any_write_leaves_no_set() {
    // Two artifacts, instructions, manifest, COMMIT.
    for writes in 0..5 {
        let vault = FakeVault::new();
        vault.break_with(Some(VaultFault::PutAfter(writes)));
        let request = request(Protection::Unencrypted);
        let failure = set::create(&vault, &sources(), &request, &Noon).await.unwrap_err();
        assert!(matches!(failure, SetFailure::Vault { .. }), "{writes}: {failure:?}");
        assert_eq!(vault.objects().len(), 0, "what was written before write {writes} was removed");
    }
    let vault = FakeVault::new();
    vault.break_with(Some(VaultFault::PutAfter(5)));
    set::create(&vault, &sources(), &request(Protection::Unencrypted), &Noon).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_dies_hangs_or_lies_makes_no_set() {
    for habit in [Habit::DiesAfter(0), Habit::DiesAfter(4000), Habit::HangsAfter(2000), Habit::Lies] {
        let vault = FakeVault::new();
        let request = CreateRequest { silence: Duration::from_millis(200), ..request(Protection::Unencrypted) };
        let sources: Vec<Arc<dyn BackupSource>> =
            vec![MemorySource::new("bar", BAR, Habit::Sound), MemorySource::new("main", OPLOG, habit)];
        let failure = set::create(&vault, &sources, &request, &Noon).await.unwrap_err();
        let right = match habit {
            Habit::DiesAfter(_) => matches!(failure, SetFailure::Source { .. }),
            Habit::HangsAfter(_) => matches!(failure, SetFailure::Stalled { .. }),
            _ => matches!(failure, SetFailure::Contents { .. }),
        };
        assert!(right, "{habit:?}: {failure:?}");
        assert!(!failure.remedy().is_empty());
        assert_eq!(vault.objects().len(), 0, "{habit:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_was_used_is_refused_and_the_set_under_it_stays() {
    let vault = FakeVault::new();
    let request = make(&vault, Protection::Unencrypted).await;
    let before = vault.objects();
    let again = set::create(&vault, &sources(), &request, &Noon).await;
    assert!(matches!(again, Err(SetFailure::Request { .. })), "{again:?}");
    assert_eq!(vault.objects(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_tells_sets_from_what_is_unfinished_or_damaged_and_fails_when_the_vault_does() {
    let vault = FakeVault::new();
    let whole = make(&vault, Protection::Unencrypted).await;
    for (name, change) in [("20260302t120000z-00000000", "unfinished"), ("20260303t120000z-00000000", "damaged")] {
        let other = CreateRequest { set: name.parse().unwrap(), ..whole.clone() };
        set::create(&vault, &sources(), &other, &Noon).await.unwrap();
        let commit = VaultPath::in_set(&other.set, "COMMIT").unwrap();
        match change {
            "unfinished" => vault.delete(&commit).await.unwrap(),
            _ => vault.tamper(&commit, b"kaleem backup set, format 1\n".to_vec()),
        }
    }
    let listed = set::list(&vault).await.unwrap();
    let states: Vec<&str> = listed
        .iter()
        .map(|entry| match &entry.state {
            SetState::Committed { .. } => "committed",
            SetState::Unfinished => "unfinished",
            SetState::Damaged(_) => "damaged",
        })
        .collect();
    assert_eq!(states, ["committed", "unfinished", "damaged"]);
    vault.break_with(Some(VaultFault::List));
    assert!(matches!(set::list(&vault).await, Err(SetFailure::List { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_into_a_vault_that_fails_is_no_set_and_can_be_repeated() {
    let vault = FakeVault::new();
    let request = make(&vault, Protection::Unencrypted).await;
    let second = FakeVault::new();
    for writes in 0..5 {
        second.break_with(Some(VaultFault::PutAfter(writes)));
        let found = set::copy(&vault, &second, &request.set).await;
        // What an earlier try wrote stays and counts.
        if found.is_err() {
            let state = set::read(&second, &request.set).await;
            assert!(matches!(state, Err(SetFailure::Unfinished { .. })), "{writes}: {state:?}");
        }
    }
    second.break_with(None);
    set::copy(&vault, &second, &request.set).await.unwrap();
    set::verify(&second, &request.set, &Keys::none()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_tools_recover_a_set_as_its_readme_says() {
    if !servers::all_there(&["age", "zstd"]) {
        return;
    }
    let (protection, _, key_file) = key_pair();
    let place = tempfile::tempdir().unwrap();
    let vault = LocalVault::open(place.path()).unwrap();
    let request = make(&vault, protection).await;
    let directory = place.path().join("sets").join(request.set.as_str());
    kaleem_core::durable::create_new(&directory.join("KEYFILE"), key_file.as_bytes()).unwrap();
    let readme = std::fs::read_to_string(directory.join("README.txt")).unwrap();
    let mut recovered = 0;
    for line in readme.lines() {
        let command = if let Some(check) = line.trim().strip_prefix("check:") {
            check.to_owned()
        } else if let Some(recover) = line.trim().strip_prefix("recover:") {
            recovered += 1;
            recover.replace("| mongorestore --archive", &format!("> recovered-{recovered}"))
        } else {
            continue;
        };
        assert!(servers::shell(&command, &directory), "{command}");
    }
    let found: Vec<Vec<u8>> = (1..=2).map(|number| std::fs::read(directory.join(format!("recovered-{number}"))).unwrap()).collect();
    assert_eq!(found, [BAR.to_vec(), OPLOG.to_vec()]);
}

#[tokio::test]
async fn keys_that_are_none_are_refused_without_showing_them() {
    assert!(Protection::to_recipients([]).is_err());
    assert!(Protection::to_recipients(["age1nonsense"]).is_err());
    for text in ["", "# only a comment\n", "AGE-SECRET-KEY-1NONSENSE\n"] {
        let error = Keys::from_key_file(&Secret::new(text.to_owned())).unwrap_err();
        assert!(!format!("{error:?} {error}").contains("NONSENSE"), "{error:?}");
    }
    drop(stream(b""));
}

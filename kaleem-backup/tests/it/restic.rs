//! A repository of restic as a vault, with the real program.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kaleem_backup::backups::{Act, Depth, Grade, NewSet, RestoreRequest};
use kaleem_backup::retention::Policy;
use kaleem_backup::seal::{Keys, Protection};
use kaleem_backup::set::{self, CreateRequest, SetFailure};
use kaleem_backup::setup::SetUpError;
use kaleem_backup::vault::{ResticSettings, ResticVault};
use kaleem_core::backup::{BackupSource, BackupVault, RestoreMode, VaultError};
use kaleem_core::remedy::{Remedy, one_line};
use kaleem_core::secret::Secret;
use kaleem_core::testing::backup_contract;

use crate::servers;
use crate::setup::set_up;
use crate::support::{BAR, Habit, MemorySource, Noon, OPLOG, request, stream};

/// The name of a key is the digest of its file.
const KEY: &str = "f43845fa42713371f9bf3b495310bb6bac0b31e7174838b2b193ea3469cacfc1";

/// A repository of the test's own, in `place`; `None` where there is no restic, which was said.
fn repository(place: &Path) -> Option<ResticVault> {
    if !servers::all_there(&["restic"]) {
        return None;
    }
    // What `restic init` made under `nice` on a busy machine: it makes a key as costly as the machine is quick, and each call pays for it.
    let repository = place.join("repository");
    for part in ["keys", "data", "index", "locks", "snapshots"] {
        std::fs::create_dir_all(repository.join(part)).unwrap();
    }
    for (file, bytes) in [
        (place.join("password"), &b"a word\n"[..]),
        (repository.join("config"), include_bytes!("../fixtures/restic/config")),
        (repository.join("keys").join(KEY), include_bytes!("../fixtures/restic/key")),
    ] {
        kaleem_core::durable::create_new(&file, bytes).unwrap();
    }
    Some(vault(place, &place.join("repository").display().to_string()))
}

fn vault(place: &Path, repository: &str) -> ResticVault {
    let program = servers::on_path("restic").unwrap();
    ResticVault::new(ResticSettings {
        program,
        repository: Secret::new(repository.to_owned()),
        password_file: place.join("password"),
        cache: place.join("cache"),
        environment: BTreeMap::new(),
    })
}

fn sources(habit: Habit) -> Vec<Arc<dyn BackupSource>> {
    vec![MemorySource::new("bar", BAR, Habit::Sound), MemorySource::new("main", OPLOG, habit)]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_keeps_the_contract_of_vaults() {
    let place = tempfile::tempdir().unwrap();
    let Some(vault) = repository(place.path()) else { return };
    assert_eq!(backup_contract::check_slow(&vault).await, Vec::<String>::new());
    assert!(servers::shell("restic -q -r repository -p password --cache-dir cache check --read-data", place.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_is_made_verified_and_put_back_and_stock_tools_recover_it() {
    let place = tempfile::tempdir().unwrap();
    let Some(vault) = repository(place.path()) else { return };
    let request = request(Protection::Unencrypted);
    let manifest = set::create(&vault, &sources(Habit::Sound), &request, &Noon).await.unwrap();
    assert_eq!(set::verify(&vault, &request.set, &Keys::none()).await.unwrap(), manifest);
    let listed = set::list(&vault).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert!(listed[0].size_bytes > manifest.artifacts.iter().map(|record| record.stored_bytes).sum::<u64>());
    let target = MemorySource::new("bar", BAR, Habit::Sound);
    let name = "bar".parse().unwrap();
    set::restore(&vault, &request.set, &name, target.as_ref(), RestoreMode::IntoEmpty, &Keys::none()).await.unwrap();
    assert_eq!(target.restored.lock().unwrap().as_deref(), Some(BAR));
    if servers::all_there(&["zstd"]) {
        let file = format!("/kaleem+sets+{}+bar.zst", request.set);
        let recover =
            format!("restic -q -r repository -p password --cache-dir cache dump latest --path {file} {file} | zstd -dc > recovered");
        assert!(servers::shell(&recover, place.path()));
        assert_eq!(std::fs::read(place.path().join("recovered")).unwrap(), BAR);
    }
    set::discard(&vault, &request.set).await.unwrap();
    assert!(set::list(&vault).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_fails_or_a_verifier_that_does_leaves_no_snapshot() {
    let place = tempfile::tempdir().unwrap();
    let Some(vault) = repository(place.path()) else { return };
    let all = "sets".parse().unwrap();
    for habit in [Habit::DiesAfter(4000), Habit::HangsAfter(2000), Habit::Lies] {
        let silence = if matches!(habit, Habit::HangsAfter(_)) { Duration::from_secs(5) } else { Duration::from_secs(300) };
        let request = CreateRequest { silence, ..request(Protection::Unencrypted) };
        let failure = set::create(&vault, &sources(habit), &request, &Noon).await.unwrap_err();
        let right = match habit {
            Habit::DiesAfter(_) => matches!(failure, SetFailure::Source { .. }),
            Habit::HangsAfter(_) => matches!(failure, SetFailure::Stalled { .. }),
            _ => matches!(failure, SetFailure::Contents { .. }),
        };
        assert!(right, "{habit:?}: {failure:?}");
        assert_eq!(vault.list(&all).await.unwrap(), Vec::new(), "{habit:?}");
    }
    // What others keep in the repository stays theirs.
    assert!(servers::shell("restic -q -r repository -p password --cache-dir cache backup password", place.path()));
    assert_eq!(vault.list(&all).await.unwrap(), Vec::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_missing_or_locked_up_is_an_error_that_shows_no_password() {
    let place = tempfile::tempdir().unwrap();
    let Some(vault) = repository(place.path()) else { return };
    let request = request(Protection::Unencrypted);
    set::create(&vault, &sources(Habit::Sound), &request, &Noon).await.unwrap();
    let other = self::vault(place.path(), "rest:http://user:hunter2@127.0.0.1:1/shop");
    let gone = other.list(&"sets".parse().unwrap()).await;
    let Err(VaultError::Unreachable { .. }) = &gone else { panic!("{gone:?}") };
    let shown = format!("{gone:?} {} {other:?}", one_line(gone.as_ref().unwrap_err()));
    assert!(!shown.contains("hunter2"), "{shown}");
    // One byte in the middle of every file of a kind, and then back: whatever restic finds wrong is told as damage.
    for kind in ["data", "snapshots", "index"] {
        let flip = format!(
            "import glob, os\nfor name in filter(os.path.isfile, glob.glob('repository/{kind}/**/*', recursive=True)):\n  f = open(name, 'r+b'); n = f.seek(0, 2) // 2; f.seek(n); b = f.read(1); f.seek(n); f.write(bytes([b[0] ^ 1]))"
        );
        let flip = format!("chmod -R u+w repository/{kind}; rm -rf cache; python3 -c \"{flip}\"");
        assert!(servers::shell(&flip, place.path()));
        let found = set::verify(&vault, &request.set, &Keys::none()).await.unwrap_err();
        assert_eq!(found.grade(), Grade::Integrity, "{kind}: {}", one_line(&found));
        if kind == "snapshots" {
            let unlisted = vault.list(&"sets".parse().unwrap()).await;
            assert!(matches!(unlisted, Err(VaultError::Damaged { .. })), "what cannot be read is not left out: {unlisted:?}");
        }
        assert!(servers::shell(&flip, place.path()));
        set::verify(&vault, &request.set, &Keys::none()).await.unwrap();
    }
    // A snapshot that nobody can read might be anybody's: no listing is the truth then, and what is found by its name can be had.
    let rotten = "ls repository/snapshots > before; restic -q -r repository -p password --no-cache backup password; rm -rf cache; \
        rotten=$(ls repository/snapshots | grep -vxFf before); chmod u+w repository/snapshots/$rotten; : > repository/snapshots/$rotten";
    assert!(servers::shell(rotten, place.path()));
    let unlisted = vault.list(&"sets".parse().unwrap()).await;
    assert!(matches!(unlisted, Err(VaultError::Damaged { .. })), "{unlisted:?}");
    set::verify(&vault, &request.set, &Keys::none()).await.unwrap();
    assert!(servers::shell("rm repository/snapshots/$(ls repository/snapshots | grep -vxFf before)", place.path()));
    assert!(!vault.list(&"sets".parse().unwrap()).await.unwrap().is_empty());
    kaleem_core::durable::write_atomic(&place.path().join("password"), b"hunter2\n", 0o600).unwrap();
    let refused = vault.list(&"sets".parse().unwrap()).await.unwrap_err();
    let shown = one_line(&refused);
    assert!(shown.contains("wrong password") && !shown.contains("hunter2"), "{shown}");
    std::fs::remove_dir_all(place.path().join("repository")).unwrap();
    assert!(vault.list(&"sets".parse().unwrap()).await.is_err(), "a repository that is not there is not an empty one");
}

/// The locks of the repository in `place`.
fn locks(place: &Path) -> usize {
    let names = std::fs::read_dir(place.join("repository/locks")).unwrap().map(|entry| entry.unwrap().file_name());
    // A file that is still being written has another name until it is whole, and keeps that when its writer is killed.
    names.filter(|name| name.to_str().unwrap().bytes().all(|byte| byte.is_ascii_hexdigit())).count()
}

/// restic as somebody else starts it, killed when the test ends.
#[expect(clippy::disallowed_methods, reason = "a test does what a person would do by hand")]
fn other_restic(place: &Path, arguments: &[&str]) -> tokio::process::Child {
    let mut command = tokio::process::Command::new(servers::on_path("restic").unwrap());
    command.args(["-q", "-r", "repository", "-p", "password", "--cache-dir", "cache"]).args(arguments).current_dir(place);
    command.stdin(std::process::Stdio::piped()).kill_on_drop(true).spawn().unwrap()
}

/// Waits until there is a lock; answers whether one came before that restic ended.
async fn is_locked(place: &Path, other: &mut tokio::process::Child) -> bool {
    let locked = async {
        while locks(place) == 0 {
            if other.try_wait().unwrap().is_some() {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        true
    };
    tokio::time::timeout(Duration::from_secs(60), locked).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_of_the_dead_holds_nobody_up_and_one_of_the_living_is_told() {
    let place = tempfile::tempdir().unwrap();
    let Some(first) = repository(place.path()) else { return };
    let (path, all) = ("sets/one".parse().unwrap(), "sets".parse().unwrap());
    first.put_if_absent(&path, stream(b"1")).await.unwrap();

    // It lives as long as its input is open, and whoever wants to remove something has to wait.
    let mut living = other_restic(place.path(), &["backup", "--stdin"]);
    assert!(is_locked(place.path(), &mut living).await);
    let refused = one_line(&first.delete(&path).await.unwrap_err());
    assert!(refused.contains("already locked by PID"), "{refused}");
    assert_eq!(locks(place.path()), 1, "it is not ours");
    living.kill().await.unwrap();
    assert_eq!(locks(place.path()), 1);
    // The next process that writes anything tidies up.
    vault(place.path(), &place.path().join("repository").display().to_string())
        .put_if_absent(&"sets/two".parse().unwrap(), stream(b"2"))
        .await
        .unwrap();
    assert_eq!(locks(place.path()), 0);

    // One that wanted to be alone.
    let mut tries = 0..50;
    loop {
        assert!(tries.next().is_some(), "it is never seen with its lock");
        let mut alone = other_restic(place.path(), &["prune", "--max-unused", "0"]);
        if is_locked(place.path(), &mut alone).await {
            alone.kill().await.unwrap();
        }
        if locks(place.path()) > 0 {
            break;
        }
    }
    assert_eq!(first.list(&all).await.unwrap().len(), 2);
    assert_eq!(locks(place.path()), 0);
    first.delete(&path).await.unwrap();
    assert_eq!(first.list(&all).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn kaleem_toml_names_a_repository_and_sets_are_made_listed_verified_restored_and_pruned_there() {
    let place = tempfile::tempdir().unwrap();
    let Some(_vault) = repository(place.path()) else { return };
    std::fs::create_dir(place.path().join("uploads")).unwrap();
    kaleem_core::durable::create_new(&place.path().join("uploads/picture"), &[7; 10_000]).unwrap();
    let settings = "[backup]\nunencrypted = true\n[backup.vaults.theirs]\nrestic = \"repository\"\npassword-file = \"password\"\n\
                    [backup.sources.uploads]\nkind = \"files\"\npath = \"uploads\"\n";
    let program = servers::on_path("restic").unwrap();
    let variables = [("PATH", program.parent().unwrap().display().to_string())];
    let backups = set_up(place.path(), settings, &variables).await.unwrap().backups;
    let quiet = || -> Arc<kaleem_backup::vault::metered::MoveObserver> { Arc::new(|_| {}) };
    let first = backups.create(&NewSet::default(), quiet()).await.unwrap().manifest;
    let second = backups.create(&NewSet::default(), quiet()).await.unwrap().manifest;
    let verified = backups.verify(&first.set, quiet()).await.unwrap();
    assert_eq!((verified.len(), verified[0].depth), (1, Depth::Whole));
    verified[0].outcome.as_ref().unwrap();
    std::fs::remove_file(place.path().join("uploads/picture")).unwrap();
    backups.restore(&first.set, &RestoreRequest::whole(RestoreMode::IntoEmpty), quiet(), &|_| {}).await.unwrap();
    assert_eq!(std::fs::read(place.path().join("uploads/picture")).unwrap(), [7; 10_000]);
    assert_eq!(backups.prune(&Policy::usual(), Act::Remove).await.unwrap()[0].removed.len(), 1);
    let left: Vec<_> = backups.finished().await.unwrap().into_iter().map(|(manifest, _)| manifest.set).collect();
    assert_eq!(left.len(), 1);
    assert!(left[0] == first.set || left[0] == second.set);

    let missing = set_up(place.path(), settings, &[("PATH", "/nowhere".to_owned())]).await.err().unwrap();
    assert!(matches!(missing, SetUpError::NoProgram { .. }), "{missing:?}");
    assert_eq!(missing.to_string(), "the vault `theirs` needs the program `restic`, which is not here");
    assert!(missing.remedy().contains("apt-get install restic"), "{}", missing.remedy());
}

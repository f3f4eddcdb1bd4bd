//! Drills: they pass for what is good, fail for what is not, and say so when they could not be done.

use std::collections::BTreeMap;
use std::sync::Arc;

use kaleem_backup::drill::{Control, Verdict, drill};
use kaleem_backup::seal::{Keys, Protection};
use kaleem_backup::set;
use kaleem_backup::source::files::FilesSource;
use kaleem_backup::source::redis::{RedisAddress, RedisSource};
use kaleem_core::backup::{BackupSource, VaultPath};
use kaleem_core::names::ArtifactName;
use kaleem_core::secret::Secret;
use kaleem_core::testing::{FakeVault, VaultFault};

use crate::servers::{self, Server};
use crate::support::{BAR, Habit, MemorySource, Noon, OPLOG, request};

type Scratch = BTreeMap<ArtifactName, Arc<dyn BackupSource>>;

fn scratch() -> Scratch {
    let target = |name: &str| (name.parse().unwrap(), MemorySource::new(name, &[], Habit::Sound) as Arc<dyn BackupSource>);
    BTreeMap::from([target("bar"), target("main")])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_passes_only_for_a_set_that_is_whole_and_can_be_read() {
    let vault = FakeVault::new();
    let request = request(Protection::Passphrase(Secret::new("one".to_owned())));
    let sources: Vec<Arc<dyn BackupSource>> =
        vec![MemorySource::new("main", OPLOG, Habit::Sound), MemorySource::new("bar", BAR, Habit::Sound)];
    set::create(&vault, &sources, &request, &Noon).await.unwrap();
    let (right, wrong) = (Keys::passphrase(Secret::new("one".to_owned())), Keys::passphrase(Secret::new("two".to_owned())));
    let all = scratch();
    let mut few = scratch();
    few.pop_last();
    let run = async |targets: &Scratch, keys: &Keys, control| drill(&vault, &request.set, targets, keys, control, &Noon).await;

    let report = run(&all, &right, Control::AsItIs).await;
    assert_eq!((report.verdict, report.artifacts.len(), report.seconds_lost), (Verdict::Pass, 2, Some(0)), "{report:?}");
    let report = run(&all, &right, Control::OneByteChanged).await;
    assert!(report.artifacts.iter().all(|artifact| artifact.verdict == Verdict::Fail), "one byte was changed: {report:?}");
    assert_eq!(run(&few, &right, Control::AsItIs).await.verdict, Verdict::CouldNotVerify, "a scratch store is missing");
    assert_eq!(run(&all, &wrong, Control::AsItIs).await.verdict, Verdict::CouldNotVerify, "the wrong key");

    vault.break_with(Some(VaultFault::GetBreaks));
    assert_eq!(run(&all, &right, Control::AsItIs).await.verdict, Verdict::CouldNotVerify, "the vault breaks");
    vault.break_with(None);

    let commit = VaultPath::in_set(&request.set, "COMMIT").unwrap();
    let sound = vault.objects();
    vault.tamper(&commit, b"damaged".to_vec());
    assert_eq!(run(&all, &right, Control::AsItIs).await.verdict, Verdict::Fail, "the COMMIT is damaged");
    vault.tamper(&commit, sound[&commit].clone());
    let artifact = VaultPath::in_set(&request.set, "bar.zst.age").unwrap();
    vault.tamper(&artifact, sound[&artifact][..100].to_vec());
    assert_eq!(run(&all, &right, Control::AsItIs).await.verdict, Verdict::Fail, "an artifact is cut short");
    vault.tamper(&artifact, sound[&artifact].clone());
    assert_eq!(run(&all, &right, Control::AsItIs).await.verdict, Verdict::Pass);
}

fn redis(server: &Server) -> Arc<dyn BackupSource> {
    let address = RedisAddress { host: "127.0.0.1".to_owned(), port: server.port, username: None, password: None };
    Arc::new(RedisSource::new("cache".parse().unwrap(), address, std::time::Duration::from_secs(10)))
}

#[tokio::test(flavor = "multi_thread")]
async fn real_stores_of_two_kinds_in_one_set_pass_a_drill_and_fail_with_one_byte_changed() {
    let place = tempfile::tempdir().unwrap();
    let directory = |name: &str| {
        let path = place.path().join(name);
        std::fs::create_dir(&path).unwrap();
        path
    };
    let Some(server) = servers::redis(&directory("redis"), &[]) else { return };
    servers::redis_cli(&server, &[], "SET one 1\nRPUSH list a b c\n");
    let uploads = directory("uploads");
    kaleem_core::durable::create_new(&uploads.join("picture"), &[7; 100_000]).unwrap();
    let files = |path: &std::path::Path| Arc::new(FilesSource::new("uploads".parse().unwrap(), path)) as Arc<dyn BackupSource>;
    let vault = FakeVault::new();
    let request = request(Protection::Unencrypted);
    set::create(&vault, &[redis(&server), files(&uploads)], &request, &Noon).await.unwrap();

    for (control, wanted) in [(Control::OneByteChanged, Verdict::Fail), (Control::AsItIs, Verdict::Pass)] {
        let empty = servers::redis(&directory(&format!("redis-{control:?}")), &[]).unwrap();
        let target = directory(&format!("uploads-{control:?}"));
        let scratch = Scratch::from([("cache".parse().unwrap(), redis(&empty)), ("uploads".parse().unwrap(), files(&target))]);
        let report = drill(&vault, &request.set, &scratch, &Keys::none(), control, &Noon).await;
        assert!(report.artifacts.iter().all(|artifact| artifact.verdict == wanted), "{control:?}: {report:?}");
        assert_eq!(target.join("picture").exists(), wanted == Verdict::Pass);
    }
}

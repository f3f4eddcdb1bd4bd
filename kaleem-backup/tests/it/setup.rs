//! From the files of a project to its backups: all that `kaleem.toml` can name, with real servers behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use kaleem_backup::backups::{Depth, Grade, NewSet};
use kaleem_backup::drill::{Control, Verdict, drill};
use kaleem_backup::setup::{self, SetUp, SetUpError, StoreKind, Surroundings};
use kaleem_backup::source::files::FilesSource;
use kaleem_core::backup::{BackupSource, SourceKind};
use kaleem_core::config::{self, LoadOptions};
use kaleem_core::names::ArtifactName;
use kaleem_core::secret::Secret;

use crate::qdrant_stand_in::{KEY, StandIn};
use crate::support::Noon;
use crate::{rabbitmq, s3, servers};

const COMPOSE: &str = "name: shop\nservices:\n  web: {image: 'kaleem.invalid/web:1', volumes: ['shared:/data']}\nvolumes: {shared: {}}\n";

pub(crate) async fn set_up(directory: &Path, settings: &str, variables: &[(&str, String)]) -> Result<SetUp, SetUpError> {
    let file = |name: &str, text: &str| kaleem_core::durable::write_atomic(&directory.join(name), text.as_bytes(), 0o644).unwrap();
    file("compose.yaml", COMPOSE);
    file("kaleem.toml", settings);
    let environment: BTreeMap<String, String> = variables.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let options = LoadOptions {
        directory: directory.to_owned(),
        files: Vec::new(),
        env_files: Vec::new(),
        environment: environment.clone(),
        profiles: Vec::new(),
        project_name: None,
        settings_file: None,
    };
    let project = config::load(&options).unwrap();
    setup::set_up(&Surroundings {
        project: &project,
        found: Vec::new(),
        instances: &[],
        runtime: None,
        environment: &environment,
        directory: directory.join("state"),
        key_file: None,
        unencrypted: false,
        owner: "a test".to_owned(),
        clock: Arc::new(Noon),
    })
    .await
}

fn quiet() -> Arc<kaleem_backup::vault::metered::MoveObserver> {
    Arc::new(|_| {})
}

fn variables(pairs: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    pairs.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
}

const EVERYTHING: &str = r#"
[backup]
passphrase-env = "PASSPHRASE"

[backup.vaults.bucket]
bucket = "bucket"
prefix = "backups/shop"
endpoint = "http://127.0.0.1:S3"
access-key-env = "BUCKET_KEY"
secret-key-file = "bucket-secret"

[backup.sources.main]
kind = "mongodb"
url-env = "MONGO"
databases = ["shop"]

[backup.sources.cache]
kind = "redis"
url-env = "REDIS"

[backup.sources.broker]
kind = "rabbitmq"
url-env = "RABBIT"

[backup.sources.vectors]
kind = "qdrant"
url-env = "QDRANT"
api-key-env = "QDRANT_KEY"

[backup.sources.uploads]
kind = "files"
path = "uploads"

[backup.sources.report]
kind = "command"
command = ["sh", "-c", "cat report; printf %s \"$WORD\""]
restore-command = ["sh", "-c", "cat > restored"]
empty-command = ["sh", "-c", "[ ! -e restored ]"]
variables = ["WORD"]
timeout = "1m"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn all_kinds_in_one_set_in_a_bucket_pass_a_drill_and_fail_with_one_byte_changed() {
    let place = tempfile::tempdir().unwrap();
    let directory = |name: &str| {
        let path = place.path().join(name);
        std::fs::create_dir(&path).unwrap();
        path
    };
    let (Some(bucket), Some(mongo), Some(rabbit)) = (servers::s3(), servers::mongo(), servers::rabbit()) else { return };
    let Some(redis) = servers::redis(&directory("redis"), &[]) else { return };
    let vectors = StandIn::start();
    s3::make_bucket(bucket.port).await;
    // What is backed up.
    servers::python(&[
        "-c",
        "import sys, pymongo; c = pymongo.MongoClient('mongodb://127.0.0.1:' + sys.argv[1], directConnection=True); \
         c.shop.orders.insert_many([{'_id': i, 'text': 'order %d' % i} for i in range(500)]); c.shop.orders.create_index('text')",
        &mongo.port.to_string(),
    ]);
    servers::redis_cli(&redis, &[], "SET one 1\nRPUSH list a b c\n");
    rabbitmq::fill(&rabbit, place.path());
    vectors.collection("articles", 4, 300);
    let project = directory("project");
    std::fs::create_dir(project.join("uploads")).unwrap();
    kaleem_core::durable::create_new(&project.join("uploads/picture"), &[7; 100_000]).unwrap();
    kaleem_core::durable::create_new(&project.join("report"), b"a report, ").unwrap();
    kaleem_core::durable::create_new(&project.join("bucket-secret"), b"hunter2-secret\n").unwrap();

    let mut told = variables(&[
        ("PASSPHRASE", "hunter2-passphrase"),
        ("BUCKET_KEY", "AKHUNTER2"),
        ("WORD", "signed"),
        ("QDRANT_KEY", KEY),
        ("PATH", "/usr/bin:/bin"),
    ]);
    told.extend([
        ("MONGO", format!("mongodb://127.0.0.1:{}/?directConnection=true", mongo.port)),
        ("REDIS", format!("redis://127.0.0.1:{}", redis.port)),
        ("RABBIT", rabbit.management("guest", "hunter2-guest")),
        ("QDRANT", format!("http://127.0.0.1:{}", vectors.port)),
    ]);
    let made = set_up(&project, &EVERYTHING.replace("S3", &bucket.port.to_string()), &told).await.unwrap();
    assert_eq!(made.notes, Vec::<String>::new());
    let backups = &made.backups;
    let set = backups.create(&NewSet::default(), quiet()).await.unwrap();
    assert_eq!(set.shortcomings(), Vec::<String>::new());
    let kinds: BTreeSet<SourceKind> = set.manifest.artifacts.iter().map(|record| record.kind).collect();
    assert_eq!(kinds.len(), 6, "{kinds:?}");
    let verified = backups.verify(&set.manifest.set, quiet()).await.unwrap();
    assert!(verified.iter().all(|one| one.outcome.is_ok() && one.depth == Depth::Whole), "{verified:?}");

    for (control, wanted) in [(Control::OneByteChanged, Verdict::Fail), (Control::AsItIs, Verdict::Pass)] {
        let (mongo, rabbit) = (servers::mongo().unwrap(), servers::rabbit().unwrap());
        let redis = servers::redis(&directory(&format!("redis-{control:?}")), &[]).unwrap();
        let vectors = StandIn::start();
        let mut scratch: BTreeMap<ArtifactName, Arc<dyn BackupSource>> = BTreeMap::new();
        for (name, kind, url) in [
            ("main", StoreKind::Mongodb, format!("mongodb://127.0.0.1:{}/?directConnection=true", mongo.port)),
            ("cache", StoreKind::Redis, format!("redis://127.0.0.1:{}", redis.port)),
            ("broker", StoreKind::Rabbitmq, rabbit.management("guest", "guest")),
            ("vectors", StoreKind::Qdrant, format!("http://:{KEY}@127.0.0.1:{}", vectors.port)),
        ] {
            let name: ArtifactName = name.parse().unwrap();
            scratch.insert(name.clone(), setup::elsewhere(&name, kind, Secret::new(url)).await.unwrap());
        }
        let name: ArtifactName = "uploads".parse().unwrap();
        scratch.insert(name.clone(), Arc::new(FilesSource::new(name, &directory(&format!("uploads-{control:?}")))));
        let command = backups.sources().iter().find(|source| source.identity().kind == SourceKind::Command).unwrap();
        scratch.insert(command.identity().name.clone(), command.clone());
        let vault = backups.vaults()[0].vault.as_ref();
        let report = drill(vault, &set.manifest.set, &scratch, backups.keys(), control, &Noon).await;
        assert!(report.artifacts.iter().all(|artifact| artifact.verdict == wanted), "{control:?}: {report:?}");
        assert_eq!(project.join("restored").exists(), wanted == Verdict::Pass, "{control:?}");
    }
    assert_eq!(std::fs::read(project.join("restored")).unwrap(), b"a report, signed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_named_and_never_shown() {
    let place = tempfile::tempdir().unwrap();
    let vault = "[backup.vaults.off]\nbucket = \"b\"\nendpoint = \"http://127.0.0.1:1\"\n";
    let keys = variables(&[("AWS_ACCESS_KEY_ID", "AKHUNTER2"), ("AWS_SECRET_ACCESS_KEY", "hunter2")]);
    for (why, settings, told, wanted) in [
        (
            "no key",
            vault.to_owned(),
            Vec::new(),
            "the variable AWS_ACCESS_KEY_ID, which holds the access key of the vault `off`, is not set",
        ),
        ("an address that is none", vault.replace("http://127.0.0.1:1", "hunter2"), keys.clone(), "the vault `off` cannot be used"),
        (
            "a word for a command",
            "[backup.sources.x]\nkind = \"command\"\ncommand = [\"true\"]\nvariables = [\"TOKEN\"]\n".to_owned(),
            Vec::new(),
            "the variable TOKEN, which holds what the command of `x` is given, is not set",
        ),
        (
            "an address of a broker",
            "[backup.sources.x]\nkind = \"rabbitmq\"\nurl-env = \"BROKER\"\n".to_owned(),
            variables(&[("BROKER", "hunter2")]),
            "the address of `x` cannot be used: it cannot be read",
        ),
    ] {
        let error = set_up(place.path(), &settings, &told).await.err().unwrap();
        assert_eq!(error.to_string(), wanted, "{why}");
        let shown = format!("{error:?} {}", kaleem_core::remedy::one_line(&error));
        assert!(!shown.contains("hunter2") && !shown.contains("AKHUNTER2"), "{why}: {shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_reached_now_is_an_error_and_never_left_out() {
    let place = tempfile::tempdir().unwrap();
    let settings = "[backup]\nunencrypted = true\n[backup.sources.dump]\nkind = \"command\"\nservice = \"web\"\ncommand = [\"dump\"]\n";
    let made = set_up(place.path(), settings, &[]).await.unwrap();
    assert!(made.notes[0].contains("`dump` cannot be reached now: the container engine does not answer"), "{:?}", made.notes);
    let error = made.backups.create(&NewSet::default(), quiet()).await.unwrap_err();
    let shown = kaleem_core::remedy::one_line(&error);
    assert!(shown.contains("could not reach the service `web`"), "{shown}");
    assert!(made.backups.finished().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_whose_disk_is_not_mounted_is_not_the_vault_and_gets_nothing() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    std::fs::create_dir(at("files")).unwrap();
    let settings =
        "[backup]\nunencrypted = true\n[backup.vaults.disk]\npath = \"disk\"\n[backup.sources.files]\nkind = \"files\"\npath = \"files\"\n";
    let made = set_up(place.path(), settings, &[]).await.unwrap();
    made.backups.create(&NewSet::default(), quiet()).await.unwrap();
    // What is left of a mount point when its disk is gone.
    std::fs::rename(at("disk"), at("elsewhere")).unwrap();
    std::fs::create_dir(at("disk")).unwrap();
    let made = set_up(place.path(), settings, &[]).await.unwrap();
    let error = made.backups.create(&NewSet::default(), quiet()).await.unwrap_err();
    assert_eq!(error.grade(), Grade::VaultUnreachable, "{error:?}");
    assert!(made.backups.finished().await.is_err(), "it is not an empty vault");
    assert_eq!(std::fs::read_dir(at("disk")).unwrap().count(), 0, "nothing was written beside the vault");
    // It is mounted again; or it is meant to be another one.
    std::fs::remove_dir(at("disk")).unwrap();
    std::fs::rename(at("elsewhere"), at("disk")).unwrap();
    let made = set_up(place.path(), settings, &[]).await.unwrap();
    assert_eq!(made.backups.finished().await.unwrap().len(), 1);
    let made = set_up(place.path(), &settings.replace("\"disk\"", "\"another\""), &[]).await.unwrap();
    assert_eq!(made.backups.finished().await.unwrap().len(), 0);
}

//! What the backups of a project hold and what they do not: nothing is left out without a word.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use kaleem_backup::setup::{self, SetUp, Surroundings};
use kaleem_core::backup::{BackupSets, SetData, SourceKind};
use kaleem_core::config::{self, LoadOptions};

use crate::support::Noon;

const COMPOSE: &str = "
name: shop
services:
  pg: {image: 'postgres:16', volumes: ['pg:/var/lib/postgresql/data']}
  my: {image: 'bitnami/mariadb:11', volumes: ['my:/var/lib/mysql']}
  minio: {image: 'minio/minio:latest', volumes: ['objects:/data']}
  n8n: {build: ., volumes: ['n8n:/home/node/.n8n']}
  uploads: {image: 'app:1', volumes: ['./uploads:/uploads', './app.conf:/app.conf', './read:/read:ro', '/var/run/docker.sock:/var/run/docker.sock']}
  api: {image: 'app:1'}
volumes: {pg: {}, my: {}, objects: {}, n8n: {}}
";

async fn set_up(directory: &Path, settings: &str) -> SetUp {
    let file = |name: &str, text: &str| kaleem_core::durable::write_atomic(&directory.join(name), text.as_bytes(), 0o644).unwrap();
    file("compose.yaml", COMPOSE);
    file("kaleem.toml", settings);
    file("app.conf", "");
    for place in ["uploads", "read"] {
        std::fs::create_dir_all(directory.join(place)).unwrap();
    }
    let options = LoadOptions {
        directory: directory.to_owned(),
        files: Vec::new(),
        env_files: Vec::new(),
        environment: BTreeMap::new(),
        profiles: Vec::new(),
        project_name: None,
        settings_file: None,
    };
    let project = config::load(&options).unwrap();
    let environment = BTreeMap::new();
    let around = Surroundings {
        project: &project,
        found: Vec::new(),
        instances: &[],
        runtime: None,
        environment: &environment,
        directory: directory.join("state"),
        key_file: None,
        unencrypted: true,
        owner: "a test".to_owned(),
        clock: Arc::new(Noon),
    };
    setup::set_up(&around).await.unwrap()
}

fn services(set_up: &SetUp) -> Vec<&str> {
    set_up.not_covered.iter().map(|one| one.service.as_str()).collect()
}

#[tokio::test]
async fn databases_are_found_by_their_image_and_other_storage_is_named_as_not_covered() {
    let place = tempfile::tempdir().unwrap();
    let found = set_up(place.path(), "").await;
    let kinds: Vec<(String, SourceKind)> =
        found.backups.sources().iter().map(|source| (source.identity().name.to_string(), source.identity().kind)).collect();
    assert_eq!(kinds, [("my".to_owned(), SourceKind::Command), ("pg".to_owned(), SourceKind::Command)]);
    assert_eq!(services(&found), ["minio", "n8n", "uploads"]);
    let minio = &found.not_covered[0];
    assert_eq!(minio.storage, "volume `objects`");
    assert!(minio.remedy.contains("volume = \"objects\"") && minio.remedy.contains("leave-out = [\"minio\"]"), "{}", minio.remedy);
    assert_eq!(
        found.not_covered[2].storage,
        format!("directory {}", place.path().join("uploads").display()),
        "no file, no socket, nothing read-only"
    );
}

#[tokio::test]
async fn what_kaleem_toml_says_of_storage_covers_it() {
    let place = tempfile::tempdir().unwrap();
    let settings = "[backup]\nleave-out = [\"minio\", \"my\"]\n[backup.sources.flows]\nkind = \"volume\"\nvolume = \"n8n\"\n\
                    [backup.sources.files]\nkind = \"files\"\npath = \".\"\n\
                    [backup.sources.dump]\nkind = \"command\"\nservice = \"pg\"\ncommand = [\"pg_dump\"]\n";
    let found = set_up(place.path(), settings).await;
    assert_eq!(services(&found), Vec::<&str>::new());
    let names: Vec<String> = found.backups.sources().iter().map(|source| source.identity().name.to_string()).collect();
    assert_eq!(names, ["dump", "files", "flows"], "a database with a source of its own is not dumped twice");
    let covers = found.backups.covers();
    assert!(covers.contains(&SetData::Store("pg".parse().unwrap())), "{covers:?}");
    assert!(covers.contains(&SetData::Volume("shop_n8n".parse().unwrap())), "{covers:?}");
    assert!(covers.contains(&SetData::Directory(place.path().join("."))), "{covers:?}");
}

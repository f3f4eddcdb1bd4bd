//! Qdrant: snapshots with their sums, put back where nothing is lost when something goes wrong. Against a stand-in of
//! exactly the endpoints that are used; against the real server where `QDRANT_BIN` names one.

use std::sync::Arc;
use std::time::Duration;

use kaleem_backup::format::bundle::verify;
use kaleem_backup::seal::{Keys, Protection};
use kaleem_backup::set;
use kaleem_backup::source::qdrant::QdrantSource;
use kaleem_core::backup::{BackupSource, Consistency, RestoreMode, SourceError};
use kaleem_core::secret::Secret;
use kaleem_core::testing::FakeVault;
use serde_json::json;

use crate::qdrant_stand_in::{Fault, KEY, StandIn};
use crate::servers;
use crate::support::{Noon, export, request, stream};

fn source_at(port: u16, key: Option<&str>) -> QdrantSource {
    let url = Secret::new(format!("http://127.0.0.1:{port}"));
    QdrantSource::new("vectors".parse().unwrap(), &url, key.map(|key| Secret::new(key.to_owned())), Duration::from_secs(2)).unwrap()
}

fn source(server: &StandIn) -> QdrantSource {
    source_at(server.port, Some(KEY))
}

fn filled() -> StandIn {
    let server = StandIn::start();
    server.collection("articles", 4, 300);
    server.collection("bilder ünï/☃", 8, 7);
    server.collection("empty", 4, 0);
    server.state.lock().unwrap().aliases.insert("current".to_owned(), "articles".to_owned());
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn collections_and_aliases_come_back_through_a_set() {
    let server = filled();
    let source_of = Arc::new(source(&server));
    let vault = FakeVault::new();
    let request = request(Protection::Unencrypted);
    let sources: Vec<Arc<dyn BackupSource>> = vec![source_of.clone()];
    let manifest = set::create(&vault, &sources, &request, &Noon).await.unwrap();
    let contents = &manifest.artifacts[0].contents;
    assert_eq!(manifest.artifacts[0].consistency, Consistency::PerCollection);
    assert_eq!((contents["points of articles"].count, contents["points of empty"].count, contents["aliases"].count), (300, 0, 1));
    assert_eq!(source_of.inspect().await.unwrap(), *contents);
    assert!(server.state.lock().unwrap().snapshots.is_empty(), "no snapshot stays on the server");

    let other = StandIn::start();
    other.collection("of somebody else", 4, 3);
    let (name, into) = ("vectors".parse().unwrap(), source(&other));
    set::restore(&vault, &request.set, &name, &into, RestoreMode::IntoEmpty, &Keys::none()).await.unwrap();
    assert_eq!(other.state.lock().unwrap().collections["articles"], server.state.lock().unwrap().collections["articles"]);
    assert_eq!(other.state.lock().unwrap().aliases, server.state.lock().unwrap().aliases);
    assert_eq!(other.state.lock().unwrap().collections["of somebody else"].points.len(), 3, "what is not in the set stays");

    let refused = set::restore(&vault, &request.set, &name, &into, RestoreMode::IntoEmpty, &Keys::none()).await;
    assert!(refused.is_err(), "it is not empty any more");
    other.collection("articles", 4, 12);
    // A restore that died has left this.
    other.collection("kaleem_restore_0_0", 4, 1);
    set::restore(&vault, &request.set, &name, &into, RestoreMode::Replace, &Keys::none()).await.unwrap();
    let state = other.state.lock().unwrap();
    assert_eq!(state.collections["articles"].points.len(), 300);
    assert!(!state.collections.keys().any(|name| name.starts_with("kaleem")), "{:?}", state.collections.keys());
    let fetched: Vec<&String> = state.asked.iter().filter(|asked| asked.contains("/snapshots/upload")).collect();
    assert!(fetched.iter().all(|asked| asked.contains("priority=snapshot")), "{fetched:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_collection_comes_back_and_the_others_stay() {
    let server = filled();
    let source = Arc::new(source(&server));
    let vault = FakeVault::new();
    let request = request(Protection::Unencrypted);
    let manifest = set::create(&vault, &[source.clone() as Arc<dyn BackupSource>], &request, &Noon).await.unwrap();
    let record = &manifest.artifacts[0];
    server.collection("articles", 4, 12);
    server.collection("empty", 4, 5);
    server.state.lock().unwrap().aliases.insert("current".to_owned(), "empty".to_owned());
    let put_back = async |collection: &str, mode| {
        set::put_back(&vault, &request.set, record, Some(collection), source.as_ref(), mode, &Keys::none()).await
    };
    assert!(put_back("articles", RestoreMode::IntoEmpty).await.is_err(), "it is there");
    assert!(put_back("article", RestoreMode::Replace).await.is_err(), "there is none of that name");
    let restored = put_back("articles", RestoreMode::Replace).await.unwrap();
    assert_eq!(restored.keys().collect::<Vec<_>>(), ["configuration of articles", "points of articles"]);
    let state = server.state.lock().unwrap();
    assert_eq!((state.collections["articles"].points.len(), state.collections["empty"].points.len()), (300, 5));
    assert_eq!(state.aliases["current"], "empty", "aliases go with the whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_is_cut_or_changed_on_its_way_is_an_error_and_does_not_stay_on_the_server() {
    let server = filled();
    let source = source(&server);
    for fault in [Fault::CutFetch, Fault::FlipFetch, Fault::Fail] {
        server.state.lock().unwrap().fault = Some(fault);
        let error = export(&source).await.unwrap_err();
        assert!(matches!(error, SourceError::Failed { .. }), "{fault:?}: {error:?}");
        server.state.lock().unwrap().fault = None;
        assert!(server.state.lock().unwrap().snapshots.is_empty(), "{fault:?}");
    }
    for key in [None, Some("hunter2-wrong")] {
        let error = source_at(server.port, key).inspect().await.unwrap_err();
        assert!(matches!(error, SourceError::Denied { .. }), "{error:?}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_that_is_written_to_meanwhile_is_not_counted_and_said_so() {
    let server = filled();
    server.state.lock().unwrap().writer = true;
    let (exported, bytes) = export(&source(&server)).await.unwrap();
    assert!(!exported.contents.contains_key("points of articles"), "{:?}", exported.contents);
    assert!(exported.notes.iter().any(|note| note.starts_with("articles was written to")), "{:?}", exported.notes);
    assert_eq!(verify(stream(&bytes)).await.unwrap(), exported.contents);
    let other = StandIn::start();
    assert_eq!(source(&other).restore(stream(&bytes), RestoreMode::IntoEmpty).await.unwrap(), exported.contents);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_cut_or_changed_anywhere_are_refused_and_replace_nothing() {
    let server = StandIn::start();
    server.collection("articles", 4, 30);
    server.state.lock().unwrap().aliases.insert("current".to_owned(), "articles".to_owned());
    let source = source(&server);
    let (exported, bytes) = export(&source).await.unwrap();
    assert_eq!(verify(stream(&bytes)).await.unwrap(), exported.contents);
    for at in 0..bytes.len() {
        assert!(verify(stream(&bytes[..at])).await.is_err(), "cut at {at} of {}", bytes.len());
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        let found = verify(stream(&changed)).await;
        assert!(found.as_ref().ok() != Some(&exported.contents), "bit of byte {at}: {found:?}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(verify(stream(&longer)).await.is_err(), "something follows");
    server.collection("articles", 4, 31);
    let before = server.state.lock().unwrap().collections.clone();
    for at in [0, 600, bytes.len() / 2, bytes.len() - 1] {
        assert!(source.restore(stream(&bytes[..at]), RestoreMode::Replace).await.is_err(), "cut at {at}");
        assert_eq!(server.state.lock().unwrap().collections, before, "cut at {at}");
    }
    for fault in [Fault::LosePoint, Fault::HangUpload] {
        server.state.lock().unwrap().fault = Some(fault);
        assert!(source.restore(stream(&bytes), RestoreMode::Replace).await.is_err(), "{fault:?}");
        server.state.lock().unwrap().fault = None;
        assert_eq!(server.state.lock().unwrap().collections, before, "{fault:?}");
    }
    source.restore(stream(&bytes), RestoreMode::Replace).await.unwrap();
    assert_eq!(source.inspect().await.unwrap(), exported.contents);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_server_gives_and_takes_where_there_is_one() {
    // No package brings it, so a missing one is no fault of the machine.
    let Some(binary) = servers::qdrant_binary() else {
        println!("skipped: QDRANT_BIN is not set; the stand-in was asked");
        return;
    };
    let start = || {
        let grpc = kaleem_core::testing::free_port().to_string();
        servers::start_with(
            &binary,
            |port, place| {
                let configuration = format!(
                    "service:\n  host: 127.0.0.1\n  http_port: {port}\n  grpc_port: {grpc}\nstorage:\n  storage_path: {0}/storage\n  snapshots_path: {0}/snapshots\ntelemetry_disabled: true\n",
                    place.display()
                );
                kaleem_core::durable::create_new(&place.join("config.yaml"), configuration.as_bytes()).unwrap();
                vec!["--config-path".to_owned(), place.join("config.yaml").display().to_string()]
            },
            |_| Vec::new(),
        )
    };
    let (one, two) = (start(), start());
    let web = crate::support::web();
    let put = async |path: &str, body: serde_json::Value| {
        let answer =
            web.put(format!("http://127.0.0.1:{}{path}", one.port)).header("content-type", "application/json").body(body.to_string());
        let answer = answer.send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    };
    put("/collections/articles", json!({ "vectors": { "size": 4, "distance": "Cosine" } })).await;
    let points: Vec<_> = (0..200).map(|id| json!({ "id": id, "vector": [id, 1, 2, 3], "payload": { "n": id } })).collect();
    put("/collections/articles/points?wait=true", json!({ "points": points })).await;
    let (exported, bytes) = export(&source_at(one.port, None)).await.unwrap();
    assert_eq!(exported.contents["points of articles"].count, 200);
    let into = source_at(two.port, None);
    assert_eq!(into.restore(stream(&bytes), RestoreMode::IntoEmpty).await.unwrap(), exported.contents);
    assert_eq!(into.restore(stream(&bytes), RestoreMode::Replace).await.unwrap(), exported.contents);
}

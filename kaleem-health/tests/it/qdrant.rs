//! Qdrant: a stand-in that knows exactly the endpoints which are asked, in every state; and the real one where there is one.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kaleem_core::health::{Finding, HealthProbe, Verdict};
use kaleem_core::secret::Secret;
use kaleem_core::testing::free_port;
use kaleem_core::testing::probe_contract::{self, SECRET, discreet};
use kaleem_health::settings::QdrantSettings;
use kaleem_health::{KnownHosts, QdrantProbe};

const TIMEOUT: Duration = Duration::from_secs(5);

/// Why, answers, key, wanted collections, verdict, reason.
type Row<'a> = (&'a str, Answers, Option<&'a str>, &'a [&'a str], Verdict, &'a str);
pub(crate) type Answers = BTreeMap<&'static str, (u16, String)>;

/// Answers `GET` of these paths, to whoever shows the key; 404 to all others, 401 without the key.
pub(crate) fn stand_in(answers: Answers) -> SocketAddr {
    stand_in_of(Arc::new(Mutex::new(answers)))
}

/// The same with answers that change.
fn stand_in_of(answers: Arc<Mutex<Answers>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut read = Vec::new();
            let mut byte = [0];
            while !read.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
                read.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&read).to_lowercase();
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let (status, body) = match answers.lock().unwrap().get(path.as_str()) {
                _ if path != "/readyz" && !head.contains(&format!("api-key: {SECRET}\r\n")) => (401, "Must provide an API key".to_owned()),
                Some((status, body)) => (*status, body.clone()),
                None => (404, "{\"status\":{\"error\":\"Not found\"},\"time\":0.0}".to_owned()),
            };
            drop(write!(stream, "HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len()));
        }
    });
    address
}

fn result(value: &str) -> (u16, String) {
    (200, format!("{{\"result\":{value},\"status\":\"ok\",\"time\":0.0001}}"))
}

/// One collection with that status and optimizer, one node.
pub(crate) fn node(status: &str, optimizer: &str) -> BTreeMap<&'static str, (u16, String)> {
    BTreeMap::from([
        ("/readyz", (200, "all shards are ready".to_owned())),
        ("/collections", result(r#"{"collections":[{"name":"articles"}]}"#)),
        (
            "/collections/articles",
            result(&format!(r#"{{"status":"{status}","optimizer_status":{optimizer},"points_count":42,"segments_count":2}}"#)),
        ),
        ("/cluster", result(r#"{"status":"disabled"}"#)),
    ])
}

fn probe(address: SocketAddr, key: Option<&str>, collections: &[&str]) -> QdrantProbe {
    let mut settings = QdrantSettings::standard(Secret::new(format!("http://{address}")), key.map(|key| Secret::new(key.to_owned())));
    settings.collections = collections.iter().map(|name| (*name).to_owned()).collect();
    QdrantProbe::new("vectors", settings, Arc::new(KnownHosts::new())).unwrap()
}

#[track_caller]
fn expect(why: &str, finding: &Finding, verdict: Verdict, reason: &str) {
    discreet(why, finding);
    assert_eq!((finding.verdict, finding.reason.contains(reason)), (verdict, true), "{why}: {finding:?}");
}

#[tokio::test]
async fn the_contract_holds() {
    let make = |address: SocketAddr| -> Arc<dyn HealthProbe> { Arc::new(probe(address, Some(SECRET), &[])) };
    probe_contract::every_promise_is_kept(&make, crate::support::runs()).await;
}

#[tokio::test]
async fn a_collection_is_judged_although_readyz_stays_true() {
    for (why, status, optimizer, verdict, reason) in [
        ("green", "green", "\"ok\"", Verdict::Ok, "42 points in 1 collection"),
        ("yellow", "yellow", "\"ok\"", Verdict::Warn, "is being optimized"),
        ("grey", "grey", "\"ok\"", Verdict::Warn, "waits since a restart"),
        ("red", "red", "\"ok\"", Verdict::Fail, "is red"),
        (
            "read-only",
            "green",
            r#"{"error":"s3rver-text-do-not-repeat: no space left"}"#,
            Verdict::Fail,
            "optimizer of the collection `articles` failed",
        ),
        ("unheard of", "purple", "\"ok\"", Verdict::Unknown, "not known"),
    ] {
        let address = stand_in(node(status, optimizer));
        expect(why, &probe(address, Some(SECRET), &[]).check(TIMEOUT).await, verdict, reason);
    }
}

#[tokio::test]
async fn keys_missing_collections_and_clusters_have_their_verdicts() {
    let well = || node("green", "\"ok\"");
    let with = |path: &'static str, answer: (u16, String)| {
        let mut answers = well();
        answers.insert(path, answer);
        answers
    };
    let cluster = |text: &str| result(&format!(r#"{{"status":"enabled","peers":{{"1":{{}},"2":{{}},"3":{{}}}},{text}}}"#));
    let led = r#""raft_info":{"leader":1,"pending_operations":0},"message_send_failures":{}"#;
    // The first of each list is here, all others are elsewhere.
    let sharded = |replicas: &[(u32, &str)]| {
        let one = |(shard, state): &(u32, &str)| format!(r#"{{"shard_id":{shard},"state":"{state}"}}"#);
        let (here, elsewhere) = replicas.split_at(1);
        let elsewhere: Vec<String> = elsewhere.iter().map(one).collect();
        let shards = format!(r#"{{"local_shards":[{}],"remote_shards":[{}]}}"#, one(&here[0]), elsewhere.join(","));
        let mut answers = with("/cluster", cluster(led));
        answers.insert("/collections/articles/cluster", result(&shards));
        answers
    };
    let table: Vec<Row> = vec![
        ("no key", well(), None, &[], Verdict::Unknown, "asks for an API key"),
        ("wrong key", well(), Some("other"), &[], Verdict::Unknown, "does not accept the API key"),
        ("wanted", well(), Some(SECRET), &["articles"], Verdict::Ok, "42 points"),
        ("missing", well(), Some(SECRET), &["images"], Verdict::Fail, "the collection `images` is not there"),
        ("not ready", with("/readyz", (503, String::new())), Some(SECRET), &[], Verdict::Fail, "not ready"),
        (
            "another program",
            with("/collections", (200, "{}".to_owned())),
            Some(SECRET),
            &[],
            Verdict::Fail,
            "did not answer as Qdrant does",
        ),
        ("led", with("/cluster", cluster(led)), Some(SECRET), &[], Verdict::Ok, "42 points"),
        (
            "a replica is dead",
            sharded(&[(0, "Active"), (0, "Dead"), (1, "Active"), (1, "Active")]),
            Some(SECRET),
            &[],
            Verdict::Warn,
            "1 of 4 replicas of the collection `articles` are dead",
        ),
        (
            "a shard is lost",
            sharded(&[(0, "Active"), (1, "Dead"), (1, "Dead")]),
            Some(SECRET),
            &[],
            Verdict::Fail,
            "1 of 2 shards of the collection `articles` have no active replica",
        ),
        ("no leader", with("/cluster", cluster(r#""raft_info":{"leader":null}"#)), Some(SECRET), &[], Verdict::Fail, "no leader"),
        (
            "a peer is gone",
            with("/cluster", cluster(r#""raft_info":{"leader":1},"message_send_failures":{"http://x:6335":{"count":3}}"#)),
            Some(SECRET),
            &[],
            Verdict::Warn,
            "cannot reach 1 of 3 peers",
        ),
    ];
    for (why, answers, key, collections, verdict, reason) in table {
        expect(why, &probe(stand_in(answers), key, collections).check(TIMEOUT).await, verdict, reason);
    }
}

/// Answers of a Qdrant of version 1.12 that has failed so many searches.
fn telemetry(failed: u32) -> (u16, String) {
    result(&format!(
        r#"{{"id":"x","app":{{"name":"qdrant","version":"1.12.4","startup":"2026-01-01T00:00:00Z"}},"collections":{{"number_of_collections":1}},
        "memory":{{"resident_bytes":104857600}},"requests":{{"rest":{{"responses":{{"POST /collections/{{name}}/points/search":
        {{"200":{{"count":7,"avg_duration_micros":5.0}},"500":{{"count":{failed}}}}},"GET /x":{{"404":{{"count":9}},"503":{{"count":1}}}}}}}},"grpc":{{"responses":{{}}}}}}}}"#
    ))
}

#[tokio::test]
async fn errors_of_the_server_are_told_when_they_grow() {
    let answers = Arc::new(Mutex::new(node("green", "\"ok\"")));
    let address = stand_in_of(answers.clone());
    let probe = probe(address, Some(SECRET), &[]);
    expect("no telemetry", &probe.check(TIMEOUT).await, Verdict::Ok, "qdrant answers");
    for (why, failed, verdict, reason) in [
        ("those before the first look are not news", 4, Verdict::Ok, "qdrant 1.12.4 answers"),
        ("no more of them", 4, Verdict::Ok, "qdrant 1.12.4 answers"),
        ("two more", 6, Verdict::Warn, "2 requests ended with an error of the server since the last look"),
        ("it began anew", 0, Verdict::Warn, "1 request ended with an error of the server since the last look"),
    ] {
        answers.lock().unwrap().insert("/telemetry", telemetry(failed));
        let finding = probe.check(TIMEOUT).await;
        expect(why, &finding, verdict, reason);
        let measured = |name: &str| finding.measurements.iter().find(|one| one.name == name).map(|one| one.value);
        assert_eq!((measured("server_errors"), measured("resident")), (Some(f64::from(failed) + 1.0), Some(104_857_600.0)), "{why}");
    }
}

#[tokio::test]
async fn the_real_server_is_asked_where_there_is_one() {
    use crate::servers;
    // No package brings it, so a missing one is no fault of the machine.
    #[expect(clippy::disallowed_methods, reason = "tests are told by the environment where the servers are")]
    let Some(binary) = std::env::var_os("QDRANT_BIN") else {
        servers::note("skipped: QDRANT_BIN is not set; the stand-in was asked");
        return;
    };
    let (port, grpc) = (free_port(), free_port());
    let variables = [
        ("QDRANT__SERVICE__HOST", "127.0.0.1".to_owned()),
        ("QDRANT__SERVICE__HTTP_PORT", port.to_string()),
        ("QDRANT__SERVICE__GRPC_PORT", grpc.to_string()),
        ("QDRANT__SERVICE__API_KEY", SECRET.to_owned()),
    ];
    let server = servers::start(std::path::Path::new(&binary), &[], &variables, tempfile::tempdir().unwrap(), port);
    expect("real", &probe(server.address(), Some(SECRET), &[]).check(TIMEOUT).await, Verdict::Ok, "0 collections");
    expect("real, no key", &probe(server.address(), None, &[]).check(TIMEOUT).await, Verdict::Unknown, "API key");
}

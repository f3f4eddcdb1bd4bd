//! MongoDB: a server that speaks as a replica set of one, with and without logins, frozen and killed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kaleem_core::health::{Finding, HealthProbe, Verdict};
use kaleem_core::secret::Secret;
use kaleem_core::testing::free_port;
use kaleem_core::testing::probe_contract::{self, SECRET, discreet};
use kaleem_health::settings::MongodbSettings;
use kaleem_health::{KnownHosts, MongodbProbe};
use mongodb::bson::doc;
use tempfile::TempDir;

use crate::servers::{Process, program, start};

const TIMEOUT: Duration = Duration::from_secs(10);

fn server(directory: TempDir, arguments: &[&str]) -> Option<Process> {
    let program = program("secantusd-py", "KALEEM_TEST_SECANTUSD")?;
    let port = free_port();
    let storage = directory.path().join("storage").display().to_string();
    let mut all: Vec<String> = ["--host", "127.0.0.1", "--port", &port.to_string(), "--storage-path", &storage].map(str::to_owned).to_vec();
    all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    Some(start(&program, &all, &[], directory, port))
}

fn probe(url: String) -> MongodbProbe {
    MongodbProbe::new("database", MongodbSettings::standard(Secret::new(url)), Arc::new(KnownHosts::new())).unwrap()
}

#[track_caller]
fn expect(why: &str, finding: &Finding, verdict: Verdict, reason: &str) {
    discreet(why, finding);
    assert_eq!((finding.verdict, finding.reason.contains(reason)), (verdict, true), "{why}: {finding:?}");
}

#[tokio::test]
async fn the_contract_holds() {
    let make =
        |address: SocketAddr| -> Arc<dyn HealthProbe> { Arc::new(probe(format!("mongodb://app:{SECRET}@{address}/?authSource=admin"))) };
    probe_contract::every_promise_is_kept(&make, crate::support::runs()).await;
}

#[tokio::test]
async fn a_set_is_asked_frozen_and_killed() {
    let Some(mut database) = server(tempfile::tempdir().unwrap(), &[]) else { return };
    let url = format!("mongodb://{}", database.address());
    let probe = probe(url.clone());
    for why in ["first", "over the held connection"] {
        let finding = probe.check(TIMEOUT).await;
        expect(why, &finding, Verdict::Ok, "1 of 1 members are well");
        for name in ["connections", "members_healthy", "oplog_window"] {
            assert!(finding.measurements.iter().any(|one| one.name == name), "{name}: {finding:?}");
        }
    }
    let named = self::probe(format!("{url}/?replicaSet=secantus"));
    expect("with the name of the set", &named.check(TIMEOUT).await, Verdict::Ok, "one of them primary");
    database.signal("STOP");
    let finding = probe.check(Duration::from_millis(600)).await;
    let fresh = self::probe(url.clone()).check(Duration::from_millis(600)).await;
    database.signal("CONT");
    expect("frozen", &finding, Verdict::Fail, "did not answer within");
    expect("frozen, first look", &fresh, Verdict::Fail, "did not answer within");
    expect("thawed", &probe.check(TIMEOUT).await, Verdict::Ok, "members are well");
    database.kill();
    expect("killed", &self::probe(url).check(TIMEOUT).await, Verdict::Fail, "connection refused");
    assert_eq!(probe.check(TIMEOUT).await.verdict, Verdict::Fail, "killed while a connection is held");
}

#[tokio::test]
async fn a_server_without_a_set_is_well_too() {
    let Some(database) = server(tempfile::tempdir().unwrap(), &["--standalone"]) else { return };
    expect("standalone", &probe(format!("mongodb://{}", database.address())).check(TIMEOUT).await, Verdict::Ok, "mongodb answers");
}

#[tokio::test]
async fn a_login_that_is_refused_or_may_not_look_is_unknown_with_the_grant() {
    let directory = tempfile::tempdir().unwrap();
    let storage = directory.path().join("storage");
    let Some(open) = server(directory, &[]) else { return };
    let client = mongodb::Client::with_uri_str(format!("mongodb://{}/?directConnection=true", open.address())).await.unwrap();
    let admin = client.database("admin");
    for (user, role) in [("watcher", doc! { "role": "clusterMonitor", "db": "admin" }), ("app", doc! { "role": "readWrite", "db": "shop" })]
    {
        admin.run_command(doc! { "createUser": user, "pwd": SECRET, "roles": [role] }).await.unwrap();
    }
    client.shutdown().immediate(true).await;
    open.signal("TERM");
    let moved = tempfile::tempdir().unwrap();
    let mut open = open;
    open.wait();
    std::fs::rename(storage, moved.path().join("storage")).unwrap();
    let locked = server(moved, &["--auth"]).unwrap();
    let address = locked.address();
    for (why, login, verdict, reason, remedy) in [
        ("may look", format!("watcher:{SECRET}@"), Verdict::Ok, "members are well", ""),
        (
            "may not look",
            format!("app:{SECRET}@"),
            Verdict::Unknown,
            "does not let this user read its state",
            "db.grantRolesToUser(\"USER\", [\"clusterMonitor\"])",
        ),
        ("wrong password", "watcher:wrong@".to_owned(), Verdict::Unknown, "does not accept the user or its password", "authSource"),
    ] {
        let finding = probe(format!("mongodb://{login}{address}/?authSource=admin")).check(TIMEOUT).await;
        expect(why, &finding, verdict, reason);
        assert!(finding.remedy.unwrap_or_default().contains(remedy), "{why}");
    }
    for (why, url) in [("SRV", format!("mongodb+srv://{SECRET}/")), ("another scheme", format!("http://{SECRET}/"))] {
        let error =
            MongodbProbe::new("database", MongodbSettings::standard(Secret::new(url)), Arc::new(KnownHosts::new())).err().expect(why);
        assert!(!format!("{error} {error:?}").contains(SECRET), "{why}");
    }
}

//! Redis, asked as it is: loading, full, cut off, in a cluster with a hole.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kaleem_core::health::{Finding, HealthProbe, Verdict};
use kaleem_core::secret::Secret;
use kaleem_core::testing::free_port;
use kaleem_core::testing::probe_contract::{self, SECRET, discreet};
use kaleem_health::settings::{RedisSettings, RedisTopology};
use kaleem_health::{KnownHosts, RedisProbe};

use crate::servers::{Process, redis, redis_cli, redis_in, wait};

const TIMEOUT: Duration = Duration::from_secs(5);

fn settings(url: &str) -> RedisSettings {
    RedisSettings::single(Secret::new(url.to_owned()))
}

fn probe(settings: RedisSettings) -> RedisProbe {
    RedisProbe::new("cache", settings, Arc::new(KnownHosts::new())).unwrap()
}

async fn ask(settings: RedisSettings) -> Finding {
    let finding = probe(settings).check(TIMEOUT).await;
    discreet("redis", &finding);
    finding
}

fn url(server: &Process) -> String {
    format!("redis://{}", server.address())
}

#[track_caller]
fn expect(why: &str, finding: &Finding, verdict: Verdict, reason: &str) {
    assert_eq!((finding.verdict, finding.reason.contains(reason)), (verdict, true), "{why}: {finding:?}");
}

#[tokio::test]
async fn the_contract_holds() {
    let make = |address: SocketAddr| -> Arc<dyn HealthProbe> { Arc::new(probe(settings(&format!("redis://app:{SECRET}@{address}")))) };
    probe_contract::every_promise_is_kept(&make, crate::support::runs()).await;
}

#[tokio::test]
async fn a_server_that_is_well_says_what_it_is_and_keeps_a_canary() {
    let Some(server) = redis("maxmemory 100mb\nmaxmemory-policy noeviction") else { return };
    let finding = ask(RedisSettings { canary: true, ..settings(&url(&server)) }).await;
    expect("well", &finding, Verdict::Ok, "master with 0 replicas, memory 1 % full, a key was written and read");
    for name in ["dns", "connect", "answers", "total"] {
        assert!(finding.phases.contains_key(name), "{name}: {finding:?}");
    }
    assert!(finding.measurements.iter().any(|one| one.name == "used_memory" && one.value > 0.0), "{finding:?}");
    assert!(redis_cli(server.port, &["ttl", "kaleem:canary"]).trim().parse::<i32>().unwrap() > 0, "the canary ends by itself");
}

#[tokio::test]
async fn a_login_that_is_refused_says_nothing_about_the_server_and_tells_the_grant() {
    let lines = format!("requirepass right\nuser health on >{SECRET} +ping\nuser app on >{SECRET} +ping +info");
    let Some(server) = redis(&lines) else { return };
    let address = server.address();
    for (why, login, verdict, reason, remedy) in [
        ("no password", String::new(), Verdict::Unknown, "asks for a password", "redis://:PASSWORD@host"),
        ("wrong password", format!(":{SECRET}@"), Verdict::Unknown, "does not accept the password of `default`", "check user and password"),
        ("may only ping", format!("health:{SECRET}@"), Verdict::Unknown, "does not let `health` ask", "ACL SETUSER health +ping +info"),
        ("may ask", format!("app:{SECRET}@"), Verdict::Ok, "redis 7", ""),
    ] {
        let finding = ask(settings(&format!("redis://{login}{address}"))).await;
        expect(why, &finding, verdict, reason);
        assert!(finding.remedy.unwrap_or_default().contains(remedy), "{why}");
    }
}

#[tokio::test]
async fn a_full_memory_is_a_failure_although_it_answers_ping() {
    let Some(server) = redis("maxmemory-policy noeviction") else { return };
    redis_cli(server.port, &["debug", "populate", "2000"]);
    redis_cli(server.port, &["config", "set", "maxmemory", "500kb"]);
    assert_eq!(redis_cli(server.port, &["ping"]).trim(), "PONG");
    expect("full", &ask(settings(&url(&server))).await, Verdict::Fail, "it refuses writes");
    redis_cli(server.port, &["config", "set", "maxmemory-policy", "allkeys-lru"]);
    expect("a cache may be full", &ask(settings(&url(&server))).await, Verdict::Ok, "% full");
}

#[tokio::test]
async fn a_server_with_all_the_clients_that_it_accepts_says_so_and_is_heard() {
    let Some(server) = redis("maxclients 8") else { return };
    let address = server.address();
    let mut held: Vec<_> = (0..8).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
    // Whoever looked whether it listens may have had one of the places, and has it until the server looks: it is full when it says so again
    // and again.
    let mut in_a_row = 0;
    while in_a_row < 5 {
        let mut one_more = std::net::TcpStream::connect(address).unwrap();
        one_more.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let mut heard = [0; 64];
        match std::io::Read::read(&mut one_more, &mut heard) {
            Ok(count) if heard[..count].starts_with(b"-ERR max number of clients") => in_a_row += 1,
            _ => {
                held.push(one_more);
                in_a_row = 0;
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for (why, login) in [("without a login", String::new()), ("with one", format!(":{SECRET}@"))] {
        let finding = ask(settings(&format!("redis://{login}{address}"))).await;
        expect(why, &finding, Verdict::Fail, "has as many clients as it accepts");
    }
    drop(held);
}

#[tokio::test]
async fn a_server_that_loads_says_how_far_it_is() {
    let Some(mut server) = redis("dbfilename dump.rdb") else { return };
    redis_cli(server.port, &["debug", "populate", "40000", "key", "200"]);
    redis_cli(server.port, &["save"]);
    let (port, dump) = (server.port, server.directory.path().join("dump.rdb"));
    server.kill();
    let directory = tempfile::tempdir().unwrap();
    std::fs::copy(dump, directory.path().join("dump.rdb")).unwrap();
    let slow = "dbfilename dump.rdb\nkey-load-delay 1000\nloading-process-events-interval-bytes 1024";
    let loading = redis_in(directory, port, slow, &[]).unwrap();
    expect("loading", &ask(settings(&url(&loading))).await, Verdict::Fail, "loading its data set");
}

#[tokio::test]
async fn a_replica_without_its_master_and_a_frozen_server_fail() {
    let Some(replica) = redis(&format!("replicaof 127.0.0.1 {}", free_port())) else { return };
    let finding = ask(settings(&url(&replica))).await;
    expect("broken link", &finding, Verdict::Fail, "link to the master is down");

    let frozen = redis("").unwrap();
    frozen.signal("STOP");
    let finding = probe(settings(&url(&frozen))).check(Duration::from_millis(300)).await;
    frozen.signal("CONT");
    expect("frozen", &finding, Verdict::Fail, "did not answer within 300ms");

    let mut gone = redis("").unwrap();
    gone.kill();
    expect("killed", &ask(settings(&url(&gone))).await, Verdict::Fail, "connection refused");
}

#[tokio::test]
async fn a_snapshot_that_failed_is_a_failure() {
    let Some(server) = redis("save 3600 1") else { return };
    redis_cli(server.port, &["config", "set", "dbfilename", "dump.rdb"]);
    // A directory stands where the snapshot is to be written, which stops root too.
    std::fs::create_dir(server.directory.path().join("dump.rdb")).unwrap();
    redis_cli(server.port, &["set", "a", "b"]);
    redis_cli(server.port, &["bgsave"]);
    wait("the snapshot fails", || redis_cli(server.port, &["info", "persistence"]).contains("rdb_last_bgsave_status:err"));
    expect("snapshot", &ask(settings(&url(&server))).await, Verdict::Fail, "its last snapshot failed");
    let finding = ask(RedisSettings { canary: true, ..settings(&url(&server)) }).await;
    expect("the canary meets it", &finding, Verdict::Fail, "refuses writes");
}

#[tokio::test]
async fn a_cluster_with_a_killed_node_fails_with_the_number_of_lost_slots() {
    let lines = "cluster-enabled yes\ncluster-node-timeout 1000\ncluster-require-full-coverage yes";
    // The bus listens on the port plus 10000, which nobody else is given.
    let mut nodes = Vec::new();
    for _ in 0..3 {
        let Some(node) = redis_in(tempfile::tempdir().unwrap(), free_port(), lines, &[]) else { return };
        nodes.push(node);
    }
    let asked = |node: &Process| RedisSettings { topology: RedisTopology::Cluster, ..settings(&url(node)) };
    expect("no slots yet", &ask(asked(&nodes[0])).await, Verdict::Fail, "16384 of 16384 slots are served by nobody");

    let addresses: Vec<String> = nodes.iter().map(|node| node.address().to_string()).collect();
    let mut create = vec!["--cluster", "create"];
    create.extend(addresses.iter().map(String::as_str));
    create.push("--cluster-yes");
    crate::servers::run("redis-cli", &create);
    wait("the cluster agrees", || nodes.iter().all(|node| redis_cli(node.port, &["cluster", "info"]).contains("cluster_state:ok")));
    expect("no replicas", &ask(asked(&nodes[0])).await, Verdict::Warn, "have no replica");

    nodes[2].kill();
    expect("just killed", &ask(asked(&nodes[0])).await, Verdict::Fail, "connection refused");
    wait("the others notice", || redis_cli(nodes[0].port, &["cluster", "info"]).contains("cluster_state:fail"));
    assert_eq!(redis_cli(nodes[0].port, &["ping"]).trim(), "PONG", "a PING does not tell");
    let finding = ask(asked(&nodes[0])).await;
    expect("a hole", &finding, Verdict::Fail, "slots are served by nobody");

    let single = redis("").unwrap();
    expect("no cluster", &ask(asked(&single)).await, Verdict::Fail, "is not part of a cluster");
}

#[tokio::test]
async fn sentinel_leads_to_the_master_and_tells_when_it_cannot() {
    let Some(mut master) = redis("") else { return };
    let lines = format!("sentinel monitor shop 127.0.0.1 {} 1\nsentinel down-after-milliseconds shop 60000", master.port);
    let sentinel = sentinel(&lines);
    let asked = |name: &str| RedisSettings { topology: RedisTopology::Sentinel { master: name.to_owned() }, ..settings(&url(&sentinel)) };
    expect("well", &ask(asked("shop")).await, Verdict::Ok, "named by Sentinel");
    expect("another name", &ask(asked("market")).await, Verdict::Fail, "knows no master `market`");
    master.kill();
    expect("the master is gone", &ask(asked("shop")).await, Verdict::Fail, "the master: connection refused");
}

fn sentinel(lines: &str) -> Process {
    let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
    let file = directory.path().join("sentinel.conf");
    crate::servers::write(&file, &format!("port {port}\nbind 127.0.0.1\ndir {}\n{lines}\n", directory.path().display()));
    let program = crate::servers::program("redis-server", "KALEEM_TEST_REDIS_SERVER").unwrap();
    crate::servers::start(&program, &[file.display().to_string(), "--sentinel".to_owned()], &[], directory, port)
}

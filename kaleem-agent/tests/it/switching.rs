//! One pointer is swapped, and nothing is lost: not by a switch, not by an instance that dies, not twice.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kaleem_core::traffic::{Generation, Refusal, Traffic, TrafficError};

use super::client::{Kind, Load, Raw, get};
use super::instance::Instance;
use super::world::{Plan, routing, sticky, until};

const SHORT: Duration = Duration::from_millis(300);

#[tokio::test(flavor = "multi_thread")]
async fn forty_switches_under_load_lose_nothing() {
    let gateway = Plan::http().start().await;
    let mut serving = Instance::start("api-0", 0).await;
    gateway.route(1, &[&serving]).await;
    let loads = [
        Load::start(gateway.address(), 8, Kind::KeepAlive),
        Load::start(gateway.address(), 2, Kind::Fresh),
        Load::start(gateway.address(), 2, Kind::Posts),
    ];
    let mut taken = Vec::new();
    for release in 1..=40 {
        for load in &loads {
            load.more(20).await;
        }
        let next = Instance::start(&format!("api-{release}"), release).await;
        gateway.route(release + 1, &[&next]).await;
        let report = gateway.drain(&serving, Duration::from_secs(10), SHORT).await;
        assert_eq!((report.cut, report.closed_streams), (0, 0));
        // Safe to stop means that it may be killed now.
        serving.die().await;
        taken.extend(serving.taken());
        serving = next;
    }
    for load in loads {
        load.more(20).await;
        assert_eq!(load.end().await, Vec::<String>::new());
    }
    taken.extend(serving.taken());
    let mut times = BTreeMap::new();
    for id in &taken {
        *times.entry(id).or_insert(0) += 1;
    }
    assert!(times.values().all(|count| *count == 1), "taken twice: {times:?}");
    assert!(taken.len() >= 40 * 20, "only {} were taken", taken.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_begins_after_a_switch_goes_to_the_new_instance_also_on_an_old_connection() {
    let gateway = Plan::http().start().await;
    let (old, new) = (Instance::start("api-1", 1).await, Instance::start("api-2", 2).await);
    gateway.route(1, &[&old]).await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = Raw::connect(gateway.address()).await;
        assert_eq!(client.get("/").await.text(), "api-1");
        clients.push(client);
    }
    gateway.route(2, &[&new]).await;
    for client in &mut clients {
        assert_eq!(client.get("/").await.text(), "api-2");
    }
    until("connections to the old instance are closed", async || old.open() == 0).await;
    gateway.route(3, &[&old]).await;
    for client in &mut clients {
        assert_eq!(client.get("/").await.text(), "api-1", "switching back is the same");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_or_another_routing_of_the_same_generation_changes_nothing() {
    let gateway = Plan::http().start().await;
    let (one, two) = (Instance::start("api-1", 1).await, Instance::start("api-2", 2).await);
    gateway.route(5, &[&one]).await;
    gateway.route(5, &[&one]).await;
    let refused = async |generation, instance: &Instance| {
        let routing = routing(generation, &[gateway.target(instance, 1)]);
        match gateway.traffic.steer(&gateway.name, &routing).await {
            Err(TrafficError::Refused { source, .. }) => source,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused(4, &two).await, Refusal::Stale { offered: Generation::new(4), current: Generation::new(5) });
    assert_eq!(refused(5, &two).await, Refusal::Conflict { generation: Generation::new(5) });
    assert_eq!(get(gateway.address(), "/").await.text(), "api-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn shares_follow_the_weights() {
    let gateway = Plan::http().start().await;
    let (old, new) = (Instance::start("api-1", 1).await, Instance::start("api-2", 2).await);
    gateway.steer(&routing(1, &[gateway.target(&old, 90), gateway.target(&new, 10)])).await;
    let mut client = Raw::connect(gateway.address()).await;
    for _ in 0..200 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert_eq!((old.requests(), new.requests()), (180, 20));
    let stats = gateway.stats().await;
    let counted: Vec<u64> = stats.releases.values().map(|counts| counts.requests).collect();
    assert_eq!(counted, [180, 20], "counted by release");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_keeps_a_client_at_its_instance_then_at_its_release() {
    let gateway = Plan::http().start().await;
    let instances = [Instance::start("api-1", 1).await, Instance::start("api-2", 2).await, Instance::start("api-3", 2).await];
    let targets: Vec<_> = instances.iter().map(|instance| gateway.target(instance, 1)).collect();
    gateway.steer(&sticky(1, &targets)).await;
    let mut client = Raw::connect(gateway.address()).await;
    let (cookie, first) = loop {
        let answer = client.get("/").await;
        let cookie = answer.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        if answer.text() != "api-1" {
            break (cookie, answer.text().to_owned());
        }
    };
    let mut again = async || {
        client.send(format!("GET / HTTP/1.1\r\nHost: api\r\nCookie: a=b; {cookie}\r\n\r\n")).await;
        client.answer().await
    };
    for _ in 0..10 {
        let answer = again().await;
        assert_eq!((answer.text(), answer.header("set-cookie")), (first.as_str(), None));
    }
    let left: Vec<_> = targets.into_iter().filter(|target| target.instance.as_str() != first).collect();
    gateway.steer(&sticky(2, &left)).await;
    let answer = again().await;
    assert!(answer.text() != "api-1" && answer.text() != first, "the other instance of release 2: {}", answer.text());
    assert!(answer.header("set-cookie").is_some(), "and it is told the new one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_could_not_be_sent_goes_elsewhere() {
    let gateway = Plan::http().start().await;
    let (alive, dead) = (Instance::start("api-1", 1).await, Instance::start("api-2", 1).await);
    dead.die().await;
    gateway.route(1, &[&alive, &dead]).await;
    for number in 0..20 {
        let mut client = Raw::connect(gateway.address()).await;
        client.send(format!("POST /take?{number} HTTP/1.1\r\nHost: api\r\nContent-Length: 3\r\n\r\nabc")).await;
        assert_eq!(client.answer().await.text(), "api-1");
    }
    assert_eq!(alive.taken().len(), 20);
    let stats = gateway.stats().await;
    let failed = stats.targets.iter().find(|target| target.instance == dead.name).unwrap();
    assert!(failed.counts.connect_failures >= 1, "{failed:?}");
    assert!(failed.counts.connect_failures < 10, "it is asked in the background, not by each request: {failed:?}");
    // As soon as it is there it gets its share.
    let risen = Instance::start_at("api-2", 1, dead.address).await;
    until("it is believed again", async || {
        get(gateway.address(), "/").await;
        risen.requests() > 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_closes_connections_without_a_word_costs_nothing() {
    let gateway = Plan::http().start().await;
    let instance = Instance::start("api-1", 1).await;
    instance.state.closes_early.store(true, Ordering::SeqCst);
    gateway.route(1, &[&instance]).await;
    let loads = [Load::start(gateway.address(), 6, Kind::KeepAlive), Load::start(gateway.address(), 4, Kind::Posts)];
    for load in loads {
        load.more(300).await;
        assert_eq!(load.end().await, Vec::<String>::new());
    }
    let taken = instance.taken();
    assert_eq!(taken.iter().collect::<std::collections::BTreeSet<_>>().len(), taken.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_is_killed_loses_no_get_and_takes_no_post_twice() {
    let gateway = Plan::http().start().await;
    let (one, two) = (Instance::start("api-1", 1).await, Instance::start("api-2", 1).await);
    gateway.route(1, &[&one, &two]).await;
    let gets = Load::start(gateway.address(), 6, Kind::KeepAlive);
    let posts = Load::start(gateway.address(), 4, Kind::Posts);
    gets.more(100).await;
    posts.more(100).await;
    one.die().await;
    gets.more(100).await;
    posts.more(100).await;
    assert_eq!(gets.end().await, Vec::<String>::new());
    let lost = posts.end().await;
    assert!(lost.len() <= 4, "at most what was in flight: {lost:?}");
    let taken = [one.taken(), two.taken()].concat();
    assert_eq!(taken.iter().collect::<std::collections::BTreeSet<_>>().len(), taken.len(), "none was taken twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_whose_answer_is_lost_is_told_and_not_repeated() {
    let gateway = Plan::http().start().await;
    let (one, two) = (Instance::start("api-1", 1).await, Instance::start("api-2", 1).await);
    one.state.drops_posts.store(true, Ordering::SeqCst);
    gateway.steer(&routing(1, &[gateway.target(&one, 1)])).await;
    let mut client = Raw::connect(gateway.address()).await;
    client.send("POST /take?only HTTP/1.1\r\nHost: api\r\nContent-Length: 3\r\n\r\nabc").await;
    until("it was taken", async || !one.taken().is_empty()).await;
    gateway.steer(&routing(2, &[gateway.target(&one, 1), gateway.target(&two, 1)])).await;
    one.die().await;
    assert_eq!(client.answer().await.status, 502);
    assert_eq!((one.taken().len(), two.taken().len()), (1, 0));
    let stats = gateway.stats().await;
    assert_eq!(stats.targets.iter().map(|target| target.counts.broken).sum::<u64>(), 1);
}

/// Answers one request on each connection as if more were welcome, and closes it.
async fn closes_without_a_word(listener: tokio::net::TcpListener) {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            while stream.read_line(&mut line).await.is_ok_and(|count| count > 2) {
                line.clear();
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await.ok();
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_that_was_closed_unannounced_costs_nothing() {
    let gateway = Plan::http().start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let closing = tokio::spawn(closes_without_a_word(listener));
    let instance = Instance::start("api-1", 1).await.stands_for("api-2", address);
    gateway.route(1, &[&instance]).await;
    let loads = [Load::start(gateway.address(), 8, Kind::KeepAlive), Load::start(gateway.address(), 8, Kind::Fresh)];
    for load in loads {
        load.more(300).await;
        assert_eq!(load.end().await, Vec::<String>::new());
    }
    closing.abort();
}

//! The gateway itself comes and goes: killed, restarted, replaced, and with a state that somebody has bent.

use std::time::Duration;

use kaleem_core::traffic::{DrainPolicy, Generation, Memory, Refusal, Target, TargetState, Traffic, TrafficError};
use rustix::process::Signal;

use super::client::{Kind, Load, Raw, get, open_socket};
use super::instance::{Instance, masked_frame, read_frame};
use super::world::{Plan, binary, routing, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_is_replaced_at_once_and_knows_what_it_was_told() {
    let gateway = Plan::http().start().await;
    let instance = Instance::start("api-1", 1).await;
    gateway.route(7, &[&instance]).await;
    let before = gateway.stats().await;
    gateway.signal(before.worker.pid, Signal::KILL);
    // Not one connection is refused meanwhile: the ports never close.
    for _ in 0..20 {
        assert_eq!(get(gateway.address(), "/").await.text(), "api-1");
    }
    let after = gateway.stats().await;
    assert_eq!((after.worker.memory.clone(), after.worker.crashes), (Memory::Restored, 1));
    assert_ne!(after.worker.epoch, before.worker.epoch);
    assert_eq!(after.routing, before.routing);
    assert!(gateway.log().contains("was ended by signal 9"), "{}", gateway.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn remembered_targets_are_asked_before_they_are_used() {
    let mut gateway = Plan::http().start().await;
    let (alive, dead) = (Instance::start("api-1", 1).await, Instance::start("api-2", 1).await);
    gateway.route(1, &[&alive, &dead]).await;
    gateway.signal(gateway.pid(), Signal::KILL);
    gateway.ended().await;
    dead.die().await;
    gateway.start_again().await;
    let mut client = Raw::connect(gateway.address()).await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.text(), "api-1");
    }
    let stats = gateway.stats().await;
    let states: Vec<TargetState> = stats.targets.iter().map(|target| target.state).collect();
    assert_eq!(states, [TargetState::Believed, TargetState::Doubted]);
    assert_eq!(stats.targets[1].counts.connect_failures, 0, "no request was used up to find out");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_remembered_is_not_waited_for_before_there_is_a_network() {
    let mut gateway = Plan::http().start().await;
    let instance = Instance::start("api-1", 1).await;
    let named = Target { host: "shop-api-r1-1".parse().unwrap(), ..gateway.target(&instance, 1) };
    gateway.steer(&routing(1, &[named])).await;
    gateway.signal(gateway.pid(), Signal::KILL);
    gateway.ended().await;
    gateway.plan.apart = true;
    gateway.start_again().await;
    let stats = gateway.stats().await;
    assert_eq!((stats.worker.memory, stats.targets[0].state), (Memory::Restored, TargetState::Doubted));
    let log = gateway.log();
    assert!(log.contains("no network has been joined yet") && !log.contains("some targets could not be reached yet"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_state_is_told_set_aside_and_never_served_from() {
    for (why, bend) in [
        (
            "a flipped bit",
            (|bytes: &mut Vec<u8>| {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 4;
            }) as fn(&mut Vec<u8>),
        ),
        ("torn", |bytes| bytes.truncate(bytes.len() / 3)),
        ("empty", Vec::clear),
        ("zeros, as after a loss of power", |bytes| bytes.fill(0)),
    ] {
        let mut gateway = Plan::http().start().await;
        let instance = Instance::start("api-1", 1).await;
        gateway.route(3, &[&instance]).await;
        gateway.signal(gateway.pid(), Signal::KILL);
        gateway.ended().await;
        let file = gateway.directory().join("routing.json");
        let mut bytes = std::fs::read(&file).unwrap();
        bend(&mut bytes);
        kaleem_core::durable::write_atomic(&file, &bytes, 0o600).unwrap();
        gateway.start_again().await;
        let stats = gateway.stats().await;
        assert!(matches!(stats.worker.memory, Memory::Damaged { .. }), "{why}: {:?}", stats.worker.memory);
        assert_eq!((stats.routing, stats.targets.len()), (None, 0), "{why}");
        assert!(gateway.log().contains("THE STATE IS DAMAGED"), "{why}: {}", gateway.log());
        assert!(gateway.directory().join("routing.json.damaged").exists(), "{why}");
        // It holds instead of guessing, and goes on when it is told what to do.
        let address = gateway.address();
        let asked = tokio::spawn(async move { get(address, "/").await });
        until("it is held", async || gateway.stats().await.hold.waiting == 1).await;
        gateway.route(3, &[&instance]).await;
        assert_eq!(asked.await.unwrap().text(), "api-1", "{why}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn five_upgrades_under_load_lose_nothing() {
    let gateway = Plan::http().start().await;
    let instance = Instance::start("api-1", 1).await;
    gateway.route(1, &[&instance]).await;
    let loads = [
        Load::start(gateway.address(), 8, Kind::KeepAlive),
        Load::start(gateway.address(), 3, Kind::Fresh),
        Load::start(gateway.address(), 3, Kind::Posts),
    ];
    let mut pids = vec![gateway.stats().await.worker.pid];
    for _ in 0..5 {
        for load in &loads {
            load.more(50).await;
        }
        let version = gateway.traffic.upgrade(&gateway.name, &binary()).await.unwrap();
        assert_eq!(version, env!("CARGO_PKG_VERSION"));
        pids.push(gateway.stats().await.worker.pid);
    }
    for load in loads {
        load.more(50).await;
        assert_eq!(load.end().await, Vec::<String>::new());
    }
    let taken = instance.taken();
    assert_eq!(taken.iter().collect::<std::collections::BTreeSet<_>>().len(), taken.len(), "none was taken twice");
    let different: std::collections::BTreeSet<u32> = pids.iter().copied().collect();
    assert_eq!(different.len(), 6, "{pids:?}");
    until("old workers have ended", async || pids[..5].iter().all(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists())).await;
    assert_eq!(gateway.stats().await.worker.crashes, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_waits_also_for_what_an_old_worker_still_runs() {
    let gateway = Plan::http().start().await;
    let (old, new) = (Instance::start("api-1", 1).await, Instance::start("api-2", 2).await);
    gateway.route(1, &[&old]).await;
    let mut socket = open_socket(gateway.address()).await;
    let mut client = Raw::connect(gateway.address()).await;
    client.send("GET /wait HTTP/1.1\r\nHost: api\r\n\r\n").await;
    until("the request is at the instance", async || old.waiting() == 1).await;
    let mut idle = Raw::connect(gateway.address()).await;
    assert_eq!(idle.get("/").await.text(), "api-1");
    gateway.traffic.upgrade(&gateway.name, &binary()).await.unwrap();
    gateway.route(2, &[&new]).await;
    // A client that stayed with the old worker is sent where the new one was told, and then on to the new one.
    let answer = idle.get("/").await;
    assert_eq!((answer.text(), answer.header("connection")), ("api-2", Some("close")));
    let (traffic, name, instance) = (gateway.traffic.clone(), gateway.name.clone(), old.name.clone());
    let policy = DrainPolicy { requests: Duration::from_secs(15), streams: Duration::from_millis(300) };
    let drain = tokio::spawn(async move { traffic.drain(&name, &instance, &policy).await });
    socket.send(masked_frame(1, b"still there?")).await;
    assert_eq!(read_frame(&mut socket.stream).await.unwrap().1, b"still there?");
    assert_eq!(read_frame(&mut socket.stream).await.unwrap(), (8, 1001_u16.to_be_bytes().to_vec()));
    drop(socket);
    assert!(!drain.is_finished(), "a request of the old worker still runs");
    old.state.go.notify_one();
    assert_eq!(client.answer().await.text(), "api-1");
    let report = drain.await.unwrap().unwrap();
    assert_eq!((report.finished, report.cut, report.closed_streams), (1, 0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_does_not_run_is_refused_and_the_old_one_serves() {
    use std::os::unix::fs::PermissionsExt;
    let gateway = Plan::http().start().await;
    let instance = Instance::start("api-1", 1).await;
    gateway.route(1, &[&instance]).await;
    let pid = gateway.stats().await.worker.pid;
    let bad = gateway.root.path().join("bad");
    for (why, program) in [("it ends at once", "#!/bin/sh\nexit 3\n"), ("it is no program", "\x7fELF but not really")] {
        kaleem_core::durable::write_atomic(&bad, program.as_bytes(), 0o755).unwrap();
        std::fs::set_permissions(&bad, std::fs::Permissions::from_mode(0o755)).unwrap();
        let refused = gateway.traffic.upgrade(&gateway.name, &bad).await;
        assert!(matches!(refused, Err(TrafficError::Refused { source: Refusal::UpgradeFailed { .. }, .. })), "{why}: {refused:?}");
        assert_eq!(gateway.stats().await.worker.pid, pid, "{why}");
        gateway.steer(&routing(if why == "it ends at once" { 2 } else { 3 }, &[gateway.target(&instance, 1)])).await;
        assert_eq!(get(gateway.address(), "/").await.text(), "api-1", "{why}");
    }
    assert_eq!(gateway.stats().await.routing.unwrap().generation, Generation::new(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upgraded_program_serves_again_after_a_restart() {
    let mut gateway = Plan::http().start().await;
    gateway.traffic.upgrade(&gateway.name, &binary()).await.unwrap();
    gateway.signal(gateway.pid(), Signal::KILL);
    gateway.ended().await;
    gateway.start_again().await;
    let pid = gateway.stats().await.worker.pid;
    let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    assert!(program.starts_with(gateway.directory()), "{program:?}");
    // One that is gone is no reason not to serve.
    gateway.signal(gateway.pid(), Signal::KILL);
    gateway.ended().await;
    std::fs::remove_file(&program).unwrap();
    gateway.start_again().await;
    let pid = gateway.stats().await.worker.pid;
    assert_eq!(std::fs::read_link(format!("/proc/{pid}/exe")).unwrap(), binary());
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_requests_finish_closes_websockets_and_ends_with_0() {
    let mut gateway = Plan::http().start().await;
    let instance = Instance::start("api-1", 1).await;
    gateway.route(1, &[&instance]).await;
    let worker = gateway.stats().await.worker.pid;
    let mut socket = open_socket(gateway.address()).await;
    let mut client = Raw::connect(gateway.address()).await;
    client.send("GET /wait HTTP/1.1\r\nHost: api\r\n\r\n").await;
    until("the request is at the instance", async || instance.waiting() == 1).await;
    gateway.signal(gateway.pid(), Signal::TERM);
    assert_eq!(read_frame(&mut socket.stream).await.unwrap(), (8, 1001_u16.to_be_bytes().to_vec()));
    drop(socket);
    instance.state.go.notify_one();
    assert_eq!(client.answer().await.text(), "api-1");
    assert_eq!(gateway.ended().await.code(), Some(0));
    assert!(!std::path::Path::new(&format!("/proc/{worker}")).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_an_instance_does_not_keep_a_gateway_that_is_stopped() {
    let mut gateway = Plan::http().start().await;
    gateway.route(1, &[]).await;
    let mut client = Raw::connect(gateway.address()).await;
    client.send("POST / HTTP/1.1\r\nHost: api\r\nContent-Length: 2\r\n\r\nhi").await;
    until("it waits", async || gateway.stats().await.hold.waiting == 1).await;
    let began = tokio::time::Instant::now();
    gateway.signal(gateway.pid(), Signal::TERM);
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.text().trim_end()), (503, "the gateway is being stopped, and the service is not there"));
    assert_eq!(gateway.ended().await.code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(5), "it does not wait for the grace of requests that run");
}

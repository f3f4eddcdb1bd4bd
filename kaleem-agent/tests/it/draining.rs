//! A drain returns when it is safe to stop, and not before.

use std::time::Duration;

use kaleem_core::traffic::{DrainPolicy, Refusal, Traffic, TrafficError};
use tokio::io::AsyncReadExt;

use super::client::{Raw, open_socket};
use super::instance::{Instance, masked_frame, read_frame};
use super::world::{Gateway, Plan, until};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(200);

async fn switched(open: impl AsyncFnOnce(&Gateway, &Instance) -> Raw) -> (Gateway, Instance, Instance, Raw) {
    let gateway = Plan::http().start().await;
    let (old, new) = (Instance::start("api-1", 1).await, Instance::start("api-2", 2).await);
    gateway.route(1, &[&old]).await;
    let client = open(&gateway, &old).await;
    gateway.route(2, &[&new]).await;
    (gateway, old, new, client)
}

async fn waiting(gateway: &Gateway, old: &Instance) -> Raw {
    let mut client = Raw::connect(gateway.address()).await;
    client.send("GET /wait HTTP/1.1\r\nHost: api\r\n\r\n").await;
    until("the request is at the instance", async || old.waiting() == 1).await;
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_waits_for_the_last_request() {
    let (gateway, old, _new, mut client) = switched(waiting).await;
    let (traffic, name, instance) = (gateway.traffic.clone(), gateway.name.clone(), old.name.clone());
    let drain = tokio::spawn(async move { traffic.drain(&name, &instance, &DrainPolicy { requests: LONG, streams: SHORT }).await });
    until("others are served while it drains", async || super::client::get(gateway.address(), "/").await.text() == "api-2").await;
    tokio::time::sleep(SHORT * 2).await;
    assert!(!drain.is_finished(), "a request still runs");
    old.state.go.notify_one();
    assert_eq!(client.answer().await.text(), "api-1");
    let report = drain.await.unwrap().unwrap();
    assert_eq!((report.finished, report.cut, report.closed_streams), (1, 0, 0));
    assert!(report.took >= SHORT * 2, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_cuts_what_does_not_end_and_says_so() {
    let (gateway, old, _new, mut client) = switched(waiting).await;
    let report = gateway.drain(&old, SHORT, LONG).await;
    assert_eq!((report.finished, report.cut, report.closed_streams), (0, 1, 0));
    assert!(client.try_answer(true).await.is_err(), "the client learns that there is no answer");
    until("nothing runs at the instance", async || old.open() == 0).await;
    let again = gateway.drain(&old, SHORT, LONG).await;
    assert_eq!((again.finished, again.cut), (0, 0), "once more is nothing to do");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_gets_requests_is_not_drained() {
    let gateway = Plan::http().start().await;
    let instance = Instance::start("api-1", 1).await;
    gateway.route(1, &[&instance]).await;
    let refused = gateway.traffic.drain(&gateway.name, &instance.name, &DrainPolicy { requests: SHORT, streams: SHORT }).await;
    assert!(matches!(refused, Err(TrafficError::Refused { source: Refusal::StillRouted { .. }, .. })), "{refused:?}");
    let unknown = super::world::instance_name("never-was");
    assert_eq!(gateway.traffic.drain(&gateway.name, &unknown, &DrainPolicy { requests: LONG, streams: LONG }).await.unwrap().finished, 0);
}

async fn socket(gateway: &Gateway, _old: &Instance) -> Raw {
    let mut client = open_socket(gateway.address()).await;
    for size in [0, 5, 125, 126, 60_000] {
        client.send(masked_frame(2, &vec![7; size])).await;
        assert_eq!(read_frame(&mut client.stream).await.unwrap(), (2, vec![7; size]));
    }
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_lives_on_after_a_switch_and_ends_with_close_1001() {
    let (gateway, old, _new, mut client) = switched(socket).await;
    client.send(masked_frame(1, b"still there?")).await;
    assert_eq!(read_frame(&mut client.stream).await.unwrap(), (1, b"still there?".to_vec()));
    let stats = gateway.stats().await;
    let target = stats.targets.iter().find(|target| target.instance == old.name).unwrap();
    assert_eq!((target.in_flight, target.streams), (1, 1));
    let report = gateway.drain(&old, Duration::ZERO, SHORT);
    let closing = async {
        assert_eq!(read_frame(&mut client.stream).await.unwrap(), (8, 1001_u16.to_be_bytes().to_vec()));
        client.send(masked_frame(8, &1001_u16.to_be_bytes())).await;
        assert!(client.closed().await);
    };
    let (report, ()) = tokio::join!(report, closing);
    assert_eq!((report.finished, report.cut, report.closed_streams), (0, 0, 1), "not cut as a request at once");
    assert!(report.took >= SHORT);
    until("nothing runs at the instance", async || old.open() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_that_never_pauses_is_closed_between_two_frames() {
    let (gateway, old, _new, client) = switched(socket).await;
    let (mut reader, mut writer) = tokio::io::split(client.stream);
    let talking = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        while writer.write_all(&masked_frame(2, &[9; 3000])).await.is_ok() {}
    });
    let listening = tokio::spawn(async move {
        loop {
            match read_frame(&mut reader).await {
                Ok((2, payload)) => assert!(payload.len() == 3000 && payload.iter().all(|byte| *byte == 9)),
                Ok(other) => return other,
                Err(error) => panic!("no close came: {error}"),
            }
        }
    });
    gateway.drain(&old, SHORT, SHORT).await;
    assert_eq!(listening.await.unwrap(), (8, 1001_u16.to_be_bytes().to_vec()));
    talking.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_stream_lives_on_after_a_switch_and_then_ends_in_order() {
    let (gateway, old, _new, mut client) = switched(async |gateway, _| {
        let mut client = Raw::connect(gateway.address()).await;
        client.send("GET /events HTTP/1.1\r\nHost: api\r\n\r\n").await;
        // It is the old one that answers, only if it was asked before the switch.
        assert_eq!(client.head().await.unwrap().0, 200);
        client
    })
    .await;
    let mut event = [0; 3 + 9 + 2];
    client.stream.read_exact(&mut event).await.unwrap();
    assert_eq!(&event, b"9\r\ndata: 0\n\n\r\n");
    old.state.event.notify_one();
    client.stream.read_exact(&mut event).await.unwrap();
    assert_eq!(&event, b"9\r\ndata: 1\n\n\r\n");
    let report = gateway.drain(&old, Duration::ZERO, SHORT).await;
    assert_eq!((report.cut, report.closed_streams), (0, 1));
    let mut end = [0; 5];
    client.stream.read_exact(&mut end).await.unwrap();
    assert_eq!(&end, b"0\r\n\r\n", "the last chunk, so that the client reconnects instead of failing");
    until("nothing runs at the instance", async || old.open() == 0).await;
}

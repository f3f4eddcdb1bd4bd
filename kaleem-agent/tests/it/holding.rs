//! While nobody can answer, requests wait: so many, so long, and then they do not all come at once.

use std::time::Duration;

use kaleem_core::traffic::{Admission, HoldLimits, Memory, Routing};

use super::client::{Kind, Load, Raw, get};
use super::instance::Instance;
use super::world::{Gateway, Plan, routing, until};

async fn held(gateway: &Gateway, count: usize) -> Vec<tokio::task::JoinHandle<super::client::Answer>> {
    let address = gateway.address();
    let asked = (0..count).map(|_| tokio::spawn(async move { get(address, "/").await })).collect();
    until("they wait", async || gateway.stats().await.hold.waiting == count as u64).await;
    asked
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreate_behind_the_gateway_loses_nothing() {
    let gateway = Plan::http().start().await;
    let old = Instance::start("api-1", 1).await;
    gateway.route(1, &[&old]).await;
    let loads = [Load::start(gateway.address(), 6, Kind::KeepAlive), Load::start(gateway.address(), 3, Kind::Posts)];
    for load in &loads {
        load.more(50).await;
    }
    gateway.steer(&Routing { admission: Admission::Hold, ..routing(2, &[gateway.target(&old, 0)]) }).await;
    gateway.drain(&old, Duration::from_secs(5), Duration::from_secs(5)).await;
    old.die().await;
    until("all clients wait", async || gateway.stats().await.hold.waiting == 9).await;
    let new = Instance::start_at("api-1", 2, old.address).await;
    gateway.route(3, &[&new]).await;
    for load in loads {
        load.more(50).await;
        assert_eq!(load.end().await, Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_gateway_holds_until_it_is_steered() {
    let gateway = Plan::http().start().await;
    assert_eq!(gateway.stats().await.worker.memory, Memory::Fresh);
    let asked = held(&gateway, 5).await;
    let instance = Instance::start("api-1", 1).await;
    gateway.route(1, &[&instance]).await;
    for answer in asked {
        assert_eq!(answer.await.unwrap().text(), "api-1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_is_bounded_in_number_and_in_time() {
    let gateway = Plan::http().start().await;
    let hold = HoldLimits { requests: 3, time: Duration::from_millis(700), release_per_second: 1000 };
    gateway.steer(&Routing { hold, ..routing(1, &[]) }).await;
    let asked = held(&gateway, 3).await;
    let answer = get(gateway.address(), "/").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "the queue is full");
    for answer in asked {
        let answer = answer.await.unwrap();
        assert_eq!((answer.status, answer.text()), (503, "the service did not come up in time\n"));
    }
    let stats = gateway.stats().await.hold;
    assert_eq!((stats.waiting, stats.held, stats.expired, stats.overflowed), (0, 3, 3, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_leaves_the_queue() {
    let gateway = Plan::http().start().await;
    let mut client = Raw::connect(gateway.address()).await;
    client.send("GET / HTTP/1.1\r\nHost: api\r\n\r\n").await;
    until("it waits", async || gateway.stats().await.hold.waiting == 1).await;
    drop(client);
    until("its place is free", async || gateway.stats().await.hold.waiting == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_held_is_let_go_at_the_pace_that_was_set() {
    let gateway = Plan::http().start().await;
    let hold = HoldLimits { requests: 100, time: Duration::from_secs(20), release_per_second: 20 };
    gateway.steer(&Routing { hold, ..routing(1, &[]) }).await;
    let asked = held(&gateway, 21).await;
    let instance = Instance::start("api-1", 1).await;
    let began = tokio::time::Instant::now();
    gateway.steer(&Routing { hold, ..routing(2, &[gateway.target(&instance, 1)]) }).await;
    for answer in asked {
        assert_eq!(answer.await.unwrap().status, 200);
    }
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(950), "21 requests at 20 a second took {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_wait_for_an_instance_that_the_engine_restarts() {
    let gateway = Plan::http().start().await;
    let instance = Instance::start("api-1", 1).await;
    gateway.route(1, &[&instance]).await;
    assert_eq!(get(gateway.address(), "/").await.status, 200);
    instance.die().await;
    let asked = held(&gateway, 4).await;
    let risen = Instance::start_at("api-1", 1, instance.address).await;
    for answer in asked {
        assert_eq!(answer.await.unwrap().status, 200);
    }
    assert_eq!(risen.requests(), 4);
}

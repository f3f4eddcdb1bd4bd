//! The watch after a switch: each of its verdicts, and what it must not take for one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kaleem_core::engine::Ending;
use kaleem_core::names::ReleaseId;
use kaleem_core::outcome::Outcome;
use kaleem_core::runtime::RuntimeError;
use kaleem_core::testing::traffic_fake::TrafficCall;
use kaleem_core::testing::{Behaviour, FakeCall, FakeOperation};
use kaleem_core::traffic::{Counts, Latency};

use crate::world::{ServiceExt, World, container, lasting, project, service, setting};

const NEW: &str = "shop-api-r2-1";

fn app(tag: &str) -> kaleem_core::config::Project {
    let project = project(vec![service("api", &format!("registry.example/app:{tag}")).publishing(8080, 3000)]);
    setting(project, "api", |api| api.max_latency = lasting("1s"))
}

/// What happens at each look of the watch at the new instance, which it asks the engine for.
type AtLook = Arc<dyn Fn(&World, usize) -> Option<RuntimeError> + Send + Sync>;

async fn deploy_watched(at_look: AtLook) -> (World, Ending) {
    let world = World::with_gateways();
    for tag in ["v1", "v2"] {
        world.push(&format!("registry.example/app:{tag}"), Behaviour::Healthy);
    }
    world.deploy(&app("v1")).await.unwrap();
    let (shared, looks) = (world.again(), AtomicUsize::new(0));
    world.runtime.before_call(Some(Arc::new(move |call: &FakeCall| {
        let sends_to_new = |call: &TrafficCall| {
            matches!(call, TrafficCall::Steer(_, routing) if routing.targets.iter().any(|target| target.instance.as_str() == NEW))
        };
        let watched = call.operation == FakeOperation::Inspect && call.target == NEW && shared.traffic.fake.calls().iter().any(sends_to_new);
        if watched { at_look(&shared, looks.fetch_add(1, Ordering::SeqCst)) } else { None }
    })));
    let ending = world.deploy(&app("v2")).await.unwrap();
    world.runtime.before_call(None);
    (world, ending)
}

/// So many requests, of which some failed, and the time in which the answers began.
fn counted(requests: u64, server_errors: u64, broken: u64, latency: Duration) -> Counts {
    let mut counts = Counts { requests, server_errors, broken, ..Counts::default() };
    counts.latency.record(Latency::bucket_of(latency), requests);
    counts
}

/// Adds them at the third look, when the watch has its first reading.
fn requests(counts: Counts) -> AtLook {
    Arc::new(move |world, look| {
        if look == 2 {
            world.traffic.fake.count(&"shop-api-gateway".parse().unwrap(), &container(NEW), &counts);
        }
        None
    })
}

#[tokio::test]
async fn each_verdict_of_the_watch_switches_back_and_says_why() {
    let quick = Duration::from_millis(3);
    let at_second_look = |act: fn(&World)| -> AtLook {
        Arc::new(move |world, look| {
            if look == 1 {
                act(world);
            }
            None
        })
    };
    let refuses: AtLook = Arc::new(|_, look| {
        (look == 1).then(|| RuntimeError::Refused { operation: "inspect it".to_owned(), status: 500, message: "no".to_owned() })
    });
    let cases: [(&str, AtLook, &str); 7] = [
        ("answers are errors", requests(counted(100, 9, 0, quick)), "9 of 100 requests failed at it (9 %)"),
        ("connections break", requests(counted(100, 0, 60, quick)), "60 of 100 requests failed at it (60 %)"),
        ("answers are slow", requests(counted(100, 0, 0, Duration::from_secs(2))), "and 1s is allowed"),
        (
            "it is killed for memory",
            at_second_look(|world| world.runtime.set_container_behaviour(&container(NEW), Behaviour::OomKilled)),
            "more memory than it may",
        ),
        ("it is killed", at_second_look(|world| world.runtime.kill_by_hand(&container(NEW))), "was started again by its restart policy"),
        ("it is removed", at_second_look(|world| world.runtime.remove_by_hand(&container(NEW))), "removed by somebody else"),
        ("the engine refuses to say", refuses, "the engine could not be asked about it"),
    ];
    for (why, at_look, message) in cases {
        let (world, ending) = deploy_watched(at_look).await;
        let Ending::Over(Outcome::RolledBack { error, serving, .. }) = ending else { panic!("{why}: {ending:?}") };
        assert!(error.contains(message), "{why}: {error}");
        assert_eq!(serving, Some(ReleaseId::new(1)), "{why}");
        assert_eq!(world.routed("api").await.unwrap(), ["shop-api-r1-1"], "{why}");
        assert_eq!(world.containers(), ["shop-api-gateway running", "shop-api-r1-1 running"], "{why}: nothing of it is left");
    }
}

#[tokio::test]
async fn too_little_or_nothing_wrong_is_no_verdict() {
    let quick = Duration::from_millis(3);
    for (why, counts) in [
        ("fewer requests than count", counted(9, 9, 0, Duration::from_secs(9))),
        ("no more errors than may be", counted(100, 5, 0, quick)),
        ("as slow as may be", counted(100, 0, 0, Duration::from_millis(800))),
    ] {
        let (world, ending) = deploy_watched(requests(counts)).await;
        assert!(matches!(ending, Ending::Over(Outcome::Deployed { .. })), "{why}: {ending:?}");
        assert_eq!(world.routed("api").await.unwrap(), [NEW], "{why}");
    }
}

#[tokio::test]
async fn a_gateway_that_starts_anew_during_the_watch_counts_from_its_start() {
    let (world, ending) = deploy_watched(Arc::new(|world, look| {
        if look == 2 {
            // What stands between two readings of different lives is no difference that anybody counted.
            let gateway = "shop-api-gateway".parse().unwrap();
            world.traffic.fake.count(&gateway, &container(NEW), &counted(100, 100, 0, Duration::from_millis(3)));
            world.traffic.fake.start(&gateway);
        }
        None
    }))
    .await;
    assert!(matches!(ending, Ending::Over(Outcome::Deployed { .. })), "{ending:?}");
    assert_eq!(world.routed("api").await.unwrap(), [NEW]);
}

#[tokio::test]
async fn a_gateway_that_never_answers_during_the_watch_is_no_good_news() {
    let (world, ending) = deploy_watched(Arc::new(|world, look| {
        if look == 0 {
            world.runtime.stop_by_hand(&container("shop-api-gateway"));
        }
        None
    }))
    .await;
    let Ending::Over(Outcome::RolledBack { error, .. }) = ending else { panic!("{ending:?}") };
    assert!(error.contains("watch api at its gateway"), "{error}");
    assert_eq!(world.containers(), ["shop-api-gateway running", "shop-api-r1-1 running"], "going back starts it again");
    assert_eq!(world.routed("api").await.unwrap(), ["shop-api-r1-1"]);
}

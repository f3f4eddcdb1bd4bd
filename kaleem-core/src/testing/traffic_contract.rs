//! What every implementation of [`Traffic`] must do: the fake and a real gateway run the same.
//!
//! The suite panics where the contract is broken.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;

use crate::health::{Question, Verdict};
use crate::names::{ContainerName, GatewayName};
use crate::traffic::{Admission, DrainPolicy, Generation, HoldLimits, Refusal, Routing, Target, TargetState, Traffic, TrafficError};

/// A gateway that has never been steered, instances behind it, and clients in front of it.
#[async_trait(?Send)]
pub trait TrafficBench {
    /// What is under test.
    fn traffic(&self) -> &dyn Traffic;
    /// The gateway.
    fn gateway(&self) -> GatewayName;
    /// A gateway that does not run.
    fn absent(&self) -> GatewayName;
    /// An instance that answers, of release `number`; the same one for the same number. Its weight is 1.
    async fn instance(&self, number: u64) -> Target;
    /// An instance that does not answer.
    async fn dead(&self) -> Target;
    /// A port of the gateway.
    fn port(&self) -> u16;
    /// Sends a request and answers with the instance that served it; `None` when it is held.
    async fn ask(&self) -> Option<ContainerName>;
    /// Sends a request that runs at its instance until it is finished.
    async fn begin(&self) -> ContainerName;
    /// Lets such a request end, and waits until its answer is there.
    async fn finish(&self, instance: &ContainerName);
    /// A binary to which the gateway can be upgraded.
    fn binary(&self) -> PathBuf;
}

const SHORT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(30);

fn routing(generation: u64, targets: &[Target]) -> Routing {
    Routing {
        generation: Generation::new(generation),
        admission: Admission::Serve,
        hold: HoldLimits { requests: 100, time: LONG, release_per_second: 1000 },
        stickiness: None,
        targets: targets.to_vec(),
    }
}

fn refusal<T: std::fmt::Debug>(why: &str, result: Result<T, TrafficError>) -> Refusal {
    match result {
        Err(TrafficError::Refused { source, .. }) => source,
        other => fail(&format!("{why}: should be refused, and is {other:?}")),
    }
}

fn fail(text: &str) -> ! {
    #[expect(clippy::panic, reason = "this is a test suite")]
    {
        panic!("{text}")
    }
}

fn done<T>(why: &str, result: Result<T, TrafficError>) -> T {
    result.unwrap_or_else(|error| fail(&format!("{why}: {}", crate::remedy::one_line(&error))))
}

/// Runs the whole suite.
pub async fn keeps_the_contract(bench: &dyn TrafficBench) {
    a_gateway_that_does_not_run_is_unreachable(bench).await;
    steering_is_whole_ordered_and_repeatable(bench).await;
    a_held_gateway_answers_nobody(bench).await;
    weight_0_keeps_a_target_known_and_gives_it_nothing(bench).await;
    probes_ask_from_the_gateway_and_change_nothing(bench).await;
    a_drain_waits_then_cuts_and_repeats(bench).await;
    counters_grow_by_what_was_sent(bench).await;
    an_upgrade_keeps_what_was_steered(bench).await;
}

async fn a_gateway_that_does_not_run_is_unreachable(bench: &dyn TrafficBench) {
    let (traffic, absent) = (bench.traffic(), bench.absent());
    let policy = DrainPolicy { requests: SHORT, streams: SHORT };
    let target = bench.instance(1).await;
    let question = Question::Tcp { port: bench.port() };
    let errors = [
        traffic.steer(&absent, &routing(1, &[])).await.err(),
        traffic.stats(&absent).await.err(),
        traffic.drain(&absent, &target.instance, &policy).await.err(),
        traffic.probe(&absent, &target, &question, LONG).await.err(),
        traffic.upgrade(&absent, &bench.binary()).await.err(),
    ];
    for error in errors {
        assert!(matches!(error, Some(TrafficError::Unreachable { .. })), "a gateway that does not run: {error:?}");
    }
}

async fn steering_is_whole_ordered_and_repeatable(bench: &dyn TrafficBench) {
    let (traffic, gateway) = (bench.traffic(), bench.gateway());
    let (one, two) = (bench.instance(1).await, bench.instance(2).await);
    assert_eq!(done("stats", traffic.stats(&gateway).await).routing, None, "it was never steered");
    let first = routing(10, std::slice::from_ref(&one));
    done("first", traffic.steer(&gateway, &first).await);
    done("the same again", traffic.steer(&gateway, &first).await);
    assert_eq!(bench.ask().await, Some(one.instance.clone()));
    let other = routing(10, std::slice::from_ref(&two));
    assert_eq!(
        refusal("same generation, other content", traffic.steer(&gateway, &other).await),
        Refusal::Conflict { generation: Generation::new(10) }
    );
    assert_eq!(
        refusal("older", traffic.steer(&gateway, &routing(9, std::slice::from_ref(&two))).await),
        Refusal::Stale { offered: Generation::new(9), current: Generation::new(10) }
    );
    for (why, bad) in [
        ("an instance twice", routing(11, &[one.clone(), one.clone()])),
        ("too heavy", routing(11, &[Target { weight: 1001, ..one.clone() }])),
        ("never let go", Routing { hold: HoldLimits { release_per_second: 0, ..first.hold }, ..routing(11, &[]) }),
    ] {
        assert!(matches!(refusal(why, traffic.steer(&gateway, &bad).await), Refusal::BadRouting { .. }), "{why}");
    }
    assert_eq!(done("stats", traffic.stats(&gateway).await).routing, Some(first), "nothing of it is in force");
    assert_eq!(bench.ask().await, Some(one.instance.clone()));
    done("newer", traffic.steer(&gateway, &routing(11, std::slice::from_ref(&two))).await);
    for _ in 0..5 {
        assert_eq!(bench.ask().await, Some(two.instance.clone()), "what begins after the switch goes by it");
    }
    done("back", traffic.steer(&gateway, &routing(12, std::slice::from_ref(&one))).await);
    assert_eq!(bench.ask().await, Some(one.instance));
}

async fn a_held_gateway_answers_nobody(bench: &dyn TrafficBench) {
    let (traffic, gateway) = (bench.traffic(), bench.gateway());
    let one = bench.instance(1).await;
    done("hold", traffic.steer(&gateway, &Routing { admission: Admission::Hold, ..routing(20, std::slice::from_ref(&one)) }).await);
    let before = done("stats", traffic.stats(&gateway).await).hold.held;
    assert_eq!(bench.ask().await, None, "held although there is a target");
    assert_eq!(done("stats", traffic.stats(&gateway).await).hold.held, before + 1);
    done("no target", traffic.steer(&gateway, &routing(21, &[])).await);
    assert_eq!(bench.ask().await, None, "held because there is no target");
    done("serve", traffic.steer(&gateway, &routing(22, std::slice::from_ref(&one))).await);
    assert_eq!(bench.ask().await, Some(one.instance));
}

async fn weight_0_keeps_a_target_known_and_gives_it_nothing(bench: &dyn TrafficBench) {
    let (traffic, gateway) = (bench.traffic(), bench.gateway());
    let (one, two) = (bench.instance(1).await, bench.instance(2).await);
    let warm = Target { weight: 0, ..one.clone() };
    done("warm", traffic.steer(&gateway, &routing(30, &[warm, two.clone()])).await);
    for _ in 0..6 {
        assert_eq!(bench.ask().await, Some(two.instance.clone()));
    }
    let stats = done("stats", traffic.stats(&gateway).await);
    let state = |instance: &ContainerName| stats.targets.iter().find(|target| target.instance == *instance).map(|target| target.state);
    assert_eq!((state(&one.instance), state(&two.instance)), (Some(TargetState::Retired), Some(TargetState::Believed)));
}

async fn probes_ask_from_the_gateway_and_change_nothing(bench: &dyn TrafficBench) {
    let (traffic, gateway) = (bench.traffic(), bench.gateway());
    let (stranger, dead) = (bench.instance(3).await, bench.dead().await);
    let before = done("stats", traffic.stats(&gateway).await).routing;
    let tcp = |target: &Target| Question::Tcp { port: target.port(bench.port()) };
    let http = |target: &Target| Question::Http {
        port: target.port(bench.port()),
        path: "/".to_owned(),
        statuses: (200, 399),
        host: None,
        contains: None,
    };
    // The port of the question is the instance's own.
    let plain = |target: &Target| Target { ports: std::collections::BTreeMap::new(), ..target.clone() };
    for (why, target, question, verdict) in [
        ("an instance that is not routed", &stranger, tcp(&stranger), Verdict::Ok),
        ("over HTTP", &stranger, http(&stranger), Verdict::Ok),
        ("nobody there", &dead, tcp(&dead), Verdict::Fail),
        ("nobody there, over HTTP", &dead, http(&dead), Verdict::Fail),
        ("only the engine knows", &stranger, Question::Running, Verdict::Unknown),
    ] {
        let finding = done(why, traffic.probe(&gateway, &plain(target), &question, LONG).await);
        assert_eq!(finding.verdict, verdict, "{why}: {finding:?}");
    }
    assert_eq!(done("stats", traffic.stats(&gateway).await).routing, before);
}

async fn a_drain_waits_then_cuts_and_repeats(bench: &dyn TrafficBench) {
    let (traffic, gateway) = (bench.traffic(), bench.gateway());
    let (one, two) = (bench.instance(1).await, bench.instance(2).await);
    done("one", traffic.steer(&gateway, &routing(40, std::slice::from_ref(&one))).await);
    let patient = DrainPolicy { requests: LONG, streams: LONG };
    let refused = refusal("it has weight", traffic.drain(&gateway, &one.instance, &patient).await);
    assert_eq!(refused, Refusal::StillRouted { instance: one.instance.clone() });
    let running = bench.begin().await;
    assert_eq!(running, one.instance);
    done("two", traffic.steer(&gateway, &routing(41, std::slice::from_ref(&two))).await);
    let (report, ()) = tokio::join!(traffic.drain(&gateway, &one.instance, &patient), async {
        tokio::time::sleep(SHORT).await;
        bench.finish(&running).await;
    });
    let report = done("a drain with patience", report);
    assert_eq!((report.finished, report.cut), (1, 0));
    for why in ["once more", "and again"] {
        let report = done(why, traffic.drain(&gateway, &one.instance, &patient).await);
        assert_eq!((report.finished, report.cut), (0, 0), "{why}");
    }
    let unknown = bench.dead().await;
    assert_eq!(done("unknown", traffic.drain(&gateway, &unknown.instance, &patient).await).finished, 0);
    let stuck = bench.begin().await;
    assert_eq!(stuck, two.instance);
    done("back", traffic.steer(&gateway, &routing(42, std::slice::from_ref(&one))).await);
    let report = done("no patience", traffic.drain(&gateway, &two.instance, &DrainPolicy { requests: SHORT, streams: SHORT }).await);
    assert_eq!((report.finished, report.cut), (0, 1));
    assert!(report.took >= SHORT, "{report:?}");
    let stats = done("stats", traffic.stats(&gateway).await);
    assert_eq!(stats.targets.iter().map(|target| target.in_flight).sum::<u64>(), 0, "nothing runs anywhere");
}

async fn counters_grow_by_what_was_sent(bench: &dyn TrafficBench) {
    let (traffic, gateway) = (bench.traffic(), bench.gateway());
    let one = bench.instance(1).await;
    done("one", traffic.steer(&gateway, &routing(50, std::slice::from_ref(&one))).await);
    let counts = async || done("stats", traffic.stats(&gateway).await).releases.get(&one.release).cloned().unwrap_or_default();
    let before = counts().await;
    for _ in 0..7 {
        assert_eq!(bench.ask().await, Some(one.instance.clone()));
    }
    let window = counts().await.since(&before);
    assert_eq!((window.requests, window.server_errors, window.latency.count()), (7, 0, 7));
    assert!(window.latency.quantile(0.99).is_some());
}

async fn an_upgrade_keeps_what_was_steered(bench: &dyn TrafficBench) {
    let (traffic, gateway) = (bench.traffic(), bench.gateway());
    let before = done("stats", traffic.stats(&gateway).await);
    let missing = traffic.upgrade(&gateway, &bench.binary().join("there-is-no-such-file")).await;
    assert!(matches!(missing, Err(TrafficError::NotBrought { .. })), "{missing:?}");
    for _ in 0..2 {
        let version = done("upgrade", traffic.upgrade(&gateway, &bench.binary()).await);
        assert!(!version.is_empty());
    }
    let after = done("stats", traffic.stats(&gateway).await);
    assert_eq!(after.routing, before.routing);
    assert_ne!(after.worker.epoch, before.worker.epoch, "its counters begin anew");
    assert!(bench.ask().await.is_some());
}

//! Matrices over every step of every kind of plan: each perform fails, each call and each journal write is the last one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kaleem_core::config::settings::StrategyName;
use kaleem_core::config::{DependencyCondition, Project};
use kaleem_core::engine::Ending;
use kaleem_core::outcome::Outcome;
use kaleem_core::runtime::RuntimeError;
use kaleem_core::testing::{Behaviour, FakeCall};

use crate::world::{ServiceExt, World, project, service, strategy};

/// One kind of plan: the project before and after.
struct Shape {
    name: &'static str,
    before: Option<Project>,
    after: Project,
    /// Whether the new release is good.
    good: bool,
    /// Whether gateways can be set up.
    gateways: Gateways,
}

#[derive(Clone, Copy, PartialEq)]
enum Gateways {
    No,
    Yes,
    /// Only after the first release.
    Later,
}

fn shapes() -> Vec<Shape> {
    let api = |tag: &str| service("api", &format!("registry.example/app:{tag}")).publishing(8080, 3000);
    let worker = |tag: &str| service("worker", &format!("registry.example/app:{tag}"));
    let redis = || service("redis", "redis:7").storing("redis");
    let migrate = |tag: &str| service("migrate", &format!("registry.example/migrate:{tag}"));
    let one = |tag: &str| project(vec![api(tag)]);
    let many = |tag: &str| {
        project(vec![
            api(tag).after("redis", DependencyCondition::ServiceStarted),
            worker(tag).times(2).after("api", DependencyCondition::ServiceHealthy),
            redis(),
        ])
    };
    let migrated = |tag: &str| {
        project(vec![api(tag).named("shop-api").after("migrate", DependencyCondition::ServiceCompletedSuccessfully), migrate(tag)])
    };
    let recreated = |tag: &str| strategy(project(vec![worker(tag).times(2)]), "worker", StrategyName::Recreate);
    vec![
        Shape { name: "first deploy", before: None, after: many("v1"), good: true, gateways: Gateways::No },
        Shape { name: "first deploy, bad", before: None, after: one("bad"), good: false, gateways: Gateways::No },
        Shape { name: "one service", before: Some(one("v1")), after: one("v2"), good: true, gateways: Gateways::No },
        Shape { name: "one service, bad", before: Some(one("v1")), after: one("bad"), good: false, gateways: Gateways::No },
        Shape { name: "many services", before: Some(many("v1")), after: many("v2"), good: true, gateways: Gateways::No },
        Shape { name: "many services, bad", before: Some(many("v1")), after: many("bad"), good: false, gateways: Gateways::No },
        Shape { name: "migration and fixed name", before: Some(migrated("v1")), after: migrated("v2"), good: true, gateways: Gateways::No },
        Shape { name: "replicas one by one", before: Some(recreated("v1")), after: recreated("v2"), good: true, gateways: Gateways::No },
        Shape { name: "first deploy with a gateway", before: None, after: many("v1"), good: true, gateways: Gateways::Yes },
        Shape { name: "behind a gateway", before: Some(many("v1")), after: many("v2"), good: true, gateways: Gateways::Yes },
        Shape { name: "behind a gateway, bad", before: Some(many("v1")), after: many("bad"), good: false, gateways: Gateways::Yes },
        Shape { name: "a gateway takes over", before: Some(one("v1")), after: one("v2"), good: true, gateways: Gateways::Later },
        Shape { name: "a gateway takes over, bad", before: Some(one("v1")), after: one("late"), good: false, gateways: Gateways::Later },
    ]
}

fn world(gateways: Gateways) -> World {
    let world = if gateways == Gateways::No { World::new() } else { World::with_gateways() };
    for tag in ["app:v1", "app:v2"] {
        world.push(&format!("registry.example/{tag}"), Behaviour::Healthy);
    }
    world.push("registry.example/app:bad", Behaviour::ExitsAtOnce { code: 1, log: "bad".to_owned() });
    // Healthy when it starts, and gone in the watch after the switch.
    world.push("registry.example/app:late", Behaviour::CrashesAfter(6));
    world.push("registry.example/migrate:v1", Behaviour::CompletesWith(0));
    world.push("registry.example/migrate:v2", Behaviour::CompletesWith(0));
    world.push("redis:7", Behaviour::Healthy);
    world
}

async fn prepared(shape: &Shape) -> World {
    let world = world(shape.gateways);
    if let Some(before) = &shape.before {
        let before = match shape.gateways {
            Gateways::Later => strategy(before.clone(), "api", StrategyName::Recreate),
            Gateways::No | Gateways::Yes => before.clone(),
        };
        let ending = world.deploy(&before).await.unwrap();
        assert!(matches!(ending, Ending::Over(Outcome::Deployed { .. })), "{}: {ending:?}", shape.name);
    }
    world
}

/// What is on the host, without what no plan takes back: images, volumes, and the order of starts.
async fn left(world: &World) -> (Vec<String>, Vec<String>, Vec<String>) {
    let snapshot = world.runtime.snapshot();
    let networks = snapshot.networks.keys().map(ToString::to_string).collect();
    let mut pins: Vec<String> = snapshot.tags.keys().filter(|tag| tag.starts_with("kaleem.invalid/shop")).cloned().collect();
    if let Some(routed) = world.routed("api").await {
        pins.push(format!("the gateway sends to {routed:?}"));
    }
    (world.containers(), networks, pins)
}

/// The host as it is after the plan ran without any trouble, and as it was before.
async fn expected(shape: &Shape) -> ((Vec<String>, Vec<String>, Vec<String>), (Vec<String>, Vec<String>, Vec<String>)) {
    let world = prepared(shape).await;
    let before = left(&world).await;
    let ending = world.deploy(&shape.after).await.unwrap();
    assert_eq!(matches!(ending, Ending::Over(Outcome::Deployed { .. })), shape.good, "{}: {ending:?}", shape.name);
    let after = left(&world).await;
    if !shape.good {
        assert_eq!(after, before, "{}: a bad release leaves nothing", shape.name);
    }
    (before, after)
}

fn refused() -> RuntimeError {
    RuntimeError::Refused { operation: "do it".to_owned(), status: 409, message: "injected".to_owned() }
}

/// Counts everything that touches the host or the journal, and dies at one of them.
#[derive(Clone)]
struct Reaper {
    count: Arc<AtomicUsize>,
    at: usize,
}

struct Died;

impl Reaper {
    fn tick(&self) {
        if self.count.fetch_add(1, Ordering::SeqCst) == self.at {
            std::panic::panic_any(Died);
        }
    }

    fn watch(&self, world: &World) {
        let (before_call, before_write) = (self.clone(), self.clone());
        world.runtime.before_call(Some(Arc::new(move |call: &FakeCall| {
            if call.operation.is_mutating() {
                before_call.tick();
            }
            None
        })));
        world.clock.on_now(Box::new(move || before_write.tick()));
    }

    fn leave(world: &World) {
        world.runtime.before_call(None);
        world.clock.on_now(Box::new(|| {}));
    }
}

/// Runs the deploy and dies at the `at`th write or call; answers whether it died.
async fn deploy_and_die(world: &World, project: &Project, at: usize) -> bool {
    let work = world.kaleem.work(&project.name).await.unwrap();
    let planned = world.kaleem.deploy_plan(&work, project, &BTreeMap::new()).await.unwrap();
    let reaper = Reaper { count: Arc::new(AtomicUsize::new(0)), at };
    reaper.watch(world);
    let died = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.kaleem.start(work, &planned))) {
        Ok(run) => run.unwrap().finish().await.is_err(),
        Err(_) => true,
    };
    Reaper::leave(world);
    died
}

/// Panics of the reaper are meant: they are not printed.
fn quiet() {
    use std::sync::Once;
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !info.payload().is::<Died>() {
                print(info);
            }
        }));
    });
}

#[tokio::test]
async fn death_at_any_call_or_write_then_resume_ends_as_if_nothing_had_happened() {
    quiet();
    for shape in shapes() {
        let (_, after) = expected(&shape).await;
        let mut at = 0;
        loop {
            let world = prepared(&shape).await;
            if !deploy_and_die(&world, &shape.after, at).await {
                break;
            }
            let place = format!("{}, death {at}", shape.name);
            if world.kaleem.history(&world.project()).unwrap().open().is_none() {
                // It died before its journal was there, or after its last word: nothing is to be resumed.
                assert!(world.resume().await.is_err(), "{place}");
            } else {
                let ending = world.resume().await.unwrap();
                assert_eq!(matches!(ending, Ending::Over(Outcome::Deployed { .. })), shape.good, "{place}: {ending:?}");
                assert_eq!(left(&world).await, after, "{place}");
            }
            let again = left(&world).await;
            assert!(world.resume().await.is_err(), "{place}: a second resume has nothing to do");
            assert_eq!(left(&world).await, again, "{place}: a second resume changes nothing");
            at += 1;
        }
        assert!(at > 10, "{}: the reaper saw {at} places only", shape.name);
    }
}

#[tokio::test]
async fn death_at_any_call_or_write_then_abort_leaves_nothing_behind() {
    quiet();
    for shape in shapes() {
        let (before, after) = expected(&shape).await;
        let mut at = 0;
        loop {
            let world = prepared(&shape).await;
            if !deploy_and_die(&world, &shape.after, at).await {
                break;
            }
            let place = format!("{}, death {at}", shape.name);
            if world.kaleem.history(&world.project()).unwrap().open().is_some() {
                match world.abort().await.unwrap() {
                    Ending::Over(Outcome::Deployed { .. }) => assert_eq!(left(&world).await, after, "{place}: it was committed"),
                    Ending::Over(Outcome::Aborted { .. } | Outcome::RolledBack { .. }) => assert_eq!(left(&world).await, before, "{place}"),
                    other => panic!("{place}: {other:?}"),
                }
            }
            at += 1;
        }
    }
}

#[tokio::test]
async fn death_while_going_back_is_survived_too() {
    quiet();
    for shape in shapes().into_iter().filter(|shape| !shape.good) {
        let (before, _) = expected(&shape).await;
        let mut at = 0;
        loop {
            let world = prepared(&shape).await;
            if !deploy_and_die(&world, &shape.after, at).await {
                break;
            }
            if world.kaleem.history(&world.project()).unwrap().open().is_some() {
                // A second death, in the middle of the resume.
                let work = world.kaleem.work(&world.project()).await.unwrap();
                let reaper = Reaper { count: Arc::new(AtomicUsize::new(0)), at: 3 };
                reaper.watch(&world);
                let died = world.kaleem.resume(work).unwrap().finish().await.is_err();
                Reaper::leave(&world);
                if died && world.kaleem.history(&world.project()).unwrap().open().is_some() {
                    world.resume().await.unwrap();
                }
                assert_eq!(left(&world).await, before, "{}, death {at}", shape.name);
            }
            at += 1;
        }
    }
}

#[tokio::test]
async fn every_call_that_fails_is_taken_back_or_left_over() {
    for shape in shapes().into_iter().filter(|shape| shape.good) {
        let (before, _) = expected(&shape).await;
        let mut at = 0;
        loop {
            let world = prepared(&shape).await;
            let count = Arc::new(AtomicUsize::new(0));
            let counter = count.clone();
            world.runtime.before_call(Some(Arc::new(move |call: &FakeCall| {
                (call.operation.is_mutating() && counter.fetch_add(1, Ordering::SeqCst) == at).then(refused)
            })));
            let ending = match world.deploy(&shape.after).await {
                Ok(ending) => ending,
                Err(error) => {
                    // It failed while the plan was made, such as at the gateway's image.
                    assert!(kaleem_core::remedy::one_line(&error).contains("injected"), "{}, call {at}: {error}", shape.name);
                    assert_eq!(left(&world).await, before, "{}, call {at}", shape.name);
                    at += 1;
                    continue;
                }
            };
            if count.load(Ordering::SeqCst) <= at {
                break;
            }
            let place = format!("{}, call {at}", shape.name);
            match ending {
                Ending::Over(Outcome::RolledBack { error, .. }) => {
                    assert!(error.contains("injected"), "{place}: {error}");
                    assert_eq!(left(&world).await, before, "{place}");
                }
                Ending::Over(Outcome::Deployed { leftovers, .. }) => assert_eq!(leftovers.len(), 1, "{place}: {leftovers:?}"),
                other => panic!("{place}: {other:?}"),
            }
            at += 1;
        }
        assert!(at > 3, "{}: {at} calls only", shape.name);
    }
}

#[tokio::test]
async fn every_undo_that_fails_is_stuck_and_resume_is_the_way_out() {
    let mut stuck = 0;
    for shape in shapes().into_iter().filter(|shape| !shape.good) {
        let (before, _) = expected(&shape).await;
        let mut at = 0;
        loop {
            let world = prepared(&shape).await;
            let count = Arc::new(AtomicUsize::new(0));
            let counter = count.clone();
            world.runtime.before_call(Some(Arc::new(move |call: &FakeCall| {
                (call.operation.is_mutating() && counter.fetch_add(1, Ordering::SeqCst) == at).then(refused)
            })));
            let ending = world.deploy(&shape.after).await.unwrap();
            if count.load(Ordering::SeqCst) <= at {
                break;
            }
            let place = format!("{}, call {at}", shape.name);
            if let Ending::Stuck { error, .. } = &ending {
                stuck += 1;
                assert!(error.contains("injected"), "{place}: {error}");
                let ending = world.resume().await.unwrap();
                assert!(matches!(ending, Ending::Over(Outcome::RolledBack { .. })), "{place}: {ending:?}");
            }
            assert_eq!(left(&world).await, before, "{place}");
            at += 1;
        }
    }
    assert!(stuck > 5, "only {stuck} undos could fail");
}

//! What somebody did to the containers that serve: a deploy repairs it, a doctor sees it, and a plan that is rolled back brings it back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kaleem_core::config::Project;
use kaleem_core::engine::Ending;
use kaleem_core::names::ServiceName;
use kaleem_core::outcome::Outcome;
use kaleem_core::plan::{ChangeKind, Step};
use kaleem_core::repair::Damage;
use kaleem_core::repair::host::Host;
use kaleem_core::runtime::Runtime;
use kaleem_core::testing::{Behaviour, FakeCall, FakeOperation};

use crate::world::{ServiceExt, World, container, project, service};

fn app(tag: &str) -> Project {
    project(vec![service("api", &format!("registry.example/app:{tag}")).publishing(8080, 3000)])
}

async fn world() -> World {
    let world = World::with_gateways();
    for tag in ["v1", "v2"] {
        world.push(&format!("registry.example/app:{tag}"), Behaviour::Healthy);
    }
    world.push("registry.example/app:bad", Behaviour::ExitsAtOnce { code: 1, log: String::new() });
    world.deploy(&app("v1")).await.unwrap();
    world
}

/// What of the live release does not serve.
pub(super) async fn faults(world: &World) -> Vec<Damage> {
    faults_where(world, &|_| false).await
}

/// The same, where `kaleem.toml` says of some services how they are checked.
pub(super) async fn faults_where(world: &World, decides: &(dyn Fn(&ServiceName) -> bool + Sync)) -> Vec<Damage> {
    let runtime: Arc<dyn Runtime> = Arc::new(world.runtime.clone());
    let (project, history) = (world.project(), world.kaleem.history(&world.project()).unwrap());
    let state = world.kaleem.state(&project);
    let key = state.key_or_ephemeral().unwrap();
    let find = |id: &kaleem_core::definition::DefinitionId| state.definition(&key, id).ok();
    let (traffic, history) = (Some(world.traffic.as_ref() as &dyn kaleem_core::traffic::Traffic), &history);
    let host = Host { runtime: &runtime, traffic, find: &find, history, project: &project, decides };
    host.look_at_serving(&runtime.list(&project).await.unwrap()).await
}

pub(super) fn kinds(faults: &[Damage]) -> Vec<&str> {
    faults.iter().map(|fault| fault.kind).collect()
}

type Meddle = fn(&World);

/// What people do to containers, and what it is called.
const MEDDLES: [(&str, &str, Meddle); 8] = [
    ("the gateway is taken off its network", "network-lost", |world| {
        world.runtime.disconnect_by_hand(&container("shop-api-gateway"), &"shop_default".parse().unwrap());
    }),
    ("the instance is taken off its network", "network-lost", |world| {
        world.runtime.disconnect_by_hand(&container("shop-api-r1-1"), &"shop_default".parse().unwrap());
    }),
    ("the gateway is paused", "gateway-down", |world| world.runtime.pause_by_hand(&container("shop-api-gateway"))),
    ("the gateway is stopped", "gateway-down", |world| world.runtime.stop_by_hand(&container("shop-api-gateway"))),
    ("the gateway is removed", "gateway-missing", |world| world.runtime.remove_by_hand(&container("shop-api-gateway"))),
    ("the instance is paused", "serving-paused", |world| world.runtime.pause_by_hand(&container("shop-api-r1-1"))),
    ("the instance is stopped", "serving-down", |world| world.runtime.stop_by_hand(&container("shop-api-r1-1"))),
    ("the instance is removed", "serving-missing", |world| world.runtime.remove_by_hand(&container("shop-api-r1-1"))),
];

#[tokio::test]
async fn whatever_is_done_to_what_serves_is_seen_and_repaired_by_one_deploy() {
    for (why, kind, meddle) in MEDDLES {
        let world = world().await;
        assert_eq!(faults(&world).await, [], "{why}: before, all is well");
        meddle(&world);
        let found = faults(&world).await;
        assert!(kinds(&found).contains(&kind), "{why}: {found:?}");
        let plan = world.plan(&app("v1")).await.plan;
        assert!(!plan.is_empty(), "{why}: there is something to do");
        let change = &plan.changes[0];
        assert_ne!(change.kind, ChangeKind::Keep, "{why}: {change:?}");
        if kind.starts_with("gateway") && change.kind == ChangeKind::Replace {
            assert!(change.fields.iter().any(|field| field.contains("gateway")), "{why}: {change:?}");
        }
        let ending = world.deploy(&app("v1")).await.unwrap();
        assert!(matches!(ending, Ending::Over(Outcome::Deployed { .. })), "{why}: {ending:?}");
        assert_eq!(faults(&world).await, [], "{why}: afterwards, all is well: {:?}", world.containers());
        assert!(world.plan(&app("v1")).await.plan.is_empty(), "{why}: nothing is left to do");
        assert_eq!(world.serving(), Some(kaleem_core::names::ReleaseId::new(1)), "{why}: a repair is no new release");
    }
}

#[tokio::test]
async fn a_gateway_that_sends_elsewhere_is_steered_again() {
    let world = world().await;
    let gateway = "shop-api-gateway".parse().unwrap();
    let mut routing = kaleem_core::traffic::Traffic::stats(world.traffic.as_ref(), &gateway).await.unwrap().routing.unwrap();
    routing.generation = kaleem_core::traffic::Generation::of_undo(kaleem_core::names::PlanId(1), 99);
    routing.targets.clear();
    kaleem_core::traffic::Traffic::steer(world.traffic.as_ref(), &gateway, &routing).await.unwrap();
    assert_eq!(kinds(&faults(&world).await), ["gateway-lost"]);
    let plan = world.plan(&app("v1")).await.plan;
    assert_eq!(plan.changes[0].kind, ChangeKind::Repair);
    assert!(plan.steps.iter().any(|step| matches!(step, Step::Steer { .. })), "{:?}", plan.steps);
    world.deploy(&app("v1")).await.unwrap();
    assert_eq!(world.routed("api").await.unwrap(), ["shop-api-r1-1"]);
    assert_eq!(faults(&world).await, []);
}

#[tokio::test]
async fn a_gateway_whose_control_socket_was_removed_is_recreated_by_one_deploy() {
    // With the state directory that made it, and with all of it lost.
    for state_is_lost in [false, true] {
        let world = world().await;
        world.traffic.fake.lose(&"shop-api-gateway".parse().unwrap());
        assert_eq!(kinds(&faults(&world).await), ["gateway-silent"]);
        if state_is_lost {
            std::fs::remove_dir_all(world.kaleem.state(&world.project()).root()).unwrap();
        }
        let plan = world.plan(&app("v1")).await.plan;
        assert_eq!(plan.changes[0].kind, ChangeKind::Replace, "lost: {state_is_lost}: {plan:?}");
        assert_eq!(plan.changes[0].fields, ["the control socket of its gateway was removed"]);
        let ending = world.deploy(&app("v1")).await.unwrap();
        let steps: Vec<String> = plan.steps.iter().map(ToString::to_string).collect();
        assert!(matches!(ending, Ending::Over(Outcome::Deployed { .. })), "{ending:?}: {steps:#?}");
        assert_eq!(faults(&world).await, [], "lost: {state_is_lost}");
        assert_eq!(world.routed("api").await.unwrap(), ["shop-api-r1-1"]);
    }
}

#[tokio::test]
async fn a_lost_state_directory_leaves_a_gateway_as_it_is_that_has_taken_a_port_while_it_served() {
    let world = world().await;
    let more = || project(vec![service("api", "registry.example/app:v1").publishing(8080, 3000).publishing(8081, 3000)]);
    world.deploy(&more()).await.unwrap();
    let before = world.running();
    std::fs::remove_dir_all(world.kaleem.state(&world.project()).root()).unwrap();
    world.deploy(&more()).await.unwrap();
    assert_eq!(world.running(), before);
    assert_eq!(faults(&world).await, []);
}

#[tokio::test]
async fn what_compose_put_next_to_a_gateway_is_replaced_by_a_deploy() {
    let world = world().await;
    // `docker compose up -d api`: what kaleem made of the service is gone, and another container has its name.
    world.runtime.remove_by_hand(&container("shop-api-r1-1"));
    let plain = service("api", "registry.example/app:v1");
    let pinned = world.push("registry.example/app:v1", Behaviour::Healthy);
    world.runtime.adopt_compose_container(&world.project(), &plain.name, 1, &pinned, plain.definition.clone()).unwrap();
    let found = faults(&world).await;
    assert!(["serving-missing", "name-shared", "gateway-lost"].iter().any(|kind| kinds(&found).contains(kind)), "{found:?}");
    assert!(kinds(&found).contains(&"name-shared"), "{found:?}");
    world.deploy(&app("v1")).await.unwrap();
    assert_eq!(faults(&world).await, []);
    assert!(!world.running().contains(&"shop-api-1".to_owned()), "{:?}", world.running());
}

#[tokio::test]
async fn a_plan_that_is_rolled_back_starts_what_somebody_stopped_meanwhile() {
    for (why, name) in [("the instance", "shop-api-r1-1"), ("the gateway", "shop-api-gateway")] {
        let world = world().await;
        let (shared, done) = (world.again(), AtomicBool::new(false));
        world.runtime.before_call(Some(Arc::new(move |call: &FakeCall| {
            if call.operation == FakeOperation::Start && call.target == "shop-api-r2-1" && !done.swap(true, Ordering::SeqCst) {
                shared.runtime.stop_by_hand(&container(name));
            }
            None
        })));
        let ending = world.deploy(&app("bad")).await.unwrap();
        assert!(matches!(ending, Ending::Over(Outcome::RolledBack { .. })), "{why}: {ending:?}");
        assert_eq!(world.running(), ["shop-api-gateway", "shop-api-r1-1"], "{why}");
        assert_eq!(faults(&world).await, [], "{why}");
    }
}

#[tokio::test]
async fn services_whose_names_begin_alike_keep_their_own_gateways() {
    let world = World::with_gateways();
    world.push("registry.example/app:v1", Behaviour::Healthy);
    let image = "registry.example/app:v1";
    let both = project(vec![service("payment", image), service("payment-gateway-processor", image).publishing(8080, 3000)]);
    world.deploy(&both).await.unwrap();
    assert!(world.plan(&both).await.plan.is_empty(), "nothing changed: {:?}", world.plan(&both).await.plan.steps);
    assert!(world.running().contains(&"shop-payment-gateway-processor-gateway".to_owned()), "{:?}", world.running());
}

#[tokio::test]
async fn a_second_container_is_never_started_next_to_one_of_its_service() {
    let world = world().await;
    world.runtime.stop_by_hand(&container("shop-api-r1-1"));
    let plain = service("api", "registry.example/app:v1");
    let pinned = world.push("registry.example/app:v1", Behaviour::Healthy);
    world.runtime.adopt_compose_container(&world.project(), &plain.name, 1, &pinned, plain.definition.clone()).unwrap();
    let found = faults(&world).await;
    let down = found.iter().find(|fault| fault.kind == "serving-down").unwrap();
    assert!(!down.repair.is_automatic(), "{down:?}");
}

#[tokio::test]
async fn a_repair_that_is_rolled_back_leaves_the_release_and_its_tags_as_they_were() {
    let world = world().await;
    world.runtime.remove_by_hand(&container("shop-api-r1-1"));
    let digest =
        &world.kaleem.history(&world.project()).unwrap().releases()[0].target.services[&crate::world::service_name("api")].image.digest;
    world.runtime.set_behaviour(digest, Behaviour::ExitsAtOnce { code: 1, log: String::new() });
    let ending = world.deploy(&app("v1")).await.unwrap();
    assert!(matches!(ending, Ending::Over(Outcome::RolledBack { .. })), "{ending:?}");
    assert_eq!(world.serving(), Some(kaleem_core::names::ReleaseId::new(1)));
    assert!(world.runtime.snapshot().tags.contains_key("kaleem.invalid/shop/api:r1"));
    world.runtime.set_behaviour(digest, Behaviour::Healthy);
    world.deploy(&app("v1")).await.unwrap();
    assert_eq!(faults(&world).await, []);
}

//! What fails its own health check: what was so before kaleem came is no fault of a release, and what `kaleem.toml` says counts for more.

use kaleem_core::config::{DependencyCondition, Project, Service};
use kaleem_core::engine::Ending;
use kaleem_core::kaleem::Wishes;
use kaleem_core::names::ReleaseId;
use kaleem_core::outcome::Outcome;
use kaleem_core::plan::{Severity, Step};
use kaleem_core::runtime::{Images as _, Inspect as _};
use kaleem_core::testing::{Behaviour, FakeImage};

use super::repairs::{faults, faults_where, kinds};
use crate::world::{ServiceExt, World, container, project, service, service_name, setting};

fn worker(tag: &str) -> Service {
    let mut worker = service("worker", &format!("registry.example/worker:{tag}"));
    worker.definition.command = Some(vec!["work".to_owned()]);
    worker
}

fn app(api: &str, worker_tag: &str) -> Project {
    project(vec![service("api", &format!("registry.example/app:{api}")), worker(worker_tag)])
}

fn unchecked(project: Project) -> Project {
    setting(project, "worker", |settings| settings.health.get_or_insert_default().none = Some(true))
}

/// Compose has started a worker that inherits the check of the API's image, and time has passed.
async fn world(behaviour: Behaviour) -> World {
    let world = just_started(behaviour).await;
    time_passes(&world).await;
    world
}

async fn just_started(behaviour: Behaviour) -> World {
    let world = World::new();
    for tag in ["v1", "v2"] {
        world.push(&format!("registry.example/app:{tag}"), Behaviour::Healthy);
    }
    world.push_with("registry.example/worker:v2", Behaviour::NeverHealthy, FakeImage::with_healthcheck);
    let pinned = world.push_with("registry.example/worker:v1", behaviour, FakeImage::with_healthcheck);
    world.runtime.pull(&pinned, None, &|_| {}).await.unwrap();
    world.runtime.add_network(&"shop_default".parse().unwrap(), Some(&world.project()));
    world.runtime.adopt_compose_container(&world.project(), &service_name("worker"), 1, &pinned, worker("v1").definition).unwrap();
    world
}

async fn time_passes(world: &World) {
    for _ in 0..4 {
        world.runtime.list(&world.project()).await.unwrap();
    }
}

/// What a plan says of `rule`, and how badly.
async fn said(world: &World, project: &Project, rule: &str) -> Option<(Severity, String)> {
    let plan = world.plan(project).await.plan;
    let found = plan.objections.iter().find(|objection| objection.rule == rule);
    found.map(|objection| (objection.severity, format!("{}; {}", objection.message, objection.remedy)))
}

fn is_deployed(ending: &Ending) -> bool {
    matches!(ending, Ending::Over(Outcome::Deployed { .. }))
}

#[tokio::test]
async fn what_was_unhealthy_before_kaleem_came_is_a_warning_as_long_as_it_is_kept() {
    let world = world(Behaviour::NeverHealthy).await;
    let (severity, text) = said(&world, &app("v1", "v1"), "unhealthy-before").await.unwrap();
    assert_eq!(severity, Severity::Warn, "{text}");
    for part in ["`worker` was unhealthy before kaleem came (shop-worker-1)", "`[services.worker.health]`", "healthcheck: {disable: true}"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let ending = world.deploy(&app("v1", "v1")).await.unwrap();
    assert!(is_deployed(&ending), "{ending:?}");
    let found = faults(&world).await;
    assert_eq!(kinds(&found), ["unhealthy-before"], "{found:?}");
    assert!(found[0].is_warning() && found[0].message.contains("before kaleem came"), "{found:?}");
    // Another service is deployed: the worker is still the one of before, and no fault of this release either.
    let (severity, text) = said(&world, &app("v2", "v1"), "unhealthy-before").await.unwrap();
    assert_eq!(severity, Severity::Note, "{text}");
    world.deploy(&app("v2", "v1")).await.unwrap();
    assert_eq!(kinds(&faults(&world).await), ["unhealthy-before"]);
    // And so it stays where nothing is asked of it, and back again.
    world.rollback(None).await.unwrap();
    assert_eq!(kinds(&faults(&world).await), ["unhealthy-before"]);
    assert!(world.running().contains(&"shop-worker-1".to_owned()), "{:?}", world.running());
}

#[tokio::test]
async fn a_worker_with_the_image_of_an_api_is_taken_over_as_it_is_although_the_image_exposes_a_port() {
    let world = World::with_gateways();
    let pinned =
        world.push_with("registry.example/api:v1", Behaviour::NeverHealthy, |image| image.with_healthcheck().exposing(&["3000/tcp"]));
    world.runtime.pull(&pinned, None, &|_| {}).await.unwrap();
    world.runtime.add_network(&"shop_default".parse().unwrap(), Some(&world.project()));
    let mut worker = service("worker", "registry.example/api:v1");
    worker.definition.command = Some(vec!["worker".to_owned()]);
    world.runtime.adopt_compose_container(&world.project(), &worker.name, 1, &pinned, worker.definition.clone()).unwrap();
    time_passes(&world).await;
    let ending = world.deploy(&project(vec![worker])).await.unwrap();
    assert!(is_deployed(&ending), "{ending:?}");
    assert_eq!(world.running(), ["shop-worker-1"]);
    assert_eq!(kinds(&faults(&world).await), ["unhealthy-before"]);
}

#[tokio::test]
async fn what_was_still_starting_when_kaleem_came_has_never_been_healthy_until_a_plan_finds_it_so() {
    let world = just_started(Behaviour::NeverHealthy).await;
    let (severity, text) = said(&world, &app("v1", "v1"), "unhealthy-before").await.unwrap();
    assert_eq!(severity, Severity::Note, "{text}");
    assert!(text.contains("`worker` has not passed its health check yet (shop-worker-1)"), "{text}");
    world.deploy(&app("v1", "v1")).await.unwrap();
    time_passes(&world).await;
    let found = faults(&world).await;
    assert_eq!(kinds(&found), ["unhealthy-before"], "{found:?}");
    let ending = world.deploy(&app("v2", "v1")).await.unwrap();
    assert!(is_deployed(&ending), "{ending:?}");
    // It can pass after all: from now on it is expected to.
    world.runtime.set_container_behaviour(&container("shop-worker-1"), Behaviour::Healthy);
    time_passes(&world).await;
    world.deploy(&app("v1", "v1")).await.unwrap();
    world.runtime.set_container_behaviour(&container("shop-worker-1"), Behaviour::NeverHealthy);
    time_passes(&world).await;
    assert_eq!(kinds(&faults(&world).await), ["serving-unhealthy"]);
}

#[tokio::test]
async fn what_was_healthy_when_kaleem_came_and_fails_later_is_a_fault() {
    let world = world(Behaviour::Healthy).await;
    assert_eq!(said(&world, &app("v1", "v1"), "unhealthy-before").await, None);
    world.deploy(&app("v1", "v1")).await.unwrap();
    world.runtime.set_container_behaviour(&container("shop-worker-1"), Behaviour::NeverHealthy);
    time_passes(&world).await;
    let found = faults(&world).await;
    assert_eq!(kinds(&found), ["serving-unhealthy"], "{found:?}");
    assert!(!found[0].is_warning(), "{found:?}");
    assert_eq!(kinds(&faults_where(&world, &|name| *name == service_name("worker")).await), [""; 0], "kaleem.toml decides at once");
    world.deploy(&app("v2", "v1")).await.unwrap();
    assert_eq!(kinds(&faults(&world).await), ["serving-unhealthy"], "another deploy forgives nothing");
}

#[tokio::test]
async fn one_that_must_pass_the_check_that_fails_now_is_told_with_the_ways_out_and_both_of_them_work() {
    let world = world(Behaviour::Healthy).await;
    world.deploy(&app("v1", "v1")).await.unwrap();
    world.runtime.set_container_behaviour(&container("shop-worker-1"), Behaviour::NeverHealthy);
    time_passes(&world).await;
    let (severity, text) = said(&world, &app("v1", "v2"), "unhealthy-now").await.unwrap();
    assert_eq!(severity, Severity::Warn, "{text}");
    for part in ["shop-worker-1", "is rolled back", "`[services.worker.health]`", "healthcheck: {disable: true}"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let ending = world.deploy(&app("v1", "v2")).await.unwrap();
    assert!(matches!(ending, Ending::Over(Outcome::RolledBack { .. })), "{ending:?}");
    assert!(world.running().contains(&"shop-worker-1".to_owned()), "{:?}", world.running());
    let mut disabled = app("v1", "v2");
    disabled.services.get_mut(&service_name("worker")).unwrap().definition.healthcheck =
        Some(kaleem_core::definition::Healthcheck::DISABLED);
    for (why, project) in [("kaleem.toml", unchecked(app("v1", "v2"))), ("the compose file", disabled)] {
        assert_eq!(said(&world, &project, "unhealthy-now").await, None, "{why}");
        let ending = world.deploy(&project).await.unwrap();
        assert!(is_deployed(&ending), "{why}: {ending:?}");
        assert_eq!(kinds(&faults(&world).await), [""; 0], "{why}");
    }
}

#[tokio::test]
async fn a_worker_that_nobody_has_seen_healthy_is_replaced_and_only_has_to_run() {
    // At the take-over itself, and later.
    for takes_over_first in [false, true] {
        let world = world(Behaviour::NeverHealthy).await;
        if takes_over_first {
            world.deploy(&app("v1", "v1")).await.unwrap();
        }
        assert_eq!(said(&world, &app("v1", "v2"), "unhealthy-now").await, None);
        let (severity, text) = said(&world, &app("v1", "v2"), "unhealthy-before").await.unwrap();
        assert_eq!(severity, Severity::Warn, "{text}");
        assert!(text.contains("only has to run") && text.contains("`[services.worker.health]`"), "{text}");
        let ending = world.deploy(&app("v1", "v2")).await.unwrap();
        assert!(is_deployed(&ending), "{ending:?}");
        assert!(!world.running().contains(&"shop-worker-1".to_owned()), "{:?}", world.running());
        time_passes(&world).await;
        assert_eq!(kinds(&faults(&world).await), ["unhealthy-before"], "it is no fault of the release either");
        let ending = world.deploy(&app("v2", "v2")).await.unwrap();
        assert!(is_deployed(&ending), "{ending:?}");
        // One that does not even run is bad.
        world.push_with("registry.example/worker:v3", Behaviour::CrashesAfter(1), FakeImage::with_healthcheck);
        let ending = world.deploy(&app("v2", "v3")).await.unwrap();
        assert!(matches!(ending, Ending::Over(Outcome::RolledBack { .. })), "{ending:?}");
        // Once it has been healthy it has to be so again.
        let name = world.running().into_iter().find(|name| name.contains("worker")).unwrap();
        world.runtime.set_container_behaviour(&container(&name), Behaviour::Healthy);
        time_passes(&world).await;
        world.deploy(&app("v1", "v2")).await.unwrap();
        world.runtime.set_container_behaviour(&container(&name), Behaviour::NeverHealthy);
        time_passes(&world).await;
        assert_eq!(kinds(&faults(&world).await), ["serving-unhealthy"]);
        assert!(said(&world, &app("v1", "v1"), "unhealthy-now").await.is_some());
    }
}

#[tokio::test]
async fn a_rollback_to_what_was_unhealthy_before_kaleem_came_asks_nothing_of_it() {
    let world = world(Behaviour::NeverHealthy).await;
    world.deploy(&app("v1", "v1")).await.unwrap();
    world.deploy(&unchecked(app("v1", "v2"))).await.unwrap();
    assert!(!world.running().contains(&"shop-worker-1".to_owned()), "{:?}", world.running());
    let ending = world.rollback(None).await.unwrap();
    assert_eq!(ending, Ending::Over(Outcome::Deployed { release: ReleaseId::new(1), leftovers: vec![] }));
    assert!(world.running().contains(&"shop-worker-1".to_owned()), "{:?}", world.running());
}

#[tokio::test]
async fn where_kaleem_toml_says_what_is_checked_nothing_waits_for_what_docker_says() {
    let world = world(Behaviour::NeverHealthy).await;
    let of = |decided: bool| {
        let waits = service("api", "registry.example/app:v2").after("worker", DependencyCondition::ServiceHealthy);
        let project = project(vec![waits, worker("v1")]);
        if decided { unchecked(project) } else { project }
    };
    world.deploy(&app("v1", "v1")).await.unwrap();
    let wishes = Wishes { only: [service_name("api")].into(), ..Wishes::none() };
    let rules = async |project: Project| {
        let planned = world.kaleem.plan_deploy_with(&project, &Default::default(), &wishes).await.unwrap();
        planned.plan.objections.iter().map(|objection| objection.rule.clone()).collect::<Vec<_>>()
    };
    assert!(rules(of(false)).await.contains(&"dependency-missing".to_owned()));
    assert!(!rules(of(true)).await.contains(&"dependency-missing".to_owned()));
    // What is stopped and may be started again is known by what is asked of it.
    world.deploy(&unchecked(app("v1", "v2"))).await.unwrap();
    time_passes(&world).await;
    let stops = world.plan(&unchecked(app("v1", "v1"))).await.plan.steps;
    let gates = stops.iter().filter_map(|step| match step {
        Step::Stop { container, gate, .. } if container.as_str().contains("worker") => Some(gate.is_some()),
        _ => None,
    });
    assert_eq!(gates.collect::<Vec<_>>(), [true], "an unhealthy worker that is not asked is expected back: {stops:?}");
}

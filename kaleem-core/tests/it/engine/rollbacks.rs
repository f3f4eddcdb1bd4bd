//! Where a rollback goes by itself, what it touches, and what it leaves pinned.

use std::collections::BTreeMap;

use kaleem_core::config::{Project, Service};
use kaleem_core::engine::Ending;
use kaleem_core::kaleem::KaleemError;
use kaleem_core::names::ReleaseId;
use kaleem_core::outcome::Outcome;
use kaleem_core::plan::{ChangeKind, Step};
use kaleem_core::remedy::Remedy;
use kaleem_core::runtime::Images as _;
use kaleem_core::testing::Behaviour;

use crate::world::{ServiceExt, World, project, service, service_name};

fn r(number: u64) -> ReleaseId {
    ReleaseId::new(number)
}

fn app(tag: &str) -> Project {
    project(vec![service("api", &format!("registry.example/app:{tag}")).publishing(8080, 3000)])
}

fn world() -> World {
    let world = World::new();
    for tag in ["v1", "v2", "v3", "v4"] {
        world.push(&format!("registry.example/app:{tag}"), Behaviour::Healthy);
    }
    world.push("redis:7", Behaviour::Healthy);
    world
}

/// Plants a container that Compose started.
async fn compose_up(world: &World, service: &Service) {
    let pinned = world.push(&service.image.as_ref().unwrap().to_string(), Behaviour::Healthy);
    world.runtime.pull(&pinned, None, &|_| {}).await.unwrap();
    world.runtime.adopt_compose_container(&world.project(), &service.name, 1, &pinned, service.definition.clone()).unwrap();
}

#[tokio::test]
async fn a_rollback_passes_over_the_release_that_was_rolled_back_from() {
    let world = world();
    world.deploy(&app("v1")).await.unwrap();
    world.deploy(&app("v2")).await.unwrap();
    world.rollback(None).await.unwrap();
    assert_eq!(world.serving(), Some(r(1)));
    world.deploy(&app("v3")).await.unwrap();
    assert_eq!(world.rollback(None).await.unwrap(), Ending::Over(Outcome::Deployed { release: r(1), leftovers: vec![] }));
    let error = world.rollback(None).await.unwrap_err();
    assert!(matches!(error, KaleemError::NoSuchRelease { wanted: None, .. }), "{error}");
    assert!(error.remedy().contains("kaleem rollback r"), "what can be named is named: {}", error.remedy());
    // Named, it is gone to; and then it served well again.
    world.rollback(Some(r(2))).await.unwrap();
    world.deploy(&app("v4")).await.unwrap();
    world.rollback(None).await.unwrap();
    assert_eq!(world.serving(), Some(r(2)));
}

#[tokio::test]
async fn a_release_that_failed_is_nothing_to_roll_back_to() {
    let world = world();
    world.push("registry.example/app:bad", Behaviour::ExitsAtOnce { code: 1, log: String::new() });
    world.deploy(&app("v1")).await.unwrap();
    world.deploy(&app("bad")).await.unwrap();
    world.deploy(&app("v2")).await.unwrap();
    world.rollback(None).await.unwrap();
    assert_eq!(world.serving(), Some(r(1)));
}

#[tokio::test]
async fn a_rollback_never_unpins_the_release_it_goes_to() {
    let world = world();
    for tag in ["v1", "v2"] {
        let mut project = app(tag);
        project.settings.keep = Some(2);
        world.deploy(&project).await.unwrap();
    }
    assert_eq!(world.rollback(None).await.unwrap(), Ending::Over(Outcome::Deployed { release: r(1), leftovers: vec![] }));
    let tags: Vec<_> = world.runtime.snapshot().tags.into_keys().filter(|tag| tag.starts_with("kaleem.invalid/")).collect();
    assert_eq!(tags, ["kaleem.invalid/shop/api:r1", "kaleem.invalid/shop/api:r2"]);
}

#[tokio::test]
async fn what_compose_made_and_a_release_served_with_stays_in_a_rollback() {
    let world = world();
    let redis = || service("redis", "redis:7").storing("redis");
    let both = |tag: &str| {
        let api = service("api", &format!("registry.example/app:{tag}")).publishing(8080, 3000);
        project(vec![api, redis()])
    };
    world.runtime.add_network(&"shop_default".parse().unwrap(), Some(&world.project()));
    world.runtime.add_volume(&"shop_redis".parse().unwrap(), Some(&world.project()));
    compose_up(&world, &redis()).await;
    world.deploy(&both("v1")).await.unwrap();
    world.deploy(&both("v2")).await.unwrap();
    let work = world.kaleem.work(&world.project()).await.unwrap();
    let plan = world.kaleem.rollback_plan(&work, None).await.unwrap().plan;
    let kinds: BTreeMap<_, _> = plan.changes.iter().map(|change| (change.service.clone(), change.kind)).collect();
    assert_eq!(kinds[&service_name("redis")], ChangeKind::Keep, "{kinds:?}");
    assert!(plan.objections.iter().all(|objection| objection.rule != "store-replaced"), "{:?}", plan.objections);
    drop(work);
    world.rollback(None).await.unwrap();
    assert_eq!(world.containers(), ["shop-api-r1-1 running", "shop-api-r2-1 exited", "shop-redis-1 running"]);
}

#[tokio::test]
async fn what_users_meet_goes_back_first() {
    let world = world();
    // By name and by what waits for what, the worker would come first.
    let both = |tag: &str| {
        let web = service("web", &format!("registry.example/app:{tag}")).publishing(8080, 3000);
        project(vec![service("a-worker", &format!("registry.example/app:{tag}")), web])
    };
    world.deploy(&both("v1")).await.unwrap();
    world.deploy(&both("v2")).await.unwrap();
    let work = world.kaleem.work(&world.project()).await.unwrap();
    let plan = world.kaleem.rollback_plan(&work, None).await.unwrap().plan;
    let started = plan.steps.iter().find_map(|step| if let Step::Start { service, .. } = step { Some(service.clone()) } else { None });
    assert_eq!(started, Some(service_name("web")));
}

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
async fn every_stop_of_a_service_sends_the_signal_that_its_file_names() {
    let world = world();
    let quit = |tag: &str| {
        let mut project = app(tag);
        for service in project.services.values_mut() {
            service.definition.stop_signal = Some("SIGQUIT".to_owned());
        }
        project
    };
    let signals = |plan: &kaleem_core::plan::Plan| {
        let stops = plan.steps.iter().filter_map(|step| match step {
            Step::Stop { stop, .. } | Step::Start { stop, .. } => Some(stop.signal.clone().unwrap_or_default()),
            _ => None,
        });
        stops.collect::<Vec<_>>()
    };
    // What Compose started is stopped as the file says; what kaleem started, as its own release said.
    let compose = app("v1").services.into_values().next().unwrap();
    world.runtime.add_network(&"shop_default".parse().unwrap(), Some(&world.project()));
    compose_up(&world, &compose).await;
    let taken_over = world.plan(&quit("v2")).await.plan;
    assert_eq!(signals(&taken_over), ["SIGQUIT", "SIGQUIT"], "{:?}", taken_over.steps);
    world.deploy(&quit("v2")).await.unwrap();
    let next = world.plan(&app("v3")).await.plan;
    assert_eq!(signals(&next), ["SIGQUIT", ""], "{:?}", next.steps);
    let mut gone = app("v3");
    gone.services = project(vec![service("other", "registry.example/app:v3")]).services;
    let gone = world.plan(&gone).await.plan;
    assert!(signals(&gone).contains(&"SIGQUIT".to_owned()), "{:?}", gone.steps);
}

#[tokio::test]
async fn every_image_of_a_release_that_is_not_kept_any_more_is_unpinned_however_many_services_there_are() {
    let world = world();
    let services = |tag: &str| (0..25).map(|number| service(&format!("s{number}"), &format!("registry.example/app:{tag}"))).collect();
    let pins = |world: &World| {
        let tags = world.runtime.snapshot().tags.into_keys().filter(|tag| tag.starts_with("kaleem.invalid/"));
        let releases: Vec<String> = tags.filter_map(|tag| Some(tag.rsplit_once(':')?.1.to_owned())).collect();
        releases.into_iter().fold(BTreeMap::new(), |mut counts, release| {
            *counts.entry(release).or_insert(0) += 1;
            counts
        })
    };
    let counts = |releases: &[&str]| releases.iter().map(|release| ((*release).to_owned(), 25)).collect::<BTreeMap<String, i32>>();
    let deploy = async |tag: &str, keep: u32| {
        let mut project = project(services(tag));
        project.settings.keep = Some(keep);
        world.deploy(&project).await.unwrap()
    };
    for tag in ["v1", "v2", "v3"] {
        deploy(tag, 3).await;
    }
    assert_eq!(pins(&world), counts(&["r1", "r2", "r3"]));
    deploy("v4", 3).await;
    assert_eq!(pins(&world), counts(&["r2", "r3", "r4"]), "the oldest goes, with all of its services");
    world.push("registry.example/app:bad", Behaviour::ExitsAtOnce { code: 1, log: String::new() });
    deploy("bad", 3).await;
    assert_eq!(pins(&world), counts(&["r2", "r3", "r4"]), "what failed leaves nothing");
    deploy("v1", 1).await;
    assert_eq!(pins(&world).len(), 1, "where fewer are kept, all others go at once: {:?}", pins(&world));
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

//! Who stops while data is put back: the services that use it, and nobody else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use kaleem_core::backup::SetData;
use kaleem_core::config::settings::backup::BackupWhen;
use kaleem_core::config::{DependencyCondition, Project, Service};
use kaleem_core::definition::NetworkMode;
use kaleem_core::engine::Ending;
use kaleem_core::outcome::Outcome;
use kaleem_core::plan::{ChangeKind, Step};
use kaleem_core::testing::{Behaviour, SetsPlace};

use crate::world::{ServiceExt, World, project, service, service_name};

const IMAGES: &[&str] = &[
    "registry.example/app:v1",
    "registry.example/app:v2",
    "nginx:1",
    "redis-exporter:1",
    "grafana:1",
    "vpn:1",
    "vpn:2",
    "other:1",
    "redis:7",
];

async fn world() -> World {
    let world = World::with_backups(false);
    for image in IMAGES {
        world.push(image, Behaviour::Healthy);
    }
    world.sets.write("of r1");
    world
}

fn backed_up(services: Vec<Service>) -> Project {
    let mut project = project(services);
    project.settings.backup.when = Some(BackupWhen::BeforeDeploy);
    project
}

/// Two releases, and what the services were that stopped when the data of the first was put back, and that ran meanwhile.
async fn rolled_back(world: &World, before: &Project, after: &Project) -> (BTreeSet<String>, Vec<String>) {
    for project in [before, after] {
        let ending = world.deploy(project).await.unwrap();
        assert!(matches!(ending, Ending::Over(Outcome::Deployed { .. })), "{ending:?}");
    }
    world.sets.write("of r2");
    let work = world.kaleem.work(&world.project()).await.unwrap();
    let planned = world.kaleem.rollback_plan_with_data(&work, None).await.unwrap();
    let stopped = planned.plan.steps.iter().take_while(|step| !matches!(step, Step::RestoreData { .. })).filter_map(|step| match step {
        Step::Stop { service, .. } => Some(service.to_string()),
        _ => None,
    });
    let stopped = stopped.collect();
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let (runtime, running) = (world.runtime.clone(), seen.clone());
    world.sets.at_places(Some(Arc::new(move |place| {
        if place == SetsPlace::RestoreBegins {
            *running.lock().unwrap() = runtime.snapshot().running().iter().map(ToString::to_string).collect();
        }
        None
    })));
    let ending = world.kaleem.start(work, &planned).unwrap().finish().await.unwrap();
    assert!(matches!(ending, Ending::Over(Outcome::Deployed { .. })), "{ending:?}");
    assert_eq!(world.sets.data(), "of r1");
    let running = seen.lock().unwrap().clone();
    (stopped, running)
}

#[tokio::test]
async fn a_rollback_with_data_stops_the_users_of_the_store_and_nobody_else() {
    let shop = |tag: &str| {
        let app = |name: &str| service(name, &format!("registry.example/app:{tag}"));
        backed_up(vec![
            app("api").after("redis", DependencyCondition::ServiceStarted),
            app("worker").env("QUEUE", "redis://redis:6379/1"),
            app("cron"),
            service("web", "nginx:1").after("api", DependencyCondition::ServiceStarted).publishing(80, 80),
            service("exporter", "redis-exporter:1").env("REDIS_ADDR", "redis:6379"),
            service("dashboards", "grafana:1").storing("dashboards"),
            service("unrelated", "other:1").env("MODE", "redis-like"),
            service("redis", "redis:7").storing("redis"),
        ])
    };
    let (stopped, running) = rolled_back(&world().await, &shop("v1"), &shop("v2")).await;
    // `cron` runs the image of services that use it: the file does not say that it does, and it may.
    assert_eq!(stopped, ["api", "cron", "worker"].map(str::to_owned).into());
    for name in ["web", "exporter", "dashboards", "unrelated", "redis"] {
        assert!(running.iter().any(|container| container.contains(name)), "{name} runs on: {running:?}");
    }
}

#[tokio::test]
async fn a_store_whose_users_nothing_names_is_taken_to_be_used_by_its_network() {
    let shop = |tag: &str| {
        backed_up(vec![
            service("api", &format!("registry.example/app:{tag}")),
            service("web", "nginx:1").publishing(80, 80),
            service("redis", "redis:7").storing("redis"),
        ])
    };
    let (stopped, running) = rolled_back(&world().await, &shop("v1"), &shop("v2")).await;
    assert_eq!(stopped, ["api"].map(str::to_owned).into(), "{running:?}");
}

#[tokio::test]
async fn a_volume_that_is_put_back_stops_what_writes_to_it_a_store_too() {
    let shop = |tag: &str| {
        let app = service("api", &format!("registry.example/app:{tag}"));
        backed_up(vec![
            app.after("redis", DependencyCondition::ServiceStarted),
            service("web", "nginx:1").publishing(80, 80),
            service("files", "other:1").storing("redis"),
            service("redis", "redis:7").storing("redis"),
        ])
    };
    let world = world().await;
    world.sets.cover(vec![SetData::Volume("shop_redis".parse().unwrap())]);
    let (stopped, running) = rolled_back(&world, &shop("v1"), &shop("v2")).await;
    assert_eq!(stopped, ["api", "files", "redis"].map(str::to_owned).into());
    assert!(running.iter().any(|container| container.contains("web")), "{running:?}");
}

#[tokio::test]
async fn what_shares_a_network_with_a_container_that_is_replaced_is_made_anew_with_it() {
    let shop = |tag: &str| {
        let mut app = service("app", "other:1").after("redis", DependencyCondition::ServiceStarted);
        app.definition.network = NetworkMode::Service(service_name("vpn"));
        backed_up(vec![service("vpn", &format!("vpn:{tag}")), app, service("redis", "redis:7").storing("redis")])
    };
    let world = world().await;
    for tag in ["1", "2"] {
        world.deploy(&shop(tag)).await.unwrap();
    }
    world.sets.write("of r2");
    let work = world.kaleem.work(&world.project()).await.unwrap();
    let planned = world.kaleem.rollback_plan_with_data(&work, None).await.unwrap();
    let of = |name: &str| planned.plan.changes.iter().find(|change| change.service.as_str() == name).unwrap();
    assert_eq!((of("vpn").kind, of("app").kind), (ChangeKind::Replace, ChangeKind::Replace));
    let created: BTreeMap<String, bool> = planned
        .plan
        .steps
        .iter()
        .filter_map(|step| match step {
            Step::Create { instance } => Some((instance.service.to_string(), instance.companions.is_empty())),
            _ => None,
        })
        .collect();
    assert_eq!(created.get("app"), Some(&false), "it joins the container that stands for `vpn` now: {created:?}");
    let ending = world.kaleem.start(work, &planned).unwrap().finish().await.unwrap();
    assert!(matches!(ending, Ending::Over(Outcome::Deployed { .. })), "{ending:?}");
}

//! What a plan must not leave unsaid: settings that change without a replacement, keys that the engine does not know, ports that move.

use std::collections::BTreeMap;

use kaleem_core::config::Project;
use kaleem_core::config::settings::StrategyName;
use kaleem_core::definition::{HealthTest, Healthcheck, Mount, MountSource, RestartPolicy};
use kaleem_core::engine::Ending;
use kaleem_core::kaleem::Wishes;
use kaleem_core::names::ReleaseId;
use kaleem_core::outcome::Outcome;
use kaleem_core::plan::{ChangeKind, Interruption, Plan, Severity, Step};
use kaleem_core::testing::Behaviour;

use crate::world::{ServiceExt, World, container, lasting, project, service, service_name, setting, strategy};

fn pushed(world: World) -> World {
    for tag in ["app:v1", "app:v2", "app:v3"] {
        world.push(&format!("registry.example/{tag}"), Behaviour::Healthy);
    }
    world.push("redis:7", Behaviour::Healthy);
    world.push("registry.example/app:bad", Behaviour::ExitsAtOnce { code: 1, log: "bad".to_owned() });
    world
}

fn redis(restart: RestartPolicy, label: Option<&str>) -> Project {
    let mut redis = service("redis", "redis:7").storing("redis");
    redis.definition.restart = restart;
    redis.definition.labels.extend(label.map(|value| ("backup".to_owned(), value.to_owned())));
    project(vec![redis])
}

fn policy(world: &World, name: &str) -> RestartPolicy {
    world.runtime.snapshot().containers[&container(name)].instance.restart
}

fn deployed(ending: &Ending) -> bool {
    matches!(ending, Ending::Over(Outcome::Deployed { .. }))
}

fn kinds(plan: &Plan) -> Vec<(&str, ChangeKind)> {
    plan.changes.iter().map(|change| (change.service.as_str(), change.kind)).collect()
}

#[tokio::test]
async fn a_restart_policy_is_changed_while_the_container_runs_and_stays_known() {
    let world = pushed(World::new());
    world.deploy(&redis(RestartPolicy::No, None)).await.unwrap();
    let changed = redis(RestartPolicy::Always, None);
    let plan = world.plan(&changed).await.plan;
    assert_eq!(kinds(&plan), [("redis", ChangeKind::Update)]);
    assert_eq!(plan.changes[0].fields, ["restart (no to always)"]);
    assert_eq!(plan.changes[0].interruption, Interruption::None);
    assert!(deployed(&world.deploy(&changed).await.unwrap()));
    assert_eq!((world.running(), policy(&world, "shop-redis-r1-1")), (vec!["shop-redis-r1-1".to_owned()], RestartPolicy::Always));
    assert!(world.plan(&changed).await.plan.is_empty(), "it is what the files say now");
    // Also after releases that no longer keep the first definition.
    for restart in
        [RestartPolicy::UnlessStopped, RestartPolicy::OnFailure(3), RestartPolicy::Always, RestartPolicy::No, RestartPolicy::Always]
    {
        world.deploy(&redis(restart, None)).await.unwrap();
        assert_eq!(policy(&world, "shop-redis-r1-1"), restart);
    }
    world.rollback(Some(ReleaseId::new(6))).await.unwrap();
    assert_eq!(policy(&world, "shop-redis-r1-1"), RestartPolicy::No, "going back gives the policy back");
}

#[tokio::test]
async fn a_failed_deploy_gives_the_restart_policy_back() {
    let world = pushed(World::new());
    let of = |tag: &str, restart| {
        let mut shop = redis(restart, None);
        let api = service("api", &format!("registry.example/app:{tag}"));
        shop.services.insert(api.name.clone(), api);
        shop
    };
    world.deploy(&of("v1", RestartPolicy::No)).await.unwrap();
    let ending = world.deploy(&of("bad", RestartPolicy::Always)).await.unwrap();
    assert!(matches!(ending, Ending::Over(Outcome::RolledBack { .. })), "{ending:?}");
    assert_eq!(policy(&world, "shop-redis-r1-1"), RestartPolicy::No);
}

#[tokio::test]
async fn labels_of_a_store_wait_for_its_next_replacement_and_are_named_until_then() {
    let world = pushed(World::new());
    world.deploy(&redis(RestartPolicy::Always, None)).await.unwrap();
    let labelled = redis(RestartPolicy::Always, Some("yes"));
    let planned = world.plan(&labelled).await;
    assert!(planned.plan.is_empty(), "{:?}", planned.plan.steps);
    let said = &planned.plan.objections[0];
    assert_eq!((said.rule.as_str(), said.severity), ("labels-later", Severity::Warn));
    assert!(said.message.contains("labels.backup") && said.remedy.contains("--recreate redis"), "{said:?}");
    let wishes = Wishes { recreate: std::iter::once(service_name("redis")).collect(), ..Wishes::none() };
    let work = world.kaleem.work(&world.project()).await.unwrap();
    let planned = world.kaleem.deploy_plan_with(&work, &labelled, &BTreeMap::new(), &wishes).await.unwrap();
    assert_eq!(kinds(&planned.plan), [("redis", ChangeKind::Replace)]);
    world.kaleem.start(work, &planned).unwrap().finish().await.unwrap();
    let label = world.runtime.snapshot().containers[&container("shop-redis-r2-1")].labels.get("backup").cloned();
    assert_eq!(label.as_deref(), Some("yes"));
    let again = world.plan(&labelled).await.plan;
    assert!(again.is_empty() && again.objections.is_empty(), "{:?}", again.objections);
}

#[tokio::test]
async fn labels_of_what_is_replaced_without_a_gap_are_a_change_like_any_other() {
    let world = pushed(World::new());
    let worker = |label: &str| {
        let mut worker = service("worker", "registry.example/app:v1");
        worker.definition.labels.insert("job".to_owned(), label.to_owned());
        project(vec![worker])
    };
    world.deploy(&worker("a")).await.unwrap();
    assert_eq!(kinds(&world.plan(&worker("b")).await.plan), [("worker", ChangeKind::Replace)]);
}

#[tokio::test]
async fn a_key_that_the_engine_does_not_know_is_refused_before_anything_is_touched() {
    let world = pushed(World::new());
    let mut api = service("api", "registry.example/app:v1");
    let second = Some(std::time::Duration::from_secs(1));
    api.definition.healthcheck = Some(Healthcheck { test: HealthTest::Inherit, start_interval: second, ..Healthcheck::DISABLED });
    let plan = world.plan(&project(vec![api])).await.plan;
    let engine = world.kaleem.runtime().engine().await.unwrap();
    let refused = plan.refusals().find(|objection| objection.rule == "engine-too-old");
    match engine.api_version.as_str() {
        "1.44" => assert!(refused.is_none()),
        _ => {
            let message = &refused.unwrap().message;
            assert!(message.starts_with("`services.api.healthcheck.start_interval` (compose.yaml"), "{message}");
            assert!(message.contains("needs Docker 25.0") && message.contains(&engine.version), "{message}");
        }
    }
}

fn published(name: &str, tag: &str, port: u16) -> kaleem_core::config::Service {
    service(name, &format!("registry.example/app:{tag}")).publishing(port, 3000)
}

/// Ports of the host that containers hold which run.
fn held(world: &World) -> BTreeMap<u16, String> {
    let snapshot = world.runtime.snapshot();
    let running = snapshot.running();
    let ports = running.into_iter().flat_map(|name| {
        let ports = snapshot.containers[name].instance.ports.clone();
        ports.into_iter().filter_map(move |port| Some((port.host_ports?.0, name.to_string())))
    });
    ports.collect()
}

fn plain(project: Project, services: &[&str]) -> Project {
    services.iter().fold(project, |project, name| {
        let project = strategy(project, name, StrategyName::Recreate);
        setting(project, name, |settings| settings.hold = lasting("0s"))
    })
}

#[tokio::test]
async fn a_renamed_service_takes_the_port_of_the_one_that_it_was() {
    for gateways in [false, true] {
        let world = pushed(if gateways { World::with_gateways() } else { World::new() });
        let before = project(vec![published("web", "v1", 8080), published("two", "v2", 8081)]);
        let after = |tag: &str| project(vec![published("frontend", tag, 8080), published("two", "v2", 8081)]);
        assert!(deployed(&world.deploy(&before).await.unwrap()));
        let plan = world.plan(&after("v3")).await.plan;
        assert_eq!(plan.refusals().count(), 0, "{:?}", plan.objections);
        let change = plan.changes.iter().find(|change| change.service.as_str() == "frontend").unwrap();
        assert_ne!(change.interruption, Interruption::None, "the gap is announced");
        assert_eq!(change.fields, ["takes the port 8080/tcp of web"]);
        let running = world.running();
        let bad = world.deploy(&after("bad")).await.unwrap();
        assert!(matches!(bad, Ending::Over(Outcome::RolledBack { .. })), "gateways {gateways}: {bad:?}");
        assert_eq!(world.running(), running, "gateways {gateways}: what is bad leaves nothing");
        let good = world.deploy(&after("v3")).await.unwrap();
        assert!(deployed(&good), "gateways {gateways}: {good:?}");
        assert!(held(&world)[&8080].contains("frontend"), "{:?}", held(&world));
        assert!(!world.running().iter().any(|name| name.contains("web")), "{:?}", world.running());
        assert!(deployed(&world.rollback(None).await.unwrap()), "gateways {gateways}");
        assert!(held(&world)[&8080].contains("web"), "{:?}", held(&world));
    }
}

#[tokio::test]
async fn two_services_exchange_their_ports() {
    for gateways in [false, true] {
        let world = pushed(if gateways { World::with_gateways() } else { World::new() });
        let of = |one: u16, two: u16, tag: &str| {
            let shop = project(vec![published("one", "v1", one), published("two", tag, two)]);
            if gateways { shop } else { plain(shop, &["one", "two"]) }
        };
        assert!(deployed(&world.deploy(&of(8080, 8081, "v2")).await.unwrap()));
        let running = world.running();
        let bad = world.deploy(&of(8081, 8080, "bad")).await.unwrap();
        assert!(matches!(bad, Ending::Over(Outcome::RolledBack { .. })), "gateways {gateways}: {bad:?}");
        assert_eq!(world.running(), running, "gateways {gateways}");
        let plan = world.plan(&of(8081, 8080, "v2")).await.plan;
        let steps: Vec<String> = plan.steps.iter().map(ToString::to_string).collect();
        let good = world.deploy(&of(8081, 8080, "v2")).await.unwrap();
        assert!(deployed(&good), "gateways {gateways}: {good:?}\n{}", steps.join("\n"));
        let held = held(&world);
        assert!(held[&8081].contains("one") && held[&8080].contains("two"), "{held:?}");
        if gateways {
            let place = |wanted: &dyn Fn(&Step) -> bool| plan.steps.iter().position(wanted).unwrap();
            let first_watch = plan.steps.iter().position(|step| matches!(step, Step::Watch { .. })).unwrap_or(usize::MAX);
            let steer = |name: &str| place(&|step| matches!(step, Step::Steer { service, .. } if service.as_str() == name));
            assert!(steer("two") < first_watch, "nobody waits for a watch without a port:\n{}", steps.join("\n"));
        }
    }
}

#[tokio::test]
async fn a_renamed_service_keeps_the_name_of_its_container() {
    let world = pushed(World::new());
    let named = |name: &str, tag: &str| project(vec![published(name, tag, 8080).named("shop-front")]);
    assert!(deployed(&world.deploy(&named("web", "v1")).await.unwrap()));
    let bad = world.deploy(&named("frontend", "bad")).await.unwrap();
    assert!(matches!(bad, Ending::Over(Outcome::RolledBack { .. })), "{bad:?}");
    assert_eq!(world.running(), ["shop-front"]);
    assert!(deployed(&world.deploy(&named("frontend", "v2")).await.unwrap()));
    assert_eq!(world.running(), ["shop-front"]);
}

/// A project with a web server whose configuration is a file of the host.
fn web(world: &World, image: &str, file: &str) -> Project {
    let path = world.directory.path().join(file).display().to_string();
    let mut web = service("web", image);
    let source = MountSource::Bind { path, create_host_path: false, propagation: None, selinux: None };
    web.definition.mounts.push(Mount { target: "/etc/nginx/nginx.conf".to_owned(), read_only: false, source });
    project(vec![web])
}

fn write(world: &World, file: &str, content: &str) {
    // As editors and rotations do: another file takes its place.
    let path = world.directory.path().join(file);
    kaleem_core::durable::write_atomic(&path, content.as_bytes(), 0o644).unwrap();
}

#[tokio::test]
async fn another_content_of_a_mounted_file_is_a_change_of_its_service() {
    let world = pushed(World::new());
    write(&world, "nginx.conf", "worker_processes 1; # hunter2");
    let shop = web(&world, "registry.example/app:v1", "nginx.conf");
    world.deploy(&shop).await.unwrap();
    assert!(world.plan(&shop).await.plan.is_empty());
    write(&world, "nginx.conf", "worker_processes 2; # hunter2");
    let plan = world.plan(&shop).await.plan;
    assert_eq!(kinds(&plan), [("web", ChangeKind::Replace)]);
    assert_eq!(plan.changes[0].fields, ["content of /etc/nginx/nginx.conf"]);
    assert!(!serde_json::to_string(&plan).unwrap().contains("hunter2"), "a plan holds no content");
    world.deploy(&shop).await.unwrap();
    assert_eq!(world.running(), ["shop-web-r2-1"]);
    assert!(world.plan(&shop).await.plan.is_empty(), "once");
    world.rollback(Some(ReleaseId::new(1))).await.unwrap();
    assert!(world.plan(&shop).await.plan.is_empty(), "what goes on running has read what is there now");
}

#[tokio::test]
async fn a_store_is_not_restarted_for_a_file_and_the_plan_says_so_until_it_is() {
    let world = pushed(World::new());
    write(&world, "redis.conf", "maxmemory 1mb");
    let shop = web(&world, "redis:7", "redis.conf");
    world.deploy(&shop).await.unwrap();
    write(&world, "redis.conf", "maxmemory 2mb");
    for _ in 0..2 {
        let plan = world.plan(&shop).await.plan;
        assert!(plan.is_empty(), "{:?}", plan.steps);
        assert_eq!(plan.objections[0].rule, "content-later");
    }
    let wishes = Wishes { recreate: std::iter::once(service_name("web")).collect(), ..Wishes::none() };
    let work = world.kaleem.work(&world.project()).await.unwrap();
    let planned = world.kaleem.deploy_plan_with(&work, &shop, &BTreeMap::new(), &wishes).await.unwrap();
    world.kaleem.start(work, &planned).unwrap().finish().await.unwrap();
    let plan = world.plan(&shop).await.plan;
    assert!(plan.is_empty() && plan.objections.is_empty(), "{:?}", plan.objections);
}

#[tokio::test]
async fn a_restart_brings_fresh_containers_of_the_same_release_and_leaves_none_behind() {
    let world = pushed(World::with_gateways());
    let shop = project(vec![published("api", "v1", 8080), service("redis", "redis:7").storing("redis")]);
    world.deploy(&shop).await.unwrap();
    // The plain name is free again after the first restart.
    for name in ["shop-api-r1-1-p2", "shop-api-r1-1"] {
        let work = world.kaleem.work(&world.project()).await.unwrap();
        let planned = world.kaleem.restart_plan(&work, &[service_name("api")]).await.unwrap();
        assert!(!planned.plan.steps.iter().any(|step| matches!(step, Step::Watch { .. } | Step::Pin { .. })));
        assert!(deployed(&world.kaleem.start(work, &planned).unwrap().finish().await.unwrap()));
        assert_eq!(world.routed("api").await, Some(vec![name.to_owned()]));
        let found: Vec<String> = world.containers().into_iter().filter(|found| found.contains("api-r1")).collect();
        assert_eq!(found, [format!("{name} running")]);
    }
    assert_eq!(world.serving().map(|release| release.to_string()).as_deref(), Some("r1"));
    assert!(world.plan(&shop).await.plan.is_empty(), "nothing is left to do");
    let work = world.kaleem.work(&world.project()).await.unwrap();
    let store = world.kaleem.restart_plan(&work, &[service_name("redis")]).await.unwrap();
    assert!(!store.plan.steps.iter().any(|step| matches!(step, Step::Create { .. })), "a store keeps its container");
    assert!(deployed(&world.kaleem.start(work, &store).unwrap().finish().await.unwrap()));
    assert!(world.running().contains(&"shop-redis-r1-1".to_owned()), "{:?}", world.running());
}

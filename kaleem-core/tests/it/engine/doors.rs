//! The front door: what clients got before a plan they get after it, from the address that they know.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use kaleem_core::config::settings::StrategyName;
use kaleem_core::definition::{NetworkAttachment, NetworkMode};
use kaleem_core::engine::Ending;
use kaleem_core::health::{Door, Finding, Need, ProbeTarget, Probes, Question, Verdict};
use kaleem_core::names::{ProjectName, ReleaseId};
use kaleem_core::outcome::Outcome;
use kaleem_core::plan::Step;
use kaleem_core::testing::{Behaviour, FakeProbes};

use crate::world::{ServiceExt, World, container, lasting, project, service, setting};

/// Doors that are open until somebody shuts them.
#[derive(Default)]
struct Street {
    shut: AtomicBool,
    asked: AtomicUsize,
}

#[async_trait]
impl Probes for Street {
    async fn ask(&self, question: &Question, target: &ProbeTarget, timeout: Duration) -> Finding {
        FakeProbes.ask(question, target, timeout).await
    }

    async fn ask_need(&self, project: &ProjectName, need: &Need, timeout: Duration) -> Finding {
        FakeProbes.ask_need(project, need, timeout).await
    }

    async fn ask_door(&self, door: &Door, _timeout: Duration) -> Finding {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let verdict = if self.shut.load(Ordering::SeqCst) { Verdict::Fail } else { Verdict::Ok };
        Finding::new(verdict, format!("{door} answered {}", if verdict == Verdict::Ok { 200 } else { 502 }))
    }
}

fn shop(tag: &str) -> kaleem_core::config::Project {
    project(vec![service("api", &format!("registry.example/app:{tag}")).publishing(8080, 3000), service("web", "nginx:1")])
}

async fn world(street: &Arc<Street>) -> World {
    let world = World::with_probes(Arc::clone(street) as Arc<dyn Probes>);
    for image in ["registry.example/app:v1", "registry.example/app:v2", "nginx:1"] {
        world.push(image, Behaviour::Healthy);
    }
    assert!(matches!(world.deploy(&shop("v1")).await.unwrap(), Ending::Over(Outcome::Deployed { .. })));
    world
}

#[tokio::test]
async fn a_door_that_answered_before_and_does_not_now_takes_the_release_back() {
    let street = Arc::new(Street::default());
    let world = world(&street).await;
    let work = world.kaleem.work(&world.project()).await.unwrap();
    let planned = world.kaleem.deploy_plan(&work, &shop("v2"), &std::collections::BTreeMap::new()).await.unwrap();
    let doors = planned.plan.steps.iter().filter(|step| matches!(step, Step::FrontDoor { .. })).count();
    assert!(doors >= 1, "{:?}", planned.plan.steps.iter().map(ToString::to_string).collect::<Vec<_>>());
    street.shut.store(true, Ordering::SeqCst);
    let ending = world.kaleem.start(work, &planned).unwrap().finish().await.unwrap();
    let Ending::Over(Outcome::RolledBack { error, .. }) = ending else { panic!("{ending:?}") };
    assert!(error.contains("http://127.0.0.1:8080/") && error.contains("answered 502"), "{error}");
    assert_eq!(world.serving(), Some(ReleaseId::new(1)));
}

#[tokio::test]
async fn what_nginx_passes_on_and_what_is_published_is_proposed_by_a_name_with_what_it_answers() {
    let street = Arc::new(Street::default());
    let world = World::with_probes(Arc::clone(&street) as Arc<dyn Probes>);
    for image in ["registry.example/app:v1", "nginx:1", "redis:7"] {
        world.push(image, Behaviour::Healthy);
    }
    let shop = project(vec![
        service("api", "registry.example/app:v1").publishing(3000, 3000),
        service("cache", "redis:7").publishing(6379, 6379),
        service("web", "nginx:1").publishing(8080, 80),
    ]);
    assert_eq!(world.kaleem.propose_doors(&shop).await.unwrap(), [], "nothing runs");
    world.deploy(&shop).await.unwrap();
    let configuration = "http { server { listen 80; server_name shop.example; location / { proxy_pass http://api:3000; } \
                         location /api/v1/ { proxy_pass http://api:3000; } location = /api { proxy_pass http://api:3000; } } }";
    let nginx = super::clients::nginx(configuration, None);
    world.runtime.on_peek(Arc::new(move |name| (name.as_str() == "shop-web-r1-1").then(|| nginx.clone())));
    let told = async || {
        let proposals = world.kaleem.propose_doors(&shop).await.unwrap();
        let line = |one: kaleem_core::observed::doors::Proposal| {
            let connect = one.door.connect.map_or_else(String::new, |place| format!(" at {place}"));
            format!("{}: {}{connect}{}", one.name, one.door.url, if one.shut.is_some() { " (shut)" } else { "" })
        };
        proposals.into_iter().map(line).collect::<Vec<_>>()
    };
    assert_eq!(
        told().await,
        [
            "api: http://127.0.0.1:3000/",
            "web: http://127.0.0.1:8080/",
            "api-2: http://shop.example:8080/ at 127.0.0.1:8080",
            "api-3: http://shop.example:8080/api at 127.0.0.1:8080",
            "api-api-v1: http://shop.example:8080/api/v1/ at 127.0.0.1:8080",
        ],
        "a database is no front door"
    );
    street.shut.store(true, Ordering::SeqCst);
    let shut = told().await;
    assert!(shut.len() == 5 && shut.iter().all(|line| line.ends_with(" (shut)")), "{shut:?}");
}

#[tokio::test]
async fn a_door_that_gives_no_answer_before_a_plan_does_not_judge_it() {
    let street = Arc::new(Street::default());
    let world = world(&street).await;
    street.shut.store(true, Ordering::SeqCst);
    assert!(matches!(world.deploy(&shop("v2")).await.unwrap(), Ending::Over(Outcome::Deployed { .. })));
}

/// Deploys, and answers how often a door was asked at each look of the plan at it.
async fn answers_at_each_look(world: &World, street: &Street, project: &kaleem_core::config::Project) -> usize {
    let work = world.kaleem.work(&world.project()).await.unwrap();
    let planned = world.kaleem.deploy_plan(&work, project, &std::collections::BTreeMap::new()).await.unwrap();
    let looks: usize = planned.plan.steps.iter().map(|step| if let Step::FrontDoor { doors, .. } = step { doors.len() } else { 0 }).sum();
    street.asked.store(0, Ordering::SeqCst);
    let ending = world.kaleem.start(work, &planned).unwrap().finish().await.unwrap();
    assert!(matches!(ending, Ending::Over(Outcome::Deployed { .. })), "{ending:?}");
    street.asked.load(Ordering::SeqCst) / looks
}

#[tokio::test]
async fn every_plan_asks_at_a_door_three_times() {
    let street = Arc::new(Street::default());
    let world = World::with_gateways_and_probes(Arc::clone(&street) as Arc<dyn Probes>);
    for image in ["registry.example/app:v1", "registry.example/app:v2", "registry.example/app:v3", "nginx:1"] {
        world.push(image, Behaviour::Healthy);
    }
    let without_gateway = setting(shop("v1"), "api", |settings| {
        settings.strategy = Some(StrategyName::Recreate);
        settings.hold = lasting("0s");
    });
    world.deploy(&without_gateway).await.unwrap();
    assert_eq!(answers_at_each_look(&world, &street, &shop("v2")).await, 3, "a gateway takes the port over");
    assert_eq!(answers_at_each_look(&world, &street, &shop("v3")).await, 3, "the gateway is told to send elsewhere");
}

#[tokio::test]
async fn a_gateway_has_the_address_of_what_it_replaces_and_gives_it_back() {
    for (image, expected) in [("v2", "deployed"), ("bad", "rolled back")] {
        let world = World::with_gateways();
        for (image, behaviour) in [("v1", Behaviour::Healthy), ("v2", Behaviour::Healthy)] {
            world.push(&format!("registry.example/app:{image}"), behaviour);
        }
        // Fails in the watch, when the gateway has the address already.
        world.push("registry.example/app:bad", Behaviour::CrashesAfter(6));
        world.push("nginx:1", Behaviour::Healthy);
        let before = setting(shop("v1"), "api", |settings| {
            settings.strategy = Some(StrategyName::Recreate);
            settings.hold = lasting("0s");
        });
        assert!(matches!(world.deploy(&before).await.unwrap(), Ending::Over(Outcome::Deployed { .. })));
        let address = |name: &str| world.runtime.snapshot().containers[&container(name)].instance.addresses.clone();
        let known = address("shop-api-r1-1");
        let ending = world.deploy(&shop(image)).await.unwrap();
        match (&ending, expected) {
            (Ending::Over(Outcome::Deployed { .. }), "deployed") => assert_eq!(address("shop-api-gateway"), known, "{image}"),
            (Ending::Over(Outcome::RolledBack { .. }), "rolled back") => assert_eq!(address("shop-api-r1-1"), known, "{image}"),
            other => panic!("{image}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_gateway_joins_an_added_network_while_it_serves() {
    let world = World::with_gateways();
    world.push("registry.example/app:v1", Behaviour::Healthy);
    world.push("nginx:1", Behaviour::Healthy);
    assert!(matches!(world.deploy(&shop("v1")).await.unwrap(), Ending::Over(Outcome::Deployed { .. })));
    let started = || world.runtime.snapshot().containers[&container("shop-api-gateway")].instance.state.started_at.clone();
    let before = started();
    let mut more = shop("v1");
    let mut network = more.networks.values().next().unwrap().clone();
    network.name = "shop_front".parse().unwrap();
    network.key = "front".to_owned();
    for service in more.services.values_mut().filter(|service| service.name.as_str() == "api") {
        let NetworkMode::Networks(attachments) = &mut service.definition.network else { panic!() };
        let joined = NetworkAttachment { network: network.name.clone(), ..attachments[0].clone() };
        attachments.push(joined);
    }
    more.networks.insert("front".to_owned(), network.clone());
    assert!(matches!(world.deploy(&more).await.unwrap(), Ending::Over(Outcome::Deployed { .. })));
    let gateway = world.runtime.snapshot().containers[&container("shop-api-gateway")].instance.clone();
    assert!(gateway.addresses.contains_key(&network.name), "{:?}", gateway.addresses);
    assert_eq!(started(), before, "the gateway was recreated");
    // What is there stays as it is: there is nothing to do.
    let work = world.kaleem.work(&world.project()).await.unwrap();
    let planned = world.kaleem.deploy_plan(&work, &more, &std::collections::BTreeMap::new()).await.unwrap();
    assert!(planned.plan.is_empty(), "{:?}", planned.plan.steps.iter().map(ToString::to_string).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_port_that_nobody_publishes_any_more_is_no_door() {
    let street = Arc::new(Street::default());
    let world = world(&street).await;
    let mut unpublished = shop("v2");
    for service in unpublished.services.values_mut() {
        service.definition.ports.clear();
    }
    let work = world.kaleem.work(&world.project()).await.unwrap();
    let planned = world.kaleem.deploy_plan(&work, &unpublished, &std::collections::BTreeMap::new()).await.unwrap();
    street.shut.store(true, Ordering::SeqCst);
    let ending = world.kaleem.start(work, &planned).unwrap().finish().await.unwrap();
    assert!(matches!(ending, Ending::Over(Outcome::Deployed { .. })), "{ending:?}");
}

#[tokio::test]
async fn a_gateway_that_is_made_anew_takes_its_ports_from_the_old_one_alone() {
    let world = World::with_gateways();
    for image in ["registry.example/app:v1", "registry.example/app:v2", "nginx:1"] {
        world.push(image, Behaviour::Healthy);
    }
    assert!(matches!(world.deploy(&shop("v1")).await.unwrap(), Ending::Over(Outcome::Deployed { .. })));
    let other = setting(shop("v2"), "api", |settings| settings.trusted_proxies = Some(Vec::new()));
    let work = world.kaleem.work(&world.project()).await.unwrap();
    let planned = world.kaleem.deploy_plan(&work, &other, &std::collections::BTreeMap::new()).await.unwrap();
    let at = |wanted: &dyn Fn(&Step) -> bool| planned.plan.steps.iter().position(wanted);
    let from = planned.plan.steps.iter().find_map(|step| match step {
        Step::HandOver { from, .. } => Some(from.iter().map(|one| one.container.to_string()).collect::<Vec<_>>()),
        _ => None,
    });
    assert_eq!(from, Some(vec!["shop-api-gateway".to_owned()]));
    let watched = at(&|step| matches!(step, Step::Watch { .. })).unwrap();
    let stopped = at(&|step| matches!(step, Step::Stop { container, .. } if container.as_str() == "shop-api-r1-1")).unwrap();
    assert!(watched < stopped, "{:?}", planned.plan.steps.iter().map(ToString::to_string).collect::<Vec<_>>());
    let ending = world.kaleem.start(work, &planned).unwrap().finish().await.unwrap();
    assert!(matches!(ending, Ending::Over(Outcome::Deployed { .. })), "{ending:?}");
    assert_eq!(world.running(), ["shop-api-gateway-p2", "shop-api-r2-1", "shop-web-r1-1"]);
}

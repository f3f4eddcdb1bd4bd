//! Ports that a service behind a gateway publishes and no longer publishes: its gateway serves on.

use std::collections::BTreeMap;

use kaleem_core::config::Project;
use kaleem_core::engine::Ending;
use kaleem_core::kaleem::Wishes;
use kaleem_core::outcome::Outcome;
use kaleem_core::plan::{ChangeKind, Interruption, Plan, Severity, Step};
use kaleem_core::runtime::InstanceStatus;
use kaleem_core::testing::Behaviour;

use super::repairs::{faults, kinds};
use crate::world::{ServiceExt, World, container, project, service, service_name};

/// An API that publishes these.
fn app(tag: &str, ports: &[(u16, u16)]) -> Project {
    let api = service("api", &format!("registry.example/app:{tag}"));
    project(vec![ports.iter().fold(api, |api, (host, inside)| api.publishing(*host, *inside))])
}

const ONE: &[(u16, u16)] = &[(8080, 3000)];
const TWO: &[(u16, u16)] = &[(8080, 3000), (8081, 3000)];
const GATEWAY: &str = "shop-api-gateway";
const PORT: &str = "shop-api-gateway-port-8081";

async fn world(ports: &[&[(u16, u16)]]) -> World {
    let world = World::with_gateways();
    for tag in ["v1", "v2"] {
        world.push(&format!("registry.example/app:{tag}"), Behaviour::Healthy);
    }
    for ports in ports {
        deployed(&world, &app("v1", ports)).await;
    }
    world
}

async fn deployed(world: &World, project: &Project) {
    let ending = world.deploy(project).await.unwrap();
    assert!(matches!(ending, Ending::Over(Outcome::Deployed { .. })), "{ending:?}");
}

/// The ports of the host that are published, with who does so and how often that was started.
fn published(world: &World) -> BTreeMap<u16, (String, u64)> {
    let snapshot = world.runtime.snapshot();
    let running = snapshot.containers.iter().filter(|(_, found)| found.instance.state.status == InstanceStatus::Running);
    let ports = running.flat_map(|(name, found)| found.instance.ports.iter().map(move |port| (port, name, found.runs)));
    ports.filter_map(|(port, name, runs)| Some((port.host_ports?.0, (name.to_string(), runs)))).collect()
}

fn hands_over(plan: &Plan) -> bool {
    plan.steps.iter().any(|step| matches!(step, Step::HandOver { .. } | Step::StartApart { .. }))
}

fn rules(plan: &Plan) -> Vec<(&str, Severity)> {
    plan.objections.iter().map(|objection| (objection.rule.as_str(), objection.severity)).collect()
}

#[tokio::test]
async fn a_port_is_added_next_to_a_gateway_that_serves_on() {
    let world = world(&[ONE]).await;
    let plan = world.plan(&app("v1", TWO)).await.plan;
    let change = &plan.changes[0];
    assert_eq!((change.kind, change.interruption), (ChangeKind::Update, Interruption::None));
    assert_eq!(change.fields, ["port 8081/tcp (opened by a port container)"]);
    assert!(!hands_over(&plan), "{:?}", plan.steps);
    deployed(&world, &app("v1", TWO)).await;
    let expected = BTreeMap::from([(8080, (GATEWAY.to_owned(), 1)), (8081, (PORT.to_owned(), 1))]);
    assert_eq!(published(&world), expected);
    let again = world.plan(&app("v1", TWO)).await.plan;
    assert!(again.is_empty() && again.objections.is_empty(), "{:?} {:?}", again.steps, again.objections);
    assert_eq!(faults(&world).await, []);
    // Another version leaves both alone, and so does a restart of the engine.
    deployed(&world, &app("v2", TWO)).await;
    assert_eq!(published(&world), expected);
    world.runtime.restart_engine();
    assert_eq!(published(&world).keys().copied().collect::<Vec<_>>(), [8080, 8081]);
    assert_eq!(faults(&world).await, []);
}

#[tokio::test]
async fn a_port_container_has_the_gateways_place_and_none_of_the_services_names() {
    let world = world(&[ONE, &[(8080, 3000), (8081, 9000)]]).await;
    let snapshot = world.runtime.snapshot();
    let (gateway, port) = (&snapshot.containers[&container(GATEWAY)], &snapshot.containers[&container(PORT)]);
    let command = port.definition.command.clone().unwrap();
    assert_eq!(command, ["gateway-port", "--directory", "/run/kaleem", "--name", "8081:9000/tcp", "--listen", "9000/tcp"]);
    assert_eq!(port.definition.user, gateway.definition.user);
    assert_eq!(port.definition.mounts[0].source, gateway.definition.mounts[0].source);
    assert!(port.definition.mounts[0].read_only);
    assert!(port.instance.networks.values().all(|aliases| !aliases.contains(&"api".to_owned())), "{:?}", port.instance.networks);
    assert!(!port.labels.contains_key("com.docker.compose.project"), "`--remove-orphans` would take it away");
    assert_eq!(port.instance.restart, kaleem_core::definition::RestartPolicy::Always);
}

#[tokio::test]
async fn a_port_that_a_port_container_publishes_is_closed_when_the_file_drops_it() {
    let world = world(&[ONE, TWO]).await;
    let plan = world.plan(&app("v1", ONE)).await.plan;
    assert_eq!((plan.changes[0].kind, plan.changes[0].fields.clone()), (ChangeKind::Update, vec!["port 8081/tcp (closed)".to_owned()]));
    assert!(!hands_over(&plan), "{:?}", plan.steps);
    deployed(&world, &app("v1", ONE)).await;
    assert_eq!(published(&world), BTreeMap::from([(8080, (GATEWAY.to_owned(), 1))]));
    // It comes back as a new one, and what is left of the old one goes.
    deployed(&world, &app("v1", TWO)).await;
    assert_eq!(published(&world).get(&8081).map(|(name, _)| name.as_str()), Some("shop-api-gateway-port-8081-p4"));
    let names: Vec<String> = world.containers();
    assert!(!names.iter().any(|one| one.starts_with(&format!("{PORT} "))), "{names:?}");
    assert_eq!(faults(&world).await, []);
}

#[tokio::test]
async fn a_rollback_closes_what_the_release_before_did_not_publish() {
    let world = world(&[ONE, TWO]).await;
    let ending = world.rollback(None).await.unwrap();
    assert!(matches!(ending, Ending::Over(Outcome::Deployed { .. })), "{ending:?}");
    assert_eq!(world.serving(), Some(kaleem_core::names::ReleaseId::new(1)));
    assert_eq!(published(&world), BTreeMap::from([(8080, (GATEWAY.to_owned(), 1))]));
    assert_eq!(faults(&world).await, []);
    let again = world.plan(&app("v1", ONE)).await.plan;
    assert!(again.is_empty() && again.objections.is_empty(), "{:?} {:?}", again.steps, again.objections);
}

#[tokio::test]
async fn a_port_of_the_gateway_itself_stays_open_and_every_plan_says_so() {
    let world = world(&[TWO]).await;
    let plan = world.plan(&app("v1", ONE)).await.plan;
    assert!(plan.is_empty(), "{:?}", plan.steps);
    assert_eq!(rules(&plan), [("port-stays", Severity::Warn)]);
    assert!(plan.objections[0].remedy.ends_with("kaleem deploy --recreate api"), "{}", plan.objections[0].remedy);
    deployed(&world, &app("v2", ONE)).await;
    assert_eq!(published(&world).len(), 2);
    assert!(rules(&world.plan(&app("v2", ONE)).await.plan).contains(&("port-stays", Severity::Warn)));
    // The same ports again are what the gateway has.
    let back = world.plan(&app("v2", TWO)).await.plan;
    assert!(back.is_empty() && back.objections.is_empty(), "{:?}", back.steps);
    let work = world.kaleem.work(&world.project()).await.unwrap();
    let wishes = Wishes { recreate: [service_name("api")].into(), ..Wishes::none() };
    let planned = world.kaleem.deploy_plan_with(&work, &app("v2", ONE), &BTreeMap::new(), &wishes).await.unwrap();
    assert!(hands_over(&planned.plan) && !rules(&planned.plan).iter().any(|(rule, _)| *rule == "port-stays"), "{:?}", planned.plan.steps);
    world.kaleem.start(work, &planned).unwrap().finish().await.unwrap();
    assert_eq!(published(&world).keys().copied().collect::<Vec<_>>(), [8080]);
    assert_eq!(world.plan(&app("v2", ONE)).await.plan.objections, []);
}

#[tokio::test]
async fn another_port_of_the_host_is_a_port_that_comes_and_one_that_stays() {
    let world = world(&[ONE]).await;
    let moved: &[(u16, u16)] = &[(8081, 3000)];
    let plan = world.plan(&app("v1", moved)).await.plan;
    assert!(!hands_over(&plan), "{:?}", plan.steps);
    assert!(rules(&plan).contains(&("port-stays", Severity::Warn)));
    deployed(&world, &app("v1", moved)).await;
    assert_eq!(published(&world), BTreeMap::from([(8080, (GATEWAY.to_owned(), 1)), (8081, (PORT.to_owned(), 1))]));
}

#[tokio::test]
async fn what_a_gateway_that_runs_cannot_become_is_handed_over_and_said() {
    let logged = |mut project: Project| {
        project.settings.services.entry(service_name("api")).or_default().access_log = Some(true);
        project
    };
    let taken = |ports: &[(u16, u16)]| {
        let mut both = app("v1", ports);
        both.services.insert(service_name("web"), service("web", "registry.example/app:v2").publishing(8081, 3000));
        both
    };
    for (why, before, after) in [
        ("the host's port leads elsewhere", vec![app("v1", ONE)], app("v1", &[(8080, 4000)])),
        ("the same at a port container", vec![app("v1", ONE), app("v1", TWO)], app("v1", &[(8080, 3000), (8081, 4000)])),
        ("the gateway is another for another reason", vec![app("v1", ONE)], logged(app("v1", TWO))),
        ("another service wants what would stay", vec![app("v1", TWO)], taken(ONE)),
        ("another service wants what a port container has", vec![app("v1", ONE), app("v1", TWO)], taken(ONE)),
    ] {
        let world = world(&[]).await;
        for project in &before {
            deployed(&world, project).await;
        }
        let plan = world.plan(&after).await.plan;
        assert!(
            plan.changes.iter().any(|change| change.interruption == Interruption::HandOver) || why.contains("port container has"),
            "{why}"
        );
        deployed(&world, &after).await;
        let wanted: Vec<u16> =
            after.services.values().flat_map(|service| &service.definition.ports).map(|port| port.host_ports.unwrap().0).collect();
        assert_eq!(published(&world).keys().copied().collect::<std::collections::BTreeSet<_>>(), wanted.into_iter().collect(), "{why}");
        assert_eq!(faults(&world).await, [], "{why}");
        let again = world.plan(&after).await.plan;
        assert!(again.is_empty() && again.objections.is_empty(), "{why}: {:?} {:?}", again.steps, again.objections);
    }
}

#[tokio::test]
async fn a_gateway_whose_program_takes_no_ports_is_handed_over() {
    let world = world(&[ONE]).await;
    world.traffic.fake.set_old(&GATEWAY.parse().unwrap());
    let plan = world.plan(&app("v1", TWO)).await.plan;
    assert!(hands_over(&plan), "{:?}", plan.steps);
    deployed(&world, &app("v1", TWO)).await;
    assert_eq!(published(&world).len(), 2);
}

#[tokio::test]
async fn a_port_container_that_is_gone_is_seen_and_made_again_by_a_deploy() {
    type Meddle = fn(&World);
    let meddles: [(&str, Meddle); 3] = [
        ("stopped", |world| world.runtime.stop_by_hand(&container(PORT))),
        ("removed", |world| world.runtime.remove_by_hand(&container(PORT))),
        ("paused", |world| world.runtime.pause_by_hand(&container(PORT))),
    ];
    for (why, meddle) in meddles {
        let world = world(&[ONE, TWO]).await;
        meddle(&world);
        assert_eq!(kinds(&faults(&world).await), ["port-closed"], "{why}");
        deployed(&world, &app("v1", TWO)).await;
        assert_eq!(published(&world).keys().copied().collect::<Vec<_>>(), [8080, 8081], "{why}");
        assert_eq!(published(&world)[&8080], (GATEWAY.to_owned(), 1), "{why}: the gateway never noticed");
        assert_eq!(faults(&world).await, [], "{why}");
        assert!(world.plan(&app("v1", TWO)).await.plan.is_empty(), "{why}");
    }
}

#[tokio::test]
async fn a_lost_state_directory_changes_nothing_about_port_containers() {
    let world = world(&[ONE, TWO]).await;
    let before = published(&world);
    let state = world.kaleem.state(&world.project()).root().to_owned();
    std::fs::remove_dir_all(state).unwrap();
    let plan = world.plan(&app("v1", TWO)).await.plan;
    assert!(!hands_over(&plan), "{:?}", plan.steps);
    deployed(&world, &app("v1", TWO)).await;
    assert_eq!(published(&world), before);
}

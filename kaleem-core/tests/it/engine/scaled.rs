//! Several containers of a service with one port of the host, or one name: a gateway has them, or the plan says why none can.

use kaleem_core::config::{Project, Service};
use kaleem_core::definition::{NetworkMode, Protocol};
use kaleem_core::engine::Ending;
use kaleem_core::kaleem::Wishes;
use kaleem_core::outcome::Outcome;
use kaleem_core::plan::{Objection, Severity};
use kaleem_core::testing::Behaviour;

use crate::world::{ServiceExt, World, project, service, service_name, setting};

fn api() -> Service {
    service("api", "registry.example/app:v1").publishing(8080, 3000)
}

fn world(gateways: bool) -> World {
    let world = if gateways { World::with_gateways() } else { World::new() };
    world.push("registry.example/app:v1", Behaviour::Healthy);
    world
}

async fn said(world: &World, project: &Project, wishes: &Wishes) -> Vec<Objection> {
    let planned = world.kaleem.plan_deploy_with(project, &Default::default(), wishes).await.unwrap();
    planned.plan.objections.into_iter().filter(|objection| objection.rule.starts_with("replicas-")).collect()
}

#[tokio::test]
async fn a_gateway_shares_one_port_and_one_name_and_the_plan_says_that_compose_would_not() {
    for (why, api) in [("a port", api()), ("a name", service("api", "registry.example/app:v1").named("api")), ("both", api().named("api"))]
    {
        let world = world(true);
        let mut api = api.times(3);
        if api.definition.ports.is_empty() {
            api.definition.expose.push(kaleem_core::definition::ContainerPort { port: 3000, protocol: Protocol::Tcp });
        }
        let project = project(vec![api]);
        let found = said(&world, &project, &Wishes::none()).await;
        let [note] = found.as_slice() else { panic!("{why}: {found:?}") };
        assert_eq!((note.severity, note.message.contains("`docker compose up` refuses that")), (Severity::Note, true), "{why}: {note:?}");
        let ending = world.deploy(&project).await.unwrap();
        assert!(matches!(ending, Ending::Over(Outcome::Deployed { .. })), "{why}: {ending:?}");
        let routed = world.routed("api").await.unwrap();
        assert_eq!(routed, ["shop-api-r1-1", "shop-api-r1-2", "shop-api-r1-3"], "{why}");
    }
}

#[tokio::test]
async fn where_no_gateway_can_stand_the_plan_is_refused_with_the_reason() {
    let udp = {
        let mut udp = api();
        udp.definition.ports[0].container.protocol = Protocol::Udp;
        udp
    };
    let host = {
        let mut host = api();
        host.definition.network = NetworkMode::Host;
        host.definition.ports.clear();
        host.named("api")
    };
    let none = |project| setting(project, "api", |settings| settings.gateway = Some(false));
    let worker = service("api", "registry.example/app:v1").named("api");
    for (why, gateways, project, reason) in [
        ("UDP", true, project(vec![udp.times(3)]), "it publishes a port that is not TCP"),
        ("the host's network", true, project(vec![host.times(3)]), "it uses the host's network"),
        ("kaleem.toml", true, none(project(vec![api().times(3)])), "it has no gateway (kaleem.toml)"),
        ("no program", false, project(vec![api().times(3)]), "it publishes a port of the host, which one container can hold"),
        ("a name that nobody calls", true, project(vec![worker.times(3)]), "cannot all be called `api`"),
    ] {
        let world = world(gateways);
        let found = said(&world, &project, &Wishes::none()).await;
        let [refusal] = found.as_slice() else { panic!("{why}: {found:?}") };
        assert_eq!(refusal.severity, Severity::Refuse, "{why}: {refusal:?}");
        assert!(refusal.message.contains(reason) && refusal.message.starts_with("3 containers of `api`"), "{why}: {}", refusal.message);
    }
    // A range of ports is enough for as many containers as it has ports.
    let range = |last| {
        let mut range = api().times(3);
        range.definition.ports[0].host_ports = Some((8080, last));
        none(project(vec![range]))
    };
    assert_eq!(said(&world(true), &range(8082), &Wishes::none()).await, []);
    assert_eq!(said(&world(true), &range(8081), &Wishes::none()).await.len(), 1);
}

#[tokio::test]
async fn what_has_a_gateway_is_scaled_on_the_command_line_and_its_gateway_stays() {
    let world = world(true);
    let one = project(vec![api().named("api")]);
    world.deploy(&one).await.unwrap();
    let gateway = |world: &World| {
        world
            .runtime
            .snapshot()
            .containers
            .iter()
            .find(|(_, one)| one.labels.contains_key("kaleem.gateway"))
            .map(|(name, one)| (name.clone(), one.runs))
    };
    let before = gateway(&world);
    let wishes = Wishes { scale: [(service_name("api"), 3)].into(), ..Wishes::none() };
    assert_eq!(said(&world, &one, &wishes).await, [], "the files say one, which Compose accepts");
    let work = world.kaleem.work(&world.project()).await.unwrap();
    let planned = world.kaleem.deploy_plan_with(&work, &one, &Default::default(), &wishes).await.unwrap();
    assert_eq!(planned.plan.refusals().count(), 0, "{:?}", planned.plan.objections);
    let ending = world.kaleem.start(work, &planned).unwrap().finish().await.unwrap();
    assert!(matches!(ending, Ending::Over(Outcome::Deployed { .. })), "{ending:?}");
    assert_eq!(world.routed("api").await.unwrap().len(), 3);
    assert_eq!(gateway(&world), before, "the gateway is the same and was not restarted");
}

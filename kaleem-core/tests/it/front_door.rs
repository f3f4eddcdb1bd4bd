//! What a service sees of its clients: which ones stand behind a gateway, and what the plan says of it.

use std::net::IpAddr;

use kaleem_core::config::Service;
use kaleem_core::config::settings::{ProtocolName, ProxyProtocolName, ServiceSettings};
use kaleem_core::plan::Plan;
use kaleem_core::release::Strategy;
use kaleem_core::testing::Behaviour;

use crate::world::{ServiceExt, World, project, service, service_name, setting};

fn world() -> World {
    let world = World::with_gateways();
    for image in ["nginx:1", "registry.example/app:v1", "registry.example/app:v2"] {
        world.push(image, Behaviour::Healthy);
    }
    world
}

fn at(mut service: Service, address: &str) -> Service {
    service.definition.ports.iter_mut().for_each(|port| port.host_ip = Some(address.parse::<IpAddr>().unwrap()));
    service
}

fn notes(plan: &Plan) -> Vec<&str> {
    plan.objections.iter().filter(|objection| objection.rule == "client-address").map(|objection| objection.message.as_str()).collect()
}

#[tokio::test]
async fn a_reverse_proxy_for_other_hosts_has_no_gateway_unless_somebody_says_so() {
    let web = || service("web", "nginx:1").publishing(80, 80);
    type Change = fn(&mut ServiceSettings);
    let cases: [(&str, Service, Change, bool); 7] = [
        ("it publishes to other hosts", web(), |_| {}, false),
        ("it publishes to this host alone", at(web(), "127.0.0.1"), |_| {}, true),
        ("an app is no proxy", service("web", "registry.example/app:v1").publishing(80, 80), |_| {}, true),
        ("it is said", web(), |settings| settings.gateway = Some(true), true),
        (
            "its address is told",
            web(),
            |settings| (settings.protocol, settings.proxy_protocol) = (Some(ProtocolName::Tcp), Some(ProxyProtocolName::Out)),
            true,
        ),
        (
            "an app without a gateway",
            service("web", "registry.example/app:v1").publishing(80, 80),
            |settings| settings.gateway = Some(false),
            false,
        ),
        (
            "a gateway only to hold requests is none either",
            web(),
            |settings| (settings.gateway, settings.singleton) = (Some(false), Some(true)),
            false,
        ),
    ];
    for (why, service, change, behind) in cases {
        let planned = world().plan(&setting(project(vec![service]), "web", change)).await;
        let wanted = &planned.plan.release.target.services[&service_name("web")];
        assert_eq!(wanted.gateway.is_some(), behind, "{why}");
        assert_eq!(wanted.strategy == Strategy::Recreate, !behind, "{why}: {}", wanted.reason);
    }
}

#[tokio::test]
async fn the_plan_that_adds_a_gateway_says_what_the_service_sees_from_then_on_and_later_plans_do_not() {
    let shop = |tag: &str| {
        let app = |name: &str, port: u16| service(name, &format!("registry.example/app:{tag}")).publishing(port, port);
        let told = setting(project(vec![app("api", 3000), app("raw", 7000), app("mail", 2525)]), "mail", |settings| {
            (settings.protocol, settings.proxy_protocol) = (Some(ProtocolName::Tcp), Some(ProxyProtocolName::Out));
        });
        setting(told, "raw", |settings| settings.protocol = Some(ProtocolName::Tcp))
    };
    let world = world();
    let planned = world.plan(&shop("v1")).await;
    let found = notes(&planned.plan);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("`api`, `mail`") && found[0].contains("X-Forwarded-For"), "{found:?}");
    assert!(found[1].contains("`raw` (port 7000)") && found[1].contains("nothing carries"), "{found:?}");
    world.deploy(&shop("v1")).await.unwrap();
    let planned = world.plan(&shop("v2")).await;
    assert_eq!(notes(&planned.plan), Vec::<&str>::new(), "it is no news any more");
}

#[tokio::test]
async fn a_gateway_is_told_whom_to_believe() {
    let app = || project(vec![service("api", "registry.example/app:v1").publishing(3000, 3000)]);
    for (said, wanted) in [
        (None, &[][..]),
        (Some(vec![]), &["--distrust-forwarded"][..]),
        (Some(vec!["10.0.0.0/8".to_owned()]), &["--trust-forwarded", "10.0.0.0/8"][..]),
    ] {
        let planned = world().plan(&setting(app(), "api", |settings| settings.trusted_proxies.clone_from(&said))).await;
        let gateway = planned.plan.release.target.services[&service_name("api")].gateway.clone().unwrap();
        // Planned definitions come with the plan; the gateway's has a command.
        let commands: Vec<Vec<String>> = planned.definitions().iter().filter_map(|definition| definition.command.clone()).collect();
        let command = commands.iter().find(|command| command.first().is_some_and(|word| word == "gateway")).unwrap();
        let trust: Vec<&str> = command.iter().map(String::as_str).skip_while(|word| !word.contains("trust")).collect();
        assert_eq!(trust, wanted, "{said:?} {}", gateway.name);
    }
}

//! Who kept the address of a service that gets its gateway: it is told in the plan, and reloaded where that helps.

use std::sync::Arc;

use kaleem_core::config::settings::StrategyName;
use kaleem_core::engine::Ending;
use kaleem_core::outcome::Outcome;
use kaleem_core::plan::Step;
use kaleem_core::runtime::{ContainerFile, ExecOutput, Inside, Process, Socket, SocketState};
use kaleem_core::testing::{Behaviour, ExecReply, FakeOperation, FakeView};

use crate::world::{ServiceExt, World, container, lasting, project, service, setting};

/// An nginx that runs with a file of its own, as it is seen from outside.
pub(super) fn nginx(configuration: &str, connected_to: Option<&str>) -> FakeView {
    let title = "nginx: master process nginx -c /etc/nginx/own.conf".to_owned();
    let socket = |address: &str| Socket {
        local: "192.168.0.2:40000".parse().unwrap(),
        remote: format!("{address}:3000").parse().unwrap(),
        state: SocketState::Established,
    };
    FakeView {
        inside: Inside {
            processes: vec![Process { pid: 7, words: vec![title] }],
            sockets: Some(connected_to.map(socket).into_iter().collect()),
        },
        files: [
            ("/etc/nginx/own.conf".to_owned(), ContainerFile::Text(configuration.to_owned())),
            ("/etc/nginx/nginx.conf".to_owned(), ContainerFile::Text("that is not what it runs with".to_owned())),
        ]
        .into(),
        mounted: Default::default(),
    }
}

#[tokio::test]
async fn an_nginx_is_read_with_its_own_file_and_one_that_is_connected_is_reloaded_whatever_that_shows() {
    let names_it = "resolver 127.0.0.11; map $host $to { default http://api:3000; } server { proxy_pass $to; }";
    let hides_it = "server { proxy_pass http://127.0.0.1:9000; }";
    for (why, configuration, connected, reloads) in
        [("named", names_it, false, 2), ("hidden, and connected", hides_it, true, 2), ("neither", hides_it, false, 0)]
    {
        let world = World::with_gateways();
        for (image, behaviour) in [("registry.example/app:v1", Behaviour::Healthy), ("registry.example/app:v2", Behaviour::Healthy)] {
            world.push(image, behaviour);
        }
        world.push("nginx:1", Behaviour::Healthy);
        let of = |tag: &str| {
            let api = service("api", &format!("registry.example/app:{tag}")).publishing(8080, 3000);
            project(vec![api, service("web", "nginx:1")])
        };
        let before = setting(of("v1"), "api", |settings| {
            settings.strategy = Some(StrategyName::Recreate);
            settings.hold = lasting("0s");
        });
        assert!(matches!(world.deploy(&before).await.unwrap(), Ending::Over(Outcome::Deployed { .. })), "{why}");
        let api = world.runtime.snapshot().containers[&container("shop-api-r1-1")].instance.addresses.values().next().unwrap().clone();
        let view = nginx(configuration, connected.then_some(&api));
        world.runtime.on_peek(Arc::new(move |container| container.as_str().contains("-web-").then(|| view.clone())));
        world.runtime.on_exec(Arc::new(move |container, command| {
            let command: Vec<&str> = command.iter().map(String::as_str).collect();
            let (exit_code, output) = match command.as_slice() {
                _ if !container.as_str().contains("-web-") => return None,
                ["nginx", "-t", "-c", "/etc/nginx/own.conf"] => (0, ""),
                _ => (1, "that is not what it runs with"),
            };
            Some(ExecReply::Ends(ExecOutput { exit_code, output: output.to_owned() }))
        }));
        let asked = world.runtime.calls().len();
        let work = world.kaleem.work(&world.project()).await.unwrap();
        let planned = world.kaleem.deploy_plan(&work, &of("v2"), &std::collections::BTreeMap::new()).await.unwrap();
        let ran: Vec<_> = world.runtime.calls().into_iter().skip(asked).collect();
        assert!(ran.is_empty(), "{why}: a plan that is only looked at ran {ran:?}");
        let found = planned.plan.steps.iter().filter(|step| matches!(step, Step::Reload { .. })).count();
        assert_eq!(found, reloads, "{why}: {:?}", planned.plan.steps.iter().map(ToString::to_string).collect::<Vec<_>>());
        let ending = world.kaleem.start(work, &planned).unwrap().finish().await.unwrap();
        assert!(matches!(ending, Ending::Over(Outcome::Deployed { .. })), "{why}: {ending:?}");
    }
}

#[tokio::test]
async fn a_container_is_looked_at_once_however_many_services_move_and_no_file_comes_out_of_one_of_others() {
    let world = World::with_gateways();
    let pinned = world.push("nginx:1", Behaviour::Healthy);
    for image in ["app:1", "redis:7"] {
        world.push(image, Behaviour::Healthy);
    }
    let services = || (0..6).map(|number| service(&format!("s{number}"), "app:1").publishing(8080 + number, 3000));
    let all = project(services().chain([service("web", "nginx:1"), service("redis", "redis:7")]).collect());
    let apart = services().fold(all.clone(), |project, service| {
        setting(project, service.name.as_str(), |settings| {
            settings.strategy = Some(StrategyName::Recreate);
            settings.hold = lasting("0s");
        })
    });
    assert!(matches!(world.deploy(&apart).await.unwrap(), Ending::Over(Outcome::Deployed { .. })));
    let theirs = (&"theirs".parse().unwrap(), &"nginx".parse().unwrap());
    let definition = service("nginx", "nginx:1").definition;
    world.runtime.adopt_compose_container(theirs.0, theirs.1, 1, &pinned, definition).unwrap();
    let view = nginx("server { location /a { proxy_pass http://s1:3000; } location /b { proxy_pass http://s2:3000; } }", None);
    world.runtime.on_peek(Arc::new(move |container| container.as_str().contains("nginx").then(|| view.clone())));
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    world.runtime.before_call(Some(Arc::new(move |call| {
        seen.lock().unwrap().push(call.clone());
        None
    })));
    let work = world.kaleem.work(&world.project()).await.unwrap();
    world.kaleem.deploy_plan(&work, &all, &std::collections::BTreeMap::new()).await.unwrap();
    let asked = asked.lock().unwrap().clone();
    let of = |operation: FakeOperation| {
        asked.iter().filter(|call| call.operation == operation).map(|call| call.target.clone()).collect::<Vec<_>>()
    };
    assert_eq!(of(FakeOperation::Exec), Vec::<String>::new());
    assert_eq!(of(FakeOperation::Inside).len(), 1);
    assert!(of(FakeOperation::Files).len() <= 2, "{:?}", of(FakeOperation::Files));
    assert!(of(FakeOperation::Files).iter().all(|name| !name.starts_with("theirs")), "{:?}", of(FakeOperation::Files));
}

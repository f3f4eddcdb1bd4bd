//! Who kept the address of a service that gets its gateway: it is told in the plan, and reloaded where that helps.

use std::net::Ipv4Addr;
use std::sync::Arc;

use kaleem_core::config::settings::StrategyName;
use kaleem_core::engine::Ending;
use kaleem_core::outcome::Outcome;
use kaleem_core::plan::Step;
use kaleem_core::runtime::ExecOutput;
use kaleem_core::testing::{Behaviour, ExecReply};

use crate::world::{ServiceExt, World, container, lasting, project, service, setting};

/// The kernel's table of a container that is connected to `address`, as `/proc/net/tcp` has it.
fn connected_to(address: &str) -> String {
    let number = u32::from(address.parse::<Ipv4Addr>().unwrap()).swap_bytes();
    format!("  sl  local_address rem_address   st\n   0: 0200A8C0:9C40 {number:08X}:0BB8 01 00000000:00000000\n")
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
        let table = if connected { connected_to(&api) } else { String::new() };
        world.runtime.on_exec(Arc::new(move |container, command| {
            let command: Vec<&str> = command.iter().map(String::as_str).collect();
            let (exit_code, output) = match command.as_slice() {
                _ if !container.as_str().contains("-web-") => return None,
                ["cat", "/proc/1/cmdline"] => (0, "nginx: master process nginx -c /etc/own.conf"),
                ["cat", "/proc/net/tcp"] => (0, table.as_str()),
                ["nginx", "-T", "-c", "/etc/own.conf"] => (0, configuration),
                ["nginx", "-t", "-c", "/etc/own.conf"] => (0, ""),
                _ => (1, "that is not what it runs with"),
            };
            Some(ExecReply::Ends(ExecOutput { exit_code, output: output.to_owned() }))
        }));
        let work = world.kaleem.work(&world.project()).await.unwrap();
        let planned = world.kaleem.deploy_plan(&work, &of("v2"), &std::collections::BTreeMap::new()).await.unwrap();
        let found = planned.plan.steps.iter().filter(|step| matches!(step, Step::Reload { .. })).count();
        assert_eq!(found, reloads, "{why}: {:?}", planned.plan.steps.iter().map(ToString::to_string).collect::<Vec<_>>());
        let ending = world.kaleem.start(work, &planned).unwrap().finish().await.unwrap();
        assert!(matches!(ending, Ending::Over(Outcome::Deployed { .. })), "{why}: {ending:?}");
    }
}

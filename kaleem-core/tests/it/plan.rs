//! Golden plans: a scenario in, the plan as text out. A change of a snapshot is a change of behaviour.

use kaleem_core::config::DependencyCondition;
use std::collections::BTreeSet;

use kaleem_core::config::settings::{ServiceSettings, StrategyName};
use kaleem_core::plan::{Plan, Route, Severity, Step};
use kaleem_core::testing::Behaviour;

use crate::world::{ServiceExt, World, lasting, project, service, setting, strategy};

/// A plan as a person would want to review it; digests are left out, since they say nothing here.
fn text(plan: &Plan) -> String {
    let mut lines =
        vec![format!("{} {} -> {}", plan.kind, plan.previous.map_or_else(|| "nothing".to_owned(), |id| id.to_string()), plan.release.id)];
    for change in &plan.changes {
        let fields = if change.fields.is_empty() { String::new() } else { format!(" [{}]", change.fields.join(", ")) };
        lines.push(format!("  {:?} {} by {}{fields}: {}", change.kind, change.service, change.strategy, change.reason));
    }
    for objection in &plan.objections {
        lines.push(format!("  {:?} {}: {}", objection.severity, objection.rule, objection.message));
    }
    for (index, step) in plan.steps.iter().enumerate() {
        lines.push(format!("{index:2} {step}"));
    }
    let text = lines.join("\n");
    // `(0123456789ab)` is the digest of an image.
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some(start) = rest.find(" (") {
        let (before, after) = rest.split_at(start);
        out.push_str(before);
        let inside: String = after.chars().skip(2).take_while(|c| *c != ')').collect();
        let is_digest = inside.len() == 12 && inside.chars().all(|c| c.is_ascii_hexdigit());
        let skipped = if is_digest { inside.len() + 3 } else { 2 };
        if !is_digest {
            out.push_str(" (");
        }
        rest = &after[skipped..];
    }
    out + rest
}

fn world() -> World {
    let world = World::new();
    for tag in ["app:v1", "app:v2", "migrate:v1", "migrate:v2"] {
        let behaviour = if tag.starts_with("migrate") { Behaviour::CompletesWith(0) } else { Behaviour::Healthy };
        world.push(&format!("registry.example/{tag}"), behaviour);
    }
    world.push("redis:7", Behaviour::Healthy);
    world.push("redis:8", Behaviour::Healthy);
    world
}

fn shop(tag: &str) -> kaleem_core::config::Project {
    project(vec![
        service("api", &format!("registry.example/app:{tag}"))
            .publishing(8080, 3000)
            .after("redis", DependencyCondition::ServiceStarted)
            .after("migrate", DependencyCondition::ServiceCompletedSuccessfully),
        service("migrate", &format!("registry.example/migrate:{tag}")).after("redis", DependencyCondition::ServiceStarted),
        service("redis", "redis:7").storing("redis"),
        service("worker", &format!("registry.example/app:{tag}")).after("redis", DependencyCondition::ServiceHealthy),
    ])
}

#[tokio::test]
async fn a_first_deploy_makes_everything_in_the_order_of_dependencies() {
    let world = world();
    insta::assert_snapshot!(text(&world.plan(&shop("v1")).await.plan));
}

#[tokio::test]
async fn a_new_tag_replaces_the_app_and_leaves_the_store_alone() {
    let world = world();
    world.deploy(&shop("v1")).await.unwrap();
    insta::assert_snapshot!(text(&world.plan(&shop("v2")).await.plan));
}

#[tokio::test]
async fn the_same_again_is_nothing_to_do() {
    let world = world();
    world.deploy(&shop("v1")).await.unwrap();
    assert!(world.plan(&shop("v1")).await.plan.is_empty());
}

#[tokio::test]
async fn going_back_starts_what_was_kept_and_runs_no_migration() {
    let world = world();
    world.deploy(&shop("v1")).await.unwrap();
    world.deploy(&shop("v2")).await.unwrap();
    let planned = world.kaleem.plan_rollback(&world.project(), None).await.unwrap();
    insta::assert_snapshot!(text(&planned.plan));
}

#[tokio::test]
async fn a_changed_variable_is_named_without_its_value() {
    let world = world();
    let before = project(vec![service("worker", "registry.example/app:v1").env("DB_PASSWORD", "hunter2-old")]);
    let after = project(vec![service("worker", "registry.example/app:v1").env("DB_PASSWORD", "hunter2-new").env("LEVEL", "debug")]);
    world.deploy(&before).await.unwrap();
    let plan = world.plan(&after).await.plan;
    insta::assert_snapshot!(text(&plan));
    let kept = serde_json::to_string(&plan).unwrap();
    assert!(!kept.contains("hunter2"), "a plan holds no value of the environment");
}

#[tokio::test]
async fn a_fixed_container_name_is_handed_over() {
    let world = world();
    let named = |tag: &str| project(vec![service("api", &format!("registry.example/app:{tag}")).publishing(8080, 3000).named("shop-api")]);
    world.deploy(&named("v1")).await.unwrap();
    assert_eq!(world.running(), ["shop-api"]);
    insta::assert_snapshot!(text(&world.plan(&named("v2")).await.plan));
}

#[tokio::test]
async fn replicas_are_replaced_one_by_one_and_surplus_ones_stop() {
    let world = world();
    let replicas = |tag: &str, count| project(vec![service("worker", &format!("registry.example/app:{tag}")).times(count)]);
    let recreate = |project| strategy(project, "worker", StrategyName::Recreate);
    world.deploy(&recreate(replicas("v1", 3))).await.unwrap();
    insta::assert_snapshot!("three_to_three", text(&world.plan(&recreate(replicas("v2", 3))).await.plan));
    insta::assert_snapshot!("three_to_one", text(&world.plan(&recreate(replicas("v1", 1))).await.plan));
}

/// Three of a service behind a gateway, with what `kaleem.toml` says.
async fn turns(replicas: (u32, u32), set: fn(&mut ServiceSettings)) -> String {
    let world = World::with_gateways();
    for tag in ["v1", "v2"] {
        world.push(&format!("registry.example/app:{tag}"), Behaviour::Healthy);
    }
    let shop = |tag: &str, count| {
        let api = service("api", &format!("registry.example/app:{tag}")).publishing(8080, 3000).times(count);
        setting(project(vec![api]), "api", set)
    };
    world.deploy(&shop("v1", replicas.0)).await.unwrap();
    text(&world.plan(&shop("v2", replicas.1)).await.plan)
}

#[tokio::test]
async fn replicas_behind_a_gateway_take_turns() {
    insta::assert_snapshot!("rolling_one_by_one", turns((3, 3), |_| {}).await);
    insta::assert_snapshot!("rolling_two_at_a_time", turns((3, 3), |settings| settings.batch = Some(2)).await);
    let fewer = |settings: &mut ServiceSettings| settings.max_unavailable = Some(1);
    insta::assert_snapshot!("rolling_with_one_less", turns((3, 3), fewer).await);
    insta::assert_snapshot!("rolling_from_three_to_two", turns((3, 2), |_| {}).await);
}

#[tokio::test]
async fn what_must_not_run_twice_is_recreated_behind_a_gateway_that_holds() {
    let single = |settings: &mut ServiceSettings| settings.singleton = Some(true);
    insta::assert_snapshot!("recreate_with_requests_held", turns((1, 1), single).await);
    let without = |settings: &mut ServiceSettings| {
        settings.singleton = Some(true);
        settings.hold = lasting("0s");
    };
    insta::assert_snapshot!("recreate_without_a_gateway", turns((1, 1), without).await);
}

/// At no step do more run than may, or fewer serve than must, on the way there and, since undos go the same way, back.
#[tokio::test]
async fn turns_keep_within_their_limits_whatever_the_numbers_are() {
    for (before, after, batch, surge, unavailable) in limits() {
        let world = World::with_gateways();
        for tag in ["v1", "v2"] {
            world.push(&format!("registry.example/app:{tag}"), Behaviour::Healthy);
        }
        let shop = |tag: &str, count| {
            let api = service("api", &format!("registry.example/app:{tag}")).publishing(8080, 3000).times(count);
            setting(project(vec![api]), "api", |settings| {
                settings.strategy = Some(StrategyName::Rolling);
                (settings.batch, settings.max_surge, settings.max_unavailable) = (Some(batch), Some(surge), Some(unavailable));
            })
        };
        world.deploy(&shop("v1", before)).await.unwrap();
        let plan = world.plan(&shop("v2", after)).await.plan;
        let place = format!("{before} to {after}, batch {batch}, surge {surge}, unavailable {unavailable}");
        let mut up: BTreeSet<String> = (1..=before).map(|number| format!("shop-api-r1-{number}")).collect();
        let mut routed = up.clone();
        let most = before.max(after) + surge;
        for step in &plan.steps {
            match step {
                Step::Start { container, .. } => assert!(up.insert(container.to_string()), "{place}: {step}"),
                Step::Stop { container, .. } => {
                    assert!(!routed.contains(container.as_str()), "{place}: {step}, which serves");
                    assert!(up.remove(container.as_str()), "{place}: {step}");
                }
                Step::Steer { to, from, .. } => {
                    let names = |routes: &[Route]| routes.iter().map(|route| route.container.to_string()).collect::<BTreeSet<_>>();
                    assert_eq!(names(from), routed, "{place}: going back from `{step}` leads elsewhere");
                    routed = names(to);
                    assert!(routed.is_subset(&up), "{place}: {step}, and one does not run");
                }
                _ => {}
            }
            assert!(up.len() <= most as usize, "{place}: {} run after `{step}`", up.len());
            let least = before.min(after).saturating_sub(unavailable);
            assert!(routed.len() >= least as usize, "{place}: {} serve after `{step}`", routed.len());
        }
        let wanted: BTreeSet<String> = (1..=after).map(|number| format!("shop-api-r2-{number}")).collect();
        assert_eq!((&up, &routed), (&wanted, &wanted), "{place}");
    }
}

/// Numbers before and after, batch, surge and unavailable, all small ones that may be said.
fn limits() -> Vec<(u32, u32, u32, u32, u32)> {
    let mut all = Vec::new();
    for (before, after) in [(1, 1), (2, 2), (3, 3), (5, 5), (4, 2), (2, 4)] {
        for batch in 1..=3 {
            for (surge, unavailable) in [(0, 1), (0, 2), (1, 0), (1, 1), (2, 0), (5, 0)] {
                all.push((before, after, batch, surge, unavailable));
            }
        }
    }
    all
}

#[tokio::test]
async fn a_service_that_left_the_file_is_stopped_last() {
    let world = world();
    world.deploy(&shop("v1")).await.unwrap();
    let mut smaller = shop("v1");
    smaller.services.remove(&crate::world::service_name("worker"));
    insta::assert_snapshot!(text(&world.plan(&smaller).await.plan));
}

#[tokio::test]
async fn what_cannot_work_is_refused_with_a_remedy() {
    let world = world();
    let mut stranger_port = project(vec![service("api", "registry.example/app:v1").publishing(8080, 3000)]);
    world.runtime.add_stranger(&crate::world::container("somebody"), &[8080]);
    let taken = world.plan(&stranger_port).await.plan;
    stranger_port.networks.values_mut().for_each(|network| network.external = true);
    let mut cases = vec![
        ("a port of a stranger", taken, "port-taken"),
        ("an external network that is missing", world.plan(&stranger_port).await.plan, "external-network-missing"),
    ];
    let twice = project(vec![
        service("a", "registry.example/app:v1").publishing(9090, 1),
        service("b", "registry.example/app:v1").publishing(9090, 2),
    ]);
    cases.push(("one port of two services", world.plan(&twice).await.plan, "port-twice"));
    let overlap = strategy(project(vec![service("api", "registry.example/app:v1").publishing(9091, 1)]), "api", StrategyName::Overlap);
    cases.push(("overlap with a fixed port", world.plan(&overlap).await.plan, "overlap-with-ports"));
    world.runtime.add_stranger(&crate::world::container("shop-api"), &[]);
    let name = project(vec![service("api", "registry.example/app:v1").named("shop-api")]);
    cases.push(("a container name of a stranger", world.plan(&name).await.plan, "name-taken"));
    for (why, plan, rule) in cases {
        let refusals: Vec<_> = plan.refusals().collect();
        assert!(refusals.iter().any(|objection| objection.rule == rule), "{why}: {refusals:?}");
        assert!(refusals.iter().all(|objection| !objection.remedy.is_empty() && objection.severity == Severity::Refuse), "{why}");
    }
}

//! One plan at a time: good, bad, stopped by a person, stuck.

use kaleem_core::config::DependencyCondition;
use kaleem_core::engine::{Ending, Notice};
use kaleem_core::kaleem::KaleemError;
use kaleem_core::names::ReleaseId;
use kaleem_core::outcome::{Outcome, Resolution};
use kaleem_core::runtime::RuntimeError;
use kaleem_core::testing::{Behaviour, FakeOperation};

use crate::world::{ServiceExt, World, container, project, service};

fn r(number: u64) -> ReleaseId {
    ReleaseId::new(number)
}

fn app(tag: &str) -> kaleem_core::config::Project {
    project(vec![service("api", &format!("registry.example/app:{tag}")).publishing(8080, 3000)])
}

fn refused() -> RuntimeError {
    RuntimeError::Refused { operation: "do it".to_owned(), status: 409, message: "no".to_owned() }
}

#[tokio::test]
async fn a_good_deploy_serves_the_new_and_keeps_the_old_stopped() {
    let world = World::new();
    world.push("registry.example/app:v1", Behaviour::Healthy);
    world.push("registry.example/app:v2", Behaviour::HealthyAfter(3));
    assert_eq!(world.deploy(&app("v1")).await.unwrap(), Ending::Over(Outcome::Deployed { release: r(1), leftovers: vec![] }));
    assert_eq!(world.deploy(&app("v2")).await.unwrap(), Ending::Over(Outcome::Deployed { release: r(2), leftovers: vec![] }));
    assert_eq!(world.containers(), ["shop-api-r1-1 exited", "shop-api-r2-1 running"]);
    assert_eq!(world.serving(), Some(r(2)));
    let tags = world.runtime.snapshot().tags;
    assert!(tags.contains_key("kaleem.invalid/shop/api:r1") && tags.contains_key("kaleem.invalid/shop/api:r2"), "{tags:?}");
}

#[tokio::test]
async fn a_bad_release_is_taken_back_and_the_error_says_why() {
    let cases = [
        ("exits at once", Behaviour::ExitsAtOnce { code: 3, log: "cannot open config".to_owned() }, "crashed with exit code 3"),
        ("is killed for memory", Behaviour::OomKilled, "more memory than it may"),
        ("never gets healthy", Behaviour::NeverHealthy, "unhealthy"),
        ("crashes while it is watched", Behaviour::CrashesAfter(1), "crashed with exit code 1"),
    ];
    for (why, behaviour, message) in cases {
        let world = World::new();
        world.push("registry.example/app:v1", Behaviour::Healthy);
        // Its own check passes once and ends the wait; a port must answer twice.
        let own_check = behaviour != Behaviour::CrashesAfter(1);
        world.push_with("registry.example/app:v2", behaviour.clone(), |image| if own_check { image.with_healthcheck() } else { image });
        world.deploy(&app("v1")).await.unwrap();
        let ending = world.deploy(&app("v2")).await.unwrap();
        let Ending::Over(Outcome::RolledBack { error, serving, .. }) = ending else { panic!("{why}: {ending:?}") };
        assert!(error.contains(message), "{why}: {error}");
        assert_eq!(serving, Some(r(1)), "{why}");
        assert_eq!(world.containers(), ["shop-api-r1-1 running"], "{why}: nothing of the bad release is left");
        assert!(!world.runtime.snapshot().tags.contains_key("kaleem.invalid/shop/api:r2"), "{why}");
        if let Behaviour::ExitsAtOnce { log, .. } = behaviour {
            assert!(error.contains(&log), "{why}: the error shows its last lines: {error}");
        }
    }
}

#[tokio::test]
async fn several_services_change_in_one_plan_and_go_back_together() {
    let world = World::new();
    for tag in ["a:v1", "b:v1", "c:v1", "a:v2", "b:v2"] {
        world.push(&format!("registry.example/{tag}"), Behaviour::Healthy);
    }
    world.push("registry.example/c:v2", Behaviour::ExitsAtOnce { code: 1, log: String::new() });
    let three = |tag: &str| {
        project(vec![
            service("a", &format!("registry.example/a:{tag}")).publishing(1001, 1),
            service("b", &format!("registry.example/b:{tag}")).after("a", DependencyCondition::ServiceStarted),
            service("c", &format!("registry.example/c:{tag}")).publishing(1003, 1).after("b", DependencyCondition::ServiceStarted),
        ])
    };
    world.deploy(&three("v1")).await.unwrap();
    let ending = world.deploy(&three("v2")).await.unwrap();
    assert!(matches!(ending, Ending::Over(Outcome::RolledBack { .. })), "{ending:?}");
    assert_eq!(world.containers(), ["shop-a-r1-1 running", "shop-b-r1-1 running", "shop-c-r1-1 running"]);
}

#[tokio::test]
async fn a_failed_migration_stops_the_deploy_before_anything_is_replaced() {
    let world = World::new();
    world.push("registry.example/app:v1", Behaviour::Healthy);
    world.push("registry.example/app:v2", Behaviour::Healthy);
    world.push("registry.example/migrate:v1", Behaviour::CompletesWith(0));
    world.push("registry.example/migrate:v2", Behaviour::CompletesWith(7));
    let with = |tag: &str| {
        project(vec![
            service("api", &format!("registry.example/app:{tag}"))
                .publishing(1, 1)
                .after("migrate", DependencyCondition::ServiceCompletedSuccessfully),
            service("migrate", &format!("registry.example/migrate:{tag}")),
        ])
    };
    world.deploy(&with("v1")).await.unwrap();
    world.runtime.forget_calls();
    let ending = world.deploy(&with("v2")).await.unwrap();
    let Ending::Over(Outcome::RolledBack { error, .. }) = ending else { panic!("{ending:?}") };
    assert!(error.contains("exit code 7"), "{error}");
    let touched = world.runtime.calls().iter().any(|call| call.operation == FakeOperation::Stop && call.target == "shop-api-r1-1");
    assert!(!touched, "the old api was never stopped");
}

#[tokio::test]
async fn going_back_is_fast_and_uses_the_container_that_was_kept() {
    let world = World::new();
    world.push("registry.example/app:v1", Behaviour::Healthy);
    world.push("registry.example/app:v2", Behaviour::Healthy);
    world.deploy(&app("v1")).await.unwrap();
    world.deploy(&app("v2")).await.unwrap();
    world.runtime.forget_calls();
    assert_eq!(world.rollback(None).await.unwrap(), Ending::Over(Outcome::Deployed { release: r(1), leftovers: vec![] }));
    assert_eq!(world.serving(), Some(r(1)));
    assert_eq!(world.containers(), ["shop-api-r1-1 running", "shop-api-r2-1 exited"]);
    let made = world.runtime.calls().iter().filter(|call| call.operation == FakeOperation::Create).count();
    assert_eq!(made, 0, "nothing is made anew");
    assert!(matches!(world.rollback(None).await, Err(KaleemError::NoSuchRelease { .. })), "there is nothing older");
    world.rollback(Some(r(2))).await.unwrap();
    assert_eq!(world.serving(), Some(r(2)), "a release can be named");
}

#[tokio::test]
async fn only_so_many_releases_are_kept() {
    let world = World::new();
    for number in 1..=8 {
        world.push(&format!("registry.example/app:v{number}"), Behaviour::Healthy);
        let mut project = app(&format!("v{number}"));
        project.settings.keep = Some(3);
        world.deploy(&project).await.unwrap();
    }
    assert_eq!(world.containers(), ["shop-api-r6-1 exited", "shop-api-r7-1 exited", "shop-api-r8-1 running"]);
    let tags: Vec<_> = world.runtime.snapshot().tags.into_keys().filter(|tag| tag.starts_with("kaleem.invalid/")).collect();
    assert_eq!(tags, ["kaleem.invalid/shop/api:r6", "kaleem.invalid/shop/api:r7", "kaleem.invalid/shop/api:r8"]);
}

#[tokio::test]
async fn an_abort_goes_back_and_says_who_asked() {
    let world = World::new();
    world.push("registry.example/app:v1", Behaviour::Healthy);
    world.push("registry.example/app:v2", Behaviour::HealthyAfter(400));
    world.deploy(&app("v1")).await.unwrap();
    let work = world.kaleem.work(&world.project()).await.unwrap();
    let planned = world.kaleem.deploy_plan(&work, &app("v2"), &std::collections::BTreeMap::new()).await.unwrap();
    let mut run = world.kaleem.start(work, &planned).unwrap();
    while let Some(notice) = run.notices.recv().await {
        if matches!(notice, Notice::Waiting { .. } | Notice::Started { step: 3, .. }) {
            run.control.abort();
        }
    }
    let ending = run.finish().await.unwrap();
    assert_eq!(ending, Ending::Over(Outcome::Aborted { by: "the operator".to_owned(), serving: Some(r(1)) }));
    assert_eq!(world.containers(), ["shop-api-r1-1 running"]);
}

#[tokio::test]
async fn leaving_keeps_the_journal_open_and_resume_goes_on() {
    let world = World::new();
    world.push("registry.example/app:v1", Behaviour::Healthy);
    let work = world.kaleem.work(&world.project()).await.unwrap();
    let planned = world.kaleem.deploy_plan(&work, &app("v1"), &std::collections::BTreeMap::new()).await.unwrap();
    let run = world.kaleem.start(work, &planned).unwrap();
    run.control.leave();
    assert_eq!(run.finish().await.unwrap(), Ending::Left);
    assert!(matches!(world.deploy(&app("v1")).await, Err(KaleemError::Interrupted { .. })), "an open plan is not passed over");
    assert_eq!(world.resume().await.unwrap(), Ending::Over(Outcome::Deployed { release: r(1), leftovers: vec![] }));
}

#[tokio::test]
async fn an_undo_that_fails_is_stuck_until_it_is_resumed_or_settled() {
    for way in ["resume", "old", "new"] {
        let world = World::new();
        world.push("registry.example/app:v1", Behaviour::Healthy);
        world.push("registry.example/app:v2", Behaviour::ExitsAtOnce { code: 1, log: String::new() });
        world.deploy(&app("v1")).await.unwrap();
        // The start of the new one, then that of the old one.
        let calls = std::sync::atomic::AtomicUsize::new(0);
        let fails = move |call: &kaleem_core::testing::FakeCall| {
            let old = call.operation == FakeOperation::Start && call.target == "shop-api-r1-1";
            (old && calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 1).then(refused)
        };
        world.runtime.before_call(Some(std::sync::Arc::new(fails)));
        let ending = world.deploy(&app("v2")).await.unwrap();
        let Ending::Stuck { commands, error, .. } = ending else { panic!("{ending:?}") };
        assert!(commands.iter().any(|command| command == "docker start shop-api-r1-1"), "{commands:?}");
        assert!(error.contains("refused"), "{error}");
        let status = world.kaleem.status(&world.project()).await.unwrap();
        assert!(matches!(status.open.unwrap().next, kaleem_core::journal::Next::Stuck { .. }));
        match way {
            "resume" => {
                let ending = world.resume().await.unwrap();
                assert!(matches!(ending, Ending::Over(Outcome::RolledBack { serving: Some(_), .. })), "{ending:?}");
                assert_eq!(world.containers(), ["shop-api-r1-1 running"]);
            }
            other => {
                let (resolution, serving) = if other == "old" { (Resolution::Old, r(1)) } else { (Resolution::New, r(2)) };
                let work = world.kaleem.work(&world.project()).await.unwrap();
                assert_eq!(world.kaleem.resolve(&work, "root", resolution).unwrap(), Some(serving), "{other}");
                assert_eq!(world.serving(), Some(serving), "{other}");
            }
        }
    }
}

#[tokio::test]
async fn one_at_a_time_works_on_a_project() {
    let world = World::new();
    world.push("registry.example/app:v1", Behaviour::Healthy);
    let work = world.kaleem.work(&world.project()).await.unwrap();
    let second = world.kaleem.work(&world.project()).await;
    assert!(matches!(second, Err(KaleemError::Lease { .. })), "{second:?}");
    drop(work);
    world.kaleem.work(&world.project()).await.unwrap();
}

#[tokio::test]
async fn a_container_removed_by_hand_is_made_again_when_the_plan_goes_back() {
    let world = World::new();
    world.push("registry.example/app:v1", Behaviour::Healthy);
    world.push("registry.example/app:v2", Behaviour::ExitsAtOnce { code: 1, log: String::new() });
    world.deploy(&app("v1")).await.unwrap();
    let runtime = world.runtime.clone();
    let meddler = move |call: &kaleem_core::testing::FakeCall| {
        if call.operation == FakeOperation::Start && call.target == "shop-api-r2-1" {
            runtime.remove_by_hand(&container("shop-api-r1-1"));
        }
        None
    };
    world.runtime.before_call(Some(std::sync::Arc::new(meddler)));
    let ending = world.deploy(&app("v2")).await.unwrap();
    assert!(matches!(ending, Ending::Over(Outcome::RolledBack { .. })), "{ending:?}");
    assert_eq!(world.running(), ["shop-api-r1-1"]);
}

#[tokio::test]
async fn an_engine_that_comes_back_is_waited_for() {
    let world = World::new();
    world.push("registry.example/app:v1", Behaviour::Healthy);
    let away = || RuntimeError::Unreachable { endpoint: "unix:///var/run/docker.sock".to_owned(), source: "connection refused".into() };
    world.runtime.fail_next(FakeOperation::Start, 20, away);
    let (ending, notices) = world.deploy_and_listen(&app("v1")).await;
    assert!(matches!(ending, Ending::Over(Outcome::Deployed { .. })), "{ending:?}");
    assert_eq!(notices.iter().filter(|notice| matches!(notice, Notice::Retrying { .. })).count(), 20);
}

#[tokio::test]
async fn a_registry_that_is_down_does_not_stop_what_serves_from_being_planned() {
    let world = World::new();
    world.push("registry.example/app:v1", Behaviour::Healthy);
    world.deploy(&app("v1")).await.unwrap();
    world.registry.set_outage("registry.example", Some(kaleem_core::testing::FakeOutage::Unreachable));
    let planned = world.plan(&app("v1")).await;
    assert!(planned.plan.is_empty(), "it is what serves");
    assert!(planned.notes.values().all(|note| note.starts_with("keeping the image that serves")), "{:?}", planned.notes);
    let error = world.kaleem.plan_deploy(&app("v2"), &std::collections::BTreeMap::new()).await.unwrap_err();
    assert!(matches!(error, KaleemError::Observe { .. }), "another tag cannot be guessed: {error}");
}

#[tokio::test]
async fn what_others_did_to_a_half_made_release_does_not_stop_it_from_being_taken_back() {
    type Meddle = fn(&World);
    let cases: [(&str, Meddle); 3] = [
        ("somebody joined its network", |world| {
            world.runtime.fail_next(FakeOperation::RemoveNetwork, 1, || RuntimeError::InUse { name: "shop_default".to_owned() });
        }),
        ("its container was removed", |world| world.runtime.remove_by_hand(&container("shop-api-r1-1"))),
        ("its container was killed", |world| world.runtime.kill_by_hand(&container("shop-api-r1-1"))),
    ];
    for (why, meddle) in cases {
        let world = World::new();
        world.push_with("registry.example/app:v1", Behaviour::NeverHealthy, |image| image.with_healthcheck());
        let shared = world.again();
        let done = std::sync::atomic::AtomicBool::new(false);
        world.runtime.before_call(Some(std::sync::Arc::new(move |call: &kaleem_core::testing::FakeCall| {
            let polled = call.operation == FakeOperation::Inspect && call.target == "shop-api-r1-1";
            if polled && shared.running() == ["shop-api-r1-1"] && !done.swap(true, std::sync::atomic::Ordering::SeqCst) {
                meddle(&shared);
            }
            None
        })));
        let ending = world.deploy(&app("v1")).await.unwrap();
        assert!(matches!(ending, Ending::Over(Outcome::RolledBack { serving: None, .. })), "{why}: {ending:?}");
        assert!(world.containers().is_empty(), "{why}: {:?}", world.containers());
    }
}

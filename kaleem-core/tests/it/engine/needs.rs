//! What a service needs is asked before it is replaced: a failure names it, and what could not be asked is no failure.

use std::sync::Arc;

use kaleem_core::config::settings::ServiceSettings;
use kaleem_core::config::{DependencyCondition, Project};
use kaleem_core::engine::{Ending, Notice};
use kaleem_core::health::{Finding, Verdict};
use kaleem_core::names::ReleaseId;
use kaleem_core::outcome::Outcome;
use kaleem_core::plan::Step;
use kaleem_core::testing::{Behaviour, FakeNeeds};

use crate::world::{ServiceExt, World, project, service, service_name};

fn well() -> Finding {
    Finding::new(Verdict::Ok, "redis 7 answers")
}

fn full() -> Finding {
    Finding::new(Verdict::Fail, "its memory is full: it refuses writes").with_remedy("raise `maxmemory`")
}

fn denied() -> Finding {
    Finding::new(Verdict::Unknown, "the user may not ask").with_remedy("grant it")
}

/// An app that waits until its Redis is healthy.
fn app(tag: &str) -> Project {
    let api = service("api", &format!("registry.example/app:{tag}")).publishing(8080, 3000);
    project(vec![api.after("redis", DependencyCondition::ServiceHealthy), service("redis", "redis:7").storing("redis")])
}

fn needing(tag: &str, needs: &[&str]) -> Project {
    let mut project = app(tag);
    let needs = Some(needs.iter().map(|need| (*need).to_owned()).collect());
    project.settings.services.insert(service_name("api"), ServiceSettings { needs, ..ServiceSettings::default() });
    project
}

/// A world in which release 1 serves; the answers are those that the second deploy gets.
async fn world(answers: Vec<Finding>) -> World {
    let world = World::with_probes(Arc::new(FakeNeeds::new(std::iter::once(well()).chain(answers))));
    for image in ["registry.example/app:v1", "registry.example/app:v2", "redis:7"] {
        world.push(image, Behaviour::Healthy);
    }
    let ending = world.deploy(&app("v1")).await.unwrap();
    assert!(matches!(ending, Ending::Over(Outcome::Deployed { .. })), "{ending:?}");
    world
}

fn evidence(notices: &[Notice], plan_step: usize) -> String {
    let done = notices.iter().find_map(|notice| match notice {
        Notice::Done { step, evidence } if *step == plan_step => Some(evidence.seen.clone()),
        _ => None,
    });
    done.unwrap_or_default()
}

fn place(world_plan: &kaleem_core::plan::Plan) -> Option<usize> {
    world_plan.steps.iter().position(|step| matches!(step, Step::Needs { .. }))
}

#[tokio::test]
async fn what_is_well_or_comes_back_lets_the_deploy_go_on() {
    for (why, project, answers, seen) in [
        ("well", app("v2"), vec![well()], "redis is well: redis 7 answers"),
        ("comes back", app("v2"), vec![full(), full(), well()], "redis is well"),
        ("cannot be asked, and need not", app("v2"), vec![denied()], "redis could not be asked: the user may not ask"),
        ("is asked by name", needing("v2", &["redis/redis"]), vec![well()], "redis/redis is well"),
        ("can be asked at last", needing("v2", &["redis"]), vec![denied(), well()], "redis is well"),
    ] {
        let world = world(answers).await;
        let step = place(&world.plan(&project).await.plan).expect(why);
        let (ending, notices) = world.deploy_and_listen(&project).await;
        assert_eq!(ending, Ending::Over(Outcome::Deployed { release: ReleaseId::new(2), leftovers: vec![] }), "{why}");
        let said = evidence(&notices, step);
        assert!(said.contains(seen), "{why}: {said}");
    }
}

#[tokio::test]
async fn what_stays_ill_is_named_and_the_old_release_was_never_stopped() {
    for (why, project, answer, reason) in [
        ("ill", app("v2"), full(), "redis is not well: its memory is full"),
        ("must be known", needing("v2", &["redis/redis"]), denied(), "redis/redis could not be asked: the user may not ask"),
    ] {
        let world = world(vec![answer]).await;
        let runs = |world: &World| world.runtime.snapshot().containers.values().map(|found| found.runs).collect::<Vec<_>>();
        let before = runs(&world);
        let (ending, notices) = world.deploy_and_listen(&project).await;
        let Ending::Over(Outcome::RolledBack { error, serving, .. }) = ending else { panic!("{why}: {ending:?}") };
        assert!(error.contains("what `api` needs was not well") && error.contains(reason), "{why}: {error}");
        assert_eq!((serving, runs(&world)), (Some(ReleaseId::new(1)), before), "{why}: nobody was started again");
        let waits = notices.iter().filter(|notice| matches!(notice, Notice::WaitingForNeed { reason: said, .. } if said.contains(reason)));
        assert!(waits.count() > 1, "{why}: it is said while it waits");
    }
}

#[tokio::test]
async fn nothing_is_asked_where_that_is_said_and_going_back_is_never_held_up() {
    let world = world(vec![well(), full()]).await;
    assert_eq!(place(&world.plan(&needing("v2", &[])).await.plan), None, "`needs = []`");
    world.deploy(&app("v2")).await.unwrap();
    let back = world.kaleem.plan_rollback(&world.project(), None).await.unwrap();
    assert_eq!(place(&back.plan), None, "going back");
    let ending = world.rollback(None).await.unwrap();
    assert!(matches!(ending, Ending::Over(Outcome::Deployed { .. })), "{ending:?}");
}

#[tokio::test]
async fn a_wait_for_what_is_needed_is_cut_short_by_a_person() {
    let world = world(vec![full()]).await;
    let work = world.kaleem.work(&world.project()).await.unwrap();
    let planned = world.kaleem.deploy_plan(&work, &app("v2"), &std::collections::BTreeMap::new()).await.unwrap();
    let mut run = world.kaleem.start(work, &planned).unwrap();
    while let Some(notice) = run.notices.recv().await {
        if matches!(notice, Notice::WaitingForNeed { .. }) {
            run.control.abort();
        }
    }
    let ending = run.finish().await.unwrap();
    assert!(matches!(ending, Ending::Over(Outcome::Aborted { serving: Some(_), .. })), "{ending:?}");
}

#[tokio::test]
async fn what_is_needed_comes_first_even_where_the_file_does_not_say_so() {
    let mut project =
        project(vec![service("api", "registry.example/app:v1").publishing(8080, 3000), service("redis", "redis:7").storing("redis")]);
    let settings = ServiceSettings { needs: Some(vec!["redis".to_owned()]), ..ServiceSettings::default() };
    project.settings.services.insert(service_name("api"), settings);
    let world = World::with_probes(Arc::new(FakeNeeds::new([well()])));
    world.push("registry.example/app:v1", Behaviour::Healthy);
    world.push("redis:7", Behaviour::Healthy);
    let plan = world.plan(&project).await.plan;
    let start = |service: &str| {
        plan.steps.iter().position(|step| matches!(step, Step::Start { .. }) && step.service().is_some_and(|s| s.as_str() == service))
    };
    assert!(start("redis") < place(&plan) && place(&plan) < start("api"), "{:?}", plan.steps);
    let json = serde_json::to_string(&plan).unwrap();
    assert!(!json.contains("redis://"), "a plan holds names, not addresses: {json}");
}

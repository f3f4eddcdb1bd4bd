//! What a service is decides how it is replaced, and when it counts as healthy.

use std::sync::{Arc, Mutex};

use kaleem_core::definition::{Mount, MountSource, RestartPolicy};
use kaleem_core::engine::Ending;
use kaleem_core::outcome::Outcome;
use kaleem_core::release::Strategy;
use kaleem_core::runtime::ExecOutput;
use kaleem_core::testing::{Behaviour, CHECK, ExecReply, FakeImage};

use super::repairs::faults;
use crate::world::{ServiceExt, World, container, project, service, service_name, setting};

fn is_deployed(ending: &Ending) -> bool {
    matches!(ending, Ending::Over(Outcome::Deployed { .. }))
}

#[tokio::test]
async fn a_service_that_ends_with_0_and_that_nobody_waits_for_did_its_work_once() {
    for (why, code, restart, good) in [
        ("its end is wanted", 0, RestartPolicy::No, true),
        ("its end is wanted", 0, RestartPolicy::OnFailure(3), true),
        ("it failed", 3, RestartPolicy::No, false),
        ("it is to run for ever", 0, RestartPolicy::UnlessStopped, false),
    ] {
        let world = World::new();
        world.push("tools:1", Behaviour::CompletesWith(code));
        world.push("app:1", Behaviour::Healthy);
        let mut once = service("buckets", "tools:1");
        once.definition.restart = restart;
        let project = project(vec![once, service("app", "app:1").publishing(8080, 3000)]);
        let ending = world.deploy(&project).await.unwrap();
        assert_eq!(is_deployed(&ending), good, "{why} ({restart:?}): {ending:?}");
        if good {
            let again = world.deploy(&project).await.unwrap();
            assert!(matches!(again, Ending::Left), "{why} ({restart:?}): it is not run again: {again:?}");
        }
    }
}

#[tokio::test]
async fn a_server_that_somebody_stopped_is_no_job_that_ended() {
    for (why, name, exposed, ended) in
        [("a job", "buckets", &[][..], true), ("a server", "web", &["3000/tcp"][..], false), ("a worker", "worker", &[][..], false)]
    {
        let world = World::new();
        world.push_with("app:1", Behaviour::Healthy, |image| image.exposing(exposed));
        let mut one = service(name, "app:1");
        one.definition.restart = RestartPolicy::No;
        let project = project(vec![one]);
        world.deploy(&project).await.unwrap();
        world.runtime.stop_by_hand(&container(&format!("shop-{name}-r1-1")));
        let found = faults(&world).await;
        assert_eq!(found.is_empty(), ended, "{why}: {found:?}");
        let again = world.deploy(&project).await.unwrap();
        assert_eq!(is_deployed(&again), !ended, "{why}: {again:?}");
        assert_eq!(faults(&world).await, [], "{why}");
        assert_eq!(world.running().len(), usize::from(!ended), "{why}");
    }
}

#[tokio::test]
async fn a_service_that_writes_to_a_directory_of_the_host_never_runs_twice_and_its_requests_are_held() {
    let world = World::with_gateways();
    world.push("notes:1", Behaviour::Healthy);
    let mut notes = service("notes", "notes:1").publishing(8080, 3000);
    let source = MountSource::Bind { path: "/srv/data".to_owned(), create_host_path: true, propagation: None, selinux: None };
    notes.definition.mounts.push(Mount { target: "/data".to_owned(), read_only: false, source });
    let work = world.kaleem.work(&world.project()).await.unwrap();
    let planned = world.kaleem.deploy_plan(&work, &project(vec![notes]), &Default::default()).await.unwrap();
    let wanted = &planned.plan.release.target.services[&service_name("notes")];
    assert_eq!(wanted.strategy, Strategy::Recreate, "{}", wanted.reason);
    assert!(wanted.gateway.is_some() && wanted.reason.contains("`/data`"), "{}", wanted.reason);
}

#[tokio::test]
async fn a_gate_runs_the_containers_own_check_by_itself_and_one_that_hangs_only_once() {
    for (why, behaviour, hangs, runs) in [
        ("the engine would need hours to say so", Behaviour::HealthyAfter(100_000), false, 3),
        ("it hangs, and the engine says so in the end", Behaviour::HealthyAfter(8), true, 1),
    ] {
        let world = World::new();
        world.push_with("app:1", behaviour, FakeImage::with_healthcheck);
        let ran = Arc::new(Mutex::new(0));
        let count = Arc::clone(&ran);
        world.runtime.on_exec(Arc::new(move |_, command| {
            if command.first().map(String::as_str) != Some(CHECK) {
                return None;
            }
            // Each run is looked up twice: whether there is a check, and what it says.
            let mut ran = count.lock().unwrap();
            *ran += 1;
            Some(match hangs {
                true => ExecReply::Hangs,
                false => ExecReply::Ends(ExecOutput { exit_code: i64::from(*ran < 5), output: String::new() }),
            })
        }));
        let ending = world.deploy(&project(vec![service("app", "app:1")])).await.unwrap();
        assert!(is_deployed(&ending), "{why}: {ending:?}");
        assert_eq!(*ran.lock().unwrap(), runs * 2, "{why}");
    }
}

#[tokio::test]
async fn a_check_that_fails_after_the_switch_ends_the_watch_before_the_engine_would_say_so() {
    for (why, fails_from, deployed) in [("from the switch on", Some(0), false), ("at its end", Some(1), false), ("never", None, true)] {
        let world = World::with_gateways();
        for tag in ["app:1", "app:2"] {
            // The engine itself would ask for the first time long after the watch.
            world.push_with(tag, Behaviour::HealthyAfter(100_000), FakeImage::with_healthcheck);
        }
        let (fails, asked) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(0)));
        let (from, count) = (Arc::clone(&fails), Arc::clone(&asked));
        world.runtime.on_exec(Arc::new(move |container, command| {
            if command.first().map(String::as_str) != Some(CHECK) {
                return None;
            }
            let mut asked = count.lock().unwrap();
            *asked += i32::from(container.as_str().contains("-r2-"));
            // Two of them are those of the gate.
            let fails = from.lock().unwrap().is_some_and(|from: i32| *asked > 2 + 2 * from);
            Some(ExecReply::Ends(ExecOutput { exit_code: i64::from(fails), output: String::new() }))
        }));
        let app = |tag: &str| project(vec![service("app", tag).publishing(8080, 3000)]);
        assert!(is_deployed(&world.deploy(&app("app:1")).await.unwrap()), "{why}");
        *fails.lock().unwrap() = fails_from;
        let ending = world.deploy(&app("app:2")).await.unwrap();
        let asked = *asked.lock().unwrap();
        assert_eq!(is_deployed(&ending), deployed, "{why}: asked {asked} times: {ending:?}");
    }
}

#[tokio::test]
async fn a_service_whose_check_fails_already_is_named_before_its_deploy_and_may_do_without_it() {
    let world = World::new();
    for tag in ["app:1", "app:2"] {
        world.push_with(tag, Behaviour::NeverHealthy, FakeImage::with_healthcheck);
    }
    let of = |tag: &str| project(vec![service("worker", tag)]);
    let unchecked = |tag: &str| setting(of(tag), "worker", |settings| settings.health.get_or_insert_default().none = Some(true));
    let ending = world.deploy(&unchecked("app:1")).await.unwrap();
    assert!(is_deployed(&ending), "{ending:?}");
    for _ in 0..4 {
        world.kaleem.runtime().list(&world.project()).await.unwrap();
    }
    let work = world.kaleem.work(&world.project()).await.unwrap();
    let rules = async |project| {
        let planned = world.kaleem.deploy_plan(&work, &project, &Default::default()).await.unwrap();
        planned.plan.objections.iter().map(|objection| objection.rule.clone()).collect::<Vec<_>>()
    };
    assert!(rules(of("app:2")).await.contains(&"unhealthy-now".to_owned()));
    assert!(!rules(unchecked("app:2")).await.contains(&"unhealthy-now".to_owned()));
}

//! Plans that make backup sets and put data back: every place at which they can fail or die.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kaleem_core::config::settings::ServiceSettings;
use kaleem_core::config::settings::backup::{BackupWhen, MigrationName, ServiceBackup};
use kaleem_core::config::{DependencyCondition, Project};
use kaleem_core::engine::Ending;
use kaleem_core::kaleem::KaleemError;
use kaleem_core::names::ReleaseId;
use kaleem_core::outcome::{Outcome, Resolution};
use kaleem_core::plan::Step;
use kaleem_core::runtime::RuntimeError;
use kaleem_core::testing::sets_contract::{self, Content, SetsWorld};
use kaleem_core::testing::{Behaviour, FakeCall};

use super::matrix::{Died, quiet};
use crate::world::{ServiceExt, World, project, service, service_name};

fn refused() -> RuntimeError {
    RuntimeError::Refused { operation: "do it".to_owned(), status: 409, message: "injected".to_owned() }
}

fn shop(tag: &str) -> Project {
    let api = service("api", &format!("registry.example/app:{tag}")).publishing(8080, 3000);
    let worker = service("worker", &format!("registry.example/app:{tag}"));
    let mut project = project(vec![
        api.after("redis", DependencyCondition::ServiceStarted),
        worker.after("api", DependencyCondition::ServiceHealthy),
        service("redis", "redis:7").storing("redis"),
    ]);
    project.settings.backup.when = Some(BackupWhen::BeforeDeploy);
    project
}

/// The same with a migration, which is one-way.
fn migrated(tag: &str) -> Project {
    let api = service("api", &format!("registry.example/app:{tag}")).publishing(8080, 3000);
    let mut project = project(vec![
        api.after("migrate", DependencyCondition::ServiceCompletedSuccessfully),
        service("migrate", &format!("registry.example/migrate:{tag}")),
    ]);
    project.settings.backup.when = Some(BackupWhen::BeforeDeploy);
    let one_way = ServiceSettings { migration: Some(MigrationName::OneWay), ..ServiceSettings::default() };
    project.settings.services.insert(service_name("migrate"), one_way);
    project
}

async fn world(gateways: bool) -> World {
    let world = World::with_backups(gateways);
    for tag in ["app:v1", "app:v2"] {
        world.push(&format!("registry.example/{tag}"), Behaviour::Healthy);
    }
    world.push("registry.example/app:bad", Behaviour::ExitsAtOnce { code: 1, log: "bad".to_owned() });
    for (tag, code) in [("v1", 0), ("v2", 0), ("bad", 0), ("fails", 3)] {
        world.push(&format!("registry.example/migrate:{tag}"), Behaviour::CompletesWith(code));
    }
    world.push("registry.example/app:fails", Behaviour::Healthy);
    world.push("redis:7", Behaviour::Healthy);
    world.sets.write("of r1");
    world
}

/// A world in which r1 serves.
async fn begun(first: &Project, gateways: bool) -> World {
    let world = world(gateways).await;
    let ending = world.deploy(first).await.unwrap();
    assert!(matches!(ending, Ending::Over(Outcome::Deployed { .. })), "{ending:?}");
    assert!(world.sets.finished().is_empty(), "where nothing runs yet there is nothing to back up");
    world
}

/// A world in which r2 serves and has written.
async fn moved_on(gateways: bool) -> World {
    let world = begun(&shop("v1"), gateways).await;
    let ending = world.deploy(&shop("v2")).await.unwrap();
    assert!(matches!(ending, Ending::Over(Outcome::Deployed { .. })), "{ending:?}");
    world.sets.write("of r2");
    world
}

/// Counts everything that touches the host, the data or the journal, and dies or fails at one of them.
#[derive(Clone)]
struct Places {
    count: Arc<AtomicUsize>,
    at: usize,
}

impl Places {
    fn new(at: usize) -> Self {
        Self { count: Arc::new(AtomicUsize::new(0)), at }
    }

    fn is_here(&self) -> bool {
        self.count.fetch_add(1, Ordering::SeqCst) == self.at
    }

    fn die(&self) {
        if self.is_here() {
            std::panic::panic_any(Died);
        }
    }

    fn let_die(&self, world: &World) {
        let (call, write, data) = (self.clone(), self.clone(), self.clone());
        world.runtime.before_call(Some(Arc::new(move |made: &FakeCall| {
            if made.operation.is_mutating() {
                call.die();
            }
            None
        })));
        world.clock.on_now(Box::new(move || write.die()));
        world.sets.at_places(Some(Arc::new(move |_| {
            data.die();
            None
        })));
    }

    fn let_fail(&self, world: &World) {
        let (call, data) = (self.clone(), self.clone());
        world.runtime.before_call(Some(Arc::new(move |made: &FakeCall| (made.operation.is_mutating() && call.is_here()).then(refused))));
        world.sets.at_places(Some(Arc::new(move |_| data.is_here().then(|| "injected".to_owned()))));
    }

    fn leave(world: &World) {
        world.runtime.before_call(None);
        world.clock.on_now(Box::new(|| {}));
        world.sets.at_places(None);
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    Deploy(&'static str),
    RollBack,
}

async fn start(world: &World, what: What) -> (kaleem_core::Work, kaleem_core::Planned) {
    let work = world.kaleem.work(&world.project()).await.unwrap();
    let planned = match what {
        What::Deploy(tag) => world.kaleem.deploy_plan(&work, &shop(tag), &BTreeMap::new()).await.unwrap(),
        What::RollBack => world.kaleem.rollback_plan_with_data(&work, None).await.unwrap(),
    };
    (work, planned)
}

async fn run_and_die(world: &World, what: What, at: usize) -> bool {
    let (work, planned) = start(world, what).await;
    Places::new(at).let_die(world);
    let died = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.kaleem.start(work, &planned))) {
        Ok(run) => run.unwrap().finish().await.is_err(),
        Err(_) => true,
    };
    Places::leave(world);
    died
}

async fn prepared(what: What, gateways: bool) -> World {
    match what {
        What::Deploy(_) => begun(&shop("v1"), gateways).await,
        What::RollBack => moved_on(gateways).await,
    }
}

/// What serves and what data it has: only whole pairs are right.
fn pair(world: &World) -> (Option<ReleaseId>, String) {
    (world.serving(), world.sets.data())
}

#[tokio::test]
async fn the_fake_keeps_the_contract_of_backup_sets() {
    let sets = kaleem_core::testing::FakeBackupSets::new();
    let write = |content| sets.write(if content == Content::One { "one" } else { "other" });
    let read = || if sets.data() == "one" { Content::One } else { Content::Other };
    let wrong = sets_contract::check(&SetsWorld { sets: &sets, write: &write, read: &read }).await;
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn a_set_is_made_and_read_before_anything_is_replaced_and_the_release_names_it() {
    let world = begun(&shop("v1"), false).await;
    let planned = world.plan(&shop("v2")).await;
    let place = |wanted: fn(&Step) -> bool| planned.plan.steps.iter().position(wanted).unwrap();
    let made = place(|step| matches!(step, Step::BackUp { .. }));
    let verified = place(|step| matches!(step, Step::VerifyBackup { .. }));
    let stopped = place(|step| matches!(step, Step::Stop { .. }));
    assert!(made < verified && verified < stopped, "{:#?}", planned.plan.steps);
    world.deploy(&shop("v2")).await.unwrap();
    let history = world.kaleem.history(&world.project()).unwrap();
    let named = history.release(ReleaseId::new(2)).unwrap().backup.unwrap();
    assert_eq!(world.sets.finished().get(&named).map(String::as_str), Some("of r1"));
    assert_eq!(history.data_of(ReleaseId::new(1)), Some(named));
}

#[tokio::test]
async fn only_changes_of_services_that_ask_for_it_make_a_set() {
    let ask = |tag: &str, settings: &[(&str, ServiceBackup)]| {
        let mut project = shop(tag);
        project.settings.backup.when = None;
        for (service, backup) in settings {
            let settings = ServiceSettings { backup: Some(*backup), ..ServiceSettings::default() };
            project.settings.services.insert(service_name(service), settings);
        }
        project
    };
    let world = begun(&ask("v1", &[]), false).await;
    for (why, settings, wanted) in [
        ("nobody asks", &[][..], false),
        ("a service that changes asks", &[("api", ServiceBackup::BeforeDeploy)][..], true),
        ("a service that stays as it is asks", &[("redis", ServiceBackup::BeforeDeploy)][..], false),
    ] {
        let planned = world.plan(&ask("v2", settings)).await;
        assert_eq!(planned.plan.steps.iter().any(|step| matches!(step, Step::BackUp { .. })), wanted, "{why}");
    }
}

#[tokio::test]
async fn a_program_without_backups_refuses_what_asks_for_them() {
    let world = World::new();
    world.push("registry.example/app:v1", Behaviour::Healthy);
    world.push("redis:7", Behaviour::Healthy);
    world.kaleem.plan_deploy(&shop("v1"), &BTreeMap::new()).await.unwrap();
    let work = world.kaleem.work(&world.project()).await.unwrap();
    let refused = world.kaleem.deploy_plan(&work, &shop("v1"), &BTreeMap::new()).await;
    assert!(matches!(refused, Err(KaleemError::BackupsMissing)), "{refused:?}");
}

#[tokio::test]
async fn a_set_that_cannot_be_made_ends_the_deploy_before_anything_was_replaced() {
    let world = begun(&shop("v1"), false).await;
    let before = world.containers();
    world.sets.at_places(Some(Arc::new(|place| (place == kaleem_core::testing::SetsPlace::MakeHalfway).then(|| "injected".to_owned()))));
    let ending = world.deploy(&shop("v2")).await.unwrap();
    assert!(matches!(&ending, Ending::Over(Outcome::RolledBack { error, .. }) if error.contains("injected")), "{ending:?}");
    assert_eq!(world.containers(), before);
    assert!(world.sets.finished().is_empty() && world.sets.unfinished().is_empty());
}

#[tokio::test]
async fn death_at_any_place_then_resume_ends_as_if_nothing_had_happened() {
    quiet();
    for (what, gateways) in [(What::Deploy("v2"), false), (What::Deploy("bad"), false), (What::RollBack, false), (What::RollBack, true)] {
        let wanted = match what {
            What::Deploy("v2") => (Some(ReleaseId::new(2)), "of r1".to_owned()),
            What::Deploy(_) | What::RollBack => (Some(ReleaseId::new(1)), "of r1".to_owned()),
        };
        let mut at = 0;
        loop {
            let world = prepared(what, gateways).await;
            if !run_and_die(&world, what, at).await {
                break;
            }
            let place = format!("{what:?}, gateways {gateways}, death {at}");
            if world.kaleem.history(&world.project()).unwrap().open().is_some() {
                let ending = world.resume().await.unwrap();
                assert!(matches!(ending, Ending::Over(_)), "{place}: {ending:?}");
                assert_eq!(pair(&world), wanted, "{place}");
            }
            assert!(world.sets.unfinished().is_empty(), "{place}: {:?}", world.sets.unfinished());
            assert!(world.running().iter().any(|name| name.contains("api")), "{place}: nothing serves");
            at += 1;
        }
        assert!(at > 20, "{what:?}: only {at} places");
    }
}

#[tokio::test]
async fn death_at_any_place_then_abort_leaves_the_old_release_with_the_old_data_or_the_new_with_the_new() {
    quiet();
    for (what, gateways) in [(What::Deploy("v2"), false), (What::RollBack, false), (What::RollBack, true)] {
        let mut at = 0;
        loop {
            let world = prepared(what, gateways).await;
            let before = pair(&world);
            if !run_and_die(&world, what, at).await {
                break;
            }
            let place = format!("{what:?}, gateways {gateways}, death {at}");
            if world.kaleem.history(&world.project()).unwrap().open().is_some() {
                match world.abort().await.unwrap() {
                    Ending::Over(Outcome::Deployed { .. }) => {
                        let after = if what == What::RollBack { 1 } else { 2 };
                        assert_eq!(pair(&world), (Some(ReleaseId::new(after)), "of r1".to_owned()), "{place}: it was committed");
                    }
                    Ending::Over(Outcome::Aborted { .. } | Outcome::RolledBack { .. }) => assert_eq!(pair(&world), before, "{place}"),
                    other => panic!("{place}: {other:?}"),
                }
            }
            assert!(world.sets.unfinished().is_empty(), "{place}");
            assert!(world.running().iter().any(|name| name.contains("api")), "{place}: nothing serves");
            at += 1;
        }
    }
}

#[tokio::test]
async fn a_failure_at_any_place_is_taken_back_with_the_data_or_left_over() {
    for (what, gateways) in [(What::Deploy("v2"), false), (What::RollBack, false), (What::RollBack, true)] {
        let mut at = 0;
        loop {
            let world = prepared(what, gateways).await;
            let before = pair(&world);
            let (work, planned) = start(&world, what).await;
            let places = Places::new(at);
            places.let_fail(&world);
            let ending = world.kaleem.start(work, &planned).unwrap().finish().await.unwrap();
            Places::leave(&world);
            if places.count.load(Ordering::SeqCst) <= at {
                break;
            }
            let place = format!("{what:?}, gateways {gateways}, place {at}");
            match ending {
                Ending::Over(Outcome::RolledBack { error, .. }) => {
                    assert!(error.contains("injected"), "{place}: {error}");
                    assert_eq!(pair(&world), before, "{place}");
                }
                Ending::Over(Outcome::Deployed { .. }) => assert_eq!(world.sets.data(), "of r1", "{place}"),
                Ending::Stuck { .. } => {
                    // The one failure was in an undo: trying again is the way out.
                    let ending = world.resume().await.unwrap();
                    assert!(matches!(ending, Ending::Over(_)), "{place}: {ending:?}");
                    assert_eq!(pair(&world), before, "{place}");
                }
                other => panic!("{place}: {other:?}"),
            }
            at += 1;
        }
        assert!(at > 8, "{what:?}: only {at} places");
    }
}

#[tokio::test]
async fn nobody_writes_while_data_is_put_back() {
    let world = moved_on(false).await;
    let (runtime, seen) = (world.runtime.clone(), Arc::new(AtomicUsize::new(0)));
    let counter = seen.clone();
    world.sets.at_places(Some(Arc::new(move |place| {
        if place == kaleem_core::testing::SetsPlace::RestoreBegins {
            counter.fetch_add(1, Ordering::SeqCst);
            let running: Vec<String> = runtime.snapshot().running().iter().map(ToString::to_string).collect();
            assert!(running.iter().all(|name| name.contains("redis")), "who writes runs while data is put back: {running:?}");
        }
        None
    })));
    let ending = world.rollback_with_data(None).await.unwrap();
    assert!(matches!(ending, Ending::Over(Outcome::Deployed { .. })), "{ending:?}");
    assert_eq!((pair(&world), seen.load(Ordering::SeqCst)), ((Some(ReleaseId::new(1)), "of r1".to_owned()), 1));
    let kept: Vec<String> = world.sets.finished().into_values().collect();
    assert!(kept.contains(&"of r2".to_owned()), "what was replaced is kept: {kept:?}");
}

#[tokio::test]
async fn going_back_with_data_needs_a_set_of_that_data() {
    let mut plain = shop("v2");
    plain.settings.backup.when = None;
    let world = begun(&shop("v1"), false).await;
    world.deploy(&plain).await.unwrap();
    let refused = world.rollback_with_data(None).await;
    assert!(matches!(refused, Err(KaleemError::NoDataOf { .. })), "{refused:?}");
}

#[tokio::test]
async fn after_a_one_way_migration_began_nothing_goes_back_by_itself() {
    let world = begun(&migrated("v1"), false).await;
    let ending = world.deploy(&migrated("bad")).await.unwrap();
    let Ending::Stuck { error, commands, .. } = ending else { panic!("{ending:?}") };
    assert!(error.contains("one-way") && error.contains("healthy"), "{error}");
    assert!(commands.iter().any(|line| line.contains("kaleem resume")), "{commands:?}");
    let before = world.containers();
    // Asking to go back changes nothing either.
    assert!(matches!(world.abort().await.unwrap(), Ending::Stuck { .. }));
    assert!(matches!(world.resume().await.unwrap(), Ending::Stuck { .. }), "the release is as bad as before");
    assert_eq!(world.containers(), before);
    let work = world.kaleem.work(&world.project()).await.unwrap();
    assert_eq!(world.kaleem.resolve(&work, "a test", Resolution::Old).unwrap(), Some(ReleaseId::new(1)));
}

#[tokio::test]
async fn a_one_way_migration_that_fails_is_run_again_when_a_person_says_so() {
    let world = begun(&migrated("v1"), false).await;
    let ending = world.deploy(&migrated("fails")).await.unwrap();
    assert!(matches!(&ending, Ending::Stuck { error, .. } if error.contains("exit code 3")), "{ending:?}");
    let again = world.resume().await.unwrap();
    assert!(matches!(&again, Ending::Stuck { error, .. } if error.contains("exit code 3")), "{again:?}");
    let runs =
        world.runtime.snapshot().containers.iter().find(|(name, _)| name.as_str().contains("migrate-r2")).map(|(_, found)| found.runs);
    assert_eq!(runs, Some(2), "it was run once by the deploy and once by the resume");
}

#[tokio::test]
async fn going_back_past_a_one_way_migration_is_refused_without_the_data() {
    let world = begun(&migrated("v1"), false).await;
    world.deploy(&migrated("v2")).await.unwrap();
    world.sets.write("of r2");
    let refused = world.rollback(None).await;
    let Err(KaleemError::Refused { objections }) = refused else { panic!("{refused:?}") };
    assert_eq!(objections.iter().map(|objection| objection.rule.as_str()).collect::<Vec<_>>(), ["one-way-migration"]);
    let ending = world.rollback_with_data(None).await.unwrap();
    assert!(matches!(ending, Ending::Over(Outcome::Deployed { .. })), "{ending:?}");
    assert_eq!(pair(&world), (Some(ReleaseId::new(1)), "of r1".to_owned()));
}

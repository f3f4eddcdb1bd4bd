//! What goes back though nobody said so is asked about: an older image, a missing variable, a missing file, a profile that is off.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use kaleem_core::config::Project;
use kaleem_core::config::inputs::Variable;
use kaleem_core::kaleem::{KaleemError, Planned, Wishes};
use kaleem_core::plan::{ChangeKind, Objection, Severity, older};
use kaleem_core::secret::Secret;
use kaleem_core::testing::{Behaviour, FakeImage};

use crate::world::{ServiceExt, World, agreed, image, project, service, service_name};

fn world() -> World {
    let world = World::new();
    for tag in ["app:v1", "app:v2", "app:v3", "tool:v1"] {
        world.push(&format!("registry.example/{tag}"), Behaviour::Healthy);
    }
    world
}

fn shop(tag: &str) -> Project {
    project(vec![service("api", &format!("registry.example/app:{tag}")).publishing(8080, 3000)])
}

/// The project as if `API_IMAGE` had been read from the environment, or had not been there.
fn with_variable(mut project: Project, value: Option<&str>) -> Project {
    let services: BTreeSet<String> = std::iter::once("api".to_owned()).collect();
    let value = value.map(|value| Secret::new(value.to_owned()));
    project.inputs.variables.insert("API_IMAGE".to_owned(), Variable { value, images: services.clone(), services });
    project
}

/// The same with a variable that is no part of the image.
fn with_restart(mut project: Project, value: Option<&str>) -> Project {
    let services = std::iter::once("api".to_owned()).collect();
    let value = value.map(|value| Secret::new(value.to_owned()));
    project.inputs.variables.insert("RESTART".to_owned(), Variable { value, services, images: BTreeSet::new() });
    project
}

fn with_files(mut project: Project, files: &[&str]) -> Project {
    project.files = files.iter().map(|file| PathBuf::from("/srv/shop").join(file)).collect();
    project
}

fn refused(planned: &Planned) -> Vec<String> {
    planned.asks().into_iter().map(|ask| format!("{}: {}", ask.rule, ask.message)).collect()
}

fn found<'a>(planned: &'a Planned, rule: &str) -> Option<&'a Objection> {
    planned.plan.objections.iter().find(|objection| objection.rule == rule)
}

#[tokio::test]
async fn an_image_that_an_earlier_release_ran_is_asked_about_and_a_newer_one_is_not() {
    let world = world();
    world.deploy(&shop("v1")).await.unwrap();
    assert_eq!(refused(&world.plan(&shop("v2")).await), [""; 0]);
    world.deploy(&shop("v2")).await.unwrap();
    let planned = world.plan(&shop("v1")).await;
    assert_eq!(
        refused(&planned),
        ["goes-back: `api` goes BACK: registry.example/app:v2 -> registry.example/app:v1, which r1 ran and a later release replaced"]
    );
    let work = world.kaleem.work(&world.project()).await.unwrap();
    let error = world.kaleem.start(work, &planned).unwrap_err();
    assert!(matches!(error, KaleemError::Refused { .. }), "{error:?}");
    assert_eq!(world.running(), ["shop-api-r2-1"], "nothing was touched");
    assert_eq!(agreed(planned).plan.refusals().count(), 0, "a person may agree");
}

#[tokio::test]
async fn a_rollback_and_an_image_of_the_command_line_are_a_persons_word() {
    let world = world();
    world.deploy(&shop("v1")).await.unwrap();
    world.deploy(&shop("v2")).await.unwrap();
    let rollback = world.kaleem.plan_rollback(&world.project(), None).await.unwrap();
    assert_eq!(rollback.plan.refusals().count(), 0);
    let chosen = BTreeMap::from([(service_name("api"), image("registry.example/app:v1"))]);
    let named = world.kaleem.plan_deploy(&shop("v2"), &chosen).await.unwrap();
    assert_eq!(named.plan.refusals().count(), 0, "{:?}", refused(&named));
}

#[tokio::test]
async fn after_a_rollback_the_way_forward_is_free() {
    let world = world();
    world.deploy(&shop("v1")).await.unwrap();
    world.deploy(&shop("v2")).await.unwrap();
    world.rollback(None).await.unwrap();
    assert_eq!(refused(&world.plan(&shop("v2")).await), [""; 0]);
}

#[tokio::test]
async fn a_plain_deploy_after_an_image_of_the_command_line_says_what_it_takes_back() {
    let world = world();
    world.deploy(&shop("v1")).await.unwrap();
    let work = world.kaleem.work(&world.project()).await.unwrap();
    let chosen = BTreeMap::from([(service_name("api"), image("registry.example/app:v3"))]);
    // The file says v2, which never ran.
    let planned = world.kaleem.deploy_plan(&work, &shop("v2"), &chosen).await.unwrap();
    world.kaleem.start(work, &planned).unwrap().finish().await.unwrap();
    let planned = world.plan(&shop("v2")).await;
    assert_eq!(
        refused(&planned),
        ["goes-back: `api` goes BACK: registry.example/app:v3 -> registry.example/app:v2, because r2 was deployed with \
          `api=registry.example/app:v3` and the compose file says otherwise"]
    );
    world.push("registry.example/app:v4", Behaviour::Healthy);
    assert_eq!(refused(&world.plan(&shop("v4")).await), [""; 0], "the file was edited since");
}

#[tokio::test]
async fn a_missing_variable_that_no_image_is_made_of_takes_no_image_back() {
    let world = world();
    world.deploy(&with_restart(shop("v1"), Some("always"))).await.unwrap();
    assert_eq!(refused(&world.plan(&with_restart(shop("v2"), None)).await), [""; 0]);
}

#[tokio::test]
async fn a_missing_variable_is_named_and_its_value_is_in_no_journal() {
    let world = world();
    world.deploy(&with_variable(shop("v2"), Some("registry.example/app:v2-hunter2"))).await.unwrap();
    for value in [None, Some("")] {
        let planned = world.plan(&with_variable(shop("v3"), value)).await;
        let expected = "goes-back: `api` goes BACK: registry.example/app:v2 -> registry.example/app:v3, because API_IMAGE is not set, \
                        unlike when r1 was released";
        assert_eq!(refused(&planned), [expected], "{value:?}");
    }
    let journal = std::fs::read_to_string(world.directory.path().join("shop/plans/p1.jsonl"));
    let journal = journal.or_else(|_| {
        let plans = std::fs::read_dir(world.directory.path().join("shop/plans")).unwrap();
        std::fs::read_to_string(plans.map(|entry| entry.unwrap().path()).find(|path| path.is_file()).unwrap())
    });
    let journal = journal.unwrap();
    assert!(journal.contains("API_IMAGE") && !journal.contains("hunter2"), "{journal}");
    let other = world.plan(&with_variable(shop("v3"), Some("registry.example/app:v3"))).await;
    assert_eq!(refused(&other), [""; 0], "another value leads forward");
    let unrelated = world.plan(&shop("v3")).await;
    assert_eq!(refused(&unrelated), [""; 0], "no file names the variable any more");
}

#[tokio::test]
async fn another_change_of_a_service_whose_variable_is_missing_is_told_and_not_held_up() {
    let world = world();
    let with_level = |level: &str, value| {
        let api = service("api", "registry.example/app:v1").publishing(8080, 3000).env("LEVEL", level);
        with_variable(project(vec![api]), value)
    };
    world.deploy(&with_level("info", Some("info"))).await.unwrap();
    let planned = world.plan(&with_level("", None)).await;
    assert_eq!(refused(&planned), [""; 0]);
    let told = found(&planned, "input-missing").unwrap();
    assert_eq!(told.severity, Severity::Warn);
    assert_eq!(told.message, "`api` changes (environment.LEVEL), because API_IMAGE is not set, unlike when r1 was released");
}

#[tokio::test]
async fn a_missing_file_is_named_and_files_in_its_place_are_not() {
    let world = world();
    world.deploy(&with_files(shop("v2"), &["compose.yaml", "image.yaml"])).await.unwrap();
    let planned = world.plan(&with_files(shop("v3"), &["compose.yaml"])).await;
    let expected = "goes-back: `api` goes BACK: registry.example/app:v2 -> registry.example/app:v3, because image.yaml is not given, unlike \
                    when r1 was released";
    assert_eq!(refused(&planned), [expected]);
    assert!(found(&planned, older::GOES_BACK).unwrap().remedy.contains("`-f image.yaml`"));
    for files in [&["compose.yaml", "other.yaml"][..], &["compose.yaml", "image.yaml", "more.yaml"]] {
        assert_eq!(refused(&world.plan(&with_files(shop("v3"), files)).await), [""; 0], "{files:?}");
    }
}

#[tokio::test]
async fn an_image_that_was_built_earlier_is_asked_about_where_both_times_are_known() {
    let built = |time: &str| {
        let created = kaleem_core::image::build_time(time);
        move |fake: FakeImage| FakeImage { facts: kaleem_core::image::ImageFacts { created, ..fake.facts.clone() }, ..fake }
    };
    for (why, before, after, asked) in [
        ("earlier", "2026-02-01T00:00:00Z", "2026-01-01T00:00:00Z", true),
        ("later", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z", false),
        ("equal", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z", false),
        ("a reproducible build", "2026-01-01T00:00:00Z", "1970-01-01T00:00:00Z", false),
        ("no time", "0001-01-01T00:00:00Z", "2026-01-01T00:00:00Z", false),
    ] {
        let world = World::new();
        world.push_with("registry.example/app:stable", Behaviour::Healthy, built(before));
        world.deploy(&shop("stable")).await.unwrap();
        // The tag moves.
        world.push_with("registry.example/app:stable", Behaviour::HealthyAfter(1), built(after));
        let planned = world.plan(&shop("stable")).await;
        assert_eq!(planned.asks().len(), usize::from(asked), "{why}: {:?}", refused(&planned));
    }
}

#[tokio::test]
async fn a_service_that_a_missing_file_names_is_not_stopped_in_silence() {
    let world = world();
    let both = || project(vec![service("api", "registry.example/app:v1"), service("bot", "registry.example/tool:v1")]);
    world.deploy(&with_files(both(), &["compose.yaml", "bot.yaml"])).await.unwrap();
    let alone = || project(vec![service("api", "registry.example/app:v1")]);
    let planned = world.plan(&with_files(alone(), &["compose.yaml"])).await;
    assert_eq!(refused(&planned), ["service-gone: `bot` would be stopped, because bot.yaml is not given, unlike when r1 was released"]);
    assert!(found(&planned, older::SERVICE_GONE).unwrap().remedy.contains("--remove-orphans"));
    let edited = world.plan(&with_files(alone(), &["compose.yaml", "bot.yaml"])).await;
    assert_eq!(refused(&edited), [""; 0], "whoever edits the file means it");
}

#[tokio::test]
async fn a_service_of_a_profile_that_is_off_is_left_as_it_is() {
    let world = world();
    let both = project(vec![service("api", "registry.example/app:v1"), service("worker", "registry.example/tool:v1")]);
    world.deploy(&both).await.unwrap();
    let mut off = project(vec![service("api", "registry.example/app:v2")]);
    off.inputs.disabled.insert(service_name("worker"));
    let planned = world.plan(&off).await;
    assert_eq!(refused(&planned), [""; 0]);
    assert!(found(&planned, "left").unwrap().message.contains("no active profile names it"));
    world.deploy(&off).await.unwrap();
    assert_eq!(world.running(), ["shop-api-r2-1", "shop-worker-r1-1"]);
    // The release knows it: a later deploy with the profile has nothing to do for it.
    let release = world.kaleem.history(&world.project()).unwrap().release(world.serving().unwrap()).unwrap();
    assert_eq!(release.instances[&service_name("worker")].len(), 1);
    let on = project(vec![service("api", "registry.example/app:v2"), service("worker", "registry.example/tool:v1")]);
    assert!(world.plan(&on).await.plan.is_empty());
}

#[tokio::test]
async fn only_one_service_is_deployed_and_the_release_records_what_the_others_run() {
    let world = world();
    let of = |tag: &str| {
        let api = service("api", &format!("registry.example/app:{tag}"));
        let worker = service("worker", &format!("registry.example/app:{tag}")).after("api", crate::world::started());
        project(vec![api, worker])
    };
    let only = |names: &[&str]| Wishes { only: names.iter().map(|name| service_name(name)).collect(), ..Wishes::none() };
    world.deploy(&of("v1")).await.unwrap();
    let work = world.kaleem.work(&world.project()).await.unwrap();
    let planned = world.kaleem.deploy_plan_with(&work, &of("v2"), &BTreeMap::new(), &only(&["api"])).await.unwrap();
    let kept = planned.plan.changes.iter().find(|change| change.service.as_str() == "worker").unwrap();
    assert_eq!(kept.kind, ChangeKind::Keep);
    let left = found(&planned, "left").unwrap();
    let expected = "`worker` is left as it is, though the files change it: image registry.example/app:v1 -> registry.example/app:v2";
    assert_eq!((left.severity, left.message.as_str()), (Severity::Warn, expected));
    world.kaleem.start(work, &planned).unwrap().finish().await.unwrap();
    assert_eq!(world.running(), ["shop-api-r2-1", "shop-worker-r1-1"]);
    let release = world.kaleem.history(&world.project()).unwrap().release(world.serving().unwrap()).unwrap();
    assert_eq!(release.target.services[&service_name("worker")].image.image, image("registry.example/app:v1"));
    let rest = world.plan(&of("v2")).await.plan;
    let replaced: Vec<_> = rest.changes.iter().filter(|change| change.kind == ChangeKind::Replace).map(|change| &change.service).collect();
    assert_eq!(replaced, [&service_name("worker")], "what was left is deployed next");
    let unknown = world.kaleem.plan_deploy_with(&of("v2"), &BTreeMap::new(), &only(&["nosuch"])).await;
    assert!(matches!(unknown, Err(KaleemError::Observe { .. })), "{unknown:?}");
}

#[tokio::test]
async fn a_dependency_that_does_not_stand_is_no_ground_for_a_deploy_of_one_service() {
    let world = world();
    let api = service("api", "registry.example/app:v1").after("redis", crate::world::started());
    let shop = project(vec![api, service("redis", "registry.example/tool:v1")]);
    let only = Wishes { only: std::iter::once(service_name("api")).collect(), ..Wishes::none() };
    let planned = world.kaleem.plan_deploy_with(&shop, &BTreeMap::new(), &only).await.unwrap();
    let objection = found(&planned, "dependency-missing").unwrap();
    assert_eq!((objection.severity, objection.message.as_str()), (Severity::Refuse, "`api` depends on `redis`, which does not run"));
}

#[tokio::test]
async fn another_number_of_containers_is_for_one_deploy_and_not_for_what_must_not_run_twice() {
    let world = world();
    let shop = project(vec![service("worker", "registry.example/app:v1"), service("redis", "registry.example/tool:v1").storing("redis")]);
    world.deploy(&shop).await.unwrap();
    let scale = |name: &str, replicas| Wishes { scale: BTreeMap::from([(service_name(name), replicas)]), ..Wishes::none() };
    let work = world.kaleem.work(&world.project()).await.unwrap();
    let planned = world.kaleem.deploy_plan_with(&work, &shop, &BTreeMap::new(), &scale("worker", 3)).await.unwrap();
    assert_eq!(found(&planned, "scale").map(|objection| objection.severity), Some(Severity::Note));
    world.kaleem.start(work, &planned).unwrap().finish().await.unwrap();
    assert_eq!(world.running().iter().filter(|name| name.contains("worker")).count(), 3);
    world.deploy(&shop).await.unwrap();
    assert_eq!(world.running().iter().filter(|name| name.contains("worker")).count(), 1, "the file's number again");
    let store = world.kaleem.plan_deploy_with(&shop, &BTreeMap::new(), &scale("redis", 2)).await.unwrap();
    assert_eq!(found(&store, "scale").map(|objection| objection.severity), Some(Severity::Refuse), "{:?}", store.plan.objections);
}

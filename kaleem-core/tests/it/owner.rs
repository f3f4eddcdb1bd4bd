//! Whose project it is: other users, other directories, lost and restored state, and one process at a time across all of them.

use std::path::Path;

use kaleem_core::config::Project;
use kaleem_core::config::settings::StrategyName;
use kaleem_core::engine::Ending;
use kaleem_core::kaleem::KaleemError;
use kaleem_core::kaleem::owning::Claim;
use kaleem_core::lease::LeaseError;
use kaleem_core::names::{PlanId, ReleaseId};
use kaleem_core::observed::owner::{ForeignKind, Standing};
use kaleem_core::outcome::Outcome;
use kaleem_core::remedy::Remedy;
use kaleem_core::runtime::Marks;
use kaleem_core::state::gateway_directory;
use kaleem_core::testing::Behaviour;

use crate::world::{ServiceExt, World, container, project, service, strategy};

/// A service behind a gateway, and one without.
fn shop(tag: &str) -> Project {
    let project = project(vec![service("api", &format!("shop/api:{tag}")).publishing(8080, 3000), service("worker", "shop/worker:1")]);
    strategy(project, "api", StrategyName::BlueGreen)
}

fn world() -> World {
    let world = World::with_gateways();
    for image in ["shop/api:1", "shop/api:2", "shop/api:3", "shop/worker:1"] {
        world.push(image, Behaviour::Healthy);
    }
    world
}

fn is_deployed(ending: &Ending) -> bool {
    matches!(ending, Ending::Over(Outcome::Deployed { .. }))
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() { copy(&entry.path(), &target) } else { std::fs::copy(entry.path(), target).map(|_| ()).unwrap() }
    }
}

/// Without the labels that a test may remove: marks as `docker volume prune` of an old engine leaves them.
async fn prune(world: &World) {
    for mark in world.runtime.marks(&world.project()).await.unwrap() {
        world.runtime.remove_mark(&world.project(), mark.number).await.unwrap();
    }
}

#[tokio::test]
async fn another_state_directory_is_refused_and_touches_nothing() {
    let first = world();
    assert!(is_deployed(&first.deploy(&shop("1")).await.unwrap()));
    let second = first.of_another_user();
    for mark in ["there", "pruned"] {
        let before = first.runtime.snapshot();
        let planned = second.plan(&shop("2")).await;
        let refusals: Vec<_> = planned.plan.refusals().map(|objection| objection.rule.as_str()).collect();
        assert_eq!(refusals, ["owned-by-another"], "the mark is {mark}");
        let error = second.deploy(&shop("2")).await.unwrap_err();
        let KaleemError::Owned { foreign } = &error else { panic!("the mark is {mark}: {error:?}") };
        assert_eq!((foreign.kind, foreign.running), (ForeignKind::State, Some(ReleaseId::new(1))), "the mark is {mark}");
        let directory = first.kaleem.state(&first.project()).root().display().to_string();
        assert!(error.to_string().contains(&directory), "the mark is {mark}: {error}");
        assert!(error.remedy().contains("KALEEM_STATE_DIR=") && error.remedy().contains("kaleem adopt"), "{}", error.remedy());
        assert_eq!(first.runtime.snapshot(), before, "the mark is {mark}");
        prune(&first).await;
    }
    assert!(is_deployed(&first.deploy(&shop("2")).await.unwrap()), "the owner");
}

#[tokio::test]
async fn one_process_works_at_a_time_whatever_its_state_directory() {
    let first = world();
    let second = first.of_another_user();
    let work = first.kaleem.work(&first.project()).await.unwrap();
    let error = second.kaleem.work(&second.project()).await.unwrap_err();
    assert!(matches!(&error, KaleemError::Lease { source: LeaseError::Busy { owner, .. } } if owner == "a test"), "{error:?}");
    drop(work);
    tokio::task::yield_now().await;
    // Nothing is there yet, so it is anybody's.
    drop(second.kaleem.work(&second.project()).await.unwrap());
    assert!(is_deployed(&first.deploy(&shop("1")).await.unwrap()));
    assert_eq!(first.runtime.marks(&first.project()).await.unwrap().len(), 1, "one mark is enough");
}

#[tokio::test]
async fn a_state_directory_that_was_lost_is_settled_by_one_deploy() {
    for tag in ["2", "3"] {
        let world = world();
        for before in ["1", "2", "1", "2"] {
            assert!(is_deployed(&world.deploy(&shop(before)).await.unwrap()));
        }
        let running = world.running();
        std::fs::remove_dir_all(world.kaleem.state(&world.project()).root()).unwrap();
        let standing = world.kaleem.ownership(&world.project()).await.unwrap().standing;
        assert_eq!(standing, Standing::Lost);
        assert!(is_deployed(&world.deploy(&shop(tag)).await.unwrap()), "{tag}");
        let history = world.kaleem.history(&world.project()).unwrap();
        assert_eq!((history.newest_plan(), history.serving()), (PlanId(5), Some(ReleaseId::new(5))), "{tag}");
        if tag == "2" {
            assert_eq!(world.running(), running, "what runs already is taken over");
        }
        // A container that was kept was started again.
        let instance = if tag == "2" { "shop-api-r2-1" } else { "shop-api-r5-1" };
        assert_eq!(world.routed("api").await.unwrap(), [instance], "{tag}");
        assert!(world.plan(&shop(tag)).await.plan.is_empty(), "{tag}: nothing is left to do");
    }
}

#[tokio::test]
async fn a_deploy_that_fails_after_the_state_was_lost_goes_back_to_what_served() {
    let world = world();
    world.push("shop/api:bad", Behaviour::ExitsAtOnce { code: 1, log: "bad".to_owned() });
    for tag in ["1", "2"] {
        assert!(is_deployed(&world.deploy(&shop(tag)).await.unwrap()));
    }
    std::fs::remove_dir_all(world.kaleem.state(&world.project()).root()).unwrap();
    let ending = world.deploy(&shop("bad")).await.unwrap();
    assert!(matches!(ending, Ending::Over(Outcome::RolledBack { .. })), "{ending:?}");
    assert_eq!(world.routed("api").await.unwrap(), ["shop-api-r2-1"]);
    assert!(is_deployed(&world.deploy(&shop("2")).await.unwrap()), "it can be settled afterwards");
}

#[test]
fn gateways_are_next_to_the_state_directory_unless_others_could_put_them_there() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let home = tempfile::tempdir().unwrap();
    let (base, beside) = (home.path().join("kaleem"), home.path().join("kaleem-gateways"));
    let inside = base.join(".gateways");
    let mode = |path: &Path, mode: u32| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    assert_eq!(gateway_directory(&base), beside, "neither is there");
    assert_eq!(gateway_directory(&home.path().join("not/there/yet/kaleem")), home.path().join("not/there/yet/kaleem-gateways"));
    mode(home.path(), 0o777);
    assert_eq!(gateway_directory(&base), inside, "everybody could make it");
    mode(home.path(), 0o700);
    std::fs::create_dir_all(&inside).unwrap();
    assert_eq!(gateway_directory(&base), inside, "it was there before");
    std::fs::create_dir(&beside).unwrap();
    mode(&beside, 0o700);
    assert_eq!(gateway_directory(&base), beside);
    mode(&beside, 0o770);
    assert_eq!(gateway_directory(&base), inside, "others can write there");
    std::fs::remove_dir(&beside).unwrap();
    symlink("/tmp", &beside).unwrap();
    assert_eq!(gateway_directory(&base), inside, "a link is not followed");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_asked_owns_nothing() {
    let world = world();
    let work = world.kaleem.work(&world.project()).await.unwrap();
    let error = world.kaleem.rollback_plan(&work, None).await.unwrap_err();
    assert!(matches!(error, KaleemError::NoSuchRelease { .. } | KaleemError::NothingReleased), "{error:?}");
    assert_eq!(world.runtime.marks(&world.project()).await.unwrap().len(), 1, "nobody else may work meanwhile");
    drop(work);
    assert_eq!(world.runtime.marks(&world.project()).await.unwrap(), []);
    assert!(is_deployed(&world.deploy(&shop("1")).await.unwrap()));
    drop(world.kaleem.work(&world.project()).await.unwrap());
    assert_eq!(world.runtime.marks(&world.project()).await.unwrap().len(), 1, "what was deployed is owned");
}

#[tokio::test]
async fn a_state_directory_that_was_restored_is_settled_by_one_deploy() {
    // Without the mark only labels tell of releases: containers that were kept have those of the release that made them.
    for (mark, release) in [("there", 6), ("pruned", 3)] {
        let world = world();
        let root = world.kaleem.state(&world.project()).root().to_owned();
        let backup = tempfile::tempdir().unwrap();
        for (number, tag) in ["1", "2", "1", "2", "1"].into_iter().enumerate() {
            assert!(is_deployed(&world.deploy(&shop(tag)).await.unwrap()));
            if number == 1 {
                copy(&root, backup.path());
            }
        }
        std::fs::remove_dir_all(&root).unwrap();
        copy(backup.path(), &root);
        if mark == "pruned" {
            prune(&world).await;
        }
        let standing = world.kaleem.ownership(&world.project()).await.unwrap().standing;
        assert_eq!(standing, Standing::Behind { plan: PlanId(5) }, "the mark is {mark}");
        assert!(is_deployed(&world.deploy(&shop("3")).await.unwrap()), "the mark is {mark}");
        let history = world.kaleem.history(&world.project()).unwrap();
        assert_eq!((history.newest_plan(), history.serving()), (PlanId(6), Some(ReleaseId::new(release))), "the mark is {mark}");
        assert_eq!(world.routed("api").await.unwrap(), [format!("shop-api-r{release}-1")], "the mark is {mark}");
    }
}

#[tokio::test]
async fn a_copy_of_the_state_directory_is_told_from_one_that_moved() {
    let first = world();
    assert!(is_deployed(&first.deploy(&shop("1")).await.unwrap()));
    let second = first.of_another_user();
    let (root, moved) = (first.kaleem.state(&first.project()).root().to_owned(), second.kaleem.state(&second.project()).root().to_owned());
    copy(&root, &moved);
    let error = second.deploy(&shop("2")).await.unwrap_err();
    assert!(matches!(&error, KaleemError::Owned { foreign } if foreign.kind == ForeignKind::Copy), "{error:?}");
    std::fs::remove_dir_all(&root).unwrap();
    assert!(is_deployed(&second.deploy(&shop("2")).await.unwrap()), "moved");
}

#[tokio::test]
async fn adopting_takes_everything_over_as_it_runs() {
    let first = world();
    for tag in ["1", "2"] {
        assert!(is_deployed(&first.deploy(&shop(tag)).await.unwrap()));
    }
    let running = first.running();
    let second = first.of_another_user();
    let work = second.kaleem.adopt(&second.project(), Claim::Adopt).await.unwrap();
    let planned = second.kaleem.adopt_plan(&work, &shop("2")).await.unwrap().unwrap();
    assert!(is_deployed(&second.kaleem.start(work, &planned).unwrap().finish().await.unwrap()));
    assert_eq!(second.running(), running);
    assert_eq!(second.serving(), Some(ReleaseId::new(3)));
    assert!(second.plan(&shop("2")).await.plan.is_empty(), "every service is kept");
    let error = first.deploy(&shop("1")).await.unwrap_err();
    assert!(matches!(&error, KaleemError::Owned { foreign } if foreign.user.as_deref() == Some("another")), "{error:?}");
    // The new owner goes on, and what was taken over is what it can go back to.
    assert!(is_deployed(&second.deploy(&shop("3")).await.unwrap()));
    assert_eq!(second.routed("api").await.unwrap(), ["shop-api-r4-1"]);
}

#[tokio::test]
async fn what_differs_from_the_files_is_adopted_as_it_runs_too() {
    let first = world();
    assert!(is_deployed(&first.deploy(&shop("1")).await.unwrap()));
    let running = first.running();
    let second = first.of_another_user();
    let work = second.kaleem.adopt(&second.project(), Claim::Adopt).await.unwrap();
    let planned = second.kaleem.adopt_plan(&work, &shop("3")).await.unwrap().unwrap();
    let images: Vec<String> = planned.plan.release.target.services.values().map(|wanted| wanted.image.image.to_string()).collect();
    assert_eq!(images, ["shop/api:1", "shop/worker:1"], "the release is what runs");
    assert!(is_deployed(&second.kaleem.start(work, &planned).unwrap().finish().await.unwrap()));
    assert_eq!(second.running(), running);
    assert!(is_deployed(&second.deploy(&shop("3")).await.unwrap()));
    assert_eq!(second.routed("api").await.unwrap(), ["shop-api-r3-1"]);
}

#[tokio::test]
async fn another_directory_of_the_same_name_is_refused_unless_the_project_moved() {
    let world = world();
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| {
        let directory = place.path().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        let file = directory.join("compose.yaml");
        kaleem_core::durable::write_atomic(&file, b"services: {}\n", 0o600).unwrap();
        Project { directory, files: vec![file], ..shop("1") }
    };
    let (one, other) = (at("x"), at("y"));
    assert!(is_deployed(&world.deploy(&one).await.unwrap()));
    let error = world.deploy(&other).await.unwrap_err();
    let KaleemError::Owned { foreign } = &error else { panic!("{error:?}") };
    assert_eq!(foreign.kind, ForeignKind::Directory);
    assert!(error.to_string().contains("/x") && error.to_string().contains("/y"), "both are named: {error}");
    let planned = world.plan(&other).await;
    assert_eq!(planned.plan.refusals().count(), 1);
    std::fs::remove_dir_all(&one.directory).unwrap();
    assert!(matches!(world.deploy(&other).await.unwrap(), Ending::Left), "it moved: nothing is to be done");
}

#[tokio::test]
async fn a_project_that_was_taken_down_is_anybodys() {
    let first = world();
    assert!(is_deployed(&first.deploy(&shop("1")).await.unwrap()));
    let work = first.kaleem.work(&first.project()).await.unwrap();
    let planned = first.kaleem.down_plan(&work, kaleem_core::kaleem::leaving::RemoveVolumes::No).await.unwrap();
    assert!(is_deployed(&first.kaleem.start(work, &planned).unwrap().finish().await.unwrap()));
    assert!(first.runtime.marks(&first.project()).await.unwrap().is_empty());
    assert!(is_deployed(&first.of_another_user().deploy(&shop("1")).await.unwrap()));
}

#[tokio::test]
async fn a_name_that_another_project_has_is_found_in_the_plan_and_never_undone() {
    for (why, name) in [("an instance", "shop-worker-r1-1"), ("a gateway", "shop-api-gateway")] {
        let world = world();
        world.runtime.add_stranger(&container(name), &[]);
        let planned = world.plan(&shop("1")).await;
        let refusal = planned.plan.refusals().next().unwrap_or_else(|| panic!("{why} is not refused"));
        assert_eq!(refusal.rule, "name-taken", "{why}");
        assert!(!refusal.remedy.contains("rm"), "{why}: {}", refusal.remedy);
    }
    // It came after the plan was made: the plan goes back, and leaves it alone.
    let world = world();
    let work = world.kaleem.work(&world.project()).await.unwrap();
    let planned = world.kaleem.deploy_plan(&work, &shop("1"), &std::collections::BTreeMap::new()).await.unwrap();
    world.runtime.add_stranger(&container("shop-worker-r1-1"), &[]);
    let ending = world.kaleem.start(work, &planned).unwrap().finish().await.unwrap();
    assert!(matches!(ending, Ending::Over(Outcome::RolledBack { .. })), "{ending:?}");
    assert_eq!(world.running(), ["shop-worker-r1-1"]);
}

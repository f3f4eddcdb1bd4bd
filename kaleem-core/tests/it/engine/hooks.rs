//! Programs of the operator before and after a deploy.

use kaleem_core::config::Project;
use kaleem_core::config::settings::{DurationText, HookSettings};
use kaleem_core::engine::{Ending, Notice};
use kaleem_core::names::ReleaseId;
use kaleem_core::outcome::Outcome;
use kaleem_core::testing::Behaviour;

use crate::world::{ServiceExt, World, project, service};

fn app(world: &World, tag: &str, before: &[&str], after: &[&str]) -> Project {
    let mut project = project(vec![service("api", &format!("registry.example/app:{tag}")).publishing(8080, 3000)]);
    let command = |words: &[&str]| (!words.is_empty()).then(|| words.iter().map(|word| (*word).to_owned()).collect());
    project.directory = world.directory.path().to_owned();
    let timeout = Some(DurationText(std::time::Duration::from_millis(500)));
    project.settings.hooks = HookSettings { before_deploy: command(before), after_deploy: command(after), timeout };
    project
}

fn world() -> World {
    let world = World::new();
    world.push("registry.example/app:v1", Behaviour::Healthy);
    world.push("registry.example/app:v2", Behaviour::Healthy);
    world
}

#[tokio::test]
async fn hooks_run_around_a_deploy_and_are_told_what_it_is() {
    let world = world();
    let tell = "echo \"$KALEEM_HOOK $KALEEM_PROJECT $KALEEM_PLAN $KALEEM_RELEASE $KALEEM_PREVIOUS_RELEASE\" >> told; env >> variables";
    world.deploy(&app(&world, "v1", &["sh", "-c", tell], &["sh", "-c", tell])).await.unwrap();
    world.deploy(&app(&world, "v2", &["sh", "-c", tell], &["sh", "-c", tell])).await.unwrap();
    world.rollback(None).await.unwrap();
    let told = std::fs::read_to_string(world.directory.path().join("told")).unwrap();
    assert_eq!(
        told, "before-deploy shop p1 r1 \nafter-deploy shop p1 r1 \nbefore-deploy shop p2 r2 r1\nafter-deploy shop p2 r2 r1\n",
        "going back runs none"
    );
    let variables = std::fs::read_to_string(world.directory.path().join("variables")).unwrap();
    let known = ["KALEEM_", "PATH=", "PWD=", "OLDPWD=", "SHLVL=", "_="];
    let strangers: Vec<_> = variables.lines().filter(|line| !known.iter().any(|known| line.starts_with(known))).collect();
    assert!(strangers.is_empty(), "nothing of this process' environment reaches them: {strangers:?}");
}

#[tokio::test]
async fn a_hook_that_fails_calls_the_deploy_off_before_anything_is_touched() {
    for (why, command, message) in [
        ("it fails", vec!["sh", "-c", "echo the tests are red; exit 3"], "ended with exit status: 3; its last lines:\nthe tests are red"),
        ("there is no such program", vec!["no-such-program"], "there is no program `no-such-program`"),
        ("it takes too long", vec!["sleep", "60"], "did not end within 0.5 s and was killed"),
    ] {
        let world = world();
        world.deploy(&app(&world, "v1", &[], &[])).await.unwrap();
        world.runtime.forget_calls();
        let ending = world.deploy(&app(&world, "v2", &command, &[])).await.unwrap();
        let Ending::Over(Outcome::RolledBack { error, serving, .. }) = ending else { panic!("{why}: {ending:?}") };
        assert!(error.contains(message), "{why}: {error}");
        assert_eq!(serving, Some(ReleaseId::new(1)), "{why}");
        assert_eq!(world.runtime.calls(), [], "{why}: nothing on the host was changed");
    }
}

#[tokio::test]
async fn a_hook_that_fails_after_the_deploy_is_a_leftover_and_the_release_serves() {
    let world = world();
    let ending = world.deploy(&app(&world, "v1", &[], &["false"])).await.unwrap();
    let Ending::Over(Outcome::Deployed { release, leftovers }) = ending else { panic!("{ending:?}") };
    assert_eq!((release, leftovers.len()), (ReleaseId::new(1), 1));
    assert!(leftovers[0].contains("hook after-deploy"), "{leftovers:?}");
}

#[tokio::test]
async fn an_abort_ends_a_hook_and_all_that_it_started() {
    let world = world();
    world.deploy(&app(&world, "v1", &[], &[])).await.unwrap();
    let mut project = app(&world, "v2", &["sh", "-c", "sleep 600 & echo $! > child; wait"], &[]);
    project.settings.hooks.timeout = None;
    let work = world.kaleem.work(&world.project()).await.unwrap();
    let planned = world.kaleem.deploy_plan(&work, &project, &std::collections::BTreeMap::new()).await.unwrap();
    let mut run = world.kaleem.start(work, &planned).unwrap();
    let child = world.directory.path().join("child");
    while let Some(notice) = run.notices.recv().await {
        if matches!(notice, Notice::Started { step: 1, .. }) {
            while std::fs::read_to_string(&child).map_or(0, |text| text.len()) == 0 {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            run.control.abort();
        }
    }
    let ending = run.finish().await.unwrap();
    assert!(matches!(ending, Ending::Over(Outcome::Aborted { .. })), "{ending:?}");
    let pid = std::fs::read_to_string(child).unwrap();
    let gone = || std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).map_or(true, |stat| stat.contains(") Z "));
    for _ in 0..500 {
        if gone() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("what the hook started is still running");
}

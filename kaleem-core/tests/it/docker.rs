//! The engine's adapter against a real engine, and the fake against the same contract.

use std::sync::Arc;
use std::time::Duration;

use kaleem_core::image::{ImageSource, PinnedImage};
use kaleem_core::names::{ContainerName, ProjectName};
use kaleem_core::runtime::{ExecOutput, Runtime};
use kaleem_core::testing::runtime_contract::{self, ContractWorld};
use kaleem_core::testing::{Behaviour, ExecReply, FakeImage, FakeRuntime, free_port};

mod lab;
mod registry;
mod endpoints;
mod mapping;
mod pulls;
mod lives;
mod restart;
mod taken_over;

use lab::{Lab, lab, project};
use registry::Registry;

struct World {
    runtime: Arc<dyn Runtime>,
    project: ProjectName,
    runs: PinnedImage,
    exits: PinnedImage,
    checked: PinnedImage,
    stubborn: PinnedImage,
    remote: PinnedImage,
}

impl ContractWorld for World {
    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::clone(&self.runtime)
    }
    fn project(&self) -> ProjectName {
        self.project.clone()
    }
    fn runs(&self) -> PinnedImage {
        self.runs.clone()
    }
    fn exits(&self) -> PinnedImage {
        self.exits.clone()
    }
    fn checked(&self) -> PinnedImage {
        self.checked.clone()
    }
    fn stubborn(&self) -> PinnedImage {
        self.stubborn.clone()
    }
    fn remote(&self) -> Option<PinnedImage> {
        Some(self.remote.clone())
    }
    fn command(&self) -> Vec<String> {
        vec!["/app".to_owned(), "hello".to_owned()]
    }
    fn endless_command(&self) -> Vec<String> {
        vec!["/app".to_owned(), "stay".to_owned()]
    }
    fn free_port(&self) -> u16 {
        free_port()
    }
}

fn local(name: &str, digit: &str) -> PinnedImage {
    PinnedImage {
        image: name.parse().unwrap(),
        digest: format!("sha256:{}", digit.repeat(64)).parse().unwrap(),
        source: ImageSource::Local,
    }
}

#[tokio::test]
async fn the_fake_keeps_the_contract_of_the_engine() {
    let fake = FakeRuntime::new();
    let (runs, exits, checked, stubborn) = (local("runs:1", "1"), local("exits:1", "2"), local("checked:1", "3"), local("stubborn:1", "4"));
    let remote = PinnedImage { source: ImageSource::Registry, ..local("registry.example.com/remote:1", "5") };
    fake.add_local_image(&runs, FakeImage::of(&runs, Behaviour::Healthy));
    fake.add_local_image(&exits, FakeImage::of(&exits, Behaviour::ExitsAtOnce { code: 3, log: "leaving".to_owned() }));
    fake.add_local_image(&checked, FakeImage::of(&checked, Behaviour::HealthyAfter(2)).with_healthcheck());
    fake.add_local_image(&stubborn, FakeImage::of(&stubborn, Behaviour::IgnoresStop));
    fake.add_remote_image(&remote, FakeImage::of(&remote, Behaviour::Healthy));
    fake.on_exec(Arc::new(|_: &ContainerName, command: &[String]| match command.last().map(String::as_str) {
        Some("hello") => Some(ExecReply::Ends(ExecOutput { exit_code: 5, output: "hello\n".to_owned() })),
        Some("stay") => Some(ExecReply::Hangs),
        _ => None,
    }));
    let world = World { runtime: Arc::new(fake), project: "shop".parse().unwrap(), runs, exits, checked, stubborn, remote };
    let complaints = runtime_contract::run(&world).await;
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_docker_engine_keeps_the_contract() {
    let Some(lab) = lab().await else { return };
    let unique = serde_json::json!({ "Entrypoint": ["/app"], "Labels": { "unique": format!("{}", std::process::id()) } });
    let registry = Registry::serve(lab::pieces(&lab.program, &unique), None, 0).await;
    let world = World {
        runtime: Arc::new(lab.runtime.clone()),
        project: project("c"),
        runs: lab.runs.clone(),
        exits: lab.exits.clone(),
        checked: lab.checked.clone(),
        stubborn: lab.stubborn.clone(),
        remote: registry.image.clone(),
    };
    let complaints = runtime_contract::run(&world).await;
    remove_volumes(lab, world.project.as_str()).await;
    assert!(complaints.is_empty(), "{complaints:#?}");
}

/// The seams remove no volume; the tests do.
async fn remove_volumes(lab: &Lab, prefix: &str) {
    let volumes = lab.docker.list_volumes(None::<bollard::query_parameters::ListVolumesOptions>).await.unwrap();
    for volume in volumes.volumes.unwrap_or_default().into_iter().filter(|volume| volume.name.starts_with(prefix)) {
        lab.docker.remove_volume(&volume.name, None::<bollard::query_parameters::RemoveVolumeOptions>).await.unwrap();
    }
}

/// Waits for a condition, and fails when it does not come.
async fn wait_for<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    for _ in 0..400 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{what} did not come");
}

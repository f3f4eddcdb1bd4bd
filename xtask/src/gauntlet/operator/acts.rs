//! What is typed in each scene, and what must be true then.

use crate::fail::TaskError;
use crate::gauntlet::operator::claims;
use crate::gauntlet::operator::project::remove_directory;
use crate::gauntlet::operator::scene::Scene;
use crate::gauntlet::operator::stage::Stage;
use crate::gauntlet::operator::traffic::ask;
use crate::load::Route;

/// The published port and `container_name` stay: the gateway has both.
const SCALED: &str = "services:\n  api:\n    deploy: { replicas: 3 }\n";
const NETWORK: &str = "services:\n  api:\n    networks: [default, metrics]\nnetworks:\n  metrics: {}\n";
const VARIABLE: &str = "services:\n  api:\n    environment: { FEATURE: \"on\" }\n";
const LABELLED: &str = "services:\n  api:\n    labels: { team: shop }\n";
/// State of a second user, and a copy of the first one's.
const ANOTHER: &str = "state-of-another";
const COPY: &str = "state-copy";

impl Stage<'_> {
    pub(super) fn act(&mut self, scene: Scene) -> Result<(), TaskError> {
        match scene {
            Scene::TakeOver => {
                self.kaleem(&["plan"], &[0])?;
                let told = self.kaleem(&["deploy", "--allow-older"], &[0])?;
                self.runs_under_kaleem = told.said.code == Some(0);
                self.status()
            }
            Scene::Good => {
                let next = self.next();
                self.deploy(next)?;
                self.status()
            }
            Scene::NeverHealthy => self.bad("sick"),
            Scene::CrashLoop => self.bad("crash"),
            Scene::FailsAfterSwitch => self.bad("late"),
            Scene::Rollback => {
                let (before, next) = (self.serves.clone(), self.next());
                self.deploy(next)?;
                self.back_to(&before)
            }
            Scene::RollbackAfterTwo => self.rollback_after_two(),
            Scene::ScaleUp => {
                self.change(SCALED)?;
                self.count(3)
            }
            Scene::NetworkAdded => {
                self.change(NETWORK)?;
                let network = self.project.neighbour("metrics")?;
                let answer = ask(Route::Name("api".to_owned(), 3000), Some(network));
                self.project.leave("metrics")?;
                let right = answer.as_ref().is_ok_and(|version| *version == self.serves);
                self.unless(right, || format!("from the new network the name `api` answers {answer:?}"))
            }
            Scene::PortAdded => {
                let port = self.project.spare();
                self.change(&format!("services:\n  api:\n    ports: [\"127.0.0.1:{port}:3000\"]\n"))?;
                let answer = ask(Route::Plain(([127, 0, 0, 1], port).into()), None);
                let right = answer.as_ref().is_ok_and(|version| *version == self.serves);
                self.unless(right, || format!("the new port answers {answer:?}"))
            }
            Scene::PortRemoved => {
                self.change("")?;
                let answer = ask(Route::Plain(([127, 0, 0, 1], self.project.spare()).into()), None);
                self.unless(answer.is_err(), || "the removed port still answers".to_owned())
            }
            Scene::ScaleDown => {
                self.change("")?;
                self.count(1)
            }
            Scene::NetworkRemoved => self.change(""),
            Scene::VariableChanged => {
                self.change(VARIABLE)?;
                let variables = self.project.inspect("api", "{{.Config.Env}}")?;
                self.unless(variables.contains("FEATURE=on"), || format!("the variable is not in what runs: {variables}"))
            }
            Scene::LabelChanged => {
                self.change(LABELLED)?;
                let labels = self.project.inspect("api", "{{.Config.Labels}}")?;
                self.unless(labels.contains("team:shop"), || format!("the label is not on what runs: {labels}"))
            }
            Scene::Workers => self.workers(),
            Scene::ComposeOver => self.compose_over(),
            Scene::StateRemoved => {
                let before = self.project.containers()?;
                remove_directory(&self.project.beside("state"))?;
                self.settle_state()?;
                let changed = claims::changed(&before, &self.project.containers()?);
                self.unless(changed.is_empty(), || {
                    format!("a lost state directory made {changed:?} new, and nothing about them has changed")
                })?;
                let next = self.next();
                self.deploy(next)?;
                self.status()
            }
            Scene::StateRestored => {
                let (state, copy) = (self.project.beside("state"), self.project.beside(COPY));
                copy_directory(&state, &copy)?;
                for _ in 0..2 {
                    let next = self.next();
                    self.deploy(next)?;
                }
                remove_directory(&state)?;
                copy_directory(&copy, &state)?;
                remove_directory(&copy)?;
                self.settle_state()?;
                let next = self.next();
                self.deploy(next)?;
                self.status()
            }
            Scene::SecondUser => self.second_user(),
            Scene::DoctorRepair => {
                let before = self.project.containers()?;
                self.kaleem(&["doctor"], &[0])?;
                self.kaleem(&["doctor", "--repair", "--yes"], &[0])?;
                self.unless(self.project.containers()? == before, || "containers are not the same as before".to_owned())?;
                self.status()
            }
            Scene::Eject => self.eject(),
        }
    }

    fn unless(&mut self, right: bool, what: impl FnOnce() -> String) -> Result<(), TaskError> {
        if !right {
            self.fault(what());
        }
        Ok(())
    }

    /// A good version that does not serve.
    fn next(&self) -> &'static str {
        match self.serves.as_str() {
            "o1" => "o2",
            "o2" => "o3",
            "o3" => "o4",
            _ => "o1",
        }
    }

    fn deploy(&mut self, version: &str) -> Result<(), TaskError> {
        self.set(version);
        self.kaleem(&["deploy", "--allow-older"], &[0]).map(drop)
    }

    /// A version that must not stay: what served before serves.
    fn bad(&mut self, version: &str) -> Result<(), TaskError> {
        let before = self.serves.clone();
        self.project.set_api(version);
        self.kaleem(&["deploy", "--allow-older"], &[10])?;
        self.set(&before);
        self.status()
    }

    fn back_to(&mut self, version: &str) -> Result<(), TaskError> {
        self.kaleem(&["rollback"], &[0])?;
        self.set(version);
        self.status()
    }

    fn rollback_after_two(&mut self) -> Result<(), TaskError> {
        let good = self.serves.clone();
        let first = self.next();
        self.deploy(first)?;
        self.back_to(&good)?;
        // Not that one again.
        self.serves = first.to_owned();
        let second = self.next();
        self.serves.clone_from(&good);
        self.bad("sick")?;
        self.deploy(second)?;
        self.back_to(&good)
    }

    /// Other files, the same image.
    fn change(&mut self, text: &str) -> Result<(), TaskError> {
        self.project.change((!text.is_empty()).then_some(text))?;
        self.kaleem(&["deploy", "--allow-older"], &[0])?;
        self.status()
    }

    fn count(&mut self, wanted: usize) -> Result<(), TaskError> {
        let containers = self.project.containers()?;
        let api = containers.iter().filter(|container| container.runs && container.service.as_deref() == Some("api")).count();
        self.unless(api == wanted, || format!("{api} instances of the API run instead of {wanted}"))
    }

    /// A check that has never passed cannot be what a new release is held to, unless the plan says so before anything is touched.
    fn workers(&mut self) -> Result<(), TaskError> {
        let (api, workers, next) = (self.serves.clone(), self.workers.clone(), self.next());
        self.set(next);
        self.set_workers(next);
        let told = self.kaleem(&["deploy", "--allow-older"], &[0, 4])?;
        if told.said.code != Some(0) {
            self.set(&api);
            self.set_workers(&workers);
            let named = told.said.text.contains("ai-worker");
            self.unless(told.said.code != Some(4) || named, || "the deploy was refused without naming ai-worker".to_owned())?;
        }
        self.status()
    }

    fn compose_over(&mut self) -> Result<(), TaskError> {
        let next = self.next();
        self.set(next);
        // It removes what kaleem runs. Where the gateway holds the published port, it fails after that.
        self.compose(&["up", "-d", "--no-deps", "api"])?;
        let told = self.kaleem(&["status"], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 20, 21, 22, 23])?;
        self.unless(told.said.code != Some(0), || "`kaleem status` is green after Compose has replaced what kaleem runs".to_owned())?;
        self.kaleem(&["deploy", "--allow-older"], &[0])?;
        self.status()?;
        // Requests that wait for an answer since before do not count.
        std::thread::sleep(std::time::Duration::from_secs(10));
        let failed = self.failed_so_far();
        std::thread::sleep(self.around());
        let more = self.failed_so_far() - failed;
        self.unless(more == 0, || format!("{more} requests failed after `kaleem deploy` had healed the project"))
    }

    /// A deploy of what already runs, with a state directory that knows less than the engine.
    fn settle_state(&mut self) -> Result<(), TaskError> {
        self.types_status()?;
        let told = self.kaleem(&["deploy", "--allow-older"], &[0, 4])?;
        if told.said.code == Some(4) {
            if !told.said.text.contains("kaleem adopt") {
                self.fault("`kaleem deploy` was refused without naming a way out".to_owned());
            }
            self.kaleem(&["adopt", "--yes"], &[0])?;
            self.kaleem(&["deploy", "--allow-older"], &[0])?;
        }
        self.status()
    }

    /// `status` may say that it does not know, and must not claim what is not true.
    fn types_status(&mut self) -> Result<(), TaskError> {
        let any: Vec<i32> = (0..64).collect();
        self.kaleem(&["status"], &any).map(drop)
    }

    fn second_user(&mut self) -> Result<(), TaskError> {
        let (own, next) = (self.serves.clone(), self.next());
        let before = self.project.containers()?;
        self.project.set_state(ANOTHER);
        self.project.set_api(next);
        let refused = self.kaleem(&["deploy", "--allow-older"], &[4, 5])?;
        self.set(&own);
        self.unless(self.project.containers()? == before, || "a second user's deploy was refused and changed containers".to_owned())?;
        if refused.said.text.contains("kaleem adopt") {
            self.kaleem(&["adopt", "--yes"], &[0])?;
            self.deploy(next)?;
            self.status()?;
            self.project.set_state("state");
            self.kaleem(&["deploy", "--allow-older"], &[4, 5])?;
            self.kaleem(&["adopt", "--yes"], &[0])?;
        }
        self.project.set_state("state");
        remove_directory(&self.project.beside(ANOTHER))?;
        self.deploy(self.next())?;
        self.status()
    }

    fn eject(&mut self) -> Result<(), TaskError> {
        self.kaleem(&["eject"], &[0])?;
        self.runs_under_kaleem = false;
        let before = self.project.containers()?;
        let up = self.compose(&["up", "-d"])?;
        self.unless(up.said.code == Some(0), || format!("after eject `docker compose up -d` failed:\n{}", up.said.text))?;
        let after = self.project.containers()?;
        // A one-shot is run again by every `up`.
        let changed = claims::changed(&before, &after);
        let changed: Vec<&String> = changed.iter().filter(|service| *service != "migrate").collect();
        self.unless(changed.is_empty(), || format!("after eject `docker compose up -d` recreated {changed:?}:\n{}", up.said.text))
    }
}

fn copy_directory(from: &std::path::Path, to: &std::path::Path) -> Result<(), TaskError> {
    let failed = |source| TaskError::File { operation: "copy", path: from.to_path_buf(), source };
    crate::place::create_directory(to)?;
    for entry in std::fs::read_dir(from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() {
            copy_directory(&path, &target)?;
        } else if kind.is_file() {
            crate::place::copy(&path, &target)?;
        }
    }
    Ok(())
}

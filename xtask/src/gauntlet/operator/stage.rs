//! Plays scenes: brings the project to where a scene begins, lets the load flow, types the commands, and compares.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kaleem_core::clock::{Clock, SystemClock};

use crate::chance::Seed;
use crate::fail::TaskError;
use crate::gauntlet::operator::claims;
use crate::gauntlet::operator::project::{Container, Project, STORES, Said};
use crate::gauntlet::operator::scene::{Row, Scene, Told};
use crate::gauntlet::operator::traffic::{Door, Doors, Load};
use crate::programs::wait_until;
use crate::say;

/// How long doors may take to answer where nothing is measured.
const SETTLES: Duration = Duration::from_secs(120);
/// The same where a scene has just ended: what answers only later is lost to those who ask now.
const ANSWERS_AFTERWARDS: Duration = Duration::from_secs(1);

/// What an operator writes for a worker whose image has a check that it cannot pass.
const WORKER_CHECK: &str =
    "[services.ai-worker]\nstrategy = \"overlap\"\n\n[services.ai-worker.health]\ncommand = [\"/shop\", \"check\", \"worker\"]\n";

/// How a scene is loaded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Requests a second at each door.
    pub per_second: u32,
    /// Load before and after the commands.
    pub around: Duration,
    /// Where chance begins.
    pub seed: Seed,
}

/// The project with what is known of it.
pub(super) struct Stage<'a> {
    pub(super) project: &'a Project<'a>,
    pace: Pace,
    interrupted: Arc<AtomicBool>,
    neighbour: Option<PathBuf>,
    /// A door that the files of the scene do not have.
    closed: Option<Door>,
    /// The version that must answer.
    pub(super) serves: String,
    /// The version of the services beside the API.
    pub(super) workers: String,
    pub(super) runs_under_kaleem: bool,
    scenes: u64,
    /// What the scene that is being played has shown.
    told: Vec<Told>,
    faults: Vec<String>,
    load: Option<Load>,
}

impl<'a> Stage<'a> {
    /// Nothing runs yet.
    pub(super) fn new(project: &'a Project<'a>, pace: Pace, interrupted: Arc<AtomicBool>) -> Self {
        Self {
            project,
            pace,
            interrupted,
            neighbour: None,
            closed: None,
            serves: "o1".to_owned(),
            workers: "o1".to_owned(),
            runs_under_kaleem: false,
            scenes: 0,
            told: Vec::new(),
            faults: Vec::new(),
            load: None,
        }
    }

    fn doors(&self) -> Doors {
        let mut doors = self.project.doors(self.neighbour.clone().unwrap_or_default());
        doors.routes.retain(|door, _| Some(*door) != self.closed);
        doors
    }

    fn answers(&self) -> bool {
        let doors = self.doors();
        claims::agreed(&doors.versions()).is_ok_and(|version| version == self.serves)
    }

    fn go_on(&self) -> Result<(), TaskError> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(TaskError::Unexpected { what: "interrupted; everything that was made is removed".to_owned() });
        }
        Ok(())
    }

    /// From nothing to a project that Compose runs.
    fn up(&mut self) -> Result<(), TaskError> {
        say::line("    docker compose up -d");
        self.project.change(None)?;
        self.project.clean()?;
        self.project.set_state("state");
        self.set("o1");
        self.set_workers("o1");
        self.runs_under_kaleem = false;
        let up = self.project.compose(&["up", "-d"])?;
        if up.code != Some(0) {
            return Err(TaskError::Unexpected { what: format!("docker compose up -d failed:\n{}", up.text) });
        }
        self.neighbour = Some(self.project.neighbour("default")?);
        self.settle()
    }

    fn settle(&self) -> Result<(), TaskError> {
        if wait_until(SETTLES, || self.answers() || self.interrupted.load(Ordering::Relaxed)) {
            return self.go_on();
        }
        let log = self.project.log().to_path_buf();
        Err(TaskError::Silent { what: "the operator's project".to_owned(), seconds: SETTLES.as_secs(), log })
    }

    /// From now on this version is what the files name.
    pub(super) fn set(&mut self, version: &str) {
        version.clone_into(&mut self.serves);
        self.project.set_api(version);
    }

    pub(super) fn set_workers(&mut self, version: &str) {
        version.clone_into(&mut self.workers);
        self.project.set_workers(version);
    }

    /// Brings the project to where a scene begins: every door answers, and kaleem runs it unless it is to be taken over.
    fn begin(&mut self, scene: Scene) -> Result<(), TaskError> {
        let wanted = scene != Scene::TakeOver;
        if !wanted {
            self.project.write_settings(None)?;
        }
        if self.neighbour.is_none() || (self.runs_under_kaleem && !wanted) {
            self.up()?;
        }
        if wanted && !self.runs_under_kaleem {
            say::line("    kaleem deploy, not measured");
            self.adopt_quietly()?;
        }
        if scene.undoes().is_none() {
            self.project.change(None)?;
        }
        if wanted && !wait_until(Duration::from_secs(5), || self.answers()) {
            self.put_right()?;
        }
        Ok(())
    }

    /// An earlier scene has left doors that do not answer: as a person would do, and from nothing where that does not help.
    fn put_right(&mut self) -> Result<(), TaskError> {
        say::line("    an earlier scene has left doors that do not answer as they must: deploying o1, restarting the proxies");
        self.project.set_api("o1");
        self.serves = "o1".to_owned();
        if self.project.kaleem(&["deploy", "--allow-older"])?.code == Some(0) {
            self.restart_proxies()?;
            if wait_until(Duration::from_secs(20), || self.answers()) {
                return Ok(());
            }
        }
        say::line("    they still do not: beginning from nothing");
        self.up()?;
        self.adopt_quietly()?;
        if !wait_until(Duration::from_secs(5), || self.answers()) {
            self.restart_proxies()?;
        }
        self.settle()
    }

    fn restart_proxies(&self) -> Result<(), TaskError> {
        let containers = self.project.containers()?;
        let is_proxy = |container: &&Container| container.service.as_ref().is_some_and(|service| service.starts_with("lb"));
        let running = containers.iter().filter(|container| container.runs).filter(is_proxy);
        let proxies: BTreeSet<&str> = running.map(|container| container.id.as_str()).collect();
        if proxies.is_empty() { Ok(()) } else { self.project.restart(&proxies) }
    }

    /// Brings the project under kaleem outside of any scene. What that must be like is judged by the scene of the take-over.
    fn adopt_quietly(&mut self) -> Result<(), TaskError> {
        if !is_adopted(&self.project.kaleem(&["deploy", "--allow-older"])?) {
            say::line("    it failed; once more with a health check for ai-worker in kaleem.toml, as its message asks for");
            self.project.write_settings(Some(WORKER_CHECK))?;
            let said = self.project.kaleem(&["deploy", "--allow-older"])?;
            if !is_adopted(&said) {
                return Err(TaskError::Unexpected { what: format!("`{}` ended with {:?}:\n{}", said.command, said.code, said.text) });
            }
        }
        self.runs_under_kaleem = true;
        Ok(())
    }

    /// Plays one scene under load.
    pub(super) fn play(&mut self, scene: Scene) -> Result<Row, TaskError> {
        self.go_on()?;
        say::step(scene.title());
        self.closed = None;
        self.begin(scene)?;
        self.closed = scene.closes();
        self.scenes += 1;
        let prefix = format!("s{}", self.scenes);
        let stores = self.project.containers()?;
        let seed = self.pace.seed.branch(self.scenes);
        self.load = Some(Load::start(&self.doors(), self.pace.per_second, &prefix, seed)?);
        std::thread::sleep(self.pace.around);
        let begun = SystemClock.monotonic();
        let acted = self.act(scene);
        let took = SystemClock.monotonic().saturating_sub(begun);
        let lost = self.lost_doors();
        std::thread::sleep(self.pace.around);
        let tally = match self.load.take() {
            Some(load) => load.stop()?,
            None => Default::default(),
        };
        acted?;
        self.faults.extend(lost);
        let now = self.project.containers()?;
        let changed = claims::changed(&stores, &now);
        for store in STORES.into_iter().filter(|store| scene != Scene::Eject && changed.contains(*store)) {
            self.fault(format!("{store} was recreated or restarted, and nothing about it has changed"));
        }
        self.orders(&tally.confirmed, &prefix);
        let row = Row { scene, tally, told: std::mem::take(&mut self.told), took, faults: std::mem::take(&mut self.faults) };
        tell(&row);
        Ok(row)
    }

    /// Doors that do not answer with what must serve, once the commands have ended.
    fn lost_doors(&self) -> Vec<String> {
        let doors = self.doors();
        let right = |door: Door| doors.version(door).is_ok_and(|version| version == self.serves);
        let lost = doors.routes.keys().copied().filter(|door| !wait_until(ANSWERS_AFTERWARDS, || right(*door)));
        let told = |door: Door| match doors.version(door) {
            Ok(version) => format!("afterwards {} answers {version} instead of {}", door.title(), self.serves),
            Err(reason) => format!("afterwards {} does not answer: {reason}", door.title()),
        };
        lost.map(told).collect()
    }

    fn orders(&mut self, confirmed: &BTreeSet<String>, prefix: &str) {
        match self.doors().orders(&format!("{prefix}-")) {
            Ok(recorded) => {
                let lost = confirmed.iter().filter(|id| !recorded.contains_key(*id)).count();
                let doubled = recorded.values().filter(|count| **count > 1).count();
                if lost + doubled > 0 {
                    self.fault(format!("{lost} confirmed orders are lost, {doubled} came twice"));
                }
            }
            Err(reason) => self.fault(format!("the orders cannot be asked for: {reason}")),
        }
    }

    /// Takes note of something that is not as it must be.
    pub(super) fn fault(&mut self, what: String) {
        self.faults.push(what);
    }

    /// Types a command of kaleem's and compares what it printed with what is: its exit code, `serving:`, and what it said it would keep.
    pub(super) fn kaleem(&mut self, arguments: &[&str], codes: &[i32]) -> Result<Told, TaskError> {
        let before = self.project.containers()?;
        let told = self.types(|project| project.kaleem(arguments))?;
        let (command, text) = (told.said.command.clone(), &told.said.text);
        if !told.said.code.is_some_and(|code| codes.contains(&code)) {
            self.fault(format!("`{command}` ended with {:?} instead of {codes:?}", told.said.code));
        }
        let answers = self.doors().versions();
        if let Some(lie) = claims::of_serving(text, &answers, &self.workers) {
            self.fault(format!("`{command}`: {lie}"));
        }
        let now = self.project.containers()?;
        let changed = claims::changed(&before, &now);
        for service in claims::kept(text).into_iter().filter(|service| changed.contains(*service)) {
            self.fault(format!("`{command}` said that it keeps {service}, and its container is another one"));
        }
        for name in claims::orders_to_remove(text, &now) {
            self.fault(format!("`{command}` tells a person to stop or remove {name}, which runs"));
        }
        Ok(told)
    }

    /// Types a command of Compose's.
    pub(super) fn compose(&mut self, arguments: &[&str]) -> Result<Told, TaskError> {
        self.types(|project| project.compose(arguments))
    }

    fn types(&mut self, run: impl FnOnce(&Project<'_>) -> Result<Said, TaskError>) -> Result<Told, TaskError> {
        self.go_on()?;
        let met = |load: &Option<Load>| load.as_ref().map(Load::so_far).map_or((0, 0), |tally| (tally.sent(), tally.failed()));
        let before = met(&self.load);
        let said = run(self.project)?;
        let after = met(&self.load);
        let told = Told { said, sent: after.0 - before.0, failed: after.1 - before.1 };
        self.told.push(told.clone());
        Ok(told)
    }

    /// `status` must say in its exit code whether the project serves as it should.
    pub(super) fn status(&mut self) -> Result<(), TaskError> {
        let well = claims::agreed(&self.doors().versions()).is_ok();
        let told = self.types(|project| project.kaleem(&["status"]))?;
        let green = told.said.code == Some(0);
        if green != well {
            let answers = if well { "every door answers" } else { "not every door answers" };
            self.fault(format!("`kaleem status` ended with {:?}, and {answers}", told.said.code));
        }
        Ok(())
    }

    /// Requests that failed so far.
    pub(super) fn failed_so_far(&self) -> u64 {
        self.load.as_ref().map_or(0, |load| load.so_far().failed())
    }

    /// Load before and after the commands.
    pub(super) fn around(&self) -> Duration {
        self.pace.around
    }
}

/// Whether a deploy came to its end, also where something that it did not touch is unhealthy.
fn is_adopted(said: &Said) -> bool {
    /// What `status` ends with where something that should serve does not.
    const DEGRADED: i32 = 22;
    matches!(said.code, Some(0 | DEGRADED))
}

/// What a person who waits wants to know.
fn tell(row: &Row) {
    for told in &row.told {
        let said = &told.said;
        let code = said.code.map_or_else(|| "a signal".to_owned(), |code| code.to_string());
        let seconds = said.took.as_secs_f64();
        say::line(&format!("    {:<44} {seconds:>6.1} s  exit {code:<6}  {} sent, {} failed", said.command, told.sent, told.failed));
    }
    for (door, count) in row.tally.doors.iter().filter(|(_, count)| count.failed > 0) {
        let refused = count.refused().as_millis();
        say::line(&format!("    {}: {} of {} failed, turned away for {refused} ms", door.title(), count.failed, count.sent));
        for (reason, times) in &count.reasons {
            say::line(&format!("        {times} x {reason}"));
        }
    }
    for fault in row.all_faults() {
        say::line(&format!("    FAULT: {fault}"));
    }
}

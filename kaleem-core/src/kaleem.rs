//! The front door for programs that embed kaleem: plan, deploy, go back, resume, and know what serves.
//!
//! It prints nothing, asks for no terminal, reads no environment and ends no process. What happens comes as a stream of
//! [`Notice`]s.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use futures_util::Stream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use crate::backup::BackupSets;
use crate::clock::{Clock, SystemClock};
use crate::config::Project;
use crate::definition::Definition;
use crate::durable::{self, DurableError};
use crate::engine::{Control, Ending, Engine, GatewayControl, Notice, RetryStuck};
use crate::health::Probes;
use crate::history::History;
use crate::image::ImageRef;
use crate::journal::{Event, Journal, Next};
use crate::lease::host::HostLock;
use crate::lease::{self, Holder, Lease};
use crate::names::{PlanId, ProjectName, ReleaseId, ServiceName};
use crate::observed::doors::{self, Proposal};
use crate::observed::owner::{Ownership, ProjectFiles, Standing};
use crate::outcome::{Outcome, Resolution};
use crate::plan::{Objection, Plan, PlanKind, Severity, Step, older};
use crate::registry::ImageRegistry;
use crate::release::Release;
use crate::runtime::{Instance, Runtime};
use crate::state::{DefinitionKey, StateDirectory};

mod contents;
pub mod error;
pub mod leaving;
pub mod owning;
mod giving_back;
mod builder;
mod planning;
mod program;
pub mod restart;
pub mod wishes;

pub use builder::KaleemBuilder;
pub use error::KaleemError;
pub use wishes::Wishes;

use owning::Claim;
use planning::{Asked, Known, MakeImage};

/// Everything kaleem works with. Clones share it.
#[derive(Clone)]
pub struct Kaleem {
    runtime: Arc<dyn Runtime>,
    registry: Arc<dyn ImageRegistry>,
    probes: Arc<dyn Probes>,
    clock: Arc<dyn Clock>,
    state: PathBuf,
    owner: String,
    user: String,
    author: Option<String>,
    files: Option<ProjectFiles>,
    gateways: Option<GatewayParts>,
    programs: Arc<program::Programs>,
    hook_environment: BTreeMap<String, String>,
    backups: Option<Arc<dyn BackupSets>>,
}

/// What is needed to set up gateways and to steer them.
#[derive(Clone)]
pub struct GatewayParts {
    /// Steers them, and says where their directories are.
    pub control: GatewayControl,
    /// The gateway's program: a static binary for Linux.
    pub program: PathBuf,
}

/// A plan, and what is needed to carry it out.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The plan.
    pub plan: Plan,
    /// What the operator should know of the images, by service.
    pub notes: BTreeMap<ServiceName, String>,
    definitions: Vec<Definition>,
}

impl Planned {
    /// What a person must agree to before it may be carried out, such as an image that goes back.
    pub fn asks(&self) -> Vec<&Objection> {
        self.plan.refusals().filter(|objection| is_asked(objection)).collect()
    }

    /// A person agreed to everything that `rule` has to say: [`older::GOES_BACK`], [`older::SERVICE_GONE`]. Other rules go on refusing.
    pub fn agree(&mut self, rule: &str) {
        for objection in self.plan.objections.iter_mut().filter(|objection| objection.rule == rule && is_asked(objection)) {
            objection.severity = Severity::Warn;
        }
    }

    /// What containers of the release are to be. They may hold secrets.
    pub fn definitions(&self) -> &[Definition] {
        &self.definitions
    }
}

/// Whether a person may agree to what a rule refuses.
fn is_asked(objection: &Objection) -> bool {
    matches!(objection.rule.as_str(), older::GOES_BACK | older::SERVICE_GONE)
}

/// What a rollback does about data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RollbackData {
    /// It stays as it is.
    Leave,
    /// It is put back as it was when the release was left.
    PutBack,
}

/// A plan under way.
#[derive(Debug)]
pub struct Run {
    /// What happens, as it happens. Ends when the run ends.
    pub notices: UnboundedReceiver<Notice>,
    /// By which it is told to go back or to leave.
    pub control: Control,
    task: JoinHandle<Result<Ending, KaleemError>>,
}

impl Run {
    /// Waits for the end. Notices that were not taken are dropped. Dropping the run instead lets it go on.
    ///
    /// # Errors
    ///
    /// [`KaleemError`]; the journal is open, and can be resumed.
    pub async fn finish(self) -> Result<Ending, KaleemError> {
        drop(self.notices);
        self.task.await.map_err(|source| KaleemError::Crashed { source })?
    }
}

/// What happens, as it happens; ends when the run ends. Ask [`Run::finish`] how.
impl Stream for Run {
    type Item = Notice;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<Option<Notice>> {
        self.notices.poll_recv(context)
    }
}

/// What serves, what runs, and what is open.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// The release that serves, as the journals tell.
    pub serving: Option<Release>,
    /// All containers of the project.
    pub instances: Vec<Instance>,
    /// The plan that is not over.
    pub open: Option<OpenPlan>,
}

/// A plan that is not over.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenPlan {
    /// The plan.
    pub plan: Plan,
    /// What comes next.
    pub next: Next,
    /// Whether it is being rolled back.
    pub going_back: bool,
    /// Who works on it; `None` when it was interrupted.
    pub holder: Option<Holder>,
}

/// The right to change one project, until it is dropped or a run takes it.
#[derive(Debug)]
pub struct Work {
    /// Holds across users and state directories.
    lock: Option<HostLock>,
    /// Ends with this value.
    _lease: Lease,
    state: StateDirectory,
    key: DefinitionKey,
    history: History,
    ownership: Ownership,
}

impl Work {
    /// What was released before.
    pub fn history(&self) -> &History {
        &self.history
    }

    fn known(&self) -> Known<'_> {
        Known { state: &self.state, key: &self.key, history: &self.history, ownership: &self.ownership }
    }

    /// The plan that an earlier process left open.
    pub fn interrupted(&self) -> Option<&Plan> {
        self.history.open().map(|entry| &entry.plan)
    }
}

impl Kaleem {
    /// Begins to put one together from its seams.
    pub fn builder(runtime: Arc<dyn Runtime>, registry: Arc<dyn ImageRegistry>, probes: Arc<dyn Probes>) -> KaleemBuilder {
        let (clock, owner) = (Arc::new(SystemClock), "a program that embeds kaleem".to_owned());
        let state = PathBuf::from("/var/lib/kaleem");
        KaleemBuilder {
            kaleem: Kaleem {
                runtime,
                registry,
                probes,
                clock,
                state,
                user: owner.clone(),
                author: None,
                files: None,
                owner,
                gateways: None,
                programs: Arc::default(),
                hook_environment: BTreeMap::new(),
                backups: None,
            },
        }
    }

    /// The container engine.
    pub fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.runtime
    }

    /// The registries.
    pub fn registry(&self) -> &Arc<dyn ImageRegistry> {
        &self.registry
    }

    /// How gateways are steered, where there are any here.
    pub fn gateway_control(&self) -> Option<&GatewayControl> {
        self.gateways.as_ref().map(|parts| &parts.control)
    }

    /// The state directory of a project.
    pub fn state(&self, project: &ProjectName) -> StateDirectory {
        StateDirectory::new(&self.state, project)
    }

    /// What was released, as the journals tell.
    ///
    /// # Errors
    ///
    /// [`KaleemError::History`]
    pub fn history(&self, project: &ProjectName) -> Result<History, KaleemError> {
        History::load(&self.state(project)).map_err(|source| KaleemError::History { source })
    }

    /// What serves, what runs and what is open.
    ///
    /// # Errors
    ///
    /// [`KaleemError::History`], [`KaleemError::Runtime`]
    pub async fn status(&self, project: &ProjectName) -> Result<Status, KaleemError> {
        let history = self.history(project)?;
        let instances = self.runtime.list(project).await.map_err(|source| KaleemError::Runtime { source })?;
        let serving = history.serving().and_then(|id| history.release(id));
        Ok(Status { serving, instances, open: self.open_plan(project, &history) })
    }

    /// The plan that is not over, and who works on it.
    pub fn open_plan(&self, project: &ProjectName, history: &History) -> Option<OpenPlan> {
        let entry = history.open()?;
        let root = self.state(project).root().to_owned();
        let holder = if lease::is_held(&root) { lease::holder(&root) } else { None };
        Some(OpenPlan { plan: entry.plan.clone(), next: entry.progress.next(), going_back: entry.progress.is_going_back(), holder })
    }

    /// Whether services can get gateways here: their program is there, and needs nothing beside itself.
    pub fn has_gateways(&self) -> bool {
        self.gateways.as_ref().is_some_and(|parts| matches!(self.programs.digest(&parts.program), Ok(Some(_))))
    }

    /// What `kaleem deploy` would do. Nothing is changed, not even the state directory.
    ///
    /// # Errors
    ///
    /// [`KaleemError`]
    pub async fn plan_deploy(&self, project: &Project, images: &BTreeMap<ServiceName, ImageRef>) -> Result<Planned, KaleemError> {
        self.plan_deploy_with(project, images, &Wishes::none()).await
    }

    /// What `kaleem deploy` would do with more said than the files say. Nothing is changed, not even the state directory.
    ///
    /// # Errors
    ///
    /// [`KaleemError`]
    pub async fn plan_deploy_with(
        &self,
        project: &Project,
        images: &BTreeMap<ServiceName, ImageRef>,
        wishes: &Wishes,
    ) -> Result<Planned, KaleemError> {
        let state = self.state(&project.name);
        let mut history = self.history(&project.name)?;
        let files = ProjectFiles { directory: project.directory.clone(), files: project.files.clone() };
        let ownership = self.look(&project.name, Some(files), &history).await?.ownership;
        history.seen_on_host(ownership.plan, ownership.release);
        let key = state.key_or_ephemeral().map_err(|source| KaleemError::State { source })?;
        let known = Known { state: &state, key: &key, history: &history, ownership: &ownership };
        self.make_deploy(&Asked { project, images, wishes }, &known, MakeImage::No).await
    }

    /// What `kaleem rollback` would do. Nothing is changed.
    ///
    /// # Errors
    ///
    /// [`KaleemError::NoSuchRelease`], and the other variants.
    pub async fn plan_rollback(&self, project: &ProjectName, to: Option<ReleaseId>) -> Result<Planned, KaleemError> {
        let state = self.state(project);
        let mut history = self.history(project)?;
        let ownership = self.look(project, self.files.clone(), &history).await?.ownership;
        history.seen_on_host(ownership.plan, ownership.release);
        let key = state.key_or_ephemeral().map_err(|source| KaleemError::State { source })?;
        self.make_rollback(to, RollbackData::Leave, &Known { state: &state, key: &key, history: &history, ownership: &ownership }).await
    }

    /// Entries of `[front-door]` that a person may want: what the project's containers publish, and what its nginx passes on.
    ///
    /// # Errors
    ///
    /// [`KaleemError::Runtime`] when the engine cannot be asked.
    pub async fn propose_doors(&self, project: &Project) -> Result<Vec<Proposal>, KaleemError> {
        doors::propose(&self.runtime, &self.probes, project).await.map_err(|source| KaleemError::Runtime { source })
    }

    /// Takes the right to change the project.
    ///
    /// # Errors
    ///
    /// [`KaleemError::Lease`] when somebody else works on it, [`KaleemError::Owned`] when it belongs to another; [`KaleemError::State`],
    /// [`KaleemError::History`], [`KaleemError::Runtime`].
    pub async fn work(&self, project: &ProjectName) -> Result<Work, KaleemError> {
        self.take(project, Claim::Respect).await
    }

    /// Plans a deploy under the lease.
    ///
    /// # Errors
    ///
    /// [`KaleemError::Interrupted`] when an earlier plan is open: resume or abort it first. And the other variants.
    pub async fn deploy_plan(
        &self,
        work: &Work,
        project: &Project,
        images: &BTreeMap<ServiceName, ImageRef>,
    ) -> Result<Planned, KaleemError> {
        self.deploy_plan_with(work, project, images, &Wishes::none()).await
    }

    /// Plans a deploy under the lease, with more said than the files say.
    ///
    /// # Errors
    ///
    /// As [`Self::deploy_plan`].
    pub async fn deploy_plan_with(
        &self,
        work: &Work,
        project: &Project,
        images: &BTreeMap<ServiceName, ImageRef>,
        wishes: &Wishes,
    ) -> Result<Planned, KaleemError> {
        refuse_open(work)?;
        if self.files.is_none() {
            let files = ProjectFiles { directory: project.directory.clone(), files: project.files.clone() };
            let ownership = self.look(&project.name, Some(files), &work.history).await?.ownership;
            if let Standing::Foreign(foreign) = ownership.standing {
                return Err(KaleemError::Owned { foreign });
            }
        }
        self.make_deploy(&Asked { project, images, wishes }, &work.known(), MakeImage::Yes).await
    }

    /// Plans a rollback under the lease.
    ///
    /// # Errors
    ///
    /// [`KaleemError::Interrupted`], [`KaleemError::NoSuchRelease`], and the other variants.
    pub async fn rollback_plan(&self, work: &Work, to: Option<ReleaseId>) -> Result<Planned, KaleemError> {
        refuse_open(work)?;
        self.make_rollback(to, RollbackData::Leave, &work.known()).await
    }

    /// Plans a rollback that also puts the data back as it was when that release was left. Whoever writes is stopped meanwhile.
    ///
    /// # Errors
    ///
    /// [`KaleemError::NoDataOf`] when no set was made then, [`KaleemError::BackupsMissing`], and those of [`Self::rollback_plan`].
    pub async fn rollback_plan_with_data(&self, work: &Work, to: Option<ReleaseId>) -> Result<Planned, KaleemError> {
        refuse_open(work)?;
        self.make_rollback(to, RollbackData::PutBack, &work.known()).await
    }

    /// Carries a plan out, in a task of its own that goes on when the [`Run`] is dropped.
    ///
    /// # Errors
    ///
    /// [`KaleemError::Refused`] when a check forbids it; [`KaleemError::State`] and [`KaleemError::Journal`] when it cannot be
    /// written down. Nothing was touched.
    pub fn start(&self, work: Work, planned: &Planned) -> Result<Run, KaleemError> {
        self.refuse_unsteerable(&planned.plan)?;
        let refusals: Vec<Objection> = planned.plan.refusals().cloned().collect();
        if !refusals.is_empty() {
            return Err(KaleemError::Refused { objections: refusals });
        }
        work.state.put_definitions(&work.key, &planned.definitions).map_err(|source| KaleemError::State { source })?;
        let path = work.state.journal(planned.plan.id);
        let plan = Plan { by: self.author.clone(), ..planned.plan.clone() };
        let journal = Journal::begin(&path, &plan, self.clock.now()).map_err(|source| KaleemError::Journal { source })?;
        Ok(self.spawn(work, journal, RetryStuck::Never))
    }

    /// Goes on with the plan that an earlier process left open. A stuck one is tried once more.
    ///
    /// # Errors
    ///
    /// [`KaleemError::NothingOpen`], [`KaleemError::Journal`]
    pub fn resume(&self, work: Work) -> Result<Run, KaleemError> {
        let journal = open(&work)?;
        self.refuse_unsteerable(journal.progress().plan())?;
        Ok(self.spawn(work, journal, RetryStuck::Once))
    }

    /// Takes the open plan back. One that is committed already is finished instead.
    ///
    /// # Errors
    ///
    /// [`KaleemError::NothingOpen`], [`KaleemError::Journal`]
    pub fn abort(&self, work: Work) -> Result<Run, KaleemError> {
        let journal = open(&work)?;
        self.refuse_unsteerable(journal.progress().plan())?;
        let run = self.spawn(work, journal, RetryStuck::Once);
        run.control.abort();
        Ok(run)
    }

    /// Asks the process that works on the project to go back. It does so at its next step.
    ///
    /// # Errors
    ///
    /// [`KaleemError::NothingOpen`], [`KaleemError::Request`]
    pub fn request_abort(&self, project: &ProjectName) -> Result<PlanId, KaleemError> {
        let history = self.history(project)?;
        let plan = history.open().ok_or(KaleemError::NothingOpen)?.plan.id;
        match durable::create_new(&self.state(project).abort_request(plan), b"") {
            Ok(()) | Err(DurableError::Exists { .. }) => Ok(plan),
            Err(source) => Err(KaleemError::Request { source }),
        }
    }

    /// Settles a stuck plan by hand: a person says what serves. The host is not touched.
    ///
    /// # Errors
    ///
    /// [`KaleemError::NothingOpen`], [`KaleemError::NotStuck`], [`KaleemError::Journal`]
    pub fn resolve(&self, work: &Work, by: &str, resolution: Resolution) -> Result<Option<ReleaseId>, KaleemError> {
        let mut journal = open(work)?;
        if !matches!(journal.progress().next(), Next::Stuck { .. }) {
            return Err(KaleemError::NotStuck);
        }
        let failed = |source| KaleemError::Journal { source };
        journal.append(&Event::Resolved { by: by.to_owned(), resolution }, self.clock.now()).map_err(failed)?;
        let Next::Finish(outcome) = journal.progress().next() else { return Err(KaleemError::NotStuck) };
        let serving = outcome.serving();
        journal.append(&Event::Finished { outcome }, self.clock.now()).map_err(failed)?;
        Ok(serving)
    }

    fn refuse_unsteerable(&self, plan: &Plan) -> Result<(), KaleemError> {
        match steers(plan) {
            Some(service) if self.gateways.is_none() => Err(KaleemError::GatewaysMissing { service: service.clone() }),
            _ => Ok(()),
        }
    }

    fn spawn(&self, work: Work, mut journal: Journal, retry: RetryStuck) -> Run {
        let (sender, notices) = unbounded_channel();
        let control = Control::default();
        let engine = self.engine(&work, sender);
        let switch = control.clone();
        let task = tokio::spawn(async move {
            let mut work = work;
            let (plan, kind) = (journal.progress().plan().id, journal.progress().plan().kind);
            work.note(journal.progress().plan()).await;
            let ending = engine.drive(&mut journal, &switch, retry).await.map_err(|source| KaleemError::Journal { source })?;
            if matches!(ending, Ending::Over(_)) {
                // What cannot be tidied now is tidied by the next plan.
                durable::remove(&work.state.abort_request(plan)).ok();
                History::load(&work.state).and_then(|history| history.prune(&work.state)).ok();
            }
            let left = matches!(kind, PlanKind::Down | PlanKind::Eject) && matches!(ending, Ending::Over(Outcome::Deployed { .. }));
            match work.lock.take() {
                Some(lock) if left => lock.give_up().await,
                Some(lock) => lock.release().await,
                None => {}
            }
            drop(work);
            Ok(ending)
        });
        Run { notices, control, task }
    }

    fn engine(&self, work: &Work, sender: UnboundedSender<Notice>) -> Engine {
        // Nobody listens any more when the run was dropped.
        let observer = Arc::new(move |notice| drop(sender.send(notice)));
        Engine::new(self.runtime.clone(), self.probes.clone(), self.clock.clone(), work.state.clone(), work.key.clone(), observer)
            .with_gateways(self.gateways.as_ref().map(|parts| parts.control.clone()))
            .with_hook_environment(self.hook_environment.clone())
            .with_backups(self.backups.clone())
    }
}

/// Whether a plan steers gateways.
fn steers(plan: &Plan) -> Option<&ServiceName> {
    plan.steps
        .iter()
        .find(|step| {
            matches!(step, Step::Steer { .. } | Step::Hold { .. } | Step::Drain { .. } | Step::Watch { .. } | Step::Upgrade { .. })
        })
        .and_then(Step::service)
}

fn refuse_open(work: &Work) -> Result<(), KaleemError> {
    match work.interrupted() {
        Some(plan) => Err(KaleemError::Interrupted { plan: plan.id, release: plan.release.id }),
        None => Ok(()),
    }
}

fn open(work: &Work) -> Result<Journal, KaleemError> {
    let plan = work.interrupted().ok_or(KaleemError::NothingOpen)?;
    Journal::open(&work.state.journal(plan.id)).map_err(|source| KaleemError::Journal { source })
}

/// Where state is kept by default: for root, and for others below their own directory.
pub fn default_state_directory(root: bool, xdg_state_home: Option<&Path>, home: Option<&Path>) -> PathBuf {
    match (root, xdg_state_home, home) {
        (false, Some(state), _) => state.join("kaleem"),
        (false, None, Some(home)) => home.join(".local/state/kaleem"),
        _ => PathBuf::from("/var/lib/kaleem"),
    }
}

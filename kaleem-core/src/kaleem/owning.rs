//! Who owns a project: looked at before anything is planned, and written on the engine before anything is changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::planning::{Asked, MakeImage};
use super::{Kaleem, KaleemError, Planned, Work};
use crate::config::Project;
use crate::history::History;
use crate::lease::host::{HiddenWorker, HostLock, in_force, refuse_busy};
use crate::lease::worker::host;
use crate::names::{GatewayName, ProjectName, StateId};
use crate::observed::owner::{self, Disk, Here, Ownership, ProjectFiles, Remembered, Seen, Standing};
use crate::plan::{Plan, PlanKind, adopting};
use crate::runtime::marks::{Owner, OwnerMark};
use crate::runtime::{Instance, kaleem_labels};
use crate::state::StateDirectory;
use crate::traffic::Routing;

/// What is done about a project that belongs to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Nothing: it is refused.
    Respect,
    /// It is taken over. A process that cannot be seen from here is believed to work.
    Adopt,
    /// It is taken over, also from a process that cannot be seen from here.
    AdoptAndTakeLock,
}

/// Where the gateways of a project that was taken over are steered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatewaysFound {
    /// Where this program looks for them, or there are none.
    Here,
    /// Elsewhere, and this user can reach them there.
    Elsewhere {
        /// The directory.
        directory: PathBuf,
    },
    /// Elsewhere, and this user cannot: the next deploy replaces them.
    OutOfReach {
        /// The directory.
        directory: PathBuf,
    },
}

struct HostDisk;

impl Disk for HostDisk {
    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn canonical(&self, path: &Path) -> PathBuf {
        match (path.canonicalize(), path.parent(), path.file_name()) {
            (Ok(path), _, _) => path,
            // It was removed, or is not there yet: what it lies in is.
            (Err(_), Some(parent), Some(name)) => self.canonical(parent).join(name),
            (Err(_), _, _) => path.to_owned(),
        }
    }

    fn has_identity(&self, path: &Path, identity: &StateId) -> Option<bool> {
        StateDirectory::at(path).known_identity().ok().map(|found| found.as_ref() == Some(identity))
    }
}

/// What is there, and whose it is.
pub(super) struct Look {
    pub(super) ownership: Ownership,
    pub(super) instances: Vec<Instance>,
    mark: Option<OwnerMark>,
    here: Here,
}

impl Kaleem {
    /// Whose a project is. Nothing is changed.
    ///
    /// # Errors
    ///
    /// [`KaleemError::Runtime`], [`KaleemError::History`], [`KaleemError::State`]
    pub async fn ownership(&self, project: &ProjectName) -> Result<Ownership, KaleemError> {
        Ok(self.look(project, self.files.clone(), &self.history(project)?).await?.ownership)
    }

    /// What was released, as the journals and the host tell.
    ///
    /// # Errors
    ///
    /// As [`Self::ownership`].
    pub async fn history_on_host(&self, project: &ProjectName) -> Result<History, KaleemError> {
        let mut history = self.history(project)?;
        let ownership = self.look(project, None, &history).await?.ownership;
        history.seen_on_host(ownership.plan, ownership.release);
        Ok(history)
    }

    /// Whether work on the project may begin here: nobody works on it, and it is not another's. Damaged journals are no hindrance.
    ///
    /// # Errors
    ///
    /// [`KaleemError::Lease`], [`KaleemError::Owned`], [`KaleemError::Runtime`], [`KaleemError::State`]
    pub async fn admits(&self, project: &ProjectName) -> Result<(), KaleemError> {
        let history = self.history(project).unwrap_or_default();
        let look = self.look(project, self.files.clone(), &history).await?;
        refuse_busy(look.mark.as_ref(), HiddenWorker::MayWork).map_err(|source| KaleemError::Lease { source })?;
        match look.ownership.standing {
            Standing::Foreign(foreign) => Err(KaleemError::Owned { foreign }),
            Standing::Free | Standing::Ours | Standing::Behind { .. } | Standing::Lost => Ok(()),
        }
    }

    pub(super) async fn look(&self, project: &ProjectName, files: Option<ProjectFiles>, history: &History) -> Result<Look, KaleemError> {
        let failed = |source| KaleemError::Runtime { source };
        let mark = in_force(&self.runtime, project).await.map_err(failed)?;
        let instances = self.runtime.list(project).await.map_err(failed)?;
        let state = self.state(project);
        let here = Here {
            state: state.known_identity().map_err(|source| KaleemError::State { source })?,
            state_directory: HostDisk.canonical(state.root()),
            host: host(),
            user: self.user.clone(),
            files,
        };
        let steered = self.steered(&instances).await;
        let seen = Seen { project, mark: mark.as_ref(), instances: &instances, steered: &steered };
        let known = Remembered { plan: history.newest_plan(), release: history.newest_release() };
        let ownership = owner::judge(&seen, &here, known, &HostDisk);
        Ok(Look { ownership, instances, mark, here })
    }

    /// Takes a project over from another owner, with the right to change it. Nothing of what runs is touched.
    ///
    /// # Errors
    ///
    /// As [`Kaleem::work`], but for [`KaleemError::Owned`].
    pub async fn adopt(&self, project: &ProjectName, claim: Claim) -> Result<Work, KaleemError> {
        self.take(project, claim).await
    }

    /// Where the gateways that run are steered, when that is not where this program would look. They go on being steered there.
    ///
    /// # Errors
    ///
    /// [`KaleemError::Runtime`], [`KaleemError::State`]
    pub async fn adopt_gateways(&self, work: &Work, project: &ProjectName) -> Result<GatewaysFound, KaleemError> {
        let Some(parts) = &self.gateways else { return Ok(GatewaysFound::Here) };
        let instances = self.runtime.list(project).await.map_err(|source| KaleemError::Runtime { source })?;
        let mut found = GatewaysFound::Here;
        for gateway in owner::gateways(&instances) {
            let of =
                instances.iter().find(|instance| instance.labels.get(kaleem_labels::GATEWAY).map(String::as_str) == Some(gateway.as_str()));
            let Some(directory) = of.and_then(|instance| instance.labels.get(kaleem_labels::GATEWAYS)).map(PathBuf::from) else { continue };
            if directory == parts.control.directory {
                continue;
            }
            if !directory.join(gateway.as_str()).join("control.sock").exists() {
                return Ok(GatewaysFound::OutOfReach { directory });
            }
            found = GatewaysFound::Elsewhere { directory };
        }
        if let GatewaysFound::Elsewhere { directory } = &found {
            work.state.put_gateways(directory).map_err(|source| KaleemError::State { source })?;
        }
        Ok(found)
    }

    /// What is written down of a project that was taken over: a release of what runs. `None` where the journals know it already.
    ///
    /// # Errors
    ///
    /// [`KaleemError`]
    pub async fn adopt_plan(&self, work: &Work, project: &Project) -> Result<Option<Planned>, KaleemError> {
        super::refuse_open(work)?;
        if work.history.serving().is_some() {
            return Ok(None);
        }
        let instances = self.runtime.list(&project.name).await.map_err(|source| KaleemError::Runtime { source })?;
        if instances.is_empty() {
            return Err(KaleemError::NothingReleased);
        }
        let (images, wishes) = (BTreeMap::new(), super::Wishes::none());
        let asked = Asked { project, images: &images, wishes: &wishes };
        let deploy = self.make_deploy(&asked, &work.known(), MakeImage::Yes).await?;
        let plan = adopting::adopt(&deploy.plan, &instances);
        Ok(Some(Planned { plan, ..deploy }))
    }

    /// How the gateways are steered. One that cannot be asked is found out about when it is steered.
    async fn steered(&self, instances: &[Instance]) -> BTreeMap<GatewayName, Routing> {
        let Some(parts) = self.gateways.as_ref() else { return BTreeMap::new() };
        let asked = owner::gateways(instances).into_iter().map(|gateway| async move {
            let stats = parts.control.traffic.stats(&gateway).await.ok()?;
            Some((gateway, stats.routing?))
        });
        futures_util::future::join_all(asked).await.into_iter().flatten().collect()
    }

    /// Takes the right to change the project, unless somebody works on it or it belongs to another.
    pub(super) async fn take(&self, project: &ProjectName, claim: Claim) -> Result<Work, KaleemError> {
        let state = self.state(project);
        state.prepare().map_err(|source| KaleemError::State { source })?;
        let lease = crate::lease::Lease::take(state.root(), &self.owner, self.clock.clone());
        let lease = lease.await.map_err(|source| KaleemError::Lease { source })?;
        let mut history = self.history(project)?;
        let look = self.look(project, self.files.clone(), &history).await?;
        let hidden = if claim == Claim::AdoptAndTakeLock { HiddenWorker::IsOver } else { HiddenWorker::MayWork };
        refuse_busy(look.mark.as_ref(), hidden).map_err(|source| KaleemError::Lease { source })?;
        if let (Standing::Foreign(foreign), Claim::Respect) = (&look.ownership.standing, claim) {
            return Err(KaleemError::Owned { foreign: foreign.clone() });
        }
        let identity = state.identity().map_err(|source| KaleemError::State { source })?;
        let key = state.key().map_err(|source| KaleemError::State { source })?;
        let before = look.mark.as_ref().map(|mark| &mark.owner).filter(|_| !look.instances.is_empty());
        let files = look.here.files.clone().or_else(|| {
            let before = before?;
            Some(ProjectFiles { directory: before.directory.clone()?, files: before.files.clone() })
        });
        let owner = Owner {
            state: identity.clone(),
            state_directory: HostDisk.canonical(state.root()),
            host: look.here.host.clone(),
            user: self.user.clone(),
            directory: files.as_ref().map(|files| HostDisk.canonical(&files.directory)),
            files: files.iter().flat_map(|files| &files.files).map(|file| HostDisk.canonical(file)).collect(),
            plan: look.ownership.plan,
            release: look.ownership.release,
        };
        let lock = HostLock::take(&self.runtime, project, owner, &self.owner, look.mark.as_ref(), self.clock.as_ref());
        let lock = lock.await.map_err(|source| KaleemError::Lease { source })?;
        history.seen_on_host(look.ownership.plan, look.ownership.release);
        let ownership = Ownership { identity: Some(identity), ..look.ownership };
        Ok(Work { lock: Some(lock), _lease: lease, state, key, history, ownership })
    }
}

impl Work {
    /// Notes on the engine which numbers a plan has, and from which files it was made.
    pub(super) async fn note(&mut self, plan: &Plan) {
        let Some(lock) = &mut self.lock else { return };
        let target = &plan.release.target;
        let files = (plan.kind == PlanKind::Deploy).then(|| {
            let files = target.files.iter().map(|file| HostDisk.canonical(file)).collect();
            (HostDisk.canonical(&target.directory), files)
        });
        lock.note(plan.id, plan.release.id, files).await;
    }
}

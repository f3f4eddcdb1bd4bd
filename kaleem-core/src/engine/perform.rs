//! What each step does. Every one may be done twice: a step that was begun and not finished is begun again.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::definition::{NetworkDefinition, RestartPolicy, VolumeDefinition};
use crate::engine::gate::GateRequest;
use crate::engine::hand_over::Reloaded;
use crate::engine::needs::NeedsRequest;
use crate::engine::steer::Watched;
use crate::engine::{Attempt, Engine, Notice, StepError, labels};
use crate::names::{ContainerName, ServiceName};
use crate::plan::{NewInstance, Plan, Role, Step};
use crate::runtime::{InstanceStatus, OwnedContainer, RuntimeError, kaleem_labels};

/// Time between two looks at a container that runs to its end.
const LOOK: Duration = Duration::from_millis(200);

/// Whether a step changes nothing on the host. That it was begun may be forgotten with a loss of power: it is begun again.
pub(crate) fn only_looks(step: &Step) -> bool {
    match step {
        Step::Baseline { .. }
        | Step::Gate { .. }
        | Step::Needs { .. }
        | Step::Watch { .. }
        | Step::FrontDoor { .. }
        | Step::VerifyBackup { .. }
        | Step::Commit { .. } => true,
        Step::Hook { .. }
        | Step::CreateNetwork { .. }
        | Step::CreateVolume { .. }
        | Step::Pull { .. }
        | Step::Pin { .. }
        | Step::Create { .. }
        | Step::Start { .. }
        | Step::RunToEnd { .. }
        | Step::BackUp { .. }
        | Step::RestoreData { .. }
        | Step::Stop { .. }
        | Step::Steer { .. }
        | Step::Hold { .. }
        | Step::Drain { .. }
        | Step::StartApart { .. }
        | Step::HandOver { .. }
        | Step::Revive { .. }
        | Step::Connect { .. }
        | Step::Reload { .. }
        | Step::Upgrade { .. }
        | Step::Update { .. }
        | Step::Rename { .. }
        | Step::Remove { .. }
        | Step::Unpin { .. }
        | Step::RemoveNetwork { .. }
        | Step::RemoveVolume { .. } => false,
    }
}

impl Engine {
    /// Carries out a step. Answers what was seen, for the journal.
    pub(crate) async fn perform(
        &self,
        plan: &Plan,
        index: usize,
        step: &Step,
        attempt: Attempt,
        cut_short: &(dyn Fn() -> bool + Sync),
    ) -> Result<String, StepError> {
        let failed = |source| StepError::Runtime { what: step.to_string(), source };
        let project = plan.project();
        match step {
            Step::Baseline { .. } => {
                Ok(plan.previous.map_or_else(|| "nothing serves yet".to_owned(), |release| format!("{release} serves")))
            }
            Step::Hook { hook } => self.run_hook(plan, hook, cut_short).await,
            Step::CreateNetwork { network } => {
                self.runtime.create_network(project, &self.marked_network(network)).await.map(|()| String::new()).map_err(failed)
            }
            Step::CreateVolume { volume } => {
                self.runtime.create_volume(project, &self.marked_volume(volume)).await.map(|()| String::new()).map_err(failed)
            }
            Step::Pull { image, platform } => {
                let observer = self.observer.clone();
                let tell = move |progress| observer(Notice::Pulling { step: index, progress });
                self.runtime.pull(image, platform.as_deref(), &tell).await.map(|()| image.digest.to_string()).map_err(failed)
            }
            Step::Pin { image, pin } => self.runtime.pin(image, pin).await.map(|()| String::new()).map_err(failed),
            Step::Create { instance } => self.create(plan, instance, step).await,
            Step::Start { container, restart, .. } => {
                self.runtime.start(&self.owned(plan, container), *restart).await.map(|()| String::new()).map_err(failed)
            }
            Step::Gate { service, container, gate, through, reach } => {
                let secrets = self.secrets_of(plan, service);
                // What ran before this plan may have been restarted long ago.
                let fresh = plan.steps.iter().any(|step| matches!(step, Step::Start { container: started, .. } if started == container));
                let (through, reach) = (through.as_ref(), reach.as_ref());
                let request = GateRequest { step: index, container, gate, through, reach, fresh, secrets: &secrets };
                self.wait_healthy(&request, cut_short).await
            }
            Step::Needs { service, needs, timeout, deadline } => {
                let request = NeedsRequest { step: index, service, needs, timeout: *timeout, deadline: *deadline };
                self.wait_needs(plan, &request, cut_short).await
            }
            Step::Steer { service, gateway, to, .. } => self.steer(plan, index, service, gateway, to).await,
            Step::Hold { gateway, hold, .. } => self.hold(plan, index, gateway, *hold).await,
            Step::Watch { service, gateway, instances, watch, gate } => {
                let watched = Watched { service, gateway, instances, watch, gate: gate.as_ref() };
                self.watch(plan, &watched, cut_short).await
            }
            Step::Drain { gateway, container, drain, .. } => self.drain(gateway, container, drain).await,
            Step::RunToEnd { service, container, deadline, .. } => {
                self.run_to_end(plan, service, container, *deadline, attempt, cut_short).await
            }
            Step::BackUp { set, release, tags } => self.back_up(index, step, set, *release, tags).await,
            Step::VerifyBackup { set } => self.verify_backup(index, step, set).await,
            Step::RestoreData { set, .. } => self.restore_data(index, step, set).await,
            Step::Stop { container, stop, .. } => {
                self.runtime.stop(&self.owned(plan, container), stop).await.map(|()| String::new()).map_err(failed)
            }
            Step::StartApart { container, restart, .. } => {
                self.runtime.start_apart(&self.owned(plan, container), *restart).await.map(|()| String::new()).map_err(failed)
            }
            Step::HandOver { from, to, networks, .. } => self.hand_over(plan, step, from, to, networks).await,
            Step::Revive { container, restart, .. } => {
                self.runtime.start(&self.owned(plan, container), *restart).await.map(|()| String::new()).map_err(failed)
            }
            Step::Connect { container, networks, .. } => {
                self.runtime.connect(&self.owned(plan, container), networks).await.map(|()| String::new()).map_err(failed)
            }
            Step::Reload { service, container, of, kept } => {
                let reloaded = Reloaded { service, container, of, kept: kept.as_ref() };
                self.reload(plan, &reloaded, step).await
            }
            Step::FrontDoor { doors, .. } => self.ask_doors(doors, cut_short).await,
            Step::Upgrade { gateway, program, digest, .. } => self.upgrade(gateway, program, digest).await,
            // The container runs: a start leaves it running and gives it the policy.
            Step::Update { container, restart, .. } => {
                self.runtime.start(&self.owned(plan, container), *restart).await.map(|()| String::new()).map_err(failed)
            }
            Step::Rename { from, to, .. } => self.runtime.rename(&self.owned(plan, from), to).await.map(|()| String::new()).map_err(failed),
            Step::Commit { release } => Ok(format!("{release} serves")),
            Step::Remove { container, .. } => match self.runtime.remove(&self.owned(plan, container)).await {
                // Somebody started it: it is in use, and none of ours to remove.
                Err(RuntimeError::StillRunning { .. }) => Ok("left alone, because somebody started it".to_owned()),
                result => result.map(|()| String::new()).map_err(failed),
            },
            Step::Unpin { pin } => self.runtime.unpin(pin).await.map(|()| String::new()).map_err(failed),
            Step::RemoveNetwork { network } => match self.runtime.remove_network(project, network).await {
                // Somebody else joined it: it is not ours alone any more.
                Err(RuntimeError::InUse { .. } | RuntimeError::NotOurs { .. }) => Ok("left alone, because others use it".to_owned()),
                result => result.map(|()| String::new()).map_err(failed),
            },
            Step::RemoveVolume { volume } => self.runtime.remove_volume(project, volume).await.map(|()| String::new()).map_err(failed),
        }
    }

    pub(crate) fn owned(&self, plan: &Plan, container: &ContainerName) -> OwnedContainer {
        OwnedContainer { project: plan.project().clone(), name: container.clone() }
    }

    pub(crate) async fn create(&self, plan: &Plan, instance: &NewInstance, step: &Step) -> Result<String, StepError> {
        if let Role::Gateway(gateway) = &instance.role {
            self.make_directory(gateway)?;
        }
        let failed = |source| StepError::Runtime { what: step.to_string(), source };
        let image = self.runtime.image(&instance.image.engine_reference()).await.map_err(failed)?;
        let image_id = image.as_ref().map(|image| &image.id);
        let mut spec = labels::spec(&plan.release.target, instance, self.definition(instance)?, image_id);
        if instance.role != Role::Plain {
            spec.labels.extend(self.state_labels());
        }
        if let (Role::Gateway(_), Some(control)) = (&instance.role, &self.gateways) {
            spec.labels.insert(kaleem_labels::GATEWAYS.to_owned(), control.directory.display().to_string());
        }
        self.runtime.create(&spec).await.map(|id| format!("container {id}")).map_err(failed)
    }

    /// By these it can be told who owns the project, also where the owner mark is gone.
    fn state_labels(&self) -> BTreeMap<String, String> {
        // A state directory that was never worked on has made nothing.
        let Ok(Some(identity)) = self.state.known_identity() else { return BTreeMap::new() };
        let directory = self.state.root().canonicalize().unwrap_or_else(|_| self.state.root().to_owned());
        BTreeMap::from([
            (kaleem_labels::STATE.to_owned(), identity.to_string()),
            (kaleem_labels::STATE_DIRECTORY.to_owned(), format!("{}:{}", crate::lease::worker::host(), directory.display())),
        ])
    }

    fn marked_network(&self, network: &NetworkDefinition) -> NetworkDefinition {
        let mut network = network.clone();
        network.labels.extend(self.state_labels());
        network
    }

    fn marked_volume(&self, volume: &VolumeDefinition) -> VolumeDefinition {
        let mut volume = volume.clone();
        volume.labels.extend(self.state_labels());
        volume
    }

    async fn run_to_end(
        &self,
        plan: &Plan,
        service: &ServiceName,
        container: &ContainerName,
        deadline: Duration,
        attempt: Attempt,
        cut_short: &(dyn Fn() -> bool + Sync),
    ) -> Result<String, StepError> {
        let failed = |source| StepError::Runtime { what: format!("run {container}"), source };
        let begun = self.clock.monotonic();
        let mut started = false;
        loop {
            if cut_short() {
                return Err(StepError::CutShort);
            }
            let instance = self.runtime.inspect(container).await.map_err(failed)?;
            let Some(instance) = instance else { return Err(StepError::Gone { container: container.clone() }) };
            match instance.state.status {
                InstanceStatus::Created if !started => {
                    self.runtime.start(&self.owned(plan, container), RestartPolicy::No).await.map_err(failed)?;
                    started = true;
                    continue;
                }
                InstanceStatus::Exited if !started && attempt == Attempt::AfterFailure && instance.state.exit_code != Some(0) => {
                    self.runtime.start(&self.owned(plan, container), RestartPolicy::No).await.map_err(failed)?;
                    started = true;
                    continue;
                }
                InstanceStatus::Exited | InstanceStatus::Dead => {
                    let code = instance.state.exit_code.unwrap_or(-1);
                    if code == 0 {
                        return Ok("ended with exit code 0".to_owned());
                    }
                    let log = self.log_excerpt(container, &self.secrets_of(plan, service)).await;
                    return Err(StepError::RanAndFailed { container: container.clone(), code, log });
                }
                InstanceStatus::Created
                | InstanceStatus::Running
                | InstanceStatus::Paused
                | InstanceStatus::Restarting
                | InstanceStatus::Removing => {}
            }
            if self.clock.monotonic().saturating_sub(begun) >= deadline {
                let log = self.log_excerpt(container, &self.secrets_of(plan, service)).await;
                return Err(StepError::RanTooLong { container: container.clone(), deadline, log });
            }
            self.clock.sleep(LOOK).await;
        }
    }
}

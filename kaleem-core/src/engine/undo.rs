//! How each step is taken back. Every undo succeeds when its step never happened, happened halfway, or happened twice.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::definition::{NetworkMode, RestartPolicy};
use crate::engine::gate::GateRequest;
use crate::engine::hand_over::Reloaded;
use crate::engine::{Engine, StepError};
use crate::names::{ContainerName, GatewayName, NetworkName, ServiceName};
use crate::plan::{BaselineGate, HandedOver, NewInstance, Plan, Step, WhenUndone};
use crate::runtime::{Instance, InstanceStatus, RuntimeError, StopPolicy};
use crate::traffic::TrafficError;

impl Engine {
    /// Takes a step back.
    pub(crate) async fn undo(&self, plan: &Plan, index: usize, step: &Step, leave: &(dyn Fn() -> bool + Sync)) -> Result<(), StepError> {
        let failed = |source| StepError::Runtime { what: format!("take back: {step}"), source };
        let project = plan.project();
        match step {
            Step::Baseline { gates } => {
                self.bring_back(plan, step, gates).await?;
                self.confirm(plan, index, gates, leave).await
            }
            Step::CreateNetwork { network } => match self.runtime.remove_network(project, &network.name).await {
                // Somebody else joined it in the meantime: it is not ours alone any more.
                Err(RuntimeError::InUse { .. } | RuntimeError::NotOurs { .. }) => Ok(()),
                result => result.map_err(failed),
            },
            Step::Pin { pin, .. } => self.runtime.unpin(pin).await.map_err(failed),
            Step::Create { instance } => self.uncreate(plan, &instance.name).await.map_err(failed),
            Step::Start { service, container, stop, .. } => {
                self.drain_before_undo(plan, service, container).await;
                self.unstart(plan, container, stop).await.map_err(failed)
            }
            Step::RunToEnd { container, stop, .. } => self.unstart(plan, container, stop).await.map_err(failed),
            Step::Stop { service, container, restart, gate, again, stop } => {
                let one = HandedOver {
                    container: container.clone(),
                    stop: stop.clone(),
                    restart: *restart,
                    gate: gate.clone(),
                    again: again.clone(),
                    addresses: BTreeMap::new(),
                };
                self.serve_again(plan, index, step, service, &one, leave).await
            }
            Step::StartApart { container, stop, .. } => self.unstart(plan, container, stop).await.map_err(failed),
            Step::HandOver { service, from, to, stop, .. } => {
                // The gateway still has the addresses of the first: what is free below them is occupied before it lets go.
                let mut order: Vec<&HandedOver> = from.iter().collect();
                order.sort_by_key(|one| one.addresses.values().filter_map(|address| address.parse::<Ipv4Addr>().ok()).collect::<Vec<_>>());
                let first = order.first().map(|one| one.addresses.clone()).unwrap_or_default();
                self.reserve(plan, to, &first).await;
                // The ports must be free before anybody can have them back.
                self.unstart(plan, to, stop).await.map_err(failed)?;
                for one in order {
                    self.reserve(plan, to, &one.addresses).await;
                    self.serve_again(plan, index, step, service, one, leave).await?;
                }
                self.runtime.release(project).await.map_err(failed)
            }
            Step::Reload { service, container, of, kept } => {
                let reloaded = Reloaded { service, container, of, kept: kept.as_ref() };
                self.unreload(plan, &reloaded, step).await
            }
            Step::Connect { container, networks, when_undone: WhenUndone::Leaves, .. } => {
                let networks: Vec<NetworkName> = networks.iter().map(|attachment| attachment.network.clone()).collect();
                self.runtime.disconnect(&self.owned(plan, container), &networks).await.map_err(failed)
            }
            Step::Revive { .. } | Step::Connect { when_undone: WhenUndone::Stays, .. } => Ok(()),
            Step::Update { container, from, .. } => match self.runtime.start(&self.owned(plan, container), *from).await {
                // Gone in the meantime, with its policy.
                Err(RuntimeError::NotFound { .. }) => Ok(()),
                result => result.map_err(failed),
            },
            Step::Rename { from, to, .. } => self.rename_back(plan, from, to).await.map_err(failed),
            Step::Steer { service, gateway, from, .. } | Step::Hold { service, gateway, from, .. } => {
                let result = self.steer_back(plan, index, service, gateway, from).await;
                if matches!(&result, Err(StepError::Traffic { source: TrafficError::Unreachable { .. }, .. })) {
                    // Somebody stopped it: the next try finds it running.
                    let all = self.runtime.list(project).await.map_err(failed)?;
                    self.bring_gateway_up(plan, gateway, &all).await.map_err(failed)?;
                }
                result
            }
            Step::BackUp { set, .. } => self.give_up_backup(step, set).await,
            Step::RestoreData { safe, .. } => self.restore_data(index, step, safe).await.map(|_| ()),
            Step::CreateVolume { .. }
            | Step::Pull { .. }
            | Step::Gate { .. }
            | Step::Needs { .. }
            | Step::Watch { .. }
            | Step::Drain { .. }
            | Step::FrontDoor { .. }
            | Step::VerifyBackup { .. } => Ok(()),
            Step::Hook { .. } => Ok(()),
            Step::Upgrade { .. } => Ok(()),
            // The plan check allows these only after the commit, and nothing goes back from there.
            Step::Commit { .. } | Step::Remove { .. } | Step::Unpin { .. } | Step::RemoveNetwork { .. } | Step::RemoveVolume { .. } => {
                Ok(())
            }
        }
    }

    /// Starts what was stopped, and sees that it is healthy where it was before.
    async fn serve_again(
        &self,
        plan: &Plan,
        index: usize,
        step: &Step,
        service: &ServiceName,
        one: &HandedOver,
        leave: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), StepError> {
        let failed = |source| StepError::Runtime { what: format!("take back: {step}"), source };
        self.make_again(plan, &one.container, one.again.as_ref(), step).await?;
        match self.runtime.start(&self.owned(plan, &one.container), one.restart).await {
            // It was no part of what served: there is nothing to come back.
            Err(RuntimeError::NotFound { .. }) if one.gate.is_none() => return Ok(()),
            result => result.map_err(failed)?,
        }
        match &one.gate {
            Some(gate) => {
                let one = BaselineGate { service: service.clone(), container: one.container.clone(), gate: gate.clone() };
                self.confirm(plan, index, std::slice::from_ref(&one), leave).await
            }
            None => Ok(()),
        }
    }

    async fn uncreate(&self, plan: &Plan, container: &ContainerName) -> Result<(), RuntimeError> {
        match self.runtime.inspect(container).await? {
            None => Ok(()),
            Some(instance) => {
                if matches!(instance.state.status, InstanceStatus::Running | InstanceStatus::Restarting | InstanceStatus::Paused) {
                    // Nobody but this plan could have wanted it; somebody started it by hand.
                    let now = StopPolicy { signal: None, grace: std::time::Duration::from_secs(10) };
                    match self.runtime.stop(&self.owned(plan, container), &now).await {
                        Err(RuntimeError::NotOurs { .. }) => return Ok(()),
                        result => result?,
                    }
                }
                match self.runtime.remove(&self.owned(plan, container)).await {
                    // Another project has the name, so this plan never made anything under it.
                    Err(RuntimeError::NotOurs { .. }) => Ok(()),
                    result => result,
                }
            }
        }
    }

    async fn unstart(&self, plan: &Plan, container: &ContainerName, stop: &StopPolicy) -> Result<(), RuntimeError> {
        match self.runtime.stop(&self.owned(plan, container), stop).await {
            // Another project has the name: this plan started nothing under it.
            Err(RuntimeError::NotFound { .. } | RuntimeError::NotOurs { .. }) => Ok(()),
            result => result,
        }
    }

    async fn make_again(&self, plan: &Plan, container: &ContainerName, again: Option<&NewInstance>, step: &Step) -> Result<(), StepError> {
        let Some(again) = again else { return Ok(()) };
        let failed = |source| StepError::Runtime { what: format!("take back: {step}"), source };
        if self.runtime.inspect(container).await.map_err(failed)?.is_none() {
            self.create(plan, again, step).await?;
        }
        Ok(())
    }

    async fn rename_back(&self, plan: &Plan, from: &ContainerName, to: &ContainerName) -> Result<(), RuntimeError> {
        if self.runtime.inspect(from).await?.is_some() {
            // It never got the other name, or has its old one back.
            return Ok(());
        }
        match self.runtime.rename(&self.owned(plan, to), from).await {
            // Gone under both names: the undo of its stop or of its making says what that means. Under a name of another project it never was.
            Err(RuntimeError::NotFound { .. } | RuntimeError::NotOurs { .. }) => Ok(()),
            result => result,
        }
    }

    /// Starts what served before and was stopped, paused or taken off its network meanwhile: whoever did that, it is to serve again. The same for
    /// gateways that stand before it.
    async fn bring_back(&self, plan: &Plan, step: &Step, gates: &[BaselineGate]) -> Result<(), StepError> {
        let failed = |source| StepError::Runtime { what: format!("take back: {step}"), source };
        let all = self.runtime.list(plan.project()).await.map_err(failed)?;
        for instance in all.iter().filter(|instance| gates.iter().any(|gate| gate.container == instance.name)) {
            self.bring_up(plan, instance).await.map_err(failed)?;
        }
        for wanted in plan.release.target.services.values().filter_map(|wanted| wanted.gateway.as_ref()) {
            self.bring_gateway_up(plan, &wanted.name, &all).await.map_err(failed)?;
        }
        Ok(())
    }

    async fn bring_gateway_up(&self, plan: &Plan, gateway: &GatewayName, all: &[Instance]) -> Result<(), RuntimeError> {
        let named: Vec<&Instance> = all.iter().filter(|instance| instance.gateway.as_ref() == Some(gateway)).collect();
        // Two must not have one control socket. What kaleem stopped itself has no restart policy any more: it was to end.
        match named.as_slice() {
            [gateway] if gateway.restart != RestartPolicy::No => self.bring_up(plan, gateway).await,
            _ => Ok(()),
        }
    }

    async fn bring_up(&self, plan: &Plan, instance: &Instance) -> Result<(), RuntimeError> {
        let owned = self.owned(plan, &instance.name);
        let definition = instance.definition.as_ref().and_then(|id| self.state.definition(&self.key, id).ok());
        if let Some(NetworkMode::Networks(networks)) = definition.map(|definition| definition.network) {
            let lacks = instance.lacks(&networks);
            if !lacks.is_empty() {
                self.runtime.connect(&owned, &lacks).await?;
            }
        }
        match instance.state.status {
            InstanceStatus::Exited | InstanceStatus::Created | InstanceStatus::Paused => self.runtime.start(&owned, instance.restart).await,
            InstanceStatus::Running | InstanceStatus::Restarting | InstanceStatus::Removing | InstanceStatus::Dead => Ok(()),
        }
    }

    /// Sees that what served before is healthy: only then may be said that it serves again.
    async fn confirm(&self, plan: &Plan, index: usize, gates: &[BaselineGate], leave: &(dyn Fn() -> bool + Sync)) -> Result<(), StepError> {
        for baseline in gates {
            let secrets = self.secrets_of(plan, &baseline.service);
            let request = GateRequest {
                step: index,
                container: &baseline.container,
                gate: &baseline.gate,
                through: None,
                reach: None,
                fresh: false,
                secrets: &secrets,
            };
            self.wait_healthy(&request, leave).await?;
        }
        Ok(())
    }
}

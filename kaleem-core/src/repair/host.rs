//! What is on the host against what the journals say: containers that are to serve and do not, and what belongs to nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::definition::{Definition, DefinitionId};
use crate::engine::steer::routing;
use crate::history::History;
use crate::image::ImageRef;
use crate::journal::Next;
use crate::names::{NetworkName, ProjectName, ServiceName};
use crate::plan::pin_tag;
use crate::runtime::{Instance, InstanceStatus, OwnedContainer, Runtime};
use crate::traffic::{Generation, Traffic};

use super::{Damage, Repair, RepairError};

/// A question each: older plans were looked at when they were new.
const PLANS_LOOKED_AT: usize = 20;

/// What is looked at.
pub struct Host<'a> {
    /// The engine.
    pub runtime: &'a Arc<dyn Runtime>,
    /// Asks gateways; `None` where they cannot be asked.
    pub traffic: Option<&'a dyn Traffic>,
    /// What a definition says, where it is known.
    pub find: &'a (dyn Fn(&DefinitionId) -> Option<Definition> + Sync),
    /// What was released.
    pub history: &'a History,
    /// Which project.
    pub project: &'a ProjectName,
    /// Whether `kaleem.toml` says now how a service is checked, so that its containers' own health checks do not count.
    pub decides: &'a (dyn Fn(&ServiceName) -> bool + Sync),
}

impl Host<'_> {
    /// Everything that is wrong. Nothing is changed. While a plan is open, only that is told: what it made belongs to it.
    ///
    /// # Errors
    ///
    /// [`RepairError::Runtime`] when the engine cannot be asked.
    pub async fn look(&self) -> Result<Vec<Damage>, RepairError> {
        if let Some(entry) = self.history.open() {
            let plan = entry.plan.id;
            let what = format!("plan {plan} ({} to {})", entry.plan.kind, entry.plan.release.id);
            let (kind, message) = match entry.progress.next() {
                Next::Stuck { step, error } => ("plan-stuck", format!("{what} is stuck at step {}: {error}", step + 1)),
                Next::Run(_) | Next::Undo(_) | Next::Finish(_) | Next::Over(_) => ("plan-open", format!("{what} was interrupted")),
            };
            return Ok(vec![Damage { kind, service: None, message, repair: Repair::Resume { plan } }]);
        }
        let instances = self.ask("list the containers", self.runtime.list(self.project).await)?;
        let mut found = self.lost(&instances);
        if let Some(serving) = self.history.serving().and_then(|id| self.history.release(id)) {
            found.extend(self.serving(&serving, &instances).await);
        }
        found.extend(self.strangers(&instances));
        found.extend(self.pins().await?);
        found.extend(self.networks().await?);
        Ok(found)
    }

    /// What of the live release does not serve, by all containers of the project and by what the gateways say. Nothing is changed. Nothing is
    /// said while a plan is open: what serves is not decided then.
    pub async fn look_at_serving(&self, instances: &[Instance]) -> Vec<Damage> {
        let live = self.history.serving().filter(|_| self.history.open().is_none()).and_then(|id| self.history.release(id));
        match live {
            Some(live) => self.serving(&live, instances).await,
            None => Vec::new(),
        }
    }

    fn ask<T>(&self, what: &str, answer: Result<T, crate::runtime::RuntimeError>) -> Result<T, RepairError> {
        answer.map_err(|source| RepairError::Runtime { what: what.to_owned(), source })
    }

    /// Where the journal of the newest plan is lost, only the host can tell what runs, and only a person what is right.
    fn lost(&self, instances: &[Instance]) -> Vec<Damage> {
        let Some(plan) = self.history.lost() else { return Vec::new() };
        let running = instances.iter().filter(|instance| instance.state.status == InstanceStatus::Running && !instance.oneoff);
        let names: Vec<String> = running.map(|instance| instance.name.to_string()).collect();
        let running = if names.is_empty() { "nothing runs".to_owned() } else { format!("these run: {}", names.join(", ")) };
        let message = format!("the journal of plan {plan} was set aside, so what serves is not known; {running}");
        let advice = "deploy what is to serve: containers that are so already are taken over as they are".to_owned();
        vec![Damage { kind: "serving-unknown", service: None, message, repair: Repair::ByHand { advice } }]
    }

    /// Containers that kaleem made and that belong to no release it knows.
    fn strangers(&self, instances: &[Instance]) -> Vec<Damage> {
        let releases = self.history.releases();
        let gateways: BTreeSet<_> = releases
            .iter()
            .flat_map(|release| release.target.services.values())
            .filter_map(|wanted| wanted.gateway.as_ref())
            .map(|gateway| &gateway.name)
            .collect();
        let belongs = |instance: &Instance| {
            instance.gateway.as_ref().is_some_and(|gateway| gateways.contains(gateway))
                || releases.iter().any(|release| {
                    release.instances.values().flatten().any(|name| *name == instance.name)
                        || release
                            .target
                            .services
                            .get(&instance.service)
                            .is_some_and(|wanted| instance.definition.as_ref() == Some(&wanted.definition))
                })
        };
        let ours = instances.iter().filter(|instance| instance.release.is_some() && !instance.oneoff);
        let answer = |instance: &Instance| {
            let name = &instance.name;
            let stopped = matches!(instance.state.status, InstanceStatus::Exited | InstanceStatus::Created | InstanceStatus::Dead);
            // Where a journal was lost, a container of its release may be what serves.
            if stopped && self.history.lost().is_none() {
                let message = format!("the container {name} does not run and belongs to no release");
                let repair = Repair::RemoveContainer { container: name.clone() };
                return Damage { kind: "container-orphan", service: Some(instance.service.clone()), message, repair };
            }
            let message = format!("the container {name} runs and belongs to no release that is known");
            // It may be what clients reach: nothing that ends it is proposed.
            let advice = format!("docker logs --tail 50 {name}   # see what it does; kaleem leaves it alone");
            Damage { kind: "container-orphan", service: Some(instance.service.clone()), message, repair: Repair::ByHand { advice } }
        };
        let lost = self.history.lost().is_some();
        ours.filter(|instance| !(belongs(instance) || lost && instance.state.status == InstanceStatus::Running)).map(answer).collect()
    }

    /// Tags of releases that never served.
    async fn pins(&self) -> Result<Vec<Damage>, RepairError> {
        let known: BTreeSet<_> = self.history.releases().iter().map(|release| release.id).collect();
        let mut found = Vec::new();
        let entries = self.history.entries().iter().rev().take(PLANS_LOOKED_AT);
        for entry in entries.filter(|entry| !known.contains(&entry.plan.release.id)) {
            let release = &entry.plan.release;
            let tags = release.target.services.keys().filter_map(|name| pin_tag(&release.target.project, name, release.id));
            for pin in tags.collect::<Vec<ImageRef>>() {
                if self.ask("look at an image", self.runtime.image(&pin.to_string()).await)?.is_some() {
                    let message = format!("the tag {pin} keeps an image of {}, which never served", release.id);
                    found.push(Damage { kind: "pin-orphan", service: None, message, repair: Repair::Unpin { pin } });
                }
            }
        }
        Ok(found)
    }

    /// Networks that a plan made and no release has.
    async fn networks(&self) -> Result<Vec<Damage>, RepairError> {
        let releases = self.history.releases();
        let used: BTreeSet<&NetworkName> =
            releases.iter().flat_map(|release| &release.target.networks).map(|network| &network.name).collect();
        let entries = self.history.entries().iter().rev().take(PLANS_LOOKED_AT);
        let made: BTreeSet<NetworkName> = entries
            .flat_map(|entry| &entry.plan.release.target.networks)
            .filter(|network| !network.external && !used.contains(&network.name))
            .map(|network| network.name.clone())
            .collect();
        let names: Vec<NetworkName> = made.into_iter().collect();
        let there = self.ask("look at networks", self.runtime.networks(&names).await)?;
        let ours = there.into_iter().filter(|(_, project)| project.as_deref() == Some(self.project.as_str()));
        let damage = |(network, _): (NetworkName, Option<String>)| {
            let message = format!("the network {network} belongs to no release");
            Damage { kind: "network-orphan", service: None, message, repair: Repair::RemoveNetwork { network } }
        };
        Ok(ours.map(damage).collect())
    }

    /// Carries out a repair on the host. The caller holds the lease.
    ///
    /// # Errors
    ///
    /// [`RepairError`]; the host is as it was.
    pub async fn repair(&self, repair: &Repair) -> Result<(), RepairError> {
        let owned = |name: &crate::names::ContainerName| OwnedContainer { project: self.project.clone(), name: name.clone() };
        let failed = |source| RepairError::Runtime { what: repair.to_string(), source };
        match repair {
            Repair::Start { container } => {
                let policy = self.restart_policy(container);
                self.runtime.start(&owned(container), policy).await.map_err(failed)
            }
            Repair::Steer { gateway, to } => {
                let newest = self.history.entries().last().map_or(crate::names::PlanId(0), |entry| entry.plan.id);
                // Newer than everything of the newest plan, and older than everything of the next.
                let elsewhere = |_| RepairError::Elsewhere { what: repair.to_string() };
                let serving = self.history.serving().and_then(|id| self.history.release(id));
                let gateways =
                    serving.iter().flat_map(|release| release.target.services.values()).filter_map(|wanted| wanted.gateway.as_ref());
                let hold = gateways.filter(|wanted| wanted.name == *gateway).find_map(|wanted| wanted.hold);
                let routing = routing(Generation::of_undo(newest, 0), to, gateway, hold).map_err(elsewhere)?;
                let traffic = self.traffic.ok_or_else(|| RepairError::Elsewhere { what: repair.to_string() })?;
                let failed = |source| RepairError::Traffic { what: repair.to_string(), source };
                traffic.steer(gateway, &routing).await.map_err(failed)
            }
            // What runs is not started; what is frozen runs on.
            Repair::Unpause { container } => self.runtime.start(&owned(container), self.restart_policy(container)).await.map_err(failed),
            Repair::Connect { container, networks } => self.runtime.connect(&owned(container), networks).await.map_err(failed),
            Repair::RemoveContainer { container } => self.runtime.remove(&owned(container)).await.map_err(failed),
            Repair::RemoveNetwork { network } => self.runtime.remove_network(self.project, network).await.map_err(failed),
            Repair::Unpin { pin } => self.runtime.unpin(pin).await.map_err(failed),
            Repair::CutAfter { .. }
            | Repair::SetAside { .. }
            | Repair::RemoveFile { .. }
            | Repair::SetMode { .. }
            | Repair::WriteDefinition { .. }
            | Repair::Resume { .. }
            | Repair::ByHand { .. } => Err(RepairError::Elsewhere { what: repair.to_string() }),
        }
    }

    /// What its release says; a gateway always comes back by itself.
    fn restart_policy(&self, container: &crate::names::ContainerName) -> crate::definition::RestartPolicy {
        let serving = self.history.serving().and_then(|id| self.history.release(id));
        let of_instance = serving.and_then(|release| {
            let (service, _) = release.instances.iter().find(|(_, names)| names.contains(container))?;
            release.target.services.get(service).map(|wanted| wanted.restart)
        });
        of_instance.unwrap_or(crate::definition::RestartPolicy::Always)
    }
}

//! Restarting services of the release that serves: fresh containers of the same image behind the gateway, or the same container where
//! two must not run. And reloading web servers, which need no restart.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::planning::Besides;
use super::{Kaleem, KaleemError, Planned, Work};
use crate::names::{ContainerName, ProjectName, ServiceName};
use crate::observed::{ObserveError, is_gateway, nginx};
use crate::plan::PlanKind;
use crate::plan::steps::PlanData;
use crate::release::Strategy;
use crate::runtime::{Instance, InstanceStatus, OwnedContainer};

/// Time in which a web server must have tested its configuration.
const TEST: Duration = Duration::from_secs(20);

/// What became of a container that was to read its configuration again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reloaded {
    /// It reads its configuration again.
    Done,
    /// It refuses its configuration and goes on with the old one: what it printed.
    Refused(String),
    /// It is no server that kaleem knows how to reload.
    Unknown,
}

impl Kaleem {
    /// Plans to restart services of the release that serves.
    ///
    /// # Errors
    ///
    /// [`KaleemError::NothingReleased`], [`KaleemError::Observe`] for a service that is not in it, and the other variants.
    pub async fn restart_plan(&self, work: &Work, services: &[ServiceName]) -> Result<Planned, KaleemError> {
        super::refuse_open(work)?;
        let known = work.known();
        let release = known.history.serving().and_then(|id| known.history.release(id)).ok_or(KaleemError::NothingReleased)?;
        let runs = |name: &&ServiceName| release.target.services.get(*name).is_some_and(|wanted| wanted.strategy != Strategy::RunToEnd);
        if let Some(service) = services.iter().find(|name| !runs(name)) {
            let known = release.target.services.keys().filter(runs).map(ServiceName::as_str).collect::<Vec<_>>().join(", ");
            return Err(KaleemError::Observe { source: ObserveError::NoService { service: service.clone(), known } });
        }
        let engine = self.runtime.engine().await.map_err(|source| KaleemError::Runtime { source })?;
        let mut definitions = BTreeMap::new();
        for wanted in release.target.services.values() {
            for id in std::iter::once(&wanted.definition).chain(wanted.gateway.as_ref().map(|gateway| &gateway.definition)) {
                if let Ok(definition) = known.state.definition(known.key, id) {
                    definitions.insert(id.clone(), definition);
                }
            }
        }
        let mut target = release.target.clone();
        let restarted: BTreeSet<&ServiceName> = services.iter().collect();
        for name in services {
            // They read what is there now.
            if let Some(wanted) = target.services.get_mut(name)
                && let Some(definition) = definitions.get(&wanted.definition)
            {
                wanted.files = super::contents::look(definition, known.key).files;
            }
        }
        let mut observed = self.observe(&target, release.id, &definitions, BTreeMap::new(), engine, &known).await?;
        self.ask_gateways(&mut observed, &target).await?;
        // Only a deploy says that a program is older.
        observed.outdated_gateways.clear();
        let left = target.services.keys().filter(|name| !restarted.contains(name)).map(|name| (name.clone(), String::new())).collect();
        let again = services.iter().map(|name| (name.clone(), vec!["restarted".to_owned()])).collect();
        let data = PlanData::Leave;
        let besides = Besides { hooks: &[], data: &data, left: &left, again: &again };
        let plan = self.make(PlanKind::Restart, release.id, &target, &observed, &known, &definitions, &besides);
        Ok(Planned { plan, notes: BTreeMap::new(), definitions: Self::port_containers(&observed).collect() })
    }

    /// Has the containers of a service read their configuration again. Nothing is restarted.
    ///
    /// # Errors
    ///
    /// [`KaleemError::Runtime`]
    pub async fn reload(&self, project: &ProjectName, service: &ServiceName) -> Result<Vec<(ContainerName, Reloaded)>, KaleemError> {
        let failed = |source| KaleemError::Runtime { source };
        let instances = self.runtime.list(project).await.map_err(failed)?;
        let runs = |instance: &&Instance| {
            instance.service == *service && !instance.oneoff && !is_gateway(instance) && instance.state.status == InstanceStatus::Running
        };
        let mut reloaded = Vec::new();
        for instance in instances.iter().filter(runs) {
            let container = &instance.name;
            let command = nginx::command(self.runtime.as_ref(), container, "-t").await;
            let outcome = match self.runtime.exec(container, &command, TEST).await {
                Ok(ran) if ran.exit_code == 0 => {
                    let owned = OwnedContainer { project: project.clone(), name: container.clone() };
                    self.runtime.signal(&owned, "HUP").await.map_err(failed)?;
                    Reloaded::Done
                }
                // 126 and 127: there is no such program in it.
                Ok(ran) if matches!(ran.exit_code, 126 | 127) => Reloaded::Unknown,
                Ok(ran) => Reloaded::Refused(ran.output.trim().to_owned()),
                Err(source) => return Err(failed(source)),
            };
            reloaded.push((container.clone(), outcome));
        }
        Ok(reloaded)
    }
}

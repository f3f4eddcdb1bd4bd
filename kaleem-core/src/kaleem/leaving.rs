//! Plans that lead to no new release: back to plain Compose, to nothing, and to newer programs of gateways.

use std::collections::{BTreeMap, BTreeSet};

use super::planning::{Besides, MakeImage};
use super::{Kaleem, KaleemError, Planned, Work, giving_back};
use crate::config::Project;
use crate::definition::{Definition, DefinitionId};
use crate::names::{ContainerName, NetworkName, ServiceName, VolumeName};
use crate::observed::{Observed, ObservedImage, gateway_of};
use crate::plan::leaving::{self, Program};
use crate::plan::steps::PlanData;
use crate::plan::target::{Resolved, resolve};
use crate::plan::{PlanKind, pin_tag, replicas};
use crate::release::{Release, Target};
use crate::runtime::Instance;
use crate::traffic::{GatewayStats, TrafficError};

/// A gateway as it stands.
#[derive(Debug)]
pub struct GatewayView {
    /// The service before which it stands.
    pub service: ServiceName,
    /// Its container, where there is one.
    pub instance: Option<Instance>,
    /// What it says of itself.
    pub stats: Result<GatewayStats, TrafficError>,
    /// Beginning of the SHA-256 of the program that serves, where it is known.
    pub program: Option<String>,
    /// Whether that is the program beside this one.
    pub is_current: bool,
}

impl Kaleem {
    /// The gateways of the release that serves.
    ///
    /// # Errors
    ///
    /// [`KaleemError`]; a gateway that does not answer is no error.
    pub async fn gateways(&self, project: &crate::names::ProjectName) -> Result<Vec<GatewayView>, KaleemError> {
        let history = self.history(project)?;
        let Some(release) = history.serving().and_then(|id| history.release(id)) else { return Ok(Vec::new()) };
        let instances = self.runtime.list(project).await.map_err(|source| KaleemError::Runtime { source })?;
        self.view_gateways(&release.target, &instances).await
    }

    pub(super) async fn view_gateways(&self, target: &Target, instances: &[Instance]) -> Result<Vec<GatewayView>, KaleemError> {
        let Some(parts) = &self.gateways else { return Ok(Vec::new()) };
        let place = self.gateway_place(MakeImage::No).await?;
        let current = self.gateway_program()?;
        let mut views = Vec::new();
        for (service, wanted) in &target.services {
            let Some(gateway) = &wanted.gateway else { continue };
            let stats = parts.control.traffic.stats(&gateway.name).await;
            let instance = gateway_of(&target.project, service, instances).cloned();
            // A program that was put in while it ran says which it is; else it is the one of its image.
            let upgraded = stats.as_ref().ok().and_then(|stats| stats.worker.program.clone());
            let of_image =
                instance.as_ref().zip(place.as_ref()).filter(|(instance, place)| instance.digest.as_ref() == Some(&place.image.digest));
            let program = upgraded.or_else(|| of_image.and(current.clone()));
            let is_current = program.is_some() && program == current;
            views.push(GatewayView { service: service.clone(), instance, stats, program, is_current });
        }
        Ok(views)
    }

    /// Plans to bring gateways to the program beside this one, while they serve. Without names, all that run an older one.
    ///
    /// # Errors
    ///
    /// [`KaleemError::NothingReleased`], [`KaleemError::NoGateway`], [`KaleemError::GatewaysMissing`], and the other variants.
    pub async fn upgrade_plan(&self, work: &Work, services: &[ServiceName]) -> Result<Planned, KaleemError> {
        super::refuse_open(work)?;
        let release = serving(work)?;
        let no_gateway = |service: &ServiceName| KaleemError::NoGateway { service: service.clone() };
        if let Some(other) = services.iter().find(|name| release.target.services.get(*name).is_none_or(|wanted| wanted.gateway.is_none())) {
            return Err(no_gateway(other));
        }
        let first = release.target.services.iter().find(|(_, wanted)| wanted.gateway.is_some()).map(|(name, _)| name.clone());
        let program = match (&self.gateways, self.gateway_program()?, first) {
            (Some(parts), Some(digest), _) => Program { path: parts.program.clone(), digest },
            (_, _, Some(service)) => return Err(KaleemError::GatewaysMissing { service }),
            // There is nothing to upgrade.
            (_, _, None) => Program { path: std::path::PathBuf::new(), digest: String::new() },
        };
        let instances = self.runtime.list(&release.target.project).await.map_err(|source| KaleemError::Runtime { source })?;
        let views = self.view_gateways(&release.target, &instances).await?;
        let wanted: Vec<(ServiceName, Option<String>)> = views
            .into_iter()
            .filter(|view| if services.is_empty() { !view.is_current } else { services.contains(&view.service) })
            .map(|view| (view.service, view.program))
            .collect();
        let plan = leaving::upgrade(work.history.next_plan(), &release, &wanted, &program);
        Ok(Planned { plan, notes: BTreeMap::new(), definitions: Vec::new() })
    }

    /// Plans to stop and remove everything of the project. Volumes go only when `volumes` says so.
    ///
    /// # Errors
    ///
    /// [`KaleemError::NothingReleased`], and the other variants.
    pub async fn down_plan(&self, work: &Work, volumes: RemoveVolumes) -> Result<Planned, KaleemError> {
        super::refuse_open(work)?;
        let release = serving(work)?;
        let failed = |source| KaleemError::Runtime { source };
        let instances = self.runtime.list(&release.target.project).await.map_err(failed)?;
        let ours = |label: &Option<String>| label.as_deref() == Some(release.target.project.as_str());
        let names: BTreeSet<NetworkName> =
            work.history.releases().iter().flat_map(|release| &release.target.networks).map(|network| network.name.clone()).collect();
        let names: Vec<NetworkName> = names.into_iter().collect();
        let networks = self.runtime.networks(&names).await.map_err(failed)?;
        let networks = networks.into_iter().filter(|(_, label)| ours(label)).map(|(name, _)| name).collect();
        let mut gone = Vec::new();
        if volumes == RemoveVolumes::Yes {
            let names: BTreeSet<VolumeName> =
                work.history.releases().iter().flat_map(|release| &release.target.volumes).map(|volume| volume.name.clone()).collect();
            let names: Vec<VolumeName> = names.into_iter().collect();
            let found = self.runtime.volumes(&names).await.map_err(failed)?;
            gone.extend(found.into_iter().filter(|(_, label)| ours(label)).map(|(name, _)| name));
        }
        let pins = self.pins(work).await?;
        let plan = leaving::down(&leaving::Down {
            id: work.history.next_plan(),
            release: &release,
            instances: &instances,
            networks,
            volumes: gone,
            pins,
        });
        Ok(Planned { plan, notes: BTreeMap::new(), definitions: Vec::new() })
    }

    /// Plans to give the project back to plain Compose. `answers` are what the Compose of this host prints with `config --hash`; empty
    /// where there is none.
    ///
    /// # Errors
    ///
    /// [`KaleemError::NothingReleased`], and the other variants.
    pub async fn eject_plan(
        &self,
        work: &Work,
        project: &Project,
        answers: &BTreeMap<ServiceName, String>,
    ) -> Result<Planned, KaleemError> {
        super::refuse_open(work)?;
        let release = serving(work)?;
        let known = work.known();
        let engine = self.runtime.engine().await.map_err(|source| KaleemError::Runtime { source })?;
        let hashes = giving_back::hashes(project, answers);
        let mut images = BTreeMap::new();
        let mut other_images = BTreeMap::new();
        for (name, wanted) in release.target.services.iter().filter(|(name, _)| project.services.contains_key(*name)) {
            let reference = wanted.image.engine_reference();
            let local = self.runtime.image(&reference).await.map_err(|source| KaleemError::Runtime { source })?;
            let local =
                local.ok_or_else(|| KaleemError::Runtime { source: crate::runtime::RuntimeError::ImageMissing { image: reference } })?;
            if let Some(named) = project.services.get(name).and_then(|service| service.image.as_ref()) {
                let found = self.runtime.image(&named.to_string()).await.map_err(|source| KaleemError::Runtime { source })?;
                // Compose pulls a tag that is not on the host: what it then gets is what the registry has.
                if found.map_or(wanted.image.image != *named, |found| found.id != local.id) {
                    other_images.insert(name.clone(), named.clone());
                }
            }
            let image = ObservedImage { pinned: wanted.image.clone(), id: local.id, facts: local.facts, note: None };
            images.insert(name.clone(), image);
        }
        let identify = |definition: &Definition| known.key.identify(definition).unwrap_or_else(|_| DefinitionId(String::new()));
        let Resolved { mut target, definitions } = resolve(project, &images, None, &identify);
        for (name, wanted) in &mut target.services {
            wanted.compose_hash = hashes.get(name).cloned();
            if wanted.replicas == 1 && wanted.container_name.is_none() {
                wanted.container_name = Some(ContainerName::fitting(&format!("{}-{name}-1", target.project)));
            }
        }
        let observed = self.observe_to_leave(&target, &definitions, &images, engine, &known).await?;
        let observed = Observed { old_pins: self.pins(work).await?, ..observed };
        let mut plan = self.make(
            PlanKind::Eject,
            work.history.next_release(),
            &target,
            &observed,
            &known,
            &definitions,
            &Besides::data(&PlanData::Leave),
        );
        plan.objections.extend(giving_back::objections(&plan, &observed, &other_images));
        plan.object(replicas::objections(project, project, &plan));
        Ok(Planned { plan, notes: BTreeMap::new(), definitions: definitions.into_values().collect() })
    }

    /// Our tags of all releases, as far as they exist.
    async fn pins(&self, work: &Work) -> Result<Vec<crate::image::ImageRef>, KaleemError> {
        let mut found = Vec::new();
        for release in work.history.releases() {
            for name in release.target.services.keys() {
                let Some(pin) = pin_tag(&release.target.project, name, release.id) else { continue };
                if self.runtime.image(&pin.to_string()).await.map_err(|source| KaleemError::Runtime { source })?.is_some() {
                    found.push(pin);
                }
            }
        }
        Ok(found)
    }
}

/// Whether the data goes with everything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoveVolumes {
    /// It does: a person confirmed it.
    Yes,
    /// It stays.
    No,
}

fn serving(work: &Work) -> Result<Release, KaleemError> {
    let history = &work.history;
    history.serving().and_then(|id| history.release(id)).ok_or(KaleemError::NothingReleased)
}

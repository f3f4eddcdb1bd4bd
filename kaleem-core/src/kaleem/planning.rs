//! From a project, or from an older release, to a plan: what is asked of the host and of registries, and in which order.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};

use super::wishes::{self, Wishes};
use super::{Kaleem, KaleemError, Planned, RollbackData, contents};
use crate::config::settings::backup::{BackupWhen, ServiceBackup};
use crate::config::{Hook, Project};
use crate::definition::{Definition, DefinitionId};
use crate::engine::labels;
use crate::history::History;
use crate::image::{Digest, ImageRef, ImageSource, PinnedImage};
use crate::names::{GatewayName, PlanId, ProjectName, ReleaseId, ServiceName, SetId};
use crate::observed::owner::Ownership;
use crate::observed::{self, HostQuestions, Observed, ObservedImage, live, reality};
use crate::plan::gateway::GatewayPlace;
use crate::plan::steps::{PlanData, PlanInput, plan};
use crate::plan::target::{Resolved, companions, resolve};
use crate::plan::{NewInstance, Plan, PlanKind, Role, compare, instance_name, pin_tag, replicas, settle, too_new, writers};
use crate::release::{Release, Target, WantedGateway};
use crate::runtime::{EngineInfo, InstanceSpec};
use crate::state::{DefinitionKey, StateDirectory};
use crate::traffic::TrafficError;
use crate::traffic::protocol::program_name;

/// What is known of a project before it is looked at.
pub(super) struct Known<'a> {
    pub(super) state: &'a StateDirectory,
    pub(super) key: &'a DefinitionKey,
    pub(super) history: &'a History,
    pub(super) ownership: &'a Ownership,
}

/// What a deploy is asked for.
pub(super) struct Asked<'a> {
    pub(super) project: &'a Project,
    pub(super) images: &'a BTreeMap<ServiceName, ImageRef>,
    pub(super) wishes: &'a Wishes,
}

/// What a plan does beside replacing containers.
pub(super) struct Besides<'a> {
    pub(super) hooks: &'a [Hook],
    pub(super) data: &'a PlanData,
    /// Services that stay as they are, and why.
    pub(super) left: &'a BTreeMap<ServiceName, String>,
    /// Services that are replaced though nothing of their definition changed, and what did.
    pub(super) again: &'a BTreeMap<ServiceName, Vec<String>>,
}

impl<'a> Besides<'a> {
    /// Nothing but data.
    pub(super) fn data(data: &'a PlanData) -> Self {
        static NONE: BTreeMap<ServiceName, String> = BTreeMap::new();
        static NOTHING: BTreeMap<ServiceName, Vec<String>> = BTreeMap::new();
        Self { hooks: &[], data, left: &NONE, again: &NOTHING }
    }
}

/// Whether what is missing may be made, or only looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MakeImage {
    Yes,
    No,
}

impl Kaleem {
    pub(super) async fn make_deploy(&self, asked: &Asked<'_>, known: &Known<'_>, make: MakeImage) -> Result<Planned, KaleemError> {
        let failed = |source| KaleemError::Observe { source };
        let Asked { images: chosen, wishes, .. } = *asked;
        wishes.check(asked.project)?;
        let project = &wishes.scaled(asked.project);
        let serving = known.history.serving().and_then(|id| known.history.release(id));
        let serving = serving.as_ref();
        let left = wishes::left(project, serving, wishes);
        let engine = self.runtime.engine().await.map_err(|source| KaleemError::Runtime { source })?;
        let images = {
            let mut deployed = project.clone();
            deployed.services.retain(|name, _| wishes.deploys(name));
            observed::observe_images(&self.runtime, &self.registry, &deployed, chosen, &engine, serving).await.map_err(failed)?
        };
        let place = self.gateway_place(make).await?;
        if place.is_none() {
            refuse_lost_gateways(project, known.history)?;
        }
        // A definition always has a text form: it is maps, lists, text and numbers.
        let identify = |definition: &Definition| known.key.identify(definition).unwrap_or_else(|_| DefinitionId(String::new()));
        let mut all = images.clone();
        all.extend(self.images_left(project, serving, &left).await?);
        let Resolved { target: mut wanted, definitions } = resolve(project, &all, place.as_ref(), &identify);
        let as_files_say: BTreeMap<ServiceName, (DefinitionId, ImageRef)> = left
            .keys()
            .filter_map(|name| {
                let image = observed::image_reference(&project.name, project.services.get(name)?, None).ok()?;
                Some((name.clone(), (wanted.services.get(name)?.definition.clone(), image)))
            })
            .collect();
        Self::note_inputs(&mut wanted, project, chosen, known.key);
        wishes::carry(&mut wanted, serving, &left, wishes);
        let image_ids = images.iter().map(|(name, image)| (name.clone(), image.id.clone())).collect();
        // What differs in nothing is the same release: a repair of it must not push older ones out of those that are kept.
        let live = known.history.serving().and_then(|id| known.history.release(id)).filter(|live| live.target == wanted);
        let release = live.map_or_else(|| known.history.next_release(), |live| live.id);
        let mut observed = self.observe(&wanted, release, &definitions, image_ids, engine, known).await?;
        self.ask_gateways(&mut observed, &wanted).await?;
        // The same containers are made new, and so is a gateway that publishes what the file does not.
        observed.live_gateways.retain(|name, live| live.stays.is_empty() || !wishes.recreate.contains(name));
        let compare = |before: &DefinitionId, after: &DefinitionId| compare_known(before, after, known, &definitions);
        let later = settle::settle(&mut wanted, &observed, &|name| left.contains_key(name) || wishes.recreate.contains(name), &compare);
        let find = |name: &ServiceName| project.services.get(name).map(|service| service.definition.clone());
        let contents::Changed { mut again, objections } =
            contents::compare(&mut wanted, serving, &find, &|name| left.contains_key(name), known.key, &wishes.recreate);
        again.extend(wishes.recreate.iter().map(|name| (name.clone(), vec!["asked for by `--recreate`".to_owned()])));
        let hooks = project.settings.hooks.hooks(&project.directory);
        let data = self.deploy_data(project, known.history, make)?;
        let besides = Besides { hooks: &hooks, data: &data, left: &left, again: &again };
        // The same definitions are another release where somebody asked for other containers, or where what they mount changed.
        let live = serving.filter(|live| again.is_empty() && live.target == wanted);
        let release = live.map_or_else(|| known.history.next_release(), |live| live.id);
        let mut plan = self.make(PlanKind::Deploy, release, &wanted, &observed, known, &definitions, &besides);
        plan.object(settle::objections(&later));
        plan.object(objections);
        if !plan.is_empty() {
            let mut more = self.older_objections(project, serving, &images, &observed, &plan).await?;
            more.extend(wishes.scale_objections(asked.project, &plan));
            more.extend(replicas::objections(asked.project, project, &plan));
            more.extend(wishes.dependency_objections(project, &observed));
            more.extend(too_new::objections(project, &observed.engine, &plan));
            more.extend(wishes::left_objections(project, serving, &left, &as_files_say, &compare));
            plan.object(more);
        }
        let notes = images.into_iter().filter_map(|(service, image)| Some((service, image.note?))).collect();
        Ok(Planned { plan, notes, definitions: definitions.into_values().chain(Self::port_containers(&observed)).collect() })
    }

    /// Asks the gateways of what serves where they send, and which run another program than the one beside this one.
    /// Asks the gateways of the release that serves; where none is known, those that stand where `wanted` has some.
    pub(super) async fn ask_gateways(&self, observed: &mut Observed, wanted: &Target) -> Result<(), KaleemError> {
        let release = observed.releases.iter().find(|release| Some(release.id) == observed.serving);
        let target = release.map_or(wanted, |release| &release.target);
        for view in self.view_gateways(target, &observed.instances).await? {
            let stats = match &view.stats {
                Ok(stats) => stats,
                Err(TrafficError::Unreachable { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                    observed.lost_gateways.insert(view.service);
                    continue;
                }
                Err(_) => continue,
            };
            observed.sends.insert(view.service.clone(), reality::Sends::of(stats));
            if !view.is_current {
                observed.outdated_gateways.insert(view.service);
            }
        }
        Ok(())
    }

    /// What the port containers of a plan are to be.
    pub(super) fn port_containers(observed: &Observed) -> impl Iterator<Item = Definition> + '_ {
        observed.live_gateways.values().flat_map(|live| &live.adds).map(|port| port.definition.clone())
    }

    /// The images of services that are left as they are: those of the release that serves, with what the engine knows of them.
    async fn images_left(
        &self,
        project: &Project,
        serving: Option<&Release>,
        left: &BTreeMap<ServiceName, String>,
    ) -> Result<BTreeMap<ServiceName, ObservedImage>, KaleemError> {
        let mut images = BTreeMap::new();
        for name in left.keys().filter(|name| project.services.contains_key(*name)) {
            let Some(wanted) = serving.and_then(|serving| serving.target.services.get(name)) else { continue };
            let local = self.runtime.image(&wanted.image.engine_reference()).await;
            if let Some(local) = local.map_err(|source| KaleemError::Runtime { source })? {
                images.insert(name.clone(), ObservedImage { pinned: wanted.image.clone(), id: local.id, facts: local.facts, note: None });
            }
        }
        Ok(images)
    }

    /// What gateways are made from here. Their image is made when `make` says so and it is not there.
    pub(super) async fn gateway_place(&self, make: MakeImage) -> Result<Option<GatewayPlace>, KaleemError> {
        let (Some(parts), Some(digest)) = (&self.gateways, self.gateway_digest()?) else { return Ok(None) };
        let failed = |source| KaleemError::Runtime { source };
        let text = format!("kaleem.invalid/gateway:{}", program_name(&digest));
        // Twelve hexadecimal digits are a tag.
        let Ok(image) = text.parse::<ImageRef>() else { return Ok(None) };
        let found = match (self.runtime.image(&text).await.map_err(failed)?, make) {
            (Some(found), _) => Some(found.id),
            (None, MakeImage::Yes) => Some(self.runtime.assemble(&image, &parts.program).await.map_err(failed)?.id),
            (None, MakeImage::No) => None,
        };
        // A plan that is only looked at shows the program's own digest where there is no image yet.
        let Some(digest) = found.or_else(|| format!("sha256:{digest}").parse().ok()) else { return Ok(None) };
        let image = PinnedImage { image, digest, source: ImageSource::Local };
        let control = &parts.control;
        Ok(Some(GatewayPlace { image, directory: control.directory.clone(), user: control.user }))
    }

    /// The set that is made before a deploy, where `kaleem.toml` asks for one.
    fn deploy_data(&self, project: &Project, history: &History, make: MakeImage) -> Result<PlanData, KaleemError> {
        let always = project.settings.backup.when == Some(BackupWhen::BeforeDeploy);
        let asks = |name: &&ServiceName| match project.settings.services.get(*name).and_then(|settings| settings.backup) {
            Some(ServiceBackup::BeforeDeploy) => true,
            Some(ServiceBackup::Never) => false,
            None => always,
        };
        let services: BTreeSet<ServiceName> = project.services.keys().filter(asks).cloned().collect();
        if services.is_empty() {
            return Ok(PlanData::Leave);
        }
        // Who only looks needs no key and no vault.
        if self.backups.is_none() && make == MakeImage::Yes {
            return Err(KaleemError::BackupsMissing);
        }
        Ok(PlanData::BackUp { set: self.set_name(&project.name, history.next_plan())?, services })
    }

    /// The name of a set that a plan makes: the time, for people, the plan, and digits that make it one of its own.
    fn set_name(&self, project: &ProjectName, plan: PlanId) -> Result<SetId, KaleemError> {
        let now = self.clock.now();
        let digest = hex::encode(Sha256::digest(format!("{project} {plan} {} {}", now.as_nanosecond(), std::process::id())));
        let text = format!("{}-{plan}-{}", now.strftime("%Y%m%dt%H%M%Sz"), digest.get(..8).unwrap_or_default());
        text.parse().map_err(|source| KaleemError::SetName { source })
    }

    /// The beginning of the SHA-256 of the program that gateways are made from here.
    pub(super) fn gateway_program(&self) -> Result<Option<String>, KaleemError> {
        Ok(self.gateway_digest()?.map(|digest| program_name(&digest).to_owned()))
    }

    /// The SHA-256 of that program.
    fn gateway_digest(&self) -> Result<Option<String>, KaleemError> {
        let Some(parts) = &self.gateways else { return Ok(None) };
        self.programs.digest(&parts.program).map_err(|source| KaleemError::GatewayProgram { source })
    }

    /// What there is to see before gateways go.
    pub(super) async fn observe_to_leave(
        &self,
        target: &Target,
        definitions: &BTreeMap<DefinitionId, Definition>,
        images: &BTreeMap<ServiceName, ObservedImage>,
        engine: EngineInfo,
        known: &Known<'_>,
    ) -> Result<Observed, KaleemError> {
        let image_ids = images.iter().map(|(name, image)| (name.clone(), image.id.clone())).collect();
        let mut questions = questions(target, known.history.next_release(), definitions, image_ids, &engine, known);
        let serving = known.history.serving().and_then(|id| known.history.release(id));
        questions.routed = serving.map(|release| routed(&release.target)).unwrap_or_default();
        let observed = observed::observe_host(&self.runtime, engine, &questions, known.history.releases(), known.history.serving()).await;
        observed.map_err(|source| KaleemError::Observe { source })
    }

    pub(super) async fn make_rollback(&self, to: Option<ReleaseId>, data: RollbackData, known: &Known<'_>) -> Result<Planned, KaleemError> {
        let release = rollback_target(known.history, to)?;
        let data = match data {
            RollbackData::Leave => PlanData::Leave,
            RollbackData::PutBack if self.backups.is_none() => return Err(KaleemError::BackupsMissing),
            RollbackData::PutBack => {
                let set = known.history.data_of(release.id).ok_or(KaleemError::NoDataOf { release: release.id })?;
                let safe = self.set_name(&release.target.project, known.history.next_plan())?;
                PlanData::Restore { set, safe, writers: self.writers(&release, known) }
            }
        };
        let engine = self.runtime.engine().await.map_err(|source| KaleemError::Runtime { source })?;
        let mut definitions = BTreeMap::new();
        for wanted in release.target.services.values() {
            for id in std::iter::once(&wanted.definition).chain(wanted.gateway.as_ref().map(|gateway| &gateway.definition)) {
                let definition = known.state.definition(known.key, id).map_err(|source| KaleemError::State { source })?;
                definitions.insert(id.clone(), definition);
            }
        }
        let serving = known.history.serving().and_then(|id| known.history.release(id));
        let mut release = release;
        release.forgive_unhealthy();
        let names: BTreeMap<ServiceName, DefinitionId> =
            release.target.services.iter().map(|(name, wanted)| (name.clone(), wanted.definition.clone())).collect();
        let find = |name: &ServiceName| names.get(name).and_then(|id| definitions.get(id)).cloned();
        contents::after_rollback(&mut release.target, serving.as_ref(), &find, known.key);
        let image_ids = self.image_ids(&release.target).await?;
        let mut observed = self.observe(&release.target, release.id, &definitions, image_ids.clone(), engine, known).await?;
        for container in reality::unchanged(&observed, &release.target, &image_ids) {
            observed.drift.remove(&container);
            observed.adoptable.insert(container);
        }
        self.ask_gateways(&mut observed, &release.target).await?;
        // Only a deploy says that a program is older.
        observed.outdated_gateways.clear();
        let besides = Besides::data(&data);
        let plan = self.make(PlanKind::Rollback, release.id, &release.target, &observed, known, &definitions, &besides);
        Ok(Planned { plan, notes: BTreeMap::new(), definitions: Self::port_containers(&observed).collect() })
    }

    /// The ids that the images of a release have on this engine, as far as they are there.
    async fn image_ids(&self, target: &Target) -> Result<BTreeMap<ServiceName, Digest>, KaleemError> {
        let mut found = BTreeMap::new();
        for (name, wanted) in &target.services {
            let image = self.runtime.image(&wanted.image.engine_reference()).await.map_err(|source| KaleemError::Runtime { source })?;
            found.extend(image.map(|image| (name.clone(), image.id)));
        }
        Ok(found)
    }

    /// The services that use the data of backup sets, in the release to go back to and in the one that serves.
    fn writers(&self, to: &Release, known: &Known<'_>) -> BTreeSet<ServiceName> {
        let data = self.backups.as_ref().map(|backups| backups.covers()).unwrap_or_default();
        let serving = known.history.serving().and_then(|id| known.history.release(id));
        let targets: Vec<&Target> = std::iter::once(to).chain(&serving).map(|release| &release.target).collect();
        writers::find(&targets, &|id| known.state.definition(known.key, id).ok(), &data)
    }

    pub(super) async fn observe(
        &self,
        target: &Target,
        release: ReleaseId,
        definitions: &BTreeMap<DefinitionId, Definition>,
        image_ids: BTreeMap<ServiceName, Digest>,
        engine: EngineInfo,
        known: &Known<'_>,
    ) -> Result<Observed, KaleemError> {
        let history = known.history;
        let questions = questions(target, release, definitions, image_ids, &engine, known);
        let observed = observed::observe_host(&self.runtime, engine, &questions, history.releases(), history.serving()).await;
        let mut observed = observed.map_err(|source| KaleemError::Observe { source })?;
        let find = |id: &DefinitionId| definitions.get(id).cloned().or_else(|| known.state.definition(known.key, id).ok());
        let serving = history.serving().and_then(|id| history.release(id));
        observed.detached = reality::detached(&observed.instances, serving.as_ref(), &find);
        reality::keep_detached(&mut observed);
        let identify = |definition: &Definition| known.key.identify(definition).unwrap_or_else(|_| DefinitionId(String::new()));
        observed.live_gateways = live::find(&observed, target, &find, &identify);
        let doors = observed::doors::find(&self.runtime, &self.probes, target, &observed).await;
        (observed.doors, observed.shut_doors) = (doors.open, doors.shut);
        Ok(observed)
    }

    pub(super) fn make(
        &self,
        kind: PlanKind,
        release: ReleaseId,
        target: &Target,
        observed: &Observed,
        known: &Known<'_>,
        definitions: &BTreeMap<DefinitionId, Definition>,
        besides: &Besides<'_>,
    ) -> Plan {
        let compare = |before: &DefinitionId, after: &DefinitionId| compare_known(before, after, known, definitions);
        let Besides { hooks, data, left, again } = *besides;
        plan(&PlanInput { id: known.history.next_plan(), kind, release, target, observed, hooks, data, left, again, compare: &compare })
    }
}

/// In what two definitions differ; nothing where one of them is not known any more.
fn compare_known(
    before: &DefinitionId,
    after: &DefinitionId,
    known: &Known<'_>,
    definitions: &BTreeMap<DefinitionId, Definition>,
) -> Vec<String> {
    let find = |id: &DefinitionId| definitions.get(id).cloned().or_else(|| known.state.definition(known.key, id).ok());
    match (find(before), find(after)) {
        (Some(before), Some(after)) => compare::fields(&before, &after),
        _ => Vec::new(),
    }
}

/// A service that has a gateway must not lose it because a file is missing: that would cut everybody off for a moment.
fn refuse_lost_gateways(project: &Project, history: &History) -> Result<(), KaleemError> {
    let Some(serving) = history.serving().and_then(|id| history.release(id)) else { return Ok(()) };
    let meant = |name: &ServiceName| project.settings.services.get(name).is_some_and(|settings| settings.strategy.is_some());
    let has = |name: &ServiceName| serving.target.services.get(name).is_some_and(|wanted| wanted.gateway.is_some());
    match project.services.keys().find(|name| has(name) && !meant(name)) {
        Some(service) => Err(KaleemError::GatewaysMissing { service: service.clone() }),
        None => Ok(()),
    }
}

/// The release to go back to: the one that was named, or the last one that served well before.
fn rollback_target(history: &History, to: Option<ReleaseId>) -> Result<Release, KaleemError> {
    let releases = history.releases();
    let found = to.or_else(|| history.fallback()).and_then(|id| releases.iter().find(|release| release.id == id));
    found.cloned().ok_or_else(|| KaleemError::NoSuchRelease {
        wanted: to,
        known: releases.iter().filter(|release| history.serving() != Some(release.id)).map(|release| release.id.to_string()).collect(),
    })
}

fn questions(
    target: &Target,
    release: ReleaseId,
    definitions: &BTreeMap<DefinitionId, Definition>,
    image_ids: BTreeMap<ServiceName, Digest>,
    engine: &EngineInfo,
    known: &Known<'_>,
) -> HostQuestions {
    let specs = target.services.iter().filter_map(|(name, wanted)| {
        let definition = definitions.get(&wanted.definition)?.clone();
        // A container in another's namespace is bound to that very container: it is never taken over.
        if !companions(&definition).is_empty() || !too_new::keys(&definition, engine).is_empty() {
            return None;
        }
        let instance = NewInstance {
            name: wanted.container_name.clone().or_else(|| name.as_str().parse().ok())?,
            service: name.clone(),
            number: 1,
            release: ReleaseId::new(0),
            image: wanted.image.clone(),
            definition: wanted.definition.clone(),
            companions: BTreeMap::new(),
            role: Role::Instance,
        };
        Some((name.clone(), labels::spec(target, &instance, definition, None)))
    });
    let wanted: BTreeMap<ServiceName, InstanceSpec> = specs.collect();
    let given = target.services.iter().flat_map(|(name, wanted)| {
        let instances = (1..=wanted.replicas).map(move |number| instance_name(&target.project, name, release, number));
        instances.chain(wanted.gateway.as_ref().map(|gateway| gateway.container.clone()))
    });
    let fixed = target.services.values().filter_map(|wanted| wanted.container_name.clone());
    let names: BTreeSet<_> = given.chain(fixed).collect();
    HostQuestions {
        project: target.project.clone(),
        networks: target.networks.iter().map(|network| network.name.clone()).collect(),
        volumes: target.volumes.iter().map(|volume| volume.name.clone()).collect(),
        container_names: names.into_iter().collect(),
        wanted,
        old_pins: old_pins(target, release, known.history),
        gateways: target
            .services
            .iter()
            .filter_map(|(name, wanted)| Some((name.clone(), wanted.gateway.as_ref()?.definition.clone())))
            .collect(),
        routed: routed(target),
        wanted_gateways: wanted_gateways(target, definitions),
        ownership: known.ownership.clone(),
        image_ids,
    }
}

/// What the gateways would be.
fn wanted_gateways(target: &Target, definitions: &BTreeMap<DefinitionId, Definition>) -> BTreeMap<GatewayName, InstanceSpec> {
    let specs = target.services.iter().filter_map(|(name, wanted)| {
        let gateway = wanted.gateway.as_ref()?;
        let instance = NewInstance {
            name: gateway.container.clone(),
            service: name.clone(),
            number: 0,
            release: ReleaseId::new(0),
            image: gateway.image.clone(),
            definition: gateway.definition.clone(),
            companions: BTreeMap::new(),
            role: Role::Gateway(gateway.name.clone()),
        };
        let spec = labels::spec(target, &instance, definitions.get(&gateway.definition)?.clone(), None);
        Some((gateway.name.clone(), spec))
    });
    specs.collect()
}

/// Services that get a gateway, with the names under which others call them.
fn routed(target: &Target) -> BTreeMap<ServiceName, BTreeSet<String>> {
    let names = |gateway: &WantedGateway| gateway.networks.iter().flat_map(|network| network.aliases.iter().cloned()).collect();
    target.services.iter().filter_map(|(name, wanted)| Some((name.clone(), names(wanted.gateway.as_ref()?)))).collect()
}

/// Our tags of releases that the target keeps no more, newest first; enough of them that every plan tidies after the one before.
fn old_pins(target: &Target, leads_to: ReleaseId, history: &History) -> Vec<ImageRef> {
    /// Releases more than go out of those that are kept: what a plan could not remove, a later one does. All services of each are asked about.
    const MORE: u32 = 2;
    let number = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
    // Where fewer are kept than before, more go out at once.
    let before = history.serving().and_then(|id| history.release(id)).map_or(target.keep, |release| release.target.keep);
    let asked = number(before.saturating_sub(target.keep).saturating_add(MORE));
    // The release that the plan leads to is the first of those that are kept, also where it served before.
    let others = history.releases().into_iter().filter(|release| release.id != leads_to);
    let dropped = others.skip(number(target.keep).saturating_sub(1)).take(asked);
    let pins = dropped.flat_map(|release| {
        let names: Vec<ServiceName> = release.target.services.keys().cloned().collect();
        names.into_iter().filter_map(move |name| pin_tag(&release.target.project, &name, release.id))
    });
    pins.collect()
}

//! From a checked project and pinned images to what is wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::config::settings::backup::MigrationName;
use crate::config::settings::front_door::FrontDoorSettings;
use crate::config::{DependencyCondition, Project, Service, role};
use crate::definition::{Definition, DefinitionId, NetworkMode};
use crate::health::Question;
use crate::names::ServiceName;
use crate::observed::ObservedImage;
use crate::plan::gateway::{self, GatewayPlace};
use crate::plan::strategy::{self, Gateways};
use crate::release::{MadeFrom, Migration, Strategy, Target, Wanted, WantedGateway};
use crate::runtime::StopPolicy;

/// Time between the stop signal and SIGKILL where nothing is said (Compose's own default).
const STOP_GRACE: Duration = Duration::from_secs(10);
/// Releases kept where nothing is said.
const KEEP: u32 = 5;

/// What is wanted, and the definitions that it names.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// What is wanted.
    pub target: Target,
    /// Every definition in it, by identity.
    pub definitions: BTreeMap<DefinitionId, Definition>,
}

/// The services that run to their end: another one waits for it.
pub fn run_to_end(project: &Project) -> BTreeSet<&ServiceName> {
    let waited_for = project.services.values().flat_map(|service| &service.depends_on);
    waited_for
        .filter(|(_, dependency)| dependency.condition == DependencyCondition::ServiceCompletedSuccessfully)
        .map(|(name, _)| name)
        .collect()
}

/// What is wanted of a project. Services without an image in `images` are left out; `identify` names a definition; without a
/// `place` no service gets a gateway.
pub fn resolve(
    project: &Project,
    images: &BTreeMap<ServiceName, ObservedImage>,
    place: Option<&GatewayPlace>,
    identify: &dyn Fn(&Definition) -> DefinitionId,
) -> Resolved {
    let mut definitions = BTreeMap::new();
    let mut services = BTreeMap::new();
    for service in project.services.values() {
        let Some(image) = images.get(&service.name) else { continue };
        let mut keep = |definition: Definition| {
            let id = identify(&definition);
            definitions.insert(id.clone(), definition);
            id
        };
        let wanted = wanted(project, service, image, place, &mut keep);
        services.insert(service.name.clone(), wanted);
    }
    let target = Target {
        project: project.name.clone(),
        directory: project.directory.clone(),
        files: project.files.clone(),
        services,
        networks: project.networks.values().cloned().collect(),
        volumes: project.volumes.values().cloned().collect(),
        keep: project.settings.keep.unwrap_or(KEEP).max(1),
        front_door: project.settings.front_door.values().map(FrontDoorSettings::door).collect(),
        made_from: MadeFrom::default(),
    };
    Resolved { target, definitions }
}

fn wanted(
    project: &Project,
    service: &Service,
    image: &ObservedImage,
    place: Option<&GatewayPlace>,
    keep: &mut dyn FnMut(Definition) -> DefinitionId,
) -> Wanted {
    let settings = project.settings.services.get(&service.name).cloned().unwrap_or_default();
    let gateways = if place.is_some() { Gateways::Available } else { Gateways::Missing };
    let (strategy, reason) = strategy::decide(project, service, &image.pinned.image, &image.facts, &settings, gateways);
    let mut gate = strategy::gate(service, &image.facts, settings.health.as_ref());
    let behind = match strategy {
        Strategy::BlueGreen | Strategy::Rolling => true,
        Strategy::Recreate => strategy::is_held(project, service, &image.pinned.image, &image.facts, &settings),
        Strategy::Overlap | Strategy::RunToEnd => false,
    };
    let split = place.filter(|_| behind && settings.gateway != Some(false)).and_then(|place| {
        let split = gateway::split(&project.name, service, &image.facts, &gate, &settings, place)?;
        Some((split, place))
    });
    // What others reach must be there to be reached.
    let asked_nothing = matches!(gate.question, Question::Running) && split.is_none() && !behind;
    gate.may_end = asked_nothing && role::may_end(project, service, &image.pinned.image, &image.facts);
    let rolling = (strategy == Strategy::Rolling).then(|| gateway::rolling(service, &settings));
    let hold = settings.hold.map(|text| text.0).or((strategy == Strategy::Recreate).then_some(gateway::HOLD));
    let reason = match (&rolling, split.is_some()) {
        (Some(rolling), true) => format!("{reason}: {}", gateway::rolling_text(rolling, service.replicas)),
        (None, true) if strategy == Strategy::Recreate => format!("{reason}: its gateway holds requests meanwhile"),
        (_, _) => reason,
    };
    let reason = match &split {
        Some((split, _)) if !split.tcp.is_empty() => format!("{reason}; {}", passed_on(&split.tcp)),
        Some(_) | None => reason,
    };
    let common = Wanted {
        image: image.pinned.clone(),
        platform: service.definition.platform.clone(),
        definition: DefinitionId(String::new()),
        replicas: service.replicas,
        container_name: service.container_name.clone(),
        strategy,
        reason,
        gate,
        needs: strategy::needs(project, service, &settings),
        depends_on: service.depends_on.clone(),
        stop: StopPolicy { signal: service.definition.stop_signal.clone(), grace: service.definition.stop_grace.unwrap_or(STOP_GRACE) },
        restart: service.definition.restart,
        ports: service.definition.ports.clone(),
        companions: companions(&service.definition),
        gateway: None,
        migration: match settings.migration {
            Some(MigrationName::OneWay) => Migration::OneWay,
            Some(MigrationName::Reversible) => Migration::Reversible { down: settings.down.clone().unwrap_or_default() },
            Some(MigrationName::Compatible) | None => Migration::Compatible,
        },
        compose_hash: service.compose_hash.v2_26.clone(),
        files: BTreeMap::new(),
        reload: settings.reload.unwrap_or(true),
    };
    match split {
        None => Wanted { definition: keep(service.definition.clone()), ..common },
        Some((split, place)) => {
            let gateway = WantedGateway {
                name: split.name,
                container: split.container,
                image: place.image.clone(),
                networks: split.networks,
                ports: split.ports,
                declares_ports: split.declares_ports,
                hidden_ports: split.hidden,
                definition: keep(split.gateway),
                hand_over: settings.hand_over.map_or_else(crate::release::hand_over, |text| text.0),
                watch: gateway::watch(service, &settings),
                drain: gateway::drain(&settings),
                rolling,
                hold,
            };
            // Its containers get names of their own: the fixed one belongs to the gateway.
            Wanted { definition: keep(split.instance), container_name: None, gateway: Some(gateway), ..common }
        }
    }
}

/// `port 9000 is passed on as TCP`.
fn passed_on(ports: &BTreeSet<u16>) -> String {
    let list = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
    if ports.len() == 1 { format!("port {list} is passed on as TCP") } else { format!("ports {list} are passed on as TCP") }
}

/// Services in whose namespaces or volumes a container takes part: it must be made anew when theirs is.
pub fn companions(definition: &Definition) -> Vec<ServiceName> {
    let mut names = BTreeSet::new();
    if let NetworkMode::Service(service) = &definition.network {
        names.insert(service.clone());
    }
    for mode in [&definition.pid, &definition.ipc].into_iter().flatten() {
        if let Some(service) = mode.strip_prefix("service:").and_then(|name| name.parse().ok()) {
            names.insert(service);
        }
    }
    names.extend(definition.volumes_from.iter().map(|(service, _)| service.clone()));
    names.into_iter().collect()
}

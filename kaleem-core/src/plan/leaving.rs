//! Plans that lead to no new release: everything stopped and removed, or newer programs for gateways. Pure, like the planner.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::image::ImageRef;
use crate::names::{NetworkName, PlanId, ServiceName, VolumeName};
use crate::observed::is_gateway;
use crate::plan::steps::dependency_order;
use crate::plan::{BaselineGate, ChangeKind, Interruption, PLAN_FORMAT, Plan, PlanKind, ServiceChange, Step};
use crate::release::{Release, Wanted};
use crate::runtime::{Instance, InstanceHealth, InstanceStatus, StopPolicy};

/// How a gateway, or what no file describes, is stopped.
const STOP: StopPolicy = StopPolicy { signal: None, grace: Duration::from_secs(10) };

/// A program for gateways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The file on this host.
    pub path: PathBuf,
    /// Beginning of its SHA-256.
    pub digest: String,
}

fn is_up(instance: &Instance) -> bool {
    matches!(instance.state.status, InstanceStatus::Running | InstanceStatus::Restarting | InstanceStatus::Paused)
}

/// Brings gateways to another program while they serve; `services` come with the program that each runs now.
pub fn upgrade(id: PlanId, release: &Release, services: &[(ServiceName, Option<String>)], program: &Program) -> Plan {
    let mut steps = Vec::new();
    let mut changes = Vec::new();
    for (service, before) in services {
        let Some(wanted) = release.target.services.get(service) else { continue };
        let Some(gateway) = &wanted.gateway else { continue };
        steps.push(Step::Upgrade {
            service: service.clone(),
            gateway: gateway.name.clone(),
            program: program.path.clone(),
            digest: program.digest.clone(),
        });
        changes.push(ServiceChange {
            image_before: Some(format!("gateway {}", before.as_deref().unwrap_or("of its image"))),
            image_after: Some(format!("gateway {}", program.digest)),
            ..change(service, ChangeKind::Replace, wanted.strategy, "the program of its gateway is another than the one beside kaleem")
        });
    }
    if !steps.is_empty() {
        steps.insert(0, Step::Baseline { gates: Vec::new() });
        steps.push(Step::Commit { release: release.id });
    }
    Plan {
        format: PLAN_FORMAT,
        id,
        kind: PlanKind::Upgrade,
        release: release.clone(),
        previous: Some(release.id),
        changes,
        objections: Vec::new(),
        steps,
        by: None,
        note: None,
    }
}

/// What [`down`] is made from.
#[derive(Debug)]
pub struct Down<'a> {
    /// The plan's number.
    pub id: PlanId,
    /// What serves.
    pub release: &'a Release,
    /// All containers of the project.
    pub instances: &'a [Instance],
    /// Networks of the project that exist.
    pub networks: Vec<NetworkName>,
    /// Volumes that go with their data.
    pub volumes: Vec<VolumeName>,
    /// Tags of ours that exist.
    pub pins: Vec<ImageRef>,
}

/// Stops everything, those first that others do not need, and then removes it. Before the commit it can be taken back.
pub fn down(input: &Down<'_>) -> Plan {
    let Down { release, instances, .. } = input;
    let order = dependency_order(&release.target);
    let place = |instance: &&Instance| order.iter().position(|name| *name == instance.service);
    let mut all: Vec<&Instance> = instances.iter().collect();
    // What others depend on goes last; gateways go first, so that nobody is sent to what is ending.
    all.sort_by_key(|instance| (!is_gateway(instance), std::cmp::Reverse(place(instance)), instance.name.clone()));
    let mut gates = Vec::new();
    let mut stops = Vec::new();
    let mut changes: BTreeMap<ServiceName, ServiceChange> = BTreeMap::new();
    for instance in all.iter().copied().filter(|instance| is_up(instance)) {
        let wanted = release.target.services.get(&instance.service).filter(|_| !is_gateway(instance));
        let fails = |wanted: &Wanted| wanted.gate.asks_docker() && instance.state.health == InstanceHealth::Unhealthy;
        let well = |wanted: &&Wanted| instance.state.status == InstanceStatus::Running && !fails(wanted);
        let gate = wanted.filter(well).map(|wanted| wanted.gate.clone());
        if let Some(gate) = &gate {
            gates.push(BaselineGate { service: instance.service.clone(), container: instance.name.clone(), gate: gate.clone() });
        }
        stops.push(Step::Stop {
            service: instance.service.clone(),
            container: instance.name.clone(),
            stop: wanted.map_or(STOP, |wanted| wanted.stop.clone()),
            restart: instance.restart,
            gate,
            again: None,
        });
        if let Some(wanted) = wanted {
            let before = Some(wanted.image.to_string());
            let reason = "everything of the project is stopped and removed";
            let stopped = change(&instance.service, ChangeKind::Stop, wanted.strategy, reason);
            let stopped = ServiceChange { image_before: before, interruption: Interruption::StopAndStart, ..stopped };
            changes.insert(instance.service.clone(), stopped);
        }
    }
    let mut steps = vec![Step::Baseline { gates }];
    steps.extend(stops);
    steps.push(Step::Commit { release: release.id });
    steps.extend(all.iter().map(|instance| Step::Remove { service: instance.service.clone(), container: instance.name.clone() }));
    steps.extend(input.networks.iter().map(|network| Step::RemoveNetwork { network: network.clone() }));
    steps.extend(input.volumes.iter().map(|volume| Step::RemoveVolume { volume: volume.clone() }));
    steps.extend(input.pins.iter().map(|pin| Step::Unpin { pin: pin.clone() }));
    Plan {
        format: PLAN_FORMAT,
        id: input.id,
        kind: PlanKind::Down,
        // What served is named, so that what it says can be shown without its secrets, should this be taken back.
        release: Release { instances: BTreeMap::new(), ..(*release).clone() },
        previous: Some(release.id),
        changes: changes.into_values().collect(),
        objections: Vec::new(),
        steps,
        by: None,
        note: None,
    }
}

fn change(service: &ServiceName, kind: ChangeKind, strategy: crate::release::Strategy, reason: &str) -> ServiceChange {
    ServiceChange {
        service: service.clone(),
        kind,
        strategy,
        reason: reason.to_owned(),
        image_before: None,
        image_after: None,
        fields: Vec::new(),
        interruption: Interruption::None,
    }
}

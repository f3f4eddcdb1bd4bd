//! One step of a plan: what it carries, how it is taken back, and how it reads.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{BaselineGate, NewInstance, Route};
use crate::config::{Hook, HookMoment};
use crate::definition::{NetworkAttachment, NetworkDefinition, RestartPolicy, VolumeDefinition};
use crate::health::{Door, Need};
use crate::image::{ImageRef, PinnedImage};
use crate::names::{ContainerName, GatewayName, NetworkName, ProjectName, ReleaseId, ServiceName, SetId, VolumeName};
use crate::observed::clients::Refresh;
use crate::release::{GateSettings, Migration, WatchSettings};
use crate::runtime::StopPolicy;
use crate::traffic::DrainPolicy;

/// One idempotent change with a perform and an undo.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Step {
    /// Notes what serves before. Its undo, which comes last, waits until that is healthy again.
    Baseline {
        /// What must be healthy.
        gates: Vec<BaselineGate>,
    },
    /// Runs a program of the operator on the host. There is no undo: what it did is its own.
    Hook {
        /// Which, and when.
        hook: Hook,
    },
    /// Makes a network. Undo removes it.
    CreateNetwork {
        /// The network.
        network: NetworkDefinition,
    },
    /// Makes a volume. There is no undo: it may hold data.
    CreateVolume {
        /// The volume.
        volume: VolumeDefinition,
    },
    /// Fetches an image. There is no undo: it is pinned or pruned by others.
    Pull {
        /// The image.
        image: PinnedImage,
        /// `os/arch[/variant]`, where the file asks for one.
        platform: Option<String>,
    },
    /// Gives an image our tag, so that no prune takes it. Undo removes the tag.
    Pin {
        /// The image.
        image: PinnedImage,
        /// The tag.
        pin: ImageRef,
    },
    /// Makes a container, not started. Undo removes it.
    Create {
        /// The container.
        instance: NewInstance,
    },
    /// Starts a container. Undo stops it.
    Start {
        /// Its service.
        service: ServiceName,
        /// The container.
        container: ContainerName,
        /// Its restart policy.
        restart: RestartPolicy,
        /// How the undo stops it.
        stop: StopPolicy,
    },
    /// Waits until a container is healthy. It only reads.
    Gate {
        /// Its service.
        service: ServiceName,
        /// The container.
        container: ContainerName,
        /// When it counts as healthy.
        gate: GateSettings,
        /// The gateway from which it is asked; `None` asks from the host.
        through: Option<GatewayName>,
        /// Ports that clients use, which must accept connections as well.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reach: Option<Reach>,
    },
    /// Waits until what a service needs is well. It only reads.
    Needs {
        /// The service that needs it.
        service: ServiceName,
        /// What must be well.
        needs: Vec<Need>,
        /// Time one answer may take.
        timeout: Duration,
        /// Time in which all must be well.
        deadline: Duration,
    },
    /// Has a gateway send to other instances, in one switch. Undo switches back.
    Steer {
        /// Its service.
        service: ServiceName,
        /// The gateway.
        gateway: GatewayName,
        /// Where it sends from now on.
        to: Vec<Route>,
        /// Where it sent before; empty where it is new.
        from: Vec<Route>,
    },
    /// Has a gateway hold every request, while nobody may have it. Undo sends to the old instances again.
    Hold {
        /// Its service.
        service: ServiceName,
        /// The gateway.
        gateway: GatewayName,
        /// Longest time that one waits.
        hold: Duration,
        /// Where it sent before.
        from: Vec<Route>,
    },
    /// Watches what a gateway counts, and the new instances, while the old ones are warm. It only reads.
    Watch {
        /// Its service.
        service: ServiceName,
        /// The gateway.
        gateway: GatewayName,
        /// The new instances.
        instances: Vec<Route>,
        /// What is watched.
        watch: WatchSettings,
        /// What each new instance is asked all the while, beside what its requests tell.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gate: Option<GateSettings>,
    },
    /// Waits until nothing runs at an old instance any more. It only waits.
    Drain {
        /// Its service.
        service: ServiceName,
        /// The gateway.
        gateway: GatewayName,
        /// The old instance.
        container: ContainerName,
        /// How long.
        drain: DrainPolicy,
    },
    /// Starts a container and waits for its end with exit code 0. Undo stops it.
    RunToEnd {
        /// Its service.
        service: ServiceName,
        /// The container.
        container: ContainerName,
        /// Time it may take.
        deadline: Duration,
        /// How the undo stops it.
        stop: StopPolicy,
        /// What going back past it takes. Once a one-way migration has begun, nothing goes back by itself.
        #[serde(default, skip_serializing_if = "Migration::is_compatible")]
        migration: Migration,
    },
    /// Makes a backup set and reads it back. Undo removes what there is of it, unless it was finished.
    BackUp {
        /// Its name.
        set: SetId,
        /// The release that it is made before.
        release: ReleaseId,
        /// Words for retention.
        tags: Vec<String>,
    },
    /// Reads a backup set again, in every vault. It only reads.
    VerifyBackup {
        /// The set.
        set: SetId,
    },
    /// Puts the data of a backup set in the place of what is there. Undo puts back what `safe` holds of what was there.
    RestoreData {
        /// The set.
        set: SetId,
        /// The set that an earlier step made of what is replaced.
        safe: SetId,
    },
    /// Stops a container that served. Undo makes it serve again.
    Stop {
        /// Its service.
        service: ServiceName,
        /// The container.
        container: ContainerName,
        /// How.
        stop: StopPolicy,
        /// The restart policy it gets back.
        restart: RestartPolicy,
        /// What the undo waits for; `None` where it was not healthy before either.
        gate: Option<GateSettings>,
        /// How the undo makes it anew, should somebody have removed it.
        again: Option<NewInstance>,
    },
    /// Starts a gateway that nobody reaches yet: without its networks and its ports. Undo stops it.
    StartApart {
        /// Its service.
        service: ServiceName,
        /// The gateway's container.
        container: ContainerName,
        /// Its restart policy.
        restart: RestartPolicy,
        /// How the undo stops it.
        stop: StopPolicy,
    },
    /// Stops what has the ports of a service, and gives them to a gateway that runs apart. Undo stops the gateway and makes what had them serve again.
    HandOver {
        /// The service.
        service: ServiceName,
        /// What has the ports and the name now.
        from: Vec<HandedOver>,
        /// The gateway's container.
        to: ContainerName,
        /// The networks that it joins.
        networks: Vec<NetworkAttachment>,
        /// How the undo stops the gateway.
        stop: StopPolicy,
    },
    /// Has a container run on that serves, and that somebody stopped or paused. There is no undo: it is to run in the release before, too.
    Revive {
        /// Its service.
        service: ServiceName,
        /// The container.
        container: ContainerName,
        /// Its restart policy.
        restart: RestartPolicy,
    },
    /// Connects a container to networks, running or not, with the names that it has there. What it has already stays as it is.
    Connect {
        /// Its service.
        service: ServiceName,
        /// The container.
        container: ContainerName,
        /// The networks.
        networks: Vec<NetworkAttachment>,
        /// What the undo does.
        when_undone: WhenUndone,
    },
    /// Has a web server read its configuration again, so that it looks names up anew. Undo does the same.
    Reload {
        /// The web server's service.
        service: ServiceName,
        /// Its container.
        container: ContainerName,
        /// The service whose address it had kept.
        of: ServiceName,
        /// The address it had kept: nothing is done while that is still right. `None` reloads it whatever it is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kept: Option<KeptAddress>,
    },
    /// Asks where clients ask: what worked before the plan must work now. It only reads.
    FrontDoor {
        /// The service that was just switched; `None` before the commit.
        service: Option<ServiceName>,
        /// The doors that worked when the plan was made.
        doors: Vec<Door>,
    },
    /// Replaces the program of a gateway while it serves. There is no undo: the old and the new one do the same.
    Upgrade {
        /// Its service.
        service: ServiceName,
        /// The gateway.
        gateway: GatewayName,
        /// The program, a file on this host.
        program: PathBuf,
        /// The beginning of its SHA-256.
        digest: String,
    },
    /// Gives a container that goes on running another restart policy. Undo gives it the one before.
    Update {
        /// Its service.
        service: ServiceName,
        /// The container.
        container: ContainerName,
        /// The restart policy after.
        restart: RestartPolicy,
        /// The restart policy before.
        from: RestartPolicy,
    },
    /// Gives a container another name. Undo gives it back.
    Rename {
        /// Its service.
        service: ServiceName,
        /// The name before.
        from: ContainerName,
        /// The name after.
        to: ContainerName,
    },
    /// From here on the release serves: what fails later is a leftover and not a reason to go back.
    Commit {
        /// The release.
        release: ReleaseId,
    },
    /// Removes a container of a release that is not kept any more. There is no way back.
    Remove {
        /// Its service.
        service: ServiceName,
        /// The container.
        container: ContainerName,
    },
    /// Removes our tag of a release that is not kept any more. There is no way back.
    Unpin {
        /// The tag.
        pin: ImageRef,
    },
    /// Removes a network that nothing of the project needs any more. There is no way back.
    RemoveNetwork {
        /// The network.
        network: NetworkName,
    },
    /// Removes a volume with the data in it, because a person asked for it. There is no way back.
    RemoveVolume {
        /// The volume.
        volume: VolumeName,
    },
}

/// What becomes of a connection to a network when its plan is rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenUndone {
    /// It stays: the release before needs it as well.
    Stays,
    /// The container leaves the networks.
    Leaves,
}

/// An address that a web server keeps, and how it learns of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptAddress {
    /// What it keeps, by network.
    pub addresses: BTreeMap<NetworkName, BTreeSet<String>>,
    /// Containers that have the name before and after: their addresses are what it should know.
    pub holders: Vec<ContainerName>,
    /// What makes it look the name up again.
    pub refresh: Refresh,
}

/// Whether clients reach an instance: asked on the path of their requests, whatever the service's own health check says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reach {
    /// TCP ports of the instance.
    pub ports: BTreeSet<u16>,
    /// Which of them must accept a connection.
    pub expect: ReachExpectation,
    /// Instances that serve now.
    pub like: Vec<ContainerName>,
    /// The gateway that connects; `None` connects from the host.
    pub through: Option<GatewayName>,
}

/// Which ports of a new instance must accept a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReachExpectation {
    /// Those which the instances that serve now accept.
    AsBefore,
    /// The same, and one of them where nothing serves: the file publishes or exposes them.
    AtLeastOne,
}

/// A container that loses its ports and its name to a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandedOver {
    /// The container.
    pub container: ContainerName,
    /// How it is stopped: the time until it is killed is time in which nobody answers.
    pub stop: StopPolicy,
    /// The restart policy it gets back.
    pub restart: RestartPolicy,
    /// What the undo waits for; `None` where it was not healthy before either.
    pub gate: Option<GateSettings>,
    /// How the undo makes it anew, should somebody have removed it.
    pub again: Option<NewInstance>,
    /// The addresses by which clients know it: they go to the gateway, and back with an undo.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub addresses: BTreeMap<NetworkName, String>,
}

/// How a step is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undo {
    /// By undoing it.
    Revert,
    /// Nothing is to be done.
    Nothing,
    /// Not at all: only after the commit.
    Impossible,
}

impl Step {
    /// How it is taken back.
    pub fn undo(&self) -> Undo {
        match self {
            Self::Baseline { .. }
            | Self::CreateNetwork { .. }
            | Self::Pin { .. }
            | Self::Create { .. }
            | Self::Start { .. }
            | Self::RunToEnd { .. }
            | Self::Stop { .. }
            | Self::Steer { .. }
            | Self::Hold { .. }
            | Self::BackUp { .. }
            | Self::RestoreData { .. }
            | Self::StartApart { .. }
            | Self::HandOver { .. }
            | Self::Reload { .. }
            | Self::Update { .. }
            | Self::Rename { .. } => Undo::Revert,
            Self::Hook { hook } => match hook.moment {
                HookMoment::BeforeDeploy => Undo::Nothing,
                HookMoment::AfterDeploy => Undo::Impossible,
            },
            Self::Connect { when_undone, .. } => match when_undone {
                WhenUndone::Stays => Undo::Nothing,
                WhenUndone::Leaves => Undo::Revert,
            },
            Self::CreateVolume { .. }
            | Self::Pull { .. }
            | Self::Gate { .. }
            | Self::Needs { .. }
            | Self::Watch { .. }
            | Self::Drain { .. }
            | Self::Upgrade { .. }
            | Self::Revive { .. }
            | Self::FrontDoor { .. }
            | Self::VerifyBackup { .. } => Undo::Nothing,
            Self::Commit { .. } | Self::Remove { .. } | Self::Unpin { .. } => Undo::Impossible,
            Self::RemoveNetwork { .. } | Self::RemoveVolume { .. } => Undo::Impossible,
        }
    }

    /// The service it belongs to, where it belongs to one.
    pub fn service(&self) -> Option<&ServiceName> {
        match self {
            Self::Create { instance } => Some(&instance.service),
            Self::Start { service, .. }
            | Self::Gate { service, .. }
            | Self::Needs { service, .. }
            | Self::RunToEnd { service, .. }
            | Self::Stop { service, .. }
            | Self::Steer { service, .. }
            | Self::Hold { service, .. }
            | Self::Watch { service, .. }
            | Self::Drain { service, .. }
            | Self::StartApart { service, .. }
            | Self::HandOver { service, .. }
            | Self::Revive { service, .. }
            | Self::Connect { service, .. }
            | Self::Reload { service, .. }
            | Self::Upgrade { service, .. }
            | Self::Update { service, .. }
            | Self::Rename { service, .. }
            | Self::Remove { service, .. } => Some(service),
            Self::FrontDoor { service, .. } => service.as_ref(),
            Self::Baseline { .. }
            | Self::Hook { .. }
            | Self::CreateNetwork { .. }
            | Self::CreateVolume { .. }
            | Self::Pull { .. }
            | Self::Pin { .. }
            | Self::BackUp { .. }
            | Self::VerifyBackup { .. }
            | Self::RestoreData { .. }
            | Self::Commit { .. }
            | Self::RemoveNetwork { .. }
            | Self::RemoveVolume { .. }
            | Self::Unpin { .. } => None,
        }
    }

    /// Command lines for a person who has to take the step back by hand.
    pub fn undo_by_hand(&self, project: &ProjectName) -> Vec<String> {
        match self {
            Self::Baseline { gates } => gates.iter().map(|gate| format!("docker logs --tail 50 {}", gate.container)).collect(),
            Self::CreateNetwork { network } => vec![format!("docker network rm {}", network.name)],
            Self::Pin { pin, .. } => vec![format!("docker image rm {pin}")],
            Self::Create { instance } => vec![format!("docker rm -f {}", instance.name)],
            Self::RunToEnd { container, migration: Migration::OneWay, .. } => vec![
                format!("docker logs --tail 50 {container}"),
                format!("kaleem resume --project-name {project}   # goes on from the step that failed, once what it names is mended"),
                "kaleem backup list   # then `kaleem backup restore SET --replace` and `kaleem resolve --old`: the data as it was before"
                    .to_owned(),
            ],
            Self::RunToEnd { container, migration: Migration::Reversible { down }, .. } => {
                vec![format!("docker stop {container}"), format!("# its migration is taken back by: {}", down.join(" "))]
            }
            Self::BackUp { set, .. } => vec![format!("kaleem backup forget {set}   # where it is listed by `kaleem backup list --all`")],
            Self::RestoreData { safe, .. } => vec![format!("kaleem backup restore {safe} --replace --without-safety-set")],
            Self::Start { container, .. } | Self::StartApart { container, .. } | Self::RunToEnd { container, .. } => {
                vec![format!("docker stop {container}")]
            }
            Self::HandOver { from, to, .. } => {
                let back = from.iter().map(|one| format!("docker start {}", one.container));
                std::iter::once(format!("docker stop {to}")).chain(back).collect()
            }
            Self::Connect { container, networks, when_undone: WhenUndone::Leaves, .. } => {
                networks.iter().map(|one| format!("docker network disconnect {} {container}", one.network)).collect()
            }
            Self::Revive { .. } | Self::Connect { when_undone: WhenUndone::Stays, .. } => Vec::new(),
            Self::Reload { container, .. } => vec![format!("docker kill --signal HUP {container}")],
            Self::Stop { container, .. } => vec![format!("docker start {container}"), format!("docker logs --tail 50 {container}")],
            Self::Update { container, from, .. } => vec![format!("docker update --restart {from} {container}")],
            Self::Rename { from, to, .. } => vec![format!("docker rename {to} {from}")],
            Self::Steer { .. } | Self::Hold { .. } => vec![format!("kaleem resume --project-name {project}")],
            Self::Hook { .. } => Vec::new(),
            Self::CreateVolume { .. }
            | Self::Pull { .. }
            | Self::Gate { .. }
            | Self::Needs { .. }
            | Self::Watch { .. }
            | Self::Drain { .. }
            | Self::Upgrade { .. }
            | Self::FrontDoor { .. }
            | Self::VerifyBackup { .. } => Vec::new(),
            Self::Commit { .. } | Self::Remove { .. } | Self::Unpin { .. } | Self::RemoveNetwork { .. } | Self::RemoveVolume { .. } => {
                vec![format!("kaleem status --project-name {project}")]
            }
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Baseline { gates } if gates.is_empty() => out.write_str("note that nothing serves yet"),
            Self::Baseline { gates } => write!(out, "note what serves now ({})", list(gates.iter().map(|gate| &gate.service))),
            Self::Hook { hook } => write!(out, "run {} (hook {}, at most {})", hook.command.join(" "), hook.moment, seconds(hook.timeout)),
            Self::CreateNetwork { network } => write!(out, "create network {}", network.name),
            Self::CreateVolume { volume } => write!(out, "create volume {}", volume.name),
            Self::Pull { image, .. } => write!(out, "pull {image}"),
            Self::Pin { image, pin } => write!(out, "keep {image} as {pin}"),
            Self::Create { instance } => write!(out, "create {} from {}", instance.name, instance.image),
            Self::Start { container, .. } => write!(out, "start {container}"),
            Self::Gate { container, gate, .. } => {
                write!(out, "wait until {container} is healthy ({}, at most {})", gate.question, seconds(gate.deadline))
            }
            Self::Needs { service, needs, deadline, .. } => {
                write!(out, "see that what {service} needs is well ({}, at most {})", list(needs.iter()), seconds(*deadline))
            }
            Self::Steer { gateway, to, .. } if to.is_empty() => write!(out, "have {gateway} send to nobody"),
            Self::Hold { gateway, hold, .. } => write!(out, "hold requests at {gateway} (each at most {})", seconds(*hold)),
            Self::Steer { gateway, to, .. } => write!(out, "switch {gateway} to {}", list(to.iter().map(|route| &route.container))),
            Self::Watch { instances, watch, .. } => {
                write!(out, "watch {} for {}", list(instances.iter().map(|route| &route.container)), seconds(watch.window))
            }
            Self::Drain { container, drain, .. } => write!(out, "drain {container} (within {})", seconds(drain.requests)),
            Self::RunToEnd { container, deadline, .. } => write!(out, "run {container} to its end (at most {})", seconds(*deadline)),
            Self::Stop { container, stop, .. } => write!(out, "stop {container} (within {})", seconds(stop.grace)),
            Self::StartApart { container, .. } => write!(out, "start {container} apart, without its ports"),
            Self::HandOver { from, to, .. } => {
                write!(out, "hand the ports over from {} to {to}", list(from.iter().map(|one| &one.container)))
            }
            Self::Revive { container, .. } => write!(out, "start {container} again"),
            Self::Connect { container, networks, .. } => {
                write!(out, "connect {container} to {}", list(networks.iter().map(|one| &one.network)))
            }
            Self::Reload { container, of, kept, .. } => match kept.as_ref().map(|kept| kept.refresh) {
                None => write!(out, "reload nginx in {container}, so that it looks {of} up again"),
                Some(Refresh::Reload) => write!(out, "check that {container} has the address of {of}, else reload it"),
                Some(Refresh::Restart) => write!(out, "check that {container} has the address of {of}, else restart it"),
                Some(Refresh::Forbidden) => write!(out, "check that {container} has the address of {of}"),
            },
            Self::FrontDoor { doors, .. } => match doors.as_slice() {
                [door] => write!(out, "check the front door {door}"),
                _ => write!(out, "check {} front doors", doors.len()),
            },
            Self::Upgrade { gateway, digest, .. } => write!(out, "upgrade {gateway} to the program {digest} while it serves"),
            Self::Update { container, restart, .. } => write!(out, "set the restart policy of {container} to {restart}"),
            Self::Rename { from, to, .. } => write!(out, "rename {from} to {to}"),
            Self::BackUp { set, .. } => write!(out, "make the backup set {set}"),
            Self::VerifyBackup { set } => write!(out, "verify the backup set {set}"),
            Self::RestoreData { set, .. } => write!(out, "restore the data of the backup set {set}"),
            Self::Commit { release } => write!(out, "{release} serves"),
            Self::Remove { container, .. } => write!(out, "remove {container}"),
            Self::Unpin { pin } => write!(out, "let go of {pin}"),
            Self::RemoveNetwork { network } => write!(out, "remove network {network}"),
            Self::RemoveVolume { volume } => write!(out, "remove volume {volume} with its data"),
        }
    }
}

fn list<T: fmt::Display>(items: impl Iterator<Item = T>) -> String {
    items.map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

fn seconds(duration: Duration) -> String {
    match (duration.as_secs(), duration.subsec_millis()) {
        (seconds, 0) => format!("{seconds} s"),
        (0, millis) => format!("{millis} ms"),
        (_, _) => format!("{:.1} s", duration.as_secs_f64()),
    }
}

//! What is wrong with what kaleem keeps, or with what it made, and the safe way out of each: found here, decided by a person.
//!
//! Nothing is guessed. What cannot be known is said to be unknown; a damaged file is kept; a container that runs is never
//! stopped here. Looking changes nothing.

use std::path::PathBuf;

use crate::definition::NetworkAttachment;
use crate::durable::DurableError;
use crate::history::HistoryError;
use crate::image::ImageRef;
use crate::names::{ContainerName, GatewayName, NetworkName, PlanId, ServiceName};
use crate::plan::Route;
use crate::remedy::Remedy;
use crate::runtime::RuntimeError;
use crate::state::StateError;
use crate::traffic::TrafficError;

pub mod files;
pub mod host;
mod serving;

/// The kind of what was so before kaleem came, and is kept as it is.
pub(crate) const UNHEALTHY_BEFORE: &str = "unhealthy-before";

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// What sort, a word for scripts, such as `journal-damaged`.
    pub kind: &'static str,
    /// The service it is about, where it is about one.
    pub service: Option<ServiceName>,
    /// What was found.
    pub message: String,
    /// The way out.
    pub repair: Repair,
}

impl Damage {
    /// Whether it is only to be known: it was so before kaleem came, and nothing that serves is worse for it.
    pub fn is_warning(&self) -> bool {
        self.kind == UNHEALTHY_BEFORE
    }
}

/// A way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Cuts the file after its whole lines. A copy of it as it was is kept aside.
    CutAfter {
        /// The file.
        path: PathBuf,
        /// How much stays.
        whole_bytes: u64,
    },
    /// Sets the file aside.
    SetAside {
        /// The file.
        path: PathBuf,
    },
    /// Removes a file that means nothing any more.
    RemoveFile {
        /// The file.
        path: PathBuf,
    },
    /// Gives a file or directory the mode it must have.
    SetMode {
        /// Which.
        path: PathBuf,
        /// The mode.
        mode: u32,
    },
    /// Writes a definition anew, from the compose file, which says the same.
    WriteDefinition {
        /// Its identity.
        id: crate::definition::DefinitionId,
    },
    /// Goes on with the open plan; a stuck one is tried once more.
    Resume {
        /// Which.
        plan: PlanId,
    },
    /// Starts a container that is to serve.
    Start {
        /// Which.
        container: ContainerName,
    },
    /// Lets a container run on that is to serve and that somebody paused.
    Unpause {
        /// Which.
        container: ContainerName,
    },
    /// Connects a container that is to serve to its networks.
    Connect {
        /// Which.
        container: ContainerName,
        /// The networks.
        networks: Vec<NetworkAttachment>,
    },
    /// Tells a gateway again where to send.
    Steer {
        /// Which.
        gateway: GatewayName,
        /// Where to.
        to: Vec<Route>,
    },
    /// Removes a container that does not run and belongs to nothing.
    RemoveContainer {
        /// Which.
        container: ContainerName,
    },
    /// Removes a network that belongs to nothing and that nobody uses.
    RemoveNetwork {
        /// Which.
        network: NetworkName,
    },
    /// Removes a tag of ours that belongs to nothing.
    Unpin {
        /// Which.
        pin: ImageRef,
    },
    /// A person does it.
    ByHand {
        /// What.
        advice: String,
    },
}

impl std::fmt::Display for Repair {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::CutAfter { path, .. } => write!(out, "cut {} after its last whole line, and keep a copy aside", path.display()),
            Self::SetAside { path } => write!(out, "set {} aside", path.display()),
            Self::RemoveFile { path } => write!(out, "remove {}", path.display()),
            Self::SetMode { path, mode } => write!(out, "give {} the mode {mode:o}", path.display()),
            Self::WriteDefinition { id } => write!(out, "write the definition {id} anew from the compose file"),
            Self::Resume { plan } => write!(out, "go on with plan {plan}"),
            Self::Start { container } => write!(out, "start {container}"),
            Self::Unpause { container } => write!(out, "unpause {container}"),
            Self::Connect { container, networks } => {
                let names: Vec<String> = networks.iter().map(|attachment| attachment.network.to_string()).collect();
                write!(out, "connect {container} to {}", names.join(", "))
            }
            Self::Steer { gateway, to } => {
                let names: Vec<String> = to.iter().map(|route| route.container.to_string()).collect();
                write!(out, "tell {gateway} to send to {}", names.join(", "))
            }
            Self::RemoveContainer { container } => write!(out, "remove the container {container}"),
            Self::RemoveNetwork { network } => write!(out, "remove the network {network}"),
            Self::Unpin { pin } => write!(out, "remove the tag {pin}"),
            Self::ByHand { advice } => out.write_str(advice),
        }
    }
}

impl Repair {
    /// What a person types.
    pub(crate) fn by_hand(command: &str) -> Self {
        Self::ByHand { advice: command.to_owned() }
    }

    /// Commands that a person may type instead; none where only kaleem can do it.
    pub fn commands(&self) -> Vec<String> {
        match self {
            Self::Start { container } => vec![format!("docker start {container}")],
            Self::Unpause { container } => vec![format!("docker unpause {container}")],
            Self::Connect { container, networks } => {
                let aliases = |one: &NetworkAttachment| one.aliases.iter().map(|alias| format!("--alias {alias} ")).collect::<String>();
                networks.iter().map(|one| format!("docker network connect {}{} {container}", aliases(one), one.network)).collect()
            }
            Self::ByHand { advice } => vec![advice.clone()],
            Self::Steer { .. } => vec!["kaleem deploy".to_owned()],
            _ => vec!["kaleem doctor --repair".to_owned()],
        }
    }

    /// Whether kaleem can do it.
    pub fn is_automatic(&self) -> bool {
        !matches!(self, Self::ByHand { .. })
    }
}

/// Why it could not be looked, or a repair failed. What was damaged is as it was, or the file of it is kept aside.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepairError {
    /// The file system refused.
    #[error("could not repair a file")]
    File {
        /// Why.
        #[source]
        source: DurableError,
    },
    /// The state directory failed.
    #[error("could not look at the state directory")]
    State {
        /// Why.
        #[source]
        source: StateError,
    },
    /// The journals cannot be read.
    #[error("could not read what was released")]
    History {
        /// Why.
        #[source]
        source: HistoryError,
    },
    /// The engine of the host refused.
    #[error("could not {what}")]
    Runtime {
        /// What was to be done.
        what: String,
        /// Why.
        #[source]
        source: RuntimeError,
    },
    /// The gateway refused.
    #[error("could not {what}")]
    Traffic {
        /// What was to be done.
        what: String,
        /// Why.
        #[source]
        source: TrafficError,
    },
    /// This repair is not done here.
    #[error("this is not repaired here: {what}")]
    Elsewhere {
        /// What.
        what: String,
    },
}

impl Remedy for RepairError {
    fn remedy(&self) -> String {
        match self {
            Self::File { source } => source.remedy(),
            Self::State { source } => source.remedy(),
            Self::History { source } => source.remedy(),
            Self::Runtime { source, .. } => source.remedy(),
            Self::Traffic { source, .. } => source.remedy(),
            Self::Elsewhere { what } => what.clone(),
        }
    }
}

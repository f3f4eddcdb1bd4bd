//! Why a step could not be done, or not be taken back.

use std::time::Duration;

use crate::backup::SetsError;
use crate::config::HookMoment;
use crate::durable::DurableError;
use crate::engine::{GateError, WatchError};
use crate::exec::ExecError;
use crate::names::{ContainerName, GatewayName, ServiceName, SetId};
use crate::remedy::Remedy;
use crate::runtime::RuntimeError;
use crate::state::StateError;
use crate::traffic::TrafficError;

/// Why a step was not carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// The engine of the host refused.
    #[error("could not {what}")]
    Runtime {
        /// What the step does.
        what: String,
        /// Why.
        #[source]
        source: RuntimeError,
    },
    /// A definition is not to be had.
    #[error("could not read what `{container}` is to be")]
    Definition {
        /// The container.
        container: ContainerName,
        /// Why.
        #[source]
        source: StateError,
    },
    /// It did not become healthy.
    #[error("`{container}` did not become healthy")]
    Gate {
        /// The container.
        container: ContainerName,
        /// Why.
        #[source]
        source: GateError,
    },
    /// What the service needs is not well.
    #[error("what `{service}` needs was not well within {} s: {reason}", deadline.as_secs())]
    Needs {
        /// The service.
        service: ServiceName,
        /// The limit.
        deadline: Duration,
        /// Which of it, and what it answered last.
        reason: String,
        /// What that probe says is to be done.
        remedy: String,
    },
    /// It ran to its end and failed.
    #[error("`{container}` ended with exit code {code}{log}")]
    RanAndFailed {
        /// The container.
        container: ContainerName,
        /// Its exit code.
        code: i64,
        /// Its last lines.
        log: String,
    },
    /// It did not come to its end.
    #[error("`{container}` did not come to its end within {} s{log}", deadline.as_secs())]
    RanTooLong {
        /// The container.
        container: ContainerName,
        /// The limit.
        deadline: Duration,
        /// Its last lines.
        log: String,
    },
    /// A hook ran and failed.
    #[error("the hook {moment} ended with {status}{log}")]
    HookFailed {
        /// Which.
        moment: HookMoment,
        /// How it ended.
        status: std::process::ExitStatus,
        /// Its last lines.
        log: String,
    },
    /// A hook could not be run to its end.
    #[error("could not run the hook {moment}")]
    HookNotRun {
        /// Which.
        moment: HookMoment,
        /// Why.
        #[source]
        source: ExecError,
    },
    /// The gateway refused, or could not be reached.
    #[error("could not {what}")]
    Traffic {
        /// What the step does.
        what: String,
        /// Why.
        #[source]
        source: TrafficError,
    },
    /// The plan needs a gateway, and this program knows none.
    #[error("the plan steers the gateway `{gateway}`, and this program was put together without gateways")]
    NoGateways {
        /// The gateway.
        gateway: GatewayName,
    },
    /// The directory of a gateway could not be made.
    #[error("could not make the directory of the gateway `{gateway}`")]
    GatewayDirectory {
        /// The gateway.
        gateway: GatewayName,
        /// Why.
        #[source]
        source: DurableError,
    },
    /// A backup set could not be made, read, given up or put back.
    #[error("could not {what}")]
    Backup {
        /// What the step does.
        what: String,
        /// Why.
        #[source]
        source: SetsError,
    },
    /// The plan needs backups, and this program knows none.
    #[error("the plan works with the backup set {set}, and this program was put together without backups")]
    NoBackups {
        /// The set.
        set: SetId,
    },
    /// What was watched after the switch is bad.
    #[error("the new release of `{service}` failed while kaleem watched it")]
    Watch {
        /// The service.
        service: ServiceName,
        /// Why.
        #[source]
        source: WatchError,
    },
    /// A web server would not take its configuration.
    #[error("`{container}` cannot be reloaded: its configuration is not valid now: {output}")]
    NotReloadable {
        /// The container.
        container: ContainerName,
        /// The command in it that tests the configuration.
        test: String,
        /// What it said.
        output: String,
    },
    /// A place where clients ask worked before the plan, and does not now.
    #[error("clients got an answer at {door} before, and get none now: {reason}")]
    FrontDoor {
        /// The place.
        door: String,
        /// The last answer.
        reason: String,
    },
    /// A proxy of another project sends to an address that the service does not have any more.
    #[error("`{container}` keeps the address {kept} of `{of}`, which Docker gave away: `{of}` is at {now}")]
    AddressMoved {
        /// The proxy.
        container: ContainerName,
        /// The service.
        of: ServiceName,
        /// What it keeps.
        kept: String,
        /// What the service has.
        now: String,
    },
    /// The container is gone.
    #[error("`{container}` was removed by somebody else")]
    Gone {
        /// The container.
        container: ContainerName,
    },
    /// A person asked to go back while it was waiting.
    #[error("the wait was cut short")]
    CutShort,
}

impl Remedy for StepError {
    fn remedy(&self) -> String {
        match self {
            Self::Runtime { source, .. } => source.remedy(),
            Self::Definition { source, .. } => source.remedy(),
            Self::Gate { source, .. } => source.remedy(),
            Self::Needs { remedy, .. } => remedy.clone(),
            Self::Traffic { source, .. } => source.remedy(),
            Self::Backup { source, .. } => source.remedy(),
            Self::NoBackups { .. } => "run it where the compose file and kaleem.toml of the project can be read".to_owned(),
            Self::NoGateways { .. } => "use the program that made the plan, such as `kaleem resume`".to_owned(),
            Self::GatewayDirectory { source, .. } => source.remedy(),
            Self::Watch { source, .. } => source.remedy(),
            Self::RanAndFailed { container, .. } | Self::RanTooLong { container, .. } => {
                format!("read `docker logs {container}`, mend it, and deploy again")
            }
            Self::HookFailed { moment, .. } => format!("mend what the hook says, or change `{moment}` in kaleem.toml, then deploy again"),
            Self::HookNotRun { source, .. } => source.remedy(),
            Self::NotReloadable { container, test, .. } => {
                format!("mend its configuration (`docker exec {container} {test}`), or set `reload = false` for it in kaleem.toml")
            }
            Self::FrontDoor { .. } => {
                "look at the proxy in front of the service (`docker logs`) and at `kaleem show`, fix the cause, and deploy again".to_owned()
            }
            Self::AddressMoved { container, .. } => format!(
                "deploy again, the address may be free by then; or let nginx in `{container}` resolve the name at run time (`resolver 127.0.0.11`)"
            ),
            Self::Gone { .. } => "find out who removes containers here, then deploy again".to_owned(),
            Self::CutShort => "nothing is to be done".to_owned(),
        }
    }

    fn is_transient(&self) -> bool {
        match self {
            Self::Runtime { source, .. } => source.is_transient(),
            Self::Gate { source, .. } => source.is_transient(),
            Self::Traffic { source, .. } => source.is_transient(),
            Self::Backup { source, .. } => source.is_transient(),
            _ => false,
        }
    }
}

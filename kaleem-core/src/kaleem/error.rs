//! Why kaleem did not do what it was asked, with what to do next.

use crate::durable::DurableError;
use crate::history::HistoryError;
use crate::journal::JournalError;
use crate::lease::LeaseError;
use crate::names::{NameError, PlanId, ReleaseId, ServiceName};
use crate::observed::ObserveError;
use crate::observed::owner::Foreign;
use crate::plan::Objection;
use crate::remedy::Remedy;
use crate::runtime::RuntimeError;
use crate::state::StateError;

/// Why kaleem did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KaleemError {
    /// `kaleem.toml` or the caller asks for backups, and this program was put together without them.
    #[error("the plan needs backups, and this program was put together without them")]
    BackupsMissing,
    /// No set was made when the release was left.
    #[error("no backup set was made when {release} was left")]
    NoDataOf {
        /// The release.
        release: ReleaseId,
    },
    /// The name of a backup set is not valid.
    #[error("a bug: the name of a backup set is not valid")]
    SetName {
        /// Why.
        #[source]
        source: NameError,
    },
    /// The host could not be observed. Nothing was touched.
    #[error("could not make a plan")]
    Observe {
        /// Why.
        #[source]
        source: ObserveError,
    },
    /// The engine could not be asked. Nothing was touched.
    #[error("could not ask the container engine")]
    Runtime {
        /// Why.
        #[source]
        source: RuntimeError,
    },
    /// The state directory cannot be used. Nothing was touched.
    #[error("could not use what kaleem keeps of the project")]
    State {
        /// Why.
        #[source]
        source: StateError,
    },
    /// The journals cannot be read. Nothing was touched.
    #[error("could not read what was released before")]
    History {
        /// Why.
        #[source]
        source: HistoryError,
    },
    /// Somebody else works on the project. Nothing was touched.
    #[error("could not get the right to change the project")]
    Lease {
        /// Who.
        #[source]
        source: LeaseError,
    },
    /// The project belongs to another. Nothing was touched.
    #[error("{}", foreign.message())]
    Owned {
        /// To whom.
        foreign: Box<Foreign>,
    },
    /// The journal failed. What is on disk is true; the plan can be resumed.
    #[error("the plan cannot go on without its journal")]
    Journal {
        /// Why.
        #[source]
        source: JournalError,
    },
    /// A check forbids the plan. Nothing was touched.
    #[error("the plan is refused: {}", objections.first().map_or("no reason", |objection| objection.message.as_str()))]
    Refused {
        /// All that forbid it.
        objections: Vec<Objection>,
    },
    /// An earlier plan is open. Nothing was touched.
    #[error("the plan {plan} to {release} was interrupted and is still open")]
    Interrupted {
        /// Which.
        plan: PlanId,
        /// Where it leads.
        release: ReleaseId,
    },
    /// No plan is open.
    #[error("no plan is open")]
    NothingOpen,
    /// The open plan is not stuck.
    #[error("the open plan is not stuck")]
    NotStuck,
    /// There is no such release to go back to. Nothing was touched.
    #[error("{}", match wanted { Some(id) => format!("there is no release {id} to go back to"), None => "no release is left to roll back to: every other one was rolled back from, never served, or runs the same".to_owned() })]
    NoSuchRelease {
        /// The one that was named.
        wanted: Option<ReleaseId>,
        /// Those that can be named.
        known: Vec<String>,
    },
    /// A service has a gateway, and the gateway's program is not here. Nothing was touched.
    #[error("`{service}` has a gateway, and the gateway's program is not here")]
    GatewaysMissing {
        /// The service.
        service: ServiceName,
    },
    /// A service has no gateway. Nothing was touched.
    #[error("`{service}` has no gateway")]
    NoGateway {
        /// The service.
        service: ServiceName,
    },
    /// Nothing that kaleem released serves. Nothing was touched.
    #[error("nothing of this project was released by kaleem")]
    NothingReleased,
    /// The gateway's program cannot be read. Nothing was touched.
    #[error("could not read the program of the gateway")]
    GatewayProgram {
        /// Why.
        #[source]
        source: DurableError,
    },
    /// The request could not be left for the other process.
    #[error("could not ask the running kaleem to go back")]
    Request {
        /// Why.
        #[source]
        source: DurableError,
    },
    /// The task ended without an answer. The journal is open, and can be resumed.
    #[error("bug: the plan's task ended without an answer")]
    Crashed {
        /// Why.
        #[source]
        source: tokio::task::JoinError,
    },
}

impl Remedy for KaleemError {
    fn remedy(&self) -> String {
        match self {
            Self::BackupsMissing => "run it where the compose file and kaleem.toml of the project can be read".to_owned(),
            Self::NoDataOf { .. } => {
                "see what there is with `kaleem backup list`, restore a set by name with `kaleem backup restore`, and go back without data"
                    .to_owned()
            }
            Self::SetName { .. } => "report it: https://github.com/kaleem-release/kaleem/issues".to_owned(),
            Self::Observe { source } => source.remedy(),
            Self::Runtime { source } => source.remedy(),
            Self::State { source } => source.remedy(),
            Self::History { source } => source.remedy(),
            Self::Lease { source } => source.remedy(),
            Self::Owned { foreign } => foreign.remedy(),
            Self::Journal { source } => source.remedy(),
            Self::Refused { objections } => objections.first().map_or_else(String::new, |objection| objection.remedy.clone()),
            Self::Interrupted { .. } => "continue with `kaleem resume`, or roll back with `kaleem abort`".to_owned(),
            Self::NothingOpen => "see what serves with `kaleem status`".to_owned(),
            Self::NotStuck => "continue with `kaleem resume`, or roll back with `kaleem abort`".to_owned(),
            Self::NoSuchRelease { known, .. } => match known.as_slice() {
                [] => "deploy first: `kaleem deploy`".to_owned(),
                [one] => format!("name it to go there all the same: `kaleem rollback {one}`"),
                [first, ..] => format!("name one to go there all the same, such as `kaleem rollback {first}`: {}", known.join(", ")),
            },
            Self::GatewaysMissing { service } => format!(
                "put `kaleem-agent` beside `kaleem` or name it in KALEEM_AGENT; to live without a gateway, set `strategy = \"recreate\"` for `{service}` in kaleem.toml"
            ),
            Self::NoGateway { .. } => "see which services have one with `kaleem gateway list`".to_owned(),
            Self::NothingReleased => "what Compose started is Compose's to stop: `docker compose down`".to_owned(),
            Self::GatewayProgram { source } | Self::Request { source } => source.remedy(),
            Self::Crashed { .. } => "run `kaleem resume`, and report it: https://github.com/kaleem-release/kaleem/issues".to_owned(),
        }
    }

    fn is_transient(&self) -> bool {
        match self {
            Self::Observe { source } => source.is_transient(),
            Self::Runtime { source } => source.is_transient(),
            _ => false,
        }
    }
}

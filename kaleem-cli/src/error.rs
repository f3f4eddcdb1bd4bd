//! Why a command did not do what it was asked. What the crates say is passed on; only what the command itself does is new here.

use std::path::PathBuf;

use kaleem_backup::backups::BackupsError;
use kaleem_backup::drill::report::ReportError;
use kaleem_backup::setup::SetUpError;
use kaleem_core::config::ConfigError;
use kaleem_core::durable::DurableError;
use kaleem_core::exec::ExecError;
use kaleem_core::history::HistoryError;
use kaleem_core::kaleem::KaleemError;
use kaleem_core::lease::LeaseError;
use kaleem_core::names::{PlanId, ProjectName, ReleaseId, ServiceName, SetId};
use kaleem_core::observed::ObserveError;
use kaleem_core::observed::owner::ForeignKind;
use kaleem_core::registry::oci::RegistrySetupError;
use kaleem_core::remedy::Remedy;
use kaleem_core::repair::RepairError;
use kaleem_core::runtime::RuntimeError;
use kaleem_core::traffic::TrafficError;
use kaleem_health::SettingsError;

use crate::wiring::Wiring;

#[cfg(test)]
mod tests;

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error("could not start threads")]
    Threads {
        #[source]
        source: std::io::Error,
    },
    #[error("could not read the project")]
    Config {
        #[source]
        source: ConfigError,
    },
    #[error("could not find out which project is meant")]
    NameNeeded {
        #[source]
        source: ConfigError,
    },
    #[error("there is no service `{service}`")]
    ServiceUnknown { service: ServiceName, known: String },
    #[error("could not write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: DurableError,
    },
    #[error("could not read the certificates of SSL_CERT_FILE")]
    Certificates {
        #[source]
        source: DurableError,
    },
    #[error("the variable {name} is `{text}`, which is not a duration")]
    Duration { name: &'static str, text: String },
    #[error("could not prepare to ask registries")]
    RegistrySetup {
        #[source]
        source: RegistrySetupError,
    },
    #[error("could not read what was released before")]
    History {
        #[source]
        source: HistoryError,
    },
    #[error("could not look for damage")]
    Repair {
        #[source]
        source: RepairError,
    },
    #[error("could not use the container engine")]
    Engine {
        #[source]
        source: RuntimeError,
    },
    #[error(transparent)]
    Kaleem { source: KaleemError },
    #[error("the plan stopped in the middle")]
    Run {
        #[source]
        source: KaleemError,
    },
    #[error("`--build {service}`: the compose file does not say how to build `{service}`, or another image was chosen for it")]
    NotBuildable { service: ServiceName, known: String },
    #[error("the plan {plan} is stuck: step {step} could not be rolled back")]
    Stuck { plan: PlanId, step: usize },
    #[error("{} exists already", path.display())]
    Exists { path: PathBuf },
    #[error("there was no release {release} in `{project}`")]
    NoRelease { release: ReleaseId, project: ProjectName, known: String },
    #[error("no container of `{service}` is running")]
    NotRunning { service: ServiceName },
    #[error("no plan is open")]
    NothingOpen,
    #[error("could not build the image of `{service}`")]
    BuildTool {
        service: ServiceName,
        #[source]
        source: ExecError,
    },
    #[error("the build of `{service}` failed with {status}{log}")]
    BuildFailed { service: ServiceName, status: String, log: String },
    #[error("could not tell what to call the image of `{service}`")]
    BuildImage {
        service: ServiceName,
        #[source]
        source: ObserveError,
    },
    #[error("could not ask a gateway")]
    Gateway {
        #[source]
        source: TrafficError,
    },
    #[error("the plan {plan} is still running")]
    AbortNotTaken { plan: PlanId },
    #[error("what the probe `{probe}` of `{service}` asks is not known, so nothing was backed up or restored")]
    StoreSettings {
        service: ServiceName,
        probe: String,
        #[source]
        source: SettingsError,
    },
    #[error("could not put the backups of the project together")]
    BackupSetUp {
        #[source]
        source: SetUpError,
    },
    #[error("the drill was done, and its report could not be kept")]
    DrillReport {
        #[source]
        source: ReportError,
    },
    #[error(transparent)]
    Backups { source: BackupsError },
    #[error("{what} needs a yes, and nobody can be asked here")]
    YesNeeded { what: String },
    #[error("nobody said yes; nothing was touched")]
    NotAgreed,
    #[error("the key that opens the backup set {set} is not here")]
    KeyNeeded { set: SetId },
    #[error("{reason}")]
    BackupRequest { reason: String, remedy: String },
    /// Another failure in a verb of `kaleem backup`, whose exit codes are its own.
    #[error(transparent)]
    InBackup { source: Box<Self> },
}

impl CliError {
    /// What is live, where the error knows it better than the journals: those of another owner are not here.
    pub(crate) fn serving(&self, wiring: &Wiring) -> Option<String> {
        let Self::Kaleem { source } = self else { return None };
        match source {
            KaleemError::Owned { foreign } => matches!(foreign.kind, ForeignKind::State | ForeignKind::Copy).then(|| foreign.serving()),
            // The process that works may be of another state directory.
            KaleemError::Lease { source: LeaseError::Busy { .. } | LeaseError::Hidden { .. } } if !wiring.knows_of_open_plan() => {
                Some("not known while that process works on the project".to_owned())
            }
            _ => None,
        }
    }
}

impl Remedy for CliError {
    fn remedy(&self) -> String {
        match self {
            Self::Threads { .. } => "raise the limit of processes of this user (`ulimit -u`)".to_owned(),
            Self::Config { source } => source.remedy(),
            Self::NameNeeded { source } => {
                format!("{}; or name the project with `-p NAME`: this command needs nothing else of its files", source.remedy())
            }
            Self::ServiceUnknown { known, .. } if known.is_empty() => "see what runs with `kaleem status`".to_owned(),
            Self::ServiceUnknown { known, .. } => format!("choose one of: {known}"),
            Self::Write { source, .. } | Self::Certificates { source } => source.remedy(),
            Self::Duration { .. } => "write it as `500ms`, `30s` or `1m30s`".to_owned(),
            Self::RegistrySetup { source } => source.remedy(),
            Self::History { source } => source.remedy(),
            Self::Repair { source } => source.remedy(),
            Self::Engine { source } => source.remedy(),
            Self::Kaleem { source } => source.remedy(),
            Self::Run { source } => {
                let remedy = source.remedy();
                format!("{}, then run `kaleem resume`", remedy.strip_suffix(", then run the same command").unwrap_or(&remedy))
            }
            Self::Stuck { .. } => "mend what is in its way and run `kaleem resume`, or settle it by hand with `kaleem resolve`".to_owned(),
            Self::Exists { .. } => "write it anew with `--force`, or look at what would be written with `--print`".to_owned(),
            Self::NoRelease { known, .. } if known.is_empty() => "deploy first: `kaleem deploy`".to_owned(),
            Self::NoRelease { known, .. } => format!("choose one of: {known}"),
            Self::NotRunning { service } => format!("see why with `kaleem status` and `kaleem logs {service}`"),
            Self::NothingOpen => "see what serves with `kaleem status`".to_owned(),
            Self::BuildTool { source, .. } => source.remedy(),
            Self::NotBuildable { known, .. } if known.is_empty() => "leave `--build` out: no service is built here".to_owned(),
            Self::NotBuildable { known, .. } => format!("choose one of: {known}"),
            Self::BuildFailed { .. } => "mend what the build names, then run the same command".to_owned(),
            Self::BuildImage { source, .. } => source.remedy(),
            Self::StoreSettings { source, .. } => source.remedy(),
            Self::BackupSetUp { source } => source.remedy(),
            Self::DrillReport { source } => source.remedy(),
            Self::Backups { source } => source.remedy(),
            Self::YesNeeded { .. } => "run it with `--yes`".to_owned(),
            Self::NotAgreed => "run it again, and write what is asked for when it is what you want".to_owned(),
            Self::KeyNeeded { .. } => "name the file with the private key: `--key-file FILE`".to_owned(),
            Self::BackupRequest { remedy, .. } => remedy.clone(),
            Self::InBackup { source } => source.remedy(),
            Self::Gateway { source } => source.remedy(),
            Self::AbortNotTaken { .. } => "look at it with `kaleem status`; it goes back at its next step".to_owned(),
        }
    }
}

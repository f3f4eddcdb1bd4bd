//! Exit codes, which are a contract with scripts. Below 10 no service of the host was touched.

use kaleem_backup::backups::{BackupsError, Grade};
use kaleem_core::config::ConfigError;
use kaleem_core::engine::Ending;
use kaleem_core::history::HistoryError;
use kaleem_core::kaleem::KaleemError;
use kaleem_core::lease::LeaseError;
use kaleem_core::observed::ObserveError;
use kaleem_core::outcome::Outcome;
use kaleem_core::registry::RegistryError;
use kaleem_core::repair::RepairError;
use kaleem_core::runtime::RuntimeError;

use crate::error::CliError;

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0: it is done, or there was nothing to do.
    Done,
    /// 1: a fault of kaleem itself.
    Bug,
    /// 2: the command line does not make sense.
    Usage,
    /// 3: a file is not right: the compose file, `kaleem.toml`, or what kaleem keeps.
    Config,
    /// 4: what was asked for is refused; the same command will be refused again.
    Refused,
    /// 5: somebody else works on the project.
    Busy,
    /// 6: the engine or a registry could not be asked; the same command may succeed later.
    Unreachable,
    /// 10: the new release was bad and was taken back; what served before serves.
    RolledBack,
    /// 11: somebody asked to go back, and what served before serves.
    Aborted,
    /// 12: it ended in the middle; `kaleem resume` goes on.
    Interrupted,
    /// 13: a step could not be rolled back; a person is asked.
    Stuck,
    /// 20: a dependency fails (`kaleem health`); nothing was touched.
    Unhealthy,
    /// 21: a dependency could not be asked (`kaleem health`); nothing was touched.
    Unsure,
    /// 22: a part of the live release does not serve (`kaleem status`, or a deploy that could not repair it).
    NotServing,
    /// How a verb of `kaleem backup` ended; it has codes of its own.
    OfBackup(BackupExit),
    /// The exit code of a command that ran in a container.
    OfCommand(u8),
}

/// Exit codes of `kaleem backup` beside 0, 1 for a bug and 2 for what was typed or configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BackupExit {
    /// 1: it could not be done; nothing is known to be wrong with what is stored.
    Failed,
    /// 3: it was done, and something is not as it should be: a copy is missing, a file changed while it was read.
    Partial,
    /// 4: it could not be found out whether it is right: a key or a scratch store is missing.
    CouldNotVerify,
    /// 5: somebody else works on the backups, or on the project.
    Locked,
    /// 6: a vault does not answer.
    VaultUnreachable,
    /// 7: what is stored is not what was stored, or a drill failed.
    Integrity,
}

impl BackupExit {
    fn code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Partial => 3,
            Self::CouldNotVerify => 4,
            Self::Locked => 5,
            Self::VaultUnreachable => 6,
            Self::Integrity => 7,
        }
    }

    /// What a grade means for a script.
    pub(crate) fn of_grade(grade: Grade) -> Self {
        match grade {
            Grade::Failed => Self::Failed,
            Grade::CouldNotVerify => Self::CouldNotVerify,
            Grade::VaultUnreachable => Self::VaultUnreachable,
            Grade::Integrity => Self::Integrity,
        }
    }

    fn of_error(error: &BackupsError) -> Exit {
        match error {
            BackupsError::Lease { source: LeaseError::Busy { .. } } => Exit::OfBackup(Self::Locked),
            BackupsError::NotProtected | BackupsError::NoSource | BackupsError::NoSuchSource { .. } => Exit::Usage,
            error => Exit::OfBackup(Self::of_grade(error.grade())),
        }
    }

    /// A failure of the host in a verb of `kaleem backup`, where the usual codes mean something else.
    fn of_other(error: &CliError) -> Exit {
        match Exit::of_error(error) {
            Exit::Config | Exit::Usage => Exit::Usage,
            Exit::Busy => Exit::OfBackup(Self::Locked),
            Exit::Bug => Exit::Bug,
            own @ Exit::OfBackup(_) => own,
            _ => Exit::OfBackup(Self::Failed),
        }
    }
}

impl Exit {
    /// The number.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Bug => 1,
            Self::Usage => 2,
            Self::Config => 3,
            Self::Refused => 4,
            Self::Busy => 5,
            Self::Unreachable => 6,
            Self::RolledBack => 10,
            Self::Aborted => 11,
            Self::Interrupted => 12,
            Self::Stuck => 13,
            Self::Unhealthy => 20,
            Self::Unsure => 21,
            Self::NotServing => 22,
            Self::OfBackup(exit) => exit.code(),
            Self::OfCommand(code) => code,
        }
    }

    /// How a run ended.
    pub(crate) fn of_ending(ending: &Ending) -> Self {
        match ending {
            Ending::Over(Outcome::Deployed { .. } | Outcome::Resolved { .. }) => Self::Done,
            Ending::Over(Outcome::RolledBack { .. }) => Self::RolledBack,
            Ending::Over(Outcome::Aborted { .. }) => Self::Aborted,
            Ending::Left => Self::Interrupted,
            Ending::Stuck { .. } => Self::Stuck,
        }
    }

    /// What an error means for a script.
    pub(crate) fn of_error(error: &CliError) -> Self {
        match error {
            CliError::Threads { .. } => Self::Bug,
            CliError::ServiceUnknown { .. } | CliError::NotBuildable { .. } => Self::Usage,
            CliError::Backups { source } => BackupExit::of_error(source),
            CliError::StoreSettings { .. } | CliError::BackupSetUp { .. } | CliError::YesNeeded { .. } | CliError::BackupRequest { .. } => {
                Self::Usage
            }
            CliError::KeyNeeded { .. } => Self::OfBackup(BackupExit::CouldNotVerify),
            CliError::DrillReport { .. } => Self::OfBackup(BackupExit::Failed),
            CliError::InBackup { source } => BackupExit::of_other(source),
            CliError::Config { source } => of_config(source),
            CliError::NameNeeded { .. } | CliError::Write { .. } | CliError::Certificates { .. } => Self::Config,
            CliError::RegistrySetup { .. } | CliError::Duration { .. } => Self::Config,
            CliError::History { source } => of_history(source),
            CliError::Repair { source: RepairError::Runtime { source, .. } } => of_runtime(source),
            CliError::Repair { .. } => Self::Config,
            CliError::Engine { source } => of_runtime(source),
            CliError::Kaleem { source } => of_kaleem(source),
            // The journal is open.
            CliError::Run { .. } => Self::Interrupted,
            CliError::Stuck { .. } => Self::Stuck,
            CliError::Gateway { .. } => Self::Unreachable,
            CliError::Exists { .. }
            | CliError::NotAgreed
            | CliError::NoRelease { .. }
            | CliError::NotRunning { .. }
            | CliError::NothingOpen
            | CliError::BuildTool { .. }
            | CliError::BuildFailed { .. }
            | CliError::BuildImage { .. }
            | CliError::AbortNotTaken { .. } => Self::Refused,
        }
    }
}

fn of_config(_: &ConfigError) -> Exit {
    Exit::Config
}

fn of_history(_: &HistoryError) -> Exit {
    Exit::Config
}

fn of_kaleem(error: &KaleemError) -> Exit {
    match error {
        KaleemError::Observe { source } => of_observe(source),
        KaleemError::Runtime { source } => of_runtime(source),
        KaleemError::State { .. } | KaleemError::Request { .. } | KaleemError::Journal { .. } | KaleemError::GatewayProgram { .. } => {
            Exit::Config
        }
        KaleemError::History { source } => of_history(source),
        KaleemError::Lease { source: LeaseError::Busy { .. } | LeaseError::Hidden { .. } } => Exit::Busy,
        KaleemError::Lease { source: LeaseError::Engine { source } } => of_runtime(source),
        KaleemError::Lease { .. } => Exit::Config,
        KaleemError::Refused { .. }
        | KaleemError::Owned { .. }
        | KaleemError::Interrupted { .. }
        | KaleemError::NothingOpen
        | KaleemError::NotStuck
        | KaleemError::GatewaysMissing { .. }
        | KaleemError::BackupsMissing
        | KaleemError::NoDataOf { .. }
        | KaleemError::NoSuchRelease { .. }
        | KaleemError::NoGateway { .. }
        | KaleemError::NothingReleased => Exit::Refused,
        // The rest is `Crashed`, and what a later core adds without telling us.
        _ => Exit::Bug,
    }
}

fn of_observe(error: &ObserveError) -> Exit {
    match error {
        ObserveError::Engine { source } => of_runtime(source),
        ObserveError::Image { source: RegistryError::NotFound { .. } | RegistryError::NoPlatform { .. }, .. } => Exit::Refused,
        ObserveError::Image { .. } => Exit::Unreachable,
        ObserveError::NotBuilt { .. } => Exit::Refused,
        ObserveError::NoImage { .. } => Exit::Config,
        ObserveError::NoService { .. } => Exit::Usage,
        _ => Exit::Bug,
    }
}

fn of_runtime(error: &RuntimeError) -> Exit {
    match error {
        RuntimeError::Unreachable { .. }
        | RuntimeError::PermissionDenied { .. }
        | RuntimeError::TooOld { .. }
        | RuntimeError::Broken { .. }
        | RuntimeError::BadEndpoint { .. }
        | RuntimeError::BadContext { .. } => Exit::Unreachable,
        // Asked to look or to run a command, the engine said no.
        _ => Exit::Refused,
    }
}

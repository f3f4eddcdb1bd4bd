//! Why a task did not do what it says.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

use kaleem_core::remedy::Remedy;

/// A task that failed. What it started has been ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TaskError {
    /// A program could not be started.
    #[error("could not run `{program}`")]
    Start {
        /// Its name.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A program ran and failed; it has said why.
    #[error("`{command}` failed ({status})")]
    Failed {
        /// The program and its arguments.
        command: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// A file or directory could not be used.
    #[error("could not {operation} {}", path.display())]
    File {
        /// What was to be done.
        operation: &'static str,
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something is not installed, and this task may not install it.
    #[error("missing: {what}")]
    Missing {
        /// Names, separated by commas.
        what: String,
        /// What would install it.
        install: String,
    },
    /// A server that was started does not answer.
    #[error("{what} did not answer within {seconds} s")]
    Silent {
        /// Which.
        what: String,
        /// How long was waited.
        seconds: u64,
        /// Its log.
        log: PathBuf,
    },
    /// House rules are broken; each was printed.
    #[error("{count} house rules are broken")]
    Untidy {
        /// How many places.
        count: usize,
    },
    /// The load generator could not work.
    #[error("could not send load to {address}: {reason}")]
    Load {
        /// Where to.
        address: String,
        /// Why.
        reason: String,
    },
    /// What was measured is not what must be.
    #[error("{what}")]
    Unexpected {
        /// What was expected, and what came.
        what: String,
    },
}

impl TaskError {
    /// Code for the shell: 4 when nothing was touched because something is missing, else 1.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Missing { .. } => 4,
            _ => 1,
        }
    }
}

impl Remedy for TaskError {
    fn remedy(&self) -> String {
        match self {
            Self::Start { program, .. } => format!("check that `{program}` is on PATH; `cargo xtask setup` installs what is needed"),
            Self::Failed { .. } => "mend what it says above, then run the same command".to_owned(),
            Self::File { path, .. } => format!("check the rights of {} and that the disk is not full", path.display()),
            Self::Missing { install, .. } => install.clone(),
            Self::Silent { log, .. } => format!("see why in {}", log.display()),
            Self::Untidy { .. } => "mend the places above; `docs/style.md` says why the rules are there".to_owned(),
            Self::Load { .. } => "check that the shop is up: `docker ps`".to_owned(),
            Self::Unexpected { .. } => "read the output above".to_owned(),
        }
    }
}

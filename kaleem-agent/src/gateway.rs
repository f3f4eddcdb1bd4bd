//! The data plane: a small proxy that owns a service's name and ports, so that instances come and go behind it.
//!
//! `gateway` is the first process of its container. It owns the listening sockets and does nothing but start workers and hand the
//! sockets to them, so that a worker may crash or be replaced by another program without a client being refused. A worker serves:
//! one thread for control, and a few data threads which share nothing that is written on each request.

mod access_log;
mod added_port;
mod arguments;
mod balance;
mod body;
mod channel;
mod chunk;
mod connection;
mod control;
mod crowd;
mod drain;
mod exchange;
mod headers;
mod hold;
mod listen;
mod log;
mod meter;
mod metrics;
mod patient;
mod places;
mod plain;
mod port_container;
mod probe;
mod proxy_protocol;
mod send;
mod shard;
mod state;
mod supervisor;
mod switchboard;
mod target;
mod tcp;
mod trust;
mod tunnel;
mod upstream;
mod websocket;
mod witness;
mod worker;

use std::process::ExitCode;

use kaleem_core::remedy::one_line;

pub use arguments::{GatewayArguments, PortArguments};

/// Runs the first process of a gateway until it is told to end.
pub fn run(arguments: GatewayArguments) -> ExitCode {
    stay_small();
    end(supervisor::run(arguments.into_settings()))
}

/// Runs the process of a port container until it is told to end.
pub fn run_port(arguments: &PortArguments) -> ExitCode {
    stay_small();
    end(port_container::run(arguments))
}

/// Runs a worker with what its supervisor hands over.
pub fn run_worker() -> ExitCode {
    stay_small();
    end(worker::run())
}

/// Pages of 2 MB would make a process of a few megabytes several times as large.
fn stay_small() {
    // A kernel without them needs no telling.
    rustix::thread::disable_transparent_huge_pages(true).ok();
}

fn end(result: Result<(), GatewayError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::say(&one_line(&error));
            ExitCode::FAILURE
        }
    }
}

/// The gateway cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GatewayError {
    /// A socket could not be opened.
    #[error("could not listen on `{address}`")]
    Listen {
        /// Address or path.
        address: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A thread or a runtime could not be started.
    #[error("could not start {what}")]
    Start {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The worker was not started by a supervisor that it understands.
    #[error("the supervisor did not hand over what a worker needs")]
    HandOver {
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl kaleem_core::remedy::Remedy for GatewayError {
    fn remedy(&self) -> String {
        match self {
            Self::Listen { .. } => "stop what listens there, or give the gateway the right to bind and to write its directory",
            Self::Start { .. } => "raise the limits of processes and open files",
            Self::HandOver { .. } => "start `kaleem-agent gateway`, which starts its workers itself",
        }
        .to_owned()
    }
}

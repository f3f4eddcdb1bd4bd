//! What goes over a gateway's control socket: one JSON object a line, an answer for each call, in order.
//!
//! Program and gateway are upgraded at different times, so each line says which protocol it speaks.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{DrainPolicy, DrainReport, GatewayStats, Refusal, Routing, Target};
use crate::health::{Finding, Question};
use crate::names::ContainerName;

/// The version that this code speaks.
pub const PROTOCOL: u32 = 1;
/// Longest line, in bytes.
pub const LONGEST_LINE: usize = 1 << 20;
/// Name of the socket in the gateway's directory.
pub const SOCKET: &str = "control.sock";

/// What the names of programs begin with that are brought to a gateway; the rest is [`program_digest`].
pub const PROGRAM_PREFIX: &str = "kaleem-agent-";

/// The beginning of the SHA-256 of a program, by which gateways tell which one they run.
pub fn program_digest(bytes: &[u8]) -> String {
    program_name(&hex::encode(Sha256::digest(bytes))).to_owned()
}

/// The part of a program's SHA-256 that is [`program_digest`].
pub fn program_name(digest: &str) -> &str {
    /// Hexadecimal digits: enough to tell the programs of one host apart.
    const DIGITS: usize = 12;
    digest.get(..DIGITS).unwrap_or(digest)
}

/// A call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// Which protocol the caller speaks.
    pub protocol: u32,
    /// What it wants.
    pub command: Command,
}

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Carry out this routing.
    Steer(Routing),
    /// Ask a target.
    Probe {
        /// Whom.
        target: Target,
        /// What.
        question: Question,
        /// How long at most.
        timeout: Duration,
    },
    /// Wait until nothing runs at an instance.
    Drain {
        /// The instance.
        instance: ContainerName,
        /// How long what runs may go on.
        policy: DrainPolicy,
    },
    /// Tell what was counted.
    Stats,
    /// Hand over to another program.
    Upgrade {
        /// Name of the binary in the gateway's directory.
        file: String,
    },
    /// Accept the connections of a socket that the caller has bound, for as long as the caller stays connected. The answer is
    /// [`Outcome::SendSocket`]; then the caller sends the socket with one byte, and gets a second answer. It closes its sending side when the
    /// port is to go, and waits for the end of the connection: until then requests finish.
    AddPort {
        /// How the port is called, as in [`super::AddedPort`].
        name: String,
        /// The port inside the container and how it is understood, as `--listen` has it.
        listen: String,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Which protocol the gateway speaks.
    pub protocol: u32,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The routing is in force.
    Steered,
    /// What the target answered.
    Found(Finding),
    /// The instance may be stopped.
    Drained(DrainReport),
    /// What was counted.
    Stats(Box<GatewayStats>),
    /// The program of this version serves.
    Upgraded {
        /// Its version.
        version: String,
    },
    /// The socket may come.
    SendSocket,
    /// Its connections are accepted.
    PortAdded,
    /// Nothing was done.
    Refused(Refusal),
}

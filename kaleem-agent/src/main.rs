//! Entry point: arguments in, exit code out.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use kaleem_agent::gateway::{self, GatewayArguments, PortArguments};

/// Memory that stays level under many short connections.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The daemon of kaleem and its data plane.
#[derive(Debug, Parser)]
#[command(name = "kaleem-agent", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Owns the name and the ports of one service, and sends its requests to the instances it is told.
    Gateway(Box<GatewayArguments>),
    /// Publishes one more port of a gateway that runs: it gives that gateway the socket, and sees nothing of what goes through it.
    GatewayPort(PortArguments),
    /// Started by `gateway` alone: serves what it is handed over on standard input.
    #[command(hide = true)]
    GatewayWorker,
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Gateway(arguments) => gateway::run(*arguments),
        Command::GatewayPort(arguments) => gateway::run_port(&arguments),
        Command::GatewayWorker => gateway::run_worker(),
    }
}

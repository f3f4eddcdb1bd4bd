//! Development tasks, started as `cargo xtask …`.
//!
//! A task says what it does, leaves the machine as it found it (but for what `setup` installs), and ends what it
//! started. Nothing here is part of what users install.

mod say;
mod fail;
mod place;
mod programs;
mod setup;
mod tidy;
mod check;
mod chance;
mod load;
mod demo;
mod soak;
mod deploy;
mod bench;
mod fuzz;
mod gauntlet;
mod test;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::fail::TaskError;
use crate::place::Place;
use crate::setup::{Consent, Need};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Development tasks of kaleem", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Installs and starts what development needs: packages, an engine, a registry, images.
    Setup {
        /// Installs without asking.
        #[arg(long)]
        yes: bool,
    },
    /// Ends what `setup` left running.
    Stop,
    /// Checks formatting, lints, house rules and documentation.
    Check,
    /// Checks the house rules alone.
    Tidy,
    /// Runs every test against real parts.
    Test {
        /// Installs what is missing without asking.
        #[arg(long)]
        yes: bool,
        /// Given to `cargo test`: a filter, `-p CRATE`, `-- --nocapture`.
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Deploys three versions of the shop under load, the third of them bad.
    Demo {
        /// Installs what is missing without asking.
        #[arg(long)]
        yes: bool,
        /// Leaves the shop running.
        #[arg(long)]
        keep: bool,
        /// Shows this program instead of one that is built now.
        #[arg(long, value_name = "FILE")]
        kaleem: Option<PathBuf>,
    },
    /// Kills the real program again and again under load, and looks at what is left.
    Soak {
        /// Installs what is missing without asking.
        #[arg(long)]
        yes: bool,
        /// At least so long.
        #[arg(long, default_value_t = 10)]
        minutes: u64,
        /// At least so many kills.
        #[arg(long, default_value_t = 0)]
        kills: u64,
        /// Does what an earlier run with this seed did.
        #[arg(long)]
        seed: Option<u64>,
        /// Kills this program instead of one that is built now.
        #[arg(long, value_name = "FILE")]
        kaleem: Option<PathBuf>,
    },
    /// Ships good, bad and broken versions under a load that counts every request, with kaleem and with what people do without it.
    Gauntlet {
        /// Installs what is missing without asking.
        #[arg(long)]
        yes: bool,
        /// A project of twelve services that Compose runs: take-over, changes, mistakes, rollback and eject.
        #[arg(long)]
        operator: bool,
        /// kaleem alone, in a few minutes.
        #[arg(long)]
        short: bool,
        /// Where chance begins.
        #[arg(long)]
        seed: Option<u64>,
        /// Puts the result into `docs/zero-downtime.md`.
        #[arg(long)]
        document: bool,
        /// Only scenarios with this in their title, such as `rollback`.
        #[arg(long, value_name = "TEXT", conflicts_with = "document")]
        only: Option<String>,
        /// Ships with this program instead of one that is built now.
        #[arg(long, value_name = "FILE")]
        kaleem: Option<PathBuf>,
    },
    /// Sends mutated requests and mutated calls to a gateway, for minutes.
    Fuzz {
        /// How long; both kinds at once.
        #[arg(long, default_value_t = 10)]
        minutes: u64,
        /// Where chance begins.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Deploys a Compose project with the crates as a library.
    Deploy {
        /// The project's directory.
        #[arg(long, default_value = "examples/shop")]
        directory: PathBuf,
        /// Where state is kept; the tools directory where nothing is said.
        #[arg(long)]
        state_dir: Option<PathBuf>,
        /// Images in place of those of the file.
        #[arg(value_name = "SERVICE=IMAGE")]
        images: Vec<String>,
    },
    /// Measures kaleem against what it replaces.
    Bench {
        #[command(subcommand)]
        what: Benchmark,
    },
}

#[derive(Subcommand)]
enum Benchmark {
    /// `kaleem deploy` against `docker compose up -d --no-deps api`, in turn.
    Deploy {
        /// Installs what is missing without asking.
        #[arg(long)]
        yes: bool,
        /// How many deploys of each.
        #[arg(long, default_value_t = 10)]
        pairs: usize,
        /// The Compose program to compare with, in place of the one that `setup` fetched.
        #[arg(long, value_name = "FILE")]
        compose: Option<PathBuf>,
        /// Sends requests meanwhile, and counts those that fail.
        #[arg(long)]
        load: bool,
        /// Measures this program instead of one that is built now.
        #[arg(long, value_name = "FILE")]
        kaleem: Option<PathBuf>,
    },
    /// The gateway against nginx and haproxy, in turn.
    Gateway {
        /// Installs what is missing without asking.
        #[arg(long)]
        yes: bool,
        /// How often each has its turn.
        #[arg(long, default_value_t = 15)]
        rounds: usize,
        /// How long a turn is.
        #[arg(long, default_value_t = 2)]
        seconds: u64,
        /// Looks at the gateway's memory under that many minutes of load afterwards.
        #[arg(long, default_value_t = 0)]
        minutes: u64,
    },
    /// A thousand probes every ten seconds, and one round of ten services beside the commands that it replaces.
    Health {
        /// Installs what is missing without asking.
        #[arg(long)]
        yes: bool,
        /// How long is watched.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// `kaleem backup create` against `redis-cli --rdb | zstd`, `restic backup` and a loop of pymongo, in turn.
    Backup {
        /// Installs what is missing without asking.
        #[arg(long)]
        yes: bool,
        /// MB of Redis values, and of files.
        #[arg(long, default_value_t = 1000)]
        megabytes: usize,
        /// Documents of about 1 kB.
        #[arg(long, default_value_t = 50_000)]
        documents: usize,
        /// GB of a stream of which kaleem makes a set while its memory is looked at; as much disk is taken.
        #[arg(long, default_value_t = 5)]
        gigabytes: usize,
        /// How often each has its turn.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// Measures this program instead of one that is built now.
        #[arg(long, value_name = "FILE")]
        kaleem: Option<PathBuf>,
    },
    /// `kaleem plan` for ten services, beside the answers of the engine and the registry.
    Plan {
        /// Installs what is missing without asking.
        #[arg(long)]
        yes: bool,
        /// How many plans.
        #[arg(long, default_value_t = 20)]
        runs: usize,
        /// Measures this program instead of one that is built now.
        #[arg(long, value_name = "FILE")]
        kaleem: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments.task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say::error(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(task: Task) -> Result<(), TaskError> {
    let place = Place::find()?;
    match task {
        Task::Setup { yes } => {
            let parts = setup::run(&place, Consent::from_flag(yes), Need::Tests)?;
            say::line(&format!("ready: registry {}, Compose {}", parts.registry, parts.compose_oracle.display()));
            parts.leave_running();
            Ok(())
        }
        Task::Stop => setup::stop(&place),
        Task::Check => check::run(&place),
        Task::Tidy => tidy::run(&place),
        Task::Test { yes, arguments } => test::run(&place, Consent::from_flag(yes), &arguments),
        Task::Demo { yes, keep, kaleem } => demo::run(&place, Consent::from_flag(yes), keep, kaleem),
        Task::Soak { yes, minutes, kills, seed, kaleem } => {
            let limits = soak::Limits { time: std::time::Duration::from_secs(minutes * 60), kills };
            soak::run(&place, Consent::from_flag(yes), limits, seed, kaleem)
        }
        Task::Gauntlet { yes, operator, short, seed, document, only, kaleem } => {
            let set = if operator { gauntlet::Set::Operator } else { gauntlet::Set::Service };
            let form = if short { gauntlet::Form::Short } else { gauntlet::Form::Long };
            gauntlet::run(&place, Consent::from_flag(yes), gauntlet::Choices { set, form, seed, document, only, kaleem })
        }
        Task::Fuzz { minutes, seed } => fuzz::run(&place, minutes, seed),
        Task::Deploy { directory, state_dir, images } => deploy::run(&place, &directory, state_dir, &images),
        Task::Bench { what: Benchmark::Plan { yes, runs, kaleem } } => bench::plan::run(&place, Consent::from_flag(yes), runs, kaleem),
        Task::Bench { what: Benchmark::Health { yes, seconds } } => bench::health::run(&place, Consent::from_flag(yes), seconds),
        Task::Bench { what: Benchmark::Backup { yes, megabytes, documents, gigabytes, rounds, kaleem } } => {
            let size = bench::backup::Size { megabytes, documents, gigabytes, rounds };
            bench::backup::run(&place, Consent::from_flag(yes), &size, kaleem)
        }
        Task::Bench { what: Benchmark::Gateway { yes, rounds, seconds, minutes } } => {
            bench::gateway::run(&place, Consent::from_flag(yes), bench::gateway::Length { rounds, seconds, minutes })
        }
        Task::Bench { what: Benchmark::Deploy { yes, pairs, load, kaleem, compose } } => {
            let load = if load { bench::Traffic::Flows } else { bench::Traffic::None };
            bench::deploy(&place, Consent::from_flag(yes), pairs, load, kaleem, compose)
        }
    }
}

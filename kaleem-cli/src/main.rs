//! The command `kaleem`: arguments, wiring, rendering and exit codes. What it does is done by the crates it is made of.

mod env;
mod arguments;
mod error;
mod exit;
mod words;
mod render;
mod wiring;
mod doctor;
mod commands;

use std::process::ExitCode;

use clap::Parser;

use crate::arguments::Arguments;
use crate::env::Environment;
use crate::render::Printer;
use crate::wiring::Wiring;

fn main() -> ExitCode {
    let environment = Environment::read();
    let (global, verb) = match Arguments::try_parse_from(&environment.arguments) {
        Ok(arguments) => arguments.settle(),
        Err(usage) => return ExitCode::from(Printer::usage(&usage).code()),
    };
    let printer = Printer::new(&global, &environment);
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => return ExitCode::from(printer.failure(&error::CliError::Threads { source }, None).code()),
    };
    let exit = runtime.block_on(async {
        let wiring = Wiring::new(global, environment);
        match Box::pin(commands::run(verb, &wiring, &printer)).await {
            Ok(exit) => exit,
            Err(error) => printer.failure(&error, error.serving(&wiring).or_else(|| wiring.serving()).as_deref()),
        }
    });
    // What a third Ctrl-C leaves behind is not waited for.
    runtime.shutdown_background();
    ExitCode::from(exit.code())
}

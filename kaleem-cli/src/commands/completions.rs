//! `kaleem completions`: for the shell to source.

use clap::CommandFactory;

use crate::arguments::{Arguments, Completions};
use crate::exit::Exit;
use crate::render::Printer;

/// Prints them.
pub(crate) fn run(arguments: &Completions, printer: &Printer) -> Exit {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "kaleem", &mut text);
    printer.raw(&String::from_utf8_lossy(&text));
    Exit::Done
}

//! How every error of the core reads: what happened, why, and what to do next. One file a part.

use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use kaleem_core::durable::{DurableError, FileOperation};
use kaleem_core::remedy::{Remedy, chain};
use rustix::io::Errno;

mod backups;
mod engine;
mod files;
mod project;
mod registry;
mod runtime;
mod traffic;

/// The errors as they are printed, each under the name of its variant.
fn told(errors: &[&(dyn Remedy + 'static)]) -> String {
    let mut text = String::new();
    for error in errors {
        let debug = format!("{error:?}");
        let name = debug.split(|character: char| !character.is_alphanumeric()).next().unwrap_or_default();
        writeln!(text, "{name}{}", if error.is_transient() { " (tried again)" } else { "" }).unwrap();
        let cause: &(dyn Error + 'static) = *error;
        for (index, part) in chain(cause).iter().enumerate() {
            writeln!(text, "  {}: {}", if index == 0 { "error" } else { "cause" }, part.replace('\n', "\n         ")).unwrap();
        }
        writeln!(text, "  help: {}\n", error.remedy().replace('\n', "\n        ")).unwrap();
    }
    text
}

/// What the system says.
fn system(errno: Errno) -> io::Error {
    io::Error::from_raw_os_error(errno.raw_os_error())
}

/// A file that could not be written, because the disk is full.
fn full(path: &str) -> DurableError {
    failed(FileOperation::Write, path, Errno::NOSPC)
}

fn failed(operation: FileOperation, path: &str, errno: Errno) -> DurableError {
    DurableError::Failed { operation, path: PathBuf::from(path), source: system(errno) }
}

/// A value that is made from a text.
fn made<T: FromStr>(text: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    text.parse().unwrap()
}

//! The Compose program that tells what a compose file means: conformance tests compare with its `config`.
//!
//! It is taken out of Debian's package and installed nowhere, beside the machine's own Compose: package lists and
//! sources are private, so the machine's are as they were.

use std::path::PathBuf;

use crate::fail::TaskError;
use crate::place::{Place, create_directory, write};
use crate::programs::Program;
use crate::say;
use crate::setup::apt;

/// The release of Debian whose package it is: the first one with Compose 2.
const SUITE: &str = "trixie";
const PACKAGE: &str = "docker-compose";

/// Where it is, once it was fetched.
pub(crate) fn program(place: &Place) -> PathBuf {
    place.tools.join("compose/usr/libexec/docker/cli-plugins/docker-compose")
}

/// Fetches it.
pub(crate) fn fetch(place: &Place) -> Result<(), TaskError> {
    if place.program("apt-get").is_none() || place.program("dpkg-deb").is_none() {
        return Err(TaskError::Missing {
            what: format!("Compose 2 at {}", program(place).display()),
            install: "this is not Debian: put the program of Compose 2.26 there by hand".to_owned(),
        });
    }
    say::step("fetching the reference for conformance tests: Compose 2 from Debian's package");
    let work = place.tools.join("compose-apt");
    for directory in ["lists/partial", "cache/archives/partial", "download"] {
        create_directory(&work.join(directory))?;
    }
    let sources = work.join("sources.list");
    write(&sources, &format!("deb {} {SUITE} main\n", apt::mirror()?))?;
    let download = work.join("download");
    let apt = |arguments: &[&str]| {
        let mut program = Program::new(place, "apt-get").directory(&download);
        for (key, value) in [
            ("Dir::Etc::sourcelist", sources.clone()),
            ("Dir::Etc::sourceparts", PathBuf::from("/dev/null")),
            ("Dir::State::lists", work.join("lists")),
            ("Dir::Cache", work.join("cache")),
            ("APT::Sandbox::User", PathBuf::from("root")),
        ] {
            program = program.arg("-o").arg(format!("{key}={}", value.display()));
        }
        program.args(arguments).run_silently()
    };
    apt(&["update"])?;
    apt(&["download", PACKAGE])?;
    let entries = std::fs::read_dir(&download).map_err(|source| TaskError::File { operation: "read", path: download.clone(), source })?;
    let archive = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .ok_or_else(|| TaskError::Unexpected { what: format!("{} holds no package after the download", download.display()) })?;
    Program::new(place, "dpkg-deb").arg("-x").arg(archive).arg(place.tools.join("compose")).run()?;
    if program(place).is_file() {
        return Ok(());
    }
    Err(TaskError::Unexpected { what: format!("Debian's package {PACKAGE} does not hold {}", program(place).display()) })
}

//! A service that speaks as S3 for the tests of backups: installed into a directory of its own, since Debian has none.

use std::path::PathBuf;

use crate::fail::TaskError;
use crate::place::Place;
use crate::programs::Program;
use crate::say;

const PACKAGE: &str = "moto[server]";

/// Where it is, once it was fetched.
pub(crate) fn program(place: &Place) -> PathBuf {
    place.tools.join("s3/bin/moto_server")
}

/// Fetches it.
pub(crate) fn fetch(place: &Place) -> Result<(), TaskError> {
    say::step("fetching a service that speaks as S3");
    let directory = place.tools.join("s3");
    Program::new(place, "virtualenv").arg("--quiet").arg(&directory).run_silently()?;
    Program::new(place, directory.join("bin/pip")).args(["install", "--quiet", PACKAGE]).run_silently()?;
    if program(place).is_file() {
        return Ok(());
    }
    Err(TaskError::Unexpected { what: format!("the package {PACKAGE} does not hold {}", program(place).display()) })
}

//! A server that speaks as MongoDB: Debian has none, so one is taken from Python's index into a directory of its own.

use std::path::PathBuf;

use crate::fail::TaskError;
use crate::place::Place;
use crate::programs::Program;
use crate::say;

/// Another version may answer differently, which tests would tell.
const PACKAGE: &str = "secantusdb==0.7.0b3";

/// The program, fetched when it is not there.
pub(crate) fn ensure(place: &Place) -> Result<PathBuf, TaskError> {
    let environment = place.tools.join("venv");
    let program = environment.join("bin/secantusd-py");
    if program.is_file() {
        return Ok(program);
    }
    say::step(&format!("fetching {PACKAGE} into {}", environment.display()));
    Program::new(place, "python3").args(["-m", "venv"]).arg(&environment).run_silently()?;
    Program::new(place, environment.join("bin/pip")).args(["install", "--quiet", PACKAGE]).run_silently()?;
    if program.is_file() {
        return Ok(program);
    }
    Err(TaskError::Unexpected { what: format!("{PACKAGE} does not hold {}", program.display()) })
}

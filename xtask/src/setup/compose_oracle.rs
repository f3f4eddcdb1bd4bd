//! The Compose program that tells what a compose file means: conformance tests compare with its `config`.
//!
//! It is taken out of Debian's package and installed nowhere, beside the machine's own Compose.

use std::path::PathBuf;

use crate::fail::TaskError;
use crate::place::Place;
use crate::say;
use crate::setup::apt;

const PACKAGE: &str = "docker-compose";

/// Where it is, once it was fetched.
pub(crate) fn program(place: &Place) -> PathBuf {
    place.tools.join("compose/usr/libexec/docker/cli-plugins/docker-compose")
}

/// Fetches it.
pub(crate) fn fetch(place: &Place) -> Result<(), TaskError> {
    if !apt::can_unpack(place) {
        return Err(TaskError::Missing {
            what: format!("Compose 2 at {}", program(place).display()),
            install: "this is not Debian: put the program of Compose 2.26 there by hand".to_owned(),
        });
    }
    say::step("fetching the reference for conformance tests: Compose 2 from Debian's package");
    apt::unpack(place, &[PACKAGE], &place.tools.join("compose"))?;
    if program(place).is_file() {
        return Ok(());
    }
    Err(TaskError::Unexpected { what: format!("Debian's package {PACKAGE} does not hold {}", program(place).display()) })
}

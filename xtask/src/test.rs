//! Every test of the workspace, with the real parts that they need.

use std::time::Duration;

use crate::fail::TaskError;
use crate::place::Place;
use crate::programs::Program;
use crate::say;
use crate::setup::newer_engine::{self, NewerEngine};
use crate::setup::{self, Consent, Need, Parts};
use crate::soak;

/// How often the real program is killed. A run by hand (`cargo xtask soak --kills 200`) does more.
const KILLS: u64 = 20;

/// Sets up, runs `cargo test --workspace`, the soak in its short form, and ends what was started.
pub(crate) fn run(place: &Place, consent: Consent, arguments: &[String]) -> Result<(), TaskError> {
    let parts = setup::run(place, consent, Need::Tests)?;
    say::step("cargo test --workspace");
    // Every part is there, so a test that finds one missing has found a fault: it is not to skip.
    let tests =
        parts.export(Program::new(place, place.cargo())).env("CI", "true").args(["test", "--workspace", "--no-fail-fast"]).args(arguments);
    let outcome = tests.run().and_then(|()| {
        if !arguments.is_empty() {
            return Ok(());
        }
        with_newer_engine(place, &parts)?;
        under_load(place, &parts)
    });
    drop(parts);
    outcome?;
    say::line("every test passed; what was started for them has ended");
    Ok(())
}

/// The real program on the real engine under load, killed again and again.
fn under_load(place: &Place, parts: &Parts) -> Result<(), TaskError> {
    soak::with(place, parts, soak::Limits { time: Duration::ZERO, kills: KILLS }, None, None)
}

/// The tests of the engine's adapter once more, with a newer engine.
fn with_newer_engine(place: &Place, parts: &Parts) -> Result<(), TaskError> {
    if !newer_engine::is_there(place) {
        say::warning("the adapter was tested with one engine only: a second one takes root and Debian");
        return Ok(());
    }
    let engine = NewerEngine::start(place)?;
    say::step("cargo test -p kaleem-core --test it docker::, with the second engine");
    let tests = engine.export(parts.export(Program::new(place, place.cargo()))).env("CI", "true");
    tests.args(["test", "-p", "kaleem-core", "--test", "it", "docker::"]).run()
}

//! Every test of the workspace, with the real parts that they need.

use crate::fail::TaskError;
use crate::place::Place;
use crate::programs::Program;
use crate::say;
use crate::setup::{self, Consent, Need};

/// Sets up, runs `cargo test --workspace`, and ends what was started.
pub(crate) fn run(place: &Place, consent: Consent, arguments: &[String]) -> Result<(), TaskError> {
    let parts = setup::run(place, consent, Need::Tests)?;
    say::step("cargo test --workspace");
    // Every part is there, so a test that finds one missing has found a fault: it is not to skip.
    let tests =
        parts.export(Program::new(place, place.cargo())).env("CI", "true").args(["test", "--workspace", "--no-fail-fast"]).args(arguments);
    let outcome = tests.run();
    drop(parts);
    outcome?;
    say::line("every test passed; what was started for them has ended");
    Ok(())
}

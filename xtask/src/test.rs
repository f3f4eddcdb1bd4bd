//! Every test of the workspace, with the real parts that they need.

use std::time::Duration;

use crate::demo::kaleem;
use crate::fail::TaskError;
use crate::gauntlet;
use crate::place::Place;
use crate::programs::Program;
use crate::say;
use crate::setup::newer_engine::{self, NewerEngine};
use crate::setup::{self, Consent, Need, Parts};
use crate::soak;

/// How often the real program is killed. A run by hand (`cargo xtask soak --kills 200`) does more.
const KILLS: u64 = 20;

/// Sets up, runs `cargo test --workspace`, soak and gauntlet in their short forms, and ends what was started.
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

/// The real program on the real engine under load: killed again and again, and through everything in the life of a service. Both at once,
/// each on a project of its own: they wait most of the time, and disturb each other as much as a busy machine does.
fn under_load(place: &Place, parts: &Parts) -> Result<(), TaskError> {
    // Built once, and not by both.
    let kaleem = Some(kaleem(place, None)?);
    let choices = gauntlet::Choices {
        set: gauntlet::Set::Service,
        form: gauntlet::Form::Short,
        seed: None,
        document: false,
        only: None,
        kaleem: kaleem.clone(),
    };
    let (soaked, counted) = std::thread::scope(|scope| {
        let soak = scope.spawn(|| soak::with(place, parts, soak::Limits { time: Duration::ZERO, kills: KILLS }, None, kaleem));
        let counted = gauntlet::run_with(place, parts, choices);
        (soak.join(), counted)
    });
    soaked.unwrap_or_else(|_| Err(TaskError::Unexpected { what: "the soak broke off".to_owned() })).and(counted)
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

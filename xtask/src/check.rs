//! Everything that needs no server: formatting, lints, house rules, documentation.

use crate::fail::TaskError;
use crate::place::Place;
use crate::programs::Program;
use crate::{say, tidy};

/// Runs all of it; stops at the first that fails.
pub(crate) fn run(place: &Place) -> Result<(), TaskError> {
    let cargo = || Program::new(place, place.cargo());
    say::step("cargo fmt --check");
    cargo().args(["fmt", "--all", "--check"]).run()?;
    say::step("house rules");
    tidy::run(place)?;
    say::step("cargo clippy");
    cargo().args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings"]).run()?;
    say::step("cargo doc");
    cargo().env("RUSTDOCFLAGS", "--deny warnings").args(["doc", "--quiet", "--workspace", "--no-deps"]).run()?;
    if place.program("cargo-deny").is_some() {
        say::step("cargo deny");
        cargo().args(["deny", "--offline", "check", "bans", "licenses", "sources"]).run()?;
    }
    say::line("all checks passed");
    Ok(())
}

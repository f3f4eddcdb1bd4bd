//! Hostile bytes against a real gateway, for minutes: what the tests do for seconds from one seed, from a seed that nobody has tried.

use kaleem_core::clock::{Clock, SystemClock};

use crate::fail::TaskError;
use crate::place::Place;
use crate::programs::Program;
use crate::say;

/// Both targets at once, each for `minutes`.
///
/// The gateway is the one of the tests: with debug assertions, and checks for overflow.
pub(crate) fn run(place: &Place, minutes: u64, seed: Option<u64>) -> Result<(), TaskError> {
    let seed = seed.unwrap_or_else(|| SystemClock.now().as_nanosecond().unsigned_abs() as u64 % 1_000_000_000_000);
    say::step(&format!("control protocol and request path for {minutes} min, seed {seed} (`--seed {seed}` repeats it)"));
    Program::new(place, place.cargo())
        .args(["test", "--quiet", "--package", "kaleem-agent", "--test", "it", "--", "--nocapture", "fuzz::no_bytes"])
        .env("KALEEM_FUZZ_SECONDS", (minutes * 60).to_string())
        .env("KALEEM_FUZZ_SEED", seed.to_string())
        .run()?;
    say::line("nothing ended the gateway, and it saw no request that a strict reader does not see");
    Ok(())
}

//! When a probe runs: spread, so that a hundred probes are not one burst, and the same each time it is computed.

use std::time::Duration;

use super::state::ProbeId;

/// Runs are at most this share of the interval early or late.
const JITTER: f64 = 0.1;

/// A share of `whole` which depends on the seed, the probe and the run alone.
pub(super) fn share(seed: u64, id: &ProbeId, run: u64, whole: Duration) -> Duration {
    whole.mul_f64(fraction(seed, id, run))
}

/// The next run after one that ended at `time`.
pub(super) fn next_run(seed: u64, id: &ProbeId, run: u64, interval: Duration, time: Duration) -> Duration {
    time + interval.mul_f64(1.0 - JITTER + 2.0 * JITTER * fraction(seed, id, run))
}

/// From 0 to below 1.
fn fraction(seed: u64, id: &ProbeId, run: u64) -> f64 {
    // FNV-1a over the name, then the finalizer of SplitMix64: even enough to spread, and the same on every machine.
    let name = id.as_str().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let mut mixed = seed ^ name ^ run.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    let high = u32::try_from(mixed >> 32).unwrap_or_default();
    f64::from(high) / (f64::from(u32::MAX) + 1.0)
}

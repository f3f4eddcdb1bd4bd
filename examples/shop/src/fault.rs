//! How this instance is to go wrong: `SHOP_FAULT=slow-start:5,leak:10`.

use std::str::FromStr;
use std::time::Duration;

/// The faults, each at most once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// `never-healthy`: health is 503 for ever; other requests are served.
    pub never_healthy: bool,
    /// `unhealthy-after:SECONDS`: health is 503 from then on.
    pub unhealthy_after: Option<Duration>,
    /// `unhealthy-once-used:SECONDS`: health is 503 that long after the first request that does not ask for health.
    pub unhealthy_once_used: Option<Duration>,
    /// `healthy-then-500[:SECONDS]`: health stays well, and every other request fails from then on (3 s).
    pub errors_after: Option<Duration>,
    /// `slow-start:SECONDS`: listens only then.
    pub slow_start: Option<Duration>,
    /// `crash-after:SECONDS`: ends with code 70, in the middle of whatever it does.
    pub crash_after: Option<Duration>,
    /// `exit-at-once[:CODE]`: ends before it listens (code 1).
    pub exit_at_once: Option<u8>,
    /// `leak:MB_PER_SECOND`.
    pub leak_mib_per_second: Option<usize>,
    /// `ignore-sigterm`: only SIGKILL ends it.
    pub ignore_sigterm: bool,
    /// `slow-requests:MS`: every request but those for health takes that much longer.
    pub slow_requests: Option<Duration>,
    /// `close-after-answer`: closes each connection after its first answer, without having said so.
    pub close_after_answer: bool,
}

impl FromStr for Faults {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut faults = Self::default();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let (name, value) = word.split_once(':').map_or((word, None), |(name, value)| (name, Some(value)));
            let wrong = || format!("`{word}` in SHOP_FAULT is not a fault; see the README for the list");
            let number = |default: Option<u64>| value.map_or(default, |text| text.parse().ok()).ok_or_else(wrong);
            let seconds = |default| number(default).map(Duration::from_secs);
            match name {
                "never-healthy" if value.is_none() => faults.never_healthy = true,
                "ignore-sigterm" if value.is_none() => faults.ignore_sigterm = true,
                "close-after-answer" if value.is_none() => faults.close_after_answer = true,
                "unhealthy-once-used" => faults.unhealthy_once_used = Some(seconds(None)?),
                "unhealthy-after" => faults.unhealthy_after = Some(seconds(None)?),
                "healthy-then-500" => faults.errors_after = Some(seconds(Some(3))?),
                "slow-start" => faults.slow_start = Some(seconds(None)?),
                "crash-after" => faults.crash_after = Some(seconds(None)?),
                "exit-at-once" => faults.exit_at_once = Some(u8::try_from(number(Some(1))?).map_err(|_| wrong())?),
                "leak" => faults.leak_mib_per_second = Some(usize::try_from(number(None)?).map_err(|_| wrong())?),
                "slow-requests" => faults.slow_requests = Some(Duration::from_millis(number(None)?)),
                _ => return Err(wrong()),
            }
        }
        Ok(faults)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_read_and_nothing_else_is() {
        let seconds = |n| Some(Duration::from_secs(n));
        for (text, expected) in [
            ("", Faults::default()),
            ("never-healthy", Faults { never_healthy: true, ..Faults::default() }),
            ("healthy-then-500", Faults { errors_after: seconds(3), ..Faults::default() }),
            ("healthy-then-500:9", Faults { errors_after: seconds(9), ..Faults::default() }),
            ("slow-start:5, leak:10", Faults { slow_start: seconds(5), leak_mib_per_second: Some(10), ..Faults::default() }),
            ("crash-after:2", Faults { crash_after: seconds(2), ..Faults::default() }),
            ("exit-at-once", Faults { exit_at_once: Some(1), ..Faults::default() }),
            ("exit-at-once:0", Faults { exit_at_once: Some(0), ..Faults::default() }),
            ("ignore-sigterm,unhealthy-after:7", Faults { ignore_sigterm: true, unhealthy_after: seconds(7), ..Faults::default() }),
            ("unhealthy-once-used:1", Faults { unhealthy_once_used: seconds(1), ..Faults::default() }),
            ("close-after-answer", Faults { close_after_answer: true, ..Faults::default() }),
            ("slow-requests:250", Faults { slow_requests: Some(Duration::from_millis(250)), ..Faults::default() }),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text:?}");
        }
        for text in ["never", "slow-start", "slow-start:soon", "leak:-1", "exit-at-once:256", "never-healthy:1", "close-after-answer:1"] {
            assert!(text.parse::<Faults>().is_err(), "{text:?}");
        }
    }
}

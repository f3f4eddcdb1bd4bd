//! Sizes and durations, as Docker and Go write them.

use std::time::Duration;

use crate::config::settings::parse_duration;

/// Bytes of `64m`, `1.5GiB`, `1024`; units are powers of 1024. Below zero only as a plain number (`-1`: no limit).
pub(super) fn parse_size(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Ok(plain) = text.parse::<i64>() {
        return Some(plain);
    }
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().ok()?;
    let unit = unit.trim_start().to_ascii_lowercase();
    let power = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" if unit.is_empty() || unit == "b" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let bytes = number * 1024_f64.powi(power);
    #[expect(clippy::cast_possible_truncation, reason = "bounded by the guard")]
    (bytes < 9e18).then_some(bytes as i64)
}

/// A duration of a compose file: as in `kaleem.toml`, and `0`.
pub(super) fn parse_go_duration(text: &str) -> Option<Duration> {
    if text.trim() == "0" { Some(Duration::ZERO) } else { parse_duration(text) }
}

/// A duration as Go prints it: `1m30s`, `2m0s`, `500ms`.
pub(super) fn go_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let fraction = |unit: u128, name: &str| {
        let whole = nanos / unit;
        let rest = format!("{:0width$}", nanos % unit, width = unit.ilog10() as usize);
        let rest = rest.trim_end_matches('0');
        if rest.is_empty() { format!("{whole}{name}") } else { format!("{whole}.{rest}{name}") }
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => fraction(1_000, "µs"),
        1_000_000..1_000_000_000 => fraction(1_000_000, "ms"),
        _ => {
            let seconds = duration.as_secs();
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            let last = go_seconds(seconds % 60, duration.subsec_nanos());
            match (hours, minutes) {
                (0, 0) => last,
                (0, _) => format!("{minutes}m{last}"),
                _ => format!("{hours}h{minutes}m{last}"),
            }
        }
    }
}

fn go_seconds(whole: u64, nanos: u32) -> String {
    let rest = format!("{nanos:09}");
    let rest = rest.trim_end_matches('0');
    if rest.is_empty() { format!("{whole}s") } else { format!("{whole}.{rest}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in [
            ("64m", Some(67_108_864)),
            ("1.5g", Some(1_610_612_736)),
            ("10 MB", Some(10_485_760)),
            ("1GiB", Some(1 << 30)),
            ("512", Some(512)),
            ("2b", Some(2)),
            ("-1", Some(-1)),
            ("12x", None),
            ("", None),
            ("i", None),
            ("1.2.3m", None),
        ] {
            assert_eq!(parse_size(text), bytes, "{text:?}");
        }
    }

    #[test]
    fn durations_print_as_go_prints_them() {
        for (text, printed) in [
            ("90s", "1m30s"),
            ("120s", "2m0s"),
            ("1h", "1h0m0s"),
            ("500ms", "500ms"),
            ("1.5s", "1.5s"),
            ("1500us", "1.5ms"),
            ("0", "0s"),
            ("1d", "24h0m0s"),
            ("7ns", "7ns"),
            ("1050ns", "1.05µs"),
        ] {
            assert_eq!(parse_go_duration(text).map(go_duration).as_deref(), Some(printed), "{text}");
        }
    }
}

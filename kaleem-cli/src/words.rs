//! How facts read: durations, sizes, images, releases. Pure; nothing here prints.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use kaleem_core::history::{Entry, History};
use kaleem_core::journal::Next;
use kaleem_core::outcome::Outcome;
use kaleem_core::release::Release;

/// A duration for people: `0.4 s`, `12 s`, `3 min 5 s`, `2 h 5 min`, `3 d 4 h`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3600 => parts((seconds / 60, "min"), (seconds % 60, "s")),
        3600..86_400 => parts((seconds / 3600, "h"), (seconds % 3600 / 60, "min")),
        _ => parts((seconds / 86_400, "d"), (seconds % 86_400 / 3600, "h")),
    }
}

/// How long an answer took: `4 ms`, `830 ms`, from a second on as other durations.
pub(crate) fn latency(duration: Duration) -> String {
    match duration.as_micros() {
        0..1000 => "< 1 ms".to_owned(),
        1000..1_000_000 => format!("{} ms", duration.as_millis()),
        _ => self::duration(duration),
    }
}

fn parts((large, unit): (u64, &str), (small, part): (u64, &str)) -> String {
    if small == 0 { format!("{large} {unit}") } else { format!("{large} {unit} {small} {part}") }
}

/// A moment for people, in UTC: servers and their logs are read from everywhere.
pub(crate) fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// Time from `then` to `now`; nothing where clocks disagree.
pub(crate) fn since(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

/// A size for people.
pub(crate) fn size(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let amount = bytes as f64;
    match bytes {
        0..1_000_000 => format!("{:.0} kB", amount / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", amount / 1e6),
        _ => format!("{:.1} GB", amount / 1e9),
    }
}

/// A word with its number.
pub(crate) fn count<N: std::fmt::Display + Copy + PartialEq + From<u8>>(number: N, one: &str, many: &str) -> String {
    let word = if number == N::from(1) { one } else { many };
    format!("{number} {word}")
}

/// A release and its images: `r7 (api shop:v2 1f3a5c7d9e0b, worker …)`. Of a large project, services of one image are counted.
pub(crate) fn release(release: &Release) -> String {
    let services = release.target.services.iter();
    let named = services.map(|(name, wanted)| (name.to_string(), format!("{} {}", wanted.image.image, wanted.image.digest.short())));
    format!("{} ({})", release.id, images(named))
}

/// Services beyond which those of one image are counted rather than named.
const NAMED_SERVICES: usize = 8;

fn images(services: impl ExactSizeIterator<Item = (String, String)>) -> String {
    if services.len() <= NAMED_SERVICES {
        return services.map(|(name, image)| format!("{name} {image}")).collect::<Vec<_>>().join(", ");
    }
    let mut by_image: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, image) in services {
        by_image.entry(image).or_default().push(name);
    }
    let text = |(image, names): (String, Vec<String>)| match names.as_slice() {
        [name] => format!("{name} {image}"),
        names => format!("{} services {image}", names.len()),
    };
    by_image.into_iter().map(text).collect::<Vec<_>>().join(", ")
}

/// What serves, as the journals tell it: the text behind `serving:`.
pub(crate) fn serving(history: &History) -> String {
    if let Some(plan) = history.lost() {
        return format!("not known: the journal of plan {plan} was set aside; a deploy settles it");
    }
    if let Some(plan) = history.behind() {
        return format!("not known: plan {plan} was made with a later state of this state directory; a deploy settles it");
    }
    let release = history.serving().and_then(|id| history.release(id)).map_or_else(|| "nothing".to_owned(), |id| release(&id));
    match history.open() {
        None => release,
        Some(entry) if entry.progress.is_committed() => format!("{release}; plan {} is not finished", entry.plan.id),
        Some(entry) if !entry.progress.has_touched() => release,
        Some(entry) => {
            let before = entry.plan.previous.map_or_else(|| "nothing".to_owned(), |id| id.to_string());
            format!("undecided: plan {} from {before} to {} is open", entry.plan.id, entry.plan.release.id)
        }
    }
}

/// How an entry ended, in one word.
pub(crate) fn outcome(entry: &Entry) -> &'static str {
    match &entry.outcome {
        Some(Outcome::Deployed { .. }) => "deployed",
        Some(Outcome::RolledBack { .. }) => "rolled back",
        Some(Outcome::Aborted { .. }) => "aborted",
        Some(Outcome::Resolved { .. }) => "resolved",
        None if matches!(entry.progress.next(), Next::Stuck { .. }) => "stuck",
        None => "open",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_project_is_told_by_its_images() {
        let image = |number: usize| if number == 0 { "redis:7 3c011dac67c6" } else { "shop:v1 bd1519185909" }.to_owned();
        let services = |count: usize| (0..count).map(|number| (format!("s{number}"), image(number))).collect::<Vec<_>>().into_iter();
        assert_eq!(images(services(2)), "s0 redis:7 3c011dac67c6, s1 shop:v1 bd1519185909");
        assert_eq!(images(services(31)), "s0 redis:7 3c011dac67c6, 30 services shop:v1 bd1519185909");
    }

    #[test]
    fn durations_and_sizes_read_as_people_write_them() {
        for (milliseconds, text) in [
            (0, "0.0 s"),
            (420, "0.4 s"),
            (12_900, "12 s"),
            (120_000, "2 min"),
            (185_000, "3 min 5 s"),
            (7_500_000, "2 h 5 min"),
            (273_600_000, "3 d 4 h"),
        ] {
            assert_eq!(duration(Duration::from_millis(milliseconds)), text);
        }
        for (bytes, text) in [(488_000, "488 kB"), (12_340_000, "12.3 MB"), (2_000_000_000, "2.0 GB")] {
            assert_eq!(size(bytes), text);
        }
    }
}

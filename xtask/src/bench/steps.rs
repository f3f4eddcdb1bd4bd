//! Where the time of a deploy goes: its journal has a time for every step, and the process a beginning and an end.

use std::path::Path;
use std::time::Duration;

use kaleem_core::clock::{Clock, SystemClock};
use kaleem_core::journal::file::Record;
use kaleem_core::journal::{self, Event};
use kaleem_core::remedy::chain;
use regex::Regex;

use crate::fail::TaskError;
use crate::say;

/// Until the journal's first line: reading files, asking the engine and the registries, planning.
const BEFORE: &str = "before the first step: read, ask, plan";
/// From the journal's last line to the end of the process.
const AFTER: &str = "after the last step: print, end";
/// What the engine does between two steps.
const BETWEEN: &str = "between the steps: journal";

/// The steps of several runs of the same deploy.
#[derive(Debug, Default)]
pub(super) struct Steps {
    /// What, and how long in each run, in the order in which it happened first.
    rows: Vec<(String, Vec<Duration>)>,
}

/// Runs `deploy` and takes note of its steps, from the newest journal in `plans`.
pub(super) fn timed<T>(steps: &mut Steps, plans: &Path, deploy: impl FnOnce() -> Result<T, TaskError>) -> Result<T, TaskError> {
    let begun = SystemClock.now();
    let done = deploy()?;
    let ended = SystemClock.now();
    let failed = |source| TaskError::File { operation: "list", path: plans.to_path_buf(), source };
    let listed = std::fs::read_dir(plans).map_err(failed)?.flatten().map(|entry| entry.path());
    let journals = listed.filter(|path| path.extension().is_some_and(|end| end == "jsonl"));
    let newest = journals.max_by_key(|path| path.metadata().and_then(|of| of.modified()).ok());
    let newest = newest.ok_or_else(|| TaskError::Unexpected { what: format!("there is no journal in {}", plans.display()) })?;
    let (records, _) = journal::file::read(&newest).map_err(|error| TaskError::Unexpected { what: chain(&error).join(": ") })?;
    steps.note(&records, begun, ended);
    Ok(done)
}

impl Steps {
    fn note(&mut self, records: &[Record], begun: jiff::Timestamp, ended: jiff::Timestamp) {
        let between = |from: jiff::Timestamp, to: jiff::Timestamp| Duration::try_from(to.duration_since(from)).unwrap_or_default();
        let (Some(first), Some(last)) = (records.first(), records.last()) else { return };
        let plan = records.iter().find_map(|record| match &record.event {
            Event::Planned { plan, .. } => Some(plan),
            _ => None,
        });
        self.add(BEFORE, between(begun, first.at));
        let mut in_steps = Duration::ZERO;
        for (record, next) in records.iter().zip(records.iter().skip(1)) {
            if let (Event::Started { step }, Some(plan)) = (&record.event, plan) {
                let took = between(record.at, next.at);
                in_steps += took;
                self.add(&general(&plan.step_text(*step)), took);
            }
        }
        self.add(BETWEEN, between(first.at, last.at).saturating_sub(in_steps));
        self.add(AFTER, between(last.at, ended));
    }

    fn add(&mut self, what: &str, took: Duration) {
        match self.rows.iter_mut().find(|(known, _)| known == what) {
            Some((_, times)) => times.push(took),
            None => self.rows.push((what.to_owned(), vec![took])),
        }
    }

    /// Shows the median of each, and the share of the whole.
    pub(super) fn show(&self) {
        let medians: Vec<(&str, f64)> = self
            .rows
            .iter()
            .map(|(what, times)| (what.as_str(), super::median(&times.iter().map(Duration::as_secs_f64).collect::<Vec<_>>()) * 1000.0))
            .collect();
        let whole: f64 = medians.iter().map(|(_, milliseconds)| milliseconds).sum();
        let mut table = vec![["step of kaleem deploy", "median ms", "share"].map(str::to_owned).to_vec()];
        for (what, milliseconds) in &medians {
            let share = if whole > 0.0 { milliseconds / whole * 100.0 } else { 0.0 };
            table.push(vec![(*what).to_owned(), format!("{milliseconds:.1}"), format!("{share:.0} %")]);
        }
        table.push(vec!["together".to_owned(), format!("{whole:.1}"), String::new()]);
        say::line("");
        say::table(&table);
    }
}

/// The text of a step without what differs from run to run: releases, versions and digests.
fn general(text: &str) -> String {
    let Ok(special) = Regex::new(r"\b(r|p|v)\d+\b|\b[0-9a-f]{12}\b") else { return text.to_owned() };
    special
        .replace_all(text, |found: &regex::Captures<'_>| found.get(1).map_or_else(|| "…".to_owned(), |kind| format!("{}N", kind.as_str())))
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_different_releases_are_the_same_step() {
        for (text, expected) in [
            ("create shop-api-r12-1", "create shop-api-rN-1"),
            ("pull h:5000/shop:v2 (1f3a5c7d9e0b)", "pull h:5000/shop:vN (…)"),
            ("reload nginx in web", "reload nginx in web"),
        ] {
            assert_eq!(general(text), expected);
        }
    }
}

//! The result: a table on the terminal, and the same one in the documents.

use std::time::Duration;

use crate::fail::TaskError;
use crate::gauntlet::contender::Contender;
use crate::gauntlet::document::write_table;
use crate::gauntlet::flows::Door;
use crate::gauntlet::scenario::{Act, Row};
use crate::load::percentile;
use crate::place::Place;
use crate::say;

fn milliseconds(time: Duration) -> String {
    let milliseconds = time.as_secs_f64() * 1000.0;
    if milliseconds < 100.0 { format!("{milliseconds:.1}") } else { format!("{milliseconds:.0}") }
}

fn cells(row: &Row) -> Vec<String> {
    let tally = &row.tally;
    let outage = tally.longest_outage(Door::Direct).max(tally.longest_outage(Door::Edge));
    vec![
        row.act.title(),
        row.contender.title().to_owned(),
        tally.sent().to_string(),
        tally.failed().to_string(),
        row.doubled.to_string(),
        row.lost.to_string(),
        milliseconds(outage),
        milliseconds(tally.percentile_elsewhere(99.0)),
        tally.percentile_at_swaps(99.0).map_or_else(|| "-".to_owned(), milliseconds),
        milliseconds(tally.worst()),
    ]
}

const HEADING: [&str; 10] =
    ["scenario", "who", "sent", "failed", "doubled", "lost", "outage ms", "p99 ms", "p99 at the switch", "worst ms"];

/// Shows all rows, those of one scenario together.
pub(super) fn show(rows: &[Row]) {
    say::line("");
    say::table(&table(rows));
}

fn table(rows: &[Row]) -> Vec<Vec<String>> {
    std::iter::once(HEADING.map(str::to_owned).to_vec()).chain(sorted(rows).into_iter().map(cells)).collect()
}

fn sorted(rows: &[Row]) -> Vec<&Row> {
    let mut titles: Vec<String> = Vec::new();
    for row in rows {
        // Peers run fewer deploys of the same kind.
        let kind = kind(row.act);
        if !titles.contains(&kind) {
            titles.push(kind);
        }
    }
    let mut all: Vec<&Row> = rows.iter().collect();
    all.sort_by_key(|row| titles.iter().position(|title| *title == kind(row.act)));
    all
}

fn kind(act: Act) -> String {
    act.title().trim_start_matches(|letter: char| letter.is_ascii_digit()).to_owned()
}

/// What all rows of one contender add up to.
pub(super) fn sums(rows: &[Row], contender: Contender) -> String {
    let own = || rows.iter().filter(|row| row.contender == contender);
    let sum = |count: fn(&Row) -> u64| own().map(count).sum::<u64>();
    let bytes = sum(|row| row.tally.sent_bytes + row.tally.received_bytes) / 1_000_000;
    format!(
        "{}: {} requests, {bytes} MB, {} failed, {} retried, {} streams begun anew, {} orders confirmed, {} lost, {} doubled",
        contender.title(),
        sum(|row| row.tally.sent()),
        sum(|row| row.tally.failed()),
        sum(|row| row.tally.retried),
        sum(|row| row.tally.goodbyes),
        sum(|row| row.tally.confirmed.len() as u64),
        sum(|row| row.lost),
        sum(|row| row.doubled),
    )
}

/// How many times as long an answer takes around a switch: the 99th percentile of all good deploys against that of the time in which
/// nothing happened.
pub(super) fn at_the_switch(rows: &[Row]) -> Option<(Duration, Duration)> {
    let own = || rows.iter().filter(|row| row.contender == Contender::Kaleem);
    let steady = own().find(|row| matches!(row.act, Act::Steady(_)))?.tally.percentile(99.0);
    let switches = own().find(|row| matches!(row.act, Act::Deploys(_)))?.tally.percentile_at_swaps(99.0)?;
    Some((steady, switches))
}

/// How long the published port turned requests away when the project was taken over from Compose: the median.
pub(super) fn taken_over(rows: &[Row]) -> Option<Duration> {
    median(rows.iter().filter(|row| row.act == Act::TakeOver).map(|row| row.tally.refused(Door::Direct)))
}

/// The time in the middle.
pub(super) fn median(times: impl Iterator<Item = Duration>) -> Option<Duration> {
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    (!times.is_empty()).then(|| percentile(&times, 50.0))
}

/// Puts the table into the document, in place of that of the run before.
pub(super) fn write_document(place: &Place, rows: &[Row], preface: &str) -> Result<(), TaskError> {
    let rule = format!("|---|---|{}", "---:|".repeat(HEADING.len() - 2));
    write_table(place, "gauntlet", preface, &rule, &table(rows))
}

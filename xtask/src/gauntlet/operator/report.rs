//! The result: a table on the terminal, and the same one in the documents.

use std::time::Duration;

use crate::fail::TaskError;
use crate::gauntlet::document::write_table;
use crate::gauntlet::operator::scene::{Row, Scene};
use crate::gauntlet::operator::traffic::Door;
use crate::gauntlet::report::median;
use crate::place::Place;
use crate::say;

fn heading() -> Vec<String> {
    let doors = Door::ALL.map(|door| format!("failed: {}", door.title()));
    ["scene", "sent", "failed"]
        .map(str::to_owned)
        .into_iter()
        .chain(doors)
        .chain(["refused ms", "seconds", "exit codes", "as it must be"].map(str::to_owned))
        .collect()
}

fn cells(row: &Row) -> Vec<String> {
    let failed = |door: &Door| row.tally.doors.get(door).map_or(0, |count| count.failed).to_string();
    let mut cells = vec![row.scene.title().to_owned(), row.tally.sent().to_string(), row.tally.failed().to_string()];
    cells.extend(Door::ALL.iter().map(failed));
    cells.extend([row.tally.refused().as_millis().to_string(), format!("{:.1}", row.took.as_secs_f64()), row.codes()]);
    cells.push(if row.all_faults().is_empty() { "yes" } else { "no" }.to_owned());
    cells
}

fn table(rows: &[Row]) -> Vec<Vec<String>> {
    std::iter::once(heading()).chain(rows.iter().map(cells)).collect()
}

/// Shows all rows, and what is wrong with them.
pub(super) fn show(rows: &[Row]) {
    say::line("");
    say::table(&table(rows));
    say::line("");
    for row in rows {
        for fault in row.all_faults() {
            say::line(&format!("{}: {fault}", row.scene.title()));
        }
    }
}

/// How long take-overs turned requests away: the median of all doors, and the worst of them.
pub(super) fn taken_over(rows: &[Row]) -> Option<(Duration, Duration)> {
    let doors = || rows.iter().filter(|row| row.scene == Scene::TakeOver).flat_map(|row| row.tally.refused_at_doors());
    median(doors()).zip(doors().max())
}

/// Puts the table into the document, in place of that of the run before.
pub(super) fn write_document(place: &Place, rows: &[Row], preface: &str) -> Result<(), TaskError> {
    let rule = format!("|---|{}---|---|", "---:|".repeat(heading().len() - 3));
    write_table(place, "operator", preface, &rule, &table(rows))
}

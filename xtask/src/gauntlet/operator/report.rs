//! The result: a table on the terminal, and the same one in the documents.

use std::fmt::Write as _;
use std::time::Duration;

use crate::fail::TaskError;
use crate::gauntlet::operator::scene::{Row, Scene};
use crate::gauntlet::operator::traffic::Door;
use crate::load::percentile;
use crate::place::{Place, write};
use crate::say;

const BEGIN: &str = "<!-- operator: begin -->";
const END: &str = "<!-- operator: end -->";
const DOCUMENT: &str = "docs/zero-downtime.md";

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

/// Shows all rows, and what is wrong with them.
pub(super) fn show(rows: &[Row]) {
    say::line("");
    say::table(&std::iter::once(heading()).chain(rows.iter().map(cells)).collect::<Vec<_>>());
    say::line("");
    for row in rows {
        for fault in row.all_faults() {
            say::line(&format!("{}: {fault}", row.scene.title()));
        }
    }
}

/// How long take-overs turned requests away: the median of the worst doors.
pub(super) fn taken_over(rows: &[Row]) -> Option<Duration> {
    let mut times: Vec<Duration> = rows.iter().filter(|row| row.scene == Scene::TakeOver).map(|row| row.tally.refused()).collect();
    times.sort_unstable();
    (!times.is_empty()).then(|| percentile(&times, 50.0))
}

/// Puts the table into the document, in place of that of the run before.
pub(super) fn write_document(place: &Place, rows: &[Row], preface: &str) -> Result<(), TaskError> {
    let path = place.root.join(DOCUMENT);
    let text = std::fs::read_to_string(&path).map_err(|source| TaskError::File { operation: "read", path: path.clone(), source })?;
    let parts = text.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let Some((before, after)) = parts else {
        return Err(TaskError::Unexpected { what: format!("{DOCUMENT} has no lines `{BEGIN}` and `{END}`") });
    };
    let mut table = format!("{before}{BEGIN}\n{preface}\n\n");
    for (line, cells) in std::iter::once(heading()).chain(rows.iter().map(cells)).enumerate() {
        // Writing to a string cannot fail.
        writeln!(table, "| {} |", cells.join(" | ")).ok();
        if line == 0 {
            writeln!(table, "|---|{}---|---|", "---:|".repeat(cells.len() - 3)).ok();
        }
    }
    write!(table, "\n{END}{after}").ok();
    write(&path, &table)?;
    say::line(&format!("written: {DOCUMENT}"));
    Ok(())
}

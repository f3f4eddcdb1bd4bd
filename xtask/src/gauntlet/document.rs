//! The place of a document that a run writes its table to.

use std::fmt::Write as _;

use crate::fail::TaskError;
use crate::place::{Place, write};
use crate::say;

const DOCUMENT: &str = "docs/zero-downtime.md";

/// Replaces the text between the comments `NAME: begin` and `NAME: end` by the preface and the table, whose first line is its heading
/// and whose `rule` aligns its columns.
pub(super) fn write_table(place: &Place, name: &str, preface: &str, rule: &str, lines: &[Vec<String>]) -> Result<(), TaskError> {
    let path = place.root.join(DOCUMENT);
    let text = std::fs::read_to_string(&path).map_err(|source| TaskError::File { operation: "read", path: path.clone(), source })?;
    let (begin, end) = (format!("<!-- {name}: begin -->"), format!("<!-- {name}: end -->"));
    let parts = text.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
    let Some((before, after)) = parts else {
        return Err(TaskError::Unexpected { what: format!("{DOCUMENT} has no lines `{begin}` and `{end}`") });
    };
    let mut table = format!("{before}{begin}\n{preface}\n\n");
    for (line, cells) in lines.iter().enumerate() {
        // Writing to a string cannot fail.
        writeln!(table, "| {} |", cells.join(" | ")).ok();
        if line == 0 {
            writeln!(table, "{rule}").ok();
        }
    }
    write!(table, "\n{end}{after}").ok();
    write(&path, &table)?;
    say::line(&format!("written: {DOCUMENT}"));
    Ok(())
}

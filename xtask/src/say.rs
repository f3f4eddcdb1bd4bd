//! The one place that prints.

use kaleem_core::remedy::{Remedy, chain};

use crate::fail::TaskError;

/// Prints a line of a report.
#[expect(clippy::print_stdout, reason = "this is the door")]
pub(crate) fn line(text: &str) {
    println!("{text}");
}

/// Prints which part of a task begins.
pub(crate) fn step(text: &str) {
    line(&format!("==> {text}"));
}

/// Prints what does not stop the task.
#[expect(clippy::print_stderr, reason = "this is the door")]
pub(crate) fn warning(text: &str) {
    eprintln!("warning: {text}");
}

/// Prints why a task failed, and what to do.
#[expect(clippy::print_stderr, reason = "this is the door")]
pub(crate) fn error(error: &TaskError) {
    let texts = chain(error);
    for (index, text) in texts.iter().enumerate() {
        eprintln!("{}: {text}", if index == 0 { "error" } else { "cause" });
    }
    eprintln!("help: {}", error.remedy());
}

/// Rows in columns that line up; the first row is the heading.
pub(crate) fn table(rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        line(cells.join("  ").trim_end());
    }
}

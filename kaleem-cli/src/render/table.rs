//! Tables: columns as wide as their widest cell, the last one as long as it is, or broken at words where a terminal has no more room.

use anstyle::Style;

use crate::render::style::{FAINT, paint};

/// One cell.
pub(crate) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// Plain text.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self::styled(text, Style::new())
    }

    /// Text in a style.
    pub(crate) fn styled(text: impl Into<String>, style: Style) -> Self {
        Self { text: text.into(), style }
    }
}

/// Room below which a last column is not broken: it would be one word a line.
const LEAST_ROOM: usize = 24;

/// The lines of a table; those of a last column that is longer than the terminal is wide go on under it.
pub(crate) fn lines_within(columns: usize, heads: &[&str], mut rows: Vec<Vec<Cell>>) -> Vec<String> {
    let width = |rows: &[Vec<Cell>], column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.text.chars().count());
        cells.chain(heads.get(column).map(|head| head.chars().count())).max().unwrap_or(0)
    };
    let before: usize = (0..heads.len().saturating_sub(1)).map(|column| width(&rows, column) + 2).sum();
    let room = columns.saturating_sub(before);
    if room < LEAST_ROOM {
        return lines(heads, rows);
    }
    let rests: Vec<Vec<String>> = rows
        .iter_mut()
        .map(|row| {
            let Some(last) = row.last_mut() else { return Vec::new() };
            let mut broken = wrapped(&last.text, room).into_iter();
            last.text = broken.next().unwrap_or_default();
            broken.collect()
        })
        .collect();
    let mut all = lines(heads, rows).into_iter();
    let mut shown: Vec<String> = all.next().into_iter().collect();
    for (line, rest) in all.zip(rests) {
        shown.push(line);
        shown.extend(rest.into_iter().map(|text| format!("{}{text}", " ".repeat(before))));
    }
    shown
}

/// A text in lines of at most `columns`, broken between words; a word that is longer is broken where it must be.
pub(crate) fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(1);
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    let mut length = 0;
    for word in text.split(' ') {
        let mut letters: Vec<char> = word.chars().collect();
        if length > 0 && length + 1 + letters.len() > columns {
            lines.push(std::mem::take(&mut line));
            length = 0;
        } else if length > 0 {
            line.push(' ');
            length += 1;
        }
        while letters.len() > columns {
            let rest = letters.split_off(columns);
            lines.push(letters.into_iter().collect());
            letters = rest;
        }
        length += letters.len();
        line.extend(letters);
    }
    lines.push(line);
    lines
}

/// The lines of a table.
pub(crate) fn lines(heads: &[&str], rows: Vec<Vec<Cell>>) -> Vec<String> {
    let mut table = vec![heads.iter().map(|head| Cell::styled(*head, FAINT)).collect::<Vec<_>>()];
    table.extend(rows);
    let width = |column: usize| table.iter().filter_map(|row| row.get(column)).map(|cell| cell.text.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |row: &Vec<Cell>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            let last = column + 1 == row.len();
            let gap = if last { 0 } else { width + 2 - cell.text.chars().count() };
            format!("{}{}", paint(cell.style, &cell.text), " ".repeat(gap))
        });
        cells.collect::<String>().trim_end().to_owned()
    };
    table.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other() {
        let plain = |text: String| anstream::adapter::strip_str(&text).to_string();
        let rows = vec![vec![Cell::new("api"), Cell::new("»"), Cell::new("x")], vec![Cell::new("a"), Cell::new("bb"), Cell::new("y z")]];
        let lines: Vec<String> = lines(&["S", "LONG", "LAST"], rows).into_iter().map(plain).collect();
        assert_eq!(lines, ["S    LONG  LAST", "api  »     x", "a    bb    y z"]);
    }

    #[test]
    fn a_long_last_column_goes_on_under_itself_and_no_line_is_too_long() {
        let plain = |text: String| anstream::adapter::strip_str(&text).to_string();
        let why = "its memory is full (149 % of maxmemory, noeviction): it refuses writes";
        let rows = || vec![vec![Cell::new("cache"), Cell::new(why)], vec![Cell::new("api"), Cell::new("x".repeat(40))]];
        let lines: Vec<String> = lines_within(38, &["S", "WHY"], rows()).into_iter().map(plain).collect();
        let wanted = [
            "S      WHY",
            "cache  its memory is full (149 % of",
            "       maxmemory, noeviction): it",
            "       refuses writes",
            "api    xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "       xxxxxxxxx",
        ];
        assert_eq!(lines, wanted);
        assert_eq!(lines_within(20, &["S", "WHY"], rows()).len(), 3, "where there is no room nothing is broken");
    }
}

//! Tables: columns as wide as their widest cell, the last one as long as it is.

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
}

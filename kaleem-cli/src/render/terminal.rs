//! The terminal as the moving line sees it: a few columns narrower than it is.
//!
//! The line is filled up to its width, and what the terminal echoes at its end, such as `^C`, would wrap: then the line could
//! not be taken away again.

use std::io::{self, Write};

use indicatif::TermLike;

/// Columns left free at the end.
const ECHO: u16 = 4;
/// Width of a terminal that does not tell.
const UNKNOWN: u16 = 80;

/// Rows of a terminal that does not tell.
const UNKNOWN_ROWS: u16 = 24;

/// Columns and rows of the terminal that results go to.
pub(crate) fn size_of_results() -> (usize, usize) {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok().filter(|size| size.ws_col > 0 && size.ws_row > 0);
    let (columns, rows) = size.map_or((UNKNOWN, UNKNOWN_ROWS), |size| (size.ws_col, size.ws_row));
    (usize::from(columns), usize::from(rows))
}

/// Standard error, a bit narrower.
#[derive(Debug)]
pub(crate) struct Narrow;

impl Narrow {
    fn send(&self, text: &str) -> io::Result<()> {
        io::stderr().lock().write_all(text.as_bytes())
    }

    fn go(&self, steps: usize, direction: char) -> io::Result<()> {
        if steps == 0 { Ok(()) } else { self.send(&format!("\x1b[{steps}{direction}")) }
    }
}

impl TermLike for Narrow {
    fn width(&self) -> u16 {
        rustix::termios::tcgetwinsize(io::stderr()).map_or(UNKNOWN, |size| size.ws_col).saturating_sub(ECHO)
    }

    fn move_cursor_up(&self, steps: usize) -> io::Result<()> {
        self.go(steps, 'A')
    }

    fn move_cursor_down(&self, steps: usize) -> io::Result<()> {
        self.go(steps, 'B')
    }

    fn move_cursor_right(&self, steps: usize) -> io::Result<()> {
        self.go(steps, 'C')
    }

    fn move_cursor_left(&self, steps: usize) -> io::Result<()> {
        self.go(steps, 'D')
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.send(&format!("{text}\r\n"))
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.send(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.send("\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        io::stderr().flush()
    }
}

//! The one place that prints: a line on standard output, which the container's log keeps.

/// Prints a line. A reader that went away is no reason to fail.
pub(crate) fn line(text: &str) {
    use std::io::Write;
    drop(writeln!(std::io::stdout().lock(), "{text}"));
}

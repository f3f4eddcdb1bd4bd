//! Questions to a person at a terminal.

use std::io::BufRead;

use crate::render::Printer;

/// What a person said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// They agree.
    Yes,
    /// They do not, or said nothing.
    No,
}

impl Printer {
    /// Asks a person, and waits for `yes`. The caller knows that somebody is there.
    pub(crate) fn ask(&self, question: &str) -> Said {
        self.label("confirm", super::style::WARN, &format!("{question} (yes/no)"));
        let mut line = String::new();
        // Where nothing can be read, nobody agreed.
        match std::io::stdin().lock().read_line(&mut line) {
            Ok(_) if matches!(line.trim(), "yes" | "y") => Said::Yes,
            _ => Said::No,
        }
    }
}

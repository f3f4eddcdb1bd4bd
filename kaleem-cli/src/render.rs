//! The only printer. Results go to standard output, everything else to standard error; `--json` turns results and what
//! happens into one JSON object per line on standard output.

use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use anstream::{AutoStream, ColorChoice};
use kaleem_core::kaleem::KaleemError;
use kaleem_core::remedy::{Remedy, chain};
use serde_json::{Value, json};

use crate::arguments::{Color, Global};
use crate::env::Environment;
use crate::error::CliError;
use crate::exit::Exit;

pub(crate) mod style;
pub(crate) mod table;
pub(crate) mod plan;
pub(crate) mod terminal;
pub(crate) mod ask;
pub(crate) mod moving;
pub(crate) mod run;
pub(crate) mod outcome;

use style::{BAD, GOOD, HELP, WARN, paint};

/// Prints.
pub(crate) struct Printer {
    out: Mutex<AutoStream<std::io::Stdout>>,
    err: Mutex<AutoStream<std::io::Stderr>>,
    json: bool,
    quiet: bool,
    live: bool,
    screen: bool,
    can_ask: bool,
    closed: AtomicBool,
}

impl Printer {
    /// A printer for these flags and terminals.
    pub(crate) fn new(global: &Global, environment: &Environment) -> Self {
        let choice = match global.color {
            Color::Auto => None,
            Color::Always => Some(ColorChoice::Always),
            Color::Never => Some(ColorChoice::Never),
        };
        let (out, err) = (std::io::stdout(), std::io::stderr());
        let out_choice = choice.unwrap_or_else(|| AutoStream::choice(&out));
        let err_choice = choice.unwrap_or_else(|| AutoStream::choice(&err));
        let dumb = environment.get("TERM").is_none_or(|term| term == "dumb");
        Self {
            out: Mutex::new(AutoStream::new(out, out_choice)),
            err: Mutex::new(AutoStream::new(err, err_choice)),
            json: global.json,
            quiet: global.quiet,
            live: environment.stderr_is_terminal && !global.json && !global.quiet && !dumb,
            screen: environment.stdout_is_terminal && !global.json && !dumb,
            can_ask: environment.stdin_is_terminal && environment.stderr_is_terminal && !global.json,
            closed: AtomicBool::new(false),
        }
    }

    /// What clap has to say: help and version are results, everything else is wrong usage.
    pub(crate) fn usage(error: &clap::Error) -> Exit {
        // Nobody is left to be told when this fails.
        error.print().ok();
        if error.use_stderr() { Exit::Usage } else { Exit::Done }
    }

    /// Whether progress can move on a terminal.
    pub(crate) fn is_live(&self) -> bool {
        self.live
    }

    /// Columns and rows of the terminal that results go to; `None` where they go elsewhere.
    pub(crate) fn screen(&self) -> Option<(usize, usize)> {
        if self.screen { Some(terminal::size_of_results()) } else { None }
    }

    /// Puts lines over the last `above` lines of results, each of which fits into a row of the terminal.
    pub(crate) fn redraw(&self, above: usize, lines: &[String]) {
        if above > 0 {
            // Past the stream that takes colours away: it would take these away too.
            std::io::stdout().write_all(format!("\x1b[{above}A\r\x1b[J").as_bytes()).ok();
        }
        self.raw(&format!("{}\n", lines.join("\n")));
    }

    /// Whether somebody is there who can be asked.
    pub(crate) fn can_ask(&self) -> bool {
        self.can_ask
    }

    /// Whether notes are shown.
    pub(crate) fn shows_notes(&self) -> bool {
        !self.quiet && !self.json
    }

    /// Whether nobody reads standard output any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// A line of a result for people.
    pub(crate) fn result(&self, line: &str) {
        if !self.json {
            self.write_out(line);
        }
    }

    /// A result as it is, such as the output of a command; the same with `--json`.
    pub(crate) fn raw(&self, text: &str) {
        let Ok(mut out) = self.out.lock() else { return };
        if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
            self.closed.store(true, Ordering::Relaxed);
        }
    }

    /// A line of a result for programs.
    pub(crate) fn json(&self, value: &Value) {
        if self.json {
            self.write_out(&value.to_string());
        }
    }

    /// A line that people may want to know while they wait.
    pub(crate) fn note(&self, line: &str) {
        if self.shows_notes() {
            self.write_err(line);
        }
    }

    /// Asks a person; `None` where nobody can be asked. Only a yes is a yes.
    pub(crate) fn asks(&self, question: &str) -> Option<bool> {
        if !self.can_ask {
            return None;
        }
        if let Ok(mut err) = self.err.lock() {
            write!(err, "{question}").and_then(|()| err.flush()).ok();
        }
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).ok();
        Some(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
    }

    /// Something that a person should know before it bites.
    pub(crate) fn warning(&self, text: &str, help: Option<&str>) {
        self.write_err(&labelled("warning", WARN, text));
        if let Some(help) = help {
            self.write_err(&labelled("help", HELP, help));
        }
        self.json(&json!({ "type": "warning", "message": text, "help": help }));
    }

    /// Why it did not happen, what to do, and what serves.
    pub(crate) fn failure(&self, error: &CliError, serving: Option<&str>) -> Exit {
        let exit = Exit::of_error(error);
        let chain = chain(error);
        let (what, causes) = chain.split_first().map_or((error.to_string(), Vec::new()), |(what, causes)| (what.clone(), causes.to_vec()));
        match error {
            CliError::Kaleem { source: KaleemError::Refused { objections } } => {
                self.write_err(&labelled("error", BAD, "the plan is refused"));
                for objection in objections {
                    self.write_err(&labelled("cause", BAD, &objection.message));
                    self.write_err(&labelled("help", HELP, &objection.remedy));
                }
            }
            _ => {
                self.write_err(&labelled("error", BAD, &what));
                for cause in &causes {
                    self.write_err(&labelled("cause", BAD, cause));
                }
                self.write_err(&labelled("help", HELP, &error.remedy()));
            }
        }
        if let Some(serving) = serving {
            self.write_err(&labelled("serving", GOOD, serving));
        }
        self.json(&json!({
            "type": "error",
            "error": what,
            "causes": causes,
            "help": error.remedy(),
            "serving": serving,
            "exit_code": exit.code(),
        }));
        exit
    }

    /// A labelled line of an outcome on standard error, such as `cause: …`.
    pub(crate) fn label(&self, label: &str, style: anstyle::Style, text: &str) {
        self.write_err(&labelled(label, style, text));
    }

    fn write_out(&self, line: &str) {
        let Ok(mut out) = self.out.lock() else { return };
        if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
            self.closed.store(true, Ordering::Relaxed);
        }
    }

    fn write_err(&self, line: &str) {
        let Ok(mut err) = self.err.lock() else { return };
        // Where even this fails nobody can be told.
        writeln!(err, "{line}").ok();
    }
}

/// `label: text`, with further lines of the text under its first.
fn labelled(label: &str, style: anstyle::Style, text: &str) -> String {
    let indent = " ".repeat(label.len() + 2);
    let text = text.trim_end().lines().collect::<Vec<_>>().join(&format!("\n{indent}"));
    format!("{} {text}", paint(style, &format!("{label}:")))
}

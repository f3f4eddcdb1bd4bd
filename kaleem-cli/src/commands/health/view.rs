//! How answers are shown: a table once, in place while somebody watches a terminal, and in a pipe only what changes.

use std::collections::BTreeMap;
use std::time::Duration;

use anstyle::Style;
use jiff::Timestamp;
use kaleem_core::health::{Finding, Verdict};
use kaleem_core::remedy::one_line;
use kaleem_health::Discovered;
use serde_json::json;

use crate::error::CliError;
use crate::render::Printer;
use crate::render::style::{BAD, FAINT, GOOD, HELP, WARN, paint};
use crate::render::table::{self, Cell, wrapped};
use crate::words;

const HEADS: [&str; 5] = ["SERVICE", "PROBE", "VERDICT", "TOOK", "WHY"];

/// What one probe found.
pub(super) struct Answer<'a> {
    pub found: &'a Discovered,
    pub finding: Finding,
}

impl Answer<'_> {
    fn name(&self) -> String {
        format!("{}/{}", self.found.service, self.found.name)
    }
}

/// What is on the screen.
pub(super) struct View<'a> {
    printer: &'a Printer,
    /// Lines that the next round is put over.
    above: usize,
    /// Verdict of each probe in the last round.
    last: BTreeMap<String, Verdict>,
    told: Option<String>,
}

impl<'a> View<'a> {
    pub(super) fn new(printer: &'a Printer) -> Self {
        Self { printer, above: 0, last: BTreeMap::new(), told: None }
    }

    /// The table, what to do, and the same for programs.
    pub(super) fn once(&self, answers: &[Answer<'_>]) {
        let columns = self.printer.screen().map(|(columns, _)| columns);
        lines(answers, columns).iter().for_each(|line| self.printer.result(line));
        self.for_programs(answers);
    }

    /// Another round: over the last one on a terminal, else only what changed.
    pub(super) fn again(&mut self, answers: &[Answer<'_>], now: Timestamp) {
        self.for_programs(answers);
        if let Some((columns, rows)) = self.printer.screen() {
            let mut shown = lines(answers, Some(columns));
            let asked = words::count(answers.len(), "probe", "probes");
            shown.push(paint(FAINT, &format!("{asked} at {}; Ctrl-C ends it", words::moment(now))));
            // What stands above the first row cannot be drawn over: the last lines, with what to do, are those that are kept.
            let hidden = shown.len().saturating_sub(rows.saturating_sub(1));
            let shown = shown.split_off(hidden);
            self.printer.redraw(self.above, &shown);
            self.above = shown.len();
        } else if self.last.is_empty() {
            lines(answers, None).iter().for_each(|line| self.printer.result(line));
        } else {
            for answer in answers {
                let (name, verdict) = (answer.name(), answer.finding.verdict);
                let Some(before) = self.last.get(&name).filter(|before| **before != verdict) else { continue };
                let changed = format!("{before} -> {}", paint(style(verdict), &verdict.to_string()));
                self.printer.result(&format!("{} {name} {changed}: {}", words::moment(now), answer.finding.reason));
                if let Some(remedy) = &answer.finding.remedy {
                    self.printer.result(&format!("{} {name}: {remedy}", paint(HELP, "help:")));
                }
            }
        }
        self.last = answers.iter().map(|answer| (answer.name(), answer.finding.verdict)).collect();
    }

    /// A round in which the engine could not be asked where anything is.
    pub(super) fn missed(&mut self, error: &CliError) {
        let text = one_line(error);
        if self.told.as_ref() != Some(&text) {
            self.printer.warning(&text, None);
            self.above = 0;
        }
        self.told = Some(text);
    }

    /// Somebody waits: on a terminal it is said for what, once.
    pub(super) fn waiting(&mut self, answers: &[Answer<'_>], left: Duration) {
        if !self.printer.is_live() {
            return;
        }
        let ill = answers.iter().filter(|answer| matches!(answer.finding.verdict, Verdict::Fail | Verdict::Unknown));
        let names: Vec<String> = ill.map(|answer| format!("{} {}", answer.name(), answer.finding.verdict)).collect();
        let text = names.join(", ");
        if self.told.as_ref() != Some(&text) {
            self.printer.note(&paint(FAINT, &format!("waits, at most {}: {text}", words::duration(left))));
        }
        self.told = Some(text);
    }

    fn for_programs(&self, answers: &[Answer<'_>]) {
        for Answer { found, finding } in answers {
            let measured = finding.measurements.iter().map(|one| json!({ "name": one.name, "value": one.value, "unit": one.unit }));
            let phases = finding.phases.iter().map(|(phase, took)| (phase.clone(), took.as_secs_f64() * 1000.0));
            self.printer.json(&json!({
                "type": "health",
                "service": found.service.as_str(),
                "probe": found.name,
                "kind": found.settings.as_ref().ok().map(kaleem_health::ProbeSettings::kind),
                "found": found.found.to_string(),
                "verdict": finding.verdict,
                "reason": finding.reason,
                "help": finding.remedy,
                "phases_ms": phases.collect::<BTreeMap<_, _>>(),
                "measurements": measured.collect::<Vec<_>>(),
            }));
        }
    }
}

fn style(verdict: Verdict) -> Style {
    match verdict {
        Verdict::Ok => GOOD,
        Verdict::Warn | Verdict::Unknown => WARN,
        Verdict::Fail => BAD,
    }
}

/// The table and what to do; broken to `columns` where they go to a terminal.
fn lines(answers: &[Answer<'_>], columns: Option<usize>) -> Vec<String> {
    if answers.is_empty() {
        return vec![paint(FAINT, "nothing in the project can be asked: no known image, address or port")];
    }
    let rows = answers.iter().map(|Answer { found, finding }| {
        let took = finding.phases.get("total").map(|took| words::latency(*took)).unwrap_or_default();
        vec![
            Cell::new(found.service.as_str()),
            Cell::new(found.name.as_str()),
            Cell::styled(finding.verdict.to_string(), style(finding.verdict)),
            Cell::new(took),
            Cell::new(finding.reason.as_str()),
        ]
    });
    let mut lines = match columns {
        Some(columns) => table::lines_within(columns, &HEADS, rows.collect()),
        None => table::lines(&HEADS, rows.collect()),
    };
    for answer in answers {
        let Some(remedy) = answer.finding.remedy.as_ref().filter(|_| answer.finding.verdict != Verdict::Ok) else { continue };
        let text = format!("{}: {remedy}", answer.name());
        let label = paint(HELP, "help:");
        let Some(columns) = columns else {
            lines.push(format!("{label} {text}"));
            continue;
        };
        let broken = wrapped(&text, columns.saturating_sub(6));
        lines.extend(broken.iter().enumerate().map(|(at, part)| if at == 0 { format!("{label} {part}") } else { format!("      {part}") }));
    }
    lines
}

//! A plan under way: a line for each step that is done, and on a terminal one that moves for the step that is not.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kaleem_core::engine::Notice;
use kaleem_core::plan::{Plan, Step};
use serde_json::{Value, json};

use crate::render::Printer;
use crate::render::style::{BAD, FAINT, GOOD, WARN, paint};
use crate::render::terminal::Narrow;
use crate::words;

/// How often a gate says in a pipe that it still waits.
const REMINDER: Duration = Duration::from_secs(10);
/// How often the moving line moves.
const TICK: Duration = Duration::from_millis(100);

/// Shows the notices of one run.
pub(crate) struct RunView<'a> {
    printer: &'a Printer,
    plan: &'a Plan,
    bar: ProgressBar,
    /// What was left of the gate's time when it was last told of.
    reminded: Option<Duration>,
    undoing: Option<String>,
}

impl<'a> RunView<'a> {
    /// A view of a plan that is about to run.
    pub(crate) fn new(printer: &'a Printer, plan: &'a Plan) -> Self {
        let bar = ProgressBar::with_draw_target(
            None,
            if printer.is_live() { ProgressDrawTarget::term_like(Box::new(Narrow)) } else { ProgressDrawTarget::hidden() },
        );
        Self { printer, plan, bar, reminded: None, undoing: None }
    }

    /// Shows one more notice.
    pub(crate) fn notice(&mut self, notice: &Notice) {
        if let Some(value) = self.to_json(notice) {
            self.printer.json(&value);
        }
        match notice {
            Notice::Started { step, what } => {
                self.reminded = None;
                self.spin(&format!("{} {what}", self.place(*step)));
            }
            Notice::Pulling { progress, step } => self.pulling(*step, progress.received_bytes, progress.total_bytes),
            Notice::Waiting { step, container, reason, passes, wanted, left } => {
                let left_text = words::duration(*left);
                // What stays up long enough passes more often than it must.
                let passed = if (1..*wanted).contains(passes) { format!(", {passes} of {wanted} passes") } else { String::new() };
                let named = if reason.contains(container.as_str()) { String::new() } else { format!("{container}, ") };
                self.spin(&format!("{} {named}{left_text} left: {}{passed}", self.place(*step), first_line(reason)));
                if !self.printer.is_live() {
                    let due = self.reminded.is_some_and(|last| last.saturating_sub(*left) >= REMINDER);
                    if due {
                        self.line(FAINT, "..", &format!("{container}: {}{passed} ({left_text} left)", first_line(reason)));
                    }
                    if due || self.reminded.is_none() {
                        self.reminded = Some(*left);
                    }
                }
            }
            Notice::Working { step, what } => self.spin(&format!("{} {what}", self.place(*step))),
            Notice::WaitingForNeed { step, service, reason, left } => {
                let left_text = words::duration(*left);
                self.spin(&format!("{} {service}, {left_text} left: {}", self.place(*step), first_line(reason)));
                // In a pipe it is said at once, since it is somebody else's fault, and then as often as of a gate.
                if !self.printer.is_live() && self.reminded.is_none_or(|last| last.saturating_sub(*left) >= REMINDER) {
                    self.line(WARN, "..", &format!("{service} waits: {} ({left_text} left)", first_line(reason)));
                    self.reminded = Some(*left);
                }
            }
            Notice::Retrying { error, .. } => self.line(WARN, "again", &first_line(error)),
            Notice::Done { step, evidence } => {
                let took = Duration::from_millis(evidence.took_ms);
                let what = self.plan.step_text(*step);
                self.line(GOOD, "ok", &format!("{what}{}", self.measured(*step, took)));
                if let Some(Step::Needs { .. }) = self.plan.steps.get(*step) {
                    // What could not be asked, or only just passes, is nothing to be silent about.
                    for part in evidence.seen.split("; ").filter(|part| !part.is_empty() && !part.contains(" is well: ")) {
                        self.line(WARN, "note", part);
                    }
                }
            }
            Notice::Failed { step, error, goes_back } => {
                let what = self.plan.step_text(*step);
                let label = if *goes_back { "failed" } else { "left" };
                self.line(if *goes_back { BAD } else { WARN }, label, &what);
                if !goes_back {
                    self.line(WARN, "", &format!("it does no harm, and the next plan tries again: {}", first_line(error)));
                }
            }
            Notice::Aborted { by } => self.line(WARN, "abort", &format!("{by} asked to go back")),
            Notice::Undoing { what, .. } => {
                self.spin(&format!("take back: {what}"));
                self.undoing = Some(what.clone());
            }
            Notice::Undone { took, .. } => {
                let what = self.undoing.take().unwrap_or_default();
                self.line(WARN, "undo", &format!("{what}{}", slow(*took)));
            }
            Notice::UndoFailed { error, .. } => {
                let what = self.undoing.take().unwrap_or_default();
                self.line(BAD, "stuck", &format!("{what}: {error}"));
            }
            Notice::Finished { .. } => self.bar.finish_and_clear(),
        }
    }

    /// Says something in between.
    pub(crate) fn say(&self, line: &str) {
        self.bar.suspend(|| self.printer.note(line));
    }

    /// Takes the moving line away.
    pub(crate) fn close(&self) {
        self.bar.finish_and_clear();
    }

    /// How long a step took, where that says something.
    fn measured(&self, step: usize, took: Duration) -> String {
        match self.plan.steps.get(step) {
            Some(
                Step::Gate { .. }
                | Step::Hook { .. }
                | Step::RunToEnd { .. }
                | Step::Pull { .. }
                | Step::Stop { .. }
                | Step::BackUp { .. }
                | Step::RestoreData { .. },
            ) => {
                format!(" {}", paint(FAINT, &words::duration(took)))
            }
            Some(
                Step::Baseline { .. }
                | Step::CreateNetwork { .. }
                | Step::CreateVolume { .. }
                | Step::Pin { .. }
                | Step::Create { .. }
                | Step::Start { .. }
                | Step::Needs { .. }
                | Step::Steer { .. }
                | Step::Hold { .. }
                | Step::Watch { .. }
                | Step::Drain { .. }
                | Step::VerifyBackup { .. }
                | Step::StartApart { .. }
                | Step::HandOver { .. }
                | Step::Revive { .. }
                | Step::Connect { .. }
                | Step::Reload { .. }
                | Step::FrontDoor { .. }
                | Step::Upgrade { .. }
                | Step::Update { .. }
                | Step::Rename { .. }
                | Step::Commit { .. }
                | Step::Remove { .. }
                | Step::Unpin { .. }
                | Step::RemoveNetwork { .. }
                | Step::RemoveVolume { .. },
            )
            | None => slow(took),
        }
    }

    fn place(&self, step: usize) -> String {
        format!("{}/{}", step + 1, self.plan.steps.len())
    }

    fn line(&self, colour: anstyle::Style, label: &str, text: &str) {
        self.bar.suspend(|| self.printer.note(&format!("{} {text}", paint(colour, &format!("{label:>6}")))));
    }

    fn spin(&self, text: &str) {
        if !self.printer.is_live() {
            return;
        }
        if self.bar.length().is_some() {
            self.bar.unset_length();
        }
        let style = ProgressStyle::with_template("     {spinner} {wide_msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
        self.bar.set_style(style.tick_strings(&["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"]));
        self.bar.set_message(text.to_owned());
        self.bar.enable_steady_tick(TICK);
    }

    fn pulling(&self, step: usize, received: u64, total: u64) {
        if !self.printer.is_live() {
            return;
        }
        let image = if let Some(Step::Pull { image, .. }) = self.plan.steps.get(step) { image.to_string() } else { String::new() };
        // What may be cut off on a narrow terminal comes last.
        let style =
            ProgressStyle::with_template("     {spinner} {prefix} [{bar:16}] {wide_msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
        self.bar.set_style(style.progress_chars("=> "));
        self.bar.set_length(total.max(received).max(1));
        self.bar.set_position(received);
        self.bar.set_prefix(format!("{} pull", self.place(step)));
        let how_far = if received >= total && total > 0 {
            format!("unpacking {}", words::size(total))
        } else {
            format!("{} of {}", words::size(received), words::size(total.max(received)))
        };
        self.bar.set_message(format!("{how_far}, {image}"));
    }

    fn to_json(&self, notice: &Notice) -> Option<Value> {
        let plan = self.plan.id.to_string();
        Some(match notice {
            Notice::Started { step, what } => json!({ "type": "started", "plan": plan, "step": step, "what": what }),
            Notice::Pulling { step, progress } => json!({
                "type": "pulling", "plan": plan, "step": step,
                "received_bytes": progress.received_bytes, "total_bytes": progress.total_bytes,
            }),
            Notice::Waiting { step, container, reason, passes, wanted, left } => json!({
                "type": "waiting", "plan": plan, "step": step, "container": container.as_str(),
                "reason": reason, "passes": passes, "wanted": wanted, "left_ms": milliseconds(*left),
            }),
            Notice::Working { step, what } => json!({ "type": "working", "plan": plan, "step": step, "what": what }),
            Notice::WaitingForNeed { step, service, reason, left } => json!({
                "type": "waiting-for-need", "plan": plan, "step": step, "service": service.as_str(),
                "reason": reason, "left_ms": milliseconds(*left),
            }),
            Notice::Retrying { step, error } => json!({ "type": "retrying", "plan": plan, "step": step, "error": error }),
            Notice::Done { step, evidence } => json!({
                "type": "done", "plan": plan, "step": step, "took_ms": evidence.took_ms, "seen": evidence.seen,
            }),
            Notice::Failed { step, error, goes_back } => {
                json!({ "type": "failed", "plan": plan, "step": step, "error": error, "goes_back": goes_back })
            }
            Notice::Aborted { by } => json!({ "type": "aborted", "plan": plan, "by": by }),
            Notice::Undoing { step, what } => json!({ "type": "undoing", "plan": plan, "step": step, "what": what }),
            Notice::Undone { step, took } => json!({ "type": "undone", "plan": plan, "step": step, "took_ms": milliseconds(*took) }),
            Notice::UndoFailed { step, error } => json!({ "type": "undo-failed", "plan": plan, "step": step, "error": error }),
            // The line about the outcome, which is always the last, says it.
            Notice::Finished { .. } => return None,
        })
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim_end_matches([':', ';']).to_owned()
}

/// The time, where it is long enough to matter.
fn slow(took: Duration) -> String {
    if took < Duration::from_secs(1) { String::new() } else { format!(" {}", paint(FAINT, &words::duration(took))) }
}

//! Bytes on their way: a bar with rate and time left on a terminal, plain lines in a pipe, JSON lines for programs.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kaleem_backup::vault::metered::{Direction, MoveObserver, Moved};
use kaleem_core::clock::Clock;
use serde_json::json;

use crate::render::Printer;
use crate::render::style::{FAINT, paint};
use crate::render::terminal::Narrow;
use crate::words;

/// Time between two drawings on a terminal, and between two lines elsewhere.
const TICK: Duration = Duration::from_millis(100);
const JSON_EVERY: Duration = Duration::from_secs(1);
const LINE_EVERY: Duration = Duration::from_secs(10);

/// How much is expected of each file, by its name, once written and once read.
pub(crate) type Expected = BTreeMap<String, u64>;

#[derive(Default)]
struct State {
    /// What moves now.
    file: String,
    direction: Option<Direction>,
    of_file: u64,
    total: u64,
}

/// Shows what moves while something is done.
pub(crate) struct MovingView<'a> {
    printer: &'a Printer,
    clock: Arc<dyn Clock>,
    state: Arc<Mutex<State>>,
    bar: ProgressBar,
    expected: Expected,
    /// How often every byte passes.
    passes: u64,
}

impl<'a> MovingView<'a> {
    /// A view of what is about to move. `expected` is by name of the file; every byte passes `passes` times.
    pub(crate) fn new(printer: &'a Printer, clock: &Arc<dyn Clock>, expected: Expected, passes: u64) -> Self {
        let target = if printer.is_live() { ProgressDrawTarget::term_like(Box::new(Narrow)) } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        Self { printer, clock: clock.clone(), state: Arc::default(), bar, expected, passes }
    }

    /// What counts.
    pub(crate) fn observer(&self) -> Arc<MoveObserver> {
        let state = self.state.clone();
        Arc::new(move |moved: Moved| {
            let file = moved.path.segments().last().unwrap_or_default();
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.file != file || state.direction != Some(moved.direction) {
                file.clone_into(&mut state.file);
                state.direction = Some(moved.direction);
                state.of_file = 0;
            }
            state.of_file += moved.bytes;
            state.total += moved.bytes;
        })
    }

    /// Does it, and shows it.
    pub(crate) async fn watch<T>(&self, work: impl Future<Output = T>) -> T {
        let begun = self.clock.monotonic();
        let mut told = begun;
        let mut work = Box::pin(work);
        let result = loop {
            tokio::select! {
                biased;
                result = &mut work => break result,
                () = self.clock.sleep(TICK) => {
                    let now = self.clock.monotonic();
                    if self.printer.is_live() {
                        self.draw(now.saturating_sub(begun));
                    } else if now.saturating_sub(told) >= if self.printer.shows_notes() { LINE_EVERY } else { JSON_EVERY } {
                        told = now;
                        self.tell(now.saturating_sub(begun));
                    }
                }
            }
        };
        self.bar.finish_and_clear();
        result
    }

    /// Prints lines while something is shown: the bar makes room, and comes back below them.
    pub(crate) fn aside(&self, print: impl FnOnce()) {
        self.bar.suspend(print);
    }

    /// Bytes in all, as far as that can be said.
    fn expected_total(&self) -> Option<u64> {
        let sum: u64 = self.expected.values().sum();
        (sum > 0).then(|| sum.saturating_mul(self.passes))
    }

    fn facts(&self, took: Duration) -> (String, u64, u64, Option<Duration>) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let doing = match state.direction {
            Some(Direction::Write) => "write",
            Some(Direction::Read) => "read back",
            None => "begin",
        };
        let what = format!("{doing} {}", state.file).trim_end().to_owned();
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = state.total.saturating_mul(1000) / millis;
        let left = self.expected_total().map(|total| total.saturating_sub(state.total)).filter(|_| rate > 0);
        let left = left.map(|left| Duration::from_secs(left / rate.max(1)));
        (what, state.total, rate, left)
    }

    fn draw(&self, took: Duration) {
        let (what, total, rate, left) = self.facts(took);
        let left = left.map(|left| format!(", {} left", words::duration(left))).unwrap_or_default();
        let text = format!("{}, {}/s{left}", words::size(total), words::size(rate));
        let template = if self.expected_total().is_some() { "     {spinner} [{bar:16}] {wide_msg}" } else { "     {spinner} {wide_msg}" };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        self.bar.set_style(style.progress_chars("=> "));
        if let Some(expected) = self.expected_total() {
            self.bar.set_length(expected.max(total));
            self.bar.set_position(total);
        }
        self.bar.set_message(format!("{text}, {what}"));
        self.bar.tick();
    }

    fn tell(&self, took: Duration) {
        let (what, total, rate, left) = self.facts(took);
        let left_text = left.map(|left| format!(", {} left", words::duration(left))).unwrap_or_default();
        self.printer.note(&paint(FAINT, &format!("    .. {what}: {} so far, {}/s{left_text}", words::size(total), words::size(rate))));
        self.printer.json(&json!({
            "type": "backup-progress", "doing": what, "moved_bytes": total, "bytes_per_second": rate,
            "expected_bytes": self.expected_total(), "left_s": left.map(|left| left.as_secs()),
        }));
    }
}

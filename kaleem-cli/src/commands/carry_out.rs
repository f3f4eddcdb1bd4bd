//! A plan under way: shown as it happens, and turned back or left by signals.
//!
//! Ctrl-C once goes back; twice leaves the plan open after the running step; three times leaves at once. SIGTERM leaves
//! it open. A terminal that goes away changes nothing: half a release is worse than one that nobody watches.

use kaleem_core::engine::{Control, Ending};
use kaleem_core::kaleem::Run;
use kaleem_core::names::ProjectName;
use kaleem_core::plan::Plan;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::commands::Stopwatch;
use crate::commands::reality::{self, Reality};
use crate::error::CliError;
use crate::exit::Exit;
use crate::render::Printer;
use crate::render::run::RunView;
use crate::wiring::Wiring;

/// Signals, heard from the moment on in which this is made.
pub(crate) struct Signals {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
    /// Kept, so that a hang-up does not end the process.
    _hang_up: Option<Signal>,
}

impl Signals {
    /// Begins to listen. Where the system refuses, its own reaction stays: the process ends, and the plan can be resumed.
    pub(crate) fn listen() -> Self {
        let open = |kind| signal(kind).ok();
        Self { interrupt: open(SignalKind::interrupt()), terminate: open(SignalKind::terminate()), _hang_up: open(SignalKind::hangup()) }
    }
}

async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// What came of a run.
pub(crate) struct Carried {
    /// How it ended.
    pub ending: Ending,
    /// The exit code for it.
    pub exit: Exit,
}

/// Shows a run to its end and says how it ended.
///
/// # Errors
///
/// [`CliError::Run`]; the journal is open.
pub(crate) async fn carry_out(
    wiring: &Wiring,
    printer: &Printer,
    project: &ProjectName,
    plan: &Plan,
    mut run: Run,
) -> Result<Carried, CliError> {
    let watch = Stopwatch::start(wiring.clock());
    let mut signals = Signals::listen();
    let mut view = RunView::new(printer, plan);
    let mut pressed = 0;
    let ending = loop {
        tokio::select! {
            // What happened is told before a signal is taken in.
            biased;
            notice = run.notices.recv() => match notice {
                Some(notice) => view.notice(&notice),
                None => break run.finish().await.map_err(|source| CliError::Run { source })?,
            },
            () = next(&mut signals.interrupt) => {
                pressed += 1;
                match pressed {
                    1 => turn_back(&run.control, &view),
                    2 => leave(&run.control, &view, "leaving the plan open after this step (Ctrl-C once more: at once)"),
                    _ => break Ending::Left,
                }
            }
            () = next(&mut signals.terminate) => leave(&run.control, &view, "told to end: leaving the plan open after this step"),
        }
    };
    view.close();
    let history = wiring.history(project).ok();
    // What ended well on paper is looked at before it is claimed. An engine that went away meanwhile has said so already.
    let reality = match &history {
        Some(history) => reality::ask(wiring, project, history).await.unwrap_or_default(),
        None => Reality::default(),
    };
    let exit = printer.ending(plan, &ending, history.as_ref(), &reality, watch.took());
    Ok(Carried { ending, exit })
}

fn turn_back(control: &Control, view: &RunView<'_>) {
    control.abort();
    view.say("going back (Ctrl-C once more leaves the plan open)");
}

fn leave(control: &Control, view: &RunView<'_>, text: &str) {
    control.leave();
    view.say(text);
}

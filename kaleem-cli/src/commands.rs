//! The verbs, one file each, and what they share: the notice of an open plan, and carrying a plan out.

use std::sync::Arc;

use kaleem_core::clock::Clock;
use kaleem_core::history::History;
use kaleem_core::journal::Next;
use kaleem_core::lease;
use kaleem_core::names::ProjectName;

use crate::arguments::{GatewayVerb, Verb};
use crate::error::CliError;
use crate::exit::Exit;
use crate::render::Printer;
use crate::wiring::Wiring;

mod abort;
mod adopt;
mod backup;
mod carry_out;
mod completions;
mod deploy;
mod doctor;
mod down;
mod eject;
mod exec;
mod gateway;
mod health;
mod image_build;
mod init;
mod logs;
mod plan;
pub(crate) mod reality;
mod releases;
mod reload;
mod resolve;
mod restart;
mod resume;
mod rollback;
mod show;
mod status;

/// How long nothing is said.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// Does what was asked.
///
/// # Errors
///
/// [`CliError`]; what it means for the host is said by [`Exit::of_error`].
pub(crate) async fn run(verb: Verb, wiring: &Wiring, printer: &Printer) -> Result<Exit, CliError> {
    if tells_of_open_plan(&verb) == Tells::Here
        && let Ok(project) = wiring.project_name()
    {
        notice_open(wiring, printer, &project);
    }
    match verb {
        Verb::Init(arguments) => init::run(&arguments, wiring, printer).await,
        Verb::Plan(arguments) => plan::run(&arguments, wiring, printer).await,
        Verb::Deploy(arguments) => deploy::run(&arguments, wiring, printer).await,
        Verb::Status => status::run(wiring, printer).await,
        Verb::Releases => releases::run(wiring, printer),
        Verb::Show(arguments) => show::run(&arguments, wiring, printer),
        Verb::Rollback(arguments) => rollback::run(&arguments, wiring, printer).await,
        Verb::Restart(arguments) => restart::run(&arguments, wiring, printer).await,
        Verb::Reload(arguments) => reload::run(&arguments, wiring, printer).await,
        Verb::Eject(arguments) => eject::run(&arguments, wiring, printer).await,
        Verb::Down(arguments) => down::run(&arguments, wiring, printer).await,
        Verb::Gateway(arguments) => gateway::run(&arguments.what, wiring, printer).await,
        Verb::Adopt(arguments) => adopt::run(&arguments, wiring, printer).await,
        Verb::Resume => resume::run(wiring, printer).await,
        Verb::Abort => abort::run(wiring, printer).await,
        Verb::Resolve(arguments) => resolve::run(&arguments, wiring, printer).await,
        Verb::Logs(arguments) => logs::run(&arguments, wiring, printer).await,
        Verb::Exec(arguments) => exec::run(&arguments, wiring, printer).await,
        Verb::Health(arguments) => health::run(&arguments, wiring, printer).await,
        Verb::Backup(arguments) => Box::pin(backup::run(&arguments, wiring, printer)).await,
        Verb::Doctor(arguments) => doctor::run(&arguments, wiring, printer).await,
        Verb::Completions(arguments) => Ok(completions::run(&arguments, printer)),
    }
}

/// Who tells a person that an earlier plan is open and that nobody works on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tells {
    /// A warning before the command does anything.
    Here,
    /// The command itself: the open plan is what it is about, or what it finishes first.
    Itself,
    /// Nobody: its output is read by a shell.
    Nobody,
}

/// Every command is named, so that no new one keeps silent by accident.
fn tells_of_open_plan(verb: &Verb) -> Tells {
    match verb {
        Verb::Deploy(_) | Verb::Rollback(_) | Verb::Restart(_) | Verb::Eject(_) | Verb::Down(_) => Tells::Itself,
        Verb::Gateway(arguments) => match arguments.what {
            GatewayVerb::Upgrade { .. } => Tells::Itself,
            GatewayVerb::List | GatewayVerb::Metrics { .. } => Tells::Here,
        },
        Verb::Status | Verb::Adopt(_) | Verb::Resume | Verb::Abort | Verb::Resolve(_) => Tells::Itself,
        Verb::Init(_) | Verb::Plan(_) | Verb::Releases | Verb::Show(_) | Verb::Logs(_) | Verb::Exec(_) => Tells::Here,
        Verb::Health(_) | Verb::Backup(_) | Verb::Doctor(_) | Verb::Reload(_) => Tells::Here,
        Verb::Completions(_) => Tells::Nobody,
    }
}

/// Says before anything else that an earlier plan is open and nobody works on it.
fn notice_open(wiring: &Wiring, printer: &Printer, project: &ProjectName) {
    // A history that cannot be read is told of by the command itself.
    let Ok(history) = wiring.history(project) else { return };
    if let Some((text, help)) = open_plan(wiring, project, &history) {
        printer.warning(&text, Some(help));
    }
}

/// What is to be said of an open plan that nobody works on, and what to do about it.
fn open_plan(wiring: &Wiring, project: &ProjectName, history: &History) -> Option<(String, &'static str)> {
    let entry = history.open()?;
    if lease::is_held(wiring.state(project).root()) {
        return None;
    }
    let plan = &entry.plan;
    let what = format!("plan {} ({} to {})", plan.id, plan.kind, plan.release.id);
    let of = plan.steps.len();
    Some(match entry.progress.next() {
        Next::Stuck { step, .. } => (
            format!("{what} is stuck: step {} of {of} could not be rolled back", step + 1),
            "see why with `kaleem status`; mend it and run `kaleem resume`, or settle it with `kaleem resolve`",
        ),
        Next::Run(step) => (
            format!("{what} was interrupted at step {} of {of}", step + 1),
            "continue with `kaleem resume`, or roll back with `kaleem abort`",
        ),
        Next::Undo(step) => (
            format!("{what} was interrupted while it was rolled back, at step {} of {of}", step + 1),
            "finish taking it back with `kaleem resume`",
        ),
        Next::Finish(_) | Next::Over(_) => (format!("{what} was interrupted at its very end"), "finish it with `kaleem resume`"),
    })
}

/// Waits for answers, and says so where they do not come at once: a silent program looks like one that hangs.
async fn patiently<T>(wiring: &Wiring, printer: &Printer, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        biased;
        done = &mut work => return done,
        () = wiring.clock().sleep(PATIENCE) => {}
    }
    printer.note("still asking the container engine and the registries what is there");
    work.await
}

/// Measures time for people.
struct Stopwatch {
    clock: Arc<dyn Clock>,
    begun: std::time::Duration,
}

impl Stopwatch {
    fn start(clock: &Arc<dyn Clock>) -> Self {
        Self { clock: clock.clone(), begun: clock.monotonic() }
    }

    fn took(&self) -> std::time::Duration {
        self.clock.monotonic().saturating_sub(self.begun)
    }
}

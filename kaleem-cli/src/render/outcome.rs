//! How it ended, truthfully, with what serves as the last line.

use std::time::Duration;

use kaleem_core::engine::Ending;
use kaleem_core::history::History;
use kaleem_core::outcome::{Outcome, Resolution};
use kaleem_core::plan::{Plan, PlanKind};
use serde_json::{Value, json};

use crate::commands::reality::{self, Reality};
use crate::exit::Exit;
use crate::render::Printer;
use crate::render::style::{BAD, GOOD, HELP, WARN, paint};
use crate::words;

impl Printer {
    /// Says how a plan ended. The last line is what serves.
    pub(crate) fn ending(&self, plan: &Plan, ending: &Ending, history: Option<&History>, reality: &Reality, took: Duration) -> Exit {
        let exit = match Exit::of_ending(ending) {
            Exit::Done if !reality.faults.is_empty() => Exit::NotServing,
            exit => exit,
        };
        let serving = match history {
            None => "unknown: what was released before cannot be read".to_owned(),
            // A first deploy that failed: what ran before it was none of its business.
            Some(history) if history.releases().is_empty() && history.open().is_none() && plan.kind == PlanKind::Deploy => {
                let others = if reality.has_others { "; the containers that Compose started are still running, unchanged" } else { "" };
                format!("kaleem has not released anything{others}")
            }
            Some(history) => format!("{}{}", words::serving(history), reality::doubt(&reality.faults)),
        };
        let live = plan.previous.map_or_else(|| "nothing".to_owned(), |id| id.to_string());
        reality::show(self, reality);
        let release = plan.release.id;
        let subject = match plan.kind {
            PlanKind::Deploy | PlanKind::Rollback => release.to_string(),
            PlanKind::Eject | PlanKind::Down | PlanKind::Upgrade | PlanKind::Restart => format!("plan {}", plan.id),
        };
        let error = match ending {
            Ending::Over(Outcome::Deployed { leftovers, .. }) => {
                for leftover in leftovers {
                    self.label("left", WARN, leftover);
                }
                let took = words::duration(took);
                self.note(&match plan.kind {
                    PlanKind::Deploy | PlanKind::Rollback => format!("{release} serves after {took}"),
                    PlanKind::Eject => format!("{} is plain Compose again after {took}: nothing of kaleem's runs", plan.project()),
                    PlanKind::Down => format!("nothing of {} runs any more after {took}", plan.project()),
                    PlanKind::Restart => format!("restarted after {took}"),
                    PlanKind::Upgrade => format!("the gateways run the newer program after {took}"),
                });
                let style = if reality.faults.is_empty() { GOOD } else { BAD };
                self.result(&format!("{} {serving}", paint(style, "serving:")));
                None
            }
            Ending::Over(Outcome::Resolved { resolution, by, .. }) => {
                let side = match resolution {
                    Resolution::Old => "the release before",
                    Resolution::New => "the new release",
                };
                self.note(&format!("settled by {by}: {side} serves"));
                self.result(&format!("{} {serving}", paint(GOOD, "serving:")));
                None
            }
            Ending::Over(Outcome::RolledBack { step, error, .. }) if plan.kind == PlanKind::Rollback => {
                self.label("error", BAD, &format!("rollback to {release} FAILED; still live: {live}"));
                self.label("cause", BAD, &format!("{}: {error}", plan.step_text(*step)));
                self.label("help", HELP, &format!("fix the cause and run `kaleem rollback {release}` again, or deploy what is good"));
                Some(error.clone())
            }
            Ending::Over(Outcome::RolledBack { step, error, .. }) => {
                let what = plan.step_text(*step);
                self.label("error", BAD, &format!("{subject} was rolled back because a step failed: {what}"));
                self.label("cause", BAD, error);
                self.label("help", HELP, "mend it and deploy again; every step is in `kaleem show` of the release");
                Some(error.clone())
            }
            Ending::Over(Outcome::Aborted { by, .. }) if plan.kind == PlanKind::Rollback => {
                self.label("error", BAD, &format!("rollback to {release} CANCELLED by {by}; still live: {live}"));
                self.label("help", HELP, &format!("run `kaleem rollback {release}` when you are ready"));
                None
            }
            Ending::Over(Outcome::Aborted { by, .. }) => {
                self.label("error", BAD, &format!("{subject} was rolled back because {by} asked for it"));
                self.label("help", HELP, "deploy again when you are ready");
                None
            }
            Ending::Left => {
                self.label("error", BAD, &format!("left in the middle: plan {} to {release} is open", plan.id));
                self.label("help", HELP, "continue with `kaleem resume`, or roll back with `kaleem abort`");
                None
            }
            Ending::Stuck { step, error, commands } => {
                let what = plan.step_text(*step);
                self.label("error", BAD, &format!("plan {} is stuck: this step could not be rolled back: {what}", plan.id));
                self.label("cause", BAD, error);
                let mut help = "mend what is in its way, then run `kaleem resume`; or do by hand".to_owned();
                for command in commands {
                    help = format!("{help}\n  {command}");
                }
                self.label("help", HELP, &format!("{help}\nand say what serves with `kaleem resolve --old` or `kaleem resolve --new`"));
                Some(error.clone())
            }
        };
        if !matches!(exit, Exit::Done | Exit::NotServing) {
            self.label("serving", GOOD, &serving);
        }
        self.json(&outcome(plan, ending, history, reality, error.as_deref(), exit));
        exit
    }

    /// Says that there is nothing to do; and what does not serve all the same, as far as a plan could not repair it.
    pub(crate) fn nothing_to_do(&self, history: &History, reality: &Reality) -> Exit {
        let (style, exit) = if reality.faults.is_empty() { (GOOD, Exit::Done) } else { (BAD, Exit::NotServing) };
        reality::show(self, reality);
        self.result(&format!("{} {}{}", paint(style, "serving:"), words::serving(history), reality::doubt(&reality.faults)));
        self.json(&json!({
            "type": "outcome",
            "outcome": "nothing-to-do",
            "serving": history.serving().map(|id| id.to_string()),
            "serves": reality.faults.is_empty(),
            "exit_code": exit.code(),
        }));
        exit
    }
}

fn outcome(plan: &Plan, ending: &Ending, history: Option<&History>, reality: &Reality, error: Option<&str>, exit: Exit) -> Value {
    let word = match ending {
        Ending::Over(Outcome::Deployed { .. }) => "deployed",
        Ending::Over(Outcome::RolledBack { .. }) => "rolled-back",
        Ending::Over(Outcome::Aborted { .. }) => "aborted",
        Ending::Over(Outcome::Resolved { .. }) => "resolved",
        Ending::Left => "interrupted",
        Ending::Stuck { .. } => "stuck",
    };
    let leftovers = match ending {
        Ending::Over(outcome) => outcome.leftovers(),
        Ending::Left | Ending::Stuck { .. } => &[],
    };
    // While a plan is open nobody can say what serves.
    let decided = matches!(ending, Ending::Over(_));
    json!({
        "type": "outcome",
        "outcome": word,
        "plan": plan.id.to_string(),
        "release": plan.release.id.to_string(),
        "serving": history.filter(|_| decided).and_then(History::serving).map(|id| id.to_string()),
        "serves": history.filter(|_| decided).and_then(History::serving).map(|_| reality.faults.is_empty()),
        "error": error,
        "leftovers": leftovers,
        "exit_code": exit.code(),
    })
}

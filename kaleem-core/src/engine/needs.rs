//! Waiting until what a service needs is well. It only reads, so it may be cut short at any time.

use std::time::Duration;

use futures_util::future::join_all;

use crate::engine::{Engine, Notice, StepError};
use crate::health::{Finding, Need, Verdict};
use crate::names::ServiceName;
use crate::plan::Plan;

/// Time between two rounds: what is ill is not helped by questions.
const INTERVAL: Duration = Duration::from_secs(1);
/// Time the last round has for its answers: less would blame the limit, and not what was asked.
const LAST_CHANCE: Duration = Duration::from_secs(1);

/// What a wait is about.
pub(crate) struct NeedsRequest<'a> {
    pub(crate) step: usize,
    pub(crate) service: &'a ServiceName,
    pub(crate) needs: &'a [Need],
    /// Time one answer may take.
    pub(crate) timeout: Duration,
    /// Time in which all must be well.
    pub(crate) deadline: Duration,
}

impl Engine {
    /// Waits until all is well. Answers what was seen, and what could not be asked.
    pub(crate) async fn wait_needs(
        &self,
        plan: &Plan,
        request: &NeedsRequest<'_>,
        cut_short: &(dyn Fn() -> bool + Sync),
    ) -> Result<String, StepError> {
        let begun = self.clock.monotonic();
        loop {
            if cut_short() {
                return Err(StepError::CutShort);
            }
            let waited = self.clock.monotonic().saturating_sub(begun);
            let timeout = request.timeout.min(request.deadline.saturating_sub(waited).max(LAST_CHANCE));
            let answers = join_all(request.needs.iter().map(async |need| {
                let finding = self.probes.ask_need(plan.project(), need, timeout).await;
                (need, finding)
            }));
            let answers = answers.await;
            let Some((need, finding)) = answers.iter().filter(|(need, finding)| holds_up(need, finding)).max_by_key(|(_, f)| f.verdict)
            else {
                return Ok(answers.iter().map(|(need, finding)| seen(need, finding)).collect::<Vec<_>>().join("; "));
            };
            let left = request.deadline.saturating_sub(self.clock.monotonic().saturating_sub(begun));
            if left.is_zero() {
                return Err(StepError::Needs {
                    service: request.service.clone(),
                    deadline: request.deadline,
                    reason: seen(need, finding),
                    remedy: finding.remedy.clone().unwrap_or_else(|| format!("see what is wrong: `kaleem health`, {need}")),
                });
            }
            (self.observer)(Notice::WaitingForNeed {
                step: request.step,
                service: request.service.clone(),
                reason: seen(need, finding),
                left,
            });
            self.clock.sleep(INTERVAL.min(left)).await;
        }
    }
}

/// Whether the gate stays shut because of it.
fn holds_up(need: &Need, finding: &Finding) -> bool {
    match finding.verdict {
        Verdict::Ok | Verdict::Warn => false,
        Verdict::Unknown => need.must_answer,
        Verdict::Fail => true,
    }
}

fn seen(need: &Need, finding: &Finding) -> String {
    match finding.verdict {
        Verdict::Ok => format!("{need} is well: {}", finding.reason),
        Verdict::Warn => format!("{need} works, with a warning: {}", finding.reason),
        Verdict::Unknown => format!("{need} could not be asked: {}", finding.reason),
        Verdict::Fail => format!("{need} is not well: {}", finding.reason),
    }
}

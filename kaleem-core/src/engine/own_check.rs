//! The container's own health check, run as soon as the container may be ready: the engine itself runs it once in an interval, which is
//! 30 s by default.

use std::time::Duration;

use crate::engine::Engine;
use crate::engine::gate::GateRequest;
use crate::health::{Finding, Question, Verdict};
use crate::runtime::{Instance, InstanceHealth, InstanceStatus};

/// Time between two runs: a check may start a whole interpreter.
const PAUSE: Duration = Duration::from_millis(500);

/// Runs the check of one container for one gate, one run at a time.
pub(super) struct OwnCheck {
    /// A run did not end in time, or the check cannot be run: what the engine says is waited for.
    given_up: bool,
    ran: bool,
}

impl OwnCheck {
    pub(super) fn new() -> Self {
        Self { given_up: false, ran: false }
    }

    /// What the gate is to believe: `finding`, unless the engine has not decided yet and the check passes now. A check that fails says
    /// nothing, since only the engine counts retries and knows the time to start.
    pub(super) async fn sooner(
        &mut self,
        engine: &Engine,
        request: &GateRequest<'_>,
        instance: &Instance,
        finding: Finding,
        timeout: Duration,
    ) -> Finding {
        let undecided = instance.state.status == InstanceStatus::Running && instance.state.health == InstanceHealth::Starting;
        if self.given_up || !undecided || request.gate.question != Question::Healthcheck {
            return finding;
        }
        match engine.runtime.check(request.container, timeout).await {
            Ok(Some(ran)) if ran.exit_code == 0 => Finding::new(Verdict::Ok, "its health check passes".to_owned()),
            Ok(Some(_)) => {
                self.ran = true;
                finding
            }
            // One that hangs may go on inside: it is not started a second time.
            Ok(None) | Err(_) => {
                self.given_up = true;
                finding
            }
        }
    }

    /// The longest pause until the next question.
    pub(super) fn pause(&self, interval: Duration) -> Duration {
        if self.ran && !self.given_up { interval.max(PAUSE) } else { interval }
    }
}

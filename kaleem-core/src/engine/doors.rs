//! Asking where clients ask: what worked before a plan must work after each of its switches.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future;

use crate::engine::{Engine, StepError};
use crate::health::{Door, Verdict};
use crate::plan::{Plan, Step};

/// Time in which every door must answer as before: a proxy that was reloaded or restarted needs a moment.
const DEADLINE: Duration = Duration::from_secs(15);
/// Time one answer may take.
const ANSWER: Duration = Duration::from_secs(5);
/// Time between two questions, where something may take effect only a moment later; and after a wrong answer.
const INTERVAL: Duration = Duration::from_millis(50);

/// How doors are asked: a proxy may send only some requests to an address that is gone.
struct Pace {
    /// Right answers in a row.
    passes: u32,
    /// Time between two of them.
    interval: Duration,
}

impl Pace {
    /// A gateway that was told to send elsewhere does so from its next request on: more answers say more than time between them.
    const AT_ONCE: Self = Self { passes: 5, interval: Duration::ZERO };
    /// Who looks a name up, reads its configuration or takes a port over needs a moment until it does.
    const OVER_TIME: Self = Self { passes: 3, interval: INTERVAL };

    fn of(plan: &Plan) -> Self {
        let has_gateway = |service| plan.release.target.services.get(service).is_some_and(|wanted| wanted.gateway.is_some());
        let moves = plan.steps.iter().any(|step| match step {
            Step::Start { service, .. } | Step::Stop { service, .. } => !has_gateway(service),
            Step::Create { instance } => !has_gateway(&instance.service),
            Step::Baseline { .. }
            | Step::CreateVolume { .. }
            | Step::Pull { .. }
            | Step::Pin { .. }
            | Step::Gate { .. }
            | Step::Needs { .. }
            | Step::Steer { .. }
            | Step::Watch { .. }
            | Step::Drain { .. }
            | Step::BackUp { .. }
            | Step::VerifyBackup { .. }
            | Step::FrontDoor { .. }
            | Step::Commit { .. }
            // What comes after the commit comes after every door.
            | Step::Remove { .. }
            | Step::Unpin { .. }
            | Step::RemoveNetwork { .. }
            | Step::RemoveVolume { .. } => false,
            Step::Hook { .. }
            | Step::CreateNetwork { .. }
            | Step::RunToEnd { .. }
            | Step::RestoreData { .. }
            | Step::Hold { .. }
            | Step::StartApart { .. }
            | Step::HandOver { .. }
            | Step::Revive { .. }
            | Step::Connect { .. }
            | Step::Reload { .. }
            | Step::Upgrade { .. }
            | Step::Update { .. }
            | Step::Rename { .. } => true,
        });
        if moves { Self::OVER_TIME } else { Self::AT_ONCE }
    }
}

impl Engine {
    /// Waits until every door answers.
    pub(crate) async fn ask_doors(&self, plan: &Plan, doors: &[Door], cut_short: &(dyn Fn() -> bool + Sync)) -> Result<String, StepError> {
        let begun = self.clock.monotonic();
        let pace = Pace::of(plan);
        let mut passes: BTreeMap<&Door, u32> = doors.iter().map(|door| (door, 0)).collect();
        loop {
            if cut_short() {
                return Err(StepError::CutShort);
            }
            let open: Vec<&Door> = passes.iter().filter(|(_, count)| **count < pace.passes).map(|(door, _)| *door).collect();
            let answers = future::join_all(open.iter().map(|door| self.probes.ask_door(door, ANSWER))).await;
            let mut shut = None;
            for (door, finding) in open.into_iter().zip(answers) {
                let count = passes.entry(door).or_default();
                if finding.verdict == Verdict::Ok {
                    *count += 1;
                } else {
                    *count = 0;
                    shut = Some((door, finding.reason));
                }
            }
            if passes.values().all(|count| *count >= pace.passes) {
                let all = doors.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                return Ok(format!("{} of {} answer: {all}", doors.len(), doors.len()));
            }
            let is_shut = shut.is_some();
            if let Some((door, reason)) = shut.filter(|_| self.clock.monotonic().saturating_sub(begun) >= DEADLINE) {
                return Err(StepError::FrontDoor { door: door.to_string(), reason });
            }
            self.clock.sleep(if is_shut { INTERVAL } else { pace.interval }).await;
        }
    }
}

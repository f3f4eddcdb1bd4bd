//! Asking where clients ask: what worked before a plan must work after each of its switches.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future;

use crate::engine::{Engine, StepError};
use crate::health::{Door, Verdict};

/// Time in which every door must answer as before: a proxy that was reloaded or restarted needs a moment.
const DEADLINE: Duration = Duration::from_secs(15);
/// Time one answer may take.
const ANSWER: Duration = Duration::from_secs(5);
/// Answers in a row: a proxy may send only some requests to an address that is gone.
const PASSES: u32 = 3;
/// Time between two questions while all doors answer: what a proxy spreads over its addresses, it spreads request by request.
const NEXT: Duration = Duration::from_millis(10);
/// Time until a door that did not answer is asked again.
const AGAIN: Duration = Duration::from_millis(50);

impl Engine {
    /// Waits until every door answers.
    pub(crate) async fn ask_doors(&self, doors: &[Door], cut_short: &(dyn Fn() -> bool + Sync)) -> Result<String, StepError> {
        let begun = self.clock.monotonic();
        let mut passes: BTreeMap<&Door, u32> = doors.iter().map(|door| (door, 0)).collect();
        loop {
            if cut_short() {
                return Err(StepError::CutShort);
            }
            let open: Vec<&Door> = passes.iter().filter(|(_, count)| **count < PASSES).map(|(door, _)| *door).collect();
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
            if passes.values().all(|count| *count >= PASSES) {
                let all = doors.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                return Ok(format!("{} of {} answer: {all}", doors.len(), doors.len()));
            }
            let pause = if shut.is_some() { AGAIN } else { NEXT };
            if let Some((door, reason)) = shut.filter(|_| self.clock.monotonic().saturating_sub(begun) >= DEADLINE) {
                return Err(StepError::FrontDoor { door: door.to_string(), reason });
            }
            self.clock.sleep(pause).await;
        }
    }
}

//! Probes that believe what the engine says of a container: nothing is connected to.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use crate::health::{Door, Finding, Need, ProbeTarget, Probes, Question, Verdict};
use crate::names::ProjectName;
use crate::runtime::{InstanceHealth, InstanceStatus};

/// Answers from the state of the container alone.
#[derive(Debug, Clone, Copy)]
pub struct FakeProbes;

#[async_trait]
impl Probes for FakeProbes {
    async fn ask(&self, question: &Question, target: &ProbeTarget, _timeout: Duration) -> Finding {
        let running = target.state.status == InstanceStatus::Running;
        let verdict = match (question, target.state.health) {
            _ if !running => Verdict::Fail,
            (Question::Healthcheck, InstanceHealth::None | InstanceHealth::Starting) => Verdict::Unknown,
            (Question::Running, _) | (_, InstanceHealth::None | InstanceHealth::Healthy) => Verdict::Ok,
            (_, InstanceHealth::Starting | InstanceHealth::Unhealthy) => Verdict::Fail,
        };
        Finding::new(verdict, format!("{:?}, {:?}", target.state.status, target.state.health).to_lowercase())
    }

    async fn ask_need(&self, _project: &ProjectName, _need: &Need, _timeout: Duration) -> Finding {
        Finding::new(Verdict::Ok, "nobody was asked")
    }

    async fn ask_door(&self, door: &Door, _timeout: Duration) -> Finding {
        Finding::new(Verdict::Ok, format!("{door} answered"))
    }
}

/// The same, with answers about needs that a test gives, in order; the last one is given for ever.
pub struct FakeNeeds {
    answers: Mutex<VecDeque<Finding>>,
}

impl FakeNeeds {
    /// With these answers.
    pub fn new(answers: impl IntoIterator<Item = Finding>) -> Self {
        Self { answers: Mutex::new(answers.into_iter().collect()) }
    }
}

#[async_trait]
impl Probes for FakeNeeds {
    async fn ask(&self, question: &Question, target: &ProbeTarget, timeout: Duration) -> Finding {
        FakeProbes.ask(question, target, timeout).await
    }

    async fn ask_need(&self, _project: &ProjectName, _need: &Need, _timeout: Duration) -> Finding {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let next = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        next.unwrap_or_else(|| Finding::new(Verdict::Unknown, "no answer was given to the fake"))
    }

    async fn ask_door(&self, door: &Door, timeout: Duration) -> Finding {
        FakeProbes.ask_door(door, timeout).await
    }
}

//! Probes that believe what the engine says of a container: nothing is connected to.

use std::time::Duration;

use async_trait::async_trait;

use crate::health::{Finding, ProbeTarget, Probes, Question, Verdict};
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
            (Question::Healthcheck, InstanceHealth::None) => Verdict::Unknown,
            (Question::Running, _) | (_, InstanceHealth::None | InstanceHealth::Healthy) => Verdict::Ok,
            (_, InstanceHealth::Starting | InstanceHealth::Unhealthy) => Verdict::Fail,
        };
        Finding::new(verdict, format!("{:?}, {:?}", target.state.status, target.state.health).to_lowercase())
    }
}

//! What the engine's word for a container means.

use std::time::Duration;

use kaleem_core::health::{Probes, Question, Verdict};
use kaleem_core::runtime::{InstanceHealth, InstanceState, InstanceStatus};

use crate::support::{Exec, http, probes, running, target};

#[tokio::test]
async fn a_container_that_runs_counts_as_running_and_old_restarts_are_a_warning() {
    let state = running();
    for (why, state, verdict, reason) in [
        ("runs", state.clone(), Verdict::Ok, "is running"),
        ("was restarted", InstanceState { restart_count: 3, ..state.clone() }, Verdict::Warn, "was restarted 3 times since it was made"),
        (
            "was killed for memory",
            InstanceState { restart_count: 1, oom_killed: true, ..state.clone() },
            Verdict::Warn,
            "was restarted 1 times since it was made",
        ),
        (
            "ended",
            InstanceState { status: InstanceStatus::Exited, exit_code: Some(137), ..state.clone() },
            Verdict::Fail,
            "ended with exit code 137",
        ),
        (
            "crashes",
            InstanceState { status: InstanceStatus::Restarting, restart_count: 5, ..state.clone() },
            Verdict::Fail,
            "5 times so far",
        ),
        ("paused", InstanceState { status: InstanceStatus::Paused, ..state.clone() }, Verdict::Fail, "is paused"),
        ("never started", InstanceState { status: InstanceStatus::Created, ..state.clone() }, Verdict::Fail, "never started"),
        ("half removed", InstanceState { status: InstanceStatus::Dead, ..state.clone() }, Verdict::Fail, "failed to remove"),
        ("going", InstanceState { status: InstanceStatus::Removing, ..state.clone() }, Verdict::Fail, "being removed"),
    ] {
        let mut target = target(&[]);
        target.state = state;
        let finding = probes(Exec::Ends(0)).ask(&Question::Running, &target, Duration::from_secs(1)).await;
        assert_eq!(finding.verdict, verdict, "{why}: {}", finding.reason);
        assert!(finding.reason.contains(reason), "{why}: {}", finding.reason);
        assert_eq!(finding.remedy.is_some(), verdict != Verdict::Ok, "{why}");
    }
}

#[tokio::test]
async fn a_health_check_that_is_missing_or_undecided_is_unknown() {
    for (why, health, verdict) in [
        ("passes", InstanceHealth::Healthy, Verdict::Ok),
        ("fails", InstanceHealth::Unhealthy, Verdict::Fail),
        ("undecided", InstanceHealth::Starting, Verdict::Unknown),
        ("missing", InstanceHealth::None, Verdict::Unknown),
    ] {
        let mut target = target(&[]);
        target.state.health = health;
        let finding = probes(Exec::Ends(0)).ask(&Question::Healthcheck, &target, Duration::from_secs(1)).await;
        assert_eq!(finding.verdict, verdict, "{why}: {}", finding.reason);
    }
}

#[tokio::test]
async fn a_container_that_ended_fails_every_question_over_the_network_at_once() {
    let mut target = target(&[]);
    target.state.status = InstanceStatus::Exited;
    target.state.exit_code = Some(1);
    for question in [http(3000), Question::Tcp { port: 3000 }, Question::Healthcheck] {
        let finding = probes(Exec::Ends(0)).ask(&question, &target, Duration::from_secs(60)).await;
        assert_eq!(finding.verdict, Verdict::Fail, "{question}");
        assert_eq!(finding.reason, "the container `shop-api-1` ended with exit code 1", "{question}");
    }
}

//! Gateways.

use std::time::Duration;

use insta::assert_snapshot;
use kaleem_core::names::{GatewayName, PlanId};
use kaleem_core::traffic::{Generation, Refusal, TrafficError};
use rustix::io::Errno;

use super::{made, system, told};

#[test]
fn traffic() {
    let gateway = || made::<GatewayName>("shop-api-gateway");
    let refusals = [
        Refusal::Stale { offered: Generation::of_perform(PlanId(2), 3), current: Generation::of_perform(PlanId(4), 1) },
        Refusal::Conflict { generation: Generation::of_perform(PlanId(2), 3) },
        Refusal::BadRouting { reason: "no target has the weight 1".to_owned() },
        Refusal::StillRouted { instance: made("shop-api-r2-1") },
        Refusal::NotKept { reason: "No space left on device (os error 28)".to_owned() },
        Refusal::Upgrading,
        Refusal::UpgradeFailed { reason: "it ended with exit code 1".to_owned() },
        Refusal::NotUnderstood { reason: "unknown field `weight`".to_owned() },
    ];
    let refused: Vec<TrafficError> =
        refusals.into_iter().map(|source| TrafficError::Refused { gateway: gateway(), operation: "steer", source }).collect();
    let mut errors: Vec<&(dyn kaleem_core::Remedy + 'static)> = Vec::new();
    let others = [
        TrafficError::Unreachable { gateway: gateway(), source: system(Errno::NOENT) },
        TrafficError::Broken { gateway: gateway(), operation: "steer", source: system(Errno::PIPE) },
        TrafficError::TimedOut { gateway: gateway(), operation: "drain", limit: Duration::from_secs(30) },
        TrafficError::Garbled { gateway: gateway(), reason: "the answer is empty".to_owned() },
        TrafficError::NotBrought { gateway: gateway(), binary: "/usr/bin/kaleem-agent".to_owned(), source: system(Errno::NOSPC) },
    ];
    errors.extend(others.iter().chain(&refused).map(|error| error as &(dyn kaleem_core::Remedy + 'static)));
    assert_snapshot!(told(&errors));
}

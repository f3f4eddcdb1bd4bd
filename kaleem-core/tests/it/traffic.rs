//! The gateway in memory keeps the contract of the seam, and fails when it is told to.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use kaleem_core::names::{ContainerName, GatewayName, ReleaseId};
use kaleem_core::remedy::Remedy;
use kaleem_core::testing::traffic_contract::{self, TrafficBench};
use kaleem_core::testing::traffic_fake::{FakeAnswer, FakeTraffic, TrafficCall, TrafficFault};
use kaleem_core::traffic::{DrainPolicy, Refusal, Target, Traffic, TrafficError};

fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

struct InMemory(FakeTraffic);

#[async_trait(?Send)]
impl TrafficBench for InMemory {
    fn traffic(&self) -> &dyn Traffic {
        &self.0
    }
    fn gateway(&self) -> GatewayName {
        name("shop-api")
    }
    fn absent(&self) -> GatewayName {
        name("never-started")
    }
    async fn instance(&self, number: u64) -> Target {
        let instance: ContainerName = name(&format!("api-{number}"));
        self.0.set_alive(&instance, true);
        Target { host: name(instance.as_str()), instance, release: ReleaseId::new(number), ports: BTreeMap::new(), weight: 1 }
    }
    async fn dead(&self) -> Target {
        Target { instance: name("dead"), release: ReleaseId::new(9), host: name("dead"), ports: BTreeMap::new(), weight: 1 }
    }
    fn port(&self) -> u16 {
        3000
    }
    async fn ask(&self) -> Option<ContainerName> {
        match self.0.request(&self.gateway()) {
            FakeAnswer::From(instance) => Some(instance),
            FakeAnswer::Held => None,
        }
    }
    async fn begin(&self) -> ContainerName {
        match self.0.begin(&self.gateway()) {
            FakeAnswer::From(instance) => instance,
            FakeAnswer::Held => panic!("held"),
        }
    }
    async fn finish(&self, instance: &ContainerName) {
        self.0.finish(&self.gateway(), instance);
    }
    fn binary(&self) -> PathBuf {
        PathBuf::from("/proc/self/exe")
    }
}

#[tokio::test]
async fn the_gateway_in_memory_keeps_the_contract() {
    let fake = FakeTraffic::new();
    fake.start(&name("shop-api"));
    traffic_contract::keeps_the_contract(&InMemory(fake)).await;
}

#[tokio::test]
async fn the_gateway_in_memory_fails_as_it_is_told_and_remembers_what_was_asked() {
    let fake = FakeTraffic::new();
    let gateway: GatewayName = name("shop-api");
    fake.start(&gateway);
    fake.fail_next(TrafficFault::Unreachable);
    fake.fail_next(TrafficFault::Refuses(Refusal::Upgrading));
    fake.fail_next(TrafficFault::LostAnswer);
    let first = fake.stats(&gateway).await.unwrap_err();
    assert!(matches!(first, TrafficError::Unreachable { .. }) && first.is_transient());
    let second = fake.stats(&gateway).await.unwrap_err();
    assert!(matches!(second, TrafficError::Refused { source: Refusal::Upgrading, .. }) && second.is_transient());
    let policy = DrainPolicy { requests: Duration::ZERO, streams: Duration::ZERO };
    assert!(matches!(fake.drain(&gateway, &name("api-1"), &policy).await, Err(TrafficError::Broken { .. })));
    let drained = TrafficCall::Drain(gateway.clone(), name("api-1"));
    assert_eq!(fake.calls(), [TrafficCall::Stats(gateway.clone()), TrafficCall::Stats(gateway), drained]);
}

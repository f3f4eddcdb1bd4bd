//! A real gateway keeps the contract of the seam, over its socket.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use kaleem_core::names::{ContainerName, GatewayName, ReleaseId};
use kaleem_core::testing::free_port;
use kaleem_core::testing::traffic_contract::{self, TrafficBench};
use kaleem_core::traffic::{Target, Traffic};
use tokio::sync::Mutex;

use super::client::Raw;
use super::instance::Instance;
use super::world::{Gateway, PATIENCE, Plan, binary, instance_name, until};

struct Real {
    gateway: Gateway,
    instances: Mutex<BTreeMap<u64, Instance>>,
    open: Mutex<Vec<(ContainerName, Raw)>>,
    nobody: u16,
}

#[async_trait(?Send)]
impl TrafficBench for Real {
    fn traffic(&self) -> &dyn Traffic {
        self.gateway.traffic.as_ref()
    }
    fn gateway(&self) -> GatewayName {
        self.gateway.name.clone()
    }
    fn absent(&self) -> GatewayName {
        "never-started".parse().unwrap()
    }
    async fn instance(&self, number: u64) -> Target {
        let mut instances = self.instances.lock().await;
        if let std::collections::btree_map::Entry::Vacant(place) = instances.entry(number) {
            place.insert(Instance::start(&format!("api-{number}"), number).await);
        }
        self.gateway.target(&instances[&number], 1)
    }
    async fn dead(&self) -> Target {
        let ports = self.gateway.ports.iter().map(|port| (*port, self.nobody)).collect();
        Target { instance: instance_name("dead"), release: ReleaseId::new(9), host: "127.0.0.1".parse().unwrap(), ports, weight: 1 }
    }
    fn port(&self) -> u16 {
        self.gateway.ports[0]
    }
    async fn ask(&self) -> Option<ContainerName> {
        let waiting = self.gateway.stats().await.hold.held;
        let mut client = Raw::connect(self.gateway.address()).await;
        client.send("GET / HTTP/1.1\r\nHost: api\r\n\r\n").await;
        let outcome = tokio::select! {
            answer = client.answer() => Some(instance_name(answer.text())),
            () = until("it is held", async || self.gateway.stats().await.hold.held > waiting) => None,
        };
        if outcome.is_none() {
            // Gone before the next steer lets it through, or it would be counted there.
            drop(client);
            until("it has left the queue", async || self.gateway.stats().await.hold.waiting == 0).await;
        }
        outcome
    }
    async fn begin(&self) -> ContainerName {
        let mut client = Raw::connect(self.gateway.address()).await;
        client.send("GET /wait HTTP/1.1\r\nHost: api\r\n\r\n").await;
        let mut found = None;
        until("it runs", async || {
            found = self.instances.lock().await.values().find(|instance| instance.waiting() > 0).map(|instance| instance.name.clone());
            found.is_some()
        })
        .await;
        let instance = found.unwrap();
        self.open.lock().await.push((instance.clone(), client));
        instance
    }
    async fn finish(&self, instance: &ContainerName) {
        let mut open = self.open.lock().await;
        let place = open.iter().position(|(runs_at, _)| runs_at == instance).unwrap();
        let (_, mut client) = open.remove(place);
        self.instances.lock().await.values().find(|found| found.name == *instance).unwrap().state.go.notify_one();
        assert_eq!(client.answer().await.text(), instance.as_str());
    }
    fn binary(&self) -> PathBuf {
        binary()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_gateway_keeps_the_contract() {
    let bench = Real { gateway: Plan::http().start().await, instances: Mutex::default(), open: Mutex::default(), nobody: free_port() };
    let whole: Duration = PATIENCE * 3;
    tokio::time::timeout(whole, traffic_contract::keeps_the_contract(&bench)).await.unwrap();
}

#[test]
fn the_tests_that_the_document_names_exist() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let document = std::fs::read_to_string(root.join("docs/zero-downtime.md")).unwrap();
    let mut tests = String::new();
    let mut directories: Vec<_> = ["kaleem-agent/tests/it", "kaleem-core/tests/it"].map(|directory| root.join(directory)).into();
    while let Some(directory) = directories.pop() {
        for file in std::fs::read_dir(directory).unwrap() {
            let path = file.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                tests.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    let named: Vec<&str> = document.split('`').skip(1).step_by(2).filter(|name| name.matches('_').count() > 2).collect();
    assert!(named.len() > 30, "{named:?}");
    for name in named {
        assert!(tests.contains(&format!("fn {name}()")), "{name} is in the document, and is no test");
    }
}

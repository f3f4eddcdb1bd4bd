//! Steps, gates and watches.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use insta::assert_snapshot;
use kaleem_core::backup::SetsError;
use kaleem_core::config::HookMoment;
use kaleem_core::definition::DefinitionId;
use kaleem_core::engine::{GateError, StepError, WatchError};
use kaleem_core::exec::ExecError;
use kaleem_core::names::{ContainerName, SetId};
use kaleem_core::runtime::RuntimeError;
use kaleem_core::state::StateError;
use kaleem_core::traffic::TrafficError;
use rustix::io::Errno;

use super::{full, made, system, told};

const LOG: &str = "; its last lines:\nconnecting to redis\nthere is no database";

fn container() -> ContainerName {
    made("shop-api-r2-1")
}

fn away() -> RuntimeError {
    RuntimeError::Unreachable { endpoint: "unix:///var/run/docker.sock".to_owned(), source: Box::new(system(Errno::CONNREFUSED)) }
}

#[test]
fn gate() {
    let log = || LOG.to_owned();
    assert_snapshot!(told(&[
        &GateError::TimedOut { deadline: Duration::from_secs(120), reason: "answered 503".to_owned(), log: log() },
        &GateError::Crashed { code: 3, log: log() },
        &GateError::OutOfMemory { log: log() },
        &GateError::Unhealthy { output: "connection refused".to_owned(), log: log() },
        &GateError::Gone,
        &GateError::Runtime { source: away() },
        &GateError::CutShort,
    ]));
}

#[test]
fn watch() {
    assert_snapshot!(told(&[
        &WatchError::Failing { failed: 12, requests: 80, percent: 15 },
        &WatchError::Slow { slowest: Duration::from_millis(2500), limit: Duration::from_secs(1) },
        &WatchError::Crashed { container: container(), code: 139, log: LOG.to_owned() },
        &WatchError::Restarted { container: container(), log: LOG.to_owned() },
        &WatchError::Removed { container: container() },
        &WatchError::Unhealthy { container: container(), reason: "GET /health answered 503, and 200 to 399 is right".to_owned() },
        &WatchError::OutOfMemory { container: container(), log: String::new() },
        &WatchError::Runtime { source: away() },
    ]));
}

#[test]
fn step() {
    let missing = StateError::DefinitionMissing { id: DefinitionId("1f3a5c7d9e0b1f3a5c7d9e0b1f3a5c7d".to_owned()) };
    let silent = TrafficError::TimedOut { gateway: made("shop-api-gateway"), operation: "steer", limit: Duration::from_secs(10) };
    let log = || LOG.to_owned();
    let set = || made::<SetId>("20260301t031200z-7-1a2b3c4d");
    let sets = SetsError {
        doing: "make",
        set: set(),
        remedy: "start the database, then deploy again".to_owned(),
        transient: false,
        source: Box::new(system(Errno::CONNREFUSED)),
    };
    assert_snapshot!(told(&[
        &StepError::Runtime { what: "start shop-api-r2-1".to_owned(), source: RuntimeError::PortTaken { port: "0.0.0.0:80".to_owned() } },
        &StepError::Definition { container: container(), source: missing },
        &StepError::Gate { container: container(), source: GateError::Gone },
        &StepError::RanAndFailed { container: container(), code: 4, log: log() },
        &StepError::RanTooLong { container: container(), deadline: Duration::from_secs(600), log: log() },
        &StepError::HookFailed { moment: HookMoment::BeforeDeploy, status: ExitStatus::from_raw(3 << 8), log: log() },
        &StepError::HookNotRun { moment: HookMoment::AfterDeploy, source: ExecError::NotFound { program: "./test.sh".into() } },
        &StepError::Traffic { what: "steer shop-api-gateway".to_owned(), source: silent },
        &StepError::NoGateways { gateway: made("shop-api-gateway") },
        &StepError::GatewayDirectory { gateway: made("shop-api-gateway"), source: full("/var/lib/kaleem/.gateways/shop-api-gateway") },
        &StepError::Needs {
            service: made("api"),
            deadline: Duration::from_secs(60),
            reason: "redis: it is loading its data".to_owned(),
            remedy: "wait until it has read its file, or look at `docker logs`".to_owned(),
        },
        &StepError::Backup { what: "make the backup set 20260301t031200z-7-1a2b3c4d".to_owned(), source: sets },
        &StepError::NoBackups { set: set() },
        &StepError::FrontDoor {
            door: "http://127.0.0.1:8088/api/".to_owned(),
            reason: "http://127.0.0.1:8088/api/ answered 502, expected 100 to 499".to_owned(),
        },
        &StepError::AddressMoved {
            container: made("edge-nginx-1"),
            of: made("api"),
            kept: "172.18.0.3".to_owned(),
            now: "172.18.0.7".to_owned(),
        },
        &StepError::NotReloadable {
            container: made("shop-web-r1-1"),
            test: "nginx -t -c /etc/shop.conf".to_owned(),
            output: "[emerg] host not found in upstream \"api\"".to_owned(),
        },
        &StepError::Watch { service: made("api"), source: WatchError::Failing { failed: 12, requests: 80, percent: 15 } },
        &StepError::Gone { container: container() },
        &StepError::CutShort,
    ]));
}

//! Files: the state directory, journals, the lease, child processes.

use std::path::PathBuf;
use std::time::Duration;

use insta::assert_snapshot;
use kaleem_core::definition::DefinitionId;
use kaleem_core::durable::{DurableError, FileOperation};
use kaleem_core::exec::{ExecError, PipedError};
use kaleem_core::history::HistoryError;
use kaleem_core::journal::{IllegalEvent, JournalError, StepStatus};
use kaleem_core::lease::LeaseError;
use kaleem_core::repair::RepairError;
use kaleem_core::runtime::RuntimeError;
use kaleem_core::state::StateError;
use kaleem_core::traffic::TrafficError;
use rustix::io::Errno;

use super::{failed, full, made, system, told};

const JOURNAL: &str = "/var/lib/kaleem/shop/plans/00000007.jsonl";

fn no_json() -> serde_json::Error {
    serde_json::from_str::<u8>("{").unwrap_err()
}

#[test]
fn durable() {
    let path = || PathBuf::from("/var/lib/kaleem/shop/key");
    let with = |errno| failed(FileOperation::Write, "/var/lib/kaleem/shop/key", errno);
    assert_snapshot!(told(&[
        &DurableError::Missing { path: path() },
        &DurableError::Exists { path: path() },
        &DurableError::NotAFile { path: path(), found: "a symbolic link" },
        &DurableError::LineBreak { path: path() },
        &DurableError::Poisoned { path: path() },
        &with(Errno::NOSPC),
        &with(Errno::DQUOT),
        &with(Errno::ROFS),
        &with(Errno::ACCESS),
        &with(Errno::IO),
        &DurableError::Failed { operation: FileOperation::CreateDirectory, path: path(), source: system(Errno::NOTDIR) },
    ]));
}

#[test]
fn exec() {
    let program = || PathBuf::from("docker");
    assert_snapshot!(told(&[
        &ExecError::NotFound { program: program() },
        &ExecError::Directory { program: program(), directory: "/srv/shop".into(), source: system(Errno::ACCESS) },
        &ExecError::Start { program: program(), source: system(Errno::ACCESS) },
        &ExecError::Broken { program: program(), source: system(Errno::PIPE) },
        &ExecError::TimedOut { program: program(), timeout: Duration::from_secs(90) },
        &PipedError::Exec(ExecError::NotFound { program: program() }),
        &PipedError::Input { program: "docker".to_owned(), source: system(Errno::IO) },
        &PipedError::Output { program: "docker".to_owned(), source: system(Errno::PIPE) },
    ]));
}

#[test]
fn journal() {
    let path = || PathBuf::from(JOURNAL);
    assert_snapshot!(told(&[
        &JournalError::File { source: full(JOURNAL) },
        &JournalError::Damaged { path: path(), line: 4, reason: "its checksum is wrong".to_owned() },
        &JournalError::Newer { path: path(), found: 9, known: 1 },
        &JournalError::Illegal { path: path(), line: 5, source: IllegalEvent::NoSuchStep { step: 12 } },
        &JournalError::Encode { source: no_json() },
        &IllegalEvent::PlanMisplaced,
        &IllegalEvent::NoSuchStep { step: 12 },
        &IllegalEvent::OutOfTurn { step: 3, event: "done", status: StepStatus::Pending },
        &IllegalEvent::AfterTheEnd,
        &IllegalEvent::NotStuck,
        &IllegalEvent::WrongOutcome,
    ]));
}

#[test]
fn history() {
    let state = StateError::File {
        directory: "/var/lib/kaleem/shop".into(),
        source: failed(FileOperation::List, "/var/lib/kaleem/shop/plans", Errno::ACCESS),
    };
    assert_snapshot!(told(&[
        &HistoryError::State { source: state },
        &HistoryError::Journal { source: JournalError::Newer { path: JOURNAL.into(), found: 9, known: 1 } },
        &HistoryError::Prune { source: failed(FileOperation::Remove, JOURNAL, Errno::ROFS) },
    ]));
}

#[test]
fn lease() {
    assert_snapshot!(told(&[
        &LeaseError::Busy {
            owner: "deploy by ada".to_owned(),
            pid: 4711,
            host: "web1".to_owned(),
            since: "2026-03-01 03:12:00 UTC".to_owned(),
        },
        &LeaseError::Hidden {
            owner: "deploy by ci".to_owned(),
            pid: 17,
            host: "5c1fd2b3a4e5".to_owned(),
            since: "2026-03-01 03:12:00 UTC".to_owned(),
        },
        &LeaseError::Engine {
            source: RuntimeError::MarkUnreadable { name: "kaleem.owner.shop.7".to_owned(), reason: "its format is 9".to_owned() }
        },
        &LeaseError::File { source: full("/var/lib/kaleem/shop/lease") },
        &LeaseError::Lock { path: "/var/lib/kaleem/shop/lock".into(), source: system(Errno::NOLCK) },
    ]));
}

#[test]
fn state() {
    let path = || PathBuf::from("/var/lib/kaleem/shop/key");
    assert_snapshot!(told(&[
        &StateError::File { directory: "/var/lib/kaleem/shop".into(), source: full("/var/lib/kaleem/shop/definitions/1f3a.json") },
        &StateError::KeyDamaged { path: path() },
        &StateError::IdentityDamaged { path: "/var/lib/kaleem/shop/identity".into() },
        &StateError::NoRandomness { source: getrandom::Error::UNSUPPORTED },
        &StateError::DefinitionMissing { id: DefinitionId("1f3a5c7d9e0b1f3a5c7d9e0b1f3a5c7d".to_owned()) },
        &StateError::DefinitionDamaged { path: "/var/lib/kaleem/shop/definitions/1f3a.json".into() },
        &StateError::Encode { source: no_json() },
    ]));
}

#[test]
fn repair() {
    let runtime = RuntimeError::PermissionDenied { endpoint: "unix:///var/run/docker.sock".to_owned() };
    let silent = TrafficError::Unreachable { gateway: made("shop-api-gateway"), source: system(Errno::NOENT) };
    assert_snapshot!(told(&[
        &RepairError::File { source: failed(FileOperation::Move, JOURNAL, Errno::ROFS) },
        &RepairError::State { source: StateError::KeyDamaged { path: "/var/lib/kaleem/shop/key".into() } },
        &RepairError::History { source: HistoryError::Prune { source: failed(FileOperation::Remove, JOURNAL, Errno::ROFS) } },
        &RepairError::Runtime { what: "start shop-api-r2-1".to_owned(), source: runtime },
        &RepairError::Traffic { what: "tell shop-api-gateway to send to shop-api-r2-1".to_owned(), source: silent },
        &RepairError::Elsewhere { what: "restart it: docker restart shop-api-gateway".to_owned() },
    ]));
}

//! What a program that embeds is told: by the front door, and while the host is observed.

use insta::assert_snapshot;
use kaleem_core::durable::FileOperation;
use kaleem_core::history::HistoryError;
use kaleem_core::image::ImageRef;
use kaleem_core::journal::JournalError;
use kaleem_core::kaleem::KaleemError;
use kaleem_core::lease::LeaseError;
use kaleem_core::names::{PlanId, ReleaseId, ServiceName, SetId};
use kaleem_core::observed::ObserveError;
use kaleem_core::observed::owner::{Foreign, ForeignKind, ProjectFiles};
use kaleem_core::plan::{Objection, Severity};
use kaleem_core::registry::RegistryError;
use kaleem_core::runtime::RuntimeError;
use kaleem_core::state::StateError;
use rustix::io::Errno;

use super::{failed, full, made, system, told};

fn denied() -> RuntimeError {
    RuntimeError::PermissionDenied { endpoint: "unix:///var/run/docker.sock".to_owned() }
}

#[test]
fn names() {
    let name = "A/b".parse::<ServiceName>().unwrap_err();
    assert_snapshot!(told(&[&name]));
}

#[test]
fn observe() {
    let image = || made::<ImageRef>("shop/api:v2");
    assert_snapshot!(told(&[
        &ObserveError::Engine { source: denied() },
        &ObserveError::Image { service: made("api"), source: RegistryError::NotFound { image: image() } },
        &ObserveError::NotBuilt { service: made("api"), image: image(), build: true },
        &ObserveError::NotBuilt { service: made("api"), image: image(), build: false },
        &ObserveError::NoImage { service: made("api"), source: "Shop-api".parse::<ImageRef>().unwrap_err() },
        &ObserveError::NoService { service: made("web"), known: "api, worker".to_owned() },
    ]));
}

#[tokio::test]
async fn kaleem() {
    let objection = |message: &str, remedy: &str| Objection {
        rule: "external-network".to_owned(),
        severity: Severity::Refuse,
        service: None,
        message: message.to_owned(),
        remedy: remedy.to_owned(),
    };
    let release: ReleaseId = made("r4");
    let ended = tokio::spawn(std::future::pending::<()>());
    ended.abort();
    let ended = ended.await.unwrap_err();
    let numbered = format!("task {} ", ended.id());
    let state = StateError::File { directory: "/var/lib/kaleem/shop".into(), source: full("/var/lib/kaleem/shop/key") };
    let lock = LeaseError::Lock { path: "/var/lib/kaleem/shop/lock".into(), source: system(Errno::ROFS) };
    let told = told(&[
        &KaleemError::Observe { source: ObserveError::Engine { source: denied() } },
        &KaleemError::Runtime { source: denied() },
        &KaleemError::State { source: state },
        &KaleemError::History {
            source: HistoryError::Prune { source: failed(FileOperation::Remove, "/var/lib/kaleem/shop/plans/00000001.jsonl", Errno::ROFS) },
        },
        &KaleemError::Lease { source: lock },
        &KaleemError::Journal { source: JournalError::File { source: full("/var/lib/kaleem/shop/plans/00000007.jsonl") } },
        &KaleemError::Refused {
            objections: vec![objection("the external network `edge` does not exist", "create it (`docker network create edge`)")],
        },
        &KaleemError::Refused { objections: Vec::new() },
        &KaleemError::Interrupted { plan: PlanId(7), release },
        &KaleemError::NothingOpen,
        &KaleemError::NotStuck,
        &KaleemError::NoSuchRelease { wanted: Some(release), known: vec!["r1".to_owned(), "r3".to_owned()] },
        &KaleemError::NoSuchRelease { wanted: None, known: Vec::new() },
        &KaleemError::GatewaysMissing { service: made("api") },
        &KaleemError::NoGateway { service: made("api") },
        &KaleemError::Owned { foreign: Box::new(foreign(ForeignKind::State)) },
        &KaleemError::Owned { foreign: Box::new(foreign(ForeignKind::Copy)) },
        &KaleemError::Owned { foreign: Box::new(foreign(ForeignKind::Directory)) },
        &KaleemError::NothingReleased,
        &KaleemError::BackupsMissing,
        &KaleemError::NoDataOf { release },
        &KaleemError::SetName { source: "A set".parse::<SetId>().unwrap_err() },
        &KaleemError::GatewayProgram { source: failed(FileOperation::Read, "/usr/bin/kaleem-agent", Errno::ACCESS) },
        &KaleemError::Request { source: full("/var/lib/kaleem/shop/plans/00000007.abort") },
        &KaleemError::Crashed { source: ended },
    ]);
    // How many tasks the other tests started before this one is not part of the text.
    assert_snapshot!(told.replace(&numbered, "task 1 "));
}

fn foreign(kind: ForeignKind) -> Foreign {
    let files =
        |directory: &str, file: &str| ProjectFiles { directory: directory.into(), files: vec![format!("{directory}/{file}").into()] };
    let here = files("/home/kit/shop", "compose.yaml");
    Foreign {
        kind,
        project: made("shop"),
        state_directory: Some("/var/lib/kaleem/shop".into()),
        other_host: None,
        user: Some("root".to_owned()),
        files: Some(files("/srv/shop", "compose.yaml")),
        here: Some(here),
        running: Some(ReleaseId::new(7)),
    }
}

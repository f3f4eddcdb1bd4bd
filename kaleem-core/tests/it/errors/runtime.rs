//! The engine of the host.

use std::time::Duration;

use insta::assert_snapshot;
use kaleem_core::runtime::RuntimeError;
use rustix::io::Errno;

use super::{made, system, told};

#[test]
fn runtime() {
    let socket = || "unix:///var/run/docker.sock".to_owned();
    let image = || "registry.example.com/shop/api:v2".to_owned();
    let boxed = |errno| Box::new(system(errno));
    assert_snapshot!(told(&[
        &RuntimeError::Unreachable { endpoint: socket(), source: boxed(Errno::NOENT) },
        &RuntimeError::PermissionDenied { endpoint: socket() },
        &RuntimeError::TooOld { found: "1.40".to_owned(), needed: "1.41" },
        &RuntimeError::BadEndpoint { endpoint: "ssh://me@host".to_owned(), reason: "kaleem runs where the engine runs".to_owned() },
        &RuntimeError::BadContext { context: "far".to_owned(), reason: "there is no such context".to_owned() },
        &RuntimeError::NotFound { name: "shop-api-r2-1".to_owned() },
        &RuntimeError::NameTaken { name: made("shop-api-r2-1"), owner: "a container of the project `other`".to_owned() },
        &RuntimeError::NotOurs { name: "shop-api-r2-1".to_owned(), project: made("shop") },
        &RuntimeError::StillRunning { name: made("shop-api-r2-1") },
        &RuntimeError::InUse { name: "shop_default".to_owned() },
        &RuntimeError::PortTaken { port: "0.0.0.0:80".to_owned() },
        &RuntimeError::ImageMissing { image: "shop/api:v2".to_owned() },
        &RuntimeError::ImageNotFound { image: image() },
        &RuntimeError::PullDenied { image: image() },
        &RuntimeError::PullDenied { image: "shop/api:v2".to_owned() },
        &RuntimeError::PullFailed { image: image(), reason: "unexpected EOF".to_owned() },
        &RuntimeError::ExecTimedOut { name: made("shop-api-r2-1"), timeout: Duration::from_secs(3) },
        &RuntimeError::StreamBroken { name: made("shop-api-r2-1"), side: "input", source: system(Errno::PIPE) },
        &RuntimeError::FileRefused { name: made("shop-api-r2-1"), path: "/run/secrets/key".to_owned(), source: boxed(Errno::ROFS) },
        &RuntimeError::ProgramUnreadable { path: "/usr/bin/kaleem-agent".into(), source: system(Errno::ACCESS) },
        &RuntimeError::Refused { operation: "start shop-api-r2-1".to_owned(), status: 500, message: "no space left on device".to_owned() },
        &RuntimeError::Refused { operation: "create shop-api-r2-1".to_owned(), status: 400, message: "invalid mount".to_owned() },
        &RuntimeError::MarkUnreadable {
            name: "kaleem.owner.shop.7".to_owned(),
            reason: "its format is 9, and this kaleem reads up to 1".to_owned(),
        },
        &RuntimeError::Broken { operation: "start shop-api-r2-1".to_owned(), source: boxed(Errno::CONNRESET) },
    ]));
}

//! Does it accept a TCP connection?

use std::time::Duration;

use kaleem_core::health::{Finding, ProbeTarget, Verdict};
use tokio::io::AsyncReadExt;

use crate::address::{Reached, Route, connect};

/// An engine's forwarder accepts first and closes when nothing listens inside; it takes no longer than this.
const FORWARDER_CLOSES_WITHIN: Duration = Duration::from_millis(100);

/// Connects, and closes again.
pub(crate) async fn ask(port: u16, target: &ProbeTarget, timeout: Duration) -> Finding {
    match tokio::time::timeout(timeout, attempt(port, target, timeout)).await {
        Ok(finding) => finding,
        Err(_) => {
            Finding::new(Verdict::Fail, format!("port {port} of `{}` did not accept a connection within {timeout:?}", target.container))
                .with_remedy(format!("check that `{}` is not overloaded: `docker logs {}`", target.service, target.container))
        }
    }
}

async fn attempt(port: u16, target: &ProbeTarget, timeout: Duration) -> Finding {
    #[cfg(feature = "container")]
    if let Some(finding) = crate::container::not_running(target) {
        return finding;
    }
    let Reached { mut stream, place, route, took } = match connect(target, port, timeout).await {
        Ok(reached) => reached,
        Err(finding) => return finding,
    };
    if route == Route::Published {
        let mut byte = [0_u8; 1];
        // Only a prompt end of the connection is news; a server that greets or stays silent is there.
        if let Ok(Ok(0) | Err(_)) = tokio::time::timeout(FORWARDER_CLOSES_WITHIN, stream.read(&mut byte)).await {
            return Finding::new(
                Verdict::Fail,
                format!("{place} leads to port {port} of `{}`, and nothing listens there yet", target.container),
            )
            .with_remedy(format!("check that `{}` listens on port {port}: `docker logs {}`", target.service, target.container));
        }
    }
    Finding::new(Verdict::Ok, format!("{place} accepts connections")).with_phase("connect", took).with_phase("total", took)
}

//! What the gateway says of itself: one line on standard error, which is what `docker logs` shows.

use std::io::Write;

/// Says one line. A closed standard error is no reason to stop serving.
pub(crate) fn say(text: &str) {
    let line = format!("kaleem-gateway[{}]: {text}\n", std::process::id());
    std::io::stderr().write_all(line.as_bytes()).ok();
}

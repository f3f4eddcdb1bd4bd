//! What `/telemetry` says: the version, the memory, and how many requests ended with an error of the server.

use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use crate::report::{Report, word};

/// Errors of the server that were counted at the last look.
#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<Option<f64>>);

/// Judges an answer; gives the version.
pub(super) fn judge(report: &mut Report, seen: &Seen, told: &Value) -> Option<String> {
    let at = |path: &str| told.pointer(path);
    if let Some(resident) = at("/memory/resident_bytes").and_then(Value::as_f64) {
        report.measure("resident", resident, "B");
    }
    let failed = at("/requests/rest/responses").map_or(0.0, failures);
    report.measure("server_errors", failed, "");
    let before = seen.0.lock().unwrap_or_else(PoisonError::into_inner).replace(failed);
    // It counts from its start, so less than before is a new beginning.
    let since = before.map_or(0.0, |before| if failed < before { failed } else { failed - before });
    if since > 0.0 {
        report.warn(
            format!(
                "{since:.0} {} ended with an error of the server since the last look",
                if since > 1.0 { "requests" } else { "request" }
            ),
            "see its log, and which: `requests` of `curl …/telemetry`",
        );
    }
    at("/app/version").and_then(Value::as_str).map(|version| word(version).to_owned())
}

/// Answers of REST with a status of 5xx: for each endpoint, Qdrant counts them by status.
fn failures(endpoints: &Value) -> f64 {
    let of_server = |status: &str| status.len() == 3 && status.starts_with('5');
    let statuses = endpoints.as_object().into_iter().flat_map(serde_json::Map::values).filter_map(Value::as_object).flatten();
    statuses.filter(|(status, _)| of_server(status)).filter_map(|(_, told)| told.get("count")?.as_f64()).sum()
}

//! Bodies of health endpoints: NestJS Terminus (`details`) and Spring Actuator (`components`), part by part.

use serde_json::{Map, Value};

use crate::report::{Report, word};

/// Actuator nests components; deeper ones are not looked at.
const DEEPEST: u8 = 4;

/// What an application says of itself.
#[derive(Debug)]
pub(crate) struct Parts {
    overall: State,
    /// Name and state of every part, in order of names.
    parts: Vec<(String, State)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Up,
    Down,
    Leaving,
    Unknown,
}

fn state(text: &str) -> Option<State> {
    match text.to_ascii_lowercase().as_str() {
        "ok" | "up" | "healthy" | "pass" => Some(State::Up),
        "error" | "down" | "unhealthy" | "fail" => Some(State::Down),
        "shutting_down" | "out_of_service" => Some(State::Leaving),
        "unknown" => Some(State::Unknown),
        _ => None,
    }
}

/// The parts; `None` when the body is of another shape.
pub(crate) fn parts(body: &[u8]) -> Option<Parts> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let overall = state(body.get("status")?.as_str()?)?;
    let mut parts = Vec::new();
    for key in ["details", "components"] {
        if let Some(map) = body.get(key).and_then(Value::as_object) {
            collect(map, "", DEEPEST, &mut parts);
        }
    }
    // Terminus leaves `details` out in old versions.
    if parts.is_empty() {
        for key in ["info", "error"] {
            if let Some(map) = body.get(key).and_then(Value::as_object) {
                collect(map, "", DEEPEST, &mut parts);
            }
        }
    }
    Some(Parts { overall, parts })
}

fn collect(map: &Map<String, Value>, above: &str, depth: u8, into: &mut Vec<(String, State)>) {
    for (name, part) in map {
        let name = if above.is_empty() { word(name).to_owned() } else { format!("{above}/{}", word(name)) };
        if let Some(state) = part.get("status").and_then(Value::as_str).and_then(state) {
            into.push((name.clone(), state));
        }
        if let (Some(deeper), Some(depth)) = (part.get("components").and_then(Value::as_object), depth.checked_sub(1)) {
            collect(deeper, &name, depth, into);
        }
    }
}

impl Parts {
    fn of(&self, wanted: State) -> Vec<&str> {
        self.parts.iter().filter(|(_, state)| *state == wanted).map(|(name, _)| name.as_str()).collect()
    }

    pub(crate) fn is_well(&self) -> bool {
        self.overall == State::Up
    }

    pub(crate) fn names(&self) -> String {
        if self.parts.is_empty() {
            "and says that it is well".to_owned()
        } else {
            format!("and says that {} are well", self.of(State::Up).join(", "))
        }
    }

    pub(crate) fn judge(&self, report: &mut Report, place: &str, status: u16) {
        let down = self.of(State::Down);
        let look = format!(
            "look at {}; see the whole answer: `curl -s {place}`",
            if down.is_empty() { "its log".to_owned() } else { down.join(", ") }
        );
        match self.overall {
            State::Down if down.is_empty() => report.fail(format!("{place} answered {status} and says that it is down"), look),
            State::Down => report.fail(format!("{place} answered {status}: {} down", down.join(", ")), look),
            State::Leaving => {
                let remedy = "wait, or send its traffic elsewhere";
                report.fail(format!("{place} answered {status} and says that it is shutting down"), remedy);
            }
            State::Unknown => report.unknown(format!("{place} answered {status} and does not know its own state"), look),
            State::Up if !down.is_empty() => {
                report.warn(format!("{place} says that it is well although {} is down", down.join(", ")), look);
            }
            State::Up => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use kaleem_core::health::Verdict;

    use super::*;

    #[test]
    fn both_shapes_are_judged_by_their_parts() {
        for (why, body, verdict, reason) in [
            (
                "terminus",
                r#"{"status":"ok","info":{"db":{"status":"up"}},"error":{},"details":{"db":{"status":"up"}}}"#,
                Verdict::Ok,
                "well",
            ),
            (
                "terminus down",
                r#"{"status":"error","error":{"redis":{"status":"down","message":"s3cret"}},"details":{"db":{"status":"up"},"redis":{"status":"down","message":"s3cret"}}}"#,
                Verdict::Fail,
                "503: redis down",
            ),
            ("terminus of old", r#"{"status":"error","info":{},"error":{"redis":{"status":"down"}}}"#, Verdict::Fail, "redis down"),
            ("terminus leaving", r#"{"status":"shutting_down","details":{}}"#, Verdict::Fail, "shutting down"),
            (
                "actuator nested",
                r#"{"status":"DOWN","components":{"db":{"status":"DOWN","components":{"replica":{"status":"DOWN"}}}}}"#,
                Verdict::Fail,
                "db, db/replica down",
            ),
            ("actuator unknown", r#"{"status":"UNKNOWN"}"#, Verdict::Unknown, "does not know"),
            ("well with a part down", r#"{"status":"UP","components":{"mail":{"status":"DOWN"}}}"#, Verdict::Warn, "mail"),
        ] {
            let mut report = Report::default();
            parts(body.as_bytes()).unwrap().judge(&mut report, "http://api/health", 503);
            let finding = report.finish("well");
            assert_eq!((finding.verdict, finding.reason.contains(reason)), (verdict, true), "{why}: {}", finding.reason);
            assert!(!format!("{finding:?}").contains("s3cret"));
        }
        for body in ["", "[]", "{\"status\":7}", "<html>", "{\"status\":\"made up\"}"] {
            assert!(parts(body.as_bytes()).is_none(), "{body}");
        }
    }
}

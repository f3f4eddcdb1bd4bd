//! Rules about a JSON body: a path, a comparison, a value.

use std::cmp::Ordering;
use std::fmt;

use serde_json::Value;

use crate::settings::SettingsError;

/// `info.redis.status == "up"`, `queues[0].depth < 100`, or a path alone, which must be there.
#[derive(Clone, Debug)]
pub(crate) struct JsonRule {
    text: String,
    path: Vec<Segment>,
    comparison: Option<(Comparison, Value)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Key(String),
    Index(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    AtLeast,
    AtMost,
    Above,
    Below,
}

/// Longer signs first, so that `>=` is not read as `>`.
const SIGNS: [(&str, Comparison); 6] = [
    ("==", Comparison::Equal),
    ("!=", Comparison::NotEqual),
    (">=", Comparison::AtLeast),
    ("<=", Comparison::AtMost),
    (">", Comparison::Above),
    ("<", Comparison::Below),
];

impl JsonRule {
    pub(crate) fn parse(text: &str) -> Result<Self, SettingsError> {
        let bad = |reason: &str| SettingsError::Rule { text: text.to_owned(), reason: reason.to_owned() };
        let found = SIGNS.iter().filter_map(|(sign, comparison)| text.find(sign).map(|at| (at, *sign, *comparison)));
        // The first sign in the text, and of two at one place the longer.
        let first = found.min_by_key(|(at, sign, _)| (*at, std::cmp::Reverse(sign.len())));
        let (path, comparison) = match first {
            None => (text, None),
            Some((at, sign, comparison)) => {
                let value = text.get(at + sign.len()..).unwrap_or_default().trim();
                let value: Value =
                    serde_json::from_str(value).map_err(|_| bad("its right side is not a JSON value (texts stand in quotes)"))?;
                if !matches!(comparison, Comparison::Equal | Comparison::NotEqual) && !value.is_number() {
                    return Err(bad("only numbers are larger or smaller"));
                }
                (text.get(..at).unwrap_or_default(), Some((comparison, value)))
            }
        };
        let path = segments(path.trim()).ok_or_else(|| bad("its path is not of the form `a.b[0].c`"))?;
        Ok(Self { text: text.to_owned(), path, comparison })
    }

    /// Says in words what is wrong; a value of the body is never part of it.
    pub(crate) fn check(&self, body: &Value) -> Result<(), &'static str> {
        let mut value = body;
        for segment in &self.path {
            let next = match segment {
                Segment::Key(key) => value.get(key),
                Segment::Index(index) => value.get(index),
            };
            value = next.ok_or("it is not there")?;
        }
        let Some((comparison, wanted)) = &self.comparison else {
            return if value.is_null() { Err("it is null") } else { Ok(()) };
        };
        let holds = match comparison {
            Comparison::Equal => equal(value, wanted),
            Comparison::NotEqual => !equal(value, wanted),
            other => {
                let order = value
                    .as_f64()
                    .zip(wanted.as_f64())
                    .and_then(|(value, wanted)| value.partial_cmp(&wanted))
                    .ok_or("it is not a number")?;
                match other {
                    Comparison::AtLeast => order != Ordering::Less,
                    Comparison::AtMost => order != Ordering::Greater,
                    Comparison::Above => order == Ordering::Greater,
                    Comparison::Below | Comparison::Equal | Comparison::NotEqual => order == Ordering::Less,
                }
            }
        };
        if holds { Ok(()) } else { Err("it has another value") }
    }
}

/// 1 and 1.0 are one number.
fn equal(one: &Value, other: &Value) -> bool {
    one == other || one.as_f64().zip(other.as_f64()).is_some_and(|(one, other)| one == other)
}

fn segments(path: &str) -> Option<Vec<Segment>> {
    let mut found = Vec::new();
    for part in path.split('.') {
        let (key, mut rest) = part.split_once('[').map_or((part, ""), |(key, _)| (key, part.get(key.len()..).unwrap_or_default()));
        if key.is_empty() && (rest.is_empty() || !found.is_empty()) {
            return None;
        }
        if key.contains(char::is_whitespace) || key.contains(']') {
            return None;
        }
        if !key.is_empty() {
            found.push(Segment::Key(key.to_owned()));
        }
        while !rest.is_empty() {
            let (index, after) = rest.strip_prefix('[')?.split_once(']')?;
            found.push(Segment::Index(index.parse().ok()?));
            rest = after;
        }
    }
    Some(found)
}

impl fmt::Display for JsonRule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_and_checked() {
        let body = serde_json::json!({"status": "ok", "n": 3, "list": [{"x": null}, {"x": 1.0}], "a>b": true});
        for (rule, holds) in [
            ("status == \"ok\"", true),
            ("status != \"ok\"", false),
            ("n >= 3", true),
            ("n > 3", false),
            ("n < 3.5", true),
            ("n <= 2", false),
            ("list[1].x == 1", true),
            ("list[0].x", false),
            ("list[2].x", false),
            ("missing == 1", false),
            ("status > 1", false),
            ("list[1]", true),
        ] {
            assert_eq!(JsonRule::parse(rule).unwrap().check(&body).is_ok(), holds, "{rule}");
        }
        assert!(JsonRule::parse("[0].id == 7").unwrap().check(&serde_json::json!([{"id": 7}])).is_ok());
        for rule in ["", "a..b", "a[x]", "a == up", "a > \"x\"", "== 1", "a b == 1"] {
            assert!(JsonRule::parse(rule).is_err(), "{rule}");
        }
    }
}

//! The tree that a compose file is while it is resolved: values which remember where they were written.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::config::Origin;
use crate::config::compose::error::{Problem, ProblemKind};

/// A place in a file; cheap to copy about.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    pub(super) file: Arc<Path>,
    pub(super) line: usize,
    pub(super) column: usize,
}

impl Mark {
    pub(super) fn origin(&self) -> Origin {
        Origin { file: self.file.to_path_buf(), line: self.line, column: self.column }
    }
}

pub(super) type Map = BTreeMap<String, Node>;

#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Map),
}

/// How a value meets the one that it overrides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meeting {
    /// By the rules of the key.
    Merge,
    /// `!reset`: the key is as if it had never been written.
    Reset,
    /// `!override`: nothing of the old value stays.
    Override,
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) value: Value,
    /// Where the value stands.
    pub(super) mark: Mark,
    /// Where its key stands.
    pub(super) key: Option<Mark>,
    pub(super) meeting: Meeting,
}

impl Node {
    pub(super) fn new(value: Value, mark: Mark) -> Self {
        Self { value, mark, key: None, meeting: Meeting::Merge }
    }

    /// Another value at the same place.
    pub(super) fn with(&self, value: Value) -> Self {
        Self { value, mark: self.mark.clone(), key: self.key.clone(), meeting: self.meeting }
    }

    /// A value that was made up here and stands at the same place.
    pub(super) fn made(&self, value: Value) -> Self {
        Self { value, mark: self.mark.clone(), key: None, meeting: Meeting::Merge }
    }

    pub(super) fn text_here(&self, text: impl Into<String>) -> Self {
        self.made(Value::Text(text.into()))
    }

    /// The key's place, or the value's where there is no key: what a message points at.
    pub(super) fn place(&self) -> &Mark {
        self.key.as_ref().unwrap_or(&self.mark)
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    pub(super) fn map(&self) -> Option<&Map> {
        if let Value::Map(map) = &self.value { Some(map) } else { None }
    }

    pub(super) fn map_mut(&mut self) -> Option<&mut Map> {
        if let Value::Map(map) = &mut self.value { Some(map) } else { None }
    }

    pub(super) fn list(&self) -> &[Node] {
        if let Value::List(list) = &self.value { list } else { &[] }
    }

    pub(super) fn text(&self) -> Option<&str> {
        if let Value::Text(text) = &self.value { Some(text) } else { None }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.map()?.get(key).filter(|node| !node.is_null())
    }

    pub(super) fn get_text(&self, key: &str) -> Option<&str> {
        self.get(key)?.text()
    }

    pub(super) fn get_bool(&self, key: &str) -> Option<bool> {
        if let Value::Bool(value) = self.get(key)?.value { Some(value) } else { None }
    }

    pub(super) fn get_int(&self, key: &str) -> Option<i64> {
        match &self.get(key)?.value {
            Value::Int(value) => Some(*value),
            Value::Text(text) => text.parse().ok(),
            _ => None,
        }
    }

    pub(super) fn get_list(&self, key: &str) -> &[Node] {
        self.get(key).map_or(&[], Node::list)
    }

    /// The entries of a map, none where there is no map.
    pub(super) fn entries(&self, key: &str) -> impl Iterator<Item = (&String, &Node)> {
        self.get(key).and_then(Node::map).into_iter().flatten()
    }

    /// A scalar as text, as Go prints it: what Compose makes of numbers where it wants text.
    pub(super) fn scalar_text(&self) -> Option<String> {
        match &self.value {
            Value::Text(text) => Some(text.clone()),
            Value::Bool(value) => Some(value.to_string()),
            Value::Int(value) => Some(value.to_string()),
            Value::Float(value) => Some(go_float(*value)),
            Value::Null | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// What the value is, in words for a message.
    pub(super) fn described(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Int(_) | Value::Float(_) => "a number",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    pub(super) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Int(value) => (*value).into(),
            // Go prints a whole float without a fraction.
            Value::Float(value) if value.fract() == 0.0 && value.abs() < 9e15 => {
                #[expect(clippy::cast_possible_truncation, reason = "bounded by the guard")]
                let whole = *value as i64;
                whole.into()
            }
            Value::Float(value) => (*value).into(),
            Value::Text(text) => text.clone().into(),
            Value::List(list) => list.iter().map(Self::to_json).collect(),
            Value::Map(map) => serde_json::Value::Object(map.iter().map(|(key, node)| (key.clone(), node.to_json())).collect()),
        }
    }
}

/// A float as Go's `fmt.Sprint` writes it.
pub(super) fn go_float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    let power: i32 = exponent.parse().unwrap_or(0);
    if value != 0.0 && !(-4..6).contains(&power) {
        let sign = if power < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", power.abs());
    }
    format!("{value}")
}

/// More than anyone reads; it keeps a file of garbage from taking minutes.
const PROBLEMS_LIMIT: usize = 500;

/// Everything that was found to be wrong so far.
#[derive(Debug, Default)]
pub(super) struct Problems(pub(super) Vec<Problem>);

impl Problems {
    /// Whether one more would not be kept, so that working out its remedy is for nothing.
    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= PROBLEMS_LIMIT
    }

    pub(super) fn add(&mut self, mark: &Mark, key: &str, kind: ProblemKind, reason: impl Into<String>, remedy: impl Into<String>) {
        if self.is_full() {
            return;
        }
        let problem = Problem { origin: mark.origin(), key: key.to_owned(), kind, reason: reason.into(), remedy: remedy.into() };
        if !self.0.contains(&problem) {
            self.0.push(problem);
        }
    }
}

/// The candidate that `text` was most likely meant to be.
pub(in crate::config) fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        let distance = distance(text, candidate);
        let close = distance <= 1 + candidate.len().min(text.len()) / 4;
        if close && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Edits that turn one text into the other; a swap of neighbours counts twice, a difference in case not at all.
fn distance(one: &str, other: &str) -> usize {
    if one.len() > 64 || other.len() > 64 {
        return usize::MAX;
    }
    let other: Vec<char> = other.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, left) in one.to_lowercase().chars().enumerate() {
        let mut next = vec![i + 1];
        for (j, right) in other.iter().enumerate() {
            let replaced = row.get(j).copied().unwrap_or(0) + usize::from(left != *right);
            let removed = row.get(j + 1).copied().unwrap_or(0) + 1;
            let added = next.get(j).copied().unwrap_or(0) + 1;
            next.push(replaced.min(removed).min(added));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

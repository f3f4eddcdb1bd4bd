//! One layer of a project (a file, a document, a service that is extended) brought into the long form of every key.
//!
//! What a key takes is said once, in [`super::schema`]; this module follows that table. Layers are merged only after
//! they are in this form, so the rules of merging see one way of writing each thing.

use std::path::Path;

use crate::config::ConfigWarning;
use crate::config::compose::error::ProblemKind;
use crate::config::compose::paths;
use crate::config::compose::quantity;
use crate::config::compose::tree::{Map, Mark, Meeting, Node, Problems, Value, nearest};
use crate::config::compose::words;

/// What a key takes, and how it is written in the long form.
pub(super) enum Shape {
    /// Anything, as it is.
    Any,
    Text,
    Bool,
    Int,
    Float,
    /// Bytes: `64m`, 1024. Becomes decimal text, as Compose prints it.
    Size,
    /// `1m30s`. Becomes text as Go prints durations.
    Duration,
    /// A path, which becomes absolute.
    Path,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A list of text; one text is a list of one.
    Texts,
    /// A command line or a list of arguments.
    Command,
    /// A mapping of text, or a list of `key=value`. A key without a value becomes null, or empty text.
    Pairs(Bare),
    List(&'static Shape),
    Map(&'static Shape),
    Object(&'static [Key]),
    /// Rewritten by the function, then as the inner shape says.
    Short(fn(&mut Layer<'_>, Node) -> Node, &'static Shape),
}

/// What a key without a value means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Bare {
    /// It is taken from the environment.
    Null,
    /// It is empty.
    Empty,
}

/// What is done with a key beside reading it.
pub(super) enum Note {
    /// It is carried out.
    Done,
    /// It has no effect here, for this reason, and that is harmless.
    Ignored(&'static str),
    /// It is not carried out: why, and what to do.
    Refused(&'static str, &'static str),
}

pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    /// Whether `0`, `false` and empty values are kept in the model.
    pub(super) kept: bool,
    pub(super) note: Note,
}

/// Where a layer was found, and what is learned from it.
pub(super) struct Layer<'a> {
    /// What relative paths start from.
    pub(super) base: &'a Path,
    /// What `~` stands for.
    pub(super) home: Option<&'a str>,
    pub(super) problems: &'a mut Problems,
    pub(super) warnings: &'a mut Vec<ConfigWarning>,
    /// The key that is being read.
    pub(super) path: String,
}

impl Layer<'_> {
    /// `node` in the long form of `shape`.
    pub(super) fn read(&mut self, mut node: Node, shape: &Shape) -> Node {
        if node.meeting == Meeting::Reset {
            return node.with(Value::Null);
        }
        if node.is_null() {
            return node;
        }
        let meeting = node.meeting;
        node.meeting = Meeting::Merge;
        let key = node.key.take();
        let mut read = self.shaped(node, shape);
        read.meeting = meeting;
        read.key = key;
        read
    }

    fn shaped(&mut self, node: Node, shape: &Shape) -> Node {
        match shape {
            Shape::Any => node,
            Shape::Text => self.text(node),
            Shape::Bool => self.boolean(node),
            Shape::Int => self.integer(node),
            Shape::Float => self.float(node),
            Shape::Size => self.size(&node),
            Shape::Duration => self.duration(&node),
            Shape::Path => match node.text() {
                Some(text) => {
                    let value = paths::absolute(self.base, self.home, text);
                    node.with(Value::Text(value))
                }
                None => self.wrong_type(&node, "a path"),
            },
            Shape::Word(words) => self.word(node, words),
            Shape::Texts => self.texts(node),
            Shape::Command => self.command(node),
            Shape::Pairs(bare) => self.pairs(node, *bare),
            Shape::List(inner) => self.list(node, inner),
            Shape::Map(inner) => self.mapping(node, inner),
            Shape::Object(keys) => self.object(node, keys),
            Shape::Short(rewrite, inner) => {
                let long = rewrite(self, node);
                self.read(long, inner)
            }
        }
    }

    pub(super) fn wrong_type(&mut self, node: &Node, wanted: &str) -> Node {
        let reason = format!("this must be {wanted}, not {}", node.described());
        self.problems.add(&node.mark, &self.path, ProblemKind::WrongType, reason, format!("write {wanted}"));
        node.made(Value::Null)
    }

    pub(super) fn bad(&mut self, mark: &Mark, reason: impl Into<String>, remedy: impl Into<String>) {
        self.problems.add(mark, &self.path, ProblemKind::BadValue, reason, remedy);
    }

    pub(super) fn bad_value(&mut self, node: &Node, reason: impl Into<String>, remedy: impl Into<String>) -> Node {
        self.bad(&node.mark, reason, remedy);
        node.made(Value::Null)
    }

    pub(super) fn warn(&mut self, mark: &Mark, reason: impl Into<String>) {
        self.warnings.push(ConfigWarning { origin: mark.origin(), key: self.path.clone(), reason: reason.into() });
    }

    /// Runs `inside` with `name` at the end of the key.
    pub(super) fn under<T>(&mut self, name: &str, inside: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        if !self.path.is_empty() && !name.starts_with('[') {
            self.path.push('.');
        }
        self.path.push_str(name);
        let result = inside(self);
        self.path.truncate(length);
        result
    }

    fn text(&mut self, node: Node) -> Node {
        match &node.value {
            Value::Text(_) => node,
            Value::Int(_) | Value::Float(_) => node.with(Value::Text(node.scalar_text().unwrap_or_default())),
            _ => self.wrong_type(&node, "text"),
        }
    }

    fn boolean(&mut self, node: Node) -> Node {
        match &node.value {
            Value::Bool(_) => node,
            Value::Text(text) => match text.to_ascii_lowercase().as_str() {
                "true" | "y" | "yes" | "on" => node.with(Value::Bool(true)),
                "false" | "n" | "no" | "off" => node.with(Value::Bool(false)),
                _ => self.bad_value(&node, format!("`{text}` is neither `true` nor `false`"), "write `true` or `false`"),
            },
            _ => self.wrong_type(&node, "`true` or `false`"),
        }
    }

    fn integer(&mut self, node: Node) -> Node {
        match &node.value {
            Value::Int(_) => node,
            #[expect(clippy::cast_possible_truncation, reason = "bounded by the guard")]
            Value::Float(value) if value.fract() == 0.0 && value.abs() < 9e15 => node.with(Value::Int(*value as i64)),
            Value::Text(text) => match text.parse() {
                Ok(value) => node.with(Value::Int(value)),
                Err(_) => self.bad_value(&node, format!("`{text}` is not a whole number"), "write a whole number"),
            },
            _ => self.wrong_type(&node, "a whole number"),
        }
    }

    fn float(&mut self, node: Node) -> Node {
        match &node.value {
            #[expect(clippy::cast_precision_loss, reason = "shares of processors are small")]
            Value::Int(value) => node.with(Value::Float(*value as f64)),
            Value::Float(value) if value.is_finite() => node,
            Value::Text(text) => match text.parse::<f64>() {
                Ok(value) if value.is_finite() => node.with(Value::Float(value)),
                _ => self.bad_value(&node, format!("`{text}` is not a number"), "write a number, such as `0.5`"),
            },
            _ => self.wrong_type(&node, "a number"),
        }
    }

    fn size(&mut self, node: &Node) -> Node {
        let Some(text) = node.scalar_text().filter(|_| !matches!(node.value, Value::Bool(_))) else {
            return self.wrong_type(node, "a size");
        };
        match quantity::parse_size(&text) {
            Some(bytes) => node.with(Value::Text(bytes.to_string())),
            None => self.bad_value(node, format!("`{text}` is not a size"), "write a number and a unit, such as `512m` or `1.5g`"),
        }
    }

    fn duration(&mut self, node: &Node) -> Node {
        let Some(text) = node.scalar_text().filter(|_| !matches!(node.value, Value::Bool(_))) else {
            return self.wrong_type(node, "a duration");
        };
        match quantity::parse_go_duration(&text) {
            Some(duration) => node.with(Value::Text(quantity::go_duration(duration))),
            None => self.bad_value(node, format!("`{text}` is not a duration"), "write it as `500ms`, `30s` or `1m30s`"),
        }
    }

    fn word(&mut self, node: Node, words: &[&str]) -> Node {
        let node = self.text(node);
        let Some(text) = node.text() else { return node };
        if words.contains(&text) {
            return node;
        }
        let listed = words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
        self.bad_value(&node, format!("`{text}` is none of {listed}"), format!("write one of {listed}"))
    }

    fn texts(&mut self, node: Node) -> Node {
        match &node.value {
            Value::List(_) => self.list(node, &Shape::Text),
            Value::Text(_) | Value::Int(_) | Value::Float(_) => {
                let item = self.text(node.made(node.value.clone()));
                node.with(Value::List(vec![item]))
            }
            _ => self.wrong_type(&node, "text or a list of text"),
        }
    }

    fn command(&mut self, node: Node) -> Node {
        let Value::Text(text) = &node.value else { return self.texts(node) };
        match words::split(text) {
            Ok(split) => {
                if let Some(rest) = split.left_out {
                    self.warn(
                        &node.mark,
                        format!("Compose reads a command only up to `{rest}`; what follows has no effect without a shell"),
                    );
                }
                node.with(Value::List(split.words.into_iter().map(|word| node.text_here(word)).collect()))
            }
            Err(reason) => self.bad_value(&node, reason, "write the command as a list of arguments"),
        }
    }

    fn pairs(&mut self, node: Node, bare: Bare) -> Node {
        let mut pairs = Map::new();
        let empty = |node: &Node| node.made(if bare == Bare::Null { Value::Null } else { Value::Text(String::new()) });
        match node.value {
            Value::Map(map) => {
                for (key, value) in map {
                    if value.meeting == Meeting::Reset {
                        pairs.insert(key, value.with(Value::Null));
                        continue;
                    }
                    let mut pair = match value.scalar_text() {
                        Some(text) => value.text_here(text),
                        None if value.is_null() => empty(&value),
                        None => self.under(&key, |layer| layer.wrong_type(&value, "text")),
                    };
                    pair.key = value.key;
                    pairs.insert(key, pair);
                }
                Node { value: Value::Map(pairs), ..node }
            }
            Value::List(ref list) => {
                for item in list {
                    let Some(text) = item.scalar_text() else {
                        self.wrong_type(item, "text of the form `key=value`");
                        continue;
                    };
                    let (key, value) = match text.split_once('=') {
                        Some((key, value)) => (key.to_owned(), item.text_here(value)),
                        None => (text, empty(item)),
                    };
                    pairs.insert(key, Node { key: Some(item.mark.clone()), ..value });
                }
                node.with(Value::Map(pairs))
            }
            _ => self.wrong_type(&node, "a mapping, or a list of `key=value`"),
        }
    }

    fn list(&mut self, node: Node, inner: &Shape) -> Node {
        let Value::List(list) = node.value else { return self.wrong_type(&node, "a list") };
        let mut read = Vec::with_capacity(list.len());
        for (index, item) in list.into_iter().enumerate() {
            let item = self.under(&format!("[{index}]"), |layer| layer.read(item, inner));
            if !item.is_null() {
                read.push(item);
            }
        }
        Node { value: Value::List(read), ..node }
    }

    fn mapping(&mut self, node: Node, inner: &Shape) -> Node {
        let Value::Map(map) = node.value else { return self.wrong_type(&node, "a mapping") };
        let mut read = Map::new();
        for (key, value) in map {
            let value = self.under(&key, |layer| layer.read(value, inner));
            read.insert(key, value);
        }
        Node { value: Value::Map(read), ..node }
    }

    fn object(&mut self, node: Node, keys: &[Key]) -> Node {
        let Value::Map(map) = node.value else { return self.wrong_type(&node, "a mapping") };
        let mut read = Map::new();
        for (name, value) in map {
            // Extensions say nothing to Compose.
            if name.starts_with("x-") {
                continue;
            }
            match keys.iter().find(|key| key.name == name) {
                Some(key) => {
                    let value = self.under(&name, |layer| layer.read(value, &key.shape));
                    read.insert(name, value);
                }
                None => self.unknown(&name, &value, keys),
            }
        }
        Node { value: Value::Map(read), ..node }
    }

    fn unknown(&mut self, name: &str, value: &Node, keys: &[Key]) {
        if self.problems.is_full() {
            return;
        }
        let remedy = match nearest(name, keys.iter().map(|key| key.name)) {
            Some(meant) => format!("did you mean `{meant}`? else remove it, or begin its name with `x-`"),
            None => "remove it, or begin its name with `x-`".to_owned(),
        };
        let place = value.place().clone();
        self.under(name, |layer| layer.problems.add(&place, &layer.path, ProblemKind::UnknownKey, "Compose knows no such key", remedy));
    }
}

/// `node` without what Compose leaves out of its model: nulls, and empty values of keys that do not keep them.
pub(super) fn pruned(node: Node, shape: &Shape) -> Node {
    match shape {
        Shape::Short(_, inner) => pruned(node, inner),
        Shape::Object(keys) => {
            let Value::Map(map) = node.value else { return node };
            let map = map
                .into_iter()
                .filter_map(|(name, value)| {
                    let key = keys.iter().find(|key| key.name == name)?;
                    let value = pruned(value, &key.shape);
                    (!value.is_null() && (key.kept || !is_empty(&value, &key.shape))).then_some((name, value))
                })
                .collect();
            Node { value: Value::Map(map), ..node }
        }
        Shape::Map(inner) => {
            let Value::Map(map) = node.value else { return node };
            let map = map.into_iter().filter(|(_, value)| value.meeting != Meeting::Reset);
            Node { value: Value::Map(map.map(|(key, value)| (key, pruned(value, inner))).collect()), ..node }
        }
        Shape::Pairs(_) => {
            let Value::Map(map) = node.value else { return node };
            let map = map.into_iter().filter(|(_, value)| value.meeting != Meeting::Reset);
            Node { value: Value::Map(map.collect()), ..node }
        }
        Shape::List(inner) => {
            let Value::List(list) = node.value else { return node };
            Node { value: Value::List(list.into_iter().map(|item| pruned(item, inner)).collect()), ..node }
        }
        _ => node,
    }
}

fn is_empty(node: &Node, shape: &Shape) -> bool {
    match &node.value {
        Value::Null | Value::Bool(false) | Value::Int(0) => true,
        Value::Float(value) => *value == 0.0,
        Value::Text(text) => match shape {
            Shape::Size => text == "0",
            Shape::Duration => text == "0s",
            _ => text.is_empty(),
        },
        Value::List(list) => list.is_empty(),
        Value::Map(map) => map.is_empty(),
        Value::Bool(true) | Value::Int(_) => false,
    }
}

/// Reports every key below `node` that is not carried out.
pub(super) fn audit(node: &Node, shape: &Shape, path: &str, problems: &mut Problems, warnings: &mut Vec<ConfigWarning>) {
    match shape {
        Shape::Short(_, inner) => audit(node, inner, path, problems, warnings),
        Shape::List(inner) => {
            for (index, item) in node.list().iter().enumerate() {
                audit(item, inner, &format!("{path}[{index}]"), problems, warnings);
            }
        }
        Shape::Map(inner) => {
            for (key, value) in node.map().into_iter().flatten() {
                audit(value, inner, &format!("{path}.{key}"), problems, warnings);
            }
        }
        Shape::Object(keys) => {
            for (name, value) in node.map().into_iter().flatten() {
                let Some(key) = keys.iter().find(|key| key.name == name) else { continue };
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match key.note {
                    Note::Done => audit(value, &key.shape, &path, problems, warnings),
                    Note::Ignored(reason) => {
                        warnings.push(ConfigWarning { origin: value.place().origin(), key: path, reason: reason.to_owned() });
                    }
                    Note::Refused(reason, remedy) => problems.add(value.place(), &path, ProblemKind::NotCarriedOut, reason, remedy),
                }
            }
        }
        _ => {}
    }
}

//! YAML text to a tree with places: anchors, aliases and `<<` resolved, duplicate keys refused, size bounded.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use crate::config::compose::error::ConfigError;
use crate::config::compose::tree::{Map, Mark, Meeting, Node, Value};

/// Containers inside containers; the deepest real key of Compose is at 9.
const DEPTH_LIMIT: usize = 64;
/// Values after aliases were unfolded.
const NODE_LIMIT: usize = 200_000;
/// Bytes of text after aliases were unfolded.
const TEXT_LIMIT: usize = 64 << 20;

/// The documents of one file.
///
/// # Errors
///
/// Those of [`ConfigError`] about YAML.
pub(super) fn parse(file: &Arc<Path>, text: &str) -> Result<Vec<Node>, ConfigError> {
    let mut builder = Builder { file, stack: Vec::new(), anchors: HashMap::new(), documents: Vec::new(), nodes: 0, bytes: 0 };
    // A byte order mark is not part of the text.
    let mut parser = Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text));
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| {
            let marker = error.marker();
            let mark = Mark { file: Arc::clone(file), line: marker.line(), column: marker.col() + 1 };
            ConfigError::Yaml { origin: mark.origin(), reason: reason(error.info(), text, marker.line()) }
        })?;
        builder.event(event, span)?;
    }
    Ok(builder.documents)
}

/// What the parser says, and the tab that it does not name where one is the cause.
fn reason(info: &str, text: &str, line: usize) -> String {
    let indent = text.lines().nth(line.saturating_sub(1)).map(|line| line.chars().take_while(|c| c.is_whitespace()).any(|c| c == '\t'));
    if indent == Some(true) {
        return "the line is indented with a tab; YAML wants spaces".to_owned();
    }
    info.to_owned()
}

struct Open {
    node: Node,
    anchor: usize,
    /// The key whose value comes next, in a mapping.
    pending: Option<(String, Mark)>,
    /// Values of `<<`, applied when the mapping ends: what is written beside them wins.
    merges: Vec<Node>,
}

struct Builder<'a> {
    file: &'a Arc<Path>,
    stack: Vec<Open>,
    anchors: HashMap<usize, (Node, usize, usize)>,
    documents: Vec<Node>,
    nodes: usize,
    bytes: usize,
}

const MERGE_KEY: &str = "<<";

impl Builder<'_> {
    fn mark(&self, span: Span) -> Mark {
        Mark { file: Arc::clone(self.file), line: span.start.line(), column: span.start.col() + 1 }
    }

    fn refuse(mark: &Mark, reason: impl Into<String>) -> ConfigError {
        ConfigError::Yaml { origin: mark.origin(), reason: reason.into() }
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), ConfigError> {
        let mark = self.mark(span);
        if let Event::Scalar(_, _, _, Some(tag)) | Event::SequenceStart(_, Some(tag)) | Event::MappingStart(_, Some(tag)) = &event
            && tag.handle == "!"
            && !matches!(tag.suffix.as_str(), "" | "reset" | "override")
        {
            return Err(Self::refuse(&mark, format!("the tag `!{}` means nothing here", tag.suffix)));
        }
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.grow(&mark, 1, text.len())?;
                let (value, meeting) = scalar(&text, style, tag.as_deref()).map_err(|reason| Self::refuse(&mark, reason))?;
                let is_merge = text == MERGE_KEY && style == ScalarStyle::Plain;
                let mut node = Node::new(value, mark);
                node.meeting = meeting;
                self.finish(node, anchor, is_merge)
            }
            Event::SequenceStart(anchor, tag) => self.open(Value::List(Vec::new()), &mark, anchor, tag.as_deref()),
            Event::MappingStart(anchor, tag) => self.open(Value::Map(Map::new()), &mark, anchor, tag.as_deref()),
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(mut open) = self.stack.pop() else { return Ok(()) };
                for merged in std::mem::take(&mut open.merges) {
                    apply_merge(&mut open.node, merged)?;
                }
                self.finish(open.node, open.anchor, false)
            }
            Event::Alias(id) => {
                let Some((node, nodes, bytes)) = self.anchors.get(&id).cloned() else {
                    return Err(Self::refuse(&mark, "an alias stands inside the value of its own anchor"));
                };
                self.grow(&mark, nodes, bytes)?;
                // Opening a container checks the depth; an alias brings containers without opening them.
                if self.stack.len() + depth(&node) > DEPTH_LIMIT {
                    return Err(Self::refuse(&mark, "too many levels inside one another"));
                }
                self.finish(node, 0, false)
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => Ok(()),
        }
    }

    fn grow(&mut self, mark: &Mark, nodes: usize, bytes: usize) -> Result<(), ConfigError> {
        self.nodes += nodes;
        self.bytes += bytes;
        if self.nodes > NODE_LIMIT || self.bytes > TEXT_LIMIT {
            return Err(ConfigError::TooManyAliases { origin: mark.origin() });
        }
        Ok(())
    }

    fn open(&mut self, value: Value, mark: &Mark, anchor: usize, tag: Option<&Tag>) -> Result<(), ConfigError> {
        self.grow(mark, 1, 0)?;
        if self.stack.len() >= DEPTH_LIMIT {
            return Err(Self::refuse(mark, "too many levels inside one another"));
        }
        let mut node = Node::new(value, mark.clone());
        node.meeting = meeting(tag);
        self.stack.push(Open { node, anchor, pending: None, merges: Vec::new() });
        Ok(())
    }

    /// Puts a finished value where it belongs.
    fn finish(&mut self, mut node: Node, anchor: usize, is_merge_key: bool) -> Result<(), ConfigError> {
        if anchor != 0 {
            let (nodes, bytes) = weight(&node);
            self.anchors.insert(anchor, (node.clone(), nodes, bytes));
        }
        let Some(open) = self.stack.last_mut() else {
            self.documents.push(node);
            return Ok(());
        };
        match &mut open.node.value {
            Value::List(list) => list.push(node),
            Value::Map(map) => match open.pending.take() {
                None if is_merge_key => open.pending = Some((MERGE_KEY.to_owned(), node.mark)),
                None => {
                    let Some(key) = node.scalar_text().or_else(|| node.is_null().then(|| "null".to_owned())) else {
                        return Err(Self::refuse(&node.mark, "a key must be text, not a list or a mapping"));
                    };
                    if let Some(earlier) = map.get(&key) {
                        let line = earlier.place().line;
                        return Err(Self::refuse(&node.mark, format!("the key `{key}` is already there, at line {line}")));
                    }
                    open.pending = Some((key, node.mark));
                }
                Some((key, _)) if key == MERGE_KEY => open.merges.push(node),
                Some((key, mark)) => {
                    node.key = Some(mark);
                    map.insert(key, node);
                }
            },
            _ => {}
        }
        Ok(())
    }
}

/// `<<: *base` and `<<: [*one, *two]`: keys that are not there yet.
fn apply_merge(into: &mut Node, merged: Node) -> Result<(), ConfigError> {
    let mark = merged.mark.clone();
    let sources = match merged.value {
        Value::Map(_) => vec![merged],
        Value::List(list) => list,
        _ => return Err(Builder::refuse(&mark, "`<<` takes a mapping or a list of mappings")),
    };
    for source in sources {
        let Value::Map(entries) = source.value else {
            return Err(Builder::refuse(&source.mark, "`<<` takes a mapping or a list of mappings"));
        };
        if let Some(map) = into.map_mut() {
            for (key, node) in entries {
                map.entry(key).or_insert(node);
            }
        }
    }
    Ok(())
}

/// Values and bytes of text in a tree.
fn weight(node: &Node) -> (usize, usize) {
    let add = |(nodes, bytes): (usize, usize), child: &Node| {
        let (more_nodes, more_bytes) = weight(child);
        (nodes + more_nodes, bytes + more_bytes)
    };
    match &node.value {
        Value::List(list) => list.iter().fold((1, 0), add),
        Value::Map(map) => map.values().fold((1, map.keys().map(String::len).sum()), add),
        Value::Text(text) => (1, text.len()),
        _ => (1, 0),
    }
}

fn depth(node: &Node) -> usize {
    match &node.value {
        Value::List(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        Value::Map(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn meeting(tag: Option<&Tag>) -> Meeting {
    match tag {
        Some(tag) if tag.handle == "!" && tag.suffix == "reset" => Meeting::Reset,
        Some(tag) if tag.handle == "!" && tag.suffix == "override" => Meeting::Override,
        _ => Meeting::Merge,
    }
}

/// The value of a scalar, and how it meets an older one.
fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<(Value, Meeting), String> {
    let met = meeting(tag);
    let Some(tag) = tag.filter(|tag| met == Meeting::Merge && tag.is_yaml_core_schema()) else {
        let plain = style == ScalarStyle::Plain;
        return Ok((if plain { plain_value(text) } else { Value::Text(text.to_owned()) }, met));
    };
    let value = match (tag.suffix.as_str(), plain_value(text)) {
        ("str", _) => Value::Text(text.to_owned()),
        ("int", value @ Value::Int(_)) | ("bool", value @ Value::Bool(_)) | ("null", value @ Value::Null) => value,
        ("float", value @ Value::Float(_)) => value,
        #[expect(clippy::cast_precision_loss, reason = "the file asks for a float")]
        ("float", Value::Int(value)) => Value::Float(value as f64),
        (wanted @ ("int" | "bool" | "null" | "float"), _) => return Err(format!("this is no `!!{wanted}`")),
        _ => Value::Text(text.to_owned()),
    };
    Ok((value, met))
}

/// What a plain scalar is: the rules of the YAML reader that Compose uses, which are neither YAML 1.1 nor 1.2.
pub(super) fn plain_value(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Value::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Value::Float(f64::NEG_INFINITY),
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return Value::Text(text.to_owned());
    }
    if let Some(time) = timestamp(text) {
        return Value::Text(time);
    }
    let digits: String = text.chars().filter(|c| *c != '_').collect();
    if let Some(value) = integer(&digits) {
        return Value::Int(value);
    }
    // Larger than any number that a key takes, and still a whole number where it becomes text.
    if !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<u64>().is_ok() {
        return Value::Text(digits);
    }
    if is_float(&digits)
        && let Ok(value) = digits.parse()
    {
        return Value::Float(value);
    }
    Value::Text(text.to_owned())
}

/// A plain date or time as Compose passes it on: its YAML reader makes a point in time of it, and Go prints that in full.
fn timestamp(text: &str) -> Option<String> {
    if text.as_bytes().get(4) != Some(&b'-') {
        return None;
    }
    let (date, time) = match text.find(['T', 't', ' ']) {
        Some(at) => (text.get(..at)?, text.get(at + 1..)?),
        None => (text, ""),
    };
    let mut parts =
        date.split('-').map(|part| if part.len() <= 4 && part.bytes().all(|b| b.is_ascii_digit()) { part.parse().ok() } else { None });
    let (year, month, day): (i16, i16, i16) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some() {
        return None;
    }
    let date = jiff::civil::Date::new(year, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()?;
    if time.is_empty() {
        return (text.len() == text.trim_end().len()).then(|| format!("{date} 00:00:00 +0000 UTC"));
    }
    let (clock, zone) = match time.find(['Z', '+', '-']) {
        Some(at) => time.split_at(at),
        None if text.contains(' ') => (time, "Z"),
        None => return None,
    };
    let zone = if zone == "Z" { "+0000 UTC".to_owned() } else { format!("{0} {0}", zone.replace(':', "")) };
    let (whole, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut parts = whole.split(':').map(|part| part.parse::<i8>().ok());
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    jiff::civil::Time::new(hour, minute, second, 0).ok()?;
    let fraction = fraction.trim_end_matches('0');
    let fraction = if fraction.is_empty() { String::new() } else { format!(".{fraction}") };
    Some(format!("{date} {hour:02}:{minute:02}:{second:02}{fraction} {zone}"))
}

/// Decimal, `0x`, `0o`, `0b`, and a leading 0 for octal.
fn integer(text: &str) -> Option<i64> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = rest.to_ascii_lowercase();
    let (radix, rest) = match lower.as_str() {
        "0" => return Some(0),
        text if text.starts_with("0x") => (16, text.get(2..)?),
        text if text.starts_with("0o") => (8, text.get(2..)?),
        text if text.starts_with("0b") => (2, text.get(2..)?),
        text if text.starts_with('0') => (8, text.get(1..)?),
        text => (10, text),
    };
    // `from_str_radix` would take a second sign.
    if !rest.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    let value = i128::from_str_radix(rest, radix).ok()?;
    i64::try_from(if negative { -value } else { value }).ok()
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (text, None),
    };
    let all_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    all_digits(whole)
        && all_digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|exponent| !exponent.is_empty() && all_digits(exponent))
}

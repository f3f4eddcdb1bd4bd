//! Volumes of a service: `[source:]target[:options]` as the long form.

use std::path::Path;

use crate::config::compose::forms::{object, text};
use crate::config::compose::paths;
use crate::config::compose::shape::Layer;
use crate::config::compose::tree::{Map, Node, Value};

const REMEDY: &str = "write it as `[path or volume:]path in the container[:ro]`";

/// The long form; the source of a bind mount becomes absolute.
pub(in crate::config::compose) fn long(layer: &mut Layer<'_>, mut node: Node) -> Node {
    let spec = match &node.value {
        Value::Text(spec) => spec.clone(),
        Value::Map(_) => {
            let binds = node.get_text("type") == Some("bind");
            if let (true, Some(source)) = (binds, node.get_text("source").map(str::to_owned))
                && let Some(entry) = node.map_mut().and_then(|map| map.get_mut("source"))
            {
                entry.value = text(paths::absolute(layer.base, layer.home, &source));
            }
            return node;
        }
        _ => return layer.wrong_type(&node, "a mount"),
    };
    let parts: Vec<&str> = spec.split(':').collect();
    if parts.iter().any(|part| part.is_empty()) {
        return layer.bad_value(&node, format!("`{spec}` is not a mount: a part of it is empty"), REMEDY);
    }
    let (source, target, options) = match parts.as_slice() {
        // Very short texts take another way in Compose.
        [target] if target.len() <= 2 => return object(&node, [("type", text("volume")), ("target", text(*target))]),
        [target] => (None, *target, ""),
        [source, target] => (Some(*source), *target, ""),
        [source, target, options] => (Some(*source), *target, *options),
        _ => return layer.bad_value(&node, format!("`{spec}` is not a mount: it has too many colons"), REMEDY),
    };
    if source.is_some_and(|source| source.len() == 1 && source.bytes().all(|b| b.is_ascii_alphabetic())) {
        let reason = format!("Compose takes `{}` for the drive of a Windows path", source.unwrap_or_default());
        return layer.bad_value(&node, reason, "give the volume a longer name, or use the long form");
    }
    mount(layer, &node, source, target, options)
}

/// A path in the container, without what says nothing.
pub(in crate::config::compose) fn target(_: &mut Layer<'_>, node: Node) -> Node {
    match node.text() {
        Some(path) if path.starts_with('/') => {
            let path = paths::clean(Path::new(path)).display().to_string();
            node.with(text(path))
        }
        _ => node,
    }
}

fn mount(layer: &mut Layer<'_>, node: &Node, source: Option<&str>, target: &str, options: &str) -> Node {
    let (mut read_only, mut bind, mut volume) = (false, Map::new(), Map::new());
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => read_only = true,
            "rw" => read_only = false,
            "nocopy" => drop(volume.insert("nocopy".to_owned(), node.made(Value::Bool(true)))),
            "z" | "Z" => drop(bind.insert("selinux".to_owned(), node.text_here(option))),
            "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" => {
                bind.insert("propagation".to_owned(), node.text_here(option));
            }
            other => layer.warn(&node.mark, format!("Compose knows no mount option `{other}` and leaves it out")),
        }
    }
    let mut entries = Map::new();
    let mut set = |key: &str, value: Value| drop(entries.insert(key.to_owned(), node.made(value)));
    set("target", text(target));
    set("read_only", Value::Bool(read_only));
    match source {
        Some(path) if path.starts_with(['.', '/', '~']) => {
            set("type", text("bind"));
            set("source", text(paths::absolute(layer.base, layer.home, path)));
            bind.insert("create_host_path".to_owned(), node.made(Value::Bool(true)));
            set("bind", Value::Map(bind));
            if !volume.is_empty() {
                set("volume", Value::Map(volume));
            }
        }
        source => {
            set("type", text("volume"));
            if let Some(name) = source {
                set("source", text(name));
            }
            set("volume", Value::Map(volume));
            if !bind.is_empty() {
                set("bind", Value::Map(bind));
            }
        }
    }
    node.with(Value::Map(entries))
}

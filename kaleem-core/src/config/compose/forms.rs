//! Short forms of keys, rewritten as their long forms.

use crate::config::compose::error::ProblemKind;
use crate::config::compose::paths;
use crate::config::compose::shape::Layer;
use crate::config::compose::tree::{Map, Node, Value};

pub(super) mod ports;
pub(super) mod volumes;

/// A mapping with one entry per pair, all of it standing where `node` stands.
fn object<const N: usize>(node: &Node, entries: [(&str, Value); N]) -> Node {
    node.with(Value::Map(entries.into_iter().map(|(key, value)| (key.to_owned(), node.made(value))).collect()))
}

fn text(value: impl Into<String>) -> Value {
    Value::Text(value.into())
}

/// `external: {name: x}` is an old form of `external: true` with `name: x`.
pub(super) fn external(_: &mut Layer<'_>, mut node: Node) -> Node {
    let Some(map) = node.map_mut() else { return node };
    if let Some(old) = map.get("external").filter(|old| old.map().is_some()).cloned() {
        if let Some(name) = old.map().and_then(|old| old.get("name")) {
            map.entry("name".to_owned()).or_insert_with(|| name.clone());
        }
        map.insert("external".to_owned(), old.with(Value::Bool(true)));
    }
    node
}

/// `device:` of a bind volume may be relative to the project.
pub(super) fn volume_options(layer: &mut Layer<'_>, mut node: Node) -> Node {
    let option = |node: &Node, name: &str| node.get_text(name).map(str::to_owned);
    let bound = option(&node, "o").is_some_and(|options| options.split(',').any(|option| option == "bind"));
    if let (true, Some(device)) = (bound, option(&node, "device"))
        && let Some(entry) = node.map_mut().and_then(|map| map.get_mut("device"))
    {
        entry.value = text(paths::absolute(layer.base, layer.home, &device));
    }
    node
}

/// `[a, b]` is `{a: null, b: null}`.
pub(super) fn names_to_map(layer: &mut Layer<'_>, node: Node) -> Node {
    let Value::List(list) = &node.value else { return node };
    let mut map = Map::new();
    for item in list {
        let Some(name) = item.text() else {
            layer.wrong_type(item, "a name");
            continue;
        };
        let mut entry = item.made(Value::Null);
        entry.key = Some(item.mark.clone());
        map.insert(name.to_owned(), entry);
    }
    node.with(Value::Map(map))
}

/// `[a, b]` is both of them, each as a dependency that must have been started.
pub(super) fn dependencies(layer: &mut Layer<'_>, node: Node) -> Node {
    let short = matches!(node.value, Value::List(_));
    let mut node = names_to_map(layer, node);
    for entry in node.map_mut().into_iter().flatten().filter(|_| short).map(|(_, entry)| entry) {
        entry.value = Value::Map(Map::new());
    }
    node
}

/// Old names of pull policies.
pub(super) fn pull_policy(_: &mut Layer<'_>, node: Node) -> Node {
    if node.text() == Some("if_not_present") { node.with(text("missing")) } else { node }
}

/// One value is a list of one.
pub(super) fn one_or_more(_: &mut Layer<'_>, node: Node) -> Node {
    if matches!(node.value, Value::List(_)) {
        return node;
    }
    let item = node.made(node.value.clone());
    node.with(Value::List(vec![item]))
}

pub(super) fn build(_: &mut Layer<'_>, node: Node) -> Node {
    match &node.value {
        Value::Text(context) => object(&node, [("context", text(context.clone()))]),
        _ => node,
    }
}

pub(super) fn context(layer: &mut Layer<'_>, node: Node) -> Node {
    match node.text() {
        Some(context) if !paths::is_address(context) => {
            let path = paths::absolute(layer.base, layer.home, context);
            node.with(text(path))
        }
        _ => node,
    }
}

pub(super) fn contexts(layer: &mut Layer<'_>, node: Node) -> Node {
    let Value::Map(map) = node.value else {
        let Value::List(list) = &node.value else { return node };
        let mut map = Map::new();
        for item in list {
            if let Some((name, place)) = item.text().and_then(|item| item.split_once('=')) {
                map.insert(name.to_owned(), item.text_here(place));
            }
        }
        return contexts(layer, node.with(Value::Map(map)));
    };
    let map = map.into_iter().map(|(name, place)| (name, context(layer, place))).collect();
    Node { value: Value::Map(map), ..node }
}

/// `ssh: {id: path}` is `["id=path"]`.
pub(super) fn ssh(_: &mut Layer<'_>, node: Node) -> Node {
    let Value::Map(map) = &node.value else { return node };
    let list = map.iter().map(|(id, path)| match path.scalar_text() {
        Some(path) => node.text_here(format!("{id}={path}")),
        None => node.text_here(id.clone()),
    });
    let list = list.collect();
    node.with(Value::List(list))
}

pub(super) fn watch(_: &mut Layer<'_>, mut node: Node) -> Node {
    let nothing = object(&node, [("command", Value::Null)]);
    if let Some(map) = node.map_mut() {
        map.entry("exec".to_owned()).or_insert(nothing);
    }
    node
}

pub(super) fn file_reference(_: &mut Layer<'_>, node: Node) -> Node {
    match &node.value {
        Value::Text(source) => object(&node, [("source", text(source.clone()))]),
        _ => node,
    }
}

/// A dependency that says nothing is one that must have been started.
pub(super) fn dependency(_: &mut Layer<'_>, mut node: Node) -> Node {
    let (started, required) = (node.text_here("service_started"), node.made(Value::Bool(true)));
    if let Some(map) = node.map_mut() {
        map.entry("condition".to_owned()).or_insert(started);
        map.entry("required".to_owned()).or_insert(required);
    }
    node
}

pub(super) fn device(layer: &mut Layer<'_>, node: Node) -> Node {
    let Value::Text(short) = &node.value else { return node };
    let parts: Vec<&str> = short.split(':').collect();
    let (source, target, permissions) = match parts.as_slice() {
        [source] => (*source, *source, "rwm"),
        [source, target] => (*source, *target, "rwm"),
        [source, target, permissions] => (*source, *target, *permissions),
        _ => return layer.bad_value(&node, format!("`{short}` is not a device"), "write it as `host path:container path:rwm`"),
    };
    object(&node, [("source", text(source)), ("target", text(target)), ("permissions", text(permissions))])
}

/// `count: all`, and nothing at all, are every device.
pub(super) fn device_request(_: &mut Layer<'_>, mut node: Node) -> Node {
    let all = node.made(Value::Int(-1));
    let Some(map) = node.map_mut() else { return node };
    match map.get("count") {
        Some(count) if count.text() == Some("all") => drop(map.insert("count".to_owned(), all)),
        None if !map.contains_key("device_ids") => drop(map.insert("count".to_owned(), all)),
        _ => {}
    }
    node
}

/// `gpus: all`, or a list of requests; each of them is for a GPU.
#[expect(clippy::needless_pass_by_value, reason = "short forms have one signature")]
pub(super) fn gpus(layer: &mut Layer<'_>, node: Node) -> Node {
    let list = match &node.value {
        Value::Text(all) if all == "all" => vec![object(&node, [("count", Value::Int(-1))])],
        Value::List(list) => list.clone(),
        _ => return layer.wrong_type(&node, "`all` or a list of requests"),
    };
    let gpu = node.made(Value::List(vec![node.text_here("gpu")]));
    let list = list.into_iter().map(|mut request| {
        if let Some(map) = request.map_mut() {
            map.entry("capabilities".to_owned()).or_insert_with(|| gpu.clone());
        }
        request
    });
    let list = list.collect();
    node.with(Value::List(list))
}

pub(super) fn env_file(_: &mut Layer<'_>, mut node: Node) -> Node {
    if let Value::Text(path) = &node.value {
        return object(&node, [("path", text(path.clone())), ("required", Value::Bool(true))]);
    }
    let required = node.made(Value::Bool(true));
    if let Some(map) = node.map_mut() {
        map.entry("required".to_owned()).or_insert(required);
    }
    node
}

/// Names and addresses as `name=address`, from a list (with `=` or `:`) or a mapping.
#[expect(clippy::needless_pass_by_value, reason = "short forms have one signature")]
pub(super) fn extra_hosts(layer: &mut Layer<'_>, node: Node) -> Node {
    let mut hosts = Vec::new();
    let mut add = |item: &Node, name: &str, address: &str| {
        let address = address.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(address);
        hosts.push(item.text_here(format!("{name}={address}")));
    };
    match &node.value {
        Value::List(list) => {
            for item in list {
                let pair = item.text().and_then(|text| text.split_once('=').or_else(|| text.split_once(':')));
                match pair {
                    Some((name, address)) if !name.is_empty() && !address.is_empty() => add(item, name, address),
                    _ => layer.bad(&item.mark, "this is not a host name and an address", "write it as `name=address`"),
                }
            }
        }
        Value::Map(map) => {
            for (name, addresses) in map {
                match (&addresses.value, addresses.scalar_text()) {
                    (Value::List(list), _) => {
                        for address in list {
                            add(address, name, address.text().unwrap_or_default());
                        }
                    }
                    (_, Some(address)) => add(addresses, name, &address),
                    _ => layer.bad(&addresses.mark, format!("`{name}` has no address"), "write it as `name=address`"),
                }
            }
        }
        _ => return layer.wrong_type(&node, "a list of `name=address`, or a mapping"),
    }
    node.with(Value::List(hosts))
}

pub(super) fn health_test(_: &mut Layer<'_>, node: Node) -> Node {
    match &node.value {
        Value::Text(line) => {
            let list = vec![node.text_here("CMD-SHELL"), node.text_here(line.clone())];
            node.with(Value::List(list))
        }
        _ => node,
    }
}

#[expect(clippy::needless_pass_by_value, reason = "short forms have one signature")]
pub(super) fn ulimit(layer: &mut Layer<'_>, node: Node) -> Node {
    let number = |node: &Node| match &node.value {
        Value::Int(value) => Some(*value),
        Value::Text(text) => text.parse().ok(),
        _ => None,
    };
    if let Some(value) = number(&node) {
        return node.with(Value::Int(value));
    }
    let Some(map) = node.map() else { return layer.wrong_type(&node, "a number, or `soft:` and `hard:`") };
    let mut limits = Map::new();
    for (name, value) in map {
        match number(value) {
            Some(number) if name == "soft" || name == "hard" => {
                limits.insert(name.clone(), value.with(Value::Int(number)));
            }
            Some(_) => layer.problems.add(
                value.place(),
                &format!("{}.{name}", layer.path),
                ProblemKind::UnknownKey,
                "Compose knows no such key",
                "write `soft:` and `hard:`",
            ),
            None => layer.bad(&value.mark, format!("`{name}` is not a whole number"), "write a whole number"),
        }
    }
    if limits.len() < 2 {
        return layer.bad_value(&node, "a limit needs both `soft:` and `hard:`", "write both, or one number for both");
    }
    node.with(Value::Map(limits))
}

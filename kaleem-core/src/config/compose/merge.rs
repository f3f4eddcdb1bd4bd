//! One layer over another, by the rules of Compose: mappings merge, lists are appended without repeats, the rest is replaced.

use std::collections::BTreeMap;

use crate::config::compose::tree::{Map, Meeting, Node, Value};

/// Keys by which entries of a list are the same entry; a list that is not named here keeps repeats.
enum Same {
    /// The whole text.
    Text,
    /// The value under this key.
    Key(&'static str),
    /// The place in the container, where a name stands for a path below the given directory.
    Target(&'static str),
    Port,
}

/// `over` on top of `base`. `path` is the key with slashes, such as `services/api/ports`: names may hold dots.
///
/// `keep_tags` keeps `!reset` and `!override` for a layer still further down.
pub(super) fn merge(base: Node, over: Node, path: &str, keep_tags: bool) -> Node {
    match over.meeting {
        Meeting::Reset if keep_tags => return over,
        Meeting::Reset => return over.made(Value::Null),
        Meeting::Override if keep_tags => return over,
        Meeting::Override => return without_tags(over),
        Meeting::Merge => {}
    }
    let pattern = pattern(path);
    let (base_meeting, key) = (base.meeting, over.key.clone().or_else(|| base.key.clone()));
    let mut merged = match (base.value, over.value) {
        // A key without a value says nothing; a variable without one is taken from the environment.
        (value, Value::Null) if !is_variable(&pattern) => Node { value, mark: base.mark, key: None, meeting: Meeting::Merge },
        (Value::Map(base), Value::Map(over_map)) if !replaces(&pattern, &base, &over_map) => {
            let value = Value::Map(maps(base, over_map, path, keep_tags));
            Node { value, mark: over.mark, key: None, meeting: Meeting::Merge }
        }
        (Value::List(mut list), Value::List(more)) if !is_replaced(&pattern) => {
            if pattern == "networks.*.ipam.config" {
                list = pools(list, more, path);
            } else {
                list.extend(more);
            }
            Node { value: Value::List(list), mark: over.mark, key: None, meeting: Meeting::Merge }
        }
        (_, value) => Node { value, mark: over.mark, key: None, meeting: Meeting::Merge },
    };
    merged.key = key;
    if keep_tags {
        merged.meeting = base_meeting;
    }
    merged
}

fn maps(mut base: Map, over: Map, path: &str, keep_tags: bool) -> Map {
    for (name, value) in over {
        let child = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
        let older = base.remove(&name);
        if value.meeting == Meeting::Reset && !keep_tags {
            continue;
        }
        let merged = match older {
            Some(older) => merge(older, value, &child, keep_tags),
            None if keep_tags => value,
            None => without_tags(value),
        };
        base.insert(name, merged);
    }
    base
}

/// `node` as it is when there is nothing below it that its tags could speak of.
fn without_tags(mut node: Node) -> Node {
    node.meeting = Meeting::Merge;
    match &mut node.value {
        Value::Map(map) => {
            map.retain(|_, child| child.meeting != Meeting::Reset);
            *map = std::mem::take(map).into_iter().map(|(name, child)| (name, without_tags(child))).collect();
        }
        Value::List(list) => {
            list.retain(|child| child.meeting != Meeting::Reset);
            *list = std::mem::take(list).into_iter().map(without_tags).collect();
        }
        _ => {}
    }
    node
}

/// `services/api/ports` as `services.*.ports`: the second part is a name, and so is the one after `networks` of a service.
fn pattern(path: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').collect();
    if let Some(name) = parts.get_mut(1) {
        *name = "*";
    }
    if let ["services", _, "networks", network, ..] = parts.as_mut_slice() {
        *network = "*";
    }
    parts.join(".")
}

fn is_variable(pattern: &str) -> bool {
    pattern.starts_with("services.*.environment.") || pattern.starts_with("services.*.build.args.")
}

fn is_replaced(pattern: &str) -> bool {
    matches!(pattern, "services.*.command" | "services.*.entrypoint" | "services.*.healthcheck.test")
        || pattern.starts_with("x-")
        || pattern.contains(".x-")
}

/// Mappings of which the newer replaces the older as a whole.
fn replaces(pattern: &str, base: &Map, over: &Map) -> bool {
    let driver = |map: &Map| map.get("driver").and_then(|node| node.text().map(str::to_owned));
    match pattern {
        // Options of one driver mean nothing to another.
        "services.*.logging" => matches!((driver(base), driver(over)), (Some(old), Some(new)) if old != new),
        pattern => pattern.starts_with("x-"),
    }
}

/// Pools of the same subnet are one pool.
fn pools(mut list: Vec<Node>, more: Vec<Node>, path: &str) -> Vec<Node> {
    for pool in more {
        let subnet = pool.get_text("subnet").map(str::to_owned);
        let same = list.iter_mut().find(|older| subnet.is_some() && older.get_text("subnet") == subnet.as_deref());
        match same {
            Some(older) => *older = merge(older.clone(), pool, &format!("{path}/pool"), false),
            None => list.push(pool),
        }
    }
    list
}

/// Takes repeats out of the lists below `node`: the later entry stands in the place of the earlier one.
pub(super) fn without_repeats(node: &mut Node, path: &str) {
    match &mut node.value {
        Value::Map(map) => {
            for (name, child) in map {
                let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
                without_repeats(child, &path);
            }
        }
        Value::List(list) => {
            let Some(same) = sameness(&pattern(path)) else { return };
            let mut places: BTreeMap<String, usize> = BTreeMap::new();
            for item in std::mem::take(list) {
                let place = *places.entry(identity(&item, &same)).or_insert(list.len());
                match list.get_mut(place) {
                    Some(older) => *older = item,
                    None => list.push(item),
                }
            }
        }
        _ => {}
    }
}

fn sameness(pattern: &str) -> Option<Same> {
    let service_key = pattern.strip_prefix("services.*.")?;
    Some(match service_key {
        "cap_add"
        | "cap_drop"
        | "dns"
        | "dns_opt"
        | "dns_search"
        | "expose"
        | "profiles"
        | "tmpfs"
        | "links"
        | "label_file"
        | "networks.*.aliases"
        | "networks.*.link_local_ips"
        | "build.tags"
        | "build.platforms"
        | "external_links"
        | "extra_hosts" => Same::Text,
        "env_file" => Same::Key("path"),
        "volumes" => Same::Key("target"),
        "devices" => Same::Key("target"),
        "secrets" => Same::Target("/run/secrets/"),
        "configs" => Same::Target("/"),
        "ports" => Same::Port,
        _ => return None,
    })
}

fn identity(item: &Node, same: &Same) -> String {
    let text = |key: &str| item.get(key).and_then(Node::scalar_text).unwrap_or_default();
    match same {
        Same::Text => item.scalar_text().unwrap_or_default(),
        Same::Key(key) => text(key),
        Same::Target(directory) => match item.get_text("target") {
            Some(target) => target.to_owned(),
            None => format!("{directory}{}", text("source")),
        },
        Same::Port => format!("{}:{}:{}/{}", text("host_ip"), text("published"), text("target"), text("protocol")),
    }
}

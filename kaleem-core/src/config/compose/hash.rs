//! The hash that Compose writes on a container: while it is the same, `docker compose up` leaves the container alone.
//!
//! Compose hashes its own model of the service as Go prints it: fields in the order of its structs, maps sorted by key, some
//! characters escaped. So the order of each struct is written down here. A service whose hash cannot be computed has none: a hash
//! that is only nearly right would have Compose recreate the container without warning.

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::config::ComposeHash;

/// Keys of a service that point at another service's container: on a container Compose hashes that container's id in their place.
const NAMESPACES: [&str; 3] = ["network_mode", "pid", "ipc"];

/// How Go prints one value of the model.
enum Form {
    /// As it is.
    Plain,
    /// A number that Go holds in 32 bits.
    Single,
    /// A struct: its fields, in this order. What a file writes beside them and begins with `x-` is left out.
    Struct(&'static [(&'static str, Form)]),
    /// A list.
    List(&'static Form),
    /// A map with names that the file chose.
    Named(&'static Form),
}

use Form::{List, Named, Plain, Single, Struct};

const DEVICE_RATE: Form = List(&Struct(&[("Path", Plain), ("Rate", Plain)]));
const BLKIO: Form = Struct(&[
    ("weight", Plain),
    ("weight_device", List(&Struct(&[("Path", Plain), ("Weight", Plain)]))),
    ("device_read_bps", DEVICE_RATE),
    ("device_read_iops", DEVICE_RATE),
    ("device_write_bps", DEVICE_RATE),
    ("device_write_iops", DEVICE_RATE),
]);
const FILE: Form = List(&Struct(&[("source", Plain), ("target", Plain), ("uid", Plain), ("gid", Plain), ("mode", Plain)]));
const DEPENDENCIES: Form = Named(&Struct(&[("condition", Plain), ("restart", Plain), ("required", Plain)]));
const UPDATE: Form = Struct(&[
    ("parallelism", Plain),
    ("delay", Plain),
    ("failure_action", Plain),
    ("monitor", Plain),
    ("max_failure_ratio", Single),
    ("order", Plain),
]);
const DEVICE_REQUESTS: Form =
    List(&Struct(&[("capabilities", Plain), ("driver", Plain), ("count", Plain), ("device_ids", Plain), ("options", Named(&Plain))]));
const RESOURCE: Form = Struct(&[
    ("cpus", Single),
    ("memory", Plain),
    ("pids", Plain),
    ("devices", DEVICE_REQUESTS),
    ("generic_resources", List(&Struct(&[("discrete_resource_spec", Struct(&[("kind", Plain), ("value", Plain)]))]))),
]);
/// Without `replicas`, which Compose leaves out of the hash.
const DEPLOY: Form = Struct(&[
    ("mode", Plain),
    ("labels", Named(&Plain)),
    ("update_config", UPDATE),
    ("rollback_config", UPDATE),
    ("resources", Struct(&[("limits", RESOURCE), ("reservations", RESOURCE)])),
    ("restart_policy", Struct(&[("condition", Plain), ("delay", Plain), ("max_attempts", Plain), ("window", Plain)])),
    (
        "placement",
        Struct(&[("constraints", Plain), ("preferences", List(&Struct(&[("spread", Plain)]))), ("max_replicas_per_node", Plain)]),
    ),
    ("endpoint_mode", Plain),
]);
const HEALTHCHECK: Form = Struct(&[
    ("test", Plain),
    ("timeout", Plain),
    ("interval", Plain),
    ("retries", Plain),
    ("start_period", Plain),
    ("start_interval", Plain),
    ("disable", Plain),
]);
const NETWORKS: Form = Named(&Struct(&[
    ("priority", Plain),
    ("gw_priority", Plain),
    ("aliases", Plain),
    ("ipv4_address", Plain),
    ("ipv6_address", Plain),
    ("link_local_ips", Plain),
    ("mac_address", Plain),
    ("driver_opts", Named(&Plain)),
]));
const PORTS: Form = List(&Struct(&[
    ("name", Plain),
    ("mode", Plain),
    ("host_ip", Plain),
    ("target", Plain),
    ("published", Plain),
    ("protocol", Plain),
    ("app_protocol", Plain),
]));
const VOLUMES: Form = List(&Struct(&[
    ("type", Plain),
    ("source", Plain),
    ("target", Plain),
    ("read_only", Plain),
    ("consistency", Plain),
    ("bind", Struct(&[("selinux", Plain), ("propagation", Plain), ("create_host_path", Plain), ("recursive", Plain)])),
    ("volume", Struct(&[("nocopy", Plain), ("subpath", Plain)])),
    ("tmpfs", Struct(&[("size", Plain), ("mode", Plain)])),
]));
const HOOKS: Form =
    List(&Struct(&[("command", Plain), ("user", Plain), ("privileged", Plain), ("working_dir", Plain), ("environment", Named(&Plain))]));
/// Without `build`, `pull_policy` and `scale`, which Compose leaves out of the hash.
const SERVICE: Form = Struct(&[
    ("profiles", Plain),
    ("annotations", Named(&Plain)),
    ("attach", Plain),
    ("develop", Struct(&[])),
    ("blkio_config", BLKIO),
    ("cap_add", Plain),
    ("cap_drop", Plain),
    ("cgroup_parent", Plain),
    ("cgroup", Plain),
    ("cpu_count", Plain),
    ("cpu_percent", Single),
    ("cpu_period", Plain),
    ("cpu_quota", Plain),
    ("cpu_rt_period", Plain),
    ("cpu_rt_runtime", Plain),
    ("cpus", Single),
    ("cpuset", Plain),
    ("cpu_shares", Plain),
    ("command", Plain),
    ("configs", FILE),
    ("container_name", Plain),
    ("credential_spec", Struct(&[("config", Plain), ("file", Plain), ("registry", Plain)])),
    ("depends_on", DEPENDENCIES),
    ("deploy", DEPLOY),
    ("device_cgroup_rules", Plain),
    ("devices", List(&Struct(&[("source", Plain), ("target", Plain), ("permissions", Plain)]))),
    ("dns", Plain),
    ("dns_opt", Plain),
    ("dns_search", Plain),
    ("domainname", Plain),
    ("entrypoint", Plain),
    ("environment", Named(&Plain)),
    ("expose", Plain),
    ("external_links", Plain),
    ("extra_hosts", Plain),
    ("group_add", Plain),
    ("gpus", DEVICE_REQUESTS),
    ("hostname", Plain),
    ("healthcheck", HEALTHCHECK),
    ("image", Plain),
    ("init", Plain),
    ("ipc", Plain),
    ("isolation", Plain),
    ("labels", Named(&Plain)),
    ("links", Plain),
    ("logging", Struct(&[("driver", Plain), ("options", Named(&Plain))])),
    ("mem_limit", Plain),
    ("mem_reservation", Plain),
    ("memswap_limit", Plain),
    ("mem_swappiness", Plain),
    ("mac_address", Plain),
    ("network_mode", Plain),
    ("networks", NETWORKS),
    ("oom_kill_disable", Plain),
    ("oom_score_adj", Plain),
    ("pid", Plain),
    ("pids_limit", Plain),
    ("platform", Plain),
    ("ports", PORTS),
    ("privileged", Plain),
    ("read_only", Plain),
    ("restart", Plain),
    ("runtime", Plain),
    ("secrets", FILE),
    ("security_opt", Plain),
    ("shm_size", Plain),
    ("stdin_open", Plain),
    ("stop_grace_period", Plain),
    ("stop_signal", Plain),
    ("storage_opt", Named(&Plain)),
    ("sysctls", Named(&Plain)),
    ("tmpfs", Plain),
    ("tty", Plain),
    ("ulimits", Named(&Struct(&[("single", Plain), ("soft", Plain), ("hard", Plain)]))),
    ("user", Plain),
    ("userns_mode", Plain),
    ("uts", Plain),
    ("volumes", VOLUMES),
    ("volumes_from", Plain),
    ("working_dir", Plain),
    ("post_start", HOOKS),
    ("pre_stop", HOOKS),
]);

/// The hashes of a service, from its model as `docker compose config --format json` prints it.
pub(super) fn of_service(model: &Value) -> ComposeHash {
    let Some(model) = model.as_object() else { return ComposeHash::default() };
    let starts = |key: &&str, beginning: &str| model.get(*key).and_then(Value::as_str).is_some_and(|text| text.starts_with(beginning));
    let from_container = |from: &Value| from.as_str().is_some_and(|text| text.starts_with("container:"));
    let volumes_from = model.get("volumes_from").and_then(Value::as_array);
    let refers = NAMESPACES.iter().any(|key| starts(key, "service:"))
        || volumes_from.is_some_and(|all| all.iter().any(|from| !from_container(from)));
    // The order of its files in the struct is not known.
    if refers || model.contains_key("develop") {
        return ComposeHash::default();
    }
    let without = |keys: &[&str]| -> Option<String> {
        let service: Map<String, Value> =
            model.iter().filter(|(key, _)| !keys.contains(&key.as_str())).map(|(key, value)| (key.clone(), value.clone())).collect();
        let mut text = String::new();
        print(&Value::Object(service), &SERVICE, &mut text)?;
        Some(hex::encode(Sha256::digest(text.as_bytes())))
    };
    ComposeHash {
        v2_26: without(&["build", "pull_policy", "scale"]),
        later: without(&["build", "pull_policy", "scale", "depends_on", "profiles"]),
    }
}

/// `None` where the value holds what Compose would print in a way that is not known here.
fn print(value: &Value, form: &Form, out: &mut String) -> Option<()> {
    match (value, form) {
        (Value::Object(map), Struct(fields)) => {
            let known = |key: &str| fields.iter().any(|(name, _)| same_key(name, key)) || key.starts_with("x-") || key == "replicas";
            if !map.keys().all(|key| known(key)) {
                return None;
            }
            out.push('{');
            let mut first = true;
            for (name, form) in *fields {
                let Some((_, value)) = map.iter().find(|(key, _)| same_key(name, key)) else { continue };
                separate(&mut first, out);
                text(name, out);
                out.push(':');
                print(value, form, out)?;
            }
            out.push('}');
        }
        (Value::Object(map), form) => {
            let inner = if let Named(inner) = form { inner } else { &Plain };
            out.push('{');
            let mut first = true;
            // The map is sorted by the bytes of its keys, as Go sorts them.
            for (name, value) in map {
                separate(&mut first, out);
                text(name, out);
                out.push(':');
                print(value, inner, out)?;
            }
            out.push('}');
        }
        (Value::Array(list), form) => {
            let inner = if let List(inner) = form { inner } else { &Plain };
            out.push('[');
            let mut first = true;
            for value in list {
                separate(&mut first, out);
                print(value, inner, out)?;
            }
            out.push(']');
        }
        (Value::String(value), _) => text(value, out),
        (Value::Number(number), Single) => out.push_str(&single(number.as_f64()?)?),
        (Value::Number(number), _) if number.is_i64() || number.is_u64() => out.push_str(&number.to_string()),
        // Where Go holds a float outside of the fields that are known here, its size is not known either.
        (Value::Number(_), _) => return None,
        (Value::Bool(value), _) => out.push_str(if *value { "true" } else { "false" }),
        (Value::Null, _) => out.push_str("null"),
    }
    Some(())
}

/// Compose prints a few keys with a capital letter that files write without.
fn same_key(name: &str, key: &str) -> bool {
    name == key || (name.starts_with(|first: char| first.is_ascii_uppercase()) && name.eq_ignore_ascii_case(key))
}

fn separate(first: &mut bool, out: &mut String) {
    if !std::mem::replace(first, false) {
        out.push(',');
    }
}

/// The shortest text that gives the same 32-bit float, as Go prints it; `None` where Go would use an exponent.
fn single(value: f64) -> Option<String> {
    #[expect(clippy::cast_possible_truncation, reason = "Go holds it in 32 bits too")]
    let single = value as f32;
    let plain = single == 0.0 || (1e-6..1e21).contains(&single.abs());
    plain.then(|| single.to_string())
}

/// A string as Go's `encoding/json` writes it, which escapes more than JSON asks for.
fn text(value: &str, out: &mut String) {
    use std::fmt::Write as _;
    out.push('"');
    for character in value.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                // Writing to a string cannot fail.
                write!(out, "\\u{:04x}", u32::from(character)).ok();
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{of_service, single, text};

    #[test]
    fn strings_are_escaped_as_go_does() {
        let mut out = String::new();
        text("a<b>&\u{2028}\"\\\n\u{1}é", &mut out);
        assert_eq!(out, r#""a\u003cb\u003e\u0026\u2028\"\\\n\u0001é""#);
    }

    #[test]
    fn floats_are_printed_in_the_fewest_digits_of_32_bits() {
        for (value, want) in [(1.0, Some("1")), (0.1, Some("0.1")), (0.123_456_789, Some("0.12345679")), (1e-9, None)] {
            assert_eq!(single(value).as_deref(), want, "{value}");
        }
    }

    #[test]
    fn a_service_in_the_namespace_of_another_has_no_hash_since_compose_hashes_a_container_id() {
        for (why, key, value, has) in [
            ("network", "network_mode", json!("service:db"), false),
            ("host", "network_mode", json!("host"), true),
            ("pid", "pid", json!("service:db"), false),
            ("volumes of a service", "volumes_from", json!(["db:ro"]), false),
            ("volumes of a container", "volumes_from", json!(["container:db"]), true),
            ("a key that is not known", "of_the_future", json!(1), false),
        ] {
            let hash = of_service(&json!({ "image": "x", "command": null, "entrypoint": null, key: value }));
            assert_eq!(hash.v2_26.is_some(), has, "{why}");
        }
    }
}

//! What can be wrong with a probe's table without asking anybody.

use serde_json::Value;

use super::{ProbeKind, ProbeOptions, TopologyName};

/// The key that is at fault, where one is; the reason; what to do.
pub(in crate::config::settings) type Wrong = (Option<String>, String, String);

/// Keys that every kind takes.
const COMMON: &[&str] = &["kind", "enabled"];
const ADDRESS: &[&str] = &["url", "url-env"];
const LOGIN: &[&str] = &["user", "password-env", "password-file", "password-secret"];
const TLS: &[&str] = &["ca-file", "certificate-file", "key-file", "server-name", "trust-system"];
const HTTP: &[&str] = &[
    "headers",
    "headers-env",
    "version",
    "status",
    "expect-headers",
    "contains",
    "matches",
    "json",
    "latency-warn",
    "latency-fail",
    "redirects",
];

fn keys(kind: ProbeKind) -> Vec<&'static str> {
    let parts: &[&[&'static str]] = match kind {
        ProbeKind::Http | ProbeKind::Api => &[ADDRESS, LOGIN, TLS, HTTP],
        ProbeKind::Spa => &[ADDRESS, LOGIN, TLS, &["root-id"]],
        ProbeKind::Tcp => &[&["host", "port"]],
        ProbeKind::Redis => {
            &[ADDRESS, LOGIN, TLS, &["topology", "master", "canary", "replicas", "memory-warn", "memory-fail", "lag-warn", "lag-fail"]]
        }
        ProbeKind::Rabbitmq => &[ADDRESS, LOGIN, TLS, &["management", "queues", "canary"]],
        ProbeKind::Mongodb => {
            &[ADDRESS, LOGIN, &["canary", "lag-warn", "lag-fail", "no-primary", "oplog-window", "connections-warn", "connections-fail"]]
        }
        ProbeKind::Qdrant => &[ADDRESS, &["password-env", "password-file", "password-secret"], TLS, &["collections", "grpc"]],
        ProbeKind::Disk => &[&["path", "used-warn", "used-fail", "full-within"]],
        ProbeKind::Certificate => &[&["host", "port"], TLS],
        ProbeKind::Container => &[&["restarts-warn", "restarts-fail"]],
        ProbeKind::Command => &[&["command", "exit-code", "exit-warn", "contains", "matches", "json"]],
    };
    COMMON.iter().chain(parts.iter().copied().flatten()).copied().collect()
}

/// The first thing that is wrong.
pub(in crate::config::settings) fn check(name: &str, options: &ProbeOptions) -> Option<Wrong> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || !name.chars().all(fits) {
        return Some((None, format!("`{name}` cannot be the name of a probe"), "use letters, digits, `-`, `_` and `.`".to_owned()));
    }
    let Some(kind) = options.kind_of(name) else {
        let all: Vec<&str> = ProbeKind::ALL.iter().map(|kind| kind.name()).collect();
        return Some((
            None,
            format!("the probe `{name}` does not say what it speaks"),
            format!("write `kind`, one of: {}", all.join(", ")),
        ));
    };
    let known = keys(kind);
    if let Some(key) = written(options).into_iter().find(|key| !known.contains(&key.as_str())) {
        let reason = format!("a probe of the kind `{}` takes no `{key}`", kind.name());
        return Some((Some(key), reason, format!("remove it; it takes: {}", known.join(", "))));
    }
    let ways = [options.password_env.is_some(), options.password_file.is_some(), options.password_secret.is_some()];
    if ways.into_iter().filter(|way| *way).count() > 1 {
        let remedy = "keep one of `password-env`, `password-file` and `password-secret`";
        return Some((
            Some("password-env".to_owned()),
            format!("the password of `{name}` comes from more than one place"),
            remedy.to_owned(),
        ));
    }
    if options.url.is_some() && options.url_env.is_some() {
        return Some((Some("url".to_owned()), format!("`{name}` has two addresses"), "keep one of `url` and `url-env`".to_owned()));
    }
    if options.url.as_deref().is_some_and(has_password) {
        let remedy = "leave it out of `url`, and name the variable or file that holds it with `password-env` or `password-file`";
        return Some((Some("url".to_owned()), format!("the address of `{name}` holds a password"), remedy.to_owned()));
    }
    if options.certificate_file.is_some() != options.key_file.is_some() {
        let remedy = "give both `certificate-file` and `key-file`, or neither";
        return Some((
            Some("certificate-file".to_owned()),
            format!("`{name}` has a certificate or a key, and not both"),
            remedy.to_owned(),
        ));
    }
    if (options.topology == Some(TopologyName::Sentinel)) != options.master.is_some() {
        let remedy = "give both `topology = \"sentinel\"` and `master`, the name in `sentinel monitor`";
        return Some((
            Some("topology".to_owned()),
            format!("`{name}` names a sentinel without a master, or a master without one"),
            remedy.to_owned(),
        ));
    }
    command(name, kind, options).or_else(|| limits(name, options))
}

fn command(name: &str, kind: ProbeKind, options: &ProbeOptions) -> Option<Wrong> {
    if kind != ProbeKind::Command || options.enabled == Some(false) {
        return None;
    }
    let program = options.command.as_ref().and_then(|words| words.first());
    if program.is_none_or(|program| program.trim().is_empty()) {
        let remedy = "write a program and its arguments, such as `command = [\"pg_isready\", \"-q\"]`; a shell is `[\"sh\", \"-c\", …]`";
        let key = options.command.is_some().then(|| "command".to_owned());
        return Some((key, format!("the probe `{name}` names no program"), remedy.to_owned()));
    }
    let code = options.exit_code.unwrap_or(0);
    (options.exit_warn == Some(code)).then(|| {
        let reason = format!("the exit code {code} of `{name}` is both right and a warning");
        (Some("exit-warn".to_owned()), reason, "give `exit-code` and `exit-warn` two codes".to_owned())
    })
}

/// Limits that can never be reached in order.
fn limits(name: &str, options: &ProbeOptions) -> Option<Wrong> {
    let millis = |text: Option<super::DurationText>| text.map(|text| u64::try_from(text.0.as_millis()).unwrap_or(u64::MAX));
    let pairs = [
        ("latency-warn", millis(options.latency_warn), millis(options.latency_fail)),
        ("lag-warn", millis(options.lag_warn), millis(options.lag_fail)),
        ("memory-warn", options.memory_warn.map(u64::from), options.memory_fail.map(u64::from)),
        ("connections-warn", options.connections_warn.map(u64::from), options.connections_fail.map(u64::from)),
        ("used-warn", options.used_warn.map(u64::from), options.used_fail.map(u64::from)),
        ("restarts-warn", options.restarts_warn.map(u64::from), options.restarts_fail.map(u64::from)),
    ];
    for (key, warn, fail) in pairs {
        if warn.zip(fail).is_some_and(|(warn, fail)| warn > fail) {
            let reason = format!("`{key}` of `{name}` is above its limit for failures");
            return Some((Some(key.to_owned()), reason, "a warning comes before a failure: exchange them".to_owned()));
        }
    }
    let queue = options.queues.iter().find(|(_, queue)| queue.depth_warn.zip(queue.depth_fail).is_some_and(|(warn, fail)| warn > fail));
    let (queue, _) = queue?;
    let reason = format!("`depth-warn` of the queue `{queue}` is above its `depth-fail`");
    Some((Some("queues".to_owned()), reason, "a warning comes before a failure: exchange them".to_owned()))
}

/// Keys that were written.
fn written(options: &ProbeOptions) -> Vec<String> {
    let Ok(Value::Object(map)) = serde_json::to_value(options) else { return Vec::new() };
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    map.into_iter().filter(|(_, value)| !is_empty(value)).map(|(key, _)| key).collect()
}

/// Whether `user:password@` stands before the host.
fn has_password(url: &str) -> bool {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest).split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit_once('@').is_some_and(|(login, _)| login.contains(':'))
}

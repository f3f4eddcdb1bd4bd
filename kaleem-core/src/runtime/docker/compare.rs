//! What a container was asked to be, compared with what it is to be.
//!
//! Engines write defaults into what they were asked, and Compose writes some things in another form; neither is a difference.

use std::collections::{BTreeMap, BTreeSet};

use bollard::models::{ContainerConfig, ContainerCreateBody, HealthConfig, HostConfig, ImageConfig, Mount as EngineMount, MountType};
use serde_json::Value;

use super::instance::bindings;

/// How one field is compared.
#[derive(Clone, Copy)]
enum Rule {
    /// Nothing, zero, false and empty are the same.
    Exact,
    /// As `Exact`, and the order of a list means nothing.
    Unordered,
    /// Compared only where something is asked for: else the engine decides.
    WhenAsked,
}

/// Fields of the engine's host configuration, with the name that people know.
const HOST_FIELDS: &[(&str, &str, Rule)] = &[
    ("GroupAdd", "group_add", Rule::Unordered),
    ("Init", "init", Rule::WhenAsked),
    ("ExtraHosts", "extra_hosts", Rule::Unordered),
    ("Dns", "dns", Rule::Exact),
    ("DnsSearch", "dns_search", Rule::Exact),
    ("DnsOptions", "dns_opt", Rule::Unordered),
    ("CapAdd", "cap_add", Rule::Unordered),
    ("CapDrop", "cap_drop", Rule::Unordered),
    ("SecurityOpt", "security_opt", Rule::Unordered),
    ("Privileged", "privileged", Rule::Exact),
    ("ReadonlyRootfs", "read_only", Rule::Exact),
    ("Devices", "devices", Rule::Unordered),
    ("DeviceCgroupRules", "device_cgroup_rules", Rule::Unordered),
    ("DeviceRequests", "device_requests", Rule::Unordered),
    ("Sysctls", "sysctls", Rule::Exact),
    ("PidMode", "pid", Rule::Exact),
    ("IpcMode", "ipc", Rule::WhenAsked),
    ("UTSMode", "uts", Rule::Exact),
    ("UsernsMode", "userns_mode", Rule::Exact),
    ("CgroupnsMode", "cgroup", Rule::WhenAsked),
    ("CgroupParent", "cgroup_parent", Rule::Exact),
    ("Runtime", "runtime", Rule::WhenAsked),
    ("Isolation", "isolation", Rule::WhenAsked),
    ("StorageOpt", "storage_opt", Rule::Exact),
    ("Annotations", "annotations", Rule::Exact),
    ("VolumesFrom", "volumes_from", Rule::Unordered),
    ("Memory", "resources.memory_bytes", Rule::Exact),
    ("MemorySwap", "resources.memory_swap_bytes", Rule::WhenAsked),
    ("MemoryReservation", "resources.memory_reservation_bytes", Rule::Exact),
    ("MemorySwappiness", "resources.memory_swappiness", Rule::WhenAsked),
    ("OomKillDisable", "resources.oom_kill_disable", Rule::WhenAsked),
    ("OomScoreAdj", "resources.oom_score_adj", Rule::Exact),
    ("NanoCpus", "resources.nano_cpus", Rule::Exact),
    ("CpuShares", "resources.cpu_shares", Rule::Exact),
    ("CpuPeriod", "resources.cpu_period", Rule::Exact),
    ("CpuQuota", "resources.cpu_quota", Rule::Exact),
    ("CpuRealtimePeriod", "resources.cpu_rt_period", Rule::Exact),
    ("CpuRealtimeRuntime", "resources.cpu_rt_runtime", Rule::Exact),
    ("CpusetCpus", "resources.cpuset", Rule::Exact),
    ("CpuCount", "resources.cpu_count", Rule::Exact),
    ("CpuPercent", "resources.cpu_percent", Rule::Exact),
    ("PidsLimit", "resources.pids_limit", Rule::Exact),
    ("ShmSize", "resources.shm_size_bytes", Rule::WhenAsked),
    ("Ulimits", "resources.ulimits", Rule::Unordered),
    ("BlkioWeight", "resources.blkio_weight", Rule::Exact),
    ("BlkioWeightDevice", "resources.blkio_weight_device", Rule::Unordered),
    ("BlkioDeviceReadBps", "resources.blkio_read_bps", Rule::Unordered),
    ("BlkioDeviceWriteBps", "resources.blkio_write_bps", Rule::Unordered),
    ("BlkioDeviceReadIOps", "resources.blkio_read_iops", Rule::Unordered),
    ("BlkioDeviceWriteIOps", "resources.blkio_write_iops", Rule::Unordered),
];

/// The value without everything that says nothing.
fn normal(value: &Value) -> Option<Value> {
    match value {
        Value::Null | Value::Bool(false) => None,
        Value::Number(number) if number.as_i64() == Some(0) => None,
        Value::String(text) if text.is_empty() => None,
        Value::Array(items) => Some(items.iter().map(|item| normal(item).unwrap_or(Value::Null)).collect::<Vec<_>>())
            .filter(|items| !items.is_empty())
            .map(Value::Array),
        Value::Object(fields) => {
            let fields: serde_json::Map<_, _> = fields.iter().filter_map(|(key, value)| Some((key.clone(), normal(value)?))).collect();
            Some(fields).filter(|fields| !fields.is_empty()).map(Value::Object)
        }
        other => Some(other.clone()),
    }
}

/// Different spellings of one thing.
fn spelling(key: &str, value: Option<Value>) -> Option<Value> {
    let each = |value: Value, change: &dyn Fn(&str) -> String| match value {
        Value::Array(items) => items
            .iter()
            .map(|item| item.as_str().map_or_else(|| item.clone(), |text| Value::String(change(text))))
            .collect::<Vec<_>>()
            .into(),
        other => other,
    };
    match key {
        "CapAdd" | "CapDrop" => value.map(|value| {
            each(value, &|name| {
                let upper = name.to_uppercase();
                upper.strip_prefix("CAP_").map_or(upper.clone(), str::to_owned)
            })
        }),
        // The engine adds it where a container sees the host's processes.
        "SecurityOpt" => value.map(|value| match each(value, &|option| option.replacen(':', "=", usize::from(!option.contains('=')))) {
            Value::Array(options) => Value::Array(options.into_iter().filter(|option| option != "label=disable").collect()),
            other => other,
        }),
        "ExtraHosts" => value.map(|value| each(value, &|entry| entry.replacen('=', ":", 1))),
        // No limit at all.
        "PidsLimit" => value.filter(|value| value.as_i64() != Some(-1)),
        _ => value,
    }
}

fn sorted(value: Option<Value>) -> Option<Value> {
    match value {
        Some(Value::Array(mut items)) => {
            items.sort_by_key(Value::to_string);
            items.dedup();
            Some(Value::Array(items))
        }
        other => other,
    }
}

fn compare_host(wanted: &HostConfig, found: &HostConfig, names: &mut Vec<String>) {
    let (wanted_json, found_json) = (serde_json::to_value(wanted).unwrap_or_default(), serde_json::to_value(found).unwrap_or_default());
    for (key, name, rule) in HOST_FIELDS {
        let read = |json: &Value| spelling(key, json.get(key).and_then(normal)).filter(|value| *value != Value::Array(Vec::new()));
        let (wanted, found) = (read(&wanted_json), read(&found_json));
        let is_same = match rule {
            Rule::Exact => wanted == found,
            Rule::Unordered => sorted(wanted) == sorted(found),
            Rule::WhenAsked => wanted.is_none() || wanted == found,
        };
        if !is_same {
            names.push((*name).to_owned());
        }
    }
    if let Some(logging) = &wanted.log_config {
        let none = Default::default();
        let found = found.log_config.as_ref().unwrap_or(&none);
        let driver = logging.typ.as_ref().filter(|driver| !driver.is_empty());
        if driver.is_some_and(|driver| found.typ.as_ref() != Some(driver))
            || logging.config.clone().unwrap_or_default() != found.config.clone().unwrap_or_default()
        {
            names.push("logging".to_owned());
        }
    }
    if bindings(wanted.port_bindings.as_ref()) != bindings(found.port_bindings.as_ref()) {
        names.push("ports".to_owned());
    }
}

/// Variables by name; without a value they take away what the image sets.
fn variables(lines: &[String]) -> BTreeMap<&str, Option<&str>> {
    let line = |line| str::split_once(line, '=').map_or((line, None), |(name, value)| (name, Some(value)));
    lines.iter().map(|text| line(text.as_str())).collect()
}

/// The list, where an empty one and one of an empty text are none.
fn words(list: Option<&Vec<String>>) -> &[String] {
    match list.map(Vec::as_slice) {
        Some([only]) if only.is_empty() => &[],
        Some(words) => words,
        None => &[],
    }
}

/// Most ports of one range that are written out.
const MOST_PORTS: u16 = 10_000;

/// Ports and protocol of an exposed port, however it is written: `6379`, `6379/tcp` and `7000-7002` are all accepted by engines, and Compose
/// passes on what the file says.
fn exposed(text: &str) -> Vec<(String, String)> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = if protocol.is_empty() { "tcp".to_owned() } else { protocol.to_lowercase() };
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    match (first.trim().parse::<u16>(), last.trim().parse::<u16>()) {
        (Ok(first), Ok(last)) if first <= last && last - first < MOST_PORTS => {
            (first..=last).map(|port| (port.to_string(), protocol.clone())).collect()
        }
        _ => vec![(ports.to_owned(), protocol)],
    }
}

fn health(wanted: Option<&HealthConfig>, image: Option<&HealthConfig>) -> Option<Value> {
    let none = HealthConfig::default();
    let (wanted, image) = (wanted.unwrap_or(&none), image.unwrap_or(&none));
    let test = Some(words(wanted.test.as_ref())).filter(|test| !test.is_empty()).unwrap_or(words(image.test.as_ref()));
    if test.first().is_none_or(|kind| kind == "NONE") {
        return None;
    }
    let number = |wanted: Option<i64>, image: Option<i64>| wanted.filter(|number| *number != 0).or(image).unwrap_or(0);
    let numbers = [
        number(wanted.interval, image.interval),
        number(wanted.timeout, image.timeout),
        number(wanted.retries, image.retries),
        number(wanted.start_period, image.start_period),
        number(wanted.start_interval, image.start_interval),
    ];
    Some(serde_json::json!([test, numbers]))
}

fn compare_config(wanted: &ContainerCreateBody, found: &ContainerConfig, image: &ImageConfig, names: &mut Vec<String>) {
    let mut check = |name: &str, is_same: bool| {
        if !is_same {
            names.push(name.to_owned());
        }
    };
    let entrypoint = if wanted.entrypoint.is_some() { words(wanted.entrypoint.as_ref()) } else { words(image.entrypoint.as_ref()) };
    check("entrypoint", entrypoint == words(found.entrypoint.as_ref()));
    // A new program does not get the image's arguments.
    let own_program = !words(wanted.entrypoint.as_ref()).is_empty();
    let command = match words(wanted.cmd.as_ref()) {
        [] if own_program => &[],
        [] => words(image.cmd.as_ref()),
        command => command,
    };
    check("command", command == words(found.cmd.as_ref()));
    let text = |text: Option<&String>| text.filter(|text| !text.is_empty()).cloned();
    check("user", text(wanted.user.as_ref()).or(text(image.user.as_ref())) == text(found.user.as_ref()));
    let directory = |directory: Option<&String>| text(directory).filter(|directory| directory != "/");
    let wanted_directory = if wanted.working_dir.is_some() { &wanted.working_dir } else { &image.working_dir };
    check("working_dir", directory(wanted_directory.as_ref()) == directory(found.working_dir.as_ref()));
    check("hostname", wanted.hostname.is_none() || wanted.hostname == found.hostname);
    check("domainname", text(wanted.domainname.as_ref()) == text(found.domainname.as_ref()));
    check("tty", wanted.tty.unwrap_or(false) == found.tty.unwrap_or(false));
    check("stdin_open", wanted.open_stdin.unwrap_or(false) == found.open_stdin.unwrap_or(false));
    let signal = |signal: Option<&String>| text(signal).filter(|signal| signal != "SIGTERM");
    check("stop_signal", signal(wanted.stop_signal.as_ref().or(image.stop_signal.as_ref())) == signal(found.stop_signal.as_ref()));
    check("stop_grace", wanted.stop_timeout == found.stop_timeout);
    check("healthcheck", health(wanted.healthcheck.as_ref(), image.healthcheck.as_ref()) == health(found.healthcheck.as_ref(), None));
    let ports = |lists: &[Option<&Vec<String>>]| {
        lists.iter().copied().flatten().flatten().flat_map(|text| exposed(text)).collect::<BTreeSet<(String, String)>>()
    };
    let all_exposed = ports(&[wanted.exposed_ports.as_ref(), image.exposed_ports.as_ref()]);
    check("expose", all_exposed == ports(&[found.exposed_ports.as_ref()]));

    let none = Vec::new();
    let mut environment = variables(image.env.as_ref().unwrap_or(&none));
    environment.extend(variables(wanted.env.as_ref().unwrap_or(&none)));
    let found = variables(found.env.as_ref().unwrap_or(&none));
    let keys: BTreeSet<&str> = environment.keys().chain(found.keys()).copied().collect();
    for key in keys {
        if environment.get(key).copied().flatten() != found.get(key).copied().flatten() {
            names.push(format!("environment.{key}"));
        }
    }
}

/// A mount, in whatever form it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mounted {
    kind: &'static str,
    /// Empty for a volume without a name.
    source: String,
    read_only: bool,
    options: BTreeSet<String>,
}

impl Mounted {
    fn volume(name: &str) -> Self {
        // Compose gives the nameless volume of an old container to its successor by its long number.
        let is_nameless = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        let source = if is_nameless { String::new() } else { name.to_owned() };
        Self { kind: "volume", source, read_only: false, options: BTreeSet::new() }
    }

    fn of_bind(text: &str) -> Option<(String, Self)> {
        let mut parts = text.split(':');
        let (source, target) = (parts.next()?, parts.next()?);
        let mut mounted = if source.starts_with('/') {
            Self { kind: "bind", source: source.to_owned(), read_only: false, options: BTreeSet::new() }
        } else {
            Self::volume(source)
        };
        for option in parts.next().unwrap_or_default().split(',') {
            match option {
                "ro" => mounted.read_only = true,
                "" | "rw" | "rprivate" => {}
                other => {
                    mounted.options.insert(other.to_owned());
                }
            }
        }
        Some((target.to_owned(), mounted))
    }

    fn of_mount(mount: &EngineMount) -> (String, Self) {
        let source = mount.source.clone().unwrap_or_default();
        let mut mounted = match mount.typ {
            Some(MountType::VOLUME) => Self::volume(&source),
            Some(MountType::TMPFS) => Self { kind: "tmpfs", source, read_only: false, options: BTreeSet::new() },
            _ => Self { kind: "bind", source, read_only: false, options: BTreeSet::new() },
        };
        mounted.read_only = mount.read_only.unwrap_or(false);
        if let Some(propagation) = mount.bind_options.as_ref().and_then(|options| options.propagation) {
            let propagation = propagation.to_string();
            mounted.options.extend(Some(propagation).filter(|propagation| !propagation.is_empty() && propagation != "rprivate"));
        }
        if let Some(options) = &mount.volume_options {
            mounted.options.extend(options.no_copy.filter(|no_copy| *no_copy).map(|_| "nocopy".to_owned()));
            mounted.options.extend(options.subpath.as_ref().filter(|path| !path.is_empty()).map(|path| format!("subpath={path}")));
        }
        if let Some(options) = &mount.tmpfs_options {
            mounted.options.extend(options.size_bytes.filter(|size| *size != 0).map(|size| format!("size={size}")));
            mounted.options.extend(options.mode.filter(|mode| *mode != 0).map(|mode| format!("mode={mode:o}")));
        }
        (mount.target.clone().unwrap_or_default(), mounted)
    }
}

fn mounts(host: &HostConfig) -> BTreeMap<String, Mounted> {
    let mut mounts: BTreeMap<String, Mounted> = host.binds.iter().flatten().filter_map(|bind| Mounted::of_bind(bind)).collect();
    mounts.extend(host.mounts.iter().flatten().map(Mounted::of_mount));
    for (target, options) in host.tmpfs.iter().flatten() {
        let options = options.split(',').filter(|option| !option.is_empty()).map(str::to_owned).collect();
        mounts.insert(target.clone(), Mounted { kind: "short tmpfs", source: String::new(), read_only: false, options });
    }
    mounts.into_iter().map(|(target, mounted)| (target.trim_end_matches('/').to_owned(), mounted)).collect()
}

fn compare_mounts(wanted: &HostConfig, found: &HostConfig, config: &ContainerConfig, image: &ImageConfig, names: &mut Vec<String>) {
    let (wanted, mut found) = (mounts(wanted), mounts(found));
    let of_image: BTreeSet<&String> = image.volumes.iter().flatten().collect();
    for target in config.volumes.iter().flatten().filter(|target| !of_image.contains(target)) {
        found.entry(target.trim_end_matches('/').to_owned()).or_insert_with(|| Mounted::volume(""));
    }
    let targets: BTreeSet<&String> = wanted.keys().chain(found.keys()).collect();
    for target in targets {
        let (wanted, found) = (wanted.get(target), found.get(target));
        // A volume that the image asks for: nobody wrote it down, and it is there.
        let is_images = wanted.is_none() && of_image.contains(target) && found == Some(&Mounted::volume(""));
        if wanted != found && !is_images {
            names.push(format!("mounts.{target}"));
        }
    }
}

/// Names of the fields in which `found` was asked for something else than `wanted`; networks and files are compared elsewhere.
pub(super) fn compare(wanted: &ContainerCreateBody, config: &ContainerConfig, host: &HostConfig, image: &ImageConfig) -> Vec<String> {
    let mut names = Vec::new();
    let none = HostConfig::default();
    let wanted_host = wanted.host_config.as_ref().unwrap_or(&none);
    compare_config(wanted, config, image, &mut names);
    compare_host(wanted_host, host, &mut names);
    compare_mounts(wanted_host, host, config, image, &mut names);
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_engines_and_compose_write_differently_is_no_difference() {
        let wanted = HostConfig {
            cap_add: Some(vec!["NET_ADMIN".to_owned()]),
            binds: Some(vec!["/a:/b:rw".to_owned(), "vol:/data:ro".to_owned()]),
            ..HostConfig::default()
        };
        let mount =
            EngineMount { typ: Some(MountType::BIND), source: Some("/a".to_owned()), target: Some("/b".to_owned()), ..Default::default() };
        let found = HostConfig {
            cap_add: Some(vec!["CAP_NET_ADMIN".to_owned()]),
            binds: Some(vec!["vol:/data:ro,rprivate".to_owned()]),
            mounts: Some(vec![mount]),
            shm_size: Some(67_108_864),
            pids_limit: Some(0),
            ..HostConfig::default()
        };
        let body = ContainerCreateBody { host_config: Some(wanted), ..ContainerCreateBody::default() };
        let names = compare(&body, &ContainerConfig::default(), &found, &ImageConfig::default());
        assert_eq!(names, Vec::<String>::new());
    }

    #[test]
    fn an_exposed_port_is_the_same_however_it_is_written() {
        let list = |ports: &[&str]| Some(ports.iter().map(|port| (*port).to_owned()).collect::<Vec<_>>());
        for (why, wanted, found, same) in [
            ("without its protocol", vec!["6379/tcp"], vec!["6379"], true),
            ("in both forms", vec!["6379/tcp"], vec!["6379", "6379/tcp"], true),
            ("a range", vec!["7000/tcp", "7001/tcp"], vec!["7000-7001"], true),
            ("a range with a protocol", vec!["7000/udp", "7001/udp"], vec!["7000-7001/udp"], true),
            ("in capitals", vec!["53/udp"], vec!["53/UDP"], true),
            ("another protocol", vec!["53/tcp"], vec!["53/udp"], false),
            ("one less", vec!["7000/tcp", "7001/tcp"], vec!["7000"], false),
        ] {
            let body = ContainerCreateBody { exposed_ports: list(&wanted), ..ContainerCreateBody::default() };
            let config = ContainerConfig { exposed_ports: list(&found), ..ContainerConfig::default() };
            let names = compare(&body, &config, &HostConfig::default(), &ImageConfig::default());
            assert_eq!(names.is_empty(), same, "{why}: {names:?}");
        }
    }

    #[test]
    fn a_variable_of_the_image_is_no_difference_and_a_removed_one_is() {
        let image = ImageConfig { env: Some(vec!["PATH=/bin".to_owned(), "LANG=C".to_owned()]), ..ImageConfig::default() };
        let wanted = ContainerCreateBody { env: Some(vec!["LEVEL=info".to_owned()]), ..ContainerCreateBody::default() };
        let env = ["PATH=/bin", "LEVEL=debug", "OLD=1", "LANG=C"].map(str::to_owned).to_vec();
        let found = ContainerConfig { env: Some(env), ..ContainerConfig::default() };
        let names = compare(&wanted, &found, &HostConfig::default(), &image);
        assert_eq!(names, ["environment.LEVEL", "environment.OLD"]);
    }
}

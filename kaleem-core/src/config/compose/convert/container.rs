//! The parts of a definition that concern the container itself.

use crate::config::compose::convert::{Converter, duration, optional_pairs, optional_texts, owned, pairs, texts, unsigned};
use crate::config::compose::error::ProblemKind;
use crate::config::compose::forms::ports::range;
use crate::config::compose::tree::Node;
use crate::definition::{
    ContainerPort, Definition, Device, DeviceRequest, HealthTest, Healthcheck, Logging, PortBinding, Protocol, RestartPolicy,
};
use crate::names::ServiceName;

impl Converter<'_> {
    pub(super) fn definition(&mut self, name: &ServiceName, node: &Node, path: &str) -> Definition {
        let flag = |key: &str| node.get_bool(key).unwrap_or(false);
        let (mounts, files) = self.mounts(node, path);
        Definition {
            command: optional_texts(node, "command"),
            entrypoint: optional_texts(node, "entrypoint"),
            environment: optional_pairs(node, "environment"),
            labels: pairs(node, "labels"),
            user: owned(node, "user"),
            group_add: texts(node, "group_add"),
            working_dir: owned(node, "working_dir"),
            hostname: owned(node, "hostname"),
            domainname: owned(node, "domainname"),
            init: node.get_bool("init"),
            tty: flag("tty"),
            stdin_open: flag("stdin_open"),
            healthcheck: node.get("healthcheck").map(healthcheck),
            restart: self.restart(node, path),
            stop_signal: owned(node, "stop_signal"),
            stop_grace: duration(node, "stop_grace_period"),
            ports: self.ports(node, path),
            expose: self.expose(node, path),
            mounts,
            files,
            network: self.network_mode(name, node, path),
            extra_hosts: super::network::hosts(node),
            dns: texts(node, "dns"),
            dns_search: texts(node, "dns_search"),
            dns_opt: texts(node, "dns_opt"),
            cap_add: texts(node, "cap_add"),
            cap_drop: texts(node, "cap_drop"),
            security_opt: texts(node, "security_opt"),
            privileged: flag("privileged"),
            read_only: flag("read_only"),
            devices: node.get_list("devices").iter().map(device).collect(),
            device_cgroup_rules: texts(node, "device_cgroup_rules"),
            device_requests: device_requests(node),
            sysctls: pairs(node, "sysctls"),
            tmpfs: texts(node, "tmpfs").into_iter().map(|mount| split_tmpfs(&mount)).collect(),
            resources: self.resources(node, path),
            logging: node.get("logging").map(|logging| Logging { driver: owned(logging, "driver"), options: pairs(logging, "options") }),
            pid: self.namespace(node, path, "pid"),
            ipc: owned(node, "ipc"),
            uts: owned(node, "uts"),
            userns_mode: owned(node, "userns_mode"),
            cgroup: owned(node, "cgroup"),
            cgroup_parent: owned(node, "cgroup_parent"),
            runtime: owned(node, "runtime"),
            isolation: owned(node, "isolation"),
            storage_opt: pairs(node, "storage_opt"),
            platform: owned(node, "platform"),
            annotations: pairs(node, "annotations"),
            volumes_from: self.volumes_from(node, path),
        }
    }

    fn namespace(&mut self, node: &Node, path: &str, key: &str) -> Option<String> {
        let value = node.get(key)?;
        let text = value.text()?;
        if text == "host" || text.starts_with("service:") || text.starts_with("container:") {
            return Some(text.to_owned());
        }
        let reason = format!("`{text}` is none of `host`, `service:NAME`, `container:NAME`");
        self.problems.add(&value.mark, &format!("{path}.{key}"), ProblemKind::BadValue, reason, "write one of these, or remove the key");
        None
    }

    /// `restart:`, or else `deploy.restart_policy`.
    fn restart(&mut self, node: &Node, path: &str) -> RestartPolicy {
        if let Some(restart) = node.get("restart") {
            let text = restart.text().unwrap_or_default();
            return match text.split_once(':').unwrap_or((text, "0")) {
                ("no", "0") => RestartPolicy::No,
                ("always", "0") => RestartPolicy::Always,
                ("unless-stopped", "0") => RestartPolicy::UnlessStopped,
                ("on-failure", times) if times.parse::<u64>().is_ok() => RestartPolicy::OnFailure(times.parse().unwrap_or(0)),
                _ => {
                    let reason = format!("`{text}` is not a restart policy");
                    let remedy = "write `no`, `always`, `unless-stopped` or `on-failure[:times]`";
                    self.problems.add(&restart.mark, &format!("{path}.restart"), ProblemKind::BadValue, reason, remedy);
                    RestartPolicy::No
                }
            };
        }
        let Some(policy) = node.get("deploy").and_then(|deploy| deploy.get("restart_policy")) else { return RestartPolicy::No };
        match policy.get_text("condition") {
            Some("none") => RestartPolicy::No,
            Some("on-failure") => RestartPolicy::OnFailure(unsigned(policy, "max_attempts").unwrap_or(0)),
            Some("unless-stopped") => RestartPolicy::UnlessStopped,
            _ => RestartPolicy::Always,
        }
    }

    fn ports(&mut self, node: &Node, path: &str) -> Vec<PortBinding> {
        let mut ports = Vec::new();
        for (index, port) in node.get_list("ports").iter().enumerate() {
            let path = format!("{path}.ports[{index}]");
            let Some(number) = port.get_int("target").and_then(|target| u16::try_from(target).ok()) else { continue };
            let Some(protocol) = protocol(port.get_text("protocol").unwrap_or("tcp")) else {
                let reason = "the protocol is none of `tcp`, `udp`, `sctp`";
                self.problems.add(&port.mark, &path, ProblemKind::BadValue, reason, "write `tcp`, `udp` or `sctp`");
                continue;
            };
            let host_ip = match port.get_text("host_ip").map(str::parse) {
                Some(Ok(address)) => Some(address),
                Some(Err(_)) => {
                    self.problems.add(&port.mark, &path, ProblemKind::BadValue, "`host_ip` is not an IP address", "write an IP address");
                    continue;
                }
                None => None,
            };
            // Port 0 asks the engine for a free one, as no port does.
            let published = port.get("published").and_then(Node::scalar_text).and_then(|text| range(&text).ok());
            let host_ports = published.filter(|ports| *ports != (0, 0));
            ports.push(PortBinding { container: ContainerPort { port: number, protocol }, host_ip, host_ports });
        }
        ports
    }

    fn expose(&mut self, node: &Node, path: &str) -> Vec<ContainerPort> {
        let mut exposed = Vec::new();
        for (index, item) in node.get_list("expose").iter().enumerate() {
            let text = item.scalar_text().unwrap_or_default();
            let (numbers, name) = text.split_once('/').unwrap_or((&text, "tcp"));
            match (range(numbers), protocol(name)) {
                (Ok((first, last)), Some(protocol)) => exposed.extend((first..=last).map(|port| ContainerPort { port, protocol })),
                _ => {
                    let reason = format!("`{text}` is not a port");
                    let path = format!("{path}.expose[{index}]");
                    self.problems.add(
                        &item.mark,
                        &path,
                        ProblemKind::BadValue,
                        reason,
                        "write a number, or a range, and `/udp` where it is UDP",
                    );
                }
            }
        }
        exposed
    }

    fn volumes_from(&mut self, node: &Node, path: &str) -> Vec<(ServiceName, bool)> {
        let mut all = Vec::new();
        for item in node.get_list("volumes_from") {
            let text = item.text().unwrap_or_default();
            let path = format!("{path}.volumes_from");
            if text.starts_with("container:") {
                self.refuse(&item.mark, &path, "the container is none of this project", "mount the volumes themselves");
                continue;
            }
            let (name, mode) = text.split_once(':').unwrap_or((text, "rw"));
            match (name.parse(), mode) {
                (Ok(name), "ro" | "rw") => all.push((name, mode == "ro")),
                _ => {
                    let reason = format!("`{text}` is not a service and a mode");
                    self.problems.add(&item.mark, &path, ProblemKind::BadValue, reason, "write it as `service:ro`");
                }
            }
        }
        all
    }
}

fn protocol(name: &str) -> Option<Protocol> {
    match name {
        "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        "sctp" => Some(Protocol::Sctp),
        _ => None,
    }
}

fn healthcheck(node: &Node) -> Healthcheck {
    let test = texts(node, "test");
    let mut rest = test.iter().skip(1).cloned();
    let test = match test.first().map(String::as_str) {
        _ if node.get_bool("disable") == Some(true) => HealthTest::Disabled,
        Some("NONE") => HealthTest::Disabled,
        Some("CMD") => HealthTest::Exec(rest.collect()),
        Some(_) => HealthTest::Shell(rest.next().unwrap_or_default()),
        None => HealthTest::Inherit,
    };
    Healthcheck {
        test,
        interval: duration(node, "interval"),
        timeout: duration(node, "timeout"),
        start_period: duration(node, "start_period"),
        start_interval: duration(node, "start_interval"),
        retries: unsigned(node, "retries"),
    }
}

fn device(node: &Node) -> Device {
    let text = |key: &str| owned(node, key).unwrap_or_default();
    let permissions = owned(node, "permissions").unwrap_or_else(|| "rwm".to_owned());
    let host = text("source");
    Device { container: owned(node, "target").unwrap_or_else(|| host.clone()), host, permissions }
}

/// `gpus:` and `deploy.resources.reservations.devices`.
fn device_requests(node: &Node) -> Vec<DeviceRequest> {
    let reserved = node.get("deploy").and_then(|deploy| deploy.get("resources")).and_then(|resources| resources.get("reservations"));
    let reserved = reserved.map_or(&[][..], |reservations| reservations.get_list("devices"));
    let requests = node.get_list("gpus").iter().chain(reserved);
    requests
        .map(|request| DeviceRequest {
            driver: owned(request, "driver"),
            count: request.get_int("count"),
            device_ids: texts(request, "device_ids"),
            capabilities: texts(request, "capabilities"),
            options: pairs(request, "options"),
        })
        .collect()
}

fn split_tmpfs(mount: &str) -> (String, String) {
    let (path, options) = mount.split_once(':').unwrap_or((mount, ""));
    (path.to_owned(), options.to_owned())
}

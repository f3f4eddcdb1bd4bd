//! Every field of a definition reaches the engine, and every change of one is seen.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bollard::query_parameters::InspectContainerOptions;
use kaleem_core::definition::{
    ContainerPort, Definition, Device, DeviceRequest, HealthTest, Healthcheck, InjectedFile, Ipam, IpamPool, Logging, Mount, MountSource,
    NetworkAttachment, NetworkDefinition, NetworkMode, PortBinding, Protocol, Resources as Limits, RestartPolicy, VolumeDefinition,
};
use kaleem_core::names::ProjectName;
use kaleem_core::runtime::{Containers as _, Inspect as _, InstanceSpec, OwnedContainer, Resources as _, compose_labels};
use serde_json::json;

use super::lab::{Lab, lab, project};
use super::remove_volumes;

/// A container named `<project>-<service>` with the least labels.
pub(crate) fn spec(lab: &Lab, project: &ProjectName, service: &str, definition: Definition) -> InstanceSpec {
    let mut labels = definition.labels.clone();
    labels.insert(compose_labels::PROJECT.to_owned(), project.to_string());
    labels.insert(compose_labels::SERVICE.to_owned(), service.to_owned());
    InstanceSpec {
        name: format!("{project}-{service}").parse().unwrap(),
        project: project.clone(),
        service: service.parse().unwrap(),
        image: lab.runs.clone(),
        labels,
        definition: Arc::new(definition),
        companions: BTreeMap::new(),
    }
}

pub(crate) fn owned(spec: &InstanceSpec) -> OwnedContainer {
    OwnedContainer { project: spec.project.clone(), name: spec.name.clone() }
}

pub(crate) fn network(project: &ProjectName, key: &str, subnet: Option<&str>) -> NetworkDefinition {
    let pools = subnet.map(|subnet| IpamPool { subnet: Some(subnet.to_owned()), ..IpamPool::default() }).into_iter().collect();
    NetworkDefinition {
        name: format!("{project}_{key}").parse().unwrap(),
        key: key.to_owned(),
        external: false,
        driver: Some("bridge".to_owned()),
        driver_opts: BTreeMap::new(),
        attachable: true,
        internal: false,
        enable_ipv6: false,
        labels: [("mine".to_owned(), "1".to_owned())].into(),
        ipam: Ipam { pools, ..Ipam::default() },
    }
}

pub(crate) fn attach(network: &NetworkDefinition, alias: &str) -> NetworkAttachment {
    NetworkAttachment {
        network: network.name.clone(),
        aliases: vec![alias.to_owned()],
        ipv4: None,
        ipv6: None,
        link_local_ips: Vec::new(),
        mac_address: None,
        driver_opts: BTreeMap::new(),
    }
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

fn pairs(list: &[(&str, &str)]) -> BTreeMap<String, String> {
    list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn mount(target: &str, read_only: bool, source: MountSource) -> Mount {
    Mount { target: target.to_owned(), read_only, source }
}

fn limits() -> Limits {
    Limits {
        memory_bytes: Some(64 << 20),
        memory_swap_bytes: Some(128 << 20),
        memory_reservation_bytes: Some(32 << 20),
        memory_swappiness: Some(30),
        oom_kill_disable: Some(false),
        oom_score_adj: Some(200),
        nano_cpus: Some(500_000_000),
        cpu_shares: Some(512),
        cpuset: Some("0".to_owned()),
        pids_limit: Some(50),
        shm_size_bytes: Some(8 << 20),
        ulimits: vec![("nofile".to_owned(), 1000, 2000)],
        ..Limits::default()
    }
}

/// A definition with nearly every field.
fn full(project: &ProjectName, host_path: &str) -> Definition {
    let (front, back) = (network(project, "front", None), network(project, "back", None));
    let front = NetworkAttachment {
        ipv4: Some("10.213.7.9".to_owned()),
        mac_address: Some("02:42:0a:d5:07:09".to_owned()),
        ..attach(&front, "web")
    };
    let bind = |path: &str, create_host_path, propagation: Option<&str>| MountSource::Bind {
        path: path.to_owned(),
        create_host_path,
        propagation: propagation.map(str::to_owned),
        selinux: None,
    };
    let volume = format!("{project}_data").parse().unwrap();
    Definition {
        command: Some(texts(&["run", "x"])),
        entrypoint: Some(texts(&["/app"])),
        environment: [("A".to_owned(), Some("1=2".to_owned())), ("FROM_IMAGE".to_owned(), None)].into(),
        labels: pairs(&[("mine", "1")]),
        user: Some("1000:1000".to_owned()),
        group_add: texts(&["44"]),
        working_dir: Some("/tmp".to_owned()),
        hostname: Some("box".to_owned()),
        domainname: Some("lab".to_owned()),
        init: Some(true),
        tty: true,
        stdin_open: true,
        healthcheck: Some(Healthcheck {
            test: HealthTest::Exec(texts(&["/app", "healthy"])),
            interval: Some(Duration::from_secs(7)),
            timeout: Some(Duration::from_secs(3)),
            start_period: Some(Duration::from_secs(2)),
            start_interval: None,
            retries: Some(4),
        }),
        restart: RestartPolicy::Always,
        stop_signal: Some("SIGUSR1".to_owned()),
        stop_grace: Some(Duration::from_millis(4500)),
        ports: vec![PortBinding {
            container: ContainerPort { port: 80, protocol: Protocol::Tcp },
            host_ip: Some("127.0.0.1".parse().unwrap()),
            host_ports: Some((18080, 18089)),
        }],
        expose: vec![ContainerPort { port: 90, protocol: Protocol::Udp }],
        mounts: vec![
            mount("/made", false, bind(&format!("{host_path}/made"), true, None)),
            mount("/there", true, bind(host_path, false, Some("rslave"))),
            mount("/data", false, MountSource::Volume { name: volume, nocopy: true, subpath: None }),
            mount("/scratch", false, MountSource::Anonymous),
            mount("/fast", false, MountSource::Tmpfs { size_bytes: Some(1 << 20), mode: Some(0o1770) }),
        ],
        network: NetworkMode::Networks(vec![front, attach(&back, "web")]),
        extra_hosts: vec![("db".to_owned(), "10.0.0.1".to_owned())],
        dns: texts(&["10.0.0.53"]),
        dns_search: texts(&["lab"]),
        dns_opt: texts(&["ndots:2"]),
        cap_add: texts(&["NET_ADMIN"]),
        cap_drop: texts(&["MKNOD"]),
        security_opt: texts(&["no-new-privileges:true"]),
        read_only: true,
        devices: vec![Device { host: "/dev/null".to_owned(), container: "/dev/nothing".to_owned(), permissions: "rw".to_owned() }],
        device_cgroup_rules: texts(&["c 1:3 r"]),
        device_requests: vec![DeviceRequest {
            driver: Some("d".to_owned()),
            count: Some(-1),
            capabilities: texts(&["gpu"]),
            ..Default::default()
        }],
        sysctls: pairs(&[("net.core.somaxconn", "512")]),
        tmpfs: pairs(&[("/run", "size=1m"), ("/var/tmp", "")]),
        resources: limits(),
        logging: Some(Logging { driver: Some("json-file".to_owned()), options: pairs(&[("max-size", "1m")]) }),
        pid: Some("host".to_owned()),
        ipc: Some("shareable".to_owned()),
        uts: None,
        cgroup_parent: Some("/kt-docker".to_owned()),
        cgroup: Some("host".to_owned()),
        runtime: Some("runc".to_owned()),
        files: vec![InjectedFile { path: "/run/secrets/key".to_owned(), content: "k".to_owned(), mode: 0o440, uid: 1000, gid: 7 }],
        ..Definition::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_of_a_definition_reaches_the_engine_and_every_change_is_seen() {
    let Some(lab) = lab().await else { return };
    let project = project("map");
    let directory = tempfile::tempdir().unwrap();
    let host_path = directory.path().to_str().unwrap();
    let data = VolumeDefinition {
        name: format!("{project}_data").parse().unwrap(),
        key: "data".to_owned(),
        external: false,
        driver: None,
        driver_opts: BTreeMap::new(),
        labels: BTreeMap::new(),
    };
    lab.runtime.create_volume(&project, &data).await.unwrap();
    let networks = [network(&project, "front", Some("10.213.7.0/24")), network(&project, "back", None)];
    for network in &networks {
        lab.runtime.create_network(&project, network).await.unwrap();
    }
    let definition = full(&project, host_path);
    let wanted = spec(lab, &project, "api", definition.clone());
    lab.runtime.create(&wanted).await.unwrap();

    let found = lab.docker.inspect_container(wanted.name.as_str(), None::<InspectContainerOptions>).await.unwrap();
    let (config, host) = (serde_json::to_value(&found.config).unwrap(), serde_json::to_value(&found.host_config).unwrap());
    for (what, found, expected) in [
        ("command", &config["Cmd"], json!(["run", "x"])),
        ("environment", &config["Env"], json!(["A=1=2", "FROM_IMAGE"])),
        ("user", &config["User"], json!("1000:1000")),
        ("hostname", &config["Hostname"], json!("box")),
        ("stop signal", &config["StopSignal"], json!("SIGUSR1")),
        ("stop time, rounded up", &config["StopTimeout"], json!(5)),
        ("health check", &config["Healthcheck"]["Test"], json!(["CMD", "/app", "healthy"])),
        ("health interval", &config["Healthcheck"]["Interval"], json!(7_000_000_000_u64)),
        ("exposed ports", &config["ExposedPorts"], json!({ "80/tcp": {}, "90/udp": {} })),
        ("labels", &config["Labels"]["mine"], json!("1")),
        ("published ports", &host["PortBindings"], json!({ "80/tcp": [{ "HostIp": "127.0.0.1", "HostPort": "18080-18089" }] })),
        ("no restart before the start", &host["RestartPolicy"]["Name"], json!("no")),
        ("memory", &host["Memory"], json!(64 << 20)),
        ("swap", &host["MemorySwap"], json!(128 << 20)),
        ("processor", &host["NanoCpus"], json!(500_000_000)),
        ("processes", &host["PidsLimit"], json!(50)),
        ("limits of files", &host["Ulimits"], json!([{ "Name": "nofile", "Soft": 1000, "Hard": 2000 }])),
        ("made host path", &host["Binds"], json!([format!("{host_path}/made:/made:rw")])),
        ("short tmpfs", &host["Tmpfs"], json!({ "/run": "size=1m", "/var/tmp": "" })),
        ("capabilities", &host["CapDrop"], json!(["MKNOD"])),
        ("kernel parameters", &host["Sysctls"], json!({ "net.core.somaxconn": "512" })),
        ("logging", &host["LogConfig"], json!({ "Type": "json-file", "Config": { "max-size": "1m" } })),
        ("network", &host["NetworkMode"], json!(networks[0].name.as_str())),
        ("processes of the host", &host["PidMode"], json!("host")),
        ("read-only root", &host["ReadonlyRootfs"], json!(true)),
    ] {
        assert_eq!(*found, expected, "{what}");
    }
    let endpoints = found.network_settings.unwrap().networks.unwrap();
    assert_eq!(endpoints.len(), 2, "both networks are there before the start");
    let front = &endpoints[networks[0].name.as_str()];
    assert_eq!(front.ipam_config.as_ref().unwrap().ipv4_address.as_deref(), Some("10.213.7.9"));
    assert!(front.aliases.as_ref().unwrap().contains(&"web".to_owned()));
    assert!(directory.path().join("made").is_dir(), "the missing host path was made");

    assert_eq!(lab.runtime.drift(&wanted).await.unwrap(), Vec::<String>::new(), "it does not differ from itself");
    for (name, change) in changes() {
        let mut other = definition.clone();
        change(&mut other);
        let names = lab.runtime.drift(&spec(lab, &project, "api", other)).await.unwrap();
        let wanted = name.replace("PROJECT", project.as_str());
        assert_eq!(names, [wanted], "only what was changed is named");
    }

    lab.runtime.remove(&owned(&wanted)).await.unwrap();
    for network in &networks {
        lab.runtime.remove_network(&project, &network.name).await.unwrap();
    }
    remove_volumes(lab, project.as_str()).await;
}

type Change = (&'static str, fn(&mut Definition));

fn networks_of(definition: &mut Definition) -> &mut Vec<NetworkAttachment> {
    match &mut definition.network {
        NetworkMode::Networks(attachments) => attachments,
        other => panic!("{other:?}"),
    }
}

fn changes() -> Vec<Change> {
    vec![
        ("command", |d| d.command = Some(texts(&["run"]))),
        ("entrypoint", |d| d.entrypoint = Some(texts(&["/app", "run"]))),
        ("environment.A", |d| _ = d.environment.insert("A".to_owned(), Some("2".to_owned()))),
        ("environment.NEW", |d| _ = d.environment.insert("NEW".to_owned(), Some(String::new()))),
        ("environment.FROM_IMAGE", |d| _ = d.environment.remove("FROM_IMAGE")),
        ("user", |d| d.user = None),
        ("group_add", |d| d.group_add = Vec::new()),
        ("working_dir", |d| d.working_dir = None),
        ("hostname", |d| d.hostname = Some("other".to_owned())),
        ("domainname", |d| d.domainname = None),
        ("tty", |d| d.tty = false),
        ("stdin_open", |d| d.stdin_open = false),
        ("healthcheck", |d| d.healthcheck.as_mut().unwrap().retries = Some(5)),
        ("healthcheck", |d| d.healthcheck.as_mut().unwrap().test = HealthTest::Disabled),
        ("stop_signal", |d| d.stop_signal = None),
        ("stop_grace", |d| d.stop_grace = Some(Duration::from_secs(9))),
        ("ports", |d| d.ports[0].host_ports = Some((18081, 18081))),
        ("expose", |d| d.expose = Vec::new()),
        ("mounts./made", |d| d.mounts[0].read_only = true),
        ("mounts./there", |d| _ = d.mounts.remove(1)),
        ("mounts./data", |d| d.mounts[2].source = MountSource::Anonymous),
        ("mounts./fast", |d| d.mounts[4].source = MountSource::Tmpfs { size_bytes: None, mode: None }),
        ("mounts./run", |d| _ = d.tmpfs.insert("/run".to_owned(), "size=2m".to_owned())),
        ("network.PROJECT_front", |d| networks_of(d)[0].ipv4 = None),
        ("network.PROJECT_back", |d| networks_of(d)[1].aliases.push("other".to_owned())),
        ("network.PROJECT_back", |d| _ = networks_of(d).remove(1)),
        ("extra_hosts", |d| d.extra_hosts = Vec::new()),
        ("dns", |d| d.dns = Vec::new()),
        ("dns_search", |d| d.dns_search = Vec::new()),
        ("dns_opt", |d| d.dns_opt = Vec::new()),
        ("cap_add", |d| d.cap_add = Vec::new()),
        ("cap_drop", |d| d.cap_drop = texts(&["CHOWN"])),
        ("security_opt", |d| d.security_opt = Vec::new()),
        ("privileged", |d| d.privileged = true),
        ("devices", |d| d.devices[0].permissions = "r".to_owned()),
        ("device_cgroup_rules", |d| d.device_cgroup_rules = Vec::new()),
        ("device_requests", |d| d.device_requests[0].count = Some(1)),
        ("sysctls", |d| d.sysctls = BTreeMap::new()),
        ("logging", |d| d.logging = Some(Logging { driver: Some("json-file".to_owned()), options: BTreeMap::new() })),
        ("pid", |d| d.pid = None),
        ("ipc", |d| d.ipc = Some("private".to_owned())),
        ("cgroup_parent", |d| d.cgroup_parent = None),
        ("cgroup", |d| d.cgroup = Some("private".to_owned())),
        ("resources.memory_bytes", |d| d.resources.memory_bytes = Some(65 << 20)),
        ("resources.memory_swap_bytes", |d| d.resources.memory_swap_bytes = Some(-1)),
        ("resources.nano_cpus", |d| d.resources.nano_cpus = None),
        ("resources.oom_score_adj", |d| d.resources.oom_score_adj = None),
        ("resources.pids_limit", |d| d.resources.pids_limit = None),
        ("resources.ulimits", |d| d.resources.ulimits[0].2 = 3000),
        ("resources.cpuset", |d| d.resources.cpuset = None),
        ("files./run/secrets/key", |d| d.files[0].content = "other".to_owned()),
    ]
}

//! From compose text to typed definitions.

use std::collections::BTreeMap;
use std::time::Duration;

use kaleem_core::config::{Dependency, DependencyCondition, Project, PullPolicy, Service, UpdateOrder, load, settings_schema};
use kaleem_core::definition::{
    ContainerPort, HealthTest, MountSource, NetworkAttachment, NetworkMode, PortBinding, Protocol, RestartPolicy,
};

use crate::compose_errors::project;

fn loaded(text: &str) -> Project {
    let (_directory, options) = project(&[("compose.yaml", text)]);
    load(&options).unwrap_or_else(|error| panic!("{error}"))
}

/// The service `api` with these keys beside its image.
fn api(keys: &str) -> Service {
    let keys: Vec<String> = keys.lines().map(|line| format!("    {line}")).collect();
    service(&loaded(&format!("services:\n  api:\n    image: example/api\n{}\n  db: {{image: postgres}}\n", keys.join("\n"))), "api")
}

fn service(project: &Project, name: &str) -> Service {
    project.services.get(&name.parse().expect("a name")).expect("the service is there").clone()
}

fn attachments(service: &Service) -> Vec<NetworkAttachment> {
    match &service.definition.network {
        NetworkMode::Networks(all) => all.clone(),
        other => panic!("the service is on no network of its own: {other:?}"),
    }
}

#[test]
fn ports_lead_from_the_host_to_the_container() {
    let ports = api("ports: [80, \"127.0.0.1:8443:443\", \"[::1]:53:53/udp\", \"7000-7005:86\", \"0:90\", \"9000-9001:9000-9001\"]")
        .definition
        .ports;
    let binding = |port, protocol, host_ip: Option<&str>, host_ports| PortBinding {
        container: ContainerPort { port, protocol },
        host_ip: host_ip.map(|address| address.parse().expect("an address")),
        host_ports,
    };
    assert_eq!(
        ports,
        [
            binding(80, Protocol::Tcp, None, None),
            binding(443, Protocol::Tcp, Some("127.0.0.1"), Some((8443, 8443))),
            binding(53, Protocol::Udp, Some("::1"), Some((53, 53))),
            binding(86, Protocol::Tcp, None, Some((7000, 7005))),
            binding(90, Protocol::Tcp, None, None),
            binding(9000, Protocol::Tcp, None, Some((9000, 9000))),
            binding(9001, Protocol::Tcp, None, Some((9001, 9001))),
        ]
    );
    let exposed: Vec<(u16, Protocol)> =
        api("expose: [80, \"90-91\", \"53/udp\"]").definition.expose.iter().map(|port| (port.port, port.protocol)).collect();
    assert_eq!(exposed, [(80, Protocol::Tcp), (90, Protocol::Tcp), (91, Protocol::Tcp), (53, Protocol::Udp)]);
}

#[test]
fn mounts_know_the_full_names_of_volumes_and_absolute_paths() {
    let text = "services:\n  api:\n    image: x\n    volumes:\n      - data:/data:ro\n      - ./conf:/conf\n      - /anonymous\n      - {type: bind, source: /etc/x, target: /x, read_only: true}\n      - {type: tmpfs, target: /t, tmpfs: {size: 1m, mode: 0700}}\n    tmpfs: [/run, \"/tmp:size=1m\"]\nvolumes:\n  data:\n";
    let (directory, options) = project(&[("compose.yaml", text)]);
    let project = load(&options).expect("a project");
    let definition = service(&project, "api").definition;
    let sources: Vec<(&str, bool, MountSource)> =
        definition.mounts.iter().map(|mount| (mount.target.as_str(), mount.read_only, mount.source.clone())).collect();
    let bind = |path: String, create_host_path| MountSource::Bind { path, create_host_path, propagation: None, selinux: None };
    assert_eq!(
        sources,
        [
            ("/data", true, MountSource::Volume { name: "shop_data".parse().expect("a name"), nocopy: false, subpath: None }),
            ("/conf", false, bind(directory.path().join("conf").display().to_string(), true)),
            ("/anonymous", false, MountSource::Anonymous),
            ("/x", true, bind("/etc/x".to_owned(), false)),
            ("/t", false, MountSource::Tmpfs { size_bytes: Some(1 << 20), mode: Some(0o700) }),
        ]
    );
    assert_eq!(definition.tmpfs, BTreeMap::from([("/run".to_owned(), String::new()), ("/tmp".to_owned(), "size=1m".to_owned())]));
    assert_eq!(project.volumes.get("data").map(|volume| volume.name.as_str()), Some("shop_data"));
}

#[test]
fn a_service_is_found_under_its_name_on_every_network_and_the_first_one_has_the_highest_priority() {
    let project = loaded(
        "services:\n  api:\n    image: x\n    links: [\"db:store\"]\n    mac_address: 02:42:ac:11:65:43\n    networks:\n      back: {aliases: [inner, api], ipv4_address: 10.0.0.5}\n      front: {priority: 10}\n  db: {image: y, networks: [back, own]}\n  plain: {image: z}\nnetworks:\n  back: {ipam: {config: [{subnet: 10.0.0.0/24}], options: {a: b}}}\n  front: {external: true, name: shared}\n  own:\n  unused:\n",
    );
    let api = attachments(&service(&project, "api"));
    let told: Vec<(&str, Vec<&str>)> =
        api.iter().map(|one| (one.network.as_str(), one.aliases.iter().map(String::as_str).collect())).collect();
    assert_eq!(told, [("shared", vec!["api"]), ("shop_back", vec!["api", "inner"])]);
    assert_eq!(api.first().and_then(|first| first.mac_address.as_deref()), Some("02:42:ac:11:65:43"), "on the first network");
    assert_eq!(api.last().and_then(|last| last.ipv4.as_deref()), Some("10.0.0.5"));
    let db = attachments(&service(&project, "db"));
    let told: Vec<(&str, Vec<&str>)> =
        db.iter().map(|one| (one.network.as_str(), one.aliases.iter().map(String::as_str).collect())).collect();
    assert_eq!(told, [("shop_back", vec!["db", "store"]), ("shop_own", vec!["db"])], "a link counts where both are");
    assert_eq!(attachments(&service(&project, "plain")).first().map(|one| one.network.as_str()), Some("shop_default"));
    let keys: Vec<&String> = project.networks.keys().collect();
    assert_eq!(keys, ["back", "default", "front", "own"], "what nobody uses is not there");
    assert_eq!(project.networks.get("front").map(|network| network.external), Some(true));
    let ipam = project.networks.get("back").map(|network| network.ipam.clone()).expect("the network is there");
    assert_eq!(ipam.options, BTreeMap::from([("a".to_owned(), "b".to_owned())]));
}

#[test]
fn a_service_may_share_the_network_of_another() {
    for (mode, want) in [
        ("host", NetworkMode::Host),
        ("none", NetworkMode::None),
        ("bridge", NetworkMode::Bridge),
        ("service:db", NetworkMode::Service("db".parse().expect("a name"))),
        ("container:other", NetworkMode::Container("other".to_owned())),
    ] {
        let service = api(&format!("network_mode: \"{mode}\""));
        assert_eq!(service.definition.network, want, "{mode}");
        assert_eq!(service.depends_on.len(), usize::from(mode == "service:db"), "{mode}: what it shares must be up before it");
    }
}

#[test]
fn a_health_check_is_a_program_a_line_for_the_shell_the_image_s_own_or_off() {
    let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    for (keys, want) in [
        ("{test: \"curl x || exit 1\"}", HealthTest::Shell("curl x || exit 1".to_owned())),
        ("{test: [CMD-SHELL, a b]}", HealthTest::Shell("a b".to_owned())),
        ("{test: [CMD, a, b c]}", HealthTest::Exec(list(&["a", "b c"]))),
        ("{test: [NONE]}", HealthTest::Disabled),
        ("{disable: true}", HealthTest::Disabled),
        ("{interval: 5s}", HealthTest::Inherit),
    ] {
        let check = api(&format!("healthcheck: {keys}")).definition.healthcheck.expect("a check");
        assert_eq!(check.test, want, "{keys}");
    }
    let check = api("healthcheck: {test: x, interval: 1m30s, timeout: 500ms, retries: 0, start_period: 1h}").definition.healthcheck;
    let check = check.expect("a check");
    assert_eq!((check.interval, check.timeout), (Some(Duration::from_secs(90)), Some(Duration::from_millis(500))));
    assert_eq!((check.start_period, check.retries), (Some(Duration::from_secs(3600)), Some(0)));
}

#[test]
fn limits_come_from_the_service_s_own_keys_and_from_deploy() {
    let own = api("mem_limit: 1g\nmem_reservation: 512m\nmemswap_limit: -1\ncpus: 0.5\npids_limit: 10\nshm_size: 64m\nulimits: {nofile: {soft: 1, hard: 2}, nproc: 3}\nblkio_config: {weight: 300, device_read_bps: [{path: /dev/sda, rate: 1mb}]}").definition.resources;
    assert_eq!((own.memory_bytes, own.memory_reservation_bytes, own.memory_swap_bytes), (Some(1 << 30), Some(512 << 20), Some(-1)));
    assert_eq!((own.nano_cpus, own.pids_limit, own.shm_size_bytes), (Some(500_000_000), Some(10), Some(64 << 20)));
    assert_eq!(own.ulimits, [("nofile".to_owned(), 1, 2), ("nproc".to_owned(), 3, 3)]);
    assert_eq!((own.blkio_weight, own.blkio_read_bps), (Some(300), vec![("/dev/sda".to_owned(), 1 << 20)]));
    let service = api(
        "deploy:\n  replicas: 3\n  resources: {limits: {cpus: \"1.5\", memory: 2g, pids: 7}, reservations: {memory: 1g, devices: [{capabilities: [gpu], count: 2}]}}\n  restart_policy: {condition: on-failure, max_attempts: 4}\n  update_config: {parallelism: 2, delay: 10s, order: start-first}",
    );
    let deploy = service.definition.resources;
    assert_eq!((deploy.memory_bytes, deploy.nano_cpus, deploy.pids_limit), (Some(2 << 30), Some(1_500_000_000), Some(7)));
    assert_eq!(deploy.memory_reservation_bytes, Some(1 << 30));
    assert_eq!(service.replicas, 3);
    assert_eq!(service.definition.restart, RestartPolicy::OnFailure(4));
    assert_eq!(service.definition.device_requests.first().map(|request| request.count), Some(Some(2)));
    assert_eq!((service.update.parallelism, service.update.order), (Some(2), Some(UpdateOrder::StartFirst)));
    assert_eq!(service.update.delay, Some(Duration::from_secs(10)));
}

#[test]
fn secrets_of_files_are_mounted_and_those_of_variables_are_written() {
    let text = "services:\n  api:\n    image: x\n    secrets: [a, {source: b, target: other, uid: \"5\", mode: 0400}]\n    configs: [c, {source: d, target: /etc/d.conf}]\nsecrets: {a: {file: ./a.txt}, b: {environment: TOKEN}}\nconfigs: {c: {content: \"port=${PORT:-80}\"}, d: {file: ./d}}\n";
    let (directory, mut options) = project(&[("compose.yaml", text)]);
    options.environment.insert("TOKEN".to_owned(), "hunter2".to_owned());
    let project = load(&options).expect("a project");
    let definition = service(&project, "api").definition;
    let mounts: Vec<(&str, bool, &MountSource)> =
        definition.mounts.iter().map(|mount| (mount.target.as_str(), mount.read_only, &mount.source)).collect();
    let bind = |name: &str| MountSource::Bind {
        path: directory.path().join(name).display().to_string(),
        create_host_path: false,
        propagation: None,
        selinux: None,
    };
    assert_eq!(mounts, [("/run/secrets/a", true, &bind("a.txt")), ("/etc/d.conf", true, &bind("d"))]);
    let files: Vec<(&str, &str, u32, u64)> =
        definition.files.iter().map(|file| (file.path.as_str(), file.content.as_str(), file.mode, file.uid)).collect();
    assert_eq!(files, [("/run/secrets/other", "hunter2", 0o400, 5), ("/c", "port=80", 0o444, 0)]);
    assert!(!format!("{:?}", definition.files).contains("hunter2"), "a secret must not be shown");
}

#[test]
fn dependencies_policies_and_the_rest_are_typed() {
    let service = api(
        "depends_on: {db: {condition: service_healthy, restart: true}, gone: {condition: service_started, required: false}}\nrestart: on-failure:3\npull_policy: if_not_present\ncommand: run --now\nentrypoint: []\nenvironment: {A: 1, B: , C: \"\"}\nuser: \"0\"\ninit: false\nstop_grace_period: 1m\nextra_hosts: [\"a=::1\", \"b:10.0.0.1\"]\nvolumes_from: [\"db:ro\"]\nlogging: {driver: json-file, options: {max-file: 3}}\nsysctls: [net.core.somaxconn=1024]\nlabels: [bare]",
    );
    let db = Dependency { condition: DependencyCondition::ServiceHealthy, restart: true, required: true };
    assert_eq!(service.depends_on, BTreeMap::from([("db".parse().expect("a name"), db)]), "what may be absent is not waited for");
    assert_eq!(service.pull_policy, PullPolicy::Missing);
    let definition = service.definition;
    assert_eq!(definition.restart, RestartPolicy::OnFailure(3));
    assert_eq!(definition.command, Some(vec!["run".to_owned(), "--now".to_owned()]));
    assert_eq!(definition.entrypoint, Some(vec![]), "an empty list resets the image's");
    let variable = |name: &str| definition.environment.get(name).cloned();
    assert_eq!((variable("A"), variable("B"), variable("C")), (Some(Some("1".to_owned())), Some(None), Some(Some(String::new()))));
    assert_eq!((definition.user.as_deref(), definition.init), (Some("0"), Some(false)));
    assert_eq!(definition.stop_grace, Some(Duration::from_secs(60)));
    assert_eq!(definition.extra_hosts, [("a".to_owned(), "::1".to_owned()), ("b".to_owned(), "10.0.0.1".to_owned())]);
    assert_eq!(definition.volumes_from, [("db".parse().expect("a name"), true)]);
    assert_eq!(definition.logging.map(|logging| logging.options), Some(BTreeMap::from([("max-file".to_owned(), "3".to_owned())])));
    assert_eq!(definition.sysctls.get("net.core.somaxconn").map(String::as_str), Some("1024"));
    assert_eq!(definition.labels.get("bare").map(String::as_str), Some(""));
}

#[test]
fn gpus_and_label_files_are_carried_out() {
    let text = "services:\n  api: {image: x, gpus: all, label_file: l.env, labels: {b: own}}\n";
    let (_directory, options) = project(&[("compose.yaml", text), ("l.env", "a=1\nb=2\n")]);
    let definition = service(&load(&options).expect("a project"), "api").definition;
    let gpu = definition.device_requests.first().expect("a request");
    assert_eq!((gpu.count, gpu.capabilities.as_slice()), (Some(-1), &["gpu".to_owned()][..]));
    assert_eq!(definition.labels, BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), "own".to_owned())]));
}

#[test]
fn settings_are_read_from_beside_the_compose_file_and_have_a_schema() {
    let toml = "keep = 3\n[services.api]\nstrategy = \"blue-green\"\n[services.api.health]\nhttp = \"/health\"\ninterval = \"1m30s\"\n";
    let (_directory, options) = project(&[("compose.yaml", "services: {api: {image: x}}\n"), ("kaleem.toml", toml)]);
    let settings = load(&options).expect("a project").settings;
    assert_eq!(settings.keep, Some(3));
    let health = settings.services.values().next().and_then(|service| service.health.clone()).expect("health is set");
    assert_eq!(health.interval.map(|interval| interval.0), Some(Duration::from_secs(90)));
    let schema = settings_schema();
    assert_eq!(schema.pointer("/properties/keep/type/0").and_then(serde_json::Value::as_str), Some("integer"), "{schema}");
    assert_eq!(schema.pointer("/additionalProperties"), Some(&serde_json::Value::Bool(false)));
}

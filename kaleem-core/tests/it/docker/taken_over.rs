//! What Compose made is taken over as it is, in whatever spelling the file asks for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use kaleem_core::config::{LoadOptions, load};
use kaleem_core::runtime::{Inspect as _, InstanceSpec};

use super::lab::{lab, project, variable};

/// Services of one project, all of the same program; PORT is a free port of the host.
const SERVICES: &str = r#"
services:
  ports:
    image: IMAGE
    expose: ["6379", "7000-7002", "8000/udp", "9000/tcp"]
    ports: ["127.0.0.1:PORT:6379", "127.0.0.1::8100"]
  limits:
    image: IMAGE
    ulimits: {nofile: {soft: 1024, hard: 2048}, nproc: 512}
    mem_limit: 256m
    mem_reservation: 64M
    memswap_limit: 512m
    cpus: 0.5
    cpu_shares: 512
    pids_limit: 100
    shm_size: 64m
    oom_score_adj: 100
  program:
    image: IMAGE
    entrypoint: /app
    command: run "one two"
    working_dir: /tmp
    user: "0:0"
    hostname: a-host
    domainname: example.com
    stop_grace_period: 1m30s
    stop_signal: SIGINT
    init: true
    tty: true
    stdin_open: true
    environment: {A: 1, B: "", C: "true", D: null}
    labels: {x: 1, y: "true"}
    healthcheck: {test: ["CMD", "/app", "healthy"], interval: 90s, timeout: 1m30s, retries: 3, start_period: 0s}
  empty:
    image: IMAGE
    entrypoint: ["/app"]
    command: ["run"]
    healthcheck: {disable: true}
  rights:
    image: IMAGE
    cap_add: [net_admin, CAP_CHOWN]
    cap_drop: [mknod]
    security_opt: ["no-new-privileges:true"]
    group_add: ["1000"]
    read_only: true
    devices: ["/dev/null", "/dev/zero:/dev/other", "/dev/full:/dev/third:r"]
    sysctls: {net.core.somaxconn: 1024}
  mounts:
    image: IMAGE
    tmpfs: ["/run/a", "/run/b:size=1m,mode=1777"]
    volumes:
      - ./given:/mnt/given
      - ./given/:/mnt/slash/
      - ./given:/mnt/read:ro
      - data:/data
      - /nameless
      - {type: tmpfs, target: /run/t, tmpfs: {size: 1048576}}
      - {type: volume, source: data, target: /data2, read_only: true}
      - {type: bind, source: ./given, target: /mnt/long}
  names:
    image: IMAGE
    extra_hosts: ["one:10.0.0.1", "host.docker.internal:host-gateway"]
    dns: 9.9.9.9
    dns_search: example.com
    logging: {driver: json-file, options: {max-size: "10m", max-file: "3"}}
    networks: {default: {aliases: [another]}, back: {}}
networks: {back: {}}
volumes: {data: {}}
"#;

#[expect(clippy::disallowed_methods, reason = "Compose itself is what this test is about")]
fn compose(program: &str, directory: &std::path::Path, name: &str, arguments: &[&str]) {
    let mut command = std::process::Command::new(program);
    command.current_dir(directory).args(["-p", name, "-f", "docker-compose.yml"]).args(arguments);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_compose_made_is_no_change_in_any_spelling() {
    let Some(lab) = lab().await else { return };
    let newer = variable("KALEEM_COMPOSE_ORACLE");
    let older = Some("/usr/bin/docker-compose".to_owned()).filter(|path| std::path::Path::new(path).exists());
    assert!(newer.is_some() || variable("CI").is_none(), "KALEEM_COMPOSE_ORACLE names no docker-compose program");
    for (which, program) in [("two", newer), ("one", older)] {
        let Some(program) = program else {
            println!("skipped: there is no Compose of version {which}");
            continue;
        };
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("given")).unwrap();
        let port = kaleem_core::testing::free_port().to_string();
        let text = SERVICES.replace("IMAGE", &lab.runs.image.to_string()).replace("PORT", &port);
        kaleem_core::durable::write_atomic(&directory.path().join("docker-compose.yml"), text.as_bytes(), 0o644).unwrap();
        let name = project(&format!("over-{which}"));
        compose(&program, directory.path(), name.as_str(), &["up", "-d"]);
        let options = LoadOptions {
            directory: directory.path().to_path_buf(),
            files: Vec::new(),
            env_files: Vec::new(),
            environment: BTreeMap::new(),
            profiles: Vec::new(),
            project_name: Some(name.clone()),
            settings_file: None,
        };
        let loaded = load(&options).unwrap();
        let made = lab.runtime.list(&name).await.unwrap();
        let mut changes = Vec::new();
        for instance in &made {
            let service = &loaded.services[&instance.service];
            let spec = InstanceSpec {
                name: instance.name.clone(),
                project: name.clone(),
                service: instance.service.clone(),
                image: lab.runs.clone(),
                labels: BTreeMap::new(),
                definition: Arc::new(service.definition.clone()),
                companions: BTreeMap::new(),
            };
            changes.extend(lab.runtime.drift(&spec).await.unwrap().into_iter().map(|field| format!("{}: {field}", instance.service)));
        }
        compose(&program, directory.path(), name.as_str(), &["down", "-v", "-t", "1"]);
        assert_eq!(made.len(), loaded.services.len(), "version {which}");
        assert_eq!(changes, Vec::<String>::new(), "version {which}");
    }
}

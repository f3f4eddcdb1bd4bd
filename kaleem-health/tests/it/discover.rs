//! What a compose file says about its dependencies, without any configuration of probes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kaleem_core::config::{ComposeHash, Inputs, Origin, Project, PullPolicy, Service, Settings, UpdateSettings};
use kaleem_core::definition::{ContainerPort, Definition, HealthTest, Healthcheck, Protocol};
use kaleem_core::health::Verdict;
use kaleem_core::testing::probe_contract::{SECRET, discreet};
use kaleem_health::{Discovered, KnownHosts, ProbeSettings, Reach, discover};

fn service(name: &str, image: &str, variables: &[(&str, &str)]) -> Service {
    let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned()))).collect();
    Service {
        name: name.parse().unwrap(),
        image: Some(image.parse().unwrap()),
        build: None,
        pull_policy: PullPolicy::Missing,
        replicas: 1,
        container_name: None,
        depends_on: BTreeMap::new(),
        definition: Definition { environment, ..Definition::default() },
        update: UpdateSettings::default(),
        compose_hash: ComposeHash::default(),
        origin: Origin { file: PathBuf::from("compose.yaml"), line: 1, column: 1 },
    }
}

fn exposing(mut service: Service, port: u16) -> Service {
    service.definition.expose.push(ContainerPort { port, protocol: Protocol::Tcp });
    service
}

fn checked(mut service: Service, test: &str) -> Service {
    service.definition.healthcheck = Some(Healthcheck {
        test: HealthTest::Shell(test.to_owned()),
        interval: None,
        timeout: None,
        start_period: None,
        start_interval: None,
        retries: None,
    });
    service
}

fn project(services: Vec<Service>) -> Project {
    Project {
        name: "shop".parse().unwrap(),
        directory: PathBuf::from("/shop"),
        files: Vec::new(),
        services: services.into_iter().map(|service| (service.name.clone(), service)).collect(),
        networks: BTreeMap::new(),
        volumes: BTreeMap::new(),
        warnings: Vec::new(),
        settings: Settings::default(),
        inputs: Inputs::default(),
    }
}

/// Service, name of the probe, address, and where it was found.
fn shown(found: &[Discovered]) -> Vec<String> {
    let address = |settings: &ProbeSettings| match settings {
        ProbeSettings::Http(settings) => settings.url.expose().clone(),
        ProbeSettings::Tcp(settings) => format!("{}:{}", settings.host, settings.port),
        ProbeSettings::Redis(settings) => settings.url.expose().clone(),
        ProbeSettings::Rabbitmq(settings) => format!("{} {:?}", settings.url.expose(), settings.management),
        ProbeSettings::Mongodb(settings) => settings.url.expose().clone(),
        ProbeSettings::Qdrant(settings) => {
            format!("{} {:?}", settings.url.expose(), settings.api_key.as_ref().map(|key| key.expose().clone()))
        }
        other => other.kind().to_owned(),
    };
    found.iter().map(|one| format!("{} {} {} ({})", one.service, one.name, address(one.settings.as_ref().unwrap()), one.found)).collect()
}

#[test]
fn a_project_with_nothing_configured_has_a_probe_for_each_of_its_five_kinds() {
    let api = [
        ("MONGODB_URI", "mongodb://app:pw@db-a:27017,db-b:27017/shop?replicaSet=rs0"),
        ("REDIS_URL", "redis://:pw@cache:6379/0"),
        ("QDRANT_URL", "http://vectors:6333"),
        ("QDRANT_API_KEY", "key"),
        ("RABBITMQ_URL", "amqp://app:pw@broker:5672/shop"),
        ("PUBLIC_URL", "https://shop.example"),
        ("NOTE", "redis://not a host"),
    ];
    let project = project(vec![
        checked(exposing(service("api", "registry.example/shop:1", &api), 3000), "curl -f http://localhost:3000/api/health || exit 1"),
        service("worker", "registry.example/shop:1", &[("REDIS_URL", "redis://:pw@cache:6379/0")]),
        service("cache", "redis:7", &[]),
        service("db-a", "mongo:7", &[]),
        service("vectors", "qdrant/qdrant:v1.9", &[]),
        service("broker", "rabbitmq:3-management", &[]),
        exposing(service("web", "nginx:1", &[]), 80),
    ]);
    let found = discover(&project);
    assert_eq!(
        shown(&found),
        [
            "api http http://api:3000/api/health (its health check)",
            "broker rabbitmq amqp://app:pw@broker:5672/shop Some(\"http://broker:15672\") (`RABBITMQ_URL` of `api`)",
            "cache redis redis://:pw@cache:6379/0 (`REDIS_URL` of `api`)",
            "db-a mongodb mongodb://app:pw@db-a:27017,db-b:27017/shop?replicaSet=rs0 (`MONGODB_URI` of `api`)",
            "vectors qdrant http://vectors:6333 Some(\"key\") (`QDRANT_URL` of `api`)",
            "web tcp web:80 (its port)",
        ]
    );
    for one in &found {
        assert!(one.probe(&Reach::network(Arc::new(KnownHosts::new()))).is_ok(), "{}", one.name);
        assert!(!format!("{one:?}").contains("pw"), "{one:?}");
    }
}

#[test]
fn images_variables_in_pieces_and_servers_outside_are_found() {
    let mut cache = service("cache", "valkey/valkey:8", &[]);
    cache.definition.command = Some(["valkey-server", "--requirepass", "p@ss"].map(str::to_owned).to_vec());
    let project = project(vec![
        cache,
        service("db", "mongo:7", &[("MONGO_INITDB_ROOT_USERNAME", "root"), ("MONGO_INITDB_ROOT_PASSWORD", "a/b")]),
        service("broker", "rabbitmq:3", &[("RABBITMQ_DEFAULT_USER", "app"), ("RABBITMQ_DEFAULT_PASS", "x")]),
        service("vectors", "qdrant/qdrant", &[("QDRANT__SERVICE__API_KEY", "key")]),
        service(
            "worker",
            "shop:1",
            &[
                ("REDIS_HOST", "redis.example.com"),
                ("REDIS_PORT", "6380"),
                ("REDIS_PASSWORD", "x"),
                ("QDRANT_HOST", "vectors"),
                ("QDRANT_PORT", "6334"),
            ],
        ),
        service("silent", "shop:1", &[]),
    ]);
    assert_eq!(
        shown(&discover(&project)),
        [
            "broker rabbitmq amqp://app:x@broker:5672/%2F None (the image `rabbitmq`)",
            "cache redis redis://:p%40ss@cache:6379 (the image `valkey`)",
            "db mongodb mongodb://root:a%2Fb@db:27017/?authSource=admin (the image `mongo`)",
            "vectors qdrant http://vectors:6333 None (`QDRANT_HOST` of `worker`)",
            "worker redis-redis.example.com redis://:x@redis.example.com:6380 (`REDIS_HOST` of `worker`)",
        ]
    );
}

#[tokio::test]
async fn what_was_found_is_asked_where_its_containers_are() {
    let server = crate::support::Server::start(crate::support::ok);
    let port = server.address.port();
    let url = format!("redis://:{SECRET}@cache:{port}");
    let project = project(vec![
        checked(service("api", "shop:1", &[("REDIS_URL", &url)]), &format!("wget -qO- http://127.0.0.1:{port}/health")),
        service("cache", "redis:7", &[]),
        exposing(service("web", "nginx:1", &[]), port),
    ]);
    let loopback: IpAddr = [127, 0, 0, 1].into();
    let known = Arc::new(KnownHosts::new().with_host("api", [loopback]).with_host("cache", [loopback]).with_host("web", [loopback]));
    let mut verdicts = Vec::new();
    for one in discover(&project) {
        let probe = one.probe(&Reach::network(known.clone())).unwrap();
        let finding = probe.check(Duration::from_secs(5)).await;
        discreet(&one.name, &finding);
        verdicts.push((one.service.to_string(), probe.kind(), finding.verdict));
    }
    assert_eq!(verdicts[0], ("api".to_owned(), "http", Verdict::Ok));
    assert_eq!(verdicts[1], ("cache".to_owned(), "redis", Verdict::Fail), "an HTTP server is no Redis");
    assert_eq!(verdicts[2], ("web".to_owned(), "tcp", Verdict::Ok));
}

#[tokio::test]
async fn a_service_without_a_running_container_is_down_and_not_unknown() {
    // A name that no resolver knows, so that nothing but the project is meant.
    let project = project(vec![service("kaleem-test-cache", "redis:7", &[])]);
    let found = discover(&project);
    let hosts = Arc::new(kaleem_health::CurrentHosts::default());
    let probe = found[0].probe(&Reach::network(hosts.clone())).unwrap();
    let finding = probe.check(Duration::from_secs(5)).await;
    assert_eq!(finding.verdict, Verdict::Unknown, "nobody said yet what runs: {}", finding.reason);
    hosts.set(KnownHosts::of(&project, &[]));
    let finding = probe.check(Duration::from_secs(5)).await;
    discreet("down", &finding);
    assert_eq!(finding.verdict, Verdict::Fail, "{}", finding.reason);
    assert!(finding.reason.contains("is down: no container of `kaleem-test-cache` runs"), "{}", finding.reason);
}

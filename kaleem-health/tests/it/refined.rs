//! `[probes]` of a real `kaleem.toml` beside a real compose file: every key reaches the probe, and secrets come from where they are named.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use kaleem_core::config::{self, LoadOptions, Project};
use kaleem_core::testing::probe_contract::SECRET;
use kaleem_health::settings::{HttpVersion, RedisTopology};
use kaleem_health::{Discovered, ProbeSettings, SettingsError, discover};

use crate::servers::write;

const COMPOSE: &str = r#"
services:
  api:
    image: shop:1
    environment: {REDIS_URL: "redis://cache:6379"}
    expose: [3000]
    secrets: [vectors]
  cache: {image: "redis:7"}
  broker: {image: "rabbitmq:3-management"}
  database: {image: "mongo:7"}
  vectors: {image: "qdrant/qdrant:v1"}
secrets:
  vectors: {file: ./vectors.key}
"#;

fn load(directory: &Path, settings: &str, variables: &[(&str, &str)]) -> Project {
    write(&directory.join("compose.yaml"), COMPOSE);
    write(&directory.join("vectors.key"), &format!("{SECRET}-key\n"));
    write(&directory.join("kaleem.toml"), settings);
    let environment: BTreeMap<String, String> = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let options = LoadOptions {
        directory: directory.to_owned(),
        files: Vec::new(),
        env_files: Vec::new(),
        environment,
        profiles: Vec::new(),
        project_name: Some("shop".parse().unwrap()),
        settings_file: None,
    };
    config::load(&options).unwrap()
}

fn of<'a>(found: &'a [Discovered], service: &str, name: &str) -> Result<&'a ProbeSettings, &'a SettingsError> {
    let one = found.iter().find(|one| one.service.as_str() == service && one.name == name);
    one.expect(name).settings.as_ref()
}

#[test]
fn every_key_of_a_probe_reaches_what_is_asked() {
    let directory = tempfile::tempdir().unwrap();
    write(&directory.path().join("redis.pw"), &format!("{SECRET}\n"));
    let project = load(
        directory.path(),
        r#"
[probes.cache.redis]
user = "health"
password-file = "redis.pw"
topology = "cluster"
canary = true
replicas = 2
memory-warn = 70
memory-fail = 90
lag-warn = "5s"
lag-fail = "10s"
server-name = "cache.internal"
trust-system = false

[probes.broker.rabbitmq]
management = "http://broker:15672"
canary = false
[probes.broker.rabbitmq.queues.orders]
depth-warn = 10
depth-fail = 100
consumers = 1
growth = false

[probes.database.mongodb]
url-env = "MONGO_WATCH"
lag-warn = "1s"
lag-fail = "2s"
no-primary = "3s"
oplog-window = "4h"
connections-warn = 50
connections-fail = 60

[probes.vectors.qdrant]
password-secret = "vectors"
grpc = "http://vectors:6334"
collections = ["docs"]

[probes.api.http]
kind = "http"
url = "http://api:3000/ready"
headers-env = {authorization = "API_TOKEN"}
expect-headers = {server = "shop"}
version = "2"
status = 204
contains = "up"
matches = "u."
json = ["queue.depth < 5"]
latency-warn = "100ms"
latency-fail = "1s"
redirects = 2

[probes.api.tcp]
enabled = false

[probes.host.disk]
kind = "disk"
path = "/var"
used-warn = 50
used-fail = 60
full-within = "2h"

[probes.api.container]
restarts-warn = 3
restarts-fail = 9

[probes.api.migrated]
kind = "command"
command = ["node", "migrated.js"]
exit-code = 4
exit-warn = 1
contains = "up"
matches = "u."
json = ["pending == 0"]

[probes.shop.spa]
kind = "spa"
url = "https://shop.example/"
root-id = "root"

[probes.shop.certificate]
kind = "certificate"
host = "shop.example"
"#,
        &[("MONGO_WATCH", "mongodb://watch:pw@database:27017/?replicaSet=rs0"), ("API_TOKEN", "Bearer t")],
    );
    let found = discover(&project);
    let seconds = Duration::from_secs;

    let Ok(ProbeSettings::Redis(redis)) = of(&found, "cache", "redis") else { panic!("redis") };
    assert_eq!(redis.url.expose(), &format!("redis://health:{SECRET}@cache:6379"));
    assert_eq!((&redis.topology, redis.canary, redis.limits.least_replicas), (&RedisTopology::Cluster, true, 2));
    assert_eq!((redis.limits.memory_warn_percent, redis.limits.memory_fail_percent), (70.0, 90.0));
    assert_eq!((redis.limits.lag_warn, redis.limits.lag_fail), (seconds(5), seconds(10)));
    assert_eq!((redis.tls.server_name.as_deref(), redis.tls.trust_system), (Some("cache.internal"), false));

    let Ok(ProbeSettings::Rabbitmq(rabbit)) = of(&found, "broker", "rabbitmq") else { panic!("rabbitmq") };
    assert_eq!((rabbit.management.as_deref(), rabbit.canary), (Some("http://broker:15672"), false));
    let [queue] = rabbit.queues.as_slice() else { panic!("one queue") };
    assert_eq!((queue.name.as_str(), queue.depth, queue.least_consumers, queue.watch_growth), ("orders", Some((10, 100)), 1, false));

    let Ok(ProbeSettings::Mongodb(mongo)) = of(&found, "database", "mongodb") else { panic!("mongodb") };
    assert_eq!(mongo.url.expose(), "mongodb://watch:pw@database:27017/?replicaSet=rs0");
    assert_eq!((mongo.limits.lag_warn, mongo.limits.lag_fail, mongo.limits.no_primary), (seconds(1), seconds(2), seconds(3)));
    assert_eq!((mongo.limits.oplog_window_warn, mongo.limits.connections_percent), (seconds(4 * 3600), (50.0, 60.0)));

    let Ok(ProbeSettings::Qdrant(qdrant)) = of(&found, "vectors", "qdrant") else { panic!("qdrant") };
    assert_eq!(qdrant.api_key.as_ref().unwrap().expose(), &format!("{SECRET}-key"));
    assert_eq!((qdrant.grpc.as_deref(), qdrant.collections.as_slice()), (Some("http://vectors:6334"), &["docs".to_owned()][..]));

    let Ok(ProbeSettings::Http(http)) = of(&found, "api", "http") else { panic!("http") };
    assert_eq!((http.url.expose().as_str(), http.api, http.version), ("http://api:3000/ready", false, HttpVersion::Two));
    assert_eq!((http.statuses, http.contains.as_deref(), http.pattern.as_deref()), ((204, 204), Some("up"), Some("u.")));
    assert_eq!((http.json.as_slice(), http.redirects), (&["queue.depth < 5".to_owned()][..], 2));
    assert_eq!(http.latency, Some((Duration::from_millis(100), seconds(1))));
    assert_eq!(http.expected_headers, [("server".to_owned(), "shop".to_owned())]);
    assert_eq!(
        http.headers.iter().map(|(name, value)| (name.as_str(), value.expose().as_str())).collect::<Vec<_>>(),
        [("authorization", "Bearer t")]
    );
    assert!(!found.iter().any(|one| one.name == "tcp"), "it was switched off");

    let Ok(ProbeSettings::Disk(disk)) = of(&found, "host", "disk") else { panic!("disk") };
    assert_eq!((disk.path.as_path(), disk.used_percent, disk.full_within), (Path::new("/var"), (50.0, 60.0), seconds(7200)));
    let Ok(ProbeSettings::Spa(spa)) = of(&found, "shop", "spa") else { panic!("spa") };
    assert_eq!((spa.url.expose().as_str(), spa.root_id.as_deref()), ("https://shop.example/", Some("root")));
    let Ok(ProbeSettings::Certificate(certificate)) = of(&found, "shop", "certificate") else { panic!("certificate") };
    assert_eq!((certificate.host.as_str(), certificate.port), ("shop.example", 443));

    let Ok(ProbeSettings::Container(container)) = of(&found, "api", "container") else { panic!("container") };
    assert_eq!((container.service.as_str(), container.replicas, container.restarts), ("api", 1, (3, 9)));
    let Ok(ProbeSettings::Command(command)) = of(&found, "api", "migrated") else { panic!("command") };
    assert_eq!((command.service.as_str(), command.command.as_slice()), ("api", &["node".to_owned(), "migrated.js".to_owned()][..]));
    assert_eq!((command.exit_code, command.exit_warn), (4, Some(1)));
    assert_eq!((command.contains.as_deref(), command.pattern.as_deref()), (Some("up"), Some("u.")));
    assert_eq!(command.json, ["pending == 0".to_owned()]);
}

#[test]
fn what_cannot_be_read_is_said_by_the_probe_and_refuses_no_deploy() {
    let directory = tempfile::tempdir().unwrap();
    let project = load(
        directory.path(),
        "[probes.cache.redis]\npassword-env = \"NOT_SET\"\n[probes.database.mongodb]\npassword-file = \"gone\"\n[probes.vectors.qdrant]\npassword-secret = \"none\"\n",
        &[],
    );
    kaleem_health::check(&project).unwrap();
    let found = discover(&project);
    for (service, name, wanted) in [
        ("cache", "redis", "the variable `NOT_SET` is not set"),
        ("database", "mongodb", "gone` cannot be read"),
        ("vectors", "qdrant", "no service has the secret `none`"),
    ] {
        let error = of(&found, service, name).err().unwrap();
        assert!(error.to_string().contains(wanted), "{service}: {error}");
    }
}

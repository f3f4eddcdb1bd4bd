//! What the program in an image is for, as far as the image's name tells.
//!
//! One table for the planner, the probes and the backups: what one of them takes for a database is one for all of them.

use super::ImageRef;

/// What the program in an image is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ImageKind {
    /// MongoDB and what speaks as it does.
    Mongodb,
    /// Qdrant.
    Qdrant,
    /// RabbitMQ.
    Rabbitmq,
    /// Redis and what speaks as it does.
    Redis,
    /// Another database, broker or cache.
    Store,
    /// A web server or a proxy, whose volumes hold pages, certificates and caches.
    Proxy,
    /// A proxy that keeps certificates in a file which one process alone may write.
    LonelyProxy,
    /// It is asked in FastCGI.
    FastCgi,
    /// It watches others or carries their logs and measurements: nobody waits for its answers.
    Agent,
    /// Anything else.
    Other,
}

/// Databases, brokers and caches. A longer name comes before a shorter one with which it begins.
const STORES: &[(&str, ImageKind)] = &[
    ("percona-server-mongodb", ImageKind::Mongodb),
    ("mongodb-sharded", ImageKind::Store),
    ("mongodb", ImageKind::Mongodb),
    ("mongo", ImageKind::Mongodb),
    ("redis-sentinel", ImageKind::Store),
    ("redis", ImageKind::Redis),
    ("valkey-sentinel", ImageKind::Store),
    ("valkey", ImageKind::Redis),
    ("keydb", ImageKind::Redis),
    ("rabbitmq", ImageKind::Rabbitmq),
    ("qdrant", ImageKind::Qdrant),
    ("activemq", ImageKind::Store),
    ("arangodb", ImageKind::Store),
    ("artemis", ImageKind::Store),
    ("cassandra", ImageKind::Store),
    ("citus", ImageKind::Store),
    ("clickhouse", ImageKind::Store),
    ("cockroach", ImageKind::Store),
    ("consul", ImageKind::Store),
    ("couchbase", ImageKind::Store),
    ("couchdb", ImageKind::Store),
    ("dgraph", ImageKind::Store),
    ("dragonfly", ImageKind::Store),
    ("eclipse-mosquitto", ImageKind::Store),
    ("elasticsearch", ImageKind::Store),
    ("emqx", ImageKind::Store),
    ("etcd", ImageKind::Store),
    ("influxdb", ImageKind::Store),
    ("kafka", ImageKind::Store),
    ("mariadb", ImageKind::Store),
    ("meilisearch", ImageKind::Store),
    ("memcached", ImageKind::Store),
    ("milvus", ImageKind::Store),
    ("minio", ImageKind::Store),
    ("mssql", ImageKind::Store),
    ("mysql", ImageKind::Store),
    ("nats", ImageKind::Store),
    ("neo4j", ImageKind::Store),
    ("opensearch", ImageKind::Store),
    ("percona", ImageKind::Store),
    ("pgvector", ImageKind::Store),
    ("postgis", ImageKind::Store),
    ("postgresql", ImageKind::Store),
    ("postgres", ImageKind::Store),
    ("pulsar", ImageKind::Store),
    ("questdb", ImageKind::Store),
    ("redpanda", ImageKind::Store),
    ("rethinkdb", ImageKind::Store),
    ("rqlite", ImageKind::Store),
    ("scylla", ImageKind::Store),
    ("solr", ImageKind::Store),
    ("surrealdb", ImageKind::Store),
    ("timescaledb", ImageKind::Store),
    ("typesense", ImageKind::Store),
    ("vault", ImageKind::Store),
    ("weaviate", ImageKind::Store),
    ("zookeeper", ImageKind::Store),
];

/// Words behind the name of a store that leave it one. Any other makes it something that uses a store: `mongo-express`, `redis-commander`.
const STILL_A_STORE: &[&str] = &[
    "alpine",
    "cluster",
    "community",
    "db",
    "debian",
    "enterprise",
    "ha",
    "kraft",
    "management",
    "oss",
    "repmgr",
    "server",
    "stack",
    "standalone",
    "xtradb",
];

const PROXIES: &[&str] = &["angie", "apache", "caddy", "envoy", "haproxy", "httpd", "nginx", "openresty", "swag"];

const AGENTS: &[&str] = &[
    "agent",
    "alloy",
    "autoheal",
    "blackbox",
    "cadvisor",
    "exporter",
    "filebeat",
    "fluentbit",
    "fluentd",
    "logspout",
    "metricbeat",
    "netdata",
    "promtail",
    "telegraf",
    "watchtower",
];

impl ImageKind {
    /// What an image is, by the last part of its repository, and by its tag where that says more.
    pub fn of(image: &ImageRef) -> Self {
        let name = image.base_name();
        let words: Vec<&str> = parts(name).collect();
        if let Some((_, kind)) = STORES.iter().find(|(store, _)| is_store_named(name, store)) {
            return *kind;
        }
        // `server` alone says too little, unless a database's own registry says it (`mcr.microsoft.com/mssql/server`).
        if name == "server" && image.repository().contains("mssql") {
            return Self::Store;
        }
        let has = |list: &[&str]| words.iter().any(|word| list.contains(word));
        if has(AGENTS) || name == "fluent-bit" {
            return Self::Agent;
        }
        // `php:8-fpm`, `wordpress:php8.3-fpm-alpine`, `bitnami/php-fpm`.
        if has(&["fpm", "phpfpm"]) || image.tag().is_some_and(|tag| parts(tag).any(|part| part == "fpm")) {
            return Self::FastCgi;
        }
        if words.first() == Some(&"traefik") {
            return Self::LonelyProxy;
        }
        // `nginx`, `nginx-unprivileged`, `caddy-docker-proxy`; what only has one of the names somewhere is an application.
        match words.first() {
            Some(first) if PROXIES.contains(first) => Self::Proxy,
            _ => Self::Other,
        }
    }

    /// Whether it keeps data, or messages, for others.
    pub fn is_store(self) -> bool {
        match self {
            Self::Mongodb | Self::Qdrant | Self::Rabbitmq | Self::Redis | Self::Store => true,
            Self::Proxy | Self::LonelyProxy | Self::FastCgi | Self::Agent | Self::Other => false,
        }
    }
}

fn parts(name: &str) -> impl Iterator<Item = &str> {
    name.split(['-', '_', '.']).filter(|part| !part.is_empty())
}

fn is_store_named(name: &str, store: &str) -> bool {
    let Some(rest) = name.strip_prefix(store) else { return false };
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    rest.is_empty() || (rest.starts_with(['-', '_']) && parts(rest).all(|part| STILL_A_STORE.contains(&part) || is_number(part)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_what_its_whole_name_says() {
        use ImageKind::{Agent, FastCgi, LonelyProxy, Mongodb, Other, Proxy, Qdrant, Rabbitmq, Redis, Store};
        for (image, expected) in [
            ("redis:7-alpine", Redis),
            ("redis/redis-stack-server", Redis),
            ("bitnami/redis-cluster", Redis),
            ("bitnami/redis-sentinel", Store),
            ("valkey/valkey", Redis),
            ("rediscommander/redis-commander", Other),
            ("redis/redisinsight", Other),
            ("oliver006/redis_exporter", Agent),
            ("mongo:7", Mongodb),
            ("mongodb/mongodb-community-server", Mongodb),
            ("percona/percona-server-mongodb", Mongodb),
            ("mongo-express:1", Other),
            ("percona/mongodb_exporter", Agent),
            ("rabbitmq:3-management", Rabbitmq),
            ("kbudde/rabbitmq-exporter", Agent),
            ("qdrant/qdrant:v1", Qdrant),
            ("postgres:16", Store),
            ("pgvector/pgvector:pg16", Store),
            ("timescale/timescaledb-ha:pg16", Store),
            ("percona/percona-server", Store),
            ("scylladb/scylla", Store),
            ("mcr.microsoft.com/mssql/server", Store),
            ("vaultwarden/server", Other),
            ("dpage/pgadmin4", Other),
            ("provectuslabs/kafka-ui", Other),
            ("opensearchproject/opensearch-dashboards", Other),
            ("minio/minio", Store),
            ("minio/mc", Other),
            ("nginx:1.27", Proxy),
            ("nginxinc/nginx-unprivileged", Proxy),
            ("nginx/nginx-prometheus-exporter", Agent),
            ("caddy:2", Proxy),
            ("haproxy:3", Proxy),
            ("traefik:v3", LonelyProxy),
            ("php:8.3-fpm-alpine", FastCgi),
            ("wordpress:6-php8.3-fpm", FastCgi),
            ("bitnami/php-fpm", FastCgi),
            ("team/g-fpm:1", FastCgi),
            ("php:8.3-apache", Other),
            ("prom/node-exporter", Agent),
            ("grafana/promtail", Agent),
            ("gcr.io/cadvisor/cadvisor", Agent),
            ("team/api:1", Other),
        ] {
            assert_eq!(ImageKind::of(&image.parse().unwrap()), expected, "{image}");
        }
    }
}

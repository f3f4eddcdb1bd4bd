//! What a probe is told: where to ask, what is right, and how much is too much.
//!
//! Values are complete: nothing is looked up in an environment or a file later. Addresses may hold passwords, so
//! they are [`Secret`]; what is shown of them is host and port.

use std::path::PathBuf;
use std::time::Duration;

use kaleem_core::names::ServiceName;
use kaleem_core::secret::Secret;

mod address;
mod error;
mod shown;

pub(crate) use address::{RedisLogin, host, login, parse, redis_address};
pub use error::SettingsError;

/// One probe, by what it speaks.
#[derive(Clone, Debug)]
pub enum ProbeSettings {
    /// An HTTP address.
    Http(HttpSettings),
    /// A page with its scripts and styles.
    Spa(SpaSettings),
    /// A port that accepts.
    Tcp(TcpSettings),
    /// Redis.
    Redis(RedisSettings),
    /// RabbitMQ.
    Rabbitmq(RabbitmqSettings),
    /// MongoDB.
    Mongodb(MongodbSettings),
    /// Qdrant.
    Qdrant(QdrantSettings),
    /// Space of a path.
    Disk(DiskSettings),
    /// The certificate of a host.
    Certificate(CertificateSettings),
    /// The containers of a service, as the engine sees them.
    Container(ContainerSettings),
    /// A command in the containers of a service.
    Command(CommandSettings),
}

impl ProbeSettings {
    /// The kind, as it is written in settings.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Http(_) => "http",
            Self::Spa(_) => "spa",
            Self::Tcp(_) => "tcp",
            Self::Redis(_) => "redis",
            Self::Rabbitmq(_) => "rabbitmq",
            Self::Mongodb(_) => "mongodb",
            Self::Qdrant(_) => "qdrant",
            Self::Disk(_) => "disk",
            Self::Certificate(_) => "certificate",
            Self::Container(_) => "container",
            Self::Command(_) => "command",
        }
    }
}

/// How TLS is spoken, where the address asks for it.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    /// Whether the certificates count that the machine trusts.
    pub trust_system: bool,
    /// Further trusted certificates, as PEM; empty for none.
    pub trusted_pem: String,
    /// The name that the certificate must hold; `None` is the host of the address.
    pub server_name: Option<String>,
    /// Our own certificate.
    pub client: Option<ClientCertificate>,
}

impl TlsSettings {
    /// The machine's certificates and the host of the address.
    pub const STANDARD: Self = Self { trust_system: true, trusted_pem: String::new(), server_name: None, client: None };
}

/// A certificate that is shown to servers.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    /// The chain, as PEM.
    pub certificate_pem: String,
    /// The key, as PEM.
    pub key_pem: Secret<String>,
}

/// The version of HTTP that is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/1.1.
    One,
    /// HTTP/2: offered by ALPN over TLS, spoken at once over plain text.
    Two,
}

/// What an HTTP answer must be.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// The address; its query may hold a token and is never shown.
    pub url: Secret<String>,
    /// Headers that are sent.
    pub headers: Vec<(String, Secret<String>)>,
    /// First and last status that is right.
    pub statuses: (u16, u16),
    /// Headers that the answer must have: name, and a text in its value (empty: any value).
    pub expected_headers: Vec<(String, String)>,
    /// Text that the body must hold.
    pub contains: Option<String>,
    /// Pattern that the body must match.
    pub pattern: Option<String>,
    /// Rules about the JSON body, such as `status == "ok"` or `queue.depth < 100`.
    pub json: Vec<String>,
    /// Whether the body is that of a health endpoint (NestJS Terminus, Spring Actuator), and judged by its parts.
    pub api: bool,
    /// Time to the last byte from which it is a warning, and a failure.
    pub latency: Option<(Duration, Duration)>,
    /// How many redirects are followed; 0 takes a redirect as the answer.
    pub redirects: u8,
    /// The version of HTTP.
    pub version: HttpVersion,
    /// TLS.
    pub tls: TlsSettings,
}

impl HttpSettings {
    /// GET `url`; a status from 200 to 399 is right.
    pub fn get(url: Secret<String>) -> Self {
        Self {
            url,
            headers: Vec::new(),
            statuses: (200, 399),
            expected_headers: Vec::new(),
            contains: None,
            pattern: None,
            json: Vec::new(),
            api: false,
            latency: None,
            redirects: 0,
            version: HttpVersion::One,
            tls: TlsSettings::STANDARD,
        }
    }

    /// GET the health endpoint of an application; its body is judged part by part where it has parts.
    pub fn api(url: Secret<String>) -> Self {
        Self { statuses: (200, 299), api: true, ..Self::get(url) }
    }
}

/// A page that a browser runs.
#[derive(Clone, Debug)]
pub struct SpaSettings {
    /// The page.
    pub url: Secret<String>,
    /// Id of the element that the application fills, such as `root` or `app`; `None` asks for none.
    pub root_id: Option<String>,
    /// TLS.
    pub tls: TlsSettings,
}

/// A port.
#[derive(Clone, Debug)]
pub struct TcpSettings {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// How Redis is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisTopology {
    /// One server, master or replica.
    Single,
    /// The address is a sentinel; the master is found through it.
    Sentinel {
        /// Name of the master.
        master: String,
    },
    /// The address is one of the nodes.
    Cluster,
}

/// Limits of Redis.
#[derive(Clone, Debug)]
pub struct RedisLimits {
    /// Share of `maxmemory` from which it is a warning, where nothing is evicted.
    pub memory_warn_percent: f64,
    /// Share of `maxmemory` from which it is a failure, where nothing is evicted.
    pub memory_fail_percent: f64,
    /// Lag of a replica, or silence of its master.
    pub lag_warn: Duration,
    /// Silence of the master from which a replica has failed.
    pub lag_fail: Duration,
    /// Replicas that must be online.
    pub least_replicas: usize,
}

impl RedisLimits {
    /// Memory 85 and 100 %, lag 30 and 120 s, no replica.
    pub const STANDARD: Self = Self {
        memory_warn_percent: 85.0,
        memory_fail_percent: 100.0,
        lag_warn: Duration::from_secs(30),
        lag_fail: Duration::from_secs(120),
        least_replicas: 0,
    };
}

/// A Redis.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// `redis://` or `rediss://`.
    pub url: Secret<String>,
    /// How it is run.
    pub topology: RedisTopology,
    /// Whether the key `kaleem:canary` is written and read.
    pub canary: bool,
    /// Limits.
    pub limits: RedisLimits,
    /// TLS.
    pub tls: TlsSettings,
}

impl RedisSettings {
    /// One server, standard limits, nothing is written.
    pub fn single(url: Secret<String>) -> Self {
        Self { url, topology: RedisTopology::Single, canary: false, limits: RedisLimits::STANDARD, tls: TlsSettings::STANDARD }
    }
}

/// What is right for one queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueRule {
    /// The queue.
    pub name: String,
    /// Messages from which it is a warning, and a failure.
    pub depth: Option<(u32, u32)>,
    /// Consumers that must be there.
    pub least_consumers: u32,
    /// Whether a depth that grew in each of the last three runs is a warning.
    pub watch_growth: bool,
}

/// A RabbitMQ.
#[derive(Clone, Debug)]
pub struct RabbitmqSettings {
    /// `amqp://` or `amqps://`.
    pub url: Secret<String>,
    /// Address of the management API, such as `http://host:15672`; it takes the same user and password.
    pub management: Option<String>,
    /// Queues that must be there.
    pub queues: Vec<QueueRule>,
    /// Whether a message which goes to no queue is published, to see whether the broker takes messages.
    pub canary: bool,
    /// TLS of the management API; AMQP trusts what the machine trusts.
    pub tls: TlsSettings,
}

impl RabbitmqSettings {
    /// AMQP alone, no queue; a canary message is published.
    pub fn amqp(url: Secret<String>) -> Self {
        Self { url, management: None, queues: Vec::new(), canary: true, tls: TlsSettings::STANDARD }
    }
}

/// Limits of MongoDB.
#[derive(Clone, Debug)]
pub struct MongodbLimits {
    /// Lag of a secondary.
    pub lag_warn: Duration,
    /// Lag of a secondary.
    pub lag_fail: Duration,
    /// How long a set may be without a primary.
    pub no_primary: Duration,
    /// Time that a full oplog covers, below which it is a warning: a member that is away longer must copy everything.
    pub oplog_window_warn: Duration,
    /// Share of the connections.
    pub connections_percent: (f64, f64),
}

impl MongodbLimits {
    /// Lag 30 and 120 s, no primary 30 s, oplog 24 h, connections 80 and 95 %.
    pub const STANDARD: Self = Self {
        lag_warn: Duration::from_secs(30),
        lag_fail: Duration::from_secs(120),
        no_primary: Duration::from_secs(30),
        oplog_window_warn: Duration::from_secs(24 * 3600),
        connections_percent: (80.0, 95.0),
    };
}

/// A MongoDB.
#[derive(Clone, Debug)]
pub struct MongodbSettings {
    /// `mongodb://` or `mongodb+srv://`.
    pub url: Secret<String>,
    /// Limits.
    pub limits: MongodbLimits,
    /// Whether a document is written, read and removed again in the collection `kaleem.canary`, by a majority.
    pub canary: bool,
}

impl MongodbSettings {
    /// Standard limits.
    pub fn standard(url: Secret<String>) -> Self {
        Self { url, limits: MongodbLimits::STANDARD, canary: false }
    }
}

/// A Qdrant.
#[derive(Clone, Debug)]
pub struct QdrantSettings {
    /// Address of the REST API.
    pub url: Secret<String>,
    /// API key.
    pub api_key: Option<Secret<String>>,
    /// Address of the gRPC API, such as `http://host:6334`, which is what most clients use; `None` does not ask it.
    pub grpc: Option<String>,
    /// Collections that must be there; empty asks those that are.
    pub collections: Vec<String>,
    /// TLS.
    pub tls: TlsSettings,
}

impl QdrantSettings {
    /// Every collection that is there, over REST alone.
    pub fn standard(url: Secret<String>, api_key: Option<Secret<String>>) -> Self {
        Self { url, api_key, grpc: None, collections: Vec::new(), tls: TlsSettings::STANDARD }
    }
}

/// A path with its limits.
#[derive(Clone, Debug)]
pub struct DiskSettings {
    /// Any path of the file system.
    pub path: PathBuf,
    /// Used share of space and of inodes: warning, failure.
    pub used_percent: (f64, f64),
    /// Time until it is full, at the present rate, from which it is a warning.
    pub full_within: Duration,
}

impl DiskSettings {
    /// 85 and 95 %, full within a day.
    pub fn standard(path: PathBuf) -> Self {
        Self { path, used_percent: (85.0, 95.0), full_within: Duration::from_secs(24 * 3600) }
    }
}

/// A host that shows a certificate.
#[derive(Clone, Debug)]
pub struct CertificateSettings {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// TLS.
    pub tls: TlsSettings,
}

/// What the containers of a service must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerSettings {
    /// The service.
    pub service: ServiceName,
    /// How many must run.
    pub replicas: u32,
    /// Restarts of one container since it was made: warning, failure.
    pub restarts: (u64, u64),
}

impl ContainerSettings {
    /// `replicas` containers; one that was restarted is a warning, however often.
    pub fn standard(service: ServiceName, replicas: u32) -> Self {
        Self { service, replicas, restarts: (1, u64::MAX) }
    }
}

/// A command and what is right of its end. The words of the command are never shown, but for the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandSettings {
    /// The service in whose containers it runs: in each that is up.
    pub service: ServiceName,
    /// Program and arguments; no shell.
    pub command: Vec<String>,
    /// The exit code that is right.
    pub exit_code: u8,
    /// The exit code that is a warning.
    pub exit_warn: Option<u8>,
    /// Text that its output must hold.
    pub contains: Option<String>,
    /// Pattern that its output must match.
    pub pattern: Option<String>,
    /// Rules about its output as JSON.
    pub json: Vec<String>,
}

impl CommandSettings {
    /// Exit code 0 is right, whatever it prints.
    pub fn standard(service: ServiceName, command: Vec<String>) -> Self {
        Self { service, command, exit_code: 0, exit_warn: None, contains: None, pattern: None, json: Vec::new() }
    }
}

//! What a probe is told: where to ask, what is right, and how much is too much.
//!
//! Values are complete: nothing is looked up in an environment or a file later. Addresses may hold passwords, so
//! they are [`Secret`]; what is shown of them is host and port.

use std::path::PathBuf;
use std::time::Duration;

use kaleem_core::remedy::Remedy;
use kaleem_core::secret::Secret;
use url::Url;

mod shown;

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
        }
    }
}

/// Settings that cannot be used. No text of an address is repeated, since it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// Not an address of that kind.
    #[error("the address of the {kind} probe cannot be used: {reason}")]
    Address {
        /// What speaks there.
        kind: &'static str,
        /// What is wrong.
        reason: &'static str,
    },
    /// PEM text that holds something else.
    #[error("the {what} cannot be read")]
    Pem {
        /// Which text.
        what: &'static str,
    },
    /// A pattern or a JSON rule.
    #[error("`{text}` is not a rule that can be checked: {reason}")]
    Rule {
        /// The rule.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Neither found nor written.
    #[error("the {kind} probe has no address: none was found, and none is written")]
    NoAddress {
        /// What is to be asked.
        kind: &'static str,
    },
    /// The same of a port.
    #[error("the {kind} probe has no port: none was found, and none is written")]
    NoPort {
        /// What is to be asked.
        kind: &'static str,
    },
    /// A variable, a file or a secret that the settings name.
    #[error("it cannot be asked, since {what}")]
    NotRead {
        /// What could not be read, by name.
        what: String,
    },
    /// This build cannot ask that.
    #[error("this build has no {kind} probe")]
    NotBuilt {
        /// The kind.
        kind: &'static str,
    },
}

impl Remedy for SettingsError {
    fn remedy(&self) -> String {
        match self {
            Self::Address { kind, .. } => format!("write it as `{}`", example(kind)),
            Self::Pem { .. } => "give it as PEM text, from `-----BEGIN` to `-----END`".to_owned(),
            Self::Rule { .. } => "write JSON rules as `info.redis.status == \"up\"`, and patterns as regular expressions".to_owned(),
            Self::NoAddress { kind } => {
                format!("write its address, such as `url = \"{}\"`, or `url-env` with the variable that holds it", example(kind))
            }
            Self::NoPort { .. } => "write its `port`".to_owned(),
            Self::NotRead { .. } => "set the variable (also in `.env`), or correct the name under `[probes]` in kaleem.toml".to_owned(),
            Self::NotBuilt { kind } => format!("build kaleem-health with the feature `{kind}`"),
        }
    }
}

fn example(kind: &str) -> &'static str {
    match kind {
        "redis" => "redis://user:password@host:6379",
        "rabbitmq" => "amqp://user:password@host:5672/vhost",
        "rabbitmq management" => "http://host:15672",
        "mongodb" => "mongodb://user:password@host:27017/?replicaSet=rs0",
        "qdrant" => "http://host:6333",
        "qdrant grpc" => "http://host:6334",
        _ => "https://host/path",
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

/// User and password of Redis.
#[derive(Clone, Debug)]
pub(crate) struct RedisLogin {
    pub user: Option<String>,
    pub password: Option<Secret<String>>,
}

/// Host, port, whether TLS, and login of an address of Redis.
pub(crate) fn redis_address(url: &Secret<String>) -> Result<(String, u16, bool, RedisLogin), SettingsError> {
    let kind = "redis";
    let url = parse(kind, url)?;
    let with_tls = match url.scheme() {
        "redis" => false,
        "rediss" => true,
        _ => return Err(SettingsError::Address { kind, reason: "it does not start with `redis://` or `rediss://`" }),
    };
    let host = host(kind, &url)?;
    let (user, password) = login(&url);
    Ok((host, url.port().unwrap_or(6379), with_tls, RedisLogin { user, password }))
}

/// An address; its text is never part of the error.
pub(crate) fn parse(kind: &'static str, url: &Secret<String>) -> Result<Url, SettingsError> {
    Url::parse(url.expose()).map_err(|_| SettingsError::Address { kind, reason: "it is not an address" })
}

pub(crate) fn host(kind: &'static str, url: &Url) -> Result<String, SettingsError> {
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or(SettingsError::Address { kind, reason: "it has no host" })?;
    Ok(host.trim_matches(['[', ']']).to_owned())
}

/// User and password, decoded.
pub(crate) fn login(url: &Url) -> (Option<String>, Option<Secret<String>>) {
    let user = Some(decode(url.username())).filter(|user| !user.is_empty());
    (user, url.password().map(|password| Secret::new(decode(password))))
}

/// `%xx` to bytes.
pub(crate) fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok()).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (first, hex) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_redis_is_taken_apart_and_never_repeated() {
        let (host, port, tls, login) = redis_address(&Secret::new("rediss://app:p%40ss@cache:6380/2".to_owned())).unwrap();
        assert_eq!((host.as_str(), port, tls, login.user.as_deref()), ("cache", 6380, true, Some("app")));
        assert_eq!(login.password.unwrap().expose(), "p@ss");
        for text in ["hunter2", "http://hunter2@x", "redis://"] {
            let error = redis_address(&Secret::new(text.to_owned())).unwrap_err();
            assert!(!format!("{error} {error:?} {}", error.remedy()).contains("hunter2"), "{text}");
        }
    }
}

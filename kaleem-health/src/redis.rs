//! Redis: is it loading, full, cut off from its master, unable to save? A `PING` tells none of it.

mod cluster;
mod info;
mod sentinel;
mod wire;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use kaleem_core::clock::{Clock, SystemClock};
use kaleem_core::health::{Finding, HealthProbe, Resolver, Verdict};

use crate::dial::Endpoint;
use crate::report::{Report, bounded, word};
use crate::settings::{RedisLogin, RedisSettings, RedisTopology, SettingsError, redis_address};
use crate::tls::Tls;
use info::{Counters, Info};
use wire::{Reply, Session, WireError};

/// What the user of the probe must be allowed to do, as `ACL SETUSER` takes it.
const NEEDED: &str = "+ping +info";
const NEEDED_CLUSTER: &str = "+ping +info +cluster|info +cluster|nodes";
const NEEDED_CANARY: &str = "+ping +info +set +get ~kaleem:canary";
const CANARY_LIFE_SECONDS: &str = "60";

/// Asks one Redis, a cluster, or Sentinel and the master that it names.
pub struct RedisProbe {
    name: String,
    settings: RedisSettings,
    endpoint: Endpoint,
    login: RedisLogin,
    resolver: Arc<dyn Resolver>,
    /// What the last run saw, for counters that only grow.
    before: Mutex<Option<Counters>>,
}

impl RedisProbe {
    /// A probe; nothing is connected yet.
    ///
    /// # Errors
    /// [`SettingsError`] when the address or a certificate cannot be read.
    pub fn new(name: &str, settings: RedisSettings, resolver: Arc<dyn Resolver>) -> Result<Self, SettingsError> {
        let (host, port, with_tls, login) = redis_address(&settings.url)?;
        let tls = if with_tls { Some(Tls::new(&settings.tls)?) } else { None };
        let endpoint = Endpoint { host, port, tls };
        Ok(Self { name: name.to_owned(), settings, endpoint, login, resolver, before: Mutex::new(None) })
    }

    async fn open(&self, endpoint: &Endpoint, timeout: Duration) -> Result<Session, WireError> {
        Session::open(endpoint, &self.login, self.resolver.as_ref(), timeout).await
    }

    /// One server. `canary` says whether it may be written to.
    async fn server(&self, endpoint: &Endpoint, canary: bool, timeout: Duration) -> Finding {
        let needed = if self.settings.canary { NEEDED_CANARY } else { NEEDED };
        let mut session = match self.open(endpoint, timeout).await {
            Ok(session) => session,
            Err(error) => return error.finding(endpoint, &self.login, needed),
        };
        let phases = session.phases.clone();
        let asked = SystemClock.monotonic();
        let mut finding = match self.questions(&mut session, canary).await {
            Ok(finding) => finding,
            Err(error) => error.finding(endpoint, &self.login, needed),
        };
        finding.phases.extend(phases);
        finding.with_phase("answers", SystemClock.monotonic().saturating_sub(asked))
    }

    async fn questions(&self, session: &mut Session, canary: bool) -> Result<Finding, WireError> {
        let (ping, info) = session.ask_both(&["PING"], &["INFO"]).await?;
        let info = match (ping, info) {
            // While it loads, it answers `INFO`: how far it is belongs to the finding.
            (Reply::Text(_), Reply::Text(text)) => Info::parse(text),
            (Reply::Error(code), Reply::Text(text)) if code == "LOADING" => Info::parse(text),
            (Reply::Error(code), _) | (_, Reply::Error(code)) => return Err(WireError::Refused(code)),
            _ => return Err(WireError::NotRedis),
        };
        // An old server, or one that loads, may leave the field out; the error of PING has said it.
        if info.text("redis_version").is_empty() {
            return Err(WireError::NotRedis);
        }
        let mut report = Report::default();
        {
            let mut before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
            info::judge(&mut report, &info, *before, &self.settings.limits);
            *before = Some(info.counters());
        }
        if canary && !info.is_loading() && !info.is_replica() {
            write_and_read(session).await?;
        }
        let role = if info.is_replica() { "replica".to_owned() } else { format!("master with {} replicas", info.replicas().len()) };
        let share = match (info.number("used_memory"), info.number("maxmemory").filter(|limit| *limit > 0.0)) {
            (Some(used), Some(limit)) => format!(", memory {:.0} % full", used / limit * 100.0),
            _ => String::new(),
        };
        let wrote = if canary && !info.is_replica() { ", a key was written and read" } else { "" };
        Ok(report.finish(format!("redis {} answers: {role}{share}{wrote}", word(info.text("redis_version")))))
    }
}

async fn write_and_read(session: &mut Session) -> Result<(), WireError> {
    // What is written is new each time, so that an old value cannot pass for this one; it ends by itself.
    let value = format!("{:x}", SystemClock.monotonic().as_nanos());
    session.text(&["SET", "kaleem:canary", &value, "EX", CANARY_LIFE_SECONDS]).await?;
    let read = session.text(&["GET", "kaleem:canary"]).await?;
    if read == value { Ok(()) } else { Err(WireError::Refused("CANARY".to_owned())) }
}

#[async_trait]
impl HealthProbe for RedisProbe {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "redis"
    }

    async fn check(&self, timeout: Duration) -> Finding {
        let attempt = async {
            match &self.settings.topology {
                RedisTopology::Single => self.server(&self.endpoint, self.settings.canary, timeout).await,
                RedisTopology::Sentinel { master } => self.sentinel(master, timeout).await,
                RedisTopology::Cluster => self.cluster(timeout).await,
            }
        };
        bounded(timeout, attempt, || {
            Finding::new(Verdict::Fail, format!("{} accepted the connection, and did not answer within {timeout:?}", self.endpoint))
                .with_remedy("look for a slow command (`redis-cli slowlog get`), a frozen process, or a full disk")
        })
        .await
    }
}

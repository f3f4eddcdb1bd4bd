//! Names that fail or never answer, and IPv6 alone, for every probe that connects.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use kaleem_core::health::{NoAddress, Resolver, Verdict};
use kaleem_core::secret::Secret;
use kaleem_core::testing::probe_contract::{SECRET, discreet};
use kaleem_health::settings::{
    CertificateSettings, DiskSettings, HttpSettings, MongodbSettings, ProbeSettings, QdrantSettings, RabbitmqSettings, RedisSettings,
    SpaSettings, TcpSettings, TlsSettings,
};
use kaleem_health::{KnownHosts, Reach, build_probe};

const TIMEOUT: Duration = Duration::from_millis(400);
/// What is asked here never answers by itself, so whatever ends was ended by the timeout: the rest is for a busy machine.
const LATEST: Duration = Duration::from_secs(5);

/// A resolver that fails, or never answers.
enum Names {
    Fail,
    Down,
    Hang,
}

#[async_trait]
impl Resolver for Names {
    async fn resolve(&self, _: &str, _: u16) -> Result<Vec<SocketAddr>, NoAddress> {
        match self {
            Self::Fail => Err(NoAddress::Unknown("no such name".to_owned())),
            Self::Down => Err(NoAddress::Down("no container of `store` runs".to_owned())),
            Self::Hang => std::future::pending().await,
        }
    }
}

/// One of each kind that connects, at that host.
fn every(host: &str, port: u16) -> Vec<ProbeSettings> {
    let url = |scheme: &str| Secret::new(format!("{scheme}://app:{SECRET}@{host}:{port}/"));
    let plain = host.trim_matches(['[', ']']).to_owned();
    vec![
        ProbeSettings::Http(HttpSettings::get(url("http"))),
        ProbeSettings::Spa(SpaSettings { url: url("http"), root_id: None, tls: TlsSettings::STANDARD }),
        ProbeSettings::Tcp(TcpSettings { host: plain.clone(), port }),
        ProbeSettings::Redis(RedisSettings::single(url("redis"))),
        ProbeSettings::Rabbitmq(RabbitmqSettings::amqp(Secret::new(format!("amqp://app:{SECRET}@{host}:{port}/%2F")))),
        ProbeSettings::Mongodb(MongodbSettings::standard(url("mongodb"))),
        ProbeSettings::Qdrant(QdrantSettings::standard(Secret::new(format!("http://{host}:{port}")), Some(Secret::new(SECRET.to_owned())))),
        ProbeSettings::Certificate(CertificateSettings { host: plain, port, tls: TlsSettings::STANDARD }),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::disallowed_methods, reason = "the contract is about real time")]
async fn a_name_that_fails_or_never_answers_is_unknown_and_one_that_is_down_fails_in_time() {
    for (why, names, verdict, reason) in [
        ("fails", Names::Fail, Verdict::Unknown, "no such name"),
        ("hangs", Names::Hang, Verdict::Unknown, ""),
        ("is known to be down", Names::Down, Verdict::Fail, "`store.example` is down: no container of `store` runs"),
    ] {
        let names: Arc<dyn Resolver> = Arc::new(names);
        for settings in every("store.example", 6000) {
            let probe = build_probe("store", &settings, &Reach::network(names.clone())).unwrap();
            let start = Instant::now();
            let finding = probe.check(TIMEOUT).await;
            let (kind, took) = (settings.kind(), start.elapsed());
            assert!(took < LATEST, "{kind}, {why}: took {took:?}");
            discreet(&format!("{kind}, {why}"), &finding);
            assert_eq!(finding.verdict, verdict, "{kind}, {why}: {}", finding.reason);
            assert!(finding.reason.contains(reason), "{kind}, {why}: {}", finding.reason);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ipv6_alone_is_reached_by_every_probe() {
    let server = crate::support::Server::start_on("[::1]:0", crate::support::silent);
    let port = server.address.port();
    let known: Arc<dyn Resolver> = Arc::new(KnownHosts::new().with_host("store", [IpAddr::V6(Ipv6Addr::LOCALHOST)]));
    for host in ["store", "[::1]"] {
        for settings in every(host, port) {
            let before = server.accepted();
            let probe = build_probe("store", &settings, &Reach::network(known.clone())).unwrap();
            let kind = settings.kind();
            let finding = probe.check(if kind == "tcp" { Duration::from_secs(60) } else { TIMEOUT }).await;
            discreet(kind, &finding);
            // It was let in: what a silent server is, each kind says for itself.
            assert!(server.accepted() > before, "{kind} by {host} was not let in: {}", finding.reason);
            let verdict = if kind == "tcp" { Verdict::Ok } else { Verdict::Fail };
            assert_eq!(finding.verdict, verdict, "{kind} by {host}: {}", finding.reason);
        }
    }
    let Some(redis) = crate::servers::redis("bind 127.0.0.1 ::1") else { return };
    let settings = ProbeSettings::Redis(RedisSettings::single(Secret::new(format!("redis://[::1]:{}", redis.port))));
    let finding =
        build_probe("cache", &settings, &Reach::network(Arc::new(KnownHosts::new()))).unwrap().check(Duration::from_secs(5)).await;
    assert_eq!(finding.verdict, Verdict::Ok, "{finding:?}");
}

#[tokio::test]
async fn a_disk_asks_no_name() {
    let settings = ProbeSettings::Disk(DiskSettings { used_percent: (100.1, 100.1), ..DiskSettings::standard(PathBuf::from("/")) });
    let finding = build_probe("disk", &settings, &Reach::network(Arc::new(Names::Hang))).unwrap().check(Duration::from_secs(5)).await;
    assert_eq!(finding.verdict, Verdict::Ok, "{finding:?}");
}

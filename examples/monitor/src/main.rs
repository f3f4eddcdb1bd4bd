//! How a Rust program watches its dependencies: probes ask, the monitor decides what is an incident, the program tells it.
//!
//! `cargo run -p monitor -- 60 redis://127.0.0.1:6379 http://127.0.0.1:3000/health 127.0.0.1:5432` asks each every 10 s for a minute. A
//! number and `x` before an address ask it as so many services. At the end it says in one line of JSON what that took.

use std::collections::BTreeMap;
use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::{FuturesUnordered, StreamExt};
use kaleem_core::clock::{Clock, SystemClock};
use kaleem_core::health::{Finding, HealthProbe, Verdict};
use kaleem_core::monitor::{Monitor, MonitorEvent, MonitorSettings, ProbeId, WatchSettings};
use kaleem_core::names::ServiceName;
use kaleem_core::secret::Secret;
use kaleem_health::settings::{HttpSettings, MongodbSettings, ProbeSettings, QdrantSettings, RabbitmqSettings, RedisSettings, TcpSettings};
use kaleem_health::{KnownHosts, Reach, build_probe};

/// Time that one probe may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Probes that run at the same time.
const CONCURRENCY: usize = 16;
/// Rounds in which the first ten are asked all at once, after the watching.
const ROUNDS: usize = 20;
const ROUND: usize = 10;

type Probes = BTreeMap<ProbeId, Arc<dyn HealthProbe>>;

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stderr, reason = "the example shows its error")]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(60);
    match watch(Duration::from_secs(seconds), &arguments.collect::<Vec<_>>()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for text in kaleem_core::remedy::chain(error.as_ref()) {
                eprintln!("{text}");
            }
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "the example shows what happens")]
async fn watch(length: Duration, addresses: &[String]) -> Result<(), Box<dyn Error>> {
    // 1. The probes, each with the service that it belongs to.
    let (mut probes, mut watched) = (Probes::new(), BTreeMap::new());
    let reach = Reach::network(Arc::new(KnownHosts::new()));
    for text in addresses {
        let (times, address) = text.split_once('x').and_then(|(times, rest)| Some((times.parse().ok()?, rest))).unwrap_or((1, text));
        for _ in 0..times {
            let service: ServiceName = format!("s{}", probes.len()).parse()?;
            let settings = settings(address)?;
            let id = ProbeId::new(&service, settings.kind());
            probes.insert(id.clone(), build_probe(settings.kind(), &settings, &reach)?);
            watched.insert(id, WatchSettings::standard(service));
        }
    }

    // 2. The monitor: told the time and what was found, it says what is due and what happened.
    let start = SystemClock.monotonic();
    let settings = MonitorSettings { probes: watched, depends_on: BTreeMap::new(), concurrency: CONCURRENCY, seed: 1 };
    let mut monitor = Monitor::new(settings, start);
    let mut running: FuturesUnordered<BoxFuture<'_, (ProbeId, Finding)>> = FuturesUnordered::new();
    let (mut runs, mut not_ok, used_before) = (0_u64, 0_u64, processor_seconds());
    loop {
        let now = SystemClock.monotonic();
        if now.saturating_sub(start) >= length {
            break;
        }
        for id in monitor.due(now) {
            let Some(probe) = probes.get(&id).cloned() else { continue };
            running.push(Box::pin(async move { (id, probe.check(TIMEOUT).await) }));
        }
        let end = start + length;
        let next = monitor.next_due().unwrap_or(end).min(end).saturating_sub(SystemClock.monotonic());
        tokio::select! {
            Some((id, finding)) = running.next(), if !running.is_empty() => {
                runs += 1;
                not_ok += u64::from(finding.verdict != Verdict::Ok);
                for event in monitor.record(&id, &finding, SystemClock.monotonic(), SystemClock.now()) {
                    // 3. What a person is told.
                    match event {
                        MonitorEvent::Opened(incident) => println!("{} began: {}", incident.id, incident.reason),
                        MonitorEvent::Closed(incident) => println!("{} is over", incident.id),
                        other => println!("{other:?}"),
                    }
                }
            }
            () = tokio::time::sleep(next) => {}
        }
    }
    drop(running);
    let took = SystemClock.monotonic().saturating_sub(start).as_secs_f64();
    let core_percent = (processor_seconds() - used_before) / took * 100.0;

    // 4. One round of ten, all at once.
    let first: Vec<_> = probes.values().take(ROUND).cloned().collect();
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let begun = SystemClock.monotonic();
        let findings = join_all(first.iter().map(|probe| probe.check(TIMEOUT))).await;
        rounds.push(SystemClock.monotonic().saturating_sub(begun).as_secs_f64() * 1000.0);
        not_ok += findings.iter().map(|finding| u64::from(finding.verdict != Verdict::Ok)).sum::<u64>();
    }
    println!(
        "{}",
        serde_json::json!({ "probes": probes.len(), "runs": runs, "not_ok": not_ok, "seconds": took, "core_percent": core_percent, "rounds_ms": rounds })
    );
    Ok(())
}

fn settings(address: &str) -> Result<ProbeSettings, Box<dyn Error>> {
    let url = Secret::new(address.to_owned());
    match address.split_once("://").map_or("", |(scheme, _)| scheme) {
        "redis" | "rediss" => return Ok(ProbeSettings::Redis(RedisSettings::single(url))),
        "http" | "https" => return Ok(ProbeSettings::Http(HttpSettings::api(url))),
        "amqp" | "amqps" => return Ok(ProbeSettings::Rabbitmq(RabbitmqSettings::amqp(url))),
        "mongodb" => return Ok(ProbeSettings::Mongodb(MongodbSettings::standard(url))),
        "qdrant+http" => {
            let plain = Secret::new(address.trim_start_matches("qdrant+").to_owned());
            return Ok(ProbeSettings::Qdrant(QdrantSettings::standard(plain, None)));
        }
        _ => {}
    }
    let (host, port) = address.rsplit_once(':').ok_or("write an address as HOST:PORT")?;
    Ok(ProbeSettings::Tcp(TcpSettings { host: host.to_owned(), port: port.parse()? }))
}

/// Time of a core that this process has used so far, as the kernel counts it (in hundredths of a second).
fn processor_seconds() -> f64 {
    let text = kaleem_core::durable::read(std::path::Path::new("/proc/self/stat")).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    // The name of the program stands in brackets and may hold spaces; user and system time are the 12th and 13th word behind it.
    let words = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace();
    words.skip(11).take(2).filter_map(|word| word.parse::<f64>().ok()).sum::<f64>() / 100.0
}

//! What goes through the gateways at this moment: two readings of their counters, a second apart, for each release.

use std::time::Duration;

use kaleem_core::history::History;
use kaleem_core::names::{GatewayName, ReleaseId, ServiceName};
use kaleem_core::remedy::one_line;
use kaleem_core::traffic::{Counts, GatewayStats, Traffic};
use serde_json::{Value, json};

use crate::render::Printer;
use crate::render::style::{BAD, FAINT, WARN, paint};
use crate::render::table::{self, Cell};
use crate::wiring::Wiring;

/// Time between the two readings: a service with one request a second shows it.
const WINDOW: Duration = Duration::from_secs(1);

/// What the gateway of one service said.
enum Reading {
    /// It was asked twice.
    Twice { service: ServiceName, first: GatewayStats, second: GatewayStats, over: Duration },
    /// It did not answer, or is another one by now.
    Unknown { service: ServiceName, reason: String },
}

/// One line: a release of a service.
#[derive(Debug, PartialEq)]
struct Rate {
    release: ReleaseId,
    counts: Counts,
    over: Duration,
}

impl Rate {
    fn per_second(&self, count: u64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
        let count = count as f64;
        count / self.over.as_secs_f64().max(0.001)
    }

    fn failed(&self) -> u64 {
        self.counts.server_errors + self.counts.broken
    }
}

/// Asks the gateways of what serves, and shows what they say. Nothing where there are none.
pub(super) async fn show(wiring: &Wiring, printer: &Printer, history: &History) {
    let release = history.serving().and_then(|id| history.release(id));
    let services = release.iter().flat_map(|release| &release.target.services);
    let gateways: Vec<(ServiceName, GatewayName)> =
        services.filter_map(|(service, wanted)| Some((service.clone(), wanted.gateway.as_ref()?.name.clone()))).collect();
    if gateways.is_empty() {
        return;
    }
    let readings = read(wiring, &gateways).await;
    printer.result("");
    lines(&readings).iter().for_each(|line| printer.result(line));
    readings.iter().flat_map(objects).for_each(|object| printer.json(&object));
}

async fn read(wiring: &Wiring, gateways: &[(ServiceName, GatewayName)]) -> Vec<Reading> {
    let (traffic, clock) = (wiring.traffic(), wiring.clock());
    let mut earlier = Vec::new();
    for (service, gateway) in gateways {
        earlier.push((service, gateway, traffic.stats(gateway).await, clock.monotonic()));
    }
    if earlier.iter().any(|(_, _, stats, _)| stats.is_ok()) {
        clock.sleep(WINDOW).await;
    }
    let mut readings = Vec::new();
    for (service, gateway, first, at) in earlier {
        let service = service.clone();
        let first = match first {
            Ok(first) => first,
            Err(error) => {
                readings.push(Reading::Unknown { service, reason: one_line(&error) });
                continue;
            }
        };
        let second = traffic.stats(gateway).await;
        let over = clock.monotonic().saturating_sub(at);
        readings.push(match second {
            Err(error) => Reading::Unknown { service, reason: one_line(&error) },
            // Counters of two processes are not subtracted.
            Ok(second) if second.worker.epoch != first.worker.epoch => {
                Reading::Unknown { service, reason: "its gateway was restarted or upgraded while it was asked".to_owned() }
            }
            Ok(second) => Reading::Twice { service, first, second, over },
        });
    }
    readings
}

/// By release: those that get requests, and those that still had some.
fn rates(first: &GatewayStats, second: &GatewayStats, over: Duration) -> Vec<Rate> {
    let routed = |release: ReleaseId| {
        let targets = second.routing.iter().flat_map(|routing| &routing.targets);
        targets.filter(|target| target.weight > 0).any(|target| target.release == release)
    };
    let nothing = Counts::default();
    let rate = |(release, now): (&ReleaseId, &Counts)| {
        let counts = now.since(first.releases.get(release).unwrap_or(&nothing));
        Rate { release: *release, counts, over }
    };
    second.releases.iter().map(rate).filter(|rate| rate.counts.requests > 0 || routed(rate.release)).collect()
}

fn lines(readings: &[Reading]) -> Vec<String> {
    let mut rows = Vec::new();
    let mut said = Vec::new();
    for reading in readings {
        match reading {
            Reading::Unknown { service, reason } => said.push(format!("{} {service}: {reason}", paint(BAD, "no rates:"))),
            Reading::Twice { service, first, second, over } => {
                let all = rates(first, second, *over);
                if all.is_empty() {
                    rows.push(vec![Cell::new(service.as_str()), Cell::styled("none", FAINT)]);
                }
                rows.extend(all.iter().map(|rate| row(service, rate)));
                if second.hold.waiting > 0 {
                    let waiting = second.hold.waiting;
                    said.push(format!("{} {service}: {waiting} requests wait for an instance", paint(WARN, "held:")));
                }
            }
        }
    }
    let mut lines = Vec::new();
    if !rows.is_empty() {
        lines = table::lines(&["SERVICE", "RELEASE", "REQUESTS/S", "ERRORS/S", "P50", "P99"], rows);
    }
    lines.extend(said);
    lines
}

fn row(service: &ServiceName, rate: &Rate) -> Vec<Cell> {
    let errors = match rate.failed() {
        0 => Cell::styled("0", FAINT),
        failed => Cell::styled(format!("{:.1} ({:.1} %)", rate.per_second(failed), 100.0 * rate.counts.failure_rate()), BAD),
    };
    let quantile = |share: f64| match rate.counts.latency.quantile(share) {
        Some(time) => Cell::new(milliseconds(time)),
        None => Cell::styled("-", FAINT),
    };
    vec![
        Cell::new(service.as_str()),
        Cell::new(rate.release.to_string()),
        Cell::new(format!("{:.1}", rate.per_second(rate.counts.requests))),
        errors,
        quantile(0.5),
        quantile(0.99),
    ]
}

/// A latency for people: `0.4 ms`, `35 ms`, `1.2 s`.
fn milliseconds(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1000.0;
    match millis {
        ..10.0 => format!("{millis:.1} ms"),
        ..1000.0 => format!("{millis:.0} ms"),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

fn objects(reading: &Reading) -> Vec<Value> {
    match reading {
        Reading::Unknown { service, reason } => {
            vec![json!({ "type": "traffic", "service": service.as_str(), "answers": false, "reason": reason })]
        }
        Reading::Twice { service, first, second, over } => {
            let millis = |time: Option<Duration>| time.map(|time| time.as_secs_f64() * 1000.0);
            let object = |rate: &Rate| {
                json!({
                    "type": "traffic",
                    "service": service.as_str(),
                    "answers": true,
                    "release": rate.release.to_string(),
                    "over_ms": over.as_millis(),
                    "requests": rate.counts.requests,
                    "requests_per_second": rate.per_second(rate.counts.requests),
                    "errors": rate.failed(),
                    "errors_per_second": rate.per_second(rate.failed()),
                    "p50_ms": millis(rate.counts.latency.quantile(0.5)),
                    "p99_ms": millis(rate.counts.latency.quantile(0.99)),
                    "held": second.hold.waiting,
                })
            };
            rates(first, second, *over).iter().map(object).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kaleem_core::traffic::{Admission, Generation, HoldLimits, HoldStats, Latency, Memory, Routing, Target, WorkerStats};

    use super::*;

    fn stats(waiting: u64, releases: &[(u64, u64, u64, u64)]) -> GatewayStats {
        let counts = |requests: u64, errors: u64, millis: u64| {
            let mut counts = Counts { requests, server_errors: errors, ..Counts::default() };
            counts.latency.record(Latency::bucket_of(Duration::from_millis(millis)), requests);
            counts
        };
        let target = Target {
            instance: "shop-api-r2-1".parse().unwrap(),
            release: ReleaseId::new(2),
            host: "shop-api-r2-1".parse().unwrap(),
            ports: BTreeMap::new(),
            weight: 1,
        };
        GatewayStats {
            worker: WorkerStats { version: "0.1.0".to_owned(), pid: 1, epoch: 7, crashes: 0, program: None, memory: Memory::Fresh },
            routing: Some(Routing {
                generation: Generation::new(1),
                admission: Admission::Serve,
                hold: HoldLimits { requests: 1, time: Duration::from_secs(1), release_per_second: 1 },
                stickiness: None,
                targets: vec![target],
            }),
            hold: HoldStats { waiting, ..HoldStats::default() },
            open_connections: 0,
            targets: Vec::new(),
            releases: releases
                .iter()
                .map(|(id, requests, errors, millis)| (ReleaseId::new(*id), counts(*requests, *errors, *millis)))
                .collect(),
            added_ports: Some(Vec::new()),
        }
    }

    fn twice(first: GatewayStats, second: GatewayStats) -> Vec<Reading> {
        let unknown =
            Reading::Unknown { service: "web".parse().unwrap(), reason: "could not reach the gateway `shop-web-gateway`".to_owned() };
        vec![Reading::Twice { service: "api".parse().unwrap(), first, second, over: Duration::from_secs(2) }, unknown]
    }

    #[test]
    fn a_rate_is_what_was_added_between_two_readings_of_each_release() {
        // r1 is idle and not routed; r2 had 10 requests more, of which one failed; r3 is what is being let go.
        let readings =
            twice(stats(0, &[(1, 500, 0, 5), (2, 10, 0, 4), (3, 3, 0, 2000)]), stats(2, &[(1, 500, 0, 5), (2, 20, 1, 4), (3, 4, 0, 2000)]));
        let text: Vec<String> = lines(&readings).iter().map(|line| anstream::adapter::strip_str(line).to_string()).collect();
        let expected = [
            "SERVICE  RELEASE  REQUESTS/S  ERRORS/S      P50     P99",
            "api      r2       5.0         0.5 (10.0 %)  4.1 ms  4.1 ms",
            "api      r3       0.5         0             2.1 s   2.1 s",
            "held: api: 2 requests wait for an instance",
            "no rates: web: could not reach the gateway `shop-web-gateway`",
        ];
        assert_eq!(text, expected);
    }

    #[test]
    fn programs_get_the_same_rates() {
        let readings = twice(stats(0, &[(2, 10, 0, 4)]), stats(0, &[(2, 20, 1, 4)]));
        let objects: Vec<Value> = readings.iter().flat_map(objects).collect();
        assert_eq!(objects.len(), 2);
        let api = objects.first().unwrap();
        assert_eq!((&api["release"], &api["requests_per_second"], &api["errors_per_second"]), (&json!("r2"), &json!(5.0), &json!(0.5)));
        assert_eq!((&api["requests"], &api["errors"], &api["over_ms"]), (&json!(10), &json!(1), &json!(2000)));
        assert_eq!(objects.get(1).unwrap()["answers"], json!(false));
    }
}

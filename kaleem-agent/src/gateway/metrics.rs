//! The counters in the text form of Prometheus.

use std::fmt::Write;
use std::time::Duration;

use kaleem_core::traffic::{Counts, GatewayStats, Latency};

/// Ends of the buckets that are told: few, so that many releases stay readable.
const BUCKETS_MS: [u64; 14] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 60_000];

type Column = (&'static str, &'static str, fn(&Counts) -> u64);

const COLUMNS: [Column; 5] = [
    ("requests_total", "Requests sent (connections in TCP mode).", |counts| counts.requests),
    ("server_errors_total", "Answers with status 500 and above.", |counts| counts.server_errors),
    ("broken_total", "Requests whose connection broke.", |counts| counts.broken),
    ("connect_failures_total", "Connections that could not be made.", |counts| counts.connect_failures),
    ("retries_total", "Requests that went elsewhere.", |counts| counts.retries),
];

/// All counters as text.
pub(crate) fn render(stats: &GatewayStats) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    write_all(&mut text, stats).ok();
    text
}

fn write_all(out: &mut String, stats: &GatewayStats) -> std::fmt::Result {
    for (name, help, read) in COLUMNS {
        writeln!(out, "# HELP kaleem_gateway_{name} {help}\n# TYPE kaleem_gateway_{name} counter")?;
        for (release, counts) in &stats.releases {
            writeln!(out, "kaleem_gateway_{name}{{release=\"{release}\"}} {}", read(counts))?;
        }
    }
    let name = "kaleem_gateway_latency_seconds";
    writeln!(out, "# HELP {name} Time from sending a request to the beginning of its answer.\n# TYPE {name} histogram")?;
    for (release, counts) in &stats.releases {
        for end in BUCKETS_MS {
            let below = within(&counts.latency, Duration::from_millis(end));
            writeln!(out, "{name}_bucket{{release=\"{release}\",le=\"{}\"}} {below}", end as f64 / 1e3)?;
        }
        let count = counts.latency.count();
        let sum: f64 = counts.latency.buckets().map(|(end, count)| end.as_secs_f64() * count as f64).sum();
        writeln!(out, "{name}_bucket{{release=\"{release}\",le=\"+Inf\"}} {count}")?;
        writeln!(out, "{name}_sum{{release=\"{release}\"}} {sum}\n{name}_count{{release=\"{release}\"}} {count}")?;
    }
    gauge(out, "in_flight", "Requests and connections that run at an instance.")?;
    for target in &stats.targets {
        let (instance, release) = (&target.instance, target.release);
        writeln!(out, "kaleem_gateway_in_flight{{release=\"{release}\",instance=\"{instance}\"}} {}", target.in_flight)?;
    }
    let single = [
        ("open_connections", "Connections of clients.", stats.open_connections),
        ("held", "Requests that wait for an instance.", stats.hold.waiting),
    ];
    for (name, help, value) in single {
        gauge(out, name, help)?;
        writeln!(out, "kaleem_gateway_{name} {value}")?;
    }
    let totals = [
        ("held_total", "Requests that ever waited.", stats.hold.held),
        ("hold_expired_total", "Requests that waited too long.", stats.hold.expired),
        ("hold_overflowed_total", "Requests that found the queue full.", stats.hold.overflowed),
        ("worker_crashes_total", "Workers that died.", stats.worker.crashes),
    ];
    for (name, help, value) in totals {
        writeln!(out, "# HELP kaleem_gateway_{name} {help}\n# TYPE kaleem_gateway_{name} counter\nkaleem_gateway_{name} {value}")?;
    }
    Ok(())
}

fn gauge(out: &mut String, name: &str, help: &str) -> std::fmt::Result {
    writeln!(out, "# HELP kaleem_gateway_{name} {help}\n# TYPE kaleem_gateway_{name} gauge")
}

fn within(latency: &Latency, end: Duration) -> u64 {
    latency.buckets().filter(|(bucket, _)| *bucket <= end).map(|(_, count)| count).sum()
}

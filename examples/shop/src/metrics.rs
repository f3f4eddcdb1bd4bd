//! Counters and a duration histogram, in Prometheus' text format.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds in seconds, and as they are printed.
const BUCKETS: [(f64, &str); 9] = [
    (0.001, "0.001"),
    (0.005, "0.005"),
    (0.025, "0.025"),
    (0.1, "0.1"),
    (0.25, "0.25"),
    (0.5, "0.5"),
    (1.0, "1"),
    (2.5, "2.5"),
    (10.0, "10"),
];

/// What was counted since the start.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// By route and status. Routes are names of ours, so that their number is bounded.
    requests: BTreeMap<(&'static str, u16), u64>,
    errors: u64,
    /// Each bucket counts only what fell between its bound and the one below.
    buckets: [u64; BUCKETS.len()],
    seconds: f64,
    all: u64,
}

impl Metrics {
    /// Counts one answered request.
    pub(crate) fn count(&self, route: &'static str, status: u16, took: Duration) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.requests.entry((route, status)).or_default() += 1;
        counts.errors += u64::from(status >= 500);
        counts.all += 1;
        counts.seconds += took.as_secs_f64();
        if let Some(index) = BUCKETS.iter().position(|(bound, _)| took.as_secs_f64() <= *bound)
            && let Some(bucket) = counts.buckets.get_mut(index)
        {
            *bucket += 1;
        }
    }

    /// Everything, as text.
    pub(crate) fn render(&self, version: &str) -> String {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::from("# HELP shop_requests_total Requests answered.\n# TYPE shop_requests_total counter\n");
        let mut line = |line: String| {
            text.push_str(&line);
            text.push('\n');
        };
        for ((route, status), count) in &counts.requests {
            line(format!("shop_requests_total{{version=\"{version}\",route=\"{route}\",status=\"{status}\"}} {count}"));
        }
        line("# HELP shop_errors_total Requests answered with a status of 500 or more.".to_owned());
        line("# TYPE shop_errors_total counter".to_owned());
        line(format!("shop_errors_total{{version=\"{version}\"}} {}", counts.errors));
        line("# HELP shop_request_duration_seconds Time to answer.".to_owned());
        line("# TYPE shop_request_duration_seconds histogram".to_owned());
        let mut below = 0;
        for ((_, bound), count) in BUCKETS.iter().zip(counts.buckets) {
            below += count;
            line(format!("shop_request_duration_seconds_bucket{{version=\"{version}\",le=\"{bound}\"}} {below}"));
        }
        line(format!("shop_request_duration_seconds_bucket{{version=\"{version}\",le=\"+Inf\"}} {}", counts.all));
        line(format!("shop_request_duration_seconds_sum{{version=\"{version}\"}} {}", counts.seconds));
        line(format!("shop_request_duration_seconds_count{{version=\"{version}\"}} {}", counts.all));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_everything_below_their_bound() {
        let metrics = Metrics::default();
        metrics.count("/", 200, Duration::from_millis(3));
        metrics.count("/", 500, Duration::from_millis(300));
        metrics.count("/", 200, Duration::from_secs(60));
        let text = metrics.render("v1");
        for line in [
            "shop_requests_total{version=\"v1\",route=\"/\",status=\"200\"} 2",
            "shop_errors_total{version=\"v1\"} 1",
            "shop_request_duration_seconds_bucket{version=\"v1\",le=\"0.001\"} 0",
            "shop_request_duration_seconds_bucket{version=\"v1\",le=\"0.005\"} 1",
            "shop_request_duration_seconds_bucket{version=\"v1\",le=\"10\"} 2",
            "shop_request_duration_seconds_bucket{version=\"v1\",le=\"+Inf\"} 3",
            "shop_request_duration_seconds_count{version=\"v1\"} 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }
}

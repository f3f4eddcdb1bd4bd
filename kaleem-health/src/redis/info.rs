//! What `INFO` says, and what that means: persistence, memory, clients, replication.

use std::ops::Range;

use crate::report::Report;
use crate::settings::RedisLimits;

/// The fields of `INFO`: the text, and where in it each of them stands, by name. It is read a hundred times a second where much is watched.
#[derive(Clone, Debug, Default)]
pub(crate) struct Info {
    text: String,
    fields: Vec<(Range<usize>, Range<usize>)>,
}

/// Counters that only grow: their growth between two looks is judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counters {
    evicted: Option<f64>,
    rejected: Option<f64>,
}

impl Info {
    pub(crate) fn parse(text: String) -> Self {
        let mut fields = Vec::with_capacity(256);
        let mut at = 0;
        for line in text.split_inclusive('\n') {
            let kept = line.trim_end();
            if let Some((name, value)) = kept.split_once(':').filter(|_| !kept.starts_with('#')) {
                let begin = at + name.len() + 1;
                fields.push((at..at + name.len(), begin..begin + value.len()));
            }
            at += line.len();
        }
        // Of a name that stands twice the last one counts.
        fields.reverse();
        fields.sort_by_key(|(name, _): &(Range<usize>, Range<usize>)| text.get(name.clone()));
        fields.dedup_by_key(|(name, _)| text.get(name.clone()));
        Self { text, fields }
    }

    pub(crate) fn text(&self, name: &str) -> &str {
        let found = self.fields.binary_search_by(|(range, _)| self.part(range).cmp(name)).ok();
        found.and_then(|at| self.fields.get(at)).map_or("", |(_, value)| self.part(value))
    }

    fn part(&self, range: &Range<usize>) -> &str {
        self.text.get(range.clone()).unwrap_or_default()
    }

    pub(crate) fn counters(&self) -> Counters {
        Counters { evicted: self.number("evicted_keys"), rejected: self.number("rejected_connections") }
    }

    pub(crate) fn number(&self, name: &str) -> Option<f64> {
        self.text(name).parse().ok()
    }

    pub(crate) fn is_loading(&self) -> bool {
        self.text("loading") == "1"
    }

    pub(crate) fn is_replica(&self) -> bool {
        self.text("role") == "slave"
    }

    /// State and lag in seconds of every replica.
    pub(crate) fn replicas(&self) -> Vec<(String, f64)> {
        let numbered = |name: &str| name.strip_prefix("slave").is_some_and(|n| n.parse::<u32>().is_ok());
        let lines = self.fields.iter().filter(|(name, _)| numbered(self.part(name))).map(|(_, value)| self.part(value));
        lines
            .map(|line| {
                let field = |wanted: &str| line.split(',').find_map(|pair| pair.strip_prefix(wanted)?.strip_prefix('='));
                let lag = field("lag").and_then(|lag| lag.parse().ok()).unwrap_or(0.0);
                (field("state").unwrap_or_default().to_owned(), lag)
            })
            .collect()
    }
}

/// Judges one server by its `INFO`; `before` is what the last run saw, for counters that only grow.
pub(crate) fn judge(report: &mut Report, info: &Info, before: Option<Counters>, limits: &RedisLimits) {
    if info.is_loading() {
        let percent = info.text("loading_loaded_perc");
        let left = info.text("loading_eta_seconds");
        let far = if percent.parse::<f64>().is_ok() && left.parse::<f64>().is_ok() {
            format!(": {percent} %, about {left} s left")
        } else {
            String::new()
        };
        report.fail(format!("it is loading its data set{far}"), "wait; it answers nothing else until then");
        return;
    }
    persistence(report, info);
    memory(report, info, before, limits);
    clients(report, info, before);
    replication(report, info, limits);
}

fn persistence(report: &mut Report, info: &Info) {
    let full = "see its log; check the space and the rights of its directory, and `vm.overcommit_memory`";
    if info.text("rdb_last_bgsave_status") == "err" {
        report.fail("its last snapshot failed, and so it refuses writes (unless `stop-writes-on-bgsave-error no`)", full);
    }
    if info.text("aof_enabled") == "1" && info.text("aof_last_write_status") == "err" {
        report.fail("it cannot write its append-only file, and so it refuses writes", full);
    }
    if info.text("aof_last_bgrewrite_status") == "err" {
        report.warn("the last rewrite of its append-only file failed: the file keeps growing", full);
    }
}

fn memory(report: &mut Report, info: &Info, before: Option<Counters>, limits: &RedisLimits) {
    let Some(used) = info.number("used_memory") else { return };
    report.measure("used_memory", used, "bytes");
    let policy = info.text("maxmemory_policy");
    if let Some(limit) = info.number("maxmemory").filter(|limit| *limit > 0.0) {
        let percent = used / limit * 100.0;
        report.measure("used_memory_share", percent, "percent");
        if policy == "noeviction" {
            let remedy = "raise `maxmemory`, delete keys, or choose a policy that evicts";
            if percent >= limits.memory_fail_percent {
                report.fail(format!("its memory is full ({percent:.0} % of maxmemory, noeviction): it refuses writes"), remedy);
            } else if percent >= limits.memory_warn_percent {
                report.warn(format!("its memory is {percent:.0} % full, and at 100 % it refuses writes (noeviction)"), remedy);
            }
        }
    }
    if let Some(growth) = grown(info.counters().evicted, before.and_then(|before| before.evicted)) {
        report.measure("evicted_keys", growth, "");
        // With allkeys-* it is a cache, and evicting is its work; volatile-* may hold data that somebody counts on.
        if growth > 0.0 && policy.starts_with("volatile-") {
            report.warn(
                format!("it evicted {growth:.0} keys since the last look ({})", crate::report::word(policy)),
                "raise `maxmemory`, or shorten what is kept",
            );
        }
    }
}

fn clients(report: &mut Report, info: &Info, before: Option<Counters>) {
    if let (Some(now), Some(most)) = (info.number("connected_clients"), info.number("maxclients").filter(|most| *most > 0.0)) {
        report.measure("connected_clients", now, "");
        report.share(
            "clients are",
            now / most * 100.0,
            (80.0, 95.0),
            "find the client that leaks connections (`redis-cli client list`), or raise `maxclients`",
        );
    }
    if let Some(refused) = grown(info.counters().rejected, before.and_then(|before| before.rejected)).filter(|refused| *refused > 0.0) {
        report.warn(
            format!("it refused {refused:.0} connections since the last look"),
            "raise `maxclients`, or find the client that leaks connections",
        );
    }
}

fn replication(report: &mut Report, info: &Info, limits: &RedisLimits) {
    let (warn, fail) = (limits.lag_warn.as_secs_f64(), limits.lag_fail.as_secs_f64());
    if info.is_replica() {
        let network = "look at the master, at the network between them, and at `masterauth` of the replica";
        if info.text("master_link_status") != "up" {
            let since = info.number("master_link_down_since_seconds").filter(|since| *since >= 0.0);
            let since = since.map_or(String::new(), |since| format!(" for {since:.0} s"));
            report.fail(format!("it is a replica whose link to the master is down{since}"), network);
        } else if let Some(silent) = info.number("master_last_io_seconds_ago").filter(|silent| *silent >= 0.0) {
            report.measure("replication_silence", silent, "seconds");
            if silent >= fail {
                report.fail(format!("it heard nothing of its master for {silent:.0} s"), network);
            } else if silent >= warn {
                report.warn(format!("it heard nothing of its master for {silent:.0} s"), network);
            }
        }
        return;
    }
    let replicas = info.replicas();
    report.measure("replicas", f64::from(u32::try_from(replicas.len()).unwrap_or(u32::MAX)), "");
    let online = replicas.iter().filter(|(state, _)| state == "online").count();
    if online < limits.least_replicas {
        report.warn(
            format!("{online} of {} replicas are online", limits.least_replicas),
            "see which one is missing: `redis-cli info replication`",
        );
    }
    for (state, lag) in &replicas {
        report.measure("replication_lag", *lag, "seconds");
        if state != "online" {
            report.warn(
                format!("a replica is in the state `{}`", crate::report::word(state)),
                "wait until it has synchronised; see the log of the replica if it does not",
            );
        } else if *lag >= warn {
            report.warn(format!("a replica is {lag:.0} s behind"), "look at the replica's load and network");
        }
    }
}

fn grown(now: Option<f64>, then: Option<f64>) -> Option<f64> {
    let (now, then) = (now?, then?);
    // A restart sets counters back.
    Some(if now >= then { now - then } else { now })
}

#[cfg(test)]
mod tests {
    use kaleem_core::health::Verdict;

    use super::*;

    #[test]
    fn every_bad_state_has_its_verdict() {
        let well =
            "role:master\r\nconnected_clients:3\r\nmaxclients:100\r\nused_memory:50\r\nmaxmemory:100\r\nmaxmemory_policy:noeviction\r\n";
        let table = [
            ("all is well", "", Verdict::Ok, "well"),
            ("loading", "loading:1\r\nloading_loaded_perc:12.5\r\nloading_eta_seconds:4", Verdict::Fail, "12.5 %, about 4 s"),
            ("snapshot", "rdb_last_bgsave_status:err", Verdict::Fail, "last snapshot failed"),
            ("append-only file", "aof_enabled:1\r\naof_last_write_status:err", Verdict::Fail, "append-only file"),
            ("rewrite", "aof_last_bgrewrite_status:err", Verdict::Warn, "rewrite"),
            ("nearly full", "used_memory:92", Verdict::Warn, "92 % full"),
            ("full", "used_memory:101", Verdict::Fail, "refuses writes"),
            ("full and evicting", "used_memory:101\r\nmaxmemory_policy:allkeys-lru", Verdict::Ok, "well"),
            ("clients", "connected_clients:96", Verdict::Fail, "clients"),
            ("broken link", "role:slave\r\nmaster_link_status:down\r\nmaster_link_down_since_seconds:7", Verdict::Fail, "down for 7 s"),
            ("silent master", "role:slave\r\nmaster_link_status:up\r\nmaster_last_io_seconds_ago:40", Verdict::Warn, "40 s"),
            ("lost master", "role:slave\r\nmaster_link_status:up\r\nmaster_last_io_seconds_ago:200", Verdict::Fail, "200 s"),
            ("lagging replica", "slave0:ip=10.0.0.2,port=6379,state=online,offset=1,lag=45", Verdict::Warn, "45 s behind"),
            ("synchronising replica", "slave0:ip=10.0.0.2,port=6379,state=wait_bgsave,offset=1,lag=0", Verdict::Warn, "wait_bgsave"),
        ];
        for (why, lines, verdict, reason) in table {
            let mut report = Report::default();
            judge(&mut report, &Info::parse(format!("{well}{lines}")), None, &RedisLimits::STANDARD);
            let finding = report.finish("well");
            assert_eq!((finding.verdict, finding.reason.contains(reason)), (verdict, true), "{why}: {}", finding.reason);
        }
    }

    #[test]
    fn counters_are_judged_by_their_growth() {
        let then = Info::parse("used_memory:1\r\nevicted_keys:10\r\nrejected_connections:5\r\nmaxmemory_policy:volatile-ttl".to_owned());
        for (why, evicted, rejected, verdict) in [
            ("nothing new", 10, 5, Verdict::Ok),
            ("evictions", 12, 5, Verdict::Warn),
            ("refusals", 10, 6, Verdict::Warn),
            ("restarted, clean", 0, 0, Verdict::Ok),
        ] {
            let now = Info::parse(format!(
                "used_memory:1\r\nevicted_keys:{evicted}\r\nrejected_connections:{rejected}\r\nmaxmemory_policy:volatile-ttl"
            ));
            let mut report = Report::default();
            judge(&mut report, &now, Some(then.counters()), &RedisLimits::STANDARD);
            assert_eq!(report.finish("well").verdict, verdict, "{why}");
        }
    }

    #[test]
    fn too_few_replicas_are_a_warning() {
        let limits = RedisLimits { least_replicas: 1, ..RedisLimits::STANDARD };
        let mut report = Report::default();
        judge(&mut report, &Info::parse("role:master".to_owned()), None, &limits);
        assert_eq!(report.finish("well").reason, "0 of 1 replicas are online");
    }
}

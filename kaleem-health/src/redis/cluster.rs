//! Redis Cluster: every node is asked; every slot must be served, and every range should have a replica.

use std::time::Duration;

use futures_util::future::join_all;
use kaleem_core::health::{Finding, Verdict};

use super::wire::WireError;
use super::{NEEDED_CLUSTER, RedisProbe};
use crate::dial::Endpoint;
use crate::report::Report;

const SLOTS: usize = 16_384;
/// Above this the answers of all nodes would not be worth their traffic.
const MOST_NODES: usize = 200;

/// A line of `CLUSTER NODES`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    id: String,
    host: String,
    port: u16,
    is_master: bool,
    master: String,
    failed: bool,
    slots: usize,
    first_slot: Option<String>,
}

pub(super) fn nodes(text: &str) -> Vec<Node> {
    text.lines().filter_map(node).take(MOST_NODES).collect()
}

fn node(line: &str) -> Option<Node> {
    let mut fields = line.split_ascii_whitespace();
    let (id, address, flags, master) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let address = address.split(['@', ',']).next()?;
    let (host, port) = address.rsplit_once(':')?;
    // Times, epoch and link state stand between; slots that move are in brackets and counted where they still are.
    let ranges: Vec<&str> = fields.skip(4).filter(|range| !range.starts_with('[')).collect();
    let slots = ranges.iter().filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(last.parse::<usize>().ok()?.checked_sub(first.parse().ok()?)? + 1)
    });
    let has = |flag: &str| flags.split(',').any(|one| one == flag);
    Some(Node {
        id: id.to_owned(),
        host: host.to_owned(),
        port: port.parse().ok()?,
        is_master: has("master"),
        master: master.to_owned(),
        failed: has("fail") || has("noaddr"),
        slots: slots.sum(),
        first_slot: ranges.first().map(|range| (*range).to_owned()),
    })
}

impl RedisProbe {
    pub(super) async fn cluster(&self, timeout: Duration) -> Finding {
        let list = async {
            let mut session = self.open(&self.endpoint, timeout).await?;
            session.text(&["CLUSTER", "NODES"]).await
        };
        let nodes = match list.await {
            Ok(text) => nodes(&text),
            Err(WireError::Refused(code)) if code == "ERR" => {
                return Finding::new(Verdict::Fail, format!("{} is not part of a cluster", self.endpoint))
                    .with_remedy("set `cluster-enabled yes`, or ask it as a single server");
            }
            Err(error) => return error.finding(&self.endpoint, &self.login, NEEDED_CLUSTER),
        };
        // A node that hangs must not take the time of the judgement.
        let share = timeout.mul_f64(0.8);
        let answers = join_all(nodes.iter().map(|node| async {
            let endpoint = Endpoint { host: node.host.clone(), port: node.port, tls: self.endpoint.tls.clone() };
            let ask = async {
                let mut session = self.open(&endpoint, share).await?;
                session.text(&["CLUSTER", "INFO"]).await
            };
            match tokio::time::timeout(share, ask).await {
                Ok(Ok(text)) => Ok(text),
                Ok(Err(error)) => Err(error.finding(&endpoint, &self.login, NEEDED_CLUSTER)),
                Err(_) => {
                    Err(Finding::new(Verdict::Fail, format!("{endpoint} does not answer")).with_remedy("look at its process and its log"))
                }
            }
        }))
        .await;
        judge(&nodes, answers)
    }
}

fn judge(nodes: &[Node], answers: Vec<Result<String, Finding>>) -> Finding {
    let mut report = Report::default();
    let covered: usize = nodes.iter().filter(|node| node.is_master && !node.failed).map(|node| node.slots).sum();
    report.measure("slots_covered", f64::from(u32::try_from(covered).unwrap_or(0)), "");
    if covered < SLOTS {
        report.fail(
            format!("{} of {SLOTS} slots are served by nobody", SLOTS - covered),
            "start the node that held them, or give them to another: `redis-cli --cluster fix HOST:PORT`",
        );
    }
    for (node, answer) in nodes.iter().zip(answers) {
        let place = format!("{}:{}", node.host, node.port);
        match answer {
            Ok(text) if !text.lines().any(|line| line.trim_end() == "cluster_state:ok") => {
                report.fail(format!("{place} sees the cluster as failed"), "see what it misses: `redis-cli cluster info`");
            }
            Ok(_) => {}
            // A replica that is gone, or a master whose slots another has taken over, is a missing spare.
            Err(finding) if finding.verdict == Verdict::Fail && (!node.is_master || node.slots == 0) => {
                report.warn(format!("{place} (serves no slots): {}", finding.reason), finding.remedy.unwrap_or_default());
            }
            Err(finding) => report.take("", finding),
        }
    }
    let masters = nodes.iter().filter(|node| node.is_master && node.slots > 0);
    for master in masters.clone().filter(|master| !master.failed) {
        if !nodes.iter().any(|node| !node.is_master && !node.failed && node.master == master.id) {
            let range = master.first_slot.as_deref().unwrap_or("some");
            report.warn(
                format!("slots {range} of {}:{} have no replica", master.host, master.port),
                "add one: `redis-cli --cluster add-node NEW EXISTING --cluster-slave`",
            );
        }
    }
    report.finish(format!(
        "all {SLOTS} slots are served by {} masters, each with a replica; all {} nodes answer",
        masters.count(),
        nodes.len()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: &str = "aa 127.0.0.1:7001@17001 myself,master - 0 1 1 connected 0-5460\n\
        bb 127.0.0.1:7002@17002,host master - 0 1 2 connected 5461-10922\n\
        cc 127.0.0.1:7003@17003 master - 0 1 3 connected 10923-16383 [93-<-aa]\n";
    const REPLICAS: &str = "dd 127.0.0.1:7004@17004 slave aa 0 1 1 connected\n\
        ee 127.0.0.1:7005@17005 slave bb 0 1 2 connected\n\
        ff 127.0.0.1:7006@17006 slave cc 0 1 3 connected\n";

    fn ok() -> Result<String, Finding> {
        Ok("cluster_state:ok\r\ncluster_slots_assigned:16384\r\n".to_owned())
    }

    fn gone() -> Result<String, Finding> {
        Err(Finding::new(Verdict::Fail, "connection refused").with_remedy("start it"))
    }

    #[test]
    fn a_cluster_is_judged_by_its_slots_its_nodes_and_its_replicas() {
        let all = format!("{THREE}{REPLICAS}");
        let failed_master = all.replace("bb 127.0.0.1:7002@17002,host master", "bb 127.0.0.1:7002@17002,host master,fail");
        type Row<'a> = (&'a str, &'a str, Vec<Result<String, Finding>>, Verdict, &'a str);
        let table: [Row; 5] = [
            ("whole", &all, (0..6).map(|_| ok()).collect(), Verdict::Ok, "3 masters"),
            ("without replicas", THREE, (0..3).map(|_| ok()).collect(), Verdict::Warn, "have no replica"),
            ("a replica is gone", &all, vec![ok(), ok(), ok(), gone(), ok(), ok()], Verdict::Warn, "connection refused"),
            ("a master is gone", &failed_master, vec![ok(), gone(), ok(), ok(), ok(), ok()], Verdict::Fail, "5462 of 16384 slots"),
            (
                "one sees it failed",
                THREE,
                vec![ok(), Ok("cluster_state:fail\r\n".to_owned()), ok()],
                Verdict::Fail,
                "sees the cluster as failed",
            ),
        ];
        for (why, text, answers, verdict, reason) in table {
            let finding = judge(&nodes(text), answers);
            assert_eq!((finding.verdict, finding.reason.contains(reason)), (verdict, true), "{why}: {}", finding.reason);
        }
    }
}

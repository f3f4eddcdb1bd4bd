//! A replica set as one of its members sees it: primary, majority, states, lag.

use std::time::Duration;

use mongodb::bson::{Bson, Document};

use crate::report::{Report, word};
use crate::settings::MongodbLimits;

/// Idle members write an entry every 10 s, so less is no lag.
const NO_LAG_SECONDS: f64 = 12.0;
const PRIMARY: i64 = 1;
const SECONDARY: i64 = 2;
const ARBITER: i64 = 7;

/// `replSetGetStatus`.
#[derive(Clone, Debug, Default)]
pub(super) struct SetView {
    pub(super) members: Vec<SetMember>,
    majority: usize,
}

#[derive(Clone, Debug)]
pub(super) struct SetMember {
    name: String,
    state: i64,
    state_name: String,
    is_healthy: bool,
    /// Time of its last operation, in seconds.
    optime_seconds: Option<f64>,
}

/// A number of any type.
#[expect(clippy::cast_precision_loss, reason = "counts of connections and seconds are far below 2^52")]
pub(super) fn number(document: &Document, name: &str) -> Option<f64> {
    match document.get(name)? {
        Bson::Int32(value) => Some(f64::from(*value)),
        Bson::Int64(value) => Some(*value as f64),
        Bson::Double(value) => Some(*value),
        _ => None,
    }
}

impl SetView {
    pub(super) fn read(status: &Document) -> Self {
        let members = status.get_array("members").into_iter().flatten().filter_map(Bson::as_document);
        let members: Vec<SetMember> = members
            .map(|member| {
                let text = |name: &str| word(member.get_str(name).unwrap_or_default()).to_owned();
                let state = number(member, "state").unwrap_or(6.0);
                SetMember {
                    name: text("name"),
                    #[expect(clippy::cast_possible_truncation, reason = "states are 0 to 10")]
                    state: state as i64,
                    state_name: text("stateStr"),
                    is_healthy: number(member, "health") == Some(1.0),
                    optime_seconds: member
                        .get_document("optime")
                        .ok()
                        .and_then(|optime| optime.get_timestamp("ts").ok())
                        .map(|time| f64::from(time.time)),
                }
            })
            .collect();
        let half = members.len() / 2 + 1;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a majority is 1 to 4")]
        let majority = number(status, "majorityVoteCount").map_or(half, |count| count as usize);
        Self { members, majority }
    }

    pub(super) fn primaries(&self) -> usize {
        self.members.iter().filter(|member| member.is_healthy && member.state == PRIMARY).count()
    }

    pub(super) fn healthy(&self) -> usize {
        self.members.iter().filter(|member| member.is_healthy && matches!(member.state, PRIMARY | SECONDARY | ARBITER)).count()
    }

    /// Whether enough members are well to have a primary; who misses one is judged by itself.
    pub(super) fn has_majority(&self) -> bool {
        self.healthy() >= self.majority
    }

    /// `orphaned` is how long no primary was seen.
    pub(super) fn judge(&self, report: &mut Report, limits: &MongodbLimits, orphaned: Duration) {
        let total = self.members.len();
        let look = "look at `rs.status()`, and at the logs of the members that are not PRIMARY or SECONDARY";
        report.measure("members_healthy", f64::from(u32::try_from(self.healthy()).unwrap_or(u32::MAX)), "");
        let (well, majority) = (self.healthy(), self.majority);
        match self.primaries() {
            1 => {}
            // An election takes some seconds.
            0 if orphaned < limits.no_primary && well >= majority => {
                report.warn(format!("no member is primary since {} s", orphaned.as_secs()), look);
            }
            0 => {
                let reason =
                    format!("no member is primary: nothing can be written ({well} of {total} are well, {majority} are a majority)");
                report.fail(reason, look);
            }
            many => {
                report.fail(format!("{many} members say that they are primary"), look);
            }
        }
        if self.primaries() > 0 && self.healthy() < self.majority {
            report.fail(format!("{} of {total} members are well, and {} are a majority", self.healthy(), self.majority), look);
        }
        let newest =
            self.members.iter().filter(|member| member.state == PRIMARY && member.is_healthy).find_map(|member| member.optime_seconds);
        for member in &self.members {
            if !member.is_healthy {
                report.warn(
                    format!("the member {} cannot be reached by the others", member.name),
                    format!("start it, and see its log; {look}"),
                );
                continue;
            }
            if !matches!(member.state, PRIMARY | SECONDARY | ARBITER) {
                report.warn(format!("the member {} is in the state {}", member.name, member.state_name), look);
            }
            let (Some(newest), Some(own), SECONDARY) = (newest, member.optime_seconds, member.state) else { continue };
            let lag = (newest - own).max(0.0);
            let lag = if lag < NO_LAG_SECONDS { 0.0 } else { lag };
            report.measure("replication_lag", lag, "seconds");
            let remedy = "look at the load and the disk of that member: `rs.printSecondaryReplicationInfo()`";
            if lag >= limits.lag_fail.as_secs_f64() {
                report.fail(format!("the member {} is {lag:.0} s behind", member.name), remedy);
            } else if lag >= limits.lag_warn.as_secs_f64() {
                report.warn(format!("the member {} is {lag:.0} s behind", member.name), remedy);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use kaleem_core::health::Verdict;
    use mongodb::bson::{Timestamp, doc};

    use super::*;

    fn member(name: &str, state: i32, state_name: &str, seconds: u32) -> Document {
        let health = if state == 8 { 0.0 } else { 1.0 };
        doc! { "name": name, "health": health, "state": state, "stateStr": state_name, "optime": { "ts": Timestamp { time: seconds, increment: 1 }, "t": 3_i64 } }
    }

    fn judged(members: &[Document; 3], orphaned: u64) -> kaleem_core::health::Finding {
        let status = doc! { "set": "rs0", "majorityVoteCount": 2, "members": members.to_vec() };
        let mut report = Report::default();
        SetView::read(&status).judge(&mut report, &MongodbLimits::STANDARD, Duration::from_secs(orphaned));
        report.finish("well")
    }

    #[test]
    fn every_state_of_a_set_has_its_verdict() {
        let (a, b, c) = ("a:27017", "b:27017", "c:27017");
        let primary = || member(a, 1, "PRIMARY", 1000);
        let secondary = |name: &str, seconds| member(name, 2, "SECONDARY", seconds);
        let down = |name: &str| member(name, 8, "(not reachable/healthy)", 0);
        for (why, members, orphaned, verdict, reason) in [
            ("well", [primary(), secondary(b, 1000), secondary(c, 995)], 0, Verdict::Ok, "well"),
            ("idle members are no lag", [primary(), secondary(b, 989), secondary(c, 1000)], 0, Verdict::Ok, "well"),
            ("lag", [primary(), secondary(b, 965), secondary(c, 1000)], 0, Verdict::Warn, "b:27017 is 35 s behind"),
            ("much lag", [primary(), secondary(b, 800), secondary(c, 1000)], 0, Verdict::Fail, "b:27017 is 200 s behind"),
            ("one is down", [primary(), secondary(b, 1000), down(c)], 0, Verdict::Warn, "c:27017 cannot be reached"),
            (
                "recovering",
                [primary(), secondary(b, 1000), member(c, 3, "RECOVERING", 500)],
                0,
                Verdict::Warn,
                "c:27017 is in the state RECOVERING",
            ),
            ("an arbiter", [primary(), secondary(b, 1000), member(c, 7, "ARBITER", 0)], 0, Verdict::Ok, "well"),
            ("an election", [secondary(a, 1000), secondary(b, 1000), down(c)], 5, Verdict::Warn, "no member is primary since 5 s"),
            (
                "no primary for long",
                [secondary(a, 1000), secondary(b, 1000), secondary(c, 1000)],
                31,
                Verdict::Fail,
                "nothing can be written",
            ),
            ("no majority", [secondary(a, 1000), down(b), down(c)], 0, Verdict::Fail, "1 of 3 are well, 2 are a majority"),
            ("a primary that lost its majority", [primary(), down(b), down(c)], 0, Verdict::Fail, "1 of 3 members are well"),
            ("two primaries", [primary(), member(b, 1, "PRIMARY", 1000), secondary(c, 1000)], 0, Verdict::Fail, "2 members say"),
        ] {
            let finding = judged(&members, orphaned);
            assert_eq!((finding.verdict, finding.reason.contains(reason)), (verdict, true), "{why}: {}", finding.reason);
        }
    }
}

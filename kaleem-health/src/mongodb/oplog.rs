//! How far back the oplog of a primary reaches: a member that is away longer must copy everything.

use mongodb::Client;
use mongodb::bson::{Document, doc};

use super::set::number;
use crate::report::Report;
use crate::settings::MongodbLimits;

/// One that was never full covers all there was; how little that is says nothing.
const FULL_SHARE: f64 = 0.9;

/// What the oplog covers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Oplog {
    window_seconds: f64,
    is_full: bool,
}

impl Oplog {
    /// `None` where the user may not read it, which takes more than the role for all other questions.
    pub(super) async fn ask(client: &Client) -> Option<Self> {
        let local = client.database("local");
        let log = local.collection::<Document>("oplog.rs");
        let end = async |direction: i32| {
            let entry = log.find_one(doc! {}).sort(doc! { "$natural": direction }).projection(doc! { "ts": 1 }).await.ok()??;
            entry.get_timestamp("ts").ok().map(|time| f64::from(time.time))
        };
        let (first, last) = (end(1).await?, end(-1).await?);
        // A server that does not say how full it is has only its window told.
        let stats = local.run_command(doc! { "collStats": "oplog.rs" }).await.unwrap_or_default();
        let share = number(&stats, "size").zip(number(&stats, "maxSize").filter(|most| *most > 0.0)).map(|(size, most)| size / most);
        Some(Self { window_seconds: (last - first).max(0.0), is_full: share.is_some_and(|share| share >= FULL_SHARE) })
    }

    pub(super) fn judge(self, report: &mut Report, limits: &MongodbLimits) {
        report.measure("oplog_window", self.window_seconds, "seconds");
        if self.is_full && self.window_seconds < limits.oplog_window_warn.as_secs_f64() {
            report.warn(
                format!("its oplog covers {:.1} hours: a member that is away longer must copy everything", self.window_seconds / 3600.0),
                "enlarge it: `db.adminCommand({replSetResizeOplog: 1, size: MEGABYTES})`",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use kaleem_core::health::Verdict;

    use super::*;

    #[test]
    fn only_a_full_oplog_can_be_too_short() {
        for (why, hours, is_full, verdict) in [
            ("a day and more", 30.0, true, Verdict::Ok),
            ("short", 6.0, true, Verdict::Warn),
            ("short, since the set is young", 6.0, false, Verdict::Ok),
        ] {
            let mut report = Report::default();
            Oplog { window_seconds: hours * 3600.0, is_full }.judge(&mut report, &MongodbLimits::STANDARD);
            let finding = report.finish("well");
            assert_eq!(finding.verdict, verdict, "{why}: {}", finding.reason);
        }
    }
}

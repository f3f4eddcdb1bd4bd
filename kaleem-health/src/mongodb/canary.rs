//! A document that is written by a majority, read and removed again: what a primary says of itself is not what it can do.

use std::time::Duration;

use kaleem_core::clock::{Clock, SystemClock};
use mongodb::Client;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, DateTime, Document, doc};

use super::{NOT_AUTHORIZED, code};
use crate::report::Report;

/// Database and collection of its own: nothing of an application is touched.
const DATABASE: &str = "kaleem";
const COLLECTION: &str = "canary";
/// What a process that died left behind is removed by a later run.
const LEFT_BEHIND_MILLIS: i64 = 600_000;
const GRANT: &str =
    "grant it, in `mongosh` as an administrator: `use admin; db.grantRolesToUser(\"USER\", [{role: \"readWrite\", db: \"kaleem\"}])`";

/// Writes, reads and removes; says in `report` what did not work.
pub(super) async fn fly(client: &Client, place: &str, timeout: Duration, report: &mut Report) {
    let start = SystemClock.monotonic();
    match attempt(client, timeout).await {
        Ok(()) => report.measure("canary", SystemClock.monotonic().saturating_sub(start).as_secs_f64() * 1000.0, "milliseconds"),
        Err(Miss::Denied) => report.unknown(format!("{place} does not let this user write the canary"), GRANT),
        Err(Miss::NoMajority) => report.fail(
            format!("{place} took a write, and no majority confirmed it within {timeout:?}"),
            "see which members lag or are away: `rs.status()`, `rs.printSecondaryReplicationInfo()`",
        ),
        Err(Miss::Lost) => report.fail(format!("{place} does not give back what was just written"), "see its log and the disk below it"),
        Err(Miss::Refused) => report.fail(
            format!("{place} refuses to write"),
            "see its log; a full disk, `fsyncLock` and a step-down refuse writes: `db.currentOp({fsyncLock: true})`",
        ),
    }
}

enum Miss {
    Denied,
    NoMajority,
    Lost,
    Refused,
}

async fn attempt(client: &Client, timeout: Duration) -> Result<(), Miss> {
    let database = client.database(DATABASE);
    let id = ObjectId::new();
    let wait = i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX);
    let by_majority = || doc! { "w": "majority", "wtimeout": wait };
    let run = async |command: Document| {
        let said = database.run_command(command).await.map_err(|error| match code(&error) {
            Some(NOT_AUTHORIZED) => Miss::Denied,
            _ => Miss::Refused,
        })?;
        // What is wrong with a write stands in an answer that says ok.
        match said.get_array("writeErrors").ok().and_then(|errors| errors.first()).and_then(Bson::as_document) {
            Some(error) if matches!(error.get_i32("code"), Ok(NOT_AUTHORIZED)) => return Err(Miss::Denied),
            Some(_) => return Err(Miss::Refused),
            None => {}
        }
        if said.contains_key("writeConcernError") { Err(Miss::NoMajority) } else { Ok(said) }
    };
    run(doc! { "insert": COLLECTION, "documents": [{ "_id": id, "at": DateTime::now() }], "writeConcern": by_majority() }).await?;
    let found = run(doc! { "find": COLLECTION, "filter": { "_id": id }, "limit": 1, "singleBatch": true }).await;
    let old = ObjectId::from_bytes(before(id, LEFT_BEHIND_MILLIS / 1000));
    let mine = doc! { "q": { "_id": id }, "limit": 1 };
    let left = doc! { "q": { "_id": { "$lt": old } }, "limit": 0 };
    // Removed whatever the reading gave.
    run(doc! { "delete": COLLECTION, "deletes": [mine, left], "writeConcern": by_majority() }).await?;
    let batch = found?.get_document("cursor").ok().and_then(|cursor| cursor.get_array("firstBatch").ok()).map_or(0, Vec::len);
    if batch == 1 { Ok(()) } else { Err(Miss::Lost) }
}

/// The smallest id that was made so many seconds before this one.
fn before(id: ObjectId, seconds: i64) -> [u8; 12] {
    let millis = id.timestamp().timestamp_millis();
    let then = u32::try_from((millis / 1000).saturating_sub(seconds)).unwrap_or(0);
    let mut bytes = [0; 12];
    for (byte, value) in bytes.iter_mut().zip(then.to_be_bytes()) {
        *byte = value;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_earlier_runs_are_told_from_those_of_now() {
        let now = ObjectId::new();
        let old = ObjectId::from_bytes(before(now, 600));
        assert!(old < now);
        assert_eq!(now.timestamp().timestamp_millis() - old.timestamp().timestamp_millis(), 600_000);
    }
}

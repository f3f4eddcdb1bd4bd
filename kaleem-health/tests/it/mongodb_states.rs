//! States of a replica set that cannot be made on a test machine: members at the level of the wire say them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kaleem_core::health::{Finding, HealthProbe, Verdict};
use kaleem_core::secret::Secret;
use kaleem_core::testing::free_port;
use kaleem_core::testing::probe_contract::discreet;
use kaleem_health::settings::{MongodbLimits, MongodbSettings};
use kaleem_health::{KnownHosts, MongodbProbe};
use mongodb::bson::{Document, doc};

use crate::mongo_stand_in::{Script, StandIn, hello, member, status};

const TIMEOUT: Duration = Duration::from_secs(10);
const PRIMARY: (i32, &str) = (1, "PRIMARY");
const SECONDARY: (i32, &str) = (2, "SECONDARY");
const DOWN: (i32, &str) = (8, "(not reachable/healthy)");

/// A member: state, name of the state, seconds of its last operation.
type Said = ((i32, &'static str), u32);

fn settings(addresses: &[SocketAddr]) -> MongodbSettings {
    let hosts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    MongodbSettings::standard(Secret::new(format!("mongodb://{}/?replicaSet=rs0", hosts.join(","))))
}

async fn ask(settings: MongodbSettings) -> Finding {
    MongodbProbe::new("database", settings, Arc::new(KnownHosts::new())).unwrap().check(TIMEOUT).await
}

#[track_caller]
fn expect(why: &str, finding: &Finding, verdict: Verdict, reason: &str) {
    discreet(why, finding);
    assert_eq!((finding.verdict, finding.reason.contains(reason)), (verdict, true), "{why}: {finding:?}");
}

/// A set of three; those that are down do not listen. Every other member sees the same.
fn set(said: &[Said; 3]) -> (Vec<StandIn>, Vec<SocketAddr>) {
    let up: Vec<Option<StandIn>> = said.iter().map(|((state, _), _)| (*state != DOWN.0).then(StandIn::start)).collect();
    let nobody = || SocketAddr::from(([127, 0, 0, 1], free_port()));
    let addresses: Vec<SocketAddr> = up.iter().map(|one| one.as_ref().map_or_else(nobody, |one| one.address)).collect();
    let members: Vec<Document> =
        said.iter().zip(&addresses).map(|(((state, name), seconds), address)| member(*address, *state, name, *seconds)).collect();
    for (one, ((state, _), _)) in up.iter().zip(said) {
        if let Some(one) = one {
            one.says(Script { hello: hello(&addresses, *state), status: Ok(status(members.clone())), ..Script::standalone() });
        }
    }
    (up.into_iter().flatten().collect(), addresses)
}

#[tokio::test]
async fn a_set_is_judged_by_what_its_members_say() {
    let table: [(&str, [Said; 3], Verdict, &str); 10] = [
        ("well", [(PRIMARY, 1000), (SECONDARY, 1000), (SECONDARY, 998)], Verdict::Ok, "3 of 3 members are well"),
        ("lag", [(PRIMARY, 1000), (SECONDARY, 965), (SECONDARY, 1000)], Verdict::Warn, "is 35 s behind"),
        ("much lag", [(PRIMARY, 1000), (SECONDARY, 800), (SECONDARY, 1000)], Verdict::Fail, "is 200 s behind"),
        ("recovering", [(PRIMARY, 1000), ((3, "RECOVERING"), 500), (SECONDARY, 1000)], Verdict::Warn, "in the state RECOVERING"),
        ("first copy", [(PRIMARY, 1000), ((5, "STARTUP2"), 0), (SECONDARY, 1000)], Verdict::Warn, "in the state STARTUP2"),
        ("rolling back", [(PRIMARY, 1000), ((9, "ROLLBACK"), 990), (SECONDARY, 1000)], Verdict::Warn, "in the state ROLLBACK"),
        ("an arbiter", [(PRIMARY, 1000), ((7, "ARBITER"), 0), (SECONDARY, 1000)], Verdict::Ok, "3 of 3 members are well"),
        ("one is gone", [(PRIMARY, 1000), (SECONDARY, 1000), (DOWN, 0)], Verdict::Warn, "cannot be reached by the others"),
        (
            "a minority",
            [(SECONDARY, 1000), (DOWN, 0), (DOWN, 0)],
            Verdict::Fail,
            "nothing can be written (1 of 3 are well, 2 are a majority)",
        ),
        ("an election", [(SECONDARY, 1000), (SECONDARY, 1000), (DOWN, 0)], Verdict::Warn, "no member is primary since 0 s"),
    ];
    for (why, said, verdict, reason) in table {
        let (_members, addresses) = set(&said);
        expect(why, &ask(settings(&addresses)).await, verdict, reason);
        // One address is enough: the others are named by the member that answers.
        let first = ask(settings(&addresses[..1])).await;
        expect(&format!("{why}, by one address"), &first, verdict, reason);
    }
}

#[tokio::test]
async fn a_set_without_a_primary_fails_when_that_lasts() {
    let (members, addresses) = set(&[(SECONDARY, 1000), (SECONDARY, 1000), (SECONDARY, 1000)]);
    let limits = MongodbLimits { no_primary: Duration::from_millis(300), ..MongodbLimits::STANDARD };
    let settings = MongodbSettings { limits, ..settings(&addresses) };
    let probe = MongodbProbe::new("database", settings, Arc::new(KnownHosts::new())).unwrap();
    expect("at first", &probe.check(TIMEOUT).await, Verdict::Warn, "no member is primary since");
    let mut finding = probe.check(TIMEOUT).await;
    for _ in 0..100 {
        if finding.verdict == Verdict::Fail {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        finding = probe.check(TIMEOUT).await;
    }
    expect("for long", &finding, Verdict::Fail, "nothing can be written (3 of 3 are well, 2 are a majority)");
    let elected: Vec<Document> =
        addresses.iter().enumerate().map(|(index, place)| member(*place, if index == 1 { 1 } else { 2 }, "", 1001)).collect();
    for (index, one) in members.iter().enumerate() {
        let state = if index == 1 { 1 } else { 2 };
        one.says(Script { hello: hello(&addresses, state), status: Ok(status(elected.clone())), ..Script::standalone() });
    }
    expect("elected", &probe.check(TIMEOUT).await, Verdict::Ok, "3 of 3 members are well");
}

#[tokio::test]
async fn one_server_is_judged_by_what_it_says_of_itself() {
    let one = StandIn::start();
    let plain = Script::standalone;
    let in_set = |status| Script { hello: hello(&[one.address], 1), status, ..plain() };
    let alone = || status(vec![member(one.address, 1, "PRIMARY", 1000)]);
    // `status` of a set of three whose majority is two would be a set without one.
    let of_one = || {
        let mut said = alone();
        said.insert("majorityVoteCount", 1);
        said
    };
    let unready = doc! { "isWritablePrimary": false, "isreplicaset": true, "info": "Does not have a valid replica set config" };
    for (why, script, verdict, reason) in [
        ("standalone", plain(), Verdict::Ok, "one server"),
        (
            "a router",
            Script { hello: doc! { "isWritablePrimary": true, "msg": "isdbgrid" }, status: Err((59, "CommandNotFound")), ..plain() },
            Verdict::Ok,
            "one server",
        ),
        ("never initiated", Script { hello: unready, status: Err((94, "NotYetInitialized")), ..plain() }, Verdict::Fail, "never initiated"),
        ("removed from its set", in_set(Err((93, "InvalidReplicaSetConfig"))), Verdict::Fail, "is no member of the set"),
        ("may not look", in_set(Err((13, "Unauthorized"))), Verdict::Unknown, "does not let this user read its state"),
        ("many connections", Script { connections: (850, 150), ..plain() }, Verdict::Warn, "connections are at 85 %"),
        ("no connections left", Script { connections: (970, 30), ..plain() }, Verdict::Fail, "connections are at 97 %"),
        ("a short oplog", Script { oplog: (6 * 3600, 99, 100), ..in_set(Ok(of_one())) }, Verdict::Warn, "its oplog covers 6.0 hours"),
        ("a young oplog", Script { oplog: (6 * 3600, 10, 100), ..in_set(Ok(of_one())) }, Verdict::Ok, "1 of 1 members are well"),
    ] {
        one.says(script);
        let url = Secret::new(format!("mongodb://{}/?directConnection=true", one.address));
        expect(why, &ask(MongodbSettings::standard(url)).await, verdict, reason);
    }
}

#[tokio::test]
async fn the_canary_tells_a_primary_that_can_write_from_one_that_cannot() {
    let one = StandIn::start();
    let plain = Script::standalone;
    let late = doc! { "n": 1, "writeConcernError": { "code": 64, "codeName": "WriteConcernTimeout", "errmsg": "s3rver-text-do-not-repeat" }, "ok": 1.0 };
    let denied = doc! { "ok": 0.0, "code": 13, "codeName": "Unauthorized", "errmsg": "s3rver-text-do-not-repeat" };
    let full = doc! { "ok": 0.0, "code": 14031, "codeName": "OutOfDiskSpace", "errmsg": "s3rver-text-do-not-repeat" };
    for (why, script, verdict, reason) in [
        ("well", plain(), Verdict::Ok, "one server"),
        ("no majority", Script { write: late, ..plain() }, Verdict::Fail, "no majority confirmed it"),
        ("may not write", Script { write: denied, ..plain() }, Verdict::Unknown, "does not let this user write the canary"),
        ("full", Script { write: full, ..plain() }, Verdict::Fail, "refuses to write"),
        ("lost", Script { keeps: false, ..plain() }, Verdict::Fail, "does not give back what was just written"),
    ] {
        one.says(script);
        let url = Secret::new(format!("mongodb://{}", one.address));
        let finding = ask(MongodbSettings { canary: true, ..MongodbSettings::standard(url) }).await;
        expect(why, &finding, verdict, reason);
        assert_eq!(finding.measurements.iter().any(|one| one.name == "canary"), verdict == Verdict::Ok, "{why}: {finding:?}");
    }
}

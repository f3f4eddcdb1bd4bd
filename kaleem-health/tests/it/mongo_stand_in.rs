//! A member of a MongoDB replica set at the level of the wire: answers as MongoDB 7.0 does in states that a test machine
//! cannot be brought into. Knows exactly the commands that the probe and its driver send; refuses all others with code 59.
//!
//! The shapes of the answers are those of `hello`, `replSetGetStatus`, `serverStatus` and `collStats` of MongoDB 7.0.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use kaleem_core::testing::mongo_wire;
use mongodb::bson::{Document, Timestamp, doc};

/// What a member answers.
#[derive(Clone)]
pub(crate) struct Script {
    /// Fields of `hello` that differ from those of a server without a set.
    pub(crate) hello: Document,
    /// `replSetGetStatus`, or the code and name of its refusal.
    pub(crate) status: Result<Document, (i32, &'static str)>,
    /// Current and available connections.
    pub(crate) connections: (i32, i32),
    /// Seconds that the oplog covers, its size and its limit.
    pub(crate) oplog: (u32, i64, i64),
    /// What a write is answered with.
    pub(crate) write: Document,
    /// Whether what was written can be read.
    pub(crate) keeps: bool,
}

impl Script {
    /// A server without a set, well.
    pub(crate) fn standalone() -> Self {
        Self {
            hello: doc! { "isWritablePrimary": true },
            status: Err((76, "NoReplicationEnabled")),
            connections: (10, 51_190),
            oplog: (100_000, 10, 100),
            write: doc! { "n": 1, "ok": 1.0 },
            keeps: true,
        }
    }
}

/// A listening member; its answers can be changed at any time.
#[derive(Clone)]
pub(crate) struct StandIn {
    pub(crate) address: SocketAddr,
    script: Arc<Mutex<Script>>,
}

impl StandIn {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(Mutex::new(Script::standalone()));
        let shared = Arc::clone(&script);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let script = Arc::clone(&shared);
                // It ends when the client goes away.
                std::thread::spawn(move || drop(serve(stream, &script)));
            }
        });
        Self { address, script }
    }

    pub(crate) fn says(&self, script: Script) {
        *self.script.lock().unwrap() = script;
    }
}

/// A line of `replSetGetStatus.members`.
pub(crate) fn member(name: SocketAddr, state: i32, state_name: &str, optime_seconds: u32) -> Document {
    let optime = doc! { "ts": Timestamp { time: optime_seconds, increment: 1 }, "t": 7_i64 };
    let mut member = doc! { "_id": i32::from(name.port()), "name": name.to_string(), "health": 1.0, "state": state, "stateStr": state_name, "uptime": 4000 };
    if state == 8 {
        member.insert("health", 0.0);
        member.insert("optime", doc! { "ts": Timestamp { time: 0, increment: 0 }, "t": -1_i64 });
        member.insert("lastHeartbeatMessage", "Error connecting to the member :: caused by :: Connection refused");
    } else if state != 7 {
        member.insert("optime", optime);
    }
    member
}

/// `replSetGetStatus` of a set of three.
pub(crate) fn status(members: Vec<Document>) -> Document {
    doc! { "set": "rs0", "myState": 1, "term": 7_i64, "heartbeatIntervalMillis": 2000_i64, "majorityVoteCount": 2,
    "writeMajorityCount": 2, "votingMembersCount": 3, "members": members, "ok": 1.0 }
}

/// `hello` of a member in that state.
pub(crate) fn hello(hosts: &[SocketAddr], state: i32) -> Document {
    let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    doc! { "setName": "rs0", "setVersion": 3, "hosts": hosts, "isWritablePrimary": state == 1, "secondary": state == 2 }
}

fn serve(stream: TcpStream, script: &Mutex<Script>) -> std::io::Result<()> {
    mongo_wire::serve(stream, |sent| {
        let command = Document::from_reader(sent.document.as_slice()).unwrap();
        let script = script.lock().unwrap().clone();
        answer(&command, &script).to_vec().unwrap()
    })
}

fn answer(command: &Document, script: &Script) -> Document {
    let refuse = |code: i32, name: &str| doc! { "ok": 0.0, "errmsg": "s3rver-text-do-not-repeat", "code": code, "codeName": name };
    let now = || mongodb::bson::DateTime::now();
    match command.keys().next().map_or("", String::as_str) {
        "hello" | "ismaster" | "isMaster" => {
            let mut said = doc! { "helloOk": true, "maxBsonObjectSize": 16_777_216, "maxMessageSizeBytes": 48_000_000, "maxWriteBatchSize": 100_000,
            "localTime": now(), "logicalSessionTimeoutMinutes": 30, "connectionId": 42, "minWireVersion": 0, "maxWireVersion": 21, "readOnly": false, "ok": 1.0 };
            said.extend(script.hello.clone());
            said.insert("ismaster", script.hello.get_bool("isWritablePrimary").unwrap_or(false));
            said
        }
        "ping" | "endSessions" => doc! { "ok": 1.0 },
        "replSetGetStatus" => match &script.status {
            Ok(status) => status.clone(),
            Err((code, name)) => refuse(*code, name),
        },
        "serverStatus" => {
            let (current, available) = script.connections;
            doc! { "version": "7.0.14", "connections": { "current": current, "available": available, "totalCreated": 4711 }, "ok": 1.0 }
        }
        "find" if matches!(command.get_str("find"), Ok("oplog.rs")) => {
            let first = command.get_document("sort").is_ok_and(|sort| matches!(sort.get_i32("$natural"), Ok(1)));
            let time = 1_700_000_000 + if first { 0 } else { script.oplog.0 };
            doc! { "cursor": { "id": 0_i64, "ns": "local.oplog.rs", "firstBatch": [{ "ts": Timestamp { time, increment: 1 } }] }, "ok": 1.0 }
        }
        "find" => {
            let batch = if script.keeps { vec![doc! { "_id": 1 }] } else { Vec::new() };
            doc! { "cursor": { "id": 0_i64, "ns": "kaleem.canary", "firstBatch": batch }, "ok": 1.0 }
        }
        "collStats" => doc! { "ns": "local.oplog.rs", "size": script.oplog.1, "maxSize": script.oplog.2, "capped": true, "ok": 1.0 },
        "insert" | "delete" => script.write.clone(),
        _ => refuse(59, "CommandNotFound"),
    }
}

//! A member of a MongoDB replica set at the level of the wire, in memory, which keeps to the moments that it names: the real
//! server that the tests have does not, and knows neither credentials nor how users are put back.
//!
//! Knows exactly the commands that kaleem and its driver send, and refuses all others with code 59. What it answers has the
//! shape of the answers of MongoDB 7.0.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

use kaleem_core::testing::mongo_wire;
use mongodb::bson::{Bson, Document, Timestamp, doc};

/// The first moment of the world.
const BEGIN: u32 = 1_700_000_000;

/// A document, from when until when it is there.
struct Entry {
    born: u32,
    died: Option<u32>,
    document: Document,
}

#[derive(Default)]
struct Collection {
    options: Document,
    indexes: Vec<Document>,
    entries: Vec<Entry>,
}

/// Everything that a member holds.
pub(crate) struct World {
    now: u32,
    collections: BTreeMap<String, Collection>,
    cursors: BTreeMap<i64, (String, Vec<Document>)>,
    /// Moments before this one are forgotten.
    pub(crate) oldest: u32,
    /// With each command that reads, one document is written to `shop.debit`, and then one to `shop.credit`.
    pub(crate) busy: bool,
    /// With each command that reads, all of the oplog but its newest entry goes.
    pub(crate) forgets_its_oplog: bool,
    /// After so many more answers with documents everything that was is forgotten.
    pub(crate) forgets_after: Option<u32>,
}

type Answer = Result<Document, (i32, &'static str)>;

impl World {
    fn new() -> Self {
        let (collections, cursors) = (BTreeMap::new(), BTreeMap::new());
        let mut world =
            Self { now: BEGIN, collections, cursors, oldest: BEGIN, busy: false, forgets_its_oplog: false, forgets_after: None };
        world.log(doc! { "op": "n", "ns": "", "o": { "msg": "initiating set" } });
        world
    }

    /// Writes a document, and what the oplog says of it.
    pub(crate) fn write(&mut self, namespace: &str, document: Document) {
        self.log(doc! { "op": "i", "ns": namespace, "o": document.clone() });
        let born = self.now;
        let place = self.collections.entry(namespace.to_owned()).or_default();
        if place.indexes.is_empty() {
            place.indexes.push(doc! { "v": 2, "key": { "_id": 1 }, "name": "_id_" });
        }
        place.entries.push(Entry { born, died: None, document });
    }

    fn log(&mut self, mut entry: Document) {
        self.now += 1;
        entry.insert("ts", Timestamp { time: self.now, increment: 1 });
        let born = self.now;
        self.collections.entry("local.oplog.rs".to_owned()).or_default().entries.push(Entry { born, died: None, document: entry });
    }

    fn forget_the_oplog(&mut self) {
        let oplog = self.collections.entry("local.oplog.rs".to_owned()).or_default();
        oplog.entries.drain(..oplog.entries.len() - 1);
    }

    /// Takes a collection away.
    pub(crate) fn take_away(&mut self, namespace: &str) {
        self.collections.remove(namespace);
    }

    /// Changes the document with the same `_id`.
    pub(crate) fn replace(&mut self, namespace: &str, document: &Document) {
        for entry in &mut self.collections.entry(namespace.to_owned()).or_default().entries {
            if entry.died.is_none() && entry.document.get("_id") == document.get("_id") {
                entry.document = document.clone();
            }
        }
    }

    /// What is there now.
    pub(crate) fn documents(&self, namespace: &str) -> Vec<Document> {
        self.shown(namespace, self.now)
    }

    /// Every collection that has something in it, or was made.
    pub(crate) fn namespaces(&self) -> Vec<String> {
        self.collections.keys().filter(|name| !name.starts_with("local.")).cloned().collect()
    }

    fn shown(&self, namespace: &str, at: u32) -> Vec<Document> {
        let Some(collection) = self.collections.get(namespace) else { return Vec::new() };
        let is_there = |entry: &&Entry| entry.born <= at && entry.died.is_none_or(|died| died > at);
        collection.entries.iter().filter(is_there).map(|entry| entry.document.clone()).collect()
    }

    fn pair(&mut self) {
        if self.busy {
            let number = i64::from(self.now);
            self.write("shop.debit", doc! { "_id": number });
            self.write("shop.credit", doc! { "_id": number });
        }
        if self.forgets_its_oplog {
            self.log(doc! { "op": "n", "ns": "", "o": { "msg": "periodic noop" } });
            self.forget_the_oplog();
        }
    }

    fn answer(&mut self, command: &Document) -> Answer {
        let name = command.keys().next().map_or("", String::as_str).to_owned();
        let database = command.get_str("$db").unwrap_or("admin").to_owned();
        let namespace = || format!("{database}.{}", command.get_str(&name).unwrap_or_default());
        let ok = doc! { "ok": 1.0 };
        Ok(match name.as_str() {
            "ping" | "endSessions" | "killCursors" => ok,
            "buildInfo" => doc! { "version": "7.0.14", "ok": 1.0 },
            "listDatabases" => {
                let names: std::collections::BTreeSet<&str> =
                    self.collections.keys().filter_map(|name| Some(name.split_once('.')?.0)).collect();
                let listed: Vec<Document> =
                    names.into_iter().map(|name| doc! { "name": name, "sizeOnDisk": 1_i64, "empty": false }).collect();
                doc! { "databases": listed, "totalSize": 1_i64, "ok": 1.0 }
            }
            "listCollections" => {
                let prefix = format!("{database}.");
                let listed = self.collections.iter().filter_map(|(name, collection)| {
                    let name = name.strip_prefix(&prefix)?;
                    Some(doc! { "name": name, "type": "collection", "options": collection.options.clone(), "info": { "readOnly": false } })
                });
                let listed: Vec<Document> = listed.collect();
                batch(&format!("{database}.$cmd.listCollections"), listed)
            }
            "listIndexes" => {
                let listed = self.collections.get(&namespace()).ok_or((26, "NamespaceNotFound"))?.indexes.clone();
                batch(&namespace(), listed)
            }
            "find" => return self.find(command, &namespace()),
            "getMore" => return self.more(command),
            "insert" => {
                let documents = command.get_array("documents").unwrap().clone();
                for document in &documents {
                    self.write(&namespace(), document.as_document().unwrap().clone());
                }
                doc! { "n": i32::try_from(documents.len()).unwrap(), "ok": 1.0 }
            }
            "create" => {
                let mut options = command.clone();
                for key in ["create", "$db", "lsid", "$clusterTime", "$readPreference"] {
                    options.remove(key);
                }
                let indexes = vec![doc! { "v": 2, "key": { "_id": 1 }, "name": "_id_" }];
                self.collections.insert(namespace(), Collection { options, indexes, entries: Vec::new() });
                ok
            }
            "createIndexes" => {
                let wanted = command.get_array("indexes").unwrap().iter().map(|index| index.as_document().unwrap().clone());
                self.collections.get_mut(&namespace()).ok_or((26, "NamespaceNotFound"))?.indexes.extend(wanted);
                ok
            }
            "drop" => match self.collections.remove(&namespace()) {
                Some(_) => ok,
                None => return Err((26, "NamespaceNotFound")),
            },
            "renameCollection" => {
                let (from, to) = (command.get_str("renameCollection").unwrap(), command.get_str("to").unwrap());
                if self.collections.contains_key(to) && !command.get_bool("dropTarget").unwrap_or(false) {
                    return Err((48, "NamespaceExists"));
                }
                let moved = self.collections.remove(from).ok_or((26, "NamespaceNotFound"))?;
                self.collections.insert(to.to_owned(), moved);
                ok
            }
            "_mergeAuthzCollections" => return self.merge(command),
            _ => return Err((59, "CommandNotFound")),
        })
    }

    fn find(&mut self, command: &Document, namespace: &str) -> Answer {
        let concern = command.get_document("readConcern").cloned().unwrap_or_default();
        let is_snapshot = matches!(concern.get_str("level"), Ok("snapshot"));
        let at = match concern.get_timestamp("atClusterTime") {
            Ok(at) => at.time,
            Err(_) => self.now,
        };
        if is_snapshot && at < self.oldest {
            return Err((239, "SnapshotTooOld"));
        }
        let mut found = self.shown(namespace, at);
        let filter = command.get_document("filter").cloned().unwrap_or_default();
        found.retain(|document| filter.iter().all(|(field, condition)| meets(document.get(field), condition)));
        if command.get_document("sort").is_ok_and(|sort| matches!(sort.get("$natural"), Some(Bson::Int32(-1)))) {
            found.reverse();
        }
        let limit = command.get_i64("limit").or(command.get_i32("limit").map(i64::from)).unwrap_or(0);
        if limit > 0 {
            found.truncate(usize::try_from(limit).unwrap());
        }
        // Small answers, so that there is something to ask for while others write.
        let rest = found.split_off(found.len().min(20));
        let id = if rest.is_empty() { 0 } else { i64::from(self.now) * 1000 + i64::try_from(self.cursors.len()).unwrap() + 1 };
        if id != 0 {
            self.cursors.insert(id, (namespace.to_owned(), rest));
        }
        let mut cursor = doc! { "id": id, "ns": namespace, "firstBatch": found };
        if is_snapshot {
            cursor.insert("atClusterTime", Timestamp { time: at, increment: 1 });
        }
        self.pair();
        Ok(doc! { "cursor": cursor, "ok": 1.0 })
    }

    fn more(&mut self, command: &Document) -> Answer {
        let id = command.get_i64("getMore").unwrap();
        if let Some(left) = &mut self.forgets_after {
            match left.checked_sub(1) {
                Some(less) => *left = less,
                None => return Err((239, "SnapshotTooOld")),
            }
        }
        let (namespace, mut found) = self.cursors.remove(&id).ok_or((43, "CursorNotFound"))?;
        let rest = found.split_off(found.len().min(20));
        let next = if rest.is_empty() { 0 } else { id };
        if next != 0 {
            self.cursors.insert(id, (namespace.clone(), rest));
        }
        self.pair();
        Ok(doc! { "cursor": { "id": next, "ns": namespace, "nextBatch": found }, "ok": 1.0 })
    }

    fn merge(&mut self, command: &Document) -> Answer {
        let mut merged = false;
        for (key, place) in [("tempUsersCollection", "admin.system.users"), ("tempRolesCollection", "admin.system.roles")] {
            let Ok(from) = command.get_str(key) else { continue };
            merged = true;
            for document in self.documents(from) {
                let now = self.now;
                for entry in &mut self.collections.entry(place.to_owned()).or_default().entries {
                    if entry.document.get("_id") == document.get("_id") {
                        entry.died = Some(now);
                    }
                }
                self.write(place, document);
            }
        }
        if merged { Ok(doc! { "ok": 1.0 }) } else { Err((2, "BadValue")) }
    }
}

fn meets(value: Option<&Bson>, condition: &Bson) -> bool {
    let Some(condition) = condition.as_document() else { return value == Some(condition) };
    condition.iter().all(|(operator, wanted)| match operator.as_str() {
        "$in" => wanted.as_array().unwrap().iter().any(|wanted| Some(wanted) == value),
        "$gte" => value.and_then(Bson::as_timestamp) >= wanted.as_timestamp(),
        "$lte" => value.and_then(Bson::as_timestamp) <= wanted.as_timestamp(),
        other => unreachable!("nobody asks with {other}"),
    })
}

fn batch(namespace: &str, found: Vec<Document>) -> Document {
    doc! { "cursor": { "id": 0_i64, "ns": namespace, "firstBatch": found }, "ok": 1.0 }
}

/// A listening member.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) address: SocketAddr,
    world: Arc<Mutex<World>>,
}

impl Member {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let world = Arc::new(Mutex::new(World::new()));
        let shared = Arc::clone(&world);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let world = Arc::clone(&shared);
                // It ends when the client goes away.
                std::thread::spawn(move || drop(serve(stream, address, &world)));
            }
        });
        Self { address, world }
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }
}

fn serve(stream: TcpStream, address: SocketAddr, world: &Mutex<World>) -> std::io::Result<()> {
    mongo_wire::serve(stream, |sent| {
        let read = |bytes: &[u8]| Document::from_reader(bytes).unwrap();
        let mut command = read(&sent.document);
        for (field, documents) in &sent.lists {
            command.insert(field, documents.iter().map(|bytes| Bson::Document(read(bytes))).collect::<Vec<_>>());
        }
        let answer = match command.keys().next().map_or("", String::as_str) {
            "hello" | "ismaster" | "isMaster" => hello(address),
            _ => world.lock().unwrap().answer(&command).unwrap_or_else(|(code, name)| {
                doc! { "ok": 0.0, "errmsg": format!("{name} of the stand-in"), "code": code, "codeName": name }
            }),
        };
        answer.to_vec().unwrap()
    })
}

fn hello(address: SocketAddr) -> Document {
    doc! { "helloOk": true, "ismaster": true, "isWritablePrimary": true, "secondary": false, "setName": "rs0", "setVersion": 1,
    "hosts": [address.to_string()], "me": address.to_string(), "primary": address.to_string(), "maxBsonObjectSize": 16_777_216,
    "maxMessageSizeBytes": 48_000_000, "maxWriteBatchSize": 100_000, "localTime": mongodb::bson::DateTime::now(),
    "logicalSessionTimeoutMinutes": 30, "connectionId": 42, "minWireVersion": 0, "maxWireVersion": 21, "readOnly": false, "ok": 1.0 }
}

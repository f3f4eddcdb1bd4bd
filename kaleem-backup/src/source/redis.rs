//! One Redis server: its RDB over the replication stream, as a replica gets it, checked to its last byte.
//!
//! A restore loads every key with `RESTORE` into a database that is empty, compares, and swaps the databases: so a server
//! with `appendonly yes` keeps what was restored, and what was there is whole until the swap. Connections are not encrypted.

mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use kaleem_core::backup::{
    BackupSource, ByteSender, ByteStream, Consistency, Contents, Exported, RestoreMode, SourceError, SourceIdentity, SourceKind, pipe,
};
use kaleem_core::names::ArtifactName;
use kaleem_core::secret::Secret;

use self::wire::{Connection, Reply};
use crate::format::Crc64;
use crate::format::rdb::{self, RdbItem, RdbKey, RdbReader, RdbValues};

/// The longest value that is put back through a command.
const LONGEST_VALUE: usize = 64 * 1024 * 1024;

/// Where a server is, and who we are to it.
#[derive(Clone, Debug)]
pub struct RedisAddress {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The user, where it is not the default one.
    pub username: Option<String>,
    /// The password, where there is one.
    pub password: Option<Secret<String>>,
}

/// A [`BackupSource`] of one Redis server.
#[derive(Debug)]
pub struct RedisSource {
    identity: SourceIdentity,
    address: RedisAddress,
    answer_within: Duration,
}

impl RedisSource {
    /// A source of the server at `address`; nothing is asked yet. `answer_within` is for connecting and for each command;
    /// the server may take as long as it needs to begin its stream, within the silence that the set allows.
    pub fn new(name: ArtifactName, address: RedisAddress, answer_within: Duration) -> Self {
        Self { identity: SourceIdentity { name, kind: SourceKind::Redis }, address, answer_within }
    }

    fn store(&self) -> String {
        format!("redis at {}:{}", self.address.host, self.address.port)
    }

    async fn connect(&self) -> Result<Connection, SourceError> {
        Connection::open(self.store(), &self.address, self.answer_within).await
    }

    /// Asks for everything as a replica does, and passes it on.
    async fn stream(&self, out: &mut ByteSender) -> Result<(), SourceError> {
        let mut connection = self.connect().await?;
        connection.become_replica().await?;
        connection.pass_on(out).await
    }

    async fn read_all(&self) -> Result<(Contents, u64), SourceError> {
        let (mut sender, receiver) = pipe();
        let reading = async {
            let mut reader = RdbReader::open(Box::pin(receiver), RdbValues::Skip).await?;
            while reader.next().await?.is_some() {}
            Ok::<_, SourceError>((reader.contents(), reader.expiring()))
        };
        let streaming = async {
            let streamed = self.stream(&mut sender).await;
            match &streamed {
                Ok(()) => sender.finish().await.map_err(|source| SourceError::Output { source }),
                Err(_) => streamed,
            }
        };
        match tokio::join!(streaming, reading) {
            (Ok(()) | Err(SourceError::Output { .. }), read) => read,
            (Err(error), _) => Err(error),
        }
    }

    async fn command(&self, connection: &mut Connection, doing: &str, parts: &[&[u8]]) -> Result<Reply, SourceError> {
        match connection.ask(parts).await? {
            Reply::Error(reason) => Err(SourceError::Failed { store: self.store(), doing: doing.to_owned(), source: reason.into() }),
            reply => Ok(reply),
        }
    }

    /// Keys by number of database, of those that have some.
    async fn sizes(&self, connection: &mut Connection) -> Result<BTreeMap<u64, u64>, SourceError> {
        let Reply::Bytes(text) = self.command(connection, "asking what it holds", &[b"INFO", b"keyspace"]).await? else {
            return Err(connection.nonsense("INFO was not answered with a text"));
        };
        let text = String::from_utf8_lossy(&text).into_owned();
        let mut sizes = BTreeMap::new();
        for line in text.lines().filter_map(|line| line.trim().strip_prefix("db")) {
            let parsed = line
                .split_once(":keys=")
                .and_then(|(database, rest)| Some((database.parse().ok()?, rest.split(',').next()?.parse().ok()?)));
            let (database, keys) = parsed.ok_or_else(|| connection.nonsense("a line of INFO cannot be read"))?;
            sizes.insert(database, keys);
        }
        Ok(sizes)
    }

    async fn databases(&self, connection: &mut Connection) -> Result<u64, SourceError> {
        let reply = self.command(connection, "asking how many databases it has", &[b"CONFIG", b"GET", b"databases"]).await?;
        let Reply::Many(pair) = &reply else { return Err(connection.nonsense("CONFIG was not answered with a pair")) };
        let number = pair.get(1).and_then(|value| match value {
            Reply::Bytes(text) => std::str::from_utf8(text).ok()?.parse().ok(),
            _ => None,
        });
        number.ok_or_else(|| connection.nonsense("the number of databases is none"))
    }

    /// Puts one key into the database that is chosen.
    async fn put(&self, connection: &mut Connection, key: &RdbKey, version: u16) -> Result<(), SourceError> {
        let Some(value) = &key.value else {
            let what = String::from_utf8_lossy(&key.key).into_owned();
            let reason = format!("its value is longer than {} MiB; put dump.rdb in its place by hand", LONGEST_VALUE / 1024 / 1024);
            return Err(SourceError::Unsupported { what, reason });
        };
        let mut payload = value.clone();
        seal(&mut payload, version);
        let expires = key.expires_ms.unwrap_or(0).to_string();
        let mut parts: Vec<&[u8]> = vec![b"RESTORE", &key.key, expires.as_bytes(), &payload];
        if key.expires_ms.is_some() {
            parts.push(b"ABSTTL");
        }
        self.command(connection, "restoring a key", &parts).await.map(|_| ())
    }

    async fn select(&self, connection: &mut Connection, database: u64) -> Result<(), SourceError> {
        self.command(connection, "choosing a database", &[b"SELECT", database.to_string().as_bytes()]).await.map(|_| ())
    }

    /// Loads every database of the file beside its place; answers what was loaded where.
    async fn load(
        &self,
        connection: &mut Connection,
        input: ByteStream,
        spare: &mut Vec<u64>,
        moves: &mut BTreeMap<u64, u64>,
    ) -> Result<(Contents, Functions), SourceError> {
        let mut reader = RdbReader::open(input, RdbValues::Keep(LONGEST_VALUE)).await?;
        let version = reader.version();
        let (mut chosen, mut functions) = (None, Functions::default());
        while let Some(item) = reader.next().await? {
            let key = match item {
                RdbItem::Function(code) => {
                    functions.add(&code);
                    continue;
                }
                RdbItem::Key(key) => key,
            };
            let beside = match moves.get(&key.database) {
                Some(beside) => *beside,
                None => {
                    // Not the place itself, nor that of another: what is there may be wanted until all is loaded.
                    let what = format!("database {}", key.database);
                    let none = || SourceError::Unsupported { what, reason: "the server has no empty database to load it into".to_owned() };
                    let beside = spare.pop().ok_or_else(none)?;
                    moves.insert(key.database, beside);
                    beside
                }
            };
            if chosen != Some(beside) {
                self.select(connection, beside).await?;
                chosen = Some(beside);
            }
            self.put(connection, &key, version).await?;
        }
        functions.seal(version);
        Ok((reader.contents(), functions))
    }
}

/// What `RESTORE` wants behind the bytes: version and checksum.
fn seal(payload: &mut Vec<u8>, version: u16) {
    payload.extend(version.to_le_bytes());
    let mut crc = Crc64::jones();
    crc.add(payload);
    payload.extend(crc.value().to_le_bytes());
}

/// All functions of a file, as `FUNCTION RESTORE` takes them at once.
#[derive(Default)]
struct Functions {
    payload: Vec<u8>,
}

impl Functions {
    fn add(&mut self, code: &[u8]) {
        self.payload.extend([0xf5, 0x81]);
        self.payload.extend((code.len() as u64).to_be_bytes());
        self.payload.extend_from_slice(code);
    }

    fn seal(&mut self, version: u16) {
        if !self.payload.is_empty() {
            seal(&mut self.payload, version);
        }
    }
}

#[async_trait]
impl BackupSource for RedisSource {
    fn identity(&self) -> &SourceIdentity {
        &self.identity
    }

    async fn export(&self, out: &mut ByteSender) -> Result<Exported, SourceError> {
        // What is passed on is read at the same time, so that an export that is not whole does not end well.
        let (mut copy, receiver) = pipe();
        let mut connection = self.connect().await?;
        connection.become_replica().await?;
        let reading = async {
            let mut reader = RdbReader::open(Box::pin(receiver), RdbValues::Skip).await?;
            while reader.next().await?.is_some() {}
            Ok::<_, SourceError>((reader.contents(), reader.expiring()))
        };
        let streaming = async {
            let streamed = connection.pass_on_to_both(out, &mut copy).await;
            if streamed.is_ok() {
                // A reader that has given up says why.
                copy.finish().await.ok();
            }
            streamed
        };
        let (streamed, read) = tokio::join!(streaming, reading);
        let (contents, expiring) = match (streamed, read) {
            (Ok(()), read) => read?,
            // Only the reader's own verdict can end the stream to it.
            (Err(SourceError::Output { .. }), Err(error @ SourceError::Malformed { .. })) => return Err(error),
            (Err(error), _) => return Err(error),
        };
        let mut notes = vec!["contents compare names and types of keys; values are covered by the CRC of the file".to_owned()];
        if expiring > 0 {
            notes.push(format!("{expiring} keys expire, and are in no contents"));
        }
        Ok(Exported { contents, consistency: Consistency::Snapshot, notes })
    }

    async fn verify(&self, input: ByteStream) -> Result<Contents, SourceError> {
        rdb::verify(input).await
    }

    async fn restore(&self, input: ByteStream, mode: RestoreMode) -> Result<Contents, SourceError> {
        let mut connection = self.connect().await?;
        let sizes = self.sizes(&mut connection).await?;
        if let (RestoreMode::IntoEmpty, Some(taken)) = (mode, sizes.keys().next()) {
            return Err(SourceError::NotEmpty { what: format!("database {taken} of {}", self.store()) });
        }
        let listed = connection.ask(&[b"FUNCTION", b"LIST"]).await?;
        // Servers before version 7 have no functions, and say that they do not know the command.
        let has_functions = matches!(&listed, Reply::Many(functions) if !functions.is_empty());
        if mode == RestoreMode::IntoEmpty && has_functions {
            return Err(SourceError::NotEmpty { what: format!("the list of functions of {}", self.store()) });
        }
        let count = self.databases(&mut connection).await?;
        // The highest numbers come first: they are the least used.
        let mut spare: Vec<u64> = (0..count).filter(|database| !sizes.contains_key(database)).collect();
        let mut moves = BTreeMap::new();
        let loaded = self.load(&mut connection, input, &mut spare, &mut moves).await;
        let checked = match loaded {
            Ok(loaded) => self.compare(&moves, loaded).await,
            Err(error) => Err(error),
        };
        let (wanted, functions) = match checked {
            Ok(checked) => checked,
            Err(error) => {
                self.flush(&mut connection, moves.values()).await.ok();
                return Err(error);
            }
        };
        if !functions.payload.is_empty() {
            self.command(&mut connection, "loading functions", &[b"FUNCTION", b"RESTORE", &functions.payload, b"FLUSH"]).await?;
        } else if has_functions {
            self.command(&mut connection, "removing functions", &[b"FUNCTION", b"FLUSH"]).await?;
        }
        // A database that was moved may itself be the place of another that is still to be moved.
        let mut at: BTreeMap<u64, u64> = moves.clone();
        let places: Vec<u64> = moves.keys().copied().collect();
        for place in &places {
            let from = at.get(place).copied().unwrap_or(*place);
            if from == *place {
                continue;
            }
            let (one, two) = (place.to_string(), from.to_string());
            self.command(&mut connection, "swapping databases", &[b"SWAPDB", one.as_bytes(), two.as_bytes()]).await?;
            for (other, now) in &mut at {
                if other != place && *now == *place {
                    *now = from;
                }
            }
            at.insert(*place, *place);
        }
        let kept: BTreeSet<u64> = places.iter().copied().collect();
        let old: Vec<u64> = sizes.keys().copied().chain(moves.values().copied()).filter(|database| !kept.contains(database)).collect();
        self.flush(&mut connection, old.iter()).await?;
        let (found, _) = self.read_all().await?;
        match crate::set::difference(&found, &wanted) {
            None => Ok(found),
            Some(reason) => Err(SourceError::Differs { what: self.store(), reason }),
        }
    }

    async fn inspect(&self) -> Result<Contents, SourceError> {
        Ok(self.read_all().await?.0)
    }
}

impl RedisSource {
    async fn flush(&self, connection: &mut Connection, databases: impl Iterator<Item = &u64>) -> Result<(), SourceError> {
        for database in databases {
            self.select(connection, *database).await?;
            self.command(connection, "emptying a database", &[b"FLUSHDB"]).await?;
        }
        Ok(())
    }

    /// Compares what is beside with what was read, database by database.
    async fn compare(
        &self,
        moves: &BTreeMap<u64, u64>,
        (wanted, functions): (Contents, Functions),
    ) -> Result<(Contents, Functions), SourceError> {
        let (found, _) = self.read_all().await?;
        for (place, beside) in moves {
            let (found, wanted) = (found.get(&format!("db{beside}")), wanted.get(&format!("db{place}")));
            if found != wanted {
                let reason = format!("{:?} keys were sent, {:?} are there", wanted.map(|one| one.count), found.map(|one| one.count));
                return Err(SourceError::Differs { what: format!("database {place}"), reason });
            }
        }
        Ok((wanted, functions))
    }
}

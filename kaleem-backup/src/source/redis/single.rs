//! One server: a restore loads every database into an empty one, compares, and swaps the two.

use std::collections::{BTreeMap, BTreeSet};

use kaleem_core::backup::{ByteSender, ByteStream, Consistency, Contents, Exported, RestoreMode, SourceError};

use super::loading::{Functions, LONGEST_VALUE, Loading};
use super::wire::{Connection, Reply};
use super::{RedisSource, VALUES_NOTE, expiring_note, stream};
use crate::format::rdb::{RdbItem, RdbValues};
use crate::format::redis_cluster::ArtifactReader;

impl RedisSource {
    /// Sends everything.
    pub(super) async fn export_server(&self, connection: &mut Connection, out: &mut ByteSender) -> Result<Exported, SourceError> {
        connection.become_replica().await?;
        let length = connection.file_length().await?;
        let reader = stream::pass_on(connection, length, out, |_| Ok(()), |_| ()).await?;
        let notes = [VALUES_NOTE.to_owned()].into_iter().chain(expiring_note(reader.expiring())).collect();
        Ok(Exported { contents: reader.contents(), consistency: Consistency::Snapshot, notes })
    }

    /// Answers what a server holds.
    pub(super) async fn contents_of_server(&self) -> Result<Contents, SourceError> {
        Ok(stream::read(&mut self.connect().await?, |_| Ok(())).await?.contents())
    }

    /// Puts everything back; of a cluster, too.
    pub(super) async fn restore_server(
        &self,
        mut connection: Connection,
        input: ByteStream,
        mode: RestoreMode,
    ) -> Result<Contents, SourceError> {
        let sizes = self.sizes(&mut connection).await?;
        if let (RestoreMode::IntoEmpty, Some(taken)) = (mode, sizes.keys().next()) {
            return Err(SourceError::NotEmpty { what: format!("database {taken} of {}", self.store()) });
        }
        let has_functions = connection.has_functions().await?;
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
        let prepared = match checked {
            Ok((wanted, functions)) => functions.replace(&mut connection, has_functions).await.map(|()| wanted),
            Err(error) => Err(error),
        };
        let wanted = match prepared {
            Ok(wanted) => wanted,
            Err(error) => {
                self.flush(&mut connection, moves.values()).await.ok();
                return Err(error);
            }
        };
        // A database that was moved may itself be the place of another that is still to be moved.
        let mut at: BTreeMap<u64, u64> = moves.clone();
        let places: Vec<u64> = moves.keys().copied().collect();
        for place in &places {
            let from = at.get(place).copied().unwrap_or(*place);
            if from == *place {
                continue;
            }
            let (one, two) = (place.to_string(), from.to_string());
            connection.command("swapping databases", &[b"SWAPDB", one.as_bytes(), two.as_bytes()]).await?;
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
        let found = self.contents_of_server().await?;
        match crate::set::difference(&found, &wanted) {
            None => Ok(found),
            Some(reason) => Err(SourceError::Differs { what: self.store(), reason }),
        }
    }

    /// Keys by number of database, of those that have some.
    async fn sizes(&self, connection: &mut Connection) -> Result<BTreeMap<u64, u64>, SourceError> {
        let Reply::Bytes(text) = connection.command("asking what it holds", &[b"INFO", b"keyspace"]).await? else {
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
        let reply = connection.command("asking how many databases it has", &[b"CONFIG", b"GET", b"databases"]).await?;
        let Reply::Many(pair) = &reply else { return Err(connection.nonsense("CONFIG was not answered with a pair")) };
        let number = pair.get(1).and_then(|value| match value {
            Reply::Bytes(text) => std::str::from_utf8(text).ok()?.parse().ok(),
            _ => None,
        });
        number.ok_or_else(|| connection.nonsense("the number of databases is none"))
    }

    async fn select(&self, connection: &mut Connection, database: u64) -> Result<(), SourceError> {
        connection.command("choosing a database", &[b"SELECT", database.to_string().as_bytes()]).await.map(|_| ())
    }

    /// Loads every database of the file beside its place; answers what was loaded where.
    async fn load(
        &self,
        connection: &mut Connection,
        input: ByteStream,
        spare: &mut Vec<u64>,
        moves: &mut BTreeMap<u64, u64>,
    ) -> Result<(Contents, Functions), SourceError> {
        let mut reader = ArtifactReader::open(input, RdbValues::Keep(LONGEST_VALUE)).await?;
        let (mut chosen, mut functions) = (None, Functions::default());
        while let Some(item) = reader.next().await? {
            let mut key = match item {
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
            let loading = Loading::new(&mut key, reader.version())?;
            connection.command("restoring a key", &loading.parts(&key.key)).await?;
        }
        functions.seal(reader.version());
        Ok((reader.contents(), functions))
    }

    async fn flush(&self, connection: &mut Connection, databases: impl Iterator<Item = &u64>) -> Result<(), SourceError> {
        for database in databases {
            self.select(connection, *database).await?;
            connection.command("emptying a database", &[b"FLUSHDB"]).await?;
        }
        Ok(())
    }

    /// Compares what is beside with what was read, database by database.
    async fn compare(
        &self,
        moves: &BTreeMap<u64, u64>,
        (wanted, functions): (Contents, Functions),
    ) -> Result<(Contents, Functions), SourceError> {
        let found = self.contents_of_server().await?;
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

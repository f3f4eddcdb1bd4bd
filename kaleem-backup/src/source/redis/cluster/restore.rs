//! Putting keys back into a cluster.
//!
//! Each key is loaded under a name beside its place, in the same slot, and all of them are read back and compared. Only then
//! the old keys of a slot go and the new ones are renamed, in one transaction a slot: more than that a cluster cannot do at
//! once. Whoever dies between two slots leaves some old and some new, and the rest beside; the next restore removes that.

use kaleem_core::backup::{ByteStream, Contents, RestoreMode, SourceError};

use super::Cluster;
use super::view::moved;
use crate::format::rdb::{Counted, RdbItem, RdbValues};
use crate::format::redis_cluster::{ArtifactReader, BESIDE, Tags, place_of, slot};
use crate::random;
use crate::source::redis::loading::{Functions, LONGEST_VALUE, Loading};
use crate::source::redis::wire::{Connection, Reply};

/// How many short commands are sent together.
const TOGETHER: usize = 512;

/// What was loaded beside its place.
struct Loaded {
    contents: Contents,
    functions: Functions,
    /// How many keys that do not expire each slot got.
    keys: Vec<u64>,
}

/// Functions of a master.
struct Replaced {
    node: usize,
    old: Vec<u8>,
}

impl Cluster<'_> {
    /// Puts everything back, of one server or of a cluster of any shape.
    pub(in crate::source::redis) async fn restore(mut self, input: ByteStream, mode: RestoreMode) -> Result<Contents, SourceError> {
        if mode == RestoreMode::IntoEmpty {
            self.is_empty().await?;
        }
        // What an earlier restore left when it died.
        self.sweep().await?;
        let run = random::digits::<8>().map_err(|error| self.source.failed("choosing names", error.to_string()))?;
        let loaded = self.load(input, &run).await;
        let checked = match loaded {
            Ok(loaded) => self.check(&run, loaded).await,
            Err(error) => Err(error),
        };
        let loaded = match checked {
            Ok(loaded) => loaded,
            Err(error) => {
                self.give_up().await;
                return Err(error);
            }
        };
        // From here on nothing beside is removed: a transaction that was not answered may still be carried out.
        self.move_into_place(&run, &loaded).await?;
        let found = Self::find(self.source, self.source.connect().await?).await?.contents().await?;
        match crate::set::difference(&found, &loaded.contents) {
            None => Ok(found),
            Some(reason) => Err(SourceError::Differs { what: format!("the cluster of {}", self.source.store()), reason }),
        }
    }

    async fn is_empty(&mut self) -> Result<(), SourceError> {
        for node in &mut self.nodes {
            let (store, connection) = (node.store(), &mut node.connection);
            if connection.has_functions().await? {
                return Err(SourceError::NotEmpty { what: format!("the list of functions of {store}") });
            }
            let mut scan = Scan::new(b"*");
            while let Some(keys) = scan.next(connection).await? {
                if keys.iter().any(|key| place_of(key).is_none()) {
                    return Err(SourceError::NotEmpty { what: store });
                }
            }
        }
        Ok(())
    }

    /// Removes what restores have left beside.
    async fn sweep(&mut self) -> Result<(), SourceError> {
        for node in &mut self.nodes {
            sweep(&mut node.connection).await?;
        }
        Ok(())
    }

    /// As far as the nodes still answer; what stays is removed by the next restore.
    async fn give_up(&mut self) {
        for node in &mut self.nodes {
            // Its own connection may be in the middle of something.
            if let Ok(mut connection) = self.source.open(&node.address, &node.announced).await {
                sweep(&mut connection).await.ok();
            }
        }
    }

    async fn load(&mut self, input: ByteStream, run: &str) -> Result<Loaded, SourceError> {
        let tags = Tags::compute();
        let mut reader = ArtifactReader::open(input, RdbValues::Keep(LONGEST_VALUE)).await?;
        let mut loaded = Loaded { contents: Contents::new(), functions: Functions::default(), keys: vec![0; self.owners.len()] };
        while let Some(item) = reader.next().await? {
            let mut key = match item {
                RdbItem::Function(code) => {
                    loaded.functions.add(&code);
                    continue;
                }
                RdbItem::Key(key) => key,
            };
            let what = || format!("the key `{}`", String::from_utf8_lossy(&key.key));
            if key.database != 0 {
                let reason = format!("it is in database {}, and a cluster has only database 0", key.database);
                return Err(SourceError::Unsupported { what: what(), reason });
            }
            if place_of(&key.key).is_some() {
                return Err(SourceError::Unsupported {
                    what: what(),
                    reason: "its name is one that a restore takes for its own".to_owned(),
                });
            }
            let loading = Loading::new(&mut key, reader.version())?;
            let (slot, name) = (slot(&key.key), tags.beside(run, &key.key));
            self.ask(slot, "restoring a key", &loading.parts(&name)).await?;
            if let (None, Some(keys)) = (key.expires_ms, loaded.keys.get_mut(usize::from(slot))) {
                *keys += 1;
            }
        }
        loaded.functions.seal(reader.version());
        loaded.contents = reader.contents();
        Ok(loaded)
    }

    /// Compares what is beside with what was read, and gives each master the functions, which show that they can be loaded.
    async fn check(&mut self, run: &str, loaded: Loaded) -> Result<Loaded, SourceError> {
        let mut beside = Counted::default();
        let mut now = Self::find(self.source, self.source.connect().await?).await?;
        now.read(|item| {
            let RdbItem::Key(key) = item else { return };
            if let Some((_, place)) = place_of(&key.key).filter(|(of, _)| *of == run.as_bytes()) {
                beside.key(key, place);
            }
        })
        .await?;
        let mut wanted = loaded.contents.clone();
        wanted.remove("functions");
        if let Some(reason) = crate::set::difference(&beside.contents(), &wanted) {
            let what = format!("what was loaded into the cluster of {}", self.source.store());
            return Err(SourceError::Differs { what, reason });
        }
        // Who serves what may have changed, and old connections may be of no use.
        *self = Self::find(self.source, self.source.connect().await?).await?;
        self.replace_functions(&loaded.functions).await?;
        Ok(loaded)
    }

    /// Gives each master the functions; the old ones come back where one of them does not take them.
    async fn replace_functions(&mut self, functions: &Functions) -> Result<(), SourceError> {
        let mut replaced = Vec::new();
        for node in 0..self.nodes.len() {
            if let Err(error) = self.replace_functions_of(node, functions, &mut replaced).await {
                for Replaced { node, old } in replaced {
                    if let Some(node) = self.nodes.get_mut(node) {
                        // The error that is told is the first one.
                        node.connection.command("putting functions back", &[b"FUNCTION", b"RESTORE", &old, b"FLUSH"]).await.ok();
                    }
                }
                return Err(error);
            }
        }
        Ok(())
    }

    async fn replace_functions_of(&mut self, number: usize, new: &Functions, replaced: &mut Vec<Replaced>) -> Result<(), SourceError> {
        let Some(node) = self.nodes.get_mut(number) else { return Ok(()) };
        let connection = &mut node.connection;
        let has_some = connection.has_functions().await?;
        if !has_some && new.payload.is_empty() {
            return Ok(());
        }
        if let Reply::Bytes(old) = connection.command("reading functions", &[b"FUNCTION", b"DUMP"]).await? {
            replaced.push(Replaced { node: number, old });
        }
        new.replace(connection, has_some).await
    }

    /// Slot by slot the old keys go and the new ones come, each slot in one step.
    async fn move_into_place(&mut self, run: &str, loaded: &Loaded) -> Result<(), SourceError> {
        // As it is now: a slot that is sent elsewhere on the way is not visited again.
        let owners = self.owners.clone();
        for number in 0..self.nodes.len() {
            let of_node = |(slot, owner): (usize, &usize)| (*owner == number).then(|| slot.to_string());
            let slots: Vec<String> = owners.iter().enumerate().filter_map(of_node).collect();
            for some in slots.chunks(TOGETHER) {
                let Some(node) = self.nodes.get_mut(number) else { continue };
                let commands: Vec<Vec<&[u8]>> =
                    some.iter().map(|slot| vec![&b"CLUSTER"[..], b"COUNTKEYSINSLOT", slot.as_bytes()]).collect();
                let counts = node.connection.ask_all(&commands).await?;
                for (slot, count) in some.iter().zip(counts) {
                    let slot: u16 = slot.parse().unwrap_or_default();
                    let keys = loaded.keys.get(usize::from(slot)).copied().unwrap_or_default();
                    if count != Reply::Number(0) || keys > 0 {
                        self.move_slot(slot, run, keys).await?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn move_slot(&mut self, slot: u16, run: &str, wanted: u64) -> Result<(), SourceError> {
        let doing = "moving a slot into its place";
        for _ in 0..super::MOST_MOVES {
            let keys = self.keys_of(slot).await?;
            let (mut old, mut new) = (Vec::new(), Vec::new());
            for name in &keys {
                match place_of(name) {
                    Some((of, place)) if of == run.as_bytes() => new.push((name.as_slice(), place)),
                    _ => old.push(name.as_slice()),
                }
            }
            if (new.len() as u64) < wanted {
                let reason = format!("{wanted} keys were loaded and compared, {} are there", new.len());
                return Err(SourceError::Differs { what: format!("slot {slot} of the cluster of {}", self.source.store()), reason });
            }
            let mut commands: Vec<Vec<&[u8]>> = Vec::new();
            for some in old.chunks(TOGETHER) {
                commands.push(std::iter::once(&b"UNLINK"[..]).chain(some.iter().copied()).collect());
            }
            commands.extend(new.iter().map(|(name, place)| vec![&b"RENAME"[..], name, place]));
            if commands.is_empty() {
                return Ok(());
            }
            match transaction(&mut self.node(slot)?.connection, &commands).await? {
                None => return Ok(()),
                Some(reason) => self.follow(slot, doing, &reason).await?,
            }
        }
        Err(self.source.failed(doing, format!("slot {slot} is sent from node to node")))
    }

    async fn keys_of(&mut self, slot: u16) -> Result<Vec<Vec<u8>>, SourceError> {
        let connection = &mut self.node(slot)?.connection;
        let (doing, number) = ("listing a slot", slot.to_string());
        let Reply::Number(count) = connection.command(doing, &[b"CLUSTER", b"COUNTKEYSINSLOT", number.as_bytes()]).await? else {
            return Err(connection.nonsense("COUNTKEYSINSLOT was not answered with a number"));
        };
        let count = count.to_string();
        let listed = connection.command(doing, &[b"CLUSTER", b"GETKEYSINSLOT", number.as_bytes(), count.as_bytes()]).await?;
        names(listed).ok_or_else(|| connection.nonsense("GETKEYSINSLOT was not answered with names"))
    }
}

/// Carries commands out at once. Answers why none was carried out, where that sends us elsewhere.
async fn transaction(connection: &mut Connection, commands: &[Vec<&[u8]>]) -> Result<Option<String>, SourceError> {
    let doing = "moving a slot into its place";
    connection.command(doing, &[b"MULTI"]).await?;
    for some in commands.chunks(TOGETHER) {
        let refused = connection.ask_all(some).await?.into_iter().find_map(|reply| match reply {
            Reply::Error(reason) => Some(reason),
            _ => None,
        });
        if let Some(reason) = refused {
            connection.command(doing, &[b"DISCARD"]).await?;
            return if moved(&reason).is_some() { Ok(Some(reason)) } else { Err(connection.failed(doing, reason)) };
        }
    }
    let replies = match connection.ask(&[b"EXEC"]).await? {
        Reply::Many(replies) => replies,
        Reply::Error(reason) if moved(&reason).is_some() => return Ok(Some(reason)),
        Reply::Error(reason) => return Err(connection.failed(doing, reason)),
        _ => return Err(connection.nonsense("a transaction was not carried out")),
    };
    for reply in replies {
        match reply {
            // It has expired meanwhile; one that does not expire is missed when all is read back.
            Reply::Error(reason) if reason == "ERR no such key" => (),
            Reply::Error(reason) => return Err(connection.failed(doing, reason)),
            _ => (),
        }
    }
    Ok(None)
}

async fn sweep(connection: &mut Connection) -> Result<(), SourceError> {
    let pattern = format!("{BESIDE}*");
    let mut scan = Scan::new(pattern.as_bytes());
    while let Some(keys) = scan.next(connection).await? {
        let ours: Vec<Vec<&[u8]>> = keys.iter().filter(|key| place_of(key).is_some()).map(|key| vec![&b"UNLINK"[..], key]).collect();
        for reply in connection.ask_all(&ours).await? {
            if let Reply::Error(reason) = reply {
                return Err(connection.failed("removing what a restore has left", reason));
            }
        }
    }
    Ok(())
}

/// Goes through the keys of a server.
struct Scan {
    pattern: Vec<u8>,
    /// `None` when it is done.
    cursor: Option<Vec<u8>>,
}

impl Scan {
    fn new(pattern: &[u8]) -> Self {
        Self { pattern: pattern.to_vec(), cursor: Some(b"0".to_vec()) }
    }

    async fn next(&mut self, connection: &mut Connection) -> Result<Option<Vec<Vec<u8>>>, SourceError> {
        let Some(cursor) = self.cursor.take() else { return Ok(None) };
        let parts: [&[u8]; 6] = [b"SCAN", &cursor, b"MATCH", &self.pattern, b"COUNT", b"1000"];
        let Reply::Many(mut answer) = connection.command("listing keys", &parts).await? else {
            return Err(connection.nonsense("SCAN was not answered with a pair"));
        };
        match (answer.pop().and_then(names), answer.pop()) {
            (Some(keys), Some(Reply::Bytes(next))) => {
                self.cursor = (next != b"0").then_some(next);
                Ok(Some(keys))
            }
            _ => Err(connection.nonsense("SCAN was not answered with a pair")),
        }
    }
}

fn names(reply: Reply) -> Option<Vec<Vec<u8>>> {
    let Reply::Many(replies) = reply else { return None };
    let name = |reply| match reply {
        Reply::Bytes(name) => Some(name),
        _ => None,
    };
    replies.into_iter().map(name).collect()
}

//! A cluster: every master is read, and what is put back goes to the master of its slot.
//!
//! A part of a cluster must never be taken for all of it. So every slot must have a master, all masters must say the same of
//! who has which, and no slot may be on its way; that is looked at again after an export.

mod view;
mod restore;

use kaleem_core::backup::{ByteSender, Consistency, Contents, Exported, SourceError};
use sha2::{Digest as _, Sha256};

use self::view::{View, host_and_port, moved};
use super::wire::{Connection, Reply};
use super::{RedisAddress, RedisSource, VALUES_NOTE, expiring_note, stream};
use crate::format::rdb::RdbItem;
use crate::format::redis_cluster::{ClusterCounted, ClusterWriter, is_elsewhere};

/// How often a command may be sent elsewhere.
const MOST_MOVES: usize = 8;

/// A cluster that is whole.
pub(super) struct Cluster<'a> {
    source: &'a RedisSource,
    view: View,
    nodes: Vec<Node>,
    /// The number of the node of each slot.
    owners: Vec<usize>,
}

/// A master.
struct Node {
    /// As the cluster announces it.
    announced: String,
    /// As it is reached.
    address: RedisAddress,
    connection: Connection,
}

/// What all nodes of a cluster call it: by its masters, of which all say the same.
pub(super) async fn name(mut node: Connection) -> Result<String, SourceError> {
    let view = look(&mut node).await?;
    let masters: Vec<&str> = view.topology.masters.iter().map(|master| master.id.as_str()).collect();
    Ok(format!("the Redis cluster of {}", masters.join(" and ")))
}

impl<'a> Cluster<'a> {
    /// Reaches every master of the cluster that the server behind `first` is in.
    pub(super) async fn find(source: &'a RedisSource, mut first: Connection) -> Result<Self, SourceError> {
        let view = look(&mut first).await?;
        let doing = "asking who serves which slots";
        let owners = view.topology.owners().map_err(|reason| first.failed(doing, reason))?;
        let mut nodes = Vec::new();
        for master in &view.topology.masters {
            // The one that was asked is where it was reached, whatever it announces.
            let address = if master.id == view.myself { source.address.clone() } else { source.announced_at(&master.address)? };
            let mut connection = source.open(&address, &master.address).await?;
            let seen = look(&mut connection).await?;
            if seen.myself != master.id {
                return Err(connection.failed(doing, format!("it is {}, and {} was looked for", seen.myself, master.id)));
            }
            if let Some(slot) = seen.moving {
                return Err(connection.failed(doing, format!("a slot is on its way to another node ({slot}); wait until that is done")));
            }
            if seen.topology.owners().map_err(|reason| connection.failed(doing, reason))? != owners || seen.shares() != view.shares() {
                return Err(connection.failed(doing, "it says something else than the node that was asked first"));
            }
            nodes.push(Node { announced: master.address.clone(), address, connection });
        }
        Ok(Self { source, view, nodes, owners })
    }

    /// Sends everything.
    pub(super) async fn export(mut self, out: &mut ByteSender) -> Result<Exported, SourceError> {
        let mut writer = ClusterWriter::begin(out, &self.view.topology).await?;
        let mut counted = ClusterCounted::default();
        let (mut functions, mut all_functions) = (Vec::new(), 0);
        for (number, node) in self.nodes.iter_mut().enumerate() {
            let store = node.store();
            let connection = &mut node.connection;
            connection.become_replica().await?;
            let length = connection.file_length().await?;
            let mut digest = Sha256::new();
            let mut of_node = 0_u64;
            let item = |item: &RdbItem| {
                of_node += u64::from(matches!(item, RdbItem::Function(_)));
                counted.add(item);
                fits(&store, item, &self.owners, number)
            };
            stream::pass_on(connection, length, writer.file(length).await?, item, |piece| digest.update(piece)).await?;
            writer.close(length, hex::encode(digest.finalize())).await?;
            functions.push(of_node);
            all_functions = counted.contents().get("functions").map_or(0, |content| content.count);
        }
        let again = Self::find(self.source, self.source.connect().await?).await?;
        if again.view.shares() != self.view.shares() {
            let reason = "slots got another node meanwhile, so that keys may be missing or there twice; export again";
            return Err(self.source.failed("being read", reason));
        }
        writer.finish().await?;
        let mut notes =
            vec![VALUES_NOTE.to_owned(), format!("a cluster of {} masters, each as it was at a moment of its own", self.nodes.len())];
        let mut consistency = Consistency::PerCollection;
        if again.view.topology != self.view.topology || again.view.epochs != self.view.epochs {
            consistency = Consistency::None;
            notes.push("the cluster was changed while it was read: slots went to another master, or came back to theirs".to_owned());
        }
        notes.extend(expiring_note(counted.keys.expiring()));
        if counted.left_over > 0 {
            notes.push(format!("{} keys that a dead restore has left are in the files, and in no contents", counted.left_over));
        }
        if functions.iter().any(|count| *count != all_functions) {
            notes.push("not every master has the same functions; a restore gives each of them all".to_owned());
        }
        Ok(Exported { contents: counted.contents(), consistency, notes })
    }

    /// What the cluster holds.
    pub(super) async fn contents(mut self) -> Result<Contents, SourceError> {
        let mut counted = ClusterCounted::default();
        self.read(|item| {
            counted.add(item);
        })
        .await?;
        Ok(counted.contents())
    }

    /// Reads all masters out. Their connections are of no other use then.
    async fn read(&mut self, mut seen: impl FnMut(&RdbItem) + Send) -> Result<(), SourceError> {
        for (number, node) in self.nodes.iter_mut().enumerate() {
            let store = node.store();
            let item = |item: &RdbItem| {
                seen(item);
                fits(&store, item, &self.owners, number)
            };
            stream::read(&mut node.connection, item).await?;
        }
        Ok(())
    }

    fn node(&mut self, slot: u16) -> Result<&mut Node, SourceError> {
        let source = self.source;
        let number = self.owners.get(usize::from(slot)).copied();
        let node = number.and_then(|number| self.nodes.get_mut(number));
        node.ok_or_else(|| source.failed("answering", "it has a slot of no node; this is a bug of kaleem"))
    }

    /// Asks the master of a slot, and whoever it sends us to.
    async fn ask(&mut self, slot: u16, doing: &str, parts: &[&[u8]]) -> Result<Reply, SourceError> {
        for _ in 0..MOST_MOVES {
            match self.node(slot)?.connection.ask(parts).await? {
                Reply::Error(reason) => self.follow(slot, doing, &reason).await?,
                reply => return Ok(reply),
            }
        }
        Err(self.source.failed(doing, format!("slot {slot} is sent from node to node")))
    }

    /// Goes where an answer for a slot sends us.
    async fn follow(&mut self, slot: u16, doing: &str, reason: &str) -> Result<(), SourceError> {
        let node = self.node(slot)?;
        let Some((_, to)) = moved(reason).filter(|(moved, _)| *moved == slot) else {
            let is_moving = reason.starts_with("ASK ") || reason.starts_with("TRYAGAIN");
            let why =
                if is_moving { format!("slot {slot} is on its way to another node; wait until that is done") } else { reason.to_owned() };
            return Err(node.connection.failed(doing, why));
        };
        let mut to = to.to_owned();
        if to.starts_with(':') {
            // A node that does not know its own host: it is the one that answered.
            to = format!("{}{to}", host_and_port(&node.announced).map_or("", |(host, _)| host));
        }
        let number = match self.nodes.iter().position(|node| node.announced == to) {
            Some(number) => number,
            None => {
                let address = self.source.announced_at(&to)?;
                let connection = self.source.open(&address, &to).await?;
                self.nodes.push(Node { announced: to, address, connection });
                self.nodes.len() - 1
            }
        };
        if let Some(owner) = self.owners.get_mut(usize::from(slot)) {
            *owner = number;
        }
        Ok(())
    }
}

impl Node {
    fn store(&self) -> String {
        node_store(&self.address, &self.announced)
    }
}

impl RedisSource {
    fn failed(&self, doing: &str, reason: impl Into<String>) -> SourceError {
        SourceError::Failed { store: format!("the cluster of {}", self.store()), doing: doing.to_owned(), source: reason.into().into() }
    }

    /// Where a node is reached that announces this address.
    fn announced_at(&self, announced: &str) -> Result<RedisAddress, SourceError> {
        let reached = self.reached_at.get(announced).map_or(announced, String::as_str);
        let (host, port) = host_and_port(reached).ok_or_else(|| self.failed("naming a node", format!("`{reached}` is no address")))?;
        // A node that does not know its own host is where the first one is.
        let host = if host.is_empty() { self.address.host.clone() } else { host.to_owned() };
        Ok(RedisAddress { host, port, ..self.address.clone() })
    }

    async fn open(&self, address: &RedisAddress, announced: &str) -> Result<Connection, SourceError> {
        let store = format!("{} in the cluster of {}", node_store(address, announced), self.store());
        Connection::open(store, address, self.answer_within).await
    }
}

fn node_store(address: &RedisAddress, announced: &str) -> String {
    let reached = format!("{}:{}", address.host, address.port);
    if reached == announced { format!("the redis node {reached}") } else { format!("the redis node {reached} (announced as {announced})") }
}

/// Refuses what a master cannot hold while the cluster is as it was found.
fn fits(store: &str, item: &RdbItem, owners: &[usize], number: usize) -> Result<(), SourceError> {
    match is_elsewhere(item, owners, number) {
        None => Ok(()),
        Some(reason) => Err(SourceError::Failed { store: store.to_owned(), doing: "being read".to_owned(), source: reason.into() }),
    }
}

async fn look(connection: &mut Connection) -> Result<View, SourceError> {
    let doing = "asking who is in its cluster";
    let Reply::Bytes(text) = connection.command(doing, &[b"CLUSTER", b"NODES"]).await? else {
        return Err(connection.nonsense("CLUSTER NODES was not answered with a text"));
    };
    View::read(&String::from_utf8_lossy(&text)).map_err(|reason| connection.failed(doing, reason))
}

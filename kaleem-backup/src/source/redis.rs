//! A Redis server, or a whole cluster: its RDB over the replication stream, as a replica gets it, checked to its last byte.
//!
//! A restore loads every key with `RESTORE` beside its place and compares before it touches what is there: so a server with
//! `appendonly yes` keeps what was restored. Beside is another database of one server, which is swapped; a cluster has no
//! other, so there it is another name in the same slot, which is renamed. Connections are not encrypted.

mod wire;
mod stream;
mod loading;
mod single;
mod cluster;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use kaleem_core::backup::{BackupSource, ByteSender, ByteStream, Contents, Exported, RestoreMode, SourceError, SourceIdentity, SourceKind};
use kaleem_core::names::ArtifactName;
use kaleem_core::secret::Secret;

use self::cluster::Cluster;
use self::wire::{Connection, Reply};
use crate::format::redis_cluster;

const VALUES_NOTE: &str = "contents compare names and types of keys; values are covered by the CRC of the file";

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

/// A [`BackupSource`] of one Redis server, or of the cluster that it is in.
#[derive(Debug)]
pub struct RedisSource {
    identity: SourceIdentity,
    address: RedisAddress,
    answer_within: Duration,
    reached_at: BTreeMap<String, String>,
}

impl RedisSource {
    /// A source of the server at `address`; nothing is asked yet. `answer_within` is for connecting and for each command;
    /// the server may take as long as it needs to begin its stream, within the silence that the set allows.
    pub fn new(name: ArtifactName, address: RedisAddress, answer_within: Duration) -> Self {
        Self { identity: SourceIdentity { name, kind: SourceKind::Redis }, address, answer_within, reached_at: BTreeMap::new() }
    }

    /// Says where nodes of a cluster are reached from here (`host:port`), by the address that they announce (`host:port`).
    /// A node that is not named is looked for where it says that it is.
    #[must_use]
    pub fn reached_at(mut self, addresses: BTreeMap<String, String>) -> Self {
        self.reached_at = addresses;
        self
    }

    fn store(&self) -> String {
        format!("redis at {}:{}", self.address.host, self.address.port)
    }

    async fn connect(&self) -> Result<Connection, SourceError> {
        Connection::open(self.store(), &self.address, self.answer_within).await
    }

    /// The server, and whether it is one of a cluster. Whoever may not ask that gets an error, and never a part of a cluster.
    async fn find(&self) -> Result<(Connection, bool), SourceError> {
        let mut connection = self.connect().await?;
        match connection.ask(&[b"INFO", b"cluster"]).await? {
            Reply::Bytes(text) => {
                let is_cluster = String::from_utf8_lossy(&text).lines().any(|line| line.trim_end() == "cluster_enabled:1");
                Ok((connection, is_cluster))
            }
            Reply::Error(reason) => {
                Err(SourceError::Denied { store: self.store(), doing: "ask whether it is one of a cluster (INFO)", reason })
            }
            _ => Err(connection.nonsense("INFO was not answered with a text")),
        }
    }
}

/// Says that keys are in no contents, where some are.
fn expiring_note(count: u64) -> Option<String> {
    match count {
        0 => None,
        1 => Some("1 key expires, and is in no contents".to_owned()),
        _ => Some(format!("{count} keys expire, and are in no contents")),
    }
}

#[async_trait]
impl BackupSource for RedisSource {
    fn identity(&self) -> &SourceIdentity {
        &self.identity
    }

    async fn export(&self, out: &mut ByteSender) -> Result<Exported, SourceError> {
        match self.find().await? {
            (connection, true) => Cluster::find(self, connection).await?.export(out).await,
            (mut connection, false) => self.export_server(&mut connection, out).await,
        }
    }

    async fn verify(&self, input: ByteStream) -> Result<Contents, SourceError> {
        redis_cluster::verify(input).await
    }

    async fn restore(&self, input: ByteStream, mode: RestoreMode) -> Result<Contents, SourceError> {
        match self.find().await? {
            (connection, true) => Cluster::find(self, connection).await?.restore(input, mode).await,
            (connection, false) => self.restore_server(connection, input, mode).await,
        }
    }

    async fn whole(&self) -> Result<Option<String>, SourceError> {
        match self.find().await? {
            (connection, true) => cluster::name(connection).await.map(Some),
            (_, false) => Ok(None),
        }
    }

    async fn inspect(&self) -> Result<Contents, SourceError> {
        match self.find().await? {
            (connection, true) => Cluster::find(self, connection).await?.contents().await,
            (_, false) => self.contents_of_server().await,
        }
    }
}

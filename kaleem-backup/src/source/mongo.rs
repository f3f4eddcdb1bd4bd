//! MongoDB over its driver: everything at one moment where the server can do that, said honestly where it cannot.
//!
//! Users, roles and a part of the oplog are taken where that was asked for. A restore loads each collection beside its
//! place, makes its indexes, counts and digests it there, and only then moves it into its place.

mod beside;
mod dump;
mod load;
mod moment;
mod oplog;
mod users;

use std::time::Duration;

use async_trait::async_trait;
use kaleem_core::backup::{BackupSource, ByteSender, ByteStream, Contents, Exported, RestoreMode, SourceError, SourceIdentity, SourceKind};
use kaleem_core::names::ArtifactName;
use kaleem_core::secret::Secret;
use mongodb::Client;
use mongodb::bson::{Bson, doc};
use mongodb::error::{Error, ErrorKind};
use mongodb::options::ClientOptions;

use crate::format::mongo_archive;

/// What of a deployment is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MongoScope {
    /// These databases; every one but the server's own where none is named.
    pub databases: Vec<String>,
    /// Users and roles, with the hashes of passwords: those of the databases that are named.
    pub users: bool,
    /// What is written while everything is read: the part of the oplog of that time. Of all databases.
    pub oplog: bool,
    /// Everything as of one moment, where the server can show that.
    pub one_moment: bool,
}

impl MongoScope {
    /// Every database but the server's own, as of one moment.
    pub const fn everything() -> Self {
        Self { databases: Vec::new(), users: false, oplog: false, one_moment: true }
    }

    /// These databases, as of one moment.
    pub const fn databases(databases: Vec<String>) -> Self {
        Self { databases, users: false, oplog: false, one_moment: true }
    }
}

/// A [`BackupSource`] of a MongoDB deployment.
pub struct MongoSource {
    identity: SourceIdentity,
    client: Client,
    /// For people: addresses, never credentials.
    store: String,
    scope: MongoScope,
}

impl std::fmt::Debug for MongoSource {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("MongoSource").field("identity", &self.identity).field("store", &self.store).field("scope", &self.scope).finish()
    }
}

const ANSWER_WITHIN: Duration = Duration::from_secs(10);

impl MongoSource {
    /// Prepares a client for a connection string (`mongodb://…`). Nothing is asked yet.
    ///
    /// # Errors
    /// [`SourceError::Denied`] when the connection string is not valid; it is not shown.
    pub async fn connect(name: ArtifactName, connection: &Secret<String>, scope: MongoScope) -> Result<Self, SourceError> {
        let refuse = |_| SourceError::Denied {
            store: "mongodb".to_owned(),
            doing: "connect",
            // The parser's own text may quote the connection string, with its password.
            reason: "the connection string is not valid".to_owned(),
        };
        let mut options = ClientOptions::parse(connection.expose()).await.map_err(refuse)?;
        options.server_selection_timeout = options.server_selection_timeout.or(Some(ANSWER_WITHIN));
        options.connect_timeout = options.connect_timeout.or(Some(ANSWER_WITHIN));
        let hosts: Vec<String> = options.hosts.iter().map(ToString::to_string).collect();
        let client = Client::with_options(options).map_err(refuse)?;
        let identity = SourceIdentity { name, kind: SourceKind::Mongodb };
        Ok(Self { identity, client, store: format!("mongodb at {}", hosts.join(",")), scope })
    }

    fn failed(&self, doing: impl Into<String>) -> impl FnOnce(Error) -> SourceError {
        let (store, doing) = (self.store.clone(), doing.into());
        move |source| match source.kind.as_ref() {
            ErrorKind::ServerSelection { .. } => SourceError::Unreachable { store, source: Box::new(source) },
            ErrorKind::Authentication { .. } => {
                SourceError::Denied { store, doing: "log in", reason: "it does not accept user and password".to_owned() }
            }
            // SnapshotTooOld and SnapshotUnavailable.
            ErrorKind::Command(error) if matches!(error.code, 239 | 246) => {
                let reason = format!(
                    "reading took longer than the server remembers ({}): set its `minSnapshotHistoryWindowInSeconds` to more \
                     than that, or write `one-moment = false` for this source",
                    error.message
                );
                SourceError::Failed { store, doing, source: reason.into() }
            }
            // 13: Unauthorized.
            ErrorKind::Command(error) if error.code == 13 => {
                SourceError::Denied { store, doing: "read or write what is asked", reason: error.message.clone() }
            }
            _ => SourceError::Failed { store, doing, source: Box::new(source) },
        }
    }
}

#[async_trait]
impl BackupSource for MongoSource {
    fn identity(&self) -> &SourceIdentity {
        &self.identity
    }

    async fn export(&self, out: &mut ByteSender) -> Result<Exported, SourceError> {
        self.dump(Some(out)).await
    }

    async fn verify(&self, input: ByteStream) -> Result<Contents, SourceError> {
        mongo_archive::verify(input).await
    }

    async fn restore(&self, input: ByteStream, mode: RestoreMode) -> Result<Contents, SourceError> {
        self.load(input, mode, None).await
    }

    async fn restore_part(&self, input: ByteStream, part: &str, mode: RestoreMode) -> Result<Contents, SourceError> {
        self.load(input, mode, Some(part)).await
    }

    async fn whole(&self) -> Result<Option<String>, SourceError> {
        let hello = self.client.database("admin").run_command(doc! { "hello": 1 }).await.map_err(self.failed("greeting it"))?;
        let Ok(name) = hello.get_str("setName") else { return Ok(None) };
        let mut members: Vec<&str> =
            hello.get_array("hosts").map(|hosts| hosts.iter().filter_map(Bson::as_str).collect()).unwrap_or_default();
        members.sort_unstable();
        // Two sources may mean other databases of one set.
        Ok(Some(format!("the replica set {name} of {}, {:?}", members.join(" and "), self.scope)))
    }

    async fn inspect(&self) -> Result<Contents, SourceError> {
        Ok(self.dump(None).await?.contents)
    }
}

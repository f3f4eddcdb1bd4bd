//! A Qdrant server: one snapshot a collection over REST, with the sums that the server tells, configurations and aliases.
//!
//! A collection is sound in itself; between two there is no one moment. A snapshot that the server made for us is removed
//! from it again. A restore loads each collection beside its place and counts it before the one in its place is touched.

mod export;
mod restore;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use kaleem_core::backup::{BackupSource, ByteSender, ByteStream, Contents, Exported, RestoreMode, SourceError, SourceIdentity, SourceKind};
use kaleem_core::names::ArtifactName;
use kaleem_core::secret::Secret;
use reqwest::Method;
use serde_json::{Value, json};

use crate::format::bundle::{self, Described, Index};
use crate::web::{Login, Web, address};

/// A [`BackupSource`] of a Qdrant server.
#[derive(Clone, Debug)]
pub struct QdrantSource {
    identity: SourceIdentity,
    web: Web,
}

impl QdrantSource {
    /// A source of the server whose REST port is at `url` (`http://host:6333`), with its API key where it has one. Nothing
    /// is asked yet. `answer_within` is for each question, for the making of one snapshot, and for silence on the way.
    ///
    /// # Errors
    /// [`SourceError::Denied`] when the address is not valid; it is not shown.
    pub fn new(
        name: ArtifactName,
        url: &Secret<String>,
        api_key: Option<Secret<String>>,
        answer_within: Duration,
    ) -> Result<Self, SourceError> {
        let refuse = || SourceError::Denied {
            store: "qdrant".to_owned(),
            doing: "connect",
            reason: "the address of its REST port is not valid".to_owned(),
        };
        let (base, login) = address(url.expose()).ok_or_else(refuse)?;
        let login = match (api_key, login) {
            (Some(value), _) => Login::Header { name: "api-key", value },
            (None, Some((user, password))) => Login::Basic { user, password },
            (None, None) => Login::Nobody,
        };
        let web = Web::new("qdrant", base, login, answer_within)?;
        Ok(Self { identity: SourceIdentity { name, kind: SourceKind::Qdrant }, web })
    }

    /// Asks, and gives the `result` of the answer.
    async fn result(&self, doing: &'static str, method: Method, path: &[&str], body: Option<&Value>) -> Result<Value, SourceError> {
        let mut answer = self.web.json(doing, method, path, &[], body).await?;
        answer.get_mut("result").map(Value::take).ok_or_else(|| self.web.failed(doing, "it does not answer as Qdrant does"))
    }

    /// Everything that is there but the points.
    async fn catalogue(&self) -> Result<Index, SourceError> {
        let doing = "read what it holds";
        let root = self.web.json(doing, Method::GET, &[], &[], None).await?;
        let version = root.get("version").and_then(Value::as_str).unwrap_or("unknown").to_owned();
        let listed = self.result(doing, Method::GET, &["collections"], None).await?;
        let strange = || self.web.failed(doing, "a list cannot be read");
        let mut names = Vec::new();
        for entry in listed.get("collections").and_then(Value::as_array).ok_or_else(strange)? {
            names.push(entry.get("name").and_then(Value::as_str).ok_or_else(strange)?.to_owned());
        }
        names.sort();
        let mut collections = Vec::new();
        for name in names {
            let config = self.config(&name).await?;
            collections.push(Described { name, config });
        }
        let listed = self.result(doing, Method::GET, &["aliases"], None).await?;
        let mut aliases = BTreeMap::new();
        for entry in listed.get("aliases").and_then(Value::as_array).ok_or_else(strange)? {
            let text = |field| entry.get(field).and_then(Value::as_str).map(str::to_owned).ok_or_else(strange);
            aliases.insert(text("alias_name")?, text("collection_name")?);
        }
        Ok(Index::new(version, collections, aliases))
    }

    async fn config(&self, collection: &str) -> Result<Value, SourceError> {
        let mut told = self.result("read a collection", Method::GET, &["collections", collection], None).await?;
        told.get_mut("config").map(Value::take).ok_or_else(|| self.web.failed("read a collection", "it has no configuration"))
    }

    /// How many points a collection has, counted and not estimated.
    async fn count(&self, collection: &str) -> Result<u64, SourceError> {
        let exact = json!({ "exact": true });
        let doing = "count points";
        let counted = self.result(doing, Method::POST, &["collections", collection, "points", "count"], Some(&exact)).await?;
        counted.get("count").and_then(Value::as_u64).ok_or_else(|| self.web.failed(doing, "it tells no number"))
    }
}

#[async_trait]
impl BackupSource for QdrantSource {
    fn identity(&self) -> &SourceIdentity {
        &self.identity
    }

    async fn export(&self, out: &mut ByteSender) -> Result<Exported, SourceError> {
        self.take_out(out).await
    }

    async fn verify(&self, input: ByteStream) -> Result<Contents, SourceError> {
        bundle::verify(input).await
    }

    async fn restore(&self, input: ByteStream, mode: RestoreMode) -> Result<Contents, SourceError> {
        self.put_back(input, mode, None).await
    }

    async fn restore_part(&self, input: ByteStream, part: &str, mode: RestoreMode) -> Result<Contents, SourceError> {
        self.put_back(input, mode, Some(part)).await
    }

    async fn inspect(&self) -> Result<Contents, SourceError> {
        let index = self.catalogue().await?;
        let mut points = Vec::new();
        for collection in &index.collections {
            points.push(Some(self.count(&collection.name).await?));
        }
        Ok(index.contents(&points))
    }
}

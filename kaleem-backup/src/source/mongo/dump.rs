//! Reading a deployment out.

use futures_util::TryStreamExt;
use kaleem_core::backup::{ByteSender, Consistency, Contents, Exported, SourceError};
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Bson, Document, RawDocumentBuf, doc};
use mongodb::{ClientSession, Database};
use tokio::sync::mpsc;

use super::{MongoScope, MongoSource};
use crate::format::UnorderedDigest;
use crate::format::mongo_archive::{ArchiveCollection, ArchiveWriter, describe};
use crate::format::mongo_metadata::CollectionMetadata;

/// Databases that belong to the server.
const OWN_DATABASES: [&str; 3] = ["admin", "config", "local"];
const BATCH: u32 = 1000;
/// Bytes of documents that are passed on together: as much as the longest of them.
const AHEAD_BYTES: usize = 16 << 20;

struct Reading {
    session: Option<ClientSession>,
    consistency: Consistency,
    notes: Vec<String>,
}

impl MongoSource {
    /// Reads everything in scope; sends it when there is somebody to send it to.
    pub(super) async fn dump(&self, out: Option<&mut ByteSender>) -> Result<Exported, SourceError> {
        let found = self.catalogue().await?;
        let mut reading = self.begin_reading(&found).await?;
        let mut writer = match out {
            Some(out) => Some(ArchiveWriter::begin(out, &self.version().await?, &found).await?),
            None => None,
        };
        let mut contents = Contents::new();
        for collection in &found {
            if let Some(writer) = &mut writer {
                writer.begin_collection(collection)?;
            }
            let documents = self.read(collection, &mut reading, writer.as_mut()).await?;
            if let Some(writer) = &mut writer {
                writer.end_collection().await?;
            }
            describe(&mut contents, collection, &documents)
                .map_err(|reason| SourceError::Unsupported { what: collection.namespace(), reason })?;
        }
        if let Some(writer) = writer {
            writer.finish().await?;
        }
        self.control(&found, &contents, &mut reading).await?;
        if self.catalogue().await? != found {
            reading.consistency = Consistency::None;
            reading.notes.push("collections, options or indexes were changed while they were read".to_owned());
        }
        reading.notes.push("users, roles and the oplog are not included".to_owned());
        Ok(Exported { contents, consistency: reading.consistency, notes: reading.notes })
    }

    /// Counts again at the moment that was chosen. A server that names a moment and does not keep to it is found out when
    /// something was added or taken away meanwhile; then no moment is claimed.
    async fn control(&self, found: &[ArchiveCollection], contents: &Contents, reading: &mut Reading) -> Result<(), SourceError> {
        let Some(session) = &mut reading.session else { return Ok(()) };
        for collection in found.iter().filter(|collection| is_plain(collection)) {
            let documents = self.client.database(&collection.database).collection::<RawDocumentBuf>(&collection.collection);
            let doing = || format!("counting {} again", collection.namespace());
            let counted = documents.count_documents(doc! {}).session(&mut *session).await.map_err(self.failed(doing()))?;
            if contents.get(&collection.namespace()).is_none_or(|content| content.count != counted) {
                reading.consistency = Consistency::PerCollection;
                reading.notes = vec!["the server named one moment for everything, and did not keep to it".to_owned()];
                return Ok(());
            }
        }
        Ok(())
    }

    /// Every collection and view in scope, sorted, with options and indexes.
    pub(super) async fn catalogue(&self) -> Result<Vec<ArchiveCollection>, SourceError> {
        let databases = match &self.scope {
            MongoScope::Databases(databases) => databases.clone(),
            MongoScope::Everything => {
                let names = self.client.list_database_names().await.map_err(self.failed("listing its databases"))?;
                names.into_iter().filter(|name| !OWN_DATABASES.contains(&name.as_str())).collect()
            }
        };
        let mut found = Vec::new();
        for name in databases {
            let database = self.client.database(&name);
            let doing = || format!("listing the collections of {name}");
            for entry in self.list(&database, doc! { "listCollections": 1 }, doing()).await? {
                let collection = self.entry(&database, &entry).await?;
                // Made by the server, from what is taken already; code that is stored with the data is not.
                if !collection.collection.starts_with("system.") || collection.collection == "system.js" {
                    found.push(collection);
                }
            }
        }
        found.sort_by_key(ArchiveCollection::namespace);
        Ok(found)
    }

    async fn entry(&self, database: &Database, entry: &Document) -> Result<ArchiveCollection, SourceError> {
        let nonsense = |reason: &str| SourceError::Unsupported { what: database.name().to_owned(), reason: reason.to_owned() };
        let collection = entry.get_str("name").map_err(|_| nonsense("a collection has no name"))?.to_owned();
        let kind = entry.get_str("type").unwrap_or("collection").to_owned();
        if kind == "timeseries" {
            let what = format!("{}.{collection}", database.name());
            return Err(SourceError::Unsupported { what, reason: "it is a time series collection".to_owned() });
        }
        let options = entry.get_document("options").cloned().unwrap_or_default();
        let uuid = match entry.get_document("info").ok().and_then(|info| info.get("uuid")) {
            Some(Bson::Binary(uuid)) if uuid.subtype == BinarySubtype::Uuid => Some(hex::encode(&uuid.bytes)),
            _ => None,
        };
        let mut indexes = Vec::new();
        if kind != "view" {
            let doing = format!("listing the indexes of {}.{collection}", database.name());
            indexes = self.list(database, doc! { "listIndexes": &collection }, doing).await?;
            for index in &mut indexes {
                index.remove("ns");
            }
        }
        let database = database.name().to_owned();
        Ok(ArchiveCollection { database, collection, kind, metadata: CollectionMetadata { options, indexes, uuid } })
    }

    async fn list(&self, database: &Database, command: Document, doing: String) -> Result<Vec<Document>, SourceError> {
        let cursor = database.run_cursor_command(command).await.map_err(self.failed(doing.clone()))?;
        cursor.try_collect().await.map_err(self.failed(doing))
    }

    async fn version(&self) -> Result<String, SourceError> {
        let answer = self.client.database("admin").run_command(doc! { "buildInfo": 1 }).await;
        let answer = answer.map_err(self.failed("asking its version"))?;
        Ok(answer.get_str("version").unwrap_or("unknown").to_owned())
    }

    /// One moment for everything, when the server can do that.
    async fn begin_reading(&self, found: &[ArchiveCollection]) -> Result<Reading, SourceError> {
        let plain = |note: String| Reading { session: None, consistency: Consistency::PerCollection, notes: vec![note] };
        let hello = self.client.database("admin").run_command(doc! { "hello": 1 }).await.map_err(self.failed("greeting it"))?;
        if !hello.contains_key("setName") && hello.get_str("msg").ok() != Some("isdbgrid") {
            return Ok(plain("the server is no replica set, so it cannot show one moment".to_owned()));
        }
        let mut session = self.client.start_session().snapshot(true).await.map_err(self.failed("opening a session"))?;
        let Some(first) = found.iter().find(|collection| is_plain(collection)) else {
            return Ok(plain("there is nothing of which one moment could be shown".to_owned()));
        };
        // The first read chooses the moment; a server that cannot do it says so here.
        let first = self.client.database(&first.database).collection::<RawDocumentBuf>(&first.collection);
        let tried = first.find(doc! {}).limit(1).session(&mut session).await;
        if let Err(error) = tried {
            return match error.kind.as_ref() {
                mongodb::error::ErrorKind::Command(refusal) => {
                    Ok(plain(format!("the server does not show one moment: {}", refusal.message)))
                }
                _ => Err(self.failed("choosing a moment")(error)),
            };
        }
        let Some(time) = session.snapshot_time() else {
            return Ok(plain("the server did not say which moment it shows".to_owned()));
        };
        let notes = vec![format!("everything is as of the cluster time {}.{}", time.time, time.increment)];
        let mut reading = Reading { session: Some(session), consistency: Consistency::Snapshot, notes };
        if let Some(capped) = found.iter().find(|collection| collection.kind != "view" && !is_plain(collection)) {
            // Servers refuse to read capped collections in a snapshot.
            reading.consistency = Consistency::PerCollection;
            reading.notes.push(format!("{} is capped, and is read outside the one moment of the others", capped.namespace()));
        }
        Ok(reading)
    }

    async fn read(
        &self,
        collection: &ArchiveCollection,
        reading: &mut Reading,
        mut writer: Option<&mut ArchiveWriter<'_>>,
    ) -> Result<UnorderedDigest, SourceError> {
        let mut digest = UnorderedDigest::default();
        if collection.kind == "view" {
            return Ok(digest);
        }
        let doing = || format!("reading {}", collection.namespace());
        let documents = self.client.database(&collection.database).collection::<RawDocumentBuf>(&collection.collection);
        let find = documents.find(doc! {}).batch_size(BATCH);
        // The server prepares the next batch while this one is digested and sent on.
        let (sender, mut batches) = mpsc::channel(1);
        let reading = async move {
            let mut ahead = Ahead { batch: Vec::new(), bytes: 0, sender };
            match &mut reading.session {
                Some(session) if is_plain(collection) => {
                    let mut cursor = find.session(&mut *session).await.map_err(self.failed(doing()))?;
                    while cursor.advance(session).await.map_err(self.failed(doing()))? {
                        ahead.add(cursor.current().as_bytes()).await;
                    }
                }
                _ => {
                    let mut cursor = find.await.map_err(self.failed(doing()))?;
                    while cursor.advance().await.map_err(self.failed(doing()))? {
                        ahead.add(cursor.current().as_bytes()).await;
                    }
                }
            }
            ahead.pass_on().await;
            Ok(())
        };
        let taking = async {
            while let Some(batch) = batches.recv().await {
                for document in batch {
                    take(&mut digest, writer.as_deref_mut(), &document).await?;
                }
            }
            Ok(())
        };
        tokio::try_join!(reading, taking)?;
        Ok(digest)
    }
}

/// Documents on their way from the server.
struct Ahead {
    batch: Vec<Vec<u8>>,
    bytes: usize,
    sender: mpsc::Sender<Vec<Vec<u8>>>,
}

impl Ahead {
    async fn add(&mut self, document: &[u8]) {
        self.batch.push(document.to_owned());
        self.bytes += document.len();
        if self.batch.len() >= BATCH as usize || self.bytes >= AHEAD_BYTES {
            self.pass_on().await;
        }
    }

    async fn pass_on(&mut self) {
        self.bytes = 0;
        // Whoever takes no more has failed, and says why itself.
        self.sender.send(std::mem::take(&mut self.batch)).await.ok();
    }
}

/// Whether a collection can be read in a snapshot.
fn is_plain(collection: &ArchiveCollection) -> bool {
    collection.kind != "view" && !collection.metadata.options.get_bool("capped").unwrap_or(false)
}

async fn take(digest: &mut UnorderedDigest, writer: Option<&mut ArchiveWriter<'_>>, document: &[u8]) -> Result<(), SourceError> {
    digest.add(document);
    match writer {
        Some(writer) => writer.document(document).await,
        None => Ok(()),
    }
}

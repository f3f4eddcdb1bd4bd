//! Reading a deployment out.

use futures_util::future::BoxFuture;
use futures_util::{StreamExt, TryStreamExt, stream};
use kaleem_core::backup::{ByteSender, Consistency, Contents, Exported, SourceError};
use mongodb::Database;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Bson, Document, RawDocumentBuf, doc};
use tokio::sync::mpsc;

use super::moment::{Moment, is_plain};
use super::{MongoSource, oplog, users};
use crate::format::UnorderedDigest;
use crate::format::mongo_archive::{ArchiveCollection, ArchiveWriter, describe};
use crate::format::mongo_metadata::CollectionMetadata;

/// Databases that belong to the server.
const OWN_DATABASES: [&str; 3] = ["admin", "config", "local"];
const BATCH: u32 = 1000;
/// Collections that are read at the same time: as many as mongodump reads.
const PARALLEL: usize = 4;
/// Bytes of documents that are passed on together. With a server's answer of up to 16 MiB, and one document as long as that
/// can be, for each collection that is read, memory stays below 200 MiB.
const AHEAD_BYTES: usize = 4 << 20;
/// Pieces that are ready before somebody takes them.
const AHEAD: usize = 2;

impl MongoSource {
    /// Reads everything in scope; sends it when there is somebody to send it to.
    pub(super) async fn dump(&self, out: Option<&mut ByteSender>) -> Result<Exported, SourceError> {
        let found = self.catalogue().await?;
        let listed = self.users_and_roles().await?;
        let begin = match self.scope.oplog && out.is_some() {
            true => Some(self.newest_operation().await?),
            false => None,
        };
        let mut moment = self.moment(&found).await?;
        let mut writer = None;
        if let Some(out) = out {
            let head = listed.iter().map(|listed| listed.place.clone()).chain(found.iter().cloned()).chain(begin.map(|_| oplog::place()));
            let mut begun = ArchiveWriter::begin(out, &self.version().await?, PARALLEL, head.collect()).await?;
            for (number, listed) in listed.iter().enumerate() {
                for document in &listed.documents {
                    begun.document(number, document.as_bytes()).await?;
                }
                begun.end_collection(number).await?;
            }
            writer = Some(begun);
        }
        let mut contents = Contents::new();
        users::describe_all(&mut contents, &listed)?;
        let digests = self.read_all(&found, &moment, writer.as_mut(), listed.len()).await?;
        for (collection, digest) in found.iter().zip(&digests) {
            describe(&mut contents, collection, digest)
                .map_err(|reason| SourceError::Unsupported { what: collection.namespace(), reason })?;
        }
        if let (Some(begin), Some(writer)) = (begin, writer.as_mut()) {
            let end = self.newest_operation().await?;
            let entries = self.slice(begin, end, listed.len() + found.len(), writer).await?;
            moment.notes.push(format!(
                "{entries} entries of the oplog, from {}.{} to {}.{}, are with it: `mongorestore --archive --oplogReplay` goes on with them",
                begin.time, begin.increment, end.time, end.increment
            ));
        }
        if let Some(writer) = writer {
            writer.finish().await?;
        }
        if self.catalogue().await? != found {
            moment.consistency = Consistency::None;
            moment.notes.push("collections, options or indexes were changed while they were read".to_owned());
        }
        moment.notes.push(match self.scope.users {
            true => "users and roles are with it, and with them the hashes of passwords".to_owned(),
            false => "users and roles are not included".to_owned(),
        });
        Ok(Exported { contents, consistency: moment.consistency, notes: moment.notes })
    }

    /// Reads collections, some at the same time, and answers the digest of each.
    async fn read_all(
        &self,
        found: &[ArchiveCollection],
        moment: &Moment,
        mut writer: Option<&mut ArchiveWriter<'_>>,
        first: usize,
    ) -> Result<Vec<UnorderedDigest>, SourceError> {
        let mut digests: Vec<UnorderedDigest> = found.iter().map(|_| UnorderedDigest::default()).collect();
        let (sender, mut pieces) = mpsc::channel(AHEAD);
        let reading = async move {
            let mut each: Vec<BoxFuture<'_, Result<(), SourceError>>> = Vec::new();
            for (number, collection) in found.iter().enumerate() {
                each.push(Box::pin(self.read(number, collection, moment, sender.clone())));
            }
            // The last of the senders goes with the last collection, and tells that nothing more comes.
            drop(sender);
            stream::iter(each).buffer_unordered(PARALLEL).try_collect::<()>().await
        };
        let taking = async {
            while let Some((number, piece)) = pieces.recv().await {
                let Some(digest) = digests.get_mut(number) else { continue };
                for document in piece.iter().flatten() {
                    digest.add(document);
                    if let Some(writer) = writer.as_deref_mut() {
                        writer.document(first + number, document).await?;
                    }
                }
                if let (None, Some(writer)) = (piece, writer.as_deref_mut()) {
                    writer.end_collection(first + number).await?;
                }
            }
            Ok(())
        };
        tokio::try_join!(reading, taking)?;
        Ok(digests)
    }

    /// Every collection and view in scope, sorted, with options and indexes.
    pub(super) async fn catalogue(&self) -> Result<Vec<ArchiveCollection>, SourceError> {
        let databases = match self.scope.databases.as_slice() {
            [_, ..] => self.scope.databases.clone(),
            [] => {
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

    /// Passes the documents of a collection on, and then that there are no more.
    async fn read(
        &self,
        number: usize,
        collection: &ArchiveCollection,
        moment: &Moment,
        sender: mpsc::Sender<Piece>,
    ) -> Result<(), SourceError> {
        let doing = || format!("reading {}", collection.namespace());
        let documents = self.client.database(&collection.database).collection::<RawDocumentBuf>(&collection.collection);
        let find = documents.find(doc! {}).batch_size(BATCH);
        let mut ahead = Ahead { number, batch: Vec::new(), bytes: 0, sender };
        match moment.time.filter(|_| is_plain(collection)) {
            _ if collection.kind == "view" => (),
            Some(time) => {
                let session = self.client.start_session().snapshot(true).snapshot_time(time);
                let mut session = session.await.map_err(self.failed("opening a session"))?;
                let mut cursor = find.session(&mut session).await.map_err(self.failed(doing()))?;
                while cursor.advance(&mut session).await.map_err(self.failed(doing()))? {
                    ahead.add(cursor.current().as_bytes()).await;
                }
            }
            None => {
                let mut cursor = find.await.map_err(self.failed(doing()))?;
                while cursor.advance().await.map_err(self.failed(doing()))? {
                    ahead.add(cursor.current().as_bytes()).await;
                }
            }
        }
        ahead.pass_on().await;
        // Whoever takes no more has failed, and says why itself.
        ahead.sender.send((number, None)).await.ok();
        Ok(())
    }
}

/// Documents of a collection, by its number; `None` after the last.
type Piece = (usize, Option<Vec<Vec<u8>>>);

/// Documents on their way from the server.
struct Ahead {
    number: usize,
    batch: Vec<Vec<u8>>,
    bytes: usize,
    sender: mpsc::Sender<Piece>,
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
        self.sender.send((self.number, Some(std::mem::take(&mut self.batch)))).await.ok();
    }
}

//! The part of the oplog that was written while everything was read, as `mongodump --oplog` keeps it.
//!
//! `mongorestore --oplogReplay` goes on from what was read to the moment at which reading ended. kaleem itself puts back
//! what was read, and leaves the rest.

use kaleem_core::backup::SourceError;
use mongodb::bson::{Document, RawDocumentBuf, Timestamp, doc};

use super::MongoSource;
use crate::format::mongo_archive::{ArchiveCollection, ArchiveWriter};
use crate::format::mongo_metadata::CollectionMetadata;

/// The oplog as archives name it.
pub(super) fn place() -> ArchiveCollection {
    let metadata = CollectionMetadata { options: Document::new(), indexes: Vec::new(), uuid: None };
    ArchiveCollection { database: String::new(), collection: "oplog".to_owned(), kind: String::new(), metadata }
}

impl MongoSource {
    /// When the newest entry was written.
    pub(super) async fn newest_operation(&self) -> Result<Timestamp, SourceError> {
        let doing = "reading the end of its oplog";
        let newest = self.oplog().find_one(doc! {}).sort(doc! { "$natural": -1 }).await.map_err(self.failed(doing))?;
        let time = newest.as_deref().and_then(|entry| entry.get_timestamp("ts").ok());
        let none = || SourceError::Unsupported {
            what: format!("the oplog of {}", self.store),
            reason: "it has none: only a replica set has one".to_owned(),
        };
        time.ok_or_else(none)
    }

    /// Sends what was written from `begin` to `end`, both with it; answers how many entries.
    pub(super) async fn slice(
        &self,
        begin: Timestamp,
        end: Timestamp,
        number: usize,
        writer: &mut ArchiveWriter<'_>,
    ) -> Result<u64, SourceError> {
        let doing = "reading its oplog";
        let between = doc! { "ts": { "$gte": begin, "$lte": end } };
        let mut cursor = self.oplog().find(between).await.map_err(self.failed(doing))?;
        let mut entries = 0;
        while cursor.advance().await.map_err(self.failed(doing))? {
            let entry = cursor.current();
            if entries == 0 && entry.get_timestamp("ts").ok() != Some(begin) {
                break;
            }
            writer.document(number, entry.as_bytes()).await?;
            entries += 1;
        }
        if entries == 0 {
            let reason = "it has forgotten what was written when reading began: it is too short for what is written meanwhile".to_owned();
            return Err(SourceError::Unsupported { what: format!("the oplog of {}", self.store), reason });
        }
        writer.end_collection(number).await?;
        Ok(entries)
    }

    fn oplog(&self) -> mongodb::Collection<RawDocumentBuf> {
        self.client.database("local").collection("oplog.rs")
    }
}

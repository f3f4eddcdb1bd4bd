//! Loading collections beside their places, checking them there, and moving them.

use std::collections::BTreeMap;

use kaleem_core::backup::{RestoreMode, SourceError};
use mongodb::bson::{Document, RawDocumentBuf, doc};

use super::MongoSource;
use super::users::{self, Wanted};
use crate::format::UnorderedDigest;
use crate::format::mongo_archive::{ArchiveCollection, ArchiveReader};

const BATCH_BYTES: usize = 8 * 1024 * 1024;
const BATCH_DOCUMENTS: usize = 1000;

/// A collection of the archive and where it is loaded: beside its place or, where the server cannot move it and nothing is
/// there, in it.
pub(super) struct Loading {
    pub(super) collection: ArchiveCollection,
    /// Name beside its place.
    pub(super) beside: String,
    pub(super) digest: UnorderedDigest,
}

impl MongoSource {
    /// Whether a collection with these options still has them after it was renamed. Tried out, since not every server that
    /// speaks as MongoDB does what MongoDB does, and the data that is to be replaced would be gone when it is found out.
    pub(super) async fn keeps_options(&self, collection: &ArchiveCollection, beside: &str) -> Result<bool, SourceError> {
        if collection.metadata.options.is_empty() {
            return Ok(true);
        }
        let renamed = format!("{beside}_renamed");
        let mut command = doc! { "create": beside };
        command.extend(collection.metadata.options.clone());
        self.command(collection, command, "trying out").await?;
        let database = &collection.database;
        let rename = doc! { "renameCollection": format!("{database}.{beside}"), "to": format!("{database}.{renamed}") };
        let moved = self.client.database("admin").run_command(rename).await;
        let found = self.catalogue_of(database).await;
        for name in [beside, &renamed] {
            let tried = self.client.database(database).collection::<Document>(name);
            tried.drop().await.map_err(self.failed(format!("trying out {}", collection.namespace())))?;
        }
        moved.map_err(self.failed(format!("trying out {}", collection.namespace())))?;
        let text = |of: &ArchiveCollection| of.metadata.options_text().ok();
        Ok(found?.iter().any(|found| found.collection == renamed && text(found) == text(collection)))
    }

    /// Loads what is in `loading`, by its number in the archive, and keeps users and roles for later. Reads the archive to its
    /// end, whatever of it is wanted.
    pub(super) async fn load_beside(
        &self,
        reader: &mut ArchiveReader,
        loading: &mut BTreeMap<usize, Loading>,
        wanted: &mut Wanted,
    ) -> Result<(), SourceError> {
        for target in loading.values().filter(|target| target.collection.kind != "view") {
            let mut command = doc! { "create": &target.beside };
            command.extend(target.collection.metadata.options.clone());
            self.command(&target.collection, command, "making").await?;
        }
        let mut batch: Vec<RawDocumentBuf> = Vec::new();
        let (mut batch_bytes, mut of) = (0, 0);
        while let Some((index, bytes)) = reader.next().await? {
            if index != of || batch_bytes > BATCH_BYTES || batch.len() >= BATCH_DOCUMENTS {
                self.insert(loading.get(&of), std::mem::take(&mut batch)).await?;
                (batch_bytes, of) = (0, index);
            }
            let collection = reader.collections().get(index);
            let document = |bytes| {
                RawDocumentBuf::from_bytes(bytes).map_err(|error| SourceError::Unsupported {
                    what: collection.map(ArchiveCollection::namespace).unwrap_or_default(),
                    reason: error.to_string(),
                })
            };
            if let Some(target) = loading.get_mut(&index) {
                target.digest.add(&bytes);
                batch_bytes += bytes.len();
                batch.push(document(bytes)?);
            } else if let Some(listed) = collection.filter(|collection| wanted.is_there && users::is_of_users(collection)) {
                wanted.add(&listed.collection, document(bytes)?);
            }
        }
        self.insert(loading.get(&of), batch).await?;
        for target in loading.values() {
            self.indexes(target).await?;
            self.check(target).await?;
        }
        Ok(())
    }

    async fn insert(&self, target: Option<&Loading>, documents: Vec<RawDocumentBuf>) -> Result<(), SourceError> {
        let (Some(target), false) = (target, documents.is_empty()) else { return Ok(()) };
        let into = self.client.database(&target.collection.database).collection::<RawDocumentBuf>(&target.beside);
        // In their order, which capped collections keep; documents that are older than their validator stay what they are.
        let inserted = into.insert_many(documents).ordered(true).bypass_document_validation(true).await;
        inserted.map(|_| ()).map_err(self.failed(format!("writing {}", target.collection.namespace())))
    }

    async fn indexes(&self, target: &Loading) -> Result<(), SourceError> {
        let is_id = |index: &&Document| index.get_str("name").is_ok_and(|name| name == "_id_");
        let wanted: Vec<&Document> = target.collection.metadata.indexes.iter().filter(|index| !is_id(index)).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let indexes: Vec<Document> = wanted.into_iter().cloned().collect();
        self.command(&target.collection, doc! { "createIndexes": &target.beside, "indexes": indexes }, "indexing").await
    }

    /// Reads what was loaded, and compares it with what was sent.
    async fn check(&self, target: &Loading) -> Result<(), SourceError> {
        if target.collection.kind == "view" {
            return Ok(());
        }
        let found = self.digest(&target.collection, &target.beside).await?;
        if found == target.digest {
            return Ok(());
        }
        let reason = format!("{} documents were sent, {} others are there", target.digest.count(), found.count());
        Err(SourceError::Differs { what: target.collection.namespace(), reason })
    }

    pub(super) async fn digest(&self, collection: &ArchiveCollection, name: &str) -> Result<UnorderedDigest, SourceError> {
        let doing = || format!("reading back {}", collection.namespace());
        let documents = self.client.database(&collection.database).collection::<RawDocumentBuf>(name);
        let mut cursor = documents.find(doc! {}).await.map_err(self.failed(doing()))?;
        let mut digest = UnorderedDigest::default();
        while cursor.advance().await.map_err(self.failed(doing()))? {
            digest.add(cursor.current().as_bytes());
        }
        Ok(digest)
    }

    pub(super) async fn swap(&self, loading: &BTreeMap<usize, Loading>, mode: RestoreMode) -> Result<(), SourceError> {
        for target in loading.values() {
            let collection = &target.collection;
            let place = self.client.database(&collection.database).collection::<Document>(&collection.collection);
            if collection.kind == "view" {
                if mode == RestoreMode::Replace {
                    place.drop().await.map_err(self.failed(format!("replacing {}", collection.namespace())))?;
                }
                let mut command = doc! { "create": &collection.collection };
                command.extend(collection.metadata.options.clone());
                self.command(collection, command, "making").await?;
                continue;
            }
            if target.beside == collection.collection {
                continue;
            }
            let from = format!("{}.{}", collection.database, target.beside);
            let rename = doc! {
                "renameCollection": from, "to": collection.namespace(), "dropTarget": mode == RestoreMode::Replace,
            };
            let renamed = self.client.database("admin").run_command(rename).await;
            renamed.map_err(self.failed(format!("moving {} into its place", collection.namespace())))?;
        }
        Ok(())
    }

    /// Removes what was loaded beside, as far as that is possible; its names show what it is.
    pub(super) async fn sweep(&self, loading: &BTreeMap<usize, Loading>) {
        for target in loading.values() {
            let beside = self.client.database(&target.collection.database).collection::<Document>(&target.beside);
            beside.drop().await.ok();
        }
    }
}

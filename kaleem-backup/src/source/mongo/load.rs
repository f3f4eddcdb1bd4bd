//! Putting an archive back.
//!
//! Every collection is loaded under a name of its own beside its place, checked there, and renamed into its place by the
//! server in one step. What was there before goes only with that step. Views hold no data and come last.

use std::collections::BTreeSet;

use kaleem_core::backup::{ByteStream, Contents, RestoreMode, SourceError};
use mongodb::bson::{Document, RawDocumentBuf, doc};

use super::MongoSource;
use crate::format::UnorderedDigest;
use crate::format::mongo_archive::{ArchiveCollection, ArchiveReader, describe};

const BATCH_BYTES: usize = 8 * 1024 * 1024;
const BATCH_DOCUMENTS: usize = 1000;

/// A collection of the archive and where it is loaded: beside its place or, where the server cannot move it and nothing is
/// there, in it.
struct Loading {
    collection: ArchiveCollection,
    /// Name beside its place.
    beside: String,
    digest: UnorderedDigest,
}

impl MongoSource {
    pub(super) async fn load(&self, input: ByteStream, mode: RestoreMode) -> Result<Contents, SourceError> {
        let mut reader = ArchiveReader::open(input).await?;
        // The server's own and the oplog are for other tools.
        let own = |collection: &ArchiveCollection| {
            collection.database.is_empty()
                || matches!(collection.database.as_str(), "admin" | "config" | "local")
                || (collection.collection.starts_with("system.") && collection.collection != "system.js")
        };
        if let Some(foreign) = reader.collections().iter().find(|collection| own(collection) || collection.kind == "timeseries") {
            let reason = "it is one of the server's own; restore this archive with mongorestore".to_owned();
            return Err(SourceError::Unsupported { what: foreign.namespace(), reason });
        }
        let there = self.places(reader.collections()).await?;
        if let (RestoreMode::IntoEmpty, Some(taken)) = (mode, there.first()) {
            return Err(SourceError::NotEmpty { what: taken.clone() });
        }
        let mut random = [0; 6];
        getrandom::fill(&mut random).map_err(|error| SourceError::Failed {
            store: self.store.clone(),
            doing: "choosing names".to_owned(),
            source: Box::new(std::io::Error::other(error)),
        })?;
        let run = hex::encode(random);
        let mut loading: Vec<Loading> = Vec::new();
        for (number, collection) in reader.collections().iter().enumerate() {
            let mut beside = format!("kaleem_restore_{run}_{number}");
            if collection.kind != "view" && !self.keeps_options(collection, &beside).await? {
                if mode == RestoreMode::Replace {
                    let reason = "this server forgets the options of a collection that is renamed; remove it first".to_owned();
                    return Err(SourceError::Unsupported { what: collection.namespace(), reason });
                }
                beside.clone_from(&collection.collection);
            }
            loading.push(Loading { collection: collection.clone(), beside, digest: UnorderedDigest::default() });
        }
        let loaded = self.load_beside(&mut reader, &mut loading).await;
        if let Err(error) = loaded {
            self.sweep(&loading).await;
            return Err(error);
        }
        let swapped = self.swap(&loading, mode).await;
        if swapped.is_err() {
            self.sweep(&loading).await;
        }
        swapped?;
        self.contents_of(&loading).await
    }

    /// Whether a collection with these options still has them after it was renamed. Tried out, since not every server that
    /// speaks as MongoDB does what MongoDB does, and the data that is to be replaced would be gone when it is found out.
    async fn keeps_options(&self, collection: &ArchiveCollection, beside: &str) -> Result<bool, SourceError> {
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

    async fn catalogue_of(&self, database: &str) -> Result<Vec<ArchiveCollection>, SourceError> {
        let scope = super::MongoScope::Databases(vec![database.to_owned()]);
        let view = Self { identity: self.identity.clone(), client: self.client.clone(), store: self.store.clone(), scope };
        view.catalogue().await
    }

    /// Which of the places are taken.
    async fn places(&self, collections: &[ArchiveCollection]) -> Result<BTreeSet<String>, SourceError> {
        let databases: BTreeSet<&str> = collections.iter().map(|collection| collection.database.as_str()).collect();
        let mut there = BTreeSet::new();
        for name in databases {
            let names = self.client.database(name).list_collection_names().await;
            for found in names.map_err(self.failed(format!("listing the collections of {name}")))? {
                there.insert(format!("{name}.{found}"));
            }
        }
        there.retain(|place| collections.iter().any(|collection| collection.namespace() == *place));
        Ok(there)
    }

    async fn load_beside(&self, reader: &mut ArchiveReader, loading: &mut [Loading]) -> Result<(), SourceError> {
        for target in loading.iter().filter(|target| target.collection.kind != "view") {
            let mut command = doc! { "create": &target.beside };
            command.extend(target.collection.metadata.options.clone());
            self.command(&target.collection, command, "making").await?;
        }
        let mut batch: Vec<RawDocumentBuf> = Vec::new();
        let (mut batch_bytes, mut of) = (0, 0);
        while let Some((index, bytes)) = reader.next().await? {
            if index != of || batch_bytes > BATCH_BYTES || batch.len() >= BATCH_DOCUMENTS {
                self.insert(loading.get(of), std::mem::take(&mut batch)).await?;
                (batch_bytes, of) = (0, index);
            }
            if let Some(target) = loading.get_mut(index) {
                target.digest.add(&bytes);
            }
            batch_bytes += bytes.len();
            let document = RawDocumentBuf::from_bytes(bytes).map_err(|error| SourceError::Unsupported {
                what: loading.get(index).map(|target| target.collection.namespace()).unwrap_or_default(),
                reason: error.to_string(),
            })?;
            batch.push(document);
        }
        self.insert(loading.get(of), batch).await?;
        for target in loading.iter() {
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

    async fn digest(&self, collection: &ArchiveCollection, name: &str) -> Result<UnorderedDigest, SourceError> {
        let doing = || format!("reading back {}", collection.namespace());
        let documents = self.client.database(&collection.database).collection::<RawDocumentBuf>(name);
        let mut cursor = documents.find(doc! {}).await.map_err(self.failed(doing()))?;
        let mut digest = UnorderedDigest::default();
        while cursor.advance().await.map_err(self.failed(doing()))? {
            digest.add(cursor.current().as_bytes());
        }
        Ok(digest)
    }

    async fn swap(&self, loading: &[Loading], mode: RestoreMode) -> Result<(), SourceError> {
        for target in loading {
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

    /// What the places hold now, from the server and not from memory.
    async fn contents_of(&self, loading: &[Loading]) -> Result<Contents, SourceError> {
        let mut contents = Contents::new();
        let databases: BTreeSet<&str> = loading.iter().map(|target| target.collection.database.as_str()).collect();
        let mut catalogue = Vec::new();
        for database in databases {
            catalogue.extend(self.catalogue_of(database).await?);
        }
        for found in catalogue {
            if !loading.iter().any(|target| target.collection.namespace() == found.namespace()) {
                continue;
            }
            let digest = match found.kind.as_str() {
                "view" => UnorderedDigest::default(),
                _ => self.digest(&found, &found.collection).await?,
            };
            describe(&mut contents, &found, &digest).map_err(|reason| SourceError::Differs { what: found.namespace(), reason })?;
        }
        Ok(contents)
    }

    async fn command(&self, collection: &ArchiveCollection, command: Document, doing: &str) -> Result<(), SourceError> {
        let answer = self.client.database(&collection.database).run_command(command).await;
        answer.map(|_| ()).map_err(self.failed(format!("{doing} {}", collection.namespace())))
    }

    /// Removes what was loaded beside, as far as that is possible; its names show what it is.
    async fn sweep(&self, loading: &[Loading]) {
        for target in loading {
            let beside = self.client.database(&target.collection.database).collection::<Document>(&target.beside);
            beside.drop().await.ok();
        }
    }
}

//! Putting an archive back.
//!
//! Every collection is loaded under a name of its own beside its place, checked there, and renamed into its place by the
//! server in one step. What was there before goes only with that step. Views hold no data. Users and roles come last.

use std::collections::{BTreeMap, BTreeSet};

use kaleem_core::backup::{ByteStream, Contents, RestoreMode, SourceError};
use mongodb::bson::Document;

use super::MongoSource;
use super::beside::Loading;
use super::users::{self, Wanted};
use crate::format::UnorderedDigest;
use crate::format::mongo_archive::{ArchiveCollection, ArchiveReader, describe};
use crate::random;

/// Whether a collection is the server's own, which is for other tools.
fn is_own(collection: &ArchiveCollection) -> bool {
    matches!(collection.database.as_str(), "admin" | "config" | "local")
        || (collection.collection.starts_with("system.") && collection.collection != "system.js")
}

impl MongoSource {
    /// Puts an archive back: all of it, or the collection that `part` names.
    pub(super) async fn load(&self, input: ByteStream, mode: RestoreMode, part: Option<&str>) -> Result<Contents, SourceError> {
        let mut reader = ArchiveReader::open(input).await?;
        let mut wanted = Wanted::default();
        let mut chosen = Vec::new();
        for (number, collection) in reader.collections().iter().enumerate() {
            if part.is_some_and(|part| part != collection.namespace()) || collection.database.is_empty() {
                continue;
            }
            if users::is_of_users(collection) && part.is_none() {
                wanted.is_there = true;
            } else if is_own(collection) || collection.kind == "timeseries" {
                let reason = "it is one of the server's own; restore this archive with mongorestore".to_owned();
                return Err(SourceError::Unsupported { what: collection.namespace(), reason });
            } else {
                chosen.push((number, collection.clone()));
            }
        }
        if let (Some(part), true) = (part, chosen.is_empty()) {
            return Err(SourceError::Unsupported { what: format!("`{part}`"), reason: "the backup has no such collection".to_owned() });
        }
        let there = self.places(&chosen).await?;
        if let (RestoreMode::IntoEmpty, Some(taken)) = (mode, there.first()) {
            return Err(SourceError::NotEmpty { what: taken.clone() });
        }
        self.takes_users(&wanted).await?;
        let run = random::digits::<6>().map_err(|error| SourceError::Failed {
            store: self.store.clone(),
            doing: "choosing names".to_owned(),
            source: Box::new(error),
        })?;
        let mut loading = BTreeMap::new();
        for (number, collection) in chosen {
            let mut beside = format!("kaleem_restore_{run}_{number}");
            if collection.kind != "view" && !self.keeps_options(&collection, &beside).await? {
                if mode == RestoreMode::Replace {
                    let reason = "this server forgets the options of a collection that is renamed; remove it first".to_owned();
                    return Err(SourceError::Unsupported { what: collection.namespace(), reason });
                }
                beside.clone_from(&collection.collection);
            }
            loading.insert(number, Loading { collection, beside, digest: UnorderedDigest::default() });
        }
        let loaded = self.load_and_swap(&mut reader, &mut loading, &mut wanted, mode).await;
        if loaded.is_err() {
            self.sweep(&loading).await;
        }
        loaded?;
        let mut contents = self.contents_of(&loading).await?;
        // Last, since who is logged in may be another then.
        self.merge_users(&wanted, &run, &mut contents).await?;
        Ok(contents)
    }

    async fn load_and_swap(
        &self,
        reader: &mut ArchiveReader,
        loading: &mut BTreeMap<usize, Loading>,
        wanted: &mut Wanted,
        mode: RestoreMode,
    ) -> Result<(), SourceError> {
        self.load_beside(reader, loading, wanted).await?;
        self.users_are_free(wanted, mode).await?;
        self.swap(loading, mode).await
    }

    pub(super) async fn catalogue_of(&self, database: &str) -> Result<Vec<ArchiveCollection>, SourceError> {
        let scope = super::MongoScope::databases(vec![database.to_owned()]);
        let view = Self { identity: self.identity.clone(), client: self.client.clone(), store: self.store.clone(), scope };
        view.catalogue().await
    }

    /// Which of the places are taken.
    async fn places(&self, collections: &[(usize, ArchiveCollection)]) -> Result<BTreeSet<String>, SourceError> {
        let databases: BTreeSet<&str> = collections.iter().map(|(_, collection)| collection.database.as_str()).collect();
        let mut there = BTreeSet::new();
        for name in databases {
            let names = self.client.database(name).list_collection_names().await;
            for found in names.map_err(self.failed(format!("listing the collections of {name}")))? {
                there.insert(format!("{name}.{found}"));
            }
        }
        there.retain(|place| collections.iter().any(|(_, collection)| collection.namespace() == *place));
        Ok(there)
    }

    /// What the places hold now, from the server and not from memory.
    async fn contents_of(&self, loading: &BTreeMap<usize, Loading>) -> Result<Contents, SourceError> {
        let mut contents = Contents::new();
        let databases: BTreeSet<&str> = loading.values().map(|target| target.collection.database.as_str()).collect();
        let mut catalogue = Vec::new();
        for database in databases {
            catalogue.extend(self.catalogue_of(database).await?);
        }
        for found in catalogue {
            if !loading.values().any(|target| target.collection.namespace() == found.namespace()) {
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

    pub(super) async fn command(&self, collection: &ArchiveCollection, command: Document, doing: &str) -> Result<(), SourceError> {
        let answer = self.client.database(&collection.database).run_command(command).await;
        answer.map(|_| ()).map_err(self.failed(format!("{doing} {}", collection.namespace())))
    }
}

//! Users and roles, as the server keeps them: with the hashes of passwords, so that a set of them is to be encrypted.
//!
//! They are put back by the server's own merge, which `mongorestore` uses, too: what is there with the same name becomes what
//! it was, and other users stay, so that whoever restores keeps the door that he came in by.

use std::collections::BTreeSet;

use futures_util::TryStreamExt;
use kaleem_core::backup::{Contents, RestoreMode, SourceError};
use mongodb::bson::{Bson, Document, RawDocumentBuf, doc};
use mongodb::error::ErrorKind;

use super::MongoSource;
use crate::format::UnorderedDigest;
use crate::format::mongo_archive::{ArchiveCollection, describe};
use crate::format::mongo_metadata::CollectionMetadata;

/// Where the server keeps them; and which kind of them it keeps, for other tools.
const USERS: &str = "system.users";
const ROLES: &str = "system.roles";
const VERSION: &str = "system.version";
/// The server says that it does not know a command.
const COMMAND_NOT_FOUND: i32 = 59;

/// The server says that we may not do so.
const UNAUTHORIZED: i32 = 13;

/// Whether a collection of an archive holds them.
pub(super) fn is_of_users(collection: &ArchiveCollection) -> bool {
    collection.database == "admin" && [USERS, ROLES, VERSION].contains(&collection.collection.as_str())
}

fn place(collection: &str) -> ArchiveCollection {
    let metadata = CollectionMetadata { options: Document::new(), indexes: Vec::new(), uuid: None };
    ArchiveCollection { database: "admin".to_owned(), collection: collection.to_owned(), kind: "collection".to_owned(), metadata }
}

/// One of the three collections, whole.
pub(super) struct Listed {
    pub(super) place: ArchiveCollection,
    pub(super) documents: Vec<RawDocumentBuf>,
}

impl Listed {
    fn describe(&self, contents: &mut Contents) -> Result<(), SourceError> {
        let mut digest = UnorderedDigest::default();
        self.documents.iter().for_each(|document| digest.add(document.as_bytes()));
        describe(contents, &self.place, &digest).map_err(|reason| SourceError::Unsupported { what: self.place.namespace(), reason })
    }
}

/// Enters users and roles into contents.
pub(super) fn describe_all(contents: &mut Contents, listed: &[Listed]) -> Result<(), SourceError> {
    // Which kind the server keeps is not put back.
    listed.iter().filter(|listed| listed.place.collection != VERSION).try_for_each(|listed| listed.describe(contents))
}

/// Users and roles of an archive that is put back.
#[derive(Default)]
pub(super) struct Wanted {
    users: Vec<RawDocumentBuf>,
    roles: Vec<RawDocumentBuf>,
    /// The archive has some, and they are wanted.
    pub(super) is_there: bool,
}

impl Wanted {
    pub(super) fn add(&mut self, collection: &str, document: RawDocumentBuf) {
        match collection {
            USERS => self.users.push(document),
            ROLES => self.roles.push(document),
            _ => (),
        }
    }

    fn both(&self) -> [(&'static str, &[RawDocumentBuf]); 2] {
        [(USERS, &self.users), (ROLES, &self.roles)]
    }
}

fn ids(documents: &[RawDocumentBuf]) -> Vec<Bson> {
    documents.iter().filter_map(|document| Bson::try_from(document.get("_id").ok()??.to_owned()).ok()).collect()
}

impl MongoSource {
    /// Every user and role in scope.
    pub(super) async fn users_and_roles(&self) -> Result<Vec<Listed>, SourceError> {
        if !self.scope.users {
            return Ok(Vec::new());
        }
        let of_databases = match self.scope.databases.as_slice() {
            [] => doc! {},
            databases => doc! { "db": { "$in": databases } },
        };
        let mut listed = Vec::new();
        for (name, filter) in [(USERS, of_databases.clone()), (ROLES, of_databases), (VERSION, doc! {})] {
            listed.push(Listed { place: place(name), documents: self.listed(name, filter).await? });
        }
        for user in listed.iter().filter(|listed| listed.place.collection == USERS).flat_map(|listed| &listed.documents) {
            // What cannot log in after a restore is no backup of a user.
            if user.get_document("credentials").is_ok_and(|credentials| !credentials.is_empty()) {
                continue;
            }
            let what = format!("the user `{}`", user.get_str("_id").unwrap_or_default());
            return Err(SourceError::Unsupported { what, reason: "the server does not show its credentials".to_owned() });
        }
        Ok(listed)
    }

    async fn listed(&self, name: &str, filter: Document) -> Result<Vec<RawDocumentBuf>, SourceError> {
        let doing = || format!("reading admin.{name}");
        let found = self.client.database("admin").collection::<RawDocumentBuf>(name).find(filter).await;
        found.map_err(self.failed(doing()))?.try_collect().await.map_err(self.failed(doing()))
    }

    /// Whether users can be put back here, asked before anything is changed.
    pub(super) async fn takes_users(&self, wanted: &Wanted) -> Result<(), SourceError> {
        if !wanted.is_there {
            return Ok(());
        }
        // Without a collection to merge there is nothing to do, and a server that knows the command says so.
        let Err(error) = self.client.database("admin").run_command(doc! { "_mergeAuthzCollections": 1 }).await else { return Ok(()) };
        match error.kind.as_ref() {
            ErrorKind::Command(refusal) if refusal.code == COMMAND_NOT_FOUND => {
                let reason = "this server does not put them back: restore without them, collection by collection".to_owned();
                Err(SourceError::Unsupported { what: "users and roles".to_owned(), reason })
            }
            ErrorKind::Command(refusal) if refusal.code != UNAUTHORIZED => Ok(()),
            _ => Err(self.failed("asking whether users can be put back")(error)),
        }
    }

    /// Whether none of them is there, where nothing may be replaced.
    pub(super) async fn users_are_free(&self, wanted: &Wanted, mode: RestoreMode) -> Result<(), SourceError> {
        for (name, documents) in wanted.both() {
            if mode == RestoreMode::Replace || documents.is_empty() {
                continue;
            }
            let found = self.listed(name, doc! { "_id": { "$in": ids(documents) } }).await?;
            if let Some(taken) = found.first() {
                return Err(SourceError::NotEmpty { what: format!("`{}` in admin.{name}", taken.get_str("_id").unwrap_or_default()) });
            }
        }
        Ok(())
    }

    /// Puts users and roles back; answers what is there of them then.
    pub(super) async fn merge_users(&self, wanted: &Wanted, run: &str, contents: &mut Contents) -> Result<(), SourceError> {
        if !wanted.is_there {
            return Ok(());
        }
        let admin = self.client.database("admin");
        let mut merge = doc! { "_mergeAuthzCollections": 1 };
        let mut beside = BTreeSet::new();
        for (key, (name, documents)) in ["tempUsersCollection", "tempRolesCollection"].into_iter().zip(wanted.both()) {
            if documents.is_empty() {
                continue;
            }
            let temporary = format!("kaleem_restore_{run}_{}", name.replace('.', "_"));
            merge.insert(key, format!("admin.{temporary}"));
            beside.insert(temporary.clone());
            let inserted = admin.collection::<RawDocumentBuf>(&temporary).insert_many(documents).await;
            if let Err(error) = inserted {
                self.sweep_admin(&beside).await;
                return Err(self.failed("writing users and roles")(error));
            }
        }
        if !beside.is_empty() {
            merge.extend(doc! { "db": "", "drop": false, "writeConcern": { "w": "majority" } });
            let merged = admin.run_command(merge).await;
            self.sweep_admin(&beside).await;
            merged.map_err(self.failed("merging users and roles; the collections are in their place"))?;
        }
        for (name, documents) in wanted.both() {
            let found = match documents.is_empty() {
                true => Vec::new(),
                false => self.listed(name, doc! { "_id": { "$in": ids(documents) } }).await?,
            };
            Listed { place: place(name), documents: found }.describe(contents)?;
        }
        Ok(())
    }

    async fn sweep_admin(&self, beside: &BTreeSet<String>) {
        for name in beside {
            self.client.database("admin").collection::<Document>(name).drop().await.ok();
        }
    }
}

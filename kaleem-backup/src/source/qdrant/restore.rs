//! Putting collections back.
//!
//! Qdrant cannot rename a collection. So where something is in the place, the snapshot is loaded beside it and counted
//! first; then the server is given the snapshot of what was loaded for the place itself, which it takes in whole or not at
//! all. A place that is empty is loaded directly.

use std::collections::BTreeSet;

use kaleem_core::backup::{ByteSender, ByteStream, Contents, PipeReader, RestoreMode, SourceError, pipe};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::QdrantSource;
use crate::format::bundle::{BundleReader, Index};
use crate::random;
use crate::web::Upload;

/// What a collection that is loaded beside its place begins with.
const BESIDE: &str = "kaleem_restore_";
/// Between the parts of a body; it is in no snapshot, since its end is random.
const BOUNDARY: &str = "kaleem-part-";

/// A collection of the bundle.
struct Loaded {
    name: String,
    /// Where it was loaded; `None` where that is its place.
    beside: Option<String>,
    points: u64,
}

impl QdrantSource {
    /// Puts a bundle back: all of it, or the collection that `part` names. Aliases go with the whole.
    pub(super) async fn put_back(&self, input: ByteStream, mode: RestoreMode, part: Option<&str>) -> Result<Contents, SourceError> {
        let mut reader = BundleReader::open(input).await?;
        let chosen = chosen(reader.index(), part);
        if let (Some(part), true) = (part, chosen.collections.is_empty()) {
            return Err(SourceError::Unsupported { what: format!("`{part}`"), reason: "the backup has no such collection".to_owned() });
        }
        let there = self.catalogue().await?;
        if mode == RestoreMode::IntoEmpty {
            self.is_free(&chosen, &there)?;
        }
        self.sweep(&there).await?;
        let taken: BTreeSet<&str> = there.collections.iter().map(|collection| collection.name.as_str()).collect();
        let run = random::digits::<8>().map_err(|error| self.web.failed("choosing names", error.to_string()))?;
        let mut loaded = Vec::new();
        let outcome = self.load(&mut reader, &chosen, &taken, &run, &mut loaded).await;
        let finished = match outcome {
            Ok(()) => reader.finish().await,
            Err(error) => Err(error),
        };
        let checked = match finished {
            Ok((index, points)) => {
                let named = index.collections.iter().zip(points).filter(|(collection, _)| chosen.collections.contains(collection));
                let points: Vec<Option<u64>> = named.map(|(_, points)| points).collect();
                self.counts_are_right(&loaded, &points).map(|()| points)
            }
            Err(error) => Err(error),
        };
        let points = match checked {
            Ok(checked) => checked,
            Err(error) => {
                self.give_up(&loaded).await;
                return Err(error);
            }
        };
        for collection in &loaded {
            self.move_into_place(collection).await?;
        }
        self.point_aliases(&chosen, &there).await?;
        let contents = self.contents_of(&chosen, &points).await?;
        match crate::set::difference(&contents, &chosen.contents(&points)) {
            None => Ok(contents),
            Some(reason) => Err(SourceError::Differs { what: self.web.store.clone(), reason }),
        }
    }

    fn is_free(&self, wanted: &Index, there: &Index) -> Result<(), SourceError> {
        let taken = |what: String| Err(SourceError::NotEmpty { what });
        for collection in &wanted.collections {
            if there.collections.iter().any(|found| found.name == collection.name) {
                return taken(format!("the collection `{}`", collection.name));
            }
        }
        match wanted.aliases.keys().find(|alias| there.aliases.contains_key(*alias)) {
            Some(alias) => taken(format!("the alias `{alias}`")),
            None => Ok(()),
        }
    }

    /// What an earlier restore left beside when it died.
    async fn sweep(&self, there: &Index) -> Result<(), SourceError> {
        for collection in there.collections.iter().filter(|collection| collection.name.starts_with(BESIDE)) {
            self.drop_collection(&collection.name).await?;
        }
        Ok(())
    }

    async fn load(
        &self,
        reader: &mut BundleReader,
        chosen: &Index,
        taken: &BTreeSet<&str>,
        run: &str,
        loaded: &mut Vec<Loaded>,
    ) -> Result<(), SourceError> {
        let names: Vec<String> = reader.index().collections.iter().map(|collection| collection.name.clone()).collect();
        for (number, name) in names.into_iter().enumerate() {
            let Some(size_bytes) = reader.snapshot().await? else { break };
            if !chosen.collections.iter().any(|collection| collection.name == name) {
                reader.pass_over(size_bytes).await?;
                continue;
            }
            let beside = taken.contains(name.as_str()).then(|| format!("{BESIDE}{run}_{number}"));
            let into = beside.clone().unwrap_or_else(|| name.clone());
            // Told before it is begun: what is half there goes, too.
            loaded.push(Loaded { name, beside, points: 0 });
            let (mut sender, receiver) = pipe();
            let reading = async {
                let (mut left, mut digest) = (size_bytes, Sha256::new());
                while left > 0 {
                    let piece = match reader.piece(left).await {
                        Ok(piece) => piece,
                        Err(error) => {
                            sender.fail(std::io::Error::other("the bytes to read ended")).await;
                            return Err(error);
                        }
                    };
                    left -= piece.len() as u64;
                    digest.update(&piece);
                    if sender.send(piece).await.is_err() {
                        // The server has answered before it had everything: its answer says why.
                        return Ok(None);
                    }
                }
                // As before.
                sender.finish().await.ok();
                Ok(Some(hex::encode(digest.finalize())))
            };
            let (read, uploaded) = tokio::join!(reading, self.upload(&into, size_bytes, receiver));
            let sha256 = read?;
            uploaded?;
            let sha256 = sha256.ok_or_else(|| self.web.failed("take a snapshot", "it did not read it to its end"))?;
            reader.close(size_bytes, sha256).await?;
            let points = self.count(&into).await?;
            if let Some(last) = loaded.last_mut() {
                last.points = points;
            }
        }
        Ok(())
    }

    /// Gives the server a snapshot for a collection, which it takes in whole or not at all.
    async fn upload(&self, collection: &str, size_bytes: u64, content: PipeReader) -> Result<(), SourceError> {
        let doing = "take a snapshot";
        let end = random::digits::<8>().map_err(|error| self.web.failed(doing, error.to_string()))?;
        let boundary = format!("{BOUNDARY}{end}");
        let head = format!(
            "--{boundary}\r\ncontent-disposition: form-data; name=\"snapshot\"; filename=\"kaleem.snapshot\"\r\ncontent-type: application/octet-stream\r\n\r\n"
        );
        let upload = Upload {
            content_type: format!("multipart/form-data; boundary={boundary}"),
            head: head.into_bytes(),
            content,
            content_bytes: size_bytes,
            tail: format!("\r\n--{boundary}--\r\n").into_bytes(),
        };
        // Any other priority lets replicas win over what is restored.
        let query = [("priority", "snapshot"), ("wait", "true")];
        let path = ["collections", collection, "snapshots", "upload"];
        self.web.upload(doing, &path, &query, upload).await.map(|_| ())
    }

    fn counts_are_right(&self, loaded: &[Loaded], wanted: &[Option<u64>]) -> Result<(), SourceError> {
        for (collection, wanted) in loaded.iter().zip(wanted) {
            if let Some(wanted) = wanted.filter(|wanted| *wanted != collection.points) {
                let reason = format!("{wanted} points were in the snapshot, {} are there", collection.points);
                return Err(SourceError::Differs { what: collection.name.clone(), reason });
            }
        }
        Ok(())
    }

    /// Removes what this restore made, as far as that is possible.
    async fn give_up(&self, loaded: &[Loaded]) {
        for collection in loaded {
            // Where nothing was, nothing is left; where something was, it was not touched yet.
            self.drop_collection(collection.beside.as_ref().unwrap_or(&collection.name)).await.ok();
        }
    }

    async fn drop_collection(&self, collection: &str) -> Result<(), SourceError> {
        self.result("remove a collection", Method::DELETE, &["collections", collection], None).await.map(|_| ())
    }

    async fn move_into_place(&self, collection: &Loaded) -> Result<(), SourceError> {
        let Some(beside) = &collection.beside else { return Ok(()) };
        let doing = "make a snapshot";
        let told = self.result(doing, Method::POST, &["collections", beside, "snapshots"], None).await?;
        let name = told.get("name").and_then(Value::as_str).ok_or_else(|| self.web.failed(doing, "it does not say which"))?;
        let size_bytes = told.get("size").and_then(Value::as_u64).ok_or_else(|| self.web.failed(doing, "it does not say how long"))?;
        let (mut sender, receiver) = pipe();
        let path = ["collections", beside, "snapshots", name];
        let fetching = async { self.pass_on(&path, &mut sender, size_bytes).await.map(|()| sender) };
        let finishing = async {
            // The body ends well only when everything came.
            match fetching.await {
                Ok(sender) => sender.finish().await.map_err(|source| SourceError::Output { source }),
                Err(error) => Err(error),
            }
        };
        let (fetched, uploaded) = tokio::join!(finishing, self.upload(&collection.name, size_bytes, receiver));
        // When the server gives up first, its answer says why.
        match fetched {
            Err(SourceError::Output { .. }) | Ok(()) => (),
            Err(error) => return Err(error),
        }
        uploaded?;
        self.drop_collection(beside).await
    }

    async fn pass_on(&self, path: &[&str], sender: &mut ByteSender, size_bytes: u64) -> Result<(), SourceError> {
        let doing = "send a snapshot";
        match self.web.fetch(doing, path, sender, |_| ()).await? {
            length if length == size_bytes => Ok(()),
            length => Err(self.web.failed(doing, format!("{length} of {size_bytes} bytes came"))),
        }
    }

    /// All aliases in one step.
    async fn point_aliases(&self, index: &Index, there: &Index) -> Result<(), SourceError> {
        let mut actions = Vec::new();
        for (alias, collection) in &index.aliases {
            if there.aliases.contains_key(alias) {
                actions.push(json!({ "delete_alias": { "alias_name": alias } }));
            }
            actions.push(json!({ "create_alias": { "alias_name": alias, "collection_name": collection } }));
        }
        if actions.is_empty() {
            return Ok(());
        }
        let body = json!({ "actions": actions });
        self.result("change aliases", Method::POST, &["collections", "aliases"], Some(&body)).await.map(|_| ())
    }

    /// What the server holds of the bundle; what else is there is not ours.
    async fn contents_of(&self, index: &Index, points: &[Option<u64>]) -> Result<Contents, SourceError> {
        let mut found = self.catalogue().await?;
        found.collections.retain(|collection| index.collections.iter().any(|wanted| wanted.name == collection.name));
        found.aliases.retain(|alias, _| index.aliases.contains_key(alias));
        let mut counts = Vec::new();
        for collection in &found.collections {
            let known = index.collections.iter().zip(points).any(|(wanted, points)| wanted.name == collection.name && points.is_some());
            counts.push(if known { Some(self.count(&collection.name).await?) } else { None });
        }
        Ok(found.contents(&counts))
    }
}

/// What of an index is put back.
fn chosen(index: &Index, part: Option<&str>) -> Index {
    let mut chosen = index.clone();
    if let Some(part) = part {
        chosen.collections.retain(|collection| collection.name == part);
        chosen.aliases.clear();
    }
    chosen
}

//! Reading a server out: a snapshot is made, fetched, compared with the sum that the server tells, and removed again.

use kaleem_core::backup::{ByteSender, Consistency, Exported, SourceError};
use reqwest::Method;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::QdrantSource;
use crate::format::bundle::{BundleWriter, Sum, file};

/// A snapshot on the server.
struct Made {
    name: String,
    size_bytes: u64,
    /// Servers before version 1.9 tell none.
    sha256: Option<String>,
}

impl QdrantSource {
    pub(super) async fn take_out(&self, out: &mut ByteSender) -> Result<Exported, SourceError> {
        let index = self.catalogue().await?;
        let mut writer = BundleWriter::begin(out, &index).await?;
        let (mut sums, mut notes) = (Vec::new(), Vec::new());
        for (number, collection) in index.collections.iter().enumerate() {
            let before = self.count(&collection.name).await?;
            let made = self.make(&collection.name).await?;
            let fetched = self.fetch(&collection.name, &made, &file(number), &mut writer).await;
            // A snapshot is as large as its collection: none stays, also not after an error.
            let removed = self.remove(&collection.name, &made).await;
            let sha256 = fetched?;
            removed?;
            let after = self.count(&collection.name).await?;
            if made.sha256.is_none() {
                notes.push(format!("the server tells no sum of its snapshot of {}", collection.name));
            }
            if before != after {
                notes.push(format!("{} was written to meanwhile, so its points were not counted", collection.name));
            }
            sums.push(Sum { file: file(number), size_bytes: made.size_bytes, sha256, points: (before == after).then_some(before) });
        }
        let points: Vec<Option<u64>> = sums.iter().map(|sum| sum.points).collect();
        writer.finish(sums).await?;
        let mut consistency = Consistency::PerCollection;
        if self.catalogue().await? != index {
            consistency = Consistency::None;
            notes.push("collections or aliases were changed while they were read".to_owned());
        }
        Ok(Exported { contents: index.contents(&points), consistency, notes })
    }

    async fn make(&self, collection: &str) -> Result<Made, SourceError> {
        let doing = "make a snapshot";
        let told = self.result(doing, Method::POST, &["collections", collection, "snapshots"], None).await?;
        let name = told.get("name").and_then(Value::as_str).map(str::to_owned);
        let size_bytes = told.get("size").and_then(Value::as_u64);
        let (Some(name), Some(size_bytes)) = (name, size_bytes) else { return Err(self.web.failed(doing, "it does not say which")) };
        let sha256 = told.get("checksum").and_then(Value::as_str).map(str::to_ascii_lowercase);
        Ok(Made { name, size_bytes, sha256 })
    }

    async fn fetch(&self, collection: &str, made: &Made, name: &str, writer: &mut BundleWriter<'_>) -> Result<String, SourceError> {
        writer.head(name, made.size_bytes).await?;
        let mut digest = Sha256::new();
        let doing = "send a snapshot";
        let path = ["collections", collection, "snapshots", &made.name];
        let length = self.web.fetch(doing, &path, writer.output(), |piece| digest.update(piece)).await?;
        let found = hex::encode(digest.finalize());
        if length != made.size_bytes {
            return Err(self.web.failed(doing, format!("{length} of {} bytes came", made.size_bytes)));
        }
        if made.sha256.as_ref().is_some_and(|wanted| *wanted != found) {
            return Err(self.web.failed(doing, "what came is not what the server has the sum of"));
        }
        writer.pad().await?;
        Ok(found)
    }

    async fn remove(&self, collection: &str, made: &Made) -> Result<(), SourceError> {
        let path = ["collections", collection, "snapshots", &made.name];
        self.result("remove a snapshot", Method::DELETE, &path, None).await.map(|_| ())
    }
}

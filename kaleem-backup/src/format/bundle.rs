//! What is kept of a Qdrant: a tar of an index, one snapshot a collection, and sums, which any tar unpacks.
//!
//! The index comes first, since a restore must know what there is before it takes anything; the sums come last, since they
//! are known last. Snapshots are the server's own files: what is in them is the server's to say.

use std::collections::BTreeMap;

use kaleem_core::backup::{ByteSender, ByteStream, Content, Contents, SourceError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::canonical;
use super::tarball::{TarballReader, TarballWriter, pretty};

const FORMAT: &str = "tar of snapshots";
const NUMBER: u32 = 1;
const INDEX: &str = "index.json";
const SUMS: &str = "sums.json";

/// What there is, in the order of the snapshots.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Index {
    pub(crate) format: u32,
    /// Version of the server.
    pub(crate) version: String,
    pub(crate) collections: Vec<Described>,
    /// Collection by alias.
    pub(crate) aliases: BTreeMap<String, String>,
}

/// A collection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Described {
    pub(crate) name: String,
    /// As the server tells it.
    pub(crate) config: Value,
}

/// What is known when everything was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sums {
    index_sha256: String,
    snapshots: Vec<Sum>,
}

/// A snapshot that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sum {
    pub(crate) file: String,
    pub(crate) size_bytes: u64,
    pub(crate) sha256: String,
    /// How many points it holds; `None` where something wrote to it meanwhile.
    pub(crate) points: Option<u64>,
}

impl Index {
    pub(crate) fn new(version: String, collections: Vec<Described>, aliases: BTreeMap<String, String>) -> Self {
        Self { format: NUMBER, version, collections, aliases }
    }

    /// The contents of a server that holds this, with these points.
    pub(crate) fn contents(&self, points: &[Option<u64>]) -> Contents {
        let sum = |text: String| hex::encode(Sha256::digest(text));
        let mut contents = Contents::new();
        for (collection, points) in self.collections.iter().zip(points) {
            let digest = sum(canonical::text(&collection.config));
            contents.insert(format!("configuration of {}", collection.name), Content { count: 1, digest });
            if let Some(count) = *points {
                contents.insert(format!("points of {}", collection.name), Content { count, digest: String::new() });
            }
        }
        if !self.aliases.is_empty() {
            let text = self.aliases.iter().map(|(alias, of)| format!("{alias}\n{of}\n")).collect();
            contents.insert("aliases".to_owned(), Content { count: self.aliases.len() as u64, digest: sum(text) });
        }
        contents
    }
}

/// The name of the file of a snapshot.
pub(crate) fn file(number: usize) -> String {
    format!("{number}.snapshot")
}

/// Writes a bundle.
pub(crate) struct BundleWriter<'a> {
    tarball: TarballWriter<'a>,
    index_sha256: String,
}

impl<'a> BundleWriter<'a> {
    pub(crate) async fn begin(output: &'a mut ByteSender, index: &Index) -> Result<Self, SourceError> {
        let mut tarball = TarballWriter::new(output);
        let bytes = pretty(INDEX, index)?;
        let index_sha256 = hex::encode(Sha256::digest(&bytes));
        tarball.text(INDEX, bytes).await?;
        Ok(Self { tarball, index_sha256 })
    }

    /// Writes the head of a snapshot of that length; exactly its bytes are then to be sent to [`BundleWriter::output`].
    pub(crate) async fn head(&mut self, name: &str, size_bytes: u64) -> Result<(), SourceError> {
        self.tarball.head(name, size_bytes).await
    }

    pub(crate) fn output(&mut self) -> &mut ByteSender {
        self.tarball.output()
    }

    /// Closes what [`BundleWriter::head`] began.
    pub(crate) async fn pad(&mut self) -> Result<(), SourceError> {
        self.tarball.pad().await
    }

    pub(crate) async fn finish(mut self, snapshots: Vec<Sum>) -> Result<(), SourceError> {
        let sums = Sums { index_sha256: self.index_sha256, snapshots };
        self.tarball.text(SUMS, pretty(SUMS, &sums)?).await?;
        self.tarball.finish().await
    }
}

/// Reads a bundle, and believes nothing that its sums do not say.
pub(crate) struct BundleReader {
    tarball: TarballReader,
    index: Index,
    index_sha256: String,
    found: Vec<(u64, String)>,
}

impl BundleReader {
    pub(crate) async fn open(input: ByteStream) -> Result<Self, SourceError> {
        let mut tarball = TarballReader::new(input, FORMAT);
        let text = tarball.text(INDEX).await?;
        let index_sha256 = hex::encode(Sha256::digest(&text));
        let index: Index = serde_json::from_slice(&text).map_err(|error| tarball.damaged(format!("its index: {error}")))?;
        if index.format > NUMBER {
            let reason = format!("it has format {}, and this kaleem reads up to {NUMBER}", index.format);
            return Err(SourceError::Unsupported { what: "the artifact".to_owned(), reason });
        }
        Ok(Self { tarball, index, index_sha256, found: Vec::new() })
    }

    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    /// Reads the head of the next snapshot, and answers its length. Then exactly that much is to be read with
    /// [`BundleReader::piece`].
    pub(crate) async fn snapshot(&mut self) -> Result<Option<u64>, SourceError> {
        let number = self.found.len();
        if number >= self.index.collections.len() {
            return Ok(None);
        }
        self.tarball.head(&file(number)).await.map(Some)
    }

    /// The next piece of a snapshot of which `left` bytes are still to come.
    pub(crate) async fn piece(&mut self, left: u64) -> Result<Vec<u8>, SourceError> {
        self.tarball.piece(left).await
    }

    /// Reads a snapshot of which nothing is wanted but its sum, and closes it.
    pub(crate) async fn pass_over(&mut self, size_bytes: u64) -> Result<(), SourceError> {
        let (mut left, mut digest) = (size_bytes, Sha256::new());
        while left > 0 {
            let piece = self.piece(left).await?;
            left -= piece.len() as u64;
            digest.update(&piece);
        }
        self.close(size_bytes, hex::encode(digest.finalize())).await
    }

    /// Closes a snapshot that was read, with what was found.
    pub(crate) async fn close(&mut self, size_bytes: u64, sha256: String) -> Result<(), SourceError> {
        self.tarball.close(size_bytes).await?;
        self.found.push((size_bytes, sha256));
        Ok(())
    }

    /// Reads the sums and the end; answers how many points each collection has.
    pub(crate) async fn finish(mut self) -> Result<(Index, Vec<Option<u64>>), SourceError> {
        let text = self.tarball.text(SUMS).await?;
        let sums: Sums = serde_json::from_slice(&text).map_err(|error| self.tarball.damaged(format!("its sums: {error}")))?;
        // As with the heads: no bit is there that was not written.
        if pretty(SUMS, &sums)? != text {
            return Err(self.tarball.damaged("its sums are not as they were written".to_owned()));
        }
        if sums.index_sha256 != self.index_sha256 {
            return Err(self.tarball.damaged("its index is not the one of its sum".to_owned()));
        }
        let sums = sums.snapshots;
        let named: Vec<(u64, String)> = sums.iter().map(|sum| (sum.size_bytes, sum.sha256.clone())).collect();
        let in_order = sums.iter().enumerate().all(|(number, sum)| sum.file == file(number));
        if named != self.found || !in_order {
            return Err(self.tarball.damaged("a snapshot is not the one of its sum".to_owned()));
        }
        self.tarball.end().await?;
        Ok((self.index, sums.into_iter().map(|sum| sum.points).collect()))
    }
}

/// Reads a bundle to its end, and answers what is in it.
///
/// # Errors
/// [`SourceError`] unless it is whole.
pub async fn verify(input: ByteStream) -> Result<Contents, SourceError> {
    let mut reader = BundleReader::open(input).await?;
    while let Some(size_bytes) = reader.snapshot().await? {
        reader.pass_over(size_bytes).await?;
    }
    let (index, points) = reader.finish().await?;
    Ok(index.contents(&points))
}

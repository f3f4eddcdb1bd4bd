//! What is kept of a Qdrant: a tar of an index, one snapshot a collection, and sums, which any tar unpacks.
//!
//! The index comes first, since a restore must know what there is before it takes anything; the sums come last, since they
//! are known last. Snapshots are the server's own files: what is in them is the server's to say.

use std::collections::BTreeMap;

use kaleem_core::backup::{ByteSender, ByteStream, Content, Contents, SourceError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt, BufReader};

use super::canonical;

const FORMAT: &str = "tar of snapshots";
const BLOCK: usize = 512;
const CHUNK_BYTES: u64 = 256 * 1024;
/// The longest index or sums that are read.
const LONGEST_TEXT: u64 = 32 * 1024 * 1024;
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
    output: &'a mut ByteSender,
    padding: usize,
    index_sha256: String,
}

impl<'a> BundleWriter<'a> {
    pub(crate) async fn begin(output: &'a mut ByteSender, index: &Index) -> Result<Self, SourceError> {
        let mut writer = Self { output, padding: 0, index_sha256: String::new() };
        let bytes = pretty(INDEX, index)?;
        writer.index_sha256 = hex::encode(Sha256::digest(&bytes));
        writer.text(INDEX, bytes).await?;
        Ok(writer)
    }

    /// Writes the head of a snapshot of that length; exactly its bytes are then to be sent to [`BundleWriter::output`].
    pub(crate) async fn head(&mut self, name: &str, size_bytes: u64) -> Result<(), SourceError> {
        let mut header = tar::Header::new_gnu();
        let failed = |error: std::io::Error| SourceError::Unsupported { what: name.to_owned(), reason: error.to_string() };
        header.set_path(name).map_err(failed)?;
        header.set_size(size_bytes);
        header.set_mode(0o600);
        header.set_mtime(0);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_cksum();
        self.padding = padding(size_bytes);
        self.send(header.as_bytes().to_vec()).await
    }

    pub(crate) fn output(&mut self) -> &mut ByteSender {
        self.output
    }

    /// Closes what [`BundleWriter::head`] began.
    pub(crate) async fn pad(&mut self) -> Result<(), SourceError> {
        self.send(vec![0; self.padding]).await
    }

    pub(crate) async fn finish(mut self, snapshots: Vec<Sum>) -> Result<(), SourceError> {
        let sums = Sums { index_sha256: std::mem::take(&mut self.index_sha256), snapshots };
        self.text(SUMS, pretty(SUMS, &sums)?).await?;
        self.send(vec![0; 2 * BLOCK]).await
    }

    async fn text(&mut self, name: &str, bytes: Vec<u8>) -> Result<(), SourceError> {
        self.head(name, bytes.len() as u64).await?;
        self.send(bytes).await?;
        self.pad().await
    }

    async fn send(&mut self, bytes: Vec<u8>) -> Result<(), SourceError> {
        self.output.send(bytes).await.map_err(|source| SourceError::Output { source })
    }
}

fn pretty(name: &str, value: &impl Serialize) -> Result<Vec<u8>, SourceError> {
    serde_json::to_vec_pretty(value).map_err(|error| SourceError::Unsupported { what: name.to_owned(), reason: error.to_string() })
}

fn padding(size_bytes: u64) -> usize {
    // Below 512, so it fits.
    usize::try_from(size_bytes.next_multiple_of(BLOCK as u64) - size_bytes).unwrap_or(0)
}

/// Reads a bundle, and believes nothing that its sums do not say.
pub(crate) struct BundleReader {
    input: BufReader<ByteStream>,
    at_bytes: u64,
    index: Index,
    index_sha256: String,
    found: Vec<(u64, String)>,
}

impl BundleReader {
    pub(crate) async fn open(input: ByteStream) -> Result<Self, SourceError> {
        let index = Index::new(String::new(), Vec::new(), BTreeMap::new());
        let input = BufReader::with_capacity(256 * 1024, input);
        let mut reader = Self { input, at_bytes: 0, index, index_sha256: String::new(), found: Vec::new() };
        let text = reader.text(INDEX).await?;
        reader.index_sha256 = hex::encode(Sha256::digest(&text));
        reader.index = serde_json::from_slice(&text).map_err(|error| reader.damaged(format!("its index: {error}")))?;
        if reader.index.format > NUMBER {
            let reason = format!("it has format {}, and this kaleem reads up to {NUMBER}", reader.index.format);
            return Err(SourceError::Unsupported { what: "the artifact".to_owned(), reason });
        }
        Ok(reader)
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
        self.head(&file(number)).await.map(Some)
    }

    /// The next piece of a snapshot of which `left` bytes are still to come.
    pub(crate) async fn piece(&mut self, left: u64) -> Result<Vec<u8>, SourceError> {
        let mut piece = vec![0; usize::try_from(left.min(CHUNK_BYTES)).unwrap_or(0)];
        let read = self.input.read(&mut piece).await.map_err(|source| SourceError::Input { source })?;
        if read == 0 {
            return Err(self.damaged("it ends inside a snapshot".to_owned()));
        }
        self.at_bytes += read as u64;
        piece.truncate(read);
        Ok(piece)
    }

    /// Closes a snapshot that was read, with what was found.
    pub(crate) async fn close(&mut self, size_bytes: u64, sha256: String) -> Result<(), SourceError> {
        self.skip(padding(size_bytes)).await?;
        self.found.push((size_bytes, sha256));
        Ok(())
    }

    /// Reads the sums and the end; answers how many points each collection has.
    pub(crate) async fn finish(mut self) -> Result<(Index, Vec<Option<u64>>), SourceError> {
        let text = self.text(SUMS).await?;
        let sums: Sums = serde_json::from_slice(&text).map_err(|error| self.damaged(format!("its sums: {error}")))?;
        // As with the heads: no bit is there that was not written.
        if pretty(SUMS, &sums)? != text {
            return Err(self.damaged("its sums are not as they were written".to_owned()));
        }
        if sums.index_sha256 != self.index_sha256 {
            return Err(self.damaged("its index is not the one of its sum".to_owned()));
        }
        let sums = sums.snapshots;
        let named: Vec<(u64, String)> = sums.iter().map(|sum| (sum.size_bytes, sum.sha256.clone())).collect();
        let in_order = sums.iter().enumerate().all(|(number, sum)| sum.file == file(number));
        if named != self.found || !in_order {
            return Err(self.damaged("a snapshot is not the one of its sum".to_owned()));
        }
        self.skip(2 * BLOCK).await?;
        match self.input.read(&mut [0; 1]).await.map_err(|source| SourceError::Input { source })? {
            0 => Ok((self.index, sums.into_iter().map(|sum| sum.points).collect())),
            _ => Err(self.damaged("something follows its end".to_owned())),
        }
    }

    fn damaged(&self, reason: String) -> SourceError {
        SourceError::Malformed { format: FORMAT, at_bytes: self.at_bytes, reason }
    }

    async fn exactly(&mut self, into: &mut [u8]) -> Result<(), SourceError> {
        match self.input.read_exact(into).await {
            Ok(read) => {
                self.at_bytes += read as u64;
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(self.damaged(format!("it ends too early: {error}"))),
            Err(source) => Err(SourceError::Input { source }),
        }
    }

    async fn head(&mut self, wanted: &str) -> Result<u64, SourceError> {
        let mut header = tar::Header::new_gnu();
        let mut block = [0; BLOCK];
        self.exactly(&mut block).await?;
        header.as_mut_bytes().copy_from_slice(&block);
        // The same head made anew: so no bit of it is there that was not written.
        let size = header.size().map_err(|error| self.damaged(error.to_string()))?;
        let mut again = tar::Header::new_gnu();
        again.set_path(wanted).map_err(|error| self.damaged(error.to_string()))?;
        again.set_size(size);
        again.set_mode(0o600);
        again.set_mtime(0);
        again.set_entry_type(tar::EntryType::Regular);
        again.set_cksum();
        if again.as_bytes() != header.as_bytes() {
            return Err(self.damaged(format!("{wanted} does not follow")));
        }
        Ok(size)
    }

    async fn text(&mut self, name: &str) -> Result<Vec<u8>, SourceError> {
        let size = self.head(name).await?;
        let length = usize::try_from(size).ok().filter(|_| size <= LONGEST_TEXT);
        let length = length.ok_or_else(|| self.damaged(format!("{name} is too long")))?;
        let mut text = vec![0; length];
        self.exactly(&mut text).await?;
        self.skip(padding(size)).await?;
        Ok(text)
    }

    async fn skip(&mut self, length: usize) -> Result<(), SourceError> {
        let mut skipped = vec![0; length];
        self.exactly(&mut skipped).await?;
        if skipped.iter().any(|byte| *byte != 0) {
            return Err(self.damaged("there is something where nothing belongs".to_owned()));
        }
        Ok(())
    }
}

/// Reads a bundle to its end, and answers what is in it.
///
/// # Errors
/// [`SourceError`] unless it is whole.
pub async fn verify(input: ByteStream) -> Result<Contents, SourceError> {
    let mut reader = BundleReader::open(input).await?;
    while let Some(size_bytes) = reader.snapshot().await? {
        let (mut left, mut digest) = (size_bytes, Sha256::new());
        while left > 0 {
            let piece = reader.piece(left).await?;
            left -= piece.len() as u64;
            digest.update(&piece);
        }
        reader.close(size_bytes, hex::encode(digest.finalize())).await?;
    }
    let (index, points) = reader.finish().await?;
    Ok(index.contents(&points))
}

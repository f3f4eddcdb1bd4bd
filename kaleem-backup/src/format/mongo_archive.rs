//! The archive format of mongodump, which stock `mongorestore --archive` reads: a reader that believes nothing, and a writer.
//!
//! An archive is whole when its stream ends between blocks, and every collection that its head names was closed with the
//! CRC of its documents. So a cut at any byte is found.

use std::collections::BTreeMap;

use kaleem_core::backup::{ByteSender, ByteStream, Content, Contents, SourceError};
use mongodb::bson::{Document, doc};
use tokio::io::{AsyncReadExt, BufReader};

use super::mongo_metadata::CollectionMetadata;
use super::{Crc64, UnorderedDigest};

const MAGIC: [u8; 4] = [0x6d, 0xe2, 0x99, 0x81];
const TERMINATOR: [u8; 4] = [0xff; 4];
/// A document of 16 MiB, and what servers allow around one of their own.
const LONGEST_DOCUMENT: usize = 16 * 1024 * 1024 + 16 * 1024;
const FORMAT: &str = "mongodump archive";
/// A segment is closed after that much, so that a reader of several collections gets its turn.
const SEGMENT_BYTES: usize = 8 * 1024 * 1024;

/// A collection as the head of an archive names it.
#[derive(Clone, Debug, PartialEq)]
pub struct ArchiveCollection {
    /// Its database; empty for the oplog.
    pub database: String,
    /// Its name in the database.
    pub collection: String,
    /// `collection`, `view` or `timeseries`; empty in old archives.
    pub kind: String,
    /// Options and indexes.
    pub metadata: CollectionMetadata,
}

impl ArchiveCollection {
    /// Database and name, as contents name it.
    pub fn namespace(&self) -> String {
        format!("{}.{}", self.database, self.collection)
    }
}

#[derive(Debug, Default)]
struct Progress {
    digest: UnorderedDigest,
    closed: bool,
}

/// Reads an archive, document by document.
pub struct ArchiveReader {
    input: BufReader<ByteStream>,
    at_bytes: u64,
    collections: Vec<ArchiveCollection>,
    by_name: BTreeMap<(String, String), usize>,
    progress: Vec<(Progress, Crc64)>,
    current: Option<usize>,
}

enum Block {
    Document(Vec<u8>),
    Terminator,
    End,
}

impl ArchiveReader {
    /// Reads the head: which collections there are.
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn open(input: ByteStream) -> Result<Self, SourceError> {
        let mut reader = Self {
            input: BufReader::with_capacity(256 * 1024, input),
            at_bytes: 0,
            collections: Vec::new(),
            by_name: BTreeMap::new(),
            progress: Vec::new(),
            current: None,
        };
        if !matches!(reader.word().await?, Some(MAGIC)) {
            return Err(reader.damaged("it does not begin like one"));
        }
        let head = reader.head().await?.ok_or_else(|| reader.damaged("it has no head"))?;
        match head.get_str("version") {
            Ok("0.1") => (),
            other => return Err(reader.damaged(format!("its format is {other:?}, not 0.1"))),
        }
        while let Some(found) = reader.head().await? {
            let (database, collection) = (reader.field(&found, "db")?, reader.field(&found, "collection")?);
            let metadata = CollectionMetadata::from_text(&reader.field(&found, "metadata")?)
                .map_err(|reason| reader.damaged(format!("{database}.{collection}: {reason}")))?;
            let kind = found.get_str("type").unwrap_or_default().to_owned();
            let index = reader.collections.len();
            if reader.by_name.insert((database.clone(), collection.clone()), index).is_some() {
                return Err(reader.damaged(format!("{database}.{collection} is named twice")));
            }
            reader.collections.push(ArchiveCollection { database, collection, kind, metadata });
            reader.progress.push((Progress::default(), Crc64::xz()));
        }
        Ok(reader)
    }

    /// The collections that the head names, in its order.
    pub fn collections(&self) -> &[ArchiveCollection] {
        &self.collections
    }

    /// The next document and the number of its collection; `None` once everything was read and was right.
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn next(&mut self) -> Result<Option<(usize, Vec<u8>)>, SourceError> {
        loop {
            let Some(current) = self.current else {
                if !self.block().await? {
                    return self.all_closed().map(|()| None);
                }
                continue;
            };
            match self.item().await? {
                Block::Document(bytes) => {
                    if let Some((progress, crc)) = self.progress.get_mut(current) {
                        progress.digest.add(&bytes);
                        crc.add(&bytes);
                    }
                    return Ok(Some((current, bytes)));
                }
                Block::Terminator => self.current = None,
                Block::End => return Err(self.damaged("it ends inside a collection")),
            }
        }
    }

    /// What was read, once [`ArchiveReader::next`] has answered `None`; without the oplog and the version of the server's own
    /// catalogue, which are not put back.
    ///
    /// # Errors
    /// [`SourceError`] when metadata cannot be compared.
    pub fn contents(&self) -> Result<Contents, SourceError> {
        let mut contents = Contents::new();
        let described =
            |collection: &ArchiveCollection| !collection.database.is_empty() && collection.namespace() != "admin.system.version";
        for (collection, (progress, _)) in self.collections.iter().zip(&self.progress).filter(|(collection, _)| described(collection)) {
            describe(&mut contents, collection, &progress.digest).map_err(|reason| self.damaged(reason))?;
        }
        Ok(contents)
    }

    fn damaged(&self, reason: impl Into<String>) -> SourceError {
        SourceError::Malformed { format: FORMAT, at_bytes: self.at_bytes, reason: reason.into() }
    }

    /// Begins a block: a segment, or the end of a collection. `false` at the end of the archive.
    async fn block(&mut self) -> Result<bool, SourceError> {
        let bytes = match self.item().await? {
            Block::End => return Ok(false),
            Block::Terminator => return Err(self.damaged("a block is missing")),
            Block::Document(bytes) => bytes,
        };
        let head = self.decode(&bytes)?;
        let name = (self.field(&head, "db")?, self.field(&head, "collection")?);
        let last = head.get_bool("EOF").map_err(|_| self.damaged("a block does not say whether it is the last"))?;
        let crc = head.get_i64("CRC").map_err(|_| self.damaged("a block has no CRC"))?;
        let namespace = format!("{}.{}", name.0, name.1);
        let index = *self.by_name.get(&name).ok_or_else(|| self.damaged(format!("{namespace} was not named in the head")))?;
        let wrong = match self.progress.get(index) {
            Some((progress, _)) if progress.closed => Some("goes on after its end"),
            Some((_, found)) if last && found.value() != crc.cast_unsigned() => Some("has another CRC than its documents"),
            Some(_) if !last && crc != 0 => Some("has a CRC where none belongs"),
            _ => None,
        };
        if let Some(wrong) = wrong {
            return Err(self.damaged(format!("{namespace} {wrong}")));
        }
        if !last {
            self.current = Some(index);
            return Ok(true);
        }
        if let Some((progress, _)) = self.progress.get_mut(index) {
            progress.closed = true;
        }
        match self.item().await? {
            Block::Terminator => Ok(true),
            _ => Err(self.damaged(format!("the end of {namespace} does not end"))),
        }
    }

    fn all_closed(&self) -> Result<(), SourceError> {
        let open = self.collections.iter().zip(&self.progress).find(|(_, (progress, _))| !progress.closed);
        match open {
            Some((collection, _)) => Err(self.damaged(format!("{} has no end", collection.namespace()))),
            None => Ok(()),
        }
    }

    async fn head(&mut self) -> Result<Option<Document>, SourceError> {
        match self.item().await? {
            Block::Document(bytes) => self.decode(&bytes).map(Some),
            Block::Terminator => Ok(None),
            Block::End => Err(self.damaged("it ends inside its head")),
        }
    }

    fn field(&self, document: &Document, field: &str) -> Result<String, SourceError> {
        let found = document.get_str(field).map(str::to_owned);
        found.map_err(|_| self.damaged(format!("a head has no text `{field}`")))
    }

    fn decode(&self, bytes: &[u8]) -> Result<Document, SourceError> {
        Document::from_reader(bytes).map_err(|error| self.damaged(format!("a head cannot be read: {error}")))
    }

    async fn item(&mut self) -> Result<Block, SourceError> {
        let Some(word) = self.word().await? else { return Ok(Block::End) };
        if word == TERMINATOR {
            return Ok(Block::Terminator);
        }
        let length = usize::try_from(i32::from_le_bytes(word)).unwrap_or(0);
        if !(5..=LONGEST_DOCUMENT).contains(&length) {
            return Err(self.damaged("a document has an impossible length"));
        }
        let mut bytes = vec![0; length];
        let (head, rest) = bytes.split_at_mut(4);
        head.copy_from_slice(&word);
        self.input.read_exact(rest).await.map_err(|source| self.broken(source))?;
        self.at_bytes += rest.len() as u64;
        if bytes.last() != Some(&0) {
            return Err(self.damaged("a document has no end"));
        }
        Ok(Block::Document(bytes))
    }

    /// Four bytes, or `None` when the stream ends before them.
    async fn word(&mut self) -> Result<Option<[u8; 4]>, SourceError> {
        let mut word = [0; 4];
        let mut filled = 0;
        while let Some(rest) = word.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.input.read(rest).await.map_err(|source| SourceError::Input { source })? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(self.damaged("it ends inside a length")),
                read => filled += read,
            }
        }
        self.at_bytes += 4;
        Ok(Some(word))
    }

    fn broken(&self, source: std::io::Error) -> SourceError {
        match source.kind() {
            // The pipe's own death is told from the end of the bytes by its text; both mean that the rest is missing.
            std::io::ErrorKind::UnexpectedEof => self.damaged(format!("it ends inside a document: {source}")),
            _ => SourceError::Input { source },
        }
    }
}

/// Enters a collection into contents.
pub(crate) fn describe(contents: &mut Contents, collection: &ArchiveCollection, documents: &UnorderedDigest) -> Result<(), String> {
    let namespace = collection.namespace();
    let explain = |error: super::mongo_metadata::MetadataError| format!("{namespace}: {error}");
    let options = collection.metadata.options_text().map_err(explain)?;
    let mut indexes = UnorderedDigest::default();
    collection.metadata.index_texts().map_err(explain)?.iter().for_each(|index| indexes.add(index.as_bytes()));
    let mut whole = UnorderedDigest::default();
    whole.add(options.as_bytes());
    contents.insert(format!("options of {namespace}"), Content { count: 1, digest: whole.hex() });
    contents.insert(format!("indexes of {namespace}"), Content { count: indexes.count(), digest: indexes.hex() });
    contents.insert(namespace, Content { count: documents.count(), digest: documents.hex() });
    Ok(())
}

/// Reads an archive to its end, and answers what is in it.
///
/// # Errors
/// [`SourceError`] unless it is whole and sound.
pub async fn verify(input: ByteStream) -> Result<Contents, SourceError> {
    let mut reader = ArchiveReader::open(input).await?;
    while reader.next().await?.is_some() {}
    reader.contents()
}

/// Writes an archive: its head, then the documents of its collections, which may take turns.
pub struct ArchiveWriter<'a> {
    output: &'a mut ByteSender,
    buffer: Vec<u8>,
    collections: Vec<(ArchiveCollection, Crc64)>,
    /// The collection of the segment that is open.
    open: Option<usize>,
    segment_bytes: usize,
}

fn bytes(document: &Document) -> Result<Vec<u8>, SourceError> {
    document.to_vec().map_err(|error| SourceError::Unsupported { what: "a head of the archive".to_owned(), reason: error.to_string() })
}

impl<'a> ArchiveWriter<'a> {
    /// Writes the head.
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn begin(
        output: &'a mut ByteSender,
        server_version: &str,
        concurrent_collections: usize,
        collections: Vec<ArchiveCollection>,
    ) -> Result<Self, SourceError> {
        let tool = concat!("kaleem-", env!("CARGO_PKG_VERSION"));
        let concurrent = i32::try_from(concurrent_collections).unwrap_or(i32::MAX);
        let head = doc! { "concurrent_collections": concurrent, "version": "0.1", "server_version": server_version, "tool_version": tool };
        let collections = collections.into_iter().map(|found| (found, Crc64::xz())).collect();
        let mut writer = Self { output, buffer: MAGIC.to_vec(), collections, open: None, segment_bytes: 0 };
        writer.buffer.extend(bytes(&head)?);
        for (found, _) in &writer.collections {
            let refuse = |error: super::mongo_metadata::MetadataError| SourceError::Unsupported {
                what: found.namespace(),
                reason: error.to_string(),
            };
            let metadata = match found.database.is_empty() {
                // The oplog has none.
                true => String::new(),
                false => found.metadata.to_text(&found.collection, &found.kind).map_err(refuse)?,
            };
            let entry = doc! {
                "db": &found.database, "collection": &found.collection, "metadata": metadata, "size": 0, "type": &found.kind,
            };
            writer.buffer.extend(bytes(&entry)?);
        }
        writer.buffer.extend(TERMINATOR);
        writer.flush_if(0).await?;
        Ok(writer)
    }

    /// Writes a document of the collection with that number in the head.
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn document(&mut self, number: usize, document: &[u8]) -> Result<(), SourceError> {
        if self.open != Some(number) || self.segment_bytes > SEGMENT_BYTES {
            self.begin_segment(number)?;
        }
        if let Some((_, crc)) = self.collections.get_mut(number) {
            crc.add(document);
        }
        self.segment_bytes += document.len();
        self.buffer.extend_from_slice(document);
        self.flush_if(192 * 1024).await
    }

    /// Closes the collection with that number in the head; one without a document has an empty segment.
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn end_collection(&mut self, number: usize) -> Result<(), SourceError> {
        if self.open != Some(number) {
            self.begin_segment(number)?;
        }
        self.buffer.extend(TERMINATOR);
        self.open = None;
        let crc = self.collections.get(number).map(|(_, crc)| crc.value()).unwrap_or_default();
        self.head(number, true, crc.cast_signed())?;
        self.buffer.extend(TERMINATOR);
        self.flush_if(192 * 1024).await
    }

    fn begin_segment(&mut self, number: usize) -> Result<(), SourceError> {
        if self.open.is_some() {
            self.buffer.extend(TERMINATOR);
        }
        self.open = Some(number);
        self.head(number, false, 0)
    }

    /// Passes on what is still held back.
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn finish(mut self) -> Result<(), SourceError> {
        self.flush_if(0).await
    }

    fn head(&mut self, number: usize, last: bool, crc: i64) -> Result<(), SourceError> {
        self.segment_bytes = 0;
        let Some((found, _)) = self.collections.get(number) else { return Ok(()) };
        let head = doc! { "db": &found.database, "collection": &found.collection, "EOF": last, "CRC": crc };
        self.buffer.extend(bytes(&head)?);
        Ok(())
    }

    async fn flush_if(&mut self, longer_than: usize) -> Result<(), SourceError> {
        if self.buffer.len() <= longer_than {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(longer_than + 64 * 1024));
        self.output.send(full).await.map_err(|source| SourceError::Output { source })
    }
}

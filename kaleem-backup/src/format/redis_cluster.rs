//! What is kept of a Redis cluster: a tar of `cluster.json`, one RDB file for each master, and sums.
//!
//! It is read beside the plain RDB file of one server, with the same contents for the same keys. A key that is not in a
//! slot of its master is refused, so none can be there twice; what a dead restore left beside its place is passed over.

mod slots;

use std::collections::BTreeSet;

use kaleem_core::backup::{ByteSender, ByteStream, Contents, SourceError};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt;

use self::slots::SLOTS;
pub(crate) use self::slots::{BESIDE, Tags, place_of, slot};
use super::rdb::{Counted, RdbItem, RdbReader, RdbValues};
use super::tarball::{TarballPart, TarballReader, TarballWriter, pretty};

const FORMAT: &str = "tar of RDB files";
const NUMBER: u32 = 1;
const TOPOLOGY: &str = "cluster.json";
const SUMS: &str = "sums.json";

/// Which master had which slots, in the order of the files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Topology {
    format: u32,
    pub(crate) masters: Vec<Master>,
}

/// A master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Master {
    pub(crate) id: String,
    /// As the cluster announces it.
    pub(crate) address: String,
    /// First and last slot of each range.
    pub(crate) slots: Vec<(u16, u16)>,
}

/// What is known when everything was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sums {
    cluster_sha256: String,
    files: Vec<Sum>,
}

/// An RDB file that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sum {
    file: String,
    size_bytes: u64,
    sha256: String,
}

impl Topology {
    pub(crate) fn new(masters: Vec<Master>) -> Self {
        Self { format: NUMBER, masters }
    }

    /// The number of the master of each slot, or why some slot has not exactly one.
    pub(crate) fn owners(&self) -> Result<Vec<usize>, String> {
        let mut owners: Vec<Option<usize>> = vec![None; usize::from(SLOTS)];
        for (number, master) in self.masters.iter().enumerate() {
            for (first, last) in &master.slots {
                for slot in *first..=*last {
                    match owners.get_mut(usize::from(slot)) {
                        Some(owner @ None) => *owner = Some(number),
                        Some(Some(_)) => return Err(format!("slot {slot} is served twice")),
                        None => return Err(format!("there is no slot {slot}")),
                    }
                }
            }
        }
        let missing = owners.iter().filter(|owner| owner.is_none()).count();
        match owners.iter().position(Option::is_none) {
            None => Ok(owners.into_iter().flatten().collect()),
            Some(first) => Err(format!("{missing} of {SLOTS} slots are served by nobody, slot {first} is the first of them")),
        }
    }
}

fn file(number: usize) -> String {
    format!("{number}.rdb")
}

/// Writes what is kept of a cluster.
pub(crate) struct ClusterWriter<'a> {
    tarball: TarballWriter<'a>,
    cluster_sha256: String,
    files: Vec<Sum>,
}

impl<'a> ClusterWriter<'a> {
    pub(crate) async fn begin(output: &'a mut ByteSender, topology: &Topology) -> Result<Self, SourceError> {
        let mut tarball = TarballWriter::new(output);
        let bytes = pretty(TOPOLOGY, topology)?;
        let cluster_sha256 = hex::encode(Sha256::digest(&bytes));
        tarball.text(TOPOLOGY, bytes).await?;
        Ok(Self { tarball, cluster_sha256, files: Vec::new() })
    }

    /// Begins the next file; exactly its bytes are then to be sent to what is answered.
    pub(crate) async fn file(&mut self, size_bytes: u64) -> Result<&mut ByteSender, SourceError> {
        self.tarball.head(&file(self.files.len()), size_bytes).await?;
        Ok(self.tarball.output())
    }

    /// Closes what [`ClusterWriter::file`] began.
    pub(crate) async fn close(&mut self, size_bytes: u64, sha256: String) -> Result<(), SourceError> {
        self.files.push(Sum { file: file(self.files.len()), size_bytes, sha256 });
        self.tarball.pad().await
    }

    pub(crate) async fn finish(mut self) -> Result<(), SourceError> {
        let sums = Sums { cluster_sha256: self.cluster_sha256, files: self.files };
        self.tarball.text(SUMS, pretty(SUMS, &sums)?).await?;
        self.tarball.finish().await
    }
}

/// Counts what the masters of a cluster hold, as if it were one server.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClusterCounted {
    pub(crate) keys: Counted,
    /// Keys that a dead restore has left beside their places.
    pub(crate) left_over: u64,
    functions: BTreeSet<[u8; 32]>,
}

impl ClusterCounted {
    /// Takes in what a master holds; answers whether it is new and anybody's data.
    pub(crate) fn add(&mut self, item: &RdbItem) -> bool {
        match item {
            RdbItem::Key(key) if place_of(&key.key).is_some() => {
                self.left_over += 1;
                false
            }
            RdbItem::Key(key) => {
                self.keys.key(key, &key.key);
                true
            }
            // Each master has all of them.
            RdbItem::Function(code) if !self.functions.insert(Sha256::digest(code).into()) => false,
            RdbItem::Function(code) => {
                self.keys.function(code);
                true
            }
        }
    }

    pub(crate) fn contents(&self) -> Contents {
        self.keys.contents()
    }
}

/// Why an item cannot be one of the master of that number; `None` if it can.
pub(crate) fn is_elsewhere(item: &RdbItem, owners: &[usize], number: usize) -> Option<String> {
    let RdbItem::Key(key) = item else { return None };
    if key.database != 0 {
        return Some(format!("a key is in database {}, which no cluster has", key.database));
    }
    let slot = slot(&key.key);
    (owners.get(usize::from(slot)) != Some(&number)).then(|| format!("a key is in slot {slot}, which this master does not serve"))
}

/// Reads what is kept of one server or of a cluster, key by key.
pub(crate) struct ArtifactReader {
    state: State,
    values: RdbValues,
    version: u16,
    cluster: ClusterCounted,
    topology: Topology,
    owners: Vec<usize>,
    sums: Sums,
    contents: Contents,
}

enum State {
    Single(RdbReader),
    Between(TarballReader),
    Inside(RdbReader<TarballPart>),
    Over,
}

impl ArtifactReader {
    pub(crate) async fn open(mut input: ByteStream, values: RdbValues) -> Result<Self, SourceError> {
        let mut head = Vec::new();
        (&mut input).take(5).read_to_end(&mut head).await.map_err(|source| SourceError::Input { source })?;
        let is_tarball = TOPOLOGY.as_bytes().starts_with(&head) && head.len() == 5;
        let input: ByteStream = Box::pin(std::io::Cursor::new(head).chain(input));
        let mut reader = Self {
            state: State::Over,
            values,
            version: 0,
            cluster: ClusterCounted::default(),
            topology: Topology::new(Vec::new()),
            owners: Vec::new(),
            sums: Sums { cluster_sha256: String::new(), files: Vec::new() },
            contents: Contents::new(),
        };
        if !is_tarball {
            let single = RdbReader::open(input, values).await?;
            reader.version = single.version();
            reader.state = State::Single(single);
            return Ok(reader);
        }
        let mut tarball = TarballReader::new(input, FORMAT);
        let text = tarball.text(TOPOLOGY).await?;
        reader.sums.cluster_sha256 = hex::encode(Sha256::digest(&text));
        reader.topology = serde_json::from_slice(&text).map_err(|error| tarball.damaged(format!("its {TOPOLOGY}: {error}")))?;
        let number = reader.topology.format;
        if number > NUMBER {
            let reason = format!("it has format {number}, and this kaleem reads up to {NUMBER}");
            return Err(SourceError::Unsupported { what: "the artifact".to_owned(), reason });
        }
        reader.owners = reader.topology.owners().map_err(|reason| tarball.damaged(reason))?;
        reader.state = State::Between(tarball);
        Ok(reader)
    }

    /// Version of the format of what was read, which `RESTORE` wants to know.
    pub(crate) fn version(&self) -> u16 {
        self.version
    }

    /// What was read, once [`ArtifactReader::next`] has answered `None`.
    pub(crate) fn contents(&self) -> Contents {
        self.contents.clone()
    }

    /// The next thing; `None` once everything was read and all sums were right.
    pub(crate) async fn next(&mut self) -> Result<Option<RdbItem>, SourceError> {
        loop {
            match std::mem::replace(&mut self.state, State::Over) {
                State::Over => return Ok(None),
                State::Single(mut single) => {
                    let item = single.next().await?;
                    match &item {
                        Some(_) => self.state = State::Single(single),
                        None => self.contents = single.contents(),
                    }
                    return Ok(item);
                }
                State::Between(mut tarball) => {
                    let number = self.sums.files.len();
                    if number >= self.topology.masters.len() {
                        self.end(tarball).await?;
                        continue;
                    }
                    let size_bytes = tarball.head(&file(number)).await?;
                    let reader = RdbReader::open(TarballPart::new(tarball, size_bytes), self.values).await?;
                    self.version = self.version.max(reader.version());
                    self.state = State::Inside(reader);
                }
                State::Inside(mut reader) => match reader.next().await? {
                    Some(item) => {
                        if let Some(reason) = is_elsewhere(&item, &self.owners, self.sums.files.len()) {
                            return Err(reader.damaged(reason));
                        }
                        self.state = State::Inside(reader);
                        if self.cluster.add(&item) {
                            return Ok(Some(item));
                        }
                    }
                    None => {
                        let (tarball, size_bytes, sha256) = reader.into_input().close().await?;
                        self.sums.files.push(Sum { file: file(self.sums.files.len()), size_bytes, sha256 });
                        self.state = State::Between(tarball);
                    }
                },
            }
        }
    }

    async fn end(&mut self, mut tarball: TarballReader) -> Result<(), SourceError> {
        let text = tarball.text(SUMS).await?;
        // As with the heads: no bit is there that was not written.
        if pretty(SUMS, &self.sums)? != text {
            return Err(tarball.damaged("its sums are not those of what is in it".to_owned()));
        }
        tarball.end().await?;
        self.contents = self.cluster.contents();
        Ok(())
    }
}

/// Reads what is kept of one server or of a cluster to its end, and answers which keys are in it.
///
/// # Errors
/// [`SourceError`] unless it is whole and all its sums are right.
pub async fn verify(input: ByteStream) -> Result<Contents, SourceError> {
    let mut reader = ArtifactReader::open(input, RdbValues::Skip).await?;
    while reader.next().await?.is_some() {}
    Ok(reader.contents())
}

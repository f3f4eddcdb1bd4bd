//! What the tests share: archives, a source in memory, and servers of the test's own.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use kaleem_backup::format;
use kaleem_backup::seal::Protection;
use kaleem_backup::set::CreateRequest;
use kaleem_core::backup::{
    BackupSource, ByteSender, ByteStream, Consistency, Contents, Exported, RestoreMode, SourceError, SourceIdentity, SourceKind,
};
use kaleem_core::clock::Clock;
use tokio::io::AsyncReadExt;

pub(crate) const BAR: &[u8] = include_bytes!("../archives/test.bar.archive");
pub(crate) const OPLOG: &[u8] = include_bytes!("../archives/dump-w-oplog.archive");

pub(crate) fn stream(bytes: &[u8]) -> ByteStream {
    Box::pin(std::io::Cursor::new(bytes.to_vec()))
}

/// Time that stands still.
pub(crate) struct Noon;

#[async_trait]
impl Clock for Noon {
    fn now(&self) -> Timestamp {
        "2026-03-01T12:00:00Z".parse().unwrap()
    }
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

pub(crate) fn request(protection: Protection) -> CreateRequest {
    CreateRequest {
        set: "20260301t120000z-0a0b0c0d".parse().unwrap(),
        project: "shop".parse().unwrap(),
        release: None,
        tags: vec!["nightly".to_owned()],
        not_covered: Vec::new(),
        protection,
        silence: Duration::from_secs(60),
    }
}

/// How a source in memory behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Habit {
    Sound,
    DiesAfter(usize),
    HangsAfter(usize),
    /// Says that there is more than it sends.
    Lies,
}

/// A source of an archive in memory.
pub(crate) struct MemorySource {
    pub(crate) identity: SourceIdentity,
    pub(crate) bytes: Vec<u8>,
    pub(crate) habit: Habit,
    pub(crate) restored: Mutex<Option<Vec<u8>>>,
}

impl MemorySource {
    pub(crate) fn new(name: &str, bytes: &[u8], habit: Habit) -> Arc<Self> {
        let identity = SourceIdentity { name: name.parse().unwrap(), kind: SourceKind::Mongodb };
        Arc::new(Self { identity, bytes: bytes.to_vec(), habit, restored: Mutex::new(None) })
    }
}

#[async_trait]
impl BackupSource for MemorySource {
    fn identity(&self) -> &SourceIdentity {
        &self.identity
    }

    async fn export(&self, out: &mut ByteSender) -> Result<Exported, SourceError> {
        let until = match self.habit {
            Habit::DiesAfter(length) | Habit::HangsAfter(length) => length,
            Habit::Sound | Habit::Lies => self.bytes.len(),
        };
        for piece in self.bytes[..until].chunks(1000) {
            out.send(piece.to_vec()).await.map_err(|source| SourceError::Output { source })?;
        }
        match self.habit {
            Habit::DiesAfter(_) => {
                let source = Box::new(std::io::Error::other("the source died"));
                return Err(SourceError::Failed { store: "memory".to_owned(), doing: "reading".to_owned(), source });
            }
            Habit::HangsAfter(_) => std::future::pending().await,
            Habit::Sound | Habit::Lies => (),
        }
        let mut contents = self.inspect().await?;
        if self.habit == Habit::Lies {
            contents.values_mut().for_each(|content| content.count += 1);
        }
        Ok(Exported { contents, consistency: Consistency::None, notes: vec!["from memory".to_owned()] })
    }

    async fn verify(&self, input: ByteStream) -> Result<Contents, SourceError> {
        format::verify(self.identity.kind, input).await
    }

    async fn restore(&self, mut input: ByteStream, _mode: RestoreMode) -> Result<Contents, SourceError> {
        let mut bytes = Vec::new();
        input.read_to_end(&mut bytes).await.map_err(|source| SourceError::Input { source })?;
        let contents = self.verify(stream(&bytes)).await?;
        *self.restored.lock().unwrap() = Some(bytes);
        Ok(contents)
    }

    async fn inspect(&self) -> Result<Contents, SourceError> {
        self.verify(stream(&self.bytes)).await
    }
}

/// Exports a source to its end.
pub(crate) async fn export_into(source: &dyn BackupSource, mut sender: ByteSender) -> Result<Exported, SourceError> {
    let exported = source.export(&mut sender).await;
    match &exported {
        Ok(_) => sender.finish().await.unwrap(),
        Err(_) => drop(sender),
    }
    exported
}

/// Exports a source into memory.
pub(crate) async fn export(source: &dyn BackupSource) -> Result<(Exported, Vec<u8>), SourceError> {
    let (sender, mut receiver) = kaleem_core::backup::pipe();
    let mut bytes = Vec::new();
    let (exported, read) = tokio::join!(export_into(source, sender), receiver.read_to_end(&mut bytes));
    let exported = exported?;
    read.unwrap();
    Ok((exported, bytes))
}

/// A client that goes straight to where it is sent.
pub(crate) fn web() -> reqwest::Client {
    rustls::crypto::ring::default_provider().install_default().ok();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

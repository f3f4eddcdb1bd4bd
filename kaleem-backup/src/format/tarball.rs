//! A tar of a few files whose names are known beforehand, written and read as a stream.
//!
//! Any tar unpacks it. It is read strictly: no bit of a head, of a padding or of the end is there that was not written.

#[cfg(feature = "redis")]
mod part;

use std::io;

use kaleem_core::backup::{ByteSender, ByteStream, SourceError};
#[cfg(feature = "redis")]
pub(crate) use part::TarballPart;
use serde::Serialize;
use tokio::io::{AsyncReadExt, BufReader};

const BLOCK: usize = 512;
#[cfg(feature = "qdrant")]
const CHUNK_BYTES: u64 = 256 * 1024;
/// The longest text that is read into memory.
const LONGEST_TEXT: u64 = 32 * 1024 * 1024;

/// A value as it stands in a file of its own.
pub(crate) fn pretty(name: &str, value: &impl Serialize) -> Result<Vec<u8>, SourceError> {
    serde_json::to_vec_pretty(value).map_err(|error| SourceError::Unsupported { what: name.to_owned(), reason: error.to_string() })
}

fn header(name: &str, size_bytes: u64) -> io::Result<tar::Header> {
    let mut header = tar::Header::new_gnu();
    header.set_path(name)?;
    header.set_size(size_bytes);
    header.set_mode(0o600);
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    Ok(header)
}

fn padding(size_bytes: u64) -> usize {
    // Below 512, so it fits.
    usize::try_from(size_bytes.next_multiple_of(BLOCK as u64) - size_bytes).unwrap_or(0)
}

/// Writes one.
pub(crate) struct TarballWriter<'a> {
    output: &'a mut ByteSender,
    padding: usize,
}

impl<'a> TarballWriter<'a> {
    pub(crate) fn new(output: &'a mut ByteSender) -> Self {
        Self { output, padding: 0 }
    }

    /// Writes the head of a file of that length; exactly its bytes are then to be sent to [`TarballWriter::output`].
    pub(crate) async fn head(&mut self, name: &str, size_bytes: u64) -> Result<(), SourceError> {
        let failed = |error: io::Error| SourceError::Unsupported { what: name.to_owned(), reason: error.to_string() };
        let header = header(name, size_bytes).map_err(failed)?;
        self.padding = padding(size_bytes);
        self.send(header.as_bytes().to_vec()).await
    }

    pub(crate) fn output(&mut self) -> &mut ByteSender {
        self.output
    }

    /// Closes what [`TarballWriter::head`] began.
    pub(crate) async fn pad(&mut self) -> Result<(), SourceError> {
        self.send(vec![0; self.padding]).await
    }

    /// Writes a whole file.
    pub(crate) async fn text(&mut self, name: &str, bytes: Vec<u8>) -> Result<(), SourceError> {
        self.head(name, bytes.len() as u64).await?;
        self.send(bytes).await?;
        self.pad().await
    }

    pub(crate) async fn finish(mut self) -> Result<(), SourceError> {
        self.send(vec![0; 2 * BLOCK]).await
    }

    async fn send(&mut self, bytes: Vec<u8>) -> Result<(), SourceError> {
        self.output.send(bytes).await.map_err(|source| SourceError::Output { source })
    }
}

/// Reads one.
pub(crate) struct TarballReader {
    input: BufReader<ByteStream>,
    format: &'static str,
    at_bytes: u64,
}

impl TarballReader {
    pub(crate) fn new(input: ByteStream, format: &'static str) -> Self {
        Self { input: BufReader::with_capacity(256 * 1024, input), format, at_bytes: 0 }
    }

    pub(crate) fn damaged(&self, reason: String) -> SourceError {
        SourceError::Malformed { format: self.format, at_bytes: self.at_bytes, reason }
    }

    /// Reads the head of the file `wanted`, and answers how long it is.
    pub(crate) async fn head(&mut self, wanted: &str) -> Result<u64, SourceError> {
        let mut found = tar::Header::new_gnu();
        let mut block = [0; BLOCK];
        self.exactly(&mut block).await?;
        found.as_mut_bytes().copy_from_slice(&block);
        // The same head made anew: so no bit of it is there that was not written.
        let size = found.size().map_err(|error| self.damaged(error.to_string()))?;
        let again = header(wanted, size).map_err(|error| self.damaged(error.to_string()))?;
        if again.as_bytes() != found.as_bytes() {
            return Err(self.damaged(format!("{wanted} does not follow")));
        }
        Ok(size)
    }

    /// The next piece of a file of which `left` bytes are still to come.
    #[cfg(feature = "qdrant")]
    pub(crate) async fn piece(&mut self, left: u64) -> Result<Vec<u8>, SourceError> {
        let mut piece = vec![0; usize::try_from(left.min(CHUNK_BYTES)).unwrap_or(0)];
        let read = self.input.read(&mut piece).await.map_err(|source| SourceError::Input { source })?;
        if read == 0 {
            return Err(self.damaged("it ends inside a file".to_owned()));
        }
        self.at_bytes += read as u64;
        piece.truncate(read);
        Ok(piece)
    }

    /// Closes a file that was read.
    pub(crate) async fn close(&mut self, size_bytes: u64) -> Result<(), SourceError> {
        self.skip(padding(size_bytes)).await
    }

    /// Reads a whole file.
    pub(crate) async fn text(&mut self, name: &str) -> Result<Vec<u8>, SourceError> {
        let size = self.head(name).await?;
        let length = usize::try_from(size).ok().filter(|_| size <= LONGEST_TEXT);
        let length = length.ok_or_else(|| self.damaged(format!("{name} is too long")))?;
        let mut text = vec![0; length];
        self.exactly(&mut text).await?;
        self.close(size).await?;
        Ok(text)
    }

    /// Reads the end.
    pub(crate) async fn end(&mut self) -> Result<(), SourceError> {
        self.skip(2 * BLOCK).await?;
        match self.input.read(&mut [0; 1]).await.map_err(|source| SourceError::Input { source })? {
            0 => Ok(()),
            _ => Err(self.damaged("something follows its end".to_owned())),
        }
    }

    async fn exactly(&mut self, into: &mut [u8]) -> Result<(), SourceError> {
        match self.input.read_exact(into).await {
            Ok(read) => {
                self.at_bytes += read as u64;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(self.damaged(format!("it ends too early: {error}"))),
            Err(source) => Err(SourceError::Input { source }),
        }
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

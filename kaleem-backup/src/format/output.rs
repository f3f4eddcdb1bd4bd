//! What a command wrote: bytes of which nothing is known but how many there are and what their digest is.

use kaleem_core::backup::{ByteStream, Content, Contents, SourceError};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt;

/// Counts and digests bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Output {
    bytes: u64,
    digest: Sha256,
}

impl Output {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.digest.update(bytes);
    }

    pub(crate) fn contents(self) -> Contents {
        Contents::from([("bytes".to_owned(), Content { count: self.bytes, digest: hex::encode(self.digest.finalize()) })])
    }
}

/// Reads bytes to their end, and answers how many they were.
///
/// # Errors
/// [`SourceError::Input`] when they do not end well.
pub async fn verify(mut input: ByteStream) -> Result<Contents, SourceError> {
    let mut output = Output::default();
    let mut chunk = vec![0; 256 * 1024];
    loop {
        match input.read(&mut chunk).await.map_err(|source| SourceError::Input { source })? {
            0 => return Ok(output.contents()),
            read => output.add(chunk.get(..read).unwrap_or_default()),
        }
    }
}

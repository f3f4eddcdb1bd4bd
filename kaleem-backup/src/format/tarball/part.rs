//! One file of a tarball, read by what knows its format.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use kaleem_core::backup::SourceError;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncBufRead, AsyncRead, ReadBuf};

use super::TarballReader;

/// A file of a tarball as a stream of its own; gives the tarball back when it was read to its end.
pub(crate) struct TarballPart {
    tarball: TarballReader,
    size_bytes: u64,
    left: u64,
    digest: Sha256,
}

impl TarballPart {
    /// The file whose head was just read.
    pub(crate) fn new(tarball: TarballReader, size_bytes: u64) -> Self {
        Self { tarball, size_bytes, left: size_bytes, digest: Sha256::new() }
    }

    /// Answers the tarball, and length and SHA-256 of the file.
    pub(crate) async fn close(mut self) -> Result<(TarballReader, u64, String), SourceError> {
        if self.left > 0 {
            return Err(self.tarball.damaged("a file in it goes on behind its end".to_owned()));
        }
        self.tarball.close(self.size_bytes).await?;
        Ok((self.tarball, self.size_bytes, hex::encode(self.digest.finalize())))
    }
}

impl AsyncRead for TarballPart {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let part = self.as_mut().get_mut();
        if part.left == 0 {
            return Poll::Ready(Ok(()));
        }
        let waiting = match Pin::new(&mut part.tarball.input).poll_fill_buf(context)? {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(waiting) => waiting,
        };
        let room = into.remaining().min(usize::try_from(part.left).unwrap_or(usize::MAX));
        let taken = waiting.get(..room).unwrap_or(waiting);
        let read = taken.len();
        part.digest.update(taken);
        into.put_slice(taken);
        Pin::new(&mut part.tarball.input).consume(read);
        part.left -= read as u64;
        part.tarball.at_bytes += read as u64;
        Poll::Ready(Ok(()))
    }
}

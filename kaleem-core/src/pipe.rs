//! A bounded pipe between a writer and a reader that tells an end from a death.
//!
//! A pipe of the operating system ends in the same way whether its writer was done or was killed; a backup made through
//! one is cut short without a word. Here the reader gets an error unless the writer has said that it is done.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;

/// Bytes that are read as they come. An error in place of the end means that the rest is missing.
pub type ByteStream = Pin<Box<dyn AsyncRead + Send>>;

/// Longest piece that is passed on at once.
const PIECE_BYTES: usize = 256 * 1024;
/// How many pieces wait in a pipe.
const PIECES: usize = 8;

enum Piece {
    Bytes(Vec<u8>),
    End,
    Failed(io::Error),
}

/// The end that is written to. Dropped without [`ByteSender::finish`], its reader gets an error.
pub struct ByteSender {
    pieces: mpsc::Sender<Piece>,
}

/// The end that is read from: in async code as [`AsyncRead`], in a blocking thread as [`io::Read`].
pub struct PipeReader {
    pieces: mpsc::Receiver<Piece>,
    current: Vec<u8>,
    taken: usize,
    ended: bool,
}

/// A pipe which holds at most 2 MiB; a writer that is faster than its reader waits.
pub fn pipe() -> (ByteSender, PipeReader) {
    let (sender, receiver) = mpsc::channel(PIECES);
    (ByteSender { pieces: sender }, PipeReader { pieces: receiver, current: Vec::new(), taken: 0, ended: false })
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the reader went away")
}

impl ByteSender {
    /// Passes bytes on, in order; waits while the pipe is full.
    ///
    /// # Errors
    /// `BrokenPipe` when the reader is gone.
    pub async fn send(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        if bytes.len() <= PIECE_BYTES {
            return if bytes.is_empty() { Ok(()) } else { self.pieces.send(Piece::Bytes(bytes)).await.map_err(|_| gone()) };
        }
        for piece in bytes.chunks(PIECE_BYTES) {
            self.pieces.send(Piece::Bytes(piece.to_vec())).await.map_err(|_| gone())?;
        }
        Ok(())
    }

    /// Says that everything was sent.
    ///
    /// # Errors
    /// `BrokenPipe` when the reader is gone.
    pub async fn finish(self) -> io::Result<()> {
        self.pieces.send(Piece::End).await.map_err(|_| gone())
    }

    /// Tells the reader that there is no rest, and why.
    pub async fn fail(self, reason: io::Error) {
        // A reader that is gone need not be told.
        self.pieces.send(Piece::Failed(reason)).await.ok();
    }

    /// [`ByteSender::send`] for a thread that may block.
    ///
    /// # Errors
    /// `BrokenPipe` when the reader is gone.
    pub fn send_blocking(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(PIECE_BYTES) {
            self.pieces.blocking_send(Piece::Bytes(piece.to_vec())).map_err(|_| gone())?;
        }
        Ok(())
    }

    /// [`ByteSender::finish`] for a thread that may block.
    ///
    /// # Errors
    /// `BrokenPipe` when the reader is gone.
    pub fn finish_blocking(self) -> io::Result<()> {
        self.pieces.blocking_send(Piece::End).map_err(|_| gone())
    }

    /// [`ByteSender::fail`] for a thread that may block.
    pub fn fail_blocking(self, reason: io::Error) {
        // A reader that is gone need not be told.
        self.pieces.blocking_send(Piece::Failed(reason)).ok();
    }
}

impl io::Write for ByteSender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send_blocking(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl PipeReader {
    fn accept(&mut self, piece: Option<Piece>) -> io::Result<()> {
        match piece {
            Some(Piece::Bytes(bytes)) => {
                self.current = bytes;
                self.taken = 0;
                Ok(())
            }
            Some(Piece::End) => {
                self.ended = true;
                Ok(())
            }
            Some(Piece::Failed(reason)) => Err(reason),
            None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the writer went away before it was done")),
        }
    }

    fn waiting(&self) -> &[u8] {
        self.current.get(self.taken..).unwrap_or_default()
    }
}

impl io::Read for PipeReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.waiting().is_empty() && !self.ended {
            let piece = self.pieces.blocking_recv();
            self.accept(piece)?;
        }
        let mut waiting = self.waiting();
        let count = waiting.read(into)?;
        self.taken += count;
        Ok(count)
    }
}

impl AsyncRead for PipeReader {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.waiting().is_empty() && !self.ended {
            match self.pieces.poll_recv(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(piece) => self.accept(piece)?,
            }
        }
        let count = self.waiting().len().min(into.remaining());
        into.put_slice(self.waiting().get(..count).unwrap_or_default());
        self.taken += count;
        Poll::Ready(Ok(()))
    }
}

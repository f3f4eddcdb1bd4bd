//! A connection to an instance whose answer is heard even if it stopped listening.
//!
//! An instance may answer before it has read a request, and close. Writing then fails while the answer is already here; giving up
//! on the write would lose it. So what cannot be written is dropped, and reading tells how it ended.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::send::poll_send;

/// A socket on which writing does not fail when the other side is gone.
#[derive(Debug)]
pub(crate) struct Patient(TokioIo<TcpStream>);

impl Patient {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self(TokioIo::new(stream))
    }

    pub(crate) fn into_inner(self) -> TcpStream {
        self.0.into_inner()
    }
}

fn heard(written: Poll<io::Result<usize>>, whole: usize) -> Poll<io::Result<usize>> {
    match written {
        Poll::Ready(Err(error)) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
            Poll::Ready(Ok(whole))
        }
        other => other,
    }
}

impl Read for Patient {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl Write for Patient {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        heard(Pin::new(&mut self.0).poll_write(context, bytes), bytes.len())
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        heard(poll_send(self.0.inner_mut(), context, parts), parts.iter().map(|part| part.len()).sum())
    }
}

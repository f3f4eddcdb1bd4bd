//! Writing a head and what follows it with one call of the cheapest kind.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

/// Up to this many bytes are copied together: `send` of one piece takes the kernel less time than `writev` of two, by more than
/// copying them costs.
const COPIED: usize = 1024;

/// Writes what it can of `parts`.
pub(crate) fn poll_send(stream: &mut TcpStream, context: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
    let mut stream = Pin::new(stream);
    if let [part] = parts {
        return stream.poll_write(context, part);
    }
    let whole: usize = parts.iter().map(|part| part.len()).sum();
    let mut together = [0_u8; COPIED];
    let Some(mut rest) = together.get_mut(..whole) else {
        return stream.poll_write_vectored(context, parts);
    };
    for part in parts {
        let (piece, after) = rest.split_at_mut(part.len());
        piece.copy_from_slice(part);
        rest = after;
    }
    stream.as_mut().poll_write(context, together.get(..whole).unwrap_or_default())
}

//! What a client really sent: the head of each request, byte by byte, beside what the parser made of it.
//!
//! The parser is lenient where the standard lets it be: it drops a `Content-Length` beside a transfer coding, and takes a bare line
//! feed for the end of a line. A proxy in front may have read the same bytes in the other way, and then a client could hide a
//! request in a body. So whatever can be read in two ways is refused here. So is a request of which it cannot be said with certainty
//! where it began: what follows a body that can be read in two ways is never taken for a request.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::{Method, Uri};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::chunk::Chunk;
use super::crowd::Client;
use super::send::poll_send;

/// More than this many unread bytes are not remembered: the parser reads no further ahead either.
const MOST_AHEAD: usize = 1 << 20;
/// A buffer that grew beyond this is given back.
const KEPT_BUFFER: usize = 4 << 10;
/// Why a request is refused whose beginning is not certain.
const UNCERTAIN: &str = "it is not certain where this request begins";
const TRANSFER_ENCODING: &[u8] = b"transfer-encoding";
const CONTENT_LENGTH: &[u8] = b"content-length";

/// The body that the parser expects after a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// That many bytes; 0 for none.
    Bytes(u64),
    /// Chunks.
    Chunks,
}

/// What is still to come of the body of the request that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owed {
    Bytes(u64),
    Chunks(Chunk),
}

const NOTHING: Owed = Owed::Bytes(0);

/// What one connection of a client has said.
#[derive(Debug)]
pub(crate) struct Witness {
    /// Read, and not yet part of a request.
    ahead: Vec<u8>,
    owed: Owed,
    lost: bool,
}

impl Default for Witness {
    fn default() -> Self {
        Self { ahead: Vec::new(), owed: NOTHING, lost: false }
    }
}

impl Witness {
    /// Whether it is unknown where the last head began: the connection must end with the answer.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost
    }

    /// Takes note of what came in.
    pub(crate) fn hear(&mut self, bytes: &[u8]) {
        if self.lost || bytes.is_empty() {
            return;
        }
        match self.owed.pass(bytes) {
            Some(rest) if self.ahead.len() + rest.len() <= MOST_AHEAD => self.ahead.extend_from_slice(rest),
            _ => self.lose(),
        }
    }

    /// Compares the request that the parser found with what was heard.
    ///
    /// # Errors
    ///
    /// With the reason why it can be read in two ways.
    pub(crate) fn testify(&mut self, method: &Method, uri: &Uri, expected: Expected) -> Result<(), &'static str> {
        if self.lost {
            // The answer before it was out already when it was lost, and could not say that it is the last one.
            return Err(UNCERTAIN);
        }
        if self.owed != NOTHING {
            // The parser has moved on without the rest of a body.
            self.lose();
            return Err(UNCERTAIN);
        }
        let blank = self.ahead.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let heard = self.ahead.get(blank..).unwrap_or_default();
        let Some(head) = read_head(heard) else {
            self.lose();
            return Err(UNCERTAIN);
        };
        let same = heard.strip_prefix(method.as_str().as_bytes()).and_then(|rest| rest.strip_prefix(b" "));
        if !same.is_some_and(|rest| uri.authority().is_some() || rest.starts_with(uri.path().as_bytes())) {
            self.lose();
            return Err(UNCERTAIN);
        }
        if head.bare_line_feed {
            return Err("a line that ends without a carriage return");
        }
        if head.length && head.coding {
            return Err("both Content-Length and Transfer-Encoding");
        }
        self.owed = match expected {
            Expected::Bytes(count) => Owed::Bytes(count),
            Expected::Chunks => Owed::Chunks(Chunk::FIRST),
        };
        let end = blank + head.end;
        if end == self.ahead.len() {
            self.ahead.clear();
        } else {
            let rest = self.ahead.split_off(end);
            self.ahead.clear();
            self.hear(&rest);
        }
        if self.ahead.capacity() > KEPT_BUFFER {
            self.ahead.shrink_to(KEPT_BUFFER);
        }
        Ok(())
    }

    fn lose(&mut self) {
        self.lost = true;
        self.ahead = Vec::new();
    }
}

impl Owed {
    /// Takes what belongs to the body; the rest, or `None` when this is no body that the parser would take.
    fn pass<'a>(&mut self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= taken as u64;
                bytes.get(taken..)
            }
            Self::Chunks(chunk) => {
                let mut rest = bytes;
                while let Some((first, after)) = rest.split_first() {
                    if let Chunk::Bytes(left) = chunk {
                        let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                        *left -= taken as u64;
                        rest = rest.get(taken..)?;
                        if *left == 0 {
                            *chunk = Chunk::End { carriage_return: false };
                        }
                        continue;
                    }
                    rest = after;
                    match chunk.step(*first)? {
                        Some(next) => *chunk = next,
                        None => {
                            *self = NOTHING;
                            return Some(rest);
                        }
                    }
                }
                Some(rest)
            }
        }
    }
}

/// What stands in a head.
struct Head {
    /// Its length, with the empty line.
    end: usize,
    bare_line_feed: bool,
    length: bool,
    coding: bool,
}

fn read_head(bytes: &[u8]) -> Option<Head> {
    let mut head = Head { end: 0, bare_line_feed: false, length: false, coding: false };
    let mut rest = bytes;
    loop {
        let feed = rest.iter().position(|byte| *byte == b'\n')?;
        let (line, after) = rest.split_at_checked(feed)?;
        rest = after.get(1..)?;
        head.end += feed + 1;
        let line = match line.split_last() {
            Some((b'\r', line)) => line,
            _ => {
                head.bare_line_feed = true;
                line
            }
        };
        if line.is_empty() {
            return Some(head);
        }
        head.coding |= names(line, TRANSFER_ENCODING);
        head.length |= names(line, CONTENT_LENGTH);
    }
}

fn names(line: &[u8], name: &[u8]) -> bool {
    line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
        && line.get(name.len()).is_some_and(|next| matches!(next, b':' | b' ' | b'\t'))
}

/// A client's connection that is listened to.
pub(crate) struct Heard {
    stream: TcpStream,
    client: Rc<Client>,
}

impl Heard {
    pub(crate) fn new(stream: TcpStream, client: &Rc<Client>) -> Self {
        Self { stream, client: client.clone() }
    }

    pub(crate) fn into_inner(self) -> TcpStream {
        self.stream
    }
}

impl AsyncRead for Heard {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Poll::Ready(Ok(())) = read {
            self.client.witness.borrow_mut().hear(buffer.filled().get(before..).unwrap_or_default());
        }
        read
    }
}

impl AsyncWrite for Heard {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        poll_send(&mut self.stream, context, parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn testify(witness: &mut Witness, method: &Method, path: &'static str, expected: Expected) -> Result<bool, &'static str> {
        witness.testify(method, &Uri::from_static(path), expected).map(|()| witness.is_lost())
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_told_however_it_is_cut() {
        let post = "POST /a HTTP/1.1\r\nHost: b\r\n";
        for (why, fields, ok) in [
            ("plain", "Content-Length: 0\r\n", true),
            ("a coding alone", "Transfer-Encoding: chunked\r\n", true),
            ("a name that only begins so", "Content-Lengthy: 1\r\nTransfer-Encoding: chunked\r\n", true),
            ("coding, then length", "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", false),
            ("length, then coding, in other letters", "content-LENGTH: 0\r\nX: y\r\nTRANSFER-encoding: chunked\r\n", false),
            ("white space before the colon", "Content-Length : 0\r\nTransfer-Encoding: chunked\r\n", false),
            ("a bare line feed", "X: y\nZ: 1\r\n", false),
        ] {
            let text = format!("{post}{fields}\r\n");
            for cut in 0..text.len() {
                let mut witness = Witness::default();
                witness.hear(&text.as_bytes()[..cut]);
                witness.hear(&text.as_bytes()[cut..]);
                let outcome = testify(&mut witness, &Method::POST, "/a", Expected::Bytes(0));
                assert_eq!(outcome.is_ok(), ok, "{why}, cut at {cut}");
                assert_ne!(outcome, Ok(true), "{why}, cut at {cut}");
            }
        }
    }

    #[test]
    fn requests_in_a_row_are_followed_through_bodies_of_both_kinds() {
        let text = "\r\nGET /1 HTTP/1.1\r\n\r\nPOST /2 HTTP/1.1\r\nContent-Length: 5\r\n\r\nhelloPOST /3 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
                    5;x=y\r\nhello\r\nA\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\nGET /4 HTTP/1.1\r\n\r\n";
        for size in [1, 2, 3, 7, 1000] {
            let mut witness = Witness::default();
            let mut pieces = text.as_bytes().chunks(size);
            for (number, (method, path, expected)) in [
                (Method::GET, "/1", Expected::Bytes(0)),
                (Method::POST, "/2", Expected::Bytes(5)),
                (Method::POST, "/3", Expected::Chunks),
                (Method::GET, "/4", Expected::Bytes(0)),
            ]
            .into_iter()
            .enumerate()
            {
                while witness.owed != NOTHING || read_head(witness.ahead.strip_prefix(b"\r\n").unwrap_or(&witness.ahead)).is_none() {
                    witness.hear(pieces.next().unwrap());
                }
                assert_eq!(testify(&mut witness, &method, path, expected), Ok(false), "request {number} in pieces of {size}");
            }
            assert!(witness.ahead.is_empty(), "{size}");
        }
    }

    #[test]
    fn whoever_is_lost_says_so() {
        for (why, text, path, expected) in [
            ("another request", "GET /other HTTP/1.1\r\n\r\n", "/a", Expected::Bytes(0)),
            ("half a head", "GET /a HTTP/1.1\r\nX: y\r\n", "/a", Expected::Bytes(0)),
            ("nothing", "", "/a", Expected::Bytes(0)),
        ] {
            let mut witness = Witness::default();
            witness.hear(text.as_bytes());
            assert_eq!(testify(&mut witness, &Method::GET, path, expected), Err(UNCERTAIN), "{why}");
            assert!(witness.is_lost(), "{why}");
        }
        for (why, body) in [
            ("no size", "\r\nx"),
            ("a size beyond all", "fffffffffffffffff\r\n"),
            ("bytes beyond the size", "1\r\nab\r\n"),
            ("a size that ends with a line feed alone", "1\nx\r\n0\r\n\r\n"),
            ("an extension that does", "1;a\nx\r\n0\r\n\r\n"),
            ("fields that end with a line feed alone", "0\r\nX: 1\r\n\nX: 2\r\n\r\n"),
            ("an extension with a control character", "1;\0a\r\nx\r\n0\r\n\r\n"),
        ] {
            let mut witness = Witness::default();
            witness.hear(format!("POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{body}").as_bytes());
            assert_eq!(testify(&mut witness, &Method::POST, "/a", Expected::Chunks), Ok(true), "{why}");
            witness.hear(b"GET /b HTTP/1.1\r\n\r\n");
            assert_eq!(testify(&mut witness, &Method::GET, "/b", Expected::Bytes(0)), Err(UNCERTAIN), "{why}: nothing behind it is served");
        }
    }
}

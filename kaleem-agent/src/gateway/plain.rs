//! Requests without a body, and their answers, one after the other on one connection.
//!
//! Most requests are of this kind. While the answer comes there is nothing to send, so the task of the client's connection writes and
//! reads by itself: no queue, no copy of the fields, no second state machine stands between the two sockets. What has a body, or leaves
//! HTTP, needs both directions at once, and goes through the HTTP library.

mod fields;
mod request;

use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode, Version};
use hyper::body::{Frame, SizeHint};
use hyper::ext::ReasonPhrase;
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;

use super::chunk::Chunk;
use fields::{length, read_trailers};
pub(crate) use request::PlainRequest;
use request::write_field;

/// Room for a first read; one that was filled grows up to the greatest.
const LEAST_ROOM: usize = 8 << 10;
/// More room than is still to come: a read that leaves some free tells that the socket is empty, without another that would find nothing.
const SPARE_ROOM: usize = 64;
/// Bytes that are read ahead at most, and of a head.
const GREATEST_ROOM: usize = 64 << 10;
/// Fields of a head, as many as the HTTP library takes.
const MOST_FIELDS: usize = 100;
/// Bytes of sizes, extensions and fields around the bytes of a body in chunks, between two of its chunks.
const MOST_AROUND: usize = 16 << 10;

/// What is still to come of an answer.
#[derive(Debug)]
enum Owed {
    Nothing,
    Bytes(u64),
    Chunks { at: Chunk, around: usize, trailers: Vec<u8> },
    UntilClosed,
}

/// One connection to an instance.
#[derive(Debug)]
pub(crate) struct Plain {
    stream: TcpStream,
    /// The request, and how much of it is sent.
    out: Vec<u8>,
    sent: usize,
    /// Read, and not yet part of an answer.
    ahead: BytesMut,
    room: usize,
    /// Fields of the head that is read, and where their values lie in it: kept, so that a head needs no memory of its own.
    places: Vec<(HeaderName, Range<usize>)>,
    /// Whether the request is one whose answer has no body, whatever its head says.
    head_only: bool,
    owed: Owed,
    /// Whether the instance will take another request when this one is answered.
    keeps: bool,
}

fn wrong(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed before the end of the answer")
}

impl Plain {
    /// A connection on which nothing was sent yet.
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            out: Vec::new(),
            sent: 0,
            ahead: BytesMut::new(),
            room: LEAST_ROOM,
            places: Vec::new(),
            head_only: false,
            owed: Owed::Nothing,
            keeps: true,
        }
    }

    /// Whether the answer is over and another request may be sent. What is closed, or says something without being asked, is not.
    pub(crate) fn is_idle(&self) -> bool {
        self.keeps
            && matches!(self.owed, Owed::Nothing)
            && self.sent == self.out.len()
            && self.ahead.is_empty()
            && self.stream.try_read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Gives back what a long answer took.
    pub(crate) fn rest(&mut self) {
        if self.room > LEAST_ROOM {
            self.room = LEAST_ROOM;
            self.ahead = BytesMut::new();
        }
    }

    /// Puts a request on the connection; it is sent by [`Plain::poll_head`]. `host` is for one that names none.
    pub(crate) fn ask(&mut self, request: &PlainRequest, host: Option<&HeaderValue>) {
        let (line, fields) = request.bytes.split_at_checked(request.line).unwrap_or((&request.bytes, &[]));
        self.out.clear();
        self.out.extend_from_slice(line);
        if let Some(host) = host {
            write_field(&mut self.out, &header::HOST, host);
        }
        self.out.extend_from_slice(fields);
        self.sent = 0;
        self.head_only = request.head_only;
        self.owed = Owed::Nothing;
    }

    /// Sends what is to be sent, and waits for the head of the answer.
    ///
    /// # Errors
    ///
    /// When the connection breaks or is closed, or what comes is no answer. The connection is of no use then.
    pub(crate) fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Response<()>>> {
        while let Some(rest) = self.out.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.stream).poll_write(context, rest)) {
                Ok(written) => self.sent += written,
                // It may have answered before it closed.
                Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                    self.sent = self.out.len();
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        loop {
            while let Some(response) = self.take_head()? {
                let passing = response.status().is_informational() && response.status() != StatusCode::SWITCHING_PROTOCOLS;
                if !passing {
                    return Poll::Ready(self.begin_body(response));
                }
            }
            if self.ahead.len() >= GREATEST_ROOM {
                return Poll::Ready(Err(wrong("the head of the answer is too long")));
            }
            if ready!(self.poll_fill(context))? == 0 {
                return Poll::Ready(Err(cut()));
            }
        }
    }

    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if let Owed::Bytes(left) = self.owed {
            // All that is still to come, with one read.
            self.room = usize::try_from(left).unwrap_or(usize::MAX).saturating_add(SPARE_ROOM).clamp(self.room, GREATEST_ROOM);
        }
        self.ahead.reserve(self.room);
        let read = ready!(pin!(self.stream.read_buf(&mut self.ahead)).poll(context))?;
        if read >= self.room {
            self.room = (self.room * 2).min(GREATEST_ROOM);
        }
        Poll::Ready(Ok(read))
    }

    /// The head that was read, if it is there as a whole.
    fn take_head(&mut self) -> io::Result<Option<Response<()>>> {
        if self.ahead.is_empty() {
            return Ok(None);
        }
        let mut response = Response::new(());
        let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
        let mut parsed = httparse::Response::new(&mut []);
        let parser = httparse::ParserConfig::default();
        let end = match parser.parse_response_with_uninit_headers(&mut parsed, &self.ahead, &mut fields) {
            Ok(httparse::Status::Complete(end)) => end,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(wrong("what came is no answer")),
        };
        *response.version_mut() = if parsed.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
        let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
        *response.status_mut() = status.ok_or_else(|| wrong("the answer has no status"))?;
        if let Some(reason) = parsed.reason.filter(|reason| !reason.is_empty() && response.status().canonical_reason() != Some(*reason))
            && let Ok(reason) = ReasonPhrase::try_from(reason.as_bytes())
        {
            response.extensions_mut().insert(reason);
        }
        // Values are cut out of what was read, and not copied.
        let begin = self.ahead.as_ptr().addr();
        self.places.clear();
        for field in parsed.headers.iter() {
            let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| wrong("the answer has a field without a name"))?;
            let from = field.value.as_ptr().addr().saturating_sub(begin);
            self.places.push((name, from..from + field.value.len()));
        }
        let head = self.ahead.split_to(end).freeze();
        let headers = response.headers_mut();
        headers.reserve(self.places.len());
        for (name, place) in self.places.drain(..) {
            let value = if place.is_empty() { Bytes::new() } else { head.slice(place) };
            headers.append(name, HeaderValue::from_maybe_shared(value).map_err(|_| wrong("the answer has a field that cannot be read"))?);
        }
        Ok(Some(response))
    }

    /// Finds out how long the body is.
    fn begin_body(&mut self, mut response: Response<()>) -> io::Result<Response<()>> {
        let (status, version) = (response.status(), response.version());
        let headers = response.headers_mut();
        let says = |word: &[u8]| {
            let values = headers.get_all(header::CONNECTION).iter();
            values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).any(|token| token.trim_ascii().eq_ignore_ascii_case(word))
        };
        self.keeps = self.keeps && if version == Version::HTTP_11 { !says(b"close") } else { says(b"keep-alive") };
        let coding = headers.get_all(header::TRANSFER_ENCODING).iter().next_back();
        self.owed = if self.head_only || status.is_informational() || [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status) {
            Owed::Nothing
        } else if let Some(coding) = coding {
            if version == Version::HTTP_10 {
                return Err(wrong("an answer of HTTP/1.0 has a transfer coding"));
            }
            let last = coding.as_bytes().rsplit(|byte| *byte == b',').next().unwrap_or_default();
            let chunked = last.trim_ascii().eq_ignore_ascii_case(b"chunked");
            // A length beside a coding means nothing, and must not be passed on.
            headers.remove(header::CONTENT_LENGTH);
            if chunked { Owed::Chunks { at: Chunk::FIRST, around: 0, trailers: Vec::new() } } else { Owed::UntilClosed }
        } else {
            match length(headers)? {
                Some(0) => Owed::Nothing,
                Some(length) => Owed::Bytes(length),
                None => Owed::UntilClosed,
            }
        };
        Ok(response)
    }

    /// Whether all of the answer was given.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.owed, Owed::Nothing)
    }

    /// How much is still to come, where that is known.
    pub(crate) fn size_hint(&self) -> SizeHint {
        match self.owed {
            Owed::Nothing => SizeHint::with_exact(0),
            Owed::Bytes(left) => SizeHint::with_exact(left),
            Owed::Chunks { .. } | Owed::UntilClosed => SizeHint::new(),
        }
    }

    /// The next piece of the body.
    ///
    /// # Errors
    ///
    /// When the connection breaks, or is closed too early, or chunks are not right. The connection is of no use then.
    pub(crate) fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            if matches!(self.owed, Owed::Nothing) {
                return Poll::Ready(None);
            }
            if !self.ahead.is_empty() {
                match self.take_frame() {
                    Ok(None) => continue,
                    Ok(Some(frame)) => return Poll::Ready(Some(Ok(frame))),
                    Err(error) => return Poll::Ready(Some(Err(self.broken(error)))),
                }
            }
            match ready!(self.poll_fill(context)) {
                Ok(0) if matches!(self.owed, Owed::UntilClosed) => {
                    self.keeps = false;
                    self.owed = Owed::Nothing;
                }
                Ok(0) => return Poll::Ready(Some(Err(self.broken(cut())))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(self.broken(error)))),
            }
        }
    }

    fn broken(&mut self, error: io::Error) -> io::Error {
        self.keeps = false;
        error
    }

    /// The next piece of what was read; `None` when all of it was bytes around the body.
    fn take_frame(&mut self) -> io::Result<Option<Frame<Bytes>>> {
        match &mut self.owed {
            Owed::Nothing => Ok(None),
            Owed::UntilClosed => Ok(Some(Frame::data(self.ahead.split().freeze()))),
            Owed::Bytes(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(self.ahead.len());
                *left -= taken as u64;
                if *left == 0 {
                    self.owed = Owed::Nothing;
                }
                Ok(Some(Frame::data(self.ahead.split_to(taken).freeze())))
            }
            Owed::Chunks { at, around, trailers } => {
                while let Some(byte) = self.ahead.first().copied() {
                    if let Chunk::Bytes(left) = at {
                        let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(self.ahead.len());
                        *left -= taken as u64;
                        if *left == 0 {
                            *at = Chunk::End { carriage_return: false };
                        }
                        *around = 0;
                        return Ok(Some(Frame::data(self.ahead.split_to(taken).freeze())));
                    }
                    self.ahead.advance(1);
                    *around += 1;
                    if *around > MOST_AROUND {
                        return Err(wrong("too much stands between two chunks"));
                    }
                    if matches!(at, Chunk::Trailer { .. }) {
                        trailers.push(byte);
                    }
                    match at.step(byte).ok_or_else(|| wrong("the chunks cannot be read in one way alone"))? {
                        Some(next) => *at = next,
                        None => {
                            let fields = read_trailers(trailers)?;
                            self.owed = Owed::Nothing;
                            return Ok(fields.map(Frame::trailers));
                        }
                    }
                }
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests;

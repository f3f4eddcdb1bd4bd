//! A request without a body.

use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Uri};

/// Room for a request of a usual length, in bytes.
const USUAL_REQUEST: usize = 512;

/// A request without a body, as it goes over the wire. It refers to nothing that was read, whose memory is free for what comes next.
#[derive(Debug)]
pub(crate) struct PlainRequest {
    pub(super) bytes: Vec<u8>,
    /// Where its first line ends.
    pub(super) line: usize,
    names_host: bool,
    pub(super) head_only: bool,
}

impl PlainRequest {
    /// Writes its first line. Its fields follow.
    pub(crate) fn begin(method: &Method, uri: &Uri) -> Self {
        let mut bytes = Vec::with_capacity(USUAL_REQUEST);
        bytes.extend_from_slice(method.as_str().as_bytes());
        bytes.push(b' ');
        bytes.extend_from_slice(uri.path_and_query().map_or("/", |target| target.as_str()).as_bytes());
        bytes.extend_from_slice(b" HTTP/1.1\r\n");
        Self { line: bytes.len(), bytes, names_host: false, head_only: *method == Method::HEAD }
    }

    /// Writes a field.
    pub(crate) fn add(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.names_host |= *name == header::HOST;
        write_field(&mut self.bytes, name, value);
    }

    /// Writes the empty line.
    pub(crate) fn end(mut self) -> Self {
        self.bytes.extend_from_slice(b"\r\n");
        self
    }

    /// Whether it says whom it is for.
    pub(crate) fn names_host(&self) -> bool {
        self.names_host
    }
}

/// Writes one field.
pub(super) fn write_field(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

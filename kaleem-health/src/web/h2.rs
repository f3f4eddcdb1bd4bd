//! One request over HTTP/2, driven by the caller's own future: what the protocol would run beside it is polled here, so
//! that dropping the future closes the connection and no task is left.

use std::error::Error as _;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::HeaderMap;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use kaleem_core::clock::{Clock, SystemClock};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::client::{FetchError, LONGEST_BODY_BYTES};
use crate::dial::Wire;

const LONGEST_HEAD_BYTES: u32 = 64 * 1024;

/// What ALPN calls it.
pub(crate) const ALPN: &[u8] = b"h2";

type Side = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Hands what is to run beside a request to the one who waits for its answer.
#[derive(Clone)]
struct Inline(UnboundedSender<Side>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Inline {
    fn execute(&self, future: F) {
        // Nobody waits any more: there is nothing to be driven.
        drop(self.0.send(Box::pin(future)));
    }
}

/// An answer with its trailers, which gRPC needs.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// The first MiB.
    pub(crate) body: Vec<u8>,
    /// Whether the stream ended before the body did.
    pub(crate) is_cut: bool,
    pub(crate) trailers: HeaderMap,
    pub(crate) first_byte: Duration,
}

/// Sends one request; the caller bounds the time.
pub(crate) async fn exchange(wire: Box<dyn Wire>, request: hyper::Request<Full<Bytes>>) -> Result<Answer, FetchError> {
    let sent = SystemClock.monotonic();
    let (send, mut made) = unbounded_channel::<Side>();
    let mut builder = hyper::client::conn::http2::Builder::new(Inline(send));
    builder.max_header_list_size(LONGEST_HEAD_BYTES);
    let (mut sender, connection) = builder.handshake(TokioIo::new(wire)).await.map_err(|error| failed(&error))?;
    let talk = async {
        let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
        let first_byte = SystemClock.monotonic().saturating_sub(sent);
        let (head, body) = response.into_parts();
        let (body, trailers, is_cut) = read(body).await;
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body, is_cut, trailers, first_byte })
    };
    let mut talk = std::pin::pin!(talk);
    let mut connection = std::pin::pin!(connection);
    let mut side = FuturesUnordered::new();
    let mut is_over = false;
    loop {
        tokio::select! {
            answer = &mut talk => return answer,
            _ = &mut connection, if !is_over => is_over = true,
            Some(task) = made.recv() => side.push(task),
            Some(()) = side.next(), if !side.is_empty() => {}
        }
    }
}

async fn read(mut body: Incoming) -> (Vec<u8>, HeaderMap, bool) {
    let (mut bytes, mut trailers) = (Vec::new(), HeaderMap::new());
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return (bytes, trailers, true) };
        match frame.into_data() {
            Ok(chunk) => {
                let room = LONGEST_BODY_BYTES.saturating_sub(bytes.len());
                bytes.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
                if chunk.len() > room {
                    break;
                }
            }
            Err(frame) => trailers.extend(frame.into_trailers().unwrap_or_default()),
        }
    }
    (bytes, trailers, false)
}

/// A connection that ended says nothing; an answer in another protocol says which it is not.
fn failed(error: &hyper::Error) -> FetchError {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if inner.downcast_ref::<std::io::Error>().is_some() {
            return FetchError::Closed;
        }
        cause = inner.source();
    }
    let said = error.source().map_or_else(String::new, ToString::to_string);
    // The library keeps the kind of its errors to itself; its own words are the only sign.
    if error.is_closed() || error.is_canceled() || said.contains("broken pipe") || said.contains("connection reset") {
        FetchError::Closed
    } else {
        FetchError::NotHttp2
    }
}

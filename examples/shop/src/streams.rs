//! Bodies that are not texts: as long as was asked for, as they came in, or without an end of their own.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, TRAILER};
use hyper::{Request, Response};
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior};

use crate::stop;

/// What every answer of the shop is sent as.
pub(crate) type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// Longest body of `/bytes`.
const LONGEST_BYTES: u64 = 1 << 30;
/// Bytes repeat after this many, a prime: a piece that is lost, doubled or moved shows.
const PERIOD: u8 = 251;
/// Pieces of `/bytes`: a multiple of the period, so that each begins anew.
const PIECE: usize = 251 * 256;

/// A body that cannot fail.
pub(crate) fn boxed<B>(body: B) -> Body
where
    B: hyper::body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    body.map_err(|never| match never {}).boxed_unsync()
}

/// The value of `name` in a query.
pub(crate) fn parameter<'a>(query: Option<&'a str>, name: &str) -> Option<&'a str> {
    query?.split('&').find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
}

/// The request's own body, with its length or in chunks as it came, and with its trailers.
pub(crate) fn echo(request: Request<Incoming>) -> Response<Body> {
    let trailer = request.headers().get(TRAILER).cloned();
    let mut response = Response::new(request.into_body().boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    if let Some(names) = trailer {
        response.headers_mut().insert(TRAILER, names);
    }
    response
}

/// `n` bytes; with `chunked=1` their number is not said before.
pub(crate) fn bytes(query: Option<&str>) -> Response<Body> {
    let left = parameter(query, "n").and_then(|text| text.parse().ok()).unwrap_or(1024).min(LONGEST_BYTES);
    let piece: Vec<u8> = (0..PERIOD).cycle().take(PIECE).collect();
    let body = Pattern { piece: Bytes::from(piece), left, says_length: parameter(query, "chunked").is_none() };
    let mut response = Response::new(boxed(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    response
}

/// Numbered events, one every `ms` milliseconds, until the client leaves or the process is to stop.
pub(crate) fn events(query: Option<&str>, stopped: watch::Receiver<bool>) -> Response<Body> {
    let pause = parameter(query, "ms").and_then(|text| text.parse().ok()).unwrap_or(1000).max(1);
    let mut ticks = tokio::time::interval(Duration::from_millis(pause));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stop = Box::pin(async move {
        let mut stopped = stopped;
        stop::wait(&mut stopped).await;
    });
    let mut response = Response::new(boxed(Events { ticks, next: 0, stop }));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // A proxy in front that collects answers would keep events to itself.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

struct Pattern {
    piece: Bytes,
    left: u64,
    says_length: bool,
}

impl hyper::body::Body for Pattern {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(self.piece.len());
        if length == 0 {
            return Poll::Ready(None);
        }
        self.left -= length as u64;
        Poll::Ready(Some(Ok(Frame::data(self.piece.slice(..length)))))
    }

    fn size_hint(&self) -> SizeHint {
        if self.says_length { SizeHint::with_exact(self.left) } else { SizeHint::default() }
    }
}

struct Events {
    ticks: Interval,
    next: u64,
    stop: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl hyper::body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.stop.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        std::task::ready!(self.ticks.poll_tick(context));
        let event = format!("id: {0}\ndata: {0}\n\n", self.next);
        self.next += 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(event)))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_found_by_its_whole_name() {
        let query = Some("ms=5&n=7&nn=9&chunked=");
        for (name, value) in [("n", Some("7")), ("ms", Some("5")), ("m", None), ("chunked", Some("")), ("x", None)] {
            assert_eq!(parameter(query, name), value, "{name}");
        }
        assert_eq!(parameter(None, "n"), None);
    }
}

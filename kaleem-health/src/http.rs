//! Does it answer an HTTP GET?
//!
//! The connection is driven by the probe's own future, not by a task: when the probe ends, or is dropped, the socket
//! is closed. Redirects are answers, and not followed.

use std::error::Error as _;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use hyper_util::rt::TokioIo;
use kaleem_core::clock::{Clock, SystemClock};
use kaleem_core::health::{Finding, ProbeTarget, Verdict};

use crate::address::{Reached, connect};

/// How much of a body is read. Health answers are small; a flood must not cost memory.
const LONGEST_BODY_BYTES: usize = 1024 * 1024;
/// How large a head may be.
const LONGEST_HEAD_BYTES: usize = 64 * 1024;

/// What is asked, and what is right.
pub(crate) struct Request<'a> {
    /// Port inside the container.
    pub port: u16,
    /// Path and query.
    pub path: &'a str,
    /// First and last status that is right.
    pub statuses: (u16, u16),
    /// Host header; `None` is the address.
    pub host: Option<&'a str>,
}

/// Sends the request and judges the answer.
pub(crate) async fn ask(request: &Request<'_>, contains: Option<&str>, target: &ProbeTarget, timeout: Duration) -> Finding {
    let start = SystemClock.monotonic();
    let finding = match tokio::time::timeout(timeout, attempt(request, contains, target, timeout)).await {
        Ok(finding) => finding,
        Err(_) => {
            Finding::new(Verdict::Fail, format!("no complete answer from {} within {timeout:?}", what(request))).with_remedy(format!(
                "see what `{0}` waits for (`docker logs {1}`), or raise `timeout` under [services.{0}.health]",
                target.service, target.container
            ))
        }
    };
    finding.with_phase("total", SystemClock.monotonic().saturating_sub(start))
}

async fn attempt(request: &Request<'_>, contains: Option<&str>, target: &ProbeTarget, timeout: Duration) -> Finding {
    #[cfg(feature = "container")]
    if let Some(finding) = crate::container::not_running(target) {
        return finding;
    }
    let head = match request_head(request) {
        Ok(head) => head,
        Err(finding) => return finding,
    };
    let reached = match connect(target, request.port, timeout).await {
        Ok(reached) => reached,
        Err(finding) => return finding,
    };
    let took = reached.took;
    exchange(head, reached, request, contains, target).await.with_phase("connect", took)
}

async fn exchange(
    mut head: hyper::Request<Empty<Bytes>>,
    Reached { stream, place, .. }: Reached,
    request: &Request<'_>,
    contains: Option<&str>,
    target: &ProbeTarget,
) -> Finding {
    let sent = SystemClock.monotonic();
    if !head.headers().contains_key(HOST)
        && let Ok(value) = place.to_string().parse()
    {
        head.headers_mut().insert(HOST, value);
    }
    let handshake = hyper::client::conn::http1::Builder::new().max_buf_size(LONGEST_HEAD_BYTES).handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = match handshake {
        Ok(both) => both,
        Err(error) => return broken(place, request, target, &error),
    };
    let talk = async {
        match sender.send_request(head).await {
            Ok(response) => {
                let first_byte = SystemClock.monotonic().saturating_sub(sent);
                Ok(judge(response, place, request, contains, target).await.with_phase("first-byte", first_byte))
            }
            Err(error) => Err(error),
        }
    };
    let mut talk = std::pin::pin!(talk);
    let mut connection = std::pin::pin!(connection);
    let told = tokio::select! {
        told = &mut talk => match told {
            Err(error) => match connection.await {
                Err(why) if is_not_http(&why) => Err(why),
                _ => Err(error),
            },
            told => told,
        },
        // The connection may end with the last byte of the body; what was received is still to be judged.
        ended = &mut connection => match (talk.await, ended) {
            // The connection knows why there is no answer; the request only knows that there is none.
            (Err(_), Err(why)) if is_not_http(&why) => Err(why),
            (told, _) => told,
        },
    };
    told.unwrap_or_else(|error| broken(place, request, target, &error))
}

async fn judge(
    response: hyper::Response<Incoming>,
    place: std::net::SocketAddr,
    request: &Request<'_>,
    contains: Option<&str>,
    target: &ProbeTarget,
) -> Finding {
    let status = response.status().as_u16();
    let url = format!("http://{place}{}", shown_path(request.path));
    let (first, last) = request.statuses;
    let look = format!("see what it says: `curl -i {url}`, `docker logs {}`", target.container);
    if status < first || status > last {
        let right = if first == last { format!("{first}") } else { format!("{first} to {last}") };
        return Finding::new(Verdict::Fail, format!("{url} answered {status}, and {right} is right")).with_remedy(look);
    }
    let (body, end) = read_body(response.into_body()).await;
    if matches!(end, BodyEnd::Broken) {
        return Finding::new(Verdict::Fail, format!("{url} answered {status} and broke off after {} bytes", body.len())).with_remedy(look);
    }
    let Some(wanted) = contains else {
        return Finding::new(Verdict::Ok, format!("{url} answered {status}"));
    };
    if find(&body, wanted.as_bytes()) {
        return Finding::new(Verdict::Ok, format!("{url} answered {status} with the text that was asked for"));
    }
    let part = if matches!(end, BodyEnd::TooLong) { "the first MiB of the answer does" } else { "the answer does" };
    Finding::new(Verdict::Fail, format!("{url} answered {status}, and {part} not hold the text that `contains` asks for")).with_remedy(look)
}

enum BodyEnd {
    Complete,
    TooLong,
    Broken,
}

async fn read_body(mut body: Incoming) -> (Vec<u8>, BodyEnd) {
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return (read, BodyEnd::Broken) };
        let Ok(chunk) = frame.into_data() else { continue };
        let room = LONGEST_BODY_BYTES.saturating_sub(read.len());
        read.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
        if chunk.len() > room {
            return (read, BodyEnd::TooLong);
        }
    }
    (read, BodyEnd::Complete)
}

fn find(body: &[u8], wanted: &[u8]) -> bool {
    wanted.is_empty() || body.windows(wanted.len()).any(|window| window == wanted)
}

fn request_head(request: &Request<'_>) -> Result<hyper::Request<Empty<Bytes>>, Finding> {
    let mut builder = hyper::Request::get(request.path)
        .header(USER_AGENT, concat!("kaleem/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "*/*")
        .header(CONNECTION, "close");
    if let Some(host) = request.host {
        builder = builder.header(HOST, host);
    }
    builder.body(Empty::new()).map_err(|error| {
        Finding::new(Verdict::Unknown, format!("{} cannot be asked: {error}", what(request)))
            .with_remedy("write the path as it stands in an address, starting with `/`")
    })
}

fn broken(place: std::net::SocketAddr, request: &Request<'_>, target: &ProbeTarget, error: &hyper::Error) -> Finding {
    let url = format!("http://{place}{}", shown_path(request.path));
    let (reason, remedy) = if is_not_http(error) {
        (
            format!("{place} answered something that is not HTTP"),
            format!("check that port {} of `{}` is its HTTP port, without TLS", request.port, target.service),
        )
    } else {
        (format!("{url} closed the connection without an answer"), format!("see why: `docker logs {}`", target.container))
    };
    Finding::new(Verdict::Fail, reason).with_remedy(remedy)
}

/// Whether the other side sent something else than an answer, or sent before it was asked. When it did that before the request had
/// left its queue, the request is only told that it was given up, and that because of what came.
pub(crate) fn is_not_http(error: &hyper::Error) -> bool {
    let cause = || error.source().and_then(|source| source.downcast_ref::<hyper::Error>());
    error.is_parse() || error.to_string().contains("unexpected message") || error.is_canceled() && cause().is_some_and(is_not_http)
}

fn what(request: &Request<'_>) -> String {
    format!("port {}{}", request.port, shown_path(request.path))
}

/// A query may hold a token.
fn shown_path(path: &str) -> String {
    path.split_once('?').map_or_else(|| path.to_owned(), |(path, _)| format!("{path}?…"))
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn what_speaks_before_a_request_has_left_its_queue_is_no_http() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(ours)).await.unwrap();
        let mut asked = std::pin::pin!(sender.send_request(hyper::Request::new(Empty::<Bytes>::new())));
        assert!(poll_fn(|context| Poll::Ready(asked.as_mut().poll(context).is_pending())).await);
        theirs.write_all(b"220 mail.example ESMTP\r\n").await.unwrap();
        connection.await.ok();
        let error = asked.await.unwrap_err();
        assert!(is_not_http(&error), "{error:?}");
    }
}

//! The gRPC port of Qdrant, which most of its clients use: `HealthCheck` and the list of collections.
//!
//! Two calls with empty messages, over the HTTP/2 that the other probes speak. The official client resolves names by
//! itself, takes no certificate authority and runs tasks beside the caller, all of which a probe must not.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use url::Url;

use crate::report::{Report, word};
use crate::settings::QdrantSettings;
use crate::web::client::{Client, FetchError, shown};
use crate::web::h2::Answer;

const HEALTH: &str = "/qdrant.Qdrant/HealthCheck";
const COLLECTIONS: &str = "/qdrant.Collections/List";
/// A message without fields: not compressed, no bytes.
const EMPTY: &[u8] = &[0, 0, 0, 0, 0];

/// Codes of gRPC.
const OK: &str = "0";
const DENIED: &str = "7";
const UNAUTHENTICATED: &str = "16";

/// Asks both questions; says in `report` what is wrong, and gives the version where it was told.
pub(super) async fn ask(report: &mut Report, url: &Url, client: &Client, settings: &QdrantSettings, timeout: Duration) -> Option<String> {
    let place = shown(url);
    let health = match call(url, HEALTH, client, settings, timeout).await {
        Ok(answer) => answer,
        Err(error) => {
            report.take("over gRPC", error.finding(url));
            return None;
        }
    };
    let message = judged(report, &place, &health)?;
    let Some(version) = texts(&message, 2).next() else {
        report.fail(format!("{place} did not answer as the gRPC port of Qdrant does"), "check the port (6334)");
        return None;
    };
    match call(url, COLLECTIONS, client, settings, timeout).await {
        Ok(answer) => {
            let message = judged(report, &place, &answer)?;
            let names: Vec<String> = fields(&message, 1).filter_map(|one| texts(one, 1).next()).collect();
            for missing in settings.collections.iter().filter(|wanted| !names.contains(wanted)) {
                report
                    .fail(format!("the collection `{}` is not there over gRPC", word(missing)), "create it, or restore it from a snapshot");
            }
        }
        Err(error) => report.take("over gRPC", error.finding(url)),
    }
    Some(version)
}

async fn call(url: &Url, path: &str, client: &Client, settings: &QdrantSettings, timeout: Duration) -> Result<Answer, FetchError> {
    let mut place = url.clone();
    place.set_path(path);
    let mut builder = hyper::Request::post(place.as_str()).header("content-type", "application/grpc").header("te", "trailers");
    if let Some(key) = &settings.api_key {
        builder = builder.header("api-key", key.expose().as_str());
    }
    let request = builder.body(Full::new(Bytes::from_static(EMPTY))).map_err(|_| FetchError::Request)?;
    client.exchange(&place, request, timeout).await.map(|(answer, _)| answer)
}

/// The message of an answer that is well.
fn judged(report: &mut Report, place: &str, answer: &Answer) -> Option<Vec<u8>> {
    let is_grpc = answer.headers.get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    // An answer without a message has its status in the head.
    let status = answer.trailers.get("grpc-status").or_else(|| answer.headers.get("grpc-status"));
    match status.and_then(|status| status.to_str().ok()).filter(|_| is_grpc && answer.status == 200) {
        Some(OK) => {}
        Some(DENIED | UNAUTHENTICATED) => {
            report.unknown(
                format!("{place} does not accept the API key, or none is given"),
                "give the key of `QDRANT__SERVICE__API_KEY`, or better the one of `QDRANT__SERVICE__READ_ONLY_API_KEY`",
            );
            return None;
        }
        Some(other) => {
            report.fail(format!("{place} answered with the gRPC status {}", word(other)), "see the log of Qdrant");
            return None;
        }
        None => {
            report.fail(format!("{place} does not speak gRPC"), "check that this is the gRPC port of Qdrant (6334)");
            return None;
        }
    }
    // One byte says whether it is compressed, which nobody was asked for; four are its length.
    let message = answer.body.get(5..).filter(|_| answer.body.first() == Some(&0) && !answer.is_cut);
    if message.is_none() {
        report.fail(format!("{place} broke off in its answer"), "see the log of Qdrant");
    }
    message.map(<[u8]>::to_vec)
}

/// The fields of a message of protocol buffers which hold bytes, texts or messages, by number.
fn fields(message: &[u8], wanted: u64) -> impl Iterator<Item = &[u8]> {
    let mut rest = message;
    std::iter::from_fn(move || {
        loop {
            let (key, after) = number(rest)?;
            let (value, after) = match key & 7 {
                0 => (None, number(after)?.1),
                1 => (None, after.get(8..)?),
                2 => {
                    let (length, after) = number(after)?;
                    let (value, after) = after.split_at_checked(usize::try_from(length).ok()?)?;
                    (Some(value), after)
                }
                5 => (None, after.get(4..)?),
                _ => return None,
            };
            rest = after;
            if let Some(value) = value.filter(|_| key >> 3 == wanted) {
                return Some(value);
            }
        }
    })
}

fn texts(message: &[u8], wanted: u64) -> impl Iterator<Item = String> {
    fields(message, wanted).filter_map(|bytes| String::from_utf8(bytes.to_vec()).ok())
}

/// A number in base 128, and what follows.
fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (index, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f).checked_shl(u32::try_from(index).ok()? * 7)?;
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(index + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `HealthCheckReply { title: "qdrant - vector search engine", version: "1.15.1", commit: "abc" }`, as the official client
    /// (1.20) writes it.
    const REPLY: &[u8] = b"\x0a\x1dqdrant - vector search engine\x12\x061.15.1\x1a\x03abc";

    #[test]
    fn messages_are_read_as_the_official_client_writes_them() {
        assert_eq!(texts(REPLY, 2).collect::<Vec<_>>(), ["1.15.1"]);
        // `ListCollectionsResponse` of two collections, with its time.
        let list = b"\x0a\x0a\x0a\x08articles\x0a\x08\x0a\x06images\x11\0\0\0\0\0\0\xf0\x3f";
        let names: Vec<String> = fields(list, 1).filter_map(|one| texts(one, 1).next()).collect();
        assert_eq!(names, ["articles", "images"]);
    }

    #[test]
    fn a_message_that_is_torn_ends_and_does_not_panic() {
        for length in 0..REPLY.len() {
            assert!(texts(&REPLY[..length], 2).count() <= 1, "{length}");
        }
        for bytes in [&b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"[..], b"\x12\xff\xff\xff\xff\x0f", b"\x0b\x01", b"\x10"] {
            assert_eq!(texts(bytes, 2).count(), 0, "{bytes:?}");
        }
    }
}

//! A WebSocket that sends back what it gets, and says goodbye when the process is to stop.
//!
//! Only what an echo needs: whole frames of up to 64 KB, from one client that speaks the protocol.

use std::convert::Infallible;
use std::io;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::{Empty, Full};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use sha1::{Digest, Sha1};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, watch};

use crate::streams::{Body, boxed};
use crate::{say, stop};

/// What the protocol appends to a client's key.
const MAGIC: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Close with 1001, "going away".
const GOING_AWAY: [u8; 4] = [0x88, 2, 0x03, 0xe9];
/// Kinds of frames: the low half of their first byte.
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Accepts an upgrade, or says what is missing. `open` is held until the conversation is over.
pub(crate) fn open(mut request: Request<Incoming>, stopped: watch::Receiver<bool>, open: mpsc::Sender<Infallible>) -> Response<Body> {
    let key = request.headers().get(SEC_WEBSOCKET_KEY).cloned();
    let Some(accept) = key.and_then(|key| HeaderValue::try_from(accept(key.as_bytes())).ok()) else {
        let mut response = Response::new(boxed(Full::new(Bytes::from_static(b"a WebSocket begins with a key\n"))));
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return response;
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        // A client that goes away in the middle of a frame has ended the conversation in its own way.
        if let Err(error) = echo(TokioIo::new(upgraded), stopped).await
            && error.kind() != io::ErrorKind::UnexpectedEof
        {
            say::line(&format!("shop: a WebSocket broke off: {error}"));
        }
        drop(open);
    });
    let mut response = Response::new(boxed(Empty::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    response
}

fn accept(key: &[u8]) -> String {
    BASE64_STANDARD.encode(Sha1::new().chain_update(key).chain_update(MAGIC).finalize())
}

async fn echo<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, mut stopped: watch::Receiver<bool>) -> io::Result<()> {
    loop {
        let mut head = [0; 2];
        // Only between two frames: what has begun to arrive is answered first.
        tokio::select! {
            read = stream.read(head.split_at_mut(1).0) => {
                if read? == 0 {
                    return Ok(());
                }
            }
            () = stop::wait(&mut stopped) => {
                stream.write_all(&GOING_AWAY).await?;
                return stream.shutdown().await;
            }
        }
        stream.read_exact(head.split_at_mut(1).1).await?;
        let [first, second] = head;
        let length = match second & 0x7f {
            126 => usize::from(stream.read_u16().await?),
            127 => return Err(io::Error::other("a frame of more than 64 KB")),
            short => usize::from(short),
        };
        if second & 0x80 == 0 {
            return Err(io::Error::other("a client's frame without a mask"));
        }
        let mut mask = [0; 4];
        stream.read_exact(&mut mask).await?;
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await?;
        for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= mask;
        }
        let kind = first & 0x0f;
        let first = if kind == PING { first & 0xf0 | PONG } else { first };
        let mut frame = vec![first];
        match u8::try_from(length) {
            Ok(short) if short < 126 => frame.push(short),
            _ => {
                frame.push(126);
                frame.extend(u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
            }
        }
        frame.extend(payload);
        stream.write_all(&frame).await?;
        if kind == CLOSE {
            return stream.shutdown().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_the_standard_has_the_answer_of_the_standard() {
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}

//! One HTTP connection of a client, from its first byte to its last.

use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::crowd::{Client, Fate};
use super::exchange::exchange;
use super::tunnel;
use super::witness::Heard;

/// How long what a client still sends is read after the last answer: closing at once would destroy the answer on its way.
const LINGER: Duration = Duration::from_secs(2);
/// How much of it is read.
const LINGER_BYTES: usize = 4 << 20;
/// The smallest read buffer that hyper takes.
const LEAST_BUFFER: usize = 8192;

/// Serves a client until it or we have had enough.
pub(crate) async fn serve(client: &Rc<Client>, stream: TcpStream) {
    let settings = &client.shard.settings;
    let mut builder = http1::Builder::new();
    // Never `pipeline_flush`: with it hyper takes a body in without bound when the client does not read.
    builder.max_header_size(settings.max_header_bytes);
    builder.max_buf_size(settings.max_header_bytes.max(LEAST_BUFFER).max(65_536));
    if settings.max_headers != 100 {
        // Any other number than hyper's own costs an allocation for each request.
        builder.max_headers(settings.max_headers);
    }
    let answering = client.clone();
    let mut server = builder.serve_connection(
        TokioIo::new(Heard::new(stream, client)),
        service_fn(move |request| Box::pin(exchange(answering.clone(), request))),
    );
    let in_order = std::future::poll_fn(|context| {
        client.wake_with(context);
        if client.fate() == Fate::Abort {
            return Poll::Ready(false);
        }
        // An error was answered if it could be, and that answer has to arrive as well.
        if server.poll_without_shutdown(context).is_ready() {
            return Poll::Ready(true);
        }
        client.drive_upload(context);
        Poll::Pending
    })
    .await;
    if !in_order {
        // Whatever ran for it is dropped with it.
        client.upstream.borrow_mut().take();
        return;
    }
    let parts = server.into_parts();
    let mut stream = parts.io.into_inner().into_inner();
    let handover = client.handover.borrow_mut().take();
    match handover {
        Some(handover) => tunnel::upgraded(client, stream, parts.read_buf, handover).await,
        None => linger(&mut stream).await,
    }
}

async fn linger(stream: &mut TcpStream) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let read_rest = async {
        let mut rest = [0_u8; 4096];
        let mut read = 0;
        while read < LINGER_BYTES {
            match stream.read(&mut rest).await {
                Ok(0) | Err(_) => return,
                Ok(count) => read += count,
            }
        }
    };
    // Whether it ended by itself or by the clock, the connection is over.
    tokio::time::timeout(LINGER, read_rest).await.ok();
}

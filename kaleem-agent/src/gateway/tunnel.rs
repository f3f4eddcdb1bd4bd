//! Bytes both ways, for what left HTTP and for TCP mode. What is read from one side waits until the other side has taken it.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::crowd::{Client, Fate};
use super::upstream::{Flight, Full};
use super::websocket::{CLOSE_GOING_AWAY, CLOSE_GOING_AWAY_MASKED, Frames};

/// How long frames may go on until both directions stand between two of them.
const BOUNDARY: Duration = Duration::from_secs(1);
/// How long a client may take to close after it was told to.
const GOODBYE: Duration = Duration::from_secs(1);
/// A buffer to begin with; one that was filled grows up to the greatest.
const LEAST_BUFFER: usize = 4 << 10;
const GREATEST_BUFFER: usize = 64 << 10;
/// Silence after which the kernel asks whether the other side is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// A connection that leaves HTTP.
pub(crate) struct Handover {
    pub(crate) upstream: Box<Full>,
    pub(crate) flight: Flight,
    pub(crate) websocket: bool,
}

/// How one direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The reader's side has said all.
    Said,
    /// It was asked to stop, and stands between two frames.
    Stopped,
}

/// Serves a connection that has left HTTP. `early` is what the client sent already.
pub(crate) async fn upgraded(client: &Rc<Client>, stream: TcpStream, early: Bytes, handover: Handover) {
    let Handover { mut upstream, flight, websocket } = handover;
    // The answer is out, so the HTTP of the other side is over as well, but for its own bookkeeping.
    let ended = std::future::poll_fn(|context| {
        upstream.drive(context);
        if upstream.has_ended() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    });
    if tokio::time::timeout(GOODBYE, ended).await.is_err() {
        return;
    }
    let (other, first) = upstream.into_parts();
    join(client, stream, early, other, first, websocket).await;
    drop(flight);
}

/// Moves bytes until both sides are done, or the connection is to end.
pub(crate) async fn join(client: &Rc<Client>, mut near: TcpStream, early: Bytes, mut far: TcpStream, first: Bytes, websocket: bool) {
    for stream in [&near, &far] {
        let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE);
        // A connection without it serves as well.
        socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive).ok();
    }
    let (stop, stopped) = watch::channel(false);
    let ends = {
        let (mut near_read, mut near_write) = near.split();
        let (mut far_read, mut far_write) = far.split();
        let there = pump(&mut near_read, &mut far_write, early, websocket, stopped.clone());
        let back = pump(&mut far_read, &mut near_write, first, websocket, stopped);
        let mut both = std::pin::pin!(async { tokio::try_join!(there, back) });
        tokio::select! {
            _ = &mut both => return,
            fate = client.doomed() => {
                if fate == Fate::Abort || !websocket {
                    return;
                }
                stop.send_replace(true);
                tokio::time::timeout(BOUNDARY, &mut both).await
            }
        }
    };
    if let Ok(Ok((there, back))) = ends {
        if back == End::Stopped {
            near.write_all(&CLOSE_GOING_AWAY).await.ok();
        }
        if there == End::Stopped {
            far.write_all(&CLOSE_GOING_AWAY_MASKED).await.ok();
        }
    }
    // The client answers with its own close; leaving before would turn ours into a broken connection.
    near.shutdown().await.ok();
    let mut rest = [0_u8; 1024];
    let goodbye = async { while near.read(&mut rest).await.is_ok_and(|count| count > 0) {} };
    tokio::time::timeout(GOODBYE, goodbye).await.ok();
}

async fn pump(
    from: &mut tokio::net::tcp::ReadHalf<'_>,
    to: &mut tokio::net::tcp::WriteHalf<'_>,
    first: Bytes,
    websocket: bool,
    mut stop: watch::Receiver<bool>,
) -> io::Result<End> {
    let mut frames = websocket.then(Frames::default);
    if !first.is_empty() {
        if let Some(frames) = &mut frames {
            frames.pass(&first);
        }
        to.write_all(&first).await?;
    }
    drop(first);
    let mut buffer = vec![0_u8; LEAST_BUFFER];
    loop {
        let between = frames.as_ref().is_some_and(Frames::at_boundary);
        if between && *stop.borrow() {
            let said = frames.as_ref().is_some_and(Frames::is_closed);
            return Ok(if said { End::Said } else { End::Stopped });
        }
        let count = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop), if between => continue,
            read = from.read(&mut buffer) => read?,
        };
        if count == 0 {
            to.shutdown().await?;
            return Ok(End::Said);
        }
        let read = buffer.get(..count).unwrap_or_default();
        let passed = match &mut frames {
            Some(frames) if *stop.borrow() => frames.pass_to_boundary(read),
            Some(frames) => {
                frames.pass(read);
                count
            }
            None => count,
        };
        to.write_all(read.get(..passed).unwrap_or_default()).await?;
        if count == buffer.len() && count < GREATEST_BUFFER {
            buffer.resize((count * 4).min(GREATEST_BUFFER), 0);
        }
    }
}

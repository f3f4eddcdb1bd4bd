//! An instance of a service: a small HTTP server that does whatever a test needs, and can die.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kaleem_core::names::{ContainerName, ReleaseId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// What a test sees and steers.
#[derive(Default)]
pub(crate) struct State {
    /// Ids of the POSTs that were taken, in order.
    pub(crate) taken: Mutex<Vec<String>>,
    /// Requests that came in.
    pub(crate) requests: AtomicUsize,
    /// Connections that came in.
    pub(crate) connections: AtomicUsize,
    /// Connections that are open.
    pub(crate) open: AtomicUsize,
    /// Bytes of request bodies that were read.
    pub(crate) read_bytes: AtomicUsize,
    /// Lets go what waits at `/wait`.
    pub(crate) go: Notify,
    /// How many wait there.
    pub(crate) waiting: AtomicUsize,
    /// Whether a connection is closed after each answer, without saying so.
    pub(crate) closes_early: AtomicBool,
    /// Whether POSTs are dropped without an answer, after they were taken.
    pub(crate) drops_posts: AtomicBool,
    /// Next event of `/events`.
    pub(crate) event: Notify,
}

/// A running instance.
pub(crate) struct Instance {
    pub(crate) name: ContainerName,
    pub(crate) release: ReleaseId,
    pub(crate) address: SocketAddr,
    pub(crate) state: Arc<State>,
    dead: watch::Sender<bool>,
}

impl Instance {
    pub(crate) async fn start(name: &str, release: u64) -> Self {
        Self::start_at(name, release, "127.0.0.1:0".parse().unwrap()).await
    }

    pub(crate) async fn start_at(name: &str, release: u64, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let (dead, died) = watch::channel(false);
        let name: ContainerName = name.parse().unwrap();
        tokio::spawn(accept(listener, name.to_string(), state.clone(), died));
        Self { name, release: ReleaseId::new(release), address, state, dead }
    }

    /// Another instance, which is not served by us.
    pub(crate) fn stands_for(&self, name: &str, address: SocketAddr) -> Self {
        Self { name: name.parse().unwrap(), release: self.release, address, state: Arc::default(), dead: watch::Sender::new(true) }
    }

    /// Dies as by SIGKILL: the port is closed, and connections are reset.
    pub(crate) async fn die(&self) {
        self.dead.send_replace(true);
        let (address, state) = (self.address, self.state.clone());
        super::world::until("the instance is dead", async || {
            state.open.load(Ordering::SeqCst) == 0 && TcpStream::connect(address).await.is_err()
        })
        .await;
    }

    pub(crate) fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    pub(crate) fn taken(&self) -> Vec<String> {
        self.state.taken.lock().unwrap().clone()
    }

    pub(crate) fn open(&self) -> usize {
        self.state.open.load(Ordering::SeqCst)
    }

    pub(crate) fn waiting(&self) -> usize {
        self.state.waiting.load(Ordering::SeqCst)
    }
}

async fn accept(listener: TcpListener, name: String, state: Arc<State>, mut died: watch::Receiver<bool>) {
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted.unwrap().0,
            _ = died.wait_for(|dead| *dead) => return,
        };
        stream.set_nodelay(true).unwrap();
        let (name, state, mut died) = (name.clone(), state.clone(), died.clone());
        tokio::spawn(async move {
            state.connections.fetch_add(1, Ordering::SeqCst);
            state.open.fetch_add(1, Ordering::SeqCst);
            // Closing without this is what a dying process does to data in flight.
            let reset = socket2::SockRef::from(&stream).try_clone().unwrap();
            let serving = state.clone();
            let service = service_fn(move |request| serve(name.clone(), serving.clone(), request));
            let connection = http1::Builder::new().max_headers(300).serve_connection(TokioIo::new(stream), service).with_upgrades();
            tokio::select! {
                _ = connection => {}
                _ = died.wait_for(|dead| *dead) => reset.set_linger(Some(Duration::ZERO)).unwrap(),
            }
            drop(reset);
            state.open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

fn text(text: impl Into<Bytes>) -> Response<Body> {
    Response::new(Full::new(text.into()).map_err(|never: Infallible| match never {}).boxed_unsync())
}

async fn serve(name: String, state: Arc<State>, mut request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    state.requests.fetch_add(1, Ordering::SeqCst);
    let query = request.uri().query().unwrap_or_default().to_owned();
    let mut response = match (request.method().clone(), request.uri().path()) {
        (Method::POST, "/take") => {
            state.taken.lock().unwrap().push(query);
            request.into_body().collect().await.ok();
            if state.drops_posts.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            text(name)
        }
        (_, "/echo") => {
            let state = state.clone();
            let body = request.into_body().map_frame(move |frame| {
                state.read_bytes.fetch_add(frame.data_ref().map_or(0, Bytes::len), Ordering::SeqCst);
                frame
            });
            Response::new(body.boxed_unsync())
        }
        (_, "/count") => {
            let mut body = request.into_body();
            let mut sum = 0;
            while let Some(Ok(frame)) = body.frame().await {
                sum += frame.data_ref().map_or(0, Bytes::len);
                state.read_bytes.store(sum, Ordering::SeqCst);
            }
            text(sum.to_string())
        }
        (_, "/bytes") => {
            let count: usize = query.parse().unwrap();
            let chunk = Bytes::from(vec![b'x'; 16 * 1024]);
            let state = state.clone();
            let chunks = stream::unfold(count, move |left| {
                let (chunk, state) = (chunk.clone(), state.clone());
                async move {
                    let size = left.min(chunk.len());
                    state.read_bytes.fetch_add(size, Ordering::SeqCst);
                    (size > 0).then(|| (Ok(Frame::data(chunk.slice(..size))), left - size))
                }
            });
            Response::new(StreamBody::new(chunks).boxed_unsync())
        }
        (_, "/fixed") => text(vec![b'y'; query.parse().unwrap()]),
        (_, "/status") => {
            let mut response = text("as you wish");
            *response.status_mut() = StatusCode::from_u16(query.parse().unwrap()).unwrap();
            response
        }
        (_, "/head") => {
            let mut lines: Vec<String> = vec![format!("{} {} {:?}", request.method(), request.uri(), request.version())];
            lines.extend(request.headers().iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())));
            text(lines.join("\n"))
        }
        (_, "/wait") => {
            let go = state.go.notified();
            state.waiting.fetch_add(1, Ordering::SeqCst);
            go.await;
            state.waiting.fetch_sub(1, Ordering::SeqCst);
            text(name)
        }
        (_, "/refuse") => {
            let mut response = text("too large");
            *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
            response
        }
        (_, "/events") => {
            let state = state.clone();
            let events = stream::unfold(0, move |number| {
                let state = state.clone();
                async move {
                    if number > 0 {
                        state.event.notified().await;
                    }
                    Some((Ok(Frame::data(Bytes::from(format!("data: {number}\n\n")))), number + 1))
                }
            });
            let mut response = Response::new(StreamBody::new(events).boxed_unsync());
            response.headers_mut().insert("content-type", HeaderValue::from_static("text/event-stream"));
            response
        }
        (_, "/trailers") => {
            let collected = request.into_body().collect().await.unwrap();
            let came = collected.trailers().and_then(|trailers| trailers.get("x-sum")).cloned();
            let mut trailers = HeaderMap::new();
            trailers.insert("x-seen", came.unwrap_or_else(|| HeaderValue::from_static("none")));
            let frames = [Ok(Frame::data(collected.to_bytes())), Ok(Frame::trailers(trailers))];
            let mut response = Response::new(StreamBody::new(stream::iter(frames).boxed()).boxed_unsync());
            response.headers_mut().insert("trailer", HeaderValue::from_static("x-seen"));
            response
        }
        (_, "/socket") => {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                if let Ok(upgraded) = upgrade.await {
                    echo_frames(TokioIo::new(upgraded)).await;
                }
            });
            let mut response = text("");
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert("connection", HeaderValue::from_static("upgrade"));
            response.headers_mut().insert("upgrade", HeaderValue::from_static("websocket"));
            response
        }
        _ => text(name),
    };
    if state.closes_early.load(Ordering::SeqCst) {
        response.headers_mut().insert("connection", HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// Answers each masked frame with the same one unmasked, and ends after a close.
async fn echo_frames<S: AsyncReadExt + AsyncWriteExt + Unpin>(mut stream: S) {
    while let Ok((opcode, payload)) = read_frame(&mut stream).await {
        if stream.write_all(&frame(opcode, &payload)).await.is_err() || opcode == 8 {
            break;
        }
    }
    stream.shutdown().await.ok();
}

/// An unmasked frame.
pub(crate) fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80 | opcode];
    match payload.len() {
        short @ 0..=125 => bytes.push(u8::try_from(short).unwrap()),
        long => {
            bytes.push(126);
            bytes.extend(u16::try_from(long).unwrap().to_be_bytes());
        }
    }
    bytes.extend(payload);
    bytes
}

/// A frame as clients send it.
pub(crate) fn masked_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame(opcode, payload);
    let head = bytes.len() - payload.len();
    bytes[1] |= 0x80;
    let mask = [0x11, 0x22, 0x33, 0x44];
    for (place, byte) in bytes[head..].iter_mut().enumerate() {
        *byte ^= mask[place % 4];
    }
    bytes.splice(head..head, mask);
    bytes
}

/// Reads a frame, masked or not.
pub(crate) async fn read_frame<S: AsyncReadExt + Unpin>(stream: &mut S) -> std::io::Result<(u8, Vec<u8>)> {
    let mut head = [0_u8; 2];
    stream.read_exact(&mut head).await?;
    let length = match head[1] & 0x7f {
        126 => usize::from(stream.read_u16().await?),
        // No test sends so much; hostile bytes say that they do.
        127 => return Err(std::io::ErrorKind::InvalidData.into()),
        short => usize::from(short),
    };
    let mut mask = [0_u8; 4];
    if head[1] & 0x80 != 0 {
        stream.read_exact(&mut mask).await?;
    }
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await?;
    for (place, byte) in payload.iter_mut().enumerate() {
        *byte ^= mask[place % 4];
    }
    Ok((head[0] & 0x0f, payload))
}

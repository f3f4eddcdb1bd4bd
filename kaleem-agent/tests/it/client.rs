//! Clients: one that says exactly what a test writes, and one that asks again and again and counts what goes wrong.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::world::PATIENCE;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// One connection.
pub(crate) struct Raw {
    pub(crate) stream: BufReader<TcpStream>,
}

impl Raw {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).await.unwrap()
    }

    pub(crate) async fn try_connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    async fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }

    async fn fields(&mut self) -> std::io::Result<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line().await?;
            let Some((name, value)) = line.split_once(':') else { return Ok(fields) };
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// Status and header fields.
    pub(crate) async fn head(&mut self) -> std::io::Result<(u16, Vec<(String, String)>)> {
        let first = self.line().await?;
        let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| std::io::Error::other(format!("no status line: {first:?}")))?;
        Ok((status, self.fields().await?))
    }

    pub(crate) async fn try_answer(&mut self, has_body: bool) -> std::io::Result<Answer> {
        let answer = async {
            let (status, headers) = self.head().await?;
            let mut answer = Answer { status, headers, body: Vec::new(), trailers: Vec::new() };
            if !has_body || status < 200 || status == 204 || status == 304 {
                return Ok(answer);
            }
            if answer.header("transfer-encoding") == Some("chunked") {
                loop {
                    let line = self.line().await?;
                    let size = usize::from_str_radix(&line, 16).map_err(std::io::Error::other)?;
                    if size == 0 {
                        break;
                    }
                    let start = answer.body.len();
                    answer.body.resize(start + size, 0);
                    self.stream.read_exact(&mut answer.body[start..]).await?;
                    self.line().await?;
                }
                answer.trailers = self.fields().await?;
            } else if let Some(length) = answer.header("content-length") {
                answer.body.resize(length.parse().unwrap(), 0);
                self.stream.read_exact(&mut answer.body).await?;
            } else {
                self.stream.read_to_end(&mut answer.body).await?;
            }
            Ok(answer)
        };
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
        }
    }

    pub(crate) async fn answer(&mut self) -> Answer {
        self.try_answer(true).await.unwrap()
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: api\r\n\r\n")).await;
        self.answer().await
    }

    /// Whether the other side has closed, within patience. What is still to come is dropped.
    pub(crate) async fn closed(&mut self) -> bool {
        let mut rest = Vec::new();
        tokio::time::timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await.is_ok()
    }
}

/// Asks once on a connection of its own.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Answer {
    Raw::connect(address).await.get(path).await
}

/// Opens a WebSocket.
pub(crate) async fn open_socket(address: SocketAddr) -> Raw {
    let mut client = Raw::connect(address).await;
    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    let request = format!(
        "GET /socket HTTP/1.1\r\nHost: api\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    );
    client.send(request).await;
    let (status, headers) = client.head().await.unwrap();
    assert_eq!(status, 101, "{headers:?}");
    client
}

/// Clients that ask as fast as they get answers.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    pub(crate) answered: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

/// What a load sends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// GETs on connections that stay.
    KeepAlive,
    /// GETs on a connection each.
    Fresh,
    /// POSTs with an id each, on connections that stay.
    Posts,
}

impl Load {
    pub(crate) fn start(address: SocketAddr, count: usize, kind: Kind) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let clients = (0..count).map(|client| tokio::spawn(ask(address, client, kind, stop.clone(), answered.clone()))).collect();
        Self { stop, answered, clients }
    }

    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::SeqCst)
    }

    /// Waits for that many more answers.
    pub(crate) async fn more(&self, count: u64) {
        let wanted = self.answered() + count;
        super::world::until("the load has had its answers", async || self.answered() >= wanted).await;
    }

    /// Ends it, and answers with all that went wrong.
    pub(crate) async fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::SeqCst);
        let mut failures = Vec::new();
        for client in self.clients {
            failures.extend(client.await.unwrap());
        }
        failures
    }
}

async fn ask(address: SocketAddr, client: usize, kind: Kind, stop: Arc<AtomicBool>, answered: Arc<AtomicU64>) -> Vec<String> {
    let mut failures = Vec::new();
    let mut kept: Option<Raw> = None;
    let mut number = 0_u64;
    while !stop.load(Ordering::SeqCst) {
        number += 1;
        let outcome = async {
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None => Raw::try_connect(address).await?,
            };
            let (method, path, body) = match kind {
                Kind::Posts => ("POST", format!("/take?{client}-{number}"), "Content-Length: 5\r\n\r\nhello"),
                Kind::KeepAlive => ("GET", "/".to_owned(), "\r\n"),
                Kind::Fresh => ("GET", "/".to_owned(), "Connection: close\r\n\r\n"),
            };
            connection.stream.write_all(format!("{method} {path} HTTP/1.1\r\nHost: api\r\n{body}").as_bytes()).await?;
            let answer = connection.try_answer(true).await?;
            if kind != Kind::Fresh && answer.header("connection") != Some("close") {
                kept = Some(connection);
            }
            std::io::Result::Ok(answer)
        };
        match outcome.await {
            Ok(answer) if answer.status == 200 => drop(answered.fetch_add(1, Ordering::SeqCst)),
            Ok(answer) => failures.push(format!("{client}-{number}: {} {}", answer.status, String::from_utf8_lossy(&answer.body))),
            Err(error) => failures.push(format!("{client}-{number}: {error}")),
        }
    }
    failures
}

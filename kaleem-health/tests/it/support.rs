//! Targets, a console that does as it is told, and servers that misbehave in every known way.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use kaleem_core::health::{ProbeTarget, Question};
use kaleem_core::names::ContainerName;
use kaleem_core::pipe::{ByteSender, ByteStream};
use kaleem_core::runtime::{Console, ExecOutput, InstanceHealth, InstanceState, InstanceStatus, LogLine, LogRange, RuntimeError};
use kaleem_health::StandardProbes;

/// What the engine does with a command.
pub(crate) enum Exec {
    /// It ends with that code, and prints a secret.
    Ends(i64),
    /// The engine's own limit is reached.
    TimesOut,
    /// The engine cannot be asked.
    Broken,
    /// The engine never answers.
    Hangs,
}

pub(crate) struct FakeConsole(pub(crate) Exec);

#[async_trait]
impl Console for FakeConsole {
    async fn check(&self, _: &ContainerName, _: Duration) -> Result<Option<ExecOutput>, RuntimeError> {
        Ok(None)
    }

    async fn exec(&self, container: &ContainerName, _command: &[String], timeout: Duration) -> Result<ExecOutput, RuntimeError> {
        match &self.0 {
            Exec::Ends(exit_code) => Ok(ExecOutput { exit_code: *exit_code, output: SECRET.to_owned() }),
            Exec::TimesOut => Err(RuntimeError::ExecTimedOut { name: container.clone(), timeout }),
            Exec::Broken => Err(RuntimeError::Broken { operation: "run a command".to_owned(), source: "connection reset".into() }),
            Exec::Hangs => std::future::pending().await,
        }
    }

    async fn attach(
        &self,
        container: &ContainerName,
        command: &[String],
        _: Option<ByteStream>,
        _: &mut ByteSender,
        timeout: Duration,
    ) -> Result<ExecOutput, RuntimeError> {
        self.exec(container, command, timeout).await
    }

    async fn logs(&self, _: &ContainerName, _: &LogRange) -> Result<BoxStream<'static, Result<LogLine, RuntimeError>>, RuntimeError> {
        Ok(Box::pin(futures_util::stream::empty()))
    }
}

/// Servers print it wherever they can; no finding may repeat it.
pub(crate) const SECRET: &str = "hunter2-do-not-repeat";

pub(crate) fn probes(exec: Exec) -> StandardProbes {
    StandardProbes::new(Arc::new(FakeConsole(exec)))
}

pub(crate) fn running() -> InstanceState {
    InstanceState {
        status: InstanceStatus::Running,
        health: InstanceHealth::None,
        health_output: Some(SECRET.to_owned()),
        exit_code: None,
        oom_killed: false,
        restart_count: 0,
        started_at: None,
        error: None,
    }
}

/// A running container with these addresses.
pub(crate) fn target(addresses: &[&str]) -> ProbeTarget {
    let named = addresses.iter().enumerate().map(|(n, address)| (format!("net{n}").parse().unwrap(), (*address).to_owned()));
    ProbeTarget {
        service: "api".parse().unwrap(),
        container: "shop-api-1".parse().unwrap(),
        state: running(),
        addresses: named.collect::<BTreeMap<_, _>>(),
        published: Vec::new(),
        host_network: false,
    }
}

pub(crate) fn http(port: u16) -> Question {
    Question::Http { port, path: "/health".to_owned(), statuses: (200, 399), host: None, contains: None }
}

/// A server on threads of its own, so that the tasks of the test's runtime are those of the probes alone.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    open: Arc<AtomicUsize>,
    accepted: Arc<AtomicUsize>,
}

impl Server {
    /// Starts it; `behave` is called with every connection, and ends with an error when the client goes away.
    pub(crate) fn start(behave: fn(&mut TcpStream) -> std::io::Result<()>) -> Self {
        Self::start_on("127.0.0.1:0", behave)
    }

    pub(crate) fn start_on(address: &str, behave: fn(&mut TcpStream) -> std::io::Result<()>) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let (open, accepted) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (opened, counted) = (Arc::clone(&open), Arc::clone(&accepted));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                opened.fetch_add(1, Ordering::SeqCst);
                counted.fetch_add(1, Ordering::SeqCst);
                let closed = Arc::clone(&opened);
                std::thread::spawn(move || {
                    // The client's going away is what these servers wait for.
                    drop(behave(&mut stream));
                    drop(stream.shutdown(Shutdown::Both));
                    closed.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, open, accepted }
    }

    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Waits until no connection is open: the client closed every one.
    pub(crate) async fn all_closed(&self) {
        let closed = async {
            while self.open.load(Ordering::SeqCst) > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), closed).await.expect("a connection stayed open");
    }
}

fn read_request(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut read = Vec::new();
    let mut byte = [0];
    while !read.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        read.extend_from_slice(&byte);
    }
    Ok(String::from_utf8_lossy(&read).into_owned())
}

/// Blocks until the client goes away.
fn until_closed(stream: &mut TcpStream) -> std::io::Result<()> {
    while stream.read(&mut [0; 1024])? > 0 {}
    Ok(())
}

fn answer(stream: &mut TcpStream, status: &str, body: &str) -> std::io::Result<()> {
    read_request(stream)?;
    let length = body.len();
    write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nx-token: {SECRET}\r\n\r\n{body}")
}

pub(crate) fn ok(stream: &mut TcpStream) -> std::io::Result<()> {
    answer(stream, "200 OK", "{\"redis\":\"up\"}")
}

pub(crate) fn redirects(stream: &mut TcpStream) -> std::io::Result<()> {
    read_request(stream)?;
    write!(stream, "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n")
}

pub(crate) fn unavailable(stream: &mut TcpStream) -> std::io::Result<()> {
    answer(stream, "503 Service Unavailable", SECRET)
}

pub(crate) fn echoes_host(stream: &mut TcpStream) -> std::io::Result<()> {
    let request = read_request(stream)?;
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{request}", request.len())
}

pub(crate) fn silent(stream: &mut TcpStream) -> std::io::Result<()> {
    until_closed(stream)
}

pub(crate) fn closes(_: &mut TcpStream) -> std::io::Result<()> {
    Ok(())
}

pub(crate) fn closes_after_the_request(stream: &mut TcpStream) -> std::io::Result<()> {
    read_request(stream).map(drop)
}

pub(crate) fn trickles_a_head(stream: &mut TcpStream) -> std::io::Result<()> {
    // Who answers before being asked is another case.
    read_request(stream)?;
    stream.write_all(b"HTTP/1.1 200 OK\r\nx: ")?;
    trickle(stream)
}

pub(crate) fn trickles_a_body(stream: &mut TcpStream) -> std::io::Result<()> {
    read_request(stream)?;
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")?;
    trickle(stream)
}

fn trickle(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_millis(20)))?;
    loop {
        stream.write_all(b"a")?;
        // The pause between two bytes; it also notices that the client is gone.
        match stream.read(&mut [0; 1024]) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
    }
}

pub(crate) fn breaks_off(stream: &mut TcpStream) -> std::io::Result<()> {
    read_request(stream)?;
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nonly this")
}

pub(crate) fn talks_garbage(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"-ERR unknown command hunter2-do-not-repeat\r\n")?;
    until_closed(stream)
}

/// One gigabyte, or until the client has had enough.
pub(crate) fn floods_a_body(stream: &mut TcpStream) -> std::io::Result<()> {
    read_request(stream)?;
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n")?;
    flood(stream)
}

pub(crate) fn floods_a_head(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\nx: ")?;
    flood(stream)
}

fn flood(stream: &mut TcpStream) -> std::io::Result<()> {
    let block = vec![b'a'; 1024 * 1024];
    for _ in 0..1024 {
        stream.write_all(&block)?;
    }
    Ok(())
}

/// How often a probe is asked to look for leaks: `KALEEM_TEST_RUNS`, such as 10000, or a number that takes seconds.
#[expect(clippy::disallowed_methods, reason = "tests are told by the environment how long they may take")]
pub(crate) fn runs() -> usize {
    std::env::var("KALEEM_TEST_RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000)
}

//! What every [`HealthProbe`] promises, against servers that misbehave in every known way.
//!
//! The servers run on threads of their own, so that the tasks of the caller's runtime are those of the probe alone.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::clock::{Clock, SystemClock};
use crate::health::{Finding, HealthProbe, Verdict};
use crate::testing::free_port;

/// The secret that the probe under test is to be given: password, token or key.
pub const SECRET: &str = "hunter2-do-not-repeat";
/// What a misbehaving server writes where it can.
const SERVER_SECRET: &str = "s3rver-text-do-not-repeat";

const TIMEOUT: Duration = Duration::from_millis(400);
/// What the contract allows beside the timeout, and what a loaded test machine may add.
const LATEST: Duration = Duration::from_millis(400 + 250 + 4_350);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Makes the probe under test for a server at that address, with [`SECRET`] as its password, token or key.
pub type MakeProbe<'a> = &'a dyn Fn(SocketAddr) -> Arc<dyn HealthProbe>;

/// How a server misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behaviour {
    Silent,
    Closes,
    Garbage,
    Trickles,
    Floods,
}

const ALL: [Behaviour; 5] = [Behaviour::Silent, Behaviour::Closes, Behaviour::Garbage, Behaviour::Trickles, Behaviour::Floods];

/// Runs the whole suite. `runs` is how often the probe is asked to look for leaks.
///
/// # Panics
/// When a promise is broken: this is a test.
pub async fn every_promise_is_kept(make: MakeProbe<'_>, runs: usize) {
    in_time_and_discreet(make).await;
    dropped_in_the_middle(make).await;
    no_leak(make, runs).await;
}

/// Every misbehaviour ends in time with a verdict other than Ok, a remedy, no secret, no connection and no task.
async fn in_time_and_discreet(make: MakeProbe<'_>) {
    for behaviour in ALL {
        let server = Server::start(behaviour);
        let before = tasks();
        let probe = make(server.address);
        for _ in 0..2 {
            let start = SystemClock.monotonic();
            let finding = probe.check(TIMEOUT).await;
            let took = SystemClock.monotonic().saturating_sub(start);
            assert!(took < LATEST, "{behaviour:?}: took {took:?}");
            discreet(&format!("{behaviour:?}"), &finding);
            assert_ne!(finding.verdict, Verdict::Ok, "{behaviour:?}: {}", finding.reason);
        }
        drop(probe);
        server.all_closed(&format!("{behaviour:?}")).await;
        all_ended(before, &format!("{behaviour:?}")).await;
    }
    let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let finding = make(nobody).check(TIMEOUT).await;
    assert_eq!(finding.verdict, Verdict::Fail, "nobody listens: {}", finding.reason);
    discreet("nobody listens", &finding);
}

/// A check that is dropped while it waits closes what it opened.
async fn dropped_in_the_middle(make: MakeProbe<'_>) {
    let server = Server::start(Behaviour::Silent);
    let before = tasks();
    let probe = make(server.address);
    let early = tokio::time::timeout(Duration::from_millis(100), probe.check(LONGEST_WAIT)).await;
    assert!(early.is_err(), "a silent server was judged early: {early:?}");
    drop(probe);
    server.all_closed("dropped").await;
    all_ended(before, "dropped").await;
}

/// Many runs against a server that goes away leave nothing.
async fn no_leak(make: MakeProbe<'_>, runs: usize) {
    let server = Server::start(Behaviour::Closes);
    let before = tasks();
    let probe = make(server.address);
    for run in 0..runs {
        let finding = probe.check(LONGEST_WAIT).await;
        assert_ne!(finding.verdict, Verdict::Ok, "run {run}: {}", finding.reason);
    }
    drop(probe);
    server.all_closed("after many runs").await;
    all_ended(before, "after many runs").await;
}

/// Fails when the finding holds a secret, or lacks a reason or a remedy.
///
/// # Panics
/// When a promise is broken: this is a test.
pub fn discreet(why: &str, finding: &Finding) {
    let json = serde_json::to_string(finding).unwrap_or_default();
    assert!(!json.is_empty(), "{why}: a finding has a JSON form");
    for shown in [format!("{finding:?}"), json] {
        assert!(!shown.contains(SECRET), "{why}: repeats what it was given: {shown}");
        assert!(!shown.contains(SERVER_SECRET), "{why}: repeats what the server wrote: {shown}");
    }
    assert!(!finding.reason.is_empty() && !finding.reason.contains('\n'), "{why}: one line says why: {finding:?}");
    assert!(finding.verdict == Verdict::Ok || finding.remedy.is_some(), "{why}: no remedy: {finding:?}");
}

fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

async fn all_ended(before: usize, why: &str) {
    until(&format!("{why}: a task was left behind"), || tasks() <= before).await;
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let start = SystemClock.monotonic();
    while !condition() {
        assert!(SystemClock.monotonic().saturating_sub(start) < LONGEST_WAIT, "{what}");
        SystemClock.sleep(Duration::from_millis(2)).await;
    }
}

struct Server {
    address: SocketAddr,
    open: Arc<AtomicUsize>,
}

impl Server {
    #[expect(clippy::expect_used, reason = "a suite that cannot set up its servers has failed")]
    fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port of loopback");
        let address = listener.local_addr().expect("its address");
        let open = Arc::new(AtomicUsize::new(0));
        let opened = Arc::clone(&open);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                if behaviour == Behaviour::Closes {
                    continue;
                }
                opened.fetch_add(1, Ordering::SeqCst);
                let closed = Arc::clone(&opened);
                std::thread::spawn(move || {
                    // The client's going away is what these servers wait for.
                    drop(behave(behaviour, &mut stream));
                    drop(stream.shutdown(Shutdown::Both));
                    closed.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, open }
    }

    /// Waits until neither side holds a connection: the server sees the end of each, and this process keeps no descriptor of one
    /// that the server has ended.
    async fn all_closed(&self, why: &str) {
        let port = self.address.port();
        until(&format!("{why}: a connection stayed open"), || self.open.load(Ordering::SeqCst) == 0 && held(port) == 0).await;
    }
}

/// Sockets towards a port of this machine which somebody still holds: established, or ended by the other side alone.
fn held(port: u16) -> usize {
    const ESTABLISHED: &str = "01";
    const CLOSE_WAIT: &str = "08";
    let place = std::path::Path::new("/proc/self/net/tcp");
    let Ok(bytes) = crate::durable::read(place) else { return 0 };
    let wanted = format!(":{port:04X}");
    let text = String::from_utf8_lossy(&bytes);
    text.lines()
        .filter(|line| {
            let mut fields = line.split_ascii_whitespace().skip(2);
            let (remote, state) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
            remote.ends_with(&wanted) && matches!(state, ESTABLISHED | CLOSE_WAIT)
        })
        .count()
}

fn behave(behaviour: Behaviour, stream: &mut TcpStream) -> std::io::Result<()> {
    match behaviour {
        Behaviour::Closes => Ok(()),
        Behaviour::Silent => until_closed(stream),
        Behaviour::Garbage => {
            write!(stream, "\u{1}{SERVER_SECRET}\r\n\r\n{SERVER_SECRET}\r\n")?;
            until_closed(stream)
        }
        Behaviour::Trickles => {
            stream.set_read_timeout(Some(Duration::from_millis(20)))?;
            loop {
                stream.write_all(b"a")?;
                match stream.read(&mut [0; 1024]) {
                    Ok(0) => return Ok(()),
                    Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return Err(error),
                    _ => {}
                }
            }
        }
        Behaviour::Floods => {
            let block = SERVER_SECRET.repeat(40_000).into_bytes();
            for _ in 0..1024 {
                stream.write_all(&block)?;
            }
            Ok(())
        }
    }
}

fn until_closed(stream: &mut TcpStream) -> std::io::Result<()> {
    while stream.read(&mut [0; 1024])? > 0 {}
    Ok(())
}

//! One instance as the data plane knows it: where it is, whether it is used, and what runs there.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kaleem_core::clock::{Clock, SystemClock};
use kaleem_core::names::{ContainerName, ReleaseId};
use kaleem_core::traffic::{self, Counts, TargetHost, TargetState, TargetStats};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;

use super::meter::Meter;

/// How long a resolved name is used for new connections: a restarted container may have another address, and its old one another owner.
const NAME_LIFE: Duration = Duration::from_secs(1);

/// Time since the start of the process.
pub(crate) fn now() -> Duration {
    SystemClock.monotonic()
}

/// What is to be cut at a target: bits, which only a drain sets and only a switch back clears.
#[derive(Debug, Default)]
pub(crate) struct Cut(AtomicU8);

impl Cut {
    /// WebSockets and event streams are to end.
    pub(crate) const STREAMS: u8 = 1;
    /// Requests are to be broken off.
    pub(crate) const REQUESTS: u8 = 2;
    /// Streams that did not end when asked are to be broken off.
    pub(crate) const FORCE: u8 = 4;

    pub(crate) fn set(&self, bits: u8) {
        self.0.fetch_or(bits, Ordering::SeqCst);
    }

    pub(crate) fn clear(&self) {
        self.0.store(0, Ordering::SeqCst);
    }

    pub(crate) fn has(&self, bits: u8) -> bool {
        self.0.load(Ordering::Relaxed) & bits != 0
    }
}

#[derive(Debug, Default)]
struct Resolved {
    addresses: Vec<IpAddr>,
    at: Option<Duration>,
}

/// One instance.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) instance: ContainerName,
    pub(crate) release: ReleaseId,
    host: TargetHost,
    ports: BTreeMap<u16, u16>,
    /// What its cookie says: release, then a hash of the instance.
    pub(crate) tag: String,
    /// Set while it may get nothing new.
    pub(crate) retired: AtomicBool,
    pub(crate) cut: Cut,
    /// One bit for each port of the gateway whose port here could not be reached.
    doubts: AtomicU64,
    literal: Option<IpAddr>,
    resolved: Mutex<Resolved>,
    meters: Box<[Arc<Meter>]>,
}

impl Target {
    /// A target that nobody has counted for yet.
    pub(crate) fn new(spec: &traffic::Target, threads: usize) -> Self {
        let hash = Sha256::digest(spec.instance.as_str().as_bytes());
        let short: String = hex::encode(hash).chars().take(12).collect();
        Self {
            instance: spec.instance.clone(),
            release: spec.release,
            host: spec.host.clone(),
            ports: spec.ports.clone(),
            tag: format!("{}.{short}", spec.release),
            retired: AtomicBool::new(true),
            cut: Cut::default(),
            doubts: AtomicU64::new(0),
            literal: spec.host.as_str().parse().ok(),
            resolved: Mutex::new(Resolved::default()),
            meters: std::iter::repeat_with(|| Arc::new(Meter::new())).take(threads).collect(),
        }
    }

    /// Whether it is the one that `spec` means, so that its counters and its connections go on.
    pub(crate) fn is(&self, spec: &traffic::Target) -> bool {
        self.instance == spec.instance && self.release == spec.release && self.host == spec.host && self.ports == spec.ports
    }

    /// The part of thread `thread`.
    pub(crate) fn meter(&self, thread: usize) -> Option<Arc<Meter>> {
        self.meters.get(thread).cloned()
    }

    /// Requests and connections that run there.
    pub(crate) fn in_flight(&self) -> u64 {
        self.meters.iter().map(|meter| meter.in_flight.get()).sum()
    }

    /// Streams among them.
    pub(crate) fn streams(&self) -> u64 {
        self.meters.iter().map(|meter| meter.streams.get()).sum()
    }

    /// What was counted on all threads.
    pub(crate) fn counts(&self) -> Counts {
        let mut sum = Counts::default();
        for meter in &self.meters {
            sum.add(&meter.read());
        }
        sum
    }

    /// What is told of it.
    pub(crate) fn stats(&self) -> TargetStats {
        let state = if self.retired.load(Ordering::SeqCst) {
            TargetState::Retired
        } else if self.doubts.load(Ordering::SeqCst) != 0 {
            TargetState::Doubted
        } else {
            TargetState::Believed
        };
        TargetStats {
            instance: self.instance.clone(),
            release: self.release,
            state,
            in_flight: self.in_flight(),
            streams: self.streams(),
            counts: self.counts(),
        }
    }

    /// Whether its port behind `listener` could not be reached.
    pub(crate) fn is_doubted(&self, listener: usize) -> bool {
        self.doubts.load(Ordering::Relaxed) & bit(listener) != 0
    }

    /// Remembers that it could not be reached. True when this is news.
    pub(crate) fn doubt(&self, listener: usize) -> bool {
        self.doubts.fetch_or(bit(listener), Ordering::SeqCst) & bit(listener) == 0
    }

    /// Remembers that it was reached.
    pub(crate) fn believe(&self, listener: usize) {
        self.doubts.fetch_and(!bit(listener), Ordering::SeqCst);
    }

    /// Trusts all its ports: it was just steered to, so it passed its gate.
    pub(crate) fn believe_all(&self) {
        self.doubts.store(0, Ordering::SeqCst);
    }

    /// The port behind `port` of the gateway.
    pub(crate) fn port(&self, port: u16) -> u16 {
        self.ports.get(&port).copied().unwrap_or(port)
    }

    /// What a request without a `Host` is sent with.
    pub(crate) fn authority(&self, port: u16) -> String {
        match self.literal {
            Some(IpAddr::V6(address)) => format!("[{address}]:{}", self.port(port)),
            _ => format!("{}:{}", self.host, self.port(port)),
        }
    }

    async fn addresses(&self) -> io::Result<Vec<IpAddr>> {
        if let Some(address) = self.literal {
            return Ok(vec![address]);
        }
        {
            let resolved = self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
            if resolved.at.is_some_and(|at| now().saturating_sub(at) < NAME_LIFE) {
                return Ok(resolved.addresses.clone());
            }
        }
        if is_apart() {
            return Err(io::Error::new(io::ErrorKind::NetworkUnreachable, "the gateway has joined no network yet"));
        }
        // A name that is not found keeps nobody: its old address may have been dealt to another container by now. Requests are
        // held while the engine's resolver is away.
        let found: Vec<IpAddr> = tokio::net::lookup_host((self.host.as_str(), 0)).await?.map(|address| address.ip()).collect();
        let mut resolved = self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        *resolved = Resolved { addresses: found.clone(), at: Some(now()) };
        Ok(found)
    }

    /// Connects to the port behind `port` of the gateway, at the first address that takes it.
    pub(crate) async fn connect(&self, port: u16, timeout: Duration) -> io::Result<TcpStream> {
        let attempt = async {
            if let Some(address) = self.literal {
                return TcpStream::connect(SocketAddr::new(address, self.port(port))).await;
            }
            let mut last = io::Error::new(io::ErrorKind::NotFound, format!("`{}` has no address", self.host));
            for address in self.addresses().await? {
                match TcpStream::connect(SocketAddr::new(address, self.port(port))).await {
                    Ok(stream) => return Ok(stream),
                    Err(error) => last = error,
                }
            }
            // Next time its name is asked for again.
            self.resolved.lock().unwrap_or_else(PoisonError::into_inner).at = None;
            Err(last)
        };
        match tokio::time::timeout(timeout, attempt).await {
            Ok(connected) => connected.and_then(|stream| stream.set_nodelay(true).map(|()| stream)),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "connecting took too long")),
        }
    }
}

/// Whether this process has joined no network, as one that is started apart before it gets its ports. The engine's resolver is not there
/// yet, and a name that is asked for all the same is not asked for again before the C library's time of 2.5 s is over (musl's
/// `resolvconf.c` and `res_msend.c`: 5 s in two attempts).
pub(crate) fn is_apart() -> bool {
    let read = std::fs::read_to_string;
    // Without IPv6 in the kernel there is no second table.
    read("/proc/net/route").is_ok_and(|table| has_no_route(&table, &read("/proc/net/ipv6_route").unwrap_or_default()))
}

/// The kernel's tables of routes: that of IPv4 has a line of titles, and loopback is not in it; that of IPv6 names the device last.
fn has_no_route(ipv4: &str, ipv6: &str) -> bool {
    let to_loopback = |line: &str| line.split_whitespace().last().is_none_or(|device| device == "lo");
    ipv4.lines().skip(1).all(|line| line.trim().is_empty()) && ipv6.lines().all(to_loopback)
}

fn bit(listener: usize) -> u64 {
    1 << (listener % 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_routes_tells_whether_there_is_a_network() {
        let titles = "Iface\tDestination\tGateway \tFlags\n";
        let (ipv4, ipv6) =
            (format!("{titles}eth0\t000011AC\t00000000\t0001\n"), |device: &str| format!("fe80 40 00 00000001     {device}\n"));
        for (why, ipv4, ipv6, none) in [
            ("nothing", titles, String::new(), true),
            ("loopback", titles, ipv6("lo"), true),
            ("IPv4", &ipv4, ipv6("lo"), false),
            ("IPv6 alone", titles, ipv6("lo") + &ipv6("eth0"), false),
        ] {
            assert_eq!(has_no_route(ipv4, &ipv6), none, "{why}");
        }
    }
}

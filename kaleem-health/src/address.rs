//! Where a port of a container is reached from here, and what a failed attempt to connect means.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use kaleem_core::clock::{Clock, SystemClock};
use kaleem_core::health::{Finding, ProbeTarget, Verdict};
use tokio::net::TcpStream;

/// A container on this machine accepts in less than a millisecond; the rest of the time belongs to the other ways.
const LONGEST_TRY: Duration = Duration::from_secs(1);

/// How a place belongs to the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// Its own address, or the host's where it uses the host's network.
    Direct,
    /// A port of the host that the engine forwards. Something listens there even when nothing listens inside.
    Published,
}

/// An open connection.
pub(crate) struct Reached {
    /// The connection.
    pub stream: TcpStream,
    /// Where to.
    pub place: SocketAddr,
    /// How.
    #[cfg_attr(not(feature = "tcp"), expect(dead_code, reason = "an HTTP answer says by itself whether somebody is there"))]
    pub route: Route,
    /// How long it took to connect, over all attempts.
    pub took: Duration,
}

/// The places where `port` of the target may be reached, best first.
pub(crate) fn places(target: &ProbeTarget, port: u16) -> Vec<(SocketAddr, Route)> {
    if target.host_network {
        return vec![(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port), Route::Direct)];
    }
    let own = target.addresses.values().filter_map(|text| text.parse::<IpAddr>().ok());
    let mut places: Vec<_> = own.map(|address| (SocketAddr::new(address, port), Route::Direct)).collect();
    for (_, host) in target.published.iter().filter(|(inside, _)| *inside == port) {
        let address = match host.ip() {
            IpAddr::V4(address) if address.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(address) if address.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            address => address,
        };
        places.push((SocketAddr::new(address, host.port()), Route::Published));
    }
    places
}

/// Connects to the first place that lets us in.
///
/// The caller bounds the whole; here the time is only shared out, so that one dead way leaves time for the next.
pub(crate) async fn connect(target: &ProbeTarget, port: u16, timeout: Duration) -> Result<Reached, Finding> {
    let places = places(target, port);
    let start = SystemClock.monotonic();
    let mut missed = None;
    for (index, (place, route)) in places.iter().copied().enumerate() {
        let left = timeout.saturating_sub(SystemClock.monotonic().saturating_sub(start));
        let is_last = index + 1 == places.len();
        let share = if is_last { left } else { (left / 2).min(LONGEST_TRY) };
        // A refusal is an answer by the target itself; the published port could only hide it.
        if route == Route::Published && matches!(missed, Some(Missed { kind: MissedKind::Refused, .. })) {
            break;
        }
        let kind = match tokio::time::timeout(share, TcpStream::connect(place)).await {
            Ok(Ok(stream)) => {
                return Ok(Reached { stream, place, route, took: SystemClock.monotonic().saturating_sub(start) });
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => MissedKind::Refused,
            Ok(Err(error)) => MissedKind::NoWay(error),
            Err(_) => MissedKind::Silent(share),
        };
        let known = missed.as_ref().map_or(0, |missed: &Missed| missed.kind.weight());
        if kind.weight() > known {
            missed = Some(Missed { place, kind });
        }
    }
    Err(missed.map_or_else(|| no_address(target, port), |missed| missed.finding(target, port)))
}

struct Missed {
    place: SocketAddr,
    kind: MissedKind,
}

enum MissedKind {
    NoWay(io::Error),
    Silent(Duration),
    Refused,
}

impl MissedKind {
    /// The more it says about the target, the heavier.
    fn weight(&self) -> u8 {
        match self {
            Self::NoWay(_) => 1,
            Self::Silent(_) => 2,
            Self::Refused => 3,
        }
    }
}

impl Missed {
    fn finding(self, target: &ProbeTarget, port: u16) -> Finding {
        let place = self.place;
        let service = &target.service;
        match self.kind {
            MissedKind::Refused => Finding::new(Verdict::Fail, format!("connection refused on {place}: nothing listens there yet")).with_remedy(
                format!("check that `{service}` listens on port {port}, and on 0.0.0.0 rather than on 127.0.0.1 inside its container; `docker logs {}` tells how far it got", target.container),
            ),
            MissedKind::Silent(waited) => Finding::new(Verdict::Fail, format!("no connection to {place} within {waited:?}"))
                .with_remedy(format!("check that `{service}` is not overloaded, and that no firewall stands between this host and {place}")),
            MissedKind::NoWay(error) => Finding::new(Verdict::Unknown, format!("could not try to connect to {place}: {error}"))
                .with_remedy(format!("publish port {port} on 127.0.0.1, or use `command` under [services.{service}.health], which asks from inside")),
        }
    }
}

fn no_address(target: &ProbeTarget, port: u16) -> Finding {
    Finding::new(Verdict::Unknown, format!("the container `{}` has no address and does not publish port {port}", target.container))
        .with_remedy(format!("give `{0}` a network, or use `command` under [services.{0}.health], which asks from inside", target.service))
}

//! Connections whose phases are timed: name, connect, TLS. Dropping the future closes what it opened.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use kaleem_core::clock::{Clock, SystemClock};
use kaleem_core::health::{Finding, NoAddress, Resolver, Verdict};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::tls::{Tls, TlsProblem};

/// A container or server that is there accepts within this; the rest of the time belongs to its other addresses.
const LONGEST_TRY: Duration = Duration::from_secs(1);

/// Share of the time that a name may take.
const NAME_SHARE: f64 = 0.75;

/// Bytes both ways, with or without TLS.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Where to, and how.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// Name or address, as it is written in settings; also the name that a certificate must hold.
    pub host: String,
    /// Port.
    pub port: u16,
    /// `None` is plain text.
    pub tls: Option<Tls>,
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}:{}", self.host, self.port)
    }
}

/// An open connection.
pub(crate) struct Dialed {
    /// The connection.
    pub wire: Box<dyn Wire>,
    /// How long each part took.
    pub phases: BTreeMap<String, Duration>,
    /// The certificate of the other side, in DER.
    pub certificate: Option<Vec<u8>>,
    /// The protocol that the other side chose.
    pub alpn: Option<Vec<u8>>,
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum DialError {
    /// The name has no address.
    Name(String),
    /// Nothing runs behind the name.
    Down(String),
    /// Nobody listens.
    Refused(SocketAddr),
    /// Nobody answers.
    Silent(SocketAddr, Duration),
    /// There is no way there from here.
    NoWay(SocketAddr, io::Error),
    /// No TLS.
    Tls(TlsProblem),
}

impl DialError {
    fn weight(&self) -> u8 {
        match self {
            Self::Name(_) | Self::Down(_) => 0,
            Self::NoWay(..) => 1,
            Self::Silent(..) => 2,
            Self::Refused(_) => 3,
            Self::Tls(_) => 4,
        }
    }

    /// What it means.
    pub(crate) fn finding(&self, endpoint: &Endpoint) -> Finding {
        let host = &endpoint.host;
        let port = endpoint.port;
        match self {
            Self::Name(why) => Finding::new(Verdict::Unknown, format!("`{host}` has no address: {why}")).with_remedy(format!(
                "check the name `{host}` and the resolver (/etc/resolv.conf); names of services are known only while their containers run"
            )),
            Self::Down(why) => Finding::new(Verdict::Fail, format!("`{host}` is down: {why}"))
                .with_remedy("see what became of it: `kaleem status`, `docker ps -a`; `kaleem deploy` starts what is missing"),
            Self::Refused(place) => Finding::new(Verdict::Fail, format!("connection refused on {place}: nothing listens there"))
                .with_remedy(format!("check that `{host}` runs and listens on port {port} of 0.0.0.0, not of 127.0.0.1 alone")),
            Self::Silent(place, waited) => Finding::new(Verdict::Fail, format!("no connection to {place} within {waited:?}"))
                .with_remedy(format!("check that `{host}` is not frozen or overloaded, and that no firewall stands before {place}")),
            Self::NoWay(place, error) => Finding::new(Verdict::Unknown, format!("could not try to connect to {place}: {error}"))
                .with_remedy(format!("check the network between this host and {place}")),
            Self::Tls(problem) => problem.finding(endpoint),
        }
    }
}

/// Connects, and speaks TLS where the endpoint asks for it. The caller bounds the whole; `timeout` is only shared out.
pub(crate) async fn dial(endpoint: &Endpoint, resolver: &dyn Resolver, timeout: Duration) -> Result<Dialed, DialError> {
    let (stream, phases) = connect(endpoint, resolver, timeout).await?;
    secure(endpoint, stream, phases).await
}

/// Connects to the first address that lets us in, in plain text.
pub(crate) async fn connect(
    endpoint: &Endpoint,
    resolver: &dyn Resolver,
    timeout: Duration,
) -> Result<(TcpStream, BTreeMap<String, Duration>), DialError> {
    let mut phases = BTreeMap::new();
    let start = SystemClock.monotonic();
    // A resolver that hangs says nothing about the server: it must not use up the time in which the server would be to blame.
    let patience = timeout.mul_f64(NAME_SHARE);
    let named = tokio::time::timeout(patience, resolver.resolve(&endpoint.host, endpoint.port)).await;
    let late = || NoAddress::Unknown(format!("the resolver did not answer within {patience:?}"));
    let places = named.unwrap_or_else(|_| Err(late())).map_err(|none| match none {
        NoAddress::Unknown(why) => DialError::Name(why),
        NoAddress::Down(why) => DialError::Down(why),
    })?;
    let resolved = SystemClock.monotonic();
    phases.insert("dns".to_owned(), resolved.saturating_sub(start));
    let mut missed = DialError::Name("the list of addresses is empty".to_owned());
    for (index, place) in places.iter().copied().enumerate() {
        let left = timeout.saturating_sub(SystemClock.monotonic().saturating_sub(start));
        let share = if index + 1 == places.len() { left } else { (left / 2).min(LONGEST_TRY) };
        let miss = match tokio::time::timeout(share, TcpStream::connect(place)).await {
            Ok(Ok(stream)) => {
                phases.insert("connect".to_owned(), SystemClock.monotonic().saturating_sub(resolved));
                // Small questions are sent at once; where that cannot be set, they are a little later.
                drop(stream.set_nodelay(true));
                return Ok((stream, phases));
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => DialError::Refused(place),
            Ok(Err(error)) => DialError::NoWay(place, error),
            Err(_) => DialError::Silent(place, share),
        };
        if miss.weight() > missed.weight() {
            missed = miss;
        }
    }
    Err(missed)
}

async fn secure(endpoint: &Endpoint, stream: TcpStream, mut phases: BTreeMap<String, Duration>) -> Result<Dialed, DialError> {
    let Some(tls) = &endpoint.tls else {
        return Ok(Dialed { wire: Box::new(stream), phases, certificate: None, alpn: None });
    };
    let start = SystemClock.monotonic();
    let secured = tls.connect(&endpoint.host, stream).await.map_err(DialError::Tls)?;
    phases.insert("tls".to_owned(), SystemClock.monotonic().saturating_sub(start));
    let (_, session) = secured.get_ref();
    let certificate = session.peer_certificates().and_then(|chain| chain.first()).map(|leaf| leaf.as_ref().to_vec());
    let alpn = session.alpn_protocol().map(<[u8]>::to_vec);
    Ok(Dialed { wire: Box::new(secured), phases, certificate, alpn })
}

//! How a client gets to a server: an address, TLS to an address, or a name that the resolver of a container network knows.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UdpSocket};
use tokio_rustls::TlsConnector;

/// The resolver that Docker puts into every container on a network of its own.
const RESOLVER: (Ipv4Addr, u16) = (Ipv4Addr::new(127, 0, 0, 11), 53);
/// It answers in milliseconds, or asks upstream for what it does not know.
const RESOLVES_WITHIN: Duration = Duration::from_secs(5);

/// Bytes in both directions.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// How a client reaches a server.
#[derive(Clone)]
pub(crate) enum Route {
    /// HTTP at an address.
    Plain(SocketAddr),
    /// HTTPS at an address, with a certificate for `localhost`.
    Tls(SocketAddr, Arc<ClientConfig>),
    /// HTTP at a name that is looked up for each connection, as a container does. Only for a thread inside a container's network.
    Name(String, u16),
}

impl Route {
    /// HTTPS that trusts one certificate.
    pub(crate) fn tls(address: SocketAddr, certificate: CertificateDer<'static>) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        roots.add(certificate).map_err(|error| error.to_string())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
        Ok(Self::Tls(address, Arc::new(builder.with_root_certificates(roots).with_no_client_auth())))
    }

    /// What a client says in `Host`.
    pub(crate) fn host(&self) -> String {
        match self {
            Self::Plain(address) => address.to_string(),
            Self::Tls(address, _) => format!("localhost:{}", address.port()),
            Self::Name(name, port) => format!("{name}:{port}"),
        }
    }

    /// Opens a connection.
    pub(crate) async fn connect(&self) -> Result<Box<dyn Stream>, String> {
        let address = match self {
            Self::Plain(address) | Self::Tls(address, _) => *address,
            Self::Name(name, port) => SocketAddr::from((look_up(name).await?, *port)),
        };
        let stream = TcpStream::connect(address).await.map_err(|error| format!("could not connect: {error}"))?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let Self::Tls(_, config) = self else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from("localhost").map_err(|error| error.to_string())?;
        let stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await.map_err(|error| format!("TLS: {error}"))?;
        Ok(Box::new(stream))
    }
}

/// The first IPv4 address of a name. Where there are several, Docker's resolver mixes them.
async fn look_up(name: &str) -> Result<Ipv4Addr, String> {
    let ask = async {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        socket.connect(RESOLVER).await?;
        socket.send(&question(name)).await?;
        let mut answer = [0; 1500];
        let length = socket.recv(&mut answer).await?;
        std::io::Result::Ok(first_address(answer.get(..length).unwrap_or_default()))
    };
    match tokio::time::timeout(RESOLVES_WITHIN, ask).await {
        Ok(Ok(Some(address))) => Ok(address),
        Ok(Ok(None)) => Err(format!("`{name}` has no address")),
        Ok(Err(error)) => Err(format!("could not look up `{name}`: {error}")),
        Err(_) => Err(format!("could not look up `{name}`: no answer within {RESOLVES_WITHIN:?}")),
    }
}

/// A question for the IPv4 addresses of a name (RFC 1035, 4.1).
fn question(name: &str) -> Vec<u8> {
    // Identity 1, recursion wanted, one question.
    let mut bytes = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap_or(0));
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.extend_from_slice(&[0, 0, 1, 0, 1]);
    bytes
}

/// The first IPv4 address in an answer to [`question`].
fn first_address(answer: &[u8]) -> Option<Ipv4Addr> {
    let number = |at: usize| Some(u16::from_be_bytes([*answer.get(at)?, *answer.get(at + 1)?]));
    let after_name = |mut at: usize| loop {
        match *answer.get(at)? {
            0 => return Some(at + 1),
            // The rest of the name stands elsewhere.
            length if length >= 0xc0 => return Some(at + 2),
            length => at += 1 + usize::from(length),
        }
    };
    let mut at = 12;
    for _ in 0..number(4)? {
        at = after_name(at)? + 4;
    }
    for _ in 0..number(6)? {
        at = after_name(at)?;
        let (kind, length) = (number(at)?, usize::from(number(at + 8)?));
        let content = at + 10;
        if kind == 1 {
            let bytes: [u8; 4] = answer.get(content..content + 4)?.try_into().ok()?;
            return Some(Ipv4Addr::from(bytes));
        }
        at = content + length;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_from_an_answer_and_not_from_half_of_one() {
        let mut answer = question("api");
        answer[7] = 2;
        // An alias first, then the address; both names point back to the question.
        answer.extend_from_slice(&[0xc0, 12, 0, 5, 0, 1, 0, 0, 2, 88, 0, 2, 0xc0, 12]);
        answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 2, 88, 0, 4, 172, 18, 0, 3]);
        assert_eq!(first_address(&answer), Some(Ipv4Addr::new(172, 18, 0, 3)));
        for length in 0..answer.len() {
            assert_eq!(first_address(&answer[..length]), None, "{length}");
        }
        assert_eq!(first_address(&question("api")), None, "a name that is not known");
    }
}

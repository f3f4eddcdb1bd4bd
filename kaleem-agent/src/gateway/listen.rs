//! Where a gateway listens, and how what arrives there is understood.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

use super::GatewayError;

/// Connections that the kernel keeps while no worker accepts: a crash of the worker must fit into it.
const BACKLOG: i32 = 4096;
/// How long a port may still be held by the workers of a gateway that was killed, and how often that is looked at.
const PREDECESSOR: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

/// How the bytes of a port are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// HTTP/1.1, routed by request.
    Http,
    /// Anything, TLS included, routed by connection.
    Tcp,
}

/// One port of the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenSpec {
    /// Address to bind; `None` is every address, IPv6 too where there is any.
    pub address: Option<IpAddr>,
    /// Port, which is also the instance's unless a target says otherwise.
    pub port: u16,
    /// How it is understood.
    pub mode: Mode,
    /// Whether connections begin with a PROXY header that names the client.
    pub accept_proxy: bool,
    /// Whether connections to instances begin with one (TCP mode only).
    pub send_proxy: bool,
}

impl FromStr for ListenSpec {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let usage = || format!("`{text}` is not `[ADDRESS:]PORT/http` or `[ADDRESS:]PORT/tcp`, with `,accept-proxy` or `,send-proxy`");
        let mut parts = text.split(',');
        let (place, mode) = parts.next().and_then(|first| first.rsplit_once('/')).ok_or_else(usage)?;
        let (address, port) = match place.parse::<SocketAddr>() {
            Ok(address) => (Some(address.ip()), address.port()),
            Err(_) => (None, place.parse().map_err(|_| usage())?),
        };
        let mode = match mode {
            "http" => Mode::Http,
            "tcp" => Mode::Tcp,
            _ => return Err(usage()),
        };
        let mut spec = Self { address, port, mode, accept_proxy: false, send_proxy: false };
        for option in parts {
            match option {
                "accept-proxy" => spec.accept_proxy = true,
                "send-proxy" if mode == Mode::Tcp => spec.send_proxy = true,
                "send-proxy" => return Err("`send-proxy` is for `/tcp` alone: requests of many clients share a connection".to_owned()),
                _ => return Err(usage()),
            }
        }
        if spec.port == 0 {
            return Err("port 0 means nothing to those who are to connect".to_owned());
        }
        Ok(spec)
    }
}

impl fmt::Display for ListenSpec {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => write!(out, "{}", SocketAddr::new(address, self.port)),
            None => write!(out, "*:{}", self.port),
        }
    }
}

impl ListenSpec {
    /// As an argument has it.
    pub(crate) fn to_argument(&self) -> String {
        let place = self.address.map_or_else(|| self.port.to_string(), |address| SocketAddr::new(address, self.port).to_string());
        let mode = match self.mode {
            Mode::Http => "http",
            Mode::Tcp => "tcp",
        };
        let accept = if self.accept_proxy { ",accept-proxy" } else { "" };
        let send = if self.send_proxy { ",send-proxy" } else { "" };
        format!("{place}/{mode}{accept}{send}")
    }

    /// Whether what arrives at both goes to the same port of an instance and is understood in the same way.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let of = |spec: &Self| (spec.port, spec.mode, spec.accept_proxy, spec.send_proxy);
        of(self) == of(other)
    }

    /// Binds the port without listening: a client is refused until somebody does. Another such socket may have it, too.
    pub(crate) fn bind_shared(&self) -> io::Result<Socket> {
        self.each_address(|address| bind(address, Sharing::WithOwn))
    }

    fn each_address<T>(&self, open: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
        match self.address {
            Some(address) => open(SocketAddr::new(address, self.port)),
            // A container without IPv6 has no `::` to bind.
            None => open(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), self.port))
                .or_else(|_| open(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), self.port))),
        }
    }

    /// Opens the port.
    ///
    /// # Errors
    ///
    /// [`GatewayError::Listen`], for example when another process has the port.
    pub(crate) fn bind(&self) -> Result<TcpListener, GatewayError> {
        let attempt = || self.each_address(|address| bind(address, Sharing::WithNobody).and_then(listen));
        let mut patience = PREDECESSOR;
        loop {
            match attempt() {
                Ok(listener) => return Ok(listener),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && !patience.is_zero() => {
                    std::thread::sleep(PAUSE);
                    patience = patience.saturating_sub(PAUSE);
                }
                Err(source) => return Err(GatewayError::Listen { address: self.to_string(), source }),
            }
        }
    }
}

/// Who else may have the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sharing {
    WithNobody,
    /// Sockets of the same user.
    WithOwn,
}

/// Lets connections in.
pub(crate) fn listen(socket: Socket) -> io::Result<TcpListener> {
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn bind(address: SocketAddr, sharing: Sharing) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // Inherited by what is accepted, which spares a call for each connection.
    socket.set_tcp_nodelay(true)?;
    socket.set_reuse_port(sharing == Sharing::WithOwn)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Opens the control socket, which only the gateway's user and root may use.
///
/// # Errors
///
/// [`GatewayError::Listen`], for example when the directory is not writable.
pub(crate) fn bind_control(path: &Path) -> Result<UnixListener, GatewayError> {
    let attempt = || -> io::Result<UnixListener> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // The mode must be right from the first moment on.
        let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
        let bound = UnixListener::bind(path);
        rustix::process::umask(before);
        let listener = bound?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    attempt().map_err(|source| GatewayError::Listen { address: path.display().to_string(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_says_how_it_is_understood_or_is_refused() {
        for (why, text, ok) in [
            ("plain", "3000/http", true),
            ("address", "127.0.0.1:3000/tcp", true),
            ("IPv6 address", "[::1]:3000/http", true),
            ("options", "443/tcp,accept-proxy,send-proxy", true),
            ("requests of many clients share a connection", "80/http,send-proxy", false),
            ("no mode", "3000", false),
            ("unknown mode", "3000/udp", false),
            ("unknown option", "3000/http,fast", false),
            ("nobody could connect", "0/http", false),
        ] {
            let spec = text.parse::<ListenSpec>();
            assert_eq!(spec.is_ok(), ok, "{why}: {text}");
            if let Ok(spec) = spec {
                assert_eq!(spec.to_argument(), text, "{why}");
            }
        }
    }
}

//! The PROXY protocol, version 2: who a connection is for, said in front of its first byte.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Longest header that is read; real ones have well below 600 bytes.
const LONGEST: usize = 4096;

/// Reads a header and answers with the client it names; `None` where the proxy speaks for itself, as its health checks do.
///
/// # Errors
///
/// When the connection does not begin with such a header.
pub(crate) async fn read<R: AsyncRead + Unpin>(stream: &mut R) -> io::Result<Option<SocketAddr>> {
    let bad = |reason: &'static str| io::Error::new(io::ErrorKind::InvalidData, reason);
    let mut head = [0_u8; 16];
    stream.read_exact(&mut head).await?;
    let [signature @ .., version_command, family, high, low] = head;
    if signature != SIGNATURE || version_command >> 4 != 2 {
        return Err(bad("no PROXY header of version 2"));
    }
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > LONGEST {
        return Err(bad("the PROXY header is too long"));
    }
    let mut addresses = vec![0_u8; length];
    stream.read_exact(&mut addresses).await?;
    match version_command & 0x0f {
        0 => return Ok(None),
        1 => {}
        _ => return Err(bad("an unknown command in the PROXY header")),
    }
    match (family, addresses.as_slice()) {
        (0x11, [a, b, c, d, _, _, _, _, high, low, ..]) => {
            Ok(Some(SocketAddr::new(Ipv4Addr::new(*a, *b, *c, *d).into(), u16::from_be_bytes([*high, *low]))))
        }
        (0x21, bytes) => {
            let (Some(address), Some(&[high, low])) = (bytes.first_chunk::<16>(), bytes.get(32..34)) else {
                return Err(bad("the PROXY header is too short"));
            };
            Ok(Some(SocketAddr::new(Ipv6Addr::from(*address).into(), u16::from_be_bytes([high, low]))))
        }
        (0x11, _) => Err(bad("the PROXY header is too short")),
        // Sockets of other kinds have no address that would mean anything here.
        _ => Ok(None),
    }
}

/// The header that says that a connection to `destination` is for `source`.
pub(crate) fn header(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    header.push(0x21);
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            header.extend([0x11, 0, 12]);
            header.extend(from.octets());
            header.extend(to.octets());
        }
        (from, to) => {
            let wide = |address: IpAddr| match address {
                IpAddr::V4(address) => address.to_ipv6_mapped(),
                IpAddr::V6(address) => address,
            };
            header.extend([0x21, 0, 36]);
            header.extend(wide(from).octets());
            header.extend(wide(to).octets());
        }
    }
    header.extend(source.port().to_be_bytes());
    header.extend(destination.port().to_be_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_written_is_read_again() {
        for (from, to) in [("192.0.2.7:4711", "127.0.0.1:80"), ("[2001:db8::7]:4711", "127.0.0.1:80"), ("[::1]:1", "[::1]:2")] {
            let source: SocketAddr = from.parse().unwrap();
            let bytes = [header(source, to.parse().unwrap()), b"rest".to_vec()].concat();
            let mut stream = bytes.as_slice();
            assert_eq!(read(&mut stream).await.unwrap(), Some(source));
            assert_eq!(stream, b"rest", "nothing of what follows is eaten");
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        let mut local = header("192.0.2.7:1".parse().unwrap(), "192.0.2.8:2".parse().unwrap());
        local[12] = 0x20;
        assert_eq!(read(&mut local.as_slice()).await.unwrap(), None, "a health check of the proxy itself");
        for (why, bytes) in [
            ("plain HTTP", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
            ("version 1", b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\n".to_vec()),
            ("cut short", local[..20].to_vec()),
            ("too long", [&SIGNATURE[..], &[0x21, 0x11, 0xff, 0xff]].concat()),
            ("too short for its family", [&SIGNATURE[..], &[0x21, 0x11, 0, 2, 1, 2]].concat()),
        ] {
            assert!(read(&mut bytes.as_slice()).await.is_err(), "{why}");
        }
    }
}

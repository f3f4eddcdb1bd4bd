//! A first word on a connection of our own: what does not speak MongoDB never meets the driver, which would try for long.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use kaleem_core::health::{Finding, Resolver, Verdict};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::dial::{Endpoint, connect};

/// `OP_MSG` with `{hello: 1, $db: "admin"}`: header, flags, one section of kind 0.
const HELLO: &[u8] = b"\x34\0\0\0\x01\0\0\0\0\0\0\0\xdd\x07\0\0\0\0\0\0\0\
    \x1f\0\0\0\x10hello\0\x01\0\0\0\x02$db\0\x06\0\0\0admin\0\0";
const OP_MSG: u32 = 2013;
/// A greeting of the largest set is some kilobytes.
const LONGEST_GREETING_BYTES: u32 = 1024 * 1024;

/// Connects, and where the first word is not TLS waits for a greeting. Gives the address that answered.
pub(super) async fn greet(
    endpoint: &Endpoint,
    in_plain_text: bool,
    resolver: &dyn Resolver,
    timeout: Duration,
) -> Result<(SocketAddr, BTreeMap<String, Duration>), Finding> {
    let (mut stream, phases) = connect(endpoint, resolver, timeout).await.map_err(|error| error.finding(endpoint))?;
    let closed = |_| {
        Finding::new(Verdict::Fail, format!("{endpoint} closed the connection without an answer"))
            .with_remedy("see its log; a server that wants TLS needs `tls=true` in the address")
    };
    let address = stream.peer_addr().map_err(closed)?;
    if in_plain_text {
        stream.write_all(HELLO).await.map_err(closed)?;
        let mut header = [0; 16];
        stream.read_exact(&mut header).await.map_err(closed)?;
        let [l0, l1, l2, l3, _, _, _, _, r0, r1, r2, r3, o0, o1, o2, o3] = header;
        let (length, answers, operation) =
            (u32::from_le_bytes([l0, l1, l2, l3]), u32::from_le_bytes([r0, r1, r2, r3]), u32::from_le_bytes([o0, o1, o2, o3]));
        if operation != OP_MSG || answers != 1 || !(21..LONGEST_GREETING_BYTES).contains(&length) {
            return Err(Finding::new(Verdict::Fail, format!("{endpoint} does not speak the protocol of MongoDB"))
                .with_remedy("check the port (27017), and whether it wants TLS: `tls=true` in the address"));
        }
    }
    Ok((address, phases))
}

#[cfg(test)]
mod tests {
    use super::HELLO;

    #[test]
    fn the_first_word_has_the_lengths_that_it_says() {
        assert_eq!(usize::from(HELLO[0]), HELLO.len());
        assert_eq!(usize::from(HELLO[21]), HELLO.len() - 21, "the document");
        let document = mongodb::bson::Document::from_reader(&HELLO[21..]).unwrap();
        assert_eq!(document, mongodb::bson::doc! { "hello": 1, "$db": "admin" });
    }
}

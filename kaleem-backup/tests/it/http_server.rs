//! What servers of the tests' own share: they speak HTTP with everybody who comes, and are wrong on purpose elsewhere.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

/// What comes before the body of a request.
pub(crate) struct Head {
    pub(crate) method: String,
    pub(crate) target: String,
    /// Names are in small letters.
    pub(crate) headers: BTreeMap<String, String>,
}

/// Speaks with everybody at once, until the end of the process.
pub(crate) fn converse_with_all(listener: TcpListener, converse: impl Fn(TcpStream) -> std::io::Result<()> + Send + Sync + 'static) {
    let converse = Arc::new(converse);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let converse = converse.clone();
            std::thread::spawn(move || drop(converse(stream)));
        }
    });
}

/// The next head; `None` where the other side went away.
pub(crate) fn read_head(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<Head>> {
    let mut first = String::new();
    if reader.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.trim().to_owned()),
            None => break,
        };
    }
    let mut words = first.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
    Ok(Some(Head { method, target, headers }))
}

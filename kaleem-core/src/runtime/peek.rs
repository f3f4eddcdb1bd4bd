//! What can be seen of containers from outside: nothing is run in them, and nothing on them changes.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use async_trait::async_trait;

use super::RuntimeError;
use crate::names::ContainerName;

/// A program that runs in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number as the host counts, so the first process of a container has the lowest.
    pub pid: u32,
    /// Its command line. A program that sets its title shows one word: `nginx: master process nginx -g daemon off;`.
    pub words: Vec<String>,
}

/// One TCP socket of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Its own side.
    pub local: SocketAddr,
    /// The other side.
    pub remote: SocketAddr,
    /// What it is doing.
    pub state: SocketState,
}

/// What a socket is doing, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketState {
    /// A connection is open.
    Established,
    /// It waits for connections.
    Listening,
    /// It is being opened or closed.
    Other,
}

/// What goes on in a running container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inside {
    /// What runs in it, by number.
    pub processes: Vec<Process>,
    /// Its TCP sockets; `None` where this process cannot see them, as with an engine on another host.
    pub sockets: Option<Vec<Socket>>,
}

impl Inside {
    /// How many connections were opened from inside to one of `addresses`. A connection that came in, at a port on which a
    /// program of the container listens, does not count: a database does not remember where its clients are.
    pub fn connections_to(&self, addresses: &[IpAddr]) -> usize {
        let sockets = || self.sockets.iter().flatten();
        let listens = |port| sockets().any(|socket| socket.state == SocketState::Listening && socket.local.port() == port);
        let open = |socket: &&Socket| socket.state == SocketState::Established && addresses.contains(&socket.remote.ip());
        sockets().filter(open).filter(|socket| !listens(socket.local.port())).count()
    }
}

/// A file of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerFile {
    /// A regular file that is text.
    Text(String),
    /// A symbolic link, as it is written.
    Link(String),
}

/// Files of a container by absolute path inside it.
pub type ContainerFiles = BTreeMap<String, ContainerFile>;

/// What is seen of containers without touching them.
///
/// # Contract
/// - No call runs a command in a container, and none changes anything.
/// - `inside` has an entry for each of `containers` that runs, and asks the engine at most one question for each of them.
/// - `files` and `mounted_files` leave out what is not text, and stop at `most_bytes`; a path that is not there has no files.
#[async_trait]
pub trait Peek: Send + Sync {
    /// What goes on in those of `containers` that run.
    ///
    /// # Errors
    /// [`RuntimeError`] when the engine could not be asked at all.
    async fn inside(&self, containers: &[ContainerName]) -> Result<BTreeMap<ContainerName, Inside>, RuntimeError>;
    /// The file `path` of a container, or the files below it: one question.
    ///
    /// # Errors
    /// [`RuntimeError`] when the engine could not be asked.
    async fn files(&self, container: &ContainerName, path: &str, most_bytes: usize) -> Result<ContainerFiles, RuntimeError>;
    /// The same, as far as it is mounted from this host and may be read there: the container itself is only inspected.
    ///
    /// # Errors
    /// [`RuntimeError`] when the engine could not be asked.
    async fn mounted_files(&self, container: &ContainerName, path: &str, most_bytes: usize) -> Result<ContainerFiles, RuntimeError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_connections_to_an_address_are_counted_and_nothing_else() {
        let socket = |local: &str, remote: &str, state| Socket { local: local.parse().unwrap(), remote: remote.parse().unwrap(), state };
        let sockets = vec![
            socket("192.168.0.2:40000", "192.168.0.5:3000", SocketState::Established),
            socket("192.168.0.2:40001", "192.168.0.5:3000", SocketState::Other),
            socket("192.168.0.2:40002", "192.168.0.6:3000", SocketState::Established),
            socket("0.0.0.0:6379", "0.0.0.0:0", SocketState::Listening),
            socket("192.168.0.2:6379", "192.168.0.5:40003", SocketState::Established),
        ];
        let inside = Inside { processes: Vec::new(), sockets: Some(sockets) };
        let five: IpAddr = "192.168.0.5".parse().unwrap();
        assert_eq!(inside.connections_to(&[five]), 1, "one is closing, one goes elsewhere, one came in");
        assert_eq!(Inside::default().connections_to(&[five]), 0, "what is not seen is not counted");
    }
}

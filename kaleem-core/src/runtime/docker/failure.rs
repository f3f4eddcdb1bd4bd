//! What the engine's answers mean when they are not what was hoped for.
//!
//! Engines tell most causes only in words, which change over the years; all the words that matter are here.

use std::error::Error;
use std::io;
use std::time::Duration;

use bollard::errors::Error as ClientError;

use crate::runtime::RuntimeError;

/// A question that was not answered as hoped.
#[derive(Debug)]
pub(super) struct Failure {
    operation: String,
    endpoint: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// The engine said no.
    Refused { status: u16, message: String },
    /// The connection failed, or what came makes no sense.
    Connection(Box<ClientError>),
    /// Nothing came.
    Silent(Duration),
}

/// An answer that no Docker engine gives. The text holds nothing of the answer: it may hold secrets.
pub(super) fn nonsense(operation: &str, reason: impl Into<String>) -> RuntimeError {
    let source = Box::new(io::Error::new(io::ErrorKind::InvalidData, reason.into()));
    RuntimeError::Broken { operation: operation.to_owned(), source }
}

/// The first cause that is an error of the operating system.
fn io_kind(error: &ClientError) -> Option<io::ErrorKind> {
    // This kind passes itself off as its own source, and so is not among the sources.
    if let ClientError::IOError { err } = error {
        return Some(err.kind());
    }
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(current) = next {
        if let Some(io) = current.downcast_ref::<io::Error>() {
            return Some(io.kind());
        }
        next = current.source();
    }
    None
}

/// The cause without the layers of the client library, and without anything that was in the body.
fn cause(error: ClientError) -> Box<dyn Error + Send + Sync> {
    match error {
        ClientError::HyperLegacyError { err } => Box::new(err),
        ClientError::HyperResponseError { err } => Box::new(err),
        ClientError::IOError { err } => Box::new(err),
        ClientError::SocketNotFoundError(_) => Box::new(io::Error::from(io::ErrorKind::NotFound)),
        ClientError::JsonDataError { column, .. } => {
            let text = format!("the answer is not what a Docker engine answers (column {column})");
            Box::new(io::Error::new(io::ErrorKind::InvalidData, text))
        }
        ClientError::JsonSerdeError { err } => {
            let text = format!("the answer is not what a Docker engine answers (column {})", err.column());
            Box::new(io::Error::new(io::ErrorKind::InvalidData, text))
        }
        other => Box::new(io::Error::other(other.to_string())),
    }
}

impl Failure {
    pub(super) fn new(operation: &str, endpoint: &str, error: ClientError) -> Self {
        let kind = match error {
            ClientError::DockerResponseServerError { status_code, message } => {
                Kind::Refused { status: status_code, message: shorten(&message) }
            }
            ClientError::DockerStreamError { error } => Kind::Refused { status: 500, message: shorten(&error) },
            other => Kind::Connection(Box::new(other)),
        };
        Self { operation: operation.to_owned(), endpoint: endpoint.to_owned(), kind }
    }

    pub(super) fn silent(operation: &str, endpoint: &str, limit: Duration) -> Self {
        Self { operation: operation.to_owned(), endpoint: endpoint.to_owned(), kind: Kind::Silent(limit) }
    }

    /// The HTTP status of a refusal.
    pub(super) fn status(&self) -> Option<u16> {
        match &self.kind {
            Kind::Refused { status, .. } => Some(*status),
            Kind::Connection(_) | Kind::Silent(_) => None,
        }
    }

    /// The engine's words of a refusal; else empty.
    pub(super) fn message(&self) -> &str {
        match &self.kind {
            Kind::Refused { message, .. } => message,
            Kind::Connection(_) | Kind::Silent(_) => "",
        }
    }

    /// Whether what was asked about does not exist.
    pub(super) fn is_missing(&self) -> bool {
        self.status() == Some(404)
    }

    /// Whether the container's name belongs to another one.
    pub(super) fn is_name_taken(&self) -> bool {
        self.status() == Some(409) && self.message().contains("already in use by container")
    }

    /// Whether the container must be stopped first.
    pub(super) fn is_still_running(&self) -> bool {
        let words = ["cannot remove a running", "cannot remove a restarting", "cannot remove a paused", "container is running"];
        let more = ["container is restarting", "container is paused", "must be unpaused first"];
        self.status() == Some(409) && words.iter().chain(&more).any(|words| self.message().contains(words))
    }

    /// Whether someone else removes the container at this moment.
    pub(super) fn is_being_removed(&self) -> bool {
        self.status() == Some(409) && (self.message().contains("already in progress") || self.message().contains("marked for removal"))
    }

    /// The host's port that is taken, if that is the cause.
    pub(super) fn port_taken(&self) -> Option<String> {
        port_taken(self.message())
    }

    /// What the seam says of it when the caller knows nothing better.
    pub(super) fn into_error(self) -> RuntimeError {
        let Self { operation, endpoint, kind } = self;
        match kind {
            Kind::Refused { status, message } => RuntimeError::Refused { operation, status, message },
            Kind::Silent(limit) => {
                let source = Box::new(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {limit:?}")));
                RuntimeError::Broken { operation, source }
            }
            Kind::Connection(error) => {
                let is_connect = match &*error {
                    ClientError::HyperLegacyError { err } => err.is_connect(),
                    ClientError::SocketNotFoundError(_) | ClientError::IOError { .. } => true,
                    _ => false,
                };
                if is_connect && io_kind(&error) == Some(io::ErrorKind::PermissionDenied) {
                    RuntimeError::PermissionDenied { endpoint }
                } else if is_connect {
                    RuntimeError::Unreachable { endpoint, source: cause(*error) }
                } else {
                    RuntimeError::Broken { operation, source: cause(*error) }
                }
            }
        }
    }
}

/// The engine's words on one line, cut to what a person reads; a page of HTML becomes its beginning.
fn shorten(message: &str) -> String {
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(600) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

/// Finds address and port in the words for a port that is taken.
fn port_taken(message: &str) -> Option<String> {
    let taken = message.contains("port is already allocated")
        || message.contains("all ports are allocated")
        || (message.contains("address already in use") && (message.contains("bind") || message.contains("listen")));
    if !taken {
        return None;
    }
    let markers =
        ["Bind for ", "failed to bind host port for ", "failed to bind host port ", "listen tcp4 ", "listen tcp6 ", "listen tcp "];
    let more = ["listen udp4 ", "listen udp6 ", "listen udp ", "listen sctp4 ", "listen sctp "];
    let place = markers.iter().chain(&more).find_map(|marker| message.split_once(marker).map(|(_, rest)| rest));
    let Some(token) = place.and_then(|rest| rest.split_whitespace().next()) else { return Some("of the container".to_owned()) };
    let token = token.trim_end_matches([':', ',', '.']);
    let token = token.split_once('/').map_or(token, |(address, _)| address);
    // Some engines append the container's own address: `0.0.0.0:80:172.17.0.2:80`.
    let parts: Vec<&str> = token.split(':').collect();
    match parts.as_slice() {
        [ip, port, _, _] if !token.starts_with('[') => Some(format!("{ip}:{port}")),
        _ => Some(token.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_known_by_the_words_of_every_engine() {
        let external = "driver failed programming external connectivity on endpoint a (5f): ";
        for (why, message, wanted) in [
            (
                "20.10, another container",
                format!("{external}Bind for 0.0.0.0:8080 failed: port is already allocated"),
                Some("0.0.0.0:8080"),
            ),
            (
                "20.10, a process",
                format!("{external}Error starting userland proxy: listen tcp4 127.0.0.1:80: bind: address already in use"),
                Some("127.0.0.1:80"),
            ),
            (
                "28",
                format!("{external}failed to bind host port for 0.0.0.0:80:172.17.0.2:80/tcp: address already in use"),
                Some("0.0.0.0:80"),
            ),
            ("29", format!("{external}failed to bind host port 0.0.0.0:80/tcp: address already in use"), Some("0.0.0.0:80")),
            ("IPv6", format!("{external}failed to bind host port [::]:80/tcp: address already in use"), Some("[::]:80")),
            ("a static address of a network", "Address already in use".to_owned(), None),
            ("something else", "no such image".to_owned(), None),
        ] {
            assert_eq!(port_taken(&message).as_deref(), wanted, "{why}");
        }
    }

    #[test]
    fn the_words_for_names_and_running_containers_are_known() {
        let refusal = |status, message: &str| {
            let error = ClientError::DockerResponseServerError { status_code: status, message: message.to_owned() };
            Failure::new("x", "unix:///x", error)
        };
        let conflict = "Conflict. The container name \"/a\" is already in use by container \"5f\". You have to remove (or rename)";
        assert!(refusal(409, conflict).is_name_taken());
        assert!(refusal(409, "You cannot remove a running container 5f. Stop the container before").is_still_running());
        assert!(refusal(409, "cannot remove container \"/a\": container is running: stop the container before").is_still_running());
        assert!(refusal(409, "removal of container 5f is already in progress").is_being_removed());
        assert!(!refusal(409, conflict).is_still_running() && !refusal(500, conflict).is_name_taken());
    }

    #[test]
    fn a_socket_that_may_not_be_opened_is_told_apart_from_one_that_is_not_there() {
        let failed = |kind: io::ErrorKind| Failure::new("x", "unix:///x", ClientError::IOError { err: kind.into() }).into_error();
        assert!(matches!(failed(io::ErrorKind::PermissionDenied), RuntimeError::PermissionDenied { .. }));
        assert!(matches!(failed(io::ErrorKind::NotFound), RuntimeError::Unreachable { .. }));
    }

    #[test]
    fn an_answer_that_is_no_json_is_never_repeated() {
        let error = serde_json::from_str::<u8>("\"hunter2\"").unwrap_err();
        let error = Failure::new("inspect", "unix:///x", ClientError::JsonSerdeError { err: error }).into_error();
        assert!(!crate::remedy::one_line(&error).contains("hunter2"));
        assert!(matches!(error, RuntimeError::Broken { .. }));
    }
}

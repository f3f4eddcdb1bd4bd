//! A registry on loopback, with a configuration of its own: the package's listens on every address.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use crate::fail::TaskError;
use crate::place::{Place, create_directory, write};
use crate::programs::{Program, Started, wait_until};
use crate::say;
use crate::setup::engine::{runs, stop_recorded};

const NAME: &str = "docker-registry";
const FIRST_PORT: u16 = 5000;
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// Process id and port of the one that was started.
fn id_file(place: &Place) -> PathBuf {
    place.tools.join("registry.pid")
}

/// Address of a registry that answers, and what was started for it, if anything.
pub(crate) fn ensure(place: &Place) -> Result<(String, Option<Started>), TaskError> {
    if let Some(port) = running(place) {
        return Ok((format!("127.0.0.1:{port}"), None));
    }
    let port = (FIRST_PORT..FIRST_PORT + 100)
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .ok_or_else(|| TaskError::Unexpected { what: format!("no port from {FIRST_PORT} on is free on 127.0.0.1") })?;
    let images = place.tools.join("registry");
    create_directory(&images)?;
    let configuration = place.tools.join("registry.yml");
    let text = format!(
        "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: '{}'}}, delete: {{enabled: true}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n",
        images.display()
    );
    write(&configuration, &text)?;
    let log = place.tools.join("registry.log");
    say::step(&format!("starting a registry on 127.0.0.1:{port} (log: {})", log.display()));
    let mut server = Program::new(place, NAME).arg("serve").arg(&configuration).start(&log)?;
    write(&id_file(place), &format!("{} {port}", server.id()))?;
    if !wait_until(ANSWER_WITHIN, || server.has_ended() || answers(port)) || server.has_ended() {
        return Err(TaskError::Silent { what: format!("the registry on 127.0.0.1:{port}"), seconds: ANSWER_WITHIN.as_secs(), log });
    }
    Ok((format!("127.0.0.1:{port}"), Some(server)))
}

/// Ends the registry that an earlier run started.
pub(crate) fn stop(place: &Place) -> Result<(), TaskError> {
    stop_recorded(&id_file(place), NAME)
}

fn running(place: &Place) -> Option<u16> {
    let text = std::fs::read_to_string(id_file(place)).ok()?;
    let (id, port) = text.split_once(' ')?;
    let port = port.trim().parse().ok()?;
    (runs(id.parse().ok()?, NAME) && answers(port)).then_some(port)
}

fn answers(port: u16) -> bool {
    let ask = || -> std::io::Result<bool> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET /v2/ HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(&head == b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}

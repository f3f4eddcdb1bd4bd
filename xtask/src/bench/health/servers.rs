//! The servers that are watched while it is measured: one real one of each kind, on loopback.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use kaleem_core::testing::rabbitmq::{self, BrokerPorts};

use crate::fail::TaskError;
use crate::place::{Place, create_directory, free_port, write};
use crate::programs::{Program, Started, wait_until};
use crate::setup::mongo_server;

/// A broker takes its time on a busy machine.
const ANSWERS_WITHIN: Duration = Duration::from_secs(90);

/// Where they answer. They end with the value.
pub(super) struct Servers {
    pub redis: SocketAddr,
    pub web: SocketAddr,
    pub broker: SocketAddr,
    pub mongo: SocketAddr,
    _running: Vec<Started>,
}

impl Servers {
    /// Starts all of them below `directory`.
    pub(super) fn start(place: &Place, directory: &Path) -> Result<Self, TaskError> {
        let [redis, web, broker, mongo] = [address()?, address()?, address()?, address()?];
        let mut running = vec![
            Program::new(place, "redis-server")
                .args(["--bind", "127.0.0.1", "--save", "", "--port"])
                .arg(redis.port().to_string())
                .start(&directory.join("redis.log"))?,
            nginx(place, &directory.join("web"), web)?,
            Program::new(place, mongo_server::program(place))
                .args(["--host", "127.0.0.1", "--port", &mongo.port().to_string(), "--storage-path"])
                .arg(directory.join("mongo"))
                .start(&directory.join("mongo.log"))?,
        ];
        running.extend(rabbitmq(place, &directory.join("broker"), broker)?);
        for (address, log) in [(redis, "redis.log"), (web, "web/log"), (mongo, "mongo.log"), (broker, "broker/log")] {
            if !wait_until(ANSWERS_WITHIN, || std::net::TcpStream::connect(address).is_ok()) {
                return Err(TaskError::Silent { what: address.to_string(), seconds: ANSWERS_WITHIN.as_secs(), log: directory.join(log) });
            }
        }
        Ok(Self { redis, web, broker, mongo, _running: running })
    }
}

fn address() -> Result<SocketAddr, TaskError> {
    Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)))
}

/// A health endpoint, and what a Qdrant with one collection answers.
fn nginx(place: &Place, directory: &Path, address: SocketAddr) -> Result<Started, TaskError> {
    create_directory(directory)?;
    let mut text = format!(
        "worker_processes 1; daemon off; pid {0}/pid; error_log {0}/error.log;\nevents {{ worker_connections 1024; }}\n",
        directory.display()
    );
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {}/{kind}; ", directory.display()))
        .concat();
    let collection = r#"{"result":{"status":"green","optimizer_status":"ok","points_count":42,"segments_count":2},"status":"ok"}"#;
    let answers = [
        ("/health", r#"{"status":"ok"}"#),
        ("/readyz", "all shards are ready"),
        ("/collections", r#"{"result":{"collections":[{"name":"docs"}]},"status":"ok"}"#),
        ("/collections/docs", collection),
        ("/cluster", r#"{"result":{"status":"disabled"},"status":"ok"}"#),
    ]
    .map(|(path, body)| format!("location = {path} {{ default_type application/json; return 200 '{body}'; }} "))
    .concat();
    // Writing to a string cannot fail.
    writeln!(text, "http {{ access_log off; {temporary} server {{ listen {address}; {answers} }} }}").ok();
    write(&directory.join("nginx.conf"), &text)?;
    Program::new(place, "nginx").arg("-c").arg(directory.join("nginx.conf")).start(&directory.join("log"))
}

/// A broker with a port mapper, a cookie and a directory of its own.
fn rabbitmq(place: &Place, directory: &Path, address: SocketAddr) -> Result<[Started; 2], TaskError> {
    create_directory(directory)?;
    let ports = BrokerPorts { amqp: address.port(), distribution: free_port()?, mapper: free_port()? };
    let mapper = ports.mapper.to_string();
    write(&directory.join("rabbitmq.conf"), &format!("listeners.tcp.1 = {address}\n"))?;
    write(&directory.join("plugins"), "[].\n")?;
    let epmd = Program::new(place, "epmd").args(["-address", "127.0.0.1", "-port", &mapper]).start(&directory.join("epmd.log"))?;
    let broker = rabbitmq::environment(directory, directory, ports)
        .into_iter()
        .fold(Program::new(place, rabbitmq::SERVER), |program, (name, value)| program.env(name, value))
        .start(&directory.join("log"))?;
    // The broker goes first: it tells the mapper that it ends.
    Ok([broker, epmd])
}

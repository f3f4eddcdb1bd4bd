//! Ports that port containers add to a gateway which runs.

use std::net::SocketAddr;
use std::process::{Child, Stdio};

use kaleem_core::testing::free_port;
use kaleem_core::traffic::{AddedPort, Target, Traffic};
use rustix::process::Signal;
use tokio::io::AsyncReadExt;

use super::client::{Kind, Load, Raw, get, open_socket};
use super::instance::{Instance, masked_frame, read_frame};
use super::world::{Gateway, Plan, binary, routing, until};

/// A port container as a real process; another address stands for its own network.
struct PortContainer {
    address: SocketAddr,
    process: Child,
}

impl PortContainer {
    fn start(gateway: &Gateway, port: u16, mode: &str) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 2], port));
        #[expect(clippy::disallowed_methods, reason = "the process under test")]
        let mut command = std::process::Command::new(binary());
        command.arg("gateway-port").arg("--directory").arg(gateway.directory());
        command.args(["--name", &format!("host:{port}"), "--listen", &format!("{address}/{mode}"), "--stop-grace", "4s"]);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(gateway.directory().join("log")).unwrap();
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Self { address, process }
    }

    async fn added(gateway: &Gateway, port: u16, mode: &str) -> Self {
        let container = Self::start(gateway, port, mode);
        until("the port is added", async || ports(gateway).await.contains(&port)).await;
        container
    }

    fn stop(&self) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.process), Signal::TERM).unwrap();
    }

    async fn ended(&mut self) {
        let mut status = None;
        until("the port container has ended", async || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        })
        .await;
        assert!(status.unwrap().success(), "{status:?}");
    }
}

impl Drop for PortContainer {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

async fn ports(gateway: &Gateway) -> Vec<u16> {
    gateway.stats().await.added_ports.unwrap().iter().map(|added| added.port).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_added_is_served_as_the_gateways_own_and_shows_its_clients() {
    let gateway = Plan::http().start().await;
    let instance = Instance::start("api-1", 1).await;
    gateway.route(1, &[&instance]).await;
    assert_eq!(gateway.stats().await.added_ports, Some(Vec::new()));
    let port = gateway.ports[0];
    let container = PortContainer::added(&gateway, port, "http").await;
    let named = AddedPort { name: format!("host:{port}"), port };
    assert_eq!(gateway.stats().await.added_ports, Some(vec![named]));
    let lines = |answer: &str| {
        let mut lines: Vec<String> = answer.lines().map(|line| line.to_lowercase()).collect();
        lines.sort();
        lines
    };
    let (own, added) = (get(gateway.address(), "/head").await, get(container.address, "/head").await);
    assert_eq!(lines(own.text()), lines(added.text()), "an instance cannot tell the ports apart");
    assert!(lines(added.text()).contains(&"x-forwarded-for: 127.0.0.1".to_owned()), "{}", added.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_let_in_at_a_port_that_no_gateway_serves() {
    let mut gateway = Plan::http().start().await;
    let instance = Instance::start("api-1", 1).await;
    gateway.route(1, &[&instance]).await;
    let port = gateway.ports[0];
    gateway.signal(gateway.pid(), Signal::KILL);
    gateway.ended().await;
    until("its worker has ended", async || Raw::try_connect(gateway.address()).await.is_err()).await;
    let container = PortContainer::start(&gateway, port, "http");
    until("it has looked for the gateway", async || gateway.log().contains("the gateway does not answer")).await;
    assert!(Raw::try_connect(container.address).await.is_err(), "a port that lets clients in is taken for one that is served");
    gateway.start_again().await;
    until("the port is added", async || ports(&gateway).await == [port]).await;
    assert_eq!(get(container.address, "/").await.text(), "api-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn upgrades_crashes_and_restarts_of_the_gateway_refuse_nobody_at_an_added_port() {
    let mut gateway = Plan::http().start().await;
    let instance = Instance::start("api-1", 1).await;
    gateway.route(1, &[&instance]).await;
    let port = gateway.ports[0];
    let container = PortContainer::added(&gateway, port, "http").await;
    let loads = [
        Load::start(container.address, 4, Kind::KeepAlive),
        Load::start(container.address, 3, Kind::Fresh),
        Load::start(gateway.address(), 3, Kind::Fresh),
    ];
    for _ in 0..4 {
        for load in &loads {
            load.more(50).await;
        }
        gateway.traffic.upgrade(&gateway.name, &binary()).await.unwrap();
        until("the next worker has the port", async || ports(&gateway).await == [port]).await;
    }
    for load in loads {
        load.more(50).await;
        assert_eq!(load.end().await, Vec::<String>::new());
    }
    // What comes while there is no worker, or no gateway at all, waits in the socket.
    gateway.signal(gateway.stats().await.worker.pid, Signal::KILL);
    for _ in 0..20 {
        assert_eq!(get(container.address, "/").await.text(), "api-1");
    }
    gateway.signal(gateway.pid(), Signal::KILL);
    gateway.ended().await;
    until("its worker has ended", async || Raw::try_connect(gateway.address()).await.is_err()).await;
    let address = container.address;
    let waits = tokio::spawn(async move { get(address, "/").await });
    gateway.start_again().await;
    assert_eq!(waits.await.unwrap().text(), "api-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_finish_when_a_port_goes_and_what_does_not_end_is_cut() {
    let gateway = Plan::http().start().await;
    let instance = Instance::start("api-1", 1).await;
    gateway.route(1, &[&instance]).await;
    let mut container = PortContainer::added(&gateway, gateway.ports[0], "http").await;
    let (mut idle, mut running) = (Raw::connect(container.address).await, Raw::connect(container.address).await);
    assert_eq!(idle.get("/").await.text(), "api-1");
    let mut own = Raw::connect(gateway.address()).await;
    assert_eq!(own.get("/").await.text(), "api-1");
    let mut socket = open_socket(container.address).await;
    running.send("GET /wait HTTP/1.1\r\nHost: api\r\n\r\n").await;
    until("the request is at the instance", async || instance.waiting() == 1).await;
    container.stop();
    assert!(idle.closed().await, "nothing ran there");
    assert_eq!(ports(&gateway).await, Vec::<u16>::new());
    instance.state.go.notify_waiters();
    let answer = running.answer().await;
    assert_eq!((answer.text(), answer.header("connection")), ("api-1", Some("close")));
    // A WebSocket goes on until the time is over.
    socket.send(masked_frame(1, b"still here")).await;
    assert_eq!(read_frame(&mut socket.stream).await.unwrap(), (1, b"still here".to_vec()));
    assert!(socket.closed().await);
    container.ended().await;
    assert!(Raw::try_connect(container.address).await.is_err());
    assert_eq!(own.get("/").await.text(), "api-1", "the gateway's own port never noticed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_begins_to_listen_at_a_port_that_it_was_not_started_with() {
    let gateway = Plan::tcp().start().await;
    let instance = Instance::start("api-1", 1).await;
    let (port, other) = (gateway.ports[0], free_port());
    let ports = [port, other].map(|port| (port, instance.address.port())).into();
    gateway.steer(&routing(1, &[Target { ports, ..gateway.target(&instance, 1) }])).await;
    let mut container = PortContainer::added(&gateway, other, "http").await;
    let inside = SocketAddr::from(([127, 0, 0, 1], other));
    for address in [container.address, inside] {
        let answer = get(address, "/head").await;
        assert!(answer.text().to_lowercase().contains("x-forwarded-for: 127.0.0.1"), "it is HTTP there: {}", answer.text());
    }
    // Those that call the gateway by its name are not refused while its program is replaced.
    let load = Load::start(inside, 3, Kind::KeepAlive);
    load.more(50).await;
    gateway.traffic.upgrade(&gateway.name, &binary()).await.unwrap();
    until("the next worker has the port", async || self::ports(&gateway).await == [other]).await;
    load.more(50).await;
    assert_eq!(load.end().await, Vec::<String>::new());
    container.stop();
    container.ended().await;
    // The worker before accepts there until its successor certainly does.
    until("nobody listens there", async || Raw::try_connect(inside).await.is_err()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_tcp_mode_the_instance_is_told_who_the_client_is() {
    let port = free_port();
    let gateway = Plan { listen: vec![(port, "tcp,send-proxy")], ..Plan::tcp() }.start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let behind = Instance::start("api-1", 1).await.stands_for("db-1", listener.local_addr().unwrap());
    gateway.route(1, &[&behind]).await;
    let container = PortContainer::added(&gateway, port, "tcp,send-proxy").await;
    let client = Raw::connect(container.address).await;
    let from = client.stream.get_ref().local_addr().unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut header = [0_u8; 28];
    stream.read_exact(&mut header).await.unwrap();
    assert_eq!(header[16..20], [127, 0, 0, 1]);
    assert_eq!(u16::from_be_bytes([header[24], header[25]]), from.port(), "it is the client's own port");
}

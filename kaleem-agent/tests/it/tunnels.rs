//! TCP mode: what is promised for requests holds for connections.

use std::time::Duration;

use kaleem_core::testing::free_port;
use kaleem_core::traffic::DrainPolicy;
use kaleem_core::traffic::Traffic;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::client::get;
use super::instance::Instance;
use super::world::{Gateway, Plan, until};

/// Says its name and then repeats what it hears; `header` many bytes it keeps to itself and gives to the test.
async fn echo(name: &'static str, header: usize) -> (std::net::SocketAddr, tokio::sync::mpsc::UnboundedReceiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (heads, received) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let heads = heads.clone();
            tokio::spawn(async move {
                let mut head = vec![0; header];
                stream.read_exact(&mut head).await.unwrap();
                heads.send(head).ok();
                stream.write_all(name.as_bytes()).await.unwrap();
                let (mut reader, mut writer) = stream.split();
                tokio::io::copy(&mut reader, &mut writer).await.ok();
            });
        }
    });
    (address, received)
}

async fn open(gateway: &Gateway, name: &str) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    let mut came = vec![0; name.len()];
    stream.read_exact(&mut came).await.unwrap();
    assert_eq!(came, name.as_bytes());
    stream
}

async fn repeats(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).await.unwrap();
    let mut came = vec![0; text.len()];
    stream.read_exact(&mut came).await.unwrap();
    assert_eq!(came, text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_stays_where_it_is_and_a_new_one_goes_to_the_new_instance() {
    let gateway = Plan::tcp().start().await;
    let base = Instance::start("base", 1).await;
    let (old, new) = (base.stands_for("db-1", echo("old", 0).await.0), base.stands_for("db-2", echo("new", 0).await.0));
    gateway.route(1, &[&old]).await;
    let mut first = open(&gateway, "old").await;
    let big: Vec<u8> = (0..300_000_u32).map(|place| (place % 251) as u8).collect();
    repeats(&mut first, b"\x16\x03\x01 not for us to read").await;
    gateway.route(2, &[&new]).await;
    open(&gateway, "new").await;
    let (mut reader, mut writer) = first.split();
    let mut came = vec![0; big.len()];
    let (sent, read) = tokio::join!(writer.write_all(&big), reader.read_exact(&mut came));
    assert!(sent.is_ok() && read.is_ok() && came == big);
    // A half-closed connection still gets its rest.
    writer.shutdown().await.unwrap();
    assert_eq!(reader.read(&mut [0; 1]).await.unwrap(), 0);
    let report = gateway.drain(&old, Duration::from_secs(10), Duration::from_secs(10)).await;
    assert_eq!(report.cut, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_waits_for_connections_and_then_cuts_them() {
    let gateway = Plan::tcp().start().await;
    let base = Instance::start("base", 1).await;
    let (old, new) = (base.stands_for("db-1", echo("old", 0).await.0), base.stands_for("db-2", echo("new", 0).await.0));
    gateway.route(1, &[&old]).await;
    let mut stays = open(&gateway, "old").await;
    let leaves = open(&gateway, "old").await;
    gateway.route(2, &[&new]).await;
    let policy = DrainPolicy { requests: Duration::from_millis(500), streams: Duration::ZERO };
    let (report, ()) = tokio::join!(gateway.traffic.drain(&gateway.name, &old.name, &policy), async {
        // Both must be there when the drain begins.
        tokio::time::sleep(policy.requests / 2).await;
        repeats(&mut stays, b"still here").await;
        drop(leaves);
    });
    let report = report.unwrap();
    assert_eq!((report.finished, report.cut), (1, 1));
    assert!(report.took >= policy.requests);
    assert!(matches!(stays.read(&mut [0; 1]).await, Ok(0) | Err(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_waits_for_an_instance_and_goes_round_a_dead_one() {
    let gateway = Plan::tcp().start().await;
    let base = Instance::start("base", 1).await;
    let (dead, alive) = (base.stands_for("db-1", ([127, 0, 0, 1], free_port()).into()), base.stands_for("db-2", echo("new", 0).await.0));
    let waiting = {
        let address = gateway.address();
        tokio::spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let mut name = [0; 3];
            stream.read_exact(&mut name).await.unwrap();
            name
        })
    };
    until("it waits", async || gateway.stats().await.hold.waiting == 1).await;
    gateway.route(1, &[&dead, &alive]).await;
    assert_eq!(&waiting.await.unwrap(), b"new");
    for _ in 0..4 {
        open(&gateway, "new").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_protocol_names_the_client_to_and_from_the_gateway() {
    let plan = Plan {
        listen: vec![(free_port(), "tcp,accept-proxy,send-proxy"), (free_port(), "http,accept-proxy")],
        arguments: Vec::new(),
        apart: false,
    };
    let gateway = plan.start().await;
    let base = Instance::start("base", 1).await;
    let (address, mut heads) = echo("db", 28).await;
    let database = base.stands_for("db-1", address);
    gateway.route(1, &[&database]).await;
    // 192.0.2.7:4711 to 198.51.100.1:443, as nginx or haproxy write it.
    let header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\xc6\x33\x64\x01\x12\x67\x01\xbb";
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream.write_all(header).await.unwrap();
    let mut name = [0; 2];
    stream.read_exact(&mut name).await.unwrap();
    repeats(&mut stream, b"hello").await;
    let head = heads.recv().await.unwrap();
    assert_eq!(head[..20], header[..20], "the client, not the gateway");
    assert_eq!((&head[20..24], &head[24..26]), (&[127, 0, 0, 1][..], &header[24..26]));

    gateway.route(2, &[&base]).await;
    let mut client = super::client::Raw::connect(([127, 0, 0, 1], gateway.ports[1]).into()).await;
    client.send(header).await;
    assert!(client.get("/head").await.text().contains("x-forwarded-for: 192.0.2.7\n"), "in HTTP mode it is what is forwarded");
    let mut client = super::client::Raw::connect(([127, 0, 0, 1], gateway.ports[1]).into()).await;
    client.send("GET / HTTP/1.1\r\nHost: api\r\n\r\n").await;
    assert!(client.closed().await, "who does not say who it speaks for is sent away");
    assert_eq!(base.requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_kinds_of_ports_stand_in_one_gateway() {
    let plan = Plan { listen: vec![(free_port(), "http"), (free_port(), "tcp")], arguments: Vec::new(), apart: false };
    let gateway = plan.start().await;
    let one = Instance::start("api-1", 1).await;
    gateway.route(1, &[&one]).await;
    for port in &gateway.ports {
        assert_eq!(get(([127, 0, 0, 1], *port).into(), "/").await.text(), "api-1");
    }
}

//! The shop goes wrong exactly as it is told, and otherwise not: everything that is deployed with it relies on that.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot start the shop has failed")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use kaleem_core::testing::free_port;
use rustix::process::{Pid, Signal, kill_process};

/// Nothing here takes longer, unless it hangs.
const AT_MOST: Duration = Duration::from_secs(20);

struct Shop {
    child: Child,
    port: u16,
}

#[expect(clippy::disallowed_methods, reason = "the program under test is started as a container would start it")]
fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shop"));
    command.args(arguments).env_clear().stdout(Stdio::null());
    command
}

impl Shop {
    /// Starts it without waiting.
    fn spawn(fault: &str) -> Self {
        let port = free_port();
        let mut command = command(&["api"]);
        command.env("SHOP_PORT_INSIDE", port.to_string()).env("SHOP_VERSION", "v1").env("SHOP_FAULT", fault);
        Self { child: command.spawn().unwrap(), port }
    }

    /// Starts it and waits until it accepts.
    fn start(fault: &str) -> Self {
        let shop = Self::spawn(fault);
        until("the shop accepts", || TcpStream::connect(("127.0.0.1", shop.port)).is_ok());
        shop
    }

    fn send(&self, method: &str, path: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let length = body.len();
        write!(stream, "{method} {path} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}").unwrap();
        stream
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        answer(self.send(method, path, body))
    }

    fn get(&self, path: &str) -> u16 {
        self.ask("GET", path, "").0
    }

    fn terminate(&self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
    }

    fn end(&mut self) -> ExitStatus {
        let mut status = None;
        until("the shop ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        // It may have ended, as some of these are meant to.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn answer(mut stream: TcpStream) -> (u16, String) {
    let mut text = String::new();
    stream.set_read_timeout(Some(AT_MOST)).unwrap();
    stream.read_to_string(&mut text).unwrap();
    let status = text.get(9..12).unwrap_or_else(|| panic!("no answer: {text:?}")).parse().unwrap();
    (status, text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

#[expect(clippy::disallowed_methods, reason = "a bound on real processes is in real time")]
fn until(what: &str, mut ready: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !ready() {
        assert!(start.elapsed() < AT_MOST, "waited too long: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_healthy_shop_answers_on_every_path() {
    let shop = Shop::start("");
    for (path, status) in [
        ("/", 200),
        ("/version", 200),
        ("/healthz", 200),
        ("/api/health", 200),
        ("/api/metrics", 200),
        ("/slow?ms=1", 200),
        ("/bytes?n=5", 200),
        ("/socket", 400),
        ("/api/orders/none", 404),
        ("/nowhere", 404),
    ] {
        assert_eq!(shop.get(path), status, "{path}");
    }
    assert_eq!(shop.ask("GET", "/version", "").1, "v1\n");
}

#[test]
fn an_order_that_came_twice_can_be_told_from_two_orders() {
    let shop = Shop::start("");
    for (body, status) in [("a", 201), ("{\"id\": \"b\"}", 201), ("a", 201), ("", 400), (&"x".repeat(201), 400)] {
        assert_eq!(shop.ask("POST", "/api/orders", body).0, status, "{body:?}");
    }
    assert_eq!(shop.ask("GET", "/api/orders", "").1, "{\"duplicates\":1,\"orders\":2,\"processed\":0,\"queued\":0}\n");
    assert_eq!(shop.get("/api/orders/b"), 200);
}

#[test]
fn bodies_come_whole_and_as_they_were_asked_for() {
    let shop = Shop::start("");
    let pattern: String = (0..=9_u8).map(char::from).collect();
    for (path, expected) in [("/bytes?n=10", pattern.clone()), ("/bytes?n=10&chunked=1", format!("A\r\n{pattern}\r\n0\r\n\r\n"))] {
        assert_eq!(shop.ask("GET", path, "").1, expected, "{path}");
    }
    assert_eq!(shop.ask("POST", "/echo", "hello").1, "hello");
    shop.ask("POST", "/api/orders", "x-1");
    shop.ask("POST", "/api/orders", "y-1");
    shop.ask("POST", "/api/orders", "x-1");
    assert_eq!(shop.ask("GET", "/api/orders?prefix=x-", "").1, "x-1 2\n");
}

#[test]
fn what_has_no_end_of_its_own_ends_in_order_when_the_shop_is_to_stop() {
    let mut shop = Shop::start("");
    let mut events = shop.send("GET", "/events?ms=1", "");
    let mut socket = TcpStream::connect(("127.0.0.1", shop.port)).unwrap();
    socket.set_read_timeout(Some(AT_MOST)).unwrap();
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==";
    write!(socket, "GET /socket HTTP/1.1\r\nhost: shop\r\n{upgrade}\r\n\r\n").unwrap();
    socket.write_all(&[0x81, 0x82, 1, 2, 3, 4, b'h' ^ 1, b'i' ^ 2]).unwrap();
    let mut heard = Vec::new();
    while !heard.ends_with(b"\x81\x02hi") {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        heard.push(byte[0]);
    }
    assert!(heard.starts_with(b"HTTP/1.1 101 "));
    events.set_read_timeout(Some(AT_MOST)).unwrap();
    let mut told = Vec::new();
    while !told.ends_with(b"data: 0\n") {
        let mut byte = [0];
        events.read_exact(&mut byte).unwrap();
        told.push(byte[0]);
    }
    shop.terminate();
    let mut text = String::from_utf8(told).unwrap();
    events.read_to_string(&mut text).unwrap();
    assert!(text.contains("text/event-stream") && text.contains("data: 0\n") && text.ends_with("\r\n0\r\n\r\n"), "{text}");
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, [0x88, 2, 0x03, 0xe9]);
    assert!(shop.end().success());
}

#[test]
fn a_shop_that_closes_connections_does_not_say_so_before() {
    let shop = Shop::start("close-after-answer");
    let mut stream = TcpStream::connect(("127.0.0.1", shop.port)).unwrap();
    stream.set_read_timeout(Some(AT_MOST)).unwrap();
    write!(stream, "GET /version HTTP/1.1\r\nhost: shop\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 ") && text.ends_with("v1\n") && !text.contains("connection:"), "{text}");
}

#[test]
fn a_request_that_has_begun_is_finished_before_the_shop_ends() {
    let mut shop = Shop::start("");
    let slow = shop.send("GET", "/slow?ms=700", "");
    // The next answer shows that the one before was taken.
    assert_eq!(shop.get("/"), 200);
    shop.terminate();
    until("the shop stops accepting", || TcpStream::connect(("127.0.0.1", shop.port)).is_err());
    assert_eq!(answer(slow), (200, "waited 700ms\n".to_owned()));
    assert!(shop.end().success());
}

#[test]
fn each_fault_shows_where_it_should_and_nowhere_else() {
    for (fault, health, front) in [
        ("never-healthy", 503, 200),
        ("unhealthy-after:0", 503, 200),
        ("unhealthy-after:3600", 200, 200),
        ("healthy-then-500:0", 200, 500),
        ("healthy-then-500:3600", 200, 200),
        ("slow-requests:1,leak:1", 200, 200),
    ] {
        let shop = Shop::start(fault);
        assert_eq!((shop.get("/api/health"), shop.get("/healthz"), shop.get("/")), (health, health, front), "{fault}");
    }
}

#[test]
fn health_fails_once_the_shop_is_used_and_not_before() {
    let shop = Shop::start("unhealthy-once-used:0");
    assert_eq!((shop.get("/api/health"), shop.get("/healthz")), (200, 200), "only health was asked for");
    assert_eq!((shop.get("/"), shop.get("/api/health"), shop.get("/")), (200, 503, 200));
}

#[test]
fn a_fault_that_ends_the_shop_has_its_own_code() {
    for (fault, code) in [("exit-at-once", 1), ("exit-at-once:0", 0), ("exit-at-once:9", 9), ("crash-after:0", 70), ("nonsense", 2)] {
        assert_eq!(Shop::spawn(fault).end().code(), Some(code), "{fault}");
    }
}

#[test]
fn a_shop_that_starts_slowly_does_not_accept_and_can_be_stopped_meanwhile() {
    let mut shop = Shop::spawn("slow-start:3600");
    // A process that has taken its signal handlers over waits in its event loop.
    let stat = format!("/proc/{}/status", shop.child.id());
    let catches_term = |text: String| {
        let mask = text.lines().find_map(|line| line.strip_prefix("SigCgt:")).map(|mask| u64::from_str_radix(mask.trim(), 16).unwrap());
        mask.is_some_and(|mask| mask & (1 << 14) != 0)
    };
    until("the shop listens for signals", || std::fs::read_to_string(&stat).is_ok_and(catches_term));
    assert!(TcpStream::connect(("127.0.0.1", shop.port)).is_err());
    shop.terminate();
    assert!(shop.end().success());
}

#[test]
fn a_shop_that_ignores_sigterm_serves_on() {
    let shop = Shop::start("ignore-sigterm");
    shop.terminate();
    for _ in 0..20 {
        assert_eq!(shop.get("/"), 200);
    }
}

#[test]
fn the_check_from_inside_says_what_health_says() {
    let (well, ill) = (Shop::start(""), Shop::start("never-healthy"));
    let nobody = free_port();
    for (why, port, ok) in [("well", well.port, true), ("ill", ill.port, false), ("nobody there", nobody, false)] {
        let url = format!("http://127.0.0.1:{port}/api/health");
        assert_eq!(command(&["check", &url]).status().unwrap().success(), ok, "{why}: check URL");
        let mut healthcheck = command(&["healthcheck"]);
        assert_eq!(healthcheck.env("SHOP_PORT_INSIDE", port.to_string()).status().unwrap().success(), ok, "{why}: healthcheck");
    }
}

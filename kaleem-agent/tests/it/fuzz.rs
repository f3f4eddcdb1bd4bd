//! Hostile bytes by the thousand: mutations of a corpus, sent to a real gateway.
//!
//! Each run begins at a seed, and a failure names the case. `cargo xtask fuzz` runs the same for minutes, from seeds that nobody has tried.

#[cfg(test)]
mod mutate;
#[cfg(test)]
mod reader;

use std::time::Duration;

use futures_util::{StreamExt, stream};
use kaleem_core::clock::{Clock, SystemClock};
use kaleem_core::health::Question;
use kaleem_core::traffic::protocol::{Answer, Call, Command, PROTOCOL, SOCKET};
use kaleem_core::traffic::{DrainPolicy, Traffic};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use self::mutate::{Chance, mutate, pieces};
use super::client::get;
use super::instance::Instance;
use super::world::{Gateway, Plan, instance_name, routing, until};

/// Cases between two looks at the gateway.
const ROUND: u64 = 512;
/// Cases at a time.
const ABREAST: usize = 128;
/// A connection on which nothing comes for so long has said all that it will.
const QUIET: Duration = Duration::from_millis(40);
/// What a gateway may grow to; far above what it takes, far below what a leak would take.
const MOST_KILOBYTES: u64 = 200_000;

fn variable(name: &str, otherwise: u64) -> u64 {
    #[expect(clippy::disallowed_methods, reason = "how long, and from where, is told by `cargo xtask fuzz`")]
    let given = std::env::var(name);
    given.map_or(otherwise, |text| text.parse().unwrap())
}

/// Runs `case` with numbers from the seed on until the time is over, and looks at the gateway again and again.
async fn rounds<F: AsyncFn(u64)>(gateway: &Gateway, what: &str, case: F) {
    let seed = variable("KALEEM_FUZZ_SEED", 1);
    let seconds = Duration::from_secs(variable("KALEEM_FUZZ_SECONDS", 4));
    let clock = SystemClock;
    let begun = clock.monotonic();
    let worker = gateway.stats().await.worker.pid;
    let mut next = seed;
    while clock.monotonic() - begun < seconds {
        stream::iter(next..next + ROUND).for_each_concurrent(ABREAST, async |number| case(number).await).await;
        next += ROUND;
        let stats = gateway.stats().await;
        assert_eq!(
            (stats.worker.pid, stats.worker.crashes),
            (worker, 0),
            "{what}: a case before {next} ended the worker\n{}",
            gateway.log()
        );
        let round = format!("what was sent in the cases {} to {} is over", next - ROUND, next - 1);
        until(&round, async || gateway.stats().await.open_connections == 0).await;
    }
    let kilobytes = gateway.worker_kilobytes().await;
    assert!(kilobytes < MOST_KILOBYTES, "{what}: the gateway takes {kilobytes} KB");
    eprintln!("{what}: {} cases from seed {seed}, {kilobytes} KB", next - seed);
}

/// Sends bytes in pieces and reads until nothing more comes.
async fn tell<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, bytes: &[u8], chance: &mut Chance) -> Vec<u8> {
    for piece in pieces(bytes, chance) {
        // The far side may have had enough.
        if stream.write_all(piece).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let mut heard = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(Ok(count)) = tokio::time::timeout(QUIET, stream.read(&mut buffer)).await {
        if count == 0 {
            break;
        }
        heard.extend(&buffer[..count]);
    }
    heard
}

fn occurrences(bytes: &[u8], wanted: &[u8]) -> usize {
    bytes.windows(wanted.len()).filter(|window| *window == wanted).count()
}

const REQUESTS: &[&str] = &[
    "GET / HTTP/1.1\r\nHost: api\r\n\r\n",
    "GET /a?b=c HTTP/1.1\r\nHost: api\r\nAccept: */*\r\nCookie: kaleem=x; y=z\r\nConnection: keep-alive\r\n\r\n",
    "HEAD / HTTP/1.1\r\nHost: api\r\n\r\n",
    "GET / HTTP/1.0\r\n\r\n",
    "GET http://api/ HTTP/1.1\r\nHost: api\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: api\r\n\r\n",
    "POST /count HTTP/1.1\r\nHost: api\r\nContent-Length: 5\r\n\r\nhello",
    "POST /count HTTP/1.1\r\nHost: api\r\nContent-Length: 37\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: api\r\n\r\n",
    "POST /count HTTP/1.1\r\nHost: api\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: api\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5;a=b\r\nhello\r\n00A\r\n0123456789\r\n0\r\nX-Sum: 7\r\n\r\n",
    "POST /count HTTP/1.1\r\nHost: api\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    "PUT /count HTTP/1.1\r\nHost: api\r\nX-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: https\r\nForwarded: for=1\r\nContent-Length: 0\r\n\r\n",
    "GET /socket HTTP/1.1\r\nHost: api\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
];

#[tokio::test(flavor = "multi_thread")]
async fn no_bytes_end_the_gateway_or_make_it_see_a_request_that_a_strict_reader_does_not() {
    let gateway = Plan::http().start().await;
    let instance = Instance::start("api-1", 1).await;
    gateway.route(1, &[&instance]).await;
    let address = gateway.address();
    rounds(&gateway, "requests", async |number| {
        let mut chance = Chance::new(number);
        let count = 1 + chance.below(3);
        let text: String = (0..count).map(|_| *chance.pick(REQUESTS)).collect();
        let bytes = mutate(text.as_bytes(), mutate::HTTP, &mut chance);
        let heard = tell(TcpStream::connect(address).await.unwrap(), &bytes, &mut chance).await;
        // After an upgrade the bytes belong to another protocol.
        if occurrences(&heard, b" 101 Switching") > 0 {
            return;
        }
        let answered = occurrences(&heard, b" 200 OK\r\n");
        let strict = reader::requests(&bytes);
        let shown = (bytes.escape_ascii(), heard.escape_ascii());
        assert!(
            answered <= strict,
            "case {number}: {answered} requests were let through where {strict} are certain\n{}\n{}",
            shown.0,
            shown.1
        );
    })
    .await;
    assert_eq!(get(address, "/").await.text(), "api-1");
    assert!(instance.requests() > 100, "hardly anything got through: {}", instance.requests());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_bytes_on_the_control_socket_end_the_gateway_or_go_without_an_answer() {
    let gateway = Plan::http().start().await;
    let instance = Instance::start("api-1", 1).await;
    gateway.route(1, &[&instance]).await;
    let path = gateway.directory().join(SOCKET);
    let target = gateway.target(&instance, 1);
    let question = Question::Http {
        port: gateway.address().port(),
        path: "/".to_owned(),
        statuses: (200, 399),
        host: None,
        contains: Some("api".to_owned()),
    };
    let (short, policy) = (Duration::from_millis(20), |time| DrainPolicy { requests: time, streams: time });
    let corpus: Vec<String> = [
        Command::Stats,
        Command::Steer(routing(2, std::slice::from_ref(&target))),
        Command::Steer(routing(3, &[])),
        Command::Probe { target: target.clone(), question, timeout: short },
        Command::Probe { target, question: Question::Tcp { port: gateway.address().port() }, timeout: short },
        Command::Drain { instance: instance_name("api-1"), policy: policy(short) },
        Command::Drain { instance: instance_name("api-2"), policy: policy(short) },
        Command::Upgrade { file: "not-there".to_owned() },
    ]
    .map(|command| serde_json::to_string(&Call { protocol: PROTOCOL, command }).unwrap() + "\n")
    .into_iter()
    .chain(["GET /metrics HTTP/1.1\r\nHost: gateway\r\n\r\n".to_owned()])
    .collect();
    rounds(&gateway, "control", async |number| {
        let mut chance = Chance::new(number);
        let text: String = (0..1 + chance.below(2)).map(|_| chance.pick(&corpus).as_str()).collect();
        let bytes = mutate(text.as_bytes(), mutate::JSON, &mut chance);
        let heard = tell(UnixStream::connect(&path).await.unwrap(), &bytes, &mut chance).await;
        let heard = String::from_utf8(heard).unwrap_or_else(|_| panic!("case {number}: the answer to {} is no text", bytes.escape_ascii()));
        // Metrics may be asked for behind calls; what came in part only is still on its way.
        let lines = heard.split_inclusive('\n').take_while(|line| !line.starts_with("HTTP/1.1 ") && line.ends_with('\n'));
        for line in lines {
            let answer: Result<Answer, _> = serde_json::from_str(line);
            assert!(answer.is_ok(), "case {number}: {} is answered {line:?}", bytes.escape_ascii());
        }
    })
    .await;
    // Whatever it was told, it obeys who speaks to it now; an upgrade that nobody waits for any more comes to its end first.
    let newest = routing(u64::MAX, &[gateway.target(&instance, 1)]);
    until("the gateway can be steered", async || gateway.traffic.steer(&gateway.name, &newest).await.is_ok()).await;
    assert_eq!(get(gateway.address(), "/").await.text(), "api-1");
}

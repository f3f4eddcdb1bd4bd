//! What clients do: each kind of request at its own pace, at both doors, until the load is stopped.
//!
//! A client behaves as a careful one does. It looks whether a kept connection is gone before it writes; it sends once more only what
//! changes nothing, on a kept connection that broke before a byte of an answer came. Everything else that goes wrong is a failure.

mod streams;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kaleem_core::clock::{Clock, SystemClock};

use crate::chance::Seed;
use crate::gauntlet::load::Shared;
use crate::gauntlet::tally::Sample;
use crate::gauntlet::wire::{Body, Head, Miss, Wire};

/// How long a small answer may take: a person gives up sooner.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same for ten megabytes on a busy machine.
const PATIENCE_LARGE: Duration = Duration::from_secs(60);
const KILOBYTE: u64 = 1024;
const LARGE: u64 = 10 * 1024 * 1024;
/// A slow reader takes this much, piece by piece.
const SLOW: u64 = 4 * 1024 * 1024;
const SLOW_PIECE: usize = 128 * 1024;
const SLOW_PAUSE: Duration = Duration::from_millis(40);
/// Requests that are written before the first answer is read.
const PIPELINE: usize = 8;

/// Where requests go in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Door {
    /// The published port of the service.
    Direct,
    /// nginx, which sends on to the service's name.
    Edge,
}

impl fmt::Display for Door {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Direct => "direct",
            Self::Edge => "nginx",
        })
    }
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// GET of 1 KB on a connection that stays.
    Get,
    /// The same on a connection of its own.
    GetFresh,
    /// POST of an order on a connection that stays.
    Post,
    /// The same on a connection of its own.
    PostFresh,
    /// Eight GETs at once.
    Pipelined,
    /// HEAD.
    Head,
    /// POST that waits for `100 Continue`.
    Continue,
    /// 1 KB there and back in chunks.
    Chunked,
    /// The same with trailers.
    Trailers,
    /// GET as HTTP/1.0 has it.
    Http10,
    /// 10 MB from the service.
    Down,
    /// 10 MB there and back.
    Up,
    /// The same in chunks.
    UpChunked,
    /// 4 MB, read slowly.
    SlowReader,
    /// An event stream.
    Events,
    /// A message on a WebSocket.
    Message,
}

impl Kind {
    /// Whether its latency says how long somebody waits.
    pub(super) fn is_small(self) -> bool {
        match self {
            Self::Down | Self::Up | Self::UpChunked | Self::SlowReader | Self::Events => false,
            Self::Get | Self::GetFresh | Self::Post | Self::PostFresh | Self::Pipelined | Self::Head | Self::Continue => true,
            Self::Chunked | Self::Trailers | Self::Http10 | Self::Message => true,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Get => "GET",
            Self::GetFresh => "GET (fresh)",
            Self::Post => "POST",
            Self::PostFresh => "POST (fresh)",
            Self::Pipelined => "GET (pipelined)",
            Self::Head => "HEAD",
            Self::Continue => "POST (100-continue)",
            Self::Chunked => "chunked",
            Self::Trailers => "trailers",
            Self::Http10 => "HTTP/1.0",
            Self::Down => "10 MB down",
            Self::Up => "10 MB both ways",
            Self::UpChunked => "10 MB both ways, chunked",
            Self::SlowReader => "slow reader",
            Self::Events => "event stream",
            Self::Message => "WebSocket message",
        })
    }
}

/// So many clients of a kind, each at a pace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    pub(super) kind: Kind,
    pub(super) door: Door,
    pub(super) clients: usize,
    /// Of each client.
    pub(super) per_second: f64,
}

const fn flow(kind: Kind, door: Door, clients: usize, per_second: f64) -> Flow {
    Flow { kind, door, clients, per_second }
}

/// What goes in at the published port.
pub(super) const DIRECT: &[Flow] = &[
    flow(Kind::Get, Door::Direct, 6, 22.0),
    flow(Kind::GetFresh, Door::Direct, 4, 16.0),
    flow(Kind::Post, Door::Direct, 4, 22.0),
    flow(Kind::PostFresh, Door::Direct, 2, 16.0),
    flow(Kind::Pipelined, Door::Direct, 1, 5.0),
    flow(Kind::Head, Door::Direct, 1, 10.0),
    flow(Kind::Continue, Door::Direct, 1, 10.0),
    flow(Kind::Chunked, Door::Direct, 1, 10.0),
    flow(Kind::Trailers, Door::Direct, 1, 10.0),
    flow(Kind::Http10, Door::Direct, 1, 10.0),
    flow(Kind::Down, Door::Direct, 1, 0.5),
    flow(Kind::Up, Door::Direct, 1, 0.25),
    flow(Kind::UpChunked, Door::Direct, 1, 0.25),
    flow(Kind::SlowReader, Door::Direct, 1, 1.0),
    flow(Kind::Events, Door::Direct, 2, 1.0),
    flow(Kind::Message, Door::Direct, 2, 10.0),
];

/// What goes in at nginx, which knows no trailers, and sends no more of a request when its answer has begun: a large body that is echoed
/// while it comes does not pass.
pub(super) const EDGE: &[Flow] = &[
    flow(Kind::Get, Door::Edge, 4, 22.0),
    flow(Kind::GetFresh, Door::Edge, 2, 16.0),
    flow(Kind::Post, Door::Edge, 3, 22.0),
    flow(Kind::PostFresh, Door::Edge, 1, 16.0),
    flow(Kind::Head, Door::Edge, 1, 5.0),
    flow(Kind::Chunked, Door::Edge, 1, 5.0),
    flow(Kind::Http10, Door::Edge, 1, 5.0),
    flow(Kind::Down, Door::Edge, 1, 0.25),
    flow(Kind::SlowReader, Door::Edge, 1, 0.5),
    flow(Kind::Events, Door::Edge, 1, 1.0),
    flow(Kind::Message, Door::Edge, 1, 10.0),
];

/// One client.
pub(super) struct Client {
    pub(super) shared: Arc<Shared>,
    pub(super) address: SocketAddr,
    pub(super) flow: Flow,
    /// Stands in its orders.
    pub(super) name: String,
    pub(super) seed: Seed,
    pub(super) kept: Option<Wire>,
    /// Answers of this client.
    pub(super) number: u64,
}

/// A request, as it is written, and what is right.
struct Ask<'a> {
    /// With its headers, and without the empty line.
    head: String,
    /// A body that is written whole.
    text: &'a str,
    /// Bytes of the pattern that are written after it.
    pattern: u64,
    chunked: bool,
    trailers: &'a str,
    /// Whether it waits to be told to continue.
    waits: bool,
    keeps: bool,
    /// Whether it may be sent again.
    harmless: bool,
    status: u16,
    /// The length of the answer, if it is to be the pattern.
    returns: Option<u64>,
}

impl Client {
    /// Sends at its pace until the load is stopped.
    pub(super) async fn run(mut self) {
        let period = Duration::from_secs_f64(1.0 / self.flow.per_second);
        // Clients do not march in step.
        let mut next = SystemClock.monotonic() + period.mul_f64(self.seed.fraction());
        loop {
            let now = SystemClock.monotonic();
            if !self.shared.pause(next.saturating_sub(now)).await {
                return;
            }
            // Whoever had to wait does not make up for it all at once.
            next = (next + period.mul_f64(0.9 + 0.2 * self.seed.fraction())).max(SystemClock.monotonic());
            match self.flow.kind {
                Kind::Events => self.events().await,
                Kind::Message => self.messages(period).await,
                Kind::Pipelined => self.pipelined().await,
                Kind::SlowReader => self.slow().await,
                _ => self.one().await,
            }
        }
    }

    fn host(&self) -> String {
        format!("Host: {}\r\n", self.address)
    }

    async fn one(&mut self) {
        self.number += 1;
        let order = format!("{}-{}", self.name, self.number);
        let get = |path: &str| Ask {
            head: format!("GET {path} HTTP/1.1\r\n"),
            text: "",
            pattern: 0,
            chunked: false,
            trailers: "",
            waits: false,
            keeps: true,
            harmless: true,
            status: 200,
            returns: Some(KILOBYTE),
        };
        let kilobyte = format!("/bytes?n={KILOBYTE}");
        let post = |text| Ask {
            head: format!("POST /api/orders HTTP/1.1\r\nContent-Length: {}\r\n", order.len()),
            text,
            harmless: false,
            status: 201,
            returns: None,
            ..get("")
        };
        let echo = |length, chunked: bool| Ask {
            head: if chunked {
                "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n".to_owned()
            } else {
                format!("POST /echo HTTP/1.1\r\nContent-Length: {length}\r\n")
            },
            pattern: length,
            chunked,
            returns: Some(length),
            harmless: false,
            ..get("")
        };
        let fresh = "Connection: close\r\n";
        let ask = match self.flow.kind {
            Kind::GetFresh => Ask { head: get(&kilobyte).head + fresh, keeps: false, harmless: false, ..get("") },
            Kind::Post => post(order.as_str()),
            Kind::PostFresh => Ask { head: post("").head + fresh, keeps: false, ..post(order.as_str()) },
            Kind::Head => Ask { head: format!("HEAD {kilobyte} HTTP/1.1\r\n"), returns: None, ..get("") },
            Kind::Continue => Ask { head: post("").head + "Expect: 100-continue\r\n", waits: true, ..post(order.as_str()) },
            Kind::Chunked => echo(KILOBYTE, true),
            Kind::Trailers => {
                let declared = "TE: trailers\r\nConnection: TE\r\nTrailer: X-Sum\r\n";
                Ask { head: echo(0, true).head + declared, trailers: "X-Sum: 7\r\n", ..echo(KILOBYTE, true) }
            }
            Kind::Http10 => Ask { head: format!("GET {kilobyte} HTTP/1.0\r\n"), keeps: false, harmless: false, ..get("") },
            Kind::Down => Ask { returns: Some(LARGE), ..get(&format!("/bytes?n={LARGE}")) },
            Kind::Up => echo(LARGE, false),
            Kind::UpChunked => echo(LARGE, true),
            Kind::Get | Kind::Pipelined | Kind::SlowReader | Kind::Events | Kind::Message => get(&kilobyte),
        };
        let begun = self.shared.begin();
        let patience = if self.flow.kind.is_small() { PATIENCE } else { PATIENCE_LARGE };
        let outcome = match tokio::time::timeout(patience, self.attempts(&ask)).await {
            Ok(outcome) => outcome,
            Err(_) => {
                self.kept = None;
                Err(Miss { reason: format!("no answer within {patience:?}"), began: false })
            }
        };
        let confirmed = matches!(self.flow.kind, Kind::Post | Kind::PostFresh | Kind::Continue).then_some(order);
        self.over(begun, &outcome.map(Some), confirmed);
    }

    /// Notes how a request ended.
    fn over(&self, begun: Duration, outcome: &Result<Option<Head>, Miss>, order: Option<String>) {
        let sample = Sample {
            begun,
            took: self.shared.now().saturating_sub(begun),
            kind: self.flow.kind,
            door: self.flow.door,
            ok: outcome.is_ok(),
        };
        self.shared.end(|tally| {
            let version = outcome.as_ref().ok().and_then(|head| head.as_ref()?.field("x-shop-version"));
            tally.note(sample, version, outcome.as_ref().err().map(|miss| miss.reason.as_str()));
            if let (Ok(_), Some(order)) = (outcome, order) {
                tally.confirmed.push(order);
            }
        });
    }

    async fn attempts(&mut self, ask: &Ask<'_>) -> Result<Head, Miss> {
        if let Some(wire) = self.kept.take().filter(|wire| !wire.is_stale()) {
            match self.attempt(wire, ask).await {
                Err(miss) if ask.harmless && !miss.began => self.shared.tally(|tally| tally.retried += 1),
                outcome => return outcome,
            }
        }
        let wire = Wire::connect(self.address).await?;
        self.attempt(wire, ask).await
    }

    async fn attempt(&mut self, mut wire: Wire, ask: &Ask<'_>) -> Result<Head, Miss> {
        let (sent, received) = (wire.sent, wire.reader.received);
        let outcome = self.exchange(&mut wire, ask).await;
        self.shared.tally(|tally| {
            tally.sent_bytes += wire.sent - sent;
            tally.received_bytes += wire.reader.received - received;
        });
        let (head, body) = outcome?;
        right(ask, &head, &body)?;
        if ask.keeps && !head.closes() {
            self.kept = Some(wire);
        }
        Ok(head)
    }

    async fn exchange(&self, wire: &mut Wire, ask: &Ask<'_>) -> Result<(Head, Body), Miss> {
        let head = format!("{}{}\r\n", ask.head, self.host());
        let is_head = ask.head.starts_with("HEAD");
        if ask.waits {
            wire.send(head.as_bytes()).await?;
            let interim = wire.reader.head().await?;
            if interim.status != 100 {
                let body = wire.reader.body(&interim).await?;
                return Ok((interim, body));
            }
            wire.send(ask.text.as_bytes()).await?;
        } else {
            wire.send(format!("{head}{}", ask.text).as_bytes()).await?;
        }
        wire.exchange(ask.pattern, ask.chunked, ask.trailers, !is_head).await
    }

    async fn pipelined(&mut self) {
        let begun = self.shared.begin();
        let all = async {
            let mut wire = Wire::connect(self.address).await?;
            let request = format!("GET /bytes?n={KILOBYTE} HTTP/1.1\r\n{}\r\n", self.host());
            wire.send(request.repeat(PIPELINE).as_bytes()).await?;
            let mut heads = Vec::new();
            for _ in 0..PIPELINE {
                let head = wire.reader.head().await?;
                let body = wire.reader.body(&head).await?;
                if head.status != 200 || body.length != KILOBYTE || !body.is_pattern {
                    return Err(Miss { reason: format!("answered {} with {} bytes", head.status, body.length), began: true });
                }
                heads.push(head.clone());
                if head.closes() {
                    break;
                }
            }
            self.shared.tally(|tally| {
                tally.sent_bytes += wire.sent;
                tally.received_bytes += wire.reader.received;
            });
            Ok(heads)
        };
        let outcome = tokio::time::timeout(PATIENCE, all).await;
        let outcome = outcome.unwrap_or_else(|_| Err(Miss { reason: format!("no answers within {PATIENCE:?}"), began: false }));
        // A server may close after an answer, and says so; what was not answered then was never begun.
        let mut heads = outcome.map(|heads| heads.into_iter().map(Some).collect::<Vec<_>>());
        let last = heads.as_mut().map(|heads| heads.pop().flatten()).map_err(|miss| miss.clone());
        for head in heads.unwrap_or_default() {
            let _open = self.shared.begin();
            self.over(begun, &Ok(head), None);
        }
        self.over(begun, &last, None);
    }

    async fn slow(&mut self) {
        let begun = self.shared.begin();
        let whole = async {
            let mut wire = Wire::connect(self.address).await?;
            let request = format!("GET /bytes?n={SLOW} HTTP/1.1\r\nConnection: close\r\n{}\r\n", self.host());
            wire.send(request.as_bytes()).await?;
            let head = wire.reader.head().await?;
            let mut piece = vec![0; SLOW_PIECE];
            let mut left = SLOW;
            while left > 0 {
                let count = wire.reader.some(&mut piece).await?;
                if count == 0 {
                    return Err(Miss { reason: format!("the body ended {left} bytes early"), began: true });
                }
                left = left.saturating_sub(count as u64);
                tokio::time::sleep(SLOW_PAUSE.mul_f64(to_fraction(count, SLOW_PIECE))).await;
            }
            self.shared.tally(|tally| tally.received_bytes += wire.reader.received);
            Ok(Some(head))
        };
        let outcome = tokio::time::timeout(PATIENCE_LARGE, whole).await;
        let outcome = outcome.unwrap_or_else(|_| Err(Miss { reason: format!("no end within {PATIENCE_LARGE:?}"), began: true }));
        self.over(begun, &outcome, None);
    }
}

#[expect(clippy::cast_precision_loss, reason = "sizes of buffers")]
fn to_fraction(part: usize, whole: usize) -> f64 {
    part as f64 / whole as f64
}

/// Whether this is the answer that must come.
fn right(ask: &Ask<'_>, head: &Head, body: &Body) -> Result<(), Miss> {
    let wrong = |reason: String| Err(Miss { reason, began: true });
    if head.status != ask.status {
        let text = String::from_utf8_lossy(&body.text);
        return wrong(format!("answered {} {}", head.status, text.lines().next().unwrap_or_default()));
    }
    if let Some(length) = ask.returns
        && (body.length != length || !body.is_pattern)
    {
        return wrong(format!("{} bytes came back instead of {length}, or others", body.length));
    }
    if !ask.trailers.is_empty() && !body.trailers.iter().any(|(name, value)| name == "x-sum" && value == "7") {
        return wrong("the trailers were lost".to_owned());
    }
    Ok(())
}

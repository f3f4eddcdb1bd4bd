//! What each path answers.

use std::convert::Infallible;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::env::Settings;
use crate::metrics::Metrics;
use crate::store::Store;
use crate::streams::{self, Body};
use crate::websocket;

/// Longest order that is taken.
const LONGEST_ORDER_BYTES: usize = 64 * 1024;
/// Longest wait of `/slow`.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The service behind the routes.
pub(crate) struct Shop {
    settings: Settings,
    store: Store,
    metrics: Metrics,
    started: Instant,
    /// When the first request came that did not ask for health.
    used: OnceLock<Instant>,
    /// Becomes true when the process is to stop: what would not end by itself ends then.
    stopped: watch::Receiver<bool>,
    /// Held by every open WebSocket.
    sockets: mpsc::Sender<Infallible>,
}

/// A route's name in the metrics, and its answer.
type Answer = (&'static str, StatusCode, &'static str, String);

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

impl Shop {
    /// A shop that has just started.
    pub(crate) fn new(settings: Settings, stopped: watch::Receiver<bool>, sockets: mpsc::Sender<Infallible>) -> Result<Self, String> {
        let store = Store::new(settings.redis_url.as_deref())?;
        Ok(Self { settings, store, metrics: Metrics::default(), started: Instant::now(), used: OnceLock::new(), stopped, sockets })
    }

    /// Whether connections are closed without a word.
    pub(crate) fn closes_after_answer(&self) -> bool {
        self.settings.faults.close_after_answer
    }

    /// What it calls itself.
    pub(crate) fn version(&self) -> &str {
        &self.settings.version
    }

    /// Answers one request and counts it.
    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let start = Instant::now();
        let mut response = match self.stream(request) {
            Ok(response) => {
                self.metrics.count("stream", response.status().as_u16(), start.elapsed());
                response
            }
            Err(request) => {
                let (route, status, kind, body) = self.route(request).await;
                self.metrics.count(route, status.as_u16(), start.elapsed());
                let mut response = Response::new(streams::boxed(Full::new(Bytes::from(body))));
                *response.status_mut() = status;
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
                response
            }
        };
        if let Ok(version) = HeaderValue::from_str(self.version()) {
            response.headers_mut().insert("x-shop-version", version);
        }
        response
    }

    /// Paths whose bodies are not texts; gives the request back when it is for none of them.
    fn stream(&self, request: Request<Incoming>) -> Result<Response<Body>, Request<Incoming>> {
        match (request.method(), request.uri().path()) {
            (&Method::POST | &Method::PUT, "/echo") => Ok(streams::echo(request)),
            (&Method::GET | &Method::HEAD, "/bytes") => Ok(streams::bytes(request.uri().query())),
            (&Method::GET, "/events") => Ok(streams::events(request.uri().query(), self.stopped.clone())),
            (&Method::GET, "/socket") => Ok(websocket::open(request, self.stopped.clone(), self.sockets.clone())),
            _ => Err(request),
        }
    }

    async fn route(&self, request: Request<Incoming>) -> Answer {
        let path = request.uri().path().to_owned();
        match (request.method(), path.as_str()) {
            (&Method::GET, "/healthz") => return self.healthz(),
            (&Method::GET, "/api/health") => return self.health().await,
            (&Method::GET, "/api/metrics") => {
                return ("/api/metrics", StatusCode::OK, "text/plain; version=0.0.4", self.metrics.render(self.version()));
            }
            _ => {}
        }
        self.used.get_or_init(Instant::now);
        if let Some(delay) = self.settings.faults.slow_requests {
            tokio::time::sleep(delay).await;
        }
        if self.settings.faults.errors_after.is_some_and(|after| self.started.elapsed() >= after) {
            return ("fault", StatusCode::INTERNAL_SERVER_ERROR, TEXT, "SHOP_FAULT says so\n".to_owned());
        }
        match (request.method(), path.as_str()) {
            (&Method::GET | &Method::HEAD, "/") => ("/", StatusCode::OK, TEXT, format!("shop {}\n", self.version())),
            (&Method::GET | &Method::HEAD, "/version") => ("/version", StatusCode::OK, TEXT, format!("{}\n", self.version())),
            (&Method::GET, "/slow") => slow(request.uri().query()).await,
            (&Method::POST, "/api/orders") => self.order(request.into_body()).await,
            (&Method::GET, "/api/orders") => match streams::parameter(request.uri().query(), "prefix") {
                Some(prefix) => self.list(prefix).await,
                None => self.totals().await,
            },
            (&Method::GET, path) if path.starts_with("/api/orders/") => self.deliveries(path.trim_start_matches("/api/orders/")).await,
            _ => ("other", StatusCode::NOT_FOUND, TEXT, "not found\n".to_owned()),
        }
    }

    /// Why a fault makes this instance ill.
    fn ill(&self) -> bool {
        let faults = &self.settings.faults;
        let since =
            |after: Option<Duration>, moment: Option<&Instant>| after.zip(moment).is_some_and(|(after, moment)| moment.elapsed() >= after);
        faults.never_healthy || since(faults.unhealthy_after, Some(&self.started)) || since(faults.unhealthy_once_used, self.used.get())
    }

    fn healthz(&self) -> Answer {
        let (status, body) = if self.ill() { (StatusCode::SERVICE_UNAVAILABLE, "ill\n") } else { (StatusCode::OK, "ok\n") };
        ("/healthz", status, TEXT, body.to_owned())
    }

    async fn health(&self) -> Answer {
        let mut well = !self.ill();
        let mut dependencies = serde_json::Map::new();
        if let Store::Redis(redis) = &self.store {
            let start = Instant::now();
            let ping = redis.ping().await;
            let took = start.elapsed();
            let queue = redis.queued().await;
            well &= ping.is_ok() && queue.is_ok();
            dependencies
                .insert("redis".to_owned(), dependency(ping.map(|()| json!({ "microseconds": u64::try_from(took.as_micros()).ok() }))));
            dependencies.insert("queue".to_owned(), dependency(queue.map(|length| json!({ "length": length }))));
        }
        let status = if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let word = if well { "ok" } else { "failing" };
        reply("/api/health", status, &json!({ "status": word, "version": self.version(), "dependencies": dependencies }))
    }

    async fn order(&self, body: Incoming) -> Answer {
        const ROUTE: &str = "/api/orders";
        let Ok(body) = Limited::new(body, LONGEST_ORDER_BYTES).collect().await else {
            return reply(ROUTE, StatusCode::PAYLOAD_TOO_LARGE, &json!({ "error": "the order is too large, or broke off" }));
        };
        let text = String::from_utf8_lossy(&body.to_bytes()).trim().to_owned();
        // `{"id": "…"}`, or the id alone.
        let id = serde_json::from_str::<Value>(&text).ok().and_then(|value| value.get("id")?.as_str().map(str::to_owned)).unwrap_or(text);
        if id.is_empty() || id.len() > 200 {
            return reply(ROUTE, StatusCode::BAD_REQUEST, &json!({ "error": "an order needs an id of at most 200 bytes" }));
        }
        match self.store.record(&id).await {
            Ok(deliveries) => reply(ROUTE, StatusCode::CREATED, &json!({ "id": id, "deliveries": deliveries, "version": self.version() })),
            Err(reason) => reply(ROUTE, StatusCode::SERVICE_UNAVAILABLE, &json!({ "error": reason })),
        }
    }

    async fn totals(&self) -> Answer {
        match self.store.totals().await {
            Ok(totals) => reply(
                "/api/orders",
                StatusCode::OK,
                &json!({ "orders": totals.orders, "duplicates": totals.duplicates, "processed": totals.processed, "queued": totals.queued }),
            ),
            Err(reason) => reply("/api/orders", StatusCode::SERVICE_UNAVAILABLE, &json!({ "error": reason })),
        }
    }

    async fn list(&self, prefix: &str) -> Answer {
        match self.store.list(prefix).await {
            Ok(orders) => {
                let lines: String = orders.iter().map(|(id, count)| format!("{id} {count}\n")).collect();
                ("/api/orders", StatusCode::OK, TEXT, lines)
            }
            Err(reason) => reply("/api/orders", StatusCode::SERVICE_UNAVAILABLE, &json!({ "error": reason })),
        }
    }

    async fn deliveries(&self, id: &str) -> Answer {
        match self.store.deliveries(id).await {
            Ok(0) => reply("/api/orders/ID", StatusCode::NOT_FOUND, &json!({ "id": id, "deliveries": 0 })),
            Ok(deliveries) => reply("/api/orders/ID", StatusCode::OK, &json!({ "id": id, "deliveries": deliveries })),
            Err(reason) => reply("/api/orders/ID", StatusCode::SERVICE_UNAVAILABLE, &json!({ "error": reason })),
        }
    }
}

fn reply(route: &'static str, status: StatusCode, body: &Value) -> Answer {
    (route, status, JSON, format!("{body}\n"))
}

fn dependency(state: Result<Value, String>) -> Value {
    match state {
        Ok(facts) => json!({ "status": "up", "facts": facts }),
        Err(reason) => json!({ "status": "down", "reason": reason }),
    }
}

async fn slow(query: Option<&str>) -> Answer {
    let milliseconds = streams::parameter(query, "ms").and_then(|text| text.parse().ok()).unwrap_or(1000);
    let wait = Duration::from_millis(milliseconds).min(LONGEST_WAIT);
    tokio::time::sleep(wait).await;
    ("/slow", StatusCode::OK, TEXT, format!("waited {wait:?}\n"))
}

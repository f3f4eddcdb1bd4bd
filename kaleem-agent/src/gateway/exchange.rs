//! One request and its answer: the target is chosen here, and here it is decided whether a request may be sent again.
//!
//! A request is sent a second time only if nothing of it was sent, or if sending it twice is the same as sending it once and no
//! byte of an answer came. Requests that change something never go out on a connection that was used before: the instance may
//! have closed it, and then nobody could tell whether the request was taken.

use std::cell::Cell;
use std::convert::Infallible;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::{Body, Incoming};

use super::access_log::Entry;
use super::body::{Gate, RequestBody, ResponseBody, Source, Streaming};
use super::crowd::Client;
use super::headers::{self, Refused};
use super::hold::HoldError;
use super::plain::{Plain, PlainRequest};
use super::target::now;
use super::tunnel::Handover;
use super::upstream::{Flight, Full, Lane, Upstream};
use super::witness::Expected;

/// How often a request that may be repeated is sent again after a connection broke.
const MOST_RESENDS: u32 = 2;
/// How many connections are tried for one request; each failure makes its target doubted, so more are never needed.
const MOST_CONNECTS: u32 = 512;
/// How often an error of our own, such as no free port, is waited out.
const MOST_OWN_FAILURES: u32 = 5;

/// A request as it is to go out.
enum Outgoing {
    /// It has no body, and may be sent again.
    Repeatable(PlainRequest),
    /// It may be sent once. Gone when it is on its way. Boxed, since it is long, and most are of the other kind.
    Once(Option<Box<Request<RequestBody>>>),
}

impl Outgoing {
    fn is_repeatable(&self) -> bool {
        matches!(self, Self::Repeatable(_))
    }

    fn names_host(&self) -> bool {
        match self {
            Self::Repeatable(request) => request.names_host(),
            Self::Once(request) => request.as_ref().is_none_or(|request| request.headers().contains_key(header::HOST)),
        }
    }
}

/// What became of a request that got no answer.
struct Lost {
    /// It is here when nothing of it was sent.
    unsent: Option<Box<Request<RequestBody>>>,
}

/// What stays of a request while it is out.
struct Asked {
    client: Rc<Client>,
    upgrade: Option<HeaderValue>,
    cookie: Option<String>,
    tag: Option<String>,
    retries: Cell<u32>,
    entry: Cell<Option<Entry>>,
}

/// Answers one request.
///
/// # Errors
///
/// Never: what goes wrong is told to the client.
pub(crate) async fn exchange(client: Rc<Client>, request: Request<Incoming>) -> Result<Response<ResponseBody>, Infallible> {
    client.begin();
    let entry = client.shard.access_log.is_some().then(|| Entry::begin(&client, request.method(), request.uri(), now()));
    let (mut asked, mut outgoing) = match prepare(&client, request, entry) {
        Ok(prepared) => prepared,
        Err((refused, entry)) => return Ok(refuse(&client, refused, entry)),
    };
    let mut response = match send(&asked, &mut outgoing).await {
        Ok((response, flight)) => answer(&mut asked, response, flight),
        Err(refused) => refuse(&client, refused, asked.entry.take()),
    };
    if (client.is_to_leave() || client.witness.borrow().is_lost()) && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

type Prepared = (Asked, Outgoing);

fn prepare(client: &Rc<Client>, request: Request<Incoming>, entry: Option<Entry>) -> Result<Prepared, (Refused, Option<Entry>)> {
    let (mut head, body) = request.into_parts();
    if let Err(refused) = headers::check(&head.method, &head.uri, head.version, &head.headers) {
        return Err((refused, entry));
    }
    let expected = if head.headers.contains_key(header::TRANSFER_ENCODING) {
        Expected::Chunks
    } else {
        Expected::Bytes(body.size_hint().exact().unwrap_or(0))
    };
    if let Err(reason) = client.witness.borrow_mut().testify(&head.method, &head.uri, expected) {
        return Err(((StatusCode::BAD_REQUEST, reason), entry));
    }
    let mut upgrade = headers::remove_hop_by_hop(&mut head.headers);
    let has_body = !body.is_end_stream();
    if head.version != Version::HTTP_11 || has_body {
        upgrade = None;
    }
    if let Some(authority) = head.uri.authority() {
        // The target of the request says more than the field, which a proxy may have left as it was.
        if let Ok(host) = HeaderValue::try_from(authority.as_str()) {
            head.headers.insert(header::HOST, host);
        }
    }
    if let Some(protocol) = &upgrade {
        head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(header::UPGRADE, protocol.clone());
    }
    let view = client.shard.view();
    let cookie = view.table.cookie.clone();
    let tag = cookie.as_ref().and_then(|name| headers::cookie(&head.headers, name)).map(ToOwned::to_owned);
    // What is safe or idempotent by its method, has no body and leaves HTTP for nothing else may be repeated.
    let repeatable = !has_body
        && upgrade.is_none()
        && [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE].contains(&head.method);
    let uri = headers::origin_form(head.uri);
    let outgoing = if repeatable {
        let mut request = PlainRequest::begin(&head.method, &uri);
        headers::each_field(&head.headers, client, |name, value| request.add(name, value));
        Outgoing::Repeatable(request.end())
    } else {
        let expects =
            has_body && head.headers.get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        let gate = expects.then(|| Arc::new(Gate::default()));
        let body = match (&gate, has_body) {
            (Some(gate), _) => RequestBody::gated(body, gate.clone()),
            (None, true) => RequestBody::Stream(body),
            (None, false) => RequestBody::Empty,
        };
        let mut request = Request::new(body);
        *request.method_mut() = head.method;
        *request.uri_mut() = uri;
        let fields = request.headers_mut();
        headers::each_field(&head.headers, client, |name, value| {
            fields.append(name, value.clone());
        });
        if let Some(gate) = gate {
            hyper::ext::on_informational(&mut request, move |response| {
                if response.status() == StatusCode::CONTINUE {
                    gate.open();
                }
            });
        }
        Outgoing::Once(Some(Box::new(request)))
    };
    client.uploads.set(false);
    let asked = Asked { client: client.clone(), upgrade, cookie, tag, retries: Cell::new(0), entry: Cell::new(entry) };
    Ok((asked, outgoing))
}

/// Sends a request until somebody answers it, or it may not be sent again.
async fn send(asked: &Asked, outgoing: &mut Outgoing) -> Result<(Response<Source>, Flight), Refused> {
    let client = &asked.client;
    let shard = &client.shard;
    let listener = client.listener;
    let repeatable = outgoing.is_repeatable();
    let mut avoid: Option<Rc<Lane>> = None;
    let mut resends = 0;
    let mut own_failures = 0;
    let mut may_reuse = repeatable;
    for _ in 0..MOST_CONNECTS {
        let flight = shard.admit(listener, asked.tag.as_deref(), avoid.as_ref()).await.map_err(|error| match error {
            HoldError::Full => (StatusCode::SERVICE_UNAVAILABLE, "too many requests wait for the service"),
            HoldError::Expired => (StatusCode::SERVICE_UNAVAILABLE, "the service did not come up in time"),
            HoldError::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "the gateway is being stopped, and the service is not there"),
        })?;
        let lane = flight.lane().clone();
        client.runs_at(&lane);
        let kept = if may_reuse { lane.take(listener) } else { None };
        let was_used = kept.is_some();
        let upstream = match kept {
            Some(plain) => Upstream::Plain(plain),
            None => match connect(client, &lane, repeatable).await {
                Ok(upstream) => upstream,
                Err(error) => {
                    shard.blame(&lane, listener, &error);
                    lane.meter.retries.add_one();
                    asked.retries.set(asked.retries.get() + 1);
                    if super::upstream::is_local(&error) {
                        own_failures += 1;
                        if own_failures > MOST_OWN_FAILURES {
                            return Err((StatusCode::SERVICE_UNAVAILABLE, "the gateway has no free port or descriptor"));
                        }
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    continue;
                }
            },
        };
        // Only HTTP/1.0 comes without a host.
        let port = || shard.spec(listener).map_or(0, |spec| spec.port);
        let host = match outgoing.names_host() {
            true => None,
            false => HeaderValue::try_from(lane.target.authority(port())).ok(),
        };
        let sent = now();
        let (answered, uploads) = match (upstream, &mut *outgoing) {
            (Upstream::Plain(mut plain), Outgoing::Repeatable(request)) => {
                plain.ask(request, host.as_ref());
                (put(client, plain).await, false)
            }
            (Upstream::Full(full), Outgoing::Once(request)) => {
                let Some(mut request) = request.take() else { break };
                if let Some(host) = host {
                    request.headers_mut().insert(header::HOST, host);
                }
                let uploads = !request.body().is_end_stream();
                (put_full(client, full, request).await, uploads)
            }
            // `connect` gives each the connection that it needs.
            _ => break,
        };
        match answered {
            Ok(response) => {
                lane.meter.requests.add_one();
                lane.meter.took(now().saturating_sub(sent));
                client.uploads.set(uploads);
                return Ok((response, flight));
            }
            Err(Lost { unsent: Some(request) }) => {
                *outgoing = Outgoing::Once(Some(request));
                may_reuse = false;
            }
            Err(Lost { unsent: None }) if repeatable && resends < MOST_RESENDS => {
                may_reuse = false;
                if !was_used {
                    // A fresh connection that broke says something about the instance; an old one does not.
                    resends += 1;
                    avoid = Some(lane.clone());
                }
            }
            Err(Lost { unsent: None }) => {
                lane.meter.requests.add_one();
                lane.meter.broken.add_one();
                return Err((StatusCode::BAD_GATEWAY, "the service broke the connection off"));
            }
        }
        lane.meter.retries.add_one();
        asked.retries.set(asked.retries.get() + 1);
    }
    Err((StatusCode::BAD_GATEWAY, "the service could not be reached"))
}

async fn connect(client: &Client, lane: &Lane, repeatable: bool) -> std::io::Result<Upstream> {
    let port = client.shard.spec(client.listener).map_or(0, |spec| spec.port);
    let stream = lane.target.connect(port, client.shard.settings.connect_timeout).await?;
    match repeatable {
        true => Ok(Upstream::Plain(Box::new(Plain::new(stream)))),
        false => Full::new(stream).await.map(Upstream::Full),
    }
}

/// Sends the request that was put on a connection and waits for the beginning of the answer.
async fn put(client: &Client, plain: Box<Plain>) -> Result<Response<Source>, Lost> {
    *client.upstream.borrow_mut() = Some(Upstream::Plain(plain));
    let answered = std::future::poll_fn(|context| match client.upstream.borrow_mut().as_mut() {
        Some(Upstream::Plain(plain)) => plain.poll_head(context).map(Result::ok),
        _ => Poll::Ready(None),
    })
    .await;
    answered.map(|response| response.map(|()| Source::Plain)).ok_or_else(|| {
        client.upstream.borrow_mut().take();
        Lost { unsent: None }
    })
}

/// The same for a request that goes through the HTTP library.
async fn put_full(client: &Client, mut full: Box<Full>, request: Box<Request<RequestBody>>) -> Result<Response<Source>, Lost> {
    let mut response = pin!(full.sender().try_send_request(*request));
    *client.upstream.borrow_mut() = Some(Upstream::Full(full));
    let answered = std::future::poll_fn(|context| {
        let ended = match client.upstream.borrow_mut().as_mut() {
            Some(Upstream::Full(full)) => {
                full.drive(context);
                full.has_ended()
            }
            _ => true,
        };
        // Only driving brings it, which we do ourselves: being woken for it would cost another round through everything.
        let mut look = || response.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        let answered = look();
        if answered.is_pending() && ended {
            // A connection that was closed while nobody used it ends without a word about the request that waits on it. Only its going
            // away gives the request back, unsent.
            client.upstream.borrow_mut().take();
            return look();
        }
        answered
    })
    .await;
    answered.map(|response| response.map(Source::Full)).map_err(|mut error| {
        client.upstream.borrow_mut().take();
        Lost { unsent: error.take_message().map(Box::new) }
    })
}

/// Turns an instance's answer into the client's.
fn answer(asked: &mut Asked, response: Response<Source>, mut flight: Flight) -> Response<ResponseBody> {
    let client = &asked.client;
    let lane = flight.lane().clone();
    let (mut head, body) = response.into_parts();
    if head.status.is_server_error() {
        lane.meter.server_errors.add_one();
    }
    let mut entry = asked.entry.take();
    if let Some(entry) = &mut entry {
        entry.answered(head.status, Some(&lane.target), asked.retries.get());
    }
    let upgrade = headers::remove_hop_by_hop(&mut head.headers);
    head.version = Version::HTTP_11;
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        let (Some(wanted), Some(Upstream::Full(upstream))) = (&asked.upgrade, client.upstream.borrow_mut().take()) else {
            drop(flight);
            return refuse(client, (StatusCode::BAD_GATEWAY, "the service left HTTP without being asked"), entry);
        };
        let protocol = upgrade.unwrap_or_else(|| wanted.clone());
        let websocket = protocol.as_bytes().eq_ignore_ascii_case(b"websocket");
        head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(header::UPGRADE, protocol);
        flight.becomes_stream();
        client.becomes_stream();
        *client.handover.borrow_mut() = Some(Handover { upstream, flight, websocket });
        write(client, entry);
        return Response::from_parts(head, ResponseBody::Empty);
    }
    if let Some(name) = asked.cookie.as_ref().filter(|_| asked.tag.as_ref() != Some(&lane.target.tag))
        && let Ok(value) = HeaderValue::try_from(format!("{name}={}; Path=/; HttpOnly; SameSite=Lax", lane.target.tag))
    {
        head.headers.append(header::SET_COOKIE, value);
    }
    if body.is_over(client) {
        if let Some(upstream) = client.upstream.borrow_mut().take() {
            lane.give_back(client.listener, upstream, client.shard.coarse_now());
        }
        drop(flight);
        client.finish();
        write(client, entry);
        return Response::from_parts(head, ResponseBody::Empty);
    }
    let events = |value: &HeaderValue| value.as_bytes().get(..17).is_some_and(|start| start.eq_ignore_ascii_case(b"text/event-stream"));
    if head.headers.get(header::CONTENT_TYPE).is_some_and(events) && !head.headers.contains_key(header::CONTENT_LENGTH) {
        flight.becomes_stream();
        client.becomes_stream();
    }
    Response::from_parts(head, ResponseBody::Stream(Streaming::new(body, client, flight, entry)))
}

fn write(client: &Client, entry: Option<Entry>) {
    if let (Some(entry), Some(log)) = (entry, &client.shard.access_log) {
        log.write(entry);
    }
}

/// An answer of the gateway itself.
fn refuse(client: &Client, (status, reason): Refused, mut entry: Option<Entry>) -> Response<ResponseBody> {
    client.upstream.borrow_mut().take();
    client.finish();
    if let Some(entry) = &mut entry {
        entry.answered(status, None, 0);
        entry.add_bytes(reason.len() + 1);
    }
    write(client, entry);
    let mut response = Response::new(ResponseBody::Text(Some(Bytes::from(format!("{reason}\n")))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if status.is_client_error() || status == StatusCode::NOT_IMPLEMENTED {
        // What follows on this connection cannot be trusted to begin where we think it does.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

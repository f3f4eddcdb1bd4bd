//! One GET over one connection, with its phases and the certificate that was shown.
//!
//! The connection is driven by the caller's own future: when it ends, or is dropped, the socket is closed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::HeaderMap;
use hyper::header::{ACCEPT, AUTHORIZATION, CONNECTION, HOST, LOCATION, USER_AGENT};
use hyper_util::rt::TokioIo;
use kaleem_core::clock::{Clock, SystemClock};
use kaleem_core::health::{Finding, Resolver, Verdict};
use kaleem_core::secret::Secret;
use url::Url;

use super::h2;
use crate::dial::{DialError, Dialed, Endpoint, dial};
use crate::http::is_not_http;
use crate::settings::{HttpVersion, SettingsError, TlsSettings, login};
use crate::tls::Tls;

/// How much of a body is read: a flood must not cost memory.
pub(crate) const LONGEST_BODY_BYTES: usize = 1024 * 1024;
const LONGEST_HEAD_BYTES: usize = 64 * 1024;

/// Sends requests.
pub(crate) struct Client {
    tls: Tls,
    version: HttpVersion,
    resolver: Arc<dyn Resolver>,
}

/// An answer.
pub(crate) struct Fetched {
    pub status: u16,
    pub headers: HeaderMap,
    /// The first MiB.
    pub body: Vec<u8>,
    /// Whether the connection ended before the body did.
    pub is_cut: bool,
    pub phases: BTreeMap<String, Duration>,
    /// From the name to the last byte.
    pub total: Duration,
    pub certificate: Option<Vec<u8>>,
}

impl Fetched {
    /// Where a redirect leads.
    pub(crate) fn redirect(&self, from: &Url) -> Option<Url> {
        if !matches!(self.status, 301 | 302 | 303 | 307 | 308) {
            return None;
        }
        let next = from.join(self.headers.get(LOCATION)?.to_str().ok()?).ok()?;
        matches!(next.scheme(), "http" | "https").then_some(next)
    }

    /// The media type, without its parameters.
    pub(crate) fn media_type(&self) -> String {
        let value = self.headers.get(hyper::header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }
}

/// What is known of a connection beside its answer.
pub(crate) struct Opened {
    phases: BTreeMap<String, Duration>,
    certificate: Option<Vec<u8>>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum FetchError {
    Dial(DialError, Box<Endpoint>),
    NotHttp,
    /// It chose another protocol, or answered in one.
    NotHttp2,
    Closed,
    /// A header or the address cannot be sent.
    Request,
}

impl FetchError {
    pub(crate) fn finding(&self, url: &Url) -> Finding {
        let place = shown(url);
        match self {
            Self::Dial(error, endpoint) => error.finding(endpoint),
            Self::NotHttp => Finding::new(Verdict::Fail, format!("{place} answered something that is not HTTP"))
                .with_remedy("check the port, and whether it speaks TLS (https)"),
            Self::NotHttp2 => Finding::new(Verdict::Fail, format!("{place} does not speak HTTP/2"))
                .with_remedy("switch it on at the server (over TLS it is chosen by ALPN), or ask over HTTP/1.1"),
            Self::Closed => {
                Finding::new(Verdict::Fail, format!("{place} closed the connection without an answer")).with_remedy("see why in its log")
            }
            Self::Request => Finding::new(Verdict::Unknown, format!("{place} cannot be asked: a header is not allowed to be sent"))
                .with_remedy("check the headers in the settings for line breaks and other control characters"),
        }
    }
}

/// The address without what may be secret in it.
pub(crate) fn shown(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map_or(String::new(), |port| format!(":{port}"));
    let query = if url.query().is_some() { "?…" } else { "" };
    format!("{}://{host}{port}{}{query}", url.scheme(), url.path())
}

/// An address of the web.
pub(crate) fn web_address(kind: &'static str, url: Url) -> Result<Url, SettingsError> {
    match (url.scheme(), url.host_str()) {
        ("http" | "https", Some(_)) => Ok(url),
        _ => Err(SettingsError::Address { kind, reason: "it does not start with `http://` or `https://` and a host" }),
    }
}

impl Client {
    pub(crate) fn new(tls: &TlsSettings, resolver: Arc<dyn Resolver>) -> Result<Self, SettingsError> {
        Ok(Self { tls: Tls::new(tls)?, version: HttpVersion::One, resolver })
    }

    /// One that accepts every certificate.
    pub(crate) fn accepting_any(resolver: Arc<dyn Resolver>) -> Option<Self> {
        Some(Self { tls: Tls::accepting_any()?, version: HttpVersion::One, resolver })
    }

    /// The same in another version of HTTP.
    pub(crate) fn speaking(self, version: HttpVersion) -> Self {
        match version {
            HttpVersion::One => Self { version, ..self },
            HttpVersion::Two => Self { version, tls: self.tls.offering(h2::ALPN), ..self },
        }
    }

    async fn open(&self, url: &Url, timeout: Duration) -> Result<Dialed, FetchError> {
        let endpoint = Endpoint {
            host: url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned(),
            port: url.port_or_known_default().unwrap_or(80),
            tls: (url.scheme() == "https").then(|| self.tls.clone()),
        };
        dial(&endpoint, self.resolver.as_ref(), timeout).await.map_err(|error| FetchError::Dial(error, Box::new(endpoint)))
    }

    /// Sends a request over HTTP/2; the caller bounds the time.
    pub(crate) async fn exchange(
        &self,
        url: &Url,
        request: hyper::Request<Full<Bytes>>,
        timeout: Duration,
    ) -> Result<(h2::Answer, Opened), FetchError> {
        let dialed = self.open(url, timeout).await?;
        if dialed.certificate.is_some() && dialed.alpn.as_deref() != Some(h2::ALPN) {
            return Err(FetchError::NotHttp2);
        }
        let answer = h2::exchange(dialed.wire, request).await?;
        Ok((answer, Opened { phases: dialed.phases, certificate: dialed.certificate }))
    }

    /// Asks once; the caller bounds the time. User and password of the address are sent.
    pub(crate) async fn get(&self, url: &Url, headers: &[(String, Secret<String>)], timeout: Duration) -> Result<Fetched, FetchError> {
        let start = SystemClock.monotonic();
        let request = request(url, headers, self.version)?;
        if self.version == HttpVersion::Two {
            let (answer, Opened { mut phases, certificate }) = self.exchange(url, request, timeout).await?;
            phases.insert("first-byte".to_owned(), answer.first_byte);
            let h2::Answer { status, headers, body, is_cut, .. } = answer;
            let total = SystemClock.monotonic().saturating_sub(start);
            return Ok(Fetched { status, headers, body, is_cut, phases, total, certificate });
        }
        let dialed = self.open(url, timeout).await?;
        let sent = SystemClock.monotonic();
        let builder =
            hyper::client::conn::http1::Builder::new().max_buf_size(LONGEST_HEAD_BYTES).handshake(TokioIo::new(dialed.wire)).await;
        let (mut sender, connection) = builder.map_err(|_| FetchError::Closed)?;
        let mut phases = dialed.phases;
        let talk = async {
            let response = sender
                .send_request(request)
                .await
                .map_err(|error| if is_not_http(&error) { FetchError::NotHttp } else { FetchError::Closed })?;
            phases.insert("first-byte".to_owned(), SystemClock.monotonic().saturating_sub(sent));
            let (head, body) = response.into_parts();
            let (body, is_cut) = read(body).await;
            let total = SystemClock.monotonic().saturating_sub(start);
            Ok(Fetched {
                status: head.status.as_u16(),
                headers: head.headers,
                body,
                is_cut,
                phases,
                total,
                certificate: dialed.certificate,
            })
        };
        let mut talk = std::pin::pin!(talk);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            fetched = &mut talk => match fetched {
                Err(FetchError::Closed) => match connection.await {
                    Err(ended) if is_not_http(&ended) => Err(FetchError::NotHttp),
                    _ => Err(FetchError::Closed),
                },
                fetched => fetched,
            },
            // The connection may end with the last byte of the body; otherwise it knows best why there is none.
            ended = &mut connection => talk.await.map_err(|error| match ended {
                Err(ended) if is_not_http(&ended) => FetchError::NotHttp,
                _ => error,
            }),
        }
    }
}

fn request(url: &Url, headers: &[(String, Secret<String>)], version: HttpVersion) -> Result<hyper::Request<Full<Bytes>>, FetchError> {
    let target = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
    let host = url.host_str().unwrap_or_default();
    let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let mut builder = match version {
        HttpVersion::One => hyper::Request::get(target).header(HOST, host).header(CONNECTION, "close"),
        HttpVersion::Two => hyper::Request::get(format!("{}://{host}{target}", url.scheme())),
    };
    builder = builder.header(USER_AGENT, concat!("kaleem/", env!("CARGO_PKG_VERSION"))).header(ACCEPT, "*/*");
    if let (Some(user), password) = login(url) {
        let password = password.as_ref().map_or("", |password| password.expose().as_str());
        builder = builder
            .header(AUTHORIZATION, format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"))));
    }
    for (name, value) in headers {
        builder = builder.header(name.as_str(), value.expose().as_str());
    }
    builder.body(Full::new(Bytes::new())).map_err(|_| FetchError::Request)
}

async fn read(mut body: hyper::body::Incoming) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return (bytes, true) };
        let Ok(chunk) = frame.into_data() else { continue };
        let room = LONGEST_BODY_BYTES.saturating_sub(bytes.len());
        bytes.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
        if chunk.len() > room {
            break;
        }
    }
    (bytes, false)
}

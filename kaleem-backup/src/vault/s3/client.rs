//! Requests to the service: signed, sent again while that may help, and told without their addresses, which are signed.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use kaleem_core::backup::VaultError;
use kaleem_core::clock::jittered;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode, Url};

use crate::words::shown;

const FIRST_DELAY: Duration = Duration::from_millis(200);
const LONGEST_DELAY: Duration = Duration::from_secs(10);
/// Longer than any retry of one request, short enough that an address which leaks is soon worth nothing.
const SIGNED_FOR: Duration = Duration::from_secs(3600);
const LONGEST_ANSWER: usize = 64 * 1024 * 1024;

pub(super) struct Client {
    pub(super) http: reqwest::Client,
    pub(super) place: String,
    pub(super) answer_within: Duration,
    pub(super) attempts: u32,
}

/// An answer in whole.
pub(super) struct Answer {
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    /// Whether the request had been sent before, so that it may have been carried out then.
    pub(super) repeated: bool,
}

/// What became of a request.
pub(super) enum Asked {
    Good(Answer),
    /// The object is not there.
    Missing,
    /// 412, or 409 of one who is writing it now: the condition does not hold.
    Condition(Answer),
    /// The service does not know the condition.
    Unknown(String),
    /// Anything else: status and what it said.
    Refused(StatusCode, String),
}

impl Asked {
    pub(super) fn into_error(self, client: &Client, doing: &'static str) -> VaultError {
        match self {
            Self::Refused(status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN), reason) => {
                let reason = format!("it answers {}: {reason}", status.as_u16());
                VaultError::Denied { place: client.place.clone(), doing, reason }
            }
            Self::Refused(status, reason) => client.nonsense(doing, &format!("it answers {}: {reason}", status.as_u16())),
            Self::Unknown(reason) => client.nonsense(doing, &reason),
            Self::Missing => client.nonsense(doing, "it answers that there is none"),
            Self::Condition(_) => client.nonsense(doing, "it answers that a condition does not hold"),
            Self::Good(_) => client.nonsense(doing, "a bug: it was well"),
        }
    }
}

fn may_pass(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// The code of a refusal: `<Code>…</Code>`.
fn code(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
    code.map(|(code, _)| code.chars().filter(char::is_ascii_alphanumeric).take(80).collect()).unwrap_or_default()
}

impl Client {
    pub(super) fn signed_for(&self) -> Duration {
        SIGNED_FOR
    }

    pub(super) fn nonsense(&self, doing: &str, reason: &str) -> VaultError {
        let source: Box<dyn std::error::Error + Send + Sync> = format!("could not {doing}: {reason}").into();
        VaultError::Unreachable { place: self.place.clone(), source }
    }

    fn lost(&self, error: reqwest::Error) -> VaultError {
        VaultError::Unreachable { place: self.place.clone(), source: Box::new(error.without_url()) }
    }

    async fn pause(&self, attempt: u32, answer: Option<&HeaderMap>) {
        let told = answer.and_then(|headers| headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()).map(Duration::from_secs);
        let doubled = FIRST_DELAY.saturating_mul(1 << attempt.min(8)).min(LONGEST_DELAY);
        let wait = told.map_or(doubled, |told| told.min(LONGEST_DELAY));
        tokio::time::sleep(jittered(wait)).await;
    }

    async fn send(&self, method: &Method, url: &Url, headers: &[(&str, String)], body: &Bytes) -> Result<Response, VaultError> {
        let mut request = self.http.request(method.clone(), url.clone());
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        if matches!(*method, Method::PUT | Method::POST) {
            request = request.header(CONTENT_LENGTH, body.len()).body(body.clone());
        }
        match tokio::time::timeout(self.answer_within, Box::pin(request.send())).await {
            Ok(sent) => sent.map_err(|error| self.lost(error)),
            Err(_) => Err(self.nonsense("get an answer", &format!("none came within {} s", self.answer_within.as_secs_f64()))),
        }
    }

    async fn whole(&self, mut response: Response) -> Result<(StatusCode, HeaderMap, Vec<u8>), VaultError> {
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = Vec::new();
        let reading = async {
            while let Some(chunk) = response.chunk().await.map_err(|error| self.lost(error))? {
                if body.len() + chunk.len() > LONGEST_ANSWER {
                    return Err(self.nonsense("read an answer", "it is too long"));
                }
                body.extend_from_slice(&chunk);
            }
            Ok(())
        };
        match tokio::time::timeout(self.answer_within, reading).await {
            Ok(read) => read?,
            Err(_) => return Err(self.nonsense("read an answer", "it stopped in the middle")),
        }
        Ok((status, headers, body))
    }

    /// Asks, and asks again while that may help. `body` is sent with PUT and POST alone.
    pub(super) async fn ask(
        &self,
        doing: &'static str,
        method: Method,
        url: &Url,
        headers: &[(&str, String)],
        body: &[u8],
    ) -> Result<Asked, VaultError> {
        self.ask_with(doing, method, url, headers, Bytes::copy_from_slice(body)).await
    }

    /// [`Client::ask`] of bytes that are shared.
    pub(super) async fn ask_with(
        &self,
        doing: &'static str,
        method: Method,
        url: &Url,
        headers: &[(&str, String)],
        body: Bytes,
    ) -> Result<Asked, VaultError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let asked = async {
                let response = self.send(&method, url, headers, &body).await?;
                self.whole(response).await
            };
            let (status, headers, body) = match asked.await {
                Ok(answer) => answer,
                Err(error) if attempt >= self.attempts => return Err(error),
                Err(_) => {
                    self.pause(attempt, None).await;
                    continue;
                }
            };
            let code = code(&body);
            // Some answers begin as good ones and end as failures.
            let failed_late = status.is_success() && !code.is_empty();
            let answer = Answer { headers, body, repeated: attempt > 1 };
            if may_pass(status) || failed_late || code == "SlowDown" {
                if attempt < self.attempts {
                    self.pause(attempt, Some(&answer.headers)).await;
                    continue;
                }
                return Err(self.nonsense(doing, &format!("it answers {} {code} after {attempt} attempts", status.as_u16())));
            }
            return Ok(match status {
                status if status.is_success() => Asked::Good(answer),
                StatusCode::PRECONDITION_FAILED => Asked::Condition(answer),
                StatusCode::CONFLICT if code == "ConditionalRequestConflict" => Asked::Condition(answer),
                StatusCode::NOT_FOUND if code.is_empty() || code == "NoSuchKey" => Asked::Missing,
                StatusCode::NOT_IMPLEMENTED => Asked::Unknown(format!("it answers 501 {code}")),
                status => Asked::Refused(status, if code.is_empty() { shown(&answer.body) } else { code }),
            });
        }
    }

    /// Opens an object for reading; `None` when it is not there.
    pub(super) async fn open(
        self: &std::sync::Arc<Self>,
        sign: impl Fn() -> Url + Send + Sync + 'static,
    ) -> Result<Option<Reading>, VaultError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let sent = self.send(&Method::GET, &sign(), &[], &Bytes::new()).await;
            let response = match sent {
                Ok(response) if may_pass(response.status()) && attempt < self.attempts => {
                    let headers = response.headers().clone();
                    self.pause(attempt, Some(&headers)).await;
                    continue;
                }
                Ok(response) => response,
                Err(error) if attempt >= self.attempts => return Err(error),
                Err(_) => {
                    self.pause(attempt, None).await;
                    continue;
                }
            };
            if response.status() == StatusCode::OK {
                let Some(length) = response.content_length() else {
                    return Err(self.nonsense("read an object", "it does not say how long it is"));
                };
                let tag = response.headers().get(ETAG).and_then(|tag| tag.to_str().ok()).map(str::to_owned);
                let client = std::sync::Arc::clone(self);
                let sign = Box::new(sign);
                return Ok(Some(Reading { client, sign, response, length, taken: 0, tag, attempt: 1 }));
            }
            let (status, _, body) = self.whole(response).await?;
            let code = code(&body);
            if status == StatusCode::NOT_FOUND && (code.is_empty() || code == "NoSuchKey") {
                return Ok(None);
            }
            return Err(Asked::Refused(status, code).into_error(self, "read an object"));
        }
    }
}

/// An object that is being read. Where the connection breaks it goes on from there, if it is still the same object.
pub(super) struct Reading {
    client: std::sync::Arc<Client>,
    sign: Box<dyn Fn() -> Url + Send + Sync>,
    response: Response,
    length: u64,
    taken: u64,
    tag: Option<String>,
    attempt: u32,
}

impl Reading {
    /// The next piece; `None` only after the last byte.
    pub(super) async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if self.taken == self.length {
                return Ok(None);
            }
            let reason = match tokio::time::timeout(self.client.answer_within, self.response.chunk()).await {
                Ok(Ok(Some(chunk))) if chunk.len() as u64 <= self.length - self.taken => {
                    self.taken += chunk.len() as u64;
                    self.attempt = 1;
                    return Ok(Some(chunk.to_vec()));
                }
                Ok(Ok(Some(_))) => return Err(io::Error::other(format!("{}: more came than was said", self.client.place))),
                Ok(Ok(None)) => "the stream ended too early".to_owned(),
                Ok(Err(error)) => kaleem_core::remedy::one_line(&error.without_url()),
                Err(_) => "nothing came".to_owned(),
            };
            self.resume(&reason).await?;
        }
    }

    async fn resume(&mut self, reason: &str) -> io::Result<()> {
        let (taken, length) = (self.taken, self.length);
        let place = self.client.place.clone();
        let broken = |why: &str| io::Error::other(format!("{place}: after {taken} of {length} bytes {reason}; {why}"));
        let Some(tag) = self.tag.clone() else { return Err(broken("it cannot be gone on with")) };
        while self.attempt < self.client.attempts {
            self.attempt += 1;
            self.client.pause(self.attempt, None).await;
            let headers = [("range", format!("bytes={taken}-")), ("if-match", tag.clone())];
            let Ok(response) = self.client.send(&Method::GET, &(self.sign)(), &headers, &Bytes::new()).await else { continue };
            if response.status() == StatusCode::PARTIAL_CONTENT {
                let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok()).unwrap_or_default();
                if !range.starts_with(&format!("bytes {taken}-")) || !range.ends_with(&format!("/{length}")) {
                    return Err(broken("what came then is another part"));
                }
                self.response = response;
                return Ok(());
            }
            if !may_pass(response.status()) {
                return Err(broken(&format!("it answers {}", response.status().as_u16())));
            }
        }
        Err(broken("it did not get better"))
    }
}

//! HTTP to stores and vaults that are asked over it: one client, whose errors never hold an address with a secret in it.
//!
//! Redirects are not followed: whoever answers with one would see credentials that are not meant for it. An answer is
//! bounded, a stream that goes silent is an error, and one that is cut ends with an error.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{Stream, stream};
use kaleem_core::backup::{ByteSender, PipeReader, SourceError};
use kaleem_core::remedy::one_line;
use kaleem_core::secret::Secret;
use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Body, Client, Method, RequestBuilder, Response, StatusCode, Url};
use serde_json::Value;
use tokio::io::AsyncReadExt;

use crate::words::shown;

/// The longest answer that is kept in memory.
const LONGEST_ANSWER: usize = 64 * 1024 * 1024;
const CHUNK_BYTES: usize = 256 * 1024;

/// Who we are to a server.
#[derive(Clone, Debug)]
pub(crate) enum Login {
    Nobody,
    Basic {
        user: String,
        password: Secret<String>,
    },
    #[cfg_attr(not(feature = "qdrant"), expect(dead_code, reason = "only Qdrant has keys"))]
    Header {
        name: &'static str,
        value: Secret<String>,
    },
}

/// A server that is asked over HTTP.
#[derive(Clone, Debug)]
pub(crate) struct Web {
    client: Client,
    base: Url,
    login: Login,
    /// For people: kind and address, without credentials.
    pub(crate) store: String,
    pub(crate) answer_within: Duration,
}

/// An answer in whole.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Vec<u8>,
}

/// A client that follows no redirect and uses no proxy.
///
/// # Errors
/// What the system's certificates or TLS say.
pub(crate) fn client(connect_within: Duration) -> Result<Client, reqwest::Error> {
    // Whoever embeds this may have chosen another provider; then that one is used.
    rustls::crypto::ring::default_provider().install_default().ok();
    Client::builder()
        .user_agent(concat!("kaleem/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .no_proxy()
        .connect_timeout(connect_within)
        .build()
}

/// A user and a password.
pub(crate) type UserAndPassword = (String, Secret<String>);

/// Splits user and password off an address.
pub(crate) fn address(text: &str) -> Option<(Url, Option<UserAndPassword>)> {
    let mut url: Url = text.trim().parse().ok()?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return None;
    }
    let decoded = |text: &str| percent_decoded(text);
    let login = match (url.username(), url.password()) {
        ("", None) => None,
        (user, password) => Some((decoded(user)?, Secret::new(decoded(password.unwrap_or_default())?))),
    };
    url.set_username("").ok()?;
    url.set_password(None).ok()?;
    url.set_query(None);
    url.set_fragment(None);
    Some((url, login))
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let (high, low) = (rest.next()?, rest.next()?);
            bytes.push(u8::from_str_radix(std::str::from_utf8(&[high, low]).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

impl Web {
    /// A server of `kind` at `base`; nothing is asked yet.
    ///
    /// # Errors
    /// [`SourceError::Denied`] when no client can be made.
    pub(crate) fn new(kind: &str, base: Url, login: Login, answer_within: Duration) -> Result<Self, SourceError> {
        let host = base.host_str().unwrap_or_default();
        let port = base.port_or_known_default().unwrap_or_default();
        let store = format!("{kind} at {host}:{port}");
        let client = client(answer_within).map_err(|error| SourceError::Denied {
            store: store.clone(),
            doing: "connect",
            reason: one_line(&error.without_url()),
        })?;
        Ok(Self { client, base, login, store, answer_within })
    }

    /// The same server, asked as somebody else.
    pub(crate) fn with_login(&self, login: Login) -> Self {
        Self { login, ..self.clone() }
    }

    fn request(&self, method: Method, path: &[&str], query: &[(&str, &str)]) -> RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        for (name, value) in query {
            url.query_pairs_mut().append_pair(name, value);
        }
        let request = self.client.request(method, url);
        match &self.login {
            Login::Nobody => request,
            Login::Basic { user, password } => request.basic_auth(user, Some(password.expose())),
            Login::Header { name, value } => match HeaderValue::from_str(value.expose()) {
                Ok(mut header) => {
                    header.set_sensitive(true);
                    request.header(HeaderName::from_static(name), header)
                }
                // A key that cannot be sent is not accepted: the server says so.
                Err(_) => request,
            },
        }
    }

    pub(crate) fn lost(&self, doing: &str, error: reqwest::Error) -> SourceError {
        let error = error.without_url();
        if error.is_connect() {
            return SourceError::Unreachable { store: self.store.clone(), source: Box::new(error) };
        }
        SourceError::Failed { store: self.store.clone(), doing: doing.to_owned(), source: Box::new(error) }
    }

    pub(crate) fn failed(&self, doing: &str, reason: impl Into<String>) -> SourceError {
        SourceError::Failed { store: self.store.clone(), doing: doing.to_owned(), source: reason.into().into() }
    }

    /// Sends a question, and waits for its whole answer.
    pub(crate) async fn ask(
        &self,
        doing: &str,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Answer, SourceError> {
        let mut request = self.request(method, path, query);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let asking = async {
            let response = request.send().await.map_err(|error| self.lost(doing, error))?;
            self.whole(doing, response).await
        };
        match tokio::time::timeout(self.answer_within, Box::pin(asking)).await {
            Ok(answer) => answer,
            Err(_) => Err(self.failed(doing, format!("no answer within {} s", self.answer_within.as_secs_f64()))),
        }
    }

    async fn whole(&self, doing: &str, mut response: Response) -> Result<Answer, SourceError> {
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.lost(doing, error))? {
            if body.len() + chunk.len() > LONGEST_ANSWER {
                return Err(self.failed(doing, "the answer is too long"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, body })
    }

    /// [`Web::ask`] where every status but a good one is an error.
    pub(crate) async fn expect(
        &self,
        doing: &'static str,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Vec<u8>, SourceError> {
        let answer = self.ask(doing, method, path, query, body).await?;
        self.accept(doing, answer)
    }

    /// The body of a good answer.
    pub(crate) fn accept(&self, doing: &'static str, answer: Answer) -> Result<Vec<u8>, SourceError> {
        match answer.status {
            status if status.is_success() => Ok(answer.body),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let reason = format!("it answers {}: {}", answer.status.as_u16(), shown(&answer.body));
                Err(SourceError::Denied { store: self.store.clone(), doing, reason })
            }
            status => Err(self.failed(doing, format!("it answers {}: {}", status.as_u16(), shown(&answer.body)))),
        }
    }

    /// [`Web::expect`], read as JSON.
    pub(crate) async fn json(
        &self,
        doing: &'static str,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Value, SourceError> {
        let body = self.expect(doing, method, path, query, body).await?;
        serde_json::from_slice(&body).map_err(|error| self.failed(doing, format!("the answer is no JSON: {error}")))
    }

    /// Fetches a body as it comes; answers how long it was. A body that is cut or goes silent is an error.
    #[cfg_attr(not(feature = "qdrant"), expect(dead_code, reason = "only Qdrant sends files"))]
    pub(crate) async fn fetch(
        &self,
        doing: &'static str,
        path: &[&str],
        out: &mut ByteSender,
        mut see: impl FnMut(&[u8]),
    ) -> Result<u64, SourceError> {
        let silent = || self.failed(doing, format!("nothing came for {} s", self.answer_within.as_secs_f64()));
        let sending = self.request(Method::GET, path, &[]).send();
        let response = tokio::time::timeout(self.answer_within, sending).await.map_err(|_| silent())?;
        let mut response = response.map_err(|error| self.lost(doing, error))?;
        if !response.status().is_success() {
            let answer = self.whole(doing, response).await?;
            return Err(self.accept(doing, answer).err().unwrap_or_else(silent));
        }
        let wanted = response.content_length();
        let mut length = 0_u64;
        loop {
            let chunk = tokio::time::timeout(self.answer_within, response.chunk()).await.map_err(|_| silent())?;
            let Some(chunk) = chunk.map_err(|error| self.lost(doing, error))? else { break };
            length += chunk.len() as u64;
            see(&chunk);
            out.send(chunk.to_vec()).await.map_err(|source| SourceError::Output { source })?;
        }
        match wanted {
            Some(wanted) if wanted != length => Err(self.failed(doing, format!("{length} of {wanted} bytes came"))),
            _ => Ok(length),
        }
    }

    /// Sends a body as it comes, and waits for the answer for as long as the body moves and `answer_within` after it.
    #[cfg_attr(not(feature = "qdrant"), expect(dead_code, reason = "only Qdrant takes files"))]
    pub(crate) async fn upload(
        &self,
        doing: &'static str,
        path: &[&str],
        query: &[(&str, &str)],
        upload: Upload,
    ) -> Result<Vec<u8>, SourceError> {
        let moved = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&moved);
        let request = self
            .request(Method::POST, path, query)
            .header("content-type", upload.content_type.clone())
            .header("content-length", upload.length().to_string())
            .body(Body::wrap_stream(upload.stream(moved)));
        let sending = async {
            let response = request.send().await.map_err(|error| self.lost(doing, error))?;
            self.whole(doing, response).await
        };
        let silence = async {
            let mut before = u64::MAX;
            loop {
                let now = seen.load(Ordering::Relaxed);
                if now == before {
                    return;
                }
                before = now;
                tokio::time::sleep(self.answer_within).await;
            }
        };
        let answer = tokio::select! {
            answer = Box::pin(sending) => answer?,
            () = silence => return Err(self.failed(doing, format!("nothing moved for {} s", self.answer_within.as_secs_f64()))),
        };
        self.accept(doing, answer)
    }
}

/// A body of which the middle comes from elsewhere.
#[cfg_attr(not(feature = "qdrant"), expect(dead_code, reason = "only Qdrant takes files"))]
pub(crate) struct Upload {
    pub(crate) content_type: String,
    pub(crate) head: Vec<u8>,
    pub(crate) content: PipeReader,
    /// Exactly as many bytes as `content` gives.
    pub(crate) content_bytes: u64,
    pub(crate) tail: Vec<u8>,
}

#[cfg_attr(not(feature = "qdrant"), expect(dead_code, reason = "only Qdrant takes files"))]
impl Upload {
    fn length(&self) -> u64 {
        self.head.len() as u64 + self.content_bytes + self.tail.len() as u64
    }

    fn stream(self, moved: Arc<AtomicU64>) -> impl Stream<Item = std::io::Result<Vec<u8>>> + Send + 'static {
        stream::unfold(Some((self.head, self.content, self.tail, moved)), |state| async move {
            let (head, mut content, tail, moved) = state?;
            moved.fetch_add(1, Ordering::Relaxed);
            if !head.is_empty() {
                return Some((Ok(head), Some((Vec::new(), content, tail, moved))));
            }
            let mut piece = vec![0; CHUNK_BYTES];
            match content.read(&mut piece).await {
                Ok(0) => Some((Ok(tail), None)),
                Ok(read) => {
                    piece.truncate(read);
                    Some((Ok(piece), Some((head, content, tail, moved))))
                }
                // The server sees a body that is cut, and takes none of it.
                Err(error) => Some((Err(error), None)),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_split_from_its_login() {
        let (url, login) = address("https://us%40er:p%2Fw@example.org:15671/base?x=1").unwrap();
        assert_eq!(url.as_str(), "https://example.org:15671/base");
        let (user, password) = login.unwrap();
        assert_eq!((user.as_str(), password.expose().as_str()), ("us@er", "p/w"));
        for (why, text) in
            [("another scheme", "amqp://u:p@h"), ("no host", "http://"), ("no address", "nonsense"), ("a bad escape", "http://a%zz@h")]
        {
            assert!(address(text).is_none(), "{why}");
        }
    }
}

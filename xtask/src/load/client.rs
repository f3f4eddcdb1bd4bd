//! One client: a connection that is kept or not, and what counts as an answer.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;

use crate::load::route::Route;

/// A browser gives up much later; a person does not.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a client does with its connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Uses it for the next request.
    Connection,
    /// Closes it.
    Nothing,
}

/// How a request ended.
pub(crate) struct Outcome {
    /// Whether the first try found the connection closed.
    pub retried: bool,
    /// The answer, or why there is none.
    pub answer: Result<Answer, String>,
}

/// A right answer.
pub(crate) struct Answer {
    /// Who answered.
    pub version: String,
    /// Whether it confirms an order.
    pub order: bool,
}

/// One client.
pub(crate) struct Client {
    route: Route,
    keep: Keep,
    connection: Option<SendRequest<Full<Bytes>>>,
}

/// Why a try failed, and whether the request may be sent once more.
struct Miss {
    reason: String,
    may_repeat: bool,
}

impl Client {
    /// A client that has not connected yet.
    pub(crate) fn new(route: Route, keep: Keep) -> Self {
        Self { route, keep, connection: None }
    }

    /// Asks which version serves.
    pub(crate) async fn version(&mut self) -> Outcome {
        self.request(&Method::GET, "/version", "").await
    }

    /// Orders something.
    pub(crate) async fn order(&mut self, id: &str) -> Outcome {
        self.request(&Method::POST, "/api/orders", id).await
    }

    /// The body of a page.
    pub(crate) async fn get(&mut self, path: &str) -> Result<String, String> {
        let page = async {
            let response = self.attempt(&Method::GET, path, "").await.map_err(|miss| miss.reason)?;
            let body = response.into_body().collect().await.map_err(|error| error.to_string())?;
            Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
        };
        tokio::time::timeout(PATIENCE, page).await.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")))
    }

    async fn request(&mut self, method: &Method, path: &str, body: &str) -> Outcome {
        let mut retried = false;
        let whole = Box::pin(async {
            let was_kept = self.connection.is_some();
            match self.exchange(method, path, body).await {
                // Only a kept connection can have been closed by the other side in the meantime.
                Err(miss) if was_kept && miss.may_repeat => {
                    retried = true;
                    self.connection = None;
                    self.exchange(method, path, body).await
                }
                outcome => outcome,
            }
        });
        let answer = match tokio::time::timeout(PATIENCE, whole).await {
            Ok(outcome) => outcome.map_err(|miss| format!("{method} {path}: {}", miss.reason)),
            Err(_) => Err(format!("{method} {path}: no answer within {PATIENCE:?}")),
        };
        if answer.is_err() || self.keep == Keep::Nothing {
            self.connection = None;
        }
        Outcome { retried, answer }
    }

    async fn exchange(&mut self, method: &Method, path: &str, body: &str) -> Result<Answer, Miss> {
        let response = self.attempt(method, path, body).await?;
        let status = response.status().as_u16();
        let version = response.headers().get("x-shop-version").map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        // Half an answer is none.
        response
            .into_body()
            .collect()
            .await
            .map_err(|error| Miss { reason: format!("the answer broke off: {error}"), may_repeat: false })?;
        let order = method == Method::POST;
        let expected = if order { 201 } else { 200 };
        if status != expected {
            return Err(Miss { reason: format!("answered {status}"), may_repeat: false });
        }
        Ok(Answer { version: version.unwrap_or_default(), order })
    }

    async fn attempt(&mut self, method: &Method, path: &str, body: &str) -> Result<Response<Incoming>, Miss> {
        let fatal = |reason: String| Miss { reason, may_repeat: false };
        let kept = match self.connection.take() {
            Some(mut sender) => sender.ready().await.is_ok().then_some(sender),
            None => None,
        };
        let mut sender = match kept {
            Some(sender) => sender,
            None => self.connect().await.map_err(fatal)?,
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.route.host())
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
            .map_err(|error| fatal(error.to_string()))?;
        let mut sent = match sender.try_send_request(request).await {
            Ok(response) => response,
            Err(mut error) => {
                let never_written = error.take_message().is_some();
                let may_repeat = never_written || method == Method::GET;
                return Err(Miss { reason: error.into_error().to_string(), may_repeat });
            }
        };
        if sent.headers_mut().remove("connection").is_none_or(|value| value != "close") {
            self.connection = Some(sender);
        }
        Ok(sent)
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let stream = self.route.connect().await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        // It ends with the sender, or with the connection.
        tokio::spawn(connection);
        Ok(sender)
    }
}

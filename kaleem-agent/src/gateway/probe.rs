//! Questions put to an instance from where the gateway stands: the only place from which an answer means that clients will get one.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use kaleem_core::health::{Finding, Question, Verdict};
use kaleem_core::traffic;

use super::target::{Target, now};

/// How much of an answer is read at most.
const LONGEST_BODY: usize = 1 << 20;

/// Asks, and answers within `timeout`.
pub(crate) async fn ask(spec: &traffic::Target, question: &Question, timeout: Duration) -> Finding {
    let target = Target::new(spec, 0);
    let asked = async {
        match question {
            Question::Tcp { port } => tcp(&target, *port, timeout).await,
            Question::Http { port, .. } => http(&target, *port, question, timeout).await,
            Question::Running | Question::Healthcheck | Question::Command { .. } => {
                Finding::new(Verdict::Unknown, format!("a gateway cannot ask for {question}"))
                    .with_remedy("ask the engine, or use an http or tcp check")
            }
        }
    };
    match tokio::time::timeout(timeout, asked).await {
        Ok(finding) => finding,
        Err(_) => Finding::new(Verdict::Fail, format!("{question} gave no answer within {timeout:?}")),
    }
}

async fn connect(target: &Target, port: u16, timeout: Duration) -> Result<(tokio::net::TcpStream, Duration), Finding> {
    let began = now();
    match target.connect(port, timeout).await {
        Ok(stream) => Ok((stream, now().saturating_sub(began))),
        // The name is one that the engine's resolver knows as soon as the instance is on the network.
        Err(error) => Err(Finding::new(Verdict::Fail, format!("could not connect to {}: {error}", target.authority(port)))),
    }
}

async fn tcp(target: &Target, port: u16, timeout: Duration) -> Finding {
    match connect(target, port, timeout).await {
        Ok((_, took)) => Finding::new(Verdict::Ok, format!("{} accepts connections", target.authority(port)))
            .with_phase("connect", took)
            .with_phase("total", took),
        Err(finding) => finding,
    }
}

async fn http(target: &Target, port: u16, question: &Question, timeout: Duration) -> Finding {
    let Question::Http { path, statuses, host, contains, .. } = question else {
        return Finding::new(Verdict::Unknown, "not a question of HTTP");
    };
    let began = now();
    let (stream, connected) = match connect(target, port, timeout).await {
        Ok(connected) => connected,
        Err(finding) => return finding,
    };
    let failed = |what: &dyn std::fmt::Display| Finding::new(Verdict::Fail, format!("GET {path}: {what}")).with_phase("connect", connected);
    let host = host.clone().unwrap_or_else(|| target.authority(port));
    let request = Request::get(path.as_str())
        .header(header::HOST, host)
        .header(header::USER_AGENT, concat!("kaleem-gateway/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new());
    let request = match request {
        Ok(request) => request,
        Err(error) => return Finding::new(Verdict::Unknown, format!("GET {path} cannot be asked: {error}")),
    };
    let (mut sender, connection) = match hyper::client::conn::http1::handshake(TokioIo::new(stream)).await {
        Ok(pair) => pair,
        Err(error) => return failed(&error),
    };
    let answered = async {
        let response = match sender.send_request(request).await {
            Ok(response) => response,
            Err(error) => return failed(&error),
        };
        let first_byte = now().saturating_sub(began);
        let status = response.status().as_u16();
        let timed = |finding: Finding| finding.with_phase("connect", connected).with_phase("first-byte", first_byte);
        if status < statuses.0 || status > statuses.1 {
            return timed(Finding::new(
                Verdict::Fail,
                format!("GET {path} answered {status}, and {} to {} is right", statuses.0, statuses.1),
            ));
        }
        if let Some(text) = contains {
            match http_body_util::Limited::new(response.into_body(), LONGEST_BODY).collect().await {
                Ok(body) => {
                    if !holds(&body.to_bytes(), text.as_bytes()) {
                        return timed(Finding::new(
                            Verdict::Fail,
                            format!("the answer to GET {path} does not hold the text that it should"),
                        ));
                    }
                }
                Err(error) => return failed(&error),
            }
        }
        timed(Finding::new(Verdict::Ok, format!("GET {path} answered {status}"))).with_phase("total", now().saturating_sub(began))
    };
    let mut answered = std::pin::pin!(answered);
    // The connection ends with the question: nothing is left behind.
    tokio::select! {
        biased;
        finding = &mut answered => finding,
        ended = connection => match ended {
            Ok(()) => answered.await,
            Err(error) => failed(&error),
        },
    }
}

fn holds(bytes: &[u8], text: &[u8]) -> bool {
    text.is_empty() || bytes.windows(text.len()).any(|window| window == text)
}

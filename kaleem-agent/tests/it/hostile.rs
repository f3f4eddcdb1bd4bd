//! Clients that want something else than an answer.

use super::client::{Raw, get};
use super::instance::Instance;
use super::world::{Gateway, Plan, until};

async fn pair(plan: Plan) -> (Gateway, Instance) {
    let gateway = plan.start().await;
    let instance = Instance::start("api-1", 1).await;
    gateway.route(1, &[&instance]).await;
    (gateway, instance)
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_beyond_the_limits_are_answered_431() {
    let (gateway, instance) = pair(Plan::http().with("--max-header-bytes", "16384")).await;
    let (fewer, _other) = pair(Plan::http().with("--max-headers", "20")).await;
    let many = |count: usize| (0..count).map(|number| format!("X-{number}: 1\r\n")).collect::<String>();
    for (why, gateway, fields, status) in [
        ("within limits", &gateway, format!("X-Long: {}\r\n", "a".repeat(10_000)), 200),
        ("one long field", &gateway, format!("X-Long: {}\r\n", "a".repeat(20_000)), 431),
        ("many fields", &gateway, many(200), 431),
        ("a lower limit of fields", &fewer, many(30), 431),
    ] {
        let mut client = Raw::connect(gateway.address()).await;
        client.send(format!("GET / HTTP/1.1\r\nHost: api\r\n{fields}\r\n")).await;
        assert_eq!(client.answer().await.status, status, "{why}");
    }
    assert_eq!(instance.requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_can_be_smuggled_past_the_gateway() {
    let (gateway, instance) = pair(Plan::http()).await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n";
    for (why, head, status) in [
        ("transfer coding after length", "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("transfer coding before length", "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n", 400),
        ("the same in other letters", "transfer-ENCODING: chunked\r\nX: 1\r\ncontent-LENGTH: 4\r\n\r\n0\r\n\r\n", 400),
        ("two lengths", "Content-Length: 0\r\nContent-Length: 44\r\n\r\n", 400),
        ("two lengths in one field", "Content-Length: 0, 44\r\n\r\n", 400),
        ("a length with a sign", "Content-Length: +5\r\n\r\nhello", 400),
        ("a length below nothing", "Content-Length: -1\r\n\r\n", 400),
        ("a length beyond all", "Content-Length: 99999999999999999999999\r\n\r\n", 400),
        ("a length in hexadecimal", "Content-Length: 0x2c\r\n\r\n", 400),
        ("a coding that is not the last", "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400),
        ("a coding before the last", "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        ("a coding in disguise", "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
        ("two codings", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501),
        ("white space before the colon", "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
        ("a folded field", "X-A: b\r\n Transfer-Encoding: chunked\r\n\r\n", 400),
        ("a bare line feed in a value", "X-A: b\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("bare line feeds alone", "X-A: b\n\n", 400),
        ("a bare carriage return in a value", "X-A: b\rTransfer-Encoding: chunked\r\n\r\n", 400),
        ("NUL in a value", "X-A: b\0c\r\n\r\n", 400),
        ("NUL in a name", "X\0A: b\r\n\r\n", 400),
        ("a field without a name", ": b\r\n\r\n", 400),
        ("a field without a colon", "X-A\r\n\r\n", 400),
        ("two hosts", "Host: other\r\n\r\n", 400),
    ] {
        let before = instance.requests();
        let mut client = Raw::connect(gateway.address()).await;
        client.send(format!("POST /count HTTP/1.1\r\nHost: api\r\n{head}{smuggled}")).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, status, "{why}: {}", answer.text());
        assert!(client.try_answer(true).await.is_err(), "{why}: what follows such a request is no request");
        assert_eq!(instance.requests(), before, "{why}: it reached the instance");
    }
    assert_eq!(get(gateway.address(), "/").await.text(), "api-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_cannot_be_read_to_its_end_ends_the_connection() {
    let (gateway, instance) = pair(Plan::http()).await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n";
    for (why, chunks) in [
        ("a size that overflows", "fffffffffffffffff\r\n"),
        ("a size with a sign", "+5\r\nhello\r\n0\r\n\r\n"),
        ("a size in disguise", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("bytes beyond the size", "1\r\nhello\r\n0\r\n\r\n"),
        ("no size", "\r\n\r\n"),
    ] {
        let before = instance.requests();
        let mut client = Raw::connect(gateway.address()).await;
        client.send(format!("POST /count HTTP/1.1\r\nHost: api\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}{smuggled}")).await;
        let mut answers = Vec::new();
        while let Ok(answer) = client.try_answer(true).await {
            answers.push(answer);
        }
        assert!(answers.len() <= 1 && answers.iter().all(|answer| answer.text() != "api-1"), "{why}: {answers:?}");
        assert!(instance.requests() - before <= 1, "{why}: a second request reached the instance");
    }
    assert_eq!(get(gateway.address(), "/").await.text(), "api-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pipelined_behind_a_body_is_judged_as_strictly() {
    let (gateway, instance) = pair(Plan::http()).await;
    let plain = "Content-Length: 5\r\n\r\nhello";
    let chunked = "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let both = "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    for (why, first) in [("a body with a length", plain), ("a body in chunks", chunked)] {
        let mut client = Raw::connect(gateway.address()).await;
        let before = instance.requests();
        for fields in [first, first, both] {
            client.send(format!("POST /count HTTP/1.1\r\nHost: api\r\n{fields}")).await;
        }
        for expected in [200, 200, 400] {
            let answer = client.answer().await;
            assert_eq!(answer.status, expected, "{why}: {}", answer.text());
        }
        assert!(client.closed().await);
        assert_eq!(instance.requests() - before, 2, "{why}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_for_something_that_is_no_proxy_is_refused() {
    let (gateway, instance) = pair(Plan::http()).await;
    for (why, request, status) in [
        ("a tunnel", "CONNECT db:5432 HTTP/1.1\r\nHost: db:5432\r\n\r\n", 501),
        ("no host", "GET / HTTP/1.1\r\n\r\n", 400),
        ("a host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        ("no HTTP at all", "\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
    ] {
        let mut client = Raw::connect(gateway.address()).await;
        client.send(request).await;
        assert_eq!(client.answer().await.status, status, "{why}");
        assert!(client.closed().await, "{why}");
    }
    assert_eq!(instance.requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_nothing_or_half_a_head_is_sent_away() {
    let (gateway, _instance) = pair(Plan::http().with("--idle", "300ms")).await;
    for half in ["", "GET / HT", "GET / HTTP/1.1\r\nHost: a\r\nX-"] {
        let mut client = Raw::connect(gateway.address()).await;
        client.send(half).await;
        assert!(client.closed().await, "{half:?}");
    }
    until("no connection is left", async || gateway.stats().await.open_connections == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_socket_answers_nonsense_with_a_refusal_and_lives_on() {
    use std::os::unix::fs::PermissionsExt;
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
    let (gateway, _instance) = pair(Plan::http()).await;
    let path = gateway.directory().join("control.sock");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    for (why, line) in [
        ("no JSON", "steer!".to_owned()),
        ("another protocol", r#"{"protocol":2,"command":"stats"}"#.to_owned()),
        ("an unknown command", r#"{"protocol":1,"command":"explode"}"#.to_owned()),
        ("an unknown field", r#"{"protocol":1,"command":"stats","now":true}"#.to_owned()),
        ("a file outside", r#"{"protocol":1,"command":{"upgrade":{"file":"../../bin/true"}}}"#.to_owned()),
        ("too long", "x".repeat(2 << 20)),
    ] {
        let mut stream = BufReader::new(tokio::net::UnixStream::connect(&path).await.unwrap());
        // The far side may stop reading what is too long.
        stream.write_all(format!("{line}\n").as_bytes()).await.ok();
        let mut answer = String::new();
        stream.read_line(&mut answer).await.ok();
        assert!(answer.contains("refused") || why == "too long", "{why}: {answer}");
    }
    get(gateway.address(), "/").await;
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: gateway\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    for line in ["kaleem_gateway_requests_total{release=\"r1\"} 1", "kaleem_gateway_latency_seconds_count{release=\"r1\"} 1"] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
}

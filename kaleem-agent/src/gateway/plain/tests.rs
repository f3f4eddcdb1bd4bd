//! Answers as instances send them, and as they must not.

use std::future::poll_fn;

use http::header::HeaderMap;
use http::{Method, Uri};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::*;

/// What was made of an answer.
#[derive(Debug, PartialEq)]
struct Made {
    status: u16,
    headers: String,
    body: String,
    trailers: String,
    idle: bool,
}

fn text(headers: &HeaderMap) -> String {
    headers.iter().map(|(name, value)| format!("{name}={} ", value.to_str().unwrap())).collect::<String>().trim_end().to_owned()
}

/// A connection, and its other end.
async fn connected() -> (Plain, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connecting = TcpStream::connect(listener.local_addr().unwrap());
    let (stream, accepted) = tokio::join!(connecting, listener.accept());
    let (other, _) = accepted.unwrap();
    other.set_nodelay(true).unwrap();
    (Plain::new(stream.unwrap()), other)
}

/// Sends `answer` in pieces of `size` to a request; the connection is closed behind it or stays.
async fn exchange(method: Method, answer: &[u8], size: usize, closes: bool) -> Result<Made, String> {
    let (mut plain, mut other) = connected().await;
    let mut request = PlainRequest::begin(&method, &Uri::from_static("/a?b"));
    request.add(&header::ACCEPT, &HeaderValue::from_static("*/*"));
    assert!(!request.names_host());
    plain.ask(&request.end(), Some(&HeaderValue::from_static("api:3000")));
    let serving = async {
        let expected = format!("{method} /a?b HTTP/1.1\r\nhost: api:3000\r\naccept: */*\r\n\r\n");
        let mut asked = vec![0; expected.len()];
        other.read_exact(&mut asked).await.unwrap();
        assert_eq!(String::from_utf8(asked).unwrap(), expected);
        for piece in answer.chunks(size) {
            // Whoever found it wrong is gone.
            if other.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        if closes {
            other.shutdown().await.ok();
        }
    };
    let reading = async {
        let response = poll_fn(|context| plain.poll_head(context)).await.map_err(|error| error.to_string())?;
        let (mut body, mut trailers) = (Vec::new(), String::new());
        while let Some(frame) = poll_fn(|context| plain.poll_frame(context)).await {
            match frame.map_err(|error| error.to_string())?.into_data() {
                Ok(data) => body.extend_from_slice(&data),
                Err(frame) => trailers = text(&frame.into_trailers().unwrap()),
            }
        }
        Ok::<_, String>((response, String::from_utf8(body).unwrap(), trailers))
    };
    let ((), read) = tokio::join!(serving, reading);
    let (response, body, trailers) = read?;
    // What comes behind the answer has to be seen by the runtime first.
    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    Ok(Made { status: response.status().as_u16(), headers: text(response.headers()), body, trailers, idle: plain.is_idle() })
}

fn each_way(method: &Method, answer: &str, closes: bool, check: impl Fn(usize, Result<Made, String>)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for size in [1, 2, 7, answer.len().max(1)] {
        check(size, runtime.block_on(exchange(method.clone(), answer.as_bytes(), size, closes)));
    }
}

#[test]
fn an_answer_is_read_to_its_end_however_it_is_cut() {
    let get = Method::GET;
    let head = Method::HEAD;
    for (why, method, answer, closes, status, headers, body, trailers, idle) in [
        ("a length", &get, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", false, 200, "content-length=5", "hello", "", true),
        ("no bytes", &get, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false, 200, "content-length=0", "", "", true),
        ("to HEAD", &head, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false, 200, "content-length=5", "", "", true),
        ("no content", &get, "HTTP/1.1 204 No Content\r\n\r\n", false, 204, "", "", "", true),
        ("not modified", &get, "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", false, 304, "content-length=9", "", "", true),
        (
            "in passing",
            &get,
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
            false,
            200,
            "content-length=1",
            "x",
            "",
            true,
        ),
        (
            "chunks",
            &get,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n00A\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n",
            false,
            200,
            "transfer-encoding=chunked",
            "hello0123456789",
            "x-sum=1",
            true,
        ),
        (
            "a length beside chunks is none",
            &get,
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
            false,
            200,
            "transfer-encoding=chunked",
            "x",
            "",
            true,
        ),
        ("until closed", &get, "HTTP/1.1 200 OK\r\n\r\nhello", true, 200, "", "hello", "", false),
        (
            "a coding that is not chunked",
            &get,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello",
            true,
            200,
            "transfer-encoding=gzip",
            "hello",
            "",
            false,
        ),
        (
            "the last one",
            &get,
            "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 1\r\n\r\nx",
            false,
            200,
            "connection=x, Close content-length=1",
            "x",
            "",
            false,
        ),
        ("HTTP/1.0", &get, "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", false, 200, "content-length=1", "x", "", false),
        (
            "HTTP/1.0 that stays",
            &get,
            "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx",
            false,
            200,
            "connection=keep-alive content-length=1",
            "x",
            "",
            true,
        ),
        (
            "one length, twice",
            &get,
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1, 1\r\n\r\nx",
            false,
            200,
            "content-length=1",
            "x",
            "",
            true,
        ),
        ("closed behind it", &get, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", true, 200, "content-length=1", "x", "", false),
        ("more than was asked", &get, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP", true, 200, "content-length=1", "x", "", false),
        ("another protocol", &get, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", false, 101, "upgrade=x", "", "", true),
    ] {
        let expected = Made { status, headers: headers.to_owned(), body: body.to_owned(), trailers: trailers.to_owned(), idle };
        each_way(method, answer, closes, |size, made| assert_eq!(made.as_ref(), Ok(&expected), "{why}, in pieces of {size}"));
    }
}

#[test]
fn what_is_no_answer_is_an_error() {
    let ok = "HTTP/1.1 200 OK\r\n";
    let chunks = format!("{ok}Transfer-Encoding: chunked\r\n\r\n");
    for (why, answer) in [
        ("nothing", String::new()),
        ("half a head", format!("{ok}Content-Le")),
        ("another protocol", "220 mail.example ESMTP\r\n\r\n".to_owned()),
        ("two lengths", format!("{ok}Content-Length: 1\r\nContent-Length: 2\r\n\r\nx")),
        ("a length with a sign", format!("{ok}Content-Length: +1\r\n\r\nx")),
        ("an empty length", format!("{ok}Content-Length:\r\n\r\nx")),
        ("a length beyond all", format!("{ok}Content-Length: 99999999999999999999\r\n\r\nx")),
        ("chunks of HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned()),
        ("half a body", format!("{ok}Content-Length: 5\r\n\r\nhel")),
        ("half of the chunks", format!("{chunks}5\r\nhello\r\n")),
        ("a chunk that is too long", format!("{chunks}1\r\nxy\r\n0\r\n\r\n")),
        ("a size that is none", format!("{chunks}z\r\n")),
        ("a size that ends with a line feed alone", format!("{chunks}1\nx\r\n0\r\n\r\n")),
        ("an extension without end", format!("{chunks}1;{}", "x".repeat(MOST_AROUND))),
        ("fields that are none", format!("{chunks}0\r\n: x\r\n\r\n")),
        ("more fields than a head may have", format!("{ok}{}\r\n", "A: b\r\n".repeat(MOST_FIELDS + 1))),
        ("a head that is too long", format!("{ok}A: {}\r\n\r\n", "b".repeat(3 * GREATEST_ROOM))),
    ] {
        for size in [3 + answer.len() / 50, answer.len().max(1)] {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let made = runtime.block_on(exchange(Method::GET, answer.as_bytes(), size, true));
            assert!(made.is_err(), "{why}, in pieces of {size}");
        }
    }
}

#[test]
fn a_connection_is_used_again_and_a_long_answer_leaves_no_long_buffer() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut plain, mut other) = connected().await;
        // The last but one comes in pieces that never fill the room which its length asked for.
        for (number, (length, piece)) in [(3, 3), (300_000, 300_000), (60_000, 1000), (5, 5)].into_iter().enumerate() {
            plain.ask(&PlainRequest::begin(&Method::GET, &Uri::from_static("/")).end(), None);
            let serving = async {
                let mut asked = [0; 18];
                other.read_exact(&mut asked).await.unwrap();
                other.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").as_bytes()).await.unwrap();
                for piece in vec![b'x'; length].chunks(piece) {
                    other.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
            };
            let reading = async {
                poll_fn(|context| plain.poll_head(context)).await.unwrap();
                let (mut read, mut right) = (0, true);
                while let Some(frame) = poll_fn(|context| plain.poll_frame(context)).await {
                    let data = frame.unwrap().into_data().unwrap();
                    (read, right) = (read + data.len(), right && data.iter().all(|byte| *byte == b'x'));
                }
                (read, right)
            };
            let ((), read) = tokio::join!(serving, reading);
            assert_eq!(read, (length, true), "answer {number}");
            plain.rest();
            assert!(plain.is_idle() && plain.ahead.capacity() <= LEAST_ROOM, "answer {number}");
        }
    });
}

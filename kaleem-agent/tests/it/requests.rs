//! What a request and its answer are on their way through.

use std::sync::atomic::Ordering;

use tokio::io::AsyncReadExt;

use super::client::{Raw, get};
use super::instance::Instance;
use super::world::{Gateway, Plan, until};

async fn pair() -> (Gateway, Instance) {
    let gateway = Plan::http().start().await;
    let instance = Instance::start("api-1", 1).await;
    gateway.route(1, &[&instance]).await;
    (gateway, instance)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_comes_back_as_it_was_given() {
    let (gateway, _instance) = pair().await;
    let mut client = Raw::connect(gateway.address()).await;
    for _ in 0..3 {
        let answer = client.get("/").await;
        assert_eq!((answer.status, answer.text()), (200, "api-1"));
        assert_eq!(answer.header("content-length"), Some("5"));
    }
    assert_eq!(client.get("/status?404").await.status, 404);
    assert_eq!(client.get("/status?503").await.status, 503, "an error of the instance is the instance's");
    let stats = gateway.stats().await;
    assert_eq!((stats.targets[0].counts.requests, stats.targets[0].counts.server_errors), (5, 1));
    assert_eq!(stats.releases.values().map(|counts| counts.latency.count()).sum::<u64>(), 5);
    assert_eq!(stats.open_connections, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_megabytes_pass_both_ways_with_a_length_and_in_chunks() {
    let (gateway, _instance) = pair().await;
    let bytes: Vec<u8> = (0..10 << 20).map(|place: u32| (place.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for chunked in [false, true] {
        let address = gateway.address();
        let mut client = Raw::connect(address).await;
        let how = if chunked { "Transfer-Encoding: chunked".to_owned() } else { format!("Content-Length: {}", bytes.len()) };
        client.send(format!("POST /echo HTTP/1.1\r\nHost: api\r\n{how}\r\n\r\n")).await;
        // An echo begins before the request is over, so both directions must move at the same time.
        let (mut reader, mut writer) = tokio::io::split(client.stream);
        let body = bytes.clone();
        let sending = tokio::spawn(async move {
            use tokio::io::AsyncWriteExt;
            for part in body.chunks(100_000) {
                if chunked {
                    writer.write_all(format!("{:x}\r\n", part.len()).as_bytes()).await.unwrap();
                }
                writer.write_all(part).await.unwrap();
                if chunked {
                    writer.write_all(b"\r\n").await.unwrap();
                }
            }
            if chunked {
                writer.write_all(b"0\r\n\r\n").await.unwrap();
            }
            writer
        });
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(reader.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let mut came = Vec::new();
        if head.contains("content-length: 10485760") {
            came.resize(bytes.len(), 0);
            reader.read_exact(&mut came).await.unwrap();
        } else {
            assert!(head.contains("transfer-encoding: chunked"), "{head}");
            loop {
                let mut line = Vec::new();
                while !line.ends_with(b"\r\n") {
                    line.push(reader.read_u8().await.unwrap());
                }
                let size = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
                let start = came.len();
                came.resize(start + size, 0);
                reader.read_exact(&mut came[start..]).await.unwrap();
                reader.read_exact(&mut [0; 2]).await.unwrap();
                if size == 0 {
                    break;
                }
            }
        }
        sending.await.unwrap();
        assert!(came == bytes, "chunked: {chunked}, {} bytes", came.len());
    }
    let answer = get(gateway.address(), "/bytes?10000000").await;
    assert_eq!(answer.body.len(), 10_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_order() {
    let (gateway, _instance) = pair().await;
    let mut client = Raw::connect(gateway.address()).await;
    let requests: String = (0..50).map(|size| format!("GET /fixed?{size} HTTP/1.1\r\nHost: api\r\n\r\n")).collect();
    client.send(requests).await;
    for size in 0..50 {
        assert_eq!(client.answer().await.body.len(), size);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_http_1_0_is_served_and_its_connection_closed() {
    let (gateway, instance) = pair().await;
    let mut client = Raw::connect(gateway.address()).await;
    client.send("GET /head HTTP/1.0\r\n\r\n").await;
    let answer = client.answer().await;
    let text = answer.text();
    assert!(text.starts_with("GET /head HTTP/1.1"), "{text}");
    assert!(text.contains(&format!("host: {}", instance.address)), "the instance needs a host: {text}");
    assert!(client.closed().await);
    // Without a length only the end of the connection tells the end of the body.
    let mut client = Raw::connect(gateway.address()).await;
    client.send("GET /bytes?100000 HTTP/1.0\r\n\r\n").await;
    let answer = client.answer().await;
    assert_eq!((answer.body.len(), answer.header("transfer-encoding")), (100_000, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_request_has_the_length_and_not_the_body() {
    let (gateway, _instance) = pair().await;
    let mut client = Raw::connect(gateway.address()).await;
    client.send("HEAD /fixed?1234 HTTP/1.1\r\nHost: api\r\n\r\n").await;
    let answer = client.try_answer(false).await.unwrap();
    assert_eq!((answer.status, answer.header("content-length")), (200, Some("1234")));
    assert_eq!(client.get("/").await.text(), "api-1", "the next answer begins where it should");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_told_to_continue_when_the_instance_wants_the_body() {
    let (gateway, instance) = pair().await;
    let mut client = Raw::connect(gateway.address()).await;
    client.send("POST /count HTTP/1.1\r\nHost: api\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap().0, 100);
    client.send("hello").await;
    assert_eq!(client.answer().await.text(), "5");
    // An instance that does not want it says so at once, and no body is asked for.
    let mut client = Raw::connect(gateway.address()).await;
    client.send("POST /refuse HTTP/1.1\r\nHost: api\r\nContent-Length: 5000000\r\nExpect: 100-continue\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 413);
    assert_eq!(instance.requests(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_pass_both_ways() {
    let (gateway, _instance) = pair().await;
    let mut client = Raw::connect(gateway.address()).await;
    let request = "POST /trailers HTTP/1.1\r\nHost: api\r\nTE: trailers\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 42\r\n\r\n";
    client.send(request).await;
    let answer = client.answer().await;
    assert_eq!((answer.text(), &answer.trailers), ("hello", &vec![("x-seen".to_owned(), "42".to_owned())]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_instance_learns_where_a_request_came_from() {
    let (gateway, _instance) = pair().await;
    let mut client = Raw::connect(gateway.address()).await;
    let text = client.get("/head").await.text().to_owned();
    for field in ["x-forwarded-for: 127.0.0.1", "x-real-ip: 127.0.0.1", "x-forwarded-proto: http", "x-forwarded-host: api", "host: api"] {
        assert!(text.lines().any(|line| line == field), "{field} in {text}");
    }
    client.send("GET /head HTTP/1.1\r\nHost: shop\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n\r\n").await;
    let text = client.answer().await.text().to_owned();
    assert!(text.contains("x-forwarded-for: 192.0.2.7, 127.0.0.1"), "appended: {text}");
    assert!(text.contains("x-forwarded-proto: https"), "what nginx in front has said: {text}");
    assert!(!text.contains("x-hop") && !text.contains("keep-alive"), "{text}");
    client.send("GET http://shop.example/head?x=1 HTTP/1.1\r\nHost: other\r\n\r\n").await;
    let text = client.answer().await.text().to_owned();
    assert!(text.starts_with("GET /head?x=1 ") && text.contains("host: shop.example"), "{text}");
    let strict = Plan::http().with("--distrust-forwarded", "").start().await;
    let instance = Instance::start("api-1", 1).await;
    strict.route(1, &[&instance]).await;
    let mut client = Raw::connect(strict.address()).await;
    client.send("GET /head HTTP/1.1\r\nHost: shop\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n\r\n").await;
    let text = client.answer().await.text().to_owned();
    assert!(text.contains("x-forwarded-for: 127.0.0.1") && text.contains("x-forwarded-proto: http\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_request_says_of_its_client_is_believed_from_trusted_networks_alone() {
    for (why, networks, believed) in
        [("its own network", "10.0.0.0/8 127.0.0.0/8", true), ("one address", "127.0.0.1", true), ("another network", "10.0.0.0/8", false)]
    {
        let gateway = Plan::http().with("--trust-forwarded", networks).start().await;
        let instance = Instance::start("api-1", 1).await;
        gateway.route(1, &[&instance]).await;
        let mut client = Raw::connect(gateway.address()).await;
        let said = "X-Forwarded-For: 192.0.2.7\r\nX-Real-IP: 192.0.2.7\r\nForwarded: for=192.0.2.7\r\nX_Forwarded_For: 192.0.2.7\r\n";
        client.send(&format!("GET /head HTTP/1.1\r\nHost: shop\r\n{said}\r\n")).await;
        let text = client.answer().await.text().to_owned();
        assert_eq!(text.contains("192.0.2.7"), believed, "{why}: {text}");
        let lines: &[&str] = if believed {
            &["x-forwarded-for: 192.0.2.7, 127.0.0.1", "x-real-ip: 192.0.2.7", "forwarded: for=192.0.2.7, for=127.0.0.1"]
        } else {
            &["x-forwarded-for: 127.0.0.1", "x-real-ip: 127.0.0.1"]
        };
        for wanted in lines {
            assert!(text.lines().any(|line| line == *wanted), "{why}: {wanted} in {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_slows_the_instance_and_not_the_gateway() {
    let (gateway, instance) = pair().await;
    let mut client = Raw::connect(gateway.address()).await;
    client.send("GET /bytes?2000000000 HTTP/1.1\r\nHost: api\r\n\r\n").await;
    let mut first = [0; 1000];
    client.stream.read_exact(&mut first).await.unwrap();
    // What the instance could send stops growing when all buffers on the way are full.
    let sent = || instance.state.read_bytes.load(Ordering::SeqCst);
    let mut last = 0;
    let mut same = 0;
    until("the instance waits for the reader", async || {
        same = if sent() == last { same + 1 } else { 0 };
        last = sent();
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        same > 10
    })
    .await;
    // The kernel's buffers may be large; what counts is that the gateway keeps nothing.
    assert!(sent() < 500_000_000, "{} bytes are somewhere", sent());
    let kept = gateway.worker_kilobytes().await;
    assert!(kept < 40_000, "the gateway keeps {kept} kB");
    assert_eq!(get(gateway.address(), "/").await.text(), "api-1", "others are served meanwhile");
    drop(client);
    until("the request has left the instance", async || gateway.stats().await.targets[0].in_flight == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_before_the_end_of_the_request_reaches_the_client() {
    let (gateway, _instance) = pair().await;
    let mut client = Raw::connect(gateway.address()).await;
    client.send("POST /refuse HTTP/1.1\r\nHost: api\r\nContent-Length: 50000000\r\n\r\n").await;
    for _ in 0..4 {
        client.send(vec![0; 50_000]).await;
    }
    assert_eq!(client.answer().await.status, 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_access_log_has_a_line_for_each_request_and_no_query() {
    let gateway = Plan::http().with("--access-log", "").start().await;
    let instance = Instance::start("api-1", 7).await;
    gateway.route(1, &[&instance]).await;
    let mut client = Raw::connect(gateway.address()).await;
    client.get("/fixed?1000").await;
    client.send("GET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 400);
    until("both lines are written", async || gateway.out().lines().count() == 2).await;
    let lines: Vec<serde_json::Value> = gateway.out().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["path"], &lines[0]["status"], &lines[0]["bytes"]), (&"/fixed".into(), &200.into(), &1000.into()));
    assert_eq!((&lines[0]["instance"], &lines[0]["release"]), (&"api-1".into(), &"r7".into()));
    assert_eq!((&lines[1]["status"], &lines[1]["instance"]), (&400.into(), &serde_json::Value::Null));
}

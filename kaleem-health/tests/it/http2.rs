//! HTTP/2 and gRPC, against a real nginx.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kaleem_core::health::{Finding, HealthProbe, Verdict};
use kaleem_core::secret::Secret;
use kaleem_core::testing::free_port;
use kaleem_core::testing::probe_contract::{SECRET, discreet};
use kaleem_health::settings::{HttpSettings, HttpVersion, QdrantSettings, TlsSettings};
use kaleem_health::{HttpProbe, KnownHosts, QdrantProbe};

use crate::qdrant::{node, stand_in};
use crate::servers::write;
use crate::web::{Authority, HOST, nginx};

const TIMEOUT: Duration = Duration::from_secs(5);

#[track_caller]
fn expect(why: &str, finding: &Finding, verdict: Verdict, reason: &str) {
    discreet(why, finding);
    assert_eq!((finding.verdict, finding.reason.contains(reason)), (verdict, true), "{why}: {finding:?}");
}

#[tokio::test]
async fn a_server_is_asked_over_http_2_with_and_without_tls() {
    let authority = Authority::new();
    let (certificate, key) = authority.leaf(HOST, 90);
    let shown = "ssl_certificate ROOT/cert.pem; ssl_certificate_key ROOT/key.pem;";
    for (why, scheme, listen, certificates, verdict, reason) in [
        ("over TLS", "https", "127.0.0.1:PORT ssl http2", shown, Verdict::Ok, "answered 200"),
        ("without TLS", "http", "127.0.0.1:PORT http2", "", Verdict::Ok, "answered 200"),
        ("not spoken, over TLS", "https", "127.0.0.1:PORT ssl", shown, Verdict::Fail, "does not speak"),
        ("not spoken, without TLS", "http", "127.0.0.1:PORT", "", Verdict::Fail, "does not speak HTTP/2"),
    ] {
        let prepare = |place: &Path| {
            write(&place.join("cert.pem"), &certificate);
            write(&place.join("key.pem"), &key);
        };
        // What it says tells over which version it was asked.
        let Some(server) = nginx(prepare, listen, &format!("{certificates} location / {{ return 200 $server_protocol; }}")) else { return };
        let known = Arc::new(KnownHosts::new().with_host(HOST, [server.address().ip()]));
        let settings = HttpSettings {
            version: HttpVersion::Two,
            contains: Some("HTTP/2".to_owned()),
            tls: TlsSettings { trust_system: false, trusted_pem: authority.pem(), server_name: None, client: None },
            ..HttpSettings::get(Secret::new(format!("{scheme}://{HOST}:{}/", server.port)))
        };
        let finding = HttpProbe::new("web", settings, known).unwrap().check(TIMEOUT).await;
        expect(why, &finding, verdict, reason);
        let timed = verdict == Verdict::Fail || finding.phases.contains_key("first-byte") && finding.phases.contains_key("total");
        assert!(timed, "{why}: {:?}", finding.phases);
    }
}

/// A message of gRPC in its frame: not compressed, its length, itself.
fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0][..], &length, message].concat()
}

#[tokio::test]
async fn the_grpc_port_of_qdrant_is_judged_beside_its_rest_port() {
    // What the official client reads as version 1.15.1, and as one collection.
    let version = framed(b"\x0a\x1dqdrant - vector search engine\x12\x061.15.1\x1a\x03abc");
    let list = framed(b"\x0a\x0a\x0a\x08articles");
    // A file is served to a POST only as the page of that refusal.
    let file = "default_type application/grpc; error_page 405 =200 $uri;";
    let well = "add_trailer grpc-status 0;";
    let fails = |status: u8| format!("location / {{ default_type application/grpc; add_header grpc-status {status}; return 200; }}");
    for (why, directives, wanted, verdict, reason) in [
        ("well", format!("location / {{ {file} {well} }}"), "articles", Verdict::Ok, "qdrant 1.15.1 over REST and gRPC answers: 42 points"),
        ("no such collection", format!("location / {{ {file} {well} }}"), "images", Verdict::Fail, "`images` is not there over gRPC"),
        ("a key is asked for", fails(16), "articles", Verdict::Unknown, "does not accept the API key"),
        ("an error", fails(13), "articles", Verdict::Fail, "answered with the gRPC status 13"),
        ("another program", "location / { return 200 'well'; }".to_owned(), "articles", Verdict::Fail, "does not speak gRPC"),
    ] {
        let prepare = |place: &Path| {
            for (path, bytes) in [("www/qdrant.Qdrant/HealthCheck", &version), ("www/qdrant.Collections/List", &list)] {
                let path = place.join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                write(&path, std::str::from_utf8(bytes).unwrap());
            }
        };
        let Some(server) = nginx(prepare, "127.0.0.1:PORT http2", &directives) else { return };
        expect(why, &ask(Some(server.port), wanted).await, verdict, reason);
    }
    expect("nobody listens", &ask(Some(free_port()), "articles").await, Verdict::Fail, "over gRPC: connection refused");
    expect("not asked", &ask(None, "articles").await, Verdict::Ok, "qdrant answers: 42 points");
}

/// REST is well and has both collections; what is wrong is wrong over gRPC.
async fn ask(grpc: Option<u16>, wanted: &str) -> Finding {
    let mut answers = node("green", "\"ok\"");
    let both = r#"{"result":{"collections":[{"name":"articles"},{"name":"images"}]},"status":"ok"}"#;
    answers.insert("/collections", (200, both.to_owned()));
    let images = answers.get("/collections/articles").cloned().unwrap();
    answers.insert("/collections/images", images);
    let rest = stand_in(answers);
    let settings = QdrantSettings {
        grpc: grpc.map(|port| format!("http://127.0.0.1:{port}")),
        collections: vec![wanted.to_owned()],
        ..QdrantSettings::standard(Secret::new(format!("http://{rest}")), Some(Secret::new(SECRET.to_owned())))
    };
    QdrantProbe::new("vectors", settings, Arc::new(KnownHosts::new())).unwrap().check(TIMEOUT).await
}

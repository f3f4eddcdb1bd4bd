//! Registries that fail, lie, stall, or lead astray.

use std::sync::Arc;
use std::time::Duration;

use kaleem_core::registry::oci::{OciOptions, OciRegistry};
use kaleem_core::registry::{Credential, ImageRegistry, PullCredentials, RegistryError};
use kaleem_core::remedy::one_line;
use kaleem_core::secret::Secret;
use serde_json::json;

use super::server::{Documents, OCI_INDEX, OCI_MANIFEST, OddServer, Reply, StillClock, options, registry_with, reply, sha256};

const AMD64: &str = "linux/amd64";

/// One login for every registry.
pub(super) struct Login;

#[async_trait::async_trait]
impl PullCredentials for Login {
    async fn for_registry(&self, _host: &str) -> Result<Option<Credential>, RegistryError> {
        Ok(Some(Credential::Password { username: "ci".to_owned(), password: Secret::new("s3cret".to_owned()) }))
    }
}

fn kind(error: &RegistryError) -> &'static str {
    match error {
        RegistryError::Unreachable { .. } => "unreachable",
        RegistryError::NotFound { .. } => "not found",
        RegistryError::Denied { .. } => "denied",
        RegistryError::RateLimited { .. } => "rate limited",
        RegistryError::Nonsense { .. } => "nonsense",
        RegistryError::NoPlatform { .. } => "no platform",
        RegistryError::Failed { .. } => "failed",
        RegistryError::Credentials { .. } => "credentials",
        _ => "unknown",
    }
}

#[tokio::test]
async fn every_bad_answer_is_the_right_error_after_the_right_number_of_requests() {
    let json = [("Content-Type", OCI_MANIFEST)];
    let endless = || {
        let mut bytes = format!("HTTP/1.1 200 x\r\nContent-Type: {OCI_MANIFEST}\r\nTransfer-Encoding: chunked\r\n\r\n").into_bytes();
        for _ in 0..80 {
            bytes.extend_from_slice(b"10000\r\n");
            bytes.extend_from_slice(&[b' '; 0x10000]);
            bytes.extend_from_slice(b"\r\n");
        }
        Reply::Bytes(bytes)
    };
    let lying = ("Docker-Content-Digest", format!("sha256:{}", "1".repeat(64)));
    let raw = |text: &str| Reply::Bytes(text.as_bytes().to_vec());
    type Make<'a> = Box<dyn Fn() -> Reply + Send + Sync + 'a>;
    let cases: Vec<(&str, Make<'static>, &str, usize)> = vec![
        ("a page", Box::new(|| reply(200, &[("Content-Type", "text/html; charset=utf-8")], "<html>")), "nonsense", 1),
        ("a cut document", Box::new(move || reply(200, &json, r#"{"schemaVersion": 2, "conf"#)), "nonsense", 1),
        ("nothing", Box::new(move || reply(200, &json, "")), "nonsense", 1),
        ("no content", Box::new(|| reply(204, &[], "")), "nonsense", 1),
        (
            "a document that is announced as too large",
            Box::new(move || raw("HTTP/1.1 200 x\r\nContent-Length: 99999999\r\n\r\n{")),
            "nonsense",
            1,
        ),
        ("a document that does not end", Box::new(endless), "nonsense", 1),
        (
            "another digest than it says",
            Box::new(move || reply(200, &[json[0], (lying.0, &lying.1)], Documents::new().manifest)),
            "nonsense",
            1,
        ),
        ("no such image", Box::new(|| reply(404, &[], "")), "not found", 1),
        ("forbidden", Box::new(|| reply(403, &[], r#"{"errors":[{"code":"DENIED"}]}"#)), "denied", 1),
        ("a status that means nothing here", Box::new(|| reply(418, &[], "")), "failed", 1),
        ("a plain refusal", Box::new(|| reply(400, &[], "")), "failed", 1),
        ("a login of no kind", Box::new(|| reply(401, &[], "")), "nonsense", 1),
        ("a login of an unknown kind", Box::new(|| reply(401, &[("WWW-Authenticate", "Negotiate")], "")), "nonsense", 1),
        ("a login without credentials", Box::new(|| reply(401, &[("WWW-Authenticate", "Basic realm=x")], "")), "denied", 1),
        ("a redirect to nowhere", Box::new(|| reply(302, &[], "")), "nonsense", 1),
        ("redirects for ever", Box::new(|| reply(307, &[("Location", "/v2/team/app/manifests/1")], "")), "nonsense", 6),
        ("a redirect away from loopback without TLS", Box::new(|| reply(302, &[("Location", "http://198.51.100.1/")], "")), "nonsense", 1),
        ("a redirect to a file", Box::new(|| reply(302, &[("Location", "file:///etc/passwd")], "")), "nonsense", 1),
        ("not even HTTP", Box::new(move || raw("SSH-2.0-OpenSSH_9.2\r\n")), "unreachable", 4),
        ("a connection that is cut", Box::new(move || raw("")), "unreachable", 4),
        (
            "a document that is cut by the connection",
            Box::new(move || raw("HTTP/1.1 200 x\r\nContent-Length: 500\r\n\r\n{")),
            "unreachable",
            4,
        ),
        ("a server error that stays", Box::new(|| reply(503, &[], "")), "failed", 4),
    ];
    for (why, make, wanted, requests) in cases {
        let server = OddServer::start(move |_, _| make()).await;
        let clock = Arc::new(StillClock::default());
        let registry = OciRegistry::new(options(&clock)).unwrap();
        let error = registry.resolve(&server.image("team/app:1"), AMD64).await.unwrap_err();
        assert_eq!((kind(&error), server.seen().len()), (wanted, requests), "{why}: {error:?}");
        assert_eq!(clock.sleeps().len(), if requests == 4 { 3 } else { 0 }, "{why}: waits between attempts only");
    }
}

#[tokio::test]
async fn transient_errors_are_asked_again_with_growing_pauses() {
    let documents = Documents::new();
    let server = OddServer::start({
        let documents = documents.clone();
        move |number, asked| if number < 3 { reply(500 + u16::try_from(number).unwrap(), &[], "") } else { documents.answer(asked) }
    })
    .await;
    let clock = Arc::new(StillClock::default());
    let registry = OciRegistry::new(options(&clock)).unwrap();
    let found = registry.resolve(&server.image("team/app:1"), AMD64).await.unwrap();
    assert_eq!((found.digest, found.facts.user.as_str()), (documents.digest(), "app"));
    let sleeps = clock.sleeps();
    assert_eq!(sleeps.len(), 3);
    for (sleep, longest) in sleeps.iter().zip([250, 500, 1000].map(Duration::from_millis)) {
        assert!(*sleep >= longest / 2 && *sleep <= longest, "{sleeps:?}");
    }
}

#[tokio::test]
async fn a_rate_limit_is_waited_for_when_it_is_short_and_reported_when_it_is_long() {
    for (why, header, sleeps, found) in [
        ("short", Some("2"), &[(2000, 2250)][..], Ok(())),
        ("none said", None, &[(125, 250)], Ok(())),
        ("a date: the clock starts at the epoch", Some("Thu, 01 Jan 1970 00:00:05 GMT"), &[(5000, 5250)], Ok(())),
        ("long", Some("3600"), &[], Err(Some(3600))),
    ] {
        let documents = Documents::new();
        let server = OddServer::start(move |number, asked| match (number, header) {
            (0, Some(header)) => reply(429, &[("Retry-After", header)], ""),
            (0, None) => reply(429, &[], ""),
            _ => documents.answer(asked),
        })
        .await;
        let clock = Arc::new(StillClock::default());
        let registry = OciRegistry::new(options(&clock)).unwrap();
        let result = registry.resolve(&server.image("team/app:1"), AMD64).await;
        let outcome = result.map(drop).map_err(|error| match error {
            RegistryError::RateLimited { retry_after_seconds, .. } => retry_after_seconds,
            other => panic!("{why}: {other:?}"),
        });
        assert_eq!(outcome, found, "{why}");
        let slept: Vec<_> = clock.sleeps().iter().map(Duration::as_millis).collect();
        assert_eq!(slept.len(), sleeps.len(), "{why}: {slept:?}");
        assert!(slept.iter().zip(sleeps).all(|(slept, (least, most))| slept >= least && slept <= most), "{why}: {slept:?}");
    }
}

#[tokio::test]
async fn a_registry_that_stalls_is_given_up_in_time() {
    let page = || format!("HTTP/1.1 200 x\r\nContent-Type: {OCI_MANIFEST}\r\nContent-Length: 500\r\n\r\n{}", " ".repeat(500)).into_bytes();
    for trickles in [false, true] {
        let server =
            OddServer::start(move |_, _| if trickles { Reply::Trickle(page(), Duration::from_millis(20)) } else { Reply::Silence }).await;
        let clock = Arc::new(StillClock::default());
        let registry = OciRegistry::new(OciOptions { timeout: Duration::from_millis(300), attempts: 2, ..options(&clock) }).unwrap();
        let image = server.image("team/app:1");
        let asked = registry.resolve(&image, AMD64);
        let error = tokio::time::timeout(Duration::from_secs(20), asked).await.expect("each attempt ends").unwrap_err();
        assert_eq!((kind(&error), server.seen().len()), ("unreachable", 2), "trickles: {trickles}: {error:?}");
    }
}

#[tokio::test]
async fn nobody_at_the_address_is_unreachable_and_names_no_address_of_its_own() {
    let server = OddServer::start(|_, _| Reply::Silence).await;
    let image = server.image("team/app:1");
    drop(server);
    let clock = Arc::new(StillClock::default());
    let registry = OciRegistry::new(options(&clock)).unwrap();
    for error in [registry.resolve(&image, AMD64).await.map(drop).unwrap_err(), registry.tags(&image).await.map(drop).unwrap_err()] {
        assert_eq!(kind(&error), "unreachable");
        assert!(!one_line(&error).contains("/v2/"), "{}", one_line(&error));
    }
    assert_eq!(clock.sleeps().len(), 6, "each call tried four times");
}

#[tokio::test]
async fn without_tls_only_loopback_and_hosts_that_are_allowed_are_asked() {
    let documents = Documents::new();
    let server = OddServer::start(move |_, asked| documents.answer(asked)).await;
    // This address leads to the same server, but it is not a loopback address.
    let image = server.image("team/app:1").to_string().replace("127.0.0.1", "0.0.0.0").parse().unwrap();
    let refused = OciRegistry::new(OciOptions { attempts: 1, timeout: Duration::from_millis(500), ..options(&Arc::default()) }).unwrap();
    let error = refused.resolve(&image, AMD64).await.unwrap_err();
    assert_eq!((kind(&error), server.seen().len()), ("unreachable", 0), "it was asked with TLS: {error:?}");
    let allowed = OciRegistry::new(OciOptions { plain_http: vec![image.registry().to_owned()], ..options(&Arc::default()) }).unwrap();
    allowed.resolve(&image, AMD64).await.unwrap();
}

#[tokio::test]
async fn credentials_stay_with_the_registry_when_it_redirects_elsewhere() {
    let documents = Documents::new();
    let storage = OddServer::start({
        let documents = documents.clone();
        move |_, _| reply(200, &[], &documents.config)
    })
    .await;
    let elsewhere = format!("http://{}/bucket?signature=abc", storage.host);
    let server = OddServer::start(move |_, asked| match asked.authorization() {
        None => reply(401, &[("WWW-Authenticate", "Basic realm=\"x\"")], ""),
        Some(_) if asked.target.contains("/blobs/") => reply(307, &[("Location", &elsewhere)], ""),
        Some(_) => documents.answer(asked),
    })
    .await;
    registry_with(Login).resolve(&server.image("team/app:1"), AMD64).await.unwrap();
    assert!(server.seen().iter().any(|asked| asked.authorization() == Some("Basic Y2k6czNjcmV0")), "the registry gets them");
    assert_eq!(storage.seen().len(), 1);
    assert_eq!(storage.seen()[0].authorization(), None, "nobody else does");
}

#[tokio::test]
async fn a_host_that_was_only_redirected_to_cannot_ask_for_credentials() {
    let thief = OddServer::start(|_, asked| {
        let realm = format!("Bearer realm=\"http://{}/token\"", asked.headers["host"]);
        reply(401, &[("WWW-Authenticate", &realm)], "")
    })
    .await;
    let elsewhere = format!("http://{}/", thief.host);
    let server = OddServer::start(move |_, _| reply(302, &[("Location", &elsewhere)], "")).await;
    let error = registry_with(Login).resolve(&server.image("team/app:1"), AMD64).await.unwrap_err();
    assert_eq!(kind(&error), "denied", "{error:?}");
    let seen = thief.seen();
    assert!(!seen.is_empty() && seen.iter().all(|asked| asked.authorization().is_none() && asked.target == "/"), "{seen:?}");
}

#[tokio::test]
async fn documents_that_do_not_fit_together_are_refused() {
    let good = Documents::new();
    let index = |digest: &str, size: usize| {
        json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [{"mediaType": OCI_MANIFEST, "digest": digest, "size": size,
            "platform": {"os": "linux", "architecture": "amd64"}}]})
        .to_string()
    };
    let other = format!("sha256:{}", "2".repeat(64));
    let nested = index(&other, 1);
    let cases = [
        ("sane", index(good.digest().as_str(), good.manifest.len()), good.clone(), None),
        ("a manifest of another digest", index(&other, good.manifest.len()), good.clone(), Some("is to have the digest")),
        ("a manifest of another size", index(good.digest().as_str(), 1), good.clone(), Some("wrong size for the manifest")),
        (
            "a configuration of another digest",
            index(good.digest().as_str(), good.manifest.len()),
            Documents { config: good.config.replace("app", "bad"), ..good.clone() },
            Some("image configuration is to have the digest"),
        ),
        (
            "an index in an index",
            index(sha256(nested.as_bytes()).as_str(), nested.len()),
            Documents { manifest: nested, ..good.clone() },
            Some("holds another index"),
        ),
    ];
    for (why, index, documents, wanted) in cases {
        let server = OddServer::start(move |_, asked| match asked.target.rsplit_once('/').unwrap() {
            (rest, "1") if rest.ends_with("/manifests") => reply(200, &[("Content-Type", OCI_INDEX)], &index),
            (rest, _) if rest.ends_with("/manifests") => {
                let kind = if documents.manifest.contains("manifests") { OCI_INDEX } else { OCI_MANIFEST };
                reply(200, &[("Content-Type", kind)], &documents.manifest)
            }
            _ => reply(200, &[], &documents.config),
        })
        .await;
        let result = registry_with(Login).resolve(&server.image("team/app:1"), AMD64).await;
        match (result, wanted) {
            (Ok(found), None) => assert_eq!(found.manifest, good.digest(), "{why}"),
            (Err(RegistryError::Nonsense { reason, .. }), Some(wanted)) => assert!(reason.contains(wanted), "{why}: {reason}"),
            (other, _) => panic!("{why}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_tag_that_did_not_move_costs_one_request_without_a_body() {
    let documents = Documents::new();
    let server = OddServer::start(move |_, asked| documents.answer(asked)).await;
    let registry = registry_with(Login);
    let image = server.image("team/app:1");
    let first = registry.resolve(&image, AMD64).await.unwrap();
    let before = server.seen().len();
    assert_eq!(registry.resolve(&image, AMD64).await.unwrap(), first);
    let methods: Vec<_> = server.seen()[before..].iter().map(|asked| asked.method.clone()).collect();
    assert_eq!(methods, ["HEAD"]);
    // This server answers every digest with the one image it has: what is remembered must not cover that up.
    let other = server.image(&format!("team/app@sha256:{}", "3".repeat(64)));
    let answer = registry.resolve(&other, AMD64).await;
    assert!(matches!(answer, Err(RegistryError::Nonsense { .. })), "{answer:?}");
}

#[tokio::test]
async fn a_registry_without_head_requests_is_asked_with_get() {
    let documents = Documents::new();
    let server = OddServer::start(move |_, asked| if asked.method == "HEAD" { reply(405, &[], "") } else { documents.answer(asked) }).await;
    let registry = registry_with(Login);
    let image = server.image("team/app:1");
    let first = registry.resolve(&image, AMD64).await.unwrap();
    assert_eq!(registry.resolve(&image, AMD64).await.unwrap(), first);
}

#[tokio::test]
async fn all_pages_of_tags_are_read_and_only_from_the_registry() {
    let other = OddServer::start(|_, _| reply(200, &[("Content-Type", "application/json")], r#"{"tags":["stolen"]}"#)).await;
    for (why, second, wanted) in [
        ("relative", "/v2/team/app/tags/list?last=b&n=2".to_owned(), Ok(())),
        ("with this host", "{own}/v2/team/app/tags/list?last=b&n=2".to_owned(), Ok(())),
        ("with another host", format!("http://{}/v2/team/app/tags/list", other.host), Err("another host")),
        ("with another host, without scheme", format!("//{}/v2/team/app/tags/list", other.host), Err("another host")),
        ("in circles", "/v2/team/app/tags/list?n=1000".to_owned(), Err("circles")),
    ] {
        let server = OddServer::start({
            move |_, asked| {
                let kind = ("Content-Type", "application/json");
                if asked.target.contains("last=b") {
                    return reply(200, &[kind], r#"{"name":"team/app","tags":["a","1.10","c"]}"#);
                }
                let host = format!("http://{}", asked.headers["host"]);
                let link = format!("<{}>; rel=\"next\"", second.replace("{own}", &host));
                reply(200, &[kind, ("Link", &link)], r#"{"name":"team/app","tags":["b","a"]}"#)
            }
        })
        .await;
        match (registry_with(Login).tags(&server.image("team/app")).await, wanted) {
            (Ok(tags), Ok(())) => assert_eq!(tags, ["1.10", "a", "b", "c"], "{why}"),
            (Err(RegistryError::Nonsense { reason, .. }), Err(wanted)) => assert!(reason.contains(wanted), "{why}: {reason}"),
            (other, _) => panic!("{why}: {other:?}"),
        }
    }
    assert!(other.seen().is_empty(), "another host was asked: {:?}", other.seen());
}

#[tokio::test]
async fn a_list_of_tags_that_is_none_is_refused() {
    for (why, kind, body, wanted) in [
        ("null", "application/json", r#"{"name":"a","tags":null}"#, Some(0)),
        ("a page", "text/html", "<html>", None),
        ("something else", "application/json", r#"["a"]"#, None),
        ("cut", "application/json", r#"{"tags":["a"#, None),
    ] {
        let server = OddServer::start(move |_, _| reply(200, &[("Content-Type", kind)], body)).await;
        match (registry_with(Login).tags(&server.image("team/app")).await, wanted) {
            (Ok(tags), Some(wanted)) => assert_eq!(tags.len(), wanted, "{why}"),
            (Err(RegistryError::Nonsense { .. }), None) => (),
            (other, _) => panic!("{why}: {other:?}"),
        }
    }
}

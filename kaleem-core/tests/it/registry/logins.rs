//! Logins: what the Docker client kept, what stores answer, and what registries and token services make of it.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kaleem_core::durable;
use kaleem_core::exec::{self, ExecError, ExecRequest};
use kaleem_core::registry::oci::{DockerConfig, OciOptions, OciRegistry};
use kaleem_core::registry::{Credential, ImageRegistry, PullCredentials, RegistryError};
use kaleem_core::remedy::one_line;
use kaleem_core::runtime::ImageFacts;
use kaleem_core::secret::Secret;
use serde_json::{Value, json};

use super::faults::Login;
use super::server::{DockerRegistry, Documents, OddServer, Pusher, Reply, StillClock, options, registry_with, reply, skip};

const AMD64: &str = "linux/amd64";

fn password(username: &str, password: &str) -> Option<Credential> {
    Some(Credential::Password { username: username.to_owned(), password: Secret::new(password.to_owned()) })
}

fn token(token: &str) -> Option<Credential> {
    Some(Credential::IdentityToken(Secret::new(token.to_owned())))
}

/// A home of its own with a configuration file and credential stores.
struct Home(tempfile::TempDir);

impl Home {
    fn new(config: &Value) -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        home.write(&config.to_string());
        home
    }

    fn write(&self, config: &str) {
        durable::write_atomic(&self.0.path().join("config.json"), config.as_bytes(), 0o600).unwrap();
    }

    /// Puts a credential store there, which keeps what it was asked in the file `asked`.
    fn store(&self, name: &str, script: &str) {
        let path = self.0.path().join(format!("docker-credential-{name}"));
        let asked = self.0.path().join("asked");
        let text = format!("#!/bin/sh\nread -r server\necho \"$1 $server\" >>{}\n{script}\n", asked.display());
        durable::write_atomic(&path, text.as_bytes(), 0o755).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o755);
    }

    fn asked(&self) -> String {
        std::fs::read_to_string(self.0.path().join("asked")).unwrap_or_default()
    }

    fn config(&self) -> DockerConfig {
        let path = format!("{}:/usr/bin:/bin", self.0.path().display());
        DockerConfig::new(self.0.path().join("config.json"), BTreeMap::from([("PATH".to_owned(), path)]))
    }
}

#[tokio::test]
async fn the_file_of_the_docker_client_is_read_in_all_its_forms() {
    let encoded = |text: &str| STANDARD.encode(text);
    let home = Home::new(&json!({
        "auths": {
            "ghcr.io": {"auth": encoded("ci:s3cret")},
            "plain.example.com": {"username": "ci", "password": "pl:ain"},
            "colon.example.com": {"auth": encoded("ci:with:colons")},
            "zero.example.com": {"auth": encoded("ci:padded\0\0")},
            "token.example.com": {"auth": encoded("ci:x"), "identitytoken": "refresh"},
            "https://old.example.com/v1/": {"auth": encoded("old:way")},
            "https://index.docker.io/v1/": {"auth": encoded("hub:word")},
            "empty.example.com": {},
            "host.example.com:5000": {"auth": encoded("port:5000")},
        },
        "HttpHeaders": {"User-Agent": "Docker-Client"}, "psFormat": "table", "currentContext": "default",
    }));
    for (why, host, expected) in [
        ("base64", "ghcr.io", password("ci", "s3cret")),
        ("in the open", "plain.example.com", password("ci", "pl:ain")),
        ("only the first colon parts", "colon.example.com", password("ci", "with:colons")),
        ("old clients padded", "zero.example.com", password("ci", "padded")),
        ("a token wins", "token.example.com", token("refresh")),
        ("written as an address", "old.example.com", password("old", "way")),
        ("Docker Hub", "docker.io", password("hub", "word")),
        ("an entry without anything", "empty.example.com", None),
        ("a port", "host.example.com:5000", password("port", "5000")),
        ("the same host without the port", "host.example.com", None),
        ("unknown", "unknown.example.com", None),
    ] {
        assert_eq!(home.config().for_registry(host).await.unwrap(), expected, "{why}");
    }
    let nowhere = DockerConfig::new(PathBuf::from("/nowhere/config.json"), BTreeMap::new());
    assert_eq!(nowhere.for_registry("ghcr.io").await.unwrap(), None, "no file, no login");
}

#[tokio::test]
async fn a_broken_file_is_an_error_without_a_word_of_its_content() {
    let home = Home::new(&json!({}));
    for (why, text) in [
        ("cut", r#"{"auths": {"ghcr.io": {"password": "s3cret"#),
        ("no JSON", "s3cret"),
        ("text in place of a table", r#"{"auths": "s3cret"}"#),
        ("a number in place of a text", r#"{"auths": {"ghcr.io": {"password": 53}}, "x": "s3cret"}"#),
        ("no base64", r#"{"auths": {"ghcr.io": {"auth": "s3cret!"}}}"#),
        ("no colon", r#"{"auths": {"ghcr.io": {"auth": "czNjcmV0"}}}"#),
        ("a path in place of a store", r#"{"credsStore": "../s3cret"}"#),
    ] {
        home.write(text);
        let error = home.config().for_registry("ghcr.io").await.unwrap_err();
        assert!(matches!(error, RegistryError::Credentials { .. }), "{why}: {error:?}");
        let said = format!("{} {error:?}", one_line(&error));
        assert!(!said.contains("s3cret") && !said.contains("czNjcmV0"), "{why}: {said}");
    }
    let directory = DockerConfig::new(home.0.path().to_owned(), BTreeMap::new());
    assert!(directory.for_registry("ghcr.io").await.is_err(), "a directory is no file");
}

#[tokio::test]
async fn stores_are_asked_on_their_standard_input() {
    let home = Home::new(&json!({
        "credsStore": "main",
        "credHelpers": {"special.example.com": "special", "broken.example.com": "broken", "gone.example.com": "gone",
            "rubbish.example.com": "rubbish", "off.example.com": ""},
        "auths": {"ghcr.io": {}, "fallback.example.com": {"username": "file", "password": "word"}, "off.example.com": {"username": "o", "password": "p"}},
    }));
    home.store(
        "main",
        r#"case "$server" in
            ghcr.io) echo '{"ServerURL":"ghcr.io","Username":"ci","Secret":"s3cret"}' ;;
            https://index.docker.io/v1/) echo '{"Username":"<token>","Secret":"refresh"}' ;;
            empty.example.com) echo '{"Username":"","Secret":""}' ;;
            *) echo 'credentials not found in native keychain'; exit 1 ;;
        esac"#,
    );
    home.store("special", r#"echo '{"Username":"special","Secret":"word"}'"#);
    home.store("broken", "echo 's3cret: the keychain is locked'; echo s3cret >&2; exit 1");
    home.store("rubbish", "echo s3cret");
    for (why, host, expected) in [
        ("a password", "ghcr.io", password("ci", "s3cret")),
        ("Docker Hub by the name the client gives it, and a token", "docker.io", token("refresh")),
        ("an empty answer", "empty.example.com", None),
        ("unknown to the store", "unknown.example.com", None),
        ("unknown to the store, but in the file", "fallback.example.com", password("file", "word")),
        ("a store of its own wins", "special.example.com", password("special", "word")),
        ("a store that is switched off", "off.example.com", password("o", "p")),
    ] {
        assert_eq!(home.config().for_registry(host).await.unwrap(), expected, "{why}");
    }
    assert!(home.asked().contains("get ghcr.io\nget https://index.docker.io/v1/\n"), "{}", home.asked());
    for host in ["broken.example.com", "gone.example.com", "rubbish.example.com"] {
        let error = home.config().for_registry(host).await.unwrap_err();
        let said = format!("{} {error:?}", one_line(&error));
        assert!(said.contains("docker-credential-") && !said.contains("s3cret"), "{said}");
    }
}

#[tokio::test]
async fn a_real_registry_with_passwords_lets_in_who_is_logged_in() {
    // `ci` with the password `s3cret`, as `htpasswd -bnBC 5` writes it.
    let hash = "ci:$2y$05$3PLuoULxRz4Ha81DZyx/UunJM.NJcTHeTpezcArdRHt3lC2SAkgSS\n";
    let auth = json!({"auth": {"htpasswd": {"realm": "lab", "path": "{directory}/htpasswd"}}});
    let prepare = |directory: &Path| durable::create_new(&directory.join("htpasswd"), hash.as_bytes()).unwrap();
    let Some(server) = DockerRegistry::start("a_real_registry_with_passwords", &auth, prepare) else { return };
    let pusher = Pusher { login: Some(("ci".to_owned(), "s3cret".to_owned())), ..Pusher::new(&server.host) };
    let facts = ImageFacts { platform: AMD64.to_owned(), size_bytes: 100, ..ImageFacts::default() };
    let (pushed, _) = pusher.image("team/app", Some("1"), &facts, true).await;
    let image = server.image("team/app:1");

    let home = Home::new(&json!({}));
    let registry = registry_with(home.config());
    for (why, config) in [
        ("no login", json!({})),
        ("another password", json!({"auths": {server.host.clone(): {"username": "ci", "password": "wr0ng-s3cret"}}})),
        ("a token in place of a password", json!({"auths": {server.host.clone(): {"identitytoken": "wr0ng-s3cret"}}})),
    ] {
        home.write(&config.to_string());
        for error in [registry.resolve(&image, AMD64).await.map(drop).unwrap_err(), registry.tags(&image).await.map(drop).unwrap_err()] {
            assert!(matches!(error, RegistryError::Denied { .. }), "{why}: {error:?}");
            assert!(!format!("{} {error:?}", one_line(&error)).contains("wr0ng"), "{why}: {error:?}");
        }
    }
    // A login in between is seen by the same registry.
    home.write(&json!({"auths": {server.host.clone(): {"auth": STANDARD.encode("ci:s3cret")}}}).to_string());
    assert_eq!(registry.resolve(&image, AMD64).await.unwrap(), pushed);
    assert_eq!(registry.tags(&image).await.unwrap(), ["1"]);
}

#[tokio::test]
async fn a_real_registry_with_its_own_certificate_is_trusted_only_when_told_to() {
    let certificate = tempfile::tempdir().unwrap();
    let arguments = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=lab -keyout key.pem -out cert.pem \
        -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE";
    let request = ExecRequest {
        program: PathBuf::from("openssl"),
        arguments: arguments.split_whitespace().map(str::to_owned).collect(),
        environment: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
        stdin: None,
        directory: Some(certificate.path().to_owned()),
        timeout: Duration::from_secs(60),
        max_output_bytes: 4096,
    };
    match exec::run(&request).await {
        Err(ExecError::NotFound { .. }) => return skip("a_real_registry_with_its_own_certificate", "openssl"),
        result => assert!(result.unwrap().status.success()),
    }
    let pem = durable::read(&certificate.path().join("cert.pem")).unwrap();
    let tls = json!({"http": {"tls": {"certificate": certificate.path().join("cert.pem"), "key": certificate.path().join("key.pem")}}});
    let Some(server) = DockerRegistry::start("a_real_registry_with_its_own_certificate", &tls, |_| ()) else { return };
    let root = reqwest::Certificate::from_pem(&pem).unwrap();
    let mut pusher = Pusher::new(&server.host);
    pusher.client = reqwest::Client::builder().no_proxy().tls_certs_only([root]).build().unwrap();
    pusher.base = format!("https://{}", server.host);
    let facts = ImageFacts { platform: AMD64.to_owned(), size_bytes: 100, ..ImageFacts::default() };
    let (pushed, _) = pusher.image("team/app", Some("1"), &facts, false).await;
    let image = server.image("team/app:1");

    let clock = Arc::new(StillClock::default());
    let strict = OciRegistry::new(options(&clock)).unwrap();
    let error = strict.resolve(&image, AMD64).await.unwrap_err();
    assert!(one_line(&error).contains("certificate"), "{}", one_line(&error));
    let trusting = OciRegistry::new(OciOptions { extra_root_certificates: Some(pem), ..options(&clock) }).unwrap();
    assert_eq!(trusting.resolve(&image, AMD64).await.unwrap(), pushed);
}

/// A registry with a token service, in one server: tokens are `t1`, `t2`, … and only the newest is good.
async fn token_registry(reply_with: impl Fn(usize) -> Reply + Send + Sync + 'static) -> OddServer {
    let documents = Documents::new();
    let issued = std::sync::atomic::AtomicUsize::new(0);
    OddServer::start(move |_, asked| {
        use std::sync::atomic::Ordering::SeqCst;
        if asked.target.starts_with("/token") {
            return reply_with(issued.fetch_add(1, SeqCst) + 1);
        }
        if asked.authorization() == Some(format!("Bearer t{}", issued.load(SeqCst)).as_str()) {
            return documents.answer(asked);
        }
        let realm =
            format!("Bearer realm=\"http://{}/token\",service=\"reg,istry\",scope=\"repository:team/app:pull\"", asked.headers["host"]);
        reply(401, &[("WWW-Authenticate", &realm)], r#"{"errors":[{"code":"UNAUTHORIZED"}]}"#)
    })
    .await
}

struct Fixed(Option<Credential>);

#[async_trait::async_trait]
impl PullCredentials for Fixed {
    async fn for_registry(&self, _host: &str) -> Result<Option<Credential>, RegistryError> {
        Ok(self.0.clone())
    }
}

#[tokio::test]
async fn a_token_is_fetched_with_what_there_is_and_used_until_its_end() {
    for (why, credential, method, shown, body) in [
        ("nobody", None, "GET", None, ""),
        ("a password", password("ci", "s3cret"), "GET", Some("Basic Y2k6czNjcmV0"), ""),
        (
            "an identity token",
            token("re/fresh+&"),
            "POST",
            None,
            "service=reg%2Cistry&scope=repository%3Ateam%2Fapp%3Apull&grant_type=refresh_token&client_id=kaleem&refresh_token=re%2Ffresh%2B%26",
        ),
    ] {
        let named = if shown.is_some() { "access_token" } else { "token" };
        let server = token_registry(move |number| {
            reply(200, &[("Content-Type", "application/json")], json!({named: format!("t{number}"), "expires_in": 300}).to_string())
        })
        .await;
        let clock = Arc::new(StillClock::default());
        let registry = OciRegistry::new(OciOptions { credentials: Arc::new(Fixed(credential)), ..options(&clock) }).unwrap();
        let image = server.image("team/app:1");
        let asked = || server.seen().into_iter().filter(|asked| asked.target.starts_with("/token")).collect::<Vec<_>>();
        for _ in 0..3 {
            registry.resolve(&image, AMD64).await.unwrap();
        }
        assert_eq!(asked().len(), 1, "{why}: one token serves all");
        let first = &asked()[0];
        assert_eq!((first.method.as_str(), first.authorization(), first.body.as_str()), (method, shown, body), "{why}");
        if method == "GET" {
            assert_eq!(first.target, "/token?service=reg%2Cistry&scope=repository%3Ateam%2Fapp%3Apull", "{why}");
        }
        let before = server.seen().len();
        clock.advance(Duration::from_secs(291));
        registry.resolve(&image, AMD64).await.unwrap();
        assert_eq!(asked().len(), 2, "{why}: a token near its end is not used");
        assert_eq!(server.seen()[before].authorization(), None, "{why}: it is not even sent");
    }
}

#[tokio::test]
async fn a_token_that_was_revoked_is_replaced_once() {
    let server = token_registry(|number| reply(200, &[], json!({"token": format!("t{number}")}).to_string())).await;
    let (one, other) = (registry_with(Login), registry_with(Login));
    let image = server.image("team/app:1");
    one.resolve(&image, AMD64).await.unwrap();
    // A second client gets a token, which makes the first one's worthless.
    other.resolve(&image, AMD64).await.unwrap();
    one.resolve(&image, AMD64).await.unwrap();
    assert_eq!(server.seen().iter().filter(|asked| asked.target.starts_with("/token")).count(), 3);
}

#[tokio::test]
async fn a_token_service_that_fails_is_told_apart() {
    type Make = fn(usize) -> Reply;
    type Judge = fn(&RegistryError) -> bool;
    let cases: [(&str, Make, Judge, usize); 9] = [
        ("refused", |_| reply(401, &[], r#"{"details":"wrong password s3cret"}"#), |e| matches!(e, RegistryError::Denied { .. }), 1),
        ("forbidden", |_| reply(403, &[], ""), |e| matches!(e, RegistryError::Denied { .. }), 1),
        ("out of order", |_| reply(500, &[], "s3cret"), |e| matches!(e, RegistryError::Failed { status: 500, .. }), 4),
        (
            "limited",
            |_| reply(429, &[("Retry-After", "99")], ""),
            |e| matches!(e, RegistryError::RateLimited { retry_after_seconds: Some(99), .. }),
            1,
        ),
        ("gone", |_| reply(404, &[], ""), |e| matches!(e, RegistryError::Nonsense { .. }), 1),
        ("a page", |_| reply(200, &[], "<html>s3cret"), |e| matches!(e, RegistryError::Nonsense { .. }), 1),
        ("no token", |_| reply(200, &[], r#"{"token":"","expires_in":300}"#), |e| matches!(e, RegistryError::Nonsense { .. }), 1),
        (
            "a token that HTTP cannot carry",
            |_| reply(200, &[], r#"{"token":"a\nb"}"#),
            |e| matches!(e, RegistryError::Credentials { .. }),
            1,
        ),
        ("a useless token", |_| reply(200, &[], r#"{"token":"useless"}"#), |e| matches!(e, RegistryError::Denied { .. }), 1),
    ];
    for (why, make, is_right, requests) in cases {
        let server = token_registry(make).await;
        let error = registry_with(Login).resolve(&server.image("team/app:1"), AMD64).await.unwrap_err();
        assert!(is_right(&error), "{why}: {error:?}");
        assert_eq!(server.seen().iter().filter(|asked| asked.target.starts_with("/token")).count(), requests, "{why}");
        let said = format!("{} {error:?}", one_line(&error));
        assert!(!said.contains("s3cret") && !said.contains("Y2k6") && !said.contains("useless"), "{why}: {said}");
    }
}

#[tokio::test]
async fn credentials_go_to_no_token_service_that_is_less_safe_and_to_none_it_redirects_to() {
    let thief = OddServer::start(|_, _| reply(200, &[], r#"{"token":"stolen"}"#)).await;
    for (why, realm) in [
        ("without TLS, not on loopback", "http://198.51.100.1/token".to_owned()),
        ("an address that only looks like loopback", format!("http://0.0.0.0:{}/token", thief.host.rsplit(':').next().unwrap())),
        ("no address", "token".to_owned()),
        ("a file", "file:///etc/passwd".to_owned()),
    ] {
        let challenge = format!("Bearer realm=\"{realm}\"");
        let server = OddServer::start(move |_, _| reply(401, &[("WWW-Authenticate", &challenge)], "")).await;
        let error = registry_with(Login).resolve(&server.image("team/app:1"), AMD64).await.unwrap_err();
        assert!(matches!(error, RegistryError::Nonsense { .. }), "{why}: {error:?}");
        assert!(thief.seen().is_empty(), "{why}");
    }
    for credential in [password("ci", "s3cret"), token("refresh-s3cret")] {
        let elsewhere = format!("http://{}/", thief.host);
        let server = token_registry(move |_| reply(307, &[("Location", &elsewhere)], "")).await;
        registry_with(Fixed(credential)).resolve(&server.image("team/app:1"), AMD64).await.unwrap_err();
        assert!(thief.seen().iter().all(|asked| asked.authorization().is_none() && !asked.body.contains("s3cret")), "{:?}", thief.seen());
    }
}

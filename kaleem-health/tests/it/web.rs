//! HTTP, pages and certificates, against a real nginx.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kaleem_core::health::{Finding, HealthProbe, Verdict};
use kaleem_core::secret::Secret;
use kaleem_core::testing::free_port;
use kaleem_core::testing::probe_contract::{self, SECRET, discreet};
use kaleem_health::settings::{CertificateSettings, ClientCertificate, HttpSettings, SpaSettings, TlsSettings};
use kaleem_health::{CertificateProbe, HttpProbe, KnownHosts, SpaProbe};

use crate::servers::{Process, program, start, write};

const TIMEOUT: Duration = Duration::from_secs(5);
pub(crate) const HOST: &str = "shop.example";

#[track_caller]
fn expect(why: &str, finding: &Finding, verdict: Verdict, reason: &str) {
    discreet(why, finding);
    assert_eq!((finding.verdict, finding.reason.contains(reason)), (verdict, true), "{why}: {finding:?}");
}

/// An nginx with these directives in its `server`; files are served from `www` of its directory.
pub(crate) fn nginx(prepare: impl FnOnce(&Path), listen: &str, directives: &str) -> Option<Process> {
    let program = program("nginx", "KALEEM_TEST_NGINX")?;
    let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
    let place = directory.path();
    // Its workers are another user where it is started by root.
    std::fs::set_permissions(place, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::create_dir(place.join("www")).unwrap();
    prepare(place);
    let root = place.display();
    let temporary: String =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].iter().map(|kind| format!("{kind}_temp_path {root}/{kind};")).collect();
    let text = format!(
        "daemon off; master_process off; pid {root}/pid; error_log {root}/error.log; events {{}}
        http {{ {temporary} access_log off; types {{ text/html html; text/css css; application/javascript js; }} default_type application/octet-stream;
        server {{ listen {listen}; root {root}/www; {directives} }} }}"
    )
    .replace("PORT", &port.to_string())
    .replace("ROOT", &root.to_string());
    let file = place.join("nginx.conf");
    write(&file, &text);
    let arguments =
        ["-p".to_owned(), root.to_string(), "-e".to_owned(), format!("{root}/error.log"), "-c".to_owned(), file.display().to_string()];
    Some(start(&program, &arguments, &[], directory, port))
}

fn get(address: impl std::fmt::Display, path: &str) -> HttpSettings {
    HttpSettings::get(Secret::new(format!("http://{address}{path}")))
}

async fn ask(settings: HttpSettings) -> Finding {
    HttpProbe::new("web", settings, Arc::new(KnownHosts::new())).unwrap().check(TIMEOUT).await
}

#[tokio::test]
async fn the_contract_holds_for_http_pages_and_certificates() {
    let http = |address: SocketAddr| -> Arc<dyn HealthProbe> {
        let settings = HttpSettings {
            headers: vec![("authorization".to_owned(), Secret::new(format!("Bearer {SECRET}")))],
            ..get(address, &format!("/health?token={SECRET}"))
        };
        Arc::new(HttpProbe::new("web", settings, Arc::new(KnownHosts::new())).unwrap())
    };
    probe_contract::every_promise_is_kept(&http, crate::support::runs()).await;
    let spa = |address: SocketAddr| -> Arc<dyn HealthProbe> {
        let url = Secret::new(format!("http://user:{SECRET}@{address}/"));
        let settings = SpaSettings { url, root_id: None, tls: TlsSettings::STANDARD };
        Arc::new(SpaProbe::new("page", settings, Arc::new(KnownHosts::new())).unwrap())
    };
    probe_contract::every_promise_is_kept(&spa, crate::support::runs()).await;
    let certificate = |address: SocketAddr| -> Arc<dyn HealthProbe> {
        let settings = CertificateSettings { host: address.ip().to_string(), port: address.port(), tls: TlsSettings::STANDARD };
        Arc::new(CertificateProbe::new("certificate", settings, Arc::new(KnownHosts::new())).unwrap())
    };
    probe_contract::every_promise_is_kept(&certificate, crate::support::runs()).await;
}

#[tokio::test]
async fn every_rule_about_an_answer_is_kept_or_named() {
    let directives = r#"
        location = /health { default_type application/json; add_header x-version 7; return 200 '{"status":"ok","queue":{"depth":12}}'; }
        location = /down { default_type application/json; return 503 '{"status":"error","details":{"redis":{"status":"down","message":"s3rver-text-do-not-repeat"},"db":{"status":"up"}}}'; }
        location = /old { return 301 /health; }
        location = /loop { return 302 /loop; }
        location = /private { if ($http_authorization != "Bearer hunter2-do-not-repeat") { return 401; } return 200 'in'; }
    "#;
    let Some(server) = nginx(|_| {}, "127.0.0.1:PORT", directives) else { return };
    let to = |path: &str| get(server.address(), path);
    let rule = |rule: &str| HttpSettings { json: vec![rule.to_owned()], ..to("/health") };
    let header = |text: &str| HttpSettings { expected_headers: vec![("X-Version".to_owned(), text.to_owned())], ..to("/health") };
    let pattern = |text: &str| HttpSettings { pattern: Some(text.to_owned()), ..to("/health") };
    let latency = |warn, fail| HttpSettings { latency: Some((warn, fail)), ..to("/health") };
    let api = |path: &str| HttpSettings::api(to(path).url);
    let follow = |path: &str| HttpSettings { redirects: 3, contains: Some("depth".to_owned()), ..to(path) };
    let token = HttpSettings { headers: vec![("authorization".to_owned(), Secret::new(format!("Bearer {SECRET}")))], ..to("/private") };
    let hour = Duration::from_secs(3600);
    for (why, settings, verdict, reason) in [
        ("answers", to("/health"), Verdict::Ok, "answered 200"),
        ("missing", to("/nothing"), Verdict::Fail, "answered 404, and 200 to 399 is right"),
        ("rule kept", rule("queue.depth < 100"), Verdict::Ok, "200"),
        ("rule broken", rule("queue.depth < 10"), Verdict::Fail, "breaks `queue.depth < 10`: it has another value"),
        ("header", header("7"), Verdict::Ok, "200"),
        ("another header", header("8"), Verdict::Fail, "without the right header `X-Version`"),
        ("pattern", pattern("depth\":\\d+"), Verdict::Ok, "200"),
        ("another pattern", pattern("^depth"), Verdict::Fail, "does not match"),
        ("quick enough", latency(hour, hour), Verdict::Ok, "200"),
        ("slow", latency(Duration::ZERO, hour), Verdict::Warn, " took "),
        ("too slow", latency(Duration::ZERO, Duration::ZERO), Verdict::Fail, "0 ms is the limit"),
        ("api", api("/health"), Verdict::Ok, "says that it is well"),
        ("api with a part down", api("/down"), Verdict::Fail, "answered 503: redis down"),
        ("a redirect is an answer", to("/old"), Verdict::Ok, "answered 301"),
        ("a redirect is followed", follow("/old"), Verdict::Ok, "answered 200"),
        ("redirects end", HttpSettings { statuses: (200, 200), ..follow("/loop") }, Verdict::Fail, "answered 302"),
        ("without the token", to("/private"), Verdict::Fail, "answered 401"),
        ("with the token", token, Verdict::Ok, "answered 200"),
    ] {
        expect(why, &ask(settings).await, verdict, reason);
    }
    for (why, broken) in [
        ("no address", HttpSettings::get(Secret::new(SECRET.to_owned()))),
        ("another scheme", HttpSettings::get(Secret::new(format!("ftp://{SECRET}/")))),
        ("no pattern", pattern("(")),
        ("no rule", rule("a ==")),
    ] {
        let error = HttpProbe::new("web", broken, Arc::new(KnownHosts::new())).err().expect(why);
        assert!(!format!("{error} {error:?}").contains(SECRET), "{why}");
    }
}

#[tokio::test]
async fn names_that_have_no_address_are_unknown_and_known_ones_lead_to_their_container() {
    let server = crate::support::Server::start(crate::support::ok);
    let port = server.address.port();
    let known = KnownHosts::new().with_host("api", [server.address.ip()]).with_port("web", 80, server.address);
    for (why, url, verdict, reason) in [
        ("a service", format!("http://api:{port}/"), Verdict::Ok, "http://api:"),
        ("a published port", "http://web/".to_owned(), Verdict::Ok, "http://web/ answered 200"),
        ("nobody", "http://nobody.invalid/".to_owned(), Verdict::Unknown, "`nobody.invalid` has no address"),
    ] {
        let probe = HttpProbe::new("web", HttpSettings::get(Secret::new(url)), Arc::new(known.clone())).unwrap();
        expect(why, &probe.check(TIMEOUT).await, verdict, reason);
    }
    let six = crate::support::Server::start_on("[::1]:0", crate::support::ok);
    expect("IPv6 alone", &ask(get(six.address, "/")).await, Verdict::Ok, "answered 200");
}

#[tokio::test]
async fn a_page_fails_with_the_part_that_a_browser_would_not_load() {
    let page = |script: &str| {
        format!(
            "<!doctype html><html><head><link rel=\"stylesheet\" href=\"/assets/app.css\"><script type=module src=\"/assets/{script}\"></script></head><body><div id=\"root\"></div></body></html>"
        )
    };
    let prepare = |place: &Path| {
        let www = place.join("www");
        std::fs::create_dir(www.join("assets")).unwrap();
        write(&www.join("assets/app.js"), "start()");
        write(&www.join("assets/app.css"), "body{}");
        write(&www.join("assets/empty.js"), "");
        write(&www.join("assets/app.bin"), "start()");
        for (name, script) in
            [("index", "app.js"), ("gone", "app-1234.js"), ("empty", "empty.js"), ("type", "app.bin"), ("fallback", "../spa/app-1234.js")]
        {
            write(&www.join(format!("{name}.html")), &page(script));
        }
        write(&www.join("other.html"), "<html><body>It works!</body></html>");
    };
    let directives = "location /spa/ { try_files $uri /index.html; } location = /broken { return 500; }";
    let Some(server) = nginx(prepare, "127.0.0.1:PORT", directives) else { return };
    for (why, path, verdict, reason) in [
        ("well", "/index.html", Verdict::Ok, "so do the 2 scripts and styles"),
        ("a chunk is missing", "/gone.html", Verdict::Fail, "/assets/app-1234.js answered 404"),
        ("an empty chunk", "/empty.html", Verdict::Fail, "/assets/empty.js is empty"),
        ("wrong type", "/type.html", Verdict::Fail, "is served as `octet-stream`"),
        ("the page answers for a chunk, with 200", "/fallback.html", Verdict::Fail, "is served as `html`"),
        ("another page", "/other.html", Verdict::Fail, "no element with the id `root`"),
        ("broken", "/broken", Verdict::Fail, "answered 500"),
    ] {
        let url = Secret::new(format!("http://{}{path}", server.address()));
        let settings = SpaSettings { url, root_id: Some("root".to_owned()), tls: TlsSettings::STANDARD };
        let finding = SpaProbe::new("page", settings, Arc::new(KnownHosts::new())).unwrap().check(TIMEOUT).await;
        expect(why, &finding, verdict, reason);
    }
}

pub(crate) struct Authority {
    issuer: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "tests");
        Self { issuer: rcgen::CertifiedIssuer::self_signed(parameters, rcgen::KeyPair::generate().unwrap()).unwrap() }
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.as_ref().pem()
    }

    /// Certificate and key for a host, valid until so many days from now.
    pub(crate) fn leaf(&self, host: &str, days: i64) -> (String, String) {
        let mut parameters = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
        let seconds = kaleem_core::clock::Clock::now(&kaleem_core::clock::SystemClock).as_second();
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        parameters.not_after = epoch + Duration::from_secs(u64::try_from(seconds + days * 86_400 + 3600).unwrap());
        let key = rcgen::KeyPair::generate().unwrap();
        (parameters.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

#[tokio::test]
async fn a_certificate_is_judged_by_trust_name_and_days() {
    let authority = Authority::new();
    let trusting = TlsSettings { trust_system: false, trusted_pem: authority.pem(), server_name: None, client: None };
    let strange = TlsSettings { trusted_pem: Authority::new().pem(), ..trusting.clone() };
    for (why, name, days, tls, verdict, reason) in [
        ("fresh", HOST, 90, &trusting, Verdict::Ok, "is trusted"),
        ("ends in 19 days", HOST, 19, &trusting, Verdict::Warn, "ends in 19 days"),
        ("ends in 2 days", HOST, 2, &trusting, Verdict::Fail, "ends in 2 days"),
        ("expired", HOST, -3, &trusting, Verdict::Fail, "has expired 2 days ago"),
        ("another name", "other.example", 90, &trusting, Verdict::Fail, "is for another name"),
        ("signed by a stranger", HOST, 90, &strange, Verdict::Fail, "signed by nobody who is trusted here"),
    ] {
        let (certificate, key) = authority.leaf(name, days);
        let prepare = |place: &Path| {
            write(&place.join("cert.pem"), &certificate);
            write(&place.join("key.pem"), &key);
        };
        let directives = "ssl_certificate ROOT/cert.pem; ssl_certificate_key ROOT/key.pem; location / { return 200 'well'; }";
        let Some(server) = nginx(prepare, "127.0.0.1:PORT ssl", directives) else { return };
        let known = Arc::new(KnownHosts::new().with_host(HOST, [server.address().ip()]));
        let settings = CertificateSettings { host: HOST.to_owned(), port: server.port, tls: tls.clone() };
        let finding = CertificateProbe::new("certificate", settings, known.clone()).unwrap().check(TIMEOUT).await;
        expect(why, &finding, verdict, reason);
        let mut settings = HttpSettings::get(Secret::new(format!("https://{HOST}:{}/", server.port)));
        settings.tls = tls.clone();
        let finding = HttpProbe::new("web", settings, known).unwrap().check(TIMEOUT).await;
        assert_eq!(finding.verdict, verdict, "https, {why}: {finding:?}");
        assert!(verdict == Verdict::Fail || finding.phases.contains_key("tls"), "{why}: {finding:?}");
    }
    let plain = crate::support::Server::start(crate::support::ok);
    let settings = CertificateSettings { host: "127.0.0.1".to_owned(), port: plain.address.port(), tls: trusting };
    let finding =
        CertificateProbe::new("certificate", settings, Arc::new(KnownHosts::new())).unwrap().check(Duration::from_millis(500)).await;
    expect("no TLS there", &finding, Verdict::Fail, "does not complete a TLS handshake");
}

#[tokio::test]
async fn a_server_that_asks_for_our_certificate_gets_it() {
    let authority = Authority::new();
    let ((certificate, key), (own, own_key)) = (authority.leaf(HOST, 90), authority.leaf("kaleem", 90));
    let prepare = |place: &Path| {
        write(&place.join("cert.pem"), &certificate);
        write(&place.join("key.pem"), &key);
        write(&place.join("ca.pem"), &authority.pem());
    };
    let directives = "ssl_certificate ROOT/cert.pem; ssl_certificate_key ROOT/key.pem; ssl_client_certificate ROOT/ca.pem; ssl_verify_client on; location / { return 200 'well'; }";
    let Some(server) = nginx(prepare, "127.0.0.1:PORT ssl", directives) else { return };
    let client = Some(ClientCertificate { certificate_pem: own, key_pem: Secret::new(own_key) });
    for (why, client, verdict) in [("shown", client, Verdict::Ok), ("not shown", None, Verdict::Fail)] {
        let mut settings = HttpSettings::get(Secret::new(format!("https://{HOST}:{}/", server.port)));
        settings.tls = TlsSettings { trust_system: false, trusted_pem: authority.pem(), server_name: None, client };
        let known = Arc::new(KnownHosts::new().with_host(HOST, [server.address().ip()]));
        let finding = HttpProbe::new("web", settings, known).unwrap().check(TIMEOUT).await;
        assert_eq!(finding.verdict, verdict, "{why}: {finding:?}");
    }
}

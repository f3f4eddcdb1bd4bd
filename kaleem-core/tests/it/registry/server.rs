//! Servers for the registry's tests: Debian's `docker-registry`, one that misbehaves on demand, and a clock that does not wait.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use kaleem_core::clock::Clock;
use kaleem_core::image::{Digest, ImageRef};
use kaleem_core::registry::oci::{OciOptions, OciRegistry};
use kaleem_core::registry::{Anonymous, PullCredentials, ResolvedImage};
use kaleem_core::runtime::ImageFacts;
use reqwest::header::{CONTENT_TYPE, LOCATION};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub(super) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(super) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// Time that passes only by sleeping.
#[derive(Default)]
pub(super) struct StillClock(Mutex<(Duration, Vec<Duration>)>);

impl StillClock {
    pub(super) fn sleeps(&self) -> Vec<Duration> {
        self.0.lock().unwrap().1.clone()
    }

    pub(super) fn advance(&self, by: Duration) {
        self.0.lock().unwrap().0 += by;
    }
}

#[async_trait]
impl Clock for StillClock {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH + self.monotonic()
    }

    fn monotonic(&self) -> Duration {
        self.0.lock().unwrap().0
    }

    async fn sleep(&self, duration: Duration) {
        let mut state = self.0.lock().unwrap();
        state.0 += duration;
        state.1.push(duration);
    }
}

pub(super) fn options(clock: &Arc<StillClock>) -> OciOptions {
    let clock: Arc<dyn Clock> = clock.clone();
    OciOptions {
        credentials: Arc::new(Anonymous),
        clock,
        plain_http: Vec::new(),
        timeout: Duration::from_secs(20),
        attempts: 4,
        extra_root_certificates: None,
        https_proxy: None,
    }
}

pub(super) fn registry_with(credentials: impl PullCredentials + 'static) -> OciRegistry {
    OciRegistry::new(OciOptions { credentials: Arc::new(credentials), ..options(&Arc::default()) }).unwrap()
}

/// Says that a test could not run; that fails the run where `CI` is set.
pub(super) fn skip(test: &str, needs: &str) {
    #[expect(clippy::disallowed_methods, reason = "a test asks whether it may be skipped")]
    let ci = std::env::var_os("CI").is_some();
    assert!(!ci, "{test} needs {needs}");
    println!("skipped: {test} needs {needs}");
}

/// A real registry of its own, ended when dropped.
pub(super) struct DockerRegistry {
    child: Child,
    pub(super) host: String,
    /// Its storage, for as long as it runs.
    _directory: tempfile::TempDir,
}

impl DockerRegistry {
    /// `None` where none is installed; that fails the run where `CI` is set.
    ///
    /// `extra` goes into its configuration, with `{directory}` replaced.
    pub(super) fn start(test: &str, extra: &Value, prepare: impl FnOnce(&Path)) -> Option<Self> {
        let program = ["/usr/bin/docker-registry", "/usr/local/bin/docker-registry"].into_iter().find(|path| Path::new(path).exists());
        let Some(program) = program else {
            skip(test, "docker-registry (Debian package of that name)");
            return None;
        };
        let directory = tempfile::tempdir().unwrap();
        prepare(directory.path());
        let root = directory.path().to_string_lossy().into_owned();
        let mut config = json!({
            "version": "0.1",
            "storage": {"filesystem": {"rootdirectory": format!("{root}/storage")}, "delete": {"enabled": true}},
            "http": {"addr": "127.0.0.1:0"},
        });
        let extra: Value = serde_json::from_str(&extra.to_string().replace("{directory}", &root)).unwrap();
        for (key, value) in extra.as_object().unwrap() {
            match (config.get_mut(key).and_then(Value::as_object_mut), value.as_object()) {
                (Some(there), Some(more)) => there.extend(more.clone()),
                _ => config[key] = value.clone(),
            }
        }
        // JSON is YAML.
        let file = directory.path().join("config.yml");
        kaleem_core::durable::write_atomic(&file, config.to_string().as_bytes(), 0o600).unwrap();
        #[expect(clippy::disallowed_methods, reason = "a server that outlives one call is not what `exec` is for")]
        let mut command = Command::new(program);
        let mut child = command.arg("serve").arg(&file).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let host = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let at = line.split_once("listening on ")?.1;
            Some(at.chars().take_while(|c| c.is_ascii_digit() || matches!(c, '.' | ':')).collect::<String>())
        });
        // Its log must be read on, or it would stop when the pipe is full.
        std::thread::spawn(move || lines.count());
        Some(Self { child, host: host.expect("the registry says where it listens"), _directory: directory })
    }

    pub(super) fn image(&self, rest: &str) -> ImageRef {
        format!("{}/{rest}", self.host).parse().unwrap()
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Pushes to a real registry by the protocol's own requests.
pub(super) struct Pusher {
    pub(super) client: reqwest::Client,
    pub(super) base: String,
    pub(super) login: Option<(String, String)>,
}

impl Pusher {
    pub(super) fn new(host: &str) -> Self {
        // The provider of TLS is the registry's own.
        drop(OciRegistry::new(options(&Arc::default())).unwrap());
        Self { client: reqwest::Client::builder().no_proxy().build().unwrap(), base: format!("http://{host}"), login: None }
    }

    pub(super) fn request(&self, method: reqwest::Method, url: &str) -> reqwest::RequestBuilder {
        let request = self.client.request(method, url);
        match &self.login {
            Some((user, password)) => request.basic_auth(user, Some(password)),
            None => request,
        }
    }

    pub(super) async fn blob(&self, repository: &str, content: &[u8]) -> Digest {
        let digest = sha256(content);
        let begun = self.request(reqwest::Method::POST, &format!("{}/v2/{repository}/blobs/uploads/", self.base)).send().await.unwrap();
        assert_eq!(begun.status(), 202, "{:?}", begun.text().await);
        let mut url = begun.url().join(begun.headers()[LOCATION].to_str().unwrap()).unwrap();
        url.query_pairs_mut().append_pair("digest", digest.as_str());
        let done = self.request(reqwest::Method::PUT, url.as_str()).body(content.to_vec()).send().await.unwrap();
        assert_eq!(done.status(), 201, "{:?}", done.text().await);
        digest
    }

    pub(super) async fn manifest(&self, repository: &str, name: &str, media_type: &str, content: &Value) -> (Digest, u64) {
        let body = content.to_string();
        let url = format!("{}/v2/{repository}/manifests/{name}", self.base);
        let size = body.len() as u64;
        let digest = sha256(body.as_bytes());
        let done = self.request(reqwest::Method::PUT, &url).header(CONTENT_TYPE, media_type).body(body).send().await.unwrap();
        assert_eq!(done.status(), 201, "{:?}", done.text().await);
        (digest, size)
    }

    /// Pushes one image under `name` (a tag; `None` only by its digest), as Docker or OCI writes it.
    pub(super) async fn image(&self, repository: &str, name: Option<&str>, facts: &ImageFacts, docker: bool) -> (ResolvedImage, u64) {
        let config = config_of(facts).to_string();
        let config_digest = self.blob(repository, config.as_bytes()).await;
        let mut layers = Vec::new();
        // Two layers whose sizes sum up to what is wanted.
        for size in [facts.size_bytes / 3, facts.size_bytes - facts.size_bytes / 3] {
            if size > 0 {
                let digest = self.blob(repository, &vec![b'x'; usize::try_from(size).unwrap()]).await;
                let kind = if docker {
                    "application/vnd.docker.image.rootfs.diff.tar.gzip"
                } else {
                    "application/vnd.oci.image.layer.v1.tar+gzip"
                };
                layers.push(json!({"mediaType": kind, "digest": digest, "size": size}));
            }
        }
        let (kind, config_kind) = if docker {
            (DOCKER_MANIFEST, "application/vnd.docker.container.image.v1+json")
        } else {
            (OCI_MANIFEST, "application/vnd.oci.image.config.v1+json")
        };
        let manifest = json!({"schemaVersion": 2, "mediaType": kind,
            "config": {"mediaType": config_kind, "digest": config_digest, "size": config.len()}, "layers": layers});
        let by_digest = sha256(manifest.to_string().as_bytes()).to_string();
        let (digest, size) = self.manifest(repository, name.unwrap_or(&by_digest), kind, &manifest).await;
        (ResolvedImage { manifest: digest.clone(), digest, config: config_digest, facts: facts.clone() }, size)
    }

    pub(super) async fn index(&self, repository: &str, tag: &str, platforms: &[ImageFacts], docker: bool) -> Vec<ResolvedImage> {
        let (mut images, mut entries) = (Vec::new(), Vec::new());
        for facts in platforms {
            let (image, size) = self.image(repository, None, facts, docker).await;
            let mut parts = facts.platform.split('/');
            let mut platform = json!({"os": parts.next(), "architecture": parts.next()});
            if let Some(variant) = parts.next() {
                platform["variant"] = variant.into();
            }
            let kind = if docker { DOCKER_MANIFEST } else { OCI_MANIFEST };
            entries.push(json!({"mediaType": kind, "digest": image.manifest, "size": size, "platform": platform}));
            images.push(image);
        }
        let kind = if docker { DOCKER_INDEX } else { OCI_INDEX };
        let index = json!({"schemaVersion": 2, "mediaType": kind, "manifests": entries});
        let (digest, _) = self.manifest(repository, tag, kind, &index).await;
        images.into_iter().map(|image| ResolvedImage { digest: digest.clone(), ..image }).collect()
    }
}

/// An image configuration that says these facts, with values in its environment that nobody must see.
fn config_of(facts: &ImageFacts) -> Value {
    let keys = |names: &[String]| names.iter().map(|name| (name.clone(), json!({}))).collect::<serde_json::Map<_, _>>();
    let mut parts = facts.platform.split('/');
    let mut config = json!({
        "os": parts.next(), "architecture": parts.next(), "rootfs": {"type": "layers", "diff_ids": []},
        "config": {
            "User": facts.user,
            "ExposedPorts": keys(&facts.exposed_ports),
            "Env": facts.environment_names.iter().rev().map(|name| format!("{name}=hidden=value")).collect::<Vec<_>>(),
            "Labels": facts.labels,
            "Volumes": keys(&facts.volumes),
        },
    });
    if let Some(variant) = parts.next() {
        config["variant"] = variant.into();
    }
    if facts.has_healthcheck {
        let interval = facts.healthcheck_interval.unwrap_or_default().as_nanos();
        config["config"]["Healthcheck"] = json!({"Test": ["CMD", "/app", "check"], "Interval": u64::try_from(interval).unwrap()});
    }
    config
}

pub(super) fn sha256(content: &[u8]) -> Digest {
    format!("sha256:{}", hex::encode(Sha256::digest(content))).parse().unwrap()
}

/// A request as the misbehaving server saw it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: String,
}

impl Seen {
    pub(super) fn authorization(&self) -> Option<&str> {
        self.headers.get("authorization").map(String::as_str)
    }
}

/// What the misbehaving server does.
pub(super) enum Reply {
    /// Sends these bytes and closes.
    Bytes(Vec<u8>),
    /// Sends these bytes one by one, with a pause before each.
    Trickle(Vec<u8>, Duration),
    /// Says nothing, and keeps the connection.
    Silence,
}

pub(super) fn reply(status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Reply {
    let body = body.as_ref();
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let mut bytes = format!("HTTP/1.1 {status} x\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    Reply::Bytes(bytes)
}

type Handler = dyn Fn(usize, &Seen) -> Reply + Send + Sync;

/// A server that answers what a test wants, and remembers what it was asked.
pub(super) struct OddServer {
    pub(super) host: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: tokio::task::JoinHandle<()>,
}

impl OddServer {
    /// `handler` gets the number of the request, from 0.
    pub(super) async fn start(handler: impl Fn(usize, &Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let handler: Arc<Handler> = Arc::new(handler);
        let task = tokio::spawn({
            let seen = seen.clone();
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, handler.clone(), seen.clone()));
                }
            }
        });
        Self { host, seen, task }
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(super) fn image(&self, rest: &str) -> ImageRef {
        format!("{}/{rest}", self.host).parse().unwrap()
    }
}

impl Drop for OddServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, handler: Arc<Handler>, seen: Arc<Mutex<Vec<Seen>>>) -> Option<()> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let mut lines = text.lines();
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: BTreeMap<_, _> =
        lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    let length: usize = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    while bytes.len() < head + 4 + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let body = String::from_utf8_lossy(&bytes[head + 4..]).into_owned();
    let request = Seen { method, target, headers, body };
    let number = {
        let mut seen = seen.lock().unwrap();
        seen.push(request.clone());
        seen.len() - 1
    };
    match handler(number, &request) {
        Reply::Bytes(bytes) => stream.write_all(&bytes).await.ok()?,
        Reply::Trickle(bytes, pause) => {
            for byte in bytes {
                tokio::time::sleep(pause).await;
                stream.write_all(&[byte]).await.ok()?;
            }
        }
        // Until the client gives up.
        Reply::Silence => while stream.read_buf(&mut bytes).await.ok()? > 0 {},
    }
    stream.shutdown().await.ok()
}

/// One image in the documents of the protocol, for servers that are odd in one thing only.
#[derive(Clone)]
pub(super) struct Documents {
    pub(super) config: String,
    pub(super) manifest: String,
}

impl Documents {
    pub(super) fn new() -> Self {
        let facts = ImageFacts { platform: "linux/amd64".to_owned(), user: "app".to_owned(), ..ImageFacts::default() };
        let config = config_of(&facts).to_string();
        let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": [],
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": sha256(config.as_bytes()), "size": config.len()}});
        Self { config, manifest: manifest.to_string() }
    }

    pub(super) fn digest(&self) -> Digest {
        sha256(self.manifest.as_bytes())
    }

    pub(super) fn manifest_reply(&self) -> Reply {
        reply(200, &[("Content-Type", OCI_MANIFEST), ("Docker-Content-Digest", self.digest().as_str())], &self.manifest)
    }

    /// What a sane registry answers.
    pub(super) fn answer(&self, asked: &Seen) -> Reply {
        match (asked.method.as_str(), asked.target.as_str()) {
            ("GET" | "HEAD", target) if target.contains("/manifests/") => self.manifest_reply().without_body(asked.method == "HEAD"),
            ("GET", target) if target.ends_with(&format!("/blobs/{}", sha256(self.config.as_bytes()))) => reply(200, &[], &self.config),
            _ => reply(404, &[], ""),
        }
    }
}

impl Reply {
    fn without_body(self, yes: bool) -> Self {
        match self {
            Self::Bytes(mut bytes) if yes => {
                let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
                bytes.truncate(end);
                Self::Bytes(bytes)
            }
            other => other,
        }
    }
}

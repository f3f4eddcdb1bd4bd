//! A registry in memory, just enough for an engine to pull one image by digest.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine as _;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use kaleem_core::image::{ImageSource, PinnedImage};

use super::lab::{Pieces, digest};

/// What the registry answers, and what it saw.
pub(crate) struct Registry {
    pub(crate) address: String,
    pub(crate) image: PinnedImage,
    state: Arc<State>,
}

struct State {
    manifest: Vec<u8>,
    pieces: Pieces,
    login: Option<(String, String)>,
    /// How many requests fail with status 500 before it gets well.
    failures: AtomicU32,
    blobs_sent: AtomicU32,
}

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

impl State {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let respond = |status: u16, kind: &str, body: Vec<u8>| {
            let body_digest = digest(&body);
            Response::builder()
                .status(status)
                .header("content-type", kind)
                .header("docker-distribution-api-version", "registry/2.0")
                .header("docker-content-digest", body_digest)
                .header("www-authenticate", "Basic realm=\"lab\"")
                .body(Full::new(Bytes::from(body)))
                .unwrap()
        };
        let refuse = |status, code: &str| {
            let body = serde_json::json!({ "errors": [{ "code": code, "message": code.to_lowercase().replace('_', " ") }] });
            respond(status, "application/json", body.to_string().into_bytes())
        };
        if let Some((user, password)) = &self.login {
            let wanted = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")));
            if request.headers().get("authorization").and_then(|value| value.to_str().ok()) != Some(&wanted) {
                return refuse(401, "UNAUTHORIZED");
            }
        }
        let path = request.uri().path();
        if path == "/v2/" {
            return respond(200, "application/json", b"{}".to_vec());
        }
        if self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return refuse(500, "UNKNOWN");
        }
        if path.ends_with(&format!("/manifests/{}", digest(&self.manifest))) {
            return respond(200, MANIFEST, self.manifest.clone());
        }
        for blob in [&self.pieces.config, &self.pieces.layer] {
            if path.ends_with(&format!("/blobs/{}", digest(blob))) {
                self.blobs_sent.fetch_add(1, Ordering::SeqCst);
                return respond(200, "application/octet-stream", blob.clone());
            }
        }
        refuse(404, "MANIFEST_UNKNOWN")
    }
}

impl Registry {
    /// Serves one image until the test's runtime ends.
    pub(crate) async fn serve(pieces: Pieces, login: Option<(&str, &str)>, failures: u32) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let part = |kind: &str, bytes: &[u8]| {
            let kind = format!("application/vnd.docker.{kind}");
            serde_json::json!({ "mediaType": kind, "size": bytes.len(), "digest": digest(bytes) })
        };
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": part("container.image.v1+json", &pieces.config),
            "layers": [part("image.rootfs.diff.tar", &pieces.layer)],
        });
        let manifest = manifest.to_string().into_bytes();
        let image = PinnedImage {
            image: format!("{address}/kt-docker/remote:1").parse().unwrap(),
            digest: digest(&manifest).parse().unwrap(),
            source: ImageSource::Registry,
        };
        let login = login.map(|(user, password)| (user.to_owned(), password.to_owned()));
        let state = Arc::new(State { manifest, pieces, login, failures: AtomicU32::new(failures), blobs_sent: AtomicU32::new(0) });
        let serving = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&serving);
                let service = service_fn(move |request| {
                    let state = Arc::clone(&state);
                    async move { Ok::<_, Infallible>(state.answer(&request)) }
                });
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, image, state }
    }

    /// How many layers and configurations were fetched.
    pub(crate) fn blobs_sent(&self) -> u32 {
        self.state.blobs_sent.load(Ordering::SeqCst)
    }
}

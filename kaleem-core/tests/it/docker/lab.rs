//! Images for tests of the engine, made here from one small program.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bollard::Docker;
use futures_util::StreamExt as _;
use kaleem_core::image::{ImageSource, PinnedImage};
use kaleem_core::names::ProjectName;
use kaleem_core::registry::Anonymous;
use kaleem_core::runtime::RuntimeError;
use kaleem_core::runtime::docker::{DockerOptions, DockerRuntime};
use kaleem_core::testing::program;
use sha2::Digest as _;
use tokio::sync::OnceCell;

pub(crate) fn variable(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "a test is its own caller")]
    std::env::var(name).ok()
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(sha2::Sha256::digest(bytes)))
}

/// An image in pieces, as a registry or `docker load` wants them.
#[derive(Clone)]
pub(crate) struct Pieces {
    pub(crate) layer: Vec<u8>,
    pub(crate) config: Vec<u8>,
}

pub(crate) fn tar_of(files: &[(&str, &[u8], u32)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content, mode) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(*mode);
        builder.append_data(&mut header, path, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

/// An image with the program as `/app`, and this configuration.
pub(crate) fn pieces(program: &[u8], config: &serde_json::Value) -> Pieces {
    let layer = tar_of(&[("app", program, 0o755)]);
    let whole = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": config,
        "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
    });
    Pieces { layer, config: whole.to_string().into_bytes() }
}

/// A connected engine with the images on it.
pub(crate) struct Lab {
    pub(crate) runtime: DockerRuntime,
    pub(crate) docker: Docker,
    pub(crate) program: Vec<u8>,
    pub(crate) runs: PinnedImage,
    pub(crate) exits: PinnedImage,
    pub(crate) checked: PinnedImage,
    pub(crate) stubborn: PinnedImage,
    pub(crate) eats: PinnedImage,
}

async fn compile() -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("app");
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/program.rs");
    program::compile(&source, &output, variable).await.unwrap();
    std::fs::read(&output).unwrap()
}

pub(crate) async fn load(docker: &Docker, name: &str, program: &[u8], config: &serde_json::Value) -> PinnedImage {
    let pieces = pieces(program, config);
    let tag = format!("kt-docker-{name}:test");
    let manifest = serde_json::json!([{ "Config": "config.json", "RepoTags": [tag], "Layers": ["layer.tar"] }]).to_string();
    let archive = tar_of(&[
        ("manifest.json", manifest.as_bytes(), 0o644),
        ("config.json", &pieces.config, 0o644),
        ("layer.tar", &pieces.layer, 0o644),
    ]);
    let options = bollard::query_parameters::ImportImageOptions::default();
    let mut answers = Box::pin(docker.import_image(options, bollard::body_full(archive.into()), None));
    while let Some(answer) = answers.next().await {
        answer.unwrap();
    }
    let digest = digest(&pieces.config).parse().unwrap();
    PinnedImage { image: tag.parse().unwrap(), digest, source: ImageSource::Local }
}

pub(crate) fn options(endpoint: Option<&str>) -> DockerOptions {
    DockerOptions {
        endpoint: endpoint.map(str::to_owned),
        rootless_socket: None,
        credentials: Arc::new(Anonymous),
        answer_timeout: Duration::from_secs(60),
    }
}

async fn build() -> Option<Lab> {
    let runtime = match DockerRuntime::connect(&options(variable("DOCKER_HOST").as_deref())).await {
        Ok(runtime) => runtime,
        Err(error @ (RuntimeError::Unreachable { .. } | RuntimeError::PermissionDenied { .. })) => {
            assert!(variable("CI").is_none(), "no Docker engine for the tests: {error}");
            println!("skipped: {error}");
            return None;
        }
        Err(error) => panic!("{}", kaleem_core::remedy::one_line(&error)),
    };
    let docker = match variable("DOCKER_HOST") {
        Some(host) => Docker::connect_with_host(&host).unwrap(),
        None => Docker::connect_with_unix_defaults().unwrap(),
    };
    let program = compile().await;
    let check = serde_json::json!({ "Test": ["CMD", "/app", "healthy"], "Interval": 300_000_000, "Retries": 1 });
    let config = |mode: &str| serde_json::json!({ "Entrypoint": ["/app"], "Cmd": [mode], "Env": ["FROM_IMAGE=1"] });
    let mut checked = config("run");
    checked["Healthcheck"] = check;
    Some(Lab {
        runs: load(&docker, "runs", &program, &config("run")).await,
        exits: load(&docker, "exits", &program, &config("exit")).await,
        stubborn: load(&docker, "stubborn", &program, &config("stay")).await,
        eats: load(&docker, "eats", &program, &config("eat")).await,
        checked: load(&docker, "checked", &program, &checked).await,
        runtime,
        docker,
        program,
    })
}

/// The engine, if there is one; the skip is printed. The program and its images are made once a run.
pub(crate) async fn lab() -> Option<&'static Lab> {
    static LAB: OnceCell<Option<Lab>> = OnceCell::const_new();
    LAB.get_or_init(build).await.as_ref()
}

/// A project that no other test and no other run uses.
pub(crate) fn project(name: &str) -> ProjectName {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("kt-docker-{}-{}-{name}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)).parse().unwrap()
}

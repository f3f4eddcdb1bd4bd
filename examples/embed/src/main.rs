//! How a Rust program deploys a Compose project: the crates do the work, the program decides what is shown.
//!
//! `cargo run -p embed -- examples/shop` deploys the project in that directory, with its state below `/tmp/kaleem-embed`.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use kaleem_core::clock::SystemClock;
use kaleem_core::config::{self, LoadOptions};
use kaleem_core::engine::{Ending, Notice};
use kaleem_core::kaleem::Kaleem;
use kaleem_core::outcome::Outcome;
use kaleem_core::registry::Anonymous;
use kaleem_core::registry::oci::{OciOptions, OciRegistry};
use kaleem_core::runtime::docker::{DockerOptions, DockerRuntime};
use kaleem_health::StandardProbes;

#[tokio::main]
#[expect(clippy::print_stderr, reason = "the example shows its error")]
async fn main() -> ExitCode {
    let directory = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("examples/shop"), PathBuf::from);
    match deploy(directory).await {
        Ok(code) => code,
        Err(error) => {
            for text in kaleem_core::remedy::chain(error.as_ref()) {
                eprintln!("{text}");
            }
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "the example shows what happens")]
async fn deploy(directory: PathBuf) -> Result<ExitCode, Box<dyn Error>> {
    // 1. The project: read, checked and resolved. The library looks at no environment of its own.
    let project = config::load(&LoadOptions {
        directory,
        files: Vec::new(),
        env_files: Vec::new(),
        environment: BTreeMap::new(),
        profiles: Vec::new(),
        project_name: None,
        settings_file: None,
    })?;

    // 2. The parts: an engine, registries, probes. Each is a trait; a program may bring its own.
    let credentials = Arc::new(Anonymous);
    let answer_timeout = Duration::from_secs(30);
    let options = DockerOptions { endpoint: None, rootless_socket: None, credentials: credentials.clone(), answer_timeout };
    let runtime = Arc::new(DockerRuntime::connect(&options).await?);
    let registry = Arc::new(OciRegistry::new(OciOptions {
        credentials,
        clock: Arc::new(SystemClock),
        plain_http: Vec::new(),
        timeout: Duration::from_secs(30),
        attempts: 3,
        extra_root_certificates: None,
        https_proxy: None,
    })?);
    let probes = Arc::new(StandardProbes::new(runtime.clone()));
    let kaleem = Kaleem::builder(runtime, registry, probes).state_directory("/tmp/kaleem-embed").owner("the embed example").build();

    // 3. The work: a lease, a plan, a run. What happens comes as a stream.
    let work = kaleem.work(&project.name).await?;
    let planned = kaleem.deploy_plan(&work, &project, &BTreeMap::new()).await?;
    if planned.plan.is_empty() {
        println!("nothing to do");
        return Ok(ExitCode::SUCCESS);
    }
    let mut run = kaleem.start(work, &planned)?;
    while let Some(notice) = run.next().await {
        match notice {
            Notice::Started { step, what } => println!("{:2} {what}", step + 1),
            Notice::Failed { error, .. } => println!("   failed: {error}"),
            Notice::Undoing { what, .. } => println!("   taking back: {what}"),
            _ => {}
        }
    }
    match run.finish().await? {
        Ending::Over(Outcome::Deployed { release, .. }) => {
            println!("{release} serves");
            Ok(ExitCode::SUCCESS)
        }
        other => {
            println!("{other:?}");
            Ok(ExitCode::FAILURE)
        }
    }
}

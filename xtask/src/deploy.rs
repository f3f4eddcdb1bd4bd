//! Deploys a Compose project with the crates as a library: no `kaleem` binary takes part.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kaleem_core::clock::SystemClock;
use kaleem_core::config::{self, LoadOptions};
use kaleem_core::engine::{Ending, GatewayControl, Notice};
use kaleem_core::image::ImageRef;
use kaleem_core::kaleem::{GatewayParts, Kaleem, Run};
use kaleem_core::names::ServiceName;
use kaleem_core::outcome::Outcome;
use kaleem_core::registry::PullCredentials;
use kaleem_core::registry::oci::{DockerConfig, OciOptions, OciRegistry};
use kaleem_core::remedy::chain;
use kaleem_core::runtime::docker::{DockerOptions, DockerRuntime};
use kaleem_core::state::gateway_directory;
use kaleem_core::traffic::SocketTraffic;
use kaleem_health::StandardProbes;

use crate::fail::TaskError;
use crate::place::{self, Place};
use crate::say;

/// Time that the engine and registries have for one answer.
const ANSWER: Duration = Duration::from_secs(30);

/// User and group of gateways: the `nobody` of images without users.
const GATEWAY_USER: (u32, u32) = (65532, 65532);

/// Deploys the project in `directory`; `images` are of the form `SERVICE=IMAGE`.
pub(crate) fn run(place: &Place, directory: &Path, state: Option<PathBuf>, images: &[String]) -> Result<(), TaskError> {
    let runtime = tokio::runtime::Runtime::new().map_err(|source| TaskError::Start { program: "an async runtime".to_owned(), source })?;
    let state = state.unwrap_or_else(|| place.tools.join("state"));
    let outcome = runtime.block_on(deploy(directory, &state, images));
    outcome.map_err(|error| TaskError::Unexpected { what: chain(error.as_ref()).join(": ") })
}

async fn deploy(directory: &Path, state: &Path, images: &[String]) -> Result<(), Box<dyn Error>> {
    let environment = place::environment();
    let project = config::load(&LoadOptions {
        directory: directory.to_path_buf(),
        files: Vec::new(),
        env_files: Vec::new(),
        environment: environment.clone(),
        profiles: Vec::new(),
        project_name: None,
        settings_file: None,
    })?;
    let kaleem = connect(&environment, state).await?;
    let work = kaleem.work(&project.name).await?;
    if let Some(plan) = work.interrupted() {
        say::line(&format!("the plan {} was interrupted: going on with it", plan.id));
        follow(kaleem.resume(work)?).await?;
    } else {
        drop(work);
    }
    let work = kaleem.work(&project.name).await?;
    let planned = kaleem.deploy_plan(&work, &project, &choices(images)?).await?;
    if planned.plan.is_empty() {
        say::line("nothing to do");
        return Ok(());
    }
    follow(kaleem.start(work, &planned)?).await
}

pub(crate) async fn connect(environment: &BTreeMap<String, String>, state: &Path) -> Result<Kaleem, Box<dyn Error>> {
    let home = environment.get("HOME").map_or("/root", String::as_str);
    let logins = environment.get("DOCKER_CONFIG").map_or_else(|| Path::new(home).join(".docker"), PathBuf::from);
    let credentials: Arc<dyn PullCredentials> = Arc::new(DockerConfig::new(logins.join("config.json"), environment.clone()));
    let endpoint = environment.get("DOCKER_HOST").cloned();
    let options = DockerOptions { endpoint, rootless_socket: None, credentials: credentials.clone(), answer_timeout: ANSWER };
    let runtime = Arc::new(DockerRuntime::connect(&options).await?);
    let registry = Arc::new(OciRegistry::new(OciOptions {
        credentials,
        clock: Arc::new(SystemClock),
        plain_http: Vec::new(),
        timeout: ANSWER,
        attempts: 3,
        extra_root_certificates: None,
        https_proxy: None,
    })?);
    let probes = Arc::new(StandardProbes::new(runtime.clone()));
    let builder = Kaleem::builder(runtime, registry, probes).state_directory(state).owner("cargo xtask deploy");
    let Some(program) = environment.get("KALEEM_AGENT") else { return Ok(builder.build()) };
    let directory = gateway_directory(state);
    let control = GatewayControl { traffic: Arc::new(SocketTraffic::new(&directory)), directory, user: GATEWAY_USER };
    Ok(builder.gateways(GatewayParts { control, program: PathBuf::from(program) }).build())
}

fn choices(images: &[String]) -> Result<BTreeMap<ServiceName, ImageRef>, Box<dyn Error>> {
    let mut chosen = BTreeMap::new();
    for text in images {
        let (service, image) = text.split_once('=').ok_or_else(|| format!("`{text}` is not of the form SERVICE=IMAGE"))?;
        chosen.insert(service.parse::<ServiceName>()?, image.parse::<ImageRef>()?);
    }
    Ok(chosen)
}

async fn follow(mut run: Run) -> Result<(), Box<dyn Error>> {
    while let Some(notice) = run.notices.recv().await {
        match notice {
            Notice::Started { what, .. } => say::line(&format!("  {what}")),
            Notice::Failed { error, .. } => say::warning(&error),
            Notice::Undoing { what, .. } => say::line(&format!("  taking back: {what}")),
            _ => {}
        }
    }
    match run.finish().await? {
        Ending::Over(Outcome::Deployed { release, .. }) => {
            say::line(&format!("{release} serves"));
            Ok(())
        }
        Ending::Over(outcome) => Err(format!("the release did not reach its end: {outcome:?}").into()),
        Ending::Left => Err("it was left open; run the same task again".into()),
        Ending::Stuck { error, commands, .. } => Err(format!("stuck: {error}; type: {}", commands.join("; ")).into()),
    }
}

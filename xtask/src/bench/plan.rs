//! What `kaleem plan` costs beside the answers that it waits for.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use kaleem_core::clock::{Clock, SystemClock};
use kaleem_core::config::{self, LoadOptions};
use kaleem_core::names::{PlanId, ReleaseId};
use kaleem_core::observed::owner::{Ownership, Standing};
use kaleem_core::observed::{HostQuestions, observe_host, observe_images};
use kaleem_core::remedy::chain;

use super::median;
use crate::demo::{Shop, kaleem_as_shipped};
use crate::deploy::connect;
use crate::fail::TaskError;
use crate::place::{self, Place};
use crate::say;
use crate::setup::{self, Consent, Need};

/// Services of the project that is planned, and those of them that get a gateway.
const SERVICES: usize = 30;
const ROUTED: usize = 16;

/// Plans the first deploy of a project of thirty services that Compose runs, many times, and asks the same questions without planning, in turn.
pub(crate) fn run(place: &Place, consent: Consent, runs: usize, program: Option<PathBuf>) -> Result<(), TaskError> {
    let parts = setup::run(place, consent, Need::Tests)?;
    let program = kaleem_as_shipped(place, program)?;
    let shop = Shop::new(place, &parts, "kaleem-bench-plan", &program)?;
    let mut text = String::from("services:\n");
    for number in 0..SERVICES {
        let image = parts.image(if number % 2 == 0 { "shop:v1" } else { "shop:v2" });
        let rest = if number < ROUTED { "expose: [\"3000\"]" } else { "command: [\"worker\"]" };
        // Writing to a string cannot fail.
        writeln!(text, "  s{number}:\n    image: {image}\n    {rest}").ok();
    }
    place::write(&shop.directory().join("compose.yaml"), &text)?;
    place::write(&shop.directory().join("kaleem.toml"), "keep = 5\n")?;
    let runtime = tokio::runtime::Runtime::new().map_err(|source| TaskError::Start { program: "an async runtime".to_owned(), source })?;
    say::step(&format!("{SERVICES} containers by Compose, not measured"));
    shop.compose(&["up", "--detach"]).quiet().run()?;
    let begun = SystemClock.now().as_second();
    let (mut whole, mut answers, mut peak) = (Vec::new(), Vec::new(), 0);
    for index in 1..=runs {
        let measured = shop.kaleem(&["plan"]).quiet().measure()?;
        if !measured.status.success() {
            return Err(TaskError::Unexpected { what: format!("`kaleem plan` failed ({})", measured.status) });
        }
        whole.push(measured.took.as_secs_f64() * 1000.0);
        peak = peak.max(measured.peak_bytes);
        let asked = runtime.block_on(ask(&shop));
        answers.push(
            asked.map_err(|error| TaskError::Unexpected { what: format!("{index}: {}", chain(error.as_ref()).join(": ")) })? * 1000.0,
        );
    }
    let commands = commands_since(&shop, begun)?;
    shop.clean()?;
    let own: Vec<f64> = whole.iter().zip(&answers).map(|(whole, answers)| whole - answers).collect();
    let row = |name: &str, values: &[f64]| {
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        vec![
            name.to_owned(),
            format!("{:.1}", median(values)),
            format!("{least:.1}"),
            format!("{:.1}", values.iter().copied().fold(0.0, f64::max)),
        ]
    };
    let heading = ["", "median ms", "min ms", "max ms"].map(str::to_owned).to_vec();
    say::table(&[heading, row("kaleem plan", &whole), row("the same questions alone", &answers), row("beside the answers", &own)]);
    let peak = peak / 1024 / 1024;
    say::line(&format!(
        "{SERVICES} services, {ROUTED} of them with a gateway, {runs} runs, peak memory {peak} MiB, {commands} commands run in containers"
    ));
    Ok(())
}

/// Commands that were started in containers of the project since that second.
fn commands_since(shop: &Shop<'_>, second: i64) -> Result<usize, TaskError> {
    let project = format!("label=com.docker.compose.project={}", shop.name());
    let (since, until) = (second.to_string(), SystemClock.now().as_second().saturating_add(1).to_string());
    let events = ["events", "--since", &since, "--until", &until, "--filter", "event=exec_create", "--filter", &project];
    Ok(shop.docker(&events).output()?.lines().count())
}

/// Seconds that engine and registry take for the questions of a plan.
async fn ask(shop: &Shop<'_>) -> Result<f64, Box<dyn std::error::Error>> {
    let environment: BTreeMap<String, String> = place::environment();
    let project = config::load(&LoadOptions {
        directory: shop.directory().to_path_buf(),
        files: Vec::new(),
        env_files: Vec::new(),
        environment: environment.clone(),
        profiles: Vec::new(),
        project_name: Some(shop.name().parse()?),
        settings_file: None,
    })?;
    let begun = SystemClock.monotonic();
    let kaleem = connect(&environment, &shop.directory().join("state")).await?;
    let engine = kaleem.runtime().engine().await?;
    observe_images(kaleem.runtime(), kaleem.registry(), &project, &BTreeMap::new(), &engine, None).await?;
    let questions = HostQuestions {
        project: project.name.clone(),
        networks: project.networks.values().map(|network| network.name.clone()).collect(),
        volumes: Vec::new(),
        container_names: Vec::new(),
        wanted: BTreeMap::new(),
        image_ids: BTreeMap::new(),
        old_pins: Vec::new(),
        gateways: BTreeMap::new(),
        routed: BTreeMap::new(),
        wanted_gateways: BTreeMap::new(),
        ownership: Ownership {
            standing: Standing::Free,
            plan: PlanId(0),
            release: ReleaseId::new(0),
            identity: None,
            routing: BTreeMap::new(),
        },
    };
    observe_host(kaleem.runtime(), engine, &questions, Vec::new(), None).await?;
    Ok(SystemClock.monotonic().saturating_sub(begun).as_secs_f64())
}

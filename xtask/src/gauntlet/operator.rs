//! What an operator does with a project that Compose runs already: takes it over, deploys, goes back, changes it, breaks it, gives it back.
//!
//! The program is driven from outside, as a person drives it. Every request at every door is counted, and every line that says what is
//! live is compared with what the doors answer.

mod images;
mod traffic;
mod project;
mod claims;
mod scene;
mod stage;
mod acts;
mod report;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kaleem_core::clock::{Clock, SystemClock};

use crate::chance::Seed;
use crate::demo::{build_static_agent, kaleem, static_agent};
use crate::fail::TaskError;
use crate::gauntlet::operator::images::Images;
use crate::gauntlet::operator::project::Project;
use crate::gauntlet::operator::scene::{Row, Scene};
use crate::gauntlet::operator::stage::{Pace, Stage};
use crate::gauntlet::{Choices, Form, MOST_REFUSED};
use crate::place::Place;
use crate::say;
use crate::setup::Parts;

const NAME: &str = "kaleem-operator";
/// Take-overs of the long form: one is luck.
const TAKE_OVERS: usize = 3;

/// Plays the scenes.
pub(super) fn run(place: &Place, parts: &Parts, choices: Choices) -> Result<(), TaskError> {
    if !rustix::process::geteuid().is_root() {
        return Err(TaskError::Missing {
            what: "root, to send requests from inside a container's network".to_owned(),
            install: "run `cargo xtask gauntlet --operator` as root".to_owned(),
        });
    }
    let program = kaleem(place, choices.kaleem)?;
    if !static_agent(place).is_file() {
        build_static_agent(place)?;
    }
    let number = choices.seed.unwrap_or_else(Seed::fresh);
    // Docker asks the API's health as often as the projects do that this one is like; the short form is for people who wait.
    let (interval, per_second, around) = match choices.form {
        Form::Short => ("2s", 40, Duration::from_secs(2)),
        Form::Long => ("30s", 100, Duration::from_secs(3)),
    };
    say::step(&format!("operator's scenes, seed {number}, {per_second} requests a second at each of five doors"));
    let images = Images::ensure(place, parts, interval)?;
    if images.newer_nginx.is_none() {
        say::warning("no nginx that knows `resolve` can be had here: the zone's nginx has a resolver and a variable instead");
    }
    let project = Project::new(place, parts, &program, &images, NAME)?;
    let interrupted = listen();
    let mut stage = Stage::new(&project, Pace { per_second, around, seed: Seed::new(number) }, interrupted);
    let mut rows = Vec::new();
    let played = scenes(choices.form, choices.only.as_deref()).into_iter().try_for_each(|scene| {
        rows.push(stage.play(scene)?);
        Ok(())
    });
    let cleaned = project.clean();
    report::show(&rows);
    say::line(&format!("what every command printed: {}", project.log().display()));
    played?;
    cleaned?;
    if choices.document {
        report::write_document(place, &rows, &preface(&rows, number, per_second))?;
    }
    judge(&rows)
}

fn scenes(form: Form, only: Option<&str>) -> Vec<Scene> {
    let mut scenes = Scene::ALL.to_vec();
    if form == Form::Long {
        scenes.extend([Scene::Eject, Scene::TakeOver].into_iter().cycle().skip(1).take(2 * (TAKE_OVERS - 1) - 1));
    }
    scenes.retain(|scene| only.is_none_or(|only| scene.title().contains(only)));
    scenes
}

fn judge(rows: &[Row]) -> Result<(), TaskError> {
    let bad = rows.iter().filter(|row| !row.all_faults().is_empty()).count();
    let measured = report::taken_over(rows);
    if let Some(measured) = measured {
        say::line(&turned_away(measured));
    }
    let refused = measured.filter(|(median, _)| *median > MOST_REFUSED);
    if bad == 0 && refused.is_none() {
        say::line("every scene was as it must be");
        return Ok(());
    }
    let late = refused.map_or_else(String::new, |refused| format!("; {}", turned_away(refused)));
    Err(TaskError::Unexpected { what: format!("{bad} of {} scenes were not as they must be{late}", rows.len()) })
}

/// Becomes true at Ctrl-C; what runs is ended by it as well, and everything is removed then.
fn listen() -> Arc<AtomicBool> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&interrupted);
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        while runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            told.store(true, Ordering::Relaxed);
            say::warning("interrupted: removing what was made");
        }
    });
    interrupted
}

fn preface(rows: &[Row], seed: u64, per_second: u32) -> String {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let day = SystemClock.now().to_string();
    let day = day.split('T').next().unwrap_or_default();
    let over = report::taken_over(rows).map_or_else(String::new, |refused| format!(" {}.", turned_away(refused)));
    format!(
        "Measured on {day} with `cargo xtask gauntlet --operator --document --seed {seed}`, at {per_second} requests a second at each of five doors, \
         on {cores} cores that the load, the proxies, the stores and the API share.{over}"
    )
}

fn turned_away((median, worst): (Duration, Duration)) -> String {
    format!(
        "Take-overs turned requests away for {} ms at the median of all doors, and for {} ms at the worst",
        median.as_millis(),
        worst.as_millis()
    )
}

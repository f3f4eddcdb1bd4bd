//! The gauntlet: everything that happens to a service in its life, while a load generator counts every request and every byte.
//!
//! The same load and the same scenarios run against kaleem and against what people do without it. For kaleem there is a bar: nothing
//! that was planned may cost a request.

mod contender;
mod document;
mod engine;
mod remains;
mod field;
mod flows;
mod load;
mod report;
mod scenario;
mod tally;
mod wire;
mod operator;

use std::path::{Path, PathBuf};
use std::time::Duration;

use kaleem_core::clock::{Clock, SystemClock};

use crate::chance::Seed;
use crate::demo::{kaleem, kaleem_as_shipped};
use crate::fail::TaskError;
use crate::gauntlet::contender::Contender;
use crate::gauntlet::engine::Engine;
use crate::gauntlet::field::{Field, Layout};
use crate::gauntlet::scenario::{Act, Row, Stage};
use crate::place::Place;
use crate::say;
use crate::setup::{self, Consent, Parts};

/// Fewer requests a second would not be a load.
const LEAST_PER_SECOND: f64 = 500.0;
/// An answer around a switch may take this many times as long as when nothing happens.
const MOST_AT_SWITCH: f64 = 2.0;

/// The ports of a project that Compose runs are refused for this long at most, at the median, when it gets its gateways.
const MOST_REFUSED: Duration = Duration::from_millis(300);

/// Load before and after what is done.
const AROUND: Duration = Duration::from_secs(3);
/// The same in the short form, whose time somebody waits for.
const AROUND_SHORT: Duration = Duration::from_secs(1);

/// How much is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// kaleem alone, in a few minutes.
    Short,
    /// Everything, and the peers.
    Long,
}

/// Which scenes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Set {
    /// Deploys, kills and upgrades of one service, with kaleem and its peers.
    Service,
    /// What an operator does with a whole project that Compose runs already.
    Operator,
}

/// What a person may choose.
#[derive(Clone, Debug)]
pub(crate) struct Choices {
    /// Which scenes.
    pub set: Set,
    /// How much is tried.
    pub form: Form,
    /// Where chance begins.
    pub seed: Option<u64>,
    /// Whether the result goes into the documents.
    pub document: bool,
    /// Only scenarios with this in their title.
    pub only: Option<String>,
    /// This program instead of one that is built now.
    pub kaleem: Option<PathBuf>,
}

/// Sets up and runs it.
pub(crate) fn run(place: &Place, consent: Consent, choices: Choices) -> Result<(), TaskError> {
    let parts = setup::run(place, consent, setup::Need::Tests)?;
    run_with(place, &parts, choices)
}

/// Runs it with what is set up.
pub(crate) fn run_with(place: &Place, parts: &Parts, choices: Choices) -> Result<(), TaskError> {
    match choices.set {
        Set::Service => service(place, parts, choices),
        Set::Operator => operator::run(place, parts, choices),
    }
}

fn service(place: &Place, parts: &Parts, choices: Choices) -> Result<(), TaskError> {
    // Figures for the document are those of the program as it ships.
    let program = match choices.form {
        Form::Short => kaleem(place, choices.kaleem)?,
        Form::Long => kaleem_as_shipped(place, choices.kaleem)?,
    };
    let number = choices.seed.unwrap_or_else(|| SystemClock.now().as_nanosecond().unsigned_abs() as u64 % 1_000_000);
    say::step(&format!("gauntlet, seed {number} (`--seed {number}` repeats it)"));
    let seed = Seed::new(number);
    let around = if choices.form == Form::Short { AROUND_SHORT } else { AROUND };
    let lab = Lab { place, parts, program: &program, seed, around, only: choices.only };
    let mut rows = lab.kaleem(choices.form)?;
    if choices.form == Form::Long {
        rows.extend(lab.peer(Contender::Compose, Layout::Unchanged)?);
        rows.extend(lab.peer(Contender::ScaleAndReload, Layout::BehindNginx)?);
        rows.extend(lab.restarts()?);
    }
    report::show(&rows);
    for contender in [Contender::Kaleem, Contender::Compose, Contender::ScaleAndReload] {
        if rows.iter().any(|row| row.contender == contender) {
            say::line(&report::sums(&rows, contender));
        }
    }
    let faults = judge(&rows, choices.form);
    if choices.document {
        report::write_document(place, &rows, &preface(&rows, number))?;
    }
    if faults.is_empty() {
        say::line("nothing that was planned cost a request");
        return Ok(());
    }
    Err(TaskError::Unexpected { what: format!("the gauntlet did not go as it must: {}", faults.join("; ")) })
}

/// What all contenders need.
struct Lab<'a> {
    place: &'a Place,
    parts: &'a Parts,
    program: &'a Path,
    seed: Seed,
    /// Load before and after each scenario.
    around: Duration,
    /// Only scenarios with this in their title.
    only: Option<String>,
}

impl Lab<'_> {
    fn plays(&self, act: Act) -> bool {
        self.only.as_ref().is_none_or(|only| act.title().contains(only.as_str()))
    }

    fn kaleem(&self, form: Form) -> Result<Vec<Row>, TaskError> {
        let acts: &[Act] = match form {
            Form::Short => &[
                Act::Steady(Duration::from_secs(4)),
                Act::Deploys(2),
                Act::BadDeploys(1),
                Act::Rollback,
                Act::GatewayUpgrade(1),
                Act::Held(1),
                Act::GoesBad,
                Act::KillInstance,
                Act::KillGateway,
                Act::TakeOver,
            ],
            Form::Long => &[
                Act::Steady(Duration::from_secs(30)),
                Act::Deploys(20),
                Act::BadDeploys(5),
                Act::Rollback,
                Act::GatewayUpgrade(3),
                Act::Held(5),
                Act::IgnoresSigterm,
                Act::ClosesConnections,
                Act::GoesBad,
                Act::KillInstance,
                Act::KillGateway,
                Act::TakeOver,
                Act::TakeOver,
                Act::TakeOver,
                Act::TakeOver,
                Act::TakeOver,
            ],
        };
        let field = Field::new(self.place, self.parts, self.program, "kaleem-gauntlet", Layout::Unchanged, None)?;
        let mut rows = self.play(Contender::Kaleem, &field, acts)?;
        let field = Field::new(self.place, self.parts, self.program, "kaleem-gauntlet-turns", Layout::Replicas, None)?;
        let turns = if form == Form::Short { 1 } else { 5 };
        rows.extend(self.play(Contender::Kaleem, &field, &[Act::Turns(turns)])?);
        Ok(rows)
    }

    fn peer(&self, contender: Contender, layout: Layout) -> Result<Vec<Row>, TaskError> {
        let name = if contender == Contender::Compose { "kaleem-gauntlet-compose" } else { "kaleem-gauntlet-scale" };
        let field = Field::new(self.place, self.parts, self.program, name, layout, None)?;
        let acts = [
            Act::Steady(Duration::from_secs(10)),
            Act::Deploys(5),
            Act::BadDeploys(2),
            Act::Rollback,
            Act::IgnoresSigterm,
            Act::ClosesConnections,
            Act::GoesBad,
            Act::KillInstance,
        ];
        self.play(contender, &field, &acts)
    }

    fn play(&self, contender: Contender, field: &Field<'_>, acts: &[Act]) -> Result<Vec<Row>, TaskError> {
        let acts: Vec<Act> = acts.iter().copied().filter(|act| self.plays(*act)).collect();
        if acts.is_empty() {
            return Ok(Vec::new());
        }
        let outcome = Stage::set(contender, field, None, self.seed, self.around)
            .and_then(|mut stage| acts.into_iter().map(|act| stage.play(act)).collect::<Result<Vec<Row>, TaskError>>());
        let cleaned = field.clean();
        let rows = outcome?;
        cleaned?;
        Ok(rows)
    }

    /// An engine of its own, once with kaleem and once with Compose.
    fn restarts(&self) -> Result<Vec<Row>, TaskError> {
        let mut rows = Vec::new();
        if !self.plays(Act::RestartEngine) {
            return Ok(rows);
        }
        for contender in [Contender::Kaleem, Contender::Compose] {
            let mut engine = Engine::start(self.place)?;
            let name = if contender == Contender::Kaleem { "kaleem-gauntlet-own" } else { "kaleem-gauntlet-own-compose" };
            let field = Field::new(self.place, self.parts, self.program, name, Layout::Unchanged, Some(engine.endpoint()))?;
            let outcome = Stage::set(contender, &field, Some(&mut engine), self.seed, self.around)
                .and_then(|mut stage| stage.play(Act::RestartEngine));
            let cleaned = field.clean();
            rows.push(outcome?);
            cleaned?;
        }
        Ok(rows)
    }
}

fn judge(rows: &[Row], form: Form) -> Vec<String> {
    let own = || rows.iter().filter(|row| row.contender == Contender::Kaleem);
    let mut faults: Vec<String> = own().flat_map(Row::faults).collect();
    let steady = own().find(|row| matches!(row.act, Act::Steady(_))).map(|row| row.tally.per_second());
    // The short form is for a machine that is busy with other things; what fails must be nothing all the same.
    if form == Form::Long {
        if let Some(slow) = steady.filter(|per_second| *per_second < LEAST_PER_SECOND) {
            faults.push(format!("only {slow:.0} requests a second were sent"));
        }
        if let Some((steady, switch)) = report::at_the_switch(rows)
            && switch > steady.mul_f64(MOST_AT_SWITCH)
        {
            faults.push(format!("99 of 100 answers took {switch:?} around a switch, and {steady:?} otherwise"));
        }
        if let Some(refused) = report::taken_over(rows).filter(|refused| *refused > MOST_REFUSED) {
            faults.push(format!("the published port turned requests away for {refused:?} when it was taken over from Compose"));
        }
    }
    faults
}

fn preface(rows: &[Row], seed: u64) -> String {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let steady = rows.iter().find(|row| matches!(row.act, Act::Steady(_))).map_or(0.0, |row| row.tally.per_second());
    let day = SystemClock.now().to_string();
    let day = day.split('T').next().unwrap_or_default();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').nth(2).unwrap_or("?");
    let ratio = report::at_the_switch(rows).map_or_else(String::new, |(steady, switch)| {
        format!(
            " Around a switch 99 of 100 small answers came within {:.1} ms, and within {:.1} ms when nothing happened.",
            switch.as_secs_f64() * 1000.0,
            steady.as_secs_f64() * 1000.0
        )
    });
    let back = rows.iter().filter_map(|row| row.switched_back).max().map_or_else(String::new, |time| {
        format!(" The old instances were sent to again {} ms after the verdict of a watch, at most.", time.as_millis())
    });
    let over = report::taken_over(rows).map_or_else(String::new, |time| {
        format!(
            " When the project was taken over from Compose, its published port turned requests away for {} ms, at the median.",
            time.as_millis()
        )
    });
    format!(
        "Measured on {day} with `cargo xtask gauntlet --document --seed {seed}`, at {steady:.0} requests a second, on {cores} cores that the load, \
         the app, nginx and the gateway share with other work of the machine (load average over 15 minutes: {load}).{ratio}{back}{over}"
    )
}

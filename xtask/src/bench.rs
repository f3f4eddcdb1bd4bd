//! Measurements of kaleem against what it replaces: in turn, so that a slow minute of the machine hits both.

pub(crate) mod backup;
pub(crate) mod plan;
pub(crate) mod gateway;
pub(crate) mod health;
mod steps;

use std::path::PathBuf;
use std::time::Duration;

use kaleem_core::clock::{Clock, SystemClock};

use crate::bench::steps::{Steps, timed};
use crate::demo::{Shop, kaleem_as_shipped};
use crate::fail::TaskError;
use crate::load::{Load, Slice};
use crate::place::Place;
use crate::programs::{Measured, Program, wait_until};
use crate::say;
use crate::setup::{self, Consent, Need};

const CLIENTS: usize = 4;

/// Whether requests are sent while a deploy is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// Yes; those that fail are counted.
    Flows,
    /// No.
    None,
}

/// What one contender did.
struct Contender {
    name: &'static str,
    runs: Vec<Measured>,
    /// Seconds from the start of the command until the new version answered.
    served: Vec<f64>,
    load: Vec<Slice>,
    /// Where the time goes, for what keeps a journal.
    steps: Steps,
}

/// Deploys `v1` and `v2` of the shop in turn with both programs, each in a project of its own.
pub(crate) fn deploy(
    place: &Place,
    consent: Consent,
    pairs: usize,
    traffic: Traffic,
    program: Option<PathBuf>,
    compose: Option<PathBuf>,
) -> Result<(), TaskError> {
    let mut parts = setup::run(place, consent, Need::Tests)?;
    if let Some(compose) = compose {
        parts.compose_oracle = compose;
    }
    let parts = parts;
    let program = kaleem_as_shipped(place, program)?;
    let shop = |name| Shop::new(place, &parts, name, &program);
    let (ours, theirs) = (shop("kaleem-bench-a")?, shop("kaleem-bench-b")?);
    // Compose asks nothing and watches nothing: the least that kaleem can be told to ask is compared with it.
    ours.add_setting("services.api", "watch = \"0s\"")?;
    ours.replace_setting("passes = 2", "passes = 1")?;
    let version = |index: usize| if index.is_multiple_of(2) { "v1" } else { "v2" };
    let image = |index: usize| parts.image(&format!("shop:{}", version(index)));
    let measure = || {
        say::step("first deploys, not measured");
        ours.kaleem(&["deploy"]).run()?;
        theirs.compose(&["up", "--detach"]).run()?;
        let mut contenders = [Contender::new("kaleem deploy"), Contender::new("docker compose up -d --no-deps api")];
        for index in 1..=pairs {
            let deploys =
                [(&ours, ours.kaleem(&["deploy", "--allow-older"])), (&theirs, theirs.compose(&["up", "--detach", "--no-deps", "api"]))];
            for (contender, (shop, program)) in contenders.iter_mut().zip(deploys) {
                say::step(&format!("{index}/{pairs}: {}", contender.name));
                contender.run(program.env("SHOP_API_IMAGE", image(index)), shop, version(index), traffic)?;
            }
        }
        Ok(contenders)
    };
    let outcome = measure();
    ours.clean()?;
    theirs.clean()?;
    report(&outcome?);
    Ok(())
}

impl Contender {
    fn new(name: &'static str) -> Self {
        Self { name, runs: Vec::new(), served: Vec::new(), load: Vec::new(), steps: Steps::default() }
    }

    fn run(&mut self, program: Program, shop: &Shop<'_>, version: &str, traffic: Traffic) -> Result<(), TaskError> {
        let load = match traffic {
            Traffic::Flows => Some(Load::start(shop.address(), CLIENTS, &format!("bench-{}", self.runs.len()))?),
            Traffic::None => None,
        };
        let start = SystemClock.monotonic();
        let plans = shop.plans();
        let measured = if plans.is_dir() { timed(&mut self.steps, &plans, || program.measure())? } else { program.measure()? };
        // A command may end before the new version serves: that time, and what fails in it, belongs to the deploy.
        let answers = wait_until(Duration::from_secs(30), || shop.version().is_ok_and(|serves| serves == version));
        self.served.push(SystemClock.monotonic().saturating_sub(start).as_secs_f64());
        self.load.extend(load.map(Load::stop));
        if !measured.status.success() || !answers {
            return Err(TaskError::Unexpected {
                what: format!("`{}` failed ({}), or nothing serves after it", self.name, measured.status),
            });
        }
        self.runs.push(measured);
        Ok(())
    }

    fn seconds(&self) -> Vec<f64> {
        self.runs.iter().map(|run| run.took.as_secs_f64()).collect()
    }

    fn row(&self) -> Vec<String> {
        let seconds = self.seconds();
        let peak = self.runs.iter().map(|run| run.peak_bytes).max().unwrap_or(0);
        let sum = |count: fn(&Slice) -> u64| self.load.iter().map(count).sum::<u64>();
        let mut row = vec![self.name.to_owned(), format!("{:.2}", median(&seconds))];
        row.push(format!("{:.2}", seconds.iter().copied().fold(f64::INFINITY, f64::min)));
        row.push(format!("{:.2}", seconds.iter().copied().fold(0.0, f64::max)));
        row.push(format!("{:.2}", median(&self.served)));
        row.push((peak / 1024 / 1024).to_string());
        if !self.load.is_empty() {
            row.extend([sum(|slice| slice.sent).to_string(), sum(|slice| slice.failed).to_string()]);
        }
        row
    }
}

fn report(contenders: &[Contender; 2]) {
    let [ours, theirs] = contenders;
    let mut heading: Vec<String> = ["command", "median s", "min s", "max s", "serves after s", "peak MiB"].map(str::to_owned).to_vec();
    if !ours.load.is_empty() {
        heading.extend(["requests sent", "failed"].map(str::to_owned));
    }
    say::line("");
    say::table(&[heading, ours.row(), theirs.row()]);
    let ratios: Vec<f64> = ours.seconds().iter().zip(theirs.seconds()).map(|(ours, theirs)| ours / theirs).collect();
    say::line(&format!("kaleem takes {:.2} times as long (median of {} pairs)", median(&ratios), ratios.len()));
    ours.steps.show();
}

/// The middle one, or the mean of the two in the middle.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = sorted.get(sorted.len() / 2).copied().unwrap_or(0.0);
    if sorted.len().is_multiple_of(2) {
        let lower = sorted.len().checked_sub(1).and_then(|last| sorted.get(last / 2)).copied().unwrap_or(0.0);
        return f64::midpoint(lower, upper);
    }
    upper
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_does_not_follow_one_slow_run() {
        for (values, expected) in
            [(&[][..], 0.0), (&[3.0], 3.0), (&[1.0, 9.0], 5.0), (&[9.0, 1.0, 2.0], 2.0), (&[1.0, 100.0, 3.0, 2.0], 2.5)]
        {
            assert!((median(values) - expected).abs() < f64::EPSILON, "{values:?}");
        }
    }
}

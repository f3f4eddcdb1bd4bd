//! Hours of bad luck in minutes: random releases and faults on the real engine, `kill -9` of the real program at journal lines
//! and at random moments, all under load. Nothing may be dropped, nothing may be left behind, and every outcome must be true.

mod audit;
mod tally;
mod victim;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kaleem_core::clock::{Clock, SystemClock};
use kaleem_core::history::History;
use kaleem_core::names::{ProjectName, ReleaseId};
use kaleem_core::outcome::Outcome;
use kaleem_core::state::StateDirectory;

use crate::chance::Seed;
use crate::demo::{self, Shop};
use crate::fail::TaskError;
use crate::load::{Load, Slice};
use crate::place::{Place, write};
use crate::programs::Program;
use crate::say;
use crate::setup::{self, Consent, Need, Parts};

use audit::{Audited, Last};
use tally::{Tally, Total};
use victim::{Kill, Victim};

const CLIENTS: usize = 6;
/// The load generator ends by itself some time after this.
const LOAD_AT_MOST: Duration = Duration::from_secs(12 * 60);
/// A command that nobody kills ends within this, or the soak has failed.
const PATIENCE: Duration = Duration::from_secs(180);
/// More wrong things than these say nothing new.
const WRONG_AT_MOST: usize = 8;
/// Releases that the shop keeps.
const KEEP: usize = 5;

/// How long it goes on: until both are reached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// At least so long.
    pub time: Duration,
    /// At least so many kills.
    pub kills: u64,
}

/// What is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Move {
    Good,
    ExitsAtOnce,
    NeverHealthy,
    CrashesInItsGate,
    RemovedByHand,
    KeptOneRemovedByHand,
    TwoOperators,
    Rollback,
}

impl Move {
    const ALL: [Self; 8] = [
        Self::Good,
        Self::ExitsAtOnce,
        Self::NeverHealthy,
        Self::CrashesInItsGate,
        Self::RemovedByHand,
        Self::KeptOneRemovedByHand,
        Self::TwoOperators,
        Self::Rollback,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Good => "good release",
            Self::ExitsAtOnce => "exits at once",
            Self::NeverHealthy => "never healthy",
            Self::CrashesInItsGate => "crashes after its first checks",
            Self::RemovedByHand => "new instance removed by hand",
            Self::KeptOneRemovedByHand => "kept instance removed by hand",
            Self::TwoOperators => "two operators at once",
            Self::Rollback => "rollback",
        }
    }

    /// What the release does wrong by itself.
    fn fault(self) -> &'static str {
        match self {
            Self::ExitsAtOnce => "exit-at-once",
            Self::NeverHealthy => "never-healthy",
            Self::CrashesInItsGate => "crash-after:1",
            Self::Good | Self::RemovedByHand | Self::KeptOneRemovedByHand | Self::TwoOperators | Self::Rollback => "",
        }
    }

    /// Whether this outcome can be true for it; `aborted` says whether somebody asked to go back.
    fn allows(self, outcome: &Outcome, aborted: bool) -> bool {
        match outcome {
            Outcome::Deployed { .. } => self.fault().is_empty(),
            Outcome::RolledBack { .. } => !self.fault().is_empty() || self == Self::RemovedByHand,
            Outcome::Aborted { .. } => aborted,
            Outcome::Resolved { .. } => false,
        }
    }
}

/// Runs it on a project of its own, which is gone afterwards.
///
/// # Errors
///
/// [`TaskError::Unexpected`] when anything was dropped, left behind or untrue.
pub(crate) fn run(place: &Place, consent: Consent, limits: Limits, seed: Option<u64>, kaleem: Option<PathBuf>) -> Result<(), TaskError> {
    let parts = setup::run(place, consent, Need::Demo)?;
    with(place, &parts, limits, seed, kaleem)
}

/// The same with parts that are there already.
pub(crate) fn with(place: &Place, parts: &Parts, limits: Limits, seed: Option<u64>, kaleem: Option<PathBuf>) -> Result<(), TaskError> {
    let seed = seed.unwrap_or_else(Seed::fresh);
    let kaleem = demo::kaleem(place, kaleem)?;
    say::step(&format!(
        "soak with seed {seed}: at least {} s and {} kills (`--seed {seed}` does the same again)",
        limits.time.as_secs(),
        limits.kills
    ));
    let shop = Shop::new(place, parts, "kaleem-soak", &kaleem)?;
    prepare(&shop)?;
    let outcome = Soak::new(place, parts, &shop, seed)?.go(limits);
    shop.clean()?;
    outcome
}

fn prepare(shop: &Shop<'_>) -> Result<(), TaskError> {
    let service = |name: &str| {
        format!(
            "  {name}:\n    environment:\n      SHOP_FAULT: ${{SOAK_FAULT:-}}\n      SHOP_VERSION: ${{SOAK_VERSION:-s0}}\n    stop_grace_period: 3s\n"
        )
    };
    let text = format!("services:\n{}{}", service("api"), service("worker"));
    write(&shop.directory().join("compose.override.yaml"), &text)?;
    shop.replace_setting("passes = 2", "passes = 6")?;
    shop.replace_setting("deadline = \"20s\"", "deadline = \"6s\"")?;
    shop.add_setting("services.api", "watch = \"1s\"\ndrain = \"5s\"")?;
    // Sets are kept beside what kaleem keeps of the project, where the audit looks at them.
    shop.add_setting("backup", "when = \"before-deploy\"\nunencrypted = true")
}

/// What a round did, before it is judged.
struct Round {
    what: Move,
    kills: u64,
    resumes: u64,
    aborted: bool,
    exit_code: i32,
    outcome: Option<Outcome>,
}

struct Soak<'a> {
    place: &'a Place,
    parts: &'a Parts,
    shop: &'a Shop<'a>,
    random: Seed,
    state: StateDirectory,
    project: ProjectName,
    /// What `/version` says, by release.
    versions: BTreeMap<ReleaseId, String>,
    load: Option<Load>,
    load_began: Duration,
    tally: Tally,
    wrong: Vec<String>,
}

impl<'a> Soak<'a> {
    fn new(place: &'a Place, parts: &'a Parts, shop: &'a Shop<'a>, seed: u64) -> Result<Self, TaskError> {
        let project: ProjectName =
            shop.name().parse().map_err(|_| TaskError::Unexpected { what: "the project's name is none".to_owned() })?;
        let state = StateDirectory::new(&shop.directory().join("state"), &project);
        Ok(Self {
            place,
            parts,
            shop,
            random: Seed::new(seed),
            state,
            project,
            versions: BTreeMap::new(),
            load: None,
            load_began: Duration::ZERO,
            tally: Tally::default(),
            wrong: Vec::new(),
        })
    }

    fn go(mut self, limits: Limits) -> Result<(), TaskError> {
        let begun = SystemClock.monotonic();
        let mut total = Total::default();
        self.command(&["deploy", "--quiet", "--allow-older"], "", "s1").run()?;
        self.versions.insert(ReleaseId::new(1), "s1".to_owned());
        self.begin_load()?;
        let mut number = 1;
        loop {
            let took = SystemClock.monotonic().saturating_sub(begun);
            if (took >= limits.time && self.tally.kills() >= limits.kills) || self.wrong.len() >= WRONG_AT_MOST {
                break;
            }
            number += 1;
            let what = *self.random.one_of(&Move::ALL).unwrap_or(&Move::Good);
            let round = self.round(what, number)?;
            self.judge(&round, number)?;
            self.tally.add(&round);
            self.renew_load(&mut total)?;
        }
        if let Some(load) = self.load.take() {
            total.add(&load.stop());
        }
        self.finish(&mut total, SystemClock.monotonic().saturating_sub(begun))
    }

    fn begin_load(&mut self) -> Result<(), TaskError> {
        // Orders of one load must not look like those of the one before.
        let name = format!("soak-{}", SystemClock.monotonic().as_millis());
        self.load = Some(Load::start(self.shop.address(), CLIENTS, &name)?);
        self.load_began = SystemClock.monotonic();
        Ok(())
    }

    fn renew_load(&mut self, total: &mut Total) -> Result<(), TaskError> {
        let slice = self.load.as_ref().map(Load::take).unwrap_or_default();
        self.note_load(&slice);
        total.add(&slice);
        if SystemClock.monotonic().saturating_sub(self.load_began) > LOAD_AT_MOST {
            if let Some(load) = self.load.take() {
                total.add(&load.stop());
            }
            self.begin_load()?;
        }
        Ok(())
    }

    fn note_load(&mut self, slice: &Slice) {
        if slice.failed > 0 {
            let why = slice.first_failure.clone().unwrap_or_default();
            self.wrong.push(format!("round {}: {} requests were dropped: {why}", self.tally.rounds(), slice.failed));
        }
        let known: Vec<&String> = self.versions.values().collect();
        for version in slice.versions.keys().filter(|version| !known.contains(version)) {
            self.wrong.push(format!("round {}: {version} answered requests and was never released", self.tally.rounds()));
        }
    }

    fn command(&self, words: &[&str], fault: &str, version: &str) -> Program {
        let image = self.parts.image("shop:v1");
        self.shop
            .kaleem(words)
            .env("SOAK_FAULT", fault)
            .env("SOAK_VERSION", version)
            .env("SHOP_API_IMAGE", &image)
            .env("SHOP_WORKER_IMAGE", &image)
    }

    fn history(&self) -> Result<History, TaskError> {
        History::load(&self.state).map_err(|error| TaskError::Unexpected {
            what: format!("the journals cannot be read: {}", kaleem_core::remedy::one_line(&error)),
        })
    }

    /// One command, killed and resumed until it is through.
    fn round(&mut self, what: Move, number: u64) -> Result<Round, TaskError> {
        let before = self.history()?;
        let release = before.next_release();
        let mut round = Round { what, kills: 0, resumes: 0, aborted: false, exit_code: -1, outcome: None };
        let version = format!("s{number}");
        if what != Move::Rollback {
            self.versions.insert(release, version.clone());
        }
        let log = self.shop.directory().join("kaleem.log");
        let words: &[&str] = if what == Move::Rollback { &["rollback"] } else { &["deploy", "--allow-older"] };
        let mut victim = Victim::start(self.command(words, what.fault(), &version), &log, &self.state)?;
        let mut kill = self.next_kill();
        self.meddle(what, release, &before, &mut victim)?;
        while victim.die(kill.as_ref(), PATIENCE)? {
            round.kills += 1;
            if self.history()?.open().is_none() {
                break;
            }
            round.resumes += 1;
            // An abort is asked for once at most: then it goes back, and resuming goes on with that.
            let verb = if !round.aborted && self.random.chance(20) { "abort" } else { "resume" };
            round.aborted |= verb == "abort";
            victim = Victim::start(self.command(&[verb], "", ""), &log, &self.state)?;
            kill = if round.kills < 4 { self.next_kill() } else { None };
        }
        round.exit_code = victim.exit_code();
        let after = self.history()?;
        let entry = after.entries().last().filter(|entry| before.entries().last().map(|last| last.plan.id) != Some(entry.plan.id));
        round.outcome = entry.and_then(|entry| entry.outcome.clone());
        if after.open().is_some() {
            self.wrong.push(format!("round {number} ({}): its plan is still open, exit code {}", what.name(), round.exit_code));
        }
        Ok(round)
    }

    fn next_kill(&mut self) -> Option<Kill> {
        match self.random.below(10) {
            0 => None,
            1..=6 => Some(Kill::AtLine(self.random.below(40))),
            _ => Some(Kill::After(Duration::from_millis(self.random.below(6000)))),
        }
    }

    /// What others do to the host or at another terminal meanwhile.
    fn meddle(&mut self, what: Move, release: ReleaseId, before: &History, victim: &mut Victim) -> Result<(), TaskError> {
        let docker = |name: &str| Program::new(self.place, "docker").args(["rm", "--force", name]).succeeds();
        match what {
            Move::RemovedByHand => {
                let service = self.random.one_of(&["api", "worker"]).copied().unwrap_or("api");
                let name = format!("{}-{service}-{release}-1", self.project);
                // As soon as it is there, or never where the process is quicker.
                if victim.reach(8 + self.random.below(12)) {
                    docker(&name);
                }
            }
            Move::KeptOneRemovedByHand => {
                let serving = before.serving();
                let kept: Vec<String> = before
                    .releases()
                    .iter()
                    .filter(|kept| Some(kept.id) != serving)
                    .flat_map(|kept| kept.instances.iter().filter(|(service, _)| service.as_str() != "redis").flat_map(|(_, names)| names))
                    .map(ToString::to_string)
                    .collect();
                if let Some(name) = self.random.one_of(&kept)
                    && !before
                        .releases()
                        .iter()
                        .any(|other| Some(other.id) == serving && other.instances.values().flatten().any(|one| one.as_str() == name))
                {
                    docker(name);
                }
            }
            Move::TwoOperators => {
                if victim.reach(4) {
                    let status = self.command(&["deploy", "--quiet", "--allow-older"], "", "s0").quiet_all().status()?;
                    // 5: busy. The first may have been through already.
                    if !matches!(status.code(), Some(5)) && victim.is_alive() {
                        self.wrong.push(format!("a second operator was let in: {status}"));
                    }
                }
            }
            Move::Good | Move::ExitsAtOnce | Move::NeverHealthy | Move::CrashesInItsGate | Move::Rollback => {}
        }
        Ok(())
    }

    fn judge(&mut self, round: &Round, number: u64) -> Result<(), TaskError> {
        let name = round.what.name();
        if let Some(outcome) = &round.outcome {
            if !round.what.allows(outcome, round.aborted) {
                self.wrong.push(format!("round {number} ({name}): it cannot have ended with {outcome:?}"));
            }
            let expected = match outcome {
                Outcome::Deployed { .. } => 0,
                Outcome::RolledBack { .. } => 10,
                Outcome::Aborted { .. } => 11,
                Outcome::Resolved { .. } => 0,
            };
            if round.exit_code != expected && round.exit_code != victim::KILLED {
                self.wrong.push(format!("round {number} ({name}): exit code {} with {outcome:?}", round.exit_code));
            }
        }
        let history = self.history()?;
        let serving = history.serving();
        let said = serving.and_then(|serving| self.versions.get(&serving)).cloned().unwrap_or_default();
        let seen = self.shop.version().unwrap_or_else(|error| format!("nothing ({error})"));
        if said != seen {
            let serving = serving.map_or_else(|| "nothing".to_owned(), |serving| serving.to_string());
            self.wrong.push(format!("round {number} ({name}): the journals say that {serving} ({said}) serves, and {seen} answers"));
        }
        let audited = Audited { project: self.shop.name(), state: &self.state, keep: KEEP };
        let last = if round.exit_code == victim::KILLED { Last::Killed } else { Last::Ended };
        let leaks = audit::leaks(self.place, audited, &history, last)?;
        self.tally.leaks += leaks.len() as u64;
        self.wrong.extend(leaks.into_iter().map(|leak| format!("round {number} ({name}): left behind: {leak}")));
        for text in self.wrong.iter().skip(self.tally.told) {
            say::warning(text);
        }
        self.tally.told = self.wrong.len();
        Ok(())
    }

    fn finish(mut self, total: &mut Total, took: Duration) -> Result<(), TaskError> {
        let orders = self.shop.orders()?;
        let lost = total.confirmed.saturating_sub(orders.recorded);
        if lost > 0 || orders.duplicates > 0 {
            self.wrong.push(format!("{lost} orders were lost and {} doubled", orders.duplicates));
        }
        if total.failed > 0 && self.wrong.is_empty() {
            self.wrong.push(format!("{} requests were dropped", total.failed));
        }
        self.tally.show(total, &orders, lost, took);
        if self.wrong.is_empty() {
            say::line("nothing was dropped, nothing was left behind, and every outcome was true");
            return Ok(());
        }
        show_log(&self.shop.directory().join("kaleem.log"));
        Err(TaskError::Unexpected { what: format!("the soak found faults:\n  {}", self.wrong.join("\n  ")) })
    }
}

/// The end of what the killed and resumed commands printed.
fn show_log(path: &Path) {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    say::line("the last commands printed:");
    lines.iter().skip(lines.len().saturating_sub(60)).for_each(|line| say::line(&format!("  {line}")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_that_cannot_be_true_is_noticed() {
        let deployed = Outcome::Deployed { release: ReleaseId::new(2), leftovers: Vec::new() };
        let rolled_back = Outcome::RolledBack { step: 3, error: String::new(), serving: None };
        let aborted = Outcome::Aborted { by: "somebody".to_owned(), serving: None };
        for (why, what, outcome, asked, ok) in [
            ("a good release serves", Move::Good, &deployed, false, true),
            ("a good release was taken back by nobody", Move::Good, &rolled_back, false, false),
            ("a bad release serves", Move::ExitsAtOnce, &deployed, false, false),
            ("a bad release was taken back", Move::NeverHealthy, &rolled_back, false, true),
            ("nobody asked to go back", Move::Good, &aborted, false, false),
            ("somebody asked to go back", Move::Good, &aborted, true, true),
            ("a removed instance is no reason to lie", Move::RemovedByHand, &rolled_back, false, true),
        ] {
            assert_eq!(what.allows(outcome, asked), ok, "{why}");
        }
    }
}

//! What is done while the load flows, and what must be true of it afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::chance::Seed;
use crate::fail::TaskError;
use crate::gauntlet::contender::{Contender, give_back, upgrade_gateway};
use crate::gauntlet::engine::Engine;
use crate::gauntlet::field::{Field, Version};
use crate::gauntlet::flows::Door;
use crate::gauntlet::load::Load;
use crate::gauntlet::tally::Tally;
use crate::programs::wait_until;
use crate::say;

/// How soon after the verdict of a watch the old instances must be sent to again.
const SWITCHES_BACK_WITHIN: Duration = Duration::from_secs(1);
/// Seconds for which a version is watched that fails 2 s after its start. Where it starts quickly, the usual watch is over by then.
const WATCHED_UNTIL_BAD: u64 = 6;
/// How long what was killed may take to serve again.
const BACK_WITHIN: Duration = Duration::from_secs(60);

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Nothing, for that long.
    Steady(Duration),
    /// So many good deploys.
    Deploys(u32),
    /// So many deploys of versions that must not be let in.
    BadDeploys(u32),
    /// Back to the version before.
    Rollback,
    /// The gateway gets another program, so many times.
    GatewayUpgrade(u32),
    /// So many deploys of a service that must not run twice: it is stopped first, and requests are held.
    Held(u32),
    /// So many deploys of three replicas in batches, and one of a version that must not be let in.
    Turns(u32),
    /// A version that ignores SIGTERM comes and goes.
    IgnoresSigterm,
    /// A version that closes each connection after its first answer comes and goes.
    ClosesConnections,
    /// A version that is healthy, is let in, and then fails.
    GoesBad,
    /// What Compose runs by itself gets its gateway: once in the life of a project, the ports change hands.
    TakeOver,
    /// The instance is killed with SIGKILL.
    KillInstance,
    /// The gateway is killed with SIGKILL.
    KillGateway,
    /// The engine is restarted, with everything that it runs.
    RestartEngine,
}

/// How much may go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bar {
    /// Nothing: it was planned.
    Nothing,
    /// What was open at the moment of a kill.
    OpenAtKill,
    /// Requests, but nothing that was confirmed, and nothing twice.
    NothingConfirmed,
}

impl Act {
    /// As the tables have it.
    pub(super) fn title(self) -> String {
        match self {
            Self::Steady(_) => "nothing happens".to_owned(),
            Self::Deploys(count) => format!("{count} good deploys"),
            Self::BadDeploys(count) => format!("{count} bad deploys"),
            Self::Rollback => "rollback".to_owned(),
            Self::GatewayUpgrade(count) => format!("{count} upgrades of the gateway"),
            Self::Held(count) => format!("{count} recreates with requests held"),
            Self::Turns(count) => format!("{count} good deploys and a bad one, 3 replicas in batches"),
            Self::IgnoresSigterm => "the app ignores SIGTERM".to_owned(),
            Self::ClosesConnections => "the app closes connections at once".to_owned(),
            Self::GoesBad => "a deploy that goes bad after the switch".to_owned(),
            Self::TakeOver => "taking over from Compose".to_owned(),
            Self::KillInstance => "kill -9 of the instance".to_owned(),
            Self::KillGateway => "kill -9 of the gateway".to_owned(),
            Self::RestartEngine => "restart of the Docker engine".to_owned(),
        }
    }

    pub(super) fn bar(self) -> Bar {
        match self {
            Self::Steady(_) | Self::Deploys(_) | Self::BadDeploys(_) | Self::Rollback => Bar::Nothing,
            Self::Held(_) | Self::Turns(_) => Bar::Nothing,
            Self::GatewayUpgrade(_) | Self::IgnoresSigterm | Self::ClosesConnections => Bar::Nothing,
            Self::KillInstance => Bar::OpenAtKill,
            Self::GoesBad | Self::TakeOver | Self::KillGateway | Self::RestartEngine => Bar::NothingConfirmed,
        }
    }
}

/// What came of a scenario.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) act: Act,
    pub(super) contender: Contender,
    pub(super) tally: Tally,
    /// Confirmed and not recorded.
    pub(super) lost: u64,
    /// Recorded more than once.
    pub(super) doubled: u64,
    /// Time from the verdict of a watch until the old instances were sent to again, as the journal has it.
    pub(super) switched_back: Option<Duration>,
}

impl Row {
    /// What is not as it must be.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let title = self.act.title();
        let failed = match self.act.bar() {
            Bar::Nothing => self.tally.failed(),
            Bar::OpenAtKill => self.tally.failed_beyond_kill(),
            Bar::NothingConfirmed => 0,
        };
        for (count, what) in [(failed, "requests failed"), (self.lost, "orders were lost"), (self.doubled, "orders were doubled")] {
            if count > 0 {
                faults.push(format!("{title}: {count} {what}"));
            }
        }
        if let Some(late) = self.switched_back.filter(|time| *time > SWITCHES_BACK_WITHIN) {
            faults.push(format!("{title}: the old instances were sent to again {} ms after the verdict", late.as_millis()));
        }
        faults
    }
}

/// A project under load, and who ships to it.
pub(super) struct Stage<'a, 'e> {
    pub(super) contender: Contender,
    pub(super) field: &'a Field<'a>,
    pub(super) engine: Option<&'a mut Engine<'e>>,
    seed: Seed,
    around: Duration,
    shipped: u32,
    scenes: u32,
    current: Version,
    previous: Version,
}

impl<'a, 'e> Stage<'a, 'e> {
    /// Deploys for the first time.
    pub(super) fn set(
        contender: Contender,
        field: &'a Field<'a>,
        engine: Option<&'a mut Engine<'e>>,
        seed: Seed,
        around: Duration,
    ) -> Result<Self, TaskError> {
        say::step(&format!("{}: first deploy", contender.title()));
        let first = Version { name: "n0".to_owned(), fault: "" };
        field.set_version(&first);
        contender.begin(field)?;
        field.settle()?;
        Ok(Self { contender, field, engine, seed, around, shipped: 0, scenes: 0, current: first.clone(), previous: first })
    }

    fn next(&mut self, fault: &'static str) -> Version {
        self.shipped += 1;
        Version { name: format!("n{}", self.shipped), fault }
    }

    fn ship(&mut self, fault: &'static str) -> Result<(), TaskError> {
        let version = self.next(fault);
        self.contender.ship(self.field, &version)?;
        self.previous = std::mem::replace(&mut self.current, version);
        Ok(())
    }

    fn ship_bad(&mut self, fault: &'static str) -> Result<(), TaskError> {
        let version = self.next(fault);
        self.contender.ship_bad(self.field, &version, &self.current.clone())
    }

    /// Runs one scenario under load, and counts.
    pub(super) fn play(&mut self, act: Act) -> Result<Row, TaskError> {
        self.scenes += 1;
        say::step(&format!("{}: {}", self.contender.title(), act.title()));
        if act == Act::TakeOver {
            give_back(self.field)?;
        }
        // The fields of different contenders have stores of their own, so this is enough to tell scenes apart.
        let prefix = format!("s{}", self.scenes);
        let load = Load::start(self.field.doors(), &prefix, self.seed.branch(u64::from(self.scenes)))?;
        std::thread::sleep(self.around);
        let acted = self.act(act, &load);
        std::thread::sleep(self.around);
        let tally = load.stop();
        acted?;
        self.field.settle()?;
        let recorded: BTreeMap<String, u64> = self.field.orders(&format!("{prefix}-"))?.into_iter().collect();
        let confirmed: BTreeSet<&String> = tally.confirmed.iter().collect();
        let lost = confirmed.iter().filter(|id| !recorded.contains_key(**id)).count() as u64;
        let doubled = recorded.values().filter(|count| **count > 1).count() as u64;
        let switched_back = match (act, self.contender) {
            (Act::GoesBad, Contender::Kaleem) => Some(self.field.switched_back()?),
            (_, _) => None,
        };
        let row = Row { act, contender: self.contender, tally, lost, doubled, switched_back };
        tell(&row);
        Ok(row)
    }

    fn act(&mut self, act: Act, load: &Load) -> Result<(), TaskError> {
        match act {
            Act::Steady(time) => {
                std::thread::sleep(time);
                if self.contender == Contender::Kaleem {
                    say::line(&format!("    kaleem status: {}", self.field.rates()?));
                }
            }
            Act::Deploys(count) => {
                for _ in 0..count {
                    self.ship("")?;
                }
            }
            Act::BadDeploys(count) => {
                for fault in ["never-healthy", "exit-at-once", "slow-start:60", "crash-after:0", "unhealthy-after:0"]
                    .iter()
                    .cycle()
                    .take(count as usize)
                {
                    self.ship_bad(fault)?;
                }
            }
            Act::Rollback => {
                let previous = self.previous.clone();
                self.contender.back(self.field, &previous)?;
                self.previous = std::mem::replace(&mut self.current, previous);
            }
            Act::GatewayUpgrade(count) => {
                for _ in 0..count {
                    upgrade_gateway(self.field)?;
                    std::thread::sleep(self.around);
                }
            }
            Act::Held(count) => {
                self.field.set_singleton(true)?;
                for _ in 0..count {
                    self.ship("")?;
                }
                self.field.set_singleton(false)?;
            }
            Act::Turns(count) => {
                for _ in 0..count {
                    self.ship("")?;
                }
                self.ship_bad("never-healthy")?;
            }
            Act::IgnoresSigterm => {
                self.ship("ignore-sigterm")?;
                self.ship("")?;
            }
            Act::ClosesConnections => {
                self.ship("close-after-answer")?;
                std::thread::sleep(self.around);
                self.ship("")?;
            }
            Act::GoesBad => {
                self.field.set_watch(Some(WATCHED_UNTIL_BAD))?;
                self.ship_bad("healthy-then-500:2")?;
                self.field.set_watch(None)?;
            }
            Act::TakeOver => self.ship("")?,
            Act::KillInstance => self.kill(load, ["com.docker.compose.service=api", "com.docker.compose.project"])?,
            Act::KillGateway => self.kill(load, ["kaleem.gateway", "kaleem.project"])?,
            Act::RestartEngine => {
                load.kills_now();
                if let Some(engine) = &mut self.engine {
                    engine.restart()?;
                }
                self.field.settle()?;
            }
        }
        Ok(())
    }

    fn kill(&self, load: &Load, labels: [&str; 2]) -> Result<(), TaskError> {
        let [kind, project] = labels;
        let project = format!("{project}={}", self.field.name());
        let labels = [kind, project.as_str()];
        let found = self.field.processes(&labels)?;
        let [(name, id)] = found.as_slice() else {
            return Err(TaskError::Unexpected { what: format!("there is not one container with {labels:?}, but {found:?}") });
        };
        say::line(&format!("    kill -9 of the first process of {name}"));
        let pid = i32::try_from(*id).ok().and_then(Pid::from_raw);
        load.kills_now();
        if let Some(pid) = pid {
            kill_process(pid, Signal::KILL)
                .map_err(|errno| TaskError::Unexpected { what: format!("{name} could not be killed: {errno}") })?;
        }
        let process = std::path::PathBuf::from(format!("/proc/{id}"));
        wait_until(BACK_WITHIN, || !process.exists());
        load.is_dead();
        // Back by its restart policy, and not by us.
        if !wait_until(BACK_WITHIN, || self.field.answers()) {
            let log = self.field.log().to_path_buf();
            return Err(TaskError::Silent { what: name.clone(), seconds: BACK_WITHIN.as_secs(), log });
        }
        Ok(())
    }
}

/// What a person who waits wants to know.
fn tell(row: &Row) {
    let tally = &row.tally;
    let slowest = tally.slowest().map_or_else(String::new, |sample| {
        format!(" ({} {} at {:.2} s{})", sample.door, sample.kind, sample.begun.as_secs_f64(), if sample.ok { "" } else { ", failed" })
    });
    let outage = |door| tally.longest_outage(door).as_secs_f64() * 1000.0;
    say::line(&format!(
        "    {} sent ({:.0}/s), {} failed, {} lost, {} doubled, {} retried; worst {:.0} ms{slowest}, outage {:.0} ms direct and {:.0} ms at nginx",
        tally.sent(),
        tally.per_second(),
        tally.failed(),
        row.lost,
        row.doubled,
        tally.retried,
        tally.worst().as_secs_f64() * 1000.0,
        outage(Door::Direct),
        outage(Door::Edge),
    ));
    if row.act == Act::TakeOver {
        let refused = |door| tally.refused(door).as_millis();
        say::line(&format!("    turned away for {} ms direct and {} ms at nginx", refused(Door::Direct), refused(Door::Edge)));
    }
    if let Some(time) = row.switched_back {
        say::line(&format!("    the old instances were sent to again {} ms after the verdict of the watch", time.as_millis()));
    }
    for reason in &tally.reasons {
        say::line(&format!("    {reason}"));
    }
}

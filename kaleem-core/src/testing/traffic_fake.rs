//! A gateway in memory: as strict as a real one about what it refuses, and every failure can be asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::health::{Finding, Question, Verdict};
use crate::names::{ContainerName, GatewayName};
use crate::traffic::protocol::program_digest;
use crate::traffic::{
    Admission, Counts, DrainPolicy, DrainReport, GatewayStats, HoldStats, Memory, Refusal, Routing, Target, TargetState, TargetStats,
    Traffic, TrafficError, WorkerStats,
};

/// One call that was made.
#[derive(Clone, Debug, PartialEq)]
pub enum TrafficCall {
    /// [`Traffic::steer`].
    Steer(GatewayName, Routing),
    /// [`Traffic::probe`].
    Probe(GatewayName, ContainerName),
    /// [`Traffic::drain`].
    Drain(GatewayName, ContainerName),
    /// [`Traffic::stats`].
    Stats(GatewayName),
    /// [`Traffic::upgrade`].
    Upgrade(GatewayName, String),
}

/// What a call is made to do instead of its work.
#[derive(Clone, Debug, PartialEq)]
pub enum TrafficFault {
    /// Nobody answers.
    Unreachable,
    /// The work is done, and the answer is lost.
    LostAnswer,
    /// The gateway refuses.
    Refuses(Refusal),
}

#[derive(Debug)]
struct FakeGateway {
    routing: Option<Routing>,
    crashes: u64,
    epoch: u64,
    version: String,
    /// What it was upgraded to.
    program: Option<String>,
    counts: BTreeMap<ContainerName, (Target, Counts)>,
    /// Requests that run, by instance: those that end by themselves, and streams.
    running: BTreeMap<ContainerName, (u64, u64)>,
    held: u64,
    turn: usize,
    /// Whether its program is too old to take the ports of port containers.
    is_old: bool,
}

#[derive(Debug, Default)]
struct World {
    gateways: BTreeMap<GatewayName, FakeGateway>,
    /// Those whose control socket was removed.
    lost: BTreeSet<GatewayName>,
    /// Instances that answer.
    alive: BTreeSet<ContainerName>,
    findings: BTreeMap<ContainerName, Finding>,
    faults: Vec<TrafficFault>,
    calls: Vec<TrafficCall>,
}

/// What became of a request that a test sent through the fake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FakeAnswer {
    /// That instance answered.
    From(ContainerName),
    /// It is held.
    Held,
}

/// Gateways in memory.
#[derive(Debug, Default)]
pub struct FakeTraffic {
    world: Mutex<World>,
    changed: Notify,
}

impl FakeTraffic {
    /// No gateway at all.
    pub fn new() -> Self {
        Self::default()
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a gateway, with what it knew before if it ran already.
    pub fn start(&self, gateway: &GatewayName) {
        let mut world = self.world();
        let fresh = FakeGateway {
            routing: None,
            crashes: 0,
            program: None,
            epoch: 1,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            counts: BTreeMap::new(),
            running: BTreeMap::new(),
            held: 0,
            turn: 0,
            is_old: false,
        };
        world.lost.remove(gateway);
        let known = world.gateways.entry(gateway.clone()).or_insert(fresh);
        known.epoch += 1;
    }

    /// Removes the control socket of a gateway, which serves on and can be steered no more until it is started again.
    pub fn lose(&self, gateway: &GatewayName) {
        self.world().lost.insert(gateway.clone());
    }

    /// Has a gateway run a program that takes no ports of port containers, until it is upgraded.
    pub fn set_old(&self, gateway: &GatewayName) {
        if let Some(known) = self.world().gateways.get_mut(gateway) {
            known.is_old = true;
        }
    }

    /// Says whether an instance answers.
    pub fn set_alive(&self, instance: &ContainerName, alive: bool) {
        let mut world = self.world();
        if alive {
            world.alive.insert(instance.clone())
        } else {
            world.alive.remove(instance)
        };
    }

    /// Makes probes of an instance find this.
    pub fn set_finding(&self, instance: &ContainerName, finding: Finding) {
        self.world().findings.insert(instance.clone(), finding);
    }

    /// Lets the next call fail so; several are used up in order.
    pub fn fail_next(&self, fault: TrafficFault) {
        self.world().faults.push(fault);
    }

    /// Every call so far, also those that failed.
    pub fn calls(&self) -> Vec<TrafficCall> {
        self.world().calls.clone()
    }

    /// Adds to what was counted at an instance, for watch windows.
    pub fn count(&self, gateway: &GatewayName, instance: &ContainerName, added: &Counts) {
        if let Some((_, counts)) = self.world().gateways.get_mut(gateway).and_then(|known| known.counts.get_mut(instance)) {
            counts.add(added);
        }
    }

    /// Sends a request.
    pub fn request(&self, gateway: &GatewayName) -> FakeAnswer {
        let mut world = self.world();
        let alive = world.alive.clone();
        let Some(known) = world.gateways.get_mut(gateway) else { return FakeAnswer::Held };
        match known.pick(&alive) {
            Some(instance) => {
                if let Some((_, counts)) = known.counts.get_mut(&instance) {
                    counts.requests += 1;
                    counts.latency.record(crate::traffic::Latency::bucket_of(Duration::from_millis(1)), 1);
                }
                FakeAnswer::From(instance)
            }
            None => {
                known.held += 1;
                FakeAnswer::Held
            }
        }
    }

    /// Begins a request that goes on until [`Self::finish`]; answers with the instance where it runs.
    pub fn begin(&self, gateway: &GatewayName) -> FakeAnswer {
        let answer = self.request(gateway);
        if let (FakeAnswer::From(instance), Some(known)) = (&answer, self.world().gateways.get_mut(gateway)) {
            known.running.entry(instance.clone()).or_default().0 += 1;
        }
        answer
    }

    /// Ends a request that was begun.
    pub fn finish(&self, gateway: &GatewayName, instance: &ContainerName) {
        if let Some(running) = self.world().gateways.get_mut(gateway).and_then(|known| known.running.get_mut(instance)) {
            running.0 = running.0.saturating_sub(1);
        }
        self.changed.notify_waiters();
    }

    /// Takes note of a call; `Err` where it is to fail before its work.
    fn enter(&self, gateway: &GatewayName, operation: &'static str, call: TrafficCall) -> Result<bool, TrafficError> {
        let mut world = self.world();
        world.calls.push(call);
        let unreachable = || TrafficError::Unreachable { gateway: gateway.clone(), source: std::io::ErrorKind::ConnectionRefused.into() };
        let fault = if world.faults.is_empty() { None } else { Some(world.faults.remove(0)) };
        match fault {
            Some(TrafficFault::Unreachable) => Err(unreachable()),
            Some(TrafficFault::Refuses(source)) => Err(TrafficError::Refused { gateway: gateway.clone(), operation, source }),
            _ if world.lost.contains(gateway) => {
                Err(TrafficError::Unreachable { gateway: gateway.clone(), source: std::io::ErrorKind::NotFound.into() })
            }
            _ if !world.gateways.contains_key(gateway) => Err(unreachable()),
            Some(TrafficFault::LostAnswer) => Ok(true),
            None => Ok(false),
        }
    }

    fn leave<T>(gateway: &GatewayName, operation: &'static str, lost: bool, value: T) -> Result<T, TrafficError> {
        if lost {
            let source = std::io::ErrorKind::UnexpectedEof.into();
            return Err(TrafficError::Broken { gateway: gateway.clone(), operation, source });
        }
        Ok(value)
    }
}

impl FakeGateway {
    fn pick(&mut self, alive: &BTreeSet<ContainerName>) -> Option<ContainerName> {
        let routing = self.routing.as_ref()?;
        if routing.admission == Admission::Hold {
            return None;
        }
        // As in turns of a real gateway, without their spreading.
        let turns: Vec<&Target> = routing
            .targets
            .iter()
            .filter(|target| alive.contains(&target.instance))
            .flat_map(|target| std::iter::repeat_n(target, usize::from(target.weight)))
            .collect();
        let target = turns.get(self.turn.checked_rem(turns.len())?)?;
        self.turn += 1;
        Some(target.instance.clone())
    }

    fn weight(&self, instance: &ContainerName) -> u16 {
        let targets = self.routing.iter().flat_map(|routing| &routing.targets);
        targets.filter(|target| target.instance == *instance).map(|target| target.weight).sum()
    }

    fn compare(&self, routing: &Routing) -> Result<bool, Refusal> {
        routing.check()?;
        match &self.routing {
            Some(current) if current == routing => Ok(false),
            Some(current) if current.generation == routing.generation => Err(Refusal::Conflict { generation: current.generation }),
            Some(current) if current.generation > routing.generation => {
                Err(Refusal::Stale { offered: routing.generation, current: current.generation })
            }
            _ => Ok(true),
        }
    }
}

#[async_trait]
impl Traffic for FakeTraffic {
    async fn steer(&self, gateway: &GatewayName, routing: &Routing) -> Result<(), TrafficError> {
        let operation = "carry out a routing";
        let lost = self.enter(gateway, operation, TrafficCall::Steer(gateway.clone(), routing.clone()))?;
        if let Some(known) = self.world().gateways.get_mut(gateway) {
            let refused = |source| TrafficError::Refused { gateway: gateway.clone(), operation, source };
            if known.compare(routing).map_err(refused)? {
                for target in &routing.targets {
                    known.counts.entry(target.instance.clone()).or_insert_with(|| (target.clone(), Counts::default()));
                }
                known.routing = Some(routing.clone());
            }
        }
        Self::leave(gateway, operation, lost, ())
    }

    async fn probe(&self, gateway: &GatewayName, target: &Target, question: &Question, _: Duration) -> Result<Finding, TrafficError> {
        let operation = "probe an instance";
        let lost = self.enter(gateway, operation, TrafficCall::Probe(gateway.clone(), target.instance.clone()))?;
        let world = self.world();
        let finding = match (question, world.findings.get(&target.instance)) {
            (Question::Running | Question::Healthcheck | Question::Command { .. }, _) => {
                Finding::new(Verdict::Unknown, format!("a gateway cannot ask for {question}"))
            }
            (_, Some(finding)) => finding.clone(),
            (_, None) if world.alive.contains(&target.instance) => Finding::new(Verdict::Ok, format!("{question} answered")),
            (_, None) => Finding::new(Verdict::Fail, format!("could not connect to {}", target.host)),
        };
        Self::leave(gateway, operation, lost, finding)
    }

    async fn drain(&self, gateway: &GatewayName, instance: &ContainerName, policy: &DrainPolicy) -> Result<DrainReport, TrafficError> {
        let operation = "drain an instance";
        let lost = self.enter(gateway, operation, TrafficCall::Drain(gateway.clone(), instance.clone()))?;
        let running = || {
            let world = self.world();
            let Some(known) = world.gateways.get(gateway) else { return Ok((0, 0)) };
            if known.weight(instance) > 0 {
                let source = Refusal::StillRouted { instance: instance.clone() };
                return Err(TrafficError::Refused { gateway: gateway.clone(), operation, source });
            }
            Ok(known.running.get(instance).copied().unwrap_or_default())
        };
        let first = running()?;
        // One that ended before we began to wait is seen by `running`, one that ends after by the notice.
        let ended = tokio::time::timeout(policy.requests, async {
            loop {
                let notice = self.changed.notified();
                tokio::pin!(notice);
                notice.as_mut().enable();
                if running().is_ok_and(|(requests, _)| requests == 0) {
                    return;
                }
                notice.await;
            }
        })
        .await;
        let (requests, streams) = running()?;
        if let Some(known) = self.world().gateways.get_mut(gateway) {
            known.running.remove(instance);
        }
        let took = if ended.is_ok() { Duration::ZERO } else { policy.requests };
        let report = DrainReport { finished: first.0.saturating_sub(requests), cut: requests, closed_streams: streams, took };
        Self::leave(gateway, operation, lost, report)
    }

    async fn stats(&self, gateway: &GatewayName) -> Result<GatewayStats, TrafficError> {
        let operation = "tell what it counted";
        let lost = self.enter(gateway, operation, TrafficCall::Stats(gateway.clone()))?;
        let stats = {
            let world = self.world();
            let Some(known) = world.gateways.get(gateway) else {
                return Err(TrafficError::Unreachable { gateway: gateway.clone(), source: std::io::ErrorKind::NotFound.into() });
            };
            let memory = if known.routing.is_some() { Memory::Restored } else { Memory::Fresh };
            let mut stats = GatewayStats {
                worker: WorkerStats {
                    version: known.version.clone(),
                    pid: 1,
                    epoch: known.epoch,
                    crashes: known.crashes,
                    program: known.program.clone(),
                    memory,
                },
                routing: known.routing.clone(),
                hold: HoldStats { held: known.held, ..HoldStats::default() },
                open_connections: 0,
                targets: Vec::new(),
                releases: BTreeMap::new(),
                added_ports: (!known.is_old).then(Vec::new),
            };
            for (instance, (target, counts)) in &known.counts {
                let (requests, streams) = known.running.get(instance).copied().unwrap_or_default();
                let state = match (known.weight(instance), world.alive.contains(instance)) {
                    (0, _) => TargetState::Retired,
                    (_, true) => TargetState::Believed,
                    (_, false) => TargetState::Doubted,
                };
                stats.releases.entry(target.release).or_default().add(counts);
                stats.targets.push(TargetStats {
                    instance: instance.clone(),
                    release: target.release,
                    state,
                    in_flight: requests + streams,
                    streams,
                    counts: counts.clone(),
                });
            }
            stats
        };
        Self::leave(gateway, operation, lost, stats)
    }

    async fn upgrade(&self, gateway: &GatewayName, binary: &Path) -> Result<String, TrafficError> {
        let operation = "hand over to another program";
        let text = binary.display().to_string();
        let lost = self.enter(gateway, operation, TrafficCall::Upgrade(gateway.clone(), text.clone()))?;
        if !binary.is_file() {
            let source = std::io::ErrorKind::NotFound.into();
            return Err(TrafficError::NotBrought { gateway: gateway.clone(), binary: text, source });
        }
        let version = {
            let mut world = self.world();
            let known = world.gateways.get_mut(gateway);
            known.map(|known| {
                known.epoch += 1;
                known.is_old = false;
                known.program = std::fs::read(binary).ok().map(|bytes| program_digest(&bytes));
                known.version.clone()
            })
        };
        Self::leave(gateway, operation, lost, version.unwrap_or_default())
    }
}

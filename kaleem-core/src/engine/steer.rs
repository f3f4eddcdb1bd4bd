//! Steps that steer a gateway: the switch, the watch after it, and the drain of what was there before.

use std::collections::BTreeMap;
use std::time::Duration;

use rustix::fs::{Gid, Uid};

use crate::durable;
use crate::engine::gate::ended_with;
use crate::engine::{Engine, GatewayControl, StepError};
use crate::health::{Finding, Question, Verdict};
use crate::names::{ContainerName, GatewayName, ReleaseId, ServiceName};
use crate::plan::{Plan, Route, Step};
use crate::release::{GateSettings, WatchSettings};
use crate::remedy::Remedy;
use crate::runtime::{Instance, InstanceStatus, RuntimeError};
use crate::traffic::{Admission, Counts, DrainPolicy, GatewayStats, Generation, HoldLimits, Refusal, Routing, Target, TrafficError};

/// What is held while a gateway has no target: more than a second's requests of a busy service, for longer than most restarts take.
const HOLD: HoldLimits = HoldLimits { requests: 4096, time: Duration::from_secs(30), release_per_second: 2000 };
/// What runs at an instance that is taken back has to end: the old ones serve already, and the plan is not to be held up.
const LAST_REQUESTS: DrainPolicy = DrainPolicy { requests: Duration::from_secs(5), streams: Duration::from_secs(1) };
/// How often a generation is raised above the one in force: once, and once more where two plans were lost in turn.
const ABOVE: u32 = 3;
/// Time between two looks during a watch: a bad release is seen within it.
const LOOK: Duration = Duration::from_millis(200);

/// Time between two health questions during a watch: applications may log each.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Failed answers in a row, a second apart, after which an instance counts as unhealthy: one alone can be a pause of its runtime.
const FAILURES: u32 = 3;
/// Time beyond its window that a watch goes on while an instance has failed some questions, and not so many that it counts.
const UNDECIDED: Duration = Duration::from_secs(10);

/// Why a new release failed while kaleem watched it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// Too many requests failed.
    #[error("{failed} of {requests} requests failed at it ({percent} %)")]
    Failing {
        /// How many failed.
        failed: u64,
        /// Of how many.
        requests: u64,
        /// Their share.
        percent: u64,
    },
    /// Its answers are too slow.
    #[error("99 of 100 answers began within {slowest:?} only, and {limit:?} is allowed")]
    Slow {
        /// What was measured.
        slowest: Duration,
        /// The limit.
        limit: Duration,
    },
    /// It ended.
    #[error("`{container}` {}{log}", ended_with(*code))]
    Crashed {
        /// The container.
        container: ContainerName,
        /// Its exit code.
        code: i64,
        /// Its last lines.
        log: String,
    },
    /// It ended, and its restart policy has started it again: its exit code is not known any more.
    #[error("`{container}` ended, and was started again by its restart policy{log}")]
    Restarted {
        /// The container.
        container: ContainerName,
        /// Its last lines.
        log: String,
    },
    /// It is not there any more.
    #[error("`{container}` was removed by somebody else")]
    Removed {
        /// The container.
        container: ContainerName,
    },
    /// The kernel killed it for memory.
    #[error("`{container}` was killed because it used more memory than it may{log}")]
    OutOfMemory {
        /// The container.
        container: ContainerName,
        /// Its last lines.
        log: String,
    },
    /// It does not pass its health check any more.
    #[error("`{container}` became unhealthy after the switch: {reason}")]
    Unhealthy {
        /// The container.
        container: ContainerName,
        /// What its check found.
        reason: String,
    },
    /// The engine of the host could not be asked.
    #[error("the engine could not be asked about it")]
    Runtime {
        /// Why.
        #[source]
        source: RuntimeError,
    },
}

impl Remedy for WatchError {
    fn remedy(&self) -> String {
        match self {
            Self::Failing { .. } => "read the log of the new release for its errors, mend it, and deploy again".to_owned(),
            Self::Slow { .. } => "find out what makes the new release slow, and deploy again".to_owned(),
            Self::Crashed { .. } | Self::Restarted { .. } => "read its last lines, mend it, and deploy again".to_owned(),
            Self::Unhealthy { container, .. } => format!("read its log (`docker logs {container}`), fix the cause, and deploy again"),
            Self::Removed { .. } => "find out who removed it, and deploy again".to_owned(),
            Self::OutOfMemory { .. } => "raise its memory limit, or find out what needs so much".to_owned(),
            Self::Runtime { source } => source.remedy(),
        }
    }
}

/// How one instance has answered in a watch.
#[derive(Default)]
struct Answers {
    /// Failures in a row.
    failures: u32,
    /// Its own check cannot be run from here, or did not end in time.
    given_up: bool,
}

/// What a watch looks at.
#[derive(Clone, Copy)]
pub(crate) struct Watched<'a> {
    pub(crate) service: &'a ServiceName,
    pub(crate) gateway: &'a GatewayName,
    pub(crate) instances: &'a [Route],
    pub(crate) watch: &'a WatchSettings,
    pub(crate) gate: Option<&'a GateSettings>,
}

impl Engine {
    pub(crate) fn control(&self, gateway: &GatewayName) -> Result<&GatewayControl, StepError> {
        self.gateways.as_ref().ok_or_else(|| StepError::NoGateways { gateway: gateway.clone() })
    }

    /// Makes the directory in which a gateway has its socket and its state, owned by the gateway's user.
    pub(crate) fn make_directory(&self, gateway: &GatewayName) -> Result<(), StepError> {
        let control = self.control(gateway)?;
        let failed = |source| StepError::GatewayDirectory { gateway: gateway.clone(), source };
        let path = control.directory.join(gateway.as_str());
        durable::create_directory(&path, durable::PRIVATE_DIRECTORY).map_err(failed)?;
        let (uid, gid) = control.user;
        let owned = rustix::fs::chown(&path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        owned.map_err(|errno| {
            failed(durable::DurableError::Failed { operation: durable::FileOperation::CreateDirectory, path, source: errno.into() })
        })
    }

    pub(crate) async fn steer(
        &self,
        plan: &Plan,
        index: usize,
        service: &ServiceName,
        gateway: &GatewayName,
        to: &[Route],
    ) -> Result<String, StepError> {
        let step = u32::try_from(index).unwrap_or(u32::MAX);
        let routing = routing(Generation::of_perform(plan.id, step), to, gateway, hold(plan, service))?;
        let failed = |source| StepError::Traffic { what: format!("switch {gateway}"), source };
        self.steer_above(gateway, routing).await?.map_err(failed)?;
        Ok(format!("sends to {}", to.iter().map(|route| route.container.to_string()).collect::<Vec<_>>().join(", ")))
    }

    /// Steers a gateway, above what is in force. A gateway that has a newer routing than this plan could have made remembers plans that the
    /// journals do not: the state directory was lost or restored. Nobody else can have steered it now, since this process has the lock.
    async fn steer_above(&self, gateway: &GatewayName, mut routing: Routing) -> Result<Result<(), TrafficError>, StepError> {
        let traffic = &self.control(gateway)?.traffic;
        let mut result = traffic.steer(gateway, &routing).await;
        for _ in 0..ABOVE {
            routing.generation = match &result {
                Err(TrafficError::Refused { source: Refusal::Stale { current, .. }, .. }) => current.next(),
                Err(TrafficError::Refused { source: Refusal::Conflict { generation }, .. }) => generation.next(),
                _ => break,
            };
            result = traffic.steer(gateway, &routing).await;
        }
        Ok(result)
    }

    /// Has every request wait, whoever is there to have it.
    pub(crate) async fn hold(&self, plan: &Plan, index: usize, gateway: &GatewayName, time: Duration) -> Result<String, StepError> {
        let step = u32::try_from(index).unwrap_or(u32::MAX);
        let routing = Routing { admission: Admission::Hold, ..routing(Generation::of_perform(plan.id, step), &[], gateway, Some(time))? };
        let failed = |source| StepError::Traffic { what: format!("hold requests at {gateway}"), source };
        self.steer_above(gateway, routing).await?.map_err(failed)?;
        Ok("requests wait".to_owned())
    }

    pub(crate) async fn steer_back(
        &self,
        plan: &Plan,
        index: usize,
        service: &ServiceName,
        gateway: &GatewayName,
        from: &[Route],
    ) -> Result<(), StepError> {
        let step = u32::try_from(index).unwrap_or(u32::MAX);
        let routing = routing(Generation::of_undo(plan.id, step), from, gateway, hold(plan, service))?;
        match self.steer_above(gateway, routing).await? {
            // It was to be new, and never came up or is gone: nobody is sent anywhere.
            Err(TrafficError::Unreachable { .. }) if from.is_empty() => Ok(()),
            result => result.map_err(|source| StepError::Traffic { what: format!("switch {gateway} back"), source }),
        }
    }

    /// Lets what runs at an instance end that is about to be taken back, where it stands behind a gateway. Nobody waits for it, so that it is
    /// short, and a gateway that cannot be asked sends nothing there.
    pub(crate) async fn drain_before_undo(&self, plan: &Plan, service: &ServiceName, container: &ContainerName) {
        let wanted = plan.release.target.services.get(service).and_then(|wanted| wanted.gateway.as_ref());
        let (Some(wanted), Some(control)) = (wanted, &self.gateways) else { return };
        let drain = DrainPolicy {
            requests: wanted.drain.requests.min(LAST_REQUESTS.requests),
            streams: wanted.drain.streams.min(LAST_REQUESTS.streams),
        };
        control.traffic.drain(&wanted.name, container, &drain).await.ok();
    }

    pub(crate) async fn drain(&self, gateway: &GatewayName, container: &ContainerName, drain: &DrainPolicy) -> Result<String, StepError> {
        let failed = |source| StepError::Traffic { what: format!("drain {container}"), source };
        let report = self.control(gateway)?.traffic.drain(gateway, container, drain).await.map_err(failed)?;
        Ok(format!("{} ended by themselves, {} were cut, {} streams were closed", report.finished, report.cut, report.closed_streams))
    }

    /// Watches until the window is over or something is bad.
    pub(crate) async fn watch(
        &self,
        plan: &Plan,
        watched: &Watched<'_>,
        cut_short: &(dyn Fn() -> bool + Sync),
    ) -> Result<String, StepError> {
        let Watched { service, gateway, instances, watch, .. } = *watched;
        let bad = |source| StepError::Watch { service: service.clone(), source };
        let begun = self.clock.monotonic();
        let mut first: Option<GatewayStats> = None;
        let mut seen = Counts::default();
        // What this plan started has no right to restart; what ran before may have done so long ago.
        let started = |container: &ContainerName| {
            plan.steps.iter().any(|step| matches!(step, Step::Start { container: started, .. } if started == container))
        };
        let mut restarts: BTreeMap<ContainerName, u64> =
            instances.iter().filter(|route| started(&route.container)).map(|route| (route.container.clone(), 0)).collect();
        let mut asked = begun;
        let mut answers: BTreeMap<ContainerName, Answers> = BTreeMap::new();
        loop {
            if cut_short() {
                return Err(StepError::CutShort);
            }
            let asks = self.clock.monotonic().saturating_sub(asked) >= ASK_AGAIN;
            for route in instances {
                let instance = self.refuse_crashed(plan, service, &route.container, &mut restarts).await.map_err(bad)?;
                if let Some(gate) = watched.gate.filter(|_| asks) {
                    self.refuse_unhealthy(watched, gate, &instance, &mut answers).await.map_err(bad)?;
                }
            }
            if asks {
                asked = self.clock.monotonic();
            }
            let answer = self.control(gateway)?.traffic.stats(gateway).await;
            let over = self.clock.monotonic().saturating_sub(begun) >= watch.window;
            match &answer {
                // A gateway that never answered has seen nothing: nobody can say that the release is good.
                Err(_) if first.is_none() && over => {
                    let failed = |source| StepError::Traffic { what: format!("watch {service} at its gateway"), source };
                    return answer.map(|_| String::new()).map_err(failed);
                }
                _ => {}
            }
            // One that cannot be asked for a moment says nothing about the release.
            if let Ok(now) = answer {
                let base = first.get_or_insert_with(|| now.clone());
                if base.worker.epoch == now.worker.epoch {
                    seen = counted(instances, &now).since(&counted(instances, base));
                } else {
                    first = Some(now);
                }
                judge(&seen, watch).map_err(bad)?;
            }
            let watched_for = self.clock.monotonic().saturating_sub(begun);
            // Who failed at the last question has not failed yet, and has not stayed healthy either.
            let undecided = answers.values().any(|answers| answers.failures > 0) && watched_for < watch.window + UNDECIDED;
            if watched_for >= watch.window && !undecided {
                let slow = seen.latency.quantile(0.99).map_or_else(String::new, |p99| format!(", 99 % began within {p99:?}"));
                return Ok(format!("{} requests, {} failed{slow}", seen.requests, seen.server_errors + seen.broken));
            }
            self.clock.sleep(LOOK).await;
        }
    }

    /// Asks an instance what its gate asked: one that was healthy when it was switched to may not stay so.
    async fn refuse_unhealthy(
        &self,
        watched: &Watched<'_>,
        gate: &GateSettings,
        instance: &Instance,
        answers: &mut BTreeMap<ContainerName, Answers>,
    ) -> Result<(), WatchError> {
        let through = Some(watched.gateway).filter(|_| matches!(gate.question, Question::Http { .. } | Question::Tcp { .. }));
        let mut finding = self.question(through, &gate.question, instance, gate.timeout.min(ASK_AGAIN)).await;
        let answers = answers.entry(instance.name.clone()).or_default();
        // What the container's own check says has been counted by the engine, retry by retry.
        let decided = gate.question == Question::Healthcheck && finding.verdict == Verdict::Fail;
        if gate.question == Question::Healthcheck && !decided && !answers.given_up {
            // The engine asks once in an interval, which may be longer than the watch.
            match self.runtime.check(&instance.name, gate.timeout).await {
                Ok(Some(ran)) if ran.exit_code == 0 => finding = Finding::new(Verdict::Ok, "its health check passes".to_owned()),
                Ok(Some(ran)) => finding = Finding::new(Verdict::Fail, format!("its health check ends with {}", ran.exit_code)),
                // One that hangs may go on inside: it is not started a second time.
                Ok(None) | Err(_) => answers.given_up = true,
            }
        }
        match finding.verdict {
            Verdict::Ok | Verdict::Warn => answers.failures = 0,
            // Could not be asked: says nothing either way.
            Verdict::Unknown => {}
            Verdict::Fail => answers.failures += 1,
        }
        if decided || answers.failures >= FAILURES {
            return Err(WatchError::Unhealthy { container: instance.name.clone(), reason: finding.reason });
        }
        Ok(())
    }

    async fn refuse_crashed(
        &self,
        plan: &Plan,
        service: &ServiceName,
        container: &ContainerName,
        restarts: &mut BTreeMap<ContainerName, u64>,
    ) -> Result<Instance, WatchError> {
        let instance = self.runtime.inspect(container).await.map_err(|source| WatchError::Runtime { source })?;
        let Some(instance) = instance else { return Err(WatchError::Removed { container: container.clone() }) };
        let state = &instance.state;
        let ended = !matches!(state.status, InstanceStatus::Running | InstanceStatus::Paused)
            || state.restart_count > *restarts.entry(container.clone()).or_insert(state.restart_count);
        if !ended {
            return Ok(instance);
        }
        let log = self.log_excerpt(container, &self.secrets_of(plan, service)).await;
        if self.ran_out_of_memory(&instance).await {
            return Err(WatchError::OutOfMemory { container: container.clone(), log });
        }
        // One that runs again has no exit code, or that of a life before.
        match state.exit_code.filter(|_| state.status != InstanceStatus::Running) {
            Some(code) => Err(WatchError::Crashed { container: container.clone(), code, log }),
            None => Err(WatchError::Restarted { container: container.clone(), log }),
        }
    }
}

/// What was counted at these instances.
fn counted(instances: &[Route], stats: &GatewayStats) -> Counts {
    let mut sum = Counts::default();
    for target in stats.targets.iter().filter(|target| instances.iter().any(|route| route.container == target.instance)) {
        sum.add(&target.counts);
    }
    sum
}

fn judge(seen: &Counts, watch: &WatchSettings) -> Result<(), WatchError> {
    if seen.requests < watch.least_requests.max(1) {
        return Ok(());
    }
    let failed = seen.server_errors + seen.broken;
    if failed.saturating_mul(1000) > seen.requests.saturating_mul(u64::from(watch.failures_per_mille)) {
        return Err(WatchError::Failing { failed, requests: seen.requests, percent: failed.saturating_mul(100) / seen.requests });
    }
    match (watch.slowest, seen.latency.quantile(0.99)) {
        (Some(limit), Some(slowest)) if slowest > limit => Err(WatchError::Slow { slowest, limit }),
        _ => Ok(()),
    }
}

/// How long the gateway of a service holds a request, where the release says so.
fn hold(plan: &Plan, service: &ServiceName) -> Option<Duration> {
    plan.release.target.services.get(service).and_then(|wanted| wanted.gateway.as_ref()).and_then(|gateway| gateway.hold)
}

pub(crate) fn routing(
    generation: Generation,
    routes: &[Route],
    gateway: &GatewayName,
    hold: Option<Duration>,
) -> Result<Routing, StepError> {
    let targets = routes.iter().map(|route| {
        let host = route.container.as_str().parse().map_err(|_| StepError::NoGateways { gateway: gateway.clone() })?;
        let release: ReleaseId = route.release;
        Ok(Target { instance: route.container.clone(), release, host, ports: BTreeMap::new(), weight: 1 })
    });
    let targets = targets.collect::<Result<Vec<_>, StepError>>()?;
    let hold = HoldLimits { time: hold.unwrap_or(HOLD.time), ..HOLD };
    Ok(Routing { generation, admission: Admission::Serve, hold, stickiness: None, targets })
}

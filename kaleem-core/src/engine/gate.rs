//! Waiting until an instance is healthy. A gate only reads, so it may be cut short at any time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt;

use crate::engine::own_check::OwnCheck;
use crate::engine::{Engine, Notice, StepError, secrets};
use crate::health::{Finding, ProbeTarget, Question, Verdict};
use crate::names::{ContainerName, GatewayName, ReleaseId};
use crate::plan::{Reach, ReachExpectation};
use crate::release::GateSettings;
use crate::remedy::{Remedy, one_line};
use crate::runtime::{Instance, InstanceHealth, InstanceStatus, LogRange, RuntimeError};
use crate::traffic::Target;

/// Time until a service that is not up yet is asked again for the first time; it doubles up to the gate's interval.
const EAGER: Duration = Duration::from_millis(25);
/// Lines of a container's output that an error shows.
const LOG_LINES: u64 = 12;
/// Time the last question has for its answer: less would blame the limit, and not the service.
const LAST_CHANCE: Duration = Duration::from_secs(1);
/// Exit code of a process that ended by `SIGKILL`: 128 and the signal's number, 9.
const KILLED: i64 = 137;
/// The engine hears of the exit and of the lack of memory on two ways, and sometimes of the exit first.
const FLAG_COMES_LATER: Duration = Duration::from_millis(500);
/// A line of output is cut to this many characters: one that is longer is no message.
const LOG_LINE_CHARACTERS: usize = 400;

/// Why an instance did not become healthy. It is still there, in the state in which it was seen last.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GateError {
    /// The time was over.
    #[error("it was not healthy within {} s: {reason}{log}", deadline.as_secs_f32())]
    TimedOut {
        /// The limit.
        deadline: Duration,
        /// The last answer.
        reason: String,
        /// Its last lines.
        log: String,
    },
    /// It ended, or was restarted.
    #[error("it {}{log}", ended_with(*code))]
    Crashed {
        /// Its exit code.
        code: i64,
        /// Its last lines.
        log: String,
    },
    /// The kernel killed it for memory.
    #[error("it was killed because it used more memory than it may{log}")]
    OutOfMemory {
        /// Its last lines.
        log: String,
    },
    /// Its own health check gave it up.
    #[error("its own health check says unhealthy: {output}{log}")]
    Unhealthy {
        /// The check's output.
        output: String,
        /// Its last lines.
        log: String,
    },
    /// Somebody removed it.
    #[error("it was removed by somebody else")]
    Gone,
    /// The engine of the host could not be asked.
    #[error("the engine could not be asked about it")]
    Runtime {
        /// Why.
        #[source]
        source: RuntimeError,
    },
    /// A person asked to stop waiting.
    #[error("the wait was cut short")]
    CutShort,
}

impl Remedy for GateError {
    fn remedy(&self) -> String {
        match self {
            Self::TimedOut { .. } => "mend the service, or give it more time (`health.deadline` in kaleem.toml)".to_owned(),
            Self::Crashed { .. } => "read its last lines, mend it, and deploy again".to_owned(),
            Self::OutOfMemory { .. } => "raise its memory limit, or find out what needs so much".to_owned(),
            Self::Unhealthy { .. } => "run the health check's command in the container, and mend what it names".to_owned(),
            Self::Gone => "find out who removes containers here, then deploy again".to_owned(),
            Self::Runtime { source } => source.remedy(),
            Self::CutShort => "nothing is to be done".to_owned(),
        }
    }

    fn is_transient(&self) -> bool {
        matches!(self, Self::Runtime { source } if source.is_transient())
    }
}

/// What a gate is about.
pub(crate) struct GateRequest<'a> {
    pub(crate) step: usize,
    pub(crate) container: &'a ContainerName,
    pub(crate) gate: &'a GateSettings,
    /// The gateway that asks; `None` asks from here.
    pub(crate) through: Option<&'a GatewayName>,
    /// What clients must reach as well.
    pub(crate) reach: Option<&'a Reach>,
    /// Whether restarts before this moment count: they do for what the plan itself started.
    pub(crate) fresh: bool,
    pub(crate) secrets: &'a [String],
}

struct Passes {
    count: u32,
    since: Duration,
}

impl Engine {
    /// Waits until the container passed its gate. Answers what was seen.
    pub(crate) async fn wait_healthy(&self, request: &GateRequest<'_>, cut_short: &(dyn Fn() -> bool + Sync)) -> Result<String, StepError> {
        let failed = |source| match source {
            GateError::CutShort => StepError::CutShort,
            source => StepError::Gate { container: request.container.clone(), source },
        };
        self.gate(request, cut_short).await.map_err(failed)
    }

    async fn gate(&self, request: &GateRequest<'_>, cut_short: &(dyn Fn() -> bool + Sync)) -> Result<String, GateError> {
        let gate = request.gate;
        let begun = self.clock.monotonic();
        let mut passes = Passes { count: 0, since: begun };
        let mut restarts: Option<u64> = if request.fresh { Some(0) } else { None };
        let mut last = "it was not asked".to_owned();
        let mut eager = EAGER;
        let mut expected = None;
        let mut own = OwnCheck::new();
        loop {
            if cut_short() {
                return Err(GateError::CutShort);
            }
            let instance = self.runtime.inspect(request.container).await.map_err(|source| GateError::Runtime { source })?;
            let instance = instance.ok_or(GateError::Gone)?;
            let allowed = *restarts.get_or_insert(instance.state.restart_count);
            if gate.may_end && instance.state.status == InstanceStatus::Exited && instance.state.exit_code == Some(0) {
                return Ok("it did its work and ended with exit code 0".to_owned());
            }
            self.refuse_dead(request, &instance, allowed).await?;
            let waited = self.clock.monotonic().saturating_sub(begun);
            // The last question gets a fair chance, even if that takes it past the deadline.
            let left = gate.deadline.saturating_sub(waited).max(LAST_CHANCE);
            let timeout = gate.timeout.min(left);
            let mut finding = self.question(request.through, &gate.question, &instance, timeout).await;
            finding = own.sooner(self, request, &instance, finding, timeout).await;
            if let (Some(reach), Verdict::Ok | Verdict::Warn) = (request.reach, finding.verdict) {
                if expected.is_none() {
                    expected = self.expected_ports(reach, timeout).await;
                }
                if let Some(missing) = self.unreached(reach, expected.as_ref(), &instance, timeout).await {
                    finding = missing;
                }
            }
            let now = self.clock.monotonic();
            count(&mut passes, &finding, now);
            last.clone_from(&finding.reason);
            let passed = matches!(finding.verdict, Verdict::Ok | Verdict::Warn);
            if passed && passes.count >= gate.passes && now.saturating_sub(passes.since) >= gate.steady {
                let took = now.saturating_sub(begun);
                return Ok(format!("healthy after {:.1} s ({}, {} in a row): {last}", took.as_secs_f32(), gate.question, passes.count));
            }
            let left = gate.deadline.saturating_sub(now.saturating_sub(begun));
            if left.is_zero() {
                let log = self.last_lines(request).await;
                return Err(GateError::TimedOut { deadline: gate.deadline, reason: last, log });
            }
            (self.observer)(Notice::Waiting {
                step: request.step,
                container: request.container.clone(),
                reason: last.clone(),
                passes: passes.count,
                wanted: gate.passes,
                left,
            });
            // While it starts it is asked more often; between two passes lies the whole interval, so that they say something.
            let pause = if passed { gate.interval } else { eager.min(own.pause(gate.interval)) };
            eager = eager.saturating_mul(2);
            self.clock.sleep(pause.min(left)).await;
        }
    }

    /// Puts a question to an instance: from where the gateway stands, since what it cannot reach no user will, or from here.
    pub(crate) async fn question(
        &self,
        through: Option<&GatewayName>,
        question: &Question,
        instance: &Instance,
        timeout: Duration,
    ) -> Finding {
        let unknown = |reason: String| Finding::new(Verdict::Unknown, reason);
        let Some(gateway) = through else { return self.probes.ask(question, &target(instance), timeout).await };
        let Some(control) = &self.gateways else { return unknown("this program knows no gateways".to_owned()) };
        let name = &instance.name;
        let Ok(host) = name.as_str().parse() else { return unknown("its name is not a valid host name".to_owned()) };
        let target = Target { instance: name.clone(), release: ReleaseId::new(0), host, ports: BTreeMap::new(), weight: 0 };
        match control.traffic.probe(gateway, &target, question, timeout).await {
            Ok(finding) => finding,
            Err(error) => unknown(one_line(&error)),
        }
    }

    /// The ports that the instances which serve now accept connections on; `None` where nothing could be asked.
    async fn expected_ports(&self, reach: &Reach, timeout: Duration) -> Option<BTreeSet<u16>> {
        let mut accepted = BTreeSet::new();
        for name in &reach.like {
            let Ok(Some(instance)) = self.runtime.inspect(name).await else { continue };
            for port in reach.ports.iter().filter(|_| instance.state.status == InstanceStatus::Running) {
                let finding = self.question(reach.through.as_ref(), &Question::Tcp { port: *port }, &instance, timeout).await;
                if finding.verdict == Verdict::Ok {
                    accepted.insert(*port);
                }
            }
        }
        (!accepted.is_empty()).then_some(accepted)
    }

    /// Why clients would not reach the instance; `None` when they do.
    async fn unreached(&self, reach: &Reach, expected: Option<&BTreeSet<u16>>, instance: &Instance, timeout: Duration) -> Option<Finding> {
        let ports = match (expected, reach.expect) {
            (Some(ports), _) => ports,
            (None, ReachExpectation::AtLeastOne) => &reach.ports,
            (None, ReachExpectation::AsBefore) => return None,
        };
        let mut refused = None;
        for port in ports {
            let finding = self.question(reach.through.as_ref(), &Question::Tcp { port: *port }, instance, timeout).await;
            match (finding.verdict, expected) {
                (Verdict::Ok | Verdict::Warn, None) => return None,
                (Verdict::Ok | Verdict::Warn, Some(_)) => {}
                (Verdict::Unknown | Verdict::Fail, _) => refused = Some((*port, finding)),
            }
        }
        let (port, finding) = refused?;
        let reason = format!(
            "its own check passes, but clients cannot connect to port {port}: {} (does it listen on 127.0.0.1 only?)",
            finding.reason
        );
        Some(Finding::new(finding.verdict, reason))
    }

    /// A container that ended will not become healthy by waiting.
    async fn refuse_dead(&self, request: &GateRequest<'_>, instance: &Instance, restarts: u64) -> Result<(), GateError> {
        let state = &instance.state;
        let ended = match state.status {
            InstanceStatus::Removing => return Err(GateError::Gone),
            InstanceStatus::Exited | InstanceStatus::Dead | InstanceStatus::Restarting => true,
            InstanceStatus::Created | InstanceStatus::Running | InstanceStatus::Paused => state.restart_count > restarts,
        };
        let unhealthy = state.health == InstanceHealth::Unhealthy && request.gate.question == Question::Healthcheck;
        if !ended && !unhealthy {
            return Ok(());
        }
        let log = self.last_lines(request).await;
        if ended && self.ran_out_of_memory(instance).await {
            return Err(GateError::OutOfMemory { log });
        }
        if ended {
            return Err(GateError::Crashed { code: state.exit_code.unwrap_or(-1), log });
        }
        let output = state.health_output.as_deref().unwrap_or("no output").trim();
        Err(GateError::Unhealthy { output: redact(output, request.secrets), log })
    }

    /// Whether the engine says that an ended container was killed for memory, now or in a moment.
    pub(crate) async fn ran_out_of_memory(&self, instance: &Instance) -> bool {
        let deadline = self.clock.monotonic() + FLAG_COMES_LATER;
        let mut state = instance.state.clone();
        while !state.oom_killed && state.exit_code == Some(KILLED) && self.clock.monotonic() < deadline {
            self.clock.sleep(EAGER).await;
            let Ok(Some(again)) = self.runtime.inspect(&instance.name).await else { return false };
            state = again.state;
        }
        state.oom_killed
    }

    async fn last_lines(&self, request: &GateRequest<'_>) -> String {
        self.log_excerpt(request.container, request.secrets).await
    }

    /// Secrets that the container itself was given: an older one may know others than the new release.
    async fn secrets_in(&self, container: &ContainerName) -> Vec<String> {
        let Ok(Some(instance)) = self.runtime.inspect(container).await else { return Vec::new() };
        let definition = instance.definition.and_then(|id| self.state.definition(&self.key, &id).ok());
        definition.map(|definition| secrets(&definition.environment, &definition)).unwrap_or_default()
    }

    /// The last lines of a container's output, without secrets that are known; empty when there are none.
    pub(crate) async fn log_excerpt(&self, container: &ContainerName, secrets: &[String]) -> String {
        let range = LogRange { tail: Some(LOG_LINES), follow: false, since: None };
        let Ok(lines) = self.runtime.logs(container, &range).await else { return String::new() };
        let mut secrets = secrets.to_vec();
        secrets.extend(self.secrets_in(container).await);
        let secrets = &secrets;
        let lines: Vec<String> = lines
            .filter_map(|line| async move { line.ok() })
            .map(|line| redact(&line.text.chars().take(LOG_LINE_CHARACTERS).collect::<String>(), secrets))
            .collect()
            .await;
        if lines.is_empty() { String::new() } else { format!("; its last lines:\n{}", lines.join("\n")) }
    }
}

/// How a container ended, for a sentence that begins with its name.
pub(crate) fn ended_with(code: i64) -> String {
    if code == KILLED {
        format!("was killed (exit code {code}): by a person, or by the kernel because memory ran out")
    } else {
        format!("crashed with exit code {code}")
    }
}

fn count(passes: &mut Passes, finding: &Finding, now: Duration) {
    match finding.verdict {
        Verdict::Ok | Verdict::Warn => {
            if passes.count == 0 {
                passes.since = now;
            }
            passes.count += 1;
        }
        Verdict::Fail => passes.count = 0,
        // Could not ask: says nothing either way.
        Verdict::Unknown => {}
    }
}

/// Removes known secrets from a text that is shown or kept.
fn redact(text: &str, secrets: &[String]) -> String {
    secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "***"))
}

/// Whom a probe asks.
pub fn target(instance: &Instance) -> ProbeTarget {
    let published = instance.ports.iter().filter_map(|port| {
        let (host, _) = port.host_ports?;
        let ip = port.host_ip.filter(|ip| !ip.is_unspecified()).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        Some((port.container.port, SocketAddr::new(ip, host)))
    });
    ProbeTarget {
        service: instance.service.clone(),
        container: instance.name.clone(),
        state: instance.state.clone(),
        addresses: instance.addresses.clone(),
        published: published.collect(),
        host_network: instance.addresses.keys().any(|network| network.as_str() == "host"),
    }
}

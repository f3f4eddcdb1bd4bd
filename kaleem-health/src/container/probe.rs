//! The containers of a service by what the engine knows of them: running, restarts, kills for memory, their own health check.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use kaleem_core::health::{Finding, HealthProbe};
use kaleem_core::names::ContainerName;
use kaleem_core::runtime::{Instance, InstanceHealth, InstanceStatus};

use super::{ended, undecided, unhealthy};
use crate::reach::{Engine, Reach, no_container, no_engine};
use crate::report::{Report, bounded, waited};
use crate::settings::ContainerSettings;

/// Asks the engine about the containers of a service.
pub struct ContainerProbe {
    name: String,
    settings: ContainerSettings,
    engine: Option<Engine>,
    /// Restarts that the last run saw, by container.
    before: Mutex<BTreeMap<ContainerName, u64>>,
}

impl ContainerProbe {
    /// A probe; nothing is asked yet.
    pub fn new(name: &str, settings: ContainerSettings, reach: &Reach) -> Self {
        Self { name: name.to_owned(), settings, engine: reach.engine.clone(), before: Mutex::default() }
    }

    async fn attempt(&self, timeout: Duration) -> Finding {
        let Some(engine) = &self.engine else { return no_engine("container") };
        let service = &self.settings.service;
        let containers = match engine.containers(service, timeout).await {
            Ok(containers) => containers,
            Err(finding) => return finding,
        };
        let wanted = self.settings.replicas;
        if containers.is_empty() && wanted > 0 {
            return no_container(service);
        }
        let mut report = Report::default();
        for one in &containers {
            self.judge(&mut report, one);
        }
        self.remember(&containers);
        let running = containers.iter().filter(|one| one.state.status == InstanceStatus::Running).count();
        let running = u32::try_from(running).unwrap_or(u32::MAX);
        if running < wanted && running > 0 {
            report.warn(
                format!("{running} of {wanted} containers of `{service}` run"),
                "see what became of the others: `kaleem status`, `docker ps -a`",
            );
        }
        report.measure("containers", f64::from(running), "");
        let decided = containers.iter().any(|one| one.state.health == InstanceHealth::Healthy);
        let check = if decided { ", and its own health check passes" } else { "" };
        report.finish(match (running, containers.first()) {
            (1, Some(one)) => format!("the container `{}` is running{check}", one.name),
            (running, _) => format!("{running} containers of `{service}` are running{check}"),
        })
    }

    fn judge(&self, report: &mut Report, one: &Instance) {
        let name = &one.name;
        if let Some(finding) = ended(name, &one.state) {
            report.take("", finding);
            return;
        }
        match one.state.health {
            InstanceHealth::Unhealthy => report.take("", unhealthy(name)),
            InstanceHealth::Starting => report.take("", undecided(name)),
            InstanceHealth::Healthy | InstanceHealth::None => {}
        }
        let logs = format!("see why it ended: `docker logs {name}`");
        let restarts = one.state.restart_count;
        report.measure("restarts", f64::from(u32::try_from(restarts).unwrap_or(u32::MAX)), "");
        let (warn, fail) = self.settings.restarts;
        let times = if restarts == 1 { "once".to_owned() } else { format!("{restarts} times") };
        let before = self.before.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied();
        if restarts >= fail {
            report.fail(format!("`{name}` was restarted {times} since it was made, and {fail} is the limit"), &logs);
        } else if let Some(grown) = before.map(|before| restarts.saturating_sub(before)).filter(|grown| *grown > 0) {
            report.warn(format!("`{name}` was restarted since the last look ({grown} more, {restarts} in all)"), &logs);
        } else if restarts >= warn {
            report.warn(format!("`{name}` is running, and was restarted {times} since it was made"), &logs);
        }
        if one.state.oom_killed {
            report.warn(
                format!("`{name}` is running, and the kernel killed a process of it for memory"),
                "raise its memory limit, or find out what takes the memory: `docker stats`",
            );
        }
    }

    fn remember(&self, containers: &[Instance]) {
        let seen = containers.iter().map(|one| (one.name.clone(), one.state.restart_count)).collect();
        *self.before.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }
}

#[async_trait]
impl HealthProbe for ContainerProbe {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "container"
    }

    async fn check(&self, timeout: Duration) -> Finding {
        bounded(timeout, self.attempt(timeout), || waited("the engine", timeout)).await
    }
}

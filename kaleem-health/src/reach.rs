//! By which ways a probe reaches what it asks: names of the network, and the engine for what is inside a container.

use std::sync::Arc;
use std::time::Duration;

use kaleem_core::health::{Finding, Resolver, Verdict};
use kaleem_core::names::{ProjectName, ServiceName};
use kaleem_core::remedy::{Remedy, one_line};
use kaleem_core::runtime::{Console, Inspect, Instance, InstanceStatus};

/// What a probe is given beside its settings.
#[derive(Clone)]
pub struct Reach {
    pub(crate) names: Arc<dyn Resolver>,
    pub(crate) engine: Option<Engine>,
}

/// The engine, as far as probes ask it, and whose containers it is asked for.
#[derive(Clone)]
pub(crate) struct Engine {
    project: ProjectName,
    inspect: Arc<dyn Inspect>,
    pub(crate) console: Arc<dyn Console>,
}

impl Reach {
    /// The network alone: probes of the kinds `container` and `command` are then unknown.
    pub fn network(names: Arc<dyn Resolver>) -> Self {
        Self { names, engine: None }
    }

    /// The same with the engine on which the containers of `project` run; an `Arc<dyn Runtime>` is both of its parts.
    #[must_use]
    pub fn with_engine(self, project: ProjectName, inspect: Arc<dyn Inspect>, console: Arc<dyn Console>) -> Self {
        Self { engine: Some(Engine { project, inspect, console }), ..self }
    }
}

impl std::fmt::Debug for Reach {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Reach")
    }
}

impl Engine {
    /// The containers of a service that count: those that are up, and where none is, the one that ended last in the newest release. What
    /// is stopped beside one that runs is kept for going back, or was replaced.
    pub(crate) async fn containers(&self, service: &ServiceName, timeout: Duration) -> Result<Vec<Instance>, Finding> {
        let said = tokio::time::timeout(timeout, self.inspect.list(&self.project)).await.map_err(|_| {
            Finding::new(Verdict::Unknown, format!("the engine did not say within {timeout:?} which containers `{service}` has"))
                .with_remedy("check that the engine answers: `docker info`")
        })?;
        let all = said.map_err(|error| Finding::new(Verdict::Unknown, one_line(&error)).with_remedy(error.remedy()))?;
        let (up, down): (Vec<_>, Vec<_>) =
            all.into_iter().filter(|one| one.service == *service && !one.oneoff).partition(|one| is_up(one.state.status));
        if !up.is_empty() {
            return Ok(up);
        }
        // What was stopped on purpose is not started again by the engine; what failed usually would be.
        let last = down.into_iter().max_by_key(|one| (one.restart != kaleem_core::definition::RestartPolicy::No, one.release, one.number));
        Ok(last.into_iter().collect())
    }
}

fn is_up(status: InstanceStatus) -> bool {
    matches!(status, InstanceStatus::Running | InstanceStatus::Paused | InstanceStatus::Restarting)
}

/// What is said where there is no engine.
pub(crate) fn no_engine(kind: &str) -> Finding {
    Finding::new(Verdict::Unknown, format!("this program does not know the engine, which a {kind} probe asks"))
        .with_remedy("ask with `kaleem health`, or give the probes the engine")
}

/// What is said of a service without containers.
pub(crate) fn no_container(service: &ServiceName) -> Finding {
    Finding::new(Verdict::Fail, format!("`{service}` has no container"))
        .with_remedy("see what serves: `kaleem status`; `kaleem deploy` makes its containers")
}

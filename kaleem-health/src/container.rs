//! What the engine says of a container: nothing is asked over a wire here.

use kaleem_core::health::{Finding, ProbeTarget, Verdict};
use kaleem_core::names::ContainerName;
use kaleem_core::runtime::{InstanceHealth, InstanceState, InstanceStatus};

#[cfg(feature = "container")]
mod probe;

#[cfg(feature = "container")]
pub use probe::ContainerProbe;

/// Is it running? Whether it was restarted since somebody began to look is for the one who looks: an old restart says nothing about now.
pub(crate) fn running(target: &ProbeTarget) -> Finding {
    if let Some(finding) = not_running(target) {
        return finding;
    }
    let name = &target.container;
    match target.state.restart_count {
        0 => Finding::new(Verdict::Ok, format!("the container `{name}` is running")),
        restarts => {
            Finding::new(Verdict::Warn, format!("the container `{name}` is running, and was restarted {restarts} times since it was made"))
                .with_remedy(format!("see why it ended: `docker logs {name}`"))
        }
    }
}

/// What does its own health check say?
pub(crate) fn healthcheck(target: &ProbeTarget) -> Finding {
    if let Some(finding) = not_running(target) {
        return finding;
    }
    let name = &target.container;
    match target.state.health {
        InstanceHealth::Healthy => Finding::new(Verdict::Ok, format!("the health check of `{name}` passes")),
        InstanceHealth::Unhealthy => unhealthy(name),
        InstanceHealth::Starting => undecided(name),
        InstanceHealth::None => Finding::new(Verdict::Unknown, format!("the container `{name}` has no health check")).with_remedy(format!(
            "add `healthcheck:` to the service `{0}`, or `http`, `tcp` or `command` under [services.{0}.health]",
            target.service
        )),
    }
}

fn unhealthy(name: &ContainerName) -> Finding {
    Finding::new(Verdict::Fail, format!("the health check of `{name}` fails"))
        .with_remedy(format!("see what it said: `docker inspect --format '{{{{json .State.Health}}}}' {name}`"))
}

fn undecided(name: &ContainerName) -> Finding {
    Finding::new(Verdict::Unknown, format!("the health check of `{name}` has not decided yet"))
        .with_remedy("wait; a shorter `interval` of the health check decides sooner")
}

/// Why a container which does not run needs no further question; `None` when it runs.
pub(crate) fn not_running(target: &ProbeTarget) -> Option<Finding> {
    ended(&target.container, &target.state)
}

/// The same of a container by name.
pub(crate) fn ended(name: &ContainerName, state: &InstanceState) -> Option<Finding> {
    let logs = format!("see why: `docker logs {name}`");
    let (reason, remedy) = match state.status {
        InstanceStatus::Running => return None,
        InstanceStatus::Created => (
            format!("the container `{name}` was never started"),
            format!("see what the engine says: `docker inspect --format '{{{{.State.Error}}}}' {name}`"),
        ),
        InstanceStatus::Paused => (format!("the container `{name}` is paused"), format!("let it go on: `docker unpause {name}`")),
        InstanceStatus::Restarting => {
            (format!("the container `{name}` ended{} and waits to be restarted ({} times so far)", how(state), state.restart_count), logs)
        }
        InstanceStatus::Removing => (format!("the container `{name}` is being removed"), "find out who removes it".to_owned()),
        InstanceStatus::Exited => (format!("the container `{name}` ended{}", how(state)), logs),
        InstanceStatus::Dead => {
            (format!("the engine failed to remove the container `{name}`"), format!("remove it by hand: `docker rm -f {name}`"))
        }
    };
    Some(Finding::new(Verdict::Fail, reason).with_remedy(remedy))
}

fn how(state: &InstanceState) -> String {
    match (state.oom_killed, state.exit_code) {
        (true, _) => " because it used more memory than it may".to_owned(),
        (false, Some(code)) => format!(" with exit code {code}"),
        (false, None) => String::new(),
    }
}

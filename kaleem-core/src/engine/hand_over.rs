//! Steps around the one moment in which the ports of a service go to a gateway: the hand-over, the reload of who had kept an
//! address, and the upgrade of a gateway's program, which has no such moment.

use std::path::Path;
use std::time::Duration;

use crate::definition::NetworkAttachment;
use crate::engine::{Engine, StepError};
use crate::names::{ContainerName, GatewayName, ServiceName};
use crate::observed::nginx;
use crate::plan::{HandedOver, Plan, Step};
use crate::runtime::{InstanceStatus, Leaving, RuntimeError};

/// Time in which a web server must have tested its configuration: names that do not resolve take it a while.
const TEST: Duration = Duration::from_secs(20);
/// How often the same web server is asked again whose names do not resolve yet, and the time between.
const TESTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(200);

impl Engine {
    pub(crate) async fn hand_over(
        &self,
        plan: &Plan,
        step: &Step,
        from: &[HandedOver],
        to: &ContainerName,
        networks: &[NetworkAttachment],
    ) -> Result<String, StepError> {
        let failed = |source| StepError::Runtime { what: step.to_string(), source };
        let leaving: Vec<Leaving> = from.iter().map(|one| Leaving { container: one.container.clone(), stop: one.stop.clone() }).collect();
        let took = self.runtime.hand_over(plan.project(), &leaving, to, networks).await.map_err(failed)?;
        Ok(format!("nobody had the ports for {} ms at most", took.as_millis()))
    }

    /// Has nginx test its configuration and read it again. One that does not run has kept nothing.
    pub(crate) async fn reload(
        &self,
        plan: &Plan,
        service: &ServiceName,
        container: &ContainerName,
        step: &Step,
    ) -> Result<String, StepError> {
        let failed = |source| StepError::Runtime { what: step.to_string(), source };
        let found = self.runtime.inspect(container).await.map_err(failed)?;
        if found.is_none_or(|found| found.state.status != InstanceStatus::Running) {
            return Ok("it does not run".to_owned());
        }
        let command = nginx::command(self.runtime.as_ref(), container, "-t").await;
        let mut output = String::new();
        for _ in 0..TESTS {
            match self.runtime.exec(container, &command, TEST).await {
                Ok(ran) if ran.exit_code == 0 => {
                    self.runtime.signal(&self.owned(plan, container), "HUP").await.map_err(failed)?;
                    return Ok("it reads its configuration again".to_owned());
                }
                Ok(ran) => output = ran.output,
                Err(error @ RuntimeError::ExecTimedOut { .. }) => output = error.to_string(),
                Err(error) => return Err(failed(error)),
            }
            self.clock.sleep(PAUSE).await;
        }
        // A name that it cannot resolve is the usual reason; secrets have no place in what it prints, and are cut out all the same.
        let output = self.secrets_of(plan, service).iter().fold(output, |text, secret| text.replace(secret, "***"));
        Err(StepError::NotReloadable { container: container.clone(), test: command.join(" "), output: output.trim().to_owned() })
    }

    /// The same on the way back, where nothing may be in the way: a web server that cannot be reloaded keeps what it has.
    pub(crate) async fn unreload(
        &self,
        plan: &Plan,
        service: &ServiceName,
        container: &ContainerName,
        step: &Step,
    ) -> Result<(), StepError> {
        match self.reload(plan, service, container, step).await {
            Ok(_) | Err(StepError::NotReloadable { .. }) => Ok(()),
            Err(StepError::Runtime { source, .. }) if !crate::remedy::Remedy::is_transient(&source) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn upgrade(&self, gateway: &GatewayName, program: &Path, digest: &str) -> Result<String, StepError> {
        let failed = |source| StepError::Traffic { what: format!("upgrade {gateway}"), source };
        let version = self.control(gateway)?.traffic.upgrade(gateway, program).await.map_err(failed)?;
        Ok(format!("the program {version} ({digest}) serves"))
    }
}

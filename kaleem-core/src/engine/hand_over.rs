//! Steps around the one moment in which the ports of a service go to a gateway: the hand-over, the reload of who had kept an
//! address, and the upgrade of a gateway's program, which has no such moment.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use crate::definition::NetworkAttachment;
use crate::engine::{Engine, StepError};
use crate::names::{ContainerName, GatewayName, NetworkName, ServiceName};
use crate::observed::clients::Refresh;
use crate::observed::nginx;
use crate::plan::{HandedOver, KeptAddress, Plan, Step};
use crate::runtime::{InstanceStatus, Leaving, RuntimeError, StopPolicy};

/// Time in which a web server must have tested its configuration: names that do not resolve take it a while.
const TEST: Duration = Duration::from_secs(20);
/// How often the same web server is asked again whose names do not resolve yet, and the time between.
const TESTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(200);

/// Time that a web server has to end before it is started again: its clients wait for it.
const RESTART_GRACE: Duration = Duration::from_secs(2);

/// A web server that had kept the address of a service.
#[derive(Clone, Copy)]
pub(crate) struct Reloaded<'a> {
    /// Its service.
    pub(crate) service: &'a ServiceName,
    pub(crate) container: &'a ContainerName,
    pub(crate) of: &'a ServiceName,
    pub(crate) kept: Option<&'a KeptAddress>,
}

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
        let leaving =
            |one: &HandedOver| Leaving { container: one.container.clone(), stop: one.stop.clone(), addresses: one.addresses.clone() };
        let leaving: Vec<Leaving> = from.iter().map(leaving).collect();
        let inherited = Leaving::addresses_of(&leaving);
        self.reserve(plan, to, &inherited).await;
        let took = self.runtime.hand_over(plan.project(), &leaving, to, networks).await;
        self.runtime.release(plan.project()).await.map_err(failed)?;
        let took = took.map_err(failed)?;
        let dealt = self.runtime.inspect(to).await.map_err(failed)?.map(|found| found.addresses).unwrap_or_default();
        let addresses = inherited.iter().filter_map(|(network, address)| match dealt.get(network) {
            Some(dealt) if dealt == address => Some(format!(", it keeps {address} on {network}")),
            Some(dealt) => Some(format!(", it got {dealt} instead of {address} on {network}")),
            None => None,
        });
        let addresses: String = addresses.collect();
        Ok(format!("ports and names were unavailable for up to {} ms{addresses}", took.as_millis()))
    }

    /// Occupies what the engine would deal before `addresses`. Where that fails another address is dealt, and whoever had kept the old one is
    /// reloaded.
    pub(crate) async fn reserve(&self, plan: &Plan, like: &ContainerName, addresses: &BTreeMap<NetworkName, String>) {
        if !addresses.is_empty() {
            self.runtime.reserve(plan.project(), like, addresses).await.ok();
        }
    }

    /// Makes a web server look a name up again, where the address that it keeps is not right any more. One that does not run has kept nothing.
    pub(crate) async fn reload(&self, plan: &Plan, reloaded: &Reloaded<'_>, step: &Step) -> Result<String, StepError> {
        let failed = |source| StepError::Runtime { what: step.to_string(), source };
        let Reloaded { container, of, kept, .. } = *reloaded;
        let found = self.runtime.inspect(container).await.map_err(failed)?;
        let Some(found) = found.filter(|found| found.state.status == InstanceStatus::Running) else {
            return Ok("it does not run".to_owned());
        };
        let Some(kept) = kept else { return self.reload_now(plan, reloaded, step).await };
        let now = self.addresses_now(kept).await.map_err(failed)?;
        if now.is_empty() || now == kept.addresses {
            return Ok(format!("the address of {of} is the one that it has"));
        }
        match kept.refresh {
            Refresh::Reload => self.reload_now(plan, reloaded, step).await,
            Refresh::Restart => {
                let stop = StopPolicy { signal: None, grace: RESTART_GRACE };
                self.runtime.stop(&self.owned(plan, container), &stop).await.map_err(failed)?;
                self.runtime.start(&self.owned(plan, container), found.restart).await.map_err(failed)?;
                Ok("restarted: a reload would have carried the old address over".to_owned())
            }
            Refresh::Forbidden => {
                let list = |addresses: &BTreeMap<NetworkName, BTreeSet<String>>| {
                    addresses.values().flatten().cloned().collect::<Vec<_>>().join(", ")
                };
                let (kept, now) = (list(&kept.addresses), list(&now));
                Err(StepError::AddressMoved { container: container.clone(), of: of.clone(), kept, now })
            }
        }
    }

    /// The addresses of those that have the name now, on the networks that matter.
    async fn addresses_now(&self, kept: &KeptAddress) -> Result<BTreeMap<NetworkName, BTreeSet<String>>, RuntimeError> {
        let mut now: BTreeMap<NetworkName, BTreeSet<String>> = BTreeMap::new();
        for holder in &kept.holders {
            let Some(found) = self.runtime.inspect(holder).await? else { continue };
            if found.state.status != InstanceStatus::Running {
                continue;
            }
            for (network, address) in found.addresses.into_iter().filter(|(network, _)| kept.addresses.contains_key(network)) {
                now.entry(network).or_default().insert(address);
            }
        }
        Ok(now)
    }

    /// Has nginx test its configuration and read it again.
    async fn reload_now(&self, plan: &Plan, reloaded: &Reloaded<'_>, step: &Step) -> Result<String, StepError> {
        let failed = |source| StepError::Runtime { what: step.to_string(), source };
        let Reloaded { service, container, .. } = *reloaded;
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
    pub(crate) async fn unreload(&self, plan: &Plan, reloaded: &Reloaded<'_>, step: &Step) -> Result<(), StepError> {
        match self.reload(plan, reloaded, step).await {
            Ok(_) | Err(StepError::NotReloadable { .. } | StepError::AddressMoved { .. }) => Ok(()),
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

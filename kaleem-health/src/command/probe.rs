//! A command in the containers of a service: its exit code, and what it printed.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use kaleem_core::clock::{Clock, SystemClock};
use kaleem_core::health::{Finding, HealthProbe};
use kaleem_core::runtime::{Console, Instance};

use super::{ENGINE_ALLOWANCE, by_hand, run};
use crate::container::ended;
use crate::reach::{Engine, Reach, no_container, no_engine};
use crate::report::{Report, bounded, waited};
use crate::rules::Rules;
use crate::settings::{CommandSettings, SettingsError};

/// Runs a command in every container of a service that is up.
pub struct CommandProbe {
    name: String,
    settings: CommandSettings,
    program: String,
    rules: Rules,
    engine: Option<Engine>,
}

impl CommandProbe {
    /// A probe; nothing is run yet.
    ///
    /// # Errors
    /// [`SettingsError`] when there is no program, or a rule cannot be read.
    pub fn new(name: &str, settings: CommandSettings, reach: &Reach) -> Result<Self, SettingsError> {
        let rules = Rules::new(settings.contains.as_deref(), settings.pattern.as_deref(), &settings.json)?;
        let program = settings.command.first().filter(|program| !program.trim().is_empty()).cloned();
        let program = program.ok_or(SettingsError::NoProgram { kind: "command" })?;
        Ok(Self { name: name.to_owned(), settings, program, rules, engine: reach.engine.clone() })
    }

    async fn attempt(&self, timeout: Duration) -> Finding {
        let Some(engine) = &self.engine else { return no_engine("command") };
        let begun = SystemClock.monotonic();
        let service = &self.settings.service;
        let containers = match engine.containers(service, timeout).await {
            Ok(containers) if containers.is_empty() => return no_container(service),
            Ok(containers) => containers,
            Err(finding) => return finding,
        };
        let left = timeout.saturating_sub(SystemClock.monotonic().saturating_sub(begun));
        let findings = join_all(containers.iter().map(|one| self.ask(engine.console.as_ref(), one, left))).await;
        let well = findings.iter().map(|finding| finding.reason.clone()).collect::<Vec<_>>().join("; ");
        let mut report = Report::default();
        findings.into_iter().for_each(|finding| report.take("", finding));
        report.finish(well)
    }

    async fn ask(&self, console: &dyn Console, one: &Instance, timeout: Duration) -> Finding {
        let (name, program) = (&one.name, &self.program);
        if let Some(finding) = ended(name, &one.state) {
            return finding;
        }
        let slow = "find out why it hangs; a limit of its own (`timeout 5 …`) also ends it inside the container";
        let output = match run(console, name, &self.settings.command, timeout, slow).await {
            Ok(output) => output,
            Err(finding) => return finding,
        };
        let mut report = Report::default();
        let code = u8::try_from(output.exit_code).unwrap_or(u8::MAX);
        report.measure("exit_code", f64::from(code), "");
        let exited = format!("`{program}` in `{name}` exited with {code}");
        let wanted = self.settings.exit_code;
        if self.settings.exit_warn == Some(code) {
            report.warn(exited.clone(), by_hand(name, program));
        } else if code == wanted {
            self.rules.judge(
                &mut report,
                &format!("the output of `{program}` in `{name}`"),
                output.output.as_bytes(),
                &by_hand(name, program),
            );
        } else {
            let right = if wanted == 0 { String::new() } else { format!(", and {wanted} is right") };
            report.fail(format!("{exited}{right}"), by_hand(name, program));
        }
        report.finish(exited)
    }
}

#[async_trait]
impl HealthProbe for CommandProbe {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "command"
    }

    async fn check(&self, timeout: Duration) -> Finding {
        // The engine's own limit comes first, since it can say what happened.
        bounded(timeout + ENGINE_ALLOWANCE, self.attempt(timeout), || waited("the engine", timeout)).await
    }
}

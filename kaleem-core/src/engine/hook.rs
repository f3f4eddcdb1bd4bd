//! Hooks: programs of the operator, run on the host beside the steps of a plan.
//!
//! They get no secret and no more of the environment than the caller passes on, and they are ended with everything that
//! they started when their time is over or when somebody asks to go back.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::Hook;
use crate::engine::{Engine, StepError};
use crate::exec::{self, ExecRequest};
use crate::plan::Plan;

/// Time between two looks at whether somebody asked to go back.
const LOOK: Duration = Duration::from_millis(100);
/// How much of a hook's output is kept while it runs.
const OUTPUT_BYTES: usize = 256 * 1024;
/// How many of its last lines an error shows, and how much of each.
const LOG_LINES: usize = 10;
const LOG_LINE_CHARACTERS: usize = 300;

impl Engine {
    /// Runs a hook to its end; exit code 0 is success. It may run twice: a process that dies in it begins it again.
    pub(crate) async fn run_hook(&self, plan: &Plan, hook: &Hook, cut_short: &(dyn Fn() -> bool + Sync)) -> Result<String, StepError> {
        let Some((program, arguments)) = hook.command.split_first() else { return Ok("it names no program".to_owned()) };
        let request = ExecRequest {
            program: program.into(),
            arguments: arguments.to_vec(),
            environment: self.hook_variables(plan, hook),
            stdin: None,
            directory: Some(hook.directory.clone()),
            timeout: hook.timeout,
            max_output_bytes: OUTPUT_BYTES,
        };
        let running = exec::run(&request);
        tokio::pin!(running);
        let result = loop {
            tokio::select! {
                result = &mut running => break result,
                // Nothing of the plan is lost with it: dropping the run ends the program and all that it started.
                () = tokio::time::sleep(LOOK) => if cut_short() { return Err(StepError::CutShort) },
            }
        };
        let result = result.map_err(|source| StepError::HookNotRun { moment: hook.moment, source })?;
        if result.status.success() {
            return Ok("ended with exit code 0".to_owned());
        }
        let both = [result.stdout, result.stderr].concat();
        Err(StepError::HookFailed { moment: hook.moment, status: result.status, log: last_lines(&String::from_utf8_lossy(&both)) })
    }

    fn hook_variables(&self, plan: &Plan, hook: &Hook) -> BTreeMap<String, String> {
        let mut variables = self.hook_environment.clone();
        let own = [
            ("KALEEM_HOOK", hook.moment.to_string()),
            ("KALEEM_PROJECT", plan.project().to_string()),
            ("KALEEM_PLAN", plan.id.to_string()),
            ("KALEEM_RELEASE", plan.release.id.to_string()),
            ("KALEEM_PREVIOUS_RELEASE", plan.previous.map_or_else(String::new, |release| release.to_string())),
        ];
        variables.extend(own.into_iter().map(|(name, value)| (name.to_owned(), value)));
        variables
    }
}

fn last_lines(output: &str) -> String {
    let lines: Vec<String> = output.lines().map(|line| line.chars().take(LOG_LINE_CHARACTERS).collect()).collect();
    let from = lines.len().saturating_sub(LOG_LINES);
    match lines.get(from..) {
        Some(last) if !last.is_empty() => format!("; its last lines:\n{}", last.join("\n")),
        _ => String::new(),
    }
}

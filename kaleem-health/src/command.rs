//! A command in the container: 0 is well.

use std::time::Duration;

use kaleem_core::health::{Finding, ProbeTarget, Verdict};
use kaleem_core::names::ContainerName;
use kaleem_core::remedy::{Remedy, one_line};
use kaleem_core::runtime::{Console, ExecOutput, RuntimeError};

mod probe;

pub use probe::CommandProbe;

/// The engine's own limit comes first, since it can say what happened; this much later we stop waiting for the engine too.
const ENGINE_ALLOWANCE: Duration = Duration::from_millis(150);

/// Shells and engines give these when a program is not there or cannot be run: then nothing was asked.
const COULD_NOT_RUN: [i64; 2] = [126, 127];

/// Does it exit with 0?
pub(crate) async fn ask(console: &dyn Console, command: &[String], target: &ProbeTarget, timeout: Duration) -> Finding {
    let name = &target.container;
    let Some(program) = command.first() else {
        return Finding::new(Verdict::Unknown, "the command is empty")
            .with_remedy(format!("give `command` under [services.{}.health] a program", target.service));
    };
    let slow = format!("raise `timeout` under [services.{}.health], or find out why it hangs", target.service);
    match run(console, name, command, timeout, &slow).await {
        Ok(output) if output.exit_code == 0 => Finding::new(Verdict::Ok, format!("`{program}` in `{name}` exited with 0")),
        Ok(output) => Finding::new(Verdict::Fail, format!("`{program}` in `{name}` exited with {}", output.exit_code))
            .with_remedy(by_hand(name, program)),
        Err(finding) => finding,
    }
}

/// Arguments may hold a secret; the program does not.
fn by_hand(name: &ContainerName, program: &str) -> String {
    format!("run it yourself to see what it says: `docker exec {name} {program} …`")
}

/// Runs a command that has a program. What is no end of its own is a finding; `slow` is what to do when it took too long.
async fn run(
    console: &dyn Console,
    name: &ContainerName,
    command: &[String],
    timeout: Duration,
    slow: &str,
) -> Result<ExecOutput, Finding> {
    let program = command.first().map_or("", String::as_str);
    match tokio::time::timeout(timeout + ENGINE_ALLOWANCE, console.exec(name, command, timeout)).await {
        Ok(Ok(output)) if COULD_NOT_RUN.contains(&output.exit_code) => {
            Err(Finding::new(Verdict::Unknown, format!("`{program}` could not be run in `{name}` (exit code {})", output.exit_code))
                .with_remedy(format!("check that the image holds `{program}` and may run it")))
        }
        Ok(Ok(output)) => Ok(output),
        Ok(Err(RuntimeError::ExecTimedOut { .. })) => {
            Err(Finding::new(Verdict::Fail, format!("`{program}` in `{name}` did not end within {timeout:?}")).with_remedy(slow))
        }
        Ok(Err(error)) => Err(Finding::new(Verdict::Unknown, format!("`{program}` could not be run in `{name}`: {}", one_line(&error)))
            .with_remedy(error.remedy())),
        Err(_) => {
            Err(Finding::new(Verdict::Unknown, format!("the engine did not say within {timeout:?} how `{program}` in `{name}` ended"))
                .with_remedy("check that the engine answers: `docker info`"))
        }
    }
}

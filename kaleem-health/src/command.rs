//! A command in the container: 0 is well.

use std::time::Duration;

use kaleem_core::health::{Finding, ProbeTarget, Verdict};
use kaleem_core::remedy::{Remedy, one_line};
use kaleem_core::runtime::{Console, RuntimeError};

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
    // Arguments may hold a secret; the program does not.
    match tokio::time::timeout(timeout + ENGINE_ALLOWANCE, console.exec(name, command, timeout)).await {
        Ok(Ok(output)) if output.exit_code == 0 => Finding::new(Verdict::Ok, format!("`{program}` in `{name}` exited with 0")),
        Ok(Ok(output)) if COULD_NOT_RUN.contains(&output.exit_code) => {
            Finding::new(Verdict::Unknown, format!("`{program}` could not be run in `{name}` (exit code {})", output.exit_code))
                .with_remedy(format!("check that the image holds `{program}` and may run it"))
        }
        Ok(Ok(output)) => Finding::new(Verdict::Fail, format!("`{program}` in `{name}` exited with {}", output.exit_code))
            .with_remedy(format!("run it yourself to see what it says: `docker exec {name} {program} …`")),
        Ok(Err(RuntimeError::ExecTimedOut { .. })) => {
            Finding::new(Verdict::Fail, format!("`{program}` in `{name}` did not end within {timeout:?}"))
                .with_remedy(format!("raise `timeout` under [services.{}.health], or find out why it hangs", target.service))
        }
        Ok(Err(error)) => Finding::new(Verdict::Unknown, format!("`{program}` could not be run in `{name}`: {}", one_line(&error)))
            .with_remedy(error.remedy()),
        Err(_) => Finding::new(Verdict::Unknown, format!("the engine did not say within {timeout:?} how `{program}` in `{name}` ended"))
            .with_remedy("check that the engine answers: `docker info`"),
    }
}

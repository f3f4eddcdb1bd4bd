//! How this process ends: by a signal, or by a fault that it was told to have.

use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::env::Settings;
use crate::say;

/// Code of a crash that was asked for.
const CRASHED: u8 = 70;

/// Runs `work` with the faults that end it, or make it grow.
pub(crate) async fn with_faults(settings: &Settings, work: impl Future<Output = ExitCode>) -> ExitCode {
    if let Some(code) = settings.faults.exit_at_once {
        say::line(&format!("shop: ends at once with {code}, as SHOP_FAULT says"));
        return ExitCode::from(code);
    }
    tokio::select! {
        code = work => code,
        () = after(settings.faults.crash_after) => {
            say::line("shop: crashes, as SHOP_FAULT says");
            ExitCode::from(CRASHED)
        }
        () = leak(settings.faults.leak_mib_per_second) => ExitCode::FAILURE,
    }
}

/// Becomes true when SIGTERM or SIGINT came.
pub(crate) fn signalled(ignore_sigterm: bool) -> Result<watch::Receiver<bool>, String> {
    let (sender, receiver) = watch::channel(false);
    let could_not = |error| format!("could not listen for signals: {error}");
    let mut terminate = signal(SignalKind::terminate()).map_err(could_not)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(could_not)?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if ignore_sigterm {
                say::line("shop: asked to stop, and goes on, as SHOP_FAULT says");
            } else {
                sender.send_replace(true);
            }
        }
    });
    Ok(receiver)
}

/// Returns when the process is to stop.
pub(crate) async fn wait(stopped: &mut watch::Receiver<bool>) {
    if stopped.wait_for(|stopped| *stopped).await.is_err() {
        // Nobody listens for signals any more; then nobody can ask.
        std::future::pending::<()>().await;
    }
}

async fn after(delay: Option<Duration>) {
    match delay {
        Some(delay) => tokio::time::sleep(delay).await,
        None => std::future::pending().await,
    }
}

async fn leak(mib_per_second: Option<usize>) {
    let Some(mib) = mib_per_second else { return std::future::pending().await };
    let mut kept = Vec::new();
    loop {
        // Touched, not only asked for: otherwise the kernel gives nothing.
        kept.push(vec![1_u8; mib * 1024 * 1024 / 10]);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

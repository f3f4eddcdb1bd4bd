//! The worker: takes orders from the queue, and finishes the one it has before it stops.

use std::process::ExitCode;
use std::time::Duration;

use crate::env::Settings;
use crate::store::Redis;
use crate::{say, stop};

/// Works until it is asked to stop.
pub(crate) async fn run(settings: Settings) -> ExitCode {
    match work(&settings).await {
        Ok(done) => {
            say::line(&format!("shop {} worker: stopped after {done} orders", settings.version));
            ExitCode::SUCCESS
        }
        Err(reason) => {
            say::line(&format!("shop {} worker: {reason}", settings.version));
            ExitCode::FAILURE
        }
    }
}

async fn work(settings: &Settings) -> Result<u64, String> {
    let stopped = stop::signalled(settings.faults.ignore_sigterm)?;
    let redis = Redis::new(settings.redis_url.as_deref().ok_or("a worker needs REDIS_URL")?)?;
    say::line(&format!("shop {} worker: takes orders", settings.version));
    let mut done = 0;
    while !*stopped.borrow() {
        match one(&redis, settings).await {
            Ok(taken) => done += u64::from(taken),
            Err(reason) => {
                say::line(&format!("shop {} worker: {reason}; tries again", settings.version));
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    }
    Ok(done)
}

async fn one(redis: &Redis, settings: &Settings) -> Result<bool, String> {
    if !settings.faults.never_healthy {
        redis.beat(&settings.host).await?;
    }
    let Some(id) = redis.take().await? else { return Ok(false) };
    if let Some(delay) = settings.faults.slow_requests {
        tokio::time::sleep(delay).await;
    }
    redis.finish(&id).await?;
    Ok(true)
}

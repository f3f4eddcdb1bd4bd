//! Commands in containers of the fake, and their output.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tokio::sync::watch;

use super::world::refused;
use super::{ExecReply, FakeOperation, FakeRuntime};
use crate::names::ContainerName;
use crate::pipe::{ByteSender, ByteStream};
use crate::runtime::{Console, ExecOutput, InstanceStatus, LogLine, LogRange, RuntimeError};

/// The command that stands for a container's own health check.
pub const CHECK: &str = "(health check)";

#[async_trait]
impl Console for FakeRuntime {
    async fn exec(&self, container: &ContainerName, command: &[String], timeout: Duration) -> Result<ExecOutput, RuntimeError> {
        self.call(FakeOperation::Exec, container, |world| match world.containers.get(container) {
            None => Err(RuntimeError::NotFound { name: container.to_string() }),
            Some(found) if found.status != InstanceStatus::Running => {
                Err(refused("run a command", 409, format!("Container {container} is not running")))
            }
            Some(_) => Ok(()),
        })?;
        let on_exec = self.script().on_exec.clone();
        match on_exec.and_then(|answer| answer(container, command)) {
            Some(ExecReply::Ends(output)) => Ok(output),
            Some(ExecReply::Hangs) => Err(RuntimeError::ExecTimedOut { name: container.clone(), timeout }),
            None => {
                let program = command.first().map_or("", String::as_str);
                Err(refused("run a command", 400, format!("exec: \"{program}\": executable file not found in $PATH")))
            }
        }
    }

    async fn check(&self, container: &ContainerName, timeout: Duration) -> Result<Option<ExecOutput>, RuntimeError> {
        let on_exec = self.script().on_exec.clone();
        // The command of an image's check is not known here; a test that wants one run answers this.
        let command = [CHECK.to_owned()];
        match on_exec.and_then(|answer| answer(container, &command)) {
            Some(_) => self.exec(container, &command, timeout).await.map(Some),
            None => Ok(None),
        }
    }

    async fn attach(
        &self,
        container: &ContainerName,
        command: &[String],
        input: Option<ByteStream>,
        output: &mut ByteSender,
        timeout: Duration,
    ) -> Result<ExecOutput, RuntimeError> {
        let broken = |side| move |source| RuntimeError::StreamBroken { name: container.clone(), side, source };
        let answer = self.exec(container, command, timeout).await?;
        if let Some(mut input) = input {
            tokio::io::copy(&mut input, &mut tokio::io::sink()).await.map_err(broken("input"))?;
        }
        output.send(answer.output.into_bytes()).await.map_err(broken("output"))?;
        Ok(ExecOutput { exit_code: answer.exit_code, output: String::new() })
    }

    async fn logs(
        &self,
        container: &ContainerName,
        range: &LogRange,
    ) -> Result<BoxStream<'static, Result<LogLine, RuntimeError>>, RuntimeError> {
        let lines = self.call(FakeOperation::Logs, container, |world| match world.containers.get(container) {
            None => Err(RuntimeError::NotFound { name: container.to_string() }),
            Some(found) => Ok(found.logs.clone()),
        })?;
        let written = lines.len();
        let skipped = range.tail.and_then(|tail| usize::try_from(tail).ok()).map_or(0, |tail| written.saturating_sub(tail));
        let since = range.since.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok()).map(|since| since.to_string());
        let is_new = move |line: &LogLine| since.as_ref().is_none_or(|since| line.time > *since);
        let past: Vec<_> = lines.into_iter().skip(skipped).filter(is_new).map(Ok).collect();
        if !range.follow {
            return Ok(stream::iter(past).boxed());
        }
        let follower =
            Follower { fake: self.clone(), container: container.clone(), next: written, changed: self.shared.changed.subscribe() };
        let coming = stream::unfold(follower, |mut follower| async move { follower.line().await.map(|line| (Ok(line), follower)) });
        Ok(stream::iter(past).chain(coming).boxed())
    }
}

struct Follower {
    fake: FakeRuntime,
    container: ContainerName,
    next: usize,
    changed: watch::Receiver<u64>,
}

impl Follower {
    /// The next line; `None` once the container has ended and everything was told.
    async fn line(&mut self) -> Option<LogLine> {
        loop {
            self.changed.borrow_and_update();
            {
                let world = self.fake.world();
                let container = world.containers.get(&self.container)?;
                if let Some(line) = container.logs.get(self.next) {
                    self.next = self.next.saturating_add(1);
                    return Some(line.clone());
                }
                if !container.is_alive() {
                    return None;
                }
            }
            self.changed.changed().await.ok()?;
        }
    }
}

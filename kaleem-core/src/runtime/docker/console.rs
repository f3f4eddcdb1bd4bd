//! Commands in containers, and their output.

use std::collections::VecDeque;
use std::time::Duration;

use async_trait::async_trait;
use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bollard::query_parameters::LogsOptions;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::DockerRuntime;
use super::failure::Failure;
use super::instance::{cut, status_of};
use crate::names::ContainerName;
use crate::pipe::{ByteSender, ByteStream};
use crate::runtime::{Console, ExecOutput, InstanceStatus, LogLine, LogRange, RuntimeError};

/// How much output of a command is kept.
const OUTPUT_BYTES: usize = 64 * 1024;
/// How much of an input is sent at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// Longest line that is put together from pieces; a longer one is told in parts.
const LINE_BYTES: usize = 1024 * 1024;

/// What is told of a command that could not be run.
const RUN: &str = "run a command in the container";

impl DockerRuntime {
    /// Starts a command. Answers its id, and its output.
    async fn begin(
        &self,
        container: &ContainerName,
        command: &[String],
        has_input: bool,
    ) -> Result<(String, StartExecResults), RuntimeError> {
        let options = CreateExecOptions {
            attach_stdin: Some(has_input),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(command.to_vec()),
            ..CreateExecOptions::default()
        };
        let created = self.ask(RUN, self.client.create_exec(container.as_str(), options)).await;
        let created = created.map_err(|failure| match failure.is_missing() {
            true => RuntimeError::NotFound { name: container.to_string() },
            false => failure.into_error(),
        })?;
        let started = self.ask(RUN, self.client.start_exec(&created.id, None::<StartExecOptions>)).await.map_err(Failure::into_error)?;
        Ok((created.id, started))
    }

    /// How a command ended whose output has ended.
    async fn exit_code(&self, id: &str) -> Result<i64, RuntimeError> {
        let ended = self.ask(RUN, self.client.inspect_exec(id)).await.map_err(Failure::into_error)?;
        ended.exit_code.ok_or_else(|| super::nonsense(RUN, "the command has ended and has no exit code"))
    }

    async fn run(&self, container: &ContainerName, command: &[String]) -> Result<ExecOutput, RuntimeError> {
        let (id, started) = self.begin(container, command, false).await?;
        let mut output = Vec::new();
        if let StartExecResults::Attached { output: mut pieces, input: _input } = started {
            while let Some(piece) = pieces.next().await {
                let piece = piece.map_err(|error| Failure::new(RUN, &self.endpoint, error).into_error())?;
                // It is read to its end also when nothing more is kept: else the command would block.
                let room = OUTPUT_BYTES.saturating_sub(output.len());
                output.extend(piece.as_ref().iter().take(room));
            }
        }
        let exit_code = self.exit_code(&id).await?;
        Ok(ExecOutput { exit_code, output: cut(&String::from_utf8_lossy(&output), OUTPUT_BYTES) })
    }

    async fn run_attached(
        &self,
        container: &ContainerName,
        command: &[String],
        input: Option<ByteStream>,
        output: &mut ByteSender,
    ) -> Result<ExecOutput, RuntimeError> {
        let (id, started) = self.begin(container, command, input.is_some()).await?;
        let mut errors = Vec::new();
        if let StartExecResults::Attached { output: mut pieces, input: mut stdin } = started {
            let broken = |side| move |source| RuntimeError::StreamBroken { name: container.clone(), side, source };
            let ended = tokio::sync::Notify::new();
            let feeding = async {
                let Some(mut input) = input else { return Ok(()) };
                let mut chunk = vec![0; CHUNK_BYTES];
                let copying = async {
                    loop {
                        let read = input.read(&mut chunk).await.map_err(broken("input"))?;
                        if read == 0 {
                            return stdin.shutdown().await.map_err(broken("input"));
                        }
                        // A command need not read its input; its exit code says whether that was right.
                        if stdin.write_all(chunk.get(..read).unwrap_or_default()).await.is_err() {
                            return Ok(());
                        }
                    }
                };
                tokio::select! {
                    copied = copying => copied,
                    () = ended.notified() => Ok(()),
                }
            };
            let draining = async {
                while let Some(piece) = pieces.next().await {
                    match piece.map_err(|error| Failure::new(RUN, &self.endpoint, error).into_error())? {
                        LogOutput::StdErr { message } => {
                            let room = OUTPUT_BYTES.saturating_sub(errors.len());
                            errors.extend(message.iter().take(room));
                        }
                        piece => output.send(piece.into_bytes().to_vec()).await.map_err(broken("output"))?,
                    }
                }
                ended.notify_one();
                Ok(())
            };
            tokio::try_join!(feeding, draining)?;
        }
        let exit_code = self.exit_code(&id).await?;
        Ok(ExecOutput { exit_code, output: cut(&String::from_utf8_lossy(&errors), OUTPUT_BYTES) })
    }
}

/// The command of a health check; `None` where there is no check.
fn check_command(test: &[String], shell: Option<&Vec<String>>) -> Option<Vec<String>> {
    let (kind, rest) = test.split_first()?;
    match kind.as_str() {
        "CMD" if !rest.is_empty() => Some(rest.to_vec()),
        "CMD-SHELL" => {
            let shell = shell.filter(|shell| !shell.is_empty()).cloned().unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
            Some(shell.into_iter().chain(rest.first().cloned()).collect())
        }
        _ => None,
    }
}

#[async_trait]
impl Console for DockerRuntime {
    async fn check(&self, container: &ContainerName, timeout: Duration) -> Result<Option<ExecOutput>, RuntimeError> {
        let Some(found) = self.look(container.as_str()).await? else { return Err(RuntimeError::NotFound { name: container.to_string() }) };
        let config = found.config.unwrap_or_default();
        let check = config.healthcheck.unwrap_or_default();
        let Some(command) = check_command(check.test.as_deref().unwrap_or_default(), config.shell.as_ref()) else { return Ok(None) };
        let own = check.timeout.and_then(|nanos| u64::try_from(nanos).ok()).filter(|nanos| *nanos > 0).map(Duration::from_nanos);
        self.exec(container, &command, own.map_or(timeout, |own| own.min(timeout))).await.map(Some)
    }

    async fn attach(
        &self,
        container: &ContainerName,
        command: &[String],
        input: Option<ByteStream>,
        output: &mut ByteSender,
        timeout: Duration,
    ) -> Result<ExecOutput, RuntimeError> {
        match tokio::time::timeout(timeout, Box::pin(self.run_attached(container, command, input, output))).await {
            Ok(answer) => answer,
            Err(_) => Err(RuntimeError::ExecTimedOut { name: container.clone(), timeout }),
        }
    }

    async fn exec(&self, container: &ContainerName, command: &[String], timeout: Duration) -> Result<ExecOutput, RuntimeError> {
        match tokio::time::timeout(timeout, Box::pin(self.run(container, command))).await {
            Ok(answer) => answer,
            Err(_) => Err(RuntimeError::ExecTimedOut { name: container.clone(), timeout }),
        }
    }

    async fn logs(
        &self,
        container: &ContainerName,
        range: &LogRange,
    ) -> Result<BoxStream<'static, Result<LogLine, RuntimeError>>, RuntimeError> {
        let Some(found) = self.look(container.as_str()).await? else {
            return Err(RuntimeError::NotFound { name: container.to_string() });
        };
        if status_of(&found) == InstanceStatus::Created && !range.follow {
            return Ok(stream::empty().boxed());
        }
        let options = LogsOptions {
            follow: range.follow,
            stdout: true,
            stderr: true,
            timestamps: true,
            since: range.since.and_then(|since| i32::try_from(since).ok()).unwrap_or(0),
            tail: range.tail.map_or_else(|| "all".to_owned(), |tail| tail.to_string()),
            ..LogsOptions::default()
        };
        let (client, id) = (self.client.clone(), found.id.unwrap_or_else(|| container.to_string()));
        let pieces = client.logs(&id, Some(options)).boxed();
        let lines = Lines {
            pieces,
            endpoint: self.endpoint.clone(),
            ready: VecDeque::new(),
            stdout: Partial::default(),
            stderr: Partial::default(),
        };
        Ok(stream::unfold(Some(lines), |lines| async move { lines?.next().await }).boxed())
    }
}

/// The beginning of a line whose end has not come yet.
#[derive(Default)]
struct Partial {
    time: Option<String>,
    text: Vec<u8>,
}

impl Partial {
    /// Adds a piece, which begins with a time, and gives the lines which end in it.
    fn add(&mut self, stderr: bool, piece: &[u8], lines: &mut VecDeque<LogLine>) {
        let (time, mut rest) = split_time(piece);
        if self.time.is_none() {
            self.time = time;
        }
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = rest.split_at(end);
            self.text.extend_from_slice(line);
            lines.extend(self.take(stderr));
            rest = after.get(1..).unwrap_or_default();
            if !rest.is_empty() {
                let (time, after) = split_time(rest);
                (self.time, rest) = (time, after);
            }
        }
        self.text.extend_from_slice(rest);
        if self.text.len() > LINE_BYTES {
            lines.extend(self.take(stderr));
        }
    }

    /// The line so far, if anything of it came.
    fn take(&mut self, stderr: bool) -> Option<LogLine> {
        let (time, text) = (self.time.take(), std::mem::take(&mut self.text));
        let text = text.strip_suffix(b"\r").unwrap_or(&text);
        if time.is_none() && text.is_empty() {
            return None;
        }
        Some(LogLine { stderr, time: time.unwrap_or_default(), text: String::from_utf8_lossy(text).into_owned() })
    }
}

/// The time which the engine puts before each piece of output.
fn split_time(piece: &[u8]) -> (Option<String>, &[u8]) {
    let end = piece.iter().take(40).position(|byte| *byte == b' ' || *byte == b'\n');
    let (time, rest) = match end {
        Some(end) => piece.split_at(end),
        None => (piece, &[] as &[u8]),
    };
    let is_time = time.len() >= 20 && time.first().is_some_and(u8::is_ascii_digit) && time.contains(&b'T');
    match std::str::from_utf8(time) {
        Ok(text) if is_time => (Some(text.to_owned()), rest.strip_prefix(b" ").unwrap_or(rest)),
        _ => (None, piece),
    }
}

struct Lines {
    pieces: BoxStream<'static, Result<LogOutput, bollard::errors::Error>>,
    endpoint: String,
    ready: VecDeque<LogLine>,
    stdout: Partial,
    stderr: Partial,
}

impl Lines {
    async fn next(mut self) -> Option<(Result<LogLine, RuntimeError>, Option<Self>)> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some((Ok(line), Some(self)));
            }
            match self.pieces.next().await {
                Some(Ok(LogOutput::StdErr { message })) => self.stderr.add(true, &message, &mut self.ready),
                Some(Ok(piece)) => self.stdout.add(false, &piece.into_bytes(), &mut self.ready),
                Some(Err(error)) => {
                    let error = Failure::new("read the output of the container", &self.endpoint, error).into_error();
                    return Some((Err(error), None));
                }
                None => {
                    self.ready.extend(self.stdout.take(false));
                    self.ready.extend(self.stderr.take(true));
                    if self.ready.is_empty() {
                        return None;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_output_become_lines_with_their_times() {
        let mut partial = Partial::default();
        let mut lines = VecDeque::new();
        partial.add(false, b"2026-01-01T00:00:00.000000001Z one\n", &mut lines);
        partial.add(false, b"2026-01-01T00:00:00.000000002Z two, ", &mut lines);
        partial.add(false, b"2026-01-01T00:00:00.000000003Z in two pieces\r\n2026-01-01T00:00:00.000000004Z \n", &mut lines);
        let told: Vec<_> = lines.iter().map(|line| (line.time.as_str(), line.text.as_str())).collect();
        assert_eq!(
            told,
            [
                ("2026-01-01T00:00:00.000000001Z", "one"),
                ("2026-01-01T00:00:00.000000002Z", "two, in two pieces"),
                ("2026-01-01T00:00:00.000000004Z", ""),
            ]
        );
        assert_eq!(partial.take(false), None, "nothing is left");
    }
}

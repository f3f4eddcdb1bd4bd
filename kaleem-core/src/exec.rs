//! The one door to child processes: no shell, no inherited environment, no zombie, no endless output, no endless wait.
//!
//! A program gets exactly the environment that the caller names, and what it must not show in its argument list comes
//! over its standard input. Nothing here judges an exit status, and nothing here logs.

mod piped;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

pub use piped::{PipedError, PipedResult, run_piped};

use crate::remedy::Remedy;
use crate::secret::Secret;

/// How long a descendant may hold the output after the program itself has ended, before it is killed.
const OUTPUT_GRACE: Duration = Duration::from_secs(1);
/// How long a killed program is waited for; after that the runtime collects it in the background.
const REAP_GRACE: Duration = Duration::from_secs(5);
const CHUNK_BYTES: usize = 16 * 1024;

/// A program that is to run.
///
/// `Debug` shows the names of the environment, never its values: they may be secret. Arguments are shown, since every
/// user of the host can read them anyway: no secret belongs there.
#[derive(Clone)]
pub struct ExecRequest {
    /// A path, or a name that is looked for in the `PATH` of `environment`.
    pub program: PathBuf,
    /// Its arguments, without its own name.
    pub arguments: Vec<String>,
    /// Its whole environment: nothing is inherited, so the caller passes `PATH` and `HOME` where they are needed.
    pub environment: BTreeMap<String, String>,
    /// What it reads on its standard input; `None` is an empty input.
    pub stdin: Option<Secret<Vec<u8>>>,
    /// The directory it starts in; `None` is that of this process.
    pub directory: Option<PathBuf>,
    /// The whole run, from start to exit; at its end the program and its descendants are killed.
    pub timeout: Duration,
    /// How much of each of the two outputs is kept; what comes after is read and dropped. When streaming: of each line.
    pub max_output_bytes: usize,
}

impl fmt::Debug for ExecRequest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ExecRequest")
            .field("program", &self.program)
            .field("arguments", &self.arguments)
            .field("environment", &self.environment.keys().collect::<Vec<_>>())
            .field("stdin", &self.stdin)
            .field("directory", &self.directory)
            .field("timeout", &self.timeout)
            .field("max_output_bytes", &self.max_output_bytes)
            .finish()
    }
}

/// How a program ended, and what it wrote.
///
/// `Debug` shows lengths only: the output of a credential store is a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct ExecResult {
    /// Exit code or signal.
    pub status: ExitStatus,
    /// Standard output, the first `max_output_bytes` of it.
    pub stdout: Vec<u8>,
    /// Standard error, the first `max_output_bytes` of it.
    pub stderr: Vec<u8>,
    /// Whether either output was longer than what was kept.
    pub truncated: bool,
}

impl fmt::Debug for ExecResult {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ExecResult")
            .field("status", &self.status)
            .field("stdout_bytes", &self.stdout.len())
            .field("stderr_bytes", &self.stderr.len())
            .field("truncated", &self.truncated)
            .finish()
    }
}

/// Which output a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Why a program could not be run to its end. An exit code other than 0 is no such error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecError {
    /// There is no such program; nothing ran.
    #[error("there is no program `{}`", program.display())]
    NotFound {
        /// The program as it was asked for.
        program: PathBuf,
    },
    /// The directory to start in cannot be used; nothing ran.
    #[error("could not enter {} to run `{}`", directory.display(), program.display())]
    Directory {
        /// The program.
        program: PathBuf,
        /// The directory.
        directory: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It could not be started; nothing ran.
    #[error("could not start `{}`", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ran, but the pipes to it or the wait for it failed; it was killed.
    #[error("lost touch with `{}`", program.display())]
    Broken {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It did not end in time; it and its descendants were killed.
    #[error("`{}` did not end within {} s and was killed", program.display(), timeout.as_secs_f64())]
    TimedOut {
        /// The program.
        program: PathBuf,
        /// The limit.
        timeout: Duration,
    },
}

impl Remedy for ExecError {
    fn remedy(&self) -> String {
        match self {
            Self::NotFound { program } => format!("install `{}`, or put its directory on PATH", program.display()),
            Self::Directory { directory, .. } => {
                format!("check that {} is a directory which this user may enter", directory.display())
            }
            Self::Start { program, .. } => format!("check that `{}` is a program which this user may run", program.display()),
            Self::Broken { program, .. } => format!("run `{}` by hand to see what it does", program.display()),
            Self::TimedOut { program, .. } => {
                format!("run `{}` by hand to see what it waits for, or allow it more time", program.display())
            }
        }
    }
}

/// Runs a program and returns what it wrote.
///
/// The program leads a process group of its own, so a Ctrl-C at the terminal does not reach it. When the future is
/// dropped, the whole group is killed. A descendant that still holds the output one second after the program ended is
/// killed too.
///
/// # Errors
///
/// [`ExecError`]; no process of the group is left running.
pub async fn run(request: &ExecRequest) -> Result<ExecResult, ExecError> {
    let (mut stdout, mut stderr, mut truncated) = (Vec::new(), Vec::new(), false);
    let status = supervise(request, &mut |stream, bytes| {
        let kept = match stream {
            OutputStream::Stdout => &mut stdout,
            OutputStream::Stderr => &mut stderr,
        };
        truncated |= keep(kept, bytes, request.max_output_bytes);
    })
    .await?;
    Ok(ExecResult { status, stdout, stderr, truncated })
}

/// Runs a program and hands over each line as it comes, without its end; bytes that are not UTF-8 are replaced.
///
/// `on_line` is called in the order in which lines were read; between the two outputs that order is only roughly the one
/// in which they were written. Use it for long commands. Everything else is as with [`run`].
///
/// # Errors
///
/// [`ExecError`]; no process of the group is left running.
pub async fn run_streaming(request: &ExecRequest, mut on_line: impl FnMut(OutputStream, &str) + Send) -> Result<ExitStatus, ExecError> {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let status = supervise(request, &mut |stream, bytes| {
        let line = match stream {
            OutputStream::Stdout => &mut stdout,
            OutputStream::Stderr => &mut stderr,
        };
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let ended = piece.strip_suffix(b"\n");
            keep(line, ended.unwrap_or(piece), request.max_output_bytes);
            if ended.is_some() {
                emit(line, stream, &mut on_line);
            }
        }
    })
    .await?;
    for (mut rest, stream) in [(stdout, OutputStream::Stdout), (stderr, OutputStream::Stderr)] {
        if !rest.is_empty() {
            emit(&mut rest, stream, &mut on_line);
        }
    }
    Ok(status)
}

fn emit(line: &mut Vec<u8>, stream: OutputStream, on_line: &mut (impl FnMut(OutputStream, &str) + Send)) {
    let text = line.strip_suffix(b"\r").unwrap_or(line);
    on_line(stream, &String::from_utf8_lossy(text));
    line.clear();
}

/// Appends as much of `bytes` as the limit allows; tells whether some had to be dropped.
fn keep(kept: &mut Vec<u8>, bytes: &[u8], limit: usize) -> bool {
    let room = limit.saturating_sub(kept.len());
    let (fits, rest) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
    kept.extend_from_slice(fits);
    !rest.is_empty()
}

type Sink<'a> = &'a mut (dyn FnMut(OutputStream, &[u8]) + Send);

/// Kills the group when a run is given up: at a timeout, at an error, and when the future is dropped.
struct Group(Option<Pid>);

impl Group {
    fn kill(&mut self) {
        if let Some(leader) = self.0.take() {
            // A group that is gone already is what is wanted.
            kill_process_group(leader, Signal::KILL).ok();
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn supervise(request: &ExecRequest, sink: Sink<'_>) -> Result<ExitStatus, ExecError> {
    let mut child = start(request, request.stdin.is_some())?;
    let mut group = Group(leader(&child));
    let outcome = tokio::time::timeout(request.timeout, Box::pin(converse(&mut child, &mut group, request, sink))).await;
    let failure = match outcome {
        Ok(Ok(status)) => {
            // The id may belong to somebody else from here on.
            group.0 = None;
            return Ok(status);
        }
        Ok(Err(source)) => ExecError::Broken { program: request.program.clone(), source },
        Err(_) => ExecError::TimedOut { program: request.program.clone(), timeout: request.timeout },
    };
    group.kill();
    // Without this wait the killed program would stay a zombie until the runtime next looks.
    tokio::time::timeout(REAP_GRACE, child.wait()).await.ok();
    Err(failure)
}

fn leader(child: &Child) -> Option<Pid> {
    child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
}

fn start(request: &ExecRequest, reads: bool) -> Result<Child, ExecError> {
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    let mut command = Command::new(&request.program);
    command
        .args(&request.arguments)
        .env_clear()
        .envs(&request.environment)
        .stdin(if reads { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    if let Some(directory) = &request.directory {
        // The engine's own error would not tell a missing directory from a missing program.
        if let Err(source) = directory.read_dir() {
            return Err(ExecError::Directory { program: request.program.clone(), directory: directory.clone(), source });
        }
        command.current_dir(directory);
    }
    command.spawn().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => ExecError::NotFound { program: request.program.clone() },
        _ => ExecError::Start { program: request.program.clone(), source },
    })
}

async fn converse(child: &mut Child, group: &mut Group, request: &ExecRequest, sink: Sink<'_>) -> io::Result<ExitStatus> {
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let (mut out_chunk, mut err_chunk) = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
    let feeding = feed(child.stdin.take(), request.stdin.as_ref());
    tokio::pin!(feeding);
    let mut fed = false;
    let mut status = None;
    let grace = tokio::time::sleep(OUTPUT_GRACE);
    tokio::pin!(grace);
    loop {
        if let (Some(status), None, None) = (status, &stdout, &stderr) {
            return Ok(status);
        }
        tokio::select! {
            read = read_out(&mut stdout, &mut out_chunk), if stdout.is_some() => match read? {
                0 => stdout = None,
                read => sink(OutputStream::Stdout, out_chunk.get(..read).unwrap_or_default()),
            },
            read = read_err(&mut stderr, &mut err_chunk), if stderr.is_some() => match read? {
                0 => stderr = None,
                read => sink(OutputStream::Stderr, err_chunk.get(..read).unwrap_or_default()),
            },
            result = &mut feeding, if !fed => {
                result?;
                fed = true;
            }
            exited = child.wait(), if status.is_none() => {
                status = Some(exited?);
                grace.as_mut().reset(tokio::time::Instant::now() + OUTPUT_GRACE);
            }
            () = &mut grace, if status.is_some() => {
                // Descendants outlived the program and hold its pipes: end them, so that the caller is not held up.
                group.kill();
                return status.ok_or_else(|| io::Error::other("a bug: the grace ran before the exit"));
            }
        }
    }
}

async fn read_out(pipe: &mut Option<ChildStdout>, chunk: &mut [u8]) -> io::Result<usize> {
    match pipe {
        Some(pipe) => pipe.read(chunk).await,
        None => Ok(0),
    }
}

async fn read_err(pipe: &mut Option<ChildStderr>, chunk: &mut [u8]) -> io::Result<usize> {
    match pipe {
        Some(pipe) => pipe.read(chunk).await,
        None => Ok(0),
    }
}

async fn feed(pipe: Option<ChildStdin>, input: Option<&Secret<Vec<u8>>>) -> io::Result<()> {
    let (Some(mut pipe), Some(input)) = (pipe, input) else { return Ok(()) };
    match pipe.write_all(input.expose()).await {
        // A program need not read its input; its exit status says whether that was right.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
    // The pipe is closed here: the program sees the end of its input.
}

#[cfg(test)]
#[path = "exec/tests.rs"]
mod tests;

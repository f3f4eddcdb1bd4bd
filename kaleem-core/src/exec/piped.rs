//! A program whose input comes from a stream and whose output goes into one, as fast as the other side takes it.

use std::fmt;
use std::io;
use std::process::ExitStatus;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::sync::Notify;

use super::{ExecError, ExecRequest, Group, REAP_GRACE, keep, leader, start};
use crate::pipe::{ByteSender, ByteStream};
use crate::remedy::Remedy;

const CHUNK_BYTES: usize = 128 * 1024;

/// How a program ended whose output went elsewhere.
///
/// `Debug` shows the length of its errors only.
#[derive(Clone, PartialEq, Eq)]
pub struct PipedResult {
    /// Exit code or signal.
    pub status: ExitStatus,
    /// Standard error, the first `max_output_bytes` of it.
    pub stderr: Vec<u8>,
}

impl Remedy for PipedError {
    fn remedy(&self) -> String {
        match self {
            Self::Exec(error) => error.remedy(),
            Self::Input { .. } => "mend what the cause names, then run the same command".to_owned(),
            Self::Output { .. } => "mend what takes the output, then run the same command".to_owned(),
        }
    }
}

impl fmt::Debug for PipedResult {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("PipedResult").field("status", &self.status).field("stderr_bytes", &self.stderr.len()).finish()
    }
}

/// Why a program between two streams could not be run to its end; it and its descendants were killed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipedError {
    /// As with any program.
    #[error(transparent)]
    Exec(ExecError),
    /// The stream that it reads broke. It was killed before it could take that for the end.
    #[error("what `{program}` reads ended with an error")]
    Input {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Whoever takes its output stopped taking it.
    #[error("nobody takes the output of `{program}` any more")]
    Output {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

enum Broken {
    Own(io::Error),
    /// With the pipe to the program, which stays open until it was killed: it must not take this for the end.
    Input(io::Error, ChildStdin),
    Output(io::Error),
}

/// Runs a program that reads `input` to its end, and passes all that it writes into `output`. The `stdin` of `request` is
/// not used. Its output is read until the last of its descendants has closed it: what was passed on is everything.
///
/// # Errors
///
/// [`PipedError`]; no process of the group is left running.
pub async fn run_piped(request: &ExecRequest, input: Option<ByteStream>, output: &mut ByteSender) -> Result<PipedResult, PipedError> {
    let mut child = start(request, input.is_some()).map_err(PipedError::Exec)?;
    let leader = leader(&child);
    let mut talking = Box::pin(converse(&mut child, request.max_output_bytes, input, output));
    // After `talking`, so that a program whose run is given up is killed before its input closes: it must not take that for the end.
    let mut group = Group(leader);
    let talked = tokio::time::timeout(request.timeout, &mut talking).await;
    if let Ok(Ok(result)) = talked {
        // The id may belong to somebody else from here on.
        group.0 = None;
        return Ok(result);
    }
    group.kill();
    drop(talking);
    let program = request.program.display().to_string();
    let failure = match talked {
        Ok(Err(Broken::Input(source, _stdin))) => PipedError::Input { program, source },
        Ok(Err(Broken::Output(source))) => PipedError::Output { program, source },
        Ok(Err(Broken::Own(source))) => PipedError::Exec(ExecError::Broken { program: request.program.clone(), source }),
        Ok(Ok(_)) | Err(_) => PipedError::Exec(ExecError::TimedOut { program: request.program.clone(), timeout: request.timeout }),
    };
    // Without this wait the killed program would stay a zombie until the runtime next looks.
    tokio::time::timeout(REAP_GRACE, child.wait()).await.ok();
    Err(failure)
}

async fn converse(child: &mut Child, limit: usize, input: Option<ByteStream>, output: &mut ByteSender) -> Result<PipedResult, Broken> {
    let (stdin, stdout, mut stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let ended = Notify::new();
    let feeding = async {
        tokio::select! {
            fed = feed(stdin, input) => fed,
            // It has ended, and reads no more; its status says whether that was right.
            () = ended.notified() => Ok(()),
        }
    };
    let errors = async {
        let (mut kept, mut chunk) = (Vec::new(), vec![0; 16 * 1024]);
        while let Some(stderr) = &mut stderr {
            match stderr.read(&mut chunk).await.map_err(Broken::Own)? {
                0 => break,
                read => drop(keep(&mut kept, chunk.get(..read).unwrap_or_default(), limit)),
            }
        }
        Ok(kept)
    };
    let waiting = async {
        let status = child.wait().await.map_err(Broken::Own)?;
        ended.notify_one();
        Ok(status)
    };
    let ((), (), stderr, status) = tokio::try_join!(feeding, drain(stdout, output), errors, waiting)?;
    Ok(PipedResult { status, stderr })
}

async fn feed(stdin: Option<ChildStdin>, input: Option<ByteStream>) -> Result<(), Broken> {
    let (Some(mut stdin), Some(mut input)) = (stdin, input) else { return Ok(()) };
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = match input.read(&mut chunk).await {
            Ok(read) => read,
            Err(source) => return Err(Broken::Input(source, stdin)),
        };
        if read == 0 {
            return Ok(());
        }
        match stdin.write_all(chunk.get(..read).unwrap_or_default()).await {
            // A program need not read its input; its exit status says whether that was right.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written.map_err(Broken::Own)?,
        }
    }
}

async fn drain(stdout: Option<ChildStdout>, output: &mut ByteSender) -> Result<(), Broken> {
    let Some(mut stdout) = stdout else { return Ok(()) };
    loop {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        if stdout.read_buf(&mut chunk).await.map_err(Broken::Own)? == 0 {
            return Ok(());
        }
        output.send(chunk).await.map_err(Broken::Output)?;
    }
}

//! Child processes. Unlike the product's, they inherit the environment and the terminal: a developer runs them.

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use kaleem_core::clock::{Clock, SystemClock};
use rustix::process::{Pid, Signal, kill_process};

use crate::fail::TaskError;
use crate::place::{Place, create_directory};
use crate::say;

/// How long a server may take to end when it is asked to.
const END_WITHIN: Duration = Duration::from_secs(30);

/// A program that is to run.
pub(crate) struct Program {
    command: Command,
    shown: String,
}

impl Program {
    /// The program `name`, looked for where root's shell would.
    #[expect(clippy::disallowed_methods, reason = "this is the door of development tasks")]
    pub(crate) fn new(place: &Place, name: impl AsRef<OsStr>) -> Self {
        let name = name.as_ref();
        let file = name.to_str().and_then(|name| place.program(name));
        let mut command = Command::new(file.as_deref().map_or(name, Path::as_os_str));
        command.env("PATH", &place.path).current_dir(&place.root);
        Self { command, shown: Path::new(name).file_name().unwrap_or(name).to_string_lossy().into_owned() }
    }

    /// Adds an argument.
    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.shown.push(' ');
        self.shown.push_str(&argument.as_ref().to_string_lossy());
        self.command.arg(argument);
        self
    }

    /// Adds arguments.
    pub(crate) fn args<A: AsRef<OsStr>>(self, arguments: impl IntoIterator<Item = A>) -> Self {
        arguments.into_iter().fold(self, Self::arg)
    }

    /// Sets a variable.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Starts it in `directory`; else in the workspace.
    pub(crate) fn directory(mut self, directory: &Path) -> Self {
        self.command.current_dir(directory);
        self
    }

    /// Lets it print nothing but errors.
    pub(crate) fn quiet(mut self) -> Self {
        self.command.stdout(Stdio::null());
        self
    }

    /// Lets it print nothing at all.
    pub(crate) fn quiet_all(mut self) -> Self {
        self.command.stdout(Stdio::null()).stderr(Stdio::null());
        self
    }

    /// Runs it with the terminal; anything but success is an error.
    pub(crate) fn run(self) -> Result<(), TaskError> {
        let shown = self.shown.clone();
        let status = self.status()?;
        if status.success() { Ok(()) } else { Err(TaskError::Failed { command: shown, status }) }
    }

    /// Runs it; what it prints is shown only when it fails.
    pub(crate) fn run_silently(mut self) -> Result<(), TaskError> {
        let output = self.command.stdin(Stdio::null()).output();
        let output = output.map_err(|source| TaskError::Start { program: self.shown.clone(), source })?;
        if output.status.success() {
            return Ok(());
        }
        for text in [&output.stdout, &output.stderr] {
            say::warning(&format!("{}:\n{}", self.shown, String::from_utf8_lossy(text).trim_end()));
        }
        Err(TaskError::Failed { command: self.shown, status: output.status })
    }

    /// Runs it with the terminal.
    pub(crate) fn status(mut self) -> Result<ExitStatus, TaskError> {
        self.command.stdin(Stdio::null()).status().map_err(|source| TaskError::Start { program: self.shown, source })
    }

    /// Runs it and returns what it prints; its errors go to the terminal.
    pub(crate) fn output(mut self) -> Result<String, TaskError> {
        let output = self.command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
        let output = output.map_err(|source| TaskError::Start { program: self.shown.clone(), source })?;
        if !output.status.success() {
            return Err(TaskError::Failed { command: self.shown, status: output.status });
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    /// Whether it runs and succeeds; it prints nothing.
    pub(crate) fn succeeds(mut self) -> bool {
        let status = self.command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    }

    /// What it prints, if it succeeds; its errors are not shown.
    pub(crate) fn answer(mut self) -> Option<String> {
        let output = self.command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    /// What it prints on standard output, however it ends; its errors are not shown.
    pub(crate) fn printed(mut self) -> Result<String, TaskError> {
        let output = self.command.stdin(Stdio::null()).stderr(Stdio::null()).output();
        let output = output.map_err(|source| TaskError::Start { program: self.shown, source })?;
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    /// Runs it; all that it prints goes to the end of the file `log`.
    pub(crate) fn logged(mut self, log: &Path) -> Result<ExitStatus, TaskError> {
        let failed = |source| TaskError::File { operation: "write", path: log.to_path_buf(), source };
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(log).map_err(failed)?;
        writeln!(file, "$ {}", self.shown).map_err(failed)?;
        let errors = file.try_clone().map_err(failed)?;
        let status = self.command.stdin(Stdio::null()).stdout(file).stderr(errors).status();
        status.map_err(|source| TaskError::Start { program: self.shown, source })
    }

    /// Starts it with its output in the file `log`, away from the terminal's Ctrl-C.
    pub(crate) fn start(mut self, log: &Path) -> Result<Started, TaskError> {
        use std::os::unix::process::CommandExt;
        if let Some(directory) = log.parent() {
            create_directory(directory)?;
        }
        let failed = |source| TaskError::File { operation: "write", path: log.to_path_buf(), source };
        let file = std::fs::OpenOptions::new().create(true).append(true).open(log).map_err(failed)?;
        let errors = file.try_clone().map_err(failed)?;
        self.command.stdin(Stdio::null()).stdout(file).stderr(errors).process_group(0);
        let child = self.command.spawn().map_err(|source| TaskError::Start { program: self.shown, source })?;
        Ok(Started { child: Some(child) })
    }

    /// Runs it with the terminal and watches how much memory it takes.
    ///
    /// The kernel keeps the peak; it is read until the process has ended, so a last spurt of a few milliseconds can be missed.
    pub(crate) fn measure(mut self) -> Result<Measured, TaskError> {
        let start = SystemClock.monotonic();
        let started = |source| TaskError::Start { program: self.shown.clone(), source };
        let mut child = self.command.stdin(Stdio::null()).spawn().map_err(started)?;
        let status_file = format!("/proc/{}/status", child.id());
        let mut peak_bytes = 0;
        let status = loop {
            if let Ok(text) = std::fs::read_to_string(&status_file) {
                peak_bytes = peak_bytes.max(peak_of(&text).unwrap_or(0));
            }
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) => std::thread::sleep(Duration::from_millis(2)),
                Err(source) => return Err(TaskError::Start { program: self.shown, source }),
            }
        };
        Ok(Measured { status, took: SystemClock.monotonic().saturating_sub(start), peak_bytes })
    }
}

impl Program {
    /// Runs it with its output kept, and watches how much memory it takes; its errors go to the terminal.
    ///
    /// What it prints must fit into a pipe.
    pub(crate) fn measure_output(mut self) -> Result<(String, u64), TaskError> {
        let started = |source| TaskError::Start { program: self.shown.clone(), source };
        let mut child = self.command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(started)?;
        let status_file = format!("/proc/{}/status", child.id());
        let mut peak_bytes = 0;
        while child.try_wait().map_err(started)?.is_none() {
            if let Ok(text) = std::fs::read_to_string(&status_file) {
                peak_bytes = peak_bytes.max(peak_of(&text).unwrap_or(0));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let output = child.wait_with_output().map_err(started)?;
        if !output.status.success() {
            return Err(TaskError::Failed { command: self.shown, status: output.status });
        }
        Ok((String::from_utf8_lossy(&output.stdout).trim_end().to_owned(), peak_bytes))
    }
}

/// How a program ran.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    /// How it ended.
    pub status: ExitStatus,
    /// From its start to its end.
    pub took: Duration,
    /// Most memory that was resident at a time.
    pub peak_bytes: u64,
}

/// `VmHWM` of `/proc/PID/status`.
fn peak_of(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

fn code_of(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}

/// A server that runs until the value is dropped.
pub(crate) struct Started {
    child: Option<Child>,
}

impl Started {
    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)))
    }

    /// Its exit code once it has ended by itself; 128 and the signal's number where a signal ended it.
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        let ended = self.child.as_mut()?.try_wait().ok().flatten()?;
        self.child = None;
        Some(code_of(ended))
    }

    /// Kills it, whatever it is doing; its exit code, which may be that of an end just before.
    pub(crate) fn kill(&mut self) -> i32 {
        let Some(mut child) = self.child.take() else { return -1 };
        // One that has ended meanwhile is no error.
        child.kill().ok();
        child.wait().map_or(-1, code_of)
    }

    /// Lets it run on after this process.
    pub(crate) fn leave_running(mut self) {
        self.child = None;
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        terminate(child.id());
        let deadline = SystemClock.monotonic() + END_WITHIN;
        while matches!(child.try_wait(), Ok(None)) {
            if SystemClock.monotonic() > deadline {
                // It is ours and does not listen; both calls fail only when it has ended meanwhile.
                child.kill().ok();
                child.wait().ok();
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Asks a process to end. One that is gone is what is wanted.
pub(crate) fn terminate(id: u32) {
    if let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) {
        kill_process(pid, Signal::TERM).ok();
    }
}

/// Asks until the answer is yes; `false` when it is still no at the end.
pub(crate) fn wait_until(limit: Duration, mut ready: impl FnMut() -> bool) -> bool {
    let deadline = SystemClock.monotonic() + limit;
    loop {
        if ready() {
            return true;
        }
        if SystemClock.monotonic() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_keeps_the_peak_in_kilobytes() {
        assert_eq!(peak_of("Name:\tx\nVmHWM:\t    1204 kB\nVmRSS:\t 900 kB\n"), Some(1204 * 1024));
        assert_eq!(peak_of("Name:\tkernel thread\n"), None, "a process without memory of its own");
    }
}

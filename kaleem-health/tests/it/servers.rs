//! Real servers on loopback, each with a directory of its own, ended by its own id.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kaleem_core::testing::free_port;
use tempfile::TempDir;

/// A loaded machine starts even a broker within this.
const STARTS_WITHIN: Duration = Duration::from_secs(90);

/// A server that ends with the value.
pub(crate) struct Process {
    child: Child,
    pub(crate) directory: TempDir,
    pub(crate) port: u16,
}

impl Process {
    /// Sends a signal, by name.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id();
        run("kill", &[&format!("-{name}"), &id.to_string()]);
        if name == "STOP" {
            // Its threads stop one after the other.
            let tasks = || std::fs::read_dir(format!("/proc/{id}/task")).unwrap().flatten();
            let stopped = |task: &Path| std::fs::read_to_string(task.join("status")).is_ok_and(|text| text.contains("State:\tT"));
            wait("it stands still", || tasks().all(|task| stopped(&task.path())));
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Waits until it listens there too; one that ends instead fails the test with what it said.
    pub(crate) fn wait_for(&mut self, port: u16) {
        wait(&format!("a server on port {port}"), || {
            if let Some(status) = self.child.try_wait().unwrap() {
                let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
                unreachable!("the server for port {port} ended with {status}: {log}");
            }
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
        });
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait(&mut self) {
        let child = &mut self.child;
        wait("the server ends", || child.try_wait().is_ok_and(|status| status.is_some()));
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[expect(clippy::disallowed_methods, reason = "tests start real servers, which live longer than a call")]
fn command(program: &Path) -> Command {
    Command::new(program)
}

/// A program by variable or on the path; where `CI` is set, a missing one fails the run.
#[expect(clippy::disallowed_methods, reason = "tests are told by the environment where the servers are")]
pub(crate) fn program(name: &str, variable: &str) -> Option<PathBuf> {
    let told = std::env::var_os(variable).map(PathBuf::from);
    let on_path = || {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path)
            .chain(["/usr/sbin".into(), "/usr/lib/rabbitmq/bin".into()])
            .map(|place| place.join(name))
            .find(|file| file.is_file())
    };
    let found = told.or_else(on_path);
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "{name} is missing: run `cargo xtask setup`, or give its place in {variable}");
        note(&format!("skipped: {name} is missing; run `cargo xtask setup`, or give its place in {variable}"));
    }
    found
}

/// Starts a program that is to listen on `port`, and waits until it does.
pub(crate) fn start(program: &Path, arguments: &[String], variables: &[(&str, String)], directory: TempDir, port: u16) -> Process {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(directory.path().join("log")).unwrap();
    let mut command = command(program);
    command.args(arguments).envs(variables.iter().map(|(name, value)| (*name, value))).current_dir(directory.path());
    let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
    let mut process = Process { child, directory, port };
    process.wait_for(port);
    process
}

/// Waits for a condition, with a bound.
#[expect(clippy::disallowed_methods, reason = "real servers take real time")]
pub(crate) fn wait(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < STARTS_WITHIN, "waited too long for: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs a program to its end and gives what it printed; a failure of it fails the test.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    run_with(Path::new(program), arguments, &[])
}

/// The same with variables.
pub(crate) fn run_with(program: &Path, arguments: &[&str], variables: &[(&str, String)]) -> String {
    let mut command = command(program);
    let output = command.args(arguments).envs(variables.iter().map(|(name, value)| (*name, value))).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{} {arguments:?}: {text}{}", program.display(), String::from_utf8_lossy(&output.stderr));
    text
}

/// A Redis with these lines of configuration.
pub(crate) fn redis(lines: &str) -> Option<Process> {
    redis_in(tempfile::tempdir().unwrap(), free_port(), lines, &[])
}

pub(crate) fn redis_in(directory: TempDir, port: u16, lines: &str, arguments: &[&str]) -> Option<Process> {
    let program = program("redis-server", "KALEEM_TEST_REDIS_SERVER")?;
    let file = directory.path().join("redis.conf");
    let place = directory.path().display();
    write(&file, &format!("port {port}\nbind 127.0.0.1\ndir {place}\nsave \"\"\nenable-debug-command yes\n{lines}\n"));
    let mut all = vec![file.display().to_string()];
    all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    Some(start(&program, &all, &[], directory, port))
}

/// `redis-cli` at that server.
pub(crate) fn redis_cli(port: u16, arguments: &[&str]) -> String {
    let port = port.to_string();
    let mut all = vec!["-h", "127.0.0.1", "-p", port.as_str()];
    all.extend(arguments);
    run("redis-cli", &all)
}

#[expect(clippy::disallowed_methods, reason = "a file of a test needs no durability")]
pub(crate) fn write(file: &Path, text: &str) {
    std::fs::write(file, text).unwrap();
}

/// Says that something was not tested.
#[expect(clippy::print_stdout, reason = "a skip is shown")]
pub(crate) fn note(text: &str) {
    println!("{text}");
}

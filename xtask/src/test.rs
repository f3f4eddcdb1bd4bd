//! Every test of the workspace, with the real parts that they need.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kaleem_core::clock::{Clock, SystemClock};
use serde_json::Value;

use crate::demo::kaleem;
use crate::fail::TaskError;
use crate::gauntlet;
use crate::place::{Place, scratch};
use crate::programs::Program;
use crate::say;
use crate::setup::newer_engine::{self, NewerEngine};
use crate::setup::{self, Consent, Need, Parts};
use crate::soak;

/// How often the real program is killed. A run by hand (`cargo xtask soak --kills 200`) does more.
const KILLS: u64 = 20;
/// Test programs that run at a time. Most of their time they wait for containers and servers.
const AT_A_TIME: usize = 2;
/// Packages whose tests take longest, longest first: what begins last is to be short.
const LONGEST: [&str; 3] = ["kaleem-cli", "kaleem-backup", "kaleem-core"];

/// Sets up, runs every test of the workspace, soak and gauntlet in their short forms, and ends what was started. With `arguments` it is one
/// `cargo test` with them.
pub(crate) fn run(place: &Place, consent: Consent, arguments: &[String]) -> Result<(), TaskError> {
    if !arguments.is_empty() {
        let parts = setup::run(place, consent, Need::Tests)?;
        say::step("cargo test --workspace");
        return cargo_test(place, &parts).arg("--no-fail-fast").args(arguments).run();
    }
    // Most of the setup is fetching and unpacking; what is built meanwhile need not be waited for. Whether it could be is asked below.
    let ahead = Program::new(place, place.cargo()).args(["test", "--workspace", "--no-run"]).start(&place.tools.join("build.log"))?;
    let parts = setup::run(place, consent, Need::Tests)?;
    let outcome = every_program(place, &parts)
        .and(cargo_test(place, &parts).arg("--doc").run())
        .and_then(|()| with_newer_engine(place, &parts))
        .and_then(|()| under_load(place, &parts));
    drop((ahead, parts));
    outcome?;
    say::line("every test passed; what was started for them has ended");
    Ok(())
}

/// Every part is there, so a test that finds one missing has found a fault: it is not to skip.
fn cargo_test(place: &Place, parts: &Parts) -> Program {
    parts.export(Program::new(place, place.cargo())).env("CI", "true").args(["test", "--workspace"])
}

/// A program of tests that is built.
struct TestProgram {
    package: String,
    target: String,
    directory: PathBuf,
    file: PathBuf,
}

impl TestProgram {
    /// What one line of `cargo test --no-run --message-format=json` tells of it.
    fn from_message(line: &str) -> Option<Self> {
        let message: Value = serde_json::from_str(line).ok()?;
        let text = |pointer: &str| message.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let is_test = message.pointer("/profile/test").and_then(Value::as_bool) == Some(true);
        let directory = PathBuf::from(text("/manifest_path")?).parent().map(Path::to_owned)?;
        let package = directory.file_name()?.to_string_lossy().into_owned();
        let program = Self { package, target: text("/target/name")?, directory, file: PathBuf::from(text("/executable")?) };
        is_test.then_some(program)
    }

    fn rank(&self) -> usize {
        // Only the program of that name takes long; the tests beside the sources do not.
        let place = LONGEST.iter().position(|package| *package == self.package);
        place.filter(|_| self.target == "it").unwrap_or(LONGEST.len())
    }

    /// Runs it as `cargo test` does; what it prints is shown when it has ended.
    fn run(&self, place: &Place, parts: &Parts, log: &Path) -> Result<(), TaskError> {
        let name = format!("{} ({})", self.package, self.target);
        say::step(&format!("testing {name}"));
        let start = SystemClock.monotonic();
        let program = parts.export(Program::new(place, &self.file)).env("CI", "true").env("CARGO_MANIFEST_DIR", &self.directory);
        let status = program.directory(&self.directory).logged(log)?;
        let printed = std::fs::read(log).map_err(|source| TaskError::File { operation: "read", path: log.to_path_buf(), source })?;
        let seconds = SystemClock.monotonic().saturating_sub(start).as_secs();
        say::line(&format!("{}\n==> tested {name} in {seconds} s", String::from_utf8_lossy(&printed).trim_end()));
        if status.success() { Ok(()) } else { Err(TaskError::Failed { command: format!("tests of {name}"), status }) }
    }
}

/// Runs all test programs, some at a time; one that fails keeps no other from running.
fn every_program(place: &Place, parts: &Parts) -> Result<(), TaskError> {
    say::step("cargo test --workspace --no-run");
    let messages = cargo_test(place, parts).args(["--no-run", "--message-format=json-render-diagnostics"]).output()?;
    let mut programs: Vec<TestProgram> = messages.lines().filter_map(TestProgram::from_message).collect();
    if programs.is_empty() {
        return Err(TaskError::Unexpected { what: "cargo built no tests".to_owned() });
    }
    programs.sort_by_key(TestProgram::rank);
    let logs = scratch()?;
    let waiting: Mutex<VecDeque<(usize, TestProgram)>> = Mutex::new(programs.into_iter().enumerate().collect());
    let failed = Mutex::new(Vec::new());
    let take = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some((number, program)) = take() {
                    if let Err(error) = program.run(place, parts, &logs.path().join(number.to_string())) {
                        failed.lock().unwrap_or_else(PoisonError::into_inner).push(error);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.iter().for_each(say::error);
    if failed.is_empty() { Ok(()) } else { Err(TaskError::Unexpected { what: format!("{} test programs failed", failed.len()) }) }
}

/// The real program on the real engine under load: killed again and again, and through everything in the life of a service. Both at once,
/// each on a project of its own: they wait most of the time, and disturb each other as much as a busy machine does.
fn under_load(place: &Place, parts: &Parts) -> Result<(), TaskError> {
    // Built once, and not by both.
    let kaleem = Some(kaleem(place, None)?);
    let choices = gauntlet::Choices {
        set: gauntlet::Set::Service,
        form: gauntlet::Form::Short,
        seed: None,
        document: false,
        only: None,
        kaleem: kaleem.clone(),
    };
    let (soaked, counted) = std::thread::scope(|scope| {
        let soak = scope.spawn(|| soak::with(place, parts, soak::Limits { time: Duration::ZERO, kills: KILLS }, None, kaleem));
        let counted = gauntlet::run_with(place, parts, choices);
        (soak.join(), counted)
    });
    soaked.unwrap_or_else(|_| Err(TaskError::Unexpected { what: "the soak broke off".to_owned() })).and(counted)
}

/// The tests of the engine's adapter once more, with a newer engine.
fn with_newer_engine(place: &Place, parts: &Parts) -> Result<(), TaskError> {
    if !newer_engine::is_there(place) {
        say::warning("the adapter was tested with one engine only: a second one takes root and Debian");
        return Ok(());
    }
    let engine = NewerEngine::start(place)?;
    say::step("cargo test -p kaleem-core --test it docker::, with the second engine");
    let tests = engine.export(parts.export(Program::new(place, place.cargo()))).env("CI", "true");
    tests.args(["test", "-p", "kaleem-core", "--test", "it", "docker::"]).run()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_tests_is_known_by_what_cargo_tells_of_it() {
        let of = |test: bool, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"/x/kaleem-core/Cargo.toml","target":{{"name":"it"}},"profile":{{"test":{test}}},"executable":{executable}}}"#
            )
        };
        let found = TestProgram::from_message(&of(true, r#""/x/target/debug/deps/it-1""#)).unwrap();
        assert_eq!((found.package.as_str(), found.directory.as_path(), found.rank()), ("kaleem-core", Path::new("/x/kaleem-core"), 2));
        for (why, line) in [
            ("a program of users", of(false, r#""/x/target/debug/kaleem""#)),
            ("a library", of(true, "null")),
            ("the end", r#"{"reason":"build-finished","success":true}"#.to_owned()),
            ("no message", "running 3 tests".to_owned()),
        ] {
            assert!(TestProgram::from_message(&line).is_none(), "{why}");
        }
    }
}

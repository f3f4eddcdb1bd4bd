//! Which process works on a project, and whether it lives: told by the kernel, so that it is over however a process ends.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::process::{Pid, test_kill_process};

use crate::clock::Clock;
use crate::durable;
use crate::runtime::marks::Worker;

/// Turns of this process that are not over.
static HELD: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());
static NEXT: AtomicU64 = AtomicU64::new(1);

/// Whether a process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It does.
    Alive,
    /// It does not, or has finished what it did.
    Over,
    /// It is on another machine, or in a container of its own: it cannot be seen from here.
    Hidden,
}

/// What one process does at a time; over when it is dropped.
#[derive(Debug)]
pub(super) struct Turn(pub(super) u64);

impl Turn {
    pub(super) fn begin() -> Self {
        let turn = NEXT.fetch_add(1, Ordering::Relaxed);
        HELD.lock().unwrap_or_else(PoisonError::into_inner).insert(turn);
        Self(turn)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        HELD.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

/// This process at work.
pub(super) fn this(what: &str, turn: &Turn, clock: &dyn Clock) -> Worker {
    let pid = std::process::id();
    Worker {
        what: what.to_owned(),
        host: host(),
        pid,
        started: stat(pid).map_or(0, |stat| stat.started),
        boot: boot(),
        pid_namespace: pid_namespace(),
        turn: turn.0,
        since: clock.now().strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
    }
}

/// Whether a worker still works.
pub fn life(worker: &Worker) -> Life {
    if worker.boot != boot() {
        // A host that was booted since has none of its processes any more.
        return if worker.host == host() { Life::Over } else { Life::Hidden };
    }
    if worker.pid_namespace != pid_namespace() {
        return Life::Hidden;
    }
    if worker.pid == std::process::id() && stat(worker.pid).is_none_or(|stat| stat.started == worker.started) {
        let held = HELD.lock().unwrap_or_else(PoisonError::into_inner).contains(&worker.turn);
        return if held { Life::Alive } else { Life::Over };
    }
    let there = i32::try_from(worker.pid).ok().and_then(Pid::from_raw).is_some_and(|pid| {
        // One that may not be signalled is there all the same.
        !matches!(test_kill_process(pid), Err(rustix::io::Errno::SRCH))
    });
    match stat(worker.pid) {
        Some(stat) if stat.started != worker.started || stat.is_dead => Life::Over,
        Some(_) => Life::Alive,
        // Some hosts hide the processes of other users.
        None if there => Life::Alive,
        None => Life::Over,
    }
}

struct Stat {
    started: u64,
    /// Ended, and not taken note of by its parent yet.
    is_dead: bool,
}

fn stat(pid: u32) -> Option<Stat> {
    let bytes = durable::read(Path::new(&format!("/proc/{pid}/stat"))).ok()?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    // The name before it may hold anything, also parentheses. What follows is the third field.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let is_dead = matches!(state, "Z" | "X" | "x");
    Some(Stat { started: fields.nth(18)?.parse().ok()?, is_dead })
}

/// What this host calls itself.
pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

pub(super) fn boot() -> String {
    let id = durable::read(Path::new("/proc/sys/kernel/random/boot_id")).unwrap_or_default();
    String::from_utf8_lossy(&id).trim().to_owned()
}

/// The kernel's name of the namespace in which this process has its number.
fn pid_namespace() -> String {
    std::fs::read_link("/proc/self/ns/pid").map(|link| link.display().to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the child is there to be killed")]
    fn a_worker_lives_as_long_as_its_process_and_its_turn() {
        let turn = Turn::begin();
        let mine = this("a test", &turn, &SystemClock);
        let child = std::process::Command::new("sleep").arg("60").spawn();
        let Ok(mut child) = child else { return };
        let theirs = Worker { pid: child.id(), started: stat(child.id()).map_or(0, |stat| stat.started), ..mine.clone() };
        for (why, worker, wanted) in [
            ("this one", mine.clone(), Life::Alive),
            ("a child", theirs.clone(), Life::Alive),
            ("the number was given to another", Worker { started: theirs.started + 1, ..theirs.clone() }, Life::Over),
            ("an earlier boot of this host", Worker { boot: "earlier".to_owned(), ..theirs.clone() }, Life::Over),
            ("another host", Worker { boot: "its".to_owned(), host: "elsewhere".to_owned(), ..theirs.clone() }, Life::Hidden),
            ("a container of its own", Worker { pid_namespace: "pid:[1]".to_owned(), ..theirs.clone() }, Life::Hidden),
        ] {
            assert_eq!(life(&worker), wanted, "{why}");
        }
        child.kill().ok();
        // Killed, and not yet waited for: it holds nothing any more.
        while life(&theirs) == Life::Alive {
            std::thread::yield_now();
        }
        child.wait().ok();
        assert_eq!(life(&theirs), Life::Over, "killed");
        drop(turn);
        assert_eq!(life(&mine), Life::Over, "its turn is over");
    }
}

//! Ports of loopback for servers that tests start.
//!
//! Asking the kernel for port 0 and letting go of it is no way to choose: until the server listens, which for a broker is half a
//! minute, every other listener and connection of the machine may be given the same port.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Below those that Linux gives by itself (32768 and more, `net.ipv4.ip_local_port_range` in the kernel's `ip-sysctl`), and low enough
/// that the bus of a Redis cluster, 10000 further up, is in neither.
const PORTS: Range<u16> = 10_240..20_224;
/// How many a process takes at a time.
const BLOCK: u16 = 64;

/// What this process may give away.
#[derive(Debug)]
struct Ports {
    left: Range<u16>,
    /// Locked until the process ends, so that no other takes the same ports.
    blocks: Vec<File>,
}

impl Ports {
    const fn new() -> Self {
        Self { left: 0..0, blocks: Vec::new() }
    }

    /// The next one on which nobody listens.
    fn next(&mut self, place: &Path) -> io::Result<u16> {
        loop {
            let Some(port) = self.left.next() else {
                let (left, file) = lock_a_block(place)?;
                self.left = left;
                self.blocks.push(file);
                continue;
            };
            if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Ok(port);
            }
        }
    }
}

/// A block that no other process has, nor this one.
fn lock_a_block(place: &Path) -> io::Result<(Range<u16>, File)> {
    std::fs::create_dir_all(place)?;
    for first in PORTS.step_by(usize::from(BLOCK)) {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(place.join(first.to_string()))?;
        match file.try_lock() {
            Ok(()) => return Ok((first..first + BLOCK, file)),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, format!("every port of {PORTS:?} belongs to a running process, says {}", place.display())))
}

/// A port of loopback on which nobody listens, and which no other test is given: not in this process, nor in another that asks here.
///
/// # Errors
///
/// When the directory of locks, `kaleem-test-ports` beside other temporary files, cannot be written, or all ports are taken.
pub fn claim_port() -> io::Result<u16> {
    static OURS: Mutex<Ports> = Mutex::new(Ports::new());
    OURS.lock().unwrap_or_else(PoisonError::into_inner).next(&std::env::temp_dir().join("kaleem-test-ports"))
}

/// The same for a test, which has failed without one.
///
/// # Panics
///
/// When [`claim_port`] fails.
#[expect(clippy::expect_used, reason = "a test that has no port has failed")]
#[must_use]
pub fn free_port() -> u16 {
    claim_port().expect("a port of loopback")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice_nor_one_that_is_listened_on() {
        let place = tempfile::tempdir().unwrap();
        let (mut one, mut other) = (Ports::new(), Ports::new());
        let first = one.next(place.path()).unwrap();
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, first + 2));
        let mut given = vec![first];
        for _ in 0..2 * BLOCK {
            given.push(one.next(place.path()).unwrap());
            given.push(other.next(place.path()).unwrap());
        }
        assert!(given.iter().all(|port| PORTS.contains(port)), "{given:?}");
        assert!(!given.contains(&(first + 2)), "{given:?}");
        let all = given.len();
        given.sort_unstable();
        given.dedup();
        assert_eq!(given.len(), all);
    }

    #[test]
    fn the_ports_of_a_process_that_ended_are_given_again_and_too_many_are_refused() {
        let place = tempfile::tempdir().unwrap();
        let blocks = PORTS.len() / usize::from(BLOCK);
        let held: Vec<_> = (0..blocks).map(|_| lock_a_block(place.path()).unwrap()).collect();
        let refused = lock_a_block(place.path()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse, "{refused}");
        drop(held);
        assert_eq!(lock_a_block(place.path()).unwrap().0.start, PORTS.start);
    }
}

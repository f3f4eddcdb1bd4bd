//! Who works on a project now: one at a time, and never somebody who is dead.
//!
//! On one host the kernel is the judge: the holder keeps a lock on a file, which ends with its process however that ends.
//! What is written beside it (owner, process, boot, heartbeat) is for people, and for a second host that shares the
//! directory and does not see the lock: there a holder counts as dead when its heartbeat stands still.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::durable::{self, DurableError};
use crate::remedy::Remedy;
use crate::runtime::RuntimeError;
use crate::runtime::marks::Worker;

pub mod host;
pub mod worker;

use worker::{boot, host};

/// Time between two heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// How long a heartbeat of another host is watched before its holder counts as dead: three may be late.
const WATCH: Duration = Duration::from_secs(8);

/// Who holds a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holder {
    /// What it does and for whom, such as `deploy by root`.
    pub owner: String,
    /// Its host.
    pub host: String,
    /// Its process.
    pub pid: u32,
    /// The boot of that host.
    pub boot: String,
    /// When it began, for people.
    pub since: String,
    /// Counts up while it lives.
    pub heartbeat: u64,
}

/// Why the lease could not be had. Nothing was touched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// Somebody alive holds it.
    #[error("another kaleem works on this project: {owner} (process {pid} on {host}, since {since})")]
    Busy {
        /// What it does.
        owner: String,
        /// Its process.
        pid: u32,
        /// Its host.
        host: String,
        /// Since when.
        since: String,
    },
    /// A process holds it that cannot be seen from here: on another machine, or in a container.
    #[error(
        "another kaleem may be working on this project: {owner} (process {pid} on {host}, since {since}), and it cannot be seen from here"
    )]
    Hidden {
        /// What it does.
        owner: String,
        /// Its process.
        pid: u32,
        /// Its host.
        host: String,
        /// Since when.
        since: String,
    },
    /// The engine, which keeps the lock that holds across users, could not be asked.
    #[error("could not look at the owner mark of the project")]
    Engine {
        /// Why.
        #[source]
        source: RuntimeError,
    },
    /// The file system refused.
    #[error("could not take the lease of the project")]
    File {
        /// Why.
        #[source]
        source: DurableError,
    },
    /// The lock could not be asked for.
    #[error("could not lock {}", path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Remedy for LeaseError {
    fn remedy(&self) -> String {
        match self {
            Self::Busy { .. } => "wait until it is done (`kaleem status`), or ask it to go back with `kaleem abort`".to_owned(),
            Self::Hidden { .. } => "wait until it has finished; if that process is gone, run `kaleem adopt --take-lock`".to_owned(),
            Self::Engine { source } => source.remedy(),
            Self::File { source } => source.remedy(),
            Self::Lock { path, source } => durable::remedy_of(path, source)
                .unwrap_or_else(|| format!("check that {} is on a file system that knows locks", path.display())),
        }
    }
}

/// The right to change a project, until it is dropped.
#[derive(Debug)]
pub struct Lease {
    record: PathBuf,
    beat: tokio::task::JoinHandle<()>,
    /// Whether it is given up; whoever writes the record holds this meanwhile.
    over: Arc<Mutex<bool>>,
    lock: File,
}

impl Lease {
    /// Takes the lease of the state directory `root`. Takes it over from a holder that is dead.
    ///
    /// # Errors
    ///
    /// [`LeaseError::Busy`] when somebody alive has it.
    pub async fn take(root: &Path, owner: &str, clock: Arc<dyn Clock>) -> Result<Self, LeaseError> {
        let lock = lock(root)?;
        let record = root.join("lease");
        let this = Holder {
            owner: owner.to_owned(),
            host: host(),
            pid: std::process::id(),
            boot: boot(),
            since: clock.now().strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
            heartbeat: 0,
        };
        if let Some(other) = holder(root).filter(|other| other.host != this.host) {
            // Its lock is not seen from here: only its heartbeat can tell.
            clock.sleep(WATCH).await;
            if let Some(now) = holder(root).filter(|now| now.heartbeat != other.heartbeat || now.pid != other.pid) {
                return Err(busy(now));
            }
        }
        write(&record, &this).map_err(|source| LeaseError::File { source })?;
        // Under the lock nobody else writes here: what is unfinished was left by the dead.
        for directory in [root.to_owned(), root.join("plans"), root.join("definitions")] {
            match durable::remove_leftovers(&directory) {
                Ok(()) => {}
                Err(error) if error.is_missing() => {}
                Err(source) => return Err(LeaseError::File { source }),
            }
        }
        let over = Arc::new(Mutex::new(false));
        let beat = tokio::spawn(beat(record.clone(), this, clock, over.clone()));
        Ok(Self { record, beat, over, lock })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.beat.abort();
        // A heartbeat that is being written on another thread would put the record back.
        *self.over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        // A record that stays behind is read as that of a dead holder.
        durable::remove_fleeting(&self.record).ok();
        // Closing is not enough: a child between its fork and its exec still has the file open.
        flock(&self.lock, FlockOperation::Unlock).ok();
    }
}

async fn beat(record: PathBuf, mut holder: Holder, clock: Arc<dyn Clock>, over: Arc<Mutex<bool>>) {
    loop {
        clock.sleep(HEARTBEAT).await;
        holder.heartbeat += 1;
        let over = over.lock().unwrap_or_else(PoisonError::into_inner);
        if *over {
            return;
        }
        // A heartbeat that cannot be written is missed by other hosts only; the lock still stands.
        write(&record, &holder).ok();
    }
}

fn write(record: &Path, holder: &Holder) -> Result<(), DurableError> {
    let text = serde_json::to_vec(holder).unwrap_or_default();
    // A holder that lost its power is dead: its record need not outlive it.
    durable::write_fleeting(record, &text, durable::PRIVATE_FILE)
}

/// Who holds the lease of the state directory `root`, as far as is written down; it may be dead.
pub fn holder(root: &Path) -> Option<Holder> {
    serde_json::from_slice(&durable::read(&root.join("lease")).ok()?).ok()
}

/// Whether somebody alive on this host holds the lease.
pub fn is_held(root: &Path) -> bool {
    matches!(lock(root), Err(LeaseError::Busy { .. }))
}

fn busy(holder: Holder) -> LeaseError {
    LeaseError::Busy { owner: holder.owner, pid: holder.pid, host: holder.host, since: holder.since }
}

fn busy_worker(worker: &Worker) -> LeaseError {
    LeaseError::Busy { owner: worker.what.clone(), pid: worker.pid, host: worker.host.clone(), since: worker.since.clone() }
}

fn lock(root: &Path) -> Result<File, LeaseError> {
    let path = root.join("lock");
    let failed = |source| LeaseError::Lock { path: path.clone(), source };
    // The file stays: removing it would let two processes lock two files of one name.
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(holder(root).map_or_else(unknown_holder, busy)),
        Err(errno) => Err(failed(errno.into())),
    }
}

/// The holder has not written its name yet.
fn unknown_holder() -> LeaseError {
    LeaseError::Busy { owner: "it has just begun".to_owned(), pid: 0, host: host(), since: "now".to_owned() }
}

//! All clients together: started, looked at, stopped. Bounded in number and in time, and only ever towards this machine.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kaleem_core::clock::{Clock, SystemClock};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::chance::Seed;
use crate::fail::TaskError;
use crate::gauntlet::flows::{Client, DIRECT, EDGE, Flow};
use crate::gauntlet::tally::Tally;

/// The load ends by itself then, whatever its owner does.
const LONGEST: Duration = Duration::from_secs(20 * 60);
/// How long clients may take to finish what they have begun.
const FINISH: Duration = Duration::from_secs(70);

/// What all clients share.
pub(super) struct Shared {
    start: Duration,
    tally: Mutex<Tally>,
    stop: watch::Receiver<bool>,
}

impl Shared {
    /// Time since the start of the load.
    pub(super) fn now(&self) -> Duration {
        SystemClock.monotonic().saturating_sub(self.start)
    }

    /// A request begins.
    pub(super) fn begin(&self) -> Duration {
        self.now()
    }

    /// One that was begun is over.
    pub(super) fn end(&self, note: impl FnOnce(&mut Tally)) {
        self.tally(note);
    }

    /// Takes note of something.
    pub(super) fn tally(&self, note: impl FnOnce(&mut Tally)) {
        note(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Returns when the load is to stop.
    pub(super) async fn stopped(&self) {
        // An owner that is gone has stopped it.
        self.stop.clone().wait_for(|stopped| *stopped).await.ok();
    }

    /// Waits; false when the load is to stop.
    pub(super) async fn pause(&self, pause: Duration) -> bool {
        if *self.stop.borrow() || self.now() > LONGEST {
            return false;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => true,
            () = self.stopped() => false,
        }
    }
}

/// Where requests go in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doors {
    /// The published port of the service; `None` where it has none.
    pub direct: Option<SocketAddr>,
    /// nginx.
    pub edge: SocketAddr,
}

/// A load that runs until it is stopped.
pub(super) struct Load {
    runtime: tokio::runtime::Runtime,
    clients: JoinSet<()>,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
}

impl Load {
    /// Starts every flow at its door. `name` stands in every order.
    pub(super) fn start(doors: Doors, name: &str, seed: Seed) -> Result<Self, TaskError> {
        let refuse = |address: SocketAddr, reason: String| TaskError::Load { address: address.to_string(), reason };
        if let Some(far) = doors.direct.iter().chain([&doors.edge]).find(|address| !address.ip().is_loopback()) {
            return Err(refuse(*far, "load is only ever sent to this machine".to_owned()));
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|error| refuse(doors.edge, error.to_string()))?;
        let (stop, stopped) = watch::channel(false);
        let shared = Arc::new(Shared { start: SystemClock.monotonic(), tally: Mutex::default(), stop: stopped });
        let mut clients = JoinSet::new();
        let flows: Vec<(Flow, SocketAddr)> = match doors.direct {
            Some(address) => DIRECT.iter().map(|flow| (*flow, address)).chain(EDGE.iter().map(|flow| (*flow, doors.edge))).collect(),
            // Everything that nginx can pass on goes through it, so that as many requests are sent.
            None => EDGE.iter().chain(EDGE).map(|flow| (*flow, doors.edge)).collect(),
        };
        let mut number = 0;
        for (flow, address) in flows {
            for _ in 0..flow.clients {
                number += 1;
                let client = Client {
                    shared: shared.clone(),
                    address,
                    flow,
                    name: format!("{name}-{number}"),
                    seed: seed.branch(number),
                    kept: None,
                    number: 0,
                };
                clients.spawn_on(client.run(), runtime.handle());
            }
        }
        Ok(Self { runtime, clients, shared, stop })
    }

    /// Takes note that something is killed now; until [`Self::is_dead`] it may still take requests.
    pub(super) fn kills_now(&self) {
        let now = self.shared.now();
        self.shared.tally(|tally| tally.killed = Some((now, now)));
    }

    /// Takes note that what was killed is gone, with its sockets.
    pub(super) fn is_dead(&self) {
        let now = self.shared.now();
        self.shared.tally(|tally| tally.killed = tally.killed.map(|(begun, _)| (begun, now)));
    }

    /// Lets every client finish what it has begun, and returns all that was seen.
    pub(super) fn stop(mut self) -> Tally {
        self.stop.send_replace(true);
        self.runtime.block_on(async {
            let all = async { while self.clients.join_next().await.is_some() {} };
            // What hangs longer than its own patience does not exist.
            tokio::time::timeout(FINISH, all).await.ok();
        });
        std::mem::take(&mut *self.shared.tally.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_five_hundred_requests_a_second_are_meant_at_either_set_of_doors() {
        let sum = |flows: &[Flow]| -> f64 {
            let paces = flows.iter().map(|flow| {
                let requests = if flow.kind == crate::gauntlet::flows::Kind::Pipelined { 8.0 } else { 1.0 };
                f64::from(u32::try_from(flow.clients).unwrap()) * flow.per_second * requests
            });
            paces.sum()
        };
        assert!(sum(DIRECT) + sum(EDGE) > 520.0, "{} and {}", sum(DIRECT), sum(EDGE));
        assert!(
            DIRECT.iter().all(|flow| flow.door == crate::gauntlet::flows::Door::Direct)
                && EDGE.iter().all(|flow| flow.door == crate::gauntlet::flows::Door::Edge)
        );
    }

    #[test]
    fn load_is_never_sent_to_another_machine() {
        let far = SocketAddr::from(([10, 0, 0, 1], 80));
        let near = SocketAddr::from(([127, 0, 0, 1], 1));
        for doors in [Doors { direct: Some(far), edge: near }, Doors { direct: None, edge: far }] {
            assert!(Load::start(doors, "x", Seed::new(1)).is_err());
        }
    }
}

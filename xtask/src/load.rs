//! A load generator: a bounded number of clients against one address on loopback, and an honest count.
//!
//! Half of the clients keep their connection, half open a new one for every request. A request counts as failed when
//! its client had no right answer in the end. Trying again is allowed only where it cannot do harm: a GET, or what was
//! never written to the connection. Every order has an id of its own, so that lost and doubled ones can be told.

mod client;
mod route;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kaleem_core::clock::{Clock, SystemClock};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::fail::TaskError;
pub(crate) use client::{Client, Keep, Outcome};
pub(crate) use route::Route;

/// Pause of a client between two requests.
const PAUSE: Duration = Duration::from_millis(10);
/// A client stops by itself then, whatever its owner does.
const MOST_REQUESTS_EACH: u64 = 200_000;
/// And then.
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// What happened in a stretch of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slice {
    /// Requests that were begun and ended.
    pub sent: u64,
    /// Of those, without a right answer.
    pub failed: u64,
    /// Of those, answered at the second try.
    pub retried: u64,
    /// Orders that were confirmed.
    pub confirmed_orders: u64,
    /// Answers by version.
    pub versions: BTreeMap<String, u64>,
    /// Why the first one failed.
    pub first_failure: Option<String>,
    latencies_us: Vec<u32>,
}

/// The value within which `percent` of the sorted ones are; the default where there is none.
pub(crate) fn percentile<T: Copy + Default>(sorted: &[T], percent: f64) -> T {
    let last = sorted.len().saturating_sub(1);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index below a few million"
    )]
    let index = (last as f64 * percent / 100.0).round() as usize;
    sorted.get(index).copied().unwrap_or_default()
}

impl Slice {
    /// The time within which `percent` of the requests were over; 100 is the slowest.
    pub(crate) fn percentile(&self, percent: f64) -> Duration {
        let mut sorted = self.latencies_us.clone();
        sorted.sort_unstable();
        Duration::from_micros(percentile(&sorted, percent).into())
    }

    fn note(&mut self, took: Duration, outcome: &Outcome) {
        self.sent += 1;
        self.retried += u64::from(outcome.retried);
        self.latencies_us.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
        match &outcome.answer {
            Ok(answer) => {
                self.confirmed_orders += u64::from(answer.order);
                *self.versions.entry(answer.version.clone()).or_default() += 1;
            }
            Err(reason) => {
                self.failed += 1;
                if self.first_failure.is_none() {
                    self.first_failure = Some(reason.clone());
                }
            }
        }
    }
}

/// A load that runs until it is stopped.
pub(crate) struct Load {
    runtime: tokio::runtime::Runtime,
    clients: JoinSet<()>,
    stop: watch::Sender<bool>,
    slice: Arc<Mutex<Slice>>,
}

impl Load {
    /// Starts `clients` clients against `address`, which must be on loopback. `name` stands in every order.
    pub(crate) fn start(address: SocketAddr, clients: usize, name: &str) -> Result<Self, TaskError> {
        let refuse = |reason: String| TaskError::Load { address: address.to_string(), reason };
        if !address.ip().is_loopback() {
            return Err(refuse("load is only ever sent to this machine".to_owned()));
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|error| refuse(error.to_string()))?;
        let (stop, stopped) = watch::channel(false);
        let slice = Arc::new(Mutex::new(Slice::default()));
        let mut tasks = JoinSet::new();
        for number in 0..clients {
            let keep = if number % 2 == 0 { Keep::Connection } else { Keep::Nothing };
            let client = Client::new(Route::Plain(address), keep);
            let orders = format!("{name}-{number}");
            tasks.spawn_on(run(client, orders, stopped.clone(), Arc::clone(&slice)), runtime.handle());
        }
        Ok(Self { runtime, clients: tasks, stop, slice })
    }

    /// What happened since the start or the last call.
    pub(crate) fn take(&self) -> Slice {
        std::mem::take(&mut *self.slice.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets every client finish its request; what happened since the last `take`.
    pub(crate) fn stop(mut self) -> Slice {
        self.stop.send_replace(true);
        self.runtime.block_on(async { while self.clients.join_next().await.is_some() {} });
        self.take()
    }
}

/// One request, for its owner's own use: the body of the answer.
pub(crate) fn get(address: SocketAddr, path: &str) -> Result<String, TaskError> {
    let refuse = |reason: String| TaskError::Load { address: address.to_string(), reason };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| refuse(error.to_string()))?;
    runtime.block_on(Client::new(Route::Plain(address), Keep::Nothing).get(path)).map_err(refuse)
}

async fn run(mut client: Client, orders: String, mut stopped: watch::Receiver<bool>, slice: Arc<Mutex<Slice>>) {
    let start = SystemClock.monotonic();
    for number in 0..MOST_REQUESTS_EACH {
        if *stopped.borrow() || SystemClock.monotonic().saturating_sub(start) > LONGEST {
            return;
        }
        let begun = SystemClock.monotonic();
        // Every fourth request changes something.
        let outcome = if number % 4 == 0 { client.order(&format!("{orders}-{number}")).await } else { client.version().await };
        let took = SystemClock.monotonic().saturating_sub(begun);
        slice.lock().unwrap_or_else(PoisonError::into_inner).note(took, &outcome);
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            _ = stopped.changed() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_what_was_measured() {
        let slice = Slice { latencies_us: (1..=101).rev().collect(), ..Slice::default() };
        for (percent, expected) in [(0.0, 1), (50.0, 51), (99.0, 100), (100.0, 101)] {
            assert_eq!(slice.percentile(percent), Duration::from_micros(expected), "{percent}");
        }
        assert_eq!(Slice::default().percentile(50.0), Duration::ZERO, "nothing was measured");
    }

    #[test]
    fn load_is_never_sent_to_another_machine() {
        assert!(Load::start(SocketAddr::from(([10, 0, 0, 1], 80)), 1, "x").is_err());
    }

    #[test]
    fn what_a_server_does_to_requests_is_counted() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let mut stream = stream.unwrap();
                std::thread::spawn(move || serve(&mut stream, number));
            }
        });
        let load = Load::start(address, 4, "test").unwrap();
        let enough = || load.slice.lock().unwrap().sent > 200;
        assert!(crate::programs::wait_until(Duration::from_secs(20), enough), "the load does not flow");
        let slice = load.stop();
        assert!(slice.failed > 0 && slice.failed < slice.sent / 2, "every tenth connection is closed: {slice:?}");
        assert_eq!(slice.versions.keys().collect::<Vec<_>>(), ["v9"]);
        assert!(slice.confirmed_orders > 10, "{slice:?}");
        assert!(slice.first_failure.is_some());
    }

    /// Answers well, but for every tenth connection.
    fn serve(stream: &mut std::net::TcpStream, number: usize) {
        use std::io::{Read, Write};
        let mut request = [0; 4096];
        while let Ok(length) = stream.read(&mut request) {
            if length == 0 || number % 10 == 9 {
                return;
            }
            let status = if request.starts_with(b"POST") { "201 Created" } else { "200 OK" };
            if write!(stream, "HTTP/1.1 {status}\r\nx-shop-version: v9\r\ncontent-length: 0\r\n\r\n").is_err() {
                return;
            }
        }
    }
}

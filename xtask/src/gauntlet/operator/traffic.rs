//! Every way in which clients reach the API, a steady load through each, and an exact count of what it met.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use kaleem_core::clock::{Clock, SystemClock};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::chance::Seed;
use crate::fail::TaskError;
use crate::load::{Client, Keep, Outcome, Route};

/// Clients at each door; every second one keeps its connection.
const CLIENTS: u32 = 8;
/// The load ends by itself then, whatever its owner does.
const LONGEST: Duration = Duration::from_secs(30 * 60);
/// Different reasons that are kept for each door.
const MOST_REASONS: usize = 8;
/// A door at which nothing fails for this long has recovered: what fails later is another stretch.
const RECOVERED: Duration = Duration::from_millis(500);

/// A way in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Door {
    /// nginx with `proxy_pass http://api:3000`.
    Plain,
    /// nginx with an upstream block, a zone and `resolve`.
    Zone,
    /// nginx with TLS.
    Tls,
    /// The published port of the API.
    Port,
    /// The API's name, asked from a container on its network.
    Name,
}

impl Door {
    /// All of them, in the order of the tables.
    pub(super) const ALL: [Self; 5] = [Self::Plain, Self::Zone, Self::Tls, Self::Port, Self::Name];

    /// As the tables have it.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Plain => "nginx",
            Self::Zone => "nginx zone",
            Self::Tls => "nginx TLS",
            Self::Port => "port",
            Self::Name => "name",
        }
    }
}

/// Where the doors are.
#[derive(Clone)]
pub(super) struct Doors {
    /// How each is reached.
    pub routes: BTreeMap<Door, Route>,
    /// The network of a container from which the name is asked.
    pub neighbour: PathBuf,
}

impl Doors {
    /// Which version answers at a door, on a new connection.
    pub(super) fn version(&self, door: Door) -> Result<String, String> {
        let route = self.routes.get(&door).cloned().ok_or_else(|| format!("there is no door {}", door.title()))?;
        ask(route, (door == Door::Name).then(|| self.neighbour.clone()))
    }

    /// What each door answers.
    pub(super) fn versions(&self) -> BTreeMap<Door, Result<String, String>> {
        std::thread::scope(|scope| {
            let asked: Vec<_> = self.routes.keys().map(|door| (*door, scope.spawn(move || self.version(*door)))).collect();
            let broken = |_| Err("the question broke off".to_owned());
            asked.into_iter().map(|(door, thread)| (door, thread.join().unwrap_or_else(broken))).collect()
        })
    }

    /// Orders whose id begins with `prefix`, and how often each was delivered.
    pub(super) fn orders(&self, prefix: &str) -> Result<BTreeMap<String, u64>, String> {
        let route = self.routes.get(&Door::Plain).cloned().ok_or("there is no nginx")?;
        let path = format!("/api/orders?prefix={prefix}");
        let text = within(None, async move { Client::new(route, Keep::Nothing).get(&path).await })?;
        let order = |line: &str| line.split_once(' ').and_then(|(id, count)| Some((id.to_owned(), count.parse().ok()?)));
        text.lines().map(|line| order(line).ok_or_else(|| format!("the orders cannot be read: {line}"))).collect()
    }
}

/// Which version answers at `route`, asked from inside a container's network where one is named.
pub(super) fn ask(route: Route, network: Option<PathBuf>) -> Result<String, String> {
    within(network, async move { Client::new(route, Keep::Nothing).version().await.answer.map(|answer| answer.version) })
}

/// Runs it on a thread of its own, which may go into a container's network without the rest of this process.
fn within<T: Send + 'static>(
    network: Option<PathBuf>,
    work: impl Future<Output = Result<T, String>> + Send + 'static,
) -> Result<T, String> {
    let thread = std::thread::spawn(move || {
        if let Some(network) = network {
            enter(&network)?;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
        runtime.block_on(work)
    });
    thread.join().unwrap_or_else(|_| Err("the question broke off".to_owned()))
}

fn enter(network: &Path) -> Result<(), String> {
    use std::os::fd::AsFd;
    let file = std::fs::File::open(network).map_err(|error| format!("{}: {error}", network.display()))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).map_err(|error| format!("{}: {error}", network.display()))
}

/// What one door met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// Requests that were begun and ended.
    pub sent: u64,
    /// Of those, without a right answer.
    pub failed: u64,
    /// Of those, answered at the second try.
    pub retried: u64,
    /// Why some failed, and how many so.
    pub reasons: BTreeMap<String, u64>,
    /// When each failure began and ended.
    failures: Vec<(Duration, Duration)>,
}

impl Count {
    /// For how long requests were turned away at a time, at most: what waits and is answered in the end was not. Each hand-over of a plan
    /// is one such time.
    pub(super) fn refused(&self) -> Duration {
        let mut failures = self.failures.clone();
        failures.sort_unstable();
        let mut longest = Duration::ZERO;
        let mut stretch: Option<(Duration, Duration)> = None;
        for (begun, ended) in failures {
            let (first, last) = match stretch {
                Some((first, last)) if begun.saturating_sub(last) < RECOVERED => (first, last.max(begun)),
                _ => (ended, begun),
            };
            // From the end of the first failure to the beginning of the last.
            longest = longest.max(last.saturating_sub(first));
            stretch = Some((first, last));
        }
        longest
    }

    fn note(&mut self, begun: Duration, ended: Duration, outcome: &Outcome) {
        self.sent += 1;
        self.retried += u64::from(outcome.retried);
        let Err(reason) = &outcome.answer else { return };
        self.failed += 1;
        if self.reasons.len() < MOST_REASONS || self.reasons.contains_key(reason) {
            *self.reasons.entry(reason.clone()).or_default() += 1;
        }
        self.failures.push((begun, ended));
    }
}

/// What all doors met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// By door.
    pub doors: BTreeMap<Door, Count>,
    /// Orders that were confirmed.
    pub confirmed: BTreeSet<String>,
}

impl Tally {
    /// Requests at all doors.
    pub(super) fn sent(&self) -> u64 {
        self.doors.values().map(|count| count.sent).sum()
    }

    /// Requests at all doors without a right answer.
    pub(super) fn failed(&self) -> u64 {
        self.doors.values().map(|count| count.failed).sum()
    }

    /// Of each door with failures, their number: `nginx 3, port 1`; empty for none.
    pub(super) fn failures(&self) -> String {
        let failing = self.doors.iter().filter(|(_, count)| count.failed > 0);
        failing.map(|(door, count)| format!("{} {}", door.title(), count.failed)).collect::<Vec<_>>().join(", ")
    }

    /// How long each door turned requests away.
    pub(super) fn refused_at_doors(&self) -> impl Iterator<Item = Duration> {
        self.doors.values().map(Count::refused)
    }

    /// The longest time for which one of the doors turned requests away.
    pub(super) fn refused(&self) -> Duration {
        self.refused_at_doors().max().unwrap_or_default()
    }
}

struct Shared {
    start: Duration,
    stop: AtomicBool,
    tally: Mutex<Tally>,
}

/// A load that flows until it is stopped.
pub(super) struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<(), String>>>,
}

impl Load {
    /// Starts it: `per_second` requests at each door. `name` stands in every order.
    pub(super) fn start(doors: &Doors, per_second: u32, name: &str, seed: Seed) -> Result<Self, TaskError> {
        let far = |route: &Route| matches!(route, Route::Plain(address) | Route::Tls(address, _) if !address.ip().is_loopback());
        if let Some(route) = doors.routes.values().find(|route| far(route)) {
            return Err(TaskError::Load { address: route.host(), reason: "load is only ever sent to this machine".to_owned() });
        }
        let shared = Arc::new(Shared { start: SystemClock.monotonic(), stop: AtomicBool::new(false), tally: Mutex::default() });
        let mut threads = Vec::new();
        for inside in [false, true] {
            let routes = doors.routes.iter().filter(|(door, _)| (**door == Door::Name) == inside);
            let routes: Vec<(Door, Route)> = routes.map(|(door, route)| (*door, route.clone())).collect();
            let network = inside.then(|| doors.neighbour.clone());
            let (shared, name) = (Arc::clone(&shared), name.to_owned());
            threads.push(std::thread::spawn(move || flow(routes, network, per_second, &name, seed, &shared)));
        }
        Ok(Self { shared, threads })
    }

    /// What was met so far.
    pub(super) fn so_far(&self) -> Tally {
        self.shared.tally.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets every client finish its request, and returns all that was met.
    pub(super) fn stop(self) -> Result<Tally, TaskError> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            let ended = thread.join().unwrap_or_else(|_| Err("the load broke off".to_owned()));
            ended.map_err(|reason| TaskError::Load { address: "the doors".to_owned(), reason })?;
        }
        Ok(self.shared.tally.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

fn flow(
    routes: Vec<(Door, Route)>,
    network: Option<PathBuf>,
    per_second: u32,
    name: &str,
    seed: Seed,
    shared: &Arc<Shared>,
) -> Result<(), String> {
    if let Some(network) = network {
        enter(&network)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let mut clients = tokio::task::JoinSet::new();
        for (door, route) in routes {
            for number in 0..CLIENTS {
                let keep = if number % 2 == 0 { Keep::Connection } else { Keep::Nothing };
                let pace = Duration::from_secs(1) * CLIENTS / per_second.max(1);
                let mut chance = seed.branch(u64::from(number) * 16 + door as u64);
                let first = pace.mul_f64(chance.fraction());
                let orders = format!("{name}-{}-{number}", door as u8);
                clients.spawn(client(Client::new(route.clone(), keep), door, first, pace, orders, Arc::clone(shared)));
            }
        }
        while clients.join_next().await.is_some() {}
    });
    Ok(())
}

/// One client at its pace. Requests that it could not send because an answer took too long are not made up for.
async fn client(mut client: Client, door: Door, first: Duration, pace: Duration, orders: String, shared: Arc<Shared>) {
    let now = || SystemClock.monotonic().saturating_sub(shared.start);
    let mut next = first;
    for number in 0_u64.. {
        tokio::time::sleep(next.saturating_sub(now())).await;
        if shared.stop.load(Ordering::Relaxed) || now() > LONGEST {
            return;
        }
        let begun = now();
        let order = (number % 4 == 0).then(|| format!("{orders}-{number}"));
        let outcome = match &order {
            Some(id) => client.order(id).await,
            None => client.version().await,
        };
        let ended = now();
        {
            let mut tally = shared.tally.lock().unwrap_or_else(PoisonError::into_inner);
            tally.doors.entry(door).or_default().note(begun, ended, &outcome);
            tally.confirmed.extend(order.filter(|_| outcome.answer.is_ok()));
        }
        next = (next + pace).max(ended);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(reason: &str) -> Outcome {
        Outcome { retried: false, answer: Err(reason.to_owned()) }
    }

    #[test]
    fn requests_are_turned_away_from_the_end_of_the_first_failure_to_the_beginning_of_the_last() {
        let of = Duration::from_millis;
        let mut tally = Tally::default();
        for (door, begun, ended) in [(Door::Plain, 100, 110), (Door::Plain, 300, 900), (Door::Plain, 250, 260), (Door::Port, 5, 6)] {
            tally.doors.entry(door).or_default().note(of(begun), of(ended), &failure("answered 502"));
        }
        assert_eq!((tally.sent(), tally.failed(), tally.refused()), (4, 4, of(190)));
        assert_eq!(tally.failures(), "nginx 3, port 1");
        for (begun, ended) in [(5_000, 5_001), (5_040, 5_050)] {
            tally.doors.entry(Door::Plain).or_default().note(of(begun), of(ended), &failure("answered 502"));
        }
        assert_eq!(tally.refused(), of(190), "what fails after a while without a failure is a stretch of its own");
        assert_eq!(Tally::default().failures(), "");
    }

    #[test]
    fn load_is_never_sent_to_another_machine() {
        let routes = BTreeMap::from([(Door::Port, Route::Plain(([10, 0, 0, 1], 80).into()))]);
        let doors = Doors { routes, neighbour: PathBuf::new() };
        assert!(Load::start(&doors, 1, "x", Seed::new(1)).is_err());
    }
}

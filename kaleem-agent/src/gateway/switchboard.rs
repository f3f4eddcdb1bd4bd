//! What all threads share: the routing in force, behind one pointer that is swapped whole, and every target that still counts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use kaleem_core::names::{ContainerName, ReleaseId};
use kaleem_core::traffic::{Admission, Counts, HoldLimits, Refusal, Routing, TargetStats};
use tokio::sync::{mpsc, watch};

use super::hold::{FIRST_LIMITS, Hold};
use super::places::Places;
use super::shard::ShardMessage;
use super::target::Target;

/// Longest order in which targets take turns.
const LONGEST_ORDER: usize = 4096;
/// Retired targets that are remembered one by one; older ones live on in the counters of their release.
const MOST_RETIRED: usize = 64;

/// What is in force. Never changed: another one takes its place.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) routing: Option<Routing>,
    /// Targets with weight.
    pub(crate) targets: Vec<Arc<Target>>,
    /// Whose turn it is, as places in `targets`.
    pub(crate) order: Vec<u16>,
    pub(crate) holds_all: bool,
    pub(crate) limits: HoldLimits,
    /// Name of the cookie, where clients stick.
    pub(crate) cookie: Option<String>,
}

#[derive(Debug, Default)]
struct Known {
    targets: Vec<Arc<Target>>,
    gone: BTreeMap<ReleaseId, Counts>,
}

/// A port of a target that could not be reached, for those who ask until it can.
#[derive(Clone, Debug)]
pub(crate) struct Doubt {
    pub(crate) target: Arc<Target>,
    pub(crate) listener: usize,
}

/// How sure one is of targets that a routing brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// They passed their gate a moment ago.
    Gated,
    /// They were there when the state was written: they are asked first.
    Remembered,
}

/// What all threads share.
#[derive(Debug)]
pub(crate) struct Switchboard {
    threads: usize,
    /// Ports by their places.
    pub(crate) places: Places,
    version: AtomicU64,
    table: Mutex<Arc<Table>>,
    known: Mutex<Known>,
    changed: watch::Sender<u64>,
    pub(crate) hold: Hold,
    /// Open connections by thread, by which new ones are dealt.
    pub(crate) loads: Box<[AtomicUsize]>,
    /// One for each task that accepts connections, and one for the board itself.
    accepting: Arc<()>,
    shards: Mutex<Vec<mpsc::UnboundedSender<ShardMessage>>>,
    doubts: mpsc::UnboundedSender<Doubt>,
}

impl Switchboard {
    /// A switchboard without any routing: everything is held.
    pub(crate) fn new(threads: usize, places: Places, doubts: mpsc::UnboundedSender<Doubt>) -> Self {
        let empty = Table { routing: None, targets: Vec::new(), order: Vec::new(), holds_all: true, limits: FIRST_LIMITS, cookie: None };
        Self {
            threads,
            places,
            version: AtomicU64::new(0),
            table: Mutex::new(Arc::new(empty)),
            known: Mutex::new(Known::default()),
            changed: watch::Sender::new(0),
            hold: Hold::default(),
            loads: std::iter::repeat_with(AtomicUsize::default).take(threads).collect(),
            accepting: Arc::default(),
            shards: Mutex::new(Vec::new()),
            doubts,
        }
    }

    /// Makes a data thread known.
    pub(crate) fn join(&self, shard: mpsc::UnboundedSender<ShardMessage>) {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner).push(shard);
    }

    /// Which table is in force; it differs after each switch.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::SeqCst)
    }

    /// The table in force.
    pub(crate) fn table(&self) -> Arc<Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells when a target may have come within reach.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Whether `routing` may take the place of what is in force; `Ok(false)` when it is in force already.
    pub(crate) fn compare(&self, routing: &Routing) -> Result<bool, Refusal> {
        routing.check()?;
        match &self.table().routing {
            Some(current) if current == routing => Ok(false),
            Some(current) if current.generation == routing.generation => Err(Refusal::Conflict { generation: current.generation }),
            Some(current) if current.generation > routing.generation => {
                Err(Refusal::Stale { offered: routing.generation, current: current.generation })
            }
            _ => Ok(true),
        }
    }

    /// Puts `routing` in force, by one swap.
    pub(crate) fn apply(&self, routing: Routing, trust: Trust) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut targets = Vec::new();
        let mut weights = Vec::new();
        for spec in &routing.targets {
            let target = match known.targets.iter().find(|target| target.is(spec)) {
                Some(target) => target.clone(),
                None => {
                    let target = Arc::new(Target::new(spec, self.threads));
                    known.targets.push(target.clone());
                    target
                }
            };
            if spec.weight == 0 {
                continue;
            }
            // One that served all along keeps the doubts it earned.
            if target.retired.load(Ordering::SeqCst) {
                target.cut.clear();
                target.believe_all();
                if trust == Trust::Remembered {
                    (0..self.places.own()).for_each(|listener| self.doubt(&target, listener));
                }
                target.retired.store(false, Ordering::SeqCst);
            }
            targets.push(target);
            weights.push(spec.weight);
        }
        let table = Table {
            order: order(&weights),
            holds_all: routing.admission == Admission::Hold,
            limits: routing.hold,
            cookie: routing.stickiness.as_ref().map(|sticky| sticky.cookie.clone()),
            routing: Some(routing),
            targets: targets.clone(),
        };
        *self.table.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
        self.version.fetch_add(1, Ordering::SeqCst);
        // Only now: a thread that still holds the old table sees this after it has counted itself in, and turns to the new one.
        for target in known.targets.iter().filter(|target| !targets.iter().any(|routed| Arc::ptr_eq(routed, target))) {
            target.retired.store(true, Ordering::SeqCst);
        }
        known.forget();
        drop(known);
        self.nudge();
        self.announce();
    }

    /// Remembers that a target cannot be reached, and sees to it that it is asked until it can.
    pub(crate) fn doubt(&self, target: &Arc<Target>, listener: usize) {
        if target.doubt(listener) {
            // The receiver lives as long as the worker; without it nobody is served anyway.
            self.doubts.send(Doubt { target: target.clone(), listener }).ok();
        }
    }

    /// Wakes those who wait for a target.
    pub(crate) fn announce(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Makes every thread look at its connections: some may have to end.
    pub(crate) fn nudge(&self) {
        self.tell(|| ShardMessage::Look);
    }

    /// Sends a message to every data thread.
    pub(crate) fn tell(&self, message: impl Fn() -> ShardMessage) {
        for shard in self.shards.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            // A thread that is gone has no connections.
            shard.send(message()).ok();
        }
    }

    /// Sends a message to one data thread; gives it back when that thread is gone.
    pub(crate) fn tell_one(&self, thread: usize, message: ShardMessage) -> Result<(), ShardMessage> {
        match self.shards.lock().unwrap_or_else(PoisonError::into_inner).get(thread) {
            Some(shard) => shard.send(message).map_err(|error| error.0),
            None => Err(message),
        }
    }

    /// Everything known under the name of an instance.
    pub(crate) fn named(&self, instance: &ContainerName) -> Vec<Arc<Target>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.targets.iter().filter(|target| target.instance == *instance).cloned().collect()
    }

    /// Everything known.
    pub(crate) fn all(&self) -> Vec<Arc<Target>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).targets.clone()
    }

    /// Open connections of clients.
    pub(crate) fn open_connections(&self) -> usize {
        self.loads.iter().map(|load| load.load(Ordering::SeqCst)).sum()
    }

    /// Counts a task as one that accepts connections, until what it gets is dropped.
    pub(crate) fn accepts(&self) -> Arc<()> {
        self.accepting.clone()
    }

    /// Whether a connection may still come.
    pub(crate) fn is_accepting(&self) -> bool {
        Arc::strong_count(&self.accepting) > 1
    }

    /// Counters by target and by release.
    pub(crate) fn counts(&self) -> (Vec<TargetStats>, BTreeMap<ReleaseId, Counts>) {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let targets: Vec<TargetStats> = known.targets.iter().map(|target| target.stats()).collect();
        let mut releases = known.gone.clone();
        for target in &targets {
            releases.entry(target.release).or_default().add(&target.counts);
        }
        (targets, releases)
    }
}

impl Known {
    /// Drops the oldest retired targets where there are many; what they counted stays.
    fn forget(&mut self) {
        let idle = |target: &Arc<Target>| target.retired.load(Ordering::SeqCst) && target.in_flight() == 0;
        let mut surplus = self.targets.iter().filter(|target| idle(target)).count().saturating_sub(MOST_RETIRED);
        let gone = &mut self.gone;
        self.targets.retain(|target| {
            let forgotten = surplus > 0 && idle(target);
            if forgotten {
                surplus -= 1;
                gone.entry(target.release).or_default().add(&target.counts());
            }
            !forgotten
        });
    }
}

/// Who is next, such that shares follow the weights and turns are spread evenly.
fn order(weights: &[u16]) -> Vec<u16> {
    let divisor = weights.iter().fold(0, |a, b| gcd(a, *b)).max(1);
    let mut shares: Vec<i64> = weights.iter().map(|weight| i64::from(weight / divisor)).collect();
    let total: i64 = shares.iter().sum();
    let longest = i64::try_from(LONGEST_ORDER).unwrap_or(i64::MAX);
    if total > longest {
        for share in &mut shares {
            *share = (*share * longest / total).max(1);
        }
    }
    let total: i64 = shares.iter().sum();
    let mut credit = vec![0_i64; shares.len()];
    let mut order = Vec::new();
    for _ in 0..total {
        let mut best: Option<(usize, i64)> = None;
        for (place, (credit, share)) in credit.iter_mut().zip(&shares).enumerate() {
            *credit += share;
            if best.is_none_or(|(_, most)| *credit > most) {
                best = Some((place, *credit));
            }
        }
        let Some((place, _)) = best else { break };
        if let Some(credit) = credit.get_mut(place) {
            *credit -= total;
        }
        order.push(u16::try_from(place).unwrap_or(u16::MAX));
    }
    order
}

fn gcd(a: u16, b: u16) -> u16 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_follow_the_weights_and_are_spread() {
        assert_eq!(order(&[1, 1]), [0, 1]);
        assert_eq!(order(&[100, 300]), [1, 0, 1, 1]);
        assert_eq!(order(&[]), Vec::<u16>::new());
        let many = order(&[1000; 256]);
        assert_eq!(many.len(), 256, "equal weights need one turn each");
        let skewed = order(&[999, 1]);
        assert_eq!((skewed.len(), skewed.iter().filter(|place| **place == 1).count()), (1000, 1));
        let odd: Vec<u16> = (1..=256).map(|n| 1000 - n).collect();
        assert!(order(&odd).len() <= LONGEST_ORDER + 256);
    }
}

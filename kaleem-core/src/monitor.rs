//! What findings mean over time: incidents that open late enough to be real, and close late enough to be over.
//!
//! Pure: the caller brings the time, runs the probes that are due, and does what the events say. Time is that of a
//! monotonic clock which stands still while nobody monitors; wall time is written into incidents for people.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use crate::health::{Finding, Verdict};
use crate::names::ServiceName;

mod schedule;
mod state;

pub use state::{Condition, Incident, IncidentId, MonitorState, ProbeId, ProbeState, STATE_FORMAT, Window};

/// How one probe is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchSettings {
    /// The service that it belongs to.
    pub service: ServiceName,
    /// Time between two runs.
    pub interval: Duration,
    /// Failures in a row that open an incident.
    pub fails: u32,
    /// Time from the first of them, at least.
    pub least_bad: Duration,
    /// Passes in a row that close it.
    pub passes: u32,
    /// Time from the first of them, at least.
    pub least_good: Duration,
    /// Unknown answers in a row after which it is told that nothing is known.
    pub unknowns: u32,
    /// Changes between good and bad that are flapping, and the time in which they happen.
    pub flap: (u32, Duration),
}

impl WatchSettings {
    /// Every 10 s; 3 failures over 20 s open, 2 passes over 10 s close; 6 changes in 10 minutes are flapping.
    pub fn standard(service: ServiceName) -> Self {
        Self {
            service,
            interval: Duration::from_secs(10),
            fails: 3,
            least_bad: Duration::from_secs(20),
            passes: 2,
            least_good: Duration::from_secs(10),
            unknowns: 6,
            flap: (6, Duration::from_secs(600)),
        }
    }
}

/// What is watched, and how it hangs together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MonitorSettings {
    /// The probes.
    pub probes: BTreeMap<ProbeId, WatchSettings>,
    /// What each service needs (`depends_on` of the compose file).
    pub depends_on: BTreeMap<ServiceName, BTreeSet<ServiceName>>,
    /// Probes that run at the same time, at most.
    pub concurrency: usize,
    /// Spreads the runs; any number, the same one gives the same times.
    pub seed: u64,
}

/// Something that a person, or an alert, is told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MonitorEvent {
    /// An incident began. With `suppressed_by` another one explains it, and nobody needs to be woken twice.
    Opened(Incident),
    /// What explained an incident is over, and it is not.
    Surfaced(Incident),
    /// An incident is over.
    Closed(Incident),
    /// A probe changes its mind too often; its incidents stay until it is steady.
    Flapping(ProbeId),
    /// It no longer does.
    Steady(ProbeId),
    /// Nothing is known of what a probe asks: no failure, and no comfort either.
    Blind(ProbeId),
    /// Something is known again.
    Sighted(ProbeId),
}

/// The state machine.
#[derive(Clone, Debug)]
pub struct Monitor {
    settings: MonitorSettings,
    state: MonitorState,
    /// What is running; not kept, since nothing runs after a restart.
    running: BTreeSet<ProbeId>,
    /// When each probe runs next.
    next: BTreeMap<ProbeId, Duration>,
    /// The same of those that do not run, by time: a thousand probes are not looked through at every step.
    idle: BTreeSet<(Duration, ProbeId)>,
    /// How far the caller's clock is ahead of the monitor's.
    offset: Duration,
    last: Duration,
}

impl Monitor {
    /// A monitor that has seen nothing.
    pub fn new(settings: MonitorSettings, now: Duration) -> Self {
        Self::restore(settings, MonitorState::new(), now, Timestamp::UNIX_EPOCH).0
    }

    /// A monitor that goes on where `state` ended; the time between does not count.
    ///
    /// Incidents of probes that are no longer watched are closed.
    pub fn restore(settings: MonitorSettings, mut state: MonitorState, now: Duration, wall: Timestamp) -> (Self, Vec<MonitorEvent>) {
        state.format = STATE_FORMAT;
        state.probes.retain(|id, _| settings.probes.contains_key(id));
        let offset = now.saturating_sub(state.time);
        let gone: Vec<IncidentId> =
            state.incidents.values().filter(|one| !settings.probes.contains_key(&one.probe)).map(|one| one.id).collect();
        let (running, next, idle) = (BTreeSet::new(), BTreeMap::new(), BTreeSet::new());
        let mut monitor = Self { settings, state, running, next, idle, offset, last: now };
        let start = monitor.state.time;
        for (id, watch) in &monitor.settings.probes {
            monitor.state.probes.entry(id.clone()).or_default();
            // The first runs are spread over one interval, so that they stay spread.
            let first = start + schedule::share(monitor.settings.seed, id, 0, watch.interval);
            monitor.next.insert(id.clone(), first);
            monitor.idle.insert((first, id.clone()));
        }
        let events = gone.into_iter().flat_map(|id| monitor.close(id, wall)).collect();
        (monitor, events)
    }

    /// What is kept on disk.
    pub fn state(&self) -> &MonitorState {
        &self.state
    }

    /// Probes that are to be run now. They count as running until [`Monitor::record`] is called for them.
    pub fn due(&mut self, now: Duration) -> Vec<ProbeId> {
        let time = self.advance(now);
        let room = self.settings.concurrency.max(1).saturating_sub(self.running.len());
        let mut started = Vec::new();
        // Who has waited longest goes first, so that nobody starves behind the cap.
        while started.len() < room
            && self.idle.first().is_some_and(|(at, _)| *at <= time)
            && let Some((_, id)) = self.idle.pop_first()
        {
            self.running.insert(id.clone());
            started.push(id);
        }
        started
    }

    /// When to call [`Monitor::due`] again, on the caller's clock; `None` while everything runs or nothing is watched.
    pub fn next_due(&self) -> Option<Duration> {
        if self.running.len() >= self.settings.concurrency.max(1) {
            return None;
        }
        self.idle.first().map(|(at, _)| *at + self.offset)
    }

    /// Takes in what a probe found. A probe that is not watched changes nothing.
    pub fn record(&mut self, id: &ProbeId, finding: &Finding, now: Duration, wall: Timestamp) -> Vec<MonitorEvent> {
        let time = self.advance(now);
        let Some(watch) = self.settings.probes.get(id).cloned() else { return Vec::new() };
        self.running.remove(id);
        let in_window = self.state.windows.values().any(|window| window.services.contains(&watch.service));
        let mut events = Vec::new();
        let probe = self.state.probes.entry(id.clone()).or_default();
        probe.runs = probe.runs.wrapping_add(1);
        let next = schedule::next_run(self.settings.seed, id, probe.runs, watch.interval, time);
        // What was recorded without having been due stood in the queue.
        if let Some(before) = self.next.insert(id.clone(), next) {
            self.idle.remove(&(before, id.clone()));
        }
        self.idle.insert((next, id.clone()));
        probe.last = Some(finding.verdict);
        if finding.verdict == Verdict::Unknown {
            probe.unknowns = probe.unknowns.saturating_add(1);
            if probe.unknowns == watch.unknowns.max(1) {
                events.push(MonitorEvent::Blind(id.clone()));
            }
            return events;
        }
        if std::mem::take(&mut probe.unknowns) >= watch.unknowns.max(1) {
            events.push(MonitorEvent::Sighted(id.clone()));
        }
        let condition = if finding.verdict == Verdict::Fail { Condition::Bad } else { Condition::Good };
        if condition == Condition::Bad && in_window {
            // A deploy is at work: what it breaks is its gate's to judge.
            probe.streak = 0;
            probe.condition = None;
            return events;
        }
        if probe.condition != Some(condition) {
            if probe.condition.is_some() {
                probe.changes.push(time);
            }
            probe.condition = Some(condition);
            probe.streak = 0;
            probe.since = time;
        }
        probe.streak = probe.streak.saturating_add(1);
        probe.changes.retain(|at| *at + watch.flap.1 > time);
        let changes = u32::try_from(probe.changes.len()).unwrap_or(u32::MAX);
        let lasted = time.saturating_sub(probe.since);
        let was_flapping = probe.is_flapping;
        probe.is_flapping = if was_flapping { changes > watch.flap.0 / 2 } else { watch.flap.0 > 0 && changes >= watch.flap.0 };
        let (streak, is_flapping) = (probe.streak, probe.is_flapping);
        let open = self.state.incidents.values().find(|one| one.probe == *id).map(|one| one.id);
        match (was_flapping, is_flapping) {
            (false, true) => events.push(MonitorEvent::Flapping(id.clone())),
            (true, false) => events.push(MonitorEvent::Steady(id.clone())),
            _ => {}
        }
        match (condition, open) {
            (Condition::Bad, None) if is_flapping || (streak >= watch.fails.max(1) && lasted >= watch.least_bad) => {
                events.push(self.open(id, &watch, finding, wall));
            }
            (Condition::Good, Some(incident)) if !is_flapping && streak >= watch.passes.max(1) && lasted >= watch.least_good => {
                events.extend(self.close(incident, wall));
            }
            _ => {}
        }
        events
    }

    /// Silences failures of these services until `until` at the latest: a deploy that dies silences nobody for ever.
    ///
    /// A window with the same name is replaced.
    pub fn open_window(&mut self, name: &str, services: BTreeSet<ServiceName>, now: Duration, until: Duration) {
        self.advance(now);
        let until = until.saturating_sub(self.offset);
        self.state.windows.insert(name.to_owned(), Window { services, until });
    }

    /// Ends a window; one that is not there is ended already.
    pub fn close_window(&mut self, name: &str, now: Duration) {
        self.advance(now);
        self.state.windows.remove(name);
    }

    /// The monitor's own time, which never goes back.
    fn advance(&mut self, now: Duration) -> Duration {
        self.last = self.last.max(now);
        let time = self.last.saturating_sub(self.offset).max(self.state.time);
        self.state.time = time;
        self.state.windows.retain(|_, window| window.until > time);
        time
    }

    fn open(&mut self, id: &ProbeId, watch: &WatchSettings, finding: &Finding, wall: Timestamp) -> MonitorEvent {
        self.state.incidents_so_far += 1;
        let incident = Incident {
            id: IncidentId(self.state.incidents_so_far),
            probe: id.clone(),
            service: watch.service.clone(),
            reason: finding.reason.clone(),
            remedy: finding.remedy.clone(),
            opened_at: wall,
            closed_at: None,
            suppressed_by: self.explanation(&watch.service),
        };
        self.state.incidents.insert(incident.id, incident.clone());
        MonitorEvent::Opened(incident)
    }

    fn close(&mut self, id: IncidentId, wall: Timestamp) -> Vec<MonitorEvent> {
        let Some(mut closed) = self.state.incidents.remove(&id) else { return Vec::new() };
        closed.closed_at = Some(wall);
        let mut events = vec![MonitorEvent::Closed(closed)];
        let orphans: Vec<IncidentId> =
            self.state.incidents.values().filter(|one| one.suppressed_by == Some(id)).map(|one| one.id).collect();
        for orphan in orphans {
            let Some(service) = self.state.incidents.get(&orphan).map(|one| one.service.clone()) else { continue };
            let explanation = self.explanation(&service);
            let Some(incident) = self.state.incidents.get_mut(&orphan) else { continue };
            incident.suppressed_by = explanation;
            if explanation.is_none() {
                events.push(MonitorEvent::Surfaced(incident.clone()));
            }
        }
        events
    }

    /// An incident of something that the service needs, which itself needs no explanation.
    fn explanation(&self, service: &ServiceName) -> Option<IncidentId> {
        let mut needed: BTreeSet<&ServiceName> = BTreeSet::new();
        let mut next = vec![service];
        while let Some(current) = next.pop() {
            for dependency in self.settings.depends_on.get(current).into_iter().flatten() {
                if dependency != service && needed.insert(dependency) {
                    next.push(dependency);
                }
            }
        }
        self.state.incidents.values().find(|one| one.suppressed_by.is_none() && needed.contains(&one.service)).map(|one| one.id)
    }
}

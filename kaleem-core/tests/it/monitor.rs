//! The monitor: what a row of findings means.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use kaleem_core::health::{Finding, Verdict};
use kaleem_core::monitor::{Monitor, MonitorEvent, MonitorSettings, MonitorState, ProbeId, WatchSettings};
use kaleem_core::names::ServiceName;
use proptest::prelude::*;

const WALL: Timestamp = Timestamp::UNIX_EPOCH;

fn service(name: &str) -> ServiceName {
    name.parse().unwrap()
}

fn id(name: &str) -> ProbeId {
    ProbeId::new(&service(name), "probe")
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// `web` needs `api`, which needs `db`.
fn settings() -> MonitorSettings {
    let probes = ["db", "api", "web"].map(|name| (id(name), WatchSettings::standard(service(name))));
    let depends_on = [("api", "db"), ("web", "api")].map(|(name, needed)| (service(name), BTreeSet::from([service(needed)])));
    MonitorSettings { probes: BTreeMap::from(probes), depends_on: BTreeMap::from(depends_on), concurrency: 2, seed: 7 }
}

fn finding(verdict: Verdict) -> Finding {
    Finding::new(verdict, "because").with_remedy("do this")
}

fn name(event: &MonitorEvent) -> String {
    match event {
        MonitorEvent::Opened(one) => format!("opened {}{}", one.id, one.suppressed_by.map_or(String::new(), |by| format!(" by {by}"))),
        MonitorEvent::Surfaced(one) => format!("surfaced {}", one.id),
        MonitorEvent::Closed(one) => format!("closed {}", one.id),
        MonitorEvent::Flapping(_) => "flapping".to_owned(),
        MonitorEvent::Steady(_) => "steady".to_owned(),
        MonitorEvent::Blind(_) => "blind".to_owned(),
        MonitorEvent::Sighted(_) => "sighted".to_owned(),
        other => format!("{other:?}"),
    }
}

/// Records one letter after the other (o w f u), 10 s apart, and gives what happened at which.
fn run(monitor: &mut Monitor, probe: &str, start: u64, letters: &str) -> Vec<(usize, String)> {
    let mut seen = Vec::new();
    for (index, letter) in letters.chars().enumerate() {
        let verdict = match letter {
            'o' => Verdict::Ok,
            'w' => Verdict::Warn,
            'f' => Verdict::Fail,
            _ => Verdict::Unknown,
        };
        let now = seconds(start + 10 * u64::try_from(index).unwrap());
        let events = monitor.record(&id(probe), &finding(verdict), now, WALL);
        seen.extend(events.iter().map(|event| (index, name(event))));
    }
    seen
}

#[test]
fn an_incident_opens_and_closes_only_after_enough_in_a_row() {
    for (why, letters, expected) in [
        ("all is well", "oooooo", vec![]),
        ("two failures are not enough", "offoffo", vec![]),
        ("three are", "offfooo", vec![(3, "opened i1"), (5, "closed i1")]),
        ("one pass does not close", "fffof", vec![(2, "opened i1")]),
        ("a warning is a pass", "fffww", vec![(2, "opened i1"), (4, "closed i1")]),
        ("unknown counts for nothing", "ffufuo", vec![(3, "opened i1")]),
        ("unknown for long is told", "ouuuuuuuo", vec![(6, "blind"), (8, "sighted")]),
        ("numbers are not used twice", "fffoofffoo", vec![(2, "opened i1"), (4, "closed i1"), (7, "opened i2"), (9, "closed i2")]),
    ] {
        let seen = run(&mut Monitor::new(settings(), Duration::ZERO), "db", 0, letters);
        let expected: Vec<_> = expected.into_iter().map(|(index, name)| (index, name.to_owned())).collect();
        assert_eq!(seen, expected, "{why}: {letters}");
    }
}

#[test]
fn three_failures_in_a_second_are_no_incident() {
    let mut monitor = Monitor::new(settings(), Duration::ZERO);
    for ms in [0, 300, 600, 900] {
        assert!(monitor.record(&id("db"), &finding(Verdict::Fail), Duration::from_millis(ms), WALL).is_empty(), "{ms}");
    }
    assert_eq!(monitor.record(&id("db"), &finding(Verdict::Fail), seconds(20), WALL).len(), 1);
}

#[test]
fn a_probe_that_flaps_has_one_incident_until_it_is_steady() {
    let mut monitor = Monitor::new(settings(), Duration::ZERO);
    let seen = run(&mut monitor, "db", 0, "ofofofofofofofof");
    assert_eq!(seen, [(6, "flapping".to_owned()), (7, "opened i1".to_owned())]);
    // Ten minutes of peace: the changes are forgotten, then it closes.
    let seen = run(&mut monitor, "db", 160, &"o".repeat(70));
    let names: Vec<&str> = seen.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(names, ["steady", "closed i1"]);
}

#[test]
fn what_is_explained_by_a_dependency_wakes_nobody_until_the_dependency_is_well() {
    let mut monitor = Monitor::new(settings(), Duration::ZERO);
    assert_eq!(run(&mut monitor, "db", 0, "fff"), [(2, "opened i1".to_owned())]);
    assert_eq!(run(&mut monitor, "web", 30, "fff"), [(2, "opened i2 by i1".to_owned())], "also over two steps");
    assert_eq!(run(&mut monitor, "api", 60, "fff"), [(2, "opened i3 by i1".to_owned())]);
    assert_eq!(run(&mut monitor, "api", 90, "oo"), [(1, "closed i3".to_owned())]);
    assert_eq!(run(&mut monitor, "db", 110, "oo"), [(1, "closed i1".to_owned()), (1, "surfaced i2".to_owned())]);
    assert_eq!(run(&mut monitor, "web", 130, "oo"), [(1, "closed i2".to_owned())]);
}

#[test]
fn a_window_silences_its_services_and_ends_by_itself() {
    let mut monitor = Monitor::new(settings(), Duration::ZERO);
    monitor.open_window("deploy r7", BTreeSet::from([service("api")]), seconds(0), seconds(100));
    assert_eq!(run(&mut monitor, "api", 0, "ffffff"), []);
    assert_eq!(run(&mut monitor, "db", 60, "fff"), [(2, "opened i1".to_owned())], "others are not silenced");
    assert_eq!(run(&mut monitor, "db", 90, "oo").len(), 1);
    assert_eq!(run(&mut monitor, "api", 110, "fff"), [(2, "opened i2".to_owned())], "counted from the end of the window");
    monitor.open_window("deploy r8", BTreeSet::from([service("db")]), seconds(200), seconds(900));
    monitor.close_window("deploy r8", seconds(210));
    assert_eq!(run(&mut monitor, "db", 220, "fff").len(), 1, "ended early");
}

#[test]
fn a_restart_forgets_nothing_and_counts_no_time() {
    let mut monitor = Monitor::new(settings(), seconds(1000));
    run(&mut monitor, "db", 1000, "fff");
    run(&mut monitor, "api", 1030, "ff");
    monitor.open_window("deploy", BTreeSet::from([service("web")]), seconds(1050), seconds(1150));
    let text = serde_json::to_string(monitor.state()).unwrap();
    let state: MonitorState = serde_json::from_str(&text).unwrap();
    assert_eq!(&state, monitor.state());
    // The clock of the new process starts somewhere else.
    let (mut monitor, events) = Monitor::restore(settings(), state.clone(), seconds(5), WALL);
    assert_eq!(events, []);
    assert_eq!(run(&mut monitor, "api", 15, "f"), [(0, "opened i2 by i1".to_owned())], "the third failure in a row");
    assert_eq!(run(&mut monitor, "web", 30, "fff"), [], "the window is still open");
    assert_eq!(run(&mut monitor, "db", 60, "oo")[0].1, "closed i1");

    let mut fewer = settings();
    fewer.probes.remove(&id("db"));
    let (_, events) = Monitor::restore(fewer, state, seconds(5), WALL);
    assert_eq!(events.iter().map(name).collect::<Vec<_>>(), ["closed i1"], "nobody watches it any more");
}

#[test]
fn no_probe_overlaps_itself_the_cap_holds_and_nobody_starves() {
    let mut monitor = Monitor::new(settings(), Duration::ZERO);
    let first = monitor.due(seconds(10));
    assert_eq!(first.len(), 2, "the cap");
    assert_eq!(monitor.due(seconds(60)), [], "two are running");
    assert_eq!(monitor.next_due(), None);
    monitor.record(&first[0], &finding(Verdict::Ok), seconds(60), WALL);
    let second = monitor.due(seconds(90));
    assert_eq!(second.len(), 1);
    assert!(!first.contains(&second[0]), "who waited longest goes first: {second:?}");
    monitor.record(&second[0], &finding(Verdict::Ok), seconds(91), WALL);
    let next = monitor.next_due().unwrap();
    assert!((seconds(69)..=seconds(71)).contains(&next), "within a tenth of its interval: {next:?}");
}

#[derive(Clone, Debug)]
enum Action {
    Record(usize, Verdict),
    Window(usize),
    Restart,
}

fn action() -> impl Strategy<Value = Action> {
    let verdict = prop::sample::select(vec![Verdict::Ok, Verdict::Warn, Verdict::Unknown, Verdict::Fail]);
    prop_oneof![12 => (0..3_usize, verdict).prop_map(|(probe, verdict)| Action::Record(probe, verdict)), 1 => (0..3_usize).prop_map(Action::Window), 1 => Just(Action::Restart)]
}

proptest! {
    #[test]
    fn whatever_happens_incidents_are_opened_once_closed_once_and_explained_by_open_ones(actions in prop::collection::vec((action(), 0..40_u64), 0..200)) {
        let names = ["db", "api", "web"];
        let mut settings = settings();
        // A cycle must not make two incidents explain each other.
        settings.depends_on.insert(service("db"), BTreeSet::from([service("web")]));
        let mut monitor = Monitor::new(settings.clone(), Duration::ZERO);
        let (mut now, mut open) = (Duration::ZERO, BTreeSet::new());
        let (mut last, mut fails) = (0, [0_u32; 3]);
        for (action, pause) in actions {
            now += seconds(pause);
            let events = match action {
                Action::Record(probe, verdict) => {
                    match verdict {
                        Verdict::Fail => fails[probe] += 1,
                        Verdict::Unknown => {}
                        Verdict::Ok | Verdict::Warn => fails[probe] = 0,
                    }
                    let flapped = monitor.state().probes[&id(names[probe])].is_flapping;
                    let events = monitor.record(&id(names[probe]), &finding(verdict), now, WALL);
                    let flaps = flapped || monitor.state().probes[&id(names[probe])].is_flapping;
                    for event in &events {
                        match event {
                            MonitorEvent::Opened(_) => prop_assert!(verdict == Verdict::Fail && (flaps || fails[probe] >= 3)),
                            MonitorEvent::Closed(_) => prop_assert!(matches!(verdict, Verdict::Ok | Verdict::Warn)),
                            _ => {}
                        }
                    }
                    events
                }
                Action::Window(probe) => {
                    monitor.open_window("deploy", BTreeSet::from([service(names[probe])]), now, now + seconds(30));
                    Vec::new()
                }
                Action::Restart => {
                    let state = serde_json::from_str(&serde_json::to_string(monitor.state()).unwrap()).unwrap();
                    let (restored, events) = Monitor::restore(settings.clone(), state, now, WALL);
                    prop_assert_eq!(restored.state(), monitor.state());
                    monitor = restored;
                    events
                }
            };
            for event in events {
                match event {
                    MonitorEvent::Opened(one) => {
                        prop_assert!(one.id.0 > last, "numbers grow");
                        last = one.id.0;
                        prop_assert!(open.insert(one.id));
                    }
                    MonitorEvent::Closed(one) => prop_assert!(open.remove(&one.id)),
                    _ => {}
                }
            }
            let incidents = &monitor.state().incidents;
            prop_assert_eq!(&incidents.keys().copied().collect::<BTreeSet<_>>(), &open);
            for one in incidents.values() {
                let explained = one.suppressed_by.is_none_or(|by| incidents.get(&by).is_some_and(|by| by.suppressed_by.is_none()));
                prop_assert!(explained, "{:?}", incidents);
            }
            prop_assert!(incidents.is_empty() || incidents.values().any(|one| one.suppressed_by.is_none()), "somebody is always told");
        }
    }
}

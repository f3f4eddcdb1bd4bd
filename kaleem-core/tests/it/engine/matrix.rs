//! Death at every call and every journal write of every kind of plan.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kaleem_core::durable::power;
use kaleem_core::engine::Ending;
use kaleem_core::lease;
use kaleem_core::outcome::Outcome;
use kaleem_core::testing::{FakeCall, FakeOperation};

use super::cases::{Case, cases, expected, left};
use crate::world::{Moment, World};

/// Counts everything that touches the host or the journal, and dies at one of them.
#[derive(Clone)]
pub(super) struct Reaper {
    count: Arc<AtomicUsize>,
    at: usize,
}

pub(super) struct Died;

impl Reaper {
    pub(super) fn new(at: usize) -> Self {
        Self { count: Arc::new(AtomicUsize::new(0)), at }
    }

    fn tick(&self) {
        if self.count.fetch_add(1, Ordering::SeqCst) == self.at {
            std::panic::panic_any(Died);
        }
    }

    pub(super) fn watch(&self, world: &World) {
        let (before_call, before_write, before_switch, with_data) = (self.clone(), self.clone(), self.clone(), self.clone());
        world.runtime.before_call(Some(Arc::new(move |call: &FakeCall| {
            if call.operation.is_mutating() {
                before_call.tick();
            }
            None
        })));
        world.clock.on_now(Box::new(move || before_write.tick()));
        world.traffic.around_calls(Some(Arc::new(move |moment| {
            if moment == Moment::Before {
                before_switch.tick();
            }
            None
        })));
        world.sets.at_places(Some(Arc::new(move |_| {
            with_data.tick();
            None
        })));
    }

    pub(super) fn leave(world: &World) {
        world.runtime.before_call(None);
        world.clock.on_now(Box::new(|| {}));
        world.traffic.around_calls(None);
        world.sets.at_places(None);
    }
}

/// Carries the plan out and dies at the `at`th write or call; answers whether it died.
pub(super) async fn run_and_die(world: &World, case: &Case, at: usize) -> bool {
    quiet();
    let work = world.kaleem.work(&world.project()).await.unwrap();
    let planned = case.plan(world, &work).await.unwrap();
    Reaper::new(at).watch(world);
    let died = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.kaleem.start(work, &planned))) {
        Ok(run) => run.unwrap().finish().await.is_err(),
        Err(_) => true,
    };
    Reaper::leave(world);
    died
}

/// Panics of the reaper are meant: they are not printed.
pub(super) fn quiet() {
    use std::sync::Once;
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !info.payload().is::<Died>() {
                print(info);
            }
        }));
    });
}

pub(super) fn is_open(world: &World) -> bool {
    world.kaleem.history(&world.project()).unwrap().open().is_some()
}

/// Dies at every place in turn, does `meanwhile` to the world, resumes, and looks at what is left.
pub(super) async fn resume_after_every_death(case: &Case, meanwhile: &(dyn Fn(&World) + Sync)) {
    let (_, after) = expected(case).await;
    let mut at = 0;
    loop {
        let world = case.prepared().await;
        if !run_and_die(&world, case, at).await {
            break;
        }
        let place = format!("{}, death {at}", case.name());
        meanwhile(&world);
        if is_open(&world) {
            let ending = world.resume().await.unwrap();
            assert_eq!(matches!(ending, Ending::Over(Outcome::Deployed { .. })), case.good(), "{place}: {ending:?}");
            assert_eq!(left(&world).await, after, "{place}");
        } else {
            // It died before its journal was there, or after its last word: nothing is to be resumed.
            assert!(world.resume().await.is_err(), "{place}");
        }
        let again = left(&world).await;
        assert!(world.resume().await.is_err(), "{place}: a second resume has nothing to do");
        assert_eq!(left(&world).await, again, "{place}: a second resume changes nothing");
        at += 1;
    }
    assert!(at > 6 || case.is_upgrade() && at > 3, "{}: the reaper saw {at} places only", case.name());
}

/// What a loss of power leaves of the newest journal: what was waited for. Answers how many bytes it took.
fn lose_power(world: &World) -> u64 {
    let plans = world.directory.path().join("shop/plans");
    let journals = std::fs::read_dir(plans).unwrap().map(|entry| entry.unwrap().path());
    let newest = journals.filter(|path| path.extension().is_some_and(|end| end == "jsonl")).max().unwrap();
    let kept = power::kept_bytes(&newest).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&newest).unwrap();
    let lost = file.metadata().unwrap().len() - kept;
    file.set_len(kept).unwrap();
    lost
}

/// The host of kaleem loses its power at every place in turn; the engine may be on another host, and goes on.
async fn resume_after_every_loss_of_power(case: &Case) {
    let lost = AtomicUsize::new(0);
    resume_after_every_death(case, &|world| {
        if is_open(world) && lose_power(world) > 0 {
            lost.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    assert!(lost.load(Ordering::SeqCst) > 0, "{}: every line was waited for", case.name());
}

/// The same, taken back.
pub(super) async fn abort_after_every_loss_of_power(case: &Case) {
    abort_after_every(case, &|world| {
        if is_open(world) {
            lose_power(world);
        }
    })
    .await;
}

/// Dies at every place in turn, takes it back, and looks at what is left.
pub(super) async fn abort_after_every_death(case: &Case) {
    abort_after_every(case, &|_| {}).await;
}

async fn abort_after_every(case: &Case, meanwhile: &(dyn Fn(&World) + Sync)) {
    let (before, after) = expected(case).await;
    let mut at = 0;
    loop {
        let world = case.prepared().await;
        if !run_and_die(&world, case, at).await {
            break;
        }
        let place = format!("{}, death {at}", case.name());
        meanwhile(&world);
        if is_open(&world) {
            match world.abort().await.unwrap() {
                Ending::Over(Outcome::Deployed { .. }) => assert_eq!(left(&world).await, after, "{place}: it was committed"),
                Ending::Over(Outcome::Aborted { .. }) if case.is_upgrade() => {
                    let found = left(&world).await;
                    assert!(found == before || found == after, "{place}: {found:?}");
                }
                Ending::Over(Outcome::Aborted { .. } | Outcome::RolledBack { .. }) => assert_eq!(left(&world).await, before, "{place}"),
                other => panic!("{place}: {other:?}"),
            }
        }
        at += 1;
    }
}

#[tokio::test]
async fn death_at_any_call_or_write_then_resume_ends_as_if_nothing_had_happened() {
    for case in cases() {
        resume_after_every_death(&case, &|_| {}).await;
    }
}

/// Otherwise the matrices would not know the way back through a replica that was stopped before.
#[tokio::test]
async fn what_fails_in_the_watch_of_a_batch_is_found_after_an_old_one_was_stopped() {
    let case = cases().into_iter().find(|case| case.name() == "in batches, bad late").unwrap();
    let world = case.prepared().await;
    let stops = || world.runtime.calls().iter().filter(|call| call.operation == FakeOperation::Stop).count();
    let (before, earlier) = (left(&world).await, stops());
    let ending = case.run(&world).await.unwrap();
    assert!(matches!(ending, Ending::Over(Outcome::RolledBack { .. })), "{ending:?}");
    assert_eq!(left(&world).await, before);
    // At least the old one whose place was needed, and the new one on the way back.
    assert!(stops() - earlier >= 2, "{}", stops() - earlier);
}

#[tokio::test]
async fn death_at_any_call_or_write_then_abort_leaves_nothing_behind() {
    for case in cases() {
        abort_after_every_death(&case).await;
    }
}

#[tokio::test]
async fn a_loss_of_power_at_any_call_or_write_then_resume_ends_as_if_nothing_had_happened() {
    for case in cases() {
        resume_after_every_loss_of_power(&case).await;
    }
}

#[tokio::test]
async fn a_loss_of_power_at_any_call_or_write_then_abort_leaves_nothing_behind() {
    for case in cases() {
        abort_after_every_loss_of_power(&case).await;
    }
}

/// One of each way in which what runs differs after a reboot; the rest would only take longer. An instance that is to crash
/// a while after its start has that while again, so it is not among them.
const REBOOTED: [&str; 5] = ["first deploy", "one service", "one service, bad", "behind a gateway", "behind a gateway, bad"];

#[tokio::test]
async fn a_reboot_at_any_call_or_write_then_resume_ends_as_if_nothing_had_happened() {
    // Everything stops, and what its restart policy says starts again.
    for case in cases().into_iter().filter(|case| REBOOTED.contains(&case.name())) {
        resume_after_every_death(&case, &|world| world.runtime.restart_engine()).await;
    }
}

#[tokio::test]
async fn a_clock_that_jumps_by_an_hour_changes_nothing() {
    let hour = std::time::Duration::from_secs(3600);
    for case in cases() {
        let (_, after) = expected(&case).await;
        let world = case.prepared().await;
        let (clock, writes) = (world.clock.clone(), AtomicUsize::new(0));
        // Back, then forth, at every line of the journal.
        world.clock.on_now(Box::new(move || clock.set_wall_back_or_forth(hour, writes.fetch_add(1, Ordering::SeqCst) % 2 == 0)));
        let ending = case.run(&world).await.unwrap();
        assert_eq!(matches!(ending, Ending::Over(Outcome::Deployed { .. })), case.good(), "{}: {ending:?}", case.name());
        assert_eq!(left(&world).await, after, "{}", case.name());
    }
    for case in cases().into_iter().filter(|case| case.name() == "one service") {
        resume_after_every_death(&case, &|world| world.clock.set_wall_back_or_forth(hour, true)).await;
    }
}

#[tokio::test]
async fn a_slow_disk_changes_nothing_and_the_lease_is_kept_meanwhile() {
    for case in cases().into_iter().filter(|case| ["one service, bad", "behind a gateway"].contains(&case.name())) {
        let (_, after) = expected(&case).await;
        let world = case.prepared().await;
        let (other, project) = (world.kaleem.clone(), world.project());
        let kept = Arc::new(AtomicUsize::new(0));
        let counter = kept.clone();
        // Every line of the journal takes its time, as on a disk that is worn out or far away.
        world.clock.on_now(Box::new(move || {
            std::thread::sleep(std::time::Duration::from_millis(20));
            if lease::is_held(other.state(&project).root()) {
                counter.fetch_add(1, Ordering::SeqCst);
            }
        }));
        let ending = case.run(&world).await.unwrap();
        world.clock.on_now(Box::new(|| {}));
        assert_eq!(matches!(ending, Ending::Over(Outcome::Deployed { .. })), case.good(), "{}: {ending:?}", case.name());
        assert_eq!(left(&world).await, after, "{}", case.name());
        assert!(kept.load(Ordering::SeqCst) > 10, "{}: nobody else may come in while a line is written", case.name());
    }
}

#[tokio::test]
async fn death_while_going_back_is_survived_too() {
    for case in cases().into_iter().filter(|case| !case.good()) {
        let (before, _) = expected(&case).await;
        let mut at = 0;
        loop {
            let world = case.prepared().await;
            if !run_and_die(&world, &case, at).await {
                break;
            }
            if is_open(&world) {
                // A second death, in the middle of the resume.
                let work = world.kaleem.work(&world.project()).await.unwrap();
                Reaper::new(3).watch(&world);
                let died = world.kaleem.resume(work).unwrap().finish().await.is_err();
                Reaper::leave(&world);
                if died && is_open(&world) {
                    world.resume().await.unwrap();
                }
                assert_eq!(left(&world).await, before, "{}, death {at}", case.name());
            }
            at += 1;
        }
    }
}

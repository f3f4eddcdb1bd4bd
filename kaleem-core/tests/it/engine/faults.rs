//! Every call to the host fails, loses its answer, or is made twice: forwards and on the way back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kaleem_core::engine::Ending;
use kaleem_core::outcome::{Outcome, Resolution};
use kaleem_core::runtime::RuntimeError;
use kaleem_core::testing::{FakeCall, FakeOperation};
use kaleem_core::traffic::{Refusal, TrafficError};

use super::cases::{Case, Left, cases, expected, left};
use crate::world::{Moment, World};

fn refused() -> RuntimeError {
    RuntimeError::Refused { operation: "do it".to_owned(), status: 409, message: "injected".to_owned() }
}

fn away() -> RuntimeError {
    RuntimeError::Unreachable { endpoint: "unix:///fake.sock".to_owned(), source: "injected: the connection was reset".into() }
}

/// Whether the call that is seen now is the `at`th that changes something. Looking into containers while a plan is made may fail without a
/// word, and where an address cannot be reserved another one is dealt.
fn nth(at: usize) -> (Arc<AtomicUsize>, impl Fn(&FakeCall) -> bool + Send + Sync) {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    let tolerated = [FakeOperation::Exec, FakeOperation::Reserve];
    (count, move |call: &FakeCall| {
        call.operation.is_mutating() && !tolerated.contains(&call.operation) && counter.fetch_add(1, Ordering::SeqCst) == at
    })
}

/// How a plan ended when one of its calls failed for good.
async fn judge(world: &World, case: &Case, ending: &Ending, expected: &(Left, Left), place: &str) {
    let (before, after) = expected;
    match ending {
        Ending::Over(Outcome::RolledBack { error, .. }) => {
            assert!(error.contains("injected"), "{place}: {error}");
            let found = left(world).await;
            // Both programs of a gateway do the same: going back leaves the one that is there.
            assert!(found == *before || case.is_upgrade() && found == *after, "{place}: {found:?}\n{before:?}");
        }
        // From a one-way migration on, the way out is forward.
        Ending::Stuck { error, .. } if case.is_one_way() => {
            assert!(error.contains("injected") && error.contains("one-way"), "{place}: {error}");
            let ending = world.resume().await.unwrap();
            assert!(matches!(ending, Ending::Over(Outcome::Deployed { .. })), "{place}: {ending:?}");
            assert_eq!(left(world).await, *after, "{place}");
        }
        // A volume cannot go either when its container could not.
        Ending::Over(Outcome::Deployed { leftovers, .. }) => {
            assert!(leftovers.first().is_some_and(|first| first.contains("injected")), "{place}: {leftovers:?}");
        }
        other => panic!("{place}: {other:?}"),
    }
}

#[tokio::test]
async fn every_call_that_fails_is_taken_back_or_left_over() {
    for case in cases().into_iter().filter(Case::good) {
        let wanted = expected(&case).await;
        let mut at = 0;
        loop {
            let world = case.prepared().await;
            let (count, is_it) = nth(at);
            world.runtime.before_call(Some(Arc::new(move |call: &FakeCall| is_it(call).then(refused))));
            let place = format!("{}, call {at}", case.name());
            match case.run(&world).await {
                Ok(_) if count.load(Ordering::SeqCst) <= at => break,
                Ok(ending) => judge(&world, &case, &ending, &wanted, &place).await,
                Err(error) => {
                    // It failed while the plan was made, such as at the gateway's image.
                    assert!(kaleem_core::remedy::one_line(&error).contains("injected"), "{place}: {error}");
                    assert_eq!(left(&world).await, wanted.0, "{place}");
                }
            }
            at += 1;
        }
        assert!(at >= 2 || case.is_upgrade(), "{}: {at} calls only", case.name());
    }
}

/// The call did all it was meant to do, and says that it failed: it must be taken back as if it had not failed.
pub(super) async fn lose_every_answer_for_good(case: &Case) {
    let wanted = expected(case).await;
    let mut at = 0;
    loop {
        let world = case.prepared().await;
        let (count, is_it) = nth(at);
        world.runtime.after_call(Some(Arc::new(move |call: &FakeCall| is_it(call).then(refused))));
        let place = format!("{}, answer {at}", case.name());
        match case.run(&world).await {
            Ok(_) if count.load(Ordering::SeqCst) <= at => break,
            Ok(ending) => judge(&world, case, &ending, &wanted, &place).await,
            Err(error) => assert!(kaleem_core::remedy::one_line(&error).contains("injected"), "{place}: {error}"),
        }
        at += 1;
    }
}

#[tokio::test]
async fn every_call_that_happened_and_says_that_it_failed_is_taken_back_or_left_over() {
    for case in cases().into_iter().filter(Case::good) {
        lose_every_answer_for_good(&case).await;
    }
}

#[tokio::test]
async fn every_perform_and_every_undo_that_is_made_twice_is_as_if_made_once() {
    // The answer is lost and the engine asks again: good plans repeat every perform, bad ones every undo too.
    for case in cases() {
        let (_, after) = expected(&case).await;
        let mut at = 0;
        loop {
            let world = case.prepared().await;
            let (count, is_it) = nth(at);
            world.runtime.after_call(Some(Arc::new(move |call: &FakeCall| is_it(call).then(away))));
            let place = format!("{}, repeated call {at}", case.name());
            match case.run(&world).await {
                Ok(_) if count.load(Ordering::SeqCst) <= at => break,
                Ok(ending) => {
                    assert_eq!(matches!(ending, Ending::Over(Outcome::Deployed { .. })), case.good(), "{place}: {ending:?}");
                    assert_eq!(left(&world).await, after, "{place}");
                }
                // Nothing is tried again while a plan is only made.
                Err(error) => assert!(kaleem_core::remedy::one_line(&error).contains("injected"), "{place}: {error}"),
            }
            at += 1;
        }
    }
}

/// A plan that is stuck goes back when it is resumed, and everything is as before. Answers how often it was stuck.
async fn goes_back_in_the_end(world: &World, ending: &Ending, before: &Left, place: &str) -> u32 {
    let mut stuck = 0;
    if let Ending::Stuck { error, .. } = ending {
        stuck += 1;
        assert!(error.contains("injected"), "{place}: {error}");
        let ending = world.resume().await.unwrap();
        assert!(matches!(ending, Ending::Over(Outcome::RolledBack { .. })), "{place}: {ending:?}");
    }
    assert_eq!(left(world).await, *before, "{place}");
    stuck
}

#[tokio::test]
async fn every_undo_that_fails_is_stuck_and_resume_is_the_way_out() {
    let mut stuck = 0;
    for case in cases().into_iter().filter(|case| !case.good()) {
        let (before, _) = expected(&case).await;
        let mut at = 0;
        loop {
            let world = case.prepared().await;
            let (count, is_it) = nth(at);
            world.runtime.before_call(Some(Arc::new(move |call: &FakeCall| is_it(call).then(refused))));
            let ending = case.run(&world).await.unwrap();
            if count.load(Ordering::SeqCst) <= at {
                break;
            }
            let place = format!("{}, call {at}", case.name());
            stuck += goes_back_in_the_end(&world, &ending, &before, &place).await;
            at += 1;
        }
    }
    assert!(stuck > 5, "only {stuck} undos could fail");
}

/// From the `at`th call on, the same call fails again and again.
fn fail_for_ever(world: &World, at: usize) -> Arc<AtomicUsize> {
    let (count, is_it) = nth(at);
    let broken = std::sync::Mutex::new(None::<FakeCall>);
    world.runtime.before_call(Some(Arc::new(move |call: &FakeCall| {
        let mut broken = broken.lock().unwrap();
        if is_it(call) {
            *broken = Some(call.clone());
        }
        (broken.as_ref() == Some(call)).then(refused)
    })));
    count
}

#[tokio::test]
async fn an_undo_that_fails_for_ever_stays_stuck_until_a_person_settles_it() {
    let mut stuck = 0;
    for case in cases().into_iter().filter(|case| !case.good()) {
        let mut at = 0;
        loop {
            let world = case.prepared().await;
            let count = fail_for_ever(&world, at);
            let serving = world.serving();
            let ending = case.run(&world).await.unwrap();
            if count.load(Ordering::SeqCst) <= at {
                break;
            }
            let place = format!("{}, call {at}", case.name());
            if let Ending::Stuck { step, .. } = &ending {
                stuck += 1;
                let again = world.resume().await.unwrap();
                assert!(matches!(&again, Ending::Stuck { step: at, .. } if at == step), "{place}: {again:?}");
                let aborted = world.abort().await.unwrap();
                assert!(matches!(aborted, Ending::Stuck { .. }), "{place}: an abort is no way out: {aborted:?}");
                let work = world.kaleem.work(&world.project()).await.unwrap();
                let settled = world.kaleem.resolve(&work, "root", Resolution::Old).unwrap();
                drop(work);
                assert_eq!((settled, world.serving()), (serving, serving), "{place}");
                // What was in the way is mended: the next deploy puts everything right.
                world.runtime.before_call(None);
                let good = case.good_project();
                let ending = world.deploy(&good).await.unwrap();
                assert!(matches!(ending, Ending::Over(Outcome::Deployed { .. }) | Ending::Left), "{place}: {ending:?}");
                let running = world.running();
                assert!(running.iter().any(|name| name.contains("-api-") || name.contains("-worker-")), "{place}: {running:?}");
            }
            at += 1;
        }
    }
    assert!(stuck > 5, "only {stuck} undos could fail");
}

fn gateway_refuses() -> TrafficError {
    let source = Refusal::NotUnderstood { reason: "injected".to_owned() };
    TrafficError::Refused { gateway: "shop-api-gateway".parse().unwrap(), operation: "do it", source }
}

fn gateway_breaks() -> TrafficError {
    let source = std::io::ErrorKind::UnexpectedEof.into();
    TrafficError::Broken { gateway: "shop-api-gateway".parse().unwrap(), operation: "do what was injected", source }
}

/// The `at`th call to a gateway fails, before its work or after it. Answers how many there were.
fn fail_at_gateway(world: &World, at: usize, wanted: Moment, error: fn() -> TrafficError) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    world
        .traffic
        .around_calls(Some(Arc::new(move |moment| (moment == wanted && counter.fetch_add(1, Ordering::SeqCst) == at).then(error))));
    count
}

#[tokio::test]
async fn every_switch_drain_and_upgrade_that_fails_is_taken_back_or_left_over() {
    let mut failed = 0;
    for (case, moment) in
        cases().into_iter().filter(Case::good).flat_map(|case| [Moment::Before, Moment::After].map(|at| (case.clone(), at)))
    {
        let wanted = expected(&case).await;
        for at in 0.. {
            let world = case.prepared().await;
            let count = fail_at_gateway(&world, at, moment, gateway_refuses);
            let ending = case.run(&world).await.unwrap();
            if count.load(Ordering::SeqCst) <= at {
                break;
            }
            failed += 1;
            judge(&world, &case, &ending, &wanted, &format!("{}, call {at} to a gateway, {moment:?}", case.name())).await;
        }
    }
    assert!(failed > 20, "only {failed} calls to gateways");
}

#[tokio::test]
async fn every_switch_drain_and_upgrade_that_is_made_twice_is_as_if_made_once() {
    for case in cases() {
        let (_, after) = expected(&case).await;
        for at in 0.. {
            let world = case.prepared().await;
            let count = fail_at_gateway(&world, at, Moment::After, gateway_breaks);
            let ending = case.run(&world).await.unwrap();
            if count.load(Ordering::SeqCst) <= at {
                break;
            }
            let place = format!("{}, call {at} to a gateway", case.name());
            assert_eq!(matches!(ending, Ending::Over(Outcome::Deployed { .. })), case.good(), "{place}: {ending:?}");
            assert_eq!(left(&world).await, after, "{place}");
        }
    }
}

#[tokio::test]
async fn a_switch_back_that_fails_is_stuck_and_resume_is_the_way_out() {
    let mut stuck = 0;
    for case in cases().into_iter().filter(|case| !case.good()) {
        let (before, _) = expected(&case).await;
        for at in 0.. {
            let world = case.prepared().await;
            let count = fail_at_gateway(&world, at, Moment::Before, gateway_refuses);
            let ending = case.run(&world).await.unwrap();
            if count.load(Ordering::SeqCst) <= at {
                break;
            }
            let place = format!("{}, call {at} to a gateway", case.name());
            stuck += goes_back_in_the_end(&world, &ending, &before, &place).await;
        }
    }
    assert!(stuck > 1, "only {stuck} switches back could fail");
}

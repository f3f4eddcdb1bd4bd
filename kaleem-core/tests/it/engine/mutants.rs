//! Faults are planted in the engine and in the fold, and the matrices must find each: a net without a hole is shown by fish.

use std::panic::{AssertUnwindSafe, catch_unwind};

use kaleem_core::mutant::{Mutant, plant};

use super::cases::{Case, cases};
use super::faults::lose_every_answer_for_good;
use super::matrix::{abort_after_every_death, abort_after_every_loss_of_power, resume_after_every_death};

/// Runs a matrix over one kind of plan in this thread, with and without the fault: sound it must pass, with the fault it must not.
fn must_be_caught(mutant: Mutant, case: &str, matrix: &impl AsyncFn(&Case)) {
    let case = cases().into_iter().find(|found| found.name() == case).unwrap();
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        catch_unwind(AssertUnwindSafe(|| runtime.block_on(matrix(&case)))).is_ok()
    };
    assert!(run(), "the matrix fails without the fault");
    let planted = plant(mutant);
    let passed = run();
    drop(planted);
    assert!(!passed, "{mutant:?} was planted, and the matrix found nothing");
}

#[test]
fn an_intent_that_is_written_late_is_caught_by_the_matrix_of_aborted_deaths() {
    must_be_caught(Mutant::LateIntent, "one service", &async |case| abort_after_every_death(case).await);
}

#[test]
fn an_intent_that_is_not_on_disk_is_caught_by_the_matrix_of_lost_power() {
    must_be_caught(Mutant::UnsyncedIntent, "one service", &async |case| abort_after_every_loss_of_power(case).await);
}

#[test]
fn a_failed_step_that_is_not_undone_is_caught_by_the_matrix_of_lost_answers() {
    must_be_caught(Mutant::FailedStepNotUndone, "one service", &async |case| lose_every_answer_for_good(case).await);
}

#[test]
fn an_undo_in_the_wrong_order_is_caught_by_the_matrix_of_resumed_deaths() {
    // Where names or ports change hands, the order decides whether they come back.
    must_be_caught(Mutant::UndoInWrongOrder, "a gateway takes over, bad", &async |case| resume_after_every_death(case, &|_| {}).await);
}

#[test]
fn an_abort_that_ignores_started_steps_is_caught_by_the_matrix_of_aborted_deaths() {
    must_be_caught(Mutant::AbortIgnoresStarted, "one service", &async |case| abort_after_every_death(case).await);
}

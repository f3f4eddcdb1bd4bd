//! Nothing is left out of the matrices: every kind of step and every strategy is in some plan that they go through.

use std::collections::BTreeSet;

use kaleem_core::plan::{ChangeKind, PlanKind, Step};
use kaleem_core::release::Strategy;

use super::cases::cases;

/// Names all variants of an enum and tells the name of one. A variant that is missing here is an error of the compiler.
macro_rules! kinds {
    ($all:ident, $of:ident, $kind:ident: $($variant:ident),* $(,)?) => {
        const $all: &[&str] = &[$(stringify!($variant)),*];

        fn $of(one: &$kind) -> &'static str {
            match one {
                $($kind::$variant { .. } => stringify!($variant)),*
            }
        }
    };
}

kinds!(STEPS, step_kind, Step: Baseline, Hook, CreateNetwork, CreateVolume, Pull, Pin, Create, Start, Gate, Needs, Steer, Hold, Watch, Drain,
    RunToEnd, BackUp, VerifyBackup, RestoreData, Stop, StartApart, HandOver, Connect, Revive, Reload, FrontDoor, Upgrade, Update, Rename, Commit, Remove, Unpin,
    RemoveNetwork, RemoveVolume);
kinds!(STRATEGIES, strategy_kind, Strategy: RunToEnd, Recreate, Overlap, BlueGreen, Rolling);
kinds!(PLANS, plan_kind, PlanKind: Deploy, Rollback, Eject, Down, Upgrade, Restart);

#[tokio::test]
async fn every_kind_of_step_strategy_and_plan_is_in_the_matrices() {
    let (mut steps, mut taken_back) = (BTreeSet::new(), BTreeSet::new());
    let (mut strategies, mut plans) = (BTreeSet::new(), BTreeSet::new());
    for case in cases() {
        let world = case.prepared().await;
        let work = world.kaleem.work(&world.project()).await.unwrap();
        let plan = case.plan(&world, &work).await.unwrap().plan;
        plans.insert(plan_kind(&plan.kind));
        steps.extend(plan.steps.iter().map(step_kind));
        if !case.good() {
            // What is bad is found out at the end of its plan, so nearly all of it is taken back.
            taken_back.extend(plan.steps.iter().filter(|step| step.undo() == kaleem_core::plan::Undo::Revert).map(step_kind));
        }
        let changed = plan.changes.iter().filter(|change| matches!(change.kind, ChangeKind::Replace | ChangeKind::Run));
        strategies.extend(changed.map(|change| strategy_kind(&change.strategy)));
    }
    let missing =
        |all: &[&'static str], seen: &BTreeSet<&str>| -> Vec<&str> { all.iter().copied().filter(|kind| !seen.contains(kind)).collect() };
    assert_eq!(missing(STEPS, &steps), [""; 0], "steps of no case");
    assert_eq!(missing(STRATEGIES, &strategies), [""; 0], "strategies of no case");
    assert_eq!(missing(PLANS, &plans), [""; 0], "plans of no case");
    let reverted = ["Baseline", "CreateNetwork", "Pin", "Create", "Start", "Steer", "BackUp", "RestoreData", "Stop", "StartApart"];
    let reverted = [&reverted[..], &["HandOver", "Reload", "Update", "Rename"][..]].concat();
    assert_eq!(missing(&reverted, &taken_back), [""; 0], "steps that no bad case takes back");
}

//! Owner marks.

use std::path::PathBuf;

use super::{Check, Complaint, Stage, ensure, named, say, told};
use crate::names::{PlanId, ReleaseId};
use crate::runtime::marks::{MARK_FORMAT, Owner, OwnerMark};

pub(super) fn checks() -> Vec<Check> {
    named![a_mark_keeps_its_number_whoever_asks_for_it_later, marks_are_those_of_one_project_in_order, a_mark_is_removed_once_and_alone]
}

fn mark(number: u64, user: &str) -> Result<OwnerMark, Complaint> {
    let owner = Owner {
        state: "0123456789abcdef0123456789abcdef".parse().map_err(say)?,
        state_directory: PathBuf::from("/var/lib/kaleem/shop"),
        host: "a host".to_owned(),
        user: user.to_owned(),
        directory: Some(PathBuf::from("/srv/shop with \"quotes\" and ü")),
        files: vec![PathBuf::from("/srv/shop/compose.yaml")],
        plan: PlanId(7),
        release: ReleaseId::new(4),
    };
    Ok(OwnerMark { format: MARK_FORMAT, number, owner, worker: None })
}

async fn a_mark_keeps_its_number_whoever_asks_for_it_later(stage: &Stage) -> Result<(), Complaint> {
    let (first, second) = (mark(1, "first")?, mark(1, "second")?);
    let put = |mark: OwnerMark| async move { stage.runtime.put_mark(&stage.project, &mark).await.map_err(|error| told(&error)) };
    ensure!(put(first.clone()).await? == first, "the first did not get it");
    ensure!(put(second).await? == first, "the second got it, too");
    ensure!(put(first.clone()).await? == first, "the first lost it");
    let (one, other) = futures_util::join!(put(mark(2, "one")?), put(mark(2, "other")?));
    ensure!(one? == other?, "two at once both got it");
    Ok(())
}

async fn marks_are_those_of_one_project_in_order(stage: &Stage) -> Result<(), Complaint> {
    for number in [10, 9, 2] {
        stage.runtime.put_mark(&stage.project, &mark(number, "me")?).await.map_err(|error| told(&error))?;
    }
    stage.runtime.put_mark(&stage.stranger, &mark(3, "you")?).await.map_err(|error| told(&error))?;
    let found = stage.runtime.marks(&stage.project).await.map_err(|error| told(&error))?;
    let numbers: Vec<u64> = found.iter().map(|mark| mark.number).collect();
    ensure!(numbers == [2, 9, 10], "{numbers:?}");
    Ok(())
}

async fn a_mark_is_removed_once_and_alone(stage: &Stage) -> Result<(), Complaint> {
    for number in [1, 2] {
        stage.runtime.put_mark(&stage.project, &mark(number, "me")?).await.map_err(|error| told(&error))?;
    }
    for _ in 0..2 {
        stage.runtime.remove_mark(&stage.project, 1).await.map_err(|error| told(&error))?;
    }
    let found = stage.runtime.marks(&stage.project).await.map_err(|error| told(&error))?;
    ensure!(found.len() == 1, "{found:?}");
    Ok(())
}

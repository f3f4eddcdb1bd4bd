//! Owner marks on the fake engine.

use async_trait::async_trait;

use super::{FakeOperation, FakeRuntime};
use crate::names::ProjectName;
use crate::runtime::RuntimeError;
use crate::runtime::marks::{Marks, OwnerMark};

#[async_trait]
impl Marks for FakeRuntime {
    async fn marks(&self, project: &ProjectName) -> Result<Vec<OwnerMark>, RuntimeError> {
        self.call(FakeOperation::Marks, project, |world| {
            Ok(world.marks.iter().filter(|((owner, _), _)| owner == project).map(|(_, mark)| mark.clone()).collect())
        })
    }

    async fn put_mark(&self, project: &ProjectName, mark: &OwnerMark) -> Result<OwnerMark, RuntimeError> {
        self.call(FakeOperation::PutMark, project, |world| {
            Ok(world.marks.entry((project.clone(), mark.number)).or_insert_with(|| mark.clone()).clone())
        })
    }

    async fn remove_mark(&self, project: &ProjectName, number: u64) -> Result<(), RuntimeError> {
        self.call(FakeOperation::RemoveMark, project, |world| {
            world.marks.remove(&(project.clone(), number));
            Ok(())
        })
    }
}

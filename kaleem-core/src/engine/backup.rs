//! Steps that make backup sets and put them back. What is in a set is not known here.

use crate::backup::{BackupSets, SetRequest, SetsError};
use crate::engine::{Engine, Notice, StepError};
use crate::names::{ReleaseId, SetId};
use crate::plan::Step;

fn failed(step: &Step) -> impl Fn(SetsError) -> StepError {
    let what = step.to_string();
    move |source| StepError::Backup { what: what.clone(), source }
}

impl Engine {
    fn backups(&self, set: &SetId) -> Result<&dyn BackupSets, StepError> {
        self.backups.as_deref().ok_or_else(|| StepError::NoBackups { set: set.clone() })
    }

    fn telling(&self, step: usize) -> impl Fn(String) + Send + Sync + use<> {
        let observer = self.observer.clone();
        move |what| observer(Notice::Working { step, what })
    }

    pub(super) async fn back_up(
        &self,
        index: usize,
        step: &Step,
        set: &SetId,
        release: ReleaseId,
        tags: &[String],
    ) -> Result<String, StepError> {
        let request = SetRequest { set: set.clone(), release: Some(release), tags: tags.to_vec() };
        self.backups(set)?.make(&request, &self.telling(index)).await.map_err(failed(step))
    }

    pub(super) async fn verify_backup(&self, index: usize, step: &Step, set: &SetId) -> Result<String, StepError> {
        self.backups(set)?.verify(set, &self.telling(index)).await.map_err(failed(step))
    }

    pub(super) async fn restore_data(&self, index: usize, step: &Step, set: &SetId) -> Result<String, StepError> {
        self.backups(set)?.restore(set, &self.telling(index)).await.map_err(failed(step))
    }

    pub(super) async fn give_up_backup(&self, step: &Step, set: &SetId) -> Result<(), StepError> {
        match &self.backups {
            Some(backups) => backups.give_up(set).await.map_err(failed(step)),
            // What is unfinished is no set, and is removed by the next one that is made.
            None => Ok(()),
        }
    }
}

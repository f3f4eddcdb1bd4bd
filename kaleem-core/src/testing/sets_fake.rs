//! Backup sets in memory of a store that is one text: strict, and told to fail or to die where real ones do.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use crate::backup::{BackupSets, SetData, SetObserver, SetRequest, SetsError};
use crate::names::SetId;

/// A place in a call at which it can fail, or at which the process can die.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SetsPlace {
    /// Before the first byte of a set is stored.
    MakeBegins,
    /// Something of it is stored, and it is not finished.
    MakeHalfway,
    /// It is finished, and nobody was told.
    MakeEnds,
    /// Before anything is read.
    Verify,
    /// Before anything is removed.
    GiveUp,
    /// Everything was read and checked; nothing was replaced.
    RestoreBegins,
    /// The data was replaced, and nobody was told.
    RestoreEnds,
}

/// Called at each place; what it answers is the failure there. It may also panic: that is a death.
pub type SetsHook = dyn Fn(SetsPlace) -> Option<String> + Send + Sync;

#[derive(Default)]
struct State {
    data: String,
    /// What each set holds; `None` for one that is not finished.
    sets: BTreeMap<SetId, Option<String>>,
    /// Whose data it is; that of `redis` where nothing is said.
    covers: Option<Vec<SetData>>,
}

/// A [`BackupSets`] in memory. Clones are one.
#[derive(Clone, Default)]
pub struct FakeBackupSets {
    state: Arc<Mutex<State>>,
    hook: Arc<Mutex<Option<Arc<SetsHook>>>>,
}

impl FakeBackupSets {
    /// Nothing is stored, and the store is empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the store holds.
    pub fn data(&self) -> String {
        self.state().data.clone()
    }

    /// Writes to the store.
    pub fn write(&self, text: &str) {
        text.clone_into(&mut self.state().data);
    }

    /// Says whose data it is.
    pub fn cover(&self, data: Vec<SetData>) {
        self.state().covers = Some(data);
    }

    /// The finished sets and what each holds.
    pub fn finished(&self) -> BTreeMap<SetId, String> {
        self.state().sets.iter().filter_map(|(set, data)| Some((set.clone(), data.clone()?))).collect()
    }

    /// The sets that are not finished.
    pub fn unfinished(&self) -> Vec<SetId> {
        self.state().sets.iter().filter(|(_, data)| data.is_none()).map(|(set, _)| set.clone()).collect()
    }

    /// Has `hook` called at every place from now on, or no more.
    pub fn at_places(&self, hook: Option<Arc<SetsHook>>) {
        *self.hook.lock().unwrap_or_else(PoisonError::into_inner) = hook;
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn come_to(&self, place: SetsPlace, doing: &'static str, set: &SetId) -> Result<(), SetsError> {
        let hook = self.hook.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match hook.and_then(|hook| hook(place)) {
            Some(reason) => Err(failure(doing, set, reason)),
            None => Ok(()),
        }
    }

    fn of(&self, doing: &'static str, set: &SetId) -> Result<String, SetsError> {
        match self.state().sets.get(set) {
            Some(Some(data)) => Ok(data.clone()),
            Some(None) => Err(failure(doing, set, "it was never finished".to_owned())),
            None => Err(failure(doing, set, "there is no such set".to_owned())),
        }
    }
}

fn failure(doing: &'static str, set: &SetId, reason: String) -> SetsError {
    SetsError { doing, set: set.clone(), remedy: "look at the fake".to_owned(), transient: false, source: reason.into() }
}

#[async_trait]
impl BackupSets for FakeBackupSets {
    async fn make(&self, request: &SetRequest, observer: &SetObserver) -> Result<String, SetsError> {
        let (doing, set) = ("make", &request.set);
        observer("making".to_owned());
        self.come_to(SetsPlace::MakeBegins, doing, set)?;
        if self.of(doing, set).is_ok() {
            return Ok("it was there".to_owned());
        }
        self.state().sets.insert(set.clone(), None);
        if let Err(error) = self.come_to(SetsPlace::MakeHalfway, doing, set) {
            self.state().sets.remove(set);
            return Err(error);
        }
        {
            let mut state = self.state();
            let data = state.data.clone();
            state.sets.insert(set.clone(), Some(data));
        }
        // An error after this would be a lie: the set is finished.
        self.come_to(SetsPlace::MakeEnds, doing, set).ok();
        Ok("1 thing".to_owned())
    }

    async fn verify(&self, set: &SetId, _observer: &SetObserver) -> Result<String, SetsError> {
        self.come_to(SetsPlace::Verify, "verify", set)?;
        self.of("verify", set).map(|_| "whole and sound in memory".to_owned())
    }

    async fn give_up(&self, set: &SetId) -> Result<(), SetsError> {
        self.come_to(SetsPlace::GiveUp, "give up", set)?;
        let mut state = self.state();
        if state.sets.get(set).is_some_and(Option::is_none) {
            state.sets.remove(set);
        }
        Ok(())
    }

    async fn restore(&self, set: &SetId, _observer: &SetObserver) -> Result<String, SetsError> {
        let data = self.of("restore", set)?;
        self.come_to(SetsPlace::RestoreBegins, "restore", set)?;
        self.state().data = data;
        self.come_to(SetsPlace::RestoreEnds, "restore", set)?;
        Ok("1 thing".to_owned())
    }

    fn covers(&self) -> Vec<SetData> {
        self.state().covers.clone().unwrap_or_else(|| "redis".parse().map(SetData::Store).into_iter().collect())
    }
}

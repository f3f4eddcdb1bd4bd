//! The backups of the project: stores as the compose file tells them, reached from here.

use std::path::PathBuf;
use std::sync::Arc;

use kaleem_backup::setup::drill::DrillSetUp;
use kaleem_backup::setup::{self, FoundStore, SetUp, StoreKind, Surroundings};
use kaleem_core::backup::{BackupSets, Manifest};
use kaleem_core::config::Project;
use kaleem_core::kaleem::Kaleem;
use kaleem_core::names::ProjectName;
use kaleem_core::remedy::one_line;
use kaleem_core::runtime::{Instance, Runtime};
use kaleem_core::secret::Secret;
use kaleem_health::{Discovered, ProbeSettings, discover};

use super::Wiring;
use crate::error::CliError;

/// What a command says about how backups are put together.
#[derive(Clone, Debug, Default)]
pub(crate) struct BackupWish {
    /// A file with private keys.
    pub key_file: Option<PathBuf>,
    /// Whether sets may be made unencrypted.
    pub unencrypted: bool,
}

/// What the engine says of the project now.
struct Host {
    runtime: Option<Arc<dyn Runtime>>,
    instances: Vec<Instance>,
    /// Why it says nothing.
    unreachable: Option<String>,
}

impl Wiring {
    /// Puts the backups of a project together. Where the engine does not answer, its stores cannot be reached, which is noted.
    ///
    /// # Errors
    ///
    /// [`CliError::StoreSettings`], [`CliError::BackupSetUp`]
    pub(crate) async fn backups(&self, project: &Project, wish: &BackupWish, verb: &str) -> Result<SetUp, CliError> {
        let host = self.host(project).await;
        let around = self.surroundings(project, wish, verb, &host)?;
        let mut set_up = setup::set_up(&around).await.map_err(|source| CliError::BackupSetUp { source })?;
        if let Some(reason) = &host.unreachable {
            set_up.notes.insert(0, format!("the container engine was not asked where the stores are: {reason}"));
        }
        Ok(set_up)
    }

    /// What a drill of a set works with, and the engine where it answers.
    ///
    /// # Errors
    ///
    /// As [`Self::backups`].
    pub(crate) async fn drill(
        &self,
        project: &Project,
        wish: &BackupWish,
        manifest: &Manifest,
    ) -> Result<(DrillSetUp, Option<Arc<dyn Runtime>>), CliError> {
        let host = self.host(project).await;
        let around = self.surroundings(project, wish, "drill", &host)?;
        let set_up = setup::drill::drill(&around, manifest).await.map_err(|source| CliError::BackupSetUp { source })?;
        Ok((set_up, host.runtime))
    }

    async fn host(&self, project: &Project) -> Host {
        let unreachable = |error| Host { runtime: None, instances: Vec::new(), unreachable: Some(one_line(&error)) };
        match self.runtime().await {
            Ok(runtime) => match runtime.list(&project.name).await {
                Ok(instances) => Host { runtime: Some(runtime), instances, unreachable: None },
                Err(source) => unreachable(CliError::Engine { source }),
            },
            Err(error) => unreachable(error),
        }
    }

    fn surroundings<'a>(
        &'a self,
        project: &'a Project,
        wish: &BackupWish,
        verb: &str,
        host: &'a Host,
    ) -> Result<Surroundings<'a>, CliError> {
        let start = &self.environment.directory;
        let said = wish.key_file.clone().or_else(|| self.environment.path("KALEEM_BACKUP_KEY_FILE"));
        Ok(Surroundings {
            project,
            found: discover(project).into_iter().filter_map(|found| store(project, found).transpose()).collect::<Result<_, _>>()?,
            instances: &host.instances,
            runtime: host.runtime.clone(),
            environment: self.environment.variables(),
            directory: self.backup_directory(project),
            key_file: said.map(|file| start.join(file)),
            unencrypted: wish.unencrypted,
            owner: format!("{verb} by {}", self.environment.user()),
            clock: self.clock.clone(),
        })
    }

    /// The backups of a project for a plan that may need them; nothing where `kaleem.toml` does not speak of them and nobody asked.
    ///
    /// # Errors
    ///
    /// [`CliError::BackupSetUp`]
    pub(crate) async fn sets_for_plans(&self, project: &Project) -> Result<Option<Arc<dyn BackupSets>>, CliError> {
        let of_services = project.settings.services.values().any(|settings| settings.backup.is_some());
        if project.settings.backup.is_empty() && !of_services {
            return Ok(None);
        }
        let set_up = self.backups(project, &BackupWish::default(), "deploy").await?;
        Ok(Some(Arc::new(set_up.backups)))
    }

    /// The backups for a plan that is open, as far as the project can still be read: an open plan must not wait for a sound file.
    pub(crate) async fn sets_for_open_plan(&self) -> Option<Arc<dyn BackupSets>> {
        let project = self.project().ok()?;
        let set_up = self.backups(&project, &BackupWish::default(), "resume").await.ok()?;
        Some(Arc::new(set_up.backups))
    }

    /// Kaleem for a command that finishes first what an earlier process left open: that may need backups even where the command itself,
    /// or the project as it is now, does not.
    ///
    /// # Errors
    ///
    /// [`CliError`] when the engine or the history cannot be reached.
    pub(crate) async fn kaleem_to_finish(
        &self,
        verb: &str,
        project: &ProjectName,
        sets: Option<Arc<dyn BackupSets>>,
    ) -> Result<Kaleem, CliError> {
        let sets = match sets {
            None if self.history(project)?.open().is_some() => self.sets_for_open_plan().await,
            sets => sets,
        };
        self.kaleem_with(verb, sets).await
    }

    /// Where the backups of a project remember things between runs.
    pub(crate) fn backup_directory(&self, project: &Project) -> PathBuf {
        self.state(&project.name).root().join("backup")
    }
}

/// The variable of Qdrant's image with the key that may do everything.
const QDRANT_KEY: &str = "QDRANT__SERVICE__API_KEY";

/// The store behind a probe. One that `kaleem.toml` describes wrongly is an error: it must not be left out in silence.
fn store(project: &Project, found: Discovered) -> Result<Option<FoundStore>, CliError> {
    let service = project.services.contains_key(&found.service).then(|| found.service.clone());
    // What a service merely uses is not that service.
    let outside = !matches!(found.name.as_str(), "mongodb" | "redis" | "qdrant" | "rabbitmq");
    let service = service.filter(|_| !outside);
    let settings =
        found.settings.map_err(|source| CliError::StoreSettings { service: found.service.clone(), probe: found.name.clone(), source })?;
    let (kind, url, api_key, management) = match settings {
        ProbeSettings::Mongodb(settings) => (StoreKind::Mongodb, settings.url, None, None),
        ProbeSettings::Redis(settings) => (StoreKind::Redis, settings.url, None, None),
        ProbeSettings::Qdrant(settings) => {
            // A probe only reads; a snapshot is something that is made.
            let whole = service.as_ref().and_then(|service| project.services.get(service)?.definition.environment.get(QDRANT_KEY)?.clone());
            (StoreKind::Qdrant, settings.url, whole.map(Secret::new).or(settings.api_key), None)
        }
        ProbeSettings::Rabbitmq(settings) => (StoreKind::Rabbitmq, settings.url, None, settings.management),
        _ => return Ok(None),
    };
    Ok(Some(FoundStore { service, name: found.name, kind, url, api_key, management }))
}

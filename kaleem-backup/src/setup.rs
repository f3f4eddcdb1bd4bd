//! From a project and its `kaleem.toml` to its [`Backups`]: which stores there are, how each is reached from this host, where
//! sets go, and which keys are here.
//!
//! Stores live in networks of containers. Each is reached on a port that it publishes, else by the address of its container.

mod commands;
mod covered;
mod databases;
pub mod drill;
mod error;
mod reach;
mod stores;
mod vaults;
mod volumes;

pub use covered::NotCovered;
pub use error::SetUpError;
pub use reach::Reach;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kaleem_core::backup::BackupSource;
use kaleem_core::clock::Clock;
use kaleem_core::config::Project;
use kaleem_core::config::settings::backup::{BackupSettings, RetentionSettings};
use kaleem_core::durable;
use kaleem_core::names::{ArtifactName, ServiceName};
use kaleem_core::runtime::{Instance, Runtime};
use kaleem_core::secret::Secret;

use crate::backups::{BackupParts, Backups};
use crate::retention::Policy;
use crate::seal::{Keys, Protection};
use crate::source::mongo::MongoScope;

/// How long nothing may move where nothing is said.
const SILENCE: Duration = Duration::from_secs(300);

/// What speaks at an address that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// MongoDB.
    Mongodb,
    /// Redis.
    Redis,
    /// Qdrant.
    Qdrant,
    /// RabbitMQ.
    Rabbitmq,
}

/// A store that was found in a compose file, under the address that services of the project use.
#[derive(Clone, Debug)]
pub struct FoundStore {
    /// The service that it is; `None` for one outside the project.
    pub service: Option<ServiceName>,
    /// A name for it, where it is no service.
    pub name: String,
    /// What speaks there.
    pub kind: StoreKind,
    /// The address, with user and password.
    pub url: Secret<String>,
    /// Qdrant's key.
    pub api_key: Option<Secret<String>>,
    /// RabbitMQ's management API, as the project's services see it.
    pub management: Option<String>,
}

/// What the backups of a project are put together from.
pub struct Surroundings<'a> {
    /// The project.
    pub project: &'a Project,
    /// The stores that were found in it.
    pub found: Vec<FoundStore>,
    /// Its containers; empty where the engine was not asked.
    pub instances: &'a [Instance],
    /// The engine, for commands in containers; `None` where it does not answer.
    pub runtime: Option<Arc<dyn Runtime>>,
    /// Variables of the caller.
    pub environment: &'a BTreeMap<String, String>,
    /// What is remembered between runs; a directory of its own.
    pub directory: PathBuf,
    /// A file with private keys that goes before that of `kaleem.toml`.
    pub key_file: Option<PathBuf>,
    /// Whether sets may be made unencrypted although `kaleem.toml` does not say so.
    pub unencrypted: bool,
    /// Who works.
    pub owner: String,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// The backups of a project, and what a person should know of them.
pub struct SetUp {
    /// The backups.
    pub backups: Backups,
    /// What was left out and why, and what will not work; one line each.
    pub notes: Vec<String>,
    /// What services keep that no source holds.
    pub not_covered: Vec<NotCovered>,
    /// How long sets stay.
    pub policy: Policy,
}

/// Puts the backups of a project together. No store and no vault is asked.
///
/// # Errors
/// [`SetUpError`], naming the part of `kaleem.toml`, the variable or the file.
pub async fn set_up(around: &Surroundings<'_>) -> Result<SetUp, SetUpError> {
    let settings = &around.project.settings.backup;
    let mut notes = Vec::new();
    let reach = Reach::new(around.project, around.instances);
    let databases = databases::usable(around).await;
    let sources = stores::sources(around, &reach, &databases, &mut notes).await?;
    let covers = covered::covered(around, &databases);
    let not_covered = covered::not_covered(around.project, &covers);
    let parts = BackupParts {
        project: around.project.name.clone(),
        sources,
        covers,
        not_covered: not_covered.iter().map(|one| format!("{}: {}", one.service, one.storage)).collect(),
        vaults: vaults::vaults(around)?,
        protection: protection(around)?,
        keys: keys(around)?,
        directory: around.directory.clone(),
        owner: around.owner.clone(),
        silence: settings.silence.map_or(SILENCE, |silence| silence.0),
        clock: around.clock.clone(),
    };
    if settings.vaults.is_empty() {
        notes.push("sets are kept on this host alone; name a vault elsewhere under `[backup.vaults.NAME]`".to_owned());
    }
    Ok(SetUp { backups: Backups::new(parts), notes, not_covered, policy: policy(&settings.retention) })
}

/// The source under this name in another place: for a restore elsewhere.
///
/// # Errors
/// [`SetUpError`]
pub async fn elsewhere(name: &ArtifactName, kind: StoreKind, url: Secret<String>) -> Result<Arc<dyn BackupSource>, SetUpError> {
    let mut found = FoundStore { service: None, name: name.to_string(), kind, url, api_key: None, management: None };
    if kind == StoreKind::Rabbitmq
        && let Some(management) = stores::management(&found)
    {
        found.url = Secret::new(management);
    }
    stores::of_address(name, &found, &MongoScope::everything()).await
}

fn variable(around: &Surroundings<'_>, name: &str, what: &str) -> Result<Secret<String>, SetUpError> {
    let value = around.environment.get(name).filter(|value| !value.is_empty());
    value.map(|value| Secret::new(value.clone())).ok_or_else(|| SetUpError::Variable { name: name.to_owned(), what: what.to_owned() })
}

fn file(around: &Surroundings<'_>, path: &Path, what: &str) -> Result<Secret<String>, SetUpError> {
    let path = around.project.directory.join(path);
    let bytes = durable::read(&path).map_err(|source| SetUpError::File { what: what.to_owned(), source })?;
    String::from_utf8(bytes).map(Secret::new).map_err(|_| SetUpError::NoText { path, what: what.to_owned() })
}

/// A secret of one line in a file.
fn line(around: &Surroundings<'_>, path: &Path, what: &str) -> Result<Secret<String>, SetUpError> {
    Ok(Secret::new(file(around, path, what)?.expose().trim_end_matches(['\r', '\n']).to_owned()))
}

fn passphrase(around: &Surroundings<'_>) -> Result<Option<Secret<String>>, SetUpError> {
    let settings = &around.project.settings.backup;
    let what = "the passphrase of backups";
    match (&settings.passphrase_env, &settings.passphrase_file) {
        (Some(name), _) => variable(around, name, what).map(Some),
        (None, Some(path)) => line(around, path, what).map(Some),
        (None, None) => Ok(None),
    }
}

fn protection(around: &Surroundings<'_>) -> Result<Option<Protection>, SetUpError> {
    let settings = &around.project.settings.backup;
    if !settings.recipients.is_empty() {
        let recipients = Protection::to_recipients(settings.recipients.iter().map(String::as_str));
        return recipients.map(Some).map_err(|source| SetUpError::Key { source });
    }
    if let Some(passphrase) = passphrase(around)? {
        return Ok(Some(Protection::Passphrase(passphrase)));
    }
    Ok((settings.unencrypted == Some(true) || around.unencrypted).then_some(Protection::Unencrypted))
}

fn keys(around: &Surroundings<'_>) -> Result<Keys, SetUpError> {
    let settings: &BackupSettings = &around.project.settings.backup;
    let path = around.key_file.as_ref().or(settings.key_file.as_ref());
    let keys = match path {
        Some(path) => match file(around, path, "the private keys of backups") {
            // A host that only makes sets need not have the keys: whoever needs them is told then.
            Err(SetUpError::File { source, .. }) if source.is_missing() && around.key_file.is_none() => Keys::none(),
            text => Keys::from_key_file(&text?).map_err(|source| SetUpError::Key { source })?,
        },
        None => Keys::none(),
    };
    Ok(match passphrase(around)? {
        Some(passphrase) => keys.with_passphrase(passphrase),
        None => keys,
    })
}

/// How long sets stay by `kaleem.toml`.
pub fn policy(settings: &RetentionSettings) -> Policy {
    let usual = Policy::usual();
    let count = |number: Option<u32>, usual: usize| number.map_or(usual, |number| usize::try_from(number).unwrap_or(usize::MAX));
    Policy {
        daily: count(settings.daily, usual.daily),
        weekly: count(settings.weekly, usual.weekly),
        monthly: count(settings.monthly, usual.monthly),
        keep_within_days: settings.keep_within_days,
        keep_tags: settings.keep_tags.iter().cloned().collect(),
        longest_gap_days: settings.longest_gap_days.unwrap_or(usual.longest_gap_days),
    }
}

//! Where sets are kept, as `kaleem.toml` names it. No vault is asked.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kaleem_core::backup::BackupVault;
use kaleem_core::config::settings::backup::{BucketStyleName, VaultSettings};
use kaleem_core::durable::{self, DurableError, FileOperation, PRIVATE_DIRECTORY, PRIVATE_FILE};
use kaleem_core::secret::Secret;

use super::commands::GIVEN;
use super::{SetUpError, Surroundings, line, variable};
use crate::backups::NamedVault;
use crate::vault::{AwayVault, BucketStyle, LocalVault, ResticSettings, ResticVault, S3Settings, S3Vault};

/// The vault's name where none is configured.
const DEFAULT_VAULT: &str = "local";
/// The program that works with its repositories.
const RESTIC: &str = "restic";
/// The file that tells a vault from an empty directory.
const MARK: &str = "kaleem-vault";
/// Where a bucket is when nothing is said.
const REGION: &str = "us-east-1";
/// Length of the parts of a large object: 156 GiB fit.
const PART_BYTES: usize = 16 * 1024 * 1024;
/// Time a service has for one answer, and how often it is asked.
const ANSWER: Duration = Duration::from_secs(30);
const ATTEMPTS: u32 = 5;

pub(super) fn vaults(around: &Surroundings<'_>) -> Result<Vec<NamedVault>, SetUpError> {
    let settings = &around.project.settings.backup;
    if settings.vaults.is_empty() {
        let vault = directory(around, DEFAULT_VAULT, &around.directory.join("sets"))?;
        return Ok(vec![vault]);
    }
    let open = |(name, said): (&String, &VaultSettings)| match (&said.path, &said.bucket) {
        (Some(path), _) => directory(around, name, &around.project.directory.join(path)),
        (None, None) => repository(around, name, said),
        (None, named) => bucket(around, name, said, named.as_deref().unwrap_or_default()),
    };
    settings.vaults.iter().map(open).collect()
}

/// A vault in a directory. The first time it gets a mark, which is remembered on this host: a disk that is not mounted leaves an
/// empty directory behind, and that is not the vault.
fn directory(around: &Surroundings<'_>, name: &str, path: &Path) -> Result<NamedVault, SetUpError> {
    let failed = |source| SetUpError::Vault { name: name.to_owned(), source };
    let (mark, memory) = (path.join(MARK), around.directory.join("vaults").join(name));
    let found = read(&mark).map_err(failed)?;
    // A vault that was given another directory is another vault.
    let known = read(&memory).map_err(failed)?.and_then(|text| Some(text.strip_suffix(&format!(" {}", path.display()))?.to_owned()));
    let named = |vault: Arc<dyn BackupVault>| NamedVault { name: name.to_owned(), vault };
    if let (Some(known), true) = (&known, known != found) {
        let reason = format!(
            "its directory does not hold the vault {known} that was there before: its disk is not mounted, or it was emptied; to begin a new one remove {}",
            memory.display()
        );
        return Ok(named(Arc::new(AwayVault::new(path.display().to_string(), reason))));
    }
    let vault = LocalVault::open(path).map_err(failed)?;
    if known.is_none() {
        let id = match found {
            Some(id) => id,
            None => {
                let id = new_mark(&mark).map_err(failed)?;
                durable::write_atomic(&mark, id.as_bytes(), PRIVATE_FILE).map_err(failed)?;
                id
            }
        };
        durable::create_directory(&around.directory.join("vaults"), PRIVATE_DIRECTORY).map_err(failed)?;
        durable::write_atomic(&memory, format!("{id} {}", path.display()).as_bytes(), PRIVATE_FILE).map_err(failed)?;
    }
    Ok(named(Arc::new(vault)))
}

fn read(path: &Path) -> Result<Option<String>, DurableError> {
    match durable::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error),
    }
}

fn new_mark(mark: &Path) -> Result<String, DurableError> {
    let failed = |source| DurableError::Failed { operation: FileOperation::Write, path: mark.to_owned(), source };
    crate::random::digits::<16>().map_err(failed)
}

/// A vault in a repository of restic, whose program must be here.
fn repository(around: &Surroundings<'_>, name: &str, said: &VaultSettings) -> Result<NamedVault, SetUpError> {
    let search = around.environment.get("PATH").map(String::as_str).unwrap_or_default();
    let program = search.split(':').map(|directory| Path::new(directory).join(RESTIC)).find(|path| path.is_file());
    let Some(program) = program else {
        return Err(SetUpError::NoProgram { vault: name.to_owned(), program: RESTIC.to_owned() });
    };
    let what = format!("the repository of the vault `{name}`");
    let repository = match (&said.restic, &said.restic_env) {
        // A colon tells a store that is reached in another way from a directory.
        (Some(place), _) if place.contains(':') => Secret::new(place.clone()),
        (Some(place), _) => Secret::new(around.project.directory.join(place).display().to_string()),
        (None, variable_name) => variable(around, variable_name.as_deref().unwrap_or_default(), &what)?,
    };
    let password_file = around.project.directory.join(said.password_file.as_deref().unwrap_or(Path::new("")));
    // Read here for its error alone: restic gets the name.
    line(around, &password_file, &format!("the password of the repository of the vault `{name}`"))?;
    let mut environment = std::collections::BTreeMap::new();
    for given in GIVEN {
        environment.extend(around.environment.get(given).map(|value| (given.to_owned(), value.clone())));
    }
    for given in &said.variables {
        let value = variable(around, given, &format!("what restic is given for the vault `{name}`"))?;
        environment.insert(given.clone(), value.expose().clone());
    }
    let cache = around.directory.join("restic-cache");
    let vault = ResticVault::new(ResticSettings { program, repository, password_file, cache, environment });
    Ok(NamedVault { name: name.to_owned(), vault: Arc::new(vault) })
}

fn bucket(around: &Surroundings<'_>, name: &str, said: &VaultSettings, bucket: &str) -> Result<NamedVault, SetUpError> {
    let key = |file: &Option<PathBuf>, variable_name: &Option<String>, usual: &str, what: &str| match file {
        Some(path) => line(around, path, what),
        None => variable(around, variable_name.as_deref().unwrap_or(usual), what),
    };
    let what = |key: &str| format!("the {key} of the vault `{name}`");
    let region = said.region.clone().unwrap_or_else(|| REGION.to_owned());
    // The token of a session belongs to the usual variables alone.
    let usual = said.access_key_env.is_none() && said.access_key_file.is_none();
    let token = around.environment.get("AWS_SESSION_TOKEN").filter(|token| usual && !token.is_empty());
    let settings = S3Settings {
        endpoint: said.endpoint.clone().unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com")),
        bucket: bucket.to_owned(),
        style: match said.style {
            Some(BucketStyleName::Path) => BucketStyle::Path,
            Some(BucketStyleName::Host) => BucketStyle::Host,
            None if said.endpoint.is_none() => BucketStyle::Host,
            None => BucketStyle::Path,
        },
        prefix: said.prefix.clone().unwrap_or_default(),
        key: key(&said.access_key_file, &said.access_key_env, "AWS_ACCESS_KEY_ID", &what("access key"))?,
        secret: key(&said.secret_key_file, &said.secret_key_env, "AWS_SECRET_ACCESS_KEY", &what("secret key"))?,
        token: token.map(|token| Secret::new(token.clone())),
        region,
        part_bytes: PART_BYTES,
        answer_within: ANSWER,
        attempts: ATTEMPTS,
    };
    let vault = S3Vault::new(&settings).map_err(|source| SetUpError::Bucket { name: name.to_owned(), source })?;
    Ok(NamedVault { name: name.to_owned(), vault: Arc::new(vault) })
}

//! Where sets are kept, as `kaleem.toml` names it. No vault is asked.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kaleem_core::config::settings::backup::{BucketStyleName, VaultSettings};
use kaleem_core::secret::Secret;

use super::{SetUpError, Surroundings, line, variable};
use crate::backups::NamedVault;
use crate::vault::{BucketStyle, LocalVault, S3Settings, S3Vault};

/// The vault's name where none is configured.
const DEFAULT_VAULT: &str = "local";
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
        let vault = directory(DEFAULT_VAULT, &around.directory.join("sets"))?;
        return Ok(vec![vault]);
    }
    let open = |(name, said): (&String, &VaultSettings)| match (&said.path, &said.bucket) {
        (Some(path), _) => directory(name, &around.project.directory.join(path)),
        (None, named) => bucket(around, name, said, named.as_deref().unwrap_or_default()),
    };
    settings.vaults.iter().map(open).collect()
}

fn directory(name: &str, path: &Path) -> Result<NamedVault, SetUpError> {
    let vault = LocalVault::open(path).map_err(|source| SetUpError::Vault { name: name.to_owned(), source })?;
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

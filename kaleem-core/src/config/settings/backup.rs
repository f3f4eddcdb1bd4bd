//! `[backup]` in `kaleem.toml`: what is backed up, where it is kept, who can read it, and how long it stays.
//!
//! No secret stands in the file: it names variables and files that hold them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::DurationText;
use crate::config::Project;
use crate::names::{ArtifactName, ServiceName};

/// What is said of backups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct BackupSettings {
    /// When a set is made without being asked for; `by-hand` where nothing is said: never.
    pub when: Option<BackupWhen>,
    /// Public keys (`age1…`) of those who will be able to read the sets. This host needs no private key to make them.
    pub recipients: Vec<String>,
    /// Name of the variable that holds the passphrase, in place of `recipients`.
    pub passphrase_env: Option<String>,
    /// File that holds the passphrase, in place of `recipients`; relative to the project's directory.
    pub passphrase_file: Option<PathBuf>,
    /// File with private keys as `age-keygen` writes it, for restores and full verification; relative to the project's directory.
    pub key_file: Option<PathBuf>,
    /// Whether whoever can read a vault may read the data, too. Must be said where there are neither recipients nor a passphrase.
    pub unencrypted: Option<bool>,
    /// Names of what would be found in the compose file and is not to be backed up, such as `redis`.
    pub leave_out: Vec<String>,
    /// How long nothing may move before the making of a set is given up; `5m` where nothing is said.
    pub silence: Option<DurationText>,
    /// Where sets are kept, by name; the first in order of names is written first, the others get copies. Without one, a directory
    /// beside what kaleem keeps of the project.
    pub vaults: BTreeMap<String, VaultSettings>,
    /// What is backed up beside what is found in the compose file, or in another way, by name of the artifact.
    pub sources: BTreeMap<String, SourceSettings>,
    /// How long sets stay.
    pub retention: RetentionSettings,
    /// How a drill is done.
    pub drill: DrillSettings,
}

/// How a drill is done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct DrillSettings {
    /// How long a scratch store may take to start; `2m` where nothing is said.
    pub ready_within: Option<DurationText>,
    /// What is asked of the restored stores, by name.
    pub checks: BTreeMap<String, CheckSettings>,
}

/// A question to a store that a drill restored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct CheckSettings {
    /// Name of the artifact whose scratch store is asked.
    pub source: Option<String>,
    /// Program and arguments that must end with 0: in the scratch container, or on this host in the restored directory. No shell.
    pub command: Vec<String>,
    /// What its output must hold.
    pub contains: Option<String>,
    /// How long it may take; `1m` where nothing is said.
    pub timeout: Option<DurationText>,
}

/// When a set is made without being asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BackupWhen {
    /// Never.
    ByHand,
    /// As a step of every deploy that changes something, before anything is replaced.
    BeforeDeploy,
}

/// One place where sets are kept: a directory, a bucket, or a repository of restic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct VaultSettings {
    /// A directory of its own; relative to the project's directory.
    pub path: Option<PathBuf>,
    /// A bucket of an S3-compatible store.
    pub bucket: Option<String>,
    /// What the names of all objects in the bucket begin with.
    pub prefix: Option<String>,
    /// Address of the store, where it is not Amazon's, such as `https://ACCOUNT.r2.cloudflarestorage.com`.
    pub endpoint: Option<String>,
    /// Region; `us-east-1` where nothing is said.
    pub region: Option<String>,
    /// Name of the variable with the access key; `AWS_ACCESS_KEY_ID` where nothing is said.
    pub access_key_env: Option<String>,
    /// Name of the variable with the secret key; `AWS_SECRET_ACCESS_KEY` where nothing is said.
    pub secret_key_env: Option<String>,
    /// File with the access key, in place of a variable; relative to the project's directory.
    pub access_key_file: Option<PathBuf>,
    /// File with the secret key, in place of a variable; relative to the project's directory.
    pub secret_key_file: Option<PathBuf>,
    /// A repository of restic, such as `/srv/restic` or `sftp:host:/restic`; a path is relative to the project's directory.
    pub restic: Option<String>,
    /// Name of the variable that holds the repository, where its address has a password, in place of `restic`.
    pub restic_env: Option<String>,
    /// File with the password of that repository; relative to the project's directory.
    pub password_file: Option<PathBuf>,
    /// Names of variables that restic is given, beside `PATH`, `HOME` and the like: what the store behind the repository needs.
    pub variables: Vec<String>,
    /// How the bucket stands in addresses; `host` at Amazon and `path` elsewhere where nothing is said.
    pub style: Option<BucketStyleName>,
}

/// How a bucket stands in addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BucketStyleName {
    /// `https://host/bucket/...`.
    Path,
    /// `https://bucket.host/...`.
    Host,
}

/// What kind of thing a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SourceKindName {
    /// A MongoDB deployment.
    Mongodb,
    /// One Redis server, or the cluster that it is in.
    Redis,
    /// A Qdrant server.
    Qdrant,
    /// A RabbitMQ broker, over its management API.
    Rabbitmq,
    /// A directory of the host.
    Files,
    /// A named volume of the project.
    Volume,
    /// What a command writes.
    Command,
}

/// One thing that is backed up. Which keys it needs depends on its kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct SourceSettings {
    /// What it is.
    pub kind: Option<SourceKindName>,
    /// The service whose container is reached, or in whose container the command is run.
    #[schemars(with = "Option<String>")]
    pub service: Option<ServiceName>,
    /// Name of the variable that holds the address with user and password, for databases and brokers.
    pub url_env: Option<String>,
    /// File that holds that address; relative to the project's directory.
    pub url_file: Option<PathBuf>,
    /// Name of the variable that holds the API key, for `qdrant`; it may also stand as password in the address.
    pub api_key_env: Option<String>,
    /// File that holds that key; relative to the project's directory.
    pub api_key_file: Option<PathBuf>,
    /// Databases, for `mongodb`; all where nothing is said.
    pub databases: Vec<String>,
    /// Users and roles with them, for `mongodb`.
    pub users: bool,
    /// What is written while everything is read, for `mongodb`: the part of the oplog of that time, as `mongodump --oplog` keeps it.
    pub oplog: bool,
    /// Everything as of one moment, for `mongodb`, where the server can show that; `true` where nothing is said.
    pub one_moment: Option<bool>,
    /// The directory, for `files`; relative to the project's directory.
    pub path: Option<PathBuf>,
    /// The key of the volume in the compose file, for `volume`.
    pub volume: Option<String>,
    /// Program and arguments whose output is kept, for `command`; its exit code is believed. No shell.
    pub command: Vec<String>,
    /// Program and arguments that take the output back on standard input, for `command`.
    pub restore_command: Vec<String>,
    /// Program and arguments that end with 0 when nothing is there that a restore would replace, for `command`; without it a
    /// restore must be told to replace.
    pub empty_command: Vec<String>,
    /// Names of variables that a command on this host is given, beside `PATH`, `HOME` and the like; for `command`.
    pub variables: Vec<String>,
    /// How long each command may run; `1h` where nothing is said.
    pub timeout: Option<DurationText>,
}

/// How long sets stay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct RetentionSettings {
    /// The newest set of each of that many days; 7 where nothing is said.
    pub daily: Option<u32>,
    /// The newest set of each of that many weeks; 4 where nothing is said.
    pub weekly: Option<u32>,
    /// The newest set of each of that many months; 6 where nothing is said.
    pub monthly: Option<u32>,
    /// Every set that is not older than that many days.
    pub keep_within_days: Option<u32>,
    /// Every set with one of these tags.
    pub keep_tags: Vec<String>,
    /// When the newest set is older than that many days, the clock is not believed and nothing is removed; 31 where nothing is said.
    pub longest_gap_days: Option<u32>,
}

/// Whether a set is made before a deploy that changes this service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceBackup {
    /// A set is made before.
    BeforeDeploy,
    /// No set is made because of this service.
    Never,
}

/// What going back past a migration takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MigrationName {
    /// The release before runs on what it leaves behind, too.
    Compatible,
    /// A command takes it back.
    Reversible,
    /// Nothing takes it back but a backup: after it began, nothing goes back by itself.
    OneWay,
}

/// What is wrong, and how it is put right: (keys that lead to the place, what, what to do).
type Wrong = (Vec<String>, String, String);

fn wrong(place: &[&str], what: String, remedy: &str) -> Result<(), Wrong> {
    Err((place.iter().map(|key| (*key).to_owned()).collect(), what, remedy.to_owned()))
}

impl BackupSettings {
    /// Whether anything is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Looks for what cannot be meant.
    pub(super) fn check(&self, project: &Project) -> Result<(), Wrong> {
        let ways =
            [!self.recipients.is_empty(), self.passphrase_env.is_some() || self.passphrase_file.is_some(), self.unencrypted == Some(true)];
        if ways.into_iter().filter(|way| *way).count() > 1 {
            return wrong(
                &["backup"],
                "backups are protected in more than one way".to_owned(),
                "keep one of `recipients`, a passphrase and `unencrypted`",
            );
        }
        if self.passphrase_env.is_some() && self.passphrase_file.is_some() {
            return wrong(
                &["backup", "passphrase-file"],
                "the passphrase is said twice".to_owned(),
                "keep one of `passphrase-env` and `passphrase-file`",
            );
        }
        if let Some(text) = self.recipients.iter().find(|text| !text.starts_with("age1")) {
            let hint = if text.starts_with("AGE-SECRET-KEY") {
                "that is a private key: write the public one"
            } else {
                "write what `age-keygen` printed as public key"
            };
            // A private key is not repeated.
            return wrong(&["backup", "recipients"], "a recipient does not begin with `age1`".to_owned(), hint);
        }
        for (name, vault) in &self.vaults {
            check_vault(name, vault)?;
        }
        for (name, source) in &self.sources {
            check_source(name, source, project)?;
        }
        for (name, check) in &self.drill.checks {
            let missing = match (&check.source, check.command.is_empty()) {
                (Some(source), false) if source.parse::<ArtifactName>().is_ok() => continue,
                (Some(_), false) => "a `source` that is the name of an artifact, as `kaleem backup show` tells it",
                (None, _) => "`source`: the artifact whose scratch store is asked",
                (Some(_), true) => "`command`: the program and its arguments",
            };
            return wrong(
                &["backup", "drill", "checks", name],
                format!("the check `{name}` of drills is not complete"),
                &format!("add {missing}"),
            );
        }
        Ok(())
    }
}

fn check_vault(name: &str, vault: &VaultSettings) -> Result<(), Wrong> {
    let place = ["backup", "vaults", name];
    if name.parse::<ArtifactName>().is_err() {
        return wrong(&place, format!("`{name}` is no name for a vault"), "use lower case letters, digits, `-` and `_`");
    }
    if vault.access_key_env.is_some() && vault.access_key_file.is_some()
        || vault.secret_key_env.is_some() && vault.secret_key_file.is_some()
    {
        return wrong(
            &place,
            format!("a key of the vault `{name}` is said twice"),
            "keep one of `access-key-env` and `access-key-file`, and one of `secret-key-env` and `secret-key-file`",
        );
    }
    let restic = vault.restic.is_some() || vault.restic_env.is_some();
    match (&vault.path, &vault.bucket, restic) {
        (Some(_), None, false) if of_a_bucket(vault) => wrong(
            &place,
            format!("the vault `{name}` is a directory, and has keys of a bucket"),
            "remove them, or write `bucket` in place of `path`",
        ),
        (None, None, true) if of_a_bucket(vault) => wrong(
            &place,
            format!("the vault `{name}` is a repository of restic, and has keys of a bucket"),
            "remove them; name in `variables` what restic is to be given",
        ),
        (None, None, true) if vault.restic.is_some() && vault.restic_env.is_some() => {
            wrong(&place, format!("the repository of the vault `{name}` is said twice"), "keep one of `restic` and `restic-env`")
        }
        (None, None, true) if vault.password_file.is_none() => wrong(
            &place,
            format!("the vault `{name}` does not say which file holds the password of its repository"),
            "write `password-file`",
        ),
        (_, _, false) if vault.password_file.is_some() || !vault.variables.is_empty() => wrong(
            &place,
            format!("the vault `{name}` has keys of a repository of restic, and names none"),
            "remove `password-file` and `variables`, or write `restic`",
        ),
        (Some(_), None, false) | (None, Some(_), false) | (None, None, true) => Ok(()),
        _ => wrong(&place, format!("the vault `{name}` needs a `path`, a `bucket` or `restic`"), "write one of the three"),
    }
}

fn of_a_bucket(vault: &VaultSettings) -> bool {
    let texts = [&vault.endpoint, &vault.prefix, &vault.region, &vault.access_key_env, &vault.secret_key_env];
    texts.into_iter().any(Option::is_some) || vault.style.is_some() || vault.access_key_file.is_some() || vault.secret_key_file.is_some()
}

fn check_source(name: &str, source: &SourceSettings, project: &Project) -> Result<(), Wrong> {
    let place = ["backup", "sources", name];
    if name.parse::<ArtifactName>().is_err() {
        return wrong(&place, format!("`{name}` is no name for an artifact"), "use lower case letters, digits, `-` and `_`");
    }
    let Some(kind) = source.kind else {
        return wrong(
            &place,
            format!("the source `{name}` has no `kind`"),
            "write one of: mongodb, redis, qdrant, rabbitmq, files, volume, command",
        );
    };
    if let Some(service) = source.service.as_ref().filter(|service| !project.services.contains_key(*service)) {
        return wrong(
            &place,
            format!("the compose file has no service `{service}`"),
            "name a service of the compose file whose profile is active",
        );
    }
    let missing = match kind {
        SourceKindName::Files if source.path.is_none() => "`path`: the directory",
        SourceKindName::Volume if source.volume.is_none() => "`volume`: its key in the compose file",
        SourceKindName::Command if source.command.is_empty() => "`command`: the program and its arguments",
        SourceKindName::Mongodb | SourceKindName::Redis | SourceKindName::Qdrant | SourceKindName::Rabbitmq
            if source.url_env.is_none() && source.url_file.is_none() && source.service.is_none() =>
        {
            "`service`, or `url-env` or `url-file` with its address"
        }
        _ => "",
    };
    if !missing.is_empty() {
        return wrong(&place, format!("the source `{name}` is not complete"), &format!("add {missing}"));
    }
    let of_mongodb = [("users", source.users), ("oplog", source.oplog), ("one-moment", source.one_moment.is_some())];
    if let Some((key, _)) = of_mongodb.into_iter().find(|(_, said)| *said && kind != SourceKindName::Mongodb) {
        return wrong(&place, format!("the source `{name}` has `{key}`, and is no MongoDB"), &format!("remove `{key}`"));
    }
    if source.oplog && !source.databases.is_empty() {
        let reason = format!("the source `{name}` has `oplog`, which is of all databases, and names some");
        return wrong(&place, reason, "remove `oplog` or `databases`");
    }
    match &source.volume {
        Some(volume) if !project.volumes.contains_key(volume) => {
            wrong(&place, format!("the compose file has no volume `{volume}`"), "name a key of `volumes:` that an active service uses")
        }
        _ => Ok(()),
    }
}

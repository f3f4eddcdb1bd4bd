//! The arguments of `kaleem backup`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use kaleem_core::names::{ArtifactName, SetId};

use super::Files;

const EXIT_CODES: &str = "\
Exit codes of `kaleem backup`: 0 done, 1 failed, 2 usage or kaleem.toml, 3 partial (there is a set, and something is not as it
should be), 4 could not verify, 5 locked, 6 vault unreachable, 7 what is stored is damaged.";

#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Backup {
    #[command(flatten)]
    pub files: Files,
    /// File with private keys, as `age-keygen` writes it [env: KALEEM_BACKUP_KEY_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    #[command(subcommand)]
    pub verb: BackupVerb,
}

/// What is to be done with backups.
#[derive(Debug, Subcommand)]
pub(crate) enum BackupVerb {
    /// Make a backup set of everything, and read it back
    #[command(after_help = "Examples:\n  kaleem backup create\n  kaleem backup create --only mongo --tag before-import")]
    Create(Create),
    /// List the backup sets of every vault
    #[command(after_help = "Example:\n  kaleem backup list")]
    List(List),
    /// Show what is in a backup set
    #[command(after_help = "Example:\n  kaleem backup show 20260301t120000z-0a1b2c3d")]
    Show(ShowSet),
    /// Read a backup set again and check every byte of it, in every vault
    #[command(after_help = "Examples:\n  kaleem backup verify\n  kaleem backup verify --all")]
    Verify(Verify),
    /// Put a backup set back: all of it or one artifact, into empty stores unless told
    #[command(
        after_help = "Examples:\n  kaleem backup restore latest --replace\n  kaleem backup restore latest --only redis --replace --yes\n  kaleem backup restore latest --only mongo --collection shop.orders --replace"
    )]
    Restore(Restore),
    /// Restore a backup set into empty stores that nobody else can reach, compare, and throw them away
    #[command(
        after_help = "Examples:\n  kaleem backup drill\n  kaleem backup drill --random\n  kaleem backup drill --tamper   # must end with 7: a changed byte is found"
    )]
    Drill(Drill),
    /// Remove the backup sets that no rule keeps
    #[command(after_help = "Example:\n  kaleem backup prune --dry-run")]
    Prune(Prune),
    /// Remove one backup set; never the last verified one
    #[command(after_help = "Example:\n  kaleem backup forget 20260301t120000z-0a1b2c3d")]
    Forget(Forget),
    /// Keep a backup set, whatever the rules say
    #[command(after_help = "Example:\n  kaleem backup hold 20260301t120000z-0a1b2c3d --reason audit")]
    Hold(Hold),
    /// Let go of a backup set that was held
    #[command(after_help = "Example:\n  kaleem backup release 20260301t120000z-0a1b2c3d")]
    Release(Release),
    /// Print a systemd timer and a cron line that make backups
    #[command(after_help = "Example:\n  kaleem backup schedule --at 03:15")]
    Schedule(Schedule),
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Only this artifact; may be repeated
    #[arg(long, value_name = "ARTIFACT")]
    pub only: Vec<ArtifactName>,
    /// A word for retention; may be repeated
    #[arg(long = "tag", value_name = "WORD")]
    pub tags: Vec<String>,
    /// Whoever can read the vault may read the data, too
    #[arg(long)]
    pub unencrypted: bool,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Also what is not finished
    #[arg(long)]
    pub all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ShowSet {
    /// The set, or `latest`
    #[arg(default_value = "latest")]
    pub set: WhichSet,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The set, or `latest`
    #[arg(default_value = "latest")]
    pub set: WhichSet,
    /// Every set
    #[arg(long, conflicts_with = "set")]
    pub all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The set, or `latest`
    pub set: WhichSet,
    /// Only this artifact; may be repeated
    #[arg(long, value_name = "ARTIFACT")]
    pub only: Vec<ArtifactName>,
    /// Only this collection of the artifact that `--only` names: `shop.orders` of a MongoDB, a collection of a Qdrant
    #[arg(long, value_name = "NAME", requires = "only")]
    pub collection: Option<String>,
    /// Replace what is there, after the new data was loaded beside it and checked
    #[arg(long)]
    pub replace: bool,
    /// Do not make a set of what is replaced first
    #[arg(long, requires = "replace")]
    pub without_safety_set: bool,
    /// Restore to the database whose address is in this variable, in place of the project's own
    #[arg(long, value_name = "VARIABLE", conflicts_with = "to_directory")]
    pub to_env: Option<String>,
    /// Restore files to this directory, in place of the project's own
    #[arg(long, value_name = "DIRECTORY")]
    pub to_directory: Option<PathBuf>,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Drill {
    /// The set, or `latest`
    #[arg(default_value = "latest")]
    pub set: WhichSet,
    /// Any set, each as likely as the others
    #[arg(long, conflicts_with = "set")]
    pub random: bool,
    /// The vault that it is read from; the first that has it where nothing is said
    #[arg(long, value_name = "NAME")]
    pub vault: Option<String>,
    /// Change one byte of each artifact on its way: such a drill must fail
    #[arg(long)]
    pub tamper: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Remove nothing: show why each stays or goes
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Forget {
    /// The set
    pub set: SetId,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Hold {
    /// The set
    pub set: SetId,
    /// Why, for people
    #[arg(long, default_value = "held by hand")]
    pub reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct Release {
    /// The set
    pub set: SetId,
}

#[derive(Debug, Args)]
pub(crate) struct Schedule {
    /// When, every day, in the host's time
    #[arg(long, value_name = "HH:MM", default_value = "03:15")]
    pub at: TimeOfDay,
}

/// A set by its name, or the newest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WhichSet {
    /// The newest that is finished.
    Latest,
    /// This one.
    Named(SetId),
}

impl WhichSet {
    pub(crate) fn name(&self) -> Option<&SetId> {
        match self {
            Self::Latest => None,
            Self::Named(set) => Some(set),
        }
    }
}

impl std::str::FromStr for WhichSet {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "latest" {
            return Ok(Self::Latest);
        }
        text.parse().map(Self::Named).map_err(|error: kaleem_core::names::NameError| error.to_string())
    }
}

/// Hour and minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeOfDay {
    pub hour: u8,
    pub minute: u8,
}

impl std::str::FromStr for TimeOfDay {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, &'static str> {
        let wrong = "write it as `03:15`";
        let (hour, minute) = text.split_once(':').ok_or(wrong)?;
        let (hour, minute) = (hour.parse().map_err(|_| wrong)?, minute.parse().map_err(|_| wrong)?);
        if hour < 24 && minute < 60 { Ok(Self { hour, minute }) } else { Err(wrong) }
    }
}

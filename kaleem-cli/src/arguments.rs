//! What was typed, as checked types: nothing behind this module sees a flag as text.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use kaleem_core::config::settings::parse_duration;
use kaleem_core::image::ImageRef;
use kaleem_core::names::{ProjectName, ReleaseId, ServiceName};
use kaleem_core::remedy::Remedy;

pub(crate) mod backup;

const EXAMPLES: &str = "\
Examples:
  kaleem plan                        what a deploy would do
  kaleem deploy                      do it
  kaleem deploy api=shop/api:1.4     the same, with another image for one service
  API_IMAGE=shop/api:1.4 kaleem deploy   where the compose file says ${API_IMAGE}
  kaleem rollback                    back to the release before
  kaleem status                      what serves

Exit codes: 0 done or nothing to do, 1 bug, 2 usage, 3 config, 4 refused, 5 busy, 6 unreachable
(2 to 6: no service was touched), 10 rolled back, 11 aborted, 12 interrupted, 13 stuck.";

/// Ships a Docker Compose project as releases, and takes them back when they are bad.
#[derive(Debug, Parser)]
#[command(name = "kaleem", version, about, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub global: Global,
    /// Compose file; may be repeated, later ones override [env: COMPOSE_FILE]
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    #[command(subcommand)]
    pub verb: Verb,
}

/// Flags of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Project")]
pub(crate) struct Global {
    /// Compose files, from before or after the command.
    #[arg(skip)]
    pub files: Vec<PathBuf>,
    /// Where relative paths start from; the directory of the first compose file where nothing is said
    #[arg(long, global = true, value_name = "DIRECTORY")]
    pub project_directory: Option<PathBuf>,
    /// Name of the project [env: COMPOSE_PROJECT_NAME]
    #[arg(short = 'p', long = "project-name", global = true, value_name = "NAME")]
    pub project_name: Option<ProjectName>,
    /// File with variables in place of `.env`; may be repeated
    #[arg(long = "env-file", global = true, value_name = "FILE")]
    pub env_files: Vec<PathBuf>,
    /// Profile whose services take part; may be repeated [env: COMPOSE_PROFILES]
    #[arg(long = "profile", global = true, value_name = "NAME")]
    pub profiles: Vec<String>,
    /// What the compose file cannot say; `kaleem.toml` beside it where nothing is said
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where kaleem keeps what it knows [env: KALEEM_STATE_DIR]
    #[arg(long, global = true, value_name = "DIRECTORY")]
    pub state_dir: Option<PathBuf>,
    /// One JSON object per line on standard output, for programs
    #[arg(long, global = true, help_heading = "Output")]
    pub json: bool,
    /// Only results and errors
    #[arg(short, long, global = true, help_heading = "Output")]
    pub quiet: bool,
    /// When to use colours
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN", help_heading = "Output")]
    pub color: Color,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On terminals, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// Compose files after the command, where people write them too.
#[derive(Debug, Clone, Args)]
pub(crate) struct Files {
    /// Compose file; may be repeated
    #[arg(short = 'f', long = "file", id = "verb-file", value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// `adopt`.
#[derive(Debug, Args)]
pub(crate) struct Adopt {
    #[command(flatten)]
    pub files: Files,
    /// Also from a process on another machine or in a container, which cannot be seen from here and is known to be gone
    #[arg(long)]
    pub take_lock: bool,
}

/// What is to be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Write a kaleem.toml that says how each service is replaced, and why
    #[command(after_help = "Examples:\n  kaleem init --print\n  kaleem init --schema > kaleem.schema.json")]
    Init(Init),
    /// Show what a deploy would do, and do nothing
    #[command(after_help = "Examples:\n  kaleem plan\n  kaleem plan --steps api=shop/api:1.4")]
    Plan(PlanArguments),
    /// Ship what the compose file says, behind health gates
    #[command(
        after_help = "Examples:\n  kaleem deploy\n  kaleem deploy api=shop/api:1.4 worker=shop/api:1.4\n  kaleem deploy --build\n  kaleem deploy --build api --build worker\n  kaleem deploy --only api --scale api=3"
    )]
    Deploy(Deploy),
    /// Show what serves
    #[command(after_help = "Example:\n  kaleem status")]
    Status,
    /// List what was released
    #[command(after_help = "Example:\n  kaleem releases")]
    Releases,
    /// Show one release: its images, its steps and what they measured
    #[command(after_help = "Example:\n  kaleem show r7")]
    Show(Show),
    /// Go back to a release that served before
    #[command(after_help = "Examples:\n  kaleem rollback\n  kaleem rollback r5\n  kaleem rollback --with-data")]
    Rollback(Rollback),
    /// Restart services: fresh containers of the release that is live, behind their gateways
    #[command(after_help = "Examples:\n  kaleem restart web\n  kaleem restart --plan api worker")]
    Restart(Restart),
    /// Have a web server read its configuration again, without a restart
    #[command(after_help = "Example:\n  kaleem reload web")]
    Reload(Reload),
    /// Give the project back to plain Compose: without gateways, and without anything of kaleem's on the host
    #[command(after_help = "Examples:\n  kaleem eject --plan\n  kaleem eject")]
    Eject(Eject),
    /// Stop and remove everything of the project but its data
    #[command(after_help = "Examples:\n  kaleem down --plan\n  kaleem down\n  kaleem down --volumes")]
    Down(Down),
    /// Take over a project that another user, state directory or project directory deployed. Nothing that runs is touched
    #[command(after_help = "Example:\n  kaleem adopt")]
    Adopt(Adopt),
    /// Look at the gateways, upgrade their program, read their counters
    #[command(after_help = "Examples:\n  kaleem gateway list\n  kaleem gateway upgrade\n  kaleem gateway metrics api")]
    Gateway(Gateway),
    /// Go on with a plan that was interrupted or is stuck
    #[command(after_help = "Example:\n  kaleem resume")]
    Resume,
    /// Take the running or interrupted plan back
    #[command(after_help = "Example:\n  kaleem abort")]
    Abort,
    /// Settle a stuck plan by hand: say what serves. Nothing is touched
    #[command(after_help = "Example:\n  kaleem resolve --old")]
    Resolve(Resolve),
    /// Show the output of what serves
    #[command(after_help = "Examples:\n  kaleem logs -f api\n  kaleem logs --tail 20 --since 10m")]
    Logs(Logs),
    /// Run a command in a running container, without a terminal
    #[command(after_help = "Example:\n  kaleem exec api -- /app migrate --dry-run")]
    Exec(Exec),
    /// Ask every dependency how it is: databases, brokers, pages, ports
    #[command(after_help = "Examples:\n  kaleem health\n  kaleem health --wait 60s\n  kaleem health --watch")]
    Health(Health),
    /// Make, prove and put back backups of databases, brokers and files
    #[command(after_help = "Examples:\n  kaleem backup create\n  kaleem backup list\n  kaleem backup restore latest --replace")]
    Backup(backup::Backup),
    /// Look for what will bite, and repair what is damaged
    #[command(after_help = "Examples:\n  kaleem doctor\n  kaleem doctor --repair")]
    Doctor(Doctor),
    /// Print completions for a shell
    #[command(after_help = "Example:\n  kaleem completions bash > /etc/bash_completion.d/kaleem")]
    Completions(Completions),
}

#[derive(Debug, Args)]
pub(crate) struct Init {
    #[command(flatten)]
    pub files: Files,
    /// Write it to standard output
    #[arg(long)]
    pub print: bool,
    /// Print the JSON schema of kaleem.toml instead
    #[arg(long, conflicts_with_all = ["print", "force"])]
    pub schema: bool,
    /// Replace the one that is there
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PlanArguments {
    #[command(flatten)]
    pub files: Files,
    /// Other images than those of the compose file
    #[arg(value_name = "SERVICE=IMAGE")]
    pub images: Vec<ImageChoice>,
    /// Show every step
    #[arg(long)]
    pub steps: bool,
    #[command(flatten)]
    pub wishes: Wishes,
}

/// What a deploy is told beside the files.
#[derive(Debug, Args)]
pub(crate) struct Wishes {
    /// Deploy only this service and leave all others as they are; may be repeated, or name several with commas
    #[arg(long, value_name = "SERVICE", value_delimiter = ',')]
    pub only: Vec<ServiceName>,
    /// Run another number of containers than the compose file says; the next deploy without it goes back
    #[arg(long, value_name = "SERVICE=N")]
    pub scale: Vec<Scale>,
    /// Replace this service even if nothing of it changed; may be repeated
    #[arg(long, value_name = "SERVICE", value_delimiter = ',')]
    pub recreate: Vec<ServiceName>,
    /// Go ahead when an image goes back: it is older, or a variable or a compose file of the last release is missing
    #[arg(long)]
    pub allow_older: bool,
    /// Stop services that only a missing compose file names
    #[arg(long)]
    pub remove_orphans: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Deploy {
    #[command(flatten)]
    pub files: Files,
    /// Other images than those of the compose file
    #[arg(value_name = "SERVICE=IMAGE")]
    pub images: Vec<ImageChoice>,
    /// Build the image of SERVICE first (repeatable); without a name, those of all services with `build:`
    #[arg(long, value_name = "SERVICE", num_args = 0..=1, action = clap::ArgAction::Append)]
    pub build: Option<Vec<ServiceName>>,
    /// Make no backup set first, whatever kaleem.toml says
    #[arg(long)]
    pub no_backup: bool,
    /// Never ask: what would be asked about is refused, unless its own flag allows it
    #[arg(short, long)]
    pub yes: bool,
    /// Why, in one line: `kaleem releases` and `kaleem show` print it
    #[arg(long, value_name = "TEXT", value_parser = note)]
    pub note: Option<String>,
    #[command(flatten)]
    pub wishes: Wishes,
}

/// One line that others read.
fn note(text: &str) -> Result<String, String> {
    const MOST_CHARACTERS: usize = 300;
    let text = text.trim();
    match text.chars().count() {
        0 => Err("it is empty".to_owned()),
        count if count > MOST_CHARACTERS => Err(format!("it has {count} characters, and {MOST_CHARACTERS} are the limit")),
        _ if text.chars().any(char::is_control) => Err("it must be one line without control characters".to_owned()),
        _ => Ok(text.to_owned()),
    }
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The release, such as `r7`
    pub release: ReleaseId,
}

#[derive(Debug, Args)]
pub(crate) struct Rollback {
    /// The release, such as `r7` [default: the last one that served well and was not rolled back from]
    pub release: Option<ReleaseId>,
    /// Show what would be done, and do nothing
    #[arg(long, visible_alias = "dry-run")]
    pub plan: bool,
    /// Also put the data back as it was when that release was left; what was written since is lost
    #[arg(long)]
    pub with_data: bool,
    /// Do not ask
    #[arg(short, long, requires = "with_data")]
    pub yes: bool,
    /// File with the private keys of the backups [env: KALEEM_BACKUP_KEY_FILE]
    #[arg(long, value_name = "FILE", requires = "with_data")]
    pub key_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Restart {
    /// The services
    #[arg(required = true, value_name = "SERVICE")]
    pub services: Vec<ServiceName>,
    /// Show what would be done, and do nothing
    #[arg(long)]
    pub plan: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Reload {
    /// The services
    #[arg(required = true, value_name = "SERVICE")]
    pub services: Vec<ServiceName>,
}

#[derive(Debug, Args)]
pub(crate) struct Eject {
    #[command(flatten)]
    pub files: Files,
    /// Show what would be done, and do nothing
    #[arg(long)]
    pub plan: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Down {
    /// Show what would be done, and do nothing
    #[arg(long)]
    pub plan: bool,
    /// Remove the volumes too, with the data in them; asks for the project's name first
    #[arg(long)]
    pub volumes: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Gateway {
    #[command(subcommand)]
    pub what: GatewayVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GatewayVerb {
    /// Show every gateway: its program, where it sends, what is open
    List,
    /// Replace the program of gateways by the one beside kaleem, while they serve
    Upgrade {
        /// Services; all whose gateway runs another program where nothing is said
        services: Vec<ServiceName>,
        /// Show what would be done, and do nothing
        #[arg(long)]
        plan: bool,
    },
    /// Print the counters of gateways in the text form of Prometheus
    Metrics {
        /// Services; all where nothing is said
        services: Vec<ServiceName>,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Resolve {
    /// What served before the plan serves
    #[arg(long)]
    pub old: bool,
    /// The release of the plan serves
    #[arg(long)]
    pub new: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Services; all where nothing is said
    pub services: Vec<ServiceName>,
    /// Go on with lines that come later
    #[arg(short = 'f', long)]
    pub follow: bool,
    /// How many of the last lines of each container
    #[arg(short = 'n', long, value_name = "N", default_value = "100")]
    pub tail: Tail,
    /// Only lines since then: a time such as `2026-01-31T10:00:00Z`, or a duration such as `10m`
    #[arg(long, value_name = "WHEN")]
    pub since: Option<Since>,
    /// Show when each line was written
    #[arg(short = 't', long)]
    pub timestamps: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Where: the first running container of this service
    pub service: ServiceName,
    /// What: a program in the container and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub command: Vec<String>,
    /// Time it may take
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    pub timeout: Span,
}

#[derive(Debug, Args)]
pub(crate) struct Health {
    #[command(flatten)]
    pub files: Files,
    /// Ask again until all is well, at most this long
    #[arg(long, value_name = "DURATION", conflicts_with = "watch")]
    pub wait: Option<Span>,
    /// Ask again and again
    #[arg(long)]
    pub watch: bool,
    /// Time one answer may take
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    pub timeout: Span,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub files: Files,
    /// Say what is damaged in what kaleem keeps and made, and offer the safe repair of each
    #[arg(long)]
    pub repair: bool,
    /// Repair without asking
    #[arg(long, requires = "repair")]
    pub yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    pub shell: clap_complete::Shell,
}

impl Arguments {
    /// The verb and the global flags, with compose files from both places.
    pub(crate) fn settle(mut self) -> (Global, Verb) {
        let after = match &self.verb {
            Verb::Init(verb) => &verb.files.files,
            Verb::Plan(verb) => &verb.files.files,
            Verb::Deploy(verb) => &verb.files.files,
            Verb::Doctor(verb) => &verb.files.files,
            Verb::Eject(verb) => &verb.files.files,
            Verb::Adopt(verb) => &verb.files.files,
            Verb::Health(verb) => &verb.files.files,
            Verb::Backup(verb) => &verb.files.files,
            _ => &Vec::new(),
        };
        self.global.files = self.files.iter().chain(after).cloned().collect();
        (self.global, self.verb)
    }
}

/// `SERVICE=IMAGE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImageChoice {
    pub service: ServiceName,
    pub image: ImageRef,
}

impl FromStr for ImageChoice {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (service, image) = text.split_once('=').ok_or("write it as SERVICE=IMAGE, such as `api=shop/api:1.4`")?;
        let service = service.parse().map_err(|error: kaleem_core::names::NameError| error.to_string())?;
        let image = image.parse().map_err(|error: kaleem_core::image::ImageError| format!("{error}; {}", error.remedy()))?;
        Ok(Self { service, image })
    }
}

/// `SERVICE=N`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scale {
    pub service: ServiceName,
    pub replicas: u32,
}

impl FromStr for Scale {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        /// More is a slip of the finger, as in a compose file.
        const MOST: u32 = 1000;
        let wrong = || format!("write it as SERVICE=N, such as `api=3`, with N from 0 to {MOST}");
        let (service, replicas) = text.split_once('=').ok_or_else(wrong)?;
        let service = service.parse().map_err(|error: kaleem_core::names::NameError| error.to_string())?;
        let replicas = replicas.parse().ok().filter(|number| *number <= MOST).ok_or_else(wrong)?;
        Ok(Self { service, replicas })
    }
}

/// How many of the last lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Every line there is.
    All,
    /// So many.
    Lines(u64),
}

impl FromStr for Tail {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text {
            "all" => Ok(Self::All),
            text => text.parse().map(Self::Lines).map_err(|_| "write a number, or `all`"),
        }
    }
}

/// A length of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span(pub Duration);

impl FromStr for Span {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, &'static str> {
        parse_duration(text).map(Self).ok_or("write it as `500ms`, `30s` or `1h30m`")
    }
}

/// A moment in the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Since {
    /// So long ago.
    Ago(Duration),
    /// Then.
    At(jiff::Timestamp),
}

impl FromStr for Since {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, &'static str> {
        let ago = parse_duration(text).map(Self::Ago);
        ago.or_else(|| text.parse().map(Self::At).ok()).ok_or("write a time such as `2026-01-31T10:00:00Z`, or a duration such as `10m`")
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn flags_do_not_contradict_each_other() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_service_and_its_image_are_told_apart_at_the_first_equals_sign() {
        for (why, text, ok) in [
            ("plain", "api=shop:1", true),
            ("registry with a port", "api=127.0.0.1:5000/shop:1", true),
            ("no image", "api", false),
            ("empty image", "api=", false),
            ("upper case", "api=Shop", false),
            ("an option", "-x=shop", false),
        ] {
            assert_eq!(text.parse::<ImageChoice>().is_ok(), ok, "{why}: {text}");
        }
    }

    #[test]
    fn compose_files_may_stand_before_or_after_the_command() {
        let files = |words: &[&str]| Arguments::try_parse_from(words).map(|arguments| arguments.settle().0.files.len());
        for (why, words, count) in [
            ("before", &["kaleem", "-f", "a", "plan"] as &[&str], 1),
            ("after", &["kaleem", "plan", "-f", "a", "-f", "b"], 2),
            ("follow is not a file", &["kaleem", "-f", "a", "logs", "-f"], 1),
        ] {
            assert_eq!(files(words).ok(), Some(count), "{why}");
        }
    }
}

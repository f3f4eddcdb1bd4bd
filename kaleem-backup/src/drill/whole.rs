//! A drill from end to end: scratch stores are made, filled by a restore, restarted, looked at again, asked what the user
//! wants to know, and taken away, whatever came of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use kaleem_core::backup::{BackupSource, BackupVault, Contents, Manifest};
use kaleem_core::clock::Clock;
use kaleem_core::exec::{self, ExecRequest};
use kaleem_core::names::{ArtifactName, ContainerName, SetId};
use kaleem_core::remedy::one_line;

use super::room::{Room, ScratchContainer};
use super::{Checked, Control, DrillReport, Verdict, drill};
use crate::seal::Keys;
use crate::set::{self, difference};
use crate::source::command::{CommandPlace, CommandSource, Commands};
use crate::source::files::FilesSource;

/// Time between two questions to a store that starts.
const PAUSE: Duration = Duration::from_millis(250);
/// As much of what a check says is kept.
const SAID_BYTES: usize = 2000;

/// Speaks to the store of a scratch container at this address.
pub type Reached = dyn Fn(std::net::IpAddr) -> BoxFuture<'static, Result<Arc<dyn BackupSource>, String>> + Send + Sync;

/// What an artifact is restored into.
#[derive(Clone)]
pub enum ScratchStore {
    /// A store that listens in a container.
    Listening {
        /// The container.
        container: ScratchContainer,
        /// How it is spoken to.
        reached: Arc<Reached>,
    },
    /// What commands in a container read in and write out.
    Commands {
        /// The container.
        container: ScratchContainer,
        /// The commands.
        commands: Commands,
    },
    /// A directory of this host, made and removed by the drill.
    Directory,
    /// Nothing that could be made.
    Nothing {
        /// Why.
        reason: String,
    },
}

/// A question to a store that was restored.
#[derive(Clone, Debug)]
pub struct Check {
    /// Its name.
    pub name: String,
    /// The artifact whose scratch store is asked.
    pub artifact: ArtifactName,
    /// Program and arguments: in the container, or on this host in the directory.
    pub command: Vec<String>,
    /// What its output must hold.
    pub contains: Option<String>,
    /// How long it may take.
    pub timeout: Duration,
}

/// A drill that is to be done.
pub struct Drilling<'a> {
    /// Where the set is.
    pub vault: &'a dyn BackupVault,
    /// The set.
    pub set: SetId,
    /// What opens it.
    pub keys: &'a Keys,
    /// Whether it is to succeed.
    pub control: Control,
    /// Where containers are made; `None` where the engine does not answer.
    pub room: Option<&'a Room>,
    /// What each artifact is restored into.
    pub stores: BTreeMap<ArtifactName, ScratchStore>,
    /// What is asked then.
    pub checks: Vec<Check>,
    /// How long a store may take to start.
    pub ready_within: Duration,
    /// Where directories are made; one of its own.
    pub directory: PathBuf,
    /// What commands on this host are given.
    pub environment: BTreeMap<String, String>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// A scratch store that was made.
struct Made {
    source: Arc<dyn BackupSource>,
    container: Option<ContainerName>,
    directory: Option<PathBuf>,
}

impl Drilling<'_> {
    /// Does the drill. Everything that it made is gone afterwards, or named in the report.
    pub async fn run(&self, observer: &(dyn Fn(String) + Send + Sync)) -> DrillReport {
        let start = self.clock.monotonic();
        let mut reasons = BTreeMap::new();
        let mut made = BTreeMap::new();
        let opened = self.open(observer).await;
        for (artifact, store) in &self.stores {
            let result = match &opened {
                Err(reason) if !matches!(store, ScratchStore::Directory | ScratchStore::Nothing { .. }) => Err(reason.clone()),
                _ => self.make(artifact, store).await,
            };
            match result {
                Ok(store) => {
                    observer(format!("made an empty store for {artifact}"));
                    made.insert(artifact.clone(), store);
                }
                Err(reason) => {
                    reasons.insert(artifact.clone(), reason);
                }
            }
        }
        let sources = made.iter().map(|(artifact, store)| (artifact.clone(), store.source.clone())).collect();
        let stores_took = self.clock.monotonic().saturating_sub(start);
        let mut report = drill(self.vault, &self.set, &sources, self.keys, self.control, self.clock.as_ref()).await;
        report.stores_took = stores_took;
        for artifact in &mut report.artifacts {
            if let Some(reason) = reasons.get(&artifact.artifact) {
                artifact.reason = Some(format!("there is no scratch store for it: {reason}"));
            }
        }
        if self.control == Control::AsItIs {
            let manifest = set::read(self.vault, &self.set).await.ok();
            self.look_again(&mut report, manifest.as_ref(), &made, observer).await;
            self.ask(&mut report, &made, observer).await;
        }
        report.whole_took = self.clock.monotonic().saturating_sub(start);
        report.left_behind = self.close(observer).await;
        report
    }

    async fn open(&self, observer: &(dyn Fn(String) + Send + Sync)) -> Result<(), String> {
        std::fs::remove_dir_all(&self.directory).ok();
        let Some(room) = self.room else { return Err("the container engine does not answer".to_owned()) };
        for gone in room.clear().await.map_err(|error| one_line(&error))? {
            observer(format!("removed {gone}, which an earlier drill left behind"));
        }
        room.open().await.map_err(|error| one_line(&error))
    }

    /// Takes everything away. Answers what is still there, in words.
    async fn close(&self, observer: &(dyn Fn(String) + Send + Sync)) -> Option<String> {
        let mut left = None;
        if let Some(room) = self.room
            && let Err(error) = room.clear().await
        {
            left = Some(format!("the scratch containers: {}", one_line(&error)));
        }
        match std::fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => left = Some(format!("{}: {error}", self.directory.display())),
            _ => {}
        }
        if let Some(left) = &left {
            observer(format!("could not remove {left}"));
        }
        left
    }

    async fn make(&self, artifact: &ArtifactName, store: &ScratchStore) -> Result<Made, String> {
        let room = || self.room.ok_or_else(|| "the container engine does not answer".to_owned());
        match store {
            ScratchStore::Nothing { reason } => Err(reason.clone()),
            ScratchStore::Directory => {
                let path = self.directory.join(artifact.as_str());
                std::fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
                Ok(Made { source: Arc::new(FilesSource::new(artifact.clone(), &path)), container: None, directory: Some(path) })
            }
            ScratchStore::Commands { container, commands } => {
                let room = room()?;
                let name = room.start(artifact, container).await?;
                room.wait(&name, self.ready_within).await?;
                let place = CommandPlace::Container { console: room.runtime().clone(), container: name.clone() };
                let source = CommandSource::into_scratch(artifact.clone(), place, commands.clone());
                Ok(Made { source: Arc::new(source), container: Some(name), directory: None })
            }
            ScratchStore::Listening { container, reached } => {
                let name = room()?.start(artifact, container).await?;
                let (source, _) = self.ready(&name, reached).await?;
                Ok(Made { source, container: Some(name), directory: None })
            }
        }
    }

    /// Waits until the store in a container answers.
    async fn ready(&self, name: &ContainerName, reached: &Arc<Reached>) -> Result<(Arc<dyn BackupSource>, Contents), String> {
        let room = self.room.ok_or_else(|| "the container engine does not answer".to_owned())?;
        let until = self.clock.monotonic() + self.ready_within;
        room.wait(name, self.ready_within).await?;
        loop {
            let address = room.address(name).await.map_err(|error| one_line(&error))?;
            let reason = match address {
                Some(address) => {
                    let source = reached(address).await?;
                    match source.inspect().await {
                        Ok(contents) => return Ok((source, contents)),
                        Err(error) => one_line(&error),
                    }
                }
                None => format!("{name} has no address"),
            };
            if self.clock.monotonic() >= until {
                return Err(format!("it does not answer in time: {reason}"));
            }
            room.wait(name, self.ready_within).await?;
            self.clock.sleep(PAUSE).await;
        }
    }

    /// Restarts what was restored, and compares it once more: what is only in memory is not restored.
    async fn look_again(
        &self,
        report: &mut DrillReport,
        manifest: Option<&Manifest>,
        made: &BTreeMap<ArtifactName, Made>,
        observer: &(dyn Fn(String) + Send + Sync),
    ) {
        for artifact in report.artifacts.iter_mut().filter(|artifact| artifact.verdict == Verdict::Pass) {
            let name = artifact.artifact.clone();
            let container = made.get(&name).and_then(|store| store.container.as_ref());
            let record = manifest.and_then(|manifest| manifest.artifacts.iter().find(|record| record.name == name));
            let (Some(container), Some(ScratchStore::Listening { reached, .. }), Some(record), Some(room)) =
                (container, self.stores.get(&name), record, self.room)
            else {
                continue;
            };
            observer(format!("restarting the store of {name}"));
            let found = match room.restart(container).await {
                Ok(()) => self.ready(container, reached).await.map(|(_, contents)| contents),
                Err(error) => Err(one_line(&error)),
            };
            (artifact.verdict, artifact.reason) = match found.map(|contents| difference(&contents, &record.contents)) {
                Ok(None) => (Verdict::Pass, None),
                Ok(Some(reason)) => (Verdict::Fail, Some(format!("after a restart of the store {reason}"))),
                Err(reason) => (Verdict::Fail, Some(format!("the store did not come back from a restart: {reason}"))),
            };
            artifact.restarted = true;
            report.verdict = report.verdict.max(artifact.verdict);
        }
    }

    async fn ask(&self, report: &mut DrillReport, made: &BTreeMap<ArtifactName, Made>, observer: &(dyn Fn(String) + Send + Sync)) {
        for check in &self.checks {
            let passed = report.artifacts.iter().any(|artifact| artifact.artifact == check.artifact && artifact.verdict == Verdict::Pass);
            let (verdict, reason) = match made.get(&check.artifact).filter(|_| passed) {
                Some(store) => {
                    observer(format!("asking {}", check.name));
                    self.answer(check, store).await
                }
                None => (Verdict::CouldNotVerify, Some(format!("`{}` was not restored", check.artifact))),
            };
            report.verdict = report.verdict.max(verdict);
            report.checks.push(Checked { check: check.name.clone(), artifact: check.artifact.clone(), verdict, reason });
        }
    }

    async fn answer(&self, check: &Check, store: &Made) -> (Verdict, Option<String>) {
        let (code, output) = match self.ask_store(check, store).await {
            Ok(answer) => answer,
            Err(reason) => return (Verdict::CouldNotVerify, Some(reason)),
        };
        let said = output.chars().take(SAID_BYTES).collect::<String>();
        if code != Some(0) {
            let code = code.map_or_else(|| "a signal".to_owned(), |code| format!("code {code}"));
            return (Verdict::Fail, Some(format!("it ended with {code}: {}", said.trim())));
        }
        match &check.contains {
            Some(wanted) if !output.contains(wanted) => {
                (Verdict::Fail, Some(format!("its output does not hold `{wanted}`: {}", said.trim())))
            }
            _ => (Verdict::Pass, None),
        }
    }

    async fn ask_store(&self, check: &Check, store: &Made) -> Result<(Option<i64>, String), String> {
        match (&store.container, &store.directory, self.room) {
            (Some(container), _, Some(room)) => {
                let answer = room.runtime().exec(container, &check.command, check.timeout).await;
                answer.map(|answer| (Some(answer.exit_code), answer.output)).map_err(|error| one_line(&error))
            }
            (_, Some(directory), _) => self.ask_directory(check, directory).await,
            _ => Err("there is nothing to ask".to_owned()),
        }
    }

    async fn ask_directory(&self, check: &Check, directory: &Path) -> Result<(Option<i64>, String), String> {
        let (program, arguments) = check.command.split_first().ok_or_else(|| "it has no words".to_owned())?;
        let request = ExecRequest {
            program: PathBuf::from(program),
            arguments: arguments.to_vec(),
            environment: self.environment.clone(),
            stdin: None,
            directory: Some(directory.to_owned()),
            timeout: check.timeout,
            max_output_bytes: 64 * 1024,
        };
        let answer = exec::run(&request).await.map_err(|error| one_line(&error))?;
        let output = String::from_utf8_lossy(&[answer.stdout, answer.stderr].concat()).into_owned();
        Ok((answer.status.code().map(i64::from), output))
    }
}

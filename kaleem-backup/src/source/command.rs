//! Anything that a command writes out and another reads in, on this host or in a container.
//!
//! Its exit code is believed, and only that: a command that is killed, or ends with anything but 0, makes no backup. What
//! it wrote is the artifact; nothing is known of what is in it. A restore feeds it to the other command, whose exit code is
//! believed in the same way: such a command takes care by itself not to destroy what it replaces.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kaleem_core::backup::{
    BackupSource, ByteSender, ByteStream, Consistency, Contents, Exported, RestoreMode, SourceError, SourceIdentity, SourceKind, pipe,
};
use kaleem_core::exec::{ExecRequest, PipedError, run_piped};
use kaleem_core::names::{ArtifactName, ContainerName};
use kaleem_core::runtime::{Console, RuntimeError};
use tokio::io::AsyncReadExt;

use crate::format::output::{self, Output};
use crate::words::shown;

/// As much of what a command says is kept.
const ERROR_BYTES: usize = 16 * 1024;

/// Where commands run.
#[derive(Clone)]
pub enum CommandPlace {
    /// On this host, with exactly this environment, in this directory or that of this process.
    Host {
        /// All variables, `PATH` among them.
        environment: BTreeMap<String, String>,
        /// Where they start.
        directory: Option<PathBuf>,
    },
    /// In a running container.
    Container {
        /// The engine.
        console: Arc<dyn Console>,
        /// The container.
        container: ContainerName,
    },
}

impl std::fmt::Debug for CommandPlace {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Host { environment, directory } => {
                let names: Vec<&String> = environment.keys().collect();
                out.debug_struct("Host").field("environment", &names).field("directory", directory).finish()
            }
            Self::Container { container, .. } => out.debug_struct("Container").field("container", container).finish_non_exhaustive(),
        }
    }
}

/// What is run. The first word of each is the program; every user of the host can read the words, so no secret belongs there.
#[derive(Clone, Debug)]
pub struct Commands {
    /// Writes everything to its standard output.
    pub export: Vec<String>,
    /// Reads that from its standard input, and puts it back; `None` where nothing can.
    pub restore: Option<Vec<String>>,
    /// Ends with 0 when there is nothing in the place that a restore goes to; `None` where nothing can tell, so that a
    /// restore must be told to replace.
    pub is_empty: Option<Vec<String>>,
    /// How long each may run.
    pub timeout: Duration,
}

/// A [`BackupSource`] of what a command writes.
#[derive(Clone, Debug)]
pub struct CommandSource {
    identity: SourceIdentity,
    place: CommandPlace,
    commands: Commands,
    /// Whether nothing is there for certain, since the place was made for this.
    fresh: bool,
}

impl CommandSource {
    /// A source; nothing is run yet.
    pub fn new(name: ArtifactName, place: CommandPlace, commands: Commands) -> Self {
        Self { identity: SourceIdentity { name, kind: SourceKind::Command }, place, commands, fresh: false }
    }

    /// A source in a place that was made for this restore, so that nothing can be there yet; nothing is run yet.
    pub fn into_scratch(name: ArtifactName, place: CommandPlace, commands: Commands) -> Self {
        Self { fresh: true, ..Self::new(name, place, commands) }
    }

    fn store(&self, command: &[String]) -> String {
        let program = command.first().map_or("", String::as_str);
        match &self.place {
            CommandPlace::Host { .. } => format!("the command `{program}`"),
            CommandPlace::Container { container, .. } => format!("the command `{program}` in {container}"),
        }
    }

    /// Runs a command; answers how it ended, in words, when that was not well.
    async fn run(&self, command: &[String], input: Option<ByteStream>, out: &mut ByteSender) -> Result<Option<String>, SourceError> {
        let store = self.store(command);
        let Some((program, arguments)) = command.split_first() else {
            return Err(SourceError::Unsupported { what: self.identity.name.to_string(), reason: "its command has no words".to_owned() });
        };
        match &self.place {
            CommandPlace::Host { environment, directory } => {
                let request = ExecRequest {
                    program: PathBuf::from(program),
                    arguments: arguments.to_vec(),
                    environment: environment.clone(),
                    stdin: None,
                    directory: directory.clone(),
                    timeout: self.commands.timeout,
                    max_output_bytes: ERROR_BYTES,
                };
                let ended = run_piped(&request, input, out).await.map_err(|error| match error {
                    PipedError::Input { source, .. } => SourceError::Input { source },
                    PipedError::Output { source, .. } => SourceError::Output { source },
                    other => SourceError::Failed { store, doing: "running".to_owned(), source: Box::new(other) },
                })?;
                let said = shown(&ended.stderr);
                Ok((!ended.status.success()).then(|| format!("it ended with {}: {said}", ended.status)))
            }
            CommandPlace::Container { console, container } => {
                let ended = console.attach(container, command, input, out, self.commands.timeout).await.map_err(|error| match error {
                    RuntimeError::StreamBroken { side: "input", source, .. } => SourceError::Input { source },
                    RuntimeError::StreamBroken { source, .. } => SourceError::Output { source },
                    other => SourceError::Failed { store, doing: "running".to_owned(), source: Box::new(other) },
                })?;
                let said = shown(ended.output.as_bytes());
                Ok((ended.exit_code != 0).then(|| format!("it ended with code {}: {said}", ended.exit_code)))
            }
        }
    }

    fn ended_badly(&self, command: &[String], reason: String) -> SourceError {
        SourceError::Failed { store: self.store(command), doing: "running".to_owned(), source: reason.into() }
    }

    /// Runs the export; what it writes is counted, and passed on where somebody takes it.
    async fn write(&self, mut out: Option<&mut ByteSender>) -> Result<Contents, SourceError> {
        let (mut sender, mut reader) = pipe();
        let running = async {
            let ended = self.run(&self.commands.export, None, &mut sender).await;
            match &ended {
                // As the reader is here, nobody can be gone.
                Ok(_) => drop(sender.finish().await),
                Err(_) => drop(sender),
            }
            ended
        };
        let taking = async {
            let (mut output, mut chunk) = (Output::default(), vec![0; 256 * 1024]);
            loop {
                let read = match reader.read(&mut chunk).await {
                    Ok(0) => return Ok(output),
                    // The command's own end says why.
                    Err(_) => return Ok(output),
                    Ok(read) => read,
                };
                let bytes = chunk.get(..read).unwrap_or_default();
                output.add(bytes);
                if let Some(out) = &mut out {
                    out.send(bytes.to_vec()).await.map_err(|source| SourceError::Output { source })?;
                }
            }
        };
        let (ended, output) = tokio::try_join!(running, taking)?;
        match ended {
            None => Ok(output.contents()),
            Some(reason) => Err(self.ended_badly(&self.commands.export, reason)),
        }
    }

    /// Runs a command whose output is of no interest.
    async fn run_quietly(&self, command: &[String], input: Option<ByteStream>) -> Result<Option<String>, SourceError> {
        let (mut sender, mut reader) = pipe();
        let running = async {
            let ended = self.run(command, input, &mut sender).await;
            drop(sender);
            ended
        };
        let mut ignored = tokio::io::sink();
        let (ended, _) = tokio::join!(running, tokio::io::copy(&mut reader, &mut ignored));
        ended
    }
}

#[async_trait]
impl BackupSource for CommandSource {
    fn identity(&self) -> &SourceIdentity {
        &self.identity
    }

    async fn export(&self, out: &mut ByteSender) -> Result<Exported, SourceError> {
        let contents = self.write(Some(out)).await?;
        let notes = vec!["nothing is known of what is in it but its length and digest".to_owned()];
        Ok(Exported { contents, consistency: Consistency::None, notes })
    }

    async fn verify(&self, input: ByteStream) -> Result<Contents, SourceError> {
        output::verify(input).await
    }

    async fn restore(&self, input: ByteStream, mode: RestoreMode) -> Result<Contents, SourceError> {
        let Some(command) = &self.commands.restore else {
            let reason = "no command is named that would put it back".to_owned();
            return Err(SourceError::Unsupported { what: self.identity.name.to_string(), reason });
        };
        if mode == RestoreMode::IntoEmpty && !self.fresh {
            let empty = match &self.commands.is_empty {
                Some(command) => self.run_quietly(command, None).await?.is_none(),
                None => false,
            };
            if !empty {
                return Err(SourceError::NotEmpty { what: self.store(command) });
            }
        }
        // What was fed is counted: a command that does not read to the end has not put everything back.
        let (mut sender, reader) = pipe();
        let feeding = async {
            let (mut output, mut input, mut chunk) = (Output::default(), input, vec![0; 256 * 1024]);
            loop {
                match input.read(&mut chunk).await {
                    Ok(0) => {
                        // A command that is gone has said how it ended.
                        drop(sender.finish().await);
                        return Ok(Some(output));
                    }
                    Ok(read) => {
                        let bytes = chunk.get(..read).unwrap_or_default().to_vec();
                        output.add(&bytes);
                        if sender.send(bytes).await.is_err() {
                            return Ok(None);
                        }
                    }
                    Err(source) => {
                        let text = source.to_string();
                        sender.fail(std::io::Error::new(source.kind(), text)).await;
                        return Err(SourceError::Input { source });
                    }
                }
            }
        };
        let (fed, ended) = tokio::join!(feeding, self.run_quietly(command, Some(Box::pin(reader))));
        let fed = fed?;
        if let Some(reason) = ended? {
            return Err(self.ended_badly(command, reason));
        }
        let reason = "it ended well before it had read everything".to_owned();
        fed.map(Output::contents).ok_or(SourceError::Differs { what: self.store(command), reason })
    }

    async fn inspect(&self) -> Result<Contents, SourceError> {
        self.write(None).await
    }
}

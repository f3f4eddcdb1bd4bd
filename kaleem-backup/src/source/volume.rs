//! A volume of the container engine, through a helper container which has it mounted and nothing else: no network, no rights
//! beyond root's own, one command at a time.
//!
//! The helper runs an image of the project, which must have `sh`, `find` and GNU tar: others know neither extended attributes nor
//! holes. Files with holes are written in its format PAX 1.0, which [`tree`] reads, and come back with them. A restore unpacks
//! beside what is there, inside the volume, reads that back, and only then moves the one away and the other in; it can be repeated
//! after a death.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kaleem_core::backup::{
    BackupSource, ByteSender, ByteStream, Consistency, Contents, Exported, RestoreMode, SourceError, SourceIdentity, SourceKind, pipe,
};
use kaleem_core::definition::{Definition, Healthcheck, Mount, MountSource, NetworkMode, RestartPolicy};
use kaleem_core::image::PinnedImage;
use kaleem_core::names::{ArtifactName, ContainerName, NameError, ProjectName, ServiceName, VolumeName};
use kaleem_core::runtime::{InstanceSpec, OwnedContainer, Runtime, RuntimeError, StopPolicy, kaleem_labels};
use tokio::io::AsyncReadExt;

use crate::format::tree;
use crate::words::shown;

/// Where the volume is in the helper.
const PLACE: &str = "/kaleem-volume";
/// Beside what is there, while it is not yet in its place, and what was there, while it is not yet gone.
const NEW: &str = "/kaleem-volume/.kaleem-new";
/// How long one command in the helper may run.
const COMMAND: Duration = Duration::from_secs(24 * 3600);
/// Ends a script whose `tar` is another one, before anything is done.
const GNU_TAR: &str = r#"case "$(tar --version 2>&1)" in *"GNU tar"*) ;; *) echo "this image has no GNU tar, which a volume needs: name in `service` a service whose image has it, such as one made from Debian or Ubuntu" >&2; exit 69;; esac; "#;
/// Memory and processes of a helper, at most.
const MEMORY_BYTES: u64 = 1 << 30;
const PROCESSES: i64 = 64;
/// The process that made a helper, and when it began.
const OWNER: &str = "kaleem.owner";

/// A [`BackupSource`] of a volume.
pub struct VolumeSource {
    identity: SourceIdentity,
    runtime: Arc<dyn Runtime>,
    /// Whose label the helpers carry.
    helpers: ProjectName,
    volume: VolumeName,
    service: ServiceName,
    image: PinnedImage,
}

/// A helper container, which [`VolumeSource::leave`] takes away.
struct Helper {
    name: ContainerName,
}

/// When a process that lives began, in ticks since the boot: with its number this is the process itself, because numbers come again.
fn started_at(process: u64) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name of the program ends at the last parenthesis; the state comes next, and the start is the 22nd field (proc(5)).
    let mut fields = stat.rsplit(')').next()?.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

impl VolumeSource {
    /// A source of `volume`, which helpers read that run `image` of `service`. Nothing is made yet.
    ///
    /// # Errors
    /// [`NameError`] when the project's name leaves no room for another.
    pub fn new(
        name: ArtifactName,
        runtime: Arc<dyn Runtime>,
        project: &ProjectName,
        volume: VolumeName,
        (service, image): (ServiceName, PinnedImage),
    ) -> Result<Self, NameError> {
        let short: String = project.as_str().chars().take(48).collect();
        let identity = SourceIdentity { name, kind: SourceKind::Files };
        Ok(Self { identity, runtime, helpers: format!("{short}-kaleem-helper").parse()?, volume, service, image })
    }

    fn store(&self) -> String {
        format!("the volume {}", self.volume)
    }

    fn failed(&self, doing: &str) -> impl Fn(RuntimeError) -> SourceError {
        let (store, doing) = (self.store(), doing.to_owned());
        move |error| match error {
            RuntimeError::StreamBroken { side: "input", source, .. } => SourceError::Input { source },
            RuntimeError::StreamBroken { source, .. } => SourceError::Output { source },
            other => SourceError::Failed { store: store.clone(), doing: doing.clone(), source: Box::new(other) },
        }
    }

    /// Removes helpers whose process is gone.
    async fn reap(&self) -> Result<(), RuntimeError> {
        for instance in self.runtime.list(&self.helpers).await? {
            let mut parts = instance.name.as_str().rsplit('-').map(|part| part.parse::<u64>().ok());
            let (started, process) = (parts.next().flatten(), parts.next().flatten());
            let lives = started.is_some() && process.and_then(started_at) == started;
            if !lives {
                self.leave(&Helper { name: instance.name }).await?;
            }
        }
        Ok(())
    }

    async fn enter(&self, read_only: bool) -> Result<Helper, SourceError> {
        let failed = self.failed("making a helper container");
        self.reap().await.map_err(&failed)?;
        let known = std::slice::from_ref(&self.volume);
        let process = u64::from(std::process::id());
        let process = format!("{process}-{}", started_at(process).unwrap_or_default());
        if !self.runtime.volumes(known).await.map_err(&failed)?.contains_key(&self.volume) {
            return Err(SourceError::Unreachable { store: self.store(), source: "there is no such volume on the engine".into() });
        }
        let text = format!("{}-{}-{process}", self.helpers, self.identity.name);
        let name: ContainerName = text
            .parse()
            .map_err(|error: NameError| SourceError::Unsupported { what: self.identity.name.to_string(), reason: error.to_string() })?;
        let mut definition = Definition {
            entrypoint: Some(vec!["sleep".to_owned()]),
            command: Some(vec!["86400".to_owned()]),
            user: Some("0:0".to_owned()),
            network: NetworkMode::None,
            read_only: true,
            mounts: vec![Mount {
                target: PLACE.to_owned(),
                read_only,
                source: MountSource::Volume { name: self.volume.clone(), nocopy: true, subpath: None },
            }],
            healthcheck: Some(Healthcheck::DISABLED),
            ..Definition::default()
        };
        definition.resources.memory_bytes = Some(MEMORY_BYTES);
        definition.resources.pids_limit = Some(PROCESSES);
        let labels = [(kaleem_labels::PROJECT, self.helpers.to_string()), (OWNER, process)];
        let spec = InstanceSpec {
            name: name.clone(),
            project: self.helpers.clone(),
            service: self.service.clone(),
            image: self.image.clone(),
            labels: labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            definition: Arc::new(definition),
            companions: BTreeMap::new(),
        };
        let helper = Helper { name };
        let started = async {
            self.runtime.create(&spec).await?;
            self.runtime.start(&self.owned(&helper), RestartPolicy::No).await
        };
        match started.await {
            Ok(()) => Ok(helper),
            Err(error) => {
                // Whether it is there or not, the next one removes it too.
                self.leave(&helper).await.ok();
                Err(failed(error))
            }
        }
    }

    fn owned(&self, helper: &Helper) -> OwnedContainer {
        OwnedContainer { project: self.helpers.clone(), name: helper.name.clone() }
    }

    async fn leave(&self, helper: &Helper) -> Result<(), RuntimeError> {
        let container = self.owned(helper);
        self.runtime.stop(&container, &StopPolicy { signal: Some("KILL".to_owned()), grace: Duration::from_secs(1) }).await?;
        self.runtime.remove(&container).await
    }

    /// Writes what is below `place` in the helper as tar; what comes is passed on where somebody takes it.
    async fn pack(&self, helper: &Helper, place: &str, mut out: Option<&mut ByteSender>) -> Result<(Contents, Vec<String>), SourceError> {
        // Names come in one order, so that hard links lead to the same first name each time; the root itself is not of the tree.
        let script = format!(
            "{GNU_TAR}cd {place} && find . -mindepth 1 -maxdepth 1 ! -name '.kaleem-*' -print0 | LC_ALL=C sort -z | \
             tar --create --format=posix --sparse --sparse-version=1.0 --xattrs --xattrs-include='*' --numeric-owner --sort=name \
             --null --files-from=- --file=-; exit $?"
        );
        let command = ["sh", "-c", &script].map(str::to_owned);
        let (mut sender, mut reader) = pipe();
        let (mut copy, copied) = pipe();
        let running = async {
            let ended = self.runtime.attach(&helper.name, &command, None, &mut sender, COMMAND).await;
            match &ended {
                Ok(_) => drop(sender.finish().await),
                Err(_) => drop(sender),
            }
            ended.map_err(self.failed("being read"))
        };
        let taking = async move {
            let mut chunk = vec![0; 256 * 1024];
            loop {
                // The command's own end says why a stream broke; the copy then breaks with it.
                let Ok(read) = reader.read(&mut chunk).await else { return Ok(()) };
                if read == 0 {
                    copy.finish().await.ok();
                    return Ok(());
                }
                let bytes = chunk.get(..read).unwrap_or_default();
                if let Some(out) = &mut out {
                    out.send(bytes.to_vec()).await.map_err(|source| SourceError::Output { source })?;
                }
                // A reader that has given up says why.
                copy.send(bytes.to_vec()).await.ok();
            }
        };
        let looking = async { Ok(tree::verify(Box::pin(copied)).await) };
        let (ended, (), looked) = tokio::try_join!(running, taking, looking)?;
        let said = shown(ended.output.as_bytes());
        match ended.exit_code {
            0 => Ok((looked?, Vec::new())),
            // What GNU tar ends with when files changed while it read them.
            1 => Ok((looked?, said.lines().map(str::to_owned).collect())),
            code => {
                let reason = format!("`tar` in {} ended with code {code}: {said}", self.image.image);
                Err(SourceError::Failed { store: self.store(), doing: "being read".to_owned(), source: reason.into() })
            }
        }
    }

    /// Runs a script in the helper that must end well.
    async fn script(&self, helper: &Helper, doing: &str, script: &str) -> Result<String, SourceError> {
        let command = ["sh", "-c", script].map(str::to_owned);
        let ended = self.runtime.exec(&helper.name, &command, COMMAND).await.map_err(self.failed(doing))?;
        if ended.exit_code == 0 {
            return Ok(ended.output);
        }
        let reason = format!("it ended with code {}: {}", ended.exit_code, shown(ended.output.as_bytes()));
        Err(SourceError::Failed { store: self.store(), doing: doing.to_owned(), source: reason.into() })
    }

    /// Unpacks `input` beside what is there; answers what was in it.
    async fn unpack(&self, helper: &Helper, mut input: ByteStream) -> Result<Contents, SourceError> {
        let script = format!(
            "tar --extract --preserve-permissions --same-owner --numeric-owner --xattrs --xattrs-include='*' --directory={NEW} --file=-"
        );
        let command = ["sh", "-c", &script].map(str::to_owned);
        let (mut sender, reader) = pipe();
        let (mut copy, copied) = pipe();
        let (mut nothing, mut ignored) = pipe();
        let feeding = async {
            let mut chunk = vec![0; 256 * 1024];
            loop {
                match input.read(&mut chunk).await {
                    Ok(0) => {
                        copy.finish().await.ok();
                        sender.finish().await.ok();
                        return;
                    }
                    Ok(read) => {
                        let bytes = chunk.get(..read).unwrap_or_default();
                        copy.send(bytes.to_vec()).await.ok();
                        sender.send(bytes.to_vec()).await.ok();
                    }
                    Err(source) => {
                        let again = || std::io::Error::new(source.kind(), source.to_string());
                        copy.fail(again()).await;
                        sender.fail(again()).await;
                        return;
                    }
                }
            }
        };
        let running = async {
            let ended = self.runtime.attach(&helper.name, &command, Some(Box::pin(reader)), &mut nothing, COMMAND).await;
            drop(nothing);
            ended
        };
        let mut sink = tokio::io::sink();
        let draining = tokio::io::copy(&mut ignored, &mut sink);
        let ((), ended, looked, _) = tokio::join!(feeding, running, tree::verify(Box::pin(copied)), draining);
        // What is wrong with the bytes says more than what tar says of them.
        let wanted = looked?;
        let ended = ended.map_err(self.failed("being restored"))?;
        if ended.exit_code != 0 {
            let reason = format!("`tar` ended with code {}: {}", ended.exit_code, shown(ended.output.as_bytes()));
            return Err(SourceError::Failed { store: self.store(), doing: "being restored".to_owned(), source: reason.into() });
        }
        Ok(wanted)
    }

    async fn put_back(&self, helper: &Helper, input: ByteStream, mode: RestoreMode) -> Result<Contents, SourceError> {
        // A restore that died while it exchanged the two had read back the new one: what is left of the old goes first.
        let found = self
            .script(helper, "being looked at", &format!("find {PLACE} -mindepth 1 -maxdepth 1 ! -name '.kaleem-*' | head -n 1"))
            .await?;
        if mode == RestoreMode::IntoEmpty && !found.trim().is_empty() {
            return Err(SourceError::NotEmpty { what: self.store() });
        }
        self.script(helper, "being prepared", &format!("{GNU_TAR}rm -rf {NEW} && mkdir {NEW}")).await?;
        let prepared = async {
            let wanted = self.unpack(helper, input).await?;
            let (found, _) = self.pack(helper, NEW, None).await?;
            match crate::set::difference(&found, &wanted) {
                None => Ok(()),
                Some(reason) => Err(SourceError::Differs { what: self.store(), reason }),
            }
        };
        if let Err(error) = prepared.await {
            self.script(helper, "being tidied up", &format!("rm -rf {NEW}")).await.ok();
            return Err(error);
        }
        let exchange = format!(
            "set -e; cd {PLACE}; mkdir -p .kaleem-old; \
             find . -mindepth 1 -maxdepth 1 ! -name '.kaleem-*' -exec mv -f -t .kaleem-old -- {{}} +; \
             find .kaleem-new -mindepth 1 -maxdepth 1 -exec mv -t . -- {{}} +; \
             sync; rm -rf .kaleem-new .kaleem-old"
        );
        self.script(helper, "being put in its place", &exchange).await?;
        Ok(self.pack(helper, PLACE, None).await?.0)
    }
}

#[async_trait]
impl BackupSource for VolumeSource {
    fn identity(&self) -> &SourceIdentity {
        &self.identity
    }

    async fn export(&self, out: &mut ByteSender) -> Result<Exported, SourceError> {
        let helper = self.enter(true).await?;
        let packed = self.pack(&helper, PLACE, Some(out)).await;
        let left = self.leave(&helper).await;
        let (contents, mut notes) = packed?;
        let consistency = if notes.is_empty() { Consistency::PerCollection } else { Consistency::None };
        if left.is_err() {
            notes.push(format!("the helper container {} could not be removed; the next backup removes it", helper.name));
        }
        Ok(Exported { contents, consistency, notes })
    }

    async fn verify(&self, input: ByteStream) -> Result<Contents, SourceError> {
        tree::verify(input).await
    }

    async fn restore(&self, input: ByteStream, mode: RestoreMode) -> Result<Contents, SourceError> {
        let helper = self.enter(false).await?;
        let restored = self.put_back(&helper, input, mode).await;
        self.leave(&helper).await.ok();
        restored
    }

    async fn inspect(&self) -> Result<Contents, SourceError> {
        let helper = self.enter(true).await?;
        let packed = self.pack(&helper, PLACE, None).await;
        self.leave(&helper).await.ok();
        Ok(packed?.0)
    }
}

//! Commands that write out and read in what no other source knows: on this host, or in the container of a service.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kaleem_core::backup::{BackupSource, SourceIdentity, SourceKind};
use kaleem_core::config::settings::backup::SourceSettings;
use kaleem_core::names::{ArtifactName, ContainerName, ServiceName};
use kaleem_core::runtime::InstanceStatus;

use super::{SetUpError, Surroundings, variable};
use crate::source::away::AwaySource;
use crate::source::command::{CommandPlace, CommandSource, Commands};

/// How long a command may run where nothing is said.
const COMMAND: Duration = Duration::from_secs(3600);
/// What a command on this host is given of the caller's environment without being asked: no secret is in these.
pub(super) const GIVEN: [&str; 8] = ["PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "DOCKER_HOST"];

/// The running container of a service, the first in order of numbers.
pub(super) fn container(around: &Surroundings<'_>, service: &ServiceName) -> Option<ContainerName> {
    let running = around.instances.iter().filter(|instance| {
        instance.service == *service && instance.number > 0 && !instance.oneoff && instance.state.status == InstanceStatus::Running
    });
    running.min_by_key(|instance| instance.number).map(|instance| instance.name.clone())
}

pub(super) fn source(
    around: &Surroundings<'_>,
    name: &ArtifactName,
    said: &SourceSettings,
    notes: &mut Vec<String>,
) -> Result<Arc<dyn BackupSource>, SetUpError> {
    if let Some(service) = &said.service {
        return Ok(in_container(around, name, service, commands(said), notes));
    }
    let place = CommandPlace::Host { environment: environment(around, name, said)?, directory: Some(around.project.directory.clone()) };
    Ok(Arc::new(CommandSource::new(name.clone(), place, commands(said))))
}

/// What is run in the container of a service.
pub(super) fn in_container(
    around: &Surroundings<'_>,
    name: &ArtifactName,
    service: &ServiceName,
    commands: Commands,
    notes: &mut Vec<String>,
) -> Arc<dyn BackupSource> {
    match (around.runtime.clone(), container(around, service)) {
        (Some(console), Some(container)) => {
            Arc::new(CommandSource::new(name.clone(), CommandPlace::Container { console, container }, commands))
        }
        (runtime, _) => {
            let reason = match runtime {
                Some(_) => format!("no container of `{service}` is running"),
                None => "the container engine does not answer".to_owned(),
            };
            notes.push(format!("`{name}` cannot be reached now: {reason}"));
            let identity = SourceIdentity { name: name.clone(), kind: SourceKind::Command };
            Arc::new(AwaySource::new(identity, format!("the service `{service}`"), reason))
        }
    }
}

/// What is run, as `kaleem.toml` says.
pub(super) fn commands(said: &SourceSettings) -> Commands {
    let some = |words: &Vec<String>| (!words.is_empty()).then(|| words.clone());
    Commands {
        export: said.command.clone(),
        restore: some(&said.restore_command),
        is_empty: some(&said.empty_command),
        timeout: said.timeout.map_or(COMMAND, |time| time.0),
    }
}

/// What every command on this host is given.
pub(super) fn given(around: &Surroundings<'_>) -> BTreeMap<String, String> {
    GIVEN.iter().filter_map(|given| Some(((*given).to_owned(), around.environment.get(*given)?.clone()))).collect()
}

fn environment(around: &Surroundings<'_>, name: &ArtifactName, said: &SourceSettings) -> Result<BTreeMap<String, String>, SetUpError> {
    let mut environment = given(around);
    for wanted in &said.variables {
        let value = variable(around, wanted, &format!("what the command of `{name}` is given"))?;
        environment.insert(wanted.clone(), value.expose().clone());
    }
    Ok(environment)
}

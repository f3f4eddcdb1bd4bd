//! Containers of the fake, seen from outside.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::{FakeOperation, FakeRuntime, FakeView};
use crate::names::ContainerName;
use crate::runtime::{ContainerFile, ContainerFiles, Inside, InstanceStatus, Peek, Process, RuntimeError};

impl FakeRuntime {
    fn view(&self, container: &ContainerName) -> Option<FakeView> {
        let on_peek = self.script().on_peek.clone();
        on_peek.and_then(|view| view(container))
    }
}

fn below(files: ContainerFiles, path: &str, most_bytes: usize) -> ContainerFiles {
    let directory = format!("{}/", path.trim_end_matches('/'));
    let mut room = most_bytes;
    let mut fits = |file: &ContainerFile| match file {
        ContainerFile::Text(text) => room.checked_sub(text.len()).is_some_and(|left| {
            room = left;
            true
        }),
        ContainerFile::Link(_) => true,
    };
    files.into_iter().filter(|(name, _)| name == path || name.starts_with(&directory)).filter(|(_, file)| fits(file)).collect()
}

#[async_trait]
impl Peek for FakeRuntime {
    async fn inside(&self, containers: &[ContainerName]) -> Result<BTreeMap<ContainerName, Inside>, RuntimeError> {
        let running = self.call(FakeOperation::Inside, &"containers", |world| {
            let runs = |name: &&ContainerName| world.containers.get(name).is_some_and(|found| found.status == InstanceStatus::Running);
            let command = |name: &ContainerName| world.containers.get(name).and_then(|found| found.definition.command.clone());
            Ok(containers.iter().filter(runs).map(|name| (name.clone(), command(name))).collect::<Vec<_>>())
        })?;
        let plain = |command: Option<Vec<String>>| {
            let words = command.filter(|words| !words.is_empty()).unwrap_or_else(|| vec!["app".to_owned()]);
            Inside { processes: vec![Process { pid: 1, words }], sockets: Some(Vec::new()) }
        };
        Ok(running
            .into_iter()
            .map(|(name, command)| {
                let inside = self.view(&name).map_or_else(|| plain(command), |view| view.inside);
                (name, inside)
            })
            .collect())
    }

    async fn files(&self, container: &ContainerName, path: &str, most_bytes: usize) -> Result<ContainerFiles, RuntimeError> {
        let own = self.call(FakeOperation::Files, container, |world| {
            let files = world.containers.get(container).map(|found| found.definition.files.clone()).unwrap_or_default();
            Ok(files.into_iter().map(|file| (file.path, ContainerFile::Text(file.content))).collect::<ContainerFiles>())
        })?;
        Ok(below(self.view(container).map_or(own, |view| view.files), path, most_bytes))
    }

    async fn mounted_files(&self, container: &ContainerName, path: &str, most_bytes: usize) -> Result<ContainerFiles, RuntimeError> {
        self.call(FakeOperation::MountedFiles, container, |_| Ok(()))?;
        Ok(below(self.view(container).map(|view| view.mounted).unwrap_or_default(), path, most_bytes))
    }
}

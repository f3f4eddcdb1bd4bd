//! Questions about containers, and what is inside them.

use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::io::AsyncReadExt as _;

use super::{Check, Complaint, Stage, at_once, ensure, named, patiently, told};
use crate::definition::{ContainerPort, Definition, InjectedFile, NetworkMode, PortBinding, Protocol, RestartPolicy};
use crate::names::ReleaseId;
use crate::pipe::{ByteStream, pipe};
use crate::runtime::{ContainerFile, InstanceHealth, InstanceStatus, LogLine, LogRange, OwnedContainer, RuntimeError, compose_labels};

pub(super) fn checks() -> Vec<Check> {
    named![
        list_has_every_container_of_the_project_sorted_and_no_other,
        inspect_of_a_missing_container_is_none,
        inspect_tells_what_the_labels_say,
        inspect_tells_how_a_container_ended,
        inspect_tells_of_health,
        drift_names_what_differs_and_never_a_value,
        foreign_ports_are_those_of_running_containers_of_others,
        engine_tells_who_it_is,
        inside_tells_of_those_that_run,
        files_are_copied_out_of_a_container,
        exec_gives_code_and_output,
        exec_ends_after_its_timeout,
        attach_gives_code_and_passes_output_on,
        exec_in_a_missing_or_stopped_container_is_refused,
        logs_have_the_lines_of_both_streams,
        logs_of_a_container_that_never_started_are_empty,
        following_logs_end_with_the_container,
    ]
}

/// Publishes a port of the host on the engine's own bridge.
pub(super) fn published(port: u16) -> Definition {
    let container = ContainerPort { port: 8080, protocol: Protocol::Tcp };
    let host_ip = Some(std::net::Ipv4Addr::LOCALHOST.into());
    let ports = vec![PortBinding { container, host_ip, host_ports: Some((port, port)) }];
    Definition { ports, network: NetworkMode::Bridge, ..Definition::default() }
}

const ALL: LogRange = LogRange { tail: None, follow: false, since: None };

async fn lines(stage: &Stage, service: &str, range: &LogRange) -> Result<Vec<LogLine>, Complaint> {
    let stream = stage.runtime.logs(&stage.name(service)?, range).await.map_err(|error| told(&error))?;
    stream.try_collect().await.map_err(|error| told(&error))
}

async fn list_has_every_container_of_the_project_sorted_and_no_other(stage: &Stage) -> Result<(), Complaint> {
    let mut oneoff = stage.spec("b-run", &stage.runs, Definition::default())?;
    oneoff.labels.insert(compose_labels::ONEOFF.to_owned(), "True".to_owned());
    for spec in [
        stage.spec("c", &stage.runs, Definition::default())?,
        oneoff,
        stage.spec("a", &stage.runs, Definition::default())?,
        stage.spec_of(&stage.stranger, "d", &stage.runs, Definition::default())?,
    ] {
        stage.runtime.create(&spec).await.map_err(|error| told(&error))?;
    }
    stage.runtime.start(&stage.owned("c")?, RestartPolicy::No).await.map_err(|error| told(&error))?;
    let all = stage.runtime.list(&stage.project).await.map_err(|error| told(&error))?;
    let found: Vec<_> = all.iter().map(|instance| (instance.service.as_str(), instance.oneoff)).collect();
    ensure!(found == [("a", false), ("b-run", true), ("c", false)], "{found:?}");
    Ok(())
}

async fn inspect_of_a_missing_container_is_none(stage: &Stage) -> Result<(), Complaint> {
    let found = stage.runtime.inspect(&stage.name("nobody")?).await.map_err(|error| told(&error))?;
    ensure!(found.is_none(), "{found:?}");
    Ok(())
}

async fn inspect_tells_what_the_labels_say(stage: &Stage) -> Result<(), Complaint> {
    let spec = stage.spec("api", &stage.runs, Definition::default())?;
    stage.runtime.create(&spec).await.map_err(|error| told(&error))?;
    let found = stage.inspect("api").await?;
    ensure!(found.name == spec.name && found.service == spec.service && found.number == 1 && !found.oneoff, "{found:?}");
    ensure!(found.release == Some(ReleaseId::new(7)), "release {:?}", found.release);
    ensure!(found.digest.as_ref() == Some(&stage.runs.digest), "digest {:?}", found.digest);
    ensure!(found.definition.is_some_and(|id| spec.labels.values().any(|value| *value == id.0)), "the definition is another");
    let image = stage.runtime.image(&stage.runs.engine_reference()).await.map_err(|error| told(&error))?;
    ensure!(image.is_some_and(|image| image.id == found.image_id), "the image is another");
    Ok(())
}

async fn inspect_tells_how_a_container_ended(stage: &Stage) -> Result<(), Complaint> {
    stage.up("api", &stage.exits, Definition::default(), RestartPolicy::No).await?;
    let found = stage.eventually("api", "ended", |state| state.status == InstanceStatus::Exited).await?;
    ensure!(found.state.exit_code == Some(3), "exit code {:?}", found.state.exit_code);
    ensure!(!found.state.oom_killed && found.state.restart_count == 0, "{:?}", found.state);
    Ok(())
}

async fn inspect_tells_of_health(stage: &Stage) -> Result<(), Complaint> {
    stage.up("with", &stage.checked, Definition::default(), RestartPolicy::No).await?;
    stage.up("without", &stage.runs, Definition::default(), RestartPolicy::No).await?;
    stage.eventually("with", "healthy", |state| state.health == InstanceHealth::Healthy).await?;
    let without = stage.inspect("without").await?;
    ensure!(without.state.health == InstanceHealth::None, "{:?}", without.state);
    Ok(())
}

async fn drift_names_what_differs_and_never_a_value(stage: &Stage) -> Result<(), Complaint> {
    let environment = |level: &str| [("LEVEL".to_owned(), Some(level.to_owned())), ("SAME".to_owned(), Some("1".to_owned()))].into();
    let definition = Definition { environment: environment("info"), user: Some("1000".to_owned()), ..Definition::default() };
    let spec = stage.spec("api", &stage.runs, definition.clone())?;
    let answer = stage.runtime.drift(&spec).await;
    ensure!(matches!(answer, Err(RuntimeError::NotFound { .. })), "{answer:?}");
    stage.runtime.create(&spec).await.map_err(|error| told(&error))?;
    let none = stage.runtime.drift(&spec).await.map_err(|error| told(&error))?;
    ensure!(none.is_empty(), "it differs from its own spec in {none:?}");
    let other = Definition { environment: environment("hunter2"), user: Some("1001".to_owned()), ..definition };
    let names = stage.runtime.drift(&stage.spec("api", &stage.runs, other)?).await.map_err(|error| told(&error))?;
    ensure!(names == ["environment.LEVEL", "user"], "{names:?}");
    Ok(())
}

async fn foreign_ports_are_those_of_running_containers_of_others(stage: &Stage) -> Result<(), Complaint> {
    let theirs = stage.spec_of(&stage.stranger, "theirs", &stage.runs, published(stage.free_port))?;
    stage.runtime.create(&theirs).await.map_err(|error| told(&error))?;
    let owner = OwnedContainer { project: stage.stranger.clone(), name: theirs.name.clone() };
    stage.runtime.start(&owner, RestartPolicy::No).await.map_err(|error| told(&error))?;
    let is_told = |ports: &[(PortBinding, crate::names::ContainerName)]| {
        ports.iter().any(|(port, name)| *name == theirs.name && port.host_ports == Some((stage.free_port, stage.free_port)))
    };
    let ports = stage.runtime.foreign_ports(&stage.project).await.map_err(|error| told(&error))?;
    ensure!(is_told(&ports), "{ports:?}");
    let found = stage.inspect("theirs").await?;
    ensure!(found.ports == theirs.definition.ports, "it publishes {:?}", found.ports);
    let own = stage.runtime.foreign_ports(&stage.stranger).await.map_err(|error| told(&error))?;
    ensure!(!is_told(&own), "its own port is no foreign one");
    stage.runtime.stop(&owner, &at_once()).await.map_err(|error| told(&error))?;
    let after = stage.runtime.foreign_ports(&stage.project).await.map_err(|error| told(&error))?;
    ensure!(!is_told(&after), "a stopped container holds no port");
    Ok(())
}

async fn engine_tells_who_it_is(stage: &Stage) -> Result<(), Complaint> {
    let engine = stage.runtime.engine().await.map_err(|error| told(&error))?;
    ensure!(engine.os == "linux" && ["amd64", "arm64"].contains(&engine.architecture.as_str()), "{engine:?}");
    ensure!(engine.api_version.starts_with("1."), "{engine:?}");
    let root = stage.runtime.root_directory().await.map_err(|error| told(&error))?;
    ensure!(root.is_absolute(), "{}", root.display());
    ensure!(engine.version.split('.').all(|part| part.parse::<u32>().is_ok()), "{engine:?}");
    Ok(())
}

async fn inside_tells_of_those_that_run(stage: &Stage) -> Result<(), Complaint> {
    stage.up("api", &stage.runs, Definition::default(), RestartPolicy::No).await?;
    stage.runtime.create(&stage.spec("created", &stage.runs, Definition::default())?).await.map_err(|error| told(&error))?;
    let names = [stage.name("api")?, stage.name("created")?, stage.name("nobody")?];
    let found = stage.runtime.inside(&names).await.map_err(|error| told(&error))?;
    ensure!(found.keys().eq([&stage.name("api")?]), "{found:?}");
    ensure!(found.values().all(|inside| inside.processes.iter().any(|process| !process.words.is_empty())), "{found:?}");
    Ok(())
}

async fn files_are_copied_out_of_a_container(stage: &Stage) -> Result<(), Complaint> {
    let file = |path: &str, content: &str| InjectedFile { path: path.to_owned(), content: content.to_owned(), mode: 0o444, uid: 0, gid: 0 };
    let files = vec![file("/etc/own/a.conf", "one"), file("/etc/own/below/b.conf", "two"), file("/etc/other/c.conf", "three")];
    stage.up("api", &stage.runs, Definition { files, ..Definition::default() }, RestartPolicy::No).await?;
    let name = stage.name("api")?;
    let text = |text: &str| ContainerFile::Text(text.to_owned());
    let (one, two) = (("/etc/own/a.conf".to_owned(), text("one")), ("/etc/own/below/b.conf".to_owned(), text("two")));
    for (path, expected) in [("/etc/own", vec![one.clone(), two]), ("/etc/own/a.conf", vec![one]), ("/etc/nowhere", vec![])] {
        let found = stage.runtime.files(&name, path, 1 << 20).await.map_err(|error| told(&error))?;
        ensure!(found.clone().into_iter().eq(expected), "{path}: {found:?}");
    }
    let mounted = stage.runtime.mounted_files(&name, "/etc/own", 1 << 20).await.map_err(|error| told(&error))?;
    ensure!(mounted.is_empty(), "nothing is mounted there: {mounted:?}");
    Ok(())
}

async fn exec_gives_code_and_output(stage: &Stage) -> Result<(), Complaint> {
    stage.up("api", &stage.runs, Definition::default(), RestartPolicy::No).await?;
    let answer = stage.runtime.exec(&stage.name("api")?, &stage.command, Duration::from_secs(30)).await.map_err(|error| told(&error))?;
    ensure!(answer.exit_code == 5 && answer.output.trim_end() == "hello", "{answer:?}");
    Ok(())
}

async fn attach_gives_code_and_passes_output_on(stage: &Stage) -> Result<(), Complaint> {
    stage.up("api", &stage.runs, Definition::default(), RestartPolicy::No).await?;
    let (mut sender, mut reader) = pipe();
    let input: ByteStream = Box::pin(std::io::Cursor::new(vec![b'x'; 300_000]));
    let name = stage.name("api")?;
    let attaching = async {
        let answer = stage.runtime.attach(&name, &stage.command, Some(input), &mut sender, Duration::from_secs(30)).await;
        drop(sender.finish().await);
        answer.map_err(|error| told(&error))
    };
    let mut taken = String::new();
    let (answer, _) = tokio::join!(attaching, reader.read_to_string(&mut taken));
    let answer = answer?;
    ensure!(answer.exit_code == 5 && taken.trim_end() == "hello" && answer.output.is_empty(), "{answer:?}, {taken:?}");
    Ok(())
}

async fn exec_ends_after_its_timeout(stage: &Stage) -> Result<(), Complaint> {
    stage.up("api", &stage.runs, Definition::default(), RestartPolicy::No).await?;
    let answer = stage.runtime.exec(&stage.name("api")?, &stage.endless_command, Duration::from_millis(700)).await;
    ensure!(matches!(answer, Err(RuntimeError::ExecTimedOut { .. })), "{answer:?}");
    Ok(())
}

async fn exec_in_a_missing_or_stopped_container_is_refused(stage: &Stage) -> Result<(), Complaint> {
    let exec =
        || async { stage.runtime.exec(&stage.name("api")?, &stage.command, Duration::from_secs(30)).await.map_err(|error| told(&error)) };
    let name = stage.name("api")?;
    let missing = stage.runtime.exec(&name, &stage.command, Duration::from_secs(30)).await;
    ensure!(matches!(missing, Err(RuntimeError::NotFound { .. })), "{missing:?}");
    stage.runtime.create(&stage.spec("api", &stage.runs, Definition::default())?).await.map_err(|error| told(&error))?;
    let stopped = exec().await;
    ensure!(stopped.is_err(), "{stopped:?}");
    Ok(())
}

async fn logs_have_the_lines_of_both_streams(stage: &Stage) -> Result<(), Complaint> {
    let answer = stage.runtime.logs(&stage.name("api")?, &ALL).await.map(|_| ());
    ensure!(matches!(answer, Err(RuntimeError::NotFound { .. })), "{answer:?}");
    stage.up("api", &stage.exits, Definition::default(), RestartPolicy::No).await?;
    stage.eventually("api", "ended", |state| state.status == InstanceStatus::Exited).await?;
    let all = lines(stage, "api", &ALL).await?;
    let told = all.iter().find(|line| line.text == "leaving");
    ensure!(told.is_some_and(|line| line.stderr && line.time.contains('T')), "{all:?}");
    let none = lines(stage, "api", &LogRange { tail: Some(0), ..ALL }).await?;
    ensure!(none.is_empty(), "{none:?}");
    Ok(())
}

async fn logs_of_a_container_that_never_started_are_empty(stage: &Stage) -> Result<(), Complaint> {
    stage.runtime.create(&stage.spec("api", &stage.runs, Definition::default())?).await.map_err(|error| told(&error))?;
    let all = lines(stage, "api", &ALL).await?;
    ensure!(all.is_empty(), "{all:?}");
    Ok(())
}

async fn following_logs_end_with_the_container(stage: &Stage) -> Result<(), Complaint> {
    stage.up("api", &stage.runs, Definition::default(), RestartPolicy::No).await?;
    let stream = stage.runtime.logs(&stage.name("api")?, &LogRange { follow: true, ..ALL }).await.map_err(|error| told(&error))?;
    let owned = stage.owned("api")?;
    let reading = stream.collect::<Vec<_>>();
    let policy = patiently();
    let stopping = stage.runtime.stop(&owned, &policy);
    let both = async { tokio::join!(reading, stopping) };
    let Ok((_, stopped)) = tokio::time::timeout(Duration::from_secs(30), both).await else {
        return Err("the stream goes on after the end of the container".to_owned());
    };
    stopped.map_err(|error| told(&error))
}

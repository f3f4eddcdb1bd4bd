//! Changes to containers.

use super::{Check, Complaint, Stage, at_once, ensure, named, patiently, told};
use crate::definition::{ContainerPort, Definition, InjectedFile, Mount, MountSource, NetworkMode, PortBinding, Protocol, RestartPolicy};
use crate::names::ContainerName;
use crate::runtime::{InstanceStatus, Leaving, OwnedContainer, RuntimeError, StopPolicy};

pub(super) fn checks() -> Vec<Check> {
    named![
        create_twice_makes_one_container_which_is_not_started,
        create_twice_keeps_networks_and_files_complete,
        create_under_the_name_of_a_strangers_container_is_refused,
        create_under_the_name_of_an_own_container_made_otherwise_is_refused,
        create_from_an_image_that_is_not_there_is_refused,
        create_with_a_missing_network_or_volume_is_refused_and_makes_neither,
        start_of_a_running_container_succeeds_and_gives_the_restart_policy,
        start_of_a_missing_container_says_so,
        start_on_a_taken_port_says_which,
        stop_of_a_stopped_or_missing_container_succeeds,
        stop_returns_when_it_has_ended_and_disarms_the_restart_policy,
        stop_kills_what_does_not_end,
        stop_of_a_container_that_keeps_restarting_ends_it,
        stop_sends_the_signal_that_was_asked_for,
        remove_of_a_running_container_is_refused,
        remove_of_a_missing_container_succeeds,
        rename_twice_succeeds,
        rename_to_a_taken_name_and_of_a_missing_container_are_refused,
        a_container_of_another_project_is_never_changed,
        what_starts_apart_has_no_network_and_no_port,
        a_hand_over_moves_the_ports_and_can_be_repeated,
        a_hand_over_works_also_where_the_heir_does_not_run_any_more,
        a_hand_over_between_projects_is_refused,
        a_reserved_address_goes_to_the_successor,
        placeholders_go_and_leave_nothing,
        a_signal_goes_to_what_runs_and_to_nothing_else,
        a_network_that_was_left_is_joined_again_with_its_names,
    ]
}

async fn a_network_that_was_left_is_joined_again_with_its_names(stage: &Stage) -> Result<(), Complaint> {
    let network = stage.networks(&["front", "back"]).await?;
    let NetworkMode::Networks(attachments) = network.clone() else { return Err("the stage has no networks".to_owned()) };
    stage.up("api", &stage.runs, Definition { network, ..Definition::default() }, RestartPolicy::No).await?;
    let owned = stage.owned("api")?;
    ensure!(stage.inspect("api").await?.lacks(&attachments).is_empty(), "it lacks nothing at first");
    let front = attachments.first().map(|attachment| attachment.network.clone()).into_iter().collect::<Vec<_>>();
    for _ in 0..2 {
        stage.runtime.disconnect(&owned, &front).await.map_err(|error| told(&error))?;
    }
    let found = stage.inspect("api").await?;
    ensure!(found.lacks(&attachments).len() == 1 && found.addresses.len() == 1, "it left one network: {:?}", found.networks);
    for _ in 0..2 {
        stage.runtime.connect(&owned, &attachments).await.map_err(|error| told(&error))?;
    }
    let found = stage.inspect("api").await?;
    ensure!(found.lacks(&attachments).is_empty() && found.addresses.len() == 2, "it is back: {:?} {:?}", found.networks, found.addresses);
    Ok(())
}

async fn create_twice_makes_one_container_which_is_not_started(stage: &Stage) -> Result<(), Complaint> {
    let spec = stage.spec("api", &stage.runs, Definition::default())?;
    let first = stage.runtime.create(&spec).await.map_err(|error| told(&error))?;
    let second = stage.runtime.create(&spec).await.map_err(|error| told(&error))?;
    ensure!(first == second, "two ids for one spec: {first:?} and {second:?}");
    let all = stage.runtime.list(&stage.project).await.map_err(|error| told(&error))?;
    ensure!(all.len() == 1, "{} containers for one spec", all.len());
    let found = stage.inspect("api").await?;
    ensure!(found.id == first, "inspect tells another id");
    ensure!(found.state.status == InstanceStatus::Created, "it is {:?}", found.state.status);
    ensure!(found.state.exit_code.is_none() && found.state.started_at.is_none(), "it never ran: {:?}", found.state);
    Ok(())
}

async fn create_twice_keeps_networks_and_files_complete(stage: &Stage) -> Result<(), Complaint> {
    let file = InjectedFile { path: "/run/secrets/key".to_owned(), content: "secret".to_owned(), mode: 0o400, uid: 0, gid: 0 };
    let network = stage.networks(&["front", "back"]).await?;
    let spec = stage.spec("api", &stage.runs, Definition { network, files: vec![file], ..Definition::default() })?;
    for _ in 0..2 {
        stage.runtime.create(&spec).await.map_err(|error| told(&error))?;
    }
    stage.runtime.start(&stage.owned("api")?, RestartPolicy::No).await.map_err(|error| told(&error))?;
    let found = stage.inspect("api").await?;
    ensure!(found.addresses.len() == 2, "it has addresses {:?}", found.addresses);
    let drift = stage.runtime.drift(&spec).await.map_err(|error| told(&error))?;
    ensure!(drift.is_empty(), "it differs from its own spec in {drift:?}");
    Ok(())
}

async fn create_under_the_name_of_a_strangers_container_is_refused(stage: &Stage) -> Result<(), Complaint> {
    let theirs = stage.spec_of(&stage.stranger, "api", &stage.runs, Definition::default())?;
    stage.runtime.create(&theirs).await.map_err(|error| told(&error))?;
    let ours = stage.spec("api", &stage.runs, Definition::default())?;
    let answer = stage.runtime.create(&ours).await;
    ensure!(matches!(&answer, Err(RuntimeError::NameTaken { name, .. }) if *name == ours.name), "{answer:?}");
    Ok(())
}

async fn create_under_the_name_of_an_own_container_made_otherwise_is_refused(stage: &Stage) -> Result<(), Complaint> {
    let spec = stage.spec("api", &stage.runs, Definition::default())?;
    stage.runtime.create(&spec).await.map_err(|error| told(&error))?;
    let definition = Definition { tty: true, ..Definition::default() };
    for other in [stage.spec("api", &stage.runs, definition)?, stage.spec("api", &stage.exits, Definition::default())?] {
        let answer = stage.runtime.create(&other).await;
        ensure!(matches!(answer, Err(RuntimeError::NameTaken { .. })), "{answer:?}");
    }
    Ok(())
}

async fn create_from_an_image_that_is_not_there_is_refused(stage: &Stage) -> Result<(), Complaint> {
    let mut missing = stage.runs.clone();
    missing.digest = format!("sha256:{}", "0".repeat(64)).parse().map_err(super::say)?;
    let answer = stage.runtime.create(&stage.spec("api", &missing, Definition::default())?).await;
    ensure!(matches!(answer, Err(RuntimeError::ImageMissing { .. })), "{answer:?}");
    let found = stage.runtime.inspect(&stage.name("api")?).await.map_err(|error| told(&error))?;
    ensure!(found.is_none(), "something was made");
    Ok(())
}

async fn create_with_a_missing_network_or_volume_is_refused_and_makes_neither(stage: &Stage) -> Result<(), Complaint> {
    let NetworkMode::Networks(attachments) = stage.networks(&["front", "back"]).await? else { return Ok(()) };
    let gone = stage.network("back")?.name;
    stage.runtime.remove_network(&stage.project, &gone).await.map_err(|error| told(&error))?;
    let network = NetworkMode::Networks(attachments);
    let volume = stage.volume("nobody")?;
    let source = MountSource::Volume { name: volume.clone(), nocopy: false, subpath: None };
    let mounts = vec![Mount { target: "/data".to_owned(), read_only: false, source }];
    for definition in [Definition { network, ..Definition::default() }, Definition { mounts, ..Definition::default() }] {
        let answer = stage.runtime.create(&stage.spec("api", &stage.runs, definition)?).await;
        ensure!(matches!(answer, Err(RuntimeError::Refused { status: 404, .. })), "{answer:?}");
        let found = stage.runtime.inspect(&stage.name("api")?).await.map_err(|error| told(&error))?;
        ensure!(found.is_none(), "a container was made");
    }
    let volumes = stage.runtime.volumes(&[volume]).await.map_err(|error| told(&error))?;
    let networks = stage.runtime.networks(&[gone]).await.map_err(|error| told(&error))?;
    ensure!(volumes.is_empty() && networks.is_empty(), "made by itself: {volumes:?} {networks:?}");
    Ok(())
}

async fn start_of_a_running_container_succeeds_and_gives_the_restart_policy(stage: &Stage) -> Result<(), Complaint> {
    stage.up("api", &stage.runs, Definition::default(), RestartPolicy::No).await?;
    let first = stage.eventually("api", "running", |state| state.status == InstanceStatus::Running).await?;
    stage.runtime.start(&stage.owned("api")?, RestartPolicy::OnFailure(4)).await.map_err(|error| told(&error))?;
    let second = stage.inspect("api").await?;
    ensure!(second.restart == RestartPolicy::OnFailure(4), "its policy is {:?}", second.restart);
    ensure!(first.state.started_at.is_some() && first.state.started_at == second.state.started_at, "it was started again");
    Ok(())
}

async fn start_of_a_missing_container_says_so(stage: &Stage) -> Result<(), Complaint> {
    let answer = stage.runtime.start(&stage.owned("api")?, RestartPolicy::No).await;
    ensure!(matches!(answer, Err(RuntimeError::NotFound { .. })), "{answer:?}");
    Ok(())
}

async fn start_on_a_taken_port_says_which(stage: &Stage) -> Result<(), Complaint> {
    let definition = super::questions::published(stage.free_port);
    stage.up("one", &stage.runs, definition.clone(), RestartPolicy::No).await?;
    let spec = stage.spec("two", &stage.runs, definition)?;
    stage.runtime.create(&spec).await.map_err(|error| told(&error))?;
    let answer = stage.runtime.start(&stage.owned("two")?, RestartPolicy::Always).await;
    let port = stage.free_port.to_string();
    ensure!(matches!(&answer, Err(RuntimeError::PortTaken { port: told }) if told.ends_with(&port)), "{answer:?}");
    let found = stage.inspect("two").await?;
    ensure!(found.state.status != InstanceStatus::Running, "it runs all the same");
    // As soon as the port is free, the same call succeeds.
    stage.runtime.stop(&stage.owned("one")?, &at_once()).await.map_err(|error| told(&error))?;
    stage.runtime.start(&stage.owned("two")?, RestartPolicy::No).await.map_err(|error| told(&error))
}

async fn stop_of_a_stopped_or_missing_container_succeeds(stage: &Stage) -> Result<(), Complaint> {
    stage.runtime.stop(&stage.owned("api")?, &patiently()).await.map_err(|error| told(&error))?;
    let spec = stage.spec("api", &stage.runs, Definition::default())?;
    stage.runtime.create(&spec).await.map_err(|error| told(&error))?;
    for _ in 0..2 {
        stage.runtime.stop(&stage.owned("api")?, &patiently()).await.map_err(|error| told(&error))?;
    }
    Ok(())
}

/// Time after which a program on a busy machine surely handles signals: the kernel drops one for which the first process of a container
/// has no handler yet.
const LISTENS_AFTER: std::time::Duration = std::time::Duration::from_secs(1);

async fn stop_returns_when_it_has_ended_and_disarms_the_restart_policy(stage: &Stage) -> Result<(), Complaint> {
    stage.up("api", &stage.runs, Definition::default(), RestartPolicy::Always).await?;
    ensure!(stage.inspect("api").await?.restart == RestartPolicy::Always, "start did not give the policy");
    tokio::time::sleep(LISTENS_AFTER).await;
    stage.runtime.stop(&stage.owned("api")?, &patiently()).await.map_err(|error| told(&error))?;
    let found = stage.inspect("api").await?;
    ensure!(found.state.status == InstanceStatus::Exited, "it is {:?}", found.state.status);
    ensure!(found.state.exit_code == Some(0), "it was not asked, but killed: {:?}", found.state.exit_code);
    ensure!(found.restart == RestartPolicy::No, "the policy is still {:?}", found.restart);
    Ok(())
}

async fn stop_kills_what_does_not_end(stage: &Stage) -> Result<(), Complaint> {
    stage.up("api", &stage.stubborn, Definition::default(), RestartPolicy::No).await?;
    let policy = StopPolicy { signal: None, grace: std::time::Duration::from_secs(1) };
    stage.runtime.stop(&stage.owned("api")?, &policy).await.map_err(|error| told(&error))?;
    let found = stage.inspect("api").await?;
    ensure!(found.state.exit_code == Some(137), "it ended with {:?}", found.state.exit_code);
    Ok(())
}

async fn stop_of_a_container_that_keeps_restarting_ends_it(stage: &Stage) -> Result<(), Complaint> {
    stage.up("api", &stage.exits, Definition::default(), RestartPolicy::Always).await?;
    stage.eventually("api", "restarted", |state| state.restart_count > 0).await?;
    stage.runtime.stop(&stage.owned("api")?, &patiently()).await.map_err(|error| told(&error))?;
    let found = stage.inspect("api").await?;
    ensure!(found.state.status == InstanceStatus::Exited && found.restart == RestartPolicy::No, "{found:?}");
    stage.runtime.remove(&stage.owned("api")?).await.map_err(|error| told(&error))
}

async fn stop_sends_the_signal_that_was_asked_for(stage: &Stage) -> Result<(), Complaint> {
    stage.up("api", &stage.runs, Definition::default(), RestartPolicy::No).await?;
    stage.eventually("api", "running", |state| state.status == InstanceStatus::Running).await?;
    tokio::time::sleep(LISTENS_AFTER).await;
    let policy = StopPolicy { signal: Some("SIGTERM".to_owned()), grace: std::time::Duration::from_secs(20) };
    stage.runtime.stop(&stage.owned("api")?, &policy).await.map_err(|error| told(&error))?;
    let found = stage.inspect("api").await?;
    ensure!(found.state.status == InstanceStatus::Exited && found.state.exit_code == Some(0), "{:?}", found.state);
    Ok(())
}

async fn remove_of_a_running_container_is_refused(stage: &Stage) -> Result<(), Complaint> {
    stage.up("api", &stage.runs, Definition::default(), RestartPolicy::No).await?;
    let answer = stage.runtime.remove(&stage.owned("api")?).await;
    ensure!(matches!(answer, Err(RuntimeError::StillRunning { .. })), "{answer:?}");
    ensure!(stage.inspect("api").await?.state.status == InstanceStatus::Running, "it was stopped");
    Ok(())
}

async fn remove_of_a_missing_container_succeeds(stage: &Stage) -> Result<(), Complaint> {
    let spec = stage.spec("api", &stage.runs, Definition::default())?;
    stage.runtime.create(&spec).await.map_err(|error| told(&error))?;
    for _ in 0..2 {
        stage.runtime.remove(&stage.owned("api")?).await.map_err(|error| told(&error))?;
    }
    let found = stage.runtime.inspect(&spec.name).await.map_err(|error| told(&error))?;
    ensure!(found.is_none(), "it is still there");
    Ok(())
}

async fn rename_twice_succeeds(stage: &Stage) -> Result<(), Complaint> {
    let spec = stage.spec("api", &stage.runs, Definition::default())?;
    let id = stage.runtime.create(&spec).await.map_err(|error| told(&error))?;
    let to: ContainerName = stage.name("renamed")?;
    for _ in 0..2 {
        stage.runtime.rename(&stage.owned("api")?, &to).await.map_err(|error| told(&error))?;
    }
    ensure!(stage.inspect("renamed").await?.id == id, "another container has the name");
    let old = stage.runtime.inspect(&spec.name).await.map_err(|error| told(&error))?;
    ensure!(old.is_none(), "the old name is still there");
    Ok(())
}

async fn rename_to_a_taken_name_and_of_a_missing_container_are_refused(stage: &Stage) -> Result<(), Complaint> {
    let answer = stage.runtime.rename(&stage.owned("api")?, &stage.name("other")?).await;
    ensure!(matches!(answer, Err(RuntimeError::NotFound { .. })), "{answer:?}");
    for service in ["api", "other"] {
        let spec = stage.spec(service, &stage.runs, Definition::default())?;
        stage.runtime.create(&spec).await.map_err(|error| told(&error))?;
    }
    let answer = stage.runtime.rename(&stage.owned("api")?, &stage.name("other")?).await;
    ensure!(matches!(answer, Err(RuntimeError::NameTaken { .. })), "{answer:?}");
    stage.runtime.rename(&stage.owned("api")?, &stage.name("api")?).await.map_err(|error| told(&error))
}

async fn a_container_of_another_project_is_never_changed(stage: &Stage) -> Result<(), Complaint> {
    let theirs = stage.spec_of(&stage.stranger, "api", &stage.runs, Definition::default())?;
    stage.runtime.create(&theirs).await.map_err(|error| told(&error))?;
    let owner = OwnedContainer { project: stage.stranger.clone(), name: theirs.name.clone() };
    stage.runtime.start(&owner, RestartPolicy::Always).await.map_err(|error| told(&error))?;
    let before = stage.eventually("api", "running", |state| state.status == InstanceStatus::Running).await?;
    let ours = stage.owned("api")?;
    let to = stage.name("renamed")?;
    for answer in [
        stage.runtime.start(&ours, RestartPolicy::No).await,
        stage.runtime.stop(&ours, &at_once()).await,
        stage.runtime.remove(&ours).await,
        stage.runtime.rename(&ours, &to).await,
    ] {
        ensure!(matches!(answer, Err(RuntimeError::NotOurs { .. })), "{answer:?}");
    }
    let after = stage.inspect("api").await?;
    ensure!(before.id == after.id && before.restart == after.restart, "it was changed: {after:?}");
    ensure!(before.state.started_at == after.state.started_at, "it was restarted: {after:?}");
    Ok(())
}

/// A predecessor that has a port, and an heir that was made for the same one.
async fn predecessor_and_heir(stage: &Stage) -> Result<(Vec<crate::definition::NetworkAttachment>, u16), Complaint> {
    let network = stage.networks(&["front", "back"]).await?;
    let NetworkMode::Networks(networks) = network.clone() else { return Err("no networks".to_owned()) };
    let inside = ContainerPort { port: 3000, protocol: Protocol::Tcp };
    let ip = Some(std::net::Ipv4Addr::LOCALHOST.into());
    let port = PortBinding { container: inside, host_ip: ip, host_ports: Some((stage.free_port, stage.free_port)) };
    let definition = Definition { network, ports: vec![port], ..Definition::default() };
    stage.up("old", &stage.runs, definition.clone(), RestartPolicy::Always).await?;
    stage.runtime.create(&stage.spec("heir", &stage.runs, definition)?).await.map_err(|error| told(&error))?;
    for _ in 0..2 {
        stage.runtime.start_apart(&stage.owned("heir")?, RestartPolicy::Always).await.map_err(|error| told(&error))?;
    }
    Ok((networks, stage.free_port))
}

async fn what_starts_apart_has_no_network_and_no_port(stage: &Stage) -> Result<(), Complaint> {
    predecessor_and_heir(stage).await?;
    let heir = stage.inspect("heir").await?;
    ensure!(heir.state.status == InstanceStatus::Running && heir.restart == RestartPolicy::Always, "{:?}", heir.state);
    ensure!(heir.addresses.is_empty() && heir.ports.is_empty(), "{:?} {:?}", heir.addresses, heir.ports);
    Ok(())
}

async fn handed_over(stage: &Stage, networks: &[crate::definition::NetworkAttachment], port: u16) -> Result<(), Complaint> {
    let stop = StopPolicy { signal: None, grace: std::time::Duration::from_millis(100) };
    for stubborn_old in ["old", "nobody"] {
        let addresses = std::collections::BTreeMap::new();
        let from = [Leaving { container: stage.name(stubborn_old)?, stop: stop.clone(), addresses }];
        stage.runtime.hand_over(&stage.project, &from, &stage.name("heir")?, networks).await.map_err(|error| told(&error))?;
    }
    let old = stage.inspect("old").await?;
    ensure!(old.state.status == InstanceStatus::Exited && old.restart == RestartPolicy::No, "{:?} {:?}", old.state, old.restart);
    let heir = stage.eventually("heir", "running", |state| state.status == InstanceStatus::Running).await?;
    ensure!(heir.restart == RestartPolicy::Always, "{:?}", heir.restart);
    ensure!(heir.addresses.len() == networks.len(), "{:?}", heir.addresses);
    let has = heir.ports.iter().any(|binding| binding.host_ports == Some((port, port)));
    ensure!(has, "it publishes {:?}", heir.ports);
    Ok(())
}

async fn a_hand_over_moves_the_ports_and_can_be_repeated(stage: &Stage) -> Result<(), Complaint> {
    let (networks, port) = predecessor_and_heir(stage).await?;
    handed_over(stage, &networks, port).await?;
    let first = stage.inspect("heir").await?.state.started_at;
    handed_over(stage, &networks, port).await?;
    ensure!(stage.inspect("heir").await?.state.started_at == first, "what was handed over already was started anew");
    Ok(())
}

async fn a_hand_over_works_also_where_the_heir_does_not_run_any_more(stage: &Stage) -> Result<(), Complaint> {
    let (networks, port) = predecessor_and_heir(stage).await?;
    let now = StopPolicy { signal: Some("SIGKILL".to_owned()), grace: std::time::Duration::from_secs(1) };
    stage.runtime.stop(&stage.owned("heir")?, &now).await.map_err(|error| told(&error))?;
    stage.runtime.start_apart(&stage.owned("heir")?, RestartPolicy::Always).await.map_err(|error| told(&error))?;
    handed_over(stage, &networks, port).await
}

async fn a_hand_over_between_projects_is_refused(stage: &Stage) -> Result<(), Complaint> {
    let (networks, _) = predecessor_and_heir(stage).await?;
    let answer = stage.runtime.hand_over(&stage.stranger, &[], &stage.name("heir")?, &networks).await;
    ensure!(matches!(answer, Err(RuntimeError::NotOurs { .. })), "{answer:?}");
    let heir = stage.inspect("heir").await?;
    ensure!(heir.addresses.is_empty(), "{:?}", heir.addresses);
    Ok(())
}

async fn a_reserved_address_goes_to_the_successor(stage: &Stage) -> Result<(), Complaint> {
    // Two lower addresses are free: without the reservation the heir would get one of them.
    let network = stage.networks(&["front", "back"]).await?;
    let definition = Definition { network, ..Definition::default() };
    let now = StopPolicy { signal: Some("SIGKILL".to_owned()), grace: std::time::Duration::from_secs(1) };
    for lower in ["one", "two"] {
        stage.up(lower, &stage.runs, definition.clone(), RestartPolicy::No).await?;
    }
    let (networks, _) = predecessor_and_heir(stage).await?;
    for lower in ["one", "two"] {
        stage.runtime.stop(&stage.owned(lower)?, &now).await.map_err(|error| told(&error))?;
    }
    let addresses = stage.inspect("old").await?.addresses;
    ensure!(addresses.len() == 2, "{addresses:?}");
    stage.runtime.reserve(&stage.project, &stage.name("heir")?, &addresses).await.map_err(|error| told(&error))?;
    let from = [Leaving { container: stage.name("old")?, stop: now.clone(), addresses: addresses.clone() }];
    stage.runtime.hand_over(&stage.project, &from, &stage.name("heir")?, &networks).await.map_err(|error| told(&error))?;
    stage.runtime.release(&stage.project).await.map_err(|error| told(&error))?;
    let heir = stage.eventually("heir", "running", |state| state.status == InstanceStatus::Running).await?;
    ensure!(heir.addresses == addresses, "{:?} instead of {addresses:?}", heir.addresses);
    Ok(())
}

async fn placeholders_go_and_leave_nothing(stage: &Stage) -> Result<(), Complaint> {
    let network = stage.networks(&["front"]).await?;
    let definition = Definition { network, ..Definition::default() };
    let now = StopPolicy { signal: Some("SIGKILL".to_owned()), grace: std::time::Duration::from_secs(1) };
    stage.up("lower", &stage.runs, definition.clone(), RestartPolicy::No).await?;
    stage.up("old", &stage.runs, definition, RestartPolicy::No).await?;
    stage.runtime.stop(&stage.owned("lower")?, &now).await.map_err(|error| told(&error))?;
    let before = stage.inspect("old").await?.addresses;
    for _ in 0..2 {
        stage.runtime.reserve(&stage.project, &stage.name("old")?, &before).await.map_err(|error| told(&error))?;
    }
    let listed = stage.runtime.list(&stage.project).await.map_err(|error| told(&error))?;
    ensure!(listed.len() == 2, "placeholders are listed: {:?}", listed.iter().map(|one| &one.name).collect::<Vec<_>>());
    for _ in 0..2 {
        stage.runtime.release(&stage.project).await.map_err(|error| told(&error))?;
    }
    let unknown = stage.runtime.reserve(&stage.project, &stage.name("nobody")?, &before).await;
    ensure!(matches!(unknown, Err(RuntimeError::NotFound { .. })), "{unknown:?}");
    stage.runtime.start(&stage.owned("lower")?, RestartPolicy::No).await.map_err(|error| told(&error))?;
    let lower = stage.inspect("lower").await?.addresses;
    ensure!(lower != before && lower.len() == 1, "{lower:?}: its own address is still occupied");
    Ok(())
}

async fn a_signal_goes_to_what_runs_and_to_nothing_else(stage: &Stage) -> Result<(), Complaint> {
    stage.up("api", &stage.runs, Definition::default(), RestartPolicy::No).await?;
    stage.runtime.signal(&stage.owned("api")?, "SIGURG").await.map_err(|error| told(&error))?;
    let found = stage.inspect("api").await?;
    ensure!(found.state.status == InstanceStatus::Running, "{:?}", found.state);
    let now = StopPolicy { signal: None, grace: std::time::Duration::from_secs(5) };
    stage.runtime.stop(&stage.owned("api")?, &now).await.map_err(|error| told(&error))?;
    for name in ["api", "nobody"] {
        let answer = stage.runtime.signal(&stage.owned(name)?, "SIGURG").await;
        ensure!(matches!(answer, Err(RuntimeError::NotFound { .. })), "{name}: {answer:?}");
    }
    Ok(())
}

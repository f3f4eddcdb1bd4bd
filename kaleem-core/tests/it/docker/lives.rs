//! What containers go through on a real engine.

use std::collections::BTreeMap;
use std::time::Duration;

use bollard::query_parameters::RemoveContainerOptions;
use kaleem_core::definition::{
    Definition, InjectedFile, Mount, MountSource, NetworkAttachment, NetworkMode, Resources as Limits, RestartPolicy,
};
use kaleem_core::runtime::{
    Console as _, Containers as _, Inspect as _, InstanceHealth, InstanceSpec, InstanceState, InstanceStatus, Resources as _, RuntimeError,
    StopPolicy, compose_labels, kaleem_labels,
};

use super::lab::{Lab, lab, project};
use super::mapping::{attach, network, owned, spec};
use super::wait_for;

const AT_ONCE: StopPolicy = StopPolicy { signal: None, grace: Duration::ZERO };

async fn up(lab: &Lab, spec: &InstanceSpec) {
    lab.runtime.create(spec).await.unwrap();
    lab.runtime.start(&owned(spec), RestartPolicy::No).await.unwrap();
}

async fn down(lab: &Lab, spec: &InstanceSpec) {
    lab.runtime.stop(&owned(spec), &AT_ONCE).await.unwrap();
    lab.runtime.remove(&owned(spec)).await.unwrap();
}

async fn state(lab: &Lab, spec: &InstanceSpec) -> InstanceState {
    lab.runtime.inspect(&spec.name).await.unwrap().unwrap().state
}

async fn run(lab: &Lab, spec: &InstanceSpec, words: &[&str]) -> String {
    let command: Vec<String> = std::iter::once("/app").chain(words.iter().copied()).map(str::to_owned).collect();
    let answer = lab.runtime.exec(&spec.name, &command, Duration::from_secs(30)).await.unwrap();
    assert_eq!(answer.exit_code, 0, "{}", answer.output);
    answer.output
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_the_kernel_kills_for_memory_is_told_apart() {
    let Some(lab) = lab().await else { return };
    let limits = Limits { memory_bytes: Some(6 << 20), memory_swap_bytes: Some(6 << 20), ..Limits::default() };
    let mut spec = spec(lab, &project("oom"), "api", Definition { resources: limits, ..Definition::default() });
    spec.image = lab.eats.clone();
    up(lab, &spec).await;
    wait_for("the end", async || state(lab, &spec).await.status == InstanceStatus::Exited).await;
    // The engine hears of the kill and of the end in any order.
    wait_for("the reason", async || state(lab, &spec).await.oom_killed).await;
    assert_eq!(state(lab, &spec).await.exit_code, Some(137));
    down(lab, &spec).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_is_removed_by_hand_while_it_is_stopped_is_gone_and_no_error() {
    let Some(lab) = lab().await else { return };
    let mut spec = spec(lab, &project("hand"), "api", Definition::default());
    spec.image = lab.stubborn.clone();
    for signal in [None, Some("SIGUSR1".to_owned())] {
        lab.runtime.create(&spec).await.unwrap();
        lab.runtime.start(&owned(&spec), RestartPolicy::Always).await.unwrap();
        let policy = StopPolicy { signal, grace: Duration::from_secs(60) };
        let owned = owned(&spec);
        let stopping = lab.runtime.stop(&owned, &policy);
        let removing = async {
            let disarmed = async || lab.runtime.inspect(&spec.name).await.unwrap().unwrap().restart == RestartPolicy::No;
            wait_for("the begin of the stop", disarmed).await;
            let force = RemoveContainerOptions { force: true, ..RemoveContainerOptions::default() };
            lab.docker.remove_container(spec.name.as_str(), Some(force)).await.unwrap();
        };
        let both = async { tokio::join!(stopping, removing).0 };
        tokio::time::timeout(Duration::from_secs(30), both).await.expect("it does not wait for the dead").unwrap();
        assert_eq!(lab.runtime.inspect(&spec.name).await.unwrap(), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_signal_than_sigterm_reaches_the_program() {
    let Some(lab) = lab().await else { return };
    let spec = spec(lab, &project("signal"), "api", Definition::default());
    up(lab, &spec).await;
    wait_for("the program", async || run_is_ready(lab, &spec).await).await;
    let policy = StopPolicy { signal: Some("SIGUSR1".to_owned()), grace: Duration::from_secs(20) };
    lab.runtime.stop(&owned(&spec), &policy).await.unwrap();
    assert_eq!(state(lab, &spec).await.exit_code, Some(110), "the program tells which signal it got");
    down(lab, &spec).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stop_signal_of_a_container_is_sent_at_every_stop_where_nobody_asks_for_another() {
    let Some(lab) = lab().await else { return };
    // As nginx and PHP-FPM have it: SIGQUIT lets running requests end, SIGTERM cuts them off.
    let definition = Definition { stop_signal: Some("SIGQUIT".to_owned()), ..Definition::default() };
    let spec = spec(lab, &project("quit"), "api", definition);
    for (why, grace) in [("the engine sends it", Duration::from_secs(20)), ("it is sent from here", Duration::from_millis(20_500))] {
        up(lab, &spec).await;
        wait_for("the program", async || run_is_ready(lab, &spec).await).await;
        lab.runtime.stop(&owned(&spec), &StopPolicy { signal: None, grace }).await.unwrap();
        assert_eq!(state(lab, &spec).await.exit_code, Some(103), "{why}");
        down(lab, &spec).await;
    }
}

/// Whether the program has set its signal handlers: it says so.
async fn run_is_ready(lab: &Lab, spec: &InstanceSpec) -> bool {
    use futures_util::StreamExt as _;
    let range = kaleem_core::runtime::LogRange { tail: None, follow: false, since: None };
    let lines: Vec<_> = lab.runtime.logs(&spec.name, &range).await.unwrap().collect().await;
    lines.iter().any(|line| line.as_ref().is_ok_and(|line| line.text == "ready" && !line.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn secret_files_are_there_with_mode_and_owner_whatever_is_mounted_around_them() {
    let Some(lab) = lab().await else { return };
    let file = InjectedFile { path: "/run/secrets/key".to_owned(), content: "s3cret".to_owned(), mode: 0o440, uid: 1000, gid: 7 };
    let plain = Definition { files: vec![file], ..Definition::default() };
    let read_only = Definition { read_only: true, ..plain.clone() };
    let hidden = Definition { tmpfs: [("/run".to_owned(), String::new())].into(), ..plain.clone() };
    let both = Definition { read_only: true, ..hidden.clone() };
    let anonymous = Mount { target: "/run".to_owned(), read_only: false, source: MountSource::Anonymous };
    let volume = Definition { mounts: vec![anonymous], ..read_only.clone() };
    for (why, definition) in
        [("plain", plain), ("read-only root", read_only), ("memory above", hidden), ("both", both), ("in a volume", volume)]
    {
        let spec = spec(lab, &project("files"), "api", definition);
        up(lab, &spec).await;
        assert_eq!(run(lab, &spec, &["file", "/run/secrets/key"]).await, "440 1000:7 s3cret", "{why}");
        assert_eq!(lab.runtime.drift(&spec).await.unwrap(), Vec::<String>::new(), "{why}");
        down(lab, &spec).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_find_each_other_by_alias_on_every_network_and_share_the_network_of_a_companion() {
    let Some(lab) = lab().await else { return };
    let project = project("net");
    let (front, back) = (network(&project, "front", None), network(&project, "back", None));
    for network in [&front, &back] {
        lab.runtime.create_network(&project, network).await.unwrap();
    }
    let both = NetworkMode::Networks(vec![attach(&front, "web"), attach(&back, "inner")]);
    let server = spec(lab, &project, "server", Definition { network: both, ..Definition::default() });
    up(lab, &server).await;
    let addresses = lab.runtime.inspect(&server.name).await.unwrap().unwrap().addresses;
    let client = NetworkMode::Networks(vec![attach(&back, "client")]);
    let client = spec(lab, &project, "client", Definition { network: client, ..Definition::default() });
    up(lab, &client).await;
    assert_eq!(run(lab, &client, &["resolve", "inner"]).await, addresses[&back.name]);

    let shared = Definition { network: NetworkMode::Service("server".parse().unwrap()), ..Definition::default() };
    let mut sidecar = spec(lab, &project, "sidecar", shared);
    sidecar.companions = BTreeMap::from([("server".parse().unwrap(), server.name.clone())]);
    up(lab, &sidecar).await;
    assert_eq!(run(lab, &sidecar, &["resolve", "web"]).await, addresses[&front.name], "it sees the server's networks");
    assert_eq!(lab.runtime.drift(&sidecar).await.unwrap(), Vec::<String>::new());

    let used = lab.runtime.remove_network(&project, &front.name).await;
    assert!(matches!(used, Err(RuntimeError::InUse { .. })), "{used:?}");
    for spec in [&sidecar, &client, &server] {
        down(lab, spec).await;
    }
    for network in [&front, &back] {
        lab.runtime.remove_network(&project, &network.name).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_that_died_between_container_and_second_network_is_completed_by_the_next() {
    let Some(lab) = lab().await else { return };
    let project = project("half");
    let networks = [network(&project, "front", None), network(&project, "back", None)];
    for network in &networks {
        lab.runtime.create_network(&project, network).await.unwrap();
    }
    let mode = NetworkMode::Networks(networks.iter().map(|network| attach(network, "web")).collect());
    let mut spec = spec(lab, &project, "api", Definition { network: mode, ..Definition::default() });
    spec.labels.insert(kaleem_labels::DEFINITION.to_owned(), "d1".to_owned());
    let first = lab.runtime.create(&spec).await.unwrap();
    let request = bollard::models::NetworkDisconnectRequest { container: spec.name.to_string(), force: Some(true) };
    lab.docker.disconnect_network(networks[1].name.as_str(), request).await.unwrap();
    assert_eq!(lab.runtime.drift(&spec).await.unwrap(), [format!("network.{}", networks[1].name)]);
    assert_eq!(lab.runtime.create(&spec).await.unwrap(), first);
    assert_eq!(lab.runtime.drift(&spec).await.unwrap(), Vec::<String>::new());
    down(lab, &spec).await;
    for network in &networks {
        lab.runtime.remove_network(&project, &network.name).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_address_that_is_taken_stops_the_start_and_is_no_taken_port() {
    let Some(lab) = lab().await else { return };
    let project = project("ip");
    let network = network(&project, "front", Some("10.213.9.0/24"));
    lab.runtime.create_network(&project, &network).await.unwrap();
    let fixed = || NetworkAttachment { ipv4: Some("10.213.9.9".to_owned()), ..attach(&network, "web") };
    let [one, two] = ["one", "two"]
        .map(|service| spec(lab, &project, service, Definition { network: NetworkMode::Networks(vec![fixed()]), ..Definition::default() }));
    up(lab, &one).await;
    lab.runtime.create(&two).await.unwrap();
    let answer = lab.runtime.start(&owned(&two), RestartPolicy::Always).await;
    assert!(matches!(&answer, Err(RuntimeError::Refused { message, .. }) if message.contains("Address already in use")), "{answer:?}");
    let found = lab.runtime.inspect(&two.name).await.unwrap().unwrap();
    assert_eq!(found.restart, RestartPolicy::No, "the engine does not try again behind our back");
    assert!(found.state.error.is_some(), "the engine's own words are told: {:?}", found.state);
    for spec in [&one, &two] {
        down(lab, spec).await;
    }
    lab.runtime.remove_network(&project, &network.name).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_output_of_a_health_check_is_cut() {
    let Some(lab) = lab().await else { return };
    let mut spec = spec(lab, &project("health"), "api", Definition::default());
    spec.image = lab.checked.clone();
    up(lab, &spec).await;
    wait_for("health", async || state(lab, &spec).await.health == InstanceHealth::Healthy).await;
    let output = state(lab, &spec).await.health_output.unwrap();
    assert!(output.starts_with("well ") && output.len() <= 4096, "{} bytes", output.len());
    down(lab, &spec).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_with_our_own_label_alone_is_ours_and_not_composes() {
    let Some(lab) = lab().await else { return };
    let project = project("own");
    let mut spec = spec(lab, &project, "gateway", Definition::default());
    spec.labels = [(kaleem_labels::PROJECT.to_owned(), project.to_string())].into();
    up(lab, &spec).await;
    let all = lab.runtime.list(&project).await.unwrap();
    assert_eq!(all.iter().map(|instance| &instance.name).collect::<Vec<_>>(), [&spec.name]);
    assert!(!spec.labels.contains_key(compose_labels::PROJECT));
    down(lab, &spec).await;
}

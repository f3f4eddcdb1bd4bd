//! The contract of `Probes`, whatever the other side does.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use kaleem_core::health::{Finding, Probes, Question, Verdict};

use std::sync::Arc;

use kaleem_core::health::HealthProbe;
use kaleem_health::settings::{DiskSettings, TcpSettings};
use kaleem_health::{DiskProbe, KnownHosts, TcpProbe};

use crate::support::{self, Exec, SECRET, Server, http, probes, target};

const TIMEOUT: Duration = Duration::from_millis(400);
/// For what a server answers at once, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);
/// The servers here never end by themselves, so whatever ends was ended by the timeout: the rest is for a busy machine.
const LATEST: Duration = Duration::from_secs(5);

async fn ask_in_time(why: &str, question: &Question, target: &kaleem_core::health::ProbeTarget, exec: Exec) -> Finding {
    ask_within(why, question, target, exec, TIMEOUT).await
}

#[expect(clippy::disallowed_methods, reason = "the contract is about real time")]
async fn ask_within(why: &str, question: &Question, target: &kaleem_core::health::ProbeTarget, exec: Exec, timeout: Duration) -> Finding {
    let start = Instant::now();
    let finding = probes(exec).ask(question, target, timeout).await;
    let took = start.elapsed();
    assert!(took < timeout.min(TIMEOUT) + LATEST, "{why}: took {took:?}");
    assert!(!format!("{finding:?}").contains(SECRET), "{why}: repeats what the target wrote: {finding:?}");
    assert!(finding.verdict == Verdict::Ok || finding.remedy.is_some(), "{why}: {} has no remedy", finding.reason);
    finding
}

type Behaviour = fn(&mut TcpStream) -> std::io::Result<()>;

#[tokio::test]
async fn a_server_that_misbehaves_costs_neither_time_nor_a_connection_nor_a_secret() {
    let table: [(&str, Behaviour, Verdict, &str); 12] = [
        ("answers", support::ok, Verdict::Ok, "answered 200"),
        ("a redirect is an answer and is not followed", support::redirects, Verdict::Ok, "answered 302"),
        ("says that it is ill", support::unavailable, Verdict::Fail, "answered 503, and 200 to 399 is right"),
        ("accepts and says nothing", support::silent, Verdict::Fail, "no complete answer"),
        ("closes at once", support::closes, Verdict::Fail, "closed the connection without an answer"),
        ("closes after the request", support::closes_after_the_request, Verdict::Fail, "closed the connection without an answer"),
        ("sends the head byte by byte", support::trickles_a_head, Verdict::Fail, "no complete answer"),
        ("sends the body byte by byte", support::trickles_a_body, Verdict::Fail, "no complete answer"),
        ("breaks off in the body", support::breaks_off, Verdict::Fail, "broke off after 9 bytes"),
        ("is not HTTP", support::talks_garbage, Verdict::Fail, "not HTTP"),
        ("sends a gigabyte", support::floods_a_body, Verdict::Ok, "answered 200"),
        ("sends a gigabyte of header", support::floods_a_head, Verdict::Fail, "not HTTP"),
    ];
    for (why, behave, verdict, reason) in table {
        let server = Server::start(behave);
        let timeout = if reason == "no complete answer" { TIMEOUT } else { PATIENCE };
        let finding = ask_within(why, &http(server.address.port()), &target(&["127.0.0.1"]), Exec::Ends(0), timeout).await;
        assert_eq!(finding.verdict, verdict, "{why}: {}", finding.reason);
        assert!(finding.reason.contains(reason), "{why}: {}", finding.reason);
        assert!(
            finding.phases.contains_key("total") && finding.phases.contains_key("connect") || finding.reason.contains("no complete"),
            "{why}: {:?}",
            finding.phases
        );
        server.all_closed().await;
        assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0, "{why}: a task was left behind");
    }
}

#[tokio::test]
async fn a_port_that_accepts_is_enough_for_tcp_and_the_connection_is_closed() {
    for (why, behave) in
        [("says nothing", support::silent as Behaviour), ("speaks first", support::talks_garbage), ("closes", support::closes)]
    {
        let server = Server::start(behave);
        let question = Question::Tcp { port: server.address.port() };
        let finding = ask_within(why, &question, &target(&["127.0.0.1"]), Exec::Ends(0), PATIENCE).await;
        assert_eq!(finding.verdict, Verdict::Ok, "{why}: {}", finding.reason);
        server.all_closed().await;
    }
}

#[tokio::test]
async fn a_probe_that_is_dropped_closes_its_connection() {
    let server = Server::start(support::silent);
    let (probes, question, target) = (probes(Exec::Ends(0)), http(server.address.port()), target(&["127.0.0.1"]));
    let ask = probes.ask(&question, &target, Duration::from_secs(60));
    let accepted = async {
        while server.accepted() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        finding = ask => panic!("a silent server was judged early: {}", finding.reason),
        () = accepted => {}
    }
    server.all_closed().await;
}

#[tokio::test]
async fn a_text_that_is_asked_for_must_be_in_the_answer() {
    let table: [(&str, Behaviour, &str, Verdict, &str); 4] = [
        ("is there", support::ok, "\"redis\":\"up\"", Verdict::Ok, "with the text"),
        ("is not there", support::ok, "mongodb", Verdict::Fail, "the answer does not hold"),
        ("is not in what is read of a flood", support::floods_a_body, "b", Verdict::Fail, "the first MiB"),
        ("an empty text is in everything", support::ok, "", Verdict::Ok, "with the text"),
    ];
    for (why, behave, text, verdict, reason) in table {
        let server = Server::start(behave);
        let Question::Http { port, path, statuses, host, .. } = http(server.address.port()) else { unreachable!() };
        let question = Question::Http { port, path, statuses, host, contains: Some(text.to_owned()) };
        let finding = ask_within(why, &question, &target(&["127.0.0.1"]), Exec::Ends(0), PATIENCE).await;
        assert_eq!((finding.verdict, finding.reason.contains(reason)), (verdict, true), "{why}: {}", finding.reason);
    }
}

#[tokio::test]
async fn the_request_carries_the_host_that_was_asked_for_and_the_query_stays_out_of_the_finding() {
    let server = Server::start(support::echoes_host);
    let port = server.address.port();
    for (why, host, contains) in
        [("given", Some("shop.example"), "host: shop.example\r\n".to_owned()), ("the address", None, format!("host: 127.0.0.1:{port}\r\n"))]
    {
        let path = format!("/health?token={SECRET}");
        let question = Question::Http { port, path, statuses: (200, 200), host: host.map(str::to_owned), contains: Some(contains) };
        let finding = ask_within(why, &question, &target(&["127.0.0.1"]), Exec::Ends(0), PATIENCE).await;
        assert_eq!(finding.verdict, Verdict::Ok, "{why}: {}", finding.reason);
    }
}

#[tokio::test]
async fn a_command_fails_only_when_it_ran() {
    let command = Question::Command { command: vec!["check".to_owned(), format!("--password={SECRET}")] };
    for (why, exec, verdict, reason) in [
        ("passes", Exec::Ends(0), Verdict::Ok, "exited with 0"),
        ("fails", Exec::Ends(3), Verdict::Fail, "exited with 3"),
        ("the program is not in the image", Exec::Ends(127), Verdict::Unknown, "could not be run"),
        ("the program may not be run", Exec::Ends(126), Verdict::Unknown, "could not be run"),
        ("it hangs", Exec::TimesOut, Verdict::Fail, "did not end within"),
        ("the engine is gone", Exec::Broken, Verdict::Unknown, "connection reset"),
        ("the engine hangs", Exec::Hangs, Verdict::Unknown, "did not say"),
    ] {
        let finding = ask_in_time(why, &command, &target(&[]), exec).await;
        assert_eq!(finding.verdict, verdict, "{why}: {}", finding.reason);
        assert!(finding.reason.contains(reason), "{why}: {}", finding.reason);
    }
    let finding = ask_in_time("no program", &Question::Command { command: Vec::new() }, &target(&[]), Exec::Ends(0)).await;
    assert_eq!(finding.verdict, Verdict::Unknown);
}

#[tokio::test]
async fn many_runs_against_a_port_or_a_disk_leave_nothing() {
    // An open port that says nothing is waited for a moment each time, in case it closes at once.
    let runs = support::runs() / 10;
    let server = Server::start(support::silent);
    let settings = TcpSettings { host: "127.0.0.1".to_owned(), port: server.address.port() };
    let port = TcpProbe::new("port", settings, Arc::new(KnownHosts::new()));
    for run in 0..runs {
        let finding = port.check(Duration::from_secs(10)).await;
        assert_eq!(finding.verdict, Verdict::Ok, "run {run}: {}", finding.reason);
    }
    server.all_closed().await;
    assert_eq!(server.accepted(), runs);
    let disk = DiskProbe::new("disk", DiskSettings { used_percent: (100.1, 100.1), ..DiskSettings::standard("/".into()) });
    for run in 0..runs {
        let finding = disk.check(Duration::from_secs(10)).await;
        assert_eq!(finding.verdict, Verdict::Ok, "run {run}: {}", finding.reason);
    }
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0, "a task was left behind");
}

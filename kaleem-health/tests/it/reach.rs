//! By which way a container is reached, and what is said when there is none.

use std::net::SocketAddr;
use std::time::Duration;

use kaleem_core::health::{Probes, Question, Verdict};
use kaleem_core::testing::free_port;

use crate::support::{self, Exec, Server, http, probes, target};

const TIMEOUT: Duration = Duration::from_secs(3);

/// No connection can be had with the broadcast address: the kernel says so without sending anything.
const NOWHERE: &str = "255.255.255.255";

#[tokio::test]
async fn nothing_listening_is_a_failure_with_the_address_and_a_question_about_the_port() {
    let port = free_port();
    for question in [http(port), Question::Tcp { port }] {
        let finding = probes(Exec::Ends(0)).ask(&question, &target(&["127.0.0.1"]), TIMEOUT).await;
        assert_eq!(finding.verdict, Verdict::Fail, "{question}");
        assert_eq!(finding.reason, format!("connection refused on 127.0.0.1:{port}: nothing listens there yet"));
        assert!(finding.remedy.unwrap().contains(&format!("listens on port {port}")));
    }
}

#[tokio::test]
async fn no_address_at_all_is_unknown() {
    for (why, addresses) in [("none", vec![]), ("not an address", vec!["", "not-an-address"])] {
        for question in [http(3000), Question::Tcp { port: 3000 }] {
            let finding = probes(Exec::Ends(0)).ask(&question, &target(&addresses), TIMEOUT).await;
            assert_eq!(finding.verdict, Verdict::Unknown, "{why}: {question}: {}", finding.reason);
        }
    }
}

#[tokio::test]
async fn the_hosts_network_is_asked_on_loopback() {
    let server = Server::start(support::ok);
    let mut target = target(&[]);
    target.host_network = true;
    let finding = probes(Exec::Ends(0)).ask(&http(server.address.port()), &target, TIMEOUT).await;
    assert_eq!(finding.verdict, Verdict::Ok, "{}", finding.reason);
}

#[tokio::test]
async fn an_address_that_cannot_be_reached_gives_way_to_the_next_one_and_to_the_published_port() {
    let server = Server::start(support::ok);
    let port = server.address.port();
    let any: SocketAddr = SocketAddr::from(([0, 0, 0, 0], port));
    let mut published = target(&[NOWHERE]);
    published.published = vec![(3000, any)];
    for (why, target, inside) in [("second network", target(&[NOWHERE, "127.0.0.1"]), port), ("published port", published, 3000)] {
        for question in [http(inside), Question::Tcp { port: inside }] {
            let finding = probes(Exec::Ends(0)).ask(&question, &target, TIMEOUT).await;
            assert_eq!(finding.verdict, Verdict::Ok, "{why}: {question}: {}", finding.reason);
        }
    }
}

#[tokio::test]
async fn a_refusal_by_the_container_is_not_hidden_by_its_published_port() {
    let server = Server::start(support::ok);
    let inside = free_port();
    let mut target = target(&["127.0.0.1"]);
    target.published = vec![(inside, server.address)];
    let finding = probes(Exec::Ends(0)).ask(&http(inside), &target, TIMEOUT).await;
    assert_eq!(finding.verdict, Verdict::Fail, "{}", finding.reason);
    assert_eq!(server.accepted(), 0);
}

#[tokio::test]
async fn a_forwarder_that_accepts_and_closes_does_not_pass_for_the_container() {
    let server = Server::start(support::closes);
    let mut target = target(&[]);
    target.published = vec![(3000, server.address)];
    let finding = probes(Exec::Ends(0)).ask(&Question::Tcp { port: 3000 }, &target, TIMEOUT).await;
    assert_eq!(finding.verdict, Verdict::Fail, "{}", finding.reason);
    assert!(finding.reason.contains("nothing listens there yet"), "{}", finding.reason);
}

#[tokio::test]
async fn an_address_that_cannot_be_reached_says_nothing_about_the_container() {
    for question in [http(3000), Question::Tcp { port: 3000 }] {
        let finding = probes(Exec::Ends(0)).ask(&question, &target(&[NOWHERE]), TIMEOUT).await;
        assert_eq!(finding.verdict, Verdict::Unknown, "{question}: {}", finding.reason);
        assert!(finding.reason.starts_with("could not try to connect to 255.255.255.255:3000"), "{question}: {}", finding.reason);
    }
}

//! RabbitMQ: definitions come back as they were, users with their passwords among them, and no message is ever removed.

use std::sync::Arc;
use std::time::Duration;

use kaleem_backup::format::definitions::verify;
use kaleem_backup::seal::{Keys, Protection};
use kaleem_backup::set;
use kaleem_backup::source::rabbitmq::RabbitmqSource;
use kaleem_core::backup::{BackupSource, Consistency, RestoreMode, SourceError};
use kaleem_core::secret::Secret;
use kaleem_core::testing::FakeVault;

use crate::servers::{self, Rabbit};
use crate::support::{Noon, export, request, stream};

fn source(rabbit: &Rabbit, user: &str, password: &str) -> RabbitmqSource {
    let url = Secret::new(rabbit.management(user, password));
    RabbitmqSource::new("broker".parse().unwrap(), &url, Duration::from_secs(30)).unwrap()
}

/// A broker of a shop: users, a virtual host, queues with arguments, exchanges, bindings, policies.
const SHOP: &str = r##"{
  "users": [{"name":"app","password":"hunter2-app","tags":""},{"name":"guest","password":"hunter2-guest","tags":"administrator"}],
  "vhosts": [{"name":"/"},{"name":"shop/eu"}],
  "permissions": [{"user":"guest","vhost":"/","configure":".*","write":".*","read":".*"},
    {"user":"guest","vhost":"shop/eu","configure":".*","write":".*","read":".*"},
    {"user":"app","vhost":"shop/eu","configure":"^app","write":".*","read":".*"}],
  "topic_permissions": [{"user":"app","vhost":"shop/eu","exchange":"events","write":"^a","read":".*"}],
  "policies": [{"vhost":"shop/eu","name":"limits","pattern":"^orders","apply-to":"queues","priority":1,"definition":{"max-length":100000}}],
  "queues": [{"name":"orders","vhost":"shop/eu","durable":true,"auto_delete":false,"arguments":{"x-dead-letter-exchange":"dead"}},
    {"name":"plain","vhost":"/","durable":true,"auto_delete":false,"arguments":{}}],
  "exchanges": [{"name":"events","vhost":"shop/eu","type":"topic","durable":true,"auto_delete":false,"internal":false,"arguments":{}},
    {"name":"dead","vhost":"shop/eu","type":"fanout","durable":true,"auto_delete":false,"internal":false,"arguments":{}}],
  "bindings": [{"source":"events","vhost":"shop/eu","destination":"orders","destination_type":"queue","routing_key":"order.*","arguments":{}},
    {"source":"events","vhost":"shop/eu","destination":"dead","destination_type":"exchange","routing_key":"#","arguments":{}}]
}"##;

pub(crate) fn fill(rabbit: &Rabbit, place: &std::path::Path) {
    let file = place.join("shop.json");
    kaleem_core::durable::create_new(&file, SHOP.as_bytes()).unwrap();
    rabbit.control(&["import_definitions", file.to_str().unwrap()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_come_back_through_a_set_and_no_message_is_removed() {
    let place = tempfile::tempdir().unwrap();
    let (Some(original), Some(other)) = (servers::rabbit(), servers::rabbit()) else { return };
    fill(&original, place.path());
    let web = crate::support::web();
    let publish = async |rabbit: &Rabbit, password: &str, vhost: &str, queue: &str| {
        let url = format!("http://127.0.0.1:{}/api/exchanges/{vhost}/amq.default/publish", rabbit.server.port);
        let body = format!(r#"{{"properties":{{}},"routing_key":"{queue}","payload":"x","payload_encoding":"string"}}"#);
        let answer =
            web.post(url).basic_auth("guest", Some(password)).header("content-type", "application/json").body(body).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    };
    publish(&original, "hunter2-guest", "%2F", "plain").await;
    let source_of = Arc::new(source(&original, "guest", "hunter2-guest"));
    // The broker counts every few seconds.
    let mut told = false;
    for _ in 0..60 {
        let (exported, _) = export(source_of.as_ref()).await.unwrap();
        told = exported.notes.iter().any(|note| note == "the queue `plain` of `/` held 1 messages");
        if told {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(told, "the depth of a queue is recorded");

    let vault = FakeVault::new();
    let protection = Protection::Passphrase(Secret::new("one".to_owned()));
    let keys = Keys::passphrase(Secret::new("one".to_owned()));
    let request = request(protection);
    let sources: Vec<Arc<dyn BackupSource>> = vec![source_of.clone()];
    let manifest = set::create(&vault, &sources, &request, &Noon).await.unwrap();
    let artifact = &manifest.artifacts[0];
    assert_eq!(artifact.consistency, Consistency::Snapshot);
    for (kind, count) in
        [("users", 2), ("vhosts", 2), ("queues", 2), ("exchanges", 2), ("bindings", 2), ("policies", 1), ("topic_permissions", 1)]
    {
        assert_eq!(artifact.contents[kind].count, count, "{kind}: {:?}", artifact.contents);
    }
    assert!(artifact.notes[0].contains("messages are not included"));
    for (path, bytes) in vault.objects() {
        assert!(!bytes.windows(13).any(|window| window == b"password_hash"), "{path} shows hashes");
    }

    // The other broker has the same user with another password, which the restore changes under itself.
    let name_of_set = "broker".parse().unwrap();
    let into = source(&other, "guest", "guest");
    set::restore(&vault, &request.set, &name_of_set, &into, RestoreMode::IntoEmpty, &keys).await.unwrap();
    assert!(matches!(into.inspect().await, Err(SourceError::Denied { .. })), "the password is the one of the set");
    let into = source(&other, "guest", "hunter2-guest");
    let users = other.control(&["list_users"]);
    assert!(!users.contains("kaleem-restore"), "{users}");
    assert_eq!(into.inspect().await.unwrap(), artifact.contents);
    other.control(&["authenticate_user", "app", "hunter2-app"]);

    let refused = set::restore(&vault, &request.set, &name_of_set, &into, RestoreMode::IntoEmpty, &keys).await;
    assert!(refused.is_err(), "it is not empty any more");
    // Something was added and something was taken away: it goes back, unless a message would be lost.
    other.control(&["add_user", "late", "comer"]);
    other.control(&["delete_user", "app"]);
    other.control(&["add_vhost", "late"]);
    let queue = |name: &str| format!("http://127.0.0.1:{}/api/queues/%2F/{name}", other.server.port);
    let guest =
        |request: reqwest::RequestBuilder| request.basic_auth("guest", Some("hunter2-guest")).header("content-type", "application/json");
    for (name, kind) in [("early", "classic"), ("late", "classic"), ("ledger", "quorum")] {
        let body = format!(r#"{{"durable":true,"arguments":{{"x-queue-type":"{kind}"}}}}"#);
        let answer = guest(web.put(queue(name)).body(body)).send().await.unwrap();
        assert!(answer.status().is_success(), "{name}: {answer:?}");
    }
    let counted = async |name: &str, messages: u64| {
        for _ in 0..120 {
            let answer = guest(web.get(queue(name))).send().await.unwrap().text().await.unwrap();
            if answer.contains(&format!("\"messages\":{messages},")) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        panic!("the broker never counted {messages} messages in {name}");
    };
    for name in ["late", "ledger"] {
        // The broker has just counted none, so its count is wrong for the next seconds.
        counted(name, 0).await;
        publish(&other, "hunter2-guest", "%2F", name).await;
        let before = into.inspect().await.unwrap();
        let refused = set::restore(&vault, &request.set, &name_of_set, &into, RestoreMode::Replace, &keys).await.unwrap_err();
        let said = kaleem_core::remedy::one_line(&refused);
        assert!(said.contains(&format!("what the queue `{name}` of `/` holds would be lost")), "{said}");
        assert_eq!(into.inspect().await.unwrap(), before, "nothing was changed");
        assert!(other.control(&["list_queues", "name", "messages"]).contains(&format!("{name}\t1\n")), "the message of {name} is gone");
        other.control(&["purge_queue", name]);
    }
    // Empty, and counted as such: now they may go.
    counted("late", 0).await;
    counted("ledger", 0).await;
    let replaced = set::restore(&vault, &request.set, &name_of_set, &into, RestoreMode::Replace, &keys).await;
    replaced.unwrap();
    assert_eq!(into.inspect().await.unwrap(), artifact.contents);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_refuses_or_is_gone_is_an_error_that_shows_no_password() {
    let Some(mut rabbit) = servers::rabbit() else { return };
    rabbit.control(&["add_user", "plain", "hunter2"]);
    for (why, user, password) in [("a wrong password", "guest", "hunter2"), ("no administrator", "plain", "hunter2")] {
        let error = source(&rabbit, user, password).inspect().await.unwrap_err();
        assert!(matches!(error, SourceError::Denied { .. }), "{why}: {error:?}");
        let shown = format!("{error:?} {}", kaleem_core::remedy::one_line(&error));
        assert!(!shown.contains("hunter2"), "{why}: {shown}");
    }
    rabbit.server.kill();
    let error = source(&rabbit, "guest", "hunter2").inspect().await.unwrap_err();
    assert!(matches!(error, SourceError::Unreachable { .. }), "{error:?}");
    assert!(!format!("{error:?}").contains("hunter2"));
    for text in ["amqp://guest:hunter2@h", "http://127.0.0.1:1", "nonsense hunter2"] {
        let error = RabbitmqSource::new("broker".parse().unwrap(), &Secret::new(text.to_owned()), Duration::from_secs(1)).unwrap_err();
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}

#[tokio::test]
async fn definitions_that_are_cut_at_any_byte_are_refused() {
    let contents = verify(stream(SHOP.as_bytes())).await.unwrap();
    assert_eq!(contents["bindings"].count, 2);
    for length in 0..SHOP.len() {
        assert!(verify(stream(&SHOP.as_bytes()[..length])).await.is_err(), "cut at {length}");
    }
    assert!(verify(stream(b"{}")).await.is_err(), "no lists");
    let mut changed = 0;
    // A field that is empty is the same as none: versions of the broker differ in which of them they tell.
    let empty: Vec<_> = [r#""tags":"""#, r#""arguments":{}"#]
        .iter()
        .flat_map(|field| SHOP.match_indices(field))
        .map(|(at, field)| at..at + field.len())
        .collect();
    for at in 0..SHOP.len() {
        let mut bytes = SHOP.as_bytes().to_vec();
        bytes[at] ^= 1;
        // White space may become other white space; everything else is seen.
        match verify(stream(&bytes)).await {
            Ok(found) if found == contents => {
                let says_nothing = SHOP.as_bytes()[at].is_ascii_whitespace() || empty.iter().any(|range| range.contains(&at));
                assert!(says_nothing, "byte {at}");
            }
            _ => changed += 1,
        }
    }
    assert!(changed > SHOP.len() / 2);
}

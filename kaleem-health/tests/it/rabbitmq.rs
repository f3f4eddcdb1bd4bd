//! RabbitMQ: a broker in alarm, queues without consumers, refused logins. One broker serves all rows, since it starts slowly.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kaleem_core::health::{Finding, HealthProbe, Verdict};
use kaleem_core::secret::Secret;
use kaleem_core::testing::free_port;
use kaleem_core::testing::probe_contract::{self, SECRET, discreet};
use kaleem_core::testing::rabbitmq::{self as broker, BrokerPorts};
use kaleem_health::settings::{QueueRule, RabbitmqSettings, TlsSettings};
use kaleem_health::{KnownHosts, RabbitmqProbe};
use lapin::options::{BasicPublishOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Connection, ConnectionProperties};

use crate::servers::{Process, program, run_with, start, write};
use crate::web::Authority;

const TIMEOUT: Duration = Duration::from_secs(10);

/// One node, and what speaks to it.
struct Node {
    server: Process,
    port: u16,
    management: u16,
    variables: Vec<(&'static str, String)>,
}

struct Broker {
    first: Node,
    epmd: Process,
    /// Whose certificate stands at the TLS listener of the first node.
    authority: Authority,
}

impl Node {
    /// A node with a directory of its own; the cookie is in `home`.
    fn start(mapper: u16, home: Option<&Path>, configured: &dyn Fn(&Path) -> String) -> Option<Self> {
        let server = program("rabbitmq-server", "KALEEM_TEST_RABBITMQ_SERVER")?;
        let behind = PathBuf::from(broker::SERVER);
        let server = if behind.is_file() { behind } else { server };
        let (port, management, distribution) = (free_port(), free_port(), free_port());
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path();
        write(&place.join("plugins"), "[rabbitmq_management].\n");
        write(
            &place.join("rabbitmq.conf"),
            &format!(
                "listeners.tcp.1 = 127.0.0.1:{port}\nmanagement.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {management}\nvm_memory_high_watermark.absolute = 4GB\ndisk_free_limit.absolute = 1MB\n{}",
                configured(place)
            ),
        );
        let variables = broker::environment(place, home.unwrap_or(place), BrokerPorts { amqp: port, distribution, mapper });
        // Management first: it listens for a moment even where AMQP will not.
        let mut server = start(&server, &[], &variables, directory, management);
        server.wait_for(port);
        Some(Self { server, port, management, variables })
    }

    fn control(&self, arguments: &[&str]) {
        run_with(&PathBuf::from(broker::CONTROL), arguments, &self.variables);
    }
}

impl Broker {
    /// A broker of one node with a port mapper of its own.
    fn start() -> Option<Self> {
        let epmd_port = free_port();
        let epmd = start(
            &program("epmd", "KALEEM_TEST_EPMD")?,
            &["-address".into(), "127.0.0.1".into(), "-port".into(), epmd_port.to_string()],
            &[],
            tempfile::tempdir().unwrap(),
            epmd_port,
        );
        let authority = Authority::new();
        let first = Node::start(epmd_port, None, &|place| {
            let definitions = place.join("definitions.json");
            write(
                &definitions,
                &format!(
                    r#"{{
            "users": [{{"name":"app","password":"{SECRET}","tags":"monitoring"}},{{"name":"plain","password":"{SECRET}","tags":""}},{{"name":"root","password":"{SECRET}","tags":"administrator"}}],
            "vhosts": [{{"name":"/"}},{{"name":"other"}}],
            "permissions": [
              {{"user":"app","vhost":"/","configure":"^$","write":"^(amq\\.default)?$","read":"^$"}},
              {{"user":"plain","vhost":"/","configure":"^$","write":"^$","read":"^$"}},
              {{"user":"root","vhost":"/","configure":".*","write":".*","read":".*"}}],
            "queues": [{{"name":"orders","vhost":"/","durable":true,"auto_delete":false,"arguments":{{}}}}]
        }}"#
                ),
            );
            certify(&authority, place, 90);
            format!("load_definitions = {}\n{}", definitions.display(), with_tls(place))
        })?;
        Some(Self { first, epmd, authority })
    }

    /// A second node, which joins the first.
    fn joined(&self) -> Node {
        let mate = Node::start(self.epmd.port, Some(self.first.server.directory.path()), &|place| {
            certify(&self.authority, place, 19);
            write(&place.join("ca.pem"), &self.authority.pem());
            format!("{}ssl_options.cacertfile = {}/ca.pem\n", with_tls(place), place.display())
        })
        .unwrap();
        mate.control(&["stop_app"]);
        mate.control(&["join_cluster", &format!("kaleem-{}@localhost", self.first.port)]);
        mate.control(&["start_app"]);
        mate
    }

    /// The certificate of its TLS listener is one for so many days from now on.
    fn certify(&self, days: i64) {
        certify(&self.authority, self.first.server.directory.path(), days);
    }

    fn control(&self, arguments: &[&str]) {
        self.first.control(arguments);
    }

    fn settings(&self, user: &str, vhost: &str) -> RabbitmqSettings {
        let url = format!("amqp://{user}:{SECRET}@127.0.0.1:{}/{vhost}", self.first.port);
        RabbitmqSettings::amqp(Secret::new(url))
    }

    fn managed(&self, user: &str) -> RabbitmqSettings {
        RabbitmqSettings { management: Some(format!("http://127.0.0.1:{}", self.first.management)), ..self.settings(user, "%2F") }
    }

    async fn connected(&self) -> Connection {
        let url = format!("amqp://root:{SECRET}@127.0.0.1:{}/%2F", self.first.port);
        Connection::connect(&url, ConnectionProperties::default()).await.unwrap()
    }

    async fn declare_quorum_queue(&self) {
        let connection = self.connected().await;
        let channel = connection.create_channel().await.unwrap();
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare("replicated".into(), options, arguments).await.unwrap();
        connection.close(200, "done".into()).await.unwrap();
    }

    async fn publish(&self, messages: u32) {
        let connection = self.connected().await;
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(lapin::options::ConfirmSelectOptions::default()).await.unwrap();
        for _ in 0..messages {
            let sent =
                channel.basic_publish("".into(), "orders".into(), BasicPublishOptions::default(), b"x", BasicProperties::default()).await;
            sent.unwrap().await.unwrap();
        }
        connection.close(200, "done".into()).await.unwrap();
    }
}

fn with_tls(place: &Path) -> String {
    let (port, place) = (free_port(), place.display());
    format!("listeners.ssl.1 = 127.0.0.1:{port}\nssl_options.certfile = {place}/cert.pem\nssl_options.keyfile = {place}/key.pem\n")
}

fn certify(authority: &Authority, place: &Path, days: i64) {
    let (certificate, key) = authority.leaf("localhost", days);
    write(&place.join("cert.pem"), &certificate);
    write(&place.join("key.pem"), &key);
}

fn probe(settings: RabbitmqSettings) -> RabbitmqProbe {
    RabbitmqProbe::new("broker", settings, Arc::new(KnownHosts::new())).unwrap()
}

fn queue(name: &str, depth: Option<(u32, u32)>, least_consumers: u32) -> Vec<QueueRule> {
    vec![QueueRule { name: name.to_owned(), depth, least_consumers, watch_growth: true }]
}

#[track_caller]
fn expect(why: &str, finding: &Finding, verdict: Verdict, reason: &str) {
    discreet(why, finding);
    assert_eq!((finding.verdict, finding.reason.contains(reason)), (verdict, true), "{why}: {finding:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_holds() {
    let make = |address: SocketAddr| -> Arc<dyn HealthProbe> {
        Arc::new(probe(RabbitmqSettings {
            tls: TlsSettings::STANDARD,
            ..RabbitmqSettings::amqp(Secret::new(format!("amqp://app:{SECRET}@{address}/%2F")))
        }))
    };
    // Each run of this client costs a thread.
    probe_contract::every_promise_is_kept(&make, crate::support::runs()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bad_state_of_a_broker_has_its_verdict() {
    let Some(broker) = Broker::start() else { return };
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let wrong = RabbitmqSettings::amqp(Secret::new(format!("amqp://app:wrong@127.0.0.1:{}/%2F", broker.first.port)));
    let silent = |user: &str| RabbitmqSettings { canary: false, ..broker.settings(user, "%2F") };
    for (why, settings, verdict, reason) in [
        ("well", broker.managed("app"), Verdict::Ok, "over AMQP and the management API, and takes messages"),
        ("wrong password", wrong, Verdict::Unknown, "does not accept `app` or its password"),
        ("no such virtual host", broker.settings("app", "market"), Verdict::Fail, "has no virtual host `market`"),
        ("not let in", broker.settings("app", "other"), Verdict::Unknown, "does not let `app` into the virtual host `other`"),
        ("may not publish", broker.settings("plain", "%2F"), Verdict::Unknown, "does not let it publish"),
        ("needs not publish", silent("plain"), Verdict::Ok, "answers over AMQP"),
        (
            "may not look",
            RabbitmqSettings { canary: false, ..broker.managed("plain") },
            Verdict::Unknown,
            "does not accept the user or its tags",
        ),
        (
            "management is off",
            RabbitmqSettings { management: Some(nobody), ..broker.settings("app", "%2F") },
            Verdict::Unknown,
            "cannot be reached",
        ),
        (
            "no such queue",
            RabbitmqSettings { queues: queue("invoices", None, 0), ..silent("plain") },
            Verdict::Fail,
            "the queue `invoices` is not there",
        ),
        (
            "no consumer",
            RabbitmqSettings { queues: queue("orders", None, 1), ..silent("plain") },
            Verdict::Fail,
            "the queue `orders` has no consumer",
        ),
        (
            "a queue that is well",
            RabbitmqSettings { queues: queue("orders", Some((10, 20)), 0), ..silent("plain") },
            Verdict::Ok,
            "answers",
        ),
    ] {
        expect(why, &probe(settings).check(TIMEOUT).await, verdict, reason);
    }

    let watched = probe(RabbitmqSettings { queues: queue("orders", Some((8, 100)), 0), ..silent("plain") });
    for (why, messages, verdict, reason) in [
        ("empty", 0, Verdict::Ok, "answers"),
        ("one step", 2, Verdict::Ok, "answers"),
        ("two steps", 2, Verdict::Ok, "answers"),
        ("three steps", 2, Verdict::Warn, "keeps growing: 0 to 6 messages in 3 looks"),
        ("deep", 3, Verdict::Warn, "holds 9 messages"),
        ("too deep", 95, Verdict::Fail, "holds 104 messages, and 100 is the limit"),
    ] {
        broker.publish(messages).await;
        expect(why, &watched.check(TIMEOUT).await, verdict, reason);
    }

    let (over_amqp, managed) = (probe(broker.settings("app", "%2F")), probe(RabbitmqSettings { canary: false, ..broker.managed("app") }));
    expect("before the alarm", &over_amqp.check(TIMEOUT).await, Verdict::Ok, "takes messages");
    broker.control(&["set_vm_memory_high_watermark", "absolute", "1MB"]);
    let alarm = "a memory or disk alarm is set in the cluster: nobody can publish; the alarm is one of this node";
    expect("alarm over HTTP", &managed.check(TIMEOUT).await, Verdict::Fail, alarm);
    expect("alarm over AMQP", &over_amqp.check(TIMEOUT).await, Verdict::Fail, "it takes no messages");
    expect("still blocked", &over_amqp.check(TIMEOUT).await, Verdict::Fail, "it takes no messages");
    broker.control(&["set_vm_memory_high_watermark", "absolute", "4GB"]);
    let mut finding = over_amqp.check(TIMEOUT).await;
    for _ in 0..50 {
        if finding.verdict == Verdict::Ok {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        finding = over_amqp.check(TIMEOUT).await;
    }
    expect("after the alarm", &finding, Verdict::Ok, "takes messages");

    broker.first.server.signal("STOP");
    let finding = over_amqp.check(Duration::from_millis(500)).await;
    broker.first.server.signal("CONT");
    expect("frozen", &finding, Verdict::Fail, "did not answer within 500ms");
    expect("thawed", &over_amqp.check(TIMEOUT).await, Verdict::Ok, "takes messages");

    for (why, days, verdict, reason) in [
        ("a certificate for 19 days", 19, Verdict::Warn, "a certificate of its listeners ends within 20 days, as it seems"),
        ("a certificate for 2 days", 2, Verdict::Fail, "a certificate of its listeners ends within 3 days, as it seems"),
        ("a new certificate", 90, Verdict::Ok, "answers"),
    ] {
        broker.certify(days);
        expect(why, &managed.check(TIMEOUT).await, verdict, reason);
    }

    broker.control(&["eval", "rabbit_vhost_sup_sup:stop_and_delete_vhost(<<\"other\">>)."]);
    expect("a virtual host is down", &managed.check(TIMEOUT).await, Verdict::Fail, "a virtual host is not running");
    broker.control(&["restart_vhost", "--vhost", "other"]);
    expect("the virtual host is restarted", &managed.check(TIMEOUT).await, Verdict::Ok, "answers");

    let mate = broker.joined();
    expect("two nodes", &managed.check(TIMEOUT).await, Verdict::Ok, "answers");
    let ends_soon = probe(RabbitmqSettings { management: Some(format!("http://127.0.0.1:{}", mate.management)), ..silent("app") });
    let finding = ends_soon.check(TIMEOUT).await;
    expect("a certificate of the other node", &finding, Verdict::Warn, "a certificate of its listeners ends within 20 days");
    assert!(!finding.reason.contains("as it seems"), "{finding:?}");
    broker.declare_quorum_queue().await;
    let critical = "stopping this node would cost a quorum queue its majority";
    expect("a quorum of two", &managed.check(TIMEOUT).await, Verdict::Warn, critical);
}

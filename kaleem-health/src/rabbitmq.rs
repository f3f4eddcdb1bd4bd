//! RabbitMQ over AMQP and its management API: a broker in alarm accepts connections and takes no message.

mod link;
mod management;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kaleem_core::health::{Finding, HealthProbe, Resolver, Verdict};
use kaleem_core::secret::Secret;
use lapin::uri::{AMQPScheme, AMQPUri};
use tokio::sync::Mutex;
use url::Url;

use crate::dial::Endpoint;
use crate::report::{Report, bounded, word};
use crate::settings::{QueueRule, RabbitmqSettings, SettingsError};
use crate::web::client::{Client, web_address};
use link::{Depth, Link, Missed};

/// Depths that are remembered of a queue: three steps upwards are growth.
const REMEMBERED: usize = 4;

/// Asks a RabbitMQ. The AMQP connection is held between runs, as an application's would be.
pub struct RabbitmqProbe {
    name: String,
    settings: RabbitmqSettings,
    endpoint: Endpoint,
    uri: AMQPUri,
    management: Option<(Url, Client)>,
    resolver: Arc<dyn Resolver>,
    held: Mutex<Option<Link>>,
    depths: Mutex<BTreeMap<String, Vec<u32>>>,
}

impl RabbitmqProbe {
    /// A probe; nothing is connected yet.
    ///
    /// # Errors
    /// [`SettingsError`] when an address or a certificate cannot be read.
    pub fn new(name: &str, settings: RabbitmqSettings, resolver: Arc<dyn Resolver>) -> Result<Self, SettingsError> {
        let bad = SettingsError::Address { kind: "rabbitmq", reason: "it is not an address of AMQP" };
        let mut uri: AMQPUri = settings.url.expose().parse().map_err(|_| bad)?;
        // The client's own reading of an address takes `[::1]` for no host at all, and asks this machine.
        let host = crate::settings::host("rabbitmq", &crate::settings::parse("rabbitmq", &settings.url)?)?;
        uri.authority.host.clone_from(&host);
        let endpoint = Endpoint { host, port: uri.authority.port, tls: None };
        let management = match &settings.management {
            None => None,
            Some(address) => {
                let mut url =
                    web_address("rabbitmq management", crate::settings::parse("rabbitmq management", &Secret::new(address.clone()))?)?;
                let user = &uri.authority.userinfo;
                // Only an address without a host refuses these, and it has one.
                if url.username().is_empty()
                    && (url.set_username(&user.username).is_err() || url.set_password(Some(&user.password)).is_err())
                {
                    return Err(SettingsError::Address { kind: "rabbitmq management", reason: "it takes no user" });
                }
                Some((url, Client::new(&settings.tls, Arc::clone(&resolver))?))
            }
        };
        Ok(Self {
            name: name.to_owned(),
            settings,
            endpoint,
            uri,
            management,
            resolver,
            held: Mutex::new(None),
            depths: Mutex::new(BTreeMap::new()),
        })
    }

    async fn amqp(&self, report: &mut Report, timeout: Duration) -> BTreeMap<String, Duration> {
        // A connection that was being used when a run was cut short is in no known state: it is taken out, and put back when all went well.
        let mut held = self.held.lock().await;
        let link = match held.take().filter(Link::is_usable) {
            Some(link) => link,
            None => match Link::open(&self.endpoint, &self.uri, self.resolver.as_ref(), timeout).await {
                Ok(link) => link,
                Err(missed) => {
                    report.take("", missed.finding(&self.endpoint, &self.uri));
                    return BTreeMap::new();
                }
            },
        };
        let phases = link.phases.clone();
        // A broker in alarm reads nothing from those who publish: any question would hang, so its notice ends them all.
        tokio::select! {
            said = self.questions(&link) => report.take_all(said),
            () = link.until_blocked() => blocked(report),
        }
        if link.is_usable() {
            *held = Some(link);
        }
        phases
    }

    async fn questions(&self, link: &Link) -> Report {
        let mut report = Report::default();
        for rule in &self.settings.queues {
            match link.depth(&rule.name).await {
                Ok(depth) => self.judge_queue(&mut report, rule, depth).await,
                Err(Missed::Absent) => report.fail(
                    format!("the queue `{}` is not there", word(&rule.name)),
                    "start what declares it, or check the virtual host in the address",
                ),
                Err(missed) => report.take("", missed.finding(&self.endpoint, &self.uri)),
            }
        }
        if self.settings.canary
            && let Err(missed) = link.publish().await
        {
            report.take("", missed.finding(&self.endpoint, &self.uri));
        }
        report
    }

    async fn judge_queue(&self, report: &mut Report, rule: &QueueRule, depth: Depth) {
        let name = word(&rule.name).to_owned();
        report.measure(&format!("{name}_messages"), f64::from(depth.messages), "");
        report.measure(&format!("{name}_consumers"), f64::from(depth.consumers), "");
        if depth.consumers < rule.least_consumers {
            let of = if rule.least_consumers == 1 {
                "no consumer".to_owned()
            } else {
                format!("{} of {} consumers", depth.consumers, rule.least_consumers)
            };
            report.fail(format!("the queue `{name}` has {of}"), "start its workers, and see why they ended");
        }
        let remedy = "see whether its consumers keep up: `rabbitmqctl list_queues name messages_ready messages_unacknowledged consumers`";
        if let Some((warn, fail)) = rule.depth {
            if depth.messages >= fail {
                report.fail(format!("the queue `{name}` holds {} messages, and {fail} is the limit", depth.messages), remedy);
            } else if depth.messages >= warn {
                report.warn(format!("the queue `{name}` holds {} messages", depth.messages), remedy);
            }
        }
        let mut depths = self.depths.lock().await;
        let seen = depths.entry(rule.name.clone()).or_default();
        seen.push(depth.messages);
        if seen.len() > REMEMBERED {
            seen.remove(0);
        }
        if rule.watch_growth && seen.len() == REMEMBERED && seen.windows(2).all(|pair| matches!(pair, [then, now] if now > then)) {
            let first = seen.first().copied().unwrap_or_default();
            report.warn(
                format!("the queue `{name}` keeps growing: {first} to {} messages in {} looks", depth.messages, REMEMBERED - 1),
                remedy,
            );
        }
    }
}

fn blocked(report: &mut Report) {
    report.fail(
        "it takes no messages: a memory or disk alarm blocks everybody who publishes",
        "see which alarm: `rabbitmq-diagnostics check_local_alarms`; drain queues, free the disk, or raise the limit",
    );
}

#[async_trait]
impl HealthProbe for RabbitmqProbe {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "rabbitmq"
    }

    async fn check(&self, timeout: Duration) -> Finding {
        let attempt = async {
            let mut report = Report::default();
            let phases = self.amqp(&mut report, timeout).await;
            let mut asked = "over AMQP";
            if let Some((url, client)) = &self.management {
                management::ask(&mut report, url, client, timeout).await;
                asked = "over AMQP and the management API";
            }
            let took = if self.settings.canary { ", and takes messages" } else { "" };
            let host = if self.uri.scheme == AMQPScheme::AMQPS { "rabbitmq (TLS)" } else { "rabbitmq" };
            let mut finding = report.finish(format!("{host} answers {asked}{took}"));
            finding.phases = phases;
            finding
        };
        bounded(timeout, attempt, || {
            Finding::new(Verdict::Fail, format!("{} accepted the connection, and did not answer within {timeout:?}", self.endpoint))
                .with_remedy("see its log and load: `rabbitmq-diagnostics status`")
        })
        .await
    }
}

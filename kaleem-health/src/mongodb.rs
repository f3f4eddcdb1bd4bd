//! MongoDB over its own driver: every member is asked directly, and the set is judged, not the one that answered.

mod canary;
mod hello;
mod oplog;
mod set;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use kaleem_core::clock::{Clock, SystemClock};
use kaleem_core::health::{Finding, HealthProbe, Resolver, Verdict};
use mongodb::Client;
use mongodb::bson::{Document, doc};
use mongodb::error::{Error, ErrorKind};
use mongodb::options::{ClientOptions, ServerAddress};
use tokio::sync::Mutex;

use crate::dial::Endpoint;
use crate::report::{Report, bounded};
use crate::settings::{MongodbSettings, SettingsError};
use oplog::Oplog;
use set::SetView;

/// Members that are asked in one run; MongoDB allows 50.
const MOST_MEMBERS: usize = 50;
/// A server that has just said hello is found at once; this only bounds one that dies in between.
const LONGEST_SELECTION: Duration = Duration::from_secs(2);
/// A server with fewer connections than this does not refuse any.
const LEAST_LIMIT: f64 = 100.0;
const NOT_AUTHORIZED: i32 = 13;
const AUTHENTICATION_FAILED: i32 = 18;
const NO_REPLICATION: i32 = 76;
/// A set that was configured on the command line and never initiated.
const NOT_YET_INITIALIZED: i32 = 94;
/// A member that the set does not know any more.
const NOT_A_MEMBER: i32 = 93;

/// Asks a MongoDB: one server, or every member of a replica set. Connections are held between runs.
pub struct MongodbProbe {
    name: String,
    settings: MongodbSettings,
    resolver: Arc<dyn Resolver>,
    held: Mutex<BTreeMap<String, Client>>,
    /// Since when no primary was seen.
    orphaned: Mutex<Option<Duration>>,
}

/// What one member said.
#[derive(Debug, Default)]
struct Member {
    hello: Document,
    /// `None` on a server without a set.
    status: Option<Document>,
    /// Current and available connections.
    connections: Option<(f64, f64)>,
    /// Of a primary, where it may be read.
    oplog: Option<Oplog>,
    phases: BTreeMap<String, Duration>,
    /// What could not be asked.
    denied: Option<Finding>,
    /// What is wrong with it whatever the set looks like, and what the canary saw.
    own: Report,
}

impl MongodbProbe {
    /// A probe; nothing is connected yet.
    ///
    /// # Errors
    /// [`SettingsError::Address`] when the address is not one of MongoDB.
    pub fn new(name: &str, settings: MongodbSettings, resolver: Arc<dyn Resolver>) -> Result<Self, SettingsError> {
        let url = settings.url.expose();
        let reason = if url.starts_with("mongodb+srv://") {
            "names of SRV records are not looked up: write the members as `mongodb://`"
        } else if url.starts_with("mongodb://") {
            return Ok(Self { name: name.to_owned(), settings, resolver, held: Mutex::new(BTreeMap::new()), orphaned: Mutex::new(None) });
        } else {
            "it does not start with `mongodb://`"
        };
        Err(SettingsError::Address { kind: "mongodb", reason })
    }

    async fn attempt(&self, timeout: Duration) -> Finding {
        let options = match ClientOptions::parse(self.settings.url.expose()).await {
            Ok(options) => options,
            // The text of the error may hold the password.
            Err(_) => {
                return Finding::new(Verdict::Unknown, "the address of the mongodb probe cannot be used")
                    .with_remedy("write it as `mongodb://user:password@host:27017/?replicaSet=rs0`, with special characters as %XX");
            }
        };
        let seeds: Vec<(String, u16)> = options.hosts.iter().filter_map(tcp).collect();
        let mut answers = self.ask_all(&seeds, &options, timeout).await;
        let known: BTreeSet<(String, u16)> = seeds.into_iter().collect();
        let named: BTreeSet<(String, u16)> =
            answers.iter().filter_map(|(_, answer)| answer.as_ref().ok()).flat_map(|member| hosts(&member.hello)).collect();
        // Members are named as the set knows them; where that name leads nowhere from here, the view of the others counts.
        let others: Vec<(String, u16)> = if options.direct_connection == Some(true) {
            Vec::new()
        } else {
            named.difference(&known).take(MOST_MEMBERS).cloned().collect()
        };
        answers.extend(
            self.ask_all(&others, &options, timeout)
                .await
                .into_iter()
                .filter(|(_, answer)| !matches!(answer, Err(finding) if finding.verdict == Verdict::Unknown)),
        );
        self.judge(answers).await
    }

    async fn ask_all(
        &self,
        places: &[(String, u16)],
        options: &ClientOptions,
        timeout: Duration,
    ) -> Vec<(String, Result<Member, Finding>)> {
        let share = timeout.mul_f64(0.45);
        join_all(places.iter().map(|(host, port)| async move {
            let place = format!("{host}:{port}");
            let asked = tokio::time::timeout(share, self.ask(host, *port, options, share)).await;
            let late = || {
                Err(Finding::new(Verdict::Fail, format!("{place} accepted the connection, and did not answer within {share:?}"))
                    .with_remedy("look for a frozen process or a full disk, and for slow operations: `db.currentOp()`"))
            };
            let answer = asked.unwrap_or_else(|_| late());
            if answer.is_err()
                && let Some(client) = self.held.lock().await.remove(&place)
            {
                client.shutdown().immediate(true).await;
            }
            (place, answer)
        }))
        .await
    }

    async fn ask(&self, host: &str, port: u16, options: &ClientOptions, timeout: Duration) -> Result<Member, Finding> {
        let place = format!("{host}:{port}");
        let mut member = Member::default();
        let held = self.held.lock().await.get(&place).cloned();
        let client = match held {
            Some(client) => client,
            None => {
                let endpoint = Endpoint { host: host.to_owned(), port, tls: None };
                let (address, phases) = hello::greet(&endpoint, options.tls.is_none(), self.resolver.as_ref(), timeout).await?;
                member.phases = phases;
                let mut options = options.clone();
                // A certificate is for the name; without one, the address that has just answered is used.
                let host = if options.tls.is_some() { host.to_owned() } else { address.ip().to_string() };
                options.hosts = vec![ServerAddress::Tcp { host, port: Some(if options.tls.is_some() { port } else { address.port() }) }];
                options.direct_connection = Some(true);
                options.repl_set_name = None;
                options.app_name = Some("kaleem-health".to_owned());
                options.max_pool_size = Some(1);
                options.connect_timeout = Some(timeout.min(LONGEST_SELECTION));
                options.server_selection_timeout = Some(timeout.min(LONGEST_SELECTION));
                let client = Client::with_options(options).map_err(|error| problem(&place, &error))?;
                self.held.lock().await.insert(place.clone(), client.clone());
                client
            }
        };
        let admin = client.database("admin");
        admin.run_command(doc! { "ping": 1 }).await.map_err(|error| problem(&place, &error))?;
        member.hello = admin.run_command(doc! { "hello": 1 }).await.map_err(|error| problem(&place, &error))?;
        match admin.run_command(doc! { "replSetGetStatus": 1 }).await {
            Ok(status) => member.status = Some(status),
            Err(error) if code(&error) == Some(NO_REPLICATION) => {}
            Err(error) if code(&error) == Some(NOT_YET_INITIALIZED) => member.own.fail(
                format!("{place} belongs to a replica set that was never initiated: it takes no writes"),
                "initiate it once, in `mongosh`: `rs.initiate()`",
            ),
            Err(error) if code(&error) == Some(NOT_A_MEMBER) => member
                .own
                .fail(format!("{place} is no member of the set that it was in"), "add it again: `rs.add(\"HOST:27017\")` at the primary"),
            // A router or another server that knows no sets.
            Err(_) if !member.hello.contains_key("setName") => {}
            Err(error) => member.denied = Some(problem(&place, &error)),
        }
        match admin.run_command(doc! { "serverStatus": 1, "metrics": 0, "wiredTiger": 0, "tcmalloc": 0 }).await {
            Ok(status) => {
                let connections = status.get_document("connections").ok();
                let number = |name: &str| connections.and_then(|connections| set::number(connections, name));
                member.connections = number("current").zip(number("available"));
            }
            Err(error) if member.denied.is_none() => member.denied = Some(problem(&place, &error)),
            Err(_) => {}
        }
        if member.hello.contains_key("setName") && member.hello.get_bool("isWritablePrimary").unwrap_or(false) {
            member.oplog = Oplog::ask(&client).await;
        }
        let writable = ["isWritablePrimary", "ismaster"].iter().any(|name| member.hello.get_bool(name).unwrap_or(false));
        if self.settings.canary && writable {
            // Less than what is left, so that it is the canary that says what it means.
            canary::fly(&client, &place, timeout / 2, &mut member.own).await;
        }
        Ok(member)
    }

    async fn judge(&self, answers: Vec<(String, Result<Member, Finding>)>) -> Finding {
        let mut report = Report::default();
        let limits = &self.settings.limits;
        let asked = answers.len();
        let (mut views, mut phases, mut in_set, mut alive) = (Vec::new(), BTreeMap::new(), false, 0_usize);
        let mut silent = Vec::new();
        for (place, answer) in answers {
            match answer {
                Ok(member) => {
                    alive += 1;
                    in_set |= member.hello.contains_key("setName");
                    if let Some((current, available)) = member.connections {
                        report.measure("connections", current, "");
                        // Compatible servers report no limit, as nothing left; the least that MongoDB itself allows is far above.
                        if available > 0.0 || current >= LEAST_LIMIT {
                            report.share(
                                &format!("{place}: its connections are"),
                                current / (current + available).max(1.0) * 100.0,
                                limits.connections_percent,
                                "find the client that leaks connections (`db.serverStatus().connections`), or raise `maxIncomingConnections`",
                            );
                        }
                    }
                    report.take_all(member.own);
                    if let Some(denied) = member.denied {
                        report.take("", denied);
                    }
                    if let Some(oplog) = member.oplog {
                        oplog.judge(&mut report, limits);
                    }
                    views.extend(member.status.as_ref().map(SetView::read));
                    if phases.is_empty() {
                        phases = member.phases;
                    }
                }
                Err(finding) => silent.push(finding),
            }
        }
        // The view of the member that sees most is the set's; one that is cut off sees the others as down.
        let view = views.into_iter().max_by_key(|view| (view.primaries(), view.healthy()));
        for finding in silent {
            // One of several that is gone is judged by what it means for the set.
            if alive > 0 && finding.verdict == Verdict::Fail && view.as_ref().is_some_and(SetView::has_majority) {
                report.warn(finding.reason, finding.remedy.unwrap_or_default());
            } else {
                report.take("", finding);
            }
        }
        let mut what = "one server".to_owned();
        if let Some(view) = &view {
            let mut orphaned = self.orphaned.lock().await;
            let now = SystemClock.monotonic();
            let since = if view.primaries() == 0 { *orphaned.get_or_insert(now) } else { now };
            if view.primaries() > 0 {
                *orphaned = None;
            }
            view.judge(&mut report, limits, now.saturating_sub(since));
            what = format!("{} of {} members are well, one of them primary", view.healthy(), view.members.len());
        } else if in_set && alive > 0 {
            what = "a member of a set".to_owned();
        }
        let mut finding = report.finish(format!("mongodb answers ({alive} of {asked} asked): {what}"));
        finding.phases = phases;
        finding
    }
}

fn tcp(address: &ServerAddress) -> Option<(String, u16)> {
    match address {
        ServerAddress::Tcp { host, port } => Some((host.clone(), port.unwrap_or(27017))),
        _ => None,
    }
}

/// Members with data and arbiters, as the set names them.
fn hosts(hello: &Document) -> Vec<(String, u16)> {
    let lists = ["hosts", "passives", "arbiters"].into_iter().filter_map(|name| hello.get_array(name).ok());
    let texts = lists.flatten().filter_map(|host| host.as_str());
    texts.filter_map(|text| text.rsplit_once(':')).filter_map(|(host, port)| Some((host.to_owned(), port.parse().ok()?))).collect()
}

fn code(error: &Error) -> Option<i32> {
    match error.kind.as_ref() {
        ErrorKind::Command(error) => Some(error.code),
        _ => None,
    }
}

/// What an error of the driver means; its text may hold anything and is not repeated.
fn problem(place: &str, error: &Error) -> Finding {
    let grant = "grant it, in `mongosh` as an administrator: `use admin; db.grantRolesToUser(\"USER\", [\"clusterMonitor\"])`";
    let (verdict, reason, remedy) = match (error.kind.as_ref(), code(error)) {
        (ErrorKind::Authentication { .. }, _) | (_, Some(AUTHENTICATION_FAILED)) => (
            Verdict::Unknown,
            format!("{place} does not accept the user or its password"),
            "check user, password and `authSource` in the address",
        ),
        (_, Some(NOT_AUTHORIZED)) => (Verdict::Unknown, format!("{place} does not let this user read its state"), grant),
        (ErrorKind::InvalidTlsConfig { .. }, _) => {
            (Verdict::Unknown, format!("the TLS settings for {place} cannot be used"), "check the `tls…` options of the address")
        }
        (ErrorKind::ServerSelection { .. } | ErrorKind::Io(_) | ErrorKind::ConnectionPoolCleared { .. }, _) => (
            Verdict::Fail,
            format!("{place} does not complete the handshake of MongoDB"),
            "see its log; check `tls=true` in the address, and whether it is a MongoDB at all",
        ),
        (_, Some(code)) => return Finding::new(Verdict::Fail, format!("{place} answered with error {code}")).with_remedy("see its log"),
        _ => {
            (Verdict::Fail, format!("{place} did not answer as MongoDB does"), "see its log, and compare the versions of server and driver")
        }
    };
    Finding::new(verdict, reason).with_remedy(remedy)
}

#[async_trait]
impl HealthProbe for MongodbProbe {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "mongodb"
    }

    async fn check(&self, timeout: Duration) -> Finding {
        bounded(timeout, self.attempt(timeout), || {
            Finding::new(Verdict::Fail, format!("mongodb did not answer within {timeout:?}"))
                .with_remedy("look for a frozen process or a full disk, and for slow operations: `db.currentOp()`")
        })
        .await
    }
}

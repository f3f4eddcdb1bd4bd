//! Qdrant over REST and gRPC: `/readyz` stays true once it was, so collections, their optimizer and the cluster are asked.

mod grpc;
mod shards;
mod telemetry;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{self, StreamExt};
use kaleem_core::health::{Finding, HealthProbe, Resolver, Verdict};
use kaleem_core::secret::Secret;
use serde_json::Value;
use url::Url;

use crate::report::{Report, bounded, word};
use crate::settings::{HttpVersion, QdrantSettings, SettingsError, parse};
use crate::web::client::{Client, Fetched, shown, web_address};

/// Collections that are asked in one run.
const MOST_COLLECTIONS: usize = 100;
const AT_ONCE: usize = 4;

/// Asks a Qdrant.
pub struct QdrantProbe {
    name: String,
    settings: QdrantSettings,
    url: Url,
    client: Client,
    /// The gRPC port.
    grpc: Option<(Url, Client)>,
    seen: telemetry::Seen,
}

/// Why an endpoint gave no JSON result.
enum Miss {
    /// Said already.
    Said(Finding),
    /// 404: it does not exist there.
    Absent,
}

impl QdrantProbe {
    /// A probe; nothing is connected yet.
    ///
    /// # Errors
    /// [`SettingsError`] when the address or a certificate cannot be read.
    pub fn new(name: &str, settings: QdrantSettings, resolver: Arc<dyn Resolver>) -> Result<Self, SettingsError> {
        let url = web_address("qdrant", parse("qdrant", &settings.url)?)?;
        let client = Client::new(&settings.tls, Arc::clone(&resolver))?;
        let grpc = match &settings.grpc {
            None => None,
            Some(address) => {
                let url = web_address("qdrant grpc", parse("qdrant grpc", &Secret::new(address.clone()))?)?;
                Some((url, Client::new(&settings.tls, resolver)?.speaking(HttpVersion::Two)))
            }
        };
        Ok(Self { name: name.to_owned(), settings, url, client, grpc, seen: telemetry::Seen::default() })
    }

    fn place(&self, segments: &[&str]) -> Url {
        let mut url = self.url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    async fn fetch(&self, segments: &[&str], timeout: Duration) -> Result<Fetched, Finding> {
        let headers: Vec<(String, Secret<String>)> = self.settings.api_key.iter().map(|key| ("api-key".to_owned(), key.clone())).collect();
        let url = self.place(segments);
        self.client.get(&url, &headers, timeout).await.map_err(|error| error.finding(&url))
    }

    async fn result(&self, segments: &[&str], timeout: Duration) -> Result<Value, Miss> {
        let fetched = self.fetch(segments, timeout).await.map_err(Miss::Said)?;
        let place = shown(&self.place(segments));
        match fetched.status {
            200 => {}
            401 | 403 => {
                let reason =
                    if self.settings.api_key.is_some() { "does not accept the API key" } else { "asks for an API key and none is given" };
                return Err(Miss::Said(Finding::new(Verdict::Unknown, format!("{place} {reason}")).with_remedy(
                    "give the key of `QDRANT__SERVICE__API_KEY`, or better the one of `QDRANT__SERVICE__READ_ONLY_API_KEY`",
                )));
            }
            404 => return Err(Miss::Absent),
            status => {
                return Err(Miss::Said(
                    Finding::new(Verdict::Fail, format!("{place} answered {status}")).with_remedy("see the log of Qdrant"),
                ));
            }
        }
        let body: Option<Value> = serde_json::from_slice(&fetched.body).ok();
        body.and_then(|mut body| body.get_mut("result").map(Value::take)).ok_or_else(|| {
            Miss::Said(
                Finding::new(Verdict::Fail, format!("{place} did not answer as Qdrant does"))
                    .with_remedy("check that this is the REST port of Qdrant (6333)"),
            )
        })
    }

    /// What every collection says, a few at a time; `rest` is what stands behind its name in the path.
    async fn of_each(
        &self,
        report: &mut Report,
        names: &[String],
        rest: &'static [&'static str],
        timeout: Duration,
    ) -> Vec<(String, Value)> {
        let answers: Vec<_> = stream::iter(names.to_vec())
            .map(|name| async move {
                let path = [&["collections", name.as_str()], rest].concat();
                let answer = self.result(&path, timeout).await;
                (name, answer)
            })
            .buffered(AT_ONCE)
            .collect()
            .await;
        let mut told = Vec::new();
        for (name, answer) in answers {
            match answer {
                Ok(value) => told.push((name, value)),
                Err(Miss::Said(finding)) => report.take("", finding),
                // It was deleted between two questions.
                Err(Miss::Absent) => {}
            }
        }
        told
    }

    async fn attempt(&self, timeout: Duration) -> Finding {
        let mut report = Report::default();
        let ready = match self.fetch(&["readyz"], timeout).await {
            Ok(ready) => ready,
            Err(finding) => return finding,
        };
        match ready.status {
            200 => {}
            503 => {
                report.fail("it is not ready: shards are still being loaded or restored", "wait, and see its log");
            }
            // Before version 1.5 there was none.
            404 => {}
            status => report.fail(
                format!("{} answered {status}", shown(&self.place(&["readyz"]))),
                "check that this is the REST port of Qdrant (6333)",
            ),
        }
        let names = match self.result(&["collections"], timeout).await {
            Ok(list) => names(&list),
            Err(Miss::Said(finding)) => {
                report.take("", finding);
                return report.finish("");
            }
            Err(Miss::Absent) => {
                report.fail("it has no list of collections", "check that this is the REST port of Qdrant (6333)");
                return report.finish("");
            }
        };
        for missing in self.settings.collections.iter().filter(|wanted| !names.contains(wanted)) {
            report.fail(format!("the collection `{}` is not there", word(missing)), "create it, or restore it from a snapshot");
        }
        let asked: Vec<String> = names
            .iter()
            .filter(|name| self.settings.collections.is_empty() || self.settings.collections.contains(name))
            .take(MOST_COLLECTIONS)
            .cloned()
            .collect();
        let count = asked.len();
        let mut points = 0.0;
        for (name, collection) in self.of_each(&mut report, &asked, &[], timeout).await {
            points += judge_collection(&mut report, &name, &collection);
        }
        report.measure("points", points, "");
        match self.result(&["cluster"], timeout).await {
            Ok(cluster) if is_enabled(&cluster) => {
                judge_cluster(&mut report, &cluster);
                for (name, shards) in self.of_each(&mut report, &asked, &["cluster"], timeout).await {
                    shards::judge(&mut report, &name, &shards);
                }
            }
            Ok(_) | Err(Miss::Absent) => {}
            Err(Miss::Said(finding)) => report.take("", finding),
        }
        // A key may be too narrow for it; what matters was asked already.
        let told = self.result(&["telemetry"], timeout).await.ok();
        let mut version = told
            .and_then(|told| telemetry::judge(&mut report, &self.seen, &told))
            .map_or_else(String::new, |version| format!(" {version}"));
        if let Some((url, client)) = &self.grpc
            && let Some(told) = grpc::ask(&mut report, url, client, &self.settings, timeout).await
        {
            version = format!(" {} over REST and gRPC", word(&told));
        }
        let mut finding = report.finish(format!(
            "qdrant{version} answers: {points:.0} points in {count} {}",
            if count == 1 { "collection" } else { "collections" }
        ));
        finding.phases = ready.phases;
        finding
    }
}

fn names(list: &Value) -> Vec<String> {
    let all = list.get("collections").and_then(Value::as_array).into_iter().flatten();
    all.filter_map(|one| one.get("name")?.as_str().map(str::to_owned)).collect()
}

/// Gives the number of points.
fn judge_collection(report: &mut Report, name: &str, collection: &Value) -> f64 {
    let shown = word(name);
    match collection.get("status").and_then(Value::as_str) {
        Some("green") => {}
        Some("yellow") => report
            .warn(format!("the collection `{shown}` is being optimized: searches are slower"), "wait; see `optimizer_status` if it lasts"),
        Some("grey") => report.warn(
            format!("the optimizer of the collection `{shown}` waits since a restart"),
            format!("wake it: `curl -X PATCH …/collections/{shown} -d '{{\"optimizers_config\":{{}}}}'`"),
        ),
        Some("red") => report.fail(
            format!("the collection `{shown}` is red: an operation failed and cannot be recovered"),
            "see the log of Qdrant; restore it from a snapshot",
        ),
        _ => report
            .unknown(format!("the collection `{shown}` has a status that is not known"), "compare the version of Qdrant with this one's"),
    }
    // The text of an optimizer's error may hold anything.
    if collection.get("optimizer_status").is_some_and(|status| status.as_str() != Some("ok")) {
        report.fail(
            format!("the optimizer of the collection `{shown}` failed (often: the disk is full, and it takes no writes)"),
            format!("see what it says: `curl …/collections/{shown}`, and the space of its disk"),
        );
    }
    collection.get("points_count").and_then(Value::as_f64).unwrap_or(0.0)
}

fn is_enabled(cluster: &Value) -> bool {
    cluster.get("status").and_then(Value::as_str) == Some("enabled")
}

fn judge_cluster(report: &mut Report, cluster: &Value) {
    let peers = cluster.get("peers").and_then(Value::as_object).map_or(0, serde_json::Map::len);
    report.measure("peers", f64::from(u32::try_from(peers).unwrap_or(u32::MAX)), "");
    let raft = cluster.get("raft_info");
    let number = |name: &str| raft.and_then(|raft| raft.get(name)).and_then(Value::as_f64);
    if raft.and_then(|raft| raft.get("leader")).is_none_or(Value::is_null) {
        report.fail("its cluster has no leader: collections cannot be changed", "start the missing peers; a majority is needed");
    }
    if number("pending_operations").is_some_and(|pending| pending > 100.0) {
        report.warn("it lags behind the consensus of its cluster", "see its load and its log");
    }
    let failures = cluster.get("message_send_failures").and_then(Value::as_object).map_or(0, serde_json::Map::len);
    if failures > 0 {
        report.warn(
            format!("it cannot reach {failures} of {peers} peers"),
            "see which: `curl …/cluster`; start them, or remove them from the cluster",
        );
    }
}

#[async_trait]
impl HealthProbe for QdrantProbe {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "qdrant"
    }

    async fn check(&self, timeout: Duration) -> Finding {
        bounded(timeout, self.attempt(timeout), || {
            Finding::new(Verdict::Fail, format!("{} did not answer within {timeout:?}", shown(&self.url)))
                .with_remedy("see its log and the load of its disk")
        })
        .await
    }
}

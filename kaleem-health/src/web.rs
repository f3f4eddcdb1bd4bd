//! An HTTP address: status, headers, body, time and certificate, each with its own rule.

mod api;
pub(crate) mod client;
pub(crate) mod h2;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kaleem_core::health::{Finding, HealthProbe, Resolver, Verdict};
use url::Url;

use crate::report::{Report, bounded};
use crate::rules::Rules;
use crate::settings::{HttpSettings, SettingsError, parse};
use crate::tls::judge_expiry;
use client::{Client, Fetched, shown};

/// Asks an HTTP address.
pub struct HttpProbe {
    name: String,
    settings: HttpSettings,
    url: Url,
    client: Client,
    rules: Rules,
}

impl HttpProbe {
    /// A probe; nothing is connected yet.
    ///
    /// # Errors
    /// [`SettingsError`] when the address, a pattern, a rule or a certificate cannot be read.
    pub fn new(name: &str, settings: HttpSettings, resolver: Arc<dyn Resolver>) -> Result<Self, SettingsError> {
        let url = client::web_address("http", parse("http", &settings.url)?)?;
        let client = Client::new(&settings.tls, resolver)?.speaking(settings.version);
        let rules = Rules::new(settings.contains.as_deref(), settings.pattern.as_deref(), &settings.json)?;
        Ok(Self { name: name.to_owned(), settings, url, client, rules })
    }

    async fn attempt(&self, timeout: Duration) -> Finding {
        let mut url = self.url.clone();
        let mut hops = 0;
        loop {
            // What is meant for one host is not shown to another.
            let headers = if same_origin(&url, &self.url) { self.settings.headers.as_slice() } else { &[] };
            let fetched = match self.client.get(&url, headers, timeout).await {
                Ok(fetched) => fetched,
                Err(error) => return error.finding(&url),
            };
            let Some(next) = fetched.redirect(&url).filter(|_| hops < self.settings.redirects) else {
                let mut finding = self.judge(&fetched, &url);
                finding.phases = fetched.phases;
                return finding;
            };
            if url.scheme() == "https" && next.scheme() != "https" {
                return Finding::new(Verdict::Fail, format!("{} leads from https to http", shown(&url)))
                    .with_remedy("redirect to an https address");
            }
            url = next;
            hops += 1;
        }
    }

    fn judge(&self, fetched: &Fetched, url: &Url) -> Finding {
        let mut report = Report::default();
        let place = shown(url);
        let look = format!("see what it says: `curl -i {place}`");
        if let Some(certificate) = &fetched.certificate {
            judge_expiry(
                &mut report,
                &format!("{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default()),
                certificate,
            );
        }
        let (first, last) = self.settings.statuses;
        let right = (first..=last).contains(&fetched.status);
        let parts = if self.settings.api { api::parts(&fetched.body) } else { None };
        if let Some(parts) = &parts {
            parts.judge(&mut report, &place, fetched.status);
        }
        // Where its parts say what is wrong, the status only repeats it.
        if !right && parts.as_ref().is_none_or(|parts| parts.is_well()) {
            let wanted = if first == last { format!("{first}") } else { format!("{first} to {last}") };
            report.fail(format!("{place} answered {}, and {wanted} is right", fetched.status), &look);
        }
        if fetched.is_cut {
            report.fail(format!("{place} broke off in the body, after {} bytes", fetched.body.len()), &look);
        }
        for (name, text) in &self.settings.expected_headers {
            let mut values = fetched.headers.get_all(name).iter();
            if !values.any(|value| value.to_str().is_ok_and(|value| value.contains(text.as_str()))) {
                report.fail(format!("{place} answered without the right header `{name}`"), &look);
            }
        }
        if right {
            self.rules.judge(&mut report, &format!("the answer of {place}"), &fetched.body, &look);
        }
        self.judge_latency(&mut report, &place, fetched.total);
        let of = parts.map_or(String::new(), |parts| format!(", {}", parts.names()));
        report.finish(format!("{place} answered {}{of}", fetched.status))
    }

    fn judge_latency(&self, report: &mut Report, place: &str, took: Duration) {
        let Some((warn, fail)) = self.settings.latency else { return };
        let remedy = "see what it waits for; compare the phases with those of a good day";
        if took >= fail {
            report.fail(format!("{place} took {} ms, and {} ms is the limit", took.as_millis(), fail.as_millis()), remedy);
        } else if took >= warn {
            report.warn(format!("{place} took {} ms", took.as_millis()), remedy);
        }
    }
}

fn same_origin(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme() && one.host_str() == other.host_str() && one.port_or_known_default() == other.port_or_known_default()
}

#[async_trait]
impl HealthProbe for HttpProbe {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "http"
    }

    async fn check(&self, timeout: Duration) -> Finding {
        bounded(timeout, self.attempt(timeout), || {
            Finding::new(Verdict::Fail, format!("no complete answer from {} within {timeout:?}", shown(&self.url)))
                .with_remedy("see what it waits for in its log, or allow it more time")
        })
        .await
    }
}

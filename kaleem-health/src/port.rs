//! A port that accepts, and does not close at once: what a forwarder does when nothing is behind it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kaleem_core::health::{Finding, HealthProbe, Resolver, Verdict};

use crate::dial::{Endpoint, connect};
use crate::report::bounded;
use crate::settings::TcpSettings;

/// A forwarder that finds nothing behind it closes within this.
const CLOSES_WITHIN: Duration = Duration::from_millis(50);

/// Connects to a port.
pub struct TcpProbe {
    name: String,
    endpoint: Endpoint,
    resolver: Arc<dyn Resolver>,
}

impl TcpProbe {
    /// A probe; nothing is connected yet.
    pub fn new(name: &str, settings: TcpSettings, resolver: Arc<dyn Resolver>) -> Self {
        Self { name: name.to_owned(), endpoint: Endpoint { host: settings.host, port: settings.port, tls: None }, resolver }
    }
}

#[async_trait]
impl HealthProbe for TcpProbe {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "tcp"
    }

    async fn check(&self, timeout: Duration) -> Finding {
        let endpoint = &self.endpoint;
        let attempt = async {
            let (stream, phases) = match connect(endpoint, self.resolver.as_ref(), timeout).await {
                Ok(connected) => connected,
                Err(error) => return error.finding(endpoint),
            };
            let mut finding = match tokio::time::timeout(CLOSES_WITHIN, stream.peek(&mut [0])).await {
                Ok(Ok(0) | Err(_)) => {
                    Finding::new(Verdict::Fail, format!("{endpoint} accepts and closes at once: a forwarder with nothing behind it"))
                        .with_remedy("check that the program behind that port runs and listens on it")
                }
                Ok(Ok(_)) | Err(_) => Finding::new(Verdict::Ok, format!("{endpoint} accepts connections")),
            };
            finding.phases = phases;
            finding
        };
        bounded(timeout, attempt, || {
            Finding::new(Verdict::Fail, format!("no connection to {endpoint} within {timeout:?}"))
                .with_remedy("look for a firewall, or a frozen process")
        })
        .await
    }
}

//! The certificate that a host shows: is it trusted, for that name, and for how long still?

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kaleem_core::health::{Finding, HealthProbe, Resolver, Verdict};

use crate::dial::{Endpoint, dial};
use crate::report::{Report, bounded};
use crate::settings::{CertificateSettings, SettingsError};
use crate::tls::{Tls, judge_expiry};

/// Looks at the certificate of a host, whatever is spoken over it.
pub struct CertificateProbe {
    name: String,
    endpoint: Endpoint,
    resolver: Arc<dyn Resolver>,
}

impl CertificateProbe {
    /// A probe; nothing is connected yet.
    ///
    /// # Errors
    /// [`SettingsError::Pem`] when a trusted certificate cannot be read.
    pub fn new(name: &str, settings: CertificateSettings, resolver: Arc<dyn Resolver>) -> Result<Self, SettingsError> {
        let tls = Some(Tls::new(&settings.tls)?);
        Ok(Self { name: name.to_owned(), endpoint: Endpoint { host: settings.host, port: settings.port, tls }, resolver })
    }
}

#[async_trait]
impl HealthProbe for CertificateProbe {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "certificate"
    }

    async fn check(&self, timeout: Duration) -> Finding {
        let endpoint = &self.endpoint;
        let attempt = async {
            let dialed = match dial(endpoint, self.resolver.as_ref(), timeout).await {
                Ok(dialed) => dialed,
                Err(error) => return error.finding(endpoint),
            };
            let mut report = Report::default();
            match &dialed.certificate {
                Some(certificate) => judge_expiry(&mut report, &endpoint.to_string(), certificate),
                None => report.unknown(format!("{endpoint} shows no certificate"), "check that this port speaks TLS"),
            }
            let mut finding = report.finish(format!("the certificate of {endpoint} is trusted"));
            finding.phases = dialed.phases;
            finding
        };
        bounded(timeout, attempt, || {
            Finding::new(Verdict::Fail, format!("{endpoint} does not complete a TLS handshake within {timeout:?}"))
                .with_remedy("check that this port speaks TLS")
        })
        .await
    }
}

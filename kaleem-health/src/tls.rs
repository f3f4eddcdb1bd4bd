//! TLS of the probes: what is trusted, what a refused handshake means, and until when a certificate is valid.

use std::sync::{Arc, OnceLock};

use kaleem_core::clock::{Clock, SystemClock};
use kaleem_core::health::{Finding, Verdict};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::dial::Endpoint;
use crate::report::Report;
use crate::settings::{SettingsError, TlsSettings};

/// Days before the end at which a certificate is a warning and a failure. Automatic renewals happen 30 days before
/// the end, so 20 days say that they do not work; 3 days leave a weekend.
const WARN_DAYS: f64 = 20.0;
const FAIL_DAYS: f64 = 3.0;
const DAY_SECONDS: f64 = 86_400.0;

/// How TLS is spoken.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    /// `None` is what the machine trusts and nothing else: one for all probes, read when the first of them needs it.
    own: Option<Arc<ClientConfig>>,
    alpn: Option<&'static [u8]>,
    name: Option<String>,
}

/// Why there is no TLS.
#[derive(Debug)]
pub(crate) enum TlsProblem {
    /// The certificate is not accepted.
    Certificate(CertificateError),
    /// The other side does not speak TLS, or refuses ours.
    Handshake,
    /// The other side refused our certificate or wants one.
    Refused,
    /// It speaks none of the protocols that were offered.
    Protocol,
    /// The name cannot stand in a certificate.
    Name,
}

/// Accepts every certificate, and checks that the other side has its key.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

impl Tls {
    /// Reads certificates; they are read once, when the probe is made.
    pub(crate) fn new(settings: &TlsSettings) -> Result<Self, SettingsError> {
        let is_standard = settings.trust_system && settings.trusted_pem.is_empty() && settings.client.is_none();
        let own = if is_standard { None } else { Some(Arc::new(config(settings)?)) };
        Ok(Self { own, alpn: None, name: settings.server_name.clone() })
    }

    /// Accepts every certificate: for questions that ask who answers, and send nothing that is secret.
    pub(crate) fn accepting_any() -> Option<Self> {
        static ANY: OnceLock<Option<Arc<ClientConfig>>> = OnceLock::new();
        let make = || {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().ok()?;
            let config = builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider))).with_no_client_auth();
            Some(Arc::new(config))
        };
        let own = ANY.get_or_init(make).clone();
        own.map(|own| Self { own: Some(own), alpn: None, name: None })
    }

    /// The same, offering a protocol by ALPN.
    pub(crate) fn offering(self, alpn: &'static [u8]) -> Self {
        Self { alpn: Some(alpn), ..self }
    }

    pub(crate) async fn connect(&self, host: &str, stream: TcpStream) -> Result<TlsStream<TcpStream>, TlsProblem> {
        let name = self.name.as_deref().unwrap_or(host).trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(name).map_err(|_| TlsProblem::Name)?;
        let config = self.own.clone().or_else(standard).ok_or(TlsProblem::Handshake)?;
        let connector = TlsConnector::from(config);
        let connecting = match self.alpn {
            None => connector.connect(name, stream),
            Some(alpn) => connector.with_alpn(vec![alpn.to_vec()]).connect(name, stream),
        };
        connecting.await.map_err(|error| match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(why)) => TlsProblem::Certificate(why.clone()),
            Some(rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol)) => TlsProblem::Protocol,
            Some(rustls::Error::AlertReceived(_)) => TlsProblem::Refused,
            _ => TlsProblem::Handshake,
        })
    }
}

/// What the machine trusts; hundreds of probes share it, since it takes hundreds of kilobytes.
fn standard() -> Option<Arc<ClientConfig>> {
    static STANDARD: OnceLock<Option<Arc<ClientConfig>>> = OnceLock::new();
    STANDARD.get_or_init(|| config(&TlsSettings::STANDARD).ok().map(Arc::new)).clone()
}

fn config(settings: &TlsSettings) -> Result<ClientConfig, SettingsError> {
    let mut roots = RootCertStore::empty();
    if settings.trust_system {
        // A machine may hold a certificate that rustls cannot use; the others count.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    for certificate in CertificateDer::pem_slice_iter(settings.trusted_pem.as_bytes()) {
        let certificate = certificate.map_err(|_| SettingsError::Pem { what: "trusted certificates" })?;
        roots.add(certificate).map_err(|_| SettingsError::Pem { what: "trusted certificates" })?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = versions.map_err(|_| SettingsError::Pem { what: "protocol versions" })?.with_root_certificates(roots);
    match &settings.client {
        None => Ok(builder.with_no_client_auth()),
        Some(client) => {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(client.certificate_pem.as_bytes()).collect();
            let chain = chain.map_err(|_| SettingsError::Pem { what: "client certificate" })?;
            let key =
                PrivateKeyDer::from_pem_slice(client.key_pem.expose().as_bytes()).map_err(|_| SettingsError::Pem { what: "client key" })?;
            builder.with_client_auth_cert(chain, key).map_err(|_| SettingsError::Pem { what: "client certificate and key" })
        }
    }
}

impl TlsProblem {
    pub(crate) fn finding(&self, endpoint: &Endpoint) -> Finding {
        let host = &endpoint.host;
        let look = format!("look at it: `openssl s_client -connect {endpoint} -servername {host} </dev/null | openssl x509 -noout -text`");
        let (reason, remedy) = match self {
            Self::Certificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => (
                format!("the certificate of {endpoint} has expired{}", since(self)),
                format!("renew it, and reload the server that shows it; {look}"),
            ),
            Self::Certificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
                (format!("the certificate of {endpoint} is not valid yet"), "check the clocks of both machines".to_owned())
            }
            Self::Certificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }) => {
                (format!("the certificate of {endpoint} is for another name"), look)
            }
            Self::Certificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => (
                format!("the certificate of {endpoint} is signed by nobody who is trusted here (self-signed, or its chain is incomplete)"),
                format!("serve the whole chain, or give the issuer's certificate as trusted; {look}"),
            ),
            Self::Certificate(_) => (format!("the certificate of {endpoint} is not accepted"), look),
            Self::Handshake => (format!("{endpoint} does not complete a TLS handshake"), "check that this port speaks TLS".to_owned()),
            Self::Refused => (
                format!("{endpoint} refused the TLS handshake"),
                "check whether it asks for a client certificate, and which TLS versions it speaks".to_owned(),
            ),
            Self::Protocol => (
                format!("{endpoint} does not speak the protocol that was offered (ALPN)"),
                "switch HTTP/2 on at the server, or ask over HTTP/1.1".to_owned(),
            ),
            Self::Name => {
                return Finding::new(Verdict::Unknown, format!("`{host}` cannot stand in a certificate"))
                    .with_remedy("give the name that the certificate holds as `server_name`");
            }
        };
        Finding::new(Verdict::Fail, reason).with_remedy(remedy)
    }
}

fn since(problem: &TlsProblem) -> String {
    match problem {
        TlsProblem::Certificate(CertificateError::ExpiredContext { time, not_after }) => {
            let days = (time.as_secs().saturating_sub(not_after.as_secs())) / 86_400;
            format!(" {days} days ago")
        }
        _ => String::new(),
    }
}

/// Judges how long a certificate (DER) is still valid.
pub(crate) fn judge_expiry(report: &mut Report, what: &str, certificate: &[u8]) {
    let Some(end) = crate::der::not_after(certificate) else {
        report.unknown(format!("the certificate of {what} has no readable end"), "look at it with `openssl x509`");
        return;
    };
    #[expect(clippy::cast_precision_loss, reason = "seconds of a calendar are far below 2^52")]
    let days = (end - SystemClock.now().as_second()) as f64 / DAY_SECONDS;
    report.measure("certificate_days_left", days.floor(), "days");
    let remedy = "renew it, and find out why the automatic renewal does not (it is due 30 days before the end)";
    if days < FAIL_DAYS {
        report.fail(format!("the certificate of {what} ends in {:.0} days", days.max(0.0).floor()), remedy);
    } else if days < WARN_DAYS {
        report.warn(format!("the certificate of {what} ends in {:.0} days", days.floor()), remedy);
    }
}

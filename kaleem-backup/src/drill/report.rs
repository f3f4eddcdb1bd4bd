//! What a drill found out, in a form that others can believe: signed with a key that never leaves the host.
//!
//! The signature is over the exact text of the report, Ed25519 as RFC 8032 has it, so that any tool can check it.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kaleem_core::durable::{self, DurableError, PRIVATE_DIRECTORY, PRIVATE_FILE};
use kaleem_core::remedy::Remedy;
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use super::DrillReport;

/// The private key, below the directory of backups.
const KEY_FILE: &str = "drill-key.pkcs8";
/// The public key, for whoever checks.
const PUBLIC_FILE: &str = "drill-key.pub";
/// Where reports are kept.
const REPORTS: &str = "drills";
/// What stands before the 32 bytes of an Ed25519 key in the form that OpenSSL reads.
const PUBLIC_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Why a report could not be signed, kept or believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// A file could not be read or written.
    #[error("could not keep the report of a drill")]
    File {
        /// Why.
        #[source]
        source: DurableError,
    },
    /// The key cannot be used.
    #[error("the key that signs reports of drills cannot be used: {}", path.display())]
    Key {
        /// Where it is.
        path: PathBuf,
    },
    /// No key could be made.
    #[error("the system gives no random numbers, so that no key could be made")]
    Random,
    /// It is no signed report.
    #[error("this is no signed report of a drill: {reason}")]
    NoReport {
        /// Why.
        reason: String,
    },
    /// It was changed, or signed by somebody else.
    #[error("the signature is not that of this report")]
    Signature,
}

impl Remedy for ReportError {
    fn remedy(&self) -> String {
        match self {
            Self::File { source } => source.remedy(),
            Self::Key { path } => format!("move {} away; the next drill makes another", path.display()),
            Self::Random => "check /dev/urandom of this machine".to_owned(),
            Self::NoReport { .. } => "give a file that `kaleem backup drill` wrote".to_owned(),
            Self::Signature => "do not believe it; run a drill".to_owned(),
        }
    }
}

/// A report with its signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedReport {
    /// Format of this file.
    pub format: u32,
    /// The report, as the JSON text that was signed.
    pub report: String,
    /// The public key, hexadecimal.
    pub public_key: String,
    /// The signature over `report`, hexadecimal.
    pub signature: String,
}

/// A report that was kept.
#[derive(Clone, Debug)]
pub struct Kept {
    /// What is signed.
    pub signed: SignedReport,
    /// Where it is.
    pub path: PathBuf,
}

fn file(source: DurableError) -> ReportError {
    ReportError::File { source }
}

fn key(directory: &Path) -> Result<Ed25519KeyPair, ReportError> {
    let path = directory.join(KEY_FILE);
    let bytes = match durable::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.is_missing() => {
            let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| ReportError::Random)?;
            durable::create_directory(directory, PRIVATE_DIRECTORY).map_err(file)?;
            durable::write_atomic(&path, made.as_ref(), PRIVATE_FILE).map_err(file)?;
            made.as_ref().to_vec()
        }
        Err(error) => return Err(file(error)),
    };
    let pair = Ed25519KeyPair::from_pkcs8(&bytes).map_err(|_| ReportError::Key { path: path.clone() })?;
    let public = [&PUBLIC_PREFIX, pair.public_key().as_ref()].concat();
    let text = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(public));
    durable::write_atomic(&directory.join(PUBLIC_FILE), text.as_bytes(), 0o644).map_err(file)?;
    Ok(pair)
}

/// Signs a report with the key in `directory`, which is made where there is none, and keeps it there.
///
/// # Errors
/// [`ReportError`]; the drill itself is not undone.
pub fn keep(directory: &Path, report: &DrillReport) -> Result<Kept, ReportError> {
    let text = serde_json::to_string(report).map_err(|error| ReportError::NoReport { reason: error.to_string() })?;
    let pair = key(directory)?;
    let signed = SignedReport {
        format: 1,
        signature: hex::encode(pair.sign(text.as_bytes())),
        public_key: hex::encode(pair.public_key()),
        report: text,
    };
    let reports = directory.join(REPORTS);
    durable::create_directory(&reports, PRIVATE_DIRECTORY).map_err(file)?;
    let path = reports.join(format!("{}-{}.json", report.set, report.began.strftime("%Y%m%dt%H%M%Sz")));
    let mut bytes = serde_json::to_vec_pretty(&signed).map_err(|error| ReportError::NoReport { reason: error.to_string() })?;
    bytes.push(b'\n');
    durable::write_atomic(&path, &bytes, PRIVATE_FILE).map_err(file)?;
    Ok(Kept { signed, path })
}

/// The report in a signed one, when it was signed with that public key.
///
/// # Errors
/// [`ReportError::NoReport`], [`ReportError::Signature`].
pub fn believe(bytes: &[u8], public_key: &str) -> Result<serde_json::Value, ReportError> {
    let no_report = |reason: String| ReportError::NoReport { reason };
    let signed: SignedReport = serde_json::from_slice(bytes).map_err(|error| no_report(error.to_string()))?;
    if signed.format != 1 {
        return Err(no_report(format!("its format is {}", signed.format)));
    }
    let (Ok(key), Ok(signature)) = (hex::decode(public_key), hex::decode(&signed.signature)) else { return Err(ReportError::Signature) };
    UnparsedPublicKey::new(&ED25519, key).verify(signed.report.as_bytes(), &signature).map_err(|_| ReportError::Signature)?;
    serde_json::from_str(&signed.report).map_err(|error| no_report(error.to_string()))
}

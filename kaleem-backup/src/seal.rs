//! From plain bytes to stored ones and back: counted, digested, compressed with zstd, encrypted with age.
//!
//! Both ways stream through blocking threads and bounded pipes. The way back hands out an end only after every length and
//! digest was right; so whoever reads it cannot take damaged bytes for whole ones.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use age::secrecy::SecretString;
use age::stream::StreamWriter;
use kaleem_core::backup::{ArtifactRecord, ByteSender, ByteStream, Encryption, PipeReader, pipe};
use kaleem_core::remedy::Remedy;
use kaleem_core::secret::Secret;
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;

const CHUNK_BYTES: usize = 256 * 1024;
/// The fastest of zstd's own: everything is read back before it counts, and that together is to take no longer than packing alone at level 3.
const ZSTD_LEVEL: i32 = 1;

/// Who will be able to read what is stored.
#[derive(Clone)]
pub enum Protection {
    /// Whoever has a key of one of these recipients (`age1…`).
    Recipients(Vec<age::x25519::Recipient>),
    /// Whoever knows the passphrase.
    Passphrase(Secret<String>),
    /// Everybody who can read the vault. Only where a person asked for it.
    Unencrypted,
}

impl fmt::Debug for Protection {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recipients(recipients) => write!(out, "Recipients({})", recipients.len()),
            Self::Passphrase(_) => out.write_str("Passphrase(***)"),
            Self::Unencrypted => out.write_str("Unencrypted"),
        }
    }
}

/// What opens stored bytes; any number of identities, at most one passphrase.
#[derive(Clone, Default)]
pub struct Keys {
    identities: Vec<age::x25519::Identity>,
    passphrase: Option<Secret<String>>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Keys({} identities, passphrase: {})", self.identities.len(), self.passphrase.is_some())
    }
}

/// A key that is not one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Not a recipient.
    #[error("`{text}` is not an age recipient: {reason}")]
    Recipient {
        /// As it was given.
        text: String,
        /// Why not.
        reason: &'static str,
    },
    /// No recipient was given.
    #[error("no recipient was given")]
    NoRecipient,
    /// Not a file of identities. Its content is not shown.
    #[error("line {line} of the key file is not an age identity: {reason}")]
    Identity {
        /// Number of the line, from 1.
        line: usize,
        /// Why not.
        reason: &'static str,
    },
    /// A key file without a key.
    #[error("the key file holds no age identity")]
    NoIdentity,
}

impl Remedy for KeyError {
    fn remedy(&self) -> String {
        match self {
            Self::Recipient { .. } | Self::NoRecipient => "give the public key that `age-keygen` printed (`age1…`)".to_owned(),
            Self::Identity { .. } | Self::NoIdentity => "give the file that `age-keygen -o` wrote".to_owned(),
        }
    }
}

impl Protection {
    /// Reads recipients, each `age1…`.
    ///
    /// # Errors
    /// [`KeyError`] when one is not valid or there is none.
    pub fn to_recipients<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, KeyError> {
        let parse = |text: &str| text.trim().parse().map_err(|reason| KeyError::Recipient { text: text.to_owned(), reason });
        let recipients: Vec<_> = texts.into_iter().map(parse).collect::<Result<_, _>>()?;
        if recipients.is_empty() { Err(KeyError::NoRecipient) } else { Ok(Self::Recipients(recipients)) }
    }

    /// How it is called in manifests.
    pub fn encryption(&self) -> Encryption {
        match self {
            Self::Recipients(_) => Encryption::AgeX25519,
            Self::Passphrase(_) => Encryption::AgePassphrase,
            Self::Unencrypted => Encryption::None,
        }
    }

    /// What the file of an artifact ends with.
    pub fn suffix(&self) -> &'static str {
        match self {
            Self::Recipients(_) | Self::Passphrase(_) => "zst.age",
            Self::Unencrypted => "zst",
        }
    }

    /// The same protection, and keys that open what is made with it for as long as they are in memory: a server that may
    /// only write can so read back what it has just written, and nothing older.
    pub(crate) fn with_read_back(&self) -> (Self, Keys) {
        match self {
            Self::Recipients(recipients) => {
                let once = age::x25519::Identity::generate();
                let mut recipients = recipients.clone();
                recipients.push(once.to_public());
                (Self::Recipients(recipients), Keys { identities: vec![once], passphrase: None })
            }
            Self::Passphrase(passphrase) => (self.clone(), Keys::passphrase(passphrase.clone())),
            Self::Unencrypted => (Self::Unencrypted, Keys::none()),
        }
    }
}

impl Keys {
    /// No key: opens what is not encrypted.
    pub fn none() -> Self {
        Self::default()
    }

    /// Whether a key for this way of encryption is here; whether it is the right one shows when it is used.
    pub fn can_open(&self, encryption: Encryption) -> bool {
        match encryption {
            Encryption::None => true,
            Encryption::AgeX25519 => !self.identities.is_empty(),
            Encryption::AgePassphrase => self.passphrase.is_some(),
            // A later kaleem's way.
            _ => false,
        }
    }

    /// The same, and a passphrase.
    #[must_use]
    pub fn with_passphrase(mut self, passphrase: Secret<String>) -> Self {
        self.passphrase = Some(passphrase);
        self
    }

    /// A passphrase.
    pub fn passphrase(passphrase: Secret<String>) -> Self {
        Self { identities: Vec::new(), passphrase: Some(passphrase) }
    }

    /// The content of a key file as `age-keygen` writes it.
    ///
    /// # Errors
    /// [`KeyError`] when a line is neither empty, nor a comment, nor an identity, or when there is none.
    pub fn from_key_file(text: &Secret<String>) -> Result<Self, KeyError> {
        let mut identities = Vec::new();
        for (number, line) in text.expose().lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            identities.push(line.parse().map_err(|reason| KeyError::Identity { line: number + 1, reason })?);
        }
        if identities.is_empty() { Err(KeyError::NoIdentity) } else { Ok(Self { identities, passphrase: None }) }
    }
}

/// What came out of sealing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub(crate) plain: Digested,
    pub(crate) stored: Digested,
}

/// Length and digest of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Digested {
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
}

#[derive(Default)]
struct Meter {
    bytes: u64,
    digest: Sha256,
    /// Whether the bytes ended with an error, so that nothing is known of the rest.
    broken: bool,
}

impl Meter {
    fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.digest.update(bytes);
    }

    fn read(&self) -> Digested {
        Digested { bytes: self.bytes, sha256: hex::encode(self.digest.clone().finalize()) }
    }
}

/// Counts and digests what is written through it.
struct MeteredWriter {
    inner: ByteSender,
    meter: Meter,
}

impl Write for MeteredWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.meter.add(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Counts and digests what is read through it.
struct MeteredReader {
    inner: PipeReader,
    meter: Arc<Mutex<Meter>>,
}

impl Read for MeteredReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = Read::read(&mut self.inner, into);
        let mut meter = self.meter.lock().unwrap_or_else(PoisonError::into_inner);
        meter.broken |= read.is_err();
        let read = read?;
        meter.add(into.get(..read).unwrap_or_default());
        Ok(read)
    }
}

enum Cipher<W: Write> {
    Age(StreamWriter<W>),
    Plain(W),
}

impl<W: Write> Cipher<W> {
    fn finish(self) -> io::Result<W> {
        match self {
            Self::Age(writer) => writer.finish(),
            Self::Plain(writer) => Ok(writer),
        }
    }
}

impl<W: Write> Write for Cipher<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Age(writer) => writer.write(bytes),
            Self::Plain(writer) => writer.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Age(writer) => writer.flush(),
            Self::Plain(writer) => writer.flush(),
        }
    }
}

fn encrypt(protection: &Protection, output: MeteredWriter) -> io::Result<Cipher<MeteredWriter>> {
    // Small writes of the header and of zstd would each become a piece of the pipe.
    match protection {
        Protection::Unencrypted => Ok(Cipher::Plain(output)),
        Protection::Recipients(recipients) => {
            let encryptor = age::Encryptor::with_recipients(recipients.iter().map(|recipient| recipient as &dyn age::Recipient));
            Ok(Cipher::Age(encryptor.map_err(io::Error::other)?.wrap_output(output)?))
        }
        Protection::Passphrase(passphrase) => {
            let encryptor = age::Encryptor::with_user_passphrase(SecretString::from(passphrase.expose().clone()));
            Ok(Cipher::Age(encryptor.wrap_output(output)?))
        }
    }
}

/// Seals everything from `plain` into `stored`, in a blocking thread. Only an `Ok` is followed by the end of `stored`.
pub(crate) fn seal(mut plain: PipeReader, stored: ByteSender, protection: &Protection, moved: impl Fn(u64)) -> io::Result<Sealed> {
    let mut meter = Meter::default();
    let work = || -> io::Result<MeteredWriter> {
        let cipher = encrypt(protection, MeteredWriter { inner: stored, meter: Meter::default() })?;
        let mut encoder = zstd::Encoder::new(cipher, ZSTD_LEVEL)?;
        encoder.include_checksum(true)?;
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let read = Read::read(&mut plain, &mut chunk)?;
            if read == 0 {
                break;
            }
            let bytes = chunk.get(..read).unwrap_or_default();
            meter.add(bytes);
            encoder.write_all(bytes)?;
            moved(read as u64);
        }
        encoder.finish()?.finish()
    };
    let output = work()?;
    let sealed = Sealed { plain: meter.read(), stored: output.meter.read() };
    output.inner.finish_blocking()?;
    Ok(sealed)
}

fn decrypt(keys: &Keys, encryption: Encryption, stored: MeteredReader) -> io::Result<Box<dyn Read>> {
    let wrong = |reason: &str| io::Error::new(io::ErrorKind::PermissionDenied, reason.to_owned());
    if encryption == Encryption::None {
        return Ok(Box::new(stored));
    }
    let opened = age::Decryptor::new(stored).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    let explain = |error: age::DecryptError| match error {
        age::DecryptError::NoMatchingKeys | age::DecryptError::DecryptionFailed | age::DecryptError::KeyDecryptionFailed => {
            wrong("none of the keys opens it")
        }
        other => io::Error::new(io::ErrorKind::InvalidData, other.to_string()),
    };
    if opened.is_scrypt() {
        let Some(passphrase) = &keys.passphrase else { return Err(wrong("it is encrypted with a passphrase, and none was given")) };
        let identity = age::scrypt::Identity::new(SecretString::from(passphrase.expose().clone()));
        return Ok(Box::new(opened.decrypt(std::iter::once(&identity as &dyn age::Identity)).map_err(explain)?));
    }
    if keys.identities.is_empty() {
        return Err(wrong("it is encrypted to recipients, and no key was given"));
    }
    let identities = keys.identities.iter().map(|identity| identity as &dyn age::Identity);
    Ok(Box::new(opened.decrypt(identities).map_err(explain)?))
}

/// Bytes that were read and are wrong are `InvalidData`, a key that does not fit is `PermissionDenied`; every other kind
/// says nothing of the bytes.
fn unseal(stored: PipeReader, plain: &mut ByteSender, keys: &Keys, record: &ArtifactRecord) -> io::Result<()> {
    let outer = Arc::new(Mutex::new(Meter::default()));
    let broken = || outer.lock().unwrap_or_else(PoisonError::into_inner).broken;
    match unseal_metered(stored, plain, keys, record, &outer) {
        Err(error) if broken() => Err(io::Error::other(error.to_string())),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe || error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error.to_string())),
        Ok(()) => Ok(()),
    }
}

fn unseal_metered(
    stored: PipeReader,
    plain: &mut ByteSender,
    keys: &Keys,
    record: &ArtifactRecord,
    outer: &Arc<Mutex<Meter>>,
) -> io::Result<()> {
    let reader = MeteredReader { inner: stored, meter: Arc::clone(outer) };
    let mut decoder = zstd::Decoder::new(decrypt(keys, record.encryption, reader)?)?;
    let mut inner = Meter::default();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = decoder.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        let bytes = chunk.get(..read).unwrap_or_default();
        inner.add(bytes);
        if inner.bytes > record.plain_bytes {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is longer than the manifest says"));
        }
        plain.send_blocking(bytes)?;
    }
    let outer = outer.lock().unwrap_or_else(PoisonError::into_inner).read();
    let inner = inner.read();
    for (what, found, bytes, sha256) in [
        ("stored bytes", outer, record.stored_bytes, &record.stored_sha256),
        ("plain bytes", inner, record.plain_bytes, &record.plain_sha256),
    ] {
        if found.bytes != bytes || found.sha256 != *sha256 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("the {what} are not those that the manifest names")));
        }
    }
    Ok(())
}

/// The plain bytes of a stored artifact. The stream ends without an error only if they are exactly those of `record`.
pub(crate) fn open(stored: ByteStream, keys: &Keys, record: &ArtifactRecord) -> ByteStream {
    let (sender, receiver) = pipe();
    let (mut plain, output) = pipe();
    tokio::spawn(pump(stored, sender));
    let (keys, record) = (keys.clone(), record.clone());
    tokio::task::spawn_blocking(move || match unseal(receiver, &mut plain, &keys, &record) {
        // A reader that is gone need not be told.
        Ok(()) => drop(plain.finish_blocking()),
        Err(error) => plain.fail_blocking(io::Error::new(error.kind(), format!("{}: {error}", record.file))),
    });
    Box::pin(output)
}

async fn pump(mut from: ByteStream, mut to: ByteSender) {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match from.read(&mut chunk).await {
            // A reader that is gone need not be told anything.
            Ok(0) => return drop(to.finish().await),
            Ok(read) => {
                if to.send(chunk.get(..read).unwrap_or_default().to_vec()).await.is_err() {
                    return;
                }
            }
            Err(error) => return to.fail(error).await,
        }
    }
}

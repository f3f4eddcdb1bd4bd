//! A vault in a bucket of a service that speaks as S3.
//!
//! An object is written under the condition that nothing is there, small ones at once, large ones in parts of equal size.
//! Whether the service keeps that condition is tried out before the first write: some do not know it and write over. Then
//! it is looked just before and just after each write, which is less, and [`S3Vault::guarantee`] says so.
//!
//! A write whose answer is lost is not known to have failed: each carries a mark of its own, by which it is recognized.

mod client;
mod upload;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kaleem_core::backup::{BackupVault, ByteStream, VaultEntry, VaultError, VaultPath, pipe};
use kaleem_core::secret::Secret;
use rusty_s3::actions::ListObjectsV2;
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};
use tokio::sync::OnceCell;

use self::client::{Asked, Client};

/// The mark of a write, in the object's own metadata.
const MARK: &str = "x-amz-meta-kaleem-write";
/// The smallest part that services take, unless it is the last.
const LEAST_PART: usize = 5 * 1024 * 1024;

/// How a bucket is named in addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BucketStyle {
    /// `https://host/bucket/…`: every service but the largest.
    Path,
    /// `https://bucket.host/…`.
    Host,
}

/// Where a bucket is, and who we are to it.
#[derive(Clone, Debug)]
pub struct S3Settings {
    /// Address of the service, such as `https://s3.eu-central-1.amazonaws.com`.
    pub endpoint: String,
    /// Region, such as `eu-central-1`; `auto` for services without any.
    pub region: String,
    /// The bucket, which must exist.
    pub bucket: String,
    /// How it is named in addresses.
    pub style: BucketStyle,
    /// What all keys begin with, such as `backups/shop`; empty for the whole bucket.
    pub prefix: String,
    /// The access key.
    pub key: Secret<String>,
    /// The secret key.
    pub secret: Secret<String>,
    /// The token of a session, where the keys are of one.
    pub token: Option<Secret<String>>,
    /// Length of each part of a large object but the last; at least 5 MiB. An object has 10,000 parts at most: 16 MiB make
    /// 156 GiB. Three are in memory at a time.
    pub part_bytes: usize,
    /// How long one request may go without an answer.
    pub answer_within: Duration,
    /// How often a request is sent before it is given up.
    pub attempts: u32,
}

/// What keeps an object from being written over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guarantee {
    /// The service refuses the second writer, also for objects in parts.
    Service,
    /// The service refuses the second writer of small objects, COMMIT among them; for objects in parts it is looked just
    /// before the last step, and a writer in that very moment is not seen.
    ServiceForSmall,
    /// The service knows no such condition: it is looked before and after each write, and of two writers in one moment the
    /// later one may win.
    Looked,
}

impl std::fmt::Display for Guarantee {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.pad(match self {
            Self::Service => "the service refuses a second writer",
            Self::ServiceForSmall => "the service refuses a second writer of small objects; large ones are looked at just before",
            Self::Looked => "the service would let a second writer win; it is looked before and after each write",
        })
    }
}

/// Settings that no bucket can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum S3SettingsError {
    /// The address is none, or has no host.
    #[error("the address of the S3 service is not valid")]
    Endpoint,
    /// The prefix holds what no key of ours may hold.
    #[error("`{prefix}` cannot be what keys begin with")]
    Prefix {
        /// As it was given.
        prefix: String,
    },
    /// Parts are smaller than services take.
    #[error("parts must have at least 5 MiB")]
    Parts,
    /// No client can be made.
    #[error("no HTTP client could be made: {reason}")]
    Client {
        /// Why.
        reason: String,
    },
}

impl kaleem_core::remedy::Remedy for S3SettingsError {
    fn remedy(&self) -> String {
        match self {
            Self::Endpoint => "give an address such as `https://s3.eu-central-1.amazonaws.com`".to_owned(),
            Self::Prefix { .. } => "use letters, digits, `-`, `_`, `.` and `/` between them".to_owned(),
            Self::Parts => "give a greater length of parts, such as 16 MiB".to_owned(),
            Self::Client { .. } => "check the certificates of this machine".to_owned(),
        }
    }
}

/// A [`BackupVault`] in a bucket.
pub struct S3Vault {
    client: Arc<Client>,
    bucket: Bucket,
    credentials: Credentials,
    prefix: String,
    place: String,
    part_bytes: usize,
    guarantee: OnceCell<Guarantee>,
}

impl std::fmt::Debug for S3Vault {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("S3Vault").field("place", &self.place).finish_non_exhaustive()
    }
}

impl S3Vault {
    /// The vault; nothing is asked yet.
    ///
    /// # Errors
    /// [`S3SettingsError`].
    pub fn new(settings: &S3Settings) -> Result<Self, S3SettingsError> {
        let (endpoint, _) = crate::web::address(&settings.endpoint).ok_or(S3SettingsError::Endpoint)?;
        let prefix = settings.prefix.trim_matches('/').to_owned();
        if !prefix.is_empty() && prefix.parse::<VaultPath>().is_err() {
            return Err(S3SettingsError::Prefix { prefix });
        }
        if settings.part_bytes < LEAST_PART {
            return Err(S3SettingsError::Parts);
        }
        let style = match settings.style {
            BucketStyle::Path => UrlStyle::Path,
            BucketStyle::Host => UrlStyle::VirtualHost,
        };
        let host = endpoint.host_str().unwrap_or_default().to_owned();
        let bucket =
            Bucket::new(endpoint, style, settings.bucket.clone(), settings.region.clone()).map_err(|_| S3SettingsError::Endpoint)?;
        let (key, secret) = (settings.key.expose().clone(), settings.secret.expose().clone());
        let credentials = match &settings.token {
            Some(token) => Credentials::new_with_token(key, secret, token.expose().clone()),
            None => Credentials::new(key, secret),
        };
        let below = if prefix.is_empty() { String::new() } else { format!("/{prefix}") };
        let place = format!("s3://{}{below} at {host}", settings.bucket);
        let http = crate::web::client(settings.answer_within)
            .map_err(|error| S3SettingsError::Client { reason: kaleem_core::remedy::one_line(&error.without_url()) })?;
        let client = Client { http, place: place.clone(), answer_within: settings.answer_within, attempts: settings.attempts.max(1) };
        let guarantee = OnceCell::new();
        Ok(Self { client: Arc::new(client), bucket, credentials, prefix, place, part_bytes: settings.part_bytes, guarantee })
    }

    /// What keeps an object from being written over; tried out with two small writes the first time it is asked.
    ///
    /// # Errors
    /// [`VaultError`] when the service could not be asked.
    pub async fn guarantee(&self) -> Result<Guarantee, VaultError> {
        self.guarantee.get_or_try_init(|| self.try_out()).await.copied()
    }

    fn key(&self, path: &VaultPath) -> String {
        if self.prefix.is_empty() { path.to_string() } else { format!("{}/{path}", self.prefix) }
    }

    async fn remove(&self, key: &str) -> Result<(), VaultError> {
        let url = self.bucket.delete_object(Some(&self.credentials), key).sign(self.client.signed_for());
        match self.client.ask("remove an object", reqwest::Method::DELETE, &url, &[], &[]).await? {
            Asked::Good(_) | Asked::Missing => Ok(()),
            other => Err(other.into_error(&self.client, "remove an object")),
        }
    }

    async fn page(&self, prefix: &str, token: Option<&str>) -> Result<rusty_s3::actions::ListObjectsV2Response, VaultError> {
        let mut action = self.bucket.list_objects_v2(Some(&self.credentials));
        action.with_prefix(prefix);
        if let Some(token) = token {
            action.with_continuation_token(token);
        }
        let url = action.sign(self.client.signed_for());
        let doing = "list objects";
        match self.client.ask(doing, reqwest::Method::GET, &url, &[], &[]).await? {
            Asked::Good(answer) => {
                let text = String::from_utf8_lossy(&answer.body);
                ListObjectsV2::parse_response(&text).map_err(|error| self.client.nonsense(doing, &error.to_string()))
            }
            other => Err(other.into_error(&self.client, doing)),
        }
    }
}

#[async_trait]
impl BackupVault for S3Vault {
    fn place(&self) -> String {
        self.place.clone()
    }

    async fn put_if_absent(&self, path: &VaultPath, body: ByteStream) -> Result<u64, VaultError> {
        self.store(path, body).await
    }

    async fn get(&self, path: &VaultPath) -> Result<ByteStream, VaultError> {
        let key = self.key(path);
        let sign = {
            let (bucket, credentials, client) = (self.bucket.clone(), self.credentials.clone(), Arc::clone(&self.client));
            move || bucket.get_object(Some(&credentials), &key).sign(client.signed_for())
        };
        let Some(mut reading) = self.client.open(sign).await? else {
            return Err(VaultError::Missing { place: self.place(), path: path.clone() });
        };
        let (mut sender, reader) = pipe();
        tokio::spawn(async move {
            loop {
                match reading.next().await {
                    // A reader that is gone need not be told anything.
                    Ok(Some(piece)) => {
                        if sender.send(piece).await.is_err() {
                            return;
                        }
                    }
                    Ok(None) => return drop(sender.finish().await),
                    Err(error) => return sender.fail(error).await,
                }
            }
        });
        Ok(Box::pin(reader))
    }

    async fn list(&self, prefix: &VaultPath) -> Result<Vec<VaultEntry>, VaultError> {
        let start = self.key(prefix);
        let below = format!("{start}/");
        let mut found = Vec::new();
        let (mut token, mut last): (Option<String>, Option<String>) = (None, None);
        loop {
            let page = self.page(&start, token.as_deref()).await?;
            for object in page.contents {
                // A page that is given twice, or leaves the order, is not a part of one listing.
                if last.as_ref().is_some_and(|last| *last >= object.key) {
                    return Err(self.client.nonsense("list objects", "the listing is not in order"));
                }
                let ours = object.key == start || object.key.starts_with(&below);
                last = Some(object.key.clone());
                if !ours {
                    continue;
                }
                let inside = if self.prefix.is_empty() { Some(object.key.as_str()) } else { object.key.get(self.prefix.len() + 1..) };
                let path = inside.and_then(|key| key.parse::<VaultPath>().ok());
                let (Some(path), Some(size_bytes)) = (path, object.size) else {
                    return Err(VaultError::Foreign { place: self.place(), what: object.key });
                };
                found.push(VaultEntry { path, size_bytes });
            }
            match page.next_continuation_token {
                Some(next) if token.as_ref() == Some(&next) => {
                    return Err(self.client.nonsense("list objects", "the listing goes in a circle"));
                }
                Some(next) => token = Some(next),
                None => break,
            }
        }
        found.sort();
        Ok(found)
    }

    async fn delete(&self, path: &VaultPath) -> Result<(), VaultError> {
        self.remove(&self.key(path)).await
    }
}

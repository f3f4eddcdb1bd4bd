//! Writing: small objects at once, large ones in parts of equal size, under the condition that nothing is there.

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use kaleem_core::backup::{ByteStream, VaultError, VaultPath};
use reqwest::Method;
use reqwest::header::{CONTENT_LENGTH, ETAG};
use rusty_s3::actions::{CreateMultipartUpload, S3Action as _};
use tokio::io::AsyncReadExt;

use super::client::Asked;
use super::{Guarantee, MARK, S3Vault};
use crate::random;

/// Parts on their way at a time.
const AT_ONCE: usize = 2;
const MOST_PARTS: u16 = 10_000;

/// What is at a key.
enum Found {
    Nothing,
    /// An object, with its length and the mark of its write.
    Object {
        size_bytes: u64,
        mark: String,
    },
}

/// As much as comes, up to `limit`.
async fn read_part(body: &mut ByteStream, limit: usize) -> std::io::Result<Vec<u8>> {
    let mut part = Vec::with_capacity(limit.min(1024 * 1024));
    body.take(limit as u64).read_to_end(&mut part).await?;
    Ok(part)
}

impl S3Vault {
    pub(super) async fn store(&self, path: &VaultPath, mut body: ByteStream) -> Result<u64, VaultError> {
        let key = self.key(path);
        let exists = || VaultError::Exists { place: self.place.clone(), path: path.clone() };
        let broken = |source| VaultError::Body { path: path.clone(), source };
        let guarantee = self.guarantee().await?;
        // Asked first in any case, so that a large body is not sent for nothing.
        if !matches!(self.look(&key).await?, Found::Nothing) {
            return Err(exists());
        }
        let mark = random::digits::<16>().map_err(|error| self.client.nonsense("choose a mark", &error.to_string()))?;
        let first = read_part(&mut body, self.part_bytes).await.map_err(broken)?;
        let length = if first.len() < self.part_bytes {
            let length = first.len() as u64;
            if !self.put(&key, Bytes::from(first), &mark, guarantee).await? {
                return Err(exists());
            }
            length
        } else {
            match self.put_in_parts(&key, first, &mut body, &mark, guarantee).await? {
                Stored::Whole(length) => length,
                Stored::Exists => return Err(exists()),
                Stored::Broken(source) => return Err(broken(source)),
            }
        };
        // What a service says is stored is looked at; what is in it is read back by whoever makes a set.
        match self.look(&key).await? {
            Found::Object { size_bytes, mark: found } if size_bytes == length && found == mark => Ok(length),
            // The other writer came between; ours was written over.
            Found::Object { mark: found, .. } if found != mark => Err(exists()),
            Found::Object { size_bytes, .. } => {
                Err(self.client.nonsense("store an object", &format!("{length} bytes were sent, and {size_bytes} are there")))
            }
            Found::Nothing => Err(self.client.nonsense("store an object", "it said that it did, and it is not there")),
        }
    }

    async fn look(&self, key: &str) -> Result<Found, VaultError> {
        let url = self.bucket.head_object(Some(&self.credentials), key).sign(self.client.signed_for());
        let doing = "look for an object";
        match self.client.ask(doing, Method::HEAD, &url, &[], &[]).await? {
            Asked::Missing => Ok(Found::Nothing),
            Asked::Good(answer) => {
                let text = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
                let size_bytes = text(CONTENT_LENGTH.as_str()).parse();
                let size_bytes = size_bytes.map_err(|_| self.client.nonsense(doing, "it does not say how long it is"))?;
                Ok(Found::Object { size_bytes, mark: text(MARK) })
            }
            other => Err(other.into_error(&self.client, doing)),
        }
    }

    /// Writes a small object; `false` when another is there.
    async fn put(&self, key: &str, bytes: Bytes, mark: &str, guarantee: Guarantee) -> Result<bool, VaultError> {
        let mut action = self.bucket.put_object(Some(&self.credentials), key);
        action.headers_mut().insert(MARK, mark.to_owned());
        let mut headers = vec![(MARK, mark.to_owned())];
        if guarantee != Guarantee::Looked {
            action.headers_mut().insert("if-none-match", "*");
            headers.push(("if-none-match", "*".to_owned()));
        }
        let url = action.sign(self.client.signed_for());
        let doing = "store an object";
        match self.client.ask_with(doing, Method::PUT, &url, &headers, bytes).await? {
            Asked::Good(_) => Ok(true),
            Asked::Condition(answer) if answer.repeated => self.is_ours(key, mark).await,
            Asked::Condition(_) => Ok(false),
            other => Err(other.into_error(&self.client, doing)),
        }
    }

    /// Whether what is there is what an earlier attempt, whose answer was lost, has written.
    async fn is_ours(&self, key: &str, mark: &str) -> Result<bool, VaultError> {
        Ok(matches!(self.look(key).await?, Found::Object { mark: found, .. } if found == mark))
    }

    async fn put_in_parts(
        &self,
        key: &str,
        first: Vec<u8>,
        body: &mut ByteStream,
        mark: &str,
        guarantee: Guarantee,
    ) -> Result<Stored, VaultError> {
        let mut action = self.bucket.create_multipart_upload(Some(&self.credentials), key);
        action.headers_mut().insert(MARK, mark.to_owned());
        let url = action.sign(self.client.signed_for());
        let doing = "begin an object of parts";
        let answer = match self.client.ask(doing, Method::POST, &url, &[(MARK, mark.to_owned())], &[]).await? {
            Asked::Good(answer) => answer,
            other => return Err(other.into_error(&self.client, doing)),
        };
        let begun = CreateMultipartUpload::parse_response(&String::from_utf8_lossy(&answer.body))
            .map_err(|error| self.client.nonsense(doing, &error.to_string()))?;
        let upload = begun.upload_id().to_owned();
        let stored = self.parts(key, &upload, first, body, mark, guarantee).await;
        if !matches!(stored, Ok(Stored::Whole(_))) {
            // Parts of an upload that is not completed are kept, and paid for, until it is given up.
            let url = self.bucket.abort_multipart_upload(Some(&self.credentials), key, &upload).sign(self.client.signed_for());
            self.client.ask("give up an object of parts", Method::DELETE, &url, &[], &[]).await.ok();
        }
        stored
    }

    async fn parts(
        &self,
        key: &str,
        upload: &str,
        first: Vec<u8>,
        body: &mut ByteStream,
        mark: &str,
        guarantee: Guarantee,
    ) -> Result<Stored, VaultError> {
        let mut tags: Vec<(u16, String)> = Vec::new();
        let mut length = 0_u64;
        let mut number = 0_u16;
        let mut next = Some(first);
        let mut running = FuturesUnordered::new();
        while let Some(part) = next.take() {
            number += 1;
            if number > MOST_PARTS {
                let most = self.part_bytes as u64 * u64::from(MOST_PARTS) / 1024 / 1024 / 1024;
                let reason = format!("it is longer than {most} GiB, which is {MOST_PARTS} parts; make the parts longer");
                return Ok(Stored::Broken(std::io::Error::other(reason)));
            }
            let whole = part.len() == self.part_bytes;
            length += part.len() as u64;
            running.push(self.part(key, upload, number, Bytes::from(part)));
            if running.len() >= AT_ONCE
                && let Some(sent) = running.next().await
            {
                tags.push(sent?);
            }
            if !whole {
                break;
            }
            let mut reading = std::pin::pin!(read_part(body, self.part_bytes));
            // Parts go on their way while the next one is read, however long that takes.
            let read = loop {
                tokio::select! {
                    read = &mut reading => break read,
                    Some(sent) = running.next(), if !running.is_empty() => tags.push(sent?),
                }
            };
            match read {
                Ok(part) if part.is_empty() => (),
                Ok(part) => next = Some(part),
                Err(source) => return Ok(Stored::Broken(source)),
            }
        }
        while let Some(sent) = running.next().await {
            tags.push(sent?);
        }
        tags.sort_unstable();
        match self.complete(key, upload, &tags, mark, guarantee).await? {
            true => Ok(Stored::Whole(length)),
            false => Ok(Stored::Exists),
        }
    }

    async fn part(&self, key: &str, upload: &str, number: u16, bytes: Bytes) -> Result<(u16, String), VaultError> {
        let url = self.bucket.upload_part(Some(&self.credentials), key, number, upload).sign(self.client.signed_for());
        let doing = "store a part";
        match self.client.ask_with(doing, Method::PUT, &url, &[], bytes).await? {
            Asked::Good(answer) => {
                let tag = answer.headers.get(ETAG).and_then(|tag| tag.to_str().ok()).map(str::to_owned);
                Ok((number, tag.ok_or_else(|| self.client.nonsense(doing, "it names no tag"))?))
            }
            other => Err(other.into_error(&self.client, doing)),
        }
    }

    /// Makes an object of the parts; `false` when another is there.
    async fn complete(
        &self,
        key: &str,
        upload: &str,
        tags: &[(u16, String)],
        mark: &str,
        guarantee: Guarantee,
    ) -> Result<bool, VaultError> {
        let doing = "complete an object of parts";
        // Services that know the condition for small objects need not know it here: then this is what there is.
        if !matches!(self.look(key).await?, Found::Nothing) {
            return Ok(false);
        }
        let mut conditions = vec![false];
        if guarantee == Guarantee::Service {
            conditions.insert(0, true);
        }
        for conditional in conditions {
            let etags = tags.iter().map(|(_, tag)| tag.as_str());
            let mut action = self.bucket.complete_multipart_upload(Some(&self.credentials), key, upload, etags);
            let mut headers = Vec::new();
            if conditional {
                action.headers_mut().insert("if-none-match", "*");
                headers.push(("if-none-match", "*".to_owned()));
            }
            let url = action.sign(self.client.signed_for());
            match self.client.ask(doing, Method::POST, &url, &headers, action.body().as_bytes()).await? {
                Asked::Good(_) => return Ok(true),
                Asked::Condition(answer) if answer.repeated => return self.is_ours(key, mark).await,
                Asked::Condition(_) => return Ok(false),
                // An earlier attempt whose answer was lost may have used the upload up.
                Asked::Missing => return self.is_ours(key, mark).await,
                Asked::Refused(_, code) if code == "NoSuchUpload" => return self.is_ours(key, mark).await,
                Asked::Unknown(_) if conditional => (),
                other => return Err(other.into_error(&self.client, doing)),
            }
        }
        Err(self.client.nonsense(doing, "it does not know the request"))
    }

    /// Writes one small object twice: a service that keeps the condition refuses the second.
    pub(super) async fn try_out(&self) -> Result<Guarantee, VaultError> {
        let name = random::digits::<16>().map_err(|error| self.client.nonsense("choose a name", &error.to_string()))?;
        let key = if self.prefix.is_empty() { format!("probe-{name}") } else { format!("{}/probe-{name}", self.prefix) };
        let outcome = self.try_key(&key).await;
        let removed = self.remove(&key).await;
        let guarantee = outcome?;
        removed.map(|()| guarantee)
    }

    async fn try_key(&self, key: &str) -> Result<Guarantee, VaultError> {
        let doing = "store an object";
        let mut action = self.bucket.put_object(Some(&self.credentials), key);
        action.headers_mut().insert("if-none-match", "*");
        let url = action.sign(self.client.signed_for());
        let headers = [("if-none-match", "*".to_owned())];
        let write = || self.client.ask(doing, Method::PUT, &url, &headers, b"kaleem tries out whether this can be written over\n");
        match write().await? {
            Asked::Good(_) => (),
            Asked::Condition(answer) if answer.repeated => (),
            Asked::Unknown(_) => return Ok(Guarantee::Looked),
            other => return Err(other.into_error(&self.client, doing)),
        }
        match write().await? {
            Asked::Good(_) => Ok(Guarantee::Looked),
            Asked::Condition(_) => self.try_parts(key).await,
            other => Err(other.into_error(&self.client, doing)),
        }
    }

    /// The same for an object of one part, at the key where an object is already.
    async fn try_parts(&self, key: &str) -> Result<Guarantee, VaultError> {
        let doing = "begin an object of parts";
        let url = self.bucket.create_multipart_upload(Some(&self.credentials), key).sign(self.client.signed_for());
        let answer = match self.client.ask(doing, Method::POST, &url, &[], &[]).await? {
            Asked::Good(answer) => answer,
            other => return Err(other.into_error(&self.client, doing)),
        };
        let begun = CreateMultipartUpload::parse_response(&String::from_utf8_lossy(&answer.body))
            .map_err(|error| self.client.nonsense(doing, &error.to_string()))?;
        let upload = begun.upload_id();
        let (_, tag) = self.part(key, upload, 1, Bytes::from_static(b"one part")).await?;
        let mut action = self.bucket.complete_multipart_upload(Some(&self.credentials), key, upload, std::iter::once(tag.as_str()));
        action.headers_mut().insert("if-none-match", "*");
        let url = action.sign(self.client.signed_for());
        let headers = [("if-none-match", "*".to_owned())];
        let completed = self.client.ask("complete an object of parts", Method::POST, &url, &headers, action.body().as_bytes()).await?;
        let url = self.bucket.abort_multipart_upload(Some(&self.credentials), key, upload).sign(self.client.signed_for());
        self.client.ask("give up an object of parts", Method::DELETE, &url, &[], &[]).await?;
        Ok(if matches!(completed, Asked::Condition(_)) { Guarantee::Service } else { Guarantee::ServiceForSmall })
    }
}

enum Stored {
    Whole(u64),
    Exists,
    Broken(std::io::Error),
}

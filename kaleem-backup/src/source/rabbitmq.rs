//! A RabbitMQ broker: its definitions over the management API. Messages are not covered, and said not to be.
//!
//! The definitions hold the hashes of users' passwords: a set of them is to be encrypted. A restore posts them, removes
//! what is not among them, and reads them back; a queue that would have to go while it holds messages ends it before
//! anything else is changed. What the broker says of a queue's depth is seconds old, so a queue goes on the condition
//! that it is empty, which the broker itself judges at that moment.

mod restore;

use std::time::Duration;

use async_trait::async_trait;
use kaleem_core::backup::{
    BackupSource, ByteSender, ByteStream, Consistency, Contents, Exported, RestoreMode, SourceError, SourceIdentity, SourceKind,
};
use kaleem_core::names::ArtifactName;
use kaleem_core::secret::Secret;
use reqwest::Method;
use serde_json::Value;

use crate::format::definitions::{self, Definitions};
use crate::web::{Login, Web, address};

/// Queues whose depth is told one by one; of the rest the sum is told.
const MOST_TOLD: usize = 50;

/// A [`BackupSource`] of a RabbitMQ broker.
#[derive(Clone, Debug)]
pub struct RabbitmqSource {
    identity: SourceIdentity,
    web: Web,
    /// Who is logged in.
    user: String,
}

/// A queue as the broker tells it.
struct Depth {
    vhost: String,
    name: String,
    /// `None` where the broker does not know yet.
    messages: Option<u64>,
    /// The kind that can be removed on the condition that it is empty.
    is_classic: bool,
    /// It belongs to one connection, and goes with it.
    is_exclusive: bool,
}

impl RabbitmqSource {
    /// A source of the broker whose management API is at `url`: `http://user:password@host:15672`. The user must be an
    /// administrator. Nothing is asked yet. `answer_within` is for each question.
    ///
    /// # Errors
    /// [`SourceError::Denied`] when the address is not valid, or has no user; it is not shown.
    pub fn new(name: ArtifactName, url: &Secret<String>, answer_within: Duration) -> Result<Self, SourceError> {
        let refuse = |reason: &str| SourceError::Denied { store: "rabbitmq".to_owned(), doing: "connect", reason: reason.to_owned() };
        let (base, login) = address(url.expose()).ok_or_else(|| refuse("the address of its management API is not valid"))?;
        let (user, password) = login.ok_or_else(|| refuse("the address of its management API names no user"))?;
        let web = Web::new("rabbitmq", base, Login::Basic { user: user.clone(), password }, answer_within)?;
        Ok(Self { identity: SourceIdentity { name, kind: SourceKind::Rabbitmq }, web, user })
    }

    async fn definitions(&self) -> Result<(Vec<u8>, Definitions), SourceError> {
        let bytes = self.web.expect("read its definitions", Method::GET, &["api", "definitions"], &[], None).await?;
        if bytes.len() as u64 > definitions::LONGEST {
            let reason = format!("its definitions are longer than {} MiB", definitions::LONGEST / 1024 / 1024);
            return Err(SourceError::Unsupported { what: self.web.store.clone(), reason });
        }
        let read = Definitions::read(&bytes).map_err(|error| self.web.failed("reading its definitions", error.to_string()))?;
        Ok((bytes, read))
    }

    async fn depths(&self) -> Result<Vec<Depth>, SourceError> {
        let query = [("columns", "vhost,name,messages,type,exclusive")];
        let listed = self.web.json("read its queues", Method::GET, &["api", "queues"], &query, None).await?;
        let listed = listed.as_array().ok_or_else(|| self.web.failed("reading its queues", "they are no list"))?;
        let text = |queue: &Value, field: &str| queue.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let depth = |queue: &Value| Depth {
            vhost: text(queue, "vhost"),
            name: text(queue, "name"),
            messages: queue.get("messages").and_then(Value::as_u64),
            is_classic: text(queue, "type") == "classic",
            is_exclusive: queue.get("exclusive").and_then(Value::as_bool).unwrap_or_default(),
        };
        Ok(listed.iter().map(depth).collect())
    }
}

fn notes(depths: &[Depth]) -> Vec<String> {
    let mut notes = vec!["messages are not included; the file holds the hashes of users' passwords".to_owned()];
    let mut held: Vec<(&Depth, u64)> =
        depths.iter().filter_map(|queue| Some((queue, queue.messages.filter(|messages| *messages > 0)?))).collect();
    held.sort_by_key(|(_, messages)| std::cmp::Reverse(*messages));
    for (queue, messages) in held.iter().take(MOST_TOLD) {
        notes.push(format!("the queue `{}` of `{}` held {messages} messages", queue.name, queue.vhost));
    }
    let rest = held.iter().skip(MOST_TOLD);
    if held.len() > MOST_TOLD {
        let sum: u64 = rest.map(|(_, messages)| messages).sum();
        notes.push(format!("{} more queues held {sum} messages", held.len() - MOST_TOLD));
    }
    let unknown = depths.iter().filter(|queue| queue.messages.is_none()).count();
    if unknown > 0 {
        notes.push(format!("of {unknown} queues the broker did not say how many messages they held"));
    }
    notes
}

#[async_trait]
impl BackupSource for RabbitmqSource {
    fn identity(&self) -> &SourceIdentity {
        &self.identity
    }

    async fn export(&self, out: &mut ByteSender) -> Result<Exported, SourceError> {
        let (bytes, read) = self.definitions().await?;
        let mut notes = notes(&self.depths().await?);
        let contents = read.contents();
        out.send(bytes).await.map_err(|source| SourceError::Output { source })?;
        let consistency = match self.definitions().await?.1.contents() == contents {
            // They were the same before and after: they were so at every moment between.
            true => Consistency::Snapshot,
            false => {
                notes.push("definitions were changed while they were read".to_owned());
                Consistency::None
            }
        };
        Ok(Exported { contents, consistency, notes })
    }

    async fn verify(&self, input: ByteStream) -> Result<Contents, SourceError> {
        definitions::verify(input).await
    }

    async fn restore(&self, input: ByteStream, mode: RestoreMode) -> Result<Contents, SourceError> {
        let wanted = Definitions::read(&definitions::collect(input).await?)?;
        self.put_back(&wanted, mode).await
    }

    async fn inspect(&self) -> Result<Contents, SourceError> {
        Ok(self.definitions().await?.1.contents())
    }
}

//! The definitions of a RabbitMQ broker, as its management API tells them and `rabbitmqctl import_definitions` reads them.

use std::collections::BTreeMap;

use kaleem_core::backup::{ByteStream, Content, Contents, SourceError};
use serde_json::Value;
use tokio::io::AsyncReadExt;

use super::{UnorderedDigest, canonical};

const FORMAT: &str = "file of definitions";
/// The longest file that is taken: it is held in memory, which is bounded.
pub(crate) const LONGEST: u64 = 32 * 1024 * 1024;
/// Parts that every broker tells, also when they are empty.
const ALWAYS: [&str; 4] = ["users", "vhosts", "queues", "exchanges"];

/// Definitions by their kind: `users`, `queues` and so on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Definitions {
    pub(crate) parts: BTreeMap<String, Vec<Value>>,
}

impl Definitions {
    /// Reads a whole file.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, SourceError> {
        let damaged = |reason: String| SourceError::Malformed { format: FORMAT, at_bytes: bytes.len() as u64, reason };
        let whole: Value = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        let Value::Object(fields) = whole else { return Err(damaged("it is no JSON object".to_owned())) };
        let mut parts = BTreeMap::new();
        for (name, value) in fields {
            // What is no list says which server and which version wrote the file.
            if let Value::Array(items) = value {
                parts.insert(name, items);
            }
        }
        if let Some(missing) = ALWAYS.iter().find(|name| !parts.contains_key(**name)) {
            return Err(damaged(format!("it has no list of {missing}")));
        }
        Ok(Self { parts })
    }

    /// The definitions of one kind.
    pub(crate) fn of(&self, kind: &str) -> &[Value] {
        self.parts.get(kind).map(Vec::as_slice).unwrap_or_default()
    }

    /// Counts and digests of each kind; one that has none is not named, since versions differ in which they tell.
    pub(crate) fn contents(&self) -> Contents {
        let mut contents = Contents::new();
        for (kind, items) in self.parts.iter().filter(|(_, items)| !items.is_empty()) {
            let mut digest = UnorderedDigest::default();
            items.iter().for_each(|item| digest.add(canonical::text(item).as_bytes()));
            contents.insert(kind.clone(), Content { count: digest.count(), digest: digest.hex() });
        }
        contents
    }
}

/// Reads a stream to its end, as long as it may be.
pub(crate) async fn collect(input: ByteStream) -> Result<Vec<u8>, SourceError> {
    let mut bytes = Vec::new();
    input.take(LONGEST + 1).read_to_end(&mut bytes).await.map_err(|source| SourceError::Input { source })?;
    if bytes.len() as u64 > LONGEST {
        let reason = format!("it is longer than {} MiB", LONGEST / 1024 / 1024);
        return Err(SourceError::Malformed { format: FORMAT, at_bytes: LONGEST, reason });
    }
    Ok(bytes)
}

/// Reads definitions to their end, and answers what is in them.
///
/// # Errors
/// [`SourceError`] unless they are whole.
pub async fn verify(input: ByteStream) -> Result<Contents, SourceError> {
    Ok(Definitions::read(&collect(input).await?)?.contents())
}

//! The formats of artifacts: how bytes are known to be whole and sound without the store that they came from.

#[cfg(feature = "web")]
pub(crate) mod canonical;
mod crc64;
mod digest;
#[cfg(any(feature = "qdrant", feature = "redis"))]
mod tarball;
#[cfg(feature = "qdrant")]
pub mod bundle;
#[cfg(feature = "rabbitmq")]
pub mod definitions;
#[cfg(feature = "command")]
pub mod output;
#[cfg(feature = "files")]
pub mod tree;
#[cfg(feature = "mongodb")]
pub mod mongo_archive;
#[cfg(feature = "mongodb")]
pub mod mongo_metadata;
#[cfg(feature = "redis")]
pub mod rdb;
#[cfg(feature = "redis")]
pub mod redis_cluster;

pub use crc64::Crc64;
pub use digest::UnorderedDigest;

use kaleem_core::backup::{ByteStream, Contents, SourceError, SourceKind};

/// Reads plain bytes of `kind` to their end, and answers what is in them.
///
/// # Errors
/// [`SourceError::Malformed`] when they are not whole and sound; [`SourceError::Unsupported`] when this program was built
/// without the reader for them.
pub async fn verify(kind: SourceKind, input: ByteStream) -> Result<Contents, SourceError> {
    match kind {
        #[cfg(feature = "mongodb")]
        SourceKind::Mongodb => mongo_archive::verify(input).await,
        #[cfg(feature = "redis")]
        SourceKind::Redis => redis_cluster::verify(input).await,
        #[cfg(feature = "files")]
        SourceKind::Files => tree::verify(input).await,
        #[cfg(feature = "qdrant")]
        SourceKind::Qdrant => bundle::verify(input).await,
        #[cfg(feature = "rabbitmq")]
        SourceKind::Rabbitmq => definitions::verify(input).await,
        #[cfg(feature = "command")]
        SourceKind::Command => output::verify(input).await,
        other => {
            drop(input);
            Err(SourceError::Unsupported { what: format!("an artifact of {other}"), reason: "there is no reader for it".to_owned() })
        }
    }
}

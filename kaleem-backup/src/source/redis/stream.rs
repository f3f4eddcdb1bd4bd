//! Reading a server out as a replica would. What is passed on is read at the same time, so that a file that is not whole
//! does not end well.

use kaleem_core::backup::{ByteSender, PipeReader, SourceError, pipe};

use super::wire::Connection;
use crate::format::rdb::{RdbItem, RdbReader, RdbValues};

/// Passes a file of that length on; every item of it goes through `item`, every piece through `seen`.
pub(super) async fn pass_on(
    connection: &mut Connection,
    length: u64,
    out: &mut ByteSender,
    item: impl FnMut(&RdbItem) -> Result<(), SourceError> + Send,
    seen: impl FnMut(&[u8]) + Send,
) -> Result<RdbReader, SourceError> {
    let (mut copy, receiver) = pipe();
    let streaming = async move {
        connection.pass_on_to_both(length, out, &mut copy, seen).await?;
        // A reader that has given up says why.
        copy.finish().await.ok();
        Ok(())
    };
    let (streamed, read) = tokio::join!(streaming, items(receiver, item));
    verdict(streamed, read)
}

/// Reads everything that a server has.
pub(super) async fn read(
    connection: &mut Connection,
    item: impl FnMut(&RdbItem) -> Result<(), SourceError> + Send,
) -> Result<RdbReader, SourceError> {
    connection.become_replica().await?;
    let length = connection.file_length().await?;
    let (mut copy, receiver) = pipe();
    let streaming = async move {
        connection.pass_on(length, &mut copy).await?;
        // As above.
        copy.finish().await.ok();
        Ok(())
    };
    let (streamed, read) = tokio::join!(streaming, items(receiver, item));
    verdict(streamed, read)
}

async fn items(receiver: PipeReader, mut item: impl FnMut(&RdbItem) -> Result<(), SourceError> + Send) -> Result<RdbReader, SourceError> {
    let mut reader = RdbReader::open(Box::pin(receiver) as _, RdbValues::Skip).await?;
    while let Some(found) = reader.next().await? {
        item(&found)?;
    }
    Ok(reader)
}

fn verdict(streamed: Result<(), SourceError>, read: Result<RdbReader, SourceError>) -> Result<RdbReader, SourceError> {
    match (streamed, read) {
        (Ok(()), read) => read,
        // The reader's own verdict ends the stream to it; else it only tells that the stream ended.
        (Err(SourceError::Output { .. }), Err(error)) if !matches!(error, SourceError::Input { .. }) => Err(error),
        (Err(error), _) => Err(error),
    }
}

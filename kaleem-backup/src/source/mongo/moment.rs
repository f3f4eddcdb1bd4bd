//! The one moment of which everything is shown, and whether the server keeps to it.

use kaleem_core::backup::{Consistency, SourceError};
use mongodb::bson::{Bson, Document, RawDocumentBuf, Timestamp, doc};
use mongodb::error::ErrorKind;

use super::MongoSource;
use crate::format::mongo_archive::ArchiveCollection;

/// A moment before every server's first: one that keeps to moments has nothing to show for it.
const LONG_AGO: Timestamp = Timestamp { time: 1, increment: 1 };

/// Matches nothing, which the index of the ids tells at once: it is the moment that is asked for, and not a document.
fn nothing() -> Document {
    doc! { "_id": Bson::MinKey }
}

/// How everything is read.
pub(super) struct Moment {
    /// The cluster time of which everything is read; `None` where that cannot be had.
    pub(super) time: Option<Timestamp>,
    pub(super) consistency: Consistency,
    pub(super) notes: Vec<String>,
}

/// Whether a collection can be read in a snapshot.
pub(super) fn is_plain(collection: &ArchiveCollection) -> bool {
    collection.kind != "view" && !collection.metadata.options.get_bool("capped").unwrap_or(false)
}

impl MongoSource {
    /// One moment for everything, when the server can do that.
    pub(super) async fn moment(&self, found: &[ArchiveCollection]) -> Result<Moment, SourceError> {
        let plain = |note: String| Moment { time: None, consistency: Consistency::PerCollection, notes: vec![note] };
        if !self.scope.one_moment {
            return Ok(plain("one moment for everything was not asked for".to_owned()));
        }
        let hello = self.client.database("admin").run_command(doc! { "hello": 1 }).await.map_err(self.failed("greeting it"))?;
        if !hello.contains_key("setName") && hello.get_str("msg").ok() != Some("isdbgrid") {
            return Ok(plain("the server is no replica set, so it cannot show one moment".to_owned()));
        }
        let Some(first) = found.iter().find(|collection| is_plain(collection)) else {
            return Ok(plain("there is nothing of which one moment could be shown".to_owned()));
        };
        // The first read chooses the moment; a server that cannot do it says so here.
        let mut session = self.client.start_session().snapshot(true).await.map_err(self.failed("opening a session"))?;
        let documents = self.client.database(&first.database).collection::<RawDocumentBuf>(&first.collection);
        if let Err(error) = documents.find(nothing()).limit(1).session(&mut session).await {
            return match error.kind.as_ref() {
                ErrorKind::Command(refusal) => Ok(plain(format!("the server does not show one moment: {}", refusal.message))),
                _ => Err(self.failed("choosing a moment")(error)),
            };
        }
        let Some(time) = session.snapshot_time() else {
            return Ok(plain("the server did not say which moment it shows".to_owned()));
        };
        if !self.keeps_to_moments(first).await? {
            return Ok(plain("the server names one moment for everything, and does not keep to it".to_owned()));
        }
        let notes = vec![format!("everything is as of the cluster time {}.{}", time.time, time.increment)];
        let mut moment = Moment { time: Some(time), consistency: Consistency::Snapshot, notes };
        if let Some(capped) = found.iter().find(|collection| collection.kind != "view" && !is_plain(collection)) {
            // Servers refuse to read capped collections in a snapshot.
            moment.consistency = Consistency::PerCollection;
            moment.notes.push(format!("{} is capped, and is read outside the one moment of the others", capped.namespace()));
        }
        Ok(moment)
    }

    /// Asks for a moment that the server cannot have. One that answers it all the same ignores which moment is asked for.
    async fn keeps_to_moments(&self, first: &ArchiveCollection) -> Result<bool, SourceError> {
        let command = doc! {
            "find": &first.collection, "filter": nothing(), "limit": 1, "singleBatch": true,
            "readConcern": { "level": "snapshot", "atClusterTime": LONG_AGO },
        };
        match self.client.database(&first.database).run_command(command).await {
            Ok(_) => Ok(false),
            Err(error) if matches!(error.kind.as_ref(), ErrorKind::Command(_)) => Ok(true),
            Err(error) => Err(self.failed("asking for a moment that it cannot have")(error)),
        }
    }
}

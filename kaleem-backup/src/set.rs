//! Making, reading, checking and putting back of whole sets.
//!
//! The order is the promise: artifacts, read back and checked; then instructions and manifest; COMMIT last. Whatever dies
//! on the way leaves something without a COMMIT, which nobody takes for a set.

mod create;
mod error;
mod read;

pub use create::{CreateRequest, create, discard, hold, release};
pub use error::{Grade, SetFailure};
pub use read::{
    Copied, SetEntry, SetState, copy, difference, list, of_collection, open_artifact, put_back, read, restore, verify, verify_artifact,
    verify_stored,
};

use jiff::Timestamp;
use kaleem_core::backup::{ByteStream, VaultPath};
use kaleem_core::names::{NameError, SetId};

/// The name of a new set: the time, for people, and random digits, which make it one of its own.
///
/// # Errors
/// [`SetFailure::Random`] when the system has no random numbers.
pub fn new_id(now: Timestamp) -> Result<SetId, SetFailure> {
    let mut random = [0; 4];
    getrandom::fill(&mut random).map_err(|source| SetFailure::Random { source })?;
    let time = now.strftime("%Y%m%dt%H%M%Sz").to_string();
    format!("{time}-{}", hex::encode(random)).parse().map_err(|source| SetFailure::Name { source })
}

pub(crate) fn bytes_stream(bytes: Vec<u8>) -> ByteStream {
    Box::pin(std::io::Cursor::new(bytes))
}

fn root() -> Result<VaultPath, NameError> {
    "sets".parse()
}

fn directory(set: &SetId) -> Result<VaultPath, NameError> {
    format!("sets/{set}").parse()
}

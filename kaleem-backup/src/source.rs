//! Stores that are backed up.

#[cfg(feature = "files")]
pub mod files;
#[cfg(feature = "mongodb")]
pub mod mongo;
#[cfg(feature = "redis")]
pub mod redis;

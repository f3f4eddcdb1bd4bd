//! Stores that are backed up.

pub mod away;
#[cfg(feature = "command")]
pub mod command;
#[cfg(feature = "files")]
pub mod files;
#[cfg(feature = "mongodb")]
pub mod mongo;
#[cfg(feature = "qdrant")]
pub mod qdrant;
#[cfg(feature = "rabbitmq")]
pub mod rabbitmq;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "files")]
pub mod volume;

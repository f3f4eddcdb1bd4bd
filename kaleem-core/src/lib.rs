//! kaleem turns a Docker Compose project into releases.

pub mod remedy;
pub mod names;
pub mod image;
pub mod secret;
pub mod clock;
pub mod durable;
pub mod exec;
pub mod definition;
pub mod registry;
pub mod runtime;
pub mod health;
pub mod traffic;
pub mod config;
pub mod release;
pub mod observed;
pub mod plan;
pub mod outcome;
pub mod state;
pub mod journal;
pub mod lease;
pub mod engine;
pub mod history;
pub mod kaleem;
#[cfg(feature = "testing")]
pub mod testing;

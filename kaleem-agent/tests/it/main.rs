//! Tests against real processes.

mod client;
mod instance;
mod requests;
mod world;

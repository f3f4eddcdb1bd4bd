//! Tests against real processes.

mod client;
mod instance;
mod requests;
mod world;
mod draining;
mod holding;
mod hostile;
mod switching;
mod lifecycle;
mod tunnels;
mod contract;
